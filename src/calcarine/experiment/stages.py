"""The list of stages of an experiment.

The command line, the keys and the bookkeeping of a run's folder follow from this list. What a
stage imports to do its work waits until it runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from calcarine.errors import SettingError
from calcarine.experiment import keys
from calcarine.experiment.stage import Stage

if TYPE_CHECKING:
    from calcarine.experiment.workspace import Workspace

__all__ = ["STAGES", "check_experiment", "run_keys"]


def _features(work: Workspace) -> None:
    if work.config.makes_latents:
        # c first: missing captions are noticed at once, and z of many pictures takes long.
        _ = work.c, work.z


def _encode(work: Workspace) -> None:
    from calcarine.experiment.encoding_maps import encode_voxels
    from calcarine.reporting.encoding_report import build_encoding_report

    encode_voxels(work)
    build_encoding_report(work.run.path)


def _share_encoding(work: Workspace) -> None:
    from calcarine.experiment.encoding_maps import share_encoding

    share_encoding(work)


def _fit(work: Workspace) -> None:
    from calcarine.experiment.decoders import fit_decoders

    fit_decoders(work)


def _share_fits(work: Workspace) -> None:
    from calcarine.experiment.decoders import share_decoders

    share_decoders(work)


def _check_fit(work: Workspace) -> None:
    from calcarine.diffusion.samplers import check_steps

    generation = work.config.generation
    if work.chooses_settings:
        for steps in (generation.search.steps, generation.steps):
            for strength in generation.search.strengths:
                check_steps(steps, strength, "generation.search.strengths")


def _pretrain(work: Workspace) -> None:
    from calcarine.experiment.visdec_training import run_pretraining

    run_pretraining(work)


def _check_pretrain(work: Workspace) -> None:
    from calcarine.experiment.pretraining_pool import check_pools

    check_pools(work)


def _guide(work: Workspace) -> None:
    from calcarine.experiment.visdec_training import run_guiding

    run_guiding(work)


def _finetune(work: Workspace) -> None:
    from calcarine.experiment.visdec_training import run_finetuning

    run_finetuning(work)


def _check_finetune(work: Workspace) -> None:
    from calcarine.visdec.phases import check_text

    settings = work.config.visdec.finetune
    if settings.aligned:
        check_text(work.generator, settings.loss.tokens)


def _reconstruct(work: Workspace) -> None:
    from calcarine.experiment.reconstructions import make_pictures

    make_pictures(work)


def _share_pictures(work: Workspace) -> None:
    from calcarine.experiment.reconstructions import share_pictures

    share_pictures(work)


def _evaluate(work: Workspace) -> None:
    from calcarine.experiment.scoring import score_pictures

    score_pictures(work)


def _share_scores(work: Workspace) -> None:
    from calcarine.experiment.scoring import share_scores

    share_scores(work)


def _audit(work: Workspace) -> None:
    from calcarine.audit import audit
    from calcarine.experiment.run_audit_inputs import inputs_from_run
    from calcarine.reporting.audit_page import build_audit_page

    with work.progress.track("Audit", 1) as advance:
        build_audit_page(audit(inputs_from_run(work)), work.run.path / "audit.html")
        advance(1)


def _retrieve(work: Workspace) -> None:
    from calcarine.experiment.run_retrieval import retrieve_stimuli

    retrieve_stimuli(work)


def _share_retrieval(work: Workspace) -> None:
    from calcarine.experiment.run_retrieval import share_retrieval

    share_retrieval(work)


def _report(work: Workspace) -> None:
    from calcarine.experiment.manifest import write_manifest
    from calcarine.experiment.reconstructions import finished_pictures
    from calcarine.reporting import build_report

    finished_pictures(work)
    write_manifest(work)
    build_report(work.run.path)


_AUDIT = Stage(
    name="audit",
    title="Check whether the scores of a run are real: audit.html and audit.json.",
    run=_audit,
    key=keys.audit_key,
    enabled=lambda config: config.evaluation.audit,
    switches=("evaluation.audit=true",),
    needs=("evaluate",),
    outputs=("audit.html", "audit.json"),
    batches=False,
    generates=False,
)

_ALL = (
    Stage(
        name="features",
        title="Extract z and c of all stimuli of a run.",
        run=_features,
        share=_features,
        key=keys.features_key,
    ),
    Stage(
        name="fit",
        title="Fit the decoders of a run.",
        run=_fit,
        share=_share_fits,
        key=keys.fit_key,
        outputs=("decoder",),
        check=_check_fit,
    ),
    Stage(
        name="pretrain",
        title="Vis-Dec, first phase: contrastive masked pre-training on fMRI without labels.",
        run=_pretrain,
        key=keys.pretrain_key,
        enabled=lambda config: config.visdec.runs("pretrain"),
        switches=("visdec.enabled=true", "visdec.pretrain.enabled=true"),
        check=_check_pretrain,
        memory="visdec.pretrain.training",
    ),
    Stage(
        name="guide",
        title="Vis-Dec, second phase: pictures guide the fMRI encoder.",
        run=_guide,
        key=keys.guide_key,
        enabled=lambda config: config.visdec.runs("guide"),
        switches=("visdec.enabled=true", "visdec.guide.enabled=true"),
        needs=("pretrain",),
        memory="visdec.guide.training",
    ),
    Stage(
        name="finetune",
        title="Vis-Dec, third phase: the fMRI encoder conditions the diffusion model.",
        run=_finetune,
        key=keys.finetune_key,
        enabled=lambda config: config.visdec.runs("finetune"),
        switches=("visdec.enabled=true",),
        needs=("pretrain", "guide"),
        check=_check_finetune,
        memory="visdec.finetune.training",
    ),
    Stage(
        name="reconstruct",
        title="Make the pictures of a run.",
        run=_reconstruct,
        share=_share_pictures,
        key=keys.reconstruct_key,
        needs=("fit", "finetune"),
        outputs=("reconstructions",),
    ),
    Stage(
        name="evaluate",
        title="Score the pictures of a run.",
        run=_evaluate,
        share=_share_scores,
        key=keys.evaluate_key,
        needs=("fit", "reconstruct"),
        outputs=("metrics", "bottleneck/curve.json"),
        # The report would show an audit of the old scores.
        also_stale=(_AUDIT,),
        batches=False,
        generates=False,
    ),
    _AUDIT,
    Stage(
        name="retrieve",
        title="Decode features of stimuli in a run, and retrieve the stimuli by them.",
        run=_retrieve,
        share=_share_retrieval,
        key=keys.retrieve_key,
        enabled=lambda config: bool(config.embeddings.targets),
        switches=("'embeddings.targets=[{name: NAME, space: SPACE, roi: REGION}]'",),
        outputs=("retrieval",),
    ),
    Stage(
        name="report",
        title="Write the report of a run.",
        run=_report,
        key=keys.report_key,
        needs=("evaluate", "retrieve"),
        outputs=("figures", "report.html"),
        batches=False,
        networks=False,
        generates=False,
    ),
    # Last: it takes longer than everything before it, and nothing before it waits for it.
    Stage(
        name="encode",
        title="Map which parts of the diffusion model predict which voxels.",
        run=_encode,
        share=_share_encoding,
        key=keys.encode_key,
        enabled=lambda config: config.encoding.enabled,
        switches=("encoding.enabled=true",),
        outputs=("encoding", "encoding.html"),
        on_demand=True,
    ),
)

STAGES: dict[str, Stage] = {stage.name: stage for stage in _ALL}
"""Every stage by its name, in the order in which they run."""


def run_keys(work: Workspace) -> dict[str, str]:
    """Return the keys of all enabled stages of a run.

    Parameters
    ----------
    work : Workspace

    Returns
    -------
    dict of str to str
    """
    return keys.stage_keys(STAGES.values(), work.config, work.digests)


def check_experiment(work: Workspace) -> None:
    """Refuse settings that cannot be carried out, before the first stage runs.

    Parameters
    ----------
    work : Workspace

    Raises
    ------
    CalcarineError
        If the device is missing, the store cannot be made, there are too few test stimuli, a
        region is unknown, or a stage refuses its settings.
    """
    # A device or a folder that is missing, before the data are read.
    _ = work.compute, work.store
    if len({stimulus for split in work.splits for stimulus in split.test}) < 2:
        raise SettingError(
            "There are fewer than two test stimuli, too few to score; use more test stimuli "
            "or more folds (dataset.folds)."
        )
    _ = work.roi  # mistakes in the data before the slow model
    for stage in STAGES.values():
        if stage.enabled(work.config):
            stage.check(work)
