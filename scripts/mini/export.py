"""The trained networks as the model in the package."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from calcarine.stimuli import scenes
from mini import pool
from mini.autoencoder import latents, load_autoencoder
from mini.networks import PACKAGE, new_denoiser, new_scheduler, new_text_encoder
from mini.options import digit_pool
from mini.text import new_tokenizer
from mini.training import is_trained, trained


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
    autoencoder = load_autoencoder(options).cpu()
    autoencoder.register_to_config(scaling_factor=round(scale, 6))
    tokenizer = new_tokenizer(options)
    text, denoiser = new_text_encoder(len(tokenizer)), new_denoiser()
    state, _ = trained(options, "denoiser")
    for network, prefix in ((text, "text."), (denoiser, "denoiser.")):
        network.load_state_dict(
            {
                name.removeprefix(prefix): value
                for name, value in state.items()
                if name.startswith(prefix)
            }
        )
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
        name: trained(options, name)[1]
        for name in ("autoencoder", "text", "denoiser", "decoder")
        if is_trained(options, name)
    }
    about = {
        "scenes": options.scenes,
        "scenes_seed": pool.SEEDS["generator"],
        "scenes_version": scenes.SCENES_VERSION,
        "digits_before_removal": total,
        "digits_removed_as_near_duplicates": dropped,
        "steps": steps,
    }
    (folder / "training.json").write_text(json.dumps(about, indent=2) + "\n")
    print(f"wrote {folder}")
