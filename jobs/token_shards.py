"""The work of `jobs.prepare` that runs on the cluster: read a source, make a shard's tokens."""

import hashlib
import struct
import time
from collections.abc import Container, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from numpy.typing import NDArray

from jobs.token_store import FACTS, cached_encoder, read_facts, shard_file, shard_name
from qa_core.features import encode_examples
from qa_core.reading import ReadBlock, ReadingRules, read_blocks, reject_rows
from qa_core.schemas import EXAMPLES
from qa_core.storage import read_table, table_from_bytes, table_to_bytes, write_table
from qa_core.token_tables import encoded_to_tables

EXAMPLES_PER_SHARD = 512  # a tenth of a second to tokenize, half a minute of a CPU's inference
DUPLICATE = "duplicate id"
DUPLICATE_DETAIL = "an earlier record, perhaps of another source, has this id and is kept"

# A shard's texts on their way from the task that reads to one that tokenizes.
SHARD_TEXTS = pa.schema(
    [
        ("shard", pa.string()),
        ("examples", pa.large_binary()),  # Arrow file; null where the shard is on storage already
        ("records", FACTS.field("records").type),
        ("rejections", FACTS.field("rejections").type),
        ("repairs", FACTS.field("repairs").type),
        ("read_seconds", pa.float64()),
    ]
)


def read_shards(
    sources: pa.Table, *, rules: ReadingRules, done: Container[str]
) -> Iterator[pa.Table]:
    """The shards of sources (rows of `source` and `number`), each one row of `SHARD_TEXTS`."""
    for row in sources.to_pylist():
        started = time.perf_counter()
        blocks = read_blocks(row["source"], rules=rules, examples_per_block=EXAMPLES_PER_SHARD)
        for number, block in enumerate(blocks):
            shard = shard_name(row["number"], number)
            texts = {
                "shard": shard,
                "examples": None if shard in done else pack_examples(block),
                "records": block.records.tolist(),
                "rejections": block.rejections.to_pylist(),
                "repairs": block.repairs.to_pylist(),
                "read_seconds": time.perf_counter() - started,
            }
            yield pa.Table.from_pylist([texts], schema=SHARD_TEXTS)
            started = time.perf_counter()


def pack_examples(block: ReadBlock) -> bytes:
    """The examples of a block as an Arrow file, a context with many questions once."""
    place = EXAMPLES.get_field_index("context")
    context = block.examples["context"].combine_chunks().dictionary_encode()
    packed = table_to_bytes(block.examples.set_column(place, "context", context))
    return bytes(packed)


def make_shards(rows: pa.Table, *, folder: str) -> pa.Table:
    """Write examples, tokens and facts of shards that are not there; the names of all."""
    for row in rows.to_pylist():
        if row["examples"] is not None:
            make_shard(row, folder=folder)
    return rows.select(["shard"])


def make_shard(texts: dict[str, Any], *, folder: str) -> None:
    """Tokenize one shard and write it; its facts come last and say that it is whole."""
    shard = texts["shard"]
    examples = table_from_bytes(texts["examples"]).cast(EXAMPLES)
    encoder = cached_encoder(folder)
    started = time.perf_counter()
    encoded = encode_examples(examples, encoder=encoder)
    tokenized = time.perf_counter()
    stored, tokens = encoded_to_tables(examples, np.array(texts["records"], np.int64), encoded)
    write_table(shard_file(folder, "examples", shard), stored)
    write_table(shard_file(folder, "tokens", shard), tokens)
    facts = {
        **{name: texts[name] for name in SHARD_TEXTS.names if name != "examples"},
        **text_facts(examples),
        "num_examples": len(examples),
        "duplicates": [],
        "tokenize_seconds": tokenized - started,
        "write_seconds": time.perf_counter() - tokenized,
    }
    write_table(shard_file(folder, "facts", shard), pa.Table.from_pylist([facts], schema=FACTS))


def text_facts(examples: pa.Table) -> dict[str, Any]:
    """Digests of ids, questions and contexts, and the bytes that were tokenized."""
    contexts, questions = examples["context"].to_pylist(), examples["question"].to_pylist()
    distinct = [*set(contexts), *{question.lstrip() for question in questions}]
    digests = {context: digest_text(context)[0] for context in set(contexts)}
    return {
        "id_digests": [n for text in examples["id"].to_pylist() for n in digest_text(text)],
        "question_digests": [
            digest_text(f"{digests[context]} {question}")[0]
            for context, question in zip(contexts, questions, strict=True)
        ],
        "context_digests": sorted(digests.values()),
        "num_tokenized_bytes": sum(len(text.encode()) for text in distinct),
    }


def digest_text(text: str) -> tuple[int, int]:
    """Sixteen bytes of a text's digest, as two signed numbers."""
    content = hashlib.blake2b(text.encode("utf-8"), digest_size=16).digest()
    return struct.unpack(">2q", content)


@ray.remote  # type: ignore[untyped-decorator]  # Ray's types do not hold under strict
def drop_records(folder: str, shard: str, records: Sequence[int]) -> None:
    """Leave the examples with these record numbers out of a shard, and list them as rejected.

    Done again it changes nothing: the records are gone from the shard, and stay listed.
    """
    stored = read_table(shard_file(folder, "examples", shard))
    is_dropped = pc.is_in(stored["record"], value_set=pa.array(records, pa.int64()))
    rows = np.flatnonzero(np.asarray(is_dropped)).tolist()
    if not rows:
        return
    kept = stored.filter(pc.invert(is_dropped)).combine_chunks()
    facts = read_facts(folder, [shard], FACTS.names).to_pylist()[0]
    duplicates = reject_rows(
        stored,
        rows,
        records=stored["record"].to_pylist(),
        reason=DUPLICATE,
        detail=DUPLICATE_DETAIL,
    )
    facts |= {"duplicates": duplicates.to_pylist(), "num_examples": len(kept)}
    # Facts first: should the run end in between, the next one drops and lists the same records.
    write_table(shard_file(folder, "facts", shard), pa.Table.from_pylist([facts], schema=FACTS))
    write_table(shard_file(folder, "examples", shard), kept)


def find_repeats(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """Places of keys, (n, numbers of a key), that stand at an earlier place too; rising.

    >>> find_repeats(np.array([[7], [5], [7], [7]])).tolist()
    [2, 3]
    """
    firsts = np.sort(keys[:, 0])
    repeated = firsts[1:][firsts[1:] == firsts[:-1]]
    places = np.flatnonzero(np.isin(keys[:, 0], repeated))  # most often none: little memory
    order = np.lexsort(keys[places].T)  # stable: of equal keys the earliest comes first
    is_repeated = np.all(keys[places][order][1:] == keys[places][order][:-1], axis=1)
    return np.sort(places[order[1:][is_repeated]])
