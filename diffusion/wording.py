"""Numbers, names and paths in messages."""

from collections.abc import Iterable
from pathlib import PurePath

from training.names import one_line

_NAMED = 5


def counted(count: int, thing: str, verb: bool = False) -> str:
    """``1 image``, ``1,234 images``; with ``verb``: ``1 image is``, ``2 images are``."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}" + (" is" if count == 1 else " are") * verb


def first_names(names: Iterable[str]) -> str:
    """The first five names on one line, and how many more there are."""
    every = list(names)
    more = f" and {len(every) - _NAMED:,} more" if len(every) > _NAMED else ""
    return ", ".join(map(one_line, every[:_NAMED])) + more


def shown_path(path: PurePath) -> str:
    """A path for a message: always one line."""
    text = str(path)
    return text if text.isprintable() else ascii(text)
