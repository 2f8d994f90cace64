"""The linear path beside the network: its scores, its weight, its file, and a run with it."""

import dataclasses
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from scipy.optimize import check_grad
from scipy.special import log_softmax, softmax
from sklearn.naive_bayes import MultinomialNB
from sklearn.svm import LinearSVC

from files.errors import UserError
from text_cls.calibration import negative_log_likelihood
from text_cls.class_weights import margin_weights
from text_cls.config import ObjectiveConfig
from text_cls.linear_models import ALPHA, C_OF_SEVERAL
from text_cls.linear_path import LinearFit, LinearPath, _cross_entropy, _smoothed, fuse
from text_cls.ngrams import NGrams
from text_cls.preprocess import Cleaner, Corpus, tokenise
from text_cls.word_parts import _MOST_DIGITS

RNG = np.random.default_rng(0)
WORDS = {0: "good fine great film", 1: "bad poor dull film", 2: "goal match team film"}


def _texts(count: int, classes: int, seed: int = 0) -> tuple[Corpus, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count).astype(np.int32)
    texts = [(" ".join(rng.choice([*WORDS[int(k)].split(), "a", "the", "of"], 6)),) for k in labels]
    return tokenise(texts, Cleaner()), labels


def _fit(classes: int = 3, kind: str = "parts") -> tuple[LinearFit, tuple[Corpus, Corpus], tuple]:
    train, validation = _texts(60, classes), _texts(20, classes, seed=1)
    corpora, labels = (train[0], validation[0]), (train[1], validation[1])
    found = LinearFit.of(kind, corpora, labels, classes, None)
    assert found is not None
    return found, corpora, labels


def test_scores_of_several_classes_are_the_margins_of_scikit_learn() -> None:
    found, (train, validation), (labels, _) = _fit()
    svm = LinearSVC(C=C_OF_SEVERAL, random_state=0).fit(found.ngrams.of(train), labels)
    np.testing.assert_allclose(found.scores[0], svm.decision_function(found.ngrams.of(validation)), atol=1e-5)


def test_the_path_of_the_run_has_seen_the_validation_texts_too() -> None:
    found, (train, validation), labels = _fit()
    x = np.concatenate([found.ngrams.of(corpus).toarray() for corpus in (train, validation)])
    svm = LinearSVC(C=C_OF_SEVERAL, random_state=0).fit(x, np.concatenate(labels))
    other, _ = _texts(9, 3, seed=2)
    np.testing.assert_allclose(
        found.path((1.0, 0.0)).scores(other), svm.decision_function(found.ngrams.of(other).toarray()), atol=2e-2
    )


def test_two_classes_have_opposite_scores() -> None:
    found, _, (_, truth) = _fit(classes=2)
    np.testing.assert_allclose(found.scores[0][:, 0], -found.scores[0][:, 1], atol=1e-6)
    assert (found.scores[0].argmax(axis=1) == truth).mean() > 0.9


def test_labels_that_no_training_text_has_or_every_one() -> None:
    train, _ = _texts(40, 3)
    labels = np.zeros((40, 3), np.uint8)
    labels[:, 1] = 1
    labels[:20, 2] = 1
    found = LinearFit.of("words", (train, train), (labels, labels), 3, None)
    assert found is not None
    assert (found.scores[0][:, 0] == -1).all() and (found.scores[0][:, 1] == 1).all()
    assert LinearFit.of("words", (train, train), (labels[:, :2], labels[:, :2]), 2, None) is None  # all are alike


def test_a_class_that_no_training_text_has_gets_the_margin_of_the_others() -> None:
    train, labels = _texts(40, 2)
    found = LinearFit.of("words", (train, train), (labels * 2, labels * 2), 4, None)
    assert found is not None
    assert (found.scores[0][:, [1, 3]] == -1).all()
    assert (found.scores[0][:, [0, 2]].argmax(axis=1) == labels).mean() > 0.9


