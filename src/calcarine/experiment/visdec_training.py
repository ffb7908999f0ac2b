"""Training the phases of Vis-Dec for every split: pretrain, guide, finetune."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from calcarine.brain import Split
from calcarine.experiment.held_out_stimuli import n_training_stimuli
from calcarine.experiment.keys import content_key, training_key, training_length
from calcarine.experiment.pretraining_pool import Vectors, unlabelled
from calcarine.experiment.stage import PHASES
from calcarine.experiment.visdec_weights import encoder_history, starting_weights

if TYPE_CHECKING:
    from calcarine.experiment.workspace import Workspace
    from calcarine.training import TrainingConfig
    from calcarine.visdec.brain_conditioning import BrainConditioning
    from calcarine.visdec.fmri_autoencoder import AutoencoderConfig, FMRIAutoencoder
    from calcarine.visdec.image_autoencoder import ImageAutoencoder
    from calcarine.visdec.patches import PatchedVectors
    from calcarine.visdec.phases import TrainingStimuli
    from calcarine.visdec.published_conditioner import PublishedConditioner

__all__ = [
    "METHOD",
    "load_conditioning",
    "phase_steps",
    "run_finetuning",
    "run_guiding",
    "run_pretraining",
    "sampling_options",
    "training_folder",
    "training_stimuli",
    "weights_folder",
]

METHOD = "vis-dec"


def run_pretraining(work: Workspace) -> None:
    """Train the first phase for every split, on vectors without stimuli."""
    from calcarine.visdec.encoder_storage import save_encoder
    from calcarine.visdec.phases import pretrain

    config = work.config.visdec
    if config.runs("guide"):
        _image_autoencoder(work)  # a model that cannot be loaded fails before hours of training
    # The pool of a single split is read once, for its size and for the training.
    pool = lru_cache(maxsize=1)(lambda index: _pool(work, work.splits[index]))
    total = _total_steps(work, "pretrain", "vectors", lambda index: len(pool(index).train))
    with work.progress.track("Pretrain", total) as advance:
        for index, split in enumerate(work.splits):
            folder = training_folder(work, "pretrain", split)
            train, held_out, shape = pool(index)
            autoencoder = pretrain(
                folder,
                train,
                held_out,
                shape,
                _training(work, "pretrain"),
                config=config.pretrain.loss,
                augmentation=config.pretrain.augmentation,
                start=starting_weights(work, split, shape, "pretrain"),
                provenance=_provenance(work, "pretrain", split),
                progress=advance,
                say=work.progress.say,
            )
            save_encoder(folder / "encoder", autoencoder, encoder_history(work, "pretrain", split))


def run_guiding(work: Workspace) -> None:
    """Train the second phase for every split, on training responses and their pictures."""
    from calcarine.visdec.encoder_storage import save_encoder
    from calcarine.visdec.phases import guide

    config = work.config.visdec.guide
    total = _total_steps(work, "guide", "stimuli", _counts_stimuli(work))
    with work.progress.track("Guide", total) as advance:
        for split in work.splits:
            folder = training_folder(work, "guide", split)
            autoencoder = guide(
                folder,
                _autoencoder_before(work, "guide", split),
                _image_autoencoder(work),
                training_stimuli(work, split),
                work.dataset.stimuli.images,
                _training(work, "guide"),
                config=config.loss,
                augmentation=config.augmentation,
                decoder_depth=config.fmri_decoder_depth,
                trials=config.trials,
                provenance=_provenance(work, "guide", split),
                progress=advance,
                say=work.progress.say,
            )
            save_encoder(folder / "encoder", autoencoder, encoder_history(work, "guide", split))


def run_finetuning(work: Workspace) -> None:
    """Train the third phase for every split: the encoder conditions the diffusion model."""
    from calcarine.visdec.phases import finetune

    config = work.config.visdec.finetune
    training = _training(work, "finetune") if config.enabled else None
    if training is not None:
        _ = work.generator_latents  # takes long and shows its own progress
        if config.aligned:
            _ = work.generator_contexts
    total = 0
    if training is not None:
        total = _total_steps(work, "finetune", "stimuli", _counts_stimuli(work))
    with work.progress.track("Finetune", total) as advance:
        for split in work.splits:
            folder = training_folder(work, "finetune", split)
            finetune(
                folder,
                _published(work) or _autoencoder_before(work, "finetune", split),
                work.generator,
                training_stimuli(work, split),
                lambda ids: work.generator_latents[work.dataset.stimuli.rows(ids)],
                training,
                config=config.loss,
                augmentation=config.augmentation,
                trials=config.trials,
                contexts=lambda ids: work.generator_contexts[work.dataset.stimuli.rows(ids)],
                provenance=_provenance(work, "finetune", split),
                progress=advance,
                say=work.progress.say,
            ).save(folder)


def training_folder(work: Workspace, phase: str, split: Split) -> Path:
    """Return the folder in which a phase is trained for a split, named by what is trained.

    Parameters
    ----------
    work : Workspace
    phase : {"pretrain", "guide", "finetune"}
    split : Split

    Returns
    -------
    Path
        Inside the run, or in the folder of networks that several runs share.
    """
    key = training_key(work.config, work.digests, phase)
    training = getattr(work.config.visdec, phase).training
    if work.trained is not None and "steps" not in training.identity:
        # In one run more steps resume from fewer; of several runs each keeps its own.
        key = content_key(key, training_length(training))
    return (work.trained or work.run.networks) / f"{phase}-{key[:12]}" / split.name


def weights_folder(work: Workspace, phase: str, split: Split) -> Path:
    """Return the folder of a phase's weights, as ``visdec.pretrain.start`` takes it."""
    folder = training_folder(work, phase, split)
    encoder = folder / "encoder"
    return encoder if encoder.exists() else folder


