"""Settings of Vis-Dec's losses and augmentation; a light import without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from calcarine.errors import CalcarineError

__all__ = ["Augmentation", "ContrastLoss", "FinetuneLoss", "GuidanceLoss"]


@dataclass(frozen=True)
class Augmentation:
    """How much vectors are changed before a network sees them.

    Attributes
    ----------
    noise : float
        SD of Gaussian noise, in SDs of z-scored responses.
    drop : float
        Share of voxels that are set to 0, their mean. (The published code means to do so with .2
        and, by an index of the wrong axis, drops none.)
    gain : float
        SD of the logarithm of a factor for a whole vector.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")  # a mistyped setting is an error

    noise: Annotated[
        float, Field(description="SD of added Gaussian noise, in SDs of z-scored responses.")
    ] = 0.0
    drop: Annotated[float, Field(description="Share of voxels that are set to 0, their mean.")] = (
        0.0
    )
    gain: Annotated[
        float,
        Field(description="SD of the logarithm of a random factor for each whole vector."),
    ] = 0.0

    def __post_init__(self) -> None:
        if self.noise < 0 or self.gain < 0 or not 0 <= self.drop < 1:
            raise CalcarineError(
                "Augmentation takes noise and gain of 0 or more and drop below 1; they are "
                f"{self.noise}, {self.gain} and {self.drop}."
            )


@dataclass(frozen=True)
class ContrastLoss:
    """Weights of the three losses of pre-training and how the contrasts are formed.

    Attributes
    ----------
    reconstruction, self_contrast, cross_contrast : float
        Weights; 0 leaves a loss out.
    mask_ratio : float
        Share of patches that are masked, in each of the two maskings.
    temperature : float
        Temperature of both contrasts.
    form : {"paper", "code"}
        ``"paper"``: both masked branches are contrasted with the true vectors, as the paper's
        figure shows. ``"code"``: only the first is, and both contrasts are halved.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")  # a mistyped setting is an error

    reconstruction: Annotated[
        float, Field(description="Weight of the reconstruction loss; 0 leaves it out.")
    ] = 1.0
    self_contrast: Annotated[
        float,
        Field(
            description="Weight of the contrast between a vector and its reconstruction; 0 leaves "
            "it out."
        ),
    ] = 1.0
    cross_contrast: Annotated[
        float,
        Field(
            description="Weight of the contrast between the two reconstructions of a vector; 0 "
            "leaves it out."
        ),
    ] = 0.5
    mask_ratio: Annotated[
        float, Field(description="Share of patches that are masked, in each of the two maskings.")
    ] = 0.75
    temperature: Annotated[float, Field(description="Temperature of both contrasts.")] = 0.1
    form: Annotated[
        Literal["paper", "code"],
        Field(
            description="paper: both masked branches are contrasted with the true vectors. code: "
            "only the first is, and both contrasts are halved."
        ),
    ] = "paper"

    def __post_init__(self) -> None:
        if self.form not in ("paper", "code"):
            raise CalcarineError(f"The form of the contrast is paper or code, not {self.form}.")
        if self.temperature <= 0:
            raise CalcarineError(f"The temperature must be above 0, not {self.temperature}.")
        _check_mask("mask_ratio", self.mask_ratio)
        weights = (self.reconstruction, self.self_contrast, self.cross_contrast)
        if not all(0 <= weight < float("inf") for weight in weights) or not any(weights):
            raise CalcarineError(
                "Weights of losses are numbers from 0, and at least one is above 0; they are "
                f"{weights}."
            )


@dataclass(frozen=True)
class GuidanceLoss:
    """Weights, maskings and depth; the defaults are the paper's best (its Table 2, row 14).

    Attributes
    ----------
    gamma_fmri, gamma_image : float
        Weights of the two reconstruction losses.
    fmri_mask, image_mask : float
        Shares of patches that are masked.
    layers : int
        Cross-attention blocks, half of them on each side (6 in the paper).
    direction : {"paper", "code"}
        Which side gives the queries; see
        :class:`calcarine.visdec.transformer_blocks.CrossBlock`.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")  # a mistyped setting is an error

    gamma_fmri: Annotated[
        float, Field(description="Weight of the reconstruction loss of fMRI patches.")
    ] = 0.25
    gamma_image: Annotated[
        float, Field(description="Weight of the reconstruction loss of image patches.")
    ] = 1.5
    fmri_mask: Annotated[float, Field(description="Share of fMRI patches that are masked.")] = 0.75
    image_mask: Annotated[float, Field(description="Share of image patches that are masked.")] = 0.5
    layers: Annotated[
        int, Field(description="Number of cross-attention blocks, half of them on each side.")
    ] = 6
    direction: Annotated[
        Literal["paper", "code"],
        Field(
            description="Which side gives the queries of cross-attention: as the paper describes "
            "it, or as the published code does."
        ),
    ] = "paper"

    def __post_init__(self) -> None:
        if self.layers < 2 or self.layers % 2:
            raise CalcarineError(
                f"Cross-attention has as many blocks on each side: layers is even, not "
                f"{self.layers}."
            )
        _check_mask("fmri_mask", self.fmri_mask)
        _check_mask("image_mask", self.image_mask)
        gammas = (self.gamma_fmri, self.gamma_image)
        if not all(0 <= gamma < float("inf") for gamma in gammas) or not any(gammas):
            raise CalcarineError("gamma_fmri and gamma_image are numbers from 0, and not both 0.")


