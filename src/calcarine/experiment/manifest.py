"""The manifest of a run: what a reader must know of its data, models and decoders."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from calcarine import datasets
from calcarine.evaluation.results.evaluation import read_evaluation
from calcarine.experiment.decoders import decoder_summaries
from calcarine.experiment.held_out_stimuli import training_trials, validation_notes
from calcarine.experiment.penalty_notes import penalty_notes
from calcarine.experiment.resolved_settings import resolved_settings
from calcarine.experiment.run_directory import environment, readable
from calcarine.experiment.visdec_config import VisDecConfig
from calcarine.experiment.workspace import Workspace
from calcarine.files import read_json

__all__ = ["pretrained_on_test", "write_manifest"]

_TRANSDUCTIVE = (
    "Transductive: the encoder of Vis-Dec was pre-trained on the test responses too, without their "
    "stimuli. Do not compare its scores with those of decoders that were not."
)
_UNKNOWN = (
    "The encoder of Vis-Dec starts from published weights; it is not known whether these were "
    "trained on the test responses."
)
_ALIGNED = (
    "Vis-Dec learned from the text of training stimuli as well as from their pictures "
    "(visdec.finetune.loss.align), which the paper's does not."
)
_OWN_WEIGHTS = (
    "Each patch of Vis-Dec's encoder has its own weights (visdec.encoder.embedding); in the paper "
    "all patches share them."
)
_FROM_LATENT = (
    "Vis-Dec's sampling starts from the predicted latent, noised to strength {:g} "
    "(visdec.finetune.strength); the paper's starts from noise."
)


def write_manifest(work: Workspace) -> None:
    """Write into the manifest what a reader must know of data, models and decoders.

    Parameters
    ----------
    work : Workspace
        Workspace of a run with decoders and scores.
    """
    dataset, run = work.dataset, work.run
    chosen, decoder = {}, decoder_summaries(work)
    for split in work.splits:
        file = run.decoder / split.name / "settings.json"
        with readable(file.parent, "fit"):
            if file.exists():
                settings = read_json(file)
                chosen[split.name] = {name: settings[name] for name in ("strength", "guidance")}
    with readable(run.decoder, "fit"):
        decoder_notes = penalty_notes(decoder)
    notes = [
        *decoder_notes,
        *_scaling_notes(work),
        *(_visdec_notes(work) if work.config.visdec.enabled else ()),
        *_model_notes(work),
        *read_evaluation(run.metrics).notes,
    ]
    run.update_manifest(
        **environment(),
        seeds={
            "generation": work.config.generation.seed,
            "evaluation": work.config.evaluation.seed,
        },
        digests={"dataset": dataset.digest(), **_model_digests(work)},
        simulated=dataset.simulated,
        dataset=_data_facts(work),
        roi=work.roi,
        judge=dataset.judge,
        notes=notes,
        chosen=chosen,
        resolved=resolved_settings(work, chosen),
        decoder=decoder,
    )


def pretrained_on_test(config: VisDecConfig) -> Literal["yes", "unknown", "no"]:
    """Return whether Vis-Dec was trained on test responses, as far as that is known.

    Parameters
    ----------
    config : VisDecConfig

    Returns
    -------
    {"yes", "unknown", "no"}
        "unknown" where it starts from published weights.
    """
    from calcarine.experiment.visdec_weights import unknown_history

    start = config.pretrain.start
    if config.transductive or (config.allow_transductive and start):
        return "yes"
    published = config.finetune.start is not None or unknown_history(start)
    return "unknown" if published else "no"


def _data_facts(work: Workspace) -> dict[str, Any]:
    dataset, trials = work.dataset, training_trials(work)
    repeats = np.unique(dataset.responses["stimulus"].values, return_counts=True)[1]
    return {
        "name": dataset.name,
        "title": datasets.dataset_info(dataset.name).title,
        "subject": dataset.subject,
        "source": dataset.source,
        "licence": dataset.licence,
        "n_voxels": {name: int(dataset.roi_mask(name).sum()) for name in dataset.rois},
        "n_train": int(np.mean([len(split.train) for split in work.splits])),
        **({"n_training_trials": trials} if trials else {}),
        "n_test": len({stimulus for split in work.splits for stimulus in split.test}),
        "n_repeats": int(np.median(repeats)),
        "splits": [split.name for split in work.splits],
        "scaling": dataset.scaling_note(work.splits),
        **_named_split(work),
    }


def _scaling_notes(work: Workspace) -> list[str]:
    """Return a note where a session was scaled by other than its own training trials."""
    scaling, note = work.dataset.scaling, work.dataset.scaling_note(work.splits)
    plain = scaling is None or (scaling.method == "session" and "fewer" not in note)
    return [] if plain else [f"Responses: {note}."]


def _visdec_notes(work: Workspace) -> list[str]:
    """Return notes on what Vis-Dec was trained on, and on differences from the paper."""
    config, finetune = work.config.visdec, work.config.visdec.finetune
    by_history = {"yes": [_TRANSDUCTIVE], "unknown": [_UNKNOWN], "no": []}
    notes = [*by_history[pretrained_on_test(config)], *validation_notes(work)]
    if config.encoder.embedding == "own":
        notes.append(_OWN_WEIGHTS)
    if finetune.aligned:
        notes.append(_ALIGNED)
    if finetune.strength < 1:
        notes.append(_FROM_LATENT.format(finetune.strength))
    return notes


def _model_notes(work: Workspace) -> list[str]:
    """Return notes on how the models were read, and on the text that they get."""
    notes: list[str] = []
    if work.config.makes_latents:
        notes += [*work.described_model.notes, *work.text_notes]
    if work.config.visdec.enabled:
        notes += work.described_generator.notes
    return list(dict.fromkeys(notes))


def _model_digests(work: Workspace) -> dict[str, str]:
    digests = {"model": work.described_model.digest} if work.config.uses_latents else {}
    if work.config.visdec.enabled:
        digests["vis-dec model"] = work.described_generator.digest
    return digests


def _named_split(work: Workspace) -> dict[str, Any]:
    """Return name, rule and hash of a split that the settings name; the run keeps a copy of it."""
    if work.config.dataset.split is None:
        return {}
    (split,) = work.splits
    split.save(work.run.path / "splits" / f"{split.name}.json")
    facts = {"name": split.name, "rule": split.rule, "seed": split.seed, "sha256": split.digest()}
    return {"split": facts}
