"""The flowcharts of the documentation, as data. Reads nothing and imports nothing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """One way out of a question.

    Attributes
    ----------
    if_ : str
        The condition, in a few words.
    then : str
        What to use: a command, a public name or a few words.
    target : str
        ``command:NAME``, ``name:PUBLIC_NAME`` or ``page:PAGE``.
    """

    if_: str
    then: str
    target: str


@dataclass(frozen=True)
class Question:
    """A question with its answers; the chart goes on to the next one."""

    text: str
    answers: tuple[Answer, ...]
    otherwise: str = "then"


CHARTS: dict[str, tuple[Question, ...]] = {
    "command": (
        Question(
            "Do you have data?",
            (
                Answer("no, I want to see what it does", "calcarine demo", "command:demo"),
                Answer(
                    "I am waiting for access to NSD, GOD, BOLD5000 or HCP",
                    "calcarine datasets fake",
                    "command:datasets fake",
                ),
                Answer(
                    "not on this disk yet",
                    "calcarine datasets download",
                    "command:datasets download",
                ),
                Answer(
                    "files on disk, not checked",
                    "calcarine datasets check",
                    "command:datasets check",
                ),
            ),
            "the data are there",
        ),
        Question(
            "What do you want to know?",
            (
                Answer("which picture was seen", "calcarine run --preset takagi", "command:run"),
                Answer(
                    "the same, and I have much unlabelled fMRI",
                    "calcarine run --preset visdec2023",
                    "page:visdec",
                ),
                Answer("which voxels a model explains", "calcarine encode", "command:encode"),
                Answer(
                    "the same for several subjects or settings", "calcarine many", "command:many"
                ),
                Answer("how much depends on the noise", "calcarine seeds", "command:seeds"),
            ),
            "there are reconstructions, of any method",
        ),
        Question(
            "What do you want to know about them?",
            (
                Answer("how good they are", "calcarine score", "command:score"),
                Answer(
                    "whether they are better than others", "calcarine compare", "command:compare"
                ),
                Answer("whether the scores are real", "calcarine audit", "command:audit"),
                Answer(
                    "how much of the brain activity they use",
                    "calcarine bottleneck",
                    "command:bottleneck",
                ),
                Answer("how each of them looks", "calcarine gallery", "command:gallery"),
                Answer("what people think of them", "calcarine study make", "command:study make"),
            ),
        ),
    ),
    "ridge": (
        Question(
            "What do you predict?",
            (
                Answer(
                    "latents and text embeddings from responses",
                    "LatentRegression",
                    "name:calcarine.decoding.LatentRegression",
                ),
                Answer(
                    "pixels from responses",
                    "PixelRegression",
                    "name:calcarine.decoding.PixelRegression",
                ),
                Answer(
                    "voxels from features of stimuli", "encode", "name:calcarine.encoding.encode"
                ),
                Answer(
                    "the same, with tests, regions and noise ceilings",
                    "analyse",
                    "name:calcarine.encoding.analyse",
                ),
            ),
            "Y from X, plain arrays",
        ),
        Question(
            "Are there several feature spaces?",
            (
                Answer(
                    "each with a penalty of its own",
                    "BandedRidgeCV",
                    "name:calcarine.linear.BandedRidgeCV",
                ),
                Answer(
                    "the same, weights on disk or much data",
                    "banded_ridge_cv",
                    "name:calcarine.linear.banded_ridge_cv",
                ),
                Answer(
                    "how much variance each explains",
                    "partition_variance",
                    "name:calcarine.linear.partition_variance",
                ),
            ),
            "one, or one penalty for all",
        ),
        Question(
            "How large is it, and what surrounds it?",
            (
                Answer(
                    "fits into memory; scikit-learn pipelines",
                    "RidgeCV",
                    "name:calcarine.linear.RidgeCV",
                ),
                Answer(
                    "time series: features at several delays",
                    "Delayer, then RidgeCV",
                    "name:calcarine.linear.Delayer",
                ),
                Answer(
                    "arrays or weights on disk, or a Dask cluster",
                    "ridge_cv",
                    "name:calcarine.linear.ridge_cv",
                ),
                Answer(
                    "weights too large; only predictions needed",
                    "iter_ridge_cv",
                    "name:calcarine.linear.iter_ridge_cv",
                ),
            ),
        ),
    ),
    "split": (
        Question(
            "Does the data set have a split?",
            (
                Answer(
                    "yes, and it tests what I want",
                    "brain.split()",
                    "name:calcarine.brain.BrainDataset",
                ),
                Answer("I have a list of test stimuli", "Split", "name:calcarine.brain.Split"),
            ),
            "no, or it is too easy",
        ),
        Question(
            "Are there few stimuli, say below 200?",
            (
                Answer(
                    "yes: test each of them once",
                    "random_folds",
                    "name:calcarine.splits.random_folds",
                ),
                Answer(
                    "very few: one at a time",
                    "leave_one_out",
                    "name:calcarine.splits.leave_one_out",
                ),
                Answer(
                    "whole categories or sessions held out in turn",
                    "group_folds",
                    "name:calcarine.splits.group_folds",
                ),
            ),
            "no",
        ),
        Question(
            "To which pictures should the score generalise?",
            (
                Answer(
                    "others of the same kind", "random_split", "name:calcarine.splits.random_split"
                ),
                Answer(
                    "pictures unlike every training picture",
                    "minimum_distance",
                    "name:calcarine.splits.minimum_distance",
                ),
                Answer(
                    "categories that training lacks",
                    "category_holdout",
                    "name:calcarine.splits.category_holdout",
                ),
                Answer(
                    "whole groups of similar pictures",
                    "cluster_holdout",
                    "name:calcarine.splits.cluster_holdout",
                ),
                Answer(
                    "the most unusual pictures",
                    "out_of_distribution",
                    "name:calcarine.splits.out_of_distribution",
                ),
            ),
        ),
        Question(
            "Is the split clean?",
            (
                Answer(
                    "look for near-duplicates across it",
                    "find_duplicates",
                    "name:calcarine.splits.find_duplicates",
                ),
            ),
        ),
    ),
}
