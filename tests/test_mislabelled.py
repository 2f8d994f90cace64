"""Training rows that are likely mislabelled: the confident joint, and changed labels found again."""

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from files.errors import UserError
from tests.scripts import ROOT
from text_cls.config import ClassifierConfig
from text_cls.data.splits import Splits, Texts
from text_cls.report.mislabelled import (
    SUSPECTS,
    check_suspects,
    confident_class,
    confident_joint,
    doubts_of,
    find_doubts,
    out_of_sample,
    write_suspects,
)
from text_cls.task import train_classifier
from training.run import Run

TOPICS = ("goal striker league coach match", "bank profit shares market rate", "film actor scene drama stage")
CLASSES = ("sport", "money", "film")

# Eight rows of two classes: thresholds are (.9 + .8 + .2 + .5) / 4 = .6 and (.9 + .7 + .3 + .5) / 4 = .6.
P = np.array([[0.9, 0.1], [0.8, 0.2], [0.2, 0.8], [0.5, 0.5], [0.1, 0.9], [0.3, 0.7], [0.7, 0.3], [0.5, 0.5]])
Y = np.array([0, 0, 0, 0, 1, 1, 1, 1])


def test_the_confident_joint_by_hand() -> None:
    guess = confident_class(P, Y)
    assert guess.tolist() == [0, 0, 1, -1, 1, 1, 0, -1]
    assert confident_joint(guess, Y, 2).toarray().tolist() == [[2, 1], [1, 2]]
    found = doubts_of(P, Y)
    np.testing.assert_allclose(found.joint.toarray(), [[1 / 3, 1 / 6], [1 / 6, 1 / 3]])
    assert found.share == pytest.approx(1 / 3) and found.agreed == 6 / 8  # of two alike the label counts
    assert found.rows.tolist() == [2, 6] and found.suggested.tolist() == [1, 0]  # the less likely label first
    assert found.of_label.tolist() == [0.2, 0.3] and found.of_suggested.tolist() == [0.8, 0.7]


def test_a_threshold_is_of_its_class() -> None:
    """A class of which models are never sure is not suspected for that; one that passes is taken, likeliest or not."""
    p = np.array(
        [[0.9, 0.1, 0.0], [0.9, 0.1, 0.0], [0.6, 0.4, 0.0], [0.5, 0.45, 0.05], [0.2, 0.2, 0.6], [0.5, 0.1, 0.4]]
    )
    labels = np.array([0, 0, 1, 1, 2, 2])
    assert confident_class(p, labels).tolist() == [0, 0, -1, 1, 2, -1]  # thresholds .9, .425, .5
    assert not len(doubts_of(p, labels).rows)
    joint = doubts_of(np.array([[0.9, 0.1], [0.9, 0.1], [0.95, 0.05]]), np.array([0, 0, 1])).joint.toarray()
    np.testing.assert_allclose(joint, [[2 / 3, 0], [1 / 6, 1 / 6]])  # class 1 has no row of its own, and counts one


def test_joint_and_order_are_those_of_cleanlab() -> None:
    golden = np.load(ROOT / "tests" / "golden" / "confident.npz")
    p, labels = golden["probabilities"], golden["labels"]
    np.testing.assert_array_equal(confident_joint(confident_class(p, labels), labels, 5).toarray(), golden["counts"])
    found = doubts_of(p, labels)
    np.testing.assert_array_equal(found.rows, golden["ranked"])
    np.testing.assert_allclose(found.joint.toarray(), golden["joint"], atol=1 / len(labels))  # it rounds to whole rows
    assert found.joint.sum() == pytest.approx(1.0)


def _texts(rows: int, wrong: int, seed: int) -> tuple[Texts, np.ndarray, np.ndarray]:
    """Texts of three topics with labels of which some were changed, the true classes, and the changed rows."""
    rng = np.random.default_rng(seed)
    true = rng.choice(3, rows, p=[0.5, 0.3, 0.2])
    common = [f"word{i}" for i in range(40)]
    fields: list[tuple[str, ...]] = [
        (" ".join([*rng.choice(TOPICS[k].split(), 3), *rng.choice(common, 6)]),) for k in true
    ]
    changed = np.sort(rng.permutation(rows)[:wrong])
    labels = true.astype(np.int32)
    labels[changed] = (true[changed] + rng.integers(1, 3, wrong)) % 3
    ids = [f"id{i}" for i in range(rows)]
    return Texts(fields, labels, ids, ids), true, changed


def _splits(train: Texts, classes: tuple[str, ...] = CLASSES) -> Splits:
    few = train.take(np.arange(3))
    return Splits(classes, train, few, few, None, ())