def phase_steps(work: Workspace, phase: str) -> int:
    """Return the number of steps of a phase over all splits; 0 for one that does not train."""
    config = getattr(work.config.visdec, phase)
    if not (work.config.visdec.runs(phase) and config.enabled):
        return 0

    def rows(index: int) -> int:
        split = work.splits[index]
        return (
            len(_pool(work, split).train)
            if phase == "pretrain"
            else n_training_stimuli(work, split)
        )

    return sum(steps for _, steps in _steps(work, phase, rows))


def load_conditioning(work: Workspace, split: Split) -> BrainConditioning:
    """Load what the third phase trained for a split."""
    from calcarine.visdec.brain_conditioning import BrainConditioning

    return BrainConditioning.load(training_folder(work, "finetune", split))


def sampling_options(work: Workspace) -> dict[str, Any]:
    """Return how pictures are sampled under conditions."""
    finetune, generation = work.config.visdec.finetune, work.config.generation
    return {
        "strength": finetune.strength,
        "guidance": finetune.guidance,
        "steps": finetune.steps,
        "sampler": finetune.sampler,
        "seed": generation.seed,
        "batch_size": generation.batch_size,
    }


def training_stimuli(work: Workspace, split: Split) -> TrainingStimuli:
    """Return the training responses of a split, with the stimuli that validate."""
    from calcarine.visdec.phases import TrainingStimuli

    config = work.config.visdec
    together = config.scale == "all"
    return TrainingStimuli.from_dataset(
        work.dataset, split, config.roi, config.validation, config.seed, together=together
    )


def _training(work: Workspace, phase: str) -> TrainingConfig:
    """Return the settings of a training, on the device of the run where they leave it open."""
    training: TrainingConfig = getattr(work.config.visdec, phase).training
    return training.on_device(work.config.compute.device)


class _Pool(NamedTuple):
    train: PatchedVectors
    validation: PatchedVectors | None
    shape: AutoencoderConfig


def _pool(work: Workspace, split: Split) -> _Pool:
    """Return the unlabelled vectors of a split, and the shape of the autoencoder they need."""
    from calcarine.visdec.patches import join_patched

    stimuli = training_stimuli(work, split)
    train, held_out = unlabelled(work, split, stimuli)
    shape = _shape(work, [*train, *held_out, stimuli.responses.data])
    first, second = (
        join_patched(part, shape.patch, shape.n_patches) if part else None
        for part in (train, held_out)
    )
    assert first is not None
    return _Pool(first, second, shape)


def _counts_stimuli(work: Workspace) -> Callable[[int], int]:
    """Return a function that counts the stimuli of a split that train."""
    return lambda index: n_training_stimuli(work, work.splits[index])


def _total_steps(work: Workspace, phase: str, what: str, rows: Callable[[int], int]) -> int:
    """Return the number of steps of a phase over all splits, and say what it trains on."""
    training, share = getattr(work.config.visdec, phase).training, work.config.visdec.validation
    if share:
        work.progress.say(
            f"{phase.capitalize()}: {share:.0%} of the training stimuli validate and do not train "
            "(visdec.validation)"
        )
    steps = _steps(work, phase, rows)
    if training.epochs is not None:
        for count, number in sorted(set(steps)):
            work.progress.say(
                f"{phase.capitalize()}: {training.epochs:,} epochs of {count:,} {what} in batches "
                f"of {training.batch_size:,} are {number:,} steps"
            )
    return sum(number for _, number in steps)


def _steps(work: Workspace, phase: str, rows: Callable[[int], int]) -> list[tuple[int, int]]:
    """Return rows (0 where they do not matter) and steps of a phase for each split."""
    training = getattr(work.config.visdec, phase).training
    if training.epochs is None:
        return [(0, training.n_steps)] * len(work.splits)
    counts = [rows(index) for index in range(len(work.splits))]
    return [(count, training.for_rows(count).n_steps) for count in counts]


def _image_autoencoder(work: Workspace) -> ImageAutoencoder:
    from calcarine.visdec.image_autoencoder import ImageAutoencoder

    config = work.config.visdec.guide
    return ImageAutoencoder.from_pretrained(config.image_autoencoder, config.image_decoder_depth)


def _published(work: Workspace) -> PublishedConditioner | None:
    """Load the published fine-tuned model that the third phase starts from, if there is one."""
    from calcarine.visdec.published_conditioner import load_published_conditioner

    start = work.config.visdec.finetune.start
    return None if start is None else work.load(lambda: load_published_conditioner(start))


def _autoencoder_before(work: Workspace, phase: str, split: Split) -> FMRIAutoencoder:
    """Return the result of the last enabled phase before ``phase``, or a new network."""
    from calcarine.visdec.encoder_storage import load_encoder, new_autoencoder

    for earlier in reversed(PHASES[: PHASES.index(phase)]):
        if work.config.visdec.runs(earlier):
            return load_encoder(training_folder(work, earlier, split) / "encoder")
    shape = _shape(work, [training_stimuli(work, split).responses.data])
    started = starting_weights(work, split, shape, phase)
    seed = getattr(work.config.visdec, phase).training.seed
    return started or new_autoencoder(shape, seed)


def _shape(work: Workspace, vectors: list[Vectors]) -> AutoencoderConfig:
    from calcarine.visdec.fmri_autoencoder import AutoencoderConfig

    shape = work.config.visdec.encoder.model_dump()
    longest = max(part.shape[1] for part in vectors)
    return AutoencoderConfig(n_patches=-(-longest // shape["patch"]), **shape)


def _provenance(work: Workspace, phase: str, split: Split) -> dict[str, Any]:
    key = training_key(work.config, work.digests, phase)
    return {"phase": phase, "key": key, "split": split.digest()}
