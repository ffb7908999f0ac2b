"""Many runs as one piece of work: subjects x presets x settings, listed in one file."""

from __future__ import annotations

import json
import re
import shlex
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from calcarine.errors import CalcarineError, FolderInUseError, SettingError, did_you_mean
from calcarine.evaluation.results.evaluation import read_evaluation, select_main_protocol
from calcarine.evaluation.statistics.intervals import hierarchical_bootstrap
from calcarine.experiment.ablation import main_metrics
from calcarine.experiment.config import Experiment
from calcarine.experiment.load_config import load_experiment, read_settings_file
from calcarine.experiment.progress import Progress
from calcarine.experiment.run_directory import RunDirectory
from calcarine.experiment.run_plan import Plan, plan_experiment
from calcarine.experiment.runner import run_experiment
from calcarine.experiment.stages import STAGES
from calcarine.files import atomic_write, read_json, write_text
from calcarine.files.locks import is_locked
from calcarine.reporting.many_page import build_many_page

__all__ = ["ManyRuns", "PlannedRun", "RunState"]

State = Literal["not started", "running", "unfinished", "finished", "failed"]
_KEYS = ("name", "dataset", "subjects", "presets", "settings", "variants")
_PLAIN = re.compile(r"[\w.-]+")


@dataclass(frozen=True)
class PlannedRun:
    """One of many runs.

    Attributes
    ----------
    name : str
        Name of its folder.
    subject : str or None
        None for the first of the data set.
    label : str
        Preset and variant; runs of several subjects with one label are summarised together.
    experiment : Experiment
    folder : Path
    """

    name: str
    subject: str | None
    label: str
    experiment: Experiment
    folder: Path


@dataclass(frozen=True)
class RunState:
    """How far a run is.

    Attributes
    ----------
    name, subject, label
        See `PlannedRun`.
    state : {"not started", "running", "unfinished", "finished", "failed"}
        "unfinished" is a run that has started and that no process works on.
    stage : str
        The stage that it is at; empty if it has not started or is finished.
    reason : str
        Why it failed.
    hours : float
        Hours that its finished stages took.
    """

    name: str
    subject: str | None
    label: str
    state: State
    stage: str = ""
    reason: str = ""
    hours: float = 0.0


