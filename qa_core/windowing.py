"""window: tokens + (max_length, doc_stride) → overlapping windows. Pure integer work.

A window holds the whole question, the special tokens, and a run of context tokens. With `room`
context tokens to a window, window k of an example begins at context token
k * (room - doc_stride); the last one ends with the context.
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qa_core.tokenizing import PairTemplate, Tokens, concatenated_ranges, splits_of


@dataclass(frozen=True)
class Windows:
    """Which context tokens each window holds, in example order; see the module."""

    example: NDArray[np.int32]  # (windows,) row of the example
    index: NDArray[np.int32]  # (windows,) number of the window in its example
    start: NDArray[np.int32]  # (windows,) its first context token, counted in the context
    length: NDArray[np.int32]  # (windows,) its number of context tokens

    def take(self, rows: NDArray[np.int64]) -> "Windows":
        """The windows at `rows`, in that order."""
        return Windows(*(getattr(self, field.name)[rows] for field in fields(self)))


@dataclass(frozen=True)
class Layout:
    """Where things are in each window."""

    length: NDArray[np.int32]  # (windows,) its tokens, special ones and question included
    context_first: NDArray[np.int32]  # (windows,) where the context begins
    cls_index: NDArray[np.int32]  # (windows,) the token that stands for "no answer"

    def take(self, rows: NDArray[np.int64]) -> "Layout":
        """The windows at `rows`, in that order."""
        return Layout(*(getattr(self, field.name)[rows] for field in fields(self)))


@dataclass(frozen=True)
class FilledWindows:
    """The tokens of windows, one window after another, without padding."""

    splits: NDArray[np.int64]  # (windows + 1,)
    input_ids: NDArray[np.int32]  # (tokens,)
    token_type_ids: NDArray[np.int8]  # (tokens,)
    offsets: NDArray[np.int32]  # (tokens, 2) half-open characters; -1 outside the context


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


def split_rows(sizes: NDArray[np.int64], *, most: int) -> list[tuple[int, int]]:
    """Half-open ranges of rows, in order, of a size of at most `most` together.

    A row that is larger is a range of its own.

    >>> split_rows(np.array([2, 3, 9, 1]), most=5)
    [(0, 2), (2, 3), (3, 4)]
    """
    ends = np.cumsum(sizes)
    ranges, first = [], 0
    while first < len(sizes):
        before = int(ends[first - 1]) if first else 0
        stop = max(first + 1, int(np.searchsorted(ends, before + most, side="right")))
        ranges.append((first, stop))
        first = stop
    return ranges


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
    return Windows(*(column.astype(np.int32) for column in (example, index, start, length)))


def lay_out(
    windows: Windows, question_lengths: NDArray[np.int64], template: PairTemplate
) -> Layout:
    """Lengths and places that follow from the tokenizer's layout of a pair."""
    question = question_lengths[windows.example]  # (windows,)
    is_context_first = template.is_context_first
    first, second = (windows.length, question) if is_context_first else (question, windows.length)
    before, between = len(template.before), len(template.between)
    context_first = before + (0 if is_context_first else question + between)
    cls_index = np.zeros(len(first), np.int64)
    if template.null_special is not None:
        is_after_first = template.null_special >= before
        is_after_second = template.null_special >= before + between
        cls_index = template.null_special + is_after_first * first + is_after_second * second
    columns = (template.num_special_tokens + first + second, context_first, cls_index)
    shape = len(windows.example)
    return Layout(*(np.broadcast_to(c, shape).astype(np.int32) for c in columns))


def fill_windows(
    windows: Windows,
    texts: Tokens,
    *,
    question_of: NDArray[np.int64],
    context_of: NDArray[np.int64],
    template: PairTemplate,
) -> FilledWindows:
    """Ids, segments and offsets of all windows.

    `texts` begins with the template's special tokens, each a text of one token; `question_of` and
    `context_of` number the texts of each example. A window is a few runs of the texts' tokens, so
    all windows are one gather.
    """
    question = question_of[windows.example]  # (windows,)
    context_start = texts.splits[context_of[windows.example]] + windows.start
    texts_of_pair: list[tuple[Any, Any]] = [
        (texts.splits[question], texts.lengths[question]),
        (context_start, windows.length),
    ]
    first, second = texts_of_pair[::-1] if template.is_context_first else texts_of_pair
    num_before, num_between = len(template.before), len(template.between)
    special = [(number, 1) for number in range(template.num_special_tokens)]
    runs: list[tuple[Any, Any]] = [
        *special[:num_before],
        first,
        *special[num_before : num_before + num_between],
        second,
        *special[num_before + num_between :],
    ]
    types = [
        *template.before_types,
        template.first_type,
        *template.between_types,
        template.second_type,
        *template.after_types,
    ]
    starts, lengths = np.empty((2, len(windows.example), len(runs)), np.int64)
    for run, (start, length) in enumerate(runs):
        starts[:, run], lengths[:, run] = start, length
    splits = splits_of(lengths.sum(axis=1))
    token = concatenated_ranges(starts.reshape(-1), lengths.reshape(-1))  # (tokens,)
    return FilledWindows(
        splits,
        texts.ids.take(token),
        np.repeat(np.tile(np.array(types, np.int8), len(starts)), lengths.reshape(-1)),
        texts.offsets.view(np.int64).take(token).view(np.int32).reshape(-1, 2),  # pairs at once
    )
