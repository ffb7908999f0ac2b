"""What a run will compute, where, and with how much time, memory and disk."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from calcarine.display import size_text, time_text
from calcarine.errors import SettingError
from calcarine.experiment.calibration import Calibration
from calcarine.experiment.config import Experiment
from calcarine.experiment.memory_use import machine_memory, used_memory
from calcarine.experiment.progress import Progress
from calcarine.experiment.run_directory import RunDirectory
from calcarine.experiment.stage_costs import StageCost, stage_cost
from calcarine.experiment.stages import STAGES, check_experiment, run_keys
from calcarine.experiment.workspace import Workspace
from calcarine.files import existing_folder

__all__ = [
    "HEADINGS",
    "Plan",
    "PlannedStage",
    "plan_experiment",
    "plan_run",
]

_LIBRARIES = 0.2e9
"""Bytes of libraries and buffers that stages load and keep besides data and networks."""

_ANYWAY = "set compute.check=false to try it all the same"

HEADINGS = ("stage", "work", "time", "memory", "disk")
"""Headings of `Plan.rows`."""


@dataclass(frozen=True)
class PlannedStage:
    """What one stage will compute.

    Attributes
    ----------
    name : str
    work : str
        What it computes, in numbers.
    seconds : float or None
        Without work whose cost is not known; None where nothing was measured.
    memory, gpu, disk, stored : float
        Bytes: memory of the process and of the GPU at the peak, and what the stage writes into the
        run and as features into the store.
    mend : str
        Settings that lower its memory.
    unknown : tuple of str
        Work whose cost is not known, and not counted.
    """

    name: str
    work: str
    seconds: float | None
    memory: float
    gpu: float
    disk: float
    stored: float = 0.0
    mend: str = ""
    unknown: tuple[str, ...] = ()

    @property
    def time(self) -> str:
        """Its time as text."""
        if self.seconds is None:
            return "not known"
        return f"{'more than ' if self.unknown else ''}{time_text(self.seconds)}"

    @property
    def space(self) -> str:
        """Its memory as text."""
        gpu = f", GPU {size_text(self.gpu)}" if self.gpu else ""
        return f"{size_text(self.memory)}{gpu}"

    @property
    def written(self) -> float:
        """Bytes that it writes anywhere."""
        return self.disk + self.stored


@dataclass(frozen=True)
class Plan:
    """What the stages of a run that are not finished will compute.

    Attributes
    ----------
    stages : tuple of PlannedStage
    device : str
        Where networks compute, and how precisely.
    memory_there : float or None
        Bytes of this machine's memory; None if unknown.
    folder, store : Path
        Where the run writes, and where it keeps features.
    enforced : bool
        Whether `check` refuses anything (``compute.check``).
    """

    stages: tuple[PlannedStage, ...]
    device: str
    memory_there: float | None
    folder: Path
    store: Path
    enforced: bool = True

    @property
    def seconds(self) -> float:
        """Time of all stages whose time is known."""
        return sum(stage.seconds for stage in self.stages if stage.seconds is not None)

    @property
    def untimed(self) -> list[str]:
        """Names of the stages whose time is not known, or only in part."""
        return [stage.name for stage in self.stages if stage.seconds is None or stage.unknown]

    @property
    def memory(self) -> float:
        """Bytes of memory at the peak."""
        return max((stage.memory for stage in self.stages), default=0.0)

    @property
    def disk(self) -> float:
        """Bytes that the stages write."""
        return sum(stage.written for stage in self.stages)

    def __str__(self) -> str:
        without = f" (without parts of {', '.join(self.untimed)})" if self.untimed else ""
        return (
            f"Plan: about {time_text(self.seconds)}{without}, {size_text(self.memory)} of memory "
            f"and {size_text(self.disk)} of disk"
        )

    def check(self) -> None:
        """Refuse a run that cannot fit.

        Raises
        ------
        SettingError
            If memory or disk do not suffice.
        """
        if not self.enforced:
            return
        if self.memory_there is not None:
            for stage in self.stages:
                if stage.memory > self.memory_there:
                    raise SettingError(
                        f"The stage '{stage.name}' needs about {size_text(stage.memory)} of "
                        f"memory, and {size_text(self.memory_there)} are there; {stage.mend}, use "
                        f"a machine with more, or {_ANYWAY}."
                    )
        one_disk = self.folder.stat().st_dev == self.store.stat().st_dev
        features = {stage.name: stage.stored for stage in self.stages}
        own = {s.name: s.written if one_disk else s.disk for s in self.stages}
        _check_disk("The run writes", own, self.folder, "give another folder with --out, or one")
        if not one_disk:
            _check_disk("Its features take", features, self.store, "give another folder")

    def rows(self) -> list[tuple[str, ...]]:
        """Return stage, work, time, memory and disk of each stage as text, and their sums."""
        rows = [
            (
                stage.name,
                stage.work,
                stage.time,
                stage.space,
                size_text(stage.written),
            )
            for stage in self.stages
        ]
        total = time_text(self.seconds), size_text(self.memory), size_text(self.disk)
        return [*rows, ("together", "", *total)]

    def to_json(self) -> dict[str, Any]:
        """Return the plan as a plain dictionary, by stage."""
        return {stage.name: asdict(stage) for stage in self.stages}


def plan_experiment(experiment: Experiment, out: Path, progress: Progress | None = None) -> Plan:
    """Plan an experiment by measurements of a few seconds, without leaving a file.

    Parameters
    ----------
    experiment : Experiment
    out : Path
        Where it would run; what an earlier run finished there is not planned again.
    progress : Progress, optional
        Silent by default.

    Returns
    -------
    Plan

    Raises
    ------
    CalcarineError
        If the experiment cannot be run.
    """
    with tempfile.TemporaryDirectory(prefix="calcarine-") as folder:
        if (out / "experiment.yaml").exists():
            run = RunDirectory(out)
            run.experiment = experiment
        else:
            run = RunDirectory(Path(folder) / "run", experiment)
        work = Workspace(run, progress)
        check_experiment(work)
        return plan_run(work, out, Calibration(work))


def plan_run(
    work: Workspace, folder: Path | None = None, calibration: Calibration | None = None
) -> Plan:
    """Count what the stages of a run will compute.

    Parameters
    ----------
    work : Workspace
    folder : Path, optional
        Where the run will write; by default its own folder.
    calibration : Calibration, optional
        Measures what single pieces take. Without it no times are known, and of memory only that
        of arrays and fits.

    Returns
    -------
    Plan
    """
    keys = run_keys(work)
    counts = calibration is not None and calibration.phases
    planned = [
        _planned(name, stage_cost(name, work, counts), calibration, work)
        for name, key in keys.items()
        if not work.run.is_done(name, key)
    ]
    place = existing_folder(folder or work.run.path)
    own = work.store.folder if work.shared_store else place
    there = machine_memory()
    return Plan(
        tuple(planned),
        str(work.compute),
        None if there is None else float(there),
        place,
        existing_folder(own),
        work.config.compute.check,
    )


def _planned(
    name: str, cost: StageCost, calibration: Calibration | None, work: Workspace
) -> PlannedStage:
    if calibration is None:
        base = used_memory()
    else:
        base = calibration.base if STAGES[name].generates else calibration.data
    fits = max((fit.memory for _, _, fit in cost.fits), default=0.0)
    seconds: float | None = None
    batch = gpu = 0.0
    if calibration is not None:
        found = [(part, calibration.rate(part.unit)) for part in cost.parts]
        rates = [(part, rate) for part, rate in found if rate is not None]
        seconds = sum(part.count * rate.seconds for part, rate in rates)
        seconds += sum(count * calibration.ridge_seconds(fit) for _, count, fit in cost.fits)
        batch = max((rate.memory for _, rate in rates), default=0.0)
        gpu = max((rate.gpu for _, rate in rates), default=0.0)
        if len(rates) < len(found):
            seconds = None
    memory = _LIBRARIES + base + cost.arrays + max(fits, batch)
    mend = _mend(name, fits > batch, work)
    return PlannedStage(
        name,
        "; ".join(_said(cost)),
        seconds,
        memory,
        gpu,
        cost.disk,
        cost.stored,
        mend,
        cost.unknown,
    )


def _mend(name: str, fits: bool, work: Workspace) -> str:
    """Return which settings lower the memory of a stage."""
    if name == "encode":
        return "choose a smaller region (encoding.roi) or fewer components (encoding.n_components)"
    if name == "fit" and fits:
        return "choose smaller regions (roi.z, roi.c) or fewer folds (ridge.n_folds)"
    if name == "retrieve" and fits:
        return "choose smaller regions or features (embeddings.targets)"
    stage = STAGES[name]
    return f"lower {stage.memory}.batch_size" if stage.batches else "end other programs"


def _said(cost: StageCost) -> Iterator[str]:
    """Yield what a stage computes, equal work together."""
    counts: dict[str, float] = {}
    for part in cost.parts:
        counts[part.what] = counts.get(part.what, 0.0) + part.count
    for what, count in counts.items():
        if what == "components":
            yield f"{what} of feature spaces"
        elif what != "megapixels written":
            yield f"{count:,.0f} {what}"
    fitted: dict[str, int] = {}
    for what, count, _ in cost.fits:
        fitted[what] = fitted.get(what, 0) + count
    for what, number in fitted.items():
        yield f"{number} x {what}"
    for what in cost.unknown:
        yield f"{what} (not known)"


def _check_disk(what: str, bytes_of: dict[str, float], folder: Path, mend: str) -> None:
    """Raise unless what the stages write fits into a folder."""
    free, total = float(shutil.disk_usage(folder).free), sum(bytes_of.values())
    if total > free:
        largest = max(bytes_of, key=lambda name: bytes_of[name])
        raise SettingError(
            f"{what} about {size_text(total)}, most of it ({size_text(bytes_of[largest])}) in the "
            f"stage '{largest}', and {size_text(free)} are free in {folder}; {mend} for features "
            f"with --store, or {_ANYWAY}."
        )
