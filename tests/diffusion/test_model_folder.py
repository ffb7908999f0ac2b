"""Folders of models: whole or refused, in variants and shards, of kinds that can be used."""

import fnmatch
import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel

from calcarine.diffusion import Autoencoder, LatentDiffusion, load_class_conditional
from calcarine.diffusion.conditional import ModelNote
from calcarine.diffusion.loading import loading_errors
from calcarine.errors import CalcarineError

WEIGHTS = {
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
}


@pytest.fixture
def folder(tiny_stable_diffusion, tmp_path):
    shutil.copytree(tiny_stable_diffusion, tmp_path / "model")
    return tmp_path / "model"


def load(place):
    return LatentDiffusion.from_pretrained(place, device="cpu")


def change_weights(file, change):
    state = load_file(file)
    change(state)
    save_file(state, file, {"format": "pt"})


def change_json(file, **values):
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def pictures(model):
    """Of a model's autoencoder, text encoder and U-Net together."""
    z = model.encode(np.arange(64 * 64 * 3, dtype=np.uint8).reshape(1, 64, 64, 3))
    c = model.embed_text(["a cat"])
    latents = model.generate(c, [("a", 0)], z, steps=2, strength=1.0, guidance=2.0)
    return model.decode(latents)


@pytest.mark.parametrize("part", WEIGHTS)
def test_a_missing_weight_is_named(folder, part):
    dropped = []

    def drop(state):
        dropped.append(sorted(state)[-1])
        del state[dropped[0]]

    change_weights(folder / part / WEIGHTS[part], drop)
    with pytest.raises(CalcarineError, match="lack") as error:
        load(folder)
    # transformers 5 leaves out the prefix that files have.
    assert dropped[0].removeprefix("text_model.") in str(error.value)
    assert str(folder / part) in str(error.value)


@pytest.mark.parametrize("part", WEIGHTS)
def test_weights_under_other_names_are_refused(folder, part):
    def rename(state):
        for key in list(state):
            state[f"other.{key}"] = state.pop(key)

    change_weights(folder / part / WEIGHTS[part], rename)
    with pytest.raises(CalcarineError, match=r"and \d+ more") as error:
        load(folder)
    assert "hold the unknown other." in str(error.value)


@pytest.mark.parametrize("part", WEIGHTS)
def test_a_weight_without_a_place_is_refused(folder, part):
    change_weights(folder / part / WEIGHTS[part], lambda s: s.update(strange=torch.zeros(3)))
    with pytest.raises(CalcarineError, match="hold the unknown strange"):
        load(folder)


@pytest.mark.parametrize("part", WEIGHTS)
def test_a_weight_of_another_shape_is_refused(folder, part):
    def widen(state):
        key = sorted(state)[-1]
        changed.append(key.removeprefix("text_model."))
        state[key] = torch.zeros(*(2 * side for side in state[key].shape))

    changed = []
    change_weights(folder / part / WEIGHTS[part], widen)
    with pytest.raises(CalcarineError, match="have another shape for") as error:
        load(folder)
    assert changed[0] in str(error.value)


def test_what_older_versions_stored_beside_the_weights_is_allowed(folder):
    def add(state):
        state["text_model.embeddings.position_ids"] = torch.arange(77)[None]
        state["text_projection.weight"] = torch.zeros(4, 32)

    expected = load(folder).embed_text(["a cat"])
    change_weights(folder / "text_encoder" / WEIGHTS["text_encoder"], add)
    assert np.array_equal(load(folder).embed_text(["a cat"]), expected)


def test_autoencoders_alone_are_checked_too(folder):
    change_weights(folder / "vae" / WEIGHTS["vae"], lambda s: s.pop("decoder.conv_in.weight"))
    with pytest.raises(CalcarineError, match=r"lack decoder\.conv_in\.weight"):
        Autoencoder.from_pretrained(folder / "vae")


def test_a_class_conditional_model_is_checked_too(tmp_path):
    from calcarine.diffusion import random_class_conditional
    from calcarine.diffusion.cin256_conversion import CIN256, CLASSES

    model = random_class_conditional(tiny=True)
    shutil.copytree(CIN256, tmp_path, dirs_exist_ok=True)
    model.vae.save_pretrained(tmp_path / "vae")
    model.unet.save_pretrained(tmp_path / "unet")
    save_file({"weight": torch.from_numpy(model.class_embedding)}, tmp_path / CLASSES)
    assert load_class_conditional(tmp_path, "cpu").latent_shape == (3, 8, 8)
    file = tmp_path / "unet" / WEIGHTS["unet"]
    change_weights(file, lambda state: state.pop("conv_in.weight"))
    with pytest.raises(CalcarineError, match=r"lack conv_in\.weight"):
        load_class_conditional(tmp_path, "cpu")


