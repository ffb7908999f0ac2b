"""Checks of pixels: blends with the ground truth or other methods, and retrieved pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from calcarine.audit.binomial import proportion_interval
from calcarine.audit.check import Check, inconclusive, register_check
from calcarine.audit.findings import EvidenceImage, EvidenceTable, Finding

if TYPE_CHECKING:
    from calcarine.audit.inputs import AuditInputs, FloatArray

__all__ = ["PixelBlends", "RetrievedImages"]

# RMS error in grey values; rounding to whole grey values alone leaves about .4, compression more.
_ROUNDING = 1.5
_EXPLAINED = 0.99
_LEAST_WEIGHT = 0.02
_SHARED = 0.05
_COPY_R = 0.99
_COPY_RMS = 3.0
_TRUTH = "ground truth"
_COARSE_TRUTH = "ground truth, coarse scales"
_TRUTHS = (_TRUTH, _COARSE_TRUTH)
# Number of blocks per side for coarse blends; block means have a smaller rounding error.
_COARSE = (16, 8, 4)
_COARSE_ROUNDING = 0.75
# Smallest ratio of the errors without and with the ground truth.
_NEEDED = 3.0
# Slopes of the finest detail: the slope that valid decoders can reach, the largest relative
# difference of two octaves with one weight, and the largest share of the coarse slope.
_WHOLE, _LEVEL, _BELOW = 0.7, 0.1, 0.85
_TRAIN = "training picture"
_BLOCK = 2048


@dataclass(frozen=True)
class _Fit:
    """A picture as a weighted sum of one or two other pictures."""

    parts: tuple[str, ...]
    weights: tuple[float, ...]
    rms: float


@register_check
class PixelBlends(Check):
    """Reconstructions that are weighted sums of other pictures.

    Examples
    --------
    >>> import calcarine as ca
    >>> from calcarine.audit import AuditInputs, PictureSet, audit
    >>> pictures = ca.StimulusSet.from_scenes(seed=0, indices=range(40)).images()
    >>> ids = [f"test{i}" for i in range(20)]
    >>> blends = (0.75 * pictures[20:] + 0.25 * pictures[:20]).round().astype("uint8")
    >>> recon, truth = PictureSet.of(ids, blends), PictureSet.of(ids, pictures[:20])
    >>> others = {"before blending": PictureSet.of(ids, pictures[20:])}
    >>> result = audit(AuditInputs("mine", recon, truth, others=others), only=["pixel-blends"])
    >>> result.findings["pixel-blends"].verdict
    'failed'
    """

    name = "pixel-blends"
    title = "Pixel blends"
    question = "Are reconstructions blends of other pictures, for example of the ground truth?"
    evidence_needed = (
        "The pictures before any blending, and those of other methods (--other DIR), including "
        "low-level or 'blurry' reconstructions."
    )

    def run(self, inputs: AuditInputs) -> Finding:
        fits = [_best_fit(inputs, row, train) for row, train in _neighbours(inputs)]
        kinds: dict[tuple[str, ...], list[_Fit]] = {}
        for fit in fits:
            if fit is not None:
                kinds.setdefault(fit.parts, []).append(fit)
        n = len(inputs)
        result: dict[str, object] = {"reconstructions": n}
        detail = _Detail.of(inputs)
        if detail is not None:
            result["mean slope of the finest detail on the ground truth"] = detail.finest
            result["its SD over pictures"] = detail.spread
            result["mean slope of the next coarser octave"] = detail.fine
            result["mean slope of the coarse layout"] = detail.coarse
        rows = tuple(
            (" + ".join(parts), f"{len(group)} of {n}", *_weights(group))
            for parts, group in sorted(kinds.items(), key=lambda item: -len(item[1]))
        )
        table = EvidenceTable(
            ("blend of", "pictures", "weights", "RMS error (grey values)"),
            rows,
            "Least squares over all pixels, or over block means for coarse scales. The error is no "
            "larger than rounding.",
        )
        tables = (table,) if rows else ()
        with_truth = sum(len(group) for parts, group in kinds.items() if parts[0] in _TRUTHS)
        result["blends with the ground truth"] = with_truth
        blends = {p: len(g) for p, g in kinds.items() if p[0] not in _TRUTHS and len(p) == 2}
        result["blends of other pictures"] = sum(blends.values())
        if with_truth > 0.05 * n:
            return Finding(
                "failed",
                f"{with_truth} of {n} reconstructions are, up to rounding, a blend with pixels of "
                "the ground truth.",
                result,
                tables,
            )
        if blends and sum(blends.values()) > 0.05 * n:
            most = max(blends, key=lambda parts: blends[parts])
            return Finding(
                "suspicious",
                f"{blends[most]} of {n} reconstructions are fixed blends of {' and '.join(most)}. "
                "This is no leakage, but it must be reported, because it raises low-level scores.",
                result,
                tables,
            )
        if detail is not None and detail.blended:
            return Finding(
                "suspicious",
                "All reconstructions contain the finest detail of their ground truth with nearly "
                f"the same weight ({detail.finest:.2f}, SD {detail.spread:.2f}), as a blend with "
                "the ground truth does.",
                result,
                tables,
            )
        return Finding(
            "passed",
            "No reconstruction is a blend of two of the given pictures, and the finest detail of "
            "the ground truth is not present with a fixed weight.",
            result,
            tables,
        )


def _weights(group: list[_Fit]) -> tuple[str, str]:
    mean = np.mean([fit.weights for fit in group], axis=0)
    deviation = np.std([fit.weights for fit in group], axis=0)
    weights = ", ".join(f"{m:.2f} (sd {d:.2f})" for m, d in zip(mean, deviation, strict=True))
    return weights, f"{np.mean([fit.rms for fit in group]):.2f}"


def _neighbours(inputs: AuditInputs) -> Iterator[tuple[int, list[int]]]:
    """Yield each reconstruction's row and the training pictures that could be parts of it."""
    from calcarine.audit.picture_features import pixels, rows

    n = len(inputs)
    if inputs.train is None:
        yield from ((row, []) for row in range(n))
        return
    own = pixels(inputs.recon.small)
    sides = (inputs.truth, *inputs.others.values())
    targets = [rows(own), *(rows(_without(own, pixels(side.small))) for side in sides)]
    first = _most_alike(inputs, targets)
    # The residual of the most similar training picture leads to the second part.
    residual = _without(own, pixels(inputs.train.small[first[0]]))
    first.append(_most_alike(inputs, [rows(residual)])[0])
    for row in range(n):
        yield row, list(dict.fromkeys(int(result[row]) for result in first))


