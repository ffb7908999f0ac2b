"""
Ridge regression at scale
=========================

Decoders and encoding models in this field are ridge regressions with thousands of
targets. This tutorial shows what is special about them: a penalty for each target,
repeats that must stay in one fold, the choice of ``cv``, and data that do not fit
into memory. It also compares the results with those of scikit-learn.

.. note::

   The responses here are **simulated**.
"""

# %%
# The data
# --------
#
# The rows of X are trials, its columns are voxels of the early visual cortex. The
# rows of Y are the latents of the pictures that were shown, 1,024 values each.
# Every picture was shown three times.

import tempfile
from pathlib import Path
from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import sklearn.linear_model
from scipy.stats import gmean
from sklearn.metrics import r2_score
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler

import calcarine as ca

brain = ca.load_dataset("simulated", n_train=300, n_test=40)
latents = ca.LatentDiffusion.from_pretrained("mini").encode(brain.stimuli)

train, test = brain.train(roi="early"), brain.test(roi="early")
X, X_test = train.data, test.data
Y = latents[brain.stimuli.rows(train.stimulus_ids)].reshape(len(X), -1)
Y_test = latents[brain.stimuli.rows(test.stimulus_ids)].reshape(len(X_test), -1)
groups = np.array(train.stimulus_ids)

print(f"X {X.shape}, Y {Y.shape}, {len(set(groups))} pictures")

# %%
# A penalty for each target
# -------------------------
#
# Ridge regression minimises the squared error plus a penalty *alpha* times the sum
# of squared weights. A large alpha is right for a target that can hardly be
# predicted, and a small one for a target that can be predicted well. ``ca.RidgeCV``
# is a scikit-learn estimator that chooses alpha for each target by
# cross-validation. The decomposition of X is shared by all targets, so a thousand
# of them cost little more than one.

ridge = ca.RidgeCV(cv=5).fit(X, Y, groups=groups)
print(
    f"{len(ridge.alphas_)} penalties tried, from {ridge.alphas_[0]:g} to {ridge.alphas_[-1]:g}"
)

figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
axes[0].semilogx(ridge.alphas_, ridge.cv_curve_, "o-")
axes[0].set(xlabel="alpha", ylabel="mean r2 over targets", ylim=(-0.6, 0.6))
axes[0].set_title("cross-validation (simulated responses)")
values, counts = np.unique(ridge.alpha_, return_counts=True)
axes[1].bar([f"{value:.3g}" for value in values], counts)
axes[1].set(xlabel="chosen alpha", ylabel="number of targets")
_ = axes[1].set_title("penalties of the 1,024 targets")

# %%
# Check that few targets chose the smallest or the largest penalty. If more than 5 %
# of the predictable targets do, the fit warns, and you should widen ``alphas``.
#
# Repeats stay in one fold
# ------------------------
#
# ``groups`` says which picture each trial showed. Without it, the three trials of a
# picture lie in different folds. The fit then predicts a held-out trial from
# another trial of the *same* picture, and the score of the cross-validation is too
# high. To see it, compare with single trials of the test pictures, which no fit has
# seen:

wrong = ca.RidgeCV(cv=5).fit(X, Y)

trials = brain.trials_of(brain.split().test)
X_trials = brain.responses.values[trials][:, brain.roi_mask("early")]
Y_trials = latents[brain.stimuli.rows(np.array(brain.trial_stimuli)[trials])]
Y_trials = Y_trials.reshape(len(trials), -1)


def mean_r2(model, X, Y):
    return r2_score(Y, model.predict(X), multioutput="raw_values").mean()


pd.DataFrame(
    {
        name: {
            "promised by cross-validation": model.best_score_.mean(),
            "new pictures, single trials": mean_r2(model, X_trials, Y_trials),
            "new pictures, means of 3 trials": mean_r2(model, X_test, Y_test),
            "geometric mean of alpha": gmean(model.alpha_),
        }
        for name, model in {"with groups": ridge, "without groups": wrong}.items()
    }
).T.round(3)

# %%
# With groups, cross-validation promises what new pictures keep, up to the noise of
# a small test set. Without groups it promises more, and it prefers smaller
# penalties.
#
# The means of three trials have less noise, so they are predicted better, and they
# are best predicted with a smaller penalty than single trials. If your test
# responses are means, you can fit means too.
#
# Which ``cv``?
# -------------
#
# =========== ============================================ ================================
# ``cv``      how penalties are compared                   use it
# =========== ============================================ ================================
# ``5``       five folds over groups, exactly              by default
# ``"logo"``  one group is left out at a time, exactly     with few stimuli
# ``"gcv"``   a formula that approximates leaving out rows for speed, if no stimulus repeats
# splitter    any splitter of scikit-learn                 to use the same folds elsewhere
# ``"fixed"`` not at all: ``alphas`` are used as they are  with penalties that you know
# =========== ============================================ ================================
#
# ``search="local"`` does not try all penalties but only those around the best one
# of each target.

