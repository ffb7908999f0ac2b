"""Time conditions, samplers, empty contexts and what is trained, without a text encoder's help."""

import numpy as np
import pytest
import torch

from calcarine.diffusion import (
    ConditionalDiffusion,
    LatentDiffusion,
    add_time_condition,
    freeze_except,
    gaussian_noise,
    random_class_conditional,
    trainable_parts,
)
from calcarine.errors import CalcarineError

KEYS = [("a", 0), ("a", 1), ("b", 0)]


@pytest.fixture(scope="module")
def text_model(tiny_stable_diffusion):
    return LatentDiffusion.from_pretrained(tiny_stable_diffusion, device="cpu")


@pytest.fixture
def model():
    return random_class_conditional(tiny=True, seed=3)


@pytest.fixture
def told(model, rng):
    """Contexts of five tokens, one empty context, latents to start from, time conditions."""

    def draw(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    return {
        "context": draw(3, 5, model.context_width),
        "empty": draw(5, model.context_width),
        "start": draw(3, *model.latent_shape),
        "time": draw(3, model.time_embed_dim),
    }


def begin(latents, keys, scheduler, times, seed):
    noise = gaussian_noise(keys, latents.shape[1:], seed)
    return scheduler.add_noise(torch.from_numpy(latents), noise, times[:1].repeat(len(latents)))


@torch.no_grad()
def guided_noise(unet, x, t, context, empty, guidance):
    both = torch.cat([empty.expand(len(x), -1, -1), context])
    free, bound = unet(torch.cat([x, x]), t, encoder_hidden_states=both).sample.chunk(2)
    return free + guidance * (bound - free)


def test_text_models_make_the_pictures_of_the_plain_loop_to_the_bit(text_model, rng):
    start = rng.standard_normal((2, 4, 8, 8)).astype(np.float32)
    context = text_model.embed_text(["a", "b"])
    ours = text_model.generate(
        context, KEYS[:2], start, steps=6, strength=0.5, guidance=4.0, seed=1
    )
    scheduler = text_model.scheduler
    scheduler.set_timesteps(6)
    times = scheduler.timesteps[3:]
    x = begin(start, KEYS[:2], scheduler, times, 1)
    empty = torch.from_numpy(text_model.embed_text([""]))
    for t in times:
        noise = guided_noise(text_model.unet, x, t, torch.from_numpy(context), empty, 4.0)
        x = scheduler.step(noise, t, x).prev_sample
    assert np.array_equal(ours, x.numpy())


def test_a_text_model_is_a_conditional_one_and_its_empty_text_can_be_given(text_model):
    plain = ConditionalDiffusion(text_model.vae, text_model.unet, text_model.scheduler)
    context, empty = text_model.embed_text(["a", "b"]), text_model.embed_text([""])
    expected = text_model.generate(context, KEYS[:2], steps=3)
    assert np.array_equal(plain.generate(context, KEYS[:2], steps=3, empty=empty), expected)
    assert np.array_equal(text_model.generate(context, KEYS[:2], steps=3, empty=empty), expected)
    assert not hasattr(plain, "text_encoder")


def test_tokens_are_those_of_the_text_unless_an_empty_context_is_given(text_model, rng):
    context = rng.standard_normal((1, 9, 32)).astype(np.float32)
    with pytest.raises(CalcarineError, match="takes \\(77, 32\\)"):
        text_model.generate(context, KEYS[:1])
    made = text_model.generate(context, KEYS[:1], steps=2, empty=context[0] * 0)
    assert made.shape == (1, 4, 8, 8)


def test_one_empty_token_stands_for_many_equal_ones(model, told):
    one, options = told["empty"][:1], {"steps": 3, "guidance": 3.0}
    many = model.generate(told["context"], KEYS, empty=np.repeat(one, 5, 0), **options)
    assert np.array_equal(model.generate(told["context"], KEYS, empty=one, **options), many)


@torch.no_grad()
def test_zeros_as_time_condition_are_none_to_the_bit(model, told):
    x, t = torch.from_numpy(told["start"]), torch.tensor(500)
    context = torch.from_numpy(told["context"])
    options = {"empty": told["empty"], "steps": 3, "guidance": 3.0}
    bare = model.unet(x, t, encoder_hidden_states=context).sample
    pictures = model.generate(told["context"], KEYS, **options)
    with pytest.raises(CalcarineError, match="add_time_condition"):
        model.generate(told["context"], KEYS, time_condition=told["time"], **options)
    add_time_condition(model.unet)
    add_time_condition(model.unet)
    zeros = torch.zeros(3, model.time_embed_dim)
    given = model.unet(x, t, encoder_hidden_states=context, class_labels=zeros).sample
    assert torch.equal(given, bare)
    assert np.array_equal(model.generate(told["context"], KEYS, **options), pictures)
    timed = model.generate(told["context"], KEYS, time_condition=zeros.numpy(), **options)
    assert np.array_equal(timed, pictures)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_a_time_condition_is_a_shift_of_the_time_embedding(model, told, guidance):
    """The same shift of all pictures is a change of the embedding's last bias."""
    shift = told["time"][0]
    add_time_condition(model.unet)
    options = {"empty": told["empty"], "steps": 3, "guidance": guidance}
    bare = model.generate(told["context"], KEYS, **options)
    timed = model.generate(
        told["context"],
        KEYS,
        time_condition=np.repeat(shift[None], 3, 0),
        empty_time_condition=shift,
        **options,
    )
    with torch.no_grad():
        model.unet.time_embedding.linear_2.bias += torch.from_numpy(shift)
    shifted = model.generate(told["context"], KEYS, **options)
    assert np.abs(timed - shifted).max() < 1e-4 * np.abs(shifted).max()
    assert np.abs(timed - bare).max() > 0.01 * np.abs(bare).max()


def test_the_empty_time_condition_is_zero_by_default(model, told):
    """Guidance goes from what is asked without condition, whose time condition counts too."""
    add_time_condition(model.unet)
    options = {"empty": told["empty"], "steps": 2, "time_condition": told["time"]}
    zeros = np.zeros((1, model.time_embed_dim), np.float32)
    plain = model.generate(told["context"], KEYS, **options)
    same = model.generate(told["context"], KEYS, empty_time_condition=zeros, **options)
    other = model.generate(told["context"], KEYS, empty_time_condition=zeros + 1, **options)
    assert np.array_equal(plain, same)
    assert not np.allclose(plain, other)


@pytest.mark.parametrize("sampler", ["ddim", "plms"])
def test_batches_change_nothing(model, told, sampler):
    add_time_condition(model.unet)
    options = {"empty": told["empty"], "steps": 5, "guidance": 2.0, "sampler": sampler}
    together = model.generate(
        told["context"], KEYS, told["start"], time_condition=told["time"], **options
    )
    alone = model.generate(
        told["context"], KEYS, told["start"], time_condition=told["time"], batch_size=1, **options
    )
    order = [2, 0, 1]
    shuffled = model.generate(
        told["context"][order],
        [KEYS[i] for i in order],
        told["start"][order],
        time_condition=told["time"][order],
        batch_size=2,
        **options,
    )
    scale = np.abs(together).max()
    assert np.abs(together - alone).max() < 1e-4 * scale
    assert np.abs(together[order] - shuffled).max() < 1e-4 * scale
    other = model.generate(
        told["context"], KEYS, told["start"], time_condition=told["time"], seed=7, **options
    )
    assert np.abs(together - other).max() > 0.01 * scale


def test_plms_is_the_loop_of_diffusers(text_model):
    from diffusers import PNDMScheduler

    context, empty = text_model.embed_text(["a", "b"]), text_model.embed_text([""])
    ours = text_model.generate(
        context, KEYS[:2], steps=8, guidance=2.0, seed=5, sampler="plms", batch_size=1
    )
    for row in range(2):
        scheduler = PNDMScheduler.from_config(text_model.scheduler.config, skip_prk_steps=True)
        scheduler.set_timesteps(8)
        x = gaussian_noise(KEYS[row : row + 1], (4, 8, 8), 5) * scheduler.init_noise_sigma
        here = torch.from_numpy(context[row : row + 1])
        for t in scheduler.timesteps:
            noise = guided_noise(text_model.unet, x, t, here, torch.from_numpy(empty), 2.0)
            x = scheduler.step(noise, t, x).prev_sample
        assert np.abs(ours[row] - x[0].numpy()).max() < 1e-5


def test_plms_from_a_strength_is_heun_then_adams_bashforth(text_model, rng):
    """The formulas themselves, with every noise level asked for and left in turn."""
    start = rng.standard_normal((1, 4, 8, 8)).astype(np.float32)
    context, empty = text_model.embed_text(["a"]), text_model.embed_text([""])
    ours = text_model.generate(
        context, KEYS[:1], start, steps=10, strength=0.6, guidance=2.0, sampler="plms"
    )
    told, free = torch.from_numpy(context), torch.from_numpy(empty)
    signal = text_model.scheduler.alphas_cumprod

    def asked(x, t):
        return guided_noise(text_model.unet, x, torch.tensor(t), told, free, 2.0)

    def moved(x, noise, t, to):
        now, then = signal[t], signal[max(to, 0)]
        clean = (x - (1 - now).sqrt() * noise) / now.sqrt()
        return then.sqrt() * clean + (1 - then).sqrt() * noise

    times = [501, 401, 301, 201, 101, 1]
    x = begin(start, KEYS[:1], text_model.scheduler, torch.tensor(times), 42)
    seen = [asked(x, 501)]
    after = asked(moved(x, seen[0], 501, 401), 401)
    x = moved(x, (seen[0] + after) / 2, 501, 401)
    weights = {2: [3, -1], 3: [23, -16, 5], 4: [55, -59, 37, -9]}
    for t in times[1:]:
        seen.append(asked(x, t))
        of = weights[min(len(seen), 4)]
        noise = sum(w * e for w, e in zip(of, reversed(seen[-4:]), strict=True)) / sum(of)
        x = moved(x, noise, t, t - 100)
    assert np.abs(ours - x.numpy()).max() < 1e-4


def test_plms_refuses_a_schedule_without_signal_at_its_end(model, told):
    from diffusers import DDIMScheduler

    model.scheduler = DDIMScheduler.from_config(model.scheduler.config, rescale_betas_zero_snr=True)
    with pytest.raises(CalcarineError, match="zero terminal SNR"):
        model.generate(told["context"], KEYS, guidance=1, sampler="plms")
    with pytest.raises(CalcarineError, match="choose one of ddim, plms"):
        model.generate(told["context"], KEYS, guidance=1, sampler="euler")


def test_what_does_not_fit_is_told(model, told):
    context, empty = told["context"], told["empty"]
    add_time_condition(model.unet)
    for wrong, message in [
        ({}, "guidance needs an unconditional context"),
        ({"context": context[..., :-1]}, r"takes \(n, tokens, 32\)"),
        ({"context": context[:, 0]}, "1 contexts, 3 keys and no starts"),
        ({"empty": empty[:, :-1]}, r"must be \(tokens, 32\)"),
        ({"empty": empty[:3]}, "has 3 tokens and the context 5"),
        ({"time_condition": told["time"][:2]}, r"3 contexts of this model take \(3, 128\)"),
        ({"empty_time_condition": told["time"]}, r"\(128,\) or \(1, 128\)"),
    ]:
        options = {"context": context, "empty": empty, **wrong} if wrong else {"context": context}
        with pytest.raises(CalcarineError, match=message):
            model.generate(keys=KEYS, **options)


def test_a_class_embedding_of_its_own_is_kept():
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(
            block_out_channels=(32, 64),
            down_block_types=("DownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "UpBlock2D"),
            num_class_embeds=3,
        )
    with pytest.raises(CalcarineError, match="class embedding of its own"):
        add_time_condition(unet)


def test_what_vis_dec_trains_is_cross_attention_and_its_norm(model, told):
    """Only these take gradients; the residual blocks' norm2, of the same name, does not."""
    names = trainable_parts(model.unet)
    inside = {name.split("transformer_blocks.0.")[1] for name in names}
    leaves = ("to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight", "to_out.0.bias")
    assert inside == {"norm2.weight", "norm2.bias", *(f"attn2.{leaf}" for leaf in leaves)}
    assert len(names) == 7 * 4  # attention once on the way down, in the middle, twice on the way up
    before = [name for name, p in model.unet.named_parameters() if "norm2" in name]
    assert any("resnets" in name for name in before)
    freeze_except(model.unet, names)
    out = model.unet(
        torch.from_numpy(told["start"]),
        torch.tensor(10),
        encoder_hidden_states=torch.from_numpy(told["context"]),
    ).sample
    out.square().mean().backward()
    moved = {name for name, p in model.unet.named_parameters() if p.grad is not None}
    assert moved == set(names)
    with pytest.raises(CalcarineError, match=r"no parameter nothing\.here"):
        freeze_except(model.unet, ["nothing.here"])
    assert {n for n, p in model.unet.named_parameters() if p.requires_grad} == set(names)
    freeze_except(model.unet, ())
    assert not any(p.requires_grad for p in model.unet.parameters())
