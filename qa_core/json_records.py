"""Records of JSON files: SQuAD's nested JSON, lists of records, JSON lines, MRQA's among them.

Nested JSON and lists are read a paragraph or record at a time, lines a line at a time.
"""

import codecs
import itertools
import json
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import Any

from qa_core.errors import DataError
from qa_core.json_stream import JSON_SHAPES, SQUAD_JSON, TOO_LONG, JsonStream
from qa_core.lines import split_lines
from qa_core.mrqa import mrqa_question
from qa_core.records import (
    ReadingRules,
    Record,
    first_record_hints,
    flat_record,
    rename_fields,
    short_repr,
)

ARTICLE_CHARACTERS = 2**23  # a longer article is read a paragraph at a time

Question = Callable[[Mapping[str, Any], Any, ReadingRules], Mapping[str, Any]]


def json_records(pieces: Iterable[bytes], source: str, rules: ReadingRules) -> Iterator[Record]:
    """The records of a .json file: one document, or lines where the first is a whole record.

    Lines are recognised in the first piece. A title that follows the paragraphs of an article of
    over `ARTICLE_CHARACTERS` is not seen: it is "" then.
    """
    pieces = iter(pieces)
    head = next(pieces, b"")
    pieces = itertools.chain([head], pieces)
    if _begins_with_record(head, rules):
        return json_line_records(pieces, source, rules)
    return _document_records(JsonStream(pieces, source), source, rules)


def _begins_with_record(head: bytes, rules: ReadingRules) -> bool:
    """Whether the first line is an object, no SQuAD document, and a record or not the only line."""
    line, _, rest = head.removeprefix(codecs.BOM_UTF8).lstrip().partition(b"\n")
    if not line.startswith(b"{"):
        return False
    try:
        value = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        return False
    is_record = rules.column("context") in value or "header" in value
    return not isinstance(value.get("data"), list) and (is_record or bool(rest.strip()))


def _document_records(stream: JsonStream, source: str, rules: ReadingRules) -> Iterator[Record]:
    opening = stream.peek()
    if not opening:
        raise DataError("the file is empty", source, SQUAD_JSON)
    if opening == "[":
        num_items = yield from _item_records(stream, "", source, rules)
        stream.finish()
        found = None if num_items else "the file has no records"
    elif opening == "{":
        found = yield from _object_records(stream, source, rules)
        stream.finish()
    else:
        stream.value()
        stream.finish()
        found = "JSON, but not SQuAD's (no object)"
    if found:
        expected = SQUAD_JSON if found.startswith("the file") else JSON_SHAPES
        raise DataError(found, source, expected)


def _object_records(
    stream: JsonStream, source: str, rules: ReadingRules
) -> Generator[Record, None, str | None]:
    """The records in an object's list data; what is wrong where there are none."""
    keys, num_items = set(), None
    for key in stream.keys():  # noqa: SIM118 - no dict
        keys.add(key)
        if key == "data" and stream.peek() == "[":
            num_items = yield from _item_records(stream, "data", source, rules)
        else:
            stream.skip()
    if num_items is None:
        return f"JSON, but not SQuAD's (keys {sorted(keys)[:8]})"
    return None if num_items else "the file has no articles"


def _item_records(
    stream: JsonStream, prefix: str, source: str, rules: ReadingRules
) -> Generator[Record, None, int]:
    """The records in a list of articles, or of flat records as its first item says; its length."""
    is_flat, hints, number = False, {}, -1
    for number in stream.elements():
        place = f"{prefix}[{number}]"
        item = stream.value(limit=ARTICLE_CHARACTERS)
        if item is TOO_LONG:
            item = yield from _long_item_records(stream, place, rules)
            if item is TOO_LONG:
                continue
        if number == 0:
            if not prefix and not isinstance(item, dict):
                found = f"JSON, but not SQuAD's (a list that begins with {short_repr(item)})"
                raise DataError(found, source, JSON_SHAPES)
            is_flat = _is_flat(item, rules)
            hints = first_record_hints(item, rules) if is_flat else {}
        if is_flat and not (isinstance(item, dict) and "paragraphs" in item):
            yield flat_record(item, place, rules, hints)
        else:
            yield from article_records(item, place, rules)
    return number + 1


