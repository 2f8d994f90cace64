"""Seeds, precision, determinism and devices of a task; when the task ends, the settings before it are restored."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import keras

from files.download import cache_of
from files.errors import UserError
from training.backends import Placement, backend
from training.config import TaskConfig, TrainingConfig
from training.hosts import taking_part
from training.placement import make_placement
from training.randomness import seeded


@contextmanager
def precision(name: str) -> Iterator[None]:
    """Inside, layers are built and products are computed in one of the precisions of ``TrainingConfig``.

    ``float32`` is exact float32 on every device; ``tf32`` lets GPUs round the factors of products to 10 bits of
    mantissa; ``mixed_bfloat16`` computes layers in bfloat16 with float32 weights; with ``bfloat16`` the weights are
    bfloat16 too, and the optimizer keeps float32 copies (``training.engine_optimizer``). float16 would need loss
    scaling, and is not supported.
    """
    before = keras.config.dtype_policy()
    with backend().products(tf32=name == "tf32"):
        keras.config.set_dtype_policy("float32" if name == "tf32" else name)
        try:
            yield
        finally:
            keras.config.set_dtype_policy(before)


def precision_now() -> str:
    """The precision that ``precision`` set, for artefacts and for keys of the cache."""
    policy = keras.config.dtype_policy().name
    return "tf32" if policy == "float32" and backend().tf32() else policy


@contextmanager
def session(config: TaskConfig, training: TrainingConfig | None = None) -> Iterator[Placement]:
    """The placement of a task; ``training`` is None for a task without training.

    Raises:
        UserError: devices are missing, or the batch size is not a multiple of their number.
    """
    with ExitStack() as stack:
        stack.enter_context(taking_part(cache_of(config.cache_dir)))
        stack.enter_context(seeded(config.seed))
        stack.enter_context(precision(training.precision if training else "float32"))
        if training is None:
            yield make_placement(config.devices)
            return
        if training.deterministic:
            stack.enter_context(backend().deterministic())
        placement = make_placement(config.devices, training.shards)
        replicas = placement.replicas
        if training.batch_size % (replicas * training.accumulate):
            times = f" × --accumulate={training.accumulate}" if training.accumulate > 1 else ""
            raise UserError(f"--batch_size={training.batch_size} is not a multiple of the {replicas} replicas{times}")
        yield placement
