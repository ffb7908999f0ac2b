"""
Is a score real?
================

A reconstruction gets a pixel correlation of 0.5. Is that good? Does it come from
the brain at all? This tutorial shows how to answer: with floors, a ceiling, a
shuffled brain, and an audit. Two mistakes are built in on purpose, and an audit
finds them.

.. note::

   The brain here is **simulated**. Every step works in the same way on measured data.
"""

# %%
# A decoder and its pictures
# --------------------------
#
# To keep it short, the decoder only predicts the latent z of each picture from the
# early visual cortex, and the autoencoder of the diffusion model draws it. See
# :doc:`plot_takagi` for what these words mean.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import calcarine as ca
from calcarine.evaluation import (
    correlation_matrix,
    floor_verdicts,
    identification_matrix,
    nearest_training_image,
    paired_difference,
    permutation_test,
    random_training_image,
    training_mean,
)

brain = ca.load_dataset("simulated", n_train=240, n_test=30)
split = brain.split()
seen = brain.stimuli.images(split.test)
training = brain.stimuli.images(split.train)

model = ca.LatentDiffusion.from_pretrained("mini")
z = model.encode(brain.stimuli)
decoder = ca.LatentRegression().fit(brain, split, z)
decoded = decoder.predict(brain, split)["z"]
pictures = model.decode(decoded)

# %%
# Floors and a ceiling
# --------------------
#
# A *floor* is the score of pictures that need no reconstruction. There are several:
#
# - **training mean**: the mean of all training pictures, the same for every test
#   picture;
# - **random picture**: any training picture;
# - **nearest picture**: the training picture whose latent is most similar to the
#   decoded one. This one uses the brain, but it only looks a picture up and draws
#   nothing new.
#
# The *ceiling* is the score of pictures that are drawn from the true latent.

known = z[brain.stimuli.rows(split.train)]
sets = {
    "floor: training mean": training_mean(training, len(seen))[:, 0],
    "floor: random picture": random_training_image(training, split.test)[:, 0],
    "floor: nearest picture": nearest_training_image(training, known, decoded)[
        :, 0
    ],
    "decoded z": pictures,
    "ceiling: true z": model.decode(z[brain.stimuli.rows(split.test)]),
}
ca.show(
    {
        "seen": seen[:8],
        **{name.split(": ")[-1]: made[:8] for name, made in sets.items()},
    }
)

# %%
# Now score all of them in the same way. ``ca.score`` returns one record for each
# metric, with a 95 % interval over test pictures.

metrics = ["pixel correlation", "SSIM", "identification, pixels, fixed image"]
rows = []
for name, made in sets.items():
    scores = ca.score(made, seen, ids=split.test, judge=brain.judge)
    rows += [
        dict(row, pictures=name)
        for row in scores.records
        if row["role"] == "method"
    ]
table = pd.DataFrame(rows).pivot(index="pictures", columns="metric", values="value")
table.loc[list(sets), metrics].round(2)

# %%
# The table is easier to read as a figure:

# sphinx_gallery_thumbnail_number = 2

figure, axes = plt.subplots(
    1, 3, figsize=(10, 2.6), sharey=True, layout="constrained"
)
for axis, metric in zip(axes, metrics, strict=True):
    for place, name in enumerate(sets):
        (row,) = [
            r for r in rows if r["pictures"] == name and r["metric"] == metric
        ]
        colour = "C0" if name == "decoded z" else "0.6"
        axis.plot([row["ci_low"], row["ci_high"]], [place, place], color=colour)
        axis.plot(row["value"], place, "o", color=colour)
    if row["chance"] is not None:
        axis.axvline(row["chance"], color="black", linestyle="--", linewidth=1)
    axis.set(xlabel=f"{metric.split(', fixed')[0]}", xlim=(-0.05, 1.05))
axes[0].set(yticks=range(len(sets)), yticklabels=list(sets))
_ = axes[1].set_title(
    "Scores with 95 % intervals, simulated brain (dashed: chance)"
)

