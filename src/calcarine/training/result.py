"""What came out of a training, written when it ends and read when it is asked for again."""

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

FORMAT = "calcarine-training-1"
_LIBRARIES = ("calcarine", "torch", "lightning", "numpy")
_FIELDS = ("steps", "selected_step", "ended_by", "loss", "validation_loss", "seconds")


@dataclass(frozen=True)
class TrainingResult:
    """What a training gave.

    Attributes
    ----------
    state : dict of str to tensor
        Trained parameters and buffers, named as in the task's ``state_dict``; without frozen ones.
    folder : Path
        Of the training: ``weights.safetensors``, ``training.json``, ``log.csv``,
        ``validation.csv``.
    steps : int
        Steps done.
    selected_step : int
        Steps after which ``state`` was taken.
    ended_by : str
        "steps" or "patience".
    loss : float
        Training loss of the last step.
    validation_loss : float or None
        Least validation loss, of ``selected_step`` when the best is selected.
    seconds : float
        Of training, over all continuations.
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
        return self.folder / "weights.safetensors"

    @property
    def log_path(self) -> Path:
        return self.folder / "log.csv"


def conclude(place: TrainingFolder, config: TrainingConfig) -> None:
    """Write weights and description of a training that has ended.

    Its checkpoints go then, unless one may train on from them.
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
        | {name: found for name in _LIBRARIES if (found := _version(name))},
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
    """The result of a training that has done all that is asked for, else None.

    Raises
    ------
    CalcarineError
        When it is another training's, or damaged without a checkpoint to make it from.
    """
    path, weights = place.path / "training.json", place.path / "weights.safetensors"
    if not path.exists():
        return None
    try:
        about = read_json(path)
        fields = {name: about[name] for name in _FIELDS}
        found, whole = about["identity"], digest_file(weights) == about["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        found, whole = place.identity, False
    place.agree(found, path)
    if not whole and not list(place.newest_first("step")):
        raise CalcarineError(
            f"The weights in {place.path} are damaged and no checkpoint is left; "
            "delete the folder to begin anew."
        )
    if not whole:
        return None
    if fields["steps"] > config.steps:
        raise CalcarineError(
            f"{path} tells of {fields['steps']} steps, more than the {config.steps} asked for; "
            f"choose another folder, or delete {place.path} to begin anew."
        )
    # With a constant learning rate the same training may go on for more steps.
    if fields["steps"] < config.steps and fields["ended_by"] == "steps":
        return None
    return TrainingResult(state=load_file(weights), folder=place.path, **fields)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
