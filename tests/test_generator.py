"""Sampling: image i of seed s is one image, on any batch size and number of devices."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras import ops

from diffusion.batches import ImageBatch, sample_batches
from diffusion.fid.neighbours import nearest
from diffusion.generator import Generator, ImageRequest
from diffusion.network.config import UNetConfig
from diffusion.process import noise
from diffusion.process.config import ProcessConfig, SamplerConfig
from diffusion.process.objective import Conditioning, make_loss_fn
from diffusion.process.process import make_process
from diffusion.published import open_generator
from diffusion.sampling.loop import slerp
from files.documents import read_object, write_json
from files.errors import UserError
from files.tensors import read_tensors, write_tensors
from training.backends import Placement
from training.draws import EVALUATION, Place
from training.named_arrays import write_weights
from training.placement import make_placement
from training.session import precision

CLASSES = ("a", "b", "c")
UNET = UNetConfig(4, 4, 1, 8, (1, 2), 1, (2,), num_groups=4)
PROCESS = make_process(ProcessConfig(50, "cosine"))
DDIM = SamplerConfig("ddim", 6)


def _generator(placement: Placement, classes: tuple[str, ...] = CLASSES) -> Generator:
    with precision("float32"):  # a process without a session has TensorFlow's default
        generator = Generator(dataclasses.replace(UNET, num_classes=len(classes)), PROCESS, classes, placement)
    rng = np.random.default_rng(0)
    weights = [rng.normal(0, 0.3, w.shape) if w.dtype == np.float32 else w for w in generator.model.get_weights()]
    generator.model.set_weights(weights)
    return generator


@pytest.fixture(scope="module")
def generator() -> Generator:
    """One for all tests: it keeps the graphs that it has compiled."""
    return _generator(make_placement("cpu", shards=1))


def _differ(a: np.ndarray, b: np.ndarray) -> int:
    """Largest difference in gray levels; rounding of convolutions of other batch sizes may tip one."""
    return int(np.abs(a.astype(int) - b.astype(int)).max())


def test_an_image_is_the_same_in_any_batch_and_on_any_devices(generator: Generator, two_replicas: Placement) -> None:
    """With noise in every step; what a sampler does with its predictions is the table's, see test_samplers."""
    sampler = SamplerConfig("ancestral", 20, variance="small")
    request = ImageRequest(np.arange(7), np.arange(7) % 3, seed=3)
    expected = generator.images(sampler, request, batch_size=7)
    assert len(np.unique(expected.reshape(7, -1), axis=0)) == 7
    alone = generator.images(sampler, ImageRequest(np.array([5]), np.array([2]), seed=3))
    for found, wanted in (
        (generator.images(sampler, request, 2), expected),
        (alone, expected[5:6]),
        (generator.images(sampler, request.after(4), 2), expected[4:]),
        (_generator(two_replicas).images(sampler, request, 4), expected),
    ):
        assert found.shape == wanted.shape and _differ(found, wanted) <= 1
    assert _differ(generator.images(sampler, dataclasses.replace(request, seed=4), 7), expected) > 20


