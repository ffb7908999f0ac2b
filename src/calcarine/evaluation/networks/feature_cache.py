"""Cache of image features while one protocol is computed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from calcarine.errors import ShapeError
from calcarine.evaluation.networks.preprocessing import Preprocessing

if TYPE_CHECKING:
    from calcarine.evaluation.inputs.image_stacks import ImageStack, Picture
    from calcarine.evaluation.networks.feature_networks import Networks

__all__ = ["FeatureCache", "TruthFeatures"]

Side = Literal["truth", "recon"]
Key: TypeAlias = tuple[Side, int, str, Preprocessing, str]
# Larger feature arrays are stored in a temporary file.
_IN_MEMORY = 256 * 2**20
_KEPT_OF_TRUTH = 2 * 2**30


class TruthFeatures:
    """Features of the ground truths, which all sets of reconstructions are compared with.

    Parameters
    ----------
    folder : Path
        Folder for features that are too large for memory.
    limit : int
        Bytes to keep; what goes beyond is computed for each set of reconstructions.
    """

    def __init__(self, folder: Path, limit: int = _KEPT_OF_TRUTH) -> None:
        self.folder = folder
        self._left = limit
        self._kept: dict[Key, NDArray[np.float32]] = {}

    def get(self, key: Key) -> NDArray[np.float32] | None:
        """Return features that are kept, or None."""
        return self._kept.get(key)

    def keep(self, key: Key, features: NDArray[np.float32]) -> bool:
        """Keep features if there is room for them; return whether there is."""
        if features.nbytes > self._left:
            return False
        self._left -= features.nbytes
        self._kept[key] = features
        return True


class FeatureCache:
    """The pictures that a metric scores, and a cache of their network features.

    Parameters
    ----------
    truth, recon : ImageStack
        Ground truths and reconstructions with the same number of images.
    networks : Networks
    batch_size : int
        Number of pictures in a batch; scores do not depend on it.
    folder : Path
        Folder for features that are too large for memory.
    blurry : ImageStack, optional
        Low-level reconstructions that are blended in.
    inputs : mapping of str to array, optional
        Other arrays, such as embeddings, betas and categories; the first axis is the image.
    shared : TruthFeatures, optional
        Features of the ground truths that caches of other reconstructions have computed.

    Attributes
    ----------
    digests : dict of str to str
        SHA-256 of the weights of each network in use.
    judge : str or None
        Name of the judge, if it is in use.
    """

    def __init__(
        self,
        truth: ImageStack,
        recon: ImageStack,
        networks: Networks,
        batch_size: int,
        folder: Path,
        blurry: ImageStack | None = None,
        inputs: Mapping[str, NDArray[Any]] | None = None,
        shared: TruthFeatures | None = None,
    ) -> None:
        self._shared = TruthFeatures(folder, 0) if shared is None else shared
        self.n = len(truth)
        self.samples = recon.samples
        self.inputs = dict(inputs or {})
        self.digests: dict[str, str] = {}
        self.judge: str | None = None
        self._sides: dict[Side, ImageStack] = {"truth": truth, "recon": recon}
        self._networks, self._batch, self._folder, self._blurry = (
            networks,
            batch_size,
            folder,
            blurry,
        )
        height, width = truth.read(0, 0).shape[:2]
        self.truth_size = (height, width)
        self._layers: dict[tuple[str, Preprocessing], list[str]] = {}
        self._kept: dict[Key, NDArray[np.float32]] = {}

    def plan(self, required: Iterable[tuple[str, Preprocessing, str]]) -> None:
        """Announce the features that will be used, so that one forward pass computes all layers."""
        self._layers = {}
        for network, preprocessing, layer in required:
            layers = self._layers.setdefault((network, preprocessing), [])
            if layer not in layers:
                layers.append(layer)

    def require(self, network: str) -> None:
        """Load a network, or raise why it cannot be loaded."""
        loaded, self.digests[network] = self._networks.get(network)
        if network == "judge":
            self.judge = loaded.name

    def picture(
        self, side: Side, i: int, sample: int, preprocessing: Preprocessing
    ) -> NDArray[np.float32]:
        """Return one preprocessed picture, shape (height, width, 3)."""
        image, low = self._raw(side, i, sample, preprocessing)
        prepared = preprocessing.apply(image, self.truth_size, low)
        return np.asarray(prepared.permute(1, 2, 0).numpy(), np.float32)

    def features(
        self, side: Side, sample: int, network: str, preprocessing: Preprocessing, layer: str
    ) -> NDArray[np.float32]:
        """Return the features of all images, shape (n, features); the network "" means pixels.

        Raises
        ------
        CalcarineError
            If the weights of the network are missing, or pictures differ in size although the
            metric needs one size.
        """
        sample = 0 if side == "truth" else sample
        key = (side, sample, network, preprocessing, layer)
        if self._find(key) is None:
            layers = self._layers.get((network, preprocessing), [layer])
            absent = [
                each
                for each in dict.fromkeys([*layers, layer])
                if self._find((*key[:-1], each)) is None
            ]
            self._read(side, sample, network, preprocessing, absent)
        found = self._find(key)
        assert found is not None
        return found

    def forget(self, side: Side | None = None) -> None:
        """Delete features that are no longer needed."""
        for key in list(self._kept):
            if side is None or key[0] == side:
                result = self._kept.pop(key)
                if isinstance(result, np.memmap):
                    Path(str(result.filename)).unlink(missing_ok=True)

    def _find(self, key: Key) -> NDArray[np.float32] | None:
        return self._kept.get(key) if key in self._kept else self._shared.get(key)

    def _read(
        self, side: Side, sample: int, network: str, preprocessing: Preprocessing, layers: list[str]
    ) -> None:
        if network:
            self.require(network)
        arrays: dict[str, NDArray[np.float32]] = {}
        step = self._batch if network else 1
        for start in range(0, self.n, step):
            rows = range(start, min(self.n, start + step))
            pairs = [self._raw(side, i, sample, preprocessing) for i in rows]
            for layer, result in self._batch_of(network, preprocessing, layers, pairs).items():
                if layer not in arrays:
                    arrays[layer] = self._array(result.shape[1], side)
                if result.shape[1] != arrays[layer].shape[1]:
                    raise ShapeError(
                        f"Image {start + 1} of the {_SIDES[side]} has another size than the images "
                        "before it; give all images the same size."
                    )
                arrays[layer][rows.start : rows.stop] = result
        for layer in layers:
            key = (side, sample, network, preprocessing, layer)
            if side == "recon" or not self._shared.keep(key, arrays[layer]):
                self._kept[key] = arrays[layer]

    def _batch_of(
        self,
        network: str,
        preprocessing: Preprocessing,
        layers: list[str],
        pairs: list[tuple[Picture, Picture | None]],
    ) -> dict[str, NDArray[np.float32]]:
        if network:
            return self._networks.read(network, pairs, preprocessing, layers, self.truth_size)
        prepared = [preprocessing.apply(image, self.truth_size, low) for image, low in pairs]
        flat = np.stack([x.permute(1, 2, 0).reshape(-1).numpy() for x in prepared])
        return dict.fromkeys(layers, flat)

    def _raw(
        self, side: Side, i: int, sample: int, preprocessing: Preprocessing
    ) -> tuple[Picture, Picture | None]:
        image = self._sides[side].read(i, sample)
        if side == "truth" or self._blurry is None or preprocessing.kind != "tensor":
            return image, None
        return image, self._blurry.read(i, min(sample, self._blurry.samples - 1))

    def _array(self, width: int, side: Side) -> NDArray[np.float32]:
        if 4 * self.n * width <= _IN_MEMORY:
            return np.empty((self.n, width), np.float32)
        folder = self._folder if side == "recon" else self._shared.folder
        with tempfile.NamedTemporaryFile(dir=folder, suffix=".npy", delete=False) as file:
            name = file.name
        return np.lib.format.open_memmap(name, mode="w+", dtype=np.float32, shape=(self.n, width))


_SIDES: dict[Side, str] = {"truth": "ground truths", "recon": "reconstructions"}
