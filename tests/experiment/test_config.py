import pytest
import yaml

from calcarine.errors import CalcarineError
from calcarine.experiment import STAGES, load_experiment
from calcarine.experiment.keys import content_key
from calcarine.experiment.presets import PRESETS
from calcarine.experiment.run_directory import RunDirectory


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_is_valid(name):
    assert load_experiment(name).preset == name


def test_the_paper_settings_are_the_defaults_of_takagi():
    generation = load_experiment("takagi").generation
    assert (generation.strength, generation.guidance) == (0.8, 5.0)
    assert (generation.steps, generation.samples) == (50, 5)


def test_settings_change_single_values():
    changed = load_experiment("takagi", None, ["generation.strength=0.6", "roi.z=V1"], name="x")
    assert changed.generation.strength == 0.6
    assert changed.generation.steps == 50
    assert changed.roi.z == "V1" and changed.dataset.name == "x"


def test_another_data_set_drops_the_options_of_the_preset():
    assert load_experiment("demo").dataset.options
    assert load_experiment("demo", name="digits69").dataset.options == {}


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        (
            "generation.strenght=1",
            "no setting 'generation.strenght'; did you mean 'generation.strength'",
        ),
        (
            "generation.search.enabld=false",
            "no setting 'generation.search.enabld'; did you mean 'generation.search.enabled'",
        ),
        ("colour=1", "no setting 'colour'; the sections are .*dataset"),
        ("generation.strength=2", "generation.strength"),
        ("generation.strength", "key=value"),
        ("generation.steps=[", "cannot be read"),
        ("generation=3", "generation"),
        ("dataset=3", "dataset"),
        ("generation.seed=-1", "generation.seed"),
        ("generation.search.strengths=[]", "generation.search.strengths"),
        ("encoding.analyses=[]", "choose at least one of analyses"),
        ("encoding.n_permutations=18", "set n_permutations to 0 or at least 19"),
        ("generation={strength: 0.2, steps: 4}", "'generation' is wrong: of 4 steps strength 0.2"),
    ],
)
def test_wrong_settings_are_named(setting, told):
    with pytest.raises(CalcarineError, match=told):
        load_experiment("takagi", None, [setting])


def test_a_misspelt_preset_names_the_nearest():
    with pytest.raises(CalcarineError, match=r"no preset 'takagi2032'.* Did you mean takagi2023\?"):
        load_experiment("takagi2032")


def test_a_run_refuses_the_name_of_another_preset(tmp_path):
    """The settings would stay those of the run, under the name of the other preset."""
    file = tmp_path / "experiment.yaml"
    file.write_text(yaml.safe_dump(load_experiment("demo").model_dump(mode="json")))
    assert load_experiment("demo", file).preset == "demo"
    with pytest.raises(CalcarineError, match="has all its settings already, which --preset takagi"):
        load_experiment("takagi", file)


def test_a_described_data_set_is_no_experiment(tmp_path):
    file = tmp_path / "calcarine.yaml"
    file.write_text("subject: s01\nbetas: betas.npy\ntrials: trials.csv\n")
    with pytest.raises(CalcarineError, match=r"describes a data set .* --dataset own --data"):
        load_experiment(None, file)


