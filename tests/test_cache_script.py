"""``python -m experiments.cache``: what is shown of a cache, what is deleted, and what never is."""

import ast
import os
import time
from pathlib import Path

import numpy as np
import pytest

from experiments.cache import KINDS, CacheConfig, manage
from files.arrays import growing_array
from files.cached import delete, entries, shown_size
from files.errors import UserError
from files.locks import alone, lock_of
from tests.little_runs import everything, table
from tests.scripts import ROOT, fails, succeeds
from vision_bridge.cache import Cache

KEY = "0123456789abcdef01234567"
DAY = 86_400


def put(path: Path, size: int = 10, days: float = 0.0) -> Path:
    """A file that was last used some days ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    os.utime(path, (time.time() - days * DAY,) * 2)
    return path


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Three computed entries, one of them used today, and files that are none."""
    put(tmp_path / "bridge" / f"maps-{KEY}.npy", 3000, 40)
    put(tmp_path / "bridge" / f"maps-{KEY}.json", 20, 40)
    put(tmp_path / "bridge" / f".maps-{KEY}.npy.lock", 0, 40)
    put(tmp_path / "bridge" / f"features-{KEY}.npy", 100, 1)
    put(tmp_path / "xla" / f"jit_add-{(KEY * 3)[:64]}-cache", 70, 50)
    put(tmp_path / "bridge" / "thesis.npy", 10, 99)
    put(tmp_path / "features" / f"{KEY}.jpg", 10, 99)
    put(tmp_path / "features" / f"my-notes-{KEY}.txt", 10, 99)
    put(tmp_path / "features" / "mine" / f"features-{KEY}.npy", 10, 99)
    put(tmp_path / "downloads" / f"weights-{KEY}.pth", 5000, 99)
    put(tmp_path / f"maps-{KEY}.npy", 10, 99)
    return tmp_path


def said(config: CacheConfig) -> list[str]:
    lines: list[str] = []
    manage(config, lines.append)
    return "\n".join(lines).splitlines()


def of(path: Path, **choices: object) -> list[str]:
    return said(CacheConfig(cache_dir=path, **choices))  # type: ignore[arg-type]


def names(cache: Path) -> set[str]:
    return {str(path.relative_to(cache)) for path in cache.rglob("*") if path.is_file()}


def test_the_table_counts_entries_and_touches_nothing(cache: Path) -> None:
    before = everything(cache)
    first, *rows, would, free = of(cache)
    assert everything(cache) == before
    assert first == f"{cache}: 8.2 kB" and free.startswith("free on the disk: ")
    for title in ("unused 30 days", "last used", "what it is"):
        rows[0] = rows[0].replace(title, title.replace(" ", "_"))
    found = table("\n".join(rows))
    sizes = {kind: (row["entries"], row["size"], row["unused_30_days"]) for kind, row in found.items()}
    assert sizes == {
        "bridge": ("2", "3.1 kB", "3.0 kB"), "features": ("0", "0 B", "0 B"), "llama": ("0", "0 B", "0 B"),
        "tokenised": ("0", "0 B", "0 B"), "xla": ("1", "70 B", "70 B"), "others": ("", "5.0 kB", ""),
    }  # fmt: skip
    assert would == f"--delete would delete 2 entries, 3.1 kB of {', '.join(KINDS)}"


def test_only_old_entries_of_the_kinds_are_deleted(cache: Path) -> None:
    before = names(cache)
    assert of(cache, delete=True, kinds=("xla",))[0] == "deleted 1 entries, 70 B"
    assert before - names(cache) == {f"xla/jit_add-{(KEY * 3)[:64]}-cache"}
    assert of(cache, delete=True)[0] == "deleted 1 entries, 3.0 kB"
    assert of(cache, delete=True, unused_days=0.5)[0] == "deleted 1 entries, 100 B"
    assert of(cache, delete=True, unused_days=0.0)[0] == "deleted 0 entries, 0 B"
    assert names(cache) == {  # the lock stays: another process may wait for it
        "bridge/thesis.npy", f"features/{KEY}.jpg", f"features/my-notes-{KEY}.txt",
        f"bridge/.maps-{KEY}.npy.lock", f"features/mine/features-{KEY}.npy",
        f"downloads/weights-{KEY}.pth", f"maps-{KEY}.npy",
    }  # fmt: skip


def test_an_entry_is_as_old_as_its_last_use(cache: Path) -> None:
    array = cache / "bridge" / f"maps-{KEY}.npy"
    os.utime(array, (time.time(), array.stat().st_mtime))  # read today, written long ago
    assert of(cache, delete=True, kinds=("bridge",))[0] == "deleted 0 entries, 0 B"


def test_what_a_process_writes_stays_and_what_it_reads_can_be_read(cache: Path) -> None:
    path = cache / "bridge" / f"maps-{KEY}.npy"
    with alone(path):
        lines = of(cache, delete=True, kinds=("bridge",), unused_days=0.0)
    assert lines[0] == "deleted 1 entries, 100 B; 1 entries, 3.0 kB stay: a process is writing them"
    assert path.exists()
    np.save(path, np.arange(5.0))
    array = np.load(path, mmap_mode="r")
    (entry,) = entries(cache / "bridge", KINDS["bridge"].names)
    assert delete(entry) and not path.exists() and array.tolist() == [0, 1, 2, 3, 4]
    assert lock_of(path).exists()


