"""Texts are compared by the official rules, or by those of MLQA for the language asked for."""

import re
import string
import sys
import unicodedata
from typing import Any, get_args

import pytest

from qa_core.errors import ConfigError
from qa_core.normalizing import Language, normalize_answer, split_words


@pytest.mark.parametrize(
    ("text", "normalized"),
    [
        ("The  Harbour-Bridge, 1912.", "harbourbridge 1912"),
        ("A an the", ""),
        ("Anna's theory", "annas theory"),
        ("«café» — naïve", "«café» — naïve"),
        ("a-the b", "athe b"),
        ("die Brücke", "die brücke"),
    ],
)
def test_official_rules(text: str, normalized: str) -> None:
    """ASCII punctuation goes, English articles go as whole words, other signs stay."""
    assert normalize_answer(text) == normalized


def test_every_sign_of_ascii_bounds_articles_as_the_pattern_says() -> None:
    """Printable text is taken word by word, which is quicker; the official pattern decides."""
    for sign in map(chr, range(128)):
        for text in (f"the{sign}b", f"b{sign}an{sign}c a", f"The {sign}", f"x a{sign}{sign}é the"):
            kept = "".join(c for c in text.lower() if c not in string.punctuation)
            expected = " ".join(re.sub(r"\b(a|an|the)\b", " ", kept).split())
            assert normalize_answer(text) == expected, repr(text)


@pytest.mark.parametrize(
    ("language", "text", "normalized"),
    [
        ("en", "«The  Bridge» — a + b", "bridge b"),
        ("es", "¿Unos años, en el Río? ¡La élite!", "años en río élite"),
        ("hi", "ताज महल।  the", "ताज महल the"),
        ("vi", "những Cái cầu của Huế", "cầu huế"),
        ("de", "Das Schloß „des“ Königs, einem denkmal", "schloß königs denkmal"),
        ("ar", "الجسر، في المدينة؟", "جسر في مدينة"),
        ("zh", "「北京」大学 Peking大學 1898年。", "北 京 大 学 peking 大 學 1898 年"),
        ("zh", "a the", "a the"),
    ],
)
def test_rules_of_each_language(language: Language, text: str, normalized: str) -> None:
    """All punctuation and the language's own articles go; a Chinese character is a word."""
    assert normalize_answer(text, language) == normalized


def test_all_punctuation_of_unicode_goes_and_nothing_else() -> None:
    """Against asking for each character's category; ASCII's signs go where it says symbol, too."""
    characters = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    is_sign = [c in string.punctuation or unicodedata.category(c)[0] == "P" for c in characters]
    assert 800 < sum(is_sign) < 2000
    signs = "".join(c for c, sign in zip(characters, is_sign, strict=True) if sign)
    others = "".join(c for c, sign in zip(characters, is_sign, strict=True) if not sign)
    assert normalize_answer(signs, "hi") == ""
    assert normalize_answer(others, "hi") == " ".join(others.lower().split())


def test_only_the_articles_of_the_language_go() -> None:
    """Every language keeps what are articles in another."""
    text = "the una của einem"
    kept = {language: normalize_answer(text, language) for language in get_args(Language)}
    assert kept["en"] == "una của einem"
    assert kept["es"] == "the của einem"
    assert kept["vi"] == "the una einem"
    assert kept["de"] == "the una của"
    assert kept["hi"] == kept["ar"] == kept["zh"] == text


def test_chinese_words_are_the_characters_of_the_common_block() -> None:
    """U+4E00 to U+9FA5, both included; kana and what lies beyond are split by white space only."""
    assert split_words("x\u4e00\u9fa5y", "zh") == ["x", "\u4e00", "\u9fa5", "y"]
    assert split_words("\u9fa6\u3400かな カナ", "zh") == ["\u9fa6\u3400かな", "カナ"]
    assert split_words("北京 大学") == ["北京", "大学"]


def test_unknown_language_is_an_error() -> None:
    """Not a silent fall-back to the official rules."""
    french: Any = "fr"
    with pytest.raises(ConfigError, match=r"language is 'fr'.*en, es, hi, vi, de, ar, zh"):
        normalize_answer("le pont", french)
