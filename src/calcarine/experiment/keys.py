"""Keys of stages: one hash of everything that the result of a stage depends on.

All functions are pure: the configuration and the digests of what it refers to go in, keys come
out. A stage whose key has changed runs again; see
:meth:`calcarine.experiment.run_directory.RunDirectory.begin`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from calcarine.experiment.stage import PHASES

if TYPE_CHECKING:
    from calcarine.experiment.config import Experiment
    from calcarine.experiment.digests import Digests
    from calcarine.experiment.stage import Stage
    from calcarine.training import TrainingConfig

__all__ = [
    "audit_key",
    "content_key",
    "encode_key",
    "evaluate_key",
    "features_key",
    "finetune_key",
    "fit_key",
    "guide_key",
    "pretrain_key",
    "reconstruct_key",
    "report_key",
    "retrieve_key",
    "stage_keys",
    "training_key",
    "training_length",
]

Keys = Mapping[str, str]

# Settings of the fine-tuning phase that only sampling uses; they change no training.
_SAMPLING = {"strength", "guidance", "sampler", "steps", "samples"}
_SEARCH_USES = ("model", "seed", "through_image", "guidance_rescale")
_Z_C_SETTINGS = ("strength", "guidance", "guidance_rescale", "steps", "seed")


def content_key(*parts: Any) -> str:
    """Return the SHA-256 of anything that JSON can hold."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def stage_keys(stages: Iterable[Stage], config: Experiment, digests: Digests) -> dict[str, str]:
    """Return the key of every stage that is enabled.

    Parameters
    ----------
    stages : iterable of Stage
        In the order in which they run.
    config : Experiment
    digests : Digests

    Returns
    -------
    dict of str to str
        By name of the stage, in the same order.
    """
    keys: dict[str, str] = {}
    for stage in stages:
        if stage.enabled(config):
            keys[stage.name] = stage.key(config, digests, keys)
    return keys


def features_key(config: Experiment, digests: Digests, before: Keys) -> str:
    """Return the key of z and c of all stimuli."""
    if not config.makes_latents:
        return content_key("features", digests.dataset)
    return _latents_key(digests)


def encode_key(config: Experiment, digests: Digests, before: Keys) -> str:
    """Return the key of the encoding models."""
    generation = config.generation.model_dump(mode="json")
    return content_key(
        "encode",
        _latents_key(digests),
        config.encoding.model_dump(mode="json", exclude={"enabled"}),
        {name: generation[name] for name in _Z_C_SETTINGS},
        digests.splits,
        config.evaluation.seed,
        [digests.contents.get(file) for file in config.encoding.feature_files.values()],
        *[
            digests.contents[name]
            for name in config.encoding.extra_names
            if name in digests.contents
        ],
    )


def fit_key(config: Experiment, digests: Digests, before: Keys) -> str:
    """Return the key of the decoders and of the settings that are chosen for each split."""
    generation = config.generation.model_dump(mode="json")
    search = None
    if config.chooses_settings(digests.n_train):
        search = generation["search"], {name: generation[name] for name in _SEARCH_USES}
    return content_key(
        "fit",
        before["features"],
        digests.regions,
        config.decoder.model_dump(),
        config.ridge.model_dump(),
        digests.splits,
        search,
        config.evaluation.direct_ridge,
    )


def retrieve_key(config: Experiment, digests: Digests, before: Keys) -> str:
    """Return the key of decoded features and of the stimuli that are retrieved by them."""
    targets = config.embeddings.targets
    latents = any(target.space in ("z", "c") for target in targets)
    named = [target.file or target.space for target in targets]
    return content_key(
        "retrieve",
        digests.dataset,
        digests.latents if latents else None,
        config.embeddings.model_dump(mode="json"),
        config.ridge.model_dump(exclude={"enabled"}),
        digests.splits,
        config.evaluation.model_dump(include={"n_boot", "n_permutations", "seed"}),
        [digests.contents.get(name) for name in (*named, *config.embeddings.folders)],
    )


def pretrain_key(config: Experiment, digests: Digests, before: Keys) -> str:
    """Return the key of Vis-Dec's first phase."""
    return _phase_key(config, digests, "pretrain")


