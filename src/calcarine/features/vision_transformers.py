"""Image embeddings of transformers' vision models as feature spaces: ``hf:NAME:LAYER:POOL``."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from calcarine.checkpoints import check_loaded, check_safetensors
from calcarine.devices import BatchSizes, resolve_device, tf32_products
from calcarine.diffusion.model_folder import download
from calcarine.errors import DamagedFileError, MissingFileError, SettingError, out_of_memory
from calcarine.files import digest_file, read_json

__all__ = ["EMBEDDING", "MINI", "POOLS", "VisionModel", "load_vision_model"]

EMBEDDING = "embedding"
"""The layer that is a model's own embedding of a picture."""

POOLS = ("class", "mean", "tokens")
"""What is taken of the tokens of a hidden state: the class token, the mean of patches, all."""

# By model type: class of transformers, tokens before those of patches.
_KINDS = {
    "clip": ("CLIPVisionModelWithProjection", 1),
    "clip_vision_model": ("CLIPVisionModelWithProjection", 1),
    "dinov2": ("Dinov2Model", 1),
    "dinov2_with_registers": ("Dinov2WithRegistersModel", 1),
    "siglip": ("SiglipVisionModel", 0),
    "siglip_vision_model": ("SiglipVisionModel", 0),
    "vit": ("ViTModel", 1),
    "vit_mae": ("ViTMAEModel", 1),
}
MINI = Path(__file__).parents[1] / "visdec" / "mini_mae"
"""The bundled ViT-MAE."""

_CONFIG, _PREPARE = "config.json", "preprocessor_config.json"
_PREPARED_AT_ONCE = 64
# Weights of other parts of the models whose vision part is loaded.
_OTHER_PARTS = (
    *("text_model.", "text_projection.", "logit_scale", "logit_bias"),
    *("decoder.", "classifier.", "pooler."),
)


@dataclass(frozen=True, eq=False)
class VisionModel:
    """A vision transformer with the preprocessing that it was trained with.

    Attributes
    ----------
    source : str
        Folder or hub id.
    network : torch.nn.Module
    processor : object
        Image processor of transformers.
    before_patches : int
        Number of tokens before those of patches: the class token and registers.
    digest : str
        Hash of weights, configuration and preprocessing.

    Examples
    --------
    >>> import calcarine as ca
    >>> from calcarine.features import load_vision_model
    >>> seen = ca.StimulusSet.from_scenes(seed=0, indices=range(2))
    >>> model = load_vision_model("mini", device="cpu")
    >>> model.features(seen.images(), "-1", "tokens").shape  # of the last hidden state
    (2, 65, 128)
    """

    source: str
    network: Any
    processor: Any
    before_patches: int
    digest: str
    batch_sizes: BatchSizes = field(default_factory=BatchSizes, repr=False)

    @property
    def preparation(self) -> str:
        """The preprocessing of pictures, in one line."""
        about = self.processor.to_dict()
        named = ("do_resize", "size", "do_center_crop", "crop_size", "resample")
        shown = {name: about[name] for name in (*named, "image_mean", "image_std") if name in about}
        return f"{type(self.processor).__name__}: {json.dumps(shown, default=str)}"

    @torch.inference_mode()
    def features(
        self, images: NDArray[np.uint8], layer: str = EMBEDDING, pool: str | None = None
    ) -> NDArray[np.float32]:
        """Return features of pictures.

        Parameters
        ----------
        images : uint8 array of shape (n, height, width, 3)
            They are prepared as the model's own image processor does.
        layer : str
            ``"embedding"``: the projected embedding of CLIP, the pooled one of SigLIP, the class
            token of DINOv2 and ViT after the last norm, the mean of patches of ViT-MAE. Or the
            number of a hidden state: 0 is the input of the first block, 1 its output, -1 the
            output of the last block.
        pool : {"class", "mean", "tokens"}, optional
            Of a hidden state: the class token, the mean of patches, or all tokens. By default the
            class token, or the mean where there is none.

        Returns
        -------
        float32 array of shape (n, width), or (n, tokens, width)

        Raises
        ------
        SettingError
            If the model has no such layer, or no class token.
        """
        number = self.check_layer(layer, pool)
        pool = pool or ("class" if self.before_patches else "mean")
        device = next(self.network.parameters()).device

        def extract(rows: slice) -> NDArray[np.float32]:
            pixels = self.processor(images=list(images[rows]), return_tensors="pt")["pixel_values"]
            with tf32_products(False):
                output = self._run(pixels.to(device), hidden=number is not None)
            found = self._embedding(output) if number is None else output.hidden_states[number]
            if number is not None and pool == "class":
                found = found[:, 0]
            elif number is not None and pool == "mean":
                found = found[:, self.before_patches :].mean(1)
            return np.asarray(found.float().cpu().numpy())

        done = self.batch_sizes.run(
            extract, len(images), _PREPARED_AT_ONCE, "image embeddings", images.shape[1:3]
        )
        return np.concatenate(list(done))

    def _run(self, pixels: torch.Tensor, hidden: bool) -> Any:
        options: dict[str, Any] = {"output_hidden_states": hidden}
        if self.network.config.model_type == "vit_mae":
            # Nothing is masked (see load_vision_model), and this keeps the order of the patches.
            n = self.network.embeddings.patch_embeddings.num_patches
            options["noise"] = torch.arange(n, device=pixels.device).expand(len(pixels), n) / n
        return self.network(pixels, **options)

    def _embedding(self, output: Any) -> torch.Tensor:
        for name in ("image_embeds", "pooler_output"):
            found = getattr(output, name, None)
            if found is not None:
                return torch.as_tensor(found)
        last = output.last_hidden_state
        if self.network.config.model_type == "vit_mae":
            return torch.as_tensor(last[:, self.before_patches :].mean(1))
        return torch.as_tensor(last[:, 0])

    def check_layer(self, layer: str, pool: str | None) -> int | None:
        """Return the number of a hidden state, None for the embedding; see `features`.

        Raises
        ------
        SettingError
            If the model has no such layer, or no class token.
        """
        if layer == EMBEDDING:
            if pool is not None:
                raise SettingError(
                    f"The embedding of {self.source} is pooled already; give the number of a "
                    f"layer with the pool '{pool}', such as -1."
                )
            return None
        count = int(self.network.config.num_hidden_layers)
        if not re.fullmatch(r"-?\d+", layer) or not -count - 1 <= int(layer) <= count:
            raise SettingError(
                f"{self.source} has no layer '{layer}'; choose {EMBEDDING}, or a number from "
                f"{-count - 1} to {count}."
            )
        if pool is not None and pool not in POOLS:
            raise SettingError(f"There is no pool '{pool}'; choose {', '.join(POOLS)}.")
        if pool == "class" and not self.before_patches:
            raise SettingError(f"{self.source} has no class token; choose the pool mean or tokens.")
        return int(layer)


