"""Facts of examples are what counting by hand gives, and groups add up to the whole."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from qa_core.decoding import decode_answers
from qa_core.errors import DataError
from qa_core.schemas import ANSWERED
from qa_core.scoring import gold_texts, score_answers, score_text, summarize_scores
from qa_core.slices import FACTS, TOP_N, example_facts, question_word, slice_scores
from tests.test_decoding import case
from tests.tiny import make_examples


def candidates(*texts: str) -> list[dict[str, Any]]:
    """An n-best list of these texts, scores falling from 5; "" is the null answer."""
    return [
        {
            "text": text,
            "start_char": 0 if text else -1,
            "end_char": len(text) if text else -1,
            "score": 5.0 - rank,
            "probability": 0.0,
        }
        for rank, text in enumerate(texts)
    ]


def answered(lists: list[list[dict[str, Any]]]) -> pa.Table:
    """Decoded answers with these n-best lists; the best span is the answer."""
    rows = []
    for number, n_best in enumerate(lists):
        span = next((entry for entry in n_best if entry["text"]), None)
        null = next((entry for entry in n_best if not entry["text"]), None)
        rows.append(
            {
                "id": f"q{number}",
                "text": span["text"] if span else "",
                "start_char": 0,
                "end_char": 0,
                "score": span["score"] if span else -np.inf,
                "null_score": null["score"] if null else 0.0,
                "n_best": n_best,
            }
        )
    return pa.Table.from_pylist(rows, schema=ANSWERED)


def facts_of(answers: pa.Table, examples: pa.Table, **options: Any) -> pa.Table:
    """Facts with one window and ten context tokens an example, unless said."""
    size = len(examples)
    sizes = {"num_windows": np.ones(size, np.int32), "context_tokens": np.full(size, 10, np.int32)}
    return example_facts(answers, examples, **{**sizes, **options})


EXAMPLES = make_examples(
    [
        {"context": "c", "question": "Who is it?", "answers": [("the red fox", 0), ("fox", 0)]},
        {"context": "c", "question": "In what year?", "answers": [], "source": "other"},
        {"context": "c", "question": "Name it.", "answers": [("1912", 0)]},
        {"context": "c", "question": "Whose is it?", "answers": [("a b c d e f g", 0)]},
    ]
)
ANSWERS = answered(
    [
        candidates("blue dog", "", "red", "Red fox.", "fox"),
        candidates("the", ""),
        candidates(*"abcdefghijklmnopqrst", "x 1912", "y", "1912"),
        [],
    ]
)


def test_facts_of_a_case_counted_by_hand() -> None:
    """Ranks count from 0, the null answer included; nothing found is -1."""
    facts = facts_of(ANSWERS, EXAMPLES)
    assert facts.schema == FACTS
    rows = facts.to_pylist()
    assert [row["question_word"] for row in rows] == ["who", "what", "other", "who"]
    assert [row["answer_words"] for row in rows] == [3, 0, 1, 7]
    assert [row["source"] for row in rows] == ["test", "other", "test", "test"]
    assert [row["null_rank"] for row in rows] == [1, 1, -1, -1]
    assert [row["exact_rank"] for row in rows] == [3, 0, 22, -1]  # "the" normalises to no answer
    assert rows[0]["candidate_scores"] == [5, 4, 3, 2, 1]
    assert rows[3]["candidate_scores"] == []
    assert rows[0]["top_f1"] == pytest.approx([0, 0, 2 / 3, 1, 1, 1])
    assert rows[1]["top_f1"] == [1.0] * 6
    assert rows[2]["top_f1"] == [0.0] * 6  # of 20, not of what comes after
    assert rows[3]["top_f1"] == [0.0] * 6


@pytest.mark.parametrize("mode", ["exact", "reference"])
def test_facts_equal_scoring_every_candidate(mode: Any) -> None:
    """Decoded answers with ties, repeats and null answers: no shortcut changes a rank or an F1."""
    examples, features, start, end = case(1, ties=True)
    golds = [
        [("Orla", 0), ("the river Orla", 0)],
        [],
        [("Orla", 0)],
        [("was opened in", 0)],
        [],
    ]
    pairs = [{"text": [t for t, _ in gold], "answer_start": [s for _, s in gold]} for gold in golds]
    column = pa.array(pairs, examples.schema.field("answers").type)
    examples = examples.set_column(examples.schema.get_field_index("answers"), "answers", column)
    answers = decode_answers(
        features, start, end, examples=examples, mode=mode, n_best=40, null_threshold=np.inf
    )
    rows = facts_of(answers, examples).to_pylist()
    checked = 0
    for row, answer, gold in zip(rows, answers.to_pylist(), gold_texts(examples), strict=True):
        scored = [score_text(entry["text"], gold) for entry in answer["n_best"]]
        right = [rank for rank, (exact, _) in enumerate(scored) if exact]
        assert row["exact_rank"] == (right[0] if right else -1)
        expected = [max(f1 for _, f1 in scored[:n]) for n in TOP_N]
        assert row["top_f1"] == pytest.approx(expected)
        assert answer["n_best"][row["null_rank"]]["start_char"] == -1
        assert row["candidate_scores"] == [entry["score"] for entry in answer["n_best"]]
        checked += len(scored)
    assert checked > 60


@pytest.mark.parametrize(
    ("question", "word"),
    [
        ("What's the name?", "what"),
        ("To WHOM was it sold?", "who"),
        ("On which day, and why?", "which"),
        ("Somewhat whatever?", "other"),
        ("", "other"),
    ],
)
def test_question_word_is_the_first_one_anywhere(question: str, word: str) -> None:
    """Whole words in any case; whose and whom are who."""
    assert question_word(question) == word


def test_chinese_answers_are_counted_in_characters() -> None:
    """Without the language an answer without spaces is one word."""
    examples = make_examples([{"context": "c", "question": "?", "answers": [("北京大学", 0)]}])
    answers = answered([candidates("北京")])
    assert facts_of(answers, examples)["answer_words"].to_pylist() == [1]
    facts = facts_of(answers, examples, language="zh")
    assert facts["answer_words"].to_pylist() == [4]
    assert facts["top_f1"].to_pylist()[0][0] == pytest.approx(2 / 3)


def test_no_examples_have_no_facts() -> None:
    """A shard whose records were all rejected."""
    empty = facts_of(ANSWERS[:0], EXAMPLES[:0])
    assert empty.schema == FACTS
    assert len(empty) == 0


def test_facts_of_other_answers_are_refused() -> None:
    """Answers in another order would put every fact beside the wrong question."""
    with pytest.raises(DataError, match="other ids"):
        facts_of(ANSWERS.slice(0, 3), EXAMPLES)


def test_groups_hold_every_example_once_and_add_up() -> None:
    """The mean of each grouping, weighted, is the whole; empty groups are left out."""
    facts = facts_of(
        ANSWERS,
        EXAMPLES,
        num_windows=np.array([1, 4, 5, 9], np.int32),
        context_tokens=np.array([128, 129, 512, 513], np.int32),
    )
    scores = score_answers(ANSWERS, EXAMPLES)
    slices = slice_scores(scores, facts, null_threshold=None)
    whole = summarize_scores(scores, null_threshold=None)
    assert list(slices) == [
        "question_word",
        "answer_words",
        "context_tokens",
        "num_windows",
        "source",
    ]
    for rows in slices.values():
        assert sum(row["total"] for row in rows) == len(EXAMPLES)
        for name in ("exact", "f1"):
            weighted = sum(row["total"] * row[name] for row in rows) / len(EXAMPLES)
            assert weighted == pytest.approx(whole[name])
    named = {name: [row["slice"] for row in rows] for name, rows in slices.items()}
    assert named["question_word"] == ["who", "what", "other"]
    assert named["answer_words"] == ["no answer", "1", "2-3", "7+"]
    assert named["context_tokens"] == ["1-128", "129-256", "385-512", "513+"]
    assert named["num_windows"] == ["1", "4", "5+"]
    assert named["source"] == ["other", "test"]


def test_groups_score_the_answers_given_after_the_threshold() -> None:
    """Above the threshold the null answer stands, which only the unanswerable question wants."""
    scores = score_answers(ANSWERS, EXAMPLES)
    slices = slice_scores(scores, facts_of(ANSWERS, EXAMPLES), null_threshold=-100.0)
    assert [row["exact"] for row in slices["answer_words"]] == [100, 0, 0, 0]


def test_rows_of_other_examples_are_refused() -> None:
    """Scores are sorted by id; facts that are not would be counted in the wrong group."""
    scores = score_answers(ANSWERS, EXAMPLES)
    with pytest.raises(DataError, match=r"another order.*sorted by id"):
        slice_scores(scores, facts_of(ANSWERS, EXAMPLES)[::-1], null_threshold=None)
