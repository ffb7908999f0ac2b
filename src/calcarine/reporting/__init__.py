"""Figures and the HTML report of a finished run."""

from calcarine.reporting.report import build_report, main_figures

__all__ = ["build_report", "main_figures"]
