"""Whether a number of features fits the choices of a layout, and the layout of very few features.

``D`` features.
"""

import math

import numpy as np

from files.errors import UserError
from vision_bridge.config import LayoutConfig
from vision_bridge.layouts.classical_scaling import principal_coordinates_of_few
from vision_bridge.layouts.distance_rows import DistanceRows
from vision_bridge.layouts.distances import DISTANCES
from vision_bridge.layouts.embedding import ENGINES, Embedding, check_engine, embed_features
from vision_bridge.layouts.grids import check_cells
from vision_bridge.layouts.pixels import PIXELS
from vision_bridge.layouts.tsne import Compiled, Progress

USUAL_PERPLEXITY = 30.0
SMALLEST = {True: 1e-25, False: 1e-11}  # by angle or not: smaller distances may be rounding errors
SMALL = 1e-4  # for smaller distances, a start computed from columns has too few digits
FEWEST = 5  # fewest features for t-SNE: a perplexity above 1 needs three neighbours for each of its units


def check_grid(count: int, config: LayoutConfig) -> None:
    """Raises UserError for an image with too few pixels for ``count`` features, where each needs its own."""
    if PIXELS[config.pixels].one_each or ENGINES[config.engine].grid:
        check_cells(count, (config.height, config.width))


def check_layout(count: int, config: LayoutConfig) -> None:
    """Raises UserError if ``count`` features do not fit the image, the engine, or the perplexity that is given."""
    check_grid(count, config)
    engine, largest = ENGINES[config.engine], (count - 1) / 3
    if count < FEWEST and engine.tsne and config.perplexity:
        raise UserError(
            f"{count} features are too few for t-SNE, which needs {FEWEST}: leave out the perplexity of "
            f"{config.perplexity:g}; their principal coordinates are then the layout"
        )
    if engine.tsne and config.perplexity and not 1 < config.perplexity <= largest:
        raise UserError(
            f"{count} features are too few for a perplexity of {config.perplexity:g}, which must be above 1 and "
            f"at most (features - 1) / 3: use at most {math.floor(100 * largest) / 100:g}, or leave it out"
        )
    if count >= FEWEST or engine.grid:
        check_engine(config.engine, count, perplexity_of(count, config))


def perplexity_of(count: int, config: LayoutConfig) -> float:
    """The perplexity that is given; otherwise 30, or for fewer than 91 features the largest that t-SNE allows."""
    return config.perplexity or min(USUAL_PERPLEXITY, (count - 1) / 3)


def notes(count: int, config: LayoutConfig) -> list[str]:
    """Notes for the user if the layout of ``count`` features differs from the choices."""
    engine, perplexity = ENGINES[config.engine], perplexity_of(count, config)
    if count < FEWEST and not engine.grid and config.engine != "pca":
        return [f"{count} feature(s): too few for {config.engine}, so their principal coordinates are the layout"]
    if engine.tsne and not config.perplexity and perplexity < USUAL_PERPLEXITY:
        return [f"a perplexity of {perplexity:.3g}, the largest that {count} features allow"]
    return []


def embed_any_number(
    distance: np.ndarray | DistanceRows, config: LayoutConfig, compiled: Compiled, on_progress: Progress
) -> Embedding:
    """``embed_features`` of distances [D, D]; for fewer features than t-SNE needs, their principal coordinates.

    Raises:
        UserError: all distances are 0; see also ``embed_features``.
    """
    count = len(distance)
    largest = float(distance[0:1].max())  # distances from the first feature; any other is at most four times as large
    if count > 1 and largest < SMALLEST[DISTANCES[config.distance].by_angle] and not ENGINES[config.engine].grid:
        raise UserError(
            f"all {count} features are equal except for scale and offset, so no layout is better than another: leave "
            "out all but one, or use the engine order"
        )
    if largest < SMALL:
        distance = distance[:]
        if 0 < largest < 1e-12:  # its square is 0 in float32
            distance = distance / largest
    if count < FEWEST and not ENGINES[config.engine].grid:
        return Embedding(principal_coordinates_of_few(distance[:]), float("nan"))
    return embed_features(
        distance, config.engine, perplexity_of(count, config), config.init, config.seed, compiled, on_progress,
        shape=(config.height, config.width),
    )  # fmt: skip
