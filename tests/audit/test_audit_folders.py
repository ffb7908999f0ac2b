"""The command on folders and tables of anybody."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from calcarine.audit import audit
from calcarine.audit.folders import inputs_from_folders
from calcarine.audit.selftest.simulated_decoding import SimulatedDecoding
from calcarine.audit.trial_files import read_responses
from calcarine.cli.main import app
from calcarine.errors import CalcarineError

CLAIM = ("--images", "images", "--truth", "truth")


def save(folder, names, images):
    folder.mkdir(exist_ok=True)
    for name, image in zip(names, images, strict=True):
        Image.fromarray(image).save(folder / f"{name}.png")


@pytest.fixture(scope="module")
def claim(tmp_path_factory):
    """A made-up claim as files, honest but for the scaler."""
    root = tmp_path_factory.mktemp("claim")
    study = SimulatedDecoding(11, n_train=60, n_test=16, scale_with_test=True)
    inputs = study.inputs()
    samples = inputs.sample_choice.samples
    n = len(inputs)
    save(root / "truth", inputs.truth.ids, [inputs.truth.full(i) for i in range(n)])
    save(root / "images", inputs.truth.ids, [inputs.recon.full(i) for i in range(n)])
    save(root / "train", inputs.train.ids, [inputs.train.full(i) for i in range(60)])
    save(
        root / "samples",
        [f"{key}_{s}" for key in inputs.truth.ids for s in range(5)],
        [samples.full(i, s) for i in range(n) for s in range(5)],
    )
    trials = study.trials()
    table = pd.DataFrame(
        {name: getattr(trials, name) for name in ("stimulus", "role", "session", "fold")}
    )
    table.assign(pretrain=trials.pretrain.astype(int)).to_csv(root / "trials.csv", index=False)
    pairs = [study.raw[study.session == s] for s in range(4)]
    np.savez(
        root / "raw.npz",
        responses=study.raw,
        scaler_sessions=np.arange(4),
        scaler_mean=np.stack([part.mean(0) for part in pairs]),
        scaler_scale=np.stack([part.std(0, ddof=1) for part in pairs]),
    )
    voxels = pd.DataFrame(study.scaled[:, :6], columns=[f"v{i}" for i in range(6)])
    pd.concat([table, voxels], axis=1).to_csv(root / "scaled.csv", index=False)
    (prediction,) = inputs.predictions
    order = np.arange(n)[::-1]
    np.savez(
        root / "predictions.npz",
        predictions=prediction.values[order],
        targets=prediction.truth[order],
        train_targets=prediction.train,
        ids=np.array(inputs.truth.ids)[order],
    )
    return root


def run(monkeypatch, folder, *arguments):
    monkeypatch.chdir(folder)
    return CliRunner().invoke(app, ["audit", *arguments])


def test_all_files_together(claim, monkeypatch):
    found = run(
        monkeypatch,
        claim,
        *CLAIM,
        "--train",
        "train",
        "--ids",
        "trials.csv",
        "--responses",
        "raw.npz",
        "--predictions",
        "predictions.npz",
        "--samples",
        "samples",
        "--out",
        "a.html",
    )
    assert found.exit_code == 1, found.output
    content = json.loads((claim / "a.json").read_text())
    told = {check["name"]: check["verdict"] for check in content["checks"]}
    assert [name for name, verdict in told.items() if verdict == "failed"] == [
        "statistics-from-test"
    ]
    assert "suspicious" not in told.values()
    (scaling,) = [c for c in content["checks"] if c["name"] == "statistics-from-test"]
    # Means and scales of four sessions, and the zeros of none: these responses are raw.
    assert scaling["numbers"]["equal to those of training and test"] == 8
    assert [n for n, verdict in told.items() if verdict == "inconclusive"] == [
        "choices-on-test",
        "numbers-from-pictures",
    ]
    assert "Means and scales computed with test rows" in found.output
    assert "a.html" in found.output and len(content["given"]) == 7


def test_pictures_alone_pass_with_exit_code_0(claim, monkeypatch):
    found = run(monkeypatch, claim, *CLAIM, "--out", "b.html")
    assert found.exit_code == 0, found.output
    assert "inconclusive" in found.output and (claim / "b.html").exists()


def test_scaled_responses_in_one_table(claim):
    inputs = inputs_from_folders(claim / "images", claim / "truth", responses=claim / "scaled.csv")
    assert inputs.responses.shape == (len(inputs.trials.stimulus), 6)
    assert not inputs.statistics


def test_the_table_of_trials_still_counts_beside_responses_with_trials_of_their_own(claim):
    """What one file leaves out the other says; where they differ, that is said."""
    table = pd.read_csv(claim / "trials.csv", dtype=str)
    leak = table.index[table["stimulus"] == "test-003"][0]
    table.loc[leak, "role"] = "train"
    table[["stimulus", "role"]].to_csv(claim / "leak.csv", index=False)
    own = pd.read_csv(claim / "scaled.csv", dtype=str)
    own.drop(columns="role").to_csv(claim / "no-role.csv", index=False)
    inputs = inputs_from_folders(
        claim / "images",
        claim / "truth",
        ids=claim / "leak.csv",
        responses=claim / "no-role.csv",
    )
    assert inputs.trials.role[leak] == "train" and inputs.trials.fold is not None
    found = audit(inputs, ["split-leaks"]).findings["split-leaks"]
    assert found.verdict == "failed" and "test-003" in found.sentence
    with pytest.raises(CalcarineError, match=r"leak\.csv and .*scaled\.csv differ in the column r"):
        inputs_from_folders(
            claim / "images",
            claim / "truth",
            ids=claim / "leak.csv",
            responses=claim / "scaled.csv",
        )


def test_a_table_may_write_names_with_their_endings(claim):
    table = pd.read_csv(claim / "trials.csv", dtype=str)
    table["stimulus"] += ".png"
    table.to_csv(claim / "endings.csv", index=False)
    inputs = inputs_from_folders(claim / "images", claim / "truth", ids=claim / "endings.csv")
    told = audit(inputs, ["split-leaks", "chosen-stimuli"]).findings
    assert {found.verdict for found in told.values()} == {"passed"}


@pytest.mark.parametrize("names", [("ses-01", "ses-02"), ("1", "2"), (1.0, 2.0)])
def test_scalers_belong_to_sessions_by_name(claim, tmp_path, rng, names):
    stimulus = np.array([f"s{i}" for i in range(16)])
    session = np.array([names[i % 2] for i in range(16)])
    values = rng.normal(size=(16, 4)) + 9 * (np.arange(16) % 2)[:, None]
    role = np.array(["train"] * 12 + ["test"] * 4)
    train = values[:12]
    arrays = {
        "responses": values,
        "stimulus": stimulus,
        "session": session,
        "role": role,
        "scaler_sessions": np.array(names[::-1]),
        "scaler_mean": np.stack([train[1::2].mean(0), train[0::2].mean(0)]),
    }
    np.savez(tmp_path / "r.npz", **arrays)
    _, _, found = read_responses(tmp_path / "r.npz", None)
    for one in found:
        np.testing.assert_allclose(one.stored, one.by_train)
    np.savez(tmp_path / "r.npz", **{**arrays, "scaler_sessions": np.array(["x", names[0]])})
    with pytest.raises(CalcarineError, match="no trial is of session x"):
        read_responses(tmp_path / "r.npz", None)


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("train_targets", np.zeros((0, 5)), r"train_targets of shape \(0, 5\) and type float64"),
        ("targets", np.array([["a"] * 5] * 16), r"targets of shape \(16, 5\) and type <U1"),
        ("train_targets", np.zeros(7), r"train_targets of shape \(7,\)"),
        ("predictions", np.zeros((16, 0)), r"predictions of shape \(16, 0\); give one row"),
    ],
)
def test_arrays_without_numbers_for_each_stimulus_are_refused(
    claim, tmp_path, name, wrong, message
):
    stored = dict(np.load(claim / "predictions.npz"))
    np.savez(tmp_path / "p.npz", **{**stored, name: wrong})
    with pytest.raises(CalcarineError, match=message) as caught:
        inputs_from_folders(claim / "images", claim / "truth", predictions=tmp_path / "p.npz")
    assert "\n" not in str(caught.value)


def test_predictions_are_put_in_the_order_of_the_names(claim):
    inputs = inputs_from_folders(
        claim / "images", claim / "truth", predictions=claim / "predictions.npz"
    )
    stored = np.load(claim / "predictions.npz")
    assert inputs.predictions[0].values[0] == pytest.approx(stored["predictions"][-1])
    assert inputs.predictions[0].train.shape == (60, 24)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "the folder of a run, or --images DIR and --truth DIR"),
        (("--images", "images"), "the folder of a run"),
        (("runs/nothing",), "is not a run"),
        (("runs/nothing", "--train", "train"), "leave out --train"),
        ((*CLAIM, "--method", "z"), "give a run"),
        ((*CLAIM, "--train", "nowhere"), "no folder nowhere"),
        ((*CLAIM, "--ids", "nowhere.csv"), "cannot be read"),
        ((*CLAIM, "--ids", "bad.csv"), "no column stimulus"),
        ((*CLAIM, "--ids", "strangers.csv"), "has none of the test pictures"),
        ((*CLAIM, "--ids", "roles.csv"), "train or test, not 'validation'"),
        ((*CLAIM, "--responses", "raw.npz"), "give --ids"),
        (
            (*CLAIM, "--ids", "short.csv", "--responses", "raw.npz"),
            "one row of finite numbers for each",
        ),
        ((*CLAIM, "--responses", "truth/test-000.png"), "cannot be read"),
        ((*CLAIM, "--predictions", "raw.npz"), "no array predictions"),
        ((*CLAIM, "--predictions", "trials.csv"), "cannot be read as arrays"),
        ((*CLAIM, "--samples", "truth"), "none of its samples"),
        ((*CLAIM, "--other", "truth", "--other", "./truth"), "have the same name"),
        ((*CLAIM, "--numbers", "good"), "is not a metric with a number"),
        ((*CLAIM, "--out", "page.pdf"), "end its name with .html"),
    ],
)
def test_wrong_input_gets_one_sentence(claim, monkeypatch, arguments, said):
    (claim / "bad.csv").write_text("name,role\na,train\n")
    (claim / "strangers.csv").write_text("stimulus,role\nsomebody,train\n")
    (claim / "roles.csv").write_text("stimulus,role\ntest-000,validation\n")
    (claim / "short.csv").write_text("stimulus,role\ntest-000,test\n")
    found = run(monkeypatch, claim, *arguments)
    assert isinstance(found.exception, CalcarineError), found.output
    assert said in str(found.exception)
    assert "\n" not in str(found.exception)
