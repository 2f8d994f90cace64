"""The words of an explanation: subwords and pieces become words, whoever cuts them; the integral of every family."""

from pathlib import Path

import numpy as np
import pytest

from tests.scripts import ROOT
from tests.test_explaining import PLACEMENT, is_complete, with_random_weights
from text_cls.encoders.checkpoints import load_encoder, read_checkpoint
from text_cls.encoders.config import BertClassifierConfig
from text_cls.layers.transformer_config import TransformerConfig
from text_cls.predictor import Predictor
from text_cls.report.explained_words import CUT, joined_spans
from text_cls.report.explaining import explain
from text_cls.tokens.encoding import Framing
from text_cls.tokens.pairs import PairFraming
from text_cls.tokens.preprocess import SEP
from text_cls.tokens.tokenisers import PieceTokeniser
from text_cls.tokens.vocabulary import SEGMENT

GOLDEN = ROOT / "tests" / "golden"
LIBRARY = ("roberta", "xlm_roberta", "camembert", "electra", "albert", "mpnet")


def _published(name: str, pairs: bool = False, pooling: str = "cls", max_length: int = 12) -> Predictor:
    checkpoint = read_checkpoint(GOLDEN / name)
    join = "pair" if pairs else "sep"
    tokeniser = PieceTokeniser.of(checkpoint.tokeniser(), max_length, "head", join)
    config = BertClassifierConfig(checkpoint.config, 3, pooling, pairs=pairs)
    predictor = Predictor(config, tokeniser, "abc", PLACEMENT, join_fields=join)
    load_encoder(checkpoint, predictor.model.get_layer("encoder"))
    head = predictor.model.get_layer("head").kernel
    head.assign(np.random.default_rng(0).normal(size=head.shape))
    return predictor


def test_subwords_are_summed_to_words(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    from tests.test_subwords import TEXTS as SOME
    from tests.test_subwords import _tokeniser

    tokeniser = _tokeniser()
    config = TransformerConfig(tokeniser.size, 2, 64, width=16, num_layers=0)
    predictor = with_random_weights(Predictor(config, tokeniser, "ab", PLACEMENT))
    (found,) = explain(predictor, SOME[:1], [0])
    assert found.words == ("the", "lower", "the", "better", SEP, "東京タワーへ行く") and not found.cut
    is_complete(found)


@pytest.mark.slow
def test_a_published_encoder() -> None:
    predictor = _published("tiny/bert", pooling="mean")
    short, long = explain(predictor, [("The running, naïve 中",), ("the run of the runs and the run of it",)], [0, 2])
    assert short.words == ("the", "running", ",", "naive", "中") and not short.cut
    assert long.words[-1] == CUT and long.cut and long.words[:3] == ("the", "run", "of")
    is_complete(short)
    is_complete(long)


def test_two_texts() -> None:
    predictor = _published("tiny/bert", pairs=True)
    texts = [
        ("the runs", "of the running"),
        ("of the running", "the runs"),
        ("", "the run"),
        ("a b c d e f", "g h i j k"),
    ]
    found = explain(predictor, texts, [1] * len(texts))
    assert found[0].words == ("the", "runs", "[SEP]", "of", "the", "running")
    assert found[2].words == ("[SEP]", "the", "run")
    assert found[3].words == (*"abcd", CUT, "[SEP]", *"ghij", CUT) or found[3].cut
    for one in found:
        assert one.attributions[one.words.index("[SEP]")] == 0
        is_complete(one)
    assert abs(found[0].attributions[1] - found[1].attributions[-1]) > 1e-3  # a segment counts


@pytest.mark.slow
@pytest.mark.parametrize("name", LIBRARY)
@pytest.mark.parametrize("pairs", [False, True])
def test_every_family(name: str, pairs: bool) -> None:
    pytest.importorskip("tokenizers")
    text = ("Don’t panic, it’s a naïve café!", "Unbelievable")
    (found,) = explain(_published(f"encoders/{name}", pairs, "mean", 26), [text], [1])
    is_complete(found)
    words = ["Don’t", "panic", ",", "it’s", "a", "naïve", "café", "!"]
    if name == "electra":  # WordPiece
        words = ["don", "’", "t", "panic", ",", "it", "’", "s", "a", "naive", "cafe", "!"]
    read = next(place for place, word in enumerate(found.words) if word in (CUT, "[SEP]", "</s>"))
    assert read > 1 and list(found.words[:read]) == words[:read]


@pytest.mark.parametrize(
    ("text", "spans", "words"),
    [
        ("un able", [(0, 2), (2, 4), (4, 7)], [("un", 1), ("able", 2)]),  # a space before a piece belongs to it, or not
        ("unable, so", [(0, 2), (2, 6), (6, 7), (7, 10)], [("unable", 2), (",", 1), ("so", 1)]),
        ("don’t", [(0, 3), (3, 4), (3, 4), (4, 5)], [("don’t", 4)]),  # half a character is a piece
        ("我爱你", [(0, 1), (0, 1), (1, 2), (2, 3)], [("我", 2), ("爱", 1), ("你", 1)]),
        (" 東京 x", [(0, 1), (1, 3), (3, 5)], [("東京", 2), ("x", 1)]),  # a piece that shows nothing
        ("a b", [(0, 1), (1, 2), (2, 3)], [("a", 1), ("b", 2)]),
        ("a ", [(0, 1), (1, 2)], [("a", 2)]),
        ("\u200b", [(0, 0)], [("\u200b", 1)]),
        ("", [], []),
    ],
)
def test_pieces_become_words(text: str, spans: list[tuple[int, int]], words: list[tuple[str, int]]) -> None:
    assert joined_spans(text, spans) == words


def test_places_are_those_of_the_framed_tokens() -> None:
    ids = np.array([7, 8, 9, 6, 107, 108, 109, 106, 105])
    for length in range(3, 14):
        for segments in (False, True):
            for middle in (1, 2):
                framing = PairFraming(length + middle - 1, 2, 3, 100, middle, segments)
                tokens, places = framing.apply(ids), framing.places(ids)
                assert (tokens % SEGMENT == np.where(places < 0, np.where(np.arange(len(places)), 3, 2),
                                                     np.append(ids, 0)[places] % 100)).all()  # fmt: skip
        for truncate in ("head", "tail", "head_tail"):
            for last in (None, 3):
                framing = Framing(length, truncate, 2, last)
                tokens, places = framing.apply(ids), framing.places(ids)
                assert (tokens[places >= 0] == ids[places[places >= 0]]).all()
                assert (places < 0).sum() == 1 + (last is not None) and len(places) == len(tokens)
