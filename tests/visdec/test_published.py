"""Published checkpoints are read whole, without running them, or refused in one sentence."""

from __future__ import annotations

import collections
import os
import sys
import types
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from calcarine.checkpoints.pickles import read_checkpoint
from calcarine.errors import CalcarineError
from calcarine.visdec.encoder_storage import load_encoder, save_encoder
from calcarine.visdec.fmri_autoencoder import AutoencoderConfig, FMRIAutoencoder
from calcarine.visdec.masking import draw_masking
from calcarine.visdec.patches import patch_vectors, sine_positions
from calcarine.visdec.published_encoder import _ratio, interpolated, load_published_encoder

TINY = AutoencoderConfig(
    n_patches=7,
    patch=4,
    dim=16,
    depth=3,
    heads=2,
    mlp_ratio=1.5,
    decoder_dim=12,
    decoder_depth=2,
    decoder_heads=3,
)
HEADS = {"heads": 2, "decoder_heads": 3}


@pytest.fixture(scope="module")
def ours():
    torch.manual_seed(0)
    network = FMRIAutoencoder(TINY).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


def in_their_layout(network, decoder=True):
    """Weights as the authors name them: a convolution embeds, positions are stored."""
    state = dict(network.state_dict())
    theirs = {
        "cls_token": state.pop("encoder.cls_token"),
        "pos_embed": network.encoder.positions[None].clone(),
        "patch_embed.proj.weight": state.pop("encoder.patch_embed.weight").unsqueeze(1),
        "patch_embed.proj.bias": state.pop("encoder.patch_embed.bias"),
    }
    for key, value in state.items():
        if key.startswith("encoder."):
            theirs[key[len("encoder.") :]] = value
        elif decoder:
            theirs[key] = value
    if decoder:
        theirs["decoder_pos_embed"] = network.decoder_positions[None].clone()
    return theirs


def guesses(network, n_patches=7, voxels=26):
    x = np.random.default_rng(1).standard_normal((3, voxels)).astype(np.float32)
    vectors = patch_vectors(x, network.config.patch, n_patches)
    masking = draw_masking(vectors.valid, 0.6, torch.Generator().manual_seed(2))
    with torch.no_grad():
        return network(vectors, masking)


def encodings(network):
    x = np.random.default_rng(1).standard_normal((3, 26)).astype(np.float32)
    with torch.no_grad():
        return network.encoder(patch_vectors(x, 4, 7)).tokens


@pytest.fixture
def of_the_authors():
    """A configuration whose class belongs to a module that is gone when the file is read."""
    module = types.ModuleType("authors_config")
    kind = type("Config_MBM_fMRI", (), {"__module__": "authors_config"})
    module.Config_MBM_fMRI = kind
    sys.modules["authors_config"] = module
    config = kind()
    config.patch_size = 4
    config.grid = np.arange(3)
    config.names = collections.OrderedDict(a=1)
    yield config
    sys.modules.pop("authors_config", None)


def masked_autoencoder_file(path, weights, config):
    file = {"model": weights, "optimizer": {"state": {0: torch.ones(2)}}, "epoch": 139}
    torch.save({**file, "scaler": {"scale": 65536.0}, "config": config}, path)
    sys.modules.pop("authors_config")
    return path


def test_pretrained_file_with_an_object_of_a_module_that_is_gone(tmp_path, ours, of_the_authors):
    path = masked_autoencoder_file(tmp_path / "c.pth", in_their_layout(ours), of_the_authors)
    random = torch.random.get_rng_state()
    allowed = set(torch.serialization.get_safe_globals())
    found = load_published_encoder(path, **HEADS)
    assert torch.equal(torch.random.get_rng_state(), random)
    assert found.config == TINY
    assert (found.kind, found.epoch, found.positions) == ("pretrained", 139, "sine")
    assert (found.has_decoder, found.prefix, found.dropped) == (True, "", {})
    assert torch.equal(guesses(found.autoencoder), guesses(ours))
    assert set(torch.serialization.get_safe_globals()) == allowed
    assert "authors_config" not in sys.modules


