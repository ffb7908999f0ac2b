"""Each kind of error can be caught on its own, as a CalcarineError, and as Python's own kind."""

import numpy as np
import pytest

from calcarine.brain import Split
from calcarine.brain.responses import make_responses
from calcarine.brain.scaling import check_zscore
from calcarine.checkpoints.network_weights import ALEXNET, WeightsStore
from calcarine.checkpoints.pickles import read_checkpoint
from calcarine.errors import (
    CalcarineError,
    DamagedFileError,
    LeakageError,
    MissingFileError,
    MissingWeightsError,
    SettingError,
    ShapeError,
)


def _damaged(folder):
    (folder / "split.json").write_text("{")
    Split.read(folder / "split.json")


RAISES = {
    "missing file": (
        lambda folder: Split.read(folder / "none.json"),
        (MissingFileError, FileNotFoundError),
    ),
    "missing checkpoint": (
        lambda folder: read_checkpoint(folder / "none.pth"),
        (MissingFileError, FileNotFoundError),
    ),
    "missing weights": (
        lambda folder: WeightsStore(folder).find(ALEXNET),
        (MissingWeightsError, MissingFileError),
    ),
    "shape": (
        lambda folder: make_responses(np.zeros((2, 3)), ["a"]),
        (ShapeError, ValueError),
    ),
    "setting": (lambda folder: check_zscore("all", "A test"), (SettingError, ValueError)),
    "leakage": (lambda folder: Split("s", ("a", "b"), ("b",), "mine"), (LeakageError,)),
    "damaged": (_damaged, (DamagedFileError,)),
}


@pytest.mark.parametrize("name", RAISES)
def test_each_kind_is_caught_by_its_own_name_and_by_the_base(name, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    act, kinds = RAISES[name]
    for kind in (*kinds, CalcarineError):
        with pytest.raises(kind):
            act(tmp_path)


def test_kinds_do_not_catch_each_other(tmp_path):
    kinds = (MissingFileError, ShapeError, SettingError, LeakageError, DamagedFileError)
    for one in kinds:
        assert not any(issubclass(one, other) for other in kinds if other is not one)


def test_the_message_is_the_text_alone(tmp_path):
    with pytest.raises(MissingFileError) as caught:
        Split.read(tmp_path / "none.json")
    assert str(caught.value).startswith("The split ")
    assert caught.value.errno is None
