"""What ``predict_text`` reads: all that training does, each input with an answer or a reason in its place."""

import json
import tracemalloc
from functools import partial
from pathlib import Path

import pytest

from tests.little_model import HEADER, NO_TEXT, TEXTS, columns, confidences, rows_of, save
from tests.refusals import refused
from tests.scripts import fails, run, succeeds
from text_cls.data.fields import wrong_number
from text_cls.inputs import InOrder, TextInput, in_chunks, read_inputs
from text_cls.prediction_config import PredictionConfig
from text_cls.predictor import NO_WORDS, Predictor


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Predictor, Path]:
    folder = tmp_path_factory.mktemp("run")
    return save(folder), folder


def _lines(folder: Path) -> list[str]:
    (folder / "texts.txt").write_text(f"{TEXTS[0]}\n\n{TEXTS[1]}\r\n   \n<br>\n{TEXTS[2]}")
    return [f"--input={folder}/texts.txt"]


def _csv(folder: Path) -> list[str]:
    rows = f"name;text;label\n1;{TEXTS[0]};\n2;;x\n3;{TEXTS[1]};x\n4;  ;\n5;<br>;\n6;{TEXTS[2]};x\n"
    (folder / "texts.csv").write_bytes(rows.encode("utf-16"))
    return ["--dataset=csv", f"--data_path={folder}/texts.csv", "--id_field=name"]


def _jsonl(folder: Path) -> list[str]:
    texts = [TEXTS[0], "", TEXTS[1], " ", "<br>", TEXTS[2]]
    rows = [{"ID": k, "a": {"b": text}, "label": None} for k, text in enumerate(texts, start=1)]
    (folder / "texts.json").write_text(json.dumps({"data": rows}))
    return ["--dataset=jsonl", f"--input={folder}/texts.json", "--text_fields=a.b"]


def _folder(folder: Path) -> list[str]:
    for name, text in zip("123456", [TEXTS[0], "", TEXTS[1], " \n", "<br>", TEXTS[2]], strict=True):
        (folder / "texts").mkdir(exist_ok=True)
        (folder / "texts" / f"{name}.txt").write_text(text)
    (folder / "texts" / ".hidden.txt").write_text("film")
    return ["--dataset=folder", f"--data_path={folder}/texts"]


@pytest.mark.parametrize(("write", "form"), [(_lines, "csv"), (_csv, "csv"), (_jsonl, "jsonl"), (_folder, "csv")])
def test_one_answer_for_each_input(model: tuple[Predictor, Path], tmp_path: Path, write, form: str) -> None:
    predictor, run_dir = model
    done = succeeds("predict_text", f"--run_dir={run_dir}", *write(tmp_path), f"--format={form}")
    if form == "jsonl":
        found = [json.loads(line) for line in done.splitlines()]
        assert all(list(row) == ["id", "label", "class", "confidence", "note"] for row in found)
        assert [type(row["confidence"]) for row in found] == [float, type(None), float, *[type(None)] * 2, float]
        rows = [{name: "" if value is None else str(value) for name, value in row.items()} for row in found]
        for row in rows:
            row["confidence"] = row["confidence"] and f"{float(row['confidence']):.6f}"
    else:
        assert done.startswith(HEADER)
        rows = rows_of(done)
    assert [row["id"].removesuffix(".txt") for row in rows] == list("123456")
    assert [row["note"] for row in rows] == ["", NO_TEXT, "", NO_TEXT, NO_WORDS, ""]
    wanted = confidences(predictor, [(text,) for text in TEXTS[:3]])
    assert [row["confidence"] for row in rows] == [wanted[0], "", wanted[1], "", "", wanted[2]]
    assert all((row["class"] == "") == (row["confidence"] == "") == (row["label"] == "") for row in rows)
    assert all(row["class"] == predictor.classes[int(row["label"])] for row in rows if row["label"])


def test_the_cases_of_users(model: tuple[Predictor, Path], shared: Path) -> None:
    base = ["predict_text", f"--run_dir={model[1]}", f"--input={shared}/cases/text"]

    def notes(name: str, *flags: str) -> list[tuple[str, ...]]:
        return columns(succeeds(*base[:2], f"{base[2]}/{name}", *flags), "id", "note")

    assert notes("blank_lines.txt") == [("1", ""), ("2", NO_TEXT), ("3", ""), ("4", NO_TEXT), ("5", "")]
    assert notes("emoji_line.txt") == [(str(line), "") for line in (1, 2, 3, 4)]  # emoji and marks are words
    assert "cp1252.txt:2: not UTF-8" in (error := fails(*base[:2], f"{base[2]}/cp1252.txt")) and "--encoding" in error
    assert notes("cp1252.txt", "--encoding=cp1252") == [("1", ""), ("2", "")]


