"""Data sets of other packages: registered by a call or as entry points."""

import warnings
from collections import Counter, OrderedDict
from dataclasses import replace
from types import SimpleNamespace

import pytest

from calcarine import datasets
from calcarine.brain import DatasetInfo, DatasetReader
from calcarine.datasets import registry
from calcarine.errors import SettingError
from calcarine.files.registries import is_redefined, load_entry_points

READER = """
from calcarine.brain import DatasetInfo
from calcarine.datasets import load_dataset

INFO = DatasetInfo("{name}", "A lab's data", False, ("s1",), "the lab", "CC0", True, ("a.h5",))

def load(data, subject, *, smooth=0.0):
    return load_dataset("simulated", n_train=12, n_test=4, n_early=6, n_ventral=6, n_other=4)
"""
ABOUT = DatasetInfo("mylab", "A lab's data", False, ("s1",), "the lab", "CC0", True)


def reader(**changes):
    return SimpleNamespace(**{"INFO": ABOUT, "load": lambda data, subject: None, **changes})


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """A registry as in a new process."""
    monkeypatch.setattr(registry, "READERS", {})
    monkeypatch.setattr(registry, "_refused", set())
    load_entry_points.cache_clear()
    yield
    load_entry_points.cache_clear()


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Put a distribution with one reader on the path."""

    def write(package, point, target=None, code=None):
        folder = tmp_path / package
        info = folder / f"{package}-1.0.dist-info"
        info.mkdir(parents=True)
        (folder / f"{package}.py").write_text(READER.format(name=point) if code is None else code)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(
            f"[calcarine.datasets]\n{point} = {target or package}\n"
        )
        monkeypatch.syspath_prepend(folder)

    return write


def test_a_data_set_of_another_package_is_listed_and_loaded(install):
    install("lab_one", "lab-one")
    assert "lab-one" in [about.name for about in datasets.list_datasets()]
    assert datasets.load_dataset("lab-one", "somewhere", smooth=2.0).simulated
    with pytest.raises(SettingError, match=r"has no option smoth; .* Did you mean smooth\?"):
        datasets.load_dataset("lab-one", "somewhere", smoth=2.0)


def test_a_broken_entry_point_gives_one_warning_and_stops_no_other(install):
    install("lab_two", "lab-two", code="raise RuntimeError('no licence')")
    install("lab_three", "lab-three")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        names = [about.name for about in datasets.list_datasets()]
        assert [about.name for about in datasets.list_datasets()] == names
    assert "lab-three" in names and "lab-two" not in names
    (warning,) = [str(each.message) for each in caught if "lab-two" in str(each.message)]
    assert warning == (
        "The package lab_two registers 'lab-two' under calcarine.datasets, and it cannot be loaded "
        "(RuntimeError: no licence); update or uninstall that package."
    )


def test_an_entry_point_that_is_no_reader_gives_one_warning(install):
    install("lab_four", "lab-four", code="INFO = 1\n")
    with pytest.warns(UserWarning, match="'lab-four' .* is not used: .* has no INFO") as caught:
        datasets.list_datasets()
        datasets.list_datasets()
    assert len(caught) == 1


def test_an_entry_point_cannot_replace_a_built_in_data_set(install):
    install("lab_five", "nsd")
    with pytest.warns(UserWarning, match="There is already a data set nsd"):
        datasets.list_datasets()
    assert datasets.find_reader("nsd").__name__ == "calcarine.datasets.nsd"


def test_a_registered_reader_is_found_by_name():
    mine = reader()
    assert isinstance(mine, DatasetReader)
    datasets.register_dataset(mine)
    datasets.register_dataset(mine)
    assert datasets.find_reader("mylab") is mine
    assert datasets.list_datasets()[-1] is ABOUT
    with pytest.raises(SettingError, match="There is already a data set mylab"):
        datasets.register_dataset(reader())


def test_a_cell_of_a_notebook_may_be_run_again():
    """The class that it defines anew takes the place of the old one; others do not."""
    cell = "class Lab:\n    INFO = about\n    load = staticmethod(lambda *a, **k: None)\n"
    made = []
    for module in ("__main__", "__main__", "another"):
        names = {"about": ABOUT, "__name__": module}
        exec(cell, names)
        made.append(names["Lab"])
    for lab in made[:2]:
        datasets.register_dataset(lab)
        assert datasets.find_reader("mylab") is lab
    with pytest.raises(SettingError, match="There is already a data set mylab"):
        datasets.register_dataset(made[2])


@pytest.mark.parametrize(
    ("known", "entry", "same"),
    [
        (len, len, True),
        (lambda: 1, lambda: 1, False),
        (Counter, OrderedDict, False),
        (Counter(), Counter(), False),
    ],
)
def test_what_counts_as_defined_again(known, entry, same):
    assert is_redefined(known, entry) is same


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"INFO": None}, "has no INFO"),
        ({"load": None}, "needs load to be a function"),
        ({"check": 1}, "needs check to be a function"),
        ({"INFO": replace(ABOUT, name="god")}, "already a data set god"),
    ],
)
def test_an_incomplete_reader_is_refused(changes, message):
    with pytest.raises(SettingError, match=message):
        datasets.register_dataset(reader(**changes))


def test_built_in_modules_are_readers():
    for about in datasets.list_datasets():
        found = datasets.find_reader(about.name)
        assert isinstance(found, DatasetReader)
        assert registry._check_reader(found) == about.name


def test_a_misspelt_name_suggests_the_nearest():
    with pytest.raises(SettingError, match=r"no data set NDS; there are .*\. Did you mean nsd\?"):
        datasets.dataset_info("NDS")
    with pytest.raises(SettingError, match=r"no subject subj1; .* Did you mean subj01\?"):
        datasets.load_dataset("simulated", subject="subj1")
