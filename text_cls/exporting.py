"""Exporting a classifier as a task: one folder that needs TensorFlow alone, compared with evaluation beforehand.

``N`` texts, ``T`` tokens, ``K`` classes.
"""

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
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
from text_cls.data import load
from text_cls.export_config import ExportConfig
from text_cls.predictor import KINDS, Predictor
from text_cls.preprocess import Fields
from text_cls.published_classifier import UNTOLD
from training import config_files
from training.hosts import hosts
from training.placement import make_placement
from training.run import version
from training.session import precision

NOTE, ONNX = "export.json", "network.onnx"
_WHAT = "an export"
_TASKS: dict[str, Any] = {config.__name__: config for config in (ClassifierConfig, FineTuningConfig)}
_EXACT, _ROUNDED = 1e-4, 2e-2  # largest difference of a probability; the second where evaluation is in bfloat16
_AT_ONCE = 100  # texts that are compared at a time
# Compared besides the run's own, and alone where its data are gone: scripts, marks, entities, nothing.
_PROBES = (
    "A good film, isn't it? <br />It's 3.5€ &amp; 100&nbsp;% worth #39;it#39; …",
    'ΟΔΥΣΣΕΥΣ Straße İstanbul cafe\u0301 ﬁn 한국어 नमस्ते दुनिया สวัสดีชาวโลก 漢字かなカナ שלום צה"ל مرحبا',
    "👩\u200d👩\u200d👧 🇩🇪🇫🇷 3\ufe0f\u20e3 \u200b\u00ad\ufeff\ufffd\x00 [SEP] <UNK> &lt;b&gt; &#x110000; &notit;",
    "",
    "word " * 600,
)


def export_text(config: ExportConfig, run_dir: Path) -> dict[str, Any]:
    """Writes the folder ``config.out`` and returns what its ``export.json`` says.

    Args:
        config: every choice.
        run_dir: the folder of a finished run, or of a published classifier.

    Raises:
        UserError: what the run does cannot be in a graph, a library is missing, ``out`` holds something else, or the
            artefact answers otherwise than evaluation; nothing is written then.
    """
    out, graph, predictor = _prepared(config, run_dir)
    texts, note = _own_texts(config, run_dir)
    with draft_folder(out) as draft:
        print(f"writing the text path and a network of {predictor.model.count_params():,} parameters as one graph")
        served = _write(config, graph, predictor, draft)
        compared = _compare(served, predictor, [*_probes(predictor), *texts])
        about = _about(config, run_dir, predictor) | {"compared": compared | {"note": note}}
        seal(draft, NOTE, about)
        put_in_place(draft, out, NOTE, _WHAT)
    if note:
        print(f"note: {note}")
    print(
        f"{out}: compared with evaluation on {compared['texts']:,} texts: probabilities differ by "
        f"{compared['largest_difference']:.1e} at most, {compared['other_classes']} classes are others"
    )
    return about


def dry_run(config: ExportConfig, run_dir: Path) -> None:
    """Checks and reads everything, and writes nothing."""
    out, _, predictor = _prepared(config, run_dir)
    texts, note = _own_texts(config, run_dir)
    if note:
        print(f"note: {note}")
    print(
        f"{out}: {len(predictor.classes):,} classes, {predictor.model.count_params():,} parameters, to be compared on "
        f"{len(texts):,} texts of the run; nothing was written"
    )


def _prepared(config: ExportConfig, run_dir: Path) -> tuple[Path, ModuleType, Predictor]:
    """Where it goes, what makes graphs, and the classifier, with everything checked that can be checked before."""
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
    graph = importlib.import_module("text_cls.graph_model")
    if config.onnx:
        graph.onnx_libraries()
    predictor = Predictor.load(run_dir, make_placement(config.devices), config.join_fields)
    graph.check_expressible(predictor.tokeniser)
    return out, graph, predictor


