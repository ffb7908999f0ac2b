"""Do the encoding analyses find what a simulation put there?

Voxels respond to known feature spaces of the bundled model (z, c, z_c at one strength,
blocks of the U-Net), noise is added, and the analyses are asked what drives them. All is simulated.

    python scripts/encoding_truth.py --out runs/encoding-truth
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import zscore

from calcarine.brain import BrainDataset, Split
from calcarine.diffusion import LatentDiffusion
from calcarine.diffusion.trajectory import block_names
from calcarine.encoding import (
    AnalysisPlan,
    MeanResponses,
    analyse,
    correlation_p,
    discoveries,
    encode,
)
from calcarine.evaluation.statistics.significance import holm
from calcarine.features import FeatureStore, extract_spaces
from calcarine.simulation.voxels import simulate_voxels
from calcarine.stimuli import StimulusSet

STRENGTHS = (0.2, 0.4, 0.6, 0.8)
ALPHAS = np.logspace(-1, 6, 15)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/encoding-truth"))
    parser.add_argument("--stimuli", type=int, default=800)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--voxels", type=int, default=60, help="in each region")
    parser.add_argument("--brains", type=int, default=3, help="that are asked every question")
    parser.add_argument("--null-brains", type=int, default=50, help="for false discoveries")
    options = parser.parse_args()
    model = LatentDiffusion.from_pretrained("mini")
    names = block_names(model)
    blocks = (
        names[0],
        names[len(model.unet.down_blocks) - 1],
        "mid_block",
        names[len(model.unet.down_blocks) + 1],
        names[-1],
    )
    stimuli = StimulusSet.from_scenes(7, range(options.stimuli), model.image_size)
    cut = int(options.stimuli * 0.8)
    split = Split("by number", stimuli.ids[:cut], stimuli.ids[cut:], "the first four fifths train")
    questions = AnalysisPlan(strengths=STRENGTHS, blocks=blocks)
    features = extract_spaces(
        questions.spaces(),
        model,
        stimuli,
        FeatureStore(options.out / "features"),
        steps=options.steps,
        progress=lambda n: print(".", end="", flush=True),
    )
    features = {name: np.asarray(values[:], np.float32) for name, values in features.items()}
    print()
    listeners = {
        "early": {"z": 1.0},
        "ventral": {"c": 1.0},
        "drifting": {"z_c@0.6": 1.0},
        **{block: {f"unet:{block}@0.8:middle": 1.0} for block in blocks},
        "silent": {},
    }
    rows: dict[str, list[dict]] = {"latents": [], "crossover": [], "winners": [], "shuffled": []}
    for seed in range(1, options.brains + 1):
        print(f"Brain {seed} of {options.brains}", flush=True)
        brain = simulate_voxels(
            stimuli, split, features, listeners, n_voxels=options.voxels, ceiling=60.0, seed=seed
        )
        found = analyse(brain, brain.splits, features, questions, n_boot=500, alphas=ALPHAS)
        part = {
            "latents": latents(found.regions),
            "crossover": crossover(found.unique, brain, features),
            "winners": winners(found.winners, blocks),
            "shuffled": shuffled(brain, features, seed),
        }
        for name, values in part.items():
            rows[name] += [{"brain": seed, **row} for row in values]
    report(rows, options.voxels)
    result = {
        "simulated": True,
        **rows,
        "false discoveries": false_discoveries(stimuli, split, features, options),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "encoding-truth.json").write_text(json.dumps(result, indent=1))


def report(rows: dict[str, list[dict]], n_voxels: int) -> None:
    """Means over brains; in brackets the outermost bounds of their 95 % intervals over stimuli."""

    def means(name: str, by: list[str]) -> pd.DataFrame:
        table = pd.DataFrame(rows[name])
        rules = {c: c[-3:] if c[-3:] in ("min", "max") else "mean" for c in table.columns}
        rules = {c: rule for c, rule in rules.items() if c not in ("brain", *by)}
        return table.groupby(by, sort=False).agg(rules)

    def span(row: pd.Series, name: str) -> str:
        return f"{row[name]:.3f} [{row[f'{name}_min']:.3f}, {row[f'{name}_max']:.3f}]"

    print("\nmean r of each latent")
    for (region, space), row in means("latents", ["region", "space"]).iterrows():
        print(f"  {region:9} {space:7} {span(row, 'r')}")
    print("\nunique r2 of voxels that respond to z_c of strength .6")
    print("  strength   only z                  only z_c                z_c minus z, without noise")
    for strength, row in means("crossover", ["strength"]).iterrows():
        print(
            f"  {strength:<9g}  {span(row, 'only_z'):22}  {span(row, 'only_z_c'):22}  "
            f"{row['truth']:+.3f}"
        )
    table = pd.DataFrame(rows["crossover"])
    right = (table["only_z_c"] > table["only_z"]) == (table["truth"] > 0)
    ahead = (table["only_z_c"] - table["only_z"]).groupby(table["brain"]).idxmax()
    put = table.groupby("brain")["truth"].idxmax()
    print(
        f"  the sign is that of the truth in {right.sum()} of {len(right)}; z_c is ahead most "
        f"where it was put in {(ahead == put).sum()} of {len(put)} brains"
    )
    print("\nwinning block, middle of the denoising: voxels won, brain by brain")
    for block, part in pd.DataFrame(rows["winners"]).groupby("block", sort=False):
        print(f"  {block:16} {', '.join(map(str, part['won']))} of {n_voxels}")
    null = pd.DataFrame(rows["shuffled"])
    called = null.groupby("brain")["significant"].sum().tolist()
    print(
        f"\nresponses shuffled over stimuli: {sum(called)} of {null['tests'].sum()} tests "
        f"significant ({', '.join(map(str, called))} by brain)"
    )
    least = [holm(part["p"]).min() for _, part in null.groupby("brain")]
    areas = len(null) // len(least)
    print(
        f"  least p of {areas} means of areas, by permutation and after Holm, brain by brain: "
        f"{', '.join(f'{p:.2f}' for p in least)}"
    )


def latents(table: pd.DataFrame) -> list[dict]:
    """Mean r of each latent in the regions that respond to one of them."""
    asked = table[table["question"] == "latents"]
    part = asked[asked["region"].isin(["early", "ventral", "drifting", "silent"])]
    means = part[["region", "space", "r", "low", "high"]]
    return means.rename(columns={"low": "r_min", "high": "r_max"}).to_dict("records")


def crossover(table: pd.DataFrame, brain: BrainDataset, features: dict) -> list[dict]:
    """At which strength z_c explains more than z that the other does not: found, and noise-free."""
    asked = table[(table["question"] == "noise") & (table["region"] == "drifting")]
    columns = np.flatnonzero(brain.rois["drifting"])
    train = np.isin(brain.stimuli.ids, brain.splits[0].train)
    signal = brain.ground_truth["signal"][:, columns].astype(np.float32)
    clean = MeanResponses(
        signal[train],
        signal[~train],
        tuple(np.asarray(brain.stimuli.ids)[train]),
        tuple(np.asarray(brain.stimuli.ids)[~train]),
    )
    alone = {
        name: encode(clean, features[name], brain.stimuli.ids, alphas=ALPHAS).r2.mean()
        for name in ("z", *(f"z_c@{s:g}" for s in STRENGTHS))
    }
    rows = []
    for s in STRENGTHS:
        own = f"z_c@{s:g}"
        part = asked[asked["pair"] == f"z + {own}"].set_index("space")
        row = {"strength": s, "truth": float(alone[own] - alone["z"])}
        for name, space in (("only_z", "z"), ("only_z_c", own)):
            cells = part.loc[space]
            row |= {
                name: float(cells.unique_r2),
                f"{name}_min": float(cells.low),
                f"{name}_max": float(cells.high),
            }
        rows.append(row)
    return rows


def winners(table: pd.DataFrame, blocks: tuple[str, ...]) -> list[dict]:
    """How many of each block's listeners it wins."""
    asked = table[table["question"] == "blocks, middle"]
    rows = []
    for block in blocks:
        part = asked[(asked["region"] == block) & (asked["space"] == f"unet:{block}@0.8:middle")]
        row = part.iloc[0]
        rows.append({"block": block, "won": int(row.won), "significant": int(row.significant)})
    return rows


