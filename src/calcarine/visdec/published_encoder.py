"""Published checkpoints of MinD-Vis and Vis-Dec as an autoencoder of this package.

No code of a file is run. The authors' configuration is a pickled object and is not read; it is
rebuilt from the shapes of the weights.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from calcarine.checkpoints.pickles import read_checkpoint
from calcarine.diffusion.conditional import ModelNote
from calcarine.errors import DamagedFileError, SettingError
from calcarine.files import digest_file
from calcarine.visdec.encoder_storage import new_autoencoder, set_positions
from calcarine.visdec.fmri_autoencoder import AutoencoderConfig, FMRIAutoencoder
from calcarine.visdec.patches import sine_positions
from calcarine.visdec.published_unused import DECODER, beginnings, unused_notes

__all__ = [
    "PublishedEncoder",
    "encoder_in",
    "load_published_encoder",
    "named_weights",
]

_EMBEDDING = "patch_embed.proj.weight"
_CONTAINERS = ("model", "model_state_dict", "state_dict")
_DECODER = "decoder_"
_NORM_EPS = 1e-5
"""Epsilon of the layer norms in both published systems, whose code keeps torch's default."""


@dataclass(frozen=True, eq=False)
class PublishedEncoder:
    """Content of a published file.

    Attributes
    ----------
    autoencoder : FMRIAutoencoder
        In float32, on the CPU, in evaluation mode.
    config : AutoencoderConfig
        Rebuilt from shapes, except the numbers of heads and the epsilon of the layer norms.
    kind : {"pretrained", "finetuned"}
        A masked autoencoder, or the encoder within a finetuned latent diffusion model.
    has_decoder : bool
        False if the file holds an encoder only; the decoder of ``autoencoder`` is then new and
        untrained, with the published sizes.
    epoch : int or None
        Epoch of the training, if the file has it.
    positions : {"sine", "other"}
        "other" if they are not the fixed sines (learned, or interpolated from another length);
        they are kept, see :func:`calcarine.visdec.encoder_storage.set_positions`.
    prefix : str
        Start of the names of the encoder's weights in the file.
    dropped : mapping of str to int
        Number of weights of the file that were not used, by the start of their names.
    digest : str
        SHA-256 of the file.
    names : tuple of str
        Names in the file of the weights that were used.
    notes : tuple of str
        A sentence about weights of other parts of the published model, which are not needed, and
        one about weights with unknown names; empty if all weights of the file are used.
    """

    autoencoder: FMRIAutoencoder
    config: AutoencoderConfig
    kind: Literal["pretrained", "finetuned"]
    has_decoder: bool
    epoch: int | None
    positions: Literal["sine", "other"]
    prefix: str
    dropped: Mapping[str, int]
    digest: str
    names: tuple[str, ...]
    notes: tuple[str, ...]


def load_published_encoder(
    path: str | Path, *, heads: int = 16, decoder_heads: int = 16, prefix: str | None = None
) -> PublishedEncoder:
    """Read a checkpoint of MinD-Vis or Vis-Dec.

    Parameters
    ----------
    path : str or Path
        Either ``{"model": weights, "epoch", "config", ...}`` of a masked autoencoder,
        ``{"model_state_dict": weights, ...}`` of a finetuned latent diffusion model, the weights
        alone, or safetensors. Names may begin with ``module.``.
    heads, decoder_heads : int
        Numbers of heads, which shapes do not determine; both published systems have 16.
    prefix : str, optional
        Start of the encoder's names, such as ``cond_stage_model.mae.``; by default what precedes
        ``patch_embed.proj.weight``.

    Returns
    -------
    PublishedEncoder

    Raises
    ------
    CalcarineError
        If the file is missing, truncated, of a format before torch 1.6, or not such a checkpoint;
        or if weights are missing, of the wrong shape, or not finite.

    Warns
    -----
    ModelNote
        If the file holds weights with unknown names, which are not used.

    Notes
    -----
    Source: files of Chen et al. (2023, MinD-Vis) and Sun et al. (2023, Vis-Dec).

    Examples
    --------
    >>> from calcarine.visdec import load_published_encoder
    >>> published = load_published_encoder("pretrain_metafile/checkpoint.pth")  # doctest: +SKIP
    """
    path = Path(path)
    found, unknown = encoder_in(read_checkpoint(path), path, heads, decoder_heads, prefix)
    if unknown:
        warnings.warn(unknown, ModelNote, stacklevel=2)
    return found


