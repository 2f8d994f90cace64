"""Runs as tables of text: a line for each, or their differences."""

import time
from collections.abc import Mapping, Sequence
from datetime import datetime

from files.errors import UserError
from training.names import one_line, padded, width
from training.repetitions import figures_of, main_figures
from training.run_listing import FINISHED, RunSummary, differing

_MOST = 40  # columns of a cell


def listed(runs: Mapping[str, RunSummary], scripts: Mapping[str, str]) -> str:
    """A line for each run; ``scripts``: class of a configuration → script."""
    titles = ["run", "script", "state", "step", "best", "left", "moved", "note"]
    rows = []
    for name, run in runs.items():
        done = "" if run.step is None else f"{run.step:,}" + (f"/{run.steps:,}" if run.steps else "")
        left = "" if run.left is None else duration(run.left)
        note = one_line("; ".join(run.problems), 120) if run.problems else ""
        script = scripts.get(run.task, run.task)
        rows.append([name, script, run.state, done, best_of(run), left, ago(run.moved), note])
    return aligned(titles, rows)


def best_of(run: RunSummary) -> str:
    """The first figure of test rows of a finished run; else the best one on validation rows."""
    figures = figures_of(run.result)
    tested = [name for name in main_figures(figures) if name.startswith(("test_", "fid")) or "_test_" in name]
    if run.state == FINISHED and tested:
        return f"{tested[0].replace('_', ' ')} {number(figures[tested[0]])}"
    return f"validation {run.best.name.replace('_', ' ')} {number(run.best.value)}" if run.best else ""


def compared(runs: Mapping[str, RunSummary], figures: Sequence[str]) -> str:
    """The choices in which runs differ, and their figures; a row for each run, or a column if runs are fewer.

    Raises:
        UserError: fewer than two runs, or a figure that no result has.
    """
    if len(runs) < 2:
        raise UserError(f"--compare needs two runs or more; there {'is one' if runs else 'is none'}")
    seen = list(runs.values())
    results = [figures_of(run.result) for run in seen]
    known = list(dict.fromkeys(name for result in results for name in result))
    lacking = [name for name in figures if name not in known]
    if lacking:
        raise UserError(f"--figures={lacking[0]}: no result has it; there are {', '.join(known) or 'none'}")
    lines = [["run", *runs], ["state", *(run.state for run in seen)]]
    if len({run.task for run in seen}) > 1:
        lines.append(["task", *(run.task for run in seen)])
    lines += [[f"--{name}", *texts] for name, texts in differing(seen).items()]
    if any(run.best for run in seen):
        lines.append(["validation", *(f"{r.best.name} {number(r.best.value)}" if r.best else "" for r in seen)])
    for name in figures or dict.fromkeys(name for result in results for name in main_figures(result)):
        shown = (number(result[name]) if name in result else "" for result in results)
        lines.append([name.replace("_", " "), *shown])
    titles, *rows = lines if len(lines) > len(runs) + 1 else zip(*lines, strict=True)
    return aligned(titles, rows)


def aligned(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; columns without text are left out."""
    cells = [[one_line(cell, _MOST if i else 200) if cell else "" for i, cell in enumerate(row)] for row in rows]
    columns = [column for column in zip(titles, *cells, strict=True) if any(column[1:])]
    widths = [max(map(width, column)) for column in columns]
    lines = zip(*columns, strict=True)
    return "\n".join(
        "  ".join(padded(cell, columns) for cell, columns in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def number(value: float) -> str:
    """.9750, 12.35, 12,345: four digits, without the zero before the point, as in other tables."""
    if value and not 1e-4 <= abs(value) < 1e9:
        return f"{value:.3g}"
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}" if abs(value) >= 1 else f"{value:.4f}"
    return text.replace("0.", ".", 1) if abs(value) < 1 else text


def duration(seconds: float) -> str:
    """3:20, or 2 h 05 min."""
    whole = int(seconds)
    return f"{whole // 60}:{whole % 60:02d}" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def ago(moment: float | None) -> str:
    """The time since a moment; its date if that is more than a day ago."""
    if moment is None:
        return ""
    seconds = int(max(0.0, time.time() - moment))
    if seconds < 60:
        return f"{seconds} s ago"
    if seconds < 3600:
        return f"{seconds // 60} min ago"
    return f"{seconds // 3600} h ago" if seconds < 86_400 else f"{datetime.fromtimestamp(moment):%Y-%m-%d %H:%M}"
