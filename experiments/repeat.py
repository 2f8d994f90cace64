"""Repeat a script: flagfiles × variations × seeds, as one table with intervals and one picture.

    python -m experiments.repeat --script=train_text --flagfiles=experiments/flags/bbc_news.flags --seeds=0,1,2 \\
        --vary="dropout=.1|.3" --vary="pooling=mean|max" --run_dir=runs/ablation
    python -m experiments.repeat --flagfiles=a.flags,b.flags --variation="short: --max_length=64 --num_epochs=4" \\
        --figures=test_accuracy,val_loss,seconds_per_step --run_dir=runs/lengths -- --devices=cpu

Each run is a folder of its own, RUN_DIR/DATA/VARIATION/seedN, made by the script in a process of its own; its output
is beside it, in seedN.log. What is finished is not run again: the same command goes on after an interruption or a
failure, and one with more seeds or variations adds to the folder. What stands behind ``--`` is for all runs. The first
variation (the flags as they are, unless --vary is given) is what the others are compared with. With --dry_run the runs
are listed, and which are finished.
"""

import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import Timeout

from experiments import launch
from experiments.repeat_plan import PlannedRun, RepeatConfig, command_of, make_plan
from experiments.repeat_process import run_to_its_end
from files.documents import read_object, write_json
from files.errors import Interrupted, UserError
from files.locks import alone, is_taken
from files.writing import is_draft

if TYPE_CHECKING:
    from training.repetitions import Group

FLAGS = launch.define(RepeatConfig(), "Folder of all runs and their table; resumed if it exists.", arguments=True)
NOTE = "repeat.json"
Launcher = Callable[[PlannedRun], str]  # makes a run; returns why it failed, or ""; raises Interrupted


def main(arguments: list[str]) -> None:
    """Makes the unfinished runs, then writes table.md, table.csv and table.png."""
    from training.hosts import hosts

    config = launch.read(RepeatConfig(), FLAGS)
    if hosts().count > 1:
        raise UserError("repeat runs on one host: unset TF_CONFIG, and start it on one alone")
    folder = launch.run_dir(FLAGS.run_dir, f"repeat-{config.script}")
    if FLAGS.dry_run:
        dry_run(config, arguments, folder)
    else:
        repeat(config, arguments, folder)


def dry_run(config: RepeatConfig, more: Sequence[str], folder: Path) -> None:
    """Lists the runs, and which are finished; writes nothing."""
    _check_folder(folder, config.script)
    plan = make_plan(config, more, folder)
    states = [_state(run) for run in plan]
    for run, state in zip(plan, states, strict=True):
        print(f"{state:8s}  {shlex.join(['python', '-m', f'experiments.{run.script}', *run.flags])}")
    print(f"{len(plan)} runs, {states.count('finished')} of them finished; nothing was written")


def repeat(config: RepeatConfig, more: Sequence[str], folder: Path, launcher: Launcher | None = None) -> None:
    """Makes every run that is not finished, and the table after each.

    Args:
        config: script, flagfiles, variations and seeds.
        more: further flags for all runs.
        folder: of all runs.
        launcher: makes a run; by default in a process of its own.

    Raises:
        UserError: before the first run, unusable flags or folders; at the end, failed runs, or figures that no result
            has.
        Interrupted: the user stopped it.
    """
    _check_folder(folder, config.script)
    plan = make_plan(config, more, folder)
    with _taken(folder, config.script):
        left = _left(config, plan)
        write_json(folder / NOTE, {"script": config.script, "command": command_of(config, more)})
        table = _Table(config, plan, folder, command_of(config, more))
        print(f"{len(plan)} runs, {len(plan) - len(left)} of them finished", flush=True)
        for number, run in enumerate(left, 1):
            print(f"{number}/{len(left)}  {run.title}: its output is in {run.log}", flush=True)
            start = time.monotonic()
            said = table.add(run, (launcher or in_a_process)(run))
            print(f"{number}/{len(left)}  {run.title}: {time.monotonic() - start:.0f} s, {said}", flush=True)
            table.write()
        table.end()


def _left(config: RepeatConfig, plan: Sequence[PlannedRun]) -> list[PlannedRun]:
    """The runs to make, seed by seed, so that all rows soon have one seed; refuses a folder in use."""
    states = [_state(run) for run in plan]
    if "in use" in states:
        path = plan[states.index("in use")].path
        raise UserError(f"{path} is in use by another process; wait for its end, or choose another --run_dir")
    left = [run for run, state in zip(plan, states, strict=True) if state != "finished"]
    return sorted(left, key=lambda run: config.seeds.index(run.seed))


def in_a_process(run: PlannedRun) -> str:
    """Runs the script in a process of its own; returns why it failed, or ""; raises Interrupted."""
    end = run_to_its_end([*_python(), "-m", f"experiments.{run.script}", *run.flags], run.log)
    if end.stopped:
        raise Interrupted(
            f"stopped in {run.title}; what it has is saved: run the same command again to go on with "
            f"--run_dir={shlex.quote(str(run.folder))}"
        )
    return end.error


