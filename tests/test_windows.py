"""--truncate=windows: where windows lie, what becomes of their logits, and what is trained on."""

import dataclasses
import json
from itertools import islice
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from files.artefacts import write_artefact
from files.errors import Interrupted
from tests import little_model
from tests.refusals import refused
from text_cls.batches import answer_batches, sorted_batches, steps_per_epoch, token_budget, training_batches
from text_cls.layers.transformer import build_classifier
from text_cls.layers.transformer_config import TransformerConfig
from text_cls.objective import make_loss_fn
from text_cls.predictor import Predictor
from text_cls.report.explaining import explain, is_exact
from text_cls.report.pooled import pooled_vectors
from text_cls.tokens.encoding import Encoded, Framing, encode, unknown_share
from training.backends import Placement
from training.config import TaskConfig, TrainingConfig
from training.job import make_job
from training.loop import fit
from training.run import Run

IDS = np.arange(10, 21)  # eleven
LONG = "the good film a bad scene with an actor goal by striker of team bank"  # 15 words, of which 7 are read at a time


@pytest.mark.parametrize(
    ("choices", "length", "starts"),
    [
        ({}, 11, (0, 2, 4, 6, 7)),  # half of four; the last window ends with the text
        ({}, 12, (0, 2, 4, 6, 8)),
        ({}, 4, (0,)),
        ({}, 5, (0, 1)),
        ({}, 0, (0,)),
        ({"stride": 3}, 11, (0, 3, 6, 7)),
        ({"stride": 4}, 11, (0, 4, 7)),
        ({"stride": 1}, 6, (0, 1, 2)),
        ({"max_windows": 5}, 11, (0, 2, 4, 6, 7)),
        ({"max_windows": 4}, 11, (0, 2, 4, 7)),  # spread evenly
        ({"max_windows": 2}, 11, (0, 7)),  # with a gap
    ],
)
def test_where_windows_lie(choices: dict[str, int], length: int, starts: tuple[int, ...]) -> None:
    framing = Framing(6, "windows", 2, 3, **choices)
    found = framing.windows(np.arange(10, 10 + length))
    assert [window.tolist() for window in found] == [
        [2, *range(10 + start, 10 + min(start + 4, length)), 3] for start in starts
    ]
    assert all(window.dtype == np.int32 for window in found)
    places = [x for start in starts for x in (-1, *range(start, min(start + 4, length)), -1)]
    assert framing.places(np.arange(length)).tolist() == places


def test_every_token_is_read_in_windows_of_one_length() -> None:
    for length in range(1, 60):
        for last in (None, 3):
            for longest in (3, 4, 9, 16):
                for stride in {0, 1, longest - 2}:
                    framing = Framing(longest, "windows", 2, last, stride, 100)
                    read = framing.places(np.arange(length))
                    assert set(read[read >= 0]) == set(range(length))
                    assert len({len(window) for window in framing.windows(np.arange(length))}) == 1
                    assert framing.windows(np.arange(length))[-1].tolist()[-1 if last is None else -2] == length - 1


def _encoded(truncate: str = "windows") -> Encoded:
    """Texts of 3, 11, 4 and 5 ids: one window, five, one and two."""
    ids = np.concatenate([IDS[:3], IDS, IDS[:4], IDS[:5]])
    framing = Framing(6, truncate, 2, 3)
    return encode(ids, np.cumsum([0, 3, 11, 4, 5]), np.array([0, 1, 2, 3], np.int32), framing)


def test_texts_and_their_windows() -> None:
    encoded = _encoded()
    assert len(encoded) == 4 and encoded.num_windows.tolist() == [1, 5, 1, 2]
    assert encoded.lengths.tolist() == [5, *[6] * 5, 6, 6, 6]
    assert encoded.texts_of(np.arange(9)).tolist() == [0, 1, 1, 1, 1, 1, 2, 3, 3]
    values = np.array([[1, 9], [2, 0], [4, 0], [0, 0], [0, 5], [4, 0], [7, 7], [1, 2], [2, 4]], np.float32)
    assert encoded.averaged(values).tolist() == [[1, 9], [2, 1], [7, 7], [1.5, 3]]
    assert encoded.averaged(values[:, 0]).tolist() == [1, 2, 7, 1.5]
    assert encoded.averaged(values).dtype == np.float32
    assert encoded.sizes == "2.2 windows of 6 tokens" and _encoded("head").sizes == "6 tokens"
    assert unknown_share(encoded, 10, 2) == pytest.approx(4 / (3 + 5 * 4 + 4 + 2 * 4))


