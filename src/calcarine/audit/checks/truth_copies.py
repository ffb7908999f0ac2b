"""Check of reconstructions that contain parts of their ground truth, by scale or by region."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from calcarine.audit.check import Check, inconclusive, register_check
from calcarine.audit.findings import EvidenceTable, Finding, Verdict
from calcarine.audit.similarity_by_scale import (
    Band,
    FloatArray,
    bands,
    cell_shares,
    curve_left,
    detail_cells,
    opponent,
    phases,
    rise,
)

if TYPE_CHECKING:
    from calcarine.audit.inputs import AuditInputs

__all__ = [
    "CELL",
    "COPIED",
    "CURVE",
    "FINE",
    "LESS",
    "MORE",
    "PHASE",
    "REGION",
    "REST",
    "RISE",
    "SHARE",
    "Measures",
    "TruthCopies",
    "measure",
    "reasons",
]

_FEWEST = 4
# Number of pictures that are read at full size for the grey-value curve.
_READ = 30

# Measured by scripts/audit_thresholds.py with two seeds. Valid pipelines, among them decoders with
# correlations of .9 to .97 at all scales and with white noise, reached a rise of 1.1, a finest
# octave of .05, a curve of .01, a region of .88, and amplitudes within .02 of those that the
# phases predict. Copies reached .3, .02, .000, .1, and amplitudes .26 below or .38 above.
RISE = 0.5
"""Largest ratio of the errors of a coarse and a finer octave that counts as a copy."""
COPIED = 0.05
"""Largest unexplained share of an octave or region that counts as a copy."""
FINE = 0.02
"""Largest unexplained share of the finest octave (8 to 16 cycles per picture)."""
CURVE = 0.005
"""Largest share of variance that a grey-value curve of the ground truth leaves unexplained."""
PHASE, LESS, MORE = 0.75, 0.2, 0.25
"""Agreement of phases, and how far amplitudes can differ from those that the phases predict."""
REGION = 0.25
"""Largest ratio of a region's unexplained share and error to those of the median region."""
CELL, REST, SHARE = 0.8, 0.4, 0.2
"""Squared correlation of detail in one region, in the median region, and share of pictures."""


@dataclass(frozen=True)
class Measures:
    """Similarities of reconstructions and ground truths that have thresholds.

    Parameters
    ----------
    rise, rise_share : float
        Smallest ratio of the error of an octave to that of a finer octave, and the unexplained
        share of that octave.
    fine : float
        Unexplained share of the finest octave, in the best channel.
    curve : float
        Share of variance that a grey-value curve leaves unexplained.
    phase, amplitude : float
        Difference of the agreement of amplitudes from that which the phases predict: below it
        (if the phases agree by at least `PHASE`), and above it.
    region, region_share : float
        For the region most similar to a copy: ratio of its unexplained share and error to those
        of the median region, and the unexplained share.
    cells : float
        Share of pictures in which only one region has the detail of the ground truth.
    band, fine_band : Band, optional
        The octaves of ``rise`` and ``fine``.
    """

    rise: float = np.inf
    rise_share: float = np.inf
    fine: float = np.inf
    curve: float = np.inf
    phase: float = -np.inf
    amplitude: float = -np.inf
    region: float = np.inf
    region_share: float = np.inf
    cells: float = 0.0
    band: Band | None = None
    fine_band: Band | None = None

    def numbers(self) -> dict[str, float]:
        """Return the measures that are defined, by their description."""
        names = {
            "rise": "smallest ratio of errors, coarse to finer scales",
            "rise_share": "unexplained share of the ground truth at that scale",
            "fine": "unexplained share of the ground truth at 8 to 16 cycles per picture",
            "curve": "unexplained variance after a grey-value curve of the ground truth",
            "phase": "agreement of amplitudes below that predicted by the phases",
            "amplitude": "agreement of amplitudes above that predicted by the phases",
            "region": "ratio of the most similar region to the median region",
            "region_share": "unexplained share of the ground truth in that region",
            "cells": "share of pictures with the ground truth's detail in only one region",
        }
        values = {name: getattr(self, name) for name in (f.name for f in fields(self))}
        return {text: values[name] for name, text in names.items() if np.isfinite(values[name])}


def measure(inputs: AuditInputs) -> Measures:
    """Compute all measures that have thresholds.

    Parameters
    ----------
    inputs : AuditInputs

    Returns
    -------
    Measures
    """
    truth, recon = opponent(inputs.truth.small), opponent(inputs.recon.small)
    result: dict[str, Any] = {**_by_scale(bands(truth, recon)), **_by_region(truth, recon)}
    rows = np.linspace(0, len(inputs) - 1, min(len(inputs), _READ)).astype(int)
    residual = curve_left((inputs.truth.full(row), inputs.recon.full(row)) for row in rows)
    if residual is not None:
        result["curve"] = residual
    apart = [
        (cosine, cosine**2 - amplitude, amplitude - cosine)
        for cosine, amplitude in phases(truth, recon)
    ]
    if apart:
        result["phase"] = max((a for cosine, a, _ in apart if cosine >= PHASE), default=-np.inf)
        result["amplitude"] = max(b for _, _, b in apart)
    return Measures(**result)


