import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from files.errors import UserError
from training.config import TaskConfig, TrainingConfig
from training.options import nested, option
from training.placement import make_placement
from training.run import Run


@dataclasses.dataclass(frozen=True)
class _Config(TaskConfig):
    name: str = option("a", "A text.", former_names=("title",))
    rate: float | None = option(None, "Perhaps a number.")
    source: Path | None = option(None, "A file.")
    other: Path | None = option(None, "Another.")
    column: str = option("auto", "A choice whose default was another.", former_defaults=("", "none"))
    kind: str = option("", "A choice whose default has another name today.", same_as_default=("usual",))
    training: TrainingConfig = nested(TrainingConfig, batch_size=8)


class _Data:
    def __init__(self, rows: int) -> None:
        self.rows, self.notes = rows, ("one row left out",)

    def describe(self) -> dict:
        return {"rows": self.rows, "classes": ("a", "b")}


def test_same_configuration_opens_again_and_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a" / "run"
    config = _Config(name="x=y", cache_dir=tmp_path)
    assert not Run.check(path, config) and not path.exists()
    Run.open(path, config)
    lines = (path / "flags.txt").read_text().splitlines()
    assert "--name=x=y" in lines and "--batch_size=8" in lines and lines == sorted(lines)
    assert not any(line.startswith(("--rate", "--cache_dir")) for line in lines)  # not given; not of the run
    raw = json.loads((path / "config.json").read_text())
    assert raw["task"] == "_Config" and raw["config"]["training"]["batch_size"] == 8
    Run.open(path, dataclasses.replace(config, cache_dir=None))
    for other, message in (
        (_Config(name="x=y", seed=1), "--seed=0 there, 1 here"),
        (_Config(name="x=y", rate=0.5), "--rate=None there, 0.5 here"),
        (_Config(), "--name=x=y there, a here"),
        (TaskConfig(), "belongs to another task, _Config"),
    ):
        with pytest.raises(UserError, match=message):
            Run.open(path, other)
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(UserError, match="exists and is no run folder"):
        Run.open(file, config)
    assert file.read_text() == "mine"
    with pytest.raises(UserError, match="cannot be written"):
        Run.open(Path("/proc/run"), config)


def test_a_folder_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    """What it does not say had its default; what had another name then is known by it; None was not given."""
    (tmp_path / "flags.txt").write_text("--seed=3\n--title=x\n--rate=None\n--source=../d/\n--other=\n")
    same = _Config(seed=3, name="x", source=Path("../d"))
    Run.open(tmp_path, same)
    assert json.loads((tmp_path / "config.json").read_text())["config"]["seed"] == 3
    assert Run.check(tmp_path, same)
    for change in ({"name": "a"}, {"seed": 0}, {"rate": 1.0}, {"source": None}, {"source": "../e"}):
        other = dataclasses.replace(same, **change)
        with pytest.raises(UserError, match="belongs to a run with other flags"):
            Run.check(tmp_path, other)
    (tmp_path / "config.json").unlink()
    (tmp_path / "flags.txt").write_text("--seed=3\n--colour=red\n")  # of another script
    with pytest.raises(UserError, match="--colour=red there, None here"):
        Run.check(tmp_path, _Config(seed=3))


def test_a_default_that_was_another_one_in_an_earlier_version(tmp_path: Path) -> None:
    """A folder of then and a command that says nothing of it belong together; what comes of it decides."""
    flags = tmp_path / "flags.txt"
    flags.write_text("--seed=3\n--column=\n")
    same = _Config(seed=3)
    assert Run.check(tmp_path, same) and Run.check(tmp_path, _Config(seed=3, column=""))
    for other in (_Config(seed=3, column="x"), _Config(seed=3, column="none"), _Config(column="")):
        with pytest.raises(UserError, match="belongs to a run with other flags"):
            Run.check(tmp_path, other)
    with Run.open(tmp_path, same, _Data(3), settled=_Config(seed=3, column="")):
        pass
    with pytest.raises(UserError, match="--column= there, auto here"):
        Run.open(tmp_path, same, _Data(3), settled=_Config(seed=3, column="x"))
    with pytest.raises(UserError, match=r"made of other data \(rows; .*, or give --column= as its flags\.txt"):
        Run.open(tmp_path, same, _Data(4))
    assert flags.read_text() == "--seed=3\n--column=\n"
    flags.write_text("--seed=3\n")  # of a version that did not say it
    for column in ("auto", "", "none"):
        assert Run.check(tmp_path, _Config(seed=3, column=column))
    with pytest.raises(UserError, match="--column=auto there, x here"):
        Run.check(tmp_path, _Config(seed=3, column="x"))
    flags.write_text("--seed=3\n--column=x\n")  # was never a default
    with pytest.raises(UserError, match="--column=x there, auto here"):
        Run.check(tmp_path, same)


