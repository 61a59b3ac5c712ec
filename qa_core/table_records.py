"""Records of sources with columns: CSV, TSV, Parquet, and the data sets of `datasets`.

Their columns and types are checked before the first record; rows come in small batches.
"""

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
from pyarrow import types

from qa_core.errors import DataError, first_line
from qa_core.lines import split_lines
from qa_core.records import (
    ReadingRules,
    Record,
    check_columns,
    rename_fields,
)
from qa_core.storage import open_file

ROWS_PER_BATCH = 128  # Parquet rows in memory at once: a context may be long
PLAIN_ANSWERS = ("answer_text", "answer_start")  # columns of CSV, in place of answers
LONGEST_FIELD = 2**30  # characters of a CSV field (the csv module's own limit is 131,072)
NOT_UTF8 = "\udc80"  # in place of a text that is not UTF-8: no check lets it pass

ANSWER_TYPES = "struct of lists text and answer_start, or list of structs of text and answer_start"


def csv_records(
    pieces: Iterable[bytes], source: str, rules: ReadingRules, *, delimiter: str
) -> Iterator[Record]:
    """The records of a CSV file with a header row; a row of another length is a bad record.

    A byte that is not UTF-8 becomes half of a surrogate pair, which the checks of texts find.
    """
    csv.field_size_limit(LONGEST_FIELD)
    lines = (line.decode("utf-8", "surrogateescape") + "\n" for line in split_lines(pieces))
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    header = _csv_header(reader, source, rules)
    num_records = 0
    while True:
        place = f"line {reader.line_num + 1}"
        try:
            row = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            if "unexpected end" in str(error):
                raise _unclosed_quote(place, source) from error
            row, problem = [""], f"not CSV ({error})"
        else:
            problem = _row_problem(row, header) if row else ""
        if row:  # else an empty line
            num_records += 1
            fields = {} if problem else _csv_fields(dict(zip(header, row, strict=True)), rules)
            yield Record(place, fields, problem)
    if not num_records:
        raise DataError("the file has no records", source, "rows below the header")


def _csv_header(reader: Any, source: str, rules: ReadingRules) -> list[str]:
    try:
        header: list[str] = next(reader, [])
    except csv.Error as error:
        raise DataError(f"no header row ({error})", source, "CSV with a header row") from error
    if not any(header):
        raise DataError("the file is empty", source, "CSV with a header row")
    is_plain = not rules.is_mapped("answers") and set(PLAIN_ANSWERS) <= set(header)
    names = [*header, "answers"] if is_plain and rules.has_answers else header
    check_columns(names, source, rules)
    return header


def _unclosed_quote(place: str, source: str) -> DataError:
    return DataError(
        f"the file ends inside a quoted field of the row that begins at {place}",
        where=source,
        expected='CSV whose quotes are closed and, inside a field, doubled ("")',
        remedy="check that the file is whole",
    )


def _row_problem(row: Sequence[str], header: Sequence[str]) -> str:
    if len(row) != len(header):
        return f"{len(row)} fields, expected {len(header)} as in the header"
    return "a null byte" if any("\0" in field for field in row) else ""


def _csv_fields(row: dict[str, Any], rules: ReadingRules) -> Mapping[str, Any]:
    """A row's fields by our names, answers as JSON has them."""
    if not rules.has_answers:
        return rename_fields(row, rules)
    column = rules.column("answers")
    row[column] = _json_answers(row[column]) if column in row else _plain_answers(row)
    if "is_impossible" in row:
        row["is_impossible"] = row["is_impossible"].strip().lower() in ("true", "1")
    return rename_fields(row, rules)


def _json_answers(text: str) -> Any:
    """What the JSON text says; the text itself, which is then found malformed, if it is none."""
    if not text.strip():
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _plain_answers(row: Mapping[str, str]) -> list[dict[str, Any]]:
    text, start = (row[name] for name in PLAIN_ANSWERS)
    if not text and not start:
        return []
    is_number = re.fullmatch(r"\s*[+-]?[0-9]{1,18}\s*", start)
    return [{"text": text, "answer_start": int(start) if is_number else start}]


