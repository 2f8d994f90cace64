"""The ``tokenizers`` library, which only some tokenisers need."""

from typing import Any

from files.errors import UserError


def library(need: str, otherwise: str = "") -> Any:
    """The module.

    Args:
        need: the beginning of the error, naming what needs the library.
        otherwise: another remedy, without the library.

    Raises:
        UserError: the library is not installed.
    """
    try:
        import tokenizers
    except ImportError as error:
        remedy = f"pip install tokenizers{', or ' if otherwise else ''}{otherwise}"
        raise UserError(f"{need} the tokenizers library, which is not installed: {remedy}") from error
    return tokenizers
