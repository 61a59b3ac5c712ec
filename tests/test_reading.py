"""Accepted + rejected = read; every bad record is named, every bad source is an error."""

import json
import pickle  # noqa: TID251 - that errors cross processes is what is tested
import re
import shutil
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qa_core.errors import (
    ConfigError,
    DataError,
    ModelError,
    QAError,
    ResourceError,
    StorageError,
)
from qa_core.reading import (
    check_rejected_fraction,
    count_reasons,
    read_blocks,
    read_examples,
)
from qa_core.schemas import EXAMPLES, REJECTIONS
from qa_core.sources import EMBEDDED, check_source, source_digest

CONTEXT = "Zoë's 😀 bridge over the Orla opened in 1912."
START = CONTEXT.index("1912")
ANSWER = {"text": "1912", "answer_start": START}
MISSING: Any = object()  # as a field's value: the field is left out

# Changes to a good question, the reason of its rejection and the detail.
BAD_QUESTIONS: dict[str, tuple[dict[str, Any], str, str]] = {
    "no id": ({"id": MISSING}, "missing id", r"id is None, expected a text"),
    "blank id": ({"id": " \t"}, "missing id", r"id is ' \\t', expected a text"),
    "boolean id": ({"id": True}, "missing id", r"id is True, expected a text"),
    "fractional id": ({"id": 1.5}, "missing id", r"id is 1\.5, expected a text"),
    "half a character as id": ({"id": "\ud800"}, "missing id", r"id is '\\ud800'"),
    "no question": ({"question": MISSING}, "missing question", r"question is None"),
    "blank question": ({"question": "\n"}, "missing question", r"question is '\\n'"),
    "question a number": ({"question": 7}, "missing question", r"question is 7"),
    "half a character in the question": (
        {"question": "When\udfff?"},
        "invalid Unicode",
        r"question holds half of a surrogate pair",
    ),
    "answers a text": (
        {"answers": "1912"},
        "malformed answers",
        r"answers is '1912', expected a list",
    ),
    "answers an object": (
        {"answers": {"text": ["1912"]}},
        "malformed answers",
        r"answers is \{'text': \['1912'\]\}, expected a list",
    ),
    "answer a text": ({"answers": ["1912"]}, "malformed answers", r"answers\[0\] is '1912'"),
    "answer null": ({"answers": [None]}, "malformed answers", r"answers\[0\] is None"),
    "answer without start": (
        {"answers": [{"text": "1912"}]},
        "malformed answers",
        r"answers\[0\] is \{'text': '1912'\}, expected \{\"text\": …, \"answer_start\": …\}",
    ),
    "answer without text": (
        {"answers": [{"answer_start": START}]},
        "malformed answers",
        r"answers\[0\] is \{'answer_start': ",
    ),
    "start a text": (
        {"answers": [{"text": "1912", "answer_start": str(START)}]},
        "malformed answers",
        r"answers\[0\] is .*'answer_start': '",
    ),
    "start a fraction": (
        {"answers": [{"text": "1912", "answer_start": float(START)}]},
        "malformed answers",
        r"answers\[0\] is .*\.0\}",
    ),
    "start a boolean": (
        {"answers": [{"text": "o", "answer_start": True}]},  # CONTEXT[True] is "o"
        "malformed answers",
        r"answers\[0\] is .*True\}",
    ),
    "second answer without start": (
        {"answers": [ANSWER, {"text": "Orla"}]},
        "malformed answers",
        r"answers\[1\] is \{'text': 'Orla'\}",
    ),
    "empty answer": (
        {"answers": [{"text": "", "answer_start": 3}]},
        "empty answer",
        r"answers\[0\] has no text",
    ),
    "answer one character early": (
        {"answers": [{"text": "1912", "answer_start": START - 1}]},
        "answer not at answer_start",
        rf"answers\[0\]: expected '1912' at character {START - 1}, found ' 191'",
    ),
    "start counted in UTF-8 bytes": (
        {"answers": [{"text": "1912", "answer_start": CONTEXT.encode().index(b"1912")}]},
        "answer not at answer_start",
        r"answers\[0\]: expected '1912' at character \d+, found '",
    ),
    "start counted in UTF-16 units": (
        {"answers": [{"text": "1912", "answer_start": START + 1}]},  # one emoji before it
        "answer not at answer_start",
        rf"answers\[0\]: expected '1912' at character {START + 1}, found '912\.'",
    ),
    "start negative": (
        {"answers": [{"text": "1912", "answer_start": -5}]},  # CONTEXT[-5:-1] is "1912"
        "answer not at answer_start",
        r"answers\[0\]: expected '1912' at character -5, found ''",
    ),
    "start past the end": (
        {"answers": [{"text": "1912", "answer_start": 2**40}]},
        "answer not at answer_start",
        r"answers\[0\]: expected '1912' at character 1099511627776, found ''",
    ),
    "answer beyond the end": (
        {"answers": [{"text": "1912. Then", "answer_start": START}]},
        "answer not at answer_start",
        r"answers\[0\]: expected '1912\. Then' at character \d+, found '1912\.'",
    ),
    "answer in other letters": (
        {"answers": [{"text": "ORLA", "answer_start": CONTEXT.index("Orla")}]},
        "answer not at answer_start",
        r"answers\[0\]: expected 'ORLA' at character \d+, found 'Orla'",
    ),
    "long answer, shortened": (
        {"answers": [{"text": "x" * 500, "answer_start": 0}]},
        "answer not at answer_start",
        r"answers\[0\]: expected 'x{59}… at character 0, found",
    ),
    "impossible, yet answered": (
        {"is_impossible": True},
        "contradictory answers",
        r"is_impossible is true, yet it has answers",
    ),
}

