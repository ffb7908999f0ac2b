"""Commands ``calcarine settings`` and ``calcarine presets``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from calcarine.cli._options import PresetName, complete_setting
from calcarine.cli.table import print_table

__all__ = ["presets", "settings"]


def settings(
    key: Annotated[
        str | None,
        typer.Argument(
            help="A section such as generation, or a setting such as generation.steps; by default "
            "all settings.",
            autocompletion=complete_setting,
        ),
    ] = None,
    preset: PresetName = None,
    json_schema: Annotated[
        bool,
        typer.Option("--json-schema", help="Print the JSON schema of the settings instead."),
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Write to a file instead; with --json-schema.")
    ] = None,
) -> None:
    """Show the settings of an experiment: key, value, type and description.

    Values are the defaults, or those of a preset. Give a setting as --set KEY=VALUE or in a YAML
    file. With the JSON schema, editors complete such a file: put the comment
    "# yaml-language-server: $schema=FILE" into its first line.
    """
    import json

    from calcarine.errors import SettingError
    from calcarine.experiment.settings_table import experiment_schema, find_settings
    from calcarine.files import write_text

    if out is not None and not json_schema:
        raise SettingError("--out is the file of the JSON schema; add --json-schema.")
    if json_schema:
        text = json.dumps(experiment_schema(), indent=2)
        if out is None:
            print(text)
        else:
            write_text(out, text + "\n")
            print(f"Wrote {out}")
        return
    rows = [(s.key, s.value, s.type, s.description) for s in find_settings(key, preset)]
    print_table("", ("setting", preset or "default", "type", "description"), rows)


def presets() -> None:
    """List the presets and what each is for."""
    from calcarine.experiment.presets import PRESETS

    print_table("", ("preset", "purpose"), [(n, preset.purpose) for n, preset in PRESETS.items()])
