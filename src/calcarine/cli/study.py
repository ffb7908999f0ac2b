"""Commands ``calcarine study ...`` and ``calcarine gallery``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from calcarine.cli._options import NoPreset, NoSettings, refuse_with_a_run
from calcarine.errors import DamagedFileError, MissingFileError, SettingError
from calcarine.study.wording import QUESTION, TITLE

study_app = typer.Typer(
    help=f"Human rating study: {QUESTION}",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
Folder = Annotated[Path, typer.Argument(metavar="STUDY", help="Folder of the study.")]


@study_app.command()
def make(
    runs: Annotated[list[Path] | None, typer.Argument(metavar="RUN", help="Finished runs.")] = None,
    out: Annotated[Path | None, typer.Option(help="New folder for the study.")] = None,
    folder: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=DIR",
            help="Folder of pictures in place of runs; one NAME is original. Repeatable.",
        ),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(help="Method of the runs; repeatable. By default z_c, z and c."),
    ] = None,
    compare: Annotated[
        list[str] | None,
        typer.Option(metavar="'A vs B'", help="Compare these two; repeatable. By default all."),
    ] = None,
    identification: Annotated[
        bool, typer.Option(help="Also compare each reconstruction with that of another original.")
    ] = True,
    sample: Annotated[str, typer.Option(help="Sample of each method: first or random.")] = "first",
    originals: Annotated[int, typer.Option(help="Number of originals, drawn by the seed.")] = 30,
    raters: Annotated[
        int, typer.Option(help="Number of invitations; even numbers balance exactly.")
    ] = 6,
    practice: Annotated[int, typer.Option(help="Number of practice trials, with feedback.")] = 4,
    catch: Annotated[int, typer.Option(help="Number of catch trials, with an obvious answer.")] = 8,
    catch_minimum: Annotated[
        float, typer.Option(help="Exclude raters with a smaller share of correct catch trials.")
    ] = 0.8,
    finished_minimum: Annotated[
        float, typer.Option(help="Exclude raters who answer a smaller share of trials.")
    ] = 0.5,
    alpha: Annotated[float, typer.Option(help="Family-wise level of the tests.")] = 0.01,
    size: Annotated[int, typer.Option(help="Side of every picture in pixels.")] = 256,
    rest_every: Annotated[int, typer.Option(help="Trials between breaks.")] = 40,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of everything random except the links.")
    ] = 0,
    title: Annotated[str, typer.Option(help="Headline of the pages.")] = TITLE,
    question: Annotated[str, typer.Option(help="Question above the pictures.")] = QUESTION,
    consent: Annotated[Path | None, typer.Option(help="Plain text file with the consent.")] = None,
    simulated: Annotated[
        bool | None,
        typer.Option(
            "--simulated/--measured",
            help="With folders: whether the brain was simulated or measured.",
        ),
    ] = None,
) -> None:
    """Make a study of runs, or of folders of pictures with the same names."""
    from calcarine.study.make import make_study
    from calcarine.study.sources import from_folders, from_runs

    if bool(runs) == bool(folder):
        raise SettingError("Give folders of runs, or --folder NAME=DIR, but not both.")
    if out is None:
        raise SettingError("Give the folder of the new study with --out STUDY.")
    if folder:
        if method or sample != "first":
            raise SettingError("--method and --sample are for runs; a folder is one method.")
        pictures = from_folders(folder, simulated)
    else:
        if simulated is not None:
            raise SettingError(
                "A run records whether it is simulated; leave --simulated and --measured out."
            )
        pictures = from_runs(runs or (), method or (), sample, seed)
    texts = {} if consent is None else {"consent": _text(consent)}
    study = make_study(
        pictures,
        out,
        title=title,
        question=question,
        n_originals=originals,
        n_raters=raters,
        compare=compare or (),
        identification=identification,
        seed=seed,
        practice=practice,
        catch=catch,
        catch_minimum=catch_minimum,
        finished_minimum=finished_minimum,
        alpha=alpha,
        size=size,
        rest_every=rest_every,
        **texts,
    )
    settings = study.settings
    asked = len(settings.comparisons) * len(settings.originals)
    print(f"{'SIMULATED brain. ' if settings.simulated else ''}Wrote {out}")
    print(f"{len(settings.originals)} originals; comparisons:")
    for comparison in settings.comparisons:
        print(f"  {comparison.name}")
    print(f"Each rater: {settings.practice} practice trials, {asked} questions, {catch} catches.")
    if settings.left_out:
        print(f"{len(settings.left_out)} originals left out; study.json names them and says why.")
    if raters % 2:
        print("Sides and order are balanced exactly over pairs of raters; invite an even number.")
    print(f"Next: calcarine study serve {out}")


@study_app.command()
def invite(
    study: Folder,
    n: Annotated[int, typer.Option(help="Number of further raters.")] = 1,
    url: Annotated[
        str, typer.Option(help="Address that the links begin with.")
    ] = "http://127.0.0.1:8765",
) -> None:
    """Add raters and print their links; a running server accepts them at once."""
    from calcarine.study.store import Study

    for name, token in Study(study).invite(n):
        print(f"{name}  {url.rstrip('/')}/r/{token}")


@study_app.command()
def serve(
    study: Folder,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8765,
    url: Annotated[
        str | None, typer.Option(help="Address that the links begin with, behind a proxy.")
    ] = None,
) -> None:
    """Serve the study and print the link of each rater."""
    from calcarine.study.server import serve as serve_study
    from calcarine.study.store import Study

    serve_study(Study(study), host, port, url)


@study_app.command()
def status(study: Folder) -> None:
    """Show how far each rater is."""
    from calcarine.study.session import progress
    from calcarine.study.store import Study

    for name, answered, total in progress(Study(study)):
        print(f"{name}  {answered} of {total}")


@study_app.command()
def export(
    study: Folder, out: Annotated[Path, typer.Option(help="CSV file.")] = Path("answers.csv")
) -> None:
    """Write a CSV file with one line for each answer and the correct one."""
    from calcarine.study.answers import export_answers
    from calcarine.study.store import Study

    print(f"Wrote {export_answers(Study(study), out)} answers to {out}")


@study_app.command()
def analyse(
    study: Folder,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the results; by default the study.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")] = 0,
) -> None:
    """Test which pictures raters prefer, by the rules fixed when the study was made."""
    from calcarine.study.analysis import analyse as analyse_study
    from calcarine.study.analysis_page import table_lines, write_analysis
    from calcarine.study.store import Study

    analysis = analyse_study(Study(study), seed)
    written, page = write_analysis(analysis, out or study)
    for line in table_lines(analysis):
        print(line)
    print(f"Wrote {written} and {page}")


def gallery(
    path: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    out: Annotated[
        Path | None, typer.Option(help="Page to write; by default gallery.html in the run.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Number of samples of each method.")] = 1,
    pixels: Annotated[
        int, typer.Option(min=16, max=1024, help="Largest side of a picture in pixels.")
    ] = 256,
    limit_mb: Annotated[
        float,
        typer.Option(
            min=0, help="Size in MB above which the pictures go into a folder next to the page."
        ),
    ] = 40,
    preset: NoPreset = None,
    settings: NoSettings = None,
) -> None:
    """Write a page that shows every test picture of a run with its reconstructions."""
    from calcarine.files import is_inside
    from calcarine.files.locks import folder_lock
    from calcarine.reporting.gallery import build_gallery

    refuse_with_a_run(path, preset, settings)
    if not path.is_dir():
        raise MissingFileError(f"There is no run at {path}; make one with 'calcarine run'.")
    page = out or path / "gallery.html"
    with folder_lock(path, writes=is_inside(page, path)):
        made = build_gallery(path, page, samples=samples, pixels=pixels, limit_mb=limit_mb)
    print(f"Gallery: {made}")


def _text(file: Path) -> str:
    try:
        text = file.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError as error:
        raise DamagedFileError(f"{file} is not text in UTF-8; save it as UTF-8.") from error
    if not text:
        raise DamagedFileError(f"{file} is empty; write the consent text into it.")
    return text.replace("\r\n", "\n")
