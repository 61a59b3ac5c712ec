"""Writes the same records in every format a source may have."""

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

Rows = list[dict[str, Any]]  # id, title, context, question, answers as a list of objects

TEXT = pa.string()
PARQUET = pa.schema(
    [
        *((name, TEXT) for name in ("id", "title", "context", "question")),
        ("answers", pa.list_(pa.struct([("text", TEXT), ("answer_start", pa.int64())]))),
        ("is_impossible", pa.bool_()),
    ]
)


def in_columns(row: dict[str, Any]) -> dict[str, Any]:
    """The row with its answers as lists of texts and of starts."""
    answers = row.get("answers") or []
    lists = {name: [answer[name] for answer in answers] for name in ("text", "answer_start")}
    return row | {"answers": lists}


def write_nested(file: Path, rows: Rows) -> None:
    """SQuAD's JSON, a paragraph for each row."""
    articles = [
        {
            "title": row.get("title"),
            "paragraphs": [
                {"context": row.get("context"), "qas": [row]}
                if "context" in row
                else {"qas": [row]}
            ],
        }
        for row in rows
    ]
    file.write_text(json.dumps({"version": "v2.0", "data": articles}))


def write_list(file: Path, rows: Rows) -> None:
    """A JSON list of records."""
    file.write_text(json.dumps(rows, indent=1))


def write_data_list(file: Path, rows: Rows) -> None:
    """What run_qa writes and reads."""
    file.write_text(json.dumps({"version": "v2.0", "data": rows}))


def write_lines(file: Path, rows: Rows) -> None:
    """A record a line; packed where the name says so."""
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    file.write_bytes(gzip.compress(content) if file.suffix == ".gz" else content)


def write_column_lines(file: Path, rows: Rows) -> None:
    """JSON lines with answers as lists."""
    write_lines(file, [in_columns(row) for row in rows])


def write_csv(file: Path, rows: Rows, *, delimiter: str = ",") -> None:
    """Answers as JSON text."""
    names = ["id", "title", "context", "question", "answers"]
    text = io.StringIO()
    writer = csv.DictWriter(text, names, delimiter=delimiter, extrasaction="ignore")
    writer.writeheader()
    writer.writerows([row | {"answers": json.dumps(row.get("answers"))} for row in rows])
    file.write_bytes(text.getvalue().encode("utf-8"))


def write_tsv(file: Path, rows: Rows) -> None:
    """The same with tabs, and with answers as lists."""
    write_csv(file, [in_columns(row) for row in rows], delimiter="\t")


def write_plain_csv(file: Path, rows: Rows) -> None:
    """One answer at most, in columns of its own."""
    names = ["id", "title", "context", "question", "answer_text", "answer_start"]
    with file.open("w", encoding="utf-8-sig", newline="") as text:
        writer = csv.writer(text)
        writer.writerow(names)
        for row in rows:
            first = (row.get("answers") or [{"text": "", "answer_start": ""}])[0]
            cells = [row.get(name, "") for name in names[:4]]
            writer.writerow([*cells, first["text"], first["answer_start"]])


def write_mrqa(file: Path, rows: Rows) -> None:
    """MRQA's lines under their header: spans with inclusive ends."""
    lines: Rows = [{"header": {"dataset": "Orla", "split": "dev"}}]
    for row in rows:
        detected = [
            {
                "text": answer["text"],
                "char_spans": [
                    [answer["answer_start"], answer["answer_start"] + len(answer["text"]) - 1]
                ],
            }
            for answer in row.get("answers") or []
        ]
        question = {"qid": row.get("id"), "question": row.get("question")}
        qas = [question | {"detected_answers": detected, "answers": ["as asked"]}]
        lines.append({"title": row.get("title"), "context": row.get("context"), "qas": qas})
    write_lines(file, lines)


def write_parquet(file: Path, rows: Rows) -> None:
    """Answers as lists of objects, in row groups of two."""
    parquet.write_table(pa.Table.from_pylist(rows, schema=PARQUET), file, row_group_size=2)


def write_column_parquet(file: Path, rows: Rows) -> None:
    """Answers as an object of lists, as `datasets` writes them; other columns beside ours."""
    parquet.write_table(
        pa.Table.from_pylist([in_columns(row) | {"n": n} for n, row in enumerate(rows)]), file
    )


WRITERS: dict[str, Callable[[Path, Rows], None]] = {
    "nested.json": write_nested,
    "list.json": write_list,
    "data.json": write_data_list,
    "lines.json": write_lines,
    "lines.jsonl": write_lines,
    "lines.ndjson": write_column_lines,
    "lines.jsonl.gz": write_lines,
    "mrqa.jsonl": write_mrqa,
    "mrqa.jsonl.gz": write_mrqa,
    "table.csv": write_csv,
    "table.tsv": write_tsv,
    "plain.csv": write_plain_csv,
    "table.parquet": write_parquet,
    "columns.parquet": write_column_parquet,
}
JSON_NAMES = [name for name in WRITERS if ".json" in name and "mrqa" not in name]
