"""Delayed features: no delay crosses a run."""

import numpy as np
import pandas as pd
import pytest
from sklearn import config_context
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from calcarine.errors import CalcarineError
from calcarine.linear import Delayer, RidgeCV

pytestmark = pytest.mark.filterwarnings("ignore::calcarine.linear.RidgeEdgeWarning")

# A row of the answer needs the rows before it: that is what a delay is.
IN_ORDER = {
    "check_methods_sample_order_invariance": "rows are time points",
    "check_methods_subset_invariance": "rows are time points",
}


@parametrize_with_checks(
    [Delayer(), Delayer([0, 3]), Delayer([-1, 1])], expected_failed_checks=lambda _: IN_ORDER
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def slowly(X, delays, runs):
    """Every number by itself."""
    n, p = X.shape
    out = np.zeros((n, p * len(delays)))
    for row in range(n):
        for k, delay in enumerate(delays):
            source = row - delay
            if 0 <= source < n and runs[source] == runs[row]:
                out[row, k * p : (k + 1) * p] = X[source]
    return out


@pytest.mark.parametrize("delays", [[1, 2, 3, 4], [0], [2, 0, -1], [-3], 5, [100]])
@pytest.mark.parametrize("lengths", [[20], [7, 1, 12], [5, 5, 5, 5]])
def test_every_number_is_where_it_should_be(delays, lengths):
    X = np.random.default_rng(0).normal(size=(20, 3))
    runs = np.repeat(list("bacd")[: len(lengths)], lengths)
    expected = slowly(X, np.atleast_1d(delays), runs)
    np.testing.assert_array_equal(Delayer(delays).fit_transform(X, groups=runs), expected)
    np.testing.assert_array_equal(Delayer(delays, run_length=lengths).fit_transform(X), expected)
    if len(set(lengths)) == 1:
        by_one = Delayer(delays, run_length=lengths[0])
        np.testing.assert_array_equal(by_one.fit_transform(X), expected)


@pytest.mark.parametrize("delays", [[1, 2, 3], [0, 2], [-1, 1], [9]])
def test_the_inverse_returns_all_that_was_kept(delays):
    X = np.random.default_rng(0).normal(size=(15, 2)).astype("f4")
    runs = np.repeat([0, 1, 2], [6, 1, 8])
    delayer = Delayer(delays).fit(X)
    back = delayer.inverse_transform(delayer.transform(X, runs), runs)
    position = np.concatenate([np.arange(6), np.arange(1), np.arange(8)])
    left = np.array([6, 1, 8])[runs] - position
    kept = np.any([(position + d >= 0) & (d < left) for d in delays], axis=0)
    np.testing.assert_allclose(back[kept], X[kept], rtol=1e-6)
    assert np.isnan(back[~kept]).all()
    assert back.dtype == delayer.transform(X).dtype == np.float32


def test_names_tell_feature_and_delay():
    frame = pd.DataFrame(np.eye(4)[:, :2], columns=["edge", "face"])
    delayer = Delayer([1, -2]).set_output(transform="pandas")
    assert list(delayer.fit_transform(frame).columns) == [
        "edge_delay1",
        "face_delay1",
        "edge_delay-2",
        "face_delay-2",
    ]
    assert list(Delayer([3]).fit(np.eye(2)).get_feature_names_out()) == ["x0_delay3", "x1_delay3"]


def test_an_impulse_response_comes_back():
    """Responses are features seen two and three time points later; runs are folds."""
    rng = np.random.default_rng(0)
    runs = np.repeat(np.arange(6), 40)
    X = rng.normal(size=(240, 5))
    response = rng.normal(size=(2, 5, 3))
    delayed = Delayer([2, 3]).fit_transform(X, groups=runs)
    Y = delayed @ response.reshape(10, 3) + 0.1 * rng.normal(size=(240, 3))
    with config_context(enable_metadata_routing=True):
        delayer = Delayer(range(5)).set_transform_request(groups=True)
        ridge = RidgeCV(alphas=[0.1, 1.0, 10.0]).set_fit_request(groups=True)
        model = make_pipeline(delayer, ridge).fit(X, Y, groups=runs)
        prediction = model.predict(X, groups=runs)
    shape = model[-1].coef_.reshape(3, 5, 5)  # target, delay, feature
    np.testing.assert_allclose(shape[:, 2:4], response.transpose(2, 0, 1), atol=0.05)
    assert np.abs(np.delete(shape, [2, 3], axis=1)).max() < 0.05
    assert np.corrcoef(prediction.ravel(), Y.ravel())[0, 1] > 0.99


@pytest.mark.parametrize(
    ("options", "groups", "message"),
    [
        ({"delays": []}, None, "delays is"),
        ({"delays": [1.5]}, None, "whole numbers"),
        ({"delays": [[1]]}, None, "whole numbers"),
        ({"delays": [1, 1]}, None, "twice"),
        ({}, [0, 0, 1, 1, 0, 0], "run .*0.* are not adjacent .* at row 4"),
        ({}, [0, 0], "labels 2 rows but X has 6"),
        ({}, ["a", None, "a", "b", "b", "b"], "mixes"),
        ({"run_length": 4}, None, "does not sum to the 6 rows"),
        ({"run_length": [2, 3]}, None, "does not sum to the 6 rows"),
        ({"run_length": [6, 0]}, None, "run_length is"),
        ({"run_length": 2.0}, None, "run_length is"),
        ({"run_length": 3}, [0] * 6, "pass one of the two"),
    ],
)
def test_mistakes_are_one_sentence(options, groups, message):
    with pytest.raises(CalcarineError, match=message) as caught:
        Delayer(**options).fit_transform(np.ones((6, 2)), groups=groups)
    assert "\n" not in str(caught.value)


def test_what_does_not_fit_is_refused():
    with pytest.raises(CalcarineError, match="not fitted") as caught:
        Delayer().transform(np.ones((3, 2)))
    assert isinstance(caught.value, NotFittedError)
    delayer = Delayer([1, 2]).fit(np.ones((3, 2)))
    with pytest.raises(CalcarineError, match="3 columns but 2 features at 2 delays make 4"):
        delayer.inverse_transform(np.ones((3, 3)))
    with pytest.raises(CalcarineError, match="features"):
        delayer.transform(np.ones((3, 3)))
    with pytest.raises(CalcarineError, match=r"NaN.*row 0 column 0"):
        delayer.transform(np.full((3, 2), np.nan))
