"""Memory and speed of Llama 3.2 Vision with random weights, on one device under JAX.

    pip install "jax[cuda13]"
    KERAS_BACKEND=jax XLA_PYTHON_CLIENT_PREALLOCATE=false python -m benchmarks.llama --work=answer
    KERAS_BACKEND=jax XLA_PYTHON_CLIENT_PREALLOCATE=false python -m benchmarks.llama --work=train --remat
    KERAS_BACKEND=jax python -m benchmarks.llama --work=train --tiny --devices=cpu      # to see that it runs

The sizes are those of the 11B model; its weights are drawn on the device, as memory and speed do not depend on values.
``answer``: the tower reads a picture of four tiles for each row, the decoder reads a prompt and adds tokens one by one.
``train``: steps of the engine on updates of all linear maps; the tower's states are given, as from the cache. The peak
is that of the device's allocator for the whole process, so that every choice is a process of its own.
"""

import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import app, flags

if TYPE_CHECKING:
    from training.backends import Placement
    from vision_bridge.llama.batches import LlamaBatch
    from vision_bridge.llama.model import LlamaVision

FLAGS = flags.FLAGS
flags.DEFINE_enum("work", "answer", ["answer", "train"], "What is measured.")
flags.DEFINE_bool("tiny", False, "A small model, to see that it runs.")
flags.DEFINE_string("devices", "gpu", "As --devices of the scripts.")
flags.DEFINE_enum("quantize", "none", ["none", "int8", "int4"], "Bits of the frozen kernels.")
flags.DEFINE_bool("remat", False, "As --remat of finetune_llama.")
flags.DEFINE_integer("rows", 1, "Rows of a batch.", 1)
flags.DEFINE_integer("tokens", 512, "Tokens of a row (train) or of a prompt (answer).", 2)
flags.DEFINE_integer("new_tokens", 64, "Tokens of an answer.", 2)
flags.DEFINE_integer("rank", 16, "Rank of the updates.", 1)
flags.DEFINE_integer("steps", 5, "Steps that are timed, one by one.", 1)


def main(argv: list[str]) -> None:
    """Prints one line of JSON."""
    from training.backends import backend
    from training.placement import make_placement
    from training.session import precision

    assert backend().__name__.endswith("jax"), "set KERAS_BACKEND=jax"
    placement = make_placement(FLAGS.devices)
    with precision("bfloat16"), placement.scope():
        model, seconds = _timed(_model)
        figures = {"build_seconds": seconds, "parameters": model.count_params(), "built_gb": _memory("bytes_in_use")}
        figures |= _answer(model) if FLAGS.work == "answer" else _train(model, placement)
    about = {name: FLAGS[name].value for name in ("work", "quantize", "remat", "rows", "tokens")}
    print(json.dumps(about | figures | {"peak_gb": _memory("peak_bytes_in_use")}), flush=True)


def _model() -> "LlamaVision":
    """With random weights; open gates, so that pictures count."""
    from unittest import mock

    import keras

    from training import initializers
    from vision_bridge.llama.config import LlamaConfig
    from vision_bridge.llama.digits import small_config
    from vision_bridge.llama.model import LlamaVision
    from vision_bridge.llama.objective import open_gates
    from vision_bridge.llama.quantisation import quantise

    def on_device(self: Any, shape: tuple[int, ...], dtype: Any = None) -> Any:
        return keras.random.normal(shape, stddev=0.02, dtype=dtype, seed=0)

    with mock.patch.object(initializers.RandomNormal, "__call__", on_device):  # ours draws on the host, alike anywhere
        model = LlamaVision(small_config() if FLAGS.tiny else LlamaConfig())
    open_gates(model, 0.5)
    quantise(model, FLAGS.quantize)
    return model


def _answer(model: "LlamaVision") -> dict[str, float]:
    from keras import ops

    from training.functions import compiled
    from vision_bridge.llama.generation import Sight, compiled_step, generate
    from vision_bridge.llama.model import Pictures

    vision, rows = model.config.vision, FLAGS.rows
    tiles = np.ones((rows, 1, vision.max_tiles), np.int32)
    size = (vision.image_size, vision.image_size, vision.channels)
    pixels = np.random.default_rng(0).standard_normal((*tiles.shape, *size)).astype(np.float32)
    ids = np.full((rows, 1), _square(), np.int32)
    encode, step = compiled(lambda *pictures: model.encode(Pictures(*pictures))), compiled_step(model)

    def read() -> Any:
        states = encode(*map(ops.convert_to_tensor, (pixels, ids, tiles)))
        return states, float(ops.sum(states[:, 0]))

    read()
    (states, _), of_pictures = _timed(read)
    sight = Sight(states, ops.convert_to_tensor(np.repeat(tiles[:, None], FLAGS.tokens, axis=1)))
    prompts = _tokens(model, rows, FLAGS.tokens).tolist()

    def times() -> list[float]:
        walk = generate(model, prompts, FLAGS.new_tokens, _never_ending(model), sight, step)
        return [_timed(lambda: next(walk))[1] for _ in range(FLAGS.new_tokens)]

    times()
    first, *others = times()
    each = statistics.median(others)
    return {"encode_seconds": of_pictures, "first_token_seconds": first, "token_seconds": each,
            "tokens_per_second": rows / each}  # fmt: skip


