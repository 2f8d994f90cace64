"""The two forms of attention, one call each by turns in one process: medians, and their ratio.

    python -m benchmarks.attention
    KERAS_BACKEND=jax python -m benchmarks.attention --dtype=bfloat16 --batch=64 --heads=12 --depth=64 --lengths=128,512

Every row of a batch is a text of at least half the length, then padding. Both forms are compiled, and timed twice: the
answer alone, and the answer with the gradients of q, k and v. Each line says which form ``text_cls.layers.attention``
uses here for such a call; a gradient counts as training that drops nothing. On a GPU, run it alone, as JAX takes its
memory.
"""

import os
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_integer("batch", 32, "Texts.")
flags.DEFINE_integer("heads", 4, "Heads.")
flags.DEFINE_integer("depth", 32, "Width of a head.")
flags.DEFINE_list("lengths", ["64", "128", "256"], "Tokens of a text; one line of results each.")
flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Number format of q, k and v.")
flags.DEFINE_integer("rounds", 20, "Calls of each form.")


def compiled(form: Callable, bias: Any, learns: bool) -> Callable[..., Any]:
    """q, k, v → one number that depends on all that ``form`` gives: the answer, or the gradients of its squares."""
    import keras
    from keras import ops

    def total(*arrays: Any) -> Any:
        return sum(ops.sum(ops.square(ops.cast(x, "float32"))) for x in arrays)

    if keras.backend.backend() == "jax":
        import jax

        gradients = jax.grad(lambda *qkv: total(form(*qkv, bias)), (0, 1, 2))
        return jax.jit((lambda *qkv: total(*gradients(*qkv))) if learns else lambda *qkv: total(form(*qkv, bias)))
    import tensorflow as tf

    def learn(*qkv: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(qkv)
            value = total(form(*qkv, bias))
        return total(*tape.gradient(value, qkv))

    return tf.function(learn if learns else lambda *qkv: total(form(*qkv, bias)))


def milliseconds(functions: dict[str, Callable], arrays: list[Any], rounds: int) -> dict[str, float]:
    """Median time of a call of each, by turns; the first call of each, which compiles, is not timed."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(rounds + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            float(function(*arrays))  # waits for the device
            if number:
                times[name].append(1000 * (time.perf_counter() - start))
    return {name: median(values) for name, values in times.items()}


def measure(length: int) -> None:
    """Prints one line of results for each of answer and gradient."""
    from keras import ops

    from text_cls.layers import attention
    from training.dropout import Dropout

    rng = np.random.default_rng(0)
    shape = (FLAGS.batch, FLAGS.heads, length, FLAGS.depth)
    qkv = [ops.cast(rng.normal(size=shape).astype(np.float32), FLAGS.dtype) for _ in range(3)]
    padding = np.arange(length) >= rng.integers(length // 2, length + 1, (FLAGS.batch, 1))
    bias = ops.convert_to_tensor(np.where(padding, -1e9, 0.0).astype(np.float32)[:, None, None, :])
    drop = Dropout(0.0)
    forms = {"explicit": lambda q, k, v, bias: attention.explicit(q, k, v, bias, drop), "fused": attention.fused}
    for learns, name in ((False, "answer"), (True, "gradient")):
        found = milliseconds({k: compiled(form, bias, learns) for k, form in forms.items()}, qkv, FLAGS.rounds)
        taken = "fused" if attention.flash_device() and attention.flash_fits(qkv[0], qkv[1], learns) else "explicit"
        print(
            f"{FLAGS.batch} × {length} tokens, {FLAGS.heads} heads of {FLAGS.depth}, {FLAGS.dtype}, {name}: "
            + ", ".join(f"{form} {value:.2f} ms" for form, value in found.items())
            + f"; fused takes {found['fused'] / found['explicit']:.2f} × as long; {taken} is used",
            flush=True,
        )


def main(argv: list[str]) -> None:
    """Measures every length."""
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as in experiments
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    print(f"{keras.backend.backend()} on {', '.join(keras.distribution.list_devices())}, median of {FLAGS.rounds}")
    for length in FLAGS.lengths:
        measure(int(length))


if __name__ == "__main__":
    app.run(main)
