"""Decoding through fewer dimensions of the brain than there are."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from calcarine.datasets import BrainDataset, Split
from calcarine.decoding.latent_regression import LatentRegression
from calcarine.errors import CalcarineError

_COLUMNS = 4096
# Of the largest variance; sums of single-precision predictions are no better than this.
_LEAST = 1e-12


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
        self.regression, self.target = regression, target
        responses = dataset.train(split, regression.roi_z if target == "z" else regression.roi_c)
        shown, rows = np.unique(responses.stimulus_ids, return_inverse=True)
        sums = np.zeros((len(shown), responses.data.shape[1]))
        np.add.at(sums, rows, responses.data)
        means = sums / np.bincount(rows)[:, None]
        made = regression.predict_target(target, means.astype(responses.data.dtype))
        flat = made.reshape(len(made), -1)
        self.mean_ = flat.mean(0, dtype=np.float64)
        flat -= self.mean_.astype(flat.dtype)
        # Of the small side: of a whole subject and c the other one would not fit into memory.
        gram = np.zeros((len(flat), len(flat)))
        for start in range(0, flat.shape[1], _COLUMNS):
            part = flat[:, start : start + _COLUMNS].astype(np.float64)
            gram += part @ part.T
        variances, vectors = np.linalg.eigh(gram)
        kept = variances[::-1] > max(variances[-1], 0.0) * _LEAST
        variances, vectors = variances[::-1][kept], vectors[:, ::-1][:, kept]
        self.n_directions_ = len(variances)
        self.shares_: NDArray[np.float64] = variances / variances.sum()
        first = slice(0, most)
        self.directions_: NDArray[np.float64] = (
            vectors[:, first].T @ flat / np.sqrt(variances[first])[:, None]
        )

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
