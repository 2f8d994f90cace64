"""Numbers and dates in local spellings: read exactly, or refused with the remedy; never categories in silence."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from files.errors import UserError
from tests.test_tables import counting_rows, loaded, with_column, write_table
from vision_bridge.tables.spelling import SPELLINGS

SPELT = [
    (["5,1", "4,9", "7"], "'5,1', with a decimal comma .* say --decimal=comma"),
    (["1,039", "4,9"], "'4,9', with a decimal comma"),
    (["1,234", "5,678"], "'1,234', with a thousands mark, or a decimal comma .*: write it without the mark, or say"),
    (["1,234", "999", "1,234,567"], "'1,234,567', with a thousands mark"),
    (["1 234", "12 345,5"], "'1 234', with a thousands mark"),
    (["1,234.5", "2,000.0"], "'1,234.5', with a thousands mark"),
    (["$12.5", "$1,200", "-$3"], r"'\$12.5', with a currency .* write it without the currency"),
    (["12 €", "13,5 €"], "'12 €', with a currency"),
    (["12.5%", "3 %"], "'12.5%', with a percent sign"),
    (["−2.5", "3"], "'−2.5', with a minus sign that is no hyphen"),
    (["2024-01-05", "2024-02-06 10:30:00"], "'2024-01-05', with a date .* write it as a number, such as days"),
    (["31.12.2024", "1.1.2025"], "'31.12.2024', with a date"),
    (["5,1", "5,2", "high"], "'5,1', with a decimal comma"),  # most of them
]  # fmt: skip


@pytest.mark.parametrize("values, message", SPELT, ids=[values[0] for values, _ in SPELT])
def test_numbers_and_dates_are_no_categories(tmp_path: Path, values: list[str], message: str) -> None:
    path = write_table(tmp_path / "t.csv", with_column("p", values), ";")
    with pytest.raises(UserError, match=rf"t\.csv:\d+: column 'p' has {message}") as error:
        loaded(path)
    assert "--categorical_fields" in str(error.value)
    names = loaded(path, categorical_fields=("p",)).features.names
    assert {f"p={value}" for value in values} <= set(names)
    with pytest.raises(UserError, match=f"column 'p' has {message}"):
        loaded(path, label_field="p")


def test_texts_with_numbers_in_them_are_categories(tmp_path: Path) -> None:
    values = ["a,1", "1,2,3", "v1.5", "1-2", "10:30"]
    path = write_table(tmp_path / "t.csv", with_column("p", values, counting_rows(60)), ";")
    assert {f"p={value}" for value in values} <= set(loaded(path).features.names)
    assert len({one.has for one in SPELLINGS}) == len(SPELLINGS)


def _read(path: Path, values: list[str], **choices: Any) -> tuple[list[float], tuple[str, ...]]:
    """The values of the column p as they are read, in order, and the notes."""
    rows = [[row[0], row[1].replace(".", ","), row[2]] for row in counting_rows(20 * len(values))]
    table = loaded(write_table(path, with_column("p", values, rows), ";"), decimal="comma", **choices)
    rows = np.concatenate(list(table.features.arrays.values()))
    places = [table.features.names.index(name) for name in ("one", "p")]
    found = dict(rows[:, places].tolist())
    return [found[float(k)] for k in range(len(values))], table.notes


def test_a_decimal_comma_beside_thousands_marks(tmp_path: Path) -> None:
    values = ["1.039", "4,5", "-1.234.567,25", ",5", "7", "1,5e3", "12"]
    numbers, notes = _read(tmp_path / "t.csv", values)
    assert numbers == [1039.0, 4.5, -1234567.25, 0.5, 7.0, 1500.0, 12.0]
    assert not any("thousands" in note for note in notes)


def test_a_decimal_point_with_a_decimal_comma_is_refused(tmp_path: Path) -> None:
    for value in ("3.14", "0.125", "1234.567", "1.5e3"):
        with pytest.raises(
            UserError, match=rf"t\.csv:3: column 'p' has '{value}', and with --decimal=comma a point may"
        ):
            _read(tmp_path / "t.csv", ["4,5", value])


def test_marks_that_may_mean_the_other_thing_are_told(tmp_path: Path) -> None:
    numbers, notes = _read(tmp_path / "t.csv", ["1,200", "1,350", "7"])
    assert numbers == [1.2, 1.35, 7.0] and any("'1,200' was read as 1.200 (--decimal=comma)" in one for one in notes)
    numbers, notes = _read(tmp_path / "t.csv", ["1.200", "1.350"])
    assert numbers == [1200.0, 1350.0] and any("'1.200' was read as 1200" in one for one in notes)
    with pytest.raises(UserError, match="column 'p' has '1,200' and '900': is the comma a thousands mark"):
        _read(tmp_path / "t.csv", ["1,200", "900"])
    with pytest.raises(UserError, match="'1,200,300', with a thousands mark"):
        _read(tmp_path / "t.csv", ["1,200,300", "1,200,400"])


def test_columns_that_are_no_numbers_keep_their_points(tmp_path: Path) -> None:
    rows = with_column(
        "version", ["1.5", "2.5"], with_column("patient", ["1.1", "2.1", "3.1", "4.1"], counting_rows(60))
    )
    rows = [[cell.replace(".", ",") if k == 3 else cell for k, cell in enumerate(row)] for row in rows]
    choices: dict[str, Any] = {"decimal": "comma", "categorical_fields": ("version",), "group_field": "patient"}
    table = loaded(write_table(tmp_path / "t.csv", rows, ";"), **choices)
    assert table.features.names[:2] == ("version=1.5", "version=2.5")
    choices = {
        "decimal": "comma",
        "label_field": "version",
        "task": "classification",
        "ignore_fields": ("patient", "label"),
    }
    assert loaded(tmp_path / "t.csv", **choices).features.classes == ("1.5", "2.5")
