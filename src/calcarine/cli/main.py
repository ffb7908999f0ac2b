"""The command ``calcarine``. Heavy imports wait until a command needs them."""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from calcarine import __version__
from calcarine.cli import splits as _splits  # noqa: F401 - registers its commands
from calcarine.cli.ablation import ablate
from calcarine.cli.audit import audit
from calcarine.cli.bottleneck import bottleneck
from calcarine.cli.datasets import datasets_app
from calcarine.cli.many import many
from calcarine.cli.plan import plan
from calcarine.cli.run import demo, init, run
from calcarine.cli.score import compare, score
from calcarine.cli.seeds import seeds
from calcarine.cli.settings import presets, settings
from calcarine.cli.stages import encode, pretrain, stage_command
from calcarine.cli.study import gallery, study_app
from calcarine.errors import CalcarineError, out_of_memory
from calcarine.experiment.stage import PHASES
from calcarine.experiment.stages import STAGES
from calcarine.training.launched import follow, launch, leading

__all__ = ["PACKAGE", "app", "main"]

PACKAGE = Path(__file__).parents[1]

app = typer.Typer(
    help="Reconstruct seen pictures from fMRI with latent diffusion models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

# Commands of stages that take more than the folder of a run, or work on other folders too.
_OWN = {"audit": audit, "encode": encode, "pretrain": pretrain}
_PANELS: dict[str, tuple[Callable[..., Any], ...]] = {
    "Experiments": (demo, run, plan, init, many, seeds, settings, presets),
    "Stages of a run": tuple(
        stage_command(stage.name, stage.title)
        for stage in STAGES.values()
        if stage.name not in (*_OWN, *PHASES)
    ),
    "Vis-Dec": (
        pretrain,
        *(stage_command(name, STAGES[name].title) for name in PHASES[1:]),
        ablate,
    ),
    "Encoding": (encode,),
    "Scores": (score, compare, audit, bottleneck),
    "Pictures and raters": (gallery,),
}
for _panel, _commands in _PANELS.items():
    for _command in _commands:
        app.command(_command.__name__, rich_help_panel=_panel)(_command)
app.add_typer(study_app, name="study", rich_help_panel="Pictures and raters")
app.add_typer(datasets_app, name="datasets", rich_help_panel="Data")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"calcarine {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Reconstruct seen pictures from fMRI with latent diffusion models."""


def main() -> None:
    """Run the command line: a user's mistake ends with one sentence and exit code 2."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _as_note(warnings.showwarning)
            _run_once()
    except CalcarineError as error:
        print(f"calcarine: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except (MemoryError, RuntimeError) as error:
        device = out_of_memory(error)
        if device is None:
            raise
        print(
            f"calcarine: The memory of this {device} is too small; {_FOR_MEMORY[device]}, else use "
            f"a {device} with more.",
            file=sys.stderr,
        )
        raise SystemExit(2) from None
    except OSError as error:
        print(f"calcarine: {_of_system(error)}.", file=sys.stderr)
        raise SystemExit(2) from None
    except SystemExit as stop:
        if stop.code == 130:
            print("calcarine: interrupted; the same command resumes.", file=sys.stderr)
        raise


def _run_once() -> None:
    """Do the command in the first of the processes that a launcher started, or the only one."""
    launched = launch()
    if launched is None:
        app()
    elif launched.rank == 0:
        with leading(launched):
            app()
    else:
        raise SystemExit(follow(launched, _take_part))


def _take_part(run: Path) -> None:
    from calcarine.experiment.joined_run import take_part
    from calcarine.experiment.run_directory import RunDirectory

    take_part(RunDirectory(run))


_FOR_MEMORY = {
    "GPU": "in a run, set compute.precision to float16 or bfloat16, or compute.device to cpu",
    "machine": "in a run, lower generation.batch_size",
}


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
    """Return what the operating system refused, with the file where it named one."""
    from calcarine.files import free_space, is_disk_full

    reason = error.strerror or str(error) or type(error).__name__
    if error.filename:
        return f"{error.filename}: {reason}"
    if is_disk_full(error):
        # The error names no place: the working folder, or the one for temporary files.
        places = dict.fromkeys([Path.cwd(), Path(tempfile.gettempdir())])
        return f"{reason}; {', '.join(map(free_space, places))}; make room, then repeat the command"
    return reason
