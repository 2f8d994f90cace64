"""``python -m experiments.runs``: what is said of run folders in any state, and that none of them notices."""

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from experiments.runs import RunsConfig, show
from experiments.runs_text import aligned, best_of, duration, number
from experiments.runs_watch import follow
from files.errors import UserError
from files.locks import alone, is_held
from tests.figures import drawn
from tests.little_runs import RESULT, everything, make, make_all, save, table
from tests.scripts import ROOT, fails, succeeds
from text_cls.baseline_config import BaselineConfig
from training import plots
from training.checkpoint import State
from training.run import Run
from training.run_listing import Best, RunSummary, differing, find_runs, look_at


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_all(tmp_path / "runs")


def shown(config: RunsConfig, *places: Path) -> str:
    said: list[str] = []
    show(config, places, said.append)
    return "\n".join(said)


def test_every_state_is_told_and_nothing_is_touched(folder: Path) -> None:
    before = everything(folder)
    with alone(make(folder / "live")):
        before |= everything(folder / "live") | {folder: everything(folder)[folder]}
        rows = table(shown(RunsConfig(), folder))
        assert everything(folder) == before
    found = {name: (row["state"], row["step"], row["best"], row["note"]) for name, row in rows.items()}
    best = "validation loss .5000"
    assert found == {
        "done": ("finished", "3/4", "test accuracy .5000", ""),
        "cut": ("stopped", "3/4", best, ""),
        "live": ("running", "3/4", best, ""),
        "group/seed0": ("failed", "", "", "out of memory"),
        "group/seed1": ("stopped", "3/4", best, ""),
        "broken": ("damaged", "3/4", best, found["broken"][3]),
        "half": ("stopped", "3/4", best, ""),
        "begun": ("stopped", "", "", "flags.txt: no such file"),
        "hurt": ("finished", "4/4", "test accuracy .5000", found["hurt"][3]),
        "photos": ("no run", "", "", ""),
    }
    assert found["broken"][3].startswith("result.json: malformed JSON")
    for text in (
        "config.json: damaged: not UTF-8 at byte 0",
        "metrics.jsonl:2: malformed JSON",
        "last.safetensors: dam",
    ):
        assert text in "; ".join(look_at(folder / "hurt").problems)
    assert {row["script"] for row in rows.values()} == {"train_text", "ddpm", ""}
    assert rows["live"]["left"] == "0:00" and rows["done"]["left"] == ""
    assert {row["moved"][-5:] for row in rows.values()} == {"s ago"}


def test_the_last_one_to_move_comes_last(folder: Path) -> None:
    for path in (folder / "cut").iterdir():
        os.utime(path, (2e9, 2e9))
    assert list(table(shown(RunsConfig(), folder)))[-1] == "cut"
    assert list(table(shown(RunsConfig(), folder / "cut"))) == [str(folder / "cut")]
    both = table(shown(RunsConfig(), folder / "cut", folder / "done"))
    assert list(both) == [str(folder / "done"), str(folder / "cut")]


def test_an_onlooker_takes_no_lock(tmp_path: Path) -> None:
    assert not is_held(tmp_path) and not is_held(tmp_path / "nowhere") and list(tmp_path.iterdir()) == []
    with alone(tmp_path):
        before = everything(tmp_path)
        assert is_held(tmp_path) and is_held(tmp_path) and everything(tmp_path) == before
    assert not is_held(tmp_path)
    with alone(tmp_path):
        pass


def test_time_that_is_left(tmp_path: Path) -> None:
    """The log's last figure, less what has passed since it was written."""
    path = make(tmp_path / "run")
    with (path / "log.txt").open("a") as file:
        file.write("12:00:00 validation step 3/4  loss 0.5  accuracy 0.5  left 61:40\n12:00:01 note: something\n")
    for ago, expected in ((100.0, 3600), (9000.0, 0)):
        os.utime(path / "metrics.jsonl", (time.time() - ago,) * 2)
        assert look_at(path).left is None  # it is not running
        with alone(path):
            assert look_at(path).left == pytest.approx(expected, abs=5)
    assert [duration(x) for x in (0, 59.9, 3599, 3600, 7500)] == ["0:00", "0:59", "59:59", "1 h 00 min", "2 h 05 min"]