def test_nothing_is_drawn_for_two_purposes(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training, evaluation and sampling under one seed, of images of the same numbers."""
    seen: dict[str, set[tuple[int, int]]] = {}
    pairs = noise._pairs

    def recorded(seed: Any, which: Any, stream: Any, count: int) -> tuple[Any, Any]:
        drawn = {(int(number), int(stream)) for number in np.asarray(which)}
        assert drawn.isdisjoint(seen[purpose]), "the same numbers twice"
        seen[purpose] |= drawn
        return pairs(seed, which, stream, count)

    monkeypatch.setattr(noise, "_pairs", recorded)
    numbers, ones = np.arange(4, dtype=np.int32), np.ones(4, np.float32)
    label = ops.convert_to_tensor(numbers % 3)
    batch = ImageBatch(np.zeros((4, 4, 4, 1), np.uint8), label, numbers, ones)
    loss_fn = make_loss_fn(generator.model, PROCESS, Conditioning(len(CLASSES)))
    purpose, seen["training"] = "training", set()
    loss_fn(batch, True, Place(7, 0))
    purpose, seen["evaluation"] = "evaluation", set()
    loss_fn(batch, False, Place(7, EVALUATION))
    purpose, seen["sampling"] = "sampling", set()
    sampler = SamplerConfig("ancestral", 5)
    (whole,) = sample_batches(ImageRequest(numbers, numbers % 3, seed=7), 3, 4).make()
    generator._make_sample_fn(sampler, False, 0)(whole._replace(label=label))
    assert len(seen["training"]) == 4 * 3 and len(seen["sampling"]) == 4 * (1 + 5)
    assert len(set.union(*seen.values())) == sum(map(len, seen.values()))
    rows = 2 * 10**6  # of heun with as many steps as a process may have
    assert noise.sampling_stream(rows) < 2**32 and noise.sampling_stream() > max(noise.LABEL, noise.EVALUATION)


def test_guidance_extrapolates_from_the_unconditional_prediction(generator: Generator) -> None:
    index, label = np.arange(4), np.array([0, 1, 2, 0])
    one_step = [SamplerConfig("ddim", 1, guidance=w, clip=False) for w in (0.0, 1.0, 2.0)]
    # One DDIM step returns x̂_0, which is linear in the guidance until it is cut to the range of pixels.
    none, full, more = (generator.images(config, ImageRequest(index, label)).astype(float) for config in one_step)
    np.testing.assert_allclose(none, generator.images(one_step[1], ImageRequest(index)), atol=1)
    inside = (more > 2) & (more < 253) & (full > 0) & (full < 255) & (none > 0) & (none < 255)
    np.testing.assert_allclose(more[inside], (2 * full - none)[inside], atol=2)


@pytest.mark.slow
def test_interpolation_has_the_two_seeds_at_its_ends(generator: Generator) -> None:
    row = generator.images(DDIM, ImageRequest(np.full(5, 2), np.zeros(5, int), 0, 9, np.linspace(0, 1, 5)))
    ends = [generator.images(DDIM, ImageRequest(np.array([2]), np.array([0]), seed)) for seed in (0, 9)]
    assert _differ(row[:1], ends[0]) <= 1
    assert _differ(row[-1:], ends[1]) <= 1
    assert _differ(row[2:3], row[:1]) > 5


def test_slerp_by_hand() -> None:
    a, b = np.array([[[1.0, 0.0]]], np.float32), np.array([[[0.0, 2.0]]], np.float32)
    half = np.asarray(slerp(a, b, np.array([0.5], np.float32)))
    np.testing.assert_allclose(half, [[[0.5**0.5, 2 * 0.5**0.5]]], rtol=1e-6)


def test_frames_end_at_the_image_and_are_no_more_than_rows(generator: Generator) -> None:
    (part,) = generator.stream(DDIM, generator.request(np.arange(3)), num_frames=30)
    assert part["frames"].shape == (3, 6, 4, 4, 1)
    assert all(frame.std() > 0 for frame in part["frames"].reshape(-1, 16))
    np.testing.assert_array_equal(part["frames"][:, -1], part["image"])  # DDIM's last step returns x̂_0
    assert _differ(part["frames"][:, 0], part["image"]) > 5


def test_saved_and_loaded_it_draws_the_same(tmp_path: Path, generator: Generator, one_replica: Placement) -> None:
    generator.save(tmp_path)
    loaded = Generator.load(tmp_path, one_replica)
    assert (loaded.config, loaded.process, loaded.classes) == (generator.config, generator.process, generator.classes)
    assert loaded.fingerprint() == generator.fingerprint()
    request = generator.request(np.arange(3))
    np.testing.assert_array_equal(loaded.images(DDIM, request), generator.images(DDIM, request))


def test_a_model_of_an_earlier_version_is_read(tmp_path: Path, generator: Generator, one_replica: Placement) -> None:
    generator.save(tmp_path)
    earlier = {
        "unet": {"height": 4, "width": 4, "channels": 1, "base_width": 8, "multipliers": [1, 2], "num_blocks": 1,
                 "attention_sizes": [2], "num_heads": 1, "dropout": 0.1, "num_groups": 4, "num_classes": 3},
        "process": {"num_steps": 50, "schedule": "cosine", "zero_terminal_snr": False, "target": "eps"},
        "classes": ["a", "b", "c"],
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(earlier))
    assert Generator.load(tmp_path, one_replica).fingerprint() == generator.fingerprint()


def test_folders_that_hold_no_model(tmp_path: Path, generator: Generator, one_replica: Placement) -> None:
    generator.save(tmp_path)
    Generator.load(tmp_path, one_replica)
    other = dataclasses.replace(UNET, channel_multipliers=(1, 1), attention_resolutions=(2,))
    Generator(other, PROCESS, (), one_replica).save_config(tmp_path)
    with pytest.raises(UserError, match="checkpoint of another model"):
        Generator.load(tmp_path, one_replica)
    for content in (
        {"unet": {}, "process": {}, "classes": [], "precision": "float16"},
        {"unet": {}, "process": {}, "classes": [], "precision": ["float32"]},
        {"unet": {}, "process": {}, "classes": [], "precision": None},
        {"unet": {"num_classes": 3}, "process": {}, "classes": "abc"},
        {"unet": {"num_classes": 2}, "process": {}, "classes": [1, 2]},
        {"unet": {"num_classes": 2}, "process": {}, "classes": ["a", "a"]},
        {"unet": {"num_classes": 2}, "process": {}, "classes": {"a": 1, "b": 2}},
        {"unet": {"num_classes": 4}, "process": {}, "classes": [["a"] * 1000] * 3},
        {"unet": {"wheels\nand more": 4}, "process": {}, "classes": []},
        {"unet": [], "process": {}, "classes": []},
        {"unet": {}, "process": "x", "classes": []},
        {"unet": {"base_width": 65536}, "process": {}, "classes": []},
        {"unet": {"num_blocks": 1000}, "process": {}, "classes": []},
        {"unet": {"num_classes": 2**20}, "process": {}, "classes": [str(k) for k in range(2**20)]},
        {},
        {"unet": {"num_classes": 3}, "process": {"num_steps": 10}, "classes": ["a"]},
        {"unet": {"base_width": "8"}, "process": {"num_steps": 10}, "classes": []},
        {"unet": {}, "process": {"num_steps": 1.5}, "classes": []},
        {"unet": {"wheels": 4}, "process": {"num_steps": 10}, "classes": []},
    ):
        (tmp_path / "config.json").write_text(json.dumps(content))
        with pytest.raises(UserError, match="not a generator's configuration") as error:
            Generator.load(tmp_path, one_replica)
        assert "\n" not in str(error.value) and len(str(error.value)) < 1000
    with pytest.raises(UserError, match="no trained model there"):
        Generator.load(tmp_path / "nowhere", one_replica)


def test_weights_are_those_that_were_saved_with_the_configuration(
    tmp_path: Path, generator: Generator, one_replica: Placement
) -> None:
    """Weights of another run have the same names and shapes."""
    generator.save(tmp_path / "a")
    other = _generator(one_replica)
    other.model.set_weights([weight + 1 for weight in other.model.get_weights()])
    other.save(tmp_path / "b")
    shutil.copy(tmp_path / "b" / "weights.safetensors", tmp_path / "a")
    with pytest.raises(UserError, match=r"weights\.safetensors: damaged or replaced"):
        Generator.load(tmp_path / "a", one_replica)
    (tmp_path / "a" / "weights.safetensors").unlink()
    with pytest.raises(UserError, match=r"weights\.safetensors: no such file"):
        Generator.load(tmp_path / "a", one_replica)
    assert Generator.load(tmp_path / "b", one_replica).fingerprint() == other.fingerprint()


def test_an_unfinished_run_has_the_weights_of_its_last_evaluation(
    tmp_path: Path, generator: Generator, one_replica: Placement
) -> None:
    generator.save_config(tmp_path / "model")
    assert read_object(tmp_path / "model" / "config.json")["files"] == {}
    write_weights(tmp_path / "checkpoints" / "best.safetensors", generator.model.variables)
    assert Generator.of_run(tmp_path, one_replica).fingerprint() == generator.fingerprint()
    generator.save(tmp_path / "model")  # it ends, and its weights are moved away
    (tmp_path / "model" / "weights.safetensors").unlink()
    with pytest.raises(UserError, match=r"weights\.safetensors: no such file"):
        Generator.of_run(tmp_path, one_replica)


@pytest.mark.parametrize(
    ("select", "said"),
    [
        ("loss", "the weights are those after step 1,200, the best so far by the validation figure 'loss' (--select)"),
        ("", "the weights are those after step 1,200, of its last evaluation"),
    ],
)
def test_the_weights_of_an_unfinished_run_are_said(
    tmp_path: Path, generator: Generator, one_replica: Placement, select: str, said: str
) -> None:
    """Whoever opens it: fid and edit_images too."""
    generator.save_config(tmp_path / "model")
    best = tmp_path / "checkpoints" / "best.safetensors"
    write_weights(best, generator.model.variables)
    write_tensors(best, read_tensors(best)[0], {"step": "1200"})
    write_json(tmp_path / "config.json", {"config": {"training": {"select": select}}})
    assert open_generator(tmp_path, one_replica).notes == (f"{tmp_path}: training has not ended; {said}",)
    generator.save(tmp_path / "model")
    assert not open_generator(tmp_path, one_replica).notes


def test_requests_that_cannot_be_met(generator: Generator, one_replica: Placement) -> None:
    with pytest.raises(UserError, match="class numbers must lie between 0 and 2"):
        generator.images(DDIM, ImageRequest(np.arange(1), np.array([3])))
    with pytest.raises(UserError, match=r"guidance 2\.0 needs classes"):
        generator.images(dataclasses.replace(DDIM, guidance=2.0), ImageRequest(np.arange(1)))
    with pytest.raises(UserError, match="51 sampling steps of a process with T = 50"):
        generator.images(SamplerConfig("ddim", 51), ImageRequest(np.arange(1)))
    with pytest.raises(UserError, match="trained without classes"):
        _generator(one_replica, ()).images(DDIM, ImageRequest(np.arange(1), np.array([0])))


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


@pytest.mark.slow
def test_autoguidance_pushes_away_from_a_worse_model(one_replica: Placement) -> None:
    """One DDIM step returns x̂_0, which is linear in the guidance; a model is no guide for itself."""
    better, worse = _generator(one_replica), _generator(one_replica)
    worse.model.set_weights([0.9 * weight for weight in better.model.get_weights()])
    request, one = ImageRequest(np.arange(4), np.array([0, 1, 2, 0])), SamplerConfig("ddim", 1, clip=False)
    guided = dataclasses.replace(one, guidance=2.0)
    plain, bad = (model.images(one, request).astype(float) for model in (better, worse))
    better.guided_by(worse)
    found = better.images(guided, request).astype(float)
    assert _differ(found, plain) > 3
    inside = (found > 2) & (found < 253) & (plain > 0) & (plain < 255) & (bad > 0) & (bad < 255)
    np.testing.assert_allclose(found[inside], (2 * plain - bad)[inside], atol=2)
    itself = _generator(one_replica)
    itself.guided_by(_generator(one_replica))
    np.testing.assert_allclose(itself.images(guided, request), plain, atol=1)
    with pytest.raises(UserError, match="--autoguidance: classes of the worse model are"):
        better.guided_by(_generator(one_replica, ("a", "b")))


def test_guidance_needs_labels_that_were_dropped(one_replica: Placement, tmp_path: Path) -> None:
    generator, guided = _generator(one_replica), dataclasses.replace(DDIM, guidance=2.0)
    generator.label_dropout = 0.0
    generator.save(tmp_path / "never")
    with pytest.raises(UserError, match="trained with --label_dropout=0 and cannot predict without a class"):
        Generator.load(tmp_path / "never", one_replica).images(guided, generator.request(np.arange(2)))
    generator.label_dropout = 0.1
    generator.save(tmp_path / "some")
    Generator.load(tmp_path / "some", one_replica).check(guided, generator.request(np.arange(2)))


@pytest.mark.slow
def test_learned_variance_and_its_own_prediction(one_replica: Placement) -> None:
    """The network's second half sets the noise, and its third input the prediction of the step before."""
    config = dataclasses.replace(UNET, learned_variance=True, self_condition=True)
    with precision("float32"):
        generator = Generator(config, PROCESS, (), one_replica)
    rng = np.random.default_rng(0)
    weights = [rng.normal(0, 0.3, w.shape) if w.dtype == np.float32 else w for w in generator.model.get_weights()]
    generator.model.set_weights(weights)
    request, sampler = generator.request(np.arange(3)), SamplerConfig("ancestral", 5)
    learned, small = (generator.images(dataclasses.replace(sampler, variance=v), request) for v in ("learned", "small"))
    np.testing.assert_array_equal(generator.images(sampler, request), learned)
    assert _differ(learned, small) > 3
    weights[-2] = np.concatenate([weights[-2][..., :1], 0.0 * weights[-2][..., 1:]], axis=-1)
    weights[-1] = np.array([weights[-1][0], -1.0])  # share 0: β̃
    generator.model.set_weights(weights)
    np.testing.assert_allclose(generator.images(sampler, request), generator.images(
        dataclasses.replace(sampler, variance="small"), request), atol=1)  # fmt: skip
    with pytest.raises(UserError, match="variance=learned: this model was trained without --learned_variance"):
        _generator(one_replica).check(SamplerConfig("ancestral", 5, variance="learned"), request)
