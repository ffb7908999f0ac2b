"""What is scored, and how: the test set and the settings of one scoring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calcarine.evaluation.results.evaluation import DEFAULT_PROTOCOL


@dataclass(frozen=True)
class ScoreSettings:
    """How to score.

    Parameters
    ----------
    protocols : sequence of str
    weights : path, optional
        Folder of weights, searched before torch's cache.
    download : bool
        Fetch missing weights.
    networks : mapping of str to network, optional
        Networks to use instead of the published ones.
    judge : str, path, Judge or None
        The package's network for the protocol "calcarine"; without it only pixels are compared.
    read_classes : sequence of str, optional
        Classes of the judge that "category read" may answer; all by default.
    draws : int, optional
        Estimate expectations over draws by so many draws instead of the closed form.
    n_boot, n_permutations, seed : int
        Bootstrap resamples, shuffles, and the seed of both and of draws.
    batch_size : int
    """

    protocols: Sequence[str] = (DEFAULT_PROTOCOL,)
    weights: str | Path | None = None
    download: bool = False
    networks: Mapping[str, Any] | None = None
    judge: Any = "scenes"
    read_classes: Sequence[str] | None = None
    draws: int | None = None
    n_boot: int = 2000
    n_permutations: int = 2000
    seed: int = 0
    batch_size: int = 16
