"""Contrastive masked pre-training of fMRI: calcarine and a plain network of timm's blocks.

    python benchmarks/mae.py                                   # full size: 24 x 1024, 4,192 voxels
    python benchmarks/mae.py --batch 1 4 16 --precision 32 bf16 --repeats 7
    python benchmarks/mae.py --compile                         # our blocks through torch.compile
    python benchmarks/mae.py --dim 64 --depth 2 --length 256 --batch 4 --repeats 3   # seconds
    python benchmarks/mae.py --table benchmarks/results/mae.json

Ours is `ContrastPretraining` in the project's own training step under Lightning, as `calcarine`
trains it. The other side is the same network as one would write it with timm at hand (`pip install
'calcarine[benchmark]'`): `timm.models.vision_transformer.Block`, patches by a convolution, each
sample shuffled as in He et al. 2022, a forward pass for each of the two maskings, the losses as the
paper has them, torch's AdamW with weight decay on matrices only, clipping by the norm. It keeps
`n - int(.75 n)` patches, as ours does.

Before a time counts, both sides are given the same weights, vectors and maskings, and every part
of the loss and the gradient must agree in float32: losses to 1e-4, the gradient to 1e-3 of its
norm. How far losses are apart after the steps of the comparison, in each precision, is printed too.

In float32 both do the same arithmetic in the large matrix products, so there is little to win
where these are all: with large batches on a CPU. Ours wins by what comes around them. The two
maskings are one batch, so weights are read and their gradients written once; AdamW is fused, one
pass over the memory; the losses are few kernels. `--compile` also fuses norms, GELU and sums of our
blocks. bf16 is a setting of the project's training (losses stay in float32): the table also says
ours in bf16 over the other side in float32.

Times are of whole training steps (forward, backward, clipping, optimiser), by the clock and in
processor seconds, for on a shared machine the two differ. The sides take turns, step by step, in
one process; the first two steps of each warm up; medians. Peak memory is that of a process in which
one side alone does two steps.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from memory import peak_bytes

RESULTS = Path(__file__).parent / "results" / "mae.json"
SEED, PATCH, HEADS, RATIO, CLIP = 2022, 16, 16, 0.75, 0.8
LOSS_TOLERANCE, GRADIENT_TOLERANCE = 1e-4, 1e-3
TARGET = 2.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dim", type=int, default=1024, help="of the encoder; half in the decoder")
    parser.add_argument(
        "--depth", type=int, default=24, help="of the encoder; a third in the other"
    )
    parser.add_argument("--length", type=int, default=4192, help="voxels of a vector")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--precision", nargs="+", choices=("32", "bf16"), default=["32", "bf16"])
    parser.add_argument("--repeats", type=int, default=5, help="steps of each side that count")
    parser.add_argument("--compile", action="store_true", help="compile our blocks, each kind once")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, help="torch's own number by default")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--part", choices=("answers", "turns", "ours", "timm"))
    options = parser.parse_args()
    if options.table:
        print(table(json.loads(options.table.read_text())))
        return
    _check(parser, options)
    if options.part:
        print(json.dumps(PARTS[options.part](options)))
        return
    if not timm_version():
        print("timm is not installed, so there is nothing to compare with: pip install timm")
        return
    found = measured(options)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if options.dim % (4 * HEADS) or options.length % PATCH:
        parser.error(f"--dim is a multiple of {4 * HEADS} and --length one of {PATCH}")
    if min(options.depth, options.repeats, *options.batch) < 1:
        parser.error("--depth, --repeats and --batch are 1 or more")


def timm_version() -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("timm")
    except PackageNotFoundError:
        return None


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Answers first, then times and memory for every batch and precision."""
    found: dict[str, Any] = {
        "what": f"{options.depth} x {options.dim} encoder, vectors of {options.length} voxels",
        "compiled": options.compile,
        "machine": machine(options.device),
        "timm": timm_version(),
        "answers": apart("answers", options),
        "cases": [],
    }
    for precision in options.precision:
        for batch in options.batch:
            case = {"precision": precision, "batch": batch}
            case |= {"turns": apart("turns", options, precision, batch)}
            case |= {
                f"{side}_peak_gb": apart(side, options, precision, batch)["peak_gb"]
                for side in ("ours", "timm")
            }
            print(line(case), file=sys.stderr, flush=True)
            found["cases"].append(case)
    found["machine"]["load when it ended"] = round(os.getloadavg()[0], 1)
    return found


