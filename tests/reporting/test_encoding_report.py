import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from calcarine.errors import CalcarineError
from calcarine.reporting import brain_maps
from calcarine.reporting.encoding_record import read_encoding
from calcarine.reporting.encoding_report import build_encoding_report, encoding_figures
from calcarine.reporting.encoding_tables import region_rows, winner_rows
from calcarine.simulation.cortex import place_voxels

SPACES = ("z", "c", "z_c@0.8")
REGIONS = ("early", "ventral", "other")


@pytest.fixture
def run(tmp_path, rng):
    """The folder of a run that asked all questions, with numbers of our own."""
    voxels = place_voxels(rng, 20, 20, 10)
    for region in REGIONS:
        voxels[f"roi:{region}"] = voxels["region"] == region
    voxels = voxels.drop(columns="region").assign(ceiling=36.0)
    voxels.loc[voxels["roi:ventral"], "ceiling"] = 81.0
    voxels.loc[voxels["roi:other"], "ceiling"] = 1.0
    blocks = [f"unet:{b}@0.8:middle" for b in ("down_blocks.0", "mid_block")]
    for space in (*SPACES, *blocks):
        voxels[f"r:{space}"] = rng.uniform(-0.1, 0.9, 50)
        voxels[f"significant:{space}"] = voxels[f"r:{space}"] > 0.3
    voxels["winner:middle"] = rng.integers(-1, 2, 50)
    rows = [
        (region, space, 20, 0.5 - 0.1 * at, 0.46 - 0.1 * at, 0.54 - 0.1 * at, "latents")
        for region in REGIONS
        for at, space in enumerate(SPACES)
    ]
    regions = pd.DataFrame(
        rows, columns=["region", "space", "voxels", "r", "low", "high", "question"]
    )
    rows = [
        (region, space, 20, 0.1, 0.05, 0.15, "noise", f"z + z_c@{s}")
        for region in REGIONS
        for s in (0.4, 0.8)
        for space in ("z", f"z_c@{s}")
    ]
    unique = pd.DataFrame(
        rows, columns=["region", "space", "voxels", "unique_r2", "low", "high", "question", "pair"]
    )
    rows = [("early", block, 5, 10, 0.5, "blocks, middle") for block in blocks]
    winners = pd.DataFrame(
        rows, columns=["region", "space", "won", "significant", "share", "question"]
    )
    folder = tmp_path / "encoding"
    folder.mkdir()
    for name, table in {
        "voxels": voxels,
        "regions": regions,
        "unique": unique,
        "winners": winners,
    }.items():
        table.to_parquet(folder / f"{name}.parquet")
    facts = {
        "voxels": 50,
        "test_stimuli": 30,
        "rate": 0.05,
        "null": "exact",
        "significant": dict.fromkeys(SPACES, 30),
    }
    summary = {
        "simulated": True,
        "dataset": "toy <b>",
        "subject": "s1",
        "source": "here",
        "licence": "none",
        "model": "mini",
        "splits": "one",
        "facts": facts,
        "settings": {"questions": "all"},
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    return tmp_path


def test_page_says_what_was_found_and_needs_nothing_else(run):
    page = build_encoding_report(run).read_text()
    assert "SIMULATED" in page
    assert "early: z predicts best with a mean r of 0.500 [0.460, 0.540]" in page
    assert "toy &lt;b&gt;" in page and "toy <b>" not in page
    assert "http://" not in page.replace("http://www.w3.org", "") and "<script" not in page
    assert {p.name for p in (run / "encoding" / "figures").iterdir()} >= {
        "latents.png",
        "noise.png",
    }
    turned = (run / "encoding" / "maps" / "surface.html").read_text()
    assert "SIMULATED" in turned and 'src="http' not in turned
    assert not list(run.rglob("*.part"))


def test_a_map_holds_the_values_of_significant_voxels_at_their_vertices(run):
    build_encoding_report(run)
    voxels = read_encoding(run).voxels
    for hemisphere in ("left", "right"):
        image = nib.load(run / "encoding" / "maps" / f"r-c-{hemisphere}.func.gii")
        drawn = image.darrays[0].data
        assert drawn.shape == (10242,)
        own = voxels[(voxels.hemisphere == hemisphere)]
        for vertex, rows in own.groupby("vertex"):
            kept = rows["r:c"][rows["significant:c"]]
            if len(kept):
                assert drawn[int(vertex)] == pytest.approx(kept.mean(), rel=1e-5)
            else:
                assert np.isnan(drawn[int(vertex)])
        assert np.isfinite(drawn).sum() <= len(own)


def test_a_volume_has_the_affine_and_the_values(tmp_path, rng):
    grid = np.array(np.meshgrid(range(3), range(4), range(5), indexing="ij")).reshape(3, -1).T
    affine = np.array([[1.8, 0.1, 0, -70], [0, 1.8, 0, -90], [0, 0, 1.8, -50], [0, 0, 0, 1.0]])
    place = grid @ affine[:3, :3].T + affine[:3, 3]
    voxels = pd.DataFrame(np.hstack([grid, place]), columns=["i", "j", "k", "x", "y", "z"])
    voxels = voxels.sample(30, random_state=0)
    values = rng.normal(size=30)
    image = nib.load(brain_maps.save_volume(tmp_path, "r", voxels, values))
    np.testing.assert_allclose(image.affine, affine, atol=1e-4)
    found = np.asarray(image.dataobj)[tuple(voxels[["i", "j", "k"]].to_numpy(int).T)]
    np.testing.assert_allclose(found, values, rtol=1e-6)
    assert np.isfinite(image.get_fdata()).sum() == 30
    with pytest.raises(CalcarineError, match="No affine"):
        brain_maps.save_volume(tmp_path, "r", voxels.assign(x=rng.normal(size=30)), values)


def test_a_run_without_analysis_is_told(tmp_path):
    with pytest.raises(CalcarineError, match=r"incomplete or damaged .* run 'calcarine encode"):
        build_encoding_report(tmp_path)


def test_unknown_places_give_no_maps(run):
    table = pd.read_parquet(run / "encoding" / "voxels.parquet")
    table.drop(columns=["vertex", "hemisphere"]).to_parquet(run / "encoding" / "voxels.parquet")
    page = build_encoding_report(run).read_text()
    assert "has no voxel coordinates" in page
    assert not (run / "encoding" / "maps").exists()


def test_voxels_of_one_vertex_vote_for_their_winner():
    voxels = pd.DataFrame({"hemisphere": ["left"] * 6, "vertex": [5, 5, 5, 7, 7, 9]})
    values = np.array([0, 4, 4, 3, 1, np.nan])
    left = brain_maps.on_surface(voxels, values, categories=True)["left"]
    assert left[5] == 4 and left[7] == 1 and np.isnan(left[9])
    assert np.isfinite(left).sum() == 2
    assert brain_maps.on_surface(voxels, values)["left"][7] == 2
    none = brain_maps.on_surface(voxels, np.full(6, np.nan), categories=True)
    assert np.isnan(none["left"]).all() and np.isnan(none["right"]).all()


def test_page_says_where_penalties_end_too_soon(run):
    assert "wider grid" not in build_encoding_report(run).read_text()
    file = run / "encoding" / "summary.json"
    summary = json.loads(file.read_text())
    summary["facts"]["at_edge"] = {"z": 0.4, "c": 0.01}
    file.write_text(json.dumps(summary))
    page = build_encoding_report(run).read_text()
    assert "For z, 40% of the predicted voxels have the smallest or the largest penalty" in page


def test_the_table_of_regions_has_the_noise_ceiling_beside_r(run):
    spaces, rows = region_rows(read_encoding(run))
    assert spaces == list(SPACES)
    cells = {row["region"]: row["cells"] for row in rows}
    ceilings = {row["region"]: row["ceiling"] for row in rows}
    assert ceilings == pytest.approx({"early": 0.6, "ventral": 0.9, "other": 0.1})
    assert cells["early"]["z"] == {"r": "0.500 [0.460, 0.540]", "share": "83 %"}
    assert cells["ventral"]["c"] == {"r": "0.400 [0.360, 0.440]", "share": "44 %"}
    assert cells["other"]["z"]["share"] == "–"  # hardly any signal
    page = build_encoding_report(run).read_text()
    assert "that a perfect model of its signal would reach" in page and "83 %" in page
    assert (run / "encoding" / "figures" / "ceiling.png").exists()


@pytest.mark.parametrize("reason", ["No stimulus has repeats.", None])
def test_a_page_without_noise_ceiling_says_why(run, reason):
    file = run / "encoding" / "voxels.parquet"
    pd.read_parquet(file).drop(columns="ceiling").to_parquet(file)
    summary = json.loads((run / "encoding" / "summary.json").read_text())
    (run / "encoding" / "summary.json").write_text(json.dumps(summary | {"no_ceiling": reason}))
    page = build_encoding_report(run).read_text()
    assert "There is no noise ceiling, because it is estimated from repeats" in page
    assert (reason or "repeats of training stimuli.") in page
    assert "of the ceiling" not in page and "0.500 [0.460, 0.540]" in page


def test_maps_that_are_compared_share_one_labelled_colour_scale(run, monkeypatch):
    drawn = {}

    draw = brain_maps.surface_figure

    def record(voxels, values, title, *rest, **options):
        figure = draw(voxels, values, title, *rest, **options)
        bar = figure.axes[-1]
        drawn[title] = (bar.get_ylim(), bar.get_ylabel())
        return figure

    monkeypatch.setattr(brain_maps, "surface_figure", record)
    build_encoding_report(run)
    winner = drawn.pop("Best-predicting U-Net block, middle denoising")
    assert winner[1] == "block of the U-Net"
    assert len(drawn) == len(SPACES) + 1 and len(set(drawn.values())) == 1
    (((low, high), label),) = set(drawn.values())
    voxels = read_encoding(run).voxels
    tops = [voxels[f"r:{s}"][voxels[f"significant:{s}"]].quantile(0.99) for s in SPACES]
    assert (low, high) == (0.0, pytest.approx(max(*tops, 0.9)))
    assert label == "r of predicted and measured mean responses (no unit)"
    turned = (run / "encoding" / "maps" / "surface.html").read_text()
    assert label in turned and f'"cmax":{high}' in turned.replace(" ", "")


def test_common_limits_are_those_of_the_largest_map():
    low, high = brain_maps.common_limits([np.array([0.1, np.nan]), np.array([0.4, -0.2])])
    assert low == 0.0 and high == pytest.approx(0.4, abs=0.01)
    assert brain_maps.common_limits([np.full(3, np.nan)]) == (0.0, 1.0)


def _patch(size):
    """Vertices of the left hemisphere around one of them, nearest first."""
    points, _ = brain_maps._mesh("sphere", "left")
    return np.argsort(np.linalg.norm(points - points[5000], axis=1), kind="stable")[:size]


@pytest.mark.parametrize("every", [1, 2])
def test_an_outline_goes_around_its_region(every):
    patch = _patch(400)
    voxels = pd.DataFrame({"hemisphere": "left", "vertex": patch[::every]}).assign(
        **{"roi:V1": True}
    )
    outlines = brain_maps.region_outlines(voxels)
    points, faces = brain_maps._mesh("sphere", "left")
    lines = outlines.segments("left", points, faces)["V1"]
    away = np.linalg.norm(lines.reshape(-1, 3) - points[5000], axis=1)
    radius = np.linalg.norm(points[patch[-1]] - points[5000])
    assert len(lines) > 40
    assert away.min() > 0.8 * radius and away.max() < 1.2 * radius
    assert outlines.segments("right", points, faces) == {}


def test_scattered_voxels_have_no_outline(rng):
    voxels = pd.DataFrame({"hemisphere": "left", "vertex": rng.permutation(10242)[:80]})
    assert not brain_maps.region_outlines(voxels.assign(**{"roi:other": True})).regions
    assert not brain_maps.region_outlines(voxels).regions


def test_flat_maps_name_the_outlined_regions():
    voxels = pd.DataFrame({"hemisphere": "left", "vertex": _patch(400)}).assign(**{"roi:V1": True})
    outlines = brain_maps.region_outlines(voxels)
    figure = brain_maps.surface_figure(voxels, np.ones(400), "t", False, outlines=outlines)
    named = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert named == ["V1"]


def test_blocks_are_the_columns_of_one_table(run):
    blocks, rows = winner_rows(read_encoding(run))
    assert blocks == ["down_blocks.0", "mid_block"]
    assert [(row["stage"], row["region"]) for row in rows] == [("middle", "early")]
    assert rows[0]["shares"] == {"down_blocks.0": 0.5, "mid_block": 0.5}


def test_figures_of_one_analysis_have_the_same_range(run):
    file = run / "encoding" / "regions.parquet"
    table = pd.read_parquet(file)
    stages = [
        table.assign(question=f"blocks, {stage}", low=table["low"] - by, high=table["high"] - by)
        for stage, by in (("early", 0.0), ("late", 0.4))
    ]
    pd.concat([table, *stages]).to_parquet(file)
    figures = encoding_figures(read_encoding(run))
    ranges = {name: figure.axes[0].get_xlim() for name, figure in figures.items()}
    assert ranges["blocks-early"] == ranges["blocks-late"] != ranges["latents"]
    assert ranges["blocks-late"][0] < -0.14 and ranges["blocks-early"][1] > 0.54
    assert figures["blocks-early"].axes[0].get_title(loc="left").startswith("Blocks, early deno")