def test_the_best_figure_is_the_one_that_selects(tmp_path: Path) -> None:
    path = make(tmp_path / "run")
    assert look_at(path).best == Best("loss", 0.5, 2)  # less is better: its score is negative in the checkpoint
    save(path, State(step=3, best=0.5, best_step=2))
    assert look_at(path).best == Best("loss", 0.5, 2)  # two figures have that value, and none is the flag's
    (path / "flags.txt").write_text("--select=accuracy\n")
    assert look_at(path).best == Best("accuracy", 0.5, 2)
    save(path, State(step=3, best=3, best_step=3))  # --select= : the last weights
    assert look_at(path).best == Best("loss", 0.7, 3)
    save(path, State(step=3, best=-float("inf"), best_step=1))
    assert look_at(path).best == Best("loss", 0.9, 1)
    (path / "checkpoints" / "last.safetensors").unlink()
    assert look_at(path).best is None
    (path / "result.json").write_text(json.dumps(RESULT))
    assert look_at(path).best == Best("accuracy", 0.5, 2)
    (path / "result.json").write_text(json.dumps(RESULT | {"best_step": 9}))
    assert look_at(path).best is None


def test_runs_inside_of_runs_are_found(tmp_path: Path) -> None:
    paths = [make(tmp_path / name) for name in ("t", "t/runs/a", "t/runs/b")]
    make(tmp_path / "t" / "checkpoints" / "x")
    make(tmp_path / ".hidden")
    (tmp_path / "t" / "again").symlink_to(tmp_path)
    assert find_runs(tmp_path) == paths and find_runs(paths[1]) == [paths[1]]


def test_choices_that_differ(tmp_path: Path) -> None:
    a = look_at(make(tmp_path / "a"))
    b = look_at(make(tmp_path / "b", activation="relu", size="small"))
    assert differing([a, a]) == {}
    assert differing([a, b]) == {"activation": ["gelu", "relu"], "size": ["auto", "small"]}
    with Run.open(tmp_path / "c", BaselineConfig.of(seed=1)):
        c = look_at(tmp_path / "c")
    found = differing([a, b, c])
    assert found["seed"] == ["0", "0", "1"] and found["activation"] == ["gelu", "relu", ""]
    assert "width" not in found and "models" not in found  # not choices of both


def test_compared_in_one_table(tmp_path: Path) -> None:
    make(tmp_path / "a", result=RESULT, seed=1)
    make(tmp_path / "b", result=RESULT | {"test_accuracy": 0.75, "odd": 2000}, activation="relu")
    make(tmp_path / "c", losses=())
    text = shown(RunsConfig(compare=True), tmp_path / "a", tmp_path / "b")
    assert [line.split() for line in text.replace(str(tmp_path), "").splitlines()] == [
        ["run", "/a", "/b"], ["state", "finished", "finished"], ["--activation", "gelu", "relu"], ["--seed", "1", "0"],
        ["validation", "loss", ".5000", "loss", ".5000"], ["test", "accuracy", ".5000", ".7500"],
        ["train", "seconds", "8", "8"], ["seconds", "per", "step", "2", "2"],
    ]  # fmt: skip
    text = shown(RunsConfig(compare=True, figures=("odd",)), tmp_path)
    assert [line.split() for line in text.splitlines()[:2]] == [
        ["run", "a", "b", "c"],
        ["state", "finished", "finished", "stopped"],
    ]
    assert text.splitlines()[-1].split() == ["odd", "2,000"]
    for i in range(9):
        make(tmp_path / f"d{i}", losses=())
    rows = table(shown(RunsConfig(compare=True, figures=("test_accuracy",)), tmp_path).replace("test accuracy", "test"))
    assert len(rows) == 12 and rows["b"]["test"] == ".7500" and rows["c"]["test"] == "" and rows["a"]["--seed"] == "1"


def test_numbers_and_tables_are_written_as_elsewhere() -> None:
    values = (0.975, -0.25, 0.0, 1.0, 12.345, 12345.6, -0.00001, 1e12)
    assert [number(x) for x in values] == [".9750", "-.2500", ".0000", "1", "12.35", "12,346", "-1e-05", "1e+12"]
    assert aligned(["a", "b", "c"], [["中", "", "x\ny"], ["long", "", ""]]) == "a     c\n中    x y\nlong"


