"""Class names of any letters are printed and drawn as text: on one line, of bounded width, and never as a formula."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.font_manager import FontManager, FontProperties, findfont

import text_cls.report.plots
import training.plots
import vision_bridge.plots
from tests.figures import drawn
from tests.scripts import succeeds
from tests.test_many_classes import SMALL, write_texts
from text_cls.evaluation.metrics import report
from text_cls.report.plots import confusion, f1_by_class, scatter_3d, scatter_3d_html
from text_cls.report.text import as_text
from training.names import one_line, width
from training.plots import drawable, name_legend, name_ticks, new_figure, save_figure

NAMES = (
    "$0-$50", r"$50-$100 \frac", "two\nlines", "a\ttab", "_hidden", "x" * 300, "中文类别", "हिन्दी", "🎬 film",
    "\u202eright", "\ud800lone", "^{x_1}$", r"\$5", "", " ", "_", "$", "a<b>&c",
)  # fmt: skip


def test_names_never_break_the_table() -> None:
    figures = report(np.eye(len(NAMES)), np.arange(len(NAMES)), NAMES)
    lines = as_text(figures).splitlines()
    assert len(lines) == len(NAMES) + 3
    assert {width(line) for line in lines[:-2]} == {width(lines[0])} and width(lines[0]) < 90
    assert not any(letter in "".join(lines) for letter in "\t\u202e\ud800")
    "\n".join(lines).encode("utf-8")


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("two\n lines", "two lines"),
        ("a\u2028b\x00c\x1b[31m", "a b c [31m"),
        ("x" * 41, "x" * 39 + "…"),
        ("x" * 40, "x" * 40),
        ("中" * 20, "中" * 20),
        ("中" * 21, "中" * 19 + "…"),
        ("e\u0301" * 40, "e\u0301" * 40),
        ("\n", r"'\n'"),
        ("\u202e", r"'\u202e'"),
        ("", "''"),
    ],
)
def test_names_are_one_line(name: str, line: str) -> None:
    assert one_line(name) == line
    assert width(one_line(name * 1000)) <= 40 and "\n" not in one_line(name * 1000)


def test_names_are_drawn_as_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Warnings of matplotlib are errors here: of glyphs that the font lacks, say."""
    made = drawn(monkeypatch, text_cls.report.plots)
    count = len(NAMES)
    confusion(np.eye(count, dtype=int).tolist(), NAMES, tmp_path / "confusion.png")
    f1_by_class({name: {"f1": 0.5, "support": 3} for name in NAMES}, tmp_path / "f1.png")
    scatter_3d(np.random.default_rng(0).normal(size=(count, 3)), np.arange(count), NAMES, tmp_path / "tsne.png")
    vision_bridge.plots.image_rows({name: np.eye(3)[None] for name in NAMES[:4]}, tmp_path / "rows.png")
    images = np.ones((count, 4, 4)) * np.arange(4)
    shares = np.ones((count, 2)) / 2
    bars = [vision_bridge.plots.Bars(("$a$", "_b"), one, bool(k)) for k, one in enumerate(shares)]
    vision_bridge.plots.activation(images, images, NAMES, bars, "kind", tmp_path / "activation.png")
    assert len(list(tmp_path.glob("*.png"))) == 5
    labels = made[0].axes[0, 0].get_yticklabels()
    assert [label.get_text() for label in labels] == [drawable(name) for name in NAMES]
    assert not any(label.get_parse_math() for label in labels)
    assert labels[0].get_text() == "$0-$50"


@pytest.fixture
def fonts(monkeypatch: pytest.MonkeyPatch) -> Iterator[FontManager]:
    """No fonts but the one of pictures."""
    manager = training.plots.fontManager
    own = [font for font in manager.ttflist if font.fname == findfont(FontProperties())]
    monkeypatch.setattr(manager, "ttflist", own)
    training.plots._other_letters.cache_clear()
    yield manager
    training.plots._other_letters.cache_clear()


def _font(path: Path, letters: str) -> Path:
    """A font in which every one of the letters is a square."""
    pen = TTGlyphPen(None)
    for point in ((0, 0), (0, 500), (500, 500), (500, 0)):
        (pen.lineTo if point != (0, 0) else pen.moveTo)(point)
    pen.closePath()
    builder = FontBuilder(1000)
    builder.setupGlyphOrder([".notdef", "square"])
    builder.setupCharacterMap({ord(letter): "square" for letter in letters})
    square = pen.glyph()
    builder.setupGlyf({".notdef": square, "square": square})
    builder.setupHorizontalMetrics({".notdef": (600, 0), "square": (600, 0)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Squares", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return path


def test_letters_of_other_scripts(tmp_path: Path, fonts: FontManager) -> None:
    """They are drawn in an installed font that has them; else their number is written."""
    assert drawable("中文") == r"\u4e2d\u6587"
    fonts.addfont(_font(tmp_path / "squares.ttf", "中文"))
    training.plots._other_letters.cache_clear()
    assert drawable("中文字") == r"中文\u5b57"
    figure = new_figure()
    name_ticks(figure.axes[0, 0], "x", ["中文", "plain"])
    families = [text.get_fontfamily() for text in figure.axes[0, 0].get_xticklabels()]
    assert families[0][-1] == "Squares" and "Squares" not in families[1]
    save_figure(figure.figure, tmp_path / "a.png")  # a warning of a missing glyph would be an error


def test_the_page_of_t_sne_has_names_as_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """plotly itself reads names as HTML; what it is handed is looked at here."""
    traces: list[dict] = []
    page = SimpleNamespace(
        Scatter3d=lambda **about: traces.append(about),
        Figure=lambda data: SimpleNamespace(to_html=lambda include_plotlyjs: "page"),
    )
    monkeypatch.setitem(sys.modules, "plotly", SimpleNamespace(graph_objects=page))
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", page)
    scatter_3d_html(np.eye(3), np.arange(3), ["a<b>&c", "two\nlines", "x" * 300], tmp_path / "a.html")
    assert [trace["name"] for trace in traces] == ["a&lt;b&gt;&amp;c", "two lines", "x" * 39 + "…"]
    traces.clear()
    scatter_3d_html(np.ones((700, 3)), np.arange(700), [str(k) for k in range(700)], tmp_path / "a.html")
    assert len(traces) == 31 and traces[0]["name"] == "670 other classes" and len(traces[0]["x"]) == 670


def test_a_legend_has_every_name(tmp_path: Path) -> None:
    axis = new_figure().axes[0, 0]
    handles = [axis.scatter([0], [k]) for k in range(len(NAMES))]
    name_legend(axis, handles, NAMES)
    texts = axis.get_legend().get_texts()
    assert [text.get_text().removeprefix(" ") for text in texts] == [drawable(name) for name in NAMES]
    assert not any(text.get_parse_math() for text in texts)


@pytest.mark.slow
def test_names_from_end_to_end(tmp_path: Path) -> None:
    names = [name for name in NAMES if name.strip() and "\ud800" not in name]
    flags = write_texts(tmp_path, names, 20)
    folder = tmp_path / "run"
    done = succeeds("train_text", *flags, *SMALL, f"--run_dir={folder}")
    assert "could not be drawn" not in done and (folder / "confusion.png").exists()
