"""``report.html``: what is on it, that nothing of a user's becomes a part of it, and when it is made."""

import csv
import io
import json
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from files.errors import UserError
from text_cls.answers import Explanation
from text_cls.data.splits import Texts
from text_cls.labelling import labelling_of
from text_cls.report import page_parts
from text_cls.report.data import Answered, explained, report_data
from text_cls.report.page import write_page
from text_cls.report.pooled import Places, check_plotly
from training import page as whole_page

EVIL = '<script>alert(1)</script>"><img src=http://x.y/z onerror=alert(2)>\ud800\x00\u202e&amp;'
CLASSES = (EVIL, "a\nb", "c")
VOID = {"meta", "link", "img", "br", "circle", "input"}


class Reader(HTMLParser):
    """Tags, attributes and visible text of a page; every tag has to be closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert tag in VOID or self._open.pop() == tag

    def handle_data(self, text: str) -> None:
        self.text += text

    def values(self, name: str) -> list[str]:
        """Of an attribute, wherever it is."""
        return [attributes[name] or "" for _, attributes in self.tags if name in attributes]


def answered_texts(several: bool = False) -> Answered:
    """Five texts; by one label the second, fourth and fifth are answered wrong."""
    probabilities = np.array(
        [[0.9, 0.1, 0], [0.2, 0.7, 0.1], [0, 0.6, 0.4], [0.05, 0, 0.95], [0.5, 0.3, 0.2]], np.float32
    )
    labels = np.array([0, 0, 1, 1, 2], np.int32)
    thresholds = None
    if several:
        labels, thresholds = np.eye(3, dtype=np.uint8)[labels], np.full(3, 0.5)
    fields = [(f"text {k} {EVIL}", "second") for k in range(5)]
    return Answered(
        Texts(fields, labels, [f"{k}{EVIL}" for k in range(5)], [""] * 5), probabilities, thresholds, CLASSES
    )


def _write_run(folder: Path, several: bool = False) -> None:
    """The files of a finished run, without pictures."""
    folder.mkdir()
    answered, labelling = answered_texts(several), labelling_of(several)
    probabilities, labels, thresholds = answered.probabilities, answered.texts.labels, answered.thresholds
    assert labels is not None
    report = labelling.report(probabilities, labels, CLASSES, thresholds)
    report |= labelling.calibration(probabilities, probabilities, labels, thresholds, 1.5)
    report |= labelling.intervals_report(probabilities, labels, thresholds, 0)
    split = {"rows": 5, "by_class": [2, 2, 1]}
    explanations = [Explanation(("good", EVIL), np.array([2.0, -1.0]), 0, 1.0, 0.0, 0.0)]
    contents: dict[str, Any] = {
        "report.json": {"validation": report, "test": report},
        "result.json": {"steps": 12_345, "temperature": 1.5, "seed": 0, "init_from": EVIL},
        "data.json": {"classes": CLASSES, "notes": [EVIL], "train": split, "test": split},
        "report_data.json": report_data(answered, range(5)),
        "explained.json": explained(answered, [3], explanations),
    }
    for name, content in contents.items():
        (folder / name).write_text(json.dumps(content))
    (folder / "flags.txt").write_text("--text_fields=<b>\n")
    doubt = io.StringIO()
    writer = csv.writer(doubt, quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(["id", "label", "suggested", "label_probability", "suggested_probability", "text"])
    writer.writerow(["row 9", "a\nb", "c", 0.125, 0.75, EVIL.replace("\ud800", "")])
    (folder / "suspects.csv").write_text(doubt.getvalue(), encoding="utf-8", newline="")
    if not several:
        rng = np.random.default_rng(0)
        Places(rng.normal(size=(5, 2)), rng.normal(size=(5, 3)), labels, answered.likeliest).save(folder / "tsne.npz")


@pytest.fixture(scope="module", params=[False, True], ids=["one label", "several labels"])
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Reader:
    folder = tmp_path_factory.mktemp("runs") / "<b>&run"
    _write_run(folder, request.param)
    write_page(folder, folder / "report.html")
    return Reader((folder / "report.html").read_text(encoding="utf-8"))


def test_whatever_a_text_holds_stays_text(page: Reader) -> None:
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "img", "iframe", "object"}
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    shown = EVIL.replace("\ud800", "\N{REPLACEMENT CHARACTER}").replace("\x00", "\N{REPLACEMENT CHARACTER}")
    assert shown in page.text and "<b>&run" in page.text and "--text_fields=<b>" in page.text
    assert shown in "".join(page.values("title")) + page.text  # words, and points beside a pointer


def test_the_page_asks_for_nothing(page: Reader) -> None:
    addresses = page.values("src") + page.values("href")
    assert addresses and all(one.startswith(("#", "data:")) for one in addresses)
    keys = set(page.values("id"))
    assert all(one[1:] in keys for one in addresses if one.startswith("#"))
    (policy,) = (attributes["content"] for _, attributes in page.tags if "http-equiv" in attributes)
    assert policy and "default-src 'none'" in policy and "script-src" not in policy and "http:" not in policy


def test_figures_have_their_intervals(tmp_path: Path) -> None:
    _write_run(tmp_path / "run")
    test = json.loads((tmp_path / "run" / "report.json").read_text())["test"]
    write_page(tmp_path / "run", tmp_path / "report.html")
    text = Reader((tmp_path / "report.html").read_text(encoding="utf-8")).text
    low, high = test["intervals"]["accuracy"]
    assert f"accuracy0.400095 % interval {low:.4f} – {high:.4f}validation 0.4000" in text
    assert "steps12,345" in text and "temperature1.500" in text
    assert "3 of 5 test texts are answered wrong, the most confident first" in text
    assert text.index("confidence 0.9500") < text.index("confidence 0.7000") < text.index("confidence 0.5000")
    assert "label a b (0.1250), or c (0.7500) row 9" in text and "1 are in suspects.csv" in text
    assert "a b" in text and "50.0%" in text  # a class's name on one line; one of its two texts is taken for c


def test_a_part_whose_file_is_missing_says_so(tmp_path: Path) -> None:
    """And a run of an earlier version has fewer figures."""
    folder = tmp_path / "run"
    _write_run(folder)
    for name in ("report_data.json", "explained.json", "tsne.npz", "flags.txt", "suspects.csv"):
        (folder / name).unlink()
    report = json.loads((folder / "report.json").read_text())
    report = {
        split: {k: v for k, v in about.items() if "calib" not in k and k != "intervals"}
        for split, about in report.items()
    }
    report["test"]["accuracy"] = float("nan")
    (folder / "report.json").write_text(json.dumps(report))
    write_page(folder, folder / "report.html")
    text = Reader((folder / "report.html").read_text(encoding="utf-8")).text
    assert "Doubtful labels" not in text
    for name in ("curves.png", "confusion.png", "report_data.json"):
        assert f"{name} is not there" in text
    for said in ("No texts are explained", "There is no t-SNE", "fitted no temperature", "accuracyno number"):
        assert said in text
    (folder / "report.json").write_text("{")
    with pytest.raises(UserError, match=r"report\.json: malformed JSON"):
        write_page(folder, folder / "report.html")
    assert "accuracyno number" in (folder / "report.html").read_text(encoding="utf-8").replace("</span><b>", "")


def test_pictures_are_in_the_page(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"PNG")
    found = Reader(whole_page.picture(path, 'a "b"')).tags[1]
    assert found == ("img", {"alt": 'a "b"', "src": "data:image/png;base64,UE5H"})


def test_words_are_shaded_by_what_they_add() -> None:
    found = Reader(page_parts.shaded(["a", "b", "c", "d"], [2.0, -1.0, 0.01, float("nan")]))
    assert [attributes for _, attributes in found.tags] == [
        {"class": "for", "style": "--a:1.00", "title": "+2.000"},
        {"class": "against", "style": "--a:0.50", "title": "-1.000"},
        {},
        {},
    ]
    assert found.text == "a b c d"
    assert not Reader(page_parts.shaded(["a"], [0.0])).values("class")


@pytest.mark.parametrize("plane", [np.random.default_rng(0).normal(0, 1e3, (40, 2)), np.ones((40, 2))])
def test_points_are_inside_their_picture(plane: np.ndarray) -> None:
    labels = np.arange(40)
    predicted = np.where(labels < 3, labels + 1, labels)
    found = Reader(page_parts.points(plane, labels, predicted, [f"class {k}" for k in labels], []))
    at = np.array([[float(a["cx"] or ""), float(a["cy"] or "")] for tag, a in found.tags if tag == "circle"])
    assert at.shape == (40, 2) and at.min() >= 12 and at.max() <= 588
    assert [a.get("class") for tag, a in found.tags if tag == "circle"].count("ring") == 3
    assert "class 0, predicted class 1" in found.text and "10 other classes" in found.text


def test_plotly_is_part_of_the_page_where_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Figure:
        def __init__(self, traces: list[dict]) -> None:
            self.traces = traces

        def update_layout(self, **about: Any) -> None:
            pass

        def to_html(self, full_html: bool, include_plotlyjs: bool, config: dict) -> str:
            assert not full_html and include_plotlyjs
            return f"<script>plot({len(self.traces)})</script>"

    objects = SimpleNamespace(Scatter3d=lambda **about: about, Figure=Figure)
    monkeypatch.setitem(sys.modules, "plotly", SimpleNamespace(graph_objects=objects))
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", objects)
    _write_run(tmp_path / "run")
    write_page(tmp_path / "run", tmp_path / "report.html", interactive=True)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("<script") == 1 and "<script>plot(3)</script>" in page and "script-src 'unsafe-inline'" in page


def test_interactive_needs_plotly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("text_cls.report.pooled.find_spec", lambda name: None)
    check_plotly(False)
    with pytest.raises(UserError, match="pip install plotly"):
        check_plotly(True)
