"""Paths of the files of the Natural Scenes Dataset, and its constants.

Numbers: Allen et al. 2022 (Nature Neuroscience 25:116) and the data manual at
naturalscenesdataset.org.  They are compared in `check` and never relied upon.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from calcarine.brain.assets import UsageTerms
from calcarine.brain.info import DatasetInfo
from calcarine.datasets._data_files import no_folder
from calcarine.errors import MissingFileError

__all__ = [
    "ATLASES",
    "BETAS",
    "BETAS_PER_PERCENT",
    "BUCKET",
    "COCO_SPLITS",
    "COCO_URL",
    "DIMS",
    "INFO",
    "JOINED",
    "NSDGENERAL",
    "SESSIONS",
    "SPACE",
    "SUBJECTS",
    "TAKAGI_SUBJECTS",
    "NSDLayout",
    "find_layout",
]

BUCKET = "s3://natural-scenes-dataset"
COCO_URL = "http://images.cocodataset.org/annotations/annotations_trainval2017.zip"
SPACE = "func1pt8mm"
BETAS = "betas_fithrf_GLMdenoise_RR"
BETAS_PER_PERCENT = 300.0
"""Stored int16 betas are percent signal change times this."""

SUBJECTS = tuple(f"subj{number:02d}" for number in range(1, 9))
SESSIONS = dict(zip(SUBJECTS, (40, 40, 32, 30, 40, 32, 40, 30), strict=True))
DIMS = {
    "subj01": (81, 104, 83),
    "subj02": (82, 106, 84),
    "subj03": (81, 106, 82),
    "subj04": (85, 99, 80),
    "subj05": (79, 97, 78),
    "subj06": (85, 113, 83),
    "subj07": (78, 95, 81),
    "subj08": (80, 103, 78),
}
"""Voxels along X, Y and Z in `SPACE`."""
NSDGENERAL = dict(
    zip(SUBJECTS, (15724, 14278, 15226, 13153, 13039, 17907, 12682, 14386), strict=True)
)
N_IMAGES, N_SHARED, N_PER_SUBJECT, SESSION_TRIALS, PICTURE = 73_000, 1000, 10_000, 750, 425
TAKAGI_SUBJECTS = ("subj01", "subj02", "subj05", "subj07")
TAKAGI_SESSIONS, TAKAGI_TEST, TAKAGI_TRAIN = 37, 982, 8859

ATLASES: dict[str, dict[int, str]] = {
    "streams": {
        1: "early",
        2: "midventral",
        3: "midlateral",
        4: "midparietal",
        5: "ventral",
        6: "lateral",
        7: "parietal",
    },
    "prf-visualrois": {1: "V1v", 2: "V1d", 3: "V2v", 4: "V2d", 5: "V3v", 6: "V3d", 7: "hV4"},
    "floc-faces": {1: "OFA", 2: "FFA-1", 3: "FFA-2", 4: "mTL-faces", 5: "aTL-faces"},
    "floc-bodies": {1: "EBA", 2: "FBA-1", 3: "FBA-2", 4: "mTL-bodies"},
    "floc-places": {1: "OPA", 2: "PPA", 3: "RSC"},
    "floc-words": {1: "OWFA", 2: "VWFA-1", 3: "VWFA-2", 4: "mfs-words", 5: "mTL-words"},
}
"""Label volumes and the names of their labels, for when a label table is missing."""
JOINED = {"V1": ("V1v", "V1d"), "V2": ("V2v", "V2d"), "V3": ("V3v", "V3d")}
"""Areas whose ventral and dorsal parts have labels of their own."""

COCO_SPLITS = ("train2017", "val2017")

INFO = DatasetInfo(
    name="nsd",
    title="Natural Scenes Dataset (Allen et al. 2022)",
    simulated=False,
    subjects=SUBJECTS,
    source=f"naturalscenesdataset.org ({BUCKET})",
    licence="NSD terms and conditions: research and teaching, no redistribution",
    needs_folder=True,
    files=(
        "nsddata_betas",
        "nsddata/experiments/nsd/nsd_expdesign.mat",
        "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5",
    ),
    access="Fill in the NSD Data Access Agreement, then the files can be downloaded without an "
    "account; 29 to 44 GB of betas a subject and 40 GB of pictures.",
    terms=UsageTerms(
        title="NSD Data Access Agreement",
        url="https://cvnlab.slite.page/p/dC~rBTjqjb",
        summary="Fill in the access form of naturalscenesdataset.org, cite the paper and use the "
        "data for research or teaching. Do not give the files to others and do not try to find "
        "out who the subjects are.",
    ),
    options=(
        (
            "mask",
            "voxels: nsdgeneral (default), brain, an atlas (streams, prf-visualrois) or a "
            "region (early, V1, PPA), several joined by +; regions are cut to it",
        ),
        (
            "sessions",
            "how many from the first on, or a list; those on disk by default; 37 gives "
            "the paper's 982 test and 8,859 training pictures (24,980 trials)",
        ),
        ("zscore", "session (default), training, session-all or none"),
        ("captions", "true: must be there; false: left out; where they are by default"),
        ("size", "side of the pictures in pixels; 425 as stored by default"),
    ),
)

_SESSION_NAME = re.compile(r"betas_session(\d{2,})\.(hdf5|nii\.gz)")


@dataclass(frozen=True)
class NSDLayout:
    """Paths of one subject's files.

    Attributes
    ----------
    root : Path
        Folder that holds ``nsddata``, ``nsddata_betas`` and ``nsddata_stimuli``.
    subject : str
        Such as ``"subj01"``.
    """

    root: Path
    subject: str

    @property
    def number(self) -> int:
        """Number of the subject, from 1."""
        return int(self.subject[4:])

    @property
    def betas(self) -> Path:
        """Folder of the single-trial betas."""
        return self.root / "nsddata_betas" / "ppdata" / self.subject / SPACE / BETAS

    @property
    def ncsnr(self) -> Path:
        """Noise ceiling signal-to-noise ratio."""
        return self.betas / "ncsnr.nii.gz"

    @property
    def brainmask(self) -> Path:
        """Mask of the brain."""
        return self.root / "nsddata" / "ppdata" / self.subject / SPACE / "brainmask.nii.gz"

    def roi(self, name: str) -> Path:
        """Volume of a mask or of an atlas."""
        return self.brainmask.parent / "roi" / f"{name}.nii.gz"

    def labels(self, atlas: str) -> Path:
        """Table of the names of an atlas's labels."""
        labels = self.root / "nsddata" / "freesurfer" / "fsaverage" / "label"
        return labels / f"{atlas}.mgz.ctab"

    @property
    def responses(self) -> Path:
        """Table of trials."""
        return self.root / "nsddata" / "ppdata" / self.subject / "behav" / "responses.tsv"

    @property
    def expdesign(self) -> Path:
        """Design of the experiment."""
        return self.root / "nsddata" / "experiments" / "nsd" / "nsd_expdesign.mat"

    @property
    def stim_info(self) -> Path:
        """Table of the 73,000 pictures."""
        return self.expdesign.with_name("nsd_stim_info_merged.csv")

    @property
    def stimuli(self) -> Path:
        """The 73,000 pictures."""
        return self.root / "nsddata_stimuli" / "stimuli" / "nsd" / "nsd_stimuli.hdf5"

    def annotations(self, kind: str, split: str) -> Path:
        """COCO's captions or instances."""
        return self.stimuli.parent / "annotations" / f"{kind}_{split}.json"

    def session(self, number: int) -> Path:
        """Betas of a session: HDF5, or NIfTI where that alone is there."""
        hdf5 = self.betas / f"betas_session{number:02d}.hdf5"
        nifti = hdf5.with_suffix(".nii.gz")
        return nifti if nifti.is_file() and not hdf5.is_file() else hdf5

    def sessions(self) -> tuple[int, ...]:
        """Numbers of the sessions whose betas are on disk."""
        names = (path.name for path in self.betas.glob("betas_session*"))
        result = (_SESSION_NAME.fullmatch(name) for name in names)
        return tuple(sorted({int(match[1]) for match in result if match}))

    def origin(self, path: Path) -> str:
        """Return where to get a file."""
        if path.parent.name == "annotations":
            return COCO_URL
        return f"{BUCKET}/{path.relative_to(self.root).as_posix()}"

    def need(self, path: Path) -> Path:
        """Return the path of an existing file.

        Raises
        ------
        CalcarineError
            If there is none, saying where it can be had.
        """
        if not path.is_file():
            raise MissingFileError(
                f"Data set nsd: there is no {path}; get it from {self.origin(path)} (see "
                "'calcarine datasets download nsd')."
            )
        return path


def find_layout(data: str | Path | None, subject: str) -> NSDLayout:
    """Find the data set in a folder or in its subfolder ``nsd``."""
    if data is None:
        raise no_folder(INFO, "nsddata and nsddata_betas")
    for root in (Path(data), Path(data) / INFO.name):
        if (root / "nsddata_betas").is_dir() or (root / "nsddata").is_dir():
            return NSDLayout(root, subject)
    raise MissingFileError(
        f"Data set nsd: {data} holds neither nsddata nor nsddata_betas; give the folder above "
        "them, or get them with 'calcarine datasets download nsd'."
        if Path(data).is_dir()
        else f"Data set nsd: there is no folder {data}; check its name."
    )
