import shutil

import numpy as np
import pytest
import torch

from calcarine.diffusion import LatentDiffusion, gaussian_noise
from calcarine.errors import CalcarineError, ShapeError
from calcarine.stimuli import StimulusSet, resize_images


@pytest.fixture(scope="module")
def model(tiny_stable_diffusion):
    return LatentDiffusion.from_pretrained(tiny_stable_diffusion, device="cpu")


def pictures(rng, n=3, size=64):
    return rng.integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def test_encode_is_the_scaled_posterior_mode(model, rng):
    images = pictures(rng)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        expected = model.vae.encode(x).latent_dist.mode() * 0.18215
    assert np.allclose(model.encode(images), expected.numpy(), atol=1e-5)


def test_the_pictures_of_a_stimulus_set_are_resized_and_encoded(model, rng):
    images = pictures(rng, size=96)
    stimuli = StimulusSet.from_arrays(images)
    resized = resize_images(images, model.image_size)
    assert np.array_equal(model.encode(stimuli), model.encode(resized))
    with pytest.raises(ShapeError, match=r"uint8 array of shape \(n, height, width, 3\), not list"):
        model.encode(["a.png"])


def test_decode_undoes_the_scale(model, rng):
    z = rng.standard_normal((2, 4, 8, 8)).astype(np.float32)
    with torch.no_grad():
        expected = model.vae.decode(torch.from_numpy(z) / 0.18215).sample
    expected = ((expected + 1) / 2).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    assert np.allclose(model.decode(z), expected, atol=1e-5)


def test_image_to_image_equals_the_pipeline_of_diffusers(model, tiny_stable_diffusion, rng):
    """Same start, same noise, same prompt: the library's own pipeline gives the same picture."""
    from diffusers import DDIMScheduler, StableDiffusionImg2ImgPipeline

    pipe = StableDiffusionImg2ImgPipeline.from_pretrained(
        tiny_stable_diffusion,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    z = model.encode(pictures(rng, 1))
    context = model.embed_text(["a cat"])
    strength, steps, guidance = 0.8, 10, 5.0
    ours = model.generate(
        context, [("a", 0)], z, strength=strength, steps=steps, guidance=guidance, seed=3
    )
    noise = gaussian_noise([("a", 0)], (4, 8, 8), 3)
    pipe.prepare_latents = lambda image, timestep, *args, **kwargs: pipe.scheduler.add_noise(
        torch.from_numpy(z), noise, timestep
    )
    theirs = pipe(
        "a cat",
        image=torch.zeros(1, 3, 64, 64),
        strength=strength,
        num_inference_steps=steps,
        guidance_scale=guidance,
        negative_prompt="",
        output_type="latent",
    ).images
    assert np.abs(ours - theirs.numpy()).max() < 1e-4


def test_batch_size_and_order_change_nothing(model, rng):
    context = model.embed_text(["a", "b", "c", "d", "e"])
    z = model.encode(pictures(rng, 5))
    keys = [(f"s{i}", i % 2) for i in range(5)]
    options = {"steps": 5, "strength": 0.8, "guidance": 3.0}
    together = model.generate(context, keys, z, batch_size=16, **options)
    alone = model.generate(context, keys, z, batch_size=1, **options)
    order = [3, 0, 4, 1, 2]
    shuffled = model.generate(
        context[order], [keys[i] for i in order], z[order], batch_size=2, **options
    )
    assert np.abs(together - alone).max() < 1e-4
    assert np.abs(together[order] - shuffled).max() < 1e-4


def test_noise_belongs_to_seed_stimulus_and_sample():
    noise = gaussian_noise([("a", 0), ("a", 1), ("b", 0)], (4, 8, 8), 1)
    again = gaussian_noise([("b", 0)], (4, 8, 8), 1)
    other = gaussian_noise([("b", 0)], (4, 8, 8), 2)
    assert torch.equal(noise[2], again[0])
    assert not torch.equal(again, other)
    assert len({float(row.sum()) for row in noise}) == 3
    assert abs(float(gaussian_noise([("x", i) for i in range(200)], (64,), 0).std()) - 1) < 0.02


def test_strength_zero_keeps_z_and_one_forgets_it(model, rng):
    z = model.encode(pictures(rng, 1))
    context = model.embed_text(["a"])
    assert np.allclose(model.generate(context, [("a", 0)], z, strength=0.0), z)
    with pytest.raises(CalcarineError, match="strength"):
        model.generate(context, [("a", 0)], z, strength=1.2)


def test_captions_are_averaged(model):
    mean = model.embed_captions([("a dog", "a cat")])
    states = model.embed_text(["a dog", "a cat"])
    assert np.allclose(mean[0], states.mean(0), atol=1e-6)
    assert mean.shape == (1, 77, 32)
    with pytest.raises(CalcarineError, match="no caption"):
        model.embed_captions([("a",), ()])


def test_wrong_pictures_are_told(model):
    with pytest.raises(CalcarineError, match="multiples of 8"):
        model.encode(np.zeros((1, 60, 64, 3), np.uint8))
    with pytest.raises(CalcarineError, match="uint8"):
        model.encode(np.zeros((1, 64, 64, 3), np.float32))


def test_empty_input_gives_empty_output(model):
    assert model.encode(np.zeros((0, 64, 64, 3), np.uint8)).shape == (0, 4, 8, 8)
    assert model.decode(np.zeros((0, 4, 8, 8), np.float32)).shape[0] == 0
    assert model.embed_text([]).shape == (0, 77, 32)


@pytest.fixture
def copy(tiny_stable_diffusion, tmp_path):
    shutil.copytree(tiny_stable_diffusion, tmp_path / "model")
    return tmp_path / "model"


def test_truncated_weights_are_told(copy):
    file = copy / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CalcarineError, match="truncated"):
        LatentDiffusion.from_pretrained(copy)


