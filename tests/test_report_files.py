"""What ``report.html`` is made of: texts and vectors that are kept, and when the page is made, and made again."""

import json
import random
from pathlib import Path

import numpy as np
import pytest

from files.errors import UserError
from tests import little_model
from tests.scripts import succeeds
from tests.test_report_page import Reader, answered_texts
from text_cls.answers import Explanation
from text_cls.data.splits import Texts
from text_cls.report import files as report_files
from text_cls.report.data import MOST_ERRORS, MOST_WORDS, Answered, beginning, explained, report_data, to_explain
from text_cls.report.pooled import Places, Pooled, drawn_rows, pooled_vectors, principal
from training.backends import Placement


@pytest.mark.parametrize("several", [False, True])
def test_errors_come_by_confidence(several: bool) -> None:
    answered = answered_texts(several)
    rows = answered.errors().tolist()
    assert rows == [3, 1, 4]
    about = answered.about(3)
    assert about["labels"] == ["a\nb"] and about["predicted"] == ["c"] and about["id"].startswith("3")
    assert about["confidence"] == pytest.approx(0.95 if not several else 0.95 * 0.95)
    spoilt = answered._replace(
        probabilities=np.where([[False], [False], [False], [True], [False]], np.nan, answered.probabilities)
    )
    assert spoilt.errors().tolist() == rows[1:]


def test_what_is_kept_of_texts_is_bounded() -> None:
    many = 500
    texts = Texts([("word " * 5000,)] * many, np.zeros(many, np.int32), ["1"] * many, [""] * many)
    wrong = Answered(texts, np.tile(np.array([[0.0, 1.0]], np.float32), (many, 1)), None, ("a", "b"))
    kept = report_data(wrong, range(many))
    assert kept["wrong"] == many and len(kept["errors"]) == MOST_ERRORS
    assert {len(one["text"]) for one in kept["errors"]} == {300} and max(map(len, kept["points"])) <= 81
    assert beginning(["a\n b", "c"], 9) == "a b c" and beginning(["abc def"], 4) == "abc…"
    one = Explanation(tuple("x" * 9999), np.ones(9999), 1, 0.0, 0.0, 0.0)
    (found,) = explained(wrong, [0], [one])
    assert len(found["words"]) == len(found["attributions"]) == MOST_WORDS
    assert found["more_words"] == 9999 - MOST_WORDS and found["class"] == "b" and "text" not in found


def test_errors_and_typical_answers_are_explained() -> None:
    assert to_explain(answered_texts()) == [3, 1, 4, 0, 2]
    probabilities = np.array([[0.6, 0.4], [0.9, 0.1], [0.7, 0.3], [0.2, 0.8]], np.float32)
    right = Answered(
        Texts([("x",)] * 4, np.array([0, 0, 0, 1]), list("abcd"), [""] * 4), probabilities, None, ("u", "v")
    )
    assert to_explain(right) == [2, 3]  # of the larger class first, the one in the middle


def test_the_vectors_are_those_the_head_is_given(tmp_path: Path, one_replica: Placement) -> None:
    predictor = little_model.save(tmp_path)
    encoded = predictor.encode([(text,) for text in little_model.TEXTS])
    vectors = pooled_vectors(predictor.model, encoded, 2, one_replica)
    kernel, bias = (variable.numpy() for variable in predictor.model.get_layer("head").variables)
    np.testing.assert_allclose(vectors @ kernel + bias, predictor.logits(encoded), atol=1e-5)


