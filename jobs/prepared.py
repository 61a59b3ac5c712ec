"""Prepared data: examples and their features in shards on storage, named by a digest.

Folder `storage_path/prepared/DIGEST/`: `examples-SHARD.arrow`, `features-SHARD.arrow`,
`rejections.jsonl` and, written last, `manifest.json`. The digest is of the sources' names and
content, the tokenizer, max_length, doc_stride and the version of the features.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import pyarrow as pa

from jobs.models import local_model
from qa_core.schemas import REJECTIONS
from qa_core.storage import is_file, join, read_bytes, read_table, write_bytes
from qa_core.tokenizing import load_tokenizer

MANIFEST = "manifest.json"
REJECTED = "rejections.jsonl"


@dataclass(frozen=True)
class Prepared:
    """One prepared data set; `load_prepared` reads it from its folder."""

    folder: str
    tokenizer: str  # folder or Hub name
    max_length: int
    doc_stride: int
    shards: tuple[str, ...]  # in the order of the sources
    num_read: int  # records, accepted and rejected
    num_rejected: int
    num_examples: int
    num_unanswerable: int
    num_features: int
    num_tokens: int  # in all features, without padding
    context_digests: tuple[int, ...] = ()  # 8 bytes of digest a distinct context

    @property
    def has_unanswerable(self) -> bool:
        """Whether answers need a null threshold (SQuAD v2.0)."""
        return self.num_unanswerable > 0


def save_prepared(prepared: Prepared) -> None:
    """Write the manifest: the data set counts as complete from here on."""
    text = json.dumps(asdict(prepared), indent=1)
    write_bytes(join(prepared.folder, MANIFEST), text.encode())


def load_prepared(folder: str) -> Prepared | None:
    """The data set in `folder`; None where it is not there or not complete."""
    if not is_file(join(folder, MANIFEST)):
        return None
    values = json.loads(read_bytes(join(folder, MANIFEST)))
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return Prepared(**{**values, "folder": folder})


def read_rejections(prepared: Prepared) -> pa.Table:
    """The records that could not be used."""
    # Lines end at \n alone: an id may hold another of the line ends that str.splitlines knows.
    lines = read_bytes(join(prepared.folder, REJECTED)).split(b"\n")[:-1]
    return pa.Table.from_pylist([json.loads(line) for line in lines], schema=REJECTIONS)


def shard_file(folder: str, kind: str, shard: str) -> str:
    """Path of one shard's examples, features or answers."""
    return join(folder, f"{kind}-{shard}.arrow")


def read_features(prepared: Prepared, columns: Sequence[str]) -> pa.Table:
    """These columns of all features, in order; mapped, not loaded, from local storage."""
    tables = [
        read_table(shard_file(prepared.folder, "features", shard)).select(list(columns))
        for shard in prepared.shards
    ]
    return pa.concat_tables(tables)


@lru_cache(maxsize=2)
def cached_tokenizer(name_or_path: str) -> Any:
    """The tokenizer, loaded once a process."""
    return load_tokenizer(local_model(name_or_path))
