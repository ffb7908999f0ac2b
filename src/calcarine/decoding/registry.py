"""Decoders of latents by name, from this package and from other installed packages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from calcarine.brain import BrainDataset, Split
from calcarine.decoding.latent_regression import LatentRegression
from calcarine.errors import SettingError
from calcarine.files.registries import find_entry, load_entry_points, register_entry

__all__ = ["DECODERS", "Decoder", "load_decoder", "make_decoder", "register_decoder"]


class Decoder(Protocol):
    """Interface of a decoder of latents; `LatentRegression` is one.

    Follow scikit-learn: the constructor only stores its arguments, and ``fit`` returns the decoder
    itself. An experiment gives the constructor ``roi_z`` and ``roi_c``, the regions of its
    settings, and the arguments in ``decoder.options``.

    A decoder may also have a method ``reliability(name)``, which weights the values of z where
    one of several samples is chosen (see :func:`calcarine.decoding.choose_by_brain`), and an
    attribute ``summary_``, a dictionary of dataclasses, which is written next to the predictions.
    """

    def fit(
        self,
        dataset: BrainDataset,
        split: str | Split | None,
        z: NDArray[Any],
        c: NDArray[Any] | None = None,
    ) -> Self:
        """Fit on the training trials of a split; see :meth:`LatentRegression.fit`."""

    def predict(
        self, dataset: BrainDataset, split: str | Split | None = None
    ) -> dict[str, NDArray[np.float32]]:
        """Predict "z" and "c" of the test stimuli; see :meth:`LatentRegression.predict`."""

    def save(self, folder: str | Path) -> None:
        """Write the fitted decoder to a folder."""

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read a decoder that `save` wrote."""


_D = TypeVar("_D", bound=type[Any])

DECODERS: dict[str, type[Any]] = {"ridge": LatentRegression}
"""Classes of decoders by name."""


def register_decoder(name: str) -> Callable[[_D], _D]:
    """Register a class of decoders under a name.

    Parameters
    ----------
    name : str
        `make_decoder`, and with it the setting ``decoder.name``, then takes this name.

    Returns
    -------
    callable
        Decorator of a class with the methods of `Decoder`.

    Raises
    ------
    SettingError
        If another class has this name.

    Notes
    -----
    Other packages register a class under the entry-point group ``calcarine.decoders``.

    Examples
    --------
    >>> from calcarine.decoding import LatentRegression, make_decoder, register_decoder
    >>> @register_decoder("ridge-without-intercept")
    ... class WithoutIntercept(LatentRegression):
    ...     def __init__(self, roi_z=None, roi_c=None):
    ...         super().__init__(roi_z, roi_c, intercept=False)
    >>> make_decoder("ridge-without-intercept").intercept
    False
    """

    def register(decoder: _D) -> _D:
        register_entry(DECODERS, "decoders", name, decoder)
        return decoder

    return register


def make_decoder(name: str = "ridge", **options: Any) -> Decoder:
    """Make a decoder that is not yet fitted.

    Parameters
    ----------
    name : str
        "ridge" for `LatentRegression`, or a registered name.
    **options
        Arguments of the class.

    Returns
    -------
    Decoder

    Raises
    ------
    SettingError
        If there is no decoder of this name, or it does not take these arguments.

    Examples
    --------
    >>> from calcarine.decoding import make_decoder
    >>> make_decoder("ridge", roi_z="V1", n_folds=3)
    LatentRegression(n_folds=3, roi_z='V1')
    """
    kind = _find(name)
    try:
        decoder: Decoder = kind(**options)
    except TypeError as error:  # an argument that the class does not take
        raise SettingError(f"The decoder '{name}' cannot be made: {error}.") from error
    return decoder


def load_decoder(name: str, folder: str | Path) -> Decoder:
    """Read a fitted decoder from the folder that its ``save`` wrote.

    Parameters
    ----------
    name : str
        As in `make_decoder`.
    folder : str or Path

    Returns
    -------
    Decoder

    Raises
    ------
    SettingError
        If there is no decoder of this name.

    Examples
    --------
    >>> import numpy as np
    >>> import calcarine as ca
    >>> from calcarine.decoding import load_decoder
    >>> seen = ca.StimulusSet.from_scenes(seed=0, indices=range(40))
    >>> rng = np.random.default_rng(0)
    >>> brain = ca.BrainDataset.from_arrays(rng.random((40, 30)), seen.ids, seen, test=8)
    >>> decoder = ca.LatentRegression().fit(brain, None, rng.random((40, 6)))
    >>> decoder.save("decoder")
    >>> again = load_decoder("ridge", "decoder")
    >>> np.array_equal(again.predict(brain)["z"], decoder.predict(brain)["z"])
    True
    """
    decoder: Decoder = _find(name).load(folder)
    return decoder


def _find(name: str) -> type[Any]:
    known = load_entry_points("calcarine.decoders") | DECODERS
    kind: type[Any] = find_entry(known, "decoder", name)
    return kind
