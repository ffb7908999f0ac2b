"""A training on its way to the processes that train along, as a file in its folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from calcarine.errors import CalcarineError

__all__ = ["handed_over", "join_handed"]


@contextmanager
def handed_over(
    folder: Path, join: Callable[..., None], arguments: tuple[Any, ...]
) -> Iterator[Path]:
    """Yield a file from which another process joins a training, and remove it at the end.

    Parameters
    ----------
    folder : Path
        Folder of the training.
    join : callable
        Function of a module, which the other process calls.
    arguments : tuple
        Its arguments; they must pickle.

    Raises
    ------
    CalcarineError
        If they do not.
    """
    import torch

    file = folder / "task.part"
    try:
        try:
            torch.save((join, arguments), file, pickle_protocol=5)
        except OSError:
            raise
        except Exception as error:  # pickle raises errors of any kind
            raise CalcarineError(
                f"This task cannot be handed to the processes of further devices ({error}); set "
                "strategy to ddp_fork, or devices to 1."
            ) from error
        yield file
    finally:
        file.unlink(missing_ok=True)


def join_handed(file: Path) -> None:
    """Join the training in a file of `handed_over`.

    Raises
    ------
    CalcarineError
        If another user wrote the file. A task is code and data, so it is pickled, and reading it
        can run anything that its writer wants.
    """
    import torch

    if hasattr(os, "getuid") and file.stat().st_uid != os.getuid():
        raise CalcarineError(f"{file} belongs to another user, so it is not read.")
    # Code and data of this very command; no weights from elsewhere.
    join, arguments = torch.load(file, weights_only=False, map_location="cpu", mmap=True)
    join(*arguments)
