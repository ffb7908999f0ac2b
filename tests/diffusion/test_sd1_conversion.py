"""The original single file of Stable Diffusion v1, written here by the inverse of its layout."""

import json
import multiprocessing
import os
import re
import signal
import sys
import types

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from calcarine.checkpoints.single_file import convert_once
from calcarine.diffusion import LatentDiffusion
from calcarine.diffusion import sd1_conversion as original
from calcarine.errors import CalcarineError

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
WHOLE = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def original_unet(model):
    layers, attentive = model.config.layers_per_block, model.config.up_block_types
    state = {}
    for key, value in model.state_dict().items():
        for new, old in WHOLE.items():
            if key.startswith(new + "."):
                key = key.replace(new, old, 1)
        found = re.match(r"(down|up|mid)_blocks?\.(\d+)?\.?(\w+)\.(\d+)\.(.*)", key)
        if found:
            way, block, kind, number, rest = found.groups()
            number, at = int(number), int(block or 0) * (layers + 1)
            if kind == "resnets":
                name, leaf = rest.rsplit(".", 1)
                rest = f"{RESNET[name]}.{leaf}"
            inside = {"resnets": 0, "attentions": 1}.get(kind)
            if way == "mid":
                key = f"middle_block.{2 * number if kind == 'resnets' else 1}.{rest}"
            elif kind == "downsamplers":
                key = f"input_blocks.{at + layers + 1}.0.op.{rest.removeprefix('conv.')}"
            elif kind == "upsamplers":
                last = 2 if "CrossAttn" in attentive[int(block)] else 1
                key = f"output_blocks.{at + layers}.{last}.{rest}"
            elif way == "down":
                key = f"input_blocks.{1 + at + number}.{inside}.{rest}"
            else:
                key = f"output_blocks.{at + number}.{inside}.{rest}"
        state[f"model.diffusion_model.{key}"] = value
    return state


def original_vae(model):
    last, state = len(model.config.block_out_channels) - 1, {}
    for key, value in model.state_dict().items():
        key = key.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
        key = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", key)
        key = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", key)
        key = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", key)
        key = re.sub(r"up_blocks\.(\d)\.resnets", lambda m: f"up.{last - int(m[1])}.block", key)
        key = re.sub(
            r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{last - int(m[1])}.upsample", key
        )
        if "mid_block.attentions.0." in key:
            half, rest = key.split("mid_block.attentions.0.")
            name, leaf = rest.rsplit(".", 1)
            key = f"{half}mid.attn_1.{ATTENTION[name]}.{leaf}"
            if leaf == "weight" and name != "group_norm":
                value = value[:, :, None, None]
        state[f"first_stage_model.{key}"] = value
    return state


def original_state(model):
    text = {
        f"cond_stage_model.transformer.text_model.{k.removeprefix('text_model.')}": v
        for k, v in model.text_encoder.state_dict().items()
    }
    text["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(77)[None]
    extra = {"betas": torch.linspace(0, 1, 10), "scale_factor": torch.tensor(0.18215)}
    found = {**original_unet(model.unet), **original_vae(model.vae), **text, **extra}
    return {key: value.clone().contiguous() for key, value in found.items()}


@pytest.fixture(scope="module")
def model(tiny_stable_diffusion):
    return LatentDiffusion.from_pretrained(tiny_stable_diffusion, device="cpu")


@pytest.fixture(scope="module")
def state(model):
    return original_state(model)


@pytest.fixture
def options(tiny_stable_diffusion, tmp_path):
    """Settings of the tiny model without its weights, its tokenizer, and a cache."""
    frame = tmp_path / "frame"
    for part in ("unet", "vae", "text_encoder", "scheduler"):
        (frame / part).mkdir(parents=True)
        for file in (tiny_stable_diffusion / part).glob("*.json"):
            (frame / part / file.name).write_text(file.read_text())
    (frame / "model_index.json").write_text(
        (tiny_stable_diffusion / "model_index.json").read_text()
    )
    return {
        "device": "cpu",
        "config": frame,
        "tokenizer": tiny_stable_diffusion / "tokenizer",
        "cache": tmp_path / "cache",
    }


def outputs(model):
    rng = np.random.default_rng(0)
    context = model.embed_text(["a cat", "b"])
    z = model.encode(rng.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8))
    made = model.generate(context, [("a", 0), ("b", 0)], z, steps=3)
    return context, z, made, model.decode(made)


