"""Do the encoding analyses find what a simulation put there?

Voxels are made to listen to known feature spaces of the bundled model (z, c, z_c at one strength,
blocks of the U-Net), noise is added, and the analyses are asked what drives them. All is simulated.

    python scripts/encoding_truth.py --out runs/encoding-truth
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from calcarine.datasets import Split
from calcarine.diffusion import LatentDiffusion
from calcarine.diffusion.trajectory import block_names
from calcarine.encoding import (
    MeanResponses,
    Questions,
    analyse,
    correlation_p,
    discoveries,
    encode,
    simulate_voxels,
)
from calcarine.features import FeatureStore, extract_spaces
from calcarine.stimuli import StimulusSet

STRENGTHS = (0.2, 0.4, 0.6, 0.8)
ALPHAS = np.logspace(-1, 6, 15)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/encoding-truth"))
    parser.add_argument("--stimuli", type=int, default=800)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--voxels", type=int, default=60, help="in each region")
    parser.add_argument("--brains", type=int, default=50, help="for the rate of false discoveries")
    options = parser.parse_args()
    model = LatentDiffusion.from_pretrained("mini")
    names = block_names(model)
    blocks = (names[0], names[len(model.unet.down_blocks) - 1], "mid_block",
              names[len(model.unet.down_blocks) + 1], names[-1])  # fmt: skip
    stimuli = StimulusSet.from_scenes(7, range(options.stimuli), model.image_size)
    cut = int(options.stimuli * 0.8)
    split = Split("by number", stimuli.ids[:cut], stimuli.ids[cut:], "the first four fifths train")
    questions = Questions(strengths=STRENGTHS, blocks=blocks)
    features = extract_spaces(
        questions.spaces(), model, stimuli, FeatureStore(options.out / "features"),
        steps=options.steps, progress=lambda n: print(".", end="", flush=True),
    )  # fmt: skip
    features = {name: np.asarray(values[:], np.float32) for name, values in features.items()}
    print()
    listeners = {
        "early": {"z": 1.0}, "ventral": {"c": 1.0}, "drifting": {"zc@0.6": 1.0},
        **{block: {f"unet:{block}@0.8:middle": 1.0} for block in blocks}, "silent": {},
    }  # fmt: skip
    brain = simulate_voxels(
        stimuli, split, features, listeners, n_voxels=options.voxels, ceiling=60.0, seed=1
    )
    found = analyse(brain, brain.splits, features, questions, n_boot=500, alphas=ALPHAS)
    result = {
        "simulated": True,
        "latents": latents(found.regions),
        "crossover": crossover(found.unique, brain, features),
        "winners": winners(found.winners, blocks),
        "false discoveries": false_discoveries(stimuli, split, features, options),
        "shuffled": shuffled(brain, features),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "encoding-truth.json").write_text(json.dumps(result, indent=1))


def latents(table) -> list[dict]:
    """Mean r of each latent in the regions that listen to one of them."""
    print("\nlatents: mean r [95 % interval over test stimuli]")
    rows = []
    asked = table[table["question"] == "latents"]
    for region in ("early", "ventral", "drifting", "silent"):
        part = asked[asked["region"] == region]
        cells = [f"{r.space} {r.r:.3f} [{r.low:.3f}, {r.high:.3f}]" for r in part.itertuples()]
        print(f"  {region:9} {'; '.join(cells)}")
        rows += part[["region", "space", "r", "low", "high"]].to_dict("records")
    return rows


def crossover(table, brain, features) -> dict:
    """At which strength z_c explains more than z that the other does not: found, and noise-free."""
    asked = table[(table["question"] == "noise") & (table["region"] == "drifting")]
    truth = {}
    columns = np.flatnonzero(brain.rois["drifting"])
    train = np.isin(brain.stimuli.ids, brain.splits[0].train)
    signal = brain.truth["signal"][:, columns].astype(np.float32)
    clean = MeanResponses(
        signal[train], signal[~train],
        tuple(np.asarray(brain.stimuli.ids)[train]), tuple(np.asarray(brain.stimuli.ids)[~train]),
    )  # fmt: skip
    alone = {name: encode(clean, features[name], brain.stimuli.ids, alphas=ALPHAS).r2.mean()
             for name in ("z", *(f"zc@{s:g}" for s in STRENGTHS))}  # fmt: skip
    rows = []
    print("\nunique r2 of voxels that listen to z_c of strength .6")
    print(
        "  strength   only z                  only z_c                noise-free r2 of z_c less z"
    )
    for s in STRENGTHS:
        own = f"zc@{s:g}"
        part = asked[asked["pair"] == f"z + {own}"].set_index("space")
        truth[s] = float(alone[own] - alone["z"])
        cells = [f"{part.loc[n].unique_r2:.3f} [{part.loc[n].low:.3f}, {part.loc[n].high:.3f}]"
                 for n in ("z", own)]  # fmt: skip
        print(f"  {s:<9g}  {cells[0]:22}  {cells[1]:22}  {truth[s]:+.3f}")
        rows.append({"strength": s, "only_z": float(part.loc["z"].unique_r2),
                     "only_zc": float(part.loc[own].unique_r2), "truth": truth[s]})  # fmt: skip
    best = max(rows, key=lambda row: row["only_zc"] - row["only_z"])["strength"]
    wanted = max(truth, key=truth.get)
    same = all((row["only_zc"] > row["only_z"]) == (row["truth"] > 0) for row in rows)
    print(f"  z_c is ahead most at {best:g} (put there: {wanted:g}); "
          f"the sign is that of the truth at every strength: {same}")  # fmt: skip
    return {"rows": rows, "found": best, "truth": wanted, "signs": same}


def winners(table, blocks) -> list[dict]:
    """Share of each block's listeners that it wins."""
    print("\nwinning block, middle of the denoising")
    asked, rows = table[table["question"] == "blocks, middle"], []
    for block in blocks:
        part = asked[(asked["region"] == block) & (asked["space"] == f"unet:{block}@0.8:middle")]
        row = part.iloc[0]
        print(f"  {block:16} wins {row.won} of {row.significant} of its voxels ({row.share:.0%})")
        rows.append({"block": block, "won": int(row.won), "of": int(row.significant)})
    return rows


