"""Keys of stages, without any run folder."""

from dataclasses import replace

import pytest

from calcarine.experiment import STAGES, load_experiment
from calcarine.experiment.digests import Digests, digest_content
from calcarine.experiment.keys import stage_keys, training_key

DIGESTS = Digests(
    dataset="data",
    splits=("first", "second"),
    n_train=(100, 100),
    regions={"z": "early", "c": "ventral", "pixels": "early"},
    latents=["model", {"size": 64}],
    generator="model",
    contents={"mini": "weights"},
)


def keys(*settings, preset="takagi", **digests):
    experiment = load_experiment(preset, None, settings)
    return stage_keys(STAGES.values(), experiment, replace(DIGESTS, **digests))


def changed(first, second):
    return {name for name in {*first, *second} if first.get(name) != second.get(name)}


def test_a_run_has_the_keys_of_its_enabled_stages_in_their_order():
    assert list(keys()) == ["features", "fit", "reconstruct", "evaluate", "audit", "report"]
    assert list(keys(preset="visdec-mini")) == [
        "features",
        "fit",
        "pretrain",
        "guide",
        "finetune",
        "reconstruct",
        "evaluate",
        "audit",
        "report",
    ]
    assert "encode" in keys(preset="encoding") and "audit" not in keys("evaluation.audit=false")
    assert keys() == keys() and len(set(keys().values())) == len(keys())


LATER = {"reconstruct", "evaluate", "audit", "report"}


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("ridge.n_folds=4", {"fit", *LATER}),
        ("generation.search.steps=9", {"fit", *LATER}),
        ("generation.samples=2", LATER),
        ("generation.seed=1", {"fit", *LATER}),
        ("evaluation.ceilings=false", LATER),
        ("evaluation.n_boot=100", {"evaluate", "audit", "report"}),
        ("evaluation.audit=false", {"audit", "report"}),
        ("generation.batch_size=1", set()),
        ("name=other", set()),
    ],
)
def test_a_setting_changes_the_keys_that_depend_on_it(setting, expected):
    assert changed(keys(), keys(setting)) == expected


@pytest.mark.parametrize(
    ("digests", "expected"),
    [
        ({"dataset": "other"}, {"features", "fit", *LATER}),
        ({"latents": ["other", {}]}, {"features", "fit", *LATER}),
        ({"splits": ("first",)}, {"fit", *LATER}),
        ({"regions": {"z": "V1"}}, {"fit", *LATER}),
        ({"judge": "weights"}, {"evaluate", "audit", "report"}),
        ({"metric_weights": (("alexnet", 3),)}, {"evaluate", "audit", "report"}),
        ({"generator": "other"}, set()),
    ],
)
def test_content_changes_the_keys_that_depend_on_it(digests, expected):
    assert changed(keys(), keys(**digests)) == expected


def test_image_weights_change_the_phases_that_use_them():
    first, second = keys(preset="visdec-mini"), keys(preset="visdec-mini", contents={"mini": "x"})
    assert changed(first, second) == {"guide", "finetune", *LATER}


def test_more_steps_of_a_constant_rate_are_the_same_training():
    def key(steps, schedule):
        training = f"visdec.pretrain.training={{steps: {steps}, schedule: {schedule}}}"
        return training_key(load_experiment("visdec-mini", None, [training]), DIGESTS, "pretrain")

    assert key(200, "constant") == key(300, "constant")
    assert key(200, "cosine") != key(300, "cosine")


def test_the_content_of_feature_files_counts():
    space = "encoding.extra_feature_spaces=[clip=clip.npy]"
    first = keys(space, preset="encoding", contents={"clip.npy": "a"})
    second = keys(space, preset="encoding", contents={"clip.npy": "b"})
    assert changed(first, second) == {"encode"}


def test_content_of_files_and_folders(tmp_path):
    file = tmp_path / "a.json"
    file.write_text("1")
    (tmp_path / "b.txt").write_text("one")
    alone, folder = digest_content(file), digest_content(tmp_path)
    (tmp_path / "b.txt").write_text("two")  # only the size of other files counts
    assert digest_content(tmp_path) == folder
    file.write_text("2")
    assert digest_content(file) != alone and digest_content(tmp_path) != folder
    assert digest_content(tmp_path / "absent") is None
