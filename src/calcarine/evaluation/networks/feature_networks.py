"""The image networks of the protocols: loading and feature extraction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from calcarine.checkpoints import check_loaded
from calcarine.checkpoints import network_weights as files
from calcarine.checkpoints.network_weights import WeightsStore, state_digest
from calcarine.devices import BatchSizes, resolve_device, tf32_products
from calcarine.errors import (
    CalcarineError,
    DamagedFileError,
    MissingWeightsError,
    SettingError,
    need_extra,
)
from calcarine.evaluation.inputs.image_stacks import as_uint8
from calcarine.evaluation.networks.judge_names import without_judge
from calcarine.evaluation.networks.preprocessing import Picture, Preprocessing
from calcarine.features.image_networks import run_hooked
from calcarine.files import digest_file

if TYPE_CHECKING:
    import torch

    from calcarine.checkpoints.network_weights import WeightsFile

__all__ = ["KINDS", "NetworkKind", "Networks", "fill", "missing_weights"]

Features = dict[str, NDArray[np.float32]]
Pair = tuple[Picture, Picture | None]
Loaded = tuple[Any, str]
# Weights of the text encoder in files of the complete CLIP model.
_TEXT_OF_CLIP = ("text_model.", "text_projection.", "logit_scale")


@dataclass(frozen=True)
class NetworkKind:
    """How to load a network and how to extract its layers.

    Parameters
    ----------
    title : str
        Name for people.
    load : callable
        Takes a `WeightsStore`; returns the network and the SHA-256 of its weights.
    run : callable
        Takes the network, preprocessed images (n, 3, height, width) and layer names; returns the
        layers by name.
    """

    title: str
    load: Callable[[WeightsStore], Loaded]
    run: Callable[[Any, torch.Tensor, Sequence[str]], dict[str, torch.Tensor]]


class Networks:
    """Networks by name, loaded on first use.

    Parameters
    ----------
    store : WeightsStore
    given : mapping of str to network, optional
        Networks that replace the published ones; their digests in the records differ.
    judge : str, path, Judge or None
        The classifier network for the name "judge", if any.
    device : str or torch.device, optional
        See :func:`calcarine.devices.resolve_device`; by default a GPU if there is one. The
        networks compute in float32, as the published scores were computed.
    """

    def __init__(
        self,
        store: WeightsStore,
        given: Mapping[str, Any] | None = None,
        judge: Any = None,
        device: str | torch.device | None = None,
    ) -> None:
        self._store, self._judge = store, judge
        self._device = device
        self._batch_sizes = BatchSizes()
        self._given = dict(given or {})
        self._loaded: dict[str, Loaded] = {}
        self._missing: dict[str, CalcarineError] = {}
        unknown = sorted(set(self._given) - set(KINDS))
        if unknown:
            raise SettingError(
                f"There is no network {unknown[0]!r} to replace; choose among {', '.join(KINDS)}."
            )

    def get(self, name: str) -> Loaded:
        """Return a network and the SHA-256 of its weights.

        Raises
        ------
        CalcarineError
            If its weights are missing or damaged.
        """
        if name in self._missing:
            raise self._missing[name]
        if name not in self._loaded:
            try:
                self._loaded = {name: self._load(name)} | self._cheap()
            except CalcarineError as error:
                self._missing[name] = error
                raise
        return self._loaded[name]

    def _cheap(self) -> dict[str, Loaded]:
        """Return the networks to keep: only the judge, so that one large network is in memory."""
        return {name: result for name, result in self._loaded.items() if name == "judge"}

    def _load(self, name: str) -> Loaded:
        network, digest = self._given.get(name), ""
        if name == "judge":
            return _load_judge(self._judge if network is None else network, self._device)
        device = resolve_device(self._device)
        if network is None:
            network, digest = KINDS[name].load(self._store)
        else:
            digest = state_digest(network.state_dict())
        return network.float().eval().to(device), digest

    def read(
        self,
        name: str,
        pictures: Sequence[Pair],
        preprocessing: Preprocessing,
        layers: Sequence[str],
        truth_size: tuple[int, int],
    ) -> Features:
        """Extract layers of a batch of pictures, each flattened.

        Parameters
        ----------
        name : str
        pictures : sequence of (picture, blurry picture or None)
        preprocessing : Preprocessing
        layers : sequence of str
        truth_size : (int, int)

        Returns
        -------
        dict of str to float32 array of shape (n, features)
        """
        import torch

        network, _ = self.get(name)
        if name == "judge":
            return _read_judge(network, [picture for picture, _ in pictures], layers)
        device = next(network.parameters()).device

        def extract(rows: slice) -> Features:
            own = [preprocessing.apply(x, truth_size, low) for x, low in pictures[rows]]
            with torch.inference_mode(), tf32_products(False):
                result = KINDS[name].run(network, torch.stack(own).to(device), layers)
            return {key: result[key].flatten(1).float().cpu().numpy() for key in layers}

        count, what = len(pictures), KINDS[name].title
        parts = [*self._batch_sizes.run(extract, count, count, what, preprocessing)]
        return {key: np.concatenate([part[key] for part in parts]) for key in layers}


def _run_clip(network: Any, inputs: torch.Tensor, layers: Sequence[str]) -> dict[str, torch.Tensor]:
    out = network(pixel_values=inputs, output_hidden_states=True)
    return {
        name: out.image_embeds
        if name == "image_embeds"
        else out.hidden_states[int(name.split()[1])]
        for name in layers
    }


def _run_classes(
    network: Any, inputs: torch.Tensor, layers: Sequence[str]
) -> dict[str, torch.Tensor]:
    # Only ranks matter, and logits have no ties at zero, unlike probabilities.
    return {"logits": network(inputs)}


def _run_fid(network: Any, inputs: torch.Tensor, layers: Sequence[str]) -> dict[str, torch.Tensor]:
    result: dict[str, torch.Tensor] = network.features(inputs, "2048" in layers)
    return result


def _run_lpips(
    network: Any, inputs: torch.Tensor, layers: Sequence[str]
) -> dict[str, torch.Tensor]:
    return {"weighted": network(inputs)}


def _build(
    builder: str, required: WeightsFile, rename: str = "", strict: bool = True, **settings: Any
) -> Callable[[WeightsStore], Loaded]:
    def load(store: WeightsStore) -> Loaded:
        need_extra("metrics", "torchvision")
        import torchvision

        state, digest = store.state(required)
        network = getattr(torchvision.models, builder)(weights=None, **settings)
        fill(network, {k.removeprefix(rename): v for k, v in state.items()}, required, strict)
        return network, digest

    return load


def fill(
    network: torch.nn.Module,
    state: dict[str, torch.Tensor],
    required: WeightsFile,
    strict: bool = True,
) -> None:
    """Load weights into a network, or raise if they belong to another network."""
    own = set(network.state_dict())
    try:
        missing, unexpected = network.load_state_dict(state, strict=False)
    except RuntimeError:
        missing, unexpected = sorted(own), []
    absent = [name for name in missing if not name.startswith("fc.")] if not strict else missing
    # No feature depends on auxiliary heads.
    extra = [name for name in unexpected if not name.startswith("AuxLogits.")]
    if absent or (strict and extra):
        raise DamagedFileError(
            f"The weights {required.file} do not fit their network; download them again from "
            f"{required.url}."
        )


def _load_clip(store: WeightsStore) -> Loaded:
    from transformers import CLIPVisionModelWithProjection

    folder = store.clip()
    try:
        loaded: Any = CLIPVisionModelWithProjection.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported in the info and rejected below
        )
    except (OSError, ValueError, RuntimeError):
        raise DamagedFileError(
            f"The weights of CLIP in {folder} cannot be read; download them again from "
            f"https://huggingface.co/{files.CLIP_NAME}."
        ) from None
    network, info = loaded
    check_loaded(info, folder, unused=_TEXT_OF_CLIP)
    return network, digest_file(folder / "model.safetensors")


def _load_fid(store: WeightsStore) -> Loaded:
    need_extra("metrics", "torchvision")
    from calcarine.evaluation.networks.inception_fid import FrechetInception

    state, digest = store.state(files.FID_INCEPTION)
    network = FrechetInception()
    fill(network, state, files.FID_INCEPTION)
    return network, digest


def _load_lpips(store: WeightsStore) -> Loaded:
    need_extra("metrics", "torchvision")
    import torchvision

    from calcarine.evaluation.networks.lpips import PerceptualDistance

    linear, linear_digest = store.state(files.LPIPS)
    state, digest = store.state(files.ALEXNET)
    alexnet = torchvision.models.alexnet(weights=None)
    fill(alexnet, state, files.ALEXNET)
    return PerceptualDistance.of(alexnet, linear), f"{digest}+{linear_digest}"


def _load_judge(judge: Any, device: str | torch.device | None) -> Loaded:
    from calcarine.evaluation.networks.judges import Judge, load_judge

    if judge is None:
        raise MissingWeightsError(without_judge())
    result = judge if isinstance(judge, Judge) else load_judge(judge, "cpu")
    result.to(resolve_device(device))
    return result, state_digest(result.net.state_dict())


def _read_judge(judge: Any, pictures: Sequence[Picture], layers: Sequence[str]) -> Features:
    from calcarine.evaluation.networks.judges import JUDGE_SIZE
    from calcarine.stimuli.images import resize_images

    small = [resize_images(as_uint8(picture)[None], JUDGE_SIZE)[0] for picture in pictures]
    reading = judge.read(np.stack(small))
    result = dict(reading.layers, probabilities=reading.probabilities)
    return {name: result[name] for name in layers}


# Weight files of each network; CLIP is a folder.
_FILES: dict[str, tuple[WeightsFile, ...]] = {
    "alexnet": (files.ALEXNET,),
    "inception": (files.INCEPTION,),
    "efficientnet_b1 V1": (files.EFFICIENTNET_V1,),
    "efficientnet_b1 V2": (files.EFFICIENTNET_V2,),
    "swav": (files.SWAV,),
    "vit_h_14": (files.VIT_H_14,),
    "fid": (files.FID_INCEPTION,),
    "lpips": (files.LPIPS, files.ALEXNET),
}


def missing_weights(networks: Iterable[str], store: WeightsStore) -> list[str]:
    """Return the titles of the networks whose weights are in none of the searched folders."""
    absent = []
    for name in dict.fromkeys(networks):
        try:
            if name == "clip":
                store.clip()
            for required in _FILES.get(name, ()):
                store.find(required)
        except MissingWeightsError:
            absent.append(KINDS[name].title)
    return absent


KINDS: dict[str, NetworkKind] = {
    "alexnet": NetworkKind("AlexNet", _build("alexnet", files.ALEXNET), run_hooked),
    "inception": NetworkKind(
        "Inception v3",
        _build(
            "inception_v3",
            files.INCEPTION,
            transform_input=True,
            aux_logits=False,
            init_weights=False,
        ),
        run_hooked,
    ),
    "efficientnet_b1 V1": NetworkKind(
        "EfficientNet-B1, IMAGENET1K_V1",
        _build("efficientnet_b1", files.EFFICIENTNET_V1),
        run_hooked,
    ),
    "efficientnet_b1 V2": NetworkKind(
        "EfficientNet-B1, IMAGENET1K_V2",
        _build("efficientnet_b1", files.EFFICIENTNET_V2),
        run_hooked,
    ),
    "swav": NetworkKind(
        "ResNet-50, SwAV", _build("resnet50", files.SWAV, "module.", strict=False), run_hooked
    ),
    "clip": NetworkKind("CLIP ViT-L/14", _load_clip, _run_clip),
    "vit_h_14": NetworkKind(
        "ViT-H/14, IMAGENET1K_SWAG_E2E_V1",
        _build("vit_h_14", files.VIT_H_14, image_size=518),
        _run_classes,
    ),
    "fid": NetworkKind("Inception of 2015", _load_fid, _run_fid),
    "lpips": NetworkKind("LPIPS, AlexNet, 0.1", _load_lpips, _run_lpips),
    "judge": NetworkKind("judge of calcarine", lambda store: (None, ""), run_hooked),
}
