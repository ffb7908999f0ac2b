"""The two targets of Takagi & Nishimoto 2023: z and c."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from calcarine.diffusion import LatentDiffusion
from calcarine.features.store import FeatureStore
from calcarine.stimuli import StimulusSet, resize_images

Progress = Callable[[int], None]


def visual_latent(
    store: FeatureStore,
    model: LatentDiffusion,
    stimuli: StimulusSet,
    size: int | None = None,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """z: latent of each stimulus under the model's autoencoder (posterior mode).

    Parameters
    ----------
    size : int, optional
        Side in pixels at which stimuli are encoded; the model's own by default (the paper used
        320 with Stable Diffusion v1.4).

    Returns
    -------
    float32 array of shape (n_stimuli, channels, size / f, size / f)
    """
    side = size or model.image_size
    small = side // model.downscale

    def extract(rows: slice) -> NDArray[np.float32]:
        images = resize_images(stimuli.images(stimuli.ids[rows]), side)
        return model.encode(images, progress=progress)

    return store.get(
        "z",
        {"model": model.digest, "stimuli": stimuli.digest(), "size": side, "posterior": "mode"},
        len(stimuli),
        (int(model.vae.config.latent_channels), small, small),
        extract,
    )


def text_conditioning(
    store: FeatureStore,
    model: LatentDiffusion,
    stimuli: StimulusSet,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """c: mean over captions of the text encoder's states, ``(n_stimuli, tokens, width)``."""

    def extract(rows: slice) -> NDArray[np.float32]:
        captions = stimuli.captions(stimuli.ids[rows])
        values = model.embed_captions(captions)
        if progress is not None:
            progress(len(captions))
        return values

    return store.get(
        "c",
        {"model": model.digest, "stimuli": stimuli.digest(), "captions": "mean"},
        len(stimuli),
        model.context_shape,
        extract,
    )
