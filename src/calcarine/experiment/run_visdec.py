"""The stages of Vis-Dec: pretrain, guide, adapt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from calcarine.brain import Split
from calcarine.errors import CalcarineError, LeakageError
from calcarine.experiment.unlabelled import Vectors, check_pools, unlabelled
from calcarine.features.latents import source_digests
from calcarine.files import digest_file

if TYPE_CHECKING:
    from calcarine.experiment.workspace import Workspace
    from calcarine.visdec.brain_conditioning import BrainConditioning
    from calcarine.visdec.fmri_autoencoder import AutoencoderConfig, FMRIAutoencoder
    from calcarine.visdec.image_autoencoder import ImageAutoencoder
    from calcarine.visdec.phases import TrainingStimuli
    from calcarine.visdec.published_conditioner import PublishedConditioner

METHOD = "vis-dec"


def pretrain(work: Workspace) -> None:
    """First phase for every split, on vectors without stimuli."""
    from calcarine.visdec.encoder_storage import save_encoder
    from calcarine.visdec.patches import join_patched
    from calcarine.visdec.phases import contrast

    config = work.config.visdec
    if work.phase_on("guide"):
        _image_autoencoder(work)  # what cannot be loaded is told before hours of training
    total = config.pretrain.training.steps * len(work.splits)
    with work.progress.track("Contrast", total) as advance:
        for split in work.splits:
            folder = work.phase("pretrain", split)
            stimuli = _stimuli(work, split)
            train, held_out = unlabelled(work, split, stimuli)
            shape = _shape(work, [*train, *held_out, stimuli.responses.data])
            patch = config.encoder.patch
            autoencoder = contrast(
                folder,
                join_patched(train, patch, shape.n_patches),
                join_patched(held_out, patch, shape.n_patches),
                shape,
                config.pretrain.training,
                config=config.pretrain.loss,
                augmentation=config.pretrain.augmentation,
                start=_start(work, split, shape),
                provenance=_provenance(work, "pretrain", split),
                progress=advance,
                say=work.progress.say,
            )
            save_encoder(folder / "encoder", autoencoder, _about(work, "pretrain", split))


def guide(work: Workspace) -> None:
    """Second phase for every split, on training responses and their pictures."""
    from calcarine.visdec.encoder_storage import save_encoder
    from calcarine.visdec.phases import attend

    config = work.config.visdec.guide
    total = config.training.steps * len(work.splits)
    with work.progress.track("Attend", total) as advance:
        for split in work.splits:
            folder = work.phase("guide", split)
            autoencoder = attend(
                folder,
                _before(work, "guide", split),
                _image_autoencoder(work),
                _stimuli(work, split),
                work.dataset.stimuli.images,
                config.training,
                config=config.loss,
                augmentation=config.augmentation,
                decoder_depth=config.fmri_decoder_depth,
                trials=config.trials,
                provenance=_provenance(work, "guide", split),
                progress=advance,
                say=work.progress.say,
            )
            save_encoder(folder / "encoder", autoencoder, _about(work, "guide", split))


def adapt(work: Workspace) -> None:
    """Third phase for every split: the diffusion model listens to the encoder."""
    from calcarine.visdec.phases import diffuse

    config = work.config.visdec.adapt
    training = config.training if config.when == "always" else None
    if training is not None:
        _ = work.generator_latents  # takes long and shows its own progress
        if config.loss.align:
            _ = work.generator_contexts
    total = 0 if training is None else training.steps * len(work.splits)
    with work.progress.track("Diffuse", total) as advance:
        for split in work.splits:
            folder = work.phase("adapt", split)
            diffuse(
                folder,
                _published(work) or _before(work, "adapt", split),
                work.generator,
                _stimuli(work, split),
                lambda ids: work.generator_latents[work.dataset.stimuli.rows(ids)],
                training,
                config=config.loss,
                augmentation=config.augmentation,
                trials=config.trials,
                contexts=lambda ids: work.generator_contexts[work.dataset.stimuli.rows(ids)],
                provenance=_provenance(work, "adapt", split),
                progress=advance,
                say=work.progress.say,
            ).save(folder)


def conditioning(work: Workspace, split: Split) -> BrainConditioning:
    """What ``adapt`` trained for a split."""
    from calcarine.visdec.brain_conditioning import BrainConditioning

    work.run.require("adapt", work.keys["adapt"])
    return BrainConditioning.load(work.phase("adapt", split))


def sampling(work: Workspace) -> dict[str, Any]:
    """How pictures are made of conditions."""
    adapt, generation = work.config.visdec.adapt, work.config.generation
    return {
        "strength": adapt.strength,
        "guidance": adapt.guidance,
        "steps": adapt.steps,
        "sampler": adapt.sampler,
        "seed": generation.seed,
        "batch_size": generation.batch_size,
    }


def _stimuli(work: Workspace, split: Split) -> TrainingStimuli:
    from calcarine.visdec.phases import TrainingStimuli

    config = work.config.visdec
    together = config.scale == "all"
    return TrainingStimuli.from_dataset(
        work.dataset, split, config.roi, config.validation, config.seed, together=together
    )


def _image_autoencoder(work: Workspace) -> ImageAutoencoder:
    from calcarine.visdec.image_autoencoder import ImageAutoencoder

    config = work.config.visdec.guide
    return ImageAutoencoder.from_pretrained(config.image_autoencoder, config.image_decoder_depth)


def _published(work: Workspace) -> PublishedConditioner | None:
    """The published fine-tuned model that the third phase begins from, if there is one."""
    from calcarine.visdec.published_conditioner import load_published_conditioner

    start = work.config.visdec.adapt.start
    return None if start is None else load_published_conditioner(start)


def _before(work: Workspace, phase: str, split: Split) -> FMRIAutoencoder:
    """What the phases before ``phase`` gave: the last that is on, or a new network."""
    from calcarine.visdec.encoder_storage import load_encoder, new_autoencoder

    order = ["pretrain", "guide", "adapt"]
    for earlier in reversed(order[: order.index(phase)]):
        if work.phase_on(earlier):
            work.run.require(earlier, work.keys[earlier])
            return load_encoder(work.phase(earlier, split) / "encoder")
    shape = _shape(work, [_stimuli(work, split).responses.data])
    started = _start(work, split, shape)
    seed = getattr(work.config.visdec, phase).training.seed
    return started or new_autoencoder(shape, seed)


def _shape(work: Workspace, vectors: list[Vectors]) -> AutoencoderConfig:
    from calcarine.visdec.fmri_autoencoder import AutoencoderConfig

    shape = work.config.visdec.encoder.model_dump()
    longest = max(part.shape[1] for part in vectors)
    return AutoencoderConfig(n_patches=-(-longest // shape["patch"]), **shape)


def made_of(work: Workspace, phase: str) -> list[Any]:
    """What a phase depends on beside its settings: content of files, and the model's weights."""
    from calcarine.visdec.phases import check_text

    config = work.config.visdec
    # Named only where it is not the usual, so that older trainings keep their keys.
    scale = [] if config.scale == "voxel" else [config.scale]
    if phase == "adapt":
        start, found = config.adapt.start, []
        if start is not None:
            found = [_content(Path(start)), config.adapt.when]
        if config.adapt.when == "always" and config.adapt.loss.align:
            check_text(work.generator, config.adapt.loss.tokens)  # before anything is trained
            text = work.config.features.text
            found += [text, source_digests(work.dataset.stimuli, text=text)]
        made = [work.generator.digest, work.config.features.resize, _first(work, phase)]
        return [*made, *found, *scale]
    if phase == "guide":
        from calcarine.visdec.image_autoencoder import MINI

        source = config.guide.image_autoencoder
        autoencoder = _content(MINI if source == "mini" else Path(source))
        return [autoencoder, _first(work, phase), *scale]
    check_pools(work)
    pool = [_content(Path(part.data)) for part in config.pretrain.pool if part.data]
    return [_first(work, phase), *pool, *scale]


