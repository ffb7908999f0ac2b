"""The checks of an audit; importing this package registers all of them."""

from __future__ import annotations

from calcarine.audit.checks.blends import PixelBlends, RetrievedImages
from calcarine.audit.checks.brain_dependence import IgnoresTheBrain
from calcarine.audit.checks.generalisation import DimensionCollapse, ScoreByDistance
from calcarine.audit.checks.near_duplicates import NearDuplicates
from calcarine.audit.checks.normalisation import StatisticsFromTest, TransductivePrediction
from calcarine.audit.checks.pretraining_and_choices import ChoicesOnTest, PretrainingOnTest
from calcarine.audit.checks.reported_numbers import NumbersFromPictures
from calcarine.audit.checks.sample_choice import BestOfSamples
from calcarine.audit.checks.splits import ChosenStimuli, RepeatsOverFolds, SplitLeaks
from calcarine.audit.checks.truth_copies import TruthCopies

__all__ = [
    "BestOfSamples",
    "ChoicesOnTest",
    "ChosenStimuli",
    "DimensionCollapse",
    "IgnoresTheBrain",
    "NearDuplicates",
    "NumbersFromPictures",
    "PixelBlends",
    "PretrainingOnTest",
    "RepeatsOverFolds",
    "RetrievedImages",
    "ScoreByDistance",
    "SplitLeaks",
    "StatisticsFromTest",
    "TransductivePrediction",
    "TruthCopies",
]
