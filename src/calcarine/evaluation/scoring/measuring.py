"""Computing every metric of a protocol, one sample of one network at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from calcarine.checkpoints.network_weights import MissingWeightsError

if TYPE_CHECKING:
    from calcarine.evaluation.metrics.metric import FloatArray, Metric
    from calcarine.evaluation.networks.feature_cache import FeatureCache
    from calcarine.evaluation.protocols.protocol import Protocol


@dataclass(frozen=True)
class Measured:
    """Scores of one metric of one set of reconstructions."""

    metric: Metric
    scores: FloatArray
    measurement: FloatArray
    digests: dict[str, str] = field(default_factory=dict)


def measure(bench: FeatureCache, protocol: Protocol, notes: list[str]) -> list[Measured]:
    """Compute every metric of a protocol that can be computed; say of the others why not.

    Parameters
    ----------
    bench : FeatureCache
    protocol : Protocol
    notes : list of str
        Sentences are added to it.

    Returns
    -------
    list of Measured
        In the protocol's order.
    """
    groups: dict[tuple[Any, ...], list[Metric]] = {}
    refused: dict[str, list[str]] = {}
    order = protocol.metrics()
    for metric in order:
        key = tuple((network, recipe) for network, recipe, _ in metric.wanted())
        groups.setdefault(key, []).append(metric)
    found: dict[str, Measured] = {}
    for group in groups.values():
        bench.plan(w for metric in group if not _absent(bench, metric) for w in metric.wanted())
        for measured in _measure_group(bench, protocol, group, refused):
            found[measured.metric.name] = measured
        bench.forget()
    notes += [
        f"{protocol.name} leaves out {_listed(names)}: {reason.rstrip('.')}."
        for reason, names in refused.items()
    ]
    kept = [found[metric.name] for metric in order if metric.name in found]
    notes += [caveat for m in kept if (caveat := m.metric.caveat(bench.n)) is not None]
    return kept


def _listed(names: list[str]) -> str:
    return "; ".join(names) if len(names) < 4 else f"{names[0]} and {len(names) - 1} more"


def _measure_group(
    bench: FeatureCache, protocol: Protocol, group: list[Metric], refused: dict[str, list[str]]
) -> list[Measured]:
    """Metrics that share a pass of a network, sample by sample, so that one sample is kept."""
    ready: list[Metric] = []
    for metric in group:
        reason = _absent(bench, metric) or _refusal(bench, metric)
        if reason is None:
            ready.append(metric.fitted(bench))
        else:
            refused.setdefault(reason, []).append(metric.name)
    raw: dict[str, FloatArray] = {}
    done: dict[str, FloatArray] = {}
    for sample in range(bench.samples):
        for metric in [m for m in ready if sample == 0 or m.uses_pictures]:
            value = metric.measure(bench, sample)
            share = 1 / bench.samples if metric.uses_pictures else 1.0
            raw[metric.name] = raw.get(metric.name, 0.0) + value * share
            if protocol.samples == "score":
                finished = metric.finish(value)
                done[metric.name] = done.get(metric.name, 0.0) + finished * share
        bench.forget("recon")
    for metric in ready:
        if protocol.samples == "similarity":
            done[metric.name] = metric.finish(raw[metric.name])
    return [
        Measured(
            metric,
            np.asarray(done[metric.name]),
            raw[metric.name],
            {w[0]: bench.digests[w[0]] for w in metric.wanted() if w[0]},
        )
        for metric in ready
    ]


def _absent(bench: FeatureCache, metric: Metric) -> str | None:
    lacking = [
        name
        for name in metric.needs
        if not name.startswith("network ") and name not in bench.inputs
    ]
    return (metric.lacking or f"there is no {lacking[0]}") if lacking else None


def _refusal(bench: FeatureCache, metric: Metric) -> str | None:
    try:
        for network in {w[0] for w in metric.wanted() if w[0]}:
            bench.require(network)
        return metric.refusal(bench)
    except MissingWeightsError as error:
        return str(error)
