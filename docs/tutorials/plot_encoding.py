"""
Which part of the brain does which part of the model explain?
=============================================================

Decoding goes from the brain to pictures. *Encoding* goes the other way: from
features of a picture it predicts the response of each voxel. If features of one
part of a diffusion model predict a voxel better than those of another part, the
voxel carries information that is more like that part. This tutorial fits encoding
models, draws maps of the brain, and relates the result to what is possible with
noisy responses.

.. note::

   The brain here is **simulated**. Its early voxels respond to light in one place, and its ventral
   voxels to what the picture shows. So we know what the maps should look like.
"""

# %%
# Feature spaces
# --------------
#
# A *feature space* is an array with one row for each stimulus. Here are three: the
# latent z and the text embedding c of the diffusion model (:doc:`plot_takagi`
# explains both), and one of our own, the mean colour of the picture.

import tempfile

import matplotlib.pyplot as plt
import numpy as np

import calcarine as ca
from calcarine.encoding import (
    MeanResponses,
    correlation_p,
    discoveries,
    normalised,
    region_table,
    unique_variance,
    winners,
)
from calcarine.features import FeatureStore, extract_spaces
from calcarine.quality import estimate_reliability
from calcarine.reporting import surface_figure

brain = ca.load_dataset("simulated", n_train=240, n_test=40)
model = ca.LatentDiffusion.from_pretrained("mini")

features = {
    "mean colour": brain.stimuli.images().mean((1, 2)).astype(np.float32),
    "z": model.encode(brain.stimuli),
    "c": model.embed_captions(brain.stimuli.captions()),
}

# %%
# Fit
# ---
#
# ``ca.encode`` fits a ridge regression from each space to every voxel with the
# training pictures, and predicts the responses to the test pictures. The score r of
# a voxel is the correlation of its predicted and measured responses.

encoded = ca.encode(brain, features)
encoded

# %%
# ``region_table`` averages r over the voxels of each region, with 95 % bootstrap
# intervals over the test pictures:

means = MeanResponses.from_dataset(brain)
regions = region_table(means, encoded, brain.rois)
regions.round(3)

# %%

figure, axis = plt.subplots(figsize=(6.5, 3.2), layout="constrained")
for place, space in enumerate(features):
    rows = (
        regions[regions["space"] == space].set_index("region").loc[list(brain.rois)]
    )
    error = [rows["r"] - rows["low"], rows["high"] - rows["r"]]
    at = np.arange(len(rows)) + 0.27 * (place - 1)
    axis.bar(at, rows["r"], 0.25, yerr=error, capsize=3, label=space)
axis.axhline(0, color="black", linewidth=0.8)
axis.set_xticks(range(len(brain.rois)), list(brain.rois))
axis.set(
    xlabel="region",
    ylabel="mean r over voxels",
    title="Prediction of regions (simulated brain)",
)
_ = axis.legend()

# %%
# z predicts the early voxels best and c the ventral ones, as it should be in this
# simulation. c also predicts early voxels, because captions name the background,
# and with it its colours. Voxels of ``other`` respond to nothing, and what is left
# there is chance.
#
# Which voxels?
# -------------
#
# With 1,700 voxels, some reach a high r by chance. ``correlation_p`` tests each
# voxel, and ``discoveries`` chooses those for which the expected share of false
# discoveries is at most 5 % (Benjamini and Hochberg).

significant = {}
for space, scores in encoded.items():
    significant[space], _ = discoveries(
        correlation_p(scores.r, len(means.test_ids)), 0.05
    )
    print(
        f"{space}: {significant[space].sum()} significant voxels, "
        f"{significant[space][brain.rois['other']].sum()} of them in other"
    )

# %%
# The noise ceiling
# -----------------
#
# Responses are noisy, so even a perfect model does not reach an r of 1. The repeats
# of the training pictures tell how far it could get: the *noise ceiling* is the
# share of the variance that is the same in every repeat. ``normalised`` divides r
# by the largest possible r.

