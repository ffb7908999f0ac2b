"""Fine-tuned models of MinD-Vis and Vis-Dec, written here in their layout, tell what they told."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from calcarine.diffusion import ModelNote, random_class_conditional, trainable_parts
from calcarine.errors import CalcarineError
from calcarine.visdec.brain_conditioning import BrainConditioning, VoxelScale, restored_unet
from calcarine.visdec.initial_conditioner import initial_conditioner
from calcarine.visdec.patches import patch_vectors
from calcarine.visdec.published_conditioner import load_published_conditioner
from calcarine.visdec.settings import FinetuneLoss

# The U-Net and the first stage are laid out as in Stable Diffusion v1.
LAYOUT = runpy.run_path(str(Path(__file__).parents[1] / "diffusion" / "test_sd1_conversion.py"))
ENCODER = runpy.run_path(str(Path(__file__).with_name("published_layout.py")))
PATCH, N, DIM, DEPTH, HEADS, TOKENS = 4, 7, 32, 2, 16, 9
UNET, STAGE = "model.diffusion_model.", "cond_stage_model."
TIME = UNET + "time_embed_condtion."


@pytest.fixture(scope="module")
def model():
    return random_class_conditional(True)


def noise(*shape):
    return 0.3 * torch.randn(shape)


def conditioner_in_their_layout(width, time_width):
    """Every tensor of ``cond_stage_model`` and of the time condition, by name and shape."""
    shapes = {
        "mae.mask_token": (1, 1, DIM),
        "mae.cls_token": (1, 1, DIM),
        "mae.patch_embed.proj.weight": (DIM, 1, PATCH),
        "mae.patch_embed.proj.bias": (DIM,),
        "mae.norm.weight": (DIM,),
        "mae.norm.bias": (DIM,),
        "channel_mapper.0.weight": (N // 2, N, 1),
        "channel_mapper.0.bias": (N // 2,),
        "channel_mapper.1.weight": (TOKENS, N // 2, 1),
        "channel_mapper.1.bias": (TOKENS,),
        "dim_mapper.weight": (width, DIM),
        "dim_mapper.bias": (width,),
    }
    for block in range(DEPTH):
        for name, shape in {
            "norm1.weight": (DIM,),
            "norm1.bias": (DIM,),
            "attn.qkv.weight": (3 * DIM, DIM),
            "attn.qkv.bias": (3 * DIM,),
            "attn.proj.weight": (DIM, DIM),
            "attn.proj.bias": (DIM,),
            "norm2.weight": (DIM,),
            "norm2.bias": (DIM,),
            "mlp.fc1.weight": (DIM, DIM),
            "mlp.fc1.bias": (DIM,),
            "mlp.fc2.weight": (DIM, DIM),
            "mlp.fc2.bias": (DIM,),
        }.items():
            shapes[f"mae.blocks.{block}.{name}"] = shape
    found = {STAGE + name: noise(*shape) for name, shape in shapes.items()}
    found[f"{STAGE}mae.pos_embed"] = ENCODER["sines"](N, DIM)[None]
    times = {
        "0.weight": (TOKENS // 2, TOKENS, 1),
        "0.bias": (TOKENS // 2,),
        "1.weight": (1, TOKENS // 2, 1),
        "1.bias": (1,),
        "2.weight": (time_width, width),
        "2.bias": (time_width,),
    }
    return found | {TIME + name: noise(*shape) for name, shape in times.items()}


@pytest.fixture(scope="module")
def weights(model):
    """As fine-tuned: cross-attention and its norms changed, all else the model's."""
    torch.manual_seed(0)
    unet = LAYOUT["original_unet"](model.unet)
    tuned = {
        key: value + 0.1 * torch.randn_like(value)
        if ".attn2." in key or ".norm2." in key
        else value
        for key, value in unet.items()
    }
    state = conditioner_in_their_layout(model.context_width, model.time_embed_dim)
    state |= tuned | LAYOUT["original_vae"](model.vae) | {"betas": model.scheduler.betas}
    return {key: value.detach().clone().contiguous() for key, value in state.items()}


