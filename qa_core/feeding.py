"""feed: windows of many blocks of tokens, filled when they are asked for."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from qa_core.alignment import NO_ANSWERS
from qa_core.features import EncodedExamples, LabelledWindows, fill_features
from qa_core.schemas import FEATURES


@dataclass(frozen=True)
class WindowBlock:
    """Examples with their tokens, and the windows to be had of them."""

    ids: pa.ChunkedArray  # of the examples
    encoded: EncodedExamples
    planned: LabelledWindows


class WindowFeed:
    """Windows of all blocks in order, numbered from 0.

    A window costs some fifty bytes of memory until `take` fills it; tokens stay where the blocks
    have them, which for mapped tables is the file.
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
        block = np.searchsorted(self.firsts, rows, side="right") - 1  # (rows,)
        tables, places = [FEATURES.empty_table()], [np.zeros(0, np.int64)]
        for number in np.unique(block):
            place = np.flatnonzero(block == number)
            tables.append(self._fill(self.blocks[number], rows[place] - self.firsts[number]))
            places.append(place)
        return pa.concat_tables(tables).take(pa.array(np.argsort(np.concatenate(places))))

    def _fill(self, block: WindowBlock, rows: NDArray[np.int64]) -> pa.Table:
        return fill_features(block.encoded, block.planned.take(rows), ids=block.ids)