# %%
# The pictures of this data set resemble each other: the sky is above, the ground is
# below. So even their mean correlates with each of them. Identification tests which
# of two pictures was seen. The mean is the same for all, so it cannot answer, and
# its score is at chance.
#
# A pixel correlation therefore says nothing without its floors. ``floor_verdicts``
# compares a method with the strongest floor, image by image, and corrects the p
# values for the number of metrics. Give ``ca.score`` the training pictures, and it
# makes the floors that need nothing else:

scores = ca.score(pictures, seen, ids=split.test, judge=brain.judge, train=training)
for verdict in floor_verdicts(scores.records, scores.per_image):
    if verdict.metric in metrics:
        print(f"{verdict.metric}: {verdict.sentence}")

# %%
# A shuffled brain
# ----------------
#
# Could such a score come about by chance? Exchange the reconstructions between the
# test pictures and score them again, many times. If the decoder used the brain, the
# true order is better than nearly all others. The p value is the share of orders
# that are at least as good.
#
# Scores of all pairs make this cheap. Entry (i, j) of the matrix compares seen
# picture i with reconstruction j:

flat = pictures.reshape(len(pictures), -1)
matrix = correlation_matrix(seen.reshape(len(seen), -1), flat)
identified = identification_matrix(matrix)

rng = np.random.default_rng(0)
everything = np.arange(len(seen))
null = [
    identified[everything, rng.permutation(len(seen))].mean() for _ in range(2000)
]
observed = identified[everything, everything].mean()
print(f"observed {observed:.2f}, p = {permutation_test(identified).p:.4f}")

figure, axes = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
figure.get_layout_engine().set(wspace=0.15)
image = axes[0].imshow(matrix, cmap="viridis")
axes[0].set(
    xlabel="reconstruction",
    ylabel="seen picture",
    title="pixel correlation of all pairs",
)
figure.colorbar(image, ax=axes[0], label="correlation")
axes[1].hist(null, bins=30, color="0.6", label="shuffled")
axes[1].axvline(observed, color="C0", label="observed")
axes[1].set(
    xlabel="two-way identification",
    ylabel="number of shuffles",
    title="2,000 shuffles",
)
_ = axes[1].legend()

# %%
# ``ca.score`` does this for every metric and lists the result as the floor
# "shuffled brain".
#
# The first mistake: trials are split, not pictures
# -------------------------------------------------
#
# A shuffled brain and floors do not find every mistake. Here is a common one. The
# subject saw each picture three times. Somebody splits the *trials* at random, so
# that for most test trials another trial of the same picture is in training. The
# decoder can then learn the picture by heart.
#
# calcarine's own decoders refuse this. So plant the mistake by hand, with plain
# arrays and ``ca.RidgeCV``. Both fits below are tested on the same trials: the last
# repeat of each test picture.

shown = np.array(brain.trial_stimuli)
repeat = brain.responses["repeat"].values
X = brain.responses.values[:, brain.roi_mask("early")]
y = z[brain.stimuli.rows(shown)].reshape(len(shown), -1)

of_test_pictures = np.isin(shown, split.test)
tested = of_test_pictures & (repeat == repeat.max())
fits = {"pictures are split": ~of_test_pictures, "trials are split": ~tested}

ids = shown[tested]
made, correlations = {}, {}
for name, rows in fits.items():
    ridge = ca.RidgeCV(cv=5).fit(X[rows], y[rows], groups=shown[rows])
    made[name] = model.decode(
        ridge.predict(X[tested]).reshape(-1, *z.shape[1:]).astype("float32")
    )
    scores = ca.score(
        made[name], brain.stimuli.images(ids), ids=ids, judge=brain.judge
    )
    of_images = scores.per_image
    correlations[name] = of_images["value"][
        of_images["metric"] == "pixel correlation"
    ].to_numpy()
    print(f"{name}: pixel correlation {correlations[name].mean():.3f}")

