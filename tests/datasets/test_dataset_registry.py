import importlib
import pkgutil

import pytest

from calcarine import datasets
from calcarine.datasets import registry
from calcarine.errors import CalcarineError

SMALL = {"simulated": {"n_train": 12, "n_test": 4, "n_sessions": 2,
                       "n_early": 6, "n_ventral": 6, "n_other": 4}}  # fmt: skip


def modules_with_info():
    names = [found.name for found in pkgutil.iter_modules(datasets.__path__)]
    modules = [importlib.import_module(f"calcarine.datasets.{name}") for name in names]
    return [module for module in modules if hasattr(module, "INFO")]


def test_every_dataset_module_is_registered():
    found = {module.INFO.name: module.load for module in modules_with_info()}
    assert found == {name: module.load for name, module in registry.MODULES.items()}
    assert {info.name for info in registry.available()} == set(registry.MODULES)
    assert len(found) >= 3


@pytest.mark.parametrize("name", sorted(registry.MODULES))
def test_every_registered_dataset_loads(name, request):
    info = registry.info(name)
    folder = request.getfixturevalue("measured") if info.needs_folder else None
    for subject in info.subjects:
        found = registry.load(name, folder, subject, **SMALL.get(name, {}))
        assert (found.name, found.subject) == (name, subject)
        assert found.simulated == info.simulated
        assert (found.source, found.licence) == (info.source, info.licence)
        assert len(found.train()) > 0
        assert len(found.test()) > 0


@pytest.mark.parametrize("info", [i for i in registry.available() if i.needs_folder])
def test_missing_files_are_told_with_where_they_are_from(info, tmp_path):
    with pytest.raises(CalcarineError, match=f"needs the folder that holds {info.files[0]}"):
        registry.load(info.name)
    with pytest.raises(CalcarineError, match=f"no {info.files[0]} in .* get it from"):
        registry.load(info.name, tmp_path)


def test_wrong_names_are_told():
    with pytest.raises(CalcarineError, match="no data set nsdd; there are simulated, digits69"):
        registry.load("nsdd")
    with pytest.raises(CalcarineError, match="no subject subj09; it has subj01"):
        registry.load("simulated", subject="subj09")
    with pytest.raises(CalcarineError, match="no option voxels; it has n_train"):
        registry.load("simulated", voxels=3)
