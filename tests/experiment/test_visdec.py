"""Vis-Dec from unlabelled vectors to scores, on tiny networks."""

from __future__ import annotations

import dataclasses
import json
import runpy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from calcarine.datasets import registry
from calcarine.diffusion import LatentDiffusion, random_class_conditional
from calcarine.errors import CalcarineError, LeakageError
from calcarine.evaluation.protocols.catalogue import find_protocol
from calcarine.experiment import load_experiment, run_experiment, run_stage
from calcarine.experiment import visdec_training as visdec
from calcarine.experiment.ablation import run_ablation
from calcarine.experiment.ablation_rows import product_rows
from calcarine.experiment.held_out_stimuli import training_trials, validation_notes
from calcarine.experiment.keys import training_key
from calcarine.experiment.manifest import pretrained_on_test
from calcarine.experiment.progress import Progress
from calcarine.experiment.resolved_settings import resolved_settings
from calcarine.experiment.run_directory import RunDirectory
from calcarine.experiment.stages import check_experiment, run_keys
from calcarine.experiment.visdec_weights import starting_weights
from calcarine.experiment.workspace import Workspace
from calcarine.visdec.brain_conditioning import BrainConditioning
from calcarine.visdec.encoder_storage import load_encoder
from calcarine.visdec.fmri_autoencoder import AutoencoderConfig
from calcarine.visdec.image_autoencoder import new_image_autoencoder


