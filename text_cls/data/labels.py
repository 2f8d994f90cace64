"""Labels as they are written in files → class names."""

import contextlib
import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from files.documents import shown
from files.errors import UserError
from training.class_names import NUMBER, plain

Label = str | tuple[str, ...]  # of one row: a class name, or with --multi_label all of its
RARE = "other"  # the class that --merge_rare makes
_TOKEN = re.compile(r"""'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|([,\[\](){}]|[^\s,\[\](){}]+)""")  # of a list


class BadLabel(ValueError):
    """A value that is no label; the message says why."""


def read_label(value: Any, multi_label: bool = False) -> Label | None:
    """The label of a row.

    Args:
        value: as in the file; None, "" and NaN mean no label.
        multi_label: whether the value is any number of labels: a list, or names with ``|`` between them.

    Returns:
        The class name, or with ``multi_label`` all class names; None if the row has no label.

    Raises:
        BadLabel: the value is a list or an object, or with ``multi_label`` contains one.
    """
    if multi_label:
        return _names(value)
    if isinstance(value, list | dict):
        hint = "; several labels a row need --multi_label" if isinstance(value, list) else ""
        raise BadLabel(f"a label is a text or a number, not {shown(value)}{hint}")
    name = _name(value)
    if _is_list(name):
        raise BadLabel(f"the label {shown(name)} is a list; several labels a row need --multi_label")
    return name or None


def folder_label(name: str) -> str:
    """The class of a folder: its name, also one such as [1] or nan, which a label of a row may not be."""
    return _simple(name) or name


def undivided(names: Sequence[str], several: bool) -> list[str]:
    """A note if names of classes seem to be several names each.

    Args:
        names: of all classes, with ``--multi_label``.
        several: whether a row has more than one label.
    """
    for mark in ",;":
        joined = [name for name in names if mark in name]
        parts = {part.strip() for name in joined for part in name.split(mark)}
        if joined and (parts & set(names) or not several):
            return [
                f"class {shown(joined[0])} has {mark!r} in its name: if these are several labels, put | between them, "
                "or write a list"
            ]
    return []


def _names(value: Any) -> tuple[str, ...] | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str):
        text = value.strip()
        listed = _as_list(text)
        if listed is None and text.startswith("[") and text.endswith("]"):
            raise BadLabel(f"labels are names, and {shown(text)} is a list with something else in it")
        value = text.split("|") if listed is None else listed
    values = value if isinstance(value, list) else [value]
    wrong = next((one for one in values if isinstance(one, list | dict)), None)
    if wrong is not None or isinstance(value, dict):
        raise BadLabel(f"labels are texts or numbers, not {shown(wrong if wrong is not None else value)}")
    return tuple(dict.fromkeys(filter(None, map(_name, values))))


def _is_list(name: str) -> bool:
    """Whether a name spells a list of quoted texts or of numbers; [NEUTRAL] is a name."""
    listed = _as_list(name) if name.startswith("[") else None
    return listed is not None and ("'" in name or '"' in name or all(NUMBER.fullmatch(str(one)) for one in listed))


def _as_list(text: str) -> list[Any] | None:
    """The list in a text, in JSON or as Python and NumPy print lists, tuples and sets; None if it is no list."""
    if text[:1] + text[-1:] not in ("[]", "()", "{}"):
        return None
    if text[0] == "[":
        with contextlib.suppress(ValueError, RecursionError):
            return json.loads(text)
    elif "'" not in text and '"' not in text:
        return None  # a name in brackets
    tokens = _TOKEN.findall(text[1:-1])
    if any(bare and bare[0] in "[](){}" for *_, bare in tokens):
        return None
    return _between_commas(tokens) if any(bare == "," for *_, bare in tokens) else [_unquoted(one) for one in tokens]


def _between_commas(tokens: list[tuple[str, str, str]]) -> list[Any] | None:
    """The items of a list with commas: quoted texts, or words with spaces between them."""
    items: list[Any] = []
    for is_comma, group in itertools.groupby(tokens, lambda token: token[2] == ","):
        parts = list(group)
        if is_comma:
            continue
        if len(parts) > 1 and not all(bare for *_, bare in parts):
            return None  # two texts with no comma between them
        items.append(" ".join(map(_unquoted, parts)))
    return items


def _unquoted(token: tuple[str, str, str]) -> str:
    single, double, bare = token
    return bare or re.sub(r"\\(.)", r"\1", single or double)


def _name(value: Any) -> str:
    """One class name; "" for none."""
    return _simple(value if isinstance(value, str) else "" if value is None else str(value))


@lru_cache(2**16)
def _simple(name: str) -> str:
    """``plain``; "" for NaN."""
    name = plain(name)
    return "" if name.casefold() == "nan" else name


def smallest(counts: Mapping[str, int], most: int = 5) -> str:
    """The smallest classes with their sizes, as text."""
    ranked = sorted((count, name) for name, count in counts.items())
    return ", ".join(f"{shown(name)} {count}" for count, name in ranked[:most]) + (", …" if len(ranked) > most else "")


class Rare(NamedTuple):
    """The treatment of rare classes.

    Attributes:
        below: classes with fewer training rows are rare; 0: none is.
        merge: whether the rare classes become one class, ``RARE``; otherwise they are left out.
    """

    below: int = 0
    merge: bool = False

    @classmethod
    def of(cls, merge_rare: int, drop_rare: int) -> "Rare":
        """From the two flags, of which one may be set."""
        return cls(merge_rare or drop_rare, bool(merge_rare))

    def renamed(self, labels: Sequence[Label | None]) -> dict[str, str | None]:
        """The rare classes among the labels of training rows → the name of their new class, None to leave them out.

        Raises:
            UserError: fewer than two classes are left.
        """
        counts = count_labels(labels)
        rare = [name for name, count in counts.items() if count < self.below]
        left = len(counts) - len(rare) + bool(self.merge and rare and RARE not in counts)
        if rare and left < 2:
            flag = f"--{'merge' if self.merge else 'drop'}_rare={self.below}"
            raise UserError(f"{flag} leaves {left} class(es); the smallest: {smallest(counts)}; lower the number")
        return dict.fromkeys(rare, RARE if self.merge else None)


def count_labels(labels: Iterable[Label | None]) -> Counter[str]:
    """The number of rows of each class."""
    counts: Counter[str] = Counter()
    for label in labels:
        counts.update([label] if isinstance(label, str) else label or ())
    return counts


def rename(label: Label | None, names: Mapping[str, str | None]) -> Label | None:
    """The label with classes renamed, and without those whose new name is None."""
    if isinstance(label, tuple):
        renamed = (names.get(name, name) for name in label)
        return tuple(dict.fromkeys(name for name in renamed if name is not None))
    return names.get(label, label) if label is not None else None
