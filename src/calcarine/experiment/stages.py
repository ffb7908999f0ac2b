"""The stages of a run; each reads what the one before wrote."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calcarine.brain import Split
from calcarine.decoding import (
    LatentRegression,
    PixelRegression,
    choose_settings,
)
from calcarine.errors import CalcarineError
from calcarine.experiment.config import Experiment
from calcarine.experiment.describe import describe
from calcarine.experiment.memory import enough_memory
from calcarine.experiment.progress_bars import Progress
from calcarine.experiment.run_directory import RunDirectory, opened_run
from calcarine.experiment.run_visdec import finetune, guide, pretrain
from calcarine.experiment.workspace import Workspace
from calcarine.files import atomic_write, write_text
from calcarine.files.locks import folder_lock


def features(work: Workspace) -> None:
    """Extract z and c of all stimuli, where something is decoded from or into them."""
    if not work.needs_text_model:
        return
    # c first: it says at once if captions are missing, and z of many pictures takes long.
    _ = work.c, work.z


def fit(work: Workspace) -> None:
    """Fit the decoders of every fold, predict its test stimuli, choose its settings."""
    config = work.config
    made = work.run.made("fit")
    with work.progress.track("Decoders", len(work.splits)) as advance:
        for split in work.splits:
            folder = work.run.decoder / split.name
            if not made.holds_below(folder):
                shutil.rmtree(folder, ignore_errors=True)
                _fit_fold(work, split, folder)
                made.add(file for file in folder.rglob("*") if file.is_file())
            advance(1)
    if not work.searches:
        return
    from calcarine.experiment.reconstructions import reconstructor

    search = config.generation.search
    pairs = len(search.strengths) * len(search.guidances)
    total = pairs * search.n_stimuli * len(work.splits)
    with work.progress.track("Choosing settings", total) as advance:
        for split in work.splits:
            file = work.run.decoder / split.name / "settings.json"
            if made.holds(file):
                advance(pairs * search.n_stimuli)
                continue
            chosen = choose_settings(
                reconstructor(work, steps=search.steps),
                LatentRegression(work.roi["z"], work.roi["c"], **work.ridge_options),
                work.dataset,
                split,
                work.z,
                work.c,
                search.strengths,
                search.guidances,
                search.n_stimuli,
                config.generation.seed,
                advance,
            )
            _write_json(file, chosen.to_json())
            made.add([file])


def _fit_fold(work: Workspace, split: Split, folder: Path) -> None:
    from safetensors.numpy import save_file

    predicted: dict[str, NDArray[Any]] = {}
    summary = {}
    if work.config.ridge.enabled:
        regression = LatentRegression(work.roi["z"], work.roi["c"], **work.ridge_options)
        regression.fit(work.dataset, split, work.z, work.c).save(folder)
        found = regression.predict(work.dataset, split)
        predicted = {k: np.ascontiguousarray(v) for k, v in found.items()}
        predicted["reliability_z"] = regression.reliability("z")
        summary = {name: asdict(value) for name, value in regression.summary_.items()}
    if work.config.evaluation.direct_ridge:
        pixels = PixelRegression(work.roi["pixels"], **work.ridge_options)
        pixels.fit(work.dataset, split)
        predicted["direct"] = pixels.predict(work.dataset, split)
        summary["direct ridge"] = asdict(pixels.summary_)
    _write_json(folder / "summary.json", summary)
    with atomic_write(folder / "predictions.safetensors") as aside:
        save_file(predicted, aside)


def reconstruct(work: Workspace) -> None:
    """Make the pictures of every fold, method and sample."""
    from calcarine.experiment.reconstructions import make_pictures

    make_pictures(work)


def evaluate(work: Workspace) -> None:
    """Score all pictures with floors and ceilings."""
    from calcarine.experiment.scoring import score_pictures

    score_pictures(work)


def audit(work: Workspace) -> None:
    """Say whether the scores are real: audit.html and audit.json."""
    from calcarine.audit import audit as look
    from calcarine.experiment.run_audit import inputs_from_run
    from calcarine.reporting.audit_page import build_audit_page

    with work.progress.track("Audit", 1) as advance:
        found = look(inputs_from_run(work))
        build_audit_page(found, work.run.path / "audit.html")
        advance(1)


def report(work: Workspace) -> None:
    """Write report.html."""
    from calcarine.experiment.reconstructions import finished_pictures
    from calcarine.reporting import build_report

    finished_pictures(work)
    describe(work)
    build_report(work.run.path)


def encode(work: Workspace) -> None:
    """Fit voxel-wise encoding models and write their maps and page."""
    from calcarine.experiment.encode import encode_voxels
    from calcarine.reporting.encoding_report import build_encoding_report

    encode_voxels(work)
    build_encoding_report(work.run.path)


STAGES: dict[str, Callable[[Workspace], None]] = {
    "features": features,
    "encode": encode,
    "fit": fit,
    "pretrain": pretrain,
    "guide": guide,
    "finetune": finetune,
    "reconstruct": reconstruct,
    "evaluate": evaluate,
    "audit": audit,
    "report": report,
}
# Asked for before what a changed setting made stale is removed.
_NEEDS = {"evaluate": "reconstruct", "audit": "evaluate", "report": "evaluate"}


def run_stage(work: Workspace, stage: str) -> None:
    """Do one stage, or what is left of it."""
    if stage not in STAGES:
        raise CalcarineError(f"There is no stage '{stage}'; there are: {', '.join(STAGES)}.")
    if stage not in work.keys and stage != "encode":
        raise CalcarineError(
            f"This run does without the stage '{stage}'; start one with it by 'calcarine run "
            "--preset visdec-mini'."
        )
    key = work.encode_key if stage == "encode" else work.keys[stage]
    with work.run.locked():
        if stage in _NEEDS:
            work.run.require(_NEEDS[stage], work.keys[_NEEDS[stage]])
        if work.run.begin(stage, key):
            with work.run.timed(stage), enough_memory(work.config, stage):
                STAGES[stage](work)
            work.run.finish(stage, key)


def run_experiment(
    experiment: Experiment,
    out: Path,
    progress: Progress | None = None,
    trained: Path | None = None,
) -> RunDirectory:
    """Do all stages, or what is left of them.

    Parameters
    ----------
    experiment : Experiment
    out : Path
        Output folder; the same folder again continues.
    trained : Path, optional
        See :class:`Workspace`.

    Returns
    -------
    RunDirectory

    Raises
    ------
    CalcarineError
        If another process works in the folder, or the experiment cannot be run.
    """
    from calcarine.experiment.scoring import missing_networks

    # An unknown protocol and missing weights are told before hours of work.
    lacking = missing_networks(experiment, out)
    if lacking is not None:
        (progress or Progress()).say(lacking)
    # Networks that several runs share are trained by one of them at a time.
    shared = nullcontext() if trained is None else folder_lock(trained)
    with opened_run(out, experiment) as run, shared:
        work = Workspace(run, progress, trained)
        for stage in STAGES:
            if stage in work.keys:
                run_stage(work, stage)
        return run


def _write_json(file: Path, content: Any) -> None:
    import json

    write_text(file, json.dumps(content, indent=2))