def with_training_record(state, file):
    """What Lightning leaves beside the weights: a class by name, and numbers."""
    names = ("pytorch_lightning", "callbacks", "model_checkpoint")
    modules = {".".join(names[: i + 1]): types.ModuleType(names[i]) for i in range(3)}
    kind = type("ModelCheckpoint", (), {"__module__": ".".join(names)})
    modules[".".join(names)].ModelCheckpoint = kind
    with pytest.MonkeyPatch.context() as patch:
        for name, module in modules.items():
            patch.setitem(sys.modules, name, module)
        record = {kind: {"best_model_score": torch.tensor(0.1), "dirpath": "logs"}}
        torch.save({"state_dict": state, "global_step": 5, "callbacks": record}, file)


def test_a_checkpoint_gives_what_the_folder_gives(model, state, options, tmp_path, monkeypatch):
    file = tmp_path / "sd-v1-4.ckpt"
    with_training_record(state, file)
    converted = LatentDiffusion.from_pretrained(file, **options)
    for ours, theirs in zip(outputs(converted), outputs(model), strict=True):
        assert np.array_equal(ours, theirs)
    assert len(list((options["cache"] / "converted").iterdir())) == 1

    def again(*arguments):
        raise AssertionError("converted twice")

    monkeypatch.setattr(original, "_convert", again)
    assert LatentDiffusion.from_pretrained(file, **options).digest == converted.digest


def test_safetensors_in_the_original_layout(model, state, options, tmp_path):
    save_file(state, tmp_path / "v1.safetensors")
    converted = LatentDiffusion.from_pretrained(tmp_path / "v1.safetensors", **options)
    assert np.array_equal(outputs(converted)[2], outputs(model)[2])


def test_averaged_weights_are_taken_unless_refused(model, state, options, tmp_path):
    averages = {
        "model_ema." + key.removeprefix("model.").replace(".", ""): value * 0.5
        for key, value in state.items()
        if key.startswith("model.diffusion_model.")
    }
    file = tmp_path / "full-ema.ckpt"
    torch.save({"state_dict": {**state, **averages}}, file)
    weight = model.unet.conv_in.weight
    averaged = LatentDiffusion.from_pretrained(file, **options)
    assert torch.equal(averaged.unet.conv_in.weight, weight * 0.5)
    assert torch.equal(averaged.vae.encoder.conv_in.weight, model.vae.encoder.conv_in.weight)
    plain = LatentDiffusion.from_pretrained(file, ema=False, **options)
    assert torch.equal(plain.unet.conv_in.weight, weight)
    assert averaged.digest != plain.digest


class _Evil:
    def __reduce__(self):
        import pathlib

        return pathlib.Path.touch, (pathlib.Path(_Evil.mark),)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_checkpoint_is_refused_and_never_run(state, options, tmp_path, zipped):
    _Evil.mark = tmp_path / "ran"
    file = tmp_path / "evil.ckpt"
    torch.save({"state_dict": state, "hook": _Evil()}, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CalcarineError, match="could run code"):
        LatentDiffusion.from_pretrained(file, **options)
    assert not _Evil.mark.exists()


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_truncated_files_are_told_and_leave_nothing(state, options, tmp_path, suffix):
    file = tmp_path / f"model{suffix}"
    torch.save({"state_dict": state}, file) if suffix == ".ckpt" else save_file(state, file)
    file.write_bytes(file.read_bytes()[:-500])
    with pytest.raises(CalcarineError, match="truncated"):
        LatentDiffusion.from_pretrained(file, **options)
    assert not list((options["cache"] / "converted").iterdir())
    file.write_bytes(b"no checkpoint at all")
    with pytest.raises(CalcarineError, match=r"not a whole"):
        LatentDiffusion.from_pretrained(file, **options)


