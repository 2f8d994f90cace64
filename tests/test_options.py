"""Configurations: checked at the door, and the same as flags, as JSON and in Python."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from absl import flags

from experiments import config_flags
from files.errors import UserError
from training.config_files import as_flags, as_json, from_json, load
from training.options import Config, earlier_names, leaves, nested, option, overrides_of, with_values


@dataclasses.dataclass(frozen=True)
class Head(Config):
    kernel: int = option(4, "Side.", low=1, former_names=("side",))
    filters: tuple[int, ...] = option((192, 128), "Filters.")
    norm: bool = option(False, "Whether.", former_names=("normal",))
    classes: int = option(2, "From the data.", from_data=True)


Changes = overrides_of(Head)


@dataclasses.dataclass(frozen=True)
class Task(Config):
    rate: float = option(1e-3, "Rate.", low=0.0, high=1.0)
    dropout: float | None = option(None, "Perhaps.", low=0.0)
    kind: str = option("a", "Kind.", choices=("a", "b"))
    channels: int = option(0, "Channels.", choices=(0, 1, 3))
    path: Path | None = option(None, "Path.")
    names: tuple[str, ...] = option(("x",), "Names.", former_names=("labels",))
    cache: str = option("", "Not of the run.", affects_result=False)
    head: Head = nested(Head, prefix="head_", kernel=3)
    change: Changes = nested(Changes, prefix="c_")  # type: ignore[valid-type]

    def check(self) -> None:
        if self.kind == "b" and self.channels:
            raise UserError("no channels for b")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rate": 2.0}, r"Task.rate=2.0: 1.0 or less is needed"),
        ({"rate": float("nan")}, r"Task.rate=nan: 0.0 or more is needed"),
        ({"rate": "much"}, r"Task.rate='much': a value of type float is needed"),
        ({"rate": None}, r"Task.rate=None: a value of type float is needed"),
        ({"dropout": -1}, r"Task.dropout=-1.0: 0.0 or more"),
        ({"kind": "c"}, r"Task.kind='c' is not known: use one of a, b"),
        ({"channels": True}, r"Task.channels=True: a value of type int is needed"),
        ({"names": "xy"}, r"Task.names='xy': a list is needed"),
        ({"names": [1]}, r"Task.names=1: a value of type str is needed"),
        ({"kind": "b", "channels": 3}, "no channels for b"),
        ({"head": None}, "Task.head=None: a Head is needed"),
        ({"head": {"kernel": 3}}, "a Head is needed"),
    ],
)
def test_a_wrong_value_is_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Task(**values)


def test_choices_by_the_names_of_their_flags() -> None:
    assert Task.of(rate=0.5, head_norm=True) == Task(rate=0.5, head=Head(kernel=3, norm=True))
    for choices, message in (
        ({"head_side": 3}, "Task has no 'head_side'; is it 'head_kernel'"),
        ({"dropuot": 3}, "Task has no 'dropuot'; is it 'dropout'"),
        ({"classes": 3}, "Task has no 'classes'"),
        ({"kind": "c"}, "Task.kind='c' is not known"),
    ):
        with pytest.raises(UserError, match=message):
            Task.of(**choices)


def test_values_take_the_fields_type() -> None:
    task = Task(rate=1, names=["a", "b"], path="~/x")  # type: ignore[arg-type]
    assert task.rate == 1.0 and isinstance(task.rate, float)
    assert task.names == ("a", "b") and task.path == Path.home() / "x"
    assert Task(path="").path is None and Task(channels=np.int64(3)).channels == 3  # type: ignore[arg-type]
    assert hash(task) == hash(Task(rate=1.0, names=("a", "b"), path=Path.home() / "x"))


def test_changes_over_a_base() -> None:
    assert Changes(kernel=7).applied_to(Head()) == Head(kernel=7)
    assert Changes(filters=(), norm=False).applied_to(Head(norm=True)) == Head(filters=(), norm=False)
    assert Changes().applied_to(Head()) == Head()
    assert Head().differences(Head(kernel=7, norm=True)) == {"kernel": 7, "norm": True}
    with pytest.raises(UserError, match=r"HeadOverrides.kernel=0: 1 or more"):
        Changes(kernel=0)


OTHER = Task(1e-4, 0.5, "b", 0, Path("/x"), ("a,b", "c"), "here", Head(filters=(), norm=True), Changes(filters=(8,)))


def _parsed(config: Task, *lines: str) -> Task:
    values = flags.FlagValues()
    config_flags.define(config, values)
    config_flags.parse(values, ["script", *lines], earlier_names(config))
    return config_flags.read(config, values)


@pytest.mark.parametrize("task", [Task(), OTHER, Task(change=Changes(filters=(), norm=False))])
def test_flags_and_json_give_the_configuration_back(task: Task, tmp_path: Path) -> None:
    affects_result = dataclasses.replace(task, cache="")
    lines = [f"--{name}={value}" for name, value in as_flags(task).items()]
    assert _parsed(Task(), *lines) == affects_result
    (tmp_path / "flags.txt").write_text("".join(line + "\n" for line in lines))
    assert _parsed(Task(), f"--flagfile={tmp_path}/flags.txt") == affects_result
    assert from_json(Task(), json.loads(json.dumps(as_json(task)))) == affects_result
    (tmp_path / "config.json").write_text(json.dumps({"task": "Task", "config": as_json(task)}))
    assert load(tmp_path / "config.json", Task()) == affects_result


def test_what_is_absent_has_its_default_and_earlier_names_are_read() -> None:
    assert from_json(Task(), {"head": {"side": 5}, "labels": ["q"]}) == Task(head=Head(kernel=5), names=("q",))
    with pytest.raises(UserError, match=r"Task has no head\.colour"):
        from_json(Task(), {"head": {"colour": 1}})


def test_flags_follow_from_the_fields() -> None:
    values = flags.FlagValues()
    config_flags.define(Task(), values)
    names = {leaf.name for leaf in leaves(Task())}
    assert set(values) == names == {
        "rate", "dropout", "kind", "channels", "path", "names", "cache", "head_kernel", "head_filters", "head_norm",
        "c_kernel", "c_filters", "c_norm",
    }  # fmt: skip
    assert values["head_kernel"].default == 3 and values["c_kernel"].default is None
    assert values["rate"].help == "Rate." and "<a|b>" in values.get_help()
    assert values["names"].default == ["x"]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--head_side=3", "--head_side has another name now: --head_kernel"),
        ("--nohead_normal", "--nohead_normal has another name now: --nohead_norm"),
        ("--labels=a", "--labels has another name now: --names"),
        ("--colour=red", "Unknown command line flag 'colour'"),
        ("--head_kernel=0", "0 is not a positive integer"),
        ("--head_filters=8,x", "invalid literal for int"),
        ("--kind=c", r"value should be one of <a\|b>"),
        ("--rate=2", "2.0 is not a number in the range"),
    ],
)
def test_wrong_flags_are_named(argument: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        _parsed(Task(), argument)


def test_lines_that_a_flagfile_cannot_hold() -> None:
    for task in (Task(names=("a\nb",)), Task(names=("a", " b")), Task(names=("",)), Task(path=Path("x "))):
        with pytest.raises(UserError, match="cannot be written to a flagfile"):
            as_flags(task)


def test_two_choices_of_one_name_are_a_mistake_of_the_code() -> None:
    @dataclasses.dataclass(frozen=True)
    class Twice(Config):
        kernel: int = option(1, "Side.")
        head: Head = nested(Head)

    with pytest.raises(ValueError, match="two choices named kernel"):
        leaves(Twice())


def test_other_values_at_paths() -> None:
    assert with_values(Task(), {("head", "norm"): True, ("rate",): 0.5}) == Task(
        rate=0.5, head=Head(kernel=3, norm=True)
    )
