"""Means, differences that are paired by seed, and their table: values by hand and from scipy."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from training.repetitions import Group, as_csv, cells, draw_table, figures_of, main_figures, markdown, mean_interval


def group(name: str, data: str = "", failures: dict[int, str] | None = None, **figures: list[float]) -> Group:
    """A group of seeds 0, 1, …; a value that is NaN was not found."""
    count = max(map(len, figures.values()), default=0)
    results = {
        seed: {name: values[seed] for name, values in figures.items() if not np.isnan(values[seed])}
        for seed in range(count)
    }
    results = {seed: found for seed, found in results.items() if found}
    return Group(data, name, tuple(range(max(count, 2))), results, failures or {})


def test_means_and_paired_differences_by_hand() -> None:
    groups = [group("a", x=[0.8, 0.9, 0.85]), group("b", x=[0.82, 0.93, 0.86])]
    first, second = cells(groups, "x")
    assert first.own is not None and first.own.mean == pytest.approx(0.85) and first.own.sd == pytest.approx(0.05)
    assert first.own.interval == pytest.approx((0.72579, 0.97421), abs=1e-5)  # .85 ± 4.30265 · .05 / √3
    assert first.difference is None and second.difference is not None
    assert second.difference.mean == pytest.approx(0.02)
    assert second.difference.interval == pytest.approx((-0.00484, 0.04484), abs=1e-5)  # .02 ± 4.30265 · .01 / √3


def test_the_paired_interval_is_that_of_the_t_test() -> None:
    one, two = np.random.default_rng(0).normal(size=(2, 7))
    _, cell = cells([group("a", x=list(one)), group("b", x=list(two))], "x")
    expected = stats.ttest_rel(two, one).confidence_interval(0.95)
    assert cell.difference is not None and cell.difference.interval == pytest.approx(tuple(expected))


def test_only_seeds_that_both_have_are_compared() -> None:
    nan = float("nan")
    first, second, third = cells(
        [group("a", x=[0.8, nan, 0.9]), group("b", x=[nan, 0.5, 0.95]), group("c", x=[nan, 0.1, nan])], "x"
    )
    assert first.own is not None and first.own.values == (0.8, 0.9)
    assert second.own is not None and second.own.mean == pytest.approx(0.725)
    assert second.difference is not None and second.difference.values == pytest.approx((0.05,))
    assert second.difference.interval is None and second.difference.sd is None
    assert third.difference is None and third.own is not None and third.own.sd is None


def test_every_data_set_has_a_first_variation_of_its_own() -> None:
    groups = [group("a", "s", x=[1.0]), group("b", "s", x=[3.0]), group("a", "t", x=[10.0]), group("b", "t", x=[11.0])]
    differences = [cell.difference and cell.difference.mean for cell in cells(groups, "x")]
    assert differences == [None, 2.0, None, 1.0]


def test_an_interval_needs_two_values() -> None:
    assert all(np.isnan(mean_interval([0.5])))
    assert mean_interval([0.5, 0.5]) == (0.5, 0.5)


def test_figures_are_finite_numbers() -> None:
    result = {
        "test_accuracy": 0.5, "steps": 4, "train_seconds": 2.0, "seed": 3, "weights": "x", "flag": True, "none": None,
        "infinite": float("inf"), "long": 10**400, "list": [1],
    }  # fmt: skip
    assert figures_of(result) == {"test_accuracy": 0.5, "steps": 4.0, "train_seconds": 2.0, "seconds_per_step": 0.5}
    assert "seconds_per_step" not in figures_of({"steps": 0, "train_seconds": 1.0})


def test_what_is_shown_unless_figures_are_named() -> None:
    text = ["val_accuracy", "test_accuracy", "test_loss", "train_seconds", "steps", "seconds_per_step"]
    assert main_figures(text) == ["test_accuracy", "train_seconds", "seconds_per_step"]
    baselines = ["svm_train_seconds", "svm_val_accuracy", "svm_test_accuracy", "nb_test_accuracy", "nb_test_loss"]
    assert main_figures(baselines) == ["svm_test_accuracy", "nb_test_accuracy", "svm_train_seconds"]
    assert main_figures(["test_mean_average_precision", "val_loss"]) == ["test_mean_average_precision"]
    assert main_figures(["test_loss", "train_seconds"]) == ["test_loss", "train_seconds"]
    assert main_figures(["fid", "fid_infinity"]) == ["fid"]


def test_the_table_as_markdown_and_csv() -> None:
    groups = [
        group("a|b", test_accuracy=[0.8, 0.9], train_seconds=[10.0, 1230.0]),
        group("b", test_accuracy=[0.83, 0.91], failures={2: "out of\nmemory"}),
    ]
    lines = markdown(groups, ["test_accuracy", "train_seconds"]).splitlines()
    assert lines[0] == "| variation | seeds | test accuracy | difference | train seconds |"
    assert lines[2] == "| a\\|b | 2 | .8500 ± .0707 |  | 620.0 ± 862.7 |"
    assert lines[3] == "| b | 2 | .8700 ± .0566 | +.0200 (-.1071 to +.1471) |  |"  # ± 12.7062 · .014142 / √2
    assert lines[-1] == "- b, seed 2: out of memory"
    first, second = csv.DictReader(io.StringIO(as_csv(groups, ["test_accuracy", "train_seconds"])))
    assert first["variation"] == "a|b" and float(first["train_seconds_mean"]) == 620 and second["failed"] == "1"
    assert float(second["test_accuracy_difference_high"]) == pytest.approx(0.02 + 12.7062 * 0.01, abs=1e-5)
    assert first["test_accuracy_difference"] == second["train_seconds_mean"] == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, ".0000"), (0.00012345, ".0001234"), (12.345, "12.35"), (98765.4, "98,765"), (-0.5, "-.5000")],
)  # fmt: skip
def test_four_digits(value: float, text: str) -> None:
    assert f"| a | 1 of 2 | {text} |" in markdown([group("a", x=[value])], ["x"])


@pytest.mark.parametrize("figures", [{}, {"x": [1.0]}, {"x": [1.0, 2.0], "y": [float("nan"), 1.0]}], ids=str)
def test_every_table_is_drawn(tmp_path: Path, figures: dict[str, list[float]]) -> None:
    draw_table(tmp_path / "table.png", [group("$a_|中", **figures), group("_b\n")], list(figures))
    assert (tmp_path / "table.png").read_bytes().startswith(b"\x89PNG")
