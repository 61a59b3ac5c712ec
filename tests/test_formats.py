"""Every format gives the same examples, and rejects the same records for the same reasons."""

import csv
import gzip
import json
import re
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
from pyarrow import parquet

from qa_core import checking
from qa_core.errors import ConfigError, DataError
from qa_core.reading import ReadingRules, read_blocks, read_examples
from qa_core.sources import iterate_records
from tests.formats import (
    JSON_NAMES,
    PARQUET,
    WRITERS,
    in_columns,
    write_csv,
    write_lines,
    write_list,
    write_mrqa,
    write_nested,
    write_parquet,
)
from tests.test_reading import (
    ANSWER,
    BAD_CONTEXTS,
    BAD_QUESTIONS,
    CONTEXT,
    MISSING,
    START,
    rejected_rows,
    write_questions,
)

FLAT_NAMES = [name for name in JSON_NAMES if name != "nested.json"]
TEXT_NAMES = [name for name in WRITERS if "parquet" not in name]

# Bad questions that a table cannot hold (its columns have one type), or holds as good ones.
UNTYPED = {
    "boolean id",
    "fractional id",
    "half a character as id",
    "half a character in the question",
    "question a number",
    "answers a text",
    "answers an object",
    "answer a text",
    "start a text",
    "start a fraction",
    "start a boolean",
}
# A cell is a text whatever its type was; and the writer knows no column is_impossible.
GOOD_IN_CSV = {"boolean id", "fractional id", "question a number", "impossible, yet answered"}


def make_row(example_id: Any = "q0", **changes: Any) -> dict[str, Any]:
    """A good record, then changed; a field given as `MISSING` is left out."""
    good = {
        "id": example_id,
        "title": "Orla",
        "context": CONTEXT,
        "question": "When did it open?",
        "answers": [ANSWER],
    }
    return {name: value for name, value in (good | changes).items() if value is not MISSING}


ROWS = [
    make_row("a"),
    make_row("b", question='What, "exactly",\nopened\tthere?', title=""),
    make_row("c", answers=[]),
    make_row("d", context="Corn – grown in May.\r\nSold in June.", answers=[]),
]


def write_file(folder: Path, name: str, rows: list[dict[str, Any]]) -> str:
    """Write the records in the format the name stands for; the path."""
    WRITERS[name](folder / name, rows)
    return str(folder / name)


# Good files


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_examples(tmp_path: Path, name: str) -> None:
    """Quotes, tabs and line ends inside a text are the text's; emoji count as one character."""
    examples, rejections = read_examples(write_file(tmp_path, name, ROWS))
    assert rejections.to_pylist() == []
    expected = [in_columns(row) | {"source": str(tmp_path / name)} for row in ROWS]
    assert examples.to_pylist() == expected
    assert examples["answers"].to_pylist()[0]["answer_start"] == [START]


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_reads_mapped_columns(tmp_path: Path, name: str) -> None:
    """A column of our own name beside the mapped one is not taken."""
    names = {"context": "passage", "question": "query"}
    if name.startswith(("mrqa", "plain")):
        names = {"question": "query"}
    rules = ReadingRules(columns=names)
    file = Path(write_file(tmp_path, name, ROWS))
    if file.suffix == ".parquet":
        table = parquet.read_table(file)
        renamed = table.rename_columns([names.get(column, column) for column in table.schema.names])
        parquet.write_table(renamed.append_column("question", renamed["query"]), file)
    else:
        content = gzip.decompress(file.read_bytes()) if name.endswith("gz") else file.read_bytes()
        for ours, theirs in names.items():
            content = content.replace(ours.encode(), theirs.encode())
        file.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    examples, rejections = read_examples(file, rules=rules)
    assert rejections.to_pylist() == []
    assert examples["question"].to_pylist() == [row["question"] for row in ROWS]


UNASKED = {"answers", "answer_text", "answer_start", "detected_answers", "is_impossible"}


def without_answers(value: Any) -> Any:
    """A JSON value without the keys that have to do with answers."""
    if isinstance(value, dict):
        return {k: without_answers(v) for k, v in value.items() if k not in UNASKED}
    return [without_answers(item) for item in value] if isinstance(value, list) else value


