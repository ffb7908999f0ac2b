"""The two targets of Takagi & Nishimoto 2023: z and c."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from calcarine.diffusion import ConditionalDiffusion, LatentDiffusion
from calcarine.errors import CalcarineError
from calcarine.features.semantic import coloured_maps
from calcarine.features.store import FeatureStore
from calcarine.stimuli import StimulusSet, resize_images
from calcarine.stimuli.images import Filter

Progress = Callable[[int], None]
Posterior = Literal["mode", "sample"]
Picture = Literal["image", "semantic_map"]
Text = Literal["captions", "categories"]


@dataclass(frozen=True)
class LatentSettings:
    """What z and c are made of, so that everything in a run makes them alike.

    Attributes
    ----------
    size, posterior, picture, resize, seed
        Of z, as in `visual_latent`.
    text
        Of c, as in `text_conditioning`.
    batch_size
        Pictures at a time; changes speed and memory, never what comes out.
    """

    size: int | None = None
    posterior: Posterior = "mode"
    picture: Picture = "image"
    resize: Filter = "bicubic"
    seed: int = 42
    text: Text = "captions"
    batch_size: int = 32

    def z(
        self,
        store: FeatureStore,
        model: ConditionalDiffusion,
        stimuli: StimulusSet,
        progress: Progress | None = None,
    ) -> NDArray[np.float32]:
        """Latent of each stimulus; see `visual_latent`."""
        return visual_latent(
            store,
            model,
            stimuli,
            self.size,
            progress,
            posterior=self.posterior,
            picture=self.picture,
            resize=self.resize,
            seed=self.seed,
            batch_size=self.batch_size,
        )

    def c(
        self,
        store: FeatureStore,
        model: LatentDiffusion,
        stimuli: StimulusSet,
        progress: Progress | None = None,
    ) -> NDArray[np.float32]:
        """Text conditioning of each stimulus; see `text_conditioning`."""
        return text_conditioning(
            store, model, stimuli, progress, text=self.text, batch_size=self.batch_size
        )

    def provenance(self, stimuli: StimulusSet) -> dict[str, Any]:
        """What z and c depend on beside the model and the digest of the stimuli."""
        made_of = asdict(self)
        del made_of["batch_size"]
        if self.posterior == "mode":
            del made_of["seed"]
        return made_of | source_digests(stimuli, self.picture, self.text)


def visual_latent(
    store: FeatureStore,
    model: ConditionalDiffusion,
    stimuli: StimulusSet,
    size: int | None = None,
    progress: Progress | None = None,
    *,
    posterior: Posterior = "mode",
    picture: Picture = "image",
    resize: Filter = "bicubic",
    seed: int = 42,
    batch_size: int = 32,
) -> NDArray[np.float32]:
    """z: latent of each stimulus under the model's autoencoder.

    Parameters
    ----------
    size : int, optional
        Side in pixels at which stimuli are encoded; the model's own by default (the paper used
        320 with Stable Diffusion v1.4).
    posterior : {"mode", "sample"}
        A sample is drawn with noise that belongs to ``seed`` and the stimulus, so that extracting
        again gives the same.
    picture : {"image", "semantic_map"}
        What is encoded: the stimulus, or its semantic map in the colours of a fixed palette (a
        control of the paper, section 4.1).
    resize : {"bicubic", "lanczos"}
    seed : int
        Of posterior samples.
    batch_size : int
        Pictures that are encoded together.

    Returns
    -------
    float32 array of shape (n_stimuli, channels, size / f, size / f)
    """
    side = size or model.image_size
    if side % model.downscale:
        raise CalcarineError(
            f"Latents of {side} px cannot be made: the size must be a multiple of "
            f"{model.downscale} (generation.latent_size)."
        )
    small = side // model.downscale
    provenance: dict[str, Any] = {
        "model": model.digest,
        "stimuli": stimuli.digest(),
        "size": side,
        "posterior": posterior if posterior == "mode" else f"sample, seed {seed}",
    }
    provenance |= source_digests(stimuli, picture=picture)
    if resize != "bicubic":
        provenance["resize"] = resize

    def extract(rows: slice) -> NDArray[np.float32]:
        ids = stimuli.ids[rows]
        if picture == "image":
            images = resize_images(stimuli.images(ids), side, filter=resize)
        else:
            images = resize_images(coloured_maps(stimuli.semantic_maps(ids)), side, nearest=True)
        keys = [(stimulus, 0) for stimulus in ids] if posterior == "sample" else None
        return model.encode(images, batch_size, progress, sample=keys, seed=seed)

    return store.get(
        "z",
        provenance,
        len(stimuli),
        (int(model.vae.config.latent_channels), small, small),
        extract,
    )


def text_conditioning(
    store: FeatureStore,
    model: LatentDiffusion,
    stimuli: StimulusSet,
    progress: Progress | None = None,
    *,
    text: Text = "captions",
    batch_size: int = 32,
) -> NDArray[np.float32]:
    """c: mean over captions of the text encoder's states, ``(n_stimuli, tokens, width)``.

    Parameters
    ----------
    text : {"captions", "categories"}
        Categories take the captions' place in a control of the paper (section 4.1); their states
        are averaged likewise. A stimulus without any (about one picture in a hundred of COCO
        shows no object) gets the empty text; `without_category` counts those.
    batch_size : int
        Eight times as many texts are embedded together.

    Raises
    ------
    CalcarineError
        If a stimulus has no caption, or captions are there and no category is.
    """
    provenance = {"model": model.digest, "stimuli": stimuli.digest(), "captions": "mean"}
    texts = stimuli.captions() if text == "captions" else stimuli.categories()
    bare = [key for key, own in zip(stimuli.ids, texts, strict=True) if not own]
    if bare and text == "captions":
        raise CalcarineError(
            f"Stimulus {bare[0]} has no caption ({len(bare)} such), so c cannot be made of "
            "captions; add them, or choose features.text=categories, where a stimulus without "
            "categories gets the empty text."
        )
    if bare and len(bare) == len(texts) and any(stimuli.captions()):
        raise CalcarineError(
            "No stimulus has a category, so c cannot be made of categories; add them, or choose "
            "features.text=captions."
        )
    if text == "categories":
        provenance |= source_digests(stimuli, text=text)
        texts = [own or ("",) for own in texts]

    def extract(rows: slice) -> NDArray[np.float32]:
        values = model.embed_captions(texts[rows], 8 * batch_size)
        if progress is not None:
            progress(len(values))
        return values

    return store.get("c", provenance, len(stimuli), model.context_shape, extract)


def without_category(stimuli: StimulusSet, text: Text) -> int:
    """How many stimuli get the empty text because ``text`` is categories and they have none."""
    if text != "categories":
        return 0
    return sum(not own for own in stimuli.categories())


def source_digests(
    stimuli: StimulusSet, picture: Picture = "image", text: Text = "captions"
) -> dict[str, str]:
    """SHA-256 of what z and c are made of, where the stimuli's own digest does not cover it."""
    found = {}
    if picture == "semantic_map":
        maps = np.ascontiguousarray(stimuli.semantic_maps())
        found["semantic_maps"] = hashlib.sha256(maps.tobytes()).hexdigest()
    if text == "categories":
        content = json.dumps(stimuli.categories(), ensure_ascii=False)
        found["categories"] = hashlib.sha256(content.encode()).hexdigest()
    return found
