"""Names and commands in the documentation exist."""

from __future__ import annotations

import ast
import importlib
import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
import yaml

from calcarine.cli.main import app
from calcarine.experiment.config import Experiment
from calcarine.experiment.settings_table import all_settings

ROOT = Path(__file__).parents[1]
PAGES = [
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "zh").glob("*.md")),
    *sorted(ROOT.glob("*.md")),
]
PAGES.remove(ROOT / "CHANGELOG.md")
SETTINGS = {setting.key for setting in all_settings()}
PHASES = ("pretrain", "guide", "finetune")
DATASET_OPTIONS = ("datasets", "bottleneck")
"""Commands whose ``--set`` is not a setting of an experiment."""
ENTRY_POINTS = {
    f"calcarine.{name}"
    for name in ("audit_checks", "decoders", "generators", "metrics", "protocols")
}
"""Entry point groups that are no modules."""


def resolves(name: str) -> bool:
    """Whether a dotted name is a module of the package or something in one."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            # Fields of dataclasses without a default are no attributes of the class.
            known = hasattr(found, part) or part in getattr(found, "__annotations__", {})
            if not known:
                return False
            found = getattr(found, part, None)
        return True
    return False


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_name_of_the_package_in_a_page_exists(page):
    names = set(re.findall(r"`(calcarine(?:\.\w+)+)`", page.read_text(encoding="utf-8")))
    names -= {"calcarine.yaml", *ENTRY_POINTS}
    assert not {name for name in names if not resolves(name)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_in_a_page_leads_to_one(page):
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert not [link for link in links if not (page.parent / link).exists()]


def commands(page: Path) -> list[list[str]]:
    """Commands of code blocks, with lines that a backslash continues joined."""
    text = re.sub(r"\\\n\s*", " ", page.read_text(encoding="utf-8"))
    found, fenced = [], False
    for line in text.splitlines():
        fenced ^= line.startswith("```")
        if (fenced or line.startswith("    ")) and (match := re.match(r"\s*calcarine (.*)", line)):
            found.append(shlex.split(match[1], comments=True))
    return found


def spans(page: Path) -> list[str]:
    """Code spans of the text, without the blocks of code."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.M)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]


def wrong(words: list[str]) -> list[str]:
    """Parts of a command that calcarine does not know."""
    command = typer.main.get_command(app)
    path = []
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        if words[0] not in command.commands:
            return [words[0]]
        path.append(words[0])
        command, words = command.commands[words[0]], words[1:]
    known = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
    known |= {"--help", "--install-completion", "--show-completion"}
    unknown = [word for word in words if word.startswith("--") and word.split("=")[0] not in known]
    if path and path[0] not in DATASET_OPTIONS:
        values = [after for word, after in itertools.pairwise(words) if word == "--set"]
        unknown += [value for value in values if not is_setting(value.split("=")[0])]
    return unknown


def is_setting(name: str) -> bool:
    """Whether a name is a setting, or an option in a setting; KEY stands for any."""
    inside = name.startswith(("dataset.options.", "decoder.options."))
    return inside or name == "KEY" or name in SETTINGS


def is_group(name: str) -> bool:
    """Whether a name is the beginning of names of settings."""
    return any(key.replace("[]", "").startswith(f"{name}.") for key in SETTINGS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_in_a_page_has_options_and_settings_that_exist(page):
    assert [(" ".join(each), bad) for each in commands(page) if (bad := wrong(each))] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_in_the_text_of_a_page_has_options_that_exist(page):
    # "calcarine COMMAND" and "calcarine ..." stand for any command.
    found = [span for span in spans(page) if re.match(r"calcarine [a-z]", span)]
    assert [(each, bad) for each in found if (bad := wrong(shlex.split(each)[1:]))] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_setting_in_the_text_of_a_page_exists(page):
    """Such as `ridge.alpha_min` and `--set ridge.alpha_min=1`; PHASE is any phase of Vis-Dec."""
    sections = "|".join(Experiment.model_fields)
    pattern = re.compile(rf"(?:--set '?)?((?:{sections})(?:\.\w+)+)(?:=.*)?")
    names = [match[1] for span in spans(page) if (match := pattern.fullmatch(span))]
    names = [name.replace(".PHASE.", f".{phase}.") for name in names for phase in PHASES]
    others = ("experiment.yaml", "encoding.html", "ridge.py", "features.5", "features.12")
    unknown = {name for name in names if not is_setting(name) and not is_group(name)}
    assert unknown <= set(others)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_of_an_experiment_in_a_page_has_settings_that_exist(page):
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"(?:^ {4}.*\n)+", text, re.M):
        if block.lstrip().startswith("preset:"):
            assert [key for key in keys(yaml.safe_load(block)) if not is_setting(key)] == []


