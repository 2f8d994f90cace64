"""Sampling: image i of seed s is one image, on any batch size and number of devices."""

import json
from pathlib import Path

import numpy as np
import pytest

from diffusion.generator import Generator, Wish, slerp
from diffusion.neighbours import nearest
from diffusion.process import DiffusionProcess
from diffusion.samplers import SamplerConfig
from diffusion.unet import UNetConfig
from training.errors import UserError
from training.strategy import Placement

CLASSES = ("a", "b", "c")


def _generator(placement: Placement, classes: tuple[str, ...] = CLASSES) -> Generator:
    config = UNetConfig(4, 4, 1, 8, (1, 2), 1, (2,), num_groups=4, num_classes=len(classes))
    generator = Generator(config, DiffusionProcess(50, "cosine"), classes, placement)
    rng = np.random.default_rng(0)
    weights = [rng.normal(0, 0.3, w.shape) if w.dtype == np.float32 else w for w in generator.model.get_weights()]
    generator.model.set_weights(weights)
    return generator


def _differ(a: np.ndarray, b: np.ndarray) -> int:
    """Largest difference in gray levels; rounding of convolutions of other batch sizes may tip one."""
    return int(np.abs(a.astype(int) - b.astype(int)).max())


@pytest.mark.parametrize("sampler", [SamplerConfig("ancestral", 20, variance="small"), SamplerConfig("dpm++", 8)])
def test_an_image_is_the_same_in_any_batch_and_on_any_devices(
    sampler: SamplerConfig, one_replica: Placement, two_replicas: Placement
) -> None:
    generator = _generator(one_replica)
    wish = Wish(np.arange(7), np.arange(7) % 3)
    expected = generator.images(sampler, wish, seed=3, batch_size=7)
    assert len(np.unique(expected.reshape(7, -1), axis=0)) == 7
    alone = generator.images(sampler, Wish(np.array([5]), np.array([2])), seed=3)
    for found, wanted in (
        (generator.images(sampler, wish, 3, 2), expected),
        (alone, expected[5:6]),
        (_generator(one_replica._replace(shards=2)).images(sampler, wish, 3, 4), expected),
        (_generator(two_replicas).images(sampler, wish, 3, 4), expected),
    ):
        assert found.shape == wanted.shape and _differ(found, wanted) <= 1
    assert _differ(generator.images(sampler, wish, 4), expected) > 20


def test_guidance_extrapolates_from_the_unconditional_prediction(one_replica: Placement) -> None:
    generator = _generator(one_replica)
    index, label = np.arange(4), np.array([0, 1, 2, 0])
    one_step = [SamplerConfig("ddim", 1, guidance=w, clip=False) for w in (0.0, 1.0, 2.0)]
    # One DDIM step returns x̂_0, which is linear in the guidance until it is cut to the range of pixels.
    none, full, more = (generator.images(config, Wish(index, label)).astype(float) for config in one_step)
    np.testing.assert_allclose(none, generator.images(one_step[1], Wish(index)), atol=1)
    inside = (more > 2) & (more < 253) & (full > 0) & (full < 255) & (none > 0) & (none < 255)
    np.testing.assert_allclose(more[inside], (2 * full - none)[inside], atol=2)


def test_interpolation_has_the_two_seeds_at_its_ends(one_replica: Placement) -> None:
    generator, sampler = _generator(one_replica), SamplerConfig("ddim", 10)
    wish = Wish(np.full(5, 2), np.zeros(5, int), np.linspace(0, 1, 5))
    row = np.concatenate([part["image"] for part in generator.stream(sampler, wish, seed=0, to_seed=9)])
    one = Wish(np.array([2]), np.array([0]))
    assert _differ(row[:1], generator.images(sampler, one, 0)) <= 1
    assert _differ(row[-1:], generator.images(sampler, one, 9)) <= 1
    assert _differ(row[2:3], row[:1]) > 5


