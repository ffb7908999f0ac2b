"""The encoding analyses that there are, and the feature spaces that they compare."""

from __future__ import annotations

from dataclasses import dataclass

from calcarine.diffusion.trajectory import DENOISING_STAGES
from calcarine.errors import SettingError

__all__ = ["ANALYSES", "AnalysisPlan"]

ANALYSES = ("latents", "noise", "denoising_stages", "blocks")
"""Names of the analyses that an `AnalysisPlan` may choose."""


@dataclass(frozen=True)
class AnalysisPlan:
    """Which analyses to run, and on which feature spaces.

    Attributes
    ----------
    analyses : tuple of str
        Some of `ANALYSES`; may be empty if there are extra feature spaces.
    strengths : tuple of float
        Noise levels of the analysis "noise".
    strength : float
        Noise level of the other analyses.
    blocks : tuple of str
        Blocks of the U-Net; see :func:`calcarine.diffusion.trajectory.block_names`.
    extra_feature_spaces : tuple of str
        Further feature spaces, each fitted alone; your own among them.
    n_components : int
        Wider feature spaces are reduced to this number of principal components of the training
        stimuli.

    Examples
    --------
    >>> from calcarine.encoding import AnalysisPlan
    >>> plan = AnalysisPlan(analyses=("noise",), strengths=(0.6,))
    >>> plan.spaces()
    ['z', 'z_c@0.6']
    >>> plan.fits()  # z together with the features that were denoised from it
    [('z',), ('z_c@0.6',), ('z', 'z_c@0.6')]
    """

    analyses: tuple[str, ...] = ANALYSES
    strengths: tuple[float, ...] = (0.2, 0.4, 0.6, 0.8)
    strength: float = 0.8
    blocks: tuple[str, ...] = ()
    extra_feature_spaces: tuple[str, ...] = ()
    n_components: int = 6400

    def __post_init__(self) -> None:
        unknown = [name for name in self.analyses if name not in ANALYSES]
        if unknown:
            raise SettingError(
                f"There is no encoding analysis {unknown[0]}; choose some of {', '.join(ANALYSES)}."
            )
        if not (self.analyses or self.extra_feature_spaces):
            raise SettingError(
                f"There is nothing to analyse; choose some of {', '.join(ANALYSES)}, or give "
                "extra_feature_spaces."
            )
        if "blocks" in self.analyses and not self.blocks:
            raise SettingError("The analysis of blocks needs names of blocks of the U-Net.")

    def alone(self) -> dict[str, list[str]]:
        """Return the feature spaces that are fitted alone, by the analysis that compares them."""
        last = f"z_c@{self.strength:g}"
        compared = {"latents": ["z", "c", last]}
        for stage in DENOISING_STAGES:
            compared[f"blocks, {stage}"] = [
                f"unet:{block}@{self.strength:g}:{stage}" for block in self.blocks
            ]
        chosen = {
            name: spaces for name, spaces in compared.items() if name.split(",")[0] in self.analyses
        }
        extra = list(self.extra_feature_spaces)
        return chosen | ({"extra": extra} if extra else {})

    def pairs(self) -> dict[str, list[tuple[str, str]]]:
        """Return the pairs of feature spaces that are fitted together, by analysis."""
        together = {
            "noise": [("z", f"z_c@{strength:g}") for strength in self.strengths],
            "denoising_stages": [
                ("z", f"z_c@{self.strength:g}:{stage}") for stage in DENOISING_STAGES
            ],
        }
        return {name: pairs for name, pairs in together.items() if name in self.analyses}

    def fits(self) -> list[tuple[str, ...]]:
        """Return every fit: of one feature space alone, then of two together."""
        pairs = [pair for pairs in self.pairs().values() for pair in pairs]
        return [*((space,) for space in self.spaces()), *dict.fromkeys(pairs)]

    def spaces(self) -> list[str]:
        """Return every feature space that is needed."""
        alone = [space for spaces in self.alone().values() for space in spaces]
        together = [space for pairs in self.pairs().values() for pair in pairs for space in pair]
        return list(dict.fromkeys([*alone, *together]))
