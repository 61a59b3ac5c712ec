"""The work of `jobs.prepare` that runs on the cluster: read a source, make a shard's features."""

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from jobs.prepared import cached_tokenizer, shard_file
from qa_core.features import encode_examples, find_unfit, roomless_detail, window_examples
from qa_core.reading import read_source, reject_rows
from qa_core.schemas import REJECTIONS
from qa_core.storage import write_table

EXAMPLES_PER_SHARD = 512  # a few seconds of work, so that workers end together
DUPLICATE = "duplicate id"
DUPLICATE_DETAIL = "an earlier record, perhaps of another source, has this id and is kept"
ROOMLESS = "question leaves no room"


def shard_name(source: int, block: int) -> str:
    """Name of a block of a source; names sort as blocks stand in the data."""
    return f"{source:03d}-{block:05d}"


@ray.remote  # type: ignore[untyped-decorator]  # Ray's types do not hold under strict
def read_blocks(source: str, number: int) -> Iterator[Any]:
    """A source in blocks of `EXAMPLES_PER_SHARD`, then its ids and rejections.

    Each block is an examples table with two more columns: its shard's name and each example's
    record number in the source.
    """
    examples, rejections, records = read_source(source)
    for block, first in enumerate(range(0, len(examples), EXAMPLES_PER_SHARD)):
        table = examples.slice(first, EXAMPLES_PER_SHARD)
        shard = pa.array([shard_name(number, block)] * len(table))
        record = pa.array(records[first : first + len(table)], pa.int64())
        yield table.append_column("shard", shard).append_column("record", record)
    yield {"ids": examples["id"].to_pylist(), "rejections": rejections}


def make_shard(
    block: pa.Table,
    *,
    folder: str,
    tokenizer: str,
    max_length: int,
    doc_stride: int,
    repeated: dict[str, list[int]],
) -> pa.Table:
    """Write one block's examples and features; a row that says what is in them.

    `repeated` names, for each shard, the rows whose id stands in an earlier record.
    """
    shard = block["shard"][0].as_py()
    records, examples = block["record"].to_pylist(), block.drop_columns(["shard", "record"])
    fast_tokenizer = cached_tokenizer(tokenizer)
    encoded = encode_examples(examples, tokenizer=fast_tokenizer)
    unfit = find_unfit(encoded, max_length=max_length, doc_stride=doc_stride).tolist()
    duplicates = repeated.get(shard, [])
    reasons = {
        row: (ROOMLESS, roomless_detail(encoded, row, max_length, doc_stride)) for row in unfit
    }
    reasons |= dict.fromkeys(duplicates, (DUPLICATE, DUPLICATE_DETAIL))
    rejections = [
        reject_rows(examples, [row], records=records, reason=reason, detail=detail)
        for row, (reason, detail) in sorted(reasons.items())
    ]
    if reasons:
        kept = [row for row in range(len(examples)) if row not in reasons]
        examples = examples.take(pa.array(kept, pa.int64()))
        encoded = encode_examples(examples, tokenizer=fast_tokenizer)
    features = window_examples(examples, encoded, max_length=max_length, doc_stride=doc_stride)
    write_table(shard_file(folder, "examples", shard), examples)
    write_table(shard_file(folder, "features", shard), features)
    return _shard_row(shard, examples, features, rejections)


def _shard_row(
    shard: str, examples: pa.Table, features: pa.Table, rejections: list[pa.Table]
) -> pa.Table:
    texts = examples["answers"].combine_chunks().field("text")
    row = {
        "shard": shard,
        "num_examples": len(examples),
        "num_unanswerable": int((np.asarray(texts.value_lengths()) == 0).sum()),
        "num_features": len(features),
        "num_tokens": int(pc.sum(pc.list_value_length(features["input_ids"])).as_py() or 0),
        "context_digests": sorted(
            {digest_text(text) for text in pc.unique(examples["context"]).to_pylist()}
        ),
        "rejections": [row for table in rejections for row in table.to_pylist()],
    }
    return pa.Table.from_pylist([row], schema=SHARD_ROW)


SHARD_ROW = pa.schema(
    [
        ("shard", pa.string()),
        ("num_examples", pa.int64()),
        ("num_unanswerable", pa.int64()),
        ("num_features", pa.int64()),
        ("num_tokens", pa.int64()),
        ("context_digests", pa.list_(pa.int64())),
        ("rejections", pa.list_(pa.struct(list(REJECTIONS)))),
    ]
)


def digest_text(text: str) -> int:
    """Eight bytes of a text's digest, as a signed number."""
    content = hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest()
    return int.from_bytes(content, "big", signed=True)
