"""Tokens survive storage, and windows are the same however they are asked for."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from qa_core.features import (
    EncodedExamples,
    build_features,
    encode_examples,
    fill_features,
    label_examples,
)
from qa_core.feeding import WindowBlock, WindowFeed
from qa_core.schemas import FEATURES, STORED_EXAMPLES, TOKENS
from qa_core.storage import read_table, write_table
from qa_core.token_tables import encoded_from_tables, encoded_to_tables, plain_examples
from qa_core.tokenizing import PairEncoder
from tests.families import FAMILIES
from tests.tiny import TEXTS, make_examples, train_tokenizer

SIZES = {"max_length": 40, "doc_stride": 8}


def some_examples() -> pa.Table:
    """Twelve questions over four contexts: no answer, one, several, an answer that is cut."""
    long = " ".join(TEXTS)
    rows = []
    for number, context in enumerate([*TEXTS[:3], long]):
        middle = len(context) // 2
        rows += [
            {"context": context, "question": f"Who is {number}?", "answers": [(context[:5], 0)]},
            {"context": context, "question": "  When?", "answers": []},
            {
                "context": context,
                "question": "What?",
                "answers": [(context[middle:], middle), (context[3:9], 3)],
            },
        ]
    return make_examples(rows)


@cache
def tokenizer_of(family: str) -> Any:
    """One training for each family: another one may break ties another way."""
    return train_tokenizer(family)


def encode(examples: pa.Table, family: str) -> EncodedExamples:
    """The examples' tokens."""
    return encode_examples(examples, encoder=PairEncoder.of(tokenizer_of(family)))


def store(examples: pa.Table, encoded: EncodedExamples, folder: Path) -> tuple[pa.Table, pa.Table]:
    """Both tables, written and mapped again."""
    tables = encoded_to_tables(examples, np.arange(len(examples)) + 100, encoded)
    files = [str(folder / name) for name in ("examples.arrow", "tokens.arrow")]
    for file, table in zip(files, tables, strict=True):
        write_table(file, table)
    stored, tokens = map(read_table, files)
    return stored, tokens


@pytest.mark.parametrize("family", FAMILIES)
def test_stored_tokens_give_the_features_of_the_texts(family: str, tmp_path: Path) -> None:
    """Any window size from one encoding, through files, equals a build from the texts."""
    examples = some_examples()
    encoded = encode(examples, family)
    stored, tokens = store(examples, encoded, tmp_path)
    assert (stored.schema, tokens.schema) == (STORED_EXAMPLES, TOKENS)
    assert plain_examples(stored).equals(examples)
    assert stored["record"].to_pylist() == list(range(100, 112))
    found = encoded_from_tables(stored, tokens, template=encoded.template)
    for max_length, doc_stride in ((40, 8), (64, 0), (128, 32)):
        sizes = {"max_length": max_length, "doc_stride": doc_stride}
        features = fill_features(found, label_examples(found, **sizes), ids=stored["id"])
        expected = build_features(examples, tokenizer=tokenizer_of(family), **sizes)
        assert features.equals(expected)


def test_every_accepted_answer_is_aligned_once(tmp_path: Path) -> None:
    """All answers of an example have their tokens, kept in storage, in order."""
    examples = some_examples()
    encoded = encode(examples, "wordpiece")
    assert encoded.spans.counts.tolist() == [1, 0, 2] * 4
    stored, tokens = store(examples, encoded, tmp_path)
    spans = encoded_from_tables(stored, tokens, template=encoded.template).spans
    for name in ("splits", "start_char", "end_char", "start_token", "end_token"):
        assert np.array_equal(getattr(spans, name), getattr(encoded.spans, name))
    texts = examples["answers"].combine_chunks().field("text").flatten().to_pylist()
    contexts = examples["context"].to_pylist()
    for answer, (text, row) in enumerate(zip(texts, spans.example, strict=True)):
        first = encoded.texts.splits[encoded.context_of[row]]
        start = encoded.texts.offsets[first + spans.start_token[answer], 0]
        end = encoded.texts.offsets[first + spans.end_token[answer], 1]
        assert text in contexts[row][start:end]


def test_a_repeated_context_is_stored_and_tokenized_once() -> None:
    """Three questions a context: its text and its tokens are there once."""
    examples = some_examples()
    encoded = encode(examples, "wordpiece")
    num_special = encoded.template.num_special_tokens
    num_questions = 4 + 2  # "When?" and "What?" are asked of every context
    assert len(encoded.texts.lengths) == num_special + 4 + num_questions
    stored, _ = encoded_to_tables(examples, np.arange(len(examples)), encoded)
    assert len(stored["context"].combine_chunks().dictionary) == 4


@pytest.mark.parametrize("family", ["wordpiece", "unigram_left"])
def test_a_feed_gives_any_windows_of_any_blocks(family: str) -> None:
    """Taken one by one, backwards or with repeats, over blocks: rows of the whole table."""
    examples = some_examples()
    whole = build_features(examples, tokenizer=tokenizer_of(family), **SIZES)
    blocks = []
    for first in range(0, len(examples), 5):
        part = examples.slice(first, 5)
        encoded = encode(part, family)
        blocks.append(WindowBlock(part["id"], encoded, label_examples(encoded, **SIZES)))
    feed = WindowFeed(blocks)
    assert len(feed) == len(whole) > len(examples)
    assert feed.lengths.tolist() == [len(ids) for ids in whole["input_ids"].to_pylist()]
    for rows in ([0], [len(feed) - 1, 0, 7], [3, 3], list(range(len(feed)))[::-1], []):
        taken = feed.take(np.array(rows, np.int64))
        assert taken.schema == FEATURES
        assert taken.equals(whole.take(pa.array(rows, pa.int64())))


def test_an_empty_table_has_no_windows() -> None:
    """No examples, no windows, no error."""
    encoded = encode(some_examples().slice(0, 0), "wordpiece")
    planned = label_examples(encoded, **SIZES)
    assert (
        len(WindowFeed([WindowBlock(pa.chunked_array([[]], pa.string()), encoded, planned)])) == 0
    )