def _first(work: Workspace, phase: str) -> Any:
    """Weights that a phase begins from if it is the first one that is on."""
    order = ["pretrain", "guide", "adapt"]
    start = work.config.visdec.pretrain.start
    before = any(work.phase_on(name) for name in order[: order.index(phase)])
    return None if before or start is None else [start, _content(Path(start))]


def _content(place: Path) -> Any:
    """Hash of a file; names and sizes in a folder, of whose weights the hash; None of a hub id."""
    if place.is_file():
        return digest_file(place)
    if not place.is_dir():
        return None
    files = sorted(file for file in place.rglob("*") if file.is_file())
    weights = {".safetensors", ".json"}
    return [
        (str(file.relative_to(place)), digest_file(file) if file.suffix in weights else size)
        for file in files
        for size in (file.stat().st_size,)
    ]


def _about(work: Workspace, phase: str, split: Split) -> dict[str, Any]:
    """What a later user of the encoder must know: whose responses it has met."""
    dataset = work.dataset
    return {
        "phase": phase,
        "dataset": dataset.name,
        "subject": dataset.subject,
        "trained on": sorted(split.train),
        "transductive": work.config.visdec.transductive,
        "roi": work.config.visdec.roi,
        "met before": _met_before(work),
        "unknown": begins_unknown(work.config.visdec.pretrain.start),
    }


