"""Compute the metrics of a protocol, one sample of one network at a time."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from calcarine.errors import MissingWeightsError

if TYPE_CHECKING:
    from calcarine.evaluation.metrics.metric import FloatArray, Metric
    from calcarine.evaluation.networks.feature_cache import FeatureCache
    from calcarine.evaluation.protocols.protocol import Protocol

__all__ = ["Measured", "measure"]


@dataclass(frozen=True)
class Measured:
    """Scores and measurements of one metric on one set of reconstructions.

    `judge` is the name of the judge that the metric used, if any.
    """

    metric: Metric
    scores: FloatArray
    measurement: FloatArray
    digests: dict[str, str] = field(default_factory=dict)
    judge: str | None = None


def measure(cache: FeatureCache, protocol: Protocol, notes: list[str]) -> list[Measured]:
    """Compute the metrics of a protocol; add a note for those that cannot be computed.

    Parameters
    ----------
    cache : FeatureCache
    protocol : Protocol
    notes : list of str
        Notes are appended to it.

    Returns
    -------
    list of Measured
        In the order of the protocol.
    """
    groups: dict[tuple[Any, ...], list[Metric]] = {}
    refused: dict[str, list[str]] = {}
    order = protocol.metrics()
    for metric in order:
        key = tuple(
            (network, preprocessing) for network, preprocessing, _ in metric.required_features()
        )
        groups.setdefault(key, []).append(metric)
    result: dict[str, Measured] = {}
    for group in groups.values():
        cache.plan(
            w for metric in group if not _absent(cache, metric) for w in metric.required_features()
        )
        for measured in _measure_group(cache, protocol, group, refused):
            result[measured.metric.name] = measured
        cache.forget()
    notes += [
        f"{protocol.name}: left out {_listed(names)}, because {_lower_first(reason.rstrip('.'))}."
        for reason, names in refused.items()
    ]
    kept = [result[metric.name] for metric in order if metric.name in result]
    notes += [warning for m in kept if (warning := m.metric.warning(cache.n)) is not None]
    return kept


def _lower_first(text: str) -> str:
    """Return a sentence for use after "because"; names such as CLIP keep their capitals."""
    return text[0].lower() + text[1:] if text.split()[0] in ("The", "There", "No", "A") else text


def _listed(names: list[str]) -> str:
    """Return names, or the kinds of many names, each with the number of its metrics."""
    if len(names) < 4:
        return "; ".join(names)
    kinds = Counter(name.partition(", ")[0] for name in names)
    parts = [kind if count == 1 else f"{kind} ({count})" for kind, count in kinds.items()]
    return f"{len(names)} metrics: {', '.join(parts)}"


def _measure_group(
    cache: FeatureCache, protocol: Protocol, group: list[Metric], refused: dict[str, list[str]]
) -> list[Measured]:
    """Compute metrics that share a network, sample by sample to save memory."""
    ready: list[Metric] = []
    for metric in group:
        reason = (
            _without_judge(cache, metric) or _absent(cache, metric) or _unavailable(cache, metric)
        )
        if reason is None:
            ready.append(metric.configured(cache))
        else:
            refused.setdefault(reason, []).append(metric.name)
    raw: dict[str, FloatArray] = {}
    done: dict[str, FloatArray] = {}
    for sample in range(cache.samples):
        for metric in [m for m in ready if sample == 0 or m.uses_pictures]:
            value = metric.measure(cache, sample)
            share = 1 / cache.samples if metric.uses_pictures else 1.0
            raw[metric.name] = raw.get(metric.name, 0.0) + value * share
            if protocol.samples == "score":
                finished = metric.finish(value)
                done[metric.name] = done.get(metric.name, 0.0) + finished * share
        cache.forget("recon")
    for metric in ready:
        if protocol.samples == "similarity":
            done[metric.name] = metric.finish(raw[metric.name])
    return [
        Measured(
            metric,
            np.asarray(done[metric.name]),
            raw[metric.name],
            {w[0]: cache.digests[w[0]] for w in metric.required_features() if w[0]},
            cache.judge if _uses_judge(metric) else None,
        )
        for metric in ready
    ]


def _absent(cache: FeatureCache, metric: Metric) -> str | None:
    missing = [
        name
        for name in metric.needs
        if not name.startswith("network ") and name not in cache.inputs
    ]
    return (metric.missing_message or f"{missing[0]} is not given") if missing else None


def _without_judge(cache: FeatureCache, metric: Metric) -> str | None:
    """Return why a metric has no judge; categories alone would not help it."""
    try:
        if _uses_judge(metric):
            cache.require("judge")
    except MissingWeightsError as error:
        return str(error)
    return None


def _uses_judge(metric: Metric) -> bool:
    return any(feature[0] == "judge" for feature in metric.required_features())


def _unavailable(cache: FeatureCache, metric: Metric) -> str | None:
    try:
        for network in {w[0] for w in metric.required_features() if w[0]}:
            cache.require(network)
        return metric.unavailable(cache)
    except MissingWeightsError as error:
        return str(error)
