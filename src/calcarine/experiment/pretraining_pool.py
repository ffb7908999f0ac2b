"""Unlabelled vectors that the first phase of Vis-Dec trains on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from calcarine import datasets
from calcarine.brain import Split
from calcarine.errors import SettingError
from calcarine.experiment.visdec_config import PoolConfig

if TYPE_CHECKING:
    from calcarine.experiment.workspace import Workspace
    from calcarine.visdec.phases import TrainingStimuli

__all__ = ["Vectors", "check_pools", "unlabelled"]

Vectors = NDArray[np.float32]


def unlabelled(
    work: Workspace, split: Split, stimuli: TrainingStimuli
) -> tuple[list[Vectors], list[Vectors]]:
    """Return unlabelled vectors to train on and to validate.

    Parameters
    ----------
    work : Workspace
    split : Split
    stimuli : TrainingStimuli
        Training responses of the split.

    Returns
    -------
    train, validation : list of array of shape (sample, voxel)
        An array for each source and subject; no validation without ``visdec.validation``.
    """
    from calcarine.visdec.brain_conditioning import VoxelScale

    train, held_out = [], []
    for part in work.config.visdec.pretrain.pool:
        if part.source == "own":
            train.append(stimuli.vectors(stimuli.train))
            if stimuli.validation:
                held_out.append(stimuli.vectors(stimuli.validation))
            continue
        for measured in _of_source(work, split, part):
            own = part.source == "test"
            together = work.config.visdec.scale == "all"
            scale = stimuli.scale if own else VoxelScale.from_vectors(measured, together)
            vectors = scale.apply(measured)
            share = work.config.visdec.validation
            if not share:
                train.append(vectors)
                continue
            # The end of a recording validates: neighbours in time are alike.
            last = max(1, round(share * len(vectors)))
            train.append(vectors[:-last])
            held_out.append(vectors[-last:])
    return train, held_out


def check_pools(work: Workspace) -> None:
    """Refuse sources that do not exist, before anything is computed.

    Raises
    ------
    CalcarineError
        If a source lacks a folder or a name, or belongs to other data.
    """
    config, own = work.config.dataset, work.config.visdec.encoder.embedding == "own"
    for part in work.config.visdec.pretrain.pool:
        if part.source == "hcp" and part.data is None:
            raise SettingError("The pool 'hcp' needs a folder: visdec.pretrain.pool.data.")
        if part.source == "dataset" and part.name is None:
            raise SettingError(
                "The pool 'dataset' needs the name of a data set: visdec.pretrain.pool.name."
            )
        if part.source != "rest":
            continue
        if config.name != "simulated":
            raise SettingError(
                f"The pool 'rest' belongs to the data set simulated, not to {config.name}; use "
                "own, hcp or dataset, as visdec.pretrain.pool=[own]."
            )
        if own and part.subject not in (None, work.dataset.subject):
            raise SettingError(
                f"Patches with their own weights fit the voxels of {work.dataset.subject}, and "
                f"the pool 'rest' has voxels of {part.subject}; leave the subject out, or set "
                "visdec.encoder.embedding to shared."
            )


def _of_source(work: Workspace, split: Split, part: PoolConfig) -> list[Vectors]:
    if part.source == "test":
        return [work.dataset.test(split, work.config.visdec.roi).data]
    if part.source == "rest":
        return [_rest(work, part)]
    if part.source == "hcp":
        from calcarine.datasets import hcp

        subjects = None if part.subject is None else [part.subject]
        folder = str(part.data)  # check_pools has refused None
        return [subject.vectors for subject in hcp.vectors(folder, subjects, scale="scalar")]
    other = datasets.load_dataset(str(part.name), part.data, part.subject)
    if (other.name, other.subject) == (work.dataset.name, work.dataset.subject):
        raise SettingError(
            "The pool names the subject that is decoded, and its test responses must not be "
            "trained on; use the pool 'own' for its training responses."
        )
    responses = other.train(None, part.roi)
    # Stimuli that are tested here are left out there too, should the ids agree.
    kept = ~np.isin(responses.stimulus_ids, split.test)
    return [responses.data[kept]]


def _rest(work: Workspace, part: PoolConfig) -> Vectors:
    from calcarine.simulation.rest import rest_vectors

    config = work.config.dataset
    vectors = rest_vectors(part.subject or config.subject, part.n, **config.options)
    return vectors[:, work.dataset.roi_mask(work.config.visdec.roi)]
