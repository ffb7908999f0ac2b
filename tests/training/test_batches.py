import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calcarine.errors import CalcarineError
from calcarine.training import (
    StepBatches,
    TrainingConfig,
    learning_rate,
    split_validation,
)


def test_learning_rate_closed_form():
    config = TrainingConfig(steps=110, warmup_steps=10, lr=2.0, min_lr=0.5, batch_size=4)
    rates = [learning_rate(step, config) for step in range(110)]
    assert rates[:10] == pytest.approx(np.arange(1, 11) * 0.2)
    assert rates[10] == 2.0
    assert rates[60] == pytest.approx(1.25)  # half of the cosine: the mean of both ends
    assert rates[35] == pytest.approx(0.5 + 1.5 * (1 + math.sqrt(0.5)) / 2)
    assert np.all(np.diff(rates[10:]) < 0)
    # The sum of a half cosine over its equal steps is known: (n + 1) / 2 of the range.
    assert sum(rates[10:]) == pytest.approx(0.5 * 100 + 1.5 * 101 / 2)
    constant = TrainingConfig(steps=110, warmup_steps=10, lr=2.0, schedule="constant")
    assert {learning_rate(step, constant) for step in range(9, 110)} == {2.0}


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 23), st.integers(1, 50), st.integers(0, 9))
def test_batches_are_epochs_laid_end_to_end(n, batch_size, seed):
    batches = StepBatches(n, batch_size, seed)
    steps = list(range(4 * n))
    together = np.concatenate([batches.rows(step) for step in steps])
    epochs = together[: len(together) // n * n].reshape(-1, n)
    assert (np.sort(epochs, axis=1) == np.arange(n)).all()
    if n > 12:
        assert (epochs[0] != epochs[1]).any()
    again = StepBatches(n, batch_size, seed)
    for step in reversed(steps):
        assert (again.rows(step) == together[step * batch_size : (step + 1) * batch_size]).all()


def test_batches_depend_on_the_seed_and_chunks_partition_a_batch():
    batches = StepBatches(100, 24, 1)
    chunks = [batches.chunk(5, index, 6).tolist() for index in range(6)]
    assert [len(chunk) for chunk in chunks] == [4] * 6
    assert [row for chunk in chunks for row in chunk] == batches.rows(5).tolist()
    assert (StepBatches(100, 24, 2).rows(5) != batches.rows(5)).any()
    with pytest.raises(CalcarineError, match="no training samples"):
        StepBatches(0, 4, 0)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 30), min_size=4, max_size=80).filter(lambda ids: len(set(ids)) > 3),
    st.floats(0.01, 0.7),
    st.integers(0, 5),
    st.randoms(use_true_random=False),
)
def test_validation_is_carved_by_stimulus(ids, share, seed, random):
    train, validation = split_validation(ids, share, seed)
    assert sorted([*train, *validation]) == list(range(len(ids)))
    held_out = {ids[i] for i in validation}
    assert not held_out & {ids[i] for i in train}
    assert len(held_out) == max(1, round(share * len(set(ids))))
    # Neither the order of the trials nor the number of repeats changes who is held out.
    other = [*ids, ids[0], ids[0]]
    random.shuffle(other)
    assert {other[i] for i in split_validation(other, share, seed)[1]} == held_out


def test_validation_of_no_or_all_stimuli():
    train, validation = split_validation(["b", "a", "b"], 0, 0)
    assert train.tolist() == [0, 1, 2] and validation.size == 0
    with pytest.raises(CalcarineError, match="leaves none of 1 training stimuli"):
        split_validation(["a", "a"], 0.1, 0)
    with pytest.raises(CalcarineError, match="from 0 up to below 1"):
        split_validation(["a", "b"], 1.0, 0)
    drawn = [split_validation(np.arange(50), 0.2, seed)[1].tolist() for seed in range(3)]
    assert drawn[0] != drawn[1] != drawn[2]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"batch_size": 10, "accumulate": 2, "devices": 2}, "10 cannot be cut evenly into 4"),
        ({"steps": 5, "warmup_steps": 6}, "warmup_steps is 6"),
        ({"lr": 0.1, "min_lr": 0.2}, "min_lr 0.2 is above lr 0.1"),
        ({"select": "best"}, "set validate_every"),
        ({"steps": 5, "patience": 1, "validate_every": 6}, "up to 5"),
    ],
)
def test_settings_that_do_not_fit_are_told_in_one_sentence(settings, told):
    with pytest.raises(CalcarineError, match=told) as error:
        TrainingConfig(**settings)
    assert "\n" not in str(error.value)
