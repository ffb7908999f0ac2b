"""Runs that share features through one store."""

import json
import os
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from calcarine.cli.main import app
from calcarine.datasets.registry import write_fake_dataset
from calcarine.diffusion import LatentDiffusion
from calcarine.encoding import _split_models
from calcarine.errors import CalcarineError
from calcarine.experiment import load_experiment, run_stage
from calcarine.experiment.run_directory import RunDirectory
from calcarine.experiment.stages import run_keys
from calcarine.experiment.workspace import Workspace
from calcarine.features import components

SETTINGS = [
    "dataset.options={n_train: 40, n_test: 8, n_early: 10, n_ventral: 10, n_other: 2}",
    "generation.steps=4",
    "encoding.analyses=[noise]",
    "encoding.strengths=[0.5]",
    "encoding.n_boot=100",
    "encoding.n_components=20",
]


def workspace(folder, *settings, preset="takagi", dataset=None):
    experiment = load_experiment(preset, None, settings, **(dataset or {}))
    return Workspace(RunDirectory(folder, experiment))


@pytest.fixture
def passes(monkeypatch):
    """What the diffusion model computes from now on: names of its methods."""
    called = []

    def count(name):
        whole = getattr(LatentDiffusion, name)

        def counted(self, *args, **kwargs):
            called.append(name)
            return whole(self, *args, **kwargs)

        monkeypatch.setattr(LatentDiffusion, name, counted)

    for name in ("encode", "embed_captions", "_denoise"):
        count(name)
    return called


def test_a_second_preset_of_the_same_nsd_subject_extracts_nothing(tmp_path, passes):
    write_fake_dataset("nsd", tmp_path / "nsd", trials=[30, 26, 31])
    dataset = {"name": "nsd", "data": tmp_path / "nsd"}
    store = f"compute.store={tmp_path / 'store'}"
    shared = [store, "generation.model=mini", "dataset.options.sessions=3"]
    first = workspace(tmp_path / "first", *shared, preset="takagi2023", dataset=dataset)
    run_stage(first, "features")
    assert "encode" in passes and "embed_captions" in passes
    assert not (tmp_path / "first" / "features").exists()
    del passes[:]
    same = "features.resize=lanczos"
    second = workspace(tmp_path / "second", *shared, same, preset="takagi", dataset=dataset)
    run_stage(second, "features")
    assert not passes
    np.testing.assert_array_equal(second.z, first.z)
    np.testing.assert_array_equal(second.c, first.c)
    # Pictures that are resized in another way are other features; their text is the same.
    other = workspace(tmp_path / "other", *shared, preset="takagi", dataset=dataset)
    run_stage(other, "features")
    assert set(passes) == {"encode"} and not np.array_equal(other.z, first.z)


def test_encoding_shares_spaces_and_components_and_maps_are_those_of_a_run_alone(
    tmp_path, monkeypatch, passes
):
    alone = workspace(tmp_path / "alone", *SETTINGS, preset="encoding")
    run_stage(alone, "encode")
    store = f"compute.store={tmp_path / 'store'}"
    run_stage(workspace(tmp_path / "first", *SETTINGS, store, preset="encoding"), "encode")
    del passes[:]
    reduced = []
    whole = components.principal_components

    def counted(*args):
        reduced.append(args)
        return whole(*args)

    monkeypatch.setattr(components, "principal_components", counted)
    monkeypatch.setattr(_split_models, "principal_components", counted)
    # Another region has other fits of the same components.
    region = workspace(
        tmp_path / "region", *SETTINGS, store, "encoding.roi=early", preset="encoding"
    )
    run_stage(region, "encode")
    assert not passes and not reduced
    for name in ("voxels", "regions", "unique"):
        file = f"encoding/{name}.parquet"
        mine, theirs = ((tmp_path / run / file).read_bytes() for run in ("alone", "first"))
        assert mine == theirs
    # A damaged array of components is computed again.
    (damaged, *_) = (tmp_path / "store").glob("z_c*principal*.zarr")
    for chunk in (damaged / "c").rglob("*"):
        if chunk.is_file():
            chunk.write_bytes(chunk.read_bytes()[:-1] + b"?")
    voxels = (tmp_path / "region" / "encoding" / "voxels.parquet").read_bytes()
    shutil.rmtree(tmp_path / "region")
    again = workspace(
        tmp_path / "region", *SETTINGS, store, "encoding.roi=early", preset="encoding"
    )
    run_stage(again, "encode")
    assert len(reduced) == 1
    assert (tmp_path / "region" / "encoding" / "voxels.parquet").read_bytes() == voxels


def test_the_store_changes_no_key_and_is_kept_with_the_run(tmp_path, monkeypatch):
    monkeypatch.setenv("CALCARINE_STORE", str(tmp_path / "store"))
    work = workspace(tmp_path / "run", *SETTINGS)
    assert work.store.folder == tmp_path / "store"
    monkeypatch.delenv("CALCARINE_STORE")
    assert Workspace(RunDirectory(tmp_path / "run")).store.folder == tmp_path / "store"
    alone = workspace(tmp_path / "alone", *SETTINGS)
    assert alone.store.folder == tmp_path / "alone" / "features"
    assert run_keys(alone) == run_keys(work)
    monkeypatch.setenv("CALCARINE_STORE", str(tmp_path / "elsewhere"))
    assert workspace(tmp_path / "own", "compute.store=null").shared_store is None


def test_the_store_is_an_option_of_commands_that_start_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["init", "run", "--preset", "demo", "--store", "a store: mine"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    work = Workspace(RunDirectory(tmp_path / "run"))
    assert work.config.compute.store == os.path.join(tmp_path, "a store: mine")
    assert "--store" in CliRunner().invoke(app, ["run", "--help"]).output
    refused = CliRunner().invoke(app, ["encode", "run", "--store", "other"])
    assert isinstance(refused.exception, CalcarineError)


def test_a_store_that_cannot_be_made_is_named_before_the_data_are_read(tmp_path):
    (tmp_path / "file").write_text("")
    work = workspace(tmp_path / "run", f"compute.store={json.dumps(str(tmp_path / 'file/store'))}")
    with pytest.raises(CalcarineError, match=r"file/store cannot be made .*CALCARINE_STORE"):
        run_stage(work, "features")
    assert "dataset" not in vars(work)
