"""A report as text, for one or several labels a text: one line for each class, then the averages."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from training.names import one_line, padded, width

MOST_LINES = 40  # of classes on the screen


class _Column(NamedTuple):
    title: str
    key: str
    form: str


_COLUMNS = (
    _Column("precision", "precision", "9.4f"),
    _Column("recall", "recall", "6.4f"),
    _Column("    f1", "f1", "6.4f"),
    _Column("avg. precision", "average_precision", "14.4f"),
    _Column("threshold", "threshold", "9.4f"),
    _Column("support", "support", "7d"),
)


def as_text(figures: Mapping[str, Any], most: int | None = None) -> str:
    """The report of ``metrics.report`` or ``several_labels.report`` as a table.

    Names are on one line of bounded width. If there are more than ``most`` classes, only those with the lowest F1 are
    shown, in the usual order, with the number of the others.
    """
    per_class = figures["per_class"]
    names = list(per_class)
    if most is not None and len(names) > most:
        worst = set(sorted(names, key=lambda name: (per_class[name]["f1"], -per_class[name]["support"]))[:most])
        names = [name for name in names if name in worst]
    columns = [column for column in _COLUMNS if column.key in next(iter(per_class.values()), {})]
    averages = [name for name in ("micro", "macro") if f"{name}_f1" in figures]
    labels = [one_line(name) for name in names]
    first = max(13, *map(width, labels))
    lines = [" " * first + "".join(f"  {column.title}" for column in columns)]
    lines += [
        padded(label, first) + _cells(per_class[name], columns) for label, name in zip(labels, names, strict=True)
    ]
    if len(names) < len(per_class):
        left_out = len(per_class) - len(names)
        lines.append(
            f"the {len(names)} classes with the lowest F1; {left_out:,} more are in report.txt and report.json"
        )
    for name in averages:
        row = {column.key: figures.get(f"{name}_{column.key}") for column in columns}
        lines.append(padded(f"{name} average", first) + _cells(row, columns).rstrip())
    rest = ("accuracy", "mean_average_precision", "subset_accuracy", "hamming_loss", "loss")
    lines.append("  ".join(f"{name.replace('_', ' ')} {figures[name]:.4f}" for name in rest if name in figures))
    return "\n".join([*lines, *_trust(figures)])


def _trust(figures: Mapping[str, Any]) -> list[str]:
    """A line about intervals and one about calibration, if the report has them."""
    lines, intervals, calibration = [], figures.get("intervals"), figures.get("calibration")
    if intervals:
        named = {name: value for name, value in intervals.items() if name not in ("level", "resamples")}
        each = (f"{name.replace('_', ' ')} {low:.4f} to {high:.4f}" for name, (low, high) in named.items())
        how = f"{100 * intervals['level']:.0f} % intervals, {intervals['resamples']:,} resamples of the rows"
        lines.append(f"{how}: {', '.join(each)}")
    if calibration:
        shown = ("loss", "calibration_error", "calibration_error_equal_mass")
        each = (f"{n.replace('_', ' ')} {figures[n]:.4f} (was {figures[f'{n}_uncalibrated']:.4f})" for n in shown)
        lines.append(f"temperature {calibration['temperature']:.4f}: {', '.join(each)}")
    return lines


def _cells(row: Mapping[str, Any], columns: Sequence[_Column]) -> str:
    """The numbers of a line; a missing number is left empty."""
    return "".join("  " + ("" if row[c.key] is None else f"{row[c.key]:{c.form}}").rjust(len(c.title)) for c in columns)


def whole(reports: Mapping[str, Mapping[str, Any]]) -> str:
    """``report.txt``: the whole table of every report, such as those of the splits."""
    return "\n\n".join(f"{name}\n{as_text(figures)}" for name, figures in reports.items()) + "\n"
