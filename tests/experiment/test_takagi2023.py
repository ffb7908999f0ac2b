"""The settings of the paper, with sound decoders and with those of its code."""

import json

import numpy as np
import pandas as pd
import pytest

from calcarine import datasets
from calcarine.brain.scaling import zscore_sessions
from calcarine.datasets import registry
from calcarine.decoding import Reconstructor
from calcarine.diffusion import LatentDiffusion
from calcarine.errors import CalcarineError
from calcarine.experiment import decoders, load_experiment, run_experiment, run_stage
from calcarine.experiment.run_directory import RunDirectory
from calcarine.experiment.scoring import missing_networks
from calcarine.experiment.seeds import run_seeds
from calcarine.experiment.stages import run_keys
from calcarine.experiment.undo_session_scaling import without_session_scaling
from calcarine.experiment.workspace import Workspace

SMALL = {
    "n_train": 24,
    "n_test": 8,
    "n_early": 30,
    "n_ventral": 30,
    "n_other": 5,
    "n_sessions": 2,
}
QUICK = [
    f"dataset.options={json.dumps(SMALL)}",
    "generation.steps=3",
    "generation.samples=2",
    "generation.latent_size=40",
    "evaluation.n_boot=200",
    "evaluation.n_permutations=200",
    "encoding.analyses=[latents]",
]


@pytest.mark.parametrize("preset", ["takagi2023", "takagi2023-compat"])
def test_it_runs_with_latents_of_another_size_and_reports_the_controls(
    preset, tiny_stable_diffusion, tmp_path
):
    settings = [*QUICK, f"generation.model={tiny_stable_diffusion}"]
    run = run_experiment(load_experiment(preset, None, settings), tmp_path / "run")
    records = json.loads((run.path / "metrics" / "summary.json").read_text())
    values = {r["method"] for r in records if r["role"] == "method"}
    assert values >= {"z", "z, empty text", "c", "z_c", "direct ridge"}
    assert ("z_c, chosen by the brain" in values) == (preset == "takagi2023")
    assert (run.path / "encoding.html").exists() == (preset == "takagi2023")
    report = (run.path / "report.html").read_text()
    assert ">z<" in report and ">c<" in report
    assert ('href="encoding.html"' in report) == (preset == "takagi2023")
    work = Workspace(RunDirectory(run.path))
    assert work.z.shape == (32, 4, 5, 5)
    index = pd.read_parquet(run.reconstructions / "index.parquet")
    assert index.groupby("method").size()["z_c"] == 8 * (5 if preset == "takagi2023" else 2)


def test_z_is_decoded_from_early_and_c_from_ventral_voxels(tiny_stable_diffusion, tmp_path):
    from safetensors.numpy import load_file

    sizes = {**SMALL, "n_early": 20, "n_ventral": 30}
    settings = [
        *QUICK[1:],
        f"dataset.options={json.dumps(sizes)}",
        f"generation.model={tiny_stable_diffusion}",
        "encoding.enabled=false",
        "ridge.n_alphas=3",
    ]
    run = RunDirectory(tmp_path / "run", load_experiment("takagi2023", None, settings))
    work = Workspace(run)
    assert work.roi == {"z": "early", "c": "ventral", "pixels": "early"}
    for stage in ("features", "fit"):
        run_stage(work, stage)
    (folder,) = run.decoder.iterdir()
    widths = {name: len(load_file(folder / f"{name}.safetensors")["x_mean_"]) for name in "zc"}
    assert widths == {"z": 20, "c": 30}
    settings.append("roi.c=early")
    other = RunDirectory(tmp_path / "other", load_experiment("takagi2023", None, settings))
    assert Workspace(other).roi == {"z": "early", "c": "early", "pixels": "early"}


def test_latents_of_512_px_models_are_made_at_320(tiny_stable_diffusion, tmp_path):
    class _Model:
        image_size = 512

    run = RunDirectory(tmp_path / "run", load_experiment("takagi2023"))
    work = Workspace(run)
    work.model = _Model()
    assert work.latent_size == 320
    work.model.image_size = 64
    assert Workspace(run).config.generation.latent_size is None and work.__dict__.pop("latent_size")
    assert work.latent_size == 64


def test_compat_has_the_choices_of_the_published_code():
    sound, compat = load_experiment("takagi2023"), load_experiment("takagi2023-compat")
    for experiment in (sound, compat):
        made = experiment.generation
        assert (made.strength, made.guidance, made.steps, made.samples) == (0.8, 5.0, 50, 5)
        assert not made.search.enabled and experiment.features.resize == "lanczos"
    assert sound.ridge.intercept and sound.ridge.grouped and sound.ridge.alphas is None
    assert not compat.ridge.intercept and not compat.ridge.grouped
    assert compat.ridge.alphas == [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0]
    assert compat.features.posterior == "sample" and not compat.dataset.zscore_sessions


