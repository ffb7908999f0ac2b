"""Fitted estimators on disk: weights in safetensors, the rest in JSON. Loading runs no code."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load as _parse_safetensors
from safetensors.numpy import save as _format_safetensors

from calcarine.errors import CalcarineError
from calcarine.files import write_bytes
from calcarine.linear.estimators import RidgeCV, check_fitted

FORMAT = "calcarine-ridge-2"
"""Name and version of the layout, written into the JSON."""

_PER_TARGET = ("intercept_", "alpha_", "best_score_")
_SHAPES = {
    "coef_": "pt",
    "intercept_": "t",
    "alpha_": "t",
    "best_score_": "t",
    "y_mean_": "t",
    "x_mean_": "p",
    "x_scale_": "p",
    "alphas_": "a",
    "cv_curve_": "a",
}
_LARGEST_HEADER = 100_000_000


def save(estimator: RidgeCV, stem: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Write a fitted estimator to ``stem.safetensors`` and ``stem.json``.

    Each file is written beside its place and renamed into it. The JSON comes last and holds the
    digest of the weights, so an interruption between the two is noticed when loading.

    Parameters
    ----------
    estimator : RidgeCV
        Fitted.
    stem : path-like
        Path without suffix; missing folders are made.

    Returns
    -------
    tuple of two Path
        The safetensors and the JSON file.

    Raises
    ------
    CalcarineError
        When the estimator is not a fitted `RidgeCV`, or the place cannot be written.
    """
    if not isinstance(estimator, RidgeCV):
        raise CalcarineError(
            f"Only a RidgeCV can be saved here, not a {type(estimator).__name__}; "
            "pass a fitted one."
        )
    check_fitted(estimator)
    weights_path, json_path = _paths(stem)
    weights = _format_safetensors(_tensors(estimator))
    try:
        text = json.dumps(_description(estimator, weights), indent=2, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise CalcarineError(
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


def load(stem: str | os.PathLike[str]) -> RidgeCV:
    """Read an estimator that `save` wrote.

    Parameters
    ----------
    stem : path-like
        Path without suffix, or of either file.

    Returns
    -------
    RidgeCV
        Fitted, predicting what the saved one did.

    Raises
    ------
    CalcarineError
        When a file is missing, truncated, corrupt, a pickle, or belongs to another save.
    """
    weights_path, json_path = _paths(stem)
    about = _read_description(json_path)
    content = _read(weights_path)
    tensors = _parse(weights_path, content)
    if about.get("sha256") != hashlib.sha256(content).hexdigest():
        raise CalcarineError(
            f"{weights_path} is not the file that {json_path.name} describes; "
            "the last save was interrupted or a file changed, so save the estimator again."
        )
    try:
        return _rebuild(about, tensors, json_path)
    except (TypeError, ValueError, OverflowError) as error:
        raise _corrupt(json_path, f"a value in it is of the wrong kind: {error}") from error


def _paths(stem: str | os.PathLike[str]) -> tuple[Path, Path]:
    base = os.fspath(stem)
    for suffix in (".safetensors", ".json"):
        base = base.removesuffix(suffix)
    return Path(base + ".safetensors"), Path(base + ".json")


def _tensors(estimator: RidgeCV) -> dict[str, npt.NDArray[Any]]:
    tensors = {name: np.asarray(getattr(estimator, name)) for name in _SHAPES}
    if estimator.coef_.ndim == 1:
        tensors["coef_"] = tensors["coef_"][:, None]
        tensors.update({name: tensors[name].reshape(1) for name in _PER_TARGET})
    # safetensors writes the memory as it lies, so it must lie in C order.
    return {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}


def _description(estimator: RidgeCV, weights: bytes) -> dict[str, Any]:
    params = estimator.get_params()
    if params["alphas"] is not None:
        params["alphas"] = np.atleast_1d(params["alphas"]).astype(float).tolist()
    if params["dtype"] != "auto":
        params["dtype"] = np.dtype(params["dtype"]).name
    if not isinstance(params["alpha_per"], str):
        params["alpha_per"] = np.asarray(params["alpha_per"]).tolist()
    params["n_folds"] = int(params["n_folds"])
    if params["block_size"] is not None:
        params["block_size"] = int(params["block_size"])
    for name in ("fit_intercept", "standardize"):
        params[name] = bool(params[name])
    names = getattr(estimator, "feature_names_in_", None)
    return {
        "format": FORMAT,
        "params": params,
        "solver": estimator.solver_,
        "edge_fractions": list(estimator.edge_fractions_),
        "vector_target": estimator.coef_.ndim == 1,
        "feature_names": None if names is None else [str(name) for name in names],
        "sha256": hashlib.sha256(weights).hexdigest(),
    }


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CalcarineError(
            f"Could not read {path} ({error.strerror}); check the path given to load."
        ) from error


def _refuse_pickle(path: Path, content: bytes) -> None:
    kind = None
    if content[:1] == b"\x80" and content[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        kind = "a pickle"
    elif content[:4] == b"PK\x03\x04":
        kind = "a zip archive, as torch.save writes around a pickle"
    if kind:
        raise CalcarineError(
            f"{path} is {kind}, which could run code when opened; "
            "save the estimator again with calcarine.linear.save."
        )


def _parse(path: Path, content: bytes) -> dict[str, npt.NDArray[Any]]:
    size = int.from_bytes(content[:8], "little")
    # A header's length may begin like a pickle; only a safetensors file has "{" right after it.
    if content[8:9] != b"{" or not 0 < size <= min(len(content) - 8, _LARGEST_HEADER):
        _refuse_pickle(path, content)
        raise _corrupt(path, "its header is incomplete")
    try:
        return dict(_parse_safetensors(content))
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise _corrupt(path, str(error)) from error


def _corrupt(path: Path, why: str) -> CalcarineError:
    return CalcarineError(
        f"{path} is truncated or corrupt ({why}); copy it again or save the estimator again."
    )


def _read_description(path: Path) -> dict[str, Any]:
    content = _read(path)
    _refuse_pickle(path, content)
    try:
        about = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _corrupt(path, "it is not JSON") from error
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise CalcarineError(
            f"{path} does not describe a saved ridge (its format is not {FORMAT}); "
            "load a file that calcarine.linear.save wrote."
        )
    return about


def _rebuild(about: dict[str, Any], tensors: dict[str, npt.NDArray[Any]], path: Path) -> RidgeCV:
    _check_shapes(tensors, path)
    params, names = about.get("params"), about.get("feature_names")
    if not isinstance(params, dict) or set(params) != set(RidgeCV().get_params()):
        raise _corrupt(path, "its params are not those of RidgeCV")
    if about.get("solver") not in ("primal", "dual", "svd"):
        raise _corrupt(path, "its solver is unknown")
    edges = about.get("edge_fractions")
    if not isinstance(edges, list) or len(edges) != 2:
        raise _corrupt(path, "its edge fractions are not two numbers")
    n_columns, n_targets = tensors["coef_"].shape
    if names is not None and (not isinstance(names, list) or len(names) != n_columns):
        raise _corrupt(path, "its feature names do not match its weights")
    vector = bool(about.get("vector_target"))
    if vector and n_targets != 1:
        raise _corrupt(path, "its weights are not those of a single target")
    estimator = RidgeCV(**params)
    for name, tensor in tensors.items():
        single = vector and (name == "coef_" or name in _PER_TARGET)
        setattr(estimator, name, tensor[..., 0] if single else tensor)
    estimator.solver_ = str(about["solver"])
    estimator.edge_fractions_ = (float(edges[0]), float(edges[1]))
    estimator.n_features_in_ = n_columns
    if names is not None:
        estimator.feature_names_in_ = np.asarray(names, dtype=object)
    return estimator


def _check_shapes(tensors: dict[str, npt.NDArray[Any]], path: Path) -> None:
    weights = path.with_suffix(".safetensors")
    if set(tensors) != set(_SHAPES):
        raise _corrupt(weights, "its tensors are not those of a ridge")
    sizes: dict[str, int] = {}
    for name, axes in _SHAPES.items():
        tensor = tensors[name]
        fits = tensor.ndim == len(axes) and all(
            sizes.setdefault(axis, size) == size
            for axis, size in zip(axes, tensor.shape, strict=False)
        )
        # search="local" leaves NaN in the curve, where it tried a penalty for some targets only.
        unknown = np.isnan(tensor) if name == "cv_curve_" else False
        if not fits or tensor.dtype.kind != "f" or not (np.isfinite(tensor) | unknown).all():
            raise _corrupt(weights, f"{name} has a wrong shape or values that are not finite")
