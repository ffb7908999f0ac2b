"""Verdicts on scores: whether a method is better than its strongest floor."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from calcarine.evaluation.statistics.permutation import smallest_p
from calcarine.evaluation.statistics.significance import (
    ALPHA,
    PairedResult,
    holm,
    paired_difference,
    share_of_signs,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FloorVerdict", "Outcome", "floor_verdicts"]

Record = dict[str, Any]
Outcome = Literal[
    "above floor",
    "not distinguishable from floor",
    "below floor",
    "ceiling below floor",
    "inconclusive",
    "not tested",
]
_SHUFFLED = "shuffled brain"


@dataclass(frozen=True)
class FloorVerdict:
    """Verdict on one score of one method, compared with the strongest floor.

    Parameters
    ----------
    method, protocol, metric : str
        The score.
    outcome : str
        "above floor", "not distinguishable from floor", "below floor", "ceiling below floor",
        "inconclusive" or "not tested". "above" means better, also if lower values are better.
    floor : str or None
        Name of the floor with the best score; None if there is no floor.
    difference : PairedResult or None
        Method minus floor over images, with the uncorrected p; None without a paired test.
    p_holm : float or None
        The p of the verdict, corrected for the metrics of the protocol. It is the p of the
        permutation test if the strongest floor is the shuffled brain.

    See Also
    --------
    floor_verdicts : Returns the verdicts of an evaluation.

    Examples
    --------
    >>> from calcarine.evaluation import FloorVerdict
    >>> verdict = FloorVerdict("z_c", "calcarine", "SSIM", "below floor", floor="training mean")
    >>> verdict.sentence
    'below its strongest floor (training mean)'
    """

    method: str
    protocol: str
    metric: str
    outcome: Outcome
    floor: str | None = None
    difference: PairedResult | None = None
    p_holm: float | None = None

    @property
    def sentence(self) -> str:
        """The verdict in words, with the name of the floor."""
        if self.floor is None:
            return "not tested: no floor has a score"
        name = f"its strongest floor ({self.floor})"
        return {
            "above floor": f"above {name}",
            "not distinguishable from floor": f"not distinguishable from {name}",
            "below floor": f"below {name}",
            "ceiling below floor": (
                "ceiling below floor: the generator cannot draw these pictures"
            ),
            "inconclusive": (
                f"inconclusive: too few images for a significant difference from {name}"
            ),
            "not tested": f"not tested against {name}",
        }[self.outcome]


def floor_verdicts(
    records: Iterable[Record],
    per_image: pd.DataFrame,
    *,
    n_permutations: int = 2000,
    seed: int = 0,
) -> list[FloorVerdict]:
    """Compare every score of every method with its strongest floor.

    Parameters
    ----------
    records : iterable of dict
        Records of an `Evaluation`.
    per_image : pandas.DataFrame
        Scores of single images of the same evaluation.
    n_permutations : int
        Number of random sign flips.
    seed : int
        Seed of the sign flips and of the intervals.

    Returns
    -------
    list of FloorVerdict
        One for each score of a method.

    Notes
    -----
    The strongest floor is the one with the best score among the floors of the test set and the
    shuffled brain of the method itself. The test is `paired_difference` over images. Its p is
    two-sided and corrected for the metrics of the protocol (Holm), and a difference counts if it is
    at most .05. If the shuffled brain is the strongest floor, the permutation test of the record
    decides. If the ceiling of the method is significantly worse than the floor, the verdict says
    that, unless the method itself is better than the floor. Medians and scores of the whole set
    are not tested.

    Examples
    --------
    >>> import pandas as pd
    >>> score = {"metric": "SSIM", "protocol": "calcarine", "higher_is_better": True}
    >>> records = [
    ...     score | {"method": "z", "role": "method", "value": 0.2},
    ...     score | {"method": "training mean", "role": "floor", "value": 0.5},
    ... ]
    >>> values = {"z": [0.2] * 20, "training mean": [0.5] * 20}
    >>> per_image = pd.DataFrame(values).rename_axis("id").reset_index()
    >>> per_image = per_image.melt("id", var_name="method")
    >>> per_image = per_image.assign(metric="SSIM", protocol="calcarine")
    >>> floor_verdicts(records, per_image)[0].sentence
    'below its strongest floor (training mean)'
    """
    records = list(records)
    by_score: dict[_Key, list[Record]] = {}
    families: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        by_score.setdefault((record["protocol"], record["metric"]), []).append(record)
        if record["role"] == "method":
            families.setdefault((record["method"], record["protocol"]), []).append(record)
    images = _tables(per_image)
    verdicts: dict[tuple[str, str, str], FloorVerdict] = {}
    for (method, protocol), rows in families.items():
        others = [by_score[protocol, row["metric"]] for row in rows]
        floors = [_strongest_floor(row, known) for row, known in zip(rows, others, strict=True)]
        ceilings = [_ceiling(row, known) for row, known in zip(rows, others, strict=True)]
        own = _tests(rows, floors, images, n_permutations, seed)
        upper = _tests(ceilings, floors, images, n_permutations, seed)
        for row, floor, test, ceiling in zip(rows, floors, own, upper, strict=True):
            verdicts[method, protocol, row["metric"]] = _verdict(row, floor, test, ceiling)
    return list(verdicts.values())


_Key = tuple[str, str]


@dataclass(frozen=True)
class _Test:
    """A paired test against a floor."""

    outcome: Outcome
    difference: PairedResult
    p_holm: float


def _strongest_floor(record: Record, known: Iterable[Record]) -> Record | None:
    """Return the floor with the best score; only the method's own shuffled brain counts."""
    floors = [
        floor
        for floor in known
        if floor["role"] == "floor"
        and floor["value"] is not None
        and floor.get("pool") == record.get("pool")
        and (
            not floor["method"].startswith(_SHUFFLED)
            or floor["method"] == f"{_SHUFFLED} ({record['method']})"
        )
    ]
    return max(floors, key=lambda floor: _sign(record) * float(floor["value"]), default=None)


