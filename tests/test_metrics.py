import math

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from text_cls.evaluation.class_weights import balanced_weights
from text_cls.evaluation.metrics import (
    FIGURES,
    MOST_DENSE,
    Counts,
    confusion_cells,
    flat,
    likeliest,
    negative_log_likelihood,
    report,
)
from text_cls.linear.baselines import MODELS, features, run_baseline
from text_cls.objective import token_rates
from text_cls.report.text import as_text
from text_cls.tokens.preprocess import Cleaner, tokenise
from training.figures import Cost

P = np.array([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.1, 0.5, 0.4]])
Y = np.array([0, 1, 1, 2])


def test_report_by_hand() -> None:
    figures = report(P, Y, ("a", "b", "c"))
    assert figures["accuracy"] == 0.5
    assert figures["loss"] == pytest.approx(-(math.log(0.8) + math.log(0.3) + math.log(0.7) + math.log(0.4)) / 4)
    assert figures["per_class"]["a"] == {"precision": 0.5, "recall": 1.0, "f1": pytest.approx(2 / 3), "support": 1}
    assert figures["per_class"]["b"] == {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2}
    assert figures["per_class"]["c"]["f1"] == 0.0
    assert figures["macro_f1"] == pytest.approx((2 / 3 + 0.5) / 3)
    assert figures["confusion"] == [[1, 0, 0], [1, 1, 0], [0, 1, 0]]


def test_calibration_error_by_hand() -> None:
    # Bins of 1/15: .8 right, .6 wrong, .7 right, .5 wrong, each alone in its bin.
    assert report(P, Y, ("a", "b", "c"))["calibration_error"] == pytest.approx((0.2 + 0.6 + 0.3 + 0.5) / 4)


def test_probabilities_that_are_no_numbers_are_figures_that_are_none() -> None:
    spoiled = P.copy()
    spoiled[0] = np.nan
    figures = report(spoiled, Y, ("a", "b", "c"))
    assert figures["accuracy"] == 0.25 and math.isnan(figures["loss"]) and math.isnan(figures["calibration_error"])
    assert figures["confusion"] == [[0, 0, 0], [1, 1, 0], [0, 1, 0]]
    assert "loss nan" in as_text(figures)


def test_balanced_weights_average_to_one() -> None:
    weights = balanced_weights(np.array([0, 0, 0, 1]), 3)
    np.testing.assert_allclose(weights, [4 / 9, 4 / 3, 0.0], rtol=1e-6)


def test_token_rates() -> None:
    figures = token_rates({"loss": 1.0, "tokens": 30.0, "positions": 40.0}, 10.0)
    assert figures == {"loss": 1.0, "tokens_per_second": 300.0, "padding": 0.25}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("classes", [2, 3])
def test_baselines_learn_words(name: str, classes: int) -> None:
    words = ["goal match", "market shares", "film music"][:classes]
    corpus = tokenise([(words[i % classes],) for i in range(30)], Cleaner())
    train, test = features(corpus, [tokenise([(w,) for w in words], Cleaner())])
    assert train.shape == (30, 3 * classes)  # two words and their pair
    [p] = run_baseline(name, train, np.arange(30) % classes, [test])
    np.testing.assert_allclose(p.sum(axis=1), 1.0)
    assert p.argmax(axis=1).tolist() == list(range(classes))


def test_baselines_of_classes_that_training_lacks() -> None:
    x = csr_matrix(np.eye(4, dtype=np.float32))
    for name in MODELS:
        (found,) = run_baseline(name, x, np.array([0, 2, 2, 0]), [x], num_classes=4)
        assert found.shape == (4, 4) and not found[:, [1, 3]].any() and np.allclose(found.sum(axis=1), 1)
        assert found.argmax(axis=1).tolist() == [0, 2, 2, 0]


def test_the_likelihood_is_bounded_on_both_sides() -> None:
    """Of rows with p(label) 0, 1 and ½: −log of 1e-12, 0 and log 2; rounding above 1 counts as 1."""
    p = np.array([[0.0, 1.0], [1.0000001, 0.0], [0.5, 0.5]], np.float32)
    expected = (12 * math.log(10) + 0.0 + math.log(2)) / 3
    found = negative_log_likelihood(p, np.array([0, 0, 1]))
    assert found == pytest.approx(expected, rel=1e-9) and isinstance(found, Cost)
    assert negative_log_likelihood(p[1:2], np.array([0])) == 0.0
    assert negative_log_likelihood(np.array([[3.0, 1.5]]), np.array([0])) == 0.0
    assert likeliest(np.array([[0.2, 0.8], [np.nan, 1.0], [np.inf, 0.0]])).tolist() == [1, -1, -1]


def test_classes_that_nothing_has_and_nothing_is_said_to_have() -> None:
    figures = report(P, Y, ("a", "b", "c", "d"))
    assert list(figures["per_class"]) == ["a", "b", "c", "d"]
    assert figures["per_class"]["d"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}
    assert figures["confusion"] == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert figures["macro_precision"] == pytest.approx((0.5 + 0.5) / 3)  # of a, b, c, as without the class d
    assert figures["macro_recall"] == pytest.approx((1.0 + 0.5) / 3)
    assert report(P[:, ::-1], np.array([2, 2, 1, 1]), ("c", "b", "a"))["macro_f1"] == 1.0  # every answer is right
    assert set(flat(figures)) == set(FIGURES) and flat(figures)["accuracy"] == 0.5
    counts = Counts(np.array([3, 0]), np.array([4, 0]), np.array([6, 2]))
    np.testing.assert_allclose(counts.scores(), [[0.75, 0.0], [0.5, 0.0], [0.6, 0.0]])
    nothing = np.zeros(3, np.int64)
    assert Counts(nothing, nothing, nothing).macro() == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("classes", [MOST_DENSE, MOST_DENSE + 1])
def test_both_forms_of_the_confusion(classes: int) -> None:
    """The matrix up to 200 classes, cells of more; of labels in a byte, too, whose products would not fit."""
    labels, guess = np.array([0, 100, 100, 100, 5], np.int8), np.array([classes - 1, 7, 100, 7, 5])
    figures = report(np.eye(classes)[guess], labels, [str(k) for k in range(classes)])
    cells = [[0, classes - 1, 1], [5, 5, 1], [100, 7, 2], [100, 100, 1]]
    if classes > MOST_DENSE:
        assert figures["confusion"] == cells
    else:
        matrix = np.zeros((classes, classes), int)
        for true, predicted, count in cells:
            matrix[true, predicted] = count
        assert figures["confusion"] == matrix.tolist() and isinstance(figures["confusion"][0][0], int)
    found = confusion_cells(figures["confusion"], classes)
    assert np.stack([found.true, found.predicted, found.texts], axis=1).tolist() == cells
    nothing = report(np.full((1, classes), np.nan), labels[:1], [str(k) for k in range(classes)])["confusion"]
    for part in confusion_cells(nothing, classes):  # no answer is a number; the numbers of no cells are integers too
        assert part.shape == (0,) and part.dtype.kind == "i"
