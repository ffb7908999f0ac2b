"""
A subject of your own, from arrays to a report
==============================================

You have responses in an array, a list of what was shown, and the pictures. This
tutorial makes a data set of them, checks it, and runs a whole experiment with
scores, an audit and a report. It uses the two ways to bring your own data: arrays
in memory, to explore; and files with a short description, for an experiment that
you can repeat.

.. note::

   The arrays below are **simulated**. They stand for yours.
"""

# %%
# What you need
# -------------
#
# - **betas**: one row for each trial, one column for each voxel, in order of
#   presentation. They come from a general linear model of the time series, such as
#   GLMsingle;
# - **shown**: the id of the picture of each trial;
# - **pictures**: an array for each id;
# - optionally **regions**, the **session** of each trial, and **captions**.

import tempfile
import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from PIL import Image

import calcarine as ca
from calcarine.errors import CalcarineError

lab = ca.load_dataset(
    "simulated", n_train=140, n_test=14, n_early=500, n_ventral=500, n_other=100
)
betas = lab.responses.values
shown = list(lab.trial_stimuli)
sessions = lab.sessions
pictures = dict(zip(lab.stimuli.ids, lab.stimuli.images(), strict=True))
captions = dict(zip(lab.stimuli.ids, lab.stimuli.captions(), strict=True))
regions = {name: lab.rois[name] for name in ("early", "ventral")}

print(
    f"betas {betas.shape}, {len(pictures)} pictures, {len(set(sessions))} sessions"
)

# %%
# Arrays in memory
# ----------------
#
# ``test`` says which pictures test: a list of ids, as here, or a share such as 0.1.
# All repeats of a picture are on the same side. ``zscore="session"`` scales each
# session with its training trials only.

test = [stimulus for stimulus in lab.stimuli.ids if stimulus in lab.split().test]
brain = ca.BrainDataset.from_arrays(
    betas,
    shown,
    pictures,
    test=test,
    rois=regions,
    sessions=sessions,
    captions=captions,
    zscore="session",
    name="mylab",
    subject="s01",
    simulated=True,
)
brain

# %%
# Everything is checked: shapes, ids, missing values, and that no picture is on both
# sides. An error says in one sentence what does not fit:

try:
    ca.BrainDataset.from_arrays(betas, shown[:-1], pictures, test=test)
except CalcarineError as error:
    print(error)

# %%
# Is there a signal?
# ------------------
#
# Before you decode, look whether the responses repeat. ``describe_signal``
# estimates the noise ceiling of each region from the repeats of the training
# pictures: the share of the variance of the averaged responses that the picture
# explains at most.

from calcarine.quality import describe_signal, estimate_reliability

for line in str(describe_signal(brain)).splitlines():
    print(textwrap.fill(line, 90, subsequent_indent="    "))

# %%

ceiling = estimate_reliability(brain)
figure, axis = plt.subplots(figsize=(6, 3), layout="constrained")
for name, inside in brain.rois.items():
    axis.hist(
        ceiling.values[inside], bins=np.arange(0, 101, 5), alpha=0.6, label=name
    )
axis.set(xlabel="noise ceiling (percent of variance)", ylabel="voxels")
axis.set_title("How reliable are the voxels? (simulated)")
_ = axis.legend()

# %%
# A region whose voxels are near 0 cannot be decoded by any method.
#
# Files and a description
# -----------------------
#
# An experiment reads files, so that it can be repeated and resumed. Save the
# arrays, put the pictures into a folder, and describe both in a few lines.
# calcarine also reads NIfTI, GIFTI, HDF5 and MATLAB files, and the output of
# fMRIPrep; see :doc:`/own-data`.

folder = Path(tempfile.mkdtemp()) / "mylab"
(folder / "stimuli").mkdir(parents=True)

np.save(folder / "betas.npy", betas)
pd.DataFrame({"stimulus": shown, "session": sessions}).to_csv(
    folder / "trials.csv", index=False
)
for name, mask in regions.items():
    np.save(folder / f"{name}.npy", mask)
for stimulus, picture in pictures.items():
    Image.fromarray(picture).save(folder / "stimuli" / f"{stimulus}.png")
