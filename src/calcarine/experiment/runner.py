"""Running the stages of an experiment."""

from __future__ import annotations

from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path

from calcarine import datasets
from calcarine.devices import tf32_products
from calcarine.errors import FolderInUseError, SettingError
from calcarine.experiment.config import Experiment
from calcarine.experiment.joined_run import run_to_join, start_on_dask, start_workers, take_part
from calcarine.experiment.out_of_memory import explain_memory
from calcarine.experiment.progress import Progress
from calcarine.experiment.run_directory import RunDirectory, opened_run
from calcarine.experiment.stage import Stage
from calcarine.experiment.stages import STAGES, check_experiment, run_keys
from calcarine.experiment.workspace import Workspace
from calcarine.files import remove_partial_files
from calcarine.files.locks import folder_lock
from calcarine.training.launched import leader

__all__ = ["run_experiment", "run_one_stage", "run_stage", "start_run"]


def run_experiment(
    experiment: Experiment,
    out: Path,
    progress: Progress | None = None,
    trained: Path | None = None,
    workers: int = 1,
    dask: str | None = None,
    join: bool = True,
) -> RunDirectory:
    """Run all stages of an experiment, or what is left of them.

    If another process runs the same experiment in the folder, this one takes part in it, and if
    the other ends early, this one goes on with the rest.

    Parameters
    ----------
    experiment : Experiment
    out : Path
        Output folder; the same folder again resumes.
    progress : Progress, optional
        Silent by default.
    trained : Path, optional
        See :class:`calcarine.experiment.workspace.Workspace`.
    workers : int
        Number of processes of this machine that share features, decoders, pictures, scores and
        encoding models, this one included.
    dask : str, optional
        Address of the scheduler of a Dask cluster whose workers share them too; "slurm" makes
        ``workers`` the number of SLURM jobs, by dask-jobqueue.
    join : bool
        Take part in the run of another process; False refuses it.

    Returns
    -------
    RunDirectory

    Raises
    ------
    FolderInUseError
        If another process does something else in the folder, or runs the experiment and ``join``
        is False.
    CalcarineError
        If the experiment cannot be run.

    Examples
    --------
    >>> from pathlib import Path
    >>> from calcarine.experiment import load_experiment, run_experiment
    >>> experiment = load_experiment("takagi")
    >>> run = run_experiment(experiment, Path("runs/takagi"))  # doctest: +SKIP
    """
    from calcarine.experiment.scoring import missing_networks

    progress = progress or Progress()
    if workers < 1:
        raise SettingError(f"The number of workers is {workers}; it must be at least 1.")

    # Unknown protocols and missing weights are reported before hours of work.
    missing = missing_networks(experiment, out)
    if missing is not None:
        progress.say(missing)
    datasets.dataset_info(experiment.dataset.name)  # refuses an unknown name
    while True:
        with ExitStack() as stack:
            try:
                run = stack.enter_context(opened_run(out, experiment))
            except FolderInUseError:
                joined = run_to_join(out, experiment) if join and trained is None else None
                if joined is None:
                    raise
            else:
                if trained is not None:
                    # Networks that several runs share are trained by one of them at a time.
                    stack.enter_context(folder_lock(trained))
                _lead(Workspace(run, progress, trained), workers, dask)
                return run
        progress.say(f"Another process runs this experiment in {out}; this one takes part.")
        take_part(joined, progress)


def _lead(work: Workspace, workers: int, dask: str | None) -> None:
    """Run the stages of an experiment; other processes may take part."""
    here = 0 if dask == "slurm" else workers - 1  # else they are jobs
    with (
        start_on_dask(work.run, dask, work.progress, workers),
        # Before the plan, which takes some time: others that start meanwhile wait.
        work.run.led(),
    ):
        _plan(work, alone=workers == 1 and dask is None)
        _run_stages(work, here)
    remove_partial_files(work.run.path)


def _run_stages(work: Workspace, workers: int) -> None:
    with start_workers(work.run, workers, work.progress):
        first = leader()
        if first is not None and work.trained is None:
            first.announce(work.run.path)
        for name, stage in STAGES.items():
            if stage.enabled(work.config):
                run_stage(work, name)


