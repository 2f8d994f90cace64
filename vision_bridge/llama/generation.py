"""Answers, token by token, from a key-value cache.

Shapes: ``B`` rows, ``S`` tokens of the longest prompt, ``C`` places in the cache, ``V`` states of pictures, ``W``
vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from files.errors import UserError
from training.feed import padded_rows
from training.functions import compiled
from vision_bridge.llama.model import LlamaVision, causal
from vision_bridge.llama.text import CrossMasks, KeysAndValues, Position

Choose = Callable[[np.ndarray, int], np.ndarray]  # (logits [B, W], number of the step) → tokens [B]
_PLACES = 64  # the size of a cache is a multiple of it, so that batches of similar length share a compiled step


class Sight(NamedTuple):
    """The pictures of the rows.

    Attributes:
        states: [B, V, D] from ``LlamaVision.encode``.
        tiles: [B, S, M, T], 1 if a token may look at a tile; new tokens see the same tiles as the row's last token.
    """

    states: Any
    tiles: Any


def greedy(logits: np.ndarray, step: int) -> np.ndarray:
    """The likeliest tokens."""
    return logits.argmax(axis=-1)


def nucleus(temperature: float, top_p: float, seed: int, rows: Sequence[int] | None = None) -> Choose:
    """Draws from the smallest set of likeliest tokens with probability ``top_p`` together (Holtzman et al. 2020).

    Args:
        temperature, top_p: see ``CaptionConfig``.
        seed: of the draws.
        rows: a number for each row, which decides its draws in any batch; None: 0, 1, 2, ….
    """

    def choose(logits: np.ndarray, step: int) -> np.ndarray:
        scaled = logits.astype(np.float64) / temperature
        share = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
        share /= share.sum(axis=-1, keepdims=True)
        order = np.argsort(-share, axis=-1, kind="stable")
        sorted_share = np.take_along_axis(share, order, axis=-1)
        before = np.cumsum(sorted_share, axis=-1) - sorted_share
        sorted_share[before >= top_p] = 0.0  # the likeliest token always stays
        edges = np.cumsum(sorted_share, axis=-1)
        draws = [np.random.default_rng([seed, row, step]).random() for row in rows or range(len(logits))]
        places = [np.searchsorted(edge, draw * edge[-1], side="right") for edge, draw in zip(edges, draws, strict=True)]
        return order[np.arange(len(logits)), places]

    return choose


def generate(
    model: LlamaVision, prompts: Sequence[Sequence[int]], most: int, choose: Choose = greedy,
    sight: Sight | None = None, step: Callable | None = None,
) -> Iterator[np.ndarray]:  # fmt: skip
    """Yields the next token of every row, [B] int, until all rows have ended or have ``most`` new tokens. A row that
    has ended yields the padding token.

    Args:
        model: with its weights.
        prompts: token ids of each row, of any lengths.
        most: new tokens of a row.
        choose: ``greedy`` or a ``nucleus``.
        sight: the rows' pictures; None: no row has one.
        step: ``compiled_step`` of the model, to share it between batches.

    Raises:
        UserError: a prompt has no tokens, or leaves too few places for ``most`` more.
    """
    config = model.config
    lengths = np.array([len(prompt) for prompt in prompts])
    if not lengths.all() or lengths.max() + most > config.text.positions:
        raise UserError(
            f"prompts of {lengths.min()} to {lengths.max()} tokens and {most} new ones: at least one is needed, and "
            f"all must fit into {config.text.positions:,} positions"
        )
    tokens = padded_rows(prompts, lengths.max(), config.pad_token)
    logits, state = _start(model, tokens, lengths, -(-(lengths.max() + most) // _PLACES) * _PLACES, sight)
    step = step or compiled_step(model)
    ended = np.zeros(len(prompts), bool)
    for number in range(most):
        chosen = np.where(ended, config.pad_token, choose(ops.convert_to_numpy(logits), number)).astype(np.int32)
        yield chosen
        ended |= np.isin(chosen, config.end_tokens)
        if ended.all() or number == most - 1:
            return
        at = ops.convert_to_tensor((lengths + number).astype(np.int32))
        logits, cache = step(ops.convert_to_tensor(chosen), at, *state)
        state = (cache, *state[1:])


State = tuple[list[KeysAndValues], Any, Any]  # cache, keys and values of the pictures, masks of the last token


def _start(
    model: LlamaVision, tokens: np.ndarray, lengths: np.ndarray, places: int, sight: Sight | None
) -> tuple[Any, State]:
    """Reads the prompts: logits [B, W] after each row's last token, and the state for the next steps."""
    pairs, seen = None, None
    last = ops.convert_to_tensor((lengths - 1).astype(np.int32))[:, None]
    if sight is not None:
        pairs, seen = model.language_model.model.pairs(sight.states), model.seen(sight.tiles)
    real = (np.arange(tokens.shape[1]) < lengths[:, None]).astype(np.int32)
    position = causal(ops.convert_to_tensor(real))
    logits, cache = model.read(ops.convert_to_tensor(tokens), position, pairs, seen, places=last)
    more = ((0, 0), (0, 0), (0, places - tokens.shape[1]), (0, 0))
    cache = [KeysAndValues(ops.pad(pair.key, more), ops.pad(pair.value, more)) for pair in cache]
    if seen is not None:
        allowed = ops.take_along_axis(seen.allowed, last[:, None, :, None], axis=2)
        seen = CrossMasks(allowed, *(ops.take_along_axis(factor, last[:, :, None], axis=1) for factor in seen[1:]))
    return logits[:, 0], (cache, pairs, seen)


def compiled_step(model: LlamaVision) -> Callable:
    """The step that adds one token to every row, compiled once for each shape."""

    def step(
        token: Any, at: Any, cache: list[KeysAndValues], pairs: list[KeysAndValues] | None, seen: CrossMasks | None
    ) -> tuple[Any, Any]:
        allowed = ops.arange(cache[0].key.shape[2])[None] <= at[:, None]
        position = Position(at[:, None], allowed[:, None, None], at)
        logits, cache = model.read(token[:, None], position, pairs, seen, cache)
        return logits[:, 0], cache

    return compiled(step)
