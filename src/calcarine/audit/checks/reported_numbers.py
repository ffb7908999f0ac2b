"""Check of the claimed numbers: which definition gives them from the pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from calcarine.audit.check import Check, inconclusive, register_check
from calcarine.audit.findings import EvidenceTable, Finding, Verdict
from calcarine.audit.reported_scores import Definition, Family, definitions, family_of

if TYPE_CHECKING:
    from calcarine.audit.inputs import AuditInputs, PictureSet, ReportedScore

_BEST = "the best sample of each stimulus by its own score"
_BLURRY = 0.25


@dataclass(frozen=True)
class _Value:
    definition: Definition
    how: str
    value: float
    valid: bool


@register_check
class NumbersFromPictures(Check):
    """Claimed numbers against every known definition."""

    name = "numbers-from-pictures"
    title = "Which metric protocol gave the numbers"
    question = "Do the pictures give the claimed numbers, and by whose definition of the metrics?"
    evidence_needed = (
        'The claimed numbers (--numbers "PixCorr .32, SSIM .43"), the pictures they were '
        "computed from, and the name of the protocol; those of networks: calcarine score."
    )

    def run(self, inputs: AuditInputs) -> Finding:
        if not inputs.numbers:
            return inconclusive("No claimed number was given.")
        required = {number: family_of(number.metric) for number in inputs.numbers}
        families = set(required.values()) - {"other"}
        if not families:
            return inconclusive(
                "All claimed numbers are of networks, which this check does not run."
            )
        values = _all_values(families, inputs, protocols=True)
        if not all(_explained(n, f, values) for n, f in required.items() if f != "other"):
            values += _all_values(families, inputs, protocols=False)
        rows: list[tuple[str, ...]] = []
        verdicts: list[Verdict] = []
        protocols: list[set[str]] = []
        for number, family in required.items():
            own = [value for value in values if value.definition.family == family]
            if family == "other" or not own:
                rows.append((str(number), "not recomputed", "", "needs a network"))
                continue
            fits = [value for value in own if _fits(number, value.value)]
            verdicts.append(_verdict(number, fits, own))
            if verdicts[-1] == "passed":
                protocols.append({v.definition.protocol for v in fits if v.valid})
            rows += _rows(number, fits, own)
        table = EvidenceTable(
            ("claimed", "by the pictures", "definition", "how"),
            tuple(rows),
            "Definitions that give the claimed number as it is rounded, or, where there is none, "
            "the nearest.",
        )
        return _finding(verdicts, protocols, table, len(values))


def _all_values(families: set[Family], inputs: AuditInputs, protocols: bool) -> list[_Value]:
    """Of the protocols' definitions, or of the variants that no protocol uses."""
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

    def read(row: int, sample: int) -> np.ndarray:  # type: ignore[type-arg]
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
            value.how or ("" if fits else "the nearest; it does not fit"),
        )
        for value in shown
    ]


def _finding(
    verdicts: list[Verdict], protocols: list[set[str]], table: EvidenceTable, tried: int
) -> Finding:
    numbers = {
        "numbers recomputed": len(verdicts),
        "of them found under an honest definition": verdicts.count("passed"),
        "values compared": tried,
    }
    if not verdicts:
        return Finding("inconclusive", "None could be recomputed.", numbers, (table,))
    if "failed" in verdicts:
        picked = any(row[3] == _BEST for row in table.rows)
        return Finding(
            "failed",
            "A claimed number comes out only when the best sample of each stimulus is picked by "
            "its own score."
            if picked
            else "A claimed number is better than the pictures give under any known definition.",
            numbers,
            (table,),
        )
    if "suspicious" in verdicts:
        blended = any("blended" in row[3] for row in table.rows)
        return Finding(
            "suspicious",
            "A claimed number comes out only with other pictures blended in."
            if blended
            else "A claimed number comes out under no known definition.",
            numbers,
            (table,),
        )
    common = set.intersection(*protocols) - {""}
    if common:
        names = " or ".join(sorted(common))
        return Finding(
            "passed",
            f"The pictures give the claimed numbers by the protocol {names}.",
            numbers,
            (table,),
        )
    if any(protocols) and len(protocols) > 1 and all(p - {""} for p in protocols):
        return Finding(
            "suspicious",
            "Each number comes out, but by definitions of different protocols.",
            numbers,
            (table,),
        )
    return Finding(
        "passed",
        "The pictures give the claimed numbers, by definitions that no one protocol has in common.",
        numbers,
        (table,),
    )
