"""Self-test of the audit: how often it finds simulated errors and flags valid pipelines."""

from __future__ import annotations

from calcarine.audit.selftest.cases import CASES, SelfTestCase
from calcarine.audit.selftest.detection import HEADINGS, Detection, detect

__all__ = ["CASES", "HEADINGS", "Detection", "SelfTestCase", "detect"]
