import json
import re
import shutil
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from calcarine.brain import Split
from calcarine.brain.scaling import zscore_sessions
from calcarine.cli.datasets import _print_results
from calcarine.datasets import own, registry
from calcarine.datasets.described.description import validated
from calcarine.errors import CalcarineError
from calcarine.linear import RidgeCV
from calcarine.quality.check_results import CheckResult

PAGE = Path(__file__).parents[2] / "docs" / "own-data.md"
ALPHAS = np.logspace(-1, 5, 13)


@pytest.fixture(scope="session")
def subjects(tmp_path_factory):
    """One simulated subject in each form."""
    root = tmp_path_factory.mktemp("own")
    for form in ("npy", "nii", "h5"):
        registry.write_fake_dataset("own", root / form, betas=form)
    return root


@pytest.fixture
def lab(subjects, tmp_path):
    """A copy to be changed."""
    return Path(
        shutil.copytree(
            subjects / "npy", tmp_path / "lab", ignore=shutil.ignore_patterns("prepared")
        )
    )


def own_trials(lab, shown, sessions, **changes):
    """Responses of a design of one's own, in one file, with pictures and captions of the lab."""
    names = sorted(path.stem for path in (lab / "stimuli").iterdir())
    table = pd.DataFrame({"stimulus": [names[row] for row in shown], "session": sessions})
    table.to_csv(lab / "trials.csv", index=False)
    voxels = np.load(lab / "betas" / "session1.npy").shape[1]
    drift = 3 * np.asarray(sessions)[:, None]
    values = np.random.default_rng(0).normal(drift, 2, (len(table), voxels)).astype(np.float32)
    np.save(lab / "all.npy", values)
    return values, describe(lab, betas="all.npy", layout="trials-first", **changes)


def categorise(lab, names):
    """Give each stimulus a category in the table of captions."""
    table = pd.read_csv(lab / "captions.csv").sort_values("id", ignore_index=True)
    table.assign(category=[names[row % len(names)] for row in range(len(table))]).to_csv(
        lab / "captions.csv", index=False
    )


def describe(folder, **changes):
    path = folder / "calcarine.yaml"
    tree = {**yaml.safe_load(path.read_text()), **changes}
    path.write_text(yaml.safe_dump({k: v for k, v in tree.items() if v is not None}))
    return folder


def signal(dataset):
    """Correlation of decoded and true pictures over test stimuli, and of shuffled ones."""
    train, test = dataset.train(), dataset.test()

    def pixels(ids):
        return dataset.stimuli.images(ids)[:, ::11, ::11].reshape(len(ids), -1) / 255.0

    ridge = RidgeCV(alphas=ALPHAS).fit(
        train.data, pixels(train.stimulus_ids), groups=train.stimulus_ids
    )
    found, truth = ridge.predict(test.data), pixels(test.stimulus_ids)
    both = np.corrcoef(found - found.mean(0), truth - truth.mean(0))[: len(found), len(found) :]
    right = np.diag(both).mean()
    return right, both[~np.eye(len(found), dtype=bool)].mean()


def test_ten_lines_of_the_docs_describe_a_subject(lab):
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    text = blocks[0]
    assert len(text.strip().splitlines()) <= 10
    (lab / "calcarine.yaml").write_text(text)
    found = own.load(lab)
    assert sorted(found.rois) == ["early", "ventral"]
    right, wrong = signal(found)
    assert right > 0.5 > 0.1 > wrong


def test_all_descriptions_of_the_docs_are_valid():
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 4
    for block in blocks:
        assert validated(yaml.safe_load(block), "docs").subject in ("s01", "01")


def test_all_forms_of_betas_are_one_data_set(subjects):
    digests = {
        registry.load_dataset("own", subjects / form).digest() for form in ("npy", "nii", "h5")
    }
    assert len(digests) == 1
    found = registry.load_dataset("own", subjects / "nii" / "calcarine.yaml")
    assert found.simulated
    assert (found.name, found.subject) == ("own", "s01")


