"""The definitions of the protocols: those of published systems, and calcarine's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from calcarine.evaluation.metrics.array_metrics import BrainCorrelation, Retrieval
from calcarine.evaluation.metrics.classification import CategoryAccuracy, NWayTopK
from calcarine.evaluation.metrics.identification import (
    GroupIdentification,
    HardIdentification,
    Identification,
    PixelContest,
    RankPercentile,
    TopOne,
)
from calcarine.evaluation.metrics.image_similarity import (
    CorrelationDistance,
    FrechetInceptionDistance,
    PixelCorrelation,
    StructuralSimilarity,
)
from calcarine.evaluation.metrics.metric import PIXELS
from calcarine.evaluation.networks.preprocessing import Preprocessing
from calcarine.evaluation.protocols.protocol import Protocol, register_protocol

if TYPE_CHECKING:
    from calcarine.evaluation.metrics.metric import Direction, Metric

__all__ = [
    "MEAN_R",
    "REGIONS",
    "SSIM_2D",
    "SSIM_COLUMNS",
    "TWO_WAY",
    "BrainDiffuser",
    "Calcarine",
    "MindEye",
    "MindVis",
    "Takagi",
]

REGIONS = ("nsdgeneral", "V1", "V2", "V3", "V4", "higher_vis")
MEAN_R = "Mean over images of the Pearson correlation of all {size} pixel values."
SSIM_2D = (
    "Mean over images of the structural similarity of grey pictures of {size}, Gaussian window "
    "in two dimensions (as in scikit-image 0.20 and later)."
)
SSIM_COLUMNS = (
    "Mean over images and columns of the structural similarity in one dimension of grey pictures "
    "of {size} (the result of the same call in scikit-image 0.17)."
)
TWO_WAY = {
    "reconstruction": "Share of the other pictures that correlate less with the reconstruction "
    "than its own picture (features: {space}); {ties}.",
    "image": "Share of the other pictures' reconstructions that correlate less with the picture "
    "than its own reconstruction (features: {space}); {ties}.",
}
_DISTANCE = "Mean over images of 1 - r (features: {space})."
_TIE_FAILS, _TIE_HALF = "a tie counts as a failure", "a tie counts one half"


def _two_way(
    space: str, network: str, layer: str, preprocessing: Preprocessing, direction: Direction
) -> Identification:
    text = TWO_WAY[direction].format(space=f"{network} {layer}", ties=_TIE_FAILS)
    name = f"identification, {space}, fixed {direction}"
    return Identification(name, text, direction, network, layer, preprocessing)


def _at_425(
    name: str, definition: str, kind: Literal["2d", "columns"], preprocessing: Preprocessing
) -> tuple[Metric, Metric]:
    """Return pixel correlation and structural similarity of pictures of 425 pixels."""
    return (
        PixelCorrelation(
            "pixel correlation", MEAN_R.format(size="3 x 425 x 425"), preprocessing=preprocessing
        ),
        StructuralSimilarity(
            name, definition.format(size="425 x 425"), kind=kind, preprocessing=preprocessing
        ),
    )


def _four_spaces(
    alexnet: Preprocessing, inception: Preprocessing, clip: Preprocessing
) -> tuple[Metric, ...]:
    """Return identification in the four spaces that most papers report; reconstruction fixed."""
    spaces = (
        ("AlexNet(2)", "alexnet", "features.4", alexnet),
        ("AlexNet(5)", "alexnet", "features.11", alexnet),
        ("Inception", "inception", "avgpool", inception),
        ("CLIP", "clip", "image_embeds", clip),
    )
    return tuple(_two_way(*space, direction="reconstruction") for space in spaces)


def _distance(name: str, network: str, preprocessing: Preprocessing) -> CorrelationDistance:
    text = _DISTANCE.format(space=f"{network} avgpool")
    return CorrelationDistance(f"{name} distance", text, None, network, "avgpool", preprocessing)


@register_protocol
class MindEye(Protocol):
    """MindEye 1 and 2."""

    name = "mindeye"
    title = "MindEye and MindEye2 (Scotti et al. 2023, 2024)"
    source = "code of MindEye 1 and 2"
    details = (
        "float tensors, resized to 256 and then for each network by torch without antialiasing; "
        "SSIM in two dimensions; EfficientNet-B1 of IMAGENET1K_V2; reconstruction fixed"
    )
    blends = True

    def metrics(self) -> tuple[Metric, ...]:
        """Return PixCorr, SSIM, metrics of six networks, retrieval and brain correlation."""
        to = (256, 256)

        def preprocessing(
            size: int, normalise: Literal["imagenet", "clip"] = "imagenet"
        ) -> Preprocessing:
            return Preprocessing("tensor", sizes=(to, size), normalise=normalise)

        return (
            *_at_425("SSIM, 2d", SSIM_2D, "2d", Preprocessing("tensor", sizes=(to, 425))),
            *_four_spaces(preprocessing(256), preprocessing(342), preprocessing(224, "clip")),
            _distance("EffNet-B (IMAGENET1K_V2)", "efficientnet_b1 V2", preprocessing(255)),
            _distance("SwAV", "swav", preprocessing(224)),
            *self._signals(),
        )

    def _signals(self) -> tuple[Metric, ...]:
        directions: tuple[tuple[str, Direction], ...] = (
            ("image", "reconstruction"),
            ("brain", "image"),
        )
        retrieval = tuple(
            Retrieval(
                f"{what} retrieval, top-1",
                f"Share of random pools of 300 in which the right {what} has the highest cosine "
                "similarity; expectation over all pools.",
                direction,
                draws=self.draws,
                seed=self.seed,
            )
            for what, direction in directions
        )
        brain = tuple(
            BrainCorrelation(
                f"brain correlation, {region}",
                f"Mean over images of the correlation across voxels of {region} of measured "
                "responses with those that an encoding model predicts from the reconstruction.",
                region=region,
            )
            for region in REGIONS
        )
        return retrieval + brain


@register_protocol
class BrainDiffuser(Protocol):
    """Brain-Diffuser."""

    name = "brain-diffuser"
    title = "Brain-Diffuser (Ozcelik & VanRullen 2023)"
    source = "code of Brain-Diffuser"
    details = (
        "Pillow images, 224 pixels for every network; SSIM of columns; EfficientNet-B1 of "
        "IMAGENET1K_V1; reconstruction fixed"
    )

    def metrics(self) -> tuple[Metric, ...]:
        """Return PixCorr, SSIM and metrics of six networks."""
        small = Preprocessing("pil", sizes=((224, 224),), normalise="imagenet")
        clip = Preprocessing("pil", sizes=((224, 224),), normalise="clip")
        return (
            *_at_425("SSIM, columns", SSIM_COLUMNS, "columns", Preprocessing("pil", base=425)),
            *_four_spaces(small, small, clip),
            _distance("EffNet-B (IMAGENET1K_V1)", "efficientnet_b1 V1", small),
            _distance("SwAV", "swav", small),
        )


@register_protocol
class Takagi(Protocol):
    """Takagi and Nishimoto."""

    name = "takagi"
    title = "Takagi & Nishimoto (2023)"
    source = "code of StableDiffusionReconstruction"
    details = (
        "Pillow images, 299 pixels with a centre crop for Inception and AlexNet alike; image "
        "fixed; correlations averaged over samples before they are compared"
    )
    samples = "similarity"

    def metrics(self) -> tuple[Metric, ...]:
        """Return two-way identification in seven layers."""
        cnn = Preprocessing("pil", sizes=(299,), crop=299, normalise="imagenet")
        clip = Preprocessing(
            "pil", sizes=(224,), crop=224, interpolation="bicubic", normalise="clip"
        )
        spaces = (
            ("Inception v3", "inception", "avgpool", cnn),
            ("AlexNet features.5", "alexnet", "features.5", cnn),
            ("AlexNet features.12", "alexnet", "features.12", cnn),
            ("AlexNet classifier.5", "alexnet", "classifier.5", cnn),
            ("CLIP", "clip", "image_embeds", clip),
            ("CLIP hidden 6", "clip", "hidden 6", clip),
            ("CLIP hidden 12", "clip", "hidden 12", clip),
        )
        return tuple(_two_way(*space, direction="image") for space in spaces)


@register_protocol
class MindVis(Protocol):
    """MinD-Vis and Vis-Dec."""

    name = "mind-vis"
    title = "MinD-Vis and Vis-Dec (Chen et al. 2023, Sun et al. 2023)"
    source = "code of MinD-Vis"
    details = (
        "uint8 images of 256 pixels; ViT-H/14 at 518 pixels; mean over samples, never their "
        "maximum; FID of 64 features, distinguished from 2048"
    )

    def metrics(self) -> tuple[Metric, ...]:
        """Return n-way top-k, four pair-wise scores and two FIDs."""
        vit = Preprocessing(
            "pil", 256, (518,), crop=518, interpolation="bicubic", normalise="imagenet"
        )
        plain = Preprocessing("pil", 256)
        lpips = Preprocessing("pil", 256, normalise="half")
        ways = tuple(
            NWayTopK(
                f"{n}-way top-{k}",
                f"Probability that the class that ViT-H/14 predicts for the picture is among the "
                f"{k} most probable of {n} for the reconstruction, {n - 1} of them drawn at random"
                + (f"; estimate from {self.draws} draws." if self.draws else "; closed form."),
                preprocessing=vit,
                n_way=n,
                k=k,
                draws=self.draws,
                seed=self.seed,
            )
            for n, k in ((50, 1), (100, 1), (50, 5), (100, 5))
        )
        measures: tuple[tuple[Literal["mse", "pcc", "ssim", "psm"], str], ...] = (
            ("mse", "mean squared difference"),
            ("pcc", "correlation"),
            ("ssim", "structural similarity (flat window of 7, each channel)"),
            ("psm", "LPIPS"),
        )
        pairwise = tuple(
            PixelContest(
                f"pair-wise {short}",
                "Share of the other pictures that are less similar to the reconstruction than its "
                f"own picture, by {long}; {_TIE_FAILS}.",
                measured_by=short,
                preprocessing=lpips if short == "psm" else plain,
            )
            for short, long in measures
        )
        widths: tuple[Literal[64, 2048], ...] = (64, 2048)
        fid = tuple(
            FrechetInceptionDistance(
                f"Frechet inception distance, {width} features",
                f"Frechet distance of {width} features of Inception 2015 of the two sets of "
                "pictures; it does not depend on the pairing of pictures and reconstructions.",
                width=width,
                preprocessing=Preprocessing("tf1", 256),
            )
            for width in widths
        )
        return ways + pairwise + fid


@register_protocol
class Calcarine(Protocol):
    """The default protocol of this package."""

    name = "calcarine"
    title = "calcarine"
    source = "this package"
    details = (
        "no download; pictures at the size of the ground truths; both directions, ties count one "
        "half; hard negatives, ranks, and a shuffled brain for every score"
    )
    samples = "similarity"
    n_way: ClassVar[tuple[tuple[int, int], ...]] = ((10, 1), (24, 5))

    def metrics(self) -> tuple[Metric, ...]:
        """Return similarities, identification of several kinds, and classification."""
        native = Preprocessing("pil", "truth")
        spaces = (
            ("pixels", PIXELS, "pixels", native),
            *(
                (f"{layer} layer", "judge", layer, Preprocessing())
                for layer in ("early", "middle", "late")
            ),
        )
        similarity: tuple[Metric, ...] = (
            PixelCorrelation(
                "pixel correlation",
                "Mean over images of the Pearson correlation of all pixel values.",
                preprocessing=native,
            ),
            StructuralSimilarity(
                "SSIM",
                SSIM_2D.format(size="the size of the ground truths"),
                kind="2d",
                preprocessing=native,
            ),
        )
        identified = tuple(metric for space in spaces for metric in self._identification(*space))
        ways = tuple(
            NWayTopK(
                f"{n}-way top-{k}",
                "Probability that the class that the judge predicts for the "
                f"picture is among the {k} most probable of {n} for the reconstruction, "
                f"{n - 1} of them drawn at random.",
                network="judge",
                layer="probabilities",
                n_way=n,
                k=k,
                draws=self.draws,
                seed=self.seed,
            )
            for n, k in self.n_way
        )
        read = CategoryAccuracy(
            "category accuracy",
            "Share of reconstructions that the judge assigns to the category of the picture.",
        )
        return (*similarity, *identified, *ways, read)

    def _identification(
        self, space: str, network: str, layer: str, preprocessing: Preprocessing
    ) -> tuple[Metric, ...]:
        both: tuple[Direction, ...] = ("image", "reconstruction")
        where = (network, layer, preprocessing)
        features = f"{space} of the judge" if network == "judge" else space
        half: Literal["half"] = "half"
        result: list[Metric] = []
        for direction in both:
            rule = TWO_WAY[direction].format(space=features, ties=_TIE_HALF)
            result.append(
                Identification(
                    f"identification, {space}, fixed {direction}", rule, direction, *where, half
                )
            )
            result.append(
                GroupIdentification(
                    f"identification within category, {space}, fixed {direction}",
                    f"{rule} Only pictures of the same category compete.",
                    direction,
                    *where,
                    half,
                )
            )
        result.append(
            HardIdentification(
                f"identification among the 10 nearest, {space}, fixed image",
                "Share of the 10 most similar other pictures whose reconstructions correlate less "
                f"with the picture than its own reconstruction (features: {features}); "
                f"{_TIE_HALF}.",
                "image",
                *where,
                half,
            )
        )
        result.append(
            RankPercentile(
                f"identification, median rank, {space}, fixed image",
                "Median over images of the share of other reconstructions that correlate less with "
                f"the picture than its own (features: {features}); {_TIE_HALF}.",
                "image",
                *where,
                half,
            )
        )
        result.append(
            TopOne(
                f"identification, top-1 of the pool, {space}, fixed image",
                "Share of images for which the right reconstruction has the highest correlation "
                f"(features: {features}).",
                "image",
                *where,
            )
        )
        return tuple(result)
