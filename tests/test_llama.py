"""Llama 3.2 Vision against what its makers' code computes for a tiny random checkpoint (tests/golden/llama).

The golden file came with the issue: its author ran meta-llama/llama-models' code (``meta/…``) and transformers 5.24
(``hf/…``). It is not remade here.
"""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import safetensors.numpy
from keras import ops

from files.errors import UserError
from vision_bridge.llama import text, vision
from vision_bridge.llama.checkpoint import load_checkpoint, published_names, read_config
from vision_bridge.llama.config import LlamaConfig
from vision_bridge.llama.generation import Sight, generate, nucleus
from vision_bridge.llama.layers import Gate, RMSNorm
from vision_bridge.llama.model import LlamaVision, Pictures, causal
from vision_bridge.llama.shapes import published_shapes
from vision_bridge.llama.text import CrossMasks

FOLDER = Path(__file__).parent / "golden" / "llama"
GOLDEN = dict(np.load(FOLDER / "golden.npz"))
IDS = GOLDEN["in/input_ids"].astype(np.int32)
REAL = GOLDEN["in/attention_mask"].astype(np.int32)
TILES = GOLDEN["in/cross_attention_mask"].astype(np.int32)
CONFIG = read_config(FOLDER)


def _pictures() -> Pictures:
    pixels = GOLDEN["in/pixel_values"].transpose(0, 1, 2, 4, 5, 3)
    ids, tiles = (GOLDEN[f"in/aspect_ratio_{name}"].astype(np.int32) for name in ("ids", "mask"))
    return Pictures(*map(ops.convert_to_tensor, (pixels, ids, tiles)))


def _filled(config: LlamaConfig) -> LlamaVision:
    model = LlamaVision(config)
    load_checkpoint(FOLDER, model)
    return model


@pytest.fixture(scope="module")
def model() -> LlamaVision:
    return _filled(CONFIG)


class Results(NamedTuple):
    """In the golden file's shapes."""

    vision: np.ndarray
    hidden: np.ndarray
    logits: np.ndarray


def _results(model: LlamaVision) -> Results:
    pictures = _pictures()
    states = model.vision_model(*(ops.reshape(part, (-1, *part.shape[2:])) for part in pictures))
    decoder, tokens, real = model.language_model.model, ops.convert_to_tensor(IDS), ops.convert_to_tensor(REAL)
    pairs, seen = decoder.pairs(model.encode(pictures)), model.seen(ops.convert_to_tensor(TILES))
    x, _, hidden = decoder(tokens, causal(real), pairs, seen)
    arrays = ops.convert_to_numpy(states), np.stack([ops.convert_to_numpy(state) for state in hidden])
    logits = ops.convert_to_numpy(model.language_model.lm_head(x))
    return Results(arrays[0].reshape(GOLDEN["meta/vision"].shape), arrays[1], logits)


def _differences(model: LlamaVision, of: str = "meta") -> dict[str, float]:
    """The largest difference of every result from the golden one, at tokens that are no padding."""
    found, differences = _results(model), {}
    for name, array in found._asdict().items():
        difference = np.abs(array - GOLDEN[f"{of}/{name}"])
        differences[name] = float((difference if name == "vision" else difference[..., REAL == 1, :]).max())
    return differences


def test_states_and_logits_are_the_makers(model: LlamaVision) -> None:
    assert max(_differences(model).values()) < 1e-5
    states = model.encode(_pictures())
    logits = ops.convert_to_numpy(model(*map(ops.convert_to_tensor, (IDS, REAL)), states, ops.convert_to_tensor(TILES)))
    labels = GOLDEN["meta/labels"][:, 1:]
    shares = logits[:, :-1] - np.log(np.exp(logits[:, :-1]).sum(axis=-1, keepdims=True))
    of_labels = np.take_along_axis(shares, np.maximum(labels, 0)[..., None], axis=-1)[..., 0]
    assert -of_labels[labels >= 0].mean() == pytest.approx(float(GOLDEN["meta/loss"]), abs=1e-5)


def test_text_alone_leaves_out_the_layers_that_look_at_pictures(model: LlamaVision) -> None:
    tokens = ops.convert_to_tensor(IDS[:, 6:8])
    np.testing.assert_allclose(model(tokens, ops.ones_like(tokens)), GOLDEN["meta/text_only"], atol=1e-5)


def test_the_variant_of_a_popular_library(model: LlamaVision) -> None:
    other = _filled(CONFIG.as_in("transformers"))
    assert max(_differences(other, "hf").values()) < 1e-5
    assert max(_differences(other, "meta").values()) > 0.1
    assert CONFIG.as_in("makers") == CONFIG


