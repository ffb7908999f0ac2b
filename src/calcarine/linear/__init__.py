"""Ridge regression at scale: functions, scikit-learn estimators, banded ridge and storage."""

from calcarine.linear._inputs import grouped_folds
from calcarine.linear._predictors import ComputedMatrix
from calcarine.linear._results import EDGE_SHARE, RidgeEdgeWarning, RidgeResult, predict_linear
from calcarine.linear._validation import (
    RidgeError,
    RidgeNotFittedError,
    RidgeSettingError,
    RidgeShapeError,
    RidgeTypeError,
)
from calcarine.linear.banded_ridge import (
    BandedRidgeResult,
    VariancePartition,
    banded_ridge_cv,
    partition_variance,
    split_r2,
)
from calcarine.linear.delays import Delayer
from calcarine.linear.estimators import BandedRidgeCV, RidgeCV
from calcarine.linear.held_out import iter_held_out
from calcarine.linear.ridge import DEFAULT_ALPHAS, iter_ridge_cv, ridge_cv
from calcarine.linear.storage import load, save

__all__ = [
    "DEFAULT_ALPHAS",
    "EDGE_SHARE",
    "BandedRidgeCV",
    "BandedRidgeResult",
    "ComputedMatrix",
    "Delayer",
    "RidgeCV",
    "RidgeEdgeWarning",
    "RidgeError",
    "RidgeNotFittedError",
    "RidgeResult",
    "RidgeSettingError",
    "RidgeShapeError",
    "RidgeTypeError",
    "VariancePartition",
    "banded_ridge_cv",
    "grouped_folds",
    "iter_held_out",
    "iter_ridge_cv",
    "load",
    "partition_variance",
    "predict_linear",
    "ridge_cv",
    "save",
    "split_r2",
]
