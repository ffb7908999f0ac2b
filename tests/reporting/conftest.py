"""A finished run made of random pictures and records."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

HOSTILE = "<script>alert(1)"
FOLDERS = {"z": "z", "c": "c", "z_c": "z_c", "direct ridge": "direct"}
APPEARANCE = ("pixel correlation", "identification, early layer, fixed image")
SEMANTIC = ("identification, late layer, fixed image", "category accuracy")
OTHERS = {
    "training mean": (0.3, 0.3),
    "ceiling z": (0.95, 0.7),
    "ceiling c": (0.6, 0.95),
    "ceiling z_c": (0.9, 0.95),
}
# Mean score of each method on metrics of appearance and of semantic content, as the paper has it.
PAPER = {"z": (0.8, 0.55), "c": (0.5, 0.85), "z_c": (0.78, 0.84), "direct ridge": (0.8, 0.5)}
METRICS = (
    "pixel correlation",
    "SSIM",
    "identification, pixels, fixed image",
    "identification, pixels, fixed reconstruction",
    "identification, early layer, fixed image",
    "identification, late layer, fixed image",
    "identification within category, pixels, fixed image",
    "10-way top-1",
    "category accuracy",
)
JUDGED = tuple(name for name in METRICS if "layer" in name or name[:2] in ("10", "ca"))


def per_image_frame(
    means: dict[str, tuple[float, float]], ids: list[str], spread: float = 0.05
) -> pd.DataFrame:
    """Per-image scores around each method's means of appearance and semantic content."""
    rng = np.random.default_rng(1)
    rows = []
    for method, (appearance, semantic) in means.items():
        for metrics, mean in ((APPEARANCE, appearance), (SEMANTIC, semantic)):
            for metric in metrics:
                values = mean + spread * rng.standard_normal(len(ids))
                rows += [(i, method, metric, v, "cat") for i, v in zip(ids, values, strict=True)]
    return pd.DataFrame(rows, columns=["id", "method", "metric", "value", "category"])


def _summary(methods: list[str]) -> list[dict[str, Any]]:
    rng = np.random.default_rng(2)
    names = [(name, "method") for name in [*methods, "z_c, chosen by the brain"]]
    names += [(name, "floor") for name in ("training mean", "shuffled brain (z_c)")]
    names += [(name, "ceiling") for name in ("ceiling z", "ceiling c", "ceiling z_c")]
    base = {"method": 0.6, "floor": 0.3, "ceiling": 0.9}
    records = []
    for metric in METRICS:
        chance = 0.5 if "identification" in metric else 0.1 if "10" in metric else None
        for name, role in names:
            value = float(base[role] + 0.15 * rng.random())
            records.append(
                {
                    "method": name,
                    "metric": metric,
                    "protocol": "calcarine",
                    "value": value,
                    "ci_low": value - 0.05,
                    "ci_high": value + 0.05,
                    "n": 14,
                    "chance": chance,
                    "p": 0.0005 if role == "method" else None,
                    "null_mean": chance,
                    "null_sd": 0.03,
                    "role": role,
                    "higher_is_better": True,
                    "pool": 14 if "identification" in metric else None,
                    "judge": "scenes" if metric in JUDGED else None,
                }
            )
    return records


def _picture(rng: np.random.Generator, base: np.ndarray, noise: float) -> Image.Image:
    image = base + noise * rng.standard_normal(base.shape)
    return Image.fromarray(np.clip(image, 0, 255).astype("uint8"))


def _reconstructions(run: Path, ids: list[str], methods: list[str], n_samples: int) -> None:
    rng = np.random.default_rng(3)
    rows = []
    (run / "reconstructions" / "truth").mkdir(parents=True)
    for stimulus in ids:
        base = np.kron(rng.integers(0, 255, (4, 4, 3)), np.ones((8, 8, 1)))
        _picture(rng, base, 0).save(run / "reconstructions" / "truth" / f"{stimulus}.png")
        for method in methods:
            folder = FOLDERS.get(method, method)
            for sample in range(1 if folder == "direct" else n_samples):
                file = f"reconstructions/{folder}/{stimulus}_{sample:02d}.png"
                (run / file).parent.mkdir(exist_ok=True)
                _picture(rng, base, 30).save(run / file)
                rows.append((stimulus, folder, sample, file, 0))
    frame = pd.DataFrame(rows, columns=["id", "method", "sample", "file", "fold"])
    # Written in a jumbled order: what is shown must not depend on it.
    frame.sample(frac=1, random_state=0).to_parquet(run / "reconstructions" / "index.parquet")


def _manifest(simulated: bool) -> dict[str, Any]:
    latent = {"median_alpha": 1000.0, "mean_cv_r2": 0.12, "edge_low": 0.0, "edge_high": 0.02}
    return {
        "calcarine version": "0.1.0",
        "versions": {"torch": "2.9", "numpy": "2.3"},
        "seeds": {"generation": 0},
        "digests": {"dataset": "sha256:aa", "model": "sha256:bb"},
        "hardware": {"cpu": "a cpu", "cores": 2},
        "times": {"features": 12.0, "reconstruct": 7300.0},
        "simulated": simulated,
        "dataset": {
            "name": "fake",
            "title": "A fake <b>dataset</b>",
            "subject": "subj01",
            "source": "https://example.org/data",
            "licence": "CC0",
            "n_voxels": {"early": 100, "ventral": 200},
            "n_train": 50,
            "n_test": 14,
            "n_repeats": 3,
            "splits": ["standard"],
        },
        "notes": ["A note of the run."],
        "chosen": {"0": {"strength": 0.8, "guidance": 5.0}},
        "decoder": {"0": {"z": latent, "c": latent}},
    }


def make_run(
    run: Path,
    *,
    simulated: bool = True,
    methods: tuple[str, ...] = ("z", "c", "z_c", "direct ridge"),
    n_pictures: int = 14,
    n_samples: int = 3,
) -> Path:
    """Write a finished run of `n_pictures`, one of them with a hostile id."""
    run.mkdir(parents=True)
    ids = [HOSTILE, *(f"img{i:03d}" for i in range(1, n_pictures))]
    (run / "experiment.yaml").write_text(
        yaml.safe_dump(
            {
                "name": "fake run",
                "preset": None,
                "dataset": {"name": "fake", "subject": 1, "options": {}},
                "roi": {"z": ["early"], "c": ["ventral"]},
                "generation": {"strength": 0.8, "guidance": 5.0, "samples": n_samples},
            }
        )
    )
    (run / "manifest.json").write_text(json.dumps(_manifest(simulated)))
    _reconstructions(run, ids, list(methods), n_samples)
    (run / "metrics").mkdir()
    (run / "metrics" / "summary.json").write_text(json.dumps(_summary(list(methods))))
    frame = per_image_frame({name: PAPER[name] for name in methods} | OTHERS, ids)
    frame.assign(protocol="calcarine").to_parquet(run / "metrics" / "per_image.parquet")
    return run


@pytest.fixture(scope="session")
def run_maker() -> Callable[..., Path]:
    """Give `make_run`."""
    return make_run


@pytest.fixture(scope="session")
def scores_around() -> Callable[..., pd.DataFrame]:
    """Give `per_image_frame`."""
    return per_image_frame


@pytest.fixture
def fake_run(tmp_path: Path) -> Callable[..., Path]:
    """Make a finished run in a temporary folder, with `make_run`'s options."""

    def make(name: str = "run", **options: Any) -> Path:
        return make_run(tmp_path / name, **options)

    return make
