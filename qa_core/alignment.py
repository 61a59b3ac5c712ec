"""align: character spans of answers ↔ inclusive spans of context tokens."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from qa_core.tokenizing import Tokens, concatenated_ranges, splits_of


@dataclass(frozen=True)
class AnswerSpans:
    """Every accepted answer, in characters and in tokens of its context, example by example.

    The answers of example i are `splits[i]` to `splits[i + 1] - 1`; an unanswerable one has none.
    Tokens count from the first of the context.
    """

    splits: NDArray[np.int64]  # (examples + 1,)
    start_char: NDArray[np.int64]  # (answers,)
    end_char: NDArray[np.int64]  # (answers,) half-open
    start_token: NDArray[np.int64]  # (answers,)
    end_token: NDArray[np.int64]  # (answers,) inclusive

    @property
    def counts(self) -> NDArray[np.int64]:
        """Accepted answers of each example, (examples,)."""
        return np.diff(self.splits)

    @property
    def example(self) -> NDArray[np.int64]:
        """Row of the example of each answer, (answers,)."""
        return np.repeat(np.arange(len(self.splits) - 1), self.counts)

    def take(self, rows: NDArray[np.int64]) -> "AnswerSpans":
        """The answers of the examples at `rows`, in that order."""
        counts = self.counts[rows]
        answer = concatenated_ranges(self.splits[:-1][rows], counts)
        columns = (self.start_char, self.end_char, self.start_token, self.end_token)
        return AnswerSpans(splits_of(counts), *(column[answer] for column in columns))


_NONE = np.zeros(0, np.int64)
NO_ANSWERS = AnswerSpans(np.zeros(1, np.int64), _NONE, _NONE, _NONE, _NONE)


def align_answers(
    answers: pa.ChunkedArray, texts: Tokens, context_of: NDArray[np.int64]
) -> AnswerSpans:
    """Where all accepted answers lie in the tokens of their contexts.

    `answers` is the examples' column (struct of lists), `context_of` the number in `texts` of
    each example's context. The start is the last token that begins at or before the answer, the
    end the first that ends at or after it: the rule of the reference recipe (run_qa).

    In the context "Lake Orla" with tokens at characters (0, 4) and (5, 9), the answer "Orla" at
    character 5 is token 1 to 1, and so is "rla" at 6.
    """
    splits, start_char, end_char = answer_characters(answers)
    if not len(start_char):
        return AnswerSpans(splits, start_char, end_char, start_char, end_char)
    number = np.repeat(context_of, np.diff(splits))  # (answers,)
    starts, ends, stride = _rising_keys(texts)
    first = texts.splits[number]
    start_token = np.searchsorted(starts, start_char + number * stride, side="right") - 1 - first
    end_token = np.searchsorted(ends, end_char + number * stride, side="left") - first
    return AnswerSpans(splits, start_char, end_char, start_token, end_token)


def answer_characters(
    answers: pa.ChunkedArray,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Splits over examples, first characters and half-open ends of all accepted answers."""
    column = answers.combine_chunks()
    texts, starts = column.field("text"), column.field("answer_start")
    counts = pc.fill_null(texts.value_lengths(), 0).to_numpy(zero_copy_only=False)
    start_char = starts.flatten().to_numpy(zero_copy_only=False).astype(np.int64)  # (answers,)
    lengths = pc.utf8_length(texts.flatten()).to_numpy(zero_copy_only=False)
    return splits_of(counts.astype(np.int64)), start_char, start_char + lengths


def _rising_keys(texts: Tokens) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Token starts and ends made to rise over all texts, for one search over the block.

    Text k is shifted by k * stride. Inside a text a start that falls back takes the largest
    before it, an end the smallest after it, which is where a walk from the left, or from the
    right, would stop.
    """
    number = np.repeat(np.arange(len(texts.lengths)), texts.lengths)  # (tokens,)
    stride = int(texts.offsets.max(initial=0)) + 2**20  # beyond any character of a text
    starts = np.maximum.accumulate(texts.offsets[:, 0] + number * stride)
    ends = np.minimum.accumulate((texts.offsets[:, 1] + number * stride)[::-1])[::-1]
    return starts, ends, stride
