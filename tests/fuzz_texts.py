"""Damaged and hostile texts for the readers: ``python -m tests.fuzz_texts SEED COUNT``.

Makes COUNT inputs out of small files of every kind that is read (CSV in several dialects, JSON in several forms, packed
or not, class folders, vocabularies), reads each with options that are drawn too, and stops at the first that ends in
anything but a result or a UserError, or takes more than ten seconds. Memory is bounded for the process.
"""

import bz2
import gzip
import io
import json
import lzma
import random
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zstandard

from tests.fuzzing import main, mutated, results_of
from text_cls.config import DataConfig
from text_cls.data.splits import load
from text_cls.tokens.vocabulary import SPECIAL, Vocabulary
from text_cls.tokens.wordpiece import read_vocabulary

_ROWS = [{"id": i, "text": f"text {i}, of; a | file", "label": "ab"[i % 2], "meta": {"t": i}} for i in range(24)]


def _table(delimiter: str, quote: str = '""') -> bytes:
    lines = [delimiter.join(("id", "text", "label", "split"))]
    for row in _ROWS:
        text = f'"{row["text"]}, {quote}so{quote} it\nis"'
        lines.append(delimiter.join((str(row["id"]), text, str(row["label"]), ("train", "test", "dev")[row["id"] % 3])))
    return "\n".join(lines).encode()


def _json(value: Any, indent: int | None = None) -> bytes:
    return json.dumps(value, indent=indent).encode()


SEEDS: dict[str, list[bytes]] = {
    "csv": [_table(","), _table("\t"), _table(";"), _table("|", '\\"'), _table(",").decode().encode("utf-16")],
    "jsonl": [
        b"\n".join(_json(row) for row in _ROWS),
        b"\n".join(_json(row, 1) for row in _ROWS),
        _json(_ROWS),
        _json({"data": _ROWS, "version": 1}),
        _json({"columns": ["text", "label"], "data": [[row["text"], row["label"]] for row in _ROWS]}),
        _json({name: {str(i): row[name] for i, row in enumerate(_ROWS)} for name in ("text", "label")}, 1),
        _json({"train": _ROWS[:12], "test": _ROWS[12:]}),
        b"\n".join(_json(row | {"label": [row["label"], "c"]}) for row in _ROWS),
    ],
    "folder": [b"a text of a file, caf\xe9", "“another” one".encode(), "and a third".encode("utf-16")],
    "vocabulary": ["\n".join((*SPECIAL, "one", "two", "été")).encode()],
    "wordpiece": ["\n".join(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "one", "##s")).encode()],
}


def _zip(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("d", content)
    return file.getvalue()


PACKS: list[Callable[[bytes], bytes]] = [gzip.compress, bz2.compress, lzma.compress, zstandard.compress, _zip]


def _input(rng: random.Random, kind: str) -> bytes:
    content = rng.choice(SEEDS[kind])
    others = rng.choice(list(SEEDS.values()))
    if kind in ("csv", "jsonl") and rng.random() < 0.2:
        pack = rng.choice(PACKS)
        if rng.random() < 0.5:
            return mutated(rng, pack(content), others)
        return pack(mutated(rng, content, others))
    return mutated(rng, content, others)


def _options(rng: random.Random) -> dict[str, Any]:
    """Some of the flags of reading."""
    choices: dict[str, list[Any]] = {
        "skip_bad_rows": [True],
        "multi_label": [True],
        "quoting": ["double", "backslash", "none"],
        "delimiter": ["comma", "tab", "x"],
        "encoding": ["utf-8", "cp1252", "utf-16", "utf-7", "shift_jis"],
        "columns": [("id", "text", "label", "split"), ("text", "label")],
        "text_fields": [("text", "id"), ("meta.t",)],
        "split_field": ["", "label"],
        "merge_rare": [3],
        "drop_rare": [3],
        "drop_duplicates": [True],
        "train_rows": [5],
    }
    names = rng.sample(list(choices), rng.choice((0, 0, 0, 1, 1, 3)))
    options = {name: rng.choice(choices[name]) for name in names}
    if "merge_rare" in options:
        options.pop("drop_rare", None)
    return options | {"max_megabytes": 5, "skip_bad_rows": options.get("skip_bad_rows", rng.random() < 0.5)}


def _read(kind: str, folder: Path, content: bytes, options: dict[str, Any]) -> None:
    path = folder / "input"
    if kind == "folder":
        (folder / "f" / "a" / "9.txt").write_bytes(content)
        load(DataConfig("folder", folder / "f", **options))
        return
    path.write_bytes(content)
    if kind == "vocabulary":
        Vocabulary.load(path)
    elif kind == "wordpiece":
        read_vocabulary(path)
    else:
        load(DataConfig(kind, path, **options))


def fuzz(seed: int, count: int) -> Counter[str]:
    """Reads ``count`` inputs; how many were read and refused, by kind."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for label in "ab":
            (folder / "f" / label).mkdir(parents=True)
            for i in range(12):
                (folder / "f" / label / f"{i}.txt").write_text(f"text {label} {i}")

        def prepare(rng: random.Random) -> tuple[str, Callable[[], None]]:
            kind = rng.choice(["csv"] * 4 + ["jsonl"] * 4 + ["folder", "vocabulary", "wordpiece"])
            content, options = _input(rng, kind), _options(rng)
            return kind, lambda: _read(kind, folder, content, options)

        return results_of(seed, count, prepare)


if __name__ == "__main__":
    main(fuzz, gibibytes=4)
