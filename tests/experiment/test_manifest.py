from calcarine.experiment.penalty_notes import penalty_notes


def summary(low=0.0, high=0.0, warning="widen alphas"):
    return {"warning": warning if low or high else "", "edge_low": low, "edge_high": high}


def test_penalties_at_an_end_are_one_note_a_target_with_its_folds():
    assert penalty_notes({"shared": {"z": summary(1.0)}}) == ["z: widen alphas"]
    folds = {f"fold-{k:02d}": {"c": summary(1.0), "z": summary(k / 100, 0.2)} for k in range(20)}
    c, z = penalty_notes(folds)
    assert c == (
        "c, in all 20 folds (fold-00 to fold-19): of the predictable targets, 100.0% chose the "
        "lowest penalty; widen the penalties (ridge.alpha_min, ridge.alpha_max): add smaller "
        "values."
    )
    assert "0.0% to 19.0% chose the lowest penalty and 20.0% chose the highest penalty" in z
    assert z.endswith("add smaller and larger values.")
    some = {"one": {"z": summary()}, "two": {"z": summary(0, 0.5)}, "six": {"z": summary(0, 0.4)}}
    assert penalty_notes(some)[0].startswith("z, in 2 of 3 folds (two, six): of the predictable")
    assert penalty_notes({"one": {"z": summary()}, "two": {"z": summary()}}) == []


def test_a_decoder_of_another_maker_is_told_in_its_own_words():
    folds = {name: {"z": {"warning": "did not converge"}} for name in ("one", "two", "six")}
    assert penalty_notes(folds | {"ten": {}}) == [
        "z, in 3 of 4 folds (one, two, six): did not converge"
    ]
