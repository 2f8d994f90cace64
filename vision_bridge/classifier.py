"""Feature maps → class or quantity: the table's encoder and dense head. ``B`` batch, ``C`` outputs, ``K`` maps."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from files.errors import UserError
from training.draws import Place, kept_in_256
from training.dropout import Dropout
from training.initializers import FanAverage
from training.objectives import classification, seeded_call
from training.optimizers import RateOf
from vision_bridge.batches import MixedBatch
from vision_bridge.config import Rates
from vision_bridge.frozen.images import SYNCHRONIZED
from vision_bridge.frozen.pooling import adaptive_pool_matrix
from vision_bridge.frozen.storage import MapStatistics
from vision_bridge.head_config import HeadConfig

Objective = Callable[[Any, Any], dict[str, Any]]  # outputs [B, C], labels [B] → ``loss`` and other values, each [B]


@keras.saving.register_keras_serializable("triptych")
class AdaptiveAveragePool(layers.Layer):
    """[B, h, w, K] → [B, side, side, K]."""

    def __init__(self, side: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.side = side

    def call(self, x: Any) -> Any:
        down, across = (
            ops.convert_to_tensor(adaptive_pool_matrix(size, self.side), dtype=x.dtype) for size in x.shape[1:3]
        )
        return ops.einsum("ih,bhwk,jw->bijk", down, x, across)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return (input_shape[0], self.side, self.side, input_shape[3])

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"side": self.side}


def check_maps(shape: tuple[int, ...], config: HeadConfig) -> None:
    """Raises UserError for maps [h, w, K] that are too small for the convolutions."""
    sides = len(config.filters) * (config.kernel - 1)
    if min(shape[:2]) <= sides:
        raise UserError(
            f"maps of {shape[0]}×{shape[1]}: {len(config.filters)} convolutions of {config.kernel}×{config.kernel} "
            f"need at least {sides + 1}; use a larger --enlarge or a smaller --map_pool"
        )


@keras.saving.register_keras_serializable("triptych")
class MapDropout(Dropout):
    """Dropout with eight random bits for each value: for large inputs, drawing takes most of the time.

    The rate is rounded to a multiple of 1/256; kept values are divided by the share of kept values.
    """

    def call(self, inputs: Any, training: bool = False) -> Any:
        dropped = round(256 * self.rate)
        if not training or not dropped:
            return inputs
        kept = kept_in_256(ops.shape(inputs), dropped, self.seed_generator)
        return ops.where(kept, inputs * (256 / (256 - dropped)), ops.zeros((), inputs.dtype))


def build_head(
    shape: tuple[int, ...], outputs: int, config: HeadConfig, statistics: MapStatistics | None = None
) -> keras.Model:
    """Maps [B, h, w, K] → outputs [B, C], and with a decoder the reconstructed maps [B, h, w, K].

    The outputs are logits of the classes, or one quantity. The "auto-encoder" of the table: valid convolutions, each
    with ReLU, then batch norm, then dropout; an adaptive average pool; dense layers. Layers of the encoder are named
    ``encoder…``.

    Args:
        shape: [h, w, K].
        outputs: C.
        config: the head's shape.
        statistics: of the maps, which ``map_norm`` needs.

    Raises:
        UserError: the maps are too small for the convolutions.
    """
    check_maps(shape, config)
    x = maps = keras.Input(shape)
    if config.map_norm:
        if statistics is None:
            raise ValueError("map_norm without the maps' statistics")
        variance = np.square(np.maximum(statistics.deviation, 1e-3))
        x = layers.Normalization(mean=statistics.mean, variance=variance, name="map_norm")(x)
    if config.map_dropout:
        x = MapDropout(config.map_dropout, seed=200, name="map_dropout")(x)
    for place, filters in enumerate(config.filters):
        x = layers.Conv2D(
            filters, config.kernel, activation="relu", kernel_initializer=FanAverage(), name=f"encoder_conv{place}"
        )(x)
        x = _batch_norm(f"encoder_norm{place}", epsilon=1e-5)(x)
        x = Dropout(config.dropout, seed=place, name=f"encoder_dropout{place}")(x)
    results = [_dense(AdaptiveAveragePool(config.pooled)(x) if config.pooled else x, outputs, config)]
    if config.reconstruction:
        results.append(_decoded(x, shape[-1], config))
    return keras.Model(maps, results)


def _batch_norm(name: str, **options: Any) -> layers.Layer:
    """Batch norm over all replicas' parts of a batch, if the backend has replicas.

    Its averages are float32 in any precision: in bfloat16, small updates would be lost to rounding.
    """
    dtype = "mixed_bfloat16" if keras.config.dtype_policy().name == "bfloat16" else None
    return layers.BatchNormalization(momentum=0.9, synchronized=SYNCHRONIZED, name=name, dtype=dtype, **options)


def _dense(x: Any, outputs: int, config: HeadConfig) -> Any:
    x = layers.Flatten()(x)
    for place, width in enumerate(config.dense):
        x = layers.Dense(width, activation="relu", kernel_initializer=FanAverage(), name=f"dense{place}")(x)
        x = Dropout(config.dense_dropout, seed=100 + place, name=f"dense_dropout{place}")(x)
    start = FanAverage() if config.dense else "zeros"  # without hidden layers inputs are many: random logits are large
    return layers.Dense(outputs, kernel_initializer=start, name="logits", dtype="float32")(x)


def _decoded(x: Any, channels: int, config: HeadConfig) -> Any:
    """The encoder mirrored: transposed convolutions back to the maps."""
    for place, filters in enumerate((*config.filters[-2::-1], channels)):
        last = place == len(config.filters) - 1
        activation = None if last else "relu"
        x = layers.Conv2DTranspose(
            filters, config.kernel, activation=activation, kernel_initializer=FanAverage(), name=f"encoder_up{place}"
        )(x)
    return x


def make_loss_fn(
    head: keras.Model, maps_of: Callable[[Any], Any], config: HeadConfig, objective: Objective = classification
) -> Callable:
    """The joint loss, (batch, training, place) → values [B]: the objective, and the weighted reconstruction error.

    Of a ``MixedBatch``, the objective's loss is the mean of the losses by either label, weighted by their shares.
    """

    def loss_fn(batch: Any, training: bool, place: Place | None) -> dict[str, Any]:
        maps = maps_of(batch.x)
        outputs = keras.tree.flatten(seeded_call(head, maps, training, place))
        values = objective(outputs[0], batch.label)
        if isinstance(batch, MixedBatch):
            other = objective(outputs[0], batch.other)["loss"]
            values["loss"] = batch.share * values["loss"] + (1.0 - batch.share) * other
        if training:
            values.pop("answer", None)  # its mean would be logged
        if config.reconstruction:
            error = ops.mean(ops.square(ops.cast(outputs[1], "float32") - maps), axis=(1, 2, 3))
            values |= {"reconstruction": error, "loss": values["loss"] + config.reconstruction * error}
        return values

    return loss_fn


class FineTuned(keras.Model):
    """An extractor that learns and the head on its maps, as one model: images [B, H, W] → the head's outputs."""

    def __init__(self, extractor: keras.Model, maps_of: Callable[[Any], Any], head: keras.Model) -> None:
        """``maps_of``: images → maps of ``extractor``."""
        super().__init__()
        self.extractor, self.head, self._maps_of = extractor, head, maps_of
        self.built = True

    def call(self, images: Any, training: bool = False) -> Any:
        return self.head(self._maps_of(images), training=training)


def is_encoder(variable: keras.Variable) -> bool:
    """Whether a variable learns at the encoder's rate."""
    return variable.path.startswith("encoder")


def rate_factor(rates: Rates, extractor: keras.Model) -> RateOf:
    """Variable → its learning rate, as a multiple of the dense layers'."""
    learning = {id(variable) for variable in extractor.trainable_variables}

    def factor(variable: keras.Variable) -> float:
        if id(variable) in learning:
            return rates.extractor / rates.dense
        return rates.encoder / rates.dense if is_encoder(variable) else 1.0

    return factor
