"""Second and third phase: who listens to whom, what trains and what stays as it is."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from calcarine.brain import Responses
from calcarine.errors import CalcarineError, LeakageError
from calcarine.experiment.digests import digest_content
from calcarine.visdec.conditioner import Conditioner
from calcarine.visdec.finetuning import DiffusionFinetuning, FinetuningData
from calcarine.visdec.fmri_autoencoder import AutoencoderConfig, FMRIAutoencoder
from calcarine.visdec.guiding import CrossModalGuiding, CrossModalNetwork
from calcarine.visdec.image_autoencoder import ImageAutoencoder, new_image_autoencoder
from calcarine.visdec.masking import draw_masking, no_masking
from calcarine.visdec.settings import FinetuneLoss, GuideLoss
from calcarine.visdec.stimulus_vectors import StimulusVectors
from calcarine.visdec.transformer_blocks import CrossBlock

TINY = AutoencoderConfig(
    n_patches=5, patch=4, dim=16, depth=1, heads=2, decoder_dim=12, decoder_depth=1, decoder_heads=2
)
IDS = ("a", "b", "c", "d", "e", "f")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def responses(role="train", voxels=18):
    draw = np.random.default_rng(0)
    names = tuple("fabcabdeeb")
    return Responses(
        draw.standard_normal((len(names), voxels)).astype(np.float32),
        names,
        role,
        np.zeros(len(names), np.int64),
    )


def image_network(**changes):
    torch.manual_seed(0)
    return new_image_autoencoder(
        **{
            "hidden_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "image_size": 16,
            "patch_size": 4,
            "decoder_hidden_size": 16,
            "decoder_num_hidden_layers": 3,
            "decoder_num_attention_heads": 2,
            "decoder_intermediate_size": 16,
            **changes,
        }
    )


@pytest.fixture
def image():
    return image_network()


@pytest.fixture
def network(image):
    torch.manual_seed(1)
    return CrossModalNetwork(FMRIAutoencoder(TINY), image, 2, "paper")


def guidance(network, **config):
    pixels = torch.randn(6, 3, 16, 16, generator=seeded())
    stimuli = StimulusVectors(responses(), IDS, 4)
    return CrossModalGuiding(
        network, (stimuli, pixels), (stimuli, pixels), GuideLoss(layers=2, **config)
    )


# -- trials of stimuli


def test_a_stimulus_is_told_by_one_some_or_all_of_its_trials():
    data = responses()
    trials = {n: [i for i, m in enumerate(data.stimulus_ids) if m == n] for n in IDS}
    rows = torch.tensor([1, 4, 2])
    for way in ("one", "mean", "random"):
        vectors = StimulusVectors(data, IDS, 4, trials=way)
        seen = set()
        for seed in range(40):
            drawn = vectors.draw(rows, seeded(seed)).flat().numpy()[:, :18]
            parts = []
            for line, row in zip(drawn, rows.tolist(), strict=True):
                own = trials[IDS[row]]
                every = [
                    [k for j, k in enumerate(own) if bits >> j & 1]
                    for bits in range(1, 2 ** len(own))
                ]
                fits = [c for c in every if np.allclose(data.data[c].mean(0), line, atol=1e-6)]
                assert len(fits) == 1
                parts.append(tuple(fits[0]))
            seen.add(tuple(parts))
            sizes = [len(p) for p in parts]
            assert way != "one" or sizes == [1, 1, 1]
            assert way != "mean" or sizes == [3, 2, 1]
        assert len(seen) == 1 if way == "mean" else len(seen) > 5


def test_test_responses_are_refused():
    with pytest.raises(LeakageError, match="given test responses"):
        StimulusVectors(responses("test"), IDS, 4)
    with pytest.raises(CalcarineError, match="Stimulus z has no training response"):
        StimulusVectors(responses(), (*IDS, "z"), 4)


# -- pictures


def test_pictures_are_encoded_as_transformers_does(image):
    pixels = torch.randn(3, 3, 16, 16, generator=seeded())
    masking = draw_masking(torch.ones(3, 16, dtype=torch.bool), 0.75, seeded())
    tokens = image.encode(pixels, masking)
    # The order of noise that transformers would have to draw for these very patches.
    noise = torch.full((3, 16), 9.0) + torch.arange(16) / 100
    for row in range(3):
        noise[row, masking.visible[row]] = torch.arange(4) / 10
    image.model.config.mask_ratio = 0.75
    out = image.model(pixels, noise=noise)
    torch.testing.assert_close(image.decode(tokens, masking), out.logits)
    target = image.patches(pixels)
    loss = ((out.logits - target).square().mean(-1) * masking.hidden).sum() / masking.hidden.sum()
    torch.testing.assert_close(loss, out.loss)
    assert image.encode(pixels, no_masking(masking.hidden)).shape == (3, 17, 24)


def test_positions_of_the_decoder_are_not_nought(image):
    assert float(image.model.decoder.decoder_pos_embed.abs().sum()) > 1


def test_pixels_are_resized_and_scaled(image):
    white = image.pixels(np.full((2, 40, 40, 3), 255, np.uint8))
    assert white.shape == (2, 3, 16, 16)
    assert white[0, :, 0, 0].tolist() == pytest.approx(
        [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    )


def test_an_image_autoencoder_survives_the_disk_and_loses_blocks_when_asked(image, tmp_path):
    image.model.save_pretrained(tmp_path)
    again = ImageAutoencoder.from_pretrained(tmp_path, decoder_depth=2)
    assert len(again.model.decoder.decoder_layers) == 2
    for name, weight in again.model.state_dict().items():
        assert torch.equal(weight, image.model.state_dict()[name])
    with pytest.raises(CalcarineError, match="has 3 blocks"):
        ImageAutoencoder.from_pretrained(tmp_path, decoder_depth=4)
    with pytest.raises(CalcarineError, match="could not be loaded"):
        ImageAutoencoder.from_pretrained(tmp_path / "nothing")


def test_an_image_autoencoder_is_read_from_a_pickle_of_tensors_alone(image, tmp_path):
    """The hub's facebook/vit-mae-base was published as pytorch_model.bin."""
    image.model.save_pretrained(tmp_path)
    safe, pickled = tmp_path / "model.safetensors", tmp_path / "pytorch_model.bin"
    torch.save(load_file(safe), pickled)
    safe.unlink()
    again = ImageAutoencoder.from_pretrained(tmp_path).model.state_dict()
    assert again.keys() == image.model.state_dict().keys()
    for name, weight in image.model.state_dict().items():
        assert torch.equal(again[name], weight)
    before = digest_content(tmp_path)
    weights = torch.load(pickled, weights_only=True)
    name = sorted(weights)[0]
    torch.save({**weights, name: weights[name] + 1}, pickled)
    assert digest_content(tmp_path) != before
    torch.save({k: v for k, v in weights.items() if k != name}, pickled)
    with pytest.raises(CalcarineError, match="lack") as error:
        ImageAutoencoder.from_pretrained(tmp_path)
    assert name in str(error.value)


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_the_hub_is_asked_for_a_pickle_only_where_it_has_no_safetensors(
    image, tmp_path, monkeypatch, kind
):
    """No network here: a stand-in for the hub holds one model, in one of the two formats."""
    hub, cache, asked = tmp_path / "hub", tmp_path / "cache", []
    image.model.save_pretrained(hub)
    if kind == "bin":
        torch.save(load_file(hub / "model.safetensors"), hub / "pytorch_model.bin")
        (hub / "model.safetensors").unlink()

    def download(name, patterns):
        assert name == "owner/model"
        asked.extend(patterns)
        cache.mkdir(exist_ok=True)
        for file in hub.iterdir():
            if any(file.match(pattern) for pattern in patterns):
                shutil.copy(file, cache)
        return cache

    monkeypatch.setattr("calcarine.visdec.image_autoencoder.download", download)
    again = ImageAutoencoder.from_pretrained("owner/model").model.state_dict()
    assert all(torch.equal(again[k], v) for k, v in image.model.state_dict().items())
    assert ("pytorch_model.bin" in asked) == (kind == "bin")


