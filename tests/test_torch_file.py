"""PyTorch's files without PyTorch: values, and that nothing in a file is run."""

import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from files.errors import UserError
from files.tensors import read_tensors
from files.torch_file import read_torch

TINY = Path(__file__).parent / "golden" / "tiny"


@pytest.mark.parametrize("form", ["bert_bin", "bert_old_bin"])
def test_both_forms_equal_the_safetensors(form: str) -> None:
    """The files are PyTorch's own; see golden/make_bert.py."""
    expected, _ = read_tensors(TINY / "bert" / "model.safetensors")
    found = read_torch(TINY / form / "pytorch_model.bin")
    assert found.keys() == {f"bert.{name}" for name in expected}
    for name, array in expected.items():
        np.testing.assert_array_equal(found[f"bert.{name}"], array)
        assert found[f"bert.{name}"].dtype == np.float32


class _Call:
    """Pickles as a call of ``function(*args)``."""

    def __init__(self, function: object, *args: object) -> None:
        self.reduced = (function, args)

    def __reduce__(self) -> tuple:
        return self.reduced


def _zip(path: Path, content: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
    return path


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, zipped: bool) -> None:
    target = tmp_path / "made"
    content = pickle.dumps({"w": _Call(os.mkdir, str(target))})
    path = _zip(tmp_path / "evil.bin", content) if zipped else tmp_path / "evil.pth"
    if not zipped:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"it asks for posix\.mkdir.*nothing in it was run"):
        read_torch(path)
    assert not target.exists()


def _tensor_pickle(storage: str, offset: int, shape: tuple, strides: tuple) -> bytes:
    """A hand-written state dict of one tensor, as PyTorch pickles it."""
    body = b"\x80\x02}U\x01wctorch._utils\n_rebuild_tensor_v2\n(("
    body += b"U\x07storagectorch\n" + storage.encode() + b"\nU\x010U\x03cpuK\x06tQ"
    body += b"K" + bytes([offset]) + pickle.dumps(shape, 2)[2:-1] + pickle.dumps(strides, 2)[2:-1]
    body += b"\x89ccollections\nOrderedDict\n)RtRs."
    return body


@pytest.mark.parametrize(
    ("storage", "offset", "shape", "strides", "expected"),
    [
        ("FloatStorage", 0, (2, 3), (3, 1), [[0, 1, 2], [3, 4, 5]]),
        ("FloatStorage", 0, (3, 2), (1, 3), [[0, 3], [1, 4], [2, 5]]),
        ("FloatStorage", 1, (2, 2), (3, 1), [[1, 2], [4, 5]]),
        ("BFloat16Storage", 0, (2,), (1,), [0.0, 1.0]),
    ],
)
def test_strides_offsets_and_bfloat16_by_hand(
    tmp_path: Path, storage: str, offset: int, shape: tuple, strides: tuple, expected: list
) -> None:
    path = _zip(tmp_path / "w.bin", _tensor_pickle(storage, offset, shape, strides))
    data = np.arange(6, dtype="<f4").tobytes()
    if storage == "BFloat16Storage":
        data = (np.array([0.0, 1.0], "<f4").view("<u4") >> 16).astype("<u2").tobytes()
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/data/0", data)
    np.testing.assert_array_equal(read_torch(path)["w"], expected)


def test_a_tensor_beyond_its_storage_is_refused(tmp_path: Path) -> None:
    path = _zip(tmp_path / "w.bin", _tensor_pickle("FloatStorage", 2, (2, 3), (3, 1)))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/data/0", np.arange(6, dtype="<f4").tobytes())
    with pytest.raises(UserError, match="a tensor reaches beyond its storage"):
        read_torch(path)


