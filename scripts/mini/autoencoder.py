"""The autoencoder: pictures to latents and back."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from calcarine.evaluation.networks.judges import JudgeNet
from calcarine.stimuli import scenes
from mini import pool
from mini.networks import bf16, new_autoencoder
from mini.options import (
    N_HELD_OUT,
    digit_pictures,
    digit_pool,
    draw,
    piece,
    scene_images,
    scene_table,
    to_tensor,
)
from mini.training import is_trained, train, trained

BATCH, EXTRA = 14, 2


def other_pictures(options: argparse.Namespace, patterns: int, seed: int) -> torch.Tensor:
    """Digits and block patterns ``(n, 64, 64, 3)`` uint8 on the device."""
    rng = np.random.default_rng(seed)
    digits, _ = digit_pool(options)["generator"]
    pictures = [pool.enlarge(pool.shift_digits(digits, rng)), pool.block_patterns(patterns, rng)]
    return torch.from_numpy(np.concatenate(pictures)).to(options.device)


def train_perceptor(options: argparse.Namespace) -> None:
    """A small classifier of the generator's own scenes, whose layers compare pictures.

    It is not a judge: it saw the generator's scenes, and it is thrown away after the training.
    """
    images, table = scene_images(options), scene_table(options)
    kinds = {name: i for i, name in enumerate(scenes.KINDS)}
    present = torch.zeros(len(table), len(kinds), device=options.device)
    for row, entry in zip(present, table, strict=True):
        row[[kinds[k] for k in entry["kinds"]]] = 1
    torch.manual_seed(9)
    network = JudgeNet(list(scenes.KINDS))

    def loss_of(step: int, generator: torch.Generator) -> torch.Tensor:
        rows = draw(generator, len(images), 64)
        x = (to_tensor(images[rows]) + 1) / 2
        with bf16(options.device):
            logits = network(x if step % 2 else x.flip(3))["present"]
        return F.binary_cross_entropy_with_logits(logits.float(), present[rows]) * 10

    train("perceptor", options.work, network, loss_of, piece(options, "perceptor"), 0.02)


def load_perceptor(options: argparse.Namespace) -> JudgeNet:
    network = JudgeNet(list(scenes.KINDS)).to(options.device)
    network.load_state_dict(trained(options, "perceptor")[0])
    return network.eval().requires_grad_(False)


def perceptual_distance(network: JudgeNet, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Mean difference of unit feature vectors at every place, over three layers.

    The learned perceptual distance of Zhang et al. (2018) without its learned weights.
    """
    layers = [network((each + 1) / 2) for each in (x, y)]
    total = x.new_zeros(())
    for name in ("early", "middle", "late"):
        a, b = (F.normalize(each[name].float(), dim=1) for each in layers)
        total = total + (a - b).square().sum(1).mean()
    return total


