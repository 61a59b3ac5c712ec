"""read: sources → examples + rejections. Accepted + rejected = read, in the order of the sources.

What a source can be says `qa_core.sources`, what is checked of a record `qa_core.checking`; here
a source becomes blocks of tables, however large it is.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qa_core.blocks import ReadBlock, read_blocks
from qa_core.errors import DataError
from qa_core.records import DEFAULT_RULES, ReadingRules
from qa_core.schemas import EXAMPLES, REJECTIONS
from qa_core.sources import expand_source

__all__ = [
    "ReadBlock",
    "ReadingRules",
    "check_rejected_fraction",
    "count_reasons",
    "find_repeated_ids",
    "in_source_order",
    "read_blocks",
    "read_examples",
    "reject_rows",
]

REJECTIONS_SHOWN = 5  # of a source's rejections in an error text
EXAMPLES_PER_BLOCK = 4096  # where blocks are joined again


def read_examples(
    paths: str | Path | Sequence[str | Path], *, rules: ReadingRules = DEFAULT_RULES
) -> tuple[pa.Table, pa.Table]:
    """The examples of all sources and the records that cannot be used, each with its reason.

    Returns two tables, `qa_core.schemas.EXAMPLES` and `REJECTIONS`. Of records with the same id,
    also in different sources, the first is kept. Holds all examples in memory.

    Raises `DataError` or `StorageError` for a source that is missing, empty or of another format;
    a bad record in a good source never raises.
    """
    given = [str(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]
    sources = [file for source in given for file in expand_source(source)]
    examples, rejected, records = _read_sources(sources, rules)
    repeated = find_repeated_ids(examples["id"].to_pylist())
    dropped = set(repeated)
    duplicates = reject_rows(
        examples, repeated, records=records, reason="duplicate id", detail="kept: its first record"
    )
    keep = pa.array([row not in dropped for row in range(len(examples))], pa.bool_())
    return examples.filter(keep), in_source_order([rejected, duplicates], sources)


def _read_sources(
    sources: Sequence[str], rules: ReadingRules
) -> tuple[pa.Table, pa.Table, list[int]]:
    blocks: list[ReadBlock] = []
    for source in sources:
        blocks += read_blocks(source, rules=rules, examples_per_block=EXAMPLES_PER_BLOCK)
    examples = pa.concat_tables([EXAMPLES.empty_table(), *(block.examples for block in blocks)])
    rejected = pa.concat_tables([REJECTIONS.empty_table(), *(b.rejections for b in blocks)])
    return examples, rejected, [n for block in blocks for n in block.records.tolist()]


def in_source_order(rejections: Sequence[pa.Table], sources: Sequence[str]) -> pa.Table:
    """All rejections in the order of the sources and of the records in each."""
    table = pa.concat_tables([REJECTIONS.empty_table(), *rejections])
    place = pc.index_in(table["source"], value_set=pa.array(sources, pa.string()))
    order = np.lexsort((table["record"].to_numpy(), place.to_numpy()))
    return table.take(pa.array(order))


def find_repeated_ids(ids: Sequence[str]) -> list[int]:
    """Rows whose id an earlier row has.

    >>> find_repeated_ids(["a", "b", "a"])
    [2]
    """
    seen: set[str] = set()
    repeated = []
    for row, example_id in enumerate(ids):
        if example_id in seen:
            repeated.append(row)
        seen.add(example_id)
    return repeated


def reject_rows(
    examples: pa.Table, rows: Sequence[int], *, records: Sequence[int], reason: str, detail: str
) -> pa.Table:
    """Rejections, all for the same reason, of the examples at `rows`.

    `records` holds each example's record number in its source.
    """
    picked = examples.take(pa.array(rows, pa.int64()))
    columns = {
        "source": picked["source"],
        "record": pa.array([records[row] for row in rows], pa.int64()),
        "id": picked["id"],
        "reason": pa.array([reason] * len(rows), pa.string()),
        "detail": pa.array([detail] * len(rows), pa.string()),
    }
    return pa.table(columns, schema=REJECTIONS)


def count_reasons(rejections: pa.Table) -> dict[str, int]:
    """Number of rejections for each reason, most frequent first."""
    counts = pc.value_counts(rejections["reason"]).to_pylist()
    ordered = sorted(counts, key=lambda pair: (-pair["counts"], pair["values"]))
    return {pair["values"]: pair["counts"] for pair in ordered}


def check_rejected_fraction(
    rejections: pa.Table,
    *,
    num_read: int,
    max_fraction: float,
    listed_in: str = "the rejections table",
) -> None:
    """Raise `DataError` when more than `max_fraction` of the records read were rejected."""
    if not len(rejections) or len(rejections) / num_read <= max_fraction:
        return
    reasons = ", ".join(f"{reason}: {n}" for reason, n in count_reasons(rejections).items())
    rows = rejections.slice(0, REJECTIONS_SHOWN).to_pylist()
    shown = "; ".join(f"{row['source']} {row['detail']}" for row in rows)
    raise DataError(
        f"{len(rejections)} of {num_read} records cannot be used ({reasons}). First: {shown}",
        where=str(rows[0]["source"]),
        expected=f"at most {max_fraction:.1%} bad records",
        remedy=f"mend the data ({listed_in} lists all), or raise data.max_rejected_fraction",
    )
