"""Reading an experiment's settings from presets, YAML files and the command line."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from calcarine.errors import (
    DamagedFileError,
    MissingFileError,
    SettingError,
    did_you_mean,
    one_line,
)
from calcarine.experiment.config import DatasetConfig, Experiment
from calcarine.experiment.presets import PRESETS
from calcarine.visdec.settings import merge_settings

__all__ = ["load_experiment", "read_settings_file"]

# Settings of a preset's data set that hold for any other data set too.
_OF_ANY_DATASET = {"zscore_sessions"}


def load_experiment(
    preset: str | None = None,
    file: Path | None = None,
    settings: Sequence[str] = (),
    features: Sequence[str] = (),
    **dataset: Any,
) -> Experiment:
    """Load an experiment from a preset or a YAML file, changed by ``key=value`` settings.

    Parameters
    ----------
    preset : str, optional
        Name in :data:`calcarine.experiment.presets.PRESETS`.
    file : Path, optional
        YAML with the keys of :class:`calcarine.experiment.config.Experiment`; it may name a
        ``preset`` to start from.
    settings : sequence of str
        Each ``key=value``, as ``generation.strength=0.6``; the value is read as YAML.
    features : sequence of str
        Feature spaces of your own, each ``NAME=FILE``; see
        :func:`calcarine.experiment.feature_files.read_feature_file`.
    **dataset
        ``name``, ``data`` and ``subject`` of the data set, where not None.

    Returns
    -------
    Experiment

    Raises
    ------
    CalcarineError
        For unknown keys, values and presets, each by name.

    Examples
    --------
    >>> load_experiment("takagi", settings=["generation.steps=20"]).generation.steps
    20
    """
    tree: dict[str, Any] = read_settings_file(file) if file is not None else {}
    if preset is not None and _is_whole(tree) and tree.get("preset") != preset:
        raise SettingError(
            f"{file} has all its settings already, which --preset {preset} would not change; leave "
            "--preset out to resume the run, or give another --out."
        )
    preset = preset or tree.get("preset")
    given = {key: str(value) for key, value in dataset.items() if value is not None}
    wanted = merge_settings(tree, {"dataset": given} if given else {})
    for setting in settings:
        wanted = merge_settings(wanted, _setting(setting))
        if setting.startswith(("generation.strength=", "generation.guidance=")):
            # A strength that is given is used, not one chosen inside the training data.
            wanted = merge_settings({"generation": {"search": {"enabled": False}}}, wanted)
    tree = wanted
    if preset is not None:
        if not isinstance(preset, str) or preset not in PRESETS:
            raise SettingError(
                f"There is no preset '{preset}'; the presets are {', '.join(sorted(PRESETS))}."
                + did_you_mean(preset, PRESETS)
            )
        chosen = PRESETS[preset]
        base = {**chosen.settings, "preset": preset}
        if _dataset_name(wanted, base) != _dataset_name(base):
            # Options of one data set mean nothing in another; how to treat any data set stays.
            of_any = base.get("dataset", {}).items()
            base = {**base, "dataset": {k: v for k, v in of_any if k in _OF_ANY_DATASET}}
        base = merge_settings(base, chosen.on_dataset.get(_dataset_name(wanted, base), {}))
        tree = {**wanted, "preset": preset} if _is_whole(wanted) else merge_settings(base, wanted)
    return _validated(_with_feature_files(tree, features))


def _with_feature_files(tree: dict[str, Any], files: Sequence[str]) -> dict[str, Any]:
    """Add feature spaces of your own, each ``NAME=FILE``."""
    for text in files:
        if "=" not in text:
            raise SettingError(f"--features {text} is not NAME=FILE; write clip=clip.npy.")
    encoding = tree.get("encoding")
    spaces = encoding.get("extra_feature_spaces") if isinstance(encoding, dict) else None
    spaces = [*(spaces if isinstance(spaces, list) else ()), *files]
    return merge_settings(tree, {"encoding": {"extra_feature_spaces": spaces}}) if files else tree


def _validated(tree: dict[str, Any]) -> Experiment:
    try:
        return Experiment.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            raise SettingError(f"There is no setting '{place}'{_near(first['loc'])}") from error
        reason = first["msg"].removeprefix("Value error, ")
        if not place:
            raise SettingError(f"Settings do not go together: {reason}.") from error
        raise SettingError(f"The setting '{place}' is wrong: {reason}.") from error


def _is_whole(tree: dict[str, Any]) -> bool:
    """Return whether all sections are given, as in a run's own file, which no preset adds to."""
    return set(Experiment.model_fields) <= set(tree)


def _near(place: tuple[int | str, ...]) -> str:
    """Return the setting that is likely meant, or the settings of its section."""
    part: type[BaseModel] = Experiment
    for name in place[:-1]:
        field = part.model_fields.get(str(name))
        kind = field.annotation if field else None
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            return "."
        part = kind
    known = list(part.model_fields)
    near = difflib.get_close_matches(str(place[-1]).lower(), known, 1)
    if place[:-1] and (meant := _in_another_section(str(place[-1]))):
        return f"; did you mean '{meant}'?"
    if near:
        meant = ".".join([*map(str, place[:-1]), near[0]])
        return f"; did you mean '{meant}'?"
    owner = "its section has" if place[:-1] else "the sections are"
    return f"; {owner} {', '.join(known)}."


def _in_another_section(name: str) -> str | None:
    """Return the key of a setting of that very name, as ``compute.precision``."""
    for section, field in Experiment.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel) and name in kind.model_fields:
            return f"{section}.{name}"
    return None


def _dataset_name(*trees: dict[str, Any]) -> str:
    """Return the name of the data set in the first of ``trees`` that has one."""
    for tree in trees:
        part = tree.get("dataset")
        if isinstance(part, dict) and "name" in part:
            return str(part["name"])
    return DatasetConfig().name


def read_settings_file(file: Path) -> dict[str, Any]:
    """Read a YAML file of settings.

    Raises
    ------
    CalcarineError
        If the file is missing, cannot be read, or describes a data set.
    """
    try:
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MissingFileError(f"There is no run and no experiment file {file}.") from error
    except Exception as error:  # yaml has errors of many kinds for tags and dates
        reason = one_line(error)
        raise DamagedFileError(f"{file} cannot be read as YAML: {reason}.") from error
    if not isinstance(tree, dict):
        raise DamagedFileError(f"{file} must hold keys and values, for example 'preset: takagi'.")
    if "trials" in tree or "bids" in tree:
        raise SettingError(
            f"{file} describes a data set and not an experiment; decode it with 'calcarine run "
            f"--preset takagi --dataset own --data {file}'."
        )
    return tree


def _setting(text: str) -> dict[str, Any]:
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise SettingError(f"'{text}' is not a setting; write key=value, as generation.steps=50.")
    try:
        content: Any = yaml.safe_load(value)
    except Exception as error:  # yaml has errors of many kinds for tags and dates
        raise SettingError(f"The value in '{text}' cannot be read as YAML.") from error
    for part in reversed(key.split(".")):
        content = {part: content}
    return dict(content)