def test_a_pickle_is_refused(copy):
    file = copy / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save({"a": torch.zeros(2)}, file)
    with pytest.raises(CalcarineError, match="pickle"):
        LatentDiffusion.from_pretrained(copy)
    file.rename(file.with_suffix(".bin"))
    with pytest.raises(CalcarineError, match="pickle"):
        LatentDiffusion.from_pretrained(copy)


@pytest.mark.parametrize("part", ["vae", "unet", "text_encoder", "tokenizer", "scheduler"])
def test_a_missing_part_is_named(copy, part):
    shutil.rmtree(copy / part)
    with pytest.raises(CalcarineError, match=part):
        LatentDiffusion.from_pretrained(copy)


def test_unknown_places_are_told(tmp_path):
    with pytest.raises(CalcarineError, match="no diffusion model"):
        LatentDiffusion.from_pretrained("nowhere")
    with pytest.raises(CalcarineError, match="model_index"):
        LatentDiffusion.from_pretrained(tmp_path)


def test_one_text_is_a_text_and_not_its_letters(model):
    one = model.embed_captions("a red balloon")
    assert one.shape == model.context_shape
    assert np.array_equal(one, model.embed_captions([["a red balloon"]])[0])
    assert np.array_equal(one, model.embed_text("a red balloon"))
    each = model.embed_captions(["a red balloon", ("a dog", "a cat")])
    assert np.allclose(each[0], one, atol=1e-6)
    assert np.allclose(each[1], model.embed_text(["a dog", "a cat"]).mean(0), atol=1e-6)


def test_one_picture_needs_no_batch_axis(model, rng):
    images = pictures(rng, 2)
    z = model.encode(images)
    assert np.allclose(model.encode(images[0]), z[0], atol=1e-5)
    assert np.allclose(model.decode(z[0]), model.decode(z)[0], atol=1e-5)
    c = model.embed_text(["a cat", "a dog"])
    options = {"strength": 0.5, "steps": 4, "guidance": 2.0}
    both = model.generate(c, ["a", "b"], z, **options)
    assert np.array_equal(both, model.generate(c, [("a", 0), ("b", 0)], z, **options))
    assert np.allclose(model.generate(c[1], "b", z[1], **options), both[1], atol=1e-4)
    noised = model.add_noise(z, ["a", "b"], strength=0.5, steps=4)
    assert np.array_equal(model.add_noise(z[1], ("b", 0), strength=0.5, steps=4), noised[1])
    with pytest.raises(CalcarineError, match=r"latents of shape \(n, 4, h, w\)"):
        model.decode(images[0].astype(np.float32))
    with pytest.raises(CalcarineError, match="3 is not a key"):
        model.generate(c, [3, 4], steps=4)


def test_a_model_prints_itself_in_a_line(model):
    text = repr(model)
    assert text.startswith("LatentDiffusion(") and "64 px" in text and "float32 on cpu" in text
    assert "float32" in model._repr_html_() and "<table>" in model._repr_html_()


def test_models_of_your_own_are_loaded_by_name(model, monkeypatch):
    from calcarine.diffusion import generators, load_model, register_generator

    monkeypatch.setattr(generators, "GENERATORS", {})

    @register_generator("mine")
    def load_mine(device, dtype):
        return model

    assert load_model("mine") is model
    with pytest.raises(ValueError, match="two generators with the name mine"):
        register_generator("mine")(lambda device, dtype: model)
