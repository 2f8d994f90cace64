"""Which images are for training, for validation and for the test: shares by class, copies, classes without images."""

import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusion.config import DdpmConfig
from diffusion.data.config import DataConfig
from diffusion.data.datasets import DATASETS, Splits, load, rule_of_run
from diffusion.data.readers import FoundImages, Images
from diffusion.data.splitting import draw, first_copies
from diffusion.network.config import UNetConfig
from diffusion.task import _make_scorer, train_ddpm
from diffusion.training_setup import prepare
from files.documents import read_object, write_json
from files.errors import UserError
from tests.refusals import refused
from training.backends import Placement
from training.run import Run
from training.session import session

TINY = UNetConfig(base_width=8, channel_multipliers=(1,), num_blocks=1, attention_resolutions=(), num_groups=4)


def _npz(path: Path, **arrays: np.ndarray) -> DataConfig:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return DataConfig(dataset="npz", data_path=path)


def _noise(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 1), np.uint8)


def _rows(splits: Splits, pixels: np.ndarray) -> dict[str, list[int]]:
    """Where each image of a split is in ``pixels``."""
    place = {image.tobytes(): row for row, image in enumerate(pixels)}
    return {name: [place[image.tobytes()] for image in images.pixels] for name, images in splits.parts().items()}


def test_three_parts_by_class_and_no_image_in_two(tmp_path: Path) -> None:
    pixels, labels = _noise(200), np.repeat([0, 1, 2], [100, 80, 20])
    config = _npz(tmp_path / "a.npz", images=pixels, labels=labels)
    splits = load(config, seed=3)
    rows = _rows(splits, pixels)
    assert sorted(itertools.chain(*rows.values())) == list(range(200))
    by_class = {name: np.bincount(labels[found]).tolist() for name, found in rows.items()}
    assert by_class == {"train": [81, 65, 16], "validation": [9, 7, 2], "test": [10, 8, 2]}
    assert all(found == sorted(found) for found in rows.values())
    again, other = load(config, seed=3), load(config, seed=4)
    assert again.describe() == splits.describe() != other.describe()
    assert _rows(other, pixels)["test"] != rows["test"]
    more = load(dataclasses.replace(config, test_share=0.5, validation_share=0.2), seed=3)
    assert [len(images) for images in more.parts().values()] == [80, 20, 100]


def test_what_the_files_do_not_have_is_held_out_of_the_training_images(monkeypatch: pytest.MonkeyPatch) -> None:
    train, validation, test = (Images(_noise(count, count), None) for count in (50, 21, 31))

    def sizes(found: FoundImages, **choices: object) -> list[int]:
        monkeypatch.setitem(DATASETS, "digits", DATASETS["digits"]._replace(read=lambda *ignored: found))
        splits = load(DataConfig(**choices))  # type: ignore[arg-type]
        return [len(images) for images in (*splits.parts().values(), splits.whole("train"), splits.whole("validation"))]

    assert sizes(FoundImages(train, test, validation=validation)) == [50, 21, 31, 50, 21]
    assert sizes(FoundImages(train, test)) == [45, 5, 31, 50, 5]  # a figure against "the training images" means all 50
    assert sizes(FoundImages(train, validation=validation)) == [45, 21, 5, 45, 21]
    assert sizes(FoundImages(train)) == [41, 4, 5, 45, 4]
    assert sizes(FoundImages(train, test), splits="two") == [50, 31, 31, 50, 31]