class _Runs:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_that_would_run_code_runs_none(image, tmp_path):
    image.model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    ran = tmp_path / "ran"
    torch.save({**weights, "trap": _Runs(ran)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CalcarineError, match="refused and nothing of it was run") as error:
        ImageAutoencoder.from_pretrained(tmp_path)
    assert not ran.exists() and "\n" not in str(error.value)
    torch.load(tmp_path / "pytorch_model.bin", weights_only=False)
    assert ran.exists()  # a trap that works


# -- attention between modalities


def slow_attention(q, k, v, heads):
    batch, n, dim = q.shape
    out = torch.zeros(batch, n, dim, dtype=q.dtype)
    size = dim // heads
    for b in range(batch):
        for h in range(heads):
            part = slice(h * size, (h + 1) * size)
            for i in range(n):
                scores = (k[b, :, part] @ q[b, i, part]) / size**0.5
                out[b, i, part] = scores.softmax(0) @ v[b, :, part]
    return out


@pytest.mark.parametrize("direction", ["paper", "code"])
def test_who_asks_whom(direction):
    torch.manual_seed(0)
    block = CrossBlock(8, 2, 2.0, direction).double()
    own, other = torch.randn(2, 5, 8).double(), torch.randn(2, 3, 8).double()
    x = own + block.attn(block.norm1(own))
    asks, tells = (block.norm_own(x), block.norm_other(other))
    if direction == "paper":
        asks, tells = tells, asks
    cross = block.cross
    k, v = cross.kv(tells).chunk(2, -1)
    answer = cross.proj(slow_attention(cross.q(asks), k, v, 2))
    if direction == "paper":
        rest = torch.nn.functional.interpolate(answer[:, 1:].mT, size=4, mode="linear").mT
        answer = torch.cat([answer[:, :1], rest], 1)
    x = x + answer
    torch.testing.assert_close(block(own, other), x + block.mlp(block.norm2(x)))


def test_absent_tokens_are_not_heard():
    torch.manual_seed(0)
    block = CrossBlock(8, 2, 2.0, "code")
    own, other = torch.randn(2, 5, 8), torch.randn(2, 3, 8)
    mask = torch.tensor([[True, True, False]] * 2)
    changed = other.clone()
    changed[:, 2] += 9
    torch.testing.assert_close(block(own, other, None, mask), block(own, changed, None, mask))


def test_guidance_sets_out_from_the_first_phase(network):
    task = guidance(network)
    vectors = task._train[0].mean(torch.arange(6))
    pixels = task._train[1]
    guess, _ = network.predict_fmri(vectors, pixels, 0.5, seeded())
    alone = network.fmri(vectors, draw_masking(vectors.valid, 0.5, seeded()))
    torch.testing.assert_close(guess, alone)


def test_the_order_in_which_patches_were_drawn_does_not_matter(network):
    """In the paper's direction answers are brought to places in the sequence."""
    valid = torch.ones(40, 12, dtype=torch.bool)
    valid[:20, 9:] = False
    masking = draw_masking(valid, 0.5, seeded())
    mask = torch.ones_like(masking.visible, dtype=torch.bool)
    mask = mask if masking.mask is None else masking.mask
    for row, kept in zip(masking.visible, mask, strict=True):
        own = row[kept].tolist()
        assert own == sorted(own)


def test_each_modality_hears_the_other_once_trained(network):
    task = guidance(network)
    for back in (network.fmri_back, network.image_back):
        torch.nn.init.normal_(back.weight)
    vectors, pixels = task._train[0].mean(torch.arange(6)), task._train[1]
    fmri = network.predict_fmri(vectors, pixels, 0.5, seeded())[0]
    assert not torch.allclose(fmri, network.predict_fmri(vectors, pixels.flip(0), 0.5, seeded())[0])
    image = network.predict_image(vectors, pixels, 0.5, seeded())[0]
    other = vectors.rows(torch.arange(5, -1, -1))
    assert not torch.allclose(image, network.predict_image(other, pixels, 0.5, seeded())[0])


def test_guidance_trains_all_but_the_body_of_the_image_network(network):
    task = guidance(network)
    loss, parts = task.training_loss(torch.arange(6), seeded())
    wanted = 0.25 * parts["fmri"] + 1.5 * parts["image"]
    torch.testing.assert_close(loss, wanted)
    for back in (network.fmri_back, network.image_back):
        torch.nn.init.normal_(back.weight, std=0.1)
    task.training_loss(torch.arange(6), seeded())[0].backward()
    still = {n for n, p in task.named_parameters() if p.grad is None or not p.grad.any()}
    frozen = {n for n in still if not dict(task.named_parameters())[n].requires_grad}
    assert frozen == still
    assert all(".vit." in n or n.endswith("decoder_pos_embed") for n in frozen)


@torch.no_grad()
def test_validation_logs_the_losses_of_shuffled_pairs_under_the_same_masks(network):
    task = guidance(network)
    rows = torch.arange(6)
    _, parts = task.validation_loss(rows, seeded(3))
    # Before training the other modality changes nothing, so the masks must be the same.
    for name in ("fmri", "image"):
        assert parts[f"{name}, shuffled"] == pytest.approx(float(parts[name]), rel=1e-6)
    with torch.no_grad():
        for back in (network.fmri_back, network.image_back):
            back.weight.copy_(torch.randn(back.weight.shape, generator=seeded(4)))
    total, parts = task.validation_loss(rows, seeded(3))
    for name in ("fmri", "image"):
        assert float(parts[f"{name}, shuffled"]) != float(parts[name])
    c = task.config
    assert total == pytest.approx(
        float(c.gamma_fmri * parts["fmri"] + c.gamma_image * parts["image"]), rel=1e-6
    )
    # Those of the fMRI are the same as of a task with the pictures of the row before.
    stimuli, pixels = task._validation
    moved = CrossModalGuiding(network, (stimuli, pixels), (stimuli, pixels.roll(1, 0)), c)
    _, others = moved.validation_loss(rows, seeded(3))
    assert others["fmri"] == pytest.approx(float(parts["fmri, shuffled"]), rel=1e-5)
    assert set(task.training_loss(rows, seeded(3))[1]) == {"fmri", "image"}


def test_guidance_by_pictures_of_other_stimuli(network):
    own, control = guidance(network), guidance(network, partners="shuffled")
    true, others = own._train[1], control._train[1]
    assert all(not torch.equal(a, b) for a, b in zip(true, others, strict=True))
    found = [next(i for i, b in enumerate(true) if torch.equal(a, b)) for a in others]
    assert sorted(found) == list(range(6))
    assert torch.equal(control._validation[1], own._validation[1])


@pytest.mark.parametrize(
    ("config", "named"),
    [({"gamma_fmri": 0.0}, {"image"}), ({"gamma_image": 0.0}, {"fmri"})],
)
def test_a_side_can_be_left_out(network, config, named):
    _, parts = guidance(network, **config).training_loss(torch.arange(4), seeded())
    assert set(parts) == named


@pytest.mark.parametrize(
    "wrong", [{"layers": 3}, {"gamma_fmri": 0.0, "gamma_image": 0.0}, {"gamma_image": -1.0}]
)
def test_wrong_guidance_is_told(wrong):
    with pytest.raises(CalcarineError, match=r"layers|gamma"):
        GuideLoss(**wrong)


# -- diffusion


class Unet(torch.nn.Module):
    """Answers with what it was told, so that the target can be read off the loss."""

    def __init__(self):
        super().__init__()
        self.told = []
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, noisy, times, encoder_hidden_states, class_labels=None):
        self.told.append((noisy, times, encoder_hidden_states, class_labels))
        bias = encoder_hidden_states.mean((1, 2)).view(-1, 1, 1, 1)
        if class_labels is not None:
            bias = bias + class_labels.mean(1).view(-1, 1, 1, 1)
        return type("Out", (), {"sample": self.weight * noisy + bias})