def test_slerp_by_hand() -> None:
    a, b = np.array([[[1.0, 0.0]]], np.float32), np.array([[[0.0, 2.0]]], np.float32)
    half = np.asarray(slerp(a, b, np.array([0.5], np.float32)))
    np.testing.assert_allclose(half, [[[0.5**0.5, 2 * 0.5**0.5]]], rtol=1e-6)


def test_frames_end_at_the_image(one_replica: Placement) -> None:
    generator, sampler = _generator(one_replica), SamplerConfig("ddim", 12)
    (part,) = generator.stream(sampler, Wish(np.arange(3), np.arange(3)), num_frames=4)
    assert part["frames"].shape == (3, 4, 4, 4, 1)
    np.testing.assert_array_equal(part["frames"][:, -1], part["image"])  # DDIM's last step returns x̂_0
    assert _differ(part["frames"][:, 0], part["image"]) > 5


def test_frames_of_fewer_rows_are_all_there(one_replica: Placement) -> None:
    generator = _generator(one_replica)
    (part,) = generator.stream(SamplerConfig("ddim", 3), Wish(np.arange(2), np.arange(2)), num_frames=30)
    assert part["frames"].shape[1] == 3
    assert all(frame.std() > 0 for frame in part["frames"].reshape(-1, 16))


def test_saved_and_loaded_it_draws_the_same(tmp_path: Path, one_replica: Placement) -> None:
    generator, sampler = _generator(one_replica), SamplerConfig("unipc", 6)
    generator.save(tmp_path)
    loaded = Generator.load(tmp_path, one_replica)
    assert (loaded.config, loaded.process, loaded.classes) == (generator.config, generator.process, generator.classes)
    assert loaded.fingerprint() == generator.fingerprint()
    wish = Wish(np.arange(3), np.arange(3))
    np.testing.assert_array_equal(loaded.images(sampler, wish), generator.images(sampler, wish))
    other = Generator(UNetConfig(4, 4, 1, 8, (1, 1), 1, (2,), num_groups=4), generator.process, (), one_replica)
    other.save_config(tmp_path)
    with pytest.raises(UserError, match="checkpoint of another model"):
        Generator.load(tmp_path, one_replica)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="not a generator's configuration"):
        Generator.load(tmp_path, one_replica)
    (tmp_path / "config.json").write_text(
        json.dumps({"unet": {"num_classes": 3}, "process": {"num_steps": 10}, "classes": ["a"]})
    )
    with pytest.raises(UserError, match="not a generator's configuration"):
        Generator.load(tmp_path, one_replica)
    with pytest.raises(UserError, match="no trained model there"):
        Generator.load(tmp_path / "nowhere", one_replica)


def test_wishes_that_cannot_come_true(one_replica: Placement) -> None:
    with pytest.raises(UserError, match="class numbers must lie between 0 and 2"):
        _generator(one_replica).images(SamplerConfig("ddim", 2), Wish(np.arange(1), np.array([3])))
    with pytest.raises(UserError, match="needs classes to be guided to"):
        _generator(one_replica).images(SamplerConfig("ddim", 2, guidance=2.0), Wish(np.arange(1)))
    with pytest.raises(UserError, match="trained without classes"):
        _generator(one_replica, ()).images(SamplerConfig("ddim", 2), Wish(np.arange(1), np.array([0])))


def test_nearest_by_hand() -> None:
    train = np.zeros((2, 2, 2, 1), np.uint8)
    train[1] = 255
    query = np.full((1, 2, 2, 1), 204, np.uint8)
    found = nearest(query, train)
    assert found.row.tolist() == [1]
    train[0, :, 1] = 200
    assert nearest(train[:1, :, ::-1], train).distance[0] > 0.3
    assert nearest(train[:1, :, ::-1], train, mirrored=True).distance[0] == 0
    np.testing.assert_allclose(found.distance, [51 / 255], rtol=1e-5)
