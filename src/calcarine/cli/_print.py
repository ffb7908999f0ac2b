"""What several commands print."""

from __future__ import annotations

from pathlib import Path

__all__ = ["print_result"]


def print_result(run: Path) -> None:
    """Print the main scores of a run, the outcome of its audit and the paths of its pages."""
    from calcarine.reporting import headline_scores
    from calcarine.reporting.run_records import read_audit

    for line in headline_scores(run):
        print(line)
    if (audit := read_audit(run)) is not None:
        print(f"Audit: {audit['outcome']}")
    print(f"Report: {run / 'report.html'}")
    if (run / "encoding.html").exists():
        print(f"Encoding maps: {run / 'encoding.html'}")
