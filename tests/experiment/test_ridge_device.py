"""Decoders and encoding models are fitted on the device of the run."""

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from calcarine import encoding
from calcarine.datasets import load_dataset
from calcarine.decoding import LatentRegression, PixelRegression, load_decoder
from calcarine.devices import Compute, OnCPUWarning
from calcarine.experiment import load_experiment, run_stage
from calcarine.experiment.run_directory import RunDirectory
from calcarine.experiment.workspace import Workspace
from calcarine.linear import _inputs

SETTINGS = [
    "dataset.options={n_train: 40, n_test: 6, n_early: 30, n_ventral: 20, n_other: 4}",
    "generation.steps=4",
    "encoding.analyses=[latents]",
    "encoding.n_boot=100",
]
# PyTorch's products on the CPU, by the code that a GPU uses.
TORCH = "torch:cpu"


@pytest.fixture
def used(monkeypatch):
    """Devices of all ridge regressions from now on."""
    devices = []
    whole = _inputs.ops_for

    def ops_for(device):
        devices.append(device)
        return whole(device)

    monkeypatch.setattr(_inputs, "ops_for", ops_for)
    return devices


@pytest.mark.parametrize(("device", "expected"), [("cuda:1", "cuda:1"), ("mps", "cpu")])
def test_only_cuda_has_the_precision_that_ridge_needs(tmp_path, device, expected):
    work = Workspace(RunDirectory(tmp_path / "run", load_experiment("takagi", None, SETTINGS)))
    assert work.ridge_device == "cpu"
    work.__dict__["compute"] = Compute(torch.device(device), torch.float32)
    assert work.ridge_device == expected
    assert work.new_decoder().device == expected


def test_a_run_fits_on_its_device_what_it_fits_on_the_processor(tmp_path, monkeypatch, used):
    predicted, penalties = {}, {}
    for device in ("cpu", TORCH):
        monkeypatch.setattr(Workspace, "ridge_device", device)
        experiment = load_experiment("encoding", None, SETTINGS)
        work = Workspace(RunDirectory(tmp_path / device.partition(":")[0], experiment))
        del used[:]
        for stage in ("features", "fit", "encode"):
            run_stage(work, stage)
        # z, c and pixels, then three feature spaces.
        assert used == 6 * [device]
        (file,) = work.run.decoder.glob("*/predictions.safetensors")
        predicted[device] = load_file(file)
        fitted = load_decoder("ridge", file.parent)
        penalties[device] = {name: ridge.alpha_ for name, ridge in fitted.ridge_.items()}
    for name, values in predicted["cpu"].items():
        scale = np.abs(values).max()
        found = predicted[TORCH][name].reshape(len(values), -1)
        values = values.reshape(len(values), -1)
        if name in penalties["cpu"]:
            # Between two that are as good, rounding may choose another one.
            same = penalties["cpu"][name] == penalties[TORCH][name]
            assert same.mean() > 0.95
            found, values = found[:, same], values[:, same]
        np.testing.assert_allclose(found, values, atol=1e-4 * scale)


def test_what_does_not_fit_into_a_gpu_is_fitted_on_the_processor(monkeypatch, used):
    brain = load_dataset("simulated", n_train=40, n_test=6)
    z = np.random.default_rng(0).standard_normal((46, 4, 2, 2)).astype(np.float32)
    plain = LatentRegression().fit(brain, None, z).predict(brain)["z"]
    whole = _inputs.ops_for

    def full(device):
        if device != "cpu":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return whole(device)

    monkeypatch.setattr(_inputs, "ops_for", full)
    with pytest.warns(OnCPUWarning, match="fitted on the CPU"):
        found = LatentRegression(device="cuda").fit(brain, None, z).predict(brain)["z"]
    np.testing.assert_array_equal(found, plain)
    pixels = brain.stimuli.images()[:, ::16, ::16].reshape(46, -1).astype(np.float32)
    with pytest.warns(OnCPUWarning):
        scores = encoding.encode(brain, pixels, roi="early", device="cuda")
    np.testing.assert_array_equal(scores.r, encoding.encode(brain, pixels, roi="early").r)


def test_estimators_and_encode_take_a_device(used):
    brain = load_dataset("simulated", n_train=40, n_test=6)
    z = np.random.default_rng(0).standard_normal((46, 4, 2, 2)).astype(np.float32)
    one, other = (LatentRegression(device=device).fit(brain, None, z) for device in ("cpu", TORCH))
    np.testing.assert_allclose(one.predict(brain)["z"], other.predict(brain)["z"], atol=1e-3)
    PixelRegression(device=TORCH).fit(brain)
    pixels = brain.stimuli.images()[:, ::16, ::16].reshape(46, -1).astype(np.float32)
    plain = encoding.encode(brain, pixels, roi="early")
    on_device = encoding.encode(brain, {"pixels": pixels}, roi="early", device=TORCH)["pixels"]
    np.testing.assert_allclose(on_device.r, plain.r, atol=1e-3)
    assert used == ["cpu", TORCH, TORCH, "cpu", TORCH]