ceiling = estimate_reliability(brain).values
for space in ("z", "c"):
    share = normalised(encoded[space].r, ceiling)
    for region in ("early", "ventral"):
        inside = brain.rois[region]
        print(
            f"{region}, {space}: median r {np.median(encoded[space].r[inside]):.2f}, "
            f"{np.nanmedian(share[inside]):.0%} of what is possible"
        )

# %%
# A map of the brain
# ------------------
#
# These voxels have places on the cortical surface of fsaverage5. Draw r for z,
# where it is significant:

# sphinx_gallery_thumbnail_number = 2

shown = np.where(significant["z"], encoded["z"].r, np.nan)
surface_figure(
    brain.voxels, shown, "Prediction by z", brain.simulated, label="correlation r"
)

# %%
# And the space that predicts each significant voxel best. ``winners`` decides by
# cross-validation within the training pictures, so the test scores are not biased
# by the choice.

pair = {space: encoded[space] for space in ("z", "c")}
best = winners(pair, significant["z"] | significant["c"]).astype(float)
best[best < 0] = np.nan
surface_figure(brain.voxels, best, "Best space", brain.simulated, names=tuple(pair))

# %%
# Save maps with ``calcarine.reporting.save_surface`` (GIFTI), ``save_volume``
# (NIfTI) or ``save_interactive`` (a page with a brain that you can turn).
#
# What only one space explains
# ----------------------------
#
# z and c are correlated: a picture with water is blue below. The *unique variance*
# of a space is the part of r2 that is lost without it, when both are fitted
# together, each with its own penalty.

unique = unique_variance(
    means, {space: features[space] for space in pair}, brain.stimuli.ids, alone=pair
)
figure, axes = plt.subplots(
    1, 2, figsize=(8, 3.4), sharex=True, sharey=True, layout="constrained"
)
for axis, region in zip(axes, ("early", "ventral"), strict=True):
    inside = brain.rois[region]
    axis.scatter(
        unique.unique["z"][inside], unique.unique["c"][inside], s=6, alpha=0.4
    )
    axis.axhline(0, color="black", linewidth=0.8)
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set(title=f"{region} voxels (simulated)", xlabel="r2 only by z")
_ = axes[0].set_ylabel("r2 only by c")

# %%
# A space without additional information costs a little, because its weights are not
# exactly 0. So values somewhat below 0 are expected.
#
# Inside the U-Net
# ----------------
#
# The same works for the layers of the network that removes the noise.
# ``extract_spaces`` knows names such as ``unet:mid_block@0.8:middle``: the output
# of the middle block, from a latent with a noise strength of 0.8, in the middle
# stage of the denoising. It keeps what it extracts in a folder.

blocks = [
    "down_blocks.0",
    "down_blocks.1",
    "mid_block",
    "up_blocks.0",
    "up_blocks.1",
]
names = [f"unet:{block}@0.8:middle" for block in blocks]
store = FeatureStore(tempfile.mkdtemp())
layers = extract_spaces(names, model, brain.stimuli, store, steps=4)

by_block = ca.encode(brain, layers)
best_block = winners(by_block, significant["z"] | significant["c"])

figure, axis = plt.subplots(figsize=(6.5, 3.2), layout="constrained")
for place, region in enumerate(("early", "ventral")):
    chosen = best_block[brain.rois[region] & (best_block >= 0)]
    share = np.bincount(chosen, minlength=len(blocks)) / len(chosen)
    axis.bar(np.arange(len(blocks)) + 0.4 * place - 0.2, share, 0.38, label=region)
axis.set_xticks(range(len(blocks)), blocks)
axis.set(xlabel="block of the U-Net", ylabel="share of voxels")
axis.set_title("Block that predicts a voxel best (simulated brain)")
_ = axis.legend()

# %%
# The blocks belong to a small model and the brain is simulated, so the shares say
# nothing about people. ``calcarine.encoding.analyse`` and the command ``calcarine
# encode`` make all of these analyses, over noise levels and denoising stages too,
# and write a report.
#
# Read on
# -------
#
# - :doc:`/encoding`: the analyses of Takagi & Nishimoto (2023), section 3.4, and
#   how they were checked
# - :doc:`plot_ridge`: the regressions behind them
