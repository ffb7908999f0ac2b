"""Read and check the files of a finished run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calcarine.errors import CalcarineError, DamagedFileError, MissingFileError
from calcarine.evaluation.results.evaluation import main_protocol, select_main_protocol
from calcarine.evaluation.results.floor_verdicts import FloorVerdict, floor_verdicts
from calcarine.files import read_json
from calcarine.files.parquet import read_parquet

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "METHOD_ORDER",
    "RunRecord",
    "Score",
    "VerdictKey",
    "main_method",
    "order_methods",
    "read_audit",
    "read_notes",
    "read_run",
    "read_run_scores",
    "read_run_verdicts",
    "run_title",
]

METHOD_ORDER = (
    "z",
    "z, empty text",
    "c",
    "z_c",
    "z_c, chosen by the brain",
    "vis-dec",
    "direct ridge",
)
# Folder names of reconstructions that differ from the names of the methods.
_FOLDER_TO_METHOD = {
    "z_empty_text": "z, empty text",
    "direct": "direct ridge",
    "visdec": "vis-dec",
}
_INVALID = (KeyError, TypeError, ValueError, OverflowError, AttributeError)
_NUMBERS = (
    "value",
    "ci_low",
    "ci_high",
    "chance",
    "p",
    "p_holm",
    "p_holm_min",
    "null_mean",
    "null_sd",
)

VerdictKey = tuple[str, str, str]
"""Method, protocol and metric of a verdict."""


@dataclass(frozen=True)
class Score:
    """One record of ``metrics/summary.json``; missing numbers are NaN."""

    method: str
    metric: str
    protocol: str
    value: float
    ci_low: float
    ci_high: float
    chance: float
    p: float
    p_holm: float
    null_mean: float
    null_sd: float
    n: int | None
    pool: int | None
    role: str
    higher_is_better: bool
    definition: str = ""
    p_holm_min: float = math.nan
    judge: str | None = None


@dataclass(frozen=True)
class RunRecord:
    """A finished run.

    Attributes
    ----------
    folder : Path
        The run directory.
    settings : dict
        The resolved configuration, from ``experiment.yaml``.
    manifest : dict
        Provenance, from ``manifest.json``.
    scores : list of Score
        From ``metrics/summary.json``.
    per_image : pandas.DataFrame
        Columns id, method, metric, value and category, for one protocol; ids are strings.
    index : pandas.DataFrame
        Columns id, method, sample, file and fold; ids are strings, methods have the names of
        the scores.

    Examples
    --------
    >>> from pathlib import Path
    >>> from calcarine.reporting import read_run
    >>> run = read_run(Path("runs/takagi"))  # doctest: +SKIP
    >>> run.per_image.groupby(["method", "metric"])["value"].mean()  # doctest: +SKIP
    """

    folder: Path
    settings: dict[str, Any]
    manifest: dict[str, Any]
    scores: list[Score]
    per_image: pd.DataFrame
    index: pd.DataFrame

    @property
    def simulated(self) -> bool:
        """Whether the brain was simulated."""
        return bool(self.manifest["simulated"])

    @property
    def title(self) -> str:
        """Data set, subject and name of the folder, see `run_title`."""
        recorded, settings = (part.get("dataset") for part in (self.manifest, self.settings))
        known = [part for part in (recorded, settings) if isinstance(part, dict)]
        name, subject = (
            next((str(part[key]) for part in known if part.get(key) is not None), None)
            for key in ("name", "subject")
        )
        return run_title(name, subject, self.folder)

    @property
    def ids(self) -> list[str]:
        """Ids of the reconstructed stimuli, sorted."""
        return sorted(set(self.index["id"]))

    @property
    def picture_methods(self) -> list[str]:
        """Methods with reconstructions, in the order of the report."""
        return order_methods(name for name in self.index["method"].unique() if name != "truth")

    def higher_is_better(self, metric: str) -> bool:
        """Return whether higher values of a metric of `per_image` are better."""
        named = [score for score in self.scores if score.metric == metric]
        main = main_protocol(score.protocol for score in named) if named else None
        return all(score.higher_is_better for score in named if score.protocol == main)

    def picture(self, stimulus: str, method: str, sample: int | None = None) -> Path | None:
        """Return the file of a reconstruction, or None if the method has none.

        By default this is the first sample.
        """
        rows = self.index[(self.index["id"] == stimulus) & (self.index["method"] == method)]
        if sample is not None:
            rows = rows[rows["sample"] == sample]
        if rows.empty:
            return None
        return self._inside(str(rows.sort_values("sample", kind="stable")["file"].iloc[0]))

    def samples(self, stimulus: str, method: str) -> list[int]:
        """Return the sample numbers of a reconstruction, ascending."""
        rows = self.index[(self.index["id"] == stimulus) & (self.index["method"] == method)]
        return sorted({int(sample) for sample in rows["sample"]})

    def truth(self, stimulus: str) -> Path:
        """Return the file of the stimulus."""
        rows = self.index[self.index["id"] == stimulus]
        listed = rows[rows["method"] == "truth"]
        if not listed.empty:
            return self._inside(str(listed["file"].iloc[0]))
        # An id can contain characters that a file name cannot, so use the reconstruction's name.
        stem = Path(str(rows["file"].iloc[0])).stem.rsplit("_", 1)[0]
        return self._inside(f"reconstructions/truth/{stem}.png")

    def _inside(self, relative: str) -> Path:
        try:
            path = (self.folder / relative).resolve()
            inside = path.is_relative_to(self.folder.resolve())
        except (OSError, ValueError):  # a name that no file can have
            inside = False
        if not inside:
            raise DamagedFileError(
                f"{self.folder}/reconstructions/index.parquet lists {relative!r}, which is "
                "outside of the run; correct the index or reconstruct again."
            )
        if not path.is_file():
            raise MissingFileError(
                f"{path} is missing, although the index of the run lists it; make it again with "
                "`calcarine run`."
            )
        return path


def run_title(dataset: str | None, subject: str | None, folder: Path) -> str:
    """Return the title of the pages of a run: data set, subject and name of the folder."""
    known = [dataset or "unnamed data set", *([subject] if subject else [])]
    return f"{', '.join(known)} (run {folder.resolve().name})"


def order_methods(names: Iterable[str]) -> list[str]:
    """Sort the names of methods: known methods, their ceilings, then others, without duplicates."""
    unique = list(dict.fromkeys(names))
    order = [*METHOD_ORDER, *(f"ceiling {name}" for name in METHOD_ORDER)]
    known = [name for name in order if name in unique]
    return known + [name for name in unique if name not in known]


def main_method(names: Iterable[str]) -> str:
    """Return the main method of a report: z_c, else z, else vis-dec, else the first."""
    ordered = order_methods(names)
    return next((name for name in ("z_c", "z", "vis-dec") if name in ordered), ordered[0])


def read_run_scores(run: Path) -> list[Score]:
    """Read ``metrics/summary.json``.

    Raises
    ------
    CalcarineError
        If the file is missing or damaged, or has no score of a method.

    Examples
    --------
    >>> from pathlib import Path
    >>> from calcarine.reporting import read_run_scores
    >>> for score in read_run_scores(Path("runs/takagi")):  # doctest: +SKIP
    ...     print(score.method, score.metric, score.value)
    """
    path, raw = _raw_records(run)
    try:
        scores = [_score(record) for record in raw]
    except _INVALID as error:
        raise _invalid_record(path, error, run) from error
    if not any(score.role == "method" for score in scores):
        raise DamagedFileError(
            f"{path} has no score of a method; make it again with `calcarine evaluate {run}`."
        )
    return scores


def read_run_verdicts(run: Path) -> dict[VerdictKey, FloorVerdict]:
    """Compare the scores in ``metrics`` with their strongest floors.

    Returns
    -------
    dict
        Verdicts by method, protocol and metric; see `floor_verdicts`.

    Raises
    ------
    CalcarineError
        If a file is missing or damaged.
    """
    path, raw = _raw_records(run)
    per_image = _per_image(run, "protocol")
    try:
        verdicts = floor_verdicts(raw, per_image)
    except _INVALID as error:
        raise _invalid_record(path, error, run) from error
    return {(one.method, one.protocol or "", one.metric): one for one in verdicts}


def _raw_records(run: Path) -> tuple[Path, Any]:
    path = run / "metrics" / "summary.json"
    return path, _read(path, "calcarine evaluate", run, lambda p: read_json(p))


def _per_image(run: Path, *further: str) -> pd.DataFrame:
    path = run / "metrics" / "per_image.parquet"
    frame: pd.DataFrame = _read(path, "calcarine evaluate", run, lambda p: _table(p, value=float))
    columns = ("id", "method", "metric", "value", *further)
    _check_columns(frame, path, columns, "calcarine evaluate", run)
    return frame.assign(id=frame["id"].astype(str))


def _invalid_record(path: Path, error: Exception, run: Path) -> DamagedFileError:
    return DamagedFileError(
        f"{path} has an invalid record ({error}); make it again with `calcarine evaluate {run}`."
    )


def read_audit(run: Path) -> dict[str, Any] | None:
    """Read the outcome and findings of ``audit.json``; None if the run has no audit.

    Raises
    ------
    CalcarineError
        If the file is damaged.
    """
    file = run / "audit.json"
    if not file.is_file():
        return None

    def reader(path: Path) -> dict[str, Any]:
        result = read_json(path)
        keys = ("title", "verdict", "finding")
        checks = [{key: _text(check[key]) for key in keys} for check in result["checks"]]
        return {"outcome": _text(result["outcome"]), "checks": checks}

    return dict(_read(file, "calcarine audit", run, reader))


def read_notes(run: Path) -> list[str]:
    """Read the notes of the manifest, which the report and the command line print.

    Raises
    ------
    CalcarineError
        If the file is missing or damaged.
    """
    manifest = _read(run / "manifest.json", "calcarine run", run, lambda path: read_json(path))
    return [str(note) for note in manifest.get("notes") or []]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a string")
    return value


def read_run(run: Path) -> RunRecord:
    """Read a finished run directory.

    Parameters
    ----------
    run : Path
        Directory with ``experiment.yaml``, ``manifest.json``, ``reconstructions/`` and
        ``metrics/``.

    Raises
    ------
    CalcarineError
        If the run is not finished, or one of its files is damaged.

    Examples
    --------
    >>> from pathlib import Path
    >>> from calcarine.reporting import read_run
    >>> run = read_run(Path("runs/takagi"))  # doctest: +SKIP
    >>> run.picture(run.ids[0], "z_c", sample=0)  # doctest: +SKIP
    """
    import yaml

    run = Path(run)
    if not run.is_dir():
        raise MissingFileError(f"There is no run at {run}; make one with `calcarine run`.")
    settings = _read(
        run / "experiment.yaml",
        "calcarine run",
        run,
        lambda path: yaml.safe_load(path.read_text("utf-8")),
    )
    manifest = _read(
        run / "manifest.json",
        "calcarine run",
        run,
        lambda path: read_json(path),
    )
    for name, content in (("experiment.yaml", settings), ("manifest.json", manifest)):
        if not isinstance(content, dict):
            raise DamagedFileError(
                f"{run / name} is not a mapping; make it again with `calcarine run {run}`."
            )
    if not isinstance(manifest.get("simulated"), bool):
        raise CalcarineError(
            f"{run / 'manifest.json'} does not state whether the brain was simulated; set "
            '"simulated" to true or false there.'
        )
    index_path = run / "reconstructions" / "index.parquet"
    index = _read(index_path, "calcarine run", run, lambda path: _table(path, sample=int))
    _check_columns(index, index_path, ("id", "method", "sample", "file"), "calcarine run", run)
    scores = read_run_scores(run)
    per_image = _per_image(run)
    return RunRecord(
        folder=run,
        settings=settings,
        manifest=manifest,
        scores=scores,
        per_image=select_main_protocol(per_image),
        index=index.assign(
            id=index["id"].astype(str),
            method=index["method"].astype(str).replace(_FOLDER_TO_METHOD),
        ),
    )


def _read(path: Path, command: str, run: Path, reader: Callable[[Path], Any]) -> Any:
    if not path.is_file():
        raise MissingFileError(f"{path} is missing; make it with `{command} {run}`.")
    try:
        return reader(path)
    except Exception as error:  # readers raise errors of many kinds
        raise DamagedFileError(
            f"{path} cannot be read ({type(error).__name__}); make it again with `{command} {run}`."
        ) from error


def _table(path: Path, **kinds: type) -> pd.DataFrame:
    """Read a table and convert some of its columns, if it has them."""
    frame = read_parquet(path)
    return frame.astype({name: kind for name, kind in kinds.items() if name in frame.columns})


def _check_columns(
    frame: pd.DataFrame, path: Path, required: tuple[str, ...], command: str, run: Path
) -> None:
    missing = [name for name in required if name not in frame.columns]
    if missing or frame.empty:
        lack = f"lacks the columns {', '.join(missing)}" if missing else "has no rows"
        raise DamagedFileError(f"{path} {lack}; make it again with `{command} {run}`.")


def _score(record: dict[str, Any]) -> Score:
    numbers = {name: _number(record.get(name)) for name in _NUMBERS}
    role = str(record.get("role", "method"))
    if role not in ("method", "floor", "ceiling"):
        raise ValueError(f"unknown role {role!r}")
    return Score(
        method=str(record["method"]),
        metric=str(record["metric"]),
        protocol=str(record.get("protocol") or ""),
        n=_count(record.get("n")),
        pool=_count(record.get("pool")),
        role=role,
        higher_is_better=_bool(record["higher_is_better"]),
        definition=str(record.get("definition") or ""),
        judge=str(record["judge"]) if record.get("judge") else None,
        **numbers,
    )


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is not true or false")
    return value


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _count(value: Any) -> int | None:
    number = _number(value)
    return int(number) if math.isfinite(number) else None