def test_the_linear_embedding_is_their_convolution(tmp_path, ours):
    theirs = in_their_layout(ours)
    torch.save(theirs, tmp_path / "bare.pth")
    network = load_published_encoder(tmp_path / "bare.pth", **HEADS).autoencoder
    x = torch.randn(2, 28)
    with torch.no_grad():
        convolved = torch.nn.functional.conv1d(
            x[:, None], theirs["patch_embed.proj.weight"], theirs["patch_embed.proj.bias"], stride=4
        )
        embedded = network.encoder.patch_embed(patch_vectors(x, 4).values)
    torch.testing.assert_close(embedded, convolved.transpose(1, 2))


@pytest.mark.parametrize("safe", [False, True])
def test_finetuned_file_gives_its_encoder(tmp_path, ours, of_the_authors, safe):
    weights = {
        f"cond_stage_model.mae.{key}": value
        for key, value in in_their_layout(ours, decoder=False).items()
    }
    weights |= {
        "cond_stage_model.channel_mapper.0.weight": torch.ones(3, 7, 1),
        "model.diffusion_model.input_blocks.0.0.weight": torch.ones(2),
        "model.diffusion_model.out.2.bias": torch.ones(2),
        "first_stage_model.encoder.conv_in.weight": torch.ones(2),
        "betas": torch.ones(4),
    }
    path = tmp_path / ("f.safetensors" if safe else "f.pth")
    if safe:
        save_file(weights, path)
    else:
        state = torch.random.get_rng_state()
        torch.save({"model_state_dict": weights, "config": of_the_authors, "state": state}, path)
    sys.modules.pop("authors_config")
    found = load_published_encoder(path, heads=2)
    assert (found.kind, found.epoch, found.has_decoder) == ("finetuned", None, False)
    assert found.prefix == "cond_stage_model.mae."
    assert found.dropped == {
        "betas": 1,
        "cond_stage_model.channel_mapper": 1,
        "first_stage_model.encoder": 1,
        "model.diffusion_model": 2,
    }
    assert found.config.decoder_depth == 8
    assert torch.equal(encodings(found.autoencoder), encodings(ours))
    again = load_published_encoder(path, heads=2).autoencoder
    assert torch.equal(again.decoder_pred.weight, found.autoencoder.decoder_pred.weight)


def test_weights_of_parallel_training_with_cross_attention(tmp_path, ours):
    weights = in_their_layout(ours) | {
        "cross_blocks.0.attn.weight": torch.ones(2),
        "cross_blocks.11.attn.weight": torch.ones(2),
        "fmri2image.weight": torch.ones(2),
    }
    wrapped = {f"module.{key}": value for key, value in weights.items()}
    torch.save({"model": wrapped, "epoch": torch.ones(1)}, tmp_path / "ddp.pth")
    found = load_published_encoder(tmp_path / "ddp.pth", **HEADS)
    assert found.dropped == {"cross_blocks": 2, "fmri2image": 1}
    assert found.epoch is None
    assert torch.equal(guesses(found.autoencoder), guesses(ours))


def test_half_precision_becomes_single_with_exact_positions(tmp_path, ours):
    weights = {key: value.half() for key, value in in_their_layout(ours).items()}
    torch.save({"model": weights}, tmp_path / "half.pth")
    found = load_published_encoder(tmp_path / "half.pth", **HEADS)
    assert found.positions == "sine"
    assert {value.dtype for value in found.autoencoder.parameters()} == {torch.float32}
    rounded = FMRIAutoencoder(TINY).eval()
    rounded.load_state_dict({key: value.half() for key, value in ours.state_dict().items()})
    assert torch.equal(guesses(found.autoencoder), guesses(rounded))


def test_positions_that_are_no_sines_are_kept_and_survive_our_own_format(tmp_path, ours):
    weights = in_their_layout(ours)
    weights["pos_embed"] = weights["pos_embed"] + 2e-3 * torch.randn(1, 8, 16)
    torch.save(weights, tmp_path / "learned.pth")
    found = load_published_encoder(tmp_path / "learned.pth", **HEADS)
    assert found.positions == "other"
    assert torch.equal(found.autoencoder.encoder.positions, weights["pos_embed"][0])
    assert not torch.equal(guesses(found.autoencoder), guesses(ours))
    save_encoder(tmp_path / "own", found.autoencoder, {})
    assert torch.equal(guesses(load_encoder(tmp_path / "own")), guesses(found.autoencoder))
    # A reader that knows only sines cannot lose them silently.
    with pytest.raises(RuntimeError, match="positions"):
        FMRIAutoencoder(TINY).load_state_dict(found.autoencoder.state_dict())
    with pytest.raises(CalcarineError, match="positions='interpolate'"):
        interpolated(found.autoencoder, 9)


