"""Mistakes that are planted in the made-up pipeline, each with the check that must find it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from calcarine.evaluation.audit.choice import likeness
from calcarine.evaluation.audit.material import Choice, Material, Number, PictureSet, Prediction
from calcarine.evaluation.audit.toy import SAMPLES, SIDE, Array, Toy, claimed


@dataclass(frozen=True)
class Planted:
    """A mistake.

    Parameters
    ----------
    name : str
        In words.
    check : str
        Which must find it; "" where there is nothing to find.
    make : callable
        Called with a seed; gives the material of the claim.
    hidden : bool
        Whether it cannot be seen from what is given, so that "cannot be told" is right.
    """

    name: str
    check: str
    make: Callable[[int], Material]
    hidden: bool = False


PLANTED: list[Planted] = []


def _plant(
    name: str, check: str, hidden: bool = False
) -> Callable[[Callable[[int], Material]], Callable[[int], Material]]:
    def keep(make: Callable[[int], Material]) -> Callable[[int], Material]:
        PLANTED.append(Planted(name, check, make, hidden))
        return make

    return keep


@_plant("nothing", "")
def clean(seed: int) -> Material:
    """The honest pipeline, which shows the first sample."""
    return Toy(seed).material()


@_plant("nothing; a noisy brain", "")
def noisy(seed: int) -> Material:
    """The honest pipeline with little signal."""
    return Toy(seed, noise=5.0).material()


@_plant("nothing; the brain chooses among the samples", "")
def chosen_by_brain(seed: int) -> Material:
    """Honest, and harder: the rule sees the predicted latents and never the truth."""
    toy = Toy(seed)
    material = toy.material()
    assert material.choice is not None
    images = _stack(material.choice.samples)
    middle = toy.predict(np.arange(toy.n_test)) @ toy.fields
    flat = images.reshape(len(images), SAMPLES, -1).astype(np.float64)
    away = np.square((flat - 128) / 36 - middle[:, None] / np.sqrt(len(toy.fields))).sum(axis=2)
    return _show(material, away.argmin(axis=1), blind=away.argmin(axis=1))


@_plant("test stimuli in training, by their ids", "split-leaks")
def same_ids(seed: int) -> Material:
    """Two trials of two test stimuli count as training."""
    toy = Toy(seed)
    trials = toy.trials()
    assert trials.role is not None
    role = trials.role.copy()
    for key in toy.test_ids[:2]:
        role[np.flatnonzero(trials.stimulus == key)[0]] = "train"
    return replace(toy.material(), trials=toy.trials(role=role), train=None)


@_plant("test pictures in training under other ids", "split-leaks")
def same_pictures(seed: int) -> Material:
    """Training has two of the test pictures, under new names."""
    toy = Toy(seed)
    material = toy.material()
    extra = toy.images[toy.n_train : toy.n_train + 2]
    return replace(material, train=_with_pictures(toy, extra))


@_plant("changed copies of test pictures in training", "near-duplicates")
def near_copies(seed: int) -> Material:
    """Two test pictures in training, smaller, brighter and compressed."""
    toy = Toy(seed)
    changed = []
    for picture in toy.images[toy.n_train : toy.n_train + 2]:
        small = Image.fromarray(picture).resize((SIDE - 4, SIDE - 4)).resize((SIDE, SIDE))
        changed.append(np.clip(np.asarray(small) * 1.06 + 6, 0, 255).astype(np.uint8))
    return replace(toy.material(), train=_with_pictures(toy, np.stack(changed)))


@_plant("repeats of a stimulus over folds", "repeats-over-folds")
def repeats(seed: int) -> Material:
    """Folds of successive trials."""
    toy = Toy(seed)
    fold = (np.arange(len(toy.shown)) * 5 // len(toy.shown)).astype(str)
    return replace(toy.material(), trials=toy.trials(fold=fold))


@_plant("scaler fitted on test trials too", "statistics-from-test")
def scaler(seed: int) -> Material:
    """The stored scaler is there."""
    return Toy(seed, scale_with_test=True).material()


@_plant("the same, and the scaler was not kept", "statistics-from-test")
def scaler_gone(seed: int) -> Material:
    """Only the scaled responses are there."""
    return replace(Toy(seed, scale_with_test=True).material(), statistics=())


def _normalised(values: Array, toy: Toy) -> Array:
    spread = values.std(axis=0) if len(values) > 1 else np.ones(values.shape[1])
    train = toy.latents[: toy.n_train]
    unit = (values - values.mean(axis=0)) / spread
    return np.asarray(unit * train.std(axis=0) + train.mean(axis=0))


@_plant("test predictions z-scored by each other", "transductive-prediction")
def zscored(seed: int) -> Material:
    """And brought to the mean and deviation of training, as Brain-Diffuser does."""
    return Toy(seed, change_predictions=_normalised).material()


@_plant("the same, with the decoder at hand", "transductive-prediction")
def zscored_callable(seed: int) -> Material:
    """The audit may ask for single predictions."""
    toy = Toy(seed, change_predictions=_normalised)
    material = toy.material()
    found = [
        Prediction(each.name, each.values, each.truth, each.train, toy.predict)
        for each in material.predictions
    ]
    return replace(material, predictions=found)


@_plant("test fMRI in pre-training, told in the table", "pretraining-on-test")
def pretrained(seed: int) -> Material:
    """Components of the responses are learned from all trials."""
    toy = Toy(seed, components_with_test=True)
    return replace(toy.material(), trials=toy.trials(pretrain=np.ones(len(toy.shown), bool)))


@_plant("the same, and nobody tells", "pretraining-on-test", hidden=True)
def pretrained_untold(seed: int) -> Material:
    """Outputs cannot show it."""
    toy = Toy(seed, components_with_test=True)
    return replace(toy.material(), trials=toy.trials(pretrain=None))


@_plant("best of 5 by pixel correlation", "best-of-samples")
def best_by_pixels(seed: int) -> Material:
    """The truth picks."""
    return _picked(seed, "pixel correlation")


@_plant("best of 5 by SSIM", "best-of-samples")
def best_by_structure(seed: int) -> Material:
    """The truth picks, by another measure."""
    return _picked(seed, "SSIM")


def _picked(seed: int, measure: str) -> Material:
    material = Toy(seed).material()
    assert material.choice is not None
    return _show(material, likeness(material, material.choice)[measure].argmax(axis=1))


@_plant("score of the best of 5, all samples shown", "numbers-from-pictures")
def best_score(seed: int) -> Material:
    """Numbers are means of the best samples."""
    material = Toy(seed, n_test=16).material()
    assert material.choice is not None
    samples = material.choice.samples
    numbers = claimed(material.truth, samples, best=True)
    return replace(material, recon=samples, choice=None, numbers=numbers)


@_plant("score raised by .03", "numbers-from-pictures")
def raised(seed: int) -> Material:
    """Nobody knows how."""
    material = Toy(seed, n_test=16).material()
    numbers = [Number(each.metric, each.value + 0.03, 3) for each in material.numbers]
    return replace(material, numbers=numbers)


@_plant("a quarter of the truth blended in, other part known", "pixel-blends")
def blended(seed: int) -> Material:
    """With the low-level picture of the same method."""
    material = Toy(seed).material()
    return _blend(material, material.others["low-level"], material.truth)


@_plant("the same, other part unknown", "pixel-blends")
def blended_unknown(seed: int) -> Material:
    """With a sample that is not given."""
    material = Toy(seed).material()
    return replace(_blend(material, material.recon, material.truth), others={})


@_plant("a quarter of a low-level method blended in", "pixel-blends")
def blended_methods(seed: int) -> Material:
    """No leak, but a step that must be named; both parts are given."""
    material = Toy(seed).material()
    mixed = _blend(material, material.recon, material.others["low-level"])
    return replace(mixed, others={**material.others, "refined": material.recon})


@_plant("training pictures shown", "retrieval")
def retrieved(seed: int) -> Material:
    """The one whose latents are nearest to the prediction."""
    toy = Toy(seed)
    values = toy.predict(np.arange(toy.n_test))
    away = np.square(values[:, None] - toy.latents[None, : toy.n_train]).sum(axis=2)
    return _shown_as(toy.material(), toy.images[away.argmin(axis=1)])


@_plant("only neighbours of training are decoded", "score-by-distance")
def neighbours(seed: int) -> Material:
    """Of the other half, the prediction is another stimulus's."""
    toy = Toy(seed, neighbours=True, n_test=60)
    values = toy.predict(np.arange(toy.n_test))
    half = toy.n_test // 2
    values[half:] = np.random.default_rng(seed).permutation(values[half:])
    return _shown_as(toy.material(), toy.draw(values, np.random.default_rng(seed), 36.0))


