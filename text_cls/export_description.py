"""The content of ``export.json`` of an exported classifier.

``N`` texts, ``T`` tokens, ``K`` classes.
"""

from importlib import metadata
from pathlib import Path
from typing import Any

from text_cls.encoders.published_classifier import UNTOLD
from text_cls.export_config import ExportConfig
from text_cls.predictor import Predictor
from training.run import version

NOTE, ONNX = "export.json", "network.onnx"


def number_of_fields(predictor: Predictor) -> int:
    """The number of fields of a text; 0 for any number."""
    return {"pair": 2, UNTOLD: 1}.get(predictor.join_fields, 0)


def describe(config: ExportConfig, run_dir: Path, predictor: Predictor) -> dict[str, Any]:
    """The description of the folder for its users."""
    several = predictor.thresholds is not None
    about: dict[str, Any] = {
        "format": "TensorFlow SavedModel of a text classifier",
        "run": str(run_dir),
        "classes": list(predictor.classes),
        "thresholds": predictor.thresholds.tolist() if predictor.thresholds is not None else None,
        "temperature": predictor.temperature,
        "max_length": predictor.tokeniser.max_length,
        "join_fields": predictor.join_fields,
        "precision_of_training": predictor.precision,
        "signatures": _signatures(number_of_fields(predictor), several, predictor.linear is not None),
    }
    if config.onnx:
        inputs = {"tokens": "[N, T] int32"} | ({"scores": "[N, K] float32"} if predictor.linear is not None else {})
        about[ONNX] = {"inputs": inputs, "outputs": {"probabilities": "[N, K] float32"}}
    libraries = ["tensorflow", "keras", "numpy", *(["tf2onnx", "onnxruntime"] if config.onnx else [])]
    return about | {"versions": {"triptych": version(), **{name: metadata.version(name) for name in libraries}}}


def _signatures(fields: int, several_labels: bool, with_scores: bool = False) -> dict[str, Any]:
    """Inputs and outputs, by the name of a signature."""
    outputs = {
        "probabilities": "[N, K] float32, in the order of classes; 0 for a text without words",
        "has_words": "[N] bool: false for a text that is empty once cleaned, which has no answer",
    }
    ids = {"tokens": "[N, T] int32 token ids, padded with 0", "has_words": outputs["has_words"]}
    if with_scores:
        ids["scores"] = f"[N, K] float32 of the linear path, which {ONNX} takes beside the tokens"
    if several_labels:
        outputs["predicted"] = "[N, K] bool: the probability reaches the class's threshold"
    else:
        outputs["label"] = "[N] int32, number of the likeliest class; -1 without words"
        outputs["class"] = "[N] string, its name; empty without words"
        outputs["confidence"] = "[N] float32, its probability"
    texts = "strings in UTF-8, [N, 2]: pairs" if fields == 2 else "strings in UTF-8, [N]"
    found = {
        "serving_default": {"inputs": {"texts": texts}, "outputs": outputs},
        "encode": {"inputs": {"texts": texts}, "outputs": ids},
    }
    if not fields:
        texts = "strings in UTF-8, [N, F]: F fields of a text, an empty one for none"
        found["fields"] = {"inputs": {"texts": texts}, "outputs": outputs}
        found["encode_fields"] = {"inputs": {"texts": texts}, "outputs": ids}
    return found