def test_responses_are_the_files_scaled_by_training_trials(lab):
    raw = np.concatenate([np.load(lab / "betas" / f"session{n}.npy") for n in (1, 2, 3)])
    table = pd.read_csv(lab / "trials.csv")
    train = ~table["stimulus"].isin((lab / "shared.txt").read_text().split())
    wanted = zscore_sessions(raw, table["session"].to_numpy(), train.to_numpy())
    found = own.load(lab)
    np.testing.assert_allclose(found.responses.values, wanted, atol=1e-5)
    assert list(found.trial_stimuli) == table["stimulus"].tolist()
    describe(lab, zscore="none", scale=0.5)
    np.testing.assert_allclose(own.load(lab).responses.values, raw / 2, rtol=1e-6)


def test_voxels_lie_where_the_mask_says(lab):
    image = nib.load(lab / "mask.nii.gz")
    inside = np.argwhere(np.asarray(image.dataobj) > 0)
    found = own.load(lab)
    wanted = nib.affines.apply_affine(image.affine, inside)
    np.testing.assert_allclose(found.voxels[["x", "y", "z"]], wanted)
    early = np.asarray(nib.load(lab / "early.nii.gz").dataobj)[tuple(inside.T)] > 0
    np.testing.assert_array_equal(found.rois["early"], early)


def test_betas_that_were_made_anew_are_prepared_anew(lab):
    before = own.load(lab).responses.values
    for path in (lab / "betas").iterdir():
        np.save(path, np.load(path)[:, ::-1])
    assert not np.allclose(own.load(lab).responses.values, before)


def test_a_folder_may_have_signs_in_its_name(lab):
    plain = own.load(lab).responses.values
    place = lab.parent / "data [red] of *"
    lab.rename(place)
    np.testing.assert_array_equal(own.load(place).responses.values, plain)


