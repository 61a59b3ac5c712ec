"""window: tokens + (max_length, doc_stride) → overlapping windows. Pure integer work.

A window holds the whole question, the special tokens, and a run of context tokens. With `room`
context tokens to a window, window k of an example begins at context token
k * (room - doc_stride); the last one ends with the context.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qa_core.alignment import AnswerSpans
from qa_core.tokenizing import PairTemplate, Tokens


@dataclass(frozen=True)
class Windows:
    """Which context tokens each window holds, in example order; see the module."""

    example: NDArray[np.int64]  # (windows,) row of the example
    index: NDArray[np.int64]  # (windows,) number of the window in its example
    start: NDArray[np.int64]  # (windows,) its first token, counted in the context
    length: NDArray[np.int64]  # (windows,) its number of context tokens


@dataclass(frozen=True)
class FilledWindows:
    """The tokens of windows, one window after another, without padding."""

    splits: NDArray[np.int64]  # (windows + 1,)
    input_ids: NDArray[np.int32]  # (tokens,)
    token_type_ids: NDArray[np.int8]  # (tokens,)
    offsets: NDArray[np.int32]  # (tokens, 2) half-open characters; -1 outside the context
    cls_index: NDArray[np.int64]  # (windows,)
    context_first: NDArray[np.int64]  # (windows,) where the context begins in the window


def find_roomless(
    question_lengths: NDArray[np.int64],
    context_lengths: NDArray[np.int64],
    *,
    num_special_tokens: int,
    max_length: int,
    doc_stride: int,
) -> NDArray[np.int64]:
    """Rows whose context does not fit one window and leaves none that could move on.

    That is: more context tokens than room, and room for at most `doc_stride` of them.
    """
    room = max_length - num_special_tokens - question_lengths  # (examples,)
    return np.flatnonzero((context_lengths > room) & (room <= max(doc_stride, 0)))


def plan_windows(
    question_lengths: NDArray[np.int64],
    context_lengths: NDArray[np.int64],
    *,
    num_special_tokens: int,
    max_length: int,
    doc_stride: int,
) -> Windows:
    """The windows of examples whose question and context have so many tokens.

    No row may be one of `find_roomless`. A context of 10 tokens, room 6 and doc_stride 2 gives
    the windows 0 to 5 and 4 to 9 (inclusive).
    """
    room = max_length - num_special_tokens - question_lengths  # (examples,)
    beyond = np.maximum(context_lengths - room, 0)  # (examples,) tokens after the first window
    step = np.maximum(room - doc_stride, 1)
    count = 1 + -(-beyond // step)  # (examples,) ceiling division
    example = np.repeat(np.arange(len(count)), count)  # (windows,)
    index = concatenated_ranges(np.zeros_like(count), count)
    start = index * step[example]
    length = np.minimum(room[example], context_lengths[example] - start)
    return Windows(example, index, start, length)


def concatenated_ranges(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """The numbers starts[i] to starts[i] + lengths[i] - 1, one range after another.

    >>> concatenated_ranges(np.array([5, 0]), np.array([2, 3])).tolist()
    [5, 6, 0, 1, 2]
    """
    before = np.cumsum(lengths) - lengths  # (ranges,)
    return np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()))


def fill_windows(
    windows: Windows,
    *,
    questions: Tokens,
    question_of: NDArray[np.int64],
    contexts: Tokens,
    context_of: NDArray[np.int64],
    template: PairTemplate,
) -> FilledWindows:
    """Ids, segments and offsets of all windows; `question_of[row]` numbers an example's text."""
    question = question_of[windows.example]  # (windows,)
    question_length = questions.lengths[question]
    lengths = (question_length, windows.length)
    first_length, second_length = lengths[::-1] if template.is_context_first else lengths
    total = template.num_special_tokens + first_length + second_length
    splits = np.concatenate([[0], np.cumsum(total)]).astype(np.int64)  # (windows + 1,)
    ids = np.empty(splits[-1], np.int32)
    types = np.empty(splits[-1], np.int8)
    offsets = np.full((splits[-1], 2), -1, np.int32)

    begin = splits[:-1]  # (windows,) moves right as the parts are laid down
    begin = _put_specials(ids, types, begin, template.before, template.before_types)
    first_begin, begin = begin, begin + first_length
    begin = _put_specials(ids, types, begin, template.between, template.between_types)
    second_begin, begin = begin, begin + second_length
    _put_specials(ids, types, begin, template.after, template.after_types)

    begins = (first_begin, second_begin)
    segments = (template.first_type, template.second_type)
    if template.is_context_first:
        begins, segments = begins[::-1], segments[::-1]
    place = concatenated_ranges(begins[0], question_length)
    ids[place] = questions.ids[concatenated_ranges(questions.splits[question], question_length)]
    types[place] = segments[0]
    taken = contexts.splits[context_of[windows.example]] + windows.start
    place, token = (concatenated_ranges(b, windows.length) for b in (begins[1], taken))
    ids[place] = contexts.ids[token]
    types[place] = segments[1]
    offsets[place, 0] = contexts.starts[token]
    offsets[place, 1] = contexts.ends[token]
    cls_index = _cls_index(template, first_length, second_length)
    return FilledWindows(splits, ids, types, offsets, cls_index, begins[1] - splits[:-1])


def label_windows(
    windows: Windows,
    filled: FilledWindows,
    spans: AnswerSpans,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """start_positions and end_positions of every window, inclusive, (windows,) each.

    A window that does not hold the whole answer (by characters: its first context token begins
    at or before the answer, its last ends at or after it) is labelled at its cls_index.
    """
    example = windows.example
    has_context = windows.length > 0
    first = np.where(has_context, filled.splits[:-1] + filled.context_first, 0)
    last = np.where(has_context, first + windows.length - 1, 0)
    start_char, end_char = spans.start_char[example], spans.end_char[example]  # (windows,)
    is_held = has_context & (start_char >= 0)
    is_held &= filled.offsets[first, 0] <= start_char
    is_held &= filled.offsets[last, 1] >= end_char
    start = np.minimum(spans.start_token[example] - windows.start, windows.length - 1)
    end = np.maximum(spans.end_token[example] - windows.start, 0)
    start_positions = np.where(is_held, start + filled.context_first, filled.cls_index)
    end_positions = np.where(is_held, end + filled.context_first, filled.cls_index)
    return start_positions, end_positions


def _put_specials(
    ids: NDArray[np.int32],
    types: NDArray[np.int8],
    begin: NDArray[np.int64],
    special_ids: tuple[int, ...],
    special_types: tuple[int, ...],
) -> NDArray[np.int64]:
    """Write special tokens at `begin` of every window; the places after them."""
    for token_id, token_type in zip(special_ids, special_types, strict=True):
        ids[begin] = token_id
        types[begin] = token_type
        begin = begin + 1
    return begin


def _cls_index(
    template: PairTemplate, first_length: NDArray[np.int64], second_length: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Where the special token that stands for "no answer" is in each window, (windows,)."""
    special = template.null_special
    index = np.full(len(first_length), special or 0, np.int64)
    if special is None or special < len(template.before):
        return index
    index += first_length
    return index if special < len(template.before + template.between) else index + second_length
