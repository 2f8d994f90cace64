"""``benchmarks.prediction`` beside transformers: both sides are asked the same."""

import pytest

from benchmarks.classifier import cutting
from files.errors import UserError
from tests.scripts import ROOT

CLASSIFIER = ROOT / "tests" / "golden" / "tiny" / "bert_classifier"


def test_the_longest_text_is_the_one_that_is_asked_for() -> None:
    """As the pipeline's ``max_length``, special tokens included: three pieces of a text of more count."""
    predictor = cutting(CLASSIFIER, 5)
    encoded = predictor.encode([("the boat in",), ("the boat in the garden",), ("in the garden",)])
    rows = [encoded.ids[start:end].tolist() for start, end in zip(encoded.offsets, encoded.offsets[1:], strict=False)]
    assert rows[0] == rows[1] != rows[2] and len(rows[0]) == 5
    with pytest.raises(UserError, match="--max_length=13: the encoder has 12 positions"):
        cutting(CLASSIFIER, 13)
