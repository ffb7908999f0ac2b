import importlib
import inspect
import pkgutil

import pytest

from calcarine import datasets
from calcarine.datasets import registry
from calcarine.errors import CalcarineError
from calcarine.simulation import subject as simulated

SMALL = {
    "simulated": {
        "n_train": 12,
        "n_test": 4,
        "n_sessions": 2,
        "n_early": 6,
        "n_ventral": 6,
        "n_other": 4,
    }
}
MEASURED = sorted(info.name for info in registry.list_datasets() if not info.simulated)
WITHOUT_STIMULI = {"hcp"}
HERE = ("digits69", "miyawaki_vbcca", "ncc_s2", "haxby_slice")


def readers():
    names = [found.name for found in pkgutil.iter_modules(datasets.__path__)]
    modules = [importlib.import_module(f"calcarine.datasets.{name}") for name in names]
    small = importlib.import_module("calcarine.datasets.small")
    found = [*modules, simulated, *(getattr(small, name) for name in small.__all__)]
    return [reader for reader in found if hasattr(reader, "INFO")]


@pytest.fixture(scope="module")
def faked(tmp_path_factory):
    """Simulated files of each data set, written once."""
    made = {}

    def fake(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp("data") / name
            registry.write_fake_dataset(name, made[name])
        return made[name]

    return fake


def test_every_dataset_module_is_registered():
    found = {reader.INFO.name: reader for reader in readers()}
    listed = [info.name for info in registry.list_datasets()]
    assert found == {name: registry.find_reader(name) for name in listed}


@pytest.mark.parametrize("name", MEASURED)
def test_every_measured_dataset_offers_what_the_protocol_asks(name):
    module, info = registry.find_reader(name), registry.dataset_info(name)
    for function in ("load", "check", "fake", "assets"):
        assert callable(getattr(module, function))
    assert info.needs_folder and info.files
    found = registry.list_assets(name, list(info.subjects[:1]) or None)
    # What cannot be downloaded says how else one gets it; all say under which licence.
    assert info.licence and (found or info.access)
    assert all(asset.url.startswith(("https://", "http://", "s3://")) for asset in found)
    assert len({asset.path for asset in found}) == len(found)


@pytest.mark.parametrize("name", MEASURED)
def test_simulated_files_are_recognised_checked_and_loaded(name, faked):
    folder = faked(name)
    assert name in registry.recognise_datasets(folder)
    results = registry.check_dataset(name, folder)
    assert results and not [f for f in results if f.status in ("missing", "wrong")]
    if name in WITHOUT_STIMULI:
        with pytest.raises(CalcarineError):
            registry.load_dataset(name, folder)
        return
    found = registry.load_dataset(name, folder)
    # Nobody shall take the content for measured.
    assert found.simulated
    assert found.name
    train, test = found.train(), found.test()
    assert len(train) > len(test) > 0
    assert set(train.stimulus_ids).isdisjoint(test.stimulus_ids)
    assert found.stimuli.images(test.stimulus_ids[:2]).any()


@pytest.mark.parametrize("name", ["simulated", *HERE])
def test_every_dataset_at_hand_loads(name, request):
    info = registry.dataset_info(name)
    folder = request.getfixturevalue("measured") if info.needs_folder else None
    for subject in info.subjects:
        found = registry.load_dataset(name, folder, subject, **SMALL.get(name, {}))
        assert (found.name, found.subject) == (name, subject)
        assert found.simulated == info.simulated
        assert (found.source, found.licence) == (info.source, info.licence)
        assert len(found.train()) > 0
        assert len(found.test()) > 0


@pytest.mark.parametrize("name", MEASURED)
def test_missing_files_are_told(name, tmp_path):
    with pytest.raises(CalcarineError, match=name if name != "own" else "own|YAML") as caught:
        registry.load_dataset(name)
    assert "\n" not in str(caught.value)
    with pytest.raises(CalcarineError) as caught:
        registry.load_dataset(name, tmp_path)
    assert "\n" not in str(caught.value)
    results = registry.check_dataset(name, tmp_path)
    assert any(result.status in ("missing", "wrong") for result in results)


@pytest.mark.parametrize("name", MEASURED)
def test_a_folder_that_holds_something_is_not_filled_with_simulated_files(name, tmp_path):
    (tmp_path / "mine.txt").write_text("measured")
    with pytest.raises(CalcarineError, match="is not empty"):
        registry.write_fake_dataset(name, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("name", MEASURED)
def test_options_that_are_listed_can_be_given(name):
    known = inspect.signature(registry.find_reader(name).load).parameters
    assert {option for option, _ in datasets.dataset_info(name).options} <= set(known)


def test_wrong_names_are_told():
    with pytest.raises(CalcarineError, match="no data set nsdd; there are simulated, digits69"):
        registry.load_dataset("nsdd")
    with pytest.raises(CalcarineError, match="no subject subj09; it has subj01"):
        registry.load_dataset("simulated", subject="subj09")
    with pytest.raises(CalcarineError, match="no option voxels; it has n_train"):
        registry.load_dataset("simulated", voxels=3)
    with pytest.raises(CalcarineError, match="nothing to fake: it is simulated"):
        registry.write_fake_dataset("simulated", "/nowhere")


@pytest.mark.parametrize("name", ["digits69", "god", "bold5000", "nsd", "own", "bids"])
def test_a_missing_folder_says_what_it_holds_and_how_to_give_it(name):
    wanted = rf"Data set {name} needs the folder of .*; give it with --data .*datasets info {name}"
    with pytest.raises(CalcarineError, match=wanted):
        registry.load_dataset(name)


def test_a_folder_for_simulated_data_is_refused(tmp_path):
    """The name of the data set was forgotten, and other data would be decoded in its place."""
    with pytest.raises(CalcarineError, match=r"simulated and reads no files; .* \(--dataset\)"):
        registry.load_dataset("simulated", tmp_path)
