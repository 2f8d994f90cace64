"""The parts of t-SNE by hand and by brute force: affinities, the divergence, one step of the descent, when it ends."""

from collections import deque
from itertools import pairwise

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.sparse import csr_matrix
from scipy.spatial.distance import pdist, squareform

from files.errors import UserError
from vision_bridge.layouts import tsne
from vision_bridge.layouts.laplacian import inverse_kernel
from vision_bridge.layouts.tsne import Value, affinities, attraction, check_perplexity, descend, entropy, kl_divergence

RNG = np.random.default_rng(0)
CLOUD = squareform(pdist(RNG.normal(size=(40, 3)) + 4 * RNG.normal(size=(4, 3)).repeat(10, axis=0)))
POINTS = RNG.normal(size=(40, 2))


def _conditional(distances: np.ndarray, perplexity: float, near: int) -> np.ndarray:
    """p_j|i in float64: the precision at which the entropy is log(perplexity), by Brent's method."""
    found = np.zeros_like(distances)
    for i, row in enumerate(distances):
        others = sorted((j for j in range(len(row)) if j != i), key=lambda j: row[j])[:near]
        square = row[others] ** 2

        def share(beta: float, square: np.ndarray = square) -> np.ndarray:
            weight = np.exp(-beta * (square - square.min()))
            return weight / weight.sum()

        def excess(beta: float, share: object = share) -> float:
            p = share(beta)  # type: ignore[operator]
            return float(-(p * np.log(np.maximum(p, 1e-300))).sum() - np.log(perplexity))

        found[i, others] = share(brentq(excess, 1e-6, 1e4, xtol=1e-14))
    return found


@pytest.mark.parametrize(("perplexity", "all_pairs", "near"), [(4.0, False, 12), (4.5, False, 13), (4.0, True, 39)])
@pytest.mark.parametrize("scale", [1.0, 0.02, 50.0, 1e-5, 1e5])
def test_affinities_by_brute_force(perplexity: float, all_pairs: bool, near: int, scale: float) -> None:
    conditional = _conditional(CLOUD, perplexity, near)
    distances = (scale * CLOUD).astype(np.float32)
    kept = distances.copy()
    found = affinities(distances, perplexity, all_pairs)
    np.testing.assert_allclose(found.toarray(), (conditional + conditional.T) / 80, rtol=2e-3, atol=1e-7)
    np.testing.assert_array_equal(distances, kept)
    assert found.dtype == np.float32 and found.sum() == pytest.approx(1.0, abs=1e-5)
    assert (found != affinities(distances, perplexity)).nnz == 0 or all_pairs


def test_affinities_of_points_that_are_all_far() -> None:
    """Squared distances of 10,000 and a little: their exponentials would all be 0."""
    distances = CLOUD + 100 * (1 - np.eye(40))
    conditional = _conditional(distances, 4.0, 12)
    np.testing.assert_allclose(affinities(distances, 4.0).toarray(), (conditional + conditional.T) / 80, atol=1e-5)


def test_affinities_of_a_point_that_is_far_from_all_others() -> None:
    """Its squared distances are 10,000 and all alike, the others' are small; it is the last, and nobody's neighbour."""
    rng = np.random.default_rng(2)
    points = np.concatenate([rng.normal(0, 0.1, size=(20, 3)), [[100.0, 0.0, 0.0]]])
    distances = squareform(pdist(points))
    conditional = _conditional(distances, 4.0, 12)
    assert not conditional[:, 20].any() and conditional[20].max() < 0.5
    found = affinities(distances, 4.0)
    assert found.shape == (21, 21)
    np.testing.assert_allclose(found.toarray(), (conditional + conditional.T) / 42, rtol=2e-3, atol=1e-6)


def test_all_pairs_are_all_pairs() -> None:
    """Sixteen points that are about equally far: each has fifteen neighbours, the farthest of which counts."""
    distances = squareform(1 + 0.1 * np.random.default_rng(5).random(120))
    conditional = _conditional(distances, 5.0, 15)
    found = affinities(distances, 5.0, True)
    assert found.nnz == 240
    np.testing.assert_allclose(found.toarray(), (conditional + conditional.T) / 32, rtol=2e-3)


