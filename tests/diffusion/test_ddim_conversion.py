"""Models whose scheduler is not DDIM's give the pictures of diffusers' own pipeline with DDIM."""

import inspect
import json
import shutil
import warnings

import diffusers
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionImg2ImgPipeline

from calcarine.diffusion import ConditionalDiffusion, LatentDiffusion, gaussian_noise
from calcarine.diffusion.conditional import ModelNote
from calcarine.diffusion.ddim_conversion import DDPM_FAMILY, ddim_from_config, load_ddim
from calcarine.errors import CalcarineError

SD_V1 = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
STEPS, STRENGTH, GUIDANCE = 5, 0.8, 5.0


def made(name, **settings):
    kind = getattr(diffusers, name)
    known = inspect.signature(kind.__init__).parameters
    return kind(**{key: value for key, value in settings.items() if key in known})


def classes(keep):
    """Names of the classes that diffusers ships and that can be made without further packages."""
    found = []
    for name in dir(diffusers):
        if name.endswith("Scheduler") and keep(name):
            try:
                made(name)
            except (ImportError, TypeError):
                continue
            found.append(name)
    return found


FAMILY = classes(DDPM_FAMILY.__contains__)
OTHERS = classes(lambda name: name not in DDPM_FAMILY)


@pytest.fixture(scope="module")
def parts(tiny_stable_diffusion):
    model = LatentDiffusion.from_pretrained(tiny_stable_diffusion, device="cpu")
    return model.vae, model.text_encoder, model.tokenizer, model.unet


def ours(model, z):
    return model.generate(
        model.embed_text(["a cat"]),
        [("a", 0)],
        z,
        strength=STRENGTH,
        steps=STEPS,
        guidance=GUIDANCE,
        seed=3,
    )


def theirs(parts, scheduler, z):
    """diffusers' own pipeline, whose constructor mends a scheduler, with DDIM in its place."""

    def pipeline(one):
        return StableDiffusionImg2ImgPipeline(
            *parts, one, None, None, requires_safety_checker=False
        )

    pipe = pipeline(DDIMScheduler.from_config(pipeline(scheduler).scheduler.config))
    pipe.set_progress_bar_config(disable=True)
    noise = gaussian_noise([("a", 0)], z.shape[1:], 3)
    pipe.prepare_latents = lambda image, timestep, *args, **kwargs: pipe.scheduler.add_noise(
        torch.from_numpy(z), noise, timestep
    )
    return pipe(
        "a cat",
        image=torch.zeros(1, 3, 64, 64),
        strength=STRENGTH,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        negative_prompt="",
        output_type="latent",
    ).images.numpy()


@pytest.mark.parametrize(
    ("name", "settings"),
    [(name, SD_V1) for name in FAMILY]
    + [(name, {}) for name in ("DDIMScheduler", "PNDMScheduler", "EulerDiscreteScheduler")],
)
def test_pictures_are_those_of_diffusers(name, settings, parts, tmp_path, rng):
    made(name, **settings).save_pretrained(tmp_path)
    z = rng.standard_normal((1, 4, 8, 8)).astype(np.float32)
    scheduler, notes = load_ddim(tmp_path / "scheduler_config.json")
    expected = theirs(parts, getattr(diffusers, name).from_pretrained(tmp_path), z)
    assert np.abs(ours(LatentDiffusion(*parts, scheduler), z) - expected).max() < 1e-4
    assert len(notes) == 1
    assert name in notes[0] or name == "DDIMScheduler"