def apart(
    part: str, options: argparse.Namespace, precision: str = "32", batch: int | None = None
) -> dict[str, Any]:
    """Run a part in a process of its own."""
    command = [sys.executable, __file__, "--part", part, "--precision", precision]
    command += ["--batch", str(batch or min(max(options.batch), 4))]
    for name in ("dim", "depth", "length", "repeats", "device"):
        command += [f"--{name}", str(getattr(options, name))]
    command += ["--compile"] * options.compile
    if options.threads:
        command += ["--threads", str(options.threads)]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"The part '{part}' ended with {done.returncode}; see what it says above.")
    return dict(json.loads(done.stdout.splitlines()[-1]))


# -- the other side: what one writes with timm at hand ---------------------------------------------


def plain_network(config: Any) -> Any:
    """The masked autoencoder of a configuration, of timm's blocks."""
    import torch
    from timm.models.vision_transformer import Block
    from torch import nn

    from calcarine.visdec.patches import sine_positions

    norm = partial(nn.LayerNorm, eps=1e-6)

    def blocks(depth: int, dim: int, heads: int) -> nn.ModuleList:
        return nn.ModuleList(
            [
                Block(dim, heads, config.mlp_ratio, qkv_bias=True, norm_layer=norm)
                for _ in range(depth)
            ]
        )

    class MaskedAutoencoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            dim, narrow = config.dim, config.decoder_dim
            self.patch_embed = nn.Conv1d(1, dim, config.patch, stride=config.patch)
            self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
            self.blocks, self.norm = blocks(config.depth, dim, config.heads), norm(dim)
            self.decoder_embed = nn.Linear(dim, narrow)
            self.mask_token = nn.Parameter(torch.zeros(1, 1, narrow))
            self.decoder_blocks = blocks(config.decoder_depth, narrow, config.decoder_heads)
            self.decoder_norm = norm(narrow)
            self.decoder_pred = nn.Linear(narrow, config.patch)
            self.register_buffer("pos_embed", sine_positions(config.n_patches, dim)[None])
            self.register_buffer(
                "decoder_pos_embed", sine_positions(config.n_patches, narrow)[None]
            )

        def random_masking(self, x: Any, noise: Any) -> tuple[Any, Any, Any]:
            n, length, width = x.shape
            keep = length - int(length * RATIO)
            shuffle = torch.argsort(noise, dim=1)
            restore = torch.argsort(shuffle, dim=1)
            kept = torch.gather(x, 1, shuffle[:, :keep].unsqueeze(-1).repeat(1, 1, width))
            mask = torch.ones(n, length, device=x.device)
            mask[:, :keep] = 0
            return kept, torch.gather(mask, 1, restore), restore

        def forward(self, vectors: Any, noise: Any) -> tuple[Any, Any]:
            x = self.patch_embed(vectors.unsqueeze(1)).transpose(1, 2)
            x = x + self.pos_embed[:, 1:]
            x, mask, restore = self.random_masking(x, noise)
            start = (self.cls_token + self.pos_embed[:, :1]).expand(len(x), -1, -1)
            x = torch.cat([start, x], dim=1)
            for block in self.blocks:
                x = block(x)
            x = self.decoder_embed(self.norm(x))
            missing = restore.shape[1] + 1 - x.shape[1]
            tokens = self.mask_token.to(x.dtype).repeat(len(x), missing, 1)
            rest = torch.cat([x[:, 1:], tokens], dim=1)
            rest = torch.gather(rest, 1, restore.unsqueeze(-1).repeat(1, 1, x.shape[2]))
            x = torch.cat([x[:, :1], rest], dim=1) + self.decoder_pos_embed
            for block in self.decoder_blocks:
                x = block(x)
            return self.decoder_pred(self.decoder_norm(x))[:, 1:], mask

    return MaskedAutoencoder()


def copied_state(ours: Any) -> dict[str, Any]:
    """Weights of our autoencoder under the names of the plain one."""
    state = {name.removeprefix("encoder."): value for name, value in ours.state_dict().items()}
    state["patch_embed.weight"] = state["patch_embed.weight"].unsqueeze(1)
    return state


def plain_losses(predictions: list[Any], masks: list[Any], vectors: Any) -> dict[str, Any]:
    import torch
    from torch.nn import functional as F

    def contrast(a: Any, b: Any) -> Any:
        scores = torch.exp(F.normalize(a, dim=1) @ F.normalize(b, dim=1).T / 0.1)
        return -torch.log(torch.diagonal(scores) / scores.sum(dim=1)).mean()

    def masked_error(prediction: Any, mask: Any) -> Any:
        errors = ((prediction - vectors.view_as(prediction)) ** 2).mean(dim=-1)
        return (errors * mask).sum() / mask.sum()

    first, second = (prediction.flatten(1) for prediction in predictions)
    parts = {
        "reconstruction": (
            masked_error(predictions[0], masks[0]) + masked_error(predictions[1], masks[1])
        )
        / 2,
        "self_contrast": (contrast(first, vectors) + contrast(vectors, second)) / 2,
        "cross_contrast": contrast(first, second),
    }
    total = parts["reconstruction"] + parts["self_contrast"] + 0.5 * parts["cross_contrast"]
    return {"loss": total} | parts