# Contexts that spoil every question about them.
BAD_CONTEXTS: dict[str, tuple[Any, str, str]] = {
    "no context": (MISSING, "missing context", r"context is None"),
    "empty context": ("", "missing context", r"context is ''"),
    "blank context": (" \n ", "missing context", r"context is ' \\n '"),
    "context a list": ([CONTEXT], "missing context", r"context is \[\"Zoë"),
    "half a character in the context": (
        CONTEXT + "\ud800",
        "invalid Unicode",
        r"context holds half of a surrogate pair",
    ),
}


def make_question(example_id: Any = "q0", **changes: Any) -> dict[str, Any]:
    """A good question about `CONTEXT`, then changed; a field given as `MISSING` is left out."""
    good = {"id": example_id, "question": "When did it open?", "answers": [ANSWER]}
    return {name: value for name, value in (good | changes).items() if value is not MISSING}


def make_paragraph(questions: Any, context: Any = CONTEXT) -> dict[str, Any]:
    """A paragraph with its questions; a context given as `MISSING` is left out."""
    paragraph = {"qas": questions}
    return paragraph if context is MISSING else paragraph | {"context": context}


def write_document(file: Path, *articles: Any) -> str:
    """Write a SQuAD file of these articles, non-ASCII as JSON escapes; its path."""
    file.write_text(json.dumps({"version": "v2.0", "data": list(articles)}), encoding="ascii")
    return str(file)


def write_questions(file: Path, *questions: Any) -> str:
    """Write a SQuAD file of one article and one paragraph about `CONTEXT`; its path."""
    return write_document(file, {"title": "Orla", "paragraphs": [make_paragraph(questions)]})


def rejected_rows(table: pa.Table) -> list[tuple[int, str, str]]:
    """Record number, id and reason of every rejection."""
    return [(row["record"], row["id"], row["reason"]) for row in table.to_pylist()]


def assert_answers_lie_in_contexts(examples: pa.Table) -> int:
    """Check `context[start:end] == text` for every answer; the number of answers."""
    pairs = 0
    for row in examples.to_pylist():
        starts = row["answers"]["answer_start"]
        for text, start in zip(row["answers"]["text"], starts, strict=True):
            assert row["context"][start : start + len(text)] == text
            pairs += 1
    return pairs


# Good sources


def test_a_squad_file_becomes_one_row_for_each_question(tmp_path: Path) -> None:
    """Title and context are shared, order is the file's, every row knows its source."""
    file = write_document(
        tmp_path / "train.json",
        {"title": "Orla", "paragraphs": [make_paragraph([make_question("b"), make_question("a")])]},
        {"title": "Mill", "paragraphs": [make_paragraph([make_question("c", answers=[])], "Corn")]},
    )
    examples, rejections = read_examples(file)
    answers = {"text": ["1912"], "answer_start": [START]}
    shared = {"question": "When did it open?", "source": file}
    bridge = {"title": "Orla", "context": CONTEXT, "answers": answers, **shared}
    mill = {"title": "Mill", "context": "Corn", **shared}
    assert examples.schema == EXAMPLES
    assert rejections.schema == REJECTIONS
    assert len(rejections) == 0
    assert examples.to_pylist() == [
        {"id": "b", **bridge},
        {"id": "a", **bridge},
        {"id": "c", "answers": {"text": [], "answer_start": []}, **mill},
    ]


def test_squad_v1_and_v2_give_the_same_rows(tmp_path: Path) -> None:
    """v2.0 adds is_impossible and plausible_answers; the latter never become answers."""
    plausible = [{"text": "Orla", "answer_start": CONTEXT.index("Orla")}]
    impossible = {"answers": [], "is_impossible": True, "plausible_answers": plausible}
    v1 = write_questions(tmp_path / "v1.json", make_question("a"), make_question("b", answers=[]))
    v2 = write_questions(
        tmp_path / "v2.json",
        make_question("a", is_impossible=False),
        make_question("b", **impossible),
    )
    first, _ = read_examples(v1)
    second, rejections = read_examples(v2)
    assert len(rejections) == 0
    assert second["answers"].to_pylist()[1] == {"text": [], "answer_start": []}
    assert first.drop_columns("source") == second.drop_columns("source")