def test_rows_that_cannot_be_read_keep_their_place(model: tuple[Predictor, Path], tmp_path: Path) -> None:
    table = tmp_path / "texts.csv"
    table.write_text('id,text\na,the film\nb,one,too many\n,\nc,"open,the scene\nd,the bank\n')
    command = ["predict_text", f"--run_dir={model[1]}", "--dataset=csv", f"--data_path={table}"]
    assert "texts.csv:3: row has 3 columns, not 2" in (error := fails(*command)) and "--skip_bad_rows" in error
    found = columns(succeeds(*command, "--skip_bad_rows"), "id", "class", "note")
    assert [row[0] for row in found] == ["a", "b", "", "c", "d"]
    assert [bool(row[1]) for row in found] == [True, False, False, False, True]
    for row, note in zip(
        found, ["", ":3: row has 3", ":4: the row is empty", ":5: the quotation mark", ""], strict=True
    ):
        assert note in row[2] and "--skip_bad_rows" not in row[2]

    lines = tmp_path / "texts.jsonl"
    lines.write_text('{"text": "film"}\n{"text": nul\n{"text": 7}\n[1]\n{"text": "bad \\ud83d scene"}\n{"no": 1}\n')
    command = ["predict_text", f"--run_dir={model[1]}", "--dataset=jsonl", f"--data_path={lines}"]
    assert "texts.jsonl:2: malformed JSON" in fails(*command)
    done = run(*command, "--skip_bad_rows")
    assert [bool(label) for (label,) in columns(done.stdout, "label")] == [True, False, False, False, True, False]
    assert "note: 1 rows with half a character" in done.stderr

    folder = tmp_path / "folder"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "x.txt").write_bytes(b"%PDF-1.4")
    (folder / "b.txt").write_bytes("scene à".encode("cp1252"))
    command = ["predict_text", f"--run_dir={model[1]}", "--dataset=folder", f"--data_path={folder}"]
    assert "x.txt: a PDF document" in fails(*command)
    done = run(*command, "--skip_bad_rows")
    assert [row[0] for row in columns(done.stdout, "id", "note")] == ["b.txt", "a/x.txt"]
    assert "a PDF document" in rows_of(done.stdout)[1]["note"] and "read as Windows-1252" in done.stderr


def test_flags_of_files_are_those_of_training(model: tuple[Predictor, Path], tmp_path: Path) -> None:
    predictor, run_dir = model
    (tmp_path / "a.txt").write_bytes("x|one 'café|bank\ny|two|film\nx|three|the team\n".encode("latin-1"))
    flags = ["--dataset=csv", f"--data_path={tmp_path}/a.txt", "--columns=kind,name,text", "--delimiter=pipe",
             "--quoting=none", "--encoding=latin-1", "--keep_rows=kind=x", "--text_fields=name,text",
             "--id_field=name"]  # fmt: skip
    found = columns(succeeds("predict_text", f"--run_dir={run_dir}", *flags), "id", "confidence")
    wanted = confidences(predictor, [("one 'café", "bank"), ("three", "the team")])
    assert found == [("one 'café", wanted[0]), ("three", wanted[1])]
    lines = "one | two\nthe film\n"
    done = run("predict_text", f"--run_dir={run_dir}", "--separator=|", "--top=2", stdin=lines)
    assert [row for (row,) in columns(done.stdout, "id")] == ["1", "1", "2", "2"]
    assert columns(done.stdout, "confidence")[::2] == [
        (value,) for value in confidences(predictor, [("one ", " two"), ("the film",)])
    ]


