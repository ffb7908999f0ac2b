"""What a plan counts and measures, compared with what runs do."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from calcarine.cli.main import app
from calcarine.diffusion import LatentDiffusion
from calcarine.display import time_text
from calcarine.errors import CalcarineError, SettingError
from calcarine.evaluation.scoring import scoring
from calcarine.experiment import (
    load_experiment,
    memory_use,
    run_experiment,
    run_plan,
    run_stage,
    stage_costs,
    visdec_training,
)
from calcarine.experiment.calibration import Calibration, Rate
from calcarine.experiment.memory_use import machine_memory, measured_memory
from calcarine.experiment.run_directory import RunDirectory
from calcarine.experiment.run_plan import plan_experiment, plan_run
from calcarine.experiment.stage_costs import stage_cost
from calcarine.experiment.stages import STAGES
from calcarine.experiment.visdec_training import phase_steps
from calcarine.experiment.workspace import Workspace
from calcarine.linear import ridge_cv
from calcarine.linear.costs import banded_ridge_cost, ridge_cost

SMALL = [
    "dataset.options={n_train: 40, n_test: 6, n_early: 20, n_ventral: 16, n_other: 4}",
    "generation.steps=6",
    "generation.samples=2",
    "evaluation.n_boot=100",
    "evaluation.n_permutations=100",
    "evaluation.audit=false",
    "encoding.n_boot=100",
]


def workspace(folder, *settings, preset="takagi"):
    return Workspace(RunDirectory(folder, load_experiment(preset, None, [*SMALL, *settings])))


@pytest.fixture
def counted(monkeypatch):
    """Rows that the diffusion model computes, by unit of a plan."""
    counts = Counter()
    methods = {name: getattr(LatentDiffusion, name) for name in ("encode", "decode", "embed_text")}

    def encode(self, images, *args, **kwargs):
        counts["encode"] += len(images)
        return methods["encode"](self, images, *args, **kwargs)

    def decode(self, latents, *args, **kwargs):
        counts["decode"] += len(latents)
        return methods["decode"](self, latents, *args, **kwargs)

    def embed(self, texts, *args, **kwargs):
        texts = [texts] if isinstance(texts, str) else list(texts)
        counts["text"] += len([text for text in texts if text])
        return methods["embed_text"](self, texts, *args, **kwargs)

    generate = LatentDiffusion.generate

    def generated(self, context, keys, start=None, *, strength=0.8, **options):
        steps = self.count_steps(options["steps"], 1.0 if start is None else strength)
        kind = "plain step" if options["guidance"] == 1 else "guided step"
        counts[kind] += len(context) * steps
        return generate(self, context, keys, start, strength=strength, **options)

    for name, method in (("encode", encode), ("decode", decode), ("embed_text", embed)):
        monkeypatch.setattr(LatentDiffusion, name, method)
    monkeypatch.setattr(LatentDiffusion, "generate", generated)
    return counts


def planned(cost):
    """Return the counts of a cost, those of both sizes of latents together."""
    counts = Counter()
    for part in cost.parts:
        counts[part.unit.removesuffix(" z")] += part.count
    return {unit: counts[unit] for unit in counts if unit not in ("png", "double")}


@pytest.mark.parametrize(
    "settings",
    [
        ["generation.candidates=3"],
        ["generation.guidance=1", "evaluation.ceilings=false", "generation.candidates=0"],
        ["generation.z_empty_text=true", "evaluation.ceiling_samples=2", "generation.strength=0.5"],
        ["generation.through_image=false", "features.text=categories"],
        [
            "generation.search.enabled=true",
            "generation.search.n_stimuli=5",
            "generation.search.steps=4",
            "generation.search.strengths=[0.5, 0.9]",
            "generation.search.guidances=[2.0]",
        ],
    ],
)
def test_it_counts_what_the_stages_compute(tmp_path, counted, settings):
    work = workspace(tmp_path / "run", *settings)
    for name in ("features", "fit", "reconstruct"):
        expected = planned(stage_cost(name, work))
        counted.clear()
        run_stage(work, name)
        chosen = list(work.run.decoder.rglob("settings.json"))
        if name == "reconstruct" and chosen:
            # Planned for the highest strength that may be chosen.
            strength = json.loads(chosen[0].read_text())["strength"]
            assert counted["guided step"] <= expected["guided step"]
            if strength == 0.9:
                assert counted["guided step"] == expected["guided step"]
            expected["guided step"] = counted["guided step"]
        # Equal captions of a batch are embedded once.
        assert counted["text"] <= expected.get("text", 0)
        counted["text"] = expected.get("text", 0)
        assert {k: v for k, v in counted.items() if v} == {k: v for k, v in expected.items() if v}


def test_it_counts_the_features_of_encoding_and_what_a_store_has(tmp_path, monkeypatch):
    steps = Counter()
    denoise = LatentDiffusion._denoise

    def counted(self, latents, *args, **kwargs):
        steps["rows"] += len(latents)
        return denoise(self, latents, *args, **kwargs)

    monkeypatch.setattr(LatentDiffusion, "_denoise", counted)
    settings = [
        "encoding.analyses=[noise, blocks]",
        "encoding.strengths=[0.5, 0.8]",
        "encoding.n_components=20",
        f"compute.store={tmp_path / 'store'}",
    ]
    work = workspace(tmp_path / "run", *settings, preset="encoding")
    run_stage(work, "features")
    cost = stage_cost("encode", work)
    total = sum(work.model.count_steps(6, strength) for strength in (0.5, 0.8))
    assert planned(cost) == {"guided step": 46 * total}
    # Two splits would have twice the fits: 2 strengths, 5 blocks x 3 stages, z; and 2 pairs.
    kinds = Counter(what for what, count, _ in cost.fits)
    assert sorted(kinds.values()) == [2, 18]
    steps.clear()
    run_stage(work, "encode")
    # Each pass also denoises one stimulus to learn the shapes.
    assert steps["rows"] == 2 * (46 + 1)
    written = sum(file.stat().st_size for file in (tmp_path / "store").rglob("*") if file.is_file())
    features = stage_cost("features", workspace(tmp_path / "unshared", *settings[:-1]))
    assert (cost.stored + features.stored) / written == pytest.approx(1, abs=0.4)
    again = workspace(tmp_path / "again", *settings, preset="encoding")
    assert not planned(stage_cost("encode", again))
    assert not stage_cost("features", again).parts


def test_it_counts_pictures_that_are_scored(tmp_path, monkeypatch):
    work = workspace(tmp_path / "run", "generation.candidates=3")
    for name in ("features", "fit", "reconstruct"):
        run_stage(work, name)
    seen = []
    whole = scoring.FeatureCache

    def cache(truth, pictures, *args, **kwargs):
        seen.append(pictures.samples)
        return whole(truth, pictures, *args, **kwargs)

    monkeypatch.setattr(scoring, "FeatureCache", cache)
    run_stage(work, "evaluate")
    counts = planned(stage_cost("evaluate", work))
    assert counts == {"scored method": len(seen), "score": 6 * (1 + sum(seen))}


def test_every_stage_has_a_cost_and_finished_stages_are_left_out(tmp_path):
    run = run_experiment(load_experiment("takagi", None, SMALL), tmp_path / "run")
    work = Workspace(RunDirectory(run.path))
    assert not plan_run(work).stages
    (run.path / ".stages" / "report.json").unlink()
    assert [stage.name for stage in plan_run(work).stages] == ["report"]
    written = sum(
        file.stat().st_size
        for part in ("features", "decoder", "reconstructions")
        for file in (run.path / part).rglob("*")
        if file.is_file()
    )
    costs = {name: stage_cost(name, work) for name in STAGES}
    new = workspace(tmp_path / "new")
    new_costs = [stage_cost(name, new) for name in ("features", "fit", "reconstruct")]
    disk = sum(cost.disk + cost.stored for cost in new_costs)
    assert disk / written == pytest.approx(1, abs=0.4)
    assert set(costs) == set(STAGES) and not costs["guide"].parts and costs["encode"].fits


class _Measured:
    """A calibration with known rates."""

    base = data = 1e9
    phases = True

    def __init__(self, **rates):
        self.rates = rates

    def rate(self, unit):
        seconds = self.rates.get(unit.replace(" ", "_"), 0.0)
        return None if seconds is None else Rate(seconds, 2e9 if "step" in unit else 0.0)

    def ridge_seconds(self, cost):
        return 7.0


def test_times_are_counts_times_rates_and_memory_is_the_largest_part(tmp_path):
    work = workspace(tmp_path / "run", "generation.candidates=0")
    made = plan_run(work, calibration=_Measured(guided_step=0.5, text=2.0))
    stages = {stage.name: stage for stage in made.stages}
    texts = sum(len(own) for own in work.dataset.stimuli.captions())
    assert stages["features"].seconds == pytest.approx(2.0 * texts)
    assert stages["fit"].seconds == pytest.approx(3 * 7.0)
    # c and its ceiling from noise, z_c and its ceiling at strength .8.
    steps = 6 * (6 * (2 + 1) + work.model.count_steps(6, 0.8) * (2 + 1))
    assert stages["reconstruct"].seconds == pytest.approx(0.5 * steps)
    assert 3e9 < stages["reconstruct"].memory < 3.5e9
    assert made.seconds == pytest.approx(sum(stage.seconds for stage in made.stages))
    unknown = plan_run(work, calibration=_Measured(guided_step=None))
    assert unknown.untimed == ["reconstruct"] and "without parts of reconstruct" in str(unknown)


@pytest.mark.parametrize(
    ("stage", "setting"),
    [("fit", "roi.z"), ("reconstruct", "generation.batch_size")],
)
def test_what_cannot_fit_is_refused_with_the_setting_that_mends_it(tmp_path, stage, setting):
    work = workspace(tmp_path / "run")
    made = plan_run(work, calibration=_Measured())
    of_stage = {row.name: row for row in made.stages}
    limited = replace(made, stages=(of_stage[stage],), memory_there=of_stage[stage].memory - 1)
    with pytest.raises(SettingError, match=f"'{stage}' needs about .* of memory.*{setting}"):
        limited.check()
    replace(made, memory_there=made.memory + 1).check()
    with pytest.raises(SettingError, match=r"compute\.check=false"):
        limited.check()


def test_each_disk_must_hold_what_is_written_there(tmp_path, monkeypatch):
    free = {}
    monkeypatch.setattr(
        run_plan.shutil, "disk_usage", lambda place: SimpleNamespace(free=free[str(place)])
    )
    work = workspace(tmp_path / "run")
    made = plan_run(work)
    free[str(made.folder)] = made.disk - 1
    with pytest.raises(SettingError, match=r"writes about .* are free in .*--out.*--store"):
        made.check()
    free[str(made.folder)] = made.disk + 1
    made.check()
    # A store on another disk is checked by what goes there.
    apart = replace(made, store=Path("/proc"))
    features = sum(stage.stored for stage in made.stages)
    free |= {str(made.folder): made.disk - features + 1, "/proc": features + 1}
    apart.check()
    free["/proc"] = features - 1
    with pytest.raises(SettingError, match=r"features take about .* are free in /proc"):
        apart.check()


def test_blocks_inside_blocks_are_planned_and_unknown_ones_are_named(tmp_path):
    names = "encoding.blocks=[mid_block.attentions.0]"
    work = workspace(tmp_path / "run", "encoding.analyses=[blocks]", names, preset="encoding")
    assert stage_cost("encode", work).stored > 0
    wrong = "encoding.blocks=[midblock]"
    work = workspace(tmp_path / "wrong", "encoding.analyses=[blocks]", wrong, preset="encoding")
    with pytest.raises(CalcarineError, match="midblock"):
        stage_cost("encode", work)


def test_voxels_of_a_whole_brain_are_fitted_in_blocks(tmp_path, monkeypatch):
    settings = ["encoding.analyses=[noise]", "encoding.strengths=[0.5]"]
    work = workspace(tmp_path / "run", *settings, preset="encoding")
    whole = stage_cost("encode", work)
    monkeypatch.setattr(stage_costs, "TOGETHER", 16)
    parts = stage_cost("encode", work)
    pairs = [
        (count, cost) for what, count, cost in parts.fits if what.endswith("two feature spaces")
    ]
    assert [count for count, _ in pairs] == [2, 1]  # 40 voxels
    memory = [
        max(fit.memory for what, _, fit in cost.fits if "two" in what) for cost in (parts, whole)
    ]
    assert memory[0] < memory[1]


def test_others_may_take_part_while_the_run_is_planned(tmp_path, monkeypatch):
    seen = []
    whole = run_plan.plan_run

    def planning(work, *args, **kwargs):
        seen.append(RunDirectory.is_led_at(work.run.path))
        return whole(work, *args, **kwargs)

    monkeypatch.setattr(run_plan, "plan_run", planning)
    run_experiment(load_experiment("takagi", None, SMALL), tmp_path / "run")
    assert seen == [True]


def test_a_run_that_cannot_fit_ends_before_its_first_stage(tmp_path, monkeypatch):
    monkeypatch.setattr(run_plan, "machine_memory", lambda: 1e6)
    with pytest.raises(CalcarineError, match="use a machine with more"):
        run_experiment(load_experiment("takagi", None, SMALL), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    all_the_same = load_experiment("takagi", None, [*SMALL, "compute.check=false"])
    assert (run_experiment(all_the_same, tmp_path / "run").path / "report.html").exists()


def test_the_command_prints_the_table_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["plan", "--preset", "takagi"]
    result = CliRunner().invoke(app, [*command, *(part for s in SMALL for part in ("--set", s))])
    assert result.exit_code == 0, result.output
    for text in ("features", "denoising steps", "decoder of z", "reconstruct", "together"):
        assert text in result.output
    assert not list(tmp_path.iterdir())
    result = CliRunner().invoke(app, ["plan"])
    assert isinstance(result.exception, SettingError) and "--preset" in str(result.exception)


def test_a_run_on_the_command_line_says_its_plan_and_reports_it(tmp_path, monkeypatch):
    settings = [part for text in SMALL for part in ("--set", text)]
    out = tmp_path / "run"
    result = CliRunner().invoke(
        app, ["run", "--preset", "takagi", "--set", "dataset.folds=1", "--out", str(out), *settings]
    )
    assert result.exit_code == 0, result.output
    assert "Plan: about" in result.output
    manifest = json.loads((out / "manifest.json").read_text())
    assert set(manifest["plan"]) == set(manifest["times"]) == set(manifest["memory"])
    total = sum(manifest["memory"].values()) / len(manifest["memory"])
    assert 1e8 < total < 2e10
    report = (out / "report.html").read_text()
    assert "Time and memory of the stages" in report
    planned = manifest["plan"]["reconstruct"]["seconds"]
    assert f"({time_text(planned)})" in report
    # A plan of the finished run computes nothing, and loads no network.
    monkeypatch.setattr(Calibration, "base", property(lambda self: 1 / 0))
    monkeypatch.setattr(Calibration, "data", property(lambda self: 1 / 0))
    result = CliRunner().invoke(app, ["plan", str(out)])
    assert result.exit_code == 0 and "nothing is left" in result.output


def test_planning_other_settings_changes_no_file_of_a_run(tmp_path):
    experiment = load_experiment("takagi", None, SMALL)
    run = run_experiment(experiment, tmp_path / "run")
    before = {file: file.read_bytes() for file in run.path.rglob("*") if file.is_file()}
    other = load_experiment("takagi", None, [*SMALL, "generation.strength=0.5"])
    made = plan_experiment(other, run.path)
    assert [stage.name for stage in made.stages] == ["reconstruct", "evaluate", "report"]
    assert {file: file.read_bytes() for file in run.path.rglob("*") if file.is_file()} == before


def test_phases_of_visdec_are_measured_by_a_few_steps(tmp_path):
    lengths = {"pretrain": 50, "guide": 30, "finetune": 30}
    settings = [
        f"visdec.{phase}.training.{name}"
        for phase, steps in lengths.items()
        for name in (f"steps={steps}", "warmup_steps=0")
    ]
    work = workspace(tmp_path / "run", *settings, preset="visdec-mini")
    calibration = Calibration(work)
    made = {stage.name: stage for stage in plan_run(work, calibration=calibration).stages}
    for phase, steps in lengths.items():
        rate = calibration.rate(phase)
        assert rate.seconds > 0
        assert f"{steps} training steps" in made[phase].work
        assert made[phase].seconds >= steps * rate.seconds
    assert not work.run.networks.exists()
    assert Calibration(work, phases=False).rate("pretrain") is None


def test_epochs_are_counted_by_a_plan_and_not_at_the_start_of_a_run(tmp_path, monkeypatch):
    settings = [
        "visdec.pretrain.training.steps=null",
        "visdec.pretrain.training.epochs=3",
        "visdec.pretrain.training.warmup_steps=0",
    ]
    work = workspace(tmp_path / "run", *settings, preset="visdec-mini")
    (part,) = stage_cost("pretrain", work).parts
    assert part.count == phase_steps(work, "pretrain") > 3

    def refuse(*args):
        raise AssertionError("the pool is read")

    monkeypatch.setattr(visdec_training, "_pool", refuse)
    cost = stage_cost("pretrain", work, counts=False)
    assert not cost.parts and cost.unknown == ("3 epochs of training",)


@pytest.mark.parametrize("shape", [(300, 40, 50), (120, 400, 200), (400, 100, 2000)])
def test_ridge_memory_is_not_far_from_what_a_fit_takes(shape):
    import tracemalloc

    n, p, t = shape
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((n, p), np.float32), rng.standard_normal((n, t), np.float32)
    ridge_cv(x, y, alphas=np.geomspace(1, 1e4, 21))
    tracemalloc.start()
    ridge_cv(x, y, alphas=np.geomspace(1, 1e4, 21))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 0.4 < ridge_cost(n, p, t).memory / (peak + y.nbytes) < 2.5


def test_ridge_cost_grows_with_the_work():
    cost = ridge_cost(8000, 4000, 4096)
    assert ridge_cost(8000, 4000, 8192).single > cost.single
    assert ridge_cost(8000, 4000, 4096, n_folds=10).single > cost.single
    wide = ridge_cost(8000, 4000, 4096, wide=True)
    assert wide.double > 0 and wide.single < cost.single and wide.memory > cost.memory
    # Six decompositions of order 4,000 and five penalties for each target.
    assert 1e12 < cost.single < 6e12
    assert banded_ridge_cost(2000, 3000, 1000).single > banded_ridge_cost(1000, 3000, 1000).single


@pytest.mark.skipif(not memory_use._STATUS.exists(), reason="needs Linux")
def test_measured_memory_forgets_earlier_peaks():
    with measured_memory() as large:
        block = np.ones(40_000_000)
        del block
    with measured_memory() as small:
        pass
    assert large.peak - large.before > 300e6
    assert small.peak - small.before < 50e6
    assert 1e9 < machine_memory() < 1e14


def test_the_limit_of_a_container_is_the_memory_that_is_there(tmp_path, monkeypatch):
    groups, own = tmp_path / "groups", tmp_path / "cgroup"
    monkeypatch.setattr(memory_use, "_GROUPS", groups)
    monkeypatch.setattr(memory_use, "_OWN_GROUPS", own)
    job = groups / "slurm" / "job_7"
    job.mkdir(parents=True)
    own.write_text("0::/slurm/job_7/step_0\n")
    (job / "memory.max").write_text("123456789\n")  # of a group that holds that of the process
    assert machine_memory() == 123456789
    (job / "memory.max").write_text("max\n")
    assert machine_memory() > 1e9
    older = groups / "memory" / "job_8"
    older.mkdir(parents=True)
    own.write_text("4:cpu:/job_8\n3:memory:/job_8\n")
    (older / "memory.limit_in_bytes").write_text("987654321\n")
    assert machine_memory() == 987654321
