"""Stable Diffusion v1 at full size on the CPU: calcarine and diffusers' own pipeline.

    python benchmarks/stable_diffusion.py [--steps 3] [--threads 1] [--no-decode]
    python benchmarks/stable_diffusion.py --only-paired --rounds 10   # add to the results there are
    python benchmarks/stable_diffusion.py --write FOLDER              # only the networks, 4.3 GB

The networks have the sizes of Stable Diffusion v1 (U-Net 860 M, autoencoder 84 M, text encoder
123 M weights, float32) and random weights, for speed, memory and sameness do not depend on what
they are. Each side runs in a process of its own: one picture of 512 px is encoded, noised to
strength .8 with the same noise, and denoised under the same text with guidance 5. Then both take
one step in turn, in one process, from the same latents and embedded texts, in changing order, and
the ratio of each pair is printed with a bootstrap interval of their median. Results go to
benchmarks/results/stable-diffusion.json. Seconds of processor time are given next to wall time,
because the machine may have other work.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from memory import peak_bytes

SIDES = ("calcarine", "diffusers")
RESULTS = Path(__file__).parent / "results" / "stable-diffusion.json"
STRENGTH, GUIDANCE, TEXT, SEED = 0.8, 5.0, "a cat", 42


def build(folder: Path) -> dict[str, object]:
    """Components of Stable Diffusion v1 with random weights and a vocabulary of letters."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    from calcarine.diffusion.sd1_conversion import SD_V1

    def config(part: str, name: str = "config.json") -> dict:
        return json.loads((SD_V1 / part / name).read_text())

    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(x + "</w>" for x in letters)]
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    torch.manual_seed(0)
    return {
        "vae": AutoencoderKL.from_config(config("vae")),
        "text_encoder": CLIPTextModel(CLIPTextConfig.from_dict(config("text_encoder"))),
        "tokenizer": CLIPTokenizer(
            str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77
        ),
        "unet": UNet2DConditionModel.from_config(config("unet")),
        "scheduler": DDIMScheduler.from_config(config("scheduler", "scheduler_config.json")),
    }


class Clock:
    """Wall and processor seconds since the last look."""

    def __init__(self) -> None:
        self.look()

    def look(self) -> dict[str, float]:
        now = time.perf_counter(), time.process_time()
        before = getattr(self, "_last", now)
        self._last = now
        return {"wall_s": now[0] - before[0], "cpu_s": now[1] - before[1]}


class Counted:
    """A method that counts its calls."""

    def __init__(self, method) -> None:
        self.method, self.calls = method, 0

    def __call__(self, *args, **options):
        self.calls += 1
        return self.method(*args, **options)


def picture() -> np.ndarray:
    rows, columns = np.mgrid[:512, :512] / 512
    return (np.stack([rows, columns, rows * columns], -1) * 255).astype(np.uint8)


def run_calcarine(parts: dict, steps: int, decode: bool, seen: dict) -> np.ndarray:
    from calcarine.diffusion import LatentDiffusion

    model = LatentDiffusion(**parts)
    clock = Clock()
    z = model.encode(picture()[None])
    context = model.embed_text([TEXT])
    seen["encode"] = clock.look()
    latents = model.generate(
        context,
        [("bench", 0)],
        z,
        strength=STRENGTH,
        guidance=GUIDANCE,
        steps=steps,
        seed=SEED,
        after_step=lambda _: seen["steps"].append(clock.look()),
    )
    if decode:
        clock.look()
        model.decode(latents)
        seen["decode"] = clock.look()
    return latents


