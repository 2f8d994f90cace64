"""Per-example losses and metrics, and the seeded call of a model.

Shapes: ``B`` batch, ``K`` classes.
"""

from typing import Any

import keras
from keras import ops

from training.draws import Place, drawing_at
from training.randomness import is_seed_state


def classification(
    logits: Any, labels: Any, label_smoothing: float = 0.0, class_weights: Any | None = None
) -> dict[str, Any]:
    """Cross-entropy and accuracy, one number per example.

    Args:
        logits: [B, K].
        labels: [B] integers in 0 … K−1.
        label_smoothing: ε; the target is 1−ε on the label plus ε/K on every class (Szegedy et al. 2016).
        class_weights: [K] factors of the loss by label, or None for 1.

    Returns:
        ``loss`` and ``accuracy``, each [B] float32.
    """
    log_p = ops.log_softmax(ops.cast(logits, "float32"))  # [B, K]
    one_hot = ops.one_hot(labels, ops.shape(logits)[-1], dtype="float32")
    target = (1.0 - label_smoothing) * one_hot + label_smoothing / logits.shape[-1]
    loss = -ops.sum(target * log_p, axis=-1)  # [B]
    if class_weights is not None:
        loss = loss * ops.take(ops.convert_to_tensor(class_weights, "float32"), labels)
    right = ops.equal(ops.argmax(logits, axis=-1), ops.cast(labels, "int32"))
    return {"loss": loss, "accuracy": ops.cast(right, "float32")}


def multi_label_classification(
    logits: Any, labels: Any, label_smoothing: float = 0.0, positive_weights: Any | None = None
) -> dict[str, Any]:
    """Binary cross-entropy of every class, averaged over the classes, and subset accuracy, one number per example.

    loss = 1/K · Σ_k −w_k · t_k · log σ(x_k) − (1 − t_k) · log(1 − σ(x_k)),  t = (1 − ε) · y + ε/2

    Args:
        logits: x [B, K].
        labels: y [B, K] of 0 and 1.
        label_smoothing: ε.
        positive_weights: w [K], factors of the positive term, or None for 1.

    Returns:
        ``loss`` and ``subset_accuracy`` (whether every class is right at probability .5), each [B] float32.
    """
    x, y = ops.cast(logits, "float32"), ops.cast(labels, "float32")
    target = (1.0 - label_smoothing) * y + 0.5 * label_smoothing
    positive, negative = target * ops.softplus(-x), (1.0 - target) * ops.softplus(x)  # −log σ(x), −log(1 − σ(x))
    if positive_weights is not None:
        positive = positive * ops.convert_to_tensor(positive_weights, "float32")
    right = ops.all(ops.equal(x >= 0.0, y > 0.5), axis=-1)
    return {"loss": ops.mean(positive + negative, axis=-1), "subset_accuracy": ops.cast(right, "float32")}


def seeded_call(model: keras.Model, inputs: Any, training: bool, place: Place | None) -> Any:
    """Calls ``model`` with its randomness a pure function of ``place``.

    Our layers draw by row of the batch (``training.draws``). Seed generators of other layers read (seed + their place
    in the model, a number of step and row) instead of their own state. So a step draws the same numbers whether or
    not the run was interrupted before it. Updates of other state (batch-norm statistics) are applied as usual.

    Args:
        place: where in the run the call is; None in evaluation.
    """
    if not training:
        return model(inputs, training=False)
    assert place is not None
    generators = [v for v in model.non_trainable_variables if is_seed_state(v.path)]
    count = place.step * 65536 + place.row
    mapping = [(state, _pair(place.seed + number, count, state.dtype)) for number, state in enumerate(generators)]
    with drawing_at(place), _InnerScope(mapping) as scope:
        outputs = model(inputs, training=True)
    seeds = {id(v) for v in generators}
    for variable in model.non_trainable_variables:
        value = scope.state_mapping.get(id(variable))
        if value is not None and id(variable) not in seeds:
            variable.assign(value)
    return outputs


class _InnerScope(keras.StatelessScope):
    """A stateless scope in which variables have the values of the scope around it, if there is one.

    In Keras' own they would have those that they hold themselves, and gradients of the outer values would be zero.
    """

    def get_current_value(self, variable: keras.Variable) -> Any:
        value = super().get_current_value(variable)
        if value is None and self.original_scope is not None:
            value = self.original_scope.get_current_value(variable)
        return value


def _pair(first: Any, second: Any, dtype: str) -> Any:
    return ops.stack([ops.cast(number, dtype) for number in (first, second)])
