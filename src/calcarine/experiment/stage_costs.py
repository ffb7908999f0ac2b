"""What the stages of a run compute, counted from the settings and the data."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from calcarine.decoding import PixelRegression
from calcarine.encoding.models import TOGETHER
from calcarine.experiment.encoding_maps import analysis_plan
from calcarine.experiment.feature_files import read_feature_file
from calcarine.experiment.stage import PHASES
from calcarine.experiment.visdec_training import phase_steps
from calcarine.features import FeatureStore, extract_spaces
from calcarine.features.latents import texts_of
from calcarine.features.spaces import SpaceName
from calcarine.features.store import ExtractMany, FeatureSpace, Shape
from calcarine.linear.costs import RidgeCost, banded_ridge_cost, ridge_cost
from calcarine.stimuli.picture_folders import picture_files

if TYPE_CHECKING:
    from calcarine.brain import Split
    from calcarine.experiment.workspace import Workspace

__all__ = ["Part", "StageCost", "stage_cost"]

_FLOAT = 4
_PNG = 0.75  # bytes of a PNG for each byte of a picture
_ZARR = 0.93  # bytes of compressed features for each byte
_FLOORS = 3
_EIGEN_PRODUCTS = 9
"""Cost of scipy's eigenvectors of a part of the spectrum, in matrix products of its order."""


@dataclass(frozen=True)
class Part:
    """Equal pieces of work of a stage.

    Attributes
    ----------
    what : str
        In the plural, for a reader.
    count : float
    unit : str
        One of the units that `calcarine.experiment.calibration.Calibration` measures.
    """

    what: str
    count: float
    unit: str


@dataclass(frozen=True)
class StageCost:
    """What a stage computes and keeps.

    Attributes
    ----------
    parts : tuple of Part
    fits : tuple of (str, int, RidgeCost)
        Ridge regressions: what they fit, how many of them, and the cost of one.
    arrays : float
        Bytes of arrays that are in memory together, beyond data, networks and fits.
    disk, stored : float
        Bytes that the stage writes into the run, and as features into the store.
    unknown : tuple of str
        Work whose cost is not known.
    """

    parts: tuple[Part, ...] = ()
    fits: tuple[tuple[str, int, RidgeCost], ...] = ()
    arrays: float = 0.0
    disk: float = 0.0
    stored: float = 0.0
    unknown: tuple[str, ...] = ()


class _Missing(FeatureStore):
    """A store that extracts nothing, and notes what the other store lacks."""

    def __init__(self, store: FeatureStore) -> None:
        super().__init__(store.folder)
        self.lacking: list[tuple[list[str], int]] = []

    def get(
        self,
        space: str,
        provenance: Mapping[str, Any],
        count: int,
        shape: Shape,
        extract: Any,
        chunk: int = 64,
    ) -> NDArray[np.float32]:
        self.get_many([FeatureSpace(space, provenance, shape)], count, extract, chunk)
        return np.zeros((count, 0), np.float32)

    def get_many(
        self, spaces: list[FeatureSpace], count: int, extract: ExtractMany, chunk: int = 64
    ) -> dict[str, Any]:
        lacking = [space.name for space in spaces if not self.has(space)]
        if lacking:
            self.lacking.append((lacking, count))
        return dict.fromkeys([space.name for space in spaces])


def _features_cost(work: Workspace) -> StageCost:
    """Return what extracting z and c costs."""
    if not work.config.makes_latents:
        return StageCost()
    store, stimuli = _Missing(work.store), work.dataset.stimuli
    work.latent_settings.z(store, work.described_model, stimuli)
    work.latent_settings.c(store, work.described_model, stimuli)
    return _extraction(work, store)


