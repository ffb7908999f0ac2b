"""Time and memory of ridge regression against himalaya, scikit-learn and a bare floor.

    python benchmarks/ridge.py decoder god encoding --repeats 3 --out ridge.json
    python benchmarks/ridge.py whole-subject --repeats 1
    python benchmarks/ridge.py decoder --shrink 8          # the same, eight times smaller
    python benchmarks/ridge.py banded --repeats 1
    python benchmarks/ridge.py growth --figure docs/images/ridge-growth.png
    python benchmarks/ridge.py --table benchmarks/results/ridge-*.json

Every program ("side") runs in a process of its own, in turn, `--repeats` times. Times are medians
and cover the whole fit, with the data in memory (or on disk, if the case says so). The results are
compared too: chosen penalties, and predictions for new rows.

The floor is the minimum that every fit computes: the products X'X and X'Y, one symmetric
eigendecomposition of X'X (X X' when n < p), and the two products that turn X'Y into weights.
Data are simulated: predictors with a power-law spectrum, and targets, a third without signal.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from memory import peak_bytes

ALPHAS = np.logspace(1, 7, 10)
N_TEST = 200


@dataclass(frozen=True)
class Case:
    """A problem: n trials of n_stimuli stimuli, p predictors, t targets.

    `sides` are the programs to compare. The slow ones in `once` run in the first repeat only.
    """

    n: int
    n_stimuli: int
    p: int
    t: int
    sides: tuple[str, ...]
    on_disk: bool = False
    target: str = ""
    once: tuple[str, ...] = ()


KFOLD_SIDES = ("ours-kfold", "ours-kfold-local", "himalaya-kfold")
CASES = {
    "decoder": Case(
        8000,
        8000,
        4000,
        4096,
        (*KFOLD_SIDES, "ours-gcv", "plain-gcv", "sklearn-loo", "floor"),
        target="K-fold 8 x and GCV 20 x himalaya's K-fold; half its memory",
        once=("plain-gcv", "sklearn-loo"),
    ),
    "whole-subject": Case(
        24980,
        8859,
        7604,
        59136,
        ("ours-kfold-local", "ours-gcv", "floor"),
        on_disk=True,
        target="below 8 GB; GCV below 2 x, K-fold below 4 x the floor",
    ),
    "god": Case(
        1200,
        1200,
        4466,
        59136,
        (*KFOLD_SIDES, "floor"),
        target="5 x himalaya",
    ),
    "encoding": Case(
        8859,
        8859,
        6400,
        100_000,
        (*KFOLD_SIDES, "floor"),
        target="5 x himalaya",
    ),
}


def make_data(case: Case, folder: Path, seed: int = 0) -> None:
    """Write X, Y, the stimulus of each trial and fresh rows as .npy files."""
    rng = np.random.default_rng(seed)
    rank = min(case.p, 600)
    mixing = rng.standard_normal((rank, case.p), dtype=np.float32)
    mixing *= (np.arange(1, rank + 1, dtype=np.float32) ** -0.6)[:, None]
    stimuli = np.concatenate(
        [np.arange(case.n_stimuli), rng.integers(0, case.n_stimuli, case.n - case.n_stimuli)]
    )
    rng.shuffle(stimuli)
    latent = rng.standard_normal((case.n_stimuli, rank), dtype=np.float32)

    def responses(rows: np.ndarray) -> np.ndarray:
        noise = rng.standard_normal((len(rows), case.p), dtype=np.float32)
        return rows @ mixing + noise

    np.save(folder / "X.npy", responses(latent[stimuli]))
    np.save(folder / "stimuli.npy", stimuli)
    np.save(folder / "fresh.npy", responses(rng.standard_normal((N_TEST, rank), dtype=np.float32)))
    y = np.lib.format.open_memmap(folder / "Y.npy", "w+", np.float32, (case.n_stimuli, case.t))
    for start in range(0, case.t, 1024):
        columns = slice(start, min(start + 1024, case.t))
        count = columns.stop - start
        weights = rng.standard_normal((rank, count), dtype=np.float32)
        weights *= (np.arange(1, rank + 1, dtype=np.float32) ** -0.3)[:, None]
        signal = latent @ weights
        signal /= signal.std(axis=0)
        strength = rng.uniform(0, 1.5, count).astype(np.float32)
        strength[rng.random(count) < 1 / 3] = 0
        noise = rng.standard_normal(signal.shape, dtype=np.float32)
        y[:, columns] = signal * strength + noise
    y.flush()


# -- the sides: each returns its penalties and its predict function, timed by `run_side` -------


def ours(case: Case, folder: Path, x, y, stimuli, cv: str, search: str):
    from calcarine.linear import ridge_cv

    repeated = case.n != case.n_stimuli
    result = ridge_cv(
        x,
        y,
        alphas=ALPHAS,
        cv=cv,
        search=search,
        standardize=False,
        target_rows=stimuli if repeated else None,
        dtype="float32",
        out=tempfile.mkdtemp(dir=folder) if case.on_disk else None,
    )
    return result.alpha, result.predict


def himalaya(case: Case, folder: Path, x, y, stimuli, cv: str, search: str):
    from himalaya.backend import set_backend
    from himalaya.ridge import RidgeCV
    from himalaya.scoring import l2_neg_loss
    from sklearn.model_selection import PredefinedSplit

    from calcarine.linear import grouped_folds

    backend = set_backend("torch")
    folds = PredefinedSplit(grouped_folds(None, 5, n_rows=len(x)))
    # Squared error, as in calcarine: with folds of one size its mean over folds is the pooled one.
    parameters = {"score_func": l2_neg_loss}
    if case.t > 20_000:  # as himalaya's documentation recommends for little memory
        parameters |= {"n_targets_batch": 10_000, "n_alphas_batch": 2}
    model = RidgeCV(alphas=ALPHAS, fit_intercept=True, cv=folds, solver_params=parameters)
    model.fit(x, y)
    return backend.to_numpy(model.best_alphas_), lambda rows: backend.to_numpy(model.predict(rows))


def sklearn(case: Case, folder: Path, x, y, stimuli, cv: str, search: str):
    from sklearn.linear_model import RidgeCV

    model = RidgeCV(alphas=ALPHAS, alpha_per_target=True).fit(x, y)
    return np.broadcast_to(model.alpha_, case.t), model.predict


def plain(case: Case, folder: Path, x, y, stimuli, cv: str, search: str):
    """Textbook generalised cross-validation in float64, to check the results."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    x_mean, y_mean, n = x.mean(0), y.mean(0), len(x)
    x -= x_mean
    y -= y_mean
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    projected = u.T @ y
    rest = (y**2).sum(0) - (projected**2).sum(0)
    scores = []
    for alpha in ALPHAS:
        kept = alpha / (s**2 + alpha)
        free = n - 1 - (1 - kept).sum()
        scores.append((((kept[:, None] * projected) ** 2).sum(0) + rest) / free**2)
    alphas = ALPHAS[np.argmin(scores, axis=0)]
    weights = vt.T @ (projected * (s[:, None] / (s[:, None] ** 2 + alphas)))
    return alphas, lambda rows: (rows - x_mean) @ weights + y_mean