def _by_scale(measured: list[list[Band]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    rises = [each for octaves in measured if (each := rise(octaves)) is not None]
    near = [each for each in rises if each[1].share <= COPIED] or rises
    if near:
        ratio, band = min(near, key=lambda each: each[0])
        result |= {"rise": ratio, "rise_share": band.share, "band": band}
    finest = [octaves[-1] for octaves in measured if octaves[-1].high == 32]
    if finest:
        best = min(finest, key=lambda band: band.share)
        result |= {"fine": best.share, "fine_band": best}
    return result


def _by_region(truth: FloatArray, recon: FloatArray) -> dict[str, Any]:
    result: dict[str, Any] = {}
    share, error = cell_shares(truth, recon)
    if np.isfinite(share).sum() >= 4:
        ratios = np.maximum(
            share / max(np.nanmedian(share), 1e-9), error / max(np.nanmedian(error), 1e-9)
        )
        ratios = np.where(share <= COPIED, ratios, np.inf)
        if np.isfinite(ratios).any():
            place = int(np.nanargmin(ratios))
            result |= {"region": float(ratios[place]), "region_share": float(share[place])}
    own = _one_region(detail_cells(truth, recon))
    # A region that ground truths share, such as a frame or a background, is not informative.
    other = max(_one_region(detail_cells(truth, recon, shift)).mean() for shift in (1, 2))
    return {**result, "cells": max(0.0, float(own.mean() - other))}


def _one_region(cells: FloatArray) -> NDArray[np.bool_]:
    """Return the pictures in which one region, but not the median region, has the same detail."""
    known = np.isfinite(cells).sum(axis=1) >= 4
    filled = np.where(known[:, None], cells, 0.0)
    one, others = np.nanmax(filled, axis=1), np.nanmedian(filled, axis=1)
    return np.asarray(known & (one >= CELL) & (others <= REST))


def reasons(result: Measures) -> list[tuple[Verdict, str]]:
    """Return the signs of a copy, each with its verdict.

    Parameters
    ----------
    result : Measures

    Returns
    -------
    list of (verdict, str)
    """
    sentences: list[tuple[Verdict, str]] = []

    def say(sure: bool, text: str) -> None:
        sentences.append(("failed" if sure else "suspicious", text))

    if result.rise <= RISE and result.rise_share <= COPIED:
        say(
            result.rise <= RISE / 2,
            f"at {result.band} a linear filter leaves only {result.rise_share:.1%} of the ground "
            "truth unexplained, and the error rises towards finer scales, whereas the error of "
            "decoders falls",
        )
    if result.fine <= FINE:
        say(
            result.fine <= FINE / 2,
            f"at {result.fine_band} only {result.fine:.1%} of the ground truth is unexplained",
        )
    if result.curve <= CURVE:
        say(True, "a curve maps the grey values of the ground truth to those of the reconstruction")
    if result.phase >= LESS:
        say(False, "they have the phases of the ground truth with other amplitudes")
    if result.amplitude >= MORE:
        say(False, "they have the amplitudes of the ground truth with other phases")
    if result.region <= REGION and result.region_share <= COPIED:
        say(
            result.region <= REGION / 2,
            f"in one region {1 - result.region_share:.1%} of the ground truth is explained, much "
            "more than elsewhere",
        )
    if result.cells >= SHARE:
        say(
            result.cells >= 0.5,
            f"{result.cells:.0%} of them contain the detail of the ground truth in only one region",
        )
    return sentences


@register_check
class TruthCopies(Check):
    """Parts of the ground truth that no decoder can predict.

    Examples
    --------
    >>> import calcarine as ca
    >>> from calcarine.audit import AuditInputs, PictureSet, audit
    >>> pictures = ca.StimulusSet.from_scenes(seed=0, indices=range(20)).images()
    >>> ids = [f"test{i}" for i in range(20)]
    >>> recon, truth = PictureSet.of(ids, 255 - pictures), PictureSet.of(ids, pictures)
    >>> result = audit(AuditInputs("inverted truth", recon, truth), only=["truth-copies"])
    >>> result.findings["truth-copies"].verdict
    'failed'
    """

    name = "truth-copies"
    title = "Copies of the ground truth, complete or partial"
    question = (
        "Do reconstructions contain more of their ground truth, at one scale, in one region or "
        "overall, than a decoder can predict?"
    )
    evidence_needed = (
        "The code that made the reconstructions, run by another person on a test stimulus to whose "
        "picture it has no access."
    )

    def run(self, inputs: AuditInputs) -> Finding:
        if len(inputs) < _FEWEST:
            return inconclusive(
                f"There are {len(inputs)} test stimuli; at least {_FEWEST} are needed to compare "
                "scales."
            )
        result = measure(inputs)
        sentences = reasons(result)
        numbers: dict[str, object] = {"reconstructions": len(inputs), **result.numbers()}
        table = _table(inputs)
        if not sentences:
            return Finding(
                "passed",
                "Errors fall from coarse to fine scales, as they do for decoders, and no scale, "
                "region or grey-value curve reproduces the ground truth.",
                numbers,
                (table,),
            )
        verdict: Verdict = "failed" if any(v == "failed" for v, _ in sentences) else "suspicious"
        sentence = "; ".join(text for _, text in sentences)
        return Finding(
            verdict,
            f"Reconstructions contain parts of their ground truth: {sentence}.",
            numbers,
            (table,),
        )


def _table(inputs: AuditInputs) -> EvidenceTable:
    truth, recon = opponent(inputs.truth.small), opponent(inputs.recon.small)
    octaves = [each for each in bands(truth, recon) if each[0].transform == "cosine"]
    rows = tuple(
        (
            f"{band.low / 2:g} to {band.high / 2:g}",
            band.channel,
            f"{band.power:.0f}",
            f"{band.error:.1f}",
            f"{band.share:.3f}",
        )
        for each in octaves
        for band in each
    )
    return EvidenceTable(
        (
            "cycles per picture",
            "channel",
            "power of the ground truth",
            "error",
            "unexplained share",
        ),
        rows,
        "Mean squared coefficient of the cosine transform, in grey values, and the error that "
        "remains after the best linear filter of the reconstructions.",
    )
