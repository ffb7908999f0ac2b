"""Readers of files: how to write a small valid input, and what the command line does with it."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
import yaml

TESTS = Path(__file__).parents[1]
Use = Callable[[Path], object]


@dataclass(frozen=True)
class Target:
    """Files that are read together.

    Parameters
    ----------
    name
    build
        Writes a valid input to an empty folder, once.
    uses
        Each reads a folder and raises what its reader raises; on the valid
        input none may raise.
    files
        Patterns of the files that are damaged; all by default.
    weight
        Share of the inputs; small where reading is slow.
    slow
        Whether it is left out where there are few inputs.
    """

    name: str
    build: Callable[[Path], object]
    uses: tuple[Use, ...]
    files: tuple[str, ...] = ("**/*",)
    weight: float = 1.0
    slow: bool = False

    def chosen(self, folder: Path, rng: Random) -> Path:
        """A file; all kinds of files are as likely, however many there are of each."""
        groups: dict[tuple[str, ...], list[Path]] = {}
        for pattern in self.files:
            for path in sorted(folder.glob(pattern)):
                if path.is_file() and path.name != "SIMULATED.txt":
                    groups.setdefault((path.parent.name, *path.suffixes[-2:]), []).append(path)
        return rng.choice(groups[rng.choice(sorted(groups))])


def module_of_tests(path: str) -> Any:
    """Helpers of other tests."""
    spec = spec_from_file_location(path.replace("/", "_").removesuffix(".py"), TESTS / path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def calcarine(*words: object) -> None:
    """What the command line does, but for the sentence at its end."""
    from calcarine.cli.main import app

    app([str(word) for word in words], standalone_mode=False)


def finite(values: Any) -> None:
    if not np.isfinite(np.asarray(values)).all():
        raise AssertionError("values that are not finite were loaded")


# Data sets.


def fake(name: str, folder: Path, **options: Any) -> None:
    from calcarine.datasets import registry

    folder.rmdir()
    registry.write_fake_dataset(name, folder, **options)


def check(name: str, folder: Path) -> None:
    calcarine("datasets", "check", folder, "--name", name)


def load(name: str, folder: Path, **options: Any) -> None:
    from calcarine.datasets import registry

    found = registry.load_dataset(name, folder, **options)
    finite(found.responses.values)
    finite(found.test().data)
    found.stimuli.images(found.stimuli.ids[:3])
    found.stimuli.captions()


def prepare(name: str, folder: Path, **options: Any) -> None:
    from calcarine.datasets import registry

    registry.prepare_dataset(name, folder, workers=1, **options)


def dataset(
    name: str, label: str = "", ready: bool = False, weight: float = 1.0, **options: Any
) -> Target:
    """A data set as it is published, or with a prepared subject."""
    uses: list[Use] = [partial(check, name), partial(load, name)]
    if ready:
        uses.append(partial(prepare, name))
    return Target(label or name, partial(fake, name, **options), tuple(uses), weight=weight)


def build_own_mat(folder: Path) -> None:
    """Betas in a struct of MATLAB's version 5, captions as JSON, regions as arrays."""
    from scipy.io import savemat

    fake("own", folder)
    for path in sorted((folder / "betas").glob("*.npy")):
        inner = np.empty((1, 2), object)
        inner[0] = [np.zeros((2, 2)), np.arange(3)]
        struct = {"betas": np.load(path), "other": inner, "name": "text"}
        savemat(path.with_suffix(".mat"), {"results": struct}, do_compression="2" in path.name)
        path.unlink()
    text = (
        (folder / "calcarine.yaml").read_text().replace("betas/*.npy", "betas/*.mat:results.betas")
    )
    (folder / "calcarine.yaml").write_text(text)


def build_prepared(folder: Path) -> None:
    fake("own", folder)
    prepare("own", folder)


def vectors(folder: Path) -> None:
    from calcarine.datasets import hcp

    for _, found in hcp.vectors(folder, window=10):
        finite(found)


