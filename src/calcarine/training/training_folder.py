"""Folder of a training: its checkpoints, and the one to resume from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from calcarine.errors import CalcarineError
from calcarine.training.tensor_trees import load_tree
from calcarine.training.training_config import TrainingConfig

__all__ = ["TrainingFolder", "make_identity", "stored_state"]


class TrainingFolder:
    """Files of a training, and the checkpoints that it can resume from.

    Parameters
    ----------
    path : Path
        Created if it does not exist.
    identity : dict
        Everything that a checkpoint must agree with; plain JSON.
    say : callable
        Receives messages.
    """

    def __init__(self, path: Path, identity: dict[str, Any], say: Callable[[str], None]) -> None:
        self.path, self.identity, self._say = path, identity, say
        self.checkpoints = path / "checkpoints"
        self.checkpoints.mkdir(parents=True, exist_ok=True)

    def without_messages(self) -> TrainingFolder:
        """Return the same folder for another process, which says nothing."""
        return TrainingFolder(self.path, self.identity, _silent)

    def clean(self) -> None:
        """Remove the files of interrupted writes."""
        for stray in [*self.path.glob("*.part"), *self.checkpoints.glob("*.part")]:
            stray.unlink(missing_ok=True)
        for tensors in self.checkpoints.glob("*.safetensors"):
            if not tensors.with_suffix(".json").exists():
                tensors.unlink(missing_ok=True)

    def place(self, kind: str, step: int) -> Path:
        """Return the path of a checkpoint; kind is "step" or "best"."""
        return self.checkpoints / f"{kind}-{step:09d}.json"

    def prune(self, kind: str, keep: int) -> None:
        """Remove all but the newest checkpoints of a kind."""
        for path in list(self.newest_first(kind))[keep:]:
            _remove(path)

    def newest(self, kind: str) -> tuple[Path, dict[str, Any]] | None:
        """Return path and content of the newest complete checkpoint; None if there is none.

        Raises
        ------
        CalcarineError
            If all are damaged, or the newest complete one belongs to another training.
        """
        damaged = None
        for path in self.newest_first(kind):
            try:
                tree = load_tree(path)
            except CalcarineError as error:
                damaged = str(error).rstrip(".")
                self._say(f"{damaged}; the checkpoint before it is used.")
                continue
            self.check_identity(tree["calcarine"]["identity"], path)
            return path, tree
        if damaged is not None:
            raise CalcarineError(
                f"{damaged}, and no complete checkpoint is left; delete {self.path} to start again."
            )
        return None

    def best(self, known: int | None) -> dict[str, Any] | None:
        """Return the best weights so far: ``best_step``, ``best_loss`` and ``state``.

        Parameters
        ----------
        known : int or None
            Best step according to the newest checkpoint.
        """
        newest = self.newest("best")
        if newest is None and known is None:
            return None
        if newest is None:
            raise CalcarineError(
                f"The best weights so far (of step {known}) are missing in {self.checkpoints}; "
                f"delete {self.path} to start again."
            )
        about = newest[1]["calcarine"]
        return {**about, "state": newest[1]["state_dict"]}

    def check_identity(self, identity: dict[str, Any], path: Path) -> None:
        """Raise if a file belongs to another training."""
        there, here = dict(_flat(identity)), dict(_flat(self.identity))
        differing = [
            f"{name.removeprefix('config.')} ({there.get(name)} there, {here.get(name)} now)"
            for name in sorted(there.keys() | here.keys())
            if there.get(name) != here.get(name)
        ]
        if differing:
            more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
            raise CalcarineError(
                f"{path} belongs to another training, which differs in "
                f"{', '.join(differing[:3])}{more}; choose another folder, or delete {self.path} "
                "to start again."
            )

    def newest_first(self, kind: str) -> Iterator[Path]:
        """Return the paths of the checkpoints of a kind, complete or not."""
        yield from sorted(self.checkpoints.glob(f"{kind}-*.json"), reverse=True)


def _silent(_: str) -> None:
    pass


def _remove(path: Path) -> None:
    # The JSON is removed first: tensors without it are not taken for a checkpoint.
    path.unlink(missing_ok=True)
    path.with_suffix(".safetensors").unlink(missing_ok=True)


def make_identity(
    task: torch.nn.Module, config: TrainingConfig, provenance: dict[str, Any] | None
) -> dict[str, Any]:
    """Return everything that determines the numbers of a training, as plain JSON."""
    try:
        origin = json.loads(json.dumps(provenance or {}, sort_keys=True))
    except (TypeError, ValueError) as error:
        raise CalcarineError(
            f"The provenance of a training must be plain JSON ({error}); "
            "use only texts, numbers, lists and dictionaries."
        ) from error
    shapes = [
        [name, str(tensor.dtype), list(tensor.shape)]
        for name, tensor in sorted(stored_state(task).items())
    ]
    return {
        "config": config.identity,
        "shapes": hashlib.sha256(json.dumps(shapes).encode()).hexdigest()[:12],
        "n_train": int(task.n_train),  # type: ignore[arg-type]
        "n_validation": int(task.n_validation),  # type: ignore[arg-type]
        "provenance": origin,
    }


def stored_state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return parameters and buffers of a module, without frozen parameters."""
    parameters = module.named_parameters(remove_duplicate=False)
    frozen = {name for name, parameter in parameters if not parameter.requires_grad}
    return {name: value for name, value in module.state_dict().items() if name not in frozen}


def _flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
