"""Image embeddings of transformers' vision models, against transformers itself."""

import json
import shutil

import numpy as np
import pytest
import torch
import transformers as tf

import calcarine as ca
from calcarine.errors import CalcarineError, DamagedFileError, MissingFileError
from calcarine.features import FeatureStore, extract_spaces, load_vision_model
from calcarine.features.spaces import SpaceName

SHARED = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
SQUARE = {"height": 32, "width": 32}


def _clip():
    whole = tf.CLIPModel(
        tf.CLIPConfig(
            text_config={**SHARED, "vocab_size": 30, "max_position_embeddings": 8},
            vision_config=SHARED,
            projection_dim=12,
        )
    )
    return whole, tf.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=SQUARE)


def _dinov2(**more):
    config = {k: v for k, v in SHARED.items() if k != "intermediate_size"}
    kind = tf.Dinov2WithRegistersModel if more else tf.Dinov2Model
    network = kind(kind.config_class(mlp_ratio=2, **config, **more))
    return network, tf.BitImageProcessor(size={"shortest_edge": 40}, crop_size=SQUARE)


def _siglip():
    text = {**SHARED, "vocab_size": 30, "max_position_embeddings": 8}
    whole = tf.SiglipModel(tf.SiglipConfig(text_config=text, vision_config=SHARED))
    return whole, tf.SiglipImageProcessor(size=SQUARE)


def _mae():
    decoder = {
        "decoder_hidden_size": 16,
        "decoder_num_hidden_layers": 1,
        "decoder_num_attention_heads": 2,
        "decoder_intermediate_size": 32,
    }
    whole = tf.ViTMAEForPreTraining(tf.ViTMAEConfig(**SHARED, **decoder))
    return whole, tf.ViTImageProcessor(size=SQUARE)


def _vit():
    # Without pooler and with a classifier, as published.
    network = tf.ViTForImageClassification(tf.ViTConfig(num_labels=3, **SHARED))
    return network, tf.ViTImageProcessor(size=SQUARE)


MODELS = {
    "clip": _clip,
    "dinov2": _dinov2,
    "registers": lambda: _dinov2(num_register_tokens=2),
    "siglip": _siglip,
    "mae": _mae,
    "vit": _vit,
}
# Tokens of a picture before those of its 16 patches.
BEFORE = {"clip": 1, "dinov2": 1, "registers": 3, "siglip": 0, "mae": 1, "vit": 1}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    for name, make in MODELS.items():
        torch.manual_seed(0)
        network, processor = make()
        network.save_pretrained(root / name)
        processor.save_pretrained(root / name)
    return root


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (5, 50, 60, 3), dtype=np.uint8)


