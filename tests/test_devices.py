"""Devices and precisions that exist, and batches that fit."""

import gc
import warnings
import weakref

import numpy as np
import pytest
import torch

from calcarine.decoding import Reconstructor
from calcarine.devices import (
    BatchSizes,
    Compute,
    SmallerBatchWarning,
    resolve_device,
    resolve_precision,
    tf32_products,
)
from calcarine.diffusion import LatentDiffusion
from calcarine.diffusion.trajectory import record_trajectory
from calcarine.errors import CalcarineError, SettingError
from calcarine.evaluation import score_arrays
from calcarine.evaluation.networks.judges import load_judge
from calcarine.features.image_networks import ImageNetwork, network_layer

CPU = torch.device("cpu")
KEYS = [("a", 0), ("b", 0), ("b", 1), ("c", 0), ("d", 0)]


# --- devices and precisions


def test_auto_is_cuda_before_mps_before_the_cpu(gpus):
    for count, mps, expected in ((2, True, "cuda"), (0, True, "mps"), (0, False, "cpu")):
        gpus(count, mps=mps)
        for auto in ("auto", None):
            assert resolve_device(auto) == torch.device(expected)


def test_a_device_that_exists_is_taken_as_it_is(gpus):
    gpus(2, mps=True)
    for name in ("cpu", "cuda", "cuda:1", "mps", torch.device("cuda:0")):
        assert resolve_device(name) == torch.device(name)


@pytest.mark.parametrize(
    ("count", "name", "told"),
    [
        (0, "cuda", "device is cuda, and PyTorch finds no CUDA GPU .* choose auto or cpu"),
        (0, "cuda:1", "device is cuda:1, and PyTorch finds no CUDA GPU"),
        (1, "cuda:1", "finds 1 CUDA GPU on this machine; choose cuda:0"),
        (2, "cuda:7", "finds 2 CUDA GPUs on this machine; choose cuda:0 or cuda:1"),
        (1, "mps", "device is mps, the GPU of an Apple computer"),
        (1, "gpu", "no device 'gpu'; choose auto, cpu, cuda, cuda:N or mps"),
    ],
)
def test_a_device_that_is_missing_is_told_in_one_sentence(gpus, count, name, told):
    gpus(count)
    with pytest.raises(SettingError, match=told):
        resolve_device(name)


@pytest.mark.parametrize(
    ("device", "capability", "expected"),
    [
        ("cpu", None, "float32"),
        ("mps", None, "float16"),
        ("cuda", (9, 0), "bfloat16"),
        ("cuda", (8, 6), "bfloat16"),
        ("cuda:1", (7, 5), "float16"),
        ("cuda", (7, 0), "float16"),
        ("cuda", (6, 1), "float32"),
    ],
)
def test_auto_is_half_precision_where_a_gpu_is_good_at_it(gpus, device, capability, expected):
    gpus(2, capability)
    for auto in ("auto", None):
        assert resolve_precision(auto, torch.device(device)) == getattr(torch, expected)


def test_a_precision_that_is_given_is_taken_or_refused(gpus):
    gpus(1, (6, 1))
    cuda = torch.device("cuda")
    for name in ("float32", "float16", "bfloat16"):
        assert resolve_precision(name, cuda) == getattr(torch, name)
        assert resolve_precision(getattr(torch, name), cuda) == getattr(torch, name)
    assert resolve_precision("bfloat16", CPU) == torch.bfloat16
    with pytest.raises(SettingError, match="float16 needs a GPU, and the device is cpu"):
        resolve_precision("float16", CPU)
    for name in ("half", torch.float64):
        with pytest.raises(SettingError, match="choose auto, float32, float16 or bfloat16"):
            resolve_precision(name, CPU)


def test_what_is_resolved_reads_as_words(gpus):
    gpus(1)
    assert str(Compute.resolve()) == "bfloat16 on cuda (Some GPU)"
    both = Compute.resolve("cuda", "float32", tf32=True)
    assert str(both) == "float32 (products in TF32) on cuda (Some GPU)"
    assert str(Compute.resolve("cpu", tf32=True)) == "float32 on cpu"


@pytest.mark.parametrize("allowed", [False, True])
def test_tf32_is_set_for_a_while(allowed):
    def state():
        return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32

    before = state()
    with tf32_products(allowed):
        assert state() == (allowed, allowed)
        with tf32_products(not allowed):
            assert state() == (not allowed, not allowed)
        assert state() == (allowed, allowed)
    with pytest.raises(ValueError, match="within"), tf32_products(allowed):
        raise ValueError("within")
    assert state() == before