class Plain:
    """The other side: network, optimiser and training step."""

    def __init__(self, state: dict[str, Any], shape: Any, precision: str, device: str) -> None:
        import torch

        self.net = plain_network(shape).to(device)
        self.net.load_state_dict(state, strict=False)
        self.precision, self.device = precision, device
        weights = list(self.net.parameters())
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in weights if p.ndim > 1], "weight_decay": 0.05},
                {"params": [p for p in weights if p.ndim <= 1], "weight_decay": 0.0},
            ],
            betas=(0.9, 0.95),
        )

    def losses(self, vectors: Any, noise: Any) -> dict[str, Any]:
        """Of vectors (batch, voxels), with noise (2 batch, patches) for the two maskings."""
        import torch

        vectors = vectors.to(self.device)
        halves = noise.to(self.device).chunk(2)
        with torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bf16"):
            found = [self.net(vectors, half) for half in halves]
        return plain_losses(
            [prediction.float() for prediction, _ in found], [m for _, m in found], vectors
        )

    def step(self, vectors: Any, noise: Any, rate: float) -> float:
        import torch

        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        loss = self.losses(vectors, noise)["loss"]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), CLIP)
        self.optimizer.step()
        return loss.item()


# -- our side: the project's own training step -----------------------------------------------------


def our_task(options: argparse.Namespace) -> Any:
    """What the first phase trains, on simulated vectors: a few patterns and noise."""
    import numpy as np

    from calcarine.visdec.encoder_storage import new_autoencoder
    from calcarine.visdec.fmri_autoencoder import AutoencoderConfig
    from calcarine.visdec.patches import patch_vectors
    from calcarine.visdec.pretraining import ContrastPretraining

    shape = AutoencoderConfig(
        n_patches=options.length // PATCH,
        patch=PATCH,
        dim=options.dim,
        depth=options.depth,
        heads=HEADS,
        decoder_dim=options.dim // 2,
        decoder_depth=max(1, options.depth // 3),
        decoder_heads=HEADS,
    )
    # One epoch at most, for ours takes no vector as a negative of itself where it comes twice.
    rows = options.batch[0] * (options.repeats + 2)
    rng = np.random.default_rng(SEED)
    vectors = rng.standard_normal((rows, 8)) @ rng.standard_normal((8, options.length))
    vectors = vectors / 4 + rng.standard_normal((rows, options.length))
    train = patch_vectors(vectors.astype(np.float32), PATCH)
    return ContrastPretraining(new_autoencoder(shape, SEED), train)


def our_training(options: argparse.Namespace, steps: int) -> Any:
    from calcarine.training import TrainingConfig

    return TrainingConfig(
        steps=steps,
        batch_size=options.batch[0],
        warmup_steps=steps,
        clip=CLIP,
        precision=options.precision[0],
        accelerator="gpu" if options.device == "cuda" else "cpu",
        seed=SEED,
    )


def compile_blocks(network: Any) -> int:
    """Compile every block in place; those of one shape share what is compiled."""
    from calcarine.visdec.transformer_blocks import TransformerBlock

    blocks = [module for module in network.modules() if isinstance(module, TransformerBlock)]
    for block in blocks:
        block.compile(dynamic=False)
    return len(blocks)


def train_watched(
    task: Any, config: Any, after: Callable[[int, Any], None] | None = None
) -> list[dict[str, float]]:
    """Train under Lightning, as calcarine does, but keep no checkpoints; time every step.

    ``after`` is called between steps, with the number of the step and the training module; what
    it does is not timed.
    """
    from lightning.pytorch.callbacks import Callback

    from calcarine.training.loop import Steps, TrainingModule
    from calcarine.training.trainer import make_trainer, quiet

    clock, seen = Clock(config.accelerator != "cpu"), []

    class Watch(Callback):
        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
            clock.look()

        def on_train_batch_end(
            self, trainer: Any, module: Any, outputs: Any, batch: int, index: int
        ) -> None:
            seen.append(clock.look() | module.losses)
            if after is not None:
                after(batch, module)

    module = TrainingModule(task, config, {})
    with quiet(), tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(config, Path(folder), Watch(), 0)
        trainer.fit(module, train_dataloaders=Steps(0, config.n_steps))
    return seen


class Clock:
    """Wall and processor seconds since the last look."""

    def __init__(self, on_gpu: bool) -> None:
        self._on_gpu = on_gpu
        self._last = self._now()

    def look(self) -> dict[str, float]:
        now = self._now()
        before, self._last = self._last, now
        return {"seconds": now[0] - before[0], "processor_seconds": now[1] - before[1]}

    def _now(self) -> tuple[float, float]:
        if self._on_gpu:
            import torch

            torch.cuda.synchronize()
        return time.perf_counter(), time.process_time()


# -- parts, each in a process of its own -----------------------------------------------------------


def drawn(task: Any, config: Any, step: int) -> tuple[Any, Any]:
    """Vectors and noise of our training step, for the other side."""
    import torch

    from calcarine.training import StepBatches, make_generator

    rows = StepBatches(task.n_train, config.batch_size, config.seed).chunk(step, 0, 1)
    truth = task._train.rows(rows)
    generator = make_generator(config.seed, 0, step, 0)
    return truth.flat(), torch.rand(2 * len(rows), truth.n_patches, generator=generator)


def answers(options: argparse.Namespace) -> dict[str, Any]:
    """Losses and gradients of both sides on the first batch, in float32."""
    import torch

    from calcarine.training import StepBatches, make_generator

    begin(options)
    config, task = our_training(options, 1), our_task(options)
    task.to(options.device)
    other = Plain(copied_state(task.autoencoder), task.autoencoder.config, "32", options.device)
    if options.compile:
        compile_blocks(task)
    rows = StepBatches(task.n_train, config.batch_size, config.seed).chunk(0, 0, 1)
    loss, parts = task.training_loss(rows, make_generator(config.seed, 0, 0, 0))
    loss.backward()
    theirs = other.losses(*drawn(task, config, 0))
    theirs["loss"].backward()
    ours = {name: float(value.detach()) for name, value in ({"loss": loss} | parts).items()}
    theirs = {name: float(value.detach()) for name, value in theirs.items()}
    apart_by = {name: abs(ours[name] - theirs[name]) for name in theirs}
    names = dict(other.net.named_parameters())
    squares, whole = 0.0, 0.0
    for name, parameter in task.autoencoder.named_parameters():
        their = names[name.removeprefix("encoder.")].grad
        own = parameter.grad.view_as(their)
        squares += float(torch.linalg.vector_norm(own - their)) ** 2
        whole += float(torch.linalg.vector_norm(their)) ** 2
    gradient = (squares / whole) ** 0.5
    for name, value in apart_by.items():
        # A part that is not finite differs, too.
        if not value <= LOSS_TOLERANCE * max(1.0, abs(theirs[name])):
            sys.exit(f"The sides disagree in {name}: {ours[name]}, {theirs[name]}.")
    if not gradient <= GRADIENT_TOLERANCE:
        sys.exit(f"The sides disagree in the gradient, by {gradient:.1e} of its norm.")
    return {
        "batch": config.batch_size,
        "weights": sum(p.numel() for p in task.autoencoder.parameters()),
        "losses": theirs,
        "differences": apart_by,
        "gradient_difference": gradient,
    }


def turns(options: argparse.Namespace) -> dict[str, Any]:
    """Steps of both sides in turn, on the same vectors with the same maskings."""
    from calcarine.training import learning_rate

    begin(options)
    task = our_task(options)
    # The first two steps warm up: allocations, and what is compiled.
    config = our_training(options, options.repeats + 2)
    other = Plain(
        copied_state(task.autoencoder),
        task.autoencoder.config,
        config.precision,
        options.device,
    )
    if options.compile:
        compile_blocks(task)
    clock, theirs = Clock(options.device == "cuda"), []

    def their_turn(step: int, _: Any) -> None:
        vectors, noise = drawn(task, config, step)
        clock.look()
        loss = other.step(vectors, noise, learning_rate(step, config))
        theirs.append(clock.look() | {"loss": loss})

    ours = train_watched(task, config, their_turn)
    found = {"ours": summary(ours[2:], config), "timm": summary(theirs[2:], config)}
    found["ratio"] = statistics.median(
        b["seconds"] / a["seconds"] for a, b in zip(ours[2:], theirs[2:], strict=True)
    )
    found["first_losses"] = {"ours": ours[0]["loss"], "timm": theirs[0]["loss"]}
    found["loss_differences"] = [
        abs(a["loss"] - b["loss"]) for a, b in zip(ours, theirs, strict=True)
    ]
    return found


def summary(steps: list[dict[str, float]], config: Any) -> dict[str, Any]:
    seconds = [step["seconds"] for step in steps]
    middle = statistics.median(seconds)
    return {
        "seconds_per_step": middle,
        "all_seconds": [round(one, 4) for one in seconds],
        "processor_seconds_per_step": statistics.median(s["processor_seconds"] for s in steps),
        "samples_per_second": config.batch_size / middle,
    }


def one_side(side: str, options: argparse.Namespace) -> dict[str, Any]:
    """Two steps of one side alone, and the most memory that this process had."""
    begin(options)
    task, config = our_task(options), our_training(options, 2)
    if side == "ours":
        if options.compile:
            compile_blocks(task)
        train_watched(task, config)
    else:
        state, shape = copied_state(task.autoencoder), task.autoencoder.config
        other = Plain(state, shape, config.precision, options.device)
        del task.autoencoder, state
        for step in range(2):
            other.step(*drawn(task, config, step), config.lr)
    return {"peak_gb": peak_gigabytes(options.device)}


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "answers": answers,
    "turns": turns,
    "ours": partial(one_side, "ours"),
    "timm": partial(one_side, "timm"),
}