@pytest.mark.parametrize("answers", [None, MISSING, []], ids=["null", "absent", "empty"])
def test_a_question_without_answers_is_unanswerable(tmp_path: Path, answers: Any) -> None:
    """Test sets leave the answers out; they must not vanish from the predictions."""
    file = write_questions(tmp_path / "a.json", make_question(answers=answers))
    examples, rejections = read_examples(file)
    assert len(rejections) == 0
    assert examples["answers"].to_pylist() == [{"text": [], "answer_start": []}]


def test_an_integer_id_is_accepted_as_text(tmp_path: Path) -> None:
    """Also 0, which is false, and it is the same id as the text."""
    file = write_questions(tmp_path / "a.json", make_question(0), make_question("0"))
    examples, rejections = read_examples(file)
    assert examples["id"].to_pylist() == ["0"]
    assert rejected_rows(rejections) == [(1, "0", "duplicate id")]


@pytest.mark.parametrize("title", [MISSING, None, 7, "\ud800"])
def test_a_title_that_is_no_text_is_left_empty(tmp_path: Path, title: Any) -> None:
    """No stage needs the title: a bad one must not cost the questions."""
    article = {"title": title, "paragraphs": [make_paragraph([make_question()])]}
    article = {name: value for name, value in article.items() if value is not MISSING}
    examples, rejections = read_examples(write_document(tmp_path / "a.json", article))
    assert len(rejections) == 0
    assert examples["title"].to_pylist() == [""]


def test_a_question_is_about_its_paragraphs_context(tmp_path: Path) -> None:
    """Converted files often repeat context and title, cut, in each question."""
    file = write_questions(tmp_path / "a.json", make_question(context="Zoë's …", title=""))
    examples, rejections = read_examples(file)
    assert len(rejections) == 0
    assert examples["context"].to_pylist() == [CONTEXT]
    assert examples["title"].to_pylist() == ["Orla"]


def test_a_byte_order_mark_is_no_part_of_the_json(tmp_path: Path) -> None:
    """Windows editors write one, and the json module refuses it."""
    plain = write_questions(tmp_path / "plain.json", make_question())
    marked = tmp_path / "marked.json"
    marked.write_bytes(b"\xef\xbb\xbf" + Path(plain).read_bytes())
    examples, rejections = read_examples(marked)
    assert len(rejections) == 0
    expected = read_examples(plain)[0].drop_columns("source")
    assert examples.drop_columns("source") == expected


def test_escaped_surrogate_pairs_are_whole_characters(tmp_path: Path) -> None:
    r"""JSON writes an emoji as \ud83d\ude00: answer_start counts it as one character."""
    file = write_questions(tmp_path / "a.json", make_question())
    assert r"\ud83d\ude00" in Path(file).read_text()
    examples, _ = read_examples(file)
    assert examples["context"].to_pylist() == [CONTEXT]
    assert assert_answers_lie_in_contexts(examples) == 1


def test_sources_are_joined_in_their_order_and_rows_know_theirs(tmp_path: Path) -> None:
    """A wrong answer can be traced to the file that holds it; Path, text and URI all name one."""
    first = write_questions(tmp_path / "z.json", make_question("z"), make_question(""))
    second = write_questions(tmp_path / "a.json", make_question("a"))
    third = "file://" + write_questions(tmp_path / "m.json", make_question(""), make_question("m"))
    examples, rejections = read_examples([Path(first), second, third])
    assert examples["id"].to_pylist() == ["z", "a", "m"]
    assert examples["source"].to_pylist() == [first, second, third]
    assert rejections["source"].to_pylist() == [first, third]
    assert rejections["record"].to_pylist() == [1, 0]


def test_no_sources_give_empty_tables_of_the_same_schema() -> None:
    """A stage that joins or counts them needs no special case."""
    examples, rejections = read_examples([])
    assert (examples.schema, rejections.schema) == (EXAMPLES, REJECTIONS)
    assert (len(examples), len(rejections)) == (0, 0)


@pytest.mark.parametrize("source", EMBEDDED)
def test_embedded_data_is_read_without_a_rejection(source: str) -> None:
    """What the project ships passes the checks it makes of others' data."""
    examples, rejections = read_examples(source)
    assert rejections.to_pylist() == []
    assert len(examples) > 40
    assert assert_answers_lie_in_contexts(examples) > 20
    assert set(examples["source"].to_pylist()) == {source}


# Rejected records


@pytest.mark.parametrize("name", BAD_QUESTIONS)
def test_a_bad_question_is_rejected_with_reason_and_place(tmp_path: Path, name: str) -> None:
    """And only that one: its neighbours in the paragraph are kept."""
    changes, reason, detail = BAD_QUESTIONS[name]
    good = make_paragraph([make_question("first")])
    mixed = [make_question("q1"), make_question("bad", **changes), make_question("q2")]
    file = write_document(
        tmp_path / "a.json",
        {"title": "empty", "paragraphs": []},
        {"title": "Orla", "paragraphs": [good, make_paragraph(mixed)]},
    )
    examples, rejections = read_examples(file)
    assert examples["id"].to_pylist() == ["first", "q1", "q2"]
    expected_id = "" if reason == "missing id" else "bad"
    assert rejected_rows(rejections) == [(2, expected_id, reason)]
    row = rejections.to_pylist()[0]
    assert row["source"] == file
    assert re.match(r"data\[1\]\.paragraphs\[1\]\.qas\[1\]: " + detail, row["detail"])


