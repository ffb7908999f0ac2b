"""From a lab's arrays to a data set, and what objects print."""

import re

import numpy as np
import pytest

from calcarine.brain import BrainDataset, Split
from calcarine.errors import CalcarineError, LeakageError, SettingError, ShapeError
from calcarine.stimuli import StimulusSet

RNG = np.random.default_rng(0)
IDS = [f"img{i}" for i in range(10)]
PICTURES = {key: RNG.integers(0, 256, (8, 6, 3), np.uint8) for key in IDS}
SHOWN = [*IDS, *reversed(IDS)]
BETAS = RNG.standard_normal((20, 5))
V1, V2 = np.arange(5) < 2, np.arange(5) == 3


def made(**changes):
    given = {"responses": BETAS, "stimulus_ids": SHOWN, "images": PICTURES, "test": IDS[8:]}
    return BrainDataset.from_arrays(**{**given, "rois": {"V1": V1, "V2": V2}, **changes})


def test_arrays_become_a_data_set():
    brain = made(sessions=np.repeat([1, 2], 10))
    assert (brain.n_trials, brain.n_voxels, brain.simulated) == (20, 5, False)
    assert brain.split().test == ("img8", "img9")
    np.testing.assert_array_equal(
        brain.train(roi="V1").data,
        BETAS.astype(np.float32)[:8, :2].tolist() + BETAS.astype(np.float32)[12:, :2].tolist(),
    )
    mean = (BETAS.astype(np.float32)[8] + BETAS.astype(np.float32)[11]) / 2
    np.testing.assert_allclose(brain.test().data[0], mean, rtol=1e-6)
    np.testing.assert_array_equal(brain.stimuli.image("img3"), PICTURES["img3"])
    assert brain.sessions.tolist() == [1] * 10 + [2] * 10
    assert brain.responses.coords["repeat"].values.tolist() == [0] * 10 + [1] * 10


def test_three_ways_to_give_pictures_are_one_data_set():
    by_trial = np.stack([PICTURES[key] for key in SHOWN])
    stack = np.stack(list(PICTURES.values()))
    forms = [
        made(),
        made(images=by_trial),
        made(images=stack, image_ids=IDS),
        made(images=StimulusSet.from_arrays(stack, IDS)),
    ]
    assert len({brain.digest() for brain in forms}) == 1


def test_ids_may_be_numbers():
    brain = made(
        stimulus_ids=np.tile(np.arange(10), 2),
        images=dict(enumerate(PICTURES.values())),
        test=[8, 9],
        captions={i: f"a picture {i}" for i in range(10)},
    )
    assert brain.split().test == ("8", "9")
    assert brain.stimuli.captions(["3"]) == [("a picture 3",)]


def test_the_test_is_a_share_a_number_ids_or_splits():
    assert len(made(test=0.3).split().test) == len(made(test=3).split().test) == 3
    assert made(test=0.3).split() == made(test=0.3).split()
    assert made(test=0.3, seed=1).split() != made(test=0.3).split()
    both = (Split("a", IDS[:5], IDS[5:], "halves"), Split("b", IDS[5:], IDS[:5], "halves"))
    assert made(test=both[0]).splits == both[:1]
    assert made(test=both).splits == both
    assert made(test=set(IDS[:2])).split().train == tuple(IDS[2:])


def test_a_random_test_keeps_repeats_on_one_side():
    brain = made(test=0.5)
    assert set(brain.train().stimulus_ids).isdisjoint(brain.test().stimulus_ids)