@pytest.mark.skipif(
    not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="an older PyTorch"
)
def test_tf32_that_was_set_by_its_newer_name_is_restored():
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    before = products.fp32_precision, convolutions.fp32_precision
    try:
        for name in ("tf32", "ieee"):
            products.fp32_precision = convolutions.fp32_precision = name
            with tf32_products(False):
                assert products.fp32_precision != "tf32" and convolutions.fp32_precision != "tf32"
            assert (products.fp32_precision == "tf32") == (name == "tf32")
            assert (convolutions.fp32_precision == "tf32") == (name == "tf32")
    finally:
        products.fp32_precision, convolutions.fp32_precision = before


# --- batches that fit


def too_small(largest, sizes=None):
    """Return a function that runs out of memory above a number of rows."""

    def check(count):
        if sizes is not None:
            sizes.append(count)
        if count > largest:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    return check


def rows_of(work, count, size, sizes=None):
    return [*(sizes or BatchSizes()).run(work, count, size, "drawing")]


def test_a_batch_is_halved_until_it_fits_and_this_is_said_once():
    tried = []
    check = too_small(3, tried)

    def work(rows):
        check(rows.stop - rows.start)
        return (rows.start, rows.stop)

    sizes = BatchSizes()
    with pytest.warns(SmallerBatchWarning, match="too small for 7 items at once.*drawing") as said:
        assert rows_of(work, 7, 16, sizes) == [(0, 3), (3, 6), (6, 7)]
        # What fitted is where later work begins.
        assert rows_of(work, 5, 16, sizes) == [(0, 3), (3, 5)]
    assert len(said) == 1
    assert tried == [7, 3, 3, 1, 3, 2]


def test_kinds_of_work_have_their_own_size():
    sizes, tried = BatchSizes(), []
    check = too_small(2, tried)

    def work(rows):
        check(rows.stop - rows.start)

    with pytest.warns(SmallerBatchWarning):
        [*sizes.run(work, 4, 4, "decoding", (64, 64))]
    tried.clear()
    [*sizes.run(lambda rows: tried.append(rows.stop - rows.start), 4, 4, "decoding", (32, 32))]
    [*sizes.run(lambda rows: tried.append(rows.stop - rows.start), 4, 4, "encoding", (64, 64))]
    [*sizes.run(work, 4, 4, "decoding", (64, 64))]
    assert tried == [4, 4, 2, 2]


def test_memory_that_is_too_small_for_one_row_remains_an_error():
    def work(rows):
        too_small(0)(rows.stop - rows.start)

    with pytest.warns(SmallerBatchWarning), pytest.raises(torch.OutOfMemoryError):
        rows_of(work, 4, 4)


@pytest.mark.parametrize("error", [MemoryError(), ValueError("other"), RuntimeError("shape")])
def test_other_errors_are_not_tried_again(error):
    tried = []

    def work(rows):
        tried.append(rows)
        raise error

    with pytest.raises(type(error)):
        rows_of(work, 4, 4)
    assert len(tried) == 1


def test_a_batch_size_below_1_is_refused():
    with pytest.raises(SettingError, match="batch_size is 0"):
        rows_of(lambda rows: None, 4, 0)


def test_tensors_of_the_failed_batch_are_gone_before_the_next_one():
    made = []

    def work(rows):
        alive = [reference() for reference in made if reference() is not None]
        assert not alive
        tensor = torch.zeros(rows.stop - rows.start)
        made.append(weakref.ref(tensor))
        too_small(1)(len(tensor))

    gc.disable()  # nothing is left for the garbage collector
    try:
        with pytest.warns(SmallerBatchWarning):
            rows_of(work, 2, 2)
    finally:
        gc.enable()
    assert len(made) == 3


# --- networks in batches that fit


@pytest.fixture
def model(tiny_stable_diffusion):
    return LatentDiffusion.from_pretrained(tiny_stable_diffusion, device="cpu")