def strip_answers(file: Path) -> None:
    """Write a file again without answers: no key, no column."""
    if file.suffix == ".parquet":
        table = parquet.read_table(file)
        parquet.write_table(
            table.drop_columns([n for n in table.column_names if n in UNASKED]), file
        )
    elif file.suffix in (".csv", ".tsv"):
        delimiter = "\t" if file.suffix == ".tsv" else ","
        with file.open(encoding="utf-8-sig", newline="") as text:
            rows = list(csv.DictReader(text, delimiter=delimiter))
        kept = [name for name in rows[0] if name not in UNASKED]
        with file.open("w", encoding="utf-8", newline="") as text:
            writer = csv.DictWriter(text, kept, delimiter=delimiter, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
    else:
        is_packed = file.suffix == ".gz"
        content = gzip.decompress(file.read_bytes()) if is_packed else file.read_bytes()
        is_lines = "lines" in file.name or "mrqa" in file.name
        parts = content.splitlines() if is_lines else [content]
        stripped = [json.dumps(without_answers(json.loads(part))).encode() for part in parts]
        content = b"\n".join(stripped) + b"\n"
        file.write_bytes(gzip.compress(content) if is_packed else content)


NO_ANSWERS = ReadingRules(has_answers=False)


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_is_read_without_answers_where_none_are_needed(
    tmp_path: Path, name: str
) -> None:
    """The same questions with and without the column; a table without it is else refused."""
    file = Path(write_file(tmp_path, name, ROWS))
    expected = [
        row | {"answers": {"text": [], "answer_start": []}, "source": str(file)} for row in ROWS
    ]
    for strip in (lambda _: None, strip_answers):
        strip(file)
        examples, rejections = read_examples(file, rules=NO_ANSWERS)
        assert rejections.to_pylist() == []
        assert examples.to_pylist() == expected
    if name.endswith((".csv", ".tsv", ".parquet")):
        with pytest.raises(DataError, match=r"'answers'.* are missing"):
            read_examples(file)


def test_a_saved_data_set_is_read_without_answers(tmp_path: Path) -> None:
    """A folder of `datasets` that has questions and contexts alone."""
    rows = [{name: row[name] for name in ("id", "context", "question")} for row in ROWS]
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "saved")
    examples, rejections = read_examples(tmp_path / "saved", rules=NO_ANSWERS)
    assert len(rejections) == 0
    assert examples.select(["id", "context", "question"]).to_pylist() == rows


def test_answers_that_are_not_needed_are_not_looked_at(tmp_path: Path) -> None:
    """A wrong start is no reason not to answer the question."""
    rows = [make_row("a", answers=[{"text": "never there", "answer_start": 0}]), make_row("b")]
    file = write_file(tmp_path, "lines.jsonl", rows)
    examples, rejections = read_examples(file, rules=NO_ANSWERS)
    assert (examples["id"].to_pylist(), len(rejections)) == (["a", "b"], 0)


def test_a_json_list_of_articles_is_read_too(tmp_path: Path) -> None:
    """SQuAD's articles without the object around them."""
    file = tmp_path / "a.json"
    paragraph = {"context": CONTEXT, "qas": [make_row(context=MISSING)]}
    file.write_text(json.dumps([{"title": "Orla", "paragraphs": [paragraph]}, "?"]))
    examples, rejections = read_examples(file)
    assert examples["title"].to_pylist() == ["Orla"]
    assert rejections["detail"].to_pylist() == ["[1]: expected an object with a list of paragraphs"]


@pytest.mark.parametrize("first", ["title", "paragraphs"])
def test_a_long_article_is_read_by_its_paragraphs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    """The same records and places; a title that comes last is not seen."""
    monkeypatch.setattr("qa_core.json_stream.READ_CHARACTERS", 10)
    paragraph = {"context": CONTEXT, "qas": [make_row("a"), None]}
    article = {"title": "Orla", "paragraphs": [paragraph, "?", paragraph], "split": [1, {}]}
    article = {first: article[first]} | article
    file = tmp_path / "a.json"
    file.write_text(json.dumps({"data": [article, article]}))
    whole = list(iterate_records(str(file)))
    monkeypatch.setattr("qa_core.json_records.ARTICLE_CHARACTERS", 20)
    parts = list(iterate_records(str(file)))
    assert [(r.place, r.problem) for r in parts] == [(r.place, r.problem) for r in whole]
    assert len(parts) == 10
    assert parts[0].fields == whole[0].fields | {"title": "Orla" if first == "title" else None}