@pytest.mark.parametrize("width", [80, 160])
def test_a_check_shows_paths_as_they_are_and_whole(width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr("rich.console.Console.is_terminal", width == 80)
    path = "/data/[red]/betas_fithrf/session1.npy"
    _print_results(
        "Title",
        [
            CheckResult("betas", "wrong", f"{path} is damaged", "30 trials", "get it again"),
            CheckResult("trials", "ok", "90"),
        ],
    )
    shown = re.sub("\x1b\\[[0-9;]*m", "", capsys.readouterr().out)
    words = " ".join(shown.split())
    assert path in words and "get it again" in words and "30 trials" in words
    assert all(len(line.rstrip()) <= width for line in shown.splitlines())


def test_axes_are_told_by_counts(lab):
    wanted = own.load(lab).digest()
    for path in (lab / "betas").iterdir():
        np.save(path, np.load(path).T)
    assert own.load(lab).digest() == wanted
    # One file of all sessions, and no column of sessions with a file a session.
    whole = np.concatenate([np.load(p).T for p in sorted((lab / "betas").iterdir())])
    np.save(lab / "all.npy", whole)
    assert own.load(describe(lab, betas="all.npy")).digest() == wanted
    table = pd.read_csv(lab / "trials.csv")
    table[["stimulus"]].to_csv(lab / "trials.csv", index=False)
    assert own.load(describe(lab, betas="betas/*.npy")).digest() == wanted


def test_a_square_matrix_needs_a_word(lab):
    count = np.load(lab / "betas" / "session1.npy").shape[1]
    table = pd.read_csv(lab / "trials.csv").iloc[np.arange(count) % 90]
    table.assign(session=1).to_csv(lab / "trials.csv", index=False)
    values = np.random.default_rng(0).normal(size=(count, count))
    np.save(lab / "square.npy", values)
    with pytest.raises(CalcarineError, match="trials could come first or last; add 'layout"):
        own.load(describe(lab, betas="square.npy"))
    first = own.load(describe(lab, layout="trials-first", zscore="none"))
    last = own.load(describe(lab, layout="trials-last"))
    np.testing.assert_allclose(first.responses.values, values, rtol=1e-5)
    np.testing.assert_allclose(last.responses.values, values.T, rtol=1e-5)


def test_glmsingle_is_read_from_hdf5_and_refused_as_pickle(lab, subjects):
    wanted = own.load(subjects / "h5").digest()
    with h5py.File(subjects / "h5" / "betas" / "betas.h5") as file:
        volumes = file["betas"][:]
    name = "TYPED_FITHRF_GLMDENOISE_RR"
    with h5py.File(lab / f"{name}.hdf5", "w") as file:
        file["betasmd"] = np.moveaxis(volumes, 0, -1)
        file["R2"] = np.zeros(3)
    assert own.load(describe(lab, betas=f"{name}.hdf5")).digest() == wanted
    with h5py.File(lab / f"{name}.hdf5", "w") as file:
        mask = np.asarray(nib.load(lab / "mask.nii.gz").dataobj) > 0
        file["betasmd"] = volumes[:, mask].T[:, None, None]
    assert own.load(lab).digest() == wanted
    np.save(lab / f"{name}.npy", {"betasmd": volumes}, allow_pickle=True)
    with pytest.raises(CalcarineError, match=r"not read because .* save betasmd alone"):
        own.load(describe(lab, betas=f"{name}.npy"))


def test_without_a_mask_voxels_with_responses_are_kept(subjects, tmp_path):
    folder = Path(shutil.copytree(subjects / "nii", tmp_path / "lab"))
    with_mask = own.load(folder)
    found = own.load(describe(folder, mask=None))
    np.testing.assert_array_equal(found.responses.values, with_mask.responses.values)
    np.testing.assert_array_equal(found.voxels, with_mask.voxels)


def test_an_atlas_and_minus_one_masks(lab):
    wanted = own.load(lab)
    early, ventral = (nib.load(lab / f"{n}.nii.gz") for n in ("early", "ventral"))
    labels = -1 + 3 * np.asarray(early.dataobj, int) + 6 * np.asarray(ventral.dataobj, int)
    nib.save(nib.Nifti1Image(labels.astype(np.int16), early.affine), lab / "atlas.nii.gz")
    atlas = {"file": "atlas.nii.gz", "labels": {"early": [2, 9], "ventral": 5}}
    found = own.load(describe(lab, rois=atlas))
    for name in ("early", "ventral"):
        np.testing.assert_array_equal(found.rois[name], wanted.rois[name])
    inside = np.asarray(nib.load(lab / "mask.nii.gz").dataobj, int)
    nib.save(nib.Nifti1Image((2 * inside - 1).astype(np.int16), early.affine), lab / "mask.nii.gz")
    np.testing.assert_array_equal(own.load(lab).responses.values, wanted.responses.values)
    with pytest.raises(CalcarineError, match="holds the labels 2, 5; say which is which"):
        own.load(describe(lab, rois={"early": "atlas.nii.gz"}))


def test_pictures_from_an_array_are_those_of_the_folder(lab):
    wanted = own.load(lab)
    ids = sorted(wanted.stimuli.ids)
    pictures = np.stack([wanted.stimuli.image(key) for key in ids])
    table = pd.read_csv(lab / "trials.csv")
    table["stimulus"] = [ids.index(key) for key in table["stimulus"]]
    table.to_csv(lab / "trials.csv", index=False)
    with h5py.File(lab / "pictures.h5", "w") as file:
        file["pictures"] = pictures
    np.save(lab / "fractions.npy", pictures.astype(np.float32) / 255)
    describe(lab, captions=None, test=0.2)
    for images in ("pictures.h5:pictures", "fractions.npy"):
        found = own.load(describe(lab, images=images))
        np.testing.assert_array_equal(found.stimuli.images(["3", "0"]), pictures[[3, 0]])
    assert own.load(lab, size=12).stimuli.image("3").shape == (12, 12, 3)
    np.save(lab / "dark.npy", (pictures > 127).astype(np.uint8))
    with pytest.raises(CalcarineError, match="whole numbers up to 1, so they may be meant as 0"):
        own.load(describe(lab, images="dark.npy"))
    table["stimulus"] += 1
    table.to_csv(lab / "trials.csv", index=False)
    with pytest.raises(CalcarineError, match="trials seem to count from 1 and the pictures from 0"):
        own.load(describe(lab, images="fractions.npy"))
    shifted = own.load(describe(lab, first_image=1))
    np.testing.assert_array_equal(shifted.stimuli.image("4"), pictures[3])


def test_tests_are_chosen_as_the_description_says(lab):
    listed = set(own.load(lab).splits[0].test)
    assert set(own.load(describe(lab, test="repeated")).splits[0].test) == listed
    one = own.load(describe(lab, test={"fraction": 0.25, "seed": 3})).splits[0]
    assert len(one.test) == round(0.25 * (len(one.train) + len(one.test)))
    assert one == own.load(lab).splits[0]
    one.save(lab / "saved.json")
    assert own.load(describe(lab, test="saved.json")).splits[0] == one
    (lab / "shared.txt").write_text("# others saw more\nnot-shown\n" + "\n".join(listed))
    found = own.load(describe(lab, test="shared.txt")).splits[0]
    assert set(found.test) == listed
    assert "6 of the 7" in found.rule


def test_the_mark_that_windows_puts_before_texts_is_no_part_of_an_id(lab):
    plain = own.load(lab)
    for name in ("shared.txt", "trials.csv", "captions.csv", "calcarine.yaml"):
        text = (lab / name).read_text()
        (lab / name).write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert own.load(lab).splits == plain.splits
    assert own.load(lab).stimuli.captions() == plain.stimuli.captions()
    texts = {key: list(plain.stimuli.captions([key])[0]) for key in plain.stimuli.ids}
    (lab / "captions.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(texts).encode())
    found = own.load(describe(lab, captions="captions.json"))
    assert found.stimuli.captions() == plain.stimuli.captions()


def test_captions_from_json_and_from_the_table_of_pictures(lab):
    wanted = own.load(lab)
    texts = dict(zip(wanted.stimuli.ids, map(list, wanted.stimuli.captions()), strict=True))
    assert len(texts[wanted.stimuli.ids[0]]) == 2
    (lab / "captions.json").write_text(json.dumps(texts))
    found = own.load(describe(lab, captions="captions.json"))
    assert found.stimuli.digest() == wanted.stimuli.digest()
    rows = [{"id": k, "file": f"{k}.png", "captions": v, "category": "c"} for k, v in texts.items()]
    (lab / "stimuli" / "table.json").write_text(json.dumps(rows))
    table = own.load(describe(lab, images="stimuli/table.json", captions=None))
    assert table.stimuli.digest() == wanted.stimuli.digest()
    assert table.stimuli.categories()[0] == ("c",)


def change_trials(**changes):
    def change(lab):
        table = pd.read_csv(lab / "trials.csv", dtype=str)
        table.assign(**{k: f(table) for k, f in changes.items()}).to_csv(
            lab / "trials.csv", index=False
        )

    return change


def turn_mask(lab):
    image = nib.load(lab / "early.nii.gz")
    flip = image.affine @ np.diag([-1, 1, 1, 1])
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), flip), lab / "early.nii.gz")


