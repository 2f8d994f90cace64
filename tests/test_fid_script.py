"""The FID script as a user runs it, with a small Keras model for its features."""

import contextlib
import dataclasses
import errno
import json
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from diffusion.fid import statistics
from diffusion.fid.config import FidConfig
from diffusion.fid.extractors import build_extractor
from diffusion.fid.feature_config import FeatureConfig
from diffusion.fid.features import image_features
from diffusion.fid.frechet import frechet_distance
from diffusion.fid.image_source import ImageSource
from diffusion.fid.sources import open_source
from diffusion.fid.tool_files import read_npy_features
from diffusion.fid_task import measure_fid
from files.arrays import growing_array
from files.errors import UserError
from tests.scripts import fails, fails_each, succeeds
from tests.scripts import run as run_script
from training.backends import Placement
from training.config_files import as_flags
from training.run_config import belongs


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIPTYCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache-of-fid"))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images, an npz, and a model that takes the means of the quarters of an image."""
    path = tmp_path_factory.mktemp("fid")
    rng = np.random.default_rng(0)
    for k in range(30):
        (path / "folder").mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(path / "folder" / f"{k}.png")
    np.savez(path / "images.npz", images=rng.integers(0, 200, (40, 8, 8, 1), np.uint8))
    image = keras.Input((8, 8, 1))
    x = keras.layers.Flatten()(keras.layers.AveragePooling2D(4)(image))
    keras.Model(image, x).save(path / "m.keras")
    return path


def _quarters(pixels: np.ndarray) -> np.ndarray:
    return pixels.astype(float).reshape(-1, 2, 4, 2, 4).mean(axis=(2, 4)).reshape(-1, 4)


def test_folder_against_npz_by_hand(world: Path) -> None:
    sides, run = [str(world / "folder"), str(world / "images.npz")], world / "run"
    flags = [f"--features={world / 'm.keras'}", "--devices=cpu", "--bootstrap=5"]
    out = succeeds("fid", *sides, *flags, f"--run_dir={run}")
    files = sorted((world / "folder").iterdir())
    a = _quarters(np.stack([np.asarray(Image.open(file)) for file in files]))
    with np.load(world / "images.npz") as file:
        b = _quarters(file["images"][..., 0])
    expected = frechet_distance(a.mean(0), np.cov(a.T), b.mean(0), np.cov(b.T))
    result = json.loads((run / "result.json").read_text())
    assert result["fid"] == pytest.approx(expected, rel=1e-5) and "fid" in out
    assert (result["a_count"], result["b_count"], result["mode"]) == (30, 40, "model:m.keras")
    assert {"kid", "kid_standard_error", "precision", "coverage", "fid_interval_low", "a_weights_hash",
            "b_resize"} <= set(result)  # fmt: skip
    assert "finished before" in succeeds("fid", f"--flagfile={run / 'flags.txt'}", f"--run_dir={run}")
    config = FidConfig(devices="cpu", a=sides[0], b=sides[1], bootstrap=5)
    config = dataclasses.replace(config, features=FeatureConfig(str(world / "m.keras")))
    again = measure_fid(config, world / "again")  # the same configuration, from Python
    assert again | {"total_seconds": 0} == result | {"total_seconds": 0}
    with np.load(world / "again" / "b.npz") as one, np.load(run / "b.npz") as two:
        np.testing.assert_array_equal(one["sigma"], two["sigma"])