@pytest.fixture
def write(weights, tmp_path):
    def file(*without, **instead):
        state = {k: v for k, v in weights.items() if not k.startswith(tuple(without) or ("\0",))}
        state |= {key.replace("__", "."): value for key, value in instead.items()}
        torch.save({"model_state_dict": state, "state": torch.ones(3)}, tmp_path / "c.pth")
        return tmp_path / "c.pth"

    return file


def theirs(weights, vectors):
    """Context and time condition by the formulas of the published code, one vector at a time."""
    s = {k.removeprefix(STAGE): v for k, v in weights.items()}

    def norm(x, name):
        return F.layer_norm(x, (DIM,), s[f"{name}.weight"], s[f"{name}.bias"], ENCODER["NORM_EPS"])

    def linear(x, name):
        return x @ s[f"{name}.weight"].T + s[f"{name}.bias"]

    contexts, times = [], []
    for vector in vectors:
        x = (
            F.conv1d(
                torch.cat([vector, vector[: -len(vector) % PATCH]])[None, None],
                s["mae.patch_embed.proj.weight"],
                s["mae.patch_embed.proj.bias"],
                stride=PATCH,
            )[0].T
            + s["mae.pos_embed"][0, 1:]
        )
        for block in (f"mae.blocks.{n}" for n in range(DEPTH)):
            q, k, v = (
                part.reshape(N, HEADS, -1).transpose(0, 1)
                for part in linear(norm(x, f"{block}.norm1"), f"{block}.attn.qkv").chunk(3, -1)
            )
            heads = (q @ k.transpose(1, 2) / (DIM / HEADS) ** 0.5).softmax(-1) @ v
            x = x + linear(heads.transpose(0, 1).reshape(N, DIM), f"{block}.attn.proj")
            hidden = F.gelu(linear(norm(x, f"{block}.norm2"), f"{block}.mlp.fc1"))
            x = x + linear(hidden, f"{block}.mlp.fc2")
        x = norm(x, "mae.norm")
        for n in "01":
            x = s[f"channel_mapper.{n}.weight"][..., 0] @ x + s[f"channel_mapper.{n}.bias"][:, None]
        x = linear(x, "dim_mapper")
        contexts.append(x)
        for n in "01":
            x = weights[f"{TIME}{n}.weight"][..., 0] @ x + weights[f"{TIME}{n}.bias"][:, None]
        times.append((x @ weights[f"{TIME}2.weight"].T + weights[f"{TIME}2.bias"])[0])
    return torch.stack(contexts), torch.stack(times)


