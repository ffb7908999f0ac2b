"""Settings of decoded features and of retrieval."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from calcarine.experiment.config_section import REGION, Section

__all__ = ["EmbeddingsConfig", "TargetConfig", "parse_gallery"]


def parse_gallery(name: str) -> tuple[str, str | None]:
    """Return the kind of a gallery and its folder, None for galleries of stimuli alone.

    Raises
    ------
    ValueError
        If there is no such gallery.
    """
    kind, colon, folder = name.partition(":")
    if (kind in ("test", "train", "all") and not colon) or (
        kind in ("folder", "folder+seen") and folder
    ):
        return kind, folder or None
    raise ValueError(
        f"there is no gallery '{name}'; choose test, train, all, folder:PATH or folder+seen:PATH"
    )


def _check_galleries(value: list[str]) -> list[str]:
    """Return galleries with absolute folders, since a run may be continued from elsewhere."""
    checked = [
        kind if folder is None else f"{kind}:{Path(folder).expanduser().absolute()}"
        for kind, folder in map(parse_gallery, value)
    ]
    twice = next((name for name in checked if checked.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"the gallery {twice} is named twice; name it once")
    return checked


_Galleries = Annotated[list[str], Field(min_length=1), AfterValidator(_check_galleries)]


class TargetConfig(Section):
    """A feature space that is decoded from a region."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][\w-]*$", description="Name of the target, part of file names."
    )
    space: str = Field(
        description="Feature space: hf:MODEL:LAYER:POOL, net:NETWORK:LAYER, z, c, or your own "
        "array as file:PATH (.npy, .npz or .parquet, a row for each stimulus).",
        pattern=r"^(z|c|(hf|net|file):.+)$",
    )
    roi: str = Field("all", description=f"Region that predicts it: {REGION}.")
    rescale: Literal["none", "norm", "variance", "components", "posterior"] = Field(
        "none",
        description="How predictions are brought back to scale, learned from held-out training "
        "stimuli: docs/embeddings.md.",
    )
    galleries: _Galleries | None = Field(
        None, description="Galleries of this target; by default embeddings.galleries."
    )

    @field_validator("space")
    @classmethod
    def _holds_from_everywhere(cls, value: str) -> str:
        # A run may be continued from another folder.
        if not value.startswith("file:"):
            return value
        return f"file:{Path(value.removeprefix('file:')).expanduser().absolute()}"

    @property
    def file(self) -> str | None:
        """The file of features of your own, None for other spaces."""
        return self.space.removeprefix("file:") if self.space.startswith("file:") else None


class EmbeddingsConfig(Section):
    """Decoding features of stimuli, such as image embeddings, and retrieving the stimuli."""

    targets: list[TargetConfig] = Field(
        default_factory=list, description="What is decoded; without any, nothing is retrieved."
    )
    galleries: _Galleries = Field(
        ["test", "all"],
        description="Galleries that are searched: the test stimuli, the training stimuli (train), "
        "all stimuli, the pictures in a folder (folder:PATH), or those and the test stimuli "
        "(folder+seen:PATH).",
    )
    metric: Literal["cosine", "correlation"] = Field(
        "cosine", description="Similarity about the training mean by which pictures are retrieved."
    )
    hubs: Literal["keep", "csls"] = Field(
        "keep",
        description="csls: retrieve pictures less often that are similar to all decoded "
        "embeddings; the result for one stimulus then depends on the others.",
    )

    @field_validator("targets")
    @classmethod
    def _have_own_names(cls, value: list[TargetConfig]) -> list[TargetConfig]:
        names = [target.name.lower() for target in value]  # some disks ignore the case
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two targets have the name '{twice}'; give each its own")
        return value

    @model_validator(mode="after")
    def _have_features_of_other_pictures(self) -> EmbeddingsConfig:
        for target in self.targets:
            if not target.space.startswith(("hf:", "net:")):
                other = next((g for g in self.galleries_of(target) if parse_gallery(g)[1]), None)
                if other is not None:
                    raise ValueError(
                        f"the target {target.name} of {target.space} has no features of the "
                        f"pictures in {other}; choose hf:MODEL or net:NETWORK:LAYER, or galleries "
                        "of its own without folders"
                    )
        return self

    def galleries_of(self, target: TargetConfig) -> list[str]:
        """Return the galleries that are searched for a target."""
        return self.galleries if target.galleries is None else target.galleries

    @property
    def folders(self) -> list[str]:
        """Folders of pictures that are searched."""
        searched = [gallery for target in self.targets for gallery in self.galleries_of(target)]
        folders = [folder for _, folder in map(parse_gallery, searched) if folder is not None]
        return list(dict.fromkeys(folders))
