"""Commands of ``calcarine``. Heavy imports wait until a command needs them."""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calcarine.cli import splits as _splits  # noqa: F401 - registers its commands
from calcarine.cli.audit import audit
from calcarine.cli.bottleneck import bottleneck
from calcarine.cli.datasets import Data, Subject, datasets_app
from calcarine.cli.one_stage import stage
from calcarine.cli.score import compare, score
from calcarine.cli.seeds import seeds
from calcarine.cli.study import gallery, study_app
from calcarine.cli.visdec import (
    Transductive,
    ablate,
    finetune,
    guide,
    pretrain,
    refuse_beside_a_run,
    with_flags,
)
from calcarine.errors import CalcarineError, out_of_memory

if TYPE_CHECKING:
    pass

PACKAGE = Path(__file__).parents[1]

app = typer.Typer(
    help="Reconstruct seen pictures from fMRI with latent diffusion models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(datasets_app, name="datasets")
app.command()(score)
app.command()(compare)
app.command()(audit)
app.command()(bottleneck)
app.add_typer(study_app, name="study")
app.command()(gallery)
for _command in (pretrain, guide, finetune, ablate, seeds):
    app.command()(_command)

Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting; may be given often."),
]
Run = Annotated[Path, typer.Argument(help="Output folder of a run.")]


def main() -> None:
    """Entry point: a user's mistake ends with one sentence and exit code 2."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _as_note(warnings.showwarning)
            app()
    except CalcarineError as error:
        print(f"calcarine: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except (MemoryError, RuntimeError) as error:
        whose = out_of_memory(error)
        if whose is None:
            raise
        print(
            f"calcarine: The memory of this {whose} is too small; in a run, lower "
            "generation.batch_size or set generation.precision to float16 (GPUs only), else use "
            f"a {whose} with more.",
            file=sys.stderr,
        )
        raise SystemExit(2) from None
    except OSError as error:
        print(f"calcarine: {_of_system(error)}.", file=sys.stderr)
        raise SystemExit(2) from None
    except SystemExit as stop:
        if stop.code == 130:
            print("calcarine: stopped; the same command continues.", file=sys.stderr)
        raise


def _as_note(otherwise: Callable[..., None]) -> Callable[..., None]:
    """Show calcarine's own warnings as sentences, once each, and others as Python does."""
    shown: set[str] = set()

    def show(message: Warning | str, category: type[Warning], filename: str, *rest: Any) -> None:
        if not issubclass(category, UserWarning) or not Path(filename).is_relative_to(PACKAGE):
            otherwise(message, category, filename, *rest)
        elif str(message) not in shown:
            shown.add(str(message))
            print(f"Note: {message}", file=sys.stderr)

    return show


def _of_system(error: OSError) -> str:
    """What the operating system refused, with the file where it named one."""
    from calcarine.files import free_space, is_full

    reason = error.strerror or str(error) or type(error).__name__
    if error.filename:
        return f"{error.filename}: {reason}"
    if is_full(error):
        # Nobody said where: the working folder, or the one for temporary files.
        places = dict.fromkeys([Path.cwd(), Path(tempfile.gettempdir())])
        return f"{reason}; {', '.join(map(free_space, places))}; make room, then repeat the command"
    return reason


@app.command()
def demo(out: Annotated[Path, typer.Option(help="Output folder.")] = Path("runs/demo")) -> None:
    """Simulate a brain that sees pictures, decode it, and write a report."""
    from calcarine.experiment import load_experiment

    _run(load_experiment("demo"), out)


@app.command()
def run(
    file: Annotated[
        Path | None, typer.Argument(help="Experiment in YAML, or a run's folder to continue.")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="Named settings, such as takagi.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Data set; see 'datasets list'.")] = None,
    data: Data = None,
    subject: Subject = None,
    out: Annotated[Path | None, typer.Option(help="Output folder; the same one continues.")] = None,
    allow_transductive: Transductive = False,
    settings: Settings = None,
) -> None:
    """Run a whole experiment: features, fit, reconstruct, evaluate, report."""
    from calcarine.experiment import load_experiment

    if file is None and preset is None:
        raise CalcarineError("Say what to run: --preset takagi, or the path of a YAML file.")
    if file is not None and file.is_dir():
        file, out = file / "experiment.yaml", out or file
    settings = with_flags(settings, allow_transductive)
    experiment = load_experiment(preset, file, settings, name=dataset, data=data, subject=subject)
    _run(experiment, out or Path("runs") / f"{experiment.name}-{experiment.dataset.name}")


def _run(experiment: Any, out: Path) -> None:
    from calcarine.experiment import run_experiment
    from calcarine.experiment.progress import RichProgress

    _print_result(run_experiment(experiment, out, RichProgress()).path)


def _print_result(path: Path) -> None:
    from calcarine.reporting import main_figures
    from calcarine.reporting.run_records import read_audit

    for line in main_figures(path):
        print(line)
    if (audit := read_audit(path)) is not None:
        print(f"Audit: {audit['outcome']}")
    print(f"Report: {path / 'report.html'}")
    if (path / "encoding.html").exists():
        print(f"Encoding maps: {path / 'encoding.html'}")


@app.command()
def features(path: Run) -> None:
    """Extract z and c of all stimuli of a run."""
    stage(path, "features")


@app.command()
def encode(
    path: Annotated[Path | None, typer.Argument(help="Run's folder to continue.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Data set; see 'datasets list'.")] = None,
    data: Data = None,
    subject: Subject = None,
    out: Annotated[Path | None, typer.Option(help="Output folder; the same one continues.")] = None,
    settings: Settings = None,
) -> None:
    """Map which parts of the diffusion model explain which voxels."""
    from calcarine.experiment import load_experiment

    experiment = None
    if path is None:
        experiment = load_experiment(
            "encoding", None, settings or (), name=dataset, data=data, subject=subject
        )
        path = out or Path("runs") / f"encoding-{experiment.dataset.name}"
    else:
        refuse_beside_a_run(settings, dataset, data, subject, out)
    stage(path, "encode", experiment)
    print(f"Maps and figures: {path / 'encoding.html'}")


@app.command()
def fit(path: Run) -> None:
    """Fit the decoders of a run."""
    stage(path, "fit")


@app.command()
def reconstruct(path: Run) -> None:
    """Make the pictures of a run."""
    stage(path, "reconstruct")


@app.command()
def evaluate(path: Run) -> None:
    """Score the pictures of a run."""
    stage(path, "evaluate")


@app.command()
def report(path: Run) -> None:
    """Write the report of a run."""
    stage(path, "report")
    _print_result(path)


@app.command()
def init(
    out: Annotated[Path, typer.Argument(help="Output folder to be made.")],
    preset: Annotated[str, typer.Option(help="Named settings.")] = "takagi",
    dataset: Annotated[str | None, typer.Option(help="Data set.")] = None,
    data: Data = None,
    subject: Subject = None,
    settings: Settings = None,
) -> None:
    """Make a run folder without running it, for doing the stages one by one."""
    from calcarine.experiment import load_experiment
    from calcarine.experiment.run_directory import RunDirectory

    experiment = load_experiment(
        preset, None, settings or (), name=dataset, data=data, subject=subject
    )
    print(f"Wrote {RunDirectory(out, experiment).path / 'experiment.yaml'}")