class Evil:
    def __init__(self, call, *args):
        self.reduced = (call, args)

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("way", ["os.system", "exec", "open"])
def test_nothing_of_a_file_is_run(tmp_path, ours, way):
    mark = tmp_path / "was_run"
    call = {
        "os.system": (os.system, f"touch {mark}"),
        "exec": (exec, f"open({str(mark)!r}, 'w').close()"),
        "open": (open, str(mark), "w"),
    }[way]
    path = tmp_path / "evil.pth"
    torch.save({"model": in_their_layout(ours), "config": [Evil(*call)]}, path)
    if way == "os.system":
        with pytest.raises(CalcarineError, match="nothing of it was run"):
            load_published_encoder(path, **HEADS)
    else:
        found = load_published_encoder(path, **HEADS)
        assert torch.equal(guesses(found.autoencoder), guesses(ours))
    assert not mark.exists()
    torch.load(path, weights_only=False)  # the file would have done it
    assert mark.exists()


def test_weights_made_by_unknown_code_are_missing_not_made(tmp_path, ours):
    weights = in_their_layout(ours)
    weights["norm.weight"] = Evil(np.ones, 16)
    torch.save({"model": weights}, tmp_path / "c.pth")
    with pytest.raises(CalcarineError, match=r"lacks norm\.weight \(1 of"):
        load_published_encoder(tmp_path / "c.pth", **HEADS)


