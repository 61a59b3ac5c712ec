"""Tokens on storage: examples and their tokens in shards, named by a digest.

Folder `storage_path/prepared/DIGEST/`: first `encoder.json`; for each shard
`examples-SHARD.arrow`, `tokens-SHARD.arrow` and, written last, `facts-SHARD.arrow`; for all
together `rejections.jsonl`, `remarks.jsonl`, `contexts.arrow` and, written last, `manifest.json`.
The digest is of the sources' names and content, how they are read, the tokenizer and the version
of the tokens: window sizes are not in it.
"""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tokenizers import Tokenizer

from jobs.models import model_texts
from qa_core.features import EncodedExamples
from qa_core.schemas import REJECTIONS
from qa_core.storage import (
    is_file,
    join,
    list_files,
    read_bytes,
    read_columns,
    read_table,
    write_bytes,
)
from qa_core.token_tables import encoded_from_tables
from qa_core.tokenizing import PairEncoder, PairTemplate, load_tokenizer

ENCODER = "encoder.json"
MANIFEST = "manifest.json"
REJECTED = "rejections.jsonl"
REMARKS = "remarks.jsonl"
CONTEXTS = "contexts.arrow"
FILES_AT_ONCE = 16  # small files read side by side: on object storage each is a wait

_RECORDS = pa.list_(pa.struct(list(REJECTIONS)))

# What the job's own process must know of a shard, one row: some thirty bytes an example.
FACTS = pa.schema(
    [
        ("shard", pa.string()),
        ("num_examples", pa.int64()),  # those in `duplicates` left out
        ("num_tokenized_bytes", pa.int64()),  # UTF-8 bytes of the distinct texts
        ("records", pa.list_(pa.int64())),  # of each example, also of those in `duplicates`
        ("id_digests", pa.list_(pa.int64())),  # likewise, two numbers each
        ("question_digests", pa.list_(pa.int64())),  # likewise, of context and question
        ("context_digests", pa.list_(pa.int64())),  # of each distinct context
        ("rejections", _RECORDS),
        ("repairs", _RECORDS),  # records that were used, and what was changed in them
        ("duplicates", _RECORDS),  # records left out when all shards were there
        ("read_seconds", pa.float64()),
        ("tokenize_seconds", pa.float64()),
        ("write_seconds", pa.float64()),
    ]
)


@dataclass(frozen=True)
class TokenStore:
    """Tokens of one split; `load_store` reads it from its folder."""

    folder: str
    tokenizer: str  # folder or Hub name
    template: PairTemplate
    shards: tuple[str, ...]  # in the order of the sources; those that have examples
    num_read: int  # records, accepted and rejected
    num_rejected: int
    num_remarks: int
    num_tokenized_bytes: int


def save_store(store: TokenStore) -> None:
    """Write the manifest: the tokens count as complete from here on."""
    write_bytes(join(store.folder, MANIFEST), json.dumps(asdict(store), indent=1).encode())


def load_store(folder: str, tokenizer: str) -> TokenStore | None:
    """The tokens in `folder`, None where they are not there or not complete.

    `tokenizer` names the one they were made with where it is now, perhaps in another folder.
    """
    if not is_file(join(folder, MANIFEST)):
        return None
    values = with_tuples(json.loads(read_bytes(join(folder, MANIFEST))))
    template = PairTemplate(**with_tuples(values["template"]))
    return TokenStore(**{**values, "folder": folder, "tokenizer": tokenizer, "template": template})


def with_tuples(values: dict[str, Any]) -> dict[str, Any]:
    """Values read from JSON, with tuples where JSON has lists."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}


def shard_name(source: int, block: int) -> str:
    """Name of a block of a source; names sort as blocks stand in the data."""
    return f"{source:04d}-{block:06d}"


def shard_file(folder: str, kind: str, shard: str) -> str:
    """Path of one shard's examples, tokens, facts or answers."""
    return join(folder, f"{kind}-{shard}.arrow")


def find_done(folder: str) -> list[str]:
    """Shards in `folder` that are whole, sorted."""
    names = [file.rpartition("/")[2] for file in list_files(folder)]
    facts = [name for name in names if name.startswith("facts-") and name.endswith(".arrow")]
    return [name.removeprefix("facts-").removesuffix(".arrow") for name in facts]


def read_facts(folder: str, shards: Sequence[str], columns: Sequence[str]) -> pa.Table:
    """These columns of the facts of `shards`, a row a shard, in their order.

    They are copied out of each file's table, which takes more memory than most facts.
    """
    schema = pa.schema([FACTS.field(name) for name in columns])
    rows = _read_each(folder, shards, columns, lambda table: table.to_pylist()[0])
    return pa.Table.from_pylist(rows, schema=schema)


def read_numbers(folder: str, shards: Sequence[str], column: str) -> list[NDArray[np.int64]]:
    """A column of lists of numbers of the facts, an array a shard."""

    def numbers(table: pa.Table) -> NDArray[np.int64]:
        return np.array(table.column(0).combine_chunks().flatten())

    return _read_each(folder, shards, [column], numbers)


def _read_each(
    folder: str, shards: Sequence[str], columns: Sequence[str], take: Callable[[pa.Table], Any]
) -> list[Any]:
    """What `take` makes of the facts of each shard."""
    with ThreadPoolExecutor(FILES_AT_ONCE) as threads:
        return list(
            threads.map(
                lambda shard: take(read_columns(shard_file(folder, "facts", shard), columns)),
                shards,
            )
        )


def flat_records(facts: pa.Table, column: str) -> pa.Table:
    """A column of lists of records, one list after another: a table of `REJECTIONS`."""
    return pa.Table.from_struct_array(facts[column].combine_chunks().flatten()).cast(REJECTIONS)


def read_shard(store: TokenStore, shard: str) -> tuple[pa.Table, EncodedExamples]:
    """Examples (`STORED_EXAMPLES`) and tokens of a shard, mapped where storage is local."""
    stored = read_table(shard_file(store.folder, "examples", shard))
    tokens = read_table(shard_file(store.folder, "tokens", shard))
    return stored, encoded_from_tables(stored, tokens, template=store.template)


@lru_cache(maxsize=2)
def cached_tokenizer(name_or_path: str) -> Any:
    """The tokenizer, loaded once a process."""
    return load_tokenizer(model_texts(name_or_path))


def save_encoder(folder: str, encoder: PairEncoder) -> None:
    """Write what makes the tokens of `folder`, for tasks that need no more of a model."""
    values = {
        "tokenizer": encoder.backend.to_str(),
        "encode_special_tokens": encoder.backend.encode_special_tokens,
        "template": asdict(encoder.template),
    }
    write_bytes(join(folder, ENCODER), json.dumps(values).encode())


@lru_cache(maxsize=2)
def cached_encoder(folder: str) -> PairEncoder:
    """What makes the tokens of `folder`, loaded once a process, without importing transformers."""
    values = json.loads(read_bytes(join(folder, ENCODER)))
    backend = Tokenizer.from_str(values["tokenizer"])
    backend.encode_special_tokens = values["encode_special_tokens"]
    return PairEncoder(backend, PairTemplate(**with_tuples(values["template"])))