@torch.no_grad()
def test_it_tells_what_the_published_code_tells(write, weights):
    found = load_published_conditioner(write())
    vectors = torch.randn(3, 26)
    context, time, _ = found.conditioner(patch_vectors(vectors, PATCH))
    expected = theirs(weights, vectors)
    torch.testing.assert_close(context, expected[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(time, expected[1], atol=1e-5, rtol=1e-4)
    assert expected[0].std() > 0.05 and found.positions == "sine"


@torch.no_grad()
def test_the_epsilon_of_layer_norms_is_that_of_the_published_code(write, weights, tmp_path):
    embedding = f"{STAGE}mae.patch_embed.proj."
    small = {key: 0.01 * weights[key] for key in (f"{embedding}weight", f"{embedding}bias")}
    small[f"{STAGE}mae.pos_embed"] = 0.01 * torch.randn(1, N + 1, DIM)
    vectors = torch.randn(3, 26)
    expected = theirs(weights | small, vectors)[0]
    found = load_published_conditioner(write(**small)).conditioner
    values = patch_vectors(vectors, PATCH)
    torch.testing.assert_close(found(values).context, expected, atol=1e-5, rtol=1e-4)
    scale = VoxelScale(np.zeros(26, np.float32), np.ones(26, np.float32))
    BrainConditioning(found, {}, scale).save(tmp_path)
    again = BrainConditioning.load(tmp_path).conditioner
    torch.testing.assert_close(again(values).context, expected, atol=1e-5, rtol=1e-4)
    # Conditioners that were stored without an epsilon were trained with 1e-6.
    shape = json.loads((tmp_path / "conditioning.json").read_text())
    del shape["encoder"]["norm_eps"]
    (tmp_path / "conditioning.json").write_text(json.dumps(shape))
    older = BrainConditioning.load(tmp_path).conditioner
    assert older.encoder.config.norm_eps == older.encoder.norm.eps == 1e-6
    assert (older(values).context - expected).abs().max() > 1e-3


def test_weights_that_are_not_used_are_named(write):
    (known,) = load_published_conditioner(write()).notes
    assert known.endswith("1 are not needed: those of the decoder.")  # its mask token
    more = {"sqrt_alphas_cumprod": noise(3), "posterior_mean_coef1": noise(3)}
    file = write(**more, strange__0__bias=noise(4), strange__1__bias=noise(4))
    with pytest.warns(
        ModelNote, match=r"2 have unknown names .* not used: strange \(2\)\.$"
    ) as told:
        found = load_published_conditioner(file)
    assert [str(each.message) for each in told] == [found.notes[1]]
    assert found.notes[0].endswith("3 are not needed: those of the decoder and the noise schedule.")


def test_every_tensor_arrives(write, weights, model):
    """Names and shapes: each weight of the file is one of ours, and none of ours is left as new."""
    found = load_published_conditioner(write())
    ours = found.conditioner.state_dict()
    zeros = {"base", "empty", "empty_time"}
    left = {k: v for k, v in weights.items() if k.startswith((STAGE, TIME))}
    for name in set(ours) - zeros:
        same = [
            k
            for k, v in left.items()
            if v.numel() == ours[name].numel() and torch.equal(v.flatten(), ours[name].flatten())
        ]
        assert len(same) == 1, name
        del left[same[0]]
    assert set(left) == {f"{STAGE}mae.mask_token", f"{STAGE}mae.pos_embed"}
    assert not any(ours[name].any() for name in zeros)
    given = found.unet_weights(model)
    assert set(given) == set(trainable_parts(model.unet))
    with restored_unet(model, tuple(given), False):
        for name, weight in given.items():
            dict(model.unet.named_parameters())[name].data.copy_(weight)
        installed = LAYOUT["original_unet"](model.unet)
        assert all(torch.equal(value, weights[key]) for key, value in installed.items())
        assert len(installed) == sum(k.startswith(UNET) and k[: len(TIME)] != TIME for k in weights)


def test_other_weights_of_the_unet_are_the_files_own(write, weights, model):
    key = f"{UNET}out.2.bias"
    given = load_published_conditioner(write(**{key: weights[key] + 1})).unet_weights(model)
    assert set(given) == {*trainable_parts(model.unet), "conv_out.bias"}
    assert torch.equal(given["conv_out.bias"], weights[key] + 1)


def test_averaged_weights_are_taken_as_in_published_sampling(write, weights, model):
    averages = {
        "model_ema." + key.removeprefix("model.").replace(".", ""): value * 0.5
        for key, value in weights.items()
        if key.startswith(UNET)
    }
    found = load_published_conditioner(write(**averages))
    assert torch.equal(found.conditioner.time[3].bias, weights[f"{TIME}2.bias"] * 0.5)
    given = found.unet_weights(model)
    assert torch.equal(given["conv_out.weight"], weights[f"{UNET}out.2.weight"] * 0.5)


def test_a_file_without_a_diffusion_model_or_time_condition(write, tmp_path, weights, model):
    found = load_published_conditioner(write(UNET, "first_stage", "betas"))
    assert found.conditioner.time is None and found.unet_weights(model) == {}
    plain = {key: value for key, value in weights.items() if key.startswith((STAGE, TIME))}
    save_file(plain, tmp_path / "c.safetensors")
    again = load_published_conditioner(tmp_path / "c.safetensors")
    assert again.conditioner.time is not None and again.unet_weights(model) == {}


def test_positions_of_the_file_survive_our_own_format(write, weights, tmp_path):
    table = weights[f"{STAGE}mae.pos_embed"] + 0.1 * torch.randn(1, N + 1, DIM)
    found = load_published_conditioner(write(cond_stage_model__mae__pos_embed=table))
    assert found.positions == "other"
    scale = VoxelScale(np.zeros(26, np.float32), np.ones(26, np.float32))
    made = BrainConditioning(found.conditioner, {}, scale)
    made.save(tmp_path)
    again = BrainConditioning.load(tmp_path)
    assert torch.equal(again.conditioner.encoder.positions, table[0])
    responses = np.random.default_rng(0).standard_normal((2, 26)).astype(np.float32)
    told, once_more = made.condition(responses), again.condition(responses)
    assert told.keys() == once_more.keys() == {"context", "time"}
    for name, value in told.items():
        np.testing.assert_array_equal(value, once_more[name])
    state = weights | {f"{STAGE}mae.pos_embed": table}
    expected = theirs(state, torch.from_numpy(responses))[0]
    np.testing.assert_allclose(told["context"], expected, atol=1e-5)


def test_what_is_missing_strange_or_misshapen_is_one_sentence(write, model, weights):
    def refused(sentence, *without, of_the_unet=False, **instead):
        with pytest.raises(CalcarineError, match=sentence) as told:
            found = load_published_conditioner(write(*without, **instead))
            assert of_the_unet
            found.unet_weights(model)
        assert "\n" not in str(told.value)

    for key in weights:
        if key.startswith((f"{STAGE}channel", f"{STAGE}dim", TIME)):
            refused(rf"lacks the weight {key.replace('.', '[.]')} of the conditioner", key)
    refused(r"lacks cond_stage_model\.mae\.norm\.bias", f"{STAGE}mae.norm.bias")
    refused("pools all patches into one token", f"{STAGE}channel_mapper")
    refused("no weight cond_stage_model.other.bias", cond_stage_model__other__bias=noise(2))
    refused("no weight cond_stage_model.mae.cross", cond_stage_model__mae__cross__bias=noise(2))
    refused("has shape", cond_stage_model__dim_mapper__bias=noise(5))
    refused(
        "not finite", cond_stage_model__channel_mapper__1__bias=torch.full((TOKENS,), torch.nan)
    )
    refused("its conditioner|not an encoder of voxels", f"{STAGE}mae.patch_embed", STAGE)
    refused("U-Net", f"{UNET}out.2.bias", of_the_unet=True)
    refused(
        r"U-Net has no weight model\.diffusion_model\.strange\.bias",
        of_the_unet=True,
        model__diffusion_model__strange__bias=noise(2),
    )
    refused(
        "out.2.bias|conv_out.bias", of_the_unet=True, model__diffusion_model__out__2__bias=noise(5)
    )
    refused("another noise schedule", betas=torch.linspace(0, 1, 1000), of_the_unet=True)
    key = "first_stage_model__decoder__conv_in__weight"
    changed = weights[key.replace("__", ".")] + 1
    refused("autoencoder in .* is not that of", of_the_unet=True, **{key: changed})
    refused(
        "contexts of width 24",
        of_the_unet=True,
        cond_stage_model__dim_mapper__weight=noise(24, DIM),
        cond_stage_model__dim_mapper__bias=noise(24),
        **{f"{TIME}2.weight": noise(model.time_embed_dim, 24)},
    )


def test_a_patch_that_the_published_code_adds_is_explained(write, model):
    found = load_published_conditioner(write())
    extra = "fill their last patch; the published code then adds another"
    for n_patches, explained in ((N - 1, True), (N - 2, False), (N + 1, False)):
        with pytest.raises(CalcarineError, match=f"takes {N} patches") as told:
            initial_conditioner(found, model, n_patches, FinetuneLoss(), None)
        assert (extra in str(told.value)) is explained


def test_an_encoder_alone_belongs_elsewhere(weights, tmp_path):
    start = f"{STAGE}mae."
    alone = {k.removeprefix(start): v for k, v in weights.items() if k.startswith(start)}
    torch.save({"model": alone}, tmp_path / "c.pth")
    with pytest.raises(CalcarineError, match=r"visdec\.pretrain\.start"):
        load_published_conditioner(tmp_path / "c.pth")
