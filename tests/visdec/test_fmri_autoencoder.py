"""Patches, maskings and the masked autoencoder of voxel vectors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from calcarine.errors import CalcarineError
from calcarine.visdec.augmentation import augment_vectors
from calcarine.visdec.fmri_autoencoder import AutoencoderConfig, FMRIAutoencoder
from calcarine.visdec.masking import draw_masking, no_masking
from calcarine.visdec.patches import PatchedVectors, join_patched, patch_vectors, sine_positions
from calcarine.visdec.pretraining import ContrastPretraining
from calcarine.visdec.settings import Augmentation, ContrastLoss
from calcarine.visdec.transformer_blocks import PatchLinear

TINY = AutoencoderConfig(
    n_patches=7, patch=4, dim=16, depth=2, heads=2, decoder_dim=12, decoder_depth=2, decoder_heads=2
)


def vectors(n, voxels, seed=0):
    return np.random.default_rng(seed).standard_normal((n, voxels)).astype(np.float32)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(params=["shared", "own"])
def tiny(request):
    torch.manual_seed(0)
    return FMRIAutoencoder(replace(TINY, embedding=request.param)).eval()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 5))
def test_patches_hold_the_vector_then_its_beginning(voxels, patch, more):
    x = vectors(3, voxels)
    if voxels < patch:
        with pytest.raises(CalcarineError, match="shorter than one patch"):
            patch_vectors(x, patch)
        return
    own = -(-voxels // patch)
    cut = patch_vectors(x, patch, own + more)
    assert cut.values.shape == (3, own + more, patch)
    assert cut.valid.sum(1).tolist() == [own] * 3
    flat = cut.flat().numpy()
    np.testing.assert_array_equal(flat[:, :voxels], x)
    np.testing.assert_array_equal(flat[:, voxels : own * patch], x[:, : own * patch - voxels])
    assert not flat[:, own * patch :].any()


def test_subjects_of_different_size_share_a_batch():
    cut = join_patched([vectors(2, 9), vectors(3, 26, 1)], 4)
    assert cut.values.shape == (5, 7, 4)
    assert cut.valid.sum(1).tolist() == [3, 3, 7, 7, 7]
    with pytest.raises(CalcarineError, match="takes 6"):
        join_patched([vectors(3, 26)], 4, 6)
    with pytest.raises(CalcarineError, match="at least one source"):
        join_patched([], 4)


def test_values_that_are_not_finite_are_told():
    x = vectors(3, 9)
    x[1, 2] = np.nan
    with pytest.raises(CalcarineError, match=r"Vector 1 holds values that are not finite \(1"):
        patch_vectors(x, 4)


def test_positions_are_sines_and_cosines():
    table = sine_positions(5, 6).numpy()
    assert not table[0].any()
    for place in range(5):
        for k in range(3):
            angle = place / 10000 ** (2 * k / 6)
            assert table[1 + place, k] == pytest.approx(np.sin(angle), abs=1e-6)
            assert table[1 + place, 3 + k] == pytest.approx(np.cos(angle), abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=5),
    st.floats(0, 0.99),
    st.integers(0, 2**20),
)
def test_each_sample_hides_its_share_of_its_own_patches(lengths, ratio, seed):
    valid = torch.arange(12)[None] < torch.tensor(lengths)[:, None]
    masking = draw_masking(valid, ratio, seeded(seed))
    for row, length in enumerate(lengths):
        kept = max(1, length - int(length * ratio))
        mask = torch.ones(masking.visible.shape[1], dtype=torch.bool)
        if masking.mask is not None:
            mask = masking.mask[row]
        seen = masking.visible[row][mask].tolist()
        assert len(seen) == len(set(seen)) == kept
        hidden = masking.hidden[row].nonzero().flatten().tolist()
        assert sorted([*seen, *hidden]) == list(range(length))


def test_maskings_are_uniform_over_patches():
    valid = torch.ones(4000, 8, dtype=torch.bool)
    share = draw_masking(valid, 0.75, seeded()).hidden.float().mean(0)
    assert torch.all((share - 0.75).abs() < 0.03)


def test_a_short_vector_gives_the_same_alone_and_beside_longer_ones(tiny):
    short, long = vectors(2, 12), vectors(2, 28, 1)
    alone = patch_vectors(short, 4)
    together = join_patched([short, long], 4)
    with torch.no_grad():
        a = tiny.encoder(alone).tokens
        b = tiny.encoder(together).tokens[:2, : a.shape[1]]
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
        c = tiny.decode(a, alone)
        d = tiny.decode(tiny.encoder(together).tokens, together)[:2, :3]
        torch.testing.assert_close(c, d, atol=1e-5, rtol=1e-5)


def test_hidden_patches_reach_nothing(tiny):
    cut = patch_vectors(vectors(3, 28), 4)
    masking = draw_masking(cut.valid, 0.6, seeded())
    other = cut.values.clone()
    other[masking.hidden] += 5
    with torch.no_grad():
        a, b = tiny(cut, masking), tiny(PatchedVectors(other, cut.valid), masking)
    torch.testing.assert_close(a, b)
    other = cut.values.clone()
    other[~masking.hidden] += 5
    with torch.no_grad():
        assert not torch.allclose(a, tiny(PatchedVectors(other, cut.valid), masking), atol=1e-3)


def test_the_order_of_visible_patches_does_not_matter(tiny):
    cut = patch_vectors(vectors(3, 28), 4)
    masking = no_masking(cut.valid)
    turned = type(masking)(masking.visible.flip(1), None, masking.hidden)
    with torch.no_grad():
        torch.testing.assert_close(tiny(cut, masking), tiny(cut, turned), atol=1e-5, rtol=1e-5)


def test_filled_up_patches_tell_nothing(tiny):
    cut = join_patched([vectors(1, 12), vectors(1, 28, 1)], 4)
    masking = draw_masking(cut.valid, 0.5, seeded())
    assert masking.mask is not None
    other = cut.values.clone()
    other[masking.hidden] += 5
    with torch.no_grad():
        torch.testing.assert_close(
            tiny(cut, masking), tiny(PatchedVectors(other, cut.valid), masking)
        )


def test_a_vector_with_more_patches_than_the_network_is_told(tiny):
    with pytest.raises(CalcarineError, match="8 patches and the network takes 7"):
        tiny.encoder(patch_vectors(vectors(1, 32), 4))


def test_patches_of_their_own_weights_are_as_many_linear_layers():
    layer = PatchLinear(7, 4, 5)
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(3, 6, 4, generator=seeded())  # shorter than the longest
    told = torch.stack(
        [F.linear(x[:, k], layer.weight[k].T, layer.bias[k]) for k in range(6)], dim=1
    )
    torch.testing.assert_close(layer(x), told)


def test_what_embedding_means():
    cut = patch_vectors(np.tile(vectors(1, 4), 7), 4)  # seven times the same patch
    for embedding, same in (("shared", True), ("own", False)):
        torch.manual_seed(0)
        encoder = FMRIAutoencoder(replace(TINY, embedding=embedding)).encoder
        embedded = encoder.patch_embed(cut.values)
        assert torch.allclose(embedded[:, 0], embedded[:, 1]) == same


def test_the_published_size():
    with torch.device("meta"):
        model = FMRIAutoencoder(AutoencoderConfig())
    encoder = sum(p.numel() for p in model.encoder.parameters())
    whole = sum(p.numel() for p in model.parameters())
    assert encoder == pytest.approx(151e6, rel=0.01)
    assert whole - encoder == pytest.approx(13.1e6, rel=0.03)


def test_augmentations_change_what_they_say():
    cut = join_patched([vectors(200, 12), vectors(200, 28, 1)], 4)
    dropped = augment_vectors(cut, Augmentation(drop=0.2), seeded()).values
    alive = cut.values != 0
    assert float((dropped[alive] == 0).float().mean()) == pytest.approx(0.2, abs=0.02)
    assert torch.equal(dropped[dropped != 0], cut.values[dropped != 0])
    noisy = augment_vectors(cut, Augmentation(noise=0.5), seeded()).values - cut.values
    assert float(noisy[cut.valid].std()) == pytest.approx(0.5, rel=0.05)
    assert not noisy[~cut.valid].any()
    gained = augment_vectors(cut, Augmentation(gain=0.3), seeded()).values
    ratio = (gained / cut.values)[cut.valid.nonzero(as_tuple=True)]
    assert float(ratio.log().std()) == pytest.approx(0.3, rel=0.1)
    assert torch.equal(augment_vectors(cut, Augmentation(), seeded()).values, cut.values)
    with pytest.raises(CalcarineError, match="drop below 1"):
        Augmentation(drop=1.0)


def test_pretraining_learns_what_vectors_have_in_common():
    rng = np.random.default_rng(0)
    loads = rng.standard_normal((3, 28))
    x = (rng.standard_normal((96, 3)) @ loads).astype(np.float32)
    torch.manual_seed(0)
    task = ContrastPretraining(
        FMRIAutoencoder(TINY),
        patch_vectors(x[:64], 4),
        patch_vectors(x[64:], 4),
        ContrastLoss(1.0, 0.5, 0.5, mask_ratio=0.5),
    )
    assert (task.n_train, task.n_validation) == (64, 32)
    rows = torch.arange(32)
    with torch.no_grad():
        before = task.validation_loss(rows, seeded(9))[1]
    optimizer = torch.optim.AdamW(task.parameters(), 3e-3)
    for step in range(150):
        loss, _ = task.training_loss(torch.randint(64, (32,), generator=seeded(step)), seeded(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        after = task.validation_loss(rows, seeded(9))[1]
    assert float(after["reconstruction"]) < 0.6 * float(before["reconstruction"])
    assert float(after["self_contrast"]) < 0.6 * float(before["self_contrast"])
    assert float(after["cross_contrast"]) < float(before["cross_contrast"])
    assert all(p.grad is not None and p.grad.any() for p in task.parameters())