def begin(options: argparse.Namespace) -> None:
    import torch

    if options.threads:
        torch.set_num_threads(options.threads)


def peak_gigabytes(device: str = "cpu") -> float:
    """Peak memory of this process, or of its GPU."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated() / 1e9
    return peak_bytes() / 1e9


def machine(device: str = "cpu") -> dict[str, Any]:
    """What the measurements were made on."""
    import torch

    about = {
        "processor": processor(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "torch": torch.__version__,
        "load when it began": round(os.getloadavg()[0], 1),
    }
    return about | ({"gpu": torch.cuda.get_device_name()} if device == "cuda" else {})


def processor() -> str:
    """Its name, and whether it knows bfloat16."""
    about = Path("/proc/cpuinfo")
    if not about.is_file():
        return platform.processor() or platform.machine()
    text = about.read_text()
    names = [x.split(":")[1].strip() for x in text.splitlines() if x.startswith("model name")]
    knows = [flag for flag in ("avx512f", "avx512_bf16", "amx_bf16") if flag in text.split()]
    return ", ".join([*names[:1], *knows]) or platform.machine()


def line(case: dict[str, Any]) -> str:
    turn, worst = case["turns"], max(case["turns"]["loss_differences"])
    ours, theirs = turn["ours"], turn["timm"]
    return (
        f"{case['precision']:>4} batch {case['batch']:>3}: ours {ours['samples_per_second']:.3g}, "
        f"timm {theirs['samples_per_second']:.3g} samples/s, {turn['ratio']:.2f} x; "
        f"processor {ours['processor_seconds_per_step']:.3g} and "
        f"{theirs['processor_seconds_per_step']:.3g} s a step; peak "
        f"{case['ours_peak_gb']:.2f} and {case['timm_peak_gb']:.2f} GB; losses of all steps within "
        f"{worst:.0e}"
    )


def table(found: dict[str, Any]) -> str:
    answers = found["answers"]
    worst = max(answers["differences"].values())
    lines = [
        f"{found['what']}, {answers['weights'] / 1e6:.1f} M weights"
        + (", our blocks compiled" if found["compiled"] else ""),
        f"same answers in float32: losses within {worst:.1e}, gradient within "
        f"{answers['gradient_difference']:.1e} of its norm",
        *(line(case) for case in found["cases"]),
    ]
    # What a user of the plain code, who runs it as it is, would gain by ours in bf16.
    plain = {c["batch"]: c["turns"] for c in found["cases"] if c["precision"] == "32"}
    for case in found["cases"]:
        if case["precision"] == "bf16" and case["batch"] in plain:
            turn, base = case["turns"], plain[case["batch"]]
            ratio = turn["ours"]["samples_per_second"] / base["timm"]["samples_per_second"]
            off = abs(turn["first_losses"]["ours"] - base["first_losses"]["timm"])
            lines.append(
                f"ours in bf16 over timm in 32, batch {case['batch']}: {ratio:.2f} x, first losses "
                f"within {off:.0e}"
            )
    reached = [c for c in found["cases"] if c["turns"]["ratio"] >= TARGET]
    lines.append(
        f"target: {TARGET:g} x the samples a second, reached in {len(reached)} of "
        f"{len(found['cases'])} cases of one precision on both sides"
    )
    lines.append("machine: " + ", ".join(f"{k} {v}" for k, v in found["machine"].items()))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
