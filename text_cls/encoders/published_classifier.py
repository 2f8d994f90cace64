"""Published classifiers, ``BertForSequenceClassification`` and its relatives: heads and classes.

All have one dense layer on [CLS], and then a second one, the classifier (``families.ClassifierForm``). Shapes: ``D``
width, ``K`` classes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from files.artefacts import CONFIG
from files.documents import is_number, read_object, shown
from files.errors import UserError
from text_cls.config import DataConfig
from text_cls.encoders.checkpoints import Checkpoint, load_encoder, read_checkpoint
from text_cls.encoders.config import BertClassifierConfig
from text_cls.encoders.families import FAMILIES, ClassifierForm
from text_cls.evaluation.calibration import is_temperature
from text_cls.evaluation.several_labels import UNFITTED
from text_cls.tokens.length_config import TRUNCATIONS
from training.options import choices_of

_SINGLE, _SEVERAL = "single_label_classification", "multi_label_classification"
UNTOLD = "untold"  # join_fields if neither the folder nor a flag sets it: texts must have one field
OWN = "triptych"  # our own field in config.json: thresholds (others use .5), temperature (1), join_fields, …
_MOST_CLASSES = 2**20
_LONGEST = 512  # tokens, if a tokeniser has no limit


class Head(NamedTuple):
    """The head of a published classifier.

    Attributes:
        form: of the family's classifiers.
        classes: names by class number.
        multi_label: whether a text has any number of labels.
        thresholds: [K] with several labels a text: a class is predicted if its probability reaches its threshold; None
            otherwise.
        dropout: before the classifier.
        dense, classifier: (kernel, bias), [D, D] and [D], [D, K] and [K].
        temperature: divides the logits; 1 except in our own exports.
    """

    form: ClassifierForm
    classes: tuple[str, ...]
    multi_label: bool
    thresholds: np.ndarray | None
    dropout: float
    dense: tuple[np.ndarray, np.ndarray]
    classifier: tuple[np.ndarray, np.ndarray]
    temperature: float = 1.0


def is_published(folder: Path) -> bool:
    """Whether the configuration in a folder belongs to a published model, and not to an artefact of ours."""
    path = folder / CONFIG
    if not path.is_file():
        return False
    raw = read_object(path)
    return ("architectures" in raw or "model_type" in raw) and "kind" not in raw


def read_head(checkpoint: Checkpoint) -> Head:
    """The head of a published classifier.

    Raises:
        UserError: there is no head, it is for another task, or its tensors and classes do not match.
    """
    about, path = checkpoint.about, checkpoint.folder / CONFIG
    architectures = about.get("architectures") or []
    form = FAMILIES[checkpoint.config.family].form
    if form.architecture not in architectures:
        raise UserError(
            f"{path}: architectures {shown(architectures)}: no classifier of texts ({form.architecture} "
            "is read); finetune_bert --encoder makes one of an encoder"
        )
    width = checkpoint.config.width
    dense = _dense(checkpoint, form.dense, width)
    classifier = _dense(checkpoint, form.classifier, None)
    classes = _classes(path, about, len(classifier[1]))
    multi_label = _is_multi_label(path, about, len(classes))
    dropout = about.get(form.dropout)
    if dropout is None:
        dropout = checkpoint.config.dropout if form.default is None else form.default
    if not is_number(dropout) or not 0 <= dropout < 1:
        raise UserError(f"{path}: {form.dropout} is {shown(dropout)}; a number from 0 to below 1 is needed")
    own = own_fields(checkpoint)
    thresholds = _thresholds(path, own, len(classes)) if multi_label else None
    temperature = own.get("temperature", 1.0)
    if not is_temperature(temperature):
        raise UserError(f"{path}: temperature is {shown(temperature)}; a number above 0 is needed")
    rest = (thresholds, min(float(dropout), 0.99), dense, classifier, float(temperature))
    return Head(form, classes, multi_label, *rest)


def _dense(checkpoint: Checkpoint, name: str, units: int | None) -> tuple[np.ndarray, np.ndarray]:
    """(kernel [D, units], bias [units]) of a dense layer on [CLS]; ``units`` None: any number."""
    found = []
    for part in (f"{name}.weight", f"{name}.bias"):
        array = checkpoint.tensors.get(part, checkpoint.rest.get(part))
        if array is None:
            raise UserError(f"{checkpoint.path}: the classifier's {part} is missing")
        found.append(array.astype(np.float32))
    kernel, bias = found
    wanted = (len(bias) if units is None and bias.ndim == 1 else units, checkpoint.config.width)
    if kernel.shape != wanted or bias.shape != wanted[:1]:
        raise UserError(f"{checkpoint.path}: {name} is {kernel.shape} and {bias.shape}; {wanted} and {wanted[:1]} fit")
    return kernel.T, bias


def _classes(path: Path, about: dict[str, Any], count: int) -> tuple[str, ...]:
    """The names of the classes by number, from ``id2label`` or ``label2id``; otherwise LABEL_0, LABEL_1 …"""
    names, inverse = about.get("id2label"), about.get("label2id")
    if names is None and isinstance(inverse, dict):
        names = {str(number): name for name, number in inverse.items()}
    if names is None:
        names = {str(number): f"LABEL_{number}" for number in range(count)}
    if not isinstance(names, dict):
        raise UserError(f"{path}: id2label is {shown(names)}; an object of numbers and names is needed")
    if len(names) != count:
        raise UserError(f"{path}: id2label names {len(names):,} classes, and the classifier has {count:,}")
    found = []
    for number in range(count):
        name = names.get(str(number))
        name = str(name) if isinstance(name, int) and not isinstance(name, bool) else name
        if not isinstance(name, str) or not name.strip():
            raise UserError(f"{path}: id2label has {shown(name)} for class {number}; a name is needed")
        found.append(name)
    if len(set(found)) < count:
        twice = next(name for name in found if found.count(name) > 1)
        raise UserError(f"{path}: id2label has the name {shown(twice)} twice")
    return tuple(found)


def problem_type(multi_label: bool) -> str:
    """The value of ``problem_type`` in a published configuration."""
    return _SEVERAL if multi_label else _SINGLE


def _is_multi_label(path: Path, about: dict[str, Any], count: int) -> bool:
    kind = about.get("problem_type")
    if kind not in (None, _SINGLE, _SEVERAL):
        raise UserError(f"{path}: problem_type {shown(kind)}; {_SINGLE} and {_SEVERAL} are supported")
    if count < 2 and kind != _SEVERAL:
        raise UserError(f"{path}: a classifier of one number (num_labels 1) is a regression; two classes are needed")
    return kind == _SEVERAL


def own_fields(checkpoint: Checkpoint) -> dict[str, Any]:
    """The fields of our own export; raises UserError if they are no object."""
    found = checkpoint.about.get(OWN, {})
    if not isinstance(found, dict):
        raise UserError(f"{checkpoint.folder / CONFIG}: {OWN} is {shown(found)}; an object is needed")
    return found


def _thresholds(path: Path, own: dict[str, Any], count: int) -> np.ndarray:
    found = own.get("thresholds", [UNFITTED] * count)
    if not isinstance(found, list) or len(found) != count:
        raise UserError(f"{path}: thresholds are {shown(found)}, and there are {count} classes")
    for value in found:
        if not is_number(value) or not 0 <= value <= 1:
            raise UserError(f"{path}: thresholds have {shown(value)} among them; a probability is needed")
    return np.array(found, np.float64)


def head_for(
    checkpoint: Checkpoint, classes: Sequence[str], multi_label: bool, pooling: str
) -> tuple[Head | None, str, tuple[str, ...]]:
    """Decides whether training starts from the checkpoint's head.

    Args:
        checkpoint: an encoder or a whole classifier.
        classes, multi_label: of the data.
        pooling: the choice of ``--pooling``; ``auto`` is the head's pooling, or cls for a new head.

    Returns:
        The head if it has the same classes, otherwise None; the pooling; and notes for readers of the result.
    """
    new = "cls" if pooling == "auto" else pooling
    if FAMILIES[checkpoint.config.family].form.architecture not in (checkpoint.about.get("architectures") or ()):
        return None, new, ()
    try:
        head = read_head(checkpoint)
    except UserError as error:  # a damaged head does not matter if it is not used
        return None, new, (f"a new head: {error}",)
    here = f"a new head: that of {checkpoint.folder.name}"
    if set(classes) != set(head.classes):
        listed = ", ".join(head.classes[:5]) + (" …" if len(head.classes) > 5 else "")
        return None, new, (f"{here} has other classes: {listed}",)
    if multi_label != head.multi_label:
        return None, new, (f"{here} gives a text {'any number of labels' if head.multi_label else 'one label'}",)
    if pooling not in ("auto", head.form.pooling):
        return None, new, (f"{here} is over --pooling={head.form.pooling}",)
    return head, head.form.pooling, (f"goes on with the head of {checkpoint.folder.name}: its classes are the same",)


def load_head(head: Head, model: keras.Model, classes: Sequence[str]) -> None:
    """Assigns a head to a model with its pooling; ``classes`` are those of the model: the head's, in any order."""
    order = [head.classes.index(name) for name in classes]
    kernel, bias = head.classifier
    model.get_layer(head.form.pooling).set_weights(head.dense)
    model.get_layer("head").set_weights([kernel[:, order], bias[order]])


