"""One sentence, with the settings that help, where memory runs out in a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from calcarine.errors import CalcarineError, out_of_memory
from calcarine.experiment.config import Experiment

_TRAININGS = ("pretrain", "guide", "finetune")
_WITH_PICTURES = ("features", "encode", "fit", "reconstruct")


@contextmanager
def enough_memory(config: Experiment, stage: str) -> Iterator[None]:
    """Turn a shortage of memory into one sentence.

    Parameters
    ----------
    config : Experiment
        Whose settings the sentence names with their values.
    stage : str
        What is done.

    Raises
    ------
    CalcarineError
        If the memory of the GPU or of the machine does not suffice.
    """
    try:
        yield
    except CalcarineError:
        raise
    except Exception as error:
        whose = out_of_memory(error)
        if whose is None:
            raise
        raise CalcarineError(
            f"The memory of this {whose} is too small for the stage '{stage}': "
            f"{_advice(config, stage, whose)}; the same command then continues."
        ) from error


def _advice(config: Experiment, stage: str, whose: Literal["GPU", "machine"]) -> str:
    ways = []
    if stage in _TRAININGS:
        training = getattr(config.visdec, stage).training
        name = f"visdec.{stage}.training"
        ways.append(f"lower {name}.batch_size (now {training.batch_size})")
        if whose == "GPU" and training.precision == "32":
            ways.append(f"set {name}.precision to 16 or bf16")
    else:
        generation = config.generation
        if stage in _WITH_PICTURES and generation.batch_size > 1:
            ways.append(f"lower generation.batch_size (now {generation.batch_size})")
        if whose == "GPU" and generation.precision == "float32":
            ways.append("set generation.precision to float16")
    ways.append(
        "end other programs on the GPU, or hide it by CUDA_VISIBLE_DEVICES="
        if whose == "GPU"
        else "use one with more"
    )
    return ", ".join(ways[:-1]) + (", or " if len(ways) > 1 else "") + ways[-1]
