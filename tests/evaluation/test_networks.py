"""Judges read the same whatever the batch, and refuse files that are not theirs."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from calcarine.errors import CalcarineError
from calcarine.evaluation.networks import judges as networks
from calcarine.evaluation.networks.judges import JudgeNet, load_judge

LABELS = ["cat", "house", "tree"]


def save_judge(folder: Path, name: str = "own") -> JudgeNet:
    torch.manual_seed(0)
    net = JudgeNet(LABELS, (4, 6, 8))
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
    half = {k: v.half() if v.is_floating_point() else v for k, v in net.state_dict().items()}
    save_file(half, folder / f"{name}.safetensors")
    description = json.dumps({"labels": LABELS, "widths": [4, 6, 8]})
    (folder / f"{name}.json").write_text(description)
    return net


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_judge(tmp_path)
    return tmp_path


def pictures(n: int, side: int = 64) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, side, side, 3)).astype(np.uint8)


def test_reading_has_the_promised_shapes(folder):
    judge = load_judge(folder)
    reading = judge.read(pictures(3))
    assert judge.labels == tuple(LABELS) and judge.name == "own"
    shapes = {name: layer.shape for name, layer in reading.layers.items()}
    assert shapes == {
        "early": (3, 4 * 16 * 16),
        "middle": (3, 6 * 16 * 16),
        "late": (3, 8 * 8 * 8),
    }
    assert {layer.dtype for layer in reading.layers.values()} == {np.dtype(np.float32)}
    np.testing.assert_allclose(reading.probabilities.sum(axis=1), 1, rtol=1e-5)
    assert reading.present.shape == (3, 3)
    assert ((reading.present > 0) & (reading.present < 1)).all()


def test_reading_is_what_the_network_computes(folder):
    judge = load_judge(folder)
    images = pictures(2)
    with torch.no_grad():
        out = judge.net(torch.from_numpy(images.transpose(0, 3, 1, 2)).float() / 255)
    reading = judge.read(images)
    expected = torch.softmax(out["main"], 1).numpy()
    np.testing.assert_allclose(reading.probabilities, expected, rtol=1e-5)
    early = out["early"].numpy().reshape(2, 4, 16, 2, 16, 2).mean(axis=(3, 5))
    np.testing.assert_allclose(reading.layers["early"], early.reshape(2, -1), atol=1e-5)


def test_half_weights_become_single(folder):
    stored = save_judge(folder)
    judge = load_judge(folder)
    assert {p.dtype for p in judge.net.parameters()} == {torch.float32}
    torch.testing.assert_close(judge.net.main.weight, stored.main.weight.half().float())
    assert not judge.net.training


def test_batch_size_and_order_change_nothing(folder):
    judge = load_judge(folder)
    images = pictures(7)
    whole = judge.read(images)
    for batch_size in (1, 3):
        parts = judge.read(images[::-1], batch_size=batch_size)
        for layer in networks.LAYERS:
            np.testing.assert_allclose(parts.layers[layer][::-1], whole.layers[layer], atol=1e-5)
        np.testing.assert_allclose(parts.probabilities[::-1], whole.probabilities, atol=1e-6)
    alone = judge.read(images[4:5])
    np.testing.assert_allclose(alone.present[0], whole.present[4], atol=1e-6)


def test_equal_images_read_exactly_equal(folder):
    images = pictures(5)[[0, 1, 2, 1, 3, 1]]
    reading = load_judge(folder).read(images, batch_size=2)
    np.testing.assert_array_equal(reading.layers["late"][[3, 5]], reading.layers["late"][[1, 1]])
    assert np.abs(reading.layers["late"][0] - reading.layers["late"][1]).max() > 0


def test_other_sizes_are_resized(folder):
    reading = load_judge(folder).read(pictures(2, side=28))
    assert reading.layers["late"].shape == (2, 512)


def test_images_that_are_not_bytes_are_refused(folder):
    judge = load_judge(folder)
    for images in (pictures(2) / 255, pictures(2)[0], pictures(0)):
        with pytest.raises(CalcarineError, match="uint8"):
            judge.read(images)
    with pytest.raises(CalcarineError, match="batch_size"):
        judge.read(pictures(1), batch_size=0)


def test_a_judge_of_the_package_is_found_by_name(folder, monkeypatch):
    monkeypatch.setattr(networks, "_JUDGES", folder)
    with pytest.raises(CalcarineError, match="'digits' are missing"):
        load_judge("digits")
    save_judge(folder, "scenes")
    assert load_judge("scenes").name == "scenes"


def test_unknown_names_and_unclear_folders_are_told(folder, tmp_path_factory):
    with pytest.raises(CalcarineError, match="no judge 'paintings'"):
        load_judge("paintings")
    with pytest.raises(CalcarineError, match="has 0"):
        load_judge(tmp_path_factory.mktemp("empty"))
    save_judge(folder, "second")
    with pytest.raises(CalcarineError, match="has 2"):
        load_judge(folder)


@pytest.mark.parametrize("keep", [0, 4, 100, 2000, -10])
def test_truncated_weights_are_told(folder, keep):
    path = folder / "own.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CalcarineError, match="truncated"):
        load_judge(folder)


class Trap:
    """Would leave a file behind if it were unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("zipped", [False, True])
def test_pickles_are_never_opened(folder, zipped):
    path = folder / "own.safetensors"
    trap = Trap(folder / "sprung")
    if zipped:
        torch.save({"weights": trap}, path)
    else:
        path.write_bytes(pickle.dumps(trap))
    with pytest.raises(CalcarineError, match="pickle"):
        load_judge(folder)
    assert not (folder / "sprung").exists()


def test_a_header_that_begins_like_a_pickle_is_read(folder):
    path = folder / "own.safetensors"
    state = load_file(path)
    for length in range(0, 256, 8):
        save_file(state, path, metadata={"note": "x" * length})
        if path.read_bytes()[:1] == b"\x80":
            break
    assert path.read_bytes()[:1] == b"\x80"
    load_judge(folder)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(CalcarineError, match="truncated"):
        load_judge(folder)


def test_weights_of_another_network_or_broken_numbers_are_told(folder):
    net = save_judge(folder)
    save_file({"main.weight": torch.zeros(2)}, folder / "own.safetensors")
    with pytest.raises(CalcarineError, match="do not fit"):
        load_judge(folder)
    state = net.state_dict() | {"main.bias": torch.full((3,), torch.inf)}
    save_file(state, folder / "own.safetensors")
    with pytest.raises(CalcarineError, match="finite"):
        load_judge(folder)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"labels": ["a", "a"], "widths": [4, 6, 8]}',
        '{"labels": [], "widths": [4, 6, 8]}',
        '{"labels": ["a"], "widths": [4, 6]}',
        '{"labels": ["a"], "widths": [4, 6, -8]}',
        None,
    ],
)
def test_malformed_descriptions_are_told(folder, text):
    path = folder / "own.json"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(CalcarineError, match=r"own\.json"):
        load_judge(folder)