def false_discoveries(stimuli, split, features, options) -> dict:
    """Share of discoveries without signal, over brains in which most voxels have none."""
    shares, power = [], []
    for seed in range(options.brains):
        brain = simulate_voxels(
            stimuli, split, {"z": features["z"]}, {"on": {"z": 1.0}, "off": {}, "dark": {}},
            n_voxels=options.voxels, ceiling=30.0, seed=100 + seed,
        )  # fmt: skip
        scores = encode(MeanResponses.of(brain), features["z"], stimuli.ids, alphas=ALPHAS)
        called, _ = discoveries(correlation_p(scores.r, len(split.test)), 0.05)
        shares.append(called[~brain.rois["on"]].sum() / max(called.sum(), 1))
        power.append(called[brain.rois["on"]].mean())
    rng = np.random.default_rng(0)
    drawn = np.mean(rng.choice(shares, (5000, len(shares))), axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    print(f"\nfalse discoveries over {len(shares)} brains: {np.mean(shares):.3f} "
          f"[{low:.3f}, {high:.3f}] of all discoveries (bound .05); "
          f"{np.mean(power):.0%} of the voxels with signal found")  # fmt: skip
    return {"rate": float(np.mean(shares)), "low": float(low), "high": float(high),
            "power": float(np.mean(power)), "brains": len(shares)}  # fmt: skip


def shuffled(brain, features) -> dict:
    """Significant voxels where responses belong to other stimuli."""
    rng = np.random.default_rng(3)
    whole = MeanResponses.of(brain)
    null = MeanResponses(
        whole.train[rng.permutation(len(whole.train))],
        whole.test[rng.permutation(len(whole.test))],
        whole.train_ids, whole.test_ids,
    )  # fmt: skip
    counts = {}
    for name in ("z", "c", "zc@0.8"):
        scores = encode(null, features[name], brain.stimuli.ids, alphas=ALPHAS)
        called, _ = discoveries(correlation_p(scores.r, len(whole.test)), 0.05)
        counts[name] = {region: int(called[mask].sum()) for region, mask in brain.rois.items()}
    print(f"\nresponses shuffled over stimuli: significant voxels {counts}")
    return counts


if __name__ == "__main__":
    main()
