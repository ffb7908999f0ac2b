"""Our own protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from calcarine.evaluation.protocols.metric import PIXELS
from calcarine.evaluation.protocols.metrics_calcarine import (
    CategoryRead,
    GroupIdentification,
    HardIdentification,
    RankPercentile,
    TopOne,
)
from calcarine.evaluation.protocols.metrics_common import (
    Identification,
    NWayTopK,
    PixelCorrelation,
    StructuralSimilarity,
)
from calcarine.evaluation.protocols.preprocess import Preprocessing
from calcarine.evaluation.protocols.protocol import Protocol, register_protocol
from calcarine.evaluation.protocols.published_definitions import MEAN_R, SSIM_2D, TWO_WAY

if TYPE_CHECKING:
    from calcarine.evaluation.protocols.metric import Direction, Metric


@register_protocol
class Calcarine(Protocol):
    """Ours."""

    name = "calcarine"
    title = "calcarine"
    source = "this package"
    fixes = (
        "no download; pictures at the size of the ground truths; both directions, ties worth a "
        "half; hard negatives, ranks, and a shuffled brain beside every score"
    )
    samples = "similarity"
    n_way: ClassVar[tuple[tuple[int, int], ...]] = ((10, 1), (24, 5))

    def metrics(self) -> tuple[Metric, ...]:
        """Likeness, identification of several kinds, and classes."""
        native = Preprocessing("pil", "truth")
        spaces = (
            ("pixels", PIXELS, "pixels", native),
            *(
                (f"{layer} layer", "judge", layer, Preprocessing())
                for layer in ("early", "middle", "late")
            ),
        )
        likeness: tuple[Metric, ...] = (
            PixelCorrelation(
                "pixel correlation",
                MEAN_R.format(size="the truth's"),
                recipe=native,
            ),
            StructuralSimilarity(
                "SSIM", SSIM_2D.format(size="the truth's size"), kind="2d", recipe=native
            ),
        )
        identified = tuple(metric for space in spaces for metric in self._identification(*space))
        ways = tuple(
            NWayTopK(
                f"{n}-way top-{k}",
                f"Probability that the class the judge reads from the picture is among the {k} "
                f"most probable of {n} for the reconstruction, {n - 1} of them drawn at random.",
                network="judge",
                layer="probabilities",
                n_way=n,
                k=k,
                draws=self.draws,
                seed=self.seed,
            )
            for n, k in self.n_way
        )
        read = CategoryRead(
            "category read", "Share of reconstructions in which the judge reads what was seen."
        )
        return (*likeness, *identified, *ways, read)

    def _identification(
        self, space: str, network: str, layer: str, recipe: Preprocessing
    ) -> tuple[Metric, ...]:
        both: tuple[Direction, ...] = ("image", "reconstruction")
        where = (network, layer, recipe)
        half: Literal["half"] = "half"
        found: list[Metric] = []
        for direction in both:
            rule = TWO_WAY[direction].format(space=space).replace("is lost", "counts a half")
            found.append(
                Identification(
                    f"identification, {space}, fixed {direction}", rule, direction, *where, half
                )
            )
            found.append(
                GroupIdentification(
                    f"identification within category, {space}, fixed {direction}",
                    f"{rule} Only pictures of the same category compete.",
                    direction,
                    *where,
                    half,
                )
            )
        found.append(
            HardIdentification(
                f"identification among the 10 nearest, {space}, fixed image",
                "Share of the 10 pictures most like the picture whose reconstructions correlate "
                f"less with it than its own, in {space}; a tie counts a half.",
                "image",
                *where,
                half,
            )
        )
        found.append(
            RankPercentile(
                f"identification, median rank, {space}, fixed image",
                "Share of the other reconstructions that the right one beats, of the middle image, "
                f"in {space}; a tie counts a half.",
                "image",
                *where,
                half,
            )
        )
        found.append(
            TopOne(
                f"identification, top-1 of the pool, {space}, fixed image",
                f"Share of images whose right reconstruction correlates most, in {space}.",
                "image",
                *where,
            )
        )
        return tuple(found)
