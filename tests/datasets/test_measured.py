import shutil

import numpy as np
import pytest
from scipy.io import savemat

from calcarine.datasets.small import digits69, miyawaki_vbcca
from calcarine.errors import CalcarineError

DIGITS = "digit69_28x28.mat"
FIGURES = "miyawaki_VBCCA_V1_mean_figure.mat"


@pytest.fixture(scope="module")
def digits(measured):
    return digits69.load(measured / "digits69")


@pytest.fixture(scope="module")
def figures(measured):
    return miyawaki_vbcca.load(measured / "miyawaki_vbcca")


def pixels(dataset, ids):
    return dataset.stimuli.images(ids)[..., 0].reshape(len(ids), -1) / 255.0


def ridge(train, targets, test, alpha):
    mean, spread = train.mean(0), train.std(0) + 1e-12
    train, test = (train - mean) / spread, (test - mean) / spread
    center = targets.mean(0)
    dual = np.linalg.solve(train @ train.T + alpha * np.eye(len(train)), targets - center)
    return test @ (train.T @ dual) + center


def pixel_correlations(dataset, alpha):
    """Mean over stimuli for ridge and for the mean training picture."""
    found, floor = [], []
    for split in dataset.splits:
        train, test = dataset.train(split), dataset.test(split)
        targets = pixels(dataset, train.stimulus_ids)
        guesses = ridge(train.data.astype(float), targets, test.data, alpha)
        for guess, truth in zip(guesses, pixels(dataset, test.stimulus_ids), strict=True):
            found.append(np.corrcoef(guess, truth)[0, 1])
            floor.append(np.corrcoef(targets.mean(0), truth)[0, 1])
    return np.mean(found), np.mean(floor)


def test_digits_are_as_published(digits):
    assert digits.responses.shape == (100, 3092)
    assert digits.stimuli.size == (28, 28)
    assert digits.stimuli.ids[0] == "d69-000"
    assert digits.stimuli.ids[99] == "d69-099"
    names = [found[0] for found in digits.stimuli.categories()]
    assert names == ["six"] * 45 + ["nine"] * 45 + ["six"] * 5 + ["nine"] * 5
    assert digits.stimuli.captions(["d69-099"])[0][0] == "a handwritten nine"
    assert {len(texts) for texts in digits.stimuli.captions()} == {5}
    assert digits.judge == "digits"
    assert not digits.simulated
    assert digits.roi_mask("visual").all()
    assert digits.voxels[["x", "y", "z"]].isna().all(axis=None)


def test_digits_stand_upright(digits):
    """A six has its loop, and so most of its ink, below; a nine above."""
    light = digits.stimuli.images()[..., 0].astype(float)
    rows = np.arange(28)
    height = (light.sum(2) * rows).sum(1) / light.sum((1, 2))
    # Ink relative to the middle of the inked rows.
    inked = light.max(2) > 64
    middle = (inked.argmax(1) + 27 - inked[:, ::-1].argmax(1)) / 2
    below = height > middle
    sixes = np.array([found[0] == "six" for found in digits.stimuli.categories()])
    assert (below == sixes).mean() > 0.95


def test_ten_folds_test_each_digit_once(digits):
    assert [split.name for split in digits.splits] == [f"fold-{k:02d}" for k in range(10)]
    tested = [key for split in digits.splits for key in split.test]
    assert sorted(tested) == list(digits.stimuli.ids)
    for split in digits.splits:
        assert sorted((*split.train, *split.test)) == list(digits.stimuli.ids)
        names = [found[0] for found in digits.stimuli.categories(split.test)]
        assert names.count("six") == names.count("nine") == 5


def test_folds_follow_the_seed(digits, measured):
    same, other = digits69.load(measured), digits69.load(measured, seed=1)
    assert same.splits == digits.splits
    assert same.digest() == digits.digest()
    assert other.splits[0].test != digits.splits[0].test


def test_digits_can_be_read_from_the_brain(digits):
    found, floor = pixel_correlations(digits, alpha=1000.0)
    assert found >= 0.68
    assert found > floor + 0.08


