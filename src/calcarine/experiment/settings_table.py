"""The settings as a table for people and as a JSON schema for editors."""

from __future__ import annotations

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from calcarine.errors import SettingError
from calcarine.experiment.config import Experiment
from calcarine.experiment.load_config import load_experiment

__all__ = ["Setting", "all_settings", "experiment_schema", "find_settings"]

_WORDS = {str: "text", int: "integer", float: "number", bool: "true | false", dict: "mapping"}
_LIMITS = (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<"))


@dataclass(frozen=True)
class Setting:
    """One setting.

    Attributes
    ----------
    key : str
        As in ``--set KEY=VALUE``; settings of the items of a list have ``[]`` in their key.
    value : str
        Its value, as in YAML.
    type : str
        Which values it takes.
    description : str
    """

    key: str
    value: str
    type: str
    description: str


def all_settings(preset: str | None = None) -> list[Setting]:
    """Return every setting, with the values of a preset.

    Parameters
    ----------
    preset : str, optional
        Defaults if not given.

    Returns
    -------
    list of Setting
        In the order of :class:`calcarine.experiment.config.Experiment`.

    Raises
    ------
    CalcarineError
        If there is no such preset.
    """
    return list(_walk(Experiment, "", load_experiment(preset).model_dump(mode="json")))


def find_settings(key: str | None = None, preset: str | None = None) -> list[Setting]:
    """Return the settings of a section, or a single one.

    Parameters
    ----------
    key : str, optional
        A section such as ``generation`` or a setting such as ``generation.steps``; by default all
        settings.
    preset : str, optional
        As in :func:`all_settings`.

    Raises
    ------
    CalcarineError
        If nothing has that key; the nearest ones are named.

    Examples
    --------
    >>> [setting.key for setting in find_settings("roi")]
    ['roi.z', 'roi.c', 'roi.pixels']
    """
    settings = all_settings(preset)
    if key is None:
        return settings
    chosen = [s for s in settings if s.key == key or s.key.startswith((f"{key}.", f"{key}[]"))]
    if not chosen:
        raise SettingError(f"There is no setting '{key}'; {_near(key, settings)}")
    return chosen


def experiment_schema() -> dict[str, Any]:
    """Return the JSON schema of an experiment's YAML file, with which editors complete it."""
    schema = Experiment.model_json_schema()
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    for part in (schema, *schema.get("$defs", {}).values()):
        if "description" in part:
            part["description"] = part["description"].partition("\n")[0]
    return schema


def _near(key: str, settings: list[Setting]) -> str:
    keys = [setting.key for setting in settings]
    sections = {key[:end] for key in keys for end, sign in enumerate(key) if sign == "."}
    by_last = {name.rpartition(".")[2]: name for name in reversed(keys)}
    near = difflib.get_close_matches(key.lower(), [*keys, *sections], 3, 0.7)
    last = difflib.get_close_matches(key.lower().rpartition(".")[2], list(by_last), 2, 0.8)
    names = list(dict.fromkeys([*near, *(by_last[name] for name in last)]))[:3]
    if names:
        return f"did you mean {' or '.join(names)}?"
    return f"the sections are {', '.join(sorted(name for name in sections if '.' not in name))}."


def _walk(part: type, prefix: str, values: Any) -> Iterator[Setting]:
    for name, kind, info in _fields(part):
        key = f"{prefix}{name}"
        value = values.get(name) if isinstance(values, dict) else values
        if _is_section(kind):
            yield from _walk(kind, f"{key}.", value)
            continue
        yield Setting(key, _shown(value), _type_name(kind, info), info.description or "")
        item = get_args(kind)[0] if get_origin(kind) is list else None
        if item is not None and _is_section(item):
            yield from _walk(item, f"{key}[].", item.model_construct().model_dump(mode="json"))


def _fields(part: type) -> Iterator[tuple[str, Any, FieldInfo]]:
    """Yield name, type and description of the settings of a section."""
    if issubclass(part, BaseModel):
        for name, info in part.model_fields.items():
            yield name, info.annotation, info
        return
    hints = typing.get_type_hints(part, include_extras=True)
    for field in dataclasses.fields(part):  # type: ignore[arg-type]
        kind, *metadata = get_args(hints[field.name])
        info = next(each for each in metadata if isinstance(each, FieldInfo))
        yield field.name, kind, info


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and (
        issubclass(kind, BaseModel) or dataclasses.is_dataclass(kind)
    )


def _shown(value: Any) -> str:
    """Return a value as ``--set`` takes it."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        value = [{k: v for k, v in item.items() if v is not None} for item in value]
    return json.dumps(value, ensure_ascii=False).replace('"', "")


def _type_name(kind: Any, info: FieldInfo | None = None) -> str:
    limits = " and ".join(
        f"{sign} {getattr(each, name):g}"
        for each in (info.metadata if info else ())
        for name, sign in _LIMITS
        if getattr(each, name, None) is not None
    )
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        name = _type_name(args[0])
    elif origin is Literal:
        name = " | ".join(str(value) for value in args)
    elif origin in (Union, types.UnionType):
        names = [_type_name(each) for each in args if each is not type(None)]
        name = f"{' | '.join(names)} {limits}".rstrip()
        return f"{name} | null" if type(None) in args else name
    elif origin in (list, tuple):
        items = [_type_name(each) for each in args if each is not Ellipsis]
        name = f"list of {' and '.join(dict.fromkeys(items))}"
    elif _is_section(kind):
        name = "section"
    else:
        name = _WORDS.get(origin or kind, str(kind))
    return f"{name} {limits}".rstrip()
