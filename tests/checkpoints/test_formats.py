"""The one recogniser of weight formats, and the readers that use it."""

import hashlib
import json
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from calcarine.checkpoints import formats as checkpoints
from calcarine.checkpoints.network_weights import _content
from calcarine.checkpoints.pickles import read_checkpoint
from calcarine.checkpoints.single_file import read_single_file
from calcarine.errors import CalcarineError
from calcarine.linear import RidgeCV
from calcarine.linear import load as load_ridge
from calcarine.linear import save as save_ridge

TENSOR = torch.arange(6.0).reshape(2, 3)


def with_header(length):
    """A safetensors file whose header is ``length`` bytes long, by spaces after its JSON."""
    content = save({"a": TENSOR})
    old = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + old].rstrip(b" ").ljust(length, b" ")
    assert len(header) == length
    return struct.pack("<Q", length) + header + content[8 + old :]


# 128 modulo 256 begins like a pickle, 0x4B50 modulo 65,536 like a zip archive.
@pytest.mark.parametrize("length", [128, 384, 0x4B50, 0x14B50])
@pytest.mark.parametrize(
    "read", [checkpoints.load_safetensors, read_single_file, read_checkpoint, _content]
)
def test_a_header_may_begin_like_another_format(tmp_path, length, read):
    file = tmp_path / "weights.safetensors"
    file.write_bytes(with_header(length))
    assert file.read_bytes()[:1] == b"\x80" or file.read_bytes()[:2] == b"PK"
    assert torch.equal(read(file)["a"], TENSOR)


@given(st.integers(12, 9000).map(lambda n: 8 * n))
@settings(max_examples=60, deadline=None)
def test_every_length_of_header_is_recognised(length):
    assert checkpoints.weights_format(with_header(length)) == "safetensors"


@given(st.recursive(st.floats() | st.text() | st.integers(), st.lists, max_leaves=5))
@settings(max_examples=60, deadline=None)
def test_pickles_are_never_taken_for_safetensors(value):
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        found = checkpoints.weights_format(pickle.dumps({"a": value}, protocol))
        assert found == ("pickle" if protocol > 1 else "unknown")


def test_every_reader_refuses_a_pickle_with_the_name_of_safetensors(tmp_path):
    def legacy(file):
        torch.save({"a": TENSOR}, file, _use_new_zipfile_serialization=False)

    def bare(file):
        file.write_bytes(pickle.dumps({"a": 1}))

    for number, write in enumerate((legacy, bare, lambda file: torch.save({"a": TENSOR}, file))):
        file = tmp_path / f"{number}.safetensors"
        write(file)
        for read in (checkpoints.load_safetensors, read_single_file, read_checkpoint):
            with pytest.raises(CalcarineError, match="pickle"):
                read(file)
        assert _content(file) is None


def test_a_zip_archive_is_named_after_its_content(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w"):
        pass
    assert checkpoints.file_format(tmp_path / "a.zip") == "zip"
    assert checkpoints.weights_format(b"") == "unknown"


@pytest.mark.parametrize(
    "header", [b"[]", b"{}", b'{"a": null}', b'{"a": {"data_offsets": ["x", "y"]}}', b'{"a": 1}']
)
def test_odd_headers_end_in_one_sentence(tmp_path, header):
    file = tmp_path / "a.safetensors"
    file.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 9)
    with pytest.raises(CalcarineError, match="copy it again"):
        checkpoints.load_safetensors(file)


def test_truncated_files_are_refused(tmp_path):
    content, file = with_header(128), tmp_path / "a.safetensors"
    for end in (0, 7, 8, 9, 100, len(content) - 1):
        file.write_bytes(content[:end])
        with pytest.raises(CalcarineError, match=r"whole|truncated"):
            checkpoints.load_safetensors(file)


def test_safetensors_under_another_name_are_read(tmp_path):
    file = tmp_path / "model.ckpt"
    save_file({"a": TENSOR}, file)
    for read in (read_single_file, read_checkpoint, _content):
        assert torch.equal(read(file)["a"], TENSOR)


def test_encoders_load_whatever_their_header_is_long(tmp_path):
    from calcarine.visdec.encoder_storage import load_encoder, new_autoencoder, save_encoder
    from calcarine.visdec.fmri_autoencoder import AutoencoderConfig

    # This one's header is 128 bytes long modulo 256.
    config = AutoencoderConfig(
        n_patches=32, dim=16, depth=8, heads=2, decoder_dim=16, decoder_depth=1, decoder_heads=2
    )
    save_encoder(tmp_path, new_autoencoder(config), {})
    assert (tmp_path / "encoder.safetensors").read_bytes()[0] == 0x80
    assert load_encoder(tmp_path).config == config


def test_ridge_weights_load_whatever_their_header_is_long(tmp_path, rng):
    X = rng.normal(size=(20, 3))
    ridge = RidgeCV(alphas=[1.0], n_folds=2).fit(X, X)
    weights, about = save_ridge(ridge, tmp_path / "ridge")
    content = weights.read_bytes()
    old = int.from_bytes(content[:8], "little")
    for length in (0x480, 0x4B50):
        header = content[8 : 8 + old].rstrip(b" ").ljust(length, b" ")
        changed = struct.pack("<Q", length) + header + content[8 + old :]
        weights.write_bytes(changed)
        described = json.loads(about.read_text())
        described["sha256"] = hashlib.sha256(changed).hexdigest()
        about.write_text(json.dumps(described))
        assert np.array_equal(load_ridge(tmp_path / "ridge").coef_, ridge.coef_)


def test_keys_that_do_not_fit_are_named():
    info = {
        "missing_keys": ["a", "b", "c", "d", "x.position_ids"],
        "unexpected_keys": ["e", "head.f", "embeddings.position_ids"],
        "mismatched_keys": [("g", (1,), (2,))],
    }
    with pytest.raises(CalcarineError) as error:
        checkpoints.check_loaded(info, "folder", unused=("head.",))
    for part in ("a, b, c and 1 more", "the unknown e and", "another shape for g", "folder"):
        assert part in str(error.value)
    checkpoints.check_loaded(
        {"missing_keys": set(), "unexpected_keys": ["text_model.embeddings.position_ids"]}, "here"
    )


@pytest.mark.parametrize("read", [read_checkpoint, read_single_file])
def test_an_archive_in_several_parts_is_refused(tmp_path, read):
    directory = struct.pack("<4sIQI", b"PK\x06\x07", 0, 0, 7)  # zip64, of seven disks
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0, 0, 0, 0, 0)
    path = tmp_path / "model.pth"
    path.write_bytes(b"PK\x03\x04" + bytes(200) + directory + end)
    with pytest.raises(zipfile.BadZipFile):
        zipfile.is_zipfile(path)
    with pytest.raises(CalcarineError, match="truncated"):
        read(path)