def prepare_hcp(folder: Path) -> None:
    from calcarine.datasets import registry

    registry.prepare_dataset("hcp", folder, workers=1)


# Features, splits, settings.


def features(folder: Path) -> None:
    from calcarine.features import FeatureStore

    def extract(rows: slice) -> Any:
        return np.ones((rows.stop - rows.start, 4, 3), np.float32)

    store = FeatureStore(folder / "features")
    for name in ("z", "c"):
        values = store.get(name, {"model": "a"}, 10, (4, 3), extract, chunk=4)
        if not (values == 1).all():
            raise AssertionError("damaged features were loaded")


def build_split(folder: Path) -> None:
    from calcarine.splits.split_rules import random_split

    random_split([f"s{number}" for number in range(20)], 6, 0).split.save(folder / "split.json")


def read_split(folder: Path) -> None:
    from calcarine.brain.split import Split

    Split.read(folder / "split.json")


def build_experiment(folder: Path) -> None:
    from calcarine.experiment import load_experiment

    for preset in ("takagi", "visdec-mini", "encoding"):
        settings = load_experiment(preset).model_dump(mode="json")
        (folder / f"{preset}.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))


def read_experiments(folder: Path) -> None:
    from calcarine.experiment import load_experiment

    for path in sorted(folder.glob("*.yaml")):
        load_experiment(None, path)


SETTINGS = """\
generation.steps=4
generation.strength=0.8
dataset.options={"n_train": 24, "n_test": 12}
evaluation.protocols=["calcarine", "visdec"]
ridge.n_folds=3
subsets.rois=[early, ventral]
name=mine
"""


def build_settings(folder: Path) -> None:
    lines = [line for line in SETTINGS.splitlines() if not line.startswith("subsets")]
    (folder / "settings.words").write_text("\n".join(lines))


def read_settings(folder: Path) -> None:
    from calcarine.errors import CalcarineError
    from calcarine.experiment import load_experiment

    words = (folder / "settings.words").read_bytes().decode("utf-8", "surrogateescape").split("\n")
    errors = []
    for word in words:
        try:
            load_experiment("takagi", None, [word], name="simulated")
        except CalcarineError as error:
            errors.append(error)
    load_experiment("takagi", None, words, name="simulated")


# Pictures, scores, audits.


def pictures(n: int = 6, side: int = 16, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (n, side, side, 3)).astype(np.uint8)


def build_pictures(folder: Path) -> None:
    from PIL import Image

    for number, (suffix, mode) in enumerate(
        (
            ("png", "RGB"),
            ("png", "RGBA"),
            ("png", "P"),
            ("png", "L"),
            ("png", "1"),
            ("jpg", "RGB"),
            ("jpg", "CMYK"),
            ("gif", "P"),
            ("tif", "RGB"),
            ("bmp", "RGB"),
            ("webp", "RGB"),
            ("ppm", "RGB"),
            ("pgm", "L"),
        )
    ):
        picture = Image.fromarray(pictures(1)[0]).convert(mode)
        picture.getexif()[274] = 6
        place = folder / f"{number}.{suffix}"
        picture.save(place, **({"exif": picture.getexif()} if suffix in ("jpg", "webp") else {}))
    Image.fromarray(pictures(1)[0, ..., 0].astype(np.uint16) * 257).save(folder / "13.png")
    Image.fromarray(pictures(1)[0, ..., 0].astype(np.float32) / 255).save(folder / "14.tiff")


def read_pictures(folder: Path) -> None:
    from calcarine.evaluation.inputs.folders import read_folder
    from calcarine.stimuli.image_files import check_picture, read_picture

    for path in sorted(folder.iterdir()):
        check_picture(path)
        read_picture(path)
    read_folder(folder)


def read_label_maps(folder: Path) -> None:
    from calcarine.stimuli.image_files import read_label_map

    for name in ("2.png", "3.png"):
        read_label_map(folder / name)


def build_stacks(folder: Path) -> None:
    shown = pictures()
    np.save(folder / "a.npy", shown)
    np.savez(folder / "b.npz", pictures=shown)
    np.savez_compressed(folder / "c.npz", pictures=shown / 255)
    torch.save(torch.as_tensor(shown.transpose(0, 3, 1, 2).copy()), folder / "d.pt")
    torch.save({"images": torch.as_tensor(shown)}, folder / "e.pt")


def read_stacks(folder: Path) -> None:
    from calcarine.evaluation.inputs.folders import read_folder

    for path in sorted(folder.iterdir()):
        read_folder(path)


def score_stacks(folder: Path) -> None:
    from calcarine.evaluation.scoring.score import score_folder
    from calcarine.evaluation.scoring.settings import ScoreSettings

    settings = ScoreSettings(n_boot=5, n_permutations=19)
    for other in ("b.npz", "c.npz", "d.pt", "e.pt"):
        score_folder(folder / "a.npy", folder / other, settings=settings)


def build_scores(folder: Path) -> None:
    from calcarine.evaluation.results.score_files import write_scores
    from calcarine.evaluation.scoring.score import score_arrays

    for name, seed in (("a", 1), ("b", 2)):
        near = (pictures().astype(int) + pictures(seed=seed)) // 2
        result = score_arrays(
            pictures(), near.astype(np.uint8), method=name, n_boot=5, n_permutations=19
        )
        write_scores(folder / f"{name}.json", result, "s1")


def compare(folder: Path, mix: bool = False) -> None:
    from calcarine.evaluation.comparison.compare import compare_scores
    from calcarine.evaluation.comparison.tables import comparison_content, comparison_table

    found = compare_scores(
        [folder / "a.json", folder / "b.json"], mix=mix, n_boot=5, n_permutations=19
    )
    comparison_table(found)
    json.dumps(comparison_content(found), allow_nan=False)


def build_claim(folder: Path) -> None:
    import pandas as pd
    from PIL import Image

    rng = np.random.default_rng(0)
    ids = [f"im{number}" for number in range(6)]
    truth = pictures()
    for name, shown in (("truth", truth), ("images", (truth + pictures(seed=1)) // 2)):
        (folder / name).mkdir()
        for key, picture in zip(ids, shown, strict=True):
            Image.fromarray(picture).save(folder / name / f"{key}.png")
    trials = pd.DataFrame({"stimulus": [*(f"t{n}" for n in range(12)), *ids]})
    trials["role"] = ["train"] * 12 + ["test"] * 6
    trials["session"] = [1 + n % 2 for n in range(18)]
    trials["fold"] = 0
    trials.to_csv(folder / "ids.csv", index=False)
    values = rng.normal(size=(18, 5))
    np.save(folder / "responses.npy", values)
    np.savez(
        folder / "responses.npz",
        responses=values,
        scaler_sessions=[1, 2],
        scaler_mean=np.zeros((2, 5)),
        scaler_scale=np.ones((2, 5)),
    )
    pd.concat([trials, pd.DataFrame(values).add_prefix("v")], axis=1).to_csv(
        folder / "responses.csv", index=False
    )
    arrays = {"predictions": rng.normal(size=(6, 4)), "targets": rng.normal(size=(6, 4))}
    arrays["train_targets"] = rng.normal(size=(12, 4))
    np.savez(folder / "predictions.npz", **arrays, ids=np.array(ids))
    np.save(folder / "predictions.npy", arrays["predictions"])
    torch.save({k: torch.as_tensor(v) for k, v in arrays.items()}, folder / "predictions.pt")


CHECKS = [
    "split-leaks",
    "repeats-over-folds",
    "statistics-from-test",
    "transductive-prediction",
    "pretraining-on-test",
    "dimension-collapse",
]


def audit_claim(folder: Path, responses: str, predictions: str) -> None:
    from calcarine.audit import audit
    from calcarine.audit.folders import inputs_from_folders

    material = inputs_from_folders(
        folder / "images",
        folder / "truth",
        ids=folder / "ids.csv",
        responses=folder / responses,
        predictions=folder / predictions,
    )
    json.dumps(audit(material, CHECKS).content(), allow_nan=False)


# A run.

OPTIONS = {
    "n_train": 24,
    "n_test": 8,
    "n_early": 30,
    "n_ventral": 30,
    "n_other": 5,
    "n_sessions": 2,
}


def model_beside(folder: Path) -> Path:
    model = folder.parent / "tiny-model" / "model"
    if not model.is_dir():
        model.parent.mkdir()
        module_of_tests("conftest.py").make_stable_diffusion(model.parent)
    return model


def build_run(folder: Path) -> None:
    from calcarine.experiment import load_experiment, run_experiment

    settings = [
        f"dataset.options={json.dumps(OPTIONS)}",
        f"generation.model={model_beside(folder)}",
        "generation.steps=2",
        "generation.samples=1",
        "generation.candidates=0",
        "ridge.n_alphas=3",
        "ridge.n_folds=2",
        "evaluation.n_boot=100",
        "evaluation.n_permutations=100",
        "evaluation.ceilings=false",
    ]
    run_experiment(load_experiment("takagi", None, settings, name="simulated"), folder / "run")
    calcarine("bottleneck", folder / "run", "--ranks", "0,2")


def build_encoding(folder: Path) -> None:
    settings = [
        f"dataset.options={json.dumps(OPTIONS)}",
        f"generation.model={model_beside(folder)}",
        "generation.steps=2",
        "encoding.analyses=[latents]",
        "encoding.n_boot=100",
        "encoding.n_permutations=20",
    ]
    words = [part for text in settings for part in ("--set", text)]
    calcarine("encode", "--dataset", "simulated", "--out", folder / "run", *words)


def build_visdec(folder: Path) -> None:
    from calcarine.experiment import load_experiment, run_experiment
    from calcarine.visdec.image_autoencoder import new_image_autoencoder

    images = folder.parent / "vit-mae"
    new_image_autoencoder(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=32,
        patch_size=8,
        decoder_hidden_size=16,
        decoder_num_hidden_layers=1,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=16,
    ).model.save_pretrained(images)
    settings = module_of_tests("experiment/test_visdec.py").settings(model_beside(folder), images)
    run_experiment(load_experiment("visdec-mini", None, settings), folder / "run")


def encode(folder: Path) -> None:
    calcarine("encode", folder / "run")


def encoding_report(folder: Path) -> None:
    from calcarine.reporting.encoding_report import build_encoding_report

    build_encoding_report(folder / "run")


def bottleneck(folder: Path) -> None:
    calcarine("bottleneck", folder / "run", "--ranks", "0,2")


def report(folder: Path) -> None:
    calcarine("report", folder / "run")


def score_run(folder: Path) -> None:
    calcarine("score", folder / "run", "--n-boot", 5, "--n-permutations", 19)


def audit_run(folder: Path) -> None:
    from calcarine.audit import audit
    from calcarine.experiment.run_audit_inputs import inputs_from_run
    from calcarine.experiment.run_directory import opened_run
    from calcarine.experiment.workspace import Workspace

    with opened_run(folder / "run", writes=False) as opened:
        audit(inputs_from_run(Workspace(opened), None, (), 0), CHECKS)


def continue_run(folder: Path) -> None:
    calcarine("run", folder / "run")


def gallery(folder: Path) -> None:
    calcarine("gallery", folder / "run", "--out", folder / "gallery.html")


def build_other_run(folder: Path) -> None:
    module_of_tests("study/conftest.py").make_run(folder / "run", 4)


def study_of_run(folder: Path) -> None:
    out = folder / "study"
    calcarine(
        "study",
        "make",
        folder / "run",
        "--out",
        out,
        "--originals",
        2,
        "--raters",
        1,
        "--practice",
        1,
        "--catch",
        1,
        "--size",
        32,
    )


# Fitted models.


def build_ridge(folder: Path) -> None:
    from calcarine.linear import BandedRidgeCV, RidgeCV, save

    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(20, 6)), rng.normal(size=(20, 3))
    save(RidgeCV(alphas=[1.0, 10.0], cv=3).fit(X, Y), folder / "ridge")
    groups = BandedRidgeCV([0, 0, 0, 1, 1, 1], alphas=[1.0, 10.0], n_candidates=2)
    save(groups.fit(X, Y), folder / "group")


def load_ridge(folder: Path, name: str) -> None:
    from calcarine.linear import load

    found = load(folder / name)
    repr(found)
    finite(found.predict(np.ones((2, 6))))


def build_latents(folder: Path) -> None:
    from calcarine import datasets
    from calcarine.decoding import LatentRegression

    found = datasets.load_dataset("simulated", **OPTIONS)
    rng = np.random.default_rng(0)
    n = len(found.stimuli.ids)
    z, c = rng.normal(size=(n, 2, 2, 2)), rng.normal(size=(n, 3, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = LatentRegression(alphas=np.array([1.0, 10.0]), n_folds=2)
        model.fit(found, found.splits[0], z, c).save(folder / "decoder")


def load_latents(folder: Path) -> None:
    from calcarine.decoding import LatentRegression

    found = LatentRegression.load(folder / "decoder")
    for name, ridge in found.ridge_.items():
        finite(found.predict_target(name, np.ones((2, ridge.n_features_in_))))


def build_encoder(folder: Path) -> None:
    from calcarine.training.tensor_trees import save_tree
    from calcarine.visdec.encoder_storage import new_autoencoder, save_encoder
    from calcarine.visdec.fmri_autoencoder import AutoencoderConfig

    config = AutoencoderConfig(
        n_patches=5,
        patch=4,
        dim=16,
        depth=1,
        heads=2,
        decoder_dim=12,
        decoder_depth=1,
        decoder_heads=2,
    )
    network = new_autoencoder(config)
    save_encoder(folder / "encoder", network, {"from": "GOD", "epoch": 3})
    state = {"network": network.state_dict(), "step": 3, "history": [{"loss": 0.5}, (1, None)]}
    save_tree(state, folder / "checkpoint")


def load_encoder(folder: Path) -> None:
    from calcarine.visdec import encoder_storage as storage

    storage.read_about(folder / "encoder")
    storage.load_encoder(folder / "encoder")


def load_checkpoint(folder: Path) -> None:
    from calcarine.training.tensor_trees import load_tree

    load_tree(folder / "checkpoint")


def build_model(folder: Path) -> None:
    shutil.copytree(model_beside(folder), folder / "model")


def load_model(folder: Path) -> None:
    from calcarine.diffusion.generators import load_model

    model = load_model(folder / "model", "cpu")
    finite(model.embed_text(["a cat", "two dogs"]))


def build_published(folder: Path) -> None:
    from safetensors.torch import save_file

    layout = module_of_tests("visdec/published_layout.py")
    weights = layout.stored(layout.random_autoencoder())
    torch.save({"model": weights, "epoch": 139, "config": {"a": 1}}, folder / "new.pt")
    save_file(weights, folder / "safe.safetensors")


def load_published(folder: Path) -> None:
    from calcarine.visdec.published_encoder import load_published_encoder

    for name in ("new.pt", "safe.safetensors"):
        load_published_encoder(folder / name, heads=2, decoder_heads=3)


# A study.


def build_study(folder: Path) -> None:
    study_tests = module_of_tests("study/conftest.py")
    run = study_tests.make_run(folder.parent / "study-run", 6)
    study = study_tests.Study(
        study_tests.make_study(
            study_tests.from_runs([run]),
            folder / "study",
            n_originals=2,
            n_raters=2,
            practice=1,
            catch=1,
            size=32,
        ).path
    )
    for _, token in study.links():
        study_tests.Rater(study, token).finish(study_tests.first)
    with study.connection(write=True) as connection:
        connection.execute("SELECT 1")


def study_command(command: str, folder: Path) -> None:
    words = ("--out", folder / "answers.csv") if command == "export" else ()
    calcarine("study", command, folder / "study", *words)


def study(commands: Iterable[str]) -> tuple[Use, ...]:
    return tuple(partial(study_command, command) for command in commands)


ALL = (
    *(
        dataset("own", f"own-{form}", ready=True, weight=0.4, betas=form)
        for form in ("npy", "nii", "h5")
    ),
    Target("own-mat", build_own_mat, (partial(check, "own"), partial(load, "own"))),
    Target(
        "own-prepared",
        build_prepared,
        (partial(load, "own"), partial(check, "own")),
        ("prepared/**/*",),
    ),
    dataset("bids", ready=True, weight=0.4),
    dataset("nsd", ready=True, weight=0.3, n_subjects=1, sessions=2, trials=30, picture=16),
    dataset(
        "nsd",
        "nsd-nifti",
        ready=True,
        weight=0.3,
        n_subjects=1,
        sessions=2,
        trials=30,
        picture=16,
        betas="nii.gz",
    ),
    dataset("god", people=1, voxels=20, size=8),
    dataset("bold5000", people=["CSI1"], voxels=3, size=12),
    Target(
        "hcp",
        partial(fake, "hcp", people=2, grayordinates=300, frames=40),
        (partial(check, "hcp"), vectors, prepare_hcp),
    ),
    *(dataset(name) for name in ("digits69", "miyawaki_vbcca", "ncc_s2", "haxby_slice")),
    Target("features", features, (features,)),
    Target("split", build_split, (read_split,), weight=2),
    Target("experiment", build_experiment, (read_experiments,)),
    Target("settings", build_settings, (read_settings,)),
    Target("pictures", build_pictures, (read_pictures, read_label_maps), weight=2),
    Target("stacks", build_stacks, (read_stacks, score_stacks)),
    Target("scores", build_scores, (compare, partial(compare, mix=True)), weight=3),
    Target(
        "audit",
        build_claim,
        (
            partial(audit_claim, responses="responses.csv", predictions="predictions.npz"),
            partial(audit_claim, responses="responses.npz", predictions="predictions.npy"),
            partial(audit_claim, responses="responses.npy", predictions="predictions.pt"),
        ),
        weight=2,
    ),
    Target("run", build_run, (audit_run, score_run), weight=0.4),
    Target("run-report", build_run, (report,), weight=0.2),
    Target("run-continued", build_run, (continue_run, bottleneck), weight=0.15, slow=True),
    Target("encoding", build_encoding, (encode, encoding_report), weight=0.03, slow=True),
    Target(
        "visdec",
        build_visdec,
        (audit_run, continue_run),
        ("run/networks/**/*", "run/decoder/**/*", "run/.stages/*", "run/*.json", "run/*.yaml"),
        weight=0.03,
        slow=True,
    ),
    Target("gallery", build_other_run, (gallery, study_of_run), weight=1),
    Target(
        "ridge",
        build_ridge,
        (partial(load_ridge, name="ridge"), partial(load_ridge, name="group")),
        weight=2,
    ),
    Target("latents", build_latents, (load_latents,)),
    Target("encoder", build_encoder, (load_encoder, load_checkpoint), weight=2),
    Target("model", build_model, (load_model,)),
    Target("published", build_published, (load_published,)),
    Target("study", build_study, study(("status", "export", "analyse", "invite"))),
)
TARGETS = {target.name: target for target in ALL}
