"""A classifier with its text path as one TensorFlow graph: written as a SavedModel, read back, and as ONNX.

``N`` texts of ``F`` fields, ``T`` tokens, ``K`` classes.
"""

import contextlib
import errno
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from files.errors import UserError
from text_cls.graph.text import TextGraph, check_expressible
from text_cls.layers.ensemble import mean_logits
from text_cls.tokens.vocabulary import PAD_ID

__all__ = ["Classifier", "TextGraph", "check_expressible"]  # and the functions below

_ROWS = 64  # texts that are computed at a time, so that memory does not grow with their number
OPSET = 17  # of ONNX; runtimes since 2022 support it

Tensors = dict[str, Any]


class Classifier(tf.Module):
    """The exported classifier: strings → answers.

    A text without words has no answer: its probabilities and its confidence are 0, its label is -1, its class "".

    Args:
        text: strings → token ids, with scores if there is a linear path.
        model: token ids [N, T] → logits [N, K], to which the scores are added.
        classes: K names.
        thresholds: [K] with several labels a text: a class is predicted if its probability reaches its threshold; None
            otherwise.
        fields: number of fields of a text: 1, 2, or 0 for any number.
        temperature: divides the logits.
    """

    def __init__(
        self,
        text: TextGraph,
        model: keras.Model,
        classes: Sequence[str],
        thresholds: np.ndarray | None,
        fields: int,
        temperature: float,
    ) -> None:
        super().__init__()
        self.text, self.names, self.thresholds = text, list(classes), thresholds
        self.network = network(model, thresholds is not None, temperature)
        self.weights = [variable.value for variable in model.variables]
        texts = tf.TensorSpec([None, fields or None], tf.string, name="texts")
        strings = tf.TensorSpec([None], tf.string, name="texts")
        self.ids = _function(text, texts)  # traced once
        of_fields = {"": _function(self._answer, texts), "encode": _function(self._encode, texts)}
        functions = {"serving_default": of_fields[""], "encode": of_fields["encode"]}
        if fields != 2:
            functions = {
                "serving_default": _function(lambda texts: of_fields[""](texts[:, None]), strings),
                "encode": _function(lambda texts: of_fields["encode"](texts[:, None]), strings),
            }
        if not fields:
            functions |= {"fields": of_fields[""], "encode_fields": of_fields["encode"]}
        self.functions = functions

    @property
    def signatures(self) -> Tensors:
        """The functions by name, for a SavedModel."""
        return {name: function.get_concrete_function() for name, function in self.functions.items()}

    def _answer(self, texts: Any) -> Tensors:
        """Answers of any number of texts, ``_ROWS`` texts of similar lengths at a time."""
        order = tf.argsort(tf.reduce_sum(tf.strings.length(texts), axis=1))
        parts = (tf.size(order) + _ROWS - 1) // _ROWS
        found = tf.TensorArray(tf.float32, parts, element_shape=[None, len(self.names)], infer_shape=False)
        words = tf.TensorArray(tf.bool, parts, element_shape=[None], infer_shape=False)

        def step(number: Any, found: Any, words: Any) -> tuple[Any, Any, Any]:
            ids = self.ids(tf.gather(texts, order[number * _ROWS : (number + 1) * _ROWS]))
            probabilities = self.network(ids.tokens.to_tensor(PAD_ID), ids.scores)
            return number + 1, found.write(number, probabilities), words.write(number, ids.has_words)

        _, found, words = tf.while_loop(
            lambda number, *_: number < parts, step, (0, found, words), parallel_iterations=1
        )
        back = tf.argsort(order)
        has_words = tf.gather(words.concat(), back)
        probabilities = tf.where(has_words[:, None], tf.gather(found.concat(), back), 0.0)
        return {"probabilities": probabilities, "has_words": has_words} | self._classes(probabilities, has_words)

    def _encode(self, texts: Any) -> Tensors:
        """The inputs of ``network.onnx``, token ids [N, T], padded with 0, and scores; and whether there are words."""
        ids = self.ids(texts)
        found = {"tokens": ids.tokens.to_tensor(PAD_ID), "has_words": ids.has_words}
        return found if ids.scores is None else found | {"scores": ids.scores}

    def _classes(self, probabilities: Any, has_words: Any) -> Tensors:
        """The predicted classes for probabilities [N, K]."""
        if self.thresholds is not None:
            reached = tf.cast(probabilities, tf.float64) >= tf.constant(self.thresholds, tf.float64)
            return {"predicted": reached & has_words[:, None]}
        confidence = tf.reduce_max(probabilities, axis=1)
        label = tf.where(has_words, tf.argmax(probabilities, axis=1, output_type=tf.int32), -1)
        names = tf.constant([name.encode("utf-8", "replace") for name in (*self.names, "")])
        name = tf.gather(names, tf.where(has_words, label, len(self.names)))
        return {"label": label, "class": name, "confidence": confidence}


