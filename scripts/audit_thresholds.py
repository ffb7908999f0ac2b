"""Measure valid pipelines and copies of the ground truth, for the thresholds of the audit.

python scripts/audit_thresholds.py 20

prints, for each pipeline of the self-test and over so many seeds, the extremes of the measures
that `calcarine.audit.checks.truth_copies` compares with its thresholds. Valid pipelines must stay
well on one side of them. The data are simulated.
"""

from __future__ import annotations

import sys

import numpy as np

from calcarine.audit.checks.truth_copies import (
    CELL,
    COPIED,
    CURVE,
    FINE,
    LESS,
    MORE,
    REGION,
    RISE,
    SHARE,
    measure,
)
from calcarine.audit.selftest import CASES

LOW = {"rise": RISE, "fine": FINE, "curve": CURVE, "region": REGION}
HIGH = {"phase": LESS, "amplitude": MORE, "cells": SHARE}


def main(count: int) -> None:
    """Print one row for each case: the value over all seeds that is nearest to the threshold."""
    print(f"thresholds: {LOW | HIGH}; copied share {COPIED}, detail in a region {CELL}")
    for case in CASES:
        if case.check not in ("", "truth-copies"):
            continue
        measures = [measure(case.make(seed)) for seed in range(count)]
        # For a valid pipeline the value nearest to a flag matters, for a copy the farthest one.
        near, far = (np.min, np.max) if not case.check else (np.max, np.min)
        values = {name: near([getattr(each, name) for each in measures]) for name in LOW}
        values |= {name: far([getattr(each, name) for each in measures]) for name in HIGH}
        row = "  ".join(f"{name} {value:.3f}" for name, value in values.items())
        print(f"{case.name:68s} {row}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