def difference(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Of pixels and of their gradients."""
    edges = sum((torch.diff(y, dim=d) - torch.diff(x, dim=d)).abs().mean() for d in (2, 3))
    return F.mse_loss(y, x) * 4 + 0.3 * F.l1_loss(y, x) + 0.3 * edges


def train_autoencoder(options: argparse.Namespace) -> None:
    images, extra = scene_images(options), other_pictures(options, 2000, 0)
    model, perceptor = new_autoencoder(), load_perceptor(options)

    def loss_of(step: int, generator: torch.Generator) -> torch.Tensor:
        rows = draw(generator, len(images), BATCH), draw(generator, len(extra), EXTRA)
        x = to_tensor(torch.cat([images[rows[0]], extra[rows[1]]]))
        with bf16(options.device):
            posterior = model.encode(x).latent_dist
            mean, logvar = posterior.mean.float(), posterior.logvar.float()
            noise = torch.randn(mean.shape, generator=generator, device=mean.device)
            y = model.decode(mean + torch.exp(0.5 * logvar) * noise).sample.float()
            seen = perceptual_distance(perceptor, x[:BATCH], y[:BATCH])
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        return difference(y, x) + options.perceptual * seen + 2e-4 * kl

    average = train(
        "autoencoder", options.work, model, loss_of, piece(options, "autoencoder"), 0.03
    )
    print(f"autoencoder PSNR on held-out scenes {held_out_psnr(options, average):.2f} dB")


def held_out_psnr(options: argparse.Namespace, model: Any) -> float:
    held_out, _ = pool.scene_pool(options.work, "held_out", N_HELD_OUT, options.workers)
    with torch.no_grad():
        x = to_tensor(held_out[:500]).to(options.device)
        y = model.decode(model.encode(x).latent_dist.mode()).sample.clamp(-1, 1)
        mse = ((y - x) / 2).square().mean((1, 2, 3))
    return float((-10 * mse.log10()).mean())


def mixed(z: torch.Tensor, x: torch.Tensor, generator: torch.Generator) -> tuple[Any, ...]:
    """The last third of the batch becomes mixtures of 2 to 4 of its own members."""
    own = 2 * len(z) // 3
    n, device = len(z) - own, z.device
    order = torch.rand(n, n, generator=generator, device=device).argsort(1)
    count = 2 + draw(generator, 3, n)[:, None]
    shares = (torch.rand(n, n, generator=generator, device=device) + 0.1) * (order < count)
    shares = shares / shares.sum(1, keepdim=True)
    return tuple(
        torch.cat([a[:own], torch.einsum("ij,jchw->ichw", shares, a[own:])]) for a in (z, x)
    )


def train_decoder(options: argparse.Namespace) -> None:
    """The decoder learns that a mixture of latents is a mixture of pictures.

    Ridge predicts means of latents. An autoencoder that never saw any answers them with false
    colours; one that did answers with a blurred picture, which is the honest reading. The encoder
    is frozen, so the latents that the denoiser was trained on stay as they are.
    """
    images, extra = scene_images(options), other_pictures(options, 1500, 5)
    model, perceptor = load_autoencoder(options, trained_decoder=False), load_perceptor(options)
    module = nn.ModuleDict({"decoder": model.decoder, "post_quant_conv": model.post_quant_conv})
    module.requires_grad_(True)

    def loss_of(step: int, generator: torch.Generator) -> torch.Tensor:
        parts = []
        for source, count in ((images, BATCH - EXTRA), (extra, 2 * EXTRA)):
            x = to_tensor(source[draw(generator, len(source), count)])
            with torch.no_grad(), bf16(options.device):
                z = model.encode(x).latent_dist.mode().float()
            parts.append(mixed(z, x, generator))
        z, x = torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])
        z = z + 0.05 * torch.randn(z.shape, generator=generator, device=z.device)
        own = 2 * (BATCH - EXTRA) // 3
        with bf16(options.device):
            y = module["decoder"](module["post_quant_conv"](z)).float()
            seen = perceptual_distance(perceptor, x[:own], y[:own])
        return difference(y, x) + options.perceptual * seen

    train("decoder", options.work, module, loss_of, piece(options, "decoder"), 0.01)


def load_autoencoder(options: argparse.Namespace, trained_decoder: bool = True) -> Any:
    """The autoencoder, with the decoder of the last stage where there is one."""
    model = new_autoencoder()
    state, _ = trained(options, "autoencoder")
    if trained_decoder and is_trained(options, "decoder"):
        state |= trained(options, "decoder")[0]
    model.load_state_dict(state)
    return model.eval().requires_grad_(False).to(options.device)


def latents(options: argparse.Namespace) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Cached posterior modes of scenes and digits, as the denoiser sees them, and their scale."""
    from safetensors.torch import load_file, save_file

    file = options.work / f"latents-{options.scenes}.safetensors"
    if not file.exists():
        model = load_autoencoder(options, trained_decoder=False)
        pictures = torch.from_numpy(digit_pictures(options)[0]).to(options.device)
        found = {}
        for name, source in (("scenes", scene_images(options)), ("digits", pictures)):
            parts = []
            for start in range(0, len(source), 250):
                with torch.no_grad(), bf16(options.device):
                    posterior = model.encode(to_tensor(source[start : start + 250])).latent_dist
                parts.append(posterior.mode().half().cpu())
            found[name] = torch.cat(parts).contiguous()
        found["scale"] = 1 / found["scenes"].float().std().reshape(1)
        save_file(found, file)
    found = load_file(file)
    return found["scenes"], found["digits"], float(found["scale"])
