"""The IMDB-image table: a row an extractor, over seeds, and under it what bounds the claim.

python -m experiments.imdb_table --flagfile=experiments/flags/imdb_table.flags
"""

import csv
import dataclasses
import io
from typing import TYPE_CHECKING, Any, NamedTuple

from absl import flags

from experiments import bridge_job, launch
from training.errors import UserError

if TYPE_CHECKING:
    from experiments.bridge_job import Bridge, Extraction
    from training.run import Run
    from training.strategy import Placement
    from vision_bridge.presets import Choices
    from vision_bridge.table import Row

FLAGS = flags.FLAGS
COLUMNS = (
    "row", "weights", "maps", "encoder rate", "rate", "seeds", "validation", "test", "sd", "test low", "test high",
    "original", "reproduced",
)  # fmt: skip

bridge_job.define_flags()
flags.adopt_module_key_flags(bridge_job)
flags.DEFINE_list(
    "rows", ["alexnet", "wide_resnet50_2", "resnext50_32x4d", "shufflenet_v2_x1_0", "vgg16"], "Extractors, in order."
)
flags.DEFINE_list("weights_of", [], "ROW=FILE for rows whose weights are elsewhere.")
flags.DEFINE_enum("missing", "error", ["error", "random"], "Weights that cannot be had: stop, or random and said so.")
flags.DEFINE_integer("seeds", 3, "Trainings of each row and control, from --seed on.", 1)
flags.DEFINE_string("control_row", "", "Extractor of the controls below the table; empty: no controls.")
flags.DEFINE_integer("control_seeds", 5, "Trainings with random weights, beside as many with the published ones.", 2)
flags.DEFINE_bool("ablations", True, "With controls: each choice of the other preset by itself.")


def main() -> None:
    """Every row's trainings, then table.md, table.csv, table.png and result.json."""
    path = launch.run_dir(f"imdb_table-{FLAGS.dataset}")
    _check_flags()
    if not FLAGS.dry_run and launch.finished(path, "test_accuracy"):
        return
    placement = launch.prepare_devices()
    prepared = bridge_job.prepare(placement)
    if FLAGS.dry_run:
        bridge_job.dry_run(prepared, placement, [_row(name) for name in FLAGS.rows])
        return
    chosen = bridge_job.choices()
    bridge_job.check_features(prepared, chosen)
    sources = {name: _source(placement, chosen, name) for name in dict.fromkeys([*FLAGS.rows, *_control_rows()])}
    variants = _variants(placement, chosen, sources[FLAGS.control_row]) if FLAGS.control_row else []
    table = Table(launch.open_data_run(path, prepared[0]), prepared, placement, sources)
    lines = [table.line(row) for row in FLAGS.rows]
    _write(table.run, lines, [])
    controls = table.controls(variants) if FLAGS.control_row else []
    text = _write(table.run, lines, controls)
    table.run.write_json("result.json", _result(lines, controls))
    table.run.say(f"{text}\neverything is in {table.run.path}: table.md, table.csv, table.png, runs/")


class Variant(NamedTuple):
    """A control: the control row trained with something else about it."""

    name: str
    title: str
    choices: "Choices"
    shuffle: bool = False


