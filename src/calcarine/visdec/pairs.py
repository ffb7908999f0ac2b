"""Trials of training stimuli, ready for networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from calcarine.brain import Responses
from calcarine.errors import CalcarineError, LeakageError
from calcarine.visdec.patches import PatchedVectors, patch_vectors

__all__ = ["StimulusVectors", "Trials"]

Trials = Literal["one", "mean", "random"]


class StimulusVectors:
    """Voxel vectors of stimuli that were shown once or more.

    Parameters
    ----------
    responses
        Single trials of training stimuli.
    ids
        Which stimuli, in which order.
    patch, n_patches
        See :func:`calcarine.visdec.patches.patch_vectors`.
    trials : {"one", "mean", "random"}
        What a stimulus is told by: one of its trials, drawn anew each time; the mean of all of
        them; or the mean of a random part of them.

    Raises
    ------
    LeakageError
        If the responses are not training responses.
    """

    def __init__(
        self,
        responses: Responses,
        ids: Sequence[str],
        patch: int,
        n_patches: int | None = None,
        trials: Trials = "random",
    ) -> None:
        if responses.role != "train":
            raise LeakageError(
                f"A network was given {responses.role} responses; only training responses may be "
                "trained on."
            )
        self.ids = tuple(ids)
        self.trials = trials
        rows: dict[str, list[int]] = {name: [] for name in self.ids}
        for row, name in enumerate(responses.stimulus_ids):
            if name in rows:
                rows[name].append(row)
        bare = [name for name, found in rows.items() if not found]
        if bare:
            raise CalcarineError(
                f"Stimulus {bare[0]} has no training response ({len(bare)} such); leave it out."
            )
        longest = max(len(found) for found in rows.values())
        table = np.full((len(self.ids), longest), -1)
        for line, found in zip(table, rows.values(), strict=True):
            line[: len(found)] = found
        self._rows = torch.from_numpy(table)
        self._vectors = patch_vectors(responses.data, patch, n_patches)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def n_patches(self) -> int:
        """Patches of a vector."""
        return self._vectors.n_patches

    def draw(self, stimuli: torch.Tensor, generator: torch.Generator) -> PatchedVectors:
        """One vector for each of the stimuli (int64 rows of ``ids``)."""
        rows = self._rows[stimuli]
        shown = rows >= 0
        if self.trials == "one":
            order = torch.rand(rows.shape, generator=generator).masked_fill(~shown, -1.0)
            chosen = torch.nn.functional.one_hot(order.argmax(1), rows.shape[1]).bool()
        elif self.trials == "random":
            order = torch.rand(rows.shape, generator=generator).masked_fill(~shown, -1.0)
            chosen = (order > 0.5) | (order == order.amax(1, keepdim=True))
        else:
            chosen = shown
        return self._mean(rows, chosen)

    def mean(self, stimuli: torch.Tensor) -> PatchedVectors:
        """Means over all trials of the stimuli."""
        rows = self._rows[stimuli]
        return self._mean(rows, rows >= 0)

    def _mean(self, rows: torch.Tensor, chosen: torch.Tensor) -> PatchedVectors:
        weights = chosen / chosen.sum(1, keepdim=True)
        values = self._vectors.values[rows.clamp(min=0)]
        mean = torch.einsum("br,brpv->bpv", weights, values)
        return PatchedVectors(mean, self._vectors.valid[rows[:, 0]])
