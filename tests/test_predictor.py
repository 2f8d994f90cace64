"""The artefact of a text run: it gives what evaluation gave, and no damage to it goes unnoticed."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy import special

from files.errors import UserError
from tests.scripts import run
from text_cls.config import CleaningConfig
from text_cls.evaluation.calibration import activated, fit_temperature
from text_cls.evaluation.several_labels import fit_thresholds
from text_cls.layers.transformer_config import TransformerConfig
from text_cls.predictor import Predictor
from text_cls.tokens.preprocess import Cleaner, tokenise
from text_cls.tokens.tokenisers import WordTokeniser
from text_cls.tokens.vocabulary import Vocabulary
from training.backends import Placement
from training.session import precision

TEXTS = [("good film", "the actor"), ("bad film", "no scene"), ("a", "b c d e f g h i j k l")]


def _predictor(placement: Placement, join_fields: str = "sep", multi_label: bool = False) -> Predictor:
    vocabulary = Vocabulary.build(tokenise(TEXTS, Cleaner()), 100)
    config = TransformerConfig(
        vocabulary_size=len(vocabulary), num_classes=2, max_length=8, width=16, ffn_width=16, num_layers=1, num_heads=2
    )
    tokeniser = WordTokeniser(Cleaner(), vocabulary, 8)
    predictor = Predictor(
        config, tokeniser, ("up", "down"), placement, join_fields=join_fields, multi_label=multi_label
    )
    rng = np.random.default_rng(0)
    for variable in predictor.model.trainable_variables:
        variable.assign(variable + rng.normal(0, 0.3, variable.shape))
    return predictor


def _answers(predictor: Predictor) -> np.ndarray:
    return predictor.probabilities(predictor.encode(TEXTS))


@pytest.mark.parametrize("name", ["float32", "mixed_bfloat16", "tf32"])
@pytest.mark.parametrize("join_fields", ["sep", "space"])
def test_what_was_saved_answers_the_same(tmp_path: Path, one_replica: Placement, name: str, join_fields: str) -> None:
    with precision(name):
        predictor = _predictor(one_replica, join_fields)
        wanted = _answers(predictor)
        predictor.save(tmp_path)
    with precision("mixed_bfloat16" if name == "float32" else "float32"):  # it is not the process that knows
        loaded = Predictor.load(tmp_path, one_replica)
        np.testing.assert_array_equal(_answers(loaded), wanted)
    assert loaded.precision == name and loaded.join_fields == join_fields


def test_precision_and_joined_fields_make_a_difference(one_replica: Placement) -> None:
    """Or the test above could not fail."""
    with precision("mixed_bfloat16"):
        halved = _answers(_predictor(one_replica))
    with precision("float32"):
        whole, joined = _answers(_predictor(one_replica)), _answers(_predictor(one_replica, "space"))
    assert np.abs(halved - whole).max() > 1e-4 and np.abs(joined - whole).max() > 1e-4


@pytest.mark.parametrize("name", ["config.json", "vocabulary.txt", "weights.safetensors"])
def test_a_flipped_bit_anywhere_is_noticed(tmp_path: Path, one_replica: Placement, name: str) -> None:
    _predictor(one_replica).save(tmp_path / "model")
    whole = (tmp_path / "model" / name).read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(whole), 25):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        if name == "config.json" and _same_json(bytes(damaged), whole):
            continue  # a space became another kind of space
        (tmp_path / "model" / name).write_bytes(damaged)
        with pytest.raises(UserError, match=rf"(?s){name.split('.')[0]}"):
            Predictor.load(tmp_path / "model", one_replica)


def test_a_checksum_whose_own_name_is_damaged(tmp_path: Path, one_replica: Placement) -> None:
    _predictor(one_replica).save(tmp_path)
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('"sha256"', '"sha257"'))
    with pytest.raises(UserError, match=r"config\.json: damaged, or changed by hand"):
        Predictor.load(tmp_path, one_replica)


def _same_json(one: bytes, two: bytes) -> bool:
    try:
        return json.loads(one) == json.loads(two)
    except ValueError:
        return False


@pytest.mark.parametrize("damage", ["cut", "doubled", "altered", "empty", "gone", "of another"])
@pytest.mark.parametrize("name", ["vocabulary.txt", "weights.safetensors"])
def test_files_that_are_not_those_that_were_saved(
    tmp_path: Path, one_replica: Placement, name: str, damage: str
) -> None:
    folder = tmp_path / "model"
    _predictor(one_replica).save(folder)
    path, content = folder / name, (folder / name).read_bytes()
    if damage == "of another":  # whole, and of the same shapes
        _predictor(one_replica).save(tmp_path / "other")
        other = tmp_path / "other" / name
        if name == "vocabulary.txt":
            other.write_text(other.read_text().replace("good", "great"))
        else:
            predictor = _predictor(one_replica)
            predictor.model.trainable_variables[0].assign_add(np.ones(predictor.model.trainable_variables[0].shape))
            predictor.save(tmp_path / "other")
        shutil.copy(other, path)
    elif damage == "gone":
        path.unlink()
    else:
        changed = {
            "cut": content[:-20],
            "doubled": content * 2,
            "altered": content.replace(b"o", b"u", 1),
            "empty": b"",
        }
        path.write_bytes(changed[damage])
    with pytest.raises(UserError, match=name):
        Predictor.load(folder, one_replica)


def test_artefacts_of_earlier_versions_are_read(tmp_path: Path, one_replica: Placement) -> None:
    predictor = _predictor(one_replica)
    predictor.save(tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text())
    for name in ("sha256", "files", "precision", "join_fields", "temperature"):
        del raw[name]
    (tmp_path / "config.json").write_text(json.dumps(raw))
    np.testing.assert_array_equal(_answers(Predictor.load(tmp_path, one_replica)), _answers(predictor))


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_temperature_goes_with_the_model(tmp_path: Path, one_replica: Placement, multi_label: bool) -> None:
    """It is fitted, kept, and applied by whatever answers; no class is another by it."""
    predictor = _predictor(one_replica, multi_label=multi_label)
    encoded = predictor.encode(TEXTS)
    logits, before = predictor.logits(encoded), predictor.probabilities(encoded)
    np.testing.assert_array_equal(before, activated(logits, multi_label))
    labels = np.array([[0, 1], [1, 0], [1, 1]]) if multi_label else np.array([1, 0, 0])
    predictor.calibrate(logits, labels)
    assert predictor.temperature == fit_temperature(logits, labels)
    if multi_label:
        np.testing.assert_array_equal(predictor.thresholds, fit_thresholds(predictor.probabilities(encoded), labels))
    predictor.temperature = 1.7  # what is fitted depends on random weights, and may be 1
    after = predictor.probabilities(encoded)
    given, found = (logits, special.logit(after)) if multi_label else (np.diff(logits), np.diff(np.log(after)))
    np.testing.assert_allclose(found, given / predictor.temperature, atol=1e-4)
    assert multi_label or after.argmax(axis=1).tolist() == before.argmax(axis=1).tolist()
    predictor.save(tmp_path)
    loaded = Predictor.load(tmp_path, one_replica)
    assert loaded.temperature == predictor.temperature
    np.testing.assert_array_equal(loaded.probabilities(encoded), after)
    if multi_label:
        np.testing.assert_array_equal(loaded.thresholds, predictor.thresholds)
    else:
        found = loaded.classify(TEXTS)
        assert [one.confidence for (one,) in found] == pytest.approx(after.max(axis=1), abs=1e-5)


def test_stop_words_go_with_the_model(tmp_path: Path, one_replica: Placement) -> None:
    words = tmp_path / "stop.txt"
    words.write_text("good the")
    cleaner = Cleaner(CleaningConfig(stop_words=str(words)))
    vocabulary = Vocabulary.build(tokenise(TEXTS, cleaner), 100)
    config = TransformerConfig(len(vocabulary), 2, 8, 16, 1, 2, 16)
    predictor = Predictor(config, WordTokeniser(cleaner, vocabulary, 8), ("up", "down"), one_replica)
    wanted, ids = _answers(predictor), predictor.encode(TEXTS).ids
    predictor.save(tmp_path / "model")
    words.write_text("film")
    np.testing.assert_array_equal(Predictor.load(tmp_path / "model", one_replica).encode(TEXTS).ids, ids)
    words.unlink()
    np.testing.assert_array_equal(_answers(Predictor.load(tmp_path / "model", one_replica)), wanted)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_size", True),
        ("precision", "float16"),
        ("precision", 7),
        ("join_fields", "x"),
        ("classes", [1, None]),
        *(("temperature", value) for value in (0, -1.0, True, "1", None, float("nan"), float("inf"))),
    ],
)
def test_values_changed_by_hand_are_checked(tmp_path: Path, one_replica: Placement, name: str, value: object) -> None:
    _predictor(one_replica).save(tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text())
    del raw["sha256"]
    (tmp_path / "config.json").write_text(json.dumps(raw | {name: value}))
    with pytest.raises(UserError, match=f"not a predictor's configuration .*{name} "):
        Predictor.load(tmp_path, one_replica)


def test_a_model_of_no_numbers_does_not_answer(tmp_path: Path, one_replica: Placement) -> None:
    predictor = _predictor(one_replica)
    predictor.model.trainable_variables[-1].assign([np.nan, 0.0])
    predictor.save(tmp_path / "model")
    done = run("predict_text", f"--run_dir={tmp_path}", "good film")
    assert done.returncode != 0 and "not finite" in done.stderr and "nan" not in done.stdout


def test_one_text_costs_few_rows_and_many_waste_few(one_replica: Placement) -> None:
    from text_cls.batches import evaluation_batches, evaluation_rows
    from text_cls.tokens.encoding import Encoded

    rows = evaluation_rows(64)
    assert [rows(n) for n in (8, 64, 65, 128, 256, 512)] == [16, 16, 12, 8, 4, 4]
    assert evaluation_rows(3)(8) == 3
    lengths = np.random.default_rng(0).integers(20, 60, 201)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    encoded = Encoded(np.full(offsets[-1], 9, np.int32), offsets, np.zeros(201, np.int32))
    batches = list(evaluation_batches(encoded, 64, 128))
    assert sum(len(batch.mask) for batch in batches) <= 310
    assert sum(batch.mask.sum() for batch in batches) == 201