def test_a_value_that_means_what_the_default_means_is_no_difference(tmp_path: Path) -> None:
    """Neither as a flag, nor as a remedy for other data."""
    (tmp_path / "flags.txt").write_text("--seed=3\n--column=\n--kind=usual\n")
    for kind in ("", "usual"):
        with Run.open(tmp_path, _Config(seed=3, column="", kind=kind), _Data(3)):
            pass
        with pytest.raises(UserError, match=r"made of other data \(rows; see its data\.json\); choose another folder$"):
            Run.open(tmp_path, _Config(seed=3, column="", kind=kind), _Data(4))
    with pytest.raises(UserError, match=r"\(rows; .*, or give --column= as its flags\.txt"):
        Run.open(tmp_path, _Config(seed=3), _Data(4))
    with pytest.raises(UserError, match="--kind=usual there, x here"):
        Run.check(tmp_path, _Config(seed=3, kind="x"))
    (tmp_path / "flags.txt").write_text("--seed=3\n--kind=x\n")
    with pytest.raises(UserError, match="--kind=x there, usual here"):
        Run.check(tmp_path, _Config(seed=3, kind="usual"))


def test_a_folder_that_was_being_made_is_made(tmp_path: Path) -> None:
    for name in ("config.json.tmp", "flags.txt.tmp", "config.json"):
        (tmp_path / name).write_text('{"task": "_Con')
    Run.open(tmp_path, _Config(name="x"))
    assert json.loads((tmp_path / "config.json").read_text())["config"]["name"] == "x"
    assert Run.check(tmp_path, _Config(name="x"))


