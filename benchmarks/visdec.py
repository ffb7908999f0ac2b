"""Training steps of the three phases of Vis-Dec at full size: time and memory per sample.

    python benchmarks/visdec.py                                  # all phases, two steps each
    python benchmarks/visdec.py --phases 1 --steps 3 --batch 50 --micro 25 --precision bf16
    python benchmarks/visdec.py --tiny                           # the same in seconds
    python benchmarks/visdec.py --table benchmarks/results/visdec-*.json

Weights are random and data simulated, of true shapes; speed and memory do not depend on what they
are. Steps are those of the project's training under Lightning, checkpoints left out. Batches and
learning rates are the published ones; a batch is cut into micro-batches whose gradients are summed.

1. Contrastive masked pre-training: fMRI autoencoder of 24 x 1024 and 8 x 512 blocks, vectors of
   4,192 voxels, two maskings of each; batch 250.
2. Cross-modal guidance: the same autoencoder with 6 decoder blocks, ViT-MAE of ViT-base shape with
   6 decoder blocks at 224 px whose body is frozen, 3 + 3 cross-attention blocks; batch 16.
3. Adaptation: fMRI encoder and conditioner (77 x 512 context and time condition), class-conditional
   latent diffusion of cin256-v2's shape, latents of 3 x 64 x 64. Gradients are kept for the
   conditioner and, of the U-Net, for cross-attention and the norm before it; batch 8.

Each phase runs in a process of its own. Its time counts when every loss is finite, weights that
train have moved, and weights that are frozen have not. The first step also warms up; it is left
out of the median where there are others. Peak memory covers all: weights, gradients, AdamW's
moments, activations, data, libraries.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mae import SEED, begin, machine, peak_gigabytes, train_watched

RESULTS = Path(__file__).parent / "results" / "visdec.json"
PHASES = {
    1: "contrastive masked pre-training",
    2: "cross-modal guidance",
    3: "adaptation of the diffusion model",
}
# Samples of a step as published, and of a micro-batch such that all fits into 16 GB.
BATCHES = {1: (250, 25), 2: (16, 8), 3: (8, 2)}
TINY_BATCHES = {1: (8, 4), 2: (4, 2), 3: (4, 2)}
VOXELS = {False: 4192, True: 128}
STIMULI = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--phases", type=int, nargs="+", choices=tuple(PHASES), default=[1, 2, 3])
    parser.add_argument("--steps", type=int, default=2, help="optimiser steps of each phase")
    parser.add_argument("--batch", type=int, help="samples of a step; the published number")
    parser.add_argument("--micro", type=int, help="samples that go through the network at once")
    parser.add_argument("--precision", choices=("32", "bf16"), default="32")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, help="torch's own number by default")
    parser.add_argument("--tiny", action="store_true", help="tiny networks, to check this program")
    parser.add_argument("--out", type=Path, help=f"{RESULTS.name} in results; none with --tiny")
    parser.add_argument("--table", type=Path, nargs="+", help="print what --out wrote before")
    parser.add_argument("--part", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.table:
        print("\n".join(table(json.loads(file.read_text())) for file in options.table))
        return
    _check(parser, options)
    if options.part:
        print(json.dumps(run_phase(options.phases[0], options)))
        return
    found: dict[str, Any] = {"tiny": options.tiny, "machine": machine(options.device), "phases": []}
    for phase in options.phases:
        found["phases"].append(apart(phase, options))
        print(line(found["phases"][-1]), file=sys.stderr, flush=True)
    found["machine"]["load when it ended"] = round(os.getloadavg()[0], 1)
    out = options.out or (None if options.tiny else RESULTS)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if options.steps < 1:
        parser.error("--steps is 1 or more")
    for phase in options.phases:
        batch, micro = sizes(phase, options)
        if batch < 1 or micro < 1 or batch % micro:
            parser.error(f"phase {phase}: a batch of {batch} is not cut evenly by {micro}")


def sizes(phase: int, options: argparse.Namespace) -> tuple[int, int]:
    """Samples of a step and of a micro-batch."""
    batch, micro = (TINY_BATCHES if options.tiny else BATCHES)[phase]
    batch = options.batch or batch
    return batch, options.micro or min(micro, batch)


def apart(phase: int, options: argparse.Namespace) -> dict[str, Any]:
    """Run a phase in a process of its own."""
    command = [sys.executable, __file__, "--part", "--phases", str(phase)]
    for name in ("steps", "batch", "micro", "precision", "device", "threads"):
        value = getattr(options, name)
        command += [] if value is None else [f"--{name}", str(value)]
    command += ["--tiny"] * options.tiny
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"Phase {phase} ended with {done.returncode}; see what it says above.")
    return dict(json.loads(done.stdout.splitlines()[-1]))


# -- the phases, as calcarine.visdec.phases sets them up ------------------------


def fmri_autoencoder(tiny: bool, decoder_depth: int) -> Any:
    from calcarine.visdec.encoder_storage import new_autoencoder
    from calcarine.visdec.fmri_autoencoder import AutoencoderConfig

    small = {"dim": 32, "depth": 2, "heads": 4, "decoder_dim": 16, "decoder_heads": 4}
    shape = AutoencoderConfig(
        n_patches=VOXELS[tiny] // 16,
        decoder_depth=2 if tiny else decoder_depth,
        **(small if tiny else {}),
    )
    return new_autoencoder(shape, SEED)


def vectors(n: int, tiny: bool) -> Any:
    """Simulated responses (n, voxels): a few patterns and noise."""
    import numpy as np

    rng = np.random.default_rng(SEED)
    patterns = rng.standard_normal((8, VOXELS[tiny]))
    found = rng.standard_normal((n, 8)) @ patterns / 4 + rng.standard_normal((n, VOXELS[tiny]))
    return found.astype(np.float32)


def stimulus_vectors(tiny: bool) -> Any:
    """Two trials of each stimulus."""
    import numpy as np

    from calcarine.brain import Responses
    from calcarine.visdec.stimulus_vectors import StimulusVectors

    ids = tuple(f"stimulus-{i}" for i in range(STIMULI))
    responses = Responses(
        vectors(2 * STIMULI, tiny), ids * 2, "train", np.repeat(np.arange(2), STIMULI)
    )
    return StimulusVectors(responses, ids, 16)


def first_phase(tiny: bool) -> tuple[Any, dict[str, Any]]:
    from calcarine.visdec.patches import patch_vectors
    from calcarine.visdec.pretraining import ContrastPretraining

    train = patch_vectors(vectors(500, tiny))
    task = ContrastPretraining(fmri_autoencoder(tiny, 8), train)
    return task, {"lr": 2.5e-4, "clip": 0.8}


def second_phase(tiny: bool) -> tuple[Any, dict[str, Any]]:
    import torch

    from calcarine.visdec.guiding import CrossModalGuiding, CrossModalNetwork
    from calcarine.visdec.image_autoencoder import ImageAutoencoder, new_image_autoencoder
    from calcarine.visdec.settings import GuideLoss

    small = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "decoder_hidden_size": 16,
        "decoder_num_hidden_layers": 2,
        "decoder_num_attention_heads": 4,
        "decoder_intermediate_size": 32,
        "image_size": 32,
        "patch_size": 8,
    }
    # The defaults of transformers are ViT-base with 8 decoder blocks at 224 px.
    made = new_image_autoencoder(norm_pix_loss=True, **(small if tiny else {}))
    image = ImageAutoencoder(made.model, 2 if tiny else 6)
    config = GuideLoss()
    network = CrossModalNetwork(fmri_autoencoder(tiny, 6), image, config.layers, config.direction)
    stimuli = stimulus_vectors(tiny)
    side = int(image.model.config.image_size)
    pixels = torch.randn(STIMULI, 3, side, side, generator=torch.Generator().manual_seed(SEED))
    task = CrossModalGuiding(network, (stimuli, pixels), None, config)
    return task, {"lr": 5.3e-5, "clip": 0.8}


def third_phase(tiny: bool) -> tuple[Any, dict[str, Any]]:
    import torch

    from calcarine.diffusion.class_conditional import random_class_conditional
    from calcarine.diffusion.conditional import (
        add_time_condition,
        freeze_except,
        trainable_parts,
    )
    from calcarine.visdec.conditioner import Conditioner
    from calcarine.visdec.finetuning import DiffusionFinetuning, FinetuningData
    from calcarine.visdec.settings import FinetuneLoss

    model = random_class_conditional(tiny=tiny, seed=SEED)
    stimuli, config = stimulus_vectors(tiny), FinetuneLoss(tokens=77)
    conditioner = Conditioner(
        fmri_autoencoder(tiny, 1).encoder,
        stimuli.n_patches,
        config.tokens,
        model.context_width,
        model.time_embed_dim,
    )
    add_time_condition(model.unet)
    freeze_except(model.unet, trainable_parts(model.unet))
    draw = torch.Generator().manual_seed(SEED)
    latents = torch.randn(STIMULI, *model.latent_shape, generator=draw)
    train = FinetuningData(stimuli, latents)
    task = DiffusionFinetuning(conditioner, model.unet, model.scheduler, train, config=config)
    return task, {"lr": 5.3e-5, "clip": 0.5, "schedule": "constant"}


MAKERS: dict[int, Callable[[bool], tuple[Any, dict[str, Any]]]] = {
    1: first_phase,
    2: second_phase,
    3: third_phase,
}


def run_phase(phase: int, options: argparse.Namespace) -> dict[str, Any]:
    """Some true training steps, and what they cost."""
    import torch

    from calcarine.training import TrainingConfig

    begin(options)
    torch.manual_seed(SEED)
    task, settings = MAKERS[phase](options.tiny)
    batch, micro = sizes(phase, options)
    config = TrainingConfig(
        steps=options.steps,
        batch_size=batch,
        accumulate=batch // micro,
        precision=options.precision,
        accelerator="gpu" if options.device == "cuda" else "cpu",
        seed=SEED,
        **settings,
    )
    built, before = peak_gigabytes(), prints(task)
    steps = train_watched(task, config)
    trained, moved = judged(task, before, [step["loss"] for step in steps])
    later = steps[1:] or steps
    found = {
        "phase": phase,
        "what": PHASES[phase],
        "precision": options.precision,
        "batch": batch,
        "micro_batch": micro,
        "weights": sum(p.numel() for p in task.parameters()),
        "weights_that_train": sum(p.numel() for p in task.parameters() if p.requires_grad),
        "tensors_that_train": trained,
        "tensors_that_moved": moved,
        "losses": [step["loss"] for step in steps],
        "peak_gb": peak_gigabytes(options.device),
        "built_gb": built,
        "threads": torch.get_num_threads(),
    }
    for name in ("seconds", "processor_seconds"):
        found[f"all_{name}"] = [round(step[name], 3) for step in steps]
        found[f"{name}_per_sample"] = statistics.median(step[name] for step in later) / batch
    return found


def prints(task: Any) -> dict[str, tuple[float, float]]:
    """Two sums of every weight tensor, which show whether it changed; a copy would cost memory."""
    return {
        name: (float(p.detach().double().sum()), float(p.detach().double().square().sum()))
        for name, p in task.named_parameters()
    }


def judged(
    task: Any, before: dict[str, tuple[float, float]], losses: list[float]
) -> tuple[int, int]:
    """How many tensors train and how many of them moved, or the end where something is wrong."""
    after = prints(task.cpu())
    training = {name for name, p in task.named_parameters() if p.requires_grad}
    moved = {name for name in after if after[name] != before[name]}
    if not all(math.isfinite(loss) for loss in losses):
        sys.exit(f"A loss is not finite: {losses}.")
    if moved - training:
        sys.exit(f"{min(moved - training)} is frozen and moved ({len(moved - training)} such).")
    if len(moved) < len(training) / 2:
        sys.exit(f"Only {len(moved)} of {len(training)} tensors that train have moved.")
    return len(training), len(moved)


def line(one: dict[str, Any]) -> str:
    losses = " ".join(f"{loss:.3f}" for loss in one["losses"])
    return (
        f"phase {one['phase']}, {one['what']}, precision {one['precision']}: "
        f"{len(one['losses'])} steps of {one['batch']} samples ({one['micro_batch']} at once), "
        f"{one['seconds_per_sample']:.3g} s a sample by the clock, "
        f"{one['processor_seconds_per_sample']:.3g} s of processor time, "
        f"peak {one['peak_gb']:.2f} GB ({one['built_gb']:.2f} before the first step); "
        f"{one['weights'] / 1e6:.4g} M weights of which {one['weights_that_train'] / 1e6:.4g} M "
        f"train, {one['tensors_that_moved']} of {one['tensors_that_train']} tensors moved; "
        f"losses {losses}"
    )


def table(found: dict[str, Any]) -> str:
    head = ["tiny networks: these numbers mean nothing"] if found["tiny"] else []
    footer = "machine: " + ", ".join(f"{k} {v}" for k, v in found["machine"].items())
    return "\n".join([*head, *(line(one) for one in found["phases"]), footer])


if __name__ == "__main__":
    main()
