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
import resource
import signal
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zstandard

from files.errors import UserError
from text_cls.config import DataConfig
from text_cls.data import load
from text_cls.vocabulary import SPECIAL, Vocabulary
from text_cls.wordpiece import read_vocabulary

MEMORY = 4 * 2**30
SECONDS = 10
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
_PIECES = [
    *(b'"', b'""', b'\\"', b"\\", b",", b"\t", b";", b"|", b"'", b":", b" ", b"[", b"]", b"{", b"}"),
    *(b"\n", b"\r\n", b"\r", b"\x00", b"\x80", b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\xed\xa0\x80"),
    *(b"\\ud800", b"\\udc00", b"9" * 5000, b"NaN", b"1e999", b"null", b"true", b"[" * 2000, b'{"a":' * 999),
    *(b"PK\x03\x04", b"\x1f\x8b", b"BZh91AY&SY", b"(\xb5/\xfd", "\u2028".encode(), "\u0085".encode()),
    *(b"<PAD>", b'"text"', b'"label"', b"split"),
]


def _zip(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("d", content)
    return file.getvalue()


PACKS: list[Callable[[bytes], bytes]] = [gzip.compress, bz2.compress, lzma.compress, zstandard.compress, _zip]


def _mutated(rng: random.Random, content: bytes, others: list[bytes]) -> bytes:
    """The content after one to eight changes."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 8))):
        at = rng.randint(0, len(data))
        until = min(len(data), at + rng.choice((1, 3, 20, 200)))
        change = rng.randrange(6)
        if change == 0 and data:
            data[at % len(data)] = rng.randrange(256)
        elif change == 1:
            data[at:at] = rng.choice(_PIECES)
        elif change == 2:
            del data[at:until]
        elif change == 3:
            data[at:at] = data[at:until] * rng.choice((1, 2, 50))
        elif change == 4:
            other = rng.choice(others)
            start = rng.randrange(len(other))
            data[at:until] = other[start : start + rng.choice((5, 50, 500))]
        elif rng.random() < 0.1:
            del data[at:]
    return bytes(data)


def _input(rng: random.Random, kind: str) -> bytes:
    content = rng.choice(SEEDS[kind])
    others = rng.choice(list(SEEDS.values()))
    if kind in ("csv", "jsonl") and rng.random() < 0.2:
        pack = rng.choice(PACKS)
        if rng.random() < 0.5:
            return _mutated(rng, pack(content), others)
        return pack(_mutated(rng, content, others))
    return _mutated(rng, content, others)


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
    """Reads ``count`` inputs; how many were read and refused, by kind.

    Raises:
        AssertionError: an input ended in anything else; the message says which.
    """
    results: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for label in "ab":
            (folder / "f" / label).mkdir(parents=True)
            for i in range(12):
                (folder / "f" / label / f"{i}.txt").write_text(f"text {label} {i}")
        for number in range(count):
            rng = random.Random(f"{seed} {number}")
            kind = rng.choice(["csv"] * 4 + ["jsonl"] * 4 + ["folder", "vocabulary", "wordpiece"])
            content, options = _input(rng, kind), _options(rng)
            signal.alarm(SECONDS)
            try:
                _read(kind, folder, content, options)
                results[f"{kind} read"] += 1
            except UserError as error:
                assert len(str(error)) < 2000, f"input {seed} {number}: more than a line: {str(error)[:3000]}"
                results[f"{kind} refused"] += 1
            except BaseException as error:
                raise AssertionError(f"input {seed} {number} of {kind} with {options}: {content[:300]!r}") from error
            finally:
                signal.alarm(0)
    return results


def _too_slow(*ignored: object) -> None:
    raise TimeoutError(f"more than {SECONDS} seconds")


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGALRM, _too_slow)
    print(dict(sorted(fuzz(*map(int, sys.argv[1:])).items())))
