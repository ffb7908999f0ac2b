"""Simulated rest: the voxels of the subject, slow, noisy, and of no picture that is tested."""

from __future__ import annotations

import numpy as np
import pytest

from calcarine.errors import CalcarineError
from calcarine.simulation import subject as simulated
from calcarine.simulation.rest import rest_vectors

SMALL = {"n_train": 150, "n_early": 60, "n_ventral": 60, "n_other": 30}


@pytest.fixture(scope="module")
def rest():
    return rest_vectors("subj01", 720, n_scenes=300, n_test=7, **SMALL)


def test_voxels_go_together_as_when_pictures_are_shown(rest):
    seen = simulated.load(subject="subj01", n_test=20, n_sessions=3, **SMALL)
    evoked = np.corrcoef(seen.train(None).data, rowvar=False)
    alone = np.corrcoef(rest, rowvar=False)
    early = np.flatnonzero(seen.rois["early"])
    pairs = np.triu_indices(len(early), 1)
    own = np.corrcoef(evoked[np.ix_(early, early)][pairs], alone[np.ix_(early, early)][pairs])[0, 1]
    other = rest_vectors("subj02", 720, n_scenes=300, **SMALL)
    strange = np.corrcoef(other, rowvar=False)[np.ix_(early, early)][pairs]
    stranger = np.corrcoef(evoked[np.ix_(early, early)][pairs], strange)[0, 1]
    assert own > 0.5
    assert own > stranger + 0.2


def test_runs_are_scaled_and_slow(rest):
    assert rest.shape == (720, 150)
    assert rest.dtype == np.float32
    for run in rest.reshape(6, 120, -1):
        np.testing.assert_allclose(run.mean(0), 0, atol=1e-4)
        np.testing.assert_allclose(run.std(0), 1, atol=1e-3)
    following = np.mean(rest[1:] * rest[:-1])
    later = np.mean(rest[12:] * rest[:-12])
    assert following > later + 0.1


def test_the_same_every_time_and_any_length(rest):
    again = rest_vectors("subj01", 720, n_scenes=300, **SMALL)
    np.testing.assert_array_equal(rest, again)
    assert np.isfinite(rest_vectors("subj01", 130, n_scenes=20, **SMALL)).all()
    with pytest.raises(CalcarineError, match="at least 120 samples"):
        rest_vectors("subj01", 100)
