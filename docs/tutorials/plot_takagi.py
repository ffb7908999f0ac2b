"""
Takagi & Nishimoto step by step
===============================

This tutorial reconstructs pictures from the responses of a simulated brain. It
follows the method of Takagi & Nishimoto (CVPR 2023) one step at a time.

The method predicts two descriptions of a picture by linear regression. From the
early visual cortex it predicts a *latent*: a small array from which a neural
network can draw the picture. From the ventral visual cortex it predicts an
embedding of the *text* that describes the picture. A latent diffusion model then
draws a picture from both. The only part that is fitted to the brain is ridge
regression.

.. note::

   The brain here is **simulated**, and the diffusion model is the mini model that comes with
   calcarine. It knows a few kinds of objects on simple backgrounds. The code for measured data and
   for Stable Diffusion is the same; see :doc:`/takagi`.
"""

# %%
# The data
# --------
#
# The simulated subject looks at small pictures, three times each. There are 300
# training pictures, to fit the decoders, and 20 test pictures, to reconstruct.

import matplotlib.pyplot as plt

import calcarine as ca

brain = ca.load_dataset("simulated", n_train=300, n_test=20)
brain

# %%
# ``early`` and ``ventral`` are regions of interest: sets of voxels. Voxels of
# ``early`` respond to the light in a small part of the picture. Voxels of
# ``ventral`` respond to what the picture shows.
#
# A *split* says which pictures train and which test. Nothing that is fitted may see
# the responses to test pictures.

split = brain.split()
seen = brain.stimuli.images(split.test)
captions = brain.stimuli.captions(split.test)
print(captions[0][0])

ca.show(seen[:8])

# %%
# The latent z
# ------------
#
# A latent diffusion model has three parts. The first is an *autoencoder*. Its
# encoder turns a picture into a latent **z**, and its decoder turns z back into a
# picture. The latent is much smaller than the picture but keeps nearly all of it.

model = ca.LatentDiffusion.from_pretrained("mini")
z = model.encode(brain.stimuli)
print(f"a picture has {seen[0].size} numbers, its latent has {z[0].size}")

rows = brain.stimuli.rows(split.test)
ca.show({"seen": seen[:8], "encoded and decoded": model.decode(z[rows[:8]])})

# %%
# A latent is a stack of four small maps. Each keeps the layout of the picture.
# Voxels of the early visual cortex also keep the layout: each responds to one
# place. This is why the method predicts z from them.

figure, axes = plt.subplots(1, 5, figsize=(9, 2.1), layout="constrained")
axes[0].imshow(seen[0])
axes[0].set_title("picture")
for channel, axis in enumerate(axes[1:]):
    axis.imshow(z[rows[0], channel], cmap="gray")
    axis.set_title(f"z, channel {channel}")
for axis in axes:
    axis.set_axis_off()

# %%
# The text embedding c
# --------------------
#
# The second part is a *text encoder*. It turns a caption into an array **c** with
# one row for each word. If a picture has several captions, the embeddings are
# averaged.

c = model.embed_captions(brain.stimuli.captions())
print(f"c of one picture: {c[0].shape[0]} tokens x {c[0].shape[1]} values")

# %%
# Noise and strength
# ------------------
#
# The third part is the *U-Net*. It removes noise from a latent, a little at a time,
# and c says what the picture shows. From pure noise it makes a new picture
# of that text. This is method **c**.
#
# Method **z_c** does not start from pure noise. It adds noise to a given z and
# removes it again under c. The *strength* says how much noise: with a low strength,
# the result is close to z; at strength 1, nothing of z is left. To see it, take the
# latent of one picture and the text of another:

strengths = [0.2, 0.4, 0.6, 0.8, 1.0]
pairs = [(0, 3), (1, 4), (2, 5)]  # rows of the pictures that give z and c
mixed = {
    f"pair {first + 1}": [seen[first], seen[second]] for first, second in pairs
}
for strength in strengths:
    reconstructor = ca.Reconstructor(model, strength=strength, steps=15)
    made = reconstructor.from_z_c(z[rows[:3]], c[rows[3:6]], split.test[:3])
    for row, picture in zip(mixed.values(), made, strict=True):
        row.append(picture)

ca.show(
    mixed,
    ["gives z", "gives c", *(f"strength {strength}" for strength in strengths)],
)

# %%
# Layout and colours come from z, as long as the strength is low. The kind of object
# comes from c, as soon as it is high. Takagi & Nishimoto use a strength of 0.8,
# which is the default of
# :class:`~calcarine.decoding.Reconstructor`.
#
# The third argument of ``from_z_c`` names the stimuli. The noise of a picture is
# drawn from the seed and the name of the stimulus, so a picture is the same whether
# you make one or a hundred.
#
# Decode
# ------
#
# ``ca.LatentRegression`` fits ridge regressions from ``early`` to z and from
# ``ventral`` to c, with the trials of the training pictures only. Ridge regression
# is linear regression with a penalty on large weights. Every value of z and c gets
# its own penalty, which is chosen by cross-validation among the training pictures.

