"""align: character spans of answers ↔ inclusive spans of context tokens."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from qa_core.tokenizing import Tokens


@dataclass(frozen=True)
class AnswerSpans:
    """The first accepted answer of each example, in characters and in tokens of its context.

    An example without an answer has -1 everywhere. Tokens count from the first of the context.
    """

    start_char: NDArray[np.int64]  # (examples,)
    end_char: NDArray[np.int64]  # (examples,) half-open
    start_token: NDArray[np.int64]  # (examples,)
    end_token: NDArray[np.int64]  # (examples,) inclusive


def align_answers(
    answers: pa.ChunkedArray, contexts: Tokens, context_of: NDArray[np.int64]
) -> AnswerSpans:
    """Where the first accepted answer of each example lies in its context's tokens.

    `answers` is the examples' column (struct of lists), `context_of` the context number of each
    example. The start is the last token that begins at or before the answer, the end the first
    that ends at or after it: the rule of the reference recipe (run_qa).

    In the context "Lake Orla" with tokens at characters (0, 4) and (5, 9), the answer "Orla" at
    character 5 is token 1 to 1, and so is "rla" at 6.
    """
    start_char, end_char = _first_answers(answers)
    has_answer = start_char >= 0
    if not has_answer.any():
        none = np.full(len(start_char), -1, np.int64)
        return AnswerSpans(start_char, end_char, none, none)
    number = context_of[has_answer]  # (answered,)
    starts, ends, stride = _rising_keys(contexts)
    first = contexts.splits[number]
    start_token, end_token = np.full((2, len(start_char)), -1, np.int64)
    start_key = start_char[has_answer] + number * stride
    end_key = end_char[has_answer] + number * stride
    start_token[has_answer] = np.searchsorted(starts, start_key, side="right") - 1 - first
    end_token[has_answer] = np.searchsorted(ends, end_key, side="left") - first
    return AnswerSpans(start_char, end_char, start_token, end_token)


def _first_answers(answers: pa.ChunkedArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First character and half-open end of each example's first answer; -1 without one."""
    column = answers.combine_chunks()
    texts, starts = column.field("text"), column.field("answer_start")
    rows = np.flatnonzero(np.asarray(texts.value_lengths()) > 0)  # (answered,)
    start_char, end_char = np.full((2, len(column)), -1, np.int64)
    first_text = np.asarray(texts.offsets)[rows]
    first_start = np.asarray(starts.offsets)[rows]
    lengths = pc.utf8_length(texts.values.take(pa.array(first_text)))
    start_char[rows] = np.asarray(starts.values)[first_start]
    end_char[rows] = start_char[rows] + np.asarray(lengths)
    return start_char, end_char


def _rising_keys(contexts: Tokens) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Token starts and ends made to rise over all contexts, for one search over the block.

    Context k is shifted by k * stride. Inside a context a start that falls back takes the
    largest before it, an end the smallest after it, which is where a walk from the left, or from
    the right, would stop.
    """
    number = np.repeat(np.arange(len(contexts.lengths)), contexts.lengths)  # (tokens,)
    stride = int(contexts.ends.max(initial=0)) + 2**20  # beyond any character of a context
    starts = np.maximum.accumulate(contexts.starts + number * stride)
    ends = np.minimum.accumulate((contexts.ends + number * stride)[::-1])[::-1]
    return starts, ends, stride
