"""``experiments.repeat``: runs that are finished, fail or are stopped, and folders that it leaves alone."""

import csv
import io
import json
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from experiments.repeat import dry_run, repeat
from experiments.repeat_plan import PlannedRun, RepeatConfig, command_of, make_plan
from experiments.repeat_process import run_to_its_end
from files.errors import Interrupted
from files.locks import alone
from tests import jobs, little_texts, processes, scripts
from tests.refusals import refused
from training.run import Run

TWO = ("dropout=.1|.3",)


def _never(run: PlannedRun) -> str:
    raise AssertionError(run)


def pretending(ran: list[str], fails: Callable[[PlannedRun], str] = lambda run: "") -> Callable[[PlannedRun], str]:
    """A launcher of runs that make a folder and a result, and note what they were."""

    def launcher(run: PlannedRun) -> str:
        ran.append(f"{run.variation} {run.seed}")
        with Run.open(run.path, run.config) as folder:
            if error := fails(run):
                return error
            accuracy = 0.5 + 0.01 * run.seed + (0.1 if ".3" in run.variation else 0.0)
            folder.write_json("result.json", {"test_accuracy": accuracy, "steps": 2, "train_seconds": 1.0, "other": 1})
        return ""

    return launcher


def table_of(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((folder / "table.csv").read_text())))


def test_what_is_finished_is_not_run_again_and_seeds_can_be_added(tmp_path: Path) -> None:
    config, ran = RepeatConfig(vary=TWO, seeds=(0, 1)), list[str]()
    repeat(config, [], tmp_path / "runs", pretending(ran))
    assert ran == ["dropout=.1 0", "dropout=.3 0", "dropout=.1 1", "dropout=.3 1"]  # a table of one seed comes first
    files = {path: path.read_bytes() for path in (tmp_path / "runs").glob("table.*")}
    assert len(files) == 3
    repeat(config, [], tmp_path / "runs", _never)
    assert {path: path.read_bytes() for path in files} == files
    repeat(RepeatConfig(vary=("dropout=.1|.3|.5",), seeds=(0, 1, 7)), [], tmp_path / "runs", pretending(ran))
    assert ran[4:] == ["dropout=.5 0", "dropout=.5 1", "dropout=.1 7", "dropout=.3 7", "dropout=.5 7"]
    rows = table_of(tmp_path / "runs")
    assert [row["finished"] for row in rows] == ["3", "3", "3"]
    assert float(rows[1]["test_accuracy_difference"]) == pytest.approx(0.1)


def test_a_failed_run_does_not_end_the_others_and_is_run_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, ran = RepeatConfig(vary=TWO, seeds=(0, 1)), list[str]()

    def fails(run: PlannedRun) -> str:
        return "out of memory" if run.seed == 0 and run.variation == "dropout=.1" else ""

    message = refused(lambda: repeat(config, [], tmp_path / "runs", pretending(ran, fails)))
    assert message.startswith("1 of 4 runs failed") and len(ran) == 4
    text = (tmp_path / "runs" / "table.md").read_text()
    assert "- dropout=.1, seed 0: out of memory" in text and "| dropout=.1 | 1 of 2 | .5100 |" in text
    assert "dropout=.1, seed 0: 0 s, failed: out of memory" in capsys.readouterr().out
    repeat(config, [], tmp_path / "runs", pretending(ran))
    assert ran[4:] == ["dropout=.1 0"]
    assert "Failed" not in (tmp_path / "runs" / "table.md").read_text()


def test_a_run_that_ends_without_a_result_has_failed(tmp_path: Path) -> None:
    def damaged(run: PlannedRun) -> str:
        with Run.open(run.path, run.config):
            if run.seed:
                (run.path / "result.json").write_text("{")
        return ""

    assert "2 of 2 runs" in refused(lambda: repeat(RepeatConfig(seeds=(0, 1)), [], tmp_path / "runs", damaged))
    text = (tmp_path / "runs" / "table.md").read_text()
    assert "seed 0: it ended without a result.json" in text and "malformed JSON" in text
    again = refused(lambda: repeat(RepeatConfig(seeds=(0, 1)), [], tmp_path / "runs", _never))
    assert "malformed JSON" in again and "remove it" in again  # a result is never overwritten


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Interrupted("stopped")], ids=str)
def test_an_interruption_keeps_what_is_finished(tmp_path: Path, error: BaseException) -> None:
    config, ran = RepeatConfig(vary=TWO, seeds=(0, 1)), list[str]()

    def stops(run: PlannedRun) -> str:
        if run.seed:
            raise error
        return ""

    with pytest.raises(type(error)):
        repeat(config, [], tmp_path / "runs", pretending(ran, stops))
    assert [row["finished"] for row in table_of(tmp_path / "runs")] == ["1", "1"]
    repeat(config, [], tmp_path / "runs", pretending(ran))
    assert ran[3:] == ["dropout=.1 1", "dropout=.3 1"]


