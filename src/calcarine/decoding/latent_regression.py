"""Ridge regression from responses to z and c (Takagi & Nishimoto 2023, section 3.3)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

from numpy.typing import NDArray

from calcarine.brain import BrainDataset, Split
from calcarine.decoding._region_decoders import RegionDecoders

__all__ = ["LatentRegression"]

Array = NDArray[Any]


class LatentRegression(RegionDecoders):
    """Linear decoders of z and c, each from one region of interest.

    Follows scikit-learn's conventions: ``get_params``, ``set_params`` and
    :func:`sklearn.base.clone` work, and ``fit`` returns the decoder itself.

    Parameters
    ----------
    roi_z, roi_c : str, optional
        Regions that predict z and c. By default "early" and "ventral", as in the paper, where the
        data set has them; otherwise "all" for z, and the region of z for c.
    alphas : array, optional
        Grid of ridge penalties; the default of :class:`calcarine.linear.RidgeCV` otherwise.
    n_folds : int
        Number of folds of the inner cross-validation, grouped by stimulus.
    intercept, grouped, device
        See :class:`EmbeddingRegression`.

    Attributes
    ----------
    rois_ : dict of str to str
        Region of each fitted target, "z" and "c".
    ridge_ : dict of str to RidgeCV
        Regression of each fitted target.
    shape_ : dict of str to tuple of int
        Shape of each target for one stimulus.
    summary_ : dict of str to TargetSummary
        Summary of each fit.

    See Also
    --------
    EmbeddingRegression : Decodes any features of stimuli.
    PixelRegression : Decodes pixels without a generative model.
    Reconstructor : Makes pictures from decoded z and c.

    Notes
    -----
    Source: Takagi & Nishimoto (2023), section 3.3.

    Examples
    --------
    >>> import calcarine as ca
    >>> brain = ca.load_dataset("simulated", n_train=60, n_test=10)
    >>> model = ca.LatentDiffusion.from_pretrained("mini")
    >>> z = model.encode(brain.stimuli.images())
    >>> decoder = ca.LatentRegression().fit(brain, None, z)
    >>> decoder.predict(brain)["z"].shape
    (10, 4, 16, 16)
    """

    _file = "latents.json"

    def __init__(
        self,
        roi_z: str | None = None,
        roi_c: str | None = None,
        alphas: Array | None = None,
        n_folds: int = 5,
        intercept: bool = True,
        grouped: bool = True,
        device: str = "cpu",
    ) -> None:
        self.roi_z = roi_z
        self.roi_c = roi_c
        self.alphas = alphas
        self.n_folds = n_folds
        self.intercept = intercept
        self.grouped = grouped
        self.device = device

    def fit(
        self,
        dataset: BrainDataset,
        split: str | Split | None,
        z: Array,
        c: Array | None = None,
    ) -> Self:
        """Fit the decoders on the training trials of a split.

        Parameters
        ----------
        dataset : BrainDataset
            Responses and stimuli of one subject.
        split : str, Split or None
            A split of the data set, or its name; None takes the first.
        z : array of shape (n_stimuli, channels, h, w)
            One row for each of ``dataset.stimuli.ids``.
        c : array of shape (n_stimuli, tokens, width), optional
            Likewise. Without it, only z is fitted.

        Returns
        -------
        LatentRegression
            The fitted decoder itself.

        Raises
        ------
        ShapeError
            If z or c has another number of rows than the data set has stimuli.
        """
        targets = {"z": z} if c is None else {"z": z, "c": c}
        return self._fit_targets(dataset, split, targets, self._choose_rois(dataset, targets))

    def _choose_rois(self, dataset: BrainDataset, targets: Iterable[str]) -> dict[str, str]:
        known = dataset.rois
        z = self.roi_z or ("early" if "early" in known else "all")
        c = self.roi_c or ("ventral" if "ventral" in known else z)
        return {name: z if name == "z" else c for name in targets}

    @classmethod
    def _with_rois(cls, rois: dict[str, str]) -> Self:
        return cls(rois["z"], rois.get("c"))
