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

OPTIONS = {
    "raw": "../..",
    "images": "../../stimuli",
    "test": "../../shared.txt",
    "captions": "../../captions.csv",
    "nuisance": ["button"],
    "rois": {"early": "../../early.nii.gz", "ventral": "../../ventral.nii.gz"},
}
STEM = "sub-01_ses-01_task-pictures_run-1"


@pytest.fixture(scope="session")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("bids") / "study"
    registry.write_fake_dataset("bids", root)
    return root


@pytest.fixture
def study(tree, tmp_path):
    return Path(
        shutil.copytree(tree, tmp_path / "study", ignore=shutil.ignore_patterns("prepared"))
    )


def func(root):
    return root / "derivatives" / "fmriprep" / "sub-01" / "ses-01" / "func"


def describe(root, **changes):
    path = root / "calcarine.yaml"
    about = yaml.safe_load(path.read_text())
    about["bids"].update(changes)
    path.write_text(yaml.safe_dump(about))
    return root


def test_a_ridge_finds_the_planted_signal(tree):
    found = registry.load_dataset("bids", tree)
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
        image.get_fdata()[mask].T,
        events,
        2.0,
        confounds=confounds,
        drift="polynomial",
        start_time=1.0,
    )
    np.testing.assert_allclose(raw[: len(wanted)], wanted, atol=2e-3)
    assert list(found.trial_stimuli[:3]) == [
        Path(name).stem for name in events["stim_file"].dropna()[:3]
    ]


def test_another_tr_is_modelled_anew(study):
    before = bids.load(study).responses.values
    for path in study.glob("derivatives/**/*_bold.json"):
        about = json.loads(path.read_text())
        path.write_text(json.dumps({**about, "StartTime": about["StartTime"] + 0.5}))
    assert not np.allclose(bids.load(study).responses.values, before)


def test_options_say_what_a_description_says(tree, tmp_path):
    root = tree / "derivatives" / "fmriprep"
    described = bids.load(tree, prepared=tmp_path)
    found = registry.load_dataset("bids", root, prepared=tmp_path, **OPTIONS)
    np.testing.assert_array_equal(found.responses.values, described.responses.values)
    assert found.digest() == described.digest()
    assert found.simulated
    assert own.load(tree, prepared=tmp_path).digest() != found.digest()  # another name
    known = {k: v for k, v in OPTIONS.items() if k != "rois"}
    store = registry.prepare_dataset("bids", root, folder=tmp_path, **known)
    assert not store.missing()


def test_folds_of_a_bids_subject(tree, tmp_path):
    root = tree / "derivatives" / "fmriprep"
    options = {**OPTIONS, "test": {"folds": 4}}
    found = registry.load_dataset("bids", root, prepared=tmp_path, **options)
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
    shutil.rmtree(study / "sub-01" / "ses-02")
    about = study / "calcarine.yaml"
    about.write_text(
        about.read_text().replace("session: run", "session: null").replace("shared.txt", "0.2")
    )
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
    (None, {"methods": "lss"}, "there is no key 'bids.methods'; the most similar one is 'method'"),
    (None, {"method": "glm"}, "the key 'bids.method' is wrong"),
    (None, {"stimulus": "trial_type"}, "1 of 1 stimuli have no picture|test|apart|none was shown"),
    (short_confounds, {}, "have [0-9]+ rows and the run [0-9]+ volumes"),
    (other_grid, {}, "runs must be in one space"),
    (rewrite("**/*events.tsv", "onset", "start"), {}, "have no column onset"),
    (rewrite("**/*events.tsv", "\t3.0\t", "\t\t"), {}, "row 1 has no number as its duration"),
    (rewrite("**/*bold.json", "2.0", '"two"'), {}, "TR of .* is unknown"),
    (rewrite("**/*bold.json", "2.0", "0.5"), {}, "and has an event at"),
    (rewrite("calcarine.yaml", '"01"', "03"), {}, "has no folder sub-3; it has 01"),
]


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
    rows = {row.what: row for row in registry.check_dataset("bids", tree)}
    assert {row.status for row in rows.values()} <= {"ok", "note"}
    assert rows["trials"].found == "64 trials in 2 sessions"
    assert "bids" in registry.recognise_datasets(tree)
    remove("**/*_events.tsv")(study)
    assert "wrong" in {row.status for row in bids.check(study)}


