"""12,000 lines of every kind a tokeniser may meet, made by a fixed rule; no text of others."""

import random

COUNT = 12_000
_WORDS = (
    "the of and to in a is that for it as was with be by on not he his but at are this have from or had an they which "
    "one you were her all she there would their we him been has when who will more no if out so said what up its about "
    "into than them can only other new some could time these two may then do first any my now such like our over man me "
    "even most made after also did many before must through back years where much your way well down should because "
    "each just those people how too little state good very make world still own see men work long get here between both "
    "life being under never day same another know while last might us great old year off come since against go came "
    "right used take three uncharacteristically transformers embeddings unaffable antidisestablishmentarianism "
    "tokenisation Running JUMPED McDonald's O'Neill U.S.A. e.g. i.e. Ph.D. state-of-the-art rock'n'roll don't I'm "
    "3.14159 1,000,000 $5.00 50% #hashtag @mention user_name foo@bar.com https://example.org/a?b=c&d=e 12:30 24/7 C++ "
    "café naïve résumé Ångström Zürich Dvořák İstanbul Şişli ΣΊΣΥΦΟΣ Ὀδυσσεύς Москва Ёлка Київ straße Straßburg ﬁnance "
    "ﬂow ½ Ⅻ ａｂｃ № ™ ℃ Å e\u0301 o\u0308 n\u0303 a\u0323\u0302 中文 漢字 日本語 テスト ひらがな 한국어 조합 "
    "עברית العربية ﷺ हिन्दी ไทย தமிழ் ქართული 你好世界 東京都 𠀀𠀁 豈更 👍 👩‍👩‍👧 ❤️ 🇩🇪 🏳️‍🌈 👍🏽 ☃ → ∑ ≠ € £ ¥ ₿ « » “ ” ‘ ’ … – — "
    "[CLS] [SEP] [MASK] [PAD] [UNK] [cls] [Sep] [ [] ]] [SEP][SEP] x[MASK]y [UNUSED1] <s> </s> ## ##ing a##b"
).split(" ")
_SPACES = (" ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u2003", "\u3000", "\u200b", "\u200d", "\ufeff", "")
_CONTROLS = "\x00\x01\x07\x08\x0b\x0c\x1b\x1c\x7f\x80\x85\x9f\u00ad\u061c\u200e\u2028\u2029\u202e\ufffd\ue000"
_RANGES = ((0x20, 0x7F), (0xA0, 0x180), (0x370, 0x400), (0x400, 0x500), (0x590, 0x700), (0x900, 0xE80),
           (0x1E00, 0x2000), (0x2000, 0x2070), (0x2100, 0x2C00), (0x3000, 0x3100), (0x4E00, 0x4F00), (0xAC00, 0xAD00),
           (0xF900, 0xFB10), (0xFE20, 0xFFF0), (0x1D400, 0x1D500), (0x1F300, 0x1F700), (0x20000, 0x20040))  # fmt: skip


def _sentence(draw: random.Random) -> str:
    words = (draw.choice(_WORDS) for _ in range(draw.randint(1, 25)))
    return "".join(word + (" " if draw.random() < 0.85 else draw.choice(_SPACES)) for word in words)


def _noise(draw: random.Random) -> str:
    low, high = draw.choice(_RANGES)
    return "".join(chr(draw.randrange(low, high)) for _ in range(draw.randint(1, 30)))


def _controlled(draw: random.Random) -> str:
    return "".join(c + (draw.choice(_CONTROLS) if draw.random() < 0.15 else "") for c in _sentence(draw))


def _long_words(draw: random.Random) -> str:
    lengths = (draw.choice((2, 30, 99, 100, 101, 150)) for _ in range(3))
    return " ".join("".join(draw.choice("abcdefghijklmnopqrstuvwxyzé") for _ in range(n)) for n in lengths)


def _joined(draw: random.Random) -> str:
    return "".join(draw.choice(_WORDS) for _ in range(draw.randint(2, 6)))


def _anything(draw: random.Random) -> str:
    codes = (draw.randrange(0x110000) for _ in range(draw.randint(1, 12)))
    return "x".join(chr(code) for code in codes if not 0xD800 <= code < 0xE000)


def lines() -> list[str]:
    """The lines, always the same."""
    draw = random.Random(20180810)
    kinds = (_sentence, _sentence, _noise, _controlled, _long_words, _joined, _anything)
    return [kinds[i % len(kinds)](draw) for i in range(COUNT)]
