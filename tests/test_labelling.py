"""Labels of all accepted answers equal the reference's, taken one answer at a time."""

from functools import cache
from itertools import pairwise
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from qa_core.alignment import AnswerSpans
from qa_core.features import EncodedExamples, encode_examples, label_examples
from qa_core.feeding import WindowBlock, WindowFeed
from qa_core.labelling import (
    HeldAnswers,
    Labels,
    LabelSpans,
    all_labels,
    join_spans,
    place_answers,
    single_spans,
)
from qa_core.planning import plan_examples
from qa_core.sampling import keep_null_windows
from qa_core.tokenizing import PairEncoder, Tokens
from qa_core.windowing import Layout, Windows
from tests.families import EXTRA_FAMILIES, FAMILIES
from tests.reference import reference_features
from tests.tiny import TEXTS, make_examples, train_tokenizer

Spans = list[list[tuple[int, int]]]  # of each window
SIZES = {"max_length": 40, "doc_stride": 8}


@cache
def tokenizer_of(family: str) -> Any:
    """One training for each family, however many tests ask."""
    return train_tokenizer(family)


def encode(examples: pa.Table, family: str) -> EncodedExamples:
    """The examples' tokens and all their answers."""
    return encode_examples(examples, encoder=PairEncoder.of(tokenizer_of(family)))


@cache
def some_examples(family: str) -> pa.Table:
    """Forty questions with none to five answers: equal, overlapping, far apart, in any order."""
    random, pool = Random(family), " ".join(TEXTS).split(" ")
    rows = []
    for number in range(40):
        context = " ".join(random.choices(pool, k=random.randint(1, 50))) or "Orla"
        starts = [random.randrange(len(context)) for _ in range(random.randint(0, 4))]
        answers = [(context[s : s + random.randint(1, 12)], s) for s in starts]
        if answers and number % 2:
            answers.append(answers[0])
        rows.append({"context": context, "question": "Who?", "answers": answers})
    return make_examples(rows)


def as_lists(spans: LabelSpans) -> Spans:
    """The (start, end) pairs of each window."""
    pairs = list(zip(spans.start.tolist(), spans.end.tolist(), strict=True))
    ends = spans.splits.tolist()
    assert len(pairs) == ends[-1]
    return [pairs[a:b] for a, b in pairwise(ends)]


def reference_spans(example: dict[str, Any], tokenizer: Any) -> tuple[Spans, Spans]:
    """Of each window the spans of the answers it holds, in the record's order; and (cls, cls).

    The reference labels with one answer: it is asked once for each.
    """
    answers = example["answers"]
    single = [
        {**example, "answers": {"text": [text], "answer_start": [start]}}
        for text, start in zip(answers["text"], answers["answer_start"], strict=True)
    ]
    sizes = (SIZES["max_length"], SIZES["doc_stride"])
    windows = reference_features(example, tokenizer, *sizes)
    null = [[(window["cls_index"],) * 2] for window in windows]
    held: Spans = [[] for _ in windows]
    for one in single:
        for number, window in enumerate(reference_features(one, tokenizer, *sizes)):
            span = (window["start_positions"], window["end_positions"])
            if span != null[number][0]:
                held[number].append(span)
    return held, null


@pytest.mark.parametrize("family", [*FAMILIES, *EXTRA_FAMILIES])
def test_all_labels_equal_the_references_answer_by_answer(family: str) -> None:
    """Distinct spans in order; the positions are those of the first answer that is held."""
    examples = some_examples(family)
    planned = label_examples(encode(examples, family), **SIZES, labels="all")
    held, null = [], []
    for example in examples.to_pylist():
        of_example = reference_spans(example, tokenizer_of(family))
        held += of_example[0]
        null += of_example[1]
    assert planned.spans is not None
    assert as_lists(planned.spans) == [sorted(set(h)) or n for h, n in zip(held, null, strict=True)]
    firsts = [(h or n)[0] for h, n in zip(held, null, strict=True)]
    positions = (planned.start_positions.tolist(), planned.end_positions.tolist())
    assert list(zip(*positions, strict=True)) == firsts
    assert planned.is_null.tolist() == [not h for h in held]
    assert (planned.spans.start.dtype, planned.spans.splits.dtype) == (np.int32, np.int64)
    assert any(len(h) > len(set(h)) for h in held), "no answer twice in a window"
    assert any(len(set(h)) > 1 for h in held), "no window with several spans"
    assert any(not h for h in held), "no null window"