def encoder_in(
    content: Mapping[str, Any],
    path: Path,
    heads: int,
    decoder_heads: int = 16,
    prefix: str | None = None,
) -> tuple[PublishedEncoder, str | None]:
    """Return the encoder in the content of a checkpoint, and the note on unknown names."""
    container, weights = named_weights(content, path)
    start = _prefix(weights, path) if prefix is None else prefix
    own = {
        key.removeprefix(start): value
        for key, value in weights.items()
        if key[: len(start)] == start
    }
    has_decoder = any(key.startswith(_DECODER) for key in own)
    config = _config(own, path, heads, decoder_heads)
    autoencoder = new_autoencoder(config)
    expected = _expected(autoencoder, has_decoder)
    _check(own, expected, path, start)
    positions = _fill(autoencoder, {key: own[key].float() for key in expected}, own)
    finetuned = container == "model_state_dict" or start.startswith("cond_stage_model")
    epoch = content.get("epoch")
    dropped = set(weights) - {start + key for key in expected}
    others = [each for each in _prefixes(weights) if each not in (start, "")]
    left_out = {re.escape(other): "another encoder" for other in others}
    if not has_decoder:  # some files have its mask token
        left_out[re.escape(start) + DECODER] = "the decoder"
    known, unknown = unused_notes(dropped, len(weights), path, start, left_out)
    found = PublishedEncoder(
        autoencoder=autoencoder.eval(),
        config=config,
        kind="finetuned" if finetuned else "pretrained",
        has_decoder=has_decoder,
        epoch=epoch if type(epoch) is int else None,
        positions=positions,
        prefix=start,
        dropped=beginnings(dropped),
        digest=digest_file(path),
        names=tuple(start + key for key in expected),
        notes=tuple(note for note in (known, unknown) if note),
    )
    return found, unknown


def named_weights(
    content: Mapping[str, Any], path: Path
) -> tuple[str | None, dict[str, torch.Tensor]]:
    """Return the part of the file that holds the weights, and the weights."""
    inside = next((key for key in _CONTAINERS if isinstance(content.get(key), Mapping)), None)
    named = content if inside is None else content[inside]
    weights = {
        str(key).removeprefix("module."): value.detach()
        for key, value in named.items()
        if isinstance(value, torch.Tensor)
    }
    if not weights:
        raise DamagedFileError(f"{path} holds no named weights, so it is not a published encoder.")
    return inside, weights


def _prefixes(weights: Mapping[str, torch.Tensor]) -> list[str]:
    """Return what precedes the names of patch embeddings of voxels, not of pictures."""
    return [
        key.removesuffix(_EMBEDDING)
        for key, value in weights.items()
        if re.search(rf"(^|\.){re.escape(_EMBEDDING)}$", key) and value.ndim == 3
    ]


def _prefix(weights: Mapping[str, torch.Tensor], path: Path) -> str:
    """Return what precedes the names of the only encoder."""
    starts = _prefixes(weights)
    if not starts:
        raise DamagedFileError(
            f"{path} is not an encoder of voxels: none of its {len(weights)} weights is a "
            f"{_EMBEDDING} of three axes."
        )
    if len(starts) > 1:
        raise SettingError(
            f"{path} holds {len(starts)} encoders, named {', '.join(map(repr, starts))}; give one "
            "of these as prefix."
        )
    return starts[0]


