"""
Add a data set, a metric, a decoder or a model
==============================================

calcarine finds data sets, metrics, protocols, decoders, generators and audit checks
by their names. You can add your own. Afterwards, everything works with them: runs,
scores with intervals and floors, the audit and the command line. This tutorial adds
one of each in a few lines.

.. note::

   All responses are **simulated**.
"""

# %%
# A data set
# ----------
#
# A reader of a data set is a module or a class with two things: ``INFO``, which
# says what is known before loading, and ``load``, which returns a ``BrainDataset``.
# This one makes up a subject who sees gratings of eight orientations, each voxel
# with a preferred one.

import json
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import calcarine as ca
from calcarine.brain import DatasetInfo
from calcarine.datasets import register_dataset


class Gratings:
    INFO = DatasetInfo(
        name="gratings",
        title="Simulated responses to gratings",
        simulated=True,
        subjects=("s1",),
        source="made up for a tutorial",
        licence="no restrictions",
        needs_folder=False,
        options=(("noise", "Standard deviation of the noise."),),
    )

    @staticmethod
    def load(data=None, subject=None, *, noise=1.0):
        rng = np.random.default_rng(0)
        angle = np.repeat(np.arange(8) * np.pi / 8, 20) + rng.uniform(0, 0.3, 160)
        y, x = np.mgrid[:64, :64]
        waves = [np.sin((x * np.cos(a) + y * np.sin(a)) / 3) for a in angle]
        pictures = np.repeat(
            np.uint8(127 + 120 * np.stack(waves))[..., None], 3, axis=-1
        )
        ids = [f"grating-{number:03d}" for number in range(160)]
        preferred = rng.uniform(0, np.pi, 300)
        signal = np.cos(2 * (angle[:, None] - preferred))
        betas = np.concatenate([signal, signal]) + noise * rng.standard_normal(
            (320, 300)
        )
        return ca.BrainDataset.from_arrays(
            betas,
            [*ids, *ids],
            pictures,
            image_ids=ids,
            test=24,
            name="gratings",
            simulated=True,
        )


register_dataset(Gratings)
ca.load_dataset("gratings", noise=0.5)

# %%
# A metric and a protocol
# -----------------------
#
# A metric compares pictures. Its method ``measure`` gets a *cache*, from which it
# takes the pixels or features of a network, and returns a score for each
# pair of a seen picture (row) and a reconstruction (column). The interval, the
# shuffled brain and p follow from this matrix. Here the score is how similar the
# histograms of brightness are.

from calcarine.evaluation import (
    Metric,
    Preprocessing,
    Protocol,
    register_metric,
    register_protocol,
)


@register_metric
@dataclass(frozen=True)
class Brightness(Metric):
    def measure(self, cache, sample):
        counts = []
        for side, number in (("truth", 0), ("recon", sample)):
            pixels = cache.features(
                side, number, "", Preprocessing("pil", "truth"), "pixels"
            )
            counts.append(
                np.stack(
                    [np.histogram(row, 10, (0, 1))[0] / row.size for row in pixels]
                )
            )
        truth, recon = counts
        return 1 - np.abs(truth[:, None] - recon[None]).sum(2) / 2


# %%
# A protocol is a list of metrics with a name, a source and the choices that others
# make differently:


@register_protocol
class BrightnessProtocol(Protocol):
    name = "brightness"
    title = "Histograms of brightness"
    source = "a tutorial of calcarine"
    details = "ten bins, pixels at the size of the seen pictures"

    def metrics(self):
        return (
            Brightness(
                "histogram overlap",
                "Overlap of the histograms of all pixels, 0 to 1",
            ),
        )


brain = ca.load_dataset("simulated", n_train=240, n_test=30)
split = brain.split()
seen = brain.stimuli.images(split.test)
direct = ca.PixelRegression("early").fit(brain).predict(brain)

scores = ca.score(
    direct,
    seen,
    ids=split.test,
    train=brain.stimuli.images(split.train),
    protocols=["brightness", "calcarine"],
    judge=None,
)
for row in scores.records:
    if row["metric"] in ("histogram overlap", "pixel correlation"):
        print(f"{row['metric']}, {row['method']}: {row['value']:.2f}")

# %%
# A decoder
# ---------
#
# A decoder of z and c has four methods: ``fit``, ``predict``, ``save`` and
# ``load``. This one needs no regression. It averages z and c of the training
# pictures with the most similar responses.

from calcarine.decoding import make_decoder, register_decoder


