"""Files of questions: their answers in batches, in order, and going on where an earlier command stopped."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from files.errors import UserError
from tests.little_llama import write_checkpoint, write_pairs
from tests.scripts import fails, run, succeeds
from training.backends import Placement
from vision_bridge.llama import captioning
from vision_bridge.llama.examples import open_picture, read_pairs
from vision_bridge.llama.predictor import Predictor
from vision_bridge.llama.questions import answered, read_questions
from vision_bridge.llama.task import finetune
from vision_bridge.llama.task_config import FinetuneLlamaConfig

pytest.importorskip("tiktoken")

ROWS: list[dict[str, Any]] = [
    {"id": 7, "image": "0.png", "prompt": "Which colour?"},
    {"prompt": "Say red, and then say something much longer than before."},
    {"images": ["3.png", "0.png"], "prompt": "Which colour is first? Think\u2028twice."},
    {"image": "1.png", "prompt": "Colour?", "answer": "blue"},
    {"images": [], "prompt": "Say é."},
    {"image": "0.png", "prompt": "What is it?"},
    {"prompt": "Say blue."},
]
MOST = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run of each variant, and questions."""
    folder = tmp_path_factory.mktemp("questions")
    write_checkpoint(folder / "base")
    pairs = write_pairs(folder)
    for variant in ("makers", "transformers"):
        config = FinetuneLlamaConfig.of(
            dataset="pairs", data_path=pairs, checkpoint=folder / "base", lora_rank=2, batch_size=4, num_steps=6,
            learning_rate=0.05, devices="cpu", shards=1, cache_dir=folder / "cache", variant=variant,
        )  # fmt: skip
        finetune(config, folder / variant)
    _write(folder / "questions.jsonl", ROWS)
    return folder


def _write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def _flags(folder: Path, *more: str, variant: str = "makers") -> list[str]:
    standard = f"--run_dir={folder / variant}", f"--data_path={folder / 'questions.jsonl'}", f"--max_tokens={MOST}"
    return [*standard, *more]


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["makers", "transformers"])
def test_answers_of_a_batch_are_those_of_each_question_alone(
    folder: Path, variant: str, one_replica: Placement, tmp_path: Path
) -> None:
    out = tmp_path / "deep" / "answers.jsonl"
    done = run("caption", *_flags(folder, f"--out={out}", "--batch_size=4", variant=variant))
    assert done.returncode == 0 and done.stdout == "", done.stderr
    assert done.stderr.splitlines()[-1].startswith("7 of 7 answered, ") and done.stderr.endswith(", 0 s left\n")
    predictor, lines = Predictor.of_run(folder / variant, one_replica), out.read_text().rstrip("\n").split("\n")
    answers = [json.loads(line)["answer"] for line in lines]
    assert len(set(answers)) > 2 and all(answers)
    for row, line, answer in zip(ROWS, lines, answers, strict=True):
        pictures = [open_picture(str(folder / name)) for name in row.get("images", [row.get("image")]) if name]
        assert answer == "".join(piece for (piece,) in predictor.answers([(pictures, row["prompt"])], MOST))
        kept = {"expected" if name == "answer" else name: value for name, value in row.items()}
        assert list(json.loads(line).items()) == [*kept.items(), ("answer", answer)]
    assert succeeds("caption", *_flags(folder, "--batch_size=3", variant=variant)) == out.read_text()


@pytest.mark.slow
def test_drawn_answers_depend_on_the_question_and_not_on_the_batch(folder: Path) -> None:
    drawn = [
        succeeds("caption", *_flags(folder, "--temperature=3.0", f"--batch_size={size}", f"--seed={seed}"))
        for size, seed in ((1, 0), (5, 0), (5, 1))
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_an_interrupted_command_goes_on(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, flags = tmp_path / "answers.jsonl", _flags(folder, "--batch_size=2")
    whole, right, calls = succeeds("caption", *flags), captioning.append_answers, []

    def append(path: Path, lines: list[str]) -> None:
        calls.append(len(lines))
        right(path, lines)
        if len(calls) == 2:
            with path.open("ab") as file:
                file.write(whole.encode().split(b"\n")[4][:-3])  # what a killed process leaves
            raise KeyboardInterrupt

    monkeypatch.setattr(captioning, "append_answers", append)
    done = run("caption", *flags, f"--out={out}")
    assert done.returncode == 130 and "run the same command again to go on" in done.stderr
    dry = succeeds("caption", *flags, f"--out={out}", "--dry_run")
    assert f"{out}: 4 are answered there, 3 would be" in dry
    before = out.read_text()
    done = run("caption", *flags, f"--out={out}")
    assert done.returncode == 0 and out.read_text() == whole != before
    assert done.stderr.splitlines()[0] == f"{out}: 4 of 7 are answered there already, and stay" and calls == [
        2,
        2,
        2,
        1,
    ]
    done = run("caption", *flags, f"--out={out}")
    assert done.returncode == 0 and out.read_text() == whole and len(calls) == 4


@pytest.mark.slow
def test_answers_of_another_run_or_other_choices_are_not_added_to(folder: Path, tmp_path: Path) -> None:
    out, kept = tmp_path / "answers.jsonl", f"--out={tmp_path / 'answers.jsonl'}"
    lines = succeeds("caption", *_flags(folder)).splitlines(keepends=True)
    succeeds("caption", *_flags(folder, kept, "--seed=5"))
    out.write_text("".join(lines[:3]))
    for flags, told in (
        (_flags(folder, kept, variant="transformers"), "model "),
        (_flags(folder, kept, "--temperature=1.0"), "temperature 0.0, not 1.0, top_p 'unknown', not 0.9"),
        ([*_flags(folder, kept), "--max_tokens=3"], f"max_tokens {MOST}, not 3"),
    ):
        for more in ((), ("--dry_run",)):
            assert f"its answers were made with other settings ({told}" in fails("caption", *flags, *more)
    assert out.read_text() == "".join(lines[:3])
    succeeds("caption", *_flags(folder, kept, "--seed=6", "--batch_size=1"))  # nothing is drawn
    assert out.read_text() == "".join(lines)
    (tmp_path / "answers.jsonl.origin.json").unlink()
    assert "(model 'unknown', not " in fails("caption", *_flags(folder, kept))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("notes of mine", 1),
        ('{"prompt": "another", "answer": "a"}\n', 1),
        ('{"id": 7, "image": "0.png", "prompt": "Which colour?", "answer": 3}\n', 1),
        ('{"id": 7, "image": "0.png", "prompt": "Which colour?", "answer": "a"}\n\n', 2),
        ('{"id": 7, "image": "0.png", "prompt": "Which colour?", "answer": "a"}\n{"id": 8', 2),
    ],
)
def test_a_file_of_other_lines_is_left_alone(folder: Path, text: str, number: int, tmp_path: Path) -> None:
    out = tmp_path / "answers.jsonl"
    out.write_text(text)
    for more in ((), ("--dry_run",)):
        message = fails("caption", *_flags(folder, f"--out={out}", *more))
        assert f"{out}: line {number} is not the answer to question {number} of 7; name a new file" in message
    assert out.read_text() == text
    assert answered(tmp_path / "none.jsonl", read_questions(folder / "questions.jsonl")) == 0