@dataclasses.dataclass
class Table:
    """Trains what the table needs; each training is a run of its own in ``runs/``, done once.

    Attributes:
        sources: each extractor's weights.
    """

    run: "Run"
    prepared: Any
    placement: "Placement"
    sources: dict[str, str]
    bridges: dict[Any, "Bridge"] = dataclasses.field(default_factory=dict)

    def bridge(self, chosen: "Choices", shuffle: bool = False) -> "Bridge":
        """Everything up to the images."""
        key = (chosen, shuffle)
        if key not in self.bridges:
            self.bridges[key] = bridge_job.build(self.prepared, self.placement, chosen, shuffle)
        return self.bridges[key]

    def line(self, backbone: str) -> dict[str, Any]:
        """One row of the table."""
        bridge = self.bridge(bridge_job.choices(), FLAGS.shuffle_pixels)
        results = self.trainings(backbone, "", bridge, [self.sources[backbone]] * FLAGS.seeds)
        row = _row(backbone)
        rates = {"encoder rate": f"{bridge_job.encoder_rate(row):g}", "rate": f"{bridge_job.rate(row):g}"}
        published = {"original": row.original, "reproduced": row.reproduced}
        return _line(row.title, results) | rates | published

    def trainings(
        self, backbone: str, name: str, bridge: "Bridge", weights: list[str], keep: str | None = None
    ) -> list[dict[str, Any]]:
        """Results of a training for each of the extractor's weights, each with a seed of its own.

        With ``keep``, the key of maps that are still needed, all others are removed once they were trained on.
        """
        extractions: dict[str, Extraction] = {}
        results = []
        for number, source in enumerate(weights):
            seed = FLAGS.seed + number
            run = launch.open_run(self.run.path / "runs" / f"{backbone}{name and '-'}{name}-seed{seed}")
            result = run.read_json("result.json")
            if result is None:
                if source not in extractions:
                    extractions = {source: self.extraction(bridge, backbone, source)}
                self.run.say(f"{run.path.name}: {extractions[source].weights} weights")
                result, _ = bridge_job.train(run, bridge, extractions[source], _row(backbone), seed)
                run.write_json("result.json", result)
                last = source not in weights[number + 1 :]
                if keep is not None and last and extractions[source].x.key != keep:
                    extractions.pop(source).remove()
            results.append(result)
        return results

    def extraction(self, bridge: "Bridge", backbone: str, weights: str) -> "Extraction":
        """The frozen maps."""
        model, what = bridge_job.load_extractor(self.placement, bridge.choices, _row(backbone), weights)
        return bridge_job.extract(bridge, model, what)

    def controls(self, variants: list[Variant]) -> list[dict[str, Any]]:
        """What bounds the claim: probes, random weights, shuffled pixels, and the other preset's choices."""
        from vision_bridge.controls import mean_interval

        backbone = FLAGS.control_row
        bridge, weights = self.bridge(bridge_job.choices()), self.sources[backbone]
        extraction = self.extraction(bridge, backbone, weights)
        keep = extraction.x.key
        probes = bridge_job.probes(bridge, extraction, FLAGS.seed)
        lines = [_plain(name.removeprefix("probe_").replace("_", " "), value) for name, value in probes.items()]
        seeds = range(FLAGS.seed, FLAGS.seed + FLAGS.control_seeds)
        made_up = self.trainings(backbone, "random", bridge, [f"random:{seed}" for seed in seeds], keep)
        if not weights.startswith("random"):
            real = self.trainings(backbone, "", bridge, [weights for _ in seeds])
            lines.append(_line("published weights", real))
            gain = [a["test_accuracy"] - b["test_accuracy"] for a, b in zip(real, made_up, strict=True)]
            low, high = mean_interval(gain)
            self.run.say(f"published minus random weights: {sum(gain) / len(gain):+.4f} ({low:+.4f} to {high:+.4f})")
        lines.append(_line("as many networks of random weights", made_up))
        for variant in variants:
            other = self.bridge(variant.choices, variant.shuffle)
            results = self.trainings(backbone, variant.name, other, [weights] * FLAGS.seeds, keep)
            lines.append(_line(variant.title, results))
        return lines


def _check_flags() -> None:
    if not FLAGS.rows:
        raise UserError("--rows=: name at least one extractor")
    bridge_job.check([*FLAGS.rows, *_control_rows()])
    if FLAGS.control_row and FLAGS.shuffle_pixels:
        raise UserError("--shuffle_pixels with --control_row: shuffled pixels are one of the controls; leave one out")
    _weights_of()


def _control_rows() -> list[str]:
    return [FLAGS.control_row] if FLAGS.control_row else []


def _row(backbone: str) -> "Row":
    from vision_bridge.table import ROWS

    return ROWS[backbone]


def _source(placement: "Placement", chosen: "Choices", name: str) -> str:
    """The extractor's weights, which are there; random ones if its own cannot be had and that was asked for."""
    weights = _weights_of().get(name, FLAGS.weights)
    try:
        bridge_job.load_extractor(placement, chosen, _row(name), weights)
    except UserError as error:
        if FLAGS.missing == "error" or weights.startswith("random"):
            raise
        print(f"note: {name} with random weights, as --missing=random asks: {error}")
        weights = "random"
        bridge_job.load_extractor(placement, chosen, _row(name), weights)
    return weights


