import json
import os
import re
import sqlite3
import stat
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from typer.testing import CliRunner

from calcarine.cli.main import app
from calcarine.errors import CalcarineError
from calcarine.study.make import make_study
from calcarine.study.rater_images import blurred, encode, load_uniform
from calcarine.study.session import progress
from calcarine.study.sources import from_folders, from_runs
from calcarine.study.store import Study, StudyDatabaseError


def questions(study):
    with study.connection() as con:
        return [
            dict(row)
            for row in con.execute(
                "SELECT q.part, q.comparison, q.item, o.original, o.method AS above, "
                "f.method AS first, f.original AS first_of, s.method AS second, "
                "s.original AS second_of, o.file AS o, f.file AS f, s.file AS s FROM questions q "
                "JOIN images o ON o.id = q.original_image JOIN images f ON f.id = q.first_image "
                "JOIN images s ON s.id = q.second_image ORDER BY q.id"
            )
        ]


def pixels(study, file):
    return np.asarray(Image.open(study.images / file), float)


def test_every_comparison_asks_what_its_name_says(make, run):
    study = make(n_originals=4, catch=5, practice=3)
    names = [c.name for c in study.settings.comparisons]
    assert names == [
        "z_c vs z",
        "z_c vs c",
        "z vs c",
        "identification: z_c",
        "identification: z",
        "identification: c",
    ]
    asked = questions(study)
    assert Counter(q["part"] for q in asked) == {"main": 24, "practice": 3, "catch": 5}
    source = from_runs([run])
    for q in asked:
        assert q["above"] == "original"
        if q["part"] != "main":
            assert q["first_of"] == q["original"] != q["second_of"]
            gap = [np.abs(pixels(study, q[x]) - pixels(study, q["o"])).mean() for x in "fs"]
            assert gap[0] < gap[1] / 2  # the answer is plain
            continue
        comparison = study.settings.comparisons[q["comparison"]]
        assert (q["first"], q["second"]) == (comparison.first, comparison.second)
        assert q["first_of"] == q["original"]
        assert (q["second_of"] == q["original"]) == (comparison.kind == "method")
        wanted = load_uniform(source.methods[q["first"]][q["original"]], 32)
        assert (pixels(study, q["f"]) == np.asarray(wanted)).all()
    for number in (3, 4, 5):
        others = Counter(q["second_of"] for q in asked if q["comparison"] == number)
        assert set(others.values()) == {1} and len(others) == 4


def test_catch_trials_are_of_both_kinds_and_of_spare_originals(make):
    easy = [q for q in questions(make(catch=2, practice=0)) if q["part"] == "catch"]
    assert [q["first"] for q in easy] == ["original, blurred", "original, dithered"]
    assert easy[0]["second"] in ("z", "c", "z_c") and easy[1]["second"] == "original"
    used = {q["original"] for q in questions(make("b", catch=2, practice=0)) if q["part"] == "main"}
    assert not used & {q["original"] for q in easy}


def test_the_same_seed_draws_the_same_and_tokens_never(run, tmp_path):
    source = from_runs([run])
    options = {"n_originals": 4, "size": 32, "practice": 0, "catch": 1, "n_raters": 2}
    one, two = (make_study(source, tmp_path / name, **options) for name in "ab")
    other = make_study(source, tmp_path / "c", seed=1, **options)
    assert one.settings.originals == two.settings.originals != other.settings.originals
    drop = {"o", "f", "s"}
    plain = [
        [{k: v for k, v in q.items() if k not in drop} for q in questions(x)] for x in (one, two)
    ]
    assert plain[0] == plain[1]
    assert not {file.name for file in one.images.iterdir()} & {f.name for f in two.images.iterdir()}
    assert not set(one.links()) & set(two.links())


def test_the_folder_says_what_it_is_and_keeps_tokens_apart(make):
    study = make()
    said = json.loads((study.path / "study.json").read_text())
    assert said["simulated"] is True and said["seed"] == 0
    assert said["provenance"][0]["run"] == "hidden-run"
    assert re.fullmatch("[0-9a-f]{64}", said["provenance"][0]["index digest"])
    raw = b"".join(file.read_bytes() for file in study.path.glob("study.*"))
    for _, token in study.links():
        assert token.encode() not in raw and len(token) == 32
    mode = os.stat(study.path / "invitations.csv").st_mode
    assert stat.S_IMODE(mode) == 0o600
    (study.path / "invitations.csv").unlink()
    assert Study(study.path).links() == []
    assert [name for name, _ in study.invite(2)] == ["rater-03", "rater-04"]


def test_rules_cannot_be_changed_afterwards(make):
    study = make()
    file = study.path / "study.json"
    said = json.loads(file.read_text())
    file.write_text(json.dumps({**said, "catch_minimum": 0.1}))
    with pytest.raises(CalcarineError, match="changed after the study was made"):
        Study(study.path)
    file.write_text("{")
    with pytest.raises(CalcarineError, match="is damaged"):
        Study(study.path)


