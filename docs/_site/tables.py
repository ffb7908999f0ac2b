"""Pages of all commands, settings, data sets and protocols, made from the code."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer

from _site.rst import Folder, escaped, heading, literal, table
from calcarine.cli.main import app
from calcarine.datasets import find_reader, list_datasets
from calcarine.evaluation import find_protocol, list_protocols
from calcarine.experiment.config import Experiment
from calcarine.experiment.presets import PRESETS
from calcarine.experiment.settings_table import Setting, all_settings


def write(folder: Folder) -> None:
    """Write the four pages."""
    folder.write("commands.rst", _commands_page())
    folder.write("settings.rst", _settings_page())
    folder.write("datasets.rst", _datasets_page())
    folder.write("protocols.rst", _protocols_page())


def label(command: str) -> str:
    """Return the label of a command such as ``datasets split``."""
    return "command-" + command.replace(" ", "-")


# Commands


def commands() -> dict[str, Any]:
    """Return every command by its name, such as ``datasets split``, in the order of the help."""
    root = typer.main.get_command(app)
    found = {}
    for name, command in root.commands.items():
        inner = getattr(command, "commands", None)
        if inner is None:
            found[name] = command
        else:
            found |= {f"{name} {each}": part for each, part in inner.items()}
    return found


def _commands_page() -> str:
    root = typer.main.get_command(app)
    panels: dict[str, list[str]] = {}
    for name in commands():
        panel = root.commands[name.split()[0]].rich_help_panel
        panels.setdefault(str(panel), []).append(name)
    parts = [
        heading("All commands", "="),
        "``calcarine --help`` prints the list of commands, and ``calcarine COMMAND --help`` the "
        "options of one. ``calcarine --version`` prints the version, and ``calcarine "
        "--install-completion`` makes the shell complete commands, options and settings. "
        ":doc:`/which-one` helps you to choose.\n",
    ]
    for panel, names in panels.items():
        rows = []
        for name in names:
            link = f":ref:`calcarine {name} <{label(name)}>`"
            rows.append((link, escaped(_first(commands()[name].help))))
        parts += [heading(panel, "-"), table(("command", "what it does"), rows, (35, 65))]
        parts += [_command(name, commands()[name]) for name in names]
    return "\n".join(parts)


def _first(text: str | None) -> str:
    return inspect.cleandoc(text or "").partition("\n\n")[0]


def _command(name: str, command: Any) -> str:
    context = typer.Context(command, info_name=f"calcarine {name}")
    title = f"calcarine {name}"
    usage = " ".join(["calcarine", name, *command.collect_usage_pieces(context)])
    paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
    parts = [f".. _{label(name)}:\n", heading(title, "~")]
    parts += [f"{escaped(paragraph)}\n" for paragraph in paragraphs]
    parts.append(f".. code-block:: console\n\n   $ {usage}\n")
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    options = [one for one in command.params if one.param_type_name == "option" and not one.hidden]
    if arguments:
        rows = [
            (literal(" ".join(one.get_usage_pieces(context)).strip("[]")), _about(one))
            for one in arguments
        ]
        parts.append(table(("argument", "meaning"), rows, (35, 65)))
    # The first part of the help is "--out PATH", or the two names of a switch.
    rows = [
        (literal(one.get_help_record(context)[0]), _about(one))
        for one in options
        if one.name != "help"
    ]
    if rows:
        parts.append(table(("option", "meaning"), rows, (35, 65)))
    return "\n".join(parts)


def _about(parameter: Any) -> str:
    text = escaped(parameter.help or "")
    default = parameter.default
    if isinstance(default, Path):
        default = default.as_posix()
    if default not in (None, False, (), []) and not callable(default) and parameter.show_default:
        shown = str(default).lower() if default is True else default
        text += f" Default: {literal(shown)}."
    if parameter.required:
        text += " Required."
    return text.strip() or "\\"


# Settings


def _settings_page() -> str:
    defaults = all_settings()
    others = {name: {s.key: s.value for s in all_settings(name)} for name in PRESETS}
    rows = [(literal(name), escaped(preset.purpose)) for name, preset in PRESETS.items()]
    parts = [
        heading("All settings", "="),
        "Give a setting as ``--set KEY=VALUE`` on the command line, or in a YAML file; "
        ":doc:`/settings` shows how. ``calcarine settings`` prints this page in a terminal.\n",
        heading("Presets", "-"),
        "A preset is a set of settings to start from, as in ``calcarine run --preset takagi``. "
        "Below, each setting that a preset changes lists the value of the preset.\n",
        table(("preset", "purpose"), rows, (25, 75)),
    ]
    section, part = "", ""
    for setting in defaults:
        first, *rest = setting.key.split(".")
        if not rest:
            first = "experiment"
        if first != section:
            section, part = first, ""
            title = "Name and preset"
            parts.append(heading(section if rest else title, "-"))
            parts.append(_section_about(section))
        inner = ".".join(setting.key.split(".")[:2]).removesuffix("[]") if len(rest) > 1 else ""
        if inner and inner != part and section == "visdec":
            part = inner
            parts.append(heading(inner, "~"))
        parts.append(_setting(setting, others))
    return "\n".join(parts)


def _section_about(section: str) -> str:
    field = Experiment.model_fields.get(section)
    if field is None:
        return ""
    return escaped(_first(getattr(field.annotation, "__doc__", ""))) + "\n"


def _setting(setting: Setting, others: Mapping[str, Mapping[str, str]]) -> str:
    lines = [
        f".. confval:: {setting.key}",
        f"   :type: {literal(setting.type)}",
        f"   :default: {literal(setting.value)}",
        "",
        f"   {escaped(setting.description)}",
    ]
    values: dict[str, list[str]] = {}
    for preset, settings in others.items():
        value = settings.get(setting.key, setting.value)
        if value != setting.value and setting.key not in ("name", "preset"):
            values.setdefault(value, []).append(preset)
        for dataset, value in _on_datasets(preset, setting.key):
            values.setdefault(value, []).append(f"{preset} on {dataset}")
    if values:
        shown = "; ".join(
            f"{', '.join(map(escaped, presets))}: {literal(value)}"
            for value, presets in values.items()
        )
        lines += ["", f"   :Presets: {shown}"]
    return "\n".join([*lines, "", ""])


def _on_datasets(preset: str, key: str) -> Iterator[tuple[str, str]]:
    """Yield what a preset sets on a data set."""
    for dataset, changes in PRESETS[preset].on_dataset.items():
        value: Any = changes
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None:
            shown = str(value).replace("'", "")
            yield dataset, shown


# Data sets


_FUNCTIONS = {
    "assets": "datasets download",
    "check": "datasets check",
    "fake": "datasets fake",
    "prepare": "datasets prepare",
    "recording": "datasets prepare",
}


def _datasets_page() -> str:
    infos = list_datasets()
    rows = [
        (
            f":ref:`{info.name} <dataset-{info.name}>`",
            escaped(info.title),
            "simulated" if info.simulated else "measured",
            str(len(info.subjects) or "any"),
            escaped(info.licence),
        )
        for info in infos
    ]
    parts = [
        heading("All data sets", "="),
        "The data sets that ``calcarine.datasets.load_dataset`` and ``--dataset`` take. "
        ":doc:`/datasets` shows how to get and prepare them, and :doc:`/own-data` how to describe "
        "your own files.\n",
        table(("name", "what it is", "responses", "subjects", "terms"), rows, (15, 35, 12, 10, 28)),
    ]
    return "\n".join([*parts, *map(_dataset, infos)])


def _dataset(info: Any) -> str:
    reader = find_reader(info.name)
    names = [
        command for name, command in _FUNCTIONS.items() if callable(getattr(reader, name, None))
    ]
    links = ", ".join(f":ref:`{name} <{label(name)}>`" for name in dict.fromkeys(names))
    fields = [
        ("Subjects", ", ".join(map(literal, info.subjects)) or "any name"),
        ("Source", escaped(info.source)),
        ("Terms", escaped(info.licence)),
        ("Files", ", ".join(literal(name) for name in info.files) or "none"),
    ]
    if info.terms is not None:
        fields.append(
            (
                "Before a download",
                f"`{info.terms.title} <{info.terms.url}>`__. " + escaped(info.terms.summary),
            )
        )
    if info.access:
        fields.append(("Access", escaped(info.access)))
    fields.append(("Commands", links or "none; calcarine simulates the data when you load them"))
    lines = [f".. _dataset-{info.name}:\n", heading(info.name, "-"), f"{escaped(info.title)}.\n"]
    lines += [f":{name}: {text}" for name, text in fields]
    lines.append("")
    if info.options:
        rows = [(literal(name), escaped(text)) for name, text in info.options]
        lines.append("Options, as ``--set dataset.options.NAME=VALUE`` or as keyword arguments:\n")
        lines.append(table(("option", "meaning"), rows, (20, 80)))
    return "\n".join(lines)


# Protocols


def _protocols_page() -> str:
    protocols = [find_protocol(name) for name in list_protocols()]
    rows = [
        (
            f":ref:`{each.name} <protocol-{each.name}>`",
            escaped(each.title),
            str(len(each().metrics())),
            escaped(each.details),
        )
        for each in protocols
    ]
    parts = [
        heading("All protocols and metrics", "="),
        "A protocol is a named, exact way to compute a set of metrics. Scores of different "
        "protocols are not comparable. :doc:`/protocols` compares the definitions and shows how to "
        "score pictures.\n",
        table(("name", "protocol", "metrics", "what it does differently"), rows, (16, 28, 8, 48)),
    ]
    return "\n".join([*parts, *map(_protocol, protocols)])


def _protocol(protocol: Any) -> str:
    rows = [
        (
            escaped(metric.name),
            "higher" if metric.higher_is_better else "lower",
            escaped(", ".join(metric.needs)) or "nothing",
            escaped(metric.definition),
        )
        for metric in protocol().metrics()
    ]
    about = f"{escaped(protocol.title)}. Source: {escaped(protocol.source)}.\n"
    lines = [f".. _protocol-{protocol.name}:\n", heading(protocol.name, "-"), about]
    lines.append(f"{escaped(protocol.details)}.\n")
    columns = ("metric", "better", "needs, besides pictures", "definition")
    return "\n".join([*lines, table(columns, rows, (24, 9, 19, 48))])
