"""Where a run computes and how precisely: settings, what is reported, and keys."""

import json
from dataclasses import replace

import pytest
import torch

from calcarine.cli import main
from calcarine.errors import CalcarineError
from calcarine.experiment import STAGES, load_experiment, run_experiment, run_stage
from calcarine.experiment.digests import Digests
from calcarine.experiment.keys import stage_keys
from calcarine.experiment.resolved_settings import resolved_settings
from calcarine.experiment.run_directory import RunDirectory
from calcarine.experiment.seeds import _begin_from
from calcarine.experiment.stages import run_keys
from calcarine.experiment.visdec_training import _training
from calcarine.experiment.workspace import Workspace
from calcarine.features.image_networks import ImageNetwork, network_layer

OPTIONS = {"n_train": 24, "n_test": 8, "n_early": 10, "n_ventral": 10, "n_other": 2}


@pytest.fixture
def workspace(tiny_stable_diffusion, tmp_path):
    """Return a function that opens a run with some settings; the same name again resumes it."""

    def open_run(*settings, name="run", preset="takagi", progress=None):
        config = load_experiment(
            preset,
            None,
            [
                f"generation.model={tiny_stable_diffusion}",
                f"dataset.options={json.dumps(OPTIONS)}",
                "generation.steps=2",
                "generation.samples=1",
                "evaluation.n_boot=100",
                "evaluation.n_permutations=100",
                *settings,
            ],
        )
        return Workspace(RunDirectory(tmp_path / name, config), progress)

    return open_run


def changed(first, second):
    return {name for name in first if first[name] != second[name]}


# --- settings


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("compute.device=gpu", "'compute.device' is wrong: choose auto, cpu, cuda, cuda:N .* mps"),
        ("compute.device=cuda:x", "'compute.device' is wrong"),
        ("compute.precision=half", "'compute.precision' is wrong"),
        ("generation.precision=float16", r"setting 'generation\.precision'; did you mean 'compute"),
        ("generation.device=cpu", r"'generation\.device'; did you mean 'compute\.device'"),
    ],
)
def test_settings_that_are_wrong_are_named(setting, message):
    with pytest.raises(CalcarineError, match=message):
        load_experiment("takagi", None, [setting])