def _extraction(work: Workspace, store: _Missing) -> StageCost:
    """Return what extracting the features costs that a store lacks."""
    parts: list[Part] = []
    stored, generation = 0.0, work.config.generation
    for names, count in store.lacking:
        stored += count * _FLOAT * sum(_width(work, name) for name in names)
        first = SpaceName.parse(names[0])
        if names == ["z"]:
            parts.append(Part("pictures encoded to z", count, "encode z"))
        elif names == ["c"]:
            texts = texts_of(work.dataset.stimuli, work.config.features.text)
            total = sum(max(len(own), 1) for own in texts)
            parts.append(Part("texts", total, "text"))
        elif first.strength is not None:
            steps = work.described_model.count_steps(generation.steps, first.strength)
            parts.append(Part("denoising steps of features", count * steps, _step(work)))
    return StageCost(tuple(parts), stored=stored * _ZARR)


def _step(work: Workspace) -> str:
    return "plain step" if work.config.generation.guidance == 1 else "guided step"


def _has_known_width(name: str) -> bool:
    """Whether a feature space is one of the diffusion model, whose sizes are known."""
    return name != "labels" and not SpaceName.parse(name).by_network


def _width(work: Workspace, name: str) -> int:
    """Return the number of values of one stimulus in a feature space."""
    space = SpaceName.parse(name)
    if name == "c":
        return math.prod(work.described_model.context_shape)
    if space.block is not None:
        return math.prod(work.block_shape(space.block))
    return math.prod(work.z_shape)


def _fit_cost(work: Workspace) -> StageCost:
    """Return what fitting the decoders, and choosing strength and guidance, costs."""
    config, fits = work.config, []
    disk = arrays = 0.0
    unknown: tuple[str, ...] = ()
    targets = _targets(work)
    if config.decodes_by_own_class:
        unknown = (f"the decoder {config.decoder.name}",)
    for split in work.splits:
        for name, (region, width) in targets.items():
            if name == "pixels" or not config.decodes_by_own_class:
                fits.append((f"decoder of {name}", 1, _decoder(work, split, region, width)))
            voxels = int(work.dataset.roi_mask(region).sum())
            disk += _FLOAT * width * ((name != "pixels") * voxels + len(split.test))
    arrays += _FLOAT * len(work.dataset.stimuli) * sum(width for _, width in targets.values())
    parts: list[Part] = []
    if work.chooses_settings:
        search = config.generation.search
        for split in work.splits:
            for name, (region, width) in targets.items():
                if name != "pixels":
                    fits.append((f"decoder of {name}", 1, _decoder(work, split, region, width)))
        counts = [
            work.described_model.count_steps(search.steps, strength)
            for strength in search.strengths
        ]
        pictures = search.n_stimuli * len(work.splits)
        steps = pictures * len(search.guidances) * sum(counts)
        made = pictures * len(search.guidances) * len(counts)
        parts += [
            Part("denoising steps to choose settings", steps, "guided step"),
            *_pictures(work, made, through=True),
        ]
    return StageCost(tuple(parts), tuple(fits), arrays, disk, unknown=unknown)


def _targets(work: Workspace) -> dict[str, tuple[str, int]]:
    """Return region and number of values of each target that is decoded."""
    config, found = work.config, {}
    if config.ridge.enabled:
        found["z"] = work.roi["z"], math.prod(work.z_shape)
        found["c"] = work.roi["c"], math.prod(work.described_model.context_shape)
    if config.evaluation.direct_ridge:
        side = min(_picture_side(work), PixelRegression().max_side)
        found["pixels"] = work.roi["pixels"], 3 * side**2
    return found


def _decoder(work: Workspace, split: Split, region: str, width: int) -> RidgeCost:
    return ridge_cost(
        len(work.dataset.trials_of(split.train)),
        int(work.dataset.roi_mask(region).sum()),
        width,
        len(split.train),
        work.config.ridge.n_folds,
        len(work.alphas),
    )


def _pictures(work: Workspace, count: float, *, through: bool) -> list[Part]:
    """Return the parts of making pictures from latents, from z through a picture or not."""
    model = work.described_model
    parts = [Part("latents decoded", count, "decode")]
    passes = work.config.generation.through_image or work.latent_size != model.image_size
    if through and passes:
        parts += [
            Part("z decoded", count, "decode z"),
            Part("pictures encoded", count, "encode"),
        ]
    return parts


