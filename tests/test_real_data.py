"""On the real files of ../shared; slow."""

import time
from pathlib import Path

import numpy as np
import pytest

from text_cls.config import CleaningConfig, DataConfig
from text_cls.data.splits import load
from text_cls.tokens.preprocess import Cleaner, tokenise

pytestmark = pytest.mark.slow


def test_official_ag_news_test_set(shared: Path) -> None:
    splits = load(DataConfig("ag_news", shared / "data" / "ag_news"))
    assert splits.test.labels is not None and np.bincount(splits.test.labels).tolist() == [1900] * 4
    assert len(splits.train) + len(splits.validation) == 21898


def test_fifty_thousand_reviews_cleaned_in_time(shared: Path) -> None:
    splits = load(DataConfig("imdb", shared / "data" / "imdb_reviews_50k.csv.xz"))
    assert splits.test.labels is not None and np.bincount(splits.test.labels).tolist() == [12500] * 2
    texts = [fields for part in splits.parts().values() for fields in part.fields]
    assert len(texts) == 50000
    start = time.monotonic()
    corpus = tokenise(texts, Cleaner(CleaningConfig(stop_words="sklearn", stemmer="snowball")), workers=0)
    print(f"50,000 reviews, {len(corpus.ids):,} words in {time.monotonic() - start:.1f} s")
    assert len(corpus) == 50000 and corpus.lengths.min() > 0
