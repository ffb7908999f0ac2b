"""The report holds what a reader needs, and nothing that reaches outside."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from calcarine.cli._print import print_result
from calcarine.errors import CalcarineError
from calcarine.reporting import build_gallery, build_report, figures, headline_scores
from calcarine.reporting import shown_stimuli as picks
from calcarine.reporting.bottleneck_figure import curve_figure
from calcarine.reporting.report_terms import report_terms
from calcarine.reporting.run_records import read_run
from calcarine.reporting.score_figure import scores_figure

MakeRun = Callable[..., Path]
HOSTILE = "<script>alert(1)"  # the id that the fake run holds


class Page(HTMLParser):
    """Collects tags with their attributes, headings and the visible text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[str] = []
        self.text = ""
        self._heading = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._heading = tag in ("h1", "h2", "h3")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._heading:
            self.headings.append(data)
            self._heading = False

    def images(self) -> list[dict[str, str | None]]:
        return [attrs for tag, attrs in self.tags if tag == "img"]


def page_of(run: Path) -> Page:
    return Page(build_report(run).read_text("utf-8"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, run_maker: MakeRun) -> tuple[Path, Page]:
    run = run_maker(tmp_path_factory.mktemp("report") / "run")
    return run, page_of(run)


def test_every_section_is_there(built: tuple[Path, Page]) -> None:
    _, page = built
    assert page.headings == [
        "fake, subj01 (run run)",
        "How to read this page",
        "Main scores",
        "Reconstructions",
        "From poor to good",
        "Random selection",
        "Variability of samples",
        "Scores",
        "Definitions of the metrics",
        "Comparison with Takagi & Nishimoto (2023)",
        "Settings",
        "Data, times and versions",
        "Limits",
        "Notes of the run",
    ]
    for words in (
        "Reconstructions of 14 images from the simulated brain activity of subj01",
        "A note of the run.",
        "generation.strength",
        "median alpha",
        "sha256:bb",
        "2.0 h",
        "with seed 2023",
        "as in the paper",
        "p < 0.001",
    ):
        assert words in page.text, words


def test_nothing_is_fetched_or_run(built: tuple[Path, Page]) -> None:
    run, page = built
    for tag, attrs in page.tags:
        assert tag not in ("script", "link", "iframe", "object"), tag
        for name in ("src", "href", "srcset", "data", "action"):
            value = attrs.get(name) or ""
            assert not value or value.startswith(("#", "data:image/png;base64,")), value
    html = (run / "report.html").read_text("utf-8")
    assert not re.search(r"url\(|@import", html)


def test_hostile_ids_and_titles_are_escaped(built: tuple[Path, Page]) -> None:
    run, page = built
    html = (run / "report.html").read_text("utf-8")
    assert "<script" not in html and "<b>dataset" not in html
    assert HOSTILE in page.text
    assert any(HOSTILE in (image["alt"] or "") for image in page.images())


def test_images_are_embedded_and_described(built: tuple[Path, Page]) -> None:
    _, page = built
    images = page.images()
    # (5 + 12) rows of truth and four methods, 3 of truth and three samples, one plot.
    assert len(images) == 17 * 5 + 3 * 4 + 1
    for image in images:
        assert image["alt"]
        content = base64.b64decode((image["src"] or "").split(",", 1)[1])
        with Image.open(io.BytesIO(content)) as opened:
            opened.verify()
            assert opened.format == "PNG"


def test_figures_are_written_too(built: tuple[Path, Page]) -> None:
    run, _ = built
    for name in ("scores.png", "reconstructions.png"):
        with Image.open(run / "figures" / name) as image:
            assert min(image.size) > 400
    assert not list(run.rglob("*.part"))


def test_the_same_run_gives_the_same_report(built: tuple[Path, Page]) -> None:
    run, _ = built
    first = (run / "report.html").read_bytes()
    assert build_report(run).read_bytes() == first


def test_simulated_run_says_so_everywhere(built: tuple[Path, Page]) -> None:
    _, page = built
    assert "SIMULATED brain" in page.text and "MEASURED" not in page.text
    # The badge, three sheets of pictures, the table of scores and that of the pattern.
    assert page.text.count("SIMULATED") == 6
    assert "The brain was simulated" in page.text


def test_measured_run_with_one_latent(fake_run: MakeRun) -> None:
    page = page_of(fake_run(methods=("z", "direct ridge"), simulated=False, n_samples=1))
    assert "MEASURED brain" in page.text
    assert "SIMULATED" not in page.text and "The brain was simulated" not in page.text
    assert "The pattern of the paper" not in page.headings
    assert "” of z" in page.text


def test_matplotlib_figures_are_marked_when_simulated(fake_run: MakeRun) -> None:
    record = read_run(fake_run(methods=("z",), n_pictures=2, n_samples=1))
    for simulated in (True, False):
        record = replace(record, manifest=record.manifest | {"simulated": simulated})
        for figure in (
            scores_figure(record.scores[:3], simulated),
            figures.sheet_figure(record, picks.at_random(record, None), "caption"),
        ):
            words = [text.get_text() for text in figure.texts]
            assert ("SIMULATED" in words) is simulated


def test_first_sample_is_shown_whatever_the_index_order(fake_run: MakeRun) -> None:
    record = read_run(fake_run())
    for stimulus in record.ids:
        path = record.picture(stimulus, "z_c")
        assert path is not None and path.name.endswith("_00.png")
    assert record.samples(record.ids[0], "z_c") == [0, 1, 2]


def test_no_sheet_of_pictures_is_cut_at_the_right(built: tuple[Path, Page]) -> None:
    run, _ = built
    html = (run / "report.html").read_text("utf-8")
    sheets = re.findall(r'(.{60})<table class="pictures (\w+)">', html, re.DOTALL)
    assert [name for _, name in sheets] == ["methods", "methods", "samples"]
    for before, name in sheets:
        assert "scroll" not in before
        # Wide pages shrink the columns, and narrow ones wrap the rows with a name at each picture.
        assert re.search(r"@media \(max-width:\d+px\)\{\." + name, html)
    rows = re.findall(r'<span class="name">([^<]+)</span><img', html)
    assert rows[:5] == ["stimulus", "z", "c", "z_c", "direct ridge"]
    assert rows[-4:] == ["stimulus", "sample 0", "sample 1", "sample 2"]


def test_pages_are_named_by_data_set_subject_and_folder(fake_run: MakeRun, tmp_path: Path) -> None:
    run = fake_run("tuesday", n_pictures=2, n_samples=1)
    title = "fake, subj01 (run tuesday)"
    assert page_of(run).headings[0] == title
    html = (run / "report.html").read_text("utf-8")
    assert f"<title>{title} – calcarine report</title>" in html
    gallery = build_gallery(run, tmp_path / "gallery.html").read_text("utf-8")
    assert f"<h1>{title}</h1>" in gallery
    manifest = json.loads((run / "manifest.json").read_text())
    del manifest["dataset"]["subject"]
    (run / "manifest.json").write_text(json.dumps(manifest))
    assert read_run(run).title == "fake, 1 (run tuesday)"  # the subject of the settings


def test_terms_are_explained_before_the_first_card(built: tuple[Path, Page]) -> None:
    _, page = built
    before = page.text[: page.text.index("compared with its strongest floor in")]
    for words in ("z_c", "floor", "ceiling", "pool", "fixed image", "early, late layer", "judge"):
        assert f"\n{words}" in before, words
    assert "“scenes”, which comes with calcarine and was trained on" in before
    assert "the mean training picture; the reconstructions of other stimuli" in before
    assert "random training picture" not in before  # the run has no such floor


def test_only_terms_of_the_page_are_explained(fake_run: MakeRun) -> None:
    record = read_run(fake_run(methods=("z",), n_samples=1))
    pixels = [score for score in record.scores if score.metric == "SSIM" and score.method == "z"]
    terms = [term for term, _ in report_terms(replace(record, scores=pixels))]
    assert terms == ["stimulus", "z"]


def test_notes_stand_on_the_console_too(
    fake_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    print_result(fake_run(methods=("z",), n_pictures=2, n_samples=1))
    assert "Note: A note of the run.\n" in capsys.readouterr().out


def test_every_table_names_its_judge(fake_run: MakeRun) -> None:
    run = fake_run(n_samples=1)
    lines = headline_scores(run)
    assert any("late layer, fixed image (calcarine, judge scenes)" in line for line in lines)
    assert any("pixel correlation (calcarine)" in line for line in lines)
    page = page_of(run)
    assert "category accuracy · calcarine · judge scenes" in page.text
    assert "n = 14, pool 14, judge scenes" in page.text
    assert page.text.count("Judge of layers, n-way and category metrics: “scenes”.") == 2
    summary = run / "metrics" / "summary.json"
    records = [row | {"judge": None} for row in json.loads(summary.read_text())]
    summary.write_text(json.dumps(records))
    assert "scenes" not in page_of(run).text


def test_the_figure_names_every_floor_and_labels_its_axes(fake_run: MakeRun) -> None:
    record = read_run(fake_run(methods=("z",), n_pictures=2, n_samples=1))
    figure = scores_figure(record.scores, False)
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert len(panels) == 6
    names = [label.get_text() for label in panels[0].get_yticklabels()]
    for heading, name in (
        ("methods", "z"),
        ("floors", "training mean"),
        ("floors", "shuffled brain"),
        ("ceilings", "ceiling z_c"),
    ):
        assert names.index(heading) < names.index(name)
    assert panels[0].get_xlabel() == "correlation r\n(higher is better)"
    assert all("better)" in axes.get_xlabel() for axes in panels)
    sizes = [text.get_fontsize() for axes in panels for text in axes.get_yticklabels()]
    assert min(sizes) >= 8 and figure.get_figwidth() <= 7.5


def test_the_bottleneck_figure_labels_its_axes_too() -> None:
    point = {"method": "z", "metric": "10-way top-1", "chance": 0.1, "ci_low": 0.2, "ci_high": 0.4}
    curve = [point | {"rank": rank, "whole": rank == 4, "value": 0.3} for rank in (0, 4)]
    (axes,) = curve_figure(curve, False).axes
    assert axes.get_ylabel() == "share of draws\n(higher is better)"


def test_images_are_ranked_by_a_score_that_is_not_saturated(fake_run: MakeRun) -> None:
    run = fake_run()
    path = run / "metrics" / "per_image.parquet"
    frame = pd.read_parquet(path)
    name = "identification, pixels, fixed image"
    contest = frame[frame["metric"] == "pixel correlation"].assign(metric=name)
    best = contest["id"].isin(sorted(contest["id"].unique())[:7])
    pd.concat([frame, contest.assign(value=contest["value"].mask(best, 1.0))]).to_parquet(path)
    order = picks.quality(read_run(run))
    assert order is not None and (order.metric, order.at_ends) == ("pixel correlation", 0)
    caption = "of “pixel correlation” of z_c. It is used instead of “identification, pixels"
    assert caption in page_of(run).text
    # Without ties at an end, the first of the list is taken.
    pd.concat([frame, contest]).to_parquet(path)
    order = picks.quality(read_run(run))
    assert order is not None and order.metric == name


def test_random_picks_ignore_scores(fake_run: MakeRun) -> None:
    run = fake_run()
    record = read_run(run)
    before = [pick.id for pick in picks.at_random(record, picks.quality(record))]
    path = run / "metrics" / "per_image.parquet"
    frame = pd.read_parquet(path)
    frame.assign(value=-frame["value"]).to_parquet(path)
    record = read_run(run)
    after = [pick.id for pick in picks.at_random(record, picks.quality(record))]
    assert before == after
    assert len(set(before)) == 12


def test_quantiles_are_those_of_the_leading_method() -> None:
    values = pd.Series({f"i{k:03d}": k / 100 for k in range(101)}).sample(frac=1, random_state=0)
    chosen = picks.at_quantiles(picks.Quality("z_c", "pixel correlation", values))
    assert [pick.id for pick in chosen] == ["i005", "i025", "i050", "i075", "i095"]
    assert [pick.label for pick in chosen] == ["5 %", "25 %", "50 %", "75 %", "95 %"]
    worst_last = picks.at_quantiles(picks.Quality("z_c", "LPIPS", values, higher_is_better=False))
    assert [pick.id for pick in worst_last] == ["i095", "i075", "i050", "i025", "i005"]


@pytest.mark.parametrize(
    ("file", "command"),
    [
        ("experiment.yaml", "calcarine run"),
        ("manifest.json", "calcarine run"),
        ("reconstructions/index.parquet", "calcarine run"),
        ("metrics/summary.json", "calcarine evaluate"),
        ("metrics/per_image.parquet", "calcarine evaluate"),
    ],
)
def test_a_missing_or_broken_file_is_named(fake_run: MakeRun, file: str, command: str) -> None:
    run = fake_run(methods=("z",), n_samples=1)
    (run / file).write_bytes(b"{ not: [whole")
    with pytest.raises(CalcarineError, match="cannot be read") as caught:
        build_report(run)
    assert file in str(caught.value)
    (run / file).unlink()
    with pytest.raises(CalcarineError, match="is missing") as caught:
        build_report(run)
    assert file in str(caught.value) and f"`{command} {run}`" in str(caught.value)
    assert not (run / "report.html").exists()


def test_missing_picture_and_missing_run_are_told(fake_run: MakeRun, tmp_path: Path) -> None:
    run = fake_run(methods=("z",), n_pictures=2, n_samples=1)
    (run / "reconstructions" / "z" / "img001_00.png").unlink()
    with pytest.raises(CalcarineError, match=r"img001_00\.png is missing"):
        build_report(run)
    with pytest.raises(CalcarineError, match="no run at"):
        build_report(tmp_path / "nowhere")


def test_index_cannot_reach_outside_of_the_run(fake_run: MakeRun, tmp_path: Path) -> None:
    run = fake_run(methods=("z",), n_pictures=2, n_samples=1)
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    path = run / "reconstructions" / "index.parquet"
    pd.read_parquet(path).assign(file="../secret.png").to_parquet(path)
    record = read_run(run)
    with pytest.raises(CalcarineError, match="outside of the run"):
        record.picture("img001", "z")


def test_manifest_must_say_whether_simulated(fake_run: MakeRun) -> None:
    run = fake_run(methods=("z",), n_samples=1)
    manifest = json.loads((run / "manifest.json").read_text())
    del manifest["simulated"]
    (run / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CalcarineError, match="whether the brain was simulated"):
        build_report(run)


def test_main_figures_are_lines_of_the_leading_method(fake_run: MakeRun) -> None:
    run = fake_run(n_samples=1)
    *lines, last = headline_scores(run)
    assert last.startswith("z_c compared with its strongest floor in 6 main scores: ")
    # Every other method follows in a line of its own.
    assert [line.startswith("  ") for line in lines] == [False, *[True] * 4] * 6
    lines = [line for line in lines if not line.startswith("  ")]
    assert all(line.startswith("z_c: ") for line in lines)
    found = next(line for line in lines if "identification, pixels, fixed image" in line)
    assert re.search(
        r"\(calcarine\): 0\.\d{3} \[0\.\d{3}, 0\.\d{3}\], chance 0\.500, "
        r"p against a shuffled brain < 0\.001, "
        r"floor 0\.\d{3} \(.+\), ceiling 0\.\d{3} \(ceiling z_c\): not tested against its",
        found,
    )


def set_scores(run: Path, metric: str, **means: float) -> None:
    """Replace the scores of a metric by images around the given means."""
    summary, table = run / "metrics" / "summary.json", run / "metrics" / "per_image.parquet"
    records = [one for one in json.loads(summary.read_text()) if "shuffled" not in one["method"]]
    frame = pd.read_parquet(table)
    for name, mean in means.items():
        method = name.replace("_", " ") if name != "z_c" else name
        method = "ceiling z_c" if name == "ceiling" else method
        rows = (frame["method"] == method) & (frame["metric"] == metric)
        frame.loc[rows, "value"] += mean - frame.loc[rows, "value"].mean()
        for record in records:
            if (record["method"], record["metric"]) == (method, metric):
                record["value"] = mean
    summary.write_text(json.dumps(records))
    frame.to_parquet(table)


@pytest.mark.parametrize(
    ("means", "others", "sentence", "outcome", "best"),
    [
        (
            {"z_c": 0.2, "direct_ridge": 0.7},
            "above its strongest floor (training mean)",
            "below its strongest floor (training mean)",
            "below floor",
            "0.700 (direct ridge)",
        ),
        (
            {"z_c": 0.2, "direct_ridge": 0.1, "ceiling": 0.25},
            "below its strongest floor (training mean)",
            "ceiling below floor: the generator cannot draw these pictures",
            "ceiling below floor",
            None,
        ),
        (
            {"z_c": 0.99, "direct_ridge": 0.5},
            "not distinguishable from its strongest floor (training mean)",
            "above its strongest floor (training mean)",
            "above floor",
            "0.990 (z_c)",
        ),
    ],
)
def test_the_verdict_stands_on_the_console_in_the_cards_and_in_the_table(
    fake_run: MakeRun, means: dict[str, float], others: str, sentence: str, outcome: str, best: str
) -> None:
    run = fake_run(n_samples=1)
    set_scores(run, "pixel correlation", training_mean=0.5, **means)
    lines = headline_scores(run)
    assert lines[0].startswith("z_c: pixel correlation") and lines[0].endswith(f": {sentence}")
    direct = next(line for line in lines if line.startswith("  direct ridge"))
    assert direct.endswith(f": {others}")
    assert f" {outcome}" in lines[-1] and "above floor" in lines[-1]
    page = page_of(run)
    card = page.text[page.text.index("pixel correlation · calcarine") :][:500]
    assert sentence in card and "strongest floor 0.500 (training mean)" in card
    assert best is None or f"best method {best}" in card
    assert lines[-1] in page.text
    table = page.text[page.text.index("All scores") :]
    assert outcome in table[table.index("pixel correlation") :][:400]


def test_protocols_and_pools_never_share_a_row() -> None:
    from calcarine.reporting.run_records import Score
    from calcarine.reporting.score_tables import arrange

    def score(method: str, protocol: str, pool: int) -> Score:
        nothing = float("nan")
        numbers = (0.5, *[nothing] * 7)
        return Score(method, "identification, pixels", protocol, *numbers, 3, pool, "method", True)

    groups = arrange(
        [score("z", "a", 10), score("c", "a", 10), score("z_c", "a", 50), score("z", "b", 10)]
    )
    rows = [[(row.protocol, row.pool, sorted(row.cells)) for row in g.rows] for g in groups]
    assert rows == [[("a", 10, ["c", "z"]), ("a", 50, ["z_c"])], [("b", 10, ["z"])]]


def test_a_p_that_could_not_be_significant_is_called_inconclusive() -> None:
    from dataclasses import replace

    from calcarine.reporting.run_records import Score
    from calcarine.reporting.score_tables import p_value

    score = Score("z", "SSIM", "a", *[0.5] * 4, 0.01, 0.2, 0.0, 1.0, 5, None, "method", True)
    assert p_value(score) == "p = 0.200"
    assert p_value(replace(score, p_holm_min=0.04)) == "p = 0.200"
    assert p_value(replace(score, p_holm_min=0.2)).endswith(
        "(inconclusive: perfect reconstructions would get 0.2)"
    )
    assert p_value(replace(score, p_holm=0.03, p_holm_min=0.06)) == "p = 0.030"


def _with_fid(run: Path) -> None:
    """Add a FID, whose name does not tell its direction: c has the best."""
    file = run / "metrics" / "summary.json"
    records = json.loads(file.read_text())
    first = next(record for record in records if record["method"] == "z_c")
    for method, value in (("z", 30.0), ("c", 5.0), ("z_c", 20.0)):
        changes = {"method": method, "metric": "FID (64)", "value": value, "p": None}
        records.append({**first, **changes, "higher_is_better": False, "n": 14})
    file.write_text(json.dumps(records))


def test_the_direction_of_a_metric_is_that_of_its_record(
    tmp_path: Path, run_maker: MakeRun
) -> None:
    from calcarine.reporting.score_tables import arrange

    run = run_maker(tmp_path / "run")
    _with_fid(run)
    record = read_run(run)
    rows = [row for group in arrange(record.scores) for row in group.rows]
    fid = next(row for row in rows if row.metric == "FID (64)")
    assert not fid.higher_is_better and "lower is better" in fid.definition
    assert not record.higher_is_better("FID (64)") and record.higher_is_better("SSIM")


def test_the_lowest_value_of_a_distance_is_the_best(tmp_path: Path, run_maker: MakeRun) -> None:
    from calcarine.reporting.run_records import read_run_scores, read_run_verdicts
    from calcarine.reporting.score_tables import headlines

    run = run_maker(tmp_path / "run")
    _with_fid(run)
    scores = [score for score in read_run_scores(run) if score.metric == "FID (64)"]
    (line,) = headlines(scores, read_run_verdicts(run))
    assert line.best.method == "c"
