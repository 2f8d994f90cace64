"""``triptych`` and ``python -m experiments``: the list, scripts and flagfiles by name, completion, the wheel."""

import configparser
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import catalogue, flagfiles, launch
from experiments.command_line import answer, listing
from experiments.completion import SHELLS, candidates
from experiments.repeat_plan import RepeatConfig, make_plan
from tests.refusals import refused
from tests.scripts import ROOT, fails, run
from tests.test_architecture import MAY_IMPORT, SCRIPTS
from text_cls.config import ClassifierConfig

# The console script, as pip writes it.
TRIPTYCH = "import sys; sys.argv[0] = '/bin/triptych'; from experiments.command_line import main; sys.exit(main())"


def process(*command: str, cwd: Path = ROOT) -> tuple[int, str, str]:
    done = subprocess.run([sys.executable, *command], cwd=cwd, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


def test_the_list_has_every_script_with_its_first_line() -> None:
    lines = [line.split(maxsplit=1) for line in listing().splitlines()[2:-2]]
    assert [name for name, _ in lines] == [path.stem for path in SCRIPTS]
    assert dict(lines)["train_text"] == "Train a Transformer on texts, from scratch."
    assert dict(lines)["baselines_text"].startswith("N-gram baselines on the data flags of train_text: naive Bayes")
    assert all(text for _, text in lines)
    assert catalogue.scripts()["train_text"].config == "ClassifierConfig"


def test_the_list_is_quick_and_loads_nothing() -> None:
    show = "import sys\nsys.argv = ['triptych']\ntry: main()\nfinally: print(*sorted(sys.modules), file=sys.stderr)"
    status, out, err = process("-c", f"from experiments.command_line import main\n{show}")
    assert (status, out) == (0, f"{listing()}\n")
    assert not {"tensorflow", "keras", "numpy", "experiments.train_text"} & set(err.split())
    assert process("-m", "experiments")[:2] == (0, f"{listing()}\n")


def test_a_name_that_there_is_not() -> None:
    assert refused(lambda: answer(["trian-text"])).startswith("there is no script 'trian-text'; is it train_text or ")
    assert "; there are baselines_text, cache, caption, " in refused(lambda: answer(["xyz"]))
    status, out, err = process("-c", TRIPTYCH, "repaet")
    assert (status, out) == (1, "") and err.startswith("error: there is no script 'repaet'; is it repeat")


@pytest.mark.parametrize("args", [["--help"], ["stray"], ["--flagfile=bbc_new"], ["--no_such"]], ids=lambda a: a[0])
def test_a_script_by_its_name_is_the_script(args: list[str]) -> None:
    """Output, errors and status; dashes and underscores alike."""
    expected = process("-m", "experiments.embed_text", *args)
    assert process("-c", TRIPTYCH, "embed-text", *args) == expected
    assert expected[0] == 1  # absl's --help too
    if args == ["stray"]:
        assert process("-m", "experiments", "embed_text", *args) == expected
        assert expected[2] == "error: unexpected argument 'stray'; see --help\n"


def test_help_that_nobody_reads_to_its_end_is_no_error_of_the_script() -> None:
    """As of ``--help | head``."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "experiments.embed_text", "--help"]
    done = subprocess.run(command, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder that is no checkout."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_flagfiles_by_name(elsewhere: Path) -> None:
    ours = ROOT / "experiments" / "flags" / "bbc_news.flags"
    for name in ("bbc_news", "bbc_news.flags", "experiments/flags/bbc_news.flags", "flags/bbc_news", str(ours)):
        assert flagfiles.find(name) == ours
    assert {flagfiles.find(name).name for name in flagfiles.names()} == {path.name for path in ours.parent.iterdir()}
    (elsewhere / "bbc_news").mkdir()  # of a user's data, say
    assert flagfiles.find("bbc_news") == ours
    (elsewhere / "bbc_news.flags").write_text("--seed=7")
    assert flagfiles.find("bbc_news") == flagfiles.find("bbc_news.flags") == Path("bbc_news.flags")  # the user's own
    assert flagfiles.find("flags/bbc_news.flags") == ours


def test_flagfiles_that_there_are_not(elsewhere: Path) -> None:
    message = refused(lambda: flagfiles.find("bcc_news.flag"))
    start = "Unable to open flagfile 'bcc_news.flag': no such file; the package has bbc_news, "
    assert message.startswith(start) and set(flagfiles.names()) == set(message.split(" has ")[1].split(", "))
    for name in ("/nowhere/bbc_news.flags", "other/bbc_news.flags", "x" * 300, "a\0b"):
        assert "no such file; the package has " in refused(lambda name=name: flagfiles.find(name))
    (elsewhere / "mine").mkdir()
    assert "'mine': it is a folder; " in refused(lambda: flagfiles.find("mine"))
    assert fails("embed_text", "--flagfile").endswith("--flagfile needs the name of a file; see --help\n")


def parsed(*args: str) -> dict[str, object]:
    """The flags that are given."""
    values = launch.define(ClassifierConfig())
    launch.parse(["script", *args], values, values)
    return {name: values[name].value for name in values if values[name].present}


def test_flagfiles_inside_flagfiles(elsewhere: Path) -> None:
    (elsewhere / "mine").write_text("# mine\n\n--flagfile=bbc_news\n// more\n --width=32 \n--seed=1\n", "utf-8-sig")
    (elsewhere / "é.flags").write_text("--flagfile=mine\n--nodry_run\n--seed=2")
    expected = {"dataset": "bbc_news", "width": 32, "seed": 2, "dry_run": False}
    assert parsed("--flagfile=é") == parsed("-flagfile", "é.flags") == expected
    assert parsed("--seed=3", "--flagfile=é")["seed"] == 2  # the last one counts
    assert parsed("--flagfile", "é", "--seed", "3")["seed"] == 3
    assert parsed("--flagfile=") == {}
    (elsewhere / "mine").write_text("--flagfile=é.flags")
    with pytest.raises(SystemExit, match=r"error: flagfile é.flags is inside itself: remove its"):
        parsed("--flagfile=é")
    (elsewhere / "mine").write_bytes(b"--width=\xff")
    with pytest.raises(SystemExit, match="error: Unable to open flagfile mine: not UTF-8 at byte 8"):
        parsed("--flagfile=mine")


def test_a_flagfile_from_a_pipe(elsewhere: Path) -> None:
    """The shell's ``--flagfile=<(…)``."""
    reading, writing = os.pipe()
    os.write(writing, b"--width=48\n")
    os.close(writing)
    try:
        assert parsed(f"--flagfile=/dev/fd/{reading}") == {"width": 48}
    finally:
        os.close(reading)


def test_texts_are_no_flagfiles(elsewhere: Path) -> None:
    done = run("predict_text", "--run_dir=nowhere", "--", "--flagfile=nowhere")
    assert "flagfile" not in done.stderr and "no trained model there" in done.stderr


def test_repeat_knows_flagfiles_by_name(elsewhere: Path) -> None:
    (elsewhere / "mine.flags").write_text("--width=32\n")
    plan = make_plan(RepeatConfig(flagfiles=(Path("bbc_news"), Path("mine")), seeds=(0,)), [], Path("runs"))
    assert [(one.data, one.path) for one in plan] == [(n, Path(f"runs/{n}/base/seed0")) for n in ("bbc_news", "mine")]
    assert [one.flags[0] for one in plan] == [f"--flagfile={flagfiles.find(n)}" for n in ("bbc_news", "mine")]
    assert "Unable to open flagfile 'x.flags'" in refused(
        lambda: make_plan(RepeatConfig(flagfiles=(Path("x.flags"),)), [], Path("runs"))
    )


CANDIDATES = [
    (["tr"], ["train_text"]),
    (["train-"], ["train-text"]),
    (["sample_ddpm", ""], []),
    (["no_script", "--"], []),
    (["train-text", "--data"], ["--data_path=", "--dataset="]),
    (["train_text", "--nois"], []),
    (["train_text", "--norep"], ["--noreport"]),
    (["ddpm", "--nois"], ["--noise_schedule="]),
    (["train_text", "--pooling=m"], ["--pooling=mean", "--pooling=max"]),
    (["train_text", "--pooling", "ma"], ["max"]),
    (["train_text", "--report", "ma"], []),
    (["train_text", "--flagfile=bb"], ["--flagfile=bbc_news", "--flagfile=bbc_news_minilm"]),
    (["train_text", "--flagfile", "win"], ["wine"]),
    (["train_text", "--data_path=x"], []),
    (["train_text", "--nothing=x"], []),
    (["repeat", "--flagfiles=wine,dia"], ["--flagfiles=wine,diabetes"]),
    (["repeat", "--script=tab"], ["--script=table_images"]),
    (["baselines_text", "--models=linear_svm,na"], ["--models=linear_svm,naive_bayes"]),
    (["completion", ""], ["bash", "zsh", "fish"]),
    (["completion", "bash", ""], []),
]  # fmt: skip


@pytest.mark.parametrize(("words", "expected"), CANDIDATES, ids=lambda words: " ".join(words))
def test_what_a_word_may_become(words: list[str], expected: list[str]) -> None:
    assert sorted(candidates(words)) == sorted(expected)


def test_all_of_a_script_s_flags_are_offered() -> None:
    names = {word.removeprefix("--").removesuffix("=") for word in candidates(["train_text", "--"])}
    assert names == {*launch.flags_of("train_text"), "flagfile", "help"}
    assert candidates([]) == candidates([""]) == list(catalogue.scripts())


def test_completion_prints_a_shell_s_script() -> None:
    assert run("completion", "fish").stdout == SHELLS["fish"]
    assert fails("completion", "tcsh") == "error: name a shell: bash, zsh, fish; see --help\n"


_BASH = """
triptych() {{ {python} -c "{code}" "$@"; }}
. <(triptych completion bash)
COMP_LINE={line!r} COMP_POINT={point}
_triptych
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("triptych train-t", ["train-text"]),
        ("triptych train-text --flagfile=win and more", ["wine"]),  # the cursor is behind win
        ("triptych completion ", ["bash", "zsh", "fish"]),
    ],
)
def test_bash_completes(line: str, expected: list[str]) -> None:
    point = line.find(" and more") if " and more" in line else len(line)
    text = _BASH.format(python=sys.executable, code=TRIPTYCH, line=line, point=point)
    done = subprocess.run(["bash", "-c", text], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == expected, done.stderr


def test_the_wheel_is_told_of_every_package_and_flagfile() -> None:
    from setuptools import find_packages

    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    found = find_packages(str(ROOT), include=setup["options.packages.find"]["include"].split())
    with_code = {path.parent.relative_to(ROOT) for name in MAY_IMPORT for path in (ROOT / name).rglob("*.py")}
    assert {Path(*name.split(".")) for name in found} == with_code
    others = {p for n in MAY_IMPORT for p in (ROOT / n).rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    data = {path for path in others if path.suffix != ".py"}
    assert setup["options.package_data"]["experiments"] == "flags/*.flags"
    assert data == set((ROOT / "experiments").glob("flags/*.flags"))
    assert setup["options.entry_points"]["console_scripts"].strip() == "triptych = experiments.command_line:main"


@pytest.mark.slow
def test_the_wheel_works_outside_the_checkout(tmp_path: Path) -> None:
    """Built from the sdist's files, installed without the checkout; the libraries are those of this Python."""
    source = tmp_path / "source"
    left_out = shutil.ignore_patterns(".*", "runs", "build", "*.egg-info", "__pycache__", "shared")
    shutil.copytree(ROOT, source, ignore=left_out)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "-q", "--no-deps", "-w", tmp_path, source], check=True, timeout=600)
    (wheel,) = tmp_path.glob("triptych_keras-*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True, timeout=300)
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    (site / "libraries.pth").write_text(f"{Path(pytest.__file__).parents[1]}\n")
    python = str(tmp_path / "venv" / "bin" / "python")
    subprocess.run([*pip, "--python", python, "install", "-q", "--no-deps", wheel], check=True, timeout=300)
    work = tmp_path / "work"
    work.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def triptych(*args: str) -> str:
        command = [str(tmp_path / "venv" / "bin" / "triptych"), *args]
        done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert triptych() == f"{listing()}\n"
    small = ["--num_epochs=1", "--max_length=32", "--networks=1", "--noreport", "--tsne=0", "--cache_dir=cache"]
    triptych("train-text", "--flagfile=bbc_news", "--run_dir=runs/a", *small)
    answers = triptych("predict-text", "--run_dir=runs/a", "The striker scored twice in the final.")
    assert answers.splitlines()[1].split(",")[2] == "sports"
    repeated = ("repeat", "--flagfiles=bbc_news", "--seeds=0", "--run_dir=runs/more", "--", *small, "--width=16")
    (work / "training").mkdir()
    (work / "training" / "__init__.py").write_text("raise RuntimeError('the module of a user')")
    assert "1 runs, 0 of them finished" in triptych(*repeated)
    assert [line.split()[:3] for line in triptych("runs").splitlines()[1:]] == [
        ["a", "train_text", "finished"], ["more/bbc_news/base/seed0", "train_text", "finished"],
    ]  # fmt: skip