def test_a_long_record_that_is_no_article_is_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records, texts and lists alike."""
    monkeypatch.setattr("qa_core.json_stream.READ_CHARACTERS", 10)
    monkeypatch.setattr("qa_core.json_records.ARTICLE_CHARACTERS", 20)
    file = tmp_path / "a.json"
    file.write_text(json.dumps([make_row("a"), "x" * 100, make_row("b"), list(range(100))]))
    examples, rejections = read_examples(file)
    assert examples["id"].to_pylist() == ["a", "b"]
    assert rejected_rows(rejections) == [(1, "", "malformed record"), (3, "", "malformed record")]


def test_one_record_on_one_line_is_a_record(tmp_path: Path) -> None:
    """A file of JSON lines may have a single one, whatever it is called."""
    write_lines(tmp_path / "a.json", [make_row("a")])
    assert len(read_examples(tmp_path / "a.json")[0]) == 1


def test_blank_lines_and_a_byte_order_mark_are_no_records(tmp_path: Path) -> None:
    """The lines are still counted as an editor counts them."""
    file = tmp_path / "a.jsonl"
    line = json.dumps(make_row("a")).encode()
    file.write_bytes(b"\xef\xbb\xbf\r\n" + line + b"\r\n\n  \n{]")
    examples, rejections = read_examples(file)
    assert examples["id"].to_pylist() == ["a"]
    assert rejections["detail"].to_pylist() == [
        "line 5: not JSON at column 2 (Expecting property name enclosed in double quotes)"
    ]


# MRQA


@pytest.mark.parametrize(
    ("text", "spans", "expected"),
    [
        ("1912", [[START, START + 3]], ["1912"]),
        ("BRIDGE", [[8, 13]], ["bridge"]),
        ("orla", [[24, 27]], ["Orla"]),
        ("zoe\u0308 s", [[0, 4]], ["Zoë's"]),
        ("1912", [[START, START + 4]], ["1912"]),  # an exclusive end, by mistake
        ("o", [[2, 2], [16, 16]], None),
        ("1912", [[START - 1, START + 2]], None),
        ("1912", [[-5, -2]], None),
        ("1912", [[START + 3, START]], None),
        ("1912", [[10**9, 10**9 + 3]], None),
    ],
)
def test_every_span_of_a_detected_answer_is_an_answer(
    tmp_path: Path, text: str, spans: list[list[int]], expected: list[str] | None
) -> None:
    """The context's own text; another text than the detected one is a wrong span."""
    question = {"qid": "a", "question": "When?", "answers": ["?"]}
    detected = [{"text": text, "char_spans": spans, "token_spans": [[0, 0]]}]
    line = {"context": CONTEXT, "qas": [question | {"detected_answers": detected}]}
    write_lines(tmp_path / "a.jsonl", [line])
    examples, rejections = read_examples(tmp_path / "a.jsonl")
    if expected is None:
        assert rejected_rows(rejections) == [(0, "a", "answer not at answer_start")]
        assert rejections["detail"].to_pylist()[0].startswith("line 1.qas[0]: answers[0]: expected")
    else:
        starts = [start for start, _ in spans]
        assert examples["answers"].to_pylist() == [{"text": expected, "answer_start": starts}]


def test_several_spans_are_several_answers(tmp_path: Path) -> None:
    """Each is where a right prediction may stand."""
    context = "May or may not, in MAY."
    spans = [[0, 2], [7, 9], [19, 21]]
    qas = [{"id": "a", "question": "?", "detected_answers": [{"text": "may", "char_spans": spans}]}]
    write_lines(tmp_path / "a.jsonl", [{"context": context, "qas": qas}])
    examples, _ = read_examples(tmp_path / "a.jsonl")
    expected = {"text": ["May", "may", "MAY"], "answer_start": [0, 7, 19]}
    assert examples["answers"].to_pylist() == [expected]


@pytest.mark.parametrize(
    "detected",
    [
        [{"text": "1912"}],
        [{"text": "1912", "char_spans": []}],
        [{"text": "1912", "char_spans": [[START]]}],
        [{"text": "1912", "char_spans": [[START, float(START + 3)]]}],
        [{"text": None, "char_spans": [[START, START + 3]]}],
        ["1912"],
        "1912",
    ],
)
def test_detected_answers_of_another_shape_are_rejected(tmp_path: Path, detected: Any) -> None:
    """An answer without a place must not become a question without an answer."""
    qas = [{"qid": "a", "question": "When?", "detected_answers": detected}]
    write_lines(tmp_path / "a.jsonl", [{"context": CONTEXT, "qas": qas}])
    _, rejections = read_examples(tmp_path / "a.jsonl")
    assert rejected_rows(rejections) == [(0, "a", "malformed answers")]


def test_mrqa_questions_may_have_squad_answers(tmp_path: Path) -> None:
    """A paragraph a line is a common layout; answers that are plain texts are rejected."""
    qas = [make_row("a", context=MISSING), make_row("b", answers=["1912"]), None]
    write_lines(tmp_path / "a.jsonl", [{"context": CONTEXT, "qas": qas}, {"qas": {}}])
    examples, rejections = read_examples(tmp_path / "a.jsonl")
    assert examples["id"].to_pylist() == ["a"]
    assert rejected_rows(rejections) == [
        (1, "b", "malformed answers"),
        (2, "", "malformed record"),
        (3, "", "malformed record"),
    ]


# Bad records


