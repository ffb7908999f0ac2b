import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from calcarine.errors import CalcarineError
from calcarine.files import local_files as files
from calcarine.training.tensor_trees import load_tree, save_tree

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.bool]
TENSORS = st.builds(
    lambda dtype, shape: (torch.arange(24)[: shape[0] * shape[1]] % 3).reshape(shape).to(dtype),
    st.sampled_from(DTYPES),
    st.tuples(st.integers(0, 4), st.integers(1, 6)),
)
PLAIN = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5)
)
TREES = st.recursive(
    st.one_of(PLAIN, TENSORS),
    lambda part: st.one_of(
        st.lists(part, max_size=3),
        st.tuples(part, part),
        st.dictionaries(st.one_of(st.text(max_size=3), st.integers(), st.just("$")), part),
    ),
    max_leaves=12,
)


def same(a, b):
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


@settings(max_examples=80, deadline=None)
@given(tree=TREES)
def test_a_tree_comes_back_as_it_was(tmp_path_factory, tree):
    path = tmp_path_factory.mktemp("tree") / "a.json"
    save_tree(tree, path)
    assert same(tree, load_tree(path))


def test_an_optimizer_goes_on_as_if_never_stored(tmp_path):
    def model():
        torch.manual_seed(0)
        return torch.nn.Linear(3, 2)

    def steps(net, optimizer, n):
        for _ in range(n):
            optimizer.zero_grad()
            net(torch.ones(4, 3)).square().sum().backward()
            optimizer.step()
        return net.weight.detach().clone()

    first = model()
    optimizer = torch.optim.AdamW(first.parameters(), lr=0.1, betas=(0.8, 0.9), amsgrad=True)
    steps(first, optimizer, 3)
    save_tree({"net": first.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "a.json")
    second = model()
    other = torch.optim.AdamW(second.parameters(), lr=0.5)
    tree = load_tree(tmp_path / "a.json")
    second.load_state_dict(tree["net"])
    other.load_state_dict(tree["optimizer"])
    assert torch.equal(steps(first, optimizer, 4), steps(second, other, 4))
    assert other.param_groups[0]["betas"] == (0.8, 0.9)


def test_shared_and_overlapping_tensors(tmp_path):
    shared = torch.arange(6.0)
    tree = {"a": shared, "b": shared, "part": shared[2:], "across": shared.reshape(2, 3).T}
    save_tree(tree, tmp_path / "a.json")
    back = load_tree(tmp_path / "a.json")
    assert same(tree, back)
    assert back["a"] is back["b"]
    assert (tmp_path / "a.safetensors").stat().st_size < 4 * (6 + 4 + 6) + 400


def test_what_cannot_be_stored_is_told(tmp_path):
    with pytest.raises(CalcarineError, match="A set cannot be stored"):
        save_tree({"a": {1}}, tmp_path / "a.json")


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_every_flipped_byte_and_truncation_is_noticed(tmp_path, suffix):
    save_tree({"w": torch.arange(5.0), "step": 3, "pair": (1, 0.5)}, tmp_path / "a.json")
    path = tmp_path / f"a{suffix}"
    whole = path.read_bytes()
    for place in range(len(whole)):
        broken = bytearray(whole)
        broken[place] ^= 1
        path.write_bytes(broken)
        with pytest.raises(CalcarineError, match="damaged"):
            load_tree(tmp_path / "a.json")
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(CalcarineError, match="damaged"):
            load_tree(tmp_path / "a.json")
    path.write_bytes(whole)
    assert load_tree(tmp_path / "a.json")["step"] == 3


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_a_full_disk_leaves_the_former_and_is_told(tmp_path, suffix, monkeypatch):
    save_tree({"w": torch.zeros(2)}, tmp_path / "old.json")
    monkeypatch.setattr(files.secrets, "token_hex", lambda n: "0" * 2 * n)
    (tmp_path / f"new{suffix}.00000000.part").symlink_to("/dev/full")
    with pytest.raises(
        CalcarineError, match=r"disk is full; .* MB are free in .*checkpoint is kept.*same comm"
    ):
        save_tree({"w": torch.zeros(50_000)}, tmp_path / "new.json")
    assert not (tmp_path / "new.json").exists()
    assert load_tree(tmp_path / "old.json")["w"].shape == (2,)
