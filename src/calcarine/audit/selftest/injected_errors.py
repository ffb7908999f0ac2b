"""Errors in splits, statistics, choices and numbers, each with the check that must flag it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image

from calcarine.audit.checks.sample_choice import similarities
from calcarine.audit.inputs import AuditInputs, PictureSet, Prediction, ReportedScore
from calcarine.audit.selftest.cases import (
    blend,
    nearest_training_pictures,
    register_case,
    rounded,
    show,
    shown_as,
    stack,
    with_pictures,
)
from calcarine.audit.selftest.simulated_decoding import (
    SIDE,
    Array,
    SimulatedDecoding,
    of_components,
    reported,
)
from calcarine.stimuli import resize_images

__all__ = [
    "best_by_pixels",
    "best_by_structure",
    "best_score",
    "best_stimuli",
    "blended",
    "blended_methods",
    "blended_unknown",
    "collapsed",
    "cropped_copies",
    "few_pictures",
    "ids_written_otherwise",
    "near_copies",
    "neighbours",
    "penalties_on_test",
    "penalties_on_test_unknown",
    "pretrained",
    "pretrained_unreported",
    "raised",
    "recoloured_copies",
    "repeats",
    "repeats_on_test",
    "repeats_on_test_unknown",
    "retrieved",
    "same_ids",
    "same_pictures",
    "scaler",
    "scaler_gone",
    "shuffled",
    "turned_copies",
    "voxels_on_test",
    "voxels_on_test_unknown",
    "zscored",
    "zscored_callable",
]


@register_case("test stimuli in training, same ids", "split-leaks")
def same_ids(seed: int) -> AuditInputs:
    """One trial of each of two test stimuli has the role train."""
    study = SimulatedDecoding(seed)
    trials = study.trials()
    assert trials.role is not None
    role = trials.role.copy()
    for key in study.test_ids[:2]:
        role[np.flatnonzero(trials.stimulus == key)[0]] = "train"
    return replace(study.inputs(), trials=study.trials(role=role), train=None)


@register_case("test stimuli in training, ids spelled differently", "split-leaks")
def ids_written_otherwise(seed: int) -> AuditInputs:
    """One trial of each of four test stimuli has the role train and another spelling of the id."""
    study = SimulatedDecoding(seed)
    trials = study.trials()
    assert trials.role is not None
    role, stimulus = trials.role.copy(), trials.stimulus.astype(object)
    spellings = ("{}.png", "{} ", "stimuli/{}")
    written = [text.format(key) for text, key in zip(spellings, study.test_ids, strict=False)]
    for key, other in zip(study.test_ids, [*written, study.test_ids[3].upper()], strict=False):
        row = np.flatnonzero(trials.stimulus == key)[0]
        role[row], stimulus[row] = "train", other
    changed = study.trials(role=role, stimulus=stimulus.astype(str))
    return replace(study.inputs(), trials=changed, train=None)


@register_case("test pictures in training, other ids", "split-leaks")
def same_pictures(seed: int) -> AuditInputs:
    """Training contains two of the test pictures under new names."""
    study = SimulatedDecoding(seed)
    inputs = study.inputs()
    extra = study.images[study.n_train : study.n_train + 2]
    return replace(inputs, train=with_pictures(study, extra))


@register_case("test pictures in training, resized and brightened", "near-duplicates")
def near_copies(seed: int) -> AuditInputs:
    """Two test pictures are in training, resized and brightened."""
    study = SimulatedDecoding(seed)
    changed = []
    for picture in study.images[study.n_train : study.n_train + 2]:
        small = Image.fromarray(picture).resize((SIDE - 4, SIDE - 4)).resize((SIDE, SIDE))
        changed.append(np.clip(np.asarray(small) * 1.06 + 6, 0, 255).astype(np.uint8))
    return replace(study.inputs(), train=with_pictures(study, np.stack(changed)))


@register_case("test pictures in training, mirrored or rotated", "near-duplicates")
def turned_copies(seed: int) -> AuditInputs:
    """Training contains one test picture with each change."""
    study = SimulatedDecoding(seed)
    a, b, c = study.images[study.n_train : study.n_train + 3]
    changed = np.stack([a[:, ::-1], np.rot90(b), c[::-1]])
    return replace(study.inputs(), train=with_pictures(study, changed))


@register_case("test pictures in training, recoloured", "near-duplicates")
def recoloured_copies(seed: int) -> AuditInputs:
    """Training contains one test picture with each change."""
    study = SimulatedDecoding(seed)
    a, b, c = study.images[study.n_train : study.n_train + 3].astype(np.float64)
    grey = np.repeat((a @ np.array([0.299, 0.587, 0.114]))[..., None], 3, axis=-1)
    curve = 255 * (c / 255) ** 1.6
    changed = rounded(np.stack([grey, b[..., [2, 0, 1]], curve]))
    return replace(study.inputs(), train=with_pictures(study, changed))


@register_case("test pictures in training, cropped", "near-duplicates")
def cropped_copies(seed: int) -> AuditInputs:
    """Cut are 3 pixels on each side, the left fifth, and 5 pixels on each side."""
    study = SimulatedDecoding(seed)
    a, b, c = study.images[study.n_train : study.n_train + 3]
    cut = [a[3:-3, 3:-3], b[:, SIDE // 5 :], c[5:-5, 5:-5]]
    changed = np.concatenate([resize_images(each[None], SIDE) for each in cut])
    return replace(study.inputs(), train=with_pictures(study, changed))


@register_case("repeats of a stimulus in several folds", "repeats-over-folds")
def repeats(seed: int) -> AuditInputs:
    """Folds are blocks of successive trials."""
    study = SimulatedDecoding(seed)
    fold = (np.arange(len(study.shown)) * 5 // len(study.shown)).astype(str)
    return replace(study.inputs(), trials=study.trials(fold=fold))


@register_case("scaler fitted with test trials", "statistics-from-test")
def scaler(seed: int) -> AuditInputs:
    """The stored scaler is given."""
    return SimulatedDecoding(seed, scale_with_test=True).inputs()


@register_case("scaler fitted with test trials, not stored", "statistics-from-test")
def scaler_gone(seed: int) -> AuditInputs:
    """Only the scaled responses are given."""
    return replace(SimulatedDecoding(seed, scale_with_test=True).inputs(), statistics=())


def _normalised(values: Array, study: SimulatedDecoding) -> Array:
    spread = values.std(axis=0) if len(values) > 1 else np.ones(values.shape[1])
    train = study.latents[: study.n_train]
    unit = (values - values.mean(axis=0)) / spread
    return np.asarray(unit * train.std(axis=0) + train.mean(axis=0))


@register_case("test predictions z-scored over the test set", "transductive-prediction")
def zscored(seed: int) -> AuditInputs:
    """Rescaled to the mean and SD of training, as in Brain-Diffuser."""
    return SimulatedDecoding(seed, change_predictions=_normalised).inputs()


@register_case("test predictions z-scored, decoder available", "transductive-prediction")
def zscored_callable(seed: int) -> AuditInputs:
    """The audit can call the decoder on single stimuli."""
    study = SimulatedDecoding(seed, change_predictions=_normalised)
    inputs = study.inputs()
    result = [
        Prediction(each.name, each.values, each.truth, each.train, study.predict)
        for each in inputs.predictions
    ]
    return replace(inputs, predictions=result)


@register_case("test responses in pre-training, reported", "pretraining-on-test")
def pretrained(seed: int) -> AuditInputs:
    """Principal components of the responses are fitted on all trials."""
    study = SimulatedDecoding(seed, components_with_test=True)
    return replace(study.inputs(), trials=study.trials(pretrain=np.ones(len(study.shown), bool)))


@register_case(
    "test responses in pre-training, not reported", "pretraining-on-test", undetectable=True
)
def pretrained_unreported(seed: int) -> AuditInputs:
    """Outputs cannot show it."""
    study = SimulatedDecoding(seed, components_with_test=True)
    return replace(study.inputs(), trials=study.trials(pretrain=None))


@register_case("penalties chosen on the test set, reported", "choices-on-test")
def penalties_on_test(seed: int) -> AuditInputs:
    """One penalty for each target, by its test error."""
    study = SimulatedDecoding(seed, chosen_on_test="penalties")
    return replace(study.inputs(), decoder_choices=study.decoder_choices())


@register_case(
    "penalties chosen on the test set, not reported", "choices-on-test", undetectable=True
)
def penalties_on_test_unknown(seed: int) -> AuditInputs:
    """Outputs cannot show it."""
    return SimulatedDecoding(seed, chosen_on_test="penalties").inputs()


@register_case("voxels chosen on the test set, reported", "choices-on-test")
def voxels_on_test(seed: int) -> AuditInputs:
    """The voxels that correlate best with the test latents."""
    study = SimulatedDecoding(seed, chosen_on_test="voxels")
    return replace(study.inputs(), decoder_choices=study.decoder_choices())


@register_case("voxels chosen on the test set, not reported", "choices-on-test", undetectable=True)
def voxels_on_test_unknown(seed: int) -> AuditInputs:
    """Outputs cannot show it."""
    return SimulatedDecoding(seed, chosen_on_test="voxels").inputs()


@register_case("best repeat chosen on the test set, reported", "choices-on-test")
def repeats_on_test(seed: int) -> AuditInputs:
    """One of three repeats of each test stimulus."""
    study = SimulatedDecoding(seed, chosen_on_test="repeats")
    return replace(study.inputs(), decoder_choices=study.decoder_choices())


@register_case(
    "best repeat chosen on the test set, not reported", "choices-on-test", undetectable=True
)
def repeats_on_test_unknown(seed: int) -> AuditInputs:
    """Outputs cannot show it."""
    return SimulatedDecoding(seed, chosen_on_test="repeats").inputs()


@register_case("score of the best 20 of 40 test stimuli", "chosen-stimuli")
def best_stimuli(seed: int) -> AuditInputs:
    """The table of trials lists all 40."""
    study = SimulatedDecoding(seed)
    inputs = study.inputs()
    rows = np.sort(np.argsort(-inputs.identification)[: study.n_test // 2])
    ids = [study.test_ids[row] for row in rows]
    truth, recon = (
        PictureSet.of(ids, stack(side)[rows, 0]) for side in (inputs.truth, inputs.recon)
    )
    return replace(
        inputs,
        truth=truth,
        recon=recon,
        sample_choice=None,
        predictions=(),
        others={},
        numbers=reported(truth, recon),
    )


@register_case("best of 5 samples by pixel correlation", "best-of-samples")
def best_by_pixels(seed: int) -> AuditInputs:
    """The sample is chosen by the ground truth."""
    return _picked(seed, "pixel correlation")


@register_case("best of 5 samples by SSIM", "best-of-samples")
def best_by_structure(seed: int) -> AuditInputs:
    """The sample is chosen by the ground truth, with another similarity."""
    return _picked(seed, "SSIM")


def _picked(seed: int, measure: str) -> AuditInputs:
    inputs = SimulatedDecoding(seed).inputs()
    assert inputs.sample_choice is not None
    return show(inputs, similarities(inputs, inputs.sample_choice)[measure].argmax(axis=1))


@register_case("score of the best of 5 samples, all samples shown", "numbers-from-pictures")
def best_score(seed: int) -> AuditInputs:
    """The reported numbers are means over the best samples."""
    inputs = SimulatedDecoding(seed, n_test=16).inputs()
    assert inputs.sample_choice is not None
    samples = inputs.sample_choice.samples
    numbers = reported(inputs.truth, samples, best=True)
    return replace(inputs, recon=samples, sample_choice=None, numbers=numbers)


@register_case("score increased by .03", "numbers-from-pictures")
def raised(seed: int) -> AuditInputs:
    """The reported numbers are too high, without a reason."""
    inputs = SimulatedDecoding(seed, n_test=16).inputs()
    numbers = [ReportedScore(each.metric, each.value + 0.03, 3) for each in inputs.numbers]
    return replace(inputs, numbers=numbers)


@register_case("25 % ground truth blended in, other part given", "pixel-blends")
def blended(seed: int) -> AuditInputs:
    """The other part is the low-level picture of the same method."""
    inputs = SimulatedDecoding(seed).inputs()
    return blend(inputs, inputs.others["low-level"], inputs.truth)


@register_case("25 % ground truth blended in, other part not given", "pixel-blends")
def blended_unknown(seed: int) -> AuditInputs:
    """The other part is a sample that is not given."""
    inputs = SimulatedDecoding(seed).inputs()
    return replace(blend(inputs, inputs.recon, inputs.truth), others={})


@register_case("25 % of a low-level method blended in", "pixel-blends")
def blended_methods(seed: int) -> AuditInputs:
    """No leakage, but a step that must be reported; both parts are given."""
    inputs = SimulatedDecoding(seed).inputs()
    mixed = blend(inputs, inputs.recon, inputs.others["low-level"])
    return replace(mixed, others={**inputs.others, "refined": inputs.recon})


@register_case("training pictures as reconstructions", "retrieval")
def retrieved(seed: int) -> AuditInputs:
    """The training picture with the latents nearest to the prediction."""
    study = SimulatedDecoding(seed)
    values = study.predict(np.arange(study.n_test))
    return shown_as(study.inputs(), nearest_training_pictures(study, values))


@register_case("only stimuli close to training are decoded", "score-by-distance")
def neighbours(seed: int) -> AuditInputs:
    """Predictions of the other half are shuffled."""
    study = SimulatedDecoding(seed, neighbours=True, n_test=60)
    values = study.predict(np.arange(study.n_test))
    half = study.n_test // 2
    values[half:] = np.random.default_rng(seed).permutation(values[half:])
    return shown_as(study.inputs(), study.draw(values, np.random.default_rng(seed), 36.0))


@register_case("predictions of 2 dimensions", "dimension-collapse")
def collapsed(seed: int) -> AuditInputs:
    """Only the leading two components remain."""
    return SimulatedDecoding(seed, change_predictions=of_components(2)).inputs()


@register_case("brain activity shuffled", "ignores-the-brain")
def shuffled(seed: int) -> AuditInputs:
    """Each reconstruction belongs to another stimulus."""
    inputs = SimulatedDecoding(seed).inputs()
    order = np.roll(np.random.default_rng(seed).permutation(len(inputs)), 1)
    images = np.stack([inputs.recon.full(int(row)) for row in order])
    return shown_as(inputs, images)


@register_case("five pictures for all stimuli", "ignores-the-brain")
def few_pictures(seed: int) -> AuditInputs:
    """The generator makes only five pictures."""
    inputs = SimulatedDecoding(seed).inputs()
    return shown_as(inputs, np.stack([inputs.recon.full(row % 5) for row in range(len(inputs))]))
