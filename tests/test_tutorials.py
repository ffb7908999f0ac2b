"""The scripts of the gallery of tutorials. ``make docs`` runs them; these tests only read them."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS))

from _site import gallery, public_names  # noqa: E402

SCRIPTS = [path for folder in gallery.GALLERIES for path in sorted((DOCS / folder).glob("*.py"))]
PUBLIC = public_names.public_names()


@pytest.fixture(params=SCRIPTS, ids=lambda path: path.stem)
def script(request) -> Path:
    return request.param


def test_every_script_is_in_the_order_of_the_gallery():
    for folder in gallery.GALLERIES:
        names = {path.name for path in (DOCS / folder).glob("*.py")}
        assert names == set(gallery.ORDER)
        assert (DOCS / folder / "GALLERY_HEADER.rst").is_file()


def test_every_gallery_is_in_a_toctree():
    pages = "".join(page.read_text(encoding="utf-8") for page in DOCS.glob("*.md"))
    assert all(f"\n{folder}/index\n" in pages for folder in gallery.GALLERIES.values())


def test_a_script_has_a_title_text_and_the_word_simulated(script):
    text = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8")))
    title, line, rest = text.split("\n", 2)
    assert set(line) == {"="} and len(line) == len(title)
    assert len(rest.split("\n\n")[0].split()) > 15  # the first paragraph introduces the page
    assert "**simulated**" in rest


def test_code_and_text_take_turns(script):
    blocks = re.split(r"^# %%\n", script.read_text(encoding="utf-8"), flags=re.MULTILINE)
    words = sum(
        len(line.split()) for block in blocks for line in block.splitlines() if "# " in line
    )
    assert len(blocks) > 7 and words > 250


def private(tree: ast.AST) -> set[str]:
    """Names in code that begin with an underscore, but for ``_`` itself and ``__dunder__``."""
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    names |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names |= set((node.module or "").split("."))
            names |= {one.name for one in node.names}
    return {name for name in names if re.match(r"_[^_]", name)}


def test_a_script_uses_public_names_only(script):
    tree = ast.parse(script.read_text(encoding="utf-8"))
    assert private(tree) == set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            inner = [one.name for one in node.names if one.name.startswith("calcarine.")]
            assert inner == []
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("calcarine"):
            # A module of a package, such as calcarine.linear.ridge, is not public.
            assert node.module in PUBLIC
            assert {one.name for one in node.names} <= set(PUBLIC[node.module])
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "ca":
            assert node.attr in PUBLIC["calcarine"]


def test_links_of_a_script_lead_to_pages(script):
    text = script.read_text(encoding="utf-8")
    for target in re.findall(r":doc:`(?:[^`<]*<)?([^`>]+)>?`", text):
        place = script.parent / f"{target}.py"
        if target.startswith("/"):
            place = DOCS / f"{target[1:]}.md"
        assert place.is_file(), target


def test_names_of_the_package_in_the_text_exist(script):
    for name in re.findall(r"``(?:ca|calcarine)\.([\w.]+)``", script.read_text(encoding="utf-8")):
        found = importlib.import_module("calcarine")
        groups = {"datasets", "metrics", "protocols", "decoders", "generators", "audit_checks"}
        if name not in groups:
            for part in name.split("."):
                found = getattr(found, part)