gain = paired_difference(
    correlations["trials are split"], correlations["pictures are split"]
)
print(
    f"gain {gain.difference:.3f} [{gain.ci_low:.3f}, {gain.ci_high:.3f}], p = {gain.p:.4f}"
)

ca.show(
    {"seen": brain.stimuli.images(ids[:8]), **{k: v[:8] for k, v in made.items()}}
)

# %%
# The pictures look nearly the same, but the mistake raises the score, and nothing
# about the method is better. The more a decoder can learn by heart, the larger this
# gain can be. Floors and a shuffled brain do not show the mistake.
#
# The audit
# ---------
#
# ``ca.audit`` has sixteen checks of reconstructions. Each check looks for
# one kind of mistake in whatever you can give it. From arrays, put the evidence
# together as ``AuditInputs``: the pictures, and a table that says for each trial
# which stimulus was shown and whether the trial was used in training.

from calcarine.audit import AuditInputs, PictureSet, TrialTable

inputs = AuditInputs(
    "trials are split",
    recon=PictureSet.of(ids, made["trials are split"]),
    truth=PictureSet.of(ids, brain.stimuli.images(ids)),
    train=PictureSet.of(split.train, training),
    trials=TrialTable(shown, role=np.where(tested, "test", "train")),
)
found = ca.audit(inputs)
found.findings["split-leaks"]

# %%
# All findings at once:

found

# %%
# ``inconclusive`` means that a check lacks its evidence. It does not mean that all
# is well. Nor does ``passed``: it means that this check found nothing.
#
# The second mistake: the best of several samples
# -----------------------------------------------
#
# A diffusion model makes another picture from every noise. Somebody makes five
# samples of each stimulus and shows the one that is most similar to what was seen.
# But without the seen picture nobody could choose it.
#
# Here z_c starts from the decoded z and uses the true caption embedding, to keep
# the example short.

c = model.embed_captions(brain.stimuli.captions(split.test))
keys = [(stimulus, sample) for stimulus in split.test for sample in range(5)]
reconstructor = ca.Reconstructor(model, steps=6)
samples = reconstructor.from_z_c(
    np.repeat(decoded, 5, axis=0), np.repeat(c, 5, axis=0), keys
)
samples = samples.reshape(len(seen), 5, *seen.shape[1:])

truth = seen.reshape(len(seen), -1)
similarity = np.stack(
    [
        np.diag(correlation_matrix(truth, samples[:, s].reshape(len(seen), -1)))
        for s in range(5)
    ],
    1,
)
best = similarity.argmax(1)
print(f"pixel correlation, mean over samples: {similarity.mean():.3f}")
print(f"pixel correlation, best of five:      {similarity.max(1).mean():.3f}")

rows = {"seen": seen[:8]} | {f"sample {s}": samples[:8, s] for s in range(5)}
ca.show(rows, [f"shown: {s}" for s in best[:8]], side=1.3)

# %%
# The audit compares the samples that are shown with those that are not. ``only``
# chooses checks by name; ``calcarine.audit.list_checks`` lists them.

from calcarine.audit import SampleChoice

inputs = AuditInputs(
    "best of five",
    recon=PictureSet.of(split.test, samples[everything, best]),
    truth=PictureSet.of(split.test, seen),
    sample_choice=SampleChoice(PictureSet.of(split.test, samples), best),
)
ca.audit(inputs, only=["best-of-samples"]).findings["best-of-samples"]

# %%
# ``suspicious`` means that a finding needs an explanation: a rule that looks at
# nothing but brain activity may also prefer good samples, and that is valid. If
# almost every choice agrees with the seen picture, the verdict is ``failed``.
#
# Read on
# -------
#
# - :doc:`plot_audit_folder`: the same for a folder of pictures that somebody sends
#   you
# - :doc:`/audit`: what each check can find, and what no audit can
# - :doc:`/protocols`: the metrics of published papers