def test_saved_statistics(world: Path, tmp_path: Path) -> None:
    config = FidConfig(devices="cpu", a=str(world / "folder"), b=str(world / "images.npz"), metrics=("kid",))
    config = dataclasses.replace(config, features=FeatureConfig(str(world / "m.keras")))
    found = measure_fid(config, tmp_path / "images")
    a, b = (str(tmp_path / "images" / name) for name in ("a.npz", "b.npz"))
    saved = measure_fid(FidConfig(devices="cpu", a=a, b=b), tmp_path / "saved")
    assert saved["fid"] == pytest.approx(found["fid"], rel=1e-6) and "kid" in found and "kid" not in saved
    other = statistics.load(Path(a))
    statistics.save(tmp_path / "other.npz", statistics.Statistics(other.mean, other.covariance, 30, {"mode": "keras"}))
    message = fails("fid", str(tmp_path / "other.npz"), b, f"--run_dir={tmp_path / 'no'}", "--devices=cpu")
    assert "statistics of different protocols, keras and model:m.keras" in message
    with pytest.raises(UserError, match="--extrapolate needs images or features on both sides, and A"):
        measure_fid(FidConfig(devices="cpu", a=a, b=b, extrapolate=True), tmp_path / "none")


def test_statistics_of_another_provenance_are_another_input(world: Path, tmp_path: Path) -> None:
    """Files with the same moments that say they are of other images, or of another number of them."""
    rng = np.random.default_rng(0)
    mean, covariance = rng.normal(size=4), np.eye(4)
    about: list[tuple[int, dict]] = [(30, {"mode": "keras", "source": "x"}), (31, {"mode": "keras", "source": "x"}),
                                     (30, {"mode": "keras", "source": "y"})]  # fmt: skip
    path = tmp_path / "a.npz"
    config = FidConfig(devices="cpu", a=str(path), b=str(path))
    for place, (count, provenance) in enumerate([*about, about[0]]):
        statistics.save(path, statistics.Statistics(mean, covariance, count, provenance))
        if place in (0, 3):
            assert measure_fid(config, tmp_path / "run")["a_count"] == 30
        else:
            with pytest.raises(UserError, match="was made of other data"):
                measure_fid(config, tmp_path / "run")


def test_dry_run_writes_nothing(world: Path, tmp_path: Path) -> None:
    flags = [f"--features={world / 'm.keras'}", f"--run_dir={tmp_path / 'r'}", "--devices=cpu", "--dry_run"]
    out = succeeds("fid", str(world / "folder"), "digits:test", *flags)
    assert "30 images against 180 images; model:m.keras; nothing was written" in out and not list(tmp_path.iterdir())


def test_features_of_images_that_changed_are_not_used_again(
    world: Path, tmp_path: Path, one_replica: Placement
) -> None:
    """Files of the same names and sizes, in which every picture is another one."""
    config = FidConfig(devices="cpu", a=str(tmp_path / "images"), features=FeatureConfig(str(world / "m.keras")))
    extractor, found = build_extractor(config.features, tmp_path), []
    (tmp_path / "images").mkdir()
    for shade in (10, 200):
        for k in range(4):
            Image.new("L", (8, 8), shade).save(tmp_path / "images" / f"{k}.bmp")
        source = open_source(config.a, config, one_replica)
        assert isinstance(source, ImageSource)
        with contextlib.suppress(UserError):  # the array of the first round "holds something else"
            found.append(image_features(extractor, source, one_replica, tmp_path / "features.npy").features.max())
    assert found == [10]


BEFORE = {"a", "b", "seed", "devices", "num_images", "batch_size", "image_size", "channels", "skip_bad_images",
          "max_megapixels", "weights", "extrapolate", "bootstrap", "sampler", "sampling_steps", "spacing", "variance",
          "eta", "order", "guidance", "clip"}  # fmt: skip
WRONG: list[tuple[list[str], str]] = [
    (["one"], "two sets of images are needed"),
    (["nowhere", "digits:test"], "nowhere: no such file or folder, and no data set"),
    (["digits:valid", "digits:test"], "a split is one of train, validation, test, not 'valid'"),
    (["digits:test", "digits:test", "--num_images=1"], "have no covariance: at least two"),
    (["digits:test", "digits:test", "--metrics=fad"], "value should be one of <kid|prdc|is|cmmd|memorisation>"),
    (["one", "two", "three"], "two sets of images are needed"),
    (["digits:test", "digits:test", "--weights=nowhere.pth"], "nowhere.pth"),
    (["digits:test", "digits:test", "--weights=random:abc"], "--weights=random:abc: write random:SEED"),
]


