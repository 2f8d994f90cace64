"""Several labels a text: loss, thresholds, figures, the artefact, and the tasks from end to end."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import sklearn.metrics as sk
from keras import ops
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import MultinomialNB

from files.errors import UserError
from tests.test_predictor import TEXTS
from text_cls.answers import predictions_csv
from text_cls.batches import evaluation_batches, training_batches
from text_cls.config import ClassifierConfig, DataConfig, FineTuningConfig
from text_cls.evaluation.class_weights import balanced_weights
from text_cls.evaluation.several_labels import average_precision, fit_thresholds, report
from text_cls.layers.transformer_config import TransformerConfig
from text_cls.linear.baselines import run_baseline
from text_cls.predictor import Predictor
from text_cls.report.text import as_text
from text_cls.tokens.encoding import Encoded
from text_cls.tokens.preprocess import Cleaner, tokenise
from text_cls.tokens.tokenisers import WordTokeniser
from text_cls.tokens.vocabulary import Vocabulary
from training.backends import Placement
from training.config import TrainingConfig
from training.objectives import multi_label_classification


def _random(rows: int = 200, num_classes: int = 7, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities with many ties, and labels; class 0 has none, class 1 all."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((rows, num_classes)) < 0.3).astype(np.uint8)
    labels[:, 0], labels[:, 1] = 0, 1
    probabilities = np.clip(rng.normal(0.4 + 0.2 * labels, 0.2), 0.01, 0.99).round(2).astype(np.float32)
    return probabilities, labels


def test_the_loss_is_that_of_keras_and_by_hand() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(0, 3, (5, 4)).astype("float32"), rng.integers(0, 2, (5, 4)).astype("uint8")
    wanted = keras.losses.binary_crossentropy(labels.astype("float32"), logits, from_logits=True)
    found = multi_label_classification(logits, labels)
    np.testing.assert_allclose(found["loss"], ops.convert_to_numpy(wanted), rtol=1e-5)
    right = ((logits >= 0) == (labels > 0)).all(axis=1)
    np.testing.assert_array_equal(found["subset_accuracy"], right.astype("float32"))
    smoothed = keras.losses.binary_crossentropy(labels.astype("float32"), logits, from_logits=True, label_smoothing=0.2)
    np.testing.assert_allclose(
        multi_label_classification(logits, labels, 0.2)["loss"], ops.convert_to_numpy(smoothed), rtol=1e-5
    )
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    weights = np.array([1.0, 2.0, 3.0, 0.5])
    weighted = -(weights * labels * np.log(p) + (1 - labels) * np.log(1 - p)).mean(axis=1)
    np.testing.assert_allclose(multi_label_classification(logits, labels, 0.0, weights)["loss"], weighted, rtol=1e-5)


def test_large_logits_have_a_finite_loss_in_half_precision_too() -> None:
    logits = ops.cast(np.array([[300.0, -300.0, 0.0]]), "bfloat16")
    values = multi_label_classification(logits, np.array([[0, 1, 1]], "uint8"))
    np.testing.assert_allclose(values["loss"], [(300 + 300 + np.log(2)) / 3], rtol=1e-2)
    assert keras.backend.standardize_dtype(values["loss"].dtype) == "float32"


def test_balanced_weights_are_negatives_by_positives() -> None:
    labels = np.array([[1, 0, 1, 0], [0, 0, 1, 0], [0, 0, 1, 1], [0, 0, 1, 1]], np.uint8)
    np.testing.assert_allclose(balanced_weights(labels, 4), [3.0, 1.0, 1.0, 1.0])
    np.testing.assert_allclose(balanced_weights(labels[:3], 4), [2.0, 1.0, 1.0, 2.0])


@pytest.mark.parametrize(
    ("scores", "labels", "threshold"),
    [
        ([0.9, 0.8, 0.3, 0.1], [1, 1, 0, 0], 0.5),  # all from .3 to .8 are as good
        ([0.9, 0.7, 0.6], [1, 0, 0], 0.8),
        ([0.4, 0.3, 0.1], [1, 0, 0], 0.35),
        ([0.4, 0.3, 0.1], [1, 1, 1], 0.05),
        ([0.9, 0.8], [1, 1], 0.5),
        ([0.2, 0.9], [0, 0], 0.5),  # none has the class
        ([0.6, 0.6, 0.4], [1, 0, 1], 0.2),  # F1: .5 at .6, .8 for all
        ([0.8, 0.7, 0.6, 0.3], [1, 0, 0, 1], 0.75),  # F1: 2/3 above .7, 2/3 for all; .75 is nearer to .5 than .15
        ([0.5], [1], 0.5),
        ([0.0, 0.0], [0, 1], 0.5),  # nothing tells the texts apart
        ([0.4, 0.3, 0.2, 0.1], [0, 0, 0, 1], 0.5),  # the best would be to give it to all
    ],
)
def test_thresholds_by_hand(scores: list[float], labels: list[int], threshold: float) -> None:
    found = fit_thresholds(np.array([scores]).T, np.array([labels]).T)
    np.testing.assert_allclose(found, [threshold])


def test_no_threshold_is_better_than_the_fitted() -> None:
    probabilities, labels = _random()
    thresholds = fit_thresholds(probabilities, labels)
    assert thresholds[0] == 0.5
    for k, threshold in enumerate(thresholds):
        found = sk.f1_score(labels[:, k], probabilities[:, k] >= threshold, zero_division=0)
        others = [sk.f1_score(labels[:, k], probabilities[:, k] >= t, zero_division=0) for t in np.linspace(0, 1, 201)]
        rare = threshold == 0.5 and labels[:, k].mean() <= 0.5  # and the best would be to give it to all
        assert found == pytest.approx(max(others), abs=1e-12) or (rare and max(others) == others[0])


def test_figures_are_scikit_learns() -> None:
    probabilities, labels = _random()
    thresholds = np.linspace(0.2, 0.8, 7)
    figures, predicted = report(probabilities, labels, list("abcdefg"), thresholds), probabilities >= thresholds
    for average in ("micro", "macro"):
        wanted = sk.precision_recall_fscore_support(labels, predicted, average=average, zero_division=0)
        found = [figures[f"{average}_{name}"] for name in ("precision", "recall", "f1")]
        np.testing.assert_allclose(found, wanted[:3])
    assert figures["hamming_loss"] == pytest.approx(sk.hamming_loss(labels, predicted))
    assert figures["subset_accuracy"] == pytest.approx(sk.accuracy_score(labels, predicted))
    precisions = [sk.average_precision_score(labels[:, k], probabilities[:, k]) for k in range(1, 7)]
    assert figures["mean_average_precision"] == pytest.approx(np.mean(precisions))
    loss = keras.losses.BinaryCrossentropy()(labels.astype("float32"), probabilities)
    assert figures["loss"] == pytest.approx(float(loss), rel=1e-5)
    rows = list(figures["per_class"].values())
    assert [row["average_precision"] for row in rows[1:]] == pytest.approx(precisions)
    assert rows[0]["average_precision"] is None and rows[0]["support"] == 0
    assert [row["threshold"] for row in rows] == thresholds.tolist()
    each = sk.precision_recall_fscore_support(labels, predicted, zero_division=0)
    np.testing.assert_allclose([[row[n] for row in rows] for n in ("precision", "recall", "f1", "support")], each)
    json.dumps(figures, allow_nan=False)


def test_average_precision_with_ties_and_without_positives() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        scores, truth = rng.integers(0, 4, 12) / 4, rng.random(12) < 0.4
        if truth.any():
            assert average_precision(scores, truth) == pytest.approx(sk.average_precision_score(truth, scores))
    assert np.isnan(average_precision(np.ones(3), np.zeros(3, bool)))


def test_a_split_without_any_label_has_figures() -> None:
    figures = report(np.full((3, 2), 0.2), np.zeros((3, 2), np.uint8), ["a", "b"])
    assert figures["mean_average_precision"] == 0.0 and figures["subset_accuracy"] == 1.0
    assert figures["micro_f1"] == 0.0 and "mean average precision 0.0000" in as_text(figures)


def test_probabilities_that_are_no_numbers() -> None:
    probabilities, labels = _random(20)
    probabilities[3, 4] = np.nan
    figures = report(probabilities, labels, list("abcdefg"), fit_thresholds(probabilities, labels))
    assert np.isnan(figures["loss"]) and np.isnan(figures["mean_average_precision"])
    assert figures["per_class"]["e"]["threshold"] == 0.5 and "loss nan" in as_text(figures)


def test_the_report_to_read() -> None:
    probabilities, labels = _random()
    lines = as_text(report(probabilities, labels, ["none\nat all", *"bcdefg"])).splitlines()
    assert lines[0].split() == ["precision", "recall", "f1", "avg.", "precision", "threshold", "support"]
    assert lines[1].startswith("none at all") and lines[1].split()[3:] == ["0.0000", "0.0000", "0.0000", "0.5000", "0"]
    assert lines[8].startswith("micro average") and lines[9].startswith("macro average") and len(lines) == 11
    assert all(name in lines[10] for name in ("mean average precision", "subset accuracy", "hamming loss", "loss"))


def _encoded(rows: int = 11) -> Encoded:
    lengths = np.random.default_rng(0).integers(2, 30, rows)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    labels = (np.random.default_rng(1).random((rows, 3)) < 0.5).astype(np.uint8)
    return Encoded(np.full(offsets[-1], 9, np.int32), offsets, labels)


def test_batches_have_a_row_of_labels_a_text() -> None:
    encoded = _encoded()
    for batches in (training_batches(encoded, 4, 0), evaluation_batches(encoded, 4, 64)):
        assert batches.spec.label.shape == (batches.spec.mask.shape[0], 3) and batches.spec.label.dtype == "uint8"
        for batch, _ in zip(batches, range(5), strict=False):
            assert batch.label.dtype == np.uint8
            real = batch.row >= 0
            np.testing.assert_array_equal(batch.label[real], encoded.labels[batch.row[real]])
            assert not batch.label[~real].any()


@pytest.mark.parametrize("name", ["naive_bayes", "logistic_regression", "linear_svm"])
def test_baselines_are_one_vs_rest(name: str) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (60, 4)).astype(np.uint8)
    labels[:, 2], labels[:, 3] = 0, 1
    x = csr_matrix(np.abs(labels @ rng.normal(size=(4, 8)) + rng.normal(0, 0.3, (60, 8))))
    train, test = x[:40], x[40:]
    [found] = run_baseline(name, train, labels[:40], [test])
    assert not found[:, 2].any() and (found[:, 3] == 1).all()
    assert ((found[:, :2] >= 0.5) == labels[40:, :2]).mean() > 0.8
    models = {"naive_bayes": MultinomialNB(alpha=0.1), "logistic_regression": LogisticRegression(C=10, max_iter=1000)}
    if name in models:
        wanted = OneVsRestClassifier(models[name]).fit(train, labels[:40, :2]).predict_proba(test)
        np.testing.assert_allclose(found[:, :2], wanted, rtol=1e-9)
    assert (found >= 0).all() and (found <= 1).all()


def test_predictions_list_every_class_above_its_threshold() -> None:
    probabilities = np.array([[0.3, 0.9, 0.5], [0.1, 0.2, 0.3], [0.2, 0.5, 0.4]])
    text = predictions_csv(["x", "y", "z"], probabilities, ["a", "b", "c"], thresholds=np.array([0.25, 0.5, 0.6]))
    assert text.splitlines() == [
        "id,label,class,confidence", "x,1,b,0.900000", "x,0,a,0.300000", "y,,,", "z,1,b,0.500000",
    ]  # fmt: skip


def _predictor(placement: Placement) -> Predictor:
    vocabulary = Vocabulary.build(tokenise(TEXTS, Cleaner()), 100)
    config = TransformerConfig(len(vocabulary), 3, 8, 16, 1, 2, 16)
    predictor = Predictor(config, WordTokeniser(Cleaner(), vocabulary, 8), "abc", placement, multi_label=True)
    rng = np.random.default_rng(0)
    for variable in predictor.model.trainable_variables:
        variable.assign(variable + rng.normal(0, 0.3, variable.shape))
    return predictor


def test_the_artefact_knows_labels_and_thresholds(tmp_path: Path, one_replica: Placement) -> None:
    predictor = _predictor(one_replica)
    encoded = predictor.encode(TEXTS)
    wanted = predictor.probabilities(encoded)
    batch = next(iter(evaluation_batches(encoded, 64, 8)))
    logits = ops.convert_to_numpy(predictor.model(batch.tokens, training=False))[batch.mask > 0]
    np.testing.assert_allclose(wanted[batch.row[batch.mask > 0]], 1 / (1 + np.exp(-logits)), rtol=1e-5)
    assert predictor.thresholds is not None and predictor.thresholds.tolist() == [0.5] * 3
    predictor.thresholds = np.array([0.1, 1 / 3, 0.7])
    predictor.save(tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text())
    assert raw["multi_label"] is True and raw["thresholds"] == [0.1, 1 / 3, 0.7]
    loaded = Predictor.load(tmp_path, one_replica)
    np.testing.assert_array_equal(loaded.probabilities(encoded), wanted)
    assert loaded.multi_label and loaded.thresholds is not None
    np.testing.assert_array_equal(loaded.thresholds, predictor.thresholds)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"thresholds": [0.5, 0.5]}, "thresholds"),
        ({"thresholds": [0.5, 0.5, "x"]}, "thresholds"),
        ({"thresholds": [0.5, 0.5, float("nan")]}, "thresholds"),
        ({"thresholds": [0.5, 0.5, True]}, "thresholds"),
        ({"thresholds": [0.5, 0.5, 2]}, "thresholds"),
        ({"thresholds": None}, "thresholds"),
        ({"multi_label": 1}, "multi_label"),
        ({"multi_label": None}, "multi_label"),
    ],
)
def test_damaged_artefacts_are_refused(tmp_path: Path, one_replica: Placement, changes: dict, named: str) -> None:
    _predictor(one_replica).save(tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text())
    del raw["sha256"]
    (tmp_path / "config.json").write_text(json.dumps(raw | changes))
    with pytest.raises(UserError, match=f"not a predictor's configuration .*{named}"):
        Predictor.load(tmp_path, one_replica)


def test_what_auto_selects() -> None:
    several = DataConfig(multi_label=True)
    assert ClassifierConfig().training.select == "loss"  # of the network and the linear models together
    assert FineTuningConfig().training.select == "auto"
    assert FineTuningConfig().settled().training.select == "accuracy"
    assert FineTuningConfig(data=several).settled().training.select == "mean_average_precision"
    given = FineTuningConfig(data=several, training=TrainingConfig(select="macro_f1"))
    assert given.settled() == given
