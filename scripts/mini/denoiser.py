"""The denoiser, with the text encoder that it learns to read."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from calcarine.stimuli import scenes
from mini import pool
from mini.autoencoder import latents
from mini.networks import LENGTH, bf16, new_denoiser, new_scheduler, new_text_encoder
from mini.options import digit_pictures, draw, piece, scene_table
from mini.text import caption_ids, digit_ids, new_tokenizer, tokenize
from mini.training import train, trained

DIGITS = 0.15  # of a batch
MEANS = 0.4  # of a batch, conditioned on the mean of several captions
EMPTY = 0.1  # of the rest
OBJECTS = 4.0  # how much more the places of objects weigh than the background, without noise


def denoiser_data(options: argparse.Namespace) -> dict[str, Any]:
    """Latents, captions as token ids and coarse semantic maps of scenes and digits."""
    table, tokenizer = scene_table(options), new_tokenizer(options)
    scene_latents, digit_latents, scale = latents(options)
    pictures, labels = digit_pictures(options)
    dark = len(scenes.BACKGROUNDS) + len(scenes.KINDS)
    white = pictures[:, 2::4, 2::4, 0] > 127
    digit_maps = np.where(white, dark + 1 + labels[:, None, None], dark)
    scene_maps = pool.coarse_maps(options.work, "generator", options.scenes, options.workers)
    maps = np.concatenate([scene_maps, digit_maps]).astype(np.uint8)
    tensors = {
        "latents": torch.cat([scene_latents, digit_latents]) * scale,
        "ids": torch.cat([caption_ids(options, tokenizer, table), digit_ids(tokenizer)[labels]]),
        "maps": torch.from_numpy(maps),
        "objects": objects(torch.from_numpy(maps), dark),
        "empty": tokenize(tokenizer, [""])[0],
    }
    return {
        **{name: tensor.to(options.device) for name, tensor in tensors.items()},
        "n_scenes": len(scene_latents),
        "n_classes": dark + 11,
        "vocabulary": len(tokenizer),
    }


def objects(maps: torch.Tensor, dark: int) -> torch.Tensor:
    """Where coarse semantic maps show an object or its outline."""
    inside = (maps >= len(scenes.BACKGROUNDS)) & (maps != dark)
    return F.max_pool2d(inside.half()[:, None], 3, 1, 1)[:, 0] > 0


def contexts(
    encoder: nn.Module,
    ids: torch.Tensor,
    empty: torch.Tensor,
    generator: torch.Generator,
    device: str,
) -> torch.Tensor:
    """Conditioning of a batch from captions ``(n, 5, tokens)``.

    Some pictures are conditioned on the mean of two to five captions, as decoding conditions them.
    Half of these means are shrunk towards the mean of the batch and noisy, as a mean that ridge
    regression predicts; the others of the batch have one caption, or none.
    """
    n, means = len(ids), round(MEANS * len(ids))
    single = ids[torch.arange(means, n, device=ids.device), draw(generator, 5, n - means)]
    nothing = torch.rand(n - means, generator=generator, device=ids.device) < EMPTY
    single = torch.where(nothing[:, None], empty, single)
    with bf16(device):
        states = encoder(torch.cat([ids[:means].reshape(-1, LENGTH), single])).last_hidden_state
    states = states.float()
    several = states[: 5 * means].reshape(means, 5, LENGTH, -1)
    # Most have all five captions, the others between two and four.
    count = torch.where(
        torch.rand(means, generator=generator, device=ids.device) < 0.7,
        5,
        2 + draw(generator, 3, means),
    )
    order = torch.rand(means, 5, generator=generator, device=ids.device).argsort(1)
    weights = (order < count[:, None]).float() / count[:, None]
    mean = torch.einsum("ns,nstw->ntw", weights, several)
    return torch.cat([as_predicted(mean, generator), states[5 * means :]])


def as_predicted(mean: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The first half of some contexts with the shrinkage and noise of a prediction."""
    half, device = len(mean) // 2, mean.device
    centre, spread = mean.detach().mean(0), mean.detach().std(0)
    shrink = 0.5 + 0.5 * torch.rand(half, 1, 1, generator=generator, device=device)
    level = 0.5 * torch.rand(half, 1, 1, generator=generator, device=device)
    noise = torch.randn(mean[:half].shape, generator=generator, device=device)
    predicted = centre + shrink * (mean[:half] - centre) + level * spread * noise
    return torch.cat([predicted, mean[half:]])


