"""Blocks hold every record once, in order, and end where the records say."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qa_core import blocks
from qa_core.reading import ReadBlock, ReadingRules, read_blocks, read_examples
from qa_core.schemas import EXAMPLES, REJECTIONS


def write_rows(file: Path, contexts: list[str]) -> str:
    """JSON lines of an unanswerable question for each context; a blank one is a bad record."""
    rows = [{"id": n, "context": c, "question": "?", "answers": []} for n, c in enumerate(contexts)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def lengths(file: str, examples_per_block: int) -> list[tuple[int, int]]:
    """Examples and rejections of each block."""
    read = read_blocks(file, examples_per_block=examples_per_block)
    return [(len(block.examples), len(block.rejections)) for block in read]


@pytest.mark.parametrize(
    ("contexts", "expected"),
    [
        ("aaabbb", [(3, 0), (3, 0)]),
        ("abcdef", [(3, 0), (3, 0)]),
        ("aabbbb", [(6, 0)]),  # the fourth has the context of the third, until twice as many
        ("aabbbbb", [(6, 0), (1, 0)]),
        ("aabbbbc", [(6, 0), (1, 0)]),
        ("aabbbc", [(5, 0), (1, 0)]),
        ("aaa ", [(3, 1)]),
        ("aaa  b", [(3, 2), (1, 0)]),  # rejections belong to the block in which they were met
        ("   aaab", [(3, 3), (1, 0)]),
        ("  ", [(0, 2)]),
    ],
)
def test_a_block_ends_before_another_context(
    tmp_path: Path, contexts: str, expected: list[tuple[int, int]]
) -> None:
    """Questions about one context stay together, so that it is tokenized once."""
    assert lengths(write_rows(tmp_path / "a.jsonl", list(contexts)), 3) == expected


def test_long_contexts_end_a_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Distinct ones by what their tokens take, repeated ones by what the table takes; in bytes."""
    monkeypatch.setattr(blocks, "DISTINCT_CONTEXT_BYTES", 10)
    file = write_rows(tmp_path / "a.jsonl", ["abcd", "efgh", "abcd", "éé", "ij", "kl"])
    assert lengths(file, 100) == [(4, 0), (2, 0)]
    monkeypatch.setattr(blocks, "CONTEXT_BYTES", 6)
    assert lengths(file, 100) == [(2, 0), (2, 0), (2, 0)]


def test_a_source_of_bad_records_comes_in_blocks_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of another kind must not fill the memory with its rejections."""
    monkeypatch.setattr(blocks, "REJECTIONS_PER_BLOCK", 4)
    file = write_rows(tmp_path / "a.jsonl", [*(" " * 10), "a"])
    assert lengths(file, 3) == [(0, 4), (0, 4), (1, 2)]


@settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # each example overwrites the file
)
@given(contexts=st.lists(st.sampled_from("ab "), min_size=1), size=st.integers(1, 5))
def test_blocks_joined_are_the_whole(tmp_path: Path, contexts: list[str], size: int) -> None:
    """None lost, none twice, in order; numbers, sizes and schemas as promised; and again so."""
    file = write_rows(tmp_path / "a.jsonl", contexts)
    read = list(read_blocks(file, examples_per_block=size))
    examples, rejections = read_examples(file)
    numbers = np.concatenate([block.records for block in read]).tolist()
    assert pa.concat_tables([block.examples for block in read]) == examples
    assert pa.concat_tables([block.rejections for block in read]) == rejections
    assert examples["id"].to_pylist() == [str(number) for number in numbers]
    assert sorted([*numbers, *rejections["record"].to_pylist()]) == list(range(len(contexts)))
    assert all(len(block.examples) <= 2 * size for block in read)
    assert all(len(block.examples) >= size for block in read[:-1])
    again = list(read_blocks(file, examples_per_block=size))
    assert [block.examples for block in again] == [block.examples for block in read]


def assert_is_block(block: ReadBlock) -> None:
    """Check schemas and types."""
    assert block.examples.schema == EXAMPLES
    assert block.rejections.schema == block.repairs.schema == REJECTIONS
    assert block.records.dtype == np.int64
    assert len(block.records) == len(block.examples)


def test_a_repair_is_listed_with_its_record(tmp_path: Path) -> None:
    """Old and new text and start; the example has the new; without the option it is rejected."""
    context = "It  opened\u00a0in May, Zoe\u0308 says."
    answers: list[Any] = [
        {"text": "opened in", "answer_start": 3},
        {"text": "May", "answer_start": 14},
        {"text": "Zo\u00eb", "answer_start": 19},
    ]
    rows = [{"id": f"q{n}", "context": context, "question": "?"} for n in range(3)]
    rows[1]["answers"] = answers
    file = tmp_path / "a.json"
    file.write_text(json.dumps(rows))
    (block,) = read_blocks(
        str(file), rules=ReadingRules(repair_offsets=True), examples_per_block=10
    )
    assert_is_block(block)
    assert block.examples["answers"].to_pylist()[1] == {
        "text": ["opened\u00a0in", "May", "Zoe\u0308"],
        "answer_start": [4, 14, 19],
    }
    shared = {"source": str(file), "record": 1, "id": "q1"}
    assert block.repairs.to_pylist() == [
        {
            **shared,
            "reason": "white space",
            "detail": r"[1]: answers[0]: 'opened in' at 3 → 'opened\xa0in' at 4",
        },
        {
            **shared,
            "reason": "Unicode normalisation",
            "detail": "[1]: answers[2]: 'Zoë' at 19 → 'Zoe\u0308' at 19",
        },
    ]
    examples, rejections = read_examples(file)
    assert examples["id"].to_pylist() == ["q0", "q2"]
    assert rejections["detail"].to_pylist() == [
        r"[1]: answers[0]: expected 'opened in' at character 3, found ' opened\xa0i' "
        r"(data.repair_offsets would repair it: 'opened in' at 3 → 'opened\xa0in' at 4)"
    ]


def test_an_empty_block_is_not_given(tmp_path: Path) -> None:
    """Every block has a record; its tables have their schemas also without a row."""
    (block,) = read_blocks(write_rows(tmp_path / "a.jsonl", [" "]), examples_per_block=1)
    assert_is_block(block)
    assert (len(block.examples), len(block.rejections), len(block.repairs)) == (0, 1, 0)