def floor(case: Case, folder: Path, x, y, stimuli, cv: str, search: str):
    import scipy.linalg

    if case.n != case.n_stimuli:
        order = np.argsort(stimuli, kind="stable")
        starts = np.searchsorted(stimuli[order], np.arange(case.n_stimuli))
        sums = np.add.reduceat(x[order], starts, axis=0)
    else:
        sums = x
    dual = case.n < case.p
    _, vectors = scipy.linalg.eigh(x @ x.T if dual else x.T @ x, driver="evd", check_finite=False)
    left = vectors.T if dual else sums.T
    right = x.T @ vectors if dual else vectors
    for start in range(0, case.t, 1024):
        product = left @ np.asarray(y[:, start : start + 1024])
        right @ (product if dual else vectors.T @ product)
    return None, None


SIDES = {
    "ours": ours,
    "himalaya": himalaya,
    "sklearn": sklearn,
    "plain": plain,
    "floor": floor,
}


def run_side(side: str, case: Case, folder: Path) -> dict:
    """Run one side on stored data; its results are written to the same folder."""
    name, *how = side.split("-")
    x, stimuli = np.load(folder / "X.npy"), np.load(folder / "stimuli.npy")
    y = np.load(folder / "Y.npy", mmap_mode="r" if case.on_disk else None)
    if case.n == case.n_stimuli:  # one trial each: rows of Y in the order of the trials
        y = y[stimuli]
    warm_up()
    gc.collect()
    before = peak_bytes(anew=True)
    began = time.perf_counter()
    alphas, predict = SIDES[name](
        case, folder, x, y, stimuli, how[0] if how else "", "local" if "local" in how else "full"
    )
    seconds = time.perf_counter() - began
    peak = peak_bytes()
    if alphas is not None:
        np.savez(
            folder / f"{side}.npz", alphas=alphas, fresh=predict(np.load(folder / "fresh.npy"))
        )
    return {"seconds": seconds, "peak_gb": peak / 1e9, "data_gb": before / 1e9}


