"""What a head is trained for: figures, intervals and simple models of a quantity, beside scikit-learn's."""

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from sklearn.preprocessing import StandardScaler

from training.figures import Cost
from vision_bridge.controls import LabelledRows, mlp_regression_probe, ridge_probe, rmse_interval
from vision_bridge.goals import Classification, Regression, make_goal


def test_figures_of_a_regression_are_scikit_learn_s() -> None:
    rng = np.random.default_rng(0)
    train, test = rng.normal(1e6, 30, 200), rng.normal(1e6, 30, 50)
    goal = make_goal((), train)
    assert goal == Regression(train.mean(), train.std())
    targets = goal.targets(test)
    outputs = (targets + rng.normal(0, 0.3, 50)).astype(np.float32)[:, None]
    values = {name: np.asarray(value) for name, value in goal.objective(outputs, targets).items()}
    guess = outputs[:, 0].astype(np.float64) * train.std() + train.mean()
    figures = goal.figures(values, targets)
    assert figures["rmse"] == pytest.approx(root_mean_squared_error(test, guess), rel=1e-4)
    assert figures["mae"] == pytest.approx(mean_absolute_error(test, guess), rel=1e-4)
    assert figures["r2"] == pytest.approx(r2_score(test, guess), abs=1e-4)
    assert [name for name, value in figures.items() if isinstance(value, Cost)] == ["loss", "rmse", "mae"]
    np.testing.assert_allclose(goal.answers(values), guess, rtol=1e-12)
    assert goal.predicted(outputs)[0] == f"{guess[0]:.4g}" and goal.named(test[:1]) == [f"{test[0]:.4g}"]


def test_an_interval_of_the_error_by_hand_and_by_trial() -> None:
    low, high = rmse_interval(np.array([1.0, -1.0, 3.0, -3.0]))
    half = 1.959964 * np.std([1, 1, 9, 9], ddof=1) / 2  # the mean square is 5
    assert (low, high) == pytest.approx((np.sqrt(5 - half), np.sqrt(5 + half)), rel=1e-5)
    rng = np.random.default_rng(0)
    found = [rmse_interval(rng.normal(0, 2, 200)) for _ in range(500)]
    assert 0.91 < np.mean([low <= 2 <= high for low, high in found]) < 0.98


def test_probes_of_a_quantity() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 5))
    label = 1000 + 50 * x[:, 0] - 20 * x[:, 1] + rng.normal(0, 5, 400)
    parts = [LabelledRows(x[a:b], label[a:b]) for a, b in ((0, 200), (200, 300), (300, 400))]
    found = ridge_probe(*parts)
    scaler = StandardScaler().fit(x[:200])
    model = Ridge(found.setting).fit(scaler.transform(x[:200]), label[:200])
    expected = root_mean_squared_error(label[300:], model.predict(scaler.transform(x[300:])))
    assert found.test == pytest.approx(expected)
    exact = LinearRegression().fit(x[:200], label[:200])
    assert found.test < 1.05 * root_mean_squared_error(label[300:], exact.predict(x[300:]))
    assert mlp_regression_probe(*parts, seed=0).test < 25  # of a deviation of 54
    baseline = make_goal((), label[:200]).baselines(label[:200], label[300:])
    assert baseline == {"mean": pytest.approx(np.sqrt(np.mean((label[300:] - label[:200].mean()) ** 2)))}


def test_a_quantity_in_parts_of_equal_size() -> None:
    goal = Regression(0.0, 1.0)
    names, number = goal.shown(np.arange(101.0))
    assert names == ("0 to 25", "25 to 50", "50 to 75", "75 to 100")
    assert np.bincount(number).tolist() == [25, 25, 25, 26]
    assert goal.shown(np.array([5.0, 5.0])).label.tolist() == [0, 0]


def test_classes_are_named_and_counted() -> None:
    goal = make_goal(("a", "b", "c"), np.array([0, 1, 2]))
    assert goal == Classification(("a", "b", "c")) and goal.outputs == 3 and goal.figure == "accuracy"
    logits = np.array([[0.0, 2.0, 1.0], [3.0, 0.0, 0.0], [0.0, 0.0, 1.0], [5.0, 0.0, 1.0]], np.float32)
    targets = np.array([1, 0, 0, 2])
    values = {name: np.asarray(value) for name, value in goal.objective(logits, targets).items()}
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    figures = goal.figures(values, targets)
    assert figures["loss"] == pytest.approx(-log_p[range(4), targets].mean(), rel=1e-6)
    assert figures["accuracy"] == 0.5 and isinstance(figures["loss"], Cost)
    assert goal.predicted(logits) == ["b", "a", "c", "a"] and goal.answers(values).tolist() == [1, 0, 2, 0]
    assert set(figures) == {"loss", "accuracy"}
    low, high = goal.interval(values)
    assert (round(low, 4), round(high, 4)) == (0.15, 0.85)  # Wilson's, of 2 in 4
