"""Tokens of a split: sources → shards on storage, through Ray Data.

One task reads a file, a shard at a time, while others tokenize; then the shards are looked at as a
whole, for what no task of one shard can see: ids and questions that repeat.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from jobs.cluster import available_resources
from jobs.token_shards import drop_records, find_repeats, make_shards, read_shards
from jobs.token_store import (
    CONTEXTS,
    REJECTED,
    REMARKS,
    TokenStore,
    cached_tokenizer,
    find_done,
    flat_records,
    read_facts,
    read_numbers,
    save_encoder,
    save_store,
    shard_file,
)
from qa_core.errors import DataError
from qa_core.reading import ReadingRules, in_source_order, reject_rows
from qa_core.storage import file_bytes, is_file, join, read_table, write_json_lines, write_table
from qa_core.tokenizing import PairEncoder

BLOCK_BYTES = 2**20  # of texts in a task: half a second of tokenizing, ten times a task's own cost
TEXTS_IN_FLIGHT = 2**28  # bytes of shards that were read and wait to be tokenized
LISTED = ("shard", "num_examples", "num_tokenized_bytes", "rejections", "repairs", "duplicates")
REPEATED_QUESTION = "question asked twice of one context"


@dataclass(frozen=True)
class Split:
    """One split's data: where it is, how it is read, and a digest of its content."""

    name: str  # train or dev
    sources: tuple[str, ...]  # single files, local ones as absolute paths
    rules: ReadingRules
    max_rejected_fraction: float
    digest: str


def make_tokens(split: Split, folder: str, model: str) -> TokenStore:
    """Read and tokenize what is not in `folder` yet; write the lists and the manifest."""
    encoder = PairEncoder.of(cached_tokenizer(model))
    save_encoder(folder, encoder)
    shards = _run_pipeline(split, folder)
    repeated = _repeats(folder, shards, "id_digests", numbers_of_key=2)
    ray.get([drop_records.remote(folder, shard, rows) for shard, rows in repeated.items()])
    facts = read_facts(folder, shards, LISTED)
    rejected = [flat_records(facts, "rejections"), flat_records(facts, "duplicates")]
    rejections = in_source_order(rejected, split.sources)
    remarks = in_source_order(
        [flat_records(facts, "repairs"), *_repeated_questions(folder, shards)], split.sources
    )
    write_json_lines(join(folder, REJECTED), rejections.to_pylist())
    write_json_lines(join(folder, REMARKS), remarks.to_pylist())
    contexts = np.concatenate([_NONE, *read_numbers(folder, shards, "context_digests")])
    write_table(join(folder, CONTEXTS), pa.table({"digest": np.unique(contexts)}))
    num_examples = int(pc.sum(facts["num_examples"]).as_py() or 0)
    if not num_examples:
        raise DataError(
            f"no usable question ({len(rejections)} records rejected)",
            where=f"data.{split.name}",
            expected="at least one",
            remedy=f"see {join(folder, REJECTED)}",
        )
    kept = facts.filter(pc.greater(facts["num_examples"], 0))
    store = TokenStore(
        folder=folder,
        tokenizer=model,
        template=encoder.template,
        shards=tuple(kept["shard"].to_pylist()),
        num_read=num_examples + len(rejections),
        num_rejected=len(rejections),
        num_remarks=len(remarks),
        num_tokenized_bytes=int(pc.sum(facts["num_tokenized_bytes"]).as_py()),
    )
    save_store(store)
    return store


def _run_pipeline(split: Split, folder: str) -> list[str]:
    """Make all shards that are missing; the names of all, in order."""
    context = ray.data.DataContext.get_current().copy()
    context.target_max_block_size = BLOCK_BYTES
    # Holding the reader back takes a fifth of the speed on two cores; small data needs none of it.
    context.op_resource_reservation_enabled = not _is_small(split.sources)
    context.execution_options.resource_limits = context.execution_options.resource_limits.copy(
        object_store_memory=TEXTS_IN_FLIGHT
    )
    files = [{"source": file, "number": n} for n, file in enumerate(split.sources)]
    num_cpus = int(available_resources().get("CPU", 1))
    with ray.data.DataContext.current(context):
        shards = (
            ray.data.from_items(files, override_num_blocks=len(files))
            .map_batches(
                partial(read_shards, rules=split.rules, done=frozenset(find_done(folder))),
                batch_size=1,
                batch_format="pyarrow",
                compute=ray.data.TaskPoolStrategy(size=max(1, num_cpus // 4)),  # files read at once
            )
            .map_batches(
                partial(make_shards, folder=folder),
                batch_size=None,
                batch_format="pyarrow",
            )
        )
        return sorted(row["shard"] for row in shards.take_all())


def _is_small(sources: Sequence[str]) -> bool:
    """Whether all texts may lie in memory at once; not where nobody knows how many there are."""
    texts = [source for source in sources if not source.startswith("embedded:")]
    if any(source.endswith((".gz", ".parquet")) or not is_file(source) for source in texts):
        return False
    return sum(file_bytes(source) for source in texts) <= TEXTS_IN_FLIGHT


def _repeats(
    folder: str, shards: Sequence[str], column: str, *, numbers_of_key: int
) -> dict[str, list[int]]:
    """Record numbers of each shard whose key, a column of digests, an earlier record has.

    Holds one column of all shards at a time: 8 or 16 bytes an example.
    """
    keys = np.concatenate([_NONE, *read_numbers(folder, shards, column)])
    places = find_repeats(keys.reshape(-1, numbers_of_key))
    if not len(places):
        return {}
    records = read_numbers(folder, shards, "records")
    shard_of = np.repeat(np.arange(len(shards)), [len(own) for own in records])[places]
    record = np.concatenate(records)[places]
    return {shards[n]: record[shard_of == n].tolist() for n in np.unique(shard_of).tolist()}


_NONE = np.zeros(0, np.int64)


def _repeated_questions(folder: str, shards: Sequence[str]) -> Iterator[pa.Table]:
    """Remarks on records whose context and question an earlier record has, shard by shard."""
    repeated = _repeats(folder, shards, "question_digests", numbers_of_key=1)
    for shard, records in repeated.items():
        stored = read_table(shard_file(folder, "examples", shard))
        is_repeated = pc.is_in(stored["record"], value_set=pa.array(records, pa.int64()))
        rows = np.flatnonzero(np.asarray(is_repeated)).tolist()  # none where its id was repeated
        yield reject_rows(
            stored,
            rows,
            records=stored["record"].to_pylist(),
            reason=REPEATED_QUESTION,
            detail="an earlier record asks the same of the same context; both are used",
        )