def test_image_autoencoders_are_checked_too(tmp_path):
    from calcarine.visdec.image_autoencoder import MINI, ImageAutoencoder

    shutil.copytree(MINI, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "model.safetensors"
    key = sorted(load_file(file))[-1]
    change_weights(file, lambda state: state.pop(key))
    with pytest.raises(CalcarineError, match="lack") as error:
        ImageAutoencoder.from_pretrained(tmp_path)
    assert key in str(error.value)


@pytest.mark.parametrize("kept", [[], ["vocab.json"], ["merges.txt"], ["tokenizer.json"]])
def test_a_tokenizer_without_vocabulary_is_refused(folder, kept):
    for file in (folder / "tokenizer").iterdir():
        if file.name not in ("tokenizer_config.json", "special_tokens_map.json", *kept):
            file.unlink()
    if kept == ["tokenizer.json"] and (folder / "tokenizer" / kept[0]).exists():
        assert (
            load(folder).tokenizer("a cat").input_ids != load(folder).tokenizer("a dog").input_ids
        )
        return
    with pytest.raises(CalcarineError, match="no vocabulary"):
        load(folder)


def test_an_empty_vocabulary_is_refused(folder):
    words = folder / "tokenizer"
    (words / "tokenizer.json").unlink(missing_ok=True)
    signs = ("<|startoftext|>", "<|endoftext|>")
    (words / "vocab.json").write_text(json.dumps({sign: i for i, sign in enumerate(signs)}))
    (words / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(CalcarineError, match="vocabulary"):
        load(folder)


@pytest.mark.parametrize("setting", [{"model_max_length": 0}, {"model_max_length": "x"}])
def test_a_tokenizer_that_cannot_pad_is_refused(folder, setting):
    file = folder / "tokenizer" / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **setting}))
    with pytest.raises(CalcarineError, match=r"cannot give texts of|could not be loaded"):
        load(folder)


@pytest.mark.parametrize("betas", [[None], ["x"], [0.1, float("nan")], 3])
def test_a_scheduler_whose_settings_are_no_numbers_is_refused(folder, betas):
    file = folder / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "trained_betas": betas}))
    with pytest.raises(CalcarineError, match=r"scheduler_config.json has"):
        load(folder)


def test_more_words_than_the_text_encoder_knows_are_refused(folder):
    words = folder / "tokenizer"
    known = load(folder).tokenizer.get_vocab()
    (words / "tokenizer.json").unlink(missing_ok=True)
    more = {f"word{i}": len(known) + i for i in range(9)}
    (words / "vocab.json").write_text(json.dumps({**known, **more}))
    (words / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(CalcarineError, match="these parts are not of one model"):
        load(folder)


def save_parts(folder, **options):
    """Write the weights of all parts again, otherwise than before."""
    kinds = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "text_encoder": CLIPTextModel}
    for part, kind in kinds.items():
        extra = {} if part == "text_encoder" else {"low_cpu_mem_usage": False}
        network = kind.from_pretrained(folder / part, **extra)
        (folder / part / WEIGHTS[part]).unlink()
        network.save_pretrained(folder / part, **options)


def test_a_folder_of_one_variant_is_loaded(folder):
    expected = pictures(load(folder))
    save_parts(folder, variant="fp16")
    assert not list(folder.glob("*/*model.safetensors"))
    with pytest.warns(ModelNote, match=r"unet \(fp16\)"):
        model = load(folder)
    assert np.array_equal(pictures(model), expected)
    assert np.array_equal(
        Autoencoder.from_pretrained(folder / "vae").decode(np.ones((1, 4, 8, 8), np.float32)),
        model.decode(np.ones((1, 4, 8, 8), np.float32)),
    )


def test_plain_weights_come_before_variants(folder):
    expected = pictures(load(folder))
    for part, name in WEIGHTS.items():
        state = {key: value * 0 for key, value in load_file(folder / part / name).items()}
        save_file(state, folder / part / name.replace(".", ".fp16.", 1), {"format": "pt"})
    model = load(folder)
    assert model.notes == ()
    assert np.array_equal(pictures(model), expected)


def test_several_other_variants_are_refused(folder):
    file = folder / "unet" / WEIGHTS["unet"]
    for variant in ("ema", "bf16"):
        shutil.copy(file, file.with_name(f"diffusion_pytorch_model.{variant}.safetensors"))
    file.unlink()
    with pytest.raises(CalcarineError, match="bf16, ema"):
        load(folder)


@pytest.mark.parametrize("variant", [None, "fp16"])
@pytest.mark.filterwarnings("ignore::calcarine.diffusion.conditional.ModelNote")
def test_weights_in_shards_are_loaded_whole(folder, variant):
    expected = pictures(load(folder))
    save_parts(folder, max_shard_size="20KB", variant=variant)
    for part in WEIGHTS:
        assert len(list((folder / part).glob("*-of-*.safetensors"))) > 1
    assert np.array_equal(pictures(load(folder)), expected)
    shard = sorted((folder / "unet").glob("*-of-*.safetensors"))[0]
    shard.unlink()
    with pytest.raises(CalcarineError, match="unet"):
        load(folder)


