"""The inputs of an audit; each optional input can be None, and checks report what they lack."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calcarine.audit.findings import EvidenceImage
from calcarine.audit.picture_features import SIDE, SPACES, pixels, rows
from calcarine.errors import CalcarineError, SettingError, ShapeError
from calcarine.evaluation.inputs.image_stacks import as_uint8
from calcarine.stimuli import StimulusSet, resize_images

__all__ = [
    "AuditInputs",
    "DecoderChoices",
    "FitStatistics",
    "PictureSet",
    "Prediction",
    "ReportedScore",
    "SampleChoice",
    "TrialTable",
]

FloatArray = NDArray[np.float64]
Read = Callable[[int, int], NDArray[Any]]
_BLOCK = 2048


class PictureSet:
    """Named pictures with one or several samples each, read on access.

    Parameters
    ----------
    ids : sequence of str
    read : callable
        Called with (row, sample); returns a uint8 or float (in [0, 1]) array of shape
        (height, width, 3).
    samples : int
        Number of samples of each picture.

    Examples
    --------
    >>> import numpy as np
    >>> pictures = PictureSet.of(["a", "b"], np.zeros((2, 8, 8, 3), np.uint8))
    >>> len(pictures), pictures.full(0).shape
    (2, (8, 8, 3))
    """

    def __init__(self, ids: Sequence[str], read: Read, samples: int = 1) -> None:
        self.ids, self.read, self.samples = tuple(ids), read, samples

    @classmethod
    def of(cls, ids: Sequence[str], images: NDArray[Any]) -> PictureSet:
        """Make a set from an array of shape (n, height, width, 3) or (n, samples, ...)."""
        images = images[:, None] if images.ndim == 4 else images
        if images.ndim != 5 or len(images) != len(ids) or images.shape[-1] != 3:
            raise ShapeError(
                f"An array of shape {images.shape} does not fit {len(ids)} ids; give an array of "
                "shape (n, height, width, 3) or (n, samples, height, width, 3)."
            )
        return cls(ids, lambda i, s: np.asarray(images[i, s]), images.shape[1])

    def __len__(self) -> int:
        return len(self.ids)

    def full(self, row: int, sample: int = 0) -> NDArray[np.uint8]:
        """Return one picture at its own size."""
        return as_uint8(self.read(row, sample))

    def shown(self, row: int, role: str) -> EvidenceImage:
        """Return one picture as evidence, with its role and name as caption."""
        return EvidenceImage(self.full(row), f"{role}: {self.ids[row]}")

    @cached_property
    def small(self) -> NDArray[np.uint8]:
        """The first samples at 64 x 64 pixels, shape (n, 64, 64, 3)."""
        return self.small_sample(0)

    def small_sample(self, sample: int) -> NDArray[np.uint8]:
        """Return one sample of each picture at 64 x 64 pixels."""
        result = np.empty((len(self), SIDE, SIDE, 3), np.uint8)
        for row in range(len(self)):
            picture = self.full(row, sample)
            same = picture.shape[:2] == (SIDE, SIDE)
            result[row] = picture if same else resize_images(picture[None], SIDE)[0]
        return result

    @cached_property
    def digests(self) -> tuple[str, ...]:
        """SHA-256 of the first sample of each picture."""
        return tuple(self._digest(row) for row in range(len(self)))

    def _digest(self, row: int) -> str:
        picture = np.ascontiguousarray(self.full(row))
        return hashlib.sha256(f"{picture.shape}".encode() + picture.tobytes()).hexdigest()

    def stimuli(self, prefix: str) -> StimulusSet:
        """Return the small copies as stimuli with ids that begin with ``prefix``."""
        return StimulusSet.from_arrays(self.small, [prefix + key for key in self.ids])


@dataclass(frozen=True, eq=False)
class TrialTable:
    """A table with one row for each trial; unknown columns are None.

    Parameters
    ----------
    stimulus : array of str, shape (trial,)
    role : array of str, optional
        "train" or "test".
    session : int array, optional
    fold : array of str, optional
        Fold of a cross-validation.
    picture : array of str, optional
        Name of the picture, for example its COCO id, if stimulus ids do not identify pictures.
    pretrain : bool array, optional
        Whether the response was used in self-supervised training.
    fold_role : {"outer", "inner"}
        "outer" folds give the score, "inner" folds only choose penalties.

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.audit import TrialTable
    >>> stimulus, role = np.array(["a", "b", "b"]), np.array(["train", "test", "test"])
    >>> trials = TrialTable(stimulus, role)
    >>> trials.rows("test").tolist()
    [False, True, True]
    """

    stimulus: NDArray[np.str_]
    role: NDArray[np.str_] | None = None
    session: NDArray[np.int64] | None = None
    fold: NDArray[np.str_] | None = None
    picture: NDArray[np.str_] | None = None
    pretrain: NDArray[np.bool_] | None = None
    fold_role: str = "outer"

    def __post_init__(self) -> None:
        for name in ("role", "session", "fold", "picture", "pretrain"):
            column = getattr(self, name)
            if column is not None and len(column) != len(self.stimulus):
                raise ShapeError(
                    f"The column {name} has {len(column)} rows for {len(self.stimulus)} trials; "
                    "give one row for each trial."
                )
        if self.role is not None:
            other = sorted(set(self.role.tolist()) - {"train", "test"})
            if other:
                raise CalcarineError(
                    f"The role of a trial must be train or test, not '{other[0]}'."
                )

    def rows(self, role: str) -> NDArray[np.bool_] | None:
        """Return which trials have a role; None if roles are unknown or no trial has it."""
        if self.role is None:
            return None
        result = np.asarray(self.role == role)
        return result if result.any() else None


@dataclass(frozen=True, eq=False)
class FitStatistics:
    """Stored means or scales, and the same statistics of training alone and of all rows.

    Parameters
    ----------
    name : str
        For example "mean of session 3".
    stored, by_train, by_all : float array of shape (voxel,)
    unit : float array of shape (voxel,)
        Unit of differences: the standard deviation of each voxel.

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.audit import FitStatistics
    >>> rng = np.random.default_rng(0)
    >>> train, test = rng.standard_normal((80, 5)), rng.standard_normal((20, 5))
    >>> both = np.concatenate([train, test])
    >>> stored = both.mean(axis=0)  # a scaler that was fitted on the test set too
    >>> unit = both.std(axis=0)
    >>> each = FitStatistics("mean", stored, train.mean(axis=0), both.mean(axis=0), unit)
    >>> np.array_equal(each.stored, each.by_all)
    True
    """

    name: str
    stored: FloatArray
    by_train: FloatArray
    by_all: FloatArray
    unit: FloatArray


@dataclass(frozen=True, eq=False)
class Prediction:
    """Predicted features of the test stimuli.

    Parameters
    ----------
    name : str
    values : float array of shape (n, d)
    truth : float array of shape (n, d), optional
    train : float array of shape (m, d), optional
        Targets of training.
    predict : callable, optional
        Called with row numbers; predicts these rows alone.

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.audit import Prediction
    >>> values = np.random.default_rng(0).standard_normal((10, 4))
    >>> prediction = Prediction("z", values, predict=lambda rows: values[rows])
    >>> prediction.predict(np.array([3])).shape  # a stimulus predicted alone
    (1, 4)
    """

    name: str
    values: NDArray[Any]
    truth: NDArray[Any] | None = None
    train: NDArray[Any] | None = None
    predict: Callable[[NDArray[np.int64]], NDArray[Any]] | None = None

    def __post_init__(self) -> None:
        shape = np.shape(self.values)
        if len(shape) != 2 or not np.isfinite(self.values).all():
            raise ShapeError(
                f"Predictions of {self.name} have shape {shape} or values that are not finite; "
                "give one row of finite numbers for each test stimulus."
            )
        for what, other, required in (
            ("test targets", self.truth, shape[0]),
            ("training targets", self.train, None),
        ):
            if other is None:
                continue
            fits = np.ndim(other) == 2 and np.shape(other)[1] == shape[1]
            if not fits or required not in (None, len(other)) or not np.isfinite(other).all():
                raise ShapeError(
                    f"The {what} of {self.name} have shape {np.shape(other)} or values that are "
                    f"not finite; give finite numbers that fit predictions of shape {shape}."
                )


@dataclass(frozen=True)
class ReportedScore:
    """A reported score as it was printed.

    Parameters
    ----------
    metric : str
    value : float
    decimals : int
        Number of printed decimals.

    Examples
    --------
    >>> from calcarine.audit import ReportedScore
    >>> str(ReportedScore("PixCorr", 0.32, decimals=2))
    'PixCorr 0.32'
    """

    metric: str
    value: float
    decimals: int

    def __str__(self) -> str:
        return f"{self.metric} {self.value:.{self.decimals}f}"


@dataclass(frozen=True, eq=False)
class SampleChoice:
    """Samples of each stimulus, and which one was chosen.

    Parameters
    ----------
    samples : PictureSet
        All samples.
    chosen : int array of shape (n,)
    reapplied : int array of shape (n,), optional
        The choice when the stated rule is applied again without the ground truth.

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.audit import PictureSet, SampleChoice
    >>> samples = np.zeros((2, 5, 8, 8, 3), np.uint8)  # five samples of two stimuli
    >>> choice = SampleChoice(PictureSet.of(["a", "b"], samples), chosen=np.array([3, 0]))
    >>> choice.samples.samples
    5
    """

    samples: PictureSet
    chosen: NDArray[np.int64]
    reapplied: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class DecoderChoices:
    """Choices of a decoder, compared with those made without the test set.

    Parameters
    ----------
    name : str
        What was chosen, for example "penalties of z".
    n : int
        Number of choices.
    same : int
        Number of choices that are the same when repeated without the test set.

    Examples
    --------
    >>> from calcarine.audit import DecoderChoices
    >>> choices = DecoderChoices("penalties of z", n=1024, same=1024)
    >>> choices.same == choices.n  # the test set did not matter
    True
    """

    name: str
    n: int
    same: int


@dataclass(eq=False)
class AuditInputs:
    """Everything that is known about a set of reconstructions.

    Parameters
    ----------
    title : str
        Name of the reconstructions.
    recon, truth : PictureSet
        Reconstructions and ground truths, with the same ids in the same order.
    train : PictureSet, optional
        Training pictures.
    allowed : bool array of shape (n, m), optional
        Whether a training picture was used in training for a test stimulus; all by default.
    trials : TrialTable, optional
    responses : float array of shape (trial, voxel), optional
        Input of the decoder.
    statistics : sequence of FitStatistics
        Stored means and scales of scalers and decoders.
    predictions : sequence of Prediction
    sample_choice : SampleChoice, optional
    decoder_choices : sequence of DecoderChoices
        Choices of penalties, voxels and repeats, repeated without the test set.
    others : mapping of str to PictureSet
        Pictures of the same stimuli by other methods.
    numbers : sequence of ReportedScore
        Reported scores.
    facts : mapping of str to str
        Known facts about the pipeline, by the name of the check that uses them.
    simulated : bool, optional
        Whether the brain was simulated.
    seed : int
        Seed of shuffles and resamples.
    given : sequence of str
        Descriptions of the inputs, for the page.
    judge : str
        Judge whose features are compared if pixels show no relation to the brain; features of any
        network that did not see the reconstructions are valid for that.

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.audit import AuditInputs, PictureSet, TrialTable
    >>> truth, recon = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32, 3), dtype=np.uint8)
    >>> ids = ["b", "c", "d"]
    >>> trials = TrialTable(np.array(["a", *ids]), np.array(["train", "test", "test", "test"]))
    >>> recon, truth = PictureSet.of(ids, recon), PictureSet.of(ids, truth)
    >>> inputs = AuditInputs("mine", recon, truth, trials=trials)
    >>> len(inputs)
    3
    """

    title: str
    recon: PictureSet
    truth: PictureSet
    train: PictureSet | None = None
    allowed: NDArray[np.bool_] | None = None
    trials: TrialTable | None = None
    responses: NDArray[Any] | None = None
    statistics: Sequence[FitStatistics] = ()
    predictions: Sequence[Prediction] = ()
    sample_choice: SampleChoice | None = None
    decoder_choices: Sequence[DecoderChoices] = ()
    others: Mapping[str, PictureSet] = field(default_factory=dict)
    numbers: Sequence[ReportedScore] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    simulated: bool | None = None
    seed: int = 0
    given: Sequence[str] = ()
    judge: str = "scenes"

    def __post_init__(self) -> None:
        for name, other in {"reconstructions": self.recon, **self.others}.items():
            if other.ids != self.truth.ids:
                raise SettingError(
                    f"The ids of the {name} differ from those of the ground truths; give both the "
                    "same ids in the same order."
                )
        if len(self.truth) < 2:
            raise ShapeError(
                f"An audit needs at least two test pictures, not {len(self.truth)}; give more."
            )
        required = (len(self.truth), 0 if self.train is None else len(self.train))
        if self.allowed is not None and self.allowed.shape != required:
            raise ShapeError(f"The array allowed has shape {self.allowed.shape}; give {required}.")

    def __len__(self) -> int:
        return len(self.truth)

    @cached_property
    def similarity(self) -> dict[str, FloatArray]:
        """Correlation of each ground truth (row) with each reconstruction (column), by features."""
        return {
            name: rows(make(self.truth.small)) @ rows(make(self.recon.small)).T
            for name, make in SPACES.items()
        }

    @cached_property
    def identification(self) -> FloatArray:
        """Two-way identification of each stimulus, mean over feature spaces, shape (n,)."""
        from calcarine.evaluation.metrics.matrices import identification_matrix

        both = [np.diagonal(identification_matrix(m)) for m in self.similarity.values()]
        return np.asarray(np.mean(both, axis=0))

    def nearest_train(self, pictures: PictureSet) -> tuple[FloatArray, NDArray[np.int64]]:
        """Return the correlation with the most similar training picture, and its row."""
        assert self.train is not None
        own = rows(pixels(pictures.small))
        best, place = np.full(len(own), -2.0), np.zeros(len(own), np.int64)
        for start in range(0, len(self.train), _BLOCK):
            part = slice(start, start + _BLOCK)
            result = own @ rows(pixels(self.train.small[part])).T
            if self.allowed is not None:
                result[~self.allowed[:, part]] = -2.0
            which = result.argmax(axis=1)
            value = result[np.arange(len(result)), which]
            better = value > best
            best[better], place[better] = value[better], start + which[better]
        return best, place
