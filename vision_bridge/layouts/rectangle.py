"""The smallest rectangle around points, by rotating calipers (Toussaint 1983). ``N`` points, ``h`` on their hull."""

import numpy as np
from scipy.spatial import ConvexHull, QhullError

from files.errors import UserError


def convex_hull(points: np.ndarray) -> np.ndarray:
    """[N, 2] → [h, 2], counter-clockwise; for points on one line the two end points, for equal points one.

    Raises:
        UserError: there are no points, or some are not finite.
    """
    points = np.asarray(points, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or not len(points):
        raise UserError(f"points of shape {points.shape}: [N, 2] with at least one point is needed")
    if not np.isfinite(points).all():
        row = int(np.flatnonzero(~np.isfinite(points).all(axis=1))[0])
        raise UserError(f"point {row} is not finite: {points[row].tolist()}")
    try:
        return points[ConvexHull(points).vertices]
    except QhullError:  # fewer than three points, or all on one line
        spread = points - points.mean(axis=0)
        along = spread @ np.linalg.svd(spread, full_matrices=False)[2][0]
        return np.unique(points[[along.argmin(), along.argmax()]], axis=0)


def minimum_rectangle(points: np.ndarray) -> np.ndarray:
    """The rectangle of least area that holds all points.

    One of its sides lies along an edge of the hull (Freeman and Shapira 1975). For every edge, calipers touch three
    other vertices: where the hull's direction exceeds the edge's by a quarter, a half and three quarters of a rotation.
    A search in the edges' sorted directions finds them.

    Args:
        points: [N, 2].

    Returns:
        Corners [4, 2], counter-clockwise; the first side runs along the hull's edge. Points on one line give a
        rectangle without width.

    Raises:
        UserError: there are no points, or some are not finite.
    """
    hull = convex_hull(points)
    if len(hull) < 3:
        return hull[[0, -1, -1, 0]]
    edges = np.roll(hull, -1, axis=0) - hull  # [h, 2], with the closing edge
    direction = np.unwrap(np.arctan2(edges[:, 1], edges[:, 0]))  # ascending: the hull is counter-clockwise
    first, last = direction[0], direction[0] + 2 * np.pi

    def touched(quarters: int) -> np.ndarray:
        """[h, 2] for each edge, the first vertex whose next edge is rotated by at least ``quarters`` quarters."""
        rotated = (direction + quarters * np.pi / 2 - first) % (last - first) + first
        return hull[np.searchsorted(direction, rotated) % len(hull)]

    along = edges / np.linalg.norm(edges, axis=1, keepdims=True)
    inward = along[:, ::-1] * (-1, 1)

    def on(axis: np.ndarray, vertices: np.ndarray) -> np.ndarray:
        return np.sum(axis * vertices, axis=1)

    low, high = on(along, touched(3)), on(along, touched(1))
    base, top = on(inward, hull), on(inward, touched(2))
    best = np.argmin((high - low) * (top - base))
    sides = [(low, base), (high, base), (high, top), (low, top)]
    return np.array([a[best] * along[best] + b[best] * inward[best] for a, b in sides])


def mistaken_rectangle(points: np.ndarray) -> np.ndarray:
    """The rectangle of the popular Python library for DeepInsight; it is rarely the smallest.

    It leaves out the edge that closes the hull, and rotates the points by each edge's angle instead of its negative.
    """
    hull = convex_hull(points)
    if len(hull) < 3:
        return minimum_rectangle(points)
    edges = hull[1:] - hull[:-1]
    angles = np.unique(np.arctan2(edges[:, 1], edges[:, 0]) % (np.pi / 2))
    rotations = np.stack([np.cos(angles), -np.sin(angles), np.sin(angles), np.cos(angles)], axis=1).reshape(-1, 2, 2)
    rotated = np.einsum("aij,hj->ahi", rotations, hull)
    low, high = rotated.min(axis=1), rotated.max(axis=1)
    best = np.prod(high - low, axis=1).argmin()
    (left, base), (right, top) = low[best], high[best]
    return np.array([[left, base], [right, base], [right, top], [left, top]]) @ rotations[best]


RECTANGLES = {"smallest": minimum_rectangle, "mistaken": mistaken_rectangle}


def rotation_to_horizontal(corners: np.ndarray) -> np.ndarray:
    """The rotation [2, 2] that lays a rectangle's longer side along the first axis; ``points @ rotation.T``."""
    sides = np.roll(corners, -1, axis=0)[:2] - corners[:2]
    x, y = max(sides, key=lambda side: float(side @ side))
    length = np.hypot(x, y)
    return np.array([[x, y], [-y, x]]) / length if length else np.eye(2)