def test_some_examples_have_falling_offsets() -> None:
    """The walk over a window's offsets is part of what the test above compares."""
    texts = encode(some_examples("byte_bpe_unprefixed"), "byte_bpe_unprefixed").texts
    offsets = [texts.offsets[first:end] for first, end in pairwise(texts.splits)]
    assert any((np.diff(of_text, axis=0) < 0).any() for of_text in offsets)


def ten_letters(answers: list[tuple[int, int]]) -> tuple[Any, ...]:
    """Two windows, letters 0 to 5 and 4 to 9, over a text of a token a letter; CLS is token 0.

    The context begins at token 3 of a window. Answers are half-open ranges of letters.
    """
    place = np.arange(10, dtype=np.int32)
    texts = Tokens(place, np.stack([place, place + 1], axis=1), np.array([0, 10]))
    columns = ([0, 0], [0, 1], [0, 4], [6, 6])
    windows = Windows(*(np.array(column, np.int32) for column in columns))
    layout = Layout(*(np.full(2, value, np.int32) for value in (10, 3, 0)))
    start, end = np.array(answers, np.int64).reshape(-1, 2).T
    spans = AnswerSpans(np.array([0, len(answers)]), start, end, start, end - 1)
    return windows, layout, spans, texts, np.zeros(1, np.int64)


def held_in_letters(answers: list[tuple[int, int]], labels: Labels) -> tuple[HeldAnswers, Layout]:
    """Which windows hold which answers, with the windows' layout."""
    letters = ten_letters(answers)
    return place_answers(*letters, labels=labels), letters[1]


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([(2, 4)], [[(5, 6)], [(0, 0)]]),
        ([(2, 4), (1, 5), (2, 4)], [[(4, 7), (5, 6)], [(0, 0)]]),  # equal ones count once
        ([(8, 10), (0, 1)], [[(3, 3)], [(7, 8)]]),
        ([(4, 6)], [[(7, 8)], [(3, 4)]]),  # both windows hold it
        ([(3, 8)], [[(0, 0)], [(0, 0)]]),  # neither does
        ([], [[(0, 0)], [(0, 0)]]),
    ],
)
def test_spans_of_a_text_with_a_token_a_letter(
    answers: list[tuple[int, int]], expected: Spans
) -> None:
    """Letter k is token 3 + k of the first window and k - 1 of the second."""
    assert as_lists(all_labels(*held_in_letters(answers, "all"))) == expected


def test_only_the_first_answer_counts_unless_all_are_asked_for() -> None:
    """Of three answers the first alone is placed, and a window without it holds none."""
    answers = [(0, 2), (1, 3), (8, 9)]
    assert held_in_letters(answers, "first")[0].window.tolist() == [0]
    assert held_in_letters(answers, "all")[0].window.tolist() == [0, 0, 1]


@pytest.mark.parametrize("family", ["wordpiece", "byte_bpe_unprefixed", "unigram_left"])
def test_first_labels_know_nothing_of_further_answers(family: str) -> None:
    """The default labels as run_qa does: as if each example had its first answer alone."""
    rows = some_examples(family).to_pylist()
    assert any(len(row["answers"]["text"]) > 1 for row in rows)
    for row in rows:
        answers = zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True)
        row["answers"] = list(answers)[:1]
    found = label_examples(encode(some_examples(family), family), **SIZES)
    expected = label_examples(encode(make_examples(rows), family), **SIZES, labels="first")
    assert found.spans is expected.spans is None
    assert np.array_equal(found.start_positions, expected.start_positions)
    assert np.array_equal(found.end_positions, expected.end_positions)