def _without(values: FloatArray, other: FloatArray) -> FloatArray:
    """Return rows minus their projection on the other rows, both centred."""
    values = values - values.mean(axis=1, keepdims=True)
    other = other - other.mean(axis=1, keepdims=True)
    size = np.maximum(np.einsum("ij,ij->i", other, other), 1e-9)
    weight = np.einsum("ij,ij->i", values, other) / size
    return np.asarray(values - weight[:, None] * other)


def _most_alike(inputs: AuditInputs, targets: list[FloatArray]) -> list[NDArray[np.int64]]:
    from calcarine.audit.picture_features import pixels, rows

    assert inputs.train is not None
    best = [np.full(len(t), -1.0) for t in targets]
    place = [np.zeros(len(t), np.int64) for t in targets]
    for start in range(0, len(inputs.train), _BLOCK):
        part = rows(pixels(inputs.train.small[start : start + _BLOCK]))
        for target, value, where in zip(targets, best, place, strict=True):
            result = np.abs(target @ part.T)
            which = result.argmax(axis=1)
            top = result[np.arange(len(result)), which]
            better = top > value
            value[better], where[better] = top[better], start + which[better]
    return place


def _best_fit(inputs: AuditInputs, row: int, train: list[int]) -> _Fit | None:
    """Return the blend of fewest parts whose error is no larger than rounding, or None.

    Blends with the ground truth are tried first, so that other given pictures cannot hide them.
    """
    own = inputs.recon.small[row]
    parts = [(_TRUTH, inputs.truth.small[row])]
    parts += [(name, side.small[row]) for name, side in inputs.others.items()]
    if inputs.train is not None:
        parts += [(_TRAIN, inputs.train.small[column]) for column in train]
    names = [name for name, _ in parts]
    pictures = [picture for _, picture in parts]
    flat = [np.asarray(picture, np.float64).ravel() for picture in (own, *pictures)]
    values, columns = flat[0], flat[1:]
    everything = range(len(parts))
    alone = [_fit(values, [columns[first]], (names[first],)) for first in everything]
    pairs = [(0, second) for second in everything[1:]]
    if alone[0] is not None:
        return alone[0]
    for first, second in pairs:
        fit = _fit(values, [columns[first], columns[second]], (names[first], names[second]))
        if _is_blend(fit):
            return fit
    for second in everything[1:]:
        fit = _coarse_fit(own, pictures[0], pictures[second], names[second])
        if fit is not None:
            return fit
    for fit in alone[1:]:
        if fit is not None:
            return fit
    for first in everything[1:]:
        for second in everything[first + 1 :]:
            fit = _fit(values, [columns[first], columns[second]], (names[first], names[second]))
            if _is_blend(fit):
                return fit
    return None