def test_wrong_arguments(tmp_path: Path) -> None:
    errors = fails_each("fid", [[*case, f"--run_dir={tmp_path / 'r'}", "--devices=cpu"] for case, _ in WRONG])
    for error, (case, message) in zip(errors, WRONG, strict=True):
        assert error.startswith("error: ") and message in error, case


def test_bad_images(world: Path, tmp_path: Path) -> None:
    flags = ["digits:test", f"--features={world / 'm.keras'}", "--devices=cpu"]
    (tmp_path / "damaged").mkdir()
    for k in range(3):
        Image.new("L", (8, 8)).save(tmp_path / "damaged" / f"{k}.png")
    (tmp_path / "damaged" / "2.png").write_bytes(b"not a picture")
    damaged = fails("fid", str(tmp_path / "damaged"), *flags, f"--run_dir={tmp_path / 's'}")
    assert "2.png: not a readable image" in damaged
    left_out = succeeds("fid", str(tmp_path / "damaged"), *flags, f"--run_dir={tmp_path / 't'}", "--skip_bad_images")
    result = json.loads((tmp_path / "t" / "result.json").read_text())
    assert "1 of 3 image files left out, not readable: 2.png (" in left_out and result["a_count"] == 2
    assert "note: no prdc: it needs 6 images, and A" in left_out
    assert "note: no Inception Score: the extractor has no classes" in left_out


def test_a_set_and_itself_have_no_distance_whatever_is_drawn(world: Path, tmp_path: Path) -> None:
    flags = [f"--features={world / 'm.keras'}", "--devices=cpu", "--num_images=20", "--metrics=", "--seed=2"]
    succeeds("fid", str(world / "folder"), str(world / "folder"), *flags, f"--run_dir={tmp_path / 'r'}")
    result = json.loads((tmp_path / "r" / "result.json").read_text())
    assert result["fid"] == pytest.approx(0, abs=1e-6) and result["a_drawn_from"] == result["b_drawn_from"] == 30


def test_what_cannot_be_had_is_said_before_an_image_is_read(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "t.npz", mu=rng.normal(size=4), sigma=np.eye(4))
    own = statistics.Statistics(rng.normal(size=4), np.eye(4), 9, {"mode": "model:m.keras"})
    statistics.save(tmp_path / "own.npz", own)
    monkeypatch.setattr("diffusion.fid_task.image_features", lambda *_, **__: pytest.fail("images were read"))
    folder, flags = str(world / "folder"), [f"--features={world / 'm.keras'}", "--devices=cpu"]
    own_file, foreign = str(tmp_path / "own.npz"), str(tmp_path / "t.npz")
    both = "needs images or features on both sides, and"
    cases: list[tuple[list[str], str]] = [
        ([own_file, folder, "--bootstrap=5"], f"--bootstrap {both} A ({own_file}) is saved statistics"),
        ([folder, own_file, "--extrapolate"], f"--extrapolate {both} B ({own_file}) is saved statistics"),
        ([folder, own_file, "--metrics=kid"], f"kid cannot be computed: B ({own_file}) is saved statistics"),
        ([own_file, folder, "--metrics=is"], "--metrics=is: Inception Score cannot be computed: the extractor has no"),
        ([folder, folder, "--num_images=4", "--metrics=prdc"], "prdc cannot be computed: it needs 6 images, and A"),
        ([folder, folder, "--extrapolate"], "--extrapolate needs 40 images of B, and"),
        ([folder, folder, "--bootstrap=1"], "use at least 2 resamples and 4 images"),
        ([folder, folder, "--per_class"], "--per_class needs classes in both sets, and A"),
        ([foreign, folder], "does not say which tool's statistics it has"),
        ([foreign, folder, "--statistics_of=clean-fid"], "different protocols, clean-4 (clean-fid's) and model:m"),
    ]  # fmt: skip
    errors = fails_each("fid", [[*case, *flags, f"--run_dir={tmp_path / 'r'}"] for case, _ in cases])
    for error, (case, message) in zip(errors, cases, strict=True):
        assert error.startswith("error: ") and message in error, case
    assert not (tmp_path / "r").exists()