choices = {
    "5 folds": ca.RidgeCV(cv=5),
    "5 folds, local search": ca.RidgeCV(cv=5, search="local"),
    "GroupKFold(5)": ca.RidgeCV(cv=GroupKFold(5)),
    "leave one picture out": ca.RidgeCV(cv="logo"),
    "gcv, ignores groups": ca.RidgeCV(cv="gcv"),
}
rows = {}
for name, model in choices.items():
    begin = perf_counter()
    model.fit(X, Y, groups=groups)
    seconds = perf_counter() - begin
    rows[name] = {
        "seconds": seconds,
        "same alpha as 5 folds": (model.alpha_ == choices["5 folds"].alpha_).mean(),
        "geometric mean of alpha": gmean(model.alpha_),
        "new pictures, single trials": mean_r2(model, X_trials, Y_trials),
    }
pd.DataFrame(rows).T.round(3)

# %%
# ``gcv`` ignores groups. It treats the repeats of a picture as independent and
# chooses smaller penalties, like the fit without groups above. Average the repeats
# first, and it has no such problem.
#
# The same answer as scikit-learn
# -------------------------------
#
# For one given penalty, compare with ``sklearn.linear_model.Ridge``. ``ca.RidgeCV``
# divides each column by its standard deviation, so scikit-learn needs a scaler.
# Both then give the same predictions, up to rounding:

ours = (
    ca.RidgeCV(alphas=[1000.0], cv="fixed").fit(X.astype(float), Y).predict(X_test)
)
scaler = StandardScaler().fit(X.astype(float))
theirs = sklearn.linear_model.Ridge(1000.0).fit(
    scaler.transform(X.astype(float)), Y
)
difference = np.abs(ours - theirs.predict(scaler.transform(X_test))).max()
print(f"largest difference: {difference:.1e}")

# %%
# ``sklearn.linear_model.RidgeCV`` leaves out one row at a time and knows no groups.
# To compare the *chosen* penalties, average the trials of each picture, so that a
# row is a group:

order, rows = np.unique(groups, return_inverse=True)
X_mean = np.stack([X[rows == row].mean(0) for row in range(len(order))]).astype(
    float
)
Y_mean = latents[brain.stimuli.rows(list(order))].reshape(len(order), -1)
X_mean = StandardScaler().fit_transform(X_mean)
alphas = np.logspace(-2, 6, 17)

theirs = sklearn.linear_model.RidgeCV(alphas, alpha_per_target=True).fit(
    X_mean, Y_mean
)
ours = ca.RidgeCV(alphas, cv="logo", standardize=False).fit(X_mean, Y_mean)
print(f"targets with the same penalty: {(ours.alpha_ == theirs.alpha_).mean():.1%}")

# %%
# More data than memory
# ---------------------
#
# The function ``ridge_cv`` does the same work with more options. X and Y may lie on
# disk, as memory maps, HDF5 or zarr, and are read in blocks. Three options matter
# for large data:
#
# - ``target_rows`` gives the row of Y of each trial. Y then has one row for each
#   *picture*, and repeats are kept together without ``groups``.
# - ``out`` is a folder. The weights are written there block by block, and an
#   interrupted fit resumes.
# - ``memory`` limits the bytes that the fit takes in addition to X, Y and the
#   result.

from calcarine.linear import iter_ridge_cv, ridge_cv

folder = Path(tempfile.mkdtemp())
pictures = sorted(set(train.stimulus_ids))
np.save(
    folder / "targets.npy",
    latents[brain.stimuli.rows(pictures)].reshape(len(pictures), -1),
)
targets = np.load(folder / "targets.npy", mmap_mode="r")

result = ridge_cv(
    X,
    targets,
    target_rows=[pictures.index(stimulus) for stimulus in train.stimulus_ids],
    search="local",
    memory=300e6,
    out=folder / "fit",
)
result

# %%
# The weights are a memory map. Nothing of them is read before you use them:

print(type(result.coef).__name__, result.coef.shape)
print(f"r2 on test pictures: {r2_score(Y_test, result.predict(X_test)):.3f}")

# %%
# If even the weights are too large for the disk, and predictions are all that you
# need, ``iter_ridge_cv`` yields the fit of one block of targets after the other.
# The decomposition of X is computed once.

predicted = np.empty_like(Y_test)
for columns, block in iter_ridge_cv(X, Y, groups=groups, block_size=256):
    predicted[:, columns] = block.predict(X_test)
    print(f"targets {columns.start} to {columns.stop - 1}")

# %%
# More data than one computer
# ---------------------------
#
# ``ridge_cv`` takes the client of a Dask cluster. Each worker solves some blocks of
# targets; if a worker is lost, another one takes its blocks, and the result does
# not change. It needs ``pip install 'calcarine[cluster]'``.
#
# .. code-block:: python
#
#    from dask.distributed import Client
#
#    with Client("tcp://scheduler:8786") as client:
#        result = ridge_cv(X, Y, groups=groups, client=client, out="fit")
#
# With one CUDA GPU, use ``device="cuda"`` instead.
#
# Read on
# -------
#
# - :doc:`/ridge`: time and memory measured against himalaya and scikit-learn,
#   delays, banded ridge
# - :doc:`/which-one`: which of the ridge regressions you need
