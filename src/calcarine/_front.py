"""`calcarine.score` and `calcarine.audit`, for arrays, folders and runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from calcarine.errors import CalcarineError
from calcarine.stimuli import StimulusSet

if TYPE_CHECKING:
    from calcarine.audit import Audit, AuditInputs
    from calcarine.evaluation import Evaluation
    from calcarine.experiment.run_directory import RunDirectory

__all__ = ["audit", "score"]


def score(
    reconstructions: NDArray[Any] | str | Path | RunDirectory,
    truth: NDArray[Any] | StimulusSet | str | Path | None = None,
    *,
    protocols: str | Sequence[str] | None = None,
    method: str | None = None,
    ids: Sequence[str] | None = None,
    categories: Sequence[str] | Mapping[str, str] | None = None,
    train: Any = None,
    blurry: Any = None,
    inputs: Mapping[str, NDArray[Any]] | None = None,
    test_set: str | None = None,
    progress: Callable[[str], None] | None = None,
    **settings: Any,
) -> Evaluation:
    """Score reconstructions under one or several protocols.

    Parameters
    ----------
    reconstructions : array, path or run
        Pictures of shape (n, height, width, 3), or (n, samples, height, width, 3) with several
        samples of each stimulus, as uint8 or as floats in [0, 1]; a folder of picture files or a
        stack of pictures (.npy, .npz, .pt); or a run, as `run_experiment` returns it, or its
        folder.
    truth : array, StimulusSet or path, optional
        The pictures that were seen, in the same order, or under the same file names. Leave it out
        for a run.
    protocols : str or sequence of str, optional
        Names of protocols, such as "takagi"; by default those of the run, or "calcarine". See
        `calcarine.evaluation.list_protocols`.
    method : str, optional
        Name of the reconstructions in the result. Of a run, the one method to score.
    ids : sequence of str, optional
        Names of the stimuli, for arrays. A StimulusSet brings its own.
    categories : sequence of str, or mapping of str to str, optional
        Main category of each stimulus: a sequence for arrays, by name for folders and runs. A run
        has its own.
    train : uint8 array of shape (n_train, height, width, 3) or path, optional
        Training pictures, from which the floors are made.
    blurry : array or path, optional
        Low-level reconstructions for the protocol "mindeye".
    inputs : mapping of str to array, optional
        Embeddings or responses for protocols that use them; see
        `calcarine.evaluation.score_arrays`.
    test_set : str, optional
        Name of the test set, such as "nsd-982".
    progress : callable, optional
        Receives the name of each step; for folders and runs.
    **settings
        Fields of `calcarine.evaluation.ScoreSettings`, such as ``n_boot`` and
        ``weights``; those that you leave out are a run's own.

    Returns
    -------
    Evaluation
        Scores with intervals, chance levels and p values in ``records``, and the scores of each
        stimulus in ``per_image``.

    Raises
    ------
    CalcarineError
        If reconstructions and truth do not fit together, or a protocol is unknown.

    See Also
    --------
    audit : Check whether a reported score is real.

    Examples
    --------
    >>> import numpy as np
    >>> import calcarine as ca
    >>> truth = ca.StimulusSet.from_scenes(seed=0, indices=range(8))
    >>> noise = np.random.default_rng(0).random((8, 64, 64, 3))
    >>> scores = ca.score(noise, truth, judge=None, n_boot=100, n_permutations=100)
    >>> scores.records[0]["n"]
    8
    """
    if protocols is not None:
        settings["protocols"] = (protocols,) if isinstance(protocols, str) else tuple(protocols)
    place = _folder(reconstructions)
    options: dict[str, Any] = {"inputs": inputs, "test_set": test_set}
    if place is None:
        options |= {"ids": ids, "categories": categories, "train": train, "blurry": blurry}
        return _score_arrays(reconstructions, truth, method, options, settings)
    if ids is not None:
        raise CalcarineError("Files bring their own names; leave ids out.")
    options |= {"categories": categories, "train": train, "method": method, "progress": progress}
    if truth is None:
        return _score_run(place, options | {"blurry": blurry}, settings)
    from calcarine.evaluation import ScoreSettings, score_folder

    seen = _folder(truth)
    if seen is None:
        raise CalcarineError(
            f"The reconstructions are files in {place}, so truth must be a folder or a file too."
        )
    return score_folder(seen, place, blurry=blurry, settings=ScoreSettings(**settings), **options)


def _score_arrays(
    reconstructions: Any,
    truth: Any,
    method: str | None,
    options: dict[str, Any],
    settings: dict[str, Any],
) -> Evaluation:
    from calcarine.evaluation import score_arrays

    if truth is None:
        raise CalcarineError(
            "score needs the pictures that were seen as truth: an array or a StimulusSet with as "
            "many pictures as there are reconstructions."
        )
    if _folder(truth) is not None:
        raise CalcarineError(
            "The reconstructions are an array, so truth must be an array or a StimulusSet, not a "
            "path."
        )
    if isinstance(truth, StimulusSet):
        if options["ids"] is None:
            options["ids"] = truth.ids
        truth = truth.images()
    if method is not None:
        options["method"] = method
    return score_arrays(truth, reconstructions, **options, **settings)


def _score_run(run: Path, options: dict[str, Any], settings: dict[str, Any]) -> Evaluation:
    from contextlib import nullcontext

    from calcarine.experiment.scoring import score_run
    from calcarine.files.locks import folder_lock

    with folder_lock(run, writes=False) if run.is_dir() else nullcontext():
        return score_run(run, settings=settings, **options)


def audit(
    results: AuditInputs | str | Path | RunDirectory,
    truth: str | Path | None = None,
    *,
    method: str | None = None,
    only: Sequence[str] | None = None,
    numbers: str | None = None,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
    **evidence: Any,
) -> Audit:
    """Check whether a reported decoding score is real.

    Parameters
    ----------
    results : path, run or AuditInputs
        A folder of reconstructions, or a stack of them (.npy, .npz, .pt); a run, as
        `run_experiment` returns it, or its folder; or audit inputs that you put together yourself.
    truth : path, optional
        Folder or stack of the pictures that were seen; for a folder of reconstructions only.
    method : str, optional
        Which of a run's methods; ``z_c`` by default.
    only : sequence of str, optional
        Names of checks, as `calcarine.audit.list_checks` lists them; all by default.
    numbers : str, optional
        Reported scores, such as ``"PixCorr .32, SSIM .43"``.
    seed : int
        Seed of shuffles and resamples.
    progress : callable, optional
        Receives the title of each check before it runs.
    **evidence
        Further files for a folder of reconstructions: ``train``, ``ids``, ``responses``,
        ``predictions``, ``samples``, ``others``; see
        `calcarine.audit.folders.inputs_from_folders`.

    Returns
    -------
    Audit
        The finding of each check in ``findings``, and the outcome in ``sentence``.

    Raises
    ------
    CalcarineError
        If files are missing or do not fit together, a run is not finished, or there is no such
        check.

    See Also
    --------
    score : Score reconstructions.

    Examples
    --------
    >>> import calcarine as ca
    >>> found = ca.audit("reconstructions/", "seen/", train="training/")  # doctest: +SKIP
    >>> print(found.sentence)  # doctest: +SKIP
    """
    from calcarine.audit import audit as run_checks

    place = _folder(results)
    if place is None:
        _refuse(truth=truth, method=method, numbers=numbers, **evidence)
        return run_checks(results, only, progress)  # type: ignore[arg-type]
    if truth is None:
        _refuse(**evidence)
        from calcarine.experiment.run_audit_inputs import opened_inputs

        with opened_inputs(place, method, numbers, seed) as inputs:
            return run_checks(inputs, only, progress)
    from calcarine.audit.folders import inputs_from_folders

    if method is not None:
        raise CalcarineError("method chooses among the methods of a run; leave it out.")
    files = {name: _path(value) for name, value in evidence.items()}
    inputs = inputs_from_folders(place, Path(truth), numbers=numbers, seed=seed, **files)
    return run_checks(inputs, only, progress)


def _refuse(**given: Any) -> None:
    """Raise where something is given that these results do not take."""
    extra = [name for name, value in given.items() if value is not None]
    if extra:
        raise CalcarineError(
            f"{extra[0]} is for a folder of reconstructions with the folder of what was seen as "
            "truth; leave it out."
        )


def _folder(value: Any) -> Path | None:
    """Path of files or of a run; None for what is in memory."""
    if isinstance(value, str | Path):
        return Path(value)
    path = getattr(value, "path", None)
    return path if isinstance(path, Path) else None


def _path(value: Any) -> Any:
    """Paths for strings, also within sequences."""
    if isinstance(value, str):
        return Path(value)
    return [_path(one) for one in value] if isinstance(value, list | tuple) else value
