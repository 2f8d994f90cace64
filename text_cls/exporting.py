"""The task of exporting a classifier: one folder that needs only TensorFlow, after a comparison with evaluation.

``N`` texts, ``T`` tokens, ``K`` classes.
"""

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import keras
import numpy as np

from files.documents import read_object
from files.download import cache_of
from files.errors import UserError
from files.owned_folders import check_owned, put_in_place, seal
from files.writing import draft_folder
from text_cls.config import ClassifierConfig, FineTuningConfig
from text_cls.data.fields import Fields
from text_cls.data.splits import load
from text_cls.encoders.published_classifier import UNTOLD
from text_cls.export_config import ExportConfig
from text_cls.export_description import NOTE, ONNX, describe, number_of_fields
from text_cls.predictor import Predictor
from training import config_files
from training.hosts import hosts
from training.placement import make_placement
from training.progress import Progress
from training.session import precision

_WHAT = "an export"
_TASKS: dict[str, Any] = {config.__name__: config for config in (ClassifierConfig, FineTuningConfig)}
_EXACT, _ROUNDED = 1e-4, 2e-2  # largest difference of a probability; the second if evaluation is in bfloat16
_AT_ONCE = 100  # texts that are compared at a time
# Texts for the comparison, in addition to the run's own: many scripts, marks, entities, and an empty text.
_PROBES = (
    "A good film, isn't it? <br />It's 3.5€ &amp; 100&nbsp;% worth #39;it#39; …",
    'ΟΔΥΣΣΕΥΣ Straße İstanbul cafe\u0301 ﬁn 한국어 नमस्ते दुनिया สวัสดีชาวโลก 漢字かなカナ שלום צה"ל مرحبا',
    "👩\u200d👩\u200d👧 🇩🇪🇫🇷 3\ufe0f\u20e3 \u200b\u00ad\ufeff\ufffd\x00 [SEP] <UNK> &lt;b&gt; &#x110000; &notit;",
    "",
    "word " * 600,
)


def export_text(config: ExportConfig, run_dir: Path | str) -> dict[str, Any]:
    """Writes the folder ``config.out`` and returns what its ``export.json`` says.

    Args:
        config: every choice.
        run_dir: the folder of a finished run, or of a published classifier.

    Raises:
        UserError: what the run does cannot be in a graph, a library is missing, ``out`` holds something else, or the
            artefact answers otherwise than evaluation; nothing is written then.
    """
    run_dir = Path(run_dir).expanduser()
    out, graph, predictor = _prepared(config, run_dir)
    texts, note = _own_texts(config, run_dir)
    with draft_folder(out) as draft:
        print(f"writing the text path and a network of {predictor.model.count_params():,} parameters as one graph")
        served = _write(config, graph, predictor, draft)
        compared = _compare(served, predictor, [*_probes(predictor), *texts])
        about = describe(config, run_dir, predictor) | {"compared": compared | {"note": note}}
        seal(draft, NOTE, about)
        put_in_place(draft, out, NOTE, _WHAT)
    if note:
        print(f"note: {note}")
    print(
        f"{out}: compared with the model on {compared['texts']:,} texts: probabilities differ by "
        f"{compared['largest_difference']:.1e} at most, {compared['other_classes']} predicted classes differ"
    )
    return about


def dry_run(config: ExportConfig, run_dir: Path | str) -> None:
    """Checks and reads everything, and writes nothing."""
    run_dir = Path(run_dir).expanduser()
    out, _, predictor = _prepared(config, run_dir)
    texts, note = _own_texts(config, run_dir)
    if note:
        print(f"note: {note}")
    print(
        f"{out}: {len(predictor.classes):,} classes, {predictor.model.count_params():,} parameters, to be compared on "
        f"{len(texts):,} texts of the run; nothing was written"
    )


