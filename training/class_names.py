"""Names of classes as files have them → one spelling of each, in order; names that look alike."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping

from files.documents import shown

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_WHOLE = re.compile(r"([+-]?\d+)\.0*")
_EXACT = 2**53  # beyond it, different whole numbers have one float


def plain(name: str) -> str:
    """The name without spaces around it, in NFC; an integer without a decimal point: 1.0 becomes 1."""
    name = unicodedata.normalize("NFC", name).strip("\ufeff\u200b").strip()
    whole = _WHOLE.fullmatch(name)
    name = whole[1] if whole else name
    return "0" if name in ("-0", "+0") else name


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Class names in the order of their class numbers: by value if all are numbers, otherwise by alphabet."""
    distinct = set(names)
    if all(NUMBER.fullmatch(name) for name in distinct):
        return tuple(sorted(distinct, key=lambda name: (float(name), name)))
    return tuple(sorted(distinct))


def lookalikes(counts: Mapping[str, int]) -> list[str]:
    """A note on classes that differ only in case, spaces inside or how a number is written, with their sizes."""
    groups = defaultdict(list)
    for name in counts:
        groups[_look(name)].append(name)
    alike = [sorted(names) for names in groups.values() if len(names) > 1]
    shown_groups = [" and ".join(f"{shown(name)} ({counts[name]:,})" for name in names) for names in sorted(alike)[:5]]
    if not alike:
        return []
    more = f", and {len(alike) - 5} more such groups" if len(alike) > 5 else ""
    return [f"classes that look alike are kept apart: {'; '.join(shown_groups)}{more}"]


def _look(name: str) -> str:
    if NUMBER.fullmatch(name) and abs(float(name)) < _EXACT:
        return str(float(name))
    return " ".join(name.casefold().split())
