"""Check of reconstructions that hold parts of their own truth, blurred, by scale or by region."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from calcarine.audit.check import Check, inconclusive, register_check
from calcarine.audit.checks.spectra import (
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
from calcarine.audit.findings import EvidenceTable, Finding, Verdict

if TYPE_CHECKING:
    from calcarine.audit.inputs import AuditInputs

_FEWEST = 4
# Pictures whose full size is read for the curve of grey values.
_READ = 30

# scripts/audit_thresholds.py measures them. With two seeds, honest pipelines, among them decoders
# with correlations of .9 to .97 at all scales and with white noise, came no nearer than a rise of
# 1.1, a finest octave of .05, a curve of .01, a region of .88 and amplitudes .02 from what goes
# with the phases; copies reached .3, .02, .000, .1, and .26 below or .38 above.
RISE = 0.5
"""Largest ratio of errors, coarse to fine, of a copied octave."""
COPIED = 0.05
"""Largest unexplained share of a copied octave or region."""
FINE = 0.02
"""Largest unexplained share of the finest octave, from 8 to 16 cycles per picture."""
CURVE = 0.005
"""Largest share of variance beside a curve of the truth's grey values."""
PHASE, LESS, MORE = 0.75, 0.2, 0.25
"""Agreement of phases, and how far amplitudes may lie from what goes with it."""
REGION = 0.25
"""Largest ratio of a copied region's unexplained share and error to the median region's."""
CELL, REST, SHARE = 0.8, 0.4, 0.2
"""Squared correlation of detail in one region and in the median region; share of pictures."""


@dataclass(frozen=True)
class Measures:
    """How close reconstructions are to their truths, in the measures that have thresholds.

    Parameters
    ----------
    rise, rise_share : float
        Smallest ratio of errors among octaves of which so little is unexplained; that share.
    fine : float
        Unexplained share of the finest octave, in the best channel.
    curve : float
        Share of variance beside a curve of grey values.
    phase, amplitude : float
        How far amplitudes lie below what goes with phases of `PHASE` or more, and above.
    region, region_share : float
        Of the region that is most like a copy: share and error over those of the median region,
        and the share itself.
    cells : float
        Share of pictures in which one region's detail is the truth's and the others' is not.
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
        """Those that could be measured, by what they are."""
        names = {
            "rise": "smallest ratio of errors, coarse to finer scales",
            "rise_share": "unexplained share of the truth at that scale",
            "fine": "unexplained share of the truth at 8 to 16 cycles per picture",
            "curve": "variance beside a curve of the truth's grey values",
            "phase": "amplitudes below what goes with the phases, by",
            "amplitude": "amplitudes above what goes with the phases, by",
            "region": "most copied region over the median region",
            "region_share": "unexplained share of the truth in that region",
            "cells": "pictures with the truth's detail in one region alone",
        }
        values = {name: getattr(self, name) for name in (f.name for f in fields(self))}
        return {text: values[name] for name, text in names.items() if np.isfinite(values[name])}


def measure(inputs: AuditInputs) -> Measures:
    """Measure everything that has a threshold.

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
    # A region that another truth shares, such as a frame or a background, says nothing.
    other = max(_one_region(detail_cells(truth, recon, shift)).mean() for shift in (1, 2))
    return {**result, "cells": max(0.0, float(own.mean() - other))}


def _one_region(cells: FloatArray) -> NDArray[np.bool_]:
    """Pictures of which one region's detail is the truth's and the median region's is not."""
    known = np.isfinite(cells).sum(axis=1) >= 4
    filled = np.where(known[:, None], cells, 0.0)
    return known & (np.nanmax(filled, axis=1) >= CELL) & (np.nanmedian(filled, axis=1) <= REST)


def reasons(result: Measures) -> list[tuple[Verdict, str]]:
    """What speaks for a copy, each with the verdict that it deserves.

    Parameters
    ----------
    found : Measures

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
            f"at {result.band} a linear filter predicts the ground truth from them up to "
            f"{result.rise_share:.1%} of its power, and the error rises towards finer scales, "
            "whereas the error of decoders falls",
        )
    if result.fine <= FINE:
        say(
            result.fine <= FINE / 2,
            f"at {result.fine_band} they hold the truth's detail but for {result.fine:.1%}",
        )
    if result.curve <= CURVE:
        say(True, "a curve turns the truth's grey values into theirs")
    if result.phase >= LESS:
        say(False, "they have the truth's phases with amplitudes of their own")
    if result.amplitude >= MORE:
        say(False, "they have the truth's amplitudes with phases of their own")
    if result.region <= REGION and result.region_share <= COPIED:
        say(
            result.region <= REGION / 2,
            f"in one region {1 - result.region_share:.1%} of the truth is in them, much more than "
            "elsewhere",
        )
    if result.cells >= SHARE:
        say(
            result.cells >= 0.5,
            f"{result.cells:.0%} of them hold the truth's detail in one region alone",
        )
    return sentences


@register_check
class TruthCopies(Check):
    """Parts of the truth that no decoder could know."""

    name = "truth-copies"
    title = "Copies of the truth, whole or in part"
    question = (
        "Do reconstructions know more of their own truth, at one scale, in one region or in all, "
        "than a decoder could?"
    )
    evidence_needed = (
        "The code that made the pictures, run by another person on a test stimulus whose picture "
        "it cannot reach."
    )

    def run(self, inputs: AuditInputs) -> Finding:
        if len(inputs) < _FEWEST:
            return inconclusive(
                f"{len(inputs)} test stimuli are too few for a comparison of scales."
            )
        result = measure(inputs)
        sentences = reasons(result)
        numbers: dict[str, object] = {"reconstructions": len(inputs), **result.numbers()}
        table = _table(inputs)
        if not sentences:
            return Finding(
                "passed",
                "Errors fall from coarse to fine scales as those of decoders do, and no scale, "
                "region or curve of grey values gives the truth.",
                numbers,
                (table,),
            )
        verdict: Verdict = "failed" if any(v == "failed" for v, _ in sentences) else "suspicious"
        sentence = "; ".join(text for _, text in sentences)
        return Finding(
            verdict,
            f"Reconstructions hold parts of their truth: {sentence}.",
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
        ("cycles per picture", "channel", "power of the truth", "error", "share unexplained"),
        rows,
        "Mean of a squared coefficient of the cosine transform, in grey values, and what the best "
        "filter of the reconstructions leaves of it.",
    )