def write(name, content):
    def change(lab):
        path = lab / name
        if isinstance(content, np.ndarray):
            np.save(path, content)
        else:
            path.write_text(content)

    return change


def with_nan(lab):
    values = np.load(lab / "betas" / "session2.npy")
    values[3, 5] = np.nan
    np.save(lab / "betas" / "session2.npy", values)


def one_session(lab):
    parts = [np.load(path) for path in sorted((lab / "betas").iterdir())]
    np.save(lab / "all.npy", np.concatenate(parts))
    pd.read_csv(lab / "trials.csv").assign(session=1).to_csv(lab / "trials.csv", index=False)


def write_split(name):
    def change(lab):
        shown = pd.read_csv(lab / "trials.csv")["stimulus"].unique().tolist()
        Split(name, tuple(shown[4:]), tuple(shown[:4]), "by hand").save(lab / "split.json")

    return change


MISTAKES = [
    (None, {"beta": "x"}, "there is no key 'beta'; the most similar one is 'betas'"),
    (None, {"subject": None}, "the key 'subject' is missing"),
    (None, {"betas": None}, "give betas and trials, or bids"),
    (None, {"zscore": "run"}, "key 'zscore' is wrong: input should be 'session', 'train"),
    (None, {"test": {"folds": 1}}, "key 'folds' is wrong: input should be greater than or equal"),
    (None, {"test": {"fold": 10}}, "no key 'fold'; the most similar one is 'folds'"),
    (None, {"test": {"seed": 1}}, r"give folds, such as \{folds: 10\}, or by"),
    (None, {"test": {"by": "run"}}, "key 'by' is wrong: input should be 'category' or 'session'"),
    (None, {"test": {"fractoin": 0.1}}, "no key 'fractoin'; the most similar one is 'fraction'"),
    (None, {"test": {"folds": 79}}, "79 folds cannot be made of 78 stimuli; choose from 2 to 78"),
    (None, {"test": {"by": "category"}}, "78 of 78 stimuli have no category, the first pic"),
    (None, {"test": {"by": "session"}}, "All 3 sessions are linked by stimuli .* in several"),
    (one_session, {"test": {"by": "session"}, "betas": "all.npy"}, "All trials are of one session"),
    (write_split("a/b"), {"test": "split.json"}, "name 'a/b' cannot name a folder"),
    (write_split("x" * 300), {"test": "split.json"}, "cannot name a folder"),
    (None, {"rois": {"V1+V2": "early.nii.gz"}}, r"name of region V1\+V2 must not contain a plus"),
    (None, {"test": {"fraction": 2}}, "key 'fraction' is wrong: input should be less than 1"),
    (None, {"test": 1.5}, "test is a fraction between 0 and 1"),
    (None, {"rois": {"file": "a.nii", "labels": {"a": "V1"}}}, "key 'labels.a' is wrong"),
    (
        None,
        {"rois": {"file": "a.nii", "lables": {"a": 1}}},
        "no key 'lables'; the most similar one is 'labels'",
    ),
    (None, {"test": None, "tests": 0.1}, "no key 'tests'; the most similar one is 'test'"),
    (None, {"ROIs": {}}, "no key 'ROIs'; the most similar one is 'rois'"),
    (None, {"bids": {"derivatives": "."}}, "either betas and trials, or bids, not both"),
    (None, {"betas": "beta/*.npy"}, "No file is like .*; check the betas"),
    (None, {"mask": "m.nii.gz"}, "The mask .*m.nii.gz does not exist"),
    (None, {"mask": "early.nii.gz"}, r"have 164 voxels, and the mask .* has 52 \(shape"),
    (None, {"test": "trials.csv"}, "of which none was shown"),
    (None, {"images": "betas"}, "holds no pictures"),
    (None, {"captions": "trials.csv"}, "need the columns id and caption; there are stimulus"),
    (None, {"betas": ["betas/session1.npy"]}, "has 90 trials and the betas session1.npy have"),
    (
        None,
        {"betas": ["betas/session1.npy", "betas/session2.npy"]},
        "2 files of betas and 3 sessions",
    ),
    (
        write("betas/session2.npy", np.zeros((29, 164))),
        {},
        r"session2.npy has shape \(29, 164\), and session 2 of the table has 30",
    ),
    (write("betas/session2.npy", np.zeros((30, 163))), {}, "betas of all sessions must be of the"),
    (write("betas/session2.npy", np.zeros((30, 2, 163))), {}, "or a trial and three axes"),
    (with_nan, {}, "session2.npy: 1 of 164 voxels hold NaN or infinity in session 2; leave them"),
    (
        change_trials(stimulus=lambda t: t["stimulus"].where(t.index != 4, "picX")),
        {},
        "1 of 78 stimuli have no picture in .*, the first picX; pictures are named as pic0000, pic",
    ),
    (
        change_trials(stimulus=lambda t: t["stimulus"].str.upper()),
        {"test": 0.1, "captions": None},
        "there is a picture pic[0-9]+: capitals matter",
    ),
    (
        change_trials(stimulus=lambda t: t["stimulus"].where(t.index != 4, "")),
        {},
        "trial 5 names no stimulus",
    ),
    (change_trials(session=lambda t: np.roll(t["session"], 1)), {}, "are not consecutive"),
    (turn_mask, {}, r"different affines, .* \(axes are flipped or swapped\)"),
    (
        write("trials.csv", "picture,run\na,1\n"),
        {},
        "no column 'stimulus'; its columns are picture",
    ),
    (
        write("early.npy", np.full(164, 0.3)),
        {"rois": {"early": "early.npy"}},
        "holds 0.3 at .*, which is not a whole number",
    ),
    (write("early.npy", np.ones(9)), {"rois": {"early": "early.npy"}}, r"has shape \(9,\)"),
    (write("early.npy", np.zeros(164)), {"rois": {"e": "early.npy"}}, "Region e has none of"),
    (write("calcarine.yaml", "a: [b"), None, "cannot be read as YAML"),
    (write("calcarine.yaml", "- a"), None, "must hold keys and values"),
]