def _config(
    own: Mapping[str, torch.Tensor], path: Path, heads: int, decoder_heads: int
) -> AutoencoderConfig:
    """Rebuild the configuration; missing weights have published sizes here and raise later."""
    usual = AutoencoderConfig()

    def size(key: str, axis: int, default: int) -> int:
        length = own[key].shape[axis] if key in own and own[key].ndim > axis else 0
        return length or default

    def depth(blocks: str) -> int:
        return len({key.split(".")[1] for key in own if re.match(rf"{blocks}\.\d+\.", key)})

    dim = size(_EMBEDDING, 0, usual.dim)
    head_width = usual.decoder_dim // usual.decoder_heads
    decoder_dim = size("decoder_embed.weight", 0, decoder_heads * head_width)
    for name, width, number in (
        ("heads", dim, heads),
        ("decoder_heads", decoder_dim, decoder_heads),
    ):
        if number < 1 or width % number:
            raise SettingError(
                f"{path} has tokens of width {width}, which {number} heads do not divide; give the "
                f"number it was trained with as {name}."
            )
    return AutoencoderConfig(
        n_patches=max(1, size("pos_embed", 1, usual.n_patches + 1) - 1),
        patch=size(_EMBEDDING, 2, usual.patch),
        dim=dim,
        depth=depth("blocks") or usual.depth,
        heads=heads,
        mlp_ratio=_ratio(size("blocks.0.mlp.fc1.weight", 0, dim), dim),
        decoder_dim=decoder_dim,
        decoder_depth=depth("decoder_blocks") or usual.decoder_depth,
        decoder_heads=decoder_heads,
        norm_eps=_NORM_EPS,
    )


def _ratio(hidden: int, dim: int) -> float:
    """Return a ratio that gives ``hidden`` again; division may round down."""
    ratio = hidden / dim
    return ratio if int(dim * ratio) == hidden else math.nextafter(ratio, math.inf)


def _theirs(key: str) -> str:
    """Return the published name of a weight."""
    return key.removeprefix("encoder.").replace("patch_embed.", "patch_embed.proj.")


def _expected(autoencoder: FMRIAutoencoder, has_decoder: bool) -> dict[str, tuple[int, ...]]:
    """Return the published names and shapes of all weights that the file must hold."""
    c = autoencoder.config
    shapes = {
        _theirs(key): tuple(value.shape)
        for key, value in autoencoder.state_dict().items()
        if has_decoder or key.startswith("encoder.")
    }
    # Published as a convolution over voxels with a stride of its width: a linear layer.
    shapes[_EMBEDDING] = (c.dim, 1, c.patch)
    shapes["pos_embed"] = (1, c.n_patches + 1, c.dim)
    if has_decoder:
        shapes["decoder_pos_embed"] = (1, c.n_patches + 1, c.decoder_dim)
    return shapes


def _check(
    own: Mapping[str, torch.Tensor],
    expected: Mapping[str, tuple[int, ...]],
    path: Path,
    start: str,
) -> None:
    """Raise unless all weights exist, have the right shape, and are finite."""
    missing = [key for key in expected if key not in own]
    if missing:
        raise DamagedFileError(
            f"{path} lacks {start}{missing[0]} ({len(missing)} of {len(expected)} weights are "
            "missing); copy it again, or use a file with the whole encoder."
        )
    for key, shape in expected.items():
        value = own[key]
        if tuple(value.shape) != shape:
            raise DamagedFileError(
                f"{path} is another network: {start}{key} has shape {tuple(value.shape)} where "
                f"{shape} follows from its other weights."
            )
        plain = value.is_floating_point() and value.is_cpu and value.layout is torch.strided
        if not (plain and bool(torch.isfinite(value.float()).all())):
            raise DamagedFileError(
                f"{path} holds values of {start}{key} that are not finite; copy it again."
            )


def _fill(
    autoencoder: FMRIAutoencoder, state: dict[str, torch.Tensor], own: Mapping[str, torch.Tensor]
) -> Literal["sine", "other"]:
    """Load published weights and positions; return the kind of the positions."""
    tables = [autoencoder.encoder.positions, autoencoder.decoder_positions]
    same = True
    for place, key in enumerate(("pos_embed", "decoder_pos_embed")):
        if key not in state:
            continue
        table = state.pop(key)[0]
        # Sines may be stored in half precision.
        allowed = 1e-5 + (torch.finfo(own[key].dtype).eps if own[key].element_size() < 4 else 0.0)
        sines = sine_positions(len(table) - 1, table.shape[1])
        if float((table - sines).abs().max()) > allowed:
            tables[place], same = table, False
    state[_EMBEDDING] = state[_EMBEDDING].squeeze(1)
    autoencoder.load_state_dict(
        {key: state.get(_theirs(key), value) for key, value in autoencoder.state_dict().items()}
    )
    if same:
        return "sine"
    set_positions(autoencoder, *tables)
    return "other"
