"""Character n-grams and NB-SVM against scikit-learn and numbers by hand; runs of ``baselines_text``."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix, hstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.svm import LinearSVC

from files.errors import UserError
from tests.scripts import fails, succeeds
from text_cls.baseline_config import FORMER_MODELS, BaselineConfig
from text_cls.linear.baselines import MODELS, features, run_baseline, with_characters
from text_cls.linear.nb_svm import NaiveBayesSvm, log_count_ratios
from text_cls.tokens.preprocess import Cleaner, merge, tokenise

TEXTS = ["A cat sat on the mat", "the cats' mats, re-sat!", "dogs bark at Äpfel and at a cat", "x", "an unseen emu"]


def test_characters_are_those_of_scikit_learn_and_each_part_has_length_one() -> None:
    """Cutting every distinct word once gives what ``char_wb`` gives on the cleaned texts."""
    train, test = (tokenise([(text,) for text in part], Cleaner()) for part in (TEXTS[:4], TEXTS[2:]))
    words = features(train, [test])
    found = with_characters(words, train, [test])
    cleaned = [" ".join(Cleaner().words((text,))) for text in TEXTS]
    library = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, dtype=np.float32)
    for matrix, part, wanted in zip(
        found, words, [library.fit_transform(cleaned[:4]), library.transform(cleaned[2:])], strict=True
    ):
        np.testing.assert_allclose(matrix.toarray(), hstack([part, wanted]).toarray(), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found[0].power(2).sum(axis=1), 2.0, rtol=1e-5)


def test_the_mark_between_fields_has_no_characters() -> None:
    together, joined = (tokenise([fields], Cleaner()) for fields in (("cat mat",), ("cat", "mat")))
    one, two = (with_characters([csr_matrix((1, 1))], corpus, [])[0].toarray() for corpus in (together, joined))
    np.testing.assert_array_equal(one, two)


F = csr_matrix(np.array([[1.0, 1, 0], [1, 0, 0], [0, 1, 1], [0, 0, 1]]))
Y = np.array([1, 1, 0, 0])


def test_log_count_ratios_by_hand() -> None:
    # p = 1 + (2, 1, 0) = (3, 2, 1), q = 1 + (0, 1, 2) = (1, 2, 3), both of sum 6.
    np.testing.assert_allclose(log_count_ratios(F, Y == 1, 1.0), [np.log(3), 0.0, -np.log(3)], atol=1e-12)
    # The sums differ: p = .5 + (2, 1, 0), of sum 4.5; q = .5 + (0, 0, 1), of sum 2.5.
    wanted = [np.log((2.5 / 4.5) / (0.5 / 2.5)), np.log((1.5 / 4.5) / (0.5 / 2.5)), np.log((0.5 / 4.5) / (1.5 / 2.5))]
    np.testing.assert_allclose(log_count_ratios(F[[0, 1, 3]], Y[[0, 1, 3]] == 1, 0.5), wanted)


@pytest.mark.parametrize("beta", [0.0, 0.25, 1.0])
def test_nb_svm_is_the_papers(beta: float) -> None:
    """Of two classes: an SVM on r ∘ f of length 1, its weights interpolated with their mean magnitude."""
    r = np.array([np.log(3), 0.0, -np.log(3)])
    unit = F.toarray() / np.sqrt([[2], [1], [2], [1]])
    svm = LinearSVC(C=1.0, random_state=0, tol=1e-8).fit(unit * r, Y)
    w = svm.coef_[0]
    wanted = unit @ (r * ((1 - beta) * np.abs(w).mean() + beta * w)) + svm.intercept_[0]
    found = NaiveBayesSvm(C=1.0, beta=beta).fit(F, Y).decision_function(F)
    np.testing.assert_allclose(found, wanted, atol=1e-3)


def test_nb_svm_asks_only_whether_a_word_is_there() -> None:
    scaled = csr_matrix(F.toarray() * np.array([[0.5], [2.0], [3.0], [0.1]]))
    scaled.data[0] = 0.0  # an explicit zero is none
    before = scaled.copy()
    without = F.toarray()
    without[0, 0] = 0
    np.random.seed(0)
    found = NaiveBayesSvm().fit(scaled, Y).decision_function(scaled)
    np.random.seed(0)
    wanted = NaiveBayesSvm().fit(csr_matrix(without), Y).decision_function(csr_matrix(without))
    np.testing.assert_allclose(found, wanted)
    np.testing.assert_array_equal(scaled.data, before.data)


def test_nb_svm_of_several_classes_is_one_against_the_rest_without_interpolation() -> None:
    y = np.array([0, 1, 2, 2])
    found = NaiveBayesSvm(C=10.0, beta=0.25).fit(F, y).decision_function(F)
    alone = [NaiveBayesSvm(C=1.0, beta=1.0).fit(F, y == k).decision_function(F) for k in range(3)]
    np.testing.assert_allclose(found, np.stack(alone, axis=1), atol=2e-3)


def test_a_text_without_known_words_has_the_margin_of_none() -> None:
    model = NaiveBayesSvm().fit(F, Y)
    np.testing.assert_allclose(model.decision_function(csr_matrix((1, 3))), model.intercept_)


def test_nb_svm_needs_two_classes() -> None:
    with pytest.raises(ValueError, match=r"all 4 texts are of one class, \[2\]"):
        NaiveBayesSvm().fit(F, np.full(4, 2))


def test_merged_texts_are_those_of_both() -> None:
    one, two = (tokenise([(text,) for text in part], Cleaner()) for part in (TEXTS[:2], TEXTS[1:]))
    both = merge([one, two])
    whole = tokenise([(text,) for text in [*TEXTS[:2], *TEXTS[1:]]], Cleaner())
    assert [both.lexicon[i] for i in both.ids] == [whole.lexicon[i] for i in whole.ids]
    np.testing.assert_array_equal(both.offsets, whole.offsets)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("baselines")
    rows = [(f"word{i} {'good fine' if i % 2 else 'bad poor'} thing", "up" if i % 2 else "down") for i in range(60)]
    file = folder / "a.jsonl"
    file.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows))
    return ["--dataset=jsonl", f"--data_path={file}", f"--cache_dir={folder}"]


def test_every_model_is_fitted_by_default_and_scored_on_both_splits(data: list[str], tmp_path: Path) -> None:
    printed = succeeds("baselines_text", *data, f"--run_dir={tmp_path}/run")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    for name in MODELS:
        assert result[f"{name}_test_accuracy"] == 1.0 and f"{name}_val_accuracy" in result
    assert "n-grams of words" in printed and "of characters" in printed


def test_validation_rows_can_be_trained_on(data: list[str], tmp_path: Path) -> None:
    """A row more or less changes a feature's weight; figures of rows that were trained on are in no file."""
    flags = [*data, "--models=linear_svm_characters,naive_bayes"]
    succeeds("baselines_text", *flags, f"--run_dir={tmp_path}/less")
    printed = succeeds("baselines_text", *flags, "--train_on_validation", f"--run_dir={tmp_path}/more")
    assert "54 train, 6 test rows" in printed and "validation accuracy" not in printed
    less, more = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("less", "more"))
    assert more.keys() == {name for name in less if "_val_" not in name}
    assert more["naive_bayes_test_loss"] != less["naive_bayes_test_loss"]
    assert json.loads((tmp_path / "more" / "report.json").read_text())["naive_bayes"].keys() == {"test"}


