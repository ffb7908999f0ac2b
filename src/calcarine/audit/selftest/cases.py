"""The register of mistakes and honest pipelines of the self-test, and what they are made of."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from calcarine.audit.inputs import AuditInputs, PictureSet, SampleChoice
from calcarine.audit.selftest.simulated_study import Array, SimulatedStudy, reported


@dataclass(frozen=True)
class SelfTestCase:
    """A mistake, or an honest pipeline.

    Parameters
    ----------
    name : str
        In words.
    check : str
        Which must flag it; "" where there is nothing to flag.
    make : callable
        Called with a seed; gives the inputs of the claim.
    hidden : bool
        Whether it cannot be seen from what is given, so that "inconclusive" is right.
    allowed : tuple of str
        Of an honest pipeline: checks that may flag it, as documented.
    numbers : bool
        Whether the slow check of claimed numbers is asked of an honest pipeline too.
    """

    name: str
    check: str
    make: Callable[[int], AuditInputs]
    hidden: bool = False
    allowed: tuple[str, ...] = ()
    numbers: bool = False


CASES: list[SelfTestCase] = []
Make = Callable[[int], AuditInputs]


def register_case(
    name: str,
    check: str,
    hidden: bool = False,
    allowed: tuple[str, ...] = (),
    numbers: bool = False,
) -> Callable[[Make], Make]:
    """Register a function that makes the inputs of a claim."""

    def keep(make: Make) -> Make:
        CASES.append(SelfTestCase(name, check, make, hidden, allowed, numbers))
        return make

    return keep


def stack(pictures: PictureSet) -> Array:
    """All samples of all pictures, shape (n, samples, height, width, 3)."""
    return np.stack(
        [[pictures.full(row, s) for s in range(pictures.samples)] for row in range(len(pictures))]
    )


def show(inputs: AuditInputs, chosen: Array, reapplied: Array | None = None) -> AuditInputs:
    """The claim with the chosen samples as reconstructions."""
    assert inputs.choice is not None
    samples = inputs.choice.samples
    images = np.stack([samples.full(row, int(s)) for row, s in enumerate(chosen)])
    return replace(shown_as(inputs, images), choice=SampleChoice(samples, chosen, reapplied))


def shown_as(inputs: AuditInputs, images: Array) -> AuditInputs:
    """The claim with other reconstructions, and the numbers that these give."""
    recon = PictureSet.of(inputs.truth.ids, images)
    return replace(inputs, recon=recon, choice=None, numbers=reported(inputs.truth, recon))


def blend(inputs: AuditInputs, most: PictureSet, rest: PictureSet) -> AuditInputs:
    """Three quarters of one set of pictures and a quarter of another."""
    images = 0.75 * stack(most)[:, 0].astype(np.float64) + 0.25 * stack(rest)[:, 0]
    return shown_as(inputs, np.rint(images).astype(np.uint8))


def with_pictures(toy: SimulatedStudy, extra: Array) -> PictureSet:
    """The training pictures and some more."""
    ids = [*toy.train_ids, *(f"extra-{i}" for i in range(len(extra)))]
    return PictureSet.of(ids, np.concatenate([toy.images[: toy.n_train], extra]))


def rounded(images: Array) -> Array:
    """Grey values from 0 to 255."""
    return np.rint(np.clip(images, 0, 255)).astype(np.uint8)


def both(inputs: AuditInputs) -> tuple[Array, Array]:
    """Truths and reconstructions as float arrays of shape (n, height, width, 3)."""
    truth, recon = (stack(side)[:, 0].astype(np.float64) for side in (inputs.truth, inputs.recon))
    return truth, recon


def as_jpeg(images: Array, quality: int) -> Array:
    """Pictures as they come back from a file with loss."""
    result = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=quality)
        result.append(np.asarray(Image.open(buffer)))
    return np.stack(result)


def nearest_training_pictures(toy: SimulatedStudy, values: Array) -> Array:
    """For each prediction the training picture whose latents are nearest."""
    away = np.square(values[:, None] - toy.latents[None, : toy.n_train]).sum(axis=2)
    return np.asarray(toy.images[: toy.n_train][away.argmin(axis=1)])
