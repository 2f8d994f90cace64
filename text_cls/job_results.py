"""What a run of a text classifier keeps of its trained job: figures, result, predictions and pictures."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from files.documents import read_json
from files.writing import write_text
from text_cls.answers import predictions_csv
from text_cls.config import TextTaskConfig
from text_cls.evaluation.calibration import activated
from text_cls.evaluation.metrics import flat
from text_cls.evaluation.scored_rows import TEST_ROWS, write_scored
from text_cls.labelling import labelling_of
from text_cls.report import files as report_files
from text_cls.report import plots
from training.checkpoint import State
from training.plots import training_curves
from training.run import Run

if TYPE_CHECKING:
    from text_cls.job import TextJob


def split_report(job: "TextJob", split: str) -> dict[str, Any]:
    """Figures of a split whose logits are there, and its calibration before and after the temperature."""
    labels, predictor, logits = job.encoded[split].labels, job.predictor, job.logits[split]
    before, after = activated(logits, predictor.multi_label), predictor.activated(logits)
    thresholds, temperature = predictor.thresholds, predictor.temperature
    report = job.labelling.report(after, labels, job.splits.classes, thresholds)
    report |= job.labelling.calibration(before, after, labels, thresholds, temperature)
    if split == "test":
        report |= job.labelling.intervals_report(after, labels, thresholds, job.config.seed)
    return report


def result_of(job: "TextJob", reports: dict[str, Any], state: State, start: float) -> dict[str, Any]:
    """The content of ``result.json``; ``start`` is ``time.monotonic()`` when the training began."""
    examples = state.step / job.steps_per_epoch * len(job.encoded["train"])
    result = {f"val_{name}": value for name, value in flat(reports["validation"]).items()}
    result |= {f"test_{name}": value for name, value in flat(reports["test"]).items()}
    return (
        result
        | {
            "train_seconds": state.seconds,
            "total_seconds": time.monotonic() - start,
            "examples_per_second": examples / state.seconds,
            "num_parameters": job.predictor.model.count_params(),
            "steps": state.step,
            "best_step": state.best_step,
            "temperature": job.predictor.temperature,
            **{f"weight_{name}": weight for name, weight in job.linear_weights.items()},
            "seed": job.config.seed,
        }
        | ({"init_from": str(job.config.init_from)} if job.config.init_from else {})
    )


def write_predictions(job: "TextJob", folder: Path) -> None:
    """Predictions for the test rows, and for the rows without labels if the data set has some."""
    probabilities = job.predictor.activated(job.logits["test"])
    write_scored(folder / TEST_ROWS, job.splits, probabilities, job.predictor.thresholds)
    if job.splits.unlabeled is not None:
        probabilities = job.predictor.probabilities(job.encoded["unlabeled"])
        ids, classes, thresholds = job.splits.unlabeled.ids, job.splits.classes, job.predictor.thresholds
        write_text(folder / "predictions.csv", predictions_csv(ids, probabilities, classes, thresholds=thresholds))


def draw(
    run: Run, config: TextTaskConfig, picture: Callable[[str, Callable[[Path], None]], None], result: dict[str, Any]
) -> None:
    """The pictures that need no model, from the files of the run; ``picture`` is ``run.picture``, or draws only missing
    ones."""
    labelling = labelling_of(config.data.multi_label)
    picture("curves.png", lambda path: training_curves(run.path / "metrics.jsonl", path, labelling.curves))
    picture(
        f"{labelling.picture}.png",
        lambda path: labelling.draw(read_json(run.path / "report.json")["test"], path),
    )
    if "temperature" in result:  # versions before 0.7 fitted none
        picture(
            "calibration.png",
            lambda path: plots.calibration(read_json(run.path / "report.json")["test"]["calibration"], path),
        )
    report_files.draw(run, config, picture)