@dataclass(frozen=True)
class FinetuneLoss:
    """How the conditioned diffusion model is trained.

    Attributes
    ----------
    drop_condition : float
        Share of samples that train without condition, so that guidance is possible (0 in the
        paper, which samples without guidance).
    time_condition : bool
        Also add the condition to the time embedding ("double conditioning").
    tokens : int, optional
        Number of tokens of the context; that of the model's own text by default (77 in the paper).
    begin : {"empty", "random"}
        ``"empty"``: contexts start at that of the empty text, where the model has text;
        ``"random"``: as in the published code.
    align : float
        Weight of the distance from contexts to the model's own contexts of the stimuli's text, in
        units of their variance. The denoising loss alone teaches a conditioner slowly which
        context belongs to which response; this loss teaches it directly. 0 in the paper, which
        uses no text.
    latent : float
        Weight of the distance from the predicted latent to the stimulus' own, in units of their
        variance; sampling may then start from the predicted latent, noised to a strength, as
        Takagi & Nishimoto start from z. 0 in the paper, which starts from noise.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")  # a mistyped setting is an error

    drop_condition: Annotated[
        float,
        Field(
            description="Share of samples that train without condition, which guidance needs; 0 in "
            "the paper."
        ),
    ] = 0.1
    time_condition: Annotated[
        bool, Field(description="Add the condition to the time embedding too.")
    ] = True
    tokens: Annotated[
        int | None,
        Field(description="Tokens of the context; by default as many as the model's text has."),
    ] = None
    begin: Annotated[
        Literal["empty", "random"],
        Field(
            description="Where contexts start: at the context of the empty text, or at random as "
            "in the published code."
        ),
    ] = "empty"
    align: Annotated[
        float,
        Field(
            description="Weight of the distance from contexts to those of the stimuli's text, in "
            "units of their variance; 0 in the paper."
        ),
    ] = 0.0
    latent: Annotated[
        float,
        Field(
            description="Weight of the distance from the predicted latent to the stimulus' own, in "
            "units of their variance; 0 in the paper."
        ),
    ] = 0.0

    def __post_init__(self) -> None:
        for name in ("align", "latent"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise CalcarineError(f"The weight {name} is 0 or more, not {getattr(self, name)}.")
        if self.tokens is not None and self.tokens < 1:
            raise CalcarineError(
                f"tokens is 1 or more, or null for those of the model's text, not {self.tokens}."
            )
        if not 0 <= self.drop_condition < 1:
            raise CalcarineError(
                f"drop_condition is at least 0 and below 1, not {self.drop_condition}."
            )


def _check_mask(name: str, share: float) -> None:
    """Refuse a share of masked patches that hides none or all."""
    if not 0 < share < 1:
        raise CalcarineError(f"{name} is the share of masked patches, above 0 and below 1.")
