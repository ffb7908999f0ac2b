"""Metric protocols of the field by name, for any folder of reconstructions.

A new metric or protocol is one class under `register_metric` or `register_protocol`.
"""

from __future__ import annotations

from calcarine.evaluation.protocols.folders import score_folder
from calcarine.evaluation.protocols.metric import METRICS, Metric, register_metric
from calcarine.evaluation.protocols.protocol import (
    PROTOCOLS,
    Protocol,
    find_protocol,
    register_protocol,
)
from calcarine.evaluation.protocols.score import score_arrays, score_pictures
from calcarine.evaluation.protocols.score_files import ScoreFile, read_scores, write_scores
from calcarine.evaluation.protocols.test_set import ScoreSettings, TestSet

__all__ = [
    "METRICS",
    "PROTOCOLS",
    "Metric",
    "Protocol",
    "ScoreFile",
    "ScoreSettings",
    "TestSet",
    "find_protocol",
    "read_scores",
    "register_metric",
    "register_protocol",
    "score_arrays",
    "score_folder",
    "score_pictures",
    "write_scores",
]
