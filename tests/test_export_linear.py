"""The linear path in an exported graph: the same scores and answers as evaluation gives."""

import dataclasses
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from files.documents import read_sealed
from files.errors import UserError
from tests.little_model import TEXTS, save
from tests.scripts import succeeds
from tests.test_graph_text import TRICKY
from text_cls import exporting
from text_cls.config import CleaningConfig, TransformerConfig
from text_cls.data.fields import Fields, joined_fields
from text_cls.export_config import ExportConfig
from text_cls.graph import model as graph_model
from text_cls.graph.linear import Scores
from text_cls.linear.ngrams import NGrams
from text_cls.linear.path import LinearPath
from text_cls.linear.word_parts import MOST_CHARACTERS
from text_cls.predictor import Predictor
from text_cls.tokens.preprocess import SEP, Cleaner, Corpus, tokenise
from text_cls.tokens.subwords import Subwords
from text_cls.tokens.tokenisers import SubwordTokeniser, WordTokeniser
from text_cls.tokens.vocabulary import Vocabulary
from training.placement import make_placement
from training.session import precision

ROUNDING = 5e-5  # of scores up to some tens, in float32
LONG = "x" * (MOST_CHARACTERS - 1)  # a part of it ends where parts do
SOME = [*TRICKY, *exporting._PROBES, *TEXTS, LONG + "yz", "é" * 70 + "yz", "𝒳𝒴 👩🏽" * 3]
FIELDS: list[Fields] = [(*pair, "") for pair in pairwise(SOME)]
UNKNOWN: Fields = ("ǂǂǂ", "", "")  # parts as well
SHOWN: list[Fields] = [
    *FIELDS[::4],
    ("the", "film", "the"),  # three fields, of one word each
    ("film", "", ""),
    UNKNOWN,
    ("", "the bad", LONG + "a"),
    ("the the goal " * 50, "film films", "filming a goal"),
    ("", "", ""),
]


def _path(corpus: Corpus, num_classes: int = 3, with_parts: bool = True) -> LinearPath:
    """Whose scores decide, so that a fault in any feature is seen."""
    ngrams = NGrams.build(corpus, with_parts, 10**6)
    rng = np.random.default_rng(0)
    weights, bias = (rng.normal(0, 5, (*shape, num_classes)) for shape in ((len(ngrams),), ()))
    return LinearPath(ngrams, weights.astype(np.float32), bias.astype(np.float32))


def _without(path: LinearPath, *names: str) -> LinearPath:
    """The same without some kinds of features."""
    sizes = {name: len(getattr(path.ngrams, name)) for name in ("words", "pairs", "parts")}
    stays = np.repeat([name not in names for name in sizes], list(sizes.values()))
    empty: dict[str, Any] = {name: getattr(path.ngrams, name)[:0] for name in names}
    ngrams = dataclasses.replace(path.ngrams, idf=path.ngrams.idf[stays], **empty)
    return LinearPath(ngrams, path.weights[stays], path.bias)


def _ragged(corpus: Corpus) -> Any:
    words = tf.constant([corpus.lexicon[word].encode() for word in corpus.ids], tf.string)
    return tf.RaggedTensor.from_row_lengths(words, corpus.lengths)


@pytest.mark.parametrize("without", [(), ("parts",), ("pairs",), ("pairs", "parts"), ("words", "pairs")], ids="-".join)
def test_scores_of_words(without: tuple[str, ...]) -> None:
    cleaner = Cleaner(CleaningConfig(lower_case=False))
    path = _without(_path(tokenise(FIELDS, cleaner), 2), *without)
    assert len(path.ngrams) > 100 and (SEP in path.ngrams.words) == ("words" not in without)
    given = tokenise([*SHOWN, *FIELDS, ("new words", "filmstrip", "")], cleaner)
    graph, texts, wanted = Scores(path), _ragged(given), path.scores(given)
    np.testing.assert_allclose(graph(texts), wanted, atol=ROUNDING)
    assert np.ptp(wanted[:, 0]) > 10
    alone = np.concatenate([graph(texts[row : row + 1]) for row in range(0, len(given), 9)])
    np.testing.assert_allclose(alone, wanted[::9], atol=ROUNDING)
    assert graph(texts[:0]).shape == (0, 2)
    np.testing.assert_array_equal(graph(_ragged(tokenise([UNKNOWN], cleaner))), path.bias[None])


def test_a_pair_has_two_known_words() -> None:
    ngrams = NGrams(("a", "b", "z"), np.array([2]), (), np.ones(4, np.float32))  # the pair is a z
    path = LinearPath(ngrams, np.diag([1, 1, 1, 10]).astype(np.float32), np.zeros(4, np.float32))
    given = tokenise([("b new",), ("new z",), ("a", "z"), ("a new z",), ("a z",)], Cleaner())
    np.testing.assert_allclose(Scores(path)(_ragged(given)), path.scores(given), atol=1e-6)
    assert (path.scores(given)[:, 3] > 0).tolist() == [False] * 4 + [True]


