"""The API reference: an index, one page for each package and one for each public name."""

from __future__ import annotations

import inspect
import pprint
import re
from importlib import import_module
from typing import Any

from numpydoc.docscrape_sphinx import get_doc_object

from _site.public_names import FOLDER, constant_text, home, page_of, public_names, rooms
from _site.rst import Folder, escaped, heading, indented, table

_TITLES = {"calcarine": "import calcarine as ca"}
_HEADING = {
    "calcarine.errors": "Errors that a user can fix, by kind.",
    "calcarine": "The names that a notebook needs. Each is loaded when you first use it.",
}
_INTRODUCTION = """\
Every public name of calcarine has a page. The first table is the front door, ``import calcarine
as ca``; the others are the sub-packages. Names that begin with an underscore, and modules that no
table lists, are not public and may change at any time.

"""


def write(folder: Folder) -> dict[str, str]:
    """Write all pages; return the public name of each object by where it is defined."""
    defined = {}
    for package, names in public_names().items():
        for name in names:
            full = f"{package}.{name}"
            if home(full) == full:
                value = _value(package, name)
                folder.write(f"{page_of(full)}.rst".removeprefix("generated/"), _page(full, value))
                if inspect.isclass(value) or inspect.isroutine(value):
                    defined[f"{value.__module__}.{value.__qualname__}"] = full
        folder.write(f"api/{package}.rst", _package_page(package))
    folder.write("api/index.rst", _index())
    return defined


def _value(package: str, name: str) -> Any:
    if (package, name) == ("calcarine", "audit"):
        return import_module("calcarine._front").audit
    return getattr(import_module(package), name)


def _index() -> str:
    parts = [heading("API reference", "="), _INTRODUCTION]
    links = [f"   {_title(p)} <{p}>" for _, packages in rooms() for p in packages]
    parts.append("\n".join([".. toctree::", "   :hidden:", "", *links, "", ""]))
    for theme, packages in rooms():
        parts.append(heading(theme, "-"))
        for package in packages:
            if package != "calcarine":
                link = f":doc:`{package} </{FOLDER}/{package}>`"
                parts.append(f".. rubric:: {link}\n\n{_about(package)}\n")
            parts.append(_names(package))
    return "\n".join(parts)


def _title(package: str) -> str:
    return _TITLES.get(package, package)


def _about(package: str) -> str:
    """Return the first sentence of a package."""
    about = _HEADING.get(package) or _summary(import_module(package).__doc__)
    return f"{about}\n"


def _package_page(package: str) -> str:
    title = _title(package)
    doc = inspect.cleandoc(import_module(package).__doc__ or "")
    # `calcarine.audit` is a function as well, and that is what its name refers to.
    module = "currentmodule" if package == "calcarine.audit" else "module"
    parts = [heading(title, "="), f".. py:{module}:: {package}\n", f"{doc}\n", _names(package)]
    own = [f"{package}.{name}" for name in public_names()[package]]
    links = [
        f"   {name.rpartition('.')[2]} <{page_of(name).rpartition('/')[2]}>"
        for name in own
        if home(name) == name
    ]
    parts.append("\n".join([".. toctree::", "   :hidden:", "", *links, ""]))
    return "\n".join(parts)


def _names(package: str) -> str:
    """Return the table of the public names of a package."""
    rows = []
    for name in public_names()[package]:
        full = f"{package}.{name}"
        link = f":doc:`{name} </{page_of(full)}>`"
        home_package, _, last = home(full).rpartition(".")
        rows.append((link, _sentence(home_package, last, _value(package, name))))
    return table(("name", "what it is"), rows, (28, 72))


def _sentence(package: str, name: str, value: Any) -> str:
    if inspect.isclass(value) or inspect.isroutine(value):
        return _summary(value.__doc__)
    return _summary(_constant_about(package, name, value))


def _summary(doc: str | None) -> str:
    """Return the first sentence of a docstring."""
    paragraph = inspect.cleandoc(doc or "").partition("\n\n")[0]
    text = " ".join(paragraph.split())
    return re.split(r"(?<=[a-z0-9`)\]]\.) (?=[A-Z`])", text)[0]


