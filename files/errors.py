"""The one exception that means: the user can fix this, and here is how."""


class UserError(Exception):
    """A mistake of input, not of code: one line that says what was wrong, the value and the remedy.

    Scripts print it without a traceback and exit with a non-zero status. Line ends in what it quotes become spaces.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(part.strip() for part in message.splitlines()))


class Interrupted(UserError):
    """The user stopped a run; its state has been saved."""
