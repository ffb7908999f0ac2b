"""Fitted estimators on disk: weights in safetensors, settings in JSON. Loading runs no code."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load as _parse_safetensors
from safetensors.numpy import save as _format_safetensors
from sklearn import model_selection

from calcarine.checkpoints import weights_format
from calcarine.errors import CalcarineError, DamagedFileError, MissingFileError, SettingError
from calcarine.files import parse_json, write_bytes
from calcarine.linear._inputs import is_splitter
from calcarine.linear.estimators import BandedRidgeCV, RidgeCV, by_column, check_fitted

__all__ = ["load", "save"]

FORMAT = "calcarine-ridge-2"
"""Name and version of the file format of a `RidgeCV`."""
BANDED_FORMAT = "calcarine-banded-ridge-1"
"""Name and version of the file format of a `BandedRidgeCV`."""

_COMMON = {
    "coef_": "pt",  # whatever the orientation of the attribute, which is a view
    "intercept_": "t",
    "alpha_": "t",
    "best_score_": "t",
    "y_mean_": "t",
    "x_mean_": "p",
    "x_scale_": "p",
}
_PER_TARGET = ("intercept_", "alpha_", "best_score_", "gamma_", "penalties_")


@dataclass(frozen=True)
class _EstimatorLayout:
    """Files of an estimator: the axes of its tensors by name, and its possible solvers."""

    kind: type[RidgeCV] | type[BandedRidgeCV]
    shapes: dict[str, str]
    solvers: tuple[str, ...]


_LAYOUTS = {
    FORMAT: _EstimatorLayout(
        RidgeCV, {**_COMMON, "alphas_": "a", "cv_curve_": "a"}, ("primal", "dual", "svd")
    ),
    BANDED_FORMAT: _EstimatorLayout(
        BandedRidgeCV,
        {**_COMMON, "gamma_": "st", "penalties_": "st", "column_spaces_": "p"},
        ("primal", "dual"),
    ),
}


def save(estimator: RidgeCV | BandedRidgeCV, stem: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Write a fitted estimator to ``stem.safetensors`` and ``stem.json``.

    Both files are written atomically. The JSON is written last and holds the digest of the
    weights, so that `load` notices an interruption between the two.

    Parameters
    ----------
    estimator : RidgeCV or BandedRidgeCV
        A fitted estimator. If `cv` is a splitter of scikit-learn, its name and settings are
        written; if it is a list of folds, their row numbers are.
    stem : path-like
        Path without suffix; missing folders are created.

    Returns
    -------
    tuple of two Path
        The safetensors and the JSON file.

    Raises
    ------
    CalcarineError
        When the estimator is not a fitted `RidgeCV` or `BandedRidgeCV`, has a setting that JSON
        cannot hold, or the files cannot be written.

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.linear import RidgeCV, save
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((50, 30))
    >>> Y = X @ rng.standard_normal((30, 3)) + 4 * rng.standard_normal((50, 3))
    >>> ridge = RidgeCV().fit(X, Y)
    >>> [path.name for path in save(ridge, "decoder")]
    ['decoder.safetensors', 'decoder.json']
    """
    if not isinstance(estimator, RidgeCV | BandedRidgeCV):
        raise SettingError(
            f"Only a RidgeCV or a BandedRidgeCV can be saved, not a {type(estimator).__name__}; "
            "pass a fitted one."
        )
    check_fitted(estimator)
    weights_path, json_path = _paths(stem)
    weights = _format_safetensors(_tensors(estimator))
    try:
        text = json.dumps(_description(estimator, weights), indent=2, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise SettingError(
            f"A setting of the estimator cannot be written as JSON ({error}); "
            "set its parameters to plain numbers and words."
        ) from error
    try:
        weights_path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(weights_path, weights)
        write_bytes(json_path, text.encode())
    except OSError as error:
        raise CalcarineError(
            f"Could not write the estimator to {weights_path.parent} ({error.strerror}); "
            "choose a folder with room that you may write to."
        ) from error
    return weights_path, json_path


def load(stem: str | os.PathLike[str]) -> RidgeCV | BandedRidgeCV:
    """Read an estimator that `save` wrote.

    Parameters
    ----------
    stem : path-like
        Path without suffix, or the path of either file.

    Returns
    -------
    RidgeCV or BandedRidgeCV
        The fitted estimator; it predicts as the saved one.

    Raises
    ------
    CalcarineError
        When a file is missing, truncated, corrupt or a pickle, or the two files do not match.

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.linear import RidgeCV, load, save
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((50, 30))
    >>> Y = X @ rng.standard_normal((30, 3)) + 4 * rng.standard_normal((50, 3))
    >>> ridge = RidgeCV().fit(X, Y)
    >>> _ = save(ridge, "decoder")
    >>> np.array_equal(load("decoder").predict(X), ridge.predict(X))
    True
    """
    weights_path, json_path = _paths(stem)
    about = _read_description(json_path)
    content = _read(weights_path)
    tensors = _parse(weights_path, content)
    if about.get("sha256") != hashlib.sha256(content).hexdigest():
        raise DamagedFileError(
            f"{weights_path} is not the file that {json_path.name} describes; "
            "the last save was interrupted or a file changed, so save the estimator again."
        )
    try:
        return _rebuild(about, tensors, json_path)
    except (TypeError, ValueError, OverflowError) as error:
        raise _corrupt(json_path, f"a value in it has the wrong type: {error}") from error


def _paths(stem: str | os.PathLike[str]) -> tuple[Path, Path]:
    base = os.fspath(stem)
    for suffix in (".safetensors", ".json"):
        base = base.removesuffix(suffix)
    return Path(base + ".safetensors"), Path(base + ".json")


def _format_of(estimator: RidgeCV | BandedRidgeCV) -> str:
    return next(name for name, layout in _LAYOUTS.items() if isinstance(estimator, layout.kind))


def _tensors(estimator: RidgeCV | BandedRidgeCV) -> dict[str, npt.NDArray[Any]]:
    names = _LAYOUTS[_format_of(estimator)].shapes
    tensors = {name: np.asarray(getattr(estimator, name)) for name in names}
    tensors["coef_"] = by_column(estimator)
    if estimator.coef_.ndim == 1:
        single = [name for name in _PER_TARGET if name in tensors]
        tensors.update({name: tensors[name][..., None] for name in single})
    # safetensors writes the bytes of the memory, so it must be in C order.
    return {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}


def _description(estimator: RidgeCV | BandedRidgeCV, weights: bytes) -> dict[str, Any]:
    names = getattr(estimator, "feature_names_in_", None)
    about = {
        "format": _format_of(estimator),
        "params": {
            name: _plain(name, value) for name, value in estimator.get_params(deep=False).items()
        },
        "solver": estimator.solver_,
        "vector_target": estimator.coef_.ndim == 1,
        "feature_names": None if names is None else [str(name) for name in names],
        "sha256": hashlib.sha256(weights).hexdigest(),
    }
    if isinstance(estimator, RidgeCV):
        return {**about, "edge_fractions": list(estimator.edge_fractions_)}
    return {**about, "space_names": estimator.space_names_.tolist()}


def _plain(name: str, value: Any) -> Any:
    """Return a setting as a JSON value."""
    if value is None or isinstance(value, str | bool | int | float):
        return [float(value)] if name == "alphas" and value is not None else value
    if name == "alphas":
        return np.atleast_1d(value).astype(float).tolist()
    if name == "dtype":
        return np.dtype(value).name
    if isinstance(value, np.generic):
        return value.item()
    return _plain_folds(value) if name == "cv" else np.asarray(value).tolist()


def _plain_folds(cv: Any) -> Any:
    """Return the name and settings of a splitter, or the row numbers of folds."""
    if not is_splitter(cv):
        return [[np.asarray(part).tolist() for part in pair] for pair in cv]
    name = type(cv).__name__
    if getattr(model_selection, name, None) is not type(cv):
        raise TypeError(f"cv is a {name}, which is not a splitter of scikit-learn")
    # A splitter that repeats another one keeps the arguments of that in `cvargs`.
    known = {**vars(cv), **getattr(cv, "cvargs", {})}
    settings = {key: known[key] for key in signature(type(cv)).parameters}
    plain = {
        key: value.tolist() if isinstance(value, np.ndarray | np.generic) else value
        for key, value in settings.items()
    }
    return {"splitter": name, "settings": plain}


def _folds(cv: Any) -> Any:
    """Return the splitter or folds that `_plain_folds` wrote; raise for anything else."""
    if isinstance(cv, dict):
        kind = getattr(model_selection, str(cv.get("splitter")), None)
        if not (isinstance(kind, type) and is_splitter(kind)):
            raise ValueError(f"{cv.get('splitter')} is not a splitter of scikit-learn")
        return kind(**cv["settings"])
    if isinstance(cv, list):
        return [(np.asarray(train, dtype=int), np.asarray(test, dtype=int)) for train, test in cv]
    return cv


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        kind: type[CalcarineError] = MissingFileError if missing else CalcarineError
        raise kind(
            f"Could not read {path} ({error.strerror}); check the path given to load."
        ) from error


def _refuse_pickle(path: Path, content: bytes) -> None:
    words = {"pickle": "a pickle", "zip": "a zip archive, as torch.save writes around a pickle"}
    kind = weights_format(content)
    if kind in words:
        raise DamagedFileError(
            f"{path} is {words[kind]}, which could run code when opened; "
            "save the estimator again with calcarine.linear.save."
        )


def _parse(path: Path, content: bytes) -> dict[str, npt.NDArray[Any]]:
    _refuse_pickle(path, content)
    size = int.from_bytes(content[:8], "little")
    if weights_format(content) != "safetensors" or size > len(content) - 8:
        raise _corrupt(path, "its header is incomplete")
    try:
        return dict(_parse_safetensors(content))
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise _corrupt(path, str(error)) from error


def _corrupt(path: Path, why: str) -> DamagedFileError:
    return DamagedFileError(
        f"{path} is truncated or corrupt ({why}); copy it again or save the estimator again."
    )


def _read_description(path: Path) -> dict[str, Any]:
    content = _read(path)
    _refuse_pickle(path, content)
    try:
        about = parse_json(content)
    except ValueError as error:
        raise _corrupt(path, "it is not JSON") from error
    if not isinstance(about, dict) or about.get("format") not in tuple(_LAYOUTS):
        raise DamagedFileError(
            f"{path} does not describe a saved ridge (its format is not {' or '.join(_LAYOUTS)}); "
            "load a file that calcarine.linear.save wrote."
        )
    return about


def _rebuild(
    about: dict[str, Any], tensors: dict[str, npt.NDArray[Any]], path: Path
) -> RidgeCV | BandedRidgeCV:
    layout = _LAYOUTS[about["format"]]
    params, names = about.get("params"), about.get("feature_names")
    if not isinstance(params, dict) or set(params) != set(layout.kind().get_params()):
        raise _corrupt(path, f"its params do not match {layout.kind.__name__}")
    _check_shapes(tensors, layout, path, scored=params["cv"] != "fixed")
    if about.get("solver") not in layout.solvers:
        raise _corrupt(path, "its solver is unknown")
    n_columns, n_targets = tensors["coef_"].shape
    if names is not None and (not isinstance(names, list) or len(names) != n_columns):
        raise _corrupt(path, "its feature names do not match its weights")
    vector = bool(about.get("vector_target"))
    if vector and n_targets != 1:
        raise _corrupt(path, "its weights are for several targets")
    try:
        estimator = layout.kind(**{**params, "cv": _folds(params["cv"])})
    except (KeyError, TypeError, ValueError) as error:
        raise _corrupt(path, f"its cv is not valid: {error}") from error
    for name, tensor in tensors.items():
        single = vector and name in _PER_TARGET
        setattr(estimator, name, tensor[..., 0] if single else tensor)
    estimator.coef_ = tensors["coef_"][:, 0] if vector else tensors["coef_"].T
    estimator.solver_ = str(about["solver"])
    if isinstance(estimator, RidgeCV):
        estimator.edge_fractions_ = _edge_fractions(about, path)
    else:
        estimator.space_names_ = _space_names(about, tensors, path)
    estimator.n_features_in_ = n_columns
    if names is not None:
        estimator.feature_names_in_ = np.asarray(names, dtype=object)
    return estimator


def _edge_fractions(about: dict[str, Any], path: Path) -> tuple[float, float]:
    edges = about.get("edge_fractions")
    if not isinstance(edges, list) or len(edges) != 2:
        raise _corrupt(path, "its edge fractions are not two numbers")
    return float(edges[0]), float(edges[1])


def _space_names(
    about: dict[str, Any], tensors: dict[str, npt.NDArray[Any]], path: Path
) -> npt.NDArray[Any]:
    names, spaces = about.get("space_names"), tensors["column_spaces_"]
    n_spaces = len(tensors["gamma_"])
    if not isinstance(names, list) or len(names) != n_spaces:
        raise _corrupt(path, "its spaces do not match its weights")
    if spaces.min() < 0 or spaces.max() >= n_spaces:
        raise _corrupt(path, "its columns belong to spaces that do not exist")
    return np.asarray(names)


def _check_shapes(
    tensors: dict[str, npt.NDArray[Any]], layout: _EstimatorLayout, path: Path, *, scored: bool
) -> None:
    weights = path.with_suffix(".safetensors")
    if set(tensors) != set(layout.shapes):
        raise _corrupt(weights, "its tensors are not the tensors of a ridge")
    sizes: dict[str, int] = {}
    for name, axes in layout.shapes.items():
        tensor = tensors[name]
        fits = tensor.ndim == len(axes) and all(
            sizes.setdefault(axis, size) == size
            for axis, size in zip(axes, tensor.shape, strict=False)
        )
        kind = "i" if name == "column_spaces_" else "f"
        if not fits or tensor.dtype.kind != kind or not _are_numbers(name, tensor, scored).all():
            raise _corrupt(weights, f"{name} has a wrong shape or values that are not finite")


def _are_numbers(name: str, tensor: npt.NDArray[Any], scored: bool) -> npt.NDArray[np.bool_]:
    """Return which values are finite, or allowed not to be."""
    finite = np.isfinite(tensor)
    # search="local" leaves NaN in the curve for penalties that it tried for some targets only.
    # Fixed penalties have no score, and the penalty of a space without weight is infinite.
    if name == "cv_curve_" or (name == "best_score_" and not scored):
        finite |= np.isnan(tensor)
    if name == "penalties_":
        finite |= tensor == np.inf
    return np.asarray(finite)
