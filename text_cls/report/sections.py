"""The sections of ``report.html``: the files of a finished run's folder → HTML. A section whose file is missing has a
note."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from files.documents import read_json, read_object, read_text
from text_cls.evaluation.metrics import confusion_cells
from text_cls.report import page_parts as parts
from text_cls.report.data import EXPLAINED, REPORT_DATA
from text_cls.report.mislabelled import SUSPECTS
from text_cls.report.plots import scatter_3d_part
from text_cls.report.pooled import Places
from training import page
from training.page import Column, Part, number

PLACES = "tsne.npz"
MOST_ROWS = 200  # of a table
MOST_PAIRS = 15  # of classes that are confused
MOST_POINTS = 1000
MOST_SUSPECTS = 20
_SMALL = 8  # classes of a confusion matrix that can be read on a phone


class Finished(NamedTuple):
    """The files in the folder of a finished run.

    Attributes:
        folder: the run's.
        result, report, data: ``result.json``, ``report.json``, and ``data.json``.
        texts: ``report_data.json``, nothing without it.
        explained: ``explained.json``, nothing without it.
        places: ``tsne.npz``.
        interactive: whether the points are drawn by plotly too.
    """

    folder: Path
    result: Mapping[str, Any]
    report: Mapping[str, Any]
    data: Mapping[str, Any]
    texts: Mapping[str, Any]
    explained: Sequence[Mapping[str, Any]]
    places: Places | None
    interactive: bool

    @classmethod
    def read(cls, folder: Path, interactive: bool) -> "Finished":
        """Reads the files; raises UserError if one is damaged, or one that every run has is missing."""
        result, report, data = (read_object(folder / name) for name in ("result.json", "report.json", "data.json"))
        texts = read_object(folder / REPORT_DATA) if (folder / REPORT_DATA).exists() else {}
        explained = read_json(folder / EXPLAINED) if (folder / EXPLAINED).exists() else []
        places = Places.load(folder / PLACES) if (folder / PLACES).exists() else None
        return cls(folder, result, report, data, texts, explained, places, interactive)

    @property
    def test(self) -> Mapping[str, Any]:
        """The report of the test split."""
        return self.report["test"]

    @property
    def has_several_labels(self) -> bool:
        """Whether a text has any number of labels."""
        return "confusion" not in self.test

    @property
    def classes(self) -> list[str]:
        """Names by class number."""
        return list(self.test["per_class"])


SPLITS = ("train", "validation", "test", "unlabeled")
_HEADLINES = ("accuracy", "mean_average_precision", "micro_f1", "macro_f1", "subset_accuracy", "loss",
              "calibration_error")  # fmt: skip


def _figures(run: Finished) -> list[str]:
    intervals, validation = run.test.get("intervals", {}), run.report.get("validation", {})
    tiles = []
    for key in _HEADLINES:
        if key not in run.test:
            continue
        below = [f"validation {number(validation.get(key))}"]
        if key in intervals:
            low, high = intervals[key]
            below.insert(0, f"{100 * intervals['level']:.0f} % interval {number(low)} – {number(high)}<br>")
        tiles.append(page.tile(_plain(key), number(run.test[key]), "".join(below)))
    how = "Figures of the test texts, which were used only once, for this."
    if intervals:
        how += (
            f" Intervals are of {intervals['resamples']:,} resamples of these texts, without the variation of training."
        )
    return [page.tiles(tiles), f"<p><small>{how}</small></p>", _facts(run)]


def _facts(run: Finished) -> str:
    """The run itself, in a few numbers."""
    forms = {
        "num_parameters": ",.0f", "steps": ",.0f", "best_step": ",.0f", "train_seconds": ",.0f",
        "examples_per_second": ",.0f", "temperature": ".3f", "seed": ".0f",
    }  # fmt: skip
    facts = [
        (key.replace("num_", ""), number(run.result[key], form)) for key, form in forms.items() if key in run.result
    ]
    if "init_from" in run.result:
        facts.append(("init_from", page.text(run.result["init_from"])))
    return page.facts([(_plain(key), value) for key, value in facts])


def _plain(key: str) -> str:
    """A figure's name on the page."""
    return {"calibration_error": "calibration error (ECE)", "macro_f1": "macro F1", "micro_f1": "micro F1"}.get(
        key, key.replace("_", " ")
    )