def test_a_figure_that_no_result_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = RepeatConfig(seeds=(0, 1), figures=("test_acuracy", "other"))
    for launcher in (pretending([]), _never):
        message = refused(lambda launcher=launcher: repeat(config, [], tmp_path / "runs", launcher))
        assert message.startswith("--figures=test_acuracy: no result has it; there are test_accuracy, steps,")
    said = capsys.readouterr().out
    assert said.count("no test_acuracy (there are test_accuracy") == 1  # after the first run
    assert (tmp_path / "runs" / "table.md").read_text().startswith("| variation | seeds | other | difference |\n")


def test_a_variation_of_other_flags_is_another_run(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    repeat(RepeatConfig(variation=("x: --dropout=.5",), seeds=(0,)), [], folder, pretending([]))
    before = (folder / "table.md").read_bytes()
    for choices, more in (({"variation": ("x: --dropout=.4",)}, []), ({}, ["--dropout=.4"])):
        config = RepeatConfig(**choices, seeds=(0, 1))
        message = refused(lambda config=config, more=more: repeat(config, more, folder, _never))
        assert "seed 0: --run_dir=" in message and "other flags" in message and "another name" in message
    assert (folder / "table.md").read_bytes() == before


def test_folders_that_are_not_ours_are_left_alone(tmp_path: Path) -> None:
    config = RepeatConfig(seeds=(0,))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "table.md").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("mine", "file"):
        assert "was not made by repeat" in refused(lambda name=name: repeat(config, [], tmp_path / name, _never))
        assert "was not made by repeat" in refused(lambda name=name: dry_run(config, [], tmp_path / name))
    assert (tmp_path / "mine" / "table.md").read_text() == (tmp_path / "file").read_text() == "mine"
    repeat(config, [], tmp_path / "runs", pretending([]))
    other = RepeatConfig(script="baselines_text", seeds=(0,))
    assert "has runs of train_text" in refused(lambda: repeat(other, [], tmp_path / "runs", _never))
    with alone(tmp_path / "runs"):
        assert "in use by another process" in refused(lambda: repeat(config, [], tmp_path / "runs", _never))
    with Run.open(
        tmp_path / "runs" / "train_text" / "base" / "seed1", make_plan(RepeatConfig(seeds=(1,)), [], tmp_path)[0].config
    ):
        in_use = refused(lambda: repeat(RepeatConfig(seeds=(0, 1)), [], tmp_path / "runs", _never))
        assert "seed1 is in use by another process" in in_use  # fmt: skip


def test_a_dry_run_lists_the_runs_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = RepeatConfig(vary=TWO, seeds=(0, 1))
    dry_run(config, [], tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
    refused(lambda: repeat(config, [], tmp_path / "runs", pretending([], lambda run: "x" if run.seed else "")))
    capsys.readouterr()
    before = sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "runs").rglob("*"))
    dry_run(config, [], tmp_path / "runs")
    *lines, last = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["finished", "begun", "finished", "begun"]
    assert last == "4 runs, 2 of them finished; nothing was written"
    assert shlex.split(lines[0])[1:4] == ["python", "-m", "experiments.train_text"]
    assert sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "runs").rglob("*")) == before


def test_the_table_says_the_command_that_made_it(tmp_path: Path) -> None:
    """And that command says the same."""
    (tmp_path / "a b.flags").write_text("--dropout=0\n")
    words = ["--vary=pooling=mean|max", "--vary=min_count=1|2", "--variation=x, y: --dropout=.3", "--seeds=4"]
    words += [f"--flagfiles={tmp_path / 'a b.flags'}", f"--run_dir={tmp_path / 'runs'}", "--", "--num_epochs=1"]
    said = scripts.succeeds("repeat", "--dry_run", *words)
    assert said.count("to do") == 5 and "--dropout=.3 --seed=4" in said
    config = RepeatConfig(
        vary=("pooling=mean|max", "min_count=1|2"), variation=("x, y: --dropout=.3",), seeds=(4,),
        flagfiles=(tmp_path / "a b.flags",),
    )  # fmt: skip
    repeat(config, ["--num_epochs=1"], tmp_path / "runs", pretending([]))
    command = (tmp_path / "runs" / "table.md").read_text().splitlines()[-1].strip()
    assert command == command_of(config, ["--num_epochs=1"])
    split = shlex.split(command)[3:]
    at = split.index("--")
    given = [*split[:at], "--dry_run", f"--run_dir={tmp_path / 'runs'}", *split[at:]]
    assert scripts.succeeds("repeat", *given) == said.replace("to do   ", "finished").replace(" 0 of", " 5 of")