@pytest.mark.parametrize("name", BAD_CONTEXTS)
def test_a_bad_context_rejects_each_of_its_questions(tmp_path: Path, name: str) -> None:
    """Each by its own id, so that accepted + rejected = read."""
    context, reason, detail = BAD_CONTEXTS[name]
    bad = make_paragraph([make_question("x"), make_question("y")], context)
    good = make_paragraph([make_question("z")])
    file = write_document(tmp_path / "a.json", {"title": "Orla", "paragraphs": [bad, good]})
    examples, rejections = read_examples(file)
    assert examples["id"].to_pylist() == ["z"]
    assert rejected_rows(rejections) == [(0, "x", reason), (1, "y", reason)]
    for number, row in enumerate(rejections.to_pylist()):
        place = rf"data\[0\]\.paragraphs\[0\]\.qas\[{number}\]: "
        assert re.match(place + detail, row["detail"])


@pytest.mark.parametrize(
    ("articles", "detail"),
    [
        (["Orla"], r"data\[0\]: expected an object with a list of paragraphs"),
        ([None], r"data\[0\]: expected an object with a list of paragraphs"),
        ([{"title": "Orla"}], r"data\[0\]: expected an object with a list of paragraphs"),
        ([{"paragraphs": {"0": "x"}}], r"data\[0\]: expected an object with a list of paragraphs"),
        ([{"paragraphs": ["x"]}], r"data\[0\]\.paragraphs\[0\]: expected an object with context"),
        (
            [{"paragraphs": [{"context": CONTEXT}]}],
            r"data\[0\]\.paragraphs\[0\]: expected an object with context and a list qas",
        ),
        ([{"paragraphs": [make_paragraph({"id": "x"})]}], r"data\[0\]\.paragraphs\[0\]: expected"),
        (
            [{"paragraphs": [make_paragraph(["When?"])]}],
            r"data\[0\]\.paragraphs\[0\]\.qas\[0\]: expected an object, found 'When\?'",
        ),
        (
            [{"paragraphs": [make_paragraph([None])]}],
            r"data\[0\]\.paragraphs\[0\]\.qas\[0\]: expected an object, found None",
        ),
    ],
)
def test_a_part_without_the_right_shape_is_one_rejection(
    tmp_path: Path, articles: list[Any], detail: str
) -> None:
    """It counts as one record, and what follows it is read."""
    good = {"title": "Orla", "paragraphs": [make_paragraph([make_question("good")])]}
    examples, rejections = read_examples(write_document(tmp_path / "a.json", *articles, good))
    assert examples["id"].to_pylist() == ["good"]
    assert rejected_rows(rejections) == [(0, "", "malformed record")]
    assert re.match(detail, rejections["detail"].to_pylist()[0])


def test_of_records_with_one_id_the_first_is_kept(tmp_path: Path) -> None:
    """Within a file; the record number counts the rejected records before it."""
    file = write_questions(
        tmp_path / "a.json",
        make_question("a", question="First?"),
        make_question(""),
        make_question("a", question="Second?"),
        make_question("b"),
        make_question("a", question="Third?"),
    )
    examples, rejections = read_examples(file)
    assert examples["id"].to_pylist() == ["a", "b"]
    assert examples["question"].to_pylist()[0] == "First?"
    assert sorted(rejected_rows(rejections)) == [
        (1, "", "missing id"),
        (2, "a", "duplicate id"),
        (4, "a", "duplicate id"),
    ]


def test_an_id_of_an_earlier_source_is_rejected_in_the_later_one(tmp_path: Path) -> None:
    """Two answers to one id would make every score by id ambiguous."""
    first = write_questions(tmp_path / "1.json", make_question("a"), make_question("b"))
    second = write_questions(
        tmp_path / "2.json", make_question("", question="?"), make_question("c"), make_question("b")
    )
    examples, rejections = read_examples([first, second])
    assert examples["id"].to_pylist() == ["a", "b", "c"]
    assert examples["source"].to_pylist() == [first, first, second]
    assert rejected_rows(rejections) == [(0, "", "missing id"), (2, "b", "duplicate id")]
    assert rejections["source"].to_pylist() == [second, second]
    assert rejections["detail"].to_pylist()[1] == "kept: its first record"


def test_a_rejected_record_does_not_take_its_id(tmp_path: Path) -> None:
    """A mended copy further down the file is used."""
    file = write_questions(tmp_path / "a.json", make_question("a", question=""), make_question("a"))
    examples, rejections = read_examples(file)
    assert examples["id"].to_pylist() == ["a"]
    assert rejected_rows(rejections) == [(0, "a", "missing question")]