@pytest.mark.parametrize(("change", "keys", "message"), MISTAKES)
def test_each_mistake_is_told_in_one_sentence(lab, change, keys, message):
    if change:
        change(lab)
    if keys:
        describe(lab, **keys)
    with pytest.raises(CalcarineError, match=message) as told:
        own.load(lab)
    assert "\n" not in str(told.value)
    assert any(row.status in ("wrong", "missing") for row in own.check(lab))


# GOD's design: training pictures in sessions 1 and 2, test pictures in session 3.
APART = ([*range(20)] * 2 + [20, 21, 22, 23] * 8, [1] * 20 + [2] * 20 + [3] * 32)


@pytest.mark.parametrize("zscore", ["session", "training", "session-all", "none"])
def test_test_stimuli_in_sessions_of_their_own(lab, zscore):
    """Scaled by training rows alone, unless test rows are asked for."""
    raw, _ = own_trials(lab, *APART, zscore=zscore)
    names = sorted(path.stem for path in (lab / "stimuli").iterdir())
    (lab / "shared.txt").write_text("\n".join(names[20:24]))
    results = {row.what: row for row in own.check(lab)}
    found = own.load(lab)
    session, values = np.array(APART[1]), found.responses.values
    used = {"session": session < 3, "training": session < 3, "session-all": session == 3}
    wanted = raw.copy()
    for number in (1, 2, 3):
        own_rows = session == number
        rows = own_rows if zscore != "training" and number < 3 else used.get(zscore)
        if zscore != "none":
            wanted[own_rows] = (raw[own_rows] - raw[rows].mean(0)) / raw[rows].std(0)
    np.testing.assert_allclose(values, wanted, atol=1e-4)
    np.testing.assert_allclose(found.train().data, wanted[:40], atol=1e-4)
    np.testing.assert_allclose(
        found.test().data[0], wanted[found.trials_of(found.splits[0].test[:1])].mean(0), atol=1e-4
    )
    told = {
        "session": "session 3 with fewer than two training trials by all training trials",
        "training": "all sessions z-scored by all training trials",
        "session-all": "test trials included",
        "none": "not z-scored",
    }[zscore]
    assert told in results["z-scoring"].found
    assert told in found.describe()["scaling"]
    assert results["z-scoring"].status == ("note" if "session" in zscore else "ok")
    raw[40:] = 100 * raw[40:] + 7
    np.save(lab / "all.npy", raw)
    louder = own.load(lab)
    np.testing.assert_array_equal(louder.train().data, found.train().data)
    if zscore in ("session", "training"):
        np.testing.assert_array_equal(louder.scaling.mean, found.scaling.mean)
        np.testing.assert_array_equal(louder.scaling.scale, found.scaling.scale)