def parquet_records(source: str, rules: ReadingRules) -> Iterator[Record]:
    """The records of a Parquet file, read a few rows at a time."""
    from pyarrow import parquet  # slow to import, and most runs read JSON

    with open_file(source) as stream:
        try:
            file = parquet.ParquetFile(stream, pre_buffer=False)
            schema = file.schema_arrow
            check_schema(schema, source, rules)
            columns = _columns_read(schema.names, rules)
            batches = file.iter_batches(batch_size=ROWS_PER_BATCH, columns=columns)
            yield from table_records(batches, source, rules)
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"not Parquet, or cut short ({first_line(error)})",
                where=source,
                expected="a Parquet file",
                remedy="check that the file is whole",
            ) from error


def dataset_records(dataset: Any, source: str, rules: ReadingRules) -> Iterator[Record]:
    """The records of a `datasets` data set."""
    check_schema(dataset.features.arrow_schema, source, rules)
    columns = _columns_read(dataset.column_names, rules)
    rows = dataset.select_columns(columns).with_format("arrow")
    return table_records(rows.iter(batch_size=ROWS_PER_BATCH), source, rules)


def _columns_read(found: Sequence[str], rules: ReadingRules) -> list[str]:
    used = {*(rules.column(name) for name in rules.read_columns), "is_impossible"}
    return [name for name in found if name in used]


def table_records(tables: Iterable[Any], source: str, rules: ReadingRules) -> Iterator[Record]:
    """The records of Arrow tables or batches, whose columns have been checked."""
    number = 0
    for table in tables:
        names = table.schema.names
        for row in zip(*map(_column_values, table.columns), strict=True):
            yield Record(f"row {number}", rename_fields(dict(zip(names, row, strict=True)), rules))
            number += 1
    if not number:
        raise DataError("the file has no records", source, "at least one row")


def _column_values(column: Any) -> list[Any]:
    """Python values of a column; one that is not UTF-8 becomes `NOT_UTF8`."""
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        values = [_cell_value(cell) for cell in column]
    return values


def _cell_value(cell: Any) -> Any:
    try:
        return cell.as_py()
    except UnicodeDecodeError:
        return NOT_UTF8


def check_schema(schema: pa.Schema, source: str, rules: ReadingRules) -> None:
    """Raise `DataError` unless the columns are there, each of a type that can be used."""
    check_columns(schema.names, source, rules)
    for name in rules.read_columns:
        column = rules.column(name)
        if column not in schema.names:
            continue
        kind = schema.field(column).type
        fits, expected = _fits(name, kind)
        if not fits:
            raise DataError(
                f"column {column!r} is of type {kind}",
                where=source,
                expected=expected,
                remedy=f"convert it, or set data.columns.{name} to another column",
            )


def _fits(name: str, kind: pa.DataType) -> tuple[bool, str]:
    """Whether a column's type can be used for our column `name`, and which can."""
    if name == "id":
        return _is_text(kind) or types.is_integer(kind), "texts or whole numbers"
    if name == "answers":
        return _are_answers(kind), ANSWER_TYPES
    return _is_text(kind), "texts"


def _are_answers(kind: pa.DataType) -> bool:
    if types.is_null(kind):
        return True
    if types.is_struct(kind):
        parts = _struct_types(kind)
        return (
            len(parts) == 2
            and all(map(_is_list, parts))
            and _are_answer_types([part.value_type for part in parts])
        )
    return _is_list(kind) and (
        types.is_null(kind.value_type) or _are_answer_types(_struct_types(kind.value_type))
    )


def _struct_types(kind: pa.DataType) -> list[pa.DataType]:
    """Types of the fields text and answer_start of a struct, where it has both."""
    if not types.is_struct(kind):
        return []
    indices = [kind.get_field_index(name) for name in ("text", "answer_start")]
    return [kind.field(index).type for index in indices if index >= 0]


def _are_answer_types(parts: Sequence[pa.DataType]) -> bool:
    if len(parts) != 2:
        return False
    return _is_text(parts[0]) and (types.is_integer(parts[1]) or types.is_null(parts[1]))


def _is_list(kind: pa.DataType) -> bool:
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _is_text(kind: pa.DataType) -> bool:
    if types.is_dictionary(kind):
        kind = kind.value_type
    return bool(
        types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_string_view(kind)
        or types.is_null(kind)
    )
