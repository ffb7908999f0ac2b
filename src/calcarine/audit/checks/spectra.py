"""How closely reconstructions follow their truths, by scale, by region and by grey value."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

# Lightness, red against green, yellow against blue.
_OPPONENT = np.array([[0.299, 0.587, 0.114], [0.5, -0.5, 0.0], [0.25, 0.25, -0.5]])
CHANNELS = ("lightness", "red-green", "yellow-blue")
# Half cycles per picture: octaves up to what a picture of 32 pixels holds.
_EDGES = (1, 2, 4, 8, 16, 32)
_CELLS = 4
# Detail of fewer squared grey values than this is mostly rounding.
_ALIVE = 1.0


@dataclass(frozen=True)
class Band:
    """How much of the truth one octave of the reconstructions leaves unexplained.

    Parameters
    ----------
    low, high : int
        In half cycles per picture.
    channel, transform : str
    power : float
        Of the truth, in squared grey values a coefficient.
    error : float
        What the best filter of the reconstructions leaves of it, in the same unit.
    degrees : float
        Independent coefficients that both are means of.
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
    """Pictures in opponent colours, less their mean picture, which any decoder knows."""
    values = images.astype(np.float64) @ _OPPONENT.T
    return np.asarray(values - values.mean(axis=0))


def bands(truth: FloatArray, recon: FloatArray) -> list[list[Band]]:
    """Octaves from coarse to fine, for each transform and channel in which the truth has power.

    One filter, common to all pictures, has a gain for each whole frequency; what it leaves of the
    truth is the error. A blurred, sharpened or faded truth leaves no more than rounding.

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
                    # Half: coefficients of the Fourier transform come in pairs.
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
    """Mean squared error and power of each coefficient, with one gain a ring."""
    both = np.bincount(ring, (np.conj(r) * t).real.sum(axis=0))
    own = np.bincount(ring, np.square(np.abs(r)).sum(axis=0))
    gain = both / np.maximum(own, 1e-9)
    residual = np.square(np.abs(t - gain[ring] * r)).mean(axis=0)
    return residual, np.square(np.abs(t)).mean(axis=0)


def rise(octaves: list[Band]) -> tuple[float, Band] | None:
    """How far the error of a coarse octave lies below that of a finer one.

    Errors of decoders, like pictures, have most power at coarse scales, and added noise has as
    much at all. Where coarse scales were copied, the error rises from there to finer ones.

    Parameters
    ----------
    octaves : list of Band
        From coarse to fine.

    Returns
    -------
    ratio : float
        Error over the largest error of a finer octave: an upper limit (p = .001) for the number
        of coefficients. Below 1, the error rises.
    band : Band
        Where it is smallest.
    """
    from scipy.stats import chi2

    result: list[tuple[float, Band]] = []
    for place, band in enumerate(octaves[:-1]):
        finer = max(other.error for other in octaves[place + 1 :])
        limit = band.degrees / chi2.ppf(0.001, band.degrees)
        result.append((band.error * limit / max(finer, 1e-9), band))
    return min(result, key=lambda each: each[0]) if result else None


def phases(truth: FloatArray, recon: FloatArray) -> list[tuple[float, float]]:
    """Agreement of phases and of amplitudes in two fine octaves of lightness.

    Parameters
    ----------
    truth, recon : float array of shape (n, 64, 64, 3)

    Returns
    -------
    list of (float, float)
        Mean cosine of differences of phase; correlation of log amplitudes over pictures.
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
    """Unexplained share and error of each of 4 x 4 regions at coarse scales, over all pictures.

    Parameters
    ----------
    truth, recon : float array of shape (n, 64, 64, 3)

    Returns
    -------
    share, error : float array of shape (16,)
        NaN where the truth is the same in all pictures.
    """
    t, r = (_cells(_coarse(each)) for each in (truth, recon))
    power = np.square(t).sum(axis=(0, 2))
    own = np.square(r).sum(axis=(0, 2))
    part = np.square((t * r).sum(axis=(0, 2))) / np.maximum(power * own, 1e-9)
    error = (1 - part) * power / t[:, 0].size
    alive = power / t[:, 0].size > _ALIVE
    return np.where(alive, 1 - part, np.nan), np.where(alive, error, np.nan)


def detail_cells(truth: FloatArray, recon: FloatArray, shift: int = 0) -> FloatArray:
    """Squared correlation of fine detail in each of 4 x 4 regions of each picture.

    Parameters
    ----------
    truth, recon : float array of shape (n, 64, 64, 3)
    shift : int
        Pairs each reconstruction with the truth so many rows further on.

    Returns
    -------
    float array of shape (n, 16)
        0 where it is negative; NaN where either has no detail.
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
    """Share of a channel's variance that no curve of the truth's grey values gives.

    Parameters
    ----------
    pairs : iterator of pairs of uint8 array of shape (height, width, 3)
        Truths and reconstructions.

    Returns
    -------
    float or None
        Of the channel that a curve, common to all pictures, gives best; None if sizes differ.
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
    # A channel with few grey values is given by any curve.
    alive &= (count > 0).sum(axis=1) > 16
    if not alive.any():
        return None
    return float((inside.sum(axis=1)[alive] / whole[alive]).min())


def octave_slopes(
    images: Callable[[int], tuple[FloatArray, FloatArray]], count: int
) -> FloatArray | None:
    """Slope of the reconstruction on the truth in the two finest octaves and a coarse one.

    Parameters
    ----------
    images : callable
        Called with a row; gives grey values of truth and reconstruction.
    count : int
        Rows.

    Returns
    -------
    float array of shape (rows with detail, 3) or None
        Coarse, fine, finest; None where sizes differ or are under 24 pixels.
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
        # Less than a grey value of detail says nothing.
        if sizes[2] > seen.size:
            slopes.append(
                [
                    float((a * b).sum()) / max(size, 1e-9)
                    for a, b, size in zip(*parts, sizes, strict=True)
                ]
            )
    return np.asarray(slopes) if len(slopes) >= 10 else None
