"""The class-conditional model's single file, written here by the inverse of its layout."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from calcarine.diffusion import (
    Autoencoder,
    LatentDiffusion,
    class_context,
    load_class_conditional,
    load_model,
    random_class_conditional,
    trainable_parts,
)
from calcarine.diffusion import cin256_conversion as cin256
from calcarine.errors import CalcarineError

# U-Net and first stage are laid out as in Stable Diffusion v1; test modules cannot be imported.
LAYOUT = runpy.run_path(str(Path(__file__).with_name("test_sd1_conversion.py")))


def original_state(unet, vae, classes):
    found = {**LAYOUT["original_unet"](unet), **LAYOUT["original_vae"](vae)}
    found["cond_stage_model.embedding.weight"] = classes
    return {key: value.detach().clone().contiguous() for key, value in found.items()}


@pytest.fixture(scope="module")
def parts():
    """Other widths, depths and numbers than the published ones, so that shapes must tell them."""
    from diffusers import UNet2DConditionModel, VQModel

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=64,
        in_channels=3,
        out_channels=3,
        layers_per_block=2,
        block_out_channels=(32, 64, 96),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=24,
        attention_head_dim=1,
    )
    vae = VQModel(
        block_out_channels=(32, 64),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        latent_channels=3,
        num_vq_embeddings=50,
    )
    vae.quantize.embedding.weight.data.normal_()
    return SimpleNamespace(unet=unet.eval(), vae=vae.eval(), classes=torch.randn(7, 24))


@pytest.fixture(scope="module")
def state(parts):
    roots = torch.linspace(0.0015**0.5, 0.0195**0.5, 1000)
    return {**original_state(parts.unet, parts.vae, parts.classes), "betas": roots**2}


@pytest.fixture(scope="module")
def loaded(state, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cin256")
    torch.save({"state_dict": state, "global_step": 5}, folder / "model.ckpt")
    return load_class_conditional(folder / "model.ckpt", "cpu", cache=folder / "cache"), folder


@torch.no_grad()
def test_a_checkpoint_gives_what_the_original_modules_give(parts, loaded, rng):
    model, _ = loaded
    x = torch.from_numpy(rng.standard_normal((2, 3, 8, 8)).astype(np.float32))
    context = class_context(model, [2, 6])
    assert np.array_equal(context, parts.classes.numpy()[[2, 6], None])
    for t in (0, 700):
        told = {"timestep": torch.tensor(t), "encoder_hidden_states": torch.from_numpy(context)}
        ours, theirs = model.unet(x, **told).sample, parts.unet(x, **told).sample
        assert torch.allclose(ours, theirs, atol=1e-5)
        assert theirs.std() > 0.01
    distances = ((x[:, None] - parts.vae.quantize.embedding.weight[..., None, None]) ** 2).sum(2)
    nearest = parts.vae.quantize.embedding.weight[distances.argmin(1)].permute(0, 3, 1, 2)
    pixels = parts.vae.decoder(parts.vae.post_quant_conv(nearest))
    pixels = ((pixels + 1) / 2).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    assert np.allclose(model.decode(x.numpy()), pixels, atol=1e-5)


@torch.no_grad()
def test_encoding_is_before_quantisation_and_not_scaled(parts, loaded, rng):
    images = rng.integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    expected = parts.vae.quant_conv(parts.vae.encoder(x)).numpy()
    found = loaded[0].encode(images)
    assert np.allclose(found, expected, atol=1e-5)
    assert found.shape == (2, 3, 8, 8)
    codes = parts.vae.quantize.embedding.weight.numpy()
    assert np.abs(found[0, :, 0, 0] - codes).max(1).min() > 1e-3
    with pytest.raises(CalcarineError, match="no posterior"):
        loaded[0].encode(images, sample=[("a", 0), ("b", 0)])


def test_it_is_converted_once_and_the_folder_loads_too(loaded, monkeypatch):
    model, folder = loaded
    (converted,) = (folder / "cache" / "converted").iterdir()
    monkeypatch.setattr(cin256, "_convert", lambda *arguments: pytest.fail("converted twice"))
    again = load_class_conditional(folder / "model.ckpt", "cpu", cache=folder / "cache")
    direct = load_class_conditional(converted, "cpu")
    assert model.digest == again.digest == direct.digest
    assert torch.equal(direct.unet.conv_in.weight, model.unet.conv_in.weight)
    alone = Autoencoder.from_pretrained(converted / "vae")
    assert torch.equal(alone.vae.quantize.embedding.weight, model.vae.quantize.embedding.weight)
    with pytest.raises(CalcarineError, match="text_encoder"):
        LatentDiffusion.from_pretrained(converted)


def test_averaged_weights_are_taken_unless_refused(state, parts, tmp_path):
    averages = {
        "model_ema." + key.removeprefix("model.").replace(".", ""): value * 0.5
        for key, value in state.items()
        if key.startswith("model.diffusion_model.")
    }
    save_file({**state, **averages}, tmp_path / "model.safetensors")
    for ema, factor in [(True, 0.5), (False, 1.0)]:
        model = load_class_conditional(
            tmp_path / "model.safetensors", "cpu", cache=tmp_path, ema=ema
        )
        assert torch.equal(model.unet.conv_in.weight, parts.unet.conv_in.weight * factor)
        assert torch.equal(model.vae.decoder.conv_in.weight, parts.vae.decoder.conv_in.weight)


def test_what_lies_there_tells_the_kind_of_model(state, loaded, tiny_stable_diffusion, tmp_path):
    model, folder = loaded
    (converted,) = (folder / "cache" / "converted").iterdir()
    save_file(state, tmp_path / "model.safetensors")
    for source in (folder / "model.ckpt", converted, tmp_path / "model.safetensors"):
        found = load_model(source, "cpu", cache=tmp_path)
        assert torch.equal(found.unet.conv_in.weight, model.unet.conv_in.weight)
        assert class_context(found, [0]).shape == (1, 1, 24)
    assert isinstance(load_model(tiny_stable_diffusion, "cpu"), LatentDiffusion)
    with pytest.raises(CalcarineError, match="no diffusion model at 'nowhere'"):
        load_model("nowhere")


class _Evil:
    def __reduce__(self):
        return Path.touch, (Path(_Evil.mark),)


def test_code_and_torn_files_are_told_in_one_sentence(state, tmp_path):
    _Evil.mark = tmp_path / "ran"
    evil, torn, text = (tmp_path / f"{name}.ckpt" for name in ("evil", "torn", "text"))
    torch.save({"state_dict": state, "hook": _Evil()}, evil)
    torch.save({"state_dict": state}, torn)
    torn.write_bytes(torn.read_bytes()[:-500])
    text.write_text("no checkpoint at all")
    for file, told in [(evil, "could run code"), (torn, "truncated"), (text, "not a whole")]:
        with pytest.raises(CalcarineError, match=told) as caught:
            load_class_conditional(file, cache=tmp_path)
        assert "\n" not in str(caught.value)
    assert not _Evil.mark.exists()
    assert not list((tmp_path / "converted").iterdir())
    with pytest.raises(CalcarineError, match="no class-conditional model"):
        load_class_conditional(tmp_path / "nowhere")
    with pytest.raises(CalcarineError, match="model_index"):
        load_class_conditional(tmp_path)


UNET = "model.diffusion_model."
WRONG = {
    "unet_shape": (f"{UNET}out.2.weight", (3, 32, 1, 1), r"conv_out.weight of its unet has shape"),
    "code_width": (
        "first_stage_model.quantize.embedding.weight",
        (50, 4),
        r"quant_conv.weight of its vae has shape \(3, 3, 1, 1\) where its other",
    ),
    "odd_width": (
        f"{UNET}input_blocks.2.0.out_layers.3.weight",
        (33, 32, 3, 3),
        "another model than cin256-v2",
    ),
    "classes": ("cond_stage_model.embedding.weight", (7, 20), "weight of its classes has shape"),
    "betas": ("betas", (500,), "noise schedule"),
    "lacks": (f"{UNET}middle_block.1.norm.weight", None, "lacks the weight mid_block.attentions"),
    "width": (
        f"{UNET}input_blocks.0.0.weight",
        None,
        "determine its widths .*input_blocks.0.0.weight",
    ),
    "stage": ("first_stage_model.quantize.embedding.weight", None, "quantize.embedding.weight"),
    "class": ("cond_stage_model.embedding.weight", None, "no weights named cond_stage_model.emb"),
    "strange": (
        "first_stage_model.encoder.down.0.attn.0.q.weight",
        (32, 32, 1, 1),
        "has no weight",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_other_models_are_named(state, case):
    key, shape, told = WRONG[case]
    wrong = {name: value for name, value in state.items() if name != key}
    if shape is not None:
        wrong[key] = torch.zeros(shape)
    with pytest.raises(CalcarineError, match=told) as caught:
        cin256.convert_state(wrong, cin256.architecture(wrong, "it"), name="it")
    assert "\n" not in str(caught.value)


def test_the_published_model_is_understood_whole():
    """Full size without memory: numbers of weights of the paper's logs, and the layout's shapes."""
    configs = cin256.official_configs()
    models = cin256.empty_models(configs)
    counts = {part: sum(p.numel() for p in m.parameters()) for part, m in models.items()}
    assert counts == {"unet": 400_920_579, "vae": 55_322_782}
    classes = torch.empty(1001, 512, device="meta")
    state = original_state(models["unet"], models["vae"], classes)
    assert not any(value.device.type != "meta" for value in state.values())
    for key, shape in {
        f"{UNET}time_embed.0.weight": (768, 192),
        f"{UNET}input_blocks.3.0.op.weight": (192, 192, 3, 3),
        f"{UNET}input_blocks.11.1.transformer_blocks.0.attn2.to_k.weight": (960, 512),
        f"{UNET}middle_block.1.proj_in.weight": (960, 960, 1, 1),
        f"{UNET}output_blocks.2.2.conv.weight": (960, 960, 3, 3),
        f"{UNET}output_blocks.11.0.skip_connection.weight": (192, 384, 1, 1),
        f"{UNET}out.2.weight": (3, 192, 3, 3),
        "first_stage_model.quantize.embedding.weight": (8192, 3),
        "first_stage_model.encoder.conv_out.weight": (3, 512, 3, 3),
        "first_stage_model.encoder.mid.attn_1.q.weight": (512, 512, 1, 1),
        "first_stage_model.decoder.up.0.block.0.nin_shortcut.weight": (128, 256, 1, 1),
    }.items():
        assert tuple(state[key].shape) == shape
    told = cin256.architecture(state)
    for part in ("unet", "vae"):
        assert {key: told[part][key] for key in configs[part]} == configs[part]
    converted = cin256.convert_state(state, told)
    for part, model in models.items():
        assert set(converted[part]) == set(model.state_dict())
    assert len(trainable_parts(models["unet"])) == 7 * 16
    assert len(trainable_parts(models["unet"])) == sum(
        ".attn2." in name or (".norm2." in name and "resnets" not in name)
        for name, _ in models["unet"].named_parameters()
    )


def test_the_noise_schedule_is_that_of_the_paper():
    """Square roots of the betas are evenly spaced; 250 steps ask at 997, 993, ..., 1."""
    scheduler = random_class_conditional(tiny=True).scheduler
    roots = np.sqrt(0.0015) + np.arange(1000) / 999 * (np.sqrt(0.0195) - np.sqrt(0.0015))
    assert np.allclose(scheduler.betas, roots**2, rtol=1e-5)
    scheduler.set_timesteps(250)
    assert scheduler.timesteps.tolist() == list(range(997, 0, -4))


def test_classes_make_pictures_with_guidance_from_no_class():
    model = random_class_conditional(tiny=True, seed=1)
    keys = [("a", 0), ("a", 0)]
    context, empty = class_context(model, [3, 4]), class_context(model, [1000])
    z = model.generate(context, keys, steps=4, guidance=3.0, empty=empty)
    assert z.shape == (2, 3, 8, 8) and not np.allclose(z[0], z[1])
    pictures = model.decode(z)
    assert pictures.shape == (2, 32, 32, 3) and np.isfinite(pictures).all()
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    same, other = (random_class_conditional(tiny=True, seed=seed) for seed in (1, 2))
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(same.unet.conv_in.weight, model.unet.conv_in.weight)
    assert np.array_equal(same.class_embedding, model.class_embedding)
    assert not torch.equal(other.unet.conv_in.weight, model.unet.conv_in.weight)
    for labels, told in [([1001], "no class 1001"), ([-1], "no class -1"), ([0.5], "whole")]:
        with pytest.raises(CalcarineError, match=told):
            class_context(model, labels)
    assert class_context(model, []).shape == (0, 1, 32)


def test_a_model_without_classes_is_told(tiny_stable_diffusion):
    model = LatentDiffusion.from_pretrained(tiny_stable_diffusion, device="cpu")
    with pytest.raises(CalcarineError, match="has no classes"):
        class_context(model, [1])