def _python() -> list[str]:
    """This Python; under ``triptych``, folders in the working folder, such as ``files``, are not importable."""
    working_folder_counts = not {"", str(Path.cwd())}.isdisjoint(sys.path)
    return [sys.executable, *([] if working_folder_counts else ["-P"])]


class _Table:
    """Results and failures of the runs, and the files of the table."""

    def __init__(self, config: RepeatConfig, plan: Sequence[PlannedRun], folder: Path, command: str) -> None:
        self._config, self._plan, self._folder, self._command = config, plan, folder, command
        self._failures: dict[Path, str] = {}
        self._results: dict[Path, dict[str, float]] = {}
        for run in plan:
            self._find(run)

    def add(self, run: PlannedRun, error: str) -> str:
        """Records how a run ended, and returns this as a short text."""
        from training.repetitions import main_figures

        try:
            found = None if error else self._find(run)
        except UserError as damaged:
            found, error = None, str(damaged)
        if found is None:
            self._failures[run.path] = error or "it ended without a result.json"
            return f"failed: {self._failures[run.path]}"
        wanted = self._config.figures or main_figures(found)
        said = [f"{name.replace('_', ' ')} {found[name]:.4g}" for name in wanted if name in found]
        if len(self._results) == 1:  # after the first run, it is not too late to change --figures
            said += [f"no {name} (there are {', '.join(found)})" for name in wanted if name not in found]
        return ", ".join(said) or "finished"

    def write(self) -> str:
        """Writes ``table.md`` and ``table.csv``; returns the table."""
        from training.repetitions import write_table

        return write_table(self._folder, self._groups(), self._figures(), self._command)

    def end(self) -> None:
        """Writes and prints the table, and draws it.

        Raises:
            UserError: some runs failed, or a figure is in no result.
        """
        from training.repetitions import draw_table, known_figures
        from training.run import Run

        text = self.write()
        Run(self._folder).picture("table.png", lambda path: draw_table(path, self._groups(), self._figures()))
        print(f"\n{text}\neverything is in {self._folder}: table.md, table.csv, table.png")
        known = known_figures(self._groups())
        lacking = [name for name in self._config.figures if name not in known]
        if self._failures:
            raise UserError(
                f"{len(self._failures)} of {len(self._plan)} runs failed; {self._folder / 'table.md'} says why; the "
                "same command runs them again"
            )
        if lacking:
            raise UserError(f"--figures={lacking[0]}: no result has it; there are {', '.join(known)}")

    def _find(self, run: PlannedRun) -> dict[str, float] | None:
        """The figures of a run, if it is finished."""
        from training.repetitions import figures_of
        from training.run import Run

        result = Run(run.path).result()
        if result is not None:
            self._results[run.path] = figures_of(result)
        return self._results.get(run.path)

    def _figures(self) -> list[str]:
        from training.repetitions import known_figures, main_figures

        known = known_figures(self._groups())
        return [name for name in self._config.figures if name in known] or main_figures(known)

    def _groups(self) -> "list[Group]":
        from training.repetitions import Group

        rows: dict[tuple[str, str], list[PlannedRun]] = {}
        for run in self._plan:
            rows.setdefault((run.data, run.variation), []).append(run)
        return [
            Group(
                *names,
                tuple(run.seed for run in runs),
                {run.seed: self._results[run.path] for run in runs if run.path in self._results},
                {run.seed: self._failures[run.path] for run in runs if run.path in self._failures},
            )
            for names, runs in rows.items()
        ]


def _state(run: PlannedRun) -> str:
    """The state of a run: finished, in use, begun or to do.

    Raises:
        UserError: its folder belongs to another run, or is damaged.
    """
    from training.run import Run

    if is_taken(run.path):
        return "in use"
    try:
        there = Run.check(run.path, run.config)
    except UserError as error:
        raise UserError(f"{run.title}: {error}; or give the variation another name") from error
    if not there:
        return "to do"
    return "begun" if Run(run.path).result() is None else "finished"


def _check_folder(folder: Path, script: str) -> None:
    """Raises UserError for a folder with anything but runs of this script."""
    if (folder / NOTE).is_file():
        other = read_object(folder / NOTE).get("script")
        if other != script:
            raise UserError(f"--run_dir={folder} has runs of {other}, not of {script}; choose another folder")
        return
    there = [folder] if folder.exists() else []
    if folder.is_dir():
        there = [file for file in folder.iterdir() if file.name != ".lock" and not is_draft(file.name)]
    if there:
        raise UserError(f"--run_dir={folder} exists and was not made by repeat; choose another, nothing was written")


@contextmanager
def _taken(folder: Path, script: str) -> Iterator[None]:
    """Makes the folder, and locks it for the block."""
    with ExitStack() as lock:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.enter_context(alone(folder))
        except Timeout as error:
            raise UserError(f"--run_dir={folder} is in use by another process; wait for its end") from error
        except OSError as error:
            raise UserError(f"--run_dir={folder} cannot be written: {error.strerror}") from error
        _check_folder(folder, script)  # again: another process may have made it meanwhile
        yield


if __name__ == "__main__":
    launch.launch(main, FLAGS, memory=700)  # no TensorFlow in this process
