"""From a table to the vision bridge: ``vision_bridge`` turns its columns into images."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.bridge import run_extractor
from training.config import TaskConfig
from training.options import nested, option
from training.run import Run
from vision_bridge.config import ProbingConfig
from vision_bridge.frozen.extractors import EXTRACTORS
from vision_bridge.tables.config import TableBridgeConfig, TabularConfig

if TYPE_CHECKING:
    from vision_bridge.tables.features import Tabular


@dataclasses.dataclass(frozen=True)
class TableImagesConfig(TaskConfig):
    """The table, and the bridge from its columns to a classifier or a regression."""

    data: TabularConfig = nested(TabularConfig)
    bridge: TableBridgeConfig = nested(TableBridgeConfig)
    backbone: str = option(
        "squeezenet1_1",
        "Extractor: the first layers of this ImageNet network.",
        choices="vision_bridge.frozen.extractors:EXTRACTORS",
    )
    probing: ProbingConfig = nested(ProbingConfig)

    def check(self) -> None:
        self.bridge.head_of(EXTRACTORS[self.backbone])
        self.probing.check_stages(self.bridge.chosen)


def name_of(config: TableImagesConfig) -> str:
    """The name of a run's folder."""
    path = config.data.data_path
    return config.data.dataset if path is None else path.name.split(".")[0]


def train_table(config: TableImagesConfig, run_dir: Path | str) -> dict[str, Any]:
    """Runs every stage for one extractor, and draws its pictures.

    Args:
        config: every choice.
        run_dir: the run folder; after an interruption, the same call resumes there.

    Returns:
        What is in ``result.json``.
    """
    from training.session import session
    from vision_bridge.goals import make_goal

    Run.check(run_dir, config)
    with session(config, config.bridge.training) as placement:
        table = _prepare(config)
        features = table.features
        figure = make_goal(features.classes, features.labels["train"]).figure
        return run_extractor(config, run_dir, table, {}, table.sizes(), lambda: features, figure, placement)


def dry_run_table(config: TableImagesConfig) -> None:
    """Reads the table, prints its notes, sizes and the cost of a step, and writes nothing."""
    from training.session import session
    from vision_bridge import task

    with session(config, config.bridge.training) as placement:
        table = _prepare(config)
        features = table.features
        print(f"{table.sizes()}; {len(features.names):,} columns of features")
        for note in table.notes:
            print(f"note: {note}")
        sizes = {name: len(labels) for name, labels in features.labels.items()}
        task.dry_run(config.bridge, [config.backbone], sizes, features.classes, config.seed, placement)


def _prepare(config: TableImagesConfig) -> "Tabular":
    """Reads the table; refuses an image or a perplexity that does not fit the number of columns."""
    from vision_bridge.bridge import check_features
    from vision_bridge.tables.features import load_table

    table = load_table(config.data, config.seed)
    check_features(config.bridge, len(table.features.names))
    return table
