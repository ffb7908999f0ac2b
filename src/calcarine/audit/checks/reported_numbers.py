"""Check of reported numbers: which definition of a metric reproduces them from the pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from calcarine.audit.check import Check, inconclusive, register_check
from calcarine.audit.findings import EvidenceTable, Finding, Verdict
from calcarine.audit.reported_scores import Definition, Family, definitions, family_of

if TYPE_CHECKING:
    from calcarine.audit.inputs import AuditInputs, PictureSet, ReportedScore

__all__ = ["NumbersFromPictures"]

_BEST = "best sample of each stimulus by this score"
_BLURRY = 0.25


@dataclass(frozen=True)
class _Value:
    definition: Definition
    how: str
    value: float
    valid: bool


@register_check
class NumbersFromPictures(Check):
    """Reported numbers compared with every known definition.

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.audit import AuditInputs, PictureSet, audit, read_numbers
    >>> images = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    >>> pictures = PictureSet.of([str(i) for i in range(12)], images)
    >>> inputs = AuditInputs("copies", pictures, pictures, numbers=read_numbers("PixCorr 1.00"))
    >>> result = audit(inputs, only=["numbers-from-pictures"])
    >>> result.findings["numbers-from-pictures"].verdict
    'passed'
    """

    name = "numbers-from-pictures"
    title = "Reported numbers reproduced from the pictures"
    question = "Do the pictures reproduce the reported numbers, and by which protocol?"
    evidence_needed = (
        'The reported numbers (--numbers "PixCorr .32, SSIM .43"), the pictures that they were '
        "computed from, and the protocol. Use calcarine score for metrics of networks."
    )

    def run(self, inputs: AuditInputs) -> Finding:
        if not inputs.numbers:
            return inconclusive("No reported number is given.")
        required = {number: family_of(number.metric) for number in inputs.numbers}
        families = set(required.values()) - {"other"}
        if not families:
            return inconclusive("All reported numbers need a network, and this check runs none.")
        values = _all_values(families, inputs, protocols=True)
        if not all(_explained(n, f, values) for n, f in required.items() if f != "other"):
            values += _all_values(families, inputs, protocols=False)
        rows: list[tuple[str, ...]] = []
        verdicts: list[Verdict] = []
        protocols: list[set[str]] = []
        for number, family in required.items():
            own = [value for value in values if value.definition.family == family]
            if family == "other" or not own:
                rows.append((str(number), "not computed", "", "needs a network"))
                continue
            fits = [value for value in own if _fits(number, value.value)]
            verdicts.append(_verdict(number, fits, own))
            if verdicts[-1] == "passed":
                protocols.append({v.definition.protocol for v in fits if v.valid})
            rows += _rows(number, fits, own)
        table = EvidenceTable(
            ("reported", "computed", "definition", "note"),
            tuple(rows),
            "Definitions that reproduce the reported number after rounding; if there is none, the "
            "closest one.",
        )
        return _finding(verdicts, protocols, table, len(values))


def _all_values(families: set[Family], inputs: AuditInputs, protocols: bool) -> list[_Value]:
    """Return the values of the protocols' definitions, or of variants that no protocol uses."""
    return [
        value
        for definition in definitions(families)
        if bool(definition.protocol) == protocols
        for value in _values(definition, inputs)
        if np.isfinite(value.value)
    ]


def _explained(number: ReportedScore, family: Family, values: list[_Value]) -> bool:
    return any(
        value.valid and value.definition.family == family and _fits(number, value.value)
        for value in values
    )


