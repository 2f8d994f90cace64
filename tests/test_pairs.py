"""Two texts as segments A and B: the reference's ids, segments and hidden states, from end to end."""

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from files.errors import UserError
from tests.golden.pairs import LENGTH, PAIRS
from tests.scripts import ROOT, fails, succeeds
from text_cls.encoders.bert import build_encoder
from text_cls.encoders.checkpoints import load_encoder, read_checkpoint
from text_cls.encoders.pretrain import MaskTokens
from text_cls.predictor import Predictor, _joining
from text_cls.prepared import make_tokeniser
from text_cls.tokens.encoding import Encoded
from text_cls.tokens.length_config import EncoderConfig
from text_cls.tokens.pairs import longest_first
from text_cls.tokens.vocabulary import SEGMENT

TINY = ROOT / "tests" / "golden" / "tiny"
GOLDEN = np.load(TINY / "pairs.npz")


def _encoded(join_fields: str = "pair") -> Encoded:
    checkpoint = read_checkpoint(TINY / "bert")
    tokeniser = make_tokeniser(checkpoint, EncoderConfig(max_length=LENGTH, encoder=str(TINY / "bert")), join_fields)
    return tokeniser.encode(tokeniser.tokenise(PAIRS))


def test_ids_and_segments_are_the_references() -> None:
    encoded = _encoded()
    for number in range(len(PAIRS)):
        ids = encoded.ids[encoded.offsets[number] : encoded.offsets[number + 1]]
        assert (ids % SEGMENT).tolist() == GOLDEN[f"ids_{number}"].tolist(), PAIRS[number]
        assert (ids // SEGMENT).tolist() == GOLDEN[f"segments_{number}"].tolist(), PAIRS[number]


def test_hidden_states_are_the_references() -> None:
    """The file is made by tests/golden/make_pairs.py with Hugging Face transformers."""
    checkpoint = read_checkpoint(TINY / "bert")
    encoder = build_encoder(checkpoint.config, pairs=True)
    load_encoder(checkpoint, encoder)
    encoded = _encoded()
    for number in range(len(PAIRS)):
        ids = encoded.ids[encoded.offsets[number] : encoded.offsets[number + 1]]
        padded = np.pad(ids, (0, LENGTH - len(ids)))[None]
        np.testing.assert_allclose(encoder(padded)[0][: len(ids)], GOLDEN[f"hidden_{number}"], atol=1e-5)


@pytest.mark.parametrize(
    ("a", "b", "room", "kept"),
    [
        (3, 4, 9, (3, 4)),
        (8, 3, 9, (6, 3)),
        (3, 8, 9, (3, 6)),
        (9, 9, 9, (4, 5)),
        (10, 9, 9, (5, 4)),
        (9, 5, 9, (5, 4)),
        (5, 9, 9, (4, 5)),
        (4, 9, 9, (4, 5)),
        (0, 12, 9, (0, 9)),
        (12, 0, 9, (9, 0)),
        (5, 5, 0, (0, 0)),
        (7, 7, 1, (0, 1)),
    ],
)
def test_the_longer_text_is_cut_first(a: int, b: int, room: int, kept: tuple[int, int]) -> None:
    assert longest_first(a, b, room) == kept


def test_the_library_cuts_the_same() -> None:
    tokenizers = pytest.importorskip("tokenizers")
    words = {"[UNK]": 0, "a": 1}
    library = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    library.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    for room in (1, 2, 9, 10):
        library.enable_truncation(room, strategy="longest_first")
        for a in range(14):
            for b in range(14):
                found = library.encode("a " * a, "a " * b)
                counts = [found.sequence_ids.count(side) for side in (0, 1)]
                assert tuple(counts) == longest_first(a, b, room), (a, b, room)


def test_masked_places_keep_their_segment() -> None:
    mask = MaskTokens(mask_id=4, special_ids=(2, 3), vocabulary_size=50)
    row = [2, 7, 8, 3, *(SEGMENT + piece for piece in (9, 10, 11, 3)), 0]
    tokens = np.tile([row], (200, 1)).astype(np.int32)
    masked, places, targets, weight = (np.asarray(part) for part in mask(tokens))
    assert (masked // SEGMENT == tokens // SEGMENT).all()
    chosen = np.take_along_axis(tokens, places, axis=1)
    assert (targets == chosen % SEGMENT).all() and weight.sum() == 200
    assert not np.isin(chosen[weight > 0], [2, 3, SEGMENT + 3, 0]).any() and (masked % SEGMENT == 4).sum() > 100


def test_padded_vocabularies(tmp_path: Path) -> None:
    """A word table with more rows than there are pieces changes nothing."""
    checkpoint = read_checkpoint(TINY / "bert")
    words = checkpoint.tensors["embeddings.word_embeddings.weight"]
    padded = checkpoint._replace(
        config=dataclasses.replace(checkpoint.config, vocabulary_size=len(words) + 7),
        tensors=checkpoint.tensors
        | {"embeddings.word_embeddings.weight": np.concatenate([words, np.ones((7, words.shape[1]), np.float32)])},
    )
    states = []
    for one in (checkpoint, padded):
        encoder = build_encoder(one.config, pairs=True)
        load_encoder(one, encoder)
        encoded = _encoded()
        states.append(np.asarray(encoder(encoded.ids[encoded.offsets[0] : encoded.offsets[1]][None])))
    np.testing.assert_array_equal(*states)


@pytest.fixture
def flags(tmp_path: Path) -> list[str]:
    with (tmp_path / "pairs.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["premise", "hypothesis", "label"])
        for row in range(40):
            word = ("the run", "of and")[row % 2]
            writer.writerow([word, ("the run", "of and")[(row // 2) % 2], ("no", "yes")[row % 2 == (row // 2) % 2]])
    return ["--dataset=csv", f"--data_path={tmp_path}/pairs.csv", "--text_fields=premise,hypothesis", "--devices=cpu",
            f"--cache_dir={tmp_path}/cache", f"--run_dir={tmp_path}/run"]  # fmt: skip


@pytest.mark.slow
def test_pairs_from_end_to_end(flags: list[str], tmp_path: Path) -> None:
    small = [f"--encoder={TINY / 'bert'}", "--max_length=12", "--batch_size=8", "--num_steps=4", "--tsne=0"]
    succeeds("finetune_bert", *flags, *small, "--join_fields=pair", "--mlm_epochs=0.5")
    config = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert config["model"]["pairs"] and config["join_fields"] == "pair"
    answers = succeeds("predict_text", f"--run_dir={tmp_path}/run", "--separator=|", "the run|of and", "of and|of and")
    swapped = succeeds("predict_text", f"--run_dir={tmp_path}/run", "--separator=|", "of and|the run", "of and|of and")
    assert answers.splitlines()[2] == swapped.splitlines()[2] and answers.splitlines()[1] != swapped.splitlines()[1]
    error = fails("predict_text", f"--run_dir={tmp_path}/run", "only one")
    assert "the model takes two fields (premise, hypothesis), and 'only one' has 1" in error


def test_a_published_classifier_of_pairs() -> None:
    """It does not say that it takes two texts; one is taken as before."""
    folder, pair = TINY / "bert_classifier", [("the run", "of and")]
    with pytest.raises(UserError, match="set --join_fields=pair"):
        Predictor.load(folder).classify(pair)
    found = Predictor.load(folder, join_fields="pair")
    assert found.tokeniser.pairs and found.classify(pair) != found.classify([pair[0][::-1]])
    with pytest.raises(UserError, match=r"--join_fields=space: .* was trained with pair"):
        _joining(found, "space", folder)


def test_mistakes(flags: list[str], tmp_path: Path) -> None:
    encoder = [f"--encoder={TINY / 'bert'}", "--max_length=12", "--num_steps=1", "--batch_size=8"]
    pair = "--join_fields=pair"
    error = fails("finetune_bert", *flags, *encoder, pair, "--truncate=head_tail")
    assert "--truncate=head_tail: pairs of texts are always cut at their ends" in error
    assert "a pair has two fields" in fails("finetune_bert", *flags, *encoder, pair, "--text_fields=premise")
    for script in ("train_text", "baselines_text"):
        own = [flag for flag in flags if script == "train_text" or not flag.startswith("--devices")]
        assert "--join_fields=pair is for encoders" in fails(script, *own, pair)


def test_other_ways_to_join_are_as_they_were() -> None:
    encoded = _encoded("sep")
    assert encoded.ids.max() < SEGMENT and (encoded.ids == 3).sum() > len(PAIRS)
    with pytest.raises(UserError, match="a pair has two fields"):
        _encoded_one_field()


def _encoded_one_field() -> None:
    checkpoint = read_checkpoint(TINY / "bert")
    make_tokeniser(checkpoint, EncoderConfig(max_length=LENGTH, encoder=str(TINY / "bert")), "pair").tokenise(
        [("one",)]
    )
