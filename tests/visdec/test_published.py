"""Published checkpoints are read whole, without running them, or refused in one sentence."""

from __future__ import annotations

import collections
import os
import runpy
import sys
import types
import zipfile
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from calcarine.checkpoints.pickles import read_checkpoint
from calcarine.diffusion import ModelNote
from calcarine.errors import CalcarineError
from calcarine.visdec.encoder_storage import has_own_positions, load_encoder, save_encoder
from calcarine.visdec.fmri_autoencoder import AutoencoderConfig, FMRIAutoencoder
from calcarine.visdec.masking import draw_masking
from calcarine.visdec.other_lengths import interpolated
from calcarine.visdec.patches import PatchedVectors, patch_vectors
from calcarine.visdec.published_encoder import _ratio, load_published_encoder

# Test modules cannot be imported; this one is the authors' network without anything of ours.
LAYOUT = runpy.run_path(str(Path(__file__).with_name("published_layout.py")))
random_autoencoder, stored = LAYOUT["random_autoencoder"], LAYOUT["stored"]
SHAPE = AutoencoderConfig(
    n_patches=7,
    patch=4,
    dim=16,
    depth=3,
    heads=2,
    mlp_ratio=1.5,
    decoder_dim=12,
    decoder_depth=2,
    decoder_heads=3,
    norm_eps=1e-5,
)
HEADS = {"heads": 2, "decoder_heads": 3}


@pytest.fixture(scope="module")
def theirs():
    return random_autoencoder()


def voxels(n):
    x = np.random.default_rng(1).standard_normal((3, n)).astype(np.float32)
    return torch.from_numpy(x).double()


def exact(*networks):
    """The networks in double precision, in which the epsilon of each single norm shows."""
    return [deepcopy(network).double() for network in networks]


def patches(n):
    cut = patch_vectors(voxels(n), 4)
    return PatchedVectors(cut.values.double(), cut.valid)


@torch.no_grad()
def off(ours, theirs, n=26):
    """Largest differences of encoded tokens and of predictions, with three fifths masked."""
    ours, theirs = exact(ours, theirs)
    vectors = patches(n)
    masking = draw_masking(vectors.valid, 0.6, torch.Generator().manual_seed(2))
    visible = masking.visible.flip(1)  # their order is random
    tokens = ours.encoder(vectors, masking).tokens
    expected = theirs.encode(voxels(n), visible)
    encoded = torch.cat([expected[:, :1], expected[:, 1:].flip(1)], 1)
    predicted = theirs.predict(voxels(n), visible)
    assert encoded.std() > 0.5 and predicted.std() > 0.5
    return (
        float((tokens - encoded).abs().max()),
        float((ours(vectors, masking) - predicted).abs().max()),
    )


@torch.no_grad()
def off_without_class_token(ours, theirs, n=26):
    """Largest difference of the tokens of the last phase."""
    ours, theirs = exact(ours, theirs)
    tokens = ours.encoder(patches(n), class_token=False).tokens
    return float((tokens - theirs.encode_for_conditioner(voxels(n))).abs().max())


def with_other(network, **changes):
    """The same weights in a network of another configuration."""
    other = FMRIAutoencoder(replace(network.config, **changes)).eval()
    other.load_state_dict(network.state_dict())
    return other


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


def test_pretrained_file_with_an_object_of_a_module_that_is_gone(tmp_path, theirs, of_the_authors):
    path = masked_autoencoder_file(tmp_path / "c.pth", stored(theirs), of_the_authors)
    random = torch.random.get_rng_state()
    allowed = set(torch.serialization.get_safe_globals())
    found = load_published_encoder(path, **HEADS)
    assert torch.equal(torch.random.get_rng_state(), random)
    assert found.config == SHAPE
    assert (found.kind, found.epoch, found.positions) == ("pretrained", 139, "sine")
    assert (found.has_decoder, found.prefix, found.dropped) == (True, "", {})
    assert found.notes == ()
    assert max(off(found.autoencoder, theirs)) < 1e-6
    assert set(torch.serialization.get_safe_globals()) == allowed
    assert "authors_config" not in sys.modules


