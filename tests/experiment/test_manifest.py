from calcarine.experiment.penalty_notes import penalty_notes


def summary(low=0.0, high=0.0, warning="widen alphas"):
    return {"warning": warning if low or high else "", "edge_low": low, "edge_high": high}


def test_penalties_at_an_end_are_one_note_with_targets_and_folds():
    assert penalty_notes({"shared": {"z": summary(1.0), "c": summary(0.5)}}) == [
        "Many predictable targets chose an end of the penalties in the split shared: of c 50.0% "
        "the lowest; of z 100.0% the lowest. Widen the penalties (ridge.alpha_min, "
        "ridge.alpha_max): add smaller values."
    ]
    folds = {f"fold-{k:02d}": {"c": summary(1.0), "z": summary(k / 100, 0.2)} for k in range(20)}
    assert penalty_notes(folds) == [
        "Many predictable targets chose an end of the penalties in all 20 folds (fold-00 to "
        "fold-19): of c 100.0% the lowest; of z 0.0% to 19.0% the lowest and 20.0% the highest. "
        "Widen the penalties (ridge.alpha_min, ridge.alpha_max): add smaller and larger values."
    ]


def test_targets_that_warn_in_other_folds_have_a_note_of_their_own():
    folds = {
        "one": {"c": summary(0.2), "z": summary()},
        "two": {"c": summary(0.2), "z": summary(0, 0.5)},
        "six": {"c": summary(0.2), "z": summary(0, 0.4)},
    }
    c, z = penalty_notes(folds)
    assert "in all 3 folds (one to six): of c 20.0% the lowest." in c
    assert "in 2 of 3 folds (two, six): of z 40.0% to 50.0% the highest." in z
    assert z.endswith("add larger values.")
    assert penalty_notes({"one": {"z": summary()}, "two": {"z": summary()}}) == []


def test_a_decoder_of_another_maker_is_told_in_its_own_words():
    folds = {name: {"z": {"warning": "did not converge"}} for name in ("one", "two", "six")}
    assert penalty_notes(folds | {"ten": {}}) == [
        "z, in 3 of 4 folds (one, two, six): did not converge"
    ]
