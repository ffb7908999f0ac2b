"""Noise that depends on the stimulus and the sample, never on the position in a batch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from numbers import Integral

import torch

from calcarine.errors import SettingError

__all__ = ["Key", "Keys", "as_keys", "gaussian_noise"]

Key = tuple[str, int]
"""Stimulus id and sample index: with the seed, they determine the noise."""

Keys = str | Key | Sequence[str | Key]
"""Keys as users give them: an id alone means its first sample."""


def as_keys(keys: Keys) -> list[Key]:
    """Return keys as a list of (stimulus id, sample index).

    Parameters
    ----------
    keys : str, (str, int), or sequence of these
        An id alone means its sample 0.

    Raises
    ------
    SettingError
        If a key is neither an id nor a pair of id and number.
    """
    if isinstance(keys, str):
        return [(keys, 0)]
    if isinstance(keys, tuple) and len(keys) == 2 and _is_pair(keys):
        return [keys]  # type: ignore[list-item]
    listed = [(key, 0) if isinstance(key, str) else key for key in keys]
    for key in listed:
        if not (isinstance(key, tuple) and len(key) == 2 and _is_pair(key)):
            raise SettingError(
                f"{key!r} is not a key of a picture; give stimulus ids, or pairs of a stimulus id "
                "and the number of the sample, such as ('stimulus-00000', 0)."
            )
    return listed  # type: ignore[return-value]


def _is_pair(key: tuple[object, ...]) -> bool:
    return isinstance(key[0], str) and isinstance(key[1], Integral)


def gaussian_noise(
    keys: Sequence[tuple[str, int]], shape: tuple[int, ...], seed: int
) -> torch.Tensor:
    """Draw standard normal noise, one array per key.

    Parameters
    ----------
    keys : sequence of (stimulus id, sample index)
        Whose noise to draw.
    shape : tuple of int
        Shape of one array.
    seed : int
        Seed of the whole experiment.

    Returns
    -------
    float32 tensor of shape ``(len(keys), *shape)``
        Row ``i`` depends on ``seed`` and ``keys[i]`` alone, so batch size, order, shards and
        restarts do not change it. It is drawn on the CPU, whatever the device of the model.

    Examples
    --------
    >>> from calcarine.diffusion import gaussian_noise
    >>> both = gaussian_noise([("img1", 0), ("img2", 0)], (4, 8, 8), seed=42)
    >>> alone = gaussian_noise([("img2", 0)], (4, 8, 8), seed=42)
    >>> bool((both[1] == alone[0]).all())  # the batch does not matter
    True
    """
    rows = []
    for stimulus, sample in keys:
        digest = hashlib.sha256(f"{seed}|{stimulus}|{sample}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
        rows.append(torch.randn(shape, generator=generator))
    return torch.stack(rows) if rows else torch.zeros((0, *shape))