def test_events_of_the_task_are_inherited(study):
    folder = study / "sub-01"
    shutil.copy(
        folder / "ses-01" / "func" / f"{STEM}_events.tsv", study / "task-pictures_events.tsv"
    )
    shutil.rmtree(folder)
    about = study / "calcarine.yaml"
    about.write_text(about.read_text().replace("shared.txt", "0.2"))
    found = bids.load(study)
    assert found.trial_stimuli[:16] == found.trial_stimuli[16:32]


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
@pytest.mark.filterwarnings("ignore:.*is not in UTF-8")
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
    with pytest.raises(CalcarineError, match=r"TR of .* is unknown"):
        bids.load(study)


BOLD = f"{STEM}_space-T1w_desc-preproc_bold.nii.gz"
SECOND = STEM.replace("run-1", "run-2")


def events_of(root, stem=STEM):
    return root / "sub-01" / stem.split("_")[1] / "func" / f"{stem}_events.tsv"


def change_events(root, change, stem=STEM):
    path = events_of(root, stem)
    table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    change(table).to_csv(path, sep="\t", index=False)


def notes_of(root):
    return [row.found for row in bids.check(root) if row.what == "left out"]


@pytest.mark.parametrize("place", ["raw", "derivatives"])
def test_a_run_without_time_series_is_named_and_left_out_knowingly(study, place):
    whole = bids.load(study, prepared=study / "a")
    (func(study) / BOLD).unlink()
    if place == "derivatives":
        shutil.move(events_of(study), func(study) / events_of(study).name)
    message = rf"The run of {STEM}_events.tsv has no preprocessed time series"
    with pytest.raises(CalcarineError, match=message):
        bids.load(study)
    (row,) = [row for row in bids.check(study) if row.status == "wrong"]
    assert STEM in row.found
    describe(study, runs_without_bold="drop")
    assert len(bids.load(study).responses) == len(whole.responses) - 16
    assert notes_of(study) == [f"{STEM}_events.tsv: no preprocessed time series"]


def test_a_run_without_time_series_in_the_chosen_space_is_named(study):
    second_space(study)
    (func(study) / BOLD).unlink()
    with pytest.raises(CalcarineError, match=rf"{STEM}_events.tsv has no preprocessed time"):
        bids.load(describe(study, space="T1w"))


def test_events_of_another_task_need_no_time_series(study):
    path = events_of(study)
    shutil.copy(path, path.with_name(path.name.replace("pictures", "rest")))
    assert len(bids.load(describe(study, task=None)).responses) == 64


def test_rows_that_are_no_trials_need_no_times(study):
    wanted = bids.load(study, prepared=study / "a").responses.values
    rows = pd.DataFrame(
        {
            "onset": ["n/a", "5", "n/a"],
            "duration": ["n/a", "n/a", "1"],
            "trial_type": ["instruction", "fixation", "button"],
            "stim_file": ["n/a", "stimuli/dot.png", "n/a"],
        }
    )
    change_events(study, lambda t: pd.concat([rows[:1], t, rows[1:]], ignore_index=True))
    describe(study, ignore=["fixation"])
    np.testing.assert_array_equal(bids.load(study).responses.values, wanted)
    assert notes_of(study) == [
        "ses-01 task-pictures run-1: 1 nuisance events without onset or duration"
    ]


def test_trials_need_times_or_a_word_about_them(study):
    wanted = bids.load(study, prepared=study / "a").responses.values
    change_events(
        study, lambda t: t.assign(duration=t["duration"].where(t["trial_type"] != "picture", "n/a"))
    )
    with pytest.raises(CalcarineError, match=r"row 1 has no number as its duration; say with dur"):
        bids.load(study)
    np.testing.assert_array_equal(bids.load(describe(study, duration=3.0)).responses.values, wanted)
    change_events(study, lambda t: t.assign(onset=t["onset"].where(t.index != 0, "n/a")))
    with pytest.raises(CalcarineError, match="row 1 has no number as its onset"):
        bids.load(study)


