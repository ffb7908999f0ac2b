"""The stages of a run; each reads what the one before wrote."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calcarine import datasets
from calcarine.datasets import BrainDataset, Split
from calcarine.datasets.splits.files import find_split
from calcarine.decoding import (
    LatentRegression,
    PixelRegression,
    Reconstructor,
    choose_settings,
)
from calcarine.diffusion import LatentDiffusion, torch_dtype
from calcarine.errors import CalcarineError
from calcarine.evaluation.evaluate import read_evaluation
from calcarine.evaluation.networks import judge_digest
from calcarine.experiment.config import Experiment
from calcarine.experiment.progress import Progress
from calcarine.experiment.raw_sessions import without_session_scaling
from calcarine.experiment.run_directory import (
    RunDirectory,
    content_key,
    environment,
    readable,
)
from calcarine.features import FeatureStore, text_conditioning, visual_latent
from calcarine.features.latents import source_digests
from calcarine.files import write_text, written_aside

_SEARCH_USES = ("model", "seed", "through_image")


class Workspace:
    """What the stages of one run share; loaded when first asked for."""

    def __init__(self, run: RunDirectory, progress: Progress | None = None) -> None:
        self.run = run
        self.config: Experiment = run.experiment
        self.progress = progress or Progress()

    @cached_property
    def dataset(self) -> BrainDataset:
        config = self.config.dataset
        self.progress.say(f"Reading the data set {config.name}")
        data = Path(config.data) if config.data else None
        found = datasets.load(config.name, data, config.subject, **config.options)
        return found if config.zscore_sessions else without_session_scaling(found)

    @cached_property
    def model(self) -> LatentDiffusion:
        config = self.config.generation
        return LatentDiffusion.from_pretrained(
            config.model,
            dtype=torch_dtype(config.precision),
            autoencoder=config.autoencoder,
            tokenizer=config.tokenizer,
        )

    @cached_property
    def latent_size(self) -> int:
        """Side in pixels at which z is made; of Stable Diffusion v1, the 320 of the paper."""
        own = self.model.image_size
        return self.config.generation.latent_size or (320 if own == 512 else own)

    @cached_property
    def splits(self) -> tuple[Split, ...]:
        """One that the configuration names, or those of the data set."""
        config = self.config.dataset
        if config.split is not None:
            if config.folds is not None:
                raise CalcarineError(
                    "dataset.folds counts the splits of the data set itself; leave it out beside "
                    "dataset.split."
                )
            return (find_split(self.dataset, config.split),)
        found = self.dataset.splits
        return found[: config.folds] if config.folds else found

    @cached_property
    def store(self) -> FeatureStore:
        return FeatureStore(self.run.path / "features")

    @cached_property
    def roi(self) -> dict[str, str]:
        """Regions for z, c and pixels; one region serves all where there is only one."""
        config, known = self.config.roi, set(self.dataset.rois)
        z = config.z or ("early" if "early" in known else "all")
        c = config.c or ("ventral" if "ventral" in known else z)
        chosen = {"z": z, "c": c, "pixels": config.pixels or z}
        for name in chosen.values():
            self.dataset.roi_mask(name)
        return chosen

    @cached_property
    def alphas(self) -> NDArray[np.float64]:
        ridge = self.config.ridge
        if ridge.alphas is not None:
            return np.sort(np.asarray(ridge.alphas, np.float64))
        return np.logspace(ridge.alpha_min, ridge.alpha_max, ridge.n_alphas)

    @property
    def ridge_options(self) -> dict[str, Any]:
        """What all decoders are fitted with."""
        ridge = self.config.ridge
        return {
            "alphas": self.alphas,
            "n_folds": ridge.n_folds,
            "intercept": ridge.intercept,
            "grouped": ridge.grouped,
        }

    @cached_property
    def z(self) -> NDArray[np.float32]:
        with self.progress.track("Latents z", len(self.dataset.stimuli)) as advance:
            config = self.config.features
            return visual_latent(
                self.store,
                self.model,
                self.dataset.stimuli,
                self.latent_size,
                advance,
                posterior=config.posterior,
                picture=config.picture,
                resize=config.resize,
                seed=self.config.generation.seed,
            )

    @cached_property
    def c(self) -> NDArray[np.float32]:
        with self.progress.track("Text conditioning c", len(self.dataset.stimuli)) as advance:
            return text_conditioning(
                self.store,
                self.model,
                self.dataset.stimuli,
                advance,
                text=self.config.features.text,
            )

    @property
    def searches(self) -> bool:
        """Whether strength and guidance are chosen inside the training data."""
        search = self.config.generation.search
        enough = min(len(split.train) for split in self.splits) >= 2 * search.n_stimuli
        if search.when == "auto":
            return enough and len(self.splits) > 1
        return search.when == "always"

    # A stage's key holds its settings and the key of the stage before.

    @cached_property
    def keys(self) -> dict[str, str]:
        config, generation = self.config, self.config.generation.model_dump(mode="json")
        generation.pop("batch_size")
        search = generation.pop("search")
        if len({stimulus for split in self.splits for stimulus in split.test}) < 2:
            raise CalcarineError(
                "There are fewer than two test stimuli, too few to score; use more test stimuli "
                "or more folds (dataset.folds)."
            )
        data, roi = self.dataset.digest(), self.roi  # mistakes in the data before the slow model
        made_of = config.features.model_dump(mode="json")
        made_of |= source_digests(
            self.dataset.stimuli, config.features.picture, config.features.text
        )
        if config.features.posterior == "sample":
            made_of["seed"] = config.generation.seed
        features = content_key("features", data, self.model.digest, self.latent_size, made_of)
        fit = content_key(
            "fit",
            features,
            roi,
            config.ridge.model_dump(),
            [split.digest() for split in self.splits],
            (search, {k: generation[k] for k in _SEARCH_USES}) if self.searches else None,
            config.evaluation.direct_ridge,
        )
        evaluation = config.evaluation.model_dump(mode="json")
        parts = {"ceilings": evaluation.pop("ceilings"), "n": evaluation.pop("ceiling_samples")}
        reconstruct = content_key("reconstruct", fit, generation, parts)
        judge = self.dataset.judge
        evaluate = content_key(
            "evaluate", reconstruct, evaluation, judge_digest(judge) if judge else None
        )
        encode = content_key(
            "encode", features, config.encoding.model_dump(mode="json"),
            {k: generation[k] for k in ("strength", "guidance", "steps", "seed")},
            config.ridge.model_dump(), [split.digest() for split in self.splits],
        )  # fmt: skip
        return {
            "features": features,
            "encode": encode,
            "fit": fit,
            "reconstruct": reconstruct,
            "evaluate": evaluate,
            "report": content_key("report", evaluate),
        }


def features(work: Workspace) -> None:
    """Extract z and c of all stimuli."""
    # c first: it says at once if captions are missing, and z of many pictures takes long.
    _ = work.c, work.z


def fit(work: Workspace) -> None:
    """Fit the decoders of every fold, predict its test stimuli, choose its settings."""
    config = work.config
    z, c = work.z, work.c
    with work.progress.track("Decoders", len(work.splits)) as advance:
        for split in work.splits:
            folder = work.run.decoder / split.name
            if not (folder / "predictions.safetensors").exists():
                _fit_fold(work, split, z, c, folder)
            advance(1)
    if not work.searches:
        return
    search = config.generation.search
    pairs = len(search.strengths) * len(search.guidances)
    total = pairs * search.n_stimuli * len(work.splits)
    with work.progress.track("Choosing settings", total) as advance:
        for split in work.splits:
            file = work.run.decoder / split.name / "settings.json"
            if file.exists():
                advance(pairs * search.n_stimuli)
                continue
            chosen = choose_settings(
                _reconstructor(work, steps=search.steps),
                LatentRegression(work.roi["z"], work.roi["c"], **work.ridge_options),
                work.dataset,
                split,
                z,
                c,
                search.strengths,
                search.guidances,
                search.n_stimuli,
                config.generation.seed,
                advance,
            )
            _write_json(file, chosen.to_json())


def _fit_fold(
    work: Workspace, split: Split, z: NDArray[Any], c: NDArray[Any], folder: Path
) -> None:
    from safetensors.numpy import save_file

    regression = LatentRegression(work.roi["z"], work.roi["c"], **work.ridge_options)
    regression.fit(work.dataset, split, z, c).save(folder)
    found = regression.predict(work.dataset, split)
    predicted: dict[str, NDArray[Any]] = {k: np.ascontiguousarray(v) for k, v in found.items()}
    summary = {name: asdict(value) for name, value in regression.summary_.items()}
    if work.config.evaluation.direct_ridge:
        pixels = PixelRegression(work.roi["pixels"], **work.ridge_options)
        pixels.fit(work.dataset, split)
        predicted["direct"] = pixels.predict(work.dataset, split)
        summary["direct ridge"] = asdict(pixels.summary_)
    predicted["reliability_z"] = regression.reliability("z")
    _write_json(folder / "summary.json", summary)
    with written_aside(folder / "predictions.safetensors") as aside:
        save_file(predicted, aside)


def _reconstructor(work: Workspace, **changes: Any) -> Reconstructor:
    generation = work.config.generation
    options: dict[str, Any] = {
        "strength": generation.strength,
        "guidance": generation.guidance,
        "steps": generation.steps,
        "seed": generation.seed,
        "through_image": generation.through_image,
        "resize": work.config.features.resize,
        "posterior": work.config.features.posterior,
        "batch_size": generation.batch_size,
    }
    return Reconstructor(work.model, **{**options, **changes})


def reconstruct(work: Workspace) -> None:
    """Make the pictures of every fold, method and sample."""
    from calcarine.experiment.pictures import make_pictures

    make_pictures(work, _reconstructor)


def evaluate(work: Workspace) -> None:
    """Score all pictures with floors and ceilings."""
    from calcarine.experiment.scoring import score_pictures

    work.run.require("reconstruct", work.keys["reconstruct"])
    score_pictures(work)


def report(work: Workspace) -> None:
    """Write report.html."""
    from calcarine.reporting import build_report

    work.run.require("evaluate", work.keys["evaluate"])
    _describe(work)
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
    "reconstruct": reconstruct,
    "evaluate": evaluate,
    "report": report,
}


def run_stage(work: Workspace, stage: str) -> None:
    """Do one stage, or what is left of it."""
    if stage not in STAGES:
        raise CalcarineError(f"There is no stage '{stage}'; there are: {', '.join(STAGES)}.")
    key = work.keys[stage]
    if work.run.begin(stage, key):
        with work.run.timed(stage):
            STAGES[stage](work)
        work.run.finish(stage, key)


def run_experiment(
    experiment: Experiment, out: Path, progress: Progress | None = None
) -> RunDirectory:
    """Do all stages, or what is left of them.

    Parameters
    ----------
    experiment : Experiment
    out : Path
        Output folder; the same folder again continues.

    Returns
    -------
    RunDirectory
    """
    run = RunDirectory(out, experiment)
    work = Workspace(run, progress)
    for stage in STAGES:
        if stage != "encode" or experiment.encoding.when == "always":
            run_stage(work, stage)
    return run


def _describe(work: Workspace) -> None:
    """Write into the manifest what a reader must know of data, model and decoders."""
    import json

    dataset, run = work.dataset, work.run
    chosen, decoder = {}, {}
    for split in work.splits:
        folder = run.decoder / split.name
        with readable(folder, "fit"):
            if (folder / "settings.json").exists():
                found = json.loads((folder / "settings.json").read_text())
                chosen[split.name] = {k: found[k] for k in ("strength", "guidance")}
            decoder[split.name] = json.loads((folder / "summary.json").read_text())
    info = datasets.info(dataset.name)
    told = read_evaluation(run.metrics).notes
    repeats = np.unique(dataset.responses["stimulus"].values, return_counts=True)[1]
    notes = sorted(
        {f"{t}: {s[t]['warning']}" for s in decoder.values() for t in s if s[t]["warning"]}
    )
    run.update_manifest(
        **environment(),
        seeds={
            "generation": work.config.generation.seed,
            "evaluation": work.config.evaluation.seed,
        },
        digests={"dataset": dataset.digest(), "model": work.model.digest},
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
            **_chosen_split(work),
        },
        roi=work.roi,
        notes=notes + told,
        chosen=chosen,
        decoder=decoder,
    )


def _chosen_split(work: Workspace) -> dict[str, Any]:
    """Name, rule and hash of a split that the configuration names; a copy stays with the run."""
    if work.config.dataset.split is None:
        return {}
    (split,) = work.splits
    split.save(work.run.path / "splits" / f"{split.name}.json")
    found = {"name": split.name, "rule": split.rule, "seed": split.seed, "sha256": split.digest()}
    return {"split": found}


def _write_json(file: Path, content: Any) -> None:
    import json

    write_text(file, json.dumps(content, indent=2))