def warm_up() -> None:
    """Load the libraries and start their threads before the time is measured."""
    import scipy.linalg
    import torch

    import calcarine.linear  # noqa: F401

    a = np.random.default_rng(0).standard_normal((500, 500), dtype=np.float32)
    scipy.linalg.eigh(a @ a.T, driver="evd")
    torch.from_numpy(a) @ torch.from_numpy(a)


def agreement(folder: Path, a: str, b: str) -> dict:
    """Return the share of targets with the same penalty, and the difference of predictions."""
    one, two = np.load(folder / f"{a}.npz"), np.load(folder / f"{b}.npz")
    same = np.isclose(one["alphas"], two["alphas"], rtol=1e-4)
    apart = np.abs(one["fresh"] - two["fresh"])[:, same].max(initial=0)
    return {
        "same_penalty": float(same.mean()),
        "largest_difference": float(apart / np.abs(two["fresh"]).max()),
    }


def measure(name: str, case: Case, repeats: int) -> dict:
    """Run all sides in turn, `repeats` times, each in a new process."""
    runs: dict[str, list[dict]] = {side: [] for side in case.sides}
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as scratch:
        folder = Path(scratch)
        make_data(case, folder)
        for repeat in range(repeats):
            for side in case.sides:
                if repeat and side in case.once:
                    continue
                child = subprocess.run(
                    [
                        sys.executable,
                        __file__,
                        "--child",
                        side,
                        str(folder),
                        json.dumps(asdict(case)),
                    ],
                    capture_output=True,
                    text=True,
                    check=False,
                )
                if child.returncode:
                    raise SystemExit(f"{side} failed:\n{child.stderr[-2000:]}")
                runs[side].append(json.loads(child.stdout.splitlines()[-1]))
                print(f"{name} {repeat + 1}/{repeats} {side}: {runs[side][-1]}", flush=True)
        result = {
            side: {
                "seconds": float(np.median([r["seconds"] for r in measured])),
                "all_seconds": [round(r["seconds"], 2) for r in measured],
                "peak_gb": round(max(r["peak_gb"] for r in measured), 2),
                "data_gb": round(measured[0]["data_gb"], 2),
            }
            for side, measured in runs.items()
        }
        pairs = {"ours-kfold": "himalaya-kfold", "ours-kfold-local": "himalaya-kfold"}
        pairs |= {"ours-gcv": "plain-gcv"}
        for side, other in pairs.items():
            if side in runs and other in runs:
                result[side]["agreement"] = {other: agreement(folder, side, other)}
    for side in result:
        for other in ("himalaya-kfold", "sklearn-loo", "floor"):
            if side.startswith("ours") and other in result:
                ratio = result[other]["seconds"] / result[side]["seconds"]
                result[side][f"times faster than {other}"] = round(ratio, 2)
    return {"case": asdict(case), "sides": result}


def shrunk(case: Case, factor: float) -> Case:
    """Return the same case with every size divided by `factor`."""
    n_stimuli = max(40, int(case.n_stimuli / factor))
    return replace(
        case,
        n=n_stimuli if case.n == case.n_stimuli else max(60, int(case.n / factor)),
        n_stimuli=n_stimuli,
        p=max(10, int(case.p / factor)),
        t=max(10, int(case.t / factor)),
    )


def banded_data(n: int, p: int, t: int, seed: int) -> tuple[list, np.ndarray, list, np.ndarray]:
    """Return three spaces on scales 1, 10 and 100; each target depends on some of them."""
    rng = np.random.default_rng(seed)
    sets = []
    mixing = [rng.standard_normal((60, p)) for _ in range(3)]
    used = rng.random((3, t)) < 0.4
    weights = [rng.standard_normal((60, t)) / np.sqrt(60) * h for h in used]
    for _ in range(2):
        latent = [rng.standard_normal((n, 60)) for _ in range(3)]
        xs = [
            ((z @ m + 3 * rng.standard_normal((n, p))) * 10.0**s).astype(np.float32)
            for s, (z, m) in enumerate(zip(latent, mixing, strict=True))
        ]
        signal = sum(z @ w for z, w in zip(latent, weights, strict=True))
        sets += [xs, (signal + 1.5 * rng.standard_normal((n, t))).astype(np.float32)]
    return tuple(sets)