def _ceiling(record: Record, known: Iterable[Record]) -> Record | None:
    name = f"ceiling {record['method']}"
    return next((one for one in known if one["role"] == "ceiling" and one["method"] == name), None)


def _sign(record: Record) -> int:
    return 1 if record["higher_is_better"] else -1


def _tables(per_image: pd.DataFrame) -> dict[_Key, pd.DataFrame]:
    """Return images by methods for each protocol and metric."""
    if per_image.empty:
        return {}
    return {
        (str(protocol), str(metric)): rows.pivot(index="id", columns="method", values="value")
        for (protocol, metric), rows in per_image.groupby(["protocol", "metric"], sort=False)
    }


def _tests(
    records: Sequence[Record | None],
    floors: Sequence[Record | None],
    images: dict[_Key, pd.DataFrame],
    n_permutations: int,
    seed: int,
) -> list[_Test | None]:
    """Test each record against its floor where both have scores of single images."""
    differences = [
        _difference(record, floor, images, n_permutations, seed) if record and floor else None
        for record, floor in zip(records, floors, strict=True)
    ]
    tested = [one for one in differences if one is not None]
    corrected = iter(holm([one.p for one in tested]).tolist())
    tests: list[_Test | None] = []
    for record, difference in zip(records, differences, strict=True):
        if record is None or difference is None:
            tests.append(None)
            continue
        p = float(next(corrected))
        least = len(tested) * smallest_p(n_permutations, share_of_signs(difference.n))
        outcome: Outcome = "not distinguishable from floor"
        if p <= ALPHA:
            better = _sign(record) * difference.difference > 0
            outcome = "above floor" if better else "below floor"
        elif least > ALPHA:
            outcome = "inconclusive"
        tests.append(_Test(outcome, difference, p))
    return tests


def _difference(
    record: Record,
    floor: Record,
    images: dict[_Key, pd.DataFrame],
    n_permutations: int,
    seed: int,
) -> PairedResult | None:
    # The test compares means; the mean of the ranks is a metric of its own.
    if record.get("summary") == "median":
        return None
    table = images.get((record["protocol"], record["metric"]))
    if table is None or not {record["method"], floor["method"]} <= set(table.columns):
        return None
    a, b = table[record["method"]].to_numpy(float), table[floor["method"]].to_numpy(float)
    both = np.isfinite(a) & np.isfinite(b)
    if not both.any():
        return None
    return paired_difference(a[both], b[both], n_permutations=n_permutations, seed=seed)


def _verdict(
    row: Record, floor: Record | None, test: _Test | None, ceiling: _Test | None
) -> FloorVerdict:
    name = (row["method"], row["protocol"], row["metric"])
    if floor is None:
        return FloorVerdict(*name, "not tested")
    if test is None:
        outcome, p = _against_shuffled(row, floor)
        return FloorVerdict(*name, outcome, floor["method"], None, p)
    outcome = test.outcome
    # A method that is better than its floor shows that the generator can draw these pictures.
    if ceiling is not None and ceiling.outcome == "below floor" and outcome != "above floor":
        outcome = "ceiling below floor"
    return FloorVerdict(*name, outcome, floor["method"], test.difference, test.p_holm)


def _against_shuffled(row: Record, floor: Record) -> tuple[Outcome, float | None]:
    """Return the outcome of the permutation test if the floor is the shuffled brain.

    The test is one-sided, so it cannot show that a method is below.
    """
    p, least = row.get("p_holm"), row.get("p_holm_min")
    if not floor["method"].startswith(_SHUFFLED) or p is None:
        return "not tested", None
    if p <= ALPHA:
        return "above floor", p
    if least is not None and least > ALPHA:
        return "inconclusive", p
    return "not distinguishable from floor", p
