"""Data, models, stores and regions that the stages of one run share."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from calcarine import datasets
from calcarine.brain import BrainDataset, Split
from calcarine.decoding import Decoder, load_decoder, make_decoder
from calcarine.devices import Compute, resolve_device, resolve_precision
from calcarine.diffusion import LatentDiffusion, load_model
from calcarine.diffusion.conditional import ConditionalDiffusion, ModelNote
from calcarine.diffusion.generators import describe_model
from calcarine.diffusion.trajectory import record_trajectory
from calcarine.errors import CalcarineError, SettingError
from calcarine.evaluation.networks.judges import judge_digest
from calcarine.experiment.config import Experiment
from calcarine.experiment.digests import Digests, digest_content, file_sizes
from calcarine.experiment.progress import Progress
from calcarine.experiment.run_directory import RunDirectory, readable
from calcarine.experiment.undo_session_scaling import without_session_scaling
from calcarine.features import FeatureStore, LatentSettings
from calcarine.features.latents import count_without_category, source_digests
from calcarine.features.spaces import SpaceName
from calcarine.splits.split_files import find_split
from calcarine.stimuli.picture_folders import listing_digest, picture_files

__all__ = ["Workspace"]


class _Noted(Protocol):
    """Something loaded, with sentences on how it was read."""

    @property
    def notes(self) -> tuple[str, ...]: ...


_Loaded = TypeVar("_Loaded", bound=_Noted)


def _on_demand(work: Workspace) -> LatentDiffusion:
    """Return the diffusion model of a run, whose weights are loaded when it encodes."""
    return cast(LatentDiffusion, _WeightsOnDemand(work))


class _WeightsOnDemand:
    """The diffusion model of a run, whose weights are loaded when it encodes."""

    def __init__(self, work: Workspace) -> None:
        self._work = work

    def __getattr__(self, name: str) -> Any:
        work = self._work
        needs_weights = name in ("encode", "embed_captions")
        return getattr(work.model if needs_weights else work.described_model, name)


class Workspace:
    """Data, models, stores and regions of one run, each opened when it is first used.

    Parameters
    ----------
    run : RunDirectory
    progress : Progress, optional
        Silent by default.
    trained : Path, optional
        Folder in which networks are trained, in folders named by their content, so that several
        runs share equal ones; by default inside the run.
    """

    def __init__(
        self, run: RunDirectory, progress: Progress | None = None, trained: Path | None = None
    ) -> None:
        self.run = run
        self.trained = trained
        self.config: Experiment = run.experiment
        self.progress = progress or Progress()
        self._shown: set[str] = set()
        self._block_shapes: dict[str, tuple[int, ...]] = {}

    @cached_property
    def dataset(self) -> BrainDataset:
        """The brain data."""
        config = self.config.dataset
        self.progress.say(f"Reading the data set {config.name}")
        data = Path(config.data) if config.data else None
        dataset = datasets.load_dataset(config.name, data, config.subject, **config.options)
        return dataset if config.zscore_sessions else without_session_scaling(dataset)

    @cached_property
    def compute(self) -> Compute:
        """Device and precision; a precision that was decided when the run began is kept."""
        config = self.config.compute
        device = resolve_device(config.device)
        precision = config.precision
        if precision == "auto" and self.config.visdec.enabled:
            precision = "float32"
        elif precision == "auto":
            precision = self.run.manifest().get("auto_precision", "auto")
        if config.precision == "auto" and precision == "float16" and device.type == "cpu":
            raise SettingError(
                f"The run {self.run.path} began on a GPU in float16, which a CPU lacks; continue "
                "it on a GPU, or set compute.precision=float32, with which all its pictures are "
                "made again."
            )
        return Compute(device, resolve_precision(precision, device), config.tf32)

    def record_compute(self, stage: str) -> None:
        """Say where a stage computes, and write it and the decided precision into the manifest."""
        self._say_once(f"Computing in {self.compute}")
        devices = self.run.manifest().get("devices", {})
        entries: dict[str, Any] = {"devices": {**devices, stage: self.compute.device_name}}
        if self.config.compute.precision == "auto" and not self.config.visdec.enabled:
            entries["auto_precision"] = self.compute.precision
        self.run.update_manifest(**entries)

    def _load_model(
        self, source: str, *, weights: bool = True, **parts: str | None
    ) -> ConditionalDiffusion:
        """Load a diffusion model where and how the run computes."""
        compute, generation = self.compute, self.config.generation
        load = load_model if weights else describe_model
        model = self.load(lambda: load(source, device=compute.device, dtype=compute.dtype, **parts))
        if compute.tf32:
            model.digest = f"{model.digest}-tf32"
        if generation.guidance_rescale is not None:
            model.guidance_rescale = generation.guidance_rescale
        return model

    @cached_property
    def model(self) -> LatentDiffusion:
        """The diffusion model of ``generation.model``."""
        return self._with_text(weights=True)

    @property
    def described_model(self) -> LatentDiffusion:
        """The same model, without weights unless it is loaded: its sizes, digest and notes."""
        return self.__dict__.get("model") or self._description

    @cached_property
    def _description(self) -> LatentDiffusion:
        return self._with_text(weights=False)

    def forget_models(self) -> None:
        """Free the memory of the diffusion models until they are used again."""
        for name in ("model", "generator"):
            self.__dict__.pop(name, None)
        if self.compute.device.type == "cuda":
            import torch

            torch.cuda.empty_cache()

    def _with_text(self, weights: bool) -> LatentDiffusion:
        config = self.config.generation
        parts = {"autoencoder": config.autoencoder, "tokenizer": config.tokenizer}
        model = self._load_model(config.model, weights=weights, **parts)
        if not isinstance(model, LatentDiffusion):
            raise SettingError(
                f"The model generation.model={config.model} has no text encoder, and c is made by "
                "one; choose a model with text, or give this one to Vis-Dec (visdec.model)."
            )
        return model

    def load(self, load: Callable[[], _Loaded]) -> _Loaded:
        """Load a model or weights, and show each of the notes once, as progress.

        Parameters
        ----------
        load : callable
            Returns what is loaded; its warnings about notes are left out.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ModelNote)
            loaded = load()
        for note in loaded.notes:  # weights are loaded again for each split
            self._say_once(note)
        return loaded

    def _say_once(self, text: str) -> None:
        if text not in self._shown:
            self._shown.add(text)
            self.progress.say(text)

    @cached_property
    def latent_size(self) -> int:
        """Side in pixels at which z is made; for Stable Diffusion v1 the paper's 320."""
        own = self.described_model.image_size
        return self.config.generation.latent_size or (320 if own == 512 else own)

    @property
    def z_shape(self) -> tuple[int, int, int]:
        """Shape of z of one stimulus."""
        side = self.latent_size // self.described_model.downscale
        return self.described_model.latent_shape[0], side, side

    def block_shape(self, block: str) -> tuple[int, ...]:
        """Return the shape of what a block of the U-Net gives for one stimulus."""
        if block in self._block_shapes:
            return self._block_shapes[block]
        z = np.zeros((1, *self.z_shape), np.float32)
        c = np.zeros((1, *self.model.context_shape), np.float32)
        options: dict[str, Any] = {"steps": 1, "strength": 1.0, "guidance": 1.0}
        found = record_trajectory(self.model, c, ["-"], z, blocks=[block], blocks_at=[0], **options)
        self._block_shapes[block] = found.activations[block, 0].shape[1:]
        return self._block_shapes[block]

    @cached_property
    def splits(self) -> tuple[Split, ...]:
        """The split that the settings name, or all splits of the data set."""
        config = self.config.dataset
        if config.split is not None:
            if config.folds is not None:
                raise SettingError(
                    "dataset.folds counts the data set's own splits; leave it out together with "
                    "dataset.split."
                )
            return (find_split(self.dataset, config.split),)
        # One division under two names is one split: test stimuli must not count twice.
        unique: dict[tuple[frozenset[str], frozenset[str]], Split] = {}
        for split in self.dataset.splits:
            unique.setdefault((frozenset(split.train), frozenset(split.test)), split)
        splits = tuple(unique.values())
        return splits[: config.folds] if config.folds else splits

    @cached_property
    def store(self) -> FeatureStore:
        """Where features are kept."""
        return self.shared_store or FeatureStore(self.run.path / "features")

    @cached_property
    def shared_store(self) -> FeatureStore | None:
        """The store that several runs share, if the settings name one."""
        folder = self.config.compute.store
        if folder is None:
            return None
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SettingError(
                f"The store {folder} cannot be made ({error.strerror}); give another folder as "
                "compute.store, or in the environment variable CALCARINE_STORE."
            ) from error
        return FeatureStore(folder)

    @cached_property
    def roi(self) -> dict[str, str]:
        """Regions that predict z, c and pixels; one region serves all where there is only one."""
        config, known = self.config.roi, set(self.dataset.rois)
        z = config.z or ("early" if "early" in known else "all")
        c = config.c or ("ventral" if "ventral" in known else z)
        chosen = {"z": z, "c": c, "pixels": config.pixels or z}
        visdec, encoding = self.config.visdec, self.config.encoding
        used = {f"roi.{name}": region for name, region in chosen.items()}
        used |= {"visdec.roi": visdec.roi} if visdec.enabled else {}
        used |= {"encoding.roi": encoding.roi} if encoding.enabled else {}
        targets = self.config.embeddings.targets
        used |= {f"embeddings.targets[{t.name}].roi": t.roi for t in targets}
        for setting, region in used.items():
            self._check_region(setting, region)
        return chosen

    def _check_region(self, setting: str, region: str) -> None:
        try:
            self.dataset.roi_mask(region)
        except CalcarineError as error:
            known = ", ".join(dict.fromkeys(["all", *self.dataset.rois]))
            raise SettingError(
                f"The setting {setting}={region} is not a region with voxels; choose among "
                f"{known}, or join several as A+B."
            ) from error

    @cached_property
    def alphas(self) -> NDArray[np.float64]:
        """Penalties of the ridge decoders, in ascending order."""
        ridge = self.config.ridge
        if ridge.alphas is not None:
            return np.sort(np.asarray(ridge.alphas, np.float64))
        return np.geomspace(ridge.alpha_min, ridge.alpha_max, ridge.n_alphas)

    @property
    def ridge_device(self) -> str:
        """Where ridge regressions are fitted: a CUDA GPU of the run, else the CPU.

        MPS has no float64, which ill-conditioned fits need.
        """
        device = self.compute.device
        return str(device) if device.type == "cuda" else "cpu"

    @property
    def ridge_options(self) -> dict[str, Any]:
        """Options that all ridge decoders are fitted with."""
        ridge = self.config.ridge
        return {
            "alphas": self.alphas,
            "n_folds": ridge.n_folds,
            "intercept": ridge.intercept,
            "grouped": ridge.grouped,
            "device": self.ridge_device,
        }

    @property
    def chooses_settings(self) -> bool:
        """Whether strength and guidance are chosen inside the training data of each split."""
        return self.config.chooses_settings([len(split.train) for split in self.splits])

    def new_decoder(self) -> Decoder:
        """Return the decoder of z and c of the settings, not yet fitted."""
        config = self.config.decoder
        options = self.ridge_options if config.name == "ridge" else config.options
        return make_decoder(config.name, roi_z=self.roi["z"], roi_c=self.roi["c"], **options)

    def fitted_decoder(self, split: Split) -> Decoder:
        """Return the fitted decoder of a split."""
        folder = self.run.decoder / split.name
        with readable(folder, "fit"):
            return load_decoder(self.config.decoder.name, folder)

    @cached_property
    def latent_settings(self) -> LatentSettings:
        """How z and c of the stimuli are made."""
        config = self.config.features
        return LatentSettings(
            size=self.latent_size,
            posterior=config.posterior,
            picture=config.picture,
            resize=config.resize,
            seed=self.config.generation.seed,
            text=config.text,
            batch_size=self.config.generation.batch_size,
        )

    @cached_property
    def z(self) -> NDArray[np.float32]:
        """Z of all stimuli."""
        with self.progress.track("Latents z", len(self.dataset.stimuli)) as advance:
            return self.latent_settings.z(
                self.store, _on_demand(self), self.dataset.stimuli, advance
            )

    @cached_property
    def text_notes(self) -> list[str]:
        """Notes for a reader on the text that c is made of."""
        stimuli = self.dataset.stimuli
        bare = count_without_category(stimuli, self.config.features.text)
        if not bare:
            return []
        if bare == len(stimuli):
            return [
                f"None of the {bare} stimuli has a category in words (an id of WordNet is none): "
                "all have the c of the empty text, so only z is decoded (features.text=categories)."
            ]
        return [
            f"{bare} of {len(stimuli)} stimuli have no category in words; they have the c of the "
            "empty text (features.text=categories)."
        ]

    @cached_property
    def c(self) -> NDArray[np.float32]:
        """C of all stimuli."""
        for note in self.text_notes:
            self.progress.say(note)
        with self.progress.track("Text conditioning c", len(self.dataset.stimuli)) as advance:
            return self.latent_settings.c(
                self.store, _on_demand(self), self.dataset.stimuli, advance
            )

    @cached_property
    def generator(self) -> ConditionalDiffusion:
        """The diffusion model that Vis-Dec conditions on fMRI."""
        self._check_trainable()
        source = self.config.visdec.model
        return self.model if source is None else self._load_model(source)

    @property
    def described_generator(self) -> ConditionalDiffusion:
        """The same model, without weights where that is possible; see `described_model`."""
        self._check_trainable()
        own = self.config.visdec.model is not None
        return self.generator if own or "generator" in self.__dict__ else self.described_model

    def _check_trainable(self) -> None:
        if self.compute.precision != "float32":
            raise SettingError(
                f"Vis-Dec trains the diffusion model, which compute.precision="
                f"{self.compute.precision} does not allow; set it to auto or float32, and lower "
                "the precision of the training with visdec.PHASE.training.precision."
            )

    @property
    def generator_latent_settings(self) -> LatentSettings:
        """How latents and contexts of the generator are made."""
        features = self.config.features
        return LatentSettings(
            size=self.generator.image_size,
            resize=features.resize,
            text=features.text,
            batch_size=self.config.generation.batch_size,
        )

    @cached_property
    def generator_latents(self) -> NDArray[np.float32]:
        """Latents of all stimuli at the size of the generator's U-Net."""
        with self.progress.track("Latents", len(self.dataset.stimuli)) as advance:
            return self.generator_latent_settings.z(
                self.store, self.generator, self.dataset.stimuli, advance
            )

    @cached_property
    def generator_contexts(self) -> NDArray[np.float32]:
        """Contexts of the text of all stimuli, for a generator with text."""
        assert isinstance(self.generator, LatentDiffusion)  # the stage has checked it
        with self.progress.track("Contexts", len(self.dataset.stimuli)) as advance:
            return self.generator_latent_settings.c(
                self.store, self.generator, self.dataset.stimuli, advance
            )

    # -- digests

    @cached_property
    def latents_digest(self) -> list[Any]:
        """The diffusion model, and how z and c of the stimuli are made with it."""
        return [self.described_model.digest, self.latent_settings.provenance(self.dataset.stimuli)]

    @cached_property
    def digests(self) -> Digests:
        """Content of all that the settings refer to, for the keys of the stages."""
        config, judge = self.config, self.dataset.judge
        regions = self.roi  # mistakes in the data and the decoder before the slow model
        if config.ridge.enabled:
            self.new_decoder()
        visdec, finetune = config.visdec, config.visdec.finetune
        aligned = visdec.enabled and finetune.aligned
        return Digests(
            dataset=self.dataset.digest(),
            splits=tuple(split.digest() for split in self.splits),
            n_train=tuple(len(split.train) for split in self.splits),
            regions=regions,
            latents=self.latents_digest if config.uses_latents else None,
            generator=self.described_generator.digest if visdec.enabled else None,
            texts=source_digests(self.dataset.stimuli, text=config.features.text)
            if aligned
            else {},
            contents=self._contents(),
            judge=judge_digest(judge) if judge else None,
            metric_weights=file_sizes(config.evaluation.weights),
        )

    def _contents(self) -> dict[str, Any]:
        """Content of files and folders that the settings name."""
        visdec = self.config.visdec
        files = list(self.config.encoding.feature_files.values())
        files += [target.file for target in self.config.embeddings.targets if target.file]
        own = {name: digest_content(Path(name)) for name in files}
        own |= {
            folder: listing_digest(picture_files(folder))
            for folder in self.config.embeddings.folders
        }
        spaces = [target.space for target in self.config.embeddings.targets]
        for space in [*spaces, *self.config.encoding.extra_names]:
            model = SpaceName.parse(space).model if space.startswith("hf:") else None
            if model is not None and Path(model).is_dir():
                own[space] = digest_content(Path(model))
        if not visdec.enabled:
            return own
        named = {
            name: Path(name) for name in (visdec.pretrain.start, visdec.finetune.start) if name
        }
        if visdec.runs("pretrain"):
            named |= {part.data: Path(part.data) for part in visdec.pretrain.pool if part.data}
        if visdec.runs("guide"):
            from calcarine.visdec.image_autoencoder import MINI

            source = visdec.guide.image_autoencoder
            named[source] = MINI if source == "mini" else Path(source)
        return own | {name: digest_content(place) for name, place in named.items()}
