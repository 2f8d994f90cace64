"""Where a task computes: seeds, precision, determinism and devices while it runs, and what they were before, after."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import keras
import tensorflow as tf
from tensorflow.python.framework import config as tensorflow_config  # switching determinism off has no public name

from files.errors import UserError
from training.config import TaskConfig, TrainingConfig
from training.randomness import seeded
from training.strategy import Placement, make_strategy


@contextmanager
def precision(name: str) -> Iterator[None]:
    """Inside, layers are built for, and products are computed in, one of the precisions of ``TrainingConfig``.

    ``float32`` is that on every device; ``tensorfloat32`` lets GPUs round the factors of products to 10 bits of
    mantissa; ``mixed_bfloat16`` computes layers in bfloat16 with float32 weights. float16 needs loss scaling, and is
    not offered.
    """
    before = keras.config.dtype_policy(), tf.config.experimental.tensor_float_32_execution_enabled()
    keras.config.set_dtype_policy(name if name == "mixed_bfloat16" else "float32")
    tf.config.experimental.enable_tensor_float_32_execution(name == "tensorfloat32")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before[0])
        tf.config.experimental.enable_tensor_float_32_execution(before[1])


def precision_now() -> str:
    """The precision that ``precision`` has set, for artefacts and for keys of the cache."""
    policy = keras.config.dtype_policy().name
    rounded = tf.config.experimental.tensor_float_32_execution_enabled()
    return "tensorfloat32" if policy == "float32" and rounded else policy


@contextmanager
def _deterministic() -> Iterator[None]:
    before = tensorflow_config.is_op_determinism_enabled()
    tf.config.experimental.enable_op_determinism()
    try:
        yield
    finally:
        if not before:
            tensorflow_config.disable_op_determinism()


@contextmanager
def session(config: TaskConfig, training: TrainingConfig | None = None) -> Iterator[Placement]:
    """The placement of a task; ``training`` is how it trains, if it does.

    Raises:
        UserError: devices that are not there, or a batch size that is no multiple of their number.
    """
    with ExitStack() as stack:
        stack.enter_context(seeded(config.seed))
        stack.enter_context(precision(training.precision if training else "float32"))
        if training is None:
            yield make_strategy(config.devices)
            return
        if training.deterministic:
            stack.enter_context(_deterministic())
        placement = make_strategy(config.devices, training.shards)
        replicas = placement.strategy.num_replicas_in_sync
        if training.batch_size % (replicas * training.accumulate):
            times = f" × --accumulate={training.accumulate}" if training.accumulate > 1 else ""
            raise UserError(f"--batch_size={training.batch_size} is not a multiple of the {replicas} replicas{times}")
        yield placement
