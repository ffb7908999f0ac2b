"""Ridge regression straight from voxels to pixels: the baseline without a generative model."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from calcarine.brain import BrainDataset, Split
from calcarine.decoding._fitted import check_fitted
from calcarine.decoding.reconstruct import to_uint8
from calcarine.decoding.ridge_fits import fit_ridge
from calcarine.stimuli import resize_images

__all__ = ["PixelRegression"]


class PixelRegression(BaseEstimator):  # type: ignore[misc]
    """Linear decoder of pixels, without a generative model.

    Parameters
    ----------
    roi : str
        Region whose voxels predict the pixels.
    alphas, n_folds, intercept, grouped, device
        See :class:`calcarine.decoding.LatentRegression`.
    max_side : int
        Larger pictures are fitted at this size in pixels, and predictions are enlarged again.
        Ridge regression can only predict coarse structure, and a picture of NSD has 541,875
        values.

    Attributes
    ----------
    ridge_ : RidgeCV
        The regression.
    summary_ : TargetSummary
        Summary of the fit.
    size_, fitted_size_ : tuple of int
        Height and width of the stimuli, and of the pictures that were fitted.
    grey_ : bool
        Whether the three channels of the stimuli are equal, so that only one is fitted.

    Examples
    --------
    >>> import calcarine as ca
    >>> brain = ca.load_dataset("simulated", n_train=60, n_test=10)
    >>> ca.PixelRegression().fit(brain).predict(brain).shape
    (10, 64, 64, 3)
    """

    def __init__(
        self,
        roi: str = "all",
        alphas: NDArray[Any] | None = None,
        n_folds: int = 5,
        intercept: bool = True,
        grouped: bool = True,
        max_side: int = 128,
        device: str = "cpu",
    ) -> None:
        self.roi = roi
        self.alphas = alphas
        self.n_folds = n_folds
        self.intercept = intercept
        self.grouped = grouped
        self.max_side = max_side
        self.device = device

    def fit(self, dataset: BrainDataset, split: str | Split | None = None) -> PixelRegression:
        """Fit on the training trials of a split.

        Parameters
        ----------
        dataset : BrainDataset
        split : str, Split or None
            A split of the data set, or its name; None takes the first.

        Returns
        -------
        PixelRegression
            The fitted decoder itself.
        """
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
        self.grey_ = bool(np.ptp(images, axis=-1).max() == 0)
        if self.grey_:
            flat = images[..., 0].reshape(len(images), -1)
        self.ridge_, self.summary_ = fit_ridge(
            responses,
            unique,
            flat,
            self.alphas,
            self.n_folds,
            self.intercept,
            self.grouped,
            self.device,
        )
        return self

    def predict(
        self, dataset: BrainDataset, split: str | Split | None = None
    ) -> NDArray[np.float32]:
        """Predict pictures from averaged test responses.

        Parameters
        ----------
        dataset : BrainDataset
        split : str, Split or None
            As in `fit`.

        Returns
        -------
        float32 array of shape (n_test, height, width, 3)
            In [0, 1], in the order of the test set.
        """
        check_fitted(self, "ridge_")
        flat = self.ridge_.predict(dataset.test(split, self.roi).data)
        if self.grey_:
            flat = np.repeat(flat[..., None], 3, axis=-1)
        pictures = flat.reshape(len(flat), *self.fitted_size_, 3).clip(0, 1).astype(np.float32)
        if self.fitted_size_ == self.size_:
            return pictures
        larger = resize_images(to_uint8(pictures), self.size_)
        return np.asarray(larger, np.float32) / np.float32(255)