def in_the_middle(content):
    return content[: len(content) // 2] + b"\x5a" * 4096 + content[len(content) // 2 + 4096 :]


def without_a_table(content):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "study.sqlite"
        file.write_bytes(content)
        con = sqlite3.connect(file)
        con.execute("DROP TABLE shown")
        con.close()
        return file.read_bytes()


def with_bytes_that_are_no_text_in_its_schema(content):
    return content.replace(b"CREATE TABLE raters", b"CREATE TABL\x96 raters", 1)


DAMAGES = [
    lambda content: b"",
    lambda content: b"no database at all, but long enough to be read" * 30,
    lambda content: content[:-5000],
    lambda content: content[:100] + bytes(2000) + content[2100:],
    in_the_middle,
    without_a_table,
    with_bytes_that_are_no_text_in_its_schema,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_command_refuses_a_damaged_database(make, damage, tmp_path):
    study = make()
    study.database.write_bytes(damage(study.database.read_bytes()))
    before = study.database.read_bytes()
    for command in ("status", "invite", "analyse", "serve", "export"):
        called = ["study", command, str(study.path)]
        result = CliRunner().invoke(app, called)
        assert isinstance(result.exception, CalcarineError), (command, result.exception)
        said = str(result.exception)
        assert "study.sqlite cannot be used" in said and "backup" in said and "-wal" in said
        assert result.output == ""  # no link, and no word of answers being safe
    assert study.database.read_bytes() == before


def test_a_study_where_nothing_can_be_written_or_that_is_held_says_so(make):
    study = make()
    busy = sqlite3.OperationalError("database is locked")
    for code, words in (
        (sqlite3.SQLITE_BUSY, "another program is using it"),
        (sqlite3.SQLITE_FULL, "MB are free in"),
        (sqlite3.SQLITE_READONLY, "copy the whole folder"),
    ):
        busy.sqlite_errorcode = code
        assert words in str(StudyDatabaseError(study.database, busy))


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE questions SET part = 'other' WHERE part = 'main'",
        "UPDATE questions SET comparison = comparison + 99 WHERE part = 'main'",
        "UPDATE answers SET answered = 'now'",
        "UPDATE answers SET answered = 1e300",
        "UPDATE answers SET client_ms = 'long'",
    ],
)
def test_values_that_no_answer_can_have_are_refused(make, rater, tmp_path, change):
    study = make()
    me = rater(study, study.links()[0][1])
    state = me.begin()
    while state["phase"] == "trial":
        state = me.answer(state["trial"], "left").json()["state"]
    with sqlite3.connect(study.database) as con:
        con.execute(change)
    for command in (["export", "--out", str(tmp_path / "a.csv")], ["analyse"]):
        called = ["study", command[0], str(study.path), *command[1:]]
        result = CliRunner().invoke(app, called)
        assert isinstance(result.exception, CalcarineError), (command, result.exception)


def test_a_question_that_is_missing_stops_an_invitation(make):
    study = make()
    with sqlite3.connect(study.database) as con:
        con.execute("UPDATE questions SET item = item + 50")
    with pytest.raises(CalcarineError, match="a question is missing"):
        study.invite(1)
    assert len(progress(study)) == 2


def folder(path, names, colour, size=(20, 20), ending="png", mode="RGB"):
    path.mkdir()
    for place, name in enumerate(names):
        image = Image.new("RGB", size, colour)
        ImageDraw.Draw(image).rectangle((place * 3, 2, place * 3 + 2, 9), "white")
        image.convert(mode).save(path / f"{name}.{ending}")
    return path


@pytest.fixture
def folders(tmp_path):
    names = ["one", "two", "three", "four"]
    folder(tmp_path / "o", names, "red")
    folder(tmp_path / "a", names, "green", (64, 32), "jpg")
    folder(tmp_path / "b", names[:3], "blue", ending="gif", mode="P")
    return [f"{n}={tmp_path / d}" for n, d in (("original", "o"), ("ours", "a"), ("theirs", "b"))]


def test_names_of_folders_may_differ_by_zeros(tmp_path):
    folder(tmp_path / "o", ["0", "1", "2"], "red")
    folder(tmp_path / "a", ["000", "001", "002"], "green")
    pictures = from_folders([f"original={tmp_path / 'o'}", f"ours={tmp_path / 'a'}"])
    assert sorted(pictures.originals) == ["0", "1", "2"] and not pictures.left_out
    assert pictures.methods["ours"]["2"].name == "002.png"