def test_naive_bayes_is_that_of_scikit_learn() -> None:
    found, (train, validation), (labels, _) = _fit()
    bayes = MultinomialNB(alpha=ALPHA).fit(found.ngrams.of(train), labels)
    np.testing.assert_allclose(
        softmax(found.scores[1], axis=1), bayes.predict_proba(found.ngrams.of(validation)), atol=1e-5
    )


def test_the_path_is_the_sum_of_the_models() -> None:
    found, _, _ = _fit()
    corpus, _ = _texts(7, 3, seed=3)
    svm, bayes, both = (found.path(weights).scores(corpus) for weights in ((1.0, 0.0), (0.0, 1.0), (2.0, 0.5)))
    np.testing.assert_allclose(both, 2 * svm + 0.5 * bayes, atol=1e-5)
    np.testing.assert_allclose(found.weighed((2.0, 0.5)), 2 * found.scores[0] + 0.5 * found.scores[1], atol=1e-5)


@pytest.mark.parametrize("kind", ["none", "auto", "words", "parts"])
def test_kinds(kind: str) -> None:
    corpora, labels = zip(_texts(60, 3), _texts(20, 3), strict=True)
    found = LinearFit.of(kind, corpora, labels, 3, None)
    assert (found is None) == (kind == "none")
    assert found is None or bool(found.ngrams.parts) == (kind != "words")


def test_class_weights_raise_the_scores_of_a_rare_class() -> None:
    train, labels = _texts(90, 3)
    rare = np.where((labels == 2) & (np.arange(90) > 20), 0, labels).astype(np.int32)
    plain, weighted = (
        LinearFit.of("words", (train, train), (rare, rare), 3, weights)
        for weights in (None, np.array([1, 1, 8], np.float32))
    )
    assert plain is not None and weighted is not None
    assert weighted.scores[0][:, 2].mean() > plain.scores[0][:, 2].mean() + 0.1


def test_contributions_and_bias_add_up_to_the_scores() -> None:
    path = _fit()[0].path((1.0, 0.3))
    corpus, _ = _texts(7, 3, seed=3)
    rows, labels = np.repeat(np.arange(len(corpus)), corpus.lengths), np.arange(7) % 3
    added = path.contributions(corpus, labels.tolist())
    assert added.shape == corpus.ids.shape and added.dtype == np.float32
    total = np.bincount(rows, added, len(corpus)) + path.bias[labels]
    np.testing.assert_allclose(total, path.scores(corpus)[np.arange(7), labels], atol=1e-5)
    assert path.contributions(tokenise([], Cleaner()), []).shape == (0,)


def test_contributions_need_memory_in_proportion_to_the_words() -> None:
    """The features of a text are not repeated for each of its words."""
    words = [f"w{place}" for place in range(2000)]
    corpus = tokenise([(" ".join(words),)] * 2, Cleaner())
    ngrams = NGrams.build(corpus, with_parts=False, most=10**6)
    path = LinearPath(ngrams, np.ones((len(ngrams), 2), np.float32), np.zeros(2, np.float32))
    tracemalloc.start()
    path.contributions(corpus, [0, 1])
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(ngrams) > 3900 and most < 4_000_000  # bytes; a value for each word and feature: 64,000,000


@pytest.mark.parametrize("shape", [(5,), (5, 3)], ids=["one label", "several"])
def test_the_cross_entropy_and_its_gradient(shape: tuple[int, ...]) -> None:
    labels = RNG.integers(0, 3 if len(shape) == 1 else 2, shape)
    target, several = _smoothed(labels, 3), len(shape) == 2
    np.testing.assert_allclose(target.sum(axis=1), labels.sum(axis=1) * 5 / 6 + 1.5 / 6 if several else 1)

    def value(x: np.ndarray) -> float:
        return _cross_entropy(x.reshape(5, 3), target, several)[0]

    x = RNG.normal(size=15)
    assert check_grad(value, lambda x: _cross_entropy(x.reshape(5, 3), target, several)[1].ravel(), x) < 1e-6
    losses = keras.losses
    wanted = (
        losses.BinaryCrossentropy(from_logits=True) if several else losses.CategoricalCrossentropy(from_logits=True)
    )
    np.testing.assert_allclose(value(x), float(wanted(target, x.reshape(5, 3))), rtol=1e-5)