def _page(full: str, value: Any) -> str:
    package, _, name = full.rpartition(".")
    parts = [heading(full, "="), f".. py:currentmodule:: {package}\n"]
    front = f"calcarine.{name}"
    if package != "calcarine" and home(front) == full:
        parts.append(f"Also available as ``ca.{name}`` after ``import calcarine as ca``.\n")
    if full == "calcarine.audit":
        parts.append(_written_out(full, value))
    elif inspect.isclass(value):
        members = ", ".join(_members(value))
        lines = [f".. autoclass:: {full}{_fields_signature(value)}"]
        lines += [f"   :members: {members}", "   :undoc-members:"] if members else []
        parts.append("\n".join([*lines, "   :member-order: bysource", ""]))
        parts += _fields(full, value)
    elif inspect.isroutine(value):
        parts.append(f".. autofunction:: {full}{_own_signature(value)}\n")
    else:
        parts.append(_constant(full, value))
    names = dict.fromkeys([full, front])
    parts.append(
        f".. minigallery:: {' '.join(names)}\n   :add-heading: Tutorials\n   :heading-level: -\n"
    )
    return "\n".join(parts)


def _members(value: type) -> list[str]:
    """Return the public methods and properties that calcarine defines, also in base classes."""
    found: dict[str, None] = {}
    for part in value.__mro__:
        if not part.__module__.startswith("calcarine"):
            continue
        for name, member in vars(part).items():
            kinds = (classmethod, staticmethod, property)
            if name.startswith("_") or not (
                inspect.isfunction(member) or isinstance(member, kinds)
            ):
                continue
            found.setdefault(name)
    return list(found)


def _fields_signature(value: type) -> str:
    """Return the signature of a pydantic model; defaults that are models would fill the page."""
    fields = getattr(value, "model_fields", {})
    shown = []
    for name, field in fields.items():
        plain = isinstance(field.default, str | int | float | None)
        default = "" if field.is_required() else f"={field.default!r}" if plain else "=..."
        shown.append(name + default)
    return f"(*, {', '.join(shown)})" if shown else ""


def _fields(full: str, value: type) -> list[str]:
    """Return the descriptions of the fields of a pydantic model."""
    if full == "calcarine.experiment.Experiment":
        return ["Every field and section is described in :doc:`/generated/settings`.\n"]
    fields = getattr(value, "model_fields", {})
    rows = [
        (f"``{name}``", escaped(field.description))
        for name, field in fields.items()
        if field.description
    ]
    if not rows or "Attributes\n" in (value.__doc__ or ""):
        return []
    return [table(("field", "meaning"), rows, (28, 72))]


def _own_signature(function: Any) -> str:
    """Return the signature of a function that sets its own, which its source does not show."""
    return _signature(function) if "__signature__" in vars(function) else ""


def _signature(function: Any) -> str:
    signature = inspect.signature(function)
    plain = [one.replace(annotation=one.empty) for one in signature.parameters.values()]
    return str(signature.replace(parameters=plain, return_annotation=signature.empty))


def _written_out(full: str, function: Any) -> str:
    """Return a function with its docstring, where importing the name gives something else."""
    doc = str(get_doc_object(function, "function", config={"show_class_members": False}))
    return f".. py:function:: {full}{_signature(function)}\n\n{indented(doc)}\n"


def _constant_about(package: str, name: str, value: Any) -> str:
    if name == "INFO":
        return "What is known of the data set before it is loaded."
    if name == "__version__":
        return "The version of calcarine, as text."
    reader = getattr(value, "INFO", None)
    if reader is not None:
        return f"Reader of the data set ``{reader.name}``: {reader.title}."
    return constant_text(package, name) or f"A constant of type ``{type(value).__name__}``."


def _constant(full: str, value: Any) -> str:
    package, _, name = full.rpartition(".")
    about = indented(inspect.cleandoc(_constant_about(package, name, value)))
    parts = [f".. py:data:: {full}\n", about, ""]
    shown = _shown(value)
    if shown:
        parts += [indented(f".. code-block:: python\n\n{indented(shown)}"), ""]
    return "\n".join(parts)


def _shown(value: Any) -> str:
    """Return the value as Python, or the names in it where objects would fill the page."""
    if isinstance(value, dict):
        return "\n".join(map(repr, value))
    if isinstance(value, list) and value and not isinstance(value[0], str | int | float):
        names = [getattr(one, "name", None) for one in value]
        return "\n".join(map(repr, names)) if all(names) else ""
    shown = pprint.pformat(value, width=88, sort_dicts=False)
    return "" if " at 0x" in shown or len(shown) > 6000 else shown
