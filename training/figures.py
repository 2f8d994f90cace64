"""Figures of an evaluation."""


class Cost(float):
    """A figure that is better if it is smaller, such as a loss; ``fit`` then selects the weights with the smallest."""