def _function(function: Callable[[Any], Any], texts: Any) -> Any:
    return tf.function(function, autograph=False, input_signature=[texts])


def network(model: keras.Model, multi_label: bool, temperature: float) -> Callable[..., Any]:
    """Token ids [N, T] int32, and scores [N, K] or None → probabilities [N, K], of (logits + scores) / temperature."""
    activation = tf.sigmoid if multi_label else tf.nn.softmax

    def probabilities(tokens: Any, scores: Any = None) -> Any:
        logits = mean_logits(model(tokens, training=False))
        return activation((logits if scores is None else logits + scores) / temperature)

    return probabilities


def write_saved_model(classifier: Classifier, folder: Path) -> None:
    """Writes a SavedModel into a folder; raises OSError if it cannot be written."""
    try:
        with _quiet():
            tf.saved_model.save(classifier, str(folder), signatures=classifier.signatures)
    except tf.errors.OpError as error:
        full = isinstance(error, tf.errors.ResourceExhaustedError) or "No space" in str(error)
        raise OSError(errno.ENOSPC if full else errno.EIO, str(error).splitlines()[0][:200], str(folder)) from error


def read_saved_model(folder: Path) -> dict[str, Callable[[Sequence[Any]], dict[str, np.ndarray]]]:
    """The functions of a SavedModel, by name: texts → arrays; a text is a string, or a list of fields."""
    loaded = tf.saved_model.load(str(folder))

    def calling(function: Any) -> Callable[[Sequence[Any]], dict[str, np.ndarray]]:
        def call(texts: Sequence[Any]) -> dict[str, np.ndarray]:
            return {name: value.numpy() for name, value in function(texts=tf.constant(texts, tf.string)).items()}

        call.loaded = loaded  # type: ignore[attr-defined]  # keeps the model's tables alive
        return call

    return {name: calling(function) for name, function in loaded.signatures.items()}


def write_onnx(
    model: keras.Model, multi_label: bool, temperature: float, path: Path, with_scores: bool = False
) -> None:
    """Writes the network as ONNX: token ids, and scores if there is a linear path → probabilities.

    Raises:
        UserError: the libraries are not installed.
    """
    convert = onnx_libraries()[0].convert
    given = [tf.TensorSpec([None, None], tf.int32, name="tokens")]
    if with_scores:
        given.append(tf.TensorSpec([None, model.output_shape[-1]], tf.float32, name="scores"))
    probabilities_of = network(model, multi_label, temperature)
    function = tf.function(
        lambda *given: {"probabilities": probabilities_of(*given)}, autograph=False, input_signature=given
    )
    with _quiet():
        convert.from_function(
            function,
            input_signature=given,
            opset=OPSET,
            output_path=str(path),
            custom_op_handlers={"Erfc": (_erfc, [])},
        )


def _erfc(context: Any, node: Any, name: str, args: Any) -> None:
    """Writes erfc as 1 - erf, because ONNX has no erfc."""
    del name, args
    shape, kind = context.get_shape(node.output[0]), context.get_dtype(node.output[0])
    inputs, outputs = node.input[:], node.output[:]
    context.remove_node(node.name)
    erf = context.make_node("Erf", inputs, shapes=[shape], dtypes=[kind])
    one = context.make_const(f"{node.name}_one", np.array(1.0, np.float32))
    context.make_node("Sub", [one.output[0], erf.output[0]], outputs=outputs, shapes=[shape], dtypes=[kind])


def onnx_libraries() -> tuple[Any, Any]:
    """``tf2onnx``, which writes ONNX, and ``onnxruntime``, which reads it.

    Raises:
        UserError: one of them is not installed.
    """
    try:
        import onnxruntime
        import tf2onnx
    except ImportError as error:
        raise UserError(
            f"--onnx=true needs tf2onnx and onnxruntime, and {error.name} is not installed: pip install tf2onnx "
            "onnxruntime, or leave the ONNX file out with --onnx=false"
        ) from error
    return tf2onnx, onnxruntime


def read_onnx(path: Path) -> Callable[..., np.ndarray]:
    """Token ids [N, T], and scores [N, K] or None → probabilities [N, K], computed by onnxruntime."""
    session = onnx_libraries()[1].InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def probabilities(tokens: np.ndarray, scores: np.ndarray | None = None) -> np.ndarray:
        given = {"tokens": tokens} if scores is None else {"tokens": tokens, "scores": scores}
        return session.run(["probabilities"], given)[0]

    return probabilities


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Inside, TensorFlow and tf2onnx log only errors."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
