"""What is mended is the same text but for white space and normalisation, near where it was said."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qa_core.repairs import REPAIR_DISTANCE, find_repair


@pytest.mark.parametrize(
    ("context", "text", "start", "expected"),
    [
        ("It opened in May.", " opened in ", 2, ("opened in", 3, "white space")),
        ("It opened  in\nMay.", "opened in May", 3, ("opened  in\nMay", 3, "white space")),
        ("It opened in May.", "opened\u00a0in", 3, ("opened in", 3, "white space")),
        ("  It opened.", "opened", 3, ("opened", 5, "shifted start")),
        ("It opened.", "opened", 5, ("opened", 3, "shifted start")),
        ("Zoe\u0308 came.", "Zo\u00eb", 0, ("Zoe\u0308", 0, "Unicode normalisation")),
        ("Zo\u00eb came.", "Zoe\u0308", 0, ("Zo\u00eb", 0, "Unicode normalisation")),
        ("Zoe\u0308 came.", "came.", 4, ("came.", 5, "shifted start")),
        ("A \ufb01ne day", "fine", 2, ("\ufb01ne", 2, "Unicode normalisation")),
        ("\u1112\u1161\u11ab", "\ud55c", 0, ("\u1112\u1161\u11ab", 0, "Unicode normalisation")),
        ("1 m\u00b2 of \u2167", "m2 of VIII", 2, ("m\u00b2 of \u2167", 2, "Unicode normalisation")),
        ("No such word.", "there", 0, None),
        ("It Opened.", "opened", 3, None),  # letters are another difference
        ("A \ufb01ne day", "ine", 3, None),  # half of a ligature cannot be cut out
        ("Zoe\u0308", "Zoe", 0, None),  # an accent is no white space
        ("a b a", "a", 2, None),  # two are equally possible
        ("a b a", "a\u00a0", 4, ("a", 4, "white space")),  # one is where it was said
        ("x" * 40 + "May", "May", 40 - REPAIR_DISTANCE, ("May", 40, "shifted start")),
        ("x" * 40 + "May", "May", 39 - REPAIR_DISTANCE, None),
        ("May" + "x" * 40, "May", REPAIR_DISTANCE, ("May", 0, "shifted start")),
        ("May" + "x" * 40, "May", REPAIR_DISTANCE + 1, None),
        ("It opened.", "It", -1, ("It", 0, "shifted start")),
        ("It opened.", " \u2003", 2, None),
        ("It opened.", "It", 2**40, None),
        ("It opened.", "It", -(2**40), None),
        ("a " * 20_000, "a  " * 10_000, 0, None),  # too long to be looked for
    ],
)
def test_an_answer_is_found_but_for_white_space_and_normalisation(
    context: str, text: str, start: int, expected: tuple[str, int, str] | None
) -> None:
    """The context's own slice; nothing where letters differ or two places are possible."""
    assert find_repair(context, text, start) == expected


words = st.lists(
    st.text("ab\u00e9\u0308\ufb01\ud55c", min_size=1, max_size=4), min_size=1, max_size=6
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(words=words, forms=st.lists(st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"]), min_size=2))
def test_a_text_in_another_form_is_found_where_it_stands(
    words: list[str], forms: list[str]
) -> None:
    """Whatever mix of forms and spaces: a slice that normalises to the same text, in place."""
    inner = unicodedata.normalize(forms[0], "  ".join(words))  # type: ignore[arg-type]
    text = unicodedata.normalize(forms[1], "\u00a0".join(words))  # type: ignore[arg-type]
    context = f"It, {inner} ."
    repair = find_repair(context, text, 4)
    assert repair is not None
    assert repair.start == 4
    assert context[4 : 4 + len(repair.text)] == repair.text
    assert _normalized(repair.text) == _normalized(text)


def _normalized(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).split())