def test_damaged_files(tmp_path: Path) -> None:
    whole = (TINY / "bert_bin" / "pytorch_model.bin").read_bytes()
    old = (TINY / "bert_old_bin" / "pytorch_model.bin").read_bytes()
    for name, content in (("half.bin", whole[: len(whole) // 2]), ("old.bin", old[: len(old) - 50]),
                          ("text.bin", b"hello"), ("empty.bin", b"")):  # fmt: skip
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name}: not a PyTorch file"):
            read_torch(tmp_path / name)
    with pytest.raises(UserError, match="no such checkpoint"):
        read_torch(tmp_path / "none.bin")
    with pytest.raises(UserError, match="no tensors in it"):
        read_torch(_zip(tmp_path / "no.bin", pickle.dumps({"epoch": 3}, 2)))


def _member(path: Path, content: bytes, packed: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "a", packed) as archive:
        archive.writestr("archive/data/0", content)
    return path


@pytest.mark.parametrize(
    ("shape", "strides"), [((200, 200), (0, 0)), ((7,), (0,)), ((2, 6), (0, 1)), ((3, 4), (1, 1)), ((-2, -3), (3, 1))]
)
def test_a_tensor_of_more_elements_than_its_storage_is_refused(tmp_path: Path, shape: tuple, strides: tuple) -> None:
    path = _zip(tmp_path / "w.bin", _tensor_pickle("FloatStorage", 0, shape, strides))
    with pytest.raises(UserError, match=r"more elements than its storage|a negative size"):
        read_torch(_member(path, np.arange(6, dtype="<f4").tobytes()))


def test_views_of_one_storage_share_its_memory(tmp_path: Path) -> None:
    one = _tensor_pickle("BFloat16Storage", 0, (2, 3), (3, 1))[3:-2]  # without the dictionary around it
    body = b"\x80\x02}" + b"".join(b"U\x01" + name + one[3:] + b"s" for name in (b"a", b"b", b"c")) + b"."
    path = _member(_zip(tmp_path / "w.bin", body), np.arange(6, dtype="<u2").tobytes())
    found = read_torch(path)
    assert found.keys() == {"a", "b", "c"} and found["a"].shape == (2, 3)
    assert np.shares_memory(found["a"], found["b"]) and np.shares_memory(found["a"], found["c"])
    assert not found["a"].flags.writeable


def test_zip_members_that_are_bombs_are_refused(tmp_path: Path) -> None:
    pickled = _tensor_pickle("FloatStorage", 0, (2, 3), (3, 1))
    path = _member(_zip(tmp_path / "a.bin", pickled), bytes(10**7), zipfile.ZIP_DEFLATED)  # it claims 24 bytes
    with pytest.raises(UserError, match=r"archive/data/0 unpacks to 10,000,000 bytes, more than belong there"):
        read_torch(path)
    large = pickled.replace(b"U\x03cpuK\x06", b"U\x03cpuJ\xff\xff\xff\x7f")  # it claims 8 GB
    path = _member(_zip(tmp_path / "b.bin", large), bytes(24))
    with pytest.raises(UserError, match=r"a storage of 8,589,934,588 bytes in a file of \d+"):
        read_torch(path)
    with zipfile.ZipFile(tmp_path / "c.bin", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(2**24 + 1))
    with pytest.raises(UserError, match=r"archive/data.pkl unpacks to 16,777,217 bytes"):
        read_torch(tmp_path / "c.bin")


@pytest.mark.parametrize("zipped", [True, False])
def test_pickles_that_want_much_memory_are_refused(tmp_path: Path, zipped: bool) -> None:
    content = b"\x80\x02}r\xff\xff\xff\x7f."  # notes an object under the number 2,147,483,647
    path = tmp_path / "w.bin"
    if zipped:
        _zip(path, content)
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match="it wants room for 2,147,483,647 objects"):
        read_torch(path)


def test_references_are_not_shown(tmp_path: Path) -> None:
    """Thirty tuples, each the one before twice: a billion elements, if they are written out."""
    nested = b")" + b"".join(b"q" + bytes([k]) + b"h" + bytes([k]) + b"\x86" for k in range(30))
    with pytest.raises(UserError, match="a reference to something that is no storage"):
        read_torch(_zip(tmp_path / "w.bin", b"\x80\x02" + nested + b"Q."))


@pytest.mark.slow
def test_a_real_checkpoint(shared: Path) -> None:
    tensors = read_torch(shared / "weights" / "efficientnet-lite0-57934424.pth")
    assert len(tensors) == 296
    assert all(np.isfinite(array).all() for array in tensors.values())
    # the running variance of a batch norm is nowhere negative
    assert all((array >= 0).all() for name, array in tensors.items() if name.endswith("running_var"))
