"""Per-example losses and metrics, and the seeded call of a model.

Shapes: ``B`` batch, ``K`` classes.
"""

from typing import Any

import keras
from keras import ops


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


def seeded_call(model: keras.Model, inputs: Any, training: bool, seed: Any) -> Any:
    """Calls ``model`` with its randomness a pure function of ``seed``.

    Every seed generator of the model (one a Dropout layer) reads (seed₀ + its place, seed₁·256) instead of its own
    state, so that a step draws the same numbers whether or not the run was interrupted before it. Updates of other
    state (batch-norm statistics) are applied as usual.

    Args:
        seed: [2] integers.
    """
    if not training:
        return model(inputs, training=False)
    generators = [v for v in model.non_trainable_variables if v.path.endswith("seed_generator_state")]
    mapping = []
    for place, state in enumerate(generators):
        mapping.append((state, ops.stack([seed[0] + place, seed[1] * 256])))
    with keras.StatelessScope(state_mapping=mapping) as scope:
        outputs = model(inputs, training=True)
    seeds = {id(v) for v in generators}
    for variable in model.non_trainable_variables:
        value = scope.get_current_value(variable)
        if value is not None and id(variable) not in seeds:
            variable.assign(value)
    return outputs
