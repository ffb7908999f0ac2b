"""Cross references: from names in docstrings and in code spans to the pages about them."""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any

from docutils import nodes
from docutils.utils.math import latex2mathml
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.domains.python import ObjectEntry
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode

from _site.gallery import GALLERIES
from _site.public_names import home, public_names

_DEFINED: dict[str, str] = {}
"""Public names by where the objects are defined."""
_COMMANDS: set[str] = set()


def know(defined: dict[str, str], commands: set[str]) -> None:
    """Take what was learnt when the pages were generated."""
    _DEFINED.update(defined)
    _COMMANDS.update(commands)


def add_front_door(app: Sphinx, env: BuildEnvironment) -> None:
    """Let ``calcarine.RidgeCV`` refer to the page of ``calcarine.linear.RidgeCV``."""
    objects = env.get_domain("py").objects
    for name in public_names()["calcarine"]:
        full = f"calcarine.{name}"
        entry = objects.get(home(full))
        if entry is not None and full not in objects:
            objects[full] = ObjectEntry(entry.docname, entry.node_id, entry.objtype, False)


def resolve(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, contnode: nodes.TextElement
) -> nodes.Element | None:
    """Resolve a reference to a Python object that Sphinx did not find.

    A name of calcarine that exists but has no page is shown without a link; one that does not
    exist is left to Sphinx, which warns. Names of other packages and of parameters have no link.
    """
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"].lstrip(".~")
    objects = env.get_domain("py").objects
    for name in _candidates(target):
        if name in objects:
            entry = objects[name]
            return make_refnode(
                app.builder, node["refdoc"], entry.docname, entry.node_id, contnode, name
            )
    if target in public_names():
        page = f"generated/api/{target}"
        return make_refnode(app.builder, node["refdoc"], page, "", contnode, target)
    if not target.startswith("calcarine.") or _exists(target):
        return contnode
    return None


def _candidates(target: str) -> list[str]:
    """Return the public names that a text may mean."""
    first, *rest = target.split(".")
    found = []
    for length in range(len(target.split(".")), 0, -1):
        parts = target.split(".")
        public = _DEFINED.get(".".join(parts[:length]))
        if public is not None:
            found.append(".".join([public, *parts[length:]]))
    # Names that cannot be those of a parameter: classes, and words that are joined by "_".
    if re.fullmatch(r"[A-Z]\w*[a-z]\w*|[a-z]+_\w+", first):
        homes = {
            home(f"{package}.{first}")
            for package, names in public_names().items()
            if first in names
        }
        if len(homes) == 1:
            found.append(".".join([*homes, *rest]))
    return found


def _exists(name: str) -> bool:
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: Any = import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            if not hasattr(found, part) and part not in getattr(found, "__annotations__", {}):
                return False
            found = getattr(found, part, None)
        return True
    return False


def link_code(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Link code that names a public object, a setting or a command to the page about it."""
    for node in list(doctree.findall(nodes.literal)):
        if _inside(node, (nodes.reference, nodes.title, nodes.term, nodes.literal_block)):
            continue
        found = _page_about(app.env, node.astext(), docname)
        if found is None or found[0] == docname:
            continue
        page, anchor = found
        address = app.builder.get_relative_uri(docname, page) + (f"#{anchor}" if anchor else "")
        link = nodes.reference("", "", internal=True, refuri=address)
        node.replace_self(link)
        link += node


def _inside(node: nodes.Node, kinds: tuple[type, ...]) -> bool:
    parent = node.parent
    while parent is not None:
        if isinstance(parent, kinds):
            return True
        parent = parent.parent
    return False


def _page_about(env: BuildEnvironment, text: str, docname: str) -> tuple[str, str] | None:
    if text in public_names() and text != "calcarine":
        return f"generated/api/{text}", ""
    for name in _names_in(text, docname):
        entry = env.get_domain("py").objects.get(name)
        if entry is not None:
            return entry.docname, entry.node_id
    setting = env.get_domain("std").objects.get(
        ("confval", text.removeprefix("--set ").partition("=")[0])
    )
    if setting is not None and "." in text:
        return setting
    words = text.split()
    if words[:1] == ["calcarine"]:
        for length in (3, 2):
            command = " ".join(words[1:length])
            if len(words) >= length and command in _COMMANDS:
                return "generated/commands", "command-" + command.replace(" ", "-")
    return None


def _names_in(text: str, docname: str) -> list[str]:
    """Return the public names that code may be about, the likeliest first."""
    if text.startswith("calcarine."):
        # Attributes of a class are described on its page.
        return [text, *_candidates(text), text.rpartition(".")[0]]
    front = re.match(r"ca\.(\w+)", text)
    if front is not None:
        return [f"calcarine.{front[1]}"]
    # In docstrings, names in code are those of parameters as well.
    made = docname.startswith("generated/") and not docname.startswith(tuple(GALLERIES.values()))
    return [] if made else _candidates(text)


_PYTHON = re.compile(r"^(import|from) \w", re.MULTILINE)
_SHELL = re.compile(r"^\s*(calcarine|make|pip|python|export|#SBATCH|--set) ?", re.MULTILINE)


def guess_language(app: Sphinx, doctree: nodes.document) -> None:
    """Colour indented blocks of code, which name no language, by what they hold."""
    if not str(doctree.get("source", "")).endswith(".md"):
        return
    for node in doctree.findall(nodes.literal_block):
        if node.get("language", "default") in ("default", "none") or "language" not in node:
            text = node.astext()
            kind = "python" if _PYTHON.search(text) else "shell" if _SHELL.search(text) else "text"
            node["language"] = kind


def _inline_math(writer: Any, node: nodes.math) -> None:
    writer.body.append(latex2mathml.tex2mathml(node.astext()))
    raise nodes.SkipNode


def _block_math(writer: Any, node: nodes.math_block) -> None:
    writer.body.append(f"<p>{latex2mathml.tex2mathml(node.astext(), as_block=True)}</p>")
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Connect everything."""
    app.connect("env-updated", add_front_door)
    app.connect("missing-reference", resolve)
    app.connect("doctree-read", guess_language)
    app.connect("doctree-resolved", link_code)
    # MathML, which browsers show without any download.
    app.add_html_math_renderer("mathml", (_inline_math, None), (_block_math, None))