def _written(folder: Path, splits: Splits, count: int, seed: int = 0) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """The lines of the file, and what the report has."""
    folder.mkdir(exist_ok=True)
    report = write_suspects(Run(folder), splits, count, seed)
    with (folder / SUSPECTS).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file)), report["label_noise"]


def test_changed_labels_are_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train, true, changed = _texts(600, 60, 3)
    lines, noise = _written(tmp_path, _splits(train), 1000)
    found = [int(line["id"][2:]) for line in lines]
    right = set(found) & set(changed.tolist())
    assert len(right) / len(found) > 0.9 and len(right) / 60 > 0.8
    assert set(found[:30]) <= set(changed.tolist())
    assert noise["share"] == pytest.approx(0.1, abs=0.03) and noise["in_doubt"] == len(lines)
    assert f"estimate that {noise['share']:.1%} are wrong" in capsys.readouterr().out
    assert np.mean([line["suggested"] == CLASSES[true[row]] for line, row in zip(lines, found, strict=True)]) > 0.9
    first, row = lines[0], found[0]
    assert first["label"] == CLASSES[train.labels[row]] and first["text"] == train.fields[row][0][:200]  # type: ignore[index]
    probabilities = np.array(
        [[float(line[f"{name}_probability"]) for name in ("label", "suggested")] for line in lines]
    )
    assert (np.diff(probabilities[:, 0]) >= 0).all() and (probabilities[:, 1] > probabilities[:, 0]).all()
    wrong = {CLASSES[k]: np.mean(true[train.labels == k] != k) for k in range(3)}
    assert noise["by_class"] == pytest.approx(wrong, abs=0.06)
    pairs = Counter((CLASSES[label], CLASSES[k]) for label, k in zip(train.labels, true, strict=True) if label != k)  # type: ignore[arg-type]
    assert {(pair["label"], pair["suggested"]) for pair in noise["pairs"]} == set(pairs)
    assert {(p["label"], p["suggested"]): p["rows"] for p in noise["pairs"]} == pytest.approx(pairs, abs=5)


def test_texts_whose_labels_are_right_are_hardly_in_doubt(tmp_path: Path) -> None:
    train, _, _ = _texts(400, 0, 1)
    lines, noise = _written(tmp_path, _splits(train), 1000)
    assert len(lines) <= 4 and noise["share"] < 0.01 and noise["agreed"] > 0.99


def test_the_file_is_a_function_of_rows_and_seed(tmp_path: Path) -> None:
    train, _, _ = _texts(200, 20, 2)
    train.fields[7] = ('a "quoted"\r\ntext,   with ' + "\ud800" + " half a pair " + "x" * 300, "and a second field")
    for name, count, seed in (("one", 1000, 5), ("two", 1000, 5), ("few", 3, 5), ("other", 1000, 6)):
        _written(tmp_path / name, _splits(train), count, seed)
    one, two, few, other = ((tmp_path / name / SUSPECTS).read_bytes() for name in ("one", "two", "few", "other"))
    assert one == two != other and one.startswith(few) and few.count(b"\n") == 4
    assert write_suspects(Run(tmp_path / "none"), _splits(train), 0, 5) == {} and not (tmp_path / "none").exists()


def test_no_row_is_judged_by_a_model_that_saw_it() -> None:
    """Every row has a word of its own: a model that had seen it would know its label, right or wrong."""
    labels = np.arange(40) % 2
    noise = np.random.default_rng(0).integers(0, 2, 40)
    margins = out_of_sample(csr_matrix(np.eye(40, dtype=np.float32)), noise, 0)
    assert margins.shape == (40, 2) and np.ptp(margins[:, 0]) < 0.5  # as good as one answer for all
    assert len(np.unique(margins[:, 0])) <= 4  # a model has not a number of its own for any row that it has not seen
    x = csr_matrix(np.eye(2, dtype=np.float32)[labels])
    assert (out_of_sample(x, labels, 0).argmax(axis=1) == labels).all()


def test_classes_of_fewer_rows_than_folds_are_left_out() -> None:
    x = csr_matrix(np.eye(4, dtype=np.float32)[[0] * 9 + [2] * 9 + [0, 0, 2] + [3]])
    labels = np.array([0] * 9 + [2] * 9 + [1, 1, 1] + [2])  # class 1 has three rows, class 3 none
    found = find_doubts(x, labels, 4, 0)
    assert found.joint.shape == (4, 4) and found.joint.sum() == pytest.approx(1.0)
    assert not found.joint.toarray()[[1, 3]].any() and not found.joint.toarray()[:, [1, 3]].any()
    assert not set(found.rows) & {18, 19, 20}
    check_suspects(labels, 4)
    with pytest.raises(UserError, match="--suspects: 1 of 3 classes have 4 or more training rows, and 2 are needed"):
        check_suspects(np.array([0] * 9 + [1, 2]), 3)
    with pytest.raises(UserError, match="--suspects: 0 of 2 classes have 4 or more training rows with it, and without"):
        check_suspects(np.array([[1, 0]] * 9 + [[0, 1]] * 3), 2)


