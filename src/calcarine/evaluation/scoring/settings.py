"""Settings of a scoring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calcarine.evaluation.results.evaluation import DEFAULT_PROTOCOL

__all__ = ["ScoreSettings"]


@dataclass(frozen=True)
class ScoreSettings:
    """Settings of a scoring.

    Parameters
    ----------
    protocols : sequence of str
        Names from `list_protocols`.
    weights : path, optional
        Folder of network weights, searched before the cache of torch.
    download : bool
        Whether to download missing weights.
    networks : mapping of str to network, optional
        Networks that replace the published ones.
    judge : str, path, Judge or None
        The classifier of the protocol "calcarine": "scenes" for procedural scenes, "digits" for
        handwritten digits, or a folder. With None only pixels are compared; no judge can read
        other pictures than those it was trained on.
    read_classes : sequence of str, optional
        Classes that "category accuracy" can predict; all classes of the judge by default.
    draws : int, optional
        Number of draws for expectations over draws; by default they are computed in closed form.
    n_boot, n_permutations, seed : int
        Number of bootstrap resamples and of shuffles, and the seed of both and of draws.
    batch_size : int
        Number of pictures in a batch of a network; scores do not depend on it. If the memory of a
        GPU is too small, batches are smaller.
    device : str
        Device of the networks; see `calcarine.devices.resolve_device`.
    """

    protocols: Sequence[str] = (DEFAULT_PROTOCOL,)
    weights: str | Path | None = None
    download: bool = False
    networks: Mapping[str, Any] | None = None
    judge: Any = None
    read_classes: Sequence[str] | None = None
    draws: int | None = None
    n_boot: int = 2000
    n_permutations: int = 2000
    seed: int = 0
    batch_size: int = 16
    device: str = "auto"