def move_pictures(root, places, change_table=True):
    """Pictures to folders below; events name them by path."""
    names = sorted((root / "stimuli").glob("*.png"))
    paths = {}
    for row, path in enumerate(names):
        new = root / "stimuli" / places(row)
        new.parent.mkdir(parents=True, exist_ok=True)
        path.rename(new)
        paths[path.stem] = places(row)
    for stem in (
        STEM,
        SECOND,
        STEM.replace("ses-01", "ses-02"),
        SECOND.replace("ses-01", "ses-02"),
    ):
        change_events(
            root,
            lambda t: t.assign(stim_file=[paths.get(Path(x).stem, x) for x in t["stim_file"]]),
            stem,
        )
    about = yaml.safe_load((root / "calcarine.yaml").read_text())
    about = {**about, "captions": None, "test": 0.25}
    (root / "calcarine.yaml").write_text(yaml.safe_dump(about))
    return paths


def test_pictures_are_found_below_the_folder_by_path(study):
    wanted = bids.load(study, prepared=study / "a")
    pictures = {key: wanted.stimuli.image(key) for key in wanted.stimuli.ids}
    paths = move_pictures(study, lambda row: f"images/{'cat' if row % 2 else 'dog'}/p{row:03d}.png")
    (study / "stimuli" / ".git" / "annex").mkdir(parents=True)
    shutil.copy(study / "stimuli" / "images/dog/p000.png", study / "stimuli" / ".git" / "p000.png")
    found = bids.load(study)
    for old, new in paths.items():
        np.testing.assert_array_equal(found.stimuli.image(Path(new).stem), pictures[old])


def test_equal_names_in_two_folders_keep_their_folders(study):
    wanted = bids.load(study, prepared=study / "a")
    pictures = {key: wanted.stimuli.image(key) for key in wanted.stimuli.ids}
    order = list(wanted.trial_stimuli)
    paths = move_pictures(study, lambda row: f"{'cat' if row % 2 else 'dog'}/{row // 2:03d}.png")
    found = bids.load(study)
    assert list(found.trial_stimuli) == [paths[key].removesuffix(".png") for key in order]
    for old, new in paths.items():
        np.testing.assert_array_equal(found.stimuli.image(new.removesuffix(".png")), pictures[old])
    rows = "".join(f"{new},{new}\n" for new in paths.values())
    (study / "stimuli" / "table.csv").write_text("id,file\n" + rows)
    text = (study / "calcarine.yaml").read_text().replace("stimuli/", "stimuli/table.csv")
    (study / "calcarine.yaml").write_text(text)
    assert list(bids.load(study).trial_stimuli) == [paths[key] for key in order]


def test_equal_names_are_not_merged_where_folders_are_lost(study):
    paths = move_pictures(study, lambda row: f"{'cat' if row % 2 else 'dog'}/{row // 2:03d}.png")
    for new in paths.values():
        if new.startswith("cat"):
            (study / "stimuli" / new).rename(study / "stimuli" / Path(new).name)
    shutil.rmtree(study / "stimuli" / "dog")
    with pytest.raises(CalcarineError, match=r"The events name two pictures \d+: (cat|dog)/"):
        bids.load(study)


def test_a_picture_of_another_folder_is_not_taken(study):
    paths = move_pictures(study, lambda row: f"{'cat' if row % 2 else 'dog'}/{row:03d}.png")
    first = min(paths.values())
    (study / "stimuli" / first).rename(study / "stimuli" / "dog" / Path(first).name)
    with pytest.raises(CalcarineError, match=r"1 of \d+ stimuli have no picture"):
        bids.load(study)


def stop_early(root, keep):
    """A scan that was stopped: fewer volumes and rows of confounds."""
    path = func(root) / BOLD
    image = nib.load(path)
    short = nib.Nifti1Image(np.asarray(image.dataobj)[..., :keep], image.affine, image.header)
    nib.save(short, path)
    path = func(root) / f"{STEM}_desc-confounds_timeseries.tsv"
    path.write_text("\n".join(path.read_text().splitlines()[: keep + 1]) + "\n")