def adaptation(kind="epsilon", drop=0.0, time=10, align=0.0, contexts=None, latent=0.0):
    from diffusers import DDIMScheduler

    torch.manual_seed(0)
    shape = (2, 4, 4) if latent else None
    conditioner = Conditioner(FMRIAutoencoder(TINY).encoder, 5, 3, 6, time, latent_shape=shape)
    stimuli = StimulusVectors(responses(), IDS, 4, trials="mean")
    latents = torch.randn(6, 2, 4, 4, generator=seeded())
    return DiffusionFinetuning(
        conditioner,
        Unet(),
        DDIMScheduler(prediction_type=kind),
        *(FinetuningData(stimuli, latents, text) for text in contexts or (None, None)),
        FinetuneLoss(drop_condition=drop, align=align, latent=latent),
    )


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_the_target_is_that_of_diffusers(kind):
    from diffusers import DDIMScheduler

    task = adaptation(kind)
    rows = torch.arange(6)
    loss, _ = task.training_loss(rows, seeded(3))
    noisy, times, context, time = task.unet.told[0]
    scheduler, latents = DDIMScheduler(prediction_type=kind), task._train[1]
    a = scheduler.alphas_cumprod[times].view(-1, 1, 1, 1)
    noise = (noisy - a.sqrt() * latents) / (1 - a).sqrt()
    torch.testing.assert_close(scheduler.add_noise(latents, noise, times), noisy)
    target = scheduler.get_velocity(latents, noise, times) if kind == "v_prediction" else noise
    guess = noisy + (context.mean((1, 2)) + time.mean(1)).view(-1, 1, 1, 1)
    told = (guess - target).square().mean().item()
    assert loss.item() == pytest.approx(told, rel=1e-3)
    assert context.shape == (6, 3, 6)
    assert time.shape == (6, 10)


