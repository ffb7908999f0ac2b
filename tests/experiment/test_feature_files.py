"""Feature spaces of your own."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet
from typer.testing import CliRunner

from calcarine import datasets
from calcarine.cli.main import app
from calcarine.errors import CalcarineError
from calcarine.experiment import load_experiment
from calcarine.experiment.feature_files import read_feature_file

SMALL = "{n_train: 40, n_test: 8, n_sessions: 2, n_early: 12, n_ventral: 12, n_other: 4}"


@pytest.fixture(scope="module")
def stimuli():
    options = {"n_train": 10, "n_test": 4, "n_early": 4, "n_ventral": 4, "n_other": 2}
    return datasets.load_dataset("simulated", **options).stimuli


@pytest.fixture
def values(stimuli):
    return np.random.default_rng(0).normal(size=(len(stimuli), 3)).astype(np.float32)


def test_rows_without_ids_are_those_of_the_stimuli(stimuli, values, tmp_path):
    np.save(tmp_path / "own.npy", values)
    np.testing.assert_array_equal(read_feature_file("own", tmp_path / "own.npy", stimuli), values)


@pytest.mark.parametrize("where", ["archive", "json", "csv"])
def test_ids_put_rows_in_order(stimuli, values, tmp_path, where):
    order = np.random.default_rng(1).permutation(len(values))
    ids = [*(stimuli.ids[row] for row in order), "not shown"]
    shuffled = np.concatenate([values[order], values[:1]])
    file = tmp_path / ("own.npz" if where == "archive" else "own.npy")
    if where == "archive":
        np.savez(file, features=shuffled, ids=np.array(ids))
    else:
        np.save(file, shuffled)
    if where == "json":
        (tmp_path / "own.json").write_text(json.dumps(ids))
    if where == "csv":
        pd.DataFrame({"id": ids}).to_csv(tmp_path / "own.csv", index=False)
    np.testing.assert_array_equal(read_feature_file("own", file, stimuli), values)


@pytest.mark.parametrize(
    ("change", "ids", "message"),
    [
        (lambda v, s: v[:-1], None, "have 13 rows, and the data set has 14 stimuli"),
        (lambda v, s: v[:, 0], None, "at least one column"),
        (lambda v, s: v.astype(str), None, "features are numbers"),
        (lambda v, s: np.where(v == v[0, 0], np.nan, v), None, "not finite"),
        (lambda v, s: v[:-1], lambda s: s.ids[:-1], "lack 1 of 14 stimuli, the first"),
        (lambda v, s: v, lambda s: s.ids[:-1], "14 rows and 13 ids"),
        (lambda v, s: v, lambda s: [s.ids[0], *s.ids[:-1]], "twice"),
    ],
)
def test_wrong_files_get_one_sentence(stimuli, values, tmp_path, change, ids, message):
    arrays = {"features": change(values, stimuli)}
    if ids is not None:
        arrays["ids"] = np.array(ids(stimuli))
    np.savez(tmp_path / "own.npz", **arrays)
    with pytest.raises(CalcarineError, match=message) as caught:
        read_feature_file("own", tmp_path / "own.npz", stimuli)
    assert "\n" not in str(caught.value)


def shuffled(stimuli, values):
    order = np.random.default_rng(1).permutation(len(values))
    ids = [*(stimuli.ids[row] for row in order), "not shown"]
    return ids, np.concatenate([values[order], values[:1]])


@pytest.mark.parametrize("form", ["lists", "fixed", "columns", "json"])
def test_parquet_holds_vectors_with_ids(stimuli, values, tmp_path, form):
    ids, rows = shuffled(stimuli, values)
    file = tmp_path / "own.parquet"
    if form == "columns":
        content = {"id": ids} | {f"v{i}": rows[:, i] for i in range(3)}
    elif form == "fixed":
        flat = pa.array(rows.ravel())
        content = {"id": ids, "own": pa.FixedSizeListArray.from_arrays(flat, 3)}
    else:
        content = {"id": ids, "own": rows.astype(np.float64).tolist()}
    if form == "json":
        (tmp_path / "own.json").write_text(json.dumps(content.pop("id")))
    # Row groups become chunks of the columns.
    parquet.write_table(pa.table(content), file, row_group_size=4)
    np.testing.assert_array_equal(read_feature_file("own", file, stimuli), values)


def test_parquet_of_pandas_may_have_an_index(stimuli, values, tmp_path):
    table = pd.DataFrame(values, columns=["a", "b", "c"], index=np.arange(len(values)) + 5)
    table.assign(id=stimuli.ids).to_parquet(tmp_path / "own.parquet")
    assert "__index_level_0__" in parquet.read_schema(tmp_path / "own.parquet").names
    found = read_feature_file("own", tmp_path / "own.parquet", stimuli)
    np.testing.assert_array_equal(found, values)


def test_parquet_keeps_the_shape_of_tokens(stimuli, tmp_path):
    tokens = np.random.default_rng(0).normal(size=(len(stimuli), 5, 2)).astype(np.float32)
    ids, rows = shuffled(stimuli, tokens)
    parquet.write_table(pa.table({"id": ids, "t": rows.tolist()}), tmp_path / "t.parquet")
    np.testing.assert_array_equal(read_feature_file("t", tmp_path / "t.parquet", stimuli), tokens)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t | {"own": [[1.0]] * 13 + [[1.0, 2.0]]}, "unequal lengths"),
        (lambda t: t | {"own": [[1.0]] * 13 + [None]}, "unequal lengths"),
        (lambda t: t | {"own": [[1.0]] * 13 + [[None]]}, "other values than numbers"),
        (lambda t: t | {"own": [["a"]] * 14}, "other values than numbers"),
        (lambda t: t | {"text": ["a"] * 14}, "column own of .* other values than numbers"),
        (lambda t: {"id": t["id"], "x": [1.0] * 13 + [None]}, "column x of"),
        (lambda t: {"id": t["id"]}, "must hold one array of features"),
        (lambda t: t | {"id": [*t["id"][:-1], None]}, "column id of .* lacks values"),
        (lambda t: t | {"id": [*t["id"][:-1], t["id"][0]]}, "twice"),
    ],
)
def test_wrong_parquet_gets_one_sentence(stimuli, values, tmp_path, change, message):
    table = {"id": list(stimuli.ids), "own": values.tolist()}
    parquet.write_table(pa.table(change(table)), tmp_path / "own.parquet")
    with pytest.raises(CalcarineError, match=message) as caught:
        read_feature_file("own", tmp_path / "own.parquet", stimuli)
    assert "\n" not in str(caught.value)


def test_missing_and_damaged_parquet(stimuli, tmp_path):
    with pytest.raises(CalcarineError, match="There is no file"):
        read_feature_file("own", tmp_path / "own.parquet", stimuli)
    (tmp_path / "own.parquet").write_bytes(b"nothing")
    with pytest.raises(CalcarineError, match="cannot be read as parquet"):
        read_feature_file("own", tmp_path / "own.parquet", stimuli)


def test_other_files_are_refused(stimuli, values, tmp_path):
    with pytest.raises(CalcarineError, match=r"save them as \.npy, \.npz or \.parquet"):
        read_feature_file("own", tmp_path / "own.csv", stimuli)
    with pytest.raises(CalcarineError, match="There is no file"):
        read_feature_file("own", tmp_path / "own.npy", stimuli)
    np.savez(tmp_path / "two.npz", a=values, b=values)
    with pytest.raises(CalcarineError, match="one array of features"):
        read_feature_file("own", tmp_path / "two.npz", stimuli)
    np.save(tmp_path / "own.npy", values)
    (tmp_path / "own.json").write_text("{}")
    with pytest.raises(CalcarineError, match="list of stimulus ids"):
        read_feature_file("own", tmp_path / "own.npy", stimuli)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clip.npy", "is not NAME=FILE"),
        ("z=clip.npy", "is not NAME=FILE"),
        ("a+b=clip.npy", "is not NAME=FILE"),
        ("clip=", "is not NAME=FILE"),
    ],
)
def test_names_of_feature_spaces_are_checked(text, message):
    with pytest.raises(CalcarineError, match=message):
        load_experiment("encoding", features=[text])
    with pytest.raises(CalcarineError, match="twice"):
        load_experiment("encoding", features=["a=b.npy", "a=c.npy"])


def test_own_features_are_fitted_like_any_other_space(tmp_path):
    count = 48
    np.save(tmp_path / "own.npy", np.random.default_rng(0).normal(size=(count, 5)))
    settings = {
        "dataset.options": SMALL,
        "encoding.analyses": "[]",
        "encoding.n_boot": "100",
        "encoding.n_components": "20",
        "generation.steps": "2",
    }
    out = tmp_path / "run"
    options = [word for pair in settings.items() for word in ("--set", "=".join(pair))]
    own = f"own={tmp_path / 'own.npy'}"
    command = ["encode", "--dataset", "simulated", "--out", str(out), "--features", own, *options]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    voxels = pd.read_parquet(out / "encoding" / "voxels.parquet")
    assert "r:own" in voxels and "r:z" not in voxels
    assert own in (out / "experiment.yaml").read_text()
    assert "own" in (out / "encoding.html").read_text()
