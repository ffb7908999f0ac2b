"""What a reader of a run must know of its data, model and decoders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from calcarine import datasets
from calcarine.evaluation.results.evaluation import read_evaluation
from calcarine.experiment.config_visdec import VisDecConfig
from calcarine.experiment.run_directory import environment, readable
from calcarine.experiment.workspace import Workspace
from calcarine.files import read_json

TRANSDUCTIVE = (
    "Transductive: the encoder of Vis-Dec was pre-trained on the test responses too, without their "
    "stimuli. Its scores must not be compared with those of decoders that never met them."
)

UNKNOWN = (
    "The encoder of Vis-Dec began from published weights; whether these have met the test "
    "responses cannot be known from here."
)
ALIGNED = (
    "Vis-Dec learned from the text of training stimuli beside their pictures "
    "(visdec.finetune.loss.align), which the paper's does not."
)
OWN_WEIGHTS = (
    "Each patch of Vis-Dec's encoder has weights of its own (visdec.encoder.embedding); in the "
    "paper all share them."
)
FROM_LATENT = (
    "Vis-Dec's sampling began from a latent that the encoder tells, noised to strength {:g} "
    "(visdec.finetune.strength); the paper's begins from noise."
)


def describe(work: Workspace) -> None:
    """Write into the manifest what a reader must know of data, model and decoders."""
    dataset, run = work.dataset, work.run
    chosen, decoder = {}, {}
    for split in work.splits:
        folder = run.decoder / split.name
        with readable(folder, "fit"):
            if (folder / "settings.json").exists():
                found = read_json(folder / "settings.json")
                chosen[split.name] = {k: found[k] for k in ("strength", "guidance")}
            decoder[split.name] = read_json(folder / "summary.json")
    info = datasets.dataset_info(dataset.name)
    told = [*_of_models(work), *read_evaluation(run.metrics).notes]
    if work.config.visdec.runs("finetune"):
        told = [*_of_visdec(work), *told]
    repeats = np.unique(dataset.responses["stimulus"].values, return_counts=True)[1]
    with readable(run.decoder, "fit"):
        notes = _of_decoders(decoder)
    run.update_manifest(
        **environment(),
        seeds={
            "generation": work.config.generation.seed,
            "evaluation": work.config.evaluation.seed,
        },
        digests={"dataset": dataset.digest(), **_models(work)},
        simulated=dataset.simulated,
        dataset={
            "name": dataset.name,
            "title": info.title,
            "subject": dataset.subject,
            "source": dataset.source,
            "licence": dataset.licence,
            "n_voxels": {name: int(dataset.roi_mask(name).sum()) for name in dataset.rois},
            "n_train": int(np.mean([len(s.train) for s in work.splits])),
            "n_test": len({stimulus for s in work.splits for stimulus in s.test}),
            "n_repeats": int(np.median(repeats)),
            "splits": [s.name for s in work.splits],
            "scaling": dataset.scaling_note(work.splits),
            **_chosen_split(work),
        },
        roi=work.roi,
        judge=dataset.judge,
        notes=notes + _of_scaling(work) + told,
        chosen=chosen,
        decoder=decoder,
    )


def _of_decoders(decoder: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Warnings of the fits, one a target, so that many folds do not say the same many times."""
    told: dict[str, list[str]] = {}
    for targets in decoder.values():
        for target, summary in targets.items():
            if summary["warning"]:
                told.setdefault(target, []).append(summary["warning"])
    return [
        f"{target}: {first}"
        if len(decoder) == 1
        else f"{target}, in {1 + len(others)} of {len(decoder)} folds, the first: {first}"
        for target, (first, *others) in sorted(told.items())
    ]


def _of_scaling(work: Workspace) -> list[str]:
    """A note where a session was scaled by other than its own training trials."""
    scaling, told = work.dataset.scaling, work.dataset.scaling_note(work.splits)
    plain = scaling is None or (scaling.method == "session" and "fewer" not in told)
    return [] if plain else [f"Responses: {told}."]


def met_test_responses(config: VisDecConfig) -> Literal["yes", "unknown", "no"]:
    """Whether the training of Vis-Dec met test responses, as far as can be told."""
    from calcarine.experiment.visdec_weights import unknown_history

    start = config.pretrain.start
    if config.transductive or (config.allow_transductive and start):
        return "yes"
    published = config.finetune.start is not None or unknown_history(start)
    return "unknown" if published else "no"


def _of_visdec(work: Workspace) -> list[str]:
    """Notes on what the encoder may have met before, and on what the paper has not."""
    told: dict[str, list[str]] = {"yes": [TRANSDUCTIVE], "unknown": [UNKNOWN], "no": []}
    config, finetune = work.config.visdec, work.config.visdec.finetune
    found = told[met_test_responses(config)]
    aligned = finetune.enabled and finetune.loss.align
    found += [OWN_WEIGHTS] if config.encoder.embedding == "own" else []
    found += [ALIGNED] if aligned else []
    found += [FROM_LATENT.format(finetune.strength)] if finetune.strength < 1 else []
    return found


def _of_models(work: Workspace) -> list[str]:
    """Notes on how the models were read, and on the text that they were given."""
    found = []
    if work.config.makes_latents:
        found += [*work.model.notes, *work.text_notes]
    if work.config.visdec.runs("finetune"):
        found += work.generator.notes
    return list(dict.fromkeys(found))


def _models(work: Workspace) -> dict[str, str]:
    found = {"model": work.model.digest} if work.config.makes_latents else {}
    if work.config.visdec.runs("finetune"):
        found["vis-dec model"] = work.generator.digest
    return found


def _chosen_split(work: Workspace) -> dict[str, Any]:
    """Name, rule and hash of a split that the configuration names; a copy stays with the run."""
    if work.config.dataset.split is None:
        return {}
    (split,) = work.splits
    split.save(work.run.path / "splits" / f"{split.name}.json")
    found = {"name": split.name, "rule": split.rule, "seed": split.seed, "sha256": split.digest()}
    return {"split": found}
