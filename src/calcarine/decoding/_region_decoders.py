"""What decoders of targets from regions of interest share."""

from __future__ import annotations

import json
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from sklearn.base import BaseEstimator

from calcarine.brain import BrainDataset, Split
from calcarine.decoding._fitted import check_fitted
from calcarine.decoding.rescaling import RESCALINGS, Rescaling, fit_rescalings
from calcarine.decoding.ridge_fits import TargetSummary, fit_together
from calcarine.errors import DamagedFileError, SettingError, ShapeError, did_you_mean
from calcarine.files import atomic_write, read_json, write_text
from calcarine.linear import RidgeCV, predict_linear
from calcarine.linear import load as load_ridge
from calcarine.linear import save as save_ridge

__all__ = ["RegionDecoders"]

Array = NDArray[Any]

_RESCALING = ".rescaling.safetensors"  # a name of a target has no dot
_NAME = re.compile(r"[A-Za-z0-9][\w-]*")
_TAKEN = ("decoded", "latents", "targets")  # files next to those of the targets


class RegionDecoders(BaseEstimator, ABC):  # type: ignore[misc]
    """Linear decoders of several targets, each from one region; the base of those with names."""

    _file = "targets.json"

    alphas: Array | None
    n_folds: int
    intercept: bool
    grouped: bool
    device: str

    rois_: dict[str, str]
    ridge_: dict[str, RidgeCV]
    shape_: dict[str, tuple[int, ...]]
    summary_: dict[str, TargetSummary]
    rescaling_: dict[str, Rescaling]

    @classmethod
    @abstractmethod
    def _with_rois(cls, rois: dict[str, str]) -> Self:
        """Return a decoder of these regions, not fitted."""

    def _fit_targets(
        self,
        dataset: BrainDataset,
        split: str | Split | None,
        targets: Mapping[str, Array],
        rois: Mapping[str, str],
        rescale: Mapping[str, str] | None = None,
        out: str | Path | None = None,
    ) -> Self:
        rescale = {name: kind for name, kind in (rescale or {}).items() if kind != "none"}
        for name, kind in rescale.items():
            if kind not in RESCALINGS:
                raise SettingError(
                    f"rescale of {name} is '{kind}'; choose one of {', '.join(RESCALINGS)}."
                    f"{did_you_mean(kind, RESCALINGS)}"
                )
        wrong = [name for name in targets if not _NAME.fullmatch(name) or name in _TAKEN]
        if wrong:
            raise SettingError(
                f"'{wrong[0]}' cannot name a target; use letters, digits, '-' and '_', and none of "
                f"{', '.join(_TAKEN)}."
            )
        if len({name.lower() for name in targets}) < len(targets):
            raise SettingError("Two targets differ only by case, which some disks ignore.")
        ids = dataset.stimuli.ids
        for name, values in targets.items():
            if len(values) != len(ids):
                raise ShapeError(
                    f"{name} has {len(values)} rows for {len(ids)} stimuli; extract it again for "
                    "all stimuli of the data set."
                )
        self.rois_ = dict(rois)
        self.shape_ = {name: tuple(values.shape[1:]) for name, values in targets.items()}
        fitted: dict[str, tuple[RidgeCV, TargetSummary]] = {}
        self.rescaling_ = {}
        for roi in dict.fromkeys(rois.values()):
            responses = dataset.train(split, roi)
            own = {name: values for name, values in targets.items() if rois[name] == roi}
            fitted |= fit_together(
                responses,
                ids,
                own,
                self.alphas,
                self.n_folds,
                self.intercept,
                self.grouped,
                self.device,
                None if out is None else Path(out) / roi,
            )
            rescaled = {name: values for name, values in own.items() if name in rescale}
            if rescaled:
                self.rescaling_ |= fit_rescalings(
                    responses,
                    ids,
                    rescaled,
                    {name: fitted[name][0] for name in rescaled},
                    rescale,
                    self.n_folds,
                    self.intercept,
                    self.device,
                )
        self.ridge_ = {name: fitted[name][0] for name in targets}
        self.summary_ = {name: fitted[name][1] for name in targets}
        return self

    def predict(
        self,
        dataset: BrainDataset,
        split: str | Split | None = None,
        *,
        out: str | Path | None = None,
    ) -> dict[str, NDArray[np.float32]]:
        """Predict the fitted targets from averaged test responses, in the order of the test set.

        Parameters
        ----------
        dataset : BrainDataset
        split : str, Split or None
            As in `fit`.
        out : str or Path, optional
            Folder for the predictions, ``NAME.npy``, which then need not fit in memory.

        Returns
        -------
        dict of str to float32 array
            By name of the target, of shape (n_test, ...); read-only memory maps with ``out``.
        """
        check_fitted(self, "ridge_")
        found = {}
        for name, roi in self.rois_.items():
            responses = dataset.test(split, roi).data
            if out is None:
                found[name] = self.predict_target(name, responses)
            else:
                found[name] = self._predict_to(Path(out) / f"{name}.npy", name, responses)
        return found

    def _predict_to(self, file: Path, name: str, responses: Array) -> NDArray[np.float32]:
        """Write predictions to a file and return it as a memory map."""
        file.parent.mkdir(parents=True, exist_ok=True)
        ridge, rescaling = self.ridge_[name], self.rescaling_.get(name)
        shape = (len(responses), *self.shape_[name])
        with atomic_write(file) as partial:
            written = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float32, shape=shape)
            flat = written.reshape(len(responses), -1)
            predict_linear(responses, ridge.coef_.T, ridge.x_mean_, ridge.y_mean_, out=flat)
            if rescaling is not None:
                for row in range(len(flat)):
                    flat[row] = rescaling(flat[row : row + 1])[0]
            written.flush()
        mapped: NDArray[np.float32] = np.load(file, mmap_mode="r")
        return mapped

    def predict_target(self, name: str, responses: Array) -> NDArray[np.float32]:
        """Predict one target.

        Parameters
        ----------
        name : str
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
        if name in self.rescaling_:
            flat = self.rescaling_[name](flat)
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
        about: dict[str, dict[str, Any]] = {}
        for name, ridge in self.ridge_.items():
            save_ridge(ridge, folder / name)
            about[name] = {
                "roi": self.rois_[name],
                "shape": list(self.shape_[name]),
                "summary": asdict(self.summary_[name]),
            }
            if name in self.rescaling_:
                about[name]["rescaling"] = True
                with atomic_write(folder / f"{name}{_RESCALING}") as partial:
                    save_file(self.rescaling_[name].tensors(), partial)
        write_text(folder / self._file, json.dumps(about, indent=2))

    @classmethod
    def load(cls, folder: str | Path) -> Self:
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
            about = read_json(folder / cls._file, finite=True)
            rois = {name: str(entry["roi"]) for name, entry in about.items()}
            if not all(_NAME.fullmatch(name) for name in rois):
                raise ValueError("a target is named like a path")
            self = cls._with_rois(rois)
            self.rois_, self.shape_, self.summary_ = rois, {}, {}
            rescaled = [name for name in rois if about[name].get("rescaling")]
            for name in rois:
                self.shape_[name] = tuple(int(side) for side in about[name]["shape"])
                self.summary_[name] = TargetSummary(**about[name]["summary"])
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise DamagedFileError(
                f"{folder} holds no decoder: {cls._file} is missing or damaged; fit it again."
            ) from error
        self.ridge_ = {name: self._load_ridge(folder, name) for name in rois}
        self.rescaling_ = {name: self._load_rescaling(folder, name) for name in rescaled}
        return self

    def _load_ridge(self, folder: Path, name: str) -> RidgeCV:
        ridge = load_ridge(folder / name)
        if not isinstance(ridge, RidgeCV):
            raise DamagedFileError(
                f"{folder / name} holds a {type(ridge).__name__} instead of the RidgeCV of a "
                "decoder; fit it again."
            )
        if math.prod(self.shape_[name]) != np.size(ridge.best_score_):
            raise DamagedFileError(
                f"{folder} holds a decoder of {name} with a shape in {self._file} that is not the "
                "shape of its weights; fit it again."
            )
        return ridge

    def _load_rescaling(self, folder: Path, name: str) -> Rescaling:
        file = folder / f"{name}{_RESCALING}"
        try:
            rescaling = Rescaling(**load_file(file))
        except (OSError, ValueError, TypeError, SafetensorError) as error:
            raise DamagedFileError(
                f"{file} is missing or damaged; fit the decoder again."
            ) from error
        width = math.prod(self.shape_[name])
        if any(
            len(each) != width for each in (rescaling.predicted_mean, *rescaling.components[:1])
        ):
            raise DamagedFileError(
                f"{file} holds a rescaling of another width than {name}; fit the decoder again."
            )
        return rescaling
