"""Fits on the worker processes of a Dask cluster."""

import copy
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import dask
import numpy as np
import pytest
from distributed import Client, LocalCluster
from sklearn.model_selection import GroupShuffleSplit

from calcarine.linear import RidgeError, _backends, _results, ridge_cv
from calcarine.linear._backends import _DaskRunner, ops_for, runner_for

ALPHAS = np.logspace(0, 4, 5)
pytestmark = [
    pytest.mark.filterwarnings("ignore::calcarine.linear.RidgeEdgeWarning"),
    pytest.mark.filterwarnings("error:Sending large graph"),
]


@pytest.fixture(scope="module")
def client():
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def make_data(n=90, p=20, t=60, *, seed=0):
    rng = np.random.default_rng(seed)
    X = np.repeat(rng.normal(size=(n // 3, p)), 3, axis=0) + rng.normal(size=(n, p))
    Y = X @ rng.normal(size=(p, t)) / np.sqrt(p) + rng.normal(size=(n, t))
    return X, Y, np.repeat(np.arange(n // 3), 3)


def close(here, there):
    """Up to rounding: arrays from another process may lie in memory in another order."""
    single = here.coef.dtype == np.float32
    tolerance = {"rtol": 1e-3, "atol": 1e-5} if single else {"rtol": 1e-6, "atol": 1e-8}
    np.testing.assert_array_equal(there.alpha, here.alpha)
    for name in ("coef", "intercept", "cv_scores", "cv_curve", "y_mean"):
        np.testing.assert_allclose(
            getattr(there, name), getattr(here, name), err_msg=name, **tolerance
        )
    assert (there.solver, there.precision) == (here.solver, here.precision)


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((90, 20), {}),
        ((30, 80), {"score": "correlation", "alpha_per": "all", "dtype": "float32"}),
        ((60, 260), {"solver": "primal", "search": "local"}),  # banded factors
        ((30, 80), {"cv": "logo"}),
        ((90, 20), {"cv": "gcv", "dtype": "float32"}),
        ((90, 20), {"alphas": [1e-13, 1.0]}),  # singular values
        ((90, 20), {"sample_weight": np.arange(90) % 4}),
        ((30, 80), {"sample_weight": np.arange(30) % 3, "score": "correlation"}),
        ((90, 20), {"cv": "fixed", "alphas": 1.0 + np.arange(60)}),
        (
            (90, 20),
            {"cv": GroupShuffleSplit(3, random_state=0), "sample_weight": np.arange(90) % 4},
        ),
        ((30, 80), {"cv": GroupShuffleSplit(3, random_state=0)}),
    ],
)
def test_workers_give_what_this_process_gives(shape, options, client):
    X, Y, groups = make_data(*shape)
    X[:, 3], X[:, 5] = 0.5, X[:, 4]
    options = {"alphas": ALPHAS, "groups": groups, "block_size": 25, **options}
    close(ridge_cv(X, Y, **options), ridge_cv(X, Y, client=client, **options))


def test_weights_of_workers_go_to_a_folder(client, tmp_path):
    X, Y, groups = make_data()
    options = {"alphas": ALPHAS, "groups": groups, "block_size": 7, "out": tmp_path / "fit"}
    fit = ridge_cv(X, Y, client=client, **options)
    options.pop("out")
    close(ridge_cv(X, Y, **options), fit)
    assert isinstance(fit.coef, np.memmap)


def test_large_blocks_go_to_workers_directly(client):
    """Through the scheduler they would be slow, which Dask warns of and this file forbids."""
    X, Y, groups = make_data(60, 10, 6000)
    options = {"alphas": [10.0], "groups": groups, "block_size": 5000}
    with dask.config.set({"distributed.admin.large-graph-warning-threshold": "2MB"}):
        close(ridge_cv(X, Y, **options), ridge_cv(X, Y, client=client, **options))


def slow_square():
    """A function that goes to workers by value: they cannot import this file."""

    def square(shared, number):
        time.sleep(0.2)
        return int(shared[0]) + number**2

    return square


def test_jobs_are_drawn_as_workers_need_them(client):
    drawn = []

    def jobs():
        for i in range(30):
            drawn.append(i)
            yield (i,)

    answers = runner_for(client)(slow_square(), jobs(), (np.zeros(1),))
    next(answers)
    assert len(drawn) <= 2 * 2
    answers.close()


def test_mistakes_of_the_fit_reach_the_caller(client):
    X, Y, groups = make_data()
    Y[17, 3] = np.nan
    with pytest.raises(RidgeError, match="row 17 column 3"):
        ridge_cv(X, Y, groups=groups, client=client)
    with pytest.raises(ZeroDivisionError):
        list(_DaskRunner(client)(divmod, [(1, 0)]))


def test_unusable_clients_are_told(client):
    X, Y, _ = make_data()
    with pytest.raises(RidgeError, match=r"client is a str; pass a dask\.distributed\.Client"):
        ridge_cv(X, Y, client="tcp://127.0.0.1:8786")
    closed = Client(client.scheduler.address)
    closed.close()
    with pytest.raises(RidgeError, match="The Dask client is closed; fit with one") as caught:
        ridge_cv(X, Y, client=closed)
    assert "\n" not in str(caught.value)
    parts = {"submit": None, "scatter": None, "status": "running"}
    idle = SimpleNamespace(nthreads=dict, **parts)
    with pytest.raises(RidgeError, match="has no workers; start some"):
        ridge_cv(X, Y, client=idle)
    waiting = SimpleNamespace(nthreads=dict, asynchronous=True, **parts)
    with pytest.raises(RidgeError, match="asynchronous; pass one made with asynchronous=False"):
        ridge_cv(X, Y, client=waiting)


def test_client_closed_in_the_middle_of_a_fit_is_told(client):
    other = Client(client.scheduler.address)
    answers = runner_for(other)(slow_square(), ((i,) for i in range(30)), (np.zeros(1),))
    next(answers)
    threading.Timer(0.2, other.close).start()
    with pytest.raises(RidgeError, match="The Dask client is clos"):
        list(answers)


def test_operations_go_to_other_processes():
    for device in ("cpu", "torch:cpu"):
        ops = copy.deepcopy(ops_for(device))
        assert type(ops) is type(ops_for(device))
        np.testing.assert_array_equal(ops.get(ops.put(np.eye(2), np.dtype("f4"))), np.eye(2))


class Workers:
    """Worker processes that nothing restarts but `start`, as on a cluster with a batch system."""

    def __init__(self, client):
        self.client = client
        self.processes = []

    def start(self):
        module = "distributed.cli.dask_worker"
        options = ["--no-nanny", "--nthreads=1", "--no-dashboard", "--death-timeout=60"]
        command = [sys.executable, "-m", module, self.client.scheduler.address, *options]
        self.processes.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))

    def kill(self, count):
        for process in self.processes[:count]:
            process.kill()
            process.wait()
        del self.processes[:count]


@pytest.fixture
def workers(tmp_path):
    """Two workers of a scheduler in a process of its own, which no Dask object looks after."""
    file = tmp_path / "scheduler.json"
    module = "distributed.cli.dask_scheduler"
    options = ["--port=0", "--no-dashboard", f"--scheduler-file={file}"]
    scheduler = subprocess.Popen(
        [sys.executable, "-m", module, *options], stderr=subprocess.DEVNULL, cwd=tmp_path
    )
    try:
        with Client(scheduler_file=str(file), timeout=120) as client:
            made = Workers(client)
            made.start()
            made.start()
            client.wait_for_workers(2, timeout=120)
            yield made
            made.kill(len(made.processes))
    finally:
        scheduler.kill()
        scheduler.wait()


@pytest.mark.posix
def test_fit_outlives_a_worker(workers, monkeypatch):
    X, Y, groups = make_data()
    options = {"alphas": ALPHAS, "groups": groups, "block_size": 2}
    kept = []
    keep = _results.WeightMemory.keep

    def kill_once(self, block, answer):
        if len(kept) == 4:
            workers.kill(1)
        kept.append(block)
        keep(self, block, answer)

    with monkeypatch.context() as patch:
        patch.setattr(_results.WeightMemory, "keep", kill_once)
        fit = ridge_cv(X, Y, client=workers.client, **options)
    assert len(kept) == 30
    close(ridge_cv(X, Y, **options), fit)


@pytest.mark.posix
def test_losing_all_workers_changes_nothing(workers):
    """What jobs share is lost with them, and is sent again to those that come later."""
    answers = []
    jobs = ((i,) for i in range(8))
    for answer in runner_for(workers.client)(slow_square(), jobs, (np.array([9]),)):
        answers.append(answer)
        if len(answers) == 2:
            workers.kill(2)
            workers.start()
    assert answers == [9 + i**2 for i in range(8)]


@pytest.mark.posix
@pytest.mark.parametrize("shared", [(), (np.array([9]),)])
def test_workers_that_never_come_back_end_the_fit(workers, monkeypatch, shared):
    """Whether jobs only wait for a worker, or data that they share is lost as well."""
    monkeypatch.setattr(_backends, "_WAIT_SECONDS", 0.2)

    def slow(*arguments):
        time.sleep(0.2)
        return arguments[-1]

    answers = runner_for(workers.client)(slow, ((i,) for i in range(8)), shared)
    next(answers)
    workers.kill(2)
    with pytest.raises(RidgeError, match="The Dask cluster has no workers; start some"):
        list(answers)


def test_slow_jobs_are_waited_for_while_there_are_workers(client, monkeypatch):
    monkeypatch.setattr(_backends, "_WAIT_SECONDS", 0.05)

    def late(number):
        time.sleep(0.3)
        return number

    assert list(runner_for(client)(late, [(1,), (2,)])) == [1, 2]


@pytest.mark.parametrize(
    "error",
    [
        TimeoutError("No valid workers found"),
        ValueError("Sample larger than population or is negative"),
    ],
)
def test_no_workers_are_an_error_and_late_ones_are_waited_for(monkeypatch, error):
    """Dask starts workers in place of lost ones, which can take longer than sending waits."""
    monkeypatch.setattr(_backends, "_WAIT_SECONDS", 0.01)

    class Client:
        status = "running"

        def __init__(self, failures):
            self.failures = failures

        def wait_for_workers(self, n_workers, timeout):
            assert (n_workers, timeout) == (1, 0.01)

        def scatter(self, part, broadcast, hash):
            if self.failures:
                self.failures -= 1
                raise error
            return part

    assert _backends._DaskRunner(Client(2))._send((3, 4)) == [3, 4]
    with pytest.raises(RidgeError, match="no workers; start some"):
        _backends._DaskRunner(Client(1000))._send((3,))