def test_some_of_the_texts() -> None:
    encoded = dataclasses.replace(_encoded(), scores=np.arange(8, dtype=np.float32).reshape(4, 2))
    few = encoded.take(np.array([3, 0, 1]))
    assert few.labels.tolist() == [3, 0, 1] and few.scores.tolist() == [[6, 7], [0, 1], [2, 3]]
    assert few.num_windows.tolist() == [2, 1, 5] and few.windows.tolist() == [0, 2, 3, 8]
    assert few.ids[: 6 + 6 + 5].tolist() == [2, 10, 11, 12, 13, 3, 2, 11, 12, 13, 14, 3, 2, 10, 11, 12, 3]
    assert len(few.ids) == few.offsets[-1] == 2 * 6 + 5 + 5 * 6


def test_texts_that_fit_are_encoded_as_before() -> None:
    """All of them, so that nothing knows of windows."""
    ids, offsets = np.concatenate([IDS[:3], IDS[:4]]), np.array([0, 3, 7])
    windows, head = (encode(ids, offsets, None, Framing(6, truncate, 2, 3)) for truncate in ("windows", "head"))
    assert windows.windows is None
    for name in ("ids", "offsets", "labels"):
        np.testing.assert_array_equal(getattr(windows, name), getattr(head, name))


@pytest.mark.parametrize("rows", [2, token_budget(12)])
def test_an_epoch_has_one_window_of_every_text(rows: Any) -> None:
    """After as many epochs as a text has windows, each has been there equally often."""
    encoded, steps = _encoded(), steps_per_epoch(_encoded(), rows)
    batches, epochs = training_batches(encoded, rows, seed=1), 10
    seen = np.zeros(9, int)
    walk = iter(batches)
    for _ in range(epochs):
        windows = []
        for batch in islice(walk, steps):
            for tokens, label, row in zip(*(x[batch.mask > 0] for x in batch[:3]), strict=True):
                own = encoded.ids[encoded.offsets[row] : encoded.offsets[row + 1]]
                assert tokens[: len(own)].tolist() == own.tolist() and not tokens[len(own) :].any()
                assert label == encoded.labels[encoded.texts_of(row)]
                windows.append(int(row))
        assert sorted(encoded.texts_of(np.array(windows))) == [0, 1, 2, 3]
        seen[windows] += 1
    assert seen.tolist() == [10, 2, 2, 2, 2, 2, 10, 5, 5]
    whole = list(islice(batches, 3 * steps))
    for first in (1, steps, steps + 1):
        part = islice(training_batches(encoded, rows, 1, first), 3 * steps - first)
        for one, two in zip(whole[first:], part, strict=True):
            np.testing.assert_array_equal(one.row, two.row)
    others = [next(iter(training_batches(encoded, 4, seed))).row for seed in range(6)]
    assert len({int(row[encoded.texts_of(row) == 1][0]) for row in others}) > 1  # drawn by seed


