"""A small simulated decoding study without errors, into which one error at a time is injected.

Pictures are sums of smooth fields and fine detail. Responses depend on the fields, ridge regression
predicts the fields, and a generator draws the predicted fields with random detail.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from calcarine.audit.inputs import (
    AuditInputs,
    DecoderChoices,
    FitStatistics,
    PictureSet,
    Prediction,
    ReportedScore,
    SampleChoice,
    TrialTable,
)

__all__ = [
    "LATENTS",
    "PENALTY",
    "SAMPLES",
    "SESSIONS",
    "SIDE",
    "VOXELS",
    "SimulatedDecoding",
    "of_components",
    "reported",
]

Array = NDArray[Any]
SIDE, LATENTS, VOXELS, SESSIONS, SAMPLES = 32, 24, 150, 4, 5
PENALTY = 60.0


@dataclass
class SimulatedDecoding:
    """A simulated experiment; change its parts before calling `inputs`.

    Parameters
    ----------
    seed : int
    n_train, n_test : int
    noise : float
        Standard deviation of the noise of single responses; that of the signal is 1.
    neighbours : bool
        Whether half of the test stimuli have a neighbour in training.
    scale_with_test, components_with_test : bool
        Injected errors: scaling, or components, fitted on all trials.
    chosen_on_test : {"", "penalties", "voxels", "repeats"}
        Injected error: what is chosen by the test score.
    change_predictions : callable, optional
        Called with predicted latents and the experiment.
    """

    seed: int
    n_train: int = 120
    n_test: int = 40
    noise: float = 1.2
    neighbours: bool = False
    scale_with_test: bool = False
    components_with_test: bool = False
    chosen_on_test: Literal["", "penalties", "voxels", "repeats"] = ""
    change_predictions: Callable[[Array, SimulatedDecoding], Array] | None = None

    def __post_init__(self) -> None:
        rng = self.rng = np.random.default_rng([self.seed, 7])
        n = self.n_train + self.n_test
        self.train_ids = [f"train-{i:03d}" for i in range(self.n_train)]
        self.test_ids = [f"test-{i:03d}" for i in range(self.n_test)]
        fields = gaussian_filter(rng.standard_normal((LATENTS, SIDE, SIDE, 3)), (0, 4, 4, 0))
        self.fields = (fields / fields.std(axis=(1, 2, 3), keepdims=True)).reshape(LATENTS, -1)
        self.latents = rng.standard_normal((n, LATENTS))
        if self.neighbours:
            half = self.n_test // 2
            near = self.latents[self.n_train : self.n_train + half]
            self.latents[:half] = near + 0.45 * rng.standard_normal(near.shape)
        self.images = self.draw(self.latents, rng)
        self._respond(rng)

    def _respond(self, rng: np.random.Generator) -> None:
        stimuli = np.concatenate(
            [
                np.repeat(np.arange(self.n_train), 2),
                np.repeat(np.arange(self.n_test), 3) + self.n_train,
            ]
        )
        self.shown = rng.permutation(stimuli)
        self.session = np.sort(np.arange(len(self.shown)) % SESSIONS)
        weights = rng.standard_normal((LATENTS, VOXELS)) / np.sqrt(LATENTS)
        noise = self.noise * rng.standard_normal((len(self.shown), VOXELS))
        offsets = 3 * rng.standard_normal((SESSIONS, VOXELS))
        gains = 1 + rng.random((SESSIONS, VOXELS))
        clean = self.latents[self.shown] @ weights + noise
        self.raw = (clean + offsets[self.session]) * gains[self.session]

    def draw(self, latents: Array, rng: np.random.Generator, contrast: float = 32.0) -> Array:
        """Return pictures of latents with random detail, uint8 of shape (n, 32, 32, 3)."""
        smooth = (latents @ self.fields / np.sqrt(LATENTS)).reshape(-1, SIDE, SIDE, 3)
        detail = gaussian_filter(rng.standard_normal(smooth.shape), (0, 0.7, 0.7, 0))
        detail /= detail.std()
        return np.asarray(np.rint(np.clip(128 + contrast * smooth + 14 * detail, 0, 255)), np.uint8)

    @property
    def is_train(self) -> NDArray[np.bool_]:
        """Whether each trial is a training trial."""
        return np.asarray(self.shown < self.n_train)

    @cached_property
    def scaled(self) -> Array:
        """Responses z-scored by session; also sets ``statistics``."""
        values = np.empty_like(self.raw)
        result = []
        for session in range(SESSIONS):
            inside = self.session == session
            train, both = self.raw[inside & self.is_train], self.raw[inside]
            used = both if self.scale_with_test else train
            mean, scale = used.mean(axis=0), used.std(axis=0)
            values[inside] = (both - mean) / scale
            unit = both.std(axis=0)
            for what, stored, make in (("mean", mean, np.mean), ("scale", scale, np.std)):
                by_train, by_all = (np.asarray(make(rows, axis=0)) for rows in (train, both))
                name = f"{what} of session {session}"
                result.append(FitStatistics(name, stored, by_train, by_all, unit))
        self.statistics = result
        return np.asarray(values)

    @cached_property
    def decoder(self) -> Callable[[Array], Array]:
        """Ridge from mean responses to latents, fitted on training trials."""
        x = self.scaled
        if self.components_with_test:
            axes = np.linalg.svd(x - x.mean(0), full_matrices=False)[2][:60]
        elif self.chosen_on_test == "voxels":
            axes = np.eye(VOXELS)[self.chosen_voxels]
        else:
            axes = np.eye(VOXELS)
        seen = x[self.is_train] @ axes.T
        targets = self.latents[self.shown[self.is_train]]
        x_mean, y_mean = seen.mean(0), targets.mean(0)
        square, both = (seen - x_mean).T @ (seen - x_mean), (seen - x_mean).T @ (targets - y_mean)

        def fit(penalty: float) -> Array:
            return np.asarray(np.linalg.solve(square + penalty * np.eye(len(axes)), both))

        weights, self.penalties = fit(PENALTY), np.full(LATENTS, PENALTY)
        if self.chosen_on_test == "penalties":
            tried = [1.0, 10.0, PENALTY, 300.0, 1000.0, 3000.0]
            every = np.stack([fit(penalty) for penalty in tried])
            test = self._test_means(self._all_repeats) @ axes.T - x_mean
            truth = self.latents[self.test_rows]
            errors = np.square(test @ every + y_mean - truth).mean(axis=1)
            best = errors.argmin(axis=0)
            weights = every[best, :, np.arange(LATENTS)].T
            self.penalties = np.asarray(tried)[best]
        return lambda rows: (rows @ axes.T - x_mean) @ weights + y_mean

    @cached_property
    def chosen_voxels(self) -> NDArray[np.int64]:
        """The half of the voxels whose test responses correlate best with the test latents."""
        test, truth = self._test_means(self._all_repeats), self.latents[self.test_rows]
        test, truth = ((v - v.mean(0)) / v.std(0) for v in (test, truth))
        strength = np.abs(test.T @ truth).max(axis=1)
        return np.sort(np.argsort(-strength)[: VOXELS // 2])

    @property
    def _all_repeats(self) -> list[Array]:
        return [np.flatnonzero(self.shown == row) for row in self.test_rows]

    def _test_means(self, trials: list[Array]) -> Array:
        return np.stack([self.scaled[rows].mean(0) for rows in trials])

    @cached_property
    def test_responses(self) -> Array:
        """Means over all or the chosen repeats of each test stimulus."""
        trials = self._all_repeats
        if self.chosen_on_test == "repeats":
            predicted = [self.decoder(self.scaled[rows]) for rows in trials]
            truth = self.latents[self.test_rows]
            errors = [np.square(p - t).sum(axis=1) for p, t in zip(predicted, truth, strict=True)]
            trials = [rows[[each.argmin()]] for rows, each in zip(trials, errors, strict=True)]
        return self._test_means(trials)

    def decoder_choices(self) -> list[DecoderChoices]:
        """Return the choices, compared with those of training alone and all repeats."""
        _ = self.decoder
        voxels = len(self.chosen_voxels) if self.chosen_on_test == "voxels" else VOXELS
        repeats = self._test_means(self._all_repeats)
        same = int(np.isclose(repeats, self.test_responses).all(axis=1).sum())
        return [
            DecoderChoices("penalties", LATENTS, int((self.penalties == PENALTY).sum())),
            DecoderChoices("voxels of the region", VOXELS, voxels),
            DecoderChoices("means over all repeats", self.n_test, same),
        ]

    @property
    def test_rows(self) -> Array:
        """Rows of the test stimuli among all stimuli."""
        return np.arange(self.n_train, self.n_train + self.n_test)

    def predict(self, rows: Array) -> Array:
        """Return latents of some test stimuli, predicted from these alone."""
        result = self.decoder(self.test_responses[rows])
        return result if self.change_predictions is None else self.change_predictions(result, self)

    def trials(self, **columns: Any) -> TrialTable:
        """Return the valid table of trials, with changed columns."""
        names = np.array(self.train_ids + self.test_ids)
        result: dict[str, Any] = {
            "stimulus": names[self.shown],
            "role": np.where(self.is_train, "train", "test"),
            "session": self.session,
            "fold": (self.shown % 5).astype(str),
            "picture": np.array([f"p{i}" for i in range(len(names))])[self.shown],
            "pretrain": self.is_train,
        }
        return TrialTable(**{**result, **columns})

    def inputs(self) -> AuditInputs:
        """Return the valid audit inputs, with everything that an audit can use."""
        rng = np.random.default_rng([self.seed, 8])
        values = self.predict(np.arange(self.n_test))
        samples = np.stack(
            [
                self.draw(values + 0.35 * rng.standard_normal(values.shape), rng, 36.0)
                for _ in range(SAMPLES)
            ],
            axis=1,
        )
        smooth = (values @ self.fields / np.sqrt(LATENTS)).reshape(-1, SIDE, SIDE, 3)
        low = np.rint(np.clip(128 + 30 * smooth, 0, 255)).astype(np.uint8)
        test = PictureSet.of(self.test_ids, self.images[self.n_train :])
        everything = PictureSet.of(self.test_ids, samples)
        _ = self.scaled
        return AuditInputs(
            title="simulated pipeline",
            recon=PictureSet.of(self.test_ids, samples[:, 0]),
            truth=test,
            train=PictureSet.of(self.train_ids, self.images[: self.n_train]),
            trials=self.trials(),
            responses=self.scaled,
            statistics=self.statistics,
            predictions=(
                Prediction(
                    "latents", values, self.latents[self.n_train :], self.latents[: self.n_train]
                ),
            ),
            sample_choice=SampleChoice(everything, np.zeros(self.n_test, np.int64)),
            others={"low-level": PictureSet.of(self.test_ids, low)},
            numbers=reported(test, PictureSet.of(self.test_ids, samples[:, 0])),
            simulated=True,
            seed=self.seed,
            given=("all inputs, simulated",),
        )


def of_components(count: int) -> Callable[[Array, SimulatedDecoding], Array]:
    """Return a change of predictions that keeps the leading principal components of training."""

    def leading(values: Array, study: SimulatedDecoding) -> Array:
        train = study.latents[: study.n_train]
        axes = np.linalg.svd(train - train.mean(0), full_matrices=False)[2][:count]
        return np.asarray((values - train.mean(0)) @ axes.T @ axes + train.mean(0))

    return leading


def reported(truth: PictureSet, recon: PictureSet, best: bool = False) -> tuple[ReportedScore, ...]:
    """Return PixCorr and SSIM of the protocol "calcarine" with three decimals, as in a paper."""
    from calcarine.audit.reported_scores import definitions

    result = []
    for definition in definitions({"pixcorr", "ssim"}):
        if definition.protocol == "calcarine":
            each = np.stack(
                [definition.measure(truth, recon, s) for s in range(recon.samples)], axis=1
            )
            value = float((each.max(axis=1) if best else each[:, 0]).mean())
            result.append(ReportedScore(definition.family, round(value, 3), 3))
    return tuple(result)
