"""The bridge's cache: read-only, shared by several processes, damaged, or with files that changed places."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from files.arrays import GrowingArray, growing_array, remove
from files.documents import read_text
from files.errors import UserError
from files.locks import alone
from files.writing import write_text
from training.placement import make_placement
from training.session import precision
from vision_bridge.bridge import Bridge, Features
from vision_bridge.cache import Cache, Stage
from vision_bridge.config import BridgeConfig, Choices
from vision_bridge.task import keep_layout

VALUES = {"validation": 1.0, "test": 2.0}


def _stage(cache: Cache, values: dict[str, float] = VALUES) -> Stage:
    def fill(split: str, file: GrowingArray) -> None:
        file.array[:] = values[split]
        file.save(len(file.array))

    return cache.stage("m", {"k": 1}, {split: np.zeros((4, 1)) for split in VALUES}, (2,), "float32", fill)


def _found(stage: Stage) -> dict[str, float]:
    return {split: float(array[0, 0]) for split, array in stage.arrays.items()}


def test_arrays_that_changed_places_are_made_again(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    cache = Cache(tmp_path)
    _stage(cache)
    one, two = sorted(tmp_path.glob("m-*.npy"))
    contents = one.read_bytes(), two.read_bytes()
    one.write_bytes(contents[1])
    two.write_bytes(contents[0])
    assert _found(_stage(cache)) == VALUES
    assert capsys.readouterr().out.count("made again\n") == 2
    assert _found(_stage(cache)) == VALUES and capsys.readouterr().out == ""


@contextmanager
def _read_only(folder: Path) -> Iterator[None]:
    """Nothing under ``folder`` can be written, by nobody: root, who may write anything, becomes somebody else."""
    for path in (*folder.rglob("*"), folder):
        path.chmod(0o555 if path.is_dir() else 0o444)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)


@pytest.fixture
def cache() -> Iterator[Cache]:
    """In a folder that other users can reach, which those of pytest are not."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Cache(Path(folder) / "bridge")


def _text(cache: Cache) -> str:
    return cache.file("a", "1", ".txt", lambda path: write_text(path, "x"), read_text)


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
@pytest.mark.parametrize("locks", [True, False])
def test_a_complete_cache_need_not_be_writable(cache: Cache, locks: bool) -> None:
    assert _text(cache) == "x" and _found(_stage(cache)) == VALUES
    if not locks:  # as in a copy
        for lock in cache.folder.glob(".*.lock"):
            lock.unlink()
    with _read_only(cache.folder):
        stage = _stage(cache, {})
        assert _text(cache) == "x" and _found(stage) == VALUES
        stage.remove()  # a table that is done with them
    assert len(list(cache.folder.glob("m-*.npy"))) == 2


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_what_is_missing_or_damaged_in_a_read_only_cache_is_said(cache: Cache) -> None:
    _text(cache), _stage(cache)
    next(cache.folder.glob("a-*")).write_bytes(b"\xff")
    path = next(cache.folder.glob("m-*.npy"))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    for make in (_text, _stage):
        with (
            _read_only(cache.folder),
            pytest.raises(UserError, match=r"cannot be written \(.*set --cache_dir") as found,
        ):
            make(cache)
        assert "\n" not in str(found.value) and str(cache.folder) in str(found.value)
    assert _text(cache) == "x" and _found(_stage(cache)) == VALUES


def test_what_another_process_removes_is_still_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path)
    names: list[str] = []
    first = _stage(cache)
    monkeypatch.setattr("vision_bridge.cache.growing_array", _removing(first, names))
    assert _found(_stage(cache, {})) == VALUES == _found(first)
    assert len(names) == 2 and not list(tmp_path.glob("m-*"))
    first.remove()  # a second time: there is nothing to do
    monkeypatch.undo()
    assert _found(_stage(cache)) == VALUES and len(list(tmp_path.glob("m-*.npy"))) == 2