def test_copies_of_an_image_are_on_one_side_and_counted(tmp_path: Path) -> None:
    """Else a network is praised for images of the test that it has seen."""
    pixels = np.concatenate([_noise(30)] * 3)
    splits = load(_npz(tmp_path / "a.npz", images=pixels, labels=np.tile(np.arange(30) % 2, 3)))
    seen = [{image.tobytes() for image in images.pixels} for images in splits.parts().values()]
    assert [len(images) for images in seen] == [24, 3, 3]
    assert [len(images) for images in splits.parts().values()] == [72, 9, 9]
    assert len(set.union(*seen)) == 30
    assert splits.notes[-1].startswith("60 of 90 images are copies of others")
    few = load(_npz(tmp_path / "b.npz", images=np.repeat(_noise(2), 5, axis=0)))
    assert [len(images) for images in few.parts().values()] == [8, 1, 1]
    assert few.notes[-1] == "8 of 10 images are copies of others: too few different images to keep copies in one split"


@pytest.mark.parametrize("count", [3, 4, 7, 20, 99])
@pytest.mark.parametrize("num_classes", [1, 2, 3, 20])
def test_every_class_keeps_an_image_where_it_can(count: int, num_classes: int) -> None:
    labels = np.arange(count) % num_classes
    part = draw(np.arange(count), labels, 0.3, 0)
    assert part.sum() == max(1, round(0.3 * count))
    kept, all_of_it = np.bincount(labels[~part], minlength=num_classes), np.bincount(labels, minlength=num_classes)
    if count - part.sum() >= num_classes:
        assert (kept[all_of_it > 0] > 0).all()
    many = all_of_it >= 2
    assert np.abs((all_of_it - kept)[many] - 0.3 * all_of_it[many]).max(initial=0.0) <= 1.5


def test_copies_are_found_by_their_pixels() -> None:
    pixels = _noise(5)[[0, 1, 0, 2, 1, 0]]
    assert first_copies(pixels).tolist() == [0, 1, 0, 3, 1, 0]
    assert first_copies(np.asfortranarray(pixels)).tolist() == [0, 1, 0, 3, 1, 0]


def test_two_splits_are_those_of_earlier_versions(tmp_path: Path) -> None:
    """Drawn without regard to classes, validated on the test images; data.json is what it was then."""
    splits = load(DataConfig(splits="two"), seed=5)
    order = np.random.default_rng(5).permutation(1797)
    everything = load(DataConfig()).train.pixels.shape[1:]
    assert splits.test is splits.validation and len(splits.test) == 180 and everything == (8, 8, 1)
    from sklearn.datasets import load_digits

    labels = load_digits().target
    np.testing.assert_array_equal(splits.test.labels, labels[np.sort(order[:180])])
    np.testing.assert_array_equal(splits.train.labels, labels[np.sort(order[180:])])
    assert list(splits.describe()) == ["classes", "notes", "train", "test"]
    assert list(load(DataConfig()).describe()) == ["classes", "notes", "train", "validation", "test"]


def test_a_run_folder_says_by_which_rule_it_was_split(tmp_path: Path) -> None:
    def rule(data: dict | None, config: dict | None) -> str:
        for name, content in (("data.json", data), ("config.json", config)):
            (tmp_path / name).unlink(missing_ok=True)
            if content is not None:
                (tmp_path / name).write_text(json.dumps(content))
        return rule_of_run(tmp_path, DataConfig()).splits

    former, now = {"train": {}, "test": {}}, {"train": {}, "validation": {}, "test": {}}
    of_then, of_today = {"config": {"data": {"dataset": "digits"}}}, {"config": {"data": {"splits": "two"}}}
    assert rule(former, of_then) == rule(former, None) == "two"
    assert rule(now, of_then) == rule(None, None) == rule(None, of_then) == "three"
    assert rule(former, of_today) == "three"  # a run of today that says "two": whoever asks for three is told


