"""The public names of the packages, their light imports, entry points and short reprs."""

import subprocess
import sys
from importlib import import_module

import numpy as np
import pytest

from calcarine.audit import (
    CHECKS,
    AuditInputs,
    Check,
    Finding,
    PictureSet,
    audit,
    list_checks,
    register_check,
)
from calcarine.errors import SettingError
from calcarine.evaluation import (
    METRICS,
    PROTOCOLS,
    Metric,
    Protocol,
    find_metric,
    find_protocol,
    register_metric,
    register_protocol,
    score_arrays,
)
from calcarine.files.registries import load_entry_points


@pytest.mark.parametrize("name", ["evaluation", "audit", "reporting", "study"])
def test_every_public_name_can_be_imported(name):
    package = import_module(f"calcarine.{name}")
    assert len(set(package.__all__)) == len(package.__all__) > 10
    for public in package.__all__:
        assert getattr(package, public) is not None
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = package.no_such_name


def test_the_packages_import_nothing_heavy():
    code = (
        "import sys, calcarine.evaluation, calcarine.audit, calcarine.reporting, calcarine.study;"
        "print([m for m in ('torch', 'pandas', 'matplotlib', 'fastapi') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


class _EntryPoint:
    def __init__(self, name, load):
        self.name, self.value, self.load = name, "other.package:thing", load
        self.dist = None


def test_other_packages_add_metrics_protocols_and_checks(monkeypatch):
    class Constant(Metric):
        def measure(self, cache, sample):
            return np.ones(cache.n)

    class OneNumber(Protocol):
        name, title, source, details = "one-number", "One number", "a test", "nothing"

        def metrics(self):
            return (Constant("one", "Always 1."),)

    class Always(Check):
        name, title, question, evidence_needed = "always", "Always", "Is it?", "None."

        def run(self, inputs):
            return Finding("passed", "It is.")

    points = {
        "calcarine.metrics": lambda: register_metric(Constant),
        "calcarine.protocols": lambda: register_protocol(OneNumber),
        "calcarine.audit_checks": lambda: register_check(Always),
    }
    monkeypatch.setattr(
        "calcarine.files.registries.entry_points",
        lambda group: [_EntryPoint("one", points[group])] if group in points else [],
    )
    load_entry_points.cache_clear()
    try:
        assert find_metric("Constant") is Constant
        assert find_protocol("one-number") is OneNumber
        pictures = np.zeros((4, 16, 16, 3), np.uint8)
        shown = PictureSet.of(list("abcd"), pictures)
        # By name alone, before anything has listed the checks.
        result = audit(AuditInputs("ours", shown, shown), only=["always"])
        assert result.findings["always"].verdict == "passed"
        assert list_checks()[-1] == "always"
        result = score_arrays(pictures, pictures, protocols=["one-number"], n_boot=20)
        assert [row["value"] for row in result.records] == [1.0]
    finally:
        load_entry_points.cache_clear()
        for registry, name in (
            (METRICS, "Constant"),
            (PROTOCOLS, "one-number"),
            (CHECKS, "always"),
        ):
            registry.pop(name, None)


def test_unknown_names_are_setting_errors():
    for find in (find_metric, find_protocol):
        with pytest.raises(SettingError, match="choose one of"):
            find("unknown")


def test_an_evaluation_prints_itself_in_a_few_lines_and_as_an_escaped_table():
    pictures = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)
    options = {"judge": None, "n_boot": 20, "n_permutations": 20}
    result = score_arrays(pictures, pictures, method="<b>ours</b>", **options)
    lines = repr(result).splitlines()
    assert lines[0] == "Evaluation of 6 images" and len(lines) < 10
    assert "  methods: <b>ours</b>" in lines and "  protocols: calcarine" in lines
    html = result._repr_html_()
    assert "&lt;b&gt;ours" in html and "<b>ours" not in html and html.count("<tr>") < 25