def _never_ending(model: "LlamaVision") -> Callable[[np.ndarray, int], np.ndarray]:
    """The likeliest token that does not end an answer."""

    def choose(logits: np.ndarray, step: int) -> np.ndarray:
        logits = logits.copy()
        logits[:, [end for end in model.config.end_tokens if end < logits.shape[1]]] = -np.inf
        return logits.argmax(axis=-1)

    return choose


def _train(model: "LlamaVision", placement: "Placement") -> dict[str, float]:
    from training.config import TrainingConfig
    from training.feed import spec_of
    from training.job import make_job
    from training.train_step import make_train_step
    from vision_bridge.llama.objective import add_lora, make_loss_fn

    add_lora(model, FLAGS.rank, "all")
    training = TrainingConfig(num_steps=10**6, learning_rate=1e-4, schedule="constant", warmup=0, clip_norm=1.0,
                              precision="bfloat16")  # fmt: skip
    loss_fn = make_loss_fn(model, frozen_tower=True, remat=FLAGS.remat)
    job = make_job(model, loss_fn, lambda step: None, dict, placement, training, 0)  # type: ignore
    batch = _batch(model)
    step = make_train_step(job, placement, training, spec_of(batch))
    walk: Iterator[Any] = itertools.repeat(step.prepare(batch))

    def one(number: int) -> float:
        return float(step.run(walk, number, 1, {})["loss"])  # waits for the device

    _, first = _timed(lambda: one(0))
    seconds = [_timed(lambda number=number: one(number))[1] for number in range(1, 1 + FLAGS.steps)]
    trained = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
    return {"trained": trained, "first_step_seconds": first, "step_seconds": statistics.median(seconds),
            "tokens_per_second": FLAGS.rows * FLAGS.tokens / statistics.median(seconds)}  # fmt: skip


def _batch(model: "LlamaVision") -> "LlamaBatch":
    """Rows of a picture of four tiles, whose last quarter is the answer."""
    import ml_dtypes

    from vision_bridge.llama.batches import LlamaBatch

    vision, rows, length = model.config.vision, FLAGS.rows, FLAGS.tokens
    answer, tiles = max(1, length // 4), vision.max_tiles
    sight = np.random.default_rng(1).standard_normal((rows, 1, tiles * vision.tokens, model.config.text.width))
    tokens = _tokens(model, rows, length)
    places = np.tile(np.arange(length - answer - 1, length - 1, dtype=np.int32), (rows, 1))
    return LlamaBatch(
        tokens, np.ones_like(tokens), sight.astype(ml_dtypes.bfloat16), np.full((rows, 1), _square(), np.int32),
        np.ones((rows, 1, tiles), np.int32), np.ones((rows, length, 1, tiles), np.int32), places,
        np.take_along_axis(tokens, places + 1, axis=1), np.ones(places.shape, np.float32),
        np.full(rows, answer, np.float32),
    )  # fmt: skip


def _square() -> int:
    """The number of the aspect ratio of 2 × 2 tiles."""
    from vision_bridge.llama.config import ASPECT_RATIOS

    return 1 + ASPECT_RATIOS.index((2, 2))


def _tokens(model: "LlamaVision", rows: int, length: int) -> np.ndarray:
    most = min(model.config.text.vocabulary, model.config.begin_token)
    return np.random.default_rng(0).integers(0, most, (rows, length)).astype(np.int32)


def _memory(name: str) -> float | None:
    import jax

    about = jax.local_devices()[0].memory_stats()  # None on a CPU
    return about and about[name] / 1e9


def _timed(function: Callable[[], Any]) -> tuple[Any, float]:
    start = time.monotonic()
    value = function()
    return value, time.monotonic() - start


if __name__ == "__main__":
    app.run(main)