def _is_blend(fit: _Fit | None) -> bool:
    return fit is not None and min(abs(weight) for weight in fit.weights) > _LEAST_WEIGHT


def _coarse_fit(
    own: NDArray[np.uint8], truth: NDArray[np.uint8], other: NDArray[np.uint8], name: str
) -> _Fit | None:
    """Return a blend with the ground truth at coarse scales if the other part alone is no fit."""
    from calcarine.audit.picture_features import shrunk

    for size in _COARSE:
        values, *columns = (shrunk(each[None], size)[0] for each in (own, truth, other))
        fit = _fit(values, columns, (_COARSE_TRUTH, name), _COARSE_ROUNDING)
        if fit is not None and _is_blend(fit):
            alone = _fit(values, columns[1:], (name,), np.inf)
            if alone is None or alone.rms > _NEEDED * max(fit.rms, 1e-9):
                return fit
    return None


def _fit(
    own: FloatArray,
    columns: list[FloatArray],
    names: tuple[str, ...],
    rounding: float = _ROUNDING,
) -> _Fit | None:
    total = float(np.square(own - own.mean()).sum())
    if total < 1e-6:
        return None
    design = np.stack([*columns, np.ones_like(own)], axis=1)
    gram = design.T @ design
    weights = np.linalg.lstsq(gram, design.T @ own, rcond=None)[0]
    residual = own - design @ weights
    square = float(residual @ residual)
    rms = float(np.sqrt(square / len(own)))
    if rms > rounding or (np.isfinite(rounding) and square > (1 - _EXPLAINED) * total):
        return None
    return _Fit(names, tuple(float(w) for w in weights[:-1]), rms)


@dataclass(frozen=True)
class _Detail:
    """Slopes of reconstructions on ground truths by scale, means over pictures."""

    coarse: float
    fine: float
    finest: float
    spread: float

    @classmethod
    def of(cls, inputs: AuditInputs) -> _Detail | None:
        from calcarine.audit.similarity_by_scale import octave_slopes

        def grey(row: int) -> tuple[FloatArray, FloatArray]:
            seen, made = (
                np.asarray(side.full(row).mean(axis=2, dtype=np.float64))
                for side in (inputs.truth, inputs.recon)
            )
            return seen, made

        slopes = octave_slopes(grey, len(inputs))
        if slopes is None:
            return None
        coarse, fine, finest = slopes.mean(axis=0)
        return cls(float(coarse), float(fine), float(finest), float(slopes[:, 2].std()))

    @property
    def blended(self) -> bool:
        """Whether one weight of the ground truth explains the detail.

        A decoder that reconstructs the finest detail with noise has a high slope that is equal at
        coarse scales or keeps falling towards finer ones.
        """
        if self.finest <= 0.03 or self.spread >= 0.25 * self.finest:
            return False
        level = abs(self.fine - self.finest) < _LEVEL * self.finest
        return self.finest < _WHOLE or (level and self.finest < _BELOW * self.coarse)