CHILD = """
import signal, sys, time
def stop(number, frame):
    time.sleep(0.2)  # a second signal, or an end that is not waited for, would be seen
    print("saved", flush=True)
    sys.exit(130)
signal.signal(signal.SIGTERM, stop)
print("child ready", flush=True)
time.sleep(60)
"""
PARENT = """
import sys
from pathlib import Path
from experiments.repeat_process import run_to_its_end
print("ready", flush=True)
print(run_to_its_end([sys.executable, "-c", sys.argv[1]], Path(sys.argv[2])))
"""


def test_a_signal_is_handed_on_and_the_end_is_waited_for(tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    process = processes.python(PARENT, CHILD, log)
    processes.expect(process)
    processes.wait_until(lambda: log.exists() and b"child ready" in log.read_bytes())
    out, err = processes.end(process, signal.SIGTERM)
    assert out == "End(error='saved (status 130)', stopped=True)\n" and not err
    assert log.read_text() == "child ready\nsaved\n"


def test_the_error_of_a_process_is_its_last_word(tmp_path: Path) -> None:
    def end(code: str) -> tuple[str, bool]:
        return run_to_its_end([sys.executable, "-c", code], tmp_path / "deep" / "run.log")

    assert end("print('fine')") == ("", False)
    assert end("import sys; print('error: no file'); print('bye'); sys.exit(3)") == ("no file (status 3)", False)
    assert end("raise KeyError('x')") == ("KeyError: 'x' (status 1)", False)
    assert end("import os; os.kill(os.getpid(), 9)") == ("signal 9", False)  # and not what was said before
    assert (tmp_path / "deep" / "run.log").read_text().startswith("fine\nerror: no file\n")


def test_a_script_is_repeated_in_processes_of_its_own(tmp_path: Path) -> None:
    little_texts.write(tmp_path, lambda k: 5 + k % 3)
    words = [
        "--script=baselines_text",
        f"--run_dir={tmp_path / 'runs'}",
        "--seeds=5",
        "--variation=x: --test_path=nowhere.csv",
    ]
    words += ["--", "--dataset=csv", f"--data_path={tmp_path / 'texts.csv'}", f"--cache_dir={tmp_path / 'cache'}"]
    words += ["--models=linear_svm"]  # fmt: skip
    error = scripts.fails("repeat", *words)
    assert error.startswith("error: 1 of 2 runs failed")
    row, failed = table_of(tmp_path / "runs")
    assert float(row["linear_svm_test_accuracy_mean"]) > 0.5 and (failed["finished"], failed["failed"]) == ("0", "1")
    assert "nowhere.csv" in (tmp_path / "runs" / "table.md").read_text().split("Failed:")[1]
    about = json.loads((tmp_path / "runs" / "baselines_text" / "base" / "seed5" / "config.json").read_text())
    assert about["config"]["seed"] == 5
    assert "finished  python" in scripts.succeeds("repeat", "--dry_run", *words)


@pytest.mark.slow
def test_ctrl_c_saves_the_step_and_the_same_command_goes_on(tmp_path: Path) -> None:
    flags = [*jobs.write_texts(tmp_path), *jobs.TEXT, "--num_epochs=120"]
    words = [f"--run_dir={tmp_path / 'runs'}", "--seeds=0", "--figures=test_accuracy", "--", *flags]
    code = "import runpy, sys\nsys.argv[0] = 'repeat'\nrunpy.run_module('experiments.repeat', run_name='__main__')"
    folder = tmp_path / "runs" / "train_text" / "base" / "seed0"
    process = processes.python(code, *words)
    processes.wait_until(lambda: (folder / "metrics.jsonl").exists() and (folder / "metrics.jsonl").stat().st_size > 0)
    _, err = processes.end(process, signal.SIGINT)
    assert process.returncode == 130 and err.startswith("stopped in base, seed 0; what it has is saved: run the same")
    assert f"--run_dir={tmp_path / 'runs'}" in err and not (folder / "result.json").exists()
    assert scripts.succeeds("repeat", *words[:3], "--dry_run", *words[3:]).startswith("begun")
    assert "test accuracy" in scripts.succeeds("repeat", *words)
    log = (folder.parent / "seed0.log").read_text()
    assert "stopped after step" in log and "resumed at step" in log