MISTAKES = [
    (["--dataset=csv"], "--dataset=csv needs --data_path"),
    (["--dataset=folder", "--data_path=/none"], "/none: no such folder"),
    (["--delimiter=tab"], "--delimiter is not used by --dataset=lines"),
    (["--text_fields=a,b"], "--text_fields is not used by --dataset=lines"),
    (["--dataset=folder", "--columns=a"], "--columns is not used by --dataset=folder"),
    (["--dataset=jsonl", "--data_path=x", "--quoting=none"], "--quoting is not used by --dataset=jsonl"),
    (["--dataset=jsonl", "--data_path=x", "--separator=|"], "--separator='|' is not used by --dataset=jsonl"),
    (["--data_path=x.csv"], "--data_path=x.csv is not used by --dataset=lines: set --dataset=csv, jsonl or folder"),
    (["--input=a", "--data_path=b"], "--input=a and --data_path=b: use one of them"),
    (["--input=a", "text"], "'text' is a text, and --input or --data_path names others"),
    (["--input=-", "text"], "'text' is a text, and --input or --data_path names others"),
    (["--encoding=utf-7-bit"], "--encoding=utf-7-bit is not known"),
    (["--keep_rows=x"], "--keep_rows='x': write COLUMN=VALUE"),
    (["--delimiter=ab"], "--delimiter='ab'"),
    (["--format=xml"], "--format=xml"),
    (["--dataset=ag_news"], "ag_news"),
]


@pytest.mark.parametrize(("flags", "message"), MISTAKES)
def test_mistakes(model: tuple[Predictor, Path], flags: list[str], message: str) -> None:
    error = fails("predict_text", f"--run_dir={model[1]}", *flags)
    assert message in error and error.count("\n") == 1


def test_nothing_to_classify(model: tuple[Predictor, Path], tmp_path: Path) -> None:
    assert "no text given" in run("predict_text", f"--run_dir={model[1]}", stdin="").stderr
    (tmp_path / "x.csv").write_text("text,id\n")
    flags = ["--dataset=csv", f"--data_path={tmp_path}/x.csv", f"--out={tmp_path}/out.csv"]
    assert "x.csv: no texts in it" in fails("predict_text", f"--run_dir={model[1]}", *flags)
    assert [path.name for path in tmp_path.iterdir()] == ["x.csv"]


@pytest.mark.parametrize("form", ["lines", *(pytest.param(form, marks=pytest.mark.slow) for form in ("csv", "jsonl"))])
def test_a_large_file_is_never_in_memory(tmp_path: Path, form: str) -> None:
    text, count = "the film and the scene " * 20, 40_000  # 18 MB
    line = {"lines": text, "csv": text, "jsonl": json.dumps({"text": text})}[form]
    path = tmp_path / "texts"
    path.write_text(("text\n" if form == "csv" else "") + f"{line}\n" * count)
    config = PredictionConfig(dataset=form, **({"input": str(path)} if form == "lines" else {"data_path": path}))
    tracemalloc.start()
    sizes = [len(chunk) for chunk in in_chunks(read_inputs(config, (), InOrder(False)), 1000)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sizes == [1000] * (count // 1000) and peak < 5 * 2**20 < path.stat().st_size


def test_long_texts_make_smaller_chunks() -> None:
    chunks = list(in_chunks(TextInput(str(k), ("x" * 2**22,)) for k in range(9)))
    assert [len(chunk) for chunk in chunks] == [4, 4, 1]


def test_pairs_need_two_fields(tmp_path: Path) -> None:
    config, two = (
        PredictionConfig(separator="|", skip_bad_rows=True),
        partial(wrong_number, names=(), join_fields="pair"),
    )
    found = list(read_inputs(config, ["a|b", "a", "", "a|b|c"], InOrder(True), two))
    assert [(one.id, bool(one.note)) for one in found] == [("1", False), ("2", True), ("3", True), ("4", True)]
    assert "takes two fields" in found[1].note and found[2].note == NO_TEXT
    error = refused(lambda: list(read_inputs(config, ["a|b", "c"], InOrder(False), two)))
    assert "text 2: the model takes two fields, and 'c' has 1; see --separator" in error


def test_standard_input_in_another_encoding(model: tuple[Predictor, Path]) -> None:
    for flags, code in ((["--encoding=cp1252"], 0), ([], 1)):
        done = run("predict_text", f"--run_dir={model[1]}", *flags, stdin=b"film\ncaf\xe9 scene\n")
        assert done.returncode == code and (code == 0 or "standard input:2: not UTF-8" in done.stderr), done.stderr
        assert not code or (not done.stdout and "--encoding" in done.stderr)
