"""The two targets of Takagi & Nishimoto 2023: z and c."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from calcarine.diffusion import ConditionalDiffusion, LatentDiffusion
from calcarine.errors import SettingError, ShapeError
from calcarine.features.semantic_map_colours import coloured_maps
from calcarine.features.store import FeatureStore
from calcarine.stimuli import StimulusSet, resize_images
from calcarine.stimuli.images import Filter

__all__ = [
    "LatentSettings",
    "Picture",
    "Posterior",
    "Text",
    "count_without_category",
    "source_digests",
    "text_conditioning",
    "texts_of",
    "visual_latent",
]

Progress = Callable[[int], None]
Posterior = Literal["mode", "sample"]
Picture = Literal["image", "semantic_map"]
Text = Literal["captions", "categories"]
_WORDNET_ID = re.compile(r"n\d{8}")


@dataclass(frozen=True)
class LatentSettings:
    """Settings of z and c, shared by everything in a run.

    Attributes
    ----------
    size, posterior, picture, resize, seed
        Settings of z; see `visual_latent`.
    text
        Setting of c; see `text_conditioning`.
    batch_size : int
        Number of pictures per batch; changes speed and memory, never the values.

    Examples
    --------
    >>> import calcarine as ca
    >>> from calcarine.features import FeatureStore, LatentSettings
    >>> seen = ca.StimulusSet.from_scenes(seed=0, indices=range(2))
    >>> model = ca.LatentDiffusion.from_pretrained("mini")
    >>> latents, store = LatentSettings(size=32), FeatureStore("features")
    >>> latents.z(store, model, seen).shape
    (2, 4, 8, 8)
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
        """Return the latent of each stimulus; see `visual_latent`."""
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
        """Return the text conditioning of each stimulus; see `text_conditioning`."""
        return text_conditioning(
            store, model, stimuli, progress, text=self.text, batch_size=self.batch_size
        )

    def provenance(self, stimuli: StimulusSet) -> dict[str, Any]:
        """Return what z and c depend on, apart from the model and the digest of the stimuli."""
        settings = asdict(self)
        del settings["batch_size"]
        if self.posterior == "mode":
            del settings["seed"]
        return settings | source_digests(stimuli, self.picture, self.text)


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
    """Extract z: the latent of each stimulus by the model's autoencoder.

    Parameters
    ----------
    store : FeatureStore
        Holds z, or stores it.
    model : ConditionalDiffusion
    stimuli : StimulusSet
    size : int, optional
        Side in pixels at which stimuli are encoded; the model's image size by default (320 in the
        paper, with Stable Diffusion v1.4).
    progress : callable, optional
        Receives the number of stimuli of each finished batch.
    posterior : {"mode", "sample"}
        Mode of the posterior, or a sample with noise that depends on ``seed`` and the stimulus.
    picture : {"image", "semantic_map"}
        Encode the stimulus, or its semantic map in the colours of a fixed palette (a control of
        the paper, section 4.1).
    resize : {"bicubic", "lanczos"}
        Filter that resizes stimuli.
    seed : int
        Seed of posterior samples.
    batch_size : int
        Number of stimuli per batch.

    Returns
    -------
    float32 array of shape (n_stimuli, channels, size / f, size / f)

    Examples
    --------
    >>> import calcarine as ca
    >>> from calcarine.features import FeatureStore, visual_latent
    >>> seen = ca.StimulusSet.from_scenes(seed=0, indices=range(2))
    >>> model = ca.LatentDiffusion.from_pretrained("mini")
    >>> visual_latent(FeatureStore("features"), model, seen).shape  # read from disk next time
    (2, 4, 16, 16)
    """
    side = size or model.image_size
    if side % model.downscale:
        raise SettingError(
            f"The size of latents is {side} px; choose a multiple of {model.downscale} "
            "(generation.latent_size)."
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
        return model.encode(images, batch_size, progress, sample=keys, seed=seed, ids=ids)

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
    """Extract c: the states of the text encoder, averaged over the captions of each stimulus.

    Parameters
    ----------
    store : FeatureStore
        Holds c, or stores it.
    model : LatentDiffusion
    stimuli : StimulusSet
    progress : callable, optional
        Receives the number of stimuli of each finished batch.
    text : {"captions", "categories"}
        Categories replace captions in a control of the paper (section 4.1). A stimulus without a
        category in words (about one picture in a hundred of COCO) gets the empty text;
        `count_without_category` counts such stimuli. Ids of WordNet, as n01518878, are no words.
    batch_size : int
        An eighth of the number of texts per batch.

    Returns
    -------
    float32 array of shape (n_stimuli, tokens, width)

    Raises
    ------
    ShapeError
        If a stimulus has no caption, or no stimulus has a category in words.

    Examples
    --------
    >>> import calcarine as ca
    >>> from calcarine.features import FeatureStore, text_conditioning
    >>> seen = ca.StimulusSet.from_scenes(seed=0, indices=range(2))
    >>> model = ca.LatentDiffusion.from_pretrained("mini")
    >>> c = text_conditioning(FeatureStore("features"), model, seen)
    >>> c.shape == (2, *model.context_shape)
    True
    """
    provenance = {"model": model.digest, "stimuli": stimuli.digest(), "captions": "mean"}
    texts = texts_of(stimuli, text)
    bare = [key for key, own in zip(stimuli.ids, texts, strict=True) if not own]
    if bare and text == "captions":
        raise ShapeError(
            f"{len(bare)} of {len(texts)} stimuli have no caption, first {bare[0]}; add captions "
            "or set features.text=categories (a stimulus without any gets the empty text)."
        )
    if bare and len(bare) == len(texts) and any(stimuli.captions()):
        raise ShapeError(
            "No stimulus has a category in words; add categories, or choose features.text=captions."
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


def texts_of(stimuli: StimulusSet, text: Text) -> list[tuple[str, ...]]:
    """Return the texts from which the conditioning c of each stimulus is made."""
    if text == "captions":
        return stimuli.captions()
    return [
        tuple(name for name in own if not _WORDNET_ID.fullmatch(name))
        for own in stimuli.categories()
    ]


def count_without_category(stimuli: StimulusSet, text: Text) -> int:
    """Count the stimuli without a category, which get the empty text if ``text`` is categories."""
    if text != "categories":
        return 0
    return sum(not own for own in texts_of(stimuli, text))


def source_digests(
    stimuli: StimulusSet, picture: Picture = "image", text: Text = "captions"
) -> dict[str, str]:
    """Return hashes of what the digest of the stimuli does not cover: maps and categories."""
    digests = {}
    if picture == "semantic_map":
        maps = np.ascontiguousarray(stimuli.semantic_maps())
        digests["semantic_maps"] = hashlib.sha256(maps.tobytes()).hexdigest()
    if text == "categories":
        content = json.dumps(texts_of(stimuli, text), ensure_ascii=False)
        digests["categories"] = hashlib.sha256(content.encode()).hexdigest()
    return digests
