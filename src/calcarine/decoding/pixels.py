"""The opponent: ridge regression straight from voxels to pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from calcarine.brain import BrainDataset, Split
from calcarine.decoding.latent_regression import fit_ridge
from calcarine.decoding.reconstruct import to_uint8
from calcarine.stimuli import resize_images


class PixelRegression:
    """Linear decoder of pixels, without any generative model.

    Parameters
    ----------
    roi : str
    alphas, n_folds, intercept, grouped
        As in :class:`calcarine.decoding.LatentRegression`.
    max_side : int
        Larger pictures are made smaller for the fit, and what is predicted larger again: pixels
        that ridge can tell apart are few, and the pictures of NSD have 541,875 values each.
    """

    def __init__(
        self,
        roi: str = "all",
        alphas: NDArray[Any] | None = None,
        n_folds: int = 5,
        intercept: bool = True,
        grouped: bool = True,
        max_side: int = 128,
    ) -> None:
        self.roi = roi
        self.alphas = alphas
        self.n_folds = n_folds
        self.intercept = intercept
        self.grouped = grouped
        self.max_side = max_side

    def fit(self, dataset: BrainDataset, split: Split) -> PixelRegression:
        """Fit on the training trials of ``split``."""
        responses = dataset.train(split, self.roi)
        unique = sorted(set(responses.stimulus_ids))
        self.size_ = height, width = dataset.stimuli.images(unique[:1]).shape[1:3]
        shrink = min(1.0, self.max_side / max(height, width))
        self.fitted_size_ = max(1, round(height * shrink)), max(1, round(width * shrink))
        small = [
            resize_images(dataset.stimuli.images(unique[start : start + 256]), self.fitted_size_)
            for start in range(0, len(unique), 256)
        ]
        images = np.concatenate(small).astype(np.float32) / 255
        flat = images.reshape(len(images), -1)
        # Grey pictures have three equal channels: one of them is fitted.
        self.grey_ = bool(np.ptp(images, axis=-1).max() == 0)
        if self.grey_:
            flat = images[..., 0].reshape(len(images), -1)
        self.ridge_, self.summary_ = fit_ridge(
            responses, unique, flat, self.alphas, self.n_folds, self.intercept, self.grouped
        )
        return self

    def predict(self, dataset: BrainDataset, split: Split) -> NDArray[np.float32]:
        """Pictures ``(n_test, height, width, 3)`` in [0, 1]."""
        flat = self.ridge_.predict(dataset.test(split, self.roi).data)
        if self.grey_:
            flat = np.repeat(flat[..., None], 3, axis=-1)
        found = flat.reshape(len(flat), *self.fitted_size_, 3).clip(0, 1).astype(np.float32)
        if self.fitted_size_ == self.size_:
            return found
        larger = resize_images(to_uint8(found), self.size_)
        return np.asarray(larger, np.float32) / np.float32(255)