@pytest.mark.parametrize("method", ["lsa", "lss", "mean"])
def test_trials_after_the_end_of_a_stopped_run(study, method):
    stop_early(study, 40)  # of 2 s
    describe(study, method=method, delay=2.0)
    onsets = pd.read_csv(events_of(study), sep="\t").query("trial_type == 'picture'")["onset"]
    late = int((onsets >= 81).sum())
    with pytest.raises(CalcarineError, match=rf"and {late} of its 16 trials begin after its end"):
        bids.load(study)
    assert "wrong" in {row.status for row in bids.check(study)}
    describe(study, late_trials="drop")
    kept = int((onsets < 79 - (2 if method == "mean" else 0)).sum())
    found = bids.load(study)
    assert len(found.responses) == 48 + kept and kept <= 16 - late
    (note,) = notes_of(study)
    assert f"run-1: {16 - kept} of 16 trials that begin after the end of the run, at 81 s" in note


def annex(path, here=True):
    """Turn a file into what DataLad makes of it."""
    root = next(folder for folder in path.parents if (folder / ".git").exists())
    key = (
        root
        / ".git"
        / "annex"
        / "objects"
        / "aa"
        / "bb"
        / f"MD5E-{path.name}"
        / f"MD5E-{path.name}"
    )
    key.parent.mkdir(parents=True)
    path.rename(key)
    path.symlink_to(Path(*[".."] * len(path.relative_to(root).parts[1:])) / key.relative_to(root))
    if not here:
        key.unlink()


@pytest.mark.parametrize("table", [False, True])
def test_links_of_datalad_are_read_or_their_content_asked_for(study, table):
    wanted = bids.load(study, prepared=study / "a")
    (study / ".git").mkdir()
    if table:
        rows = "".join(f"{p.stem},{p.name}\n" for p in (study / "stimuli").glob("*.png"))
        (study / "stimuli" / "table.csv").write_text("id,file\n" + rows)
        text = (study / "calcarine.yaml").read_text().replace("stimuli/", "stimuli/table.csv")
        (study / "calcarine.yaml").write_text(text)
    first, second = (study / "stimuli" / f"{key}.png" for key in wanted.stimuli.ids[:2])
    annex(first)
    for path in (events_of(study), func(study) / BOLD):
        annex(path)
    found = bids.load(study)
    np.testing.assert_array_equal(found.stimuli.images(), wanted.stimuli.images())
    np.testing.assert_array_equal(found.responses.values, wanted.responses.values)
    annex(second, here=False)
    with pytest.raises(CalcarineError, match=rf"run 'datalad get .*{second.name}'"):
        bids.load(study)


@pytest.mark.parametrize("name", ["bold", "events", "mask", "mine"])
def test_files_whose_content_was_not_fetched_are_asked_for(study, name):
    (study / ".git").mkdir()
    path = {
        "bold": func(study) / BOLD,
        "events": events_of(study),
        "mine": study / "early.nii.gz",
        "mask": func(study) / f"{STEM}_space-T1w_desc-brain_mask.nii.gz",
    }[name]
    annex(path, here=False)
    with pytest.raises(CalcarineError, match=rf"run 'datalad get .*{path.name}'"):
        bids.load(study)


def test_other_links_out_of_a_folder_of_pictures_are_refused(study, tmp_path):
    key = bids.load(study, prepared=study / "a").stimuli.ids[0]
    picture = study / "stimuli" / f"{key}.png"
    rows = "".join(f"{p.stem},{p.name}\n" for p in (study / "stimuli").glob("*.png"))
    (study / "stimuli" / "table.csv").write_text("id,file\n" + rows)
    text = (study / "calcarine.yaml").read_text().replace("stimuli/", "stimuli/table.csv")
    (study / "calcarine.yaml").write_text(text)
    # Elsewhere, and in the annex of another data set.
    for place in (tmp_path / "x.png", tmp_path / "other/.git/annex/objects/a/x.png"):
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(picture.resolve(), place)
        picture.unlink()
        picture.symlink_to(place)
        with pytest.raises(CalcarineError, match="lies outside the folder"):
            bids.load(study)
