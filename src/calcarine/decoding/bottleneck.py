"""Decoding through a bottleneck: only a few dimensions of the predictions are kept."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from calcarine.brain import BrainDataset, Split
from calcarine.brain.responses import group_means
from calcarine.decoding.latent_regression import LatentRegression
from calcarine.errors import SettingError
from calcarine.features.components import principal_components

__all__ = ["Bottleneck"]


class Bottleneck:
    """Reduction of one target's predictions to a few dimensions of the brain.

    For a fitted ridge regression with coefficients B, the best linear reduction of rank k keeps
    the first k principal directions V of its predictions for the training stimuli:
    ``y = mean + (x B - mean) V V'``. The generator then receives no more from the brain than the
    k numbers ``x B V``. The rank at which scores stop rising shows how much of the brain a
    generator needs (BrainBits, Mayo et al. 2024).

    Parameters
    ----------
    regression : LatentRegression
        Fitted on ``split``.
    dataset : BrainDataset
    split : Split
    target : {"z", "c"}
    most : int, optional
        Number of directions to keep, the largest rank that you use; all by default.

    Attributes
    ----------
    mean_ : array of shape (n_targets,)
        Mean prediction over training stimuli, which is the prediction of rank 0.
    n_directions_ : int
        Number of directions with variance; fewer than there are training stimuli.
    directions_ : array of shape (min(most, n_directions), n_targets)
        Orthonormal directions, sorted by their variance, largest first.
    shares_ : array of shape (n_directions,)
        Share of the variance of each direction.

    Examples
    --------
    >>> import numpy as np
    >>> import calcarine as ca
    >>> from calcarine.decoding import Bottleneck
    >>> seen = ca.StimulusSet.from_scenes(seed=0, indices=range(40))
    >>> z = np.random.default_rng(0).standard_normal((40, 6))
    >>> betas = z @ np.random.default_rng(1).standard_normal((6, 30))
    >>> brain = ca.BrainDataset.from_arrays(betas, seen.ids, seen, test=8)
    >>> decoder = ca.LatentRegression().fit(brain, None, z)
    >>> bottleneck = Bottleneck(decoder, brain, brain.split(), "z")
    >>> reduced = bottleneck.predict(decoder.predict(brain)["z"], rank=2)
    >>> reduced.shape, int(np.linalg.matrix_rank(reduced - bottleneck.mean_, tol=1e-3))
    ((8, 6), 2)
    """

    def __init__(
        self,
        regression: LatentRegression,
        dataset: BrainDataset,
        split: Split,
        target: str,
        most: int | None = None,
    ) -> None:
        responses = dataset.train(split, regression.rois_[target])
        stimuli, rows = np.unique(responses.stimulus_ids, return_inverse=True)
        means = group_means(responses.data, rows, len(stimuli))
        predicted = regression.predict_target(target, means)
        flat = predicted.reshape(len(predicted), -1)
        scores = principal_components(flat, np.ones(len(flat), bool), len(flat)).astype(np.float64)
        variances = np.square(scores).sum(0)
        self.mean_ = flat.mean(0, dtype=np.float64)
        self.n_directions_ = len(variances)
        self.shares_: NDArray[np.float64] = variances / variances.sum()
        flat -= self.mean_.astype(flat.dtype)
        first = (scores / variances)[:, :most].astype(flat.dtype)
        self.directions_: NDArray[np.float32] = first.T @ flat

    def predict(self, predicted: NDArray[Any], rank: int) -> NDArray[np.float32]:
        """Reduce predictions of the decoder to a rank.

        Parameters
        ----------
        predicted : array of shape (n, channels, h, w) for z, (n, tokens, width) for c
            Predictions of the regression.
        rank : int
            0 gives the mean for every response; a rank above ``n_directions_`` changes nothing.

        Returns
        -------
        float32 array shaped as ``predicted``

        Raises
        ------
        SettingError
            If the rank is negative.
        """
        if rank < 0:
            raise SettingError(f"The rank of a bottleneck is {rank}; choose 0 or more.")
        chosen = self.directions_[:rank]
        centred = predicted.reshape(len(predicted), -1) - self.mean_
        reduced = self.mean_ + (centred @ chosen.T) @ chosen
        return np.asarray(reduced.astype(np.float32).reshape(predicted.shape))
