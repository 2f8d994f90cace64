"""The runs of a folder: how far they are, compared in one table and one picture, or one followed while it trains.

    python -m experiments.runs
    python -m experiments.runs runs/ablation --compare --picture=curves.png
    python -m experiments.runs runs/a runs/b --compare --figures=test_accuracy,train_seconds
    python -m experiments.runs runs/a --follow
    python -m experiments.runs --json

Arguments are folders of runs, or runs; without any, the folder ``runs``. Nothing is written into them, and no run
notices. A run is finished (it has a result), running (a process has its folder), failed (its log beside the folder, as
repeat writes it, ends with an error), stopped (interrupted, killed or failed: its folder does not say which; the
same command goes on), or damaged.
"""

import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments import catalogue, launch
from experiments.runs_text import compared, listed
from experiments.runs_watch import follow
from files.errors import UserError
from training.names import one_line
from training.options import Config, option
from training.run_listing import RunSummary, curve_of, find_others, find_runs, look_at, unknown

_PICTURES = (".png", ".svg", ".pdf")
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class RunsConfig(Config):
    """The choices of showing runs."""

    compare: bool = option(False, "Print one table of the runs' results and of the flags in which they differ.")
    figures: tuple[str, ...] = option(
        (), "Numbers of result.json that --compare shows; empty: the test figures and the seconds of training."
    )
    picture: Path | None = option(None, "Draw a validation figure of the runs by step: a .png, .svg or .pdf file.")
    curve: str = option("", "Figure of --picture. [the one that selects the first run's weights]")
    follow: bool = option(False, "Show the progress of a run until it ends.")
    json: bool = option(False, "Print everything that is known about the runs, as JSON.")

    def check(self) -> None:
        others = [name for name in ("compare", "picture", "json") if getattr(self, name)]
        if self.follow and others:
            raise UserError(f"--follow shows one run: leave out --{others[0]}")
        if self.json and others != ["json"]:
            raise UserError(f"--json has all results and choices, and nothing else is printed: leave out --{others[0]}")
        if self.figures and not self.compare:
            raise UserError("--figures names columns of --compare: add it")
        if self.curve and self.picture is None:
            raise UserError("--curve is a figure of --picture: add it")
        if self.picture is not None and self.picture.suffix not in _PICTURES:
            raise UserError(f"--picture={self.picture}: name a file that ends with {', '.join(_PICTURES)}")


FLAGS = launch.define(RunsConfig(), run_dir=None, arguments=True)


def main(arguments: list[str]) -> None:
    """Prints the table of runs, or the output that the flags choose."""
    show(launch.read(RunsConfig(), FLAGS), [Path(argument).expanduser() for argument in arguments], _print)


def _print(text: str) -> None:
    print(text, flush=True)


def show(config: RunsConfig, places: Sequence[Path], say: Say) -> None:
    """Shows the runs at and below some places.

    Raises:
        UserError: an unknown place or figure, nothing to follow or to compare, or a followed run that ended without a
            result.
    """
    places = places or [Path("runs")]
    found = _runs(places)
    if config.follow:
        follow(found, say, sys.stdout)
        return
    if config.json:
        say(json.dumps([_as_json(name, run) for name, run in found.items()], indent=2))
    elif config.compare:
        say(compared({name: run for name, run in found.items() if run.task}, config.figures))
    else:
        say(listed(found, _scripts()) if found else f"no runs in {', '.join(map(str, places))}")
    if config.picture is not None:
        _draw(config, found, say)


def _runs(places: Sequence[Path]) -> dict[str, RunSummary]:
    """Every run by its name, relative to the place if there is only one; the latest changes come last."""
    found: dict[str, RunSummary] = {}
    for place in places:
        if not place.is_dir():
            raise UserError(f"{place}: no such folder; name a run, or a folder of runs")
        runs = find_runs(place)
        for path, look in [*((run, look_at) for run in runs), *((one, unknown) for one in find_others(place, runs))]:
            inside = len(places) == 1 and path != place
            found[one_line(str(path.relative_to(place) if inside else path), 200)] = look(path)
    return dict(sorted(found.items(), key=lambda item: item[1].moved or 0.0))


def _scripts() -> dict[str, str]:
    """Class of a configuration → its script."""
    return {script.config: script.name for script in catalogue.scripts().values()}


def _as_json(name: str, run: RunSummary) -> dict[str, object]:
    """A run as JSON values, without NaN and infinity, which JSON lacks."""
    fields = run._asdict() | {
        "name": name,
        "path": str(run.path),
        "script": _scripts().get(run.task, ""),
        "best": run.best._asdict() if run.best else None,
    }
    del fields["validation"]
    return json.loads(json.dumps(fields), parse_constant=lambda constant: None)


def _draw(config: RunsConfig, found: dict[str, RunSummary], say: Say) -> None:
    assert config.picture is not None
    selecting = [run.best.name for run in found.values() if run.best]
    figure = config.curve or (selecting or [""])[0]
    curves = {name: curve for name, run in found.items() if (curve := curve_of(run, figure))}
    if not curves:
        known = sorted({key for run in found.values() for line in run.validation for key in line} - {"step", "split"})
        raise UserError(
            f"--curve={figure}: no run has this figure; there are {', '.join(known)}" if known
            else "--picture: no run has validation figures"
        )  # fmt: skip
    from training.plots import compared_curves

    compared_curves(list(curves), list(curves.values()), figure, config.picture)
    left_out = len(found) - len(curves)
    say(f"{figure} of {len(curves)} runs is in {config.picture}" + (f"; {left_out} have none" if left_out else ""))


if __name__ == "__main__":
    launch.launch(main, FLAGS, memory=0)
