"""The three phases of one fit of the Vis-Dec estimator."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calcarine.diffusion import ConditionalDiffusion, LatentDiffusion
from calcarine.stimuli import StimulusSet, resize_images
from calcarine.training import TrainingConfig
from calcarine.visdec import phases
from calcarine.visdec.brain_conditioning import BrainConditioning
from calcarine.visdec.encoder_storage import new_autoencoder
from calcarine.visdec.fmri_autoencoder import AutoencoderConfig, FMRIAutoencoder
from calcarine.visdec.image_autoencoder import ImageAutoencoder
from calcarine.visdec.patches import join_patched
from calcarine.visdec.settings import VisDecSettings

__all__ = ["VisDecFit"]

_PHASES = ("pretrain", "guide", "finetune")
_SAMPLING = {"strength", "guidance", "sampler", "steps"}


class VisDecFit:
    """The three phases of one fit; each resumes in its own folder."""

    def __init__(
        self,
        settings: VisDecSettings,
        model: ConditionalDiffusion,
        pictures: StimulusSet,
        stimuli: phases.TrainingStimuli,
        folder: Path,
        progress: Callable[[str, int], None] | None,
    ) -> None:
        self.settings, self.model, self.pictures = settings, model, pictures
        self.stimuli, self.folder, self.progress = stimuli, folder, progress
        values = np.ascontiguousarray(stimuli.responses.data)
        # A checkpoint belongs to these responses, stimuli, model and settings.
        self.identity = [
            hashlib.sha256(values.tobytes()).hexdigest(),
            list(stimuli.train),
            pictures.digest(),
            settings.encoder.model_dump(mode="json"),
        ]

    def run(self) -> BrainConditioning:
        """Train all phases that are enabled."""
        settings = self.settings
        if settings.finetune.loss.align:
            phases.check_text(self.model, settings.finetune.loss.tokens)
        first = next(
            phase
            for phase in (settings.pretrain, settings.guide, settings.finetune)
            if getattr(phase, "enabled", True)
        )
        autoencoder = new_autoencoder(self._shape(), first.training.seed)
        if settings.pretrain.enabled:
            autoencoder = self._pretrain(autoencoder)
        if settings.guide.enabled:
            autoencoder = self._guide(autoencoder)
        return self._finetune(autoencoder)

    def _where_the_model_is(self, training: TrainingConfig) -> TrainingConfig:
        device = self.model.device
        return training.on_device(device.type if training.devices > 1 else device)

    def _shape(self) -> AutoencoderConfig:
        encoder = self.settings.encoder
        voxels = self.stimuli.responses.data.shape[1]
        return AutoencoderConfig(n_patches=-(-voxels // encoder.patch), **encoder.model_dump())

    def _pretrain(self, autoencoder: FMRIAutoencoder) -> FMRIAutoencoder:
        settings, shape = self.settings.pretrain, autoencoder.config
        train, held_out = (
            join_patched([self.stimuli.vectors(ids)], shape.patch, shape.n_patches) if ids else None
            for ids in (self.stimuli.train, self.stimuli.validation)
        )
        assert train is not None
        return phases.pretrain(
            self.folder / "pretrain",
            train,
            held_out,
            shape,
            self._where_the_model_is(settings.training),
            config=settings.loss,
            augmentation=settings.augmentation,
            start=autoencoder,
            **self._options("pretrain"),
        )

    def _guide(self, autoencoder: FMRIAutoencoder) -> FMRIAutoencoder:
        settings = self.settings.guide
        image = ImageAutoencoder.from_pretrained(
            settings.image_autoencoder, settings.image_decoder_depth
        )
        return phases.guide(
            self.folder / "guide",
            autoencoder,
            image,
            self.stimuli,
            self.pictures.images,
            self._where_the_model_is(settings.training),
            config=settings.loss,
            augmentation=settings.augmentation,
            decoder_depth=settings.fmri_decoder_depth,
            trials=settings.trials,
            **self._options("guide"),
        )

    def _finetune(self, autoencoder: FMRIAutoencoder) -> BrainConditioning:
        settings = self.settings.finetune
        return phases.finetune(
            self.folder / "finetune",
            autoencoder,
            self.model,
            self.stimuli,
            self._latents,
            self._where_the_model_is(settings.training),
            config=settings.loss,
            augmentation=settings.augmentation,
            trials=settings.trials,
            contexts=self._contexts,
            **self._options("finetune"),
        )

    def _latents(self, ids: Sequence[str]) -> NDArray[np.float32]:
        images = resize_images(self.pictures.images(ids), self.model.image_size)
        return self.model.encode(images)

    def _contexts(self, ids: Sequence[str]) -> NDArray[np.float32]:
        assert isinstance(self.model, LatentDiffusion)  # check_text raised otherwise
        return self.model.embed_captions(self.pictures.captions(ids))

    def _options(self, phase: str) -> dict[str, Any]:
        """Return the options of the training of a phase."""
        before = _PHASES[: _PHASES.index(phase) + 1]
        settings = {
            name: getattr(self.settings, name).model_dump(mode="json", exclude=_SAMPLING)
            for name in before
        }
        # The training compares its own settings; with a constant rate it may become longer.
        settings[phase].pop("training")
        content = [*self.identity, settings]
        if phase == "finetune":
            content.append(self.model.digest)
        text = json.dumps(content, sort_keys=True)
        key = hashlib.sha256(text.encode()).hexdigest()
        progress = self.progress
        return {
            "provenance": {"phase": phase, "key": key},
            "progress": None if progress is None else lambda count: progress(phase, count),
        }
