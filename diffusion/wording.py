"""Numbers of things, as they are said."""


def counted(count: int, thing: str, verb: bool = False) -> str:
    """``1 image``, ``1,234 images``; with ``verb``, what follows is said of them: ``1 image is``."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}" + (" is" if count == 1 else " are") * verb
