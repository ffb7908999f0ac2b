"""Voxel-wise encoding: which parts of a diffusion model explain which parts of the brain."""

from calcarine.encoding.analysis import Analysis, AnalysisPlan, analyse
from calcarine.encoding.models import (
    EncodingScores,
    MeanResponses,
    UniqueVariance,
    encode,
    unique_variance,
)
from calcarine.encoding.region_scores import normalised, region_table, unique_table, winners
from calcarine.encoding.significance import correlation_p, discoveries, permutation_p
from calcarine.simulation.voxels import simulate_voxels

__all__ = [
    "Analysis",
    "AnalysisPlan",
    "EncodingScores",
    "MeanResponses",
    "UniqueVariance",
    "analyse",
    "correlation_p",
    "discoveries",
    "encode",
    "normalised",
    "permutation_p",
    "region_table",
    "simulate_voxels",
    "unique_table",
    "unique_variance",
    "winners",
]
