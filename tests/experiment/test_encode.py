import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from calcarine.cli.main import app
from calcarine.experiment import load_experiment, run_stage
from calcarine.experiment.keys import encode_key
from calcarine.experiment.run_directory import RunDirectory
from calcarine.experiment.workspace import Workspace

SMALL = [
    "dataset.options={n_train: 60, n_test: 12, n_sessions: 3, n_early: 24, n_ventral: 24, "
    "n_other: 12}",
    "generation.steps=5",
    "encoding.analyses=[latents, noise]",
    "encoding.strengths=[0.4]",
    "encoding.n_boot=100",
    "encoding.n_permutations=50",
]

MINI = ["generation.model=mini"]
OFF = ["ridge.enabled=false", "encoding.enabled=false", "visdec.enabled=false"]


def test_encode_from_the_command_line_writes_maps_and_continues(tmp_path):
    from typer.testing import CliRunner

    out = tmp_path / "run"
    settings = [part for text in SMALL for part in ("--set", text)]
    done = CliRunner().invoke(
        app, ["encode", "--dataset", "simulated", "--out", str(out), *settings]
    )
    assert done.exit_code == 0, done.output
    assert "encoding.html" in done.output
    voxels = pd.read_parquet(out / "encoding" / "voxels.parquet")
    assert len(voxels) == 60
    assert {"r:z", "q:c", "p_family:z", "normalised:z_c@0.8", "unique:z|z+z_c@0.4"} <= set(voxels)
    assert voxels[["roi:early", "roi:ventral", "roi:other"]].sum().tolist() == [24, 24, 12]
    assert voxels["ceiling"].between(0, 100).all()
    assert json.loads((out / "encoding" / "summary.json").read_text())["simulated"]
    before = (out / "encoding.html").stat().st_mtime_ns
    again = CliRunner().invoke(app, ["encode", str(out)])
    assert again.exit_code == 0
    assert (out / "encoding.html").stat().st_mtime_ns == before


def test_data_without_repeats_have_no_ceiling_and_say_so(tmp_path):
    once = [text.replace("n_train", "n_repeats: 1, n_train") for text in SMALL]
    settings = [*once, "encoding.analyses=[latents]"]
    work = Workspace(RunDirectory(tmp_path, load_experiment("encoding", None, settings)))
    run_stage(work, "encode")
    assert "ceiling" not in pd.read_parquet(tmp_path / "encoding" / "voxels.parquet")
    summary = json.loads((tmp_path / "encoding" / "summary.json").read_text())
    assert "needs two stimuli with repeats" in summary["no_ceiling"]
    page = (tmp_path / "encoding.html").read_text()
    assert summary["no_ceiling"] in page


def test_another_question_runs_again_on_the_same_features(tmp_path):
    def run(*changes):
        experiment = load_experiment("encoding", None, [*SMALL, *changes], name="simulated")
        work = Workspace(RunDirectory(tmp_path, experiment))
        run_stage(work, "encode")
        return pd.read_parquet(tmp_path / "encoding" / "voxels.parquet")

    one = run()
    made = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "features").iterdir()}
    two = run("encoding.analyses=[latents]")
    assert "unique:z|z+z_c@0.4" in one and "unique:z|z+z_c@0.4" not in two
    assert made == {p.name: p.stat().st_mtime_ns for p in (tmp_path / "features").iterdir()}
    np.testing.assert_allclose(one["r:z"], two["r:z"])


def test_z_and_c_are_those_of_the_run(tmp_path):
    """Not made a second time by other settings."""
    changed = ["features.resize=lanczos", "features.text=categories", "encoding.analyses=[latents]"]
    work = Workspace(RunDirectory(tmp_path, load_experiment("encoding", None, [*SMALL, *changed])))
    z, c = work.z, work.c
    run_stage(work, "encode")
    made = sorted(p.name.split("-")[0] for p in (tmp_path / "features").iterdir())
    assert made == ["c", "z", "z_c"]
    assert len(z) == len(c) == 72


@pytest.mark.parametrize("setting", ["encoding.analyses=[colours]", "encoding.strengths=[2]"])
def test_wrong_settings_are_told(setting):
    with pytest.raises(Exception, match="The setting 'encoding"):
        load_experiment("encoding", None, [setting])


def test_more_questions_continue_with_the_features_there_are(tmp_path):
    for ask in ("[latents]", "[latents, denoising_stages]"):
        settings = [*SMALL, f"encoding.analyses={ask}"]
        work = Workspace(RunDirectory(tmp_path, load_experiment("encoding", None, settings)))
        run_stage(work, "encode")
    assert "unique:z|z+z_c@0.8:early" in pd.read_parquet(tmp_path / "encoding" / "voxels.parquet")


def test_penalties_of_decoders_are_not_those_of_encoding(tmp_path):
    def key(*changes):
        experiment = load_experiment("takagi2023-compat", None, [*SMALL, *MINI, *changes])
        work = Workspace(RunDirectory(tmp_path / str(len(changes)), experiment))
        return encode_key(experiment, replace(work.digests, latents=work.latents_digest), {})

    assert key() == key("ridge.alphas=[1, 2]")
    assert key() != key("encoding.alpha_max=1e9")


@pytest.mark.parametrize(
    "setting",
    [
        "features.text=categories",
        "generation.latent_size=40",
        "evaluation.seed=3",
        "generation.steps=6",
        "encoding.roi=early",
    ],
)
def test_the_key_of_encoding_holds_what_it_depends_on_where_nothing_else_does(tmp_path, setting):
    def key(*changes):
        settings = [*SMALL, *MINI, *OFF, *changes]
        experiment = load_experiment("visdec2023", None, settings, name="simulated")
        work = Workspace(RunDirectory(tmp_path / str(len(changes)), experiment))
        return encode_key(experiment, replace(work.digests, latents=work.latents_digest), {})

    assert key() != key(setting)


def test_a_run_takes_no_other_data_set(tmp_path):
    from typer.testing import CliRunner

    RunDirectory(tmp_path, load_experiment("encoding", None, SMALL))
    done = CliRunner().invoke(app, ["encode", str(tmp_path), "--dataset", "digits69"])
    assert done.exit_code != 0 and "has its own settings" in str(done.exception or done.output)