def test_greedy_tokens_are_the_makers(model: LlamaVision, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "config", dataclasses.replace(CONFIG, end_tokens=()))  # the golden ones go on behind it
    states = model.encode(_pictures())
    sight = Sight(states[1:], ops.convert_to_tensor(TILES[1:]))
    new = [int(token[0]) for token in generate(model, [IDS[1].tolist()], 8, sight=sight)]
    assert [*IDS[1].tolist(), *new] == GOLDEN["meta/generated"][0].tolist()


def test_a_row_alone_is_the_row_in_a_ragged_batch(model: LlamaVision, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits of whole rows, and cached tokens beside those of a model without a cache."""
    monkeypatch.setattr(model, "config", dataclasses.replace(CONFIG, end_tokens=()))
    states, tiles = model.encode(_pictures()), ops.convert_to_tensor(TILES)
    prompts = [IDS[0, :8].tolist(), IDS[1].tolist()]
    together = np.stack(list(generate(model, prompts, 6, sight=Sight(states, tiles))), axis=1)
    for row, prompt in enumerate(prompts):
        one, of_row = Sight(states[row : row + 1], tiles[row : row + 1, : len(prompt)]), list(prompt)
        alone = [int(token[0]) for token in generate(model, [prompt], 6, sight=one)]
        for _ in range(6):
            tokens = ops.convert_to_tensor(np.array([of_row], np.int32))
            more = np.repeat(TILES[row : row + 1, len(prompt) - 1 : len(prompt)], len(of_row) - len(prompt), axis=1)
            seen = np.concatenate([TILES[row : row + 1, : len(prompt)], more], axis=1)
            logits = model(tokens, ops.ones_like(tokens), one.states, ops.convert_to_tensor(seen))
            of_row.append(int(ops.convert_to_numpy(logits)[0, -1].argmax()))
        assert together[row].tolist() == alone == of_row[len(prompt) :]


def test_tokens_before_a_picture_do_not_see_it(model: LlamaVision) -> None:
    pictures = _pictures()
    other = pictures._replace(pixels=pictures.pixels * -2.0 + 1.0)
    tokens, real, tiles = map(ops.convert_to_tensor, (IDS, REAL, TILES))
    first, second = (ops.convert_to_numpy(model(tokens, real, model.encode(p), tiles)) for p in (pictures, other))
    before = (TILES.sum(axis=(2, 3)) == 0) & (REAL == 1)
    assert before.sum() == 4
    np.testing.assert_array_equal(first[before], second[before])
    assert np.abs(first - second)[~before & (REAL == 1)].max() > 1e-2


def test_rows_end_and_draws_do_not_depend_on_the_batch(model: LlamaVision) -> None:
    prompts = [IDS[1, 6:9].tolist(), IDS[0, :2].tolist(), IDS[1, 6:9].tolist()]
    found = np.stack(list(generate(model, prompts, 12, nucleus(1.5, 0.9, seed=3))), axis=1)
    alone = np.stack(list(generate(model, prompts[:1], 12, nucleus(1.5, 0.9, seed=3))), axis=1)
    np.testing.assert_array_equal(found[0, : alone.shape[1]], alone[0])
    for row in found:
        (ends,) = np.nonzero(np.isin(row, CONFIG.end_tokens))
        if len(ends):
            assert (row[ends[0] + 1 :] == CONFIG.pad_token).all()
    likely = nucleus(1.0, 0.5, seed=0)(np.log(np.array([[0.2, 0.6, 0.2]] * 50)), 0)
    assert set(likely) == {1}  # .6 is more than the half
    shares = np.bincount(nucleus(1.0, 0.75, seed=0)(np.log(np.array([[0.1, 0.6, 0.3]] * 3000)), 1), minlength=3) / 3000
    np.testing.assert_allclose(shares, [0, 2 / 3, 1 / 3], atol=0.03)
    with pytest.raises(UserError, match="must fit into 128 positions"):
        next(generate(model, [[1] * 120], 9))


def test_the_real_model_has_as_many_parameters_as_was_published() -> None:
    shapes = published_shapes(LlamaConfig())

    def count(prefix: str) -> int:
        return sum(math.prod(shape) for name, shape in shapes.items() if name.startswith(prefix))

    cross = sum(count(f"language_model.model.layers.{number}.") for number in LlamaConfig().text.cross_layers)
    layers = count("language_model.model.layers.")
    assert (len(shapes), count("")) == (906, 10_670_220_835)
    assert (count("vision_model."), count("multi_modal_projector.")) == (863_567_379, 31_461_376)
    assert (layers - cross, cross) == (6_979_584_000, 1_744_898_064)
    assert count("language_model.model.embed_tokens") == 525_369_344
    assert (count("language_model.model.norm"), count("language_model.lm_head")) == (4_096, 525_336_576)
    tiny = {name: array.shape for name, array in safetensors.numpy.load_file(FOLDER / "model.safetensors").items()}
    assert published_shapes(CONFIG) == tiny and set(tiny) == set(published_names(LlamaVision(CONFIG)))


# ------------------------------------------------------------------------------------ mistakes that must be seen


def _only_present_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    right = vision._allowed
    monkeypatch.setattr(vision, "_allowed", lambda *args: ops.min(right(*args), axis=2, keepdims=True))


def _interleaved(x: Any, positions: Any, frequency: np.ndarray) -> Any:
    angle = ops.cast(positions, "float32")[:, None, :, None] * frequency.astype(np.float32)
    even, odd = x[..., ::2], x[..., 1::2]
    turned = [even * ops.cos(angle) - odd * ops.sin(angle), odd * ops.cos(angle) + even * ops.sin(angle)]
    return ops.reshape(ops.stack(turned, axis=-1), ops.shape(x))


def _without_head_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    right = RMSNorm.call
    wrong = lambda self, x: x if self.name in ("q_norm", "k_norm") else right(self, x)  # noqa: E731
    monkeypatch.setattr(RMSNorm, "call", wrong)


def _rotary_on_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    right = text.CrossAttention.call

    def wrong(self: Any, x: Any, pair: Any, seen: Any) -> Any:
        key = text.rotated(pair.key, ops.arange(pair.key.shape[2])[None], text.frequencies(CONFIG.text.rotary, 8))
        return right(self, x, pair._replace(key=key), seen)

    monkeypatch.setattr(text.CrossAttention, "call", wrong)


def _tiled_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    right, order = text.attend, np.array([0, 2, 1, 3])  # head h looks at group h mod 2

    def wrong(query: Any, *others: Any) -> Any:
        mixed = right(ops.take(query, order, axis=1), *others)
        width = query.shape[-1]
        by_head = ops.reshape(mixed, (*mixed.shape[:2], 4, width))
        return ops.reshape(ops.take(by_head, np.argsort(order), axis=2), mixed.shape)

    monkeypatch.setattr(text, "attend", wrong)


def _seen_with(**factors: Callable) -> Callable:
    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        right = LlamaVision.seen

        def wrong(self: Any, tiles: Any) -> CrossMasks:
            seen = right(self, tiles)
            return seen._replace(**{name: change(getattr(seen, name)) for name, change in factors.items()})

        monkeypatch.setattr(LlamaVision, "seen", wrong)

    return patch


def _set(target: Any, name: str, value: Any) -> Callable:
    return lambda monkeypatch: monkeypatch.setattr(target, name, value)


def _vision(**changes: Any) -> LlamaConfig:
    return dataclasses.replace(CONFIG, vision=dataclasses.replace(CONFIG.vision, **changes))


_NO_SCALING = dataclasses.replace(
    CONFIG, text=dataclasses.replace(CONFIG.text, rotary=dataclasses.replace(CONFIG.text.rotary, factor=1.0))
)
_take_ids = vision.TileTable.call
MISTAKES: dict[str, tuple[LlamaConfig, Callable]] = {
    "absent keys are masked outright": (CONFIG, _only_present_keys),
    "taps layer by layer": (CONFIG, _set(vision, "_channel_major", lambda taps: ops.concatenate(taps, axis=-1))),
    "taps one layer late": (_vision(late_taps=True), lambda monkeypatch: None),
    "no rotary scaling": (_NO_SCALING, lambda monkeypatch: None),
    "interleaved rotary": (CONFIG, _set(text, "rotated", _interleaved)),
    "no norms of queries and keys": (CONFIG, _without_head_norms),
    "row mask forgotten in attention": (CONFIG, _seen_with(attended=ops.ones_like)),
    "row mask forgotten in the linear maps": (CONFIG, _seen_with(thought=ops.ones_like)),
    "rotary in cross-attention": (CONFIG, _rotary_on_pictures),
    "GELU by tanh": (CONFIG, _set(vision.FeedForward, "call", lambda self, x: self.fc2(ops.gelu(self.fc1(x), True)))),
    "tile tables one off": (
        CONFIG, _set(vision.TileTable, "call", lambda self, ids: _take_ids(self, ops.maximum(ids - 1, 0)))
    ),
    "gates without tanh": (CONFIG, _set(Gate, "call", lambda self, x: x * self.gate)),
    "heads tiled": (CONFIG, _tiled_heads),
    "another epsilon": (_vision(norm_epsilon=1e-6), lambda monkeypatch: None),
    "tile table before the norm": (
        CONFIG,
        _set(vision.VisionTower, "between", lambda self, x, ids: self.layernorm_post(self.post_tile(x, ids))),
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_golden_file_sees_a_mistake(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config, patch = MISTAKES[mistake]
    patch(monkeypatch)
    assert max(_differences(_filled(config)).values()) > 2e-5
