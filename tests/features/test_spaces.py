import numpy as np
import pytest

from calcarine.checkpoints import network_weights as weights_module
from calcarine.diffusion import LatentDiffusion
from calcarine.errors import CalcarineError
from calcarine.features import FeatureStore, SpaceName, extract_spaces
from calcarine.features import spaces as module
from calcarine.features.image_networks import ImageNetwork, load_network
from calcarine.stimuli import StimulusSet

NAMES = [
    "z",
    "c",
    "labels",
    "z_c@0.4",
    "z_c@0.8",
    "z_c@0.8:early",
    "z_c@0.8:step1",
    "unet:mid_block@0.8:late",
    "unet:down_blocks.0@0.8:early",
]
OPTIONS = {"steps": 5, "guidance": 3.0}


@pytest.fixture(scope="module")
def model(tiny_stable_diffusion):
    return LatentDiffusion.from_pretrained(tiny_stable_diffusion, device="cpu")


@pytest.fixture(scope="module")
def stimuli():
    return StimulusSet.from_scenes(1, range(7))


def test_every_space_is_what_generation_gives(model, stimuli, tmp_path):
    found = extract_spaces(NAMES, model, stimuli, FeatureStore(tmp_path), **OPTIONS)
    assert list(found) == NAMES
    assert {values.shape[0] for values in found.values()} == {7}
    keys = [(key, 0) for key in stimuli.ids]
    for strength in (0.4, 0.8):
        want = model.generate(found["c"], keys, found["z"], strength=strength, **OPTIONS)
        np.testing.assert_allclose(found[f"z_c@{strength}"][:], want, atol=1e-5)
    assert found["labels"].shape[1] == len({n for c in stimuli.categories() for n in c})
    assert found["unet:mid_block@0.8:late"].shape[2:] == (4, 4)


def test_one_pass_a_strength_and_none_the_second_time(model, stimuli, tmp_path, monkeypatch):
    calls = []
    record_trajectory = module.record_trajectory

    def counted(*args, **options):
        calls.append((options["strength"], len(args[2])))
        return record_trajectory(*args, **options)

    monkeypatch.setattr(module, "record_trajectory", counted)
    store = FeatureStore(tmp_path)
    extract_spaces(NAMES, model, stimuli, store, batch_size=4, **OPTIONS)
    # One stimulus tells the shapes; then each strength passes once over all.
    assert calls == [(0.4, 1), (0.4, 4), (0.4, 3), (0.8, 1), (0.8, 4), (0.8, 3)]
    calls.clear()
    extract_spaces(NAMES, model, stimuli, store, batch_size=4, **OPTIONS)
    assert calls == []


def test_batches_change_nothing(model, stimuli, tmp_path):
    one, two = (
        extract_spaces(
            NAMES, model, stimuli, FeatureStore(tmp_path / str(size)), batch_size=size, **OPTIONS
        )
        for size in (2, 7)
    )
    for name in NAMES:
        np.testing.assert_allclose(one[name][:], two[name][:], atol=1e-4)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "zz",
        "z_c@",
        "z_c@0",
        "z_c@1.5",
        "z_c@1.2.3",
        "unet:mid_block@0.8",
        "z_c@0.8:soon",
        "unet:@0.8:late",
    ],
)
def test_wrong_names_are_told(name):
    with pytest.raises(CalcarineError, match="There is no feature space"):
        SpaceName.parse(name)


def test_wrong_steps_and_blocks_are_told(model, stimuli, tmp_path):
    store = FeatureStore(tmp_path)
    with pytest.raises(CalcarineError, match="leave 4 steps"):
        extract_spaces(["z_c@0.8:step4"], model, stimuli, store, **OPTIONS)
    with pytest.raises(CalcarineError, match="no block left"):
        extract_spaces(["unet:left@0.8:late"], model, stimuli, store, **OPTIONS)
    with pytest.raises(CalcarineError, match="at least 3 denoising steps"):
        extract_spaces(["z_c@0.4:late"], model, stimuli, store, **OPTIONS)


def network():
    import torch
    from torchvision.models import alexnet

    torch.manual_seed(0)
    return ImageNetwork(alexnet(weights=None).eval(), lambda x: x.float() / 255, "random")


def test_layers_of_a_network_are_what_it_computes(model, stimuli, tmp_path):
    import torch

    made = network()
    names = ["net:alexnet:features.1", "net:alexnet:classifier.6"]
    found = extract_spaces(
        names, model, stimuli, FeatureStore(tmp_path), batch_size=3, networks=lambda name: made
    )
    pixels = torch.from_numpy(stimuli.images()).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        first = made.module.features[:2](pixels)
        last = made.module(pixels)
    np.testing.assert_allclose(found[names[0]][:], first.numpy(), atol=1e-5)
    np.testing.assert_allclose(found[names[1]][:], last.numpy(), atol=1e-5)
    assert not made.module.classifier[6]._forward_hooks
    with pytest.raises(CalcarineError, match=r"no layer features\.99; it has features"):
        extract_spaces(
            ["net:alexnet:features.99"],
            model,
            stimuli,
            FeatureStore(tmp_path),
            networks=lambda name: made,
        )


def test_weights_come_from_the_cache_or_not_at_all(tmp_path, monkeypatch):
    import torch
    from torchvision.models import alexnet

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(CalcarineError, match=r"weights of alexnet are not in the cache; get https"):
        load_network("alexnet")
    with pytest.raises(CalcarineError, match="no network alexnett"):
        load_network("alexnett")
    file = tmp_path / "checkpoints" / "alexnet-owt-7be5be79.pth"
    file.parent.mkdir()
    torch.manual_seed(1)
    whole = alexnet(weights=None)
    torch.save(whole.state_dict(), file)
    # The name promises a hash that our own weights do not have.
    with pytest.raises(CalcarineError, match="alexnet"):
        load_network("alexnet")
    monkeypatch.setattr(weights_module, "_promised", lambda name: None)
    found = load_network("alexnet")
    assert torch.equal(found.module.features[0].weight, whole.features[0].weight)
    assert found.prepare(torch.zeros(1, 3, 64, 80, dtype=torch.uint8)).shape == (1, 3, 224, 224)
    file.write_bytes(file.read_bytes()[:10_000])
    with pytest.raises(CalcarineError, match=r"alexnet-owt-7be5be79\.pth .* (damaged|hash)"):
        load_network("alexnet")
