"""How much signal a subject has, in numbers and in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from calcarine.brain.dataset import BrainDataset
from calcarine.brain.split import Split
from calcarine.quality.identification import RepeatIdentification, identify_repeats
from calcarine.quality.reliability import Reliability, estimate_reliability
from calcarine.quality.repeats import Repeats, trials_of

__all__ = ["MORE_REPEATS", "SignalReport", "SignalRow", "describe_signal"]

ENOUGH = 10.0
"""Percent of explainable variance above which a voxel is counted as having signal."""

MORE_REPEATS = (3, 10)
"""Repeats for which identification is extrapolated."""

_LEVELS = ((0.9, "strong"), (0.7, "moderate"), (0.0, "weak"))


@dataclass(frozen=True)
class SignalRow:
    """Signal of one region; None for what could not be measured.

    Attributes
    ----------
    roi, voxels
        Name and size.
    ceiling, ceiling_low, ceiling_high : float, optional
        Median noise ceiling in percent and its 95 % interval over stimuli.
    share : float, optional
        Share of voxels with a ceiling above 10 %.
    best_r : float, optional
        Largest correlation with test responses that a perfect model reaches
        in the median voxel: the root of its ceiling.
    top_r : float, optional
        The same in the best twentieth of the voxels.
    half : int, optional
        Repeats in each of the two halves that are compared.
    accuracy, accuracy_low, accuracy_high : float, optional
        Two-way identification between halves and its interval; chance .5.
    with_more : dict of int to float
        Accuracy expected for halves of so many repeats.
    verdict : str
        ``"strong"``, ``"moderate"``, ``"weak"``, ``"none"`` or ``"unknown"``.
    sentence : str
        The verdict in words.
    """

    roi: str
    voxels: int
    ceiling: float | None
    ceiling_low: float | None
    ceiling_high: float | None
    share: float | None
    best_r: float | None
    top_r: float | None
    half: int | None
    accuracy: float | None
    accuracy_low: float | None
    accuracy_high: float | None
    with_more: dict[int, float]
    verdict: str
    sentence: str


@dataclass(frozen=True)
class SignalReport:
    """How much signal a subject has.

    Attributes
    ----------
    who : str
        Data set, subject and split.
    simulated : bool
        Whether the responses were made by a program.
    on : str
        Side of the split with the repeats.
    averaged : float, optional
        Repeats of the means that ceilings are about.
    basis : str
        In words, what was computed from what.
    rows : tuple of SignalRow
        One per region.
    conclusion : str
        What it means for decoding.

    Examples
    --------
    >>> import numpy as np
    >>> import calcarine as ca
    >>> from calcarine.quality import describe_signal
    >>> seen = ca.StimulusSet.from_scenes(seed=0, indices=range(40))
    >>> noise = np.random.default_rng(0).standard_normal((80, 20))  # no signal
    >>> brain = ca.BrainDataset.from_arrays(noise, seen.ids * 2, seen, test=10)
    >>> report = describe_signal(brain)
    >>> report.on, report.averaged
    ('train', 2.0)
    >>> report.conclusion
    'No region shows more than noise here: ...'
    """

    who: str
    simulated: bool
    on: str
    averaged: float | None
    basis: str
    rows: tuple[SignalRow, ...]
    conclusion: str

    def to_json(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        kind = " (simulated)" if self.simulated else ""
        lines = [f"Signal of {self.who}{kind}", self.basis]
        width = max((len(row.roi) for row in self.rows), default=0)
        lines += [f"  {row.roi:{width}}  {row.sentence}" for row in self.rows]
        return "\n".join([*lines, self.conclusion])


def describe_signal(
    dataset: BrainDataset,
    split: str | Split | None = None,
    on: str = "train",
    rois: Sequence[str] | None = None,
    seed: int = 0,
    n_boot: int = 200,
) -> SignalReport:
    """Describe how much signal each region has, and what that means for decoding.

    Parameters
    ----------
    dataset, split
        See `BrainDataset.split`.
    on : str
        ``"train"``; ``"test"`` looks at test responses (see `estimate_reliability`).
    rois : sequence of str, optional
        Regions; all of the data set if left out.
    seed, n_boot : int
        Of random halves and resamples.

    Returns
    -------
    SignalReport
        Its `str` is for people, `to_json` for programs.

    Examples
    --------
    >>> import numpy as np
    >>> import calcarine as ca
    >>> from calcarine.quality import describe_signal
    >>> rng = np.random.default_rng(0)
    >>> seen = ca.StimulusSet.from_scenes(seed=0, indices=range(40))
    >>> trials = np.tile(rng.standard_normal((40, 20)), (2, 1)) + rng.standard_normal((80, 20))
    >>> rois = {"V1": np.arange(20) < 10}
    >>> brain = ca.BrainDataset.from_arrays(trials, seen.ids * 2, seen, test=10, rois=rois)
    >>> describe_signal(brain).conclusion
    'Most can be decoded from V1: ...'
    """
    chosen = dataset.split(split)
    shown = dataset.trial_stimuli
    repeats = Repeats.of([shown[row] for row in trials_of(dataset, chosen, on)])
    names = list(rois) if rois is not None else list(dataset.rois) or ["all"]
    who = f"{dataset.subject} in {dataset.name}, split {chosen.name}"
    if len(repeats) < 2:
        rows = tuple(_unknown(name, int(dataset.roi_mask(name).sum()), on) for name in names)
        side = "training" if on == "train" else "test"
        return SignalReport(
            who,
            dataset.simulated,
            on,
            None,
            _nothing_basis(dataset, chosen, on),
            rows,
            f"How much of the responses is signal cannot be estimated: at least two {side} stimuli "
            "must have been shown twice. Decoding may work all the same; the test will show.",
        )
    result = estimate_reliability(dataset, chosen, "+".join(names), on=on, n_boot=n_boot, seed=seed)
    rows = tuple(_row(dataset, chosen, name, result, seed) for name in names)
    return SignalReport(
        who, dataset.simulated, on, result.averaged, _basis(result), rows, _conclusion(rows, result)
    )


def _row(
    dataset: BrainDataset, split: Split, name: str, found: Reliability, seed: int
) -> SignalRow:
    mask = dataset.roi_mask(name)
    values = found.values[mask[found.columns]]
    median, low, high = found.median(mask)
    identified = identify_repeats(dataset, split, name, found.on, seed)
    best, top = np.sqrt(np.quantile(values, [0.5, 0.95]) / 100.0)
    share = float((values > ENOUGH).mean())
    verdict = _verdict(identified, low)
    accuracy_low, accuracy_high = identified.interval() if identified else (None, None)
    more = {count: identified.with_repeats(count) for count in MORE_REPEATS} if identified else {}
    row = SignalRow(
        name,
        int(mask.sum()),
        median,
        low,
        high,
        share,
        float(best),
        float(top),
        identified.half if identified else None,
        identified.accuracy if identified else None,
        accuracy_low,
        accuracy_high,
        more,
        verdict,
        "",
    )
    return SignalRow(**{**asdict(row), "sentence": _sentence(row)})


def _verdict(identified: RepeatIdentification | None, ceiling_low: float) -> str:
    if identified is None:
        return "weak" if ceiling_low > 0 else "none"
    if identified.interval()[0] <= 0.5:
        return "none"
    return next(word for level, word in _LEVELS if identified.accuracy >= level)


def _sentence(row: SignalRow) -> str:
    ceiling = (
        f"median ceiling {row.ceiling:.0f} % [{row.ceiling_low:.0f}, {row.ceiling_high:.0f}], "
        f"{100 * (row.share or 0):.0f} % of {row.voxels} voxels above {ENOUGH:.0f} %, "
        f"best r {row.best_r:.2f} in the median voxel"
    )
    said = "no signal seen" if row.verdict == "none" else row.verdict
    if row.accuracy is None:
        return f"{said}: {ceiling}; too few voxels to compare patterns."
    halves = "single trials" if row.half == 1 else f"means of {row.half} trials"
    text = (
        f"{said}: {ceiling}; {halves} distinguish two stimuli in {100 * row.accuracy:.0f} % of "
        f"cases [{100 * (row.accuracy_low or 0):.0f}, {100 * (row.accuracy_high or 0):.0f}], "
        "chance 50 %"
    )
    if row.verdict == "none":
        return f"{text}."
    more = ", ".join(f"{100 * p:.0f} % for means of {n}" for n, p in row.with_more.items())
    return f"{text} (expected: {more})."


def _unknown(name: str, voxels: int, on: str) -> SignalRow:
    side = "training" if on == "train" else "test"
    return SignalRow(
        name,
        voxels,
        None,
        None,
        None,
        None,
        None,
        None,
        None,
        None,
        None,
        None,
        {},
        "unknown",
        f"cannot be estimated ({voxels} voxels): no {side} stimulus was shown twice.",
    )


def _nothing_basis(dataset: BrainDataset, split: Split, on: str) -> str:
    other = "test" if on == "train" else "train"
    shown = dataset.trial_stimuli
    repeats = Repeats.of([shown[row] for row in trials_of(dataset, split, other)])
    if len(repeats) < 2:
        return "No stimulus of either side of the split was repeated."
    return (
        f"{len(repeats)} {'test' if other == 'test' else 'training'} stimuli were repeated; "
        f"use them (--on {other}) if you choose nothing by the result."
    )


def _basis(found: Reliability) -> str:
    shown = ", ".join(f"{stimuli} shown {times} x" for times, stimuli in found.repeats.items())
    side = "training" if found.on == "train" else "test"
    return (
        f"Computed from the repeats of {side} stimuli ({shown}); a ceiling is the percent of the "
        f"variance of means over {found.averaged:.3g} repeats, as in the test, that a stimulus "
        "explains."
    )


def _conclusion(rows: Sequence[SignalRow], found: Reliability) -> str:
    useful = [row for row in rows if row.verdict not in ("none", "unknown")]
    empty = [row.roi for row in rows if row.verdict == "none"]
    if not useful:
        return (
            "No region shows more than noise here: a decoder would have nothing to learn from. "
            "Check masks, the order of trials against the list of stimuli, and the scaling."
        )
    best = max(useful, key=lambda row: (row.accuracy or 0.0, row.ceiling or 0.0))
    text = (
        f"Most can be decoded from {best.roi}: a perfect model of it would correlate with test "
        f"responses at {best.best_r:.2f} in the median voxel and at {best.top_r:.2f} in the best "
        "twentieth; no encoding model can go higher."
    )
    weak = [row for row in useful if row.verdict == "weak"]
    if len(weak) == len(useful):
        text += (
            " All of it is weak: expect pictures that share colour or layout at most, and more "
            "repeats or more trials to help more than another model."
        )
    elif weak:
        text += f" Little will be added by {_listed([row.roi for row in weak])}."
    if empty:
        text += (
            f" No difference from noise was seen in {_listed(empty)}: leave "
            f"{'it' if len(empty) == 1 else 'them'} out."
        )
    gain = best.with_more.get(MORE_REPEATS[-1])
    if gain is not None and best.accuracy is not None and gain - best.accuracy > 0.05:
        text += (
            f" Averaging {MORE_REPEATS[-1]} trials would raise identification in {best.roi} from "
            f"{100 * best.accuracy:.0f} % to about {100 * gain:.0f} %."
        )
    return text


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
