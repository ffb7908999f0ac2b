"""The stage of voxel-wise encoding."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from calcarine.diffusion.trajectory import block_names
from calcarine.encoding import Analysis, AnalysisPlan, analyse
from calcarine.errors import CalcarineError
from calcarine.features import extract_spaces
from calcarine.files import atomic_write, write_text
from calcarine.quality.reliability import reliability

if TYPE_CHECKING:
    from calcarine.experiment.workspace import Workspace


_FITTED_ON = {
    "means": "means over repeats",
    "weighted": "means over repeats, weighted by their number",
    "trials": "single trials",
}


def encode_voxels(work: Workspace) -> None:
    """Extract what the questions need, ask them, and write ``encoding/``.

    Writes voxels.parquet, regions.parquet, unique.parquet, winners.parquet (see
    `calcarine.encoding.Analysis`) and, last, summary.json.
    """
    config, generation = work.config.encoding, work.config.generation
    plan = AnalysisPlan(
        analyses=tuple(config.analyses),
        strengths=tuple(config.strengths),
        strength=generation.strength,
        blocks=tuple(config.blocks or _usual_blocks(block_names(work.model))),
        extra_feature_spaces=tuple(config.extra_feature_spaces),
        n_components=config.n_components,
    )
    stimuli = work.dataset.stimuli
    passes = {name.split("@")[1].split(":")[0] for name in plan.spaces() if "@" in name}
    with work.progress.track("Features on the way", len(passes) * len(stimuli)) as advance:
        features = extract_spaces(
            plan.spaces(),
            work.model,
            stimuli,
            work.store,
            latents=work.recipe,
            guidance=generation.guidance,
            steps=generation.steps,
            seed=generation.seed,
            batch_size=generation.batch_size,
            progress=advance,
        )
    fits = sum(len(names) for names in plan.alone().values())
    fits += sum(len(pairs) for pairs in plan.pairs().values())
    with work.progress.track("Encoding models", fits) as advance:
        found = analyse(
            work.dataset,
            work.splits,
            features,
            plan,
            roi=config.roi,
            train=config.train,
            ceiling=_ceiling(work),
            rate=config.fdr_alpha,
            null=config.null_distribution,
            n_permutations=config.n_permutations,
            n_folds=config.n_folds,
            n_boot=config.n_boot,
            alphas=np.logspace(config.alpha_min, config.alpha_max, config.n_alphas),
            seed=work.config.evaluation.seed,
            progress=lambda text: advance(1),
        )
    _write(work, found, plan)


def _usual_blocks(names: tuple[str, ...]) -> list[str]:
    """Two of the first stage, the bottleneck, two of the second (Takagi & Nishimoto 2023)."""
    down = [name for name in names if name.startswith("down")]
    up = [name for name in names if name.startswith("up")]
    return [*dict.fromkeys([down[0], down[-1]]), "mid_block", *dict.fromkeys([up[0], up[-1]])]


def _ceiling(work: Workspace) -> NDArray[np.float64] | None:
    """Noise ceilings by training repeats, where there are any."""
    try:
        found = reliability(work.dataset, work.splits[0], n_boot=0)
    except CalcarineError:
        return None
    return np.asarray(found.values, dtype=np.float64)


def _write(work: Workspace, found: Analysis, plan: AnalysisPlan) -> None:
    config = work.config.encoding
    folder = work.run.path / "encoding"
    for name in ("voxels", "regions", "unique", "winners"):
        with atomic_write(folder / f"{name}.parquet") as aside:
            getattr(found, name).to_parquet(aside)
    settings: dict[str, Any] = {
        "questions": ", ".join(plan.analyses),
        "noise levels": ", ".join(f"{s:g}" for s in plan.strengths),
        "strength of the other questions": plan.strength,
        "blocks": ", ".join(plan.blocks),
        "components": plan.n_components,
        "guidance": work.config.generation.guidance,
        "steps": work.config.generation.steps,
        "region": config.roi,
        "fitted on": _FITTED_ON[config.train],
        "penalties": f"1e{config.alpha_min:g} to 1e{config.alpha_max:g}",
    }
    dataset = work.dataset
    summary = {
        "simulated": dataset.simulated,
        "dataset": dataset.name,
        "subject": dataset.subject,
        "source": dataset.source,
        "licence": dataset.licence,
        "model": f"{work.model.name} ({work.model.digest[:12]})",
        "splits": ", ".join(f"{s.name} ({s.digest()[:8]})" for s in work.splits[:12]),
        "facts": found.facts,
        "settings": settings,
    }
    write_text(folder / "summary.json", json.dumps(summary, indent=1))
