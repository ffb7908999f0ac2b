"""Vis-Dec with parts left out or changed, over seeds (Sun et al. 2023, Table 2)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from calcarine.errors import SettingError
from calcarine.evaluation.networks.judge_names import judges_of
from calcarine.evaluation.statistics.intervals import crossed_interval
from calcarine.experiment.ablation_rows import MAX_ROWS, Rows, chosen_rows, row_folders
from calcarine.experiment.progress import Progress
from calcarine.experiment.stage import PHASES
from calcarine.experiment.visdec_training import METHOD
from calcarine.files import atomic_write, write_text
from calcarine.files.locks import folder_lock

if TYPE_CHECKING:
    import pandas as pd

    from calcarine.experiment.config import Experiment

__all__ = ["METRICS", "AblationTable", "main_metrics", "run_ablation"]

METRICS = (
    "10-way top-1",
    "category accuracy",
    "identification, pixels, fixed image",
    "identification, late layer, fixed image",
    "pixel correlation",
)
# An ablation compares trainings; decoders by ridge and ceilings are the same in all of its rows.
_ALONE = (
    "ridge.enabled=false",
    "evaluation.direct_ridge=false",
    "evaluation.ceilings=false",
    "evaluation.audit=false",
)
_COLUMNS = [
    "row",
    "settings",
    "metric",
    "value",
    "ci_low",
    "ci_high",
    "difference",
    "d_low",
    "d_high",
    "seeds",
    "images",
    "simulated",
    "transductive",
]
_SIMULATED = "Simulated: the brain was simulated, so the scores say nothing about measured ones."
_TEST_USE = {
    "yes": "Transductive: rows marked [transductive] were trained on the test responses too, "
    "without their stimuli; do not compare them with rows that were not.",
    "unknown": "Rows marked [unknown start] start from published weights; it is not known whether "
    "these were trained on the test responses.",
    "allowed": "Training on test responses was allowed (visdec.allow_transductive); rows without a "
    "mark did not use that.",
}
_MARKS = {"yes": " [transductive]", "unknown": " [unknown start]"}


@dataclass(frozen=True)
class AblationTable:
    """Result of an ablation.

    Attributes
    ----------
    title : str
        Title, with a line for each of the notes.
    headings : list of str
    cells : list of list of str
        As printed.
    scores : DataFrame
        Columns row, settings, metric, value, ci_low, ci_high, difference, d_low, d_high, seeds,
        images, simulated, transductive. Differences are from the first row; rows tested on other
        pictures have none.
    notes : list of str
        What a reader must know, such as simulated data or test responses that were trained on.
    """

    title: str
    headings: list[str]
    cells: list[list[str]]
    scores: pd.DataFrame
    notes: list[str]


def main_metrics(known: Iterable[str]) -> list[str]:
    """Return which of the metrics that there are a table over several runs shows."""
    names = list(dict.fromkeys(known))
    return [name for name in METRICS if name in names] or names[: len(METRICS)]


def run_ablation(
    rows: Rows,
    out: Path,
    *,
    preset: str = "visdec-mini",
    settings: Sequence[str] = (),
    seeds: int = 3,
    only: Sequence[str] | None = None,
    max_rows: int = MAX_ROWS,
    progress: Progress | None = None,
    **dataset: Any,
) -> AblationTable:
    """Train, decode and score every row with every seed; the same folder resumes.

    Parameters
    ----------
    rows : dict of str to tuple of str
        Settings of each row; the others are compared with the first.
    out : Path
        Output folder. It gets a run for each row and seed, ``trained/`` with the networks that
        rows share, ``ablation.csv`` and ``ablation.json``.
    seeds : int
        Number of seeds. A seed changes initial weights, batches, maskings and the noise of
        sampling; data, split and validation stimuli stay.
    only : sequence of str, optional
        Names of rows to run; the first row always runs.
    max_rows : int
        Refuse more rows than this before anything is trained.
    **dataset
        ``name``, ``data`` and ``subject`` of the data set.

    Returns
    -------
    AblationTable
        Intervals (95 %) are over seeds and images, by
        :func:`calcarine.evaluation.statistics.intervals.crossed_interval`. The interval of a
        difference is over differences at the same seed and image.
    """
    from calcarine.evaluation.results.evaluation import read_summary
    from calcarine.experiment.load_config import load_experiment
    from calcarine.experiment.runner import run_experiment

    progress = progress or Progress()
    chosen, folders = chosen_rows(rows, only, seeds, max_rows), row_folders(rows)
    # Mistakes in any row are reported before the first is trained.
    _refuse_its_own([*settings, *(text for changes in chosen.values() for text in changes)])
    plans = {
        (name, seed): load_experiment(
            preset, None, [*settings, *_ALONE, *changes, *_seed_settings(seed)], **dataset
        )
        for name, changes in chosen.items()
        for seed in range(seeds)
    }
    scores: dict[str, list[pd.DataFrame]] = {name: [] for name in chosen}
    judges: list[str] = []
    simulated = False
    with folder_lock(out):  # its rows share the trained networks
        for (name, seed), experiment in plans.items():
            progress.say(f"{name}, seed {seed + 1} of {seeds}")
            run = run_experiment(
                experiment, out / folders[name] / f"seed-{seed}", progress, out / "trained"
            )
            scores[name].append(_scores_of(run.metrics))
            judges += judges_of(read_summary(run.metrics))
            simulated = simulated or bool(run.manifest()["simulated"])
        test_use = {name: _use_of_test(plans[name, 0]) for name in chosen}
        table = _table(scores, chosen, simulated, test_use, list(dict.fromkeys(judges)))
        _write(table, out)
    return table


def _refuse_its_own(settings: Sequence[str]) -> None:
    """Refuse settings that the ablation sets itself, and so would overwrite."""
    seeds = {text.partition("=")[0] for text in _seed_settings(0)}
    own = {text.partition("=")[0] for text in _ALONE}
    for key in (text.partition("=")[0].strip() for text in settings):
        if key in seeds:
            raise SettingError(
                f"An ablation sets '{key}' itself, differently for each of its seeds; leave it "
                "out, and give the number of seeds with --seeds."
            )
        if key in own:
            raise SettingError(
                f"An ablation compares trainings and sets '{key}' itself; leave it out."
            )


def _seed_settings(seed: int) -> tuple[str, ...]:
    keys = [f"visdec.{phase}.training.seed" for phase in PHASES]
    return (*(f"{key}={2022 + seed}" for key in keys), f"generation.seed={42 + seed}")


def _use_of_test(experiment: Experiment) -> str:
    """Return whether a row trains on test responses: yes, unknown, allowed (but not) or no."""
    from calcarine.experiment.manifest import pretrained_on_test

    use = pretrained_on_test(experiment.visdec)
    return "allowed" if use == "no" and experiment.visdec.allow_transductive else use


def _scores_of(folder: Path) -> pd.DataFrame:
    from calcarine.evaluation.results.evaluation import read_evaluation, select_main_protocol

    table = select_main_protocol(read_evaluation(folder).per_image)
    return table[table["method"] == METHOD].set_index(["metric", "id"])["value"].to_frame()


def _table(
    scores: dict[str, list[pd.DataFrame]],
    rows: Rows,
    simulated: bool,
    test_use: dict[str, str],
    judges: Sequence[str] = (),
) -> AblationTable:
    import pandas as pd

    first = next(iter(scores))
    metrics = main_metrics(_metrics(scores[first]))
    lines, cells, unpaired = [], [], False
    for name, runs in scores.items():
        row = [name + _MARKS.get(test_use[name], "")]
        for metric in metrics:
            if metric not in _metrics(runs):
                row.append("not scored")
                continue
            base = scores[first][0].loc[metric].index
            own_ids = runs[0].loc[metric].index
            paired = set(own_ids) == set(base)
            own = _matrix(runs, metric, base if paired else own_ids)
            value, low, high = crossed_interval(own)
            difference = (np.nan,) * 3
            if paired:
                difference = crossed_interval(own - _matrix(scores[first], metric, base))
            unpaired = unpaired or not paired
            numbers = (name, " ".join(rows[name]), metric, value, low, high, *difference)
            lines.append((*numbers, *own.shape, simulated, test_use[name]))
            cell = f"{value:.3f} [{low:.3f}, {high:.3f}]"
            row.append(cell if name == first else f"{cell} {_sign(difference)}".rstrip())
        cells.append(row)
    n_seeds, n_images = len(scores[first]), len(scores[first][0].loc[metrics[0]])
    judge = f", judge {' and '.join(judges)}" if judges else ""
    title = (
        f"{METHOD}: {n_seeds} seeds, {n_images} pictures{judge}; + or -: differs from '{first}' "
        "(95 % interval without 0), =: undecided"
    )
    notes = _notes(first, simulated, set(test_use.values()), unpaired, n_seeds)
    return AblationTable(
        "\n".join([title, *notes]),
        ["row", *metrics],
        cells,
        pd.DataFrame(lines, columns=_COLUMNS),
        notes,
    )


def _notes(
    first: str, simulated: bool, test_use: set[str], unpaired: bool, n_seeds: int
) -> list[str]:
    notes = [_SIMULATED] if simulated else []
    notes += [note for kind, note in _TEST_USE.items() if kind in test_use]
    if unpaired:
        notes.append(
            f"Rows without +, - or = were tested on other pictures than '{first}', so they have no "
            "difference from it."
        )
    if n_seeds == 1:
        notes.append("One seed: intervals are over pictures alone and hide what another seed does.")
    return notes


def _write(table: AblationTable, out: Path) -> None:
    with atomic_write(out / "ablation.csv") as partial:
        table.scores.to_csv(partial, index=False)
    records = json.loads(table.scores.to_json(orient="records"))
    first = records[0]
    content = {
        "title": table.title.splitlines()[0],
        "notes": table.notes,
        "simulated": first["simulated"],
        "transductive": sorted({row["transductive"] for row in records}),
        "compared with": first["row"],
        "interval": "95 %, over seeds and pictures, by Student's t with Cochran's weights",
        "scores": records,
    }
    write_text(out / "ablation.json", json.dumps(content, indent=2, ensure_ascii=False))


def _metrics(runs: list[pd.DataFrame]) -> list[str]:
    return list(runs[0].index.get_level_values("metric").unique())


def _matrix(runs: list[pd.DataFrame], metric: str, ids: pd.Index) -> NDArray[np.float64]:
    """Scores, shape (seed, image)."""
    return np.stack([run.loc[metric].loc[ids, "value"].to_numpy(np.float64) for run in runs])


def _sign(difference: tuple[float, float, float]) -> str:
    _, low, high = difference
    if np.isnan(low):
        return ""
    if low > 0:
        return "+"
    return "-" if high < 0 else "="