def banded(repeats: int, shrink: float) -> dict:
    """Penalties for three spaces: ours against himalaya's random search of 50 draws."""
    from himalaya.backend import set_backend
    from himalaya.ridge import GroupRidgeCV
    from sklearn.metrics import r2_score
    from sklearn.model_selection import PredefinedSplit

    from calcarine.linear import banded_ridge_cv, grouped_folds

    n, p, t = (max(40, int(size / shrink)) for size in (1000, 400, 500))
    alphas = np.logspace(0, 6, 13)
    backend = set_backend("torch")
    warm_up()

    def ours(xs, y, fresh):
        result = banded_ridge_cv(xs, y, alphas=alphas, dtype="float32")
        return result.predict(fresh)

    def theirs(xs, y, fresh):
        means, scales = [x.mean(0) for x in xs], [x.std(0) for x in xs]
        scaled, unseen = (
            [(x - m) / s for x, m, s in zip(spaces, means, scales, strict=True)]
            for spaces in (xs, fresh)
        )
        model = GroupRidgeCV(
            groups="input",
            cv=PredefinedSplit(grouped_folds(None, 5, n_rows=n)),
            random_state=0,
            fit_intercept=True,
            solver_params={"n_iter": 50, "alphas": alphas, "progress_bar": False},
        )
        return backend.to_numpy(model.fit(scaled, y).predict(unseen))

    measured: dict[str, list] = {"ours": [], "himalaya": []}
    for seed in range(repeats):
        xs, y, fresh, y_fresh = banded_data(n, p, t, seed)
        for name, side in (("ours", ours), ("himalaya", theirs)):
            began = time.perf_counter()
            predicted = side(xs, y, fresh)
            seconds = time.perf_counter() - began
            r2 = float(r2_score(y_fresh, predicted, multioutput="raw_values").mean())
            measured[name].append({"seconds": seconds, "r2": r2})
            print("banded", seed, name, measured[name][-1], flush=True)
    seconds = {name: float(np.median([f["seconds"] for f in f_])) for name, f_ in measured.items()}
    return {
        "shape": {"n": n, "p": [p] * 3, "targets": t},
        "runs": measured,
        "seconds": seconds,
        "times faster than himalaya": round(seconds["himalaya"] / seconds["ours"], 2),
        "r2 above himalaya's": [
            round(a["r2"] - b["r2"], 5)
            for a, b in zip(measured["ours"], measured["himalaya"], strict=True)
        ],
    }


def growth(figure: Path | None, repeats: int) -> dict:
    """Measure a K-fold fit against n, p and the number of targets, each doubled in turn."""
    base = {"n": 8000, "p": 500, "targets": 1000}
    curves: dict[str, dict] = {}
    for axis in base:
        sizes = [base[axis] * factor for factor in (1, 2, 4, 8)]
        times, memory = [], []
        for size in sizes:
            n, p, t = (base | {axis: size}).values()
            sides = measure(f"growth, {axis} {size}", Case(n, n, p, t, ("ours-kfold",)), repeats)
            measured = sides["sides"]["ours-kfold"]
            times.append(measured["seconds"])
            memory.append(round(measured["peak_gb"] - measured["data_gb"], 3))
        curves[axis] = {"sizes": sizes, "seconds": times, "gb": memory}
        for what in ("seconds", "gb"):
            logs = np.log2(curves[axis][what])
            slope = np.polyfit(np.log2(sizes), logs, 1)[0]
            curves[axis][f"exponent of {what}"] = round(float(slope), 2)
            curves[axis][f"exponent of {what}, last doubling"] = round(
                float(logs[-1] - logs[-2]), 2
            )
    if figure is not None:
        draw_growth(curves, base, figure)
    return {"base": base, "curves": curves}


