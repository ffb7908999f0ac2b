"""A run with a split from a file tests exactly its test stimuli."""

import json

import pandas as pd
import pytest

from calcarine import datasets
from calcarine.errors import CalcarineError
from calcarine.experiment import load_experiment, run_experiment
from calcarine.splits.split_rules import random_split
from calcarine.splits.stimulus_pool import shown_stimuli

OPTIONS = {
    "n_train": 24,
    "n_test": 12,
    "n_early": 30,
    "n_ventral": 30,
    "n_other": 5,
    "n_sessions": 3,
}


def experiment(model, split, *settings):
    return load_experiment(
        "takagi",
        None,
        [
            f"dataset.options={json.dumps(OPTIONS)}",
            f"dataset.split={split}",
            f"generation.model={model}",
            "generation.steps=2",
            "generation.samples=1",
            "generation.candidates=0",
            "ridge.n_alphas=3",
            "ridge.n_folds=3",
            "evaluation.n_boot=100",
            "evaluation.n_permutations=100",
            "evaluation.ceilings=false",
            *settings,
        ],
        name="simulated",
    )


def test_a_run_uses_the_split_of_a_file_and_runs_anew_when_it_changes(
    tiny_stable_diffusion, tmp_path
):
    ids = shown_stimuli(datasets.load_dataset("simulated", **OPTIONS))
    first, second = (random_split(ids, size, seed).split for size, seed in ((6, 0), (5, 1)))
    file = first.save(tmp_path / "split.json")
    out = tmp_path / "run"
    for split in (first, second):
        split.save(file)
        run = run_experiment(experiment(tiny_stable_diffusion, file), out)
        index = pd.read_parquet(run.reconstructions / "index.parquet")
        assert set(index["id"]) == set(split.test)
        assert [folder.name for folder in run.decoder.iterdir()] == [split.name]
        told = run.manifest()["dataset"]
        assert told["split"]["sha256"] == split.digest() and told["n_test"] == len(split.test)
        page = (run.path / "report.html").read_text()
        assert split.name in page and split.digest() in page
    before = (run.path / "report.html").stat().st_mtime_ns
    run_experiment(experiment(tiny_stable_diffusion, file), out)
    assert (run.path / "report.html").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["dataset.split=absent.json"], "absent.json"),
        (["dataset.folds=1"], "leave it out together"),
    ],
)
def test_a_wrong_split_is_told(tiny_stable_diffusion, tmp_path, settings, message):
    with pytest.raises(CalcarineError, match=message):
        run_experiment(experiment(tiny_stable_diffusion, "shared", *settings), tmp_path / "run")