def _curves(run: Finished) -> list[str]:
    return [page.picture(run.folder / "curves.png", "Loss and accuracy by step, of training and validation", wide=True)]


_OF_CLASS = (
    Column("class", "name", False), Column("precision", "precision"), Column("recall", "recall"), Column("F1", "f1"),
    Column("avg. precision", "average_precision"), Column("threshold", "threshold"), Column("texts", "support"),
)  # fmt: skip


def _classes(run: Finished) -> list[str]:
    per_class = run.test["per_class"]
    shown = sorted(per_class, key=lambda name: (per_class[name]["f1"], -per_class[name]["support"]))[:MOST_ROWS]
    columns = [one for one in _OF_CLASS if one.key == "name" or any(one.key in per_class[name] for name in shown)]
    rows = [
        {"name": page.name(name), "support": f"{per_class[name]['support']:,}"}
        | {one.key: number(per_class[name].get(one.key)) for one in columns if one.key not in ("name", "support")}
        for name in shown
    ]
    rest = len(per_class) - len(shown)
    more = f"; {rest:,} more are in report.txt" if rest else ""
    found = [f"<p><small>Those with the lowest F1 first{more}.</small></p>", page.table(columns, rows)]
    if run.has_several_labels:
        alt = "F1 of every class, and the number of texts that have it"
        found.append(page.picture(run.folder / "f1_by_class.png", alt, wide=True))
    return found


def _confusion(run: Finished) -> list[str]:
    if run.has_several_labels:  # no class is taken for another
        return []
    cells = confusion_cells(run.test["confusion"], len(run.classes))
    of_class = np.bincount(cells.true, cells.texts, len(run.classes))
    off = np.flatnonzero(cells.true != cells.predicted)
    off = off[np.argsort(-cells.texts[off], kind="stable")][:MOST_PAIRS]
    rows = [
        {
            "true": page.name(run.classes[cells.true[k]]),
            "predicted": page.name(run.classes[cells.predicted[k]]),
            "texts": f"{cells.texts[k]:,}",
            "share": f"{cells.texts[k] / of_class[cells.true[k]]:.1%}",
        }
        for k in off
    ]
    columns = [Column("class", "true", False), Column("taken for", "predicted", False), Column("texts", "texts"),
               Column("of the class", "share")]  # fmt: skip
    alt, wide = "Confusion matrix: true classes by predicted classes", len(run.classes) > _SMALL
    drawn = page.picture(run.folder / "confusion.png", alt, wide)
    most = page.table(columns, rows) if rows else "<p>No text is answered wrong.</p>"
    return [page.beside(drawn, "<h3>Classes that are confused most often</h3>" + most)]


def _calibration(run: Finished) -> list[str]:
    about = run.test.get("calibration")
    if about is None:
        return [page.note("The run is of a version that fitted no temperature.")]
    shown = {"loss": "loss (negative log-likelihood)", "calibration_error": "calibration error, bins of equal width",
             "calibration_error_equal_mass": "calibration error, bins of equally many"}  # fmt: skip
    rows = [
        {"name": title, "before": number(run.test.get(f"{key}_uncalibrated")), "after": number(run.test.get(key))}
        for key, title in shown.items()
    ]
    columns = [Column("figure", "name", False), Column("before", "before"), Column("after", "after")]
    alt = "Reliability before and after the temperature, and accuracy by share of the texts"
    return [
        f"<p>Logits are divided by a temperature of {number(about['temperature'], '.3f')}, fitted on validation.</p>",
        page.picture(run.folder / "calibration.png", alt, wide=True),
        "<h3>Before and after the temperature</h3>",
        page.table(columns, rows),
    ]


def _errors(run: Finished) -> list[str]:
    if "errors" not in run.texts:
        return [page.note(f"{REPORT_DATA} is not there: the run was made with --noreport, or by an earlier version.")]
    wrong, errors = run.texts["wrong"], run.texts["errors"]
    if not errors:
        return ["<p>No test text is answered wrong.</p>"]
    share = f"{wrong:,} of {run.data['test']['rows']:,} test texts are answered wrong"
    which = f"; the {len(errors)} with the highest confidence" if len(errors) < wrong else ", the most confident first"
    one_by_one = [parts.card(parts.answer(one, judged=False), page.escaped(one["text"])) for one in errors]
    return [f"<p>{share}{which}. A label may be wrong too.</p>", parts.cards(one_by_one)]


