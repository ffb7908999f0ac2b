"""Without the packages of an extra, everything else works and the rest says what to install."""

from __future__ import annotations

import subprocess
import sys

import pytest

OPTIONAL = ("dask", "distributed", "fastapi", "lightning", "plotly", "starlette")
OPTIONAL += ("tensorboard", "torchvision", "uvicorn")
WITHOUT = f"""
import sys
sys.modules.update(dict.fromkeys({OPTIONAL!r}))  # as if they were not installed
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", WITHOUT + code], capture_output=True, text=True)


def test_every_module_that_is_not_about_an_extra_can_be_imported():
    done = run("""
import importlib, pkgutil
import calcarine
for module in pkgutil.walk_packages(calcarine.__path__, "calcarine."):
    if module.name == "calcarine.__main__":  # it runs
        continue
    try:
        importlib.import_module(module.name)
    except ImportError:
        print(module.name)
""")
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == {
        "calcarine.evaluation.networks.inception_fid",
        "calcarine.study.app",
        "calcarine.training.callbacks",
        "calcarine.training.loop",
    }


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (
            "from calcarine.study.server import serve; serve(None)",
            "needs fastapi and uvicorn, which are not installed; run: pip install "
            "'calcarine[study]'",
        ),
        (
            "from calcarine.training import train; train(None, None, None)",
            "needs lightning, which is not installed; run: pip install 'calcarine[train]'",
        ),
        (
            "from calcarine.features.image_networks import load_network; load_network('alexnet')",
            "needs torchvision, which is not installed; run: pip install 'calcarine[metrics]'",
        ),
    ],
)
def test_a_missing_extra_is_named_with_the_command_that_installs_it(code, sentence):
    done = run(code)
    assert "MissingExtraError" in done.stderr and sentence in done.stderr