def test_finished_and_other_data(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with Run.open(tmp_path, _Config(), _Data(3), {"encoder": "abc"}) as run:
        assert "note: one row left out" in (tmp_path / "log.txt").read_text()
        assert run.finished("test_accuracy") is None
        with pytest.raises(UserError, match="is in use by another process"):
            Run.open(tmp_path, _Config(), _Data(3), {"encoder": "abc"})
        run.write_json("result.json", {"test_accuracy": 0.5})
    for data, inputs, what in (
        (_Data(4), {"encoder": "abc"}, "rows"),
        (_Data(3), {"encoder": "abd"}, "encoder"),
        (_Data(3), {}, "encoder"),
    ):
        with pytest.raises(UserError, match=rf"was made of other data \({what};"):
            Run.open(tmp_path, _Config(), data, inputs)
    with Run.open(tmp_path, _Config(), _Data(3), {"encoder": "abc"}) as run:
        assert run.finished("test_accuracy") == {"test_accuracy": 0.5}
        assert "finished before, test accuracy 0.5000" in capsys.readouterr().out
        with pytest.raises(UserError, match="damaged: no fid in it"):
            run.finished("fid")
        for wrong in ('{"test_accuracy": "x"}', '{"test_accuracy": null}', '{"test_accuracy": NaN}', "[1]", "{"):
            (tmp_path / "result.json").write_text(wrong)
            with pytest.raises(UserError, match=r"result\.json: .*remove it to have it made again"):
                run.finished("test_accuracy")
    with pytest.raises(UserError, match="other flags"):
        Run.check(tmp_path, _Config(seed=1))
    (tmp_path / "data.json").unlink()
    with pytest.raises(UserError, match=r"no data\.json, which says what they were made of"):
        Run.open(tmp_path, _Config(), _Data(3), {"encoder": "abc"})


def test_figures_past_the_step_are_forgotten(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    metrics = tmp_path / "metrics.jsonl"
    with Run.open(tmp_path, TaskConfig()) as run:
        run.resume_at(0, 100)
        for step in (10, 20):
            run.log(step, "train", {"loss": 0.1 + 0.2, "small": 1e-7})
        history = run.history
        run.log(30, "train", {"loss": 0.5})
    assert "loss 0.3  small 1.00e-07  left" in capsys.readouterr().out
    with metrics.open("a") as file:
        file.write('{"step": 40, "spl')  # cut off in the middle of a line
    with Run.open(tmp_path, TaskConfig()) as run:
        run.resume_at(20, 100, history)
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert [line["step"] for line in lines] == [10, 20]
    assert lines[0] == {"step": 10, "split": "train", "loss": 0.1 + 0.2, "small": 1e-7}
    assert "note" not in capsys.readouterr().out


@pytest.mark.parametrize("damage", [lambda text: text[:30], lambda text: text.replace("0.3", "0.4"), lambda text: ""])
def test_figures_that_were_cut_or_changed_come_back_from_the_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture, damage: Callable[[str], str]
) -> None:
    metrics = tmp_path / "metrics.jsonl"
    with Run.open(tmp_path, TaskConfig()) as run:
        run.resume_at(0, 100)
        run.log(10, "train", {"loss": 0.3})
        metrics.write_text(damage(metrics.read_text()))
        run.resume_at(10, 100, run.history)
    assert json.loads(metrics.read_text())["loss"] == 0.3
    assert "note: metrics.jsonl was cut or changed" in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe\x00", b'{"a": ' + b"[" * 100_000])
@pytest.mark.parametrize("name", ["data.json", "result.json", "config.json", "flags.txt"])
def test_damaged_files_are_said(tmp_path: Path, name: str, content: bytes) -> None:
    with Run.open(tmp_path, _Config(name="x"), _Data(3)) as run:
        run.write_json("result.json", {"test_accuracy": 0.5})
    (tmp_path / name).write_bytes(content)
    with (
        pytest.raises(UserError, match=name if name != "flags.txt" else "flags"),
        Run.open(tmp_path, _Config(name="x"), _Data(3)) as run,
    ):
        run.finished("test_accuracy")


def test_writer_gets_the_figures(tmp_path: Path) -> None:
    run = Run.open(tmp_path, TaskConfig())
    seen = []
    run.writers.append(lambda step, split, figures: seen.append((step, split, figures)))
    run.log(3, "validation", {"accuracy": 0.5})
    assert seen == [(3, "validation", {"accuracy": 0.5})]
    assert run.read_json("none.json") is None
    run.write_json("some.json", {"a": 1})
    assert run.read_json("some.json") == {"a": 1}


@pytest.mark.parametrize("devices", ["tpu", "cpu:0", "cpu:x", "auto:2", "gpu:99", ""])
def test_devices_that_are_not_there(devices: str) -> None:
    with pytest.raises(UserError, match="--devices="):
        make_placement(devices)


def test_a_folder_that_was_refused_is_free(tmp_path: Path) -> None:
    with Run.open(tmp_path, _Config(), _Data(3)):
        pass
    with pytest.raises(UserError, match="was made of other data") as kept:  # as a notebook keeps it
        Run.open(tmp_path, _Config(), _Data(4))
    with Run.open(tmp_path, _Config(), _Data(3)):
        assert kept.value is not None


def test_data_that_are_no_longer_known_are_not_taken_for_granted(tmp_path: Path) -> None:
    with Run.open(tmp_path, _Config(), _Data(3)) as run:
        first = run.identity
    with Run.open(tmp_path, _Config(), _Data(3)) as run:
        assert run.identity == first
        (tmp_path / "checkpoints").mkdir()
        (tmp_path / "checkpoints" / "last.safetensors").write_bytes(b"")
    flags = (tmp_path / "flags.txt").read_text()
    (tmp_path / "flags.txt").write_text(flags.replace("--seed=0\n", ""))  # as if it had had its default
    with Run.open(tmp_path, _Config(), _Data(3)) as run:
        assert run.identity != first
    (tmp_path / "data.json").unlink()
    with pytest.raises(UserError, match=r"no data\.json, which says what they were made of"):
        Run.open(tmp_path, _Config(), _Data(5))


def test_notes_may_be_in_the_words_of_another_version(tmp_path: Path) -> None:
    with Run.open(tmp_path, _Config(), _Data(3), {"notes": ["as it was said"]}) as run:
        first, about = run.identity, (tmp_path / "data.json").read_text()
    with Run.open(tmp_path, _Config(), _Data(3), {"notes": ["as it is said now"]}) as run:
        assert run.identity == first and (tmp_path / "data.json").read_text() == about


def test_figures_that_are_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "metrics.jsonl")
    with pytest.raises(UserError, match=r"metrics\.jsonl: not a regular file"):
        Run(tmp_path).resume_at(0, 10)