def run_diffusers(parts: dict, steps: int, decode: bool, seen: dict) -> np.ndarray:
    import torch
    from diffusers import StableDiffusionImg2ImgPipeline
    from diffusers.pipelines.stable_diffusion import pipeline_stable_diffusion_img2img as module

    from calcarine.diffusion import gaussian_noise

    # The same start: the mode of the posterior, and the noise of (seed, stimulus, sample).
    module.retrieve_latents = lambda found, generator=None: found.latent_dist.mode()
    module.randn_tensor = lambda shape, **_: gaussian_noise([("bench", 0)], tuple(shape[1:]), SEED)
    pipe = StableDiffusionImg2ImgPipeline(
        **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    pipe.set_progress_bar_config(disable=True)
    clock = Clock()

    def after(pipe, step, time, values):
        seen["steps"].append(clock.look())
        return values

    pixels = torch.from_numpy(picture()[None]).permute(0, 3, 1, 2).float() / 127.5 - 1
    encode = Counted(parts["vae"].encode)

    def timed(*args, **options):
        found = encode(*args, **options)
        seen["encode"] = clock.look()
        return found

    parts["vae"].encode = timed
    with torch.no_grad():
        latents = pipe(
            TEXT,
            image=(pixels + 1) / 2,
            strength=STRENGTH,
            num_inference_steps=steps,
            guidance_scale=GUIDANCE,
            negative_prompt="",
            output_type="latent",
            callback_on_step_end=after,
        ).images
        if decode:
            clock.look()
            parts["vae"].decode(latents / parts["vae"].config.scaling_factor)
            seen["decode"] = clock.look()
    return latents.numpy()


def child_paired(folder: Path, threads: int, rounds: int) -> None:
    """One step of each side in turn, in one process and changing order: a fair comparison."""
    import torch
    from diffusers import StableDiffusionImg2ImgPipeline

    from calcarine.diffusion import LatentDiffusion, gaussian_noise

    torch.set_num_threads(threads)
    parts = build(folder)
    model = LatentDiffusion(**parts)
    pipe = StableDiffusionImg2ImgPipeline(
        **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    pipe.set_progress_bar_config(disable=True)
    z = gaussian_noise([("z", 0)], (4, 64, 64), SEED)
    context, empty = model.embed_text([TEXT, ""])[:, None]
    common = {"strength": STRENGTH, "guidance_scale": GUIDANCE, "num_inference_steps": 2}
    texts = {
        "prompt_embeds": torch.from_numpy(context),
        "negative_prompt_embeds": torch.from_numpy(empty),
    }

    def calcarine() -> None:
        model.generate(
            context,
            [("a", 0)],
            z.numpy(),
            strength=STRENGTH,
            guidance=GUIDANCE,
            steps=2,
            empty=empty,
        )

    def diffusers() -> None:
        pipe(image=z, output_type="latent", **texts, **common)

    runs = {"calcarine": calcarine, "diffusers": diffusers}
    found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    clock = Clock()
    for number in range(rounds + 1):
        for side in SIDES if number % 2 == 0 else SIDES[::-1]:
            clock.look()
            runs[side]()
            found[side].append(clock.look())
    # The first pair warms up.
    (folder / "paired.json").write_text(json.dumps({k: v[1:] for k, v in found.items()}))


def with_ratios(found: dict[str, list[dict[str, float]]]) -> dict[str, object]:
    """The pairs, and the median of their ratios with a 95 % bootstrap interval over pairs."""
    summary: dict[str, object] = dict(found)
    for kind in ("wall_s", "cpu_s"):
        ours, theirs = (np.array([pair[kind] for pair in found[side]]) for side in SIDES)
        ratios = ours / theirs
        drawn = np.random.default_rng(0).choice(ratios, (10_000, len(ratios)))
        low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
        summary[f"{kind}_ratio"] = {"median": float(np.median(ratios)), "ci": [low, high]}
    return summary


def write_networks(folder: Path) -> None:
    """A folder in diffusers' format with random weights, to rehearse the full size with."""
    from diffusers import StableDiffusionPipeline

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as words:
        StableDiffusionPipeline(
            **build(Path(words)),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        ).save_pretrained(folder)


def child(side: str, folder: Path, steps: int, threads: int, decode: bool) -> None:
    import torch

    torch.set_num_threads(threads)
    clock = Clock()
    parts = build(folder)
    seen: dict = {"build": clock.look(), "steps": []}
    seen["rss_built_gb"] = peak_bytes() / 1e9
    vae = parts["vae"]
    counted = Counted(vae.encode)
    vae.encode = counted
    run = run_calcarine if side == "calcarine" else run_diffusers
    latents = run(parts, steps, decode, seen)
    seen["encodes"] = counted.calls
    seen["weights"] = {
        name: sum(p.numel() for p in parts[name].parameters())
        for name in ("unet", "vae", "text_encoder")
    }
    seen["rss_peak_gb"] = peak_bytes() / 1e9
    np.save(folder / f"{side}.npy", latents)
    (folder / f"{side}.json").write_text(json.dumps(seen))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=3, help="of the schedule; .8 of them are run")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-decode", action="store_true")
    parser.add_argument("--rounds", type=int, default=6, help="of one step of each side in turn")
    parser.add_argument("--only-paired", action="store_true", help="add to the results there are")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="only write the networks")
    parser.add_argument("--child", choices=(*SIDES, "paired"))
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.write:
        write_networks(options.write)
        return
    if options.child == "paired":
        child_paired(options.folder, options.threads, options.rounds)
        return
    if options.child:
        decode = not options.no_decode
        child(options.child, options.folder, options.steps, options.threads, decode)
        return
    with tempfile.TemporaryDirectory() as folder:
        start = [sys.executable, __file__, "--folder", folder, "--threads", str(options.threads)]
        result = (
            json.loads(RESULTS.read_text())
            if options.only_paired
            else apart(start, options, folder)
        )
        rounds = ["--child", "paired", "--rounds", str(options.rounds)]
        subprocess.run(start + rounds, check=True)
        paired = json.loads((Path(folder) / "paired.json").read_text())
        result["in_turn_one_step"] = with_ratios(paired)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def apart(start: list[str], options: argparse.Namespace, folder: str) -> dict[str, object]:
    """Both sides, each in a process of its own."""
    import diffusers
    import torch

    for side in SIDES:
        command = [*start, "--child", side, "--steps", str(options.steps)]
        subprocess.run(command + ["--no-decode"] * options.no_decode, check=True)
    found = {side: json.loads((Path(folder) / f"{side}.json").read_text()) for side in SIDES}
    ours, theirs = (np.load(Path(folder) / f"{side}.npy") for side in SIDES)
    for side in SIDES:
        # The first step also warms up.
        later = found[side]["steps"][1:] or found[side]["steps"]
        for kind in ("wall_s", "cpu_s"):
            found[side][f"{kind}_per_step"] = float(np.median([s[kind] for s in later]))
    return {
        "what": "image-to-image, one picture of 512 px, random weights, float32, CPU",
        "steps_run": len(found["calcarine"]["steps"]),
        "threads": options.threads,
        "machine": {"processor": platform.machine(), "torch": torch.__version__},
        "diffusers": diffusers.__version__,
        "largest_difference": float(np.abs(ours - theirs).max()),
        "latents_sd": float(theirs.std()),
        "sides": found,
    }


if __name__ == "__main__":
    main()