class ManyRuns:
    """Runs that a YAML file lists.

    Parameters
    ----------
    file : Path
        YAML with these keys, of which only ``dataset`` is needed:

        - ``dataset``: name, data and options of the data set, as in an experiment's file;
        - ``subjects``: list of subjects; by default the first of the data set;
        - ``presets``: list of presets, ``takagi`` by default;
        - ``settings``: settings of all runs, each ``KEY=VALUE``;
        - ``variants``: lists of further settings by name, each a run for every subject and preset;
        - ``name``: title of the page, by default the name of the file.
    out : Path
        Folder of the runs; it gets ``many.html``, ``many.json`` and ``many.csv`` too.
    settings : sequence of str
        Further settings of all runs, each ``KEY=VALUE``.

    Raises
    ------
    CalcarineError
        If the file is missing or has a mistake, or a setting of one of the runs is wrong.
    """

    def __init__(self, file: Path, out: Path, settings: Sequence[str] = ()) -> None:
        tree = read_settings_file(file)
        for key in tree:
            if key not in _KEYS:
                raise SettingError(
                    f"{file} has the key '{key}', which means nothing here; the keys are "
                    f"{', '.join(_KEYS)}.{did_you_mean(key, _KEYS)}"
                )
        dataset = tree.get("dataset")
        if not isinstance(dataset, Mapping) or "name" not in dataset:
            raise SettingError(
                f"{file} names no data set; add 'dataset: {{name: nsd, data: ...}}'."
            )
        subjects: Sequence[str | None] = _names(tree, "subjects", file) or [None]
        presets = _names(tree, "presets", file) or ["takagi"]
        variants = tree.get("variants") or {"": []}
        if not isinstance(variants, Mapping):
            raise SettingError(f"'variants' of {file} must hold a list of settings for each name.")
        shared = [*_names(tree, "settings", file), *settings]
        self.file, self.out, self._settings = file, out, list(settings)
        self.title = str(tree.get("name", file.stem))
        self.runs = [
            self._planned(
                subject,
                preset,
                str(variant),
                dict(dataset),
                [*shared, *_names(variants, variant, file)],
            )
            for preset in presets
            for variant in variants
            for subject in subjects
        ]
        names = [run.name for run in self.runs]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise SettingError(f"{file} lists the run {twice} twice; name each subject once.")

    def _planned(
        self,
        subject: str | None,
        preset: str,
        variant: str,
        dataset: dict[str, Any],
        settings: Sequence[str],
    ) -> PlannedRun:
        label = f"{preset}-{variant}" if variant else preset
        name = f"{subject}-{label}" if subject else label
        if not _PLAIN.fullmatch(name):
            raise SettingError(
                f"'{name}' cannot name a folder; use letters, digits, '.', '-' and '_' in "
                f"subjects and variants of {self.file}."
            )
        given = [f"dataset.{key}={json.dumps(value)}" for key, value in dataset.items()]
        experiment = load_experiment(preset, None, [*given, *settings], subject=subject)
        return PlannedRun(name, subject, label, experiment, self.out / name)

    # -- running

    def run(
        self, progress: Progress | None = None, workers: int = 1, dask: str | None = None
    ) -> list[RunState]:
        """Do all runs that are not finished; one that fails does not stop the others.

        Several processes may do the runs of one file: each takes one that no other works on, and
        takes part in one of the others when none is left.

        Parameters
        ----------
        progress : Progress, optional
            Silent by default.
        workers, dask
            See :func:`calcarine.experiment.run_experiment`.

        Returns
        -------
        list of RunState
        """
        progress = progress or Progress()
        left, join = list(self.runs), False
        while left:
            # Runs that no other process works on first.
            options = {"workers": workers, "dask": dask, "join": join}
            left = [run for run in left if not self._ended(run, progress, **options)]
            join = True
        states = self.states()
        self._summarise(states)
        return states

    def _ended(self, run: PlannedRun, progress: Progress, **options: Any) -> bool:
        """Do a run, or note why it failed; False if another process works on it."""
        if not options["join"]:
            number = self.runs.index(run) + 1
            progress.say(f"Run {run.name} ({number} of {len(self.runs)})")
        note = self._note(run)
        try:
            run_experiment(run.experiment, run.folder, progress, **options)
            note.unlink(missing_ok=True)
        except FolderInUseError:
            return False
        except CalcarineError as error:
            self._fail(note, progress, run, str(error), "")
        except Exception as error:  # a mistake of ours in one run must not cost the others
            said = " ".join(str(error).split())
            self._fail(note, progress, run, f"{type(error).__name__}: {said}", _trace(error))
        return True

    def _fail(
        self, note: Path, progress: Progress, run: PlannedRun, reason: str, trace: str
    ) -> None:
        write_text(note, json.dumps({"reason": reason, "trace": trace}, indent=1))
        progress.say(f"Run {run.name} failed: {reason}")

    def _note(self, run: PlannedRun) -> Path:
        return self.out / "failed" / f"{run.name}.json"

    # -- looking

    def plans(self, progress: Progress | None = None) -> list[Plan | CalcarineError]:
        """Return what each run will compute; see `calcarine.experiment.run_plan.plan_experiment`.

        Parameters
        ----------
        progress : Progress, optional
            Silent by default.

        Returns
        -------
        list of Plan or CalcarineError
            The reason for a run that would be refused.
        """
        found: list[Plan | CalcarineError] = []
        for run in self.runs:
            try:
                plan = plan_experiment(run.experiment, run.folder, progress)
                plan.check()
                found.append(plan)
            except CalcarineError as error:
                found.append(error)
        return found

    def states(self) -> list[RunState]:
        """Return how far each run is."""
        return [self._state(run) for run in self.runs]

    def _state(self, run: PlannedRun) -> RunState:
        about = run.name, run.subject, run.label
        note = self._note(run)
        failed = read_json(note)["reason"] if note.exists() else None
        if not (run.folder / "experiment.yaml").exists():
            return RunState(*about, "failed" if failed else "not started", reason=failed or "")
        try:
            directory = RunDirectory(run.folder)
        except CalcarineError as error:
            return RunState(*about, "failed", reason=str(error))
        hours = sum(directory.manifest().get("times", {}).values()) / 3600
        stages = [name for name, stage in STAGES.items() if stage.enabled(run.experiment)]
        at = next((name for name in stages if not directory.has_finished(name)), "")
        if not at:
            return RunState(*about, "finished", hours=hours)
        if is_locked(run.folder):
            return RunState(*about, "running", at, hours=hours)
        return RunState(*about, "failed" if failed else "unfinished", at, failed or "", hours)

    def batch_script(self) -> str:
        """Return a script for SLURM in which each job of an array takes the runs that are left."""
        name = re.sub(r"[^\w.-]+", "-", self.title)
        command = ["calcarine", "many", str(self.file), "--out", str(self.out)]
        command += [part for text in self._settings for part in ("--set", text)]
        return "\n".join(
            [
                "#!/bin/bash",
                f"#SBATCH --job-name={name}",
                f"#SBATCH --array=1-{len(self.runs)}",
                "#SBATCH --cpus-per-task=8",
                "#SBATCH --mem=64G",
                "#SBATCH --gres=gpu:1",
                "#SBATCH --time=24:00:00",
                shlex.join(command),
            ]
        )

    # -- one page

    def _summarise(self, states: Sequence[RunState]) -> None:
        """Write the page of all runs, and its numbers as JSON and CSV."""
        finished = [
            run for run, at in zip(self.runs, states, strict=True) if at.state == "finished"
        ]
        scores = _scores(finished)
        content = {
            "title": self.title,
            "simulated": any(RunDirectory(run.folder).manifest()["simulated"] for run in finished),
            "runs": [asdict(state) for state in states],
            "scores": json.loads(scores.replace({np.nan: None}).to_json(orient="records")),
        }
        with atomic_write(self.out / "many.csv") as partial:
            scores.to_csv(partial, index=False)
        write_text(self.out / "many.json", json.dumps(content, indent=1, ensure_ascii=False))
        build_many_page(content, self.out / "many.html")


