"""How long single pieces of work take on this machine, measured within seconds."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from calcarine.diffusion import LatentDiffusion
from calcarine.errors import out_of_memory
from calcarine.experiment.memory_use import PeakMemory, measured_memory, used_memory
from calcarine.experiment.progress import Advance, Progress
from calcarine.experiment.stage import PHASES
from calcarine.linear.costs import RidgeCost, banded_ridge_cost, ridge_cost

if TYPE_CHECKING:
    from calcarine.diffusion.conditional import ConditionalDiffusion
    from calcarine.experiment.workspace import Workspace
    from calcarine.training import TrainingConfig

__all__ = ["Calibration", "Rate"]

# A measurement grows until it takes this long, in seconds.
_ENOUGH = 0.4
_PHASE_STEPS = 4
_PRODUCT = 1536
_SCORED = 24
_ALPHAS = np.geomspace(1.0, 1e6, 21)
# Seconds here, and the time that the work of `_reference` took on the same machine.
_REFERENCE_SECONDS = 0.05
_AUDIT_SECONDS, _AUDIT_STIMULUS_SECONDS = 0.18, 0.006
_AUDITED_RUN_SECONDS, _REPORT_SECONDS = 8.0, 4.0


@dataclass(frozen=True)
class Rate:
    """What a piece of work takes.

    Attributes
    ----------
    seconds : float
        Of one piece, in the batches of the run.
    memory : float
        Bytes that a batch takes beyond those of the process.
    gpu : float
        Bytes of the GPU at the peak of a batch.
    """

    seconds: float
    memory: float = 0.0
    gpu: float = 0.0


class Calibration:
    """Measures pieces of work of a run, each when it is first asked for.

    Parameters
    ----------
    work : Workspace
        The run, whose networks are loaded and whose files are not changed.
    phases : bool
        Whether to train the phases of Vis-Dec for a few steps; otherwise their times are unknown.
    """

    def __init__(self, work: Workspace, phases: bool = True) -> None:
        self._work, self.phases = work, phases
        self._rates: dict[str, Rate] = {}

    @cached_property
    def data(self) -> int:
        """Bytes that data and libraries take."""
        self._pictures(1)
        return used_memory()

    @cached_property
    def base(self) -> int:
        """Bytes that data, libraries and the diffusion models take."""
        work, data = self._work, self.data
        if work.config.makes_latents:
            _ = work.model
        if work.config.visdec.enabled:
            _ = work.generator
        return max(used_memory(), data)

    def rate(self, unit: str) -> Rate | None:
        """Return what one piece of work takes, None if that is not known.

        Parameters
        ----------
        unit : str
            As in `calcarine.experiment.stage_costs.Part`.
        """
        if unit in PHASES and not self.phases:
            return None
        if unit not in self._rates:
            try:
                self._rates[unit] = self._measured(unit)
            except Exception as error:
                if out_of_memory(error) is None:
                    raise
                return None  # the stage itself uses smaller batches, or says what to change
        return self._rates[unit]

    def _measured(self, unit: str) -> Rate:
        work = self._work
        name = unit.removeprefix("generator ")
        model = work.generator if unit != name else None
        if name in ("guided step", "plain step"):
            return self._denoising(model or work.model, guided=name.startswith("guided"))
        if name in ("decode", "decode z"):
            shape = work.z_shape if name == "decode z" else (model or work.model).latent_shape
            return self._decoding(model or work.model, shape)
        if name in ("encode", "encode z"):
            size = work.latent_size if name == "encode z" else (model or work.model).image_size
            return self._encoding(model or work.model, size)
        if name == "text":
            return self._texts()
        if name in PHASES:
            return self._measured_phases[name]
        if name == "double":
            return Rate(1 / self._products(np.float64))
        if name == "png":
            return self._png()
        if name in ("score", "scored method"):
            return self._scores[name == "scored method"]
        seconds = {
            "audited run": _AUDITED_RUN_SECONDS,
            "audit": _AUDIT_SECONDS,
            "audit stimulus": _AUDIT_STIMULUS_SECONDS,
            "report": _REPORT_SECONDS,
        }[name]
        return Rate(seconds * self._slowness)

    # -- networks

    def _denoising(self, model: ConditionalDiffusion, guided: bool) -> Rate:
        width = model.context_width
        length = getattr(model, "context_shape", (1, width))[0]
        steps = 2

        def run(count: int) -> None:
            context = np.zeros((count, length, width), np.float32)
            keys = [(str(row), 0) for row in range(count)]
            empty = None if hasattr(model, "context_shape") else context[0]
            model.generate(
                context,
                keys,
                guidance=5.0 if guided else 1.0,
                steps=steps,
                batch_size=count,
                empty=empty,
            )

        found = self._batches(run)
        return replace(found, seconds=found.seconds / steps)

    def _decoding(self, model: ConditionalDiffusion, shape: tuple[int, ...]) -> Rate:
        return self._batches(
            lambda count: model.decode(np.zeros((count, *shape), np.float32), count)
        )

    def _encoding(self, model: ConditionalDiffusion, size: int) -> Rate:
        return self._batches(
            lambda count: model.encode(np.zeros((count, size, size, 3), np.uint8), count)
        )

    def _texts(self) -> Rate:
        model = self._work.model
        text = "a cat sits on a table beside a window"
        return self._batches(lambda count: model.embed_text([text] * count))

    def _batches(self, run: Callable[[int], Any]) -> Rate:
        """Measure growing batches until one takes long enough; memory grows in proportion."""
        batch = self._work.config.generation.batch_size
        run(1)  # the first call prepares what later ones use
        count = 1
        while True:
            seconds, memory = _timed(partial(run, count))
            if seconds > _ENOUGH or count >= batch:
                break
            count = min(batch, max(2 * count, int(count * _ENOUGH / max(seconds, 1e-3))))
        scale = batch / count
        held = max(0, memory.peak - memory.before)
        return Rate(seconds / count, held * scale, memory.gpu * scale)

    @cached_property
    def _measured_phases(self) -> dict[str, Rate]:
        """Train each phase of Vis-Dec for a few steps, in a temporary folder."""
        from calcarine.experiment import visdec_training as training
        from calcarine.experiment.run_directory import RunDirectory
        from calcarine.experiment.workspace import Workspace

        tree = self._work.config.model_dump()
        tree["compute"]["store"] = None
        tree["dataset"]["folds"] = None if tree["dataset"]["split"] else 1
        for phase in PHASES:
            whole = getattr(self._work.config.visdec, phase).training
            tree["visdec"][phase]["training"] |= _short(whole)
        config = type(self._work.config).model_validate(tree)
        runs = {
            "pretrain": training.run_pretraining,
            "guide": training.run_guiding,
            "finetune": training.run_finetuning,
        }
        rates = {}
        with tempfile.TemporaryDirectory(prefix="calcarine-") as folder:
            clock = _Clock()
            pilot = Workspace(RunDirectory(Path(folder) / "run", config), clock)
            for name in ("dataset", "model", "generator"):  # loaded once
                if name in self._work.__dict__:
                    pilot.__dict__[name] = self._work.__dict__[name]
            if config.visdec.runs("finetune"):
                # Noise in place of features whose extraction may take hours.
                model = self._work.generator
                pilot.__dict__["generator_latents"] = _Noise(model.latent_shape)
                if isinstance(model, LatentDiffusion):
                    pilot.__dict__["generator_contexts"] = _Noise(model.context_shape)
            for phase in PHASES:
                if config.visdec.runs(phase):
                    _, memory = _timed(partial(runs[phase], pilot))
                    held = max(0, memory.peak - memory.before)
                    rates[phase] = Rate(clock.seconds_a_step(), held, memory.gpu)
        return rates

    # -- processor

    def ridge_seconds(self, cost: RidgeCost) -> float:
        """Return the time of a ridge regression, from that of a smaller one."""
        factor = self._banded_factor if cost.banded else self._ridge_factor
        products = cost.single / self._products(np.float32)
        return factor * (products + cost.double / self._products(np.float64))

    @cached_property
    def _ridge_factor(self) -> float:
        """Time of ridge regression over that of its multiplications alone."""
        from calcarine.linear import ridge_cv

        shape = 1200, 600, 2000
        x, y = _regression(*shape)
        device = self._work.ridge_device
        seconds, _ = _timed(lambda: ridge_cv(x, y, alphas=_ALPHAS, device=device))
        return seconds * self._products(np.float32) / ridge_cost(*shape).single

    @cached_property
    def _banded_factor(self) -> float:
        """The same for banded ridge regression of two feature spaces."""
        from calcarine.linear import banded_ridge_cv

        shape = 600, 600, 500
        x, y = _regression(*shape)
        spaces = np.hsplit(x, 2)
        seconds, _ = _timed(lambda: banded_ridge_cv(spaces, y, alphas=_ALPHAS))
        return seconds * self._products(np.float32) / banded_ridge_cost(*shape).single

    def _products(self, dtype: Any) -> float:
        """Return multiplications per second of a large matrix product."""
        name = f"products in {np.dtype(dtype)}"
        if name not in self._rates:
            a = np.ones((_PRODUCT, _PRODUCT), dtype)
            _ = a @ a
            times = [_timed(lambda: a @ a)[0] for _ in range(3)]
            self._rates[name] = Rate(float(np.median(times)) / _PRODUCT**3)
        return 1 / self._rates[name].seconds

    def _png(self) -> Rate:
        from io import BytesIO

        from PIL import Image

        picture = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
        seconds, _ = _timed(lambda: Image.fromarray(picture).save(BytesIO(), format="PNG"))
        return Rate(seconds / (picture[..., 0].size / 1e6))

    @cached_property
    def _scores(self) -> tuple[Rate, Rate]:
        """What a further picture takes, and what each method takes however few pictures it has."""
        from calcarine.evaluation import score_arrays
        from calcarine.experiment.scoring import scoring_of

        pictures = self._pictures(_SCORED)
        _, settings = scoring_of(self._work, self._work.dataset.stimuli.ids[: len(pictures)])
        given = {
            name: getattr(settings, name)
            for name in ("protocols", "weights", "judge", "n_boot", "n_permutations", "device")
        }

        def run(count: int) -> None:
            score_arrays(pictures[:count], pictures[count - 1 :: -1], **given)

        half = len(pictures) // 2
        run(half)  # loads networks
        few, _ = _timed(lambda: run(half))
        more, memory = _timed(lambda: run(len(pictures)))
        held = max(0, memory.peak - memory.before)
        both = max(more - few, 0.0) / half  # a ground truth and its reconstruction
        return Rate(both / 2, held, memory.gpu), Rate(max(few - half * both, 0.0))

    def _pictures(self, count: int) -> NDArray[np.uint8]:
        stimuli = self._work.dataset.stimuli
        return stimuli.images(stimuli.ids[:count])

    @cached_property
    def _slowness(self) -> float:
        """Time of some Python work on this machine over that on the one of the constants."""
        return min(_timed(_reference)[0] for _ in range(3)) / _REFERENCE_SECONDS


def _regression(n: int, p: int, t: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return predictors and noisy targets."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, p), np.float32)
    noise = 30 * rng.standard_normal((n, t), np.float32)
    return x, x @ rng.standard_normal((p, t), np.float32) + noise


def _short(training: TrainingConfig) -> dict[str, Any]:
    """Return the changes that leave a few steps of a training, on one device."""
    return {
        "steps": _PHASE_STEPS,
        "epochs": None,
        "warmup_steps": 0,
        "warmup_epochs": 0,
        "validate_every": None,
        "select": "last",
        "patience": None,
        "loggers": ("csv",),
        "batch_size": training.batch_size // (training.devices * training.nodes),
        "devices": 1,
        "nodes": 1,
    }


class _Noise:
    """Features of any stimulus, one of two arrays of noise."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._two = np.random.default_rng(0).standard_normal((2, *shape), np.float32)

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.asarray(self._two[np.asarray(rows) % 2])


class _Clock(Progress):
    """Records when each step of a training ends."""

    def __init__(self) -> None:
        self.times: list[float] = []

    @contextmanager
    def track(self, label: str, total: int) -> Iterator[Advance]:
        self.times.clear()
        yield lambda count: self.times.append(time.monotonic())

    def seconds_a_step(self) -> float:
        """Return the median time between two steps."""
        between = np.diff(self.times)
        return float(np.median(between)) if len(between) else 0.0


def _timed(run: Callable[[], Any]) -> tuple[float, PeakMemory]:
    with measured_memory() as memory:
        start = time.perf_counter()
        run()
        seconds = time.perf_counter() - start
    return seconds, memory


def _reference() -> None:
    """Do work that is neither a product nor a network: arrays, sorting and Python itself."""
    values = np.random.default_rng(0).standard_normal(400_000)
    np.sort(values)
    total = 0
    for value in range(400_000):
        total += value % 7
    np.fft.rfft(values)
