"""The opponent: ridge regression straight from voxels to pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from calcarine.datasets import BrainDataset, Split
from calcarine.decoding.latent_regression import fit_ridge


class PixelRegression:
    """Linear decoder of pixels, without any generative model.

    Parameters
    ----------
    roi : str
    alphas, n_folds, intercept, grouped
        As in :class:`calcarine.decoding.LatentRegression`.
    """

    def __init__(
        self,
        roi: str = "all",
        alphas: NDArray[Any] | None = None,
        n_folds: int = 5,
        intercept: bool = True,
        grouped: bool = True,
    ) -> None:
        self.roi = roi
        self.alphas = alphas
        self.n_folds = n_folds
        self.intercept = intercept
        self.grouped = grouped

    def fit(self, dataset: BrainDataset, split: Split) -> PixelRegression:
        """Fit on the training trials of ``split``."""
        responses = dataset.train(split, self.roi)
        unique = sorted(set(responses.stimulus_ids))
        images = dataset.stimuli.images(unique).astype(np.float32) / 255
        flat = images.reshape(len(images), -1)
        # Grey pictures have three equal channels: one of them is fitted.
        self.grey_ = bool(np.ptp(images, axis=-1).max() == 0)
        if self.grey_:
            flat = images[..., 0].reshape(len(images), -1)
        self.size_ = images.shape[1:3]
        self.ridge_, self.summary_ = fit_ridge(
            responses, unique, flat, self.alphas, self.n_folds, self.intercept, self.grouped
        )
        return self

    def predict(self, dataset: BrainDataset, split: Split) -> NDArray[np.float32]:
        """Pictures ``(n_test, height, width, 3)`` in [0, 1]."""
        flat = self.ridge_.predict(dataset.test(split, self.roi).data)
        if self.grey_:
            flat = np.repeat(flat[..., None], 3, axis=-1)
        return flat.reshape(len(flat), *self.size_, 3).clip(0, 1).astype(np.float32)
