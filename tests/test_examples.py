"""Examples in docstrings run as they stand."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import calcarine
from calcarine.audit import list_checks
from calcarine.audit.check import CHECKS
from calcarine.datasets import list_datasets
from calcarine.datasets.registry import READERS
from calcarine.decoding.registry import DECODERS
from calcarine.diffusion.generators import GENERATORS
from calcarine.evaluation import list_metrics, list_protocols
from calcarine.evaluation.metrics.metric import METRICS
from calcarine.evaluation.protocols.protocol import PROTOCOLS

REGISTRIES: tuple[dict, ...] = (CHECKS, DECODERS, GENERATORS, METRICS, PROTOCOLS, READERS)
SOURCE = Path(calcarine.__file__).parent
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def modules() -> list[str]:
    """Return the modules whose docstrings have examples."""
    found = []
    for file in sorted(SOURCE.rglob("*.py")):
        if ">>> " in file.read_text(encoding="utf-8"):
            parts = file.relative_to(SOURCE.parent).with_suffix("").parts
            found.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return found


@pytest.fixture
def registered():
    """Forget what an example registers; later tests would meet it."""
    for load_all in (list_checks, list_datasets, list_metrics, list_protocols):
        load_all()
    before = [dict(registry) for registry in REGISTRIES]
    yield
    for registry, entries in zip(REGISTRIES, before, strict=True):
        registry.clear()
        registry.update(entries)


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("name", modules())
def test_examples_run_as_they_stand(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # what an example writes
    module = importlib.import_module(name)
    failed, tried = doctest.testmod(module, optionflags=FLAGS)
    assert tried
    assert not failed, capsys.readouterr().out
