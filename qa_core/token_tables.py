"""Tokens on storage: encoded examples ↔ two Arrow tables that are mapped, not loaded."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from qa_core.alignment import AnswerSpans, answer_characters
from qa_core.features import EncodedExamples
from qa_core.schemas import EXAMPLES, STORED_EXAMPLES
from qa_core.schemas import TOKENS as TOKENS_SCHEMA
from qa_core.tokenizing import PairTemplate, Tokens

TOKENS_VERSION = 1  # part of the digest of stored tokens: raise it when their content changes


def encoded_to_tables(
    examples: pa.Table, records: NDArray[np.int64], encoded: EncodedExamples
) -> tuple[pa.Table, pa.Table]:
    """Tables of `STORED_EXAMPLES` and `TOKENS`; `records` numbers the examples in their source."""
    texts, spans = encoded.texts, encoded.spans
    columns = {
        **{name: examples[name] for name in EXAMPLES.names},
        "context": examples["context"].combine_chunks().dictionary_encode(),
        "record": pa.array(records, pa.int64()),
        "context_text": pa.array(encoded.context_of, pa.int32()),
        "question_text": pa.array(encoded.question_of, pa.int32()),
        "start_tokens": _int_lists(spans.splits, spans.start_token),
        "end_tokens": _int_lists(spans.splits, spans.end_token),
    }
    stored = pa.table({name: columns[name] for name in STORED_EXAMPLES.names}, STORED_EXAMPLES)
    pairs = pa.FixedSizeListArray.from_arrays(pa.array(texts.offsets.reshape(-1)), 2)
    offsets = pa.ListArray.from_arrays(pa.array(texts.splits, pa.int32()), pairs)
    tokens = {"input_ids": _int_lists(texts.splits, texts.ids), "offset_mapping": offsets}
    return stored, pa.table(tokens, schema=TOKENS_SCHEMA)


def encoded_from_tables(
    stored: pa.Table, tokens: pa.Table, *, template: PairTemplate
) -> EncodedExamples:
    """The inverse of `encoded_to_tables`; token arrays are views of the table's memory."""
    ids = tokens["input_ids"].combine_chunks()
    splits = ids.offsets.to_numpy().astype(np.int64)
    offsets = tokens["offset_mapping"].combine_chunks().values.values.to_numpy().reshape(-1, 2)
    characters = answer_characters(stored["answers"])
    spans = AnswerSpans(*characters, _flat(stored["start_tokens"]), _flat(stored["end_tokens"]))
    return EncodedExamples(
        Tokens(ids.values.to_numpy(), offsets, splits),
        stored["context_text"].to_numpy().astype(np.int64),
        stored["question_text"].to_numpy().astype(np.int64),
        spans,
        template,
    )


def plain_examples(stored: pa.Table) -> pa.Table:
    """The examples of `STORED_EXAMPLES` as `EXAMPLES`."""
    return stored.select(EXAMPLES.names).cast(EXAMPLES)


def _int_lists(splits: NDArray[np.int64], values: NDArray[Any]) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(splits, pa.int32()), pa.array(values, pa.int32()))


def _flat(column: pa.ChunkedArray) -> NDArray[np.int64]:
    return np.asarray(column.combine_chunks().flatten()).astype(np.int64)
