"""Making the pictures of a run, and reading them back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from calcarine.brain import Split
from calcarine.decoding import Reconstructor, choose_by_brain
from calcarine.decoding.reconstruct import to_uint8
from calcarine.errors import CalcarineError, DamagedFileError
from calcarine.experiment.progress import Advance
from calcarine.experiment.run_directory import readable
from calcarine.experiment.shared_pieces import Piece, SharedPieces
from calcarine.experiment.visdec_training import METHOD, load_conditioning, sampling_options
from calcarine.files import atomic_write, read_json
from calcarine.stimuli.image_files import read_picture

if TYPE_CHECKING:
    from calcarine.evaluation.inputs.folders import ImageFolder
    from calcarine.experiment.workspace import Workspace

__all__ = [
    "CHOSEN",
    "EMPTY_TEXT",
    "FOLDERS",
    "GROUP",
    "chosen_settings",
    "finished_pictures",
    "make_pictures",
    "predictions",
    "read_image",
    "reconstructor",
    "share_pictures",
]

CHOSEN = "z_c, chosen by the brain"
EMPTY_TEXT = "z, empty text"
FOLDERS = {
    "z": "z",
    "c": "c",
    "z_c": "z_c",
    "direct ridge": "direct",
    METHOD: "visdec",
    CHOSEN: "z_c_chosen",
    EMPTY_TEXT: "z_empty_text",
    "ceiling z": "ceiling_z",
    "ceiling c": "ceiling_c",
    "ceiling z_c": "ceiling_z_c",
}
# Pictures are made in groups: an interrupted run repeats whole groups, and so ends with the same
# pictures as an uninterrupted one.
GROUP = 64


@dataclass(frozen=True)
class _Job:
    method: str
    fold: str
    ids: tuple[str, ...]
    samples: int
    # Takes rows, (id, sample) of each and a counter of finished pictures.
    make: Callable[[NDArray[np.int64], list[tuple[str, int]], Advance], NDArray[np.float32]]

    def groups(self) -> Iterator[list[tuple[int, int]]]:
        pairs = [(row, sample) for row in range(len(self.ids)) for sample in range(self.samples)]
        for start in range(0, len(pairs), GROUP):
            yield pairs[start : start + GROUP]


def make_pictures(work: Workspace) -> None:
    """Write ground truth and reconstructions as PNG, then ``index.parquet``.

    Pictures that exist are kept.
    """
    import pandas as pd

    root, made = work.run.reconstructions, work.run.made("reconstruct")
    for split in work.splits:
        truth = [root / "truth" / f"{_file_stem(stimulus)}.png" for stimulus in split.test]
        for file, image in zip(truth, work.dataset.stimuli.images(split.test), strict=True):
            _save(file, image)
        made.add(truth)
    jobs = _all_jobs(work)
    _pictures(work, jobs).lead()
    entries = [
        (job.ids[row], job.method, sample, job.fold)
        for job in jobs
        for group in job.groups()
        for row, sample in group
    ]
    if work.config.generation.candidates and work.config.ridge.enabled:
        entries += _choose(work, root)
    index = pd.DataFrame(entries, columns=["id", "method", "sample", "fold"])
    index["file"] = [
        str(_file(Path("reconstructions"), m, i, s))
        for m, i, s in zip(index["method"], index["id"], index["sample"], strict=True)
    ]
    with atomic_write(root / "index.parquet") as partial:
        index.to_parquet(partial)
    chosen = [
        _file(root, CHOSEN, stimulus, 0) for stimulus in index["id"][index["method"] == CHOSEN]
    ]
    work.run.made("reconstruct").add([root / "index.parquet", *chosen])


def share_pictures(work: Workspace) -> None:
    """Share the groups of `make_pictures` in another process."""
    _pictures(work, _all_jobs(work)).share()


def _all_jobs(work: Workspace) -> list[_Job]:
    return [job for split in work.splits for job in _jobs(work, split)]


def _pictures(work: Workspace, jobs: Sequence[_Job]) -> SharedPieces:
    root = work.run.reconstructions
    pieces = [_piece(root, job, group) for job in jobs for group in job.groups()]
    return SharedPieces(work, "reconstruct", "pictures", "Pictures", pieces)


def _piece(root: Path, job: _Job, group: list[tuple[int, int]]) -> Piece:
    """Return the piece that makes one group of pictures."""
    files = [_file(root, job.method, job.ids[row], sample) for row, sample in group]

    def make(advance: Advance) -> None:
        for file, image in zip(files, _made(job, group, advance), strict=True):
            _save(file, image)

    return Piece(
        len(group), lambda: files, lambda made: all(made.holds(file) for file in files), make
    )


def _made(job: _Job, group: list[tuple[int, int]], advance: Advance) -> NDArray[np.uint8]:
    """Make one group of pictures; those that a method does not count are counted at its end."""
    counted = 0

    def count(pictures: int) -> None:
        nonlocal counted
        counted += pictures
        advance(pictures)

    rows = np.asarray([row for row, _ in group])
    keys = [(job.ids[row], sample) for row, sample in group]
    pictures = to_uint8(job.make(rows, keys, count))
    advance(len(group) - counted)
    return pictures


def finished_pictures(work: Workspace) -> ImageFolder:
    """Open the run's pictures of every test stimulus.

    Raises
    ------
    CalcarineError
        If the index of pictures is damaged, or does not name the test stimuli.
    """
    from calcarine.evaluation.inputs.folders import open_run

    pictures = open_run(work.run.path, None, None)
    wanted = {stimulus for split in work.splits for stimulus in split.test}
    listed = set(pictures.test.ids)
    if listed != wanted:
        wrong = sorted(wanted - listed) or sorted(listed - wanted)
        what = "lacks" if wanted - listed else "names besides the test stimuli"
        file = work.run.reconstructions / "index.parquet"
        raise DamagedFileError(
            f"{file} {what} {len(wrong)} stimuli, the first '{wrong[0]}'; delete it and "
            ".stages/reconstruct.json of the run, then run again."
        )
    return pictures


def reconstructor(work: Workspace, **changes: Any) -> Reconstructor:
    """Return what makes pictures by the run's settings, with some of them changed."""
    generation = work.config.generation
    options: dict[str, Any] = {
        "strength": generation.strength,
        "guidance": generation.guidance,
        "steps": generation.steps,
        "seed": generation.seed,
        "through_image": generation.through_image,
        "posterior": work.config.features.posterior,
        "batch_size": generation.batch_size,
    }
    return Reconstructor(work.model, **{**options, **changes})