class PublishedClassifier(NamedTuple):
    """A published classifier that has been read."""

    checkpoint: Checkpoint
    head: Head
    max_length: int
    truncate: str
    join_fields: str

    @property
    def config(self) -> BertClassifierConfig:
        """The configuration of the model for ``load``."""
        head = self.head
        return BertClassifierConfig(
            self.checkpoint.config, len(head.classes), head.form.pooling, head.dropout, self.join_fields == "pair"
        )

    def load(self, model: keras.Model) -> None:
        """Assigns everything to a model built from ``config``."""
        load_encoder(self.checkpoint, model.get_layer("encoder"))
        load_head(self.head, model, self.head.classes)


def read_published(folder: Path, join_fields: str = "") -> PublishedClassifier:
    """Reads a published classifier; ``join_fields`` is used if the folder does not set it.

    Raises:
        UserError: a file is missing or damaged, or it is no classifier of texts.
    """
    checkpoint = read_checkpoint(folder)
    path = checkpoint.folder / "tokenizer_config.json"
    settings = read_object(path) if path.exists() else {}
    longest, side = settings.get("model_max_length"), settings.get("truncation_side", "right")
    if side not in ("left", "right"):
        raise UserError(f"{path}: truncation_side is {shown(side)}; left or right is needed")
    most = min(checkpoint.config.max_positions, _LONGEST)
    if is_number(longest) and 3 <= longest <= 2**20:
        most = min(checkpoint.config.max_positions, int(longest))
    if most < 3:
        raise UserError(f"{folder}: the encoder has {most} positions; a text needs three")
    own = own_fields(checkpoint)
    truncate = own.get("truncate", "tail" if side == "left" else "head")
    join = own.get("join_fields", join_fields or UNTOLD)
    for name, value, known in (
        ("truncate", truncate, TRUNCATIONS),
        ("join_fields", join, choices_of(DataConfig, "join_fields")),
    ):
        if value not in (*known, UNTOLD):
            raise UserError(f"{checkpoint.folder / CONFIG}: {name} is {shown(value)}; known are {', '.join(known)}")
    if join == "pair" and truncate != "head":
        raise UserError(f"{path}: pairs of texts are cut at their ends, and truncation_side is {side}; give one text")
    return PublishedClassifier(checkpoint, read_head(checkpoint), most, truncate, join)
