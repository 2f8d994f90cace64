"""Errors as a user sees them."""

from collections.abc import Callable

import pytest

from files.errors import UserError


def refused(call: Callable[[], object]) -> str:
    """The one line of a UserError."""
    with pytest.raises(UserError) as error:
        call()
    message = str(error.value)
    assert "\n" not in message and len(message) < 1500
    return message