def test_a_block_has_each_examples_record_number(tmp_path: Path) -> None:
    """Who joins sources can name a record that only then turns out to be bad."""
    file = write_questions(
        tmp_path / "a.json", make_question(""), make_question("a"), None, make_question("a")
    )
    (block,) = read_blocks(file, examples_per_block=4)
    assert block.examples["id"].to_pylist() == ["a", "a"]
    assert block.records.tolist() == [1, 3]
    assert block.rejections["record"].to_pylist() == [0, 2]


Layout = list[list[tuple[str, list[str]]]]  # articles of paragraphs: (context, questions), by name


def build_articles(layout: Layout) -> tuple[list[Any], list[str], list[tuple[int, str]]]:
    """The articles, the ids to be accepted, and (record, reason) of those to be rejected."""
    articles: list[Any] = []
    accepted: list[str] = []
    rejected: list[tuple[int, str]] = []
    for drawn in layout:
        paragraphs = []
        for context_name, question_names in drawn:
            context, reason, _ = BAD_CONTEXTS.get(context_name, (CONTEXT, "", ""))
            questions = []
            for name in question_names:
                record = len(accepted) + len(rejected)
                changes, own_reason, _ = BAD_QUESTIONS.get(name, ({}, "", ""))
                questions.append(make_question(f"record{record}", **changes))
                # checked in the order id, context, question and answers
                expected = own_reason if own_reason == "missing id" else reason or own_reason
                if expected:
                    rejected.append((record, expected))
                else:
                    accepted.append(f"record{record}")
            paragraphs.append(make_paragraph(questions, context))
        articles.append({"title": "Orla", "paragraphs": paragraphs})
    return articles, accepted, rejected


question_names = st.one_of(st.just("good"), st.sampled_from(sorted(BAD_QUESTIONS)))
context_names = st.one_of(st.just("good"), st.just("good"), st.sampled_from(sorted(BAD_CONTEXTS)))
paragraphs_drawn = st.tuples(context_names, st.lists(question_names, max_size=6))
layouts = st.lists(st.lists(paragraphs_drawn, max_size=4), min_size=1, max_size=4)


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # each example overwrites the file
)
@given(layout=layouts)
def test_accepted_and_rejected_are_what_was_read(tmp_path: Path, layout: Layout) -> None:
    """However good and bad records mix: none is lost or moved, each has its own reason."""
    articles, accepted, rejected = build_articles(layout)
    examples, rejections = read_examples(write_document(tmp_path / "a.json", *articles))
    assert examples["id"].to_pylist() == accepted
    assert [(r, reason) for r, _, reason in rejected_rows(rejections)] == rejected
    num_questions = sum(len(names) for article in layout for _, names in article)
    assert len(examples) + len(rejections) == num_questions
    assert assert_answers_lie_in_contexts(examples) == len(accepted)


def test_every_kind_of_bad_record_in_one_file(tmp_path: Path) -> None:
    """The reasons are a few fixed words, to count by."""
    names = sorted(BAD_QUESTIONS)
    layout: Layout = [[("good", ["good", *names])], [(name, ["good"]) for name in BAD_CONTEXTS]]
    articles, accepted, rejected = build_articles(layout)
    again = {"title": "Orla", "paragraphs": [make_paragraph([make_question(accepted[0]), None])]}
    _, rejections = read_examples(write_document(tmp_path / "a.json", *articles, again))
    assert len(rejections) == len(rejected) + 2 == len(BAD_QUESTIONS) + len(BAD_CONTEXTS) + 2
    assert set(count_reasons(rejections)) == {
        "answer not at answer_start",
        "contradictory answers",
        "duplicate id",
        "empty answer",
        "invalid Unicode",
        "malformed answers",
        "malformed record",
        "missing context",
        "missing id",
        "missing question",
    }


# Sources that cannot be read


def test_a_missing_file_is_named_and_the_kinds_of_sources_listed(tmp_path: Path) -> None:
    """The commonest mistake: a relative path from the wrong folder."""
    file = tmp_path / "nope.json"
    message = (
        rf"{re.escape(str(file))}: no such file or folder\. Expected: SQuAD JSON, .*hub:NAME:SPLIT"
        rf".*embedded:train.* Do: check the path \(a relative one is taken from "
        rf"{re.escape(str(Path.cwd()))}\)"
    )
    with pytest.raises(DataError, match=message):
        read_examples(file)
    with pytest.raises(DataError, match=message):
        check_source(str(file))
    with pytest.raises(DataError, match=message):
        source_digest(str(file))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"the file is empty\. Expected: SQuAD JSON: \{\"data\""),
        (b" \r\n\t", r"the file is empty"),
        (
            b'{"data":\n [1, 2',
            r"not JSON at line 2, column 7 \(.+\)\. .*check that the file is whol",
        ),
        (b'{"data": []}\n{"data": []}', r"not JSON at line 2, column 1 \(Extra data\)"),
        (b"id,context,question", r"not JSON at line 1, column 1 \(Expecting value\)"),
        ('{"a": "caf\u00e9"}'.encode("latin-1"), r"not UTF-8 at byte 10\. .*convert the file"),
        ('{"data": []}'.encode("utf-16"), r"not UTF-8 at byte 0\. Expected: UTF-8 text"),
        (b"null", r"JSON, but not SQuAD's \(no object\)\. Expected: \{\"data\""),
        (b"[1, 2]", r"JSON, but not SQuAD's \(a list that begins with 1\)\. Expected: \{\"data\""),
        (b"[]", r"the file has no records\. Expected: SQuAD JSON"),
        (b'{"rows": [], "id": 1}', r"JSON, but not SQuAD's \(keys \['id', 'rows'\]\)"),
        (b'{"data": {"title": "Orla"}}', r"JSON, but not SQuAD's \(keys \['data'\]\)"),
        (b'{"version": "v2.0", "data": []}', r"the file has no articles"),
    ],
)
def test_a_file_of_another_format_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    """The error says what the file is, and where it stops being what it should be."""
    file = tmp_path / "a.json"
    file.write_bytes(content)
    with pytest.raises(DataError, match=rf"^{re.escape(str(file))}: {message}"):
        read_examples(file)


