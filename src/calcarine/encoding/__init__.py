"""Voxel-wise encoding: which parts of a diffusion model predict which parts of the brain."""

from calcarine.encoding.analysis import Analysis, analyse
from calcarine.encoding.mean_responses import MeanResponses
from calcarine.encoding.models import EncodingScores, UniqueVariance, encode, unique_variance
from calcarine.encoding.plan import ANALYSES, AnalysisPlan
from calcarine.encoding.region_scores import normalised, region_table, unique_table, winners
from calcarine.encoding.significance import correlation_p, discoveries, permutation_p

__all__ = [
    "ANALYSES",
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
    "unique_table",
    "unique_variance",
    "winners",
]