def load_vision_model(source: str | Path, device: str | torch.device | None = None) -> VisionModel:
    """Load the vision part of a model of transformers, with its image processor.

    Parameters
    ----------
    source : str or Path
        ``"mini"``, the bundled ViT-MAE that was trained on scenes and digits of 64 px; a folder
        with ``config.json``, ``preprocessor_config.json`` and safetensors, or a hub id such
        as ``openai/clip-vit-large-patch14`` or ``facebook/dinov2-base``. CLIP, SigLIP (also those
        of version 2 with a fixed resolution), DINOv2, ViT and ViT-MAE are known.
    device : str or torch.device, optional
        See :func:`calcarine.devices.resolve_device`; by default a GPU if there is one. The model
        computes in float32.

    Returns
    -------
    VisionModel

    Raises
    ------
    CalcarineError
        If there is no such model, it is of another kind, or its files do not fit together.

    Examples
    --------
    >>> import calcarine as ca
    >>> from calcarine.features import load_vision_model
    >>> seen = ca.StimulusSet.from_scenes(seed=0, indices=range(2))
    >>> model = load_vision_model("mini", device="cpu")
    >>> model.features(seen.images(), "-1", "mean").shape  # the mean over patches
    (2, 128)
    """
    import transformers
    from transformers.utils import logging

    target = resolve_device(device)
    place = _folder(source)
    about = _config(place)
    kind = str(about.get("model_type"))
    if kind not in _KINDS:
        raise SettingError(
            f"{source} is a model of the type '{kind}'; choose one of the types "
            f"{', '.join(sorted(_KINDS))}."
        )
    weights = sorted(place.glob("*.safetensors"))
    if not weights:
        raise MissingFileError(
            f"{place} has no safetensors; copy the complete model, or convert its weights."
        )
    for file in weights:
        check_safetensors(file)
    name, before = _KINDS[kind]
    logging.disable_progress_bar()
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # check_loaded says what matters of the weights
    try:
        network, info = getattr(transformers, name).from_pretrained(
            place,
            config=_vision_config(place),
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # check_loaded refuses them
            # Published weights of ViT have no pooler.
            **({"add_pooling_layer": False} if kind == "vit" else {}),
        )
        processor = transformers.AutoImageProcessor.from_pretrained(place, local_files_only=True)
    except Exception as error:
        if out_of_memory(error):
            raise
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise DamagedFileError(f"The model in {place} could not be loaded: {lines[0]}") from error
    finally:
        logging.set_verbosity(verbosity)
    check_loaded(info, place, unused=_OTHER_PARTS)
    if kind == "vit_mae":
        network.config.mask_ratio = 0.0
        network.embeddings.config.mask_ratio = 0.0
    before += int(getattr(network.config, "num_register_tokens", 0) or 0)
    total = hashlib.sha256()
    for file in [*weights, place / _CONFIG, place / _PREPARE]:
        total.update(bytes.fromhex(digest_file(file)))
    return VisionModel(
        str(source),
        network.eval().requires_grad_(False).to(target),
        processor,
        before,
        total.hexdigest(),
    )


def _folder(source: str | Path) -> Path:
    """Return the folder of a model; download it if it is a hub id that is not in the cache."""
    place = MINI if str(source) == "mini" else Path(source)
    if not place.is_dir():
        parts = str(source).split("/")
        if len(parts) != 2 or not all(parts) or str(source).startswith("."):
            raise MissingFileError(
                f"There is no vision model at '{source}': give mini, a folder, or a hub id such as "
                "facebook/dinov2-base."
            )
        place = download(
            str(source), [_CONFIG, _PREPARE, "*.safetensors", "*.safetensors.index.json"]
        )
    for name in (_CONFIG, _PREPARE):
        if not (place / name).is_file():
            raise MissingFileError(f"{place} has no {name}; copy the complete model.")
    return place


def _vision_config(place: Path) -> Any:
    """Return the configuration of the vision part of a model."""
    import transformers

    whole = transformers.AutoConfig.from_pretrained(place, local_files_only=True)
    vision = getattr(whole, "vision_config", whole)
    if hasattr(whole, "projection_dim"):  # of text and pictures alike
        vision.projection_dim = whole.projection_dim
    return vision


def _config(place: Path) -> dict[str, Any]:
    try:
        about = read_json(place / _CONFIG)
    except (OSError, ValueError) as error:
        raise DamagedFileError(f"{place / _CONFIG} is not valid JSON; copy it again.") from error
    if not isinstance(about, dict):
        raise DamagedFileError(f"{place / _CONFIG} is not a configuration; copy it again.")
    return about
