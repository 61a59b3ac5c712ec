"""The handwritten questions keep the promises that other tests build on."""

import importlib.resources
import json
import unicodedata
from typing import Any

import pytest

# Passages below this length fit one window of 384 tokens; every one above it needs several.
# (MiniLM's tokenizer gives the shortest long passage 515 tokens.)
LONG_CONTEXT_CHARACTERS = 2_200


@pytest.fixture(scope="module")
def dataset() -> dict[str, Any]:
    """The whole file as JSON, read the way an installed package reads it."""
    path = importlib.resources.files("qa_core").joinpath("embedded", "handwritten.json")
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


@pytest.fixture(scope="module")
def contexts(dataset: dict[str, Any]) -> list[str]:
    """Every passage, in file order."""
    return [
        paragraph["context"] for article in dataset["data"] for paragraph in article["paragraphs"]
    ]


@pytest.fixture(scope="module")
def examples(dataset: dict[str, Any]) -> list[dict[str, Any]]:
    """Every question in file order, with its passage beside it as `context`."""
    return [
        {**qa, "context": paragraph["context"]}
        for article in dataset["data"]
        for paragraph in article["paragraphs"]
        for qa in paragraph["qas"]
    ]


@pytest.fixture(scope="module")
def answers(examples: list[dict[str, Any]]) -> list[tuple[str, str, int]]:
    """Every accepted answer as (context, text, answer_start)."""
    return [
        (example["context"], answer["text"], answer["answer_start"])
        for example in examples
        for answer in example["answers"]
    ]


def utf16_units(text: str) -> int:
    """Length of `text` as JavaScript and Java count it: a character beyond the BMP counts twice."""
    return len(text.encode("utf-16-le")) // 2


def test_file_has_the_layout_of_squad_v2(dataset: dict[str, Any]) -> None:
    """A missing or surplus key would make this file easier to read than the real one."""
    assert set(dataset) == {"version", "data"}
    assert dataset["version"] == "v2.0"
    num_answers = 0
    for article in dataset["data"]:
        assert set(article) == {"title", "paragraphs"}
        for paragraph in article["paragraphs"]:
            assert set(paragraph) == {"context", "qas"}
            for qa in paragraph["qas"]:
                assert set(qa) == {"id", "question", "answers", "is_impossible"}
                for answer in qa["answers"]:
                    assert set(answer) == {"text", "answer_start"}
                    num_answers += 1
    assert num_answers > 100


def test_every_answer_start_points_at_its_text(answers: list[tuple[str, str, int]]) -> None:
    """Offsets count Unicode code points from the start of the context, whatever precedes them."""
    num_checked = 0
    for context, text, answer_start in answers:
        assert context[answer_start : answer_start + len(text)] == text
        num_checked += 1
    assert num_checked > 100


def test_no_answer_is_blank_or_padded(answers: list[tuple[str, str, int]]) -> None:
    """A slice with white space at an end would never equal a span of whole tokens."""
    assert len(answers) > 100
    for _, text, answer_start in answers:
        assert text
        assert text == text.strip()
        assert answer_start >= 0


def test_no_answer_cuts_a_word(answers: list[tuple[str, str, int]]) -> None:
    """An answer found inside a longer word ("12" in "2012") is an offset at the wrong place."""
    num_checked = 0
    for context, text, answer_start in answers:
        answer_end = answer_start + len(text)
        before = context[:answer_start][-1:]
        after = context[answer_end:][:1]
        assert not (before.isalnum() and text[0].isalnum()), (text, before)
        assert not (after.isalnum() and text[-1].isalnum()), (text, after)
        assert not (after and unicodedata.combining(after)), (text, after)
        num_checked += 1
    assert num_checked > 100


def test_number_of_passages_and_questions(
    contexts: list[str], examples: list[dict[str, Any]]
) -> None:
    """Documentation and job defaults quote these numbers; every passage has a question."""
    assert len(contexts) == 14
    assert len(set(contexts)) == 14
    assert len(examples) == 66
    assert {example["context"] for example in examples} == set(contexts)


def test_ids_are_unique_and_run_in_file_order(examples: list[dict[str, Any]]) -> None:
    """Two questions under one id would overwrite each other's prediction."""
    assert examples
    ids = [example["id"] for example in examples]
    assert ids == [f"hand-{number:03d}" for number in range(1, len(examples) + 1)]


def test_a_question_is_impossible_exactly_when_it_has_no_answers(
    examples: list[dict[str, Any]],
) -> None:
    """A contradiction would score a null prediction as right in one metric, wrong in another."""
    assert examples
    for example in examples:
        assert example["is_impossible"] is (len(example["answers"]) == 0), example["id"]


def test_about_a_quarter_of_the_questions_is_unanswerable(
    examples: list[dict[str, Any]],
) -> None:
    """Always answering and never answering must both lose visibly."""
    num_impossible = sum(example["is_impossible"] for example in examples)
    assert 0.2 <= num_impossible / len(examples) <= 0.3


def test_every_passage_has_answerable_and_unanswerable_questions(
    contexts: list[str], examples: list[dict[str, Any]]
) -> None:
    """Answerability must depend on the question; a passage alone must not give it away."""
    assert contexts
    for context in contexts:
        kinds = {example["is_impossible"] for example in examples if example["context"] == context}
        assert kinds == {False, True}, context[:60]


