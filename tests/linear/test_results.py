"""How results of fits print themselves, and fits that yield block by block."""

import tracemalloc

import numpy as np
import pytest

from calcarine.errors import SettingError, ShapeError
from calcarine.linear import (
    ComputedMatrix,
    RidgeError,
    banded_ridge_cv,
    iter_ridge_cv,
    ridge_cv,
)

ALPHAS = np.logspace(-1, 4, 6)
pytestmark = pytest.mark.filterwarnings("ignore::calcarine.linear.RidgeEdgeWarning")


def make_data(n=60, p=20, t=14):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, p)) + 5
    return X, X @ rng.normal(size=(p, t)) + 5 * rng.normal(size=(n, t))


def test_ridge_result_prints_a_few_lines():
    X, Y = make_data()
    result = ridge_cv(X, Y, alphas=ALPHAS)
    text = repr(result)
    assert text.count("\n") <= 4
    assert "20 predictors x 14 targets" in text
    assert "6 tried" in text
    assert f"{np.median(result.cv_scores):.3g}" in text
    assert "none (penalties are fixed)" in repr(ridge_cv(X, Y, alphas=3.0, cv="fixed"))


def test_banded_result_prints_a_few_lines_and_names_few_spaces():
    X, Y = make_data()
    spaces = {f"space{k}": X[:, 2 * k : 2 * k + 2] for k in range(7)}
    text = repr(banded_ridge_cv(spaces, Y, alphas=ALPHAS, n_candidates=8))
    assert text.count("\n") <= 6
    assert "7 (space0, space1, space2, space3, space4, ...)" in text
    assert "14 predictors x 14 targets" in text
    assert "8 tried" in text


def test_tables_for_notebooks_are_escaped():
    X, Y = make_data()
    html = banded_ridge_cv({"<script>": X, "b": X}, Y, alphas=ALPHAS)._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    table = ridge_cv(X, Y, alphas=ALPHAS)._repr_html_()
    assert table.startswith("<table>")
    assert table.count("<tr>") == 4


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"cv": "gcv"},
        {"cv": "logo"},
        {"search": "local"},
        {"cv": "fixed", "alphas": 10.0},
        {"sample_weight": np.linspace(0, 2, 60)},
    ],
)
def test_blocks_are_those_of_the_whole_fit(options):
    X, Y = make_data()
    options = {"alphas": ALPHAS, "block_size": 5, "groups": np.arange(60) // 2, **options}
    whole = ridge_cv(X, Y, **options)
    stop = 0
    for columns, result in iter_ridge_cv(X, Y, **options):
        assert columns.start == stop
        stop = columns.stop
        for name in ("intercept", "alpha", "cv_scores", "y_mean"):
            np.testing.assert_array_equal(getattr(result, name), getattr(whole, name)[columns])
        np.testing.assert_array_equal(result.coef, whole.coef[:, columns])
    assert stop == 14


def test_blocks_check_their_arguments_at_once():
    X, Y = make_data()
    with pytest.raises(RidgeError, match="X has 60 rows but Y has 59"):
        iter_ridge_cv(X, Y[:-1])


def test_blocks_do_not_hold_the_weights_of_all_targets():
    X, Y = make_data(p=500, t=2000)
    taken = []
    for fit in (iter_ridge_cv, ridge_cv):
        tracemalloc.start()
        result = fit(X, Y, alphas=ALPHAS, block_size=20, dtype="float32")
        if fit is iter_ridge_cv:
            for _ in result:
                pass
        taken.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert taken[1] - taken[0] > 0.7 * 500 * 2000 * 4


def test_targets_may_be_computed_block_by_block():
    X, Y = make_data()
    blocks = []

    def columns(block):
        blocks.append(block)
        return 2 * Y[:, block]

    computed = ComputedMatrix(Y.shape, Y.dtype, columns)
    result = ridge_cv(X, computed, alphas=ALPHAS, block_size=5)
    np.testing.assert_array_equal(result.coef, ridge_cv(X, 2 * Y, alphas=ALPHAS, block_size=5).coef)
    assert [(block.start, block.stop) for block in blocks] == [(0, 5), (5, 10), (10, 14)]
    Y[3, 7] = np.nan
    with pytest.raises(RidgeError, match=r"Y holds NaN.* at row 3 column 7"):
        ridge_cv(X, computed, alphas=ALPHAS, block_size=5)


def test_errors_are_of_the_kinds_of_the_package():
    X, Y = make_data()
    for error, arguments, options in [
        (ShapeError, (X, Y[:-1]), {}),
        (ShapeError, (X, Y), {"sample_weight": [1.0, 2.0]}),
        (SettingError, (X, Y), {"score": "rank"}),
        (SettingError, (X, Y), {"alphas": [-1.0]}),
        (SettingError, (X, Y), {"cv": 3.5}),
    ]:
        with pytest.raises(error) as caught:
            ridge_cv(*arguments, **options)
        assert isinstance(caught.value, RidgeError)
        assert isinstance(caught.value, ValueError)
