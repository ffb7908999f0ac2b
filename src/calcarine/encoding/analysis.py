"""The encoding analyses of Takagi & Nishimoto (2023), section 3.4, for one subject.

================  ==========================================================================
latents           z, c and z_c, each alone
noise             z and z_c together, with the unique variance of each, over noise levels
denoising_stages  z and z_c together, in the early, middle and late stage of the denoising
blocks            blocks of the U-Net in these stages, and the best block of each voxel
================  ==========================================================================
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calcarine.brain import BrainDataset, Split
from calcarine.display import html_table
from calcarine.encoding._split_models import SplitModels, join_tests, pooled_scores, pooled_unique
from calcarine.encoding.mean_responses import TrainOn
from calcarine.encoding.models import EncodingScores
from calcarine.encoding.plan import AnalysisPlan
from calcarine.encoding.region_scores import normalised, region_table, unique_table, winners
from calcarine.encoding.significance import correlation_p, discoveries, permutation_p
from calcarine.errors import SettingError
from calcarine.features.store import FeatureStore
from calcarine.files.work_queue import WorkQueue
from calcarine.linear import EDGE_SHARE

__all__ = ["Analysis", "analyse", "edge_note"]


@dataclass(frozen=True, eq=False, repr=False)
class Analysis:
    """Results of the encoding analyses of one subject.

    Attributes
    ----------
    voxels : DataFrame
        One row per voxel. For every space that is fitted alone, the columns ``r``, ``p``, ``q``,
        ``significant``, ``normalised``, ``cv_r2`` and ``alpha`` (the median over splits), such as
        ``r:z``; for every region ``roi:NAME``, whether it holds the voxel; ``ceiling``, the noise
        ceiling in percent, where it is known; for every pair ``unique:SPACE|z+SPACE``; for blocks
        ``winner:STAGE``.
    regions : DataFrame
        Mean r by region and space, with intervals over test stimuli.
    unique : DataFrame
        Mean unique r2 by analysis, pair, region and space, with intervals.
    winners : DataFrame
        Share of the significant voxels of a region in which each block predicts best.
    facts : dict
        Numbers for the report: stimuli, voxels, rate, null; by space the number of significant
        voxels and, of the voxels that are predicted inside the training stimuli, the share with
        the smallest or largest penalty.

    Examples
    --------
    >>> import numpy as np
    >>> import calcarine as ca
    >>> from calcarine.encoding import analyse
    >>> seen = ca.StimulusSet.from_scenes(seed=0, indices=range(50))
    >>> z = np.random.default_rng(0).standard_normal((50, 4))
    >>> rois = {"V1": [True, True, False, False]}
    >>> brain = ca.BrainDataset.from_arrays(z, seen.ids, seen, test=10, rois=rois)
    >>> analysis = analyse(brain, None, {"z": z})
    >>> analysis.regions[["region", "space", "voxels"]].values.tolist()
    [['all', 'z', 4], ['V1', 'z', 2]]
    >>> bool(analysis.voxels["significant:z"].all())
    True
    """

    voxels: pd.DataFrame
    regions: pd.DataFrame
    unique: pd.DataFrame
    winners: pd.DataFrame
    facts: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        counts = self.facts.get("significant", {})
        found = ", ".join(f"{space} {count}" for space, count in counts.items())
        return (
            f"Analysis({len(self.voxels)} voxels, {self.facts.get('test_stimuli', 0)} test "
            f"stimuli; significant voxels: {found or 'none tested'})"
        )

    def _repr_html_(self) -> str:
        rows: dict[str, object] = {
            "voxels": len(self.voxels),
            "test stimuli": self.facts.get("test_stimuli", 0),
            "false discovery rate": self.facts.get("rate", ""),
        }
        for space, count in self.facts.get("significant", {}).items():
            rows[f"significant voxels, {space}"] = count
        return html_table("Analysis", rows)


def analyse(
    dataset: BrainDataset,
    splits: Split | Sequence[Split] | None,
    features: Mapping[str, Any],
    plan: AnalysisPlan | None = None,
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
    device: str = "cpu",
    seed: int = 0,
    folder: str | Path | None = None,
    store: FeatureStore | None = None,
    progress: Callable[[str], None] | None = None,
) -> Analysis:
    """Fit and test encoding models of every voxel.

    Parameters
    ----------
    dataset : BrainDataset
        Responses and stimuli of one subject.
    splits : Split, sequence of Split or None
        The test responses of several splits are pooled, each relative to the training mean of its
        own split. None takes all splits of the data set.
    features : mapping of str to array of shape (n, ...)
        Feature spaces by name, with one row for each of ``dataset.stimuli.ids``: arrays of your
        own, or those of :func:`calcarine.features.extract_spaces`.
    plan : AnalysisPlan, optional
        Which analyses to run; by default each of ``features`` is fitted alone.
    roi : str
        Region whose voxels are fitted.
    train : {"means", "weighted", "trials"}
        See :meth:`MeanResponses.from_dataset`.
    ceiling : float array, optional
        Noise ceilings of averaged test responses in percent, for all voxels of the data set.
    rate : float
        False discovery rate; see `discoveries`.
    null : {"exact", "simulated"}
        See `correlation_p`.
    n_permutations : int
        Above 0, p values over shuffled test stimuli are added, with family-wise correction by the
        largest r.
    n_folds, alphas
        See `encode`.
    device : str
        Where models of one feature space are fitted; see `encode`.
    n_boot : int
        Number of bootstrap resamples of test stimuli for the intervals.
    seed : int
        Seed of resamples, shuffles and simulated nulls.
    folder : str or Path, optional
        Where principal components and fits are kept as they are made, named by all that decides
        them. A further call takes from it what is the same, so an analysis that was interrupted
        resumes; predictions are mapped from disk, which saves memory. Delete it afterwards.
    store : FeatureStore, optional
        Where principal components are kept instead, for other analyses of the same features and
        training stimuli.
    progress : callable, optional
        Receives the name of each fit before it starts; with ``folder`` once for each split.

    Returns
    -------
    Analysis

    Raises
    ------
    SettingError
        If two splits test the same stimulus, which would count twice; if no p of at most ``rate``
        could result from so few permutations; or if features are missing.

    Examples
    --------
    >>> import numpy as np
    >>> import calcarine as ca
    >>> from calcarine.encoding import analyse
    >>> brain = ca.load_dataset("simulated", n_train=60, n_test=10)
    >>> small = brain.stimuli.images()[:, ::8, ::8].astype(np.float32)
    >>> found = analyse(brain, None, {"pixels": small}, roi="early", n_boot=100)
    >>> list(found.facts["significant"])
    ['pixels']
    """
    if n_permutations and (1 + n_permutations) * rate < 1:
        raise SettingError(
            f"encoding.n_permutations is {n_permutations}, so no p can be below {rate:g}; choose 0 "
            f"or at least {math.ceil(1 / rate) - 1}."
        )
    if plan is None:
        plan = AnalysisPlan(analyses=(), extra_feature_spaces=tuple(features))
    folds = _models(
        dataset,
        splits,
        features=features,
        plan=plan,
        roi=roi,
        train=train,
        n_folds=n_folds,
        alphas=alphas,
        device=device,
        folder=folder,
        store=store,
    )
    if folder is not None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        _fit_all(folds, plan, Path(folder), progress)
        progress = None
    tests = _Tests(rate, null, n_permutations, n_boot, seed, alphas, ceiling)
    return _Collector(dataset, roi, folds, plan, tests, progress).run()


def share_fits(
    dataset: BrainDataset,
    splits: Split | Sequence[Split] | None,
    features: Mapping[str, Any],
    plan: AnalysisPlan,
    *,
    folder: str | Path,
    progress: Callable[[str], None] | None = None,
    **options: Any,
) -> None:
    """Make fits of an analysis that another process runs, until none is left.

    Parameters
    ----------
    dataset, splits, features, plan, folder, progress
        As in the call of `analyse` in the other process; ``folder`` is one that both see.
    **options
        ``roi``, ``train``, ``n_folds``, ``alphas`` and ``store`` of that call, and ``device``.
    """
    folds = _models(dataset, splits, features=features, plan=plan, folder=folder, **options)
    _fit_all(folds, plan, Path(folder), progress)


def _models(
    dataset: BrainDataset, splits: Split | Sequence[Split] | None, **options: Any
) -> list[SplitModels]:
    """Return the models of each split, not yet fitted; see `SplitModels` for the options."""
    chosen = dataset.splits if splits is None else splits
    chosen = [chosen] if isinstance(chosen, Split) else chosen
    return [SplitModels(dataset, split, **options) for split in chosen]


def _fit_all(
    folds: Sequence[SplitModels],
    plan: AnalysisPlan,
    folder: Path,
    progress: Callable[[str], None] | None,
) -> None:
    """Make all fits that no other process makes; they are kept in the folder."""
    progress = progress or (lambda text: None)
    fits, elsewhere = plan.fits(), "a fit of another process"
    # Pairs need what their spaces predict alone, which they would fit again.
    for number in (1, 2):
        pieces = [(fold, fit) for fit in fits if len(fit) == number for fold in folds]
        named = [fold.digest(space) for fold, fit in pieces for space in fit]
        name = hashlib.sha256(" ".join(named).encode()).hexdigest()[:16]
        queue = WorkQueue(folder / f"fits-{name}", "which fits the same encoding models")
        with closing(queue.work(len(pieces), lambda at: progress(elsewhere))) as numbers:
            for at in numbers:
                fold, fit = pieces[at]
                progress(" and ".join(fit))
                fold.fit(fit)


@dataclass(frozen=True, eq=False)
class _Tests:
    """How scores are tested."""

    rate: float
    null: Literal["exact", "simulated"]
    n_permutations: int
    n_boot: int
    seed: int
    alphas: NDArray[np.float64] | None
    ceiling: NDArray[np.float64] | None


class _Collector:
    """All analyses of one subject, collected in tables."""

    def __init__(
        self,
        dataset: BrainDataset,
        roi: str,
        folds: Sequence[SplitModels],
        plan: AnalysisPlan,
        tests: _Tests,
        progress: Callable[[str], None] | None,
    ) -> None:
        self.folds, self.plan, self.tests = folds, plan, tests
        self.progress = progress or (lambda text: None)
        self.columns = np.flatnonzero(dataset.roi_mask(roi))
        rois = {name: mask[self.columns] for name, mask in dataset.rois.items()}
        rois = {name: mask for name, mask in rois.items() if mask.any()}
        self.rois = {"all": np.ones(len(self.columns), dtype=np.bool_), **rois}
        self.target = join_tests(folds)
        self.voxels = dataset.voxels.iloc[self.columns].reset_index(drop=True)
        self.new: dict[str, NDArray[Any]] = {"voxel": self.columns}
        self.new |= {f"roi:{name}": mask for name, mask in rois.items()}
        if tests.ceiling is not None:
            self.new["ceiling"] = tests.ceiling[self.columns]
        self.tables: dict[str, list[pd.DataFrame]] = {"regions": [], "unique": [], "winners": []}
        self.facts: dict[str, Any] = {
            "test_stimuli": len(self.target.test),
            "voxels": len(self.columns),
            "rate": tests.rate,
            "null": tests.null,
            "significant": {},
            "at_edge": {},
        }

    def run(self) -> Analysis:
        for analysis, spaces in self.plan.alone().items():
            self._fit_alone(analysis, spaces)
        for analysis, pair in self._pairs():
            self._fit_pair(analysis, pair)
        done = {
            name: pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
            for name, tables in self.tables.items()
        }
        voxels = pd.concat([self.voxels, pd.DataFrame(self.new)], axis=1)
        return Analysis(voxels, done["regions"], done["unique"], done["winners"], self.facts)

    def _pairs(self) -> Iterator[tuple[str, tuple[str, str]]]:
        for analysis, pairs in self.plan.pairs().items():
            for pair in pairs:
                yield analysis, pair

    def _fit_alone(self, analysis: str, spaces: Sequence[str]) -> None:
        scores = {}
        for space in spaces:
            self.progress(f"{analysis}: {space}")
            scores[space] = pooled_scores(self.folds, self.target, space)
            self._test(space, scores[space])
        tests = self.tests
        table = region_table(self.target, scores, self.rois, tests.n_boot, seed=tests.seed)
        self.tables["regions"].append(table.assign(question=analysis))
        if analysis.startswith("blocks"):
            significant = np.any([self.new[f"significant:{space}"] for space in spaces], axis=0)
            best = winners(scores, significant)
            self.new[f"winner:{analysis.removeprefix('blocks, ')}"] = best
            shares = _shares(best, spaces, self.rois)
            self.tables["winners"].append(shares.assign(question=analysis))

    def _test(self, space: str, scores: EncodingScores) -> None:
        tests = self.tests
        p = correlation_p(scores.r, len(self.target.test), tests.null, seed=tests.seed)
        significant, q = discoveries(p, tests.rate)
        self.new |= {
            f"r:{space}": scores.r,
            f"p:{space}": p,
            f"q:{space}": q,
            f"significant:{space}": significant,
            f"cv_r2:{space}": scores.cv_r2,
            f"alpha:{space}": scores.alpha,
        }
        if tests.ceiling is not None:
            self.new[f"normalised:{space}"] = normalised(scores.r, tests.ceiling[self.columns])
        self.facts["significant"][space] = int(significant.sum())
        if tests.alphas is not None:
            self.facts["at_edge"][space] = _share_at_edge(scores, tests.alphas)
        if tests.n_permutations:
            both = permutation_p(
                scores.predicted, self.target.test, tests.n_permutations, tests.seed
            )
            self.new[f"p_permuted:{space}"], self.new[f"p_family:{space}"] = both

    def _fit_pair(self, analysis: str, pair: tuple[str, str]) -> None:
        self.progress(f"{analysis}: {' and '.join(pair)}")
        variance, tests = pooled_unique(self.folds, self.target, pair), self.tests
        table = unique_table(self.target, variance, self.rois, tests.n_boot, seed=tests.seed)
        self.tables["unique"].append(table.assign(question=analysis, pair=" + ".join(pair)))
        for space, values in variance.unique.items():
            self.new[f"unique:{space}|{'+'.join(pair)}"] = values


def edge_note(facts: Mapping[str, Any]) -> str | None:
    """Return one sentence where many penalties lie at an end of their grid, or None.

    Parameters
    ----------
    facts : mapping of str to object
        Facts of an `Analysis`.
    """
    ends = {name: share for name, share in facts.get("at_edge", {}).items() if share > EDGE_SHARE}
    if not ends:
        return None
    space, share = max(ends.items(), key=lambda item: item[1])
    return (
        f"For {space}, {share:.0%} of the predicted voxels have the smallest or the largest "
        f"penalty of the grid (feature spaces with this problem: {len(ends)}). A wider grid "
        "may predict better (settings encoding.alpha_min and encoding.alpha_max)."
    )


def _share_at_edge(scores: EncodingScores, alphas: NDArray[np.float64]) -> float:
    """Return the share of predictable voxels with the smallest or largest penalty."""
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
