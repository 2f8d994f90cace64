"""--init_from of ddpm: a run that goes on from a finished one, on other images, classes or sizes."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from diffusion.config import DdpmConfig
from diffusion.continuing import Source, network_of, start_from
from diffusion.data.datasets import Splits
from diffusion.data.pixel_ranges import Range
from diffusion.data.readers import Images
from diffusion.enlarging import network_for
from diffusion.generator import WEIGHTS, Generator
from diffusion.network.config import UNetConfig
from diffusion.process.config import ProcessConfig
from diffusion.process.process import make_process
from files.documents import file_sha256, read_object, write_json
from files.errors import UserError
from tests.little_ddpm import TINY, weights_of
from tests.scripts import fails, succeeds
from training.continuing import find_origin
from training.placement import make_placement
from training.randomness import seeded

UNET = UNetConfig(
    8, 8, 1, base_width=8, channel_multipliers=(1, 2), num_blocks=1, attention_resolutions=(4,), num_groups=4
)
CLASSES = ("cat", "dog", "owl")


def _images(count: int, side: int, labels: int = 0) -> Images:
    pixels = np.random.default_rng(0).integers(0, 256, (count, side, side, 1), np.uint8)
    return Images(pixels, np.arange(count, dtype=np.int32) % labels if labels else None)


def _splits(side: int = 8) -> Splits:
    return Splits((), _images(3, side), _images(3, side), _images(3, side))


@pytest.fixture(scope="module")
def source() -> Source:
    """A network of three classes whose every weight says which it is."""
    generator = Generator(
        dataclasses.replace(UNET, num_classes=3), make_process(ProcessConfig()), CLASSES, make_placement("cpu:1")
    )
    rng = np.random.default_rng(1)
    for variable in generator.model.trainable_variables:
        variable.assign(rng.normal(0, 0.1, variable.shape))
    return Source(Path("run"), generator, "abc", True)


def _started(source: Source, classes: tuple[str, ...], side: int = 8) -> tuple[Generator, tuple[str, ...]]:
    wanted = DdpmConfig().unet.for_images((1, side, side, 1), len(classes))
    network = network_of(source, wanted, ProcessConfig())
    generator = Generator(network, make_process(ProcessConfig()), classes, source.trained.placement)
    return generator, start_from(source, generator, wanted, _splits(side))


def _predicted(generator: Generator, *labels: int) -> np.ndarray:
    """[N, ...]: of one image at one time, for each label; no label for a network without classes."""
    count = len(labels) or 1
    x = np.repeat(np.random.default_rng(2).normal(size=(1, *generator.shape)).astype(np.float32), count, axis=0)
    inputs = [x, np.full(count, 300.0, np.float32)] + ([np.array(labels, np.int32)] if labels else [])
    return np.asarray(generator.model(inputs))


def test_classes_are_known_by_their_names(source: Source) -> None:
    with seeded(0):  # of the new class's vector
        generator, notes = _started(source, ("emu", "owl", "cat"))
    assert notes[0] == "starts from the weights of run; new classes: emu; without dog"
    here, there = _predicted(generator, 0, 1, 2, 3), _predicted(source.trained, 0, 1, 2, 3)
    for row, before in ((1, 2), (2, 0), (3, 3)):  # owl, cat and no class
        np.testing.assert_allclose(here[row], there[before], rtol=1e-5, atol=1e-6)
    assert all(abs(here[0] - row).max() > 5e-4 for row in there)


def test_a_network_gains_and_loses_its_classes(source: Source) -> None:
    """An image of no class is predicted as before."""
    none, _ = _started(source, ())
    expected = _predicted(source.trained, 3)
    np.testing.assert_allclose(_predicted(none), expected, rtol=1e-5, atol=1e-6)
    again, notes = _started(source._replace(trained=none), CLASSES)
    new, no_class = _predicted(again, 0, 3)
    np.testing.assert_allclose(no_class, expected[0], rtol=1e-5, atol=1e-6)
    assert notes[0] == "starts from the weights of run; new classes: cat, dog, owl"
    assert abs(new - no_class).max() > 1e-4


def test_attention_stays_at_its_level_whatever_the_size(source: Source) -> None:
    generator, notes = _started(source, CLASSES, side=16)
    assert generator.shape == (16, 16, 1) and generator.config.attention_resolutions == (8,)
    assert "the network is that of run: base_width 8, num_blocks 1, attention_resolutions 8, num_groups 4" in notes[1]
    there = {variable.path: np.asarray(variable) for variable in source.trained.model.trainable_variables}
    here = {variable.path: np.asarray(variable) for variable in generator.model.trainable_variables}
    assert here.keys() == there.keys() and all(np.array_equal(here[name], there[name]) for name in here)
    # Flags of the source's own flags.txt, and those that say the same at the new size, are no contradiction.
    for heights in ((4,), (8,)):
        wanted = dataclasses.replace(UNET, height=16, width=16, attention_resolutions=heights, num_classes=3)
        assert network_of(source, wanted, ProcessConfig()) == generator.config
    assert network_of(source, dataclasses.replace(UNET, dropout=0.3), ProcessConfig()).dropout == 0.3


def test_images_of_another_range_are_said(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source.trained, "range", Range(300, 1920))
    generator, notes = _started(source, CLASSES)
    assert "the images of run had 300…1920 black and white and these have 8 bits" in notes
    generator.range = source.trained.range
    assert not any("black" in note for note in start_from(source, generator, generator.config, _splits()))


def test_every_difference_is_named(source: Source) -> None:
    def refused(process: ProcessConfig | None = None, **changes: object) -> str:
        with pytest.raises(UserError) as error:
            network_of(source, dataclasses.replace(UNET, **changes), process or ProcessConfig())  # type: ignore[arg-type]
        return str(error.value)

    message = refused(base_width=16, channel_multipliers=(1, 2, 4), num_blocks=3, channels=3)
    for text in (
        "channels 1 there, 3 here",
        "--base_width 8 there, 16 here",
        "--num_blocks 1 there, 3 here",
        "--channel_multipliers 1,2 there, 1,2,4 here",
        "leave out the flags",
        "images of 1 channel",
    ):
        assert text in message
    assert "--attention_resolutions 8 there, 16 here" in refused(height=16, width=16, attention_resolutions=(16,))
    assert "--channels" not in refused(base_width=16)
    assert "images of 9×9 cannot be halved" in refused(height=9, width=9)
    message = refused(ProcessConfig(diffusion_steps=50, noise_schedule="cosine", target="v"))
    for text in ("--diffusion_steps 1000 there, 50 here", "--noise_schedule linear there, cosine here", "--target eps",
                 "for which its weights are wrong"):  # fmt: skip
        assert text in message


def test_another_factor_of_enlarging_is_refused(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the name of its flag, also where networks of both see as many channels."""

    def network(factor: int, side: int = 8, channels: int = 1) -> UNetConfig:
        wanted = dataclasses.replace(UNET, height=side, width=side, channels=channels)
        return network_of(source, network_for(factor, wanted), ProcessConfig(), factor)

    with pytest.raises(UserError, match=r"other inputs: 0 there, 2 here; leave out --enlarge, or"):
        network(2)
    seeing = dataclasses.replace(source.trained.config, condition_channels=1)
    monkeypatch.setattr(source.trained, "config", seeing)
    monkeypatch.setattr(source.trained, "enlarge", 2)
    for factor in (0, 4):
        with pytest.raises(UserError, match=f"other inputs: 2 there, {factor} here; set --enlarge=2, or"):
            network(factor)
    assert network(2, side=16).condition_channels == 1
    with pytest.raises(UserError, match=r"channels 1 there, 3 here; it needs images of 1 channel") as error:
        network(2, channels=3)
    assert "condition_channels" not in str(error.value)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "one"
    succeeds("ddpm", *TINY, f"--run_dir={path}")
    return path