@pytest.mark.parametrize("name", BAD_QUESTIONS)
@pytest.mark.parametrize("format_name", FLAT_NAMES)
def test_flat_json_rejects_what_nested_json_rejects(
    tmp_path: Path, format_name: str, name: str
) -> None:
    """Same reason, same detail, and the place in this format."""
    if format_name == "lines.ndjson" and "answer" in str(BAD_QUESTIONS[name][0]):
        pytest.skip("its writer takes answers in the good shape only")
    changes, reason, detail = BAD_QUESTIONS[name]
    rows = [make_row("q1"), make_row("bad", **changes), make_row("q2")]
    examples, rejections = read_examples(write_file(tmp_path, format_name, rows))
    assert examples["id"].to_pylist() == ["q1", "q2"]
    assert rejected_rows(rejections) == [(1, "" if reason == "missing id" else "bad", reason)]
    places = {"list.json": r"\[1\]", "data.json": r"data\[1\]"}
    place = places.get(format_name, "line 2")
    assert re.match(place + ": " + detail, rejections["detail"].to_pylist()[0])


@pytest.mark.parametrize("name", BAD_CONTEXTS)
@pytest.mark.parametrize("format_name", JSON_NAMES)
def test_a_bad_context_is_rejected_in_every_json(
    tmp_path: Path, format_name: str, name: str
) -> None:
    """It is checked before the answers."""
    context, reason, detail = BAD_CONTEXTS[name]
    rows = [make_row("q1"), make_row("bad", context=context), make_row("q2")]
    examples, rejections = read_examples(write_file(tmp_path, format_name, rows))
    assert examples["id"].to_pylist() == ["q1", "q2"]
    assert rejected_rows(rejections) == [(1, "bad", reason)]
    assert re.search(": " + detail, rejections["detail"].to_pylist()[0])


@pytest.mark.parametrize("name", sorted(set(BAD_QUESTIONS) - UNTYPED))
def test_parquet_rejects_what_json_rejects(tmp_path: Path, name: str) -> None:
    """As far as typed columns can hold it."""
    changes, reason, _ = BAD_QUESTIONS[name]
    rows = [make_row("q1"), make_row("bad", **changes), make_row("q2")]
    examples, rejections = read_examples(write_file(tmp_path, "table.parquet", rows))
    assert examples["id"].to_pylist() == ["q1", "q2"]
    assert rejected_rows(rejections) == [(1, "" if reason == "missing id" else "bad", reason)]
    assert rejections["detail"].to_pylist()[0].startswith("row 1: ")


@pytest.mark.parametrize(
    "name", sorted(set(BAD_QUESTIONS) - GOOD_IN_CSV - {n for n in BAD_QUESTIONS if "half" in n})
)
@pytest.mark.parametrize("format_name", ["table.csv"])
def test_csv_rejects_what_json_rejects(tmp_path: Path, format_name: str, name: str) -> None:
    """Answers are JSON there, too; a missing field is an empty one."""
    changes, reason, _ = BAD_QUESTIONS[name]
    rows = [make_row("q1"), make_row("bad", **changes), make_row("q2")]
    examples, rejections = read_examples(write_file(tmp_path, format_name, rows))
    assert examples["id"].to_pylist() == ["q1", "q2"]
    assert rejected_rows(rejections) == [(1, "" if reason == "missing id" else "bad", reason)]
    assert rejections["detail"].to_pylist()[0].startswith("line 3: ")


@pytest.mark.parametrize(
    ("text", "start", "reason"),
    [
        ("1912", START - 1, "answer not at answer_start"),
        ("1912", "", "malformed answers"),
        ("1912", "4.0", "malformed answers"),
        ("1912", "four", "malformed answers"),
        ("", START, "empty answer"),
    ],
)
def test_plain_csv_answers_are_checked(tmp_path: Path, text: str, start: Any, reason: str) -> None:
    """Both cells, or none of them."""
    bad = make_row("bad", answers=[{"text": text, "answer_start": start}])
    examples, rejections = read_examples(
        write_file(tmp_path, "plain.csv", [make_row("q1"), bad, make_row("q2")])
    )
    assert examples["id"].to_pylist() == ["q1", "q2"]
    assert rejected_rows(rejections) == [(1, "bad", reason)]


