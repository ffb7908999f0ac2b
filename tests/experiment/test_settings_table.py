"""Every setting is described, found by its key, and part of the JSON schema."""

import json
import subprocess
import sys

import pytest
import yaml

from calcarine.errors import CalcarineError
from calcarine.experiment import load_experiment
from calcarine.experiment.load_config import _setting
from calcarine.experiment.presets import PRESETS
from calcarine.experiment.settings_table import all_settings, experiment_schema, find_settings


def test_every_setting_has_a_description_a_type_and_a_value():
    settings = all_settings()
    assert len(settings) > 190
    for setting in settings:
        assert setting.description.endswith("."), setting.key
        assert setting.type and "<class" not in setting.type and setting.value, setting


def test_every_value_can_be_given_back_as_a_setting():
    for preset in PRESETS:
        plain = [s for s in all_settings(preset) if "[]" not in s.key and s.key != "preset"]
        given = [f"{s.key}={s.value}" for s in plain]
        again = load_experiment(None, None, given)
        assert again.model_dump(exclude={"preset"}) == load_experiment(preset).model_dump(
            exclude={"preset"}
        )


def test_a_section_or_a_single_setting_is_found():
    assert [s.key for s in find_settings("roi")] == ["roi.z", "roi.c", "roi.pixels"]
    (steps,) = find_settings("generation.steps", "demo")
    assert steps.value == "30" and steps.type == "integer >= 1 and <= 1000"
    assert [s.key for s in find_settings("visdec.pretrain.pool")][:2] == [
        "visdec.pretrain.pool",
        "visdec.pretrain.pool[].source",
    ]


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("generation.strengh", "did you mean generation.strength"),
        ("n_boot", "encoding.n_boot|evaluation.n_boot"),
        ("generaton", "did you mean generation"),
        ("xyz", "the sections are compute, dataset, "),
    ],
)
def test_an_unknown_key_names_the_nearest(key, near):
    with pytest.raises(CalcarineError, match=near):
        find_settings(key)
    with pytest.raises(CalcarineError, match="no preset 'dmo'"):
        find_settings(None, "dmo")


def test_the_schema_describes_every_key_of_a_yaml_file():
    schema = experiment_schema()
    parts = schema["$defs"]
    tree = yaml.safe_load(yaml.safe_dump(load_experiment("visdec-mini").model_dump(mode="json")))

    def check(part, values, place):
        for key, value in values.items():
            known = part["properties"][key]
            assert known.get("description"), f"{place}.{key}"
            if "$ref" in known and isinstance(value, dict):
                check(parts[known["$ref"].rpartition("/")[2]], value, f"{place}.{key}")

    check(schema, tree, "")
    assert json.dumps(schema)
    assert all("\n" not in part.get("description", "") for part in parts.values())


def test_every_preset_says_what_it_is_for():
    for preset in PRESETS.values():
        assert preset.purpose.endswith(".") and "\n" not in preset.purpose


def test_a_setting_is_read_as_yaml():
    assert _setting("a.b=[1, 2]") == {"a": {"b": [1, 2]}}


def test_settings_need_no_torch():
    code = (
        "import sys; from calcarine.experiment.settings_table import experiment_schema; "
        "experiment_schema(); assert 'torch' not in sys.modules and 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
