"""The task of comparing two classifiers on the same test rows: accuracies, intervals, McNemar's test."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from files.documents import read_object, write_json
from files.errors import UserError
from files.limits import check_regular
from text_cls.comparison_config import ComparisonConfig
from text_cls.evaluation.scored_rows import Scored, read_scored
from training.significance import LEVEL, RESAMPLES, interval_of_accuracy, interval_of_difference, mcnemar


def compare_runs(config: ComparisonConfig, run: str, write: bool = True) -> dict[str, Any]:
    """Compares two runs, and writes ``config.out`` if it is given.

    Args:
        config: every choice.
        run: the first run, as its folder or a file of test rows in it; ``config.other`` is the second.
        write: whether to write the file.

    Raises:
        UserError: a run has no test rows, they are damaged, or the runs have different ones; ``out`` is another file.
    """
    first, second = read_scored(Path(run)), read_scored(Path(config.other))
    check_same_rows(first, second)
    if config.out is not None:
        _check_out(config.out.expanduser())
    found = compared(first, second, config.seed)
    if config.out is not None and write:
        write_json(config.out.expanduser(), found)
    return found


def check_same_rows(first: Scored, second: Scored) -> None:
    """Raises UserError if two runs have different test rows."""
    what = f"{first.path} and {second.path}"
    if first.rows != second.rows:
        raise UserError(
            f"{what} have different test rows (see test in their data.json): compare runs with the same data, seed "
            "and shares; runs of versions before 0.16 also need the same --join_fields"
        )
    for column in ("ids", "labels"):
        pairs = zip(getattr(first, column), getattr(second, column), strict=True)
        other = next((number for number, (one, two) in enumerate(pairs, start=2) if one != two), None)
        if other is not None:
            raise UserError(f"{what} have the same test rows but different {column}, first in row {other}")


def compared(first: Scored, second: Scored, seed: int = 0) -> dict[str, Any]:
    """The comparison of two classifiers on the same rows."""
    one, two = first.right, second.right
    table = {
        "both_right": int((one & two).sum()),
        "only_first_right": int((one & ~two).sum()),
        "only_second_right": int((~one & two).sum()),
        "both_wrong": int((~one & ~two).sum()),
    }
    return {
        "runs": [str(first.path), str(second.path)],
        "rows": len(one),
        "accuracy": [float(one.mean()), float(two.mean())],
        "accuracy_intervals": [list(interval_of_accuracy(right, seed)) for right in (one, two)],
        "difference": float(one.mean() - two.mean()),
        "difference_interval": list(interval_of_difference(one, two, seed)),
        "level": LEVEL,
        "resamples": RESAMPLES,
        "seed": seed,
        **table,
        "answers_differ": int(np.not_equal(first.predicted, second.predicted).sum()),
        "mcnemar_p": mcnemar(table["only_first_right"], table["only_second_right"]),
    }


def as_text(found: dict[str, Any]) -> str:
    """A comparison as text for a reader."""
    lines = [
        f"{name}  {run}: accuracy {accuracy:.4f}, {low:.4f} to {high:.4f}"
        for name, run, accuracy, (low, high) in zip(
            "AB", found["runs"], found["accuracy"], found["accuracy_intervals"], strict=True
        )
    ]
    low, high = found["difference_interval"]
    lines.append(f"A - B {found['difference']:+.4f}, {low:+.4f} to {high:+.4f}")
    lines.append(f"{found['rows']:,} test rows, {found['answers_differ']:,} with other answers:")
    cells = [found[name] for name in ("both_right", "only_first_right", "only_second_right", "both_wrong")]
    wide = max(9, *(len(f"{cell:,}") for cell in cells))
    lines.append(f"{'':9}  {'B right':>{wide}}  {'B wrong':>{wide}}")
    for name, pair in (("A right", cells[:2]), ("A wrong", cells[2:])):
        lines.append(f"{name:9}  " + "  ".join(f"{cell:>{wide},}" for cell in pair))
    p = found["mcnemar_p"]
    shown = f"{p:.4f}" if p >= 1e-4 else f"{p:.1e}"
    lines.append(f"McNemar's exact test: p = {shown}, of {cells[1] + cells[2]:,} rows that only one of them gets right")
    how = f"{100 * found['level']:.0f} % of {found['resamples']:,} resamples of the rows, seed {found['seed']}"
    return "\n".join([*lines, f"intervals: {how}"])


def _check_out(out: Path) -> None:
    """Raises UserError if ``out`` exists and is not a comparison."""
    if not os.path.lexists(out):
        return
    check_regular(out)
    try:
        there = read_object(out)
    except UserError:
        there = {}
    if "mcnemar_p" not in there:
        raise UserError(f"--out={out} exists and is not a comparison; name a new file, or remove this one")