def test_figures_are_letters_and_shapes_upright(figures):
    def drawn(key):
        lit = figures.stimuli.image(key)[..., 0] > 0
        return ["".join("#" if cell else "." for cell in row) for row in lit]

    assert drawn("shape-06")[2:7] == [
        "...####...",
        "...#..#...",
        "...####...",
        "...#......",
        "...####...",
    ]
    assert drawn("shape-07")[2:7] == ["...#..#..."] * 4 + ["...####..."]
    assert drawn("shape-02")[1] == "....##...."
    assert set(np.unique(figures.stimuli.images())) == {0, 255}


def test_figures_are_left_out_one_by_one(figures):
    assert figures.describe()["repeats"] == {"8": 10}
    assert [split.test for split in figures.splits] == [(key,) for key in figures.stimuli.ids]
    assert figures.splits[6].name == "letter-e"
    assert len(figures.train("letter-e")) == 72
    assert figures.judge is None
    assert len(set(figures.stimuli.captions())) == 10


def test_figures_can_be_read_from_the_brain(figures):
    found, floor = pixel_correlations(figures, alpha=100.0)
    assert found >= 0.70
    assert found > floor + 0.1


@pytest.mark.parametrize(
    ("loader", "folder", "name"),
    [(digits69, "digits69", DIGITS), (miyawaki_vbcca, "miyawaki_vbcca", FIGURES)],
)
@pytest.mark.parametrize("keep", [0.0, 0.001, 0.3, 0.999])
def test_truncated_file_is_one_sentence(measured, tmp_path, loader, folder, name, keep):
    whole = (measured / folder / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(CalcarineError) as caught:
        loader.load(tmp_path)
    text = str(caught.value)
    assert name in text
    assert "\n" not in text
    assert loader.INFO.source in text


def digit_arrays(**changes):
    arrays = {
        "fmriTrn": np.ones((90, 3092)),
        "fmriTest": np.ones((10, 3092)),
        "stimTrn": np.zeros((90, 784), np.uint8),
        "stimTest": np.zeros((10, 784), np.uint8),
        "labelTrn": np.repeat([1, 2], 45)[:, None],
        "labelTest": np.repeat([1, 2], 5)[:, None],
    }
    merged = {**arrays, **changes}
    return {key: value for key, value in merged.items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labelTrn": None}, "labelTrn in .* is missing"),
        ({"fmriTrn": np.ones((90, 5))}, r"fmriTrn in .* shape \(90, 5\) and should be"),
        ({"stimTest": np.array([["x"] * 784] * 10, dtype=object)}, "stimTest in .* should be"),
        ({"labelTest": np.full((10, 1), 7)}, r"labels .* are \[1, 2, 7\]"),
    ],
)
def test_other_contents_are_told(tmp_path, changes, message):
    savemat(tmp_path / DIGITS, digit_arrays(**changes))
    with pytest.raises(CalcarineError, match=message):
        digits69.load(tmp_path)


def test_a_right_file_of_our_own_loads(tmp_path):
    stimuli = np.zeros((90, 784), np.uint8)
    stimuli[0, 28] = 255  # second column of the first row in MATLAB's order
    savemat(tmp_path / DIGITS, digit_arrays(stimTrn=stimuli))
    assert digits69.load(tmp_path).stimuli.image("d69-000")[0, 1].tolist() == [255] * 3


def test_wrong_number_of_figures_is_told(tmp_path):
    savemat(tmp_path / FIGURES, {"R2": np.ones((797, 80)), "I2": np.zeros((100, 80), np.uint8)})
    with pytest.raises(CalcarineError, match="has 1 figures and should have ten"):
        miyawaki_vbcca.load(tmp_path)


def test_no_matlab_file_is_told(tmp_path, measured):
    shutil.copy(measured / "README.md", tmp_path / DIGITS)
    with pytest.raises(CalcarineError, match="damaged or not a MATLAB file"):
        digits69.load(tmp_path)