def _is_flat(item: Any, rules: ReadingRules) -> bool:
    """Whether an item is a record of its own: an object of more than an article's title."""
    is_object = isinstance(item, dict) and "paragraphs" not in item
    return is_object and bool(set(item) - {rules.column("title")})


def _long_item_records(
    stream: JsonStream, place: str, rules: ReadingRules
) -> Generator[Record, None, Any]:
    """The records of a long article, a paragraph at a time; `TOO_LONG`, or an item of no article.

    `TOO_LONG` says that the item was an article and is dealt with.
    """
    if stream.peek() != "{":
        return stream.value()
    fields: dict[str, Any] = {}
    is_article = False
    for key in stream.keys():  # noqa: SIM118 - no dict
        if key == "paragraphs" and stream.peek() == "[":
            is_article = True
            for number in stream.elements():
                below = f"{place}.paragraphs[{number}]"
                title = fields.get(rules.column("title"))
                yield from paragraph_records(stream.value(), below, title, rules)
        else:
            fields[key] = stream.value()
    return TOO_LONG if is_article else fields


def article_records(article: Any, place: str, rules: ReadingRules) -> Iterator[Record]:
    """The records of an article of SQuAD's nested JSON."""
    paragraphs = article.get("paragraphs") if isinstance(article, dict) else None
    if not isinstance(paragraphs, list):
        yield Record(place, {}, "expected an object with a list of paragraphs")
        return
    title = article.get(rules.column("title"))
    for number, paragraph in enumerate(paragraphs):
        yield from paragraph_records(paragraph, f"{place}.paragraphs[{number}]", title, rules)


def squad_question(question: Mapping[str, Any], _: Any, rules: ReadingRules) -> Mapping[str, Any]:
    """A question of SQuAD's nested JSON, by our names."""
    return rename_fields(question, rules)


def paragraph_records(
    paragraph: Any,
    place: str,
    title: Any,
    rules: ReadingRules,
    read_question: Question = squad_question,
) -> Iterator[Record]:
    """The records of a context and its list `qas`."""
    questions = paragraph.get("qas") if isinstance(paragraph, dict) else None
    if not isinstance(questions, list):
        yield Record(place, {}, "expected an object with context and a list qas")
        return
    context = paragraph.get(rules.column("context"))
    for number, question in enumerate(questions):
        below = f"{place}.qas[{number}]"
        if isinstance(question, dict):
            fields = {**read_question(question, context, rules), "title": title, "context": context}
            yield Record(below, fields)
        else:
            yield Record(below, {}, f"expected an object, found {short_repr(question)}")


def json_line_records(
    pieces: Iterable[bytes], source: str, rules: ReadingRules
) -> Iterator[Record]:
    """The records of JSON lines: a flat record a line, or MRQA's paragraph; bad lines are named."""
    hints: dict[str, str] = {}
    num_lines = num_records = 0
    for number, line in enumerate(split_lines(pieces), start=1):
        if not line.strip():
            continue
        num_lines += 1
        value, problem = _decode_line(line)
        if num_lines == 1 and isinstance(value, dict):
            if "header" in value and rules.column("context") not in value:
                continue
            hints = {} if "qas" in value else first_record_hints(value, rules)
        for record in _line_records(value, problem, f"line {number}", rules, hints):
            num_records += 1
            yield record
    if not num_records:
        found = "the file has no records" if num_lines else "the file is empty"
        raise DataError(found, source, "a JSON object a line")


def _line_records(
    value: Any, problem: str, place: str, rules: ReadingRules, hints: Mapping[str, str]
) -> Iterator[Record]:
    if problem:
        yield Record(place, {}, problem)
    elif isinstance(value, dict) and "qas" in value:
        title = value.get(rules.column("title"))
        yield from paragraph_records(value, place, title, rules, mrqa_question)
    else:
        yield flat_record(value, place, rules, hints)


def _decode_line(line: bytes) -> tuple[Any, str]:
    """The value of a line, or what is wrong with it."""
    try:
        return json.loads(line.decode("utf-8")), ""
    except UnicodeDecodeError as error:
        return None, f"not UTF-8 at byte {error.start} of the line"
    except json.JSONDecodeError as error:
        return None, f"not JSON at column {error.colno} ({error.msg})"
    except (RecursionError, ValueError) as error:
        return None, f"JSON beyond all bounds ({error})"
