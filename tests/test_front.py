"""The names that `import calcarine` offers, and what importing it costs."""

from __future__ import annotations

import ast
import inspect
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import calcarine as ca
from calcarine.errors import CalcarineError
from calcarine.stimuli import StimulusSet

NAMES = {
    "BandedRidgeCV",
    "BrainDataset",
    "EmbeddingRegression",
    "LatentDiffusion",
    "LatentRegression",
    "PixelRegression",
    "Reconstructor",
    "RidgeCV",
    "Split",
    "StimulusSet",
    "VisDec",
    "__version__",
    "audit",
    "encode",
    "load_dataset",
    "retrieve",
    "run_experiment",
    "score",
    "show",
}
HERE = Path(ca.__file__).parent


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_dir_shows_the_public_names_and_each_is_there():
    assert set(dir(ca)) == NAMES == set(ca.__all__)
    for name in NAMES - {"__version__"}:
        assert callable(getattr(ca, name)), name
    assert ca.RidgeCV is import_module("calcarine.linear").RidgeCV


def test_the_stub_for_editors_declares_the_same_names():
    tree = ast.parse((HERE / "__init__.pyi").read_text())
    stub = {
        alias.asname: (node.module, alias.name)
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(stub) == NAMES - {"__version__"}
    for name, (module, original) in stub.items():
        if name != "audit":
            assert getattr(import_module(module), original) is getattr(ca, name)
    assert (HERE / "py.typed").exists()


def test_importing_the_package_loads_nothing_heavy_and_is_fast():
    code = (
        "import sys, time; began = time.perf_counter(); import calcarine; dir(calcarine); "
        "took = time.perf_counter() - began; "
        "heavy = {'torch', 'pandas', 'xarray', 'numpy', 'scipy', 'sklearn', 'matplotlib'}; "
        "print(took, *sorted(heavy & set(sys.modules)))"
    )
    results = [run(code).split() for _ in range(3)]
    assert [heavy for _, *heavy in results] == [[], [], []]
    assert min(float(took) for took, *_ in results) < 0.15


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ca.nothing
    assert not hasattr(ca, "_nothing")


def test_sub_packages_are_loaded_when_they_are_used():
    assert run("import calcarine as ca; print(ca.stimuli.StimulusSet.__name__)") == "StimulusSet"


@pytest.mark.parametrize(
    "first",
    [
        "import calcarine.audit",
        "from calcarine.audit import list_checks",
        "import calcarine; calcarine.audit",
        "from calcarine import audit",
        "import calcarine.experiment",
    ],
)
def test_audit_is_a_function_and_a_package_whatever_is_imported_first(first):
    code = f"""
{first}
import calcarine as ca
import calcarine.audit as package
from calcarine import audit
assert ca.audit is package is audit
assert callable(ca.audit)
assert isinstance(ca.audit.CHECKS, dict)
from calcarine.errors import CalcarineError
try:
    ca.audit("nowhere", "nothing")
except CalcarineError as error:
    print(error)
"""
    assert "noth" in run(code) or "nowhere" in run(code)
    assert list(inspect.signature(ca.audit).parameters)[:2] == ["results", "truth"]


def test_scores_arrays_stimuli_and_folders_alike(tmp_path):
    from PIL import Image

    seen = StimulusSet.from_scenes(seed=3, indices=range(6), size=32)
    made = np.roll(seen.images(), 3, axis=1)
    options = {"judge": None, "n_boot": 100, "n_permutations": 100}
    scores = ca.score(made, seen, **options)
    assert list(scores.pictures) == list(seen.ids)
    named = ca.score(made, seen.images(), ids=seen.ids, protocols="calcarine", **options)
    for folder, pictures in (("seen", seen.images()), ("made", made)):
        (tmp_path / folder).mkdir()
        for name, picture in zip(seen.ids, pictures, strict=True):
            Image.fromarray(picture).save(tmp_path / folder / f"{name}.png")
    files = ca.score(str(tmp_path / "made"), tmp_path / "seen", method="reconstructions", **options)
    values = [[row["value"] for row in one.records] for one in (scores, named, files)]
    assert values[0] == values[1] == values[2]


def test_score_says_what_it_needs(tmp_path):
    pictures = np.zeros((3, 8, 8, 3), np.uint8)
    with pytest.raises(CalcarineError, match="needs the pictures that were seen"):
        ca.score(pictures)
    with pytest.raises(CalcarineError, match="truth must be an array"):
        ca.score(pictures, str(tmp_path))
    with pytest.raises(CalcarineError, match="truth must be a folder"):
        ca.score(str(tmp_path), pictures)
    with pytest.raises(CalcarineError, match="leave ids out"):
        ca.score(tmp_path, tmp_path, ids=["a"])


def test_audits_inputs_and_folders_alike(tmp_path):
    from PIL import Image

    from calcarine.audit.folders import inputs_from_folders

    seen = StimulusSet.from_scenes(seed=3, indices=range(4), size=32).images()
    for folder, pictures in (("seen", seen), ("made", np.roll(seen, 3, axis=1))):
        (tmp_path / folder).mkdir()
        for number, picture in enumerate(pictures):
            Image.fromarray(picture).save(tmp_path / folder / f"{number}.png")
    made, truth = tmp_path / "made", tmp_path / "seen"
    only = ["truth-copies", "best-of-samples"]
    found = ca.audit(str(made), str(truth), train=str(truth), only=only)
    same = ca.audit(inputs_from_folders(made, truth, train=truth), only=only)
    assert list(found.findings) == only
    assert found.content() == same.content()
    with pytest.raises(CalcarineError, match="train is for a folder"):
        ca.audit(inputs_from_folders(made, truth), train=truth)
    with pytest.raises(CalcarineError, match="is not a run"):
        ca.audit(tmp_path)


@pytest.mark.parametrize(
    ("pictures", "shape"),
    [
        (np.zeros((8, 8, 3), np.uint8), (1, 1)),
        (np.zeros((8, 8)), (1, 1)),
        (np.zeros((5, 8, 8, 3)), (1, 5)),
        (np.zeros((5, 8, 8), np.uint8), (1, 5)),
        (np.zeros((2, 5, 8, 8, 3)), (2, 5)),
        (np.zeros((11, 8, 8, 3)), (2, 8)),
        ([np.zeros((8, 8, 3)), np.zeros((9, 7, 3))], (1, 2)),
        ([np.zeros((3, 8, 8, 3)), np.zeros((2, 8, 8, 3))], (2, 3)),
        ({"seen": np.zeros((3, 8, 8, 3)), "z_c": [np.zeros((8, 8, 3))]}, (2, 3)),
        (StimulusSet.from_scenes(0, range(3), 8), (1, 3)),
    ],
)
def test_shows_one_picture_a_row_or_several_rows(pictures, shape):
    figure = ca.show(pictures)
    spec = figure.axes[0].get_subplotspec().get_gridspec()
    assert (spec.nrows, spec.ncols) == shape
    assert figure._repr_png_()[:4] == b"\x89PNG"


def test_shown_pictures_have_titles_and_labels():
    seen = StimulusSet.from_scenes(0, range(3), 8)
    figure = ca.show(seen)
    assert [axis.get_title() for axis in figure.axes] == list(seen.ids)
    drawn = figure.axes[1].images[0].get_array()
    assert_array_equal(drawn, seen.images()[1])
    rows = ca.show({"seen": seen, "made": seen}, titles=["a", "b", "c"])
    assert [axis.get_ylabel() for axis in rows.axes] == ["seen", "", "", "made", "", ""]
    with pytest.raises(CalcarineError, match="2 titles for 3 pictures"):
        ca.show(seen, ["a", "b"])
    with pytest.raises(CalcarineError, match=r"shape \(2, 4, 8, 8\)"):
        ca.show(np.zeros((2, 4, 8, 8)))
    with pytest.raises(CalcarineError, match="floats in"):
        ca.show(np.full((8, 8, 3), 200.0))


def packages():
    """Names of all packages with public names, and these."""
    found = {}
    for file in sorted(HERE.rglob("__init__.py")):
        for node in ast.parse(file.read_text()).body:
            targets = node.targets if isinstance(node, ast.Assign) else []
            if any(isinstance(one, ast.Name) and one.id == "__all__" for one in targets):
                name = ".".join(("calcarine", *file.parent.relative_to(HERE).parts))
                found[name] = ast.literal_eval(node.value)
    return found


def test_public_names_are_frozen():
    """Set CALCARINE_UPDATE_NAMES=1 to write the names anew, and look at what changed."""
    file = Path(__file__).parent / "public_names.txt"
    now = [f"{package}.{name}" for package, names in packages().items() for name in sorted(names)]
    if os.environ.get("CALCARINE_UPDATE_NAMES"):
        file.write_text("\n".join(now) + "\n")
    frozen = file.read_text().splitlines()
    assert sorted(set(now) - set(frozen)) == [], "new public names"
    assert sorted(set(frozen) - set(now)) == [], "public names that are gone"


def test_every_public_name_is_there():
    for package, names in packages().items():
        module = import_module(package)
        missing = [name for name in names if not hasattr(module, name)]
        assert missing == [], package
        assert sorted(set(names)) == sorted(names), package
