"""Ridge regression from responses to z and c (Takagi & Nishimoto 2023, section 3.3)."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from calcarine.brain import BrainDataset, Responses, Split
from calcarine.decoding._fitted import check_fitted
from calcarine.errors import DamagedFileError, LeakageError, SettingError, ShapeError
from calcarine.files import read_json, write_text
from calcarine.linear import RidgeCV, RidgeEdgeWarning
from calcarine.linear import load as load_ridge
from calcarine.linear import save as save_ridge

__all__ = ["LatentRegression", "TargetSummary", "fit_ridge"]

Array = NDArray[Any]


@dataclass(frozen=True)
class TargetSummary:
    """Summary of the fit of one target, for reports.

    Attributes
    ----------
    median_alpha : float
        Median penalty over target dimensions.
    mean_cv_r2 : float
        Mean over target dimensions of the cross-validated r2 inside the training data.
    positive : float
        Share of dimensions with a cross-validated r2 above zero.
    edge_low, edge_high : float
        Share of predictable dimensions with the smallest, or the largest, penalty of the grid.
    warning : str
        The warning of the ridge regression, or an empty string.
    """

    median_alpha: float
    mean_cv_r2: float
    positive: float
    edge_low: float
    edge_high: float
    warning: str


def fit_ridge(
    responses: Responses,
    ids: Sequence[str],
    targets: Array,
    alphas: Array | None,
    n_folds: int,
    intercept: bool = True,
    grouped: bool = True,
) -> tuple[RidgeCV, TargetSummary]:
    """Fit one ridge regression on training responses.

    Parameters
    ----------
    responses : Responses
        Single trials of training stimuli, ``(n_trials, n_voxels)``.
    ids : sequence of str
        Stimulus of each row of ``targets``; contains every stimulus of the responses.
    targets : array of shape (n_stimuli, n_targets)
        Values to predict.
    alphas : array, optional
        Grid of penalties; the default of :class:`calcarine.linear.RidgeCV` otherwise.
    n_folds : int
        Number of folds of the cross-validation that chooses the penalties.
    intercept : bool
        False fits no intercept, as the code of Takagi & Nishimoto (2023) does: the columns of X
        are still centred, and predictions scatter about zero.
    grouped : bool
        False makes folds of successive trials, which may separate the repeats of a stimulus, as
        the same code does.

    Returns
    -------
    ridge : RidgeCV
    summary : TargetSummary

    Raises
    ------
    LeakageError
        If the responses are not training responses.
    """
    if responses.role != "train":
        raise LeakageError(
            f"fit received {responses.role} responses; fit on the training responses of a split."
        )
    folds = min(n_folds, len(set(responses.stimulus_ids)))
    options: dict[str, Any] = {"n_folds": folds, "fit_intercept": intercept}
    if alphas is not None:
        options["alphas"] = alphas
    row_of = {stimulus: i for i, stimulus in enumerate(ids)}
    rows = [row_of[stimulus] for stimulus in responses.stimulus_ids]
    stimuli, target_rows = np.unique(rows, return_inverse=True)
    ridge = RidgeCV(**options)
    data, mean = responses.data, None
    if not intercept:
        mean = data.mean(0, dtype=np.float64)
        data = data - mean.astype(data.dtype)
    groups = np.asarray(responses.stimulus_ids) if grouped else _successive(len(responses), folds)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RidgeEdgeWarning)
        ridge.fit(data, targets[stimuli], groups=groups, target_rows=target_rows)
    if mean is not None:
        ridge.x_mean_ = mean
        ridge.intercept_ = -(mean @ ridge.coef_.T)
    return ridge, _summarise(ridge, caught)


def _successive(n_trials: int, folds: int) -> NDArray[np.int64]:
    """Return the fold of each trial: blocks of successive trials, longer ones first."""
    blocks = np.array_split(np.arange(n_trials), folds)
    return np.repeat(np.arange(folds), [len(block) for block in blocks])


def _summarise(ridge: RidgeCV, caught: Sequence[warnings.WarningMessage]) -> TargetSummary:
    """Summarise a fit; warnings other than those of the penalties are issued again."""
    edge = [w for w in caught if issubclass(w.category, RidgeEdgeWarning)]
    for warning in caught:
        if warning not in edge:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    score = np.asarray(ridge.best_score_)
    low, high = ridge.edge_fractions_
    return TargetSummary(
        median_alpha=float(np.median(ridge.alpha_)),
        mean_cv_r2=float(score.mean()),
        positive=float((score > 0).mean()),
        edge_low=float(low),
        edge_high=float(high),
        warning="; ".join(str(w.message) for w in edge),
    )


class LatentRegression(BaseEstimator):  # type: ignore[misc]
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
    intercept, grouped : bool
        See :func:`calcarine.decoding.latent_regression.fit_ridge`.

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

    def __init__(
        self,
        roi_z: str | None = None,
        roi_c: str | None = None,
        alphas: Array | None = None,
        n_folds: int = 5,
        intercept: bool = True,
        grouped: bool = True,
    ) -> None:
        self.roi_z = roi_z
        self.roi_c = roi_c
        self.alphas = alphas
        self.n_folds = n_folds
        self.intercept = intercept
        self.grouped = grouped

    def fit(
        self,
        dataset: BrainDataset,
        split: str | Split | None,
        z: Array,
        c: Array | None = None,
    ) -> LatentRegression:
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
        ids = dataset.stimuli.ids
        targets = {"z": z} if c is None else {"z": z, "c": c}
        for name, values in targets.items():
            if len(values) != len(ids):
                raise ShapeError(
                    f"{name} has {len(values)} rows for {len(ids)} stimuli; extract it again for "
                    "all stimuli of the data set."
                )
        self.rois_ = self._choose_rois(dataset, targets)
        self.ridge_: dict[str, RidgeCV] = {}
        self.shape_: dict[str, tuple[int, ...]] = {}
        self.summary_: dict[str, TargetSummary] = {}
        for name, values in targets.items():
            self.shape_[name] = tuple(values.shape[1:])
            self.ridge_[name], self.summary_[name] = fit_ridge(
                dataset.train(split, self.rois_[name]),
                ids,
                values.reshape(len(values), -1),
                self.alphas,
                self.n_folds,
                self.intercept,
                self.grouped,
            )
        return self

    def _choose_rois(self, dataset: BrainDataset, targets: Iterable[str]) -> dict[str, str]:
        known = dataset.rois
        z = self.roi_z or ("early" if "early" in known else "all")
        c = self.roi_c or ("ventral" if "ventral" in known else z)
        return {name: z if name == "z" else c for name in targets}

    def predict(
        self, dataset: BrainDataset, split: str | Split | None = None
    ) -> dict[str, NDArray[np.float32]]:
        """Predict the fitted targets from averaged test responses, in the order of the test set.

        Parameters
        ----------
        dataset : BrainDataset
        split : str, Split or None
            As in `fit`.

        Returns
        -------
        dict of str to float32 array
            "z" of shape (n_test, channels, h, w) and, if fitted, "c" of shape
            (n_test, tokens, width).
        """
        check_fitted(self, "ridge_")
        return {
            name: self.predict_target(name, dataset.test(split, roi).data)
            for name, roi in self.rois_.items()
        }

    def predict_target(self, name: str, responses: Array) -> NDArray[np.float32]:
        """Predict one target.

        Parameters
        ----------
        name : {"z", "c"}
        responses : array of shape (n, n_voxels) or (n_voxels,)
            Responses of the target's region. Each row is predicted as if it came alone.

        Returns
        -------
        float32 array of shape (n, ...), or (...) for a single response
        """
        check_fitted(self, "ridge_")
        if name not in self.ridge_:
            raise SettingError(f"This decoder predicts {' and '.join(self.ridge_)}, not {name}.")
        if np.ndim(responses) == 1:
            return np.asarray(self.predict_target(name, np.asarray(responses)[None])[0])
        flat = self.ridge_[name].predict(responses)
        shape = (len(responses), *self.shape_[name])
        return np.asarray(flat.reshape(shape).astype(np.float32))

    def reliability(self, name: str) -> NDArray[np.float64]:
        """Return the cross-validated r2 inside the training data, shaped as the target."""
        check_fitted(self, "ridge_")
        return np.asarray(self.ridge_[name].best_score_).reshape(self.shape_[name])

    def save(self, folder: str | Path) -> None:
        """Write the decoder as safetensors and JSON.

        Parameters
        ----------
        folder : str or Path
            Created if it does not exist.
        """
        check_fitted(self, "ridge_")
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        about = {}
        for name, ridge in self.ridge_.items():
            save_ridge(ridge, folder / name)
            about[name] = {
                "roi": self.rois_[name],
                "shape": list(self.shape_[name]),
                "summary": asdict(self.summary_[name]),
            }
        write_text(folder / "latents.json", json.dumps(about, indent=2))

    @classmethod
    def load(cls, folder: str | Path) -> LatentRegression:
        """Read a decoder that :meth:`save` wrote.

        Parameters
        ----------
        folder : str or Path

        Raises
        ------
        DamagedFileError
            If a file is missing or damaged.
        """
        folder = Path(folder)
        try:
            about = read_json(folder / "latents.json", finite=True)
            rois = {name: str(about[name]["roi"]) for name in ("z", "c") if name in about}
            self = cls(rois["z"], rois.get("c"))
            self.rois_, self.shape_, self.summary_ = rois, {}, {}
            for name in rois:
                self.shape_[name] = tuple(int(side) for side in about[name]["shape"])
                self.summary_[name] = TargetSummary(**about[name]["summary"])
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise DamagedFileError(
                f"{folder} holds no decoder: latents.json is missing or damaged; fit it again."
            ) from error
        self.ridge_ = {name: self._load_ridge(folder, name) for name in rois}
        return self

    def _load_ridge(self, folder: Path, name: str) -> RidgeCV:
        ridge = load_ridge(folder / name)
        if not isinstance(ridge, RidgeCV):
            raise DamagedFileError(
                f"{folder / name} holds a {type(ridge).__name__} instead of the RidgeCV of a "
                "decoder of latents; fit it again."
            )
        if math.prod(self.shape_[name]) != np.size(ridge.best_score_):
            raise DamagedFileError(
                f"{folder} holds a decoder of {name} with a shape in latents.json that is not the "
                "shape of its weights; fit it again."
            )
        return ridge
