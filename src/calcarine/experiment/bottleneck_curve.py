"""The bottleneck curve of a run: scores against the number of decoded dimensions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from calcarine.decoding import LatentRegression
from calcarine.decoding.bottleneck import Bottleneck
from calcarine.decoding.reconstruct import to_uint8
from calcarine.errors import SettingError
from calcarine.evaluation.inputs.image_stacks import TestSet, from_array
from calcarine.evaluation.scoring.score import score_pictures
from calcarine.experiment.keys import content_key
from calcarine.experiment.reconstructions import chosen_settings, predictions, reconstructor
from calcarine.experiment.run_directory import readable
from calcarine.experiment.scoring import scoring_of
from calcarine.experiment.stages import run_keys
from calcarine.files import read_json, write_text

if TYPE_CHECKING:
    from calcarine.brain import Split
    from calcarine.experiment.workspace import Workspace

__all__ = ["FOLDER", "METHODS", "RANKS", "bottleneck_curve"]

RANKS = (0, 1, 2, 4, 8, 16, 32, 64)
METHODS = ("z", "c", "z_c")
FOLDER = "bottleneck"


@dataclass(frozen=True)
class _BottleneckFold:
    """Reductions of one split, and its predictions."""

    split: Split
    reductions: dict[str, Bottleneck]
    predicted: dict[str, NDArray[Any]]

    def at(self, rank: int) -> dict[str, NDArray[np.float32]]:
        return {
            name: reduction.predict(self.predicted[name], rank)
            for name, reduction in self.reductions.items()
        }


def bottleneck_curve(
    work: Workspace,
    ranks: Sequence[int] = RANKS,
    methods: Sequence[str] = ("z_c",),
) -> list[dict[str, Any]]:
    """Decode a finished run again through fewer and fewer dimensions, and score the pictures.

    Parameters
    ----------
    work : Workspace
        Workspace of a run with fitted decoders.
    ranks : sequence of int
        Numbers of dimensions of z and of c; ranks that restrict neither are left out, and the
        whole decoder is always last.
    methods : sequence of {"z", "c", "z_c"}
        One sample of each stimulus is made.

    Returns
    -------
    list of dict
        Records as in ``metrics/summary.json``, with ``rank`` (of the whole decoder: the most
        directions that z or c has in a fold) and ``whole``. Also written to
        ``bottleneck/curve.json`` in the run; what was made before is not made again.

    Raises
    ------
    CalcarineError
        If the run has no ridge decoders, or a rank or a method is invalid.
    """
    if not work.config.ridge.enabled:
        raise SettingError(f"{work.run.path} has no ridge decoders, so there is no bottleneck.")
    unknown = [name for name in methods if name not in METHODS]
    if unknown or not methods or any(rank < 0 for rank in ranks):
        raise SettingError(
            f"The methods are some of {', '.join(METHODS)}, and ranks are 0 or more; got "
            f"{', '.join(methods) or 'none'} and {', '.join(map(str, ranks))}."
        )
    keys = run_keys(work)
    work.run.require("fit", keys["fit"])
    key = content_key(keys["reconstruct"], keys["evaluate"])
    methods = tuple(dict.fromkeys(methods))
    folds = [_fold(work, split, max(ranks, default=0)) for split in work.splits]
    whole = max(max(r.n_directions_ for r in fold.reductions.values()) for fold in folds)
    wanted = [*sorted({rank for rank in ranks if rank < whole}), whole]
    ids = [stimulus for fold in folds for stimulus in fold.split.test]
    test = TestSet(from_array(work.dataset.stimuli.images(ids), "ground truths"), ids)
    records: list[dict[str, Any]] = []
    with work.progress.track("Bottleneck", len(wanted) * len(methods)) as advance:
        for method in methods:
            for rank in wanted:
                records += _scored(work, key, test, folds, method, rank, rank == whole)
                advance(1)
    write_text(work.run.path / FOLDER / "curve.json", json.dumps(records, indent=1) + "\n")
    return records


def _fold(work: Workspace, split: Split, most: int) -> _BottleneckFold:
    predicted = predictions(work, split)
    regression = work.fitted_decoder(split)
    if not isinstance(regression, LatentRegression):
        raise SettingError(
            f"The decoder '{work.config.decoder.name}' is not linear, so it has no bottleneck; the "
            "curve needs decoder.name=ridge."
        )
    reductions = {n: Bottleneck(regression, work.dataset, split, n, most) for n in ("z", "c")}
    return _BottleneckFold(split, reductions, predicted)


def _scored(
    work: Workspace,
    key: str,
    test: TestSet,
    folds: Sequence[_BottleneckFold],
    method: str,
    rank: int,
    whole: bool,
) -> list[dict[str, Any]]:
    key = content_key(key, method, rank, whole)
    file = work.run.path / FOLDER / f"{method}-{rank}-{key[:12]}.json"
    if file.exists():
        with readable(file, "evaluate"):
            return list(read_json(file))
    made = np.concatenate([_pictures(work, fold, method, rank, whole) for fold in folds])
    categories, settings = scoring_of(work, test.ids)
    result = score_pictures(
        test,
        {method: from_array(made, "reconstructions")},
        categories=categories,
        settings=settings,
    )
    records = [
        row | {"rank": rank, "whole": whole} for row in result.records if row["role"] == "method"
    ]
    write_text(file, json.dumps(records))
    return records


def _pictures(
    work: Workspace, fold: _BottleneckFold, method: str, rank: int, whole: bool
) -> NDArray[np.uint8]:
    latents = fold.predicted if whole else fold.at(rank)
    tool = reconstructor(work, **chosen_settings(work, fold.split))
    keys = [(stimulus, 0) for stimulus in fold.split.test]
    if method == "z":
        return to_uint8(tool.from_z(latents["z"]))
    if method == "c":
        return to_uint8(tool.from_c(latents["c"], keys))
    return to_uint8(tool.from_z_c(latents["z"], latents["c"], keys))
