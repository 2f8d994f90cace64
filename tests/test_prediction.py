"""The answers of ``predict_text``, few in memory at a time, whole or not at all, and of ``Predictor.classify``."""

import gzip
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from experiments import launch, predict_text
from tests.little_model import HEADER, TEXTS, columns, rows_of, save
from tests.processes import ROOT, wait_until
from tests.scripts import fails, run, run_process, succeeds
from text_cls import inputs, prediction
from text_cls.answers import Answer, AnswerLine, best
from text_cls.inputs import read_inputs
from text_cls.prediction import predict
from text_cls.prediction_config import PredictionConfig
from text_cls.predictor import NO_WORDS, Predictor

AGAIN = "nothing is resumed: the same command begins again with the first text"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Predictor, Path]:
    folder = tmp_path_factory.mktemp("run")
    return save(folder), folder


def _parsed(*args: str) -> list[str]:
    predict_text.FLAGS.unparse_flags()
    return launch.parse(["predict_text", *args], predict_text.FLAGS, predict_text.FLAGS)[1:]


@pytest.mark.parametrize(
    "text",
    ["-5 degrees", "-", "-x=3", "- a quote", "--5 below", "--- ", "-- said he", "--so it goes", "—", "-1", "--it's",
     "-v", "-help", "-format", "-top=3", "-top", "-run_dir=x", "-flagfile=x", "-nodry_run"],
)  # fmt: skip
def test_a_text_may_begin_with_a_dash(text: str) -> None:
    assert _parsed(text) == [text]
    assert _parsed("a", "--top=2", text, "--separator", "-", "b") == ["a", text, "b"]
    assert (predict_text.FLAGS.top, predict_text.FLAGS.separator) == (2, "-")
    assert _parsed(text, "--", "--top=3", text) == [text, "--top=3", text]


def test_the_value_of_a_flag_is_no_text() -> None:
    assert _parsed("--separator", "--", "-v", "--nodry_run", "x", "--top", "2", "y") == ["-v", "x", "y"]
    assert (predict_text.FLAGS.top, predict_text.FLAGS.separator) == (2, "--")
    with pytest.raises(SystemExit, match="Missing value for flag --top"):
        _parsed("x", "--top")


@pytest.mark.parametrize("flag", ["--topp=3", "--topp", "--no", "--inputs=a\nb", "--text-fields=a"])
def test_an_unknown_flag_is_no_text(flag: str) -> None:
    for place in range(3):
        args = ["a", "-b"]
        args.insert(place, flag)
        with pytest.raises(SystemExit) as end:
            _parsed(*args)
        assert "Unknown command line flag" in str(end.value) and "behind --" in str(end.value)
    assert _parsed("--", flag) == [flag]


@pytest.mark.slow
def test_answers_come_while_texts_are_read(model: tuple[Predictor, Path]) -> None:
    """So few are in memory at a time."""
    read, written = [0], [0]

    def texts() -> Iterator[str]:
        for number in range(3 * inputs.CHUNK + 5):
            assert number - written[0] <= inputs.CHUNK
            read[0] = number + 1
            yield TEXTS[number % 5]

    def write(text: str) -> None:
        written[0] += text.count("\n") - text.startswith(HEADER)
        assert written[0] == read[0]

    summary = predict(PredictionConfig(), model[1], texts(), write)
    assert summary == (3 * inputs.CHUNK + 5, 0, ()) and written[0] == summary.texts


def test_answers_in_a_file(model: tuple[Predictor, Path], tmp_path: Path) -> None:
    out = tmp_path / "new" / "answers.csv"
    base = ["predict_text", f"--run_dir={model[1]}", f"--out={out}"]
    said = succeeds(*base, "the film", "<br>")
    assert said == f"{out}: 2 texts, 1 without an answer: see their notes\n"
    first = out.read_bytes()
    assert first.decode() == succeeds(*base[:2], "the film", "<br>")
    bad = tmp_path / "bad.txt"
    bad.write_bytes(b"film\n" * 2 * inputs.CHUNK + b"caf\xe9\n")
    assert "not UTF-8" in fails(*base, f"--input={bad}")
    assert out.read_bytes() == first and [path.name for path in out.parent.iterdir()] == [out.name]
    succeeds(*base, "--format=jsonl", "another")
    assert json.loads(out.read_text())["id"] == "1"
    succeeds(*base, "the last")
    assert out.read_text().startswith(HEADER)