rows = [(stimulus, text) for stimulus, texts in captions.items() for text in texts]
pd.DataFrame(rows, columns=["id", "caption"]).to_csv(
    folder / "captions.csv", index=False
)
(folder / "shared.txt").write_text("\n".join(test))
(folder / "SIMULATED.txt").write_text(
    "These files are simulated."
)  # leave this out for yours

description = """\
name: mylab
subject: s01
betas: betas.npy
trials: trials.csv
rois: {early: early.npy, ventral: ventral.npy}
images: stimuli/
captions: captions.csv
test: shared.txt
"""
_ = (folder / "calcarine.yaml").write_text(description)

# %%
# Check the files. On the command line this is ``calcarine datasets check FOLDER
# --name own``.

from calcarine.datasets import check_dataset

pd.DataFrame(
    [
        {"what": result.what, "state": result.status, "found": result.found}
        for result in check_dataset("own", folder / "calcarine.yaml")
    ]
)

# %%
# Run the experiment
# ------------------
#
# A *preset* has settings to start from. ``takagi`` decodes z and c
# (:doc:`plot_takagi` explains them), makes pictures with the bundled model, scores
# and audits them, and writes a report. The settings below only make it short: one
# sample of each picture, and few denoising steps.

from calcarine.experiment import load_experiment

experiment = load_experiment(
    "takagi",
    name="own",
    data=folder / "calcarine.yaml",
    settings=[
        "generation.samples=1",
        "generation.candidates=0",
        "generation.steps=10",
        "generation.search.enabled=false",
    ],
)
run = ca.run_experiment(experiment, folder.parent / "run")
print(
    sorted(
        path.name for path in run.path.iterdir() if not path.name.startswith(".")
    )
)

# %%
# Open ``report.html`` in a browser. The same call again resumes an interrupted run,
# and a changed setting repeats only the stages that depend on it. On the command
# line:
#
# .. code-block:: console
#
#    $ calcarine run --preset takagi --dataset own --data mylab/calcarine.yaml --out run
#
# Read the results
# ----------------
#
# The main scores in words, as the command line prints them:

from calcarine.reporting import headline_scores, read_run

for line in headline_scores(run.path):
    print(textwrap.fill(line, 90, subsequent_indent="    "))

# %%
# Each score has an interval, its chance level, the strongest *floor* (the score of
# pictures that need no reconstruction) and the *ceiling* (pictures from the true z
# and c). With so few test pictures, hardly any difference from a floor is
# significant, and the verdicts say so.
#
# As a figure:

record = read_run(run.path)
metric = "identification, pixels, fixed image"
scores = [
    score
    for score in record.scores
    if score.metric == metric and score.role != "floor"
]

# sphinx_gallery_thumbnail_number = 2

figure, axis = plt.subplots(figsize=(7, 3), layout="constrained")
for place, score in enumerate(
    sorted(scores, key=lambda score: (score.role, score.method))
):
    colour = "0.6" if score.role == "ceiling" else "C0"
    axis.plot([score.ci_low, score.ci_high], [place, place], color=colour)
    axis.plot(score.value, place, "o", color=colour)
    axis.text(0.39, place, score.method, ha="right", va="center")
axis.set_yticks([])
axis.axvline(0.5, color="black", linestyle="--", linewidth=1)
axis.set(xlabel="two-way identification by pixels", xlim=(0.4, 1.02))
_ = axis.set_title("Scores with 95 % intervals (simulated; dashed: chance)")

# %%
# The pictures are files in the folder of the run. ``record.index`` lists them:

seen = brain.stimuli.images(test[:8])
rows = {"seen": seen}
for method in ("z", "z_c"):
    files = record.index[record.index["method"] == method].set_index("id")["file"]
    rows[method] = np.stack(
        [np.asarray(Image.open(run.path / files[name])) for name in test[:8]]
    )
ca.show(rows)

# %%
# Read on
# -------
#
# - :doc:`/own-data`: formats of betas, masks and tables, and BIDS derivatives
# - :doc:`/splits`: how to choose test pictures
# - :doc:`plot_real_scores`: how to read floors, ceilings and the audit
