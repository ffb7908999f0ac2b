"""Packages offer their public names, and import modules when they are used."""

import importlib

import pytest

PACKAGES = ["brain", "checkpoints", "datasets", "download", "files", "quality", "simulation"]
PACKAGES += ["splits", "stimuli"]


@pytest.mark.parametrize("name", PACKAGES)
def test_every_public_name_exists(name):
    package = importlib.import_module(f"calcarine.{name}")
    for public in package.__all__:
        assert getattr(package, public) is not None
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        package.nothing  # noqa: B018
