"""The answers of ``predict_text``, few in memory at a time, whole or not at all, and of ``Predictor.classify``."""

import io
import json
import os
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
from text_cls import inputs
from text_cls.answers import Answer, best
from text_cls.prediction import predict
from text_cls.prediction_config import PredictionConfig
from text_cls.predictor import NO_WORDS, Predictor


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Predictor, Path]:
    folder = tmp_path_factory.mktemp("run")
    return save(folder), folder


def _parsed(*args: str) -> list[str]:
    predict_text.FLAGS.unparse_flags()
    return launch.parse(["predict_text", *args], predict_text.FLAGS, predict_text.FLAGS)[1:]


@pytest.mark.parametrize(
    "text",
    ["-5 degrees", "-", "-x=3", "- a quote", "--5 below", "--- ", "-- said he", "--so it goes", "—", "-1", "--it's"],
)
def test_a_text_may_begin_with_a_dash(text: str) -> None:
    assert _parsed(text) == [text]
    assert _parsed("a", "--top=2", text, "--separator", "-", "b") == ["a", text, "b"]
    assert (predict_text.FLAGS.top, predict_text.FLAGS.separator) == (2, "-")
    assert _parsed(text, "--", "--top=3", text) == [text, "--top=3", text]


@pytest.mark.parametrize("flag", ["--topp=3", "--topp", "--no", "--inputs=a\nb", "--text-fields=a"])
def test_an_unknown_flag_is_no_text(flag: str) -> None:
    for place in range(3):
        args = ["a", "-b"]
        args.insert(place, flag)
        with pytest.raises(SystemExit) as end:
            _parsed(*args)
        assert "Unknown command line flag" in str(end.value) and "behind --" in str(end.value)
    assert _parsed("--", flag) == [flag]


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
    said = succeeds(*base, "the film", "!?")
    assert said == f"{out}: 2 texts, 1 without an answer: see their notes\n"
    first = out.read_bytes()
    assert first.decode() == succeeds(*base[:2], "the film", "!?")
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
    assert "mine.jsonl is there, and holds no answers" in error and '"text"' in mine.read_text()
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
    assert process.returncode == 130 and "Traceback" not in error, error
    assert not list(tmp_path.iterdir())


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("total", ["known", "unknown"])
def test_a_bar_on_a_terminal(
    model: tuple[Predictor, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, total: str
) -> None:
    (tmp_path / "texts.txt").write_text("the film\n" * 7)
    given = {"data_path": tmp_path / "texts.txt"} if total == "known" else {}
    config = PredictionConfig(out=tmp_path / "answers.csv", **given)
    screen, out = _Terminal(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(sys, "stdout", out)
    predict(config, model[1], ["the film\n"] * 7, out.write)
    assert ("7/7" if total == "known" else "7/Unknown") in screen.getvalue() and not out.getvalue()
    assert len(rows_of((tmp_path / "answers.csv").read_text())) == 7


def test_several_labels(tmp_path: Path) -> None:
    predictor = save(tmp_path, multi_label=True)
    probabilities = predictor.probabilities(predictor.encode([(text,) for text in TEXTS]))
    found = columns(succeeds("predict_text", f"--run_dir={tmp_path}", *TEXTS, "?"), "id", "label", "note")
    wanted = []
    for number, row in enumerate(probabilities, start=1):
        labels = sorted(np.flatnonzero(row >= predictor.thresholds), key=lambda label, row=row: -row[label])
        wanted += [(str(number), str(label), "") for label in labels]
        wanted += [] if labels else [(str(number), "", "no class reaches its threshold")]
    assert found == [*wanted, ("6", "", NO_WORDS)]
    assert len({row[0] for row in wanted}) == len(TEXTS) < len(wanted) and any(note for *_, note in wanted)
    assert predictor.classify(["?"]) == [[]]


def test_a_predictor_from_python(model: tuple[Predictor, Path]) -> None:
    predictor, folder = model
    loaded = Predictor.load(str(folder))
    assert Predictor.load(folder / "model").classes == predictor.classes
    texts = [*TEXTS, "!!!", "", *TEXTS[::-1]]
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
    said = succeeds(*command, "the film", "!!!", " ")
    assert "3 texts, 3 tokens, 2 without an answer" in said and not list(tmp_path.iterdir())


def test_the_same_in_a_process_of_its_own(model: tuple[Predictor, Path]) -> None:
    args = [f"--run_dir={model[1]}", "-5 the film", "--top=3", "the bank"]
    done = run_process("predict_text", *args)
    assert done.stdout == run("predict_text", *args).stdout and done.stdout.count("\n") == 7