def test_one_bad_source_among_good_ones_is_an_error(tmp_path: Path) -> None:
    """Training on half of the data, in silence, would be worse than stopping."""
    good = write_questions(tmp_path / "good.json", make_question())
    with pytest.raises(DataError, match=r"nope\.json: no such file or folder"):
        read_examples([good, str(tmp_path / "nope.json")])


@pytest.mark.parametrize("function", [read_examples, check_source, source_digest])
def test_an_unknown_embedded_name_lists_those_there_are(function: Any) -> None:
    """A typing error is answered with the choices."""
    message = (
        r"^embedded:test: no such embedded data\. Expected: one of "
        r"embedded:train, embedded:dev, embedded:handwritten"
    )
    with pytest.raises(DataError, match=message):
        function("embedded:test")


@pytest.mark.parametrize("source", ["hub:squad", "hub:", "hub::train", "hub:squad:"])
def test_a_hub_source_needs_name_and_split(source: str) -> None:
    """Refused before anything is asked of a network."""
    with pytest.raises(DataError, match=rf"^{source}: name or split missing\. Expected: hub:NAME:"):
        read_examples(source)


def test_check_source_accepts_what_it_need_not_read(tmp_path: Path) -> None:
    """It is called at set-up, for all sources, before any is read."""
    file = tmp_path / "a.json"
    file.write_text("not JSON")
    sources = [str(file), str(tmp_path), "hub:squad:train", *EMBEDDED]
    for source in sources:
        check_source(source)
    assert len(sources) > 5


# Folders saved by `datasets`, and the Hub


def make_row(example_id: Any = "q0", **changes: Any) -> dict[str, Any]:
    """A good row of a `datasets` data set, then changed; a `MISSING` field is left out."""
    answers = {"text": ["1912"], "answer_start": [START]}
    good = {
        "id": example_id,
        "title": "Orla",
        "context": CONTEXT,
        "question": "When did it open?",
        "answers": answers,
    }
    return {name: value for name, value in (good | changes).items() if value is not MISSING}


def save_rows(folder: Path, rows: list[dict[str, Any]]) -> str:
    """Save the rows as `datasets` does; the folder's path."""
    datasets.Dataset.from_list(rows).save_to_disk(str(folder))
    return str(folder)


def test_a_datasets_folder_gives_the_table_of_the_same_json(tmp_path: Path) -> None:
    """Answers are columns in one and objects in the other."""
    empty: dict[str, list[Any]] = {"text": [], "answer_start": []}
    rows = [make_row("a"), make_row("b", answers=empty), make_row("c", question="And?")]
    folder = save_rows(tmp_path / "saved", rows)
    file = write_questions(
        tmp_path / "a.json",
        make_question("a"),
        make_question("b", answers=[]),
        make_question("c", question="And?"),
    )
    from_folder, rejections = read_examples(folder)
    from_file, _ = read_examples(file)
    assert len(rejections) == 0
    assert len(from_file) == 3
    assert from_folder.drop_columns("source") == from_file.drop_columns("source")
    assert set(from_folder["source"].to_pylist()) == {folder}


@pytest.mark.parametrize(
    ("changes", "reason", "detail"),
    [
        ({"id": None}, "missing id", r"row 1: id is None, expected a text"),
        ({"context": None}, "missing context", r"row 1: context is None"),
        ({"question": ""}, "missing question", r"row 1: question is ''"),
        (
            {"answers": {"text": ["1912", "1912"], "answer_start": [START]}},
            "malformed record",
            r"row 1: answers: text and answer_start differ in length",
        ),
        (
            {"answers": {"text": ["1912"], "answer_start": None}},
            "malformed record",
            r"row 1: answers: text and answer_start differ in length",
        ),
        (
            {"answers": {"text": [None], "answer_start": [START]}},
            "malformed answers",
            r"row 1: answers\[0\] is \{'text': None",
        ),
        (
            {"answers": {"text": ["1912"], "answer_start": [START - 1]}},
            "answer not at answer_start",
            r"row 1: answers\[0\]: expected '1912' at character \d+, found ' 191'",
        ),
    ],
)
def test_a_bad_row_of_a_datasets_folder_is_rejected_by_its_number(
    tmp_path: Path, changes: dict[str, Any], reason: str, detail: str
) -> None:
    """The same reasons as for JSON, so that they are counted together."""
    rows = [make_row("first"), make_row("bad") | changes, make_row("last")]
    examples, rejections = read_examples(save_rows(tmp_path / "saved", rows))
    assert examples["id"].to_pylist() == ["first", "last"]
    expected_id = "" if reason == "missing id" else "bad"
    assert rejected_rows(rejections) == [(1, expected_id, reason)]
    assert re.match(detail, rejections["detail"].to_pylist()[0])


