"""Self-test of the audit: how often it finds simulated errors and flags valid pipelines."""

from __future__ import annotations

from calcarine.audit.selftest.cases import PLANTED, Planted
from calcarine.audit.selftest.detection import HEADINGS, Detection, detect

__all__ = ["HEADINGS", "PLANTED", "Detection", "Planted", "detect"]
