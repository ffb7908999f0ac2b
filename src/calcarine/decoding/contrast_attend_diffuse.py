"""Vis-Dec: contrast, attend, diffuse (Sun et al. 2023).

Each phase is a function that trains in a folder, continues there when it is called again, and
returns what the next one begins from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from calcarine.datasets import BrainDataset, Responses, Split
from calcarine.errors import CalcarineError

if TYPE_CHECKING:
    import torch

    from calcarine.diffusion.conditional import ConditionalDiffusion
    from calcarine.networks.adaptation import AdaptationConfig
    from calcarine.networks.augment import Augmentation
    from calcarine.networks.conditioner import Conditioner
    from calcarine.networks.cross_modal import GuidanceConfig
    from calcarine.networks.fmri_autoencoder import AutoencoderConfig, FMRIAutoencoder
    from calcarine.networks.image_autoencoder import ImageAutoencoder
    from calcarine.networks.losses import ContrastConfig
    from calcarine.networks.pairs import Trials
    from calcarine.networks.patches import PatchedVectors
    from calcarine.networks.training import TrainingConfig

_SEED_STEP = 7919


@dataclass(frozen=True)
class VoxelScale:
    """Mean and SD of each voxel, learned from training responses.

    Attributes
    ----------
    mean, scale : float32 array of shape (voxel,)
    """

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]

    @classmethod
    def of(cls, vectors: NDArray[Any]) -> VoxelScale:
        """From vectors (n, voxel); voxels that do not vary are only centred."""
        mean, spread = vectors.mean(0, dtype=np.float64), vectors.std(0, dtype=np.float64)
        flat = spread <= 1e-12 * np.maximum(np.abs(mean), 1e-30)
        scale = np.where(flat, 1.0, spread)
        return cls(mean.astype(np.float32), scale.astype(np.float32))

    def apply(self, vectors: NDArray[Any]) -> NDArray[np.float32]:
        """Vectors in SDs from the mean."""
        if vectors.shape[-1] != len(self.mean):
            raise CalcarineError(
                f"Responses have {vectors.shape[-1]} voxels, and the network was trained on "
                f"{len(self.mean)}; give those of the same region."
            )
        scaled: NDArray[np.float32] = ((vectors - self.mean) / self.scale).astype(np.float32)
        return scaled


@dataclass(frozen=True)
class TrainingStimuli:
    """Training responses of one split, with the stimuli that validate.

    Attributes
    ----------
    responses : Responses
        Single trials of training stimuli, scaled.
    train, validation : tuple of str
        Which stimuli train and which validate; test stimuli are in neither.
    scale : VoxelScale
        From the trials of the stimuli that train.
    """

    responses: Responses
    train: tuple[str, ...]
    validation: tuple[str, ...]
    scale: VoxelScale

    @classmethod
    def of(
        cls, dataset: BrainDataset, split: Split, roi: str, share: float, seed: int
    ) -> TrainingStimuli:
        """Carve a share of validation stimuli out of the training stimuli of a split."""
        from calcarine.networks.training import split_validation

        rows, held_out = split_validation(split.train, share, seed)
        train = tuple(split.train[i] for i in rows)
        responses = dataset.train(split, roi)
        inside = np.isin(responses.stimulus_ids, train)
        scale = VoxelScale.of(responses.data[inside])
        return cls(
            replace(responses, data=scale.apply(responses.data)),
            train,
            tuple(split.train[i] for i in held_out),
            scale,
        )

    def vectors(self, ids: Sequence[str]) -> NDArray[np.float32]:
        """Single trials of some of the stimuli, shape (trial, voxel)."""
        chosen = set(ids)
        rows = [i for i, name in enumerate(self.responses.stimulus_ids) if name in chosen]
        return self.responses.data[rows]


def contrast(
    folder: Path,
    train: PatchedVectors,
    validation: PatchedVectors,
    shape: AutoencoderConfig,
    training: TrainingConfig,
    *,
    config: ContrastConfig | None = None,
    augmentation: Augmentation | None = None,
    start: FMRIAutoencoder | None = None,
    **options: Any,
) -> FMRIAutoencoder:
    """First phase: contrastive masked pre-training on unlabelled vectors (section 3.1).

    Parameters
    ----------
    folder : Path
        Of the training; the same folder continues.
    train, validation : PatchedVectors
    shape : AutoencoderConfig
    start : FMRIAutoencoder, optional
        Weights to begin from; random ones by the training's seed otherwise.
    **options
        Of :func:`calcarine.networks.training.train`: provenance, progress, say.
    """
    from calcarine.networks.pretraining import ContrastPretraining
    from calcarine.networks.storage import new_autoencoder
    from calcarine.networks.training import train as run

    autoencoder = start or new_autoencoder(shape, training.seed)
    task = ContrastPretraining(autoencoder, train, validation, config, augmentation)
    run(task, training, folder, **options)
    return task.autoencoder


def attend(
    folder: Path,
    autoencoder: FMRIAutoencoder,
    image: ImageAutoencoder,
    stimuli: TrainingStimuli,
    pictures: Callable[[Sequence[str]], NDArray[np.uint8]],
    training: TrainingConfig,
    *,
    config: GuidanceConfig | None = None,
    augmentation: Augmentation | None = None,
    decoder_depth: int | None = None,
    trials: Trials = "random",
    **options: Any,
) -> FMRIAutoencoder:
    """Second phase: an image autoencoder guides the fMRI encoder (section 3.2).

    Parameters
    ----------
    autoencoder : FMRIAutoencoder
        From the first phase.
    pictures : callable
        Gives uint8 pictures (n, height, width, 3) of stimuli.
    decoder_depth : int, optional
        Blocks of the fMRI decoder that are kept (6 of 8 in the paper).
    trials : {"one", "mean", "random"}
        See :class:`calcarine.networks.pairs.StimulusVectors`.
    **options
        As of :func:`contrast`.
    """
    import torch

    from calcarine.networks.cross_modal import (
        CrossModalGuidance,
        CrossModalNetwork,
        GuidanceConfig,
    )
    from calcarine.networks.pairs import StimulusVectors
    from calcarine.networks.training import train as run

    config = config or GuidanceConfig()
    _cut_decoder(autoencoder, decoder_depth)
    with torch.random.fork_rng():
        torch.manual_seed(training.seed + _SEED_STEP)
        network = CrossModalNetwork(autoencoder, image, config.layers, config.direction)
    network.freeze_unused(config)
    patch = autoencoder.config.patch
    task = CrossModalGuidance(
        network,
        StimulusVectors(stimuli.responses, stimuli.train, patch, trials=trials),
        StimulusVectors(stimuli.responses, stimuli.validation, patch, trials=trials),
        image.pixels(pictures(stimuli.train)),
        image.pixels(pictures(stimuli.validation)),
        config,
        augmentation,
    )
    run(task, training, folder, **options)
    return network.fmri


def _cut_decoder(autoencoder: FMRIAutoencoder, depth: int | None) -> None:
    if depth is None:
        return
    if not 1 <= depth <= autoencoder.config.decoder_depth:
        raise CalcarineError(
            f"The fMRI decoder has {autoencoder.config.decoder_depth} blocks, so {depth} of them "
            "cannot be kept."
        )
    autoencoder.decoder_blocks = autoencoder.decoder_blocks[:depth]
    autoencoder.config = replace(autoencoder.config, decoder_depth=depth)


def diffuse(
    folder: Path,
    autoencoder: FMRIAutoencoder,
    model: ConditionalDiffusion,
    stimuli: TrainingStimuli,
    latents: Callable[[Sequence[str]], NDArray[np.float32]],
    training: TrainingConfig,
    *,
    config: AdaptationConfig | None = None,
    augmentation: Augmentation | None = None,
    trials: Trials = "random",
    **options: Any,
) -> BrainConditioning:
    """Third phase: the diffusion model learns to listen to the fMRI encoder (section 3.3).

    Trained are the conditioner and, of the U-Net, cross-attention and the norm before it. The
    model itself is as it was when this returns.

    Parameters
    ----------
    autoencoder : FMRIAutoencoder
        From the second phase, the first, or a new one.
    latents : callable
        Gives latents (n, channels, h, w) of stimuli on the scale that the U-Net sees.
    **options
        As of :func:`contrast`.
    """
    import torch

    from calcarine.diffusion.conditional import freeze_except, trainable_parts
    from calcarine.networks.adaptation import AdaptationConfig, DiffusionAdaptation
    from calcarine.networks.conditioner import Conditioner
    from calcarine.networks.pairs import StimulusVectors
    from calcarine.networks.training import train as run

    config = config or AdaptationConfig()
    patch = autoencoder.config.patch
    shown = StimulusVectors(stimuli.responses, stimuli.train, patch, trials=trials)
    held_out = StimulusVectors(stimuli.responses, stimuli.validation, patch, trials=trials)
    tokens = config.tokens or getattr(model, "context_shape", (77,))[0]
    with torch.random.fork_rng():
        torch.manual_seed(training.seed + 2 * _SEED_STEP)
        conditioner = Conditioner(
            autoencoder.encoder,
            shown.n_patches,
            tokens,
            model.context_width,
            model.time_embed_dim if config.time_condition else None,
        )
    begin = _empty_context(model, tokens) if config.begin == "empty" else None
    if begin is not None:
        conditioner.begin_at(begin)
    if not config.drop_condition:  # nothing would ever train them
        for parameter in (conditioner.empty, conditioner.empty_time):
            if parameter is not None:
                parameter.requires_grad_(False)
    names = trainable_parts(model.unet)
    with _lent(model, names, config.time_condition):
        freeze_except(model.unet, names)
        task = DiffusionAdaptation(
            conditioner,
            model.unet,
            model.scheduler,
            shown,
            held_out,
            torch.from_numpy(latents(stimuli.train)),
            torch.from_numpy(latents(stimuli.validation)),
            config,
            augmentation,
        )
        run(task, training, folder, **options)
        unet = dict(model.unet.named_parameters())
        listening = {name: unet[name].detach().clone() for name in names}
    return BrainConditioning(conditioner.eval().requires_grad_(False), listening, stimuli.scale)


def _empty_context(model: ConditionalDiffusion, tokens: int) -> torch.Tensor | None:
    """What the model takes for no condition, where it knows that for so many tokens."""
    import torch

    from calcarine.diffusion import LatentDiffusion

    if isinstance(model, LatentDiffusion) and model.context_shape[0] == tokens:
        return torch.from_numpy(model.embed_text([""]))
    return None


class BrainConditioning:
    """What the third phase gives: pictures under the condition of responses.

    Parameters
    ----------
    conditioner : Conditioner
    listening : dict of str to tensor
        The U-Net's weights that were trained.
    scale : VoxelScale
        Of the responses it was trained on.
    """

    def __init__(
        self, conditioner: Conditioner, listening: dict[str, torch.Tensor], scale: VoxelScale
    ) -> None:
        self.conditioner = conditioner
        self.listening = listening
        self.scale = scale

    def condition(
        self, responses: NDArray[Any], batch_size: int = 64
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Context and time condition of responses (n, voxel), as they are measured.

        Each row gives what it would give alone.
        """
        import torch

        from calcarine.networks.patches import patch_vectors

        device = self.conditioner.empty.device
        patch = self.conditioner.encoder.config.patch
        contexts, times, scaled = [], [], self.scale.apply(responses)
        with torch.inference_mode():
            for begin in range(0, len(responses), batch_size):
                part = patch_vectors(scaled[begin : begin + batch_size], patch)
                context, time = self.conditioner(part.to(device))
                contexts.append(context.float().cpu().numpy())
                if time is not None:
                    times.append(time.float().cpu().numpy())
        return np.concatenate(contexts), np.concatenate(times) if times else None

    def generate(
        self,
        model: ConditionalDiffusion,
        responses: NDArray[Any],
        keys: Sequence[tuple[str, int]],
        **options: Any,
    ) -> NDArray[np.float32]:
        """Pictures (n, height, width, 3) in [0, 1], one for each response and key.

        Parameters
        ----------
        options
            Of :meth:`calcarine.diffusion.ConditionalDiffusion.generate`.
        """
        context, time = self.condition(responses)
        batch_size = int(options.get("batch_size", 32))
        with _lent(model, tuple(self.listening), time is not None):
            self._install(model)
            extra: dict[str, Any] = {}
            if time is not None and self.conditioner.empty_time is not None:
                extra["time_condition"] = time
                extra["empty_time_condition"] = self.conditioner.empty_time.cpu().numpy()
            latents = model.generate(
                context, keys, empty=self.conditioner.empty.cpu().numpy(), **extra, **options
            )
        return model.decode(latents, batch_size)

    def _install(self, model: ConditionalDiffusion) -> None:
        parameters = dict(model.unet.named_parameters())
        for name, weight in self.listening.items():
            if name not in parameters or parameters[name].shape != weight.shape:
                raise CalcarineError(
                    f"The trained weights do not fit the diffusion model {model.name} ({name}); "
                    "it is not the model they were trained with."
                )
            parameters[name].data.copy_(weight)

    def save(self, folder: Path) -> None:
        """Write weights and shape as safetensors and JSON."""
        import json

        import torch
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        from calcarine.files import write_text, written_aside

        state = {f"conditioner.{k}": v for k, v in self.conditioner.state_dict().items()}
        state |= {f"unet.{k}": v for k, v in self.listening.items()}
        state |= {f"voxels.{k}": torch.from_numpy(v) for k, v in vars(self.scale).items()}
        try:
            with written_aside(folder / "conditioning.safetensors") as aside:
                save_file({k: v.contiguous().cpu() for k, v in state.items()}, aside)
        except SafetensorError as error:
            raise CalcarineError(
                f"{folder} cannot be written ({error}); make room, and the same command continues."
            ) from error
        write_text(folder / "conditioning.json", json.dumps(self.conditioner.shape, indent=2))

    @classmethod
    def load(cls, folder: Path) -> BrainConditioning:
        """Read what :meth:`save` wrote."""
        import json

        from safetensors.torch import load_file

        from calcarine.networks.conditioner import Conditioner

        try:
            shape = json.loads((folder / "conditioning.json").read_text(encoding="utf-8"))
            state = load_file(folder / "conditioning.safetensors")
            conditioner = Conditioner.of_shape(shape)
            own = {
                k.removeprefix("conditioner."): v
                for k, v in state.items()
                if k.startswith("conditioner.")
            }
            conditioner.load_state_dict(own)
            scale = VoxelScale(state["voxels.mean"].numpy(), state["voxels.scale"].numpy())
        except Exception as error:
            raise CalcarineError(
                f"{folder} holds no trained conditioning, or a broken one; train it again."
            ) from error
        unet = {k.removeprefix("unet."): v for k, v in state.items() if k.startswith("unet.")}
        return cls(conditioner.eval().requires_grad_(False), unet, scale)


@contextmanager
def _lent(model: ConditionalDiffusion, names: Sequence[str], timed: bool) -> Iterator[None]:
    """Give the U-Net back as it was, whatever is done to the named parameters meanwhile."""
    from calcarine.diffusion.conditional import add_time_condition

    unet, device = model.unet, model.device
    parameters = dict(unet.named_parameters())
    kept = {name: parameters[name].detach().clone() for name in names if name in parameters}
    embedding = unet.class_embedding
    if timed:
        add_time_condition(unet)
    try:
        yield
    finally:
        unet.class_embedding = embedding
        unet.to(device)  # Lightning leaves what it trained on the CPU
        unet.eval().requires_grad_(False)
        for name, weight in kept.items():
            parameters[name].data.copy_(weight)