def test_most_answerable_questions_accept_several_spans(examples: list[dict[str, Any]]) -> None:
    """A metric that looks at the first accepted answer only would go unnoticed."""
    answerable = [example for example in examples if not example["is_impossible"]]
    several = [
        example
        for example in answerable
        if len({(answer["text"], answer["answer_start"]) for answer in example["answers"]}) > 1
    ]
    assert answerable
    assert 2 * len(several) >= len(answerable)


def test_some_accepted_answers_are_repeated(examples: list[dict[str, Any]]) -> None:
    """SQuAD's annotators agree, so a reader must keep duplicates apart from distinct answers."""
    repeated = [
        example
        for example in examples
        if len({answer["text"] for answer in example["answers"]}) < len(example["answers"])
    ]
    assert len(repeated) >= 10


def test_the_answer_text_may_occur_earlier_at_a_wrong_place(
    answers: list[tuple[str, str, int]],
) -> None:
    """Locating an answer with `context.find(text)` must come out wrong somewhere."""
    later = [text for context, text, answer_start in answers if context.find(text) < answer_start]
    assert len(set(later)) >= 3
    times = [
        context.count(text)
        for context, text, answer_start in answers
        if context.find(text) < answer_start
    ]
    assert max(times) >= 3


def test_an_answer_begins_at_the_first_character(answers: list[tuple[str, str, int]]) -> None:
    """Index 0 is a position like any other: truthiness on it would lose the answer."""
    assert any(answer_start == 0 for _, _, answer_start in answers)


def test_an_answer_ends_at_the_last_character(answers: list[tuple[str, str, int]]) -> None:
    """A half-open end equal to the length of the context is inside it."""
    assert any(answer_start + len(text) == len(context) for context, text, answer_start in answers)


def test_several_contexts_need_overlapping_windows(contexts: list[str]) -> None:
    """Without long passages the windows and their merging would never be exercised."""
    num_long = sum(len(context) > LONG_CONTEXT_CHARACTERS for context in contexts)
    assert num_long >= 3


def test_long_contexts_have_answers_at_the_beginning_middle_and_end(
    contexts: list[str], answers: list[tuple[str, str, int]]
) -> None:
    """A pipeline that reads the first window only, or drops the last, must lose answers."""
    long_contexts = [context for context in contexts if len(context) > LONG_CONTEXT_CHARACTERS]
    assert len(long_contexts) >= 3
    for context in long_contexts:
        places = [
            answer_start / len(context) for where, _, answer_start in answers if where == context
        ]
        assert min(places) < 0.25, context[:60]
        assert any(0.3 < place < 0.7 for place in places), context[:60]
        assert max(places) > 0.97, context[:60]


def test_some_contexts_have_lines_and_list_items(contexts: list[str]) -> None:
    """Newlines are characters that tokenizers drop, and offsets must count them all the same."""
    assert sum("\n- " in context or "\n1. " in context for context in contexts) >= 2


def test_a_question_begins_with_white_space(examples: list[dict[str, Any]]) -> None:
    """SQuAD has such questions; stripping must not be taken for granted."""
    assert any(example["question"][:1].isspace() for example in examples)
    assert all(example["question"].strip() for example in examples)


def test_contexts_and_answers_contain_non_ascii_text(
    contexts: list[str], answers: list[tuple[str, str, int]]
) -> None:
    """Offsets counted in bytes would pass on ASCII."""
    assert sum(not context.isascii() for context in contexts) >= 8
    assert sum(not text.isascii() for _, text, _ in answers) >= 20


@pytest.mark.parametrize("script", ["LATIN", "GREEK", "CYRILLIC", "ARABIC", "HEBREW", "CJK"])
def test_an_answer_is_written_in_each_script(
    script: str, answers: list[tuple[str, str, int]]
) -> None:
    """Normalisation and tokenization that know one alphabet only would go unnoticed."""
    assert any(
        unicodedata.name(character, "").startswith(script)
        for _, text, _ in answers
        for character in text
    )


def test_byte_and_utf16_offsets_differ_from_code_point_offsets(
    answers: list[tuple[str, str, int]],
) -> None:
    """An emoji before an answer exposes offsets that count UTF-16 units or bytes."""
    prefixes = [context[:answer_start] for context, _, answer_start in answers]
    assert any(utf16_units(prefix) != len(prefix) for prefix in prefixes)
    assert any(len(prefix.encode("utf-8")) != len(prefix) for prefix in prefixes)


def test_a_decomposed_accent_survives_in_context_and_answer(
    contexts: list[str], answers: list[tuple[str, str, int]]
) -> None:
    """An editor or a reader that normalises to NFC would shift every offset after the accent."""
    assert any("cafe\u0301" in context for context in contexts)
    assert any(unicodedata.normalize("NFC", text) != text for _, text, _ in answers)


def test_a_non_breaking_space_survives_in_context_and_answer(
    contexts: list[str], answers: list[tuple[str, str, int]]
) -> None:
    """An editor that replaces it by a plain space would part the answers from other copies."""
    assert any("\u00a0" in context for context in contexts)
    assert any("\u00a0" in text for _, text, _ in answers)


def test_file_is_readable_text_that_ends_in_a_newline() -> None:
    """Escapes in place of characters would make the file unreadable for a reviewer."""
    path = importlib.resources.files("qa_core").joinpath("embedded", "handwritten.json")
    raw = path.read_bytes()
    assert raw.endswith(b"}\n")
    assert b"\r" not in raw
    assert b"\\u" not in raw
