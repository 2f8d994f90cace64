"""Whole classifiers as ``transformers`` publishes them: predicted with, continued from, and written."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from files.tensors import read_tensors, write_tensors
from tests.golden.classifier_lines import LINES, rows_of
from tests.refusals import refused
from tests.scripts import fails, succeeds
from text_cls.checkpoint_writing import save_classifier
from text_cls.encoders.checkpoints import read_checkpoint
from text_cls.encoders.published_classifier import head_for
from text_cls.predictor import Predictor
from training.backends import Placement

TINY = Path(__file__).parent / "golden" / "tiny"
GOLDEN = np.load(TINY / "classifiers.npz")
FOLDERS = ("bert_classifier", "bert_labels", "distilbert_classifier")
CLASSES = ("boat", "garden", "kitchen")


def _logits(predictor: Predictor) -> np.ndarray:
    """Of the golden lines, each alone."""
    encoded = predictor.encode([(line,) for line in LINES])
    rows = [encoded.ids[a:b][None] for a, b in zip(encoded.offsets[:-1], encoded.offsets[1:], strict=True)]
    return np.concatenate([keras.ops.convert_to_numpy(predictor.model(row, training=False)) for row in rows])


def _change(path: Path, change: Callable[[dict], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TINY / "bert_classifier", tmp_path / "published"))


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_gives_the_reference_ids_and_logits(name: str, one_replica: Placement) -> None:
    predictor = Predictor.load(TINY / name, one_replica)
    encoded = predictor.encode([(line,) for line in LINES])
    ids = np.split(encoded.ids, encoded.offsets[1:-1])
    assert [row.tolist() for row in ids] == rows_of(GOLDEN[f"{name}_ids"])
    np.testing.assert_allclose(_logits(predictor), GOLDEN[f"{name}_logits"], atol=1e-5)
    assert predictor.classes == CLASSES and predictor.multi_label == (name == "bert_labels")
    assert np.ptp(GOLDEN[f"{name}_logits"], axis=0).max() > 0.1


def test_probabilities_are_softmax_or_sigmoid(one_replica: Placement) -> None:
    for name in ("bert_classifier", "bert_labels"):
        predictor, logits = Predictor.load(TINY / name, one_replica), GOLDEN[f"{name}_logits"].astype(np.float64)
        found = predictor.probabilities(predictor.encode([(line,) for line in LINES]))
        e = np.exp(logits)
        wanted = 1 / (1 + 1 / e) if name == "bert_labels" else e / e.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(found, wanted, atol=1e-5)
        assert (predictor.thresholds is not None) == (name == "bert_labels")
    assert predictor.thresholds.tolist() == [0.5, 0.5, 0.5]


@pytest.mark.parametrize("name", FOLDERS)
def test_what_is_written_is_what_transformers_writes(name: str, tmp_path: Path, one_replica: Placement) -> None:
    """The same tensors bit for bit, and fields of the same values: so ``transformers`` gives the same logits."""
    predictor = Predictor.load(TINY / name, one_replica)
    save_classifier(tmp_path, predictor)
    theirs, ours = (read_tensors(folder / "model.safetensors")[0] for folder in (TINY / name, tmp_path))
    assert ours.keys() == theirs.keys()
    for key, array in theirs.items():
        assert ours[key].dtype == array.dtype
        np.testing.assert_array_equal(ours[key], array)
    there, here = (json.loads((folder / "config.json").read_text()) for folder in (TINY / name, tmp_path))
    known = {key: value for key, value in here.items() if key in there and there[key] is not None}
    assert known == {key: there[key] for key in known} and {"id2label", "label2id", "architectures"} <= known.keys()
    assert predictor.temperature == 1.0
    predictor.thresholds = predictor.thresholds if predictor.thresholds is None else np.array([0.25, 0.5, 0.75])
    predictor.temperature = 2.5
    save_classifier(tmp_path, predictor)
    again = Predictor.load(tmp_path, one_replica)
    np.testing.assert_array_equal(_logits(again), _logits(predictor))
    assert (again.classes, again.config, again.tokeniser.max_length) == (predictor.classes, predictor.config, 12)
    assert again.tokeniser.cutter.words == predictor.tokeniser.cutter.words
    assert predictor.thresholds is None or again.thresholds.tolist() == [0.25, 0.5, 0.75]
    assert again.temperature == 2.5 and json.loads((tmp_path / "config.json").read_text())["triptych"]["temperature"]


def test_transformers_gives_the_same_logits_with_what_is_written(tmp_path: Path, one_replica: Placement) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from tests.golden.make_classifiers import outputs

    for name in FOLDERS:
        save_classifier(tmp_path / name, Predictor.load(TINY / name, one_replica))
        ids, logits = outputs(tmp_path / name)
        assert ids == rows_of(GOLDEN[f"{name}_ids"])
        np.testing.assert_allclose(logits, GOLDEN[f"{name}_logits"], atol=1e-5)


HEADS = [
    (lambda raw: raw.update(architectures=["BertModel"]), "no classifier of texts"),
    (lambda raw: raw.update(architectures=["BertForTokenClassification"]), "no classifier of texts"),
    (lambda raw: raw.pop("architectures"), "no classifier of texts"),
    (lambda raw: raw.update(problem_type="regression"), "problem_type 'regression'"),
    (lambda raw: raw.update(id2label={"0": "a", "1": "b"}), "id2label names 2 classes, and the classifier has 3"),
    (lambda raw: raw.update(id2label={"0": "a", "1": "b", "3": "c"}), "id2label has None for class 2"),
    (lambda raw: raw.update(id2label={"0": "a", "1": "b", "2": "a"}), "the name 'a' twice"),
    (lambda raw: raw.update(id2label={"0": "a", "1": "b", "2": " "}), "id2label has ' ' for class 2"),
    (lambda raw: raw.update(id2label=["a", "b", "c"]), "id2label is ['a', 'b', 'c']"),
    (lambda raw: raw.update(classifier_dropout="much"), "classifier_dropout is 'much'"),
    (lambda raw: raw.update(triptych=[1]), "triptych is [1]"),
    (lambda raw: raw.update(triptych={"truncate": "feet"}), "truncate is 'feet'"),
    (lambda raw: raw.update(triptych={"temperature": 0}), "temperature is 0; a number above 0 is needed"),
    (lambda raw: raw.update(problem_type="multi_label_classification", triptych={"thresholds": [0.5, 2, 0.5]}),
     "thresholds have 2 among them"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), HEADS, ids=[message[:30] for _, message in HEADS])
def test_a_head_that_does_not_fit(copy: Path, one_replica: Placement, change: Callable, message: str) -> None:
    _change(copy / "config.json", change)
    found = refused(lambda: Predictor.load(copy, one_replica))
    assert message in found and "config.json" in found


def test_tensors_of_a_head_that_do_not_fit(copy: Path, one_replica: Placement) -> None:
    tensors, _ = read_tensors(copy / "model.safetensors")

    def told(changed: dict[str, np.ndarray]) -> str:
        write_tensors(copy / "model.safetensors", changed, {})
        return refused(lambda: Predictor.load(copy, one_replica))

    for name in ("bert.pooler.dense.weight", "classifier.bias"):
        short = name.removeprefix("bert.")
        assert f"the classifier's {short} is missing" in told({k: v for k, v in tensors.items() if k != name})
        assert "fit" in told(tensors | {name: np.zeros((2, 2), "f4")})
    _change(copy / "config.json", lambda raw: (raw.pop("id2label"), raw.pop("label2id")))
    one = {"classifier.weight": np.zeros((1, 16), "f4"), "classifier.bias": np.zeros(1, "f4")}
    assert "num_labels 1" in told(tensors | one)


def test_names_where_there_is_no_id2label(copy: Path, one_replica: Placement) -> None:
    _change(copy / "config.json", lambda raw: (raw.pop("id2label"), raw.update(label2id={"x": 2, "y": 1, "z": 0})))
    assert Predictor.load(copy, one_replica).classes == ("z", "y", "x")
    _change(copy / "config.json", lambda raw: raw.pop("label2id"))
    assert Predictor.load(copy, one_replica).classes == ("LABEL_0", "LABEL_1", "LABEL_2")


def test_a_head_is_gone_on_with_where_classes_are_the_same() -> None:
    bert, distilbert = (read_checkpoint(TINY / name) for name in ("bert_classifier", "distilbert_classifier"))
    for checkpoint, pooling in ((bert, "pooler"), (distilbert, "pre_classifier")):
        for asked in ("auto", pooling):
            head, taken, (note,) = head_for(checkpoint, CLASSES[::-1], False, asked)
            assert head is not None and taken == pooling and "goes on with the head" in note
    for classes, several, asked, message in (
        (("boat", "garden"), False, "auto", "has other classes: boat, garden, kitchen"),
        (CLASSES, True, "auto", "gives a text one label"),
        (CLASSES, False, "mean", "is over --pooling=pooler"),
    ):
        head, taken, (note,) = head_for(bert, classes, several, asked)
        assert head is None and taken == ("cls" if asked == "auto" else asked) and message in note
    assert head_for(read_checkpoint(TINY / "bert"), CLASSES, False, "auto") == (None, "cls", ())


def test_a_broken_head_does_not_keep_the_encoder_from_being_used(copy: Path) -> None:
    _change(copy / "config.json", lambda raw: raw.update(problem_type="regression"))
    head, pooling, (note,) = head_for(read_checkpoint(copy), CLASSES, False, "auto")
    assert head is None and pooling == "cls" and "problem_type 'regression'" in note


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty texts whose classes are those that ``bert_classifier`` gives them, written in another order."""
    path = tmp_path_factory.mktemp("texts") / "texts.csv"
    rng = np.random.default_rng(0)
    words = [*"abcdefghijklmnopqrstuvwxyz0123456789!", "the", "of", "run", "running", "transform", "unable", "é", "中"]
    lines = list(dict.fromkeys(" ".join(rng.choice(words, rng.integers(1, 8))) for _ in range(2000)))
    predictor = Predictor.load(TINY / "bert_classifier")
    answers = predictor.probabilities(predictor.encode([(line,) for line in lines])).argmax(axis=1)
    chosen = [row for label in (2, 0, 1) for row in np.flatnonzero(answers == label)[:20]]
    assert len(chosen) == 60
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows((lines[row], CLASSES[answers[row]]) for row in chosen)
    return path


