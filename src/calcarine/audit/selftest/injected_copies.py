"""Reconstructions that contain parts of their ground truth, with the check that must flag them."""

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
from calcarine.audit.selftest.simulated_decoding import Array, SimulatedDecoding

__all__ = [
    "amplitudes",
    "at_8",
    "blended_and_compressed",
    "blended_and_repeated",
    "blurred",
    "curved",
    "high_frequencies",
    "histogram",
    "lightness",
    "low_frequencies",
    "mean_colours",
    "phases",
    "quarter",
    "quarter_anywhere",
    "quarter_blurred",
    "tenth_in_low_frequencies",
]

_LIGHT = np.array([0.299, 0.587, 0.114])


@register_case("ground truth, blurred", "truth-copies")
def blurred(seed: int) -> AuditInputs:
    """A Gaussian of two pixels."""
    inputs = SimulatedDecoding(seed).inputs()
    return shown_as(inputs, rounded(gaussian_filter(both(inputs)[0], (0, 2, 2, 0))))


@register_case("ground truth at 8 x 8 pixels", "truth-copies")
def at_8(seed: int) -> AuditInputs:
    """Downsampled and enlarged again."""
    inputs = SimulatedDecoding(seed).inputs()
    made = []
    for image in stack(inputs.truth)[:, 0]:
        small = Image.fromarray(image).resize((8, 8), Image.Resampling.BOX)
        made.append(np.asarray(small.resize(image.shape[:2], Image.Resampling.BICUBIC)))
    return shown_as(inputs, np.stack(made))


@register_case("ground truth with another contrast curve", "truth-copies")
def curved(seed: int) -> AuditInputs:
    """A gamma of .6."""
    inputs = SimulatedDecoding(seed).inputs()
    return shown_as(inputs, rounded(255 * (both(inputs)[0] / 255) ** 0.6))


@register_case("low frequencies of the ground truth", "truth-copies")
def low_frequencies(seed: int) -> AuditInputs:
    """Low frequencies are those up to four cycles per picture."""
    inputs = SimulatedDecoding(seed).inputs()
    truth, recon = both(inputs)
    return shown_as(inputs, rounded(recon + _low(truth, 4) - _low(recon, 4)))


@register_case("high frequencies of the ground truth", "truth-copies")
def high_frequencies(seed: int) -> AuditInputs:
    """Coarse scales are decoded."""
    inputs = SimulatedDecoding(seed).inputs()
    truth, recon = both(inputs)
    low = [gaussian_filter(each, (0, 2, 2, 0)) for each in (truth, recon)]
    return shown_as(inputs, rounded(low[1] + truth - low[0]))


@register_case("10 % ground truth in low frequencies of retrieved pictures", "pixel-blends")
def tenth_in_low_frequencies(seed: int) -> AuditInputs:
    """The blend is limited to four cycles per picture."""
    study = SimulatedDecoding(seed)
    inputs = study.inputs()
    near = nearest_training_pictures(study, study.predict(np.arange(study.n_test))).astype(
        np.float64
    )
    truth = both(inputs)[0]
    return shown_as(inputs, rounded(near + 0.1 * (_low(truth, 4) - _low(near, 4))))


@register_case("lightness of the ground truth", "truth-copies")
def lightness(seed: int) -> AuditInputs:
    """The lightness of each pixel is that of the ground truth; colours are decoded."""
    inputs = SimulatedDecoding(seed).inputs()
    truth, recon = both(inputs)
    return shown_as(inputs, rounded(recon + ((truth - recon) @ _LIGHT)[..., None]))


@register_case("one quadrant of the ground truth", "truth-copies")
def quarter(seed: int) -> AuditInputs:
    """The upper left quadrant, at full detail."""
    inputs = SimulatedDecoding(seed).inputs()
    truth, recon = both(inputs)
    recon[:, :16, :16] = truth[:, :16, :16]
    return shown_as(inputs, rounded(recon))


@register_case("one region of the ground truth, at random positions", "truth-copies")
def quarter_anywhere(seed: int) -> AuditInputs:
    """A region of a quarter of the area, at a random position in each picture."""
    inputs = SimulatedDecoding(seed).inputs()
    truth, recon = both(inputs)
    for row, (y, x) in enumerate(np.random.default_rng(seed).integers(0, 17, (len(recon), 2))):
        recon[row, y : y + 16, x : x + 16] = truth[row, y : y + 16, x : x + 16]
    return shown_as(inputs, rounded(recon))


