"""Statistics and features of other tools: labelled by tool and resize, and read with nothing in the files run."""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffusion.fid import statistics
from diffusion.fid.statistics import FeatureKind, check_comparable
from diffusion.fid.tool_files import FeatureFile, read_npy_features, read_npz_features, read_tool_file
from files.errors import UserError
from files.pickled_arrays import read_pickle
from files.torch_file import read_torch, read_torch_arrays

RNG = np.random.default_rng(0)
MU, SIGMA = RNG.normal(size=6), np.cov(RNG.normal(size=(9, 6)).T)


def _as_torch_saves(path: Path, content: Any) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(content, 2))
        archive.writestr("archive/byteorder", "little")
    return path


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickled_arrays_are_read_by_every_protocol(protocol: int, tmp_path: Path) -> None:
    arrays = {"a": np.arange(6.0).reshape(2, 3), "f": np.asfortranarray(np.arange(6).reshape(2, 3)),
              "big": np.arange(3, dtype=">i4"), "none": np.zeros((0, 4), np.float32)}  # fmt: skip
    content = {"fid": arrays, "num_images": 7, "scalar": np.float32(0.5), "name": "x", "list": [1]}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, protocol))
    found = read_pickle(tmp_path / "a.pkl")
    assert found.keys() == {*(f"fid/{name}" for name in arrays), "num_images", "scalar"}
    assert (found["num_images"], found["scalar"]) == (7, np.float32(0.5))
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[f"fid/{name}"], array)
        assert found[f"fid/{name}"].dtype == array.dtype


class _Runs:
    def __reduce__(self) -> tuple:
        return (print, ("run!",))


class _Asks:
    """A pickle that asks for a number of bytes."""

    def __reduce__(self) -> tuple:
        return (bytearray, (10**12,))


def test_nothing_in_a_pickle_is_run(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    good = pickle.dumps({"mu": MU, "sigma": SIGMA})
    shared: dict[str, Any] = {"x": 1}
    for _ in range(12):
        shared = {str(k): shared for k in range(50)}
    wrong = np.array([_Runs()])
    for content in (pickle.dumps({"a": _Runs()}), pickle.dumps({"a": _Asks()}), pickle.dumps({"a": wrong}),
                    pickle.dumps([1]), pickle.dumps({"a": "b"}), good[:-40], b"", pickle.dumps(shared),
                    good.replace(b"\x06\x85", b"\x07\x85")):  # fmt: skip
        (tmp_path / "a.pkl").write_bytes(content)
        with pytest.raises(UserError, match=r"a\.pkl: (not a pickle of arrays|no arrays in it)"):
            read_pickle(tmp_path / "a.pkl")
    with pytest.raises(UserError, match="nothing in it was run"):
        read_torch_arrays(_as_torch_saves(tmp_path / "a.pt", {"mu": _Runs()}))
    assert "run!" not in capsys.readouterr().out


def test_torch_fidelitys_files(tmp_path: Path) -> None:
    path = _as_torch_saves(tmp_path / "cifar-inception-v3-compat-stat-fid-6.pt", {"mu": MU, "sigma": SIGMA})
    found = read_tool_file(path, "")
    assert isinstance(found, statistics.Statistics)
    np.testing.assert_array_equal(found.mean, MU)
    np.testing.assert_array_equal(found.covariance, SIGMA)
    assert (found.mode, found.provenance["tool"]) == ("tf2015-6", "torch-fidelity")
    other = _as_torch_saves(tmp_path / "cifar-clip-vit-b-32-stat-fid-resblocks.pt", {"mu": MU, "sigma": SIGMA})
    assert read_tool_file(other, "").kind.mode == "torch-fidelity:clip-vit-b-32-resblocks"
    with pytest.raises(UserError, match="no part of a tensor"):
        read_torch(path)  # weights are tensors


def test_edm2s_reference_files(tmp_path: Path) -> None:
    content = {"fid": {"mu": MU, "sigma": SIGMA}, "fd_dinov2": {"mu": MU[:2], "sigma": SIGMA[:2, :2]}, "num_images": 9}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content))
    found = read_tool_file(tmp_path / "a.pkl", "")
    assert isinstance(found, statistics.Statistics)
    assert (found.count, found.mode, found.provenance["tool"]) == (9, "tf2015-6", "edm2")
    np.testing.assert_array_equal(found.covariance, SIGMA)
    del content["fid"]
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content))
    assert read_tool_file(tmp_path / "a.pkl", "").kind.mode == "edm2:fd_dinov2"