def _picture_side(work: Workspace) -> int:
    """Return the smaller side of the stimuli in pixels."""
    stimuli = work.dataset.stimuli
    return int(min(stimuli.images(stimuli.ids[:1]).shape[1:3]))


def _reconstruct_cost(work: Workspace) -> StageCost:
    """Return what making the pictures costs."""
    config, generation = work.config, work.config.generation
    n = sum(len(split.test) for split in work.splits)
    parts: list[Part] = []
    written = n * 3 * _picture_side(work) ** 2.0
    if config.ridge.enabled:
        strength = generation.strength
        if work.chooses_settings:
            strength = max(generation.search.strengths)
        whole = work.described_model.count_steps(generation.steps, 1.0)
        some = work.described_model.count_steps(generation.steps, strength)
        z_c = max(generation.samples, generation.candidates)
        ceiling = config.evaluation.ceilings * config.evaluation.ceiling_samples
        guided = n * (whole * (generation.samples + ceiling) + some * (z_c + ceiling))
        parts.append(Part("denoising steps", guided, _step(work)))
        made = n * (generation.samples + z_c + 2 * ceiling)
        if generation.z_empty_text:
            plain = n * some * generation.samples
            parts.append(Part("denoising steps under the empty text", plain, "plain step"))
            made += n * generation.samples
        parts += _pictures(work, made, through=False)
        # Samples of one stimulus share their z.
        starts = n * (1 + generation.z_empty_text + bool(ceiling))
        parts += [part for part in _pictures(work, starts, through=True) if part.unit != "decode"]
        parts.append(Part("pictures of z", n * (1 + bool(ceiling)), "decode z"))
        if generation.candidates:
            parts.append(Part("candidates encoded", n * generation.candidates, "encode z"))
            made += n
        written += (made + n * (1 + bool(ceiling))) * 3 * work.described_model.image_size**2
    if config.visdec.runs("finetune"):
        finetune = config.visdec.finetune
        steps = work.generator.count_steps(finetune.steps, finetune.strength)
        unit = "plain step" if finetune.guidance == 1 else "guided step"
        made = n * finetune.samples
        parts += [
            Part("denoising steps of Vis-Dec", made * steps, f"generator {unit}"),
            Part("latents of Vis-Dec decoded", made, "generator decode"),
        ]
        written += made * 3 * work.generator.image_size**2
    if config.evaluation.direct_ridge:
        written += n * 3 * _picture_side(work) ** 2
    parts.append(Part("megapixels written", written / 3e6, "png"))
    arrays = _FLOAT * len(work.dataset.stimuli) * _latent_values(work)
    return StageCost(tuple(parts), arrays=arrays, disk=written * _PNG)


def _latent_values(work: Workspace) -> int:
    """Return the number of values of z and c of one stimulus that a run holds."""
    if not work.config.makes_latents:
        return 0
    return math.prod(work.z_shape) + math.prod(work.described_model.context_shape)


