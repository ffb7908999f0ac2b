"""Vis-Dec as an estimator: fit on a subject, reconstruct, save, load (Sun et al. 2023)."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from calcarine.brain import BrainDataset, Split
from calcarine.decoding._fitted import check_fitted
from calcarine.diffusion import ConditionalDiffusion, load_model
from calcarine.diffusion.noise import Keys, as_keys
from calcarine.errors import DamagedFileError, SettingError, ShapeError
from calcarine.files import read_json, write_text
from calcarine.visdec._fit import VisDecFit
from calcarine.visdec.brain_conditioning import BrainConditioning
from calcarine.visdec.phases import TrainingStimuli
from calcarine.visdec.settings import VisDecSettings

__all__ = ["VisDec"]

_FILE = "visdec.json"
_FORMAT = "calcarine-visdec-1"


class VisDec(BaseEstimator):  # type: ignore[misc]
    """Vis-Dec: a diffusion model that is conditioned on the tokens of an fMRI encoder.

    ``fit`` trains three phases: *pretrain* (a masked autoencoder of voxel vectors), *guide*
    (pictures guide its encoder) and *finetune* (its encoder conditions the diffusion model).

    Parameters
    ----------
    settings : {"mini", "paper"}, mapping or VisDecSettings
        Settings of the three phases; see :class:`calcarine.visdec.VisDecSettings`.
    model : str, Path or ConditionalDiffusion
        The diffusion model, or its source for :func:`calcarine.diffusion.load_model`.
    roi : str
        Region whose voxels the encoder reads.
    device : str, optional
        Device of the diffusion model and of the training; by default a GPU if there is one.

    Attributes
    ----------
    conditioning_ : BrainConditioning
        The trained conditioner, and the trained weights of the U-Net.
    model_ : ConditionalDiffusion
        The diffusion model itself, unchanged.
    history_ : dict
        Data set, subject, split and training stimuli of the fit, and which of these validated.

    See Also
    --------
    calcarine.decoding.LatentRegression : Linear decoders of z and c.

    Notes
    -----
    Source: Sun et al. (2023), section 3. To use several GPUs, published weights, or vectors of
    other subjects, run an experiment with the preset ``visdec2023`` instead.

    Examples
    --------
    >>> import calcarine as ca
    >>> brain = ca.load_dataset("simulated", n_train=60, n_test=10)
    >>> decoder = ca.VisDec().fit(brain)  # doctest: +SKIP
    >>> pictures = decoder.reconstruct(brain)  # doctest: +SKIP
    >>> decoder.save("my-visdec")  # doctest: +SKIP
    """

    def __init__(
        self,
        settings: str | Mapping[str, Any] | VisDecSettings = "mini",
        model: str | Path | ConditionalDiffusion = "mini",
        roi: str = "all",
        device: str | None = None,
    ) -> None:
        self.settings = settings
        self.model = model
        self.roi = roi
        self.device = device

    def __repr__(self) -> str:
        settings = self.settings if isinstance(self.settings, str) else type(self.settings).__name__
        fitted = "fitted" if hasattr(self, "conditioning_") else "not fitted"
        model = self._model_name()
        return f"VisDec(settings={settings!r}, model={model!r}, roi={self.roi!r}; {fitted})"

    def fit(
        self,
        brain: BrainDataset,
        split: str | Split | None = None,
        *,
        folder: str | Path | None = None,
        progress: Callable[[str, int], None] | None = None,
    ) -> VisDec:
        """Train the three phases on the training responses of a split.

        Parameters
        ----------
        brain : BrainDataset
            Responses and stimuli of one subject.
        split : str, Split or None
            A split of the data set, or its name; None takes the first.
        folder : str or Path, optional
            Folder of checkpoints. An interrupted fit with the same folder resumes. By default
            checkpoints are temporary.
        progress : callable, optional
            Receives the name of the phase and the number of steps since it was last called.

        Returns
        -------
        VisDec
            The fitted decoder itself. The same data and settings give the same weights.

        Raises
        ------
        SettingError
            If a setting does not exist, or settings do not fit the model.
        """
        settings = self._settings()
        split = brain.split(split)
        self.model_ = self._load_model()
        stimuli = TrainingStimuli.from_dataset(
            brain,
            split,
            self.roi,
            settings.validation,
            settings.seed,
            together=settings.scale == "all",
        )
        with _training_folder(folder) as place:
            fit = VisDecFit(settings, self.model_, brain.stimuli, stimuli, place, progress)
            self.conditioning_ = fit.run()
        self.history_ = {
            "dataset": brain.name,
            "subject": brain.subject,
            "simulated": brain.simulated,
            "split": split.name,
            "trained_on": sorted(split.train),
            "validation": sorted(stimuli.validation),
        }
        return self

    def reconstruct(
        self,
        responses: BrainDataset | NDArray[Any],
        keys: Keys | None = None,
        *,
        split: str | Split | None = None,
        samples: int = 1,
        seed: int = 42,
        batch_size: int = 32,
        progress: Callable[[int], None] | None = None,
    ) -> NDArray[np.float32]:
        """Make pictures from responses.

        Parameters
        ----------
        responses : BrainDataset, or array of shape (n, n_voxels) or (n_voxels,)
            A data set stands for its averaged test responses, in the order of the test set. An
            array holds responses of the same region, as measured.
        keys : sequence of n stimulus ids, optional
            Stimulus of each row of an array; with ``seed``, it determines the noise.
        split : str, Split or None
            Split of a data set; None takes the first.
        samples : int
            Number of pictures for each response.
        seed : int
            Seed of the noise.
        batch_size : int
            Changes speed and memory, never the pictures.
        progress : callable, optional
            Receives the number of pictures of each finished batch.

        Returns
        -------
        float32 array of shape (n, height, width, 3)
            In [0, 1]; (n, samples, height, width, 3) if ``samples`` is above 1, and without the
            first axis for one response.

        Raises
        ------
        NotFittedError
            If the decoder is not fitted.
        ShapeError
            If responses have another number of voxels than the training responses.
        """
        check_fitted(self, "conditioning_")
        if samples < 1:
            raise SettingError(f"samples is {samples}; choose 1 or more.")
        values, names = self._rows(responses, keys, split)
        if values.ndim == 1:
            options: dict[str, Any] = {"samples": samples, "seed": seed, "progress": progress}
            one = self.reconstruct(values[None], names, batch_size=batch_size, **options)
            return np.asarray(one[0])
        if len(values) != len(names):
            raise ShapeError(
                f"reconstruct received {len(values)} responses and {len(names)} keys; give one "
                "stimulus id for each response."
            )
        finetune = self._settings().finetune
        pictures = self.conditioning_.generate(
            self.model_,
            np.repeat(values, samples, axis=0),
            [(name, sample) for name in names for sample in range(samples)],
            strength=finetune.strength,
            guidance=finetune.guidance,
            steps=finetune.steps,
            sampler=finetune.sampler,
            seed=seed,
            batch_size=batch_size,
            progress=progress,
        )
        if samples == 1:
            return pictures
        return pictures.reshape(len(values), samples, *pictures.shape[1:])

    def _rows(
        self,
        responses: BrainDataset | NDArray[Any],
        keys: Keys | None,
        split: str | Split | None,
    ) -> tuple[NDArray[Any], list[str]]:
        """Return responses and the stimulus of each."""
        if isinstance(responses, BrainDataset):
            test = responses.test(split, self.roi)
            return test.data, list(test.stimulus_ids)
        if keys is None:
            raise SettingError(
                "reconstruct needs a stimulus id for each response as keys, because the noise of a "
                "picture belongs to its stimulus and not to its position."
            )
        return np.asarray(responses), [name for name, _ in as_keys(keys)]

    def save(self, folder: str | Path) -> None:
        """Write the fitted decoder as safetensors and JSON, without the diffusion model.

        Parameters
        ----------
        folder : str or Path
            Created if it does not exist.
        """
        check_fitted(self, "conditioning_")
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.conditioning_.save(folder)
        content = {
            "format": _FORMAT,
            "settings": self._settings().model_dump(mode="json"),
            "model": self._model_name(),
            "digest": self.model_.digest,
            "roi": self.roi,
            "history": self.history_,
        }
        write_text(folder / _FILE, json.dumps(content, indent=2))

    @classmethod
    def load(
        cls, folder: str | Path, model: str | Path | ConditionalDiffusion | None = None
    ) -> VisDec:
        """Read a decoder that :meth:`save` wrote.

        Parameters
        ----------
        folder : str or Path
        model : str, Path or ConditionalDiffusion, optional
            The diffusion model of the fit; by default it is loaded from the same source again.

        Raises
        ------
        DamagedFileError
            If a file is missing or damaged.
        SettingError
            If the model has other weights than the model of the fit.
        """
        folder = Path(folder)
        try:
            content = read_json(folder / _FILE)
            if content["format"] != _FORMAT:
                raise ValueError(content["format"])
            settings = VisDecSettings.from_mapping(content["settings"])
            source, digest = str(content["model"]), str(content["digest"])
            self = cls(settings, source if model is None else model, str(content["roi"]))
            self.history_ = dict(content["history"])
        except (OSError, ValueError, TypeError, LookupError) as error:
            if isinstance(error, SettingError):
                raise
            raise DamagedFileError(
                f"{folder} holds no Vis-Dec decoder: {_FILE} is missing or damaged; save it again."
            ) from error
        self.conditioning_ = BrainConditioning.load(folder)
        self.model_ = self._load_model()
        if self.model_.digest != digest:
            raise SettingError(
                f"The model {self.model_.name} has other weights than the model {source} that the "
                f"decoder in {folder} was fitted with; give that one as model."
            )
        return self

    def _settings(self) -> VisDecSettings:
        if isinstance(self.settings, VisDecSettings):
            return self.settings
        if isinstance(self.settings, str):
            return VisDecSettings.from_preset(self.settings)
        return VisDecSettings.from_mapping(self.settings)

    def _model_name(self) -> str:
        own = isinstance(self.model, ConditionalDiffusion)
        return self.model.name if own else str(self.model)  # type: ignore[union-attr]

    def _load_model(self) -> ConditionalDiffusion:
        if isinstance(self.model, ConditionalDiffusion):
            return self.model
        return load_model(self.model, self.device)


@contextmanager
def _training_folder(folder: str | Path | None) -> Iterator[Path]:
    if folder is not None:
        yield Path(folder)
        return
    with tempfile.TemporaryDirectory(prefix="calcarine-visdec-") as place:
        yield Path(place)
