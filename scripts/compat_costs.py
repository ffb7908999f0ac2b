"""What each choice of the published code of Takagi & Nishimoto 2023 costs, on simulated brains.

    python scripts/compat_costs.py [--subjects subj01 subj02] [--out costs.json]

Runs the preset takagi2023 and takagi2023-compat side by side, and takagi2023 with each choice of
the published code alone, all with the bundled mini model, on simulated subjects and the same
noise. Prints a table: each score, the mean over the subjects, with a 95 % interval over the test
images, and below it the paired difference from takagi2023 with its interval. All subjects see the
same test images, so an image counts once. Everything here is simulated.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from calcarine import datasets
from calcarine.decoding import LatentRegression, Reconstructor
from calcarine.decoding.reconstruct import to_uint8
from calcarine.diffusion import LatentDiffusion
from calcarine.evaluation.scoring.score import score_arrays
from calcarine.evaluation.statistics.intervals import bootstrap_interval
from calcarine.evaluation.statistics.significance import paired_difference
from calcarine.experiment import load_experiment
from calcarine.experiment.presets import PRESETS
from calcarine.experiment.run_directory import RunDirectory
from calcarine.experiment.undo_session_scaling import without_session_scaling
from calcarine.experiment.workspace import Workspace
from calcarine.features import FeatureStore

SOUND, COMPAT = "takagi2023", "takagi2023-compat"
ALPHAS = json.dumps(PRESETS[COMPAT].settings["ridge"]["alphas"])
VARIANTS: dict[str, tuple[str, list[str]]] = {
    SOUND: (SOUND, []),
    "no intercept": (SOUND, ["ridge.intercept=false"]),
    "penalties 1e-6 to 1": (SOUND, [f"ridge.alphas={ALPHAS}"]),
    "repeats straddle folds": (SOUND, ["ridge.grouped=false"]),
    "z is a sample": (SOUND, ["features.posterior=sample"]),
    "sessions not z-scored": (SOUND, ["dataset.zscore_sessions=false"]),
    COMPAT: (COMPAT, []),
}
METRICS = {
    "pixel r": "pixel correlation",
    "early ident.": "identification, early layer, fixed image",
    "late ident.": "identification, late layer, fixed image",
}
METHODS = ("z", "z_c")


def scores(
    work: Workspace, samples: int, progress: str
) -> tuple[dict[tuple[str, str], np.ndarray], dict[str, Any]]:
    """Score of each test image by (method, metric), and how the decoders were fitted."""
    split, config = work.splits[0], work.config
    regression = LatentRegression(work.roi["z"], work.roi["c"], **work.ridge_options)
    regression.fit(work.dataset, split, work.z, work.c)
    decoded = regression.predict(work.dataset, split)
    made = config.generation
    tool = Reconstructor(
        work.model,
        made.strength,
        made.guidance,
        made.steps,
        made.seed,
        made.through_image,
        posterior=config.features.posterior,
    )
    rows = np.repeat(np.arange(len(split.test)), samples)
    keys = [(key, sample) for key in split.test for sample in range(samples)]
    pictures = {
        "z": to_uint8(tool.from_z(decoded["z"]))[:, None],
        "z_c": to_uint8(tool.from_z_c(decoded["z"][rows], decoded["c"][rows], keys)),
    }
    pictures["z_c"] = pictures["z_c"].reshape(len(split.test), samples, *pictures["z"].shape[2:])
    truth = work.dataset.stimuli.images(split.test)
    found = [
        score_arrays(
            truth, made, ids=split.test, method=name, judge="scenes", n_boot=100, n_permutations=100
        ).per_image
        for name, made in pictures.items()
    ]
    table = pd.concat(found).set_index(["method", "metric", "id"])["value"].sort_index()
    fitted = {
        name: {"median_alpha": entry.median_alpha, "cv_r2": entry.mean_cv_r2}
        for name, entry in regression.summary_.items()
    }
    print(f"{progress}: {fitted}", flush=True)
    return {
        (method, name): table[method, metric].loc[sorted(split.test)].to_numpy(float)
        for method in METHODS
        for name, metric in METRICS.items()
    }, fitted


def table(found: dict[str, dict[tuple[str, str], np.ndarray]]) -> list[str]:
    """Markdown rows."""
    columns = [(method, name) for method in METHODS for name in METRICS]
    lines = ["| variant | " + " | ".join(f"{m}: {n}" for m, n in columns) + " |"]
    lines.append("| --- |" + " --- |" * len(columns))
    for variant, values in found.items():
        cells = []
        for column in columns:
            low, high = bootstrap_interval(values[column], 2000, seed=0)
            cells.append(f"{values[column].mean():.3f} [{low:.3f}, {high:.3f}]")
        lines.append(f"| {variant} | " + " | ".join(cells) + " |")
        if variant == SOUND:
            continue
        cells = []
        for column in columns:
            paired = paired_difference(values[column], found[SOUND][column], 2000, 2000, seed=0)
            sure = "" if paired.ci_low <= 0 <= paired.ci_high else "**"
            span = f"[{paired.ci_low:+.3f}, {paired.ci_high:+.3f}]"
            cells.append(f"{sure}{paired.difference:+.3f}{sure} {span}")
        lines.append("| difference | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subjects", nargs="+", default=["subj01", "subj02"])
    parser.add_argument("--n-train", type=int, default=240)
    parser.add_argument("--n-test", type=int, default=40)
    parser.add_argument("--samples", type=int, default=1)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    began = time.monotonic()
    sizes = {"n_train": options.n_train, "n_test": options.n_test}
    world = {**sizes, "n_early": 400, "n_ventral": 400, "n_other": 100, "n_sessions": 6}
    model = LatentDiffusion.from_pretrained("mini")
    parts: list[dict[str, dict[tuple[str, str], np.ndarray]]] = []
    fitted: dict[str, dict[str, Any]] = {}
    for subject in options.subjects:
        dataset = datasets.load_dataset("simulated", None, subject, **world)
        parts.append({})
        with tempfile.TemporaryDirectory() as folder:
            for name, (preset, settings) in VARIANTS.items():
                small = ["generation.model=mini", f"generation.steps={options.steps}", *settings]
                experiment = load_experiment(preset, None, small, name="simulated")
                work = Workspace(RunDirectory(Path(folder) / name, experiment))
                # Shared by all variants, so that they differ in their settings alone.
                raw = not experiment.dataset.zscore_sessions
                work.dataset = without_session_scaling(dataset) if raw else dataset
                work.model, work.store = model, FeatureStore(Path(folder) / "features")
                entry = f"{subject}, {name}"
                parts[-1][name], fitted[entry] = scores(work, options.samples, entry)
    found = {
        name: {key: np.mean([part[name][key] for part in parts], axis=0) for key in parts[0][name]}
        for name in VARIANTS
    }
    lines = table(found)
    print("\n".join(lines))
    print(f"{time.monotonic() - began:.0f} s")
    if options.out:
        values = {
            variant: {f"{m}: {n}": row.round(4).tolist() for (m, n), row in rows.items()}
            for variant, rows in found.items()
        }
        settings = {"simulated": True, **{k: v for k, v in vars(options).items() if k != "out"}}
        content = {"settings": settings, "decoders": fitted, "per_image_over_subjects": values}
        options.out.write_text(json.dumps({**content, "table": lines}) + "\n")


if __name__ == "__main__":
    main()