def test_a_class_without_training_images_is_none_to_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A data set's names are its own, whatever classes its images have; the network knows those that it can learn."""
    pixels = _noise(24)
    labels = np.array([0, 2] * 10 + [0, 1, 2, 1], np.int32)
    found = FoundImages(Images(pixels[:20], labels[:20]), Images(pixels[20:], labels[20:]), ("a", "b", "c"))
    monkeypatch.setitem(DATASETS, "digits", DATASETS["digits"]._replace(read=lambda *ignored: found))
    splits = load(DataConfig())
    assert splits.classes == ("a", "b", "c")
    of_network = splits.learnable()
    assert of_network.classes == ("a", "c") and of_network.learnable() is of_network
    assert set(np.asarray(of_network.train.labels)) == set(np.asarray(of_network.validation.labels)) == {0, 1}
    assert np.asarray(of_network.test.labels).tolist() == [0, 2, 1, 2]  # 2 of 2 classes: no class
    assert of_network.notes[-1].startswith("no training images of b: ")
    with session(DdpmConfig(devices="cpu"), DdpmConfig().training) as placement:
        setup = prepare(DdpmConfig(devices="cpu", unet=TINY), placement)
        assert setup.generator.classes == ("a", "c") and setup.generator.config.num_classes == 2
        assert set(np.asarray(setup.request.label)) == {0, 1}
        assert np.isfinite(_make_scorer(setup)(setup.splits.test)["loss"])


@pytest.mark.parametrize(("name", "count"), [("labels_1_to_10.npz", 10), ("ids.npz", None)])
def test_the_network_has_as_many_classes_as_occur(shared: Path, name: str, count: int | None) -> None:
    """Labels of 1 to 10 made 11 classes, and ids from 1,000,000 on a network of 128M parameters."""
    path = shared / "cases" / "images" / name
    with np.load(path) as file:
        occurring = len(np.unique(file["labels" if "labels" in file else "y_train"]))
    assert count is None or occurring == count
    splits = load(DataConfig(dataset="npz", data_path=path)).learnable()
    assert len(splits.classes) == occurring == len(np.unique(splits.train.labels))
    assert UNetConfig().for_images(splits.train.pixels.shape, len(splits.classes)).num_classes == occurring


def _run_of_then(path: Path, config: DdpmConfig) -> None:
    """The folder that a finished run of version 0.8 left, which knew neither three splits nor a variance of auto, and
    whose --features had the name of the protocol."""
    of_then = dataclasses.replace(config, data=dataclasses.replace(config.data, splits="two"))
    with Run.open(path, of_then, load(of_then.data, of_then.seed)):
        write_json(path / "result.json", {"test_loss": 0.25})
    about = read_object(path / "config.json")
    lines = (path / "flags.txt").read_text().replace("--variance=auto", "--variance=large").splitlines()
    lines[lines.index("--features=")] += "tf2015"
    for name in ("splits", "validation_share"):
        del about["config"]["data"][name]
        lines = [line for line in lines if not line.startswith(f"--{name}=")]
    write_json(path / "config.json", about)
    (path / "flags.txt").write_text("\n".join(lines) + "\n")