@pytest.mark.parametrize("name", WRITERS)
def test_a_tenth_of_broken_records_is_listed_whole(tmp_path: Path, name: str) -> None:
    """Each by its number and id, in the order of the file; the others are kept."""
    off = [{"text": "1912", "answer_start": START - 20}]
    rows = [make_row(f"q{n}", **({"answers": off} if n % 10 == 3 else {})) for n in range(200)]
    examples, rejections = read_examples(write_file(tmp_path, name, rows))
    bad = [(n, f"q{n}", "answer not at answer_start") for n in range(3, 200, 10)]
    assert rejected_rows(rejections) == bad
    assert len(examples) == 180


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("field", ["context", "question", "title"])
def test_an_overlong_text_is_rejected_in_every_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, field: str
) -> None:
    """It would keep a tokenizer busy for minutes; the limits are made small here."""
    monkeypatch.setattr(checking, "LONGEST_CONTEXT", 1000)
    monkeypatch.setattr(checking, "LONGEST_TEXT", 100)
    longest = 1000 if field == "context" else 100
    long, fits = ("x " * longest)[: longest + 1], ("x " * longest)[:longest]
    rows = [
        make_row("q1"),
        make_row("bad", **{field: long}, answers=[]),
        make_row("q2", **{field: fits}, answers=[]),
    ]
    examples, rejections = read_examples(write_file(tmp_path, name, rows))
    assert examples["id"].to_pylist() == ["q1", "q2"]
    assert rejected_rows(rejections) == [(1, "bad", f"{field} too long")]
    advice = "cut it into passages" if field == "context" else "shorten it"
    expected = f"{field} has {longest + 1} characters, at most {longest}: {advice}"
    assert rejections["detail"].to_pylist()[0].endswith(expected)


# Columns


@pytest.mark.parametrize("name", ["table.csv", "table.tsv", "table.parquet", "columns.parquet"])
def test_a_missing_column_is_an_error_before_any_work(tmp_path: Path, name: str) -> None:
    """With the columns there are, the nearest name and the setting that maps it."""
    file = write_file(tmp_path, name, ROWS)
    message = (
        rf"^{re.escape(file)}: columns \['questions'\] are missing \(it has "
        r"\['id', .*'question'.*\]\)\. Expected: id, context, questions, answers \(text, "
        r"answer_start\)\. "
        r"Do: set data\.columns\.question \(nearest name here: 'question'\)$"
    )
    with pytest.raises(DataError, match=message):
        next(
            read_blocks(
                file, rules=ReadingRules(columns={"question": "questions"}), examples_per_block=10
            )
        )


def test_a_mapped_title_must_be_there(tmp_path: Path) -> None:
    """Without a mapping it may be missing."""
    write_csv(tmp_path / "a.csv", ROWS)
    content = (tmp_path / "a.csv").read_text(encoding="utf-8").replace("title", "heading", 1)
    (tmp_path / "a.csv").write_text(content, encoding="utf-8", newline="")
    examples, _ = read_examples(tmp_path / "a.csv")
    assert set(examples["title"].to_pylist()) == {""}
    with pytest.raises(DataError, match=r"columns \['name'\] are missing"):
        read_examples(tmp_path / "a.csv", rules=ReadingRules(columns={"title": "name"}))


def test_a_column_that_stands_twice_is_an_error(tmp_path: Path) -> None:
    """Which of the two is meant cannot be told."""
    (tmp_path / "a.csv").write_text("id,context,question,answers,context\n")
    with pytest.raises(DataError, match=r"columns \['context'\] stand there twice"):
        read_examples(tmp_path / "a.csv")


STARTS, TEXTS = pa.list_(pa.int16()), pa.list_(pa.large_string())
PAIR = pa.struct([("text", pa.string()), ("answer_start", pa.int32())])


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("id", pa.float64(), "texts or whole numbers"),
        ("title", pa.int64(), "texts"),
        ("context", pa.list_(pa.string()), "texts"),
        ("question", pa.binary(), "texts"),
        ("answers", pa.list_(pa.string()), "struct of lists text and answer_start, or list of"),
        ("answers", pa.string(), "struct of lists"),
        ("answers", PAIR, "struct of lists"),
        ("answers", pa.struct([("text", TEXTS), ("start", STARTS)]), "struct of lists"),
        ("answers", pa.struct([("text", STARTS), ("answer_start", STARTS)]), "struct of lists"),
        ("answers", pa.list_(pa.struct([("text", pa.string())])), "struct of lists"),
    ],
)
def test_a_column_of_the_wrong_type_is_an_error_before_any_work(
    tmp_path: Path, name: str, kind: pa.DataType, expected: str
) -> None:
    """Not a rejection for each of a million rows."""
    schema = PARQUET.set(PARQUET.get_field_index(name), pa.field(name, kind))
    parquet.write_table(schema.empty_table(), tmp_path / "a.parquet")
    message = (
        rf"a\.parquet: column '{name}' is of type .+\. Expected: {expected}.* "
        rf"Do: convert it, or set data\.columns\.{name} to another column"
    )
    with pytest.raises(DataError, match=message):
        read_examples(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    "kind",
    [
        pa.struct([("answer_start", STARTS), ("text", TEXTS)]),
        pa.list_(PAIR),
        pa.large_list(PAIR),
        pa.null(),
    ],
)
def test_columns_of_like_types_are_taken(tmp_path: Path, kind: pa.DataType) -> None:
    """Large and small lists and integers; all nulls; texts coded by a dictionary; number ids."""
    value = [ANSWER] if "list<" in str(kind)[:11] else {"text": ["1912"], "answer_start": [START]}
    answers = pa.array([None if pa.types.is_null(kind) else value, None], kind)
    columns = {
        "id": pa.array([7, 8], pa.uint8()),
        "context": pa.array([CONTEXT] * 2).dictionary_encode(),
        "question": pa.array(["When?"] * 2, pa.large_string()),
        "answers": answers,
    }
    parquet.write_table(pa.table(columns), tmp_path / "a.parquet")
    examples, rejections = read_examples(tmp_path / "a.parquet")
    assert rejections.to_pylist() == []
    assert examples["id"].to_pylist() == ["7", "8"]
    expected = [] if pa.types.is_null(kind) else [START]
    assert examples["answers"].to_pylist()[0]["answer_start"] == expected


