"""Data and preprocessing flags that the text scripts share, and what they give: splits and tokenised texts."""

import dataclasses
import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from experiments.launch import cache_dir
from training.errors import UserError

if TYPE_CHECKING:
    from text_cls.data import Splits, Texts
    from text_cls.preprocess import Cleaner, Corpus
    from text_cls.readers import Keep

FLAGS = flags.FLAGS
Tokenise = Callable[[Sequence[tuple[str, ...]], int], "Corpus"]


def define_data_flags(join_fields: str = "sep") -> None:
    """Flags that say what is read and split."""
    flags.DEFINE_string("dataset", "bbc_news", "bbc_news, ag_news, news_category, imdb, csv, jsonl or folder.")
    flags.DEFINE_string("data_path", "", "File or folder of the data set; ag_news and imdb can be downloaded.")
    flags.DEFINE_string("test_path", "", "File of test rows; without labels they are predicted, not scored.")
    flags.DEFINE_list("text_fields", ["text"], "csv, jsonl: columns of the text; several: see --join_fields.")
    flags.DEFINE_string("label_field", "label", "csv, jsonl: column of the label.")
    flags.DEFINE_string("split_field", "", "csv, jsonl: column that says 'test' for test rows.")
    flags.DEFINE_string("id_field", "id", "csv, jsonl: column of the row's id, for predictions.csv.")
    flags.DEFINE_bool("skip_bad_rows", False, "Count unusable rows and go on, instead of stopping at the first.")
    flags.DEFINE_float("validation_share", 0.1, "Of the training rows, stratified.")
    flags.DEFINE_float("test_share", 0.1, "Of all rows, stratified, where the data set has no test rows.")
    flags.DEFINE_string("keep_rows", "", "COLUMN=VALUE or COLUMN=VALUE|VALUE: use only such rows of --data_path.")
    flags.DEFINE_integer("train_rows", 0, "Use only so many training rows, drawn by class and seed; 0: all.", 0)
    flags.DEFINE_integer("test_rows", 0, "The same for test rows.", 0)
    flags.DEFINE_bool("balanced_rows", False, "Draw them as many of each class; otherwise by the classes' shares.")
    flags.DEFINE_bool("drop_duplicates", False, "Drop training texts that are in validation or test as well.")
    flags.DEFINE_enum(
        "join_fields", join_fields, ["sep", "space"], "Between headline and description: <SEP> or nothing."
    )


def define_cleaning_flags() -> None:
    """Flags that say how text becomes words."""
    flags.DEFINE_bool("lower_case", True, "Fold case.")
    flags.DEFINE_bool("strip_html", True, "Drop tags, resolve entities.")
    flags.DEFINE_bool("keep_punctuation", False, "Punctuation marks are words; otherwise they are dropped.")
    flags.DEFINE_bool("keep_special", False, "The same for other symbols (currency, mathematics, emoji).")
    flags.DEFINE_string("stop_words", "none", "none, sklearn, nltk (needs a download), or a file of words.")
    flags.DEFINE_enum("stemmer", "none", ["none", "snowball", "porter"], "NLTK's.")


def load_splits() -> "Splits":
    """The data set of the flags."""
    from text_cls.data import Source, draw_rows, load

    source = Source(
        dataset=FLAGS.dataset,
        data_path=Path(FLAGS.data_path).expanduser() if FLAGS.data_path else None,
        test_path=Path(FLAGS.test_path).expanduser() if FLAGS.test_path else None,
        text_fields=tuple(FLAGS.text_fields),
        label_field=FLAGS.label_field,
        split_field=FLAGS.split_field,
        id_field=FLAGS.id_field,
        skip_bad_rows=FLAGS.skip_bad_rows,
        keep=_keep(),
        cache_dir=cache_dir(),
    )
    splits = load(source, FLAGS.validation_share, FLAGS.test_share, FLAGS.seed, FLAGS.drop_duplicates)
    for name, count in (("train", FLAGS.train_rows), ("test", FLAGS.test_rows)):
        if count:
            drawn = draw_rows(splits.parts()[name], count, FLAGS.balanced_rows, FLAGS.seed, name)
            splits = dataclasses.replace(splits, **{name: drawn})  # type: ignore[arg-type]
    return _joined(splits) if FLAGS.join_fields == "space" else splits