def _doubts(run: Finished) -> list[str]:
    """Training rows that may be mislabelled, if the run had --suspects."""
    file = run.folder / SUSPECTS
    if not file.exists():
        return []
    rows = list(csv.DictReader(io.StringIO(read_text(file), newline="")))
    items = [
        parts.card(
            f'<p class="answer">label <b>{page.name(row["label"])}</b> ({float(row["label_probability"]):.4f}), '
            f"or <b>{page.name(row['suggested'])}</b> ({float(row['suggested_probability']):.4f}) "
            f"<small>{page.name(row['id'])}</small></p>",
            page.escaped(row["text"]),
        )
        for row in rows[:MOST_SUSPECTS]
    ]
    how = "Training rows that have another class according to models not trained on them, with both probabilities."
    return [f"<p>{how} {len(rows):,} are in {SUSPECTS}.</p>", parts.cards(items)]


def _explained(run: Finished) -> list[str]:
    if not run.explained:
        return [page.note("No texts are explained here. Any text can be: python -m experiments.predict_text --explain")]
    how = (
        'Words on <span class="for" style="--a:1">blue</span> speak for the class, on '
        '<span class="against" style="--a:1">orange</span> against it: what each adds to the class\'s logit, by '
        "integrated gradients (Sundararajan et al. 2017). The strongest word of a text has the strongest colour."
    )
    items = []
    for one in run.explained:
        words = parts.shaded(one["words"], one["attributions"])
        rest = f" … ({one['more_words']:,} more words)" if one["more_words"] else ""
        sums = (
            f"<small>for {page.name(one['class'])}: logit {number(one['logit'], '.2f')}, without the words "
            f"{number(one['baseline'], '.2f')}</small>"
        )
        items.append(parts.card(parts.answer(one), f"{words}{rest}<br>{sums}"))
    return [f"<p>{how}</p>", parts.cards(items)]


def _points(run: Finished) -> list[str]:
    if run.places is None:
        return [page.note("There is no t-SNE: it needs --report, --tsne, one label a text and five test texts.")]
    plane, labels, predicted = (array[:MOST_POINTS] for array in run.places[:1] + run.places[2:])
    drawn = parts.points(plane, labels, predicted, run.classes, run.texts.get("points", ()))
    how = f"The network's vectors of {len(plane):,} test texts before its last layer, by t-SNE: near points are alike."
    return [f"<p>{how}</p>", drawn, "<h3>In three dimensions</h3>", _space(run, run.places)]


def _space(run: Finished, places: Places) -> str:
    if run.interactive:
        return scatter_3d_part(places.space[:MOST_POINTS], places.labels[:MOST_POINTS], run.classes)
    still = page.picture(run.folder / "tsne.png", "The same texts in three dimensions, from two sides", wide=True)
    return still + page.note(
        "To turn it by hand, run the same command again with --interactive, which needs plotly (pip install plotly)."
    )


def _settings(run: Finished) -> list[str]:
    splits = [split for split in SPLITS if split in run.data]
    columns = [Column("class", "name", False), *(Column(split, split) for split in splits)]
    counts = {split: run.data[split]["by_class"] for split in splits}
    rows = [
        {"name": page.name(name)} | {split: f"{count[k]:,}" for split, count in counts.items() if count is not None}
        for k, name in enumerate(run.data["classes"][:MOST_ROWS])
    ]
    return [
        page.remarks(run.data.get("notes", ())),
        page.folded("Texts by class and split", page.table(columns, rows)),
        page.flags(run.folder / "flags.txt"),
    ]


PARTS = (
    Part("figures", "Figures", _figures),
    Part("curves", "Training", _curves),
    Part("classes", "Classes", _classes),
    Part("confusion", "Confusion", _confusion),
    Part("calibration", "Calibration", _calibration),
    Part("errors", "Errors", _errors),
    Part("doubts", "Doubtful labels", _doubts),
    Part("explained", "Explained texts", _explained),
    Part("points", "Map of the texts", _points),
    Part("settings", "Data and flags", _settings),
)
