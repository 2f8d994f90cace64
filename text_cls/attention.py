"""Scaled dot-product attention in two forms, and the one place that chooses (Eq. 1, Vaswani et al. 2017).

``explicit`` is product, softmax, product: TensorFlow fuses it on CPUs, and dropout of the weights needs the weights.
``fused`` is Keras' operation, which on NVIDIA GPUs under JAX can be cuDNN's flash attention: the [B, H, Q, T] weights
are never in memory. Both give the same numbers up to rounding (``tests/test_attention.py``).

Shapes: ``B`` batch, ``H`` heads, ``Q`` tokens that ask, ``T`` tokens that are asked, ``d`` width of a head.
"""

from typing import Any

import keras
from keras import ops

from training.dropout import Dropout

# What cuDNN takes: ``check_is_flash_attention`` and ``check_layout`` in jax/_src/cudnn/fused_attention_stablehlo.py.
FLASH_DTYPES = ("bfloat16", "float16")
DEPTH_STEP, MAX_DEPTH = 8, 128  # Hopper takes 256; no published encoder that we read is deeper than 128


def attention(q: Any, k: Any, v: Any, bias: Any, drop: Dropout, training: bool = False) -> Any:
    """One round of attention in the form that suits backend, device and call.

    Args:
        q: [B, H, Q, d].
        k: [B, H, T, d], as is ``v``.
        v: see ``k``.
        bias: [B, 1, 1, T], 0 for a token that may be seen, a large negative number for padding, and nothing else; or
            with scores of pairs of tokens added, [B, H, Q, T], for which there is one form.
        drop: drops weights where ``training``.
        training: whether it does.

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

    TensorFlow has none; its form of Keras' operation is the explicit one with transpositions. Keras asks JAX's first
    device alone, and would hand cuDNN's call to a CPU where ``--devices=cpu`` or ``keras.device`` makes it the default.
    """
    if keras.backend.backend() != "jax" or keras.config.is_flash_attention_enabled() is False:
        return False
    import jax

    settings: Any = jax.config  # its attributes are made when it is imported
    default = settings.jax_default_device  # a device, the name of a platform, or None
    device = jax.devices(default)[0] if default is None or isinstance(default, str) else default
    return jax.devices()[0].platform == device.platform == "gpu"


def flash_fits(q: Any, k: Any, training: bool) -> bool:
    """Whether cuDNN takes such q and k, both ways. Where it does not, Keras' operation gains nothing, or fails.

    * All tokens ask: the scores of [CLS] alone are small, and cuDNN's gradient for one query is not always a number
      (github.com/NVIDIA/cudnn-frontend/issues/1072).
    * The length is even: with a mask the gradient of odd ones is refused, and only when the model is differentiated.
    * In training the length is none of 64, 192, 320 …: with a mask cuDNN's gradient of q there is not a number where
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

    The padding becomes a mask of every pair of tokens: JAX hands cuDNN masks and biases of that shape only (Keras falls
    back from others with a logged traceback, github.com/jax-ml/jax/issues/28974), and it can leave out the gradient
    of a mask, which it computes for a bias (github.com/jax-ml/jax/pull/39512).
    """
    q, k, v = (ops.transpose(x, (0, 2, 1, 3)) for x in (q, k, v))  # [B, Q, H, d], twice [B, T, H, d]
    pairs = (ops.shape(q)[0], 1, ops.shape(q)[1], ops.shape(k)[1])
    return ops.dot_product_attention(q, k, v, mask=ops.broadcast_to(ops.equal(bias, 0), pairs))
