"""Reported scores: parse them, and compute them by every known definition."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from calcarine.audit.inputs import ReportedScore
from calcarine.errors import SettingError
from calcarine.evaluation.metrics import matrices
from calcarine.evaluation.metrics.identification import Identification, PixelContest
from calcarine.evaluation.metrics.image_similarity import PixelCorrelation, StructuralSimilarity
from calcarine.evaluation.metrics.similarity import correlation_matrix
from calcarine.evaluation.metrics.structural_similarity import LocalMoments, structure
from calcarine.evaluation.networks.preprocessing import Preprocessing
from calcarine.evaluation.protocols.catalogue import list_protocols
from calcarine.evaluation.protocols.protocol import PROTOCOLS

if TYPE_CHECKING:
    from calcarine.audit.inputs import FloatArray, PictureSet
    from calcarine.evaluation.metrics.metric import Metric

__all__ = ["Definition", "definitions", "family_of", "read_numbers"]

Family = Literal["pixcorr", "ssim", "mse", "identification", "other"]
_PRINTED = re.compile(
    r"^\s*(?P<metric>.+?)[\s=:]+(?P<value>[+-]?\d*\.?\d+)\s*(?P<percent>%?)\s*$", re.ASCII
)


def read_numbers(text: str) -> tuple[ReportedScore, ...]:
    """Parse reported scores.

    Parameters
    ----------
    text : str
        For example ``"PixCorr .32, SSIM .431, 2-way pixels 78.4%"``.

    Returns
    -------
    tuple of ReportedScore
        Percentages become proportions; the number of decimals is kept.

    Raises
    ------
    CalcarineError
        If a part is not a metric with a number.

    Examples
    --------
    >>> [str(score) for score in read_numbers("PixCorr .32, 2-way pixels 78.4%")]
    ['PixCorr 0.32', '2-way pixels 0.784']
    """
    result = []
    for part in filter(str.strip, re.split(r"[,;]", text)):
        match = _PRINTED.match(part)
        if match is None:
            raise SettingError(
                f"'{part.strip()}' is not a metric with a number; write scores like "
                '"PixCorr .32, SSIM .43".'
            )
        printed, percent = match["value"], bool(match["percent"])
        decimals = len(printed.partition(".")[2])
        value = float(printed) / (100 if percent else 1)
        result.append(ReportedScore(match["metric"].strip(), value, decimals + 2 * percent))
    if not result:
        raise SettingError('No score is given; write scores like "PixCorr .32, SSIM .43".')
    return tuple(result)


def family_of(metric: str) -> Family:
    """Return the family of metrics that a printed name belongs to."""
    name = re.sub(r"[^a-z0-9]", "", metric.lower())
    if "ssim" in name or "structuralsimilarity" in name:
        return "ssim"
    if name in ("pixcorr", "pixelcorrelation", "pixelwisecorrelation", "pcc", "pixelr", "r"):
        return "pixcorr"
    if name in ("mse", "squarederror", "meansquarederror"):
        return "mse"
    if "pix" in name and ("way" in name or "ident" in name or "pair" in name):
        return "identification"
    return "other"


@dataclass(frozen=True, eq=False)
class Definition:
    """One way to compute a score.

    Parameters
    ----------
    family : str
    name : str
        Name for people.
    protocol : str
        A protocol's name, or "" for a variant that no protocol uses.
    measure : callable
        Called with ground truths, reconstructions and the sample; returns scores of shape (n,),
        or measurements that `finish` turns into scores.
    lower : bool
        Whether lower is better.
    finish : callable, optional
        Turns measurements into scores.
    averaged : bool
        Whether the protocol averages measurements, not scores, over samples.
    """

    family: Family
    name: str
    protocol: str
    measure: Callable[[PictureSet, PictureSet, int], FloatArray]
    lower: bool = False
    finish: Callable[[FloatArray], FloatArray] | None = None
    averaged: bool = False

    def scores(self, measured: FloatArray) -> FloatArray:
        """Return the score of each picture, shape (n,)."""
        return measured if self.finish is None else self.finish(measured)


def definitions(families: set[Family]) -> Iterator[Definition]:
    """Yield every definition that needs no network, those of protocols first."""
    list_protocols()  # registers them
    for name, protocol in PROTOCOLS.items():
        made = protocol()
        for metric in made.metrics():
            result = _of_protocol(name, metric, made.samples == "similarity")
            if result is not None and result.family in families:
                yield result
    yield from (variant for variant in _variants() if variant.family in families)


def _of_protocol(protocol: str, metric: Metric, similarity: bool) -> Definition | None:
    if isinstance(metric, PixelCorrelation):
        return Definition("pixcorr", metric.name, protocol, _correlation(metric.preprocessing))
    if isinstance(metric, StructuralSimilarity):
        return Definition(
            "ssim", metric.name, protocol, _structure(metric.preprocessing, metric.kind)
        )
    pixels = not any(network for network, _, _ in metric.required_features())
    if isinstance(metric, Identification) and type(metric) is Identification and pixels:
        direction, ties = metric.direction or "image", metric.ties
        measure, finish = _identification(metric.preprocessing, direction, ties)
        return Definition(
            "identification", metric.name, protocol, measure, finish=finish, averaged=similarity
        )
    if isinstance(metric, PixelContest) and metric.ways == 2 and metric.measured_by == "pcc":
        measure, finish = _identification(metric.preprocessing, "reconstruction", "failure")
        return Definition("identification", metric.name, protocol, measure, finish=finish)
    return None


def _variants() -> Iterator[Definition]:
    native = Preprocessing("pil", "truth")
    for size in (224, 256, 425):
        preprocessing = Preprocessing("pil", size)
        yield Definition("pixcorr", f"pixel correlation at {size}", "", _correlation(preprocessing))
        yield Definition(
            "ssim", f"SSIM in two dimensions at {size}", "", _structure(preprocessing, "2d")
        )
        yield Definition("mse", f"squared error at {size}", "", _squared(preprocessing), lower=True)
    yield Definition("ssim", "SSIM of columns, own size", "", _structure(native, "columns"))
    yield Definition(
        "ssim", "SSIM with a flat window of 7, own size", "", _structure(native, "uniform")
    )
    yield Definition(
        "ssim",
        "SSIM, own size, with a data range of 2",
        "",
        _structure(native, "uniform", 2.0),
    )
    yield Definition("mse", "squared error, own size", "", _squared(native), lower=True)


Scores = Callable[["PictureSet", "PictureSet", int], "FloatArray"]


def _pair(
    truth: PictureSet, recon: PictureSet, row: int, sample: int, preprocessing: Preprocessing
) -> tuple[FloatArray, FloatArray]:
    seen, made = truth.read(row, 0), recon.read(row, sample)
    size = (seen.shape[0], seen.shape[1])
    both = [
        np.asarray(preprocessing.apply(picture, size).permute(1, 2, 0).numpy(), np.float64)
        for picture in (seen, made)
    ]
    return both[0], both[1]


def _each(preprocessing: Preprocessing, score: Callable[[FloatArray, FloatArray], float]) -> Scores:
    def scores(truth: PictureSet, recon: PictureSet, sample: int) -> FloatArray:
        pairs = (_pair(truth, recon, row, sample, preprocessing) for row in range(len(truth)))
        return np.asarray([score(*pair) for pair in pairs])

    return scores


def _correlation(preprocessing: Preprocessing) -> Scores:
    def score(seen: FloatArray, made: FloatArray) -> float:
        a, b = seen.ravel() - seen.mean(), made.ravel() - made.mean()
        below = float(np.linalg.norm(a) * np.linalg.norm(b))
        return float(a @ b) / below if below > 1e-12 else 0.0

    return _each(preprocessing, score)


def _structure(
    preprocessing: Preprocessing, kind: Literal["2d", "columns", "uniform"], data_range: float = 1.0
) -> Scores:
    def score(seen: FloatArray, made: FloatArray) -> float:
        if min(seen.shape[:2]) < matrices.SSIM_WINDOW:
            return float("nan")
        both = [LocalMoments.of(picture @ matrices.GRAY, kind) for picture in (seen, made)]
        return float(structure(both[0], both[1], data_range))

    return _each(preprocessing, score)


def _squared(preprocessing: Preprocessing) -> Scores:
    return _each(preprocessing, lambda seen, made: float(np.square(seen - made).mean()))


def _identification(
    preprocessing: Preprocessing,
    direction: Literal["image", "reconstruction"],
    ties: Literal["half", "failure"],
) -> tuple[Scores, Callable[[FloatArray], FloatArray]]:
    """Return a function for correlations of all pairs, and one that turns them into scores."""

    def correlations(truth: PictureSet, recon: PictureSet, sample: int) -> FloatArray:
        pairs = [_pair(truth, recon, row, sample, preprocessing) for row in range(len(truth))]
        seen, made = (
            np.stack([pair[side].ravel().astype(np.float32) for pair in pairs]) for side in (0, 1)
        )
        return np.asarray(correlation_matrix(seen, made), np.float64)

    def finish(matrix: FloatArray) -> FloatArray:
        return np.asarray(np.diagonal(matrices.identification_matrix(matrix, direction, ties)))

    return correlations, finish