def test_one_picture_of_several_runs(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = drawn(monkeypatch, plots)
    places = (make(tmp_path / "_$a$"), make(tmp_path / "b", (0.4, 0.3)), folder / "group" / "seed0")
    said = shown(RunsConfig(picture=tmp_path / "x.png"), *places)
    assert said.endswith(f"\nloss of 2 runs is in {tmp_path}/x.png; 1 have none")
    lines = {line.get_label(): line for line in made[0].axes[0, 0].get_lines()}
    points = sorted(line.get_xydata().tolist() for line in lines.values())
    assert points == [[[1, 0.4], [2, 0.3]], [[1, 0.9], [2, 0.5], [3, 0.7]]]
    assert made[0].axes[0, 0].get_ylabel() == "validation loss"
    with Image.open(tmp_path / "x.png") as image:
        assert image.size[0] > 500
    shown(RunsConfig(picture=tmp_path / "y.svg", curve="accuracy"), *places)
    assert made[1].axes[0, 0].get_lines()[0].get_ydata().tolist() == pytest.approx([0.1, 0.5, 0.3])


def test_json_for_machines(folder: Path) -> None:
    (folder / "done" / "result.json").write_text(json.dumps(RESULT | {"odd": float("inf")}))
    said = json.loads(shown(RunsConfig(json=True), folder), parse_constant=lambda x: pytest.fail(x))
    found = {run["name"]: run for run in said}
    done = found["done"]
    assert (done["state"], done["script"], done["step"], done["steps"]) == ("finished", "train_text", 3, 4)
    assert done["best"] == {"name": "loss", "value": 0.5, "step": 2} and done["result"] == RESULT | {"odd": None}
    assert done["flags"]["activation"] == "gelu" and done["path"] == str(folder / "done")
    assert abs(done["moved"] - time.time()) < 60 and found["photos"]["state"] == "no run"


MISTAKES = [
    (["nowhere"], "nowhere: no such folder"),
    (["--compare", "runs/done"], "--compare needs two runs or more; there is one"),
    (["--compare", "runs", "--figures=best"], "--figures=best: no result has it; there are test_accuracy, "),
    (["--figures=x"], "--figures names columns of --compare: add it"),
    (["--curve=x"], "--curve is a figure of --picture: add it"),
    (["--picture=x.gif"], "--picture=x.gif: name a file that ends with .png, .svg, .pdf"),
    (["--picture=x.png", "--curve=f1", "runs"], "--curve=f1: no run has this figure; there are accuracy, loss, odd"),
    (["--picture=x.png", "runs/group/seed0"], "--picture: no run has validation figures"),
    (["--follow", "--json"], "--follow shows one run: leave out --json"),
    (["--compare", "--json"], "--json has all results and choices, and nothing else is printed: leave out --compare"),
    (["--picture=x.png", "--json"], "--json has all results and choices, and nothing else"),
    (["--follow", "runs"], "--follow: no run is running there"),
    (
        ["--follow", "runs/cut"],
        "runs/cut: stopped; it has no result; run its command again, which resumes it after step 3",
    ),
    (["--follow", "runs/group/seed0"], "runs/group/seed0: failed: out of memory; it has no result"),
]


def test_mistakes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    for args, message in MISTAKES:
        error = fails("runs", *args)
        assert error.startswith(f"error: {message}") and error.count("\n") == 1, args
    assert not Path("x.png").exists()
    Path("empty").mkdir()
    assert succeeds("runs", "empty") == "no runs in empty\n"
    assert "done " in succeeds("runs")  # the folder runs


def test_a_list_of_runs_needs_no_heavy_library(folder: Path) -> None:
    code = f"""import sys
from experiments.runs import RunsConfig, show
from pathlib import Path
show(RunsConfig(), [Path({str(folder)!r})], lambda text: None)
print(*sys.modules)"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert not {"tensorflow", "keras", "scipy", "matplotlib", "PIL"} & {
        name.split(".")[0] for name in done.stdout.split()
    }


def test_a_finished_run_s_best_is_of_its_test_rows() -> None:
    run = RunSummary(Path("x"), "", "", "finished", 1, 2, Best("loss", 0.5, 1), None, None, {}, {}, (), ())
    assert best_of(run) == "validation loss .5000"
    assert best_of(run._replace(result={"test_loss": 2.0})) == "test loss 2"
    assert best_of(run._replace(result={"fid": 12.345, "train_seconds": 3})) == "fid 12.35"
    assert best_of(run._replace(result={"svm_test_accuracy": 0.5})) == "svm test accuracy .5000"
    with pytest.raises(UserError):
        follow({}, print, io.StringIO())