def test_features_are_computed_once_for_all_runs(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sides, flags = [str(world / "folder"), str(world / "images.npz")], ["--devices=cpu", "--metrics=kid"]
    flags += [f"--features={world / 'm.keras'}", f"--cache_dir={tmp_path / 'cache'}"]
    succeeds("fid", *sides, *flags, f"--run_dir={tmp_path / 'one'}")
    with monkeypatch.context() as patch:
        patch.setattr("diffusion.fid.features.make_feature_stream", lambda *_: pytest.fail("computed again"))
        succeeds("fid", *reversed(sides), *flags, f"--run_dir={tmp_path / 'two'}")
    one, two = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("one", "two"))
    assert one["fid"] == pytest.approx(two["fid"], rel=1e-9)
    files = sorted((tmp_path / "cache" / "features").glob("*.npy"))
    a, b = (np.load(tmp_path / name) for name in ("one/a_features.npy", "two/b_features.npy"))
    np.testing.assert_array_equal(a, b)
    with monkeypatch.context() as patch:  # a cache on another disk
        patch.setattr("os.link", lambda *_: (_ for _ in ()).throw(OSError(errno.EXDEV, "another disk")))
        succeeds("fid", *sides, *flags, f"--run_dir={tmp_path / 'copied'}")
    np.testing.assert_array_equal(np.load(tmp_path / "copied" / "a_features.npy"), a)
    files[0].write_bytes(files[0].read_bytes()[:-3] + b"abc")
    assert "made again" in succeeds("fid", *sides, *flags, f"--run_dir={tmp_path / 'three'}")


def test_features_of_our_own_runs_say_what_they_are(world: Path, tmp_path: Path) -> None:
    """By the note beside them; behind the features of InceptionV3's last layer are logits."""
    features = FeatureConfig(str(world / "m.keras"))
    config = FidConfig(devices="cpu", a=str(world / "folder"), b=str(world / "images.npz"), features=features)
    found = measure_fid(dataclasses.replace(config, metrics=()), tmp_path / "run")
    config = dataclasses.replace(config, a=str(tmp_path / "run" / "a_features.npy"))
    for number, b in enumerate((str(tmp_path / "run" / "b.npz"), str(world / "images.npz"))):
        again = measure_fid(dataclasses.replace(config, b=b, metrics=()), tmp_path / f"{number}")
        assert again["fid"] == pytest.approx(found["fid"], rel=1e-6) and again["mode"] == "model:m.keras"
        assert again["a_weights_hash"] == found["a_weights_hash"]
    path = tmp_path / "f.npy"
    for mode, width in (("tf2015", 2048), ("clean-random", 2048), ("tf2015-64", 2050), ("model:x", 2050)):
        with growing_array(path, (3, 2050), "float32", {"mode": mode, "weights_hash": "abc"}, renew=True) as file:
            if mode == "tf2015":
                file.fill(iter([np.ones((2, 2050))]))
                with pytest.raises(UserError, match=r"f\.npy: 2 of its 3 rows are computed; let the run .* finish"):
                    read_npy_features(path, "")
            file.fill(iter([np.ones((3 - file.done, 2050))]))
        side = read_npy_features(path, "")
        assert side is not None and side.kind == (width, {"mode": mode, "weights_hash": "abc"}) and not side.notes


def test_features_of_others_are_compared(world: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(50, 4)), rng.normal(size=(60, 4))
    np.save(tmp_path / "a.npy", a)
    np.savez(tmp_path / "b.npz", features=b.astype(np.float32))
    config = FidConfig(devices="cpu", a=str(tmp_path / "a.npy"), b=str(tmp_path / "b.npz"), extrapolate=True)
    result = measure_fid(config, tmp_path / "run")
    expected = frechet_distance(a.mean(0), np.cov(a.T), b.mean(0), np.cov(b.T))
    assert result["fid"] == pytest.approx(expected, rel=1e-6) and result["mode"] == "unlabelled features"
    assert {"kid", "precision", "fid_infinity"} <= set(result) and "inception_score" not in result
    with pytest.raises(UserError, match=r"different protocols, unlabelled features and model:m\.keras"):
        measure_fid(
            dataclasses.replace(config, b=str(world / "folder"), features=FeatureConfig(str(world / "m.keras"))),
            tmp_path / "other",
        )