def test_logits_are_bounded_where_no_row_is_wrong() -> None:
    labels = np.arange(30) % 3
    perfect = np.eye(3, dtype=np.float32)[labels]
    found = fuse(perfect, [perfect], labels)
    confidence = softmax(found.logits.astype(np.float64), axis=1).max(axis=1)
    np.testing.assert_allclose(confidence, 30 / 31 + 1 / 93, atol=1e-3)  # that of the smoothed labels


def test_the_weight_is_that_with_the_least_loss_over_temperatures() -> None:
    labels = RNG.integers(0, 3, 400)
    network, scores = (RNG.normal(size=(400, 3)) + size * np.eye(3)[labels] for size in (1.0, 2.0))
    network, scores = 3 * network, 0.5 * scores
    found = fuse(network.astype(np.float32), [scores.astype(np.float32)], labels)

    def loss(a: float, s: float) -> float:
        return -log_softmax(a * network + s * scores, axis=1)[np.arange(400), labels].mean()

    least = min(loss(a, s) for a in np.linspace(0.1, 1, 40) for s in np.linspace(0, 8, 80))
    assert negative_log_likelihood(found.logits, labels) <= least + 2e-4
    assert 6 < found.weights[0] < 20  # 12 by construction


def test_scores_that_say_nothing_have_no_weight() -> None:
    labels = RNG.integers(0, 2, 200)
    network = (2 * np.eye(2)[labels] + RNG.normal(size=(200, 2))).astype(np.float32)
    against = -np.eye(2)[labels].astype(np.float32)
    assert fuse(network, [against], labels).weights == (0,)
    assert fuse(np.full((200, 2), np.nan, np.float32), [against], labels).weights == (0,)
    assert fuse(network[:0], [against[:0]], labels[:0]).weights == (0,)


def test_what_is_saved_is_read(tmp_path: Path) -> None:
    path = _fit()[0].path((2.5, 0.5))
    path.save(tmp_path / "linear.npz")
    corpus, _ = _texts(5, 3, seed=4)
    np.testing.assert_array_equal(LinearPath.load(tmp_path / "linear.npz", 3).scores(corpus), path.scores(corpus))
    without = dataclasses.replace(path, ngrams=NGrams((), path.ngrams.pairs[:0], (), path.ngrams.idf[:0]))
    without = dataclasses.replace(without, weights=path.weights[:0])
    without.save(tmp_path / "empty.npz")
    np.testing.assert_array_equal(LinearPath.load(tmp_path / "empty.npz", 3).scores(corpus), np.tile(path.bias, (5, 1)))


@pytest.mark.parametrize("fault", ["classes", "missing", "shape", "kind", "truncated", "absent"])
def test_a_damaged_file_is_refused(tmp_path: Path, fault: str) -> None:
    file, path = tmp_path / "linear.npz", _fit()[0].path((1.0, 0.3))
    path.save(file)
    arrays = dict(np.load(file))
    if fault == "missing":
        del arrays["idf"]
    if fault == "shape":
        arrays["weights"] = arrays["weights"][1:]
    if fault == "kind":
        arrays["pairs"] = arrays["pairs"].astype(float)
    if fault == "absent":
        file.unlink()
    elif fault == "truncated":
        file.write_bytes(file.read_bytes()[:200])
    else:
        np.savez(file, **arrays)
    with pytest.raises(UserError, match=r"linear\.npz"):
        LinearPath.load(file, 4 if fault == "classes" else 3)


def _swapped(texts: np.ndarray) -> np.ndarray:
    first, second, *rest = str(texts).split("\n")
    return np.array("\n".join([second, first, *rest]))


def _first(text: str) -> Callable[[np.ndarray], np.ndarray]:
    """With this in the place of the first."""
    return lambda texts: np.array("\n".join([text, *str(texts).split("\n")[1:]]))


