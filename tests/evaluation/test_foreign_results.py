"""Reconstructions as other systems write them: stacks, names of files, predictions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from calcarine.audit.folders import inputs_from_folders
from calcarine.audit.inputs import TrialTable
from calcarine.audit.trial_files import read_responses
from calcarine.cli.main import app
from calcarine.errors import CalcarineError
from calcarine.evaluation.inputs.array_files import align_rows, read_arrays, read_stack
from calcarine.evaluation.inputs.folders import open_folders
from calcarine.evaluation.scoring.score import score_arrays, score_folder
from calcarine.evaluation.scoring.settings import ScoreSettings
from calcarine.experiment.dataset_splits import stimulus_features
from calcarine.stimuli import StimulusSet

N, SIDE = 12, 10
FAST = ScoreSettings(n_boot=20, n_permutations=19)


@pytest.fixture(scope="module")
def truth():
    return np.random.default_rng(0).integers(0, 256, (N, SIDE, SIDE, 3), np.uint8)


@pytest.fixture(scope="module")
def made(truth):
    noise = np.random.default_rng(1).integers(0, 256, (3, N, SIDE, SIDE, 3), np.uint8)
    return (truth[None] // 2 + noise // 2).swapaxes(0, 1)


def put(folder, names, pictures):
    folder.mkdir(exist_ok=True, parents=True)
    for name, picture in zip(names, pictures, strict=True):
        Image.fromarray(picture).save(folder / f"{name}.png")
    return folder


def read_all(found):
    (method,) = found.methods.values()
    return np.stack([[method.read(i, s) for s in range(method.samples)] for i in range(N)])


def layouts(made):
    first = np.moveaxis(made, -1, -3)
    return {
        "last": made,
        "first": first,
        "half": torch.from_numpy(first / np.float32(255)).half(),
        "floats": torch.from_numpy(made / np.float32(255)),
        "one sample": torch.from_numpy(first[:, 0].copy()),
    }


@pytest.mark.parametrize("kind", ["last", "first", "half", "floats", "one sample"])
@pytest.mark.parametrize("end", ["npy", "npz", "pt"])
def test_stacks_are_read_in_any_order_of_channels(tmp_path, truth, made, kind, end):
    stack = layouts(made)[kind]
    for name, array in (("truth", truth), ("made", stack)):
        path = tmp_path / f"{name}.{end}"
        if end == "pt":
            torch.save(torch.as_tensor(array), path)
        else:
            (np.save if end == "npy" else np.savez)(path, np.asarray(array))
    found = open_folders(tmp_path / f"truth.{end}", tmp_path / f"made.{end}", None, None)
    pictures = read_all(found)
    wanted = made[:, :1] if kind == "one sample" else made
    as_bytes = pictures if pictures.dtype == np.uint8 else np.rint(pictures * 255)
    np.testing.assert_array_equal(as_bytes, wanted)
    assert list(found.methods) == ["made"] and found.test.ids == [str(i) for i in range(N)]
    material = inputs_from_folders(tmp_path / f"made.{end}", tmp_path / f"truth.{end}")
    np.testing.assert_array_equal(material.recon.full(3), made[3, 0])


def test_a_stack_and_a_folder_score_alike(tmp_path, truth, made):
    put(tmp_path / "truth", range(N), truth)
    put(tmp_path / "recon", [f"{i:04}" for i in range(N)], made[:, 0])
    torch.save(torch.from_numpy(np.moveaxis(made[:, 0], -1, 1).copy()), tmp_path / "recon.pt")
    np.save(tmp_path / "truth.npy", truth / np.float32(255))
    results = [
        score_folder(tmp_path / a, tmp_path / b, method="m", settings=FAST)
        for a, b in (
            ("truth", "recon"),
            ("truth", "recon.pt"),
            ("truth.npy", "recon"),
            ("truth.npy", "recon.pt"),
        )
    ]
    own = [record for record in results[0].records if record["role"] == "method"]
    first = {record["metric"]: (record["value"], record["data"]) for record in own}
    for result in results[1:]:
        for record in result.records:
            if record["role"] == "method":
                value, data = first[record["metric"]]
                # The truth as floats is not rounded by resizing.
                assert record["value"] == pytest.approx(value, abs=2e-3)
                assert record["data"] == data


def test_score_arrays_takes_tensors_in_any_order(truth, made):
    plain = score_arrays(truth, made, n_boot=20, n_permutations=19)
    tensors = score_arrays(
        torch.from_numpy(np.moveaxis(truth, -1, 1).copy()),
        torch.from_numpy(np.moveaxis(made, -1, 2).copy()),
        n_boot=20,
        n_permutations=19,
    )
    assert [r["value"] for r in plain.records] == [r["value"] for r in tensors.records]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((4, 2, 5, 5), r"shape \(4, 2, 5, 5\)"),
        ((4, 5, 5, 2), r"shape \(4, 5, 5, 2\)"),
        ((4, 4, 5, 5), r"shape \(4, 4, 5, 5\)"),
        ((4, 3, 5, 3), r"that of 3 before the pixels or that of 3 after"),
        ((4, 2, 3, 5, 1), r"that of 3 before the pixels or that of 1 after"),
        ((4, 5), r"shape \(4, 5\)"),
        ((0, 5, 5, 3), r"shape \(0, 5, 5, 3\)"),
    ],
)
def test_shapes_that_are_not_clear_are_refused_as_they_were_given(shape, message):
    with pytest.raises(CalcarineError, match=message):
        score_arrays(np.zeros(shape, np.uint8), np.zeros(shape, np.uint8))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.astype(np.int64), "int64 from 0 to 25"),
        (lambda x: x.astype(np.uint16), "uint16 from 0 to 25"),
        (lambda x: x / 127.5 - 1, r"float64 from -1 to"),
        (lambda x: np.where(x == x.max(), np.nan, x / 255), "not finite"),
        (lambda x: x.astype(str), "give uint8"),
    ],
)
def test_values_that_are_no_pictures_are_refused(truth, change, message):
    with pytest.raises(CalcarineError, match=message):
        score_arrays(change(truth), truth)


def test_grey_and_16_bit_stacks(truth):
    grey = truth[..., 0]
    plain = score_arrays(np.repeat(grey[..., None], 3, 3), truth, n_boot=20, n_permutations=19)
    for other in (grey, grey[..., None], grey[:, None], grey.astype(np.uint16) * 257):
        found = score_arrays(other, truth, n_boot=20, n_permutations=19)
        assert [r["value"] for r in found.records] == [r["value"] for r in plain.records]


def test_files_that_are_no_stacks_are_one_sentence(tmp_path, truth):
    np.savez(tmp_path / "two.npz", a=truth, b=truth)
    np.save(tmp_path / "objects.npy", np.array([1, "a"], object), allow_pickle=True)
    (tmp_path / "text.npy").write_text("no array")
    (tmp_path / "text.pt").write_text("no tensor")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "two.npz").read_bytes()[:200])
    torch.save({"a": 1}, tmp_path / "dict.pt")
    torch.save(ScoreSettings(), tmp_path / "object.pt")
    for name, message in (
        ("two.npz", r"has 2 \(a, b\)"),
        ("objects.npy", "Python objects"),
        ("text.npy", "cannot be read"),
        ("text.pt", "cannot be read"),
        ("cut.npz", "cannot be read"),
        ("dict.pt", "no tensor"),
        ("object.pt", "Python objects"),
        ("none.npy", "check its name"),
    ):
        with pytest.raises(CalcarineError, match=rf"{name}.*{message}") as told:
            read_stack(tmp_path / name)
        assert "\n" not in str(told.value)
    torch.save({"recons": torch.from_numpy(truth)}, tmp_path / "named.pt")
    assert read_stack(tmp_path / "named.pt").shape == truth.shape
    torch.save([torch.from_numpy(picture) for picture in truth], tmp_path / "list.pt")
    assert read_stack(tmp_path / "list.pt").shape == truth.shape
    torch.save(torch.ones(2, 3, dtype=torch.bfloat16), tmp_path / "b.pt")
    assert read_stack(tmp_path / "b.pt").dtype == np.float32


PLAIN = [str(i) for i in range(N)]
PADDED = [f"{i:05}" for i in range(N)]


@pytest.mark.parametrize(
    ("truths", "names", "note"),
    [
        (PLAIN, PLAIN, None),
        (PADDED, PLAIN, "'0' with '00000'"),
        (PLAIN, PADDED, "'00000' with '0'"),
        ([f"Img_{i}" for i in PADDED], [f"img_{i}" for i in PLAIN], "zeros, case or form"),
        ([f"gt_{i}" for i in PLAIN], [f"recon_{i}" for i in PADDED], "by their numbers"),
    ],
)
def test_names_that_mean_the_same_are_paired(tmp_path, truth, made, truths, names, note):
    put(tmp_path / "t", truths, truth)
    put(tmp_path / "m", names, made[:, 0])
    found = open_folders(tmp_path / "t", tmp_path / "m", None, None)
    order = [truths.index(key) for key in found.test.ids]
    np.testing.assert_array_equal(read_all(found)[:, 0], made[order, 0])
    assert (not found.notes) if note is None else (note in found.notes[0])
    put(
        tmp_path / "s",
        [f"{name}_{s}" for name in names for s in range(3)],
        made.reshape(-1, SIDE, SIDE, 3),
    )
    if "by their numbers" not in str(note):
        found = open_folders(tmp_path / "t", tmp_path / "s", None, None)
        np.testing.assert_array_equal(read_all(found), made[order])


def takagi(folder, truth, made):
    put(folder, [f"{name}_org" for name in PADDED], truth)
    names = [f"{name}_{s:03}" for name in PADDED for s in range(3)]
    return put(folder, names, made.reshape(-1, SIDE, SIDE, 3))


def mind_vis(folder, truth, made):
    put(folder, [f"test{i}-0" for i in range(N)], truth)
    names = [f"test{i}-{s + 1}" for i in range(N) for s in range(3)]
    return put(folder, names, made.reshape(-1, SIDE, SIDE, 3))


@pytest.mark.parametrize("system", [takagi, mind_vis])
@pytest.mark.parametrize("truths", [PLAIN, PADDED, None])
def test_folders_of_takagi_and_of_mind_vis(tmp_path, truth, made, system, truths):
    folder = system(tmp_path / "samples", truth, made)
    seen = folder if truths is None else put(tmp_path / "truth", truths, truth)
    found = open_folders(seen, folder, None, None)
    order = [int("".join(c for c in key if c.isdecimal())) for key in found.test.ids]
    assert sorted(order) == list(range(N))
    np.testing.assert_array_equal(read_all(found), made[order])
    np.testing.assert_array_equal(found.test.truth.read(3, 0), truth[order[3]])
    assert any(
        "are those of ground truths" in note or "The ground truths are" in note
        for note in found.notes
    )
    result = score_folder(seen, folder, settings=FAST)
    assert result.notes[: len(found.notes)] == list(found.notes)


def test_a_stray_picture_and_two_of_one_name_are_refused(tmp_path, truth, made):
    put(tmp_path / "t", PLAIN, truth)
    put(tmp_path / "m", [*PLAIN, "grid"], [*made[:, 0], truth[0]])
    with pytest.raises(CalcarineError, match=r"1 of 13 pictures .* first 'grid'"):
        open_folders(tmp_path / "t", tmp_path / "m", None, None)
    (tmp_path / "m" / "grid.png").rename(tmp_path / "m" / "007.png")
    with pytest.raises(CalcarineError, match=r"7.png and 7.png .*same sample of '7'"):
        open_folders(tmp_path / "t", tmp_path / "m", None, None)
    put(tmp_path / "u", ["1", "01"], truth[:2])
    put(tmp_path / "v", ["1", "001"], truth[:2])
    with pytest.raises(CalcarineError, match="no picture in"):
        open_folders(tmp_path / "u", tmp_path / "v", None, None)


def test_rows_of_a_stack_are_never_given_to_other_names(tmp_path, truth, made):
    put(tmp_path / "t", [f"nsd{i}" for i in range(N)], truth)
    np.save(tmp_path / "m.npy", made[:, 0])
    with pytest.raises(CalcarineError, match="not named 0 to 11"):
        open_folders(tmp_path / "t", tmp_path / "m.npy", None, None)
    np.save(tmp_path / "m.npy", made[:-1, 0])
    with pytest.raises(CalcarineError, match=r"12 ground truths and .* 11 pictures"):
        open_folders(tmp_path / "t", tmp_path / "m.npy", None, None)
    (tmp_path / "f.txt").write_text("")
    with pytest.raises(CalcarineError, match=r"f.txt is a file; give a folder"):
        open_folders(tmp_path / "t", tmp_path / "f.txt", None, None)


def test_rows_without_names_follow_numbers_or_are_refused():
    rows = np.arange(N)[:, None]
    ids = sorted(PLAIN)
    assert align_rows({"x": rows}, ids)["x"][:, 0].tolist() == [int(key) for key in ids]
    assert align_rows({"x": rows}, PADDED)["x"][:, 0].tolist() == list(range(N))
    letters = ["b", "c", "a"]
    assert align_rows({"x": rows[:3]}, letters)["x"][:, 0].tolist() == [1, 2, 0]
    named = {"x": rows[:3], "ids": np.array(["a.png", "b.png", "c.png"])}
    assert align_rows(named, letters)["x"][:, 0].tolist() == [1, 2, 0]
    with pytest.raises(CalcarineError, match="have different orders as text and as numbers"):
        align_rows({"x": rows}, [f"img{i}" for i in range(N)])
    with pytest.raises(CalcarineError, match="also the missing 'c'"):
        align_rows({"x": rows[:2], "ids": np.array(["a", "b"])}, ["a", "c"])


def test_features_and_responses_may_be_in_any_of_these_files(tmp_path):
    values = np.random.default_rng(3).normal(size=(4, 5))
    np.save(tmp_path / "v.npy", values)
    np.savez(tmp_path / "v.npz", responses=values)
    torch.save(torch.from_numpy(values), tmp_path / "v.pt")
    stimuli = StimulusSet.from_arrays(np.zeros((4, 6, 6, 3), np.uint8), list("abcd"))
    trials = TrialTable(stimulus=np.array(list("abcd")))
    for name in ("v.npy", "v.npz", "v.pt"):
        rows = stimulus_features(str(tmp_path / name))(stimuli, ("d", "b"))
        np.testing.assert_array_equal(rows, values[[3, 1]])
        _, responses, _ = read_responses(tmp_path / name, trials)
        np.testing.assert_array_equal(responses, values)
    np.save(tmp_path / "t.npy", np.array([list("abcd")] * 4))
    with pytest.raises(CalcarineError, match="needs one row for each of the 4 stimuli"):
        stimulus_features(str(tmp_path / "t.npy"))(stimuli, ("a",))


def test_predictions_may_be_one_array(tmp_path, truth, made):
    put(tmp_path / "t", PLAIN, truth)
    put(tmp_path / "m", PLAIN, made[:, 0])
    values = np.random.default_rng(2).normal(size=(N, 5))
    np.save(tmp_path / "p.npy", values)
    np.savez(tmp_path / "p.npz", predictions=values, ids=np.arange(N))
    torch.save(torch.from_numpy(values), tmp_path / "p.pt")
    for name in ("p.npy", "p.npz", "p.pt"):
        found = inputs_from_folders(tmp_path / "m", tmp_path / "t", predictions=tmp_path / name)
        order = [int(key) for key in found.truth.ids]
        np.testing.assert_array_equal(found.predictions[0].values, values[order])
    np.savez(tmp_path / "o.npz", predictions=values, ids=np.array(PLAIN, object))
    with pytest.raises(CalcarineError, match=r"o.npz: the array 'ids' contains Python objects"):
        inputs_from_folders(tmp_path / "m", tmp_path / "t", predictions=tmp_path / "o.npz")
    with pytest.raises(CalcarineError, match=r"one array without a name, of shape \(12, 5\)"):
        read_arrays(tmp_path / "p.npy")
    result = CliRunner().invoke(
        app,
        [
            "score",
            "--truth",
            str(tmp_path / "t"),
            "--images",
            str(tmp_path / "m"),
            "--inputs",
            str(tmp_path / "p.npz"),
        ],
    )
    assert result.exit_code == 0, result.output
    assert "No metric uses the arrays predictions" in " ".join(result.output.split())


def test_a_folder_without_pictures_is_named(tmp_path, made):
    put(tmp_path / "made", PLAIN, made[:, 0])
    (tmp_path / "seen").mkdir()
    (tmp_path / "seen" / "digits.mat").write_bytes(b"")
    with pytest.raises(
        CalcarineError, match=r"seen has no pictures .* folder of the ground truths"
    ):
        score_folder(tmp_path / "seen", tmp_path / "made", settings=FAST)