def test_a_dry_run_checks_all_and_writes_nothing(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "answers.jsonl"
    said = succeeds("caption", *_flags(folder, f"--out={out}", "--dry_run"))
    assert said.startswith("questions: 7 about 3 pictures, of at most ") and said.endswith("; nothing was written\n")
    assert f"{out}: 0 are answered there, 7 would be\n" in said and not list(tmp_path.iterdir())
    said = succeeds("caption", f"--run_dir={folder / 'makers'}", "--dry_run", str(folder / "0.png"), "Which colour?",
                    f"--merge={tmp_path / 'merged'}", "--max_tokens=9")  # fmt: skip
    assert said.startswith("questions: 1 about 1 pictures") and not list(tmp_path.iterdir())
    (folder / "damaged.png").write_bytes((folder / "0.png").read_bytes()[:40])
    path = _write(folder / "damaged.jsonl", [{"image": "damaged.png", "prompt": "What?"}])
    message = fails("caption", f"--run_dir={folder / 'makers'}", f"--data_path={path}", "--dry_run")
    assert "damaged.png: cannot be read as a picture" in message


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "a", "answer": ""}, "line 2: answer is ''; a text that is not empty is needed"),
        ({"prompt": "a", "answer": "b", "expected": "c"}, "line 2: it has answer and expected"),
        ({"image": "0.png"}, "line 2: prompt is None"),
        ({"prompt": "a", "note": "\ud800"}, "line 2: half of a surrogate pair is no character"),
    ],
)
def test_malformed_questions_are_named(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text('{"prompt": "a"}\n' + json.dumps(row) + "\n")
    with pytest.raises(UserError, match=message):
        read_questions(path)


def test_what_cannot_be_asked_is_said_before(folder: Path, tmp_path: Path) -> None:
    at = f"--run_dir={folder / 'makers'}"
    path = _write(tmp_path / "q.jsonl", [{"prompt": "a"}, {"image": "gone.png", "prompt": "a"}])
    assert "line 2: the picture" in fails("caption", at, f"--data_path={path}")
    assert "both have questions; use one of them" in fails("caption", at, f"--data_path={path}", "What?")
    assert "needs --data_path=questions.jsonl" in fails("caption", at, f"--out={path}", "What?")
    _write(path, [{"prompt": "a"}, {"prompt": "a " * 70}])
    message = fails("caption", at, f"--data_path={path}", "--max_tokens=50")
    assert "line 2: " in message and "do not fit into the 128 positions of the model" in message
    _write(path, [{"prompt": "a"}, {"prompt": "a " * 130}])
    assert "and one more for the answer do not fit into the 128 positions" in fails(
        "caption", at, f"--data_path={path}"
    )


def test_an_answer_ends_where_the_model_has_no_more_places(folder: Path) -> None:
    ask = ("caption", f"--run_dir={folder / 'makers'}", "a")
    tokens = re.search(r"the question: (\d+) tokens and --max_tokens=128 more", fails(*ask, "--max_tokens=128"))
    assert tokens and succeeds(*ask) == succeeds(*ask, f"--max_tokens={128 - int(tokens[1])}")


def test_an_unusual_end_of_line_in_a_text_ends_no_row(tmp_path: Path) -> None:
    path = _write(tmp_path / "pairs.jsonl", [{"prompt": "a\u2028b\x85c", "answer": "d"}])
    assert read_pairs(path)[0].prompt == "a\u2028b\x85c"