SAME = [flag for flag in TINY if flag.partition("=")[0] not in ("--base_width", "--num_blocks", "--num_groups")]


@pytest.mark.slow
def test_nothing_is_lost_on_the_way(trained: Path, tmp_path: Path) -> None:
    """With a rate of zero the weights and the loss stay those of the source, whose network need not be said again."""
    more = [*SAME, f"--init_from={trained}", "--learning_rate=0", f"--run_dir={tmp_path / 'two'}"]
    done = succeeds("ddpm", *more, "--num_steps=2")
    assert f"note: starts from the weights of {trained}\n" in done and "are not those of" not in done
    first, second = (read_object(path / "result.json") for path in (trained, tmp_path / "two"))
    for name in ("val_loss", "test_loss"):
        assert second[name] == pytest.approx(first[name], rel=1e-6)
    ours, theirs = weights_of(tmp_path / "two"), weights_of(trained)
    assert ours.keys() == theirs.keys() and all(np.array_equal(ours[name], theirs[name]) for name in ours)
    about = read_object(tmp_path / "two" / "data.json")
    assert len(about["init_from"]) == 64 and not (tmp_path / "two" / "start").exists()


@pytest.mark.slow
def test_a_source_that_was_exchanged_is_refused_and_one_that_is_gone_is_not(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "one")
    more = [*SAME, f"--init_from={tmp_path / 'one'}", "--num_steps=2"]
    succeeds("ddpm", *more, f"--run_dir={tmp_path / 'two'}")
    begun = tmp_path / "three"  # as a run is left that was killed before its first checkpoint
    shutil.copytree(tmp_path / "two", begun, ignore=shutil.ignore_patterns("checkpoints", "result.json", "model"))
    flags = (begun / "flags.txt").read_text()
    shutil.copytree(tmp_path / "one" / "model", begun / "start")
    shutil.move(tmp_path / "one", tmp_path / "elsewhere")
    assert "finished before" in succeeds("ddpm", *more, f"--run_dir={tmp_path / 'two'}")
    succeeds("ddpm", *more, f"--run_dir={begun}")
    ours, theirs = weights_of(begun), weights_of(tmp_path / "two")
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs) and not (begun / "start").exists()
    assert "no trained model there" in fails("ddpm", *more, f"--run_dir={tmp_path / 'four'}")
    shutil.copytree(tmp_path / "two", tmp_path / "one")  # another run in its place
    for name in ("two", "three"):
        assert "was made of other data (init_from;" in fails("ddpm", *more, f"--run_dir={tmp_path / name}")
    assert (begun / "flags.txt").read_text() == flags and not (tmp_path / "four").exists()


