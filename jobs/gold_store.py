"""Normalised gold answers, beside the tokens: made once, for all scores of all models."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from jobs.token_store import TokenStore, shard_file
from qa_core.normalizing import Language
from qa_core.scoring import normalized_golds
from qa_core.storage import is_file, read_table, write_table
from qa_core.token_tables import plain_examples


def read_golds(
    store: TokenStore, shard: str, rows: NDArray[np.int64], *, language: Language | None
) -> Sequence[Sequence[str]]:
    """`qa_core.scoring.normalized_golds` of these rows of a shard's examples."""
    file = shard_file(store.folder, f"golds-{language or 'official'}", shard)
    if not is_file(file):
        stored = read_table(shard_file(store.folder, "examples", shard))
        golds = normalized_golds(plain_examples(stored), language=language)
        write_table(file, pa.table({"golds": pa.array(golds, pa.list_(pa.string()))}))
    found: list[list[str]] = read_table(file)["golds"].take(pa.array(rows)).to_pylist()
    return found
