"""A small run folder, a study of it, and raters who answer by rule."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from fastapi.testclient import TestClient
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from calcarine.study.app import build_app
from calcarine.study.guard import RateLimit
from calcarine.study.make import make_study
from calcarine.study.sources import from_runs
from calcarine.study.store import Study

HOSTILE = "</script><script>alert(1)</script>"
FOLDERS = {"z": "z", "c": "c", "z_c": "z_c"}
METRICS = ("pixel correlation", "identification, pixels, fixed image", "pixel error")
FREE = RateLimit(1e9, 10**9)


def make_run(
    run: Path, n: int = 10, *, simulated: bool = True, seed: int = 0, samples: int = 2
) -> Path:
    """A finished run of `n` originals; the first has a hostile id, files carry metadata."""
    rng = np.random.default_rng(7)
    own = np.random.default_rng(seed)
    ids = [HOSTILE, *(f"secretpic{i:03d}" for i in range(1, n))]
    note = PngInfo()
    note.add_text("Comment", "made by method z_c")
    rows = []
    for folder in ("truth", *FOLDERS.values()):
        (run / "reconstructions" / folder).mkdir(parents=True)
    for place, stimulus in enumerate(ids):
        base = np.kron(rng.integers(0, 255, (4, 4, 3)), np.ones((8, 8, 1)))
        name = f"secretpic{place:03d}"
        files = [("truth", f"reconstructions/truth/{name}.png", 0)]
        for method, folder in FOLDERS.items():
            for sample in range(samples):
                file = f"reconstructions/{folder}/{name}_{sample:02d}.png"
                rows.append((stimulus, method if method != "z_c" else "z_c", sample, file, 0))
                files.append((method, file, 30))
        for _, file, noise in files:
            image = np.clip(base + noise * own.standard_normal(base.shape), 0, 255)
            Image.fromarray(image.astype("uint8")).save(run / file, pnginfo=note)
    index = pd.DataFrame(rows, columns=["id", "method", "sample", "file", "fold"])
    truth = [
        (i, "truth", 0, f"reconstructions/truth/secretpic{p:03d}.png", 0) for p, i in enumerate(ids)
    ]
    index = pd.concat([index, pd.DataFrame(truth, columns=index.columns)])
    index.to_parquet(run / "reconstructions" / "index.parquet")
    (run / "experiment.yaml").write_text(yaml.safe_dump({"name": "a run", "dataset": {}}))
    manifest = {"simulated": simulated, "digests": {"dataset": "aa"}, "dataset": {"name": "toy"}}
    (run / "manifest.json").write_text(json.dumps(manifest))
    (run / "metrics").mkdir()
    score = {"method": "z", "protocol": "calcarine", "value": 0.5}
    records = [
        score | {"metric": metric, "higher_is_better": metric != METRICS[2]} for metric in METRICS
    ]
    (run / "metrics" / "summary.json").write_text(json.dumps(records))
    scores = [
        (stimulus, method, metric, own.random(), f"kind{place % 3}")
        for place, stimulus in enumerate(ids)
        for method in (*FOLDERS, "training mean")
        for metric in METRICS
    ]
    columns = ["id", "method", "metric", "value", "category"]
    pd.DataFrame(scores, columns=columns).to_parquet(run / "metrics" / "per_image.parquet")
    return run


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "hidden-run")


@pytest.fixture(scope="session")
def run_maker() -> Callable[..., Path]:
    return make_run


@pytest.fixture(scope="session")
def made(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Make each kind of study once."""
    known: dict[str, Path] = {}

    def build(**options: Any) -> Path:
        settings = {"n_originals": 3, "n_raters": 2, "practice": 2, "catch": 2, "size": 32}
        settings.update(options)
        key = repr(sorted(settings.items()))
        if key not in known:
            out = tmp_path_factory.mktemp("studies") / "study"
            known[key] = make_study(from_runs([run]), out, **settings).path
        return known[key]

    return build


@pytest.fixture
def make(made: Callable[..., Path], tmp_path: Path) -> Callable[..., Study]:
    """Give an own copy of a study of the run, with `make_study`'s options."""

    def build(name: str = "study", **options: Any) -> Study:
        return Study(shutil.copytree(made(**options), tmp_path / name))

    return build


class Rater:
    """Answers over HTTP; ``choose`` says which side, given the truth that only tests know."""

    def __init__(self, study: Study, token: str, client: Any = None) -> None:
        self.study = study
        self.base = f"/r/{token}"
        self.client = client or TestClient(build_app(study, FREE, FREE))
        self.replies: list[Any] = []

    def get(self, path: str = "") -> Any:
        self.replies.append(self.client.get(self.base + path))
        return self.replies[-1]

    def post(self, path: str, body: Any) -> Any:
        self.replies.append(self.client.post(self.base + path, json=body))
        return self.replies[-1]

    def begin(self) -> dict[str, Any]:
        return self.post("/consent", {}).json()

    def answer(self, trial: str, choice: str, **changes: Any) -> Any:
        body = {
            "trial": trial,
            "choice": choice,
            "client_ms": 812.5,
            "paused_ms": 0,
            "input": "key",
        }
        return self.post("/answers", {**body, **changes})

    def finish(self, choose: Callable[[dict[str, Any]], str]) -> None:
        state = self.begin()
        while state["phase"] == "trial":
            state = self.answer(state["trial"], choose(truth_of(self.study, state))).json()["state"]


def truth_of(study: Study, state: dict[str, Any]) -> dict[str, Any]:
    """What a trial really shows."""
    with study.connection() as con:
        row = con.execute(
            "SELECT q.*, t.first_left, f.method AS first, s.method AS second, "
            "f.original AS first_of, s.original AS second_of FROM trials t "
            "JOIN questions q ON q.id = t.question JOIN images f ON f.id = q.first_image "
            "JOIN images s ON s.id = q.second_image WHERE t.key = ?",
            (state["trial"],),
        ).fetchone()
    return {**dict(row), "first_side": "left" if row["first_left"] else "right"}


def first(truth: dict[str, Any]) -> str:
    return str(truth["first_side"])


@pytest.fixture(scope="session")
def rater() -> type[Rater]:
    return Rater


@pytest.fixture(scope="session")
def first_side() -> Callable[[dict[str, Any]], str]:
    return first


@pytest.fixture(scope="session")
def truth() -> Callable[..., dict[str, Any]]:
    return truth_of
