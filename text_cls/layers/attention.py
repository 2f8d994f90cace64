"""Scaled dot-product attention in two forms, and the choice between them (Eq. 1, Vaswani et al. 2017).

``explicit`` is product, softmax, product: TensorFlow fuses it on CPUs, and dropout of the weights needs the weights.
``fused`` is Keras' operation, which under JAX on NVIDIA GPUs can be cuDNN's flash attention: the weights [B, H, Q, T]
are never stored. Both give the same numbers up to rounding (``tests/test_attention.py``).

Shapes: ``B`` batch, ``H`` heads, ``Q`` queries, ``T`` keys, ``d`` width of a head.
"""

from typing import Any

import keras
from keras import ops

from training.dropout import Dropout

# cuDNN's limits: ``check_is_flash_attention`` and ``check_layout`` in jax/_src/cudnn/fused_attention_stablehlo.py.
FLASH_DTYPES = ("bfloat16", "float16")
DEPTH_STEP, MAX_DEPTH = 8, 128  # of d; Hopper GPUs allow 256, but no encoder that we read has more than 128


def attention(q: Any, k: Any, v: Any, bias: Any, drop: Dropout, training: bool = False) -> Any:
    """Attention in the form that suits backend, device and arguments.

    Args:
        q: [B, H, Q, d].
        k, v: [B, H, T, d].
        bias: [B, 1, 1, T], 0 for a token and a large negative number for padding; or [B, H, Q, T], with scores for
            pairs of tokens added, which only ``explicit`` can compute.
        drop: dropout of the weights, used if ``training``.
        training: whether the model is being trained.

    Returns:
        [B, Q, H, d].
    """
    dropped = training and drop.rate > 0
    padding_alone = tuple(bias.shape[1:3]) == (1, 1)
    if padding_alone and not dropped and flash_device() and flash_fits(q, k, training):
        return fused(q, k, v, bias)
    return explicit(q, k, v, bias, drop, training)


def flash_device() -> bool:
    """Whether Keras may use flash attention here: JAX computes on a GPU, and Keras' own switch is not off.

    TensorFlow has no flash attention: there Keras' operation is the explicit form with transpositions. Keras looks only
    at JAX's first device, and would call cuDNN on a CPU if ``--devices=cpu`` or ``keras.device`` makes it the default.
    """
    if keras.backend.backend() != "jax" or keras.config.is_flash_attention_enabled() is False:
        return False
    import jax

    settings: Any = jax.config  # typed Any because JAX creates its attributes at import
    default = settings.jax_default_device  # a device, the name of a platform, or None
    device = jax.devices(default)[0] if default is None or isinstance(default, str) else default
    return jax.devices()[0].platform == device.platform == "gpu"


def flash_fits(q: Any, k: Any, training: bool) -> bool:
    """Whether cuDNN can compute attention of such q and k, and its gradient. Otherwise Keras' operation is not faster,
    or fails. The conditions:

    * All tokens are queries: with [CLS] as the only query the scores are small, and cuDNN's gradient for one query is
      sometimes NaN (github.com/NVIDIA/cudnn-frontend/issues/1072).
    * The length is even: with a mask cuDNN refuses the gradient for odd lengths, and only at differentiation.
    * In training the length is none of 64, 192, 320 …: with a mask cuDNN's gradient of q is NaN for these lengths if
      all scores of a token are below -88 (github.com/pytorch/pytorch/issues/196678).
    """
    if tuple(q.shape) != tuple(k.shape) or not all(isinstance(size, int) for size in q.shape):
        return False
    length, depth = q.shape[2:]
    if keras.backend.standardize_dtype(q.dtype) not in FLASH_DTYPES or depth % DEPTH_STEP or depth > MAX_DEPTH:
        return False
    return length % 2 == 0 and not (training and length % 128 == 64)


def explicit(q: Any, k: Any, v: Any, bias: Any, drop: Dropout, training: bool = False) -> Any:
    """Weights, their dropout, and their product with ``v``; see ``attention``."""
    scores = ops.matmul(q * q.shape[-1] ** -0.5, ops.swapaxes(k, 2, 3))  # [B, H, Q, T]
    wide = keras.backend.result_type(scores.dtype, "float32")
    weights = ops.softmax(ops.cast(scores, wide) + ops.cast(bias, wide))
    weights = drop(ops.cast(weights, v.dtype), training=training)
    return ops.transpose(ops.matmul(weights, v), (0, 2, 1, 3))


def fused(q: Any, k: Any, v: Any, bias: Any) -> Any:
    """Keras' operation, without dropout of the weights; see ``attention``.

    The padding becomes a mask [B, 1, Q, T], because JAX gives cuDNN only masks and biases of that shape (for others
    Keras falls back with a logged traceback, github.com/jax-ml/jax/issues/28974). A mask is faster than a bias, for
    which JAX computes a gradient too (github.com/jax-ml/jax/pull/39512).
    """
    q, k, v = (ops.transpose(x, (0, 2, 1, 3)) for x in (q, k, v))  # [B, Q, H, d], twice [B, T, H, d]
    pairs = (ops.shape(q)[0], 1, ops.shape(q)[1], ops.shape(k)[1])
    return ops.dot_product_attention(q, k, v, mask=ops.broadcast_to(ops.equal(bias, 0), pairs))
