"""The tiny autoencoder of Stable Diffusion's latents, on real photographs where weights are."""

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from calcarine.brain import Responses
from calcarine.decoding import Reconstructor
from calcarine.decoding.ridge_fits import fit_ridge
from calcarine.diffusion import Autoencoder, LatentDiffusion
from calcarine.errors import CalcarineError
from calcarine.stimuli import resize_images


@pytest.fixture(scope="module")
def random_taesd(tmp_path_factory):
    """Random weights under the original names: the decoder's first layer has none."""
    from diffusers import AutoencoderTiny

    torch.manual_seed(0)
    vae = AutoencoderTiny(latent_channels=4)
    folder = tmp_path_factory.mktemp("taesd")
    halves = {"encoder": {}, "decoder": {}}
    for key, value in vae.state_dict().items():
        half, _, number, rest = key.split(".", 3)
        halves[half][f"{int(number) + (half == 'decoder')}.{rest}"] = value.to(torch.bfloat16)
    for half, state in halves.items():
        save_file(state, folder / f"taesd_{half}.safetensors")
    vae.to(torch.bfloat16).save_pretrained(folder / "diffusers")
    return folder


def test_original_files_and_the_folder_of_diffusers_agree(random_taesd, rng):
    images = rng.integers(0, 256, (2, 32, 48, 3), dtype=np.uint8)
    own = Autoencoder.from_pretrained(random_taesd)
    folder = Autoencoder.from_pretrained(random_taesd / "diffusers")
    z = own.encode(images)
    assert z.shape == (2, 4, 4, 6) and np.array_equal(z, folder.encode(images))
    made = own.decode(z)
    assert made.shape == (2, 32, 48, 3) and np.array_equal(made, folder.decode(z))
    assert np.abs(own.decode(z, batch_size=1) - made).max() < 1e-4
    with pytest.raises(CalcarineError, match="mode"):
        own.encode(images, sample=[("a", 0), ("b", 0)])


def test_it_takes_the_place_of_the_models_own(random_taesd, tiny_stable_diffusion, rng):
    plain = LatentDiffusion.from_pretrained(tiny_stable_diffusion, device="cpu")
    model = LatentDiffusion.from_pretrained(
        tiny_stable_diffusion, device="cpu", autoencoder=random_taesd
    )
    images = rng.integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    alone = Autoencoder.from_pretrained(random_taesd)
    assert np.array_equal(model.encode(images), alone.encode(images))
    assert model.digest != plain.digest and model.image_size == 64
    made = Reconstructor(model, steps=2).from_z_c(
        model.encode(images), model.embed_text(["a"]), [("a", 0)]
    )
    assert made.shape == (1, 64, 64, 3) and np.isfinite(made).all()


def test_a_model_of_other_latents_refuses_it(random_taesd):
    with pytest.raises(CalcarineError, match="cannot take its place"):
        LatentDiffusion.from_pretrained("mini", device="cpu", autoencoder=random_taesd)


def test_broken_folders_are_told(random_taesd, tmp_path):
    with pytest.raises(CalcarineError, match="no autoencoder"):
        Autoencoder.from_pretrained(tmp_path / "absent")
    for name in ("taesd_encoder.safetensors", "taesd_decoder.safetensors"):
        shutil.copy(random_taesd / name, tmp_path)
    decoder = tmp_path / "taesd_decoder.safetensors"
    shutil.copy(random_taesd / "taesd_encoder.safetensors", decoder)
    with pytest.raises(CalcarineError, match="not those of an autoencoder"):
        Autoencoder.from_pretrained(tmp_path)
    decoder.write_bytes(decoder.read_bytes()[:-10])
    with pytest.raises(CalcarineError, match="truncated"):
        Autoencoder.from_pretrained(tmp_path)
    decoder.unlink()
    with pytest.raises(CalcarineError, match=r"no taesd_decoder\.safetensors"):
        Autoencoder.from_pretrained(tmp_path)