def _retrieve_cost(work: Workspace) -> StageCost:
    """Return what decoding features of stimuli costs."""
    store, stimuli = _Missing(work.store), work.dataset.stimuli
    targets = work.config.embeddings.targets
    if not targets:
        return StageCost()
    names = [t.space for t in targets if t.file is None]
    latents = [name for name in names if _has_known_width(name)]
    extract_spaces(latents, work.described_model, stimuli, store, latents=work.latent_settings)
    found = _extraction(work, store)
    widths = {t.name: _width(work, t.space) for t in targets if t.space in latents}
    widths |= {
        t.name: math.prod(read_feature_file(t.name, Path(t.file), stimuli).shape[1:])
        for t in targets
        if t.file
    }
    by_region: dict[str, list[str]] = {}
    for t in targets:
        if t.name in widths:
            by_region.setdefault(t.roi, []).append(t.name)
    # Targets of one region are fitted together.
    fits = [
        (f"decoder of {' and '.join(names)}", 1, _decoder(work, split, roi, total))
        for split in work.splits
        for roi, names in by_region.items()
        for total in [sum(widths[name] for name in names)]
    ]
    # Without the choice of penalties: at most as much as the fit.
    fits += [
        (f"held-out predictions of {' and '.join(names)}", 1, _decoder(work, split, roi, total))
        for split in work.splits
        for roi, own in by_region.items()
        for names in [[t.name for t in targets if t.name in own and t.rescale != "none"]]
        for total in [sum(widths[name] for name in names)]
        if names
    ]
    voxels = max(int(work.dataset.roi_mask(t.roi).sum()) for t in targets)
    disk = _FLOAT * voxels * sum(widths.values()) * len(work.splits)
    # Rescaling copies a target; fits read some columns at a time.
    copied = [widths.get(t.name, 0) for t in targets if t.rescale != "none"]
    arrays = _FLOAT * len(stimuli) * (sum(widths.values()) + sum(copied))
    unknown = tuple(f"features and decoder of {t.name}" for t in targets if t.name not in widths)
    unknown += tuple(
        f"features of {len(picture_files(folder)):,} pictures in {folder}"
        for folder in work.config.embeddings.folders
    )
    return StageCost(found.parts, tuple(fits), arrays, disk, found.stored, unknown)


def _evaluate_cost(work: Workspace) -> StageCost:
    """Return what scoring the pictures costs."""
    methods, scored = _scored(work)
    n = sum(len(split.test) for split in work.splits)
    parts = (
        Part("pictures scored", n + scored, "score"),
        Part("methods, floors and ceilings", methods, "scored method"),
    )
    pixels = 3 * _picture_side(work) ** 2
    train = max(len(split.train) for split in work.splits)
    # Training pictures, for floors, and the pictures of one method.
    arrays = pixels * (train + 6 * n) + _FLOAT * len(work.dataset.stimuli) * _latent_values(work)
    return StageCost(parts, arrays=arrays, disk=2e6)


def _scored(work: Workspace) -> tuple[int, int]:
    """Return the number of methods, floors and ceilings, and of their pictures."""
    config, generation = work.config, work.config.generation
    samples = [1] * (_FLOORS + config.evaluation.direct_ridge + config.evaluation.ceilings)
    if config.ridge.enabled:
        samples += [1, *[generation.samples] * (2 + generation.z_empty_text)]
        samples += [1] * bool(generation.candidates)
        if config.evaluation.ceilings:
            samples += [1, *[config.evaluation.ceiling_samples] * 2]
    if config.visdec.runs("finetune"):
        samples.append(config.visdec.finetune.samples)
    return len(samples), sum(samples) * sum(len(split.test) for split in work.splits)


def _audit_cost(work: Workspace) -> StageCost:
    """Return what the audit costs."""
    n = sum(len(split.test) for split in work.splits)
    parts = (
        Part("audit of the run", 1, "audited run"),
        Part("audited pictures", n, "audit"),
        Part("compared stimuli", len(work.dataset.stimuli), "audit stimulus"),
    )
    pixels = 3 * _picture_side(work) ** 2
    return StageCost(parts, arrays=pixels * 4 * n, disk=1e6)


def _report_cost(work: Workspace) -> StageCost:
    """Return what writing the report costs."""
    return StageCost((Part("reports", 1, "report"),), disk=3e6)


