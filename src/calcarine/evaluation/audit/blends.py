"""Checks of pixels: blends with the truth or with other methods, and training pictures shown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from calcarine.evaluation.audit.check import (
    Check,
    Finding,
    Shown,
    Table,
    register_check,
    untold,
)
from calcarine.evaluation.audit.intervals import share

if TYPE_CHECKING:
    from calcarine.evaluation.audit.material import FloatArray, Material

# Rounding to whole grey values leaves about .4 of them; compression a little more.
_ROUNDING = 1.5
_EXPLAINED = 0.99
_LEAST_WEIGHT = 0.02
_COPY_R = 0.99
_COPY_RMS = 3.0
_TRUTH = "the truth"
_TRAIN = "a training picture"
_BLOCK = 2048


@dataclass(frozen=True)
class _Fit:
    """A picture as a blend of one or two others."""

    parts: tuple[str, ...]
    weights: tuple[float, ...]
    rms: float


@register_check
class PixelBlends(Check):
    """Reconstructions that are sums of other pictures."""

    name = "pixel-blends"
    title = "Pixel blends"
    question = "Are reconstructions fixed blends of other pictures, the truth among them?"
    settle = (
        "The pictures before any blending, and those of the other methods (--other DIR), among "
        "them low-level and 'blurry' ones."
    )

    def look(self, material: Material) -> Finding:
        fits = [_best_fit(material, row, train) for row, train in _neighbours(material)]
        kinds: dict[tuple[str, ...], list[_Fit]] = {}
        for fit in fits:
            if fit is not None:
                kinds.setdefault(fit.parts, []).append(fit)
        n = len(material)
        found: dict[str, object] = {"reconstructions": n}
        detail, spread = _detail(material)
        if detail is not None:
            found["finest detail of the truth in the reconstruction, mean slope"] = detail
            found["its deviation over pictures"] = spread
        rows = tuple(
            (" + ".join(parts), f"{len(group)} of {n}", *_weights(group))
            for parts, group in sorted(kinds.items(), key=lambda item: -len(item[1]))
        )
        table = Table(
            ("blend of", "pictures", "weights", "left over (grey values)"), rows,
            "Least squares over all pixels; what is left over is no more than rounding.",
        )  # fmt: skip
        tables = (table,) if rows else ()
        with_truth = sum(len(group) for parts, group in kinds.items() if _TRUTH in parts)
        found["blends with the truth"] = with_truth
        blends = {p: len(g) for p, g in kinds.items() if _TRUTH not in p and len(p) == 2}
        found["blends of other pictures"] = sum(blends.values())
        if with_truth > 0.05 * n:
            return Finding(
                "failed",
                f"{with_truth} of {n} reconstructions are, up to rounding, made with the pixels of "
                "the truth.",
                found,
                tables,
            )
        if blends and sum(blends.values()) > 0.05 * n:
            most = max(blends, key=lambda parts: blends[parts])
            return Finding(
                "suspicious",
                f"{blends[most]} of {n} reconstructions are fixed blends of {' and '.join(most)}. "
                "That is no leak, but a step that must be named: it lifts low-level scores.",
                found,
                tables,
            )
        if detail is not None and detail > 0.03 and spread < 0.25 * detail:
            return Finding(
                "suspicious",
                f"Every reconstruction holds the finest detail of its truth with nearly the same "
                f"weight ({detail:.2f}, deviation {spread:.2f}), as a blend with the truth would.",
                found,
                tables,
            )
        return Finding(
            "passed",
            "No reconstruction is a blend of two of the pictures that are here, and none holds "
            "the truth's finest detail with a fixed weight.",
            found,
            tables,
        )


def _weights(group: list[_Fit]) -> tuple[str, str]:
    mean = np.mean([fit.weights for fit in group], axis=0)
    deviation = np.std([fit.weights for fit in group], axis=0)
    weights = ", ".join(f"{m:.2f} (sd {d:.2f})" for m, d in zip(mean, deviation, strict=True))
    return weights, f"{np.mean([fit.rms for fit in group]):.2f}"


def _neighbours(material: Material) -> Iterator[tuple[int, list[int]]]:
    """For each reconstruction, the training pictures that may be parts of it."""
    from calcarine.evaluation.audit.views import pixels, rows

    n = len(material)
    if material.train is None:
        yield from ((row, []) for row in range(n))
        return
    own = pixels(material.recon.small)
    sides = (material.truth, *material.others.values())
    targets = [rows(own), *(rows(_without(own, pixels(side.small))) for side in sides)]
    first = _most_alike(material, targets)
    # What is left after the most alike training picture leads to the second one.
    left = _without(own, pixels(material.train.small[first[0]]))
    first.append(_most_alike(material, [rows(left)])[0])
    for row in range(n):
        yield row, list(dict.fromkeys(int(found[row]) for found in first))


def _without(values: FloatArray, other: FloatArray) -> FloatArray:
    """Rows less their projection on the other's rows, both without means."""
    values = values - values.mean(axis=1, keepdims=True)
    other = other - other.mean(axis=1, keepdims=True)
    size = np.maximum(np.einsum("ij,ij->i", other, other), 1e-9)
    weight = np.einsum("ij,ij->i", values, other) / size
    return np.asarray(values - weight[:, None] * other)


