"""What the number of features means for a layout: whether they fit the choices, and how few are laid out.

``D`` features.
"""

import math

import numpy as np

from files.errors import UserError
from vision_bridge.config import LayoutConfig
from vision_bridge.distance_rows import DistanceRows
from vision_bridge.distances import DISTANCES
from vision_bridge.embedding import ENGINES, Embedding, check_engine, embed_features
from vision_bridge.grids import check_cells
from vision_bridge.pixels import PIXELS
from vision_bridge.tsne import Compiled, Progress

USUAL_PERPLEXITY = 30.0
SMALLEST = {True: 1e-25, False: 1e-11}  # by angle or not: distances that rounding errors alone may have
SMALL = 1e-4  # distances below which a start computed from columns has too few digits
FEWEST = 5  # features that t-SNE can lay out: a perplexity above 1 needs three neighbours for each of its units


def check_grid(count: int, config: LayoutConfig) -> None:
    """Raises UserError for an image with too few pixels for ``count`` features, where each needs its own."""
    if PIXELS[config.pixels].one_each or ENGINES[config.engine].grid:
        check_cells(count, (config.height, config.width))


def check_layout(count: int, config: LayoutConfig) -> None:
    """Raises UserError unless ``count`` features suit the image, the engine and the perplexity, if one is given."""
    check_grid(count, config)
    engine, largest = ENGINES[config.engine], (count - 1) / 3
    if count < FEWEST and engine.tsne and config.perplexity:
        raise UserError(
            f"{count} features are too few for t-SNE, which needs {FEWEST}: leave out the perplexity of "
            f"{config.perplexity:g}, and they are laid out by their principal coordinates"
        )
    if engine.tsne and config.perplexity and not 1 < config.perplexity <= largest:
        raise UserError(
            f"{count} features are too few for a perplexity of {config.perplexity:g}, which must be above 1 and needs "
            f"three features for each of its units and one more: use at most {math.floor(100 * largest) / 100:g}, or "
            "leave it out"
        )
    if count >= FEWEST or engine.grid:
        check_engine(config.engine, count, perplexity_of(count, config))


def perplexity_of(count: int, config: LayoutConfig) -> float:
    """The perplexity that is given; otherwise 30, or of fewer than 91 features the largest that t-SNE allows."""
    return config.perplexity or min(USUAL_PERPLEXITY, (count - 1) / 3)


def notes(count: int, config: LayoutConfig) -> list[str]:
    """What a user should be told of the layout of ``count`` features: where it is not what the choices say at first."""
    engine, perplexity = ENGINES[config.engine], perplexity_of(count, config)
    if count < FEWEST and not engine.grid and config.engine != "pca":
        return [f"{count} feature(s): too few for {config.engine}, so their principal coordinates are the layout"]
    if engine.tsne and not config.perplexity and perplexity < USUAL_PERPLEXITY:
        return [f"a perplexity of {perplexity:.3g}, the largest that {count} features allow"]
    return []


def embed_any_number(
    distance: np.ndarray | DistanceRows, config: LayoutConfig, compiled: Compiled, on_progress: Progress
) -> Embedding:
    """``embed_features`` of distances [D, D], or the principal coordinates of fewer features than t-SNE needs.

    Raises:
        UserError: all distances are 0; and what ``embed_features`` refuses.
    """
    count = len(distance)
    largest = float(distance[0:1].max())  # from the first; any other is at most four times as large
    if count > 1 and largest < SMALLEST[DISTANCES[config.distance].by_angle] and not ENGINES[config.engine].grid:
        raise UserError(
            f"all {count} features are the same but for unit and offset, so no layout is better than another: leave "
            "out all but one, or use the engine order"
        )
    if largest < SMALL:
        distance = distance[:]
        if 0 < largest < 1e-12:  # its square is 0 in float32
            distance = distance / largest
    if count < FEWEST and not ENGINES[config.engine].grid:
        return Embedding(_principal_points(distance[:]), float("nan"))
    return embed_features(
        distance, config.engine, perplexity_of(count, config), config.init, config.seed, compiled, on_progress,
        shape=(config.height, config.width),
    )  # fmt: skip


def _principal_points(distance: np.ndarray) -> np.ndarray:
    """Classical scaling (Torgerson 1952) of a few features: [D, D] → [D, 2]; of one, the origin."""
    kernel = -0.5 * np.square(distance, dtype=np.float64)
    kernel = kernel - kernel.mean(axis=0)
    kernel -= kernel.mean(axis=1, keepdims=True)
    values, vectors = np.linalg.eigh(kernel)
    points = np.zeros((len(kernel), 2))
    leading = (vectors * np.sqrt(np.maximum(values, 0)))[:, ::-1][:, :2]
    points[:, : leading.shape[1]] = leading
    return points
