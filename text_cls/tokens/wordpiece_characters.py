"""BERT's rules for single characters, which ``wordpiece.py`` uses."""

import unicodedata
from collections.abc import Callable

# The reference uses the character classes of Unicode 8: it treats marks, punctuation and controls of later versions as
# letters, and so must we (found by comparing every code point with tokenizers 0.23 under Unicode 14 and 18).
_NEWER = """
61d 7fd 890-89f 8ca-8e2 9fd-9fe a76 afa-aff b53-b55 c04 c3c c77 c84 d00 d3b-d3c d81 eba ece 180f 1885-1886 1abf-1af0
1b4e-1b4f 1b7d-1b7f 1df6-1dfb 2e43-2e63 a82c a8c5 a8ff a9bd 10d24-10d27 10d69-10d6e 10eab-10ead 10ecb-10ed0 10ef0-10eff
10f46-10f59 10f82-10f89 11070-11074 110c2-110cd 111cf 1123e-11241 1133b 113bb-113e2 11438-1145e 11660-1166c 116b9
1182f-1183b 11938-11946 119d4-119e2 11a01-11a0a 11a33-11a5b 11a8a-11aa2 11b00-11b09 11b60-11b66 11be1 11c30-11c45
11c70-11c71 11c92-11cb6 11d31-11d47 11d90-11d97 11ef3-11f01 11f36-11f5a 11fff 12ff1-12ff2 13430-13455 1611e-1612f
16d6d-16d6f 16e97-16e9a 16f4f 16fe2-16fe4 1cf00-1cf46 1e000-1e02a 1e08f 1e130-1e136 1e2ae 1e2ec-1e2ef 1e4ec-1e4ef
1e5ee-1e5ef 1e5ff 1e6e3-1e6f5 1e944-1e94a 1e95e-1e95f"""
_CLASS_THEN = {0x166D: "Po", 0x1734: "Mn", 0x111C9: "Po", 0x1171E: "Mn"}  # reclassified since
_CJK = ((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F),
        (0x2B920, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F))  # fmt: skip


class CharacterMap(dict):
    """A table for ``str.translate``; the rule is applied when a character occurs first."""

    def __init__(self, rule: Callable[[str], str]) -> None:
        super().__init__()
        self.rule = rule

    def __missing__(self, code: int) -> str:
        self[code] = self.rule(chr(code))
        return self[code]


def _classes() -> dict[int, str]:
    ranges = (part.split("-") for part in _NEWER.split())
    newer = {code: "Lo" for ends in ranges for code in range(int(ends[0], 16), int(ends[-1], 16) + 1)}
    return newer | _CLASS_THEN


_CLASSES = _classes()


def _category(character: str) -> str:
    """The general category in the reference's version of Unicode."""
    return _CLASSES.get(ord(character)) or unicodedata.category(character)


def _is_punctuation(character: str) -> bool:
    """Unicode punctuation, and every ASCII symbol."""
    return "!" <= character <= "/" or ":" <= character <= "@" or "[" <= character <= "`" or "{" <= character <= "~" or (
        _category(character).startswith("P")
    )  # fmt: skip


def cleaned(character: str, split_cjk: bool) -> str:
    """The first step for a character: it is removed, replaced by a space, put between spaces, or kept."""
    if character in "\t\n\r":
        return " "
    if character in "\x00\ufffd" or _category(character) in ("Cc", "Cf", "Co"):
        return ""
    if character.isspace():
        return " "
    if split_cjk and any(low <= ord(character) <= high for low, high in _CJK):
        return f" {character} "
    return character


def folded(character: str, lower_case: bool, strip_accents: bool) -> str:
    """A character in lower case if ``lower_case``; an accent is removed if ``strip_accents``."""
    if strip_accents and _category(character) == "Mn":
        return ""
    return character.lower() if lower_case else character  # alone, because the reference has no final sigma


def spaced(text: str) -> str:
    """Spaces around every punctuation mark."""
    return "".join(f" {c} " if _is_punctuation(c) else c for c in text)