def test_other_models_are_told(state, options, tmp_path):
    file = tmp_path / "other.safetensors"
    save_file(state, file)
    with pytest.raises(CalcarineError, match="another model: conv_in"):
        LatentDiffusion.from_pretrained(file, **{**options, "config": None})
    for key, told in [
        ("model.diffusion_model.middle_block.1.norm.weight", "lacks the weight mid_block"),
        ("model.diffusion_model.out.2.bias", "lacks the weight conv_out.bias"),
    ]:
        save_file({k: v for k, v in state.items() if k != key}, file)
        with pytest.raises(CalcarineError, match=told):
            LatentDiffusion.from_pretrained(file, **options)
    save_file({k: v for k, v in state.items() if "cond_stage" not in k}, file)
    with pytest.raises(CalcarineError, match="cond_stage_model"):
        LatentDiffusion.from_pretrained(file, **options)


def test_a_missing_tokenizer_is_told(state, options, tmp_path, monkeypatch):
    import huggingface_hub

    def offline(*arguments, **more):
        raise ConnectionError

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    save_file(state, tmp_path / "v1.safetensors")
    for folder, told in [(None, "openai/clip-vit-large-patch14"), (tmp_path, "vocab.json")]:
        with pytest.raises(CalcarineError, match=told):
            LatentDiffusion.from_pretrained(
                tmp_path / "v1.safetensors", **{**options, "tokenizer": folder}
            )


def test_the_configuration_is_that_of_stable_diffusion_v1():
    """Numbers of weights of the published networks."""
    configs = {
        part: json.loads((original.SD_V1 / part / "config.json").read_text())
        for part in ("unet", "vae", "text_encoder")
    }
    shapes = original._expected(configs)
    counts = {part: sum(int(np.prod(s)) for s in found.values()) for part, found in shapes.items()}
    assert counts == {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480}


def test_the_published_layout_is_understood_whole():
    """Full size without memory: names, shapes and numbers of tensors as in sd-v1-4.ckpt."""
    from types import SimpleNamespace

    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    frame = original.SD_V1
    with torch.device("meta"):
        parts = SimpleNamespace(
            unet=UNet2DConditionModel.from_config(
                json.loads((frame / "unet/config.json").read_text())
            ),
            vae=AutoencoderKL.from_config(json.loads((frame / "vae/config.json").read_text())),
            text_encoder=CLIPTextModel(CLIPTextConfig.from_pretrained(frame / "text_encoder")),
        )
    state = original_state(parts)
    counts = [
        sum(key.startswith(prefix) for key in state)
        for prefix in ("model.diffusion_model.", "first_stage_model.", "cond_stage_model.")
    ]
    assert counts == [686, 248, 197]
    for key, shape in {
        "model.diffusion_model.output_blocks.11.0.skip_connection.weight": (320, 640, 1, 1),
        "model.diffusion_model.output_blocks.2.1.conv.weight": (1280, 1280, 3, 3),
        "model.diffusion_model.output_blocks.5.2.conv.weight": (1280, 1280, 3, 3),
        "model.diffusion_model.input_blocks.3.0.op.weight": (320, 320, 3, 3),
        "model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight": (1280, 768),
        "first_stage_model.encoder.mid.attn_1.q.weight": (512, 512, 1, 1),
        "first_stage_model.decoder.up.1.block.0.nin_shortcut.weight": (256, 512, 1, 1),
        "cond_stage_model.transformer.text_model.final_layer_norm.weight": (768,),
    }.items():
        assert tuple(state[key].shape) == shape
    converted = original.convert_state(state, frame)
    assert [len(converted[part]) for part in ("unet", "vae", "text_encoder")] == [686, 248, 196]


@pytest.mark.posix
def test_what_a_killed_conversion_left_is_removed(tmp_path):
    def killed(folder):
        (folder / "weights").write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)

    def whole(folder):
        (folder / "model_index.json").write_text("{}")

    context = multiprocessing.get_context("fork")
    one = context.Process(target=convert_once, args=(["a"], killed, tmp_path))
    one.start()
    one.join()
    left = list((tmp_path / "converted").glob("*.part-*"))
    assert one.exitcode == -signal.SIGKILL and len(left) == 1
    final = convert_once(["a"], whole, tmp_path)
    assert list((tmp_path / "converted").iterdir()) == [final]
