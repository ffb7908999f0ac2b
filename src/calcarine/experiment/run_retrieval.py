"""Decoded features of a run, and the stimuli that are retrieved by them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import load_file, save_file

from calcarine.brain import Split
from calcarine.decoding import EmbeddingRegression, Gallery, Retrieval, retrieve
from calcarine.evaluation.statistics.intervals import bootstrap_interval
from calcarine.evaluation.statistics.permutation import permutation_test
from calcarine.experiment.embeddings_config import TargetConfig, parse_gallery
from calcarine.experiment.feature_files import read_feature_file
from calcarine.experiment.progress import Advance
from calcarine.experiment.shared_pieces import Piece, SharedPieces, folder_piece
from calcarine.features import extract_folder, extract_spaces
from calcarine.files import atomic_write, write_text
from calcarine.stimuli import StimulusSet

if TYPE_CHECKING:
    from calcarine.experiment.workspace import Workspace

__all__ = ["SHOWN", "retrieve_stimuli", "share_retrieval"]

_DECODED = "decoded.safetensors"
SHOWN = 6
"""Number of stimuli whose nearest pictures the report shows."""


def retrieve_stimuli(work: Workspace) -> None:
    """Decode all targets of every split and retrieve the test stimuli.

    Writes ``retrieval/``: the decoders and ``decoded.safetensors`` of each split (``decoders``),
    ranks and nearest pictures of each stimulus (``stimuli.parquet``), and scores
    with the shape and origin of the features (``summary.json``).
    """
    config, folder = work.config.embeddings, work.run.path / "retrieval"
    features = _features(work)
    _fits(work, features).lead()
    folders = _Folders(work)
    found: dict[tuple[str, str], list[tuple[Split, Retrieval]]] = {}
    with work.progress.track("Retrieval", len(work.splits)) as advance:
        for split in work.splits:
            decoded = load_file(_decoders(work, split) / _DECODED)
            for target in config.targets:
                values, own = decoded[target.name], features[target.name]
                for gallery, one in _retrieved(work, split, target, values, own, folders):
                    found.setdefault((target.name, gallery), []).append((split, one))
            advance(1)
    _show(work, found, folders, folder / "pictures")
    rows = [row for key, parts in found.items() for row in _stimuli(*key, parts)]
    with atomic_write(folder / "stimuli.parquet") as partial:
        pd.DataFrame(rows).to_parquet(partial)
    evaluation, spaces = work.config.evaluation, {t.name: t for t in config.targets}
    scores = [
        {
            "target": name,
            "space": spaces[name].space,
            "roi": spaces[name].roi,
            "gallery": gallery,
            **_scores(
                [part for _, part in parts],
                evaluation.n_boot,
                evaluation.n_permutations,
                evaluation.seed,
            ),
        }
        for (name, gallery), parts in found.items()
    ]
    contents = work.digests.contents
    made_of = {
        name: {
            "space": target.space,
            "shape": list(features[name].shape[1:]),
            "content": contents.get(target.file or target.space),
        }
        for name, target in spaces.items()
    }
    content = {
        "scores": scores,
        "features": made_of,
        "metric": config.metric,
        "hubs": config.hubs,
    }
    write_text(folder / "summary.json", json.dumps(content, indent=1))


def share_retrieval(work: Workspace) -> None:
    """Share the features and decoders of `retrieve_stimuli` in another process."""
    _fits(work, _features(work)).share()


def _fits(work: Workspace, features: Mapping[str, NDArray[Any]]) -> SharedPieces:
    pieces = [_fit(work, split, features) for split in work.splits]
    return SharedPieces(work, "retrieve", "decoders", "Decoders of features", pieces)


def _fit(work: Workspace, split: Split, features: Mapping[str, NDArray[Any]]) -> Piece:
    """Return the piece that fits the decoders of a split and decodes its test stimuli."""
    folder, targets = _decoders(work, split), work.config.embeddings.targets

    def write(advance: Advance) -> None:
        rois = {target.name: target.roi for target in targets}
        rescale = {target.name: target.rescale for target in targets}
        decoder = EmbeddingRegression(rois, **work.ridge_options, rescale=rescale)
        decoder.fit(work.dataset, split, features).save(folder)
        with atomic_write(folder / _DECODED) as partial:
            save_file(decoder.predict(work.dataset, split), partial)
        advance(1)

    return folder_piece(folder, write)


def _decoders(work: Workspace, split: Split) -> Path:
    return work.run.path / "retrieval" / "decoders" / split.name


def _features(work: Workspace) -> dict[str, NDArray[np.float32]]:
    """Return the features of every target, a row for each stimulus."""
    targets, stimuli = work.config.embeddings.targets, work.dataset.stimuli
    # Files first: a mistake in one is noticed before networks are loaded.
    own = {t.name: read_feature_file(t.name, Path(t.file), stimuli) for t in targets if t.file}
    names = [target.space for target in targets if target.file is None]
    made: Mapping[str, Any] = {}
    if names:
        made = extract_spaces(
            names,
            work.model,
            stimuli,
            work.store,
            latents=work.latent_settings,
            batch_size=work.config.generation.batch_size,
        )
    return {
        target.name: own[target.name] if target.file else np.asarray(made[target.space][:])
        for target in targets
    }


class _Folders:
    """Folders of pictures that are searched, and their features."""

    def __init__(self, work: Workspace) -> None:
        config = work.config.embeddings
        self.pictures: dict[str, StimulusSet] = {}
        self.features: dict[str, dict[str, Any]] = {}
        for folder in config.folders:
            spaces = [
                target.space
                for target in config.targets
                if any(parse_gallery(each)[1] == folder for each in config.galleries_of(target))
            ]
            self.pictures[folder], self.features[folder] = extract_folder(
                spaces,
                work.model,
                folder,
                work.store,
                size=work.dataset.stimuli.size,
                batch_size=work.config.generation.batch_size,
            )

    def gallery(self, folder: str, space: str) -> Gallery:
        return Gallery(self.features[folder][space], self.pictures[folder].ids)


def _retrieved(
    work: Workspace,
    split: Split,
    target: TargetConfig,
    decoded: NDArray[Any],
    features: NDArray[Any],
    folders: _Folders,
) -> Iterator[tuple[str, Retrieval]]:
    """Yield what is retrieved in each gallery; one test stimulus alone is no gallery."""
    stimuli, config = work.dataset.stimuli, work.config.embeddings
    mean = features[stimuli.rows(split.train)].mean(0, dtype=np.float64)
    options: dict[str, Any] = {"mean": mean, "metric": config.metric, "hubs": config.hubs}
    own = {"test": split.test, "train": split.train, "all": stimuli.ids, "folder+seen": split.test}
    for name in config.galleries_of(target):
        kind, folder = parse_gallery(name)
        parts = [] if folder is None else [folders.gallery(folder, target.space)]
        if kind in own:
            parts.append(Gallery(features[stimuli.rows(own[kind])], own[kind]))
        gallery = Gallery.joined(parts)
        if len(gallery) > 1:
            seen = None if kind in ("train", "folder") else split.test
            yield name, retrieve(decoded, gallery, seen, **options)


def _stimuli(
    name: str, gallery: str, parts: Sequence[tuple[Split, Retrieval]]
) -> list[dict[str, Any]]:
    """Return a row for each stimulus: its ranks and the pictures nearest to what was decoded."""
    return [
        {
            "target": name,
            "gallery": gallery,
            "split": split.name,
            "id": key,
            "rank": part.rank[row] if part.has_ranks else np.nan,
            "backward_rank": np.nan if part.backward_rank is None else part.backward_rank[row],
            "gallery_size": part.gallery_size,
            "nearest": list(part.nearest[row]),
        }
        for split, part in parts
        for row, key in enumerate(split.test)
    ]


def _show(
    work: Workspace,
    found: Mapping[tuple[str, str], Sequence[tuple[Split, Retrieval]]],
    folders: _Folders,
    folder: Path,
) -> None:
    """Keep the pictures that the report shows, and which these are (``shown.json``)."""
    split, seen = work.splits[0], work.dataset.stimuli
    order = np.random.default_rng(work.config.evaluation.seed).permutation(len(split.test))
    chosen = sorted(int(row) for row in order[:SHOWN])
    files: dict[tuple[str, str], str] = {}  # by folder, if any, and id

    def shown(gallery: str, key: str) -> list[str]:
        _, place = parse_gallery(gallery)
        other = place if place is not None and key in folders.pictures[place] else ""
        return [key, files.setdefault((other, key), f"{len(files)}.png")]

    sheets = []
    for (name, gallery), parts in found.items():
        if gallery == "test" and (name, "all") in found:
            continue  # all stimuli are the harder gallery
        rows = [
            [shown("all", split.test[row])]
            + [shown(gallery, key) for key in parts[0][1].nearest[row]]
            for row in chosen
        ]
        sheets.append({"target": name, "gallery": gallery, "rows": rows})
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for (other, key), file in files.items():
        image = folders.pictures[other].image(key) if other else seen.image(key)
        with atomic_write(folder / file) as partial:
            Image.fromarray(image).save(partial, format="PNG")
    write_text(folder / "shown.json", json.dumps(sheets))


def _scores(
    parts: Sequence[Retrieval], n_boot: int, n_permutations: int, seed: int
) -> Mapping[str, Any]:
    """Return scores over all splits, with an interval over stimuli and a permutation p.

    Without the pictures that were seen, the size of the gallery and its hubness are all there is.
    """
    facts = {
        "stimuli": sum(len(part.nearest) for part in parts),
        "gallery_size": int(np.median([part.gallery_size for part in parts])),
        "hubness": float(np.mean([part.hubness for part in parts])),
    }
    if not all(part.has_ranks for part in parts):
        return facts
    rank = np.concatenate([part.rank for part in parts])
    backward = np.concatenate([np.asarray(part.backward_rank) for part in parts])
    sizes = [part.gallery_size for part in parts]
    groups = np.repeat(np.arange(len(parts)), [len(part.rank) for part in parts])
    # Responses are exchanged within their split only.
    table = np.full((len(rank), len(rank)), np.nan)
    for number, part in enumerate(parts):
        rows = np.flatnonzero(groups == number)
        table[np.ix_(rows, rows)] = part.percentiles
    own = np.diag(table)
    low, high = bootstrap_interval(own, n_boot, seed=seed)
    return facts | {
        "top-1": float(np.mean(rank <= 1)),
        "top-1 chance": float(np.mean([1 / size for size in sizes])),
        "top-5": float(np.mean(rank <= 5)),
        "median rank": float(np.median(rank)),
        "rank percentile": float(own.mean()),
        "ci_low": low,
        "ci_high": high,
        # One response alone cannot be exchanged with another.
        "p": permutation_test(table, n_permutations, seed, groups).p
        if len(rank) > len(parts)
        else None,
        "backward top-1": float(np.mean(backward <= 1)),
    }
