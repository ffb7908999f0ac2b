"""Paths may be strings wherever they may be Paths."""

from calcarine.checkpoints import load_safetensors, read_checkpoint
from calcarine.files import (
    atomic_write,
    digest_file,
    is_inside,
    read_json,
    write_bytes,
    write_text,
)
from calcarine.files.locks import folder_lock


def test_files_take_strings(tmp_path):
    path = str(tmp_path / "sub" / "a.json")
    write_text(path, "[1, 2]")
    assert read_json(path) == [1, 2]
    digest = digest_file(path)
    with atomic_write(path) as temporary:
        temporary.write_bytes(b"[3]")
    assert read_json(path) == [3] and digest_file(path) != digest
    write_bytes(path, b"{}")
    assert read_json(path) == {} and is_inside(path, str(tmp_path))
    with folder_lock(str(tmp_path)) as taken:
        assert taken


def test_checkpoints_take_strings(tmp_path):
    import torch
    from safetensors.torch import save_file

    path = str(tmp_path / "a.safetensors")
    save_file({"x": torch.ones(2)}, path)
    assert load_safetensors(path)["x"].tolist() == [1, 1]
    assert read_checkpoint(path)["x"].tolist() == [1, 1]