def guide_key(config: Experiment, digests: Digests, before: Keys) -> str:
    """Return the key of Vis-Dec's second phase."""
    return _phase_key(config, digests, "guide")


def finetune_key(config: Experiment, digests: Digests, before: Keys) -> str:
    """Return the key of Vis-Dec's third phase."""
    return _phase_key(config, digests, "finetune")


def reconstruct_key(config: Experiment, digests: Digests, before: Keys) -> str:
    """Return the key of the reconstructed pictures."""
    sampling = None
    if config.visdec.runs("finetune"):
        sampling = before["finetune"], config.visdec.finetune.model_dump(include=_SAMPLING)
    return content_key(
        "reconstruct",
        before["fit"],
        # A batch size changes no picture, and what a search chose is in the key of "fit".
        config.generation.model_dump(mode="json", exclude={"batch_size", "search"}),
        config.evaluation.model_dump(include={"ceilings", "ceiling_samples"}),
        sampling,
    )


def evaluate_key(config: Experiment, digests: Digests, before: Keys) -> str:
    """Return the key of the scores."""
    return content_key(
        "evaluate",
        before["reconstruct"],
        config.evaluation.model_dump(mode="json", exclude={"audit", "ceilings", "ceiling_samples"}),
        digests.judge,
        digests.metric_weights,
    )


def audit_key(config: Experiment, digests: Digests, before: Keys) -> str:
    """Return the key of the audit."""
    return content_key("audit", before["evaluate"])


def report_key(config: Experiment, digests: Digests, before: Keys) -> str:
    """Return the key of the report."""
    retrieved = [before["retrieve"]] if "retrieve" in before else []
    return content_key("report", before["evaluate"], config.evaluation.audit, *retrieved)


def training_key(config: Experiment, digests: Digests, phase: str) -> str:
    """Return the key of the training of one of Vis-Dec's phases.

    Unlike the key of its stage it leaves out a number of steps that may be raised later.

    Parameters
    ----------
    config : Experiment
    digests : Digests
    phase : {"pretrain", "guide", "finetune"}
        A phase that is enabled.
    """
    visdec = config.visdec
    settings = getattr(visdec, phase)
    earlier = [name for name in PHASES[: PHASES.index(phase)] if visdec.runs(name)]
    if earlier:
        before = _phase_key(config, digests, earlier[-1])
    else:
        before = content_key(
            digests.dataset,
            digests.splits,
            visdec.model_dump(include={"roi", "validation", "seed", "encoder", "scale"}),
            # Weights that the first enabled phase starts from.
            visdec.pretrain.start,
            digests.contents.get(str(visdec.pretrain.start)),
        )
    left_out = {"training", *(_SAMPLING if phase == "finetune" else ())}
    if phase != "finetune" or visdec.finetune.start is None:
        left_out.add("enabled")
    return content_key(
        phase,
        before,
        settings.model_dump(mode="json", exclude=left_out),
        settings.training.identity,
        _phase_contents(config, digests, phase),
        *(("tf32",) if config.compute.tf32 else ()),
    )


def _phase_key(config: Experiment, digests: Digests, phase: str) -> str:
    training = getattr(config.visdec, phase).training
    return content_key(training_key(config, digests, phase), training_length(training))


def training_length(training: TrainingConfig) -> int | str:
    """Return the length of a training: a number of steps, or how many epochs.

    With the data and the batch size, which are in the key too, epochs determine the steps.
    """
    return f"{training.epochs} epochs" if training.steps is None else training.steps


def _phase_contents(config: Experiment, digests: Digests, phase: str) -> list[Any]:
    """Return what a phase depends on besides its settings and the phases before it."""
    visdec = config.visdec
    if phase == "pretrain":
        return [digests.contents.get(part.data) for part in visdec.pretrain.pool if part.data]
    if phase == "guide":
        return [digests.contents.get(visdec.guide.image_autoencoder)]
    text = None
    if visdec.finetune.aligned:
        text = config.features.text, digests.texts
    start = digests.contents.get(str(visdec.finetune.start))
    return [digests.generator, config.features.resize, start, text]


def _latents_key(digests: Digests) -> str:
    return content_key("features", digests.dataset, digests.latents)
