"""The directive ``flowchart``: a chart of `charts` as a drawing with links, and in words."""

from __future__ import annotations

import textwrap
from html import escape
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from _site.charts import CHARTS, Answer, Question
from _site.public_names import page_of

_LINE = 17
_PAD = 9
_GAP = 10
_BETWEEN = 34
_COLUMNS = ((0, 216), (262, 268), (566, 294))
"""Left edge and width of the questions, the conditions and the results."""
_LETTERS = (22, 34, 34)
"""Letters of a line in each column."""
_WIDTH = 860
_OPENED = '<details class="flowchart-words"><summary>The same in words</summary>'


class flowchart(nodes.General, nodes.Element):  # noqa: N801
    """Stands for a chart until links can be resolved."""


class FlowchartDirective(SphinxDirective):
    """Show a chart by its name."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        if name not in CHARTS:
            raise self.error(f"There is no flowchart {name}; there are {', '.join(CHARTS)}.")
        return [flowchart(chart=name)]


def place(target: str) -> tuple[str, str]:
    """Return page and anchor of a target of a chart."""
    kind, _, name = target.partition(":")
    if kind == "command":
        return "generated/commands", "command-" + name.replace(" ", "-")
    return (page_of(name) if kind == "name" else name), ""


def replace(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Replace the stand-ins of a page by drawings, and by lists for search and screen readers."""
    for node in list(doctree.findall(flowchart)):

        def uri(target: str) -> str:
            page, anchor = place(target)
            address = app.builder.get_relative_uri(docname, page)
            return f"{address}#{anchor}" if anchor else address

        questions = CHARTS[node["chart"]]
        drawing = nodes.raw("", _drawing(questions, uri), format="html")
        opened = nodes.raw("", _OPENED, format="html")
        closed = nodes.raw("", "</details>", format="html")
        node.replace_self([drawing, opened, *_words(questions, uri), closed])


def _words(questions: tuple[Question, ...], uri: Any) -> list[nodes.Node]:
    found: list[nodes.Node] = []
    for question in questions:
        found.append(nodes.paragraph("", "", nodes.strong("", question.text)))
        items = nodes.bullet_list()
        for answer in question.answers:
            link = nodes.reference(
                "", "", nodes.literal("", answer.then), refuri=uri(answer.target)
            )
            line = nodes.paragraph("", f"{answer.if_[0].upper()}{answer.if_[1:]}: ", link)
            items += nodes.list_item("", line)
        found.append(items)
    return found


def _drawing(questions: tuple[Question, ...], uri: Any) -> str:
    parts, top = [], 4.0
    for number, question in enumerate(questions):
        heights = [_height(answer) for answer in question.answers]
        below = sum(heights) + _GAP * (len(heights) - 1)
        size = max(_lines(question.text, 0) * _LINE + 2 * _PAD, min(below, 62))
        parts.append(_box(0, top, size, question.text, "question"))
        parts += _answers(question, heights, top, top + size / 2, uri)
        bottom = top + max(below, size)
        if number + 1 < len(questions):
            x = _COLUMNS[0][1] / 2
            parts.append(_arrow(f"M{x} {top + size} V{bottom + _BETWEEN - 3}"))
            parts.append(
                f'<text class="way" x="{x + 10}" y="{bottom + _BETWEEN / 2 - 4}">'
                f"{escape(question.otherwise)}</text>"
            )
        top = bottom + _BETWEEN
    height = top - _BETWEEN + 6
    return (
        f'<figure class="flowchart"><svg viewBox="-4 0 {_WIDTH + 8} {height}" '
        f'xmlns="http://www.w3.org/2000/svg" aria-hidden="true" focusable="false">'
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0 L8 4 L0 8 z"/></marker></defs>'
        f"{''.join(parts)}</svg></figure>"
    )


def _answers(
    question: Question, heights: list[int], top: float, middle: float, uri: Any
) -> list[str]:
    parts = []
    start, left, result = _COLUMNS[0][1], _COLUMNS[1][0], _COLUMNS[2][0]
    turn, right = (start + left) / 2, left + _COLUMNS[1][1]
    for answer, height in zip(question.answers, heights, strict=True):
        y = top + height / 2
        parts.append(_arrow(f"M{start} {middle} H{turn} V{y} H{left - 2}"))
        parts.append(_box(1, top, height, answer.if_, "condition"))
        parts.append(_arrow(f"M{right} {y} H{result - 2}"))
        box = _box(2, top, height, answer.then, "result")
        parts.append(f'<a href="{escape(uri(answer.target))}" tabindex="-1">{box}</a>')
        top += height + _GAP
    return parts


def _height(answer: Answer) -> int:
    lines = max(_lines(answer.if_, 1), _lines(answer.then, 2))
    return lines * _LINE + 2 * _PAD


def _lines(text: str, column: int) -> int:
    return len(textwrap.wrap(text, _LETTERS[column]))


def _arrow(path: str) -> str:
    return f'<path class="arrow" d="{path}" marker-end="url(#tip)"/>'


def _box(column: int, top: float, height: float, text: str, kind: str) -> str:
    left, width = _COLUMNS[column]
    lines = textwrap.wrap(text, _LETTERS[column])
    first = top + height / 2 - (len(lines) - 1) * _LINE / 2 + 5
    words = "".join(
        f'<text x="{left + width / 2}" y="{first + number * _LINE}">{escape(line)}</text>'
        for number, line in enumerate(lines)
    )
    shape = f'<rect x="{left}" y="{top}" width="{width}" height="{height}" rx="7"/>'
    return f'<g class="{kind}">{shape}{words}</g>'


def setup(app: Sphinx) -> None:
    """Register the directive."""
    app.add_node(flowchart)
    app.add_directive("flowchart", FlowchartDirective)
    app.connect("doctree-resolved", replace)
