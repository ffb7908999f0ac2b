"""Each of the three methods makes its pictures from what the paper says, and nothing else."""

import numpy as np
import pytest

from calcarine.decoding import Reconstructor
from calcarine.decoding.reconstruct import to_uint8
from calcarine.diffusion import LatentDiffusion
from calcarine.errors import CalcarineError
from calcarine.evaluation.inputs.image_stacks import as_uint8

KEYS = [("a", 0), ("b", 1)]
SETTINGS = {"guidance": 3.0, "steps": 5, "seed": 7}


@pytest.fixture(scope="module")
def model(tiny_stable_diffusion):
    return LatentDiffusion.from_pretrained(tiny_stable_diffusion, device="cpu")


@pytest.fixture
def z(rng):
    return rng.standard_normal((2, 4, 8, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def c(model):
    return model.embed_text(["a cat", "a dog"])


def test_z_is_the_decoded_latent_itself(model, z):
    assert np.array_equal(Reconstructor(model).from_z(z), model.decode(z))


def test_c_begins_from_noise(model, c):
    found = Reconstructor(model, strength=0.4, **SETTINGS).from_c(c, KEYS)
    assert np.array_equal(found, model.decode(model.generate(c, KEYS, **SETTINGS)))


@pytest.mark.parametrize("strength", [0.4, 0.8])
@pytest.mark.parametrize("through_image", [True, False])
def test_z_c_is_noised_to_its_strength(model, z, c, strength, through_image):
    tool = Reconstructor(model, strength=strength, through_image=through_image, **SETTINGS)
    start = model.encode(to_uint8(model.decode(z))) if through_image else z
    expected = model.generate(c, KEYS, start, strength=strength, **SETTINGS)
    assert np.allclose(tool.from_z_c(z, c, KEYS), model.decode(expected), atol=1e-6)
    other = model.generate(c, KEYS, start, strength=1.0, **SETTINGS)
    assert np.abs(model.decode(expected) - model.decode(other)).max() > 0.01


@pytest.mark.parametrize(("strength", "steps"), [(0.01, 20), (0.2, 4), (0.9, 1)])
def test_a_strength_that_leaves_no_step_is_refused(model, z, c, strength, steps):
    tool = Reconstructor(model, strength=strength, steps=steps)
    with pytest.raises(
        CalcarineError, match=f"Of {steps} steps strength {strength} leaves no denoising step"
    ):
        tool.from_z_c(z, c, KEYS)
    with pytest.raises(CalcarineError, match="leaves no denoising step"):
        model.add_noise(z, KEYS, strength=strength, steps=steps)
    assert model.count_steps(steps, strength) == 0
    tool.from_c(c, KEYS)  # begins from noise, whatever the strength


def test_strength_zero_keeps_the_latent_on_purpose(model, z, c):
    tool = Reconstructor(model, strength=0.0, steps=4, through_image=False)
    assert np.array_equal(tool.from_z_c(z, c, KEYS), model.decode(z))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_never_become_pictures(model, z, c, value):
    picture = np.zeros((1, 4, 4, 3), np.float32)
    picture[0, 1, 1, 1] = value
    for convert in (to_uint8, as_uint8):
        with pytest.raises(CalcarineError, match="not finite"):
            convert(picture)
    z[0, 0, 0, 0] = value
    with pytest.raises(CalcarineError, match="not finite"):
        model.decode(z)
    with pytest.raises(CalcarineError, match="not finite"):
        model.generate(c, KEYS, z, steps=4)


def test_a_decoder_that_overflows_names_the_precision(model, z, monkeypatch):
    import torch

    half = LatentDiffusion(
        model.vae, model.text_encoder, model.tokenizer, model.unet, model.scheduler
    )
    place = property(lambda self: (torch.device("cpu"), torch.float16))
    monkeypatch.setattr(type(half.autoencoder), "_place", place)

    class Output:
        sample = torch.zeros((2, 3, 64, 64), dtype=torch.float16)
        sample[1, 0, 5, 5] = torch.inf

    monkeypatch.setattr(half.vae, "decode", lambda z: Output)
    with pytest.raises(
        CalcarineError, match=r"float16, gave pictures .* stimulus 'b'.*compute\.precision"
    ):
        half.decode(z, ids=["a", "b"])


def test_an_encoder_that_overflows_is_told(model, monkeypatch):
    import torch

    def overflow(pixels, keys, seed):
        return torch.full((len(pixels), 4, 8, 8), torch.nan)

    monkeypatch.setattr(model.autoencoder, "_latents", overflow)
    with pytest.raises(CalcarineError, match="latents of the encoder that are not finite"):
        model.encode(np.zeros((1, 64, 64, 3), np.uint8))


def test_one_latent_gives_one_picture(model, z, c):
    tool = Reconstructor(model, strength=0.6, **SETTINGS)
    both = {
        "z": (tool.from_z(z), tool.from_z(z[0])),
        "c": (tool.from_c(c, KEYS), tool.from_c(c[0], KEYS[0])),
        "z_c": (tool.from_z_c(z, c, KEYS), tool.from_z_c(z[0], c[0], "a")),
        "empty": (tool.from_z_empty_text(z, KEYS), tool.from_z_empty_text(z[0], ["a"])),
    }
    for name, (several, one) in both.items():
        assert one.shape == several.shape[1:], name
        assert np.abs(several[0] - one).max() < 1e-3, name


def test_a_reconstructor_prints_itself_in_a_line(model):
    tool = Reconstructor(model, steps=5)
    assert repr(tool).startswith("Reconstructor('") and "steps=5" in repr(tool)
    assert len(repr(tool).splitlines()) == 1
    assert "<caption" in tool._repr_html_() and "through_image" in tool._repr_html_()