@register_check
class RetrievedImages(Check):
    """Training pictures presented as reconstructions.

    Examples
    --------
    >>> import calcarine as ca
    >>> from calcarine.audit import AuditInputs, PictureSet, audit
    >>> pictures = ca.StimulusSet.from_scenes(seed=0, indices=range(40)).images()
    >>> ids = [f"test{i}" for i in range(10)]
    >>> truth, recon = PictureSet.of(ids, pictures[30:]), PictureSet.of(ids, pictures[:10])
    >>> train = PictureSet.of([f"train{i}" for i in range(30)], pictures[:30])
    >>> result = audit(AuditInputs("nearest", recon, truth, train), only=["retrieval"])
    >>> result.findings["retrieval"].verdict
    'failed'
    """

    name = "retrieval"
    title = "Retrieval instead of reconstruction"
    question = "Are reconstructions copies of training pictures?"
    evidence_needed = "The training pictures and any other gallery that was searched (--train DIR)."

    def run(self, inputs: AuditInputs) -> Finding:
        from calcarine.audit.picture_features import pixels

        shared = _shared(inputs)
        if inputs.train is None:
            return _of_shared(inputs, shared) or inconclusive(
                "The training pictures are not given."
            )
        r, place = inputs.nearest_train(inputs.recon)
        own, other = pixels(inputs.recon.small), pixels(inputs.train.small[place])
        residual = np.sqrt(np.square(_without(own, other)).mean(axis=1))
        copies = np.flatnonzero((r >= _COPY_R) & (residual <= _COPY_RMS) & (own.std(axis=1) > 1))
        known = set(inputs.train.digests)
        exact = sum(digest in known for digest in inputs.recon.digests)
        hits, n = len(copies), len(inputs)
        low, high = proportion_interval(hits, n)
        result = {
            "reconstructions": n,
            "copies of a training picture": hits,
            "95 % interval of their share": f"{low:.2f} to {high:.2f}",
            "identical pixels": exact,
            "correlation with the nearest training picture, median": float(np.median(r)),
        }
        pictures = tuple(
            (
                inputs.truth.shown(row, "stimulus"),
                EvidenceImage(inputs.recon.full(row), "reconstruction"),
                inputs.train.shown(place[row], "training"),
            )
            for row in copies[:4]
        )
        if not hits:
            return _of_shared(inputs, shared) or Finding(
                "passed", "No reconstruction is a training picture.", result
            )
        return Finding(
            "failed" if hits > 0.2 * n else "suspicious",
            f"{hits} of {n} reconstructions are copies of training pictures: the score measures "
            "retrieval, not reconstruction.",
            result,
            pictures=pictures,
        )


def _shared(inputs: AuditInputs) -> int:
    """Return the number of stimuli that share a reconstruction with a different stimulus."""
    seen: dict[str, set[str]] = {}
    pairs = list(zip(inputs.recon.digests, inputs.truth.digests, strict=True))
    for made, truth in pairs:
        seen.setdefault(made, set()).add(truth)
    return sum(len(seen[made]) > 1 for made, _ in pairs)


def _of_shared(inputs: AuditInputs, shared: int) -> Finding | None:
    if shared <= _SHARED * len(inputs):
        return None
    return Finding(
        "suspicious",
        f"{shared} of {len(inputs)} stimuli have exactly the same reconstruction as another "
        "stimulus: they seem to be chosen from a small set of pictures, which is not given.",
        {"reconstructions": len(inputs), "shared with another stimulus": shared},
    )
