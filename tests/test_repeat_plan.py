"""The runs of ``experiments.repeat``, and what is refused before anything is run."""

from importlib import import_module
from pathlib import Path

import pytest

from experiments.repeat import repeat
from experiments.repeat_plan import SCRIPTS, PlannedRun, RepeatConfig, make_plan, safe, task_of, variations_of
from files.errors import UserError
from tests import scripts
from tests.refusals import refused
from training.options import leaves

TWO = ("dropout=.1|.3",)


def never(run: PlannedRun) -> str:
    raise AssertionError(run)


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_known_by_their_configuration(script: str) -> None:
    """Every one has a seed to vary, and the flags that its configuration gives."""
    names = {leaf.name for leaf in leaves(task_of(script)())}
    assert names | {"run_dir", "dry_run"} == set(import_module(f"experiments.{script}").FLAGS)
    assert "seed" in names


def test_the_plan_is_flagfiles_by_variations_by_seeds(tmp_path: Path) -> None:
    (tmp_path / "one.flags").write_text("--dropout=0.5\n--seed=9\n--run_dir=elsewhere\n")  # as a run's flags.txt has it
    (tmp_path / "two.flags").write_text("--dropout=0.2\n")
    config = RepeatConfig(
        flagfiles=(tmp_path / "one.flags", tmp_path / "two.flags"), seeds=(3, 1),
        vary=("pooling=mean|max", "--num_layers=1|2"), variation=("no words: --min_count=9 '--keep_rows=a b=c'",),
    )  # fmt: skip
    plan = make_plan(config, ["--num_epochs", "2"], tmp_path / "runs")
    assert [(run.data, run.variation, run.seed) for run in plan] == [
        (data, name, seed)
        for data in ("one", "two")
        for name in (
            "pooling=mean num_layers=1", "pooling=mean num_layers=2", "pooling=max num_layers=1",
            "pooling=max num_layers=2", "no words",
        )
        for seed in (3, 1)
    ]  # fmt: skip
    last = plan[-1]
    assert last.path == tmp_path / "runs" / "two" / "no_words" / "seed1"
    assert last.flags[1:-2] == ("--num_epochs", "2", "--min_count=9", "--keep_rows=a b=c")
    values = {leaf.name: leaf.value(plan[0].config) for leaf in leaves(plan[0].config)}
    assert (values["dropout"], values["seed"], values["num_epochs"], values["pooling"]) == (0.5, 3, 2.0, "mean")


def test_without_variations_the_flags_are_the_base() -> None:
    assert [one.name for one in variations_of(RepeatConfig(variation=("x: --dropout=0",)))] == ["base", "x"]
    assert variations_of(RepeatConfig(vary=("data_path=|a/b",)))[0].flags == ("--data_path=",)


def test_names_are_safe_and_differ() -> None:
    names = ["a b", "../../etc", "x" * 300, "x" * 299, "...", "без биграмм", "a/b|c\n", "-v", "\ud800"]
    folders = [safe(name) for name in names]
    assert len(set(folders)) == len(names)
    assert all(0 < len(x.encode()) <= 240 and "/" not in x and x[0] not in ".-" for x in folders)
    assert folders[0] == "a_b" and folders[5] == "без_биграмм"


REFUSED: list[tuple[dict, list[str], str]] = [
    ({"vary": ("dropuot=1|2",)}, [], r"train_text, dropuot=1: Unknown.*dropuot.*dropout.*train_text --help"),
    ({"vary": ("dropout=.1|x",)}, [], r"train_text, dropout=x: .*dropout=x"),
    ({"vary": ("dropout=.1|2",)}, [], r"train_text, dropout=2: .*2"),
    ({"vary": ("dropout",)}, [], r"--vary='dropout': write FLAG=VALUE\|VALUE"),
    ({"vary": ("=1",)}, [], "write FLAG=VALUE"),
    ({"vary": (*TWO, "dropout=.2")}, [], "--vary: dropout is there twice"),
    ({"vary": ("dropout=.1|.1",)}, [], "two variations are named 'dropout=.1'"),
    ({"vary": ("dropout=.1|0.1",)}, [], "variations 'dropout=.1' and 'dropout=0.1' are the same run"),
    ({"script": "ddpm", "vary": ("target=auto|eps",)}, [], "'target=auto' and 'target=eps' are the same run"),
    ({"variation": ("x:--dropout=0", "x: --dropout=1")}, [], "two variations are named 'x'"),
    ({"variation": ("base:--dropout=0",)}, [], "two variations are named 'base'"),
    ({"variation": ("a b:--dropout=0", "A_b: --dropout=.2")}, [], "'a b' and 'A_b' would have the same folder"),
    ({"variation": ("full:",)}, [], "'base' and 'full' are the same run"),
    ({"variation": ("--dropout=0",)}, [], "has no name: write"),
    ({"variation": (":--dropout=0",)}, [], "has no name: write"),
    ({"variation": ("x\ny:--dropout=0",)}, [], "line break"),
    ({"variation": ("x: --dropout='0",)}, [], "No closing quotation; write"),
    ({"variation": ("x: dropout=0",)}, [], "train_text, x: unexpected argument 'dropout=0'"),
    ({"variation": ("x: --data_path",)}, [], "train_text, x: .*data_path"),
    ({"variation": ("x: --patience=3 --select=",)}, [], "train_text, x: --patience=3 needs --select"),
    ({"variation": ("x: --seed=3",)}, [], "train_text, x: --seed is not for a single run: set it by --seeds"),
    ({"vary": ("run_dir=a|b",)}, [], "--run_dir is not for a single run"),
    ({}, ["--seed=3"], "train_text, the flags behind --: --seed is not"),
    ({}, ["--nodry_run"], "the flags behind --: --dry_run is not"),
    ({}, ["stray"], "the flags behind --: unexpected argument 'stray'"),
    ({}, ["--", "--dropout=1"], "the flags behind --: unexpected argument"),
    ({}, ["--data_path"], "the flags behind --: .*data_path"),
    ({"seeds": (1, 2, 1)}, [], "--seeds: 1 is there twice"),
    ({"seeds": ()}, [], "--seeds= names none"),
    ({"seeds": (-1,)}, [], "-1"),
    ({"script": "predict_text"}, [], "'predict_text' is not known: use one of train_text"),
    ({"figures": ("a", "a")}, [], "--figures: a is there twice"),
    ({"flagfiles": (Path("nowhere/x.flags"),)}, [], "nowhere/x.flags"),
    ({"flagfiles": (scripts.ROOT / "experiments/flags/digits.flags",)}, [], "train_text, digits, base: .*=digits"),
]  # fmt: skip


@pytest.mark.parametrize(("choices", "more", "message"), REFUSED, ids=[case[2] for case in REFUSED])
def test_what_cannot_be_run_is_refused_before_anything_is(
    tmp_path: Path, choices: dict, more: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        repeat(RepeatConfig(**choices), more, tmp_path / "runs", launcher=never)
    assert not (tmp_path / "runs").exists()


def test_flagfiles_have_names_of_their_own(tmp_path: Path) -> None:
    files = (tmp_path / "a" / "x.flags", tmp_path / "b" / "X.flags")
    for file in files:
        file.parent.mkdir()
        file.write_text("--dropout=0\n")
    assert "have the same name" in refused(lambda: make_plan(RepeatConfig(flagfiles=files), [], tmp_path))
    files[0].write_text("--dry_run\n")
    assert "--dry_run is not" in refused(lambda: make_plan(RepeatConfig(flagfiles=files[:1]), [], tmp_path))
