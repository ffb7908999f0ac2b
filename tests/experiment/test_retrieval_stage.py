"""Decoded features and retrieval in a run."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from safetensors.numpy import load_file
from typer.testing import CliRunner

import calcarine as ca
from calcarine.brain import Split
from calcarine.cli._print import print_result
from calcarine.cli.main import app
from calcarine.decoding import EmbeddingRegression, Gallery
from calcarine.errors import CalcarineError
from calcarine.experiment import load_experiment, run_experiment, run_stage
from calcarine.experiment.run_directory import RunDirectory
from calcarine.experiment.run_retrieval import retrieve_stimuli
from calcarine.experiment.stage_costs import stage_cost
from calcarine.experiment.stages import run_keys
from calcarine.experiment.workspace import Workspace
from calcarine.features import load_vision_model
from calcarine.reporting.retrieval_section import read_retrieval, retrieval_lines
from calcarine.stimuli import StimulusSet

QUICK = [
    "dataset.options={n_train: 60, n_test: 12, n_early: 60, n_ventral: 60, n_other: 4}",
    "generation.steps=2",
    "generation.samples=1",
    "generation.candidates=0",
    "evaluation.n_boot=100",
    "evaluation.n_permutations=200",
    "evaluation.audit=false",
    "evaluation.ceilings=false",
]


def targets(folder, pixels):
    np.save(folder / "layout.npy", pixels)
    return (
        f"embeddings.targets=[{{name: layout, space: 'file:{folder / 'layout.npy'}', roi: early}}, "
        "{name: z, space: z, roi: early}, {name: text, space: c, roi: ventral, rescale: variance}]"
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("retrieval")
    brain = ca.load_dataset("simulated", n_train=60, n_test=12, n_early=60, n_ventral=60, n_other=4)
    pixels = brain.stimuli.images()[:, ::8, ::8].astype(np.float32)
    settings = [*QUICK, targets(folder, pixels)]
    return run_experiment(load_experiment("takagi", None, settings), folder / "run"), brain, pixels


def test_scores_are_those_of_decoder_and_retrieval_by_hand(run):
    done, brain, pixels = run
    (split,) = brain.splits
    work = Workspace(RunDirectory(done.path))
    decoder = EmbeddingRegression("early", **work.ridge_options)
    decoded = decoder.fit(brain, split, {"layout": pixels}).predict(brain, split)["layout"]
    stored = load_file(done.path / "retrieval" / "decoders" / split.name / "decoded.safetensors")
    scale = np.abs(decoded).max()
    np.testing.assert_allclose(stored["layout"], decoded, atol=1e-4 * scale)
    mean = pixels[brain.stimuli.rows(split.train)].mean(0)
    table = pd.read_parquet(done.path / "retrieval" / "stimuli.parquet")
    summary = json.loads((done.path / "retrieval" / "summary.json").read_text())
    scores, layout = summary["scores"], summary["features"]["layout"]
    assert layout["shape"] == [8, 8, 3] and len(layout["content"]) == 64
    for gallery, ids in (("test", split.test), ("all", brain.stimuli.ids)):
        found = ca.retrieve(
            stored["layout"], pixels[brain.stimuli.rows(ids)], split.test, ids, mean=mean
        )
        rows = table[(table["target"] == "layout") & (table["gallery"] == gallery)]
        np.testing.assert_array_equal(rows["rank"], found.rank)
        assert [tuple(row) for row in rows["nearest"]] == list(found.nearest)
        (score,) = [s for s in scores if (s["target"], s["gallery"]) == ("layout", gallery)]
        assert score["top-1"] == found.top(1) and score["gallery_size"] == len(ids)
        assert score["rank percentile"] == pytest.approx(found.rank_percentile)
        assert score["ci_low"] <= found.rank_percentile <= score["ci_high"]
        assert score["backward top-1"] == found.top(1, backward=True)
    loaded = EmbeddingRegression.load(done.path / "retrieval" / "decoders" / split.name)
    assert set(loaded.rescaling_) == {"text"}
    assert {(s["target"], s["roi"]) for s in scores} == {
        ("layout", "early"),
        ("z", "early"),
        ("text", "ventral"),
    }
    # Simulated voxels of early visual cortex see the layout.
    assert next(s for s in scores if s["target"] == "layout")["p"] < 0.02


def test_the_report_shows_scores_and_the_nearest_pictures(run):
    done, _, _ = run
    report = (done.path / "report.html").read_text()
    assert "Which stimulus do the decoded features find?" in report
    assert "12 test stimuli" in report and "all 72 stimuli" in report
    assert "no reconstruction" in report and "no right picture" not in report
    shown = json.loads((done.path / "retrieval" / "pictures" / "shown.json").read_text())
    assert [(s["target"], s["gallery"]) for s in shown] == [
        (t, "all") for t in ("layout", "z", "text")
    ]
    assert len(shown[0]["rows"]) == 6 and len(shown[0]["rows"][0]) == 6
    files = {file for sheet in shown for row in sheet["rows"] for _, file in row}
    assert {file.name for file in (done.path / "retrieval" / "pictures").glob("*.png")} == files


def test_the_command_line_says_the_scores(run, capsys):
    done, _, _ = run
    print_result(done.path)
    printed = capsys.readouterr().out
    assert "Retrieval by layout from early among 12 test stimuli: rank percentile" in printed
    assert "Retrieval by text from ventral among all 72 stimuli: rank percentile" in printed


def test_changed_targets_repeat_retrieval_and_the_report_alone(run):
    done, _, _ = run
    experiment = done.experiment.model_copy(deep=True)
    experiment.embeddings.hubs = "csls"
    before = {file: file.stat().st_mtime_ns for file in done.reconstructions.rglob("*.png")}
    again = run_experiment(experiment, done.path)
    assert {file: file.stat().st_mtime_ns for file in done.reconstructions.rglob("*.png")} == before
    content = json.loads((again.path / "retrieval" / "summary.json").read_text())
    assert content["hubs"] == "csls"
    assert "corrected for hubs" in (again.path / "report.html").read_text()
    (again.path / "retrieval" / "pictures" / "shown.json").write_text("[{}]")
    (again.path / ".stages" / "report.json").unlink()
    result = CliRunner().invoke(app, ["report", str(again.path)])
    assert isinstance(result.exception, CalcarineError)
    assert "calcarine retrieve" in str(result.exception)


def test_an_interrupted_stage_fits_only_what_is_missing(run, tmp_path, monkeypatch):
    done, _, _ = run
    copy = tmp_path / "run"
    shutil.copytree(done.path, copy)
    before = (copy / "retrieval" / "summary.json").read_text()
    state = copy / ".stages" / "retrieve.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "done": False}))
    (copy / "retrieval" / "summary.json").unlink()

    def refuse(*args, **kwargs):
        raise AssertionError("fitted again")

    monkeypatch.setattr(EmbeddingRegression, "fit", refuse)
    run_stage(Workspace(RunDirectory(copy)), "retrieve")
    assert (copy / "retrieval" / "summary.json").read_text() == before


def test_its_key_follows_the_model_also_without_pictures(tmp_path):
    settings = [*QUICK, "ridge.enabled=false", "embeddings.targets=[{name: z, space: z}]"]
    keys = []
    for more in ([], ["features.resize=lanczos"], ["features.text=categories"]):
        experiment = load_experiment("takagi", None, [*settings, *more])
        work = Workspace(RunDirectory(tmp_path / str(len(keys)), experiment))
        keys.append(run_keys(work)["retrieve"])
    assert len(set(keys)) == 3


def test_a_report_waits_for_retrieval_and_forgets_it_with_its_targets(run, tmp_path):
    done, _, _ = run
    copy = tmp_path / "run"
    shutil.copytree(done.path, copy)
    for name in ("retrieve", "report"):
        (copy / ".stages" / f"{name}.json").unlink()
    with pytest.raises(CalcarineError, match="has not finished 'retrieve'"):
        run_stage(Workspace(RunDirectory(copy)), "report")
    experiment = done.experiment.model_copy(deep=True)
    experiment.embeddings.targets = []
    run_experiment(experiment, copy)
    assert "decoded features find" not in (copy / "report.html").read_text()
    assert not retrieval_lines(copy)
    with pytest.raises(CalcarineError, match=r"--set 'embeddings\.targets="):
        run_stage(Workspace(RunDirectory(copy)), "retrieve")


def test_single_test_stimuli_have_no_gallery_of_their_own(tmp_path):
    brain = ca.load_dataset("simulated", n_train=20, n_test=4)
    splits = splits_of_one(brain)[:3]
    experiment = load_experiment("takagi", None, ["embeddings.targets=[{name: z, space: z}]"])
    work = Workspace(RunDirectory(tmp_path / "run", experiment))
    work.__dict__ |= {"dataset": brain, "splits": splits}
    work.run.begin("retrieve", "key")
    with work.run.sharing("retrieve"):
        retrieve_stimuli(work)
    scores = json.loads((work.run.path / "retrieval" / "summary.json").read_text())["scores"]
    assert [(s["gallery"], s["stimuli"], s["p"]) for s in scores] == [("all", 3, None)]
    (row,) = read_retrieval(work.run.path).rows
    assert row[3] == "all 24 stimuli" and row[5] == "–"


def splits_of_one(brain):
    ids = brain.stimuli.ids
    return tuple(
        Split(f"fold-{i}", tuple(key for key in ids if key != ids[i]), (ids[i],), "one", 0)
        for i in range(len(ids))
    )


def test_its_cost_is_planned(run):
    done, _, _ = run
    cost = stage_cost("retrieve", Workspace(RunDirectory(done.path)))
    # Those of one region are fitted together.
    assert [what for what, _, _ in cost.fits] == [
        "decoder of layout and z",
        "decoder of text",
        "held-out predictions of text",
    ]
    assert not cost.parts and not cost.unknown


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("embeddings.targets=[{name: a, space: z}, {name: a, space: c}]", "name 'a'"),
        ("embeddings.targets=[{name: a/b, space: z}]", "name"),
        ("embeddings.targets=[{name: a, space: z, roi: nowhere}]", r"targets\[a\]\.roi=nowhere"),
        ("embeddings.targets=[{name: a, space: nothing}]", "embeddings.targets"),
        ("embeddings.targets=[{name: a, space: z_c@0.6}]", "embeddings.targets"),
        ("embeddings.targets=[{name: a, space: z}, {name: A, space: c}]", "name 'a'"),
        ("embeddings.targets=[{name: decoded, space: z}]", "'decoded' cannot name a target"),
        ("embeddings.targets=[{name: a, space: 'file:missing.npy'}]", "missing.npy"),
        ("embeddings.galleries=[photos]", "no gallery 'photos'; choose test, train, all"),
        ("embeddings.galleries=[test, test]", "gallery test is named twice"),
        (
            "embeddings.targets=[{name: a, space: z, galleries: ['folder:.']}]",
            "target a of z has no features of the pictures in folder:/",
        ),
        (
            "embeddings.targets=[{name: a, space: 'hf:mini', galleries: ['folder:missing']}]",
            "missing does not exist; check the path",
        ),
    ],
)
def test_mistakes_are_one_sentence(tmp_path, setting, message):
    with pytest.raises(CalcarineError, match=message):
        run_experiment(load_experiment("takagi", None, [*QUICK, setting]), tmp_path / "run")


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A run that searches folders of pictures, one of which holds the test stimuli."""
    folder = tmp_path_factory.mktemp("galleries")
    brain = ca.load_dataset("simulated", n_train=60, n_test=12, n_early=60, n_ventral=60, n_other=4)
    photos = folder / "photos"
    (photos / "more").mkdir(parents=True)
    for key, image in zip(range(30), StimulusSet.from_scenes(9, range(30)).images(), strict=True):
        place = photos if key < 20 else photos / "more"
        Image.fromarray(image).resize((80, 64)).save(place / f"{key:02d}.png")
    settings = [
        *QUICK,
        "ridge.enabled=true",
        "embeddings.targets=[{name: mean, space: 'hf:mini', roi: early}, {name: z, space: z, roi: "
        "early, galleries: [test]}]",
        f"embeddings.galleries=[train, 'folder:{photos}', 'folder+seen:{photos}']",
    ]
    return run_experiment(load_experiment("takagi", None, settings), folder / "run"), brain, photos


