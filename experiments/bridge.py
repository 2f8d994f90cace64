"""From texts to the vision bridge: ``vision_bridge`` turns frozen features of a text encoder into images."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from files.download import cache_of
from files.errors import UserError
from text_cls.config import DataConfig, FrozenEncoderConfig
from training.config import TaskConfig
from training.options import nested, option
from training.run import Data, Run
from vision_bridge.config import BridgeConfig, ProbingConfig, TableConfig
from vision_bridge.frozen.extractors import EXTRACTORS

if TYPE_CHECKING:
    from experiments.tabular import TableImagesConfig
    from text_cls.prepared import PreparedTexts
    from training.backends import Placement
    from vision_bridge.bridge import Bridge, Features


@dataclasses.dataclass(frozen=True)
class TextBridgeConfig(TaskConfig):
    """The texts, their encoder, and the bridge from its features to a classifier."""

    data: DataConfig = nested(DataConfig, join_fields="space")
    encoder: FrozenEncoderConfig = nested(FrozenEncoderConfig)
    pooling: str = option(
        "cls",
        "How the tokens' vectors become one vector of the text, in each layer.",
        choices="text_cls.layers.pooling:POOLINGS",
    )
    bridge: BridgeConfig = nested(BridgeConfig)

    @property
    def extractors(self) -> list[str]:
        """The extractors whose maps are computed, in order."""
        return []

    def check(self) -> None:
        if self.data.multi_label:
            raise UserError("--multi_label: the head on images gives a text one class; leave it out, or use train_text")
        for name in self.extractors:
            self.bridge.head_of(EXTRACTORS[name])


@dataclasses.dataclass(frozen=True)
class ImdbImagesConfig(TextBridgeConfig):
    """Configuration of ``train_bridge``: one extractor."""

    backbone: str = option(
        "efficientnet_lite0",
        "Extractor: the first layers of this ImageNet network.",
        choices="vision_bridge.frozen.extractors:EXTRACTORS",
    )
    probing: ProbingConfig = nested(ProbingConfig)

    @property
    def extractors(self) -> list[str]:
        return [self.backbone]

    def check(self) -> None:
        super().check()
        self.probing.check_stages(self.bridge.chosen)


@dataclasses.dataclass(frozen=True)
class ImdbTableConfig(TextBridgeConfig):
    """Configuration of ``make_table``: several extractors, and controls."""

    table: TableConfig = nested(TableConfig)

    @property
    def extractors(self) -> list[str]:
        return self.table.extractors

    def check(self) -> None:
        super().check()
        if self.table.control_row and self.bridge.shuffle_pixels:
            raise UserError(
                "--shuffle_pixels with --control_row: shuffled pixels are one of the controls; leave one out"
            )
        most = 2**32 - self.table.control_seeds  # random weights take the seeds from --seed on
        if self.table.control_row and self.seed > most:
            raise UserError(
                f"--seed={self.seed} with --control_seeds={self.table.control_seeds}: the last seed of the controls "
                f"would be more than {2**32 - 1}; use a --seed of at most {most}"
            )


def train_bridge(config: ImdbImagesConfig, run_dir: Path | str) -> dict[str, Any]:
    """Runs every stage for one extractor, and draws its pictures.

    Args:
        config: every choice.
        run_dir: the run folder; after an interruption, the same call resumes there.

    Returns:
        The content of ``result.json``.
    """
    from training.session import session

    Run.check(run_dir, config)
    with session(config, config.bridge.training) as placement:
        texts = _prepare(config)
        return run_extractor(
            config, run_dir, texts.splits, _inputs(texts), _sizes(config, texts),
            lambda: _features(config, _layers(config.bridge, texts), texts, placement), "accuracy", placement,
        )  # fmt: skip


def run_extractor(
    config: "ImdbImagesConfig | TableImagesConfig",
    run_dir: Path | str,
    data: Data,
    inputs: dict[str, Any],
    sizes: str,
    features: "Callable[[], Features]",
    figure: str,
    placement: "Placement",
) -> dict[str, Any]:
    """Loads the extractor, then runs every stage in a run folder, unless the run there is finished.

    Args:
        config: every choice.
        run_dir: the run folder.
        data, inputs: see ``Run.open``.
        sizes: of the data, for the log.
        features: computes them.
        figure: name of the goal's main figure.
        placement: where it runs.

    Returns:
        The content of ``result.json``.
    """
    from vision_bridge.bridge import Bridge, load_network
    from vision_bridge.pictures import all_drawn
    from vision_bridge.task import run_bridge

    network = load_network(config.bridge, config.backbone, config.bridge.weights, cache(config), placement)
    with Run.open(run_dir, config, data, inputs | {"extractor": network.fingerprint()}) as run:
        result = run.finished(f"test_{figure}")
        if result is not None and all_drawn(run, figure, config.probing):
            return result
        bridge = Bridge(config.bridge, features(), cache(config), placement)
        run.say(f"{sizes}\n{bridge.summary()}")
        made = run_bridge(run, bridge, network, config.seed, config.probing)
        return made if result is None else result


def make_table(config: ImdbTableConfig, run_dir: Path | str) -> dict[str, Any]:
    """Trains every row and the controls, and writes the table: table.md, table.csv, table.png.

    Args:
        config: every choice.
        run_dir: the run folder; after an interruption, the same call resumes there.

    Returns:
        The content of ``result.json``.
    """
    from training.session import session
    from vision_bridge.table import Table, make_plan

    Run.check(run_dir, config)
    with session(config, config.bridge.training) as placement:
        texts = _prepare(config)
        plan = make_plan(config.table, config.bridge, cache(config), placement)
        bridges: dict[BridgeConfig, Bridge] = {}

        def bridge_of(choices: BridgeConfig) -> "Bridge":
            if choices not in bridges:
                bridges[choices] = _bridge(config, choices, texts, placement)
            return bridges[choices]

        inputs = _inputs(texts) | {"extractors": plan.fingerprints}
        with Run.open(run_dir, config, texts.splits, inputs) as run:
            table = Table(run, config, config.table, config.bridge, config.seed, plan, bridge_of)
            return run.finished("test_accuracy") or table.make()


def dry_run_bridge(config: TextBridgeConfig) -> None:
    """Prints sizes and the cost of a step of the (first) extractor, and writes nothing."""
    from training.session import session
    from vision_bridge import task

    with session(config, config.bridge.training) as placement:
        texts = _prepare(config, dry_run=True)
        layers = _layers(config.bridge, texts)
        count = len(layers) * texts.checkpoint.config.width
        print(f"{_sizes(config, texts)}; {count:,} features, {_about(config, layers)}")
        for note in texts.splits.notes:
            print(f"note: {note}")
        sizes = {name: len(part) for name, part in texts.splits.parts().items()}
        task.dry_run(config.bridge, config.extractors, sizes, tuple(texts.splits.classes), config.seed, placement)


def _inputs(texts: "PreparedTexts") -> dict[str, Any]:
    return {"encoder": texts.checkpoint.fingerprint(), "tokeniser": texts.tokeniser.key}


def cache(config: TaskConfig) -> Path:
    """The folder of intermediate results."""
    return cache_of(config.cache_dir)


def _prepare(config: TextBridgeConfig, dry_run: bool = False) -> "PreparedTexts":
    """Reads the texts; raises UserError if image or perplexity do not fit the number of features."""
    from text_cls.prepared import prepare_texts
    from vision_bridge.bridge import check_features

    texts = prepare_texts(config.data, config.encoder, config.seed, cache(config), dry_run)
    if texts.splits.unlabeled is not None:
        raise UserError(
            f"--test_path={config.data.test_path} has no labels, and this script predicts none: leave it out"
        )
    if not dry_run:
        check_features(config.bridge, len(_layers(config.bridge, texts)) * texts.checkpoint.config.width)
    return texts


def _sizes(config: TextBridgeConfig, texts: "PreparedTexts") -> str:
    return f"{config.data.dataset}: {texts.splits.sizes()}; {len(texts.splits.classes)} classes"


def _layers(bridge: BridgeConfig, texts: "PreparedTexts") -> list[int]:
    return bridge.chosen.layers(texts.checkpoint.config.num_layers)


def _bridge(config: TextBridgeConfig, bridge: BridgeConfig, texts: "PreparedTexts", placement: "Placement") -> "Bridge":
    from vision_bridge.bridge import Bridge

    return Bridge(bridge, _features(config, _layers(bridge, texts), texts, placement), cache(config), placement)


def _features(
    config: TextBridgeConfig, layers: list[int], texts: "PreparedTexts", placement: "Placement"
) -> "Features":
    """The features: a text's vector from each of these layers; every layer is a group."""
    from text_cls.features import embed_splits, features_key
    from vision_bridge.bridge import Features
    from vision_bridge.cache import Cache, key_of

    of_all, parts = features_key(texts, layers), texts.splits.parts()
    keys = {name: key_of(part.fingerprint(), of_all, config.pooling) for name, part in parts.items()}
    files = Cache(cache(config) / "bridge")
    arrays = embed_splits(
        texts, layers, config.pooling, placement, lambda name: files.path("features", keys[name]),
        config.encoder.batch_tokens, renew=True,
    )  # fmt: skip
    return Features(
        {name: array.reshape(len(array), -1) for name, array in arrays.items()},
        {name: part.labels for name, part in parts.items() if part.labels is not None},
        tuple(texts.splits.classes),
        key_of(keys),
        tuple(map(str, layers)),
        kind="layer of the text encoder",
        about=_about(config, layers),
    )


def _about(config: TextBridgeConfig, layers: list[int]) -> str:
    pooled = "[CLS]" if config.pooling == "cls" else f"{config.pooling} of the pieces"
    return f"{pooled} in layers {layers} of {config.encoder.encoder}"
