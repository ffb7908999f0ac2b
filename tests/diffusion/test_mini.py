"""The bundled model is what its card says."""

import json

import numpy as np
import pytest
import torch

from calcarine.diffusion import LatentDiffusion
from calcarine.diffusion.model_folder import MINI
from calcarine.evaluation.networks.judges import load_judge
from calcarine.stimuli import scenes

HELD_OUT = 2


@pytest.fixture(scope="module")
def mini():
    return LatentDiffusion.from_pretrained("mini", device="cpu")


@pytest.fixture(scope="module")
def drawn():
    return [scenes.render(HELD_OUT, i) for i in range(100)]


def test_it_is_small_and_half_precision():
    files = list(MINI.rglob("*.safetensors"))
    assert sum(file.stat().st_size for file in files) <= 30e6
    for file in files:
        with file.open("rb") as handle:
            header = json.loads(handle.read(int.from_bytes(handle.read(8), "little")))
        assert {v["dtype"] for k, v in header.items() if k != "__metadata__"} == {"F16"}


def test_the_pipeline_of_diffusers_loads_it_and_agrees(mini):
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(MINI, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    text = "a red car at the beach"
    from calcarine.diffusion import gaussian_noise

    noise = gaussian_noise([("a", 0)], (4, 16, 16), 42)
    theirs = pipe(
        text,
        latents=noise,
        num_inference_steps=4,
        guidance_scale=5.0,
        guidance_rescale=1.0,
        output_type="latent",
        height=64,
        width=64,
    ).images
    ours = mini.generate(mini.embed_text([text]), [("a", 0)], steps=4, guidance=5.0)
    assert np.abs(ours - theirs.numpy()).max() < 1e-3


def test_the_autoencoder_returns_held_out_scenes(mini, drawn):
    pictures = np.stack([r.image for r in drawn])
    error = ((mini.decode(mini.encode(pictures)) - pictures / 255.0) ** 2).mean((1, 2, 3))
    assert (-10 * np.log10(error)).mean() >= 26


def test_every_caption_word_is_one_token(mini, drawn):
    words = {word for r in drawn for caption in r.captions for word in caption.split()}
    for word in sorted(words):
        ids = mini.tokenizer(word).input_ids
        assert len(ids) == 3, word


def test_the_scene_judge_reads_true_held_out_scenes(drawn):
    judge = load_judge("scenes")
    present = judge.read(np.stack([r.image for r in drawn])).present > 0.5
    found = [
        present[i, judge.labels.index(kind)] for i, r in enumerate(drawn) for kind in r.categories
    ]
    assert np.mean(found) >= 0.95


def test_named_objects_are_drawn(mini, drawn):
    """Far from the card's figure, which rests on many more scenes, and far above luck."""
    some, judge = drawn[:16], load_judge("scenes")
    captions = mini.embed_captions([r.captions[:1] for r in some])
    keys = [(f"held-out-{i}", 0) for i in range(len(some))]
    pictures = mini.decode(mini.generate(captions, keys, guidance=7.5, steps=12))
    present = judge.read(np.round(pictures * 255).astype(np.uint8)).present > 0.5
    named = np.zeros_like(present)
    for row, r in zip(named, some, strict=True):
        row[[judge.labels.index(kind) for kind in r.categories]] = True
    assert present[named].mean() >= 0.6
    assert present[~named].mean() <= 0.05


def test_text_decides_what_is_drawn(mini):
    """Night is darker than snow, the desert redder than the sea, a digit is white on black."""
    texts = {
        "night": "a red car under the stars",
        "snow": "a red car in the snow",
        "desert": "a red car in the desert",
        "sea": "a red car above the blue water",
        "digit": "a handwritten six",
    }
    pictures = {}
    for name, text in texts.items():
        context = mini.embed_text([text] * 3)
        latents = mini.generate(context, [(name, i) for i in range(3)], steps=10)
        pictures[name] = mini.decode(latents).mean((0, 1, 2))
    assert pictures["night"].mean() < pictures["snow"].mean() - 0.2
    warmth = {name: picture[0] - picture[2] for name, picture in pictures.items()}
    assert warmth["desert"] > warmth["sea"] + 0.3
    assert pictures["digit"].mean() < 0.3 and np.ptp(pictures["digit"]) < 0.05


def test_objects_named_are_drawn_rather_than_others(mini, drawn):
    """The judge finds what the caption names far more often than what another caption names."""
    single = [r for r in drawn if len(r.categories) == 1][:16]
    context = mini.embed_captions([r.captions for r in single])
    keys = [(f"held-out-{i}", 0) for i in range(len(single))]
    latents = mini.generate(context, keys, steps=10, guidance=5.0)
    judge = load_judge("scenes")
    present = judge.read(np.round(mini.decode(latents) * 255).astype(np.uint8)).present
    named = [judge.labels.index(r.categories[0]) for r in single]
    others = [k for k in range(len(judge.labels)) if k not in named]
    right = np.mean([present[i, k] > 0.5 for i, k in enumerate(named)])
    assert right >= 0.6
    assert (present[:, others] > 0.5).mean() <= 0.05