def test_folders_are_searched_with_and_without_the_seen_pictures(searched):
    done, brain, photos = searched
    (split,) = brain.splits
    summary = json.loads((done.path / "retrieval" / "summary.json").read_text())
    scores = {(s["target"], s["gallery"]): s for s in summary["scores"]}
    names = ["train", f"folder:{photos}", f"folder+seen:{photos}"]
    assert list(scores) == [*[("mean", name) for name in names], ("z", "test")]
    sizes = [scores["mean", name]["gallery_size"] for name in names]
    assert sizes == [60, 30, 42]
    assert "top-1" not in scores["mean", "train"] and "p" not in scores["mean", names[1]]
    model = load_vision_model("mini", "cpu")
    own = model.features(brain.stimuli.images())
    others = StimulusSet.from_pictures(photos, 64)
    gallery = Gallery.joined(
        [
            Gallery(model.features(others.images()), others.ids),
            Gallery(own[brain.stimuli.rows(split.test)], split.test),
        ]
    )
    place = done.path / "retrieval" / "decoders" / split.name / "decoded.safetensors"
    mean = own[brain.stimuli.rows(split.train)].mean(0)
    found = ca.retrieve(load_file(place)["mean"], gallery, split.test, mean=mean)
    both = scores["mean", names[2]]
    assert both["top-1"] == found.top(1) and both["median rank"] == found.median_rank
    assert both["top-1 chance"] == pytest.approx(1 / 42)
    table = pd.read_parquet(done.path / "retrieval" / "stimuli.parquet")
    rows = table[table["gallery"] == names[2]]
    assert [tuple(row) for row in rows["nearest"]] == list(found.nearest)
    alone = table[table["gallery"] == names[1]]
    assert alone["rank"].isna().all() and all(
        key.startswith("photos/") for row in alone["nearest"] for key in row
    )
    inside = table[table["gallery"] == "train"]
    assert {key for row in inside["nearest"] for key in row} <= set(split.train)


