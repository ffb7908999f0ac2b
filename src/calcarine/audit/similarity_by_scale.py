"""Similarity of reconstructions and ground truths by scale, by region and by grey value."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CHANNELS",
    "Band",
    "bands",
    "cell_shares",
    "curve_left",
    "detail_cells",
    "octave_slopes",
    "opponent",
    "phases",
    "rise",
]

FloatArray = NDArray[np.float64]

# Lightness, red minus green, yellow minus blue.
_OPPONENT = np.array([[0.299, 0.587, 0.114], [0.5, -0.5, 0.0], [0.25, 0.25, -0.5]])
CHANNELS = ("lightness", "red-green", "yellow-blue")
# Edges of octaves in half cycles per picture, up to the limit of a picture of 32 pixels.
_EDGES = (1, 2, 4, 8, 16, 32)
_CELLS = 4
# Power in squared grey values below which detail is mostly rounding.
_ALIVE = 1.0


@dataclass(frozen=True)
class Band:
    """Power of the ground truth in one octave, and the part that reconstructions leave unexplained.

    Parameters
    ----------
    low, high : int
        Limits of the octave in half cycles per picture.
    channel, transform : str
    power : float
        Mean squared coefficient of the ground truth, in squared grey values.
    error : float
        Mean squared error of the best linear filter, in the same unit.
    degrees : float
        Number of independent coefficients in these means.
    """

    low: int
    high: int
    channel: str
    transform: str
    power: float
    error: float
    degrees: float

    @property
    def share(self) -> float:
        """Unexplained share of the power."""
        return self.error / self.power

    def __str__(self) -> str:
        return f"{self.low / 2:g} to {self.high / 2:g} cycles per picture, {self.channel}"


def opponent(images: NDArray[np.uint8]) -> FloatArray:
    """Return pictures in opponent colours minus the mean picture, which any decoder can know."""
    values = images.astype(np.float64) @ _OPPONENT.T
    return np.asarray(values - values.mean(axis=0))


def bands(truth: FloatArray, recon: FloatArray) -> list[list[Band]]:
    """Return octaves from coarse to fine for each transform and channel with power.

    One linear filter, common to all pictures, has a gain for each integer frequency. It predicts
    the ground truths from the reconstructions. For a blurred, sharpened or faded ground truth, the
    error is no larger than rounding.

    Parameters
    ----------
    truth, recon : float array of shape (n, 64, 64, 3)
        From `opponent`.

    Returns
    -------
    list of list of Band
    """
    result = []
    for name, transform in (("cosine", _cosine), ("Fourier", _fourier)):
        t, radius = transform(truth)
        r, _ = transform(recon)
        ring = np.floor(radius).astype(np.int64)
        for place, channel in enumerate(CHANNELS):
            residual, power = _left(t[..., place], r[..., place], ring)
            octaves = []
            for low, high in itertools.pairwise(_EDGES):
                inside = (ring >= low) & (ring < high)
                strength = float(power[inside].mean()) if inside.any() else 0.0
                if strength > _ALIVE:
                    # Half, because Fourier coefficients come in conjugate pairs.
                    degrees = len(truth) * inside.sum() / 2
                    error = float(residual[inside].mean())
                    octaves.append(Band(low, high, channel, name, strength, error, degrees))
            if octaves:
                result.append(octaves)
    return result


def _cosine(values: FloatArray) -> tuple[NDArray[Any], FloatArray]:
    from scipy.fft import dctn

    side = values.shape[1]
    result = dctn(values, axes=(1, 2), norm="ortho").reshape(len(values), -1, 3)
    return result, np.hypot(*np.mgrid[:side, :side]).ravel()


def _fourier(values: FloatArray) -> tuple[NDArray[Any], FloatArray]:
    side = values.shape[1]
    result = np.fft.fft2(values, axes=(1, 2), norm="ortho").reshape(len(values), -1, 3)
    cycles = np.fft.fftfreq(side) * side
    return result, 2 * np.hypot(*np.meshgrid(cycles, cycles)).ravel()


def _left(
    t: NDArray[Any], r: NDArray[Any], ring: NDArray[np.int64]
) -> tuple[FloatArray, FloatArray]:
    """Return the mean squared error and power of each coefficient, with one gain per ring."""
    both = np.bincount(ring, (np.conj(r) * t).real.sum(axis=0))
    own = np.bincount(ring, np.square(np.abs(r)).sum(axis=0))
    gain = both / np.maximum(own, 1e-9)
    residual = np.square(np.abs(t - gain[ring] * r)).mean(axis=0)
    return residual, np.square(np.abs(t)).mean(axis=0)


def rise(octaves: list[Band]) -> tuple[float, Band] | None:
    """Return the smallest ratio of the error of a coarse octave to that of a finer one.

    The errors of decoders, like pictures, have most power at coarse scales, and added white noise
    has equal power at all scales. If coarse scales were copied, the error rises towards finer ones.

    Parameters
    ----------
    octaves : list of Band
        From coarse to fine.

    Returns
    -------
    ratio : float
        Upper limit (p = .001, given the number of coefficients) of the ratio of the error to the
        largest error of a finer octave. Below 1, the error rises.
    band : Band
        The octave with the smallest ratio.
    """
    from scipy.stats import chi2

    result: list[tuple[float, Band]] = []
    for place, band in enumerate(octaves[:-1]):
        finer = max(other.error for other in octaves[place + 1 :])
        limit = band.degrees / chi2.ppf(0.001, band.degrees)
        result.append((band.error * limit / max(finer, 1e-9), band))
    return min(result, key=lambda each: each[0]) if result else None


def phases(truth: FloatArray, recon: FloatArray) -> list[tuple[float, float]]:
    """Return the agreement of phases and of amplitudes in two fine octaves of lightness.

    Parameters
    ----------
    truth, recon : float array of shape (n, 64, 64, 3)

    Returns
    -------
    list of (float, float)
        Mean cosine of the phase differences, and correlation of log amplitudes over pictures.
    """
    t, radius = _fourier(truth)
    r, _ = _fourier(recon)
    t, r = t[..., 0], r[..., 0]
    size = np.maximum(np.abs(t) * np.abs(r), 1e-9)
    cosine = (np.conj(t) * r).real / size
    logs = [np.log(np.abs(each) + 1) for each in (t, r)]
    a, b = (each - each.mean(axis=0) for each in logs)
    result = []
    for low, high in ((8, 16), (16, 32)):
        inside = (radius >= low) & (radius < high)
        if min(np.square(np.abs(each[:, inside])).mean() for each in (t, r)) > _ALIVE:
            below = np.sqrt(np.square(a[:, inside]).sum() * np.square(b[:, inside]).sum())
            both = (a[:, inside] * b[:, inside]).sum()
            result.append((float(cosine[:, inside].mean()), float(both / max(below, 1e-9))))
    return result


def cell_shares(truth: FloatArray, recon: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the unexplained share and error of each of 4 x 4 regions at coarse scales.

    Parameters
    ----------
    truth, recon : float array of shape (n, 64, 64, 3)

    Returns
    -------
    share, error : float array of shape (16,)
        Over all pictures; NaN if the region is the same in all ground truths.
    """
    t, r = (_cells(_coarse(each)) for each in (truth, recon))
    power = np.square(t).sum(axis=(0, 2))
    own = np.square(r).sum(axis=(0, 2))
    part = np.square((t * r).sum(axis=(0, 2))) / np.maximum(power * own, 1e-9)
    error = (1 - part) * power / t[:, 0].size
    alive = power / t[:, 0].size > _ALIVE
    return np.where(alive, 1 - part, np.nan), np.where(alive, error, np.nan)


