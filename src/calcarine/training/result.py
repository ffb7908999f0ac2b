"""The result of a training, written at its end and read by later calls."""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from safetensors.torch import load_file

from calcarine.errors import CalcarineError
from calcarine.files import digest_file, read_json, write_text
from calcarine.training.tensor_trees import cannot_write, write_tensors
from calcarine.training.training_config import TrainingConfig, ended_by
from calcarine.training.training_folder import TrainingFolder

__all__ = ["FORMAT", "TrainingResult", "finished", "write_final_result"]

FORMAT = "calcarine-training-1"
_LIBRARIES = ("calcarine", "torch", "lightning", "numpy")
_FIELDS = ("steps", "selected_step", "ended_by", "loss", "validation_loss", "seconds")


@dataclass(frozen=True)
class TrainingResult:
    """Result of a training.

    Attributes
    ----------
    state : dict of str to tensor
        Trained parameters and buffers, named as in the task's ``state_dict``.
    folder : Path
        Folder of the training: ``weights.safetensors``, ``training.json``, ``log.csv``,
        ``validation.csv``.
    steps : int
        Number of steps.
    selected_step : int
        Step of ``state``.
    ended_by : str
        "steps" or "patience".
    loss : float
        Training loss of the last step.
    validation_loss : float or None
        Smallest validation loss; that of ``selected_step`` if ``select`` is "best".
    seconds : float
        Duration of the training, over all calls.

    Examples
    --------
    >>> from calcarine.training import TrainingConfig, train
    >>> config = TrainingConfig(steps=1000)
    >>> result = train(task, config, "training")  # doctest: +SKIP
    >>> result.loss, result.weights_path  # doctest: +SKIP
    """

    state: dict[str, torch.Tensor]
    folder: Path
    steps: int
    selected_step: int
    ended_by: str
    loss: float
    validation_loss: float | None
    seconds: float

    @property
    def weights_path(self) -> Path:
        """Path of the trained weights."""
        return self.folder / "weights.safetensors"

    @property
    def log_path(self) -> Path:
        """Path of the losses of every step."""
        return self.folder / "log.csv"


def write_final_result(place: TrainingFolder, config: TrainingConfig) -> None:
    """Write weights and description of a finished training.

    Its checkpoints are deleted, unless the training can run for more steps.
    """
    newest = place.newest("step")
    assert newest is not None
    about, state = newest[1]["calcarine"], newest[1]["state_dict"]
    best = place.best(about["best_step"]) if config.select == "best" else None
    weights = place.path / "weights.safetensors"
    described = {
        "format": FORMAT,
        "steps": about["step"],
        "selected_step": best["best_step"] if best else about["step"],
        "ended_by": ended_by(config, about["step"], about["best_step"]),
        "loss": about["loss"],
        "validation_loss": about["best_loss"],
        "seconds": about["seconds"],
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "config": config.model_dump(mode="json"),
        "identity": place.identity,
        "versions": {"python": platform.python_version()}
        | {name: number for name in _LIBRARIES if (number := _version(name))},
    }
    try:
        described["sha256"] = write_tensors(best["state"] if best else state, weights)
        write_text(place.path / "training.json", json.dumps(described, indent=2))
    except OSError as error:
        raise cannot_write(weights, error) from error
    if config.schedule != "constant":
        for kind in ("step", "best"):
            place.prune(kind, 0)


def finished(place: TrainingFolder, config: TrainingConfig) -> TrainingResult | None:
    """Return the result of a training if all of its steps are done, else None.

    Raises
    ------
    CalcarineError
        If it belongs to another training, or is damaged and there is no checkpoint.
    """
    path, weights = place.path / "training.json", place.path / "weights.safetensors"
    if not path.exists():
        return None
    try:
        about = read_json(path)
        fields = {name: about[name] for name in _FIELDS}
        identity, whole = about["identity"], digest_file(weights) == about["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        identity, whole = place.identity, False
    place.check_identity(identity, path)
    if not whole and not list(place.newest_first("step")):
        raise CalcarineError(
            f"The weights in {place.path} are damaged and no checkpoint is left; "
            "delete the folder to start again."
        )
    if not whole:
        return None
    if fields["steps"] > config.n_steps:
        raise CalcarineError(
            f"{path} records {fields['steps']} steps, more than the {config.n_steps} of the "
            f"settings; choose another folder, or delete {place.path} to start again."
        )
    # With a constant learning rate the same training can run for more steps.
    if fields["steps"] < config.n_steps and fields["ended_by"] == "steps":
        return None
    return TrainingResult(state=load_file(weights), folder=place.path, **fields)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