def test_times_are_spread_evenly():
    task = adaptation()
    task.training_loss(torch.arange(6), seeded(3))
    gaps = task.unet.told[0][1].sort().values.diff()
    assert gaps.min() >= 165
    assert gaps.max() <= 168


def test_what_is_left_out_is_told_nothing_of_the_brain():
    task = adaptation(drop=0.5)
    conditioner = task.conditioner
    torch.nn.init.normal_(conditioner.empty)
    task.training_loss(torch.arange(6), seeded(1))
    context, time = task.unet.told[0][2:]
    empty = (context == conditioner.empty).flatten(1).all(1)
    assert 0 < int(empty.sum()) < 6
    assert torch.equal(empty, (time == conditioner.empty_time).all(1))
    task.validation_loss(torch.arange(6), seeded(1))
    assert not (task.unet.told[1][2] == conditioner.empty).flatten(1).all(1).any()


@pytest.mark.parametrize("drop", [0.0, 0.5])
def test_contexts_are_drawn_to_those_of_the_text(drop):
    contexts = torch.randn(6, 3, 6, generator=seeded(5))
    task = adaptation(drop=drop, align=3.0, contexts=(contexts, 2 * contexts))
    rows = torch.tensor([4, 1, 2])
    alone, _ = adaptation(drop=drop).training_loss(rows, seeded(1))
    total, parts = task.training_loss(rows, seeded(1))
    told = task.conditioner(StimulusVectors(responses(), IDS, 4, trials="mean").mean(rows)).context
    spread = ((contexts - contexts.mean(0)) ** 2).mean()
    away = ((told - contexts[rows]) ** 2).mean() / spread  # also of those that are left out
    torch.testing.assert_close(parts["diffusion"], alone)
    torch.testing.assert_close(parts["align"], away)
    torch.testing.assert_close(total, alone + 3 * away)
    _, parts = task.validation_loss(rows, seeded(1))
    torch.testing.assert_close(parts["align"], ((told - 2 * contexts[rows]) ** 2).mean() / spread)


