"""4,000 varied texts, the same wherever they are made; no machine's library decides on them."""

import random

_TEXT = (
    "the The of and river RIVER naïve Straße café 東京 北京市 русский язык עברית العربية हिन्दी ไทย 한국어 "
    "I'm you're it's they'd we've can't DON'T I'LL x1 3rd 2024 1,000.50 -17 0xFF http://a.b/c?d=e user@mail.org"
)
_WORDS = _TEXT.split()
_SIGNS = ["!", "...", "?!", "—", "“", "”", "()", "[[", "}}", "#", "$$", "%", "&&", "\\", "/", "*", "~", "😀"]
_SIGNS += ["👩\u200d👩\u200d👧", "\u0301", "\u200b"]
_SPACES = [" ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", " \n ", "\u00a0", "\u3000", ""]


def texts(count: int = 4000) -> list[str]:
    """Words of many scripts, numbers, signs and white space; in some, the name of a special token."""
    draw = random.Random(0)
    result = []
    for number in range(count):
        parts = []
        for _ in range(draw.randint(1, 9)):
            kind = draw.random()
            if kind < 0.6:
                parts.append(draw.choice(_WORDS))
            elif kind < 0.75:
                parts.append(draw.choice(_SIGNS))
            elif kind < 0.9:
                parts.append(str(draw.randint(0, 10 ** draw.randint(1, 9))))
            else:
                parts.append("".join(chr(draw.randint(32, 0x2FF)) for _ in range(draw.randint(1, 5))))
            parts.append(draw.choice(_SPACES))
        if number % 50 == 0:
            parts.insert(draw.randint(0, len(parts)), draw.choice(["<|eot_id|>", "<|image|>", "<|begin_of_text|>"]))
        result.append("".join(parts))
    return result
