"""Ridge regression from responses to z and c (Takagi & Nishimoto 2023, section 3.3)."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calcarine.brain import BrainDataset, Responses, Split
from calcarine.errors import CalcarineError, LeakageError
from calcarine.files import read_json, write_text
from calcarine.linear import RidgeCV, RidgeEdgeWarning
from calcarine.linear import load as load_ridge
from calcarine.linear import save as save_ridge

Array = NDArray[Any]


@dataclass(frozen=True)
class TargetSummary:
    """How one target was fitted; for reports.

    Attributes
    ----------
    median_alpha : float
    mean_cv_r2 : float
        Mean over target dimensions of the cross-validated r2 inside the training data.
    positive : float
        Share of dimensions with a cross-validated r2 above zero.
    edge_low, edge_high : float
        Share of predictable dimensions whose penalty sits on an end of the grid.
    warning : str
        What the ridge warned of, or an empty string.
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
    """Fit one ridge on training responses; refuses anything else.

    Parameters
    ----------
    responses : Responses
        Single trials of training stimuli, ``(n_trials, n_voxels)``.
    ids : sequence of str
        Stimuli that the rows of ``targets`` belong to, those of the responses among them.
    targets : array of shape (n_stimuli, n_targets)
    intercept : bool
        False learns no mean of the targets, as the code of Takagi & Nishimoto 2023 does: the
        columns of X are still centred, and predictions scatter about zero.
    grouped : bool
        False makes folds of successive trials, repeats of a stimulus or not (likewise).

    Raises
    ------
    LeakageError
        If the responses are not training responses.
    """
    if responses.role != "train":
        raise LeakageError(
            f"A fit was given {responses.role} responses; only training responses may be fitted."
        )
    folds = min(n_folds, len(set(responses.stimulus_ids)))
    options: dict[str, Any] = {"n_folds": folds, "fit_intercept": intercept}
    if alphas is not None:
        options["alphas"] = alphas
    row = {stimulus: i for i, stimulus in enumerate(ids)}
    rows = [row[stimulus] for stimulus in responses.stimulus_ids]
    shown, target_rows = np.unique(rows, return_inverse=True)
    ridge = RidgeCV(**options)
    data, mean = responses.data, None
    if not intercept:
        mean = data.mean(0, dtype=np.float64)
        data = data - mean.astype(data.dtype)
    groups = np.asarray(responses.stimulus_ids)
    if not grouped:
        # As many blocks of successive trials as folds, longer ones first: each is a fold.
        blocks = np.array_split(np.arange(len(responses)), folds)
        groups = np.repeat(np.arange(folds), [len(block) for block in blocks])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RidgeEdgeWarning)
        ridge.fit(
            data,
            targets[shown],
            groups=groups,
            target_rows=target_rows,
        )
    if mean is not None:
        ridge.x_mean_ = mean
        ridge.intercept_ = -(mean @ ridge.coef_.T)
    told = "; ".join(str(w.message) for w in caught if issubclass(w.category, RidgeEdgeWarning))
    for warning in caught:
        if not issubclass(warning.category, RidgeEdgeWarning):
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    score = np.asarray(ridge.best_score_)
    low, high = ridge.edge_fractions_
    summary = TargetSummary(
        median_alpha=float(np.median(ridge.alpha_)),
        mean_cv_r2=float(score.mean()),
        positive=float((score > 0).mean()),
        edge_low=float(low),
        edge_high=float(high),
        warning=told,
    )
    return ridge, summary


