import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import calcarine.study
from calcarine.cli.main import app, main
from calcarine.study.wording import QUESTION


def call(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def fails(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["calcarine", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        main()
    said = capsys.readouterr().err
    assert stop.value.code == 2 and said.startswith("calcarine: ") and said.count("\n") == 1
    return said


def test_a_study_from_make_to_analysis(run, tmp_path, rater, first_side):
    from calcarine.study.store import Study

    consent = tmp_path / "consent.txt"
    consent.write_text("I agree <b>freely</b>.\r\n\r\nSecond part.\n")
    study = tmp_path / "study"
    made = call(
        "study",
        "make",
        run,
        "--out",
        study,
        "--originals",
        3,
        "--raters",
        1,
        "--practice",
        1,
        "--catch",
        2,
        "--size",
        32,
        "--consent",
        consent,
        "--compare",
        "z_c vs z",
        "--no-identification",
        "--question",
        "Which is it?",
        "--seed",
        4,
    )
    assert made.exit_code == 0, made.output
    assert "SIMULATED brain" in made.output and "1 practice trials, 3 questions" in made.output
    assert "invite an even number" in made.output
    said = json.loads((study / "study.json").read_text())
    assert said["question"] == "Which is it?" and said["seed"] == 4
    link = call("study", "invite", study, "--n", 1, "--url", "https://lab.example/").output.split()
    assert link[0] == "rater-02" and link[1].startswith("https://lab.example/r/")
    for _, token in Study(study).links():
        me = rater(Study(study), token)
        page = me.get().text
        assert "I agree &lt;b&gt;freely" in page and "<p>Second part.</p>" in page
        me.finish(first_side)
    assert call("study", "status", study).output == "rater-01  6 of 6\nrater-02  6 of 6\n"
    out = tmp_path / "answers.csv"
    assert "Wrote 12 answers" in call("study", "export", study, "--out", out).output
    assert len(out.read_text().splitlines()) == 13
    analysed = call("study", "analyse", study)
    assert "z_c vs z" in analysed.output and "100 %" in analysed.output
    assert (study / "analysis.html").exists() and (study / "analysis.json").exists()


def test_gallery(run, tmp_path):
    said = call("gallery", run, "--out", tmp_path / "g.html")
    assert said.output == f"Gallery: {tmp_path / 'g.html'}\n" and (tmp_path / "g.html").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["make", "--out", "S"], "Give folders of runs"),
        (["make", "RUN", "--folder", "a=b", "--out", "S"], "not both"),
        (["make", "RUN"], "Give the folder of the new study"),
        (["make", "nowhere", "--out", "S"], "There is no run at nowhere"),
        (["make", "RUN", "--out", "RUN"], "exists already"),
        (["make", "RUN", "--out", "S", "--method", "q"], "has no method 'q'; it has: z, c, z_c"),
        (["make", "RUN", "--out", "S", "--compare", "z_c"], "write two methods as 'z_c vs z'"),
        (["make", "RUN", "--out", "S", "--compare", "z vs q"], "no method 'q' to compare"),
        (["make", "RUN", "--out", "S", "--sample", "best"], "choose first or random"),
        (["make", "RUN", "--out", "S", "--originals", "1"], "choose at least 2"),
        (["make", "RUN", "--out", "S", "--raters", "0"], "choose between 1 and 1000"),
        (
            ["make", "RUN", "--out", "S", "--catch-minimum", "2"],
            "'catch_minimum' of the study cannot be 2.0",
        ),
        (["make", "RUN", "--out", "S", "--size", "5"], "'size' of the study cannot be 5"),
        (["make", "RUN", "--out", "S", "--simulated"], "A run records whether"),
        (["make", "RUN", "--out", "S", "--consent", "EMPTY"], "is empty"),
        (["make", "RUN", "--out", "S", "--consent", "none.txt"], "No such file"),
        (["make", "--folder", "original=RUN", "--folder", "a=RUN", "--out", "S"], "no pictures"),
        (["serve", "RUN"], "is not a study"),
        (["invite", "nowhere"], "is not a study"),
        (["export", "nowhere"], "is not a study"),
        (["analyse", "nowhere"], "is not a study"),
    ],
)
def test_mistakes_are_told_in_one_sentence(run, tmp_path, monkeypatch, capsys, words, sentence):
    monkeypatch.chdir(tmp_path)
    Path("empty.txt").write_text(" \n")
    places = {"RUN": str(run), "S": "S", "EMPTY": "empty.txt"}
    given = [places.get(word, word.replace("=RUN", f"={run}")) for word in words]
    said = fails(monkeypatch, capsys, "study", *given)
    assert sentence in said
    assert not Path("S").exists() and not list(tmp_path.glob(".S*"))


def test_help_does_not_load_the_web():
    code = (
        "import sys; from calcarine.cli.main import app\n"
        "loaded = {'fastapi', 'uvicorn', 'pandas', 'scipy', 'numpy', 'jinja2', 'pydantic'}\n"
        "print(sorted(loaded & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_raters_are_asked_the_question_of_the_study_everywhere(run, tmp_path, rater):
    from calcarine.study.store import Study

    study = tmp_path / "study"
    made = call("study", "make", run, "--out", study, "--originals", 3, "--raters", 1, "--size", 32)
    assert made.exit_code == 0, made.output
    assert json.loads((study / "study.json").read_text())["question"] == QUESTION
    (_, token) = next(iter(Study(study).links()))
    assert rater(Study(study), token).get().text.count(QUESTION) == 2  # introduction and trials
    assert QUESTION in " ".join(call("study", "--help").output.split())


def test_the_question_is_written_in_one_place():
    room = Path(calcarine.study.__file__).parent
    files = [file for ending in ("py", "j2", "js") for file in room.rglob(f"*.{ending}")]
    assert len(files) > 15
    holders = [file.name for file in files if QUESTION in file.read_text("utf-8")]
    assert holders == ["wording.py"]
    assert QUESTION == "Which picture is more similar to the original?"
    for file in files:
        assert not re.search("(more|<em>more</em>) (like|alike)", file.read_text("utf-8")), file
