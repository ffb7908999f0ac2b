"""Vis-Dec as an estimator, on tiny networks."""

from __future__ import annotations

import json

import numpy as np
import pytest
import sklearn.exceptions
import torch
from sklearn.base import clone

from calcarine.datasets import load_dataset
from calcarine.decoding import NotFittedError
from calcarine.diffusion import LatentDiffusion
from calcarine.errors import CalcarineError, DamagedFileError, SettingError, ShapeError
from calcarine.visdec import VisDec, VisDecSettings
from calcarine.visdec.image_autoencoder import new_image_autoencoder

SIZES = {
    "n_train": 24,
    "n_test": 4,
    "n_sessions": 2,
    "n_early": 40,
    "n_ventral": 20,
    "n_other": 10,
}
TRAINING = {"steps": 2, "batch_size": 8, "warmup_steps": 0, "validate_every": None}


@pytest.fixture(scope="module")
def model(tiny_stable_diffusion):
    return LatentDiffusion.from_pretrained(tiny_stable_diffusion, device="cpu")


@pytest.fixture(scope="module")
def brain():
    return load_dataset("simulated", **SIZES)


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("vit-mae")
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
    ).model.save_pretrained(folder)
    encoder = {"patch": 16, "dim": 16, "depth": 1, "heads": 2}
    decoder = {"decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 2}
    guide = {"image_autoencoder": str(folder), "loss": {"layers": 2}, "training": TRAINING}
    return VisDecSettings.from_preset(
        "mini",
        {
            "encoder": encoder | decoder,
            "pretrain": {"training": TRAINING},
            "guide": guide,
            "finetune": {"training": TRAINING, "steps": 2},
        },
    )


@pytest.fixture(scope="module")
def fitted(brain, model, settings):
    return VisDec(settings, model).fit(brain)


def test_fitting_twice_gives_the_same_pictures(fitted, brain, model, settings, tmp_path):
    pictures = fitted.reconstruct(brain)
    assert pictures.shape == (4, 64, 64, 3) and pictures.dtype == np.float32
    before = {name: weight.clone() for name, weight in model.unet.named_parameters()}
    steps = []
    again = VisDec(settings, model).fit(
        brain, folder=str(tmp_path), progress=lambda phase, count: steps.append((phase, count))
    )
    np.testing.assert_array_equal(again.reconstruct(brain), pictures)
    for phase in ("pretrain", "guide", "finetune"):
        assert sum(count for name, count in steps if name == phase) == 2
    resumed = VisDec(settings, model).fit(brain, folder=tmp_path)
    np.testing.assert_array_equal(resumed.reconstruct(brain), pictures)
    for name, weight in model.unet.named_parameters():
        assert torch.equal(weight, before[name])


def test_a_folder_of_other_responses_is_refused(brain, model, settings, tmp_path):
    VisDec(settings, model).fit(brain, folder=tmp_path)
    other = load_dataset("simulated", subject="subj02", **SIZES)
    with pytest.raises(CalcarineError, match="another training"):
        VisDec(settings, model).fit(other, folder=tmp_path)


def test_loaded_equals_saved(fitted, brain, model, tmp_path):
    fitted.save(str(tmp_path / "decoder"))
    loaded = VisDec.load(str(tmp_path / "decoder"), model)
    np.testing.assert_array_equal(loaded.reconstruct(brain), fitted.reconstruct(brain))
    assert loaded.history_ == fitted.history_
    assert loaded.history_["trained_on"] == sorted(brain.splits[0].train)
    model_digest, model.digest = model.digest, "other"
    try:
        with pytest.raises(SettingError, match="has other weights"):
            VisDec.load(tmp_path / "decoder", model)
    finally:
        model.digest = model_digest
    (tmp_path / "decoder" / "visdec.json").write_text("{}")
    with pytest.raises(DamagedFileError, match="holds no Vis-Dec decoder"):
        VisDec.load(tmp_path / "decoder", model)


def test_responses_give_what_the_data_set_gives(fitted, brain):
    test = brain.test(None, "all")
    pictures = fitted.reconstruct(brain)
    np.testing.assert_array_equal(fitted.reconstruct(test.data, test.stimulus_ids), pictures)
    one = fitted.reconstruct(test.data[1], test.stimulus_ids[1])
    assert one.shape == pictures.shape[1:]
    assert np.abs(one - pictures[1]).max() < 1e-3
    several = fitted.reconstruct(brain, samples=2)
    assert several.shape == (4, 2, 64, 64, 3)
    assert np.abs(several[:, 0] - pictures).max() < 1e-3
    assert np.abs(several[:, 1] - pictures).max() > 0.01


def test_what_cannot_be_reconstructed_says_why(fitted, brain):
    data = brain.test(None, "all").data
    with pytest.raises(SettingError, match="a stimulus id for each response"):
        fitted.reconstruct(data)
    with pytest.raises(ShapeError, match="4 responses and 1 keys"):
        fitted.reconstruct(data, ["a"])
    with pytest.raises(CalcarineError, match="voxels"):
        fitted.reconstruct(data[:, :-1], brain.splits[0].test)
    with pytest.raises(SettingError, match="samples is 0"):
        fitted.reconstruct(brain, samples=0)


def test_follows_scikit_learn(brain, model, settings):
    decoder = VisDec(settings, "mini", roi="early")
    assert clone(decoder).get_params() == decoder.get_params()
    assert decoder.set_params(roi="all") is decoder
    assert repr(decoder) == "VisDec(settings='VisDecSettings', model='mini', roi='all'; not fitted)"
    for use in (decoder.reconstruct, decoder.save):
        with pytest.raises(NotFittedError, match="This VisDec is not fitted yet"):
            use(brain if use == decoder.reconstruct else "nowhere")
    with pytest.raises(sklearn.exceptions.NotFittedError):
        decoder.reconstruct(brain)


def test_mistyped_settings_are_named(brain, model):
    with pytest.raises(SettingError, match=r"setting guide\.enabeld is wrong"):
        VisDec({"guide": {"enabeld": False}}, model).fit(brain)
    with pytest.raises(SettingError, match="no Vis-Dec settings 'maxi'; choose one of mini, paper"):
        VisDec("maxi", model).fit(brain)
    with pytest.raises(SettingError, match="predicted latent"):
        VisDecSettings.from_preset("mini", {"finetune": {"loss": {"latent": 0}}})


def rows_of(folder):
    """Number of training and of validation rows of each phase."""
    read = {path.parent.name: json.loads(path.read_text()) for path in folder.glob("*/*.json")}
    return {k: (v["identity"]["n_train"], v["identity"]["n_validation"]) for k, v in read.items()}


def test_all_training_stimuli_train_unless_some_validate(brain, model, settings, tmp_path):
    decoder = VisDec(settings, model).fit(brain, folder=tmp_path / "all")
    assert len(brain.splits[0].train) == 24
    assert rows_of(tmp_path / "all") == {
        "pretrain": (brain.train().data.shape[0], 0),
        "guide": (24, 0),
        "finetune": (24, 0),
    }
    assert decoder.history_["validation"] == []
    content = settings.model_dump() | {"validation": 0.25}
    content["guide"]["training"] |= {"select": "best", "validate_every": 1}
    decoder = VisDec(VisDecSettings.model_validate(content), model)
    decoder.fit(brain, folder=tmp_path / "some")
    assert rows_of(tmp_path / "some")["guide"] == (18, 6)
    held_out = decoder.history_["validation"]
    assert len(held_out) == 6 and set(held_out) < set(brain.splits[0].train)


@pytest.mark.parametrize("phase", ["pretrain", "guide", "finetune"])
@pytest.mark.parametrize(
    "training",
    [
        {"validate_every": 10},
        {"select": "best", "validate_every": 10},
        {"patience": 2, "validate_every": 10},
    ],
)
def test_choosing_by_validation_needs_validation_stimuli(phase, training):
    changes = {phase: {"training": training}}
    with pytest.raises(SettingError, match=rf"{phase}\.training need validation stimuli") as error:
        VisDecSettings.from_preset("mini", changes)
    assert "set validation above 0" in str(error.value) and "\n" not in str(error.value)
    VisDecSettings.from_preset("mini", {"validation": 0.1, **changes})
    if phase != "finetune":  # a phase that is left out chooses nothing
        off = {phase: {"enabled": False, "training": training}}
        VisDecSettings.from_preset("mini", off)


def test_the_settings_of_the_paper_are_in_epochs():
    """Sun et al. (2023): 140, 60 and 700 epochs, here of HCP with GOD, and of GOD's 1,200."""
    paper = VisDecSettings.from_preset("paper")
    assert paper.validation == 0
    steps = [
        getattr(paper, phase).training.for_rows(n).n_steps
        for phase, n in {"pretrain": 136_000, "guide": 1_200, "finetune": 1_200}.items()
    ]
    assert steps == [76_160, 4_500, 105_000]
    assert paper.pretrain.training.for_rows(136_000).warmup_steps == 21_760
    assert paper.pretrain.training.for_rows(1_200).n_steps == 672


def test_a_length_that_is_given_replaces_the_one_of_the_preset():
    short = {"steps": 5, "warmup_epochs": 0}
    training = VisDecSettings.from_preset("paper", {"guide": {"training": short}}).guide.training
    assert (training.steps, training.epochs) == (5, None)
    training = VisDecSettings.from_preset(
        "mini", {"guide": {"training": {"epochs": 5}}}
    ).guide.training
    assert (training.steps, training.epochs) == (None, 5)
    with pytest.raises(CalcarineError, match="set it to 0 and give warmup_steps"):
        VisDecSettings.from_preset("paper", {"guide": {"training": {"steps": 5}}})
    with pytest.raises(CalcarineError, match="both set the length"):
        VisDecSettings.from_preset("paper", {"guide": {"training": {"steps": 5, "epochs": 5}}})


@pytest.mark.parametrize("left_out", ["pretrain", "guide"])
def test_phases_can_be_left_out(brain, model, settings, left_out):
    content = settings.model_dump()
    content[left_out]["enabled"] = False
    decoder = VisDec(VisDecSettings.model_validate(content), model).fit(brain)
    assert np.isfinite(decoder.reconstruct(brain)).all()