@register_case("one quadrant of the ground truth, blurred", "truth-copies")
def quarter_blurred(seed: int) -> AuditInputs:
    """The upper left quadrant, without fine detail."""
    inputs = SimulatedDecoding(seed).inputs()
    truth, recon = both(inputs)
    recon[:, :16, :16] = gaussian_filter(truth, (0, 1.5, 1.5, 0))[:, :16, :16]
    return shown_as(inputs, rounded(recon))


@register_case("phases of the ground truth", "truth-copies")
def phases(seed: int) -> AuditInputs:
    """Phases of the Fourier transform; amplitudes are decoded."""
    inputs = SimulatedDecoding(seed).inputs()
    truth, recon = (np.fft.fft2(each, axes=(1, 2)) for each in both(inputs))
    made = np.abs(recon) * np.exp(1j * np.angle(truth))
    return shown_as(inputs, rounded(np.fft.ifft2(made, axes=(1, 2)).real))


@register_case("amplitudes of the ground truth", "truth-copies")
def amplitudes(seed: int) -> AuditInputs:
    """Amplitudes of the Fourier transform; phases are decoded."""
    inputs = SimulatedDecoding(seed).inputs()
    truth, recon = (np.fft.fft2(each, axes=(1, 2)) for each in both(inputs))
    made = np.abs(truth) * np.exp(1j * np.angle(recon))
    return shown_as(inputs, rounded(np.fft.ifft2(made, axes=(1, 2)).real))


@register_case("histogram of the ground truth, valid predictions", "transductive-prediction")
def histogram(seed: int) -> AuditInputs:
    """Each colour has the grey values of the ground truth in the decoded order."""
    inputs = SimulatedDecoding(seed).inputs()
    truth, recon = both(inputs)
    noise = 0.01 * np.random.default_rng(seed).random(recon.shape)
    return shown_as(inputs, rounded(_sorted_as(recon + noise, truth)))


@register_case("mean colours of the ground truth, valid predictions", "transductive-prediction")
def mean_colours(seed: int) -> AuditInputs:
    """The contrast is decoded."""
    inputs = SimulatedDecoding(seed).inputs()
    truth, recon = (each - 128 for each in both(inputs))
    means = [each.mean(axis=(1, 2), keepdims=True) for each in (truth, recon)]
    return shown_as(inputs, rounded(128 + recon - means[1] + means[0]))


@register_case("25 % ground truth blended in, contrast curve, JPEG", "pixel-blends")
def blended_and_compressed(seed: int) -> AuditInputs:
    """The other part is not given."""
    inputs = SimulatedDecoding(seed).inputs()
    truth, recon = both(inputs)
    mixed = rounded(255 * ((0.75 * recon + 0.25 * truth) / 255) ** 0.8)
    return replace(shown_as(inputs, as_jpeg(mixed, 90)), others={})


@register_case("25 % ground truth blended in, blend given as another method", "pixel-blends")
def blended_and_repeated(seed: int) -> AuditInputs:
    """Other given pictures must not hide the blend."""
    inputs = SimulatedDecoding(seed).inputs()
    truth = both(inputs)[0]
    low = stack(inputs.others["low-level"])[:, 0]
    result = shown_as(inputs, rounded(0.75 * low + 0.25 * truth))
    again = PictureSet.of(inputs.truth.ids, stack(result.recon)[:, 0])
    return replace(result, others={"again": again, **inputs.others})


def _low(images: Array, most: float) -> Array:
    """Return the frequencies of at most this number of cycles per picture."""
    cycles = np.fft.fftfreq(images.shape[1]) * images.shape[1]
    inside = np.hypot(*np.meshgrid(cycles, cycles)) <= most
    return np.fft.ifft2(np.fft.fft2(images, axes=(1, 2)) * inside[:, :, None], axes=(1, 2)).real


def _sorted_as(values: Array, source: Array) -> Array:
    """Return the source's values sorted like other values, for each picture and channel."""
    shape = values.shape
    rows, required = (each.reshape(shape[0], -1, 3) for each in (values, source))
    result = np.empty_like(rows)
    np.put_along_axis(result, rows.argsort(axis=1), np.sort(required, axis=1), axis=1)
    return result.reshape(shape)
