"""Measured brains through the bundled model: the known signal comes out."""

import json

from calcarine.experiment import load_experiment, run_experiment

QUICK = [
    "generation.samples=1",
    "generation.candidates=0",
    "generation.steps=4",
    "generation.search.enabled=false",
    "evaluation.ceilings=false",
    "evaluation.n_boot=500",
    "evaluation.n_permutations=500",
]


def flagged(run):
    """Checks of the run's audit that failed or raised a suspicion."""
    checks = json.loads((run.path / "audit.json").read_text())["checks"]
    assert len(checks) == 16
    return {c["name"] for c in checks if c["verdict"] in ("failed", "suspicious")}


def scores(run):
    records = json.loads((run.path / "metrics" / "summary.json").read_text())
    return {(record["method"], record["metric"]): record for record in records}


def test_digits69_carries_its_digits(measured, tmp_path):
    config = load_experiment(
        "takagi", None, [*QUICK, "dataset.folds=4"], name="digits69", data=measured / "digits69"
    )
    run = run_experiment(config, tmp_path / "run")
    assert flagged(run) == set()
    found = scores(run)
    metric = "identification, pixels, fixed image"
    assert found["direct ridge", metric]["value"] > 0.8
    assert found["z", metric]["value"] > 0.75
    assert found["z", metric]["p"] < 0.01
    assert found["z", "category accuracy"]["value"] > 0.8


def test_miyawaki_figures_are_told_apart(measured, tmp_path):
    config = load_experiment(
        "takagi", None, QUICK, name="miyawaki_vbcca", data=measured / "miyawaki_vbcca"
    )
    run = run_experiment(config, tmp_path / "run")
    # Ten figures are few to show that the late method follows the brain; nothing else is doubted.
    assert flagged(run) <= {"ignores-the-brain"}
    found = scores(run)
    metric = "identification, pixels, fixed image"
    assert found["z", metric]["value"] >= 0.7
    assert found["z", metric]["value"] > found["training mean", metric]["value"]