def _plan(work: Workspace, alone: bool) -> None:
    """Refuse a run that cannot fit, before hours of work, and show what it will take."""
    from calcarine.experiment.calibration import Calibration
    from calcarine.experiment.run_plan import plan_run

    check_experiment(work)
    # Trainings may start processes on other devices, so none is tried here.
    calibration = Calibration(work, phases=False) if work.progress.shown else None
    plan = plan_run(work, calibration=calibration)
    plan.check()
    if calibration is not None and plan.stages:
        work.progress.say(f"{plan}{'' if alone else ', by one process'}")
        before = work.run.manifest().get("plan", {})
        work.run.update_manifest(plan={**before, **plan.to_json()})


def start_run(experiment: Experiment, out: Path, resumes: bool = False) -> RunDirectory:
    """Make the folder of a run without running it.

    Parameters
    ----------
    experiment : Experiment
    out : Path
        Output folder.
    resumes : bool
        Allow a folder that is a run already; it gets the settings of ``experiment``.

    Returns
    -------
    RunDirectory

    Raises
    ------
    CalcarineError
        If there is no such data set, or the folder is a run already or holds something else.
    """
    datasets.dataset_info(experiment.dataset.name)
    if not resumes and (out / "experiment.yaml").exists():
        raise SettingError(
            f"{out} is a run already, with its own settings; change them with 'calcarine run {out} "
            "--set KEY=VALUE', or give a new folder."
        )
    return RunDirectory(out, experiment)


def run_one_stage(
    path: Path, name: str, experiment: Experiment | None = None, progress: Progress | None = None
) -> Workspace:
    """Open a run, or start one, and run one of its stages.

    Parameters
    ----------
    path : Path
        Output folder.
    name : str
        One of :data:`calcarine.experiment.stages.STAGES`.
    experiment : Experiment, optional
        Settings of a new run; by default those in the folder.
    progress : Progress, optional
        Silent by default.

    Returns
    -------
    Workspace

    Raises
    ------
    CalcarineError
        As :func:`run_stage` does, or if another process works in the folder.
    """
    with opened_run(path, experiment) as run:
        work = Workspace(run, progress)
        run_stage(work, name)
        return work


def run_stage(work: Workspace, name: str) -> None:
    """Run one stage, or what is left of it.

    Parameters
    ----------
    work : Workspace
    name : str
        One of :data:`calcarine.experiment.stages.STAGES`.

    Raises
    ------
    CalcarineError
        If the run has no such stage, a stage before it is not finished, or the settings cannot be
        carried out.

    Examples
    --------
    >>> from pathlib import Path
    >>> from calcarine.experiment import load_experiment, run_stage
    >>> from calcarine.experiment.run_directory import RunDirectory
    >>> from calcarine.experiment.workspace import Workspace
    >>> run = RunDirectory(Path("runs/takagi"), load_experiment("takagi"))  # doctest: +SKIP
    >>> work = Workspace(run)  # doctest: +SKIP
    >>> for name in ("features", "fit", "reconstruct", "evaluate"):  # doctest: +SKIP
    ...     run_stage(work, name)
    """
    if name not in STAGES:
        raise SettingError(f"There is no stage '{name}'; the stages are {', '.join(STAGES)}.")
    stage = STAGES[name]
    if not (stage.enabled(work.config) or stage.on_demand):
        options = " ".join(f"--set {setting}" for setting in stage.switches)
        raise SettingError(
            f"The stage '{name}' is not part of this run; add it with 'calcarine run "
            f"{work.run.path} {options}'."
        )
    check_experiment(work)
    keys = run_keys(work)
    key = keys.get(name) or _key_on_demand(work, stage)
    with work.run.locked():
        # Before anything is removed that changed settings made stale.
        for needed in stage.needs:
            if needed in keys:
                work.run.require(needed, keys[needed])
        if work.run.begin(name, key, stage.stale):
            if stage.networks:
                work.record_compute(name)
            if not stage.generates:
                work.forget_models()
            with (
                nullcontext() if stage.share is None else work.run.sharing(name),
                work.run.timed(name),
                explain_memory(work.config, stage),
                tf32_products(work.config.compute.tf32),
            ):
                stage.run(work)
            work.run.finish(name, key)


def _key_on_demand(work: Workspace, stage: Stage) -> str:
    """Return the key of a stage that the run itself leaves out."""
    return stage.key(work.config, replace(work.digests, latents=work.latents_digest), {})
