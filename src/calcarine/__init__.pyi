from calcarine._front import audit as audit
from calcarine._front import score as score
from calcarine.brain import BrainDataset as BrainDataset
from calcarine.brain import Split as Split
from calcarine.datasets import load_dataset as load_dataset
from calcarine.decoding import EmbeddingRegression as EmbeddingRegression
from calcarine.decoding import LatentRegression as LatentRegression
from calcarine.decoding import PixelRegression as PixelRegression
from calcarine.decoding import Reconstructor as Reconstructor
from calcarine.decoding import retrieve as retrieve
from calcarine.diffusion import LatentDiffusion as LatentDiffusion
from calcarine.encoding import encode as encode
from calcarine.experiment import run_experiment as run_experiment
from calcarine.linear import BandedRidgeCV as BandedRidgeCV
from calcarine.linear import RidgeCV as RidgeCV
from calcarine.reporting.picture_grid import show as show
from calcarine.stimuli import StimulusSet as StimulusSet
from calcarine.visdec import VisDec as VisDec

__version__: str
__all__ = [
    "BandedRidgeCV",
    "BrainDataset",
    "EmbeddingRegression",
    "LatentDiffusion",
    "LatentRegression",
    "PixelRegression",
    "Reconstructor",
    "RidgeCV",
    "Split",
    "StimulusSet",
    "VisDec",
    "__version__",
    "audit",
    "encode",
    "load_dataset",
    "retrieve",
    "run_experiment",
    "score",
    "show",
]