def test_a_device_that_is_missing_ends_a_run_in_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    arguments = ["run", "--preset", "demo", "--out", str(tmp_path / "run")]
    arguments += ["--set", "compute.device=cuda"]
    monkeypatch.setattr("sys.argv", ["calcarine", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    message = capsys.readouterr().err
    assert stop.value.code == 2 and "finds no CUDA GPU" in message and "Traceback" not in message
    assert not (tmp_path / "run").exists()


# --- what is resolved


def test_what_was_resolved_is_said_and_stands_in_manifest_and_report(workspace, heard):
    work = workspace("compute.device=cpu", "evaluation.audit=false", progress=heard)
    run = run_experiment(work.config, work.run.path, heard)
    assert heard.lines.count("Computing in float32 on cpu") == 1
    manifest = run.manifest()
    assert manifest["auto_precision"] == "float32"
    assert manifest["devices"] == dict.fromkeys(
        ["features", "fit", "reconstruct", "evaluate"], "cpu"
    )
    assert manifest["resolved"]["compute"] == {
        "precision": "float32",
        "store": "none: the run's own",
    }
    report = (run.path / "report.html").read_text()
    assert "compute.precision" in report and "float32" in report


def test_devices_of_stages_are_all_named(workspace):
    work = workspace()
    work.run.update_manifest(devices={"features": "cuda (A)", "fit": "cpu", "evaluate": "cpu"})
    assert resolved_settings(work, {})["compute"]["device"] == "cuda (A), cpu"


def test_what_auto_decided_is_kept_for_the_whole_run(workspace, gpus, monkeypatch):
    gpus(1)
    first = workspace()
    assert first.compute.precision == "bfloat16" and first.compute.device.type == "cuda"
    first.record_compute("features")
    assert first.run.manifest()["devices"] == {"features": "cuda (Some GPU)"}
    monkeypatch.undo()
    # The same run continues on a machine without a GPU.
    again = workspace()
    assert (again.compute.precision, again.compute.device.type) == ("bfloat16", "cpu")
    assert again.model.dtype == torch.bfloat16
    assert workspace(name="other").compute.precision == "float32"
    assert workspace("compute.precision=float32").compute.precision == "float32"


def test_a_run_in_float16_does_not_continue_on_a_cpu(workspace, gpus, monkeypatch):
    gpus(1, (7, 5))
    first = workspace()
    assert first.compute.precision == "float16"
    first.record_compute("features")
    monkeypatch.undo()
    again = workspace("compute.device=cpu")
    with pytest.raises(CalcarineError, match=r"began on a GPU in float16.*precision=float32"):
        _ = again.compute


def test_visdec_trains_a_model_in_float32(workspace, gpus):
    gpus(1)
    auto = workspace(preset="visdec-mini")
    assert auto.compute.precision == "float32" and auto.compute.device.type == "cuda"
    auto.record_compute("pretrain")
    assert "auto_precision" not in auto.run.manifest()
    half = workspace("compute.precision=bfloat16", preset="visdec-mini", name="half")
    with pytest.raises(CalcarineError, match=r"Vis-Dec trains .* auto or float32"):
        _ = half.generator


@pytest.mark.parametrize(
    ("device", "accelerator", "expected"),
    [
        ("cpu", "auto", "cpu"),
        ("cuda:1", "auto", "cuda:1"),
        ("auto", "auto", "auto"),
        ("cpu", "gpu", "gpu"),
    ],
)
def test_trainings_are_on_the_device_of_the_run(workspace, device, accelerator, expected):
    for phase in ("pretrain", "guide", "finetune"):
        key = f"visdec.{phase}.training.accelerator"
        settings = (f"compute.device={device}", f"{key}={accelerator}")
        work = workspace(*settings, preset="visdec-mini", name=phase)
        assert _training(work, phase).accelerator == expected


def test_seeds_share_what_auto_decided(workspace, tmp_path):
    work = workspace(name="seed-1")
    work.run.update_manifest(auto_precision="bfloat16")
    (work.run.path / ".stages").mkdir()
    _begin_from(work.run.path, tmp_path / "seed-2")
    assert RunDirectory(tmp_path / "seed-2").manifest() == {"auto_precision": "bfloat16"}


# --- keys


def test_the_precision_is_part_of_keys_and_the_device_is_not(workspace):
    plain = run_keys(workspace())
    assert run_keys(workspace("compute.precision=float32", name="b")) == plain
    assert run_keys(workspace("compute.device=cpu", name="c")) == plain
    half = run_keys(workspace("compute.precision=bfloat16", name="d"))
    assert changed(plain, half) == set(plain)
    tf32 = run_keys(workspace("compute.tf32=true", name="e"))
    assert changed(plain, tf32) == set(plain) and changed(half, tf32) == set(plain)


def test_tf32_is_part_of_the_keys_of_trainings():
    digests = Digests(
        dataset="data",
        splits=("first",),
        n_train=(100,),
        regions={"z": "early", "c": "ventral", "pixels": "early"},
        generator="model",
    )

    def keys(*settings):
        return stage_keys(STAGES.values(), load_experiment("visdec-mini", None, settings), digests)

    assert changed(keys(), keys("compute.tf32=true")) >= {"pretrain", "guide", "finetune"}
    assert keys() == keys("compute.tf32=false") == keys("compute.device=cpu")


def test_features_of_two_precisions_lie_side_by_side(workspace):
    work = workspace("compute.precision=bfloat16")
    run_stage(work, "features")
    half = work.z.copy()
    again = workspace("compute.precision=float32")
    run_stage(again, "features")
    assert again.z.shape == half.shape and not (again.z == half).all()
    assert abs(again.z - half).mean() < 0.05 * again.z.std()


# --- TF32


@pytest.mark.parametrize("allowed", [False, True])
def test_tf32_holds_while_a_stage_runs_but_not_in_image_networks(workspace, monkeypatch, allowed):
    def state():
        return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32

    seen, inside = [], []

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Identity()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def forward(self, x):
            inside.append(state())
            return self.layer(x)

    def stage(work):
        seen.append(state())
        images = work.dataset.stimuli.images()[:2]
        network_layer(ImageNetwork(Network(), lambda x: x.float(), ""), "layer", images)
        seen.append(state())

    before = state()
    work = workspace(f"compute.tf32={str(allowed).lower()}")
    monkeypatch.setitem(STAGES, "features", replace(STAGES["features"], run=stage))
    run_stage(work, "features")
    assert seen == [(allowed, allowed)] * 2
    assert inside == [(False, False)]
    assert state() == before
