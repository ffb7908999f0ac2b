"""Tables as spreadsheets, R and pandas write them are one table, for everything that reads one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from calcarine.audit.folders import inputs_from_folders
from calcarine.audit.trial_files import read_responses
from calcarine.datasets.described.description_splits import _listed
from calcarine.datasets.described.pictures import read_captions, stimulus_set
from calcarine.datasets.described.trials import read_trials
from calcarine.errors import CalcarineError
from calcarine.stimuli import StimulusSet
from calcarine.stimuli.names import match_names
from calcarine.stimuli.tables import read_rows

ROWS = [("s01", "1", "train"), ("s02", "2", "test"), ("s03", "2", "test")]
HEAD = ("stimulus", "session", "role")


def joined(separator: str = ",", head: tuple[str, ...] = HEAD, end: str = "\n") -> str:
    return "".join(separator.join(row) + end for row in (head, *ROWS))


PLAIN = joined()
FORMS = {
    "commas": PLAIN.encode(),
    "byte order mark": b"\xef\xbb\xbf" + joined(end="\r\n").encode(),
    "old Mac's line ends": joined(end="\r").encode(),
    "semicolons": joined(";").encode(),
    "semicolons for Excel": b"sep=;\r\n" + joined(";", end="\r\n").encode(),
    "tabs": joined("\t").encode(),
    "bars": joined("|").encode(),
    "UTF-16": joined("\t", end="\r\n").encode("utf-16"),
    "UTF-16, big-endian": b"\xfe\xff" + joined().encode("utf-16-be"),
    "UTF-16 without a mark": joined().encode("utf-16-le"),
    "capitals and blanks": joined(head=(" Stimulus", "SESSION ", "Role")).encode(),
    "quotes": "".join(
        ",".join(f'"{cell}"' for cell in row) + "\n" for row in (HEAD, *ROWS)
    ).encode(),
    "blanks in cells": joined(" , ").encode(),
    "blank lines": ("\n" + PLAIN.replace("\n", "\n\n") + "\n\n").encode(),
    "lines of separators": (PLAIN + ",,\n,,\n").encode(),
    "pandas' index": "".join(
        ",".join((number, *row)) + "\n"
        for number, row in zip(("", "0", "1", "2"), (HEAD, *ROWS), strict=True)
    ).encode(),
    "R's row names": "".join(
        " ".join(row).replace(" ", "\t") + "\n"
        for row in (HEAD, *[(str(n), *row) for n, row in enumerate(ROWS, 1)])
    ).encode(),
    "a separator at the end of lines": joined(end=",\n").encode(),
    "that of rows only": (
        PLAIN.splitlines()[0] + "\n" + "".join(line + ",\n" for line in PLAIN.splitlines()[1:])
    ).encode(),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("end", ["csv", "tsv", "txt"])
def test_every_form_of_a_table_is_the_same_table(tmp_path: Path, form: str, end: str) -> None:
    path = tmp_path / f"t.{end}"
    path.write_bytes(FORMS[form])
    found = read_rows(path, "table", HEAD, needed=("stimulus",))
    pd.testing.assert_frame_equal(found, pd.DataFrame(ROWS, columns=list(HEAD), dtype=str))
    trials = read_trials(path)
    assert trials["stimulus"].tolist() == ["s01", "s02", "s03"]
    assert trials["session"].tolist() == [1, 2, 2]


def test_other_encodings_are_read_with_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes("id,caption\na,un café\nb,“x”\n".encode("cp1252"))
    with pytest.warns(UserWarning, match=r"t.csv is not in UTF-8 .* Windows-1252"):
        found = read_rows(path, "table")
    assert found["caption"].tolist() == ["un café", "“x”"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no rows"),
        (b"\n\n", "has no rows"),
        (b"stimulus,role\n", "has no rows; its columns are stimulus, role"),
        (b"id,role\na,train\n", "no column stimulus; its columns, separated by commas, are id"),
        (b"a;b\n1;2\n", "separated by semicolons, are a, b"),
        (b"stimulus,stimulus\na,b\n", "two columns of one name"),
        (b"stimulus,Stimulus\na,b\n", None),
        (b"stimulus,role\na,train\nb\n", "unequal length: row 2 has 1 cells for 2"),
        (b"stimulus,role\na,train\nb,test,x\n", "unequal length"),
        (b'stimulus,role\n"a,train\n', "quotation marks"),
        (b"PK\x03\x04....", "is a workbook"),
        (b"stim\0ulus" * 300, "cannot be read as text"),
        (b"stimulus,role\n" + b"a,train\n" * 40 + b"b\0,test\n", "cannot be read as text"),
        (b"\xff\xfea", "cannot be read as text in UTF-16"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x30", "cannot be read as text"),
        (None, "cannot be read"),
    ],
)
def test_what_is_no_table_is_one_sentence(
    tmp_path: Path, content: bytes | None, message: str | None
) -> None:
    path = tmp_path / "t.csv"
    if content is not None:
        path.write_bytes(content)
    if message is None:
        assert read_rows(path, "table", ("stimulus",))["stimulus"].tolist() == ["a"]
        return
    with pytest.raises(CalcarineError, match=rf"t.csv.*({message})") as told:
        read_rows(path, "table", needed=("stimulus",))
    assert "\n" not in str(told.value)


def pictures(folder: Path, names: list[str]) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in names:
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / f"{name}.png")
    return folder


@pytest.mark.parametrize("form", ["semicolons", "UTF-16", "capitals and blanks", "pandas' index"])
def test_the_audit_reads_the_same_tables(tmp_path: Path, form: str) -> None:
    for name in ("truth", "recon"):
        pictures(tmp_path / name, ["s02", "s03"])
    (tmp_path / "t.csv").write_bytes(FORMS[form])
    found = inputs_from_folders(tmp_path / "recon", tmp_path / "truth", ids=tmp_path / "t.csv")
    assert found.trials is not None and found.trials.role is not None
    assert found.trials.role.tolist() == ["train", "test", "test"]


@pytest.mark.parametrize("way", [".png", "S{}", "stim/{}.PNG", "0"])
def test_names_and_roles_of_trials_may_be_written_otherwise(tmp_path: Path, way: str) -> None:
    for name in ("truth", "recon"):
        pictures(tmp_path / name, ["s2", "s3"])
    written = {".png": "s{}.png", "S{}": "S{}", "stim/{}.PNG": "stim/s{}.PNG", "0": "s00{}"}[way]
    rows = "".join(
        f"{written.format(n)},{role}\n" for n, role in ((1, "Training"), (2, "TEST "), (3, "Test"))
    )
    (tmp_path / "t.csv").write_text("stimulus,role\n" + rows)
    found = inputs_from_folders(tmp_path / "recon", tmp_path / "truth", ids=tmp_path / "t.csv")
    assert found.trials is not None and found.trials.role is not None
    assert found.trials.role.tolist() == ["train", "test", "test"]
    assert found.trials.stimulus.tolist()[1:] == ["s2", "s3"]


def test_responses_may_have_decimal_commas(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("stimulus;v1;v2\na;0,5;-1,25\nb;2;3,0\n")
    _, values, _ = read_responses(tmp_path / "r.csv", None)
    np.testing.assert_array_equal(values, [[0.5, -1.25], [2, 3]])


SHOWN = ["pic000", "pic001"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.csv", "id,caption\npic000,a cup|a mug\npic001,a dog\n"),
        ("c.csv", "id,caption\npic000,a cup\npic001,a dog\npic000,a mug\n"),
        ("c.csv", "ID;Caption\npic000.png;a cup\npic000.png;a mug\npic001.png;a dog\n"),
        ("c.tsv", "id\tcaption_1\tcaption_2\nstim/pic000.jpg\ta cup\ta mug\npic001\ta dog\t\n"),
        ("c.json", '{"pic000.png": ["a cup", "a mug"], "pic001": "a dog"}'),
        (
            "c.json",
            '[{"id": "pic000", "caption": "a cup"}, {"id": "pic000", "caption": "a mug"},'
            '{"id": "pic001", "caption": "a dog"}]',
        ),
        (
            "c.json",
            '{"images": [{"id": 7, "file_name": "pic000.jpg"}, {"id": 8, "file_name":'
            '"pic001.jpg"}], "annotations": [{"image_id": 7, "caption": "a cup"}, {"image_id": 7,'
            '"caption": "a mug"}, {"image_id": 8, "caption": "a dog"}]}',
        ),
    ],
)
def test_captions_of_every_form_are_the_same(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    captions, _ = read_captions(tmp_path / name, SHOWN)
    assert dict(captions) == {"pic000": ("a cup", "a mug"), "pic001": ("a dog",)}


def test_captions_without_endings_fit_trials_with_endings(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("id,caption,category\npic000,a cup,cup\npic001,a dog,dog\n")
    shown = [f"{name}.png" for name in SHOWN]
    captions, categories = read_captions(tmp_path / "c.csv", shown)
    assert captions["pic001.png"] == ("a dog",) and categories["pic000.png"] == ("cup",)
    (tmp_path / "c.json").write_text('[{"caption": "a cup"}]')
    with pytest.raises(CalcarineError, match="need an id"):
        read_captions(tmp_path / "c.json", shown)


@pytest.mark.parametrize("form", ["pic000", "pic000.png", "stimuli/pic000.png", r"C:\e\pic000.png"])
def test_trials_may_name_pictures_with_folder_and_ending(tmp_path: Path, form: str) -> None:
    pictures(tmp_path / "stimuli", SHOWN)
    (tmp_path / "c.csv").write_text("id,caption\npic000,a cup\n")
    found = stimulus_set(tmp_path, "stimuli", "c.csv", [form], None)
    assert found.ids == (form,) and found.captions() == [("a cup",)]
    assert found.images().shape == (1, 8, 8, 3)


def test_names_match_only_where_there_is_no_doubt() -> None:
    assert match_names(["a/1.png", "b/1.png"], ["1"]) == {}
    assert match_names(["1"], ["01", "001"]) == {}
    assert match_names(["1", "01"], ["1"]) == {"1": "1"}
    assert match_names(["007"], ["7"]) == {"007": "7"}
    assert match_names(["007"], ["7"], loose=False) == {}
    assert match_names(["v1.5"], ["v1"]) == {}


def test_lists_and_stimulus_tables_are_read_alike(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "stimuli", SHOWN)
    (folder / "t.csv").write_bytes("Id;File\r\na;pic000.png\r\nb;pic001.png\r\n".encode("utf-16"))
    assert StimulusSet.from_folder(folder, "t.csv").ids == ("a", "b")
    (tmp_path / "shared.txt").write_bytes("pic000\r\n\r\n".encode("utf-16"))
    assert _listed(tmp_path / "shared.txt", SHOWN).test == ("pic000",)