def test_texts_without_a_word_and_many_classes(tmp_path: Path) -> None:
    """Marks alone are texts to some tokenisers; nothing can be learned of them, and nobody is suspected."""
    marks = Texts([("?!",)] * 12, np.arange(12, dtype=np.int32) % 3, [str(i) for i in range(12)], [""] * 12)
    lines, noise = _written(tmp_path, _splits(marks), 10)
    assert lines == [] and noise["share"] == 0.0
    train, _, changed = _texts(400, 40, 4)
    assert isinstance(train.labels, np.ndarray)
    wide = Texts(train.fields, train.labels * 400, train.ids, train.where)  # classes 0, 400 and 800 of 1,000
    lines, noise = _written(tmp_path, _splits(wide, tuple(f"class {k}" for k in range(1000))), 20)
    assert {int(line["id"][2:]) for line in lines} <= set(changed.tolist()) and set(noise["by_class"]) == {
        "class 0", "class 400", "class 800"
    }  # fmt: skip


def test_several_labels_are_judged_class_by_class(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    true = (rng.random((500, 3)) < 0.4).astype(np.uint8)
    common = [f"word{i}" for i in range(40)]
    fields: list[tuple[str, ...]] = [
        (
            " ".join(
                [*rng.choice(common, 5), *(w for k in np.flatnonzero(row) for w in rng.choice(TOPICS[k].split(), 3))]
            ),
        )
        for row in true
    ]
    labels, ids = true.copy(), [str(i) for i in range(500)]
    changed = {(int(i), int(i) % 3) for i in rng.permutation(500)[:50]}
    for row, k in changed:
        labels[row, k] ^= 1
    lines, noise = _written(tmp_path, _splits(Texts(fields, labels, ids, ids)), 1000)
    found = set()
    for line in lines:
        label, suggested = (set(json.loads(line[name])) for name in ("label", "suggested"))
        assert label == {CLASSES[k] for k in np.flatnonzero(labels[int(line["id"])])}
        (other,) = label ^ suggested  # one label at a time
        found.add((int(line["id"]), CLASSES.index(other)))
    assert len(found & changed) / len(found) > 0.8 and len(found & changed) / 50 > 0.8
    assert noise["share"] == pytest.approx(50 / 1500, abs=0.02) and set(noise["by_class"]) == set(CLASSES)


@pytest.mark.slow
def test_a_run_writes_its_suspects_before_its_result(tmp_path: Path) -> None:
    train, _, changed = _texts(150, 12, 5)
    lines = ["id,text,label"]
    lines += [f"{i},{text},{CLASSES[k]}" for i, text, k in zip(train.ids, train.fields, train.labels, strict=True)]  # type: ignore[arg-type]
    (tmp_path / "texts.csv").write_text("\n".join(line.replace("('", "").replace("',)", "") for line in lines) + "\n")
    config = ClassifierConfig.of(
        dataset="csv", data_path=tmp_path / "texts.csv", width=8, ffn_width=8, num_heads=1, num_layers=1, max_length=12,
        min_count=1, num_steps=2, batch_size=16, devices="cpu", cache_dir=tmp_path / "cache", suspects=5,
        report=False, focal_gamma=1.0, logit_adjustment=1.0,
    )  # fmt: skip
    folder = tmp_path / "run"
    train_classifier(config, folder)
    before = (folder / SUSPECTS).read_bytes()
    with (folder / SUSPECTS).open(newline="") as file:
        ids = [line["id"] for line in csv.DictReader(file)]
    assert len(ids) == 5 and len({int(one[2:]) for one in ids} & set(changed.tolist())) >= 4
    report = json.loads((folder / "report.json").read_text())
    assert report["label_noise"]["folds"] == 4 and report.keys() == {"validation", "test", "label_noise"}
    assert (folder / SUSPECTS).stat().st_mtime_ns <= (folder / "result.json").stat().st_mtime_ns
    for name in ("result.json", SUSPECTS):  # as if it had been killed before it wrote them
        (folder / name).unlink()
    train_classifier(config, folder)
    assert (folder / SUSPECTS).read_bytes() == before
