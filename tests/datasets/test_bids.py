import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calcarine.datasets import bids, own, registry
from calcarine.datasets.prepare.events import trial_betas
from calcarine.errors import CalcarineError
from calcarine.linear import RidgeCV

OPTIONS = {"raw": "../..", "images": "../../stimuli", "test": "../../shared.txt",
           "captions": "../../captions.csv", "nuisance": ["button"],
           "rois": {"early": "../../early.nii.gz", "ventral": "../../ventral.nii.gz"}}  # fmt: skip
STEM = "sub-01_ses-01_task-pictures_run-1"


@pytest.fixture(scope="session")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("bids") / "study"
    registry.fake("bids", root)
    return root


@pytest.fixture
def study(tree, tmp_path):
    return Path(shutil.copytree(tree, tmp_path / "study",
                                ignore=shutil.ignore_patterns("prepared")))  # fmt: skip


def func(root):
    return root / "derivatives" / "fmriprep" / "sub-01" / "ses-01" / "func"


def describe(root, **changes):
    path = root / "calcarine.yaml"
    about = yaml.safe_load(path.read_text())
    about["bids"].update(changes)
    path.write_text(yaml.safe_dump(about))
    return root


def test_a_ridge_finds_the_planted_signal(tree):
    found = registry.load("bids", tree)
    assert found.simulated
    assert found.describe()["sessions"] == 2
    train, test = found.train(), found.test()

    def pixels(ids):
        return found.stimuli.images(ids)[:, ::11, ::11].reshape(len(ids), -1) / 255.0

    ridge = RidgeCV(alphas=np.logspace(-1, 5, 13))
    ridge.fit(train.data, pixels(train.stimulus_ids), groups=train.stimulus_ids)
    guess, truth = ridge.predict(test.data), pixels(test.stimulus_ids)
    both = np.corrcoef(guess - guess.mean(0), truth - truth.mean(0))[: len(guess), len(guess) :]
    assert np.diag(both).mean() > 0.5 > 0.1 > both[~np.eye(len(guess), dtype=bool)].mean()


def test_responses_are_those_of_a_run_modelled_by_hand(study):
    found = bids.load(describe(study, confounds=["motion"]))
    raw = found.scaling.undo(found.responses.values, found.sessions, np.arange(found.n_voxels))
    stem = func(study) / STEM
    image = nib.load(f"{stem}_space-T1w_desc-preproc_bold.nii.gz")
    mask = np.asarray(nib.load(f"{stem}_space-T1w_desc-brain_mask.nii.gz").dataobj) > 0
    events = pd.read_csv(study / "sub-01/ses-01/func" / f"{STEM}_events.tsv", sep="\t")
    confounds = pd.read_csv(f"{stem}_desc-confounds_timeseries.tsv", sep="\t").iloc[:, :6]
    events["nuisance"] = events["trial_type"].where(events["trial_type"] == "button", "")
    wanted = trial_betas(
        image.get_fdata()[mask].T, events, 2.0, confounds=confounds, drift="polynomial",
        start_time=1.0,
    )  # fmt: skip
    np.testing.assert_allclose(raw[: len(wanted)], wanted, atol=2e-3)
    assert list(found.trial_stimuli[:3]) == [
        Path(name).stem for name in events["stim_file"].dropna()[:3]]  # fmt: skip


def test_another_tr_is_modelled_anew(study):
    before = bids.load(study).responses.values
    for path in study.glob("derivatives/**/*_bold.json"):
        about = json.loads(path.read_text())
        path.write_text(json.dumps({**about, "StartTime": about["StartTime"] + 0.5}))
    assert not np.allclose(bids.load(study).responses.values, before)


def test_options_say_what_a_description_says(tree, tmp_path):
    root = tree / "derivatives" / "fmriprep"
    described = bids.load(tree, prepared=tmp_path)
    found = registry.load("bids", root, prepared=tmp_path, **OPTIONS)
    np.testing.assert_array_equal(found.responses.values, described.responses.values)
    assert found.digest() == described.digest()
    assert found.simulated
    assert own.load(tree, prepared=tmp_path).digest() != found.digest()  # another name
    known = {k: v for k, v in OPTIONS.items() if k != "rois"}
    store = registry.prepare("bids", root, folder=tmp_path, **known)
    assert not store.missing()


