"""Per-example losses and metrics, and the seeded call of a model.

Shapes: ``B`` batch, ``K`` classes.
"""

from typing import Any

import keras
from keras import ops

from training.draws import Place, drawing_at
from training.randomness import is_seed_state


def classification(
    logits: Any,
    labels: Any,
    label_smoothing: float = 0.0,
    class_weights: Any | None = None,
    focal_gamma: float = 0.0,
    adjustment: Any | None = None,
) -> dict[str, Any]:
    """Cross-entropy and accuracy, one number per example.

    loss = w_y · Σ_k −t_k · (1 − p_k)^γ · log p_k,  t = (1 − ε) · onehot(y) + ε/K,  p = softmax(x + a)

    With ε = 0 this is the focal loss of Lin et al. 2017 (Eq. 5), where w is their α. With ε > 0 every term is scaled by
    the probability of its own class, as in Keras' ``CategoricalFocalCrossentropy``.

    Args:
        logits: x [B, K].
        labels: y [B] integers in 0 … K−1.
        label_smoothing: ε; the target is 1−ε on the label plus ε/K on every class (Szegedy et al. 2016).
        class_weights: w [K], factors of the loss by label, or None for 1.
        focal_gamma: γ; 0 is the cross-entropy.
        adjustment: a [K], added to the logits in the loss only, or None for 0 (Menon et al. 2021, Eq. 10).

    Returns:
        ``loss``, and ``accuracy`` by the logits without the adjustment, each [B] float32.
    """
    x = ops.cast(logits, "float32")
    adjusted = x if adjustment is None else x + ops.convert_to_tensor(adjustment, "float32")
    log_p = ops.log_softmax(adjusted)  # [B, K]
    one_hot = ops.one_hot(labels, ops.shape(logits)[-1], dtype="float32")
    target = (1.0 - label_smoothing) * one_hot + label_smoothing / logits.shape[-1]
    if focal_gamma:
        target = target * ops.exp(focal_gamma * _log_of_others(adjusted, log_p))
    loss = -ops.sum(target * log_p, axis=-1)  # [B]
    if class_weights is not None:
        loss = loss * ops.take(ops.convert_to_tensor(class_weights, "float32"), labels)
    right = ops.equal(ops.argmax(logits, axis=-1), ops.cast(labels, "int32"))
    return {"loss": loss, "accuracy": ops.cast(right, "float32")}


def _log_of_others(logits: Any, log_p: Any) -> Any:
    """[B, K] log(1 − p_k), exact and with a finite gradient even if p_k is 0 or 1 in float32.

    For the likeliest class, 1 − p is the sum over the other classes; for every other class, p is at most 1/2.
    """
    likeliest = ops.one_hot(ops.argmax(logits, axis=-1), logits.shape[-1], dtype="float32") > 0.0
    others = ops.logsumexp(ops.where(likeliest, -1e30, logits), axis=-1, keepdims=True)  # [B, 1]
    p = ops.where(likeliest, 0.0, ops.exp(log_p))
    return ops.where(likeliest, others - ops.logsumexp(logits, axis=-1, keepdims=True), ops.log1p(-p))


def multi_label_classification(
    logits: Any,
    labels: Any,
    label_smoothing: float = 0.0,
    positive_weights: Any | None = None,
    focal_gamma: float = 0.0,
) -> dict[str, Any]:
    """Binary cross-entropy of every class, averaged over the classes, and subset accuracy, one number per example.

    loss = 1/K · Σ_k −w_k · t_k · (1 − p_k)^γ · log p_k − (1 − t_k) · p_k^γ · log(1 − p_k),
    t = (1 − ε) · y + ε/2,  p = σ(x)

    With ε = 0 this is the focal loss of Lin et al. 2017 (Eq. 5), where w is α on positives and 1 on negatives.

    Args:
        logits: x [B, K].
        labels: y [B, K] of 0 and 1.
        label_smoothing: ε.
        positive_weights: w [K], factors of the positive term, or None for 1.
        focal_gamma: γ; 0 is the cross-entropy.

    Returns:
        ``loss`` and ``subset_accuracy`` (whether every class is right at probability .5), each [B] float32.
    """
    x, y = ops.cast(logits, "float32"), ops.cast(labels, "float32")
    target = (1.0 - label_smoothing) * y + 0.5 * label_smoothing
    no, yes = ops.softplus(-x), ops.softplus(x)  # −log p, −log(1 − p)
    positive, negative = target * no, (1.0 - target) * yes
    if positive_weights is not None:
        positive = positive * ops.convert_to_tensor(positive_weights, "float32")
    if focal_gamma:
        positive, negative = positive * ops.exp(-focal_gamma * yes), negative * ops.exp(-focal_gamma * no)
    right = ops.all(ops.equal(x >= 0.0, y > 0.5), axis=-1)
    return {"loss": ops.mean(positive + negative, axis=-1), "subset_accuracy": ops.cast(right, "float32")}


def seeded_call(model: keras.Model, inputs: Any, training: bool, place: Place | None) -> Any:
    """Calls ``model``; all its random numbers are a pure function of ``place``.

    Our layers draw by row of the batch (``training.draws``). Seed generators of other layers read (seed + their number
    in the model, a number made of step and row) instead of their own state. So an interruption before a step does not
    change the numbers it draws. Updates of other state (batch-norm statistics) are applied as usual.

    Args:
        place: position of the call in the run; None in evaluation.
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
    """A stateless scope in which variables have the values of the outer scope, if there is one.

    In Keras' own nested scope they have their stored values, and gradients of the outer values would be zero.
    """

    def get_current_value(self, variable: keras.Variable) -> Any:
        value = super().get_current_value(variable)
        if value is None and self.original_scope is not None:
            value = self.original_scope.get_current_value(variable)
        return value


def _pair(first: Any, second: Any, dtype: str) -> Any:
    return ops.stack([ops.cast(number, dtype) for number in (first, second)])
