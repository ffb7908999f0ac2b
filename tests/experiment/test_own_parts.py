"""Decoders and generators that a user registers, in a whole experiment."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from calcarine import decoding, diffusion
from calcarine.decoding import register_decoder
from calcarine.diffusion import LatentDiffusion, random_class_conditional, register_generator
from calcarine.errors import CalcarineError
from calcarine.experiment import load_experiment, run_experiment
from calcarine.experiment.bottleneck_curve import bottleneck_curve
from calcarine.experiment.run_directory import RunDirectory
from calcarine.experiment.workspace import Workspace

OPTIONS = {"n_train": 24, "n_test": 12, "n_early": 40, "n_ventral": 40, "n_other": 10}


class NearestNeighbour:
    """Gives the z and c of the training stimulus of the trial with the most similar response."""

    def __init__(self, roi_z=None, roi_c=None, floor=0.0):
        self.roi_z, self.roi_c, self.floor = roi_z, roi_c, floor

    def fit(self, dataset, split, z, c=None):
        trials = dataset.train(split, self.roi_z)
        rows = dataset.stimuli.rows(trials.stimulus_ids)
        self.fitted = {"responses": trials.data, "z": z[rows] + self.floor, "c": c[rows]}
        return self

    def predict(self, dataset, split=None):
        test = dataset.test(split, self.roi_z).data
        known = self.fitted["responses"]
        best = np.corrcoef(test, known)[: len(test), len(test) :].argmax(1)
        return {name: self.fitted[name][best] for name in ("z", "c")}

    def save(self, folder):
        arrays = {k: np.ascontiguousarray(v, np.float32) for k, v in self.fitted.items()}
        save_file(arrays, Path(folder) / "neighbours.safetensors")

    @classmethod
    def load(cls, folder):
        self = cls("early")
        self.fitted = load_file(Path(folder) / "neighbours.safetensors")
        return self


@pytest.fixture(autouse=True)
def own_parts(monkeypatch, tiny_stable_diffusion):
    monkeypatch.setattr(decoding.registry, "DECODERS", dict(decoding.DECODERS))
    monkeypatch.setattr(diffusion.generators, "GENERATORS", {})
    register_decoder("neighbour")(NearestNeighbour)

    @register_generator("my-model")
    def load_mine(device, dtype):
        return LatentDiffusion.from_pretrained(tiny_stable_diffusion, device, dtype)


def experiment(model, *settings):
    return load_experiment(
        "takagi",
        None,
        [
            f"dataset.options={json.dumps(OPTIONS)}",
            f"generation.model={model}",
            "generation.steps=4",
            "generation.samples=1",
            "generation.candidates=2",
            "ridge.n_alphas=3",
            "ridge.n_folds=2",
            "evaluation.n_boot=100",
            "evaluation.n_permutations=100",
            "evaluation.ceilings=false",
            *settings,
        ],
        name="simulated",
    )


def test_a_registered_decoder_and_generator_run_to_the_report(tmp_path):
    run = run_experiment(experiment("my-model", "decoder.name=neighbour"), tmp_path / "run")
    work = Workspace(RunDirectory(run.path))
    (split,) = work.splits
    stored = load_file(run.decoder / split.name / "predictions.safetensors")
    own = NearestNeighbour("early").fit(work.dataset, split, work.z, work.c)
    expected = own.predict(work.dataset, split)
    np.testing.assert_array_equal(stored["z"], expected["z"])
    np.testing.assert_array_equal(stored["c"], expected["c"])
    assert (run.path / "report.html").exists()
    checks = {
        check["name"]: check
        for check in json.loads((run.path / "audit.json").read_text())["checks"]
    }
    assert checks["transductive-prediction"]["verdict"] == "passed"
    # What a decoder of your own fits and chooses cannot be known.
    for name in ("choices-on-test", "pretraining-on-test"):
        assert checks[name]["verdict"] == "inconclusive"
    with pytest.raises(CalcarineError, match="'neighbour' is not linear, so it has no bottleneck"):
        bottleneck_curve(work, [1], ["z"])


def test_a_kind_of_ridge_is_no_false_alarm_of_the_audit(tmp_path, tiny_stable_diffusion):
    class FixedPenalty(decoding.LatentRegression):
        def __init__(self, roi_z=None, roi_c=None, alpha=1e4):
            super().__init__(roi_z, roi_c, alphas=[alpha])
            self.alpha = alpha

    register_decoder("fixed-penalty")(FixedPenalty)
    settings = ("decoder.name=fixed-penalty", "decoder.options={alpha: 1e5}")
    run = run_experiment(experiment(tiny_stable_diffusion, *settings), tmp_path / "run")
    checks = json.loads((run.path / "audit.json").read_text())["checks"]
    verdicts = {check["name"]: check["verdict"] for check in checks}
    assert "failed" not in verdicts.values()
    assert verdicts["choices-on-test"] == "inconclusive"
    curve = bottleneck_curve(Workspace(RunDirectory(run.path)), [1], ["z"])
    assert {record["whole"] for record in curve} == {True, False}


def test_a_registered_generator_draws_what_its_folder_draws(tmp_path, tiny_stable_diffusion):
    settings = ("evaluation.audit=false", "generation.candidates=0")
    runs = [
        run_experiment(experiment(model, *settings), tmp_path / name)
        for name, model in (("by-name", "my-model"), ("by-folder", tiny_stable_diffusion))
    ]
    names = [sorted(p.relative_to(r.path) for p in r.path.rglob("*.png")) for r in runs]
    assert names[0] == names[1] and names[0]
    for name in names[0]:
        assert (runs[0].path / name).read_bytes() == (runs[1].path / name).read_bytes()


def test_another_decoder_or_option_fits_anew(tmp_path, tiny_stable_diffusion):
    def z(*settings):
        config = experiment(tiny_stable_diffusion, "evaluation.audit=false", *settings)
        run = run_experiment(config, tmp_path / "run")
        return load_file(next(run.decoder.glob("*/predictions.safetensors")))["z"]

    plain = z("decoder.name=neighbour")
    raised = z("decoder.name=neighbour", 'decoder.options={"floor": 1.0}')
    np.testing.assert_allclose(raised, plain + 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["decoder.name=neighbor"], "no decoder 'neighbor'.*neighbour"),
        (["decoder.name=neighbour", 'decoder.options={"depth": 3}'], "cannot be made: .*depth"),
        (['decoder.options={"n_folds": 3}'], "settings ridge"),
    ],
)
def test_mistakes_are_refused_before_anything_is_computed(
    settings, message, tmp_path, tiny_stable_diffusion
):
    with pytest.raises(CalcarineError, match=message):
        run_experiment(experiment(tiny_stable_diffusion, *settings), tmp_path / "run")
    assert not list(tmp_path.rglob("*.safetensors"))


def test_predictions_of_another_shape_or_not_finite_are_refused(tmp_path, tiny_stable_diffusion):
    class Flat(NearestNeighbour):
        def predict(self, dataset, split=None):
            found = super().predict(dataset, split)
            return found | {"z": found["z"].reshape(len(found["z"]), -1)}

    class NotFinite(NearestNeighbour):
        def predict(self, dataset, split=None):
            found = super().predict(dataset, split)
            return found | {"c": found["c"] * np.nan}

    class OnlyZ(NearestNeighbour):
        def predict(self, dataset, split=None):
            return {"z": super().predict(dataset, split)["z"]}

    for kind, message in (
        (Flat, r"'Flat' predicted z of shape \(12, 256\); it must be \(12, 4, 8, 8\)"),
        (NotFinite, "'NotFinite' predicted values of c that are not finite"),
        (OnlyZ, r"'OnlyZ' predicted no c"),
    ):
        register_decoder(kind.__name__)(kind)
        config = experiment(tiny_stable_diffusion, f"decoder.name={kind.__name__}")
        with pytest.raises(CalcarineError, match=message):
            run_experiment(config, tmp_path / kind.__name__)


def test_generators_that_cannot_draw_from_z_and_c_are_refused(tmp_path):
    register_generator("classes")(lambda device, dtype: random_class_conditional(tiny=True))
    register_generator("nothing")(lambda device, dtype: None)
    for name, settings, message in (
        ("classes", (), "generation.model=classes has no text encoder"),
        ("nothing", (), "generator 'nothing' returned a NoneType"),
        ("my-model", ("generation.autoencoder=taesd",), "my-model has its own loader and takes"),
    ):
        with pytest.raises(CalcarineError, match=message):
            run_experiment(experiment(name, *settings), tmp_path / name)
