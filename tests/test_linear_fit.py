"""Fitting the linear path: the models, C and weights by rows that a model has not seen, the models on all rows."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.naive_bayes import MultinomialNB
from sklearn.svm import LinearSVC

from tests.little_corpus import fit, texts
from text_cls.config import ObjectiveConfig
from text_cls.evaluation.calibration import negative_log_likelihood
from text_cls.evaluation.class_weights import margin_weights
from text_cls.linear import fit as linear_fit
from text_cls.linear.fit import LinearFit, _folds
from text_cls.linear.fusion import fuse
from text_cls.linear.models import ALPHA, CS, linear_svm, naive_bayes
from text_cls.linear.ngrams import NGrams
from text_cls.tokens.preprocess import Corpus


def _features(count: int, classes: int) -> tuple[NGrams, Corpus, np.ndarray]:
    corpus, labels = texts(count, classes)
    return NGrams.build(corpus, with_parts=True, most=10**6), corpus, labels


@pytest.mark.parametrize("C", CS)
def test_scores_of_several_classes_are_the_margins_of_scikit_learn(C: float) -> None:
    ngrams, corpus, labels = _features(60, 3)
    x, (weights, bias) = ngrams.of(corpus), linear_svm(ngrams.of(corpus), labels, 3, None, C)
    svm = LinearSVC(C=C, random_state=0).fit(x, labels)
    np.testing.assert_allclose(x @ weights + bias, svm.decision_function(x), atol=1e-5)


def test_naive_bayes_is_that_of_scikit_learn() -> None:
    ngrams, corpus, labels = _features(60, 3)
    x, (weights, bias) = ngrams.of(corpus), naive_bayes(ngrams.of(corpus), labels, 3, None)
    bayes = MultinomialNB(alpha=ALPHA).fit(x, labels)
    np.testing.assert_allclose(softmax(x @ weights + bias, axis=1), bayes.predict_proba(x), atol=1e-5)


def test_two_classes_have_opposite_scores() -> None:
    ngrams, corpus, labels = _features(60, 2)
    weights, bias = linear_svm(ngrams.of(corpus), labels, 2, None, 1.0)
    scores = ngrams.of(corpus) @ weights + bias
    np.testing.assert_allclose(scores[:, 0], -scores[:, 1], atol=1e-6)
    assert (scores.argmax(axis=1) == labels).mean() > 0.9


def test_labels_that_no_training_text_has_or_every_one() -> None:
    ngrams, corpus, _ = _features(40, 3)
    labels = np.zeros((40, 3), np.uint8)
    labels[:, 1] = 1
    labels[:20, 2] = 1
    weights, bias = linear_svm(ngrams.of(corpus), labels, 3, None, 1.0)
    assert bias[:2].tolist() == [-1, 1] and not weights[:, :2].any() and weights[:, 2].any()
    assert LinearFit.of("words", (corpus, corpus), (labels[:, :2], labels[:, :2]), 2, None) is None  # all are alike


def test_a_class_that_no_training_text_has_gets_the_margin_of_the_others() -> None:
    ngrams, corpus, labels = _features(40, 2)
    weights, bias = linear_svm(ngrams.of(corpus), labels * 2, 4, None, 1.0)
    assert bias[[1, 3]].tolist() == [-1, -1] and not weights[:, [1, 3]].any()
    assert ((ngrams.of(corpus) @ weights + bias)[:, [0, 2]].argmax(axis=1) == labels).mean() > 0.9


def test_texts_of_one_class() -> None:
    """A part of a cross-validation may leave no other."""
    ngrams, corpus, labels = _features(20, 2)
    weights, bias = linear_svm(ngrams.of(corpus), np.ones_like(labels), 2, None, 1.0)
    assert bias.tolist() == [-1, 1] and not weights.any()


def test_class_weights_raise_the_scores_of_a_rare_class() -> None:
    ngrams, corpus, labels = _features(90, 3)
    rare, x = np.where((labels == 2) & (np.arange(90) > 20), 0, labels).astype(np.int32), ngrams.of(corpus)
    fitted = [linear_svm(x, rare, 3, weights, 0.3) for weights in (None, np.array([1, 1, 8], np.float32))]
    plain, weighted = ((x @ weights + bias)[:, 2].mean() for weights, bias in fitted)
    assert weighted > plain + 0.1


@pytest.mark.parametrize("shape", [(), (2,)], ids=["one label", "several"])
def test_every_row_is_in_one_part_and_every_class_in_each(shape: tuple[int, ...]) -> None:
    labels = np.random.default_rng(0).integers(0, 2, (41, *shape)) * (1 if shape else 2)
    parts = _folds(labels)
    assert sorted(np.concatenate(parts).tolist()) == list(range(41)) and len(parts) == 4
    everywhere = [{tuple(np.ravel(row)) for row in labels[part]} for part in parts]
    assert all(sets == everywhere[0] for sets in everywhere) and len(everywhere[0]) == (4 if shape else 2)
    assert [part.tolist() for part in _folds(np.array([0, 1]))] != [] and len(_folds(np.array([0, 1]))) == 2


def _unseen(x: np.ndarray, labels: np.ndarray, parts: list[np.ndarray], C: float) -> list[np.ndarray]:
    """Scores of rows by scikit-learn's models, fitted on the others."""
    svm, bayes = np.zeros((len(x), 3)), np.zeros((len(x), 3))
    for part in parts:
        others = np.setdiff1d(np.arange(len(x)), part)
        svm[part] = LinearSVC(C=C, random_state=0).fit(x[others], labels[others]).decision_function(x[part])
        model = MultinomialNB(alpha=ALPHA).fit(x[others], labels[others])
        bayes[part] = model.predict_joint_log_proba(x[part])
        centre = model.feature_log_prob_.mean(axis=0)
        bayes[part] -= (x[part] @ centre)[:, None] + model.class_log_prior_.mean()
    return [svm, bayes]


