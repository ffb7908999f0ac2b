import csv
import importlib.util
import json
import math
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from calcarine.errors import CalcarineError
from calcarine.files import local_files as files
from calcarine.training import StepBatches, TrainingConfig, learning_rate, make_generator, train
from calcarine.training import tensor_trees as storage
from calcarine.training.trainer import make_trainer

spec = importlib.util.spec_from_file_location("tiny", Path(__file__).with_name("tiny.py"))
tiny = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tiny)
Tiny, config_of = tiny.Tiny, tiny.settings


def rows_of(path):
    with open(path) as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted training."""
    folder = tmp_path_factory.mktemp("whole")
    return train(Tiny(), config_of(select="best"), folder)


def test_training_is_what_a_plain_loop_gives(tmp_path):
    config = config_of(clip=0.3, betas=(0.8, 0.9), weight_decay=0.5, seed=7)
    result = train(Tiny(), config, tmp_path)
    task = Tiny()
    matrices = [p for p in task.net.parameters() if p.ndim == 2]
    vectors = [p for p in task.net.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}],
        betas=(0.8, 0.9),
        weight_decay=0.5,
    )
    batches, losses = StepBatches(30, 8, 7), []
    for step in range(12):
        optimizer.param_groups[0]["lr"] = learning_rate(step, config)
        optimizer.param_groups[1]["lr"] = learning_rate(step, config)
        optimizer.zero_grad()
        rows, total = torch.from_numpy(batches.rows(step)), 0.0
        for index in range(2):
            generator = make_generator(7, 0, step, index)
            torch.manual_seed(generator.initial_seed())
            loss, _ = task.training_loss(rows[4 * index : 4 * index + 4], generator)
            (loss / 2).backward()
            total += loss.item() / 2
        torch.nn.utils.clip_grad_norm_(task.net.parameters(), 0.3)
        optimizer.step()
        losses.append(total)
    assert [row["loss"] for row in rows_of(result.log_path)] == pytest.approx(losses, rel=1e-5)
    for name, value in result.state.items():
        torch.testing.assert_close(value, task.state_dict()[name])


def test_parameters_have_the_learning_rates_that_the_task_gives(tmp_path):
    """The first step of AdamW is the learning rate, whatever the size of the gradient."""

    class Rated(Tiny):
        def learning_rate_factor(self, name):
            return 0.25 if name.startswith("net.0.") else 1.0

    task = Rated()
    before = {name: value.clone() for name, value in task.state_dict().items()}
    config = config_of(steps=1, warmup_steps=0, weight_decay=0, validate_every=None)
    after = train(task, config, tmp_path).state
    for name, rate in (("0.weight", 0.005), ("0.bias", 0.005), ("3.weight", 0.02)):
        moved = (after[f"net.{name}"] - before[f"net.{name}"]).abs()
        torch.testing.assert_close(moved, torch.full_like(moved, rate), rtol=0.01, atol=0)


def test_the_result_and_its_files(whole):
    folder = whole.folder
    assert {path.name for path in folder.iterdir()} == {
        "checkpoints",
        "log.csv",
        "training.json",
        "validation.csv",
        "weights.safetensors",
    }
    assert not list((folder / "checkpoints").iterdir())  # a cosine cannot go on from them
    stored = load_file(whole.weights_path)
    assert set(stored) == {f"net.{i}.{p}" for i in (0, 3) for p in ("weight", "bias")} | {"mean"}
    validation = rows_of(folder / "validation.csv")
    best = min(validation, key=lambda row: row["loss"])
    assert (whole.selected_step, whole.validation_loss) == (best["step"], best["loss"])
    # The stored weights are those that gave the best validation loss: rows of 4, 4 and 2.
    task = Tiny()
    task.load_state_dict(stored, strict=False)
    task.eval()
    total = sum(
        task.validation_loss(rows, make_generator(2022, 1, i))[0].item() * len(rows)
        for i, rows in enumerate(torch.arange(10).split(4))
    )
    assert total / 10 == pytest.approx(best["loss"], rel=1e-6)
    about = json.loads((folder / "training.json").read_text())
    assert about["steps"] == 12 and about["ended_by"] == "steps" and about["versions"]["torch"]


def test_a_finished_training_returns_at_once(whole):
    class Untouched(Tiny):
        def training_loss(self, rows, generator):
            raise AssertionError("trained again")

    task, done = Untouched(), []
    again = train(task, config_of(select="best", keep=5), whole.folder, progress=done.append)
    assert done == [12]
    assert again.selected_step == whole.selected_step and again.seconds == whole.seconds
    for name, value in again.state.items():
        assert torch.equal(value, whole.state[name])
        assert torch.equal(value, task.state_dict()[name])


@pytest.mark.posix
@pytest.mark.parametrize("seed", [1, 2])
def test_killed_twice_at_any_call_and_continued_the_same(tmp_path, whole, seed):
    config, draw = config_of(select="best"), random.Random(seed)
    # 2 calls a step and 3 a validation: 36 in all; the first kill leaves work for the second.
    tiny.killed_after(tmp_path, draw.randint(6, 18), config)
    tiny.killed_after(tmp_path, draw.randint(1, 12), config)
    done = []
    train(Tiny(), config, tmp_path, progress=done.append)
    assert sum(done) == 12 and done[0] > 1
    assert tiny.traces(tmp_path) == tiny.traces(whole.folder)


@pytest.mark.posix
@pytest.mark.parametrize("moment", ["half of the tensors", "before the JSON", "before the end"])
def test_killed_while_writing_and_continued_the_same(tmp_path, whole, monkeypatch, moment):
    config = config_of(select="best")

    def dies_at(function, when):
        def instead(path, *rest):
            if when(Path(path)):
                tiny.kill()
            return function(path, *rest)

        return instead

    def half_written(tensors, path):
        if path.name == "step-000000006.safetensors":
            path.with_name(path.name + ".0123abcd.part").write_bytes(b"\x08\x00")
            tiny.kill()
        return write(tensors, path)

    def work():
        if moment == "half of the tensors":
            monkeypatch.setattr(storage, "write_tensors", half_written)
        elif moment == "before the JSON":
            at = dies_at(storage.write_bytes, lambda path: path.name == "step-000000006.json")
            monkeypatch.setattr(storage, "write_bytes", at)
        else:
            at = dies_at(os.replace, lambda path: path.name.startswith("training.json."))
            monkeypatch.setattr(os, "replace", at)
        train(Tiny(), config, tmp_path)

    write = storage.write_tensors
    assert tiny.in_child(work) == -signal.SIGKILL
    done = []
    train(Tiny(), config, tmp_path, progress=done.append)
    assert done[:1] == ([4] if moment != "before the end" else [12])
    assert tiny.traces(tmp_path) == tiny.traces(whole.folder)
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.posix
def test_a_damaged_checkpoint_is_told_and_the_one_before_is_used(tmp_path, whole):
    config, said, done = config_of(select="best"), [], []
    tiny.killed_after(tmp_path, 24, config)
    newest = sorted((tmp_path / "checkpoints").glob("step-*.safetensors"))[-1]
    content = bytearray(newest.read_bytes())
    content[-3] ^= 4
    newest.write_bytes(content)
    train(Tiny(), config, tmp_path, say=said.append, progress=done.append)
    assert len(said) == 1 and newest.stem in said[0] and "the checkpoint before it" in said[0]
    assert done[0] == int(newest.stem[-2:]) - 2
    assert tiny.traces(tmp_path) == tiny.traces(whole.folder)


@pytest.mark.posix
def test_without_a_whole_checkpoint_the_folder_to_delete_is_named(tmp_path):
    tiny.killed_after(tmp_path, 24, config_of())
    for path in (tmp_path / "checkpoints").glob("*.json"):
        path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(CalcarineError, match=f"no complete checkpoint.*delete {tmp_path} to start"):
        train(Tiny(), config_of(), tmp_path, say=lambda sentence: None)


@pytest.mark.posix
@pytest.mark.parametrize("ended", [False, True])
def test_another_training_is_refused(tmp_path, ended):
    given = {"split": {"hash": "a1"}}
    if ended:
        train(Tiny(), config_of(), tmp_path, provenance=given)
    else:
        assert (
            tiny.in_child(lambda: train(tiny.Dying(12), config_of(), tmp_path, provenance=given))
            == -signal.SIGKILL
        )
    for config, provenance, told in [
        (config_of(lr=0.5), given, r"lr \(0.02 there, 0.5 now\)"),
        (config_of(steps=20), given, r"steps \(12 there, 20 now\)"),
        (config_of(accumulate=1), given, r"micro-batches per step \(2 there, 1 now\)"),
        (config_of(), {"split": {"hash": "b2"}}, r"provenance.split.hash \(a1 there, b2 now\)"),
    ]:
        with pytest.raises(CalcarineError, match=told) as error:
            train(Tiny(), config, tmp_path, provenance=provenance)
        assert "\n" not in str(error.value) and f"delete {tmp_path}" in str(error.value)
    wider = Tiny()
    wider.net[3] = torch.nn.Linear(5, 3)
    with pytest.raises(CalcarineError, match="shapes"):
        train(wider, config_of(), tmp_path, provenance=given)
    # How often it saves and on how many devices it runs decides no number.
    elsewhere = config_of(save_every_steps=5, keep=1)
    assert train(Tiny(), elsewhere, tmp_path, provenance=given).steps == 12


def test_a_constant_rate_may_go_on_for_longer(tmp_path):
    short, long = (config_of(schedule="constant", steps=steps) for steps in (6, 12))
    train(Tiny(), short, tmp_path / "two")
    assert train(Tiny(), long, tmp_path / "two").steps == 12
    train(Tiny(), long, tmp_path / "one")
    assert tiny.traces(tmp_path / "two") == tiny.traces(tmp_path / "one")
    with pytest.raises(CalcarineError, match="12 steps, more than the 6 of the settings"):
        train(Tiny(), short, tmp_path / "two")


def in_epochs(**changed):
    options = {"steps": None, "warmup_steps": 0, "epochs": 3, "warmup_epochs": 1}
    return config_of(**(options | changed))


def test_epochs_are_as_many_steps_as_it_takes_to_draw_every_row_as_often(tmp_path):
    # 90 rows in batches of 8, and 30 of them in the warm-up.
    known = in_epochs().for_rows(30)
    assert (known.n_steps, known.warmup_steps, known.epochs) == (12, 4, None)
    drawn = [row for step in range(12) for row in StepBatches(30, 8, 2022).rows(step)]
    assert min(drawn.count(row) for row in range(30)) == 3
    with pytest.raises(CalcarineError, match="3 epochs are depends on the training data"):
        _ = in_epochs().n_steps
    result = train(Tiny(), in_epochs(), tmp_path / "epochs")
    assert result.steps == 12
    train(Tiny(), config_of(warmup_steps=4), tmp_path / "steps")
    assert tiny.traces(tmp_path / "epochs") == tiny.traces(tmp_path / "steps")
    assert config_of().for_rows(30) == config_of()


@pytest.mark.posix
def test_a_killed_training_in_epochs_keeps_its_number_of_steps(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train(Tiny(), in_epochs(), whole)
    tiny.killed_after(killed, 13, in_epochs())

    class More(Tiny):
        n_train = 31

    with pytest.raises(CalcarineError, match="another training, which differs in"):
        train(More(), in_epochs(), killed)
    train(Tiny(), in_epochs(), killed)
    assert tiny.traces(killed) == tiny.traces(whole)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"steps": 12}, r"steps \(12\) and epochs \(3\) both set the length"),
        ({"steps": 12, "epochs": None}, "warmup_epochs.*set it to 0 and give warmup_steps"),
        ({"warmup_steps": 3}, "Give warmup_steps or warmup_epochs"),
        ({"warmup_epochs": 4}, "more than all 3 epochs"),
        ({"select": "best", "validate_every": None}, r"set validate_every to a number of steps\.$"),
    ],
)
def test_lengths_that_contradict_each_other_are_refused(changed, message):
    with pytest.raises(CalcarineError, match=message):
        in_epochs(**changed)


def test_what_depends_on_the_number_of_steps_is_checked_once_it_is_known():
    with pytest.raises(CalcarineError, match="warmup_steps is 13, more than all 12 steps"):
        in_epochs(warmup_epochs=0, warmup_steps=13).for_rows(30)
    with pytest.raises(CalcarineError, match="up to 12"):
        in_epochs(select="best", validate_every=13).for_rows(30)


def test_without_a_length_there_are_10000_steps_and_identities_are_as_before():
    assert TrainingConfig().n_steps == 10_000
    assert not {"epochs", "warmup_epochs"} & set(config_of().identity)
    assert in_epochs().identity != in_epochs(epochs=4).identity
    # With a constant rate either kind of length may be raised.
    constant = {"schedule": "constant"}
    assert in_epochs(**constant).identity == in_epochs(epochs=4, **constant).identity


@pytest.mark.parametrize("setting", [{"select": "best"}, {"patience": 2}, {}])
def test_without_validation_samples_nothing_goes_by_them(tmp_path, setting):
    class Alone(Tiny):
        n_validation = 0

    with pytest.raises(CalcarineError, match="no validation samples"):
        train(Alone(), config_of(**setting), tmp_path)
    assert train(Alone(), config_of(validate_every=None), tmp_path).validation_loss is None


def test_patience_ends_after_validations_without_a_better_one(tmp_path):
    class Worse(Tiny):
        def validation_loss(self, rows, generator):
            return torch.as_tensor(next(falls)) + 0.0, {}

    # Three micro-batches a validation.
    falls = iter([loss for loss in (3.0, 2.0, 2.5, 2.0, 9.0) for _ in range(3)])
    config = config_of(patience=2, select="best", steps=100, validate_every=2)
    result = train(Worse(), config, tmp_path)
    assert (result.ended_by, result.steps, result.selected_step) == ("patience", 8, 4)
    assert train(Worse(), config, tmp_path).steps == 8


@pytest.mark.parametrize("where", ["part", "gradient"])
def test_not_finite_stops_with_one_sentence_and_can_be_continued(tmp_path, where):
    class Poisoned(Tiny):
        def training_loss(self, rows, generator):
            loss, parts = super().training_loss(rows, generator)
            if rows.tolist() == bad:
                if where == "part":
                    return loss * math.nan, parts | {"error": math.nan}
                loss = loss + (self.net[3].bias - self.net[3].bias.detach()).sum().abs().sqrt()
            return loss, parts

    bad = StepBatches(30, 8, 2022).chunk(7, 1, 2).tolist()
    with pytest.raises(CalcarineError) as error:
        train(Poisoned(), config_of(), tmp_path)
    told = str(error.value)
    assert "step 8:" in told and "\n" not in told
    assert ("'error'" if where == "part" else "net.3.bias") in told
    named = bad if where == "part" else StepBatches(30, 8, 2022).rows(7).tolist()
    assert f"rows {', '.join(map(str, named))};" in told
    assert [path.stem[-1] for path in sorted((tmp_path / "checkpoints").glob("*.json"))] == list(
        "46"
    )
    train(Tiny(), config_of(), tmp_path)
    train(Tiny(), config_of(), tmp_path / "whole")
    assert tiny.traces(tmp_path) == tiny.traces(tmp_path / "whole")


@pytest.mark.posix
@pytest.mark.parametrize(
    ("number", "ending"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_a_signal_saves_the_step_and_ends(tmp_path, whole, number, ending):
    config, handlers = config_of(select="best", save_every_steps=None), signal.getsignal(number)

    def interrupt(n):
        done.append(n)
        if sum(done) == 5:
            os.kill(os.getpid(), number)

    done = []
    with pytest.raises(ending) as error:
        train(Tiny(), config, tmp_path, progress=interrupt)
    assert number == signal.SIGINT or error.value.code == 143
    assert signal.getsignal(number) is handlers
    assert [p.name for p in (tmp_path / "checkpoints").glob("step*.json")] == [
        "step-000000006.json"
    ]
    done = []
    train(Tiny(), config, tmp_path, progress=done.append)
    assert done[0] == 6
    assert tiny.traces(tmp_path) == tiny.traces(whole.folder)


@pytest.mark.posix
def test_a_full_disk_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    config = config_of()

    def fill(n):
        done.append(n)
        if sum(done) == 4:
            monkeypatch.setattr(files.secrets, "token_hex", lambda n: "0" * 2 * n)
            full = tmp_path / "checkpoints" / "step-000000006.safetensors.00000000.part"
            full.symlink_to("/dev/full")

    done = []
    with pytest.raises(CalcarineError, match="disk is full"):
        train(Tiny(), config, tmp_path, progress=fill)
    done = []
    train(Tiny(), config, tmp_path, progress=done.append)
    train(Tiny(), config, tmp_path / "whole")
    assert done[0] == 4 and tiny.traces(tmp_path) == tiny.traces(tmp_path / "whole")


def test_forked_processes_give_what_one_gives_that_accumulates_twice(tmp_path):
    one = train(tiny.Even(), config_of(steps=6), tmp_path / "one")
    places = {"accumulate": 1, "devices": 2, "strategy": "ddp_fork"}
    two = train(tiny.Even(), config_of(steps=6, **places), tmp_path / "two")
    for name in ("log.csv", "validation.csv"):
        first, second = (rows_of(tmp_path / folder / name) for folder in ("one", "two"))
        assert [list(row) for row in first] == [list(row) for row in second]
        for a, b in zip(first, second, strict=True):
            assert b == pytest.approx(a, rel=1e-5)
    for name, value in two.state.items():
        torch.testing.assert_close(value, one.state[name])
    # What one process has done is found by two.
    assert train(tiny.Even(), config_of(steps=6, **places), tmp_path / "one").loss == one.loss


def test_half_precision_and_what_devices_cannot_do(tmp_path, whole):
    half = train(Tiny(), config_of(precision="bf16", select="best"), tmp_path / "bf16")
    assert half.loss != whole.loss and half.loss == pytest.approx(whole.loss, rel=0.02)
    assert half.state["net.0.weight"].dtype == torch.float32
    with pytest.raises(CalcarineError, match="choose bf16 or 32"):
        train(Tiny(), config_of(precision="16"), tmp_path / "fp16")
    with pytest.raises(CalcarineError, match="Lightning cannot train this way"):
        train(Tiny(), config_of(accelerator="cuda"), tmp_path / "cuda")
    with pytest.raises(CalcarineError, match="on 2 devices, and cuda:1 is one of them"):
        make_trainer(config_of(accelerator="cuda:1", devices=2), tmp_path, None, 0)
    with pytest.raises(CalcarineError, match="frozen"):
        train(Tiny().requires_grad_(False), config_of(), tmp_path / "frozen")


def test_a_training_on_auto_takes_a_device_that_is_given():
    assert TrainingConfig().on_device("cuda:1").accelerator == "cuda:1"
    assert TrainingConfig().on_device(torch.device("cpu")).accelerator == "cpu"
    assert TrainingConfig().on_device("auto") == TrainingConfig()
    assert TrainingConfig(accelerator="gpu").on_device("cpu").accelerator == "gpu"
    assert TrainingConfig().on_device("cpu").identity == TrainingConfig().identity
    with pytest.raises(ValueError, match="accelerator"):
        TrainingConfig(accelerator="cuda:x")


def test_one_gpu_of_several_is_handed_to_lightning(tmp_path, monkeypatch):
    given = {}

    def trainer(**options):
        given.update(options)
        raise ValueError("enough")

    monkeypatch.setattr("lightning.pytorch.Trainer", trainer)
    for accelerator, expected in (("cuda:1", ("cuda", [1])), ("gpu", ("gpu", 1))):
        with pytest.raises(CalcarineError, match="enough"):
            make_trainer(config_of(accelerator=accelerator), tmp_path, None, 0)
        assert (given["accelerator"], given["devices"]) == expected


def test_it_is_silent_and_lightning_comes_late(tmp_path):
    script = f"""
import sys, runpy
import calcarine.visdec, calcarine.training
assert not any(name.split(".")[0] in ("lightning", "diffusers") for name in sys.modules)
tiny = runpy.run_path({str(Path(__file__).with_name("tiny.py"))!r})
tiny["train"](tiny["Tiny"](), tiny["settings"](), {str(tmp_path / "a")!r})
"""
    paths = os.pathsep.join(map(os.path.abspath, sys.path))
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_tensorboard_has_the_losses_within_the_folder(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = config_of(loggers=["csv", "tensorboard"])
    result = train(Tiny(), config, tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    seen = [(event.step, event.value) for event in events.Scalars("training/loss")]
    assert seen == [(row["step"], pytest.approx(row["loss"])) for row in rows_of(result.log_path)]