def draw_growth(curves: dict[str, dict], base: dict[str, int], figure: Path) -> None:
    """Plot both against each size on log axes, with the exponents."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    names = {"n": "trials", "p": "predictors", "targets": "targets"}
    panels = plt.subplots(2, 3, figsize=(9, 5.2), sharey="row", sharex="col")[1]
    for row, (what, label) in zip(
        panels, (("seconds", "seconds"), ("gb", "GB in addition to the data")), strict=True
    ):
        for ax, (axis, curve) in zip(row, curves.items(), strict=True):
            ax.loglog(curve["sizes"], curve[what], "o-", color="#1f5fa8")
            ax.set_title(f"exponent {curve[f'exponent of {what}']:.2f}", fontsize=10)
            ax.set_xticks(curve["sizes"], [f"{size:,}" for size in curve["sizes"]])
            ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            ax.xaxis.set_minor_locator(NullLocator())
            ax.yaxis.set_minor_locator(NullLocator())
            ax.grid(alpha=0.3)
            if what == "gb":
                ax.set_xlabel(names[axis])
        row[0].set_ylabel(label)
    start = ", ".join(f"{size:,} {names[axis]}" for axis, size in base.items())
    plt.suptitle(f"K-fold fit, 5 folds, 10 penalties; from {start}", fontsize=10)
    plt.tight_layout()
    plt.savefig(figure, dpi=120)


def table(files: list[Path]) -> str:
    """Return stored measurements as a table in Markdown."""
    lines = [
        "| case | side | seconds, median (all) | himalaya / side | floor / side | peak GB, data "
        "included | data GB | same penalty | largest difference |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for file in files:
        for name, result in json.loads(file.read_text()).items():
            if name == "growth":
                continue  # shown in its figure
            if name == "banded":
                for side, runs in result["runs"].items():
                    ratio = result["seconds"]["himalaya"] / result["seconds"][side]
                    times = ", ".join(f"{run['seconds']:.1f}" for run in runs)
                    r2 = ", ".join(f"{run['r2']:.4f}" for run in runs)
                    lines.append(
                        f"| banded, test r2 {r2} | {side} | {result['seconds'][side]:.1f} ({times})"
                        f" | {ratio:.1f} x | | | | | |"
                    )
            case = result.get("case", {})
            for side, measured in result.get("sides", {}).items():
                cells = [
                    f"{name}, {case['n']} x {case['p']}, {case['t']} targets",
                    side,
                    f"{measured['seconds']:.1f} ({', '.join(map(str, measured['all_seconds']))})",
                ]
                for other in ("himalaya-kfold", "floor"):
                    seconds = result["sides"].get(other, {}).get("seconds")
                    cells.append(f"{seconds / measured['seconds']:.2f} x" if seconds else "")
                cells += [f"{measured['peak_gb']:.2f}", f"{measured['data_gb']:.2f}"]
                agreed = next(iter(measured.get("agreement", {}).values()), None)
                if agreed:
                    same, apart = agreed["same_penalty"], agreed["largest_difference"]
                    cells += [f"{same:.2%}", f"{apart:.0e}"]
                else:
                    cells += ["", ""]
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        side, folder, about = sys.argv[2:5]
        case = Case(**{**json.loads(about), "sides": (), "once": ()})
        print(json.dumps(run_side(side, case, Path(folder))))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [*CASES, "banded", "growth"]
    parser.add_argument("cases", nargs="*", metavar=f"{{{','.join(names)}}}")
    parser.add_argument("--table", type=Path, nargs="+", help="print files that --out wrote")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--shrink", type=float, default=1.0, help="divide every size by this number"
    )
    parser.add_argument("--targets", type=int, help="another number of targets")
    parser.add_argument("--sides", nargs="+", help="run only these sides of the case")
    parser.add_argument("--out", type=Path, help="write the measurements to this JSON file")
    parser.add_argument("--figure", type=Path, help="write the figure of growth to this file")
    options = parser.parse_args()
    unknown = [name for name in options.cases if name not in names]
    if unknown or not (options.cases or options.table):
        parser.error(f"give cases among {', '.join(names)}, or --table with files")
    if options.table:
        print(table(options.table))
    results = {}
    for name in options.cases:
        if name == "growth":
            results[name] = growth(options.figure, options.repeats)
            continue
        if name == "banded":
            results[name] = banded(options.repeats, options.shrink)
            print(json.dumps(results[name], indent=2), flush=True)
            continue
        case = CASES[name] if options.shrink == 1 else shrunk(CASES[name], options.shrink)
        if options.sides:
            case = replace(case, sides=tuple(s for s in case.sides if s in options.sides))
        if options.targets:
            case = replace(case, t=options.targets)
        results[name] = measure(name, case, options.repeats)
        print(json.dumps(results[name], indent=2), flush=True)
    if options.out:
        options.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