def test_sessions_are_z_scored_by_training_trials_if_asked():
    sessions = np.repeat([1, 2], 10)
    brain = made(sessions=sessions, zscore="session")
    train = brain.train()
    for session in (1, 2):
        np.testing.assert_allclose(train.data[train.sessions == session].mean(0), 0, atol=1e-6)
    assert made(sessions=sessions).scaling is None


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"responses": BETAS[0]}, ShapeError, r"numbers of shape \(trial, voxel\), not float64 of"),
        ({"responses": BETAS.astype(str)}, ShapeError, "responses must be numbers"),
        ({"responses": BETAS[:19]}, ShapeError, "19 rows of responses and 20 stimulus ids"),
        ({"responses": np.full((20, 5), np.nan)}, CalcarineError, "5 of 5 voxels hold NaN"),
        ({"stimulus_ids": "img0"}, SettingError, "must be a list of ids"),
        ({"stimulus_ids": ["imgg1", *SHOWN[1:]]}, SettingError, r"Did you mean img1\?"),
        ({"images": np.zeros((3, 8, 6, 3), np.uint8)}, ShapeError, "give image_ids"),
        ({"images": np.zeros((20, 8, 6, 3))}, ShapeError, r"convert fractions with np\.round"),
        ({"images": {**PICTURES, "img0": np.zeros((4, 4, 3))}}, ShapeError, "one shape"),
        ({"images": RNG.integers(0, 9, (20, 8, 6, 3), np.uint8)}, SettingError, "different images"),
        ({"test": "img8"}, SettingError, "test is a share such as 0.1"),
        ({"test": ["img77"]}, SettingError, r"img77 was shown in no trial.* Did you mean img7\?"),
        ({"test": []}, SettingError, "the list is empty"),
        ({"test": IDS}, SettingError, "no train stimuli"),
        ({"test": 1.5}, SettingError, "share between 0 and 1 or a number from 1 to 9"),
        ({"test": 10}, SettingError, "does not fit 10 stimuli"),
        ({"rois": {"V1": [1, 0, 0, 0, 0]}}, ShapeError, "region V1 must be boolean"),
        ({"rois": {"V1": V1[:3]}}, ShapeError, r"boolean of shape \(5,\)"),
        ({"rois": {"V1+V2": V1}}, SettingError, "must not contain a plus, which joins regions"),
        ({"sessions": [1]}, ShapeError, "one for each of 20 trials"),
        ({"sessions": np.arange(20) / 2}, ShapeError, "sessions must be whole numbers"),
        ({"captions": {"img0": "one"}}, SettingError, "captions lack 9 of 10 stimuli"),
        ({"captions": ["one"]}, ShapeError, "1 captions for 10 stimuli"),
        ({"voxels": np.zeros((4, 3))}, ShapeError, r"coordinates of shape \(5, 3\)"),
        ({"zscore": "all"}, SettingError, "zscore is"),
    ],
)
def test_what_is_wrong_is_one_sentence_of_the_right_kind(changes, kind, message):
    with pytest.raises(kind, match=message) as caught:
        made(**changes)
    assert "\n" not in str(caught.value)


def test_a_split_that_leaks_is_refused():
    with pytest.raises(LeakageError):
        made(test=Split("s", ("img0", "img1"), ("img1",), "mine"))


def test_one_picture_needs_no_batch_axis():
    one = StimulusSet.from_arrays(PICTURES["img0"], "img0", captions="a picture")
    assert one.ids == ("img0",) and one.captions() == [("a picture",)]
    with pytest.raises(ShapeError, match=r"np\.moveaxis"):
        StimulusSet.from_arrays(np.zeros((2, 3, 8, 8), np.uint8))
    with pytest.raises(ShapeError, match=r"repeat grey pictures"):
        StimulusSet.from_arrays(np.zeros((2, 8, 8), np.uint8))


def test_regions_are_joined_and_a_misspelt_one_suggests_the_nearest():
    brain = made()
    assert brain.roi_mask("V1+V2").tolist() == (V1 | V2).tolist()
    message = (
        "has no region v1; it has all, V1, V2 (join several with +, as V1+V2). Did you mean V1?"
    )
    with pytest.raises(SettingError, match=re.escape(message)):
        brain.roi_mask("v1")
    with pytest.raises(SettingError, match=r"no split tst-list; .* Did you mean test-list\?"):
        brain.split("tst-list")


def printed():
    brain = made(name="<b>", sessions=np.repeat([1, 2], 10))
    return {
        "dataset": brain,
        "stimuli": brain.stimuli,
        "train": brain.train(),
        "test": brain.test(),
        "split": brain.split(),
    }


@pytest.mark.parametrize("name", printed())
def test_objects_print_themselves_in_a_few_lines(name):
    text = repr(printed()[name])
    assert len(text) < 600 and text.count("\n") < 8
    html = printed()[name]._repr_html_()
    assert html.startswith("<table>") and html.count("<tr>") < 10 and "<b>" not in html


def test_a_data_set_prints_its_sizes():
    assert repr(made(sessions=np.repeat([1, 2], 10))) == (
        "BrainDataset own, subject S1 (measured)\n"
        "  trials: 20 of 10 stimuli\n"
        "  sessions: 2\n"
        "  voxels: all 5, V1 2, V2 1\n"
        "  pictures: 8 x 6 pixels\n"
        "  splits: test-list (train 8, test 2)\n"
        "  scaling: not z-scored"
    )


def test_many_regions_and_splits_are_counted_not_listed():
    splits = [
        Split(f"fold-{key}", tuple(k for k in IDS if k != key), (key,), "one out") for key in IDS
    ]
    rois = {f"area{i}": V1 for i in range(40)}
    text = repr(made(test=splits, rois=rois))
    assert "and 35 more" in text and "and 7 more" in text and len(text) < 500