def test_its_numbers_are_beside_the_graph(tmp_path: Path) -> None:
    corpus = tokenise(FIELDS, Cleaner())
    path, words = _path(corpus), _ragged(corpus)
    graph = Scores(path)
    spec = [tf.TensorSpec([None], tf.string), tf.TensorSpec([None], tf.int64)]
    graph.scores = tf.function(lambda *given: graph(tf.RaggedTensor.from_row_lengths(*given)), input_signature=spec)
    tf.saved_model.save(graph, str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    found = loaded.scores(words.values, words.row_lengths())
    np.testing.assert_allclose(found, path.scores(corpus), atol=ROUNDING)
    for numbers in (path.weights, path.ngrams.idf, path.ngrams.pairs):
        assert numbers.tobytes()[:64] not in (tmp_path / "saved_model.pb").read_bytes()
        (kept,) = (tmp_path / "variables").glob("*.data*")
        assert numbers.tobytes() in kept.read_bytes()


def _tokeniser(kind: str, folder: Path) -> WordTokeniser | SubwordTokeniser:
    if kind == "subwords":
        cleaner = Cleaner(rule="unicode_runs")
        return SubwordTokeniser(cleaner, Subwords.build(tokenise(FIELDS * 2, cleaner), 300), 12)
    steps = CleaningConfig()
    if kind == "stop words":
        (folder / "stop").write_text("the a straße it's 漢")
        steps = CleaningConfig(stop_words=str(folder / "stop"))
    cleaner = Cleaner(steps)
    return WordTokeniser(cleaner, Vocabulary.build(tokenise(FIELDS, cleaner), 60), 12)


def _predictor(kind: str, folder: Path, num_classes: int = 3, join_fields: str = "sep") -> Predictor:
    """With a linear path; of two classes it is saved and read once more."""
    tokeniser = _tokeniser(kind, folder)
    config = TransformerConfig(tokeniser.size, num_classes, 12, width=16, ffn_width=16, num_layers=1, num_heads=2)
    multi_label = kind == "several labels"
    classes = [f"class {k}" for k in range(num_classes)]
    predictor = Predictor(config, tokeniser, classes, make_placement("cpu"), 64, join_fields, multi_label)
    rng = np.random.default_rng(1)
    for variable in predictor.model.trainable_variables:
        variable.assign(rng.normal(0, 0.5, variable.shape))
    predictor.temperature = 7.0
    predictor.linear = _path(tokeniser.tokenise(joined_fields(FIELDS, join_fields)), num_classes)
    if num_classes > 2:
        return predictor
    predictor.save(folder)
    return Predictor.load(folder, make_placement("cpu"))


def _classifier(predictor: Predictor) -> graph_model.Classifier:
    text = graph_model.TextGraph(predictor.tokeniser, predictor.join_fields, predictor.linear)
    about = predictor.classes, predictor.thresholds, exporting.number_of_fields(predictor), predictor.temperature
    with exporting._in_float32(predictor) as model:
        return graph_model.Classifier(text, model, *about)


def _answers(classifier: graph_model.Classifier, texts: Sequence[Fields]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What ``encode_fields`` and ``fields`` give, without the seconds that their graphs take."""
    classifier.ids = classifier.text
    ids = classifier._encode(tf.constant(texts))
    probabilities = tf.where(ids["has_words"][:, None], classifier.network(ids["tokens"], ids.get("scores")), 0.0)
    answers = {"probabilities": probabilities} | classifier._classes(probabilities, ids["has_words"])
    return _arrays(ids), _arrays(answers)


def _arrays(tensors: dict[str, Any]) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in tensors.items()}


CASES = [("words", 2, "sep"), ("stop words", 3, "sep"), ("several labels", 3, "space"), ("subwords", 3, "sep")]


@pytest.mark.parametrize(("kind", "num_classes", "join_fields"), CASES, ids=[case[0] for case in CASES])
def test_answers(kind: str, num_classes: int, join_fields: str, tmp_path: Path) -> None:
    predictor = _predictor(kind, tmp_path, num_classes, join_fields)
    encoded, rows = predictor.read(SHOWN)
    assert encoded.scores is not None
    wanted = predictor.probabilities(encoded)
    ids, found = _answers(_classifier(predictor), SHOWN)
    np.testing.assert_array_equal(np.flatnonzero(ids["has_words"]), rows)
    assert 10 < len(rows) < len(SHOWN)
    np.testing.assert_allclose(ids["scores"][rows], encoded.scores, atol=ROUNDING)
    np.testing.assert_allclose(found["probabilities"][rows], wanted, atol=1e-5)
    assert not np.delete(found["probabilities"], rows, 0).any()
    if predictor.thresholds is not None:
        assert found["predicted"][rows].tolist() == (wanted >= predictor.thresholds).tolist()
    else:
        assert found["label"][rows].tolist() == wanted.argmax(axis=1).tolist()
    network = dataclasses.replace(encoded, scores=np.zeros_like(encoded.scores))
    assert np.abs(predictor.probabilities(network) - wanted).max() > 0.2  # the linear path decides


def test_scores_are_float32_where_the_network_is_bfloat16(tmp_path: Path) -> None:
    with precision("bfloat16"):
        predictor = _predictor("words", tmp_path)
    encoded, rows = predictor.read(SHOWN)
    assert encoded.scores is not None
    ids, found = _answers(_classifier(predictor), SHOWN)
    np.testing.assert_allclose(ids["scores"][rows], encoded.scores, atol=ROUNDING)
    difference = np.abs(found["probabilities"][rows] - predictor.probabilities(encoded)).max()
    assert ids["scores"].dtype == np.float32 and difference < exporting._ROUNDED


def _tokens(predictor: Predictor, texts: Sequence[str]) -> np.ndarray:
    encoded = predictor.encode([(text,) for text in texts])
    tokens = np.zeros((len(texts), predictor.tokeniser.max_length), np.int32)
    tokens[np.arange(tokens.shape[1]) < encoded.lengths[:, None]] = encoded.ids
    return tokens


def _served(predictor: Predictor, change: Callable[[Any], Any]) -> exporting.Served:
    """Evaluation's own answers, with other scores, or with none where ``change`` gives None."""

    def encode(texts: Sequence[str]) -> dict[str, np.ndarray]:
        found = {"tokens": _tokens(predictor, texts), "has_words": np.ones(len(texts), bool)}
        scores = change(predictor.encode([(text,) for text in texts]).scores)
        return found if scores is None else found | {"scores": scores}

    def answer(texts: Sequence[str]) -> dict[str, np.ndarray]:
        probabilities = predictor.probabilities(predictor.encode([(text,) for text in texts]))
        return {"probabilities": probabilities, "label": probabilities.argmax(axis=1)}

    return exporting.Served(
        {"encode": encode, "serving_default": answer},
        lambda tokens, scores: predictor.activated(predictor.model(tokens).numpy() + scores),
    )


def test_other_scores_are_found(tmp_path: Path) -> None:
    predictor = _predictor("words", tmp_path)
    texts = [(text,) for text in TEXTS]
    found = exporting._differences(_served(predictor, lambda scores: scores), predictor, texts, 1e-4)
    assert found["largest_difference_onnx"] < 1e-5 and found["other_classes"] == 0
    for change in (lambda scores: scores + 0.1, lambda scores: scores * np.nan, lambda scores: None):
        with pytest.raises(UserError, match="the scores of the linear models differ"):
            exporting._differences(_served(predictor, change), predictor, texts, 1e-4)


def test_a_run_without_a_linear_path_has_no_scores(tmp_path: Path) -> None:
    predictor, given = _predictor("words", tmp_path), [("the film", "x")]
    outputs, probabilities = [], []
    for linear in (predictor.linear, None):
        predictor.linear = linear
        classifier = _classifier(predictor)
        ids, _ = _answers(classifier, given)
        said = exporting.describe(ExportConfig(onnx=False), tmp_path, predictor)["signatures"]
        assert ids.keys() == said["encode"]["outputs"].keys() == said["encode_fields"]["outputs"].keys()
        outputs.append(ids.keys())
        probabilities.append(_arrays(classifier._answer(tf.constant(given)))["probabilities"])
        np.testing.assert_allclose(probabilities[-1], predictor.probabilities(predictor.encode(given)), atol=1e-5)
    assert outputs == [{"tokens", "has_words", "scores"}, {"tokens", "has_words"}]
    assert np.abs(probabilities[0] - probabilities[1]).max() > 0.1


def test_onnx(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    predictor = _predictor("words", tmp_path)
    about = predictor.multi_label, predictor.temperature
    graph_model.write_onnx(predictor.model, *about, tmp_path / "network.onnx", with_scores=True)
    encoded = predictor.encode([(text,) for text in TEXTS])
    found = graph_model.read_onnx(tmp_path / "network.onnx")(_tokens(predictor, TEXTS), encoded.scores)
    np.testing.assert_allclose(found, predictor.probabilities(encoded), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("with_path", [True, False])
def test_a_folder(with_path: bool, tmp_path: Path) -> None:
    predictor = save(tmp_path)
    if with_path:
        predictor.linear = _path(predictor.tokeniser.tokenise(FIELDS))
        predictor.save(tmp_path / "model")
    out = tmp_path / "out"
    said = succeeds("export_text", f"--run_dir={tmp_path}", f"--out={out}", "--onnx=false")
    assert "0 predicted classes differ" in said
    functions = graph_model.read_saved_model(out)
    about = read_sealed(out / "export.json")
    for name, function in functions.items():
        found = function([["the film", "x"]] if "fields" in name else ["the film"])
        assert found.keys() == about["signatures"][name]["outputs"].keys()
    assert ("scores" in about["signatures"]["encode"]["outputs"]) == with_path
    encoded, rows = predictor.read(SHOWN)
    answers = functions["fields"]([list(fields) for fields in SHOWN])
    np.testing.assert_allclose(answers["probabilities"][rows], predictor.probabilities(encoded), atol=1e-5)
