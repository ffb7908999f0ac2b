"""One whole road on a tiny simulated brain with a tiny random model."""

import html
import json
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import calcarine as ca
from calcarine.brain import Split
from calcarine.cli.main import app
from calcarine.devices import Compute
from calcarine.errors import CalcarineError
from calcarine.evaluation.results.evaluation import write_evaluation
from calcarine.experiment import load_experiment, run_experiment
from calcarine.experiment import reconstructions as pictures_module
from calcarine.experiment.progress import Progress
from calcarine.experiment.resolved_settings import resolved_settings
from calcarine.experiment.runner import run_one_stage

OPTIONS = {
    "n_train": 24,
    "n_test": 12,
    "n_early": 40,
    "n_ventral": 40,
    "n_other": 10,
    "n_sessions": 3,
}


def experiment(model, *settings):
    return load_experiment(
        "takagi",
        None,
        [
            f"dataset.options={json.dumps(OPTIONS)}",
            f"generation.model={model}",
            "generation.steps=4",
            "generation.samples=2",
            "generation.candidates=2",
            "ridge.n_alphas=5",
            "ridge.n_folds=3",
            "evaluation.n_boot=200",
            "evaluation.n_permutations=200",
            *settings,
        ],
        name="simulated",
    )


@pytest.fixture(scope="module")
def finished(tiny_stable_diffusion, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished")
    return run_experiment(experiment(tiny_stable_diffusion), out / "run")


@pytest.fixture(scope="module")
def in_small_groups(tiny_stable_diffusion, tmp_path_factory):
    """Scores of an uninterrupted run whose pictures are made in groups of eight."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures_module, "GROUP", 8)
        out = tmp_path_factory.mktemp("whole")
        return read(run_experiment(experiment(tiny_stable_diffusion), out / "run"))


def read(run, name="summary.json"):
    return (run.path / "metrics" / name).read_text()


def test_a_run_leaves_all_its_artefacts(finished):
    for name in ("experiment.yaml", "manifest.json", "report.html", "metrics/per_image.parquet"):
        assert (finished.path / name).exists()
    index = pd.read_parquet(finished.reconstructions / "index.parquet")
    assert index.groupby("method").size().to_dict() == {
        "z": 12,
        "c": 24,
        "z_c": 24,
        "z_c, chosen by the brain": 12,
        "direct ridge": 12,
        "ceiling z": 12,
        "ceiling c": 12,
        "ceiling z_c": 12,
    }
    assert all((finished.path / file).exists() for file in index["file"])
    assert not list(finished.path.rglob("*.part"))


def test_every_record_is_complete(finished):
    records = json.loads(read(finished))
    needed = {"method", "metric", "protocol", "value", "ci_low", "ci_high", "n", "chance", "p"}
    needed |= {"p_holm", "definition"}
    assert all(needed <= record.keys() for record in records)
    roles = {record["role"] for record in records}
    assert roles == {"method", "floor", "ceiling"}
    methods = {record["method"] for record in records}
    floors = {"training mean", "random training image", "nearest training image"}
    assert floors | {"shuffled brain (z_c)", "ceiling z_c", "ceiling blurred truth"} <= methods


def test_every_main_score_has_a_verdict_on_the_console_and_in_the_report(finished, tmp_path):
    path = shutil.copytree(finished.path, tmp_path / "run")
    told = CliRunner().invoke(app, ["evaluate", str(path)])
    assert told.exit_code == 0, told.output
    lines = told.output[told.output.index("z_c: ") :].splitlines()
    end = next(at for at, line in enumerate(lines) if "compared with its strongest floor" in line)
    assert lines[end].startswith("z_c compared")
    words = r"(above|below|not distinguishable from) its strongest|ceiling below floor|inconclusive"
    assert all(re.search(words, line) for line in lines[:end]), lines
    page = html.unescape((finished.path / "report.html").read_text())
    assert lines[end] in page
    assert all(line.split(": ", 3)[-1] in page for line in lines[:end] if line[0] != " ")


def test_a_run_is_scored_again_with_the_same_numbers(finished, tmp_path):
    """Also without a report, by command and in Python, and as options say if there are any."""
    path = shutil.copytree(finished.path, tmp_path / "run")
    own = json.loads(read(finished))
    again = ca.score(path)
    write_evaluation(tmp_path / "again", again)
    records = json.loads((tmp_path / "again" / "summary.json").read_text())
    # Floors other than the shuffled brain, and the blurred truth, are no pictures of the run.
    made = [r for r in own if not r["method"].endswith(("image", "mean", "truth)", "truth"))]
    assert records == made
    assert {"identification within category, early layer", "category accuracy"} & {
        record["metric"] for record in records
    }
    file = tmp_path / "scores.json"
    told = CliRunner().invoke(app, ["score", str(path), "--method", "z_c", "--out", str(file)])
    assert told.exit_code == 0, told.output
    assert json.loads(file.read_text())["subject"] == finished.manifest()["dataset"]["subject"]
    written = {r["metric"]: r["p_holm"] for r in json.loads(file.read_text())["records"] if r["p"]}
    exact = {r["metric"]: r["p_holm"] for r in again.records if r["method"] == "z_c" and r["p"]}
    assert written == pytest.approx(exact, abs=1e-6)
    other = ca.score(path, method="z_c", n_permutations=99, judge=None)
    assert not any("layer" in record["metric"] for record in other.records)
    assert {record["n_permutations"] for record in other.records} <= {99, None}


def test_scores_of_a_run_that_is_not_evaluated_say_what_they_lack(finished, tmp_path):
    path = shutil.copytree(finished.path, tmp_path / "run")
    shutil.rmtree(path / "metrics")
    result = ca.score(path, method="z")
    assert "calcarine evaluate" in result.notes[0]
    assert not any("category" in record["metric"] for record in result.records)


def test_the_report_says_simulated(finished):
    page = (finished.path / "report.html").read_text()
    assert "SIMULATED" in page.upper()
    audit = json.loads((finished.path / "audit.json").read_text())
    assert "Are the scores real?" in page and audit["outcome"] in html.unescape(page)
    assert all(check["title"] in html.unescape(page) for check in audit["checks"])
    assert "among the 10 nearest" in page
    manifest = json.loads((finished.path / "manifest.json").read_text())
    assert manifest["simulated"] is True
    assert set(manifest["times"]) >= {"features", "fit", "reconstruct", "evaluate"}


def test_the_report_lists_the_values_that_the_run_decided(finished):
    page = (finished.path / "report.html").read_text()
    rows = dict(re.findall(r"<th[^>]*>([\w.]+)</th><td[^>]*>([^<]*)</td>", page))
    expected = {
        "dataset.subject": "subj01",
        "dataset.folds": "1",
        "compute.precision": Compute.resolve().precision,
        "compute.device": Compute.resolve().device_name,
        "roi.z": "early",
        "roi.c": "ventral",
        "roi.pixels": "early",
        "generation.search.enabled": "no",
        "encoding.enabled": "no",
    }
    assert expected.items() <= rows.items()
    settings = {name: value for name, value in rows.items() if "." in name}
    assert "ridge.alphas" in settings and "generation.autoencoder" in settings
    assert not [name for name, value in settings.items() if value in ("–", "None", "null", "")]
    assert "generation.search.strengths" not in rows


def test_chosen_strengths_stand_in_the_list_of_settings():
    config = load_experiment("takagi", None, ["generation.search.enabled=true"])
    work = SimpleNamespace(
        config=config,
        splits=[Split(f"fold-{k}", ("a",), ("b",), "by hand") for k in range(4)],
        dataset=SimpleNamespace(subject="one", simulated=False),
        roi={"z": "V1"},
        latent_size=64,
        described_model=SimpleNamespace(guidance_rescale=0.0),
        run=SimpleNamespace(manifest=dict),
        compute=Compute.resolve("cpu"),
        chooses_settings=True,
    )
    chosen = {
        "fold-0": {"strength": 0.4, "guidance": 1.0},
        "fold-1": {"strength": 0.2, "guidance": 1.0},
    }
    resolved = resolved_settings(work, chosen)
    assert resolved["generation"]["strength"] == "0.2, 0.4 (chosen in the training data)"
    assert resolved["generation"]["guidance"] == "1 (chosen in the training data)"
    assert resolved["generation"]["search"] == {"enabled": True}
    assert resolved["dataset"]["split"] == "fold-0 to fold-3"
    assert resolved["ridge"] == {"alphas": "21 from 0.01 to 1e+08, evenly spaced in log10"}
    config.ridge.alphas = [1.0, 10.0]
    replaced = resolved_settings(work, chosen)["ridge"]
    assert set(replaced) == {"alpha_min", "alpha_max", "n_alphas"}


def test_penalties_at_an_end_are_told_while_decoders_are_fitted(
    finished, tiny_stable_diffusion, tmp_path, heard
):
    path = shutil.copytree(finished.path, tmp_path / "run")
    narrow = experiment(tiny_stable_diffusion, "ridge.alphas=[10,1000]")
    run_one_stage(path, "fit", narrow, heard)
    (summary,) = (path / "decoder").glob("*/summary.json")
    fits = json.loads(summary.read_text())
    warned = [f"of {name} " for name, fit in sorted(fits.items()) if fit["warning"]]
    (note,) = [text for text in heard.lines if "an end of the penalties" in text]
    assert warned and all(name in note for name in warned)


def test_the_bottleneck_ends_in_the_run_itself_and_stands_in_the_report(
    finished, tmp_path, monkeypatch
):
    path = shutil.copytree(finished.path, tmp_path / "run")
    told = CliRunner().invoke(app, ["bottleneck", str(path), "--ranks", "0,2"])
    assert told.exit_code == 0, told.output
    curve = json.loads((path / "bottleneck" / "curve.json").read_text())
    assert {(row["rank"], row["whole"]) for row in curve if row["rank"] < 3} == {
        (0, False),
        (2, False),
    }
    nothing = next(
        row
        for row in curve
        if (row["rank"], row["metric"]) == (0, "identification, pixels, fixed reconstruction")
    )
    assert nothing["p"] > 0.01  # the noise differs, and nothing else
    page = (path / "report.html").read_text()
    assert "How many dimensions of brain activity do the scores need?" in page

    def never(*arguments):
        raise AssertionError("made again")

    monkeypatch.setattr("calcarine.experiment.bottleneck_curve._pictures", never)
    again = CliRunner().invoke(app, ["bottleneck", str(path), "--ranks", "2"])
    assert again.exit_code == 0, again.output


def test_the_whole_decoder_in_the_bottleneck_gives_the_pictures_of_the_run(finished, monkeypatch):
    from calcarine.experiment import bottleneck_curve as bottleneck
    from calcarine.experiment.workspace import Workspace

    work = Workspace(finished)
    (split,) = work.splits
    fold = bottleneck._fold(work, split, 0)
    for method in ("z", "c", "z_c"):
        made = bottleneck._pictures(work, fold, method, 0, True)
        for stimulus, picture in zip(split.test, made, strict=True):
            file = pictures_module._file(finished.reconstructions, method, stimulus, 0)
            # Made in groups of another size, whose sums end in another last digit.
            same = pictures_module.read_image(file).astype(int)
            assert np.abs(picture - same).max() <= 1


def test_new_scores_take_old_curves_and_audits_away(finished, tiny_stable_diffusion, tmp_path):
    path = shutil.copytree(finished.path, tmp_path / "run")
    (path / "bottleneck").mkdir()
    (path / "bottleneck" / "curve.json").write_text("[]")
    changed = experiment(tiny_stable_diffusion, "evaluation.seed=7", "evaluation.audit=false")
    run_experiment(changed, path)
    left = [
        (path / name).exists() for name in ("audit.json", "audit.html", "bottleneck/curve.json")
    ]
    assert left == [False, False, False]
    assert "Are the scores real?" not in (path / "report.html").read_text()


def test_an_unknown_protocol_is_told_before_anything_is_made(tiny_stable_diffusion, tmp_path):
    wrong = experiment(tiny_stable_diffusion, "evaluation.protocols=[calcarine, dream]")
    with pytest.raises(CalcarineError, match="no protocol 'dream'"):
        run_experiment(wrong, tmp_path / "run")
    assert not list((tmp_path / "run").rglob("*.zarr"))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(["--ranks", "0,x"], "not a list of numbers"), (["--method", "dream"], "some of z, c, z_c")],
)
def test_mistakes_of_the_bottleneck_are_told(finished, arguments, told):
    found = CliRunner().invoke(app, ["bottleneck", str(finished.path), *arguments])
    assert isinstance(found.exception, CalcarineError) and told in str(found.exception)


class _StopError(Exception):
    pass


class _Interrupting(Progress):
    """Breaks off the run at the n-th step of one piece of work."""

    def __init__(self, label, after):
        self.label, self.left = label, after

    def track(self, label, total):
        from contextlib import contextmanager

        @contextmanager
        def counting():
            def advance(count):
                if label == self.label:
                    self.left -= 1
                    if self.left < 0:
                        raise _StopError

            yield advance

        return counting()


@pytest.mark.parametrize(
    ("label", "after"), [("Latents z", 0), ("Decoders", 0), ("Pictures", 3), ("Scores", 2)]
)
def test_an_interrupted_run_ends_with_the_same_numbers(
    in_small_groups, tiny_stable_diffusion, tmp_path, label, after, monkeypatch
):
    monkeypatch.setattr(pictures_module, "GROUP", 8)
    out = tmp_path / "run"
    with pytest.raises(_StopError):
        run_experiment(experiment(tiny_stable_diffusion), out, _Interrupting(label, after))
    assert not (out / "metrics" / "summary.json").exists()
    continued = run_experiment(experiment(tiny_stable_diffusion), out)
    assert read(continued) == in_small_groups


def test_batch_size_changes_no_picture(finished, tiny_stable_diffusion, tmp_path):
    one = run_experiment(
        experiment(tiny_stable_diffusion, "generation.batch_size=1"), tmp_path / "run"
    )
    worst = 0
    for file in sorted(finished.reconstructions.rglob("*.png")):
        other = one.reconstructions / file.relative_to(finished.reconstructions)
        a, b = pictures_module.read_image(file), pictures_module.read_image(other)
        worst = max(worst, int(np.abs(a.astype(int) - b).max()))
    assert worst <= 1  # one step of 8 bits where a value sits on the edge of rounding


def test_a_changed_setting_repeats_only_what_depends_on_it(finished, tiny_stable_diffusion):
    decoder = finished.decoder / "shared" / "predictions.safetensors"
    picture = next((finished.reconstructions / "z").glob("*.png"))
    before = decoder.stat().st_mtime_ns, picture.stat().st_mtime_ns
    run_experiment(experiment(tiny_stable_diffusion, "evaluation.seed=1"), finished.path)
    assert (decoder.stat().st_mtime_ns, picture.stat().st_mtime_ns) == before
    run_experiment(experiment(tiny_stable_diffusion, "generation.strength=0.5"), finished.path)
    assert decoder.stat().st_mtime_ns == before[0]
    assert picture.stat().st_mtime_ns != before[1]


def test_unknown_roi_is_told_with_the_known_ones(tiny_stable_diffusion, tmp_path):
    with pytest.raises(CalcarineError, match="early"):
        run_experiment(experiment(tiny_stable_diffusion, "roi.z=V9"), tmp_path / "run")


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "calcarine", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run"], "--preset"),
        (["run", "--preset", "none"], "no preset"),
        (["run", "absent.yaml"], "absent.yaml"),
        (["run", "--preset", "takagi", "--dataset", "nothing"], "nothing"),
        (["run", "--preset", "takagi", "--dataset", "digits69", "--data", "absent"], "absent"),
        (["report", "absent"], "absent"),
        (["datasets", "info", "nothing"], "nothing"),
    ],
)
def test_mistakes_end_with_one_sentence_and_exit_code_2(arguments, told, tmp_path):
    if arguments[0] == "run":
        arguments = [*arguments, "--out", tmp_path / "run"]
    result = command(*arguments)
    assert result.returncode == 2, result.stderr
    assert told in result.stderr and "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) <= 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["fit", "RUN", "--set", "generation.steps=9"],
        ["reconstruct", "RUN", "--preset", "takagi"],
        ["encode", "RUN", "--preset", "takagi"],
        ["pretrain", "RUN", "--preset", "visdec2023"],
        ["init", "RUN", "--preset", "takagi", "--set", "generation.steps=9"],
        *(
            [name, "RUN", *given]
            for name in ("audit", "bottleneck", "score", "gallery")
            for given in (["--set", "generation.steps=9"], ["--preset", "takagi"])
        ),
    ],
)
def test_settings_of_a_run_change_only_by_run(arguments, tmp_path):
    path, runner = tmp_path / "run", CliRunner()
    told = runner.invoke(app, ["init", str(path), "--dataset", "simulated"])
    assert told.exit_code == 0, told.output
    before = (path / "experiment.yaml").read_bytes()
    with pytest.raises(CalcarineError, match=f"calcarine run {path} --set KEY=VALUE"):
        runner.invoke(
            app,
            [str(path) if word == "RUN" else word for word in arguments],
            catch_exceptions=False,
        )
    assert (path / "experiment.yaml").read_bytes() == before


@pytest.mark.parametrize("command_name", ["audit", "score"])
def test_folders_of_pictures_have_no_settings(command_name, tmp_path):
    given = ["--images", str(tmp_path), "--truth", str(tmp_path), "--set", "generation.steps=9"]
    with pytest.raises(CalcarineError, match="Only runs have settings"):
        CliRunner().invoke(app, [command_name, *given], catch_exceptions=False)


def test_help_and_list_work():
    assert "decode" in command("--help").stdout or "fMRI" in command("--help").stdout
    listed = command("datasets", "list").stdout
    assert all(name in listed for name in ("simulated", "digits69", "miyawaki_vbcca"))


def test_chosen_strength_and_guidance_draw_the_pictures(tiny_stable_diffusion, tmp_path):
    """A run that is given what another has chosen draws the same pictures."""
    search = json.dumps(
        {"enabled": True, "strengths": [0.5, 0.9], "guidances": [1, 4], "n_stimuli": 6, "steps": 3}
    )
    plain = ("evaluation.audit=false", "evaluation.ceilings=false", "generation.candidates=0")
    run = run_experiment(
        experiment(tiny_stable_diffusion, *plain, f"generation.search={search}"), tmp_path / "a"
    )
    (file,) = run.decoder.glob("*/settings.json")
    chosen = json.loads(file.read_text())
    assert len(chosen["scores"]) == 4
    best = max(chosen["scores"], key=lambda row: row[2])
    assert [chosen["strength"], chosen["guidance"]] == best[:2]
    given = [f"generation.{name}={chosen[name]}" for name in ("strength", "guidance")]
    same = run_experiment(experiment(tiny_stable_diffusion, *plain, *given), tmp_path / "b")
    other = [f"generation.{name}={value}" for name, value in (("strength", 0.7), ("guidance", 2))]
    different = run_experiment(experiment(tiny_stable_diffusion, *plain, *other), tmp_path / "c")
    names = sorted(
        p.relative_to(run.reconstructions) for p in run.reconstructions.rglob("z_c/*.png")
    )
    assert names
    for name in names:
        assert (run.reconstructions / name).read_bytes() == (
            same.reconstructions / name
        ).read_bytes()
    assert any(
        (run.reconstructions / n).read_bytes() != (different.reconstructions / n).read_bytes()
        for n in names
    )
