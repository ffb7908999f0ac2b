"""What differs between the small measured data sets: names, files, sizes, licences and counts."""

from __future__ import annotations

from dataclasses import dataclass, field

from calcarine.brain.assets import Asset
from calcarine.brain.info import DatasetInfo

__all__ = ["DIGITS69", "HAXBY_SLICE", "MIYAWAKI_VBCCA", "NCC_S2", "SmallDataset"]


@dataclass(frozen=True)
class SmallDataset:
    """A row of the table of small data sets.

    Attributes
    ----------
    name, title, subject, source, licence : str
        See `DatasetInfo`; there is one subject.
    files : dict of str to int
        Names of the official files, and their sizes in bytes.
    categories : dict
        What the files call a category, and its name here. All are shown equally often.
    n_voxels, n_trials : int
        Known counts.
    n_stimuli, n_sessions : int, optional
        Known counts, where the check compares them.
    url : str
        Address of the first file below raw.githubusercontent.com, pinned to a commit.
    access : str
        How to get the files if they cannot be downloaded.
    """

    name: str
    title: str
    subject: str
    source: str
    licence: str
    files: dict[str, int]
    categories: dict[int | str, str]
    n_voxels: int
    n_trials: int
    n_stimuli: int | None = None
    n_sessions: int | None = None
    url: str = ""
    access: str = ""
    info: DatasetInfo = field(init=False)

    def __post_init__(self) -> None:
        info = DatasetInfo(
            name=self.name,
            title=self.title,
            simulated=False,
            subjects=(self.subject,),
            source=self.source,
            licence=self.licence,
            needs_folder=True,
            files=tuple(self.files),
            access=self.access,
        )
        object.__setattr__(self, "info", info)

    @property
    def file(self) -> str:
        """Name of the first file."""
        return next(iter(self.files))

    def expected(self) -> dict[str, str]:
        """Return the known counts as text, in the order in which a check reports them."""
        counts = {
            "trials": self.n_trials,
            "voxels": self.n_voxels,
            "stimuli": self.n_stimuli,
            "sessions": self.n_sessions,
        }
        texts = {what: str(count) for what, count in counts.items() if count is not None}
        times = self.n_trials // len(self.categories)
        names = sorted(self.categories.values())
        return {**texts, "categories": ", ".join(f"{name} {times}" for name in names)}

    def assets(self) -> list[Asset]:
        """Return the file to download, if there is one."""
        if not self.url:
            return []
        address = f"https://raw.githubusercontent.com/{self.url}"
        return [Asset(self.file, address, self.files[self.file], exact=True)]


DIGITS69 = SmallDataset(
    name="digits69",
    title="Handwritten sixes and nines in visual cortex (van Gerven et al. 2010)",
    subject="S1",
    source="Donders repository DSC_2018.00112_485 (this file: github.com/ChangdeDu/DGMM)",
    licence="none stated: do not redistribute",
    files={"digit69_28x28.mat": 2_390_173},
    categories={1: "six", 2: "nine"},
    n_voxels=3092,
    n_trials=100,
    n_stimuli=100,
    url="ChangdeDu/DGMM/286503c79b010fd285065da7092ca43f873c1f58/digit69_28x28.mat",
)

MIYAWAKI_VBCCA = SmallDataset(
    name="miyawaki_vbcca",
    title="Binary figures in V1 (Miyawaki et al. 2008; Fujiwara et al. 2013)",
    subject="S1",
    source="github.com/KamitaniLab/VBCCA (sample/data)",
    licence="3-clause BSD text in its README",
    files={"miyawaki_VBCCA_V1_mean_figure.mat": 494_782},
    # In the order in which the figures first appear in the file; captions use the first name.
    categories={
        "small square": "small-square",
        "small frame": "small-frame",
        "plus": "plus",
        "diagonal cross": "cross",
        "large frame": "large-frame",
        "letter n": "letter-n",
        "letter e": "letter-e",
        "letter u": "letter-u",
        "letter r": "letter-r",
        "letter o": "letter-o",
    },
    n_voxels=797,
    n_trials=80,
    n_stimuli=10,
    url=(
        "KamitaniLab/VBCCA/357a0948bddb96834cf564745233ec4d19356afc/sample/data/V1_mean_figure.mat"
    ),
)

HAXBY_SLICE = SmallDataset(
    name="haxby_slice",
    title="Eight categories of pictures, one half-slice (Haxby et al. 2001)",
    subject="S1",
    source="github.com/PyMVPA/PyMVPA (mvpa2/data, the example data set)",
    licence="MIT (of the repository)",
    files={"attributes_literal.txt": 12_026, "bold.nii.gz": 1_311_329, "mask.nii.gz": 197},
    categories={
        "face": "face",
        "house": "house",
        "cat": "cat",
        "shoe": "shoe",
        "scissors": "pair-of-scissors",
        "bottle": "bottle",
        "chair": "chair",
        "scrambledpix": "scrambled-picture",
    },
    n_voxels=530,
    n_trials=96,
    n_sessions=12,
    access=(
        "Take attributes_literal.txt, bold.nii.gz and mask.nii.gz from the data folder of a "
        "release of PyMVPA (packages python-mvpa2 and its sources hold them)."
    ),
)

NCC_S2 = SmallDataset(
    name="ncc_s2",
    title="Five figures in V1, time series (Yamada et al. 2015, subject 2)",
    subject="S2",
    source="github.com/KamitaniLab/NeuralCodeConverter (data/S2_figureImage.mat)",
    licence="ODC-BY",
    files={"miyawaki_NCC_S2_figureImage.mat": 4_068_848},
    # Named as the same figures of MIYAWAKI_VBCCA.
    categories={
        "square8x8": "small-square",
        "smallFrame8x8": "small-frame",
        "largeFrame8x8": "large-frame",
        "plus8x8": "plus",
        "cross8x8": "cross",
    },
    n_voxels=910,
    n_trials=40,
    n_sessions=4,
    url=(
        "KamitaniLab/NeuralCodeConverter/baea6b2821789523f5bf1a015ecb6f6c28b51510/"
        "data/S2_figureImage.mat"
    ),
)
