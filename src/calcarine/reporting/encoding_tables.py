"""Sentences and tables of the page of a run's encoding analyses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from calcarine.encoding.analysis import edge_note
from calcarine.encoding.region_scores import ceiling_r
from calcarine.reporting.encoding_record import EncodingRecord

__all__ = ["ceiling_sentence", "region_rows", "result_sentences", "space_rows", "winner_rows"]

# Mean noise ceiling below which r is not given as a share of it.
_LEAST_CEILING = 0.2


def result_sentences(record: EncodingRecord) -> list[str]:
    """Return the results in sentences."""
    facts = record.summary["facts"]
    sentences = [
        f"{facts['voxels']:,} voxels and {facts['test_stimuli']} test stimuli. Significant voxels "
        f"have a false discovery rate of at most {facts['rate']:.0%} over voxels, with one-sided p "
        f"from the {facts['null']} null distribution of r."
    ]
    sentences += filter(None, [edge_note(facts)])
    table = record.regions
    if table.empty:
        return sentences
    latents = table[table["question"] == "latents"]
    for region, part in latents.groupby("region", sort=False):
        sentences.append(_best_space(str(region), part.sort_values("r", ascending=False)))
    return sentences


def _best_space(region: str, ranked: pd.DataFrame) -> str:
    """Return which feature space predicts a region best; the table is sorted by r."""
    best, second = ranked.iloc[0], ranked.iloc[1]
    if best["low"] <= 0:
        return (
            f"{region}: no feature space has a mean r above zero (highest: {best['space']} "
            f"with {_with_interval(best)})."
        )
    overlap = "" if best["low"] > second["high"] else "; the intervals overlap"
    return (
        f"{region}: {best['space']} predicts best with a mean r of {_with_interval(best)}, "
        f"followed by {second['space']} with {_with_interval(second)}{overlap}."
    )


def _with_interval(row: pd.Series) -> str:
    return f"{row['r']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def ceiling_sentence(record: EncodingRecord) -> str:
    """Return what the noise ceiling is, or why there is none."""
    if "ceiling" in record.voxels:
        return (
            "The noise ceiling of a voxel is the r that a perfect model of its signal would reach "
            "with these test responses, estimated from repeats of training stimuli (the square "
            "root of the share of variance that is signal). The table of regions also gives mean r "
            "as a share of the region's mean ceiling."
        )
    reason = record.summary.get("no_ceiling")
    because = f": {reason}" if reason else "."
    return (
        "There is no noise ceiling, because it is estimated from repeats of training stimuli"
        f"{because}"
    )


def region_rows(record: EncodingRecord) -> tuple[list[str], list[dict[str, Any]]]:
    """Return feature spaces, and a row for each region with mean r beside the noise ceiling."""
    table = record.regions
    if table.empty:
        return [], []
    table = table[table["question"].isin(["latents", "extra"])]
    spaces = [str(space) for space in table["space"].unique()]
    rows = []
    for region, part in table.groupby("region", sort=False):
        own = part.set_index("space")
        ceiling = _mean_ceiling(record.voxels, str(region))
        cells = {
            str(space): {
                "r": _with_interval(own.loc[space]),
                "share": None if ceiling is None else _share(own.loc[space, "r"], ceiling),
            }
            for space in own.index
        }
        first = part.iloc[0]
        rows.append(
            {"region": region, "voxels": first["voxels"], "ceiling": ceiling, "cells": cells}
        )
    return spaces, rows


def _mean_ceiling(voxels: pd.DataFrame, region: str) -> float | None:
    """Return the mean noise ceiling of a region as an r, or None if it is not known."""
    column = f"roi:{region}"
    if "ceiling" not in voxels or (region != "all" and column not in voxels):
        return None
    inside = np.ones(len(voxels), bool) if region == "all" else voxels[column].to_numpy(bool)
    tops = ceiling_r(voxels["ceiling"].to_numpy(np.float64)[inside])
    tops = tops[np.isfinite(tops)]
    return float(tops.mean()) if tops.size else None


def _share(r: float, ceiling: float) -> str:
    """Return r as a share of the ceiling; a dash where the region has hardly any signal."""
    return f"{100 * r / ceiling:.0f} %" if ceiling >= _LEAST_CEILING else "–"


def space_rows(record: EncodingRecord) -> list[dict[str, Any]]:
    """Return a row for each feature space: significant voxels and r."""
    counts = record.summary["facts"]["significant"]
    total = record.summary["facts"]["voxels"]
    rows = []
    for space, count in counts.items():
        r = record.voxels[f"r:{space}"]
        column = f"p_family:{space}"
        family = int((record.voxels[column] <= 0.05).sum()) if column in record.voxels else None
        rows.append(
            {
                "space": space,
                "significant": int(count),
                "share": count / total,
                "median": float(r.median()),
                "best": float(r.quantile(0.99)),
                "family": family,
            }
        )
    return rows


def winner_rows(record: EncodingRecord) -> tuple[list[str], list[dict[str, Any]]]:
    """Return blocks, and by stage and region the share that each block predicts best."""
    table = record.winners
    if table.empty:
        return [], []
    table = table[table["significant"] > 0]
    table = table.assign(block=[_block(str(space)) for space in table["space"]])
    rows = []
    for (question, region), part in table.groupby(["question", "region"], sort=False):
        rows.append(
            {
                "stage": str(question).split(", ")[1],
                "region": region,
                "significant": int(part["significant"].iloc[0]),
                "shares": dict(zip(part["block"], part["share"], strict=True)),
                "best": part["share"].max(),
            }
        )
    return list(dict.fromkeys(table["block"])), rows


def _block(space: str) -> str:
    return space.split("@")[0].removeprefix("unet:")