@register_decoder("neighbours")
class Neighbours:
    def __init__(self, roi_z="early", roi_c="ventral", k=5):
        self.roi_z, self.roi_c, self.k = roi_z, roi_c, k

    def fit(self, dataset, split, z, c=None):
        self.rois_ = {"z": self.roi_z} | ({} if c is None else {"c": self.roi_c})
        self.responses_, self.values_ = {}, {}
        for name, roi in self.rois_.items():
            trials = dataset.train(split, roi)
            self.responses_[name] = trials.data
            rows = dataset.stimuli.rows(trials.stimulus_ids)
            self.values_[name] = np.asarray(z if name == "z" else c)[rows]
        return self

    def predict(self, dataset, split=None):
        predicted = {}
        for name, roi in self.rois_.items():
            similarity = dataset.test(split, roi).data @ self.responses_[name].T
            nearest = np.argsort(-similarity, axis=1)[:, : self.k]
            predicted[name] = self.values_[name][nearest].mean(1)
        return predicted

    def save(self, folder):
        arrays = {
            f"responses_{name}": values for name, values in self.responses_.items()
        }
        arrays |= {
            f"values_{name}": values for name, values in self.values_.items()
        }
        np.savez(Path(folder) / "neighbours.npz", **arrays)
        (Path(folder) / "rois.json").write_text(json.dumps([self.rois_, self.k]))

    @classmethod
    def load(cls, folder):
        rois, k = json.loads((Path(folder) / "rois.json").read_text())
        self = cls(rois["z"], rois.get("c", "ventral"), k)
        arrays = np.load(Path(folder) / "neighbours.npz")
        self.rois_ = rois
        self.responses_ = {name: arrays[f"responses_{name}"] for name in rois}
        self.values_ = {name: arrays[f"values_{name}"] for name in rois}
        return self


# %%
# Compare it with ridge regression. ``make_decoder`` makes both by their names. In a
# run, the setting ``decoder.name=neighbours`` chooses it, and ``decoder.options``
# gives its arguments.

model = ca.LatentDiffusion.from_pretrained("mini")
z = model.encode(brain.stimuli)

pictures, correlations = {"seen": seen[:8]}, {}
for name in ("ridge", "neighbours"):
    decoder = make_decoder(name).fit(brain, split, z)
    made = model.decode(decoder.predict(brain, split)["z"])
    pictures[name] = made[:8]
    table = ca.score(made, seen, ids=split.test, judge=None).per_image
    correlations[name] = table["value"][
        table["metric"] == "pixel correlation"
    ].to_numpy()
ca.show(pictures)

# %%

figure, axis = plt.subplots(figsize=(4.2, 4), layout="constrained")
axis.scatter(correlations["ridge"], correlations["neighbours"])
low = min(min(values) for values in correlations.values()) - 0.05
axis.plot([low, 1], [low, 1], "--", color="0.5")
axis.set(xlabel="pixel correlation, ridge", ylabel="pixel correlation, neighbours")
_ = axis.set_title("Test pictures (simulated brain)")

# %%
# Points below the diagonal are pictures that ridge regression decodes better.
#
# A generator
# -----------
#
# A generator is a function that loads a diffusion model: a ``LatentDiffusion``,
# from any source that you can load, or a class of your own that is a
# ``ConditionalDiffusion``. Register it under a name, and the setting
# ``generation.model`` takes the name. This one is the bundled model with its
# guidance rescaled; yours would load other weights.

from calcarine.diffusion import load_model, register_generator


@register_generator("mini-rescaled")
def load_rescaled(device, dtype):
    model = ca.LatentDiffusion.from_pretrained("mini", device, dtype)
    model.guidance_rescale = 0.7
    return model


texts = [
    "a red balloon in a green field",
    "a blue car at night",
    "a white cat on a beach",
]
drawn = {}
for name in ("mini", "mini-rescaled"):
    generator = load_model(name)
    c = generator.embed_captions(texts)
    drawn[name] = generator.decode(generator.generate(c, texts, steps=15))
ca.show(drawn, texts, side=2)

# %%
# A check of the audit
# --------------------
#
# A check answers one question and returns a ``Finding`` with a verdict, a sentence and
# numbers:

from calcarine.audit import AuditInputs, Check, Finding, PictureSet, register_check


@register_check
class EnoughStimuli(Check):
    name = "enough-stimuli"
    title = "Number of test stimuli"
    question = "Are there at least 50 test stimuli?"
    evidence_needed = "More test stimuli."

    def run(self, inputs):
        verdict = "passed" if len(inputs) >= 50 else "suspicious"
        return Finding(
            verdict,
            f"There are {len(inputs)} test stimuli.",
            {"stimuli": len(inputs)},
        )


inputs = AuditInputs(
    "direct ridge",
    PictureSet.of(split.test, direct),
    PictureSet.of(split.test, seen),
)
ca.audit(inputs, only=["enough-stimuli"])

# %%
# In a package
# ------------
#
# What you register in a script exists in this script only. In a package, name the
# objects as *entry points* in ``pyproject.toml``. Wherever the package is
# installed, Python and the command line then know them:
#
# .. code-block:: toml
#
#    [project.entry-points."calcarine.datasets"]
#    gratings = "mylab.gratings"
#
#    [project.entry-points."calcarine.decoders"]
#    neighbours = "mylab.decoders:Neighbours"
#
# The groups are ``calcarine.datasets``, ``calcarine.metrics``,
# ``calcarine.protocols``, ``calcarine.decoders``, ``calcarine.generators`` and
# ``calcarine.audit_checks``.
#
# Read on
# -------
#
# - :doc:`/datasets`: what a reader can offer besides ``load``
# - :doc:`/takagi`: decoders and models in a run
# - :doc:`/audit`: the checks that there are