def _most_alike(material: Material, targets: list[FloatArray]) -> list[NDArray[np.int64]]:
    from calcarine.evaluation.audit.views import pixels, rows

    assert material.train is not None
    best = [np.full(len(t), -1.0) for t in targets]
    place = [np.zeros(len(t), np.int64) for t in targets]
    for start in range(0, len(material.train), _BLOCK):
        part = rows(pixels(material.train.small[start : start + _BLOCK]))
        for target, value, where in zip(targets, best, place, strict=True):
            found = np.abs(target @ part.T)
            which = found.argmax(axis=1)
            top = found[np.arange(len(found)), which]
            better = top > value
            value[better], where[better] = top[better], start + which[better]
    return place


def _best_fit(material: Material, row: int, train: list[int]) -> _Fit | None:
    """The blend of fewest parts that leaves no more than rounding, or None."""
    own = material.recon.small[row].astype(np.float64).ravel()
    parts = [(_TRUTH, material.truth.small[row])]
    parts += [(name, side.small[row]) for name, side in material.others.items()]
    if material.train is not None:
        parts += [(_TRAIN, material.train.small[column]) for column in train]
    columns = [np.asarray(picture, np.float64).ravel() for _, picture in parts]
    for first in range(len(parts)):
        fit = _fit(own, [columns[first]], (parts[first][0],))
        if fit is not None:
            return fit
    for first in range(len(parts)):
        for second in range(first + 1, len(parts)):
            names = (parts[first][0], parts[second][0])
            fit = _fit(own, [columns[first], columns[second]], names)
            if fit is not None and min(abs(weight) for weight in fit.weights) > _LEAST_WEIGHT:
                return fit
    return None


def _fit(own: FloatArray, columns: list[FloatArray], names: tuple[str, ...]) -> _Fit | None:
    total = float(np.square(own - own.mean()).sum())
    if total < 1e-6:
        return None
    design = np.stack([*columns, np.ones_like(own)], axis=1)
    gram = design.T @ design
    weights = np.linalg.lstsq(gram, design.T @ own, rcond=None)[0]
    left = own - design @ weights
    square = float(left @ left)
    rms = float(np.sqrt(square / len(own)))
    if rms > _ROUNDING or square > (1 - _EXPLAINED) * total:
        return None
    return _Fit(names, tuple(float(w) for w in weights[:-1]), rms)


def _detail(material: Material) -> tuple[float | None, float]:
    """Slope of the reconstruction's finest detail on the truth's: mean and deviation."""
    from scipy.ndimage import uniform_filter

    slopes = []
    for row in range(len(material)):
        pair = [
            side.full(row).astype(np.float64).mean(axis=2)
            for side in (material.truth, material.recon)
        ]
        if pair[0].shape != pair[1].shape or min(pair[0].shape) < 24:
            return None, 0.0
        seen, made = (picture - uniform_filter(picture, 3) for picture in pair)
        size = float(np.square(seen).sum())
        if size > seen.size:  # less than a grey value of detail tells nothing
            slopes.append(float((seen * made).sum()) / size)
    if len(slopes) < 10:
        return None, 0.0
    return float(np.mean(slopes)), float(np.std(slopes))


@register_check
class Retrieval(Check):
    """Training pictures shown as reconstructions."""

    name = "retrieval"
    title = "Retrieval instead of reconstruction"
    question = "Are reconstructions pictures of the training set?"
    settle = "The training pictures, and those of any gallery that was searched (--train DIR)."

    def look(self, material: Material) -> Finding:
        from calcarine.evaluation.audit.views import pixels

        if material.train is None:
            return untold("The training pictures are not here.")
        r, place = material.nearest_train(material.recon)
        own, other = pixels(material.recon.small), pixels(material.train.small[place])
        left = np.sqrt(np.square(_without(own, other)).mean(axis=1))
        copies = np.flatnonzero((r >= _COPY_R) & (left <= _COPY_RMS) & (own.std(axis=1) > 1))
        known = set(material.train.digests)
        exact = sum(digest in known for digest in material.recon.digests)
        hits, n = len(copies), len(material)
        low, high = share(hits, n)
        found = {
            "reconstructions": n,
            "that are a training picture": hits,
            "interval of the share": f"{low:.2f} to {high:.2f}",
            "to the last pixel": exact,
            "correlation with the nearest training picture, median": float(np.median(r)),
        }
        pictures = tuple(
            (
                material.truth.shown(row, "seen"),
                Shown(material.recon.full(row), "reconstruction"),
                material.train.shown(place[row], "training"),
            )
            for row in copies[:4]
        )
        if not hits:
            return Finding("passed", "No reconstruction is a training picture.", found)
        return Finding(
            "failed" if hits > 0.2 * n else "suspicious",
            f"{hits} of {n} reconstructions are pictures of the training set: what is scored is "
            "choosing among known pictures.",
            found,
            pictures=pictures,
        )
