"""A source in blocks: tables of examples, rejections and repairs, of bounded size.

Where a block ends depends on the records alone, so that a source is cut the same way every time.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from qa_core.checking import CheckedExample, RejectedError, check_record, id_text
from qa_core.records import DEFAULT_RULES, ReadingRules
from qa_core.schemas import ANSWERS, EXAMPLES, REJECTIONS
from qa_core.sources import iterate_records

DISTINCT_CONTEXT_BYTES = 2**25  # of a block: what its tokens take grows with it
CONTEXT_BYTES = 2**28  # of a block, a context counted for each of its examples
LONGEST_ID = 1000  # characters of a rejected record's id that are listed
REJECTIONS_PER_BLOCK = 2**16  # a source of bad records alone must not fill the memory


@dataclass(frozen=True)
class ReadBlock:
    """Consecutive records of a source: those that can be used, the others, and what was mended."""

    examples: pa.Table  # schemas.EXAMPLES
    records: NDArray[np.int64]  # (examples,) number of each in its source, rejected ones counted
    rejections: pa.Table  # schemas.REJECTIONS
    repairs: pa.Table  # schemas.REJECTIONS; reason: one of qa_core.repairs


def read_blocks(
    source: str, *, rules: ReadingRules = DEFAULT_RULES, examples_per_block: int
) -> Iterator[ReadBlock]:
    """The records of one source (a file, `datasets` folder, hub: or embedded:) in blocks.

    From `examples_per_block` examples on, a block ends before the first example of another
    context than the last, and at twice as many at the latest; also where it holds over 32 MiB
    of distinct contexts, 256 MiB of contexts with repetition, or 65,536 rejections. A rejection
    is in the block during which it was met; a block may hold rejections alone. Ids may repeat.
    Holds one block and one record.

    Raises `DataError` or `StorageError` where the source cannot be read, or breaks off: blocks
    given before were good.
    """
    block = _Block(source)
    context = None
    for number, record in enumerate(iterate_records(source, rules)):
        try:
            example = check_record(record, rules, known_context=context)
        except RejectedError as rejected:
            block.reject(number, record.fields.get("id"), record.place, *rejected.args)
            if len(block.rejections) == REJECTIONS_PER_BLOCK:
                yield block.finish()
                block = _Block(source)
            continue
        if block.is_full(example.context == context, examples_per_block):
            yield block.finish()
            block = _Block(source)
        context = example.context
        block.add(number, example, record.place)
    if block.numbers or block.rejections:
        yield block.finish()


@dataclass
class _Block:
    """A block while it is filled."""

    source: str
    numbers: list[int] = field(default_factory=list)
    examples: list[CheckedExample] = field(default_factory=list)
    rejections: list[dict[str, Any]] = field(default_factory=list)
    repairs: list[dict[str, Any]] = field(default_factory=list)
    contexts: dict[str, int] = field(default_factory=dict)  # → bytes
    distinct_bytes: int = 0
    context_bytes: int = 0

    def is_full(self, is_same_context: bool, examples_per_block: int) -> bool:
        """Whether the next example begins another block."""
        length = len(self.numbers)
        return (
            length >= 2 * examples_per_block
            or (length >= examples_per_block and not is_same_context)
            or self.distinct_bytes > DISTINCT_CONTEXT_BYTES
            or self.context_bytes > CONTEXT_BYTES
        )

    def add(self, number: int, example: CheckedExample, place: str) -> None:
        self.numbers.append(number)
        self.examples.append(example)
        size = self.contexts.get(example.context)
        if size is None:
            size = len(example.context.encode("utf-8"))
            self.contexts[example.context] = size
            self.distinct_bytes += size
        self.context_bytes += size
        for reason, detail in example.repairs:
            self.repairs.append(self._row(number, example.id, reason, f"{place}: {detail}"))

    def reject(self, number: int, example_id: Any, place: str, reason: str, detail: str) -> None:
        self.rejections.append(self._row(number, id_text(example_id), reason, f"{place}: {detail}"))

    def finish(self) -> ReadBlock:
        return ReadBlock(
            examples=_examples_table(self.examples, self.source),
            records=np.array(self.numbers, np.int64),
            rejections=pa.Table.from_pylist(self.rejections, schema=REJECTIONS),
            repairs=pa.Table.from_pylist(self.repairs, schema=REJECTIONS),
        )

    def _row(self, number: int, example_id: str, reason: str, detail: str) -> dict[str, Any]:
        return {
            "source": self.source,
            "record": number,
            "id": example_id,
            "reason": reason,
            "detail": detail,
        }


def _examples_table(examples: list[CheckedExample], source: str) -> pa.Table:
    """The table, built column by column: a dictionary a row would cost as much as the checks."""
    columns = list(zip(*examples, strict=True)) or [()] * len(CheckedExample._fields)
    ids, titles, contexts, questions, texts, starts, _ = columns
    offsets = pa.array([0, *accumulate(map(len, texts))], pa.int32())
    answers = [
        pa.ListArray.from_arrays(offsets, pa.array([t for ts in texts for t in ts], pa.string())),
        pa.ListArray.from_arrays(offsets, pa.array([s for ss in starts for s in ss], pa.int32())),
    ]
    values = [
        *(pa.array(column, pa.string()) for column in (ids, titles, contexts, questions)),
        pa.StructArray.from_arrays(answers, fields=list(ANSWERS)),
        pa.array([source] * len(ids), pa.string()),
    ]
    return pa.Table.from_arrays(values, schema=EXAMPLES)
