"""Turning a shortage of memory into one sentence that names the settings to change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from calcarine.errors import CalcarineError, out_of_memory
from calcarine.experiment.config import Experiment
from calcarine.experiment.stage import Stage

__all__ = ["explain_memory"]


@contextmanager
def explain_memory(config: Experiment, stage: Stage) -> Iterator[None]:
    """Turn a shortage of memory into one sentence.

    Parameters
    ----------
    config : Experiment
        Settings that the sentence names with their values.
    stage : Stage
        The stage that runs.

    Raises
    ------
    CalcarineError
        If the memory of the GPU or of the machine is too small.
    """
    try:
        yield
    except CalcarineError:
        raise
    except Exception as error:
        device = out_of_memory(error)
        if device is None:
            raise
        raise CalcarineError(
            f"The memory of this {device} is too small for the stage '{stage.name}': "
            f"{_advice(config, stage, device)}; the same command then resumes."
        ) from error


def _advice(config: Experiment, stage: Stage, device: Literal["GPU", "machine"]) -> str:
    ways = []
    section: Any = config
    for part in stage.memory.split("."):
        section = getattr(section, part)
    # Batches of this section were halved down to one row; see BatchSizes.
    halved = device == "GPU" and stage.memory == "generation"
    if stage.batches and section.batch_size > 1 and not halved:
        ways.append(f"lower {stage.memory}.batch_size (now {section.batch_size})")
    if device == "GPU" and not halved and section.precision == "32":
        ways.append(f"set {stage.memory}.precision to 16 or bf16")
    may_be_half = config.compute.precision == "float32" and not config.visdec.enabled
    if halved and stage.batches and may_be_half:
        ways.append("set compute.precision to auto")
    ways.append(
        "end other programs on the GPU, or set compute.device to cpu"
        if device == "GPU"
        else "use a machine with more"
    )
    return ", ".join(ways[:-1]) + (", or " if len(ways) > 1 else "") + ways[-1]
