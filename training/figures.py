"""Figures of an evaluation."""


class Cost(float):
    """A figure that is better when it is smaller: whoever computes a figure says so, and ``fit`` selects by it."""