def test_principal_components_keep_distances() -> None:
    rng = np.random.default_rng(0)
    vectors = (rng.normal(size=(30, 6)) * [9, 7, 5, 3, 2, 1]) @ rng.normal(size=(6, 80)) + 100
    found = principal(vectors, 6)
    assert found.shape == (30, 6) and (np.diff(found.var(axis=0)) < 0).all()

    def distances(points: np.ndarray) -> np.ndarray:
        return np.linalg.norm(points[:, None] - points[None], axis=-1)

    np.testing.assert_allclose(distances(found), distances(vectors), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(principal(vectors, 80), vectors.astype(np.float32))


def test_drawn_rows_and_damaged_files(tmp_path: Path) -> None:
    assert sorted(drawn_rows(5, 100, 0)) == [0, 1, 2, 3, 4] and len(set(drawn_rows(100, 7, 0).tolist())) == 7
    pooled = Pooled(np.ones((3, 2), np.float32), np.arange(3), np.arange(3), np.arange(3))
    pooled.save(tmp_path / "a.npz")
    np.testing.assert_array_equal(Pooled.load(tmp_path / "a.npz").vectors, pooled.vectors)
    with pytest.raises(UserError, match=r"a\.npz: damaged: arrays of one length named plane, space"):
        Places.load(tmp_path / "a.npz")
    pooled._replace(rows=np.arange(2)).save(tmp_path / "a.npz")
    with pytest.raises(UserError, match=r"a\.npz: damaged"):
        Pooled.load(tmp_path / "a.npz")


SMALL = ["--width=16", "--ffn_width=16", "--num_heads=2", "--num_layers=1", "--batch_size=8", "--num_steps=3",
         "--min_count=1", "--devices=cpu", "--max_length=16", "--dataset=csv"]  # fmt: skip


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("texts")
    words = np.random.default_rng(0).integers(0, 50, (80, 4))
    lines = [
        f"w{a} w{b} w{c} w{d} {('good', 'bad')[k % 2]},{('up', 'down')[k % 2]}" for k, (a, b, c, d) in enumerate(words)
    ]
    (folder / "texts.csv").write_text("text,label\n" + "\n".join(lines) + "\n")
    return [*SMALL, f"--data_path={folder}/texts.csv", f"--cache_dir={folder}/cache"]


def test_a_run_makes_its_page_and_makes_it_again(texts: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = ["train_text", *texts, "--report", "--shards=0", f"--run_dir={folder}"]  # as a user has it
    before = random.getstate(), np.random.get_state()[1].tolist()
    done = succeeds(*command)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before
    order = [
        (folder / name).stat().st_mtime_ns
        for name in ("report_data.json", "result.json", "explained.json", "report.html")
    ]
    assert order == sorted(order)  # what cannot be had again comes first
    assert "note:" not in done and "report.html" in done and "t-SNE of 8 test texts" in done
    first = (folder / "report.html").read_bytes()
    found = Reader(first.decode())
    assert len(found.values("cx")) == 8 and found.text.count("for ") and len(found.values("src")) == 4
    assert len(json.loads((folder / "explained.json").read_text())) >= 2
    (folder / "report.html").unlink()
    succeeds(*command)
    assert (folder / "report.html").read_bytes() == first
    stamp = (folder / "report.html").stat().st_mtime_ns
    succeeds(*command)
    assert (folder / "report.html").stat().st_mtime_ns == stamp  # nothing to do
    for name in ("tsne.npz", "tsne.png", "curves.png"):
        (folder / name).unlink()
    succeeds(*command)  # pictures are drawn again, and the page with them
    assert (folder / "report.html").read_bytes() == first and (folder / "report.html").stat().st_mtime_ns > stamp


@pytest.mark.slow
def test_a_page_that_fails_is_a_note(texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So is a text that cannot be explained, and a t-SNE; the next call makes the page of what there is."""
    folder, command = tmp_path / "run", ["train_text", *texts, "--report", f"--run_dir={tmp_path}/run"]
    with monkeypatch.context() as broken:
        for module, name in ((report_files, "explain"), (report_files, "write_page"), (Places, "of")):
            broken.setattr(module, name, _fail)
        done = succeeds(*command)
    for name in ("explained.json", "tsne.npz", "report.html"):
        assert f"note: {name} could not be drawn: MemoryError: 23 GB" in done
    assert (folder / "result.json").exists() and not (folder / "report.html").exists()
    assert "finished before" in succeeds(*command)
    text = Reader((folder / "report.html").read_text(encoding="utf-8")).text
    assert "No texts are explained here" in text and "near points are alike" in text


def _fail(*ignored: object, **more: object) -> None:
    raise MemoryError("23 GB")


@pytest.mark.slow
def test_no_page_and_no_run(texts: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    succeeds("train_text", *texts, "--report", "--dry_run", f"--run_dir={folder}")
    assert not folder.exists()
    done = succeeds("train_text", *texts, "--noreport", f"--run_dir={folder}")
    names = {path.name for path in folder.iterdir()}
    assert "report.html" not in done and not names & {"report.html", "report_data.json", "pooled.npz", "tsne.png"}
    succeeds("train_text", *texts, "--report", f"--run_dir={folder}")  # the same run, and a page of what it has
    assert "report_data.json is not there" in (folder / "report.html").read_text(encoding="utf-8")