def test_other_splits_of_such_a_design_are_scaled_by_their_own_training(lab):
    raw, _ = own_trials(lab, *APART, test={"by": "session"})
    found = own.load(lab)
    # Sessions 1 and 2 show the same stimuli, so they are held out together.
    assert [split.rule for split in found.splits] == ["session 1+2 held out", "session 3 held out"]
    first = np.array(APART[1]) < 3
    for split, train in zip(found.splits, (~first, first), strict=True):
        mean, scale = raw[train].mean(0), raw[train].std(0)
        wanted = (raw[~train] - mean) / scale
        rows = found.trials_of(split.test)
        got = found.read_trials(rows, np.arange(found.n_voxels), split)
        np.testing.assert_allclose(got, wanted, atol=1e-4)


@pytest.mark.parametrize(
    ("test", "count", "rule"),
    [
        ("leave-one-out", 20, "left out"),
        ({"folds": 10, "seed": 4}, 10, "of 10, drawn at random"),
        ({"folds": 3, "by": "category"}, 3, "held out"),
        ({"by": "category"}, 4, "category a held out"),
        ({"folds": 2, "by": "session"}, 2, "sessions"),
        ({"by": "session"}, 4, "session 1 held out"),
    ],
)
def test_folds_of_twenty_stimuli(lab, test, count, rule):
    """Each stimulus is tested once, with all its repeats, scaled by training trials alone."""
    shown = np.repeat(np.arange(20), 2)
    raw, _ = own_trials(lab, shown, np.repeat([1, 2, 3, 4], 10).tolist(), test=test)
    categorise(lab, "abcd")
    assert not [row for row in own.check(lab) if row.status in ("wrong", "missing")]
    found = own.load(lab)
    assert [split.name for split in found.splits] == [f"fold-{k:02d}" for k in range(count)]
    assert any(rule in split.rule for split in found.splits)
    tested = [key for split in found.splits for key in split.test]
    assert sorted(tested) == sorted(set(found.trial_stimuli))
    for split in found.splits:
        assert not set(split.train) & set(split.test)
        assert len(found.train(split)) == 2 * len(split.train)
        train = np.isin(found.trial_stimuli, split.train)
        wanted = zscore_sessions(raw, found.sessions, train)
        np.testing.assert_allclose(found.train(split).data, wanted[train], atol=1e-4)
    if isinstance(test, dict) and test.get("by") == "category":
        kind = {
            key: names[0]
            for key, names in zip(found.stimuli.ids, found.stimuli.categories(), strict=True)
        }
        for split in found.splits:
            assert not {kind[key] for key in split.train} & {kind[key] for key in split.test}