def test_answers_of_another_shape_are_refused_before_any_work(tmp_path: Path) -> None:
    """A column of plain texts has no answer_start: nothing can be placed."""
    rows = [make_row("a", answers=["1912"]), make_row("b", answers=["1912"])]
    message = (
        r"saved: column 'answers' is of type list<.*string>\. Expected: struct of lists text and "
        r"answer_start, .*\. Do: convert it, or set data\.columns\.answers to another column"
    )
    with pytest.raises(DataError, match=message):
        read_examples(save_rows(tmp_path / "saved", rows))


def test_missing_columns_of_a_datasets_folder_are_named(tmp_path: Path) -> None:
    """With the columns there are: often only a name differs."""
    row = make_row(answers=MISSING, context=MISSING) | {"passage": CONTEXT}
    folder = save_rows(tmp_path / "saved", [row])
    message = (
        r"saved: columns \['answers', 'context'\] are missing \(it has \[.*'passage'.*\]\)\. "
        r"Expected: id, context, question, answers \(text, answer_start\)"
    )
    with pytest.raises(DataError, match=message):
        read_examples(folder)


def test_a_folder_of_several_splits_names_them(tmp_path: Path) -> None:
    """And the path of one of them works."""
    rows = datasets.Dataset.from_list([make_row()])
    folder = str(tmp_path / "saved")
    datasets.DatasetDict({"train": rows, "validation": rows}).save_to_disk(folder)
    message = (
        r"saved/: a folder of several splits: train, validation\. Expected: one split\. "
        rf"Do: name one, e\.g\. {re.escape(folder)}/train$"
    )
    with pytest.raises(DataError, match=message):
        read_examples(folder + "/")
    assert len(read_examples(f"{folder}/train")[0]) == 1


def test_a_folder_of_other_files_is_refused(tmp_path: Path) -> None:
    """What it holds is named: leaving a file out in silence would lose its records."""
    write_questions(tmp_path / "a.json", make_question())
    (tmp_path / "notes.txt").write_text("made in May")
    message = (
        rf"^{re.escape(str(tmp_path))}: 1 files of no known format: .*/notes\.txt\. Expected: SQuAD"
    )
    with pytest.raises(DataError, match=message):
        read_examples(tmp_path)


def test_a_datasets_folder_cut_short_is_refused(tmp_path: Path) -> None:
    """A copy that broke off must not pass for a small data set."""
    folder = tmp_path / "saved"
    save_rows(folder, [make_row("a"), make_row("b")])
    parts = list(folder.glob("*.arrow"))
    assert parts
    for part in parts:
        part.write_bytes(part.read_bytes()[:200])
    with pytest.raises(DataError, match=r"saved: not a folder saved by datasets \(.+\)"):
        read_examples(folder)


@pytest.fixture
def local_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that `datasets.load_dataset` takes as a data set's name; its cache in tmp_path."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "local"
    folder.mkdir()
    datasets.Dataset.from_list([make_row("a"), make_row("b")]).to_parquet(folder / "train.parquet")
    return folder


def test_a_hub_source_is_read_by_name_and_split(local_hub: Path) -> None:
    """The name may be whatever load_dataset takes: here a folder, so no network is needed."""
    source = f"hub:{local_hub}:train"
    examples, rejections = read_examples(source)
    assert len(rejections) == 0
    assert examples["id"].to_pylist() == ["a", "b"]
    assert set(examples["source"].to_pylist()) == {source}
    assert source_digest(source) == source_digest(source)


def test_a_split_the_hub_does_not_have_is_one_error_of_ours(local_hub: Path) -> None:
    """Whichever library below raises it."""
    message = r"local:nowhere: cannot be loaded from the Hub \(.*nowhere.*\)\. .*give a local file"
    with pytest.raises(DataError, match=message):
        read_examples(f"hub:{local_hub}:nowhere")


# Counting and refusing rejections


def make_rejections(reasons: list[str]) -> pa.Table:
    """A rejections table of these reasons."""
    rows = [
        {"source": "a.json", "record": n, "id": "", "reason": reason, "detail": f"place {n}: bad"}
        for n, reason in enumerate(reasons)
    ]
    return pa.Table.from_pylist(rows, schema=REJECTIONS)