def keys(tree: dict, before: str = "") -> Iterator[str]:
    """Names of all settings in a file of an experiment."""
    for name, value in tree.items():
        if isinstance(value, dict) and name != "options":
            yield from keys(value, f"{before}{name}.")
        else:
            yield before + name


def filled_in(text: str) -> str:
    """Write neighbouring gaps as one."""
    return re.sub(r"\.{3}(?: ?\.{3})*", "...", text)


def sentences() -> set[str]:
    """Texts in the code, with ``...`` for what is filled in."""
    found = set()
    for path in (ROOT / "src" / "calcarine").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [p.value if isinstance(p, ast.Constant) else "..." for p in node.values]
                found.add(filled_in("".join(parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return found


def test_every_message_in_troubleshooting_is_one_of_the_code():
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    quoted = [
        filled_in(" ".join(re.sub(r"^> ", "", block, flags=re.M).split()))
        for block in re.findall(r"(?:^> .*\n)+", page, re.M)
    ]
    assert len(quoted) > 40
    known = sentences()
    assert [text for text in quoted if not any(text.rstrip(". ") in each for each in known)] == []


def test_a_wrong_command_option_and_setting_would_be_found():
    assert wrong(["runs", "x"]) == ["runs"]
    assert wrong(["run", "--presets", "takagi"]) == ["--presets"]
    assert wrong(["run", "--set", "generation.stepz=3"]) == ["generation.stepz=3"]
    assert wrong(["run", "--set", "generation.steps=3", "--preset", "takagi"]) == []


def test_the_python_of_the_readme_runs(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    load = 'ca.load_dataset("simulated")'
    assert load in code
    exec(code.replace(load, load[:-1] + ", n_train=60, n_test=9)"), {})
    assert "pixel correlation" in capsys.readouterr().out


def test_the_python_of_the_notebook_tutorial_runs(capsys):
    page = (ROOT / "docs" / "notebook.md").read_text(encoding="utf-8")
    exec("\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL)), {})
    assert re.search(r"early: median ceiling \d+ %", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("page", "translation"),
    [
        ("README.md", "README.zh-CN.md"),
        ("docs/first-run.md", "docs/zh/first-run.md"),
        ("docs/notebook.md", "docs/zh/notebook.md"),
    ],
)
def test_a_translation_has_the_same_code(page, translation):
    """Comments may be translated."""
    one, other = ROOT / page, ROOT / translation
    assert commands(one) == commands(other)
    assert blocks(one) == blocks(other)


def blocks(page: Path) -> list[str]:
    """Code blocks of a page without comments."""
    text = page.read_text(encoding="utf-8")
    return [
        re.sub(r" *#.*", "", block) for block in re.findall(r"```\w+\n(.*?)```", text, re.DOTALL)
    ]


SCRIPTS = [*sorted((ROOT / "scripts").glob("*.py")), *sorted((ROOT / "benchmarks").glob("*.py"))]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_every_name_and_folder_that_a_script_uses_exists(script):
    """Scripts are run by hand and rarely, so a renamed module would be seen late."""
    text = script.read_text(encoding="utf-8")
    wanted = {
        f"{node.module}.{name.name}"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("calcarine")
        for name in node.names
    }
    assert {name for name in wanted if not resolves(name)} == set()
    for parts in re.findall(r'parents\[1\]((?: / "[^"]+")+)', text):
        assert ROOT.joinpath(*re.findall(r'"([^"]+)"', parts)).exists()