def test_the_check_says_where_a_run_would_refuse_too_few_stimuli(lab):
    own_trials(lab, [0, 1, 2, 0, 1, 2], [1] * 6, test=0.34)
    (row,) = [row for row in own.check(lab) if row.what == "split"]
    assert row.status == "wrong" and "needs 2 stimuli" in row.advice
    own.load(describe(lab, test="leave-one-out"))
    assert not any(row.status == "wrong" for row in own.check(lab))


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    design=st.lists(st.tuples(st.integers(0, 7), st.integers(1, 3)), min_size=2, max_size=24),
    test=st.sampled_from(
        [
            "repeated",
            "leave-one-out",
            0.3,
            {"folds": 3},
            {"by": "session"},
            {"by": "category"},
            {"folds": 2, "by": "category"},
            "shared.txt",
        ]
    ),
    zscore=st.sampled_from(["session", "training", "session-all", "none"]),
    region=st.sampled_from(["early", "V1+V2", "a/b", "all"]),
)
def test_what_passes_the_check_loads_and_what_fails_does_not(lab, design, test, zscore, region):
    ordered = sorted(design, key=lambda trial: trial[1])
    shown, sessions = map(list, zip(*ordered, strict=True))
    own_trials(lab, shown, sessions, test=test, zscore=zscore, rois={region: "early.nii.gz"})
    categorise(lab, "ab")
    (lab / "shared.txt").write_text("\n".join(f"pic{row:04d}" for row in range(3)))
    failed = [row for row in own.check(lab) if row.status in ("wrong", "missing")]
    if not failed:
        dataset = own.load(lab, prepared=lab / f"prepared-{len(list(lab.iterdir()))}")
        for split in dataset.splits:
            assert np.isfinite(dataset.train(split).data).all()
            assert np.isfinite(dataset.test(split).data).all()
    elif [row.what for row in failed] != ["split"] or "A run needs" not in failed[0].advice:
        with pytest.raises(CalcarineError):
            own.load(lab)


def test_numbers_as_ids_must_be_written_as_the_pictures_are(lab):
    for row, path in enumerate(sorted((lab / "stimuli").iterdir())):
        path.rename(path.with_name(f"{row + 1:04d}.png"))
    describe(lab, test=0.1, captions=None)
    names = sorted(pd.read_csv(lab / "trials.csv")["stimulus"].unique())

    def number(first, width):
        change_trials(
            stimulus=lambda t: [str(names.index(key) + first).zfill(width) for key in t["stimulus"]]
        )(lab)

    number(1, 1)
    with pytest.raises(
        CalcarineError, match=r"there is a picture 00[0-9]+: ids are compared as text"
    ):
        own.load(lab)
    names = sorted(pd.read_csv(lab / "trials.csv", dtype=str)["stimulus"].unique(), key=int)
    number(0, 4)
    with pytest.raises(CalcarineError, match=r"count from 0 and the pictures from 1: change .* by"):
        own.load(lab)
    names = sorted(pd.read_csv(lab / "trials.csv", dtype=str)["stimulus"].unique(), key=int)
    number(1, 4)
    assert own.load(lab).stimuli.ids[0] in {f"{n:04d}" for n in range(1, 79)}


