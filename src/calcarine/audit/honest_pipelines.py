"""Honest pipelines, usual and unusual ones, that no check may flag."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from calcarine.audit.audit_inputs import Material, PictureSet
from calcarine.audit.plant import (
    as_jpeg,
    both,
    nearest_training_pictures,
    plant,
    rounded,
    show,
    shown_as,
    stack,
)
from calcarine.audit.toy import SAMPLES, Array, Toy, of_components
from calcarine.stimuli import resize_images


@plant("nothing", "", numbers=True)
def clean(seed: int) -> Material:
    """The honest pipeline, which shows the first sample."""
    return Toy(seed).material()


@plant("nothing; a noisy brain", "", numbers=True)
def noisy(seed: int) -> Material:
    """The honest pipeline with little signal."""
    return Toy(seed, noise=5.0).material()


@plant("nothing; the brain chooses among the samples", "", numbers=True)
def chosen_by_brain(seed: int) -> Material:
    """Honest, and harder: the rule sees the predicted latents and never the truth."""
    toy = Toy(seed)
    material = toy.material()
    assert material.choice is not None
    images = stack(material.choice.samples)
    middle = toy.predict(np.arange(toy.n_test)) @ toy.fields
    flat = images.reshape(len(images), SAMPLES, -1).astype(np.float64)
    away = np.square((flat - 128) / 36 - middle[:, None] / np.sqrt(len(toy.fields))).sum(axis=2)
    return show(material, away.argmin(axis=1), blind=away.argmin(axis=1))


@plant("nothing; blurry means of the prediction", "")
def blurry(seed: int) -> Material:
    """No detail is invented."""
    material = Toy(seed).material()
    return shown_as(material, stack(material.others["low-level"])[:, 0])


@plant("nothing; five samples averaged", "")
def averaged(seed: int) -> Material:
    """The mean of samples that were drawn from one prediction."""
    material = Toy(seed).material()
    assert material.choice is not None
    return shown_as(material, rounded(stack(material.choice.samples).mean(axis=1)))


@plant("nothing; a very good decoder", "")
def good(seed: int) -> Material:
    """Little noise and many training stimuli; the means, which are nearer than samples."""
    material = Toy(seed, noise=0.15, n_train=300).material()
    return shown_as(material, stack(material.others["low-level"])[:, 0])


@plant("nothing; a very good decoder to the finest detail, with noise", "")
def good_and_noisy(seed: int) -> Material:
    """Correlation falls from .98 at coarse scales to .9 at fine ones."""
    material = Toy(seed).material()
    return shown_as(material, rounded(_with_noise(both(material)[0], seed)))


@plant("nothing; the truth's detail in white noise", "")
def white_noise(seed: int) -> Material:
    """A decoder whose only error is noise of its own in each pixel."""
    material = Toy(seed).material()
    truth = both(material)[0]
    noise = np.random.default_rng([seed, 3]).standard_normal(truth.shape)
    return shown_as(material, rounded(truth + 9 * noise))


@plant("nothing; 5 test stimuli", "")
def few_test(seed: int) -> Material:
    """Most statistics have little to go by."""
    return Toy(seed, n_test=5).material()


@plant("nothing; 30 training stimuli", "")
def few_train(seed: int) -> Material:
    """A weak decoder."""
    return Toy(seed, n_train=30).material()


@plant("nothing; grey pictures", "")
def grey(seed: int) -> Material:
    """Stimuli and reconstructions without colour."""
    material = Toy(seed).material()
    assert material.train is not None
    truth, train = (
        PictureSet.of(side.ids, _grey(stack(side)[:, 0]))
        for side in (material.truth, material.train)
    )
    changed = replace(material, truth=truth, train=train, others={}, choice=None)
    return shown_as(changed, _grey(stack(material.recon)[:, 0]))


@plant("nothing; predictions of 6 components", "")
def six_components(seed: int) -> Material:
    """Fewer than the stimuli have, as decoders of principal components predict."""
    return Toy(seed, change_predictions=of_components(6)).material()


@plant("nothing; two methods of one's own averaged", "")
def two_methods(seed: int) -> Material:
    """Two decoders of other samples; neither is given."""
    material = Toy(seed).material()
    assert material.choice is not None
    samples = stack(material.choice.samples).astype(np.float64)
    low = stack(material.others["low-level"])[:, 0].astype(np.float64)
    mixed = rounded((samples[:, 1] + (samples[:, 2] + low) / 2) / 2)
    return replace(shown_as(material, mixed), others={})


@plant("nothing; reconstructions of another size", "")
def resized(seed: int) -> Material:
    """Drawn at 48 pixels, seen at 32."""
    material = Toy(seed).material()
    return shown_as(material, resize_images(stack(material.recon)[:, 0], 48))


@plant("nothing; reconstructions saved as JPEG", "")
def compressed(seed: int) -> Material:
    """With loss, at quality 60."""
    material = Toy(seed).material()
    return shown_as(material, as_jpeg(stack(material.recon)[:, 0], 60))


@plant("nothing; training pictures are retrieved, as is said", "", allowed=("retrieval",))
def retrieves(seed: int) -> Material:
    """A method that may be flagged as what it is, and as nothing else."""
    toy = Toy(seed)
    values = toy.predict(np.arange(toy.n_test))
    return shown_as(toy.material(), nearest_training_pictures(toy, values))


@plant(
    "nothing; half of the test has neighbours in training",
    "",
    allowed=("near-duplicates", "score-by-distance"),
)
def with_neighbours(seed: int) -> Material:
    """A test set that is easier than it looks may be flagged as that."""
    return Toy(seed, neighbours=True).material()


def _grey(images: Array) -> Array:
    light = images.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    return rounded(np.repeat(light[..., None], 3, axis=-1))


def _with_noise(truth: Array, seed: int) -> Array:
    """The truth with noise of its own spectrum, more of it at fine scales."""
    rng = np.random.default_rng([seed, 2])
    deviation = truth - truth.mean(axis=0)
    cycles = np.fft.fftfreq(truth.shape[1]) * truth.shape[1]
    radius = np.hypot(*np.meshgrid(cycles, cycles))
    r = np.clip(0.98 - 0.08 * np.log2(np.maximum(radius, 1)) / 4, 0.9, 0.98)
    size = np.abs(np.fft.fft2(deviation, axes=(1, 2))) * np.sqrt(1 / r**2 - 1)[:, :, None]
    phase = np.fft.fft2(rng.standard_normal(truth.shape), axes=(1, 2))
    noise = np.fft.ifft2(size * phase / np.abs(phase), axes=(1, 2)).real
    return np.asarray(truth + noise)
