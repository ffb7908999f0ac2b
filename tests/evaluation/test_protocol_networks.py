"""Pictures reach networks bit by bit as torchvision would bring them; weights are found or told."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from calcarine.checkpoints import network_weights as weights
from calcarine.checkpoints.network_weights import WeightsFile, WeightsStore, state_digest
from calcarine.errors import CalcarineError, MissingWeightsError
from calcarine.evaluation.networks.feature_networks import KINDS, Networks
from calcarine.evaluation.networks.inception_fid import FrechetInception
from calcarine.evaluation.networks.lpips import PerceptualDistance
from calcarine.evaluation.networks.preprocessing import MEANS, Preprocessing, tensorflow_resize
from calcarine.evaluation.protocols import definitions
from calcarine.features.image_networks import run_hooked

PICTURE = np.random.default_rng(0).integers(0, 256, (47, 61, 3)).astype(np.uint8)


@pytest.mark.parametrize("normalise", ["imagenet", "clip", "half"])
@pytest.mark.parametrize("size", [(20, 20), 30, 90])
def test_pillow_recipes_are_torchvisions_bit_by_bit(size, normalise):
    for mode in ("bilinear", "bicubic"):
        chain = transforms.Compose(
            [
                transforms.Resize(size, InterpolationMode(mode)),
                transforms.CenterCrop(20),
                transforms.ToTensor(),
                transforms.Normalize(*MEANS[normalise]),
            ]
        )
        preprocessing = Preprocessing("pil", None, (size,), 20, mode, normalise)
        assert torch.equal(preprocessing.apply(PICTURE, (0, 0)), chain(Image.fromarray(PICTURE)))


@pytest.mark.parametrize("size", [256, 342, 255, 224, 425])
def test_tensor_recipes_are_torchvisions_without_antialiasing(size):
    chain = transforms.Compose(
        [
            transforms.ToTensor(),
            transforms.Resize((256, 256), antialias=False),
            transforms.Resize(size, InterpolationMode.BILINEAR, antialias=False),
            transforms.Normalize(*MEANS["imagenet"]),
        ]
    )
    preprocessing = Preprocessing("tensor", sizes=((256, 256), size), normalise="imagenet")
    ours = preprocessing.apply(PICTURE, (0, 0))
    assert torch.equal(ours, chain(Image.fromarray(PICTURE)))
    if size < 256:
        chain.transforms[2] = transforms.Resize(size, InterpolationMode.BILINEAR, antialias=True)
        assert not torch.equal(ours, chain(Image.fromarray(PICTURE)))


def test_torchvisions_own_preprocessing_is_met():
    vit = torchvision.models.ViT_H_14_Weights.IMAGENET1K_SWAG_E2E_V1.transforms()
    preprocessing = definitions.MindVis().metrics()[0].preprocessing
    square = np.asarray(Image.fromarray(PICTURE).resize((256, 256), Image.Resampling.BICUBIC))
    assert torch.equal(preprocessing.apply(PICTURE, (0, 0)), vit(Image.fromarray(square)))


def test_tensorflow_resize_is_its_loop():
    x = torch.rand(2, 5, 7, dtype=torch.float64)
    ours = tensorflow_resize(x, 9)
    for row in range(9):
        for column in range(9):
            y, z = row * 5 / 9, column * 7 / 9
            a, b = int(y), int(z)
            c, d = min(a + 1, 4), min(b + 1, 6)
            top = x[:, a, b] + (x[:, a, d] - x[:, a, b]) * (z - b)
            low = x[:, c, b] + (x[:, c, d] - x[:, c, b]) * (z - b)
            expected = top + (low - top) * (y - a)
            assert torch.allclose(ours[:, row, column], expected, atol=1e-6)


def test_layers_of_the_true_architectures_have_the_published_widths():
    torch.manual_seed(0)
    alexnet = torchvision.models.alexnet(weights=None).eval()
    with torch.inference_mode():
        small = run_hooked(
            alexnet, torch.rand(1, 3, 299, 299), ["features.5", "features.12", "classifier.5"]
        )
        large = run_hooked(alexnet, torch.rand(1, 3, 256, 256), ["features.4", "features.11"])
        efficient = torchvision.models.efficientnet_b1(weights=None).eval()
        pooled = run_hooked(efficient, torch.rand(1, 3, 224, 224), ["avgpool"])
    widths = {name: value.numel() for name, value in (small | large).items()}
    assert widths == {
        "features.5": 55_488,
        "features.12": 16_384,
        "classifier.5": 4096,
        "features.4": 192 * 31 * 31,
        "features.11": 256 * 15 * 15,
    }
    assert (large["features.4"] >= 0).all() and pooled["avgpool"].numel() == 1280
    linear = {
        f"lin{i}.model.1.weight": torch.rand(1, w, 1, 1)
        for i, w in enumerate((64, 192, 384, 256, 256))
    }
    net = PerceptualDistance.of(alexnet, linear)
    assert net(torch.rand(1, 3, 64, 64)).ndim == 2
    with pytest.raises(CalcarineError, match="do not fit AlexNet"):
        PerceptualDistance.of(alexnet, linear | {"lin0.model.1.weight": -torch.ones(1, 64, 1, 1)})


def test_inception_of_2015_pools_as_it_should():
    torch.manual_seed(0)
    net = FrechetInception().eval()
    # The published file has torchvision's names, 1008 classes and no auxiliary head.
    theirs = torchvision.models.inception_v3(
        weights=None, num_classes=1008, aux_logits=False, init_weights=False
    )
    assert {k: v.shape for k, v in net.state_dict().items()} == {
        k: v.shape for k, v in theirs.state_dict().items()
    }
    with torch.inference_mode():
        found = net.features(torch.rand(1, 3, 299, 299), wide=True)
        x = torch.rand(1, 2048, 3, 3)
        block, plain = net.Mixed_7c, theirs.Mixed_7c
        plain.load_state_dict(block.state_dict())
        pooled = torch.nn.functional.max_pool2d(x, 3, 1, 1)
        expected = torch.cat([plain.eval()(x)[:, :-192], block.branch_pool(pooled)], 1)
        assert torch.allclose(block(x), expected, atol=1e-6)
    assert found["64"].shape == (1, 64) and found["2048"].shape == (1, 2048)


@pytest.fixture
def no_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def test_missing_weights_are_told_with_file_and_source(no_cache, monkeypatch):
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *a, **k: pytest.fail("fetched"))
    networks = Networks(WeightsStore())
    for name in set(KINDS) - {"judge"}:
        with pytest.raises(MissingWeightsError, match=r"missing; get .* from https://") as told:
            networks.get(name)
        assert "\n" not in str(told.value) and "--weights" in str(told.value)
    with pytest.raises(CalcarineError, match="no folder of weights"):
        WeightsStore(no_cache / "absent")


def test_weights_are_read_from_the_folder_and_known_by_their_hash(no_cache, monkeypatch):
    network = torch.nn.Linear(3, 2)
    path = no_cache / "net.pth"
    torch.save({"state_dict": network.state_dict()}, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    wanted = WeightsFile(f"net-{digest[:8]}.pth", "https://example.org/net.pth", "1 kB")
    path.rename(no_cache / wanted.file)
    state, found = WeightsStore(no_cache).state(wanted)
    assert found == digest and state_digest(state) == state_digest(network.state_dict())
    (no_cache / wanted.file).write_bytes(b"other")
    with pytest.raises(CalcarineError, match="does not fit the hash"):
        WeightsStore(no_cache).state(wanted)
    plain = WeightsFile("plain.pth", "https://example.org/plain.pth", "1 kB")
    torch.save({"trap": Preprocessing()}, no_cache / "plain.pth")
    with pytest.raises(CalcarineError, match="more than weights"):
        WeightsStore(no_cache).state(plain)

    def fetch(url, to, hash_prefix, progress):
        assert url == plain.url
        torch.save(network.state_dict(), to)

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    (no_cache / "plain.pth").unlink()
    assert set(WeightsStore(no_cache, download=True).state(plain)[0]) == {"weight", "bias"}
    assert (no_cache / "plain.pth").is_file()


def test_weights_of_another_network_are_refused(no_cache):
    path = no_cache / weights.SWAV.file
    torch.save({"module.conv1.weight": torch.zeros(2)}, path)
    with pytest.raises(CalcarineError, match="do not fit"):
        Networks(WeightsStore(no_cache)).get("swav")


def test_swav_takes_its_trunk_without_the_heads(no_cache):
    torch.manual_seed(0)
    trunk = torchvision.models.resnet50(weights=None)
    state = {f"module.{k}": v for k, v in trunk.state_dict().items() if not k.startswith("fc.")}
    torch.save(state | {"module.prototypes.weight": torch.zeros(3)}, no_cache / weights.SWAV.file)
    network, digest = Networks(WeightsStore(no_cache)).get("swav")
    assert torch.equal(network.layer4[0].conv1.weight.cpu(), trunk.layer4[0].conv1.weight)
    assert len(digest) == 64


def test_clip_is_refused_unless_all_of_its_weights_are_there(no_cache):
    """The published file holds the text's part too, which is not needed."""
    from safetensors.torch import load_file, save_file
    from transformers import CLIPConfig, CLIPModel

    small = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    whole = CLIPModel(
        CLIPConfig(
            text_config={**small, "vocab_size": 20},
            vision_config={**small, "image_size": 28, "patch_size": 14, "projection_dim": 8},
            projection_dim=8,
        )
    )
    folder = no_cache / weights.CLIP_FOLDER
    whole.save_pretrained(folder)
    network, _ = KINDS["clip"].load(WeightsStore(no_cache))
    assert torch.equal(network.visual_projection.weight, whole.visual_projection.weight)
    file = folder / "model.safetensors"
    state = load_file(file)
    save_file({**state, "visual_projection.weight": torch.zeros(2, 2)}, file, {"format": "pt"})
    with pytest.raises(CalcarineError, match=r"another shape for visual_projection\.weight"):
        KINDS["clip"].load(WeightsStore(no_cache))
    del state["visual_projection.weight"]
    save_file(state, file, {"format": "pt"})
    with pytest.raises(CalcarineError, match=r"lack visual_projection\.weight"):
        KINDS["clip"].load(WeightsStore(no_cache))