def chosen_settings(work: Workspace, split: Split) -> dict[str, float]:
    """Return strength and guidance where they were chosen in the training data of a split."""
    settings = work.run.decoder / split.name / "settings.json"
    if not settings.exists():
        return {}
    with readable(settings, "fit"):
        chosen = read_json(settings)
        return {name: float(chosen[name]) for name in ("strength", "guidance")}


def predictions(work: Workspace, split: Split) -> dict[str, NDArray[Any]]:
    """Read what the decoders of one split predicted for its test stimuli."""
    from safetensors.numpy import load_file

    file = work.run.decoder / split.name / "predictions.safetensors"
    with readable(file, "fit"):
        return dict(load_file(file))


def _jobs(work: Workspace, split: Split) -> list[_Job]:
    predicted = predictions(work, split)
    jobs = []
    if work.config.ridge.enabled:
        jobs += _latent_jobs(work, split, predicted)
    if "direct" in predicted:
        jobs.append(
            _Job("direct ridge", split.name, split.test, 1, lambda r, k, a: predicted["direct"][r])
        )
    if work.config.visdec.runs("finetune"):
        jobs.append(_conditioned_job(work, split))
    return jobs


def _conditioned_job(work: Workspace, split: Split) -> _Job:
    """Return the job of Vis-Dec: sampling under the condition of test responses."""
    trained, options = load_conditioning(work, split), sampling_options(work)
    responses = work.dataset.test(split, work.config.visdec.roi).data
    samples = work.config.visdec.finetune.samples
    return _Job(
        METHOD,
        split.name,
        split.test,
        samples,
        lambda r, k, a: trained.generate(work.generator, responses[r], k, progress=a, **options),
    )


