from calcarine.experiment.manifest import _decoder_notes


def test_warnings_of_folds_are_one_note_a_target():
    def fold(z, c=None):
        return {"z": {"warning": z}, "c": {"warning": c}}

    assert _decoder_notes({"shared": fold("widen alphas")}) == ["z: widen alphas"]
    folds = {f"fold-{k:02d}": fold(f"{k} % at the edge" if k else None) for k in range(20)}
    assert _decoder_notes(folds) == ["z, in 19 of 20 folds, the first: 1 % at the edge"]
    assert _decoder_notes({"fold-00": fold(None), "fold-01": fold(None, None)}) == []
