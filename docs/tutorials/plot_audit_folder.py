"""
Score and audit somebody else's pictures
========================================

A colleague sends you a folder of reconstructions and a table of scores. You have no
code and no decoder, only pictures. This tutorial scores such a folder by a defined
protocol, compares two methods, and audits both: one of them is not what it seems to
be.

.. note::

   The pictures below are made from a **simulated** brain. They stand for what you receive.
"""

# %%
# Two folders of pictures
# -----------------------
#
# Files have the same names in all folders. Several samples of a picture would be
# named ``NAME_0.png``, ``NAME_1.png``, and so on. Make the folders first:

import tempfile
from pathlib import Path

import pandas as pd
from PIL import Image

import calcarine as ca
from calcarine.audit import list_checks
from calcarine.evaluation import (
    compare_scores,
    find_protocol,
    list_protocols,
    nearest_training_image,
    write_scores,
)
from calcarine.reporting import build_audit_page

brain = ca.load_dataset("simulated", n_train=300, n_test=40)
split = brain.split()
training = brain.stimuli.images(split.train)
predicted = ca.PixelRegression().fit(brain).predict(brain)

sets = {
    "seen": (split.test, brain.stimuli.images(split.test)),
    "training": (split.train, training),
    "method A": (split.test, (255 * predicted).round().astype("uint8")),
    "method B": (
        split.test,
        nearest_training_image(training, training / 255, predicted)[:, 0],
    ),
}
folder = Path(tempfile.mkdtemp())
for name, (ids, pictures) in sets.items():
    (folder / name).mkdir()
    for stimulus, picture in zip(ids, pictures, strict=True):
        Image.fromarray(picture).save(folder / name / f"{stimulus}.png")

# %%
# This is what arrives. Method B looks much better:

ca.show({name: sets[name][1][:8] for name in ("seen", "method A", "method B")})

# %%
# Score by a protocol
# -------------------
#
# Names of scores are not exact. "SSIM" stands for at least two formulas, and
# pictures are resized in many ways. A *protocol* defines the details. Scores of two
# protocols are not comparable.

pd.DataFrame(
    [
        {
            "protocol": name,
            "follows": find_protocol(name).title,
            "metrics": len(protocol.metrics()),
        }
        for name in list_protocols()
        for protocol in [find_protocol(name)()]
    ]
)

# %%
# Most protocols need published networks, which you can download with ``calcarine
# score --download``. The protocol ``calcarine``, the default, compares pixels, and
# can use a small network for the pictures of this package. Without a network it
# needs nothing:

scores = {
    name: ca.score(folder / name, folder / "seen")
    for name in ("method A", "method B")
}
scores["method A"]

# %%
# ``notes`` says what was left out, and why:

for note in scores["method A"].notes:
    print(note)

# %%
# Compare methods
# ---------------
#
# Write both results to files, which you can also exchange with others.
# ``compare_scores`` tests the differences image by image and corrects p for the
# number of tests. Scores that are not comparable, for example of other pictures,
# are refused.

files = []
for name, result in scores.items():
    files.append(folder / f"{name}.json")
    write_scores(files[-1], result)

tests = pd.DataFrame(compare_scores(files).tests)
tests[["metric", "a", "b", "difference", "ci_low", "ci_high", "p_holm"]].round(3)

# %%
# The metrics do not agree. By pixel correlation and by identification, A is better:
# it is blurred, but it has the right colours in the right places. By SSIM, B is
# better: its pictures are as sharp as the seen ones, though they show other
# objects. Choose the metrics before you see the scores, and report all of them.
#
# Audit
# -----
#
# The audit answers these questions:

print(", ".join(list_checks()))

# %%
# Two folders answer only some of them. Give whatever else you have; here, the
# training pictures.

audits = {
    name: ca.audit(folder / name, folder / "seen", train=folder / "training")
    for name in ("method A", "method B")
}
audits["method A"]

# %%
# No problem is found in method A. Many checks are ``inconclusive``, because they
# need the table of trials, the responses or the predictions. Ask for them:
# ``ids=``, ``responses=`` and ``predictions=`` take files.
#
# And method B?

audits["method B"].findings["retrieval"]

# %%
# Its pictures are not reconstructions. Each is the training picture that is most
# similar to what was decoded, unchanged. That is a valid baseline (see
# :doc:`plot_real_scores`), but it must be called retrieval.
#
# Reported scores
# ---------------
#
# Can the pictures have the score that was reported? With ``numbers``, the audit
# computes it by all definitions that need no network, and looks for one that fits.
# Try the true score of method A, and a better one:

metric = "pixel correlation"
(true,) = [
    row["value"]
    for row in scores["method A"].records
    if row["metric"] == metric and row["role"] == "method"
]
for value in (true, true + 0.07):
    numbers = f"PixCorr {value:.3f}"
    found = ca.audit(
        folder / "method A",
        folder / "seen",
        numbers=numbers,
        only=["numbers-from-pictures"],
    )
    finding = found.findings["numbers-from-pictures"]
    print(f"{numbers}: {finding.verdict}\n  {finding.sentence}\n")

# %%
# Pages for others
# ----------------
#
# ``build_audit_page`` writes a page with the evidence of every check, and the same
# as JSON.

page, data = build_audit_page(audits["method B"], folder / "audit.html")
print(page.name, data.name)

# %%
# The same on the command line:
#
# .. code-block:: console
#
#    $ calcarine score --truth seen --images "method A" --out A.json
#    $ calcarine audit --images "method A" --truth seen --train training --out audit.html
#
# Read on
# -------
#
# - :doc:`/protocols`: what each protocol does differently
# - :doc:`/audit`: inputs, checks, and what pictures cannot show