def test_samples_share_one_decoding_and_encoding(tiny_stable_diffusion, rng, monkeypatch):
    model = LatentDiffusion.from_pretrained(tiny_stable_diffusion, device="cpu")
    seen = []
    encode = model.vae.encode
    monkeypatch.setattr(model.vae, "encode", lambda x: seen.append(len(x)) or encode(x))
    z = rng.standard_normal((2, 4, 5, 5)).astype(np.float32)
    rows = [1, 0, 1, 1, 0]
    together = Reconstructor(model).start(z[rows])
    assert sum(seen) == 2 and together.shape == (5, 4, 8, 8)
    alone = np.concatenate([Reconstructor(model).start(z[[row]]) for row in rows])
    # A pixel on the edge of rounding may differ by one step of 8 bits.
    assert np.abs(together - alone).max() < 5e-3 < np.abs(together).max()
    keys = [("a", 0), ("b", 0), ("a", 1), ("a", 2), ("b", 1)]
    drawn = Reconstructor(model, posterior="sample").start(z[rows], keys)
    # Nor is the posterior drawn from once more for each sample.
    assert seen[-1] == 2 and len({row.tobytes() for row in drawn}) == 2
    assert np.array_equal(drawn[0], drawn[2]) and not np.array_equal(drawn[0], together[0])


@pytest.fixture(scope="module")
def weights(measured):
    folder = measured.parent / "weights"
    if not (folder / "taesd_encoder.safetensors").exists():
        pytest.skip(f"no TAESD weights in {folder}")
    return folder


def photographs(side):
    from skimage import data

    squares = []
    for name in ("astronaut", "coffee", "chelsea", "rocket"):
        picture = np.asarray(getattr(data, name)())
        least = min(picture.shape[:2])
        squares.append(resize_images(picture[None, :least, :least], side)[0])
    return np.stack(squares)


def psnr(truth, made):
    return -10 * np.log10(((truth / 255.0 - made) ** 2).mean((1, 2, 3)))


def test_real_photographs_survive_the_latent_space(weights):
    autoencoder = Autoencoder.from_pretrained(weights)
    pictures = photographs(256)
    z = autoencoder.encode(pictures)
    values = psnr(pictures, autoencoder.decode(z))
    print("PSNR", values.round(1))
    assert z.shape == (4, 4, 32, 32) and 0.5 < z.std() < 2
    assert values.min() > 20 and values.mean() > 22


def test_photographs_are_decoded_from_simulated_voxels(weights, rng):
    """Voxels mix z of crops linearly, with noise; ridge and TAESD bring unseen crops back."""
    autoencoder = Autoencoder.from_pretrained(weights)
    crops = []
    for picture in photographs(160):
        for half in (slice(0, 104), slice(104, 160)):
            width = half.stop - half.start
            for _ in range(30 if width > 100 else 5):
                size = int(rng.integers(40, min(width, 100) + 1))
                x = half.start + int(rng.integers(0, width - size + 1))
                y = int(rng.integers(0, 160 - size + 1))
                crops.append((width < 100, picture[y : y + size, x : x + size]))
    images = np.stack([resize_images(crop[None], 64)[0] for _, crop in crops])
    test = np.array([held for held, _ in crops])
    z = autoencoder.encode(images)
    flat = z.reshape(len(z), -1)
    signal = flat @ rng.standard_normal((flat.shape[1], 600)).astype(np.float32)
    signal = (signal - signal[~test].mean(0)) / signal[~test].std(0)
    data = (signal + 0.5 * rng.standard_normal(signal.shape)).astype(np.float32)
    ids = tuple(f"s{i}" for i in np.flatnonzero(~test))
    responses = Responses(data[~test], ids, "train", np.zeros(len(ids), np.int64))
    ridge, _ = fit_ridge(responses, ids, flat[~test], None, 5)
    decoded = ridge.predict(data[test]).reshape(z[test].shape).astype(np.float32)
    floor = np.repeat(z[~test].mean(0, keepdims=True), test.sum(), axis=0)
    ours = psnr(images[test], autoencoder.decode(decoded))
    mean = psnr(images[test], autoencoder.decode(floor))
    print("PSNR decoded", ours.mean(), "training mean", mean.mean())
    assert ours.mean() > mean.mean() + 1.5 and (ours > mean).mean() > 0.8
