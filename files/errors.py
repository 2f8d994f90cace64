"""The exception for errors that a user can fix; other exceptions as one line."""

import re


class UserError(Exception):
    """A mistake of input, not of code: one line that says what was wrong, the value and the remedy.

    Scripts print it without a traceback and exit with a non-zero status. In the message, line ends become spaces, and
    control characters are escaped.
    """

    def __init__(self, message: str) -> None:
        line = " ".join(part.strip() for part in message.splitlines())
        super().__init__(re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda found: f"\\x{ord(found[0]):02x}", line))


def line_of(error: BaseException) -> str:
    """The message of an exception as one line of at most 200 characters; its class if the message is empty."""
    return " ".join(str(error).split())[:200] or type(error).__name__


class Interrupted(UserError):
    """The user stopped a run; its state has been saved."""