def test_a_whole_file_is_needed(tmp_path, ours):
    whole = tmp_path / "whole.pth"
    torch.save({"model": in_their_layout(ours)}, whole)
    content = whole.read_bytes()
    for share in (0, 1, 100, len(content) // 2, len(content) - 1):
        (tmp_path / "cut.pth").write_bytes(content[:share])
        with pytest.raises(CalcarineError, match=r"cut\.pth is truncated.*copy it again"):
            load_published_encoder(tmp_path / "cut.pth", **HEADS)
    save_file(in_their_layout(ours), tmp_path / "cut.safetensors")
    content = (tmp_path / "cut.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(content[:-1])
    with pytest.raises(CalcarineError, match="truncated"):
        load_published_encoder(tmp_path / "cut.safetensors", **HEADS)


def test_files_of_other_kinds_are_told(tmp_path, ours):
    def refused(name, sentence):
        with pytest.raises(CalcarineError, match=sentence) as told:
            load_published_encoder(tmp_path / name, **HEADS)
        assert "\n" not in str(told.value)

    refused("none.pth", "There is no file")
    torch.save(in_their_layout(ours), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    refused("old.pth", "before version 1.6")
    with zipfile.ZipFile(tmp_path / "z.pth", "w") as archive:
        archive.writestr("a.txt", "b")
    refused("z.pth", "damaged or not a checkpoint")
    torch.save([torch.ones(2)], tmp_path / "list.pth")
    refused("list.pth", "no weights by name")
    torch.save({"model": {"a": 1}}, tmp_path / "none_inside.pth")
    refused("none_inside.pth", "no named weights")
    torch.save({"patch_embed.proj.weight": torch.ones(8, 3, 4, 4)}, tmp_path / "image.pth")
    refused("image.pth", "not an encoder of voxels")


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
def test_what_is_missing_or_misshapen_is_named(tmp_path, ours):
    path = tmp_path / "c.pth"

    def refused(sentence, *without, prefix="", heads=HEADS, **instead):
        weights = {k: v for k, v in in_their_layout(ours).items() if k not in without}
        weights |= {key.replace("__", "."): value for key, value in instead.items()}
        torch.save({prefix + key: value for key, value in weights.items()}, path)
        with pytest.raises(CalcarineError, match=sentence) as told:
            load_published_encoder(path, **heads)
        assert "\n" not in str(told.value)

    refused(
        r"lacks enc\.blocks\.1\.attn\.qkv\.bias \(1 of", "blocks.1.attn.qkv.bias", prefix="enc."
    )
    refused(r"lacks pos_embed \(2 of", "pos_embed", "decoder_pos_embed")
    refused(r"lacks decoder_embed\.weight \(1 of", "decoder_embed.weight")
    third = [key for key in in_their_layout(ours) if key.startswith("blocks.1.")]
    refused(r"lacks blocks\.1\.norm1\.weight \(12 of", *third)
    refused(
        r"blocks\.2\.mlp\.fc1\.weight has shape \(20, 16\) where \(24, 16\)",
        blocks__2__mlp__fc1__weight=torch.ones(20, 16),
    )
    refused(r"pos_embed has shape \(8, 16\) where \(1, \d+, 16\)", pos_embed=torch.ones(8, 16))
    refused("norm.bias that are not finite", norm__bias=torch.full((16,), torch.nan))
    refused("norm.bias that are not finite", norm__bias=torch.ones(16, dtype=torch.int64))
    refused("norm.bias that are not finite", norm__bias=torch.ones(16).to_sparse())
    refused("norm.bias that are not finite", norm__bias=torch.ones(16, device="meta"))
    refused("has shape", patch_embed__proj__weight=torch.ones(0, 1, 4))
    refused("width 16, which 3 heads do not divide", heads={"heads": 3, "decoder_heads": 3})
    refused("give the number it was trained with as decoder_heads", heads={"heads": 2})


def test_of_two_encoders_one_is_chosen(tmp_path, ours):
    one = in_their_layout(ours)
    other = {key: value + 1.0 for key, value in one.items()}
    both = {f"a.{k}": v for k, v in one.items()} | {f"b.{k}": v for k, v in other.items()}
    torch.save(both, tmp_path / "two.pth")
    with pytest.raises(CalcarineError, match=r"2 encoders, named 'a\.', 'b\.'"):
        load_published_encoder(tmp_path / "two.pth", **HEADS)
    found = load_published_encoder(tmp_path / "two.pth", prefix="a.", **HEADS)
    assert sum(found.dropped.values()) == len(other)
    assert torch.equal(guesses(found.autoencoder), guesses(ours))


def test_another_length_keeps_weights_and_sines(ours):
    longer = interpolated(ours, 11)
    assert longer.config.n_patches == 11 and ours.config.n_patches == 7
    assert torch.equal(longer.encoder.positions, sine_positions(11, 16))
    # With sines a patch keeps its position, so short vectors are guessed as before.
    assert torch.equal(guesses(longer), guesses(ours))
    assert guesses(longer, 11, 44).shape == (3, 11, 4)
    with pytest.raises(CalcarineError, match="1 patch or more"):
        interpolated(ours, 0)


@pytest.mark.parametrize("n", [3, 7, 15])
def test_stretched_positions_follow_the_formula(ours, n):
    network = interpolated(ours, n, "interpolate")
    old = ours.encoder.positions.numpy()
    expected = [old[0]]
    for place in range(n):
        # Centres of the new patches on the scale of the old ones.
        at = np.clip((place + 0.5) * 7 / n - 0.5, 0, 6)
        low = int(at)
        high = min(low + 1, 6)
        expected.append(old[1 + low] * (1 - (at - low)) + old[1 + high] * (at - low))
    np.testing.assert_allclose(network.encoder.positions.numpy(), expected, atol=1e-5)
    assert network.decoder_positions.shape == (n + 1, 12)
    assert torch.equal(network.decoder_pred.weight, ours.decoder_pred.weight)


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 5000), st.integers(1, 2000))
def test_the_ratio_gives_the_hidden_width_back(hidden, dim):
    assert int(dim * _ratio(hidden, dim)) == hidden


def test_numbers_beside_objects_are_read(tmp_path, of_the_authors):
    told = {"a": [1, 2.5, "word", None, True], "b": torch.arange(3), "c": of_the_authors}
    torch.save(told, tmp_path / "c.pth")
    sys.modules.pop("authors_config")
    found = read_checkpoint(tmp_path / "c.pth")
    assert found["a"] == told["a"] and torch.equal(found["b"], told["b"])
    assert isinstance(found["c"], list) and not vars(found["c"])