def test_nothing_but_answers_is_replaced(model: tuple[Predictor, Path], tmp_path: Path) -> None:
    mine = tmp_path / "mine.jsonl"
    mine.write_text('{"id": 1, "text": "film"}\n')
    base = ["predict_text", f"--run_dir={model[1]}"]
    error = fails(*base, "--dataset=jsonl", f"--data_path={mine}", f"--out={mine}")
    assert "mine.jsonl exists and is not a file of answers" in error and '"text"' in mine.read_text()
    assert "is a folder" in fails(*base, f"--out={tmp_path}", "film")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "fifo")
    for name in ("link", "fifo"):
        assert "no regular file" in fails(*base, f"--out={tmp_path}/{name}", "film")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fifo", "link", "mine.jsonl"]


def test_an_interruption_leaves_no_half_file(model: tuple[Predictor, Path], tmp_path: Path) -> None:
    """While it waits for more of its input, with a chunk already written."""
    out = tmp_path / "answers.csv"
    command = [sys.executable, "-m", "experiments.predict_text", f"--run_dir={model[1]}", f"--out={out}"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True, **pipes)  # type: ignore[call-overload]
    process.stdin.write("the film\n" * inputs.CHUNK * 2 + "more")
    process.stdin.flush()
    wait_until(lambda: any(path.stat().st_size > 0 for path in tmp_path.iterdir()))
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130 and error.endswith(f"interrupted; nothing was written to {out}; {AGAIN}\n")
    assert not list(tmp_path.iterdir())


