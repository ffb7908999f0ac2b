import base64
import hashlib
import io
import json
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from calcarine.errors import CalcarineError
from calcarine.reporting.gallery import build_gallery


def data_of(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL).group(1))


def picture(source):
    head, content = source.split(",", 1)
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB"))


@pytest.fixture(scope="module")
def page(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("gallery") / "gallery.html"
    assert build_gallery(run, out, samples=2) == out
    return out.read_text(encoding="utf-8")


def test_every_picture_of_every_method_is_there(page, run):
    data = data_of(page)
    index = pd.read_parquet(run / "reconstructions" / "index.parquet")
    assert {item["id"] for item in data["items"]} == set(index["id"])
    assert data["methods"] == ["z", "c", "z_c"]
    folder = {"z": "z", "c": "c", "z_c": "z_c"}
    for item in data["items"]:
        rows = index[index["id"] == item["id"]]
        for method in data["methods"]:
            files = rows[rows["method"] == folder[method]].sort_values("sample")["file"]
            assert len(item["pictures"][method]) == 2
            for source, file in zip(item["pictures"][method], files, strict=True):
                wanted = np.asarray(Image.open(run / file).convert("RGB"))
                assert (picture(source) == wanted).all()
        assert len(item["pictures"]["seen"]) == 1


def test_scores_and_categories_are_those_of_the_run(page, run):
    data = data_of(page)
    frame = pd.read_parquet(run / "metrics" / "per_image.parquet")
    assert [m["lower"] for m in data["metrics"]] == [False, False, True]
    found = {
        (item["id"], method, data["metrics"][place]["name"]): value
        for item in data["items"]
        for method, row in item["scores"].items()
        for place, value in enumerate(row)
    }
    wanted = frame[frame["method"] != "training mean"]
    assert len(found) == len(wanted)
    for row in wanted.itertuples():
        assert found[row.id, row.method, row.metric] == pytest.approx(row.value, abs=6e-5)
    categories = dict(zip(frame["id"], frame["category"], strict=True))
    assert all(item["category"] == categories[item["id"]] for item in data["items"])


def test_every_picture_has_its_own_pixel_correlation(page, run):
    index = pd.read_parquet(run / "reconstructions" / "index.parquet")
    values = set()
    for item in data_of(page)["items"]:
        truth = index[(index["id"] == item["id"]) & (index["method"] == "truth")]["file"].iloc[0]
        seen = np.asarray(Image.open(run / truth).convert("RGB"), float)
        for method in ("z", "c", "z_c"):
            rows = index[(index["id"] == item["id"]) & (index["method"] == method)]
            files = rows.sort_values("sample")["file"]
            for value, file in zip(item["correlations"][method], files, strict=True):
                made = np.asarray(Image.open(run / file).convert("RGB"), float)
                wanted = np.corrcoef(seen.ravel(), made.ravel())[0, 1]
                assert value == pytest.approx(wanted, abs=1e-4)
                values.add(value)
    assert len(values) > 10


def test_a_picture_of_one_colour_has_no_correlation(run_maker, tmp_path):
    run = run_maker(tmp_path / "run", 3)
    file = run / "reconstructions" / "z" / "secretpic001_00.png"
    Image.new("RGB", Image.open(file).size).save(file)
    data = data_of(build_gallery(run, tmp_path / "g.html").read_text(encoding="utf-8"))
    item = next(item for item in data["items"] if item["id"] == "secretpic001")
    assert item["correlations"]["z"] == [None]


def test_the_page_is_closed_offline_and_says_what_it_is(page):
    assert page.count("SIMULATED") >= 1 and "simulated</strong> brain" in page
    assert not re.search(r"https?://", page)
    assert "<script>alert" not in page  # the hostile id is data, never markup
    assert page.count("</script>") == 2
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page).group(1)
    policy = policy.replace("&#39;", "'")
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL).group(1)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy and "unsafe" not in policy
    assert data_of(page)["seed"] == 2023


def test_a_measured_run_is_not_called_simulated(run_maker, tmp_path):
    run = run_maker(tmp_path / "run", 3, simulated=False)
    text = build_gallery(run, tmp_path / "g.html").read_text(encoding="utf-8")
    assert "MEASURED brain" in text and "SIMULATED brain" not in text
    assert data_of(text)["simulated"] is False


def test_a_large_page_becomes_a_folder(run, tmp_path):
    page = build_gallery(run, tmp_path / "g.html", limit_mb=0.001, pixels=16)
    assert page == tmp_path / "g" / "index.html" and not (tmp_path / "g.html").exists()
    for item in data_of(page.read_text(encoding="utf-8"))["items"]:
        for sources in item["pictures"].values():
            for source in sources:
                assert Image.open(page.parent / source).size == (16, 16)
    assert build_gallery(run, tmp_path / "g.html", limit_mb=0.001, pixels=16) == page  # again
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("mine")
    with pytest.raises(CalcarineError, match="has other contents"):
        build_gallery(run, tmp_path / "other.html", limit_mb=0.001)


def test_missing_scores_and_pictures_are_no_zeros(run_maker, tmp_path):
    run = run_maker(tmp_path / "run", 3)
    index = pd.read_parquet(run / "reconstructions" / "index.parquet")
    gone = (index["id"] == "secretpic001") & (index["method"] == "c")
    index[~gone].to_parquet(run / "reconstructions" / "index.parquet")
    frame = pd.read_parquet(run / "metrics" / "per_image.parquet").drop(columns="category")
    frame.loc[(frame["id"] == "secretpic001") & (frame["method"] == "z"), "value"] = np.nan
    frame.to_parquet(run / "metrics" / "per_image.parquet")
    data = data_of(build_gallery(run, tmp_path / "g.html").read_text(encoding="utf-8"))
    item = next(item for item in data["items"] if item["id"] == "secretpic001")
    assert item["pictures"]["c"] == [] and "z" not in item["scores"] and item["category"] is None


@pytest.mark.parametrize(("out", "words"), [("g.txt", "ends in .html"), ("d.html", "is a folder")])
def test_a_place_that_is_no_page(run, tmp_path, out, words):
    (tmp_path / "d.html").mkdir()
    with pytest.raises(CalcarineError, match=words):
        build_gallery(run, tmp_path / out)


def test_a_picture_that_cannot_be_read_is_named(run_maker, tmp_path):
    run = run_maker(tmp_path / "run", 3)
    (run / "reconstructions" / "z" / "secretpic001_00.png").write_bytes(b"no picture")
    with pytest.raises(CalcarineError, match=r"secretpic001_00.png is not a readable picture"):
        build_gallery(run, tmp_path / "g.html")


@pytest.mark.parametrize("file", ["../../outside.png", "reconstructions/z/none.png"])
def test_the_index_reaches_nothing_outside_of_the_run(run_maker, tmp_path, file):
    run = run_maker(tmp_path / "runs" / "run", 3)
    Image.new("RGB", (8, 8)).save(tmp_path / "outside.png")
    index = pd.read_parquet(run / "reconstructions" / "index.parquet")
    index.loc[index["method"] == "z", "file"] = file
    index.to_parquet(run / "reconstructions" / "index.parquet")
    with pytest.raises(CalcarineError, match="is missing or outside of the run"):
        build_gallery(run, tmp_path / "g.html")