def test_a_file_starts_from_its_preset(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("preset: takagi\nname: mine\ngeneration: {steps: 20}\n")
    loaded = load_experiment(None, file)
    assert loaded.name == "mine" and loaded.generation.steps == 20
    assert loaded.generation.candidates == PRESETS["takagi"].settings["generation"]["candidates"]


def test_the_data_set_of_a_file_is_kept(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("preset: demo\ndataset: {name: digits69, data: d}\n")
    loaded = load_experiment(None, file)
    assert loaded.dataset.name == "digits69" and loaded.dataset.options == {}
    assert load_experiment(None, file, name="simulated").dataset.name == "simulated"
    run = RunDirectory(tmp_path / "run", loaded)
    assert load_experiment(None, run.path / "experiment.yaml") == loaded


def test_who_names_a_strength_gets_it():
    assert load_experiment("takagi").generation.search.enabled == "auto"
    named = load_experiment("takagi", None, ["generation.strength=0.6"])
    assert not named.generation.search.enabled
    asked = load_experiment(
        "takagi", None, ["generation.search.enabled=true", "generation.strength=0.6"]
    )
    assert asked.generation.search.enabled


@pytest.mark.parametrize("content", ["a: [", "- 1\n- 2", "\x00"])
def test_broken_files_are_told(tmp_path, content):
    file = tmp_path / "broken.yaml"
    file.write_text(content)
    with pytest.raises(CalcarineError, match=r"broken\.yaml"):
        load_experiment(None, file)
    with pytest.raises(CalcarineError, match="no experiment file"):
        load_experiment(None, tmp_path / "absent.yaml")


def test_unknown_preset_names_the_known():
    with pytest.raises(CalcarineError, match="takagi"):
        load_experiment("takagy")


def test_a_folder_of_another_experiment_is_refused(tmp_path):
    mistaken = load_experiment("takagi", name="digits69", data="x", subject="nobody")
    RunDirectory(tmp_path / "run", mistaken)  # nothing was computed: the folder is still free
    run = RunDirectory(tmp_path / "run", load_experiment("takagi", name="digits69", data="x"))
    run.begin("features", "key")
    with pytest.raises(CalcarineError, match="another experiment"):
        RunDirectory(tmp_path / "run", load_experiment("takagi", name="miyawaki_vbcca"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(CalcarineError, match="is not empty and is not a run"):
        RunDirectory(tmp_path / "other", load_experiment("takagi"))
    with pytest.raises(CalcarineError, match=r"experiment\.yaml"):
        RunDirectory(tmp_path / "other")


def test_the_resolved_configuration_is_written_and_read_back(tmp_path):
    experiment = load_experiment("takagi", None, ["generation.steps=7"])
    RunDirectory(tmp_path / "run", experiment)
    assert RunDirectory(tmp_path / "run").experiment == experiment
    written = yaml.safe_load((tmp_path / "run" / "experiment.yaml").read_text())
    assert written["generation"]["steps"] == 7


def test_a_changed_key_clears_only_its_own_stage(tmp_path):
    run = RunDirectory(tmp_path / "run", load_experiment("takagi"))
    assert run.begin("fit", "a") and run.begin("reconstruct", "b")
    for folder in (run.decoder, run.reconstructions):
        folder.mkdir()
        (folder / "x").write_text("kept")
    run.finish("fit", "a")
    assert not run.begin("fit", "a")
    assert run.begin("reconstruct", "b") and (run.reconstructions / "x").exists()
    assert (
        run.begin("reconstruct", "c", STAGES["reconstruct"].stale)
        and not run.reconstructions.exists()
    )
    assert (run.decoder / "x").exists()
    with pytest.raises(CalcarineError, match="calcarine reconstruct"):
        run.require("reconstruct", "c")
    run.finish("reconstruct", "c")
    run.require("reconstruct", "c")
    with pytest.raises(CalcarineError, match="calcarine reconstruct"):
        run.require("reconstruct", "d")
    (run.path / ".stages" / "fit.json").write_text("{broken")
    assert run.begin("fit", "a")


def test_content_key_depends_on_every_part():
    assert content_key("a", {"b": 1}) == content_key("a", {"b": 1})
    assert len({content_key("a", {"b": 1}), content_key("a", {"b": 2}), content_key("b")}) == 3


def test_a_strength_that_leaves_no_step_is_refused_before_the_run():
    with pytest.raises(
        CalcarineError, match=r"of 20 steps strength 0\.01 leaves no denoising step"
    ):
        load_experiment("takagi", None, ["generation.strength=0.01", "generation.steps=20"])
    settings = ["encoding.enabled=true", "generation.steps=4"]
    with pytest.raises(
        CalcarineError, match=r"strength 0\.2 leaves no denoising step \(encoding\.strengths\)"
    ):
        load_experiment("takagi", None, settings)
    load_experiment("takagi", None, [*settings, "encoding.analyses=[latents]"])
    zero = load_experiment("takagi", None, ["generation.strength=0", "generation.steps=1"])
    assert zero.generation.strength == 0


def test_strengths_to_choose_from_leave_steps_too(tmp_path, tiny_stable_diffusion):
    from calcarine.experiment.stages import check_experiment
    from calcarine.experiment.workspace import Workspace

    settings = [
        "generation.search.enabled=true",
        "generation.search.steps=4",
        "dataset.options={n_train: 24, n_test: 8, n_early: 10, n_ventral: 10, n_other: 2}",
        f"generation.model={tiny_stable_diffusion}",
    ]
    work = Workspace(RunDirectory(tmp_path / "run", load_experiment("takagi", None, settings)))
    with pytest.raises(
        CalcarineError, match=r"leaves no denoising step \(generation\.search\.strengths\)"
    ):
        check_experiment(work)


@pytest.mark.parametrize("value", ["2026-13-45", "!!timestamp x", "!!int x", "[" * 1500])
def test_yaml_that_no_reader_understands_is_told(tmp_path, value):
    with pytest.raises(CalcarineError, match="cannot be read"):
        load_experiment("takagi", None, [f"generation.steps={value}"])
    file = tmp_path / "mine.yaml"
    file.write_text(f"preset: takagi\nname: {value}\n")
    with pytest.raises(CalcarineError, match="cannot be read as YAML"):
        load_experiment(None, file)


@pytest.mark.parametrize("section", ["ridge", "encoding"])
def test_the_limits_of_penalties_are_penalties(section):
    settings = getattr(load_experiment("takagi"), section)
    assert (settings.alpha_min, settings.alpha_max) == (1e-2, 1e8)
    with pytest.raises(CalcarineError, match="alpha_min"):
        load_experiment("takagi", None, [f"{section}.alpha_min=-2"])
    with pytest.raises(CalcarineError, match=r"alpha_min is 100 and alpha_max 10; set alpha_min"):
        load_experiment("takagi", None, [f"{section}.alpha_min=100", f"{section}.alpha_max=10"])
