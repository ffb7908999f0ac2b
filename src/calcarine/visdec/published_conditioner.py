"""Published fine-tuned models of MinD-Vis and Vis-Dec as conditioner and U-Net weights."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from calcarine.checkpoints.pickles import read_checkpoint
from calcarine.checkpoints.single_file import averaged, check_weights
from calcarine.diffusion.conditional import ModelNote, trainable_parts
from calcarine.errors import DamagedFileError, SettingError
from calcarine.visdec.conditioner import Conditioner
from calcarine.visdec.published_encoder import encoder_in, named_weights
from calcarine.visdec.published_unused import DECODER, unused_notes

__all__ = ["PublishedConditioner", "load_published_conditioner"]

_STAGE, _UNET, _FIRST = "cond_stage_model.", "model.diffusion_model.", "first_stage_model."
_ENCODER = _STAGE + "mae."
_TIME = _UNET + "time_embed_condtion."  # the authors' spelling
_WIDTHS = {"tokens": f"{_STAGE}channel_mapper.1.weight", "width": f"{_STAGE}dim_mapper.weight"}
_OURS = {
    f"{_STAGE}channel_mapper.": "mix.",
    f"{_STAGE}dim_mapper.": "to_width.",
    f"{_TIME}0.": "time.0.",
    f"{_TIME}1.": "time.1.",
    f"{_TIME}2.": "time.3.",
}
# The encoder of a conditioner neither masks nor decodes, but some files have these weights.
_IDLE = ("mask_token", "decoder_")
_LEFT_OUT = {re.escape(_ENCODER) + DECODER: "the decoder"}
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True, eq=False)
class PublishedConditioner:
    """Content of a published fine-tuned file.

    Attributes
    ----------
    conditioner : Conditioner
        In float32, on the CPU, in evaluation mode; without class token, as published.
    unet, first_stage : dict of str to tensor
        U-Net and autoencoder in the original layout, without the layers of the time condition;
        empty if the file has none. Averaged weights are used if there are any.
    betas : tensor, optional
        Noise schedule, if the file has it.
    positions : {"sine", "other"}
        See :class:`calcarine.visdec.published_encoder.PublishedEncoder`.
    digest : str
        SHA-256 of the file.
    path : Path
    notes : tuple of str
        As in :class:`calcarine.visdec.published_encoder.PublishedEncoder`.
    """

    conditioner: Conditioner
    unet: Tensors
    first_stage: Tensors
    betas: torch.Tensor | None
    positions: Literal["sine", "other"]
    digest: str
    path: Path
    notes: tuple[str, ...]

    def unet_weights(self, model: Any) -> Tensors:
        """Return the weights of the U-Net for a diffusion model, with diffusers' names.

        Parameters
        ----------
        model : ConditionalDiffusion
            The model that was fine-tuned.

        Returns
        -------
        dict of str to tensor
            The weights that fine-tuning trains, and all others that differ from the model.

        Raises
        ------
        SettingError
            If the model has other widths, another autoencoder or another noise schedule.
        """
        self._check_model(model)
        if not self.unet:
            return {}
        from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

        weights = _converted(convert_ldm_unet_checkpoint, self.unet, model.unet, "U-Net", self.path)
        trained, own = set(trainable_parts(model.unet)), dict(model.unet.named_parameters())
        return {
            name: weight
            for name, weight in weights.items()
            if name in trained or not torch.equal(weight, own[name].detach().float().cpu())
        }

    def _check_model(self, model: Any) -> None:
        wide, known = self.conditioner.shape, (model.context_width, model.time_embed_dim)
        for what, mine, theirs in (
            ("contexts", wide["width"], known[0]),
            ("time conditions", wide["time_width"] or known[1], known[1]),
        ):
            if mine != theirs:
                raise SettingError(
                    f"{self.path} makes {what} of width {mine}, and the diffusion model "
                    f"{model.name} takes {theirs}; name the one it was fine-tuned from as "
                    "visdec.model."
                )
        betas = model.scheduler.betas.float()
        if self.betas is not None and not (
            self.betas.shape == betas.shape and torch.allclose(self.betas.float(), betas, rtol=1e-3)
        ):
            raise SettingError(
                f"{self.path} was fine-tuned with another noise schedule than that of "
                f"{model.name}; name the model it was fine-tuned from as visdec.model."
            )
        if self.first_stage:
            self._check_first_stage(model)

    def _check_first_stage(self, model: Any) -> None:
        """Raise unless the autoencoder, which is not trained, is that of the model."""
        from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

        def convert(state: Tensors, config: Any) -> Tensors:
            codes = {k.removeprefix(_FIRST): v for k, v in state.items() if "quantize." in k}
            rest = {k: v for k, v in state.items() if "quantize." not in k and ".loss." not in k}
            return {**convert_ldm_vae_checkpoint(rest, config), **codes}

        weights = _converted(convert, self.first_stage, model.vae, "autoencoder", self.path, True)
        for name, own in model.vae.named_parameters():
            if not torch.allclose(weights[name], own.detach().float().cpu(), atol=1e-3, rtol=1e-2):
                raise SettingError(
                    f"The autoencoder in {self.path} is not that of {model.name} ({name} differs); "
                    "name the model it was fine-tuned from as visdec.model."
                )


def load_published_conditioner(path: str | Path, *, heads: int = 16) -> PublishedConditioner:
    """Read a fine-tuned latent diffusion model of MinD-Vis or Vis-Dec.

    Parameters
    ----------
    path : str or Path
        ``{"model_state_dict": weights, "config", "state"}``, the weights alone, or safetensors;
        ``cond_stage_model.*`` holds the fMRI encoder and the layers from its tokens to contexts.
    heads : int
        Number of heads of the encoder, which shapes do not determine.

    Returns
    -------
    PublishedConditioner

    Raises
    ------
    CalcarineError
        If the file is missing, damaged or another one, or if weights of the conditioner are
        missing, unknown, of the wrong shape, or not finite.

    Warns
    -----
    ModelNote
        If the file holds other weights with unknown names, which are not used.

    Notes
    -----
    Source: files of Chen et al. (2023, MinD-Vis) and Sun et al. (2023, Vis-Dec). No code of the
    file is run; the configuration is rebuilt from shapes.

    Examples
    --------
    >>> from calcarine.visdec import load_published_conditioner
    >>> published = load_published_conditioner("finetuned.pth")  # doctest: +SKIP
    """
    path = Path(path)
    content = read_checkpoint(path)
    encoder, _ = encoder_in(content, path, heads)
    if encoder.prefix != _ENCODER:
        raise SettingError(
            f"{path} holds an encoder and no conditioner, with names that begin with {_ENCODER}; "
            "give it as visdec.pretrain.start."
        )
    stored = named_weights(content, path)[1]
    weights = averaged(stored, _UNET)
    conditioner, names = _conditioner(encoder.autoencoder.encoder, weights, path)
    _refuse_strange(weights, {*encoder.names, *names}, path)
    unet = {k: v for k, v in weights.items() if k.startswith(_UNET) and not k.startswith(_TIME)}
    first = {k: v for k, v in weights.items() if k.startswith(_FIRST)}
    used = {name for name in encoder.names if not name.removeprefix(_ENCODER).startswith(_IDLE)}
    unused = set(stored) - {*used, *names, *unet, *first, "betas"}
    known, unknown = unused_notes(unused, len(stored), path, _ENCODER, _LEFT_OUT)
    if unknown:
        warnings.warn(unknown, ModelNote, stacklevel=2)
    return PublishedConditioner(
        conditioner.eval(),
        unet,
        first,
        weights.get("betas"),
        encoder.positions,
        encoder.digest,
        path,
        tuple(note for note in (known, unknown) if note),
    )


def _conditioner(
    encoder: Any, weights: Mapping[str, torch.Tensor], path: Path
) -> tuple[Conditioner, list[str]]:
    """Build a conditioner from shapes and load its weights; return it and their names."""
    if not any(key.startswith(f"{_STAGE}channel_mapper.") for key in weights):
        raise SettingError(
            f"{path} lacks {_STAGE}channel_mapper, so its conditioner pools all patches into one "
            "token (global_pool), which is not supported; use one that keeps the patches."
        )

    def size(key: str, axis: int = 0) -> int:
        value = weights.get(key)
        return int(value.shape[axis]) if value is not None and value.ndim > axis else 1

    timed = any(key.startswith(_TIME) for key in weights)
    with torch.random.fork_rng(devices=[]):
        conditioner = Conditioner(
            encoder,
            encoder.config.n_patches,
            size(_WIDTHS["tokens"]),
            size(_WIDTHS["width"]),
            size(f"{_TIME}2.weight") if timed else None,
            class_token=False,
        )
    state = conditioner.state_dict()
    wanted = {
        theirs + key.removeprefix(ours): key
        for theirs, ours in _OURS.items()
        for key in state
        if key.startswith(ours)
    }
    shapes = {key: tuple(state[own].shape) for key, own in wanted.items()}
    check_weights(str(path), "conditioner", weights, shapes, "its other weights need")
    for key in wanted:
        if not bool(torch.isfinite(weights[key].float()).all()):
            raise DamagedFileError(
                f"{path} holds values of {key} that are not finite; copy it again."
            )
    conditioner.load_state_dict(
        {**state, **{own: weights[key].float() for key, own in wanted.items()}}
    )
    return conditioner, list(wanted)


def _refuse_strange(weights: Mapping[str, torch.Tensor], known: set[str], path: Path) -> None:
    """Raise if there are unknown weights, which belong to another kind of conditioner."""
    strange = sorted(
        key
        for key in weights
        if key.startswith((_STAGE, _TIME))
        and key not in known
        and not key.removeprefix(_ENCODER).startswith(_IDLE)
    )
    if strange:
        raise DamagedFileError(
            f"{path} is another model: the conditioner of MinD-Vis and Vis-Dec has no weight "
            f"{strange[0]} ({len(strange)} such)."
        )


def _converted(
    convert: Any, state: Tensors, network: Any, part: str, path: Path, partly: bool = False
) -> Tensors:
    """Convert original names to diffusers' names, for exactly the weights of the network."""
    try:
        weights = convert(dict(state), dict(network.config))
    except (KeyError, AttributeError, IndexError, TypeError) as error:
        raise SettingError(
            f"{path} lacks weights of the {part} that the diffusion model has, or has another one; "
            "name the model it was fine-tuned from as visdec.model."
        ) from error
    shapes = {name: tuple(value.shape) for name, value in network.named_parameters()}
    check_weights(str(path), part, weights, shapes, "the diffusion model has")
    placed = {id(value) for name, value in weights.items() if name in shapes}
    strange = [] if partly else sorted(k for k, value in state.items() if id(value) not in placed)
    if strange:
        raise DamagedFileError(
            f"{path} is another model: the diffusion model's {part} has no weight {strange[0]} "
            f"({len(strange)} such)."
        )
    return {name: weights[name].float() for name in shapes}