@pytest.mark.parametrize("name", [None, "simulated", "nsd", "bold5000"])
def test_compat_leaves_sessions_as_they_are_in_every_data_set(name):
    experiment = load_experiment("takagi2023-compat", None, [], name=name)
    assert not experiment.dataset.zscore_sessions
    assert load_experiment("takagi2023", None, [], name=name).dataset.zscore_sessions
    settings = ["dataset.zscore_sessions=true"]
    assert load_experiment("takagi2023-compat", None, settings, name=name).dataset.zscore_sessions


def test_one_division_under_two_names_is_one_fold(tmp_path):
    registry.write_fake_dataset(
        "nsd", tmp_path / "f", sessions=37, trials=8, n_subjects=1, picture=8
    )
    settings = ["dataset.options={sessions: 37}", "generation.model=mini"]
    told = {"name": "nsd", "data": tmp_path / "f", "subject": "subj01"}
    experiment = load_experiment("takagi", None, settings, **told)
    work = Workspace(RunDirectory(tmp_path / "a", experiment))
    assert len(work.dataset.splits) == 2 and len(work.splits) == 1
    experiment = load_experiment("takagi", None, [*settings, "dataset.split=takagi2023"], **told)
    work = Workspace(RunDirectory(tmp_path / "b", experiment))
    assert [split.name for split in work.splits] == ["takagi2023"]


def test_scaling_of_sessions_is_taken_back():
    scaled = datasets.load_dataset("simulated", **SMALL)
    raw = without_session_scaling(scaled)
    assert raw.scaling is None and not np.allclose(raw.responses, scaled.responses)
    train = np.isin(raw.trial_stimuli, raw.splits[0].train)
    again = zscore_sessions(raw.responses.values, raw.sessions, train)
    assert np.allclose(again, scaled.responses, atol=1e-4)
    with pytest.raises(CalcarineError, match="zscore_sessions"):
        without_session_scaling(raw)


@pytest.mark.parametrize(
    ("setting", "stage"),
    [
        ("features.posterior=sample", "features"),
        ("features.text=categories", "features"),
        ("features.picture=semantic_map", "features"),
        ("features.resize=lanczos", "features"),
        ("generation.latent_size=48", "features"),
        ("dataset.zscore_sessions=false", "features"),
        ("ridge.intercept=false", "fit"),
        ("ridge.grouped=false", "fit"),
        ("ridge.alphas=[1, 2]", "fit"),
    ],
)
def test_a_changed_setting_changes_the_keys_that_depend_on_it(
    setting, stage, tiny_stable_diffusion, tmp_path, plain_keys
):
    settings = [*QUICK[:3], f"generation.model={tiny_stable_diffusion}", setting]
    work = Workspace(RunDirectory(tmp_path / "run", load_experiment("takagi", None, settings)))
    keys = run_keys(work)
    changed = {name for name, key in keys.items() if key != plain_keys[name]}
    assert {"fit", "reconstruct", "evaluate", "report"} <= changed
    assert ("features" in changed) == (stage == "features")


@pytest.fixture(scope="module")
def plain_keys(tiny_stable_diffusion, tmp_path_factory):
    settings = [*QUICK[:3], f"generation.model={tiny_stable_diffusion}"]
    out = tmp_path_factory.mktemp("plain")
    work = Workspace(RunDirectory(out / "r", load_experiment("takagi", None, settings)))
    return run_keys(work)


def test_half_precision_needs_a_gpu(tiny_stable_diffusion, tmp_path):
    settings = [
        *QUICK,
        "compute.device=cpu",
        f"generation.model={tiny_stable_diffusion}",
        "compute.precision=float16",
    ]
    work = Workspace(RunDirectory(tmp_path / "run", load_experiment("takagi", None, settings)))
    with pytest.raises(CalcarineError, match="float16"):
        _ = work.model


# --- the paper's data ---


def test_on_nsd_the_presets_take_the_papers_voxels_sessions_and_scores():
    sound = load_experiment("takagi2023", name="nsd")
    compat = load_experiment("takagi2023-compat", name="nsd")
    assert sound.dataset.options == {"mask": "brain+streams", "sessions": 37}
    assert compat.dataset.options == {"mask": "streams", "sessions": 37}
    assert not compat.dataset.zscore_sessions
    for experiment in (sound, compat):
        assert experiment.evaluation.protocols == ["calcarine", "takagi"]
    settings = ["dataset.options.sessions=2", "evaluation.protocols=[calcarine]"]
    changed = load_experiment("takagi2023", None, settings, name="nsd")
    assert changed.dataset.options == {"mask": "brain+streams", "sessions": 2}
    assert changed.evaluation.protocols == ["calcarine"]
    for name, preset in ((None, "takagi2023"), ("god", "takagi2023"), ("nsd", "takagi")):
        other = load_experiment(preset, name=name)
        assert other.dataset.options == {} and other.evaluation.protocols == ["calcarine"]


