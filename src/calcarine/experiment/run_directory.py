"""The folder of one run: its settings, its files and the state of its stages."""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from calcarine import __version__
from calcarine.errors import (
    CalcarineError,
    DamagedFileError,
    MissingFileError,
    SettingError,
    out_of_memory,
)
from calcarine.experiment.config import Experiment
from calcarine.experiment.memory_use import PeakMemory, measured_memory
from calcarine.experiment.stage_files import WrittenFiles
from calcarine.files import (
    explain_full_disk,
    is_partial_file,
    read_json,
    remove_partial_files,
    write_text,
)
from calcarine.files.locks import LOCK_NAME, folder_lock
from calcarine.files.work_queue import WorkQueue

__all__ = ["RunDirectory", "environment", "opened_run", "readable"]

_SHARED, _LED, _OPEN = ".shared", "led", "open.json"
_PARTIAL_AGE = 60.0


class RunDirectory:
    """The output folder of a run.

    Parameters
    ----------
    path : Path
    experiment : Experiment, optional
        Settings of a run that is new or resumed; by default those in the folder are read.

    Raises
    ------
    CalcarineError
        If the folder holds something else, or another experiment.
    """

    def __init__(self, path: Path, experiment: Experiment | None = None) -> None:
        self.path = Path(path)
        self.experiment = _experiment_of(self.path, experiment)
        if experiment is None:
            return
        config, text = self.path / "experiment.yaml", _as_yaml(experiment)
        # A run that is opened with its own settings may lie on a disk that cannot be written to.
        if not config.exists() or config.read_text(encoding="utf-8") != text:
            with self.locked():
                _experiment_of(self.path, experiment)
                write_text(config, text)

    @contextmanager
    def locked(self, writes: bool = True) -> Iterator[None]:
        """Work in the folder alone; half-written files of killed commands are removed.

        Parameters
        ----------
        writes : bool
            False where nothing is written into the folder; a read-only folder is then read
            without a lock.

        Raises
        ------
        CalcarineError
            If another process works here.
        """
        with folder_lock(self.path, writes=writes) as taken, explain_full_disk(self.path):
            if taken:
                remove_partial_files(self.path)
            yield

    @property
    def decoder(self) -> Path:
        return self.path / "decoder"

    @property
    def networks(self) -> Path:
        return self.path / "networks"

    @property
    def reconstructions(self) -> Path:
        return self.path / "reconstructions"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics"

    @property
    def shared(self) -> Path:
        """Where processes that share the work of the run find each other."""
        return self.path / _SHARED

    @contextmanager
    def led(self) -> Iterator[None]:
        """Allow other processes to take part in the run while a block runs."""
        self.shared.mkdir(exist_ok=True)
        (self.shared / _LED).touch()
        try:
            yield
        finally:
            (self.shared / _LED).unlink(missing_ok=True)
            with suppress(OSError):  # not empty: a stage was interrupted
                self.shared.rmdir()

    @staticmethod
    def is_led_at(path: Path) -> bool:
        """Return whether others may take part in the run of a folder, or might before it ended."""
        return (path / _SHARED / _LED).exists()

    @contextmanager
    def sharing(self, stage: str) -> Iterator[None]:
        """Allow other processes to share the work of a stage while a block runs."""
        folder = self._shared(stage)
        folder.mkdir(parents=True, exist_ok=True)
        about = {"stage": stage, "key": self._state(stage)["key"], "time": time.time()}
        write_text(folder / _OPEN, json.dumps(about))
        try:
            yield
        finally:
            (folder / _OPEN).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)

    def shared_stages(self) -> list[dict[str, Any]]:
        """Return which stages can be shared now: name, key and when each was opened."""
        opened = sorted(self.shared.glob(f"*/{_OPEN}"))
        return [about for about in map(_read_dict, opened) if about]

    def queue(self, stage: str, part: str) -> WorkQueue:
        """Return a part of a stage's work, which several processes share."""
        return WorkQueue(self._shared(stage) / part, "which works on the same run")

    def _shared(self, stage: str) -> Path:
        return self.shared / f"{stage}-{self._state(stage).get('key', '')[:16]}"

    def begin(self, stage: str, key: str, stale: Mapping[str, Sequence[str]] | None = None) -> bool:
        """Begin or resume a stage.

        Parameters
        ----------
        stage : str
            Name of the stage.
        key : str
            What the stage depends on; see :mod:`calcarine.experiment.keys`.
        stale : mapping of str to sequence of str, optional
            Stages, and the files and folders of each, that are removed when the key has changed.

        Returns
        -------
        bool
            Whether the stage has work to do.
        """
        state = self._state(stage)
        if state.get("key") == key:
            return not state.get("done", False)
        for name, outputs in {stage: (), **(stale or {})}.items():
            self._remove(name, outputs)
        marker = self._marker(stage)
        marker.parent.mkdir(exist_ok=True)
        write_text(marker, json.dumps({"key": key, "done": False}))
        return True

    def _remove(self, stage: str, outputs: Sequence[str]) -> None:
        """Forget a stage and delete what it wrote."""
        # The marker first: half-removed outputs must not look whole.
        marker = self._marker(stage)
        marker.unlink(missing_ok=True)
        manifest = self.manifest()
        for entry in ("times", "memory"):
            if manifest.get(entry, {}).pop(stage, None) is not None:
                self.update_manifest(**{entry: manifest[entry]})
        marker.with_suffix(".made").unlink(missing_ok=True)
        for folder in self.shared.glob(f"{stage}-*"):
            shutil.rmtree(folder)
        for name in outputs:
            target = self.path / name
            if target.is_dir():
                shutil.rmtree(target)
            elif target.exists():
                target.unlink()

    def made(self, stage: str) -> WrittenFiles:
        """Return the files that a stage has written so far."""
        return WrittenFiles(self.path, stage, self._state(stage).get("key"))

    def finish(self, stage: str, key: str) -> None:
        """Mark a stage as finished.

        Raises
        ------
        CalcarineError
            If another command restarted the stage, or changed what it wrote.
        """
        if self._state(stage) != {"key": key, "done": False}:
            raise CalcarineError(
                f"Another calcarine process changed '{stage}' of {self.path} meanwhile; stop it, "
                "then repeat the command."
            )
        self.made(stage).finish()
        write_text(self._marker(stage), json.dumps({"key": key, "done": True}))

    def has_finished(self, stage: str) -> bool:
        """Return whether a stage was finished, with whatever settings."""
        return bool(self._state(stage).get("done", False))

    def is_done(self, stage: str, key: str) -> bool:
        """Return whether a stage is finished under this key."""
        return self._state(stage) == {"key": key, "done": True}

    def require(self, stage: str, key: str) -> None:
        """Raise a `CalcarineError` unless a stage is finished under this key."""
        if not self.is_done(stage, key):
            raise CalcarineError(
                f"{self.path} has not finished '{stage}'; call "
                f"'calcarine {stage} {self.path}' first."
            )

    def _marker(self, stage: str) -> Path:
        return self.path / ".stages" / f"{stage}.json"

    def _state(self, stage: str) -> dict[str, Any]:
        """Read the state of a stage; one that cannot be read counts as not done."""
        return _read_dict(self._marker(stage))

    def manifest(self) -> dict[str, Any]:
        """Read the manifest of the run so far."""
        return _read_dict(self.path / "manifest.json")

    def update_manifest(self, **entries: Any) -> None:
        """Set entries of the manifest, replacing old ones."""
        content = {**self.manifest(), **entries}
        write_text(self.path / "manifest.json", json.dumps(content, indent=2, default=str))

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Record time and memory of a stage in the manifest, interrupted or not."""
        start, memory = time.monotonic(), PeakMemory()
        try:
            with measured_memory() as memory:
                yield
        finally:
            before = self.manifest()
            times, peaks = before.get("times", {}), before.get("memory", {})
            spent = times.get(stage, 0.0) + time.monotonic() - start
            most = max(peaks.get(stage, 0), memory.peak)
            self.update_manifest(
                times={**times, stage: round(spent, 2)},
                # 0 where the system does not report it.
                memory={**peaks, **({stage: most} if most else {})},
            )


@contextmanager
def opened_run(
    path: Path, experiment: Experiment | None = None, writes: bool = True
) -> Iterator[RunDirectory]:
    """Open a run's folder and lock it against other commands.

    A new folder in which an error leaves no result is removed again.

    Parameters
    ----------
    path, experiment
        See :class:`RunDirectory`.
    writes : bool
        See :meth:`RunDirectory.locked`.

    Raises
    ------
    CalcarineError
        If another process works there, or as :class:`RunDirectory` does.
    """
    path = Path(path)
    _experiment_of(path, experiment)  # what is refused leaves no folder and no lock
    new = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        with folder_lock(path, writes=writes) as taken, explain_full_disk(path):
            if taken:
                # A process that takes part may be writing while another becomes the first.
                remove_partial_files(path, _PARTIAL_AGE if (path / _SHARED).exists() else 0.0)
            try:
                yield RunDirectory(path, experiment)
            except CalcarineError:
                if path in new:
                    _clear_without_results(path)
                raise
    except CalcarineError:
        for folder in new:
            try:
                folder.rmdir()
            except OSError:  # not empty, or gone
                break
        raise


def _clear_without_results(path: Path) -> None:
    """Empty the folder of a new run in which nothing was computed; its lock stays."""
    own = ("experiment.yaml", "manifest.json", ".stages", _SHARED)
    files = [file for file in path.rglob("*") if file.is_file() and file.name != LOCK_NAME]
    names = [file.relative_to(path) for file in files]
    if not all(name.parts[0] in own for name in names):
        return
    for file in files:
        file.unlink(missing_ok=True)
    for folder in sorted((each for each in path.rglob("*") if each.is_dir()), reverse=True):
        folder.rmdir()


def _experiment_of(path: Path, experiment: Experiment | None) -> Experiment:
    """Return the experiment of a folder, which must be its run, or empty for a new one."""
    config = path / "experiment.yaml"
    if experiment is None:
        if not config.exists():
            raise MissingFileError(
                f"{path} is not a run: it has no experiment.yaml; make one with "
                f"'calcarine run --preset takagi --out {path}'."
            )
        return _read(config)
    if path.is_file():
        raise SettingError(f"{path} is a file; the output must be a folder.")
    if (path / ".stages").exists() and config.exists():
        _refuse_another(path, _read(config), experiment)
    elif not config.exists() and path.exists() and not _is_empty(path):
        raise SettingError(f"{path} is not empty and is not a run; give an empty or a new folder.")
    return experiment


def _is_empty(path: Path) -> bool:
    return all(file.name == LOCK_NAME or is_partial_file(file) for file in path.iterdir())


def _as_yaml(experiment: Experiment) -> str:
    return yaml.safe_dump(experiment.model_dump(mode="json"), sort_keys=False)


def _read_dict(file: Path) -> dict[str, Any]:
    try:
        content = read_json(file)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


@contextmanager
def readable(file: Path, stage: str) -> Iterator[None]:
    """Turn failures to read what a stage wrote into one sentence."""
    try:
        yield
    except CalcarineError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise
        raise DamagedFileError(
            f"{file} is missing or broken; delete it and .stages/{stage}.json of the run, then "
            "run again."
        ) from error


def _read(file: Path) -> Experiment:
    try:
        return Experiment.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
    except Exception as error:  # yaml has errors of many kinds for tags and dates
        raise DamagedFileError(
            f"{file} is not an experiment that this version can read; use a new output folder."
        ) from error


def _refuse_another(path: Path, old: Experiment, new: Experiment) -> None:
    for what, before, now in (
        ("data set", old.dataset.name, new.dataset.name),
        ("subject", old.dataset.subject, new.dataset.subject),
        ("experiment", old.name, new.name),
    ):
        if before != now:
            raise SettingError(
                f"{path} belongs to another experiment ({what} '{before}', not '{now}'); "
                "give another output folder."
            )


def environment() -> dict[str, Any]:
    """Return versions and hardware, for the manifest."""
    import torch

    names = ("torch", "diffusers", "transformers", "numpy", "scikit-learn", "scipy")
    versions = {}
    for name in names:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "calcarine": __version__,
        "versions": {"python": platform.python_version(), **versions},
        "hardware": {
            "machine": platform.machine(),
            "system": platform.system(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        },
    }