def test_sdxl_is_named(folder):
    change_json(
        folder / "model_index.json",
        _class_name="StableDiffusionXLPipeline",
        text_encoder_2=["transformers", "CLIPTextModelWithProjection"],
    )
    with pytest.raises(CalcarineError, match="is SDXL"):
        load(folder)


def test_models_with_a_transformer_are_named(folder):
    (folder / "model_index.json").write_text(
        json.dumps({"_class_name": "FluxPipeline", "transformer": ["diffusers", "x"]})
    )
    with pytest.raises(CalcarineError, match="FluxPipeline, a model with a transformer"):
        load(folder)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"class_embed_type": "timestep"}, "noise level"),
        ({"num_class_embeds": 1000}, "noise level"),
        ({"addition_embed_type": "text_time"}, "SDXL"),
        ({"encoder_hid_dim_type": "image_proj"}, "image embeddings"),
        ({"time_cond_proj_dim": 256}, "latent consistency"),
        ({"in_channels": 7}, "upscaling"),
        ({"sample_size": [8, 16]}, "square"),
        ({"sample_size": None}, "sample_size None"),
        ({"sample_size": [8, {"a": 1}]}, "sample_size"),
    ],
)
def test_unets_that_need_more_are_refused(folder, setting, words):
    config = folder / "unet" / "config.json"
    change_json(config, **setting)
    if "in_channels" in setting:  # with weights that fit, as an upscaler's do
        unet = UNet2DConditionModel.from_config(json.loads(config.read_text()))
        unet.save_pretrained(folder / "unet")
    with pytest.raises(CalcarineError, match=words):
        load(folder)


def test_learned_variances_are_refused(folder):
    config = folder / "unet" / "config.json"
    change_json(config, out_channels=8)
    UNet2DConditionModel.from_config(json.loads(config.read_text())).save_pretrained(
        folder / "unet"
    )
    with pytest.raises(CalcarineError, match="learned variances"):
        load(folder)


def test_a_size_as_a_list_is_read(folder):
    expected = pictures(load(folder))
    change_json(folder / "unet" / "config.json", sample_size=[8, 8])
    model = load(folder)
    assert (model.image_size, model.latent_shape) == (64, (4, 8, 8))
    assert np.array_equal(pictures(model), expected)


def test_a_damaged_index_is_told(folder):
    for content in ("{", "[]"):
        (folder / "model_index.json").write_text(content)
        with pytest.raises(CalcarineError, match="copy the model again"):
            load(folder)


@pytest.mark.parametrize("variant", [None, "fp16"])
@pytest.mark.filterwarnings("ignore::calcarine.diffusion.conditional.ModelNote")
def test_the_hub_is_asked_for_a_variant_where_there_is_nothing_else(
    folder, tmp_path, monkeypatch, variant
):
    """A stand-in for the hub, which gives what the patterns ask for."""
    expected = pictures(load(folder))
    if variant:
        save_parts(folder, variant=variant)
        shutil.copy(folder / "unet" / "config.json", folder / "unet" / "x.non_ema.json")
    else:
        for part, name in WEIGHTS.items():
            wrong = name.replace(".", ".fp16.", 1)
            (folder / part / wrong).write_bytes(b"not to be fetched")
    cache = tmp_path / "cache"

    def fetch(name, allow_patterns, ignore_patterns):
        assert name == "someone/something"
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            own = file.relative_to(folder)
            wanted = any(fnmatch.fnmatch(str(own), one) for one in allow_patterns)
            if wanted and not any(fnmatch.fnmatch(str(own), one) for one in ignore_patterns):
                (cache / own).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, cache / own)
        return str(cache)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    (folder / "unet" / "diffusion_pytorch_model.fp16.bin").write_bytes(b"not to be fetched")
    assert np.array_equal(pictures(load("someone/something")), expected)
    assert len(list(cache.glob("*/*.safetensors"))) == 3
    assert not list(cache.glob("*/*.bin"))
    shutil.rmtree(cache)
    change_json(folder / "model_index.json", text_encoder_2=["transformers", "CLIPTextModel"])
    with pytest.raises(CalcarineError, match="is SDXL"):
        load("someone/something")
    assert not list(cache.glob("*/*.safetensors"))


@pytest.mark.parametrize(
    "setting", [{"eos_token_id": "end"}, {"eos_token_id": None}, {"layer_norm_eps": None}]
)
def test_a_text_encoder_that_cannot_run_is_refused(folder, setting):
    change_json(folder / "text_encoder" / "config.json", **setting)
    with pytest.raises(CalcarineError, match="text_encoder"):
        load(folder)


def test_a_network_that_is_larger_than_its_files_is_damaged_and_no_lack_of_memory(folder):
    said = "DefaultCPUAllocator: can't allocate memory: you tried to allocate {} bytes."
    with (
        pytest.raises(CalcarineError, match=r"larger than its weights \(309\.2 GB for one"),
        loading_errors(folder / "unet"),
    ):
        raise RuntimeError(said.format(309237645312))
    with pytest.raises(RuntimeError, match="allocate 100 bytes"), loading_errors(folder / "unet"):
        raise RuntimeError(said.format(100))
