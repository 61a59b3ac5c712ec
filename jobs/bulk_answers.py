"""Answers to all questions of prepared data: logits on actors, files of answers by remote tasks.

A piece of the data becomes one file, written whole. What comes back to the job's own process is
two counts a piece.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from jobs.cluster import count_scorers
from jobs.configuration import DecodingSettings
from jobs.prepared import Piece, Prepared, piece_windows
from jobs.shard_scoring import DECODING_CPUS, decoding_tasks, piece_logits, piece_of
from qa_core.decoding import decode_answers
from qa_core.presenting import present_answers
from qa_core.storage import (
    join,
    list_files,
    read_bytes,
    read_parquet,
    write_json_lines,
    write_parquet,
)


@dataclass(frozen=True)
class AnswerFiles:
    """The files of answers of a run, one a piece of its data; names sort as the data stands."""

    folder: str
    format: Literal["jsonl", "parquet"]

    def name(self, piece: Piece) -> str:
        """Name of a piece's file."""
        return f"answers-{piece.name}.{self.format}"

    def path(self, piece: Piece) -> str:
        """Path or URI of a piece's file."""
        return join(self.folder, self.name(piece))


@dataclass(frozen=True)
class AnswerRules:
    """How logits become the rows of a file."""

    decoding: DecodingSettings
    null_threshold: float | None  # None: the null answer is no candidate
    top_k: int  # candidates listed for a question


@dataclass(frozen=True)
class AnswerCounts:
    """What the files of answers hold."""

    num_questions: int = 0
    num_unanswered: int = 0  # the null answer was given

    def merge(self, other: "AnswerCounts") -> "AnswerCounts":
        """The counts of both."""
        return AnswerCounts(
            self.num_questions + other.num_questions, self.num_unanswered + other.num_unanswered
        )


def find_answered(prepared: Prepared, files: AnswerFiles) -> list[Piece]:
    """The pieces whose file is there."""
    names = {file.rpartition("/")[2] for file in list_files(files.folder, recursive=False)}
    return [piece for piece in prepared.pieces if files.name(piece) in names]


def answer_pieces(
    model: str,
    prepared: Prepared,
    pieces: Sequence[Piece],
    *,
    files: AnswerFiles,
    rules: AnswerRules,
    use_gpu: bool,
) -> AnswerCounts:
    """Write the files of these pieces; runs on as many actors as there are CPUs or GPUs free."""
    if not pieces:
        return AnswerCounts()
    logits = piece_logits(model, prepared, pieces, use_gpu=use_gpu)
    answer = partial(answer_piece, prepared=prepared, files=files, rules=rules)
    tasks = decoding_tasks(count_scorers(use_gpu=use_gpu))
    return _sum_counts(logits.map(answer, compute=tasks, num_cpus=DECODING_CPUS).iter_rows())


def answer_piece(
    row: dict[str, Any], *, prepared: Prepared, files: AnswerFiles, rules: AnswerRules
) -> dict[str, Any]:
    """Write the answers of a piece, whose logits `row` has; `AnswerCounts` as a row."""
    piece = piece_of(row)
    windows = piece_windows(prepared, piece)
    decoding = asdict(rules.decoding)
    answers = decode_answers(
        windows.features,
        np.asarray(row["start_logits"]),
        np.asarray(row["end_logits"]),
        examples=windows.examples,
        **{**decoding, "n_best": max(rules.top_k, decoding["n_best"])},
        null_threshold=rules.null_threshold,
    )
    has_null = rules.null_threshold is not None
    table = present_answers(answers, top_k=rules.top_k, has_null=has_null)
    write_answer_file(files.path(piece), table)
    return asdict(_count(table["start"]))


def count_answers(pieces: Sequence[Piece], files: AnswerFiles) -> AnswerCounts:
    """What the files of these pieces, written before, hold; read by remote tasks."""
    if not pieces:
        return AnswerCounts()
    rows = [{"path": files.path(piece)} for piece in pieces]
    return _sum_counts(ray.data.from_items(rows).map(_count_file).iter_rows())


def write_answer_file(path: str, table: pa.Table) -> None:
    """Write a table of `PREDICTED` whole, as JSON lines or Parquet as the name says."""
    if path.endswith(".jsonl"):
        write_json_lines(path, table.to_pylist())
        return
    write_parquet(path, table)


def _count_file(row: dict[str, Any]) -> dict[str, Any]:
    """`AnswerCounts` of one file."""
    path = row["path"]
    if path.endswith(".jsonl"):
        lines = read_bytes(path).split(b"\n")[:-1]
        return asdict(_count(pa.array([json.loads(line)["start"] for line in lines], pa.int32())))
    return asdict(_count(read_parquet(path, ["start"])["start"]))


def _count(starts: pa.Array | pa.ChunkedArray) -> AnswerCounts:
    return AnswerCounts(len(starts), int(pc.sum(pc.less(starts, 0)).as_py() or 0))


def _sum_counts(rows: Iterable[dict[str, Any]]) -> AnswerCounts:
    total = AnswerCounts()
    for row in rows:
        total = total.merge(AnswerCounts(**{name: int(value) for name, value in row.items()}))
    return total