@pytest.mark.parametrize("name", FLAT_NAMES)
def test_what_the_first_json_record_lacks_is_said_in_each_rejection(
    tmp_path: Path, name: str
) -> None:
    """Each record stands alone, but a wrong name is wrong in all."""
    rows = [make_row(f"q{n}") | {"query": "When?"} for n in range(3)]
    for row in rows[:2]:
        del row["question"]
    examples, rejections = read_examples(write_file(tmp_path, name, rows))
    assert examples["id"].to_pylist() == ["q2"]
    expected = (
        r": question is None; the first record has no 'question' either \(it has \['answers', "
        r".*'query', .*\]\): set data\.columns\.question \(nearest name here: 'query'\)$"
    )
    assert len(rejections) == 2
    assert all(re.search(expected, detail) for detail in rejections["detail"].to_pylist())


def test_mapped_answers_that_are_missing_do_not_make_a_question_unanswerable(
    tmp_path: Path,
) -> None:
    """A typing error in the setting would otherwise empty the whole data set in silence."""
    write_lines(tmp_path / "a.jsonl", [make_row("a", answers=MISSING) | {"spans": None}])
    examples, _ = read_examples(tmp_path / "a.jsonl", rules=ReadingRules({"answers": "spans"}))
    assert len(examples) == 1
    _, rejections = read_examples(tmp_path / "a.jsonl", rules=ReadingRules({"answers": "spams"}))
    assert rejected_rows(rejections) == [(0, "a", "missing answers")]
    expected = r"line 1: answers is None \(data\.columns\.answers is 'spams'\).*here: 'spans'"
    assert re.match(expected, rejections["detail"].to_pylist()[0])


def test_a_mapping_of_no_column_of_ours_is_refused() -> None:
    """With the nearest there is."""
    with pytest.raises(ConfigError, match=r"no such column: 'contxt'.*nearest: context"):
        ReadingRules(columns={"contxt": "passage"})


# Damaged files


