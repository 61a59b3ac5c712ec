"""feed: windows of many blocks of tokens, filled when they are asked for."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from qa_core.alignment import NO_ANSWERS
from qa_core.features import EncodedExamples, LabelledWindows, fill_features
from qa_core.labelling import NO_SPANS, LabelSpans, join_spans
from qa_core.schemas import FEATURES


@dataclass(frozen=True)
class WindowBlock:
    """Examples with their tokens, and the windows to be had of them."""

    ids: pa.ChunkedArray  # of the examples
    encoded: EncodedExamples
    planned: LabelledWindows


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
