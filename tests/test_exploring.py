"""Answers kept for the page: all of small data, the same part of large data whatever the order."""

from itertools import permutations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qa_core.exploring import (
    CONTEXT_CHARACTERS,
    TEXT_CHARACTERS,
    Explorer,
    context_keys,
    explored_rows,
    shown_part,
    shown_text,
)
from qa_core.schemas import EXPLORED
from qa_core.scoring import score_given
from qa_core.slices import text_facts
from tests.pages import make_examples


def rows_of(examples: pa.Table, texts: dict[str, str] | None = None) -> pa.Table:
    """Rows of answers that are known as texts alone: the first accepted answer, or none."""
    ids = examples["id"].to_pylist()
    golds = examples["answers"].to_pylist()
    first = {i: (g["text"] or [""])[0] for i, g in zip(ids, golds, strict=True)}
    given = score_given(texts or first, examples)
    order = pa.array(np.argsort(given.ids, kind="stable"))
    answers = pa.table({"answer": [(texts or first)[name] for name in ids]})
    facts = text_facts(examples).take(order)
    return explored_rows(examples, answers, given=given.take(order.to_numpy()), facts=facts)


def collect(explorer: Explorer, parts: list[pa.Table]) -> pa.Table:
    """The explorer's table after these parts of the data."""
    for part in parts:
        kept = part.filter(pa.array(explorer.wanted(part["context"])))
        if len(kept):
            explorer.add(rows_of(kept))
    return explorer.table()


def test_small_data_is_shown_whole() -> None:
    """A row a question, with its places in the context, scores and groups."""
    examples = make_examples(23)
    table = collect(Explorer(), [examples])
    assert table.schema.equals(EXPLORED)
    assert table["id"].to_pylist() == examples["id"].to_pylist()
    for row, example in zip(table.to_pylist(), examples.to_pylist(), strict=True):
        places = zip(row["gold_starts"], row["gold_ends"], strict=True)
        texts = [row["context"][a:b] for a, b in places]
        assert texts == example["answers"]["text"][:1]
        assert row["exact"] == 1
        if row["start"] >= 0:
            assert row["context"][row["start"] : row["end"]] == row["answer"]
        assert row["num_windows"] is None


@settings(deadline=None, max_examples=25)
@given(st.integers(5, 60), st.integers(300, 4000), st.integers(0, 5))
def test_the_part_of_large_data_follows_from_its_contexts(
    max_questions: int, max_characters: int, seed: int
) -> None:
    """Neither the order of the parts nor how they are cut decides; no context is shown in part."""
    examples = make_examples(80, words=20, seed=seed)
    parts = [examples.slice(0, 15), examples.slice(15, 25), examples.slice(40, 40)]
    tables = [
        collect(Explorer(max_questions, max_characters), list(order))
        for order in permutations(parts)
    ]
    assert all(table.equals(tables[0]) for table in tables)
    table = tables[0]
    assert table.schema.metadata[b"num_questions"] == b"80"
    assert table.schema.metadata == tables[-1].schema.metadata
    by_key: dict[int, int] = {}
    for key in context_keys(examples["context"]):
        by_key[key] = by_key.get(key, 0) + 1
    shown = table["context_key"].to_pylist()
    assert all(shown.count(key) == by_key[key] for key in set(shown))
    below = int(table.schema.metadata[b"below"])
    assert sorted(set(shown)) == sorted(key for key in by_key if key < below)
    if len(set(shown)) > 1:
        assert len(table) <= max_questions


def test_a_long_context_is_shown_around_the_answer() -> None:
    """As many characters as fit, none beyond its ends; places stay those of the whole."""
    context = "".join(chr(97 + n % 26) for n in range(3 * CONTEXT_CHARACTERS))
    for place in (0, CONTEXT_CHARACTERS, len(context) - 1):
        text, first = shown_part(context, place)
        assert len(text) == CONTEXT_CHARACTERS
        assert context[first : first + len(text)] == text
        assert first <= place < first + len(text)
    assert shown_part("short", 3) == ("short", 0)
    assert shown_text("a" * (TEXT_CHARACTERS + 1234)).endswith("(1,234 characters more)")


def test_a_given_text_has_a_place_where_it_stands_once() -> None:
    """Else it has none, and is shown as text alone."""
    row = {"id": "q", "title": "", "context": "a b a", "question": "?", "source": "s"}
    example = {**row, "answers": {"text": ["b"], "answer_start": [2]}}
    examples = pa.Table.from_pylist([example], schema=make_examples(1).schema)
    for text, place in (("b", 2), ("a", -1), ("", -1), ("none of it", -1)):
        [found] = rows_of(examples, {"q": text}).to_pylist()
        assert (found["answer"], found["start"]) == (text, place)


@pytest.mark.parametrize("is_encoded", [False, True])
def test_keys_follow_from_the_text(is_encoded: bool) -> None:
    """However the column is stored."""
    column = pa.chunked_array([["a", "b", "a"], ["b"]])
    plain = context_keys(column)
    keys = context_keys(column.dictionary_encode() if is_encoded else column)
    assert keys == plain
    assert plain[0] == plain[2] != plain[1] == plain[3]