@pytest.fixture
def crowded(model, monkeypatch):
    """The model on a GPU whose memory holds two pictures; the sizes of all batches."""
    sizes = []

    def limit(name, part, method, rows=lambda value: value):
        original = getattr(part, method)
        check = too_small(2, sizes)

        def limited(first, *args, **kwargs):
            check(rows(first))
            return original(first, *args, **kwargs)

        monkeypatch.setattr(part, method, limited)

    limit("encode", model.vae, "encode", len)
    limit("decode", model.vae, "decode", len)
    limit("unet", model.unet, "forward", lambda x: len(x) // 2)  # guided
    limit("text", model.text_encoder, "forward", len)
    return model, sizes


def test_every_network_of_a_model_goes_on_with_smaller_batches(tiny_stable_diffusion, crowded, rng):
    plain = LatentDiffusion.from_pretrained(tiny_stable_diffusion, device="cpu")
    model, sizes = crowded
    images = rng.integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    texts = ["a b", "c d", "e", "f", "g h"]
    progress = []
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        z = model.encode(images, progress=progress.append, sample=KEYS)
        c = model.embed_captions(texts)
        made = model.generate(c, KEYS, z, steps=4, progress=progress.append)
        pictures = model.decode(made, progress=progress.append)
    assert [str(one.message).split("(")[1].split(")")[0] for one in said] == [
        "encoding",
        "texts",
        "denoising",
        "decoding",
    ]
    assert sum(progress) == 15 and max(progress) <= 2
    assert max(sizes) == 5
    # Batches of two from the start give the very same.
    assert np.array_equal(z, plain.encode(images, 2, sample=KEYS))
    assert np.array_equal(c, plain.embed_captions(texts, 2))
    assert np.array_equal(made, plain.generate(c, KEYS, z, steps=4, batch_size=2))
    assert np.array_equal(pictures, plain.decode(made, 2))
    # And one batch of all gives the same but for rounding.
    np.testing.assert_allclose(made, plain.generate(c, KEYS, z, steps=4), atol=1e-5)


def test_a_recording_begins_a_batch_again(tiny_stable_diffusion, crowded, rng):
    plain = LatentDiffusion.from_pretrained(tiny_stable_diffusion, device="cpu")
    model, _ = crowded
    z = rng.standard_normal((5, 4, 8, 8)).astype(np.float32)
    c = rng.standard_normal((5, 77, 32)).astype(np.float32)
    options = {
        "latents_at": [0, 1],
        "blocks": ["mid_block"],
        "blocks_at": [0, 1],
        "strength": 0.5,
        "steps": 4,
    }
    forward, calls = model.unet.forward, []

    def late(x, *args, **kwargs):
        calls.append(len(x))
        if len(calls) == 2:  # the memory is too small in the second step only
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(x, *args, **kwargs)

    model.unet.forward = late
    with pytest.warns(SmallerBatchWarning):
        found = record_trajectory(model, c, KEYS, z, batch_size=2, **options)
    expected = record_trajectory(plain, c, KEYS, z, batch_size=1, **options)
    for name in ("latents", "activations"):
        theirs = getattr(expected, name)
        assert getattr(found, name).keys() == theirs.keys()
        for key, values in getattr(found, name).items():
            np.testing.assert_allclose(values, theirs[key], atol=1e-5)


def test_image_networks_and_judges_go_on_with_smaller_batches(rng):
    images = rng.integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    judge = load_judge("scenes", "cpu")
    expected = judge.read(images, batch_size=1)
    check = too_small(2)
    judge.net.register_forward_pre_hook(lambda module, inputs: check(len(inputs[0])))
    with pytest.warns(SmallerBatchWarning, match="judge"):
        found = judge.read(images)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-6)

    def network():
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())

    def prepare(pixels):
        return pixels.float() / 255

    limited = network()
    limited.register_forward_pre_hook(lambda module, inputs: check(len(inputs[0])))
    with pytest.warns(SmallerBatchWarning, match="image network"):
        found = network_layer(ImageNetwork(limited, prepare, ""), "1", images)
    expected = network_layer(ImageNetwork(network(), prepare, ""), "1", images)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_scoring_goes_on_with_smaller_batches(rng):
    truth, recon = rng.integers(0, 256, (2, 6, 32, 32, 3), dtype=np.uint8)
    options = {"n_boot": 100, "n_permutations": 100, "protocols": ["brain-diffuser"]}

    class Small(torch.nn.Module):
        def __init__(self, limit=None):
            super().__init__()
            torch.manual_seed(0)
            self.features = torch.nn.Sequential(
                *(torch.nn.Conv2d(3 if i == 0 else 4, 4, 3) for i in range(13))
            )
            self.check = too_small(limit) if limit else lambda count: None

        def forward(self, x):
            self.check(len(x))
            return self.features(x)

    with pytest.warns(SmallerBatchWarning, match="AlexNet"):
        found = score_arrays(truth, recon, networks={"alexnet": Small(2)}, **options)
    expected = score_arrays(truth, recon, networks={"alexnet": Small()}, **options)

    def values(result):
        return {r["metric"]: r["value"] for r in result.records if r["role"] == "method"}

    assert any("alexnet" in name.lower() for name in values(found))
    assert values(found) == pytest.approx(values(expected), abs=1e-6)