@_plant("predictions of 2 dimensions", "dimension-collapse")
def collapsed(seed: int) -> Material:
    """All but the leading two are lost."""

    def leading(values: Array, toy: Toy) -> Array:
        train = toy.latents[: toy.n_train]
        axes = np.linalg.svd(train - train.mean(0), full_matrices=False)[2][:2]
        return np.asarray((values - train.mean(0)) @ axes.T @ axes + train.mean(0))

    return Toy(seed, change_predictions=leading).material()


@_plant("brain activity shuffled", "ignores-the-brain")
def shuffled(seed: int) -> Material:
    """Each reconstruction is another stimulus's."""
    material = Toy(seed).material()
    order = np.roll(np.random.default_rng(seed).permutation(len(material)), 1)
    images = np.stack([material.recon.full(int(row)) for row in order])
    return _shown_as(material, images)


@_plant("five pictures for all stimuli", "ignores-the-brain")
def few_pictures(seed: int) -> Material:
    """The generator knows no more."""
    material = Toy(seed).material()
    return _shown_as(
        material, np.stack([material.recon.full(row % 5) for row in range(len(material))])
    )


def _stack(pictures: PictureSet) -> Array:
    return np.stack(
        [[pictures.full(row, s) for s in range(pictures.samples)] for row in range(len(pictures))]
    )


def _show(material: Material, chosen: Array, blind: Array | None = None) -> Material:
    assert material.choice is not None
    samples = material.choice.samples
    images = np.stack([samples.full(row, int(s)) for row, s in enumerate(chosen)])
    return replace(_shown_as(material, images), choice=Choice(samples, chosen, blind))


def _shown_as(material: Material, images: Array) -> Material:
    """The claim with other reconstructions, and the numbers that these give."""
    recon = PictureSet.of(material.truth.ids, images)
    return replace(material, recon=recon, choice=None, numbers=claimed(material.truth, recon))


def _blend(material: Material, most: PictureSet, rest: PictureSet) -> Material:
    images = 0.75 * _stack(most)[:, 0].astype(np.float64) + 0.25 * _stack(rest)[:, 0]
    return _shown_as(material, np.rint(images).astype(np.uint8))


def _with_pictures(toy: Toy, extra: Array) -> PictureSet:
    ids = [*toy.train_ids, *(f"extra-{i}" for i in range(len(extra)))]
    return PictureSet.of(ids, np.concatenate([toy.images[: toy.n_train], extra]))
