"""Batches a second that the feed delivers, compared with the steps a second that training takes.

    python -m benchmarks.input
    KERAS_BACKEND=jax python -m benchmarks.input --cases=bbc_news,imdb --step_ms=2,3    # a GPU's steps, say

Every case is what a script trains on, with the batches of its own code: texts of random ids with the lengths of real
ones, random images, random maps in a memory-mapped file. Feed and step take turns, each on its own; of every one the
median is taken. The ratio should be 3 at least: then a step never waits, on a machine that has other work too.
"""

import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from absl import app, flags

if TYPE_CHECKING:
    import keras

    from text_cls.tokens.encoding import Encoded
    from training.backends import Placement
    from training.feed import Batches
    from training.job import LossFn

FLAGS = flags.FLAGS
flags.DEFINE_list("cases", [], "Cases to measure; empty: all.")
flags.DEFINE_list("step_ms", [], "Milliseconds per step of each case, measured elsewhere; empty: measure here.")
flags.DEFINE_string("devices", "auto", "Where steps run.")
flags.DEFINE_integer("rounds", 5, "Measurements of feed and step.")
flags.DEFINE_float("seconds", 2.0, "Shortest time of a measurement, which has at least one batch or step.")


class Case(NamedTuple):
    """What a script trains on.

    Attributes:
        train: the batches from the first step on.
        model, loss_fn: what makes the step.
    """

    train: "Batches"
    model: "keras.Model"
    loss_fn: "LossFn"


def texts(count: int, mean: float, longest: int, classes: int) -> "Encoded":
    """Random ids below 20,000; lengths are log-normal, as those of news and reviews are, and cut."""
    from text_cls.tokens.encoding import Encoded

    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(np.log(mean), 0.6, count), 2, longest).astype(int)
    ids = rng.integers(5, 20_000, lengths.sum()).astype(np.int32)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids[offsets[:-1]] = 2
    return Encoded(ids, offsets, rng.integers(0, classes, count).astype(np.int32))


def from_scratch(count: int, mean: float, longest: int, classes: int, **choices: Any) -> Case:
    """``train_text``."""
    from text_cls.batches import training_batches
    from text_cls.layers.transformer import build_classifier
    from text_cls.layers.transformer_config import TransformerConfig
    from text_cls.objective import make_loss_fn

    model = build_classifier(TransformerConfig(20_000, classes, max_length=longest, num_layers=1, **choices))
    return Case(training_batches(texts(count, mean, longest, classes), 64, 0), model, make_loss_fn(model))


def fine_tuning() -> Case:
    """``finetune_bert`` of six layers of width 384, as MiniLM has, with 32 texts a batch."""
    from text_cls.batches import training_batches
    from text_cls.encoders.bert import build_classifier
    from text_cls.encoders.config import BertClassifierConfig, BertConfig
    from text_cls.objective import make_loss_fn

    model = build_classifier(BertClassifierConfig(BertConfig(30_522, 384, 6, 12, 1536, 512), 2))
    return Case(training_batches(texts(10_000, 180, 224, 2), 32, 0), model, make_loss_fn(model))


def diffusion(count: int, size: int, channels: int, batch: int, flip: bool, **unet: Any) -> Case:
    """``ddpm``."""
    from diffusion.batches import training_batches
    from diffusion.config import DdpmConfig
    from diffusion.data.readers import Images
    from diffusion.network.unet import build_unet
    from diffusion.process.config import ProcessConfig
    from diffusion.process.objective import make_loss_fn
    from diffusion.process.process import make_process

    rng = np.random.default_rng(0)
    images = Images(rng.integers(0, 256, (count, size, size, channels), np.uint8), None)
    model = build_unet(dataclasses.replace(DdpmConfig().unet, **unet).for_images(images.pixels.shape, 0))
    loss_fn = make_loss_fn(model, make_process(ProcessConfig()), 0)
    return Case(training_batches(images, batch, 0, flip), model, loss_fn)


