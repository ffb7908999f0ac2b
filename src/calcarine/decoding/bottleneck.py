"""Decoding through fewer dimensions of the brain than there are."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from calcarine.brain import BrainDataset, Split
from calcarine.brain.responses import group_means
from calcarine.decoding.latent_regression import LatentRegression
from calcarine.errors import CalcarineError
from calcarine.features.components import principal_components


class Bottleneck:
    """Predictions of one target that k numbers from the brain suffice for.

    Of a fitted ridge with coefficients B the best linear reduction of rank k, by what it predicts
    for the training stimuli, keeps the first k principal directions V of these predictions:
    ``y = mean + (x B - mean) V V'``. So the brain gives no more than the k numbers ``x B V``.
    How soon scores stop rising with k tells how much of the brain a generator needs (BrainBits,
    Mayo et al. 2024).

    Parameters
    ----------
    regression : LatentRegression
        Fitted on ``split``.
    dataset : BrainDataset
    split : Split
    target : {"z", "c"}
    most : int, optional
        Directions to keep, for no rank above it will be asked.

    Attributes
    ----------
    mean_ : array of shape (n_targets,)
        Mean prediction over training stimuli: what rank 0 predicts.
    n_directions_ : int
        Directions that carry any variance; fewer than there are training stimuli.
    directions_ : array of shape (min(most, n_directions), n_targets)
        Orthonormal, by the variance they carry, largest first.
    shares_ : array of shape (n_directions,)
        Share of that variance.
    """

    def __init__(
        self,
        regression: LatentRegression,
        dataset: BrainDataset,
        split: Split,
        target: str,
        most: int | None = None,
    ) -> None:
        responses = dataset.train(split, regression.roi_z if target == "z" else regression.roi_c)
        shown, rows = np.unique(responses.stimulus_ids, return_inverse=True)
        made = regression.predict_target(target, group_means(responses.data, rows, len(shown)))
        flat = made.reshape(len(made), -1)
        scores = principal_components(flat, np.ones(len(flat), bool), len(flat)).astype(np.float64)
        variances = np.square(scores).sum(0)
        self.mean_ = flat.mean(0, dtype=np.float64)
        self.n_directions_ = len(variances)
        self.shares_: NDArray[np.float64] = variances / variances.sum()
        flat -= self.mean_.astype(flat.dtype)
        first = (scores / variances)[:, :most].astype(flat.dtype)
        self.directions_: NDArray[np.float32] = first.T @ flat

    def predict(self, predicted: NDArray[Any], rank: int) -> NDArray[np.float32]:
        """Reduce predictions of the whole decoder to a rank.

        Parameters
        ----------
        predicted : array of shape (n, channels, h, w) of z, (n, tokens, width) of c
            As the regression gives them.
        rank : int
            0 gives the same for every brain; more than there are directions changes nothing more.

        Returns
        -------
        float32 array shaped as ``predicted``

        Raises
        ------
        CalcarineError
            If the rank is negative.
        """
        if rank < 0:
            raise CalcarineError(f"A bottleneck of rank {rank} is none; use 0 or more.")
        chosen = self.directions_[:rank]
        centred = predicted.reshape(len(predicted), -1) - self.mean_
        reduced = self.mean_ + (centred @ chosen.T) @ chosen
        return reduced.astype(np.float32).reshape(predicted.shape)