def _last(value: float) -> Callable[[np.ndarray], np.ndarray]:
    """With this in the place of the last."""
    return lambda array: np.concatenate([array.ravel()[:-1], np.array([value], array.dtype)]).reshape(array.shape)


WRONG = [
    ("words", _swapped), ("words", _first("bad")), ("parts", _swapped), ("parts", _first("a")),
    ("parts", _first(" aaaaa")), ("parts", _first(" b")), ("pairs", lambda pairs: pairs[::-1]), ("pairs", _last(10**6)),
    ("pairs", lambda pairs: np.concatenate([[-1], pairs[1:]])),
    ("pairs", lambda pairs: np.sort([*pairs[1:], pairs[1]])),
    ("pairs", lambda pairs: pairs.astype(np.int32)), ("idf", _last(0)), ("idf", _last(np.inf)), ("idf", _last(-1)),
    ("weights", _last(np.nan)), ("bias", _last(np.inf)), ("bias", lambda bias: bias.astype(np.float64)),
    ("weights", lambda weights: weights.astype(np.float16)),
]  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """The arrays of a file."""
    file = tmp_path_factory.mktemp("whole") / "linear.npz"
    _fit()[0].path((1.0, 0.3)).save(file)
    return dict(np.load(file))


@pytest.mark.parametrize(("name", "change"), WRONG)
def test_a_file_of_wrong_contents_is_refused(
    tmp_path: Path, whole: dict[str, np.ndarray], name: str, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    """Searches in what is in no order would answer, and wrongly."""
    changed = change(whole[name])
    assert changed.shape == whole[name].shape and (changed.dtype, changed.tolist()) != (
        whole[name].dtype, whole[name].tolist())  # fmt: skip
    np.savez(tmp_path / "linear.npz", **whole | {name: changed})
    with pytest.raises(UserError, match=r"linear\.npz: damaged: "):
        LinearPath.load(tmp_path / "linear.npz", 3)


def test_parts_of_more_characters_than_a_number_holds_are_refused() -> None:
    parts = ["".join(map(chr, range(start, start + 5))) for start in range(0x4E00, 0x4E00 + _MOST_DIGITS + 5, 5)]
    for count, fits in ((_MOST_DIGITS // 5, True), (_MOST_DIGITS // 5 + 1, False)):
        idf = np.ones(count, np.float32)
        assert NGrams((), np.zeros(0, np.int64), tuple(parts[:count]), idf).is_whole() == fits


def test_what_is_read_has_cut_the_known_words(tmp_path: Path) -> None:
    """The first text does not wait for it."""
    path = _fit()[0].path((1.0, 0.3))
    path.save(tmp_path / "linear.npz")
    assert {"_places", "_parts_of_known"} <= vars(LinearPath.load(tmp_path / "linear.npz", 3).ngrams).keys()


def test_the_temperature_belongs_to_the_sum_also_where_no_row_is_wrong() -> None:
    labels = np.arange(40) % 2
    network, scores = (size * np.eye(2, dtype=np.float32)[labels] + RNG.normal(0, 0.1, (40, 2)) for size in (1, 3))
    found = fuse(network, [scores], labels)
    np.testing.assert_allclose(found.logits * found.temperature, network + found.weights[0] * scores, atol=1e-4)
    assert found.temperature != 1


@pytest.mark.parametrize("choices", [{"class_weights": "balanced"}, {"logit_adjustment": 1.0}], ids=str)
def test_a_class_that_validation_texts_alone_have(choices: dict) -> None:
    train, labels = _texts(60, 2)
    validation, others = _texts(20, 3, seed=1)
    weights = margin_weights(ObjectiveConfig(**choices), labels, 3)
    found = LinearFit.of("words", (train, validation), (labels, others), 3, weights)
    assert found is not None and weights is not None and weights[2] == 1
    path = found.path((1.0, 0.2))
    assert np.isfinite(path.weights).all() and np.isfinite(path.bias).all()
    assert (path.scores(validation).argmax(axis=1) == others).mean() > 0.9