class Served(NamedTuple):
    """What was written, read back.

    Attributes:
        functions: the SavedModel's functions of texts, by name.
        network: that of the ONNX file, of token ids [N, T] and scores [N, K]; None where there is none.
    """

    functions: dict[str, Callable[[Any], dict[str, np.ndarray]]]
    network: Callable[..., np.ndarray] | None

    def answers(self, texts: Sequence[Fields]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Token ids (and scores) and answers; of texts that all have one field, by the functions that take strings."""
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
            text, model, predictor.classes, predictor.thresholds, _fields(predictor), predictor.temperature
        )
        graph.write_saved_model(classifier, draft)
        if config.onnx:
            about = predictor.multi_label, predictor.temperature
            graph.write_onnx(model, *about, draft / ONNX, predictor.linear is not None)
    return Served(graph.read_saved_model(draft), graph.read_onnx(draft / ONNX) if config.onnx else None)


def _fields(predictor: Predictor) -> int:
    """How many a text has; 0 for any number."""
    return {"pair": 2, UNTOLD: 1}.get(predictor.join_fields, 0)


@contextmanager
def _in_float32(predictor: Predictor) -> Iterator[keras.Model]:
    """The model, with the same weights in float32: what serves it need not know bfloat16."""
    with precision("float32"):
        if not _is_rounded(predictor):
            yield predictor.model
            return
        model = KINDS[type(predictor.config)].build(predictor.config)
        for new, variable in zip(model.variables, predictor.model.variables, strict=True):
            new.assign(keras.ops.cast(variable, new.dtype))
        yield model


def _is_rounded(predictor: Predictor) -> bool:
    return "bfloat16" in predictor.precision


def _own_texts(config: ExportConfig, run_dir: Path) -> tuple[list[Fields], str]:
    """Texts of the run's validation and test rows, all over both, or why there are none."""
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
    """Of the run whose folder this is, or whose model is in it; raises UserError if there is none."""
    for folder in (run_dir, run_dir.parent):
        path = folder / "config.json"
        task = read_object(path).get("task") if path.is_file() else None
        if task in _TASKS:
            return config_files.load(path, _TASKS[task]())
    raise UserError(f"{run_dir}: no folder of a run")


def _probes(predictor: Predictor) -> list[Fields]:
    """Texts that are hard to cut, with as many fields as a text has."""
    if predictor.join_fields == "pair":
        return list(zip(_PROBES, _PROBES[::-1], strict=True))
    several = [] if predictor.join_fields == UNTOLD else [tuple(_PROBES[:2]), ("", _PROBES[0], "", _PROBES[1])]
    return [(text,) for text in _PROBES] + several


def _compare(served: Served, predictor: Predictor, texts: Sequence[Fields]) -> dict[str, Any]:
    """The largest difference of a probability from evaluation's, and how many classes are others.

    Raises:
        UserError: they are more than rounding makes.
    """
    most = (_ROUNDED if _is_rounded(predictor) else _EXACT) / min(1.0, predictor.temperature)  # it magnifies rounding
    found = {"texts": len(texts), "largest_difference": 0.0, "other_classes": 0, "allowed_difference": most}
    if served.network:
        found["largest_difference_onnx"] = 0.0
    bar = keras.utils.Progbar(len(texts), unit_name="text")
    for start in range(0, len(texts), _AT_ONCE):
        part = texts[start : start + _AT_ONCE]
        for name, value in _differences(served, predictor, part, most).items():
            found[name] = found[name] + value if name == "other_classes" else max(found[name], value)
        bar.add(len(part))
    return found


def _differences(served: Served, predictor: Predictor, texts: Sequence[Fields], most: float) -> dict[str, Any]:
    """Of some texts; raises UserError for too large ones."""
    encoded, rows = predictor.read(texts)
    wanted = predictor.probabilities(encoded)
    ids, answers = served.answers(texts)
    where = "the exported graph differs from evaluation, which is a fault of this program; nothing was written: "
    if not np.array_equal(np.flatnonzero(ids["has_words"]), rows):
        raise UserError(f"{where}other texts have words")
    tokens = [encoded.ids[start:stop] for start, stop in zip(encoded.offsets, encoded.offsets[1:], strict=False)]
    for row, own in zip(rows, tokens, strict=True):
        if not np.array_equal(ids["tokens"][row], np.pad(own, (0, ids["tokens"].shape[1] - len(own)))):
            raise UserError(f"{where}the tokens of {' '.join(texts[row])[:60]!r} are others")
    if not len(rows):
        return {}
    scores = ids["scores"][rows] if "scores" in ids else None
    if encoded.scores is not None and not (scores is not None and _near(scores, encoded.scores)):
        raise UserError(f"{where}the scores of the linear path are others")
    differences = {"largest_difference": answers["probabilities"][rows] - wanted}
    if served.network:
        differences["largest_difference_onnx"] = served.network(ids["tokens"][rows], scores) - wanted
    found: dict[str, Any] = {name: float(np.abs(values).max()) for name, values in differences.items()}
    for name, value in found.items():
        if not value <= most:  # no number is not either
            raise UserError(f"{where}{name.replace('_', ' ')} of a probability is {value:.1e}, {most} is allowed")
    other, clear = _other_classes(predictor, wanted, {name: values[rows] for name, values in answers.items()}, most)
    if clear:
        raise UserError(f"{where}{clear} classes are others")
    return found | {"other_classes": other}


def _near(scores: np.ndarray, wanted: np.ndarray) -> bool:
    """Whether they differ by rounding alone; where a score decides a class, its probability would not tell."""
    return bool(np.allclose(scores, wanted, rtol=0, atol=_EXACT * max(1.0, float(np.abs(wanted).max()))))


def _other_classes(
    predictor: Predictor, wanted: np.ndarray, answers: dict[str, np.ndarray], most: float
) -> tuple[int, int]:
    """How many predictions are not evaluation's, and how many of them are no ties."""
    if predictor.thresholds is not None:
        other = answers["predicted"] != (wanted >= predictor.thresholds)
        return int(other.sum()), int((other & (np.abs(wanted - predictor.thresholds) > most)).sum())
    rows, label = np.arange(len(wanted)), answers["label"]
    other = label != wanted.argmax(axis=1)
    return int(other.sum()), int((other & (wanted.max(axis=1) - wanted[rows, label] > 2 * most)).sum())


def _about(config: ExportConfig, run_dir: Path, predictor: Predictor) -> dict[str, Any]:
    """What a user of the folder has to know."""
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
        "signatures": _signatures(_fields(predictor), several, predictor.linear is not None),
    }
    if config.onnx:
        inputs = {"tokens": "[N, T] int32"} | ({"scores": "[N, K] float32"} if predictor.linear is not None else {})
        about[ONNX] = {"inputs": inputs, "outputs": {"probabilities": "[N, K] float32"}}
    libraries = ["tensorflow", "keras", "numpy", *(["tf2onnx", "onnxruntime"] if config.onnx else [])]
    return about | {"versions": {"triptych": version(), **{name: metadata.version(name) for name in libraries}}}


def _signatures(fields: int, several_labels: bool, with_scores: bool = False) -> dict[str, Any]:
    """What goes in and comes out, by the name of a signature."""
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