@pytest.fixture(scope="module")
def image_network(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("vit-mae")
    new_image_autoencoder(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=32,
        patch_size=8,
        decoder_hidden_size=16,
        decoder_num_hidden_layers=1,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=16,
    ).model.save_pretrained(folder)
    return folder


def settings(model, image_network, *more):
    options = {
        "n_train": 24,
        "n_test": 6,
        "n_sessions": 2,
        "n_early": 40,
        "n_ventral": 40,
        "n_other": 10,
        "n_repeats": 2,
    }
    phases = [
        f"visdec.{phase}.training.{key}={value}"
        for phase in ("pretrain", "guide", "finetune")
        for key, value in {"steps": 3, "batch_size": 8, "warmup_steps": 1}.items()
    ]
    encoder = {
        "patch": 16,
        "dim": 16,
        "depth": 1,
        "heads": 2,
        "decoder_dim": 16,
        "decoder_depth": 1,
        "decoder_heads": 2,
    }
    return [
        *(f"dataset.options.{key}={value}" for key, value in options.items()),
        f"generation.model={model}",
        "generation.samples=1",
        "generation.steps=2",
        "evaluation.n_boot=100",
        "evaluation.n_permutations=100",
        f"visdec.guide.image_autoencoder={image_network}",
        "visdec.guide.loss.layers=2",
        "visdec.pretrain.pool=[own, {source: rest, n: 120}]",
        "visdec.finetune.steps=2",
        *(f"visdec.encoder.{key}={value}" for key, value in encoder.items()),
        *phases,
        *more,
    ]


def experiment(model, image_network, *more):
    return load_experiment("visdec-mini", None, settings(model, image_network, *more))


@pytest.fixture(scope="module")
def finished(tiny_stable_diffusion, image_network, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "visdec"
    return run_experiment(experiment(tiny_stable_diffusion, image_network), out)


def place(run, phase):
    (folder,) = (run.path / "networks").glob(f"{phase}-*/shared")
    return folder


def weights(run, phase):
    name = "conditioning" if phase == "finetune" else "weights"
    return load_file(place(run, phase) / f"{name}.safetensors")


def test_one_table_holds_both_systems_and_their_floors(finished):
    records = json.loads((finished.metrics / "summary.json").read_text())
    methods = {row["method"] for row in records}
    assert {"vis-dec", "z", "c", "z_c", "direct ridge", "training mean"} <= methods
    pools = {row["pool"] for row in records if row["metric"] == "10-way top-1"}
    assert len(pools) == 1
    manifest = finished.manifest()
    assert {"pretrain", "guide", "finetune"} <= set(manifest["times"])
    index = pd.read_parquet(finished.reconstructions / "index.parquet")
    assert (index["method"] == "vis-dec").sum() == 6 * 2
    page = (finished.path / "report.html").read_text()
    assert "vis-dec" in page
    assert "Transductive:" not in page
    assert "learned from the text of training stimuli" in page and "to strength 0.8" in page


def test_training_is_written_as_safetensors_and_json_alone(finished):
    kinds = {file.suffix for file in (finished.path / "networks").rglob("*") if file.is_file()}
    assert kinds <= {".safetensors", ".json", ".csv"}


def with_other_test_responses(dataset):
    """The data set with every test trial replaced by noise, and scaled by other test trials."""
    split = dataset.splits[0]
    responses = dataset.responses.copy(deep=True)
    rows = dataset.trials_of(split.test)
    noise = np.random.default_rng(1).standard_normal((len(rows), dataset.n_voxels))
    responses[rows] = 5 * noise + 3
    return dataclasses.replace(dataset, responses=responses)


def test_no_test_response_reaches_a_phase(finished, tmp_path):
    run = RunDirectory(tmp_path / "again", finished.experiment)
    work = Workspace(run)
    before = work.dataset
    work.__dict__["dataset"] = with_other_test_responses(before)
    assert work.dataset.digest() != before.digest()
    for stage in ("pretrain", "guide", "finetune"):
        run_stage(work, stage)
        first, second = weights(finished, stage), weights(run, stage)
        assert set(first) == set(second)
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_scale_of_responses_does_not_matter(finished, tmp_path):
    """Measured data come in any unit; voxels are scaled by their training trials."""
    run = RunDirectory(tmp_path / "again", finished.experiment)
    work = Workspace(run)
    factors = np.logspace(-3, 3, work.dataset.n_voxels)
    responses = work.dataset.responses * factors + 7 * factors
    work.__dict__["dataset"] = dataclasses.replace(work.dataset, responses=responses, scaling=None)
    for stage in ("pretrain", "guide", "finetune"):
        run_stage(work, stage)
    split = work.splits[0]
    told = [
        visdec.load_conditioning(w, split).condition(w.dataset.test(split).data)
        for w in (work, Workspace(finished))
    ]
    assert told[0].keys() == {"context", "time", "latent"}
    for name, value in told[0].items():
        np.testing.assert_allclose(value, told[1][name], atol=2e-3)


def test_sampling_below_strength_1_begins_from_the_told_latent(finished, tiny_stable_diffusion):
    trained = BrainConditioning.load(place(finished, "finetune"))
    model = LatentDiffusion.from_pretrained(tiny_stable_diffusion)
    responses = np.random.default_rng(0).standard_normal((3, 90)).astype(np.float32)
    told = model.decode(trained.condition(responses)["latent"])
    keys = [("a", 0), ("b", 0), ("c", 0)]
    away = [
        np.abs(trained.generate(model, responses, keys, strength=s, steps=50, seed=1) - told).mean()
        for s in (0.02, 0.5, 1.0)
    ]
    assert away[0] < 0.5 * away[1] < away[2]
    trained.conditioner.latent = None
    with pytest.raises(CalcarineError, match="predicts none"):
        trained.generate(model, responses, keys, strength=0.5, steps=2)


def test_latents_and_contexts_of_test_stimuli_reach_no_phase(finished, tmp_path):
    run = RunDirectory(tmp_path / "again", finished.experiment)
    work = Workspace(run)
    for name in ("generator_latents", "generator_contexts"):
        values = getattr(work, name).copy()
        values[work.dataset.stimuli.rows(work.splits[0].test)] = np.nan
        work.__dict__[name] = values
    for stage in ("pretrain", "guide", "finetune"):
        run_stage(work, stage)
    first, second = weights(finished, "finetune"), weights(run, "finetune")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_weights_of_each_patch_fit_only_the_same_voxels(
    finished, tiny_stable_diffusion, image_network, tmp_path
):
    encoder = place(finished, "guide") / "encoder"
    begin = (f"visdec.pretrain.start={encoder}", "visdec.pretrain.enabled=false")
    for change, told in [
        ("visdec.encoder.embedding=shared", "is shared; set it to own"),
        ("visdec.roi=early", "for the roi all and not early"),
        ("dataset.subject=subj02", "for the subject subj01 and not subj02"),
    ]:
        wanted = experiment(tiny_stable_diffusion, image_network, *begin, change)
        work = Workspace(RunDirectory(tmp_path / change, wanted))
        with pytest.raises(CalcarineError, match=told):
            run_stage(work, "guide")


def test_rest_of_another_subject_is_refused_where_patches_have_own_weights(
    tiny_stable_diffusion, image_network, tmp_path
):
    pool = "visdec.pretrain.pool=[{source: rest, n: 120, subject: subj02}]"
    wanted = experiment(tiny_stable_diffusion, image_network, pool)
    with pytest.raises(CalcarineError, match="has voxels of subj02"):
        run_stage(Workspace(RunDirectory(tmp_path / "run", wanted)), "pretrain")


def test_the_text_counts_where_conditions_are_aligned_with_it(
    tiny_stable_diffusion, image_network, tmp_path
):
    def key(*changes):
        wanted = experiment(tiny_stable_diffusion, image_network, "ridge.enabled=false", *changes)
        work = Workspace(RunDirectory(tmp_path / "-".join(changes), wanted))
        check_experiment(work)
        return training_key(work.config, work.digests, "finetune")

    other = "features.text=categories"
    assert key() != key(other)
    alone = "visdec.finetune.loss.align=0"
    assert key(alone) == key(alone, other)
    with pytest.raises(CalcarineError, match="of 5 tokens cannot be aligned"):
        key("visdec.finetune.loss.tokens=5")


class Interrupted(Progress):
    """Stops after a number of steps of any kind."""

    def __init__(self, after):
        self.left = after

    def track(self, label, total):
        from contextlib import contextmanager

        @contextmanager
        def bar():
            def advance(count):
                self.left -= count
                if self.left < 0:
                    raise KeyboardInterrupt

            yield advance

        return bar()


def test_an_interrupted_run_ends_with_the_same_numbers(finished, tmp_path):
    out = tmp_path / "again"
    for after in (62, 4):  # in the first phase, then in the second
        with pytest.raises(KeyboardInterrupt):
            run_experiment(finished.experiment, out, Interrupted(after))
    again = run_experiment(finished.experiment, out)
    for phase in ("pretrain", "guide", "finetune"):
        first, second = weights(finished, phase), weights(again, phase)
        assert all(torch.equal(first[name], second[name]) for name in first)
    assert (again.metrics / "summary.json").read_text() == (
        finished.metrics / "summary.json"
    ).read_text()


@pytest.mark.parametrize(
    ("setting", "changed"),
    [
        ("visdec.roi=early", {"pretrain", "guide", "finetune"}),
        ("visdec.encoder.depth=2", {"pretrain", "guide", "finetune"}),
        ("visdec.pretrain.loss.temperature=0.2", {"pretrain", "guide", "finetune"}),
        ("visdec.guide.loss.direction=code", {"guide", "finetune"}),
        ("visdec.guide.training.seed=1", {"guide", "finetune"}),
        ("features.resize=lanczos", {"finetune"}),
        ("visdec.finetune.loss.begin=random", {"finetune"}),
        ("visdec.finetune.guidance=3", set()),
        ("visdec.finetune.training.save_every_steps=1", set()),
    ],
)
def test_a_setting_changes_the_trainings_that_depend_on_it(
    finished, tiny_stable_diffusion, image_network, tmp_path, setting, changed
):
    wanted = experiment(tiny_stable_diffusion, image_network, setting)
    keys = run_keys(Workspace(RunDirectory(tmp_path / "run", wanted)))
    old = run_keys(Workspace(finished))
    phases = ("pretrain", "guide", "finetune")
    assert {phase for phase in phases if keys[phase] != old[phase]} == changed


def test_other_image_weights_are_another_guidance(finished, image_network):
    old = run_keys(Workspace(finished))
    file = image_network / "model.safetensors"
    content = file.read_bytes()
    try:
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        new = run_keys(Workspace(finished))
    finally:
        file.write_bytes(content)
    assert new["pretrain"] == old["pretrain"]
    assert new["guide"] != old["guide"]


@pytest.mark.parametrize(
    ("before", "refused"),
    [
        ([{"dataset": "simulated", "subject": "subj01", "trained on": ["a"]}], True),
        ([{"dataset": "simulated", "subject": None}], True),
        ([{"dataset": "simulated", "subject": "subj01", "trained on": ["b"]}], False),
        ([{"dataset": "simulated", "subject": "subj02", "trained on": ["a"]}], False),
        ([{"dataset": "god", "subject": None}], False),
    ],
)
def test_what_weights_met_at_a_remove_counts(finished, before, refused):
    from types import SimpleNamespace

    from calcarine.experiment.visdec_weights import refuse_test_leak

    split = SimpleNamespace(test=("a",), name="shared")
    about = {"dataset": "other", "subject": "S1", "trained on": ["a"], "met before": before}
    if refused:
        with pytest.raises(LeakageError, match="of this subject that are test"):
            refuse_test_leak(Workspace(finished), split, about, Path("there"))
    else:
        refuse_test_leak(Workspace(finished), split, about, Path("there"))


def test_a_chain_of_starts_is_remembered(finished, tiny_stable_diffusion, image_network, tmp_path):
    from calcarine.experiment.manifest import pretrained_on_test
    from calcarine.visdec.encoder_storage import _paths, read_about

    first = place(finished, "pretrain") / "encoder"
    again = experiment(
        tiny_stable_diffusion,
        image_network,
        f"visdec.pretrain.start={first}",
        "visdec.guide.enabled=false",
    )
    work = Workspace(RunDirectory(tmp_path / "second", again))
    run_stage(work, "pretrain")
    second = visdec.training_folder(work, "pretrain", work.splits[0]) / "encoder"
    told = read_about(second)
    assert told["met before"][-1]["trained on"] == read_about(first)["trained on"]
    assert not told["unknown"] and pretrained_on_test(again.visdec) == "no"
    file = _paths(second)[1]
    file.write_text(file.read_text().replace('"unknown": false', '"unknown": true'))
    third = experiment(
        tiny_stable_diffusion,
        image_network,
        f"visdec.pretrain.start={second}",
        "visdec.guide.enabled=false",
    )
    assert pretrained_on_test(third.visdec) == "unknown"


def test_weights_that_met_the_test_responses_are_refused(
    finished, tiny_stable_diffusion, image_network, tmp_path
):
    start = place(finished, "pretrain") / "encoder"
    again = experiment(
        tiny_stable_diffusion,
        image_network,
        f"visdec.pretrain.start={start}",
        "visdec.guide.enabled=false",
    )
    run_stage(Workspace(RunDirectory(tmp_path / "fine", again)), "pretrain")
    work = Workspace(RunDirectory(tmp_path / "other", again))
    split = work.dataset.splits[0]
    turned = dataclasses.replace(
        split, train=(*split.train[6:], *split.test), test=split.train[:6], rule="turned"
    )
    work.__dict__["dataset"] = dataclasses.replace(work.dataset, splits=(turned,))
    with pytest.raises(LeakageError, match="trained on responses of this subject that are test"):
        run_stage(work, "pretrain")


def test_the_audit_knows_what_was_pretrained_on(finished):
    from calcarine.audit import audit
    from calcarine.experiment.run_audit_inputs import inputs_from_run
    from calcarine.experiment.workspace import Workspace

    found = audit(inputs_from_run(Workspace(finished)), ["pretraining-on-test"]).findings
    assert found["pretraining-on-test"].verdict == "passed"
    assert "own, rest" in found["pretraining-on-test"].sentence


def test_the_phases_from_the_command_line(tiny_stable_diffusion, image_network, tmp_path):
    from typer.testing import CliRunner

    from calcarine.cli.main import app

    out, runner = str(tmp_path / "run"), CliRunner()
    given = settings(tiny_stable_diffusion, image_network, "ridge.enabled=false")
    options = [word for setting in given for word in ("--set", setting)]
    first = runner.invoke(app, ["pretrain", "--preset", "visdec-mini", "--out", out, *options])
    assert first.exit_code == 0, first.output
    assert f"calcarine guide {out}" in first.output.replace("\n", " ")
    with pytest.raises(CalcarineError, match="has its own settings"):
        runner.invoke(app, ["pretrain", out, "--subject", "subj02"], catch_exceptions=False)
    with pytest.raises(CalcarineError, match="has not finished 'guide'"):
        runner.invoke(app, ["finetune", out], catch_exceptions=False)
    lines = [line for line in first.output.splitlines() if line.startswith("Weights: ")]
    told = Path("".join(lines).removeprefix("Weights: "))
    assert any(told.glob("*.safetensors")), first.output
    assert runner.invoke(app, ["guide", out]).exit_code == 0
    assert runner.invoke(app, ["finetune", out]).exit_code == 0


def test_test_responses_in_the_pool_are_refused_or_stamped(
    tiny_stable_diffusion, image_network, tmp_path
):
    pool = "visdec.pretrain.pool=[own, test]"
    with pytest.raises(CalcarineError, match="transductive"):
        experiment(tiny_stable_diffusion, image_network, pool)
    allowed = experiment(
        tiny_stable_diffusion,
        image_network,
        pool,
        "visdec.allow_transductive=true",
        "ridge.enabled=false",
        "visdec.guide.enabled=false",
    )
    run = run_experiment(allowed, tmp_path / "run")
    assert "Transductive:" in (run.path / "report.html").read_text()
    assert "guide" not in run.manifest()["times"]


def test_a_class_conditional_model_needs_no_text(image_network, tmp_path, monkeypatch):
    from calcarine.experiment import workspace

    monkeypatch.setattr(workspace, "load_model", lambda *a, **k: random_class_conditional(True))
    given = [
        "visdec.model=model.ckpt",
        "ridge.enabled=false",
        "visdec.finetune.sampler=plms",
        "visdec.finetune.guidance=1",
        "visdec.finetune.samples=1",
        "visdec.pretrain.enabled=false",
        "visdec.guide.enabled=false",
        "visdec.finetune.loss.tokens=5",
    ]
    with pytest.raises(CalcarineError, match="has no text"):
        run_experiment(experiment("nowhere", image_network, *given), tmp_path / "aligned")
    wanted = experiment("nowhere", image_network, *given, "visdec.finetune.loss.align=0")
    run = run_experiment(wanted, tmp_path / "run")
    methods = {row["method"] for row in json.loads((run.metrics / "summary.json").read_text())}
    assert "vis-dec" in methods
    assert "z" not in methods


# Test modules cannot be imported; these write files in the layout of the authors.
NETWORKS = Path(__file__).parents[1] / "visdec"
PUBLISHED = runpy.run_path(str(NETWORKS / "test_published_conditioner.py"))
ENCODER = runpy.run_path(str(NETWORKS / "published_layout.py"))


@pytest.fixture
def tuned(image_network, tmp_path, monkeypatch):
    """A published model of the last phase for 26 voxels, and an experiment that begins from it."""
    from calcarine.experiment import workspace

    monkeypatch.setattr(workspace, "load_model", lambda *a, **k: random_class_conditional(True))
    model = random_class_conditional(True)
    torch.manual_seed(0)
    sizes = model.context_width, model.time_embed_dim
    weights = PUBLISHED["conditioner_in_their_layout"](*sizes)
    weights |= PUBLISHED["LAYOUT"]["original_unet"](model.unet)
    file = tmp_path / "tuned.pth"
    torch.save({"model_state_dict": weights}, file)
    given = [
        "dataset.options.n_other=26",
        "visdec.roi=other",
        "visdec.model=model.ckpt",
        "ridge.enabled=false",
        f"visdec.finetune.start={file}",
        "visdec.pretrain.enabled=false",
        "visdec.guide.enabled=false",
        "visdec.finetune.guidance=1",
        "visdec.finetune.samples=1",
        "visdec.finetune.loss={align: 0, latent: 0}",
        "visdec.finetune.strength=1",
    ]
    return weights, lambda *more: experiment("nowhere", image_network, *given, *more)


def test_a_published_model_of_the_last_phase_is_taken_as_it_is(tuned, tmp_path):
    weights, wanted = tuned
    as_it_is = wanted("visdec.finetune.enabled=false", "visdec.scale=all")
    run = run_experiment(as_it_is, tmp_path / "run")
    assert "it is not known" in (run.path / "report.html").read_text()
    work = Workspace(run)
    (split,) = work.splits
    shown = visdec.training_stimuli(work, split).train
    training = work.dataset.train(split, "other")
    values = training.data[np.isin(training.stimulus_ids, shown)]
    test = work.dataset.test(split, "other").data
    scaled = torch.from_numpy(((test - values.mean()) / values.std()).astype(np.float32))
    found = visdec.load_conditioning(work, split).condition(test)
    expected = PUBLISHED["theirs"](weights, scaled)
    for ours, theirs in zip((found["context"], found["time"]), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_a_published_model_of_the_last_phase_is_trained_on(tuned, tmp_path):
    weights, wanted = tuned
    run = RunDirectory(tmp_path / "run", wanted())
    work = Workspace(run)
    run_stage(work, "finetune")
    trained = visdec.load_conditioning(work, work.splits[0])
    ours = trained.conditioner.to_width.weight
    old = weights["cond_stage_model.dim_mapper.weight"]
    assert 0 < (ours - old).abs().max() < 0.05
    before = dict(random_class_conditional(True).unet.named_parameters())
    assert any(not torch.equal(before[k], v) for k, v in trained.unet_weights.items())
    as_it_is = RunDirectory(tmp_path / "other", wanted("visdec.finetune.enabled=false"))
    assert run_keys(work)["finetune"] != run_keys(Workspace(as_it_is))["finetune"]
    told = "visdec.finetune.loss.latent=1"
    with pytest.raises(CalcarineError, match="predicts no latent"):
        run_stage(Workspace(RunDirectory(tmp_path / "latent", wanted(told))), "finetune")
    other = Workspace(RunDirectory(tmp_path / "early", wanted("visdec.roi=early")))
    with pytest.raises(CalcarineError, match=r"takes 7 patches of 4 .* the responses make 10"):
        run_stage(other, "finetune")


def published_encoder(file, n_patches, learned, **more):
    """Write an autoencoder in the layout of the authors; return its encoder's positions."""
    sizes = {"patch": 16, "dim": 16, "depth": 1, "heads": 16, "hidden": 16}
    decoder = {"decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 16, "decoder_hidden": 16}
    network = ENCODER["random_autoencoder"](n_patches=n_patches, **sizes, **decoder)
    weights = ENCODER["stored"](network)
    if learned:
        weights["pos_embed"] = torch.randn(1, n_patches + 1, 16)
    torch.save({"model": weights | more}, file)
    return weights["pos_embed"]


@pytest.mark.parametrize(
    ("n_patches", "learned"), [(6, False), (6, True), (9, False), (9, True), (4, False)]
)
def test_positions_of_a_published_encoder_in_the_last_phase_are_the_nearest(
    tiny_stable_diffusion, image_network, tmp_path, n_patches, learned
):
    file = tmp_path / "c.pth"
    table = published_encoder(file, n_patches, learned)
    wanted = experiment(
        tiny_stable_diffusion,
        image_network,
        "visdec.pretrain.enabled=false",
        "visdec.guide.enabled=false",
        f"visdec.pretrain.start={file}",
        "visdec.encoder.embedding=shared",
    )
    work = Workspace(RunDirectory(tmp_path / "run", wanted))
    run_stage(work, "finetune")
    encoder = visdec.load_conditioning(work, work.splits[0]).conditioner.encoder
    assert encoder.positions.shape == (7, 16)  # 90 voxels
    torch.testing.assert_close(encoder.positions, ENCODER["nearest"](table, 6)[0])
    assert encoder.config.norm_eps == encoder.norm.eps == 1e-5


@pytest.mark.parametrize("phase", ["pretrain", "guide"])
def test_a_published_encoder_is_trained_further_with_a_place_for_each_patch(
    tiny_stable_diffusion, image_network, tmp_path, phase, heard
):
    file = tmp_path / "c.pth"
    published_encoder(
        file, 9, False, **{"cross_blocks.0.bias": torch.ones(2)}, strange=torch.ones(2)
    )
    given = f"visdec.pretrain.start={file}", "visdec.encoder.embedding=shared"
    if phase == "guide":
        given = "visdec.pretrain.enabled=false", *given
    wanted = experiment(tiny_stable_diffusion, image_network, *given)
    work = Workspace(RunDirectory(tmp_path / "run", wanted), heard)
    shape = AutoencoderConfig(6, 16, 16, 1, 16)
    for _ in range(2):  # once for each split
        start = starting_weights(work, work.splits[0], shape, phase)
        torch.testing.assert_close(start.encoder.positions, ENCODER["sines"](6, 16))
    assert start.config.norm_eps == 1e-5
    notes = [line for line in heard.lines if str(file) in line]
    assert len(notes) == 2
    assert "cross-attention with pictures" in notes[0] and "strange (1)" in notes[1]
    run_stage(work, phase)
    trained = load_encoder(visdec.training_folder(work, phase, work.splits[0]) / "encoder")
    assert trained.config.norm_eps == trained.encoder.norm.eps == 1e-5
    assert [line for line in heard.lines if str(file) in line] == notes


def test_a_response_alone_makes_the_picture_that_it_makes_among_others(
    finished, tiny_stable_diffusion, tmp_path
):
    trained = BrainConditioning.load(place(finished, "finetune"))
    model = LatentDiffusion.from_pretrained(tiny_stable_diffusion)
    before = {k: v.clone() for k, v in model.unet.state_dict().items()}
    responses = np.random.default_rng(0).standard_normal((3, 90)).astype(np.float32)
    keys = [("a", 0), ("b", 1), ("a", 2)]
    options = {"strength": 0.5, "guidance": 2.0, "steps": 4, "seed": 1}
    together = trained.generate(model, responses, keys, **options)
    alone = np.concatenate(
        [
            trained.generate(model, responses[i : i + 1], keys[i : i + 1], **options)
            for i in range(3)
        ]
    )
    np.testing.assert_allclose(together, alone, atol=2e-5)
    after = model.unet.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert model.unet.class_embedding is None
    trained.save(tmp_path)
    again = BrainConditioning.load(tmp_path).generate(model, responses, keys, **options)
    np.testing.assert_array_equal(together, again)
    with pytest.raises(CalcarineError, match="not the model they were trained with"):
        trained.generate(random_class_conditional(True), responses, keys, **options)
    (tmp_path / "conditioning.safetensors").write_bytes(b"half")
    with pytest.raises(CalcarineError, match="holds no trained conditioning, or a damaged one"):
        BrainConditioning.load(tmp_path)


def test_only_named_parts_of_the_unet_were_trained(finished, tiny_stable_diffusion):
    model = LatentDiffusion.from_pretrained(tiny_stable_diffusion)
    old = dict(model.unet.named_parameters())
    trained = BrainConditioning.load(place(finished, "finetune")).unet_weights
    assert all(".attn2." in name or ".norm2." in name for name in trained)
    assert all("transformer_blocks" in name for name in trained)
    assert any(not torch.equal(old[name], weight) for name, weight in trained.items())


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("visdec.pretrain.loss.self=1", "There is no setting"),
        ("visdec.pretrain.training.stepz=1", "There is no setting"),
        ("visdec.guide.loss.layers=3", "even"),
        ("visdec.pretrain.loss.temperature=0", "temperature"),
        ("visdec.pretrain.pool=[elsewhere]", "visdec.pretrain.pool"),
        ("visdec.finetune.loss.drop_condition=0", "without condition"),
        ("visdec.finetune.start=c.pth", "pretrain.enabled=false and visdec.guide.enabled=false"),
        ("visdec.finetune.enabled=false", "give finetune.start"),
        ("visdec.finetune={enabled: false, start: c.pth}", "set finetune.guidance to 1"),
        ("visdec.scale=none", "visdec.scale"),
        ("visdec.validation=1", "visdec.validation"),
        ("visdec.guide.training.validate_every=5", "guide.training need validation stimuli"),
        ("visdec.guide.training={epochs: 5, steps: 5}", "both set the length"),
        ("visdec.finetune.loss.latent=0", "set strength to 1"),
        ("visdec.finetune.strength=0.02", "leaves no denoising step"),
        (
            "visdec.pretrain.pool=[own, {source: hcp, data: d}]",
            "'hcp' has others; set it to shared",
        ),
        ("visdec.pretrain.training.accumulate=64", "one sample"),
        ("visdec.pretrain.loss.mask_ratio=1.5", "mask_ratio"),
        ("visdec.guide.loss.fmri_mask=0", "fmri_mask"),
        ("visdec.guide.loss.image_mask=1", "image_mask"),
        ("visdec.guide.loss.gamma_fmri=.nan", "gamma_fmri"),
        ("visdec.pretrain.loss.reconstruction=.nan", "Weights of losses"),
        ("visdec.finetune.loss.tokens=0", "tokens is 1 or more"),
    ],
)
def test_wrong_settings_are_told(setting, told):
    with pytest.raises(CalcarineError, match=told) as caught:
        load_experiment("visdec-mini", None, [setting])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("pool", "told"),
    [
        ("[hcp]", "needs a folder"),
        ("[dataset]", "needs the name"),
        ("[{source: dataset, name: simulated}]", "names the subject that is decoded"),
    ],
)
def test_wrong_pools_are_told(tiny_stable_diffusion, image_network, tmp_path, pool, told):
    shared = "visdec.encoder.embedding=shared"
    pool = f"visdec.pretrain.pool={pool}"
    wanted = experiment(tiny_stable_diffusion, image_network, shared, pool)
    with pytest.raises(CalcarineError, match=told):
        run_stage(Workspace(RunDirectory(tmp_path / "run", wanted)), "pretrain")


@pytest.mark.parametrize("pool", ["[rest, own]", "[hcp]", "[dataset]"])
def test_pools_that_cannot_be_are_told_before_the_first_stage(
    tiny_stable_diffusion, image_network, tmp_path, pool
):
    shared = "visdec.encoder.embedding=shared"
    wanted = experiment(
        tiny_stable_diffusion, image_network, shared, f"visdec.pretrain.pool={pool}"
    )
    work = Workspace(RunDirectory(tmp_path / "run", wanted))
    assert work.dataset.simulated
    work.config.dataset.name = "god"
    with pytest.raises(CalcarineError, match=r"The pool '(rest|hcp|dataset)'"):
        check_experiment(work)


@pytest.mark.parametrize(
    ("setting", "told"),
    [("image_autoencoder=absent/there", "could not be loaded"), ("image_decoder_depth=5", "5 of")],
)
def test_an_image_autoencoder_that_cannot_be_is_told_before_anything_is_trained(
    tiny_stable_diffusion, image_network, tmp_path, monkeypatch, setting, told
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    wanted = experiment(tiny_stable_diffusion, image_network, f"visdec.guide.{setting}")
    run = RunDirectory(tmp_path / "run", wanted)
    with pytest.raises(CalcarineError, match=told):
        run_stage(Workspace(run), "pretrain")
    assert not list(run.path.rglob("*.safetensors"))


def test_runs_that_share_trainings_do_not_go_on_from_each_other(
    tiny_stable_diffusion, image_network, tmp_path
):
    """With a constant rate more steps go on from fewer, in one run; a row must keep its own."""

    def folder(steps, schedule, trained):
        changes = [
            f"visdec.finetune.training.{k}" for k in (f"steps={steps}", f"schedule={schedule}")
        ]
        wanted = experiment(tiny_stable_diffusion, image_network, *changes)
        run = RunDirectory(tmp_path / f"{schedule}-{steps}", wanted)
        work = Workspace(run, trained=trained)
        return visdec.training_folder(work, "finetune", work.splits[0]).parent.name

    shared = tmp_path / "trained"
    assert folder(5, "constant", None) == folder(10, "constant", None)
    assert folder(5, "constant", shared) != folder(10, "constant", shared)
    assert folder(5, "cosine", shared) == folder(5, "cosine", None) != folder(6, "cosine", shared)


def test_fewer_voxels_than_a_patch_are_told(tiny_stable_diffusion, image_network, tmp_path):
    wanted = experiment(
        tiny_stable_diffusion, image_network, "visdec.roi=other", "visdec.pretrain.pool=[own]"
    )
    with pytest.raises(CalcarineError, match="10 voxels are shorter than one patch of 16"):
        run_stage(Workspace(RunDirectory(tmp_path / "run", wanted)), "pretrain")


# -- validation stimuli and lengths in epochs


def trained(work, phase):
    """What the training of a phase wrote of itself."""
    (split,) = work.splits
    return json.loads((visdec.training_folder(work, phase, split) / "training.json").read_text())


def test_all_methods_train_on_the_same_trials_unless_the_report_says_otherwise(
    finished, tiny_stable_diffusion, image_network, tmp_path
):
    work = Workspace(finished)
    rows = {phase: trained(work, phase)["identity"] for phase in ("pretrain", "guide", "finetune")}
    assert [row["n_train"] for row in rows.values()] == [24 * 2 + 120, 24, 24]
    assert [row["n_validation"] for row in rows.values()] == [0, 0, 0]
    facts = finished.manifest()["dataset"]
    assert facts["n_train"] == 24 and "n_training_trials" not in facts
    assert "held out" not in " ".join(finished.manifest()["notes"])
    held = experiment(tiny_stable_diffusion, image_network, "visdec.validation=0.25")
    work = Workspace(RunDirectory(tmp_path / "held", held))
    assert training_trials(work) == {"vis-dec": 36, "other methods": 48}
    assert validation_notes(work) == [
        "Vis-Dec trained on 18 of 24 training stimuli. The other 6 (visdec.validation) are held "
        "out as validation stimuli, and no setting uses them (select, patience, validate_every). "
        "The other decoders trained on all 24."
    ]


def test_the_report_says_what_validation_stimuli_were_for(
    tiny_stable_diffusion, image_network, tmp_path, heard
):
    recorded = ["visdec.validation=0.25", "visdec.finetune.training.validate_every=1"]
    chosen = [
        "visdec.guide.training.validate_every=1",
        "visdec.guide.training.select=best",
    ]
    wanted = experiment(tiny_stable_diffusion, image_network, *recorded, *chosen)
    run = run_experiment(wanted, tmp_path / "run", heard)
    work = Workspace(run)
    assert trained(work, "pretrain")["identity"]["n_train"] == 18 * 2 + 90
    assert trained(work, "guide")["identity"]["n_validation"] == 6
    assert trained(work, "guide")["validation_loss"] is not None
    assert "Guide: 25% of the training stimuli validate and do not train" in " ".join(heard.lines)
    page = (run.path / "report.html").read_text()
    assert "whose loss chose weights or length of the training in guide" in page
    assert "n_training_trials" in page and run.manifest()["dataset"]["n_training_trials"] == {
        "vis-dec": 36,
        "other methods": 48,
    }
    alone = experiment(tiny_stable_diffusion, image_network, *recorded, "ridge.enabled=false")
    work = Workspace(RunDirectory(tmp_path / "alone", alone))
    assert training_trials(work) == {}
    (note,) = validation_notes(work)
    assert note.endswith("whose loss was recorded and chose nothing.")


def test_a_training_in_epochs_has_as_many_steps_as_its_pool_asks_for(
    tiny_stable_diffusion, image_network, tmp_path
):
    changes = [
        f"visdec.{phase}.training.{key}"
        for phase in ("pretrain", "guide", "finetune")
        for key in ("epochs=2", "warmup_steps=0", "warmup_epochs=1")
    ]
    said = []

    class Listening(Interrupted):
        def say(self, text):
            said.append(text)

    wanted = experiment(tiny_stable_diffusion, image_network, *changes)
    run = RunDirectory(tmp_path / "run", wanted)
    with pytest.raises(KeyboardInterrupt):
        run_stage(Workspace(run, Listening(20)), "pretrain")
    keys = run_keys(Workspace(run))
    work = Workspace(RunDirectory(tmp_path / "run"))  # as its own file has the settings
    assert run_keys(work) == keys
    for phase, rows in (("pretrain", 24 * 2 + 120), ("guide", 24), ("finetune", 24)):
        run_stage(work, phase)
        about = trained(work, phase)
        assert about["steps"] == 2 * rows // 8 and about["config"]["warmup_steps"] == rows // 8
    assert resolved_settings(work, {})["visdec"]["pretrain"]["training"] == {
        "steps": "42 (from epochs)",
        "warmup_steps": "21 (from epochs)",
    }
    assert "Pretrain: 2 epochs of 168 vectors in batches of 8 are 42 steps" in said
    more = experiment(
        tiny_stable_diffusion, image_network, *changes, "visdec.pretrain.training.epochs=3"
    )
    assert (
        run_keys(Workspace(RunDirectory(tmp_path / "more", more)))["pretrain"] != keys["pretrain"]
    )


def test_the_preset_of_the_paper_scores_as_the_paper_and_on_its_region(tmp_path):
    paper = load_experiment("visdec2023")
    assert paper.evaluation.protocols == ["calcarine", "mind-vis"]
    assert paper.visdec.validation == 0 and paper.visdec.roi == "all"
    lengths = [getattr(paper.visdec, p).training.epochs for p in ("pretrain", "guide", "finetune")]
    assert lengths == [140, 60, 700]
    names = [metric.name for metric in find_protocol("mind-vis")().metrics()]
    assert "50-way top-1" in names
    registry.write_fake_dataset("god", tmp_path / "god")
    god = load_experiment("visdec2023", name="god", data=tmp_path / "god")
    assert god.visdec.roi == "VC"
    for subject in registry.load_dataset("god", tmp_path / "god").subject, "S2":
        assert registry.load_dataset("god", tmp_path / "god", subject).roi_mask("VC").any()
    own = load_experiment("visdec2023", None, ["visdec.roi=V1"], name="god")
    assert own.visdec.roi == "V1"


# -- ablation


def test_an_ablation_shares_what_is_the_same_and_is_stamped(
    tiny_stable_diffusion, image_network, tmp_path
):
    rows = product_rows(
        ["visdec.pretrain.enabled=true;false", "visdec.finetune.training.steps=2;3"]
    )
    given = settings(
        tiny_stable_diffusion,
        image_network,
        "visdec.pretrain.pool=[own, test]",
        "visdec.allow_transductive=true",
        "visdec.guide.enabled=false",
    )
    table = run_ablation(rows, tmp_path, settings=given, seeds=1)
    # "as set" is one of the four combinations; those with pre-training share it.
    trained = sorted(p.name.split("-")[0] for p in (tmp_path / "trained").iterdir())
    assert trained == ["finetune"] * 4 + ["pretrain"]
    assert [line[0] for line in table.cells] == [
        "as set [transductive]",
        "pretrain.enabled=true, finetune.training.steps=2 [transductive]",
        "pretrain.enabled=true, finetune.training.steps=3 [transductive]",
        "pretrain.enabled=false, finetune.training.steps=2",
        "pretrain.enabled=false, finetune.training.steps=3",
    ]
    assert "Simulated:" in table.title and "Transductive:" in table.title
    assert "was allowed" in table.title and "One seed:" in table.title
    written = pd.read_csv(tmp_path / "ablation.csv")
    assert len(written) == len(table.scores) and written["simulated"].all()
    assert written.groupby("row")["transductive"].first().to_dict() == {
        name: "allowed" if "false" in name else "yes" for name in rows
    }
    same = written["row"].isin(["as set", "pretrain.enabled=true, finetune.training.steps=3"])
    assert not written[same][["difference", "d_low", "d_high"]].to_numpy().any()
    told = json.loads((tmp_path / "ablation.json").read_text())
    assert told["simulated"] is True and told["transductive"] == ["allowed", "yes"]
    assert told["notes"] == table.notes and len(told["scores"]) == len(written)


def test_a_published_start_is_told_and_nothing_more_than_is_known(tmp_path):
    chosen = load_experiment("visdec-mini", None, ["visdec.pretrain.start=file.pth"]).visdec
    assert pretrained_on_test(chosen) == "unknown"
    assert pretrained_on_test(load_experiment("visdec-mini").visdec) == "no"


def test_two_processes_train_all_phases_as_one_does(tiny_stable_diffusion, image_network, tmp_path):
    """To 1e-5 of the losses and 1e-4 of the weights: sums are formed in another order."""
    runs = {}
    for name, places in (
        ("one", {"accumulate": 2}),
        ("two", {"devices": 2, "strategy": "ddp"}),
    ):
        changes = [
            f"visdec.{phase}.training.{key}={value}"
            for phase in ("pretrain", "guide", "finetune")
            for key, value in places.items()
        ]
        planned = experiment(tiny_stable_diffusion, image_network, *changes)
        runs[name] = RunDirectory(tmp_path / name, planned)
        work = Workspace(runs[name])
        for phase in ("pretrain", "guide", "finetune"):
            run_stage(work, phase)
    for phase in ("pretrain", "guide", "finetune"):
        one, two = (pd.read_csv(place(run, phase) / "log.csv") for run in runs.values())
        assert len(one) == 3
        pd.testing.assert_frame_equal(two, one, rtol=1e-5)
        for (name, a), b in zip(
            weights(runs["one"], phase).items(), weights(runs["two"], phase).values(), strict=True
        ):
            torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-5, msg=name)
