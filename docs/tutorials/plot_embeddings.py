"""
Image embeddings and retrieval
==============================

Instead of drawing a picture, you can look for it. This tutorial decodes the
embedding of the seen picture and finds the picture in a *gallery* by its similarity
to what was decoded. It shows why some pictures are found too often, and what the
size of the gallery does to a score.

.. note::

   The brain here is **simulated**, and the vision model is a small one that comes with calcarine.
   With measured data, use CLIP, DINOv2 or another model of transformers; see :doc:`/embeddings`.
"""

# %%
# Embeddings
# ----------
#
# An *embedding* is an array that a network computes from a picture or a text, such
# that similar pictures have similar arrays. Take three of them: the *tokens* of a
# vision model, which divides a picture into patches and turns each patch into a
# vector; and the latent z and the text embedding c of a diffusion model, as in
# :doc:`plot_takagi`.

from collections import Counter

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import calcarine as ca
from calcarine.features import load_vision_model

brain = ca.load_dataset("simulated", n_train=240, n_test=40)
split = brain.split()
vision = load_vision_model("mini")
diffusion = ca.LatentDiffusion.from_pretrained("mini")

targets = {
    "tokens": vision.features(brain.stimuli.images(), "-1", "tokens"),
    "z": diffusion.encode(brain.stimuli),
    "c": diffusion.embed_captions(brain.stimuli.captions()),
}
for name, values in targets.items():
    print(
        f"{name}: {values.shape[0]} stimuli, each {' x '.join(map(str, values.shape[1:]))}"
    )

# %%
# Decode
# ------
#
# ``ca.EmbeddingRegression`` fits ridge regressions from a region to any features of
# the stimuli. Give each target a name, a region and an array with one row for each
# stimulus. Targets of one region share one decomposition of its responses.

regions = {"tokens": "early", "z": "early", "c": "ventral"}
decoder = ca.EmbeddingRegression(regions).fit(brain, split, targets)
decoded = decoder.predict(brain, split)

# %%
# Retrieve
# --------
#
# The gallery holds the pictures of all 280 stimuli, the seen ones among them. For
# each test stimulus, order the gallery by similarity to the decoded embedding. The
# *rank* is the place of the seen picture in this order; 1 is best.
#
# Ridge regression shrinks its predictions towards the mean of the training stimuli.
# Similarity is therefore measured between *directions from that mean*, which
# shrinking does not change: give it as ``mean``.

training = brain.stimuli.rows(split.train)
found = {
    name: ca.retrieve(
        decoded[name],
        values,
        split.test,
        brain.stimuli.ids,
        mean=values[training].mean(0),
    )
    for name, values in targets.items()
}
pd.DataFrame(
    {
        f"{name} from {regions[name]}": {
            "top-1": result.top(1),
            "top-5": result.top(5),
            "median rank": result.median_rank,
            "rank percentile": result.rank_percentile,
        }
        for name, result in found.items()
    }
).T.round(2)

# %%
# The *rank percentile* is the share of the other pictures that are less similar
# than the seen one. Its chance level is 0.5 for a gallery of any size. Top-1 by
# chance is one over the size of the gallery.
#
# In this simulation, voxels of ``ventral`` respond to what a picture shows, and
# captions say the same. So c finds pictures more easily here than it does with
# measured data.
#
# ``nearest`` has the pictures that come first. Look at those of the tokens:

result = found["tokens"]
shown = {}
for number in range(5):
    names = [split.test[number], *result.nearest[number]]
    shown[f"rank {result.rank[number]:g}"] = brain.stimuli.images(names)
ca.show(shown, ["seen", "1st", "2nd", "3rd", "4th", "5th"], side=1.3)

# %%
# The pictures that come first have a similar layout and similar colours, also where
# the seen picture is not the first one. The label of a row is the rank of the seen
# picture.
#
# Hubs
# ----
#
# A *hub* is a picture that is similar to almost everything. If directions are not
# measured from the mean, pictures near the mean become hubs. Count how often each
# picture is among the ten nearest to the decoded z:

mean = targets["z"][training].mean(0)
ways = {
    "without mean": {},
    "with mean": {"mean": mean},
    "with mean and CSLS": {"mean": mean, "hubs": "csls"},
}
figure, axes = plt.subplots(
    1, 3, figsize=(10, 3), sharex=True, sharey=True, layout="constrained"
)
for axis, (name, options) in zip(axes, ways.items(), strict=True):
    result = ca.retrieve(
        decoded["z"], targets["z"], split.test, brain.stimuli.ids, k=10, **options
    )
    times = Counter(picture for row in result.nearest for picture in row)
    counts = [times[picture] for picture in brain.stimuli.ids]
    axis.hist(counts, bins=np.arange(17) - 0.5)
    axis.set_yscale("log")
    axis.set(xlabel="times among the nearest ten", title=name)
    print(f"{name}: top-5 {result.top(5):.2f}, hubness {result.hubness:.1f}")
axes[0].set_ylabel("pictures of the gallery")
_ = figure.suptitle("Hubs (simulated brain, 40 decoded embeddings)")

# %%
# *Hubness* is the skewness of these counts: near 0 without hubs, large with them.
# CSLS (cross-domain similarity local scaling) subtracts from each similarity how
# similar a picture is to the decoded embeddings on the whole. It compares the
# decoded embeddings with one another, so the result for one of them depends on the
# others. Say so if you use it.
#
# The size of the gallery
# -----------------------
#
# A larger gallery holds more pictures that may come first. Add new pictures that
# nobody has seen:

new = ca.StimulusSet.from_scenes(seed=1, indices=range(1000))
gallery = np.concatenate(
    [targets["tokens"], vision.features(new.images(), "-1", "tokens")]
)
ids = [*brain.stimuli.ids, *new.ids]
test_first = [
    *brain.stimuli.rows(split.test),
    *training,
    *range(len(brain.stimuli), len(ids)),
]

sizes = [40, 80, 160, 320, 640, 1280]
top, percentile = [], []
for size in sizes:
    rows = test_first[:size]
    result = ca.retrieve(
        decoded["tokens"],
        gallery[rows],
        split.test,
        [ids[row] for row in rows],
        mean=targets["tokens"][training].mean(0),
    )
    top.append(result.top(1))
    percentile.append(result.rank_percentile)

figure, axis = plt.subplots(figsize=(5.5, 3.4), layout="constrained")
axis.semilogx(sizes, percentile, "o-", label="rank percentile (chance 0.5)")
axis.semilogx(sizes, top, "o-", label="top-1")
axis.semilogx(
    sizes, 1 / np.array(sizes), "--", color="0.5", label="top-1 by chance"
)
axis.set(xlabel="pictures in the gallery", ylabel="score", ylim=(0, 1.05))
axis.set_xticks(sizes, [str(size) for size in sizes])
axis.minorticks_off()
axis.set_title("Tokens decoded from a simulated brain")
_ = axis.legend()

# %%
# Top-1 falls with the size of the gallery, and the rank percentile hardly changes.
# Report the size with every score. A gallery with the seen picture in it makes
# retrieval an easier task than reconstruction: the answer is already there.
#
# Read on
# -------
#
# - :doc:`/embeddings`: feature spaces, scores, and retrieval as a stage of a run
# - :doc:`plot_real_scores`: floors, ceilings and the audit