def test_thresholds_need_validation_rows() -> None:
    with pytest.raises(UserError, match=r"--train_on_validation: the thresholds of --multi_label .*leave out"):
        BaselineConfig.of(train_on_validation=True, multi_label=True)


def test_a_folder_of_an_earlier_version_keeps_its_models(data: list[str], tmp_path: Path) -> None:
    """Its default was three models; what it says is what its results are, and other models are refused as ever."""
    folder = f"--run_dir={tmp_path}/run"
    succeeds("baselines_text", *data, f"--models={','.join(FORMER_MODELS)}", folder)
    flags = tmp_path / "run" / "flags.txt"
    flags.write_text("".join(line for line in flags.read_text().splitlines(True) if "train_on_validation" not in line))
    before = json.loads((tmp_path / "run" / "result.json").read_text())
    assert "it keeps these models" in succeeds("baselines_text", *data, folder)
    after = json.loads((tmp_path / "run" / "result.json").read_text())
    assert {k: v for k, v in after.items() if "seconds" not in k} == {
        k: v for k, v in before.items() if "seconds" not in k
    }
    assert "other flags (--models=" in fails("baselines_text", *data, "--models=nb_svm", folder)


def test_several_labels_with_every_model() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (80, 3)).astype(np.uint8)
    x = csr_matrix(np.hstack([labels, 1 - labels, rng.integers(0, 2, (80, 3))]).astype(np.float32))
    for name in MODELS:
        [found] = run_baseline(name, x[:60], labels[:60], [x[60:]])
        assert ((found >= 0.5) == labels[60:]).mean() > 0.9, name
