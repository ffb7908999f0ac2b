"""Every network path on a CUDA GPU that does not exist, as PyTorch's fake tensors see it.

Fake tensors have shape, device and precision but no values. Operations between devices, or between
precisions that a GPU kernel does not take together, raise the errors that they raise on a GPU.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from calcarine.checkpoints.network_weights import WeightsStore
from calcarine.diffusion import LatentDiffusion, conditional, random_class_conditional
from calcarine.diffusion.conditioning import add_time_condition
from calcarine.diffusion.trajectory import record_trajectory
from calcarine.evaluation.networks.feature_networks import KINDS, Networks
from calcarine.evaluation.networks.inception_fid import FrechetInception
from calcarine.evaluation.networks.judges import LAYERS, load_judge
from calcarine.evaluation.networks.lpips import PerceptualDistance
from calcarine.evaluation.protocols.catalogue import find_protocol, list_protocols
from calcarine.features.image_networks import ImageNetwork, network_layer
from calcarine.visdec.brain_conditioning import BrainConditioning, VoxelScale
from calcarine.visdec.conditioner import Conditioner
from calcarine.visdec.fmri_autoencoder import AutoencoderConfig, FMRIAutoencoder

HALVES = [torch.float16, torch.bfloat16]
KEYS = [("a", 0), ("b", 0), ("b", 1)]
GUIDED = {"strength": 0.5, "steps": 4, "batch_size": 2}


@pytest.fixture
def gpu(monkeypatch):
    """Work with fake tensors; values that leave the GPU are zeros, and all checks hold."""

    def as_numpy(tensor):
        if tensor.device.type != "cpu":
            raise TypeError("can't convert a CUDA tensor to numpy; use Tensor.cpu() first")
        kind = str(tensor.dtype).removeprefix("torch.")  # bfloat16 is unknown to numpy
        return np.zeros(tuple(tensor.shape), kind)

    monkeypatch.setattr(conditional, "check_sampler", lambda *settings: None)  # reads values
    monkeypatch.setattr(FakeTensor, "numpy", as_numpy, raising=False)
    monkeypatch.setattr(FakeTensor, "__bool__", lambda tensor: True, raising=False)
    monkeypatch.setattr(FakeTensor, "tolist", lambda tensor: [-1] * len(tensor), raising=False)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        yield mode


def on_gpu(network, dtype=None):
    """Move a network with real weights to the GPU."""

    def moved(tensor):
        kind = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
        return torch.empty(tensor.shape, dtype=kind, device="cuda")

    for part in network.modules():
        for name, weight in part._parameters.items():
            if weight is not None:
                part._parameters[name] = torch.nn.Parameter(moved(weight), requires_grad=False)
        for name, weight in part._buffers.items():
            if weight is not None:
                part._buffers[name] = moved(weight)
    return network


@pytest.fixture
def model(tiny_stable_diffusion):
    return LatentDiffusion.from_pretrained(tiny_stable_diffusion, device="cpu")


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)


@pytest.fixture(params=HALVES, ids=str)
def half(model, gpu, request):
    """The model in a half precision, on the GPU."""
    for part in (model.vae, model.text_encoder, model.unet):
        on_gpu(part, request.param)
    assert model.device.type == "cuda" and model.dtype == request.param
    return model


def test_the_fake_gpu_finds_what_a_gpu_would(half):
    x = torch.zeros(1, 4, 8, 8).to("cuda", half.dtype)
    c = torch.zeros(1, 77, 32).to("cuda", half.dtype)
    t = torch.zeros(1, dtype=torch.long).to("cuda")
    assert half.unet(x, t, c).sample.dtype == half.dtype
    with pytest.raises(RuntimeError, match="device"):
        half.unet(x, t, c.cpu())
    with pytest.raises(RuntimeError, match="type"):
        half.unet(x, t, c.float())
    with pytest.raises(RuntimeError, match="type"):
        half.vae.decode(x.float())
    with pytest.raises(TypeError, match="CUDA"):
        c.float().numpy()
    with pytest.raises(TypeError, match="bfloat16"):
        torch.zeros(1, dtype=torch.bfloat16).numpy()


def test_pictures_are_encoded_and_decoded(half, images):
    z = half.encode(images)
    assert z.shape == (3, 4, 8, 8) and z.dtype == np.float32
    assert half.encode(images, sample=KEYS).shape == z.shape
    pictures = half.decode(z)
    assert pictures.shape == images.shape and pictures.dtype == np.float32


def test_texts_are_embedded(half):
    c = half.embed_captions([("ab", "c"), "d"])
    assert c.shape == (2, 77, 32) and c.dtype == np.float32


@pytest.mark.parametrize(
    ("sampler", "guidance", "rescale"), [("ddim", 5.0, 0.7), ("ddim", 1.0, 0.0), ("plms", 5.0, 0.0)]
)
def test_latents_are_denoised(half, sampler, guidance, rescale):
    half.guidance_rescale = rescale
    c = np.zeros((3, 77, 32), np.float32)
    z = np.zeros((3, 4, 8, 8), np.float32)
    for start in (None, z):
        made = half.generate(c, KEYS, start, guidance=guidance, sampler=sampler, **GUIDED)
        assert made.shape == z.shape and made.dtype == np.float32


def test_time_conditions_reach_the_unet(half):
    add_time_condition(half.unet)
    c = np.zeros((3, 5, 32), np.float32)
    time = np.ones((3, half.time_embed_dim), np.float32)
    empty = np.zeros((1, 32), np.float32)
    made = half.generate(c, KEYS, empty=empty, time_condition=time, **GUIDED)
    assert made.shape == (3, 4, 8, 8)


def test_blocks_are_recorded(half):
    z, c = np.zeros((3, 4, 8, 8), np.float32), np.zeros((3, 77, 32), np.float32)
    found = record_trajectory(
        half, c, KEYS, z, latents_at=[0], blocks=["mid_block"], blocks_at=[1], **GUIDED
    )
    assert found.latents[0].shape == z.shape
    assert len(found.activations["mid_block", 1]) == 3


@pytest.fixture
def class_model():
    return random_class_conditional(tiny=True, device="cpu")


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_a_model_of_classes_keeps_its_autoencoder_in_float32(class_model, gpu, dtype):
    on_gpu(class_model.vae)
    on_gpu(class_model.unet, dtype)
    z = class_model.encode(np.zeros((1, 32, 32, 3), np.uint8))
    c = np.zeros((1, 1, 32), np.float32)
    made = class_model.generate(c, ["a"], z, empty=c[0], **GUIDED)
    assert class_model.decode(made).shape == (1, 32, 32, 3)


# --- networks that score, and networks of feature spaces


def used_layers():
    """Return the layers that all protocols read, by network and preprocessing."""
    layers = {}
    for name in list_protocols():
        for metric in find_protocol(name)().metrics():
            for network, preprocessing, layer in metric.required_features():
                if network:
                    layers.setdefault((network, preprocessing), {})[layer] = None
    return layers


def without_weights(name):
    """Return a scoring network without memory for its weights."""
    with torch.device("meta"):
        if name == "clip":
            config = CLIPVisionConfig(
                hidden_size=1024,
                intermediate_size=4096,
                num_hidden_layers=24,
                num_attention_heads=16,
                patch_size=14,
                projection_dim=768,
            )
            return CLIPVisionModelWithProjection(config).eval()
        if name == "fid":
            return FrechetInception().eval()
        if name == "lpips":
            alexnet = torchvision.models.alexnet()
            weights = [torch.ones(1, width, 1, 1) for width in (64, 192, 384, 256, 256)]
            return PerceptualDistance(alexnet.features, weights).eval()
        if name == "inception":
            make = torchvision.models.inception_v3
            return make(transform_input=True, aux_logits=False, init_weights=False).eval()
        if name == "vit_h_14":
            return torchvision.models.vit_h_14(image_size=518).eval()
        builders = {"swav": "resnet50"}
        return getattr(torchvision.models, builders.get(name, name.split()[0]))().eval()


@pytest.mark.parametrize("name", sorted(set(KINDS) - {"judge"}))
def test_pictures_are_scored(name, rng, request):
    network = without_weights(name)
    request.getfixturevalue("gpu")
    networks = Networks(WeightsStore())
    networks._loaded[name] = on_gpu(network), ""
    pictures = [(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8), None) for _ in range(2)]
    read = [
        networks.read(name, pictures, preprocessing, [*layers], (40, 40))
        for (kind, preprocessing), layers in used_layers().items()
        if kind == name
    ]
    assert read
    for features in read:
        for values in features.values():
            assert values.shape[0] == 2 and values.dtype == np.float32


def test_a_judge_reads(rng, request):
    judge = load_judge("scenes", "cpu")
    request.getfixturevalue("gpu")
    on_gpu(judge.net)
    read = judge.read(rng.integers(0, 256, (3, 64, 64, 3), dtype=np.uint8))
    assert len(read.probabilities) == len(read.present) == 3
    assert all(len(read.layers[layer]) == 3 for layer in LAYERS)


def test_layers_of_image_networks_are_read(rng, request):
    network = without_weights("alexnet")
    request.getfixturevalue("gpu")
    made = ImageNetwork(on_gpu(network), lambda pixels: pixels.float() / 255, "")
    images = rng.integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    assert network_layer(made, "features.5", images).shape == (3, 192, 3, 3)


# --- Vis-Dec


def test_brain_activity_conditions_the_unet_on_the_gpu(model, rng, request, monkeypatch):
    shape = AutoencoderConfig(
        n_patches=5, patch=4, dim=16, depth=1, heads=2, decoder_dim=8, decoder_depth=1
    )
    encoder = FMRIAutoencoder(replace(shape, decoder_heads=2)).encoder
    wide = model.time_embed_dim
    conditioner = Conditioner(encoder, 5, 3, 32, wide, latent_shape=model.latent_shape).eval()
    request.getfixturevalue("gpu")
    on_gpu(model.vae)
    on_gpu(model.unet)
    # A module's own method cannot move fake weights.
    for network in (conditioner.requires_grad_(False), model.unet):
        monkeypatch.setattr(network, "to", lambda device, network=network: on_gpu(network))
    voxels = VoxelScale(np.zeros(20, np.float32), np.ones(20, np.float32))
    trained = BrainConditioning(conditioner, {}, voxels)
    responses = rng.standard_normal((3, 20))
    pictures = trained.generate(model, responses, KEYS, strength=0.5, steps=4, batch_size=2)
    assert pictures.shape == (3, 64, 64, 3)
    assert conditioner.empty.device.type == "cuda"  # it computes where the model does
    conditions = trained.condition(responses)
    assert conditions["context"].shape == (3, 3, 32) and conditions["time"].shape == (3, wide)
