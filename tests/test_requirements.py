"""The lowest versions that are tested are those that pyproject.toml allows."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
USED = re.fullmatch(r"calcarine\[(.*)\]", EXTRAS["all"][0])[1].split(",")
WANTED = [*PROJECT["dependencies"], *(text for extra in USED for text in EXTRAS[extra])]
NOT_PINNED = {"torch", "torchvision"}  # shared with the environment of the other tests


@pytest.mark.parametrize("text", WANTED)
def test_the_lowest_version_that_is_allowed_is_tested(text):
    wanted = Requirement(text)
    (bound,) = wanted.specifier
    assert bound.operator == ">="
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", lowest(), re.MULTILINE))
    if wanted.name in NOT_PINNED:
        assert wanted.name not in pins
    else:
        assert Version(pins[wanted.name]) == Version(bound.version)


def lowest() -> str:
    return (ROOT / "requirements-minimum.txt").read_text()
