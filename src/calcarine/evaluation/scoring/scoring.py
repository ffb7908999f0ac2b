"""Scores of many sets of pictures, one set at a time."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from numpy.typing import NDArray

from calcarine.checkpoints.network_weights import WeightsStore
from calcarine.errors import CalcarineError, SettingError, ShapeError
from calcarine.evaluation.inputs.image_stacks import ImageStack, TestSet
from calcarine.evaluation.networks.feature_cache import FeatureCache, TruthFeatures
from calcarine.evaluation.networks.feature_networks import Networks
from calcarine.evaluation.protocols.catalogue import find_protocol
from calcarine.evaluation.protocols.protocol import Protocol
from calcarine.evaluation.results.evaluation import Evaluation
from calcarine.evaluation.results.tables import sample_size_note
from calcarine.evaluation.scoring.extra_arrays import prepare_arrays
from calcarine.evaluation.scoring.measuring import measure
from calcarine.evaluation.scoring.records import adjusted, per_image, record, shuffled
from calcarine.evaluation.scoring.settings import ScoreSettings

__all__ = ["ScoredSet", "Scoring"]

_COLUMNS = ("id", "method", "metric", "value", "category", "protocol")


@dataclass(frozen=True)
class ScoredSet:
    """Scores of one set of pictures under one protocol; JSON keeps it without loss.

    Attributes
    ----------
    records : list of dict
        See `calcarine.evaluation.Evaluation`.
    per_image : list of dict
        A table for each metric that scores single images, as columns.
    notes : list of str
    """

    records: list[dict[str, Any]]
    per_image: list[dict[str, Any]]
    notes: list[str]


class Scoring:
    """Score several sets of pictures on one test set, each under each protocol.

    Sets can be scored in any order, or in several processes; `join` puts their scores together.
    Features of the ground truths that are too large for memory lie in a temporary folder, which
    the end of a ``with`` block removes.

    Parameters
    ----------
    test, methods, floors, blurry, categories, inputs, settings
        See `calcarine.evaluation.score_pictures`.

    Attributes
    ----------
    titles : list of str
        Protocol and name of each set to score.
    """

    def __init__(
        self,
        test: TestSet,
        methods: Mapping[str, ImageStack],
        *,
        floors: Mapping[str, ImageStack] | None = None,
        blurry: ImageStack | None = None,
        categories: Sequence[str] | None = None,
        inputs: Mapping[str, NDArray[Any]] | None = None,
        settings: ScoreSettings | None = None,
    ) -> None:
        self._settings = settings = settings or ScoreSettings()
        _check(test, methods, floors or {}, blurry)
        self._test, self._digest, self._blurry = test, test.truth.digest(), blurry
        self._categories = categories
        self._networks = Networks(
            WeightsStore(settings.weights, settings.download),
            settings.networks,
            settings.judge,
            settings.device,
        )
        self._arrays = prepare_arrays(
            inputs, categories, len(test.ids), settings.judge, settings.read_classes
        )
        sets = [(name, pictures, _role(name)) for name, pictures in methods.items()]
        sets += [(name, pictures, "floor") for name, pictures in (floors or {}).items()]
        self._sets: list[tuple[Protocol, str, ImageStack, str]] = [
            (find_protocol(protocol)(settings.draws, settings.seed), *each)
            for protocol in dict.fromkeys(settings.protocols)
            for each in sets
        ]
        self.titles = [f"{protocol.name}: {name}" for protocol, name, _, _ in self._sets]
        self._folder = tempfile.TemporaryDirectory(prefix="calcarine-")
        self._truth = TruthFeatures(Path(self._folder.name))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        del self._truth  # its arrays may be files in the folder
        self._folder.cleanup()

    def score(self, number: int) -> ScoredSet:
        """Score one of the sets.

        Parameters
        ----------
        number : int
            Index in `titles`.
        """
        protocol, name, pictures, role = self._sets[number]
        test, settings = self._test, self._settings
        low = self._blurry if protocol.blends and role == "method" else None
        notes: list[str] = []
        with tempfile.TemporaryDirectory(prefix="calcarine-") as folder:
            cache = FeatureCache(
                test.truth,
                pictures,
                self._networks,
                settings.batch_size,
                Path(folder),
                low,
                self._arrays.arrays,
                self._truth,
            )
            measured = measure(cache, protocol, notes)
            cache.forget()
        label = protocol.name if low is None else f"{protocol.name}, a quarter blurry"
        rows = [
            record(m, name, role, label, test, self._digest, pictures.samples, settings)
            for m in measured
        ]
        records = adjusted([row for row, _ in rows])
        if role == "method":
            notes += filter(None, [sample_size_note(row for row, _ in rows)])
            records += [shuffled(row, null) for row, null in rows if null is not None]
        tables = [per_image(m, name, label, test.ids, self._categories) for m in measured]
        return ScoredSet(records, [table for table in tables if table], notes)

    def join(self, scored: Sequence[ScoredSet]) -> Evaluation:
        """Return all scores.

        Parameters
        ----------
        scored : sequence of ScoredSet
            In the order of `titles`.

        Raises
        ------
        CalcarineError
            If nothing could be scored.
        """
        import pandas as pd

        records = [row for part in scored for row in part.records]
        notes = [*self._arrays.notes, *(note for part in scored for note in part.notes)]
        if not records:
            raise CalcarineError(
                "Nothing could be scored: "
                + (notes[0] if notes else "the protocols have no metrics.")
            )
        tables = [
            pd.DataFrame(table).astype({"category": "object"})
            for part in scored
            for table in part.per_image
        ]
        empty = pd.DataFrame(columns=list(_COLUMNS))
        table = pd.concat(tables, ignore_index=True) if tables else empty
        contents = dict(zip(self._test.ids, self._test.truth.digests, strict=True))
        return Evaluation(records, table, list(dict.fromkeys(notes)), contents)


def _role(name: str) -> str:
    return "ceiling" if name.startswith("ceiling") else "method"


def _check(
    test: TestSet,
    methods: Mapping[str, ImageStack],
    floors: Mapping[str, ImageStack],
    blurry: ImageStack | None,
) -> None:
    n = len(test.truth)
    if n < 2:
        raise ShapeError(f"There are too few images to score ({n}); give at least 2.")
    if len(test.ids) != n or len(set(test.ids)) < n:
        raise ShapeError(
            f"There are {len(test.ids)} ids for {n} images; give each image one unique id."
        )
    twice = sorted(set(methods) & set(floors))
    if twice or not methods:
        problem = f"{twice[0]!r} is both a method and a floor" if twice else "There is no method"
        raise SettingError(f"{problem}; give each set of images a unique name.")
    low = {} if blurry is None else {"blurry": blurry}
    for name, pictures in {**methods, **floors, **low}.items():
        if len(pictures) != n:
            raise ShapeError(
                f"There are {n} ground truths and {len(pictures)} images of {name!r}; give one "
                "image for each ground truth."
            )
