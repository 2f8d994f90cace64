"""A task leaves the process as it was."""

import random

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import config as tensorflow_config

from files.errors import UserError
from training.config import TaskConfig, TrainingConfig
from training.randomness import seeded
from training.session import precision, precision_now, session


def _drawn() -> tuple:
    initial = keras.initializers.GlorotUniform()((2, 2))
    return random.random(), float(np.random.random()), keras.ops.convert_to_numpy(initial).tolist()


def test_seeds_precision_and_determinism_last_as_long_as_the_task() -> None:
    random.seed(7)
    np.random.seed(7)
    expected = _drawn()
    random.seed(7)
    np.random.seed(7)
    inside = []
    for seed in (3, 3, 4):
        training = TrainingConfig(precision="mixed_bfloat16", deterministic=True, shards=1)
        with session(TaskConfig(seed=seed, devices="cpu"), training) as placement:
            assert placement.shards == 1 and keras.config.dtype_policy().name == "mixed_bfloat16"
            assert tensorflow_config.is_op_determinism_enabled()
            inside.append(_drawn())
        assert keras.config.dtype_policy().name == "float32"
        assert not tensorflow_config.is_op_determinism_enabled()
    assert inside[0] == inside[1] != inside[2]
    assert _drawn() == expected


def test_an_error_leaves_nothing_behind_either() -> None:
    training = TrainingConfig(precision="mixed_bfloat16", batch_size=7)
    wrong = pytest.raises(UserError, match="--batch_size=7 is not a multiple of the 2 replicas")
    with wrong, session(TaskConfig(devices="cpu:2"), training):
        pass
    assert keras.config.dtype_policy().name == "float32"
    state = random.getstate()
    with pytest.raises(KeyError), seeded(1):
        raise KeyError
    assert random.getstate() == state


def test_rounded_products_are_a_precision_of_their_own() -> None:
    """TensorFlow rounds them on GPUs unless it is told not to."""
    rounded = tf.config.experimental.tensor_float_32_execution_enabled
    before = rounded()
    for name in ("float32", "tf32", "bfloat16", "mixed_bfloat16"):
        with session(TaskConfig(devices="cpu"), TrainingConfig(precision=name, shards=1)):
            assert rounded() == (name == "tf32") and precision_now() == name
            with precision("float32"):  # the features of a FID while it trains
                assert not rounded() and precision_now() == "float32"
            assert rounded() == (name == "tf32") and precision_now() == name
        assert rounded() == before
    with session(TaskConfig(devices="cpu")):  # features, samples, distances
        assert not rounded() and precision_now() == "float32"