def _encode_cost(work: Workspace) -> StageCost:
    """Return what the encoding models cost, with the extraction of their feature spaces."""
    config, plan = work.config.encoding, analysis_plan(work)
    own = set(config.feature_files)
    names = [name for name in plan.spaces() if name not in own]
    store, generation = _Missing(work.store), work.config.generation
    known = [name for name in names if _has_known_width(name)]
    extract_spaces(
        known,
        work.described_model,
        work.dataset.stimuli,
        store,
        latents=work.latent_settings,
        guidance=generation.guidance,
        steps=generation.steps,
        seed=generation.seed,
    )
    found = _extraction(work, store)
    voxels, stimuli = int(work.dataset.roi_mask(config.roi).sum()), len(work.dataset.stimuli)
    fits: list[tuple[str, int, RidgeCost]] = []
    parts, disk, stored, widest = list(found.parts), 0.0, found.stored, 0
    widths = {name: _width(work, name) for name in known}
    for split in work.splits:
        train = len(split.train)
        rows = len(work.dataset.trials_of(split.train)) if config.train == "trials" else train
        kept = {name: min(w, config.n_components, train - 1) for name, w in widths.items()}
        for width in widths.values():
            if width > config.n_components:
                # Products of stimuli, and the eigenvectors of a matrix of their order.
                wide = train <= width
                order = train if wide else width
                total = stimuli * train * width if wide else train * width**2
                parts.append(Part("components", total + _EIGEN_PRODUCTS * order**3, "double"))
        for fit in plan.fits():
            if not all(name in kept for name in fit):
                continue
            if len(fit) == 1:
                cost = ridge_cost(
                    rows,
                    kept[fit[0]],
                    voxels,
                    train,
                    config.n_folds,
                    config.n_alphas,
                    wide=True,
                    keeps_weights=False,
                )
                fits.append(("encoding model of one feature space", 1, cost))
            else:
                width = sum(kept[name] for name in fit)
                whole, rest = divmod(voxels, TOGETHER)
                sizes = [(TOGETHER, whole), (rest, bool(rest))]
                for size, count in sizes:
                    if count:
                        cost = banded_ridge_cost(rows, width, size, config.n_folds)
                        fits.append(("encoding model of two feature spaces", count, cost))
        widest = max(widest, max(kept.values(), default=0))
        disk += len(plan.fits()) * _FLOAT * len(split.test) * voxels * 2
        stored += (
            _FLOAT
            * stimuli
            * sum(kept[name] for name, width in widths.items() if width > config.n_components)
        )
    arrays = _FLOAT * (2 * stimuli * widest + 3 * stimuli * voxels)
    # Outputs of blocks are kept for a batch, and again while they are written.
    arrays += 2 * _FLOAT * generation.batch_size * sum(widths.values())
    others = tuple(f"the encoding model of {name}" for name in plan.spaces() if name not in known)
    return StageCost(tuple(parts), tuple(fits), arrays, disk, stored, others)


def _phase_cost(work: Workspace, phase: str, counts: bool) -> StageCost:
    """Return what a phase of Vis-Dec costs; without counting, epochs are not turned into steps."""
    epochs = getattr(work.config.visdec, phase).training.epochs
    unknown = () if counts or epochs is None else (f"{epochs:,} epochs of training",)
    parts = [] if unknown else [Part("training steps", phase_steps(work, phase), phase)]
    stored = 0.0
    if phase == "finetune":
        store, stimuli = _Missing(work.store), work.dataset.stimuli
        work.generator_latent_settings.z(store, work.generator, stimuli)
        if store.lacking:
            parts.append(Part("pictures encoded", len(stimuli), "generator encode"))
            stored = _FLOAT * len(stimuli) * math.prod(work.generator.latent_shape) * _ZARR
    kept = tuple(part for part in parts if part.count)
    return StageCost(kept, stored=stored, unknown=unknown)


_COSTS: dict[str, Callable[[Workspace], StageCost]] = {
    "features": _features_cost,
    "fit": _fit_cost,
    "reconstruct": _reconstruct_cost,
    "evaluate": _evaluate_cost,
    "audit": _audit_cost,
    "report": _report_cost,
    "retrieve": _retrieve_cost,
    "encode": _encode_cost,
}


def stage_cost(stage: str, work: Workspace, counts: bool = True) -> StageCost:
    """Return what a stage of a run computes and keeps.

    Parameters
    ----------
    stage : str
        One of :data:`calcarine.experiment.stages.STAGES`.
    work : Workspace
    counts : bool
        False reads no pool of vectors, so that epochs of training are left uncounted.

    Returns
    -------
    StageCost
    """
    return _phase_cost(work, stage, counts) if stage in PHASES else _COSTS[stage](work)