def noise_levels(count: int, generator: torch.Generator) -> torch.Tensor:
    """Times in [0, 1): half of them uniform, half in the middle, where objects take shape.

    The second half is logit-normal (Esser et al. 2024). Both are spread evenly, which makes the
    loss of a batch less noisy (Kingma et al. 2021).
    """
    device = generator.device
    shares = torch.randperm(count, generator=generator, device=device) / count
    t = (shares + torch.rand(1, generator=generator, device=device)) % 1
    middle = torch.rand(count, generator=generator, device=device) < 0.5
    return torch.where(middle, torch.special.ndtri(t.clamp(1e-4, 1 - 1e-4)).sigmoid(), t)


def train_denoiser(options: argparse.Namespace) -> None:
    """Denoiser and text encoder, with a head that names what each place of the picture shows.

    The head reads the denoiser's features at half the latent's resolution, so that these are about
    objects early on, and is thrown away after the training.
    """
    from diffusers.models.attention_processor import AttnProcessor

    data, device = denoiser_data(options), options.device
    n_scenes, n_digits = data["n_scenes"], len(data["latents"]) - data["n_scenes"]
    text, denoiser = new_text_encoder(data["vocabulary"]), new_denoiser()
    state, _ = trained(options, "text")
    text.load_state_dict(
        {k.removeprefix("encoder."): v for k, v in state.items() if k.startswith("encoder.")}
    )
    if device == "cpu":  # fused attention is slow backwards on a CPU
        denoiser.set_attn_processor(AttnProcessor())
        text.set_attn_implementation("eager")
    features: list[torch.Tensor] = []
    denoiser.up_blocks[1].attentions[-1].register_forward_hook(
        lambda module, inputs, output: features.append(output[0])
    )
    torch.manual_seed(6)
    head = nn.Sequential(
        nn.GroupNorm(16, 128),
        nn.SiLU(),
        nn.Conv2d(128, 4 * data["n_classes"], 1),
        nn.PixelShuffle(2),
    )
    module = nn.ModuleDict({"denoiser": denoiser, "text": text, "head": head})
    alphas = new_scheduler().alphas_cumprod.float().to(device)
    batch = options.batch
    digits = round(DIGITS * batch)

    def loss_of(step: int, generator: torch.Generator) -> torch.Tensor:
        rows = torch.cat(
            [
                draw(generator, n_scenes, batch - digits),
                n_scenes + draw(generator, n_digits, digits),
            ]
        )
        rows = rows[torch.randperm(batch, generator=generator, device=device)]
        x = data["latents"][rows].float()
        context = contexts(
            module["text"], data["ids"][rows].long(), data["empty"], generator, device
        )
        noise = torch.randn(x.shape, generator=generator, device=device)
        t = (noise_levels(batch, generator) * 1000).long()
        a = alphas[t].reshape(-1, 1, 1, 1)
        noisy = a.sqrt() * x + (1 - a).sqrt() * noise
        target = a.sqrt() * noise - (1 - a).sqrt() * x
        features.clear()
        with bf16(device):
            prediction = module["denoiser"](noisy, t, context).sample
            named = module["head"](features[0])
        recognition = F.cross_entropy(named.float(), data["maps"][rows].long())
        error = (prediction.float() - target).square()
        # Most of a scene is a background that is soon learned. In noise that hides where the
        # objects are, a weight that depends on it would bias the prediction.
        weights = 1 + OBJECTS * a * data["objects"][rows][:, None]
        return (weights * error).mean() / weights.mean() + 0.1 * recognition

    train(
        "denoiser",
        options.work,
        module,
        loss_of,
        piece(options, "denoiser"),
        options.lr,
        ema_decay=0.999,
    )