def false_discoveries(stimuli, split, features, options) -> dict:
    """Share of discoveries without signal, over brains in which most voxels have none."""
    shares, power = [], []
    for seed in range(options.null_brains):
        brain = simulate_voxels(
            stimuli,
            split,
            {"z": features["z"]},
            {"on": {"z": 1.0}, "off": {}, "dark": {}},
            n_voxels=options.voxels,
            ceiling=30.0,
            seed=100 + seed,
        )
        scores = encode(
            MeanResponses.from_dataset(brain), features["z"], stimuli.ids, alphas=ALPHAS
        )
        called, _ = discoveries(correlation_p(scores.r, len(split.test)), 0.05)
        shares.append(called[~brain.rois["on"]].sum() / max(called.sum(), 1))
        power.append(called[brain.rois["on"]].mean())
    rng = np.random.default_rng(0)
    drawn = np.mean(rng.choice(shares, (5000, len(shares))), axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    print(
        f"\nfalse discoveries over {len(shares)} brains: {np.mean(shares):.3f} "
        f"[{low:.3f}, {high:.3f}] of all discoveries (bound .05); "
        f"{np.mean(power):.0%} of the voxels with signal found"
    )
    return {
        "rate": float(np.mean(shares)),
        "low": float(low),
        "high": float(high),
        "power": float(np.mean(power)),
        "brains": len(shares),
    }


def shuffled(brain: BrainDataset, features: dict, seed: int) -> list[dict]:
    """Significant voxels, and p of each area's mean r, where responses belong to other stimuli."""
    rng = np.random.default_rng(seed)
    whole = MeanResponses.from_dataset(brain)
    null = MeanResponses(
        whole.train[rng.permutation(len(whole.train))],
        whole.test[rng.permutation(len(whole.test))],
        whole.train_ids,
        whole.test_ids,
    )
    orders = [rng.permutation(len(null.test)) for _ in range(2000)]
    rows = []
    for name in ("z", "c", "z_c@0.8"):
        scores = encode(null, features[name], brain.stimuli.ids, alphas=ALPHAS)
        called, _ = discoveries(correlation_p(scores.r, len(whole.test)), 0.05)
        predicted, measured = zscore(scores.predicted, axis=0), zscore(null.test, axis=0)
        for region, mask in brain.rois.items():
            products = predicted[:, mask] @ measured[:, mask].T
            above = sum(
                products[order, range(len(order))].sum() >= products.trace() for order in orders
            )
            rows.append(
                {
                    "space": name,
                    "region": region,
                    "tests": int(mask.sum()),
                    "significant": int(called[mask].sum()),
                    "p": (1 + above) / (1 + len(orders)),
                }
            )
    return rows


if __name__ == "__main__":
    main()
