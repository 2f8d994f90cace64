"""The ``tokenizers`` library, which only some ways to cut texts need."""

from typing import Any

from files.errors import UserError


def library(need: str, otherwise: str = "") -> Any:
    """The module.

    Args:
        need: what needs it, to begin an error with.
        otherwise: what can be done without it.

    Raises:
        UserError: it is not installed.
    """
    try:
        import tokenizers
    except ImportError as error:
        remedy = f"pip install tokenizers{', or ' if otherwise else ''}{otherwise}"
        raise UserError(f"{need} the tokenizers library, which is not installed: {remedy}") from error
    return tokenizers
