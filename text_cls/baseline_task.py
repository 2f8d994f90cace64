"""The task of fitting linear models on n-grams: data, features, models, report."""

import dataclasses
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

from files.download import cache_of
from files.errors import UserError
from files.writing import write_text
from text_cls.baseline_config import FORMER_MODELS, BaselineConfig
from text_cls.corpora import CorpusCache, Tokenised, clean_splits
from text_cls.data.fields import check_joined
from text_cls.data.splits import load
from text_cls.evaluation.metrics import flat
from text_cls.evaluation.scored_rows import name_of, write_scored
from text_cls.evaluation.several_labels import fit_thresholds
from text_cls.labelling import Labelling, labelling_of
from text_cls.linear.baselines import MODELS, features, run_baseline, with_characters
from text_cls.report.text import MOST_LINES, as_text, whole
from text_cls.tokens.preprocess import Cleaner, merge
from training.config_files import text_of
from training.hosts import hosts
from training.randomness import seeded
from training.run import Run
from training.run_config import flags_of


def run_baselines(config: BaselineConfig, run_dir: Path | str) -> dict[str, Any]:
    """Fits every model on the training rows; the test split is scored once, afterwards.

    Args:
        config: data, cleaning and models.
        run_dir: the run folder.

    Returns:
        Every figure by model and split, as in ``result.json``.
    """
    if hosts().count > 1:
        raise UserError("the baselines run on one host: unset TF_CONFIG, and start them on one host only")
    config = _as_begun(config, Path(run_dir))
    Run.check(run_dir, config)
    prepared = _prepare(config)
    inputs = {"tokeniser": Cleaner(config.cleaning).key}
    with Run.open(run_dir, config, prepared.data.splits, inputs) as run:
        return _fit_all(run, config, prepared)


def dry_run(config: BaselineConfig) -> None:
    """Reads everything, prints sizes, and writes nothing."""
    for note in _prepare(config, write=False).data.splits.notes:
        print(f"note: {note}")
    print("nothing was written")


def _as_begun(config: BaselineConfig, folder: Path) -> BaselineConfig:
    """The configuration, with the default models of an earlier version if the folder has them and no others are asked
    for."""
    there = flags_of(folder, config).get("models")
    if config.models == BaselineConfig().models and there == text_of(FORMER_MODELS):
        print(f"note: {folder} is of an earlier version, whose default was --models={there}: it keeps these models")
        return dataclasses.replace(config, models=FORMER_MODELS)
    return config


def _fit_all(run: Run, config: BaselineConfig, prepared: "_Prepared") -> dict[str, Any]:
    data, labelling = prepared.data, labelling_of(config.data.multi_label)
    reports: dict[str, Any] = {}
    result: dict[str, Any] = {}
    for name in config.models:
        start = time.monotonic()
        train, *others = prepared.inputs[MODELS[name].characters]
        with seeded(config.seed):  # the SVM draws
            predictions = run_baseline(name, train, prepared.labels, others, config.strength, len(data.splits.classes))
        result |= {f"{name}_train_seconds": time.monotonic() - start}
        reports[name] = _reports(data, dict(zip(prepared.scored, predictions, strict=True)), labelling)
        _add_rows(run, config, name, data, predictions[-1], reports[name]["test"])
        _say(run, name, reports[name], result[f"{name}_train_seconds"], labelling.headline)
        for split, report in reports[name].items():
            short = "val" if split == "validation" else split
            result |= {f"{name}_{short}_{key}": value for key, value in flat(report).items()}
    run.write_json("report.json", reports)
    tables = {f"{name}, {split}": report for name, both in reports.items() for split, report in both.items()}
    write_text(run.path / "report.txt", whole(tables))
    result |= {"seed": config.seed}
    run.write_json("result.json", result)
    for name, of_split in reports.items():
        run.picture(f"{labelling.picture}_{name}.png", partial(labelling.draw, of_split["test"]))
    return result


class _Prepared(NamedTuple):
    """The inputs and labels of the models.

    Attributes:
        data: the splits and their words.
        labels: [N] or [N, K] of the training rows.
        scored: names of the splits that are scored and not trained on.
        inputs: ``Baseline.characters`` → matrices [rows, n-grams] of the training rows and of each split in ``scored``.
    """

    data: Tokenised
    labels: np.ndarray
    scored: tuple[str, ...]
    inputs: dict[bool, list[csr_matrix]]


def _prepare(config: BaselineConfig, write: bool = True) -> _Prepared:
    check_joined(config.data.join_fields)
    cache = cache_of(config.cache_dir)
    data = clean_splits(
        load(config.data, config.seed, cache), Cleaner(config.cleaning), CorpusCache(cache, write),
        config.data.skip_bad_rows,
    )  # fmt: skip
    scored = ("test",) if config.train_on_validation else ("validation", "test")
    trained = [name for name in ("train", "validation") if name not in scored]
    train, others = merge([data.corpora[name] for name in trained]), [data.corpora[name] for name in scored]
    inputs = {False: features(train, others, config.max_ngram)}
    counts = f"{inputs[False][0].shape[1]:,} n-grams of words"
    if any(MODELS[name].characters for name in config.models):
        inputs[True] = with_characters(inputs[False], train, others)
        counts += f", {inputs[True][0].shape[1] - inputs[False][0].shape[1]:,} of characters"
    print(f"{config.data.dataset}: {len(train):,} train, {len(others[-1]):,} test rows; {counts}")
    return _Prepared(data, np.concatenate([_labels(data, name) for name in trained]), scored, inputs)


def _labels(data: Tokenised, split: str) -> np.ndarray:
    labels = data.splits.parts()[split].labels
    assert labels is not None
    return labels


def _reports(data: Tokenised, predictions: Mapping[str, np.ndarray], labelling: Labelling) -> dict[str, Any]:
    """The report of every split; with several labels a text, thresholds are fitted on validation."""
    labels = {split: _labels(data, split) for split in predictions}
    several = labels["test"].ndim == 2
    thresholds = fit_thresholds(predictions["validation"], labels["validation"]) if several else None
    return {
        split: labelling.report(found, labels[split], data.splits.classes, thresholds)
        for split, found in predictions.items()
    }


def _add_rows(
    run: Run, config: BaselineConfig, name: str, data: Tokenised, found: np.ndarray, report: dict[str, Any]
) -> None:
    """Writes the test rows to a file, and adds the intervals of their figures to the report."""
    labels, labelling = _labels(data, "test"), labelling_of(config.data.multi_label)
    each = [row.get("threshold") for row in report["per_class"].values()]
    thresholds = np.array(each) if labels.ndim == 2 else None
    write_scored(run.path / name_of(name), data.splits, found, thresholds)
    report |= labelling.intervals_report(found, labels, thresholds, config.seed)


def _say(run: Run, name: str, reports: dict[str, Any], seconds: float, headline: str) -> None:
    figure = headline.replace("_", " ")
    score = f"validation {figure} {reports['validation'][headline]:.4f}; " if "validation" in reports else ""
    run.say(f"{name}, {seconds:.1f} s, {score}test split:")
    run.say(as_text(reports["test"], MOST_LINES))
