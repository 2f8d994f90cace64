"""The smallest rectangle beside brute force."""

import numpy as np
import pytest

from files.errors import UserError
from vision_bridge.layouts.rectangle import convex_hull, minimum_rectangle, mistaken_rectangle, rotation_to_horizontal


def _area(corners: np.ndarray) -> float:
    (a, b), (c, d) = corners[1] - corners[0], corners[3] - corners[0]
    return abs(a * d - b * c)


def _brute_force(points: np.ndarray) -> float:
    """The least over the directions of all pairs of points, the hull's edges among them."""
    first, second = np.triu_indices(len(points), 1)
    along = points[second] - points[first]
    along = along[np.abs(along).any(axis=1)]
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    across = along[:, ::-1] * (-1, 1)
    return float((np.ptp(points @ along.T, axis=0) * np.ptp(points @ across.T, axis=0)).min())


def _cloud(rng: np.random.Generator, kind: int) -> np.ndarray:
    count = int(rng.integers(3, 60))
    if kind == 0:
        return rng.normal(size=(count, 2)) * rng.uniform(0.1, 10, 2)
    if kind == 1:  # parallel edges and equal points
        return rng.integers(0, 6, (count, 2)).astype(float)
    angle = rng.uniform(0, 2 * np.pi, count)  # every point on the hull
    return np.stack([np.cos(angle), np.sin(angle)], axis=1) + 1e3


def test_optimal_in_a_thousand_of_a_thousand_clouds() -> None:
    rng = np.random.default_rng(0)
    for k in range(1000):
        points = _cloud(rng, k % 3)
        corners = minimum_rectangle(points)
        assert abs(_area(corners) - _brute_force(points)) <= 1e-9 * max(1.0, _area(corners)), k
        sides = np.roll(corners, -1, axis=0) - corners
        assert abs(sides[0] @ sides[1]) <= 1e-9 * (1 + np.abs(corners).max() ** 2), k
        for start, side in zip(corners, sides, strict=True):  # counter-clockwise: all points on the left of each side
            relative = points - start
            assert (side[0] * relative[:, 1] - side[1] * relative[:, 0]).min() >= -1e-9 * (
                1 + np.abs(corners).max() ** 2
            ), k


def test_a_known_rectangle() -> None:
    rotation = np.array([[0.8, -0.6], [0.6, 0.8]])
    box = np.array([[0, 0], [5, 0], [5, 2], [0, 2.0]]) @ rotation.T + (3, -1)
    inside = np.random.default_rng(0).uniform(0, (5, 2), (50, 2)) @ rotation.T + (3, -1)
    found = minimum_rectangle(np.concatenate([inside, box]))
    np.testing.assert_allclose(sorted(found.tolist()), sorted(box.tolist()), atol=1e-12)
    flat = found @ rotation_to_horizontal(found).T
    np.testing.assert_allclose(np.ptp(flat, axis=0), (5, 2), atol=1e-12)


def test_points_on_a_line_and_single_points() -> None:
    line = minimum_rectangle(np.array([[0.0, 0], [3, 3], [1, 1]]))
    assert _area(line) == 0 and sorted(map(tuple, line.tolist())) == [(0, 0), (0, 0), (3, 3), (3, 3)]
    np.testing.assert_array_equal(minimum_rectangle(np.ones((3, 2))), np.ones((4, 2)))


def test_the_library_s_rectangle_is_hardly_ever_the_smallest() -> None:
    rng = np.random.default_rng(1)
    clouds = [rng.normal(size=(40, 2)) for _ in range(200)]
    smallest = sum(_area(mistaken_rectangle(c)) <= _area(minimum_rectangle(c)) * (1 + 1e-9) for c in clouds)
    assert smallest <= 2
    for cloud in clouds:  # it holds the points all the same
        corners = mistaken_rectangle(cloud)
        flat = cloud @ (rotation := rotation_to_horizontal(corners)).T
        edge = corners @ rotation.T
        assert (flat >= edge.min(axis=0) - 1e-9).all() and (flat <= edge.max(axis=0) + 1e-9).all()


@pytest.mark.parametrize("points, message", [
    (np.zeros((0, 2)), "at least one point"), (np.zeros((3, 3)), r"points of shape \(3, 3\)"),
    (np.array([[0, 0], [np.nan, 1]]), "point 1 is not finite"),
])  # fmt: skip
def test_bad_points(points: np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=message):
        convex_hull(points)


@pytest.mark.parametrize("shift", [(1000, 1000), (1000, -1000), (0, 0)])
@pytest.mark.parametrize("slope", [(1, -1), (1, 1), (1, 0)])
def test_the_ends_of_a_line_wherever_it_is(shift: tuple[int, int], slope: tuple[int, int]) -> None:
    """Of whole numbers, too; the hull is of floats."""
    line = np.array(shift) + np.outer([3, 0, 5, 1], slope)
    ends = convex_hull(line)
    assert ends.dtype == np.float64 and sorted(ends.tolist()) == sorted(line[[1, 2]].tolist())
    np.testing.assert_array_equal(mistaken_rectangle(line), minimum_rectangle(line))


def test_the_library_s_rectangle_by_its_two_errors() -> None:
    """The least area over the edges but the closing one, each of whose angles turns the points instead of back."""
    rng = np.random.default_rng(2)
    for count in (3, 4, 5, 12, 40):
        hull = convex_hull(rng.normal(size=(count, 2)) * (3, 1) + 7) @ (1, 1j)
        areas = []
        for angle in np.angle(np.diff(hull)):
            turned = hull * np.exp(1j * angle)
            areas.append(np.ptp(turned.real) * np.ptp(turned.imag))
        corners = mistaken_rectangle(np.stack([hull.real, hull.imag], axis=1))
        assert _area(corners) == pytest.approx(min(areas), rel=1e-9)
    triangle = np.array([[0.0, 0.0], [4.0, 1.0], [1.0, 3.0]])
    assert _area(mistaken_rectangle(triangle)) > 1.04 * _area(minimum_rectangle(triangle))


def test_rotations_by_hand() -> None:
    """A rectangle that lies already is not turned, one on its side by a quarter; a point has no longer side."""
    lying = np.array([[0.0, 0], [3, 0], [3, 1], [0, 1]])
    np.testing.assert_array_equal(rotation_to_horizontal(lying), np.eye(2))
    np.testing.assert_array_equal(rotation_to_horizontal(lying[:, ::-1]), [[0, 1], [-1, 0]])
    np.testing.assert_array_equal(rotation_to_horizontal(np.ones((4, 2))), np.eye(2))
