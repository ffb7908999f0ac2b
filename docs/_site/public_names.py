"""The public names of calcarine and the page of each. Reads source text and imports nothing."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "calcarine"
FOLDER = "generated/api"

GROUPS = {
    "Start here": ("calcarine",),
    "Data": ("brain", "datasets", "stimuli", "splits", "quality", "simulation", "download"),
    "Decoding": ("decoding", "linear", "diffusion", "features", "visdec"),
    "Encoding": ("encoding",),
    "Evaluation": ("evaluation", "audit", "reporting", "study"),
    "Running and files": ("experiment", "training", "checkpoints", "files", "errors", "cli"),
}
"""Sub-packages by theme, in the order of the reference."""


@cache
def public_names() -> dict[str, tuple[str, ...]]:
    """Return the names in ``__all__`` of every package, and of `calcarine.errors`."""
    found = {}
    for file in (*sorted(SOURCE.rglob("__init__.py")), SOURCE / "errors.py"):
        names = _assigned(file, "__all__")
        if names:
            parts = file.relative_to(SOURCE).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            found[".".join(("calcarine", *parts))] = tuple(sorted(names, key=str.casefold))
    return found


def rooms() -> Iterator[tuple[str, list[str]]]:
    """Yield each theme with its packages, the inner ones after the one they belong to."""
    known = public_names()
    for theme, names in GROUPS.items():
        packages = []
        for name in names:
            full = name if name == "calcarine" else f"calcarine.{name}"
            inner = [] if name == "calcarine" else [p for p in known if p.startswith(f"{full}.")]
            packages += [full, *inner]
        yield theme, packages


@cache
def home(name: str) -> str:
    """Return the full name under which something is documented.

    Most names of the front door are those of a sub-package: ``calcarine.RidgeCV`` is described
    on the page of ``calcarine.linear.RidgeCV``.
    """
    package, _, last = name.rpartition(".")
    source = _assigned(SOURCE / "__init__.py", "_SOURCES").get(last, "")
    if package == "calcarine" and last in public_names().get(source, ()):
        return f"{source}.{last}"
    return name


@cache
def pages() -> dict[str, str]:
    """Return the page of each public name, and of each package, without ending."""
    taken: set[str] = set()
    found = {}
    for package in public_names():
        found[package] = f"{FOLDER}/{package}"
        taken.add(package.casefold())
    names = [f"{package}.{name}" for package, names in public_names().items() for name in names]
    for name in names:
        if home(name) == name:
            # Names that differ in case alone would be one file on some systems.
            file = name if name.casefold() not in taken else f"{name}-{_kind(name)}"
            taken.add(file.casefold())
            found[_key(name)] = f"{FOLDER}/{file}"
    for name in names:
        found[_key(name)] = found[_key(home(name))]
    return found


def _key(name: str) -> str:
    """Return the key in `pages`; `calcarine.audit` is a package and a function."""
    return "calcarine.audit()" if name == "calcarine.audit" else name


def page_of(name: str) -> str:
    """Return the page of a public name, without ending."""
    return pages()[_key(name)]


def _kind(name: str) -> str:
    last = name.rpartition(".")[2]
    if last.isupper():
        return "constant"
    return "class" if last[0].isupper() else "function"


@cache
def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def _assigned(file: Path, name: str):
    """Return the literal that a module assigns to a name."""
    for node in _tree(file).body:
        if isinstance(node, ast.Assign):
            targets = [one.id for one in node.targets if isinstance(one, ast.Name)]
            if name in targets:
                return ast.literal_eval(node.value)
    return ()


def constant_text(package: str, name: str) -> str:
    """Return the text under the assignment of a constant, or the comment above it."""
    folder = SOURCE.joinpath(*package.split(".")[1:])
    for file in sorted(folder.rglob("*.py")) if folder.is_dir() else ():
        body = _tree(file).body
        for place, node in enumerate(body):
            target = node.targets[0] if isinstance(node, ast.Assign) else None
            target = node.target if isinstance(node, ast.AnnAssign) else target
            if not isinstance(target, ast.Name) or target.id != name:
                continue
            after = body[place + 1] if place + 1 < len(body) else None
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                return str(after.value.value)
            comment = _comment_above(file, node.lineno)
            if comment:
                return comment
    return ""


def _comment_above(file: Path, line: int) -> str:
    lines = file.read_text(encoding="utf-8").splitlines()[: line - 1]
    found: list[str] = []
    while lines and lines[-1].startswith("#"):
        found.insert(0, lines.pop().lstrip("#: "))
    return " ".join(found)
