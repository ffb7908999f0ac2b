"""Score reconstructions: metrics, named protocols, floors, ceilings, intervals and tests.

`score_arrays` and `score_folder` return an `Evaluation`; `compare_scores` puts several methods and
published scores into one table. Add a metric with `register_metric` and a protocol with
`register_protocol`, or from your own package under the entry-point groups ``calcarine.metrics``
and ``calcarine.protocols``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from calcarine.evaluation.baselines import (
        blurred_truth,
        nearest_training_image,
        random_training_image,
        training_mean,
    )
    from calcarine.evaluation.comparison.compare import (
        ScoreComparison,
        compare_scores,
    )
    from calcarine.evaluation.comparison.published import (
        published_records,
        published_systems,
    )
    from calcarine.evaluation.inputs.image_stacks import (
        ImageStack,
        TestSet,
    )
    from calcarine.evaluation.metrics.catalogue import (
        find_metric,
        list_metrics,
    )
    from calcarine.evaluation.metrics.matrices import (
        identification_matrix,
        label_matrix,
        n_way_top_k_matrix,
    )
    from calcarine.evaluation.metrics.metric import (
        METRICS,
        Metric,
        register_metric,
    )
    from calcarine.evaluation.metrics.similarity import (
        correlation_matrix,
        frechet_distance,
    )
    from calcarine.evaluation.networks.judges import (
        Judge,
        load_judge,
    )
    from calcarine.evaluation.networks.preprocessing import (
        Preprocessing,
    )
    from calcarine.evaluation.protocols.catalogue import (
        find_protocol,
        list_protocols,
    )
    from calcarine.evaluation.protocols.protocol import (
        PROTOCOLS,
        Protocol,
        register_protocol,
    )
    from calcarine.evaluation.results.evaluation import (
        Evaluation,
        read_evaluation,
        write_evaluation,
    )
    from calcarine.evaluation.results.floor_verdicts import (
        FloorVerdict,
        floor_verdicts,
    )
    from calcarine.evaluation.results.score_files import (
        ScoreFile,
        read_scores,
        write_scores,
    )
    from calcarine.evaluation.scoring.score import (
        score_arrays,
        score_folder,
        score_pictures,
    )
    from calcarine.evaluation.scoring.settings import (
        ScoreSettings,
    )
    from calcarine.evaluation.statistics.intervals import (
        HierarchicalResult,
        bootstrap_interval,
        bootstrap_median,
        crossed_interval,
        hierarchical_bootstrap,
    )
    from calcarine.evaluation.statistics.permutation import (
        PermutationResult,
        permutation_test,
    )
    from calcarine.evaluation.statistics.significance import (
        PairedResult,
        holm,
        paired_difference,
        signed_rank_p,
    )

# Where each public name is defined: a name is imported when it is first used, so that
# importing one module of this package imports nothing heavy.
_SOURCES = {
    "METRICS": "metrics.metric",
    "PROTOCOLS": "protocols.protocol",
    "Evaluation": "results.evaluation",
    "FloorVerdict": "results.floor_verdicts",
    "HierarchicalResult": "statistics.intervals",
    "ImageStack": "inputs.image_stacks",
    "Judge": "networks.judges",
    "Metric": "metrics.metric",
    "PairedResult": "statistics.significance",
    "PermutationResult": "statistics.permutation",
    "Preprocessing": "networks.preprocessing",
    "Protocol": "protocols.protocol",
    "ScoreComparison": "comparison.compare",
    "ScoreFile": "results.score_files",
    "ScoreSettings": "scoring.settings",
    "TestSet": "inputs.image_stacks",
    "blurred_truth": "baselines",
    "bootstrap_interval": "statistics.intervals",
    "bootstrap_median": "statistics.intervals",
    "compare_scores": "comparison.compare",
    "correlation_matrix": "metrics.similarity",
    "crossed_interval": "statistics.intervals",
    "find_metric": "metrics.catalogue",
    "find_protocol": "protocols.catalogue",
    "floor_verdicts": "results.floor_verdicts",
    "frechet_distance": "metrics.similarity",
    "hierarchical_bootstrap": "statistics.intervals",
    "holm": "statistics.significance",
    "identification_matrix": "metrics.matrices",
    "label_matrix": "metrics.matrices",
    "list_metrics": "metrics.catalogue",
    "list_protocols": "protocols.catalogue",
    "load_judge": "networks.judges",
    "n_way_top_k_matrix": "metrics.matrices",
    "nearest_training_image": "baselines",
    "paired_difference": "statistics.significance",
    "permutation_test": "statistics.permutation",
    "published_records": "comparison.published",
    "published_systems": "comparison.published",
    "random_training_image": "baselines",
    "read_evaluation": "results.evaluation",
    "read_scores": "results.score_files",
    "register_metric": "metrics.metric",
    "register_protocol": "protocols.protocol",
    "score_arrays": "scoring.score",
    "score_folder": "scoring.score",
    "score_pictures": "scoring.score",
    "signed_rank_p": "statistics.significance",
    "training_mean": "baselines",
    "write_evaluation": "results.evaluation",
    "write_scores": "results.score_files",
}

__all__ = [
    "METRICS",
    "PROTOCOLS",
    "Evaluation",
    "FloorVerdict",
    "HierarchicalResult",
    "ImageStack",
    "Judge",
    "Metric",
    "PairedResult",
    "PermutationResult",
    "Preprocessing",
    "Protocol",
    "ScoreComparison",
    "ScoreFile",
    "ScoreSettings",
    "TestSet",
    "blurred_truth",
    "bootstrap_interval",
    "bootstrap_median",
    "compare_scores",
    "correlation_matrix",
    "crossed_interval",
    "find_metric",
    "find_protocol",
    "floor_verdicts",
    "frechet_distance",
    "hierarchical_bootstrap",
    "holm",
    "identification_matrix",
    "label_matrix",
    "list_metrics",
    "list_protocols",
    "load_judge",
    "n_way_top_k_matrix",
    "nearest_training_image",
    "paired_difference",
    "permutation_test",
    "published_records",
    "published_systems",
    "random_training_image",
    "read_evaluation",
    "read_scores",
    "register_metric",
    "register_protocol",
    "score_arrays",
    "score_folder",
    "score_pictures",
    "signed_rank_p",
    "training_mean",
    "write_evaluation",
    "write_scores",
]


def __getattr__(name: str) -> Any:
    if name not in _SOURCES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_SOURCES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