def head(folder: Path, on_maps: bool) -> Case:
    """The bridge's head, on maps in the cache or on images and their network."""
    import keras

    from training.config import TrainingConfig
    from training.placement import make_placement
    from vision_bridge.batches import training_batches
    from vision_bridge.bridge import build_network
    from vision_bridge.classifier import build_head, make_loss_fn
    from vision_bridge.config import BridgeConfig
    from vision_bridge.frozen.extractors import EXTRACTORS
    from vision_bridge.frozen.images import Normalization
    from vision_bridge.frozen.maps import make_maps_of, map_shape
    from vision_bridge.frozen.weights import set_random_weights

    config, name = BridgeConfig(), "resnet18"
    network = build_network(config, name, make_placement(FLAGS.devices))
    set_random_weights(network, 0)
    shape = map_shape(network, config.map_pool)
    one_image = (config.height, config.width)
    count, row, dtype = (2000, tuple(shape), "float16") if on_maps else (10_000, one_image, "float32")
    x: Any = np.lib.format.open_memmap(folder / f"{on_maps}.npy", "w+", dtype, (count, *row))
    rng = np.random.default_rng(0)
    for start in range(0, count, 100):
        x[start : start + 100] = rng.standard_normal((100, *row), np.float32)
    of_images = make_maps_of(network, Normalization(0, 1, False), config.enlarge, config.map_pool)
    maps_of = (lambda maps: keras.ops.cast(maps, "float32")) if on_maps else of_images
    shape_of_head = config.head_of(EXTRACTORS[name])
    model = build_head(tuple(shape), 2, shape_of_head)
    labels = np.zeros(count, np.int32)
    size = TrainingConfig().batch_size
    return Case(training_batches(x, labels, size, 0), model, make_loss_fn(model, maps_of, shape_of_head))


CASES: dict[str, Callable[[Path], Case]] = {
    "bbc_news": lambda folder: from_scratch(1_780, 230, 256, 5),
    "imdb": lambda folder: from_scratch(23_000, 180, 320, 2, position="none", bigram_buckets=200_000),
    "finetune_bert": lambda folder: fine_tuning(),
    "digits": lambda folder: diffusion(1_500, 8, 1, 64, False),
    "cifar10": lambda folder: diffusion(
        50_000, 32, 3, 128, True, base_width=128, channel_multipliers=(1, 2, 2, 2), attention_resolutions=(16,),
        num_groups=32,
    ),
    "head_on_maps": lambda folder: head(folder, True),
    "head_on_images": lambda folder: head(folder, False),
}  # fmt: skip


def milliseconds(take: Callable[[], Any], least: float) -> float:
    """Of one call, over as many as take ``least`` seconds."""
    start, count = time.perf_counter(), 0
    while count == 0 or time.perf_counter() - start < least:
        take()
        count += 1
    return 1000 * (time.perf_counter() - start) / count


def stepping(case: Case, placement: "Placement") -> tuple[Callable[[], Any], Callable[[Any], Any]]:
    """Takes a step of the next of a few batches that are on the device already; and what puts one there."""
    from training.adamw import AdamW
    from training.config import TrainingConfig
    from training.job import Job
    from training.train_step import make_train_step

    optimizer = AdamW(1e-3)
    optimizer.build(case.model.trainable_variables)
    job = Job(case.model, optimizer, case.loss_fn, lambda step: case.train, dict)
    step = make_train_step(job, placement, TrainingConfig(), case.train.spec)

    def ready() -> Iterator[Any]:
        few = [step.prepare(batch) for batch, _ in zip(case.train, range(8), strict=False)]
        while True:
            yield from few

    walk = ready()
    return lambda: float(step.run(walk, 0, 1, {})["loss"]), step.prepare


def measure(case: Case, placement: "Placement", step_ms: float | None) -> tuple[float, float]:
    """Milliseconds a batch of the feed, and a step."""
    from training.feed import feed

    step, prepare = stepping(case, placement)
    rates: dict[str, list[float]] = {"feed": [], "step": []}
    if step_ms is None:
        milliseconds(step, 0.0)  # compilation, once for every length in JAX
        milliseconds(step, FLAGS.seconds)
    for _ in range(FLAGS.rounds):
        with feed(case.train, prepare) as walk:
            for _ in range(case.train.ahead + 1):
                next(walk)
            rates["feed"].append(milliseconds(lambda: next(walk), FLAGS.seconds))
        rates["step"].append(milliseconds(step, FLAGS.seconds) if step_ms is None else step_ms)
    return median(rates["feed"]), median(rates["step"])


def main(_: list[str]) -> None:
    """Prints the table, case by case."""
    from training.placement import make_placement

    placement = make_placement(FLAGS.devices)
    names = FLAGS.cases or list(CASES)
    given = [float(text) for text in FLAGS.step_ms] or [None] * len(names)
    print("| batches of | feed alone, ms | a step, ms | ratio |\n|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for name, step_ms in zip(names, given, strict=True):
            with placement.scope():
                case = CASES[name](Path(folder))
            fed, step = measure(case, placement, step_ms)
            print(f"| {name} | {fed:.3f} | {step:.1f} | {step / fed:.1f} |", flush=True)


if __name__ == "__main__":
    app.run(main)