# --- numbers that are not finite


def overflow_at(model, monkeypatch, step, stimulus_row, value=torch.inf):
    forward, calls = model.unet.forward, []

    def overflowing(x, *args, **kwargs):
        output = forward(x, *args, **kwargs)
        calls.append(len(x))
        if len(calls) == step:
            output.sample[stimulus_row] = value
        return output

    monkeypatch.setattr(model.unet, "forward", overflowing)


@pytest.mark.parametrize("sampler", ["ddim", "plms"])
@pytest.mark.parametrize("value", [torch.inf, torch.nan])
def test_sampling_names_stimulus_and_step(model, monkeypatch, rng, sampler, value):
    c = rng.standard_normal((5, 77, 32)).astype(np.float32)
    overflow_at(model, monkeypatch, 3, 1, value)
    with pytest.raises(
        CalcarineError, match=r"not finite for stimulus 'b', at denoising step 3 of 5: .*damaged"
    ):
        model.generate(c, KEYS, steps=5 - (sampler == "plms"), guidance=1, sampler=sampler)


def test_a_clipped_sample_does_not_hide_an_infinite_prediction(model, monkeypatch, rng):
    model.scheduler.register_to_config(clip_sample=True, clip_sample_range=1.0)
    c = rng.standard_normal((5, 77, 32)).astype(np.float32)
    overflow_at(model, monkeypatch, 2, 4)
    with pytest.raises(CalcarineError, match="stimulus 'd', at denoising step 2 of 4"):
        model.generate(c, KEYS, steps=4, guidance=1)


@pytest.mark.parametrize(
    ("dtype", "way"),
    [
        (torch.bfloat16, r"too large for this precision, so set it to float32 \(compute\.prec"),
        (torch.float32, "weights or its input are damaged"),
    ],
)
def test_the_way_out_is_one_that_helps(tiny_stable_diffusion, monkeypatch, rng, dtype, way):
    model = LatentDiffusion.from_pretrained(tiny_stable_diffusion, "cpu", dtype)
    overflow_at(model, monkeypatch, 1, 0)
    c = rng.standard_normal((5, 77, 32)).astype(np.float32)
    name = str(dtype).removeprefix("torch.")
    with pytest.raises(CalcarineError, match=rf"computing in {name}, .* stimulus 'a'.* {way}"):
        model.generate(c, KEYS, steps=2, guidance=1)


def test_latents_to_start_from_are_checked(model, rng):
    z = rng.standard_normal((5, 4, 8, 8)).astype(np.float32)
    z[3, 0, 0, 0] = np.nan
    c = rng.standard_normal((5, 77, 32)).astype(np.float32)
    with pytest.raises(CalcarineError, match=r"latents to start from that are not finite .*'c'"):
        model.generate(c, KEYS, z, steps=2)
    with pytest.raises(CalcarineError, match="latents that are not finite for stimulus 'c'"):
        Reconstructor(model).from_z(z, KEYS)
    with pytest.raises(CalcarineError, match="not finite for number 4 of 5:"):
        model.decode(z)


def test_texts_are_named(model, monkeypatch):
    with torch.no_grad():
        model.text_encoder.get_input_embeddings().weight[:] = torch.nan
    with pytest.raises(CalcarineError, match="text encoder that are not finite for the text 'a b'"):
        model.embed_text(["a b"])


# --- a half precision, whose latents stay in float32


def test_half_precision_is_close_to_float32(tiny_stable_diffusion, model, rng):
    half = LatentDiffusion.from_pretrained(tiny_stable_diffusion, "cpu", torch.bfloat16)
    assert half.digest == f"{model.digest}-bfloat16"
    images = rng.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    z = model.encode(images)
    seen = []

    def after_step(x):
        seen.append(x.dtype)

    c = model.embed_captions(["a", "b"])
    expected = model.generate(c, KEYS[:2], z, steps=4)
    found = half.generate(c, KEYS[:2], z, steps=4, after_step=after_step)
    assert set(seen) == {torch.float32}
    assert found.dtype == np.float32 and not np.array_equal(found, expected)
    scale = expected.std()
    for ours, theirs in (
        (found, expected),
        (half.encode(images), z),
        (half.decode(expected), model.decode(expected)),
    ):
        assert np.abs(ours - theirs).mean() < 0.03 * max(scale, theirs.std())