def _prepared(config: ExportConfig, run_dir: Path) -> tuple[Path, ModuleType, Predictor]:
    """The folder of the export, the module that makes graphs, and the classifier, after all checks that come first."""
    if config.out is None:
        raise UserError("--out: name the folder of the export")
    if keras.backend.backend() != "tensorflow":
        raise UserError(
            f"KERAS_BACKEND={keras.backend.backend()}: only TensorFlow writes a SavedModel; set KERAS_BACKEND to "
            "tensorflow, which reads the same runs"
        )
    if hosts().count > 1:
        raise UserError("an export is made by one process: run it without TF_CONFIG")
    out = config.out.expanduser()
    check_owned(out, NOTE, _WHAT)
    graph = importlib.import_module("text_cls.graph.model")
    if config.onnx:
        graph.onnx_libraries()
    predictor = Predictor.load(run_dir, make_placement(config.devices), config.join_fields)
    graph.check_expressible(predictor.tokeniser)
    return out, graph, predictor


class Served(NamedTuple):
    """The functions in the written files.

    Attributes:
        functions: the SavedModel's functions of texts, by name.
        network: that of the ONNX file, of token ids [N, T] and scores [N, K]; None where there is none.
    """

    functions: dict[str, Callable[[Any], dict[str, np.ndarray]]]
    network: Callable[..., np.ndarray] | None

    def answers(self, texts: Sequence[Fields]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Token ids (with scores), and answers; texts that all have one field go to the functions of strings."""
        width = max(map(len, texts))
        several = "fields" in self.functions and width > 1
        encode, answer = ("encode_fields", "fields") if several else ("encode", "serving_default")
        pairs = "fields" not in self.functions and width == 2
        given = [[*fields, *[""] * (width - len(fields))] if several or pairs else fields[0] for fields in texts]
        return self.functions[encode](given), self.functions[answer](given)


def _write(config: ExportConfig, graph: ModuleType, predictor: Predictor, draft: Path) -> Served:
    """Writes SavedModel and ONNX into the draft."""
    with _in_float32(predictor) as model:
        text = graph.TextGraph(predictor.tokeniser, predictor.join_fields, predictor.linear)
        classifier = graph.Classifier(
            text, model, predictor.classes, predictor.thresholds, number_of_fields(predictor), predictor.temperature
        )
        graph.write_saved_model(classifier, draft)
        if config.onnx:
            about = predictor.multi_label, predictor.temperature
            graph.write_onnx(model, *about, draft / ONNX, predictor.linear is not None)
    return Served(graph.read_saved_model(draft), graph.read_onnx(draft / ONNX) if config.onnx else None)


@contextmanager
def _in_float32(predictor: Predictor) -> Iterator[keras.Model]:
    """The model in float32: a server need not support bfloat16."""
    with precision("float32"):
        yield predictor.float32_model()


def _own_texts(config: ExportConfig, run_dir: Path) -> tuple[list[Fields], str]:
    """Texts spread evenly over the run's validation and test rows, or a note why there are none."""
    if not config.compare:
        return [], "compared on fixed texts alone, as --compare=0 asks"
    try:
        task = _configuration(run_dir)
        splits = load(task.data, task.seed, cache_of(config.cache_dir))
    except UserError as error:
        return [], f"compared on fixed texts alone: the run's own cannot be read ({error})"
    texts = [*splits.validation.fields, *splits.test.fields]
    texts = [fields for fields in texts if not any("\ud800" <= c <= "\udfff" for c in "".join(fields))]
    places = np.linspace(0, max(0, len(texts) - 1), min(config.compare, len(texts)))
    return [texts[int(place)] for place in places], ""


def _configuration(run_dir: Path) -> Any:
    """The configuration of the run in this folder, or in the folder above; raises UserError if there is none."""
    for folder in (run_dir, run_dir.parent):
        path = folder / "config.json"
        task = read_object(path).get("task") if path.is_file() else None
        if task in _TASKS:
            return config_files.load(path, _TASKS[task]())
    raise UserError(f"{run_dir}: no folder of a run")


def _probes(predictor: Predictor) -> list[Fields]:
    """Texts that are hard to tokenise, with the number of fields that the classifier needs."""
    if predictor.join_fields == "pair":
        return list(zip(_PROBES, _PROBES[::-1], strict=True))
    several = [] if predictor.join_fields == UNTOLD else [tuple(_PROBES[:2]), ("", _PROBES[0], "", _PROBES[1])]
    return [(text,) for text in _PROBES] + several


def _compare(served: Served, predictor: Predictor, texts: Sequence[Fields]) -> dict[str, Any]:
    """The largest difference of a probability from evaluation, and the number of classes that differ.

    Raises:
        UserError: they are more than rounding makes.
    """
    most = (_ROUNDED if predictor.is_rounded else _EXACT) / min(1.0, predictor.temperature)  # it magnifies rounding
    found = {"texts": len(texts), "largest_difference": 0.0, "other_classes": 0, "allowed_difference": most}
    if served.network:
        found["largest_difference_onnx"] = 0.0
    progress = Progress(len(texts), "text")
    for start in range(0, len(texts), _AT_ONCE):
        part = texts[start : start + _AT_ONCE]
        for name, value in _differences(served, predictor, part, most).items():
            found[name] = found[name] + value if name == "other_classes" else max(found[name], value)
        progress.add(len(part))
    return found


def _differences(served: Served, predictor: Predictor, texts: Sequence[Fields], most: float) -> dict[str, Any]:
    """The differences for some texts; raises UserError if they are too large."""
    encoded, rows = predictor.read(texts)
    wanted = predictor.probabilities(encoded)
    ids, answers = served.answers(texts)
    where = "the exported graph differs from the model, which is a fault of this program; nothing was written: "
    if not np.array_equal(np.flatnonzero(ids["has_words"]), rows):
        raise UserError(f"{where}different texts have no words")
    tokens = [encoded.ids[start:stop] for start, stop in zip(encoded.offsets, encoded.offsets[1:], strict=False)]
    for row, own in zip(rows, tokens, strict=True):
        if not np.array_equal(ids["tokens"][row], np.pad(own, (0, ids["tokens"].shape[1] - len(own)))):
            raise UserError(f"{where}the tokens of {' '.join(texts[row])[:60]!r} differ")
    if not len(rows):
        return {}
    scores = ids["scores"][rows] if "scores" in ids else None
    if encoded.scores is not None and not (scores is not None and _near(scores, encoded.scores)):
        raise UserError(f"{where}the scores of the linear models differ")
    differences = {"largest_difference": answers["probabilities"][rows] - wanted}
    if served.network:
        differences["largest_difference_onnx"] = served.network(ids["tokens"][rows], scores) - wanted
    found: dict[str, Any] = {name: float(np.abs(values).max()) for name, values in differences.items()}
    for name, value in found.items():
        if not value <= most:  # also true for NaN
            raise UserError(
                f"{where}{name.replace('_', ' ')} of a probability is {value:.1e}; at most {most} is allowed"
            )
    other, clear = _other_classes(predictor, wanted, {name: values[rows] for name, values in answers.items()}, most)
    if clear:
        raise UserError(f"{where}{clear} predicted classes differ")
    return found | {"other_classes": other}


def _near(scores: np.ndarray, wanted: np.ndarray) -> bool:
    """Whether scores differ only by rounding; probabilities near 0 or 1 would hide larger differences."""
    return bool(np.allclose(scores, wanted, rtol=0, atol=_EXACT * max(1.0, float(np.abs(wanted).max()))))


def _other_classes(
    predictor: Predictor, wanted: np.ndarray, answers: dict[str, np.ndarray], most: float
) -> tuple[int, int]:
    """The number of predictions that differ from evaluation, and how many of them are not ties."""
    if predictor.thresholds is not None:
        other = answers["predicted"] != (wanted >= predictor.thresholds)
        return int(other.sum()), int((other & (np.abs(wanted - predictor.thresholds) > most)).sum())
    rows, label = np.arange(len(wanted)), answers["label"]
    other = label != wanted.argmax(axis=1)
    return int(other.sum()), int((other & (wanted.max(axis=1) - wanted[rows, label] > 2 * most)).sum())