@pytest.mark.parametrize(
    "settings",
    [
        {"timestep_spacing": "trailing", "prediction_type": "v_prediction"},
        {"timestep_spacing": "linspace", "prediction_type": "sample"},
        {"set_alpha_to_one": False, "rescale_betas_zero_snr": False},
    ],
)
@pytest.mark.parametrize("name", ["DDIMScheduler", "PNDMScheduler", "DPMSolverMultistepScheduler"])
def test_what_two_classes_share_is_kept(name, settings, parts, rng):
    if name == "PNDMScheduler" and settings.get("prediction_type") == "sample":
        settings = {**settings, "prediction_type": "epsilon"}
    scheduler = made(name, **SD_V1, **settings)
    z = rng.standard_normal((1, 4, 8, 8)).astype(np.float32)
    with pytest.warns(ModelNote):
        model = LatentDiffusion(*parts, scheduler)
    assert np.abs(ours(model, z) - theirs(parts, scheduler, z)).max() < 1e-4


@pytest.mark.parametrize("name", OTHERS)
def test_other_families_are_refused(name, tmp_path):
    made(name).save_pretrained(tmp_path)
    with pytest.raises(CalcarineError, match="Stable Diffusion v1 or v2") as error:
        load_ddim(tmp_path / "scheduler_config.json")
    assert name in str(error.value)
    assert ("flow matching" in str(error.value)) >= ("Flow" in name)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True}, "flow matching"),
        ({"prediction_type": "flow_prediction"}, "flow matching"),
        ({"prediction_type": "noise"}, "predicts 'noise'"),
        ({"_class_name": "DDPMScheduler", "beta_schedule": "sigmoid"}, "schedule 'sigmoid'"),
        ({"_class_name": "SchedulerOfTomorrow"}, "family of DDPM"),
    ],
)
def test_configurations_that_ddim_cannot_follow_are_refused(settings, words):
    with pytest.raises(CalcarineError, match=words):
        ddim_from_config(settings, "scheduler_config.json")


def test_a_configuration_that_needs_no_change_is_kept(parts):
    scheduler = DDIMScheduler(**SD_V1, clip_sample=False, steps_offset=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ModelNote)
        model = LatentDiffusion(*parts, scheduler)
    assert model.scheduler is scheduler
    assert model.notes == ()
    assert ddim_from_config(scheduler.config, "here")[1] == []


def test_a_folder_with_another_scheduler_says_what_was_changed(tiny_stable_diffusion, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_stable_diffusion, folder)
    made("PNDMScheduler", **SD_V1).save_pretrained(folder / "scheduler")
    with pytest.warns(ModelNote, match="PNDMScheduler becomes DDIMScheduler") as caught:
        model = LatentDiffusion.from_pretrained(folder, device="cpu")
    assert len([one for one in caught if one.category is ModelNote]) == 1
    assert model.notes == (str(caught[0].message),)
    assert model.scheduler.config.clip_sample is False
    assert model.scheduler.config.steps_offset == 1
    file = folder / "scheduler" / "scheduler_config.json"
    for content in ("{", "[]"):
        file.write_text(content)
        with pytest.raises(CalcarineError, match="copy the model again"):
            LatentDiffusion.from_pretrained(folder, device="cpu")
    config = {**SD_V1, "_class_name": "FlowMatchEulerDiscreteScheduler"}
    file.write_text(json.dumps(config))
    with pytest.raises(CalcarineError, match="flow matching"):
        LatentDiffusion.from_pretrained(folder, device="cpu")


def test_a_class_conditional_model_is_mended_too():
    from calcarine.diffusion import random_class_conditional

    model = random_class_conditional(tiny=True)
    with pytest.warns(ModelNote, match="clip_sample becomes false"):
        again = ConditionalDiffusion(model.vae, model.unet, DDIMScheduler(**SD_V1))
    assert again.scheduler.config.clip_sample is False


def test_a_step_beyond_the_schedule_is_refused(parts, rng):
    model = LatentDiffusion(*parts, DDIMScheduler(**SD_V1, clip_sample=False, steps_offset=1))
    z = rng.standard_normal((1, 4, 8, 8)).astype(np.float32)
    with pytest.raises(CalcarineError, match="choose fewer"):
        model.add_noise(z, [("a", 0)], strength=1.0, steps=1000)
    assert model.add_noise(z, [("a", 0)], strength=1.0, steps=999).shape == z.shape
