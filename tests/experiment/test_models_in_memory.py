"""Stages that generate nothing need no weights of the diffusion model."""

import numpy as np
import pytest
import torch

from calcarine.diffusion import LatentDiffusion, load_model
from calcarine.diffusion.generators import describe_model
from calcarine.experiment import load_experiment, run_experiment, run_stage
from calcarine.experiment.run_directory import RunDirectory
from calcarine.experiment.stages import STAGES, run_keys
from calcarine.experiment.workspace import Workspace

QUICK = [
    "dataset.options={n_train: 24, n_test: 6, n_early: 10, n_ventral: 10, n_other: 2}",
    "generation.steps=2",
    "generation.samples=1",
    "generation.candidates=0",
    "evaluation.n_boot=100",
    "evaluation.n_permutations=100",
]


def workspace(folder):
    return Workspace(RunDirectory(folder, load_experiment("takagi", None, QUICK)))


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("done") / "run"
    return run_experiment(load_experiment("takagi", None, QUICK), folder).path


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("autoencoder", [None, "own"])
def test_a_described_model_tells_what_the_loaded_one_tells(tmp_path, dtype, autoencoder):
    if autoencoder is not None:
        autoencoder = tmp_path / "vae"
        LatentDiffusion.from_pretrained("mini", "cpu").vae.save_pretrained(autoencoder)
    options = {"device": "cpu", "dtype": dtype, "autoencoder": autoencoder}
    described, loaded = describe_model("mini", **options), load_model("mini", **options)
    for name in (
        *("name", "digest", "notes", "image_size", "downscale", "latent_shape", "dtype"),
        *("context_shape", "context_width", "guidance_rescale", "time_embed_dim"),
    ):
        assert getattr(described, name) == getattr(loaded, name), name
    assert all(weight.is_meta for weight in described.unet.parameters())
    assert all(weight.is_meta for weight in described.text_encoder.parameters())
    assert described.count_steps(50, 0.8) == loaded.count_steps(50, 0.8)


def test_scores_audit_and_report_are_made_without_weights(done, monkeypatch):
    loaded = []
    whole = LatentDiffusion.from_pretrained.__func__

    def counted(cls, *args, weights=True, **kwargs):
        loaded.append(weights)
        return whole(cls, *args, weights=weights, **kwargs)

    monkeypatch.setattr(LatentDiffusion, "from_pretrained", classmethod(counted))
    before = (done / "metrics" / "summary.json").read_bytes()
    for name in ("evaluate", "audit", "report"):
        (done / ".stages" / f"{name}.json").unlink(missing_ok=True)
        work = Workspace(RunDirectory(done))
        run_stage(work, name)
        assert "model" not in work.__dict__
    assert loaded and not any(loaded)
    assert (done / "metrics" / "summary.json").read_bytes() == before


def test_keys_do_not_depend_on_whether_weights_are_loaded(tmp_path):
    one, other = workspace(tmp_path / "one"), workspace(tmp_path / "other")
    assert one.model.device.type == "cpu"  # loaded
    assert run_keys(one) == run_keys(other)
    assert "model" not in other.__dict__


def test_weights_are_loaded_to_extract_and_freed_to_score(tmp_path):
    work = workspace(tmp_path / "run")
    for name in ("features", "fit", "reconstruct"):
        run_stage(work, name)
    assert isinstance(work.__dict__["model"], LatentDiffusion)
    run_stage(work, "evaluate")
    assert "model" not in work.__dict__
    again = workspace(tmp_path / "run")
    np.testing.assert_array_equal(again.z, work.z)
    assert "model" not in again.__dict__  # z is stored


def test_stages_that_generate_nothing_are_those_after_the_pictures():
    assert [name for name, stage in STAGES.items() if not stage.generates] == [
        "evaluate",
        "audit",
        "report",
    ]