class LatentRegression:
    """Linear decoders of z and c from two regions of interest.

    Parameters
    ----------
    roi_z, roi_c : str
        Regions whose voxels predict z and c ("early" and "ventral" in the paper). With one
        region only, give it twice.
    alphas : array, optional
        Grid of ridge penalties; the default of :class:`calcarine.linear.RidgeCV` otherwise.
    n_folds : int
        Folds of the inner cross-validation, grouped by stimulus.
    intercept, grouped : bool
        As in :func:`fit_ridge`.

    Attributes
    ----------
    ridge_ : dict of RidgeCV
        By target, "z" and "c".
    shape_ : dict of tuple
        Shape of one stimulus's target.
    summary_ : dict of TargetSummary
    """

    def __init__(
        self,
        roi_z: str = "early",
        roi_c: str = "ventral",
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

    def unfitted(self) -> LatentRegression:
        """A decoder with the same settings."""
        return LatentRegression(
            self.roi_z, self.roi_c, self.alphas, self.n_folds, self.intercept, self.grouped
        )

    def fit(self, dataset: BrainDataset, split: Split, z: Array, c: Array) -> LatentRegression:
        """Fit both decoders on the training trials of ``split``.

        Parameters
        ----------
        dataset : BrainDataset
        split : Split
        z : array of shape (n_stimuli, channels, h, w)
            One row for each of ``dataset.stimuli.ids``.
        c : array of shape (n_stimuli, tokens, width)
        """
        ids = dataset.stimuli.ids
        self.ridge_: dict[str, RidgeCV] = {}
        self.shape_: dict[str, tuple[int, ...]] = {}
        self.summary_: dict[str, TargetSummary] = {}
        for name, roi, values in (("z", self.roi_z, z), ("c", self.roi_c, c)):
            if len(values) != len(ids):
                raise CalcarineError(
                    f"{name} has {len(values)} rows for {len(ids)} stimuli; extract it again."
                )
            responses = dataset.train(split, roi)
            targets = values.reshape(len(values), -1)
            self.shape_[name] = tuple(values.shape[1:])
            self.ridge_[name], self.summary_[name] = fit_ridge(
                responses,
                ids,
                targets,
                self.alphas,
                self.n_folds,
                self.intercept,
                self.grouped,
            )
        return self

    def predict(self, dataset: BrainDataset, split: Split) -> dict[str, NDArray[np.float32]]:
        """Z and c of the averaged test responses, in the order of ``split.test``."""
        return {
            "z": self.predict_target("z", dataset.test(split, self.roi_z).data),
            "c": self.predict_target("c", dataset.test(split, self.roi_c).data),
        }

    def predict_target(self, name: str, responses: Array) -> NDArray[np.float32]:
        """One target for responses ``(n, n_voxels)``; each row as if it came alone."""
        flat = self.ridge_[name].predict(responses)
        return flat.reshape(len(responses), *self.shape_[name]).astype(np.float32)

    def reliability(self, name: str) -> NDArray[np.float64]:
        """Cross-validated r2 of each dimension inside the training data, shaped as the target."""
        return np.asarray(self.ridge_[name].best_score_).reshape(self.shape_[name])

    def save(self, folder: Path) -> None:
        """Write both decoders as safetensors and JSON."""
        folder.mkdir(parents=True, exist_ok=True)
        about = {}
        for name, ridge in self.ridge_.items():
            save_ridge(ridge, folder / name)
            about[name] = {
                "roi": self.roi_z if name == "z" else self.roi_c,
                "shape": list(self.shape_[name]),
                "summary": asdict(self.summary_[name]),
            }
        write_text(folder / "latents.json", json.dumps(about, indent=2))

    @classmethod
    def load(cls, folder: Path) -> LatentRegression:
        """Read what :meth:`save` wrote.

        Raises
        ------
        CalcarineError
            If a file is missing or damaged.
        """
        try:
            about = read_json(folder / "latents.json")
            self = cls(str(about["z"]["roi"]), str(about["c"]["roi"]))
            self.shape_, self.summary_ = {}, {}
            for name in ("z", "c"):
                self.shape_[name] = tuple(int(side) for side in about[name]["shape"])
                self.summary_[name] = TargetSummary(**about[name]["summary"])
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise CalcarineError(
                f"{folder} holds no decoder (latents.json is missing or broken); fit it again."
            ) from error
        self.ridge_ = {}
        for name in ("z", "c"):
            ridge = load_ridge(folder / name)
            if not isinstance(ridge, RidgeCV):
                raise CalcarineError(
                    f"{folder / name} holds a {type(ridge).__name__}, not the RidgeCV of a decoder "
                    "of latents; fit it again."
                )
            if math.prod(self.shape_[name]) != np.size(ridge.best_score_):
                raise CalcarineError(
                    f"{folder} holds a decoder of {name} whose shape in latents.json is not that "
                    "of its weights; fit it again."
                )
            self.ridge_[name] = ridge
        return self
