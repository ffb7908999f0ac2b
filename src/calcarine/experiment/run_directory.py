"""The folder of one run: what is where, what is done, what must be done again."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from calcarine import __version__
from calcarine.errors import CalcarineError
from calcarine.experiment.config import Experiment

_OUTPUTS = {
    "features": (),
    "fit": ("decoder",),
    "reconstruct": ("reconstructions",),
    "evaluate": ("metrics",),
    "report": ("figures", "report.html"),
}


class RunDirectory:
    """One output folder.

    Parameters
    ----------
    path : Path
    experiment : Experiment, optional
        When given, the folder is made or taken up; when not, its own configuration is read.

    Raises
    ------
    CalcarineError
        If the folder holds something else, or another experiment.
    """

    def __init__(self, path: Path, experiment: Experiment | None = None) -> None:
        self.path = Path(path)
        config = self.path / "experiment.yaml"
        if experiment is None:
            if not config.exists():
                raise CalcarineError(
                    f"{self.path} is no run: it has no experiment.yaml; make one with "
                    f"'calcarine run --preset takagi --out {self.path}'."
                )
            experiment = _read(config)
        elif self.path.is_file():
            raise CalcarineError(f"{self.path} is a file; the output must be a folder.")
        elif config.exists():
            _refuse_another(self.path, _read(config), experiment)
        elif self.path.exists() and any(self.path.iterdir()):
            raise CalcarineError(
                f"{self.path} holds files that are no run of calcarine; give an empty folder."
            )
        self.experiment = experiment
        self.path.mkdir(parents=True, exist_ok=True)
        write_atomic(config, yaml.safe_dump(experiment.model_dump(mode="json"), sort_keys=False))

    @property
    def decoder(self) -> Path:
        return self.path / "decoder"

    @property
    def reconstructions(self) -> Path:
        return self.path / "reconstructions"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics"

    def begin(self, stage: str, key: str) -> bool:
        """Whether ``stage`` still has work to do; what a changed setting made stale is removed."""
        marker = self._marker(stage)
        state = json.loads(marker.read_text()) if marker.exists() else {}
        if state.get("key") == key:
            return not state.get("done", False)
        for name in _OUTPUTS[stage]:
            target = self.path / name
            if target.is_dir():
                shutil.rmtree(target)
            elif target.exists():
                target.unlink()
        marker.parent.mkdir(exist_ok=True)
        write_atomic(marker, json.dumps({"key": key, "done": False}))
        return True

    def finish(self, stage: str, key: str) -> None:
        """Mark ``stage`` as whole."""
        write_atomic(self._marker(stage), json.dumps({"key": key, "done": True}))

    def require(self, stage: str) -> None:
        """Raise one sentence unless ``stage`` is done."""
        marker = self._marker(stage)
        if not marker.exists() or not json.loads(marker.read_text())["done"]:
            raise CalcarineError(
                f"{self.path} has not finished '{stage}'; call "
                f"'calcarine {stage} {self.path}' first."
            )

    def _marker(self, stage: str) -> Path:
        return self.path / ".stages" / f"{stage}.json"

    def manifest(self) -> dict[str, Any]:
        """What is known of the run so far."""
        file = self.path / "manifest.json"
        return dict(json.loads(file.read_text())) if file.exists() else {}

    def update_manifest(self, **entries: Any) -> None:
        """Add entries; dictionaries are merged."""
        content = self.manifest()
        for key, value in entries.items():
            if isinstance(value, dict) and isinstance(content.get(key), dict):
                content[key] = {**content[key], **value}
            else:
                content[key] = value
        write_atomic(self.path / "manifest.json", json.dumps(content, indent=2, default=str))

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time that a stage took to the manifest, interrupted or not."""
        began = time.monotonic()
        try:
            yield
        finally:
            spent = self.manifest().get("times", {}).get(stage, 0.0) + time.monotonic() - began
            self.update_manifest(times={stage: round(spent, 2)})


def _read(file: Path) -> Experiment:
    try:
        return Experiment.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
    except (yaml.YAMLError, ValueError) as error:
        raise CalcarineError(
            f"{file} is no experiment that this version can read; use a new output folder."
        ) from error


def _refuse_another(path: Path, old: Experiment, new: Experiment) -> None:
    for what, before, now in (
        ("data set", old.dataset.name, new.dataset.name),
        ("subject", old.dataset.subject, new.dataset.subject),
        ("experiment", old.name, new.name),
    ):
        if before != now:
            raise CalcarineError(
                f"{path} belongs to another experiment ({what} '{before}', not '{now}'); "
                "give another output folder."
            )


def content_key(*parts: Any) -> str:
    """Hash of anything that JSON can hold."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def write_atomic(file: Path, text: str) -> None:
    """Write aside, then rename: a half-written file is never taken for a whole one."""
    aside = file.with_name(file.name + ".part")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, file)


def environment() -> dict[str, Any]:
    """Versions and hardware, for the manifest."""
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
