"""Ridge regression from responses to any features of stimuli, such as image embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from numpy.typing import NDArray

from calcarine.brain import BrainDataset, Split
from calcarine.decoding._region_decoders import RegionDecoders
from calcarine.errors import SettingError, ShapeError

__all__ = ["EmbeddingRegression"]

Array = NDArray[Any]


class EmbeddingRegression(RegionDecoders):
    """Linear decoders of features of stimuli, each from one region of interest.

    The targets can be image embeddings, latents or whatever you have one vector or array of for
    each stimulus. Targets of one region are fitted together: its responses are decomposed once,
    however many targets there are. Each value of each target has a penalty of its own.

    Parameters
    ----------
    rois : str or mapping of str to str
        Region that predicts each target, by its name; or one region for all.
    alphas : array, optional
        Grid of ridge penalties; the default of :class:`calcarine.linear.RidgeCV` otherwise.
    n_folds : int
        Number of folds of the inner cross-validation, grouped by stimulus.
    intercept, grouped : bool
        See :func:`calcarine.decoding.ridge_fits.fit_ridge`.
    device : str
        Where ridge regressions are fitted: "cpu", or "cuda" or "cuda:N" for a CUDA GPU.
    rescale : str or mapping of str to str
        How predictions are brought back to scale, of all targets or of each by its name:

        - "none": they stay as ridge regression predicts them.
        - "norm": one factor, by which their root mean square norm about the training mean becomes
          that of the training targets.
        - "variance": a factor for each value, by which its standard deviation becomes that of the
          training targets (Ozcelik & VanRullen 2023 do this with the standard deviation of the
          test predictions themselves).
        - "components": the same along the principal components of the training targets.
        - "posterior": along each of these components the regression of the target on the
          prediction, which is the posterior mean of a linear Gaussian model (as in Breiman &
          Friedman 1997, with principal instead of canonical coordinates).

    Attributes
    ----------
    rois_ : dict of str to str
        Region of each fitted target.
    ridge_ : dict of str to RidgeCV
        Regression of each fitted target.
    shape_ : dict of str to tuple of int
        Shape of each target for one stimulus.
    summary_ : dict of str to TargetSummary
        Summary of each fit.
    rescaling_ : dict of str to Rescaling
        What brings predictions back to scale, of the targets for which that was chosen.

    See Also
    --------
    LatentRegression : Decodes z and c of a diffusion model, for pictures.
    retrieve : Finds the stimulus whose embedding is most similar to a decoded one.

    Notes
    -----
    Ridge regression shrinks predictions towards the mean of the training stimuli, the more so the
    less the responses tell. `retrieve` compares directions from that mean, which this does not
    change, and neither does "norm".

    All numbers of a rescaling are learned from predictions of training stimuli by fits without
    them, from the mean of the responses to each. They fit test stimuli that were shown about as
    often as the training stimuli: a mean over more repeats is less noisy.

    References
    ----------
    Breiman & Friedman (1997). Predicting multivariate responses in multiple linear regression.
    Journal of the Royal Statistical Society B 59(1).

    Ozcelik & VanRullen (2023). Natural scene reconstruction from fMRI signals using generative
    latent diffusion. Scientific Reports 13.

    Examples
    --------
    >>> import calcarine as ca
    >>> brain = ca.load_dataset("simulated", n_train=60, n_test=10)
    >>> images = brain.stimuli.images() / 255
    >>> targets = {"colour": images.mean((1, 2)), "layout": images.mean(3)[:, ::16, ::16]}
    >>> decoder = ca.EmbeddingRegression({"colour": "early", "layout": "all"})
    >>> decoded = decoder.fit(brain, None, targets).predict(brain)
    >>> decoded["colour"].shape, decoded["layout"].shape
    ((10, 3), (10, 4, 4))
    """

    def __init__(
        self,
        rois: str | Mapping[str, str] = "all",
        alphas: Array | None = None,
        n_folds: int = 5,
        intercept: bool = True,
        grouped: bool = True,
        device: str = "cpu",
        rescale: str | Mapping[str, str] = "none",
    ) -> None:
        self.rois = rois
        self.alphas = alphas
        self.n_folds = n_folds
        self.intercept = intercept
        self.grouped = grouped
        self.device = device
        self.rescale = rescale

    def fit(
        self,
        dataset: BrainDataset,
        split: str | Split | None,
        targets: Mapping[str, Array],
        *,
        out: str | Path | None = None,
    ) -> Self:
        """Fit the decoders on the training trials of a split.

        Parameters
        ----------
        dataset : BrainDataset
            Responses and stimuli of one subject.
        split : str, Split or None
            A split of the data set, or its name; None takes the first.
        targets : mapping of str to array of shape (n_stimuli, ...)
            One row for each of ``dataset.stimuli.ids``, in memory or stored. Some values of all
            stimuli are read at a time.
        out : str or Path, optional
            Folder for the weights, one folder for each region, written block by block. They are
            then memory maps and need not fit in memory, and an interrupted fit resumes. The folder
            must stay where it is as long as the decoder is used; a saved decoder is a copy.

        Returns
        -------
        EmbeddingRegression
            The fitted decoder itself.

        Raises
        ------
        ShapeError
            If a target has another number of rows than the data set has stimuli, or there is no
            target.
        SettingError
            If a target has no region, its name is no plain word, or there is no such rescaling.
        """
        if not targets:
            raise ShapeError("There is no target to decode; give at least one array.")
        rois = dict.fromkeys(targets, self.rois) if isinstance(self.rois, str) else self.rois
        without = [name for name in targets if name not in rois]
        if without:
            raise SettingError(
                f"The target '{without[0]}' has no region; add it to rois, or give one region for "
                "all targets."
            )
        rescale = self.rescale
        if isinstance(rescale, str):
            rescale = dict.fromkeys(targets, rescale)
        unknown = [name for name in rescale if name not in targets]
        if unknown:
            raise SettingError(
                f"rescale names '{unknown[0]}', which is no target; the targets are "
                f"{', '.join(targets)}."
            )
        own = {name: rois[name] for name in targets}
        return self._fit_targets(dataset, split, targets, own, rescale, out)

    @classmethod
    def _with_rois(cls, rois: dict[str, str]) -> Self:
        return cls(rois)