def test_reasons_are_counted_most_frequent_first_then_by_name() -> None:
    """The report of one run reads as that of the next."""
    counts = count_reasons(make_rejections(["z", "b", "a", "z", "a", "b", "z", "c"]))
    assert list(counts.items()) == [("z", 3), ("a", 2), ("b", 2), ("c", 1)]
    assert count_reasons(make_rejections([])) == {}


@pytest.mark.parametrize(
    ("num_rejected", "num_read", "max_fraction"),
    [(0, 0, 0.0), (0, 9, 0.0), (2, 8, 0.25), (4, 4, 1)],
)
def test_as_many_rejections_as_allowed_pass(
    num_rejected: int, num_read: int, max_fraction: float
) -> None:
    """Exactly at the fraction is not above it."""
    rejections = make_rejections(["missing id"] * num_rejected)
    check_rejected_fraction(rejections, num_read=num_read, max_fraction=max_fraction)


@pytest.mark.parametrize(
    ("num_rejected", "num_read", "max_fraction"), [(1, 9, 0.0), (3, 8, 0.25), (4, 4, 0.99)]
)
def test_one_rejection_more_than_allowed_is_refused(
    num_rejected: int, num_read: int, max_fraction: float
) -> None:
    """A fraction of zero allows none at all."""
    rejections = make_rejections(["missing id"] * num_rejected)
    message = rf"{num_rejected} of {num_read} records cannot be used"
    with pytest.raises(DataError, match=message):
        check_rejected_fraction(rejections, num_read=num_read, max_fraction=max_fraction)


def test_too_many_rejections_are_counted_by_reason_and_the_first_shown() -> None:
    """The text of the error is enough to find and mend the data; thousands are not printed."""
    rejections = make_rejections(["missing id", "empty answer", "missing id"] * 3)
    with pytest.raises(DataError) as caught:
        check_rejected_fraction(rejections, num_read=20, max_fraction=0.1)
    shown = "; ".join(rf"a\.json place {n}: bad" for n in range(5))
    assert re.search(
        r"^a\.json: 9 of 20 records cannot be used \(missing id: 6, empty answer: 3\)\. "
        rf"First: {shown}\. Expected: at most 10\.0% bad records\. "
        r"Do: mend the data \(the rejections table lists all\), "
        r"or raise data\.max_rejected_fraction$",
        str(caught.value),
    )


# Digests, and errors between processes


def test_a_digest_names_the_content_not_the_path(tmp_path: Path) -> None:
    """Prepared data is found again after a move, and made anew after a change."""
    first = write_questions(tmp_path / "a.json", make_question("a"))
    moved = str(shutil.copy(first, tmp_path / "b.json"))
    changed = write_questions(tmp_path / "c.json", make_question("b"))
    assert source_digest(first) == source_digest(moved) == source_digest(f"file://{moved}")
    assert source_digest(first) != source_digest(changed)
    assert re.fullmatch(r"[0-9a-f]{64}", source_digest(first))


def test_a_folders_digest_covers_all_its_files(tmp_path: Path) -> None:
    """Also those in folders below it: a split's second shard is one."""
    folder = tmp_path / "one"
    (folder / "below").mkdir(parents=True)
    (folder / "a.arrow").write_bytes(b"1")
    (folder / "below" / "b.arrow").write_bytes(b"2")
    shutil.copytree(folder, tmp_path / "two")
    digest = source_digest(str(folder))
    assert source_digest(str(tmp_path / "two")) == digest
    (tmp_path / "two" / "below" / "b.arrow").write_bytes(b"3")
    assert source_digest(str(tmp_path / "two")) != digest
    (folder / "a.arrow").write_bytes(b"12")
    (folder / "below" / "b.arrow").write_bytes(b"")
    assert source_digest(str(folder)) != digest  # the same bytes, parted elsewhere


def test_embedded_sources_have_digests_of_their_own() -> None:
    """The same every time, and different from each other."""
    digests = [source_digest(source) for source in EMBEDDED]
    assert digests == [source_digest(source) for source in EMBEDDED]
    assert len(set(digests)) == len(EMBEDDED) == 3


@pytest.mark.parametrize(
    "kind", [QAError, DataError, ConfigError, ModelError, StorageError, ResourceError]
)
def test_errors_survive_pickling(kind: type[QAError]) -> None:
    """A worker's error reaches the driver with its type, its four parts and its text."""
    for error in (kind("bad", "a.json", "good", "mend it"), kind("bad", remedy="mend it")):
        copied = pickle.loads(pickle.dumps(error))
        assert type(copied) is kind
        assert isinstance(copied, ValueError)
        assert copied.args == error.args
        assert str(copied) == str(error)
        assert re.search(r"bad\b.*Do: mend it$", str(copied))


def test_a_raised_error_survives_pickling(tmp_path: Path) -> None:
    """Also with the cause that json gave it, which has a constructor of its own."""
    file = tmp_path / "a.json"
    file.write_text("{")
    with pytest.raises(DataError, match=r"not JSON at line 1, column 2") as caught:
        read_examples(file)
    assert caught.value.__cause__ is not None
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
