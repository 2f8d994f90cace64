"""The divergence of t-SNE over all pairs in ``keras.ops``, for accelerators. ``D`` points."""

from typing import Any

import numpy as np
from keras import ops
from scipy.sparse import csr_matrix

from vision_bridge.layouts.tsne import Compiled, Objective, Value, uncompiled


def exact(joint: csr_matrix, compiled: Compiled = uncompiled) -> Objective:
    """The objective of ``descend`` for these affinities.

    Args:
        joint: of all pairs, or of the nearest.
        compiled: turns a function of tensors into a compiled one.
    """
    p = ops.convert_to_tensor(joint.toarray())
    count = joint.shape[0]
    ones = ops.ones((count, 1), "float32")

    def both(y: Any, p: Any) -> tuple[Any, Any]:
        y = y - ops.mean(y, axis=0)
        square = ops.sum(ops.square(y), axis=1, keepdims=True)
        left, right = ops.concatenate([-2 * y, ones, square + 1], 1), ops.concatenate([y, square, ones], 1)
        inverse = ops.maximum(ops.matmul(left, ops.transpose(right)), 1)  # [D, D]: 1 + |y_i − y_j|²
        w = 1 / inverse
        table = ops.concatenate([ones, y], axis=1)  # [D, 3]
        near, far = ops.matmul(p * w, table), ops.matmul(w * w, table)  # the sums without the normaliser
        total = ops.sum(w) - count
        pull = near[:, :1] * y - near[:, 1:]
        push = far[:, :1] * y - far[:, 1:]
        return ops.sum(p * ops.log(inverse)) + ops.log(total), 4 * (pull - push / total)

    run = compiled(both)

    def objective(points: np.ndarray) -> Value:
        value, gradient = run(ops.convert_to_tensor(points.astype(np.float32)), p)
        return Value(float(value), np.asarray(ops.convert_to_numpy(gradient), np.float64))

    return objective
