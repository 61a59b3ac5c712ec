"""normalize: an answer's text → what scoring compares: words without case, signs and articles.

Two sets of rules: the official SQuAD scripts' (ASCII punctuation, English articles), which are the
default for every language, and MLQA's, which know seven languages and all of Unicode's
punctuation.
"""

import re
import string
import sys
import unicodedata
from functools import cache
from typing import Literal, get_args

from qa_core.errors import ConfigError

Language = Literal["en", "es", "hi", "vi", "de", "ar", "zh"]

_ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ENGLISH = frozenset(("a", "an", "the"))
_ENGLISH_ARTICLES = re.compile(r"\b(?:a|an|the)\b")

# As MLQA has them; Hindi and Chinese have none. Arabic's is cut out wherever its two letters
# stand, inside words, too: that is what MLQA's pattern comes to.
_ARTICLES: dict[str, re.Pattern[str]] = {
    "en": _ENGLISH_ARTICLES,
    "es": re.compile(r"\b(?:un|una|unos|unas|el|la|los|las)\b"),
    "vi": re.compile(r"\b(?:của|là|cái|chiếc|những)\b"),
    "de": re.compile(r"\b(?:ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b"),
    "ar": re.compile("ال"),
}
_CHINESE_CHARACTER = re.compile("([\u4e00-\u9fa5])")


def normalize_answer(text: str, language: Language | None = None) -> str:
    """Lower case without punctuation, articles and repeated white space.

    Without a language by the official rules: ASCII punctuation and English articles go. With one
    by MLQA's: all punctuation and that language's articles go; in Chinese ("zh") each character
    becomes a word. Raises `ConfigError` for another language.

    >>> normalize_answer("The  Harbour-Bridge, 1912.")
    'harbourbridge 1912'
    >>> normalize_answer("«Das Schloß»", "de")
    'schloß'
    """
    if language is None:
        kept = text.lower().translate(_ASCII_PUNCTUATION)
        if kept.isascii() and kept.isprintable():  # words are what spaces bound: no pattern needed
            return " ".join([word for word in kept.split() if word not in _ENGLISH])
        return " ".join(_ENGLISH_ARTICLES.sub(" ", kept).split())
    _check_language(language)
    kept = text.lower().translate(_all_punctuation())
    if language in _ARTICLES:
        kept = _ARTICLES[language].sub(" ", kept)
    return " ".join(split_words(kept, language))


def split_words(text: str, language: Language | None = None) -> list[str]:
    """The words of a text by white space; in Chinese each character is one as well."""
    if language == "zh":
        text = _CHINESE_CHARACTER.sub(r" \1 ", text)
    return text.split()


def _check_language(language: str) -> None:
    known = get_args(Language)
    if language not in known:
        expected = f"one of {', '.join(known)}, or none for the official rules"
        raise ConfigError(f"language is {language!r}", "scoring.language", expected)


@cache
def _all_punctuation() -> dict[int, None]:
    """Unicode's punctuation (categories P…) and ASCII's, some of which is called symbols there."""
    unicode = (
        code for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code))[0] == "P"
    )
    return dict.fromkeys([*unicode, *map(ord, string.punctuation)])