def test_the_report_of_folders_says_what_is_no_rank(searched, capsys):
    done, _, photos = searched
    report = (done.path / "report.html").read_text()
    assert f"42 pictures: those in {photos} and the test stimuli; 12 test stimuli) makes" in report
    assert f"in a gallery (60 training stimuli; 30 pictures in {photos}) there is no" in report
    assert "The stimulus itself is not among them" in report
    section = read_retrieval(done.path)
    assert [sheet.holds_seen for sheet in section.sheets] == [False, False, True, True]
    assert section.rows[0][4:10] == ("–",) * 6 and section.rows[2][6].endswith("(0.024)")
    shown = json.loads((done.path / "retrieval" / "pictures" / "shown.json").read_text())
    key, file = shown[1]["rows"][0][1]
    kept = np.asarray(Image.open(done.path / "retrieval" / "pictures" / file))
    np.testing.assert_array_equal(kept, StimulusSet.from_pictures(photos, 64).image(key))
    print_result(done.path)
    printed = capsys.readouterr().out
    assert "among 60 training stimuli: no ranks, because it lacks" in printed
    assert f"among 42 pictures: those in {photos} and the test stimuli: rank" in printed


def test_pictures_of_a_folder_that_change_are_searched_again(searched):
    done, _, photos = searched
    work = Workspace(RunDirectory(done.path))
    cost = stage_cost("retrieve", work)
    assert f"features of 30 pictures in {photos}" in cost.unknown
    before = run_keys(work)["retrieve"]
    file = photos / "00.png"
    original = file.stat()
    os.utime(file, ns=(original.st_atime_ns, original.st_mtime_ns + 1))
    assert run_keys(Workspace(RunDirectory(done.path)))["retrieve"] != before
    os.utime(file, ns=(original.st_atime_ns, original.st_mtime_ns))
    assert run_keys(Workspace(RunDirectory(done.path)))["retrieve"] == before


def test_digits_are_retrieved_in_ten_folds(tmp_path):
    shared = os.environ.get("CALCARINE_SHARED")
    if not shared or not (Path(shared) / "data" / "digits69").is_dir():
        pytest.skip("no measured data: set CALCARINE_SHARED")
    data = Path(shared) / "data" / "digits69"
    brain = ca.load_dataset("digits69", data)
    pixels = brain.stimuli.images()[..., 0].astype(np.float32) / 255
    settings = [
        *QUICK[1:],
        "dataset.name=digits69",
        f"dataset.data={data}",
        "generation.search.enabled=false",
        targets(tmp_path, pixels).split(", {name: z")[0] + "]",
    ]
    settings[-1] = settings[-1].replace("roi: early", "roi: all")
    work = run_experiment(load_experiment("takagi", None, settings), tmp_path / "run")
    scores = json.loads((work.path / "retrieval" / "summary.json").read_text())["scores"]
    (score,) = [s for s in scores if s["gallery"] == "all"]
    assert score["stimuli"] == 100 and score["gallery_size"] == 100
    assert score["median rank"] <= 6 and score["top-5"] >= 0.5 and score["p"] < 0.01
