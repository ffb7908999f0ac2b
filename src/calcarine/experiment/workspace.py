"""What the stages of one run share."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from calcarine import datasets
from calcarine.brain import BrainDataset, Split
from calcarine.diffusion import LatentDiffusion, load_model, torch_dtype
from calcarine.diffusion.conditional import ConditionalDiffusion, ModelNote
from calcarine.diffusion.samplers import check_steps
from calcarine.errors import CalcarineError
from calcarine.evaluation.judges import judge_digest
from calcarine.experiment.config import Experiment
from calcarine.experiment.progress_bars import Progress
from calcarine.experiment.raw_sessions import without_session_scaling
from calcarine.experiment.run_directory import RunDirectory, content_key
from calcarine.features import FeatureStore, LatentSettings
from calcarine.features.latents import without_category
from calcarine.splits.split_files import find_split

_Model = TypeVar("_Model", bound=ConditionalDiffusion)
_SEARCH_USES = ("model", "seed", "through_image", "guidance_rescale")
_Z_C_SETTINGS = ("strength", "guidance", "guidance_rescale", "steps", "seed")


class Workspace:
    """What the stages of one run share; loaded when first asked for.

    Parameters
    ----------
    run : RunDirectory
    progress : Progress, optional
    trained : Path, optional
        Where networks are trained, in folders named by content, so that several runs share what
        is the same; inside of the run otherwise.
    """

    def __init__(
        self, run: RunDirectory, progress: Progress | None = None, trained: Path | None = None
    ) -> None:
        self.run = run
        self.trained = trained
        self.config: Experiment = run.experiment
        self.progress = progress or Progress()

    @cached_property
    def dataset(self) -> BrainDataset:
        config = self.config.dataset
        self.progress.say(f"Reading the data set {config.name}")
        data = Path(config.data) if config.data else None
        found = datasets.load(config.name, data, config.subject, **config.options)
        return found if config.zscore_sessions else without_session_scaling(found)

    @cached_property
    def model(self) -> LatentDiffusion:
        config = self.config.generation
        model = self._said(
            lambda: LatentDiffusion.from_pretrained(
                config.model,
                dtype=torch_dtype(config.precision),
                autoencoder=config.autoencoder,
                tokenizer=config.tokenizer,
            )
        )
        if config.guidance_rescale is not None:
            model.guidance_rescale = config.guidance_rescale
        return model

    def _said(self, load: Callable[[], _Model]) -> _Model:
        """A model whose notes are said as progress instead of by warnings."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ModelNote)
            model = load()
        for note in model.notes:
            self.progress.say(note)
        return model

    @cached_property
    def latent_size(self) -> int:
        """Side in pixels at which z is made; of Stable Diffusion v1, the 320 of the paper."""
        own = self.model.image_size
        return self.config.generation.latent_size or (320 if own == 512 else own)

    @cached_property
    def splits(self) -> tuple[Split, ...]:
        """One that the configuration names, or those of the data set."""
        config = self.config.dataset
        if config.split is not None:
            if config.folds is not None:
                raise CalcarineError(
                    "dataset.folds counts the splits of the data set itself; leave it out beside "
                    "dataset.split."
                )
            return (find_split(self.dataset, config.split),)
        # The same division under two names is one: its test stimuli must not count twice.
        alone: dict[tuple[frozenset[str], frozenset[str]], Split] = {}
        for split in self.dataset.splits:
            alone.setdefault((frozenset(split.train), frozenset(split.test)), split)
        found = tuple(alone.values())
        return found[: config.folds] if config.folds else found

    @cached_property
    def store(self) -> FeatureStore:
        return FeatureStore(self.run.path / "features")

    @cached_property
    def roi(self) -> dict[str, str]:
        """Regions for z, c and pixels; one region serves all where there is only one."""
        config, known = self.config.roi, set(self.dataset.rois)
        z = config.z or ("early" if "early" in known else "all")
        c = config.c or ("ventral" if "ventral" in known else z)
        chosen = {"z": z, "c": c, "pixels": config.pixels or z}
        for name in chosen.values():
            self.dataset.roi_mask(name)
        return chosen

    @cached_property
    def alphas(self) -> NDArray[np.float64]:
        ridge = self.config.ridge
        if ridge.alphas is not None:
            return np.sort(np.asarray(ridge.alphas, np.float64))
        return np.logspace(ridge.alpha_min, ridge.alpha_max, ridge.n_alphas)

    @property
    def ridge_options(self) -> dict[str, Any]:
        """What all decoders are fitted with."""
        ridge = self.config.ridge
        return {
            "alphas": self.alphas,
            "n_folds": ridge.n_folds,
            "intercept": ridge.intercept,
            "grouped": ridge.grouped,
        }

    @cached_property
    def recipe(self) -> LatentSettings:
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
        with self.progress.track("Latents z", len(self.dataset.stimuli)) as advance:
            return self.recipe.z(self.store, self.model, self.dataset.stimuli, advance)

    @cached_property
    def text_notes(self) -> list[str]:
        """What a reader must know of the text that c is made of."""
        stimuli = self.dataset.stimuli
        bare = without_category(stimuli, self.config.features.text)
        if not bare:
            return []
        if bare == len(stimuli):
            return [
                f"None of the {bare} stimuli has a category: c is that of the empty text for all, "
                "so only z is decoded (features.text=categories)."
            ]
        return [
            f"{bare} of {len(stimuli)} stimuli have no category; their c is that of the empty text "
            "(features.text=categories)."
        ]

    @cached_property
    def c(self) -> NDArray[np.float32]:
        for note in self.text_notes:
            self.progress.say(note)
        with self.progress.track("Text conditioning c", len(self.dataset.stimuli)) as advance:
            return self.recipe.c(self.store, self.model, self.dataset.stimuli, advance)

    @cached_property
    def generator(self) -> ConditionalDiffusion:
        """The diffusion model that listens to the brain in Vis-Dec."""
        source = self.config.visdec.model
        if self.config.generation.precision != "float32":
            raise CalcarineError(
                "Vis-Dec trains in float32, with visdec.PHASE.training.precision for less; set "
                "generation.precision to float32."
            )
        if source is None:
            return self.model
        found = self._said(lambda: load_model(source))
        if self.config.generation.guidance_rescale is not None:
            found.guidance_rescale = self.config.generation.guidance_rescale
        return found

    @property
    def generator_recipe(self) -> LatentSettings:
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
        """Latents of all stimuli at the size that the generator's U-Net sees."""
        with self.progress.track("Latents", len(self.dataset.stimuli)) as advance:
            return self.generator_recipe.z(
                self.store, self.generator, self.dataset.stimuli, advance
            )

    @cached_property
    def generator_contexts(self) -> NDArray[np.float32]:
        """Contexts of the text of all stimuli, of a generator that has text."""
        assert isinstance(self.generator, LatentDiffusion)  # visdec.made_of has looked
        with self.progress.track("Contexts", len(self.dataset.stimuli)) as advance:
            return self.generator_recipe.c(
                self.store, self.generator, self.dataset.stimuli, advance
            )

    def phase_on(self, name: str) -> bool:
        """Whether a phase of Vis-Dec is part of the run."""
        config = self.config.visdec
        if not config.enabled:
            return False
        return name == "finetune" or getattr(config, name).enabled

    def phase(self, name: str, split: Split) -> Path:
        """Folder in which a phase is trained for a split, named by what is trained."""
        key = self.training_keys[name]
        training = getattr(self.config.visdec, name).training
        if self.trained is not None and "steps" not in training.identity:
            # In one run more steps go on from fewer; of several runs each keeps its own.
            key = content_key(key, training.steps)
        return (self.trained or self.run.networks) / f"{name}-{key[:12]}" / split.name

    @cached_property
    def training_keys(self) -> dict[str, str]:
        """What a training of each phase is.

        Unlike the key of its stage it leaves out a number of steps that may be raised later.
        """
        return {name: key for name, (_, key) in self._phase_keys.items()}

    @property
    def searches(self) -> bool:
        """Whether strength and guidance are chosen inside the training data."""
        if not self.config.ridge.enabled:
            return False
        search = self.config.generation.search
        enough = min(len(split.train) for split in self.splits) >= 2 * search.n_stimuli
        searches = enough and len(self.splits) > 1
        if search.enabled != "auto":
            searches = search.enabled
        if searches:
            for steps in (search.steps, self.config.generation.steps):
                for strength in search.strengths:
                    check_steps(steps, strength, "generation.search.strengths")
        return searches

    @property
    def needs_text_model(self) -> bool:
        """Whether z and c of the stimuli are made; Vis-Dec alone does not need them."""
        config = self.config
        return config.ridge.enabled or config.encoding.enabled

    @cached_property
    def _phase_keys(self) -> dict[str, tuple[str, str]]:
        """Keys of stage and training of the phases that are on; each holds those before."""
        from calcarine.experiment.run_visdec import made_of

        config, keys = self.config.visdec, {}
        splits = [split.digest() for split in self.splits]
        before = content_key(
            self.dataset.digest(), splits, config.roi, config.validation, config.seed
        )
        before = content_key(before, _without_later(config.encoder.model_dump()))
        for name in ("pretrain", "guide", "finetune"):
            if self.phase_on(name):
                part = getattr(config, name)
                own = part.model_dump(mode="json", exclude={"training", "enabled", *_SAMPLING})
                own = _without_later(own)
                parts = (name, before, own, part.training.identity, made_of(self, name))
                before = content_key(*parts, part.training.steps)
                keys[name] = before, content_key(*parts)
        return keys

    # A stage's key holds its settings and the key of the stage before.

    @cached_property
    def _features_key(self) -> str:
        made_of = self.recipe.provenance(self.dataset.stimuli)
        return content_key("features", self.dataset.digest(), self.model.digest, made_of)

    @cached_property
    def encode_key(self) -> str:
        """Key of the encoding stage, which may be asked of a run that has no use of z and c."""
        generation = self.config.generation.model_dump(mode="json")
        return content_key(
            "encode",
            self._features_key,
            _without_later(self.config.encoding.model_dump(mode="json", exclude={"enabled"})),
            {k: generation[k] for k in _Z_C_SETTINGS},
            [split.digest() for split in self.splits],
            self.config.evaluation.seed,
        )

    @cached_property
    def keys(self) -> dict[str, str]:
        config, generation = self.config, self.config.generation.model_dump(mode="json")
        generation.pop("batch_size")
        if not generation["z_empty_text"]:  # came later; older runs keep their keys
            generation.pop("z_empty_text")
        search = generation.pop("search")
        if len({stimulus for split in self.splits for stimulus in split.test}) < 2:
            raise CalcarineError(
                "There are fewer than two test stimuli, too few to score; use more test stimuli "
                "or more folds (dataset.folds)."
            )
        data, roi = self.dataset.digest(), self.roi  # mistakes in the data before the slow model
        features = self._features_key if self.needs_text_model else content_key("features", data)
        splits = [split.digest() for split in self.splits]
        fit = content_key(
            "fit",
            features,
            roi,
            config.ridge.model_dump(),
            splits,
            (search, {k: generation[k] for k in _SEARCH_USES}) if self.searches else None,
            config.evaluation.direct_ridge,
        )
        evaluation = config.evaluation.model_dump(mode="json", exclude={"audit"})
        parts = {"ceilings": evaluation.pop("ceilings"), "n": evaluation.pop("ceiling_samples")}
        phases = {name: key for name, (key, _) in self._phase_keys.items()}
        made = (
            fit,
            generation,
            parts,
            *([phases["finetune"], _sampling(config)] if phases else []),
        )
        reconstruct = content_key("reconstruct", *made)
        judge = self.dataset.judge
        evaluate = content_key(
            "evaluate",
            reconstruct,
            evaluation,
            judge_digest(judge) if judge else None,
            *_weights_there(config.evaluation.weights),
        )
        return {
            "features": features,
            **({"encode": self.encode_key} if config.encoding.enabled else {}),
            "fit": fit,
            **phases,
            "reconstruct": reconstruct,
            "evaluate": evaluate,
            **({"audit": content_key("audit", evaluate)} if config.evaluation.audit else {}),
            "report": content_key("report", evaluate, config.evaluation.audit),
        }


def _weights_there(folder: str | None) -> list[tuple[str, int]]:
    """Names and sizes of weights, so that those that were missing are used once they are there."""
    if folder is None:
        return []
    place = Path(folder)
    found = (file for file in place.rglob("*") if file.is_file())
    return sorted((str(file.relative_to(place)), file.stat().st_size) for file in found)


_SAMPLING = {"strength", "guidance", "sampler", "steps", "samples"}


def _sampling(config: Experiment) -> dict[str, Any]:
    return _without_later(config.visdec.finetune.model_dump(include=_SAMPLING))


_LATER = {"train": "means", "embedding": "shared", "align": 0.0, "latent": 0.0, "strength": 1.0}


def _without_later(settings: dict[str, Any]) -> dict[str, Any]:
    """Without settings that came later and change nothing, so that older trainings go on."""
    return {
        key: _without_later(value) if isinstance(value, dict) else value
        for key, value in settings.items()
        if key not in _LATER or value != _LATER[key]
    }
