"""Trials of training stimuli as input of networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from calcarine.brain import Responses
from calcarine.errors import LeakageError, ShapeError
from calcarine.visdec.patches import PatchedVectors, patch_vectors

__all__ = ["StimulusVectors", "Trials"]

Trials = Literal["one", "mean", "random"]


class StimulusVectors:
    """Voxel vectors of stimuli, from one or more trials each.

    Parameters
    ----------
    responses : Responses
        Single trials of training stimuli.
    ids : sequence of str
        Stimuli, in order.
    patch, n_patches
        See :func:`calcarine.visdec.patches.patch_vectors`.
    trials : {"one", "mean", "random"}
        What stands for a stimulus: one of its trials, drawn each time; the mean of all of them; or
        the mean of a random part of them.

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
                f"A network was given {responses.role} responses; train on the training responses "
                "of a split."
            )
        self.ids = tuple(ids)
        self.trials = trials
        rows: dict[str, list[int]] = {name: [] for name in self.ids}
        for row, name in enumerate(responses.stimulus_ids):
            if name in rows:
                rows[name].append(row)
        bare = [name for name, trials_of in rows.items() if not trials_of]
        if bare:
            raise ShapeError(
                f"Stimulus {bare[0]} has no training response ({len(bare)} such); leave it out."
            )
        longest = max(len(trials_of) for trials_of in rows.values())
        table = np.full((len(self.ids), longest), -1)
        for line, trials_of in zip(table, rows.values(), strict=True):
            line[: len(trials_of)] = trials_of
        self._rows = torch.from_numpy(table)
        self._vectors = patch_vectors(responses.data, patch, n_patches)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def n_patches(self) -> int:
        """Number of patches of a vector."""
        return self._vectors.n_patches

    def draw(self, stimuli: torch.Tensor, generator: torch.Generator) -> PatchedVectors:
        """Draw one vector for each of the stimuli (int64 rows of ``ids``)."""
        rows = self._rows[stimuli]
        exists = rows >= 0
        if self.trials == "one":
            order = torch.rand(rows.shape, generator=generator).masked_fill(~exists, -1.0)
            chosen = torch.nn.functional.one_hot(order.argmax(1), rows.shape[1]).bool()
        elif self.trials == "random":
            order = torch.rand(rows.shape, generator=generator).masked_fill(~exists, -1.0)
            chosen = (order > 0.5) | (order == order.amax(1, keepdim=True))
        else:
            chosen = exists
        return self._mean(rows, chosen)

    def mean(self, stimuli: torch.Tensor) -> PatchedVectors:
        """Return the means over all trials of the stimuli."""
        rows = self._rows[stimuli]
        return self._mean(rows, rows >= 0)

    def _mean(self, rows: torch.Tensor, chosen: torch.Tensor) -> PatchedVectors:
        weights = chosen / chosen.sum(1, keepdim=True)
        values = self._vectors.values[rows.clamp(min=0)]
        mean = torch.einsum("br,brpv->bpv", weights, values)
        return PatchedVectors(mean, self._vectors.valid[rows[:, 0]])
