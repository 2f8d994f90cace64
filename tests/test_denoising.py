"""Algorithm 1: its batches, its loss by hand, and nothing that depends on how the work is cut."""

import itertools
from itertools import islice

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from diffusion.batches import ImageBatch, evaluation_batches, training_batches
from diffusion.data.readers import Images
from diffusion.network.unet import GroupNorm, TimeEmbedding
from diffusion.process.config import ProcessConfig
from diffusion.process.objective import Conditioning, by_time, make_loss_fn, to_model
from diffusion.process.process import make_process
from tests.steps import take_steps
from training.adamw import AdamW
from training.backends import Placement
from training.draws import EVALUATION, Place
from training.feed import Batches
from training.figures import Cost
from training.job import Job
from training.randomness import seeded

PROCESS = make_process(ProcessConfig(1000))


def _images(count: int = 10) -> Images:
    rng = np.random.default_rng(0)
    return Images(rng.integers(0, 256, (count, 4, 4, 1), np.uint8), np.arange(count, dtype=np.int32) % 3)


def _take(batches: Batches, count: int) -> list[ImageBatch]:
    return list(islice(batches, count))


def test_every_image_once_an_epoch_and_the_stream_goes_on_anywhere() -> None:
    images = _images()
    whole = _take(training_batches(images, 4, 0, flip=True), 10)
    seen = np.concatenate([batch.label for batch in whole])
    assert np.bincount(seen[:10]).tolist() == np.bincount(seen[10:20]).tolist() == np.bincount(images.labels).tolist()
    assert np.concatenate([batch.number for batch in whole]).tolist() == list(range(40))
    for first in (1, 3, 7):
        for a, b in zip(_take(training_batches(images, 4, 0, True, first), 3), whole[first : first + 3], strict=True):
            for x, y in zip(a, b, strict=True):
                np.testing.assert_array_equal(x, y)


def test_half_of_the_images_are_mirrored_and_the_data_stays_as_it_was() -> None:
    images = _images(200)
    before = images.pixels.copy()
    (batch,) = _take(training_batches(images, 200, 0, flip=True), 1)
    plain = {image.tobytes() for image in images.pixels}
    mirrored = {image[:, ::-1].tobytes() for image in images.pixels}
    kept = sum(image.tobytes() in plain for image in batch.image)
    assert 70 < kept < 130 and all(i.tobytes() in plain | mirrored for i in batch.image)
    np.testing.assert_array_equal(images.pixels, before)
    (batch,) = _take(training_batches(images, 200, 0, flip=False), 1)
    assert all(image.tobytes() in plain for image in batch.image)


def test_a_batch_larger_than_the_data() -> None:
    (batch,) = _take(training_batches(_images(3), 8, 0, False), 1)
    assert np.bincount(batch.label).min() >= 2


def test_evaluation_shows_every_image_once() -> None:
    batches = _take(evaluation_batches(_images(), 4), 5)
    assert [batch.mask.sum() for batch in batches] == [4, 4, 2]
    assert np.concatenate([b.number[b.mask > 0] for b in batches]).tolist() == list(range(10))


class _Spy(keras.Model):
    """Predicts a constant and keeps what it was given."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value, self.given = value, None

    def call(self, inputs: list, training: bool = False) -> tf.Tensor:
        self.given = inputs
        return ops.full_like(inputs[0], self.value)


def test_the_loss_by_hand() -> None:
    (batch,) = _take(evaluation_batches(_images(), 10), 1)
    for target in ("eps", "x0", "v"):
        process = make_process(ProcessConfig(1000, target=target))
        model = _Spy(0.25)
        values = make_loss_fn(model, process, min_snr_gamma=5.0)(batch, False, Place(0, EVALUATION))
        x_t, t = (np.asarray(part) for part in model.given)
        x0 = np.asarray(to_model(batch.image))
        alpha, sigma = (part.reshape(-1, 1, 1, 1) for part in process.coefficients(t))
        snr = (alpha / sigma).ravel() ** 2
        eps = (x_t - alpha * x0) / sigma
        wanted = {"eps": eps, "x0": x0, "v": alpha * eps - sigma * x0}[target]
        mse = ((wanted - 0.25) ** 2).mean(axis=(1, 2, 3))
        weight = np.minimum(snr, 5.0) / {"eps": snr, "x0": 1.0, "v": snr + 1}[target]
        np.testing.assert_allclose(values["mse"], mse, rtol=1e-2)
        np.testing.assert_allclose(values["loss"], mse * weight, rtol=1e-2)
        assert abs(eps.std() - 1) < 0.2 and t.min() >= 1 and t.max() <= 1000


def test_training_times_are_uniform_and_labels_are_dropped() -> None:
    count = 3000
    batch = ImageBatch(np.zeros((count, 2, 2, 1), np.uint8), np.ones(count, np.int32), np.arange(count), np.ones(count))
    model = _Spy(0.0)
    loss_fn = make_loss_fn(model, PROCESS, Conditioning(3, 0.25))
    loss_fn(batch, True, Place(ops.convert_to_tensor(5, "int64"), ops.convert_to_tensor(0, "int64")))
    _, t, label = (np.asarray(part) for part in model.given)
    assert abs(t.mean() - 500.5) < 30 and t.min() < 10 and t.max() > 990
    assert set(label) == {1, 3} and abs((label == 3).mean() - 0.25) < 0.03
    loss_fn(batch, False, Place(5, EVALUATION))
    assert set(np.asarray(model.given[2])) == {1}


def test_buckets_of_time() -> None:
    values = {"loss": np.array([1.0, 2, 3]), "mse": np.array([1.0, 5, 3]), "t": np.array([1, 125, 126])}
    figures = by_time(values, PROCESS)
    assert figures == {"loss": 2.0, "mse_1_125": 3.0, "mse_126_250": 3.0}
    assert all(isinstance(value, Cost) for value in figures.values())  # the smaller, the better


def _small_network() -> keras.Model:
    """A U-Net's inputs and kinds of layers, in one level."""
    x_t, t, label = (
        keras.Input(shape, dtype=kind) for shape, kind in (((4, 4, 1), "float32"), ((), "int32"), ((), "int32"))
    )
    emb = keras.layers.Dense(8)(TimeEmbedding(8)(t)) + keras.layers.Embedding(4, 8)(label)
    x = keras.layers.Conv2D(8, 3, padding="same")(x_t) + ops.expand_dims(emb, (1, 2))
    return keras.Model([x_t, t, label], keras.layers.Conv2D(1, 3, padding="same")(GroupNorm(4, silu=True)(x)))


def _train(placement: Placement, steps: int) -> list[np.ndarray]:
    """Weights after a few steps of the engine."""
    images = _images(20)
    with seeded(0), placement.scope():
        model = _small_network()
        optimizer = AdamW(1e-3, 0.0, ema_decay=0.9)
        optimizer.build(model.trainable_variables)
    loss_fn = make_loss_fn(model, PROCESS, Conditioning(3))
    job = Job(model, optimizer, loss_fn, lambda step: training_batches(images, 8, 0, True, step), dict)
    batches = job.train(0)
    take_steps(job, placement, itertools.islice(batches, steps), batches.spec)
    return model.get_weights()


def test_replicas_and_shards_change_nothing(one_replica: Placement, two_replicas: Placement) -> None:
    one, two, both = (_train(place, 3) for place in (one_replica, two_replicas, two_replicas._replace(shards=2)))
    for a, b, c in zip(one, two, both, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)
        np.testing.assert_allclose(a, c, atol=2e-5)