def _removing(stage: Stage, names: list[str]) -> Callable:
    """``growing_array`` with another process that removes the array of ``stage`` as soon as it can."""

    @contextmanager
    def opened(path: Path, *arguments: object, **options: object) -> Iterator[GrowingArray]:
        with growing_array(path, *arguments, **options) as file:  # type: ignore[arg-type]
            yield file
        names.append(path.name)
        for array in stage.arrays.values():
            if Path(array.filename).name == path.name:  # type: ignore[attr-defined]
                remove(array)

    return opened


def test_what_another_process_is_making_is_not_removed(tmp_path: Path) -> None:
    stage = _stage(Cache(tmp_path))
    paths = [Path(array.filename) for array in stage.arrays.values()]  # type: ignore[attr-defined]
    with alone(paths[0]):
        stage.remove()
        assert [path.exists() for path in paths] == [True, False]
    stage.remove()
    assert not list(tmp_path.glob("m-*"))


@pytest.fixture(scope="module")
def features() -> Features:
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((40, 6)) @ rng.standard_normal((6, 24)) + rng.standard_normal((40, 24))).astype(np.float32)
    arrays = {"train": x, "validation": x[:5], "test": x[:9]}
    labels = {split: np.zeros(len(rows), np.int32) for split, rows in arrays.items()}
    return Features(arrays, labels, ("a", "b"), "key", ("g",))


def _bridge(features: Features, cache: Path, **more: object) -> Bridge:
    config = BridgeConfig(**({"engine": "pca", "height": 7, "width": 7} | more))  # type: ignore[arg-type]
    return Bridge(config, features, cache, make_placement("cpu", shards=1))


def _agrees(bridge: Bridge) -> bool:
    """Whether the cached images are those of the layout in use."""
    expected = bridge.pixel_map.transform(bridge.features.arrays["test"])
    return np.array_equal(bridge.images.arrays["test"], expected)


def _other_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layouts come out another way from now on, as they do on another number of cores."""
    from vision_bridge.layouts import layout

    fit = layout.Layout.fit.__func__  # type: ignore[attr-defined]
    monkeypatch.setattr(layout.Layout, "fit", classmethod(lambda cls, *a, **k: fit(cls, *a, **k).shuffled(5)))


@pytest.mark.parametrize("shuffle", [False, True])
def test_images_are_those_of_the_layout_in_use(
    features: Features, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shuffle: bool
) -> None:
    assert _agrees(_bridge(features, tmp_path, shuffle_pixels=shuffle))
    (path,) = tmp_path.glob("bridge/layout-*.safetensors")
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    _other_layout(monkeypatch)
    assert _agrees(_bridge(features, tmp_path, shuffle_pixels=shuffle))
    assert len(list(tmp_path.glob("bridge/images-*.npy"))) == 6  # the others were not written over


def test_a_layout_of_another_key_is_not_used(features: Features, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    given: tuple[dict, dict] = ({}, {"choices": Choices(scaling="min_max", distance="euclidean")})
    before = [_bridge(features, tmp_path, **more).pixel_map.fingerprint() for more in given]
    one, two = tmp_path.glob("bridge/layout-*.safetensors")
    contents = one.read_bytes(), two.read_bytes()
    one.write_bytes(contents[1])
    two.write_bytes(contents[0])
    capsys.readouterr()
    assert [_bridge(features, tmp_path, **more).pixel_map.fingerprint() for more in given] == before
    assert capsys.readouterr().out.count("made again\n") == 2


def test_layouts_know_the_precision(features: Features, tmp_path: Path) -> None:
    keys = set()
    for name in ("float32", "tf32"):
        with precision(name):
            keys.add(_bridge(features, tmp_path).layout_key)
    assert len(keys) == 2


def test_a_run_does_not_go_on_with_another_layout(
    features: Features, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge, path = _bridge(features, tmp_path / "one"), tmp_path / "layout.safetensors"
    for _ in range(2):
        keep_layout(path, bridge.pixel_map)
    before = path.read_bytes()
    _other_layout(monkeypatch)
    with pytest.raises(UserError, match=r"layout\.safetensors: .*begun with another layout.*choose another --run_dir"):
        keep_layout(path, _bridge(features, tmp_path / "two").pixel_map)
    assert path.read_bytes() == before
