"""The page of many runs: one file that works offline and links to their reports."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from calcarine.files import write_text
from calcarine.reporting.html_pages import environment

__all__ = ["build_many_page"]

_CLASSES = {
    "failed": "no",
    "unfinished": "open",
    "not started": "open",
    "running": "open",
    "finished": "",
}


def build_many_page(content: Mapping[str, Any], path: Path) -> Path:
    """Write the page of many runs.

    Parameters
    ----------
    content : mapping
        ``title``, ``simulated``, ``runs`` (a list with name, subject, label, state, stage, reason
        and hours) and ``scores`` (a list with label, method, metric, value, ci_low, ci_high,
        subjects and images).
    path : Path
        In the folder of the runs.

    Returns
    -------
    Path
    """
    tables: dict[str, dict[str, Any]] = {}
    for row in content["scores"]:
        table = tables.setdefault(row["label"], {"metrics": [], "methods": {}, "subjects": 0})
        if row["metric"] not in table["metrics"]:
            table["metrics"].append(row["metric"])
        table["methods"].setdefault(row["method"], {})[row["metric"]] = row
        table["subjects"] = max(table["subjects"], row["subjects"])
    page = (
        environment()
        .get_template("many.html.j2")
        .render(
            **content,
            tables=tables,
            classes=_CLASSES,
            finished=sum(run["state"] == "finished" for run in content["runs"]),
            failed=sum(run["state"] == "failed" for run in content["runs"]),
        )
    )
    write_text(path, page)
    return path