def _flags(texts: Path, encoder: Path, *more: str) -> list[str]:
    return ["--dataset=csv", f"--data_path={texts}", f"--encoder={encoder}", "--max_length=12", "--devices=cpu",
            "--batch_size=8", "--tsne=0", f"--cache_dir={texts.parent}/cache", *more]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bert_classifier", "distilbert_classifier"])
def test_fine_tuning_goes_on_exports_and_comes_back(name: str, texts: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    flags = _flags(texts, TINY / name, "--num_epochs=1", "--learning_rate=0", "--export", f"--run_dir={run_dir}")
    assert f"goes on with the head of {name}" in succeeds("finetune_bert", *flags)
    result = json.loads((run_dir / "result.json").read_text())
    assert name != "bert_classifier" or result["test_accuracy"] == 1.0  # nothing was trained: the head came along
    assert Predictor.load(run_dir).config.pooling == {"b": "pooler", "d": "pre_classifier"}[name[0]]
    exported = run_dir / "classifier"
    lines = list(LINES[:3])
    answers = [succeeds("predict_text", f"--run_dir={folder}", *lines) for folder in (run_dir, exported, TINY / name)]
    assert Predictor.load(exported).temperature == result["temperature"] != 1.0
    assert answers[0] == answers[1]
    assert {a.split(",")[2] for a in answers[1].splitlines()[1:]} <= set(CLASSES)
    known = [dict(zip(CLASSES, row, strict=True)) for row in GOLDEN[f"{name}_logits"][:3]]
    assert [a.split(",")[2] for a in answers[2].splitlines()[1:]] == [max(row, key=row.__getitem__) for row in known]
    flags = _flags(texts, exported, "--dry_run")
    assert "goes on with the head of classifier" in succeeds("finetune_bert", *flags)


def test_other_classes_are_a_new_head_and_said(texts: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text(texts.read_text().replace("boat", "ship"))
    done = succeeds("finetune_bert", *_flags(other, TINY / "bert_classifier", "--dry_run"))
    assert "a new head: that of bert_classifier has other classes: boat, garden, kitchen" in done


@pytest.mark.slow
def test_a_classifier_that_transformers_cannot_have_is_not_written(texts: Path, tmp_path: Path) -> None:
    flags = _flags(texts, TINY / "bert", "--num_epochs=1", "--export", f"--run_dir={tmp_path}/run", "--pooling=mean")
    done = succeeds("finetune_bert", *flags)
    assert "the classifier is not written, only its encoder" in done and "--pooling=pooler" in done
    assert (tmp_path / "run" / "encoder").is_dir() and not (tmp_path / "run" / "classifier").exists()


def test_a_folder_of_no_classifier_is_named(tmp_path: Path) -> None:
    assert "no classifier of texts" in fails("predict_text", f"--run_dir={TINY}/bert", "a text")
    assert "finetune_bert" in fails("predict_text", f"--run_dir={TINY}/distilbert", "a text")