def _values(definition: Definition, inputs: AuditInputs) -> list[_Value]:
    truth, recon = inputs.truth, inputs.recon
    measured = [definition.measure(truth, recon, sample) for sample in range(recon.samples)]
    each = np.stack([definition.scores(values) for values in measured], axis=1)
    best = each.min(axis=1) if definition.lower else each.max(axis=1)
    result = [_Value(definition, "", float(each.mean()), True)]
    if recon.samples > 1:
        result.append(_Value(definition, "first sample", float(each[:, 0].mean()), True))
        if definition.averaged:
            value = float(definition.scores(np.mean(measured, axis=0)).mean())
            result.append(_Value(definition, "similarities averaged over samples", value, True))
        result.append(_Value(definition, _BEST, float(best.mean()), False))
    for name, other in inputs.others.items():
        if definition.protocol == "mindeye":
            made = _blend(recon, other)
            if made is not None:
                value = float(definition.scores(definition.measure(truth, made, 0)).mean())
                result.append(_Value(definition, f"a quarter of {name} blended in", value, False))
    return result


def _blend(recon: PictureSet, other: PictureSet) -> PictureSet | None:
    from calcarine.audit.inputs import PictureSet

    if recon.read(0, 0).shape != other.read(0, 0).shape:
        return None

    def read(row: int, sample: int) -> NDArray[np.float64]:
        a, b = (side.full(row).astype(np.float64) / 255 for side in (recon, other))
        return np.asarray((1 - _BLURRY) * a + _BLURRY * b)

    return PictureSet(recon.ids, read)


def _fits(number: ReportedScore, value: float) -> bool:
    return abs(value - number.value) <= 0.5 * 10.0**-number.decimals + 1e-6


def _verdict(number: ReportedScore, fits: list[_Value], own: list[_Value]) -> Verdict:
    if any(value.valid for value in fits):
        return "passed"
    if any(value.how == _BEST for value in fits):
        return "failed"
    if fits:
        return "suspicious"
    valid = [value.value for value in own if value.valid]
    lower = own[0].definition.lower
    beyond = number.value < min(valid) if lower else number.value > max(valid)
    return "failed" if beyond else "suspicious"


def _rows(number: ReportedScore, fits: list[_Value], own: list[_Value]) -> list[tuple[str, ...]]:
    shown = fits or sorted(own, key=lambda value: abs(value.value - number.value))[:1]
    return [
        (
            str(number),
            f"{value.value:.{number.decimals + 2}f}",
            f"{value.definition.name}"
            + (f" ({value.definition.protocol})" if value.definition.protocol else ""),
            value.how or ("" if fits else "closest; does not fit"),
        )
        for value in shown
    ]


def _finding(
    verdicts: list[Verdict], protocols: list[set[str]], table: EvidenceTable, tried: int
) -> Finding:
    numbers = {
        "numbers computed": len(verdicts),
        "numbers reproduced by a valid definition": verdicts.count("passed"),
        "values compared": tried,
    }
    if not verdicts:
        return Finding("inconclusive", "No number could be computed.", numbers, (table,))
    if "failed" in verdicts:
        picked = any(row[3] == _BEST for row in table.rows)
        return Finding(
            "failed",
            "A reported number is reproduced only if the best sample of each stimulus is chosen by "
            "this score."
            if picked
            else "A reported number is better than the pictures reach by any known definition.",
            numbers,
            (table,),
        )
    if "suspicious" in verdicts:
        blended = any("blended" in row[3] for row in table.rows)
        return Finding(
            "suspicious",
            "A reported number is reproduced only if other pictures are blended in."
            if blended
            else "A reported number is not reproduced by any known definition.",
            numbers,
            (table,),
        )
    common = set.intersection(*protocols) - {""}
    if common:
        names = " or ".join(sorted(common))
        return Finding(
            "passed",
            f"The pictures reproduce the reported numbers by the protocol {names}.",
            numbers,
            (table,),
        )
    if any(protocols) and len(protocols) > 1 and all(p - {""} for p in protocols):
        return Finding(
            "suspicious",
            "Each number is reproduced, but by definitions of different protocols.",
            numbers,
            (table,),
        )
    return Finding(
        "passed",
        "The pictures reproduce the reported numbers, but no single protocol contains all of the "
        "definitions.",
        numbers,
        (table,),
    )
