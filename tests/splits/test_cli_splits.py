import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from calcarine import datasets
from calcarine.brain import Split
from calcarine.cli.main import app
from calcarine.errors import CalcarineError

SIZES = {
    "n_train": 36,
    "n_test": 9,
    "n_early": 30,
    "n_ventral": 30,
    "n_other": 20,
    "n_sessions": 2,
}
SET = [part for key, value in SIZES.items() for part in ("--set", f"{key}={value}")]


def call(*arguments, code=0):
    found = CliRunner().invoke(app, ["datasets", *map(str, arguments)])
    if isinstance(found.exception, CalcarineError):
        raise found.exception
    assert found.exit_code == code, found.output
    return found.output


@pytest.fixture(scope="module")
def ids():
    return datasets.load_dataset("simulated", **SIZES).stimuli.ids


@pytest.mark.parametrize(
    ("rule", "options"),
    [
        ("random", ["--test-size", 7]),
        ("minimum-distance", ["--quantile", 0.4, "--metric", "euclidean"]),
        ("cluster", ["--clusters", 6, "--method", "agglomerative", "--test-size", 0.3]),
        ("category", ["--categories", 2, "--match", "any"]),
        ("out-of-distribution", ["--method", "mahalanobis"]),
    ],
)
def test_each_rule_writes_a_split_and_its_partners(tmp_path, ids, rule, options):
    text = call("split", "simulated", "--rule", rule, "--out", tmp_path, *options, *SET)
    files = sorted(tmp_path.glob("*.json"))
    assert len(files) == 4 and all(str(file) in text for file in files)
    splits = [Split.read(file) for file in files]
    assert len({(len(split.train), len(split.test)) for split in splits}) == 1
    assert set(splits[0].train) | set(splits[0].test) <= set(ids)
    assert "Simulated data" in text and "neither" in text


def test_features_come_from_a_file_in_the_order_of_the_stimuli(tmp_path, ids):
    values = np.zeros((len(ids), 2))
    values[:, 0] = np.arange(len(ids)) ** 1.5  # the last ones are far from the rest
    np.save(tmp_path / "f.npy", values)
    file = tmp_path / "f.npy"
    call(
        "split",
        "simulated",
        "--rule",
        "out-of-distribution",
        "--test-size",
        3,
        "--partners",
        0,
        "--metric",
        "euclidean",
        "--features",
        file,
        "--out",
        tmp_path,
        *SET,
    )
    (file,) = tmp_path.glob("*.json")
    assert set(Split.read(file).test) == set(ids[-3:])


def test_latents_of_the_mini_model_are_features(tmp_path):
    text = call(
        "split",
        "simulated",
        "--rule",
        "cluster",
        "--features",
        "z",
        "--clusters",
        5,
        "--test-size",
        0.4,
        "--out",
        tmp_path,
        *SET,
    )
    assert "correlation distance of z" in text


def test_the_search_finds_no_duplicate_among_scenes(tmp_path):
    table = tmp_path / "table.csv"
    text = call(
        "duplicates",
        "simulated",
        "--subject",
        "subj01",
        "--subject",
        "subj02",
        "--out",
        table,
        *SET,
    )
    assert "0 of 9 test stimuli of split shared are in the training of subj01 and of subj02" in text
    found = pd.read_csv(table)
    assert len(found) == 9 and found["flag"].isna().all()
    assert set(found["nearest_subject"]) <= {"subj01", "subj02"}


def test_flagged_stimuli_end_with_exit_code_1(tmp_path):
    own = datasets.load_dataset("simulated", **SIZES).split()
    file = Split("mine", own.train, own.test, "by hand").save(tmp_path / "mine.json")
    text = call("duplicates", "simulated", "--split", file, "--near", 2.0, *SET, code=1)
    assert "9 of 9 test stimuli of split mine" in text and "9 at most 2.0 away" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["split", "simulated", "--rule", "luck"], "no rule luck"),
        (["split", "simulated", "--rule", "cluster", "--features", "f.txt"], "not f.txt"),
        (["split", "simulated", "--rule", "cluster", "--features", "no.npy"], "no file no.npy"),
        (["split", "simulated", "--rule", "category", "--categories", "yeti"], "category yeti"),
        (["duplicates", "simulated", "--split", "none"], "neither a file nor a split"),
        (["duplicates", "simulated", "--subject", "nobody"], "no subject nobody"),
    ],
)
def test_mistakes_are_told(tmp_path, arguments, message):
    with pytest.raises(CalcarineError, match=message):
        call(*arguments, *SET)


def test_info_tells_the_signal():
    text = call("info", "simulated", "--subject", "subj07", *SET)
    assert "Signal of subj07 in simulated, split shared (simulated)" in text
    assert text.index("licence") < text.index("Signal of")
    once = call("info", "simulated", *SET, "--set", "n_repeats=1")
    assert "no training stimulus was shown twice" in once