def test_figures_by_class(world: Path, tmp_path: Path) -> None:
    """Folders and an npz; the classes of each side by their names."""
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (40, 8, 8), np.uint8), np.arange(40) % 2
    for k in range(30):
        path = tmp_path / "folder" / str(k % 3) / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(path)
    np.savez(tmp_path / "b.npz", images=pixels, labels=labels)
    flags = [f"--features={world / 'm.keras'}", "--devices=cpu", "--metrics=", "--per_class"]
    out = succeeds("fid", str(tmp_path / "folder"), str(tmp_path / "b.npz"), *flags, f"--run_dir={tmp_path / 'r'}")
    found = json.loads((tmp_path / "r" / "result.json").read_text())
    assert out.count("in only one set") == 1 and found["by_class"].keys() == {"0", "1"}
    for label in (0, 1):
        files = sorted((tmp_path / "folder" / str(label)).iterdir())
        a = _quarters(np.stack([np.asarray(Image.open(file)) for file in files]))
        b = _quarters(pixels[labels == label])
        expected = frechet_distance(a.mean(0), np.cov(a.T), b.mean(0), np.cov(b.T))
        assert found["by_class"][str(label)]["fid"] == pytest.approx(expected, rel=1e-5)
    mean = np.mean([found["by_class"][name]["fid"] for name in "01"])
    assert found["mean_fid_of_classes"] == pytest.approx(mean)


def test_wrong_figures_of_earlier_versions_are_not_believed(world: Path, tmp_path: Path) -> None:
    flags = [str(world / "folder"), str(world / "images.npz"), f"--features={world / 'm.keras'}", "--devices=cpu"]
    for name, metrics in (("kid", "--metrics=kid"), ("none", "--metrics=")):
        run = f"--run_dir={tmp_path / name}"
        succeeds("fid", *flags, metrics, run)
        result = json.loads((tmp_path / name / "result.json").read_text())
        del result["figures_version"]
        (tmp_path / name / "result.json").write_text(json.dumps(result))
        if name == "kid":
            for asked in ([metrics], []):  # by its own command, whatever the default was then, too
                done = run_script("fid", *flags, *asked, run)
                assert done.returncode and "finished before" not in done.stdout
                assert "an earlier version, which had kid_standard_error wrong" in done.stderr
        else:
            assert "finished before" in succeeds("fid", *flags, metrics, run)


def test_runs_of_earlier_versions_have_todays_names(tmp_path: Path) -> None:
    """What they measured rightly is believed; what has other figures now is another run."""
    config = FidConfig(a="x", b="y")
    of_then = {name: value for name, value in as_flags(config).items() if name in BEFORE} | {"features": "tf2015"}
    for metrics, today, belonging in (("", (), True), ("kid,prdc,is", None, False), ("kid", ("kid",), True)):
        flags = of_then | {"metrics": metrics}
        (tmp_path / "flags.txt").write_text("".join(f"--{name}={value}\n" for name, value in flags.items()))
        with contextlib.nullcontext() if belonging else pytest.raises(UserError, match="a run with other flags"):
            assert belongs(tmp_path, dataclasses.replace(config, metrics=today))
    keras_then = of_then | {"metrics": "", "features": "keras"}
    (tmp_path / "flags.txt").write_text("".join(f"--{name}={value}\n" for name, value in keras_then.items()))
    with pytest.raises(UserError, match="a run with other flags"):
        belongs(tmp_path, dataclasses.replace(config, metrics=()))
    assert belongs(tmp_path, dataclasses.replace(config, metrics=(), features=FeatureConfig("keras")))
