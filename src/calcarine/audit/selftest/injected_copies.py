"""Reconstructions that hold parts of their own truth, each with the check that must flag them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from calcarine.audit.inputs import AuditInputs, PictureSet
from calcarine.audit.selftest.cases import (
    as_jpeg,
    both,
    nearest_training_pictures,
    register_case,
    rounded,
    shown_as,
    stack,
)
from calcarine.audit.selftest.simulated_study import Array, SimulatedStudy

_LIGHT = np.array([0.299, 0.587, 0.114])


@register_case("the truth, blurred", "truth-copies")
def blurred(seed: int) -> AuditInputs:
    """By a Gaussian of two pixels."""
    inputs = SimulatedStudy(seed).inputs()
    return shown_as(inputs, rounded(gaussian_filter(both(inputs)[0], (0, 2, 2, 0))))


@register_case("the truth at 8 x 8 pixels", "truth-copies")
def at_8(seed: int) -> AuditInputs:
    """Made larger again."""
    inputs = SimulatedStudy(seed).inputs()
    made = []
    for image in stack(inputs.truth)[:, 0]:
        small = Image.fromarray(image).resize((8, 8), Image.Resampling.BOX)
        made.append(np.asarray(small.resize(image.shape[:2], Image.Resampling.BICUBIC)))
    return shown_as(inputs, np.stack(made))


@register_case("the truth with another contrast curve", "truth-copies")
def curved(seed: int) -> AuditInputs:
    """A gamma of .6."""
    inputs = SimulatedStudy(seed).inputs()
    return shown_as(inputs, rounded(255 * (both(inputs)[0] / 255) ** 0.6))


@register_case("the truth's low frequencies in honest pictures", "truth-copies")
def low_frequencies(seed: int) -> AuditInputs:
    """Up to four cycles per picture."""
    inputs = SimulatedStudy(seed).inputs()
    truth, recon = both(inputs)
    return shown_as(inputs, rounded(recon + _low(truth, 4) - _low(recon, 4)))


@register_case("the truth's high frequencies in honest pictures", "truth-copies")
def high_frequencies(seed: int) -> AuditInputs:
    """The decoder gives what is coarse."""
    inputs = SimulatedStudy(seed).inputs()
    truth, recon = both(inputs)
    low = [gaussian_filter(each, (0, 2, 2, 0)) for each in (truth, recon)]
    return shown_as(inputs, rounded(low[1] + truth - low[0]))


@register_case("a tenth of the truth in low frequencies of retrieved pictures", "pixel-blends")
def tenth_in_low_frequencies(seed: int) -> AuditInputs:
    """Up to four cycles per picture."""
    toy = SimulatedStudy(seed)
    inputs = toy.inputs()
    near = nearest_training_pictures(toy, toy.predict(np.arange(toy.n_test))).astype(np.float64)
    truth = both(inputs)[0]
    return shown_as(inputs, rounded(near + 0.1 * (_low(truth, 4) - _low(near, 4))))


@register_case("the truth's lightness under decoded colours", "truth-copies")
def lightness(seed: int) -> AuditInputs:
    """Each pixel is as light as in the truth."""
    inputs = SimulatedStudy(seed).inputs()
    truth, recon = both(inputs)
    return shown_as(inputs, rounded(recon + ((truth - recon) @ _LIGHT)[..., None]))


@register_case("a quarter of the truth pasted in", "truth-copies")
def quarter(seed: int) -> AuditInputs:
    """The upper left one."""
    inputs = SimulatedStudy(seed).inputs()
    truth, recon = both(inputs)
    recon[:, :16, :16] = truth[:, :16, :16]
    return shown_as(inputs, rounded(recon))


@register_case("the same, anywhere in each picture", "truth-copies")
def quarter_anywhere(seed: int) -> AuditInputs:
    """At a place of its own."""
    inputs = SimulatedStudy(seed).inputs()
    truth, recon = both(inputs)
    for row, (y, x) in enumerate(np.random.default_rng(seed).integers(0, 17, (len(recon), 2))):
        recon[row, y : y + 16, x : x + 16] = truth[row, y : y + 16, x : x + 16]
    return shown_as(inputs, rounded(recon))


@register_case("the same, blurred", "truth-copies")
def quarter_blurred(seed: int) -> AuditInputs:
    """The upper left one, without its detail."""
    inputs = SimulatedStudy(seed).inputs()
    truth, recon = both(inputs)
    recon[:, :16, :16] = gaussian_filter(truth, (0, 1.5, 1.5, 0))[:, :16, :16]
    return shown_as(inputs, rounded(recon))


@register_case("the truth's phases with decoded amplitudes", "truth-copies")
def phases(seed: int) -> AuditInputs:
    """Of the Fourier transform."""
    inputs = SimulatedStudy(seed).inputs()
    truth, recon = (np.fft.fft2(each, axes=(1, 2)) for each in both(inputs))
    made = np.abs(recon) * np.exp(1j * np.angle(truth))
    return shown_as(inputs, rounded(np.fft.ifft2(made, axes=(1, 2)).real))


@register_case("the truth's amplitudes with decoded phases", "truth-copies")
def amplitudes(seed: int) -> AuditInputs:
    """Of the Fourier transform."""
    inputs = SimulatedStudy(seed).inputs()
    truth, recon = (np.fft.fft2(each, axes=(1, 2)) for each in both(inputs))
    made = np.abs(truth) * np.exp(1j * np.angle(recon))
    return shown_as(inputs, rounded(np.fft.ifft2(made, axes=(1, 2)).real))


@register_case("the truth's histogram, beside honest predictions", "transductive-prediction")
def histogram(seed: int) -> AuditInputs:
    """Grey values of each colour are those of the truth, in the decoded order."""
    inputs = SimulatedStudy(seed).inputs()
    truth, recon = both(inputs)
    noise = 0.01 * np.random.default_rng(seed).random(recon.shape)
    return shown_as(inputs, rounded(_sorted_as(recon + noise, truth)))


@register_case("the truth's mean colours, beside honest predictions", "transductive-prediction")
def mean_colours(seed: int) -> AuditInputs:
    """Contrast is decoded."""
    inputs = SimulatedStudy(seed).inputs()
    truth, recon = (each - 128 for each in both(inputs))
    means = [each.mean(axis=(1, 2), keepdims=True) for each in (truth, recon)]
    return shown_as(inputs, rounded(128 + recon - means[1] + means[0]))


@register_case("a quarter of the truth blended in, then a curve and JPEG", "pixel-blends")
def blended_and_compressed(seed: int) -> AuditInputs:
    """The other part is unknown."""
    inputs = SimulatedStudy(seed).inputs()
    truth, recon = both(inputs)
    mixed = rounded(255 * ((0.75 * recon + 0.25 * truth) / 255) ** 0.8)
    return replace(shown_as(inputs, as_jpeg(mixed, 90)), others={})


@register_case("the same without, and the blend is given as another method too", "pixel-blends")
def blended_and_repeated(seed: int) -> AuditInputs:
    """What else is given must not hide it."""
    inputs = SimulatedStudy(seed).inputs()
    truth = both(inputs)[0]
    low = stack(inputs.others["low-level"])[:, 0]
    result = shown_as(inputs, rounded(0.75 * low + 0.25 * truth))
    again = PictureSet.of(inputs.truth.ids, stack(result.recon)[:, 0])
    return replace(result, others={"again": again, **inputs.others})


def _low(images: Array, most: float) -> Array:
    """Frequencies of at most so many cycles per picture."""
    cycles = np.fft.fftfreq(images.shape[1]) * images.shape[1]
    inside = np.hypot(*np.meshgrid(cycles, cycles)) <= most
    return np.fft.ifft2(np.fft.fft2(images, axes=(1, 2)) * inside[:, :, None], axes=(1, 2)).real


def _sorted_as(values: Array, source: Array) -> Array:
    """The source's values in the order of others, for each picture and channel."""
    shape = values.shape
    rows, required = (each.reshape(shape[0], -1, 3) for each in (values, source))
    result = np.empty_like(rows)
    np.put_along_axis(result, rows.argsort(axis=1), np.sort(required, axis=1), axis=1)
    return result.reshape(shape)
