import numpy as np
import pytest

from calcarine.diffusion import LatentDiffusion
from calcarine.diffusion.trajectory import block_names, denoising_stage_steps, record_trajectory
from calcarine.errors import CalcarineError


@pytest.fixture(scope="module")
def model(tiny_stable_diffusion):
    return LatentDiffusion.from_pretrained(tiny_stable_diffusion, device="cpu")


@pytest.fixture
def work(model, rng):
    context = rng.normal(size=(5, *model.context_shape)).astype(np.float32)
    start = rng.normal(size=(5, 4, 8, 8)).astype(np.float32)
    return context, [(f"s{i}", 0) for i in range(5)], start


OPTIONS = {"strength": 0.8, "steps": 10, "guidance": 5.0}


def test_following_changes_nothing_and_ends_where_generation_ends(model, work):
    seen = record_trajectory(model, *work, latents_at=[0, 7], **OPTIONS)
    np.testing.assert_array_equal(seen.final, model.generate(*work, **OPTIONS))
    np.testing.assert_array_equal(seen.latents[7], seen.final)
    assert not np.allclose(seen.latents[0], seen.final)


@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_batches_change_nothing(model, work, guidance):
    what = {"latents_at": [2], "blocks": block_names(model), "blocks_at": [1, 6]}
    options = {**OPTIONS, "guidance": guidance}
    one = record_trajectory(model, *work, **what, **options, batch_size=2)
    all_ = record_trajectory(model, *work, **what, **options, batch_size=5)
    np.testing.assert_allclose(one.latents[2], all_.latents[2], atol=1e-5)
    assert set(one.activations) == {(b, s) for b in block_names(model) for s in (1, 6)}
    for key, values in one.activations.items():
        np.testing.assert_allclose(values, all_.activations[key], atol=1e-4)


def test_an_activation_is_that_of_the_unet_under_the_text(model, work):
    """The oracle: call the U-Net once more with the latents of the step before."""
    import torch

    context, _, _ = work
    seen = record_trajectory(
        model, *work, latents_at=[2], blocks=["mid_block"], blocks_at=[3], **OPTIONS
    )
    caught = {}
    handle = model.unet.mid_block.register_forward_hook(
        lambda module, inputs, output: caught.update(mid=output)
    )
    model.scheduler.set_timesteps(10)
    t = model.scheduler.timesteps[10 - 8 + 3]
    with torch.inference_mode():
        model.unet(
            torch.from_numpy(seen.latents[2]), t, encoder_hidden_states=torch.from_numpy(context)
        )
    handle.remove()
    np.testing.assert_allclose(seen.activations["mid_block", 3], caught["mid"].numpy(), atol=1e-5)


def test_no_hook_stays_behind(model, work):
    record_trajectory(model, *work, blocks=["mid_block"], blocks_at=[0], **OPTIONS)
    assert not model.unet.mid_block._forward_hooks
    with pytest.raises(CalcarineError):
        record_trajectory(model, *work, blocks=["mid_block"], blocks_at=[99], **OPTIONS)
    assert not model.unet.mid_block._forward_hooks


def test_wrong_names_and_steps_are_told(model, work):
    with pytest.raises(CalcarineError, match=r"no block middle; it has down_blocks\.0"):
        record_trajectory(model, *work, blocks=["middle"], blocks_at=[0], **OPTIONS)
    with pytest.raises(CalcarineError, match=r"no denoising step 8; .* leave 8"):
        record_trajectory(model, *work, latents_at=[8], **OPTIONS)
    with pytest.raises(CalcarineError, match="at least 3 denoising steps, not 2"):
        denoising_stage_steps(2)


def test_stages_are_the_middles_of_the_thirds():
    assert denoising_stage_steps(40) == {"early": 6, "middle": 20, "late": 33}
    assert denoising_stage_steps(3) == {"early": 0, "middle": 1, "late": 2}
