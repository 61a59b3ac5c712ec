"""label: windows and accepted answers → the token positions that training is to find."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from qa_core.alignment import AnswerSpans
from qa_core.tokenizing import Tokens, concatenated_ranges, splits_of
from qa_core.windowing import Layout, Windows

Labels = Literal["first", "all"]  # which accepted answers of an example windows are labelled with


@dataclass(frozen=True)
class LabelSpans:
    """All spans that windows are labelled with, distinct in a window, at least one each.

    Those of window i are `splits[i]` to `splits[i + 1] - 1`, by start, then end. A window without
    an answer has one, at its cls_index. A start may be after its end: of tokens that share a
    character (the bytes of an emoji) run_qa starts at the last and ends at the first.
    """

    splits: NDArray[np.int64]  # (windows + 1,)
    start: NDArray[np.int32]  # (spans,) token in the window
    end: NDArray[np.int32]  # (spans,) inclusive

    def take(self, rows: NDArray[np.int64]) -> "LabelSpans":
        """The spans of the windows at `rows`, in that order."""
        counts = np.diff(self.splits)[rows]
        span = concatenated_ranges(self.splits[:-1][rows], counts)
        return LabelSpans(splits_of(counts), self.start[span], self.end[span])


def single_spans(start: NDArray[np.int32], end: NDArray[np.int32]) -> LabelSpans:
    """One span for each window, (windows,) each."""
    return LabelSpans(np.arange(len(start) + 1), start, end)


NO_SPANS = single_spans(np.zeros(0, np.int32), np.zeros(0, np.int32))


def join_spans(parts: Sequence[LabelSpans]) -> LabelSpans:
    """The spans of all parts' windows (at least one part), one part after another."""
    counts = np.concatenate([np.diff(part.splits) for part in parts])
    start, end = (np.concatenate([getattr(part, n) for part in parts]) for n in ("start", "end"))
    return LabelSpans(splits_of(counts), start, end)


@dataclass(frozen=True)
class HeldAnswers:
    """The answers that windows hold whole: pairs by window, then in the order of the record."""

    window: NDArray[np.int64]  # (pairs,)
    start: NDArray[np.int64]  # (pairs,) token in the window
    end: NDArray[np.int64]  # (pairs,) inclusive


def place_answers(
    windows: Windows,
    layout: Layout,
    spans: AnswerSpans,
    texts: Tokens,
    context_of: NDArray[np.int64],
    *,
    labels: Labels,
) -> HeldAnswers:
    """Where each window has the answers it holds: of its example's first one, or of all."""
    window, answer = pair_answers(windows, spans, labels=labels)
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
    return HeldAnswers(window, first + start, first + end)


def first_labels(held: HeldAnswers, layout: Layout) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """start_positions and end_positions of every window, inclusive, (windows,) each.

    They are those of the first of its answers in `held`; a window that has none there is labelled
    at its cls_index.
    """
    start_positions, end_positions = layout.cls_index.copy(), layout.cls_index.copy()
    pair = np.flatnonzero(np.diff(held.window, prepend=-1))  # the first of each window
    start_positions[held.window[pair]] = held.start[pair]
    end_positions[held.window[pair]] = held.end[pair]
    return start_positions, end_positions


def all_labels(held: HeldAnswers, layout: Layout) -> LabelSpans:
    """The distinct spans of each window's answers in `held`; its cls_index where it has none.

    Two answers that come to the same tokens, as equal ones do, are one span.
    """
    num_windows = len(layout.cls_index)
    null = np.setdiff1d(np.arange(num_windows), held.window)
    cls_index = layout.cls_index[null]
    columns = ((held.window, null), (held.start, cls_index), (held.end, cls_index))
    labels = np.stack([np.concatenate(column) for column in columns])  # (3, pairs)
    labels = labels[:, np.lexsort(labels[::-1])]  # by window, start, end
    is_other = np.diff(labels, axis=1, prepend=-1).any(axis=0)  # than the one before
    window, start, end = labels[:, is_other]
    counts = np.bincount(window, minlength=num_windows)  # (windows,)
    return LabelSpans(splits_of(counts), start.astype(np.int32), end.astype(np.int32))


def pair_answers(
    windows: Windows, spans: AnswerSpans, *, labels: Labels = "all"
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Every window with every accepted answer of its example, or the first: two columns, (pairs,).

    By window, then in the order of the record.
    """
    counts = spans.counts[windows.example]  # (windows,)
    if labels == "first":
        counts = np.minimum(counts, 1)
    window = np.repeat(np.arange(len(counts)), counts)
    return window, concatenated_ranges(spans.splits[windows.example], counts)


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
