"""Values that a run decided where its settings leave them open."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from calcarine.experiment.run_directory import readable
from calcarine.experiment.stage import PHASES
from calcarine.files import read_json

if TYPE_CHECKING:
    from calcarine.experiment.config import RidgeConfig
    from calcarine.experiment.workspace import Workspace
    from calcarine.training import TrainingConfig

__all__ = ["resolved_settings"]


def resolved_settings(
    work: Workspace, chosen: Mapping[str, Mapping[str, float]]
) -> dict[str, dict[str, Any]]:
    """Return the settings whose values the run decided, by section and name.

    Parameters
    ----------
    work : Workspace
        Workspace of a finished run.
    chosen : mapping of str to mapping of str to float
        Strength and guidance that were chosen inside the training data, by split.

    Returns
    -------
    dict of str to dict
        In the form of the settings; those that the run used as they are set are left out.
    """
    config = work.config
    names = [split.name for split in work.splits]
    dataset: dict[str, Any] = {"subject": work.dataset.subject, "folds": len(names)}
    if config.dataset.split is None:
        dataset["split"] = _listed(names)
    if config.dataset.data is None:
        dataset["data"] = "none: simulated" if work.dataset.simulated else "none"
    resolved = {
        "dataset": dataset,
        "compute": _compute(work),
        "roi": dict(work.roi),
        "generation": _generation(work, chosen),
        "ridge": _penalties(config.ridge),
    }
    if config.evaluation.weights is None:
        resolved["evaluation"] = {"weights": "the caches of torch and Hugging Face"}
    if config.encoding.enabled and config.encoding.blocks is None:
        from calcarine.experiment.encoding_maps import blocks_of

        resolved["encoding"] = {"blocks": list(blocks_of(work))}
    if config.visdec.enabled:
        resolved["visdec"] = _visdec(work)
    return resolved


def _compute(work: Workspace) -> dict[str, Any]:
    config = work.config.compute
    used = work.run.manifest().get("devices", {}).values()
    resolved: dict[str, Any] = {}
    if config.device != "cpu":
        resolved["device"] = ", ".join(dict.fromkeys(used)) or work.compute.device_name
    if config.precision == "auto":
        resolved["precision"] = work.compute.precision
    if config.store is None:
        resolved["store"] = "none: the run's own"
    return resolved


def _visdec(work: Workspace) -> dict[str, Any]:
    config = work.config
    visdec = config.visdec
    resolved: dict[str, Any] = {
        name: {"start": "none: from random weights"}
        for name, phase in (("pretrain", visdec.pretrain), ("finetune", visdec.finetune))
        if phase.enabled and phase.start is None
    }
    if visdec.model is None:
        resolved["model"] = config.generation.model
    for name in PHASES:
        phase = getattr(visdec, name)
        if phase.enabled:
            resolved.setdefault(name, {})["training"] = _length(work, name, phase.training)
    return resolved


def _length(work: Workspace, phase: str, training: TrainingConfig) -> dict[str, Any]:
    """Return the steps of a training in epochs, or that its length is in steps."""
    from calcarine.experiment.visdec_training import training_folder

    if training.epochs is None:
        return {"epochs": "none: length in steps"}
    lengths: dict[str, set[int]] = {"steps": set(), "warmup_steps": set()}
    for split in work.splits:
        folder = training_folder(work, phase, split)
        with readable(folder, phase):
            about = read_json(folder / "training.json")["config"]
            for name, numbers in lengths.items():
                numbers.add(int(about[name]))
    return {
        name: f"{' to '.join(str(n) for n in sorted({min(numbers), max(numbers)}))} (from epochs)"
        for name, numbers in lengths.items()
    }


def _generation(work: Workspace, chosen: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    config = work.config
    resolved: dict[str, Any] = {
        name: "the model's own"
        for name in ("autoencoder", "tokenizer")
        if getattr(config.generation, name) is None
    }
    if config.makes_latents:
        resolved["latent_size"] = work.latent_size
        resolved["guidance_rescale"] = work.described_model.guidance_rescale
    elif config.visdec.enabled:
        resolved["guidance_rescale"] = work.described_generator.guidance_rescale
    if not work.chooses_settings:
        return resolved | {"search": {"enabled": False}}
    resolved["search"] = {"enabled": True}
    for name in ("strength", "guidance"):
        values = sorted({each[name] for each in chosen.values()})
        if values:
            listed = ", ".join(f"{value:g}" for value in values)
            resolved[name] = f"{listed} (chosen in the training data)"
    return resolved


def _penalties(ridge: RidgeConfig) -> dict[str, Any]:
    """Return the penalties of ridge regression, or that their own list replaces their ends."""
    if ridge.alphas is None:
        ends = f"{ridge.alpha_min:g} to {ridge.alpha_max:g}"
        return {"alphas": f"{ridge.n_alphas} from {ends}, evenly spaced in log10"}
    return dict.fromkeys(("alpha_min", "alpha_max", "n_alphas"), "replaced by ridge.alphas")


def _listed(names: list[str]) -> str:
    """Return the names of splits, or the first and the last of many."""
    return ", ".join(names) if len(names) <= 3 else f"{names[0]} to {names[-1]}"
