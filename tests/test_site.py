"""The documentation site is complete. Sphinx is not needed; ``make docs`` builds the site."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import typer

from calcarine.cli.main import app

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS))

from _site import charts, public_names  # noqa: E402

FROZEN = (ROOT / "tests" / "public_names.txt").read_text().splitlines()
MADE = {
    f"generated/{name}" for name in ("api/index", "commands", "settings", "datasets", "protocols")
} | {"generated/tutorials/index"}


def test_every_public_name_has_a_page():
    pages = {name: public_names.page_of(name) for name in FROZEN}
    assert all(page.startswith("generated/api/calcarine.") for page in pages.values())


def test_names_share_a_page_only_where_they_are_one_object():
    files: dict[str, set[str]] = {}
    for name in FROZEN:
        page = public_names.page_of(name).casefold()
        files.setdefault(page, set()).add(public_names.home(name))
    assert {page: names for page, names in files.items() if len(names) > 1} == {}


def test_names_of_the_front_door_are_described_where_they_are_defined():
    assert public_names.home("calcarine.RidgeCV") == "calcarine.linear.RidgeCV"
    assert public_names.home("calcarine.score") == "calcarine.score"
    assert public_names.page_of("calcarine.audit") != public_names.page_of("calcarine.audit.audit")


def test_every_package_is_in_one_table_of_the_reference():
    listed = [package for _, packages in public_names.rooms() for package in packages]
    assert sorted(listed) == sorted(public_names.public_names())


def toctrees() -> list[str]:
    """Pages in the toctrees of the pages in docs, without ending."""
    found = []
    for page in DOCS.glob("*.md"):
        for tree in re.findall(
            r"```{toctree}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL
        ):
            lines = [line for line in tree.splitlines() if line and not line.startswith(":")]
            found += [re.sub(r".*<(.*)>", r"\1", line) for line in lines]
    return found


def test_every_page_is_in_one_toctree():
    pages = [*DOCS.glob("*.md"), *DOCS.glob("zh/*.md")]
    written = {page.relative_to(DOCS).with_suffix("").as_posix() for page in pages} - {"index"}
    assert sorted(toctrees()) == sorted(written | MADE)


def commands() -> set[str]:
    found = set()
    for name, command in typer.main.get_command(app).commands.items():
        inner = getattr(command, "commands", {})
        found |= {f"{name} {each}" for each in inner} or {name}
    return found


@pytest.mark.parametrize("chart", charts.CHARTS)
def test_every_box_of_a_flowchart_leads_to_a_page(chart):
    answers = [answer for question in charts.CHARTS[chart] for answer in question.answers]
    known = {f"command:{name}" for name in commands()} | {f"name:{name}" for name in FROZEN}
    known |= {f"page:{page.stem}" for page in DOCS.glob("*.md")}
    assert [answer.target for answer in answers if answer.target not in known] == []


def test_every_flowchart_is_shown():
    shown = re.findall(r"```{flowchart} (\w+)", (DOCS / "which-one.md").read_text(encoding="utf-8"))
    assert sorted(shown) == sorted(charts.CHARTS)
