"""Feature spaces of stimuli by name.

===========================  ======================================================
``z``                        latent of the picture (posterior mode)
``c``                        mean text state of the captions
``labels``                   categories of the picture, 0 or 1 for each
``z_c@0.6``                  z noised to strength 0.6 and denoised under c
``z_c@0.8:early``            the same after the step in the middle of the early,
                             middle or late third; ``:step7`` after step 7
``unet:mid_block@0.8:late``  output of a block of the U-Net during such a step
``net:alexnet:features.5``   layer of an image network of torchvision
``hf:facebook/dinov2-base``  image embedding by a vision model of transformers, from
                             the hub or a folder; ``hf:NAME:-1:mean`` the mean of
                             patches, ``:class`` the class token and ``:tokens`` all
                             tokens of a hidden state
===========================  ======================================================
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calcarine.diffusion import LatentDiffusion
from calcarine.diffusion.samplers import check_steps
from calcarine.diffusion.trajectory import Trajectory, denoising_stage_steps, record_trajectory
from calcarine.errors import SettingError, ShapeError
from calcarine.features.image_networks import ImageNetwork, load_network, network_layer
from calcarine.features.latents import LatentSettings
from calcarine.features.store import FeatureSpace, FeatureStore
from calcarine.features.vision_transformers import EMBEDDING, VisionModel, load_vision_model
from calcarine.stimuli import StimulusSet

__all__ = ["SpaceName", "extract_spaces"]

_DENOISED = re.compile(
    r"(?:z_c|unet:(?P<block>[\w.]+))@(?P<strength>[\d.]+)(?::(?P<when>early|middle|late|step\d+))?"
)
_NETWORK = re.compile(r"net:(?P<network>\w+):(?P<layer>[\w.]+)")
_VISION = re.compile(rf"hf:(?P<model>.+?)(?::(?P<layer>-?\d+|{EMBEDDING})(?::(?P<pool>[a-z]+))?)?")
_PLAIN = ("z", "c", "labels")


@dataclass(frozen=True)
class SpaceName:
    """A name of the table above, parsed.

    Attributes
    ----------
    name : str
        The name itself.
    strength : float or None
        Strength of the noise; None for spaces without denoising.
    when : str or None
        ``"early"``, ``"middle"``, ``"late"`` or ``"stepN"``; None for the end of the denoising.
    block : str or None
        Block of the U-Net; None for latents.
    network, layer : str or None
        Image network of torchvision and its layer; None for other spaces.
    model, pool : str or None
        Vision model of transformers, whose layer is ``layer``, and what is taken of its tokens;
        None for other spaces.

    Examples
    --------
    >>> from calcarine.features import SpaceName
    >>> space = SpaceName.parse("z_c@0.6:early")
    >>> space.strength, space.when
    (0.6, 'early')
    >>> SpaceName.parse("net:alexnet:features.5").layer
    'features.5'
    """

    name: str
    strength: float | None = None
    when: str | None = None
    block: str | None = None
    network: str | None = None
    layer: str | None = None
    model: str | None = None
    pool: str | None = None

    @property
    def by_network(self) -> bool:
        """Whether a network other than the diffusion model makes the features."""
        return self.network is not None or self.model is not None

    @classmethod
    def parse(cls, name: str) -> SpaceName:
        """Parse a name.

        Raises
        ------
        SettingError
            If there is no feature space of this name.
        """
        if name in _PLAIN:
            return cls(name)
        layer = _NETWORK.fullmatch(name)
        if layer:
            return cls(name, network=layer["network"], layer=layer["layer"])
        vision = _VISION.fullmatch(name)
        if vision:
            own = vision["layer"] or EMBEDDING
            return cls(name, layer=own, model=vision["model"], pool=vision["pool"])
        match = _DENOISED.fullmatch(name)
        try:
            strength = float(match["strength"]) if match else -1.0
        except ValueError:
            strength = -1.0
        if not match or not 0 < strength <= 1 or (match["block"] and not match["when"]):
            raise SettingError(
                f"There is no feature space {name}; write z, c, labels, z_c@0.6, z_c@0.8:early, "
                "unet:mid_block@0.8:late, net:alexnet:features.5 or hf:facebook/dinov2-base, with "
                "a strength above 0 and at most 1."
            )
        return cls(name, strength, match["when"], match["block"])

    def step(self, n_steps: int) -> int | None:
        """Return the denoising step, counted from 0 of ``n_steps``; None for the end."""
        if self.when is None:
            return None
        if self.when.startswith("step"):
            return int(self.when.removeprefix("step"))
        return denoising_stage_steps(n_steps)[self.when]


def extract_spaces(
    names: Sequence[str],
    model: LatentDiffusion,
    stimuli: StimulusSet,
    store: FeatureStore,
    *,
    latents: LatentSettings | None = None,
    guidance: float = 5.0,
    steps: int = 50,
    seed: int = 42,
    batch_size: int = 64,
    progress: Callable[[int], None] | None = None,
    networks: Callable[[str], ImageNetwork] | None = None,
) -> dict[str, Any]:
    """Extract feature spaces, or read them from the store.

    Parameters
    ----------
    names : sequence of str
        Names of the table above.
    model : LatentDiffusion
        The diffusion model.
    stimuli : StimulusSet
    store : FeatureStore
        Holds the features, or stores them.
    latents : LatentSettings, optional
        Settings of z and c, also for the spaces that are denoised from them.
    guidance, steps, seed
        Settings of the denoising; see `LatentDiffusion.generate`. The noise depends on the
        stimulus, so batches and order do not matter.
    batch_size : int
        Number of stimuli per batch.
    progress : callable, optional
        Receives the number of stimuli of each finished batch, once for each strength.
    networks : callable, optional
        Returns an image network by its name; by default one of torchvision on the device of
        the model.

    Returns
    -------
    dict of str to array of shape (n, ...)
        In memory or stored, with one row for each of ``stimuli.ids``. All steps and blocks of one
        strength are extracted in one pass.

    Raises
    ------
    SettingError
        If a name does not exist, or the strength leaves fewer steps than a name needs.

    Examples
    --------
    >>> import calcarine as ca
    >>> from calcarine.features import FeatureStore, extract_spaces
    >>> seen = ca.StimulusSet.from_scenes(seed=0, indices=range(2))
    >>> model = ca.LatentDiffusion.from_pretrained("mini")
    >>> spaces = extract_spaces(["z", "labels"], model, seen, FeatureStore("features"))
    >>> {name: len(features) for name, features in spaces.items()}
    {'z': 2, 'labels': 2}
    """
    parsed = [SpaceName.parse(name) for name in dict.fromkeys(names)]
    latents = latents or LatentSettings()
    arrays: dict[str, Any] = {}
    denoised = [space for space in parsed if space.strength is not None]
    for space in denoised:
        check_steps(steps, space.strength or 0.0, f"feature space {space.name}")
    if any(space.name == "labels" for space in parsed):
        arrays["labels"] = _labels(stimuli)
    if denoised or any(space.name == "z" for space in parsed):
        arrays["z"] = latents.z(store, model, stimuli)
    if denoised or any(space.name == "c" for space in parsed):
        arrays["c"] = latents.c(store, model, stimuli)
    settings = {"guidance": guidance, "steps": steps, "seed": seed}
    made_of = latents.provenance(stimuli) if denoised else {}
    made_of = {**made_of, "guidance_rescale": model.guidance_rescale}
    for strength in sorted({space.strength for space in denoised if space.strength is not None}):
        group = [space for space in denoised if space.strength == strength]
        work = _DenoisingPass(
            model, stimuli, arrays["z"], arrays["c"], strength, made_of, settings, progress
        )
        arrays.update(work.run(group, store, batch_size))
    for name in dict.fromkeys(space.network for space in parsed if space.network is not None):
        layers = [space for space in parsed if space.network == name]
        network = networks(name) if networks else load_network(name, model.device)
        arrays.update(_layers(network, layers, stimuli, store, batch_size))
    for name in dict.fromkeys(space.model for space in parsed if space.model is not None):
        vision = load_vision_model(name, model.device)
        for space in parsed:
            if space.model == name:
                arrays.update(_embeddings(vision, space, stimuli, store, batch_size))
    return {space.name: arrays[space.name] for space in parsed}


def _layers(
    network: ImageNetwork,
    spaces: Sequence[SpaceName],
    stimuli: StimulusSet,
    store: FeatureStore,
    batch_size: int,
) -> dict[str, Any]:
    arrays: dict[str, Any] = {}
    for space in spaces:
        arrays.update(_layer(network, space, stimuli, store, batch_size))
    return arrays


def _layer(
    network: ImageNetwork,
    space: SpaceName,
    stimuli: StimulusSet,
    store: FeatureStore,
    batch_size: int,
) -> dict[str, Any]:
    layer = str(space.layer)

    def extract(rows: slice) -> dict[str, NDArray[np.float32]]:
        return {space.name: network_layer(network, layer, stimuli.images(stimuli.ids[rows]))}

    made_of = {"network": network.digest, "stimuli": stimuli.digest(), "layer": layer}
    wanted = FeatureSpace(space.name, made_of, lambda: extract(slice(0, 1))[space.name].shape[1:])
    return store.get_many([wanted], len(stimuli), extract, batch_size)


def _embeddings(
    vision: VisionModel, space: SpaceName, stimuli: StimulusSet, store: FeatureStore, batch: int
) -> dict[str, Any]:
    layer = str(space.layer)

    def extract(rows: slice) -> dict[str, NDArray[np.float32]]:
        images = stimuli.images(stimuli.ids[rows])
        return {space.name: vision.features(images, layer, space.pool)}

    vision.check_layer(layer, space.pool)
    made_of = {
        "model": vision.digest,
        "preparation": vision.preparation,
        "stimuli": stimuli.digest(),
        "layer": layer,
        "pool": space.pool,
    }
    wanted = FeatureSpace(space.name, made_of, lambda: extract(slice(0, 1))[space.name].shape[1:])
    return store.get_many([wanted], len(stimuli), extract, batch)


def _labels(stimuli: StimulusSet) -> NDArray[np.float32]:
    categories = stimuli.categories()
    known = sorted({name for names in categories for name in names})
    if not known:
        raise ShapeError("These stimuli have no categories; choose another feature space.")
    place = {name: column for column, name in enumerate(known)}
    table = np.zeros((len(categories), len(known)), dtype=np.float32)
    for row, names in enumerate(categories):
        table[row, [place[name] for name in names]] = 1.0
    return table


@dataclass(frozen=True, eq=False)
class _DenoisingPass:
    """One denoising of all stimuli at one strength."""

    model: LatentDiffusion
    stimuli: StimulusSet
    z: NDArray[np.float32]
    c: NDArray[np.float32]
    strength: float
    made_of: Mapping[str, Any]
    settings: Mapping[str, Any]
    progress: Callable[[int], None] | None

    def run(
        self, spaces: Sequence[SpaceName], store: FeatureStore, batch_size: int
    ) -> dict[str, Any]:
        total = self.model.count_steps(int(self.settings["steps"]), self.strength)
        at = {space: space.step(total) for space in spaces}
        for space, step in at.items():
            if step is not None and step >= total:
                raise SettingError(
                    f"Feature space {space.name}: strength and steps leave {total} steps, counted "
                    "from 0."
                )

        @cache
        def first() -> Trajectory:
            return self._record(slice(0, 1), spaces, at)

        def shape_of(space: SpaceName) -> tuple[int, ...]:
            return _pick(first(), space, at[space]).shape[1:]

        wanted = [
            FeatureSpace(
                space.name,
                {
                    "model": self.model.digest,
                    "stimuli": self.stimuli.digest(),
                    "kind": "trajectory",
                    "strength": self.strength,
                    "step": at[space],
                    "block": space.block,
                    "made of": dict(self.made_of),
                    **self.settings,
                },
                partial(shape_of, space),
            )
            for space in spaces
        ]

        def extract(rows: slice) -> dict[str, NDArray[np.float32]]:
            trajectory = self._record(rows, spaces, at)
            if self.progress is not None:
                self.progress(len(trajectory.final))
            return {space.name: _pick(trajectory, space, at[space]) for space in spaces}

        return store.get_many(wanted, len(self.stimuli), extract, batch_size)

    def _record(
        self, rows: slice, spaces: Sequence[SpaceName], at: Mapping[SpaceName, int | None]
    ) -> Trajectory:
        blocks = sorted({space.block for space in spaces if space.block is not None})
        keys = [(key, 0) for key in self.stimuli.ids[rows]]
        return record_trajectory(
            self.model,
            self.c[rows],
            keys,
            self.z[rows],
            latents_at=_steps(at, blocks=False),
            blocks=blocks,
            blocks_at=_steps(at, blocks=True),
            strength=self.strength,
            batch_size=max(len(keys), 1),
            **self.settings,
        )


def _steps(at: Mapping[SpaceName, int | None], blocks: bool) -> list[int]:
    chosen = {
        step
        for space, step in at.items()
        if step is not None and (space.block is not None) == blocks
    }
    return sorted(chosen)


def _pick(trajectory: Trajectory, space: SpaceName, step: int | None) -> NDArray[np.float32]:
    if step is None:
        return trajectory.final
    if space.block is None:
        return trajectory.latents[step]
    return trajectory.activations[space.block, step]