def test_folders_of_anybody(folders, tmp_path):
    pictures = from_folders(folders)
    assert pictures.left_out == {"four": "no picture by theirs"}
    study = make_study(pictures, tmp_path / "s", size=40, practice=0, catch=0, n_raters=1)
    assert study.settings.simulated is None
    assert [c.name for c in study.settings.comparisons] == [
        "ours vs theirs",
        "identification: ours",
        "identification: theirs",
    ]
    assert sorted(study.settings.originals) == ["one", "three", "two"]
    for file in study.images.iterdir():
        with Image.open(file) as image:
            assert (image.size, image.mode, image.info) == ((40, 40), "RGB", {})


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (["ours=x"], "no folder x"),
        (["ours"], "write name=DIR"),
        ([0, 0], "given twice"),
        ([1], "needs --folder original=DIR"),
        ([0], "needs --folder original=DIR"),
    ],
)
def test_folders_that_cannot_be_used(folders, changed, words):
    given = [folders[f] if isinstance(f, int) else f for f in changed]
    if words == "no folder x":
        given = [folders[0], *given]
    with pytest.raises(CalcarineError, match=words):
        from_folders(given)


def test_equal_methods_doubles_and_broken_pictures_are_told(folders, tmp_path):
    twice = [*folders[:2], folders[1].replace("ours", "again")]
    with pytest.raises(CalcarineError, match="are the same; compare methods"):
        make_study(from_folders(twice), tmp_path / "s", size=32, catch=0, practice=0)
    (tmp_path / "o" / "two.png").write_bytes((tmp_path / "o" / "one.png").read_bytes())
    options = {"size": 32, "catch": 0, "practice": 0}
    study = make_study(from_folders(folders), tmp_path / "t", **options)
    assert len(study.settings.originals) == 2
    assert sum("the same picture" in why for why in study.settings.left_out.values()) == 1
    (tmp_path / "a" / "three.jpg").write_bytes(b"\xff\xd8 no more")
    with pytest.raises(CalcarineError, match=r"three.jpg cannot be read as a picture"):
        make_study(from_folders(folders), tmp_path / "u", **options)
    assert not (tmp_path / "u").exists() and not list(tmp_path.glob(".*"))


def test_an_existing_folder_is_never_written_to(make, run):
    study = make()
    before = sorted(study.path.rglob("*"))
    with pytest.raises(CalcarineError, match="exists already"):
        make_study(from_runs([run]), study.path)
    assert sorted(study.path.rglob("*")) == before


def test_several_runs(run_maker, tmp_path):
    one = run_maker(tmp_path / "one", 4, simulated=False)
    two = run_maker(tmp_path / "two", 5, simulated=True, seed=9)
    pictures = from_runs([one, two], ["z", "z_c"])
    assert pictures.pairs == [
        ("one/z", "one/z_c"),
        ("one/z", "two/z"),
        ("one/z_c", "two/z_c"),
        ("two/z", "two/z_c"),
    ]
    assert pictures.simulated is True and len(pictures.originals) == 4
    assert list(pictures.left_out.values()) == ["no picture by one/z, one/z_c"]
    image = two / "reconstructions" / "truth" / "secretpic002.png"
    Image.new("RGB", (32, 32), "black").save(image)
    with pytest.raises(CalcarineError, match="'secretpic002' is not the same picture in"):
        from_runs([one, two])


def test_random_samples_are_drawn_by_seed(run):
    drawn = [from_runs([run], sample="random", seed=s).methods["z"] for s in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert {p.stem[-2:] for p in from_runs([run]).methods["z"].values()} == {"00"}
    assert {p.stem[-2:] for p in drawn[0].values()} == {"00", "01"}


def test_uniform_pictures(tmp_path):
    turned = Image.new("RGB", (20, 10), "red")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    turned.save(tmp_path / "a.jpg", exif=exif)
    image = load_uniform(tmp_path / "a.jpg", 40)
    array = np.asarray(image)
    assert array.shape == (40, 40, 3)
    assert (array[:, :9] == 128).all() and (array[:, 12:28, 0] > 240).all()
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    clear.save(tmp_path / "b.png")
    assert (np.asarray(load_uniform(tmp_path / "b.png", 8)) == 128).all()
    soft = blurred(load_uniform(tmp_path / "a.jpg", 40))
    assert soft.size == (40, 40) and encode(soft) != encode(image)


def test_a_picture_that_would_burst_memory_is_refused(tmp_path, monkeypatch):
    Image.new("RGB", (400, 400)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(CalcarineError, match=r"bomb.png cannot be read as a picture"):
        load_uniform(tmp_path / "bomb.png", 32)


def test_every_answer_is_on_the_disk_before_it_is_acknowledged(make):
    with make().connection() as con:
        assert con.execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL
        assert con.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        with pytest.raises(sqlite3.IntegrityError):
            con.execute("INSERT INTO answers VALUES (1, 'middle', 0, 0, 0, 'key', 0)")
