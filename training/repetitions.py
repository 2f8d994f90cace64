"""One task with several seeds and variations: means, differences paired by seed, and a table of them.

A run's figures are the numbers of its ``result.json``, of any task.
"""

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from files.documents import is_number
from files.writing import write_text
from training.names import one_line

Figures = Mapping[str, float]
PER_STEP = "seconds_per_step"
_FOUND = "accuracy|mean_average_precision|rmse|exact_match"
_MAIN = re.compile(rf"(.*_)?test_({_FOUND})|fid")  # shown unless figures are named
_COST = re.compile(rf"(.*_)?train_seconds|{PER_STEP}")


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float


def mean_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Student's interval of the mean over seeds; NaN for fewer than two."""
    from scipy import stats  # imported here because it takes a second, and a list of runs does not need it

    if len(values) < 2:
        return Interval(float("nan"), float("nan"))
    half = stats.t.ppf(0.5 + level / 2, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return Interval(float(np.mean(values) - half), float(np.mean(values) + half))


class Mean(NamedTuple):
    """The mean of some values; standard deviation and interval need two of them, and are None for one."""

    values: tuple[float, ...]
    mean: float
    sd: float | None
    interval: Interval | None


class Group(NamedTuple):
    """Runs that differ only in their seed: a row of the table.

    Attributes:
        data: name of the data set.
        variation: name of the variation.
        seeds: of all its runs.
        results: seed → figures of each finished run.
        failures: seed → error of each failed run.
    """

    data: str
    variation: str
    seeds: tuple[int, ...]
    results: Mapping[int, Figures]
    failures: Mapping[int, str]

    def values(self, figure: str) -> dict[int, float]:
        """Seed → figure, for the runs that have it."""
        return {s: self.results[s][figure] for s in self.seeds if s in self.results and figure in self.results[s]}


class Cell(NamedTuple):
    """A figure of a group: its mean, and the mean difference from the first variation on the same data and seed."""

    own: Mean | None
    difference: Mean | None


def figures_of(result: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers of a ``result.json`` without the seed, and the seconds of a step if they can be computed."""
    numbers = {name: float(value) for name, value in result.items() if is_number(value) and name != "seed"}
    if numbers.get("steps", 0) > 0 and "train_seconds" in numbers:
        numbers.setdefault(PER_STEP, numbers["train_seconds"] / numbers["steps"])
    return numbers


def known_figures(groups: Iterable[Group]) -> list[str]:
    """The figures that occur in any result, in the order of the results."""
    return list(dict.fromkeys(name for group in groups for found in group.results.values() for name in found))


def main_figures(known: Iterable[str]) -> list[str]:
    """The figures that are shown by default: those on test rows, and the cost."""
    known = list(known)
    on_test = [name for name in known if _MAIN.fullmatch(name)] or [name for name in known if name == "test_loss"]
    return on_test + [name for name in known if _COST.fullmatch(name)]


def mean_of(values: Sequence[float]) -> Mean | None:
    """The mean of some values; None if there is no value."""
    if not values:
        return None
    several = len(values) > 1
    sd = float(np.std(values, ddof=1)) if several else None
    return Mean(tuple(values), float(np.mean(values)), sd, mean_interval(values) if several else None)


def cells(groups: Sequence[Group], figure: str) -> list[Cell]:
    """A figure of every group; the other groups of a data set are compared with its first group."""
    firsts: dict[str, Group] = {}
    found = []
    for group in groups:
        first = firsts.setdefault(group.data, group)
        here, there = group.values(figure), first.values(figure)
        pairs = [here[seed] - there[seed] for seed in here if seed in there and group is not first]
        found.append(Cell(mean_of(list(here.values())), mean_of(pairs)))
    return found


def markdown(groups: Sequence[Group], figures: Sequence[str]) -> str:
    """The table, and the failures below it; it has a column of data sets only if there are several."""
    several = len({group.data for group in groups}) > 1
    columns = {figure: cells(groups, figure) for figure in figures}
    titles = [*(["data"] if several else []), "variation", "seeds"]
    for figure in figures:
        titles += [figure.replace("_", " "), *(["difference"] if _is_compared(figure) else [])]
    rows = []
    for i, group in enumerate(groups):
        done, wanted = len(group.results), len(group.seeds)
        row = [
            *([group.data] if several else []),
            group.variation,
            str(done) if done == wanted else f"{done} of {wanted}",
        ]
        for figure, column in columns.items():
            digits = _digits(column)
            row.append(_mean_text(column[i].own, digits))
            row += [_difference_text(column[i].difference, digits)] if _is_compared(figure) else []
        rows.append(row)
    lines = [_row(titles), "|" + "---|" * len(titles), *map(_row, rows), "", _LEGEND]
    failures = [
        f"- {_place(group, several)}, seed {seed}: {one_line(error, 300)}"
        for group in groups
        for seed, error in group.failures.items()
    ]
    return "\n".join([*lines, *(["", "Failed:", "", *failures] if failures else [])]) + "\n"


_LEGEND = (
    "Mean ± standard deviation over seeds; difference from the first variation, paired by seed, with Student's 95 % "
    "interval."
)


def as_csv(groups: Sequence[Group], figures: Sequence[str]) -> str:
    """The table in full precision; the cell of a missing number is empty."""
    parts = ("mean", "sd", "low", "high", "difference", "difference_low", "difference_high")
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    titles = [f"{figure}_{part}" for figure in figures for part in parts]
    writer.writerow(["data", "variation", "seeds", "finished", "failed", *titles])
    columns = [cells(groups, figure) for figure in figures]
    for i, group in enumerate(groups):
        row: list[Any] = [group.data, group.variation, len(group.seeds), len(group.results), len(group.failures)]
        for column in columns:
            own, difference = column[i]
            row += [own.mean, own.sd, *(own.interval or (None, None))] if own else [None] * 4
            row += [difference.mean, *(difference.interval or (None, None))] if difference else [None] * 3
        writer.writerow(row)
    return file.getvalue()


def write_table(folder: Path, groups: Sequence[Group], figures: Sequence[str], made_by: str) -> str:
    """Writes ``table.md``, with the command ``made_by``, and ``table.csv``; returns the table."""
    text = markdown(groups, figures)
    write_text(folder / "table.md", f"{text}\nMade by:\n\n    {made_by}\n")
    write_text(folder / "table.csv", as_csv(groups, figures))
    return text


def draw_table(path: Path, groups: Sequence[Group], figures: Sequence[str]) -> None:
    """Draws means with their intervals, one panel for each figure."""
    from training import plots

    several = len({group.data for group in groups}) > 1
    panels = {figure: [cell.own for cell in cells(groups, figure)] for figure in figures}
    plots.means([_place(group, several) for group in groups], panels, path)


def _is_compared(figure: str) -> bool:
    return not _COST.fullmatch(figure)


def _place(group: Group, several: bool) -> str:
    return f"{group.data}, {group.variation}" if several else group.variation


def _row(texts: Sequence[str]) -> str:
    return "| " + " | ".join(one_line(text, 200).replace("|", "\\|") if text else "" for text in texts) + " |"


def _digits(column: Sequence[Cell]) -> int:
    """Decimals of a column: four for shares, otherwise as many as give the largest mean four digits."""
    largest = max((abs(cell.own.mean) for cell in column if cell.own), default=0.0)
    if largest == 0 or 0.1 <= largest < 10:
        return 4
    return min(12, max(0, 3 - math.floor(math.log10(largest))))


def _mean_text(mean: Mean | None, digits: int) -> str:
    if mean is None:
        return ""
    return _number(mean.mean, digits) + (f" ± {_number(mean.sd, digits)}" if mean.sd is not None else "")


def _difference_text(mean: Mean | None, digits: int) -> str:
    if mean is None:
        return ""
    low, high = (_number(end, digits, "+") for end in mean.interval or (math.nan, math.nan))
    return _number(mean.mean, digits, "+") + (f" ({low} to {high})" if mean.interval else "")


def _number(value: float, digits: int, sign: str = "") -> str:
    """.9750, +12,345: without the zero before the point, as in the other tables."""
    return re.sub(r"^([+-]?)0\.", r"\1.", f"{value:{sign},.{digits}f}")
