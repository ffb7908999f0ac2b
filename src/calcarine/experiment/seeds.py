"""Running an experiment with several seeds of the noise (Takagi & Nishimoto 2023, appendix C)."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from calcarine.errors import SettingError
from calcarine.experiment.ablation import main_metrics
from calcarine.experiment.progress import Progress
from calcarine.files import atomic_write, write_text
from calcarine.files.locks import folder_lock

if TYPE_CHECKING:
    import pandas as pd


__all__ = ["HEADINGS", "SeedsTable", "run_seeds"]

HEADINGS = ("method", "metric", "mean over seeds", "SD over seeds", "least", "most")
_COLUMNS = ["method", "protocol", "metric", "seeds", "mean", "sd", "least", "most"]
# What does not depend on the noise of generation, and so is made once.
_SHARED = ("features", "decoder")
_STAGES = ("features", "fit")


@dataclass(frozen=True)
class SeedsTable:
    """Scores over several seeds.

    Attributes
    ----------
    title : str
    cells : list of tuple of str
        Rows under `HEADINGS`: the main metrics of each method.
    scores : DataFrame
        Columns method, protocol, metric, seeds, mean, sd, least and most, of all metrics.
    """

    title: str
    cells: list[tuple[str, ...]]
    scores: pd.DataFrame


def run_seeds(
    out: Path,
    *,
    preset: str | None = None,
    file: Path | None = None,
    settings: Sequence[str] = (),
    seeds: int = 3,
    progress: Progress | None = None,
    **dataset: Any,
) -> SeedsTable:
    """Run an experiment with several seeds of the noise; the same folder resumes.

    Parameters
    ----------
    out : Path
        Output folder. It gets a run for each seed, ``seed-42``, ``seed-43`` and so on,
        ``seeds.csv`` and ``seeds.json``. Features and decoders do not depend on the seed and are
        made once.
    preset, file, settings, **dataset
        See :func:`calcarine.experiment.load_experiment`.
    seeds : int
        Number of seeds, at least 2; the first is ``generation.seed`` of the experiment.

    Returns
    -------
    SeedsTable
        The standard deviation is that over seeds (n - 1), each seed's score being the mean over
        images and samples.
    """
    from calcarine.experiment.load_config import load_experiment
    from calcarine.experiment.runner import run_experiment

    if seeds < 2:
        raise SettingError(f"--seeds {seeds} gives no spread; choose 2 or more.")
    progress = progress or Progress()
    # Encoding models do not depend on pictures.
    chosen = [*settings, "encoding.enabled=false"]
    first = load_experiment(preset, file, chosen, **dataset).generation.seed
    tables: dict[int, pd.DataFrame] = {}
    simulated = False
    with folder_lock(out):
        for seed in range(first, first + seeds):
            progress.say(f"Seed {seed}")
            experiment = load_experiment(
                preset, file, [*chosen, f"generation.seed={seed}"], **dataset
            )
            folder = out / f"seed-{seed}"
            if seed > first and not folder.exists():
                _begin_from(out / f"seed-{first}", folder)
            run = run_experiment(experiment, folder, progress)
            tables[seed] = _scores_of(run.metrics)
            simulated = simulated or bool(run.manifest()["simulated"])
        table = _table(tables, simulated)
        _write(table, out, list(tables), simulated)
    return table


def _begin_from(first: Path, folder: Path) -> None:
    """Give a new run the features and decoders of the first; their keys show whether they fit."""
    from calcarine.experiment.run_directory import RunDirectory

    partial = folder.with_name(folder.name + ".part")
    shutil.rmtree(partial, ignore_errors=True)
    for name in _SHARED:
        if (first / name).is_dir():
            shutil.copytree(first / name, partial / name, copy_function=_link)
    (partial / ".stages").mkdir(parents=True, exist_ok=True)
    for file in (first / ".stages").iterdir():
        if file.stem in _STAGES:
            shutil.copy(file, partial / ".stages" / file.name)
    shutil.copy(first / "experiment.yaml", partial / "experiment.yaml")
    # On another machine, "auto" could mean another precision.
    decided = RunDirectory(first).manifest().get("auto_precision")
    if decided is not None:
        write_text(partial / "manifest.json", json.dumps({"auto_precision": decided}))
    partial.rename(folder)


def _link(source: str, target: str) -> None:
    """Link a file under a second name; files of a run are replaced and never changed."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _scores_of(folder: Path) -> pd.DataFrame:
    import pandas as pd

    from calcarine.evaluation.results.evaluation import read_summary

    rows = [row for row in read_summary(folder) if row["role"] == "method"]
    names = ["method", "protocol", "metric", "value", "judge"]
    return pd.DataFrame(rows).reindex(columns=names)


def _table(tables: dict[int, pd.DataFrame], simulated: bool) -> SeedsTable:
    import pandas as pd

    keys = ["method", "protocol", "metric"]
    whole = pd.concat(tables.values(), ignore_index=True)
    spread = whole.groupby(keys, sort=False)["value"].agg(["count", "mean", "std", "min", "max"])
    scores = spread.reset_index().set_axis(_COLUMNS, axis=1)
    main = main_metrics(scores["metric"])
    cells = [
        (
            str(row["method"]),
            str(row["metric"]),
            *(f"{float(row[name]):.4f}" for name in ("mean", "sd", "least", "most")),
        )
        for row in scores.to_dict("records")
        if row["metric"] in main
    ]
    title = f"{len(tables)} seeds of the noise ({min(tables)} to {max(tables)})"
    judges = whole["judge"].dropna().unique().tolist()
    if judges:
        title += f", judge {' and '.join(judges)}"
    if simulated:
        title += ". Simulated: the brain was simulated."
    return SeedsTable(title, cells, scores)


def _write(table: SeedsTable, out: Path, seeds: list[int], simulated: bool) -> None:
    with atomic_write(out / "seeds.csv") as partial:
        table.scores.to_csv(partial, index=False)
    content = {
        "seeds": seeds,
        "simulated": simulated,
        "scores": json.loads(table.scores.replace({np.nan: None}).to_json(orient="records")),
    }
    write_text(out / "seeds.json", json.dumps(content, indent=2, ensure_ascii=False) + "\n")