def test_a_stream_is_answered_when_it_pauses(model: tuple[Predictor, Path]) -> None:
    """Each line that is typed; an interruption says how far the answers have come."""
    command = [sys.executable, "-m", "experiments.predict_text", f"--run_dir={model[1]}"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True, **pipes)  # type: ignore[call-overload]
    answers = ""
    for text in ("the film\n", "a bad scene\nthe bank\nmo"):
        process.stdin.write(text)
        process.stdin.flush()
        answers += "".join(process.stdout.readline() for _ in range(text.count("\n") + (not answers)))
    assert [row["id"] for row in rows_of(answers)] == ["1", "2", "3"]
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=60)
    assert process.returncode == 130 and not out
    said = "interrupted; at least [234] lines of answers were written, those of later texts were not"
    assert re.fullmatch(f"{said}; {AGAIN}", error.splitlines()[-1])  # a line may be read before it is counted


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("form", ["lines", "packed", "csv", "jsonl", "unknown"])
def test_a_bar_on_a_terminal(
    model: tuple[Predictor, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """It shows how far the file has been read, which is read once for it."""
    line = {"csv": "the film,{}\n", "jsonl": '{{"text": "{}"}}\n'}.get(form, "the film {}\n")
    lines = "".join(line.format(number * 7919 % 1_000_003) for number in range(70_000))
    path, content = tmp_path / "texts", (("text,x\n" if form == "csv" else "") + lines).encode()
    path.write_bytes(gzip.compress(content, 1) if form == "packed" else content)
    given = {"data_path": path, "dataset": form} if form in ("csv", "jsonl") else {"input": str(path)}
    given = {} if form == "unknown" else given
    screen, calls = _Terminal(), []
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(prediction, "read_inputs", lambda *args: calls.append(args) or read_inputs(*args))
    monkeypatch.setattr(prediction, "_answered", lambda *args: (AnswerLine(one.id, None) for one in args[2]))
    predict(PredictionConfig(out=tmp_path / "answers.csv", **given), model[1], ["the film\n"] * 70_000, print)
    shown = [int(at) for at in re.findall(rf"(\d+)/{'Unknown' if form == 'unknown' else path.stat().st_size}\b",
                                          re.sub(r"\x1b\[[\d;]*m", "", screen.getvalue()))]  # fmt: skip
    assert shown == sorted(shown) and shown[0] < shown[-1] / 2 and len(calls) == 1
    assert shown[-1] == (70_000 if form == "unknown" else path.stat().st_size)
    assert screen.getvalue().count("\n") == 1 and screen.getvalue().endswith("\n")


@pytest.mark.parametrize("first", ["id,label,class,confidence\n", "id,label,class,confidence,note\r\n"])
def test_answers_of_an_earlier_version_are_replaced(model: tuple[Predictor, Path], tmp_path: Path, first: str) -> None:
    out = tmp_path / "answers.csv"
    out.write_bytes(f"{first}1,0,up,0.500000\n".encode("utf-8-sig"))
    succeeds("predict_text", f"--run_dir={model[1]}", f"--out={out}", "the film")
    assert len(rows_of(out.read_text())) == 1 and out.read_text().startswith(HEADER)
    out.write_text(f"label,{first}")
    assert "is not a file of answers" in fails("predict_text", f"--run_dir={model[1]}", f"--out={out}", "the film")


def test_the_help_names_what_a_folder_may_hold() -> None:
    assert "published classifier (config.json, weights, tokeniser)" in str(predict_text.FLAGS["run_dir"].help)
    assert "or of a published classifier" in fails("predict_text", "the film")


def test_several_labels(tmp_path: Path) -> None:
    predictor = save(tmp_path, multi_label=True)
    probabilities = predictor.probabilities(predictor.encode([(text,) for text in TEXTS]))
    found = columns(succeeds("predict_text", f"--run_dir={tmp_path}", *TEXTS, "<br>"), "id", "label", "note")
    wanted = []
    for number, row in enumerate(probabilities, start=1):
        labels = sorted(np.flatnonzero(row >= predictor.thresholds), key=lambda label, row=row: -row[label])
        wanted += [(str(number), str(label), "") for label in labels]
        wanted += [] if labels else [(str(number), "", "no class reaches its threshold")]
    assert found == [*wanted, ("6", "", NO_WORDS)]
    assert len({row[0] for row in wanted}) == len(TEXTS) < len(wanted) and any(note for *_, note in wanted)
    assert predictor.classify(["<br>"]) == [[]]


def test_a_predictor_from_python(model: tuple[Predictor, Path]) -> None:
    predictor, folder = model
    loaded = Predictor.load(str(folder))
    assert Predictor.load(folder / "model").classes == predictor.classes
    texts = [*TEXTS, "<br>", "", *TEXTS[::-1]]
    answers = loaded.classify(texts, top=3)
    assert [len(row) for row in answers] == [3] * 5 + [0, 0] + [3] * 5
    wanted = predictor.probabilities(predictor.encode([(text,) for text in TEXTS]))
    for row, expected in zip(answers[:5], wanted, strict=True):
        np.testing.assert_allclose([answer.confidence for answer in row], np.sort(expected)[::-1], atol=1e-5)
        assert [answer.label for answer in row] == np.argsort(-expected).tolist()
        assert all(isinstance(answer, Answer) and answer.name == predictor.classes[answer.label] for answer in row)
    assert loaded.classify([]) == [] and loaded.classify([("the film", "bad")]) != loaded.classify(["the film bad"])
    with pytest.raises(TypeError, match="a list of texts"):
        loaded.classify("the film")


def test_one_text_is_not_filled_up(model: tuple[Predictor, Path]) -> None:
    from text_cls.batches import answer_batches

    def shapes(count: int) -> list[tuple[int, int]]:
        encoded = model[0].encode([(TEXTS[0],)] * count)
        batches = list(answer_batches(encoded, 64, 8))
        rows = np.concatenate([batch.row for batch in batches])
        assert rows[rows >= 0].tolist() == list(range(count)) and sum(batch.mask.sum() for batch in batches) == count
        return [batch.tokens.shape for batch in batches]

    assert shapes(1) == [(1, 8)] and shapes(2) == [(2, 8)] and shapes(5) == [(8, 8)]
    assert shapes(20) == [(16, 8), (4, 8)]


def test_the_likeliest_classes() -> None:
    found = best(np.array([[0.2, 0.5, 0.3], [0.4, 0.4, 0.2]], np.float32), "abc", 2)
    assert [[answer.name for answer in row] for row in found] == [["b", "c"], ["a", "b"]]


def test_a_dry_run_counts(model: tuple[Predictor, Path], tmp_path: Path) -> None:
    command = ["predict_text", f"--run_dir={model[1]}", "--dry_run", f"--out={tmp_path}/out.csv"]
    said = succeeds(*command, "the film", "<br>", " ")
    assert "3 texts, 3 tokens, 2 without an answer" in said and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_same_in_a_process_of_its_own(model: tuple[Predictor, Path]) -> None:
    args = [f"--run_dir={model[1]}", "-5 the film", "--top=3", "the bank", "-help", "-v"]
    done = run_process("predict_text", *args)
    assert done.stdout == run("predict_text", *args).stdout and len(rows_of(done.stdout)) == 12