def test_folds_of_a_bids_subject(tree, tmp_path):
    root = tree / "derivatives" / "fmriprep"
    options = {**OPTIONS, "test": {"folds": 4}}
    found = registry.load("bids", root, prepared=tmp_path, **options)
    assert [split.name for split in found.splits] == [f"fold-{k:02d}" for k in range(4)]
    tested = [key for split in found.splits for key in split.test]
    assert sorted(tested) == sorted(set(found.trial_stimuli))
    for split in found.splits:
        rows, columns = found.trials_of(split.train), np.arange(found.n_voxels)
        values = found.read_trials(rows, columns, split)
        for session in np.unique(found.sessions):
            np.testing.assert_allclose(values[found.sessions[rows] == session].std(0), 1, atol=1e-3)


def test_the_check_finds_nan_in_every_session(study):
    (path, *_) = sorted(study.glob("derivatives/**/ses-02/func/*_desc-preproc_bold.nii.gz"))
    image = nib.load(path)
    values = image.get_fdata(dtype=np.float32)
    values[tuple(size // 2 for size in values.shape[:3])] = np.nan
    nib.save(nib.Nifti1Image(values, image.affine), path)
    with pytest.raises(CalcarineError, match="hold NaN or infinity"):
        bids.load(study)
    assert any("hold NaN" in row.found for row in bids.check(study) if row.status == "wrong")


def test_runs_are_sessions_where_there_is_one_session(study):
    assert set(bids.load(describe(study, session="run")).sessions) == {1, 2, 3, 4}
    shutil.rmtree(func(study).parent.parent / "ses-02")
    about = study / "calcarine.yaml"
    about.write_text(about.read_text().replace("session: run", "session: null")
                     .replace("shared.txt", "0.2"))  # fmt: skip
    assert set(bids.load(study).sessions) == {1, 2}


def test_cosines_of_the_table_take_the_place_of_our_own(study):
    path = func(study) / f"{STEM}_desc-confounds_timeseries.tsv"
    ours = bids.load(study).responses.values
    table = pd.read_csv(path, sep="\t")
    length = len(table)
    for row in range(2):
        table[f"cosine{row:02d}"] = np.cos(np.pi * (row + 1) * (np.arange(length) + 0.5) / length)
    table.to_csv(path, sep="\t", index=False, na_rep="n/a")
    theirs = bids.load(study).responses.values
    assert np.corrcoef(ours[:16].ravel(), theirs[:16].ravel())[0, 1] > 0.9
    assert not np.allclose(ours[:16], theirs[:16], atol=1e-3)


def remove(pattern):
    def change(root):
        for path in root.glob(pattern):
            path.unlink()

    return change


def rewrite(pattern, old, new):
    def change(root):
        for path in root.glob(pattern):
            path.write_text(path.read_text().replace(old, new))

    return change


def second_space(root):
    for path in func(root).glob("*space-T1w*"):
        shutil.copy(path, path.with_name(path.name.replace("space-T1w", "space-MNI")))


def short_confounds(root):
    path = func(root) / f"{STEM}_desc-confounds_timeseries.tsv"
    path.write_text("\n".join(path.read_text().splitlines()[:-3]))


def other_grid(root):
    path = func(root) / f"{STEM}_space-T1w_desc-brain_mask.nii.gz"
    nib.save(nib.Nifti1Image(np.ones((3, 4, 5), np.uint8), np.eye(4)), path)


MISTAKES = [
    (remove("**/*_events.tsv"), {}, "There are no events of sub-01_ses-01.* say with raw"),
    (remove("**/*brain_mask*"), {}, "no brain mask of ses-01 task-pictures run-1"),
    (remove("**/*preproc_bold.nii.gz"), {}, "has no func/.*_bold.nii.gz; run fMRIPrep"),
    (remove("**/*confounds*"), {}, "no confounds of .*, and motion are wanted"),
    (second_space, {}, "There are several spaces, MNI, T1w; say which with space"),
    (None, {"space": "fsnative"}, "There is no space fsnative; there are T1w"),
    (None, {"task": "rest"}, "There is no task rest; there are pictures"),
    (None, {"confounds": ["movement"]}, "have no movement; there are the groups motion"),
    (None, {"stimulus": "picture"}, "no column picture; they have onset, duration"),
    (None, {"derivatives": "fmriprep"}, "The derivatives folder .* does not exist"),
    (None, {"methods": "lss"}, "there is no key 'bids.methods'; did you mean method"),
    (None, {"method": "glm"}, "the key 'bids.method' is wrong"),
    (None, {"stimulus": "trial_type"}, "1 of 1 stimuli have no picture|test|apart|none was shown"),
    (short_confounds, {}, "have [0-9]+ rows and the run [0-9]+ volumes"),
    (other_grid, {}, "runs must be in one space"),
    (rewrite("**/*events.tsv", "onset", "start"), {}, "have no column onset"),
    (rewrite("**/*events.tsv", "\t3.0\t", "\t\t"), {}, "row 1 has no number as its duration"),
    (rewrite("**/*bold.json", "2.0", '"two"'), {}, "TR of .* cannot be told"),
    (rewrite("**/*bold.json", "2.0", "0.5"), {}, "and has an event at"),
    (rewrite("calcarine.yaml", '"01"', "03"), {}, "has no folder sub-3; it has 01"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "keys", "message"), MISTAKES)
def test_each_mistake_is_told_in_one_sentence(study, change, keys, message):
    describe(study, **keys)
    if change:
        change(study)
    if "sub-3" in message:
        about = study / "calcarine.yaml"
        about.write_text(about.read_text().replace("'01'", "3"))
    with pytest.raises(CalcarineError, match=message) as told:
        bids.load(study)
    assert "\n" not in str(told.value)


def test_what_a_folder_alone_does_not_say_is_asked_for(tree, tmp_path):
    root = tree / "derivatives" / "fmriprep"
    with pytest.raises(CalcarineError, match="Say where the pictures are with the option images"):
        bids.load(root)
    other = Path(shutil.copytree(root, tmp_path / "two"))
    (other / "sub-02").mkdir()
    with pytest.raises(CalcarineError, match=r"has 2 subjects \(01, 02\); say which"):
        bids.load(other, **OPTIONS)
    with pytest.raises(CalcarineError, match="has no func/"):
        bids.load(other, "sub-02", **OPTIONS)


def test_a_check_says_what_there_is(tree, study):
    rows = {row.what: row for row in registry.check("bids", tree)}
    assert {row.status for row in rows.values()} <= {"ok", "note"}
    assert rows["trials"].found == "64 trials in 2 sessions"
    assert "bids" in registry.recognise(tree)
    remove("**/*_events.tsv")(study)
    assert "wrong" in {row.status for row in bids.check(study)}


def test_events_of_the_task_are_inherited(study):
    folder = study / "sub-01"
    shutil.copy(folder / "ses-01" / "func" / f"{STEM}_events.tsv",
                study / "task-pictures_events.tsv")  # fmt: skip
    shutil.rmtree(folder)
    about = study / "calcarine.yaml"
    about.write_text(about.read_text().replace("shared.txt", "0.2"))
    found = bids.load(study)
    assert found.trial_stimuli[:16] == found.trial_stimuli[16:32]


@settings(max_examples=25, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(data=st.data())
def test_damaged_files_are_told_or_read(tree, tmp_path, data):
    root = tmp_path / "study"
    if not root.exists():
        shutil.copytree(tree, root, ignore=shutil.ignore_patterns("prepared"))
    events = root / "sub-01/ses-01/func" / f"{STEM}_events.tsv"
    files = [*sorted(func(root).glob(f"{STEM}*")), events, root / "calcarine.yaml"]
    path = data.draw(st.sampled_from(files))
    whole = path.read_bytes()
    damaged = bytearray(whole)
    if data.draw(st.booleans()):
        damaged = damaged[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        near = st.integers(0, min(len(whole), 1500) - 1)
        for place in data.draw(st.lists(near, min_size=1, max_size=5)):
            damaged[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(damaged)
    try:
        about = bids.recording(root)
        assert np.isfinite(about.read(1)).all()
    except CalcarineError as error:
        assert "\n" not in str(error)
    finally:
        path.write_bytes(whole)


def test_a_sidecar_that_is_no_mapping_is_told(study):
    path = func(study) / f"{STEM}_space-T1w_desc-preproc_bold.json"
    path.write_text(json.dumps([2.0]))
    with pytest.raises(CalcarineError, match=r"TR of .* cannot be told"):
        bids.load(study)
