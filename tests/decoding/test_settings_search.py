"""Strength and guidance are chosen on held-out training stimuli, and on nothing else."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest

from calcarine.brain import BrainDataset
from calcarine.datasets import load_dataset
from calcarine.decoding import choose_settings
from calcarine.errors import SettingError

N_HELD_OUT = 6
OPTIONS = {"n_train": 18, "n_test": 8, "n_early": 20, "n_ventral": 20, "n_other": 0}


@pytest.fixture(scope="module")
def dataset() -> BrainDataset:
    return load_dataset("simulated", **OPTIONS)


@pytest.fixture
def latents(dataset, rng):
    n = len(dataset.stimuli)
    z = rng.standard_normal((n, 2, 4, 4)).astype(np.float32)
    return z, rng.standard_normal((n, 3, 5)).astype(np.float32)


class RecordingDecoder:
    """Predicts the true z and c of the stimuli it is asked for; keeps what it was fitted on."""

    splits: ClassVar[list] = []  # of all copies

    def fit(self, dataset, split, z, c=None):
        self.splits.append(split)
        self.targets = z, c
        return self

    def predict(self, dataset, split=None):
        rows = dataset.stimuli.rows(split.test)
        return {"z": self.targets[0][rows], "c": self.targets[1][rows]}


@dataclass(frozen=True)
class NoisyPictures:
    """Draws the picture of each key, with more noise the further its settings are from a pair."""

    dataset: BrainDataset
    best: tuple[float, float]
    strength: float = 0.0
    guidance: float = 0.0

    @property
    def model(self):
        return SimpleNamespace(image_size=16)

    def from_z_c(self, z, c, keys, progress=None):
        from calcarine.stimuli import resize_images

        seen = self.dataset.stimuli.images([key for key, _ in keys])
        rng = np.random.default_rng([len(keys), round(10 * self.strength), int(self.guidance)])
        far = abs(self.strength - self.best[0]) + abs(self.guidance - self.best[1])
        pictures = resize_images(seen, 16).astype(np.float32) / 255
        if progress is not None:
            progress(len(keys))
        # Noise that the latents shift: a test can see whether they are those of the held-out.
        return pictures + far * rng.standard_normal(pictures.shape) + 1e-3 * z.mean()


def choose(dataset, latents, best=(0.6, 2.0), decoder=None, **options):
    return choose_settings(
        NoisyPictures(dataset, best),
        decoder or RecordingDecoder(),
        dataset,
        dataset.splits[0],
        *latents,
        (0.2, 0.6),
        (1.0, 2.0, 5.0),
        options.pop("n_stimuli", N_HELD_OUT),
        **options,
    )


@pytest.mark.parametrize("best", [(0.2, 1.0), (0.6, 2.0), (0.2, 5.0)])
def test_the_best_pair_is_found_and_scores_are_those_of_a_loop(dataset, latents, best):
    RecordingDecoder.splits = []
    steps: list[int] = []
    chosen = choose(dataset, latents, best, progress=steps.append)
    assert (chosen.strength, chosen.guidance) == best
    assert steps == [N_HELD_OUT] * 6
    (inner,) = RecordingDecoder.splits
    keys = [(stimulus, 0) for stimulus in inner.test]
    z = latents[0][dataset.stimuli.rows(inner.test)]
    truth = NoisyPictures(dataset, (0, 0)).from_z_c(np.zeros(1), None, keys)
    assert [row[:2] for row in chosen.scores] == [(s, g) for s in (0.2, 0.6) for g in (1, 2, 5)]
    for strength, guidance, score in chosen.scores:
        made = NoisyPictures(dataset, best, strength, guidance).from_z_c(z, None, keys)
        r = np.array([[np.corrcoef(t.ravel(), m.ravel())[0, 1] for m in made] for t in truth])
        wins = [r[i, i] > r[i, j] for i in range(len(r)) for j in range(len(r)) if i != j]
        assert score == pytest.approx(np.mean(wins) + r.diagonal().mean(), abs=1e-2)


def test_only_training_stimuli_are_used_and_held_out_ones_are_in_no_fit(dataset, latents):
    RecordingDecoder.splits = []
    decoder = RecordingDecoder()
    choose(dataset, latents, decoder=decoder)
    assert not hasattr(decoder, "targets")  # a copy was fitted
    (inner,), outer = RecordingDecoder.splits, dataset.splits[0]
    assert len(inner.test) == N_HELD_OUT
    assert not set(inner.train) & set(inner.test)
    assert set(inner.train) | set(inner.test) == set(outer.train)


def test_targets_of_test_stimuli_change_nothing(dataset, latents):
    rows = dataset.stimuli.rows(dataset.splits[0].test)
    z, c = latents
    other = z.copy(), c.copy()
    for values in other:
        values[rows] += 7
    assert choose(dataset, latents, (0.2, 5.0)) == choose(dataset, other, (0.2, 5.0))


def test_a_seed_draws_the_held_out_stimuli(dataset, latents):
    RecordingDecoder.splits = []
    for seed in (0, 0, 1):
        choose(dataset, latents, seed=seed)
    first, again, other = (set(split.test) for split in RecordingDecoder.splits)
    assert first == again != other


def test_too_few_training_stimuli_are_refused(dataset, latents):
    with pytest.raises(SettingError, match=r"on 10 of 18 .*generation\.search\.n_stimuli"):
        choose(dataset, latents, n_stimuli=10)