def test_a_link_is_deleted_and_what_it_points_to_is_not(cache: Path) -> None:
    target = put(cache / "mine.npy", 10, 99)
    (cache / "tokenised").mkdir()
    (cache / "tokenised" / f"{KEY}.npz").symlink_to(target)
    os.utime(cache / "tokenised" / f"{KEY}.npz", (0, 0), follow_symlinks=False)
    assert of(cache, delete=True, kinds=("tokenised",))[0].startswith("deleted 1 entries")
    assert target.exists() and not list((cache / "tokenised").iterdir())


def test_a_deleted_stage_is_computed_again(tmp_path: Path) -> None:
    def stage() -> list[float]:
        files, calls = Cache(tmp_path / "bridge"), []
        made = files.stage("maps", {"x": 1}, {"train": np.zeros(3)}, (2,), "float32", lambda split, file: (
            calls.append(split), file.fill(np.ones((1, 3, 2), np.float32)),
        ))  # fmt: skip
        return [float(made.arrays["train"].sum()), len(calls)]

    assert (stage(), stage()) == ([6.0, 1], [6.0, 0])
    assert of(tmp_path, delete=True, unused_days=0.0)[0].startswith("deleted 1 entries")
    assert stage() == [6.0, 1]


def test_every_folder_that_the_code_caches_arrays_in_is_known() -> None:
    """``cache / "NAME"`` in the source, but for what is downloaded or taken from a download."""
    found = set()
    packages = ("text_cls", "diffusion", "vision_bridge", "training", "experiments")
    for path in (path for package in packages for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.BinOp)
                and isinstance(node.right, ast.Constant)
                and "cache" in ast.unparse(node.left)
            ):
                found.add(node.right.value)
    assert found - {"downloads", "backbones", "minilm"} == set(KINDS)


def test_every_file_that_is_written_has_a_name_of_its_kind(tmp_path: Path) -> None:
    """Of a path in the cache as the code makes it: ``f"states-{key}.npy"``, ``Cache.path(name, key)``."""
    made = {
        "bridge": [Cache(tmp_path).path(name, KEY, end).name for name, end in
                   (("features", ".npy"), ("layout", ".safetensors"), ("images", ".npy"), ("maps", ".json"),
                    ("map_statistics", ".safetensors"))],
        "features": [f"features-{KEY}.npy", f"features-{KEY}.json"],
        "llama": [f"states-{KEY}.npy", f"aspect-ratios-{KEY}.npy"],
        "tokenised": [f"{KEY}.npz"],
        "xla": [f"jit__lambda-{(KEY * 3)[:64]}-cache", f"jit_add-{(KEY * 3)[:64]}-atime"],
    }  # fmt: skip
    assert made.keys() == KINDS.keys()
    for kind, files in made.items():
        assert all(KINDS[kind].names.fullmatch(name) for name in files)
        assert not KINDS[kind].names.fullmatch(f"{KEY}.jpg") and not KINDS[kind].names.fullmatch(f"x-{KEY}.txt")


def test_a_kind_may_be_a_link_to_a_larger_disk_and_be_named_twice(
    cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("disk")
    put(elsewhere / f"{KEY}.npz", 2000, 60)
    (cache / "tokenised").symlink_to(elsewhere)
    first, *rows, would, _ = of(cache, kinds=("tokenised", "tokenised"))
    assert float(first.split()[-2]) == pytest.approx(10.3, abs=0.11)  # with the link, and what it points to
    assert rows[-1].split()[0] == "others" and float(rows[-1].split()[1]) == pytest.approx(5.1, abs=0.11)
    assert would == "--delete would delete 1 entries, 2.0 kB of tokenised"
    assert of(cache, delete=True, kinds=("tokenised", "tokenised"))[0] == "deleted 1 entries, 2.0 kB"
    assert (cache / "tokenised").is_symlink() and not list(elsewhere.iterdir())


def test_what_cannot_be_deleted_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(UserError, match=rf"maps-{KEY}.npy: cannot be deleted \(Permission denied\); change its folder"):
        of(cache, delete=True, kinds=("bridge",))


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--kinds is empty: name one or more of bridge, features"):
        CacheConfig(kinds=())
    with pytest.raises(UserError, match="no such folder"):
        of(tmp_path / "nowhere")
    message = fails("cache", f"--cache_dir={tmp_path}", "--kinds=downloads")
    assert "--kinds=downloads: an item of the list cannot be read: value should be one of <bridge|" in message
    assert "deleted 0 entries" in succeeds("cache", f"--cache_dir={tmp_path}", "--delete")


def test_large_arrays_are_told(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    from files.cached import tell_if_large

    tell_if_large(tmp_path / "x.npy", (10**9 - 1,), "uint8")
    assert capsys.readouterr().out == ""
    tell_if_large(tmp_path / "x.npy", (925, 10**6), "float32")
    assert capsys.readouterr().out.startswith(f"note: 3.7 GB go into {tmp_path} (python -m experiments.cache")


def test_sizes() -> None:
    sizes = (0, 999, 1000, 99_949, 123_456, 3_696_640_128, 5 * 10**15)
    assert [shown_size(size) for size in sizes] == ["0 B", "999 B", "1.0 kB", "99.9 kB", "123 kB", "3.7 GB", "5000 TB"]


def test_an_array_that_was_never_finished_is_an_entry(tmp_path: Path) -> None:
    with growing_array(tmp_path / "bridge" / f"maps-{KEY}.npy", (4, 2), "float32", {}) as file:
        file.array[:] = 1
    (entry,) = entries(tmp_path / "bridge", KINDS["bridge"].names)
    assert {path.suffix for path in entry.files} == {".npy", ".json"} and len(entry.locks) == 1
