"""The script that checks a GPU, rehearsed on the CPU with small networks."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "gpu_check.py"


@pytest.fixture
def call(monkeypatch):
    """Return a function that runs the script, with some of its parts changed."""
    spec = importlib.util.spec_from_file_location("gpu_check", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(*arguments, **changes):
        for name, value in changes.items():
            monkeypatch.setattr(module, name, value)
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--tiny", "--device", "cpu", *arguments])
        module.main()

    return run


def test_all_checks_pass_on_the_cpu(call, tmp_path, capsys):
    call("--out", str(tmp_path / "found.json"))
    assert capsys.readouterr().out.endswith("all checks passed\n")
    found = json.loads((tmp_path / "found.json").read_text())
    assert 0 < found["precision"]["bfloat16"]["latents"] < 0.05
    assert found["precision"]["float32"]["latents"] == 0
    assert len(found["memory"]["warnings"]) == 1 and found["memory"]["error"] < 1e-5
    assert found["speed"]["float32"]["pictures_a_minute"] > 0
    assert found["pretraining"]["tokens_a_second"] > 0


def test_numbers_that_differ_fail(call):
    with pytest.raises(SystemExit, match="failed: precision"):
        call("--only", "precision", "memory", TOLERANCES={"float32": 1e-3, "bfloat16": 1e-6})
