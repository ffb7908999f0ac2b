"""What several commands print."""

from __future__ import annotations

from pathlib import Path

__all__ = ["print_result", "print_scores"]


def print_scores(run: Path) -> None:
    """Print the main scores of a run with their verdicts."""
    from calcarine.reporting import headline_scores

    for line in headline_scores(run):
        print(line)


def print_result(run: Path) -> None:
    """Print the main scores and notes of a run, the outcome of its audit and its pages."""
    from calcarine.reporting.retrieval_section import retrieval_lines
    from calcarine.reporting.run_records import read_audit, read_notes

    print_scores(run)
    for line in retrieval_lines(run):
        print(line)
    for note in read_notes(run):
        print(f"Note: {note}")
    if (audit := read_audit(run)) is not None:
        print(f"Audit: {audit['outcome']}")
    print(f"Report: {run / 'report.html'}")
    if (run / "encoding.html").exists():
        print(f"Encoding maps: {run / 'encoding.html'}")
