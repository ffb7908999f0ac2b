"""Every registered metric keeps its promises, and every protocol is what its source computes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.linalg import sqrtm
from scipy.spatial.distance import correlation as scipy_distance
from skimage.color import rgb2gray
from skimage.metrics import structural_similarity
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from calcarine.errors import CalcarineError
from calcarine.evaluation import PROTOCOLS, Protocol, register_protocol
from calcarine.evaluation.metrics.metric import METRICS, Metric, register_metric
from calcarine.evaluation.scoring.score import score_arrays
from calcarine.reporting.run_records import _score

N, S, SIDE = 6, 2, 36
NAMES = ["brain-diffuser", "calcarine", "mind-vis", "mindeye", "takagi"]
FAST = {"n_boot": 20, "n_permutations": 19}
IMAGENET = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = transforms.Normalize(
    (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
)


def smooth_noise(rng, *shape):
    coarse = rng.integers(0, 256, (*shape, 6, 6, 3)).astype(np.uint8)
    flat = coarse.reshape(-1, 6, 6, 3)
    large = [np.asarray(Image.fromarray(x).resize((SIDE, SIDE))) for x in flat]
    return np.stack(large).reshape(*shape, SIDE, SIDE, 3)


@pytest.fixture(scope="module")
def world(tiny_networks):
    rng = np.random.default_rng(0)
    truth = smooth_noise(rng, N)
    noise = smooth_noise(rng, N, S)
    recon = (0.35 * truth[:, None] + 0.65 * noise).astype(np.uint8)
    labels = tiny_networks["judge"].labels
    read = tiny_networks["judge"].read(truth).probabilities.argmax(1)
    categories = [labels[i] for i in read]
    assert len(set(categories)) == 1, "contests within a category need five images of each"
    inputs = {"image_embeddings": rng.normal(size=(N, 3, 4))}
    inputs["brain_embeddings"] = inputs["image_embeddings"] + rng.normal(size=(N, 3, 4))
    for region in ("nsdgeneral", "V1", "V2", "V3", "V4", "higher_vis"):
        inputs[f"betas_{region}"] = rng.normal(size=(N, 15))
        inputs[f"predicted_betas_{region}"] = inputs[f"betas_{region}"] + rng.normal(size=(N, 15))
    return {"truth": truth, "recon": recon, "categories": categories, "inputs": inputs}


def run(world, networks, names=NAMES, order=None, **changes):
    order = np.arange(N) if order is None else order
    inputs = {k: v[order] for k, v in (world | changes)["inputs"].items()}
    return score_arrays(
        world["truth"][order],
        (world | changes)["recon"][order],
        ids=[f"s{i}" for i in order],
        categories=[world["categories"][i] for i in order],
        inputs=inputs,
        networks={k: v for k, v in networks.items() if k != "judge"},
        judge=networks["judge"],
        protocols=names,
        batch_size=changes.get("batch_size", 4),
        **FAST,
    )


@pytest.fixture(scope="module")
def scored(world, tiny_networks):
    return run(world, tiny_networks)


def values(evaluation):
    return {
        (r["protocol"], r["metric"]): r["value"]
        for r in evaluation.records
        if r["role"] == "method"
    }


def everything():
    return [(name, metric) for name in NAMES for metric in PROTOCOLS[name]().metrics()]


def test_all_metrics_of_all_protocols_are_computed(scored):
    wanted = {(name, metric.name) for name, metric in everything()}
    assert set(values(scored)) == wanted and sorted(PROTOCOLS) == NAMES
    assert {type(metric).__name__ for _, metric in everything()} == set(METRICS)
    assert len(wanted) == len(everything())
    # With 19 shuffles nothing can be significant, which is said of every protocol with a test.
    notes = [note for note in scored.notes if "perfect reconstructions" not in note]
    assert all("covariance" in note for note in notes) and len(notes) == 2


@pytest.mark.parametrize("name, metric", everything(), ids=lambda x: getattr(x, "name", x))
def test_a_metric_says_what_it_is(scored, name, metric):
    low, high = metric.limits
    value = values(scored)[name, metric.name]
    assert low <= value <= high and len(metric.definition) > 40
    assert ("distance" in metric.name) == (not metric.higher_is_better)
    chance = metric.chance(N)
    if chance is not None:
        pool = metric.pool(N)  # of categories it is known once these are
        assert low < chance < high and (pool is None or pool >= 2)
    if "fixed" in metric.name:
        assert metric.name.endswith(f"fixed {metric.direction}")
    record = next(r for r in scored.records if (r["protocol"], r["metric"]) == (name, metric.name))
    if not {"groups", "labels"} & set(metric.inputs):  # these know more once categories are given
        assert (record["chance"], record["pool"]) == (chance, metric.pool(N))
    assert record["definition"] == metric.definition
    assert set(record["networks"]) == {
        need.removeprefix("network ") for need in metric.needs if need.startswith("network ")
    }
    assert all(len(digest) == 64 for digest in record["networks"].values())
    if record["ci_low"] is not None:
        assert record["ci_low"] - 1e-9 <= value <= record["ci_high"] + 1e-9
        assert value == pytest.approx(
            metric.summarise(
                scored.per_image.query("protocol == @name and metric == @metric.name")[
                    "value"
                ].to_numpy()
            )
        )


def test_neither_batches_nor_the_order_of_images_change_a_score(world, tiny_networks, scored):
    order = np.random.default_rng(1).permutation(N)
    again = values(run(world, tiny_networks, order=order, batch_size=3))
    for key, value in values(scored).items():
        assert again[key] == pytest.approx(value, rel=1e-5, abs=1e-5), key
    assert (
        scored.records[0]["data"]
        == run(world, tiny_networks, ["brain-diffuser"], order=order).records[0]["data"]
    )


def test_perfect_reconstructions_score_the_best_there_is(world, tiny_networks):
    inputs = dict(world["inputs"])
    for name in list(inputs):
        if name == "brain_embeddings":
            inputs[name] = inputs["image_embeddings"]
        if name.startswith("predicted_"):
            inputs[name] = inputs[name.removeprefix("predicted_")]
    found = run(world, tiny_networks, recon=world["truth"][:, None], inputs=inputs)
    for name, metric in everything():
        assert values(found)[name, metric.name] == pytest.approx(metric.best, abs=2e-6), metric.name


def test_records_fit_the_report(scored):
    for record in scored.records:
        assert _score(record).metric == record["metric"]
    floors = [r for r in scored.records if r["method"].startswith("shuffled brain")]
    assert floors and all(r["role"] == "floor" and r["p"] is None for r in floors)


# --- each protocol against its own words, in slow loops over torchvision's transforms ---


def tensor_chain(size, normalise):
    return transforms.Compose(
        [
            transforms.ToTensor(),
            transforms.Resize((256, 256), antialias=False),
            transforms.Resize(size, antialias=False),
            normalise,
        ]
    )


def pillow_chain(*steps):
    return transforms.Compose([*steps, transforms.ToTensor()])


CHAINS = {
    "mindeye": {
        "AlexNet(2)": ("alexnet", "features.4", tensor_chain(256, IMAGENET)),
        "AlexNet(5)": ("alexnet", "features.11", tensor_chain(256, IMAGENET)),
        "Inception": ("inception", "avgpool", tensor_chain(342, IMAGENET)),
        "CLIP": ("clip", "image_embeds", tensor_chain(224, CLIP)),
        "EffNet-B (IMAGENET1K_V2)": ("efficientnet_b1 V2", "avgpool", tensor_chain(255, IMAGENET)),
        "SwAV": ("swav", "avgpool", tensor_chain(224, IMAGENET)),
    }
}
_SMALL = transforms.Compose([pillow_chain(transforms.Resize((224, 224))), IMAGENET])
_CLIP_SMALL = transforms.Compose([pillow_chain(transforms.Resize((224, 224))), CLIP])
CHAINS["brain-diffuser"] = {
    "AlexNet(2)": ("alexnet", "features.4", _SMALL),
    "AlexNet(5)": ("alexnet", "features.11", _SMALL),
    "Inception": ("inception", "avgpool", _SMALL),
    "CLIP": ("clip", "image_embeds", _CLIP_SMALL),
    "EffNet-B (IMAGENET1K_V1)": ("efficientnet_b1 V1", "avgpool", _SMALL),
    "SwAV": ("swav", "avgpool", _SMALL),
}
_CNN = transforms.Compose(
    [pillow_chain(transforms.Resize(299), transforms.CenterCrop(299)), IMAGENET]
)
_BICUBIC = transforms.Compose(
    [
        pillow_chain(transforms.Resize(224, InterpolationMode.BICUBIC), transforms.CenterCrop(224)),
        CLIP,
    ]
)
CHAINS["takagi"] = {
    "Inception v3": ("inception", "avgpool", _CNN),
    "AlexNet features.5": ("alexnet", "features.5", _CNN),
    "AlexNet features.12": ("alexnet", "features.12", _CNN),
    "AlexNet classifier.5": ("alexnet", "classifier.5", _CNN),
    "CLIP": ("clip", "image_embeds", _BICUBIC),
    "CLIP hidden 6": ("clip", "hidden 6", _BICUBIC),
    "CLIP hidden 12": ("clip", "hidden 12", _BICUBIC),
}


@torch.no_grad()
def slow_features(networks, network, layer, chain, images):
    """One picture at a time, walking through the network by hand."""
    net, found = networks[network], []
    for image in images:
        x = chain(Image.fromarray(image))[None]
        if network == "clip":
            out = net(pixel_values=x, output_hidden_states=True)
            x = out.image_embeds if layer == "image_embeds" else out.hidden_states[int(layer[7:])]
        else:
            head, _, index = layer.partition(".")
            for name, module in net.named_children():
                stop = int(index) if name == head and index else None
                x = module(x) if stop is None else module[: stop + 1](x)
                if name == head:
                    break
        found.append(x.flatten().double().numpy())
    return np.stack(found)


def slow_two_way(truth, samples, fixed):
    """Share of contests won; correlations are averaged over samples where the image is fixed."""
    n = len(truth)
    r = [[[np.corrcoef(truth[i], p[j])[0, 1] for j in range(n)] for i in range(n)] for p in samples]
    scores = []
    for matrix in [np.mean(r, axis=0)] if fixed == "image" else np.asarray(r):
        for j in range(n):
            rivals = [i for i in range(n) if i != j]
            against = [matrix[j, i] if fixed == "image" else matrix[i, j] for i in rivals]
            scores.append(np.mean([matrix[j, j] > rival for rival in against]))
    return np.mean(scores)


@pytest.mark.parametrize("name", sorted(CHAINS))
def test_networks_are_read_as_the_protocol_says(world, tiny_networks, scored, name):
    for space, (network, layer, chain) in CHAINS[name].items():
        truth = slow_features(tiny_networks, network, layer, chain, world["truth"])
        samples = [
            slow_features(tiny_networks, network, layer, chain, world["recon"][:, s])
            for s in range(S)
        ]
        if "EffNet" in space or space == "SwAV":
            metric = f"{space} distance"
            expected = np.mean([scipy_distance(truth[i], p[i]) for p in samples for i in range(N)])
        else:
            fixed = "image" if name == "takagi" else "reconstruction"
            metric = f"identification, {space}, fixed {fixed}"
            expected = slow_two_way(truth, samples, fixed)
        assert values(scored)[name, metric] == pytest.approx(expected, abs=1e-6), metric


def as_425(name, image):
    if name == "brain-diffuser":
        return np.asarray(Image.fromarray(image).resize((425, 425), Image.Resampling.BICUBIC)) / 255
    chain = transforms.Compose(
        [
            transforms.ToTensor(),
            transforms.Resize((256, 256), antialias=False),
            transforms.Resize(425, antialias=False),
        ]
    )
    return chain(Image.fromarray(image)).permute(1, 2, 0).double().numpy()


@pytest.mark.parametrize("name", ["mindeye", "brain-diffuser"])
def test_pixels_and_structure_are_those_of_numpy_and_scikit_image(world, scored, name):
    correlations, similarities = [], []
    for i, s in itertools.product(range(N), range(S)):
        x, y = as_425(name, world["truth"][i]), as_425(name, world["recon"][i, s])
        correlations.append(np.corrcoef(x.ravel(), y.ravel())[0, 1])
        if s == 0 and i < 3:
            gray = [rgb2gray(z) for z in (x, y)]
            settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
            kind = {"channel_axis": -1} if name == "brain-diffuser" else {}
            similarities.append(structural_similarity(*gray, data_range=1.0, **settings, **kind))
    found = values(scored)
    assert found[name, "pixel correlation"] == pytest.approx(np.mean(correlations), abs=1e-6)
    kind = "columns" if name == "brain-diffuser" else "2d"
    one = score_arrays(
        world["truth"][:3], world["recon"][:3, :1], protocols=[name], networks={}, **FAST
    )
    assert values(one)[name, f"SSIM, {kind}"] == pytest.approx(np.mean(similarities), abs=1e-6)


def test_mind_vis_is_its_own_loops(world, tiny_networks, scored):
    resized = [
        np.stack([np.asarray(Image.fromarray(x).resize((256, 256), Image.BICUBIC)) for x in images])
        for images in (world["truth"], world["recon"][:, 0], world["recon"][:, 1])
    ]
    truth, samples = resized[0], resized[1:]
    tests = {
        "mse": lambda p, g: -np.square(p.astype(float) - g.astype(float)).mean(),
        "pcc": lambda p, g: np.corrcoef(p.ravel(), g.ravel())[0, 1],
        "ssim": lambda p, g: structural_similarity(p, g, data_range=255, channel_axis=-1),
    }
    for short, likeness in tests.items():
        # scikit-image is slow at this size; three images show the rule as well.
        few = 3 if short == "ssim" else N
        found = (
            scored
            if few == N
            else score_arrays(
                world["truth"][:3], world["recon"][:3], protocols=["mind-vis"], networks={}, **FAST
            )
        )
        wins = []
        for p, i in itertools.product(samples, range(few)):
            own = likeness(p[i], truth[i])
            rivals = [likeness(p[i], truth[k]) for k in range(few) if k != i]
            wins.append(np.mean([own > rival for rival in rivals]))
        assert values(found)["mind-vis", f"pair-wise {short}"] == pytest.approx(np.mean(wins))
    vit = transforms.Compose(
        [
            pillow_chain(
                transforms.Resize(518, InterpolationMode.BICUBIC), transforms.CenterCrop(518)
            ),
            IMAGENET,
        ]
    )
    with torch.no_grad():
        p = [
            np.stack(
                [
                    tiny_networks["vit_h_14"](vit(Image.fromarray(x))[None])[0].softmax(0).numpy()
                    for x in images
                ]
            )
            for images in resized
        ]
    rng, hits = np.random.default_rng(0), []
    for q, i in itertools.product(p[1:], range(N)):
        label = p[0][i].argmax()
        others = np.delete(np.arange(200), label)
        for _ in range(150):
            drawn = rng.choice(others, 49, replace=False)
            hits.append((q[i][drawn] > q[i][label]).sum() < 1)
    error = np.sqrt(0.25 / len(hits))
    assert values(scored)["mind-vis", "50-way top-1"] == pytest.approx(np.mean(hits), abs=4 * error)


@torch.no_grad()
def test_learned_distance_is_its_definition(tiny_networks):
    net = tiny_networks["lpips"]
    rng = np.random.default_rng(3)
    x, y = (torch.tensor(rng.uniform(-1, 1, (1, 3, 64, 64)), dtype=torch.float32) for _ in "ab")
    vectors = [net(z)[0].detach().double() for z in (x, y)]
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    layers = [[(z - shift.reshape(1, 3, 1, 1)) / scale.reshape(1, 3, 1, 1)] for z in (x, y)]
    total, kept = 0.0, 0
    for index, module in enumerate(net.convolutions):
        layers = [[module(z[0])] for z in layers]
        if index in (1, 4, 7, 9, 11):
            a, b = (z[0] / (z[0].pow(2).sum(1, keepdim=True).sqrt() + 1e-10) for z in layers)
            weight = getattr(net, f"root_{kept}").square()
            total += float((weight * (a - b) ** 2).sum(1).mean())
            kept += 1
    assert float((vectors[0] - vectors[1]).square().sum()) == pytest.approx(total, abs=1e-6)
    assert kept == 5


@pytest.mark.parametrize("n, width", [(40, 8), (8, 40), (20, 20)])
def test_frechet_distance_is_scipys(n, width):
    from calcarine.evaluation.metrics.similarity import frechet_distance

    rng = np.random.default_rng(n)
    x, y = rng.normal(size=(n, width)), rng.normal(0.3, 2, size=(n + 3, width))
    s, t = np.cov(x.T), np.cov(y.T)
    expected = np.square(x.mean(0) - y.mean(0)).sum() + np.trace(s + t)
    # The roots of the eigenvalues of the product, as torchmetrics has it, and scipy's root.
    by_eigenvalues = expected - 2 * np.sqrt(np.linalg.eigvals(s @ t).astype(complex)).real.sum()
    assert frechet_distance(x, y) == pytest.approx(by_eigenvalues, rel=1e-6, abs=1e-5)
    if n > width:
        root = np.trace(sqrtm(s @ t).real)
        assert frechet_distance(x, y) == pytest.approx(expected - 2 * root, rel=1e-8)
    assert frechet_distance(x, x[::-1]) == pytest.approx(0, abs=1e-8)


def test_retrieval_is_the_mean_over_random_pools(world):
    settings = {"protocols": ["mindeye"], "networks": {}, "inputs": world["inputs"], **FAST}
    exact = score_arrays(world["truth"], world["recon"], **settings)
    image, brain = (
        world["inputs"][k].reshape(N, -1) for k in ("image_embeddings", "brain_embeddings")
    )
    cosine = np.asarray(
        [[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in brain] for a in image]
    )
    forward = np.mean([cosine[:, j].argmax() == j for j in range(N)])
    backward = np.mean([cosine[i].argmax() == i for i in range(N)])
    found = values(exact)
    assert found["mindeye", "image retrieval, top-1"] == pytest.approx(forward)
    assert found["mindeye", "brain retrieval, top-1"] == pytest.approx(backward)
    from calcarine.evaluation.metrics.array_metrics import Retrieval

    for direction in ("image", "reconstruction"):
        closed = Retrieval("r", "", direction, largest_pool=4).finish(cosine)
        drawn = Retrieval("r", "", direction, largest_pool=4, draws=4000).finish(cosine)
        assert np.diagonal(closed) == pytest.approx(np.diagonal(drawn), abs=0.05)


def test_a_blurry_picture_is_blended_and_named(world, tiny_networks):
    truth, recon = world["truth"], world["recon"][:, :1]
    low = np.broadcast_to(truth[:, None] // 2 + 60, recon.shape).astype(np.uint8)
    found = score_arrays(truth, recon, blurry=low, protocols=["mindeye"], networks={}, **FAST)
    chain = transforms.Compose(
        [transforms.ToTensor(), transforms.Resize((256, 256), antialias=False)]
    )
    to = transforms.Resize(425, antialias=False)
    expected = []
    for i in range(N):
        mixed = 0.75 * chain(Image.fromarray(recon[i, 0])) + 0.25 * chain(
            Image.fromarray(low[i, 0])
        )
        pair = [to(z).numpy().ravel() for z in (chain(Image.fromarray(truth[i])), mixed)]
        expected.append(np.corrcoef(*pair)[0, 1])
    assert {r["protocol"] for r in found.records} == {"mindeye, a quarter blurry"}
    value = values(found)["mindeye, a quarter blurry", "pixel correlation"]
    assert value == pytest.approx(np.mean(expected), abs=1e-6)


def test_a_new_metric_and_protocol_are_a_class_each(world):
    @register_metric
    class Brightness(Metric):
        def measure(self, cache, sample):
            one, two = (
                np.asarray([cache._sides[side].read(i, 0).mean() for i in range(cache.n)])
                for side in ("truth", "recon")
            )
            return 1 - np.abs(one[:, None] - two[None]) / 255

    @register_protocol
    class Dim(Protocol):
        name = title = "dim"
        source = details = "a test"

        def metrics(self):
            return (Brightness("brightness", "One less the difference of mean brightness."),)

    try:
        found = score_arrays(world["truth"], world["recon"], protocols=["dim"], **FAST)
        assert values(found)["dim", "brightness"] > 0.5 and found.records[0]["p"] is not None
        with pytest.raises(ValueError, match="two protocols"):
            register_protocol(type("Other", (Dim,), {}))
    finally:
        del METRICS["Brightness"], PROTOCOLS["dim"]


def test_what_cannot_be_scored_is_told(world):
    truth, recon = world["truth"], world["recon"]
    for arguments, message in (
        ((truth[:1], recon[:1]), "at least 2"),
        ((truth, recon[:3]), "give one image for each"),
        ((truth.astype(float), recon), r"from 0 to 255.*floats in \[0, 1\]"),
        ((truth[..., :2], recon), "shape"),
    ):
        with pytest.raises(CalcarineError, match=message):
            score_arrays(*arguments, protocols=["takagi"], **FAST)
    with pytest.raises(CalcarineError, match="choose one of brain-diffuser"):
        score_arrays(truth, recon, protocols=["mindye"])
    with pytest.raises(CalcarineError, match="no network 'vgg'"):
        score_arrays(truth, recon, networks={"vgg": torch.nn.Identity()})
    with pytest.raises(CalcarineError, match="betas_V1 has 3 rows"):
        score_arrays(truth, recon, inputs={"betas_V1": np.ones((3, 2))})
    empty = {f"{name}_V1": np.ones((len(truth), 0)) for name in ("betas", "predicted_betas")}
    with pytest.raises(CalcarineError, match=r"betas_V1 has shape .* 0\) and type float64"):
        score_arrays(truth, recon, protocols=["mindeye"], inputs=empty, **FAST)
