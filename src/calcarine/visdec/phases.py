"""Vis-Dec: pretrain, guide, finetune (Sun et al. 2023).

Each phase is a function that trains in a folder, resumes if it is called again with the same
folder, and returns the initial weights of the next phase.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from calcarine.brain import BrainDataset, Responses, Split
from calcarine.errors import SettingError
from calcarine.visdec.brain_conditioning import BrainConditioning, VoxelScale, restored_unet
from calcarine.visdec.initial_conditioner import (
    SEED_STEP,
    check_text,
    initial_conditioner,
    text_contexts,
)

if TYPE_CHECKING:
    from calcarine.diffusion.conditional import ConditionalDiffusion
    from calcarine.training import TrainingConfig
    from calcarine.visdec.fmri_autoencoder import AutoencoderConfig, FMRIAutoencoder
    from calcarine.visdec.image_autoencoder import ImageAutoencoder
    from calcarine.visdec.patches import PatchedVectors
    from calcarine.visdec.published_conditioner import PublishedConditioner
    from calcarine.visdec.settings import Augmentation, ContrastLoss, FinetuneLoss, GuideLoss
    from calcarine.visdec.stimulus_vectors import Trials

__all__ = ["TrainingStimuli", "check_text", "finetune", "guide", "pretrain"]


@dataclass(frozen=True)
class TrainingStimuli:
    """Training responses of one split, divided into training and validation stimuli.

    Attributes
    ----------
    responses : Responses
        Single trials of training stimuli, scaled.
    train, validation : tuple of str
        Stimuli that train and stimuli that validate, if any; test stimuli are in neither.
    scale : VoxelScale
        Scale of the trials of ``train``.

    Examples
    --------
    >>> import numpy as np
    >>> import calcarine as ca
    >>> from calcarine.visdec import TrainingStimuli
    >>> seen = ca.StimulusSet.from_scenes(seed=0, indices=range(20))
    >>> betas = np.random.default_rng(0).standard_normal((40, 16))
    >>> brain = ca.BrainDataset.from_arrays(betas, seen.ids * 2, seen, test=4)
    >>> stimuli = TrainingStimuli.from_dataset(brain, brain.split(), "all", share=0.25, seed=0)
    >>> len(stimuli.train), len(stimuli.validation)
    (12, 4)
    """

    responses: Responses
    train: tuple[str, ...]
    validation: tuple[str, ...]
    scale: VoxelScale

    @classmethod
    def from_dataset(
        cls,
        dataset: BrainDataset,
        split: Split,
        roi: str,
        share: float,
        seed: int,
        *,
        together: bool = False,
    ) -> TrainingStimuli:
        """Choose validation stimuli among the training stimuli of a split.

        Parameters
        ----------
        dataset : BrainDataset
        split : Split
        roi : str
            Region whose voxels are used.
        share : float
            Share of training stimuli that validate; 0 trains on all.
        seed : int
            Seed that draws them.
        together : bool
            See :meth:`calcarine.visdec.brain_conditioning.VoxelScale.from_vectors`.
        """
        from calcarine.training import split_validation

        rows, held_out = split_validation(split.train, share, seed)
        train = tuple(split.train[i] for i in rows)
        responses = dataset.train(split, roi)
        inside = np.isin(responses.stimulus_ids, train)
        scale = VoxelScale.from_vectors(responses.data[inside], together)
        return cls(
            replace(responses, data=scale.apply(responses.data)),
            train,
            tuple(split.train[i] for i in held_out),
            scale,
        )

    def vectors(self, ids: Sequence[str]) -> NDArray[np.float32]:
        """Return the single trials of some of the stimuli, shape (n_trials, n_voxels)."""
        chosen = set(ids)
        rows = [i for i, name in enumerate(self.responses.stimulus_ids) if name in chosen]
        return self.responses.data[rows]


def pretrain(
    folder: str | Path,
    train: PatchedVectors,
    validation: PatchedVectors | None,
    shape: AutoencoderConfig,
    training: TrainingConfig,
    *,
    config: ContrastLoss | None = None,
    augmentation: Augmentation | None = None,
    start: FMRIAutoencoder | None = None,
    **options: Any,
) -> FMRIAutoencoder:
    """First phase: contrastive masked pre-training on unlabelled vectors (section 3.1).

    Parameters
    ----------
    folder : str or Path
        Folder of the training. A call with the same folder resumes it.
    train : PatchedVectors
        Vectors without stimuli.
    validation : PatchedVectors or None
        Vectors whose loss is recorded, if any are held out.
    shape : AutoencoderConfig
        Shape of the autoencoder.
    training : TrainingConfig
        Settings of the training.
    config : ContrastLoss, optional
        Losses and masking.
    augmentation : Augmentation, optional
        Random changes of the vectors.
    start : FMRIAutoencoder, optional
        Initial weights; random by default, with the seed of the training.
    **options
        See :func:`calcarine.training.train`: provenance, progress, say.

    Returns
    -------
    FMRIAutoencoder
    """
    from calcarine.training import train as run
    from calcarine.visdec.encoder_storage import new_autoencoder
    from calcarine.visdec.pretraining import ContrastPretraining

    autoencoder = start or new_autoencoder(shape, training.seed)
    task = ContrastPretraining(autoencoder, train, validation, config, augmentation)
    run(task, training, folder, **options)
    return task.autoencoder


def guide(
    folder: str | Path,
    autoencoder: FMRIAutoencoder,
    image: ImageAutoencoder,
    stimuli: TrainingStimuli,
    pictures: Callable[[Sequence[str]], NDArray[np.uint8]],
    training: TrainingConfig,
    *,
    config: GuideLoss | None = None,
    augmentation: Augmentation | None = None,
    decoder_depth: int | None = None,
    trials: Trials = "random",
    **options: Any,
) -> FMRIAutoencoder:
    """Second phase: an image autoencoder guides the fMRI encoder (section 3.2).

    Parameters
    ----------
    folder, training, augmentation, **options
        See :func:`pretrain`.
    autoencoder : FMRIAutoencoder
        Result of the first phase, or a new one.
    image : ImageAutoencoder
        Its encoder is frozen.
    stimuli : TrainingStimuli
        Responses, with training and validation stimuli.
    pictures : callable
        Returns uint8 pictures (n, height, width, 3) of stimuli.
    config : GuideLoss, optional
        Losses and maskings.
    decoder_depth : int, optional
        Number of blocks of the fMRI decoder to keep (6 of 8 in the paper); all by default.
    trials : {"one", "mean", "random"}
        See :class:`calcarine.visdec.stimulus_vectors.StimulusVectors`.

    Returns
    -------
    FMRIAutoencoder
    """
    import torch

    from calcarine.training import train as run
    from calcarine.visdec.guiding import CrossModalGuiding, CrossModalNetwork
    from calcarine.visdec.settings import GuideLoss
    from calcarine.visdec.stimulus_vectors import StimulusVectors

    config = config or GuideLoss()
    _cut_decoder(autoencoder, decoder_depth)
    with torch.random.fork_rng():
        torch.manual_seed(training.seed + SEED_STEP)
        network = CrossModalNetwork(autoencoder, image, config.layers, config.direction)
    network.freeze_unused(config)
    patch = autoencoder.config.patch

    def shown(ids: Sequence[str]) -> tuple[StimulusVectors, torch.Tensor]:
        vectors = StimulusVectors(stimuli.responses, ids, patch, trials=trials)
        return vectors, image.pixels(pictures(ids))

    held_out = shown(stimuli.validation) if stimuli.validation else None
    task = CrossModalGuiding(network, shown(stimuli.train), held_out, config, augmentation)
    run(task, training, folder, **options)
    return network.fmri


def _cut_decoder(autoencoder: FMRIAutoencoder, depth: int | None) -> None:
    if depth is None:
        return
    if not 1 <= depth <= autoencoder.config.decoder_depth:
        raise SettingError(
            f"The fMRI decoder has {autoencoder.config.decoder_depth} blocks, so {depth} of them "
            "cannot be kept; choose fewer."
        )
    autoencoder.decoder_blocks = autoencoder.decoder_blocks[:depth]
    autoencoder.config = replace(autoencoder.config, decoder_depth=depth)


def finetune(
    folder: str | Path,
    autoencoder: FMRIAutoencoder | PublishedConditioner,
    model: ConditionalDiffusion,
    stimuli: TrainingStimuli,
    latents: Callable[[Sequence[str]], NDArray[np.float32]],
    training: TrainingConfig | None,
    *,
    config: FinetuneLoss | None = None,
    augmentation: Augmentation | None = None,
    trials: Trials = "random",
    contexts: Callable[[Sequence[str]], NDArray[np.float32]] | None = None,
    **options: Any,
) -> BrainConditioning:
    """Third phase: the fMRI encoder conditions the diffusion model (section 3.3).

    The conditioner is trained, and in the U-Net the cross-attention and the norm before it. The
    model itself is unchanged afterwards.

    Parameters
    ----------
    folder, augmentation, **options
        See :func:`pretrain`.
    autoencoder : FMRIAutoencoder or PublishedConditioner
        Result of an earlier phase, or a new one; or a published model of this phase, which is
        trained further.
    model : ConditionalDiffusion
        The diffusion model.
    stimuli : TrainingStimuli
        Responses, with training and validation stimuli.
    latents : callable
        Returns latents (n, channels, h, w) of stimuli, on the scale of the U-Net's input.
    training : TrainingConfig or None
        None uses a published model without training.
    config : FinetuneLoss, optional
        Losses and condition.
    trials : {"one", "mean", "random"}
        See :class:`calcarine.visdec.stimulus_vectors.StimulusVectors`.
    contexts : callable, optional
        Returns contexts (n, tokens, width) of the text of stimuli, for ``config.align``.

    Returns
    -------
    BrainConditioning
    """
    import torch

    from calcarine.diffusion.conditional import freeze_except, trainable_parts
    from calcarine.training import train as run
    from calcarine.visdec.finetuning import DiffusionFinetuning, FinetuningData
    from calcarine.visdec.fmri_autoencoder import FMRIAutoencoder
    from calcarine.visdec.settings import FinetuneLoss
    from calcarine.visdec.stimulus_vectors import StimulusVectors

    config = config or FinetuneLoss()
    if config.align and training is not None:
        check_text(model, config.tokens)
    if isinstance(autoencoder, FMRIAutoencoder):
        patch = autoencoder.config.patch
    else:
        patch = autoencoder.conditioner.encoder.config.patch

    def shown(ids: Sequence[str]) -> FinetuningData:
        return FinetuningData(
            StimulusVectors(stimuli.responses, ids, patch, trials=trials),
            torch.from_numpy(latents(ids)),
            text_contexts(contexts, ids) if config.align else None,
        )

    n_patches = -(-stimuli.responses.data.shape[1] // patch)
    conditioner, initial = initial_conditioner(autoencoder, model, n_patches, config, training)
    if not config.drop_condition:  # they would receive no gradient
        for parameter in (conditioner.empty, conditioner.empty_time):
            if parameter is not None:
                parameter.requires_grad_(False)
    names = trainable_parts(model.unet)
    kept = tuple(dict.fromkeys((*names, *initial)))
    with restored_unet(model, kept, config.time_condition):
        unet = dict(model.unet.named_parameters())
        for name, weight in initial.items():
            unet[name].data.copy_(weight)
        if training is not None:
            freeze_except(model.unet, names)
            train = shown(stimuli.train)
            if conditioner.latent is not None:
                conditioner.start_from_latent(train.latents.mean(0))
            task = DiffusionFinetuning(
                conditioner,
                model.unet,
                model.scheduler,
                train,
                shown(stimuli.validation) if stimuli.validation else None,
                config,
                augmentation,
            )
            run(task, training, folder, **options)
        unet_weights = {name: unet[name].detach().clone() for name in kept}
    return BrainConditioning(conditioner.eval().requires_grad_(False), unet_weights, stimuli.scale)
