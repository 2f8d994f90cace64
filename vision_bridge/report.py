"""The table of extractors as Markdown, CSV and a picture."""

import csv
import dataclasses
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from files.writing import write_text
from training.repetitions import Interval, mean_interval
from vision_bridge.answers import ClassifierPair


@dataclasses.dataclass(frozen=True)
class TableLine:
    """A line of the table, or of the controls below it; None is an empty cell. Columns have the fields' names."""

    row: str
    weights: str | None = None
    maps: str | None = None
    encoder_rate: str | None = None
    rate: str | None = None
    seeds: int | None = None
    validation: float | None = None
    test: float | None = None
    sd: float | None = None
    interval: str | None = None
    test_low: float | None = None
    test_high: float | None = None
    original: float | None = None
    reproduced: float | None = None

    @classmethod
    def of_results(cls, row: str, results: Sequence[dict[str, Any]], **more: Any) -> "TableLine":
        """The means of several trainings' results, with Student's interval over seeds, cut to [0, 1]; a single training
        has Wilson's interval of its test rows."""
        test, first = [result["test_accuracy"] for result in results], results[0]
        several = len(test) > 1
        interval = mean_interval(test) if several else Interval(first["test_accuracy_low"], first["test_accuracy_high"])
        return cls(
            row,
            weights=first["weights"],
            maps=first["maps"],
            seeds=len(results),
            validation=float(np.mean([result["val_accuracy"] for result in results])),
            test=float(np.mean(test)),
            sd=float(np.std(test, ddof=1)) if several else None,
            interval="Student, seeds" if several else "Wilson, test rows",
            test_low=max(0.0, interval.low),
            test_high=min(1.0, interval.high),
            **more,
        )


COLUMNS = tuple(field.name for field in dataclasses.fields(TableLine))


def write_report(
    folder: Path,
    lines: Sequence[TableLine],
    controls: Sequence[TableLine],
    control_title: str,
    pairs: Sequence[ClassifierPair],
) -> str:
    """Writes ``table.md``, ``table.csv`` and ``pairs.csv``; returns the text of ``table.md``."""
    text = markdown(lines) + (f"\n{paired(pairs)}" if pairs else "")
    text += f"\nControls, {control_title}:\n\n{markdown(controls)}" if controls else ""
    write_text(folder / "table.md", text)
    _write_csv(folder / "table.csv", map(_title, COLUMNS), (dataclasses.astuple(line) for line in (*lines, *controls)))
    _write_csv(folder / "pairs.csv", map(_title, ClassifierPair._fields), pairs)
    return text


def _write_csv(path: Path, header: Iterable[str], lines: Iterable[Sequence[Any]]) -> None:
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(header)
    writer.writerows(lines)
    write_text(path, file.getvalue())


def paired(pairs: Sequence[ClassifierPair]) -> str:
    """McNemar's tests as a square table: accuracy of the row minus that of the column, and p."""
    names = list(dict.fromkeys(name for pair in pairs for name in (pair.first, pair.second)))
    cells = {(pair.second, pair.first): f"{-pair.difference:+.4f} (p {_p(pair.p)})" for pair in pairs}
    lines = ["| " + " | ".join(["", *names[:-1]]) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join([row, *(cells.get((row, column), "") for column in names[:-1])]) + " |"
              for row in names[1:]]  # fmt: skip
    return (
        "Row minus column on the same test rows, and the exact p of McNemar's test, each by itself; an extractor "
        'answers by the vote of its networks, "features" is logistic regression on them:\n\n' + "\n".join(lines) + "\n"
    )


def _p(value: float) -> str:
    return "< .001" if value < 0.001 else f"= {value:.3f}".replace("0.", ".", 1)


def draw_report(path: Path, lines: Sequence[TableLine]) -> None:
    """``table.png``: the accuracies of the table."""
    from vision_bridge import plots

    plots.accuracies(lines, path)


def markdown(lines: Sequence[TableLine]) -> str:
    """A table without the columns that are empty in every line."""
    columns = [name for name in COLUMNS if any(getattr(line, name) is not None for line in lines)]

    def cell(value: Any) -> str:
        if value is None:
            return ""
        return f"{value:.4f}".removeprefix("0") if isinstance(value, float) else str(value)

    rows = ["| " + " | ".join(cell(getattr(line, name)) for name in columns) + " |" for line in lines]
    titles = "| " + " | ".join(map(_title, columns)) + " |"
    return "\n".join([titles, "|" + "---|" * len(columns), *rows]) + "\n"


def _title(column: str) -> str:
    return column.replace("_", " ")