@pytest.mark.parametrize("name", TEXT_NAMES)
def test_a_packed_file_cut_short_is_an_error(tmp_path: Path, name: str) -> None:
    """A download that broke off; what to do is said."""
    rows = [make_row(f"q{n}", question=f"When, {n * 7919}?") for n in range(3000)]
    file = Path(write_file(tmp_path, name, rows))
    content = file.read_bytes()
    packed = content if name.endswith(".gz") else gzip.compress(content)
    target = tmp_path / f"{name.removesuffix('.gz')}.gz"
    target.write_bytes(packed)
    assert len(read_examples(target)[0]) == 3000
    for damaged in (packed[: len(packed) // 2], packed[:-4], packed[:-8] + bytes(8), b"no gzip"):
        target.write_bytes(damaged)
        message = rf"{re.escape(name.removesuffix('.gz'))}\.gz: gzip that is cut short or damaged "
        with pytest.raises(DataError, match=message + r"\(.+\)\. .* Do: copy or pack it again"):
            read_examples(target)


@pytest.mark.parametrize("name", ["nested.json", "list.json", "data.json"])
def test_json_that_breaks_off_is_an_error_after_its_good_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The blocks before were good; a small data set is not made of half a large one."""
    monkeypatch.setattr("qa_core.json_stream.READ_CHARACTERS", 1000)
    rows = [make_row(f"q{n}", context=f"{CONTEXT} {n}") for n in range(8000)]
    file = Path(write_file(tmp_path, name, rows))
    file.write_bytes(file.read_bytes()[:-200])
    lengths: list[int] = []
    blocks = read_blocks(str(file), examples_per_block=512)
    with pytest.raises(DataError, match=r"not JSON at line \d+, column \d+ \(.+\).*is whole"):
        lengths.extend(len(block.examples) for block in blocks)
    assert sum(lengths) > 3000


@pytest.mark.parametrize("name", ["lines.jsonl", "mrqa.jsonl"])
def test_a_broken_line_is_one_rejection(tmp_path: Path, name: str) -> None:
    """Cut, not UTF-8, with null bytes, no object, beyond all bounds: the others are read."""
    file = Path(write_file(tmp_path, name, [make_row("a"), make_row("b")]))
    first, *others = file.read_bytes().splitlines()
    bad = [
        (b'{"id": "x", "con', r"line 2: not JSON at column \d+ \(Unterminated string"),
        (b'{"id": "caf\xe9"}', r"line 3: not UTF-8 at byte 11 of the line"),
        (b'{"id": "x\x00"}', r"line 4: not JSON at column 10 \(Invalid control character"),
        (b"\x00\x00", r"line 5: not JSON at column 1 \(Expecting value"),
        (b'["id"]', r"line 6: expected an object, found \['id'\]"),
        (b"[" * 100_000, r"line 7: JSON beyond all bounds"),
    ]
    file.write_bytes(b"\n".join([first, *(line for line, _ in bad), *others]))
    examples, rejections = read_examples(file)
    assert examples["id"].to_pylist() == ["a", "b"]
    details = rejections["detail"].to_pylist()
    assert len(details) == len(bad)
    assert set(rejections["reason"].to_pylist()) == {"malformed record"}
    assert all(re.match(text, detail) for (_, text), detail in zip(bad, details, strict=True))


def test_a_broken_csv_row_is_one_rejection(tmp_path: Path) -> None:
    """Too few or many fields, a stray quote, null bytes, bytes that are not UTF-8."""
    file = tmp_path / "a.csv"
    good = b'%s,When?,It opened in 1912.,"[{""text"": ""1912"", ""answer_start"": 13}]"'
    bad = [
        (b"x,When?", "malformed record", r"line 3: 2 fields, expected 4 as in the header"),
        (b"x,When?,It,[],,", "malformed record", r"line 4: 6 fields, expected 4"),
        (b'x,"When"?,It,[]', "malformed record", r"line 5: not CSV \(.+\)"),
        (b"x,When\x00?,It,[]", "malformed record", r"line 6: a null byte"),
        (b"x,caf\xe9?,It,[]", "invalid Unicode", r"line 7: question holds .* not UTF-8, at char"),
        (b"x,When?,It,{'text': []}", "malformed answers", r"line 8: answers is \"\{'text'"),
    ]
    lines = [b"id,question,context,answers", good % b"a", *(line for line, _, _ in bad)]
    file.write_bytes(b"\r\n".join([*lines, b"", good % b"b"]))
    examples, rejections = read_examples(file)
    assert examples["id"].to_pylist() == ["a", "b"]
    assert rejections["reason"].to_pylist() == [reason for _, reason, _ in bad]
    details = rejections["detail"].to_pylist()
    assert all(re.match(text, detail) for (_, _, text), detail in zip(bad, details, strict=True))


@pytest.mark.parametrize(("cell", "num_rejected"), [("True", 1), ("1", 1), ("false", 0), ("", 0)])
def test_csv_that_contradicts_itself_is_rejected(
    tmp_path: Path, cell: str, num_rejected: int
) -> None:
    """As in JSON: a question with an answer that is said to have none."""
    (tmp_path / "a.csv").write_text(
        "id,context,question,answer_text,answer_start,is_impossible\n"
        f"a,It opened in 1912.,When?,1912,13,{cell}\n"
    )
    _, rejections = read_examples(tmp_path / "a.csv")
    assert rejections["reason"].to_pylist() == ["contradictory answers"] * num_rejected


@pytest.mark.parametrize(
    "name", [name for name in WRITERS if "csv" not in name and "tsv" not in name]
)
def test_an_escaped_null_character_is_a_character(tmp_path: Path, name: str) -> None:
    """JSON and Parquet can hold it, and then it counts; only a bare byte is damage."""
    context = "It\0 opened in 1912."
    row = make_row(context=context, answers=[{"text": "1912", "answer_start": 14}])
    examples, rejections = read_examples(write_file(tmp_path, name, [row]))
    assert len(rejections) == 0
    assert examples["context"].to_pylist() == [context]


def test_a_csv_field_may_be_longer_than_the_csv_module_allows(tmp_path: Path) -> None:
    """Its own limit is 131,072 characters; contexts are longer."""
    write_csv(tmp_path / "a.csv", [make_row(context="word " * 100_000, answers=[])])
    assert len(read_examples(tmp_path / "a.csv")[0]) == 1


def test_csv_that_ends_inside_quotes_is_an_error(tmp_path: Path) -> None:
    """One quote too many would swallow the rest of the file into one field."""
    (tmp_path / "a.csv").write_text('id,context,question,answers\na,It,?,\nb,"It,?,\nc,It,?,\n')
    message = r"a\.csv: the file ends inside a quoted field of the row that begins at line 3"
    with pytest.raises(DataError, match=message):
        read_examples(tmp_path / "a.csv")


@pytest.mark.parametrize("column", ["context", "question", "id", "answers"])
def test_parquet_texts_that_are_not_utf8_reject_their_row(tmp_path: Path, column: str) -> None:
    """Arrow does not check them; the other rows of the batch are kept."""
    table = pa.Table.from_pylist([make_row("a"), make_row("bad"), make_row("b")], schema=PARQUET)
    broken = pa.array([b"caf\xe9 1912"], pa.binary()).view(pa.string())
    if column == "answers":
        pairs = pa.StructArray.from_arrays(
            [broken, pa.array([4], pa.int64())], names=["text", "answer_start"]
        )
        broken = pa.ListArray.from_arrays([0, 1], pairs)
    at = PARQUET.get_field_index(column)
    whole = table[column].combine_chunks()
    table = table.set_column(at, column, pa.concat_arrays([whole[:1], broken, whole[2:]]))
    parquet.write_table(table, tmp_path / "a.parquet")
    examples, rejections = read_examples(tmp_path / "a.parquet")
    assert examples["id"].to_pylist() == ["a", "b"]
    reasons = {"id": "missing id", "answers": "malformed answers"}
    assert rejections["reason"].to_pylist() == [reasons.get(column, "invalid Unicode")]
    assert rejections["record"].to_pylist() == [1]


def test_parquet_cut_short_is_an_error(tmp_path: Path) -> None:
    """Its index stands at the end; a hole in the middle is found while reading."""
    rows = [make_row(f"q{n}", question=f"When, {n * 7919}?") for n in range(2000)]
    file = Path(write_file(tmp_path, "table.parquet", rows))
    whole = file.read_bytes()
    middle = len(whole) // 3
    for content in (
        whole[:-100],
        b"id,context",
        whole[:middle] + bytes(400) + whole[middle + 400 :],
    ):
        file.write_bytes(content)
        with pytest.raises(DataError, match=r"table\.parquet: not Parquet, or cut short \(.+\)"):
            read_examples(file)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"", "the file is empty"),
        ("a.jsonl", b"\n \n", "the file is empty"),
        ("a.jsonl", b'{"header": {}}\n', "the file has no records"),
        ("a.json", b'{"header": {}}\n', "the file has no records"),
        ("a.json", b'{"data": [], "split": "dev"}', "the file has no articles"),
        ("a.csv", b"", "the file is empty"),
        ("a.tsv", b"\n", "the file is empty"),
        ("a.csv", b"id,context,question,answers\n", "the file has no records"),
        ("a.csv", b'"id,context\n', "the file ends inside|no header row"),
        ("a.json.gz", gzip.compress(b""), "the file is empty"),
        ("a.json.gz", b"", "the file is empty"),
        ("a.parquet", b"", "not Parquet"),
    ],
)
def test_a_file_without_records_is_an_error(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    """An export that failed must not pass for a data set."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{re.escape(name)}: ({message})"):
        read_examples(tmp_path / name)


def test_a_parquet_file_without_rows_is_an_error(tmp_path: Path) -> None:
    """As in the other formats."""
    write_parquet(tmp_path / "a.parquet", [])
    with pytest.raises(DataError, match=r"a\.parquet: the file has no records"):
        read_examples(tmp_path / "a.parquet")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nested.json", "lines.jsonl", "table.csv", "table.parquet"])
def test_a_record_of_a_hundred_megabytes_is_rejected(tmp_path: Path, name: str) -> None:
    """A whole file in one field: read, refused and forgotten, and the next record is read."""
    rows = [make_row("q1"), make_row("bad", context="It opened. " * 9_500_000), make_row("q2")]
    examples, rejections = read_examples(write_file(tmp_path, name, rows))
    assert examples["id"].to_pylist() == ["q1", "q2"]
    assert rejected_rows(rejections) == [(1, "bad", "context too long")]
    assert max(map(len, rejections["detail"].to_pylist())) < 300


def test_writers_write_what_their_tests_need(tmp_path: Path) -> None:
    """The nested file of the other tests is the nested file of these."""
    write_nested(tmp_path / "a.json", [make_row("a")])
    write_list(tmp_path / "b.json", [make_row("a")])
    write_mrqa(tmp_path / "c.jsonl", [make_row("a")])
    files = [str(tmp_path / name) for name in ("a.json", "b.json", "c.jsonl")]
    files.append(write_questions(tmp_path / "d.json", make_row("a")))
    tables = [read_examples(file)[0].drop_columns("source") for file in files]
    assert all(table == tables[0] for table in tables)