decoder = ca.LatentRegression().fit(brain, split, z, c)
decoded = decoder.predict(brain, split)

for name, summary in decoder.summary_.items():
    print(
        f"{name}, from {decoder.rois_[name]}: mean cross-validated r2 {summary.mean_cv_r2:.2f}"
    )

# %%
# The three reconstructions of the paper are method **z**, which only draws the
# decoded z; method **c**, which starts from noise; and method **z_c**.

# sphinx_gallery_thumbnail_number = 5

reconstructor = ca.Reconstructor(model, steps=15)
reconstructions = {
    "z": reconstructor.from_z(decoded["z"]),
    "c": reconstructor.from_c(decoded["c"], split.test),
    "z_c": reconstructor.from_z_c(decoded["z"], decoded["c"], split.test),
}
ca.show(
    {"seen": seen[:8], **{name: made[:8] for name, made in reconstructions.items()}}
)

# %%
# These are the first eight test pictures, not the best ones. z has the right
# colours in the right places, but it is blurred: ridge regression predicts
# averages. c draws clear objects in the wrong place. z_c has something of both.
#
# Floor, ceiling and interval
# ---------------------------
#
# Are these pictures good? A score alone does not tell. Compare it with two others:
#
# - *chance*: what you get without any information about the picture;
# - the *ceiling*: what the same generator draws from the **true** z and c. It shows
#   how well this model can draw these pictures at all.

ceilings = {
    "z": reconstructor.from_z(z[rows]),
    "c": reconstructor.from_c(c[rows], split.test),
    "z_c": reconstructor.from_z_c(z[rows], c[rows], split.test),
}
ca.show(
    {
        "seen": seen[:8],
        **{f"ceiling {name}": made[:8] for name, made in ceilings.items()},
    }
)

# %%
# As a score, take *two-way identification*. For each test picture, compare its
# reconstruction and the reconstruction of another test picture with it. The score
# is how often its own reconstruction is more similar, over all pairs; chance is
# 0.5. What "similar" means is a choice. Here it is the correlation of pixels, or of
# the last layer of a small network that recognises the objects of these pictures
# (``brain.judge`` names it).

metrics = {
    "pixels": "identification, pixels, fixed image",
    "objects": "identification, late layer, fixed image",
}
figure, axes = plt.subplots(
    1, 2, figsize=(8, 3.4), sharey=True, layout="constrained"
)
for made, label, colour in (
    (reconstructions, "decoded", "C0"),
    (ceilings, "ceiling", "0.6"),
):
    for place, (method, pictures) in enumerate(made.items()):
        scores = ca.score(pictures, seen, ids=split.test, judge=brain.judge)
        records = {r["metric"]: r for r in scores.records if r["role"] == "method"}
        for axis, name in zip(axes, metrics.values(), strict=True):
            record = records[name]
            error = [
                [record["value"] - record["ci_low"]],
                [record["ci_high"] - record["value"]],
            ]
            at = place + (0.2 if label == "ceiling" else -0.2)
            axis.bar(at, record["value"], 0.38, yerr=error, color=colour, capsize=3)
        interval = records[metrics["pixels"]]
        print(
            f"{method}, {label}: {interval['value']:.2f} "
            f"[{interval['ci_low']:.2f}, {interval['ci_high']:.2f}] by pixels"
        )

for axis, name in zip(axes, metrics, strict=True):
    axis.axhline(0.5, color="black", linestyle="--", linewidth=1)
    axis.set(xticks=range(3), xticklabels=list(reconstructions), ylim=(0, 1.05))
    axis.set_title(f"by {name}")
    axis.set_xlabel("method")
axes[0].set_ylabel("two-way identification")
_ = axes[1].legend(
    handles=[
        plt.Rectangle((0, 0), 1, 1, color="C0", label="decoded (simulated brain)"),
        plt.Rectangle((0, 0), 1, 1, color="0.6", label="ceiling: true z and c"),
        plt.Line2D(
            [], [], color="black", linestyle="--", linewidth=1, label="chance"
        ),
    ],
    loc="lower right",
)

# %%
# The bars are 95 % bootstrap intervals over test pictures. They say how much the
# score would vary with other pictures of the same kind, not with other people.
# Where the intervals of a method and of its ceiling overlap, it is the generator
# that limits the score, and a better decoder would hardly help. Where the ceiling
# is far above, the decoder or the signal of the brain is the limit.
#
# Read on
# -------
#
# - :doc:`/takagi`: the settings of the paper, Stable Diffusion, and what each
#   choice costs
# - :doc:`/principles`: the rules that calcarine keeps, and why
# - :doc:`/notebook`: the same objects, and brain maps, in five minutes
