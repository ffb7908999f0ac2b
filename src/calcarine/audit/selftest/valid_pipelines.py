"""Valid pipelines, common and unusual ones, that no check may flag."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from calcarine.audit.inputs import AuditInputs, PictureSet
from calcarine.audit.selftest.cases import (
    as_jpeg,
    both,
    nearest_training_pictures,
    register_case,
    rounded,
    show,
    shown_as,
    stack,
)
from calcarine.audit.selftest.simulated_decoding import (
    SAMPLES,
    Array,
    SimulatedDecoding,
    of_components,
)
from calcarine.stimuli import resize_images

__all__ = [
    "averaged",
    "blurry",
    "chosen_by_brain",
    "clean",
    "compressed",
    "few_test",
    "few_train",
    "good",
    "good_and_noisy",
    "grey",
    "noisy",
    "resized",
    "retrieves",
    "six_components",
    "two_methods",
    "white_noise",
    "with_neighbours",
]


@register_case("valid: baseline", "", numbers=True)
def clean(seed: int) -> AuditInputs:
    """The first sample is shown."""
    return SimulatedDecoding(seed).inputs()


@register_case("valid: noisy responses", "", numbers=True)
def noisy(seed: int) -> AuditInputs:
    """Little signal."""
    return SimulatedDecoding(seed, noise=5.0).inputs()


@register_case("valid: sample chosen by brain activity", "", numbers=True)
def chosen_by_brain(seed: int) -> AuditInputs:
    """The rule uses the predicted latents and never the ground truth."""
    study = SimulatedDecoding(seed)
    inputs = study.inputs()
    assert inputs.sample_choice is not None
    images = stack(inputs.sample_choice.samples)
    middle = study.predict(np.arange(study.n_test)) @ study.fields
    flat = images.reshape(len(images), SAMPLES, -1).astype(np.float64)
    away = np.square((flat - 128) / 36 - middle[:, None] / np.sqrt(len(study.fields))).sum(axis=2)
    return show(inputs, away.argmin(axis=1), reapplied=away.argmin(axis=1))


@register_case("valid: blurry mean predictions", "")
def blurry(seed: int) -> AuditInputs:
    """No random detail."""
    inputs = SimulatedDecoding(seed).inputs()
    return shown_as(inputs, stack(inputs.others["low-level"])[:, 0])


@register_case("valid: mean of five samples", "")
def averaged(seed: int) -> AuditInputs:
    """Samples of one prediction are averaged."""
    inputs = SimulatedDecoding(seed).inputs()
    assert inputs.sample_choice is not None
    return shown_as(inputs, rounded(stack(inputs.sample_choice.samples).mean(axis=1)))


@register_case("valid: very good decoder", "")
def good(seed: int) -> AuditInputs:
    """Little noise and many training stimuli; mean predictions, which are closer than samples."""
    inputs = SimulatedDecoding(seed, noise=0.15, n_train=300).inputs()
    return shown_as(inputs, stack(inputs.others["low-level"])[:, 0])


@register_case("valid: very good decoder with noise at all scales", "")
def good_and_noisy(seed: int) -> AuditInputs:
    """The correlation falls from .98 at coarse scales to .9 at fine ones."""
    inputs = SimulatedDecoding(seed).inputs()
    return shown_as(inputs, rounded(_with_noise(both(inputs)[0], seed)))


@register_case("valid: perfect decoder with white noise", "")
def white_noise(seed: int) -> AuditInputs:
    """The only error is independent noise in each pixel."""
    inputs = SimulatedDecoding(seed).inputs()
    truth = both(inputs)[0]
    noise = np.random.default_rng([seed, 3]).standard_normal(truth.shape)
    return shown_as(inputs, rounded(truth + 9 * noise))


@register_case("valid: 5 test stimuli", "")
def few_test(seed: int) -> AuditInputs:
    """Most tests have little power."""
    return SimulatedDecoding(seed, n_test=5).inputs()


@register_case("valid: 30 training stimuli", "")
def few_train(seed: int) -> AuditInputs:
    """A weak decoder."""
    return SimulatedDecoding(seed, n_train=30).inputs()


@register_case("valid: grey pictures", "")
def grey(seed: int) -> AuditInputs:
    """Stimuli and reconstructions without colour."""
    inputs = SimulatedDecoding(seed).inputs()
    assert inputs.train is not None
    truth, train = (
        PictureSet.of(side.ids, _grey(stack(side)[:, 0])) for side in (inputs.truth, inputs.train)
    )
    changed = replace(inputs, truth=truth, train=train, others={}, sample_choice=None)
    return shown_as(changed, _grey(stack(inputs.recon)[:, 0]))


@register_case("valid: predictions of 6 components", "")
def six_components(seed: int) -> AuditInputs:
    """Fewer components than the stimuli have, as in decoders of principal components."""
    return SimulatedDecoding(seed, change_predictions=of_components(6)).inputs()


@register_case("valid: mean of two own methods", "")
def two_methods(seed: int) -> AuditInputs:
    """Two decoders with other samples, neither of which is given."""
    inputs = SimulatedDecoding(seed).inputs()
    assert inputs.sample_choice is not None
    samples = stack(inputs.sample_choice.samples).astype(np.float64)
    low = stack(inputs.others["low-level"])[:, 0].astype(np.float64)
    mixed = rounded((samples[:, 1] + (samples[:, 2] + low) / 2) / 2)
    return replace(shown_as(inputs, mixed), others={})


@register_case("valid: reconstructions of another size", "")
def resized(seed: int) -> AuditInputs:
    """Reconstructions have 48 pixels, stimuli 32."""
    inputs = SimulatedDecoding(seed).inputs()
    return shown_as(inputs, resize_images(stack(inputs.recon)[:, 0], 48))


@register_case("valid: reconstructions saved as JPEG", "")
def compressed(seed: int) -> AuditInputs:
    """JPEG of quality 60."""
    inputs = SimulatedDecoding(seed).inputs()
    return shown_as(inputs, as_jpeg(stack(inputs.recon)[:, 0], 60))


@register_case("valid: retrieval of training pictures, as stated", "", allowed=("retrieval",))
def retrieves(seed: int) -> AuditInputs:
    """Only the check of retrieval is allowed to flag this method."""
    study = SimulatedDecoding(seed)
    values = study.predict(np.arange(study.n_test))
    return shown_as(study.inputs(), nearest_training_pictures(study, values))


@register_case(
    "valid: half of the test set has neighbours in training",
    "",
    allowed=("near-duplicates", "score-by-distance"),
)
def with_neighbours(seed: int) -> AuditInputs:
    """The checks of similarity to training are allowed to flag this test set."""
    return SimulatedDecoding(seed, neighbours=True).inputs()


def _grey(images: Array) -> Array:
    light = images.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    return rounded(np.repeat(light[..., None], 3, axis=-1))


def _with_noise(truth: Array, seed: int) -> Array:
    """Return the ground truth with noise of the same spectrum, and more noise at fine scales."""
    rng = np.random.default_rng([seed, 2])
    deviation = truth - truth.mean(axis=0)
    cycles = np.fft.fftfreq(truth.shape[1]) * truth.shape[1]
    radius = np.hypot(*np.meshgrid(cycles, cycles))
    r = np.clip(0.98 - 0.08 * np.log2(np.maximum(radius, 1)) / 4, 0.9, 0.98)
    size = np.abs(np.fft.fft2(deviation, axes=(1, 2))) * np.sqrt(1 / r**2 - 1)[:, :, None]
    phase = np.fft.fft2(rng.standard_normal(truth.shape), axes=(1, 2))
    noise = np.fft.ifft2(size * phase / np.abs(phase), axes=(1, 2)).real
    return np.asarray(truth + noise)
