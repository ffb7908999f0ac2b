"""What was changed when a model was read is said once, and stands in the notes of the run."""

import json
import shutil
import warnings
from dataclasses import replace

import numpy as np
from diffusers import PNDMScheduler

from calcarine.diffusion.conditional import ModelNote
from calcarine.experiment import load_experiment
from calcarine.experiment.manifest import _model_notes
from calcarine.experiment.run_directory import RunDirectory
from calcarine.experiment.workspace import Workspace
from calcarine.stimuli import StimulusSet

OPTIONS = {"n_train": 24, "n_test": 8, "n_early": 10, "n_ventral": 10, "n_other": 2}


def test_notes_of_the_model_and_of_the_text_reach_the_report(
    tiny_stable_diffusion, tmp_path, heard
):
    shutil.copytree(tiny_stable_diffusion, tmp_path / "model")
    scheduler = PNDMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    scheduler.save_pretrained(tmp_path / "model" / "scheduler")
    settings = [
        f"generation.model={tmp_path / 'model'}",
        f"dataset.options={json.dumps(OPTIONS)}",
        "features.text=categories",
    ]
    config = load_experiment("takagi", None, settings)
    work = Workspace(RunDirectory(tmp_path / "run", config), heard)
    stimuli = work.dataset.stimuli
    names = [() if at < 3 else own for at, own in enumerate(stimuli.categories())]
    bare = StimulusSet.from_arrays(
        stimuli.images(), stimuli.ids, captions=stimuli.captions(), categories=names
    )
    work.__dict__["dataset"] = replace(work.dataset, stimuli=bare)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ModelNote)
        assert np.allclose(work.c[:3], work.model.embed_text([""]), atol=1e-6)
    nameless = StimulusSet.from_arrays(stimuli.images(), stimuli.ids)
    again = Workspace(RunDirectory(tmp_path / "run", config), heard)
    again.__dict__["dataset"] = replace(work.dataset, stimuli=nameless)
    assert again.text_notes[0].startswith(
        "None of the 32 stimuli has a category in words (an id of WordNet is none): all have"
    )
    notes = _model_notes(work)
    assert len(notes) == 2
    assert "PNDMScheduler becomes DDIMScheduler" in notes[0]
    assert notes[1].startswith("3 of 32 stimuli have no category")
    assert sorted(line for line in heard.lines if line in notes) == sorted(notes)
