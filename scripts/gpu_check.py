"""Check on a GPU what the tests cannot: its numbers against those of the CPU, memory and speed.

    python scripts/gpu_check.py --out gpu-check.json
    python scripts/gpu_check.py --tiny --device cpu      # rehearse the script, in seconds

Networks have the architecture of Stable Diffusion v1 and random weights (4.3 GB on disk).
Each part prints a line with its figures; the script ends with exit status 1 if one of the first
three failed. It was rehearsed on a CPU and has not run on a GPU yet.

precision    Encode, denoise and decode one picture with the same noise, on the GPU in each
             precision and on the CPU in float32. The relative error of each is
             ||GPU - CPU|| / ||CPU||, which must be at most 1e-3 (float32) or 5e-2 (halves).
memory       Denoise a batch in a share of the memory that is too small for it: the batch is
             halved, with a warning, and the latents are those of the small batches.
ridge        `ridge_cv` on the GPU and on the CPU: the same penalties for 99.9 % of the targets,
             predictions within 1e-3 of their standard deviation; the ratio of their times.
speed        Pictures of 512 px a minute at 50 steps, strength .8 and guidance 5, and peak memory.
pretraining  Tokens a second in the first phase of Vis-Dec, at the published size.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from calcarine.devices import SmallerBatchWarning, resolve_device
from calcarine.diffusion import LatentDiffusion
from calcarine.linear import ridge_cv

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
TOLERANCES = {"float32": 1e-3, "bfloat16": 5e-2, "float16": 5e-2}
STEPS, STRENGTH, GUIDANCE = 50, 0.8, 5.0


class Check:
    """Networks, sizes and device that all checks share."""

    def __init__(self, device: torch.device, tiny: bool, folder: Path) -> None:
        self.device, self.tiny = device, tiny
        self.source: str | Path = "mini"
        if not tiny:
            from stable_diffusion import write_networks  # type: ignore[import-not-found]

            write_networks(folder)
            self.source = folder
        self.precisions = ["float32", "bfloat16"]
        if device.type != "cpu":
            self.precisions.append("float16")

    def load(self, precision: str, device: torch.device | None = None) -> LatentDiffusion:
        return LatentDiffusion.from_pretrained(self.source, device or self.device, precision)

    def _made(self, model: LatentDiffusion) -> dict[str, np.ndarray]:
        side = model.image_size
        rows, columns = np.mgrid[:side, :side] / side
        picture = (np.stack([rows, columns, rows * columns], -1) * 255).astype(np.uint8)
        z = model.encode(picture[None])
        c = model.embed_text(["a cat"])
        options = {"strength": 0.5, "steps": 4, "guidance": GUIDANCE}
        latents = model.generate(c, [("check", 0)], z, **options)
        decoded = np.asarray(model.decode(latents), np.float64)
        return {"z": z, "c": c, "latents": latents, "picture": decoded}

    def precision(self) -> dict[str, Any]:
        expected = self._made(self.load("float32", torch.device("cpu")))
        found: dict[str, Any] = {"passed": True}
        for name in self.precisions:
            made = self._made(self.load(name))
            errors = {
                part: float(np.linalg.norm(made[part] - value) / np.linalg.norm(value))
                for part, value in expected.items()
            }
            found[name] = errors
            found["passed"] &= max(errors.values()) <= TOLERANCES[name]
        return found

    def memory(self) -> dict[str, Any]:
        model = self.load("float32" if self.tiny else "bfloat16")
        count = 16
        rng = np.random.default_rng(0)
        c = np.repeat(model.embed_text(["a cat"]), count, 0)
        z = rng.standard_normal((count, *model.latent_shape)).astype(np.float32)
        keys = [(f"{i}", 0) for i in range(count)]
        options = {"strength": 0.1, "steps": 20, "guidance": GUIDANCE}
        small = model.generate(c, keys, z, batch_size=2, **options)
        peak = torch.cuda.max_memory_allocated() if model.device.type == "cuda" else 0
        with _too_small_memory(model, peak), warnings.catch_warnings(record=True) as shown:
            warnings.simplefilter("always")
            found = model.generate(c, keys, z, batch_size=count, **options)
        halved = [str(w.message) for w in shown if issubclass(w.category, SmallerBatchWarning)]
        error = float(np.linalg.norm(found - small) / np.linalg.norm(small))
        return {"passed": bool(halved) and error < 5e-2, "error": error, "warnings": halved}

    def ridge(self) -> dict[str, Any]:
        n, p, targets = (400, 200, 50) if self.tiny else (8_000, 4_000, 4_096)
        rng = np.random.default_rng(0)
        x = rng.standard_normal((n, p)).astype(np.float32)
        weights = rng.standard_normal((p, targets)) / p**0.5
        y = (x @ weights + 2 * rng.standard_normal((n, targets))).astype(np.float32)
        alphas = np.geomspace(1, 1e6, 13)
        results, seconds = {}, {}
        where = {"cpu": "cpu", "device": "torch:cpu" if self.tiny else str(self.device)}
        for name, device in where.items():
            ridge_cv(x[:200], y[:200], alphas=alphas, device=device)  # what is loaded once
            start = time.perf_counter()
            results[name] = ridge_cv(x, y, alphas=alphas, device=device)
            seconds[name] = time.perf_counter() - start
        same = float((results["cpu"].alpha == results["device"].alpha).mean())
        test = rng.standard_normal((200, p)).astype(np.float32)
        ours, theirs = (results[name].predict(test) for name in ("device", "cpu"))
        error = float(np.abs(ours - theirs).max() / theirs.std())
        return {
            "passed": same >= 0.999 and error <= 1e-3,
            "same_penalties": same,
            "largest_difference_in_sd": error,
            "seconds": seconds,
            "times_faster": seconds["cpu"] / seconds["device"],
        }

    def speed(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name in self.precisions:
            if self.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            model, count = self.load(name), 2 if self.tiny else 16
            c = np.repeat(model.embed_text(["a cat"]), count, 0)
            z = np.zeros((count, *model.latent_shape), np.float32)
            keys = [(f"{i}", 0) for i in range(count)]
            moments: list[float] = []
            model.generate(
                c,
                keys,
                z,
                strength=0.2,
                steps=STEPS,
                guidance=GUIDANCE,
                batch_size=count,
                after_step=lambda _, moments=moments: moments.append(self._now()),
            )
            step = statistics.median(np.diff(moments))
            start = self._now()
            model.decode(z)
            decoding = self._now() - start
            whole = int(STEPS * STRENGTH) * step + decoding
            found[name] = {"pictures_a_minute": 60 * count / whole, "seconds_a_step": step}
            if self.device.type == "cuda":
                found[name]["peak_gb"] = torch.cuda.max_memory_allocated() / 1e9
        return found

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def pretraining(self) -> dict[str, Any]:
        from visdec import VOXELS, run_phase  # type: ignore[import-not-found]

        options = argparse.Namespace(
            steps=3 if self.tiny else 8,
            batch=None,
            micro=None if self.tiny else 250,
            precision="bf16",
            device="cuda" if self.device.type == "cuda" else "cpu",
            threads=torch.get_num_threads(),
            tiny=self.tiny,
        )
        found = run_phase(1, options)
        # Two maskings of each vector.
        tokens = 2 * VOXELS[self.tiny] // 16
        return {
            "tokens_a_second": tokens / found["seconds_per_sample"],
            "vectors_a_second": 1 / found["seconds_per_sample"],
            "peak_gb": found["peak_gb"],
        }


@contextmanager
def _too_small_memory(model: LatentDiffusion, peak: int) -> Iterator[None]:
    """Leave a GPU little more memory than ``peak`` bytes; on a CPU, fail above 4 rows."""
    if model.device.type == "cuda":
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(model.device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, 1.1 * peak / total), model.device)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, model.device)
        return
    forward = model.unet.forward

    def small(x: torch.Tensor, *args: Any, **options: Any) -> Any:
        if len(x) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(x, *args, **options)

    model.unet.forward = small
    try:
        yield
    finally:
        model.unet.forward = forward


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small networks and data")
    parser.add_argument("--only", nargs="+", choices=CHECKS, default=list(CHECKS))
    parser.add_argument("--out", type=Path, help="JSON file of all figures")
    options = parser.parse_args()
    sys.path.insert(0, str(BENCHMARKS))
    device = resolve_device(options.device)
    found: dict[str, Any] = {
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
    }
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        check = Check(device, options.tiny, Path(folder) / "model")
        print(f"{found['device']}: networks made in {time.perf_counter() - start:.0f} s")
        for name in options.only:
            start = time.perf_counter()
            made: Callable[[], dict[str, Any]] = getattr(check, name)
            found[name] = made()
            found[name]["took_seconds"] = time.perf_counter() - start
            print(f"{name}: {json.dumps(found[name])}", flush=True)
    if options.out:
        options.out.write_text(json.dumps(found, indent=1))
    failed = [name for name in options.only if not found[name].get("passed", True)]
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")
    print("all checks passed")


CHECKS = ("precision", "memory", "ridge", "speed", "pretraining")

if __name__ == "__main__":
    main()
