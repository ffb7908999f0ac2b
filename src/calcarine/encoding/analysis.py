"""The encoding analyses of Takagi & Nishimoto (2023), section 3.4, on one subject.

latents   z, c and z_c alone
noise     z and z_c together, unique variance of each, over noise levels
stages    z and z_c early, in the middle and late in the denoising
blocks    blocks of the U-Net at these stages; the winner of each voxel
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calcarine.brain import BrainDataset, Split
from calcarine.diffusion.trajectory import STAGES
from calcarine.encoding.models import (
    EncodingScores,
    MeanResponses,
    TrainOn,
    UniqueVariance,
    column_correlations,
    column_r2,
    encode,
    unique_variance,
)
from calcarine.encoding.region_scores import normalised, region_table, unique_table, winners
from calcarine.encoding.significance import correlation_p, discoveries, permutation_p
from calcarine.errors import CalcarineError
from calcarine.features.components import principal_components

__all__ = ["ANALYSES", "Analysis", "AnalysisPlan", "analyse"]

ANALYSES = ("latents", "noise", "stages", "blocks")
AnalysisName = Literal["latents", "noise", "stages", "blocks"]


@dataclass(frozen=True)
class AnalysisPlan:
    """What to ask, and of which feature spaces.

    Attributes
    ----------
    analyses
        Some of `ANALYSES`.
    strengths
        Noise levels of "noise".
    strength
        Noise level of the other questions.
    blocks
        Of the U-Net, see `calcarine.diffusion.trajectory.block_names`.
    extra_feature_spaces
        Further feature spaces that are fitted alone.
    n_components
        Wider spaces are reduced to so many principal components of the
        training stimuli.
    """

    analyses: tuple[str, ...] = ANALYSES
    strengths: tuple[float, ...] = (0.2, 0.4, 0.6, 0.8)
    strength: float = 0.8
    blocks: tuple[str, ...] = ()
    extra_feature_spaces: tuple[str, ...] = ()
    n_components: int = 6400

    def __post_init__(self) -> None:
        unknown = [name for name in self.analyses if name not in ANALYSES]
        if unknown or not self.analyses:
            raise CalcarineError(
                f"There is no encoding question {unknown[0] if unknown else 'in an empty list'}; "
                f"ask some of {', '.join(ANALYSES)}."
            )
        if "blocks" in self.analyses and not self.blocks:
            raise CalcarineError("The question of blocks needs names of blocks of the U-Net.")

    def alone(self) -> dict[str, list[str]]:
        """Feature spaces that are fitted alone, by the question that compares them."""
        last = f"z_c@{self.strength:g}"
        asked = {"latents": ["z", "c", last]}
        for stage in STAGES:
            asked[f"blocks, {stage}"] = [
                f"unet:{block}@{self.strength:g}:{stage}" for block in self.blocks
            ]
        asked = {
            name: spaces for name, spaces in asked.items() if name.split(",")[0] in self.analyses
        }
        return asked | (
            {"also": list(self.extra_feature_spaces)} if self.extra_feature_spaces else {}
        )

    def pairs(self) -> dict[str, list[tuple[str, str]]]:
        """Pairs of feature spaces that are fitted together, by question."""
        asked = {
            "noise": [("z", f"z_c@{strength:g}") for strength in self.strengths],
            "stages": [("z", f"z_c@{self.strength:g}:{stage}") for stage in STAGES],
        }
        return {name: spaces for name, spaces in asked.items() if name in self.analyses}

    def spaces(self) -> list[str]:
        """Every feature space that is needed."""
        alone = [space for spaces in self.alone().values() for space in spaces]
        together = [space for pairs in self.pairs().values() for pair in pairs for space in pair]
        return list(dict.fromkeys([*alone, *together]))


@dataclass(frozen=True, eq=False)
class Analysis:
    """What came out for one subject.

    Attributes
    ----------
    voxels
        A row a voxel; for every space fitted alone the columns ``r``, ``p``,
        ``q``, ``significant``, ``normalised``, ``cv_r2`` and ``alpha`` (of
        several splits the median), as ``r:z``; for
        every pair ``unique:SPACE|z+SPACE``; for blocks ``winner:STAGE``.
    regions
        Mean r by region and space with intervals over test stimuli.
    unique
        Mean unique r2 by question, pair, region and space with intervals.
    winners
        Share of a region's significant voxels that each block wins.
    facts
        Counts for the report: stimuli, voxels, rate, null; by space the
        number of significant voxels and, of those predicted inside the
        training stimuli, the share at an end of the penalties.
    """

    voxels: pd.DataFrame
    regions: pd.DataFrame
    unique: pd.DataFrame
    winners: pd.DataFrame
    facts: dict[str, Any] = field(default_factory=dict)


def analyse(
    dataset: BrainDataset,
    splits: Sequence[Split],
    features: Mapping[str, Any],
    plan: AnalysisPlan,
    *,
    roi: str = "all",
    train: TrainOn = "means",
    ceiling: NDArray[np.float64] | None = None,
    rate: float = 0.05,
    null: Literal["exact", "simulated"] = "exact",
    n_permutations: int = 0,
    n_folds: int = 5,
    n_boot: int = 1000,
    alphas: NDArray[np.float64] | None = None,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> Analysis:
    """Fit and test every voxel for every question.

    Parameters
    ----------
    dataset, splits, roi
        Test responses of several splits are put together, each about the
        training mean of its own split.
    features
        By name, arrays of shape (n, ...) with a row for each of
        ``dataset.stimuli.ids``; see `calcarine.features.extract_spaces`.
    plan
        Which analyses, and of which feature spaces.
    train
        Of `MeanResponses.from_dataset`.
    ceiling
        Noise ceilings of averaged test responses in percent, for the whole
        data set's voxels; None where they are not known.
    rate, null
        Of `discoveries` and `correlation_p`.
    n_permutations
        If above 0, p over shuffled test stimuli stand beside, with
        family-wise correction by the largest r.
    n_folds, alphas, n_boot, seed
        Of the fits and intervals.
    progress
        Told what comes next.

    Returns
    -------
    Analysis

    Raises
    ------
    CalcarineError
        If two splits test the same stimulus, which would count twice, or there
        are too few permutations for any p of at most `rate`.
    """
    if n_permutations and (1 + n_permutations) * rate < 1:
        raise CalcarineError(
            f"encoding.n_permutations is {n_permutations}: no p could be below {rate:g}; choose 0 "
            f"or at least {math.ceil(1 / rate) - 1}."
        )
    tell = progress or (lambda text: None)
    columns = np.flatnonzero(dataset.roi_mask(roi))
    rois = {name: mask[columns] for name, mask in dataset.rois.items() if mask[columns].any()}
    rois = {"all": np.ones(len(columns), dtype=np.bool_), **rois}
    folds = [_Fold(dataset, split, roi, features, plan, n_folds, alphas, train) for split in splits]
    truth = _joined(folds)
    n_test = len(truth.test)
    voxels = dataset.voxels.iloc[columns].reset_index(drop=True)
    tables: dict[str, list[pd.DataFrame]] = {"regions": [], "unique": [], "winners": []}
    new: dict[str, NDArray[Any]] = {"voxel": columns}
    known: dict[str, EncodingScores] = {}
    facts: dict[str, Any] = {
        "test_stimuli": n_test,
        "voxels": len(columns),
        "rate": rate,
        "null": null,
        "significant": {},
        "at_edge": {},
    }
    for question, spaces in plan.alone().items():
        scores = {}
        for space in spaces:
            tell(f"{question}: {space}")
            scores[space] = known[space] = _pooled_scores(folds, truth, space)
            p = correlation_p(scores[space].r, n_test, null, seed=seed)
            called, q = discoveries(p, rate)
            top = None if ceiling is None else normalised(scores[space].r, ceiling[columns])
            new |= {
                f"r:{space}": scores[space].r,
                f"p:{space}": p,
                f"q:{space}": q,
                f"significant:{space}": called,
                f"cv_r2:{space}": scores[space].cv_r2,
                f"alpha:{space}": scores[space].alpha,
            }
            if top is not None:
                new[f"normalised:{space}"] = top
            facts["significant"][space] = int(called.sum())
            if alphas is not None:
                facts["at_edge"][space] = _share_at_edge(scores[space], alphas)
            if n_permutations:
                both = permutation_p(scores[space].predicted, truth.test, n_permutations, seed)
                new[f"p_permuted:{space}"], new[f"p_family:{space}"] = both
        table = region_table(truth, scores, rois, n_boot, seed=seed)
        tables["regions"].append(table.assign(question=question))
        if question.startswith("blocks"):
            called = np.any([new[f"significant:{space}"] for space in spaces], axis=0)
            best = winners(scores, called)
            new[f"winner:{question.removeprefix('blocks, ')}"] = best
            tables["winners"].append(_shares(best, spaces, rois).assign(question=question))
    for question, pairs in plan.pairs().items():
        for pair in pairs:
            tell(f"{question}: {' and '.join(pair)}")
            found = _pooled_unique(folds, truth, pair)
            table = unique_table(truth, found, rois, n_boot, seed=seed)
            tables["unique"].append(table.assign(question=question, pair=" + ".join(pair)))
            for space, values in found.unique.items():
                new[f"unique:{space}|{'+'.join(pair)}"] = values
    done = {k: pd.concat(v, ignore_index=True) if v else pd.DataFrame() for k, v in tables.items()}
    whole = pd.concat([voxels, pd.DataFrame(new)], axis=1)
    return Analysis(whole, done["regions"], done["unique"], done["winners"], facts)


class _Fold:
    """One split: its averaged responses, its features, and what was fitted so far."""

    def __init__(
        self,
        dataset: BrainDataset,
        split: Split,
        roi: str,
        features: Mapping[str, Any],
        plan: AnalysisPlan,
        n_folds: int,
        alphas: NDArray[np.float64] | None,
        train: TrainOn,
    ) -> None:
        self.responses = MeanResponses.from_dataset(dataset, split, roi, train)
        self.center = self.responses.center.astype(np.float32)
        self._ids = dataset.stimuli.ids
        self._train = np.isin(self._ids, split.train)
        self._features, self._components = features, plan.n_components
        self._options: dict[str, Any] = {"n_folds": n_folds, "alphas": alphas}
        self._scores: dict[str, EncodingScores] = {}
        self._reduced: dict[str, NDArray[np.float32]] = {}

    def _space(self, name: str) -> NDArray[np.float32]:
        if name not in self._reduced:
            if name not in self._features:
                raise CalcarineError(f"The features of {name} are missing; extract them first.")
            values = self._features[name]
            width = int(np.prod(values.shape[1:], dtype=np.int64))
            if width > self._components:
                found = principal_components(values, self._train, self._components)
            else:
                found = np.asarray(values[:], dtype=np.float32).reshape(values.shape[0], -1)
            self._reduced[name] = found
        return self._reduced[name]

    def alone(self, name: str) -> EncodingScores:
        if name not in self._scores:
            self._scores[name] = encode(
                self.responses, self._space(name), self._ids, **self._options
            )
        return self._scores[name]

    def together(self, pair: tuple[str, str]) -> UniqueVariance:
        return unique_variance(
            self.responses,
            {name: self._space(name) for name in pair},
            self._ids,
            alone={name: self.alone(name) for name in pair},
            **self._options,
        )


def _joined(folds: Sequence[_Fold]) -> MeanResponses:
    """Test responses of all folds; of several, each about its training mean."""
    if not folds:
        raise CalcarineError("An encoding analysis needs at least one split.")
    parts = [fold.responses for fold in folds]
    if len(folds) == 1:
        return parts[0]
    seen = Counter(key for part in parts for key in part.test_ids)
    twice = [key for key, count in seen.items() if count > 1]
    if twice:
        raise CalcarineError(
            f"Several splits test the same stimuli ({twice[0]} and {len(twice) - 1} more), so "
            "their tests cannot be put together; take one split, with dataset.split."
        )
    test = np.concatenate([fold.responses.test - fold.center for fold in folds])
    ids = tuple(key for part in parts for key in part.test_ids)
    return MeanResponses(parts[0].train, test, parts[0].train_ids, ids)


def _pooled(folds: Sequence[_Fold], parts: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    if len(folds) == 1:
        return parts[0]
    return np.concatenate([part - fold.center for fold, part in zip(folds, parts, strict=True)])


def _pooled_scores(folds: Sequence[_Fold], truth: MeanResponses, space: str) -> EncodingScores:
    found = [fold.alone(space) for fold in folds]
    if len(found) == 1:
        return found[0]
    guess = _pooled(folds, [one.predicted for one in found])
    return EncodingScores(
        r=column_correlations(guess, truth.test),
        r2=column_r2(guess, truth.test),
        cv_r2=np.mean([one.cv_r2 for one in found], axis=0),
        alpha=np.median([one.alpha for one in found], axis=0),
        predicted=guess,
    )


def _pooled_unique(
    folds: Sequence[_Fold], truth: MeanResponses, pair: tuple[str, str]
) -> UniqueVariance:
    found = [fold.together(pair) for fold in folds]
    if len(found) == 1:
        return found[0]
    guess = _pooled(folds, [one.predicted for one in found])
    without = {
        name: _pooled(folds, [one.predicted_without[name] for one in found]) for name in pair
    }
    r2 = column_r2(guess, truth.test)
    unique = {name: r2 - column_r2(part, truth.test) for name, part in without.items()}
    return UniqueVariance(r2, unique, guess, without)


def _share_at_edge(scores: EncodingScores, alphas: NDArray[np.float64]) -> float:
    """Of the voxels that are predicted inside the training stimuli, those with an end penalty."""
    chosen = scores.alpha[scores.cv_r2 > 0]
    if not chosen.size or len(alphas) < 2:
        return 0.0
    low, high = np.min(alphas), np.max(alphas)
    return float(np.mean(np.isclose(chosen, low) | np.isclose(chosen, high)))


def _shares(
    best: NDArray[np.int64], spaces: Sequence[str], rois: Mapping[str, NDArray[np.bool_]]
) -> pd.DataFrame:
    rows = []
    for region, mask in rois.items():
        inside = best[mask]
        total = int((inside >= 0).sum())
        for at, space in enumerate(spaces):
            won = int((inside == at).sum())
            rows.append((region, space, won, total, won / total if total else np.nan))
    return pd.DataFrame(rows, columns=["region", "space", "won", "significant", "share"])