def test_subjects_of_one_folder_are_told_by_their_files(lab):
    text = (lab / "calcarine.yaml").read_text()
    (lab / "s02.yaml").write_text(text.replace("s01", "s02"))
    assert own.load(lab, "s02").subject == "s02"
    assert own.load(lab).subject == "s01"
    with pytest.raises(CalcarineError, match="of subject s01, not of s03"):
        own.load(lab, "s03")


def test_a_check_says_what_there_is(subjects, lab):
    rows = {row.what: row for row in registry.check_dataset("own", subjects / "h5")}
    assert {row.status for row in rows.values()} <= {"ok", "note"}
    assert rows["trials"].found == "90 trials in 3 sessions"
    assert rows["stimuli"].found == "72 shown 1 x, 6 shown 3 x"
    assert rows["SIMULATED.txt"].status == "note"
    assert registry.recognise_datasets(subjects / "h5") == ("own",)
    Image.new("RGB", (9, 9)).save(lab / "stimuli" / f"{own.load(lab).stimuli.ids[5]}.png")
    assert [r.what for r in own.check(lab) if r.status == "wrong"] == ["pictures"]
    assert own.check(lab / "betas")[0].status == "missing"


def test_a_split_that_was_saved_for_others_is_told(lab):
    Split("theirs", ("a",), ("b",), "by hand").save(lab / "theirs.json")
    with pytest.raises(CalcarineError, match=r"stimulus a of split theirs|training trials"):
        own.load(describe(lab, test="theirs.json"))


FILES = st.sampled_from(
    [
        "calcarine.yaml",
        "trials.csv",
        "captions.csv",
        "shared.txt",
        "mask.nii.gz",
        "early.nii.gz",
        "betas",
    ]
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
@pytest.mark.filterwarnings("ignore:.*is not in UTF-8")
def test_damaged_files_are_told_or_read(subjects, tmp_path, data):
    form = data.draw(st.sampled_from(["npy", "nii", "h5"]))
    folder = tmp_path / form
    if not folder.exists():
        shutil.copytree(subjects / form, folder, ignore=shutil.ignore_patterns("prepared"))
    path = folder / data.draw(FILES)
    path = sorted(path.iterdir())[0] if path.is_dir() else path
    whole = path.read_bytes()
    damaged = bytearray(whole)
    if data.draw(st.booleans()):
        damaged = damaged[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        near = st.integers(0, min(len(whole), 2500) - 1)
        for place in data.draw(st.lists(near, min_size=1, max_size=5)):
            damaged[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(damaged)
    told_or_read(folder, tmp_path)
    path.write_bytes(whole)


def told_or_read(folder, tmp_path):
    try:
        found = own.load(folder, prepared=tmp_path / "prepared")
        assert np.isfinite(found.train().data).all()
        found.stimuli.images(found.stimuli.ids[:2])
    except CalcarineError as error:
        assert "\n" not in str(error)
    finally:
        shutil.rmtree(tmp_path / "prepared", ignore_errors=True)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 99)
    | st.floats()
    | st.sampled_from(
        [
            "",
            ".",
            "..",
            "*",
            "[",
            "~",
            "~x",
            "a:b",
            "\0",
            "mask.nii.gz",
            "trials.csv",
            "stimuli",
            "x.h5:y",
            "betas/*",
            "early.nii.gz:k",
            "repeated",
            "1.5",
        ]
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["file", "labels", "early", "fraction", "seed", "derivatives", "a+b"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)
KEYS = st.sampled_from([*own.Description.model_fields, "other", 3])


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(changes=st.dictionaries(KEYS, VALUES, min_size=1, max_size=3), drop=st.booleans())
def test_any_description_is_told_or_read(subjects, tmp_path, changes, drop):
    folder = tmp_path / "lab"
    if not folder.exists():
        shutil.copytree(subjects / "npy", folder, ignore=shutil.ignore_patterns("prepared"))
    tree = yaml.safe_load((subjects / "npy" / "calcarine.yaml").read_text())
    tree = {key: value for key, value in tree.items() if not (drop and key in changes)}
    if not drop:
        tree.update(changes)
    (folder / "calcarine.yaml").write_text(yaml.safe_dump(tree))
    told_or_read(folder, tmp_path)