def test_a_finished_run_of_two_splits_still_answers(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    config = DdpmConfig(devices="cpu", unet=TINY)
    _run_of_then(tmp_path / "a", config)
    data = (tmp_path / "a" / "data.json").read_bytes()
    assert train_ddpm(config, tmp_path / "a") == {"test_loss": 0.25}
    assert "finished before, test loss 0.25" in capsys.readouterr().out
    assert (tmp_path / "a" / "data.json").read_bytes() == data
    write_json(tmp_path / "a" / "data.json", read_object(tmp_path / "a" / "data.json") | {"classes": ["other"]})
    with pytest.raises(UserError, match=r"made of other data \(classes; see its data\.json\); choose another folder$"):
        train_ddpm(config, tmp_path / "a")
    chosen = dataclasses.replace(config, training=dataclasses.replace(config.training, select="loss"))
    _run_of_then(tmp_path / "b", chosen)  # its weights are the best of the test images, and so is its figure
    with pytest.raises(UserError, match=r"chose the weights by the test images.* or see them with --splits=two"):
        train_ddpm(chosen, tmp_path / "b")
    two = dataclasses.replace(chosen, data=dataclasses.replace(chosen.data, splits="two"))
    assert train_ddpm(two, tmp_path / "b") == {"test_loss": 0.25}


@pytest.mark.parametrize(("field", "share"), [("test_share", 0), ("validation_share", 0), ("validation_share", 1)])
def test_shares_lie_between_0_and_1(field: str, share: float) -> None:
    with pytest.raises(UserError, match=rf"--{field}={float(share)} must"):
        DataConfig(**{field: share})  # type: ignore[arg-type]


@pytest.mark.parametrize("splits", ["three", "two"])
def test_parts_that_do_not_fit_one_another(splits: str, monkeypatch: pytest.MonkeyPatch) -> None:
    label = np.zeros(9, np.int32)
    small, large = Images(_noise(9), label), Images(_noise(9)[:, :2], label)
    for found, message in (
        (
            FoundImages(small, small, ("a",), validation=large),
            r"training images are \(4, 4, 1\) and validation images \(2, 4",
        ),
        (FoundImages(small, Images(small.pixels, None), ("a",)), "only one of the training and test images has labels"),
        (FoundImages(small, small.take(np.arange(0)), ("a",)), "no test images"),
        (FoundImages(small, None, ()), "labels from 0 to 0, and 0 classes"),
    ):
        monkeypatch.setitem(DATASETS, "digits", DATASETS["digits"]._replace(read=lambda *ignored, found=found: found))
        with pytest.raises(UserError, match=message):
            load(DataConfig(splits=splits))


def test_one_class_that_is_left_is_said_with_the_shares(one_replica: Placement) -> None:
    config = DdpmConfig(devices="cpu", unet=TINY, data=DataConfig(test_share=0.999))
    message = refused(lambda: prepare(config, one_replica))
    assert message.startswith("--class_conditional: digits has one class, ")
    assert message.endswith(
        ", of 10 in its 1 training image (--test_share=0.999, --validation_share=0.1): hold out fewer images, or use "
        "--noclass_conditional"
    )


def test_what_is_wrong_with_the_parts_is_said(tmp_path: Path) -> None:
    for count in (1, 2):
        with pytest.raises(UserError, match=r"too few to hold 1 out for (test|validation); add images"):
            load(_npz(tmp_path / "a.npz", images=_noise(count)))
    with pytest.raises(UserError, match="has labels; give both labels, or none"):
        load(_npz(tmp_path / "b.npz", x_train=_noise(9), y_train=np.arange(9) % 2, x_test=_noise(3)))


@pytest.mark.parametrize("labelled", [False, True])
def test_pages_of_a_file_are_on_one_side(tmp_path: Path, labelled: bool) -> None:
    """Neighbours in a video or a stack are almost copies, which no comparison of pixels finds."""
    pixels = _noise(24 * 5)
    pixels[7] = pixels[93]  # an image that two files have
    for number in range(24):
        pages = [Image.fromarray(image[..., 0]) for image in pixels[5 * number : 5 * number + 5]]
        path = tmp_path / "in" / (f"{number % 2}" if labelled else "") / f"{number:02d}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        pages[0].save(path, save_all=True, append_images=pages[1:])
    splits = load(DataConfig(dataset="folder", data_path=tmp_path / "in", frames="all"))
    found = _rows(splits, pixels)
    files = {name: {row // 5 for row in rows} - {1} for name, rows in found.items()}  # the copy is in file 1 and 18
    assert sum(map(len, files.values())) == 23 and all(files.values())
    assert len({name for name, rows in found.items() if {5, 93} & set(rows)}) == 1
    assert splits.notes[-1] == "all frames and pages of a file are in the same split"


def test_one_file_of_pages_is_divided_and_said(tmp_path: Path) -> None:
    pages = [Image.fromarray(image[..., 0]) for image in _noise(20)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    splits = load(DataConfig(dataset="folder", data_path=tmp_path, frames="all"))
    assert [len(images) for images in splits.parts().values()] == [16, 2, 2]
    assert splits.notes[-1] == "too few files to keep the frames and pages of a file in one split"