def test_affinities_of_equally_near_points() -> None:
    """Groups of five that are equally far from one another: each of the four neighbours has a quarter."""
    group = np.repeat(np.arange(3), 5)
    distances = np.where(group[:, None] == group, 1.0, 100.0)
    np.fill_diagonal(distances, 0.0)
    expected = np.where((group[:, None] == group) & ~np.eye(15, dtype=bool), 1 / 60, 0.0)
    np.testing.assert_allclose(affinities(distances, 4.0).toarray(), expected, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("near", [7, 90])
def test_the_nearest_in_blocks_of_rows(near: int) -> None:
    distances = squareform(pdist(np.random.default_rng(1).normal(size=(600, 4))))
    columns, square = tsne._nearest(distances, near)
    order = np.argsort(distances + np.diag(np.full(600, np.inf)), axis=1)[:, :near]
    np.testing.assert_array_equal(np.sort(columns, axis=1), np.sort(order, axis=1))
    np.testing.assert_allclose(square, np.take_along_axis(distances, columns, axis=1) ** 2, rtol=1e-5)
    assert columns.dtype == np.int32 and square.dtype == np.float32


def test_how_many_points_a_perplexity_needs() -> None:
    check_perplexity(13, 4.0)
    check_perplexity(5, 1.25)
    for count, perplexity, most in ((12, 4.0, 3), (100, 1.0, 33), (6, 2.0, 1), (0, 2.0, 0)):
        with pytest.raises(
            UserError,
            match=f"^{count} features are too few for a perplexity of {perplexity:g}, .*: use at most {most}$",
        ):
            check_perplexity(count, perplexity)
        with pytest.raises(UserError, match="too few"):
            affinities(np.zeros((count, count)), perplexity)


def test_entropy_and_attraction_by_hand() -> None:
    joint = csr_matrix((np.array([0.5, 0.25, 0.25, 0.0]), ([0, 1, 2, 2], [1, 0, 0, 1])), (3, 3))
    assert entropy(joint) == pytest.approx(1.5 * np.log(2), rel=1e-12)
    assert attraction(joint, np.array([2.0, 4.0, 1.0, 9.0])) == pytest.approx(np.log(2), rel=1e-12)


@pytest.mark.parametrize("count", [40, 300])
def test_the_divergence_by_brute_force(count: int) -> None:
    rng = np.random.default_rng(count)
    distances, points = squareform(pdist(rng.normal(size=(count, 3)))), rng.normal(size=(count, 2))
    p = affinities(distances, 5.0)
    q = 1 / (1 + squareform(pdist(points)) ** 2)
    np.fill_diagonal(q, 0.0)
    q /= q.sum()
    dense = p.toarray().astype(np.float64)
    there = dense > 0
    expected = (dense[there] * np.log(dense[there] / q[there])).sum()
    assert kl_divergence(p, points) == pytest.approx(expected, rel=1e-4)


def test_the_largest_rate_by_hand() -> None:
    """A layout 10 wide, whose longest move is 5: (0.1 + 10/20)/5; no move at all has no limit."""
    points, direction = np.array([[0.0, 20], [10, 21], [4, 23]]), np.array([[3.0, 4], [0, 1], [1, 0]])
    assert tsne._max_rate(points, direction) == pytest.approx(0.12, rel=1e-12)
    assert tsne._max_rate(points, 0 * direction) == pytest.approx(0.6e30, rel=1e-12)


def _squares(points: np.ndarray) -> Value:
    return Value(float(np.square(points).sum()), 2 * points)


def test_the_line_search_by_hand() -> None:
    """From 1 by −8: 49, 9, 1, 0 at rates 1, ½, ¼, ⅛; the third does not fall enough. Upwards, a thousandth ends it."""
    current = tsne._at(_squares, np.array([[1.0, 0.0]]))
    step = tsne._line_search(_squares, current, np.array([[-8.0, 0.0]]), 1.0)
    assert step.rate == 0.125 and step.candidate.value == 0.0 and not step.candidate.points.any()
    np.testing.assert_array_equal(step.candidate.gradient, [[0, 0]])
    assert tsne._line_search(_squares, current, np.array([[-1.0, 0.0]]), 0.5).rate == 0.5
    # A fall of 2e-4 by a slope of −4 is less than 1e-4 of the slope.
    assert tsne._line_search(_squares, current, np.array([[-1.9999, 0.0]]), 1.0).rate == 0.5
    for first in (1.0, 0.25):
        assert tsne._line_search(_squares, current, np.array([[1.0, 0.0]]), first).rate == first / 1024


def test_a_pair_is_kept_where_the_curvature_is_positive() -> None:
    zero = np.zeros((1, 2))
    before = tsne._Iterate(zero + 1, 0.0, zero + 2)
    y = np.array([[3.0, 4.0]])
    for factor, kept in ((0.5, True), (1e-9, True), (1e-11, False), (0.0, False), (-0.5, False)):
        pairs: deque = deque(maxlen=10)
        tsne._remember(pairs, before, tsne._Iterate(before.points + factor * y, 0.0, before.gradient + y))
        assert len(pairs) == kept
    tsne._remember(pairs, before, tsne._Iterate(before.points + 0.5 * y, 0.0, before.gradient + y))
    np.testing.assert_array_equal((pairs[0].s, pairs[0].y), (0.5 * y, y))
    assert pairs[0].rho == pytest.approx(1 / 12.5)


def test_the_two_loops_are_the_matrix_of_bfgs() -> None:
    """H ← (I − ρ s yᵀ) H (I − ρ y sᵀ) + ρ s sᵀ (Nocedal and Wright 2006, Eq. 6.17), from the solver's H."""
    rng = np.random.default_rng(3)
    pairs, scale = deque(maxlen=10), np.arange(1.0, 9.0)
    matrix = np.diag(scale)
    for _ in range(3):
        s = rng.normal(size=8)
        y = s * rng.uniform(0.5, 2, 8)
        rho = 1 / (s @ y)
        pairs.append(tsne._Pair(s.reshape(4, 2), y.reshape(4, 2), rho))
        left = np.eye(8) - rho * np.outer(s, y)
        matrix = left @ matrix @ left.T + rho * np.outer(s, s)
    gradient = rng.normal(size=(4, 2))
    kept = gradient.copy()
    solve = lambda right: right * scale.reshape(4, 2)  # noqa: E731
    expected = (matrix @ gradient.ravel()).reshape(4, 2)
    np.testing.assert_allclose(tsne._quasi_newton(gradient, pairs, solve), expected, rtol=1e-10)
    np.testing.assert_array_equal(gradient, kept)
    down = tsne._direction(tsne._Iterate(gradient, 0.0, gradient), pairs, solve)
    np.testing.assert_allclose(down, expected.mean(axis=0) - expected, rtol=1e-10)


def _objective(joint: csr_matrix) -> tsne.Objective:
    p = joint.toarray().astype(np.float64)

    def objective(points: np.ndarray) -> Value:
        w = 1 / (1 + squareform(pdist(points)) ** 2)
        total = w.sum() - len(points)
        force = (p - w / total) * w
        value = attraction(joint, inverse_kernel(joint, points)) + float(np.log(total))
        return Value(value, 4 * (force.sum(axis=1)[:, None] * points - force @ points))

    return objective


JOINT = affinities(CLOUD, 4.0)


def _progress(objective: tsne.Objective) -> tuple[np.ndarray, list[tuple[int, float]]]:
    told: list[tuple[int, float]] = []
    return descend(JOINT, (0.1 * POINTS).astype(np.float32), objective, lambda *at: told.append(at)), told


def test_a_descent_and_what_it_tells() -> None:
    """Every twentieth step, and the end; each divergence is less, the last is that of the layout."""
    start = 0.1 * POINTS
    points, told = _progress(_objective(JOINT))
    steps, values = zip(*told, strict=True)
    assert steps[:-1] == tuple(range(0, steps[-1], 20)) and 20 < steps[-1] < 300
    assert all(later < earlier for earlier, later in pairwise(values))
    assert values[0] == pytest.approx(kl_divergence(JOINT, start), rel=1e-4)
    assert values[-1] == pytest.approx(kl_divergence(JOINT, points), rel=1e-3) and values[-1] < 0.3 * values[0]
    assert points.dtype == np.float64 and np.abs(_objective(JOINT)(points).gradient).max() < 5e-3
    np.testing.assert_allclose(descend(JOINT, start.astype(np.float32), _objective(JOINT)), points)


def test_when_a_descent_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a window that falls too little, without the steps that were limited; or after the last step."""
    objective = _objective(JOINT)
    monkeypatch.setattr(tsne, "_max_rate", lambda points, direction: 1e9)
    monkeypatch.setattr(tsne, "TOLERANCE", 1e9)
    assert _progress(objective)[1][-1][0] == 10  # of eleven values the first is the start's
    monkeypatch.setattr(tsne, "_max_rate", lambda points, direction: 1e-3)
    monkeypatch.setattr(tsne, "MAX_STEPS", 30)
    assert [step for step, _ in _progress(objective)[1]] == [0, 20, 30]
    limits = [1e9] * 100 + [1e-3] * 5
    monkeypatch.setattr(tsne, "_max_rate", lambda points, direction: limits.pop())
    assert _progress(objective)[1][-1][0] == 15  # the window's first value is that of the fifth step, the last limited


@pytest.mark.parametrize(("first", "each", "end"), [(5.0, 5e-4, 11), (5.0, 2e-3, 30), (0.0, 0.0, 10)])
def test_the_decrease_in_the_window_by_hand(
    first: float, each: float, end: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Divergences of 5 + ``first``, then of 5 less ``each`` a step: ten steps that lower it by 0.01 or more go on."""
    lowest, rates = entropy(JOINT), []
    start = tsne._Iterate(POINTS, lowest + 5 + first, POINTS)

    def next_of(objective: object, current: tsne._Iterate, direction: object, rate: float) -> tsne._Step:
        value = lowest + 5 - each * len(rates)
        rates.append(rate)
        return tsne._Step(rate, tsne._Iterate(current.points + 1, value, current.gradient))

    monkeypatch.setattr(tsne, "_at", lambda objective, points: start)
    monkeypatch.setattr(tsne, "_line_search", next_of)
    monkeypatch.setattr(tsne, "_max_rate", lambda points, direction: 3.0)  # no step is limited
    monkeypatch.setattr(tsne, "MAX_STEPS", 30)
    assert _progress(_objective(JOINT))[1][-1][0] == len(rates) == end
    assert set(rates) == {1.0}


def test_a_step_that_climbs_is_tried_again_without_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve steps down, then every step climbs: one with the pairs, one without them, and the end."""
    objective, search, found = _objective(JOINT), tsne._line_search, []

    def walled(objective: tsne.Objective, current: tsne._Iterate, direction: np.ndarray, rate: float) -> tsne._Step:
        step = search(objective, current, direction, rate)
        found.append(step.candidate.points)
        return step if len(found) <= 12 else step._replace(candidate=step.candidate._replace(value=1e9))

    monkeypatch.setattr(tsne, "_line_search", walled)
    points, told = _progress(objective)
    assert [step for step, _ in told] == [0, 14] and len(found) == 14
    np.testing.assert_array_equal(points, found[11])
    assert np.abs(found[12] - found[13]).max() > 1e-6
    monkeypatch.undo()
    points, told = _progress(lambda points: Value(_squares(points).value, -2 * points))
    assert [step for step, _ in told] == [0, 1]
    np.testing.assert_array_equal(points, (0.1 * POINTS).astype(np.float32))
    assert points.dtype == np.float64


def test_a_descent_keeps_the_pairs_of_ten_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    kept, direction = [], tsne._direction

    def counted(current: tsne._Iterate, pairs: deque, solve: object) -> np.ndarray:
        kept.append(len(pairs))
        return direction(current, pairs, solve)  # type: ignore[arg-type]

    monkeypatch.setattr(tsne, "_direction", counted)
    _progress(_objective(JOINT))
    assert kept[0] == 0 and max(kept) == 10
