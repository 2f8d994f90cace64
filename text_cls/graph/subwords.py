"""``Subwords`` in a TensorFlow graph: words → the ids of their subwords.

``W`` words, ``n`` subwords of all words, concatenated.
"""

import json
from typing import Any

import numpy as np
import tensorflow as tf

from text_cls.graph.unicode import by_row
from text_cls.tokens.subwords import Subwords
from text_cls.tokens.vocabulary import SPECIAL

_MOST = 2**25  # more than any vocabulary has


def _characters() -> list[str]:
    """The characters that stand for the 256 bytes (Radford et al. 2019); visible characters stand for themselves."""
    seen = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = iter(range(256, 512))
    return [chr(byte if byte in seen else next(others)) for byte in range(256)]


class Merger(tf.Module):
    """The merges of one vocabulary, in their order."""

    def __init__(self, subwords: Subwords) -> None:
        super().__init__()
        model = json.loads(subwords._model.to_str())["model"]
        places, merges = model["vocab"], [tuple(pair) for pair in model["merges"]]
        self.bytes = np.array([places[character] for character in _characters()], np.int32)
        self.made = np.array([*(places[first + second] for first, second in merges), 0], np.int32)
        self.never = len(merges)
        ranks = {places[first] * _MOST + places[second]: rank for rank, (first, second) in enumerate(merges)}
        pairs = ranks or {-1: self.never}
        known = tf.lookup.KeyValueTensorInitializer(list(pairs), list(pairs.values()), tf.int64, tf.int64)
        self.ranks = tf.lookup.StaticHashTable(known, self.never)

    def __call__(self, words: Any) -> Any:
        """[W] words → ragged [W, (subwords)] int32."""
        different, which = tf.unique(words)
        spaced = " " + different
        content = tf.io.decode_raw(tf.strings.reduce_join(spaced), tf.uint8)  # the bytes of all words
        count = tf.size(different)
        rows = tf.repeat(tf.range(count), tf.strings.length(spaced))
        ids = tf.gather(self.bytes, tf.cast(content, tf.int32))
        free = tf.TensorShape([None])
        ids, rows, _ = tf.while_loop(
            lambda ids, rows, more: more,
            lambda ids, rows, more: self._merged(ids, rows, count),
            (ids, rows, tf.constant(True)),
            shape_invariants=(free, free, tf.TensorShape([])),
        )
        return tf.gather(by_row(ids + len(SPECIAL), tf.cast(rows, tf.int64), count), which)

    def _merged(self, ids: Any, rows: Any, count: Any) -> tuple[Any, Any, Any]:
        """Does one merge in every word that has one: of the merge that was learned first, the leftmost."""
        size = tf.size(ids)
        key = tf.cast(ids[:-1], tf.int64) * _MOST + tf.cast(ids[1:], tf.int64)
        rank = tf.where(tf.equal(rows[:-1], rows[1:]), self.ranks.lookup(key), self.never)
        rank = tf.concat([rank, tf.fill([tf.minimum(size, 1)], tf.constant(self.never, tf.int64))], 0)
        best = tf.gather(tf.math.unsorted_segment_min(rank, rows, count), rows)
        is_best = tf.equal(rank, best) & (rank < self.never)
        place = tf.where(is_best, tf.range(size), size)
        goes = is_best & tf.equal(tf.gather(tf.math.unsorted_segment_min(place, rows, count), rows), place)
        ids = tf.where(goes, tf.gather(self.made, rank), ids)
        stays = ~tf.concat([[False], goes], 0)[:size]
        return tf.boolean_mask(ids, stays), tf.boolean_mask(rows, stays), tf.reduce_any(goes)