def test_settings_that_a_run_has_are_not_those_of_the_preset_today(tmp_path):
    """A run that was made before the preset took the paper's data stays what it is."""
    run = RunDirectory(tmp_path / "run", load_experiment("takagi2023", name="nsd"))
    old = run.experiment.model_dump(mode="json")
    old["dataset"]["options"], old["encoding"] = {}, {"enabled": True}
    (run.path / "experiment.yaml").write_text(json.dumps(old))
    again = load_experiment(None, run.path / "experiment.yaml", [])
    assert again.dataset.options == {} and again.encoding.train == "means"
    assert again.preset == "takagi2023"
    part = tmp_path / "own.yaml"
    part.write_text("preset: takagi2023\ndataset: {name: nsd, options: {sessions: 2}}\n")
    mine = load_experiment(None, part, [])
    assert mine.dataset.options == {"mask": "brain+streams", "sessions": 2}


def test_the_papers_regions_are_not_cut_by_nsdgeneral(tmp_path):
    registry.write_fake_dataset(
        "nsd", tmp_path / "f", sessions=1, trials=30, n_subjects=1, picture=8
    )
    sizes = {}
    for mask in ("nsdgeneral", "streams", "brain+streams"):
        found = datasets.load_dataset("nsd", tmp_path / "f", "subj01", mask=mask)
        sizes[mask] = [int(found.roi_mask(name).sum()) for name in ("early", "ventral")]
    assert sizes["streams"] == sizes["brain+streams"]
    assert sizes["nsdgeneral"][1] < sizes["streams"][1]


def test_weights_that_are_missing_are_named_before_the_work(tmp_path, monkeypatch, heard):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    (tmp_path / "weights").mkdir()
    settings = ["evaluation.protocols=[calcarine,takagi]", "dataset.name=none"]
    experiment = load_experiment("takagi", None, settings)
    with pytest.raises(CalcarineError, match="none"):
        run_experiment(experiment, tmp_path / "run", heard)
    said = heard.lines
    assert "AlexNet" in said[0] and "Inception v3" in said[0] and "CLIP ViT-L/14" in said[0]
    assert f"calcarine score {tmp_path / 'run'} --protocol takagi --download" in said[0]
    assert missing_networks(load_experiment("takagi"), tmp_path) is None


def test_z_under_the_empty_text_is_z_c_without_c(tiny_stable_diffusion):
    model = LatentDiffusion.from_pretrained(tiny_stable_diffusion)
    tool = Reconstructor(model, steps=4, strength=0.5, guidance=7.0)
    side = model.image_size // model.downscale
    z = np.random.default_rng(0).normal(size=(2, 4, side, side)).astype(np.float32)
    keys = [("a", 0), ("b", 1)]
    empty = model.embed_text([""])
    wanted = tool.from_z_c(z, np.repeat(empty, 2, axis=0), keys)
    found = tool.from_z_empty_text(z, keys)
    assert np.allclose(found, wanted, atol=2e-5)
    assert np.abs(found - tool.from_z(z)).max() > 0.01  # nor is it the decoder alone
    other = np.random.default_rng(1).normal(size=(2, *empty.shape[1:])).astype(np.float32)
    assert np.abs(found - tool.from_z_c(z, other, keys)).max() > 1e-3


def test_other_seeds_by_one_command(tiny_stable_diffusion, tmp_path, monkeypatch):
    fitted = []
    real = decoders._fit_split
    monkeypatch.setattr(
        decoders, "_fit_split", lambda work, *rest: (fitted.append(1), real(work, *rest))
    )
    settings = [*QUICK, f"generation.model={tiny_stable_diffusion}", "evaluation.audit=false"]
    options = {"preset": "takagi2023", "settings": settings, "seeds": 2}
    table = run_seeds(tmp_path / "s", **options)
    assert len(fitted) == 1  # decoders are shared
    assert "(42 to 43), judge scenes" in table.title
    assert (tmp_path / "s" / "seed-42").is_dir() and (tmp_path / "s" / "seed-43").is_dir()
    scores = table.scores.set_index(["method", "metric"])
    assert scores.loc[("z", "pixel correlation"), "sd"] == 0  # no noise is drawn for it
    assert scores.loc[("z_c", "pixel correlation"), "sd"] > 0
    values = [
        next(
            row["value"]
            for row in json.loads((tmp_path / "s" / f"seed-{n}/metrics/summary.json").read_text())
            if (row["method"], row["metric"]) == ("z_c", "pixel correlation")
        )
        for n in (42, 43)
    ]
    row = scores.loc[("z_c", "pixel correlation")]
    assert np.isclose(row["mean"], np.mean(values)) and np.isclose(
        row["sd"], np.std(values, ddof=1)
    )
    plain = load_experiment(
        "takagi2023", None, [*settings, "encoding.enabled=false", "generation.seed=43"]
    )
    alone = run_experiment(plain, tmp_path / "alone")
    assert (alone.metrics / "summary.json").read_text() == (
        tmp_path / "s" / "seed-43" / "metrics" / "summary.json"
    ).read_text()
    assert json.loads((tmp_path / "s" / "seeds.json").read_text())["seeds"] == [42, 43]
    with pytest.raises(CalcarineError, match="2 or more"):
        run_seeds(tmp_path / "t", preset="takagi", seeds=1)