def expected(folder, images):
    """The embedding and the hidden states by transformers' own classes, one picture at a time."""
    processor = tf.AutoImageProcessor.from_pretrained(folder)
    kind = json.loads((folder / "config.json").read_text())["model_type"]
    found = []
    for image in images:
        pixels = processor(images=image, return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            if kind == "clip":
                model = tf.CLIPModel.from_pretrained(folder).eval()
                out = model.vision_model(pixels, output_hidden_states=True)
                embedding = model.visual_projection(out.pooler_output)
            elif kind == "siglip":
                model = tf.SiglipModel.from_pretrained(folder).eval()
                out = model.vision_model(pixels, output_hidden_states=True)
                embedding = out.pooler_output
            elif kind == "vit_mae":
                model = tf.ViTMAEModel.from_pretrained(folder, mask_ratio=0.0).eval()
                noise = torch.linspace(0, 1, 16)[None]
                out = model(pixels, noise=noise, output_hidden_states=True)
                embedding = out.last_hidden_state[:, 1:].mean(1)
            elif kind == "vit":
                model = tf.ViTModel.from_pretrained(folder, add_pooling_layer=False).eval()
                out = model(pixels, output_hidden_states=True)
                embedding = out.last_hidden_state[:, 0]
            else:
                model = tf.AutoModel.from_pretrained(folder).eval()
                out = model(pixels, output_hidden_states=True)
                embedding = out.last_hidden_state[:, 0]
        found.append((embedding[0].numpy(), [state[0].numpy() for state in out.hidden_states]))
    return found


@pytest.mark.parametrize("name", MODELS)
def test_embeddings_and_hidden_states_are_those_of_transformers(folders, images, name):
    model = load_vision_model(folders / name, "cpu")
    truth = expected(folders / name, images)
    close = {"atol": 1e-5, "rtol": 1e-4}
    np.testing.assert_allclose(model.features(images), [e for e, _ in truth], **close)
    for layer in (0, 2, -1):
        states = np.stack([states[layer] for _, states in truth])
        tokens = model.features(images, str(layer), "tokens")
        assert tokens.shape == (5, BEFORE[name] + 16, 16)
        np.testing.assert_allclose(tokens, states, **close)
        mean = states[:, BEFORE[name] :].mean(1)
        np.testing.assert_allclose(model.features(images, str(layer), "mean"), mean, **close)
        first = states[:, 0] if BEFORE[name] else mean
        np.testing.assert_allclose(model.features(images, str(layer)), first, **close)
    assert "ImageProcessor" in model.preparation and "image_mean" in model.preparation


def test_they_are_feature_spaces_that_are_stored_once(folders, tmp_path):
    brain = ca.load_dataset("simulated", n_train=20, n_test=4)
    diffusion = ca.LatentDiffusion.from_pretrained("mini", "cpu")
    store = FeatureStore(tmp_path / "store")
    names = [f"hf:{folders / 'clip'}", f"hf:{folders / 'dinov2'}:-1:tokens"]
    found = extract_spaces(names, diffusion, brain.stimuli, store, batch_size=7)
    model = load_vision_model(folders / "clip", "cpu")
    np.testing.assert_allclose(
        found[names[0]][:], model.features(brain.stimuli.images()), atol=1e-5
    )
    assert found[names[1]].shape == (24, 17, 16)
    before = {file: file.stat().st_mtime_ns for file in store.folder.rglob("*") if file.is_file()}
    extract_spaces(names, diffusion, brain.stimuli, store)
    after = {file: file.stat().st_mtime_ns for file in store.folder.rglob("*") if file.is_file()}
    assert before == after
    decoder = ca.EmbeddingRegression("all").fit(brain, None, {"clip": found[names[0]]})
    assert decoder.predict(brain)["clip"].shape == (4, 12)


def test_names_are_parsed():
    assert SpaceName.parse("hf:openai/clip-vit-large-patch14") == SpaceName(
        "hf:openai/clip-vit-large-patch14",
        layer="embedding",
        model="openai/clip-vit-large-patch14",
    )
    own = SpaceName.parse("hf:C:/models/dino:-2:mean")
    assert (own.model, own.layer, own.pool) == ("C:/models/dino", "-2", "mean")
    assert SpaceName.parse("hf:mini:-1:avg").pool == "avg"  # refused when the model is known
    assert own.by_network and not SpaceName.parse("z").by_network


@pytest.mark.parametrize(
    ("name", "layer", "pool", "message"),
    [
        ("clip", "4", None, "no layer '4'; choose embedding, or a number from -4 to 3"),
        ("clip", "last", None, "no layer 'last'"),
        ("clip", "embedding", "mean", "pooled already"),
        ("siglip", "-1", "class", "no class token"),
        ("clip", "-1", "max", "no pool 'max'"),
    ],
)
def test_layers_that_do_not_exist_are_one_sentence(folders, images, name, layer, pool, message):
    model = load_vision_model(folders / name, "cpu")
    with pytest.raises(CalcarineError, match=message):
        model.features(images, layer, pool)


def test_models_that_cannot_be_read_are_one_sentence(folders, tmp_path, monkeypatch):
    with pytest.raises(MissingFileError, match="no vision model at 'nowhere'"):
        load_vision_model("nowhere", "cpu")

    def offline(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(MissingFileError, match="'a/b' is not in the cache"):
        load_vision_model("a/b", "cpu")
    broken = shutil.copytree(folders / "clip", tmp_path / "broken")
    (broken / "preprocessor_config.json").unlink()
    with pytest.raises(MissingFileError, match=r"no preprocessor_config\.json"):
        load_vision_model(broken, "cpu")
    shutil.copy(folders / "clip" / "preprocessor_config.json", broken)
    weights = (broken / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(DamagedFileError):
        load_vision_model(broken, "cpu")
    (broken / "model.safetensors").unlink()
    with pytest.raises(MissingFileError, match="no safetensors"):
        load_vision_model(broken, "cpu")
    about = json.loads((folders / "clip" / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps({**about, "model_type": "bert"}))
    with pytest.raises(CalcarineError, match="of the type 'bert'"):
        load_vision_model(broken, "cpu")
    (broken / "config.json").write_text("{")
    with pytest.raises(DamagedFileError, match="not valid JSON"):
        load_vision_model(broken, "cpu")


def test_weights_that_are_missing_are_refused(folders, tmp_path):
    from safetensors.torch import load_file, save_file

    broken = shutil.copytree(folders / "dinov2", tmp_path / "broken")
    state = load_file(broken / "model.safetensors")
    del state["layernorm.weight"]
    save_file(state, broken / "model.safetensors", {"format": "pt"})
    with pytest.raises(CalcarineError, match=r"layernorm\.weight"):
        load_vision_model(broken, "cpu")
