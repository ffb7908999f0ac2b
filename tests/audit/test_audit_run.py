"""The command on a run: an honest one passes, and what is changed afterwards is found."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from calcarine.audit import AuditInputs, PictureSet, audit
from calcarine.brain import BrainDataset, Split
from calcarine.brain.responses import make_responses
from calcarine.brain.scaling import scale_sessions
from calcarine.errors import CalcarineError
from calcarine.experiment import load_experiment, run_stage
from calcarine.experiment.reconstructions import CHOSEN
from calcarine.experiment.run_audit_inputs import inputs_from_run
from calcarine.experiment.run_decoder_evidence import session_statistics
from calcarine.experiment.run_directory import RunDirectory
from calcarine.experiment.workspace import Workspace
from calcarine.linear import load, save
from calcarine.stimuli.stimulus_set import StimulusSet

OPTIONS = {
    "n_train": 30,
    "n_test": 12,
    "n_early": 60,
    "n_ventral": 60,
    "n_other": 5,
    "n_sessions": 2,
}
QUICK = [
    "split-leaks",
    "repeats-over-folds",
    "near-duplicates",
    "statistics-from-test",
    "transductive-prediction",
    "pretraining-on-test",
    "choices-on-test",
    "chosen-stimuli",
    "best-of-samples",
    "truth-copies",
]


def experiment(model, *settings):
    return load_experiment(
        "takagi",
        None,
        [
            f"dataset.options={json.dumps(OPTIONS)}",
            f"generation.model={model}",
            "generation.steps=3",
            "generation.samples=1",
            "generation.candidates=2",
            "ridge.n_alphas=3",
            "ridge.n_folds=3",
            "evaluation.n_boot=100",
            "evaluation.n_permutations=100",
            "evaluation.ceilings=false",
            *settings,
        ],
        name="simulated",
    )


def of_run(path, method=None):
    return inputs_from_run(Workspace(RunDirectory(path)), method)


@pytest.fixture(scope="module")
def finished(tiny_stable_diffusion, tmp_path_factory):
    out = tmp_path_factory.mktemp("audited") / "run"
    work = Workspace(RunDirectory(out, experiment(tiny_stable_diffusion)))
    for stage in ("features", "fit", "reconstruct", "evaluate"):
        run_stage(work, stage)
    return out


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


@pytest.mark.parametrize(("method", "verdict"), [("session-all", "failed"), ("session", None)])
def test_sessions_scaled_by_test_trials_are_found(rng, method, verdict):
    """Also where the test has sessions of its own, whose zero is then that of test trials."""
    ids = [f"s{row % 12}" for row in range(24)] + [f"t{row % 4}" for row in range(12)]
    sessions = np.repeat([1, 2, 3], 12)
    raw = rng.normal(sessions[:, None], 2, (36, 20))
    pictures = rng.integers(0, 255, (16, 8, 8, 3), dtype=np.uint8)
    split = Split("own", tuple(f"s{k}" for k in range(12)), tuple(f"t{k}" for k in range(4)), "by")
    scaled, scaling = scale_sessions(raw, sessions, sessions < 3, ids, method)
    dataset = BrainDataset(
        "study",
        "a",
        make_responses(scaled, ids, sessions),
        pd.DataFrame(np.zeros((20, 3)), columns=["x", "y", "z"]),
        {},
        StimulusSet.from_arrays(pictures, [*split.train, *split.test]),
        (split,),
        True,
        "here",
        "none",
        scaling=scaling,
    )
    assert not dataset.rescales(split)
    statistics = list(session_statistics(dataset, split))
    if verdict is None:
        assert not statistics
        return
    pair = (PictureSet.of(split.test, pictures[12:]) for _ in range(2))
    inputs = AuditInputs("study", *pair, statistics=statistics)
    found = audit(inputs, ["statistics-from-test"]).findings["statistics-from-test"]
    assert found.verdict == verdict
    assert found.numbers["equal to those of training and test"] == 1


def verdicts(path, names=QUICK):
    found = audit(of_run(path), names).findings
    return {name: found[name].verdict for name in names}


def test_an_honest_run_passes(finished):
    assert set(verdicts(finished).values()) == {"passed"}


def test_scores_of_a_run_come_from_its_pictures(finished):
    inputs = of_run(finished, "direct ridge")
    found = audit(inputs, ["numbers-from-pictures"]).findings["numbers-from-pictures"]
    assert len(inputs.numbers) == 2 and found.verdict == "passed"
    assert "calcarine" in found.sentence


def test_a_decoder_centred_with_test_rows_is_found(copy):
    stem = copy / "decoder" / "shared" / "z"
    ridge = load(stem)
    (each,) = [s for s in of_run(copy).statistics if "of z" in s.name]
    ridge.x_mean_ = np.asarray(each.by_all)
    save(ridge, stem)
    assert verdicts(copy, ["statistics-from-test"]) == {"statistics-from-test": "failed"}


def changed_decoder(path, change):
    stem = path / "decoder" / "shared" / "z"
    ridge = load(stem)
    change(ridge)
    save(ridge, stem)


def test_penalties_that_training_does_not_choose_are_found(copy):
    def other(ridge):
        ridge.alpha_ = np.roll(ridge.alphas_, 1)[np.searchsorted(ridge.alphas_, ridge.alpha_)]

    changed_decoder(copy, other)
    found = audit(of_run(copy), ["choices-on-test"]).findings["choices-on-test"]
    assert found.verdict == "failed" and "penalties for z" in found.sentence


def test_voxels_that_were_left_out_are_found(copy):
    def fewer(ridge):
        ridge.coef_[::2] = 0

    changed_decoder(copy, fewer)
    found = audit(of_run(copy), ["choices-on-test"]).findings["choices-on-test"]
    assert found.verdict == "failed" and "weights for z" in found.sentence


def test_pictures_with_the_light_of_their_truth_are_found_in_a_run(copy):
    """A run has predictions, which must not keep the pictures from being looked at."""
    from PIL import Image

    for file in (copy / "reconstructions" / "z_c").glob("*.png"):
        made = np.asarray(Image.open(file), float)
        truth = copy / "reconstructions" / "truth" / f"{file.stem.rsplit('_', 1)[0]}.png"
        seen = np.asarray(Image.open(truth).resize(made.shape[:2]), float)
        flat = (made - made.mean((0, 1))) / (made.std((0, 1)) + 1e-9)
        # Little contrast, so that no value is cut off and the mean stays.
        moved = np.clip(seen.mean((0, 1)) + 8 * np.clip(flat, -2, 2), 0, 255)
        moved += seen.mean((0, 1)) - moved.mean((0, 1))
        Image.fromarray(np.rint(np.clip(moved, 0, 255)).astype(np.uint8)).save(file)
    assert verdicts(copy, ["transductive-prediction"]) == {"transductive-prediction": "failed"}


def test_an_index_that_lacks_test_stimuli_is_one_sentence(copy):
    import pandas as pd

    file = copy / "reconstructions" / "index.parquet"
    index = pd.read_parquet(file)
    index[index["id"] != index["id"].iloc[0]].to_parquet(file)
    with pytest.raises(CalcarineError, match=r"index\.parquet lacks 1 stimuli"):
        of_run(copy)


def test_a_choice_that_the_rule_does_not_make_is_found(copy):
    folder = copy / "reconstructions"
    inputs = of_run(copy)
    row = 3
    other = 1 - int(inputs.sample_choice.chosen[row])
    stem = inputs.truth.ids[row]
    shutil.copy(
        folder / "z_c" / f"{stem}_{other:02d}.png", folder / "z_c_chosen" / f"{stem}_00.png"
    )
    assert verdicts(copy, ["best-of-samples"]) == {"best-of-samples": "failed"}


def test_predictions_that_the_decoder_does_not_make_are_found(copy):
    from safetensors.numpy import load_file, save_file

    file = copy / "decoder" / "shared" / "predictions.safetensors"
    found = load_file(file)
    found["z"] = (found["z"] - found["z"].mean(0)) / found["z"].std(0)
    save_file(found, file)
    told = verdicts(copy, ["transductive-prediction"])
    assert told == {"transductive-prediction": "failed"}


def test_predictions_that_are_gone_are_one_sentence(copy):
    (copy / "decoder" / "shared" / "predictions.safetensors").unlink()
    with pytest.raises(CalcarineError, match=r"predictions\.safetensors is missing or broken"):
        of_run(copy)


def test_folds_that_repeats_straddle_are_found(copy):
    file = copy / "experiment.yaml"
    file.write_text(file.read_text().replace("grouped: true", "grouped: false"))
    assert verdicts(copy, ["repeats-over-folds"]) == {"repeats-over-folds": "suspicious"}


def test_what_is_no_run_or_no_method_gets_one_sentence(finished, tmp_path):
    with pytest.raises(CalcarineError, match=r"no experiment\.yaml"):
        of_run(tmp_path)
    with pytest.raises(CalcarineError, match=f"no method 'dream'.*{CHOSEN}"):
        of_run(finished, "dream")
