"""feed: windows of many blocks of tokens, filled when they are asked for."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from qa_core.alignment import NO_ANSWERS
from qa_core.features import EncodedExamples, LabelledWindows, fill_features
from qa_core.labelling import NO_SPANS, LabelSpans, join_spans, single_spans
from qa_core.schemas import FEATURES
from qa_core.tokenizing import concatenated_ranges, splits_of
from qa_core.windowing import fill_windows


@dataclass(frozen=True)
class WindowBlock:
    """Examples with their tokens, and the windows to be had of them."""

    ids: pa.ChunkedArray  # of the examples
    encoded: EncodedExamples
    planned: LabelledWindows
    # A teacher's start and end logits (tokens,) of the windows, one after another.
    teacher: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None


@dataclass(frozen=True)
class TokenWindows:
    """What a model is trained on: the tokens of some windows, one after another, and labels."""

    splits: NDArray[np.int64]  # (windows + 1,)
    input_ids: NDArray[np.int32]  # (tokens,)
    token_type_ids: NDArray[np.int8]  # (tokens,)
    spans: LabelSpans
    is_null: NDArray[np.bool_]  # (windows,) whether labelled "no answer"
    teacher: NDArray[np.float32] | None = None  # (2, tokens)

    def take(self, rows: NDArray[np.int64]) -> "TokenWindows":
        """The windows at `rows`, in that order."""
        counts = np.diff(self.splits)[rows]
        token = concatenated_ranges(self.splits[rows], counts)
        return TokenWindows(
            splits_of(counts),
            self.input_ids[token],
            self.token_type_ids[token],
            self.spans.take(rows),
            self.is_null[rows],
            None if self.teacher is None else self.teacher[:, token],
        )


def table_windows(features: pa.Table, rows: NDArray[np.int64]) -> TokenWindows:
    """The windows at `rows` of a table of `qa_core.schemas.FEATURES`."""
    picked = features.take(pa.array(rows)).combine_chunks()
    ids, types = (picked[name].combine_chunks() for name in ("input_ids", "token_type_ids"))
    start, end, cls_index = (
        picked[name].to_numpy() for name in ("start_positions", "end_positions", "cls_index")
    )
    return TokenWindows(
        splits_of(np.asarray(ids.value_lengths())),
        np.asarray(ids.flatten()),
        np.asarray(types.flatten()),
        single_spans(start, end),
        np.asarray(start == cls_index, np.bool_),
    )


class WindowFeed:
    """Windows of all blocks in order, numbered from 0.

    A window costs some fifty bytes of memory until `take` fills it, or seventy where all answers
    are labels; tokens stay where the blocks have them, which for mapped tables is the file.
    """

    def __init__(self, blocks: Iterable[WindowBlock]) -> None:
        # Answers were needed to label; from here on they would only take memory.
        self.blocks = [
            replace(block, encoded=replace(block.encoded, spans=NO_ANSWERS)) for block in blocks
        ]
        counts = [len(block.planned.layout.length) for block in self.blocks]
        self.firsts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)  # (blocks + 1,)
        lengths = [block.planned.layout.length for block in self.blocks]
        self.lengths = np.concatenate([np.zeros(0, np.int64), *lengths])  # (windows,) tokens

    def __len__(self) -> int:
        return len(self.lengths)

    def take(self, rows: NDArray[np.int64]) -> pa.Table:
        """The windows at `rows`, in that order: `qa_core.schemas.FEATURES`."""
        parts, order = self._by_block(rows)
        tables = [_fill(block, block.planned.take(within)) for block, within in parts]
        return pa.concat_tables([FEATURES.empty_table(), *tables]).take(pa.array(order))

    def windows(self, rows: NDArray[np.int64]) -> TokenWindows:
        """The windows at `rows`, in that order, as training takes them."""
        parts, order = self._by_block(rows)
        filled = [_token_windows(block, within) for block, within in parts]
        has_teacher = all(part.teacher is not None for part in filled)
        joined = TokenWindows(
            splits_of(np.concatenate([np.diff(part.splits) for part in filled])),
            np.concatenate([part.input_ids for part in filled]),
            np.concatenate([part.token_type_ids for part in filled]),
            join_spans([part.spans for part in filled]),
            np.concatenate([part.is_null for part in filled]),
            np.concatenate([part.teacher for part in filled], axis=1) if has_teacher else None,
        )
        return joined.take(order)

    def label_spans(self, rows: NDArray[np.int64]) -> LabelSpans:
        """The spans that the windows at `rows` are labelled with, in that order."""
        parts, order = self._by_block(rows)
        spans = [block.planned.label_spans(within) for block, within in parts]
        return join_spans([NO_SPANS, *spans]).take(order)

    def _by_block(
        self, rows: NDArray[np.int64]
    ) -> tuple[list[tuple[WindowBlock, NDArray[np.int64]]], NDArray[np.int64]]:
        """`rows` as rows within each block that has any, and what puts those back in order."""
        block = np.searchsorted(self.firsts, rows, side="right") - 1  # (rows,)
        parts, places = [], [np.zeros(0, np.int64)]
        for number in np.unique(block):
            place = np.flatnonzero(block == number)
            parts.append((self.blocks[number], rows[place] - self.firsts[number]))
            places.append(place)
        return parts, np.argsort(np.concatenate(places))


def _fill(block: WindowBlock, planned: LabelledWindows) -> pa.Table:
    return fill_features(block.encoded, planned, ids=block.ids)


def _token_windows(block: WindowBlock, rows: NDArray[np.int64]) -> TokenWindows:
    """The windows of one block at `rows`, in that order."""
    planned, encoded = block.planned.take(rows), block.encoded
    filled = fill_windows(
        planned.windows,
        encoded.texts,
        question_of=encoded.question_of,
        context_of=encoded.context_of,
        template=encoded.template,
    )
    teacher = None
    if block.teacher is not None:
        firsts = splits_of(block.planned.layout.length.astype(np.int64))[rows]
        token = concatenated_ranges(firsts, planned.layout.length.astype(np.int64))
        teacher = np.stack([logits[token] for logits in block.teacher])
    return TokenWindows(
        filled.splits,
        filled.input_ids,
        filled.token_type_ids,
        block.planned.label_spans(rows),
        planned.is_null,
        teacher,
    )
