"""Answers that differ from the context only by white space or Unicode normalisation."""

import unicodedata
from typing import NamedTuple

REPAIR_DISTANCE = 16  # characters that the start may be off: what white space before it adds up to
GROWTH = 4  # a text's slice may be this many times as long: decomposed characters, runs of spaces
LONGEST = 10_000  # characters of an answer that is looked for: a step of Python for each

WHITE_SPACE = "white space"
UNICODE = "Unicode normalisation"
SHIFTED = "shifted start"  # the text is there as it is, some characters on or back


class Repair(NamedTuple):
    """Where an answer's text stands after all: `text` is the context's slice at `start`."""

    text: str
    start: int
    reason: str  # WHITE_SPACE, UNICODE or SHIFTED


def find_repair(context: str, text: str, start: int) -> Repair | None:
    """The slice near `start` that is `text` but for white space and Unicode normalisation (NFKC).

    A slice at `start` itself is taken; another one, at most `REPAIR_DISTANCE` characters away,
    only where there is no second, for nothing tells which is meant. None where there is none.

    >>> find_repair("It  opened in May.", "opened in", 3)
    Repair(text='opened in', start=4, reason='shifted start')
    """
    if len(text) > LONGEST or not -REPAIR_DISTANCE <= start <= len(context) + REPAIR_DISTANCE:
        return None
    wanted = "".join(part for part, _, _ in _parts(text)).strip()
    if not wanted:
        return None
    low = max(0, start - REPAIR_DISTANCE)
    high = start + GROWTH * len(text) + 2 * REPAIR_DISTANCE
    found = [(low + first, low + end) for first, end in _find_all(context[low:high], wanted)]
    near = [span for span in found if abs(span[0] - start) <= REPAIR_DISTANCE]
    exact = [span for span in near if span[0] == start]
    chosen = exact or near
    if len(chosen) != 1:
        return None
    slice_ = context[slice(*chosen[0])]
    return Repair(slice_, chosen[0][0], _reason(slice_, text))


def _find_all(window: str, wanted: str) -> list[tuple[int, int]]:
    """Half-open spans of `window` that normalise to `wanted`."""
    parts = _parts(window)
    begins, ends, length = {}, {}, 0  # character of the normalised window → of the window
    for part, first, end in parts:
        begins[length] = first
        length += len(part)
        ends[length] = end
    whole = "".join(part for part, _, _ in parts)
    spans, at = [], whole.find(wanted)
    while at >= 0:
        if at in begins and at + len(wanted) in ends:  # else it cuts a ligature
            spans.append((begins[at], ends[at + len(wanted)]))
        at = whole.find(wanted, at + 1)
    return spans


def _parts(text: str) -> list[tuple[str, int, int]]:
    """Pieces that normalise on their own: the normal form and the half-open characters of each.

    A piece is a run of white space (one space), or a character with the marks that follow it.
    """
    parts: list[tuple[str, int, int]] = []
    first = 0
    while first < len(text):
        end = first + 1
        goes_on = str.isspace if text[first].isspace() else _is_mark
        while end < len(text) and goes_on(text[end]):
            end += 1
        piece = text[first:end]
        form = " " if piece.isspace() else unicodedata.normalize("NFKC", piece)
        parts.append((form, first, end))
        first = end
    return parts


def _is_mark(character: str) -> bool:
    """Whether a character may join the one before it: accents, vowel signs, Hangul's parts."""
    return unicodedata.category(character).startswith("M") or "\u1160" <= character <= "\u11ff"


def _reason(found: str, text: str) -> str:
    """The difference between them."""
    if found == text:
        return SHIFTED
    return WHITE_SPACE if found.split() == text.split() else UNICODE