def _met_before(work: Workspace) -> list[dict[str, Any]]:
    """Whose responses came in by the pool, or by the weights that were begun from."""
    from calcarine.visdec.encoder_storage import read_about

    config = work.config.visdec.pretrain
    met: list[dict[str, Any]] = []
    if work.phase_on("pretrain"):
        # All of their training stimuli may have been met, of any subject where none is named.
        met += [
            {"dataset": part.name, "subject": part.subject}
            for part in config.pool
            if part.source == "dataset"
        ]
    if config.start is not None and Path(config.start).is_dir():
        about = read_about(config.start)
        met += [{name: about.get(name) for name in _MET}, *about.get("met before", [])]
    return met


_MET = ("dataset", "subject", "trained on", "transductive")


def begins_unknown(start: str | None) -> bool:
    """Whether weights began, at whatever remove, from published ones."""
    from calcarine.visdec.encoder_storage import read_about

    if start is None:
        return False
    return not Path(start).is_dir() or bool(read_about(start).get("unknown"))


def _refuse_if_met(work: Workspace, split: Split, about: dict[str, Any], place: Path) -> None:
    """Weights must not have met what is tested here, of this subject, at whatever remove."""
    if work.config.visdec.allow_transductive:
        return
    for entry in (about, *about.get("met before", [])):
        same = entry.get("dataset") == work.dataset.name
        same = same and entry.get("subject") in (None, work.dataset.subject)
        trained_on = entry.get("trained on")
        met = trained_on is None or set(trained_on) & set(split.test)
        if not same or not (met or entry.get("transductive")):
            continue
        raise LeakageError(
            f"The weights in {place} were trained on responses of this subject that are test "
            f"responses in {split.name}; begin elsewhere, or set visdec.allow_transductive=true, "
            "which the report will say."
        )


def _refuse_other_voxels(work: Workspace, about: dict[str, Any], place: Path) -> None:
    """Weights of each patch's own are those of certain voxels."""
    dataset = work.dataset
    here = {"dataset": dataset.name, "subject": dataset.subject, "roi": work.config.visdec.roi}
    strange = [name for name, value in here.items() if about.get(name) != value]
    if strange:
        raise CalcarineError(
            f"{place} has weights of each patch's own, for the {strange[0]} "
            f"{about.get(strange[0])} and not {here[strange[0]]}; begin from weights of the same "
            "voxels, or train with visdec.encoder.embedding=shared."
        )


def _start(work: Workspace, split: Split, shape: AutoencoderConfig) -> FMRIAutoencoder | None:
    """Weights to begin from, brought to the number of patches that is needed here."""
    source = work.config.visdec.pretrain.start
    if source is None:
        return None
    from calcarine.visdec.encoder_storage import has_own_positions, load_encoder, read_about
    from calcarine.visdec.published_encoder import interpolated, load_published_encoder

    place = Path(source)
    if place.is_dir():
        _refuse_if_met(work, split, read_about(place), place)
    found = load_encoder(place) if place.is_dir() else load_published_encoder(place).autoencoder
    if found.config.patch != shape.patch:
        raise CalcarineError(
            f"{place} has patches of {found.config.patch} voxels, and visdec.encoder.patch is "
            f"{shape.patch}; set it to {found.config.patch}."
        )
    if found.config.embedding != shape.embedding:
        raise CalcarineError(
            f"{place} embeds patches by {found.config.embedding} weights, and "
            f"visdec.encoder.embedding is {shape.embedding}; set it to {found.config.embedding}."
        )
    if shape.embedding == "own":
        _refuse_other_voxels(work, read_about(place), place)
    # Of a table that is not the sines only a stretched one is known, as in the published code.
    own = has_own_positions(found)
    return interpolated(found, shape.n_patches, "interpolate" if own else "sine")


def _provenance(work: Workspace, phase: str, split: Split) -> dict[str, Any]:
    return {"phase": phase, "key": work.training_keys[phase], "split": split.digest()}