def test_told_latents_are_drawn_to_those_of_the_pictures():
    task = adaptation(latent=3.0, drop=0.5)
    rows, latents = torch.tensor([4, 1, 2]), task._train[1]
    total, parts = task.training_loss(rows, seeded(1))
    vectors = StimulusVectors(responses(), IDS, 4, trials="mean").mean(rows)
    told = task.conditioner(vectors).latent
    assert told.shape == (3, 2, 4, 4)
    away = ((told - latents[rows]) ** 2).mean() / ((latents - latents.mean(0)) ** 2).mean()
    torch.testing.assert_close(parts["latent"], away)
    torch.testing.assert_close(total, parts["diffusion"] + 3 * away)
    total.backward()
    without = [n for n, p in task.conditioner.named_parameters() if p.grad is None]
    assert without == []
    task.conditioner.start_from_latent(latents.mean(0))
    away = (task.conditioner(vectors).latent - latents.mean(0)).detach()
    assert 0 < float(away.std()) < 0.3 * float(latents.std())


def test_alignment_needs_texts_that_differ():
    with pytest.raises(CalcarineError, match="only there"):
        adaptation(align=1.0)
    same = torch.ones(6, 3, 6)
    with pytest.raises(CalcarineError, match="the same text"):
        adaptation(align=1.0, contexts=(same, same))
    with pytest.raises(CalcarineError, match="align is 0 or more"):
        FinetuneLoss(align=-1.0)


def test_the_loss_reaches_the_whole_conditioner():
    task = adaptation(drop=0.5)
    task.training_loss(torch.arange(6), seeded(1))[0].backward()
    without = [n for n, p in task.conditioner.named_parameters() if p.grad is None]
    assert without == []


def test_conditions_begin_where_they_are_told():
    conditioner = adaptation().conditioner
    start = torch.randn(3, 6, generator=seeded())
    conditioner.start_from_context(start)
    vectors = StimulusVectors(responses(), IDS, 4).mean(torch.arange(6))
    context = conditioner(vectors).context
    assert torch.equal(conditioner.empty[0], start)
    change = (context - start).detach()
    assert 0 < float(change.std()) < 0.2 * float(start.std())
    assert float((change[0] - change[1]).abs().max()) > 0


def test_the_time_condition_can_be_left_out():
    task = adaptation(time=None)
    task.training_loss(torch.arange(6), seeded(1))
    assert task.unet.told[0][3] is None


def test_a_model_that_predicts_pictures_is_refused():
    with pytest.raises(CalcarineError, match="'sample'"):
        adaptation("sample")
    with pytest.raises(CalcarineError, match="drop_condition"):
        dataclasses.replace(FinetuneLoss(), drop_condition=1.0)