@pytest.mark.parametrize("few", [True, False], ids=["cross-validated", "validation alone"])
def test_c_and_weights_make_unseen_labels_likeliest(monkeypatch: pytest.MonkeyPatch, few: bool) -> None:
    if not few:
        monkeypatch.setattr(linear_fit, "MOST_CROSS_VALIDATED", 1)
    found, corpora, labels = fit()
    x, every = np.concatenate([found.ngrams.of(corpus).toarray() for corpus in corpora]), np.concatenate(labels)
    parts = _folds(every) if few else [np.arange(60, 80)]
    rows = np.concatenate(parts)
    losses = {}
    for C in CS:
        scores = [part[rows] for part in _unseen(x, every, parts, C)]
        fused = fuse(np.zeros_like(scores[0]), scores, every[rows])
        losses[C] = negative_log_likelihood(fused.logits, every[rows])
        if found.C == C:
            np.testing.assert_allclose(list(found.weights.values()), fused.weights, rtol=0.02, atol=1e-3)
            wanted = np.zeros((80, 3))
            wanted[rows] = sum(w * part for w, part in zip(found.weights.values(), scores, strict=True))
            np.testing.assert_allclose(found.scores, wanted[60:], atol=2e-2)
    assert losses[found.C] <= min(losses.values()) + 1e-6
    assert list(found.weights) == ["linear_svm", "naive_bayes"]


def test_the_path_is_the_models_on_all_rows_times_the_factor() -> None:
    found, corpora, labels = fit()
    x, every = np.concatenate([found.ngrams.of(corpus).toarray() for corpus in corpora]), np.concatenate(labels)
    corpus, _ = texts(9, 3, seed=2)
    other = found.ngrams.of(corpus)
    svm = LinearSVC(C=found.C, random_state=0).fit(x, every).decision_function(other.toarray())
    weights, bias = naive_bayes(found.x, every, 3, None)
    wanted = 0.7 * (found.weights["linear_svm"] * svm + found.weights["naive_bayes"] * (other @ weights + bias))
    np.testing.assert_allclose(found.path(0.7).scores(corpus), wanted, atol=2e-2)
    np.testing.assert_allclose(found.path(1.4).scores(corpus), 2 * found.path(0.7).scores(corpus), rtol=1e-5)


@pytest.mark.parametrize("kind", ["none", "auto", "words", "parts"])
def test_kinds(kind: str) -> None:
    (train, truth), (validation, other) = texts(60, 3), texts(20, 3)
    corpora, labels = (train, validation), (truth, other)
    found = LinearFit.of(kind, corpora, labels, 3, None)
    assert (found is None) == (kind == "none")
    assert found is None or bool(found.ngrams.parts) == (kind != "words")


@pytest.mark.parametrize("choices", [{"class_weights": "balanced"}, {"logit_adjustment": 1.0}], ids=str)
def test_a_class_that_validation_texts_alone_have(choices: dict) -> None:
    train, labels = texts(60, 2)
    validation, others = texts(20, 3, seed=1)
    weights = margin_weights(ObjectiveConfig(**choices), labels, 3)
    found = LinearFit.of("words", (train, validation), (labels, others), 3, weights)
    assert found is not None and weights is not None and weights[2] == 1
    path = found.path(1.0)
    assert np.isfinite(path.weights).all() and np.isfinite(path.bias).all() and np.isfinite(found.scores).all()
    assert (path.scores(validation).argmax(axis=1) == others).mean() > 0.9