def _trained(folder: Path, placement: Placement, stop: bool = False) -> list[np.ndarray]:
    """Weights after two and a half epochs; interrupted once, and gone on."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 30, 23)
    ids = rng.integers(5, 40, lengths.sum())
    ends, labels = np.concatenate([[0], np.cumsum(lengths)]), rng.integers(0, 3, 23).astype(np.int32)
    encoded = encode(ids, ends, labels, Framing(8, "windows"))
    training = TrainingConfig(num_steps=15, eval_every=5, select="", learning_rate=0.01)
    calls = []

    def evaluate() -> dict[str, float]:
        calls.append(1)
        if stop and len(calls) == 2:
            raise Interrupted("stopped")
        return {}

    def going_on() -> list[np.ndarray]:
        with placement.scope():
            keras.utils.set_random_seed(3)
            model = build_classifier(TransformerConfig(40, 3, 8, 8, 1, 2, 12, dropout=0.3, token_dropout=0.2))
        data = lambda step: training_batches(encoded, 4, 5, step)  # noqa: E731
        with Run.open(folder, TaskConfig()) as run:
            fit(make_job(model, make_loss_fn(model), data, evaluate, placement, training, 7), placement, run, training)
        return model.get_weights()

    if stop:
        with pytest.raises(Interrupted):
            going_on()
    return going_on()


@pytest.mark.slow
def test_resumed_equals_uninterrupted_and_two_shards_one(tmp_path: Path, one_replica: Placement) -> None:
    whole = _trained(tmp_path / "whole", one_replica)
    for one, two in zip(whole, _trained(tmp_path / "twice", one_replica, stop=True), strict=True):
        np.testing.assert_array_equal(one, two)
    for one, two in zip(whole, _trained(tmp_path / "shards", one_replica._replace(shards=2)), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)


# ------------------------------------------------------------------------------------------------------- the predictor


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """Reads seven words of a text."""
    return little_model.save(tmp_path_factory.mktemp("model"))


@pytest.fixture
def windowed(head: Predictor, monkeypatch: pytest.MonkeyPatch) -> Predictor:
    """The same, which reads all; windows begin at words 0, 3, 6 and 8."""
    monkeypatch.setattr(head, "tokeniser", dataclasses.replace(head.tokeniser, truncate="windows"))
    return head


def _parts(text: str) -> list[tuple[str]]:
    words = text.split()
    return [(" ".join(words[start : start + 7]),) for start in (0, 3, 6, 8)]


def test_logits_are_the_mean_over_windows(windowed: Predictor) -> None:
    parts = windowed.logits(windowed.encode(_parts(LONG)))
    texts = windowed.encode([("the good film",), (LONG,), ("a bad scene",)])
    found = windowed.logits(texts)
    assert np.abs(parts - parts.mean(axis=0)).max() > 0.01
    np.testing.assert_allclose(found[1], parts.mean(axis=0), atol=1e-6)
    np.testing.assert_array_equal(windowed.logits(windowed.encode([(LONG,)])), found[1:2])  # alone and among others
    np.testing.assert_allclose(windowed.logits(texts, answer_batches), found, atol=1e-5)
    scores = np.array([[1, 2, 3]] * 3, np.float32)  # of the linear path: once a text
    np.testing.assert_array_equal(windowed.logits(dataclasses.replace(texts, scores=scores)), found + scores)
    assert windowed.classify([LONG])[0][0].confidence == pytest.approx(windowed.activated(found)[1].max(), abs=1e-5)


def test_texts_that_fit_are_answered_as_before(windowed: Predictor) -> None:
    short = [(text,) for text in little_model.TEXTS if len(text.split()) <= 7]
    alone, among = windowed.encode(short), windowed.encode([*short, (LONG,)])
    cut = dataclasses.replace(windowed.tokeniser, truncate="head")
    expected = windowed.logits(cut.encode(cut.tokenise(short)))
    np.testing.assert_array_equal(windowed.logits(alone), expected)
    np.testing.assert_array_equal(windowed.logits(among)[:-1], expected)


def test_pooled_vectors_are_the_mean_over_windows(windowed: Predictor) -> None:
    def vectors(texts: list[tuple[str]]) -> np.ndarray:
        return pooled_vectors(windowed.model, windowed.encode(texts), 3, windowed.placement)

    found = vectors([("the bank",), (LONG,)])
    np.testing.assert_allclose(found[1], vectors(_parts(LONG)).mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(found[0], vectors([("the bank",)])[0], atol=1e-5)
    assert sum(len(batch.row) for batch in sorted_batches(windowed.encode([(LONG,)]), 1)) == 4


def test_an_explanation_is_the_mean_over_windows(windowed: Predictor) -> None:
    whole, short = explain(windowed, [(LONG,), ("a bad scene",)], [1, 2])
    assert whole.words == tuple(LONG.split()) and not whole.cut and short.words == ("a", "bad", "scene")
    assert is_exact(whole) and whole.logit == pytest.approx(windowed.logits(windowed.encode([(LONG,)]))[0, 1], abs=1e-5)
    assert whole.attributions.sum() + whole.gap == pytest.approx(whole.logit - whole.baseline)
    expected = np.zeros(15)
    for start, part in zip((0, 3, 6, 8), explain(windowed, _parts(LONG), [1] * 4), strict=True):
        expected[start : start + 7] += part.attributions / 4
    np.testing.assert_allclose(whole.attributions, expected, atol=1e-5)


def test_an_artefact_knows_its_windows(windowed: Predictor, tmp_path: Path) -> None:
    windowed.tokeniser = dataclasses.replace(windowed.tokeniser, stride=4, max_windows=9)
    windowed.save(tmp_path)
    loaded = Predictor.load(tmp_path, windowed.placement)
    assert loaded.tokeniser.framing == Framing(8, "windows", stride=4, max_windows=9)
    texts = [(LONG,), ("a bad scene",)]
    np.testing.assert_array_equal(loaded.logits(loaded.encode(texts)), windowed.logits(windowed.encode(texts)))
    config = json.loads((tmp_path / "config.json").read_text())
    for name, value in (("stride", 7), ("stride", -1), ("stride", True), ("max_windows", 1), ("max_windows", 10**9),
                        ("max_windows", "9"), ("max_length", 2), ("stride", None)):  # fmt: skip
        wrong = {**config["tokeniser"], name: value}
        if value is None:
            del wrong[name]
        _write_config(tmp_path, config | {"tokeniser": wrong})
        assert name in refused(lambda: Predictor.load(tmp_path, windowed.placement))


def _write_config(folder: Path, config: dict[str, Any]) -> None:
    files = ["weights.safetensors", "vocabulary.txt"]
    write_artefact(folder, {k: v for k, v in config.items() if k not in ("files", "sha256")}, files)
