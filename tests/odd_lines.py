"""Lines of text as people have them, on which ways to split text differ, and a vocabulary that shows by how much."""

import functools
import itertools
import random
import unicodedata

from bertjax.data.tokenizer.rules import BERTS_SPECIAL_TOKENS

_WORDS = """
the The CRANE Café naïve ÉTÉ Ångström İstanbul Straße ﬁn Ⅷ x² 東京 東京タワー 東a京 中文crane カタカナ ひらがな 한국어
Ελλάς ΣΑΣ Привет ЁЖ ศูนย์ हिन्दी עִבְרִית عَرَبِيّ 🙂 𝔘𝔫𝔦 𠀀x don't e-mail a_b C++ 3.14 1,000 ... ¿qué? «oui» “so” — ½ °C №5
[MASK] [mask] [SEP]x [UNK] ##ing http://a.b/c?d=e&f
""".split()
_WORDS += [
    "cafe\u0301",
    "e\u0301\u0323",
    "q\u0307",
    "\u0301",
    "\uac01",
    "👩\u200d🚀",
    "a\u00adb",
    "a\u200bb",
    "\ufeffa",
]
_WORDS += ["a" * 101, "É" * 60, "\ufffd", "\0", "\x7f", "\x85"]
_SPACES = [" ", " ", " ", "  ", "\t", "\u00a0", "\u2003", "\u3000", "\u2028", "\r\n", ""]


@functools.cache
def odd_lines(count: int = 500) -> tuple[str, ...]:
    """Always the same lines."""
    draw = random.Random(18)

    def line() -> str:
        words = draw.choices(_WORDS, k=draw.randrange(9))
        return "".join(itertools.chain.from_iterable(zip(words, draw.choices(_SPACES, k=len(words)), strict=True)))

    return tuple(line() for _ in range(count))


@functools.cache
def odd_vocabulary() -> tuple[str, ...]:
    """BERT's special tokens, and the lines' characters, as they are and as any rule leaves them, as pieces of words."""
    text = "".join(odd_lines())
    forms = {text, *(form for case in (text.lower(), text) for form in (case, unicodedata.normalize("NFD", case)))}
    letters = sorted({letter for form in forms for letter in form if not letter.isspace() and letter.isprintable()})
    return (*BERTS_SPECIAL_TOKENS, *letters, *(f"##{letter}" for letter in letters))