def test_where_the_source_is(source: Source, tmp_path: Path) -> None:
    """Its own folder; where that is gone, what the run has that began with it."""
    run, other = tmp_path / "one", tmp_path / "two"
    with pytest.raises(UserError, match=r"one: no trained model there"):
        find_origin(run, WEIGHTS, other)
    source.trained.save(run / "model")
    origin = find_origin(run, WEIGHTS, other)
    assert origin == (run / "model", file_sha256(run / "model" / WEIGHTS), True)
    write_json(other / "data.json", {"init_from": "abc"})
    assert not find_origin(run, WEIGHTS, other).is_new
    shutil.rmtree(run)
    with pytest.raises(UserError, match=r"no trained model there"):
        Generator.load(find_origin(run, WEIGHTS, other).folder, source.trained.placement)
    for name in ("model", "start"):  # the copy with which it began comes first
        source.trained.save(other / name)
        assert find_origin(run, WEIGHTS, other) == (other / name, "abc", False)
    with pytest.raises(UserError, match=r"no trained model there"):
        find_origin(run, WEIGHTS, tmp_path / "three")


def test_mistakes(source: Source, tmp_path: Path) -> None:
    run, more = tmp_path / "one", ["--devices=cpu", f"--run_dir={tmp_path / 'two'}"]
    source.trained.save(run / "model")
    source.trained.save_config(tmp_path / "unfinished" / "model")
    published = tmp_path / "published" / "unet"
    published.mkdir(parents=True)
    (published / "diffusion_pytorch_model.bin").write_bytes(b"")
    linear = [f"--init_from={run}", "--noise_schedule=linear"]
    for flags, message in (
        ([f"--init_from={tmp_path / 'none'}"], "no trained model there"),
        ([f"--init_from={tmp_path / 'unfinished'}"], "its training has not ended"),
        ([f"--init_from={published.parent}"], "is a published model"),
        ([f"--init_from={run}"], "--noise_schedule linear there, cosine here"),
        ([*linear, "--target=v"], "--target eps there, v here"),
        ([*linear, "--base_width=16"], "--base_width 8 there, 16 here"),
        ([*linear, "--num_steps=0", "--dataset=npz", "--data_path=none.npz"], "none.npz"),
    ):
        assert message in fails("ddpm", *more, *flags)
        assert not (tmp_path / "two").exists()