def _names(tree: Mapping[str, Any], key: str, file: Path) -> list[str]:
    """Return a list of texts of the file."""
    found = tree.get(key) or []
    if not isinstance(found, list) or not all(isinstance(each, str | int) for each in found):
        raise SettingError(f"'{key}' of {file} must be a list of names, as [a, b].")
    return [str(each) for each in found]


def _trace(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def _scores(runs: Sequence[PlannedRun]) -> pd.DataFrame:
    """Return the main scores of each label and method, as means over subjects.

    Columns label, method, metric, value, ci_low, ci_high, subjects and images. The interval is
    over images and, with several subjects, over subjects too.
    """
    tables = []
    for run in runs:
        evaluation = read_evaluation(run.folder / "metrics")
        roles = {row["method"] for row in evaluation.records if row["role"] == "method"}
        table = select_main_protocol(evaluation.per_image)
        table = table[table["method"].isin(roles)]
        tables.append(table.assign(label=run.label, run=run.name))
    columns = ["label", "method", "metric", "value", "ci_low", "ci_high", "subjects", "images"]
    if not tables:
        return pd.DataFrame(columns=columns)
    whole = pd.concat(tables, ignore_index=True)
    metrics = main_metrics(whole["metric"])
    rows = []
    for keys, part in whole.groupby(["label", "method", "metric"], sort=False):
        label, method, metric = keys
        if metric not in metrics:
            continue
        values = [own["value"].to_numpy() for _, own in part.groupby("run", sort=True)]
        if not all(np.isfinite(own).all() for own in values):
            continue  # the reports say which pictures have no score
        found = hierarchical_bootstrap(values)
        images = sum(map(len, values))
        rows.append(
            (label, method, metric, found.value, found.ci_low, found.ci_high, len(values), images)
        )
    order = {name: at for at, name in enumerate(metrics)}
    made = pd.DataFrame(rows, columns=columns)
    return made.sort_values("metric", key=lambda names: names.map(order), kind="stable")
