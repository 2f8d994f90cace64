"""The label's column → classes or quantities. ``N`` rows."""

import numpy as np

from files.errors import UserError
from training.class_names import in_order, plain
from training.names import one_line
from vision_bridge.tables.records import as_numbers, as_texts, is_missing, is_number
from vision_bridge.tables.spelling import check_spelling

MOST_CLASSES = 20  # whole numbers as labels are classes if at most so many different ones occur


def read_labels(column: np.ndarray, places: np.ndarray, name: str, task: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """A column → [N] int32 class numbers and the classes' names, or [N] float64 quantities and no names.

    Classes are sorted by value if all their names are numbers, else by alphabet. A whole number has no decimal point.

    Args:
        column: see ``Records``.
        places: [N] where each row is.
        name: of the column.
        task: ``classification``, ``regression`` or ``auto``.

    Raises:
        UserError: a label is missing or infinite, a quantity is no number, there is one class, or ``auto`` cannot
            decide.
    """
    lacking = places[is_missing(column)]
    if len(lacking):
        raise UserError(f"{lacking[0]}: no label in column {name!r} ({len(lacking)} such rows): fill in or "
                        "remove them; a class with a name such as NA needs other --missing_values")  # fmt: skip
    numbers = as_numbers(column)
    if numbers is not None and np.isinf(numbers).any():
        raise UserError(f"{places[np.isinf(numbers)][0]}: the label in column {name!r} is infinite: correct it")
    if task == "regression":
        if numbers is None:
            row = [is_number(text) for text in as_texts(column)].index(False)
            raise UserError(
                f"{places[row]}: --task=regression, and the label {one_line(column[row], 40)!r} is no number"
            )
        return numbers, ()
    if task == "auto" and numbers is not None:
        _check_are_classes(numbers, name)
    elif task == "auto":
        check_spelling(name, column, places, label=True)
    texts = [plain(text) for text in as_texts(column)]
    classes = in_order(texts)
    if len(classes) < 2:
        raise UserError(f"column {name!r} has a single class, {one_line(classes[0], 40)!r}; two or more are needed")
    place = {one: number for number, one in enumerate(classes)}
    return np.array([place[text] for text in texts], np.int32), classes


def _check_are_classes(numbers: np.ndarray, name: str) -> None:
    """Raises UserError for labels that may be quantities: numbers that are not whole, or many different ones."""
    different = np.unique(numbers)
    if len(different) > MOST_CLASSES or (different % 1 != 0).any():
        raise UserError(
            f"column {name!r} has {len(different):,} different numbers, {different[0]:g} to {different[-1]:g}: "
            "are they quantities (--task=regression) or names of classes (--task=classification)?"
        )
