"""How a script ends when a signal comes at any moment, with real processes and signals."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments import launch
from files.errors import Interrupted
from tests.processes import ROOT, expect, python

GO_ON = "interrupted; run the same command again to go on"
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


SCRIPT = """
import sys, time
sys.argv = ["script", *sys.argv[1:]]
from experiments import launch
from training.config import TaskConfig
FLAGS = launch.define(TaskConfig())

def main(arguments):
    {main}

if __name__ == "__main__":
    launch.launch(main, FLAGS, memory=1)
"""
# Short sleeps: a signal that comes right before a long one is heard of after it.
_WAIT = "print('ready', flush=True); [time.sleep(0.02) for _ in range(30_000)]"
_PHASES = {
    "waiting": _WAIT,
    "reading": "print('ready', flush=True); sys.stdin.read()",
    "computing": "print('ready', flush=True)\n    while True: pass",
    "with an exception made another": f"""try:
        {_WAIT}
    except KeyboardInterrupt:
        raise ValueError("not the user's business") from None""",
    "importing": f"""code = "import time; {_WAIT}"
    open(sys.path[0] + "/slow.py", "w").write(code)
    import slow""",
    "importing what turns it into another": f"""code = "import time\\ntry: {_WAIT}"
    open(sys.path[0] + "/slow.py", "w").write(code + "\\nexcept BaseException: raise ImportError('no such symbol')")
    import slow""",
    "in a destructor": f"""class Slow:
        def __del__(self): {_WAIT}
    slow = Slow()
    del slow
    time.sleep(600)""",
}


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("phase", _PHASES)
def test_a_signal_ends_a_script_with_one_line(tmp_path: Path, phase: str, number: int) -> None:
    file = tmp_path / "script.py"
    file.write_text(SCRIPT.format(main=_PHASES[phase]))
    process = subprocess.Popen(
        [sys.executable, file], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    expect(process)
    process.send_signal(number)
    assert process.stderr is not None
    assert process.stderr.read() == f"{GO_ON}\n"
    assert process.wait() == 130
    process.communicate()


def test_a_signal_that_is_swallowed_or_comes_twice_ends_it_too() -> None:
    swallowing = f"""
    while True:
        try:
            {_WAIT}
        except KeyboardInterrupt:
            print("swallowed", flush=True)
            time.sleep(600)"""
    quick = "from experiments import signals; signals.GRACE = 0.2\n"
    process = python(quick + SCRIPT.format(main=swallowing))
    expect(process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert (out, err, process.returncode) == ("swallowed\n", f"{GO_ON}\n", 130)
    process = python(SCRIPT.format(main=swallowing))
    expect(process)
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None and process.stdout.readline() == "swallowed\n"
    process.send_signal(signal.SIGINT)
    assert (process.communicate(timeout=120)[1], process.returncode) == (f"{GO_ON}\n", 130)


@pytest.mark.parametrize("number", SIGNALS)
def test_after_main_signals_change_nothing(number: int) -> None:
    at_exit = "import atexit; atexit.register(lambda: (print('ready', flush=True), time.sleep(1)))"
    process = python(SCRIPT.format(main=at_exit))
    expect(process)
    process.send_signal(number)
    assert (process.communicate(timeout=120)[1], process.returncode) == ("", 0)


def test_a_signal_before_main_and_one_that_is_to_be_ignored() -> None:
    early = f"import sys; sys.argv = ['-m']\nimport experiments, time\n{_WAIT}"
    for number in SIGNALS:
        process = python(early)
        expect(process)
        process.send_signal(number)
        assert (process.communicate(timeout=120)[1], process.returncode) == (f"{GO_ON}\n", 130)
    nohup = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    process = python(nohup + SCRIPT.format(main="print('ready', flush=True); sys.stdin.readline()"), stdin=-1)
    expect(process)
    process.send_signal(signal.SIGHUP)
    assert (process.communicate("\n")[1], process.returncode) == ("", 0)


def test_the_line_names_the_run_folder_and_a_process_that_goes_on_is_as_before(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def main() -> None:
        launch.run_dir(str(tmp_path / "a b"), "x")
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(600)

    with pytest.raises(SystemExit) as end:
        launch.run(main)
    assert end.value.code == 130
    assert capsys.readouterr().err == f"{GO_ON} with --run_dir='{tmp_path / 'a b'}'\n"
    assert {number: signal.getsignal(number) for number in SIGNALS} == before
    for error, line in ((KeyboardInterrupt(), GO_ON), (Interrupted("stopped after step 2"), "stopped after step 2")):
        with pytest.raises(SystemExit) as end:
            launch.run(lambda error=error: (_ for _ in ()).throw(error))
        assert end.value.code == 130 and capsys.readouterr().err == f"{line}\n"


def test_signals_of_a_real_script_while_it_starts(tmp_path: Path) -> None:
    """From its first moments until it trains or ends: the status is 130 and there is no traceback."""
    data = tmp_path / "a.jsonl"
    data.write_text("".join(json.dumps({"text": f"word{i}", "label": str(i % 2)}) + "\n" for i in range(40)))
    command = [sys.executable, "-m", "experiments.baselines_text", "--dataset=jsonl", f"--data_path={data}",
               f"--cache_dir={tmp_path}", f"--run_dir={tmp_path / 'run'}"]  # fmt: skip
    for number, seconds in zip(SIGNALS * 2, (0.15, 0.25, 0.4, 0.7, 1.0, 1.5), strict=True):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        time.sleep(seconds)
        process.send_signal(number)
        err = process.communicate(timeout=120)[1]
        if f"{GO_ON}" in err or process.returncode == 130:
            assert process.returncode == 130 and err.count("\n") == 1
        else:  # it was not yet ours, or it was at its end
            assert process.returncode in (0, -number) or seconds < 0.3, err