def detail_cells(truth: FloatArray, recon: FloatArray, shift: int = 0) -> FloatArray:
    """Return the squared correlation of fine detail in each of 4 x 4 regions of each picture.

    Parameters
    ----------
    truth, recon : float array of shape (n, 64, 64, 3)
    shift : int
        Each reconstruction is paired with the ground truth this number of rows later.

    Returns
    -------
    float array of shape (n, 16)
        0 for negative correlations; NaN if either picture has no detail there.
    """
    t, r = (_cells(_detail(each)) for each in (truth, recon))
    t = np.roll(t, -shift, axis=0)
    t, r = (each - each.mean(axis=2, keepdims=True) for each in (t, r))
    powers = [np.square(each).sum(axis=2) for each in (t, r)]
    both = np.maximum((t * r).sum(axis=2), 0)
    alive = np.minimum(*powers) / t.shape[2] > _ALIVE
    return np.where(alive, both**2 / np.maximum(powers[0] * powers[1], 1e-9), np.nan)


def _coarse(values: FloatArray) -> FloatArray:
    n, side = len(values), values.shape[1]
    return np.asarray(values.reshape(n, 16, side // 16, 16, side // 16, 3).mean(axis=(2, 4)))


def _detail(values: FloatArray) -> FloatArray:
    from scipy.ndimage import uniform_filter

    grey = values[..., :1]
    return np.asarray(grey - uniform_filter(grey, (0, 5, 5, 0)))


def _cells(values: FloatArray) -> FloatArray:
    n, step = len(values), values.shape[1] // _CELLS
    cut = values.reshape(n, _CELLS, step, _CELLS, step, -1).transpose(0, 1, 3, 2, 4, 5)
    return cut.reshape(n, _CELLS**2, -1)


def curve_left(pairs: Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]) -> float | None:
    """Return the share of a channel's variance that no grey-value curve explains.

    Parameters
    ----------
    pairs : iterator of pairs of uint8 array of shape (height, width, 3)
        Ground truths and reconstructions.

    Returns
    -------
    float or None
        For the channel that a curve, common to all pictures, explains best; None if sizes differ.
    """
    sums = np.zeros((3, 3, 256))
    for seen, made in pairs:
        if seen.shape != made.shape:
            return None
        for channel in range(3):
            grey, value = seen[..., channel].ravel(), made[..., channel].ravel().astype(np.float64)
            for power in range(3):
                sums[channel, power] += np.bincount(grey, value**power, 256)
    count, total, square = sums[:, 0], sums[:, 1], sums[:, 2]
    inside = square - total**2 / np.maximum(count, 1)
    whole = square.sum(axis=1) - total.sum(axis=1) ** 2 / np.maximum(count.sum(axis=1), 1)
    alive = whole > _ALIVE * count.sum(axis=1)
    # A curve can fit any channel with few grey values.
    alive &= (count > 0).sum(axis=1) > 16
    if not alive.any():
        return None
    return float((inside.sum(axis=1)[alive] / whole[alive]).min())


def octave_slopes(
    images: Callable[[int], tuple[FloatArray, FloatArray]], count: int
) -> FloatArray | None:
    """Return slopes of reconstructions on ground truths in a coarse and the two finest octaves.

    Parameters
    ----------
    images : callable
        Called with a row; returns grey values of ground truth and reconstruction.
    count : int
        Number of rows.

    Returns
    -------
    float array of shape (rows with detail, 3) or None
        Coarse, fine and finest octave; None if sizes differ or are below 24 pixels.
    """
    from scipy.ndimage import uniform_filter

    slopes = []
    for row in range(count):
        seen, made = images(row)
        if seen.shape != made.shape or min(seen.shape) < 24:
            return None
        parts = []
        for grey in (seen, made):
            low, lower = (uniform_filter(grey, width) for width in (3, 5))
            coarse = uniform_filter(grey, max(5, min(grey.shape) // 4))
            parts.append((coarse - coarse.mean(), low - lower, grey - low))
        sizes = [float(np.square(part).sum()) for part in parts[0]]
        # Detail below one grey value is not informative.
        if sizes[2] > seen.size:
            slopes.append(
                [
                    float((a * b).sum()) / max(size, 1e-9)
                    for a, b, size in zip(*parts, sizes, strict=True)
                ]
            )
    return np.asarray(slopes) if len(slopes) >= 10 else None