def _latent_jobs(work: Workspace, split: Split, predicted: dict[str, NDArray[Any]]) -> list[_Job]:
    """Return the jobs of Takagi & Nishimoto's methods and of their ceilings."""
    config = work.config
    tool = reconstructor(work, **chosen_settings(work, split))
    samples = config.generation.samples
    jobs = [
        _Job("z", split.name, split.test, 1, lambda r, k, a: tool.from_z(predicted["z"][r], k)),
        _Job(
            "c",
            split.name,
            split.test,
            samples,
            lambda r, k, a: tool.from_c(predicted["c"][r], k, a),
        ),
        _Job(
            "z_c",
            split.name,
            split.test,
            max(samples, config.generation.candidates),
            lambda r, k, a: tool.from_z_c(predicted["z"][r], predicted["c"][r], k, a),
        ),
    ]
    if config.generation.z_empty_text:
        jobs.append(
            _Job(
                EMPTY_TEXT,
                split.name,
                split.test,
                samples,
                lambda r, k, a: tool.from_z_empty_text(predicted["z"][r], k, a),
            )
        )
    if config.evaluation.ceilings:
        rows = work.dataset.stimuli.rows(split.test)
        z, c, n = work.z[rows], work.c[rows], config.evaluation.ceiling_samples
        jobs += [
            _Job("ceiling z", split.name, split.test, 1, lambda r, k, a: tool.from_z(z[r], k)),
            _Job("ceiling c", split.name, split.test, n, lambda r, k, a: tool.from_c(c[r], k, a)),
            _Job(
                "ceiling z_c",
                split.name,
                split.test,
                n,
                lambda r, k, a: tool.from_z_c(z[r], c[r], k, a),
            ),
        ]
    return jobs


def _choose(work: Workspace, root: Path) -> list[tuple[str, str, int, str]]:
    """Choose one sample of z_c for each stimulus, by its agreement with the decoded z."""
    rows = []
    count = work.config.generation.candidates
    for split in work.splits:
        predicted = predictions(work, split)
        samples = np.stack(
            [
                np.stack([read_image(_file(root, "z_c", i, s)) for s in range(count)])
                for i in split.test
            ]
        )
        best = choose_by_brain(work.model, samples, predicted["z"], predicted["reliability_z"])
        for stimulus, pictures, sample in zip(split.test, samples, best, strict=True):
            _save(_file(root, CHOSEN, stimulus, 0), pictures[sample])
            rows.append((stimulus, CHOSEN, 0, split.name))
    return rows


def _file(root: Path, method: str, stimulus: str, sample: int) -> Path:
    return root / FOLDERS[method] / f"{_file_stem(stimulus)}_{sample:02d}.png"


def _file_stem(stimulus: str) -> str:
    """Return a stimulus id as a file name, whatever characters it has."""
    return quote(stimulus, safe=" ")


def read_image(file: Path) -> NDArray[np.uint8]:
    """Read one PNG of a run as uint8 of shape (height, width, 3)."""
    with readable(file, "reconstruct"):
        try:
            return read_picture(file)
        except CalcarineError as error:
            # The advice for a run's own picture is to make it again.
            raise ValueError(str(error)) from error


def _save(file: Path, image: NDArray[np.uint8]) -> None:
    with atomic_write(file) as partial:
        Image.fromarray(image).save(partial, format="PNG")
