"""Masked autoencoders come back from disk as they were, or not at all."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from calcarine.errors import CalcarineError
from calcarine.files import digest_file
from calcarine.visdec.encoder_storage import (
    _digest,
    has_own_positions,
    load_encoder,
    new_autoencoder,
    read_about,
    save_encoder,
    set_positions,
)
from calcarine.visdec.fmri_autoencoder import AutoencoderConfig, FMRIAutoencoder
from calcarine.visdec.other_lengths import interpolated

TINY = AutoencoderConfig(
    n_patches=5, patch=4, dim=16, depth=2, heads=2, decoder_dim=12, decoder_depth=1, decoder_heads=2
)


@pytest.fixture
def network():
    torch.manual_seed(3)
    return FMRIAutoencoder(TINY).eval()


def same(one, other):
    state = other.state_dict()
    return one.config == other.config and all(
        torch.equal(value, state[key]) for key, value in one.state_dict().items()
    )


def test_weights_configuration_and_origin_come_back(tmp_path, network):
    save_encoder(tmp_path / "a" / "b", network, {"from": "GOD", "epoch": 3})
    found = load_encoder(tmp_path / "a" / "b")
    assert same(found, network) and not found.training and not has_own_positions(found)
    assert read_about(tmp_path / "a" / "b") == {"from": "GOD", "epoch": 3}
    assert sorted(p.name for p in (tmp_path / "a" / "b").iterdir()) == [
        "encoder.json",
        "encoder.safetensors",
    ]


def test_own_positions_come_back_and_must_fit(tmp_path, network):
    tables = torch.randn(6, 16), torch.randn(6, 12)
    set_positions(network, *tables)
    found = load_encoder(save_encoder(tmp_path, network, {}))
    assert has_own_positions(found)
    assert torch.equal(found.encoder.positions, tables[0])
    assert torch.equal(found.decoder_positions, tables[1])
    with pytest.raises(CalcarineError, match=r"shape \(5, 16\) do not fit.* \(6, 16\)"):
        set_positions(network, tables[0][1:], tables[1])


def test_an_encoder_of_an_older_version_is_what_it_was(tmp_path, network):
    """Then all shared their weights and had this epsilon, and neither was stored."""
    save_encoder(tmp_path, network, {})
    file = tmp_path / "encoder.json"
    content = json.loads(file.read_text())
    del content["config"]["embedding"], content["config"]["norm_eps"]
    content["sha256"] = _digest(content["config"], digest_file(tmp_path / "encoder.safetensors"))
    file.write_text(json.dumps(content))
    found = load_encoder(tmp_path)
    assert same(network, found) and found.config.norm_eps == found.decoder_norm.eps == 1e-6


def test_the_epsilon_of_layer_norms_comes_back(tmp_path):
    found = load_encoder(save_encoder(tmp_path, new_autoencoder(replace(TINY, norm_eps=1e-3)), {}))
    norms = [part for part in found.modules() if isinstance(part, torch.nn.LayerNorm)]
    assert len(norms) == 2 * 3 + 2 and {norm.eps for norm in norms} == {1e-3}
    assert {p.eps for p in interpolated(found, 9).modules() if hasattr(p, "eps")} == {1e-3}


def test_weights_of_each_patch_come_back_and_have_one_length(tmp_path):
    own = new_autoencoder(replace(TINY, embedding="own"))
    save_encoder(tmp_path, own, {})
    assert same(own, load_encoder(tmp_path)) and same(own, interpolated(own, 5))
    with pytest.raises(CalcarineError, match="none for 6 patches"):
        interpolated(own, 6)


def test_a_new_network_is_the_same_each_time_and_draws_nothing():
    before = torch.random.get_rng_state()
    assert same(new_autoencoder(TINY), new_autoencoder(TINY))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_an_interrupted_second_save_is_noticed(tmp_path, network, monkeypatch):
    save_encoder(tmp_path, network, {})
    monkeypatch.setattr(
        "calcarine.visdec.encoder_storage.write_text",
        lambda *_: (_ for _ in ()).throw(OSError("full")),
    )
    with pytest.raises(CalcarineError, match="Could not write the encoder"):
        save_encoder(tmp_path, new_autoencoder(TINY), {})
    with pytest.raises(CalcarineError, match=r"is not the file that encoder\.json describes"):
        load_encoder(tmp_path)


def test_damage_is_told_in_one_sentence(tmp_path, network):
    weights, about = tmp_path / "encoder.safetensors", tmp_path / "encoder.json"

    def refused(sentence):
        with pytest.raises(CalcarineError, match=sentence) as told:
            load_encoder(tmp_path)
        assert "\n" not in str(told.value)
        save_encoder(tmp_path, network, {})

    refused("There is no encoder in")
    weights.write_bytes(weights.read_bytes()[:-1])
    refused("truncated")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    refused("is not the file that")
    weights.unlink()
    refused("has no encoder.safetensors")
    about.write_text(about.read_text()[:40])
    refused("is not complete")
    about.write_text("[]")
    refused("not of the format")
    told = json.loads(about.read_text())
    told["config"]["heads"] = 4  # no shape would tell
    about.write_text(json.dumps(told))
    refused("is not the file that")
    told["config"] = None
    about.write_text(json.dumps(told))
    refused("lacks its config")
    assert same(load_encoder(tmp_path), network)


def test_what_is_told_must_be_plain(tmp_path, network):
    for about in ({"a": torch.ones(1)}, {"a": float("nan")}):
        with pytest.raises(CalcarineError, match="plain JSON"):
            save_encoder(tmp_path, network, about)
    assert not any(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_told(tmp_path, network):
    (tmp_path / "file").write_text("x")
    with pytest.raises(CalcarineError, match="Could not write"):
        save_encoder(tmp_path / "file", network, {})
