"""A run as one folder that TensorFlow alone loads, and what is refused before and after it is written."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from files.documents import read_sealed, write_json
from files.errors import UserError
from tests.little_model import TEXTS, save
from tests.scripts import fails, succeeds
from text_cls import exporting
from text_cls.config import ClassifierConfig, CleaningConfig, DataConfig
from text_cls.export_config import ExportConfig
from text_cls.graph import model as graph_model
from text_cls.predictor import Predictor
from text_cls.tokens.preprocess import Cleaner
from training.config_files import as_json
from training.placement import make_placement
from training.session import precision

TINY = Path(__file__).parent / "golden" / "tiny"
SHOWN = [*TEXTS, "", "?!", "the <b>FILM</b> &amp; the actor", "漢字 ﬁlm", "x"]
# What serves a model has neither us nor Keras.
FRESH = """
import json, sys
for name in ("text_cls", "training", "files", "experiments", "keras", "tensorflow_text"):
    sys.modules[name] = None
import tensorflow as tf
module = tf.saved_model.load(sys.argv[1])
texts = json.loads(sys.argv[2])
answers = module.signatures["serving_default"](texts=tf.constant(texts))
several = module.signatures["fields"](texts=tf.constant([[text, "the bank"] for text in texts]))
none = module.signatures["serving_default"](texts=tf.constant([], tf.string))
many = module.signatures["serving_default"](texts=tf.constant(texts * 30))
print(json.dumps({
    "class": [name.decode() for name in answers["class"].numpy()],
    **{name: answers[name].numpy().tolist() for name in ("label", "confidence", "probabilities", "has_words")},
    "fields": several["probabilities"].numpy().tolist(),
    "none": none["probabilities"].shape.as_list(),
    "many": many["probabilities"].numpy().tolist(),
}))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    save(folder := tmp_path_factory.mktemp("run"))
    return folder


@pytest.fixture(scope="module")
def exported(run: Path) -> tuple[Path, str]:
    out = run.parent / "new" / "classifier"
    return out, succeeds("export_text", f"--run_dir={run}", f"--out={out}", "--onnx=false")


def _wanted(predictor: Predictor, texts: Sequence[tuple[str, ...]]) -> np.ndarray:
    """Evaluation's probabilities; 0 for texts without words."""
    encoded, rows = predictor.read(texts)
    found = np.zeros((len(texts), len(predictor.classes)), np.float32)
    found[rows] = predictor.probabilities(encoded)
    return found