def _keep() -> "Keep | None":
    from text_cls.readers import Keep

    field, equals, values = FLAGS.keep_rows.partition("=")
    if FLAGS.keep_rows and not (field and equals):
        raise UserError(f"--keep_rows={FLAGS.keep_rows!r}: write COLUMN=VALUE, several values with | between them")
    return Keep(field, tuple(values.split("|"))) if FLAGS.keep_rows else None


def _joined(splits: "Splits") -> "Splits":
    changes: dict[str, Any] = {}
    for name, texts in splits.parts().items():
        changes[name] = dataclasses.replace(texts, fields=[(" ".join(fields),) for fields in texts.fields])
    return dataclasses.replace(splits, **changes)


def make_cleaner() -> "Cleaner":
    """The cleaner of the flags."""
    from text_cls.preprocess import Cleaner

    return Cleaner(
        FLAGS.lower_case,
        FLAGS.strip_html,
        FLAGS.keep_punctuation,
        FLAGS.keep_special,
        FLAGS.stop_words,
        FLAGS.stemmer,
    )


def tokenise_splits(splits: "Splits", tokenise: Tokenise, key: str) -> tuple["Splits", dict[str, "Corpus"]]:
    """Tokenises every split once; the result is kept in the cache.

    Args:
        splits: the data set.
        tokenise: (texts, workers) → corpus.
        key: what its result depends on besides the texts.

    Returns:
        The splits without texts that are empty after cleaning (an error unless --skip_bad_rows), and the words of
        each split by its name.
    """
    import numpy as np

    corpora: dict[str, Corpus] = {}
    changes: dict[str, Any] = {}
    notes = splits.notes
    for name, texts in splits.parts().items():
        corpus = _cached(name, texts, tokenise, key)
        empty = np.flatnonzero(corpus.lengths == 0)
        if len(empty):
            message = f"{texts.where[empty[0]]}: the text {texts.fields[empty[0]][0][:40]!r} is empty after cleaning"
            if not FLAGS.skip_bad_rows:
                raise UserError(f"{message}; mend the row, or leave such rows out with --skip_bad_rows")
            notes = (*notes, f"{len(empty)} {name} rows left out, the first: {message}")
            texts = texts.take(np.flatnonzero(corpus.lengths))
            kept = corpus.lengths[corpus.lengths > 0]
            corpus = dataclasses.replace(corpus, offsets=np.concatenate([[0], np.cumsum(kept)]))
        corpora[name], changes[name] = corpus, texts
    return dataclasses.replace(splits, notes=notes, **changes), corpora


def clean_splits(splits: "Splits", cleaner: "Cleaner") -> tuple["Splits", dict[str, "Corpus"]]:
    """``tokenise_splits`` with a cleaner."""
    from text_cls.preprocess import cleaning_key, tokenise

    return tokenise_splits(splits, lambda texts, workers: tokenise(texts, cleaner, workers), cleaning_key(cleaner))


def _cached(name: str, texts: "Texts", tokenise: Tokenise, key: str) -> "Corpus":
    from text_cls.preprocess import Corpus

    digest = hashlib.sha256(f"{texts.fingerprint()} {key}".encode()).hexdigest()[:24]
    path = cache_dir() / "tokenised" / f"{digest}.npz"
    if path.exists():
        return Corpus.load(path)
    start = time.monotonic()
    corpus = tokenise(texts.fields, 0)
    print(
        f"tokenised {len(texts):,} {name} texts, {len(corpus.ids):,} tokens, in {time.monotonic() - start:.1f} s",
        flush=True,
    )
    if not FLAGS.dry_run:
        corpus.save(path)
    return corpus
