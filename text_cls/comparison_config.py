"""Every choice of a comparison."""

import dataclasses
from pathlib import Path

from training.options import Config, option


@dataclasses.dataclass(frozen=True)
class ComparisonConfig(Config):
    """Two text classifiers on the same test rows; ``text_cls.comparison.compare_runs``."""

    other: str = option("", "Folder of the other run, or a file of test rows in it; or the second argument.")
    seed: int = option(0, "Random seed of the resamples.", low=0, high=2**32 - 1)
    out: Path | None = option(None, "JSON file of the comparison; an earlier comparison there is replaced.")