ROWS = ([0], [9, 0, 7, 7], [], list(range(30))[::-1])


def test_taken_windows_take_their_spans_along() -> None:
    """In the order asked for, with repeats; windows without spans stay without."""
    encoded = encode(some_examples("wordpiece"), "wordpiece")
    planned = label_examples(encoded, **SIZES, labels="all")
    assert planned.spans is not None
    whole = as_lists(planned.spans)
    for rows in ROWS:
        taken = planned.take(np.array(rows, np.int64))
        assert taken.spans is not None
        assert as_lists(taken.spans) == [whole[row] for row in rows]
        assert len(taken.start_positions) == len(rows)
    assert label_examples(encoded, **SIZES).take(np.arange(3)).spans is None


@pytest.mark.parametrize("labels", ["first", "all"])
def test_a_feed_gives_the_spans_of_any_windows_of_any_blocks(labels: Labels) -> None:
    """Whatever the blocks and the order; where the first answer counts, one span a window."""
    examples = some_examples("wordpiece")
    whole = label_examples(encode(examples, "wordpiece"), **SIZES, labels=labels)
    positions = (whole.start_positions.tolist(), whole.end_positions.tolist())
    expected = [[span] for span in zip(*positions, strict=True)]
    if whole.spans is not None:
        expected = as_lists(whole.spans)
        assert max(map(len, expected)) > 1
    blocks = []
    for first in range(0, len(examples), 7):
        part = examples.slice(first, 7)
        encoded = encode(part, "wordpiece")
        planned = label_examples(encoded, **SIZES, labels=labels)
        blocks.append(WindowBlock(part["id"], encoded, planned))
    feed = WindowFeed(blocks)
    assert len(feed) == len(expected)
    for rows in (*ROWS, list(range(len(feed))), list(range(len(feed)))[::-2]):
        found = feed.label_spans(np.array(rows, np.int64))
        assert as_lists(found) == [expected[row] for row in rows]


def test_spans_are_joined_one_part_after_another() -> None:
    """Parts without a window add none."""
    one = single_spans(np.array([4, 5], np.int32), np.array([6, 7], np.int32))
    other = LabelSpans(np.array([0, 2]), np.array([1, 2], np.int32), np.array([3, 3], np.int32))
    none = one.take(np.zeros(0, np.int64))
    found = join_spans([none, one, none, other])
    assert as_lists(found) == [[(4, 6)], [(5, 7)], [(1, 3), (2, 3)]]
    assert as_lists(join_spans([none])) == []


def test_null_windows_hold_none_of_the_answers() -> None:
    """Sampling and plans count as null what has no label: with all answers, fewer windows."""
    examples = some_examples("wordpiece")
    encoded = encode(examples, "wordpiece")
    keys = np.arange(len(examples))
    kept, num_null = {}, {}
    for labels in ("first", "all"):
        planned = label_examples(encoded, **SIZES, labels=labels)
        kept[labels] = set(keep_null_windows(planned, keys, fraction=0, seed=0).tolist())
        num_null[labels] = plan_examples(examples, encoded, **SIZES, labels=labels).num_null_windows
        assert len(kept[labels]) == len(planned.is_null) - num_null[labels]
    assert kept["first"] < kept["all"]
    assert num_null["all"] > 0


def test_nothing_in_nothing_out() -> None:
    """No examples have no spans."""
    encoded = encode(some_examples("wordpiece").slice(0, 0), "wordpiece")
    spans = label_examples(encoded, **SIZES, labels="all").spans
    assert spans is not None
    assert as_lists(spans) == []
