"""Encoding models of single splits, and the pooling of their test responses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calcarine.brain import BrainDataset, Split
from calcarine.encoding._kept_fits import KeptFits
from calcarine.encoding.mean_responses import MeanResponses, TrainOn
from calcarine.encoding.models import (
    EncodingScores,
    UniqueVariance,
    column_correlations,
    column_r2,
    encode,
    unique_variance,
)
from calcarine.encoding.plan import AnalysisPlan
from calcarine.errors import SettingError
from calcarine.features.components import principal_components, stored_components
from calcarine.features.store import FeatureStore

__all__ = ["SplitModels", "join_tests", "pooled_scores", "pooled_unique"]


class SplitModels:
    """One split: its averaged responses, its features, and the scores so far."""

    def __init__(
        self,
        dataset: BrainDataset,
        split: Split,
        *,
        features: Mapping[str, Any],
        plan: AnalysisPlan,
        roi: str,
        train: TrainOn,
        n_folds: int,
        alphas: NDArray[np.float64] | None,
        device: str = "cpu",
        folder: str | Path | None = None,
        store: FeatureStore | None = None,
    ) -> None:
        self.responses = MeanResponses.from_dataset(dataset, split, roi, train)
        self.center = self.responses.center.astype(np.float32)
        self._ids = dataset.stimuli.ids
        self._train = np.isin(self._ids, split.train)
        self._features = {
            name: np.asarray(values) if isinstance(values, list | tuple) else values
            for name, values in features.items()
        }
        self._components = plan.n_components
        self._options: dict[str, Any] = {"n_folds": n_folds, "alphas": alphas}
        self._device = device
        self._scores: dict[str, EncodingScores] = {}
        folder = None if folder is None else Path(folder)
        if store is None and folder is not None:
            store = FeatureStore(folder / "components")
        self._store = store
        self._reduced: dict[str, NDArray[np.float32]] = {}
        settings = {
            "n_folds": n_folds,
            "alphas": None if alphas is None else np.asarray(alphas).tolist(),
            "n_components": plan.n_components,
            "stimuli": list(self._ids),
        }
        self._kept = KeptFits(folder, self.responses, self._features, settings)

    def _space(self, name: str) -> NDArray[np.float32]:
        values = self._values(name)
        if int(np.prod(values.shape[1:], dtype=np.int64)) <= self._components:
            return np.asarray(values[:], dtype=np.float32).reshape(values.shape[0], -1)
        if self._store is not None:
            digest = self._kept.digest(name)
            return stored_components(
                self._store, name, values, digest, self._train, self._components
            )
        if name not in self._reduced:
            self._reduced[name] = principal_components(values, self._train, self._components)
        return self._reduced[name]

    def _values(self, name: str) -> Any:
        if name not in self._features:
            raise SettingError(
                f"The features of {name} are missing; extract them, or give an array of them."
            )
        return self._features[name]

    def alone(self, name: str) -> EncodingScores:
        """Fit one feature space alone."""
        if name not in self._scores:
            self._values(name)
            self._scores[name] = self._kept.scores(name, lambda: self._fit(name))
        return self._scores[name]

    def fit(self, spaces: tuple[str, ...]) -> None:
        """Fit one feature space alone, or two together."""
        if len(spaces) == 1:
            self.alone(spaces[0])
        else:
            self.together((spaces[0], spaces[1]))

    def digest(self, name: str) -> str:
        """Return the hash of all that decides the fits of a feature space."""
        self._values(name)
        return self._kept.name(name)

    def _fit(self, name: str) -> EncodingScores:
        space = self._space(name)
        return encode(self.responses, space, self._ids, device=self._device, **self._options)

    def together(self, pair: tuple[str, str]) -> UniqueVariance:
        """Fit two feature spaces together."""
        alone = {name: self.alone(name) for name in pair}
        first, second = pair
        without = {first: alone[second].predicted, second: alone[first].predicted}
        return self._kept.unique(without, lambda: self._fit_pair(pair, alone))

    def _fit_pair(
        self, pair: tuple[str, str], alone: Mapping[str, EncodingScores]
    ) -> UniqueVariance:
        spaces = {name: self._space(name) for name in pair}
        return unique_variance(self.responses, spaces, self._ids, alone=alone, **self._options)


def join_tests(folds: Sequence[SplitModels]) -> MeanResponses:
    """Join the test responses of all folds; several are relative to their training means."""
    if not folds:
        raise SettingError("An encoding analysis needs at least one split.")
    parts = [fold.responses for fold in folds]
    if len(folds) == 1:
        return parts[0]
    seen = Counter(key for part in parts for key in part.test_ids)
    twice = [key for key, count in seen.items() if count > 1]
    if twice:
        raise SettingError(
            f"Several splits test the same stimuli ({twice[0]} and {len(twice) - 1} more), so "
            "their tests cannot be pooled; choose one split, with dataset.split."
        )
    test = np.concatenate([fold.responses.test - fold.center for fold in folds])
    ids = tuple(key for part in parts for key in part.test_ids)
    return MeanResponses(parts[0].train, test, parts[0].train_ids, ids)


def _pooled(
    folds: Sequence[SplitModels], parts: Sequence[NDArray[np.float32]]
) -> NDArray[np.float32]:
    if len(folds) == 1:
        return parts[0]
    return np.concatenate([part - fold.center for fold, part in zip(folds, parts, strict=True)])


def pooled_scores(
    folds: Sequence[SplitModels], target: MeanResponses, space: str
) -> EncodingScores:
    """Score a feature space alone on the test responses of all folds."""
    scores = [fold.alone(space) for fold in folds]
    if len(scores) == 1:
        return scores[0]
    predicted = _pooled(folds, [one.predicted for one in scores])
    return EncodingScores(
        r=column_correlations(predicted, target.test),
        r2=column_r2(predicted, target.test),
        cv_r2=np.mean([one.cv_r2 for one in scores], axis=0),
        alpha=np.median([one.alpha for one in scores], axis=0),
        predicted=predicted,
    )


def pooled_unique(
    folds: Sequence[SplitModels], target: MeanResponses, pair: tuple[str, str]
) -> UniqueVariance:
    """Compute the unique variance of two feature spaces on the test responses of all folds."""
    scores = [fold.together(pair) for fold in folds]
    if len(scores) == 1:
        return scores[0]
    predicted = _pooled(folds, [one.predicted for one in scores])
    without = {
        name: _pooled(folds, [one.predicted_without[name] for one in scores]) for name in pair
    }
    r2 = column_r2(predicted, target.test)
    unique = {name: r2 - column_r2(part, target.test) for name, part in without.items()}
    return UniqueVariance(r2, unique, predicted, without)