def _variants(placement: "Placement", chosen: "Choices", weights: str) -> list[Variant]:
    """The controls besides weights; refuses what the control row's weights cannot do."""
    from vision_bridge.backbones import has_norms
    from vision_bridge.presets import PRESETS

    variants = [Variant("shuffled", "shuffled pixels", chosen, shuffle=True)]
    if FLAGS.ablations:
        other = PRESETS["author" if FLAGS.preset == "corrected" else "corrected"]
        try:  # of all choices, the extractor depends on bn_mode alone
            model, _ = bridge_job.load_extractor(placement, other, _row(FLAGS.control_row), weights)
        except UserError as error:
            raise UserError(f"control 'bn_mode = {other.bn_mode}': {error}; --noablations leaves it out") from error
        for name, value in chosen.differences(other).items():
            if name != "bn_mode" or has_norms(model):
                variants.append(Variant(name, f"{name} = {value}", dataclasses.replace(chosen, **{name: value})))
        variants.append(Variant("other", "all of them", other))
    return variants


def _weights_of() -> dict[str, str]:
    pairs = [text.partition("=") for text in FLAGS.weights_of]
    for name, equals, file in pairs:
        if name not in [*FLAGS.rows, FLAGS.control_row] or not equals or not file:
            raise UserError(f"--weights_of={name}{equals}{file}: write ROW=FILE with a row of --rows")
    return {name: file for name, _, file in pairs}


def _line(name: str, results: list[dict[str, Any]]) -> dict[str, Any]:
    """Results over seeds as a line; the interval of one seed is that of its test rows."""
    import numpy as np

    from vision_bridge.controls import mean_interval

    test = [result["test_accuracy"] for result in results]
    one = results[0]
    low, high = mean_interval(test) if len(test) > 1 else (one["test_accuracy_low"], one["test_accuracy_high"])
    return {
        "row": name,
        "weights": one["weights"],
        "maps": one["maps"],
        "seeds": len(results),
        "validation": float(np.mean([result["val_accuracy"] for result in results])),
        "test": float(np.mean(test)),
        "sd": float(np.std(test, ddof=1)) if len(test) > 1 else None,
        "test low": low,
        "test high": high,
    }


def _plain(name: str, accuracy: float) -> dict[str, Any]:
    return {"row": name, "test": accuracy}


def _markdown(lines: list[dict[str, Any]]) -> str:
    columns = [column for column in COLUMNS if any(line.get(column) is not None for line in lines)]

    def cell(value: Any) -> str:
        if value is None:
            return ""
        return f"{value:.4f}".removeprefix("0") if isinstance(value, float) else str(value)

    rows = ["| " + " | ".join(cell(line.get(column)) for column in columns) + " |" for line in lines]
    return "\n".join(["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns), *rows]) + "\n"


def _write(run: "Run", lines: list[dict[str, Any]], controls: list[dict[str, Any]]) -> str:
    """The table as Markdown, CSV and a picture; returns the first."""
    from experiments import plots
    from training.run import write_text

    text = _markdown(lines) + (
        f"\nControls, {_row(FLAGS.control_row).title}:\n\n{_markdown(controls)}" if controls else ""
    )
    write_text(run.path / "table.md", text)
    file = io.StringIO()
    writer = csv.DictWriter(file, COLUMNS)
    writer.writeheader()
    writer.writerows(lines + controls)
    write_text(run.path / "table.csv", file.getvalue())
    everything = lines + controls
    shown = {name: [line.get(name) for line in everything]
             for name in ("test", "test low", "test high", "original", "reproduced")}  # fmt: skip
    plots.accuracies([line["row"] for line in everything], shown, run.path / "table.png", errors="test")
    return text


def _result(lines: list[dict[str, Any]], controls: list[dict[str, Any]]) -> dict[str, Any]:
    """Every test accuracy, and that of the row with the best validation accuracy."""
    best = max(lines, key=lambda line: line["validation"])
    figures = {f"test_accuracy_{name}": line["test"] for name, line in zip(FLAGS.rows, lines, strict=True)}
    figures |= {f"control_{line['row'].replace(' ', '_')}": line["test"] for line in controls}
    return {"test_accuracy": best["test"], "best_row": best["row"], "seed": FLAGS.seed, **figures}


if __name__ == "__main__":
    launch.launch(main)
