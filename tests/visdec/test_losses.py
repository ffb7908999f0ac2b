"""Losses of contrastive pre-training against slow loops written from their formulas."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from calcarine.errors import CalcarineError
from calcarine.training import TrainingConfig
from calcarine.visdec.losses import (
    contrast_losses,
    cross_contrast,
    reconstruction_loss,
    self_contrast,
)
from calcarine.visdec.settings import ContrastLoss

DOCS = Path(__file__).parents[2] / "docs" / "visdec.md"


def cosine(a, b):
    a, b = a.double().flatten().tolist(), b.double().flatten().tolist()
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))


def slow_self(first, second, truth, t, form):
    n, total, second_total = len(truth), 0.0, 0.0
    for i in range(n):
        below = sum(math.exp(cosine(first[i], truth[j]) / t) for j in range(n))
        total -= math.log(math.exp(cosine(first[i], truth[i]) / t) / below) / n
        below = sum(math.exp(cosine(second[j], truth[i]) / t) for j in range(n))
        second_total -= math.log(math.exp(cosine(second[i], truth[i]) / t) / below) / n
    return total if form == "code" else (total + second_total) / 2


def slow_cross(first, second, t):
    n, total = len(first), 0.0
    for i in range(n):
        below = sum(math.exp(cosine(first[i], second[j]) / t) for j in range(n))
        total -= math.log(math.exp(cosine(first[i], second[i]) / t) / below) / n
    return total


def slow_reconstruction(guess, truth, hidden):
    errors = []
    for b in range(len(guess)):
        errors += [
            float(np.mean((guess[b, p] - truth[b, p]).double().numpy() ** 2))
            for p in range(guess.shape[1])
            if hidden[b, p]
        ]
    return sum(errors) / len(errors)


@pytest.fixture
def batch():
    draw = torch.Generator().manual_seed(0)
    truth, first, second = (torch.randn(5, 4, 3, generator=draw) for _ in range(3))
    valid = torch.ones(5, 4, dtype=torch.bool)
    valid[1, 3] = valid[4, 2:] = False
    hidden = [(torch.rand(5, 4, generator=draw) < 0.6) & valid for _ in range(2)]
    truth[1, 3] = truth[4, 2:] = 0
    return truth, first, second, valid, hidden


@pytest.mark.parametrize("form", ["paper", "code"])
@pytest.mark.parametrize("temperature", [0.1, 0.7])
def test_contrasts_are_their_formulas(batch, form, temperature):
    truth, first, second, _, _ = (x.flatten(1) if torch.is_tensor(x) else x for x in batch)
    assert float(self_contrast(first, second, truth, temperature, form)) == pytest.approx(
        slow_self(first, second, truth, temperature, form), abs=1e-5
    )
    assert float(cross_contrast(first, second, temperature)) == pytest.approx(
        slow_cross(first, second, temperature), abs=1e-5
    )


@pytest.mark.parametrize("form", ["paper", "code"])
def test_the_total_weighs_each_loss_and_leaves_missing_patches_out(batch, form):
    truth, first, second, valid, hidden = batch
    config = ContrastLoss(0.7, 0.6, 0.3, form=form)
    total, parts = contrast_losses((first, second), truth, tuple(hidden), valid, config)
    a, b, x = ((v * valid[..., None]).flatten(1) for v in (first, second, truth))
    told = [slow_reconstruction(g, truth, h) for g, h in zip((first, second), hidden, strict=True)]
    own, crossed = slow_self(a, b, x, 0.1, form), slow_cross(a, b, 0.1)
    assert float(parts["reconstruction"]) == pytest.approx(sum(told) / 2, abs=1e-5)
    share = 1.0 if form == "paper" else 0.5
    wanted = 0.7 * sum(told) / 2 + share * (0.6 * own + 0.3 * crossed)
    assert float(total) == pytest.approx(wanted, abs=1e-5)
    # What stands in patches that a vector does not have must not matter.
    strange = first.clone()
    strange[1, 3] = 1e3
    again, _ = contrast_losses((strange, second), truth, tuple(hidden), valid, config)
    assert float(again) == float(total)


def test_reconstruction_counts_hidden_patches_only(batch):
    truth, first, _, _, hidden = batch
    wanted = slow_reconstruction(first, truth, hidden[0])
    assert float(reconstruction_loss(first, truth, hidden[0])) == pytest.approx(wanted, abs=1e-6)
    changed = torch.where(hidden[0][..., None], first, first + 7)
    assert float(reconstruction_loss(changed, truth, hidden[0])) == pytest.approx(wanted, abs=1e-6)


def test_a_vector_drawn_twice_is_no_negative_of_itself(batch):
    truth, first, second, _, _ = (x.flatten(1) if torch.is_tensor(x) else x for x in batch)
    rows = torch.tensor([3, 8, 3, 1, 8])
    same = rows[:, None] == rows
    wanted = 0.0
    for i in range(5):
        others = [j for j in range(5) if j == i or rows[j] != rows[i]]
        below = sum(math.exp(cosine(first[i], second[j]) / 0.1) for j in others)
        wanted -= math.log(math.exp(cosine(first[i], second[i]) / 0.1) / below) / 5
    assert float(cross_contrast(first, second, 0.1, same)) == pytest.approx(wanted, abs=1e-5)
    once = float(self_contrast(first, second, truth, 0.1, "paper", torch.eye(5, dtype=bool)))
    assert once == float(self_contrast(first, second, truth, 0.1))


def test_a_weight_of_zero_removes_the_gradient_of_its_loss(batch):
    truth, first, second, valid, hidden = batch
    first = first.clone().requires_grad_()
    config = ContrastLoss(0.0, 0.0, 1.0)
    total, _ = contrast_losses((first, second), truth, tuple(hidden), valid, config)
    (gradient,) = torch.autograd.grad(total, first)
    alone = cross_contrast(*((x * valid[..., None]).flatten(1) for x in (first, second)))
    torch.testing.assert_close(gradient, torch.autograd.grad(alone, first)[0])


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"temperature": 0.0}, "temperature"),
        ({"form": "both"}, "form"),
        ({"reconstruction": 0.0, "self_contrast": 0.0, "cross_contrast": 0.0}, "Weights"),
        ({"self_contrast": -1.0}, "Weights"),
    ],
)
def test_wrong_settings_are_told(wrong, word):
    with pytest.raises(CalcarineError, match=word):
        ContrastLoss(**wrong)


@pytest.mark.parametrize(
    ("batch", "devices", "negatives"),
    [(250, 1, 249), (250, 2, 124), (256, 1, 255), (256, 2, 127), (256, 4, 63), (256, 8, 31)],
)
def test_a_contrast_has_the_negatives_of_one_device(batch, devices, negatives):
    """The table in docs/visdec.md; where nothing differs a contrast costs log(1 + negatives)."""
    n = TrainingConfig(batch_size=batch, devices=devices, strategy="ddp").micro_batch
    alike = torch.ones(n, 32)
    loss = torch.tensor(math.log(1 + negatives))
    for form in ("paper", "code"):
        torch.testing.assert_close(self_contrast(alike, alike, alike, form=form), loss)
    torch.testing.assert_close(cross_contrast(alike, alike), loss)
    assert f"| {batch} | {devices} | {negatives + 1} | {negatives} |" in DOCS.read_text("utf-8")


@pytest.mark.parametrize("devices", [4, 8])
def test_the_batch_of_the_paper_is_refused_on_devices_that_do_not_divide_it(devices):
    with pytest.raises(CalcarineError, match=f"250 cannot be cut evenly into {devices} micro"):
        TrainingConfig(batch_size=250, devices=devices, strategy="ddp")
