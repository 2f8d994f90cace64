"""The IMDB-image table: one row for each extractor, averaged over seeds, and controls below it."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from files.errors import UserError
from training.backends import Placement
from training.hosts import on_chief
from training.options import Config
from training.repetitions import mean_interval
from training.run import Run
from vision_bridge.answers import ClassifierPair, compare, read_answers, vote
from vision_bridge.bridge import Bridge, Maps, Network, load_network
from vision_bridge.config import PRESETS, BridgeConfig, Choices, TableConfig
from vision_bridge.controls import Probe, wilson_interval
from vision_bridge.frozen.backbones import has_norms
from vision_bridge.frozen.extractors import EXTRACTORS
from vision_bridge.probing import PROBE_OF_FEATURES, features_probes, named, probes
from vision_bridge.report import TableLine, draw_report, write_report
from vision_bridge.task import train_head

_FIGURES, _TEXTS = ("test_accuracy", "test_accuracy_low", "test_accuracy_high", "val_accuracy"), ("weights", "maps")


class Variant(NamedTuple):
    """A control: the control row trained with other choices."""

    name: str
    title: str
    choices: Choices
    shuffle: bool = False


class TablePlan(NamedTuple):
    """Everything that a table trains, checked by ``make_plan``.

    Attributes:
        weights: name of each extractor → its weights.
        fingerprints: name → fingerprint of the network.
        variants: controls other than random weights.
    """

    weights: dict[str, str]
    fingerprints: dict[str, str]
    variants: list[Variant]


def make_plan(table: TableConfig, bridge: BridgeConfig, cache: Path, placement: Placement) -> TablePlan:
    """Checks that the weights of every extractor can be loaded.

    Raises:
        UserError: weights that cannot be loaded, or that a control cannot use.
    """

    def load(config: BridgeConfig, name: str, weights: str) -> Network:
        return load_network(config, name, weights, cache, placement)

    weights, fingerprints = {}, {}
    for name in table.extractors:
        weights[name] = table.files.get(name, bridge.weights)
        try:
            fingerprints[name] = load(bridge, name, weights[name]).fingerprint()
        except UserError as error:
            if table.missing_weights == "error" or weights[name].startswith("random"):
                raise
            print(f"note: {name} with random weights, as --missing_weights=random asks: {error}")
            weights[name] = "random"
            fingerprints[name] = load(bridge, name, "random").fingerprint()
    if not table.control_row:
        return TablePlan(weights, fingerprints, [])
    chosen = bridge.chosen
    variants = [Variant("shuffled", "shuffled pixels", chosen, shuffle=True)]
    if table.ablations:
        other = PRESETS["author" if bridge.preset == "corrected" else "corrected"]
        try:  # the only choice that changes the extractor is bn_mode
            network = load(bridge.choosing(other), table.control_row, weights[table.control_row])
        except UserError as error:
            raise UserError(f"control 'bn_mode = {other.bn_mode}': {error}; --noablations leaves it out") from error
        variants += ablations(chosen, other, has_norms(network.model))
    return TablePlan(weights, fingerprints, variants)


def ablations(chosen: Choices, other: Choices, norms: bool) -> list[Variant]:
    """Each choice of the other preset alone, then all; without ``norms``, ``bn_mode`` has no effect and is left out."""
    variants = [
        Variant(name, f"{name} = {value}", dataclasses.replace(chosen, **{name: value}))
        for name, value in chosen.differences(other).items()
        if norms or name != "bn_mode"
    ]
    return [*variants, Variant("other", "all of them", other)]


def result_of(run: Run) -> dict[str, Any] | None:
    """The result of a training that an earlier call finished; None if it is not finished.

    Raises:
        UserError: the file is damaged, or lacks an entry that the table needs.
    """
    result = run.result(*_FIGURES)
    if result is None:
        return None
    lacking = [name for name in _TEXTS if not isinstance(result.get(name), str)]
    if lacking:
        raise UserError(f"{run.path}/result.json: damaged: no {lacking[0]} in it; remove it to have it made again")
    return result


@dataclasses.dataclass(frozen=True)
class Table:
    """Makes the table; each training is a run of its own in ``runs/`` and is done once.

    Attributes:
        run: of the table.
        task: the configuration, which is saved in every training's folder.
        config: rows, seeds and controls.
        bridge: every choice of the rows.
        seed: of the first training of each row.
        plan: from ``make_plan``.
        bridge_of: configuration → its stages.
    """

    run: Run
    task: Config
    config: TableConfig
    bridge: BridgeConfig
    seed: int
    plan: TablePlan
    bridge_of: Callable[[BridgeConfig], Bridge]

    def make(self) -> dict[str, Any]:
        """Trains every row and the controls, writes the report, and returns the content of ``result.json``."""
        rows, controls = [self.line(name) for name in self.config.rows], []
        title = EXTRACTORS[self.config.control_row].title if self.config.control_row else ""
        probe = self.features_probe()
        lines = [_line_of(probe), *rows]
        pairs = self.pairs(probe)
        write_report(self.run.path, lines, [], title, pairs)
        if self.config.control_row:
            controls = self.controls(self.config.control_row)
        text = write_report(self.run.path, lines, controls, title, pairs)
        result = self._result(rows, probe, controls)
        self.run.write_json("result.json", result)
        self.run.picture("table.png", lambda path: draw_report(path, [*lines, *controls]))
        self.run.say(f"{text}\neverything is in {self.run.path}: table.md, table.csv, table.png, runs/")
        return result

    def line(self, name: str) -> TableLine:
        """One row of the table."""
        extractor, rates = EXTRACTORS[name], self.bridge.rates_of(EXTRACTORS[name])
        results = self.trainings(name, "", self.bridge_of(self.bridge), [self.plan.weights[name]] * self.config.seeds)
        return TableLine.of_results(
            extractor.title,
            results,
            encoder_rate=f"{rates.encoder:g}",
            rate=f"{rates.dense:g}",
            original=extractor.original,
            reproduced=extractor.reproduced,
        )

    def features_probe(self) -> Probe:
        """Logistic regression on the features: what every row is compared with."""
        bridge = self.bridge_of(self.bridge)
        return features_probes(self.run, bridge, self.seed, hidden=bool(self.config.control_row))["linear"]

    def pairs(self, probe: Probe) -> list[ClassifierPair]:
        """McNemar's test of every two rows; a row's networks vote. The ``probe`` of the features is a row too."""
        features, seeds = self.bridge_of(self.bridge).features, range(self.seed, self.seed + self.config.seeds)
        labels, classes = features.labels["test"], features.classes

        def voted(name: str) -> np.ndarray:
            return vote([read_answers(self.folder(name, "", seed), labels, classes) for seed in seeds], len(classes))

        right = {"features": probe.answers == labels}
        right |= {EXTRACTORS[name].title: voted(name) == labels for name in self.config.rows}
        return [compare(first, second, right) for first, second in combinations(right, 2)]

    def folder(self, name: str, variant: str, seed: int) -> Path:
        """The folder of a training."""
        return self.run.path / "runs" / f"{name}{variant and '-'}{variant}-seed{seed}"

    def trainings(
        self, name: str, variant: str, bridge: Bridge, weights: Sequence[str], keep: str | None = None
    ) -> list[dict[str, Any]]:
        """Trains a head for each of the extractor's weights, each with its own seed, and returns the results.

        ``keep``: key of maps that are needed later; with it, all other maps are removed after their last training.
        """
        maps: dict[str, Maps] = {}
        results = []
        for number, source in enumerate(weights):
            seed = self.seed + number
            inputs = {"extractor": name, "weights": source, "variant": variant, "seed": seed}
            with Run.open(self.folder(name, variant, seed), self.task, inputs=inputs) as run:
                result = on_chief(partial(result_of, run))
                if result is None:
                    if source not in maps:
                        maps = {source: bridge.maps(bridge.load(name, source))}
                    self.run.say(f"{run.path.name}: {maps[source].network.weights} weights")
                    result = train_head(run, bridge, maps[source], seed).result
                    run.write_json("result.json", result)
                    last = source not in weights[number + 1 :]
                    if keep is not None and last and maps[source].x.key != keep:
                        maps.pop(source).remove()
            results.append(result)
        return results

    def controls(self, name: str) -> list[TableLine]:
        """The controls: probes, random weights, shuffled pixels, and the other preset's choices."""
        bridge, weights = self.bridge_of(self.bridge), self.plan.weights[name]
        maps = bridge.maps(bridge.load(name, weights))
        keep, found = maps.x.key, named(probes(self.run, bridge, maps, self.seed), {})
        lines = [
            TableLine(name.removeprefix("probe_").replace("_", " "), test=value)
            for name, value in found.items()
            if name != PROBE_OF_FEATURES
        ]
        seeds = range(self.seed, self.seed + self.config.control_seeds)
        random = self.trainings(name, "random", bridge, [f"random:{seed}" for seed in seeds], keep)
        if not weights.startswith("random"):
            published = self.trainings(name, "", bridge, [weights for _ in seeds])
            lines.append(TableLine.of_results("published weights", published))
            gain = [a["test_accuracy"] - b["test_accuracy"] for a, b in zip(published, random, strict=True)]
            low, high = mean_interval(gain)
            self.run.say(f"published minus random weights: {sum(gain) / len(gain):+.4f} ({low:+.4f} to {high:+.4f})")
        lines.append(TableLine.of_results("as many networks of random weights", random))
        for variant in self.plan.variants:
            other = self.bridge_of(self.bridge.choosing(variant.choices, variant.shuffle))
            results = self.trainings(name, variant.name, other, [weights] * self.config.seeds, keep)
            lines.append(TableLine.of_results(variant.title, results))
        return lines

    def _result(self, rows: list[TableLine], probe: Probe, controls: list[TableLine]) -> dict[str, Any]:
        """Every test accuracy; the main one belongs to the row with the best validation accuracy."""
        best = max(rows, key=lambda line: line.validation or 0.0)
        figures = {f"test_accuracy_{name}": line.test for name, line in zip(self.config.rows, rows, strict=True)}
        figures[PROBE_OF_FEATURES] = probe.test
        figures |= {f"control_{line.row.replace(' ', '_')}": line.test for line in controls}
        return {"test_accuracy": best.test, "best_row": best.row, "seed": self.seed, **figures}


def _line_of(probe: Probe) -> TableLine:
    """The line of logistic regression on the features."""
    interval = wilson_interval(probe.test, len(probe.answers))
    return TableLine("linear on features", validation=probe.validation, test=probe.test, test_low=interval.low,
                test_high=interval.high)  # fmt: skip