def test_the_linear_embedding_is_their_convolution(tmp_path, theirs):
    theirs = stored(theirs)
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
def test_finetuned_file_gives_its_encoder(tmp_path, theirs, of_the_authors, safe):
    weights = {
        f"cond_stage_model.mae.{key}": value for key, value in stored(theirs, decoder=False).items()
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
    assert off(found.autoencoder, theirs)[0] < 1e-6
    assert off_without_class_token(found.autoencoder, theirs) < 1e-6
    (note,) = found.notes
    assert "5 are not needed: those of the noise schedule, the conditioner, " in note
    assert note.endswith("the image autoencoder and the diffusion model.")
    again = load_published_encoder(path, heads=2).autoencoder
    assert torch.equal(again.decoder_pred.weight, found.autoencoder.decoder_pred.weight)


def test_weights_of_parallel_training_and_of_the_second_phase(tmp_path, theirs):
    weights = stored(theirs) | {
        "cross_blocks.0.attn.weight": torch.ones(2),
        "cross_blocks.11.attn.weight": torch.ones(2),
        "cross_map_in.weight": torch.ones(2),
        "nature_img_decoder_pred.0.weight": torch.ones(2),
    }
    wrapped = {f"module.{key}": value for key, value in weights.items()}
    torch.save({"model": wrapped, "epoch": torch.ones(1)}, tmp_path / "ddp.pth")
    found = load_published_encoder(tmp_path / "ddp.pth", **HEADS)  # known parts are no warning
    assert found.dropped == {"cross_blocks": 2, "cross_map_in": 1, "nature_img_decoder_pred": 1}
    assert found.epoch is None
    assert max(off(found.autoencoder, theirs)) < 1e-6
    assert found.notes == (
        f"Of the {len(weights)} weights of {tmp_path / 'ddp.pth'}, 4 are not needed: those of the "
        "cross-attention with pictures and the decoder of picture features.",
    )


def test_weights_with_unknown_names_are_counted_and_named(tmp_path, theirs):
    weights = stored(theirs) | {
        "cross_blocks.0.attn.weight": torch.ones(2),
        "adapter.0.weight": torch.ones(2),
        "adapter.1.weight": torch.ones(2),
        "decoder_blocks.0.attn.scale": torch.ones(2),
        "blocks.0.attn.scale": torch.ones(2),
    }
    torch.save({"model": weights}, tmp_path / "c.pth")
    sentence = (
        f"Of the {len(weights)} weights of {tmp_path / 'c.pth'}, 4 have unknown names and are not "
        "used: adapter (2), blocks (1), decoder_blocks (1)."
    )
    with pytest.warns(ModelNote) as warned:
        found = load_published_encoder(tmp_path / "c.pth", **HEADS)
    assert [str(each.message) for each in warned] == [sentence]
    assert found.notes[1:] == (sentence,) and "1 are not needed" in found.notes[0]
    weights |= {f"part{n:02}.weight": torch.ones(2) for n in range(20)}
    torch.save({"model": weights}, tmp_path / "c.pth")
    with pytest.warns(ModelNote, match=r"24 have .*, decoder_blocks \(1\), .*, 16 other groups\.$"):
        load_published_encoder(tmp_path / "c.pth", **HEADS)


def test_half_precision_becomes_single_with_exact_positions(tmp_path, theirs):
    weights = {key: value.half() for key, value in stored(theirs).items()}
    torch.save({"model": weights}, tmp_path / "half.pth")
    found = load_published_encoder(tmp_path / "half.pth", **HEADS)
    assert found.positions == "sine"
    assert {value.dtype for value in found.autoencoder.parameters()} == {torch.float32}
    rounded = random_autoencoder()
    exact = {key: value for key, value in weights.items() if "pos_embed" not in key}
    rounded.load_state_dict(exact, strict=False)
    assert max(off(found.autoencoder, rounded)) < 1e-6


def test_positions_that_are_no_sines_are_kept_and_survive_our_own_format(tmp_path):
    learned = random_autoencoder()
    learned.pos_embed += 2e-3 * torch.randn(1, 8, 16)
    torch.save(stored(learned), tmp_path / "learned.pth")
    found = load_published_encoder(tmp_path / "learned.pth", **HEADS)
    assert found.positions == "other"
    assert max(off(found.autoencoder, learned)) < 1e-6
    assert min(off(found.autoencoder, random_autoencoder())) > 1e-4
    save_encoder(tmp_path / "own", found.autoencoder, {})
    assert max(off(load_encoder(tmp_path / "own"), learned)) < 1e-6
    # A reader that knows only sines cannot lose them silently.
    with pytest.raises(RuntimeError, match="positions"):
        FMRIAutoencoder(SHAPE).load_state_dict(found.autoencoder.state_dict())
    with pytest.raises(CalcarineError, match="positions='nearest'"):
        interpolated(found.autoencoder, 9)


class Evil:
    def __init__(self, call, *args):
        self.reduced = (call, args)

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("way", ["os.system", "exec", "open"])
def test_nothing_of_a_file_is_run(tmp_path, theirs, way):
    mark = tmp_path / "was_run"
    call = {
        "os.system": (os.system, f"touch {mark}"),
        "exec": (exec, f"open({str(mark)!r}, 'w').close()"),
        "open": (open, str(mark), "w"),
    }[way]
    path = tmp_path / "evil.pth"
    torch.save({"model": stored(theirs), "config": [Evil(*call)]}, path)
    if way == "os.system":
        with pytest.raises(CalcarineError, match="nothing of it was run"):
            load_published_encoder(path, **HEADS)
    else:
        found = load_published_encoder(path, **HEADS)
        assert max(off(found.autoencoder, theirs)) < 1e-6
    assert not mark.exists()
    torch.load(path, weights_only=False)  # the file would have done it
    assert mark.exists()


def test_weights_made_by_unknown_code_are_missing_not_made(tmp_path, theirs):
    weights = stored(theirs)
    weights["norm.weight"] = Evil(np.ones, 16)
    torch.save({"model": weights}, tmp_path / "c.pth")
    with pytest.raises(CalcarineError, match=r"lacks norm\.weight \(1 of"):
        load_published_encoder(tmp_path / "c.pth", **HEADS)


def test_a_whole_file_is_needed(tmp_path, theirs):
    whole = tmp_path / "whole.pth"
    torch.save({"model": stored(theirs)}, whole)
    content = whole.read_bytes()
    for share in (0, 1, 100, len(content) // 2, len(content) - 1):
        (tmp_path / "cut.pth").write_bytes(content[:share])
        with pytest.raises(CalcarineError, match=r"cut\.pth is truncated.*copy it again"):
            load_published_encoder(tmp_path / "cut.pth", **HEADS)
    save_file(stored(theirs), tmp_path / "cut.safetensors")
    content = (tmp_path / "cut.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(content[:-1])
    with pytest.raises(CalcarineError, match="truncated"):
        load_published_encoder(tmp_path / "cut.safetensors", **HEADS)


def test_files_of_other_kinds_are_told(tmp_path, theirs):
    def refused(name, sentence):
        with pytest.raises(CalcarineError, match=sentence) as told:
            load_published_encoder(tmp_path / name, **HEADS)
        assert "\n" not in str(told.value)

    refused("none.pth", "There is no file")
    torch.save(stored(theirs), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
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
def test_what_is_missing_or_misshapen_is_named(tmp_path, theirs):
    path = tmp_path / "c.pth"

    def refused(sentence, *without, prefix="", heads=HEADS, **instead):
        weights = {k: v for k, v in stored(theirs).items() if k not in without}
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
    third = [key for key in stored(theirs) if key.startswith("blocks.1.")]
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


def test_of_two_encoders_one_is_chosen(tmp_path, theirs):
    one = stored(theirs)
    other = {key: value + 1.0 for key, value in one.items()}
    both = {f"a.{k}": v for k, v in one.items()} | {f"b.{k}": v for k, v in other.items()}
    torch.save(both, tmp_path / "two.pth")
    with pytest.raises(CalcarineError, match=r"2 encoders, named 'a\.', 'b\.'"):
        load_published_encoder(tmp_path / "two.pth", **HEADS)
    found = load_published_encoder(tmp_path / "two.pth", prefix="a.", **HEADS)
    assert sum(found.dropped.values()) == len(other)
    assert found.notes[0].endswith(f"{len(other)} are not needed: those of another encoder.")
    assert max(off(found.autoencoder, theirs)) < 1e-6


@pytest.fixture
def found(tmp_path, theirs):
    torch.save({"model": stored(theirs)}, tmp_path / "c.pth")
    return load_published_encoder(tmp_path / "c.pth", **HEADS).autoencoder


def test_the_epsilon_of_layer_norms_is_theirs_and_is_stored(tmp_path, found, theirs):
    assert FMRIAutoencoder(AutoencoderConfig(7, 4, 16, 1, 2)).encoder.norm.eps == 1e-6
    assert min(off(with_other(found, norm_eps=1e-6), theirs)) > 1e-3
    for norm in [part for part in found.modules() if isinstance(part, torch.nn.LayerNorm)]:
        norm.eps = 1e-6  # one after the other, so that these tests see each of them
        assert max(off(found, theirs)) > 2e-6
        norm.eps = 1e-5
    save_encoder(tmp_path / "own", found, {})
    again = load_encoder(tmp_path / "own")
    assert again.config == SHAPE and max(off(again, theirs)) < 1e-6


def test_another_length_keeps_weights_and_sines(found, theirs):
    longer = interpolated(found, 11)
    assert longer.config == replace(SHAPE, n_patches=11) and found.config == SHAPE
    assert not has_own_positions(longer)
    np.testing.assert_allclose(longer.encoder.positions, LAYOUT["sines"](11, 16), atol=1e-6)
    # With sines a patch keeps its position, so short vectors are predicted as before.
    assert max(off(longer, theirs)) < 1e-6
    with pytest.raises(CalcarineError, match="1 patch or more"):
        interpolated(found, 0)
    with pytest.raises(CalcarineError, match="sine or nearest"):
        interpolated(found, 9, "linear")


@pytest.mark.parametrize("n", [3, 5, 10, 15])
def test_another_length_with_the_nearest_positions_as_in_their_last_phase(tmp_path, found, n):
    network = interpolated(found, n, "nearest")
    theirs = random_autoencoder().stretch(n)
    assert off_without_class_token(network, theirs, 4 * n) < 1e-6
    assert max(off(network, theirs, 4 * n)) < 1e-6
    assert off_without_class_token(interpolated(found, n), theirs, 4 * n) > 1e-3
    save_encoder(tmp_path, network, {})
    assert max(off(load_encoder(tmp_path), theirs, 4 * n)) < 1e-6


def test_the_nearest_positions_of_the_same_length_are_the_sines(found, theirs):
    same = interpolated(found, 7, "nearest")
    assert not has_own_positions(same) and max(off(same, theirs)) < 1e-6


@pytest.mark.parametrize(("old", "new"), [(262, 106), (262, 291), (291, 262), (292, 105), (1, 3)])
def test_nearest_positions_at_the_sizes_of_the_data_sets(old, new):
    shape = replace(SHAPE, n_patches=old)
    table = interpolated(FMRIAutoencoder(shape), new, "nearest").encoder.positions
    expected = LAYOUT["nearest"](FMRIAutoencoder(shape).encoder.positions[None], new)[0]
    assert torch.equal(table, expected)


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
