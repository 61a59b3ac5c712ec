"""label: windows and accepted answers → the token positions that training is to find."""

import numpy as np
from numpy.typing import NDArray

from qa_core.alignment import AnswerSpans
from qa_core.tokenizing import Tokens
from qa_core.windowing import Layout, Windows


def label_windows(
    windows: Windows,
    layout: Layout,
    spans: AnswerSpans,
    texts: Tokens,
    context_of: NDArray[np.int64],
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """start_positions and end_positions of every window, inclusive, (windows,) each.

    They are those of the first accepted answer. A window that does not hold the whole of it is
    labelled at its cls_index.
    """
    start_positions, end_positions = layout.cls_index.copy(), layout.cls_index.copy()
    window = np.flatnonzero(spans.counts[windows.example] > 0)  # (answerable,)
    answer = spans.splits[windows.example[window]]
    is_held = holds_answer(windows, window, spans, answer, texts, context_of)
    window, answer = window[is_held], answer[is_held]
    start = spans.start_token[answer] - windows.start[window]
    end = spans.end_token[answer] - windows.start[window]
    first, length = layout.context_first[window], windows.length[window]
    start, end = np.minimum(start, length - 1), np.maximum(end, 0)
    is_falling = _has_falling_offsets(texts)[context_of[windows.example[window]]]
    for row in np.flatnonzero(is_falling):
        token = texts.splits[context_of[windows.example[window[row]]]] + windows.start[window[row]]
        offsets = texts.offsets[token : token + length[row]]
        characters = spans.start_char[answer[row]], spans.end_char[answer[row]]
        start[row], end[row] = _walk(offsets, *characters)
    start_positions[window], end_positions[window] = first + start, first + end
    return start_positions, end_positions


def _has_falling_offsets(texts: Tokens) -> NDArray[np.bool_]:
    """Whether a token of the text begins or ends before the one in front of it, (texts,).

    Some tokenizers give bytes of one character, or a space put in front, such offsets.
    """
    falls = np.flatnonzero((np.diff(texts.offsets, axis=0) < 0).any(axis=1)) + 1
    text = np.searchsorted(texts.splits, falls, side="right") - 1
    inside = texts.splits[text] < falls  # the first token of a text falls back from another text
    found = np.zeros(len(texts.lengths), np.bool_)
    found[text[inside]] = True
    return found


def _walk(offsets: NDArray[np.int32], start_char: int, end_char: int) -> tuple[int, int]:
    """First and last token of an answer as the reference finds them, walking in from both ends."""
    after = np.flatnonzero(offsets[:, 0] > start_char)
    before = np.flatnonzero(offsets[:, 1] < end_char)
    start = int(after[0]) if len(after) else len(offsets)
    end = int(before[-1]) if len(before) else -1
    return start - 1, end + 1


def holds_answer(
    windows: Windows,
    window: NDArray[np.int64],
    spans: AnswerSpans,
    answer: NDArray[np.int64],
    texts: Tokens,
    context_of: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """Whether the window of each pair holds the whole answer of the pair, (pairs,).

    By characters, as run_qa has it: the window's first context token begins at or before the
    answer, its last one ends at or after it.
    """
    length = windows.length[window]
    first = texts.splits[context_of[windows.example[window]]] + windows.start[window]
    last = first + length - 1
    has_context = length > 0
    first, last = np.where(has_context, first, 0), np.where(has_context, last, 0)
    starts_before = texts.offsets[first, 0] <= spans.start_char[answer]
    ends_after = texts.offsets[last, 1] >= spans.end_char[answer]
    return np.asarray(has_context & starts_before & ends_after, np.bool_)
