"""Cases of the self-test: injected errors and valid pipelines, and helpers to build them."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from calcarine.audit.inputs import AuditInputs, PictureSet, SampleChoice
from calcarine.audit.selftest.simulated_decoding import Array, SimulatedDecoding, reported

__all__ = [
    "CASES",
    "SelfTestCase",
    "as_jpeg",
    "blend",
    "both",
    "nearest_training_pictures",
    "register_case",
    "rounded",
    "show",
    "shown_as",
    "stack",
    "with_pictures",
]


@dataclass(frozen=True)
class SelfTestCase:
    """A simulated pipeline with an injected error, or without any error.

    Parameters
    ----------
    name : str
    check : str
        The check that must flag the error; "" for a valid pipeline.
    make : callable
        Called with a seed; returns the `AuditInputs`.
    undetectable : bool
        Whether the given inputs cannot show the error, so that "inconclusive" is right.
    allowed : tuple of str
        For a valid pipeline: checks that are allowed to flag it, as documented.
    numbers : bool
        Whether the slow check of reported numbers runs on a valid pipeline too.

    Examples
    --------
    >>> from calcarine.audit.selftest import CASES
    >>> case = next(case for case in CASES if case.check == "best-of-samples")
    >>> case.name
    'best of 5 samples by pixel correlation'
    """

    name: str
    check: str
    make: Callable[[int], AuditInputs]
    undetectable: bool = False
    allowed: tuple[str, ...] = ()
    numbers: bool = False


CASES: list[SelfTestCase] = []
"""Simulated pipelines: valid ones, and ones with an injected error."""
Make = Callable[[int], AuditInputs]


def register_case(
    name: str,
    check: str,
    undetectable: bool = False,
    allowed: tuple[str, ...] = (),
    numbers: bool = False,
) -> Callable[[Make], Make]:
    """Register a function that makes audit inputs from a seed; use it as a decorator."""

    def keep(make: Make) -> Make:
        CASES.append(SelfTestCase(name, check, make, undetectable, allowed, numbers))
        return make

    return keep


def stack(pictures: PictureSet) -> Array:
    """Return all samples of all pictures, shape (n, samples, height, width, 3)."""
    return np.stack(
        [[pictures.full(row, s) for s in range(pictures.samples)] for row in range(len(pictures))]
    )


def show(inputs: AuditInputs, chosen: Array, reapplied: Array | None = None) -> AuditInputs:
    """Return the inputs with the chosen samples as reconstructions."""
    assert inputs.sample_choice is not None
    samples = inputs.sample_choice.samples
    images = np.stack([samples.full(row, int(s)) for row, s in enumerate(chosen)])
    return replace(shown_as(inputs, images), sample_choice=SampleChoice(samples, chosen, reapplied))


def shown_as(inputs: AuditInputs, images: Array) -> AuditInputs:
    """Return the inputs with other reconstructions and the scores of these."""
    recon = PictureSet.of(inputs.truth.ids, images)
    return replace(inputs, recon=recon, sample_choice=None, numbers=reported(inputs.truth, recon))


def blend(inputs: AuditInputs, most: PictureSet, rest: PictureSet) -> AuditInputs:
    """Return the inputs with reconstructions of 75 % of one set of pictures and 25 % of another."""
    images = 0.75 * stack(most)[:, 0].astype(np.float64) + 0.25 * stack(rest)[:, 0]
    return shown_as(inputs, np.rint(images).astype(np.uint8))


def with_pictures(study: SimulatedDecoding, extra: Array) -> PictureSet:
    """Return the training pictures and additional ones."""
    ids = [*study.train_ids, *(f"extra-{i}" for i in range(len(extra)))]
    return PictureSet.of(ids, np.concatenate([study.images[: study.n_train], extra]))


def rounded(images: Array) -> Array:
    """Return grey values rounded and clipped to 0 to 255."""
    return np.asarray(np.rint(np.clip(images, 0, 255)), np.uint8)


def both(inputs: AuditInputs) -> tuple[Array, Array]:
    """Return ground truths and reconstructions as float arrays of shape (n, height, width, 3)."""
    truth, recon = (stack(side)[:, 0].astype(np.float64) for side in (inputs.truth, inputs.recon))
    return truth, recon


def as_jpeg(images: Array, quality: int) -> Array:
    """Return pictures after JPEG compression."""
    result = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=quality)
        result.append(np.asarray(Image.open(buffer)))
    return np.stack(result)


def nearest_training_pictures(study: SimulatedDecoding, values: Array) -> Array:
    """Return for each prediction the training picture with the nearest latents."""
    away = np.square(values[:, None] - study.latents[None, : study.n_train]).sum(axis=2)
    return np.asarray(study.images[: study.n_train][away.argmin(axis=1)])
