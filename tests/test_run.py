import json
from pathlib import Path

import pytest

from training.errors import UserError
from training.run import Run
from training.strategy import make_strategy


def test_same_flags_open_again_and_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a" / "run"
    Run.open(path, {"seed": "0", "name": "x=y"})
    assert (path / "flags.txt").read_text() == "--name=x=y\n--seed=0\n"
    Run.open(path, {"name": "x=y", "seed": "0"})
    with pytest.raises(UserError, match="--seed=0 there, 1 here"):
        Run.open(path, {"name": "x=y", "seed": "1"})
    with pytest.raises(UserError, match="--name=x=y there, None here"):
        Run.open(path, {"seed": "0"})
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(UserError, match="exists and is no run folder"):
        Run.open(file, {})
    assert file.read_text() == "mine"
    with pytest.raises(UserError, match="cannot be written"):
        Run.open(Path("/proc/run"), {})


def test_figures_past_the_step_are_forgotten(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = Run.open(tmp_path, {})
    run.resume_at(0, 100)
    for step in (10, 20, 30):
        run.log(step, "train", {"loss": 0.1 + 0.2, "small": 1e-7})
    assert "loss 0.3  small 1.00e-07  left" in capsys.readouterr().out
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 40, "spl')  # cut off in the middle of a line
    again = Run.open(tmp_path, {})
    again.resume_at(20, 100)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [10, 20]
    assert lines[0] == {"step": 10, "split": "train", "loss": 0.1 + 0.2, "small": 1e-7}


def test_writer_gets_the_figures(tmp_path: Path) -> None:
    run = Run.open(tmp_path, {})
    seen = []
    run.writer = lambda step, split, figures: seen.append((step, split, figures))
    run.log(3, "validation", {"accuracy": 0.5})
    assert seen == [(3, "validation", {"accuracy": 0.5})]
    assert run.read_json("none.json") is None
    run.write_json("some.json", {"a": 1})
    assert run.read_json("some.json") == {"a": 1}


@pytest.mark.parametrize("devices", ["tpu", "cpu:0", "cpu:x", "auto:2", "gpu:99", ""])
def test_devices_that_are_not_there(devices: str) -> None:
    with pytest.raises(UserError, match="--devices="):
        make_strategy(devices)
