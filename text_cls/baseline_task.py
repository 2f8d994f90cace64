"""TF-IDF with linear models as a task: data, features, models, report."""

import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

from files.download import cache_of
from files.errors import UserError
from files.writing import write_text
from text_cls.baselines import features, run_baseline
from text_cls.config import BaselineConfig
from text_cls.corpora import CorpusCache, Tokenised, clean_splits
from text_cls.data import check_joined, load
from text_cls.labelling import Labelling, labelling_of
from text_cls.metrics import flat
from text_cls.preprocess import Cleaner
from text_cls.report_text import MOST_LINES, as_text, whole
from text_cls.several_labels import fit_thresholds
from training.hosts import hosts
from training.randomness import seeded
from training.run import Run


def run_baselines(config: BaselineConfig, run_dir: Path | str) -> dict[str, Any]:
    """Fits every model on the training rows; the test split is scored once, afterwards.

    Args:
        config: data, cleaning and models.
        run_dir: the folder that is made.

    Returns:
        Every figure by model and split, as in ``result.json``.
    """
    if hosts().count > 1:
        raise UserError("the baselines run on one host: unset TF_CONFIG, and start them on one alone")
    Run.check(run_dir, config)
    data, train, others = _prepare(config)
    with Run.open(run_dir, config, data.splits, {"tokeniser": Cleaner(config.cleaning).key}) as run:
        return _fit_all(run, config, data, train, others)


def dry_run(config: BaselineConfig) -> None:
    """Reads everything, prints sizes, and writes nothing."""
    for note in _prepare(config, write=False).data.splits.notes:
        print(f"note: {note}")
    print("nothing was written")


def _fit_all(
    run: Run, config: BaselineConfig, data: Tokenised, train: csr_matrix, others: list[csr_matrix]
) -> dict[str, Any]:
    labels, labelling = data.splits.train.labels, labelling_of(config.data.multi_label)
    assert labels is not None
    reports: dict[str, Any] = {}
    result: dict[str, Any] = {}
    for name in config.models:
        start = time.monotonic()
        with seeded(config.seed):  # the SVM draws
            predictions = run_baseline(name, train, labels, others, config.strength, len(data.splits.classes))
        result |= {f"{name}_train_seconds": time.monotonic() - start}
        reports[name] = _reports(data, predictions, labelling)
        _say(run, name, reports[name], result[f"{name}_train_seconds"], labelling.headline)
        for split, short in (("validation", "val"), ("test", "test")):
            result |= {f"{name}_{short}_{key}": value for key, value in flat(reports[name][split]).items()}
    run.write_json("report.json", reports)
    tables = {f"{name}, {split}": report for name, both in reports.items() for split, report in both.items()}
    write_text(run.path / "report.txt", whole(tables))
    result |= {"seed": config.seed}
    run.write_json("result.json", result)
    for name, of_split in reports.items():
        run.picture(f"{labelling.picture}_{name}.png", partial(labelling.draw, of_split["test"]))
    return result


class _Prepared(NamedTuple):
    data: Tokenised
    train: csr_matrix  # [N, n-grams]
    others: list[csr_matrix]  # of validation and test


def _prepare(config: BaselineConfig, write: bool = True) -> _Prepared:
    check_joined(config.data.join_fields)
    cache = cache_of(config.cache_dir)
    data = clean_splits(
        load(config.data, config.seed, cache), Cleaner(config.cleaning), CorpusCache(cache, write),
        config.data.skip_bad_rows,
    )  # fmt: skip
    corpora = data.corpora
    train, *others = features(corpora["train"], [corpora["validation"], corpora["test"]], config.max_ngram)
    rows = f"{train.shape[0]:,} train, {others[1].shape[0]:,} test rows"
    print(f"{config.data.dataset}: {rows}; {train.shape[1]:,} n-grams")
    return _Prepared(data, train, others)


def _reports(data: Tokenised, predictions: list[np.ndarray], labelling: Labelling) -> dict[str, Any]:
    """Of validation and test, with thresholds fitted on validation where a text has several labels."""
    validation, test = data.splits.validation.labels, data.splits.test.labels
    assert validation is not None and test is not None
    thresholds = None if validation.ndim == 1 else fit_thresholds(predictions[0], validation)
    pairs = zip(("validation", "test"), predictions, (validation, test), strict=True)
    return {split: labelling.report(p, labels, data.splits.classes, thresholds) for split, p, labels in pairs}


def _say(run: Run, name: str, reports: dict[str, Any], seconds: float, headline: str) -> None:
    score = f"{headline.replace('_', ' ')} {reports['validation'][headline]:.4f}"
    run.say(f"{name}, {seconds:.1f} s, validation {score}; test split:")
    run.say(as_text(reports["test"], MOST_LINES))