def test_a_fresh_process_with_tensorflow_alone(exported: tuple[Path, str], run: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-c", FRESH, str(exported[0]), json.dumps(SHOWN)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    predictor = Predictor.load(run)
    wanted = _wanted(predictor, [(text,) for text in SHOWN])
    np.testing.assert_allclose(found["probabilities"], wanted, atol=1e-6)
    np.testing.assert_allclose(found["many"], np.tile(wanted, (30, 1)), atol=1e-6)
    np.testing.assert_allclose(found["fields"], _wanted(predictor, [(text, "the bank") for text in SHOWN]), atol=1e-6)
    np.testing.assert_allclose(found["confidence"], wanted.max(axis=1), atol=1e-6)
    has_words = wanted.any(axis=1)
    assert found["has_words"] == has_words.tolist() and found["none"] == [0, 3]
    labels = np.where(has_words, wanted.argmax(axis=1), -1)
    assert found["label"] == labels.tolist() and set(found["label"]) > {-1}
    assert found["class"] == ["" if label < 0 else predictor.classes[label] for label in labels]


def test_what_is_written_and_said(exported: tuple[Path, str], run: Path) -> None:
    out, said = exported
    about = read_sealed(out / "export.json")
    assert about["classes"] == ["up", "down", 'é, "'] and about["thresholds"] is None and about["max_length"] == 8
    assert about["compared"]["largest_difference"] < 1e-5 and about["compared"]["other_classes"] == 0
    assert set(about["signatures"]) == {"serving_default", "encode", "fields", "encode_fields"}
    assert about["versions"]["tensorflow"] == tf.__version__ and "no folder of a run" in about["compared"]["note"]
    assert "compared with the model on 7 texts" in said and "note: compared on fixed texts alone" in said
    assert [path.name for path in out.parent.iterdir()] in (
        ["classifier"],
        [".lock", "classifier"],
        ["classifier", ".lock"],
    )
    assert not (out / "network.onnx").exists() and (out / "saved_model.pb").is_file()


def _fake(monkeypatch: pytest.MonkeyPatch, change: Callable[[np.ndarray], np.ndarray] = lambda p: p) -> list[Any]:
    """Writes a file in place of a graph, whose answers are evaluation's, changed; the texts that it is given."""
    given: list[Any] = []

    def write(config: ExportConfig, graph: Any, predictor: Predictor, draft: Path) -> exporting.Served:
        (draft / "saved_model.pb").write_text("graph")

        def fields(texts: Sequence[Any]) -> list[tuple[str, ...]]:
            return [(text,) if isinstance(text, str) else tuple(text) for text in texts]

        def encode(texts: Sequence[Any]) -> dict[str, np.ndarray]:
            encoded, rows = predictor.read(fields(texts))
            tokens = np.zeros((len(texts), 8), np.int32)
            for row, place in enumerate(rows):
                ids = encoded.ids[encoded.offsets[row] : encoded.offsets[row + 1]]
                tokens[place, : len(ids)] = ids
            return {"tokens": tokens, "has_words": np.isin(np.arange(len(texts)), rows)}

        def answer(texts: Sequence[Any]) -> dict[str, np.ndarray]:
            given.extend(texts)
            probabilities = change(_wanted(predictor, fields(texts)))
            return {"probabilities": probabilities, "label": probabilities.argmax(axis=1)}

        functions = {"serving_default": answer, "encode": encode, "fields": answer, "encode_fields": encode}
        return exporting.Served(functions, None)

    monkeypatch.setattr(exporting, "_write", write)
    return given


def test_only_an_export_is_replaced(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fake(monkeypatch)
    out = tmp_path / "out"
    command = ["export_text", f"--run_dir={run}", f"--out={out}", "--onnx=false"]
    for _ in range(2):
        succeeds(*command)
    assert sorted(path.name for path in out.iterdir()) == ["export.json", "saved_model.pb"]
    (out / "mine.txt").write_text("mine")
    assert "holds mine.txt, which was not written there" in fails(*command)
    (out / "mine.txt").unlink()
    (out / "saved_model.pb").write_text("changed")
    assert "holds saved_model.pb, which was not written there" in fails(*command)
    assert (out / "saved_model.pb").read_text() == "changed"
    (tmp_path / "file").write_text("mine")
    assert "file is no folder of an export" in fails(*command, f"--out={tmp_path}/file")
    assert "holds vocabulary.txt" in fails(*command, f"--out={run}/model") or (run / "model").is_dir()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "file", "out"]


def test_other_answers_than_evaluation_leave_nothing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["export_text", f"--run_dir={run}", f"--out={tmp_path}/out", "--onnx=false"]
    for change, message in (
        (lambda p: p + np.float32(2e-4), "largest difference of a probability is 2.0e-04; at most 0.0001 is allowed"),
        (lambda p: p * np.nan, "is nan"),
    ):
        _fake(monkeypatch, change)
        assert message in fails(*command)
    _fake(monkeypatch)
    read = Predictor.read
    monkeypatch.setattr(exporting.Served, "answers", lambda served, texts: _other_tokens(served, texts))
    assert "the tokens of" in fails(*command)
    monkeypatch.setattr(Predictor, "read", read)
    assert not list(tmp_path.iterdir())


def _other_tokens(served: exporting.Served, texts: Sequence[tuple[str, ...]]) -> tuple[dict, dict]:
    width = max(map(len, texts))
    given = [[*fields, *[""] * (width - len(fields))] for fields in texts]
    ids = served.functions["encode_fields"](given)
    return ids | {"tokens": ids["tokens"] + 1}, served.functions["fields"](given)


def test_a_class_is_another_only_beyond_a_tie(run: Path) -> None:
    predictor = Predictor.load(run)
    wanted = np.array([[0.4, 0.39995, 0.2], [0.5, 0.3, 0.2]], np.float32)
    count = exporting._other_classes(predictor, wanted, {"label": np.array([1, 1])}, 1e-4)
    assert count == (2, 1) and exporting._other_classes(predictor, wanted, {"label": np.array([0, 0])}, 1e-4) == (0, 0)
    predictor.thresholds = np.array([0.4, 0.3, 0.1])
    predicted = np.array([[False, True, True], [True, False, False]])
    assert exporting._other_classes(predictor, wanted, {"predicted": predicted}, 1e-4) == (3, 1)


def test_it_is_compared_on_the_runs_own_rows(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = _fake(monkeypatch)
    rows = [f"{text},{number % 2}" for number, text in enumerate(TEXTS * 8)]
    data = tmp_path / "data.csv"
    data.write_text("\n".join(["text,label", *rows]) + "\n")
    config = ClassifierConfig(data=DataConfig("csv", data))
    own = tmp_path / "run"
    save(own)
    write_json(own / "config.json", {"task": "ClassifierConfig", "config": as_json(config)})
    (own / "flags.txt").write_text("")
    command = ["export_text", f"--run_dir={own}", f"--out={tmp_path}/out", "--onnx=false"]
    probes = len(exporting._PROBES) + 2
    assert f"on {probes + 8} texts" in succeeds(*command)  # a tenth for validation, a tenth for the test
    assert len(given) == probes + 8 and f"on {probes} texts" in succeeds(*command, "--compare=0")
    command.append("--compare=3")
    assert f"on {probes + 3} texts" in succeeds(*command)
    assert "3 texts of the run; nothing was written" in succeeds(*command, "--dry_run")
    data.unlink()
    assert "note: compared on fixed texts alone: the run's own cannot be read" in succeeds(*command)


def test_wrong_flags_write_nothing(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["export_text", f"--run_dir={run}", f"--out={tmp_path}/out"]
    assert "--run_dir: name the folder" in fails("export_text", command[2])
    assert "--out: name the folder" in fails(*command[:2])
    assert "no trained model" in fails("export_text", f"--run_dir={tmp_path}", command[2], "--onnx=false")
    assert "--join_fields=x is not known" in fails(*command, "--join_fields=x")
    for name in ("tf2onnx", "onnxruntime"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "tf2onnx", None)
            patch.setitem(sys.modules, name, None)
            error = fails(*command)
            assert "is not installed: pip install tf2onnx onnxruntime" in error and "--onnx=false" in error
    with monkeypatch.context() as patch:
        patch.setattr(exporting.keras.backend, "backend", lambda: "jax")
        assert "KERAS_BACKEND=jax: only TensorFlow writes a SavedModel" in fails(*command, "--onnx=false")
    with monkeypatch.context() as patch:
        load = Predictor.load

        def with_stemmer(*args: Any) -> Predictor:
            predictor = load(*args)
            object.__setattr__(predictor.tokeniser, "cleaner", Cleaner(CleaningConfig(stemmer="snowball")))
            return predictor

        patch.setattr(Predictor, "load", with_stemmer)
        assert "--stemmer=snowball" in fails(*command, "--onnx=false")
    assert not list(tmp_path.iterdir())


def _classifier(predictor: Predictor) -> graph_model.Classifier:
    text = graph_model.TextGraph(predictor.tokeniser, predictor.join_fields)
    about = predictor.classes, predictor.thresholds, exporting.number_of_fields(predictor), predictor.temperature
    with exporting._in_float32(predictor) as model:
        return graph_model.Classifier(text, model, *about)


def _answers(classifier: graph_model.Classifier, texts: Sequence[tuple[str, ...]]) -> dict[str, np.ndarray]:
    """What its functions give, without the seconds that their graphs take."""
    ids = classifier.text(tf.constant(texts))
    probabilities = tf.where(ids.has_words[:, None], classifier.network(ids.tokens.to_tensor()), 0.0)
    found = {"probabilities": probabilities} | classifier._classes(probabilities, ids.has_words)
    return {name: value.numpy() for name, value in found.items()}


def test_several_labels(tmp_path: Path) -> None:
    predictor = save(tmp_path, multi_label=True)
    texts = [(text,) for text in SHOWN]
    found, wanted = _answers(_classifier(predictor), texts), _wanted(predictor, texts)
    np.testing.assert_allclose(found["probabilities"], wanted, atol=1e-6)
    reached = (wanted >= predictor.thresholds) & wanted.any(axis=1, keepdims=True)
    assert found["predicted"].tolist() == reached.tolist() and reached.any() and not reached.all()


@pytest.mark.parametrize("join_fields", ["", "pair"])
def test_a_published_classifier(join_fields: str) -> None:
    predictor = Predictor.load(TINY / "bert_labels", make_placement("cpu"), join_fields)
    texts = [("the run [SEP] of and", "of the"), ("of and", ""), ("", ""), ("Of RUN the", "and")]
    texts = texts if join_fields else [text[:1] for text in texts]
    classifier = _classifier(predictor)
    np.testing.assert_allclose(_answers(classifier, texts)["probabilities"], _wanted(predictor, texts), atol=1e-6)
    assert set(classifier.functions) == {"serving_default", "encode"}


def test_a_model_in_bfloat16_is_exported_in_float32(tmp_path: Path) -> None:
    with precision("bfloat16"):
        predictor = save(tmp_path)
    classifier, texts = _classifier(predictor), [(text,) for text in TEXTS]
    difference = np.abs(_answers(classifier, texts)["probabilities"] - _wanted(predictor, texts)).max()
    assert 1e-6 < difference < exporting._ROUNDED
    assert "bfloat16" in {variable.dtype for variable in predictor.model.variables}
    assert "bfloat16" not in {weight.dtype.name for weight in classifier.weights}


def test_a_disk_that_is_full_is_an_error_of_the_system(run: Path, tmp_path: Path) -> None:
    def no_space(*args: Any, **kwargs: Any) -> None:
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    with pytest.MonkeyPatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(tf.saved_model, "save", no_space)
        patch.setattr(graph_model.Classifier, "signatures", {})
        graph_model.write_saved_model(_classifier(Predictor.load(run)), tmp_path)


def test_onnx(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    for name, predictor in (
        ("words", save(tmp_path, multi_label=True)),
        ("pieces", Predictor.load(TINY / "bert_classifier")),
    ):
        about = predictor.multi_label, predictor.temperature
        graph_model.write_onnx(predictor.model, *about, tmp_path / f"{name}.onnx")
        encoded = predictor.encode([(text,) for text in TEXTS])
        tokens = np.zeros((len(TEXTS), int(encoded.lengths.max())), np.int32)
        for row, (start, stop) in enumerate(zip(encoded.offsets, encoded.offsets[1:], strict=False)):
            tokens[row, : stop - start] = encoded.ids[start:stop]
        found = graph_model.read_onnx(tmp_path / f"{name}.onnx")(tokens)
        np.testing.assert_allclose(found, predictor.probabilities(encoded), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bert_classifier", "bert_labels"])
def test_a_published_classifier_as_a_folder(name: str, tmp_path: Path) -> None:
    command = ["export_text", f"--run_dir={TINY}/{name}", f"--out={tmp_path}/out", "--onnx=false"]
    assert "0 predicted classes differ" in succeeds(*command, "--join_fields=pair")
    assert "0 predicted classes differ" in succeeds(*command)


def test_a_configuration_says_what_is_wrong() -> None:
    with pytest.raises(UserError, match="--join_fields=x is not known"):
        ExportConfig(join_fields="x")