def test_a_file_is_compared_with_its_own_protocol_only(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", mu=MU, sigma=SIGMA)
    with pytest.raises(UserError, match=r"does not say which tool's .* --statistics_of= with one of tf2015, pyt"):
        statistics.load(tmp_path / "a.npz")
    kinds = {tool: statistics.load(tmp_path / "a.npz", tool).kind for tool in statistics.TOOLS}
    assert not check_comparable(kinds["tf2015"], kinds["torch-fidelity"])
    for one, two in (("clean-fid", "tf2015"), ("pytorch-fid", "torch-fidelity"), ("pytorch-fid", "clean-fid")):
        with pytest.raises(UserError, match=f"{one}'s.* cannot be compared"):
            check_comparable(kinds[one], kinds[two])
    of_images = FeatureKind(64, {"mode": "tf2015-64", "weights_hash": "abc"})
    with pytest.raises(UserError, match=r"cannot be compared: compute the other with --protocol=clean --dims=64$"):
        check_comparable(FeatureKind(64, statistics.of_tool("clean-fid", 64)), of_images)
    with pytest.raises(UserError, match=r"compute both from images with the same --protocol or --features$"):
        check_comparable(FeatureKind(6, statistics.of_tool("clean-fid", 6)), of_images)  # no --dims makes 6
    with pytest.raises(UserError, match=r"add --statistics_of= with one of tf2015, .* image \[H, W\] is \[1, H, W\]"):
        check_comparable(of_images, FeatureKind(64, {"mode": statistics.UNLABELLED}))
    ours = FeatureKind(6, {"mode": "tf2015-6", "weights_hash": "abc"})
    assert "edm2's features do not name their weights" in check_comparable(ours, kinds["edm2"])[0]
    with pytest.raises(UserError, match="different protocols, tf2015 and tf2015-64"):
        check_comparable(FeatureKind(2048, {"mode": "tf2015"}), FeatureKind(64, {"mode": "tf2015-64"}))
    np.savez(tmp_path / "adm.npz", mu=MU, sigma=SIGMA, mu_s=MU, sigma_s=SIGMA, arr_0=np.zeros((2, 4, 4, 3), np.uint8))
    assert statistics.load(tmp_path / "adm.npz").provenance["tool"] == "adm"


def test_a_matrix_that_is_no_covariance_is_no_statistics(tmp_path: Path) -> None:
    """Rounding is forgiven: by as much as single precision, and of the rank."""
    eye, skewed, linked = np.eye(6), np.eye(6), np.eye(6)
    skewed[0, 1], linked[0, 1], linked[1, 0] = 0.5, 1.5, 1.5
    path = tmp_path / "a.npz"
    for sigma, why in ((-eye, "a variance is below 0, -1"),
                       (np.diag([1, 1, 1, 1, 1, -0.5]), "a variance is below 0, -0.5"),
                       (skewed, "it is not symmetric"), (linked, "no features have such"),
                       (np.ones((6, 6)) - eye, "no features have such")):  # fmt: skip
        np.savez(path, mu=MU, sigma=sigma)
        with pytest.raises(UserError, match=f"sigma is no covariance: {why}.*; compute the statistics again"):
            statistics.load(path, "adm")
        (tmp_path / "a.pkl").write_bytes(pickle.dumps({"fid": {"mu": MU, "sigma": sigma}}))
        with pytest.raises(UserError, match="sigma is no covariance"):
            read_tool_file(tmp_path / "a.pkl", "")
    single = np.cov(RNG.normal(1e3, 9.0, (4, 6)).T).astype(np.float32)
    single[0, 1] *= 1 + 1e-6
    for sigma in (single, np.zeros((6, 6)), eye * 1e300, eye * 1e-300, SIGMA, np.ones((6, 6))):
        np.savez(path, mu=MU, sigma=sigma)
        np.testing.assert_array_equal(statistics.load(path, "adm").covariance, sigma)


def test_features_in_files(tmp_path: Path) -> None:
    features = RNG.normal(size=(9, 6)).astype(np.float32)
    np.save(tmp_path / "a.npy", features)
    np.save(tmp_path / "images.npy", np.zeros((2, 4, 4), np.uint8))
    np.savez(tmp_path / "a.npz", feats=features)
    np.savez(tmp_path / "images.npz", images=np.zeros((2, 4, 4), np.uint8), embeddings=features)
    of_npy, of_npz = read_npy_features(tmp_path / "a.npy", "clean-fid"), read_npz_features(tmp_path / "a.npz", "")
    assert isinstance(of_npy, FeatureFile) and isinstance(of_npz, FeatureFile)
    assert isinstance(of_npy.features, np.memmap) and of_npy.kind.mode == "clean-6" and not of_npy.notes
    np.testing.assert_array_equal(of_npz.features, features)
    assert "does not name the extractor" in of_npz.notes[0]
    assert read_npy_features(tmp_path / "images.npy", "") is None
    assert read_npz_features(tmp_path / "images.npz", "") is None
    buffer = io.BytesIO()
    np.save(buffer, np.array([_Runs()]), allow_pickle=True)
    (tmp_path / "b.npy").write_bytes(buffer.getvalue())
    with pytest.raises(UserError, match=r"b\.npy: not a readable npy file"):
        read_npy_features(tmp_path / "b.npy", "")
