"""Where memory runs out, a sentence names the settings that help."""

import json

import pytest
import torch

from calcarine.cli import main
from calcarine.diffusion import Autoencoder, LatentDiffusion
from calcarine.errors import CalcarineError, out_of_memory
from calcarine.experiment import STAGES, load_experiment, run_stage
from calcarine.experiment.out_of_memory import explain_memory
from calcarine.experiment.run_directory import RunDirectory
from calcarine.experiment.runner import start_run
from calcarine.experiment.stages import run_keys
from calcarine.experiment.workspace import Workspace

GPU = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("MPS backend out of memory (MPS allocated: 9.05 GB)"),
]
MACHINE = [
    MemoryError(),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 8 bytes"),
]
OTHER = [RuntimeError("shape mismatch"), CalcarineError("out of memory"), OSError("x")]


def wrapped(error):
    try:
        raise ValueError("while loading") from error
    except ValueError as outer:
        return outer


@pytest.mark.parametrize("error", [*GPU, *MACHINE, *OTHER], ids=lambda e: str(e)[:30])
def test_whose_memory_ran_out(error):
    expected = "GPU" if error in GPU else "machine" if error in MACHINE else None
    assert out_of_memory(error) == expected
    assert out_of_memory(wrapped(error)) == expected


@pytest.mark.parametrize("error", GPU, ids=lambda e: str(e)[:30])
@pytest.mark.parametrize(
    ("stage", "names"),
    [
        ("reconstruct", ("compute.precision to auto", "compute.device to cpu")),
        ("features", ("compute.precision to auto", "compute.device to cpu")),
        ("encode", ("compute.precision to auto", "compute.device to cpu")),
        ("fit", ("compute.precision to auto", "compute.device to cpu")),
        ("evaluate", ("other programs on the GPU", "compute.device to cpu")),
        ("pretrain", ("visdec.pretrain.training.batch_size (now 64)", "training.precision")),
        ("guide", ("visdec.guide.training.batch_size", "visdec.guide.training.precision")),
        ("finetune", ("visdec.finetune.training.batch_size", "visdec.finetune.training.precision")),
    ],
)
def test_the_sentence_names_the_settings_of_the_stage(error, stage, names):
    with (
        pytest.raises(CalcarineError) as told,
        explain_memory(
            load_experiment("demo", settings=["compute.precision=float32"]), STAGES[stage]
        ),
    ):
        raise error
    for name in names:
        assert name in str(told.value)
    # A GPU's batches were halved before; see calcarine.devices.BatchSizes.
    assert "generation.batch_size" not in str(told.value)


def test_what_cannot_help_is_not_advised():
    config = load_experiment("demo", None, ["generation.batch_size=1"])
    with pytest.raises(CalcarineError) as told, explain_memory(config, STAGES["reconstruct"]):
        raise MemoryError
    assert "batch_size" not in str(told.value) and "precision" not in str(told.value)
    config = load_experiment("demo")
    with pytest.raises(CalcarineError) as told, explain_memory(config, STAGES["reconstruct"]):
        raise MemoryError
    assert "generation.batch_size (now 32)" in str(told.value)
    with pytest.raises(CalcarineError) as told, explain_memory(config, STAGES["reconstruct"]):
        raise GPU[0]
    assert "precision" not in str(told.value)
    with pytest.raises(RuntimeError, match="other"), explain_memory(config, STAGES["reconstruct"]):
        raise RuntimeError("other")


@pytest.mark.parametrize("method", ["encode", "generate", "to"])
def test_a_command_ends_in_one_sentence(
    method, tiny_stable_diffusion, tmp_path, monkeypatch, capsys
):
    def fail(*args, **kwargs):
        raise GPU[0]

    monkeypatch.setattr(LatentDiffusion, method, fail)
    options = {"n_train": 24, "n_test": 8, "n_early": 10, "n_ventral": 10, "n_other": 2}
    arguments = [
        "calcarine",
        "run",
        "--preset",
        "takagi",
        "--dataset",
        "simulated",
        "--out",
        str(tmp_path / "run"),
        "--set",
        f"generation.model={tiny_stable_diffusion}",
        "--set",
        f"dataset.options={json.dumps(options)}",
        "--set",
        "generation.steps=2",
    ]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    told = capsys.readouterr().err
    assert "compute.device to cpu" in told
    assert "Traceback" not in told
    # Moving the model to the GPU belongs to no stage; in one, the sentence has its settings.
    assert ("too small for the stage" in told) == (method != "to")


@pytest.mark.filterwarnings("default::calcarine.devices.SmallerBatchWarning")
def test_a_run_goes_on_with_smaller_batches_and_says_so_once(
    tiny_stable_diffusion, tmp_path, monkeypatch, capsys
):
    encoded, sizes = Autoencoder._encoded, []

    def limited(self, pictures, *rest):
        sizes.append(len(pictures))
        if len(pictures) > 4:
            raise GPU[0]
        return encoded(self, pictures, *rest)

    monkeypatch.setattr(Autoencoder, "_encoded", limited)
    options = {"n_train": 24, "n_test": 8, "n_early": 10, "n_ventral": 10, "n_other": 2}
    settings = [
        f"generation.model={tiny_stable_diffusion}",
        f"dataset.options={json.dumps(options)}",
    ]
    start_run(load_experiment("takagi", None, settings), tmp_path / "run")
    monkeypatch.setattr("sys.argv", ["calcarine", "features", str(tmp_path / "run")])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    told = capsys.readouterr().err
    assert told.count("Note: The memory of the GPU is too small for 32 items at once") == 1
    assert sizes == [32, 16, 8, *[4] * 8]


def test_the_batch_size_of_generation_is_that_of_features(
    tiny_stable_diffusion, tmp_path, monkeypatch
):
    """The sentence would advise in vain if latents were encoded in batches of their own."""
    options = {"n_train": 24, "n_test": 8, "n_early": 10, "n_ventral": 10, "n_other": 2}
    settings = [
        f"generation.model={tiny_stable_diffusion}",
        f"dataset.options={json.dumps(options)}",
        "generation.batch_size=3",
    ]
    seen = []
    encode = LatentDiffusion.encode

    def count(self, images, batch_size=32, *args, **kwargs):
        seen.append(batch_size)
        return encode(self, images, batch_size, *args, **kwargs)

    monkeypatch.setattr(LatentDiffusion, "encode", count)
    work = Workspace(RunDirectory(tmp_path / "run", load_experiment("takagi", None, settings)))
    run_stage(work, "features")
    assert set(seen) == {3}
    other = Workspace(
        RunDirectory(tmp_path / "other", load_experiment("takagi", None, settings[:2]))
    )
    assert run_keys(other)["features"] == run_keys(work)["features"]
