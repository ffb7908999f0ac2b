"""Encoding maps of a run: fit every voxel from every feature space."""

from __future__ import annotations

import json
import shutil
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from calcarine.diffusion.trajectory import block_names
from calcarine.encoding import Analysis, AnalysisPlan, analyse
from calcarine.encoding.analysis import edge_note, share_fits
from calcarine.errors import CalcarineError
from calcarine.experiment.feature_files import read_feature_files
from calcarine.experiment.progress import Advance
from calcarine.features import extract_spaces
from calcarine.files import atomic_write, write_text
from calcarine.quality.reliability import estimate_reliability

if TYPE_CHECKING:
    from calcarine.experiment.workspace import Workspace


_FITTED_ON = {
    "means": "means over repeats",
    "weighted": "means over repeats, weighted by their number",
    "trials": "single trials",
}


def encode_voxels(work: Workspace) -> None:
    """Extract the feature spaces of all analyses, fit them, and write ``encoding/``.

    Writes voxels.parquet, regions.parquet, unique.parquet, winners.parquet (see
    `calcarine.encoding.Analysis`) and summary.json. Until then finished fits are kept in
    ``encoding/fits``.
    """
    config, plan = work.config.encoding, analysis_plan(work)
    _fits(work).mkdir(parents=True, exist_ok=True)  # shared fits lie there, or are finished
    features = _features(work, plan)
    ceiling, no_ceiling = _ceiling(work)
    with _progress(work, plan) as advance:
        analysis = analyse(
            work.dataset,
            work.splits,
            features,
            plan,
            ceiling=ceiling,
            rate=config.fdr_alpha,
            null=config.null_distribution,
            n_permutations=config.n_permutations,
            n_boot=config.n_boot,
            seed=work.config.evaluation.seed,
            progress=lambda text: advance(1),
            **_options(work),
        )
    if (note := edge_note(analysis.facts)) is not None:
        work.progress.say(note)
    _write(work, analysis, plan, no_ceiling)
    shutil.rmtree(_fits(work), ignore_errors=True)


def share_encoding(work: Workspace) -> None:
    """Share the features and fits of `encode_voxels` in another process."""
    plan = analysis_plan(work)
    features = _features(work, plan)
    with _progress(work, plan) as advance:
        share_fits(
            work.dataset,
            work.splits,
            features,
            plan,
            progress=lambda text: advance(1),
            **_options(work),
        )


def analysis_plan(work: Workspace) -> AnalysisPlan:
    """Return the analyses of a run, and their feature spaces."""
    config = work.config.encoding
    return AnalysisPlan(
        analyses=tuple(config.analyses),
        strengths=tuple(config.strengths),
        strength=work.config.generation.strength,
        blocks=blocks_of(work),
        extra_feature_spaces=config.extra_names,
        n_components=config.n_components,
    )


def _options(work: Workspace) -> dict[str, Any]:
    """Return what decides the fits, and where they are kept."""
    config = work.config.encoding
    return {
        "roi": config.roi,
        "train": config.train,
        "n_folds": config.n_folds,
        "alphas": np.geomspace(config.alpha_min, config.alpha_max, config.n_alphas),
        "device": work.ridge_device,
        "folder": _fits(work),
        "store": work.shared_store,
    }


def _progress(work: Workspace, plan: AnalysisPlan) -> AbstractContextManager[Advance]:
    return work.progress.track("Encoding models", len(plan.fits()) * len(work.splits))


def blocks_of(work: Workspace) -> tuple[str, ...]:
    """Return the blocks of the U-Net that a run compares."""
    return tuple(work.config.encoding.blocks or _default_blocks(block_names(work.described_model)))


def _features(work: Workspace, plan: AnalysisPlan) -> dict[str, Any]:
    """Extract every feature space of the plan, and read those from files."""
    generation, stimuli = work.config.generation, work.dataset.stimuli
    # Files first: a mistake in one is noticed before hours of extraction.
    own = read_feature_files(work.config.encoding.feature_files, stimuli)
    names = [name for name in plan.spaces() if name not in own]
    passes = {name.split("@")[1].split(":")[0] for name in names if "@" in name}
    with work.progress.track("Feature spaces", len(passes) * len(stimuli)) as advance:
        extracted = extract_spaces(
            names,
            work.model,
            stimuli,
            work.store,
            latents=work.latent_settings,
            guidance=generation.guidance,
            steps=generation.steps,
            seed=generation.seed,
            batch_size=generation.batch_size,
            progress=advance,
        )
    return {**extracted, **own}


def _fits(work: Workspace) -> Path:
    """Return the folder of finished fits, from which an interrupted stage resumes."""
    return work.run.path / "encoding" / "fits"


def _default_blocks(names: tuple[str, ...]) -> list[str]:
    """Return two blocks of the way down, the bottleneck, two of the way up (as in the paper)."""
    down = [name for name in names if name.startswith("down")]
    up = [name for name in names if name.startswith("up")]
    return [*dict.fromkeys([down[0], down[-1]]), "mid_block", *dict.fromkeys([up[0], up[-1]])]


def _ceiling(work: Workspace) -> tuple[NDArray[np.float64] | None, str | None]:
    """Return noise ceilings from training repeats, or why there are none."""
    try:
        ceiling = estimate_reliability(work.dataset, work.splits[0], n_boot=0)
    except CalcarineError as error:
        return None, str(error)
    return np.asarray(ceiling.values, dtype=np.float64), None


def _write(work: Workspace, analysis: Analysis, plan: AnalysisPlan, no_ceiling: str | None) -> None:
    config = work.config.encoding
    folder = work.run.path / "encoding"
    for name in ("voxels", "regions", "unique", "winners"):
        with atomic_write(folder / f"{name}.parquet") as partial:
            getattr(analysis, name).to_parquet(partial)
    settings: dict[str, Any] = {
        "analyses": ", ".join(plan.analyses),
        "noise levels": ", ".join(f"{s:g}" for s in plan.strengths),
        "strength of the other analyses": plan.strength,
        "blocks": ", ".join(plan.blocks),
        "further feature spaces": ", ".join(config.extra_feature_spaces) or "none",
        "components": plan.n_components,
        "guidance": work.config.generation.guidance,
        "steps": work.config.generation.steps,
        "region": config.roi,
        "fitted on": _FITTED_ON[config.train],
        "penalties": f"{config.alpha_min:g} to {config.alpha_max:g}",
    }
    dataset = work.dataset
    summary = {
        "simulated": dataset.simulated,
        "dataset": dataset.name,
        "subject": dataset.subject,
        "source": dataset.source,
        "licence": dataset.licence,
        "model": f"{work.described_model.name} ({work.described_model.digest[:12]})",
        "splits": ", ".join(f"{s.name} ({s.digest()[:8]})" for s in work.splits[:12]),
        "facts": analysis.facts,
        "no_ceiling": no_ceiling,
        "settings": settings,
    }
    write_text(folder / "summary.json", json.dumps(summary, indent=1))
