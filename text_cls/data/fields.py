"""The fields of a text, such as headline and description: how they are joined, and how many a model takes."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from files.documents import shown
from files.errors import UserError

Fields = tuple[str, ...]
_NUMBERS = {1: "one field", 2: "two fields"}


def check_joined(join_fields: str) -> None:
    """Raises UserError for ``pair``, which only encoders have."""
    if join_fields == "pair":
        raise UserError("--join_fields=pair is for encoders (finetune_bert, embed_text): use sep or space")


def joined_fields(texts: Sequence[Fields], join_fields: str) -> list[Fields]:
    """The fields of every text; joined into one with spaces if ``join_fields`` is ``space``."""
    return [(" ".join(fields),) for fields in texts] if join_fields == "space" else list(texts)


def wrong_number(count: int, names: Sequence[str], join_fields: str) -> str:
    """Why a model cannot read a text of ``count`` fields; "" if it can.

    Args:
        count: fields of the text.
        names: of the fields that the model was trained on; empty if that is not known, as of a published model.
        join_fields: see ``DataConfig``; with ``space``, a text may already be joined.
    """
    wanted = 2 if join_fields == "pair" else len(names)
    if not wanted or count == wanted or (count == 1 and join_fields == "space"):
        return ""
    named = f" ({', '.join(names)})" if len(names) > 1 else ""
    return f"the model takes {_NUMBERS.get(wanted, f'{wanted} fields')}{named}"


def as_fields(texts: Iterable[str | Fields], wrong: Callable[[int], str] = lambda count: "") -> list[Fields]:
    """Texts from Python, each a string or a sequence of its fields, as tuples.

    Args:
        texts: the texts.
        wrong: why a text with this number of fields cannot be read; "" if it can.

    Raises:
        TypeError: one text, or a table, in place of texts; or a text that is none.
        UserError: a text with a wrong number of fields.
    """
    if isinstance(texts, str | bytes | Mapping) or hasattr(texts, "columns"):
        raise TypeError(f"{type(texts).__name__} in place of texts: pass a list of texts, such as [text]")
    found = []
    for number, text in enumerate(texts):
        fields = (text,) if isinstance(text, str) else tuple(text) if isinstance(text, list | tuple) else ()
        if not fields or not all(isinstance(field, str) for field in fields):
            raise TypeError(f"texts[{number}] is {shown(text)}: pass a str, or a tuple of str, one for each field")
        if why := wrong(len(fields)):
            raise UserError(f"texts[{number}] has {len(fields)} field(s): {why}; pass a tuple of them")
        found.append(fields)
    return found
