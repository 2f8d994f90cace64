"""The usual names of a data set's splits, in columns, folders and files."""

from collections import Counter
from collections.abc import Iterable

from files.documents import shown
from files.errors import UserError

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "development": "validation",
    "test": "test",
    "testing": "test",
    "eval": "test",  # or validation, if there is another split for the test
    "evaluation": "test",
}
_EITHER = ("eval", "evaluation")


def simple(name: str) -> str:
    """A name in lower case, without spaces around it and without the suffix ``set``."""
    return name.strip().casefold().removesuffix("_set").removesuffix("set").rstrip("_- ")


def splits_of(names: Iterable[str], where: str, remedy: str) -> dict[str, str]:
    """Every name, as written → ``train``, ``validation`` or ``test``.

    Raises:
        UserError: a name is not the name of a split; the message begins with ``where`` and ends with ``remedy``.
    """
    simplified = {name: simple(name) for name in names}
    unknown = sorted(name for name, short in simplified.items() if short not in SPLIT_NAMES)
    if unknown:
        listed = ", ".join(repr(name[:40]) for name in unknown[:5]) + (", …" if len(unknown) > 5 else "")
        raise UserError(f"{where}: {listed} is no split: use train, validation (val, dev) or test (eval){remedy}")
    found = {name: SPLIT_NAMES[short] for name, short in simplified.items()}
    others = {found[name] for name, short in simplified.items() if short not in _EITHER}
    if "test" in others:
        found |= {name: "validation" for name, short in simplified.items() if short in _EITHER}
    return found


def described(names: Iterable[str], splits: dict[str, str]) -> str:
    """The number of rows of each name, and its split, as text."""
    counts = sorted(Counter(names).items())
    return ", ".join(f"{count:,} {shown(name.strip())} for {_VERB[splits[name]]}" for name, count in counts)


_VERB = {"train": "training", "validation": "validation", "test": "the test"}
