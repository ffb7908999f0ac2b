import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

torch.set_num_threads(1)
os.environ.pop("CALCARINE_STORE", None)  # tests leave a store of features alone

WINDOWS = sys.platform == "win32"
# These measure memory with the module resource, which Windows lacks.
collect_ignore = ["fuzz", "linear/test_out_of_core.py"] if WINDOWS else []


@pytest.fixture(scope="session")
def measured() -> Path:
    """Folder of the measured data sets, which are not part of the repository."""
    shared = os.environ.get("CALCARINE_SHARED", str(Path(__file__).parents[2] / "shared"))
    folder = Path(shared) / "data"
    if not folder.is_dir():
        pytest.skip(f"no measured data in {folder}; set CALCARINE_SHARED")
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "measured" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.real)
        if WINDOWS and item.get_closest_marker("posix"):
            item.add_marker(pytest.mark.skip(reason="needs fork or signals, which Windows lacks"))


@pytest.fixture(scope="session")
def tiny_stable_diffusion(tmp_path_factory) -> Path:
    """A tiny random model in the folder format, classes and settings of Stable Diffusion v1."""
    return make_stable_diffusion(tmp_path_factory.mktemp("stable-diffusion-v1"))


def make_stable_diffusion(folder: Path) -> Path:
    """Write the model of `tiny_stable_diffusion` to a folder of ``folder``."""
    from diffusers import (
        AutoencoderKL,
        DDIMScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        block_out_channels=(8, 8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=64,
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(16, 32),
        norm_num_groups=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=4,
    )
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=60,
            hidden_size=32,
            intermediate_size=37,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=77,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        )
    )
    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(x + "</w>" for x in letters)]
    words = folder / "words"
    words.mkdir()
    (words / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
    (words / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(
        str(words / "vocab.json"), str(words / "merges.txt"), model_max_length=77
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    pipeline = StableDiffusionPipeline(
        vae, text, tokenizer, unet, scheduler, None, None, requires_safety_checker=False
    )
    pipeline.save_pretrained(folder / "model")
    return folder / "model"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(42)


@pytest.fixture
def heard():
    """A progress display that keeps what a run says, in ``lines``."""
    from calcarine.experiment.progress import Progress

    class Heard(Progress):
        def __init__(self) -> None:
            self.lines: list[str] = []

        def say(self, text: str) -> None:
            self.lines.append(text)

    return Heard()


@pytest.fixture
def gpus(monkeypatch):
    """Return a function that gives this machine so many CUDA GPUs, or the GPU of a Mac."""

    def give(count: int = 0, capability: tuple[int, int] = (9, 0), mps: bool = False) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some GPU")
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return give
