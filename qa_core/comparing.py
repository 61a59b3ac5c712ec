"""report: the answers of one run, or of several to the same questions, as the page takes them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qa_core.analysis import compare_scores
from qa_core.errors import DataError
from qa_core.run_files import RunFiles
from qa_core.schemas import EXPLORED
from qa_core.scoring import IDS_SHOWN, GivenScores

SHARED = ("question", "context_key", "gold_starts", "gold_ends")  # alike in all runs
GROUPS = ("question_word", "answer_words", "context_tokens", "num_windows", "source")


@dataclass
class Comparison:
    """Questions with the answers that runs gave them; of one run, too."""

    table: pa.Table  # EXPLORED, of the first run
    names: list[str]
    others: list[pa.Table] = field(default_factory=list)  # EXPLORED, row by row the same questions
    num_questions: int = 0  # of the data; more than the table has where it shows a part
    differences: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)


def compare_answers(runs: Sequence[RunFiles]) -> Comparison:
    """The questions that all runs show; a paired bootstrap of the first run and each other.

    Raises `DataError` where the runs have answered other questions; a question that one of them
    lists as rejected is no such question. Runs without answers are noted and left out.
    """
    with_answers = [run for run in runs if run.explorer is not None]
    if len({run.name for run in runs}) < len(runs):
        raise DataError(
            f"two runs are called {runs[0].name}" if len(runs) == 2 else "runs share a name",
            where="comparing runs",
            expected="runs of different names",
            remedy="give each run once",
        )
    if not with_answers:
        return Comparison(EXPLORED.empty_table(), [])
    for run in runs:
        if run.explorer is None:
            run.notes.append("Its answers are not there, so they are not compared.")
    tables = _same_questions(with_answers)
    abouts = [run.explorer.schema.metadata for run in with_answers if run.explorer is not None]
    compared = Comparison(
        tables[0],
        [run.name for run in with_answers],
        tables[1:],
        max(int(about[b"num_questions"]) for about in abouts),
    )
    if len(tables[0]):
        ours = _given(tables[0])
        for run, table in zip(with_answers[1:], tables[1:], strict=True):
            found = compare_scores(ours, _given(table))
            compared.differences.append((with_answers[0].name, run.name, found))
    return compared


def _same_questions(runs: Sequence[RunFiles]) -> list[pa.Table]:
    """The rows of questions that all runs show, by id."""
    tables = [run.explorer for run in runs if run.explorer is not None]
    below = min(int(table.schema.metadata[b"below"]) for table in tables)
    if below < 2**64:
        limit = pa.scalar(below, pa.uint64())
        tables = [table.filter(pc.less(table["context_key"], limit)) for table in tables]
    rejected = set().union(*(run.rejected_ids for run in runs))
    tables = [_without(table, rejected) for table in tables] if len(tables) > 1 else tables
    for run, table in zip(runs[1:], tables[1:], strict=True):
        problem = _difference(tables[0], table)
        if problem:
            raise DataError(
                f"{runs[0].name} and {run.name} {problem}",
                where="comparing runs",
                expected="runs scored on the same questions",
                remedy="score both on the same data with jobs.evaluate",
            )
    return tables


def _without(table: pa.Table, ids: set[str]) -> pa.Table:
    return table.filter(pc.invert(pc.is_in(table["id"], pa.array(sorted(ids), pa.string()))))


def _difference(first: pa.Table, second: pa.Table) -> str:
    """What keeps two runs from being compared; nothing where their questions are the same."""
    ids, others = (set(table["id"].to_pylist()) for table in (first, second))
    if ids != others:
        alone = sorted(ids ^ others)
        listed = ", ".join(alone[:IDS_SHOWN])
        return f"answered other questions: {len(alone)} are in one of them alone ({listed})"
    for name in SHARED:
        columns = [table[name].combine_chunks() for table in (first, second)]
        if not columns[0].equals(columns[1]):
            pairs = zip(*(column.to_pylist() for column in columns), strict=True)
            rows = [row for row, (one, two) in enumerate(pairs) if one != two]
            listed = ", ".join(first["id"].take(pa.array(rows[:IDS_SHOWN])).to_pylist())
            what = {"question": "question", "context_key": "context"}.get(name, "accepted answers")
            return f"have another {what} under the same id, {len(rows)} times ({listed})"
    return ""


def _given(table: pa.Table) -> GivenScores:
    counts = pc.list_value_length(table["gold_starts"]).to_numpy()
    texts = np.array([bool(text) for text in table["answer"].to_pylist()], np.bool_)
    ids = np.array(table["id"].to_pylist(), object)
    exact, f1 = (table[name].to_numpy() for name in ("exact", "f1"))
    return GivenScores(ids, np.asarray(counts > 0, np.bool_), texts, exact, f1)


def pack_answers(compared: Comparison) -> dict[str, Any]:
    """Columns of the page's answers; {} where there are none.

    `contexts` are the distinct texts that are shown; lists of numbers are flat, with the number of
    each row's before them, so that they pack well.
    """
    table = compared.table
    if not len(table):
        return {}
    encoded = table["context"].combine_chunks().dictionary_encode()
    groups = {}
    for name in GROUPS:
        column = table[name].combine_chunks()
        if column.null_count < len(column):
            coded = column.dictionary_encode()
            names = coded.dictionary.to_pylist()
            groups[name] = {"names": names, "of": coded.indices.to_pylist()}
    return {
        "runs": compared.names,
        "id": table["id"].to_pylist(),
        "question": table["question"].to_pylist(),
        "contexts": encoded.dictionary.to_pylist(),
        "context": encoded.indices.to_pylist(),
        "context_start": table["context_start"].to_pylist(),
        "context_length": table["context_length"].to_pylist(),
        "golds": _pairs(table, "gold_starts", "gold_ends"),
        "groups": groups,
        "answers": [_pack_run(run) for run in (table, *compared.others)],
    }


def _pack_run(table: pa.Table) -> dict[str, Any]:
    flat = pc.list_flatten(table["n_best_probabilities"]).to_numpy()
    return {
        "answer": table["answer"].to_pylist(),
        "start": table["start"].to_pylist(),
        "end": table["end"].to_pylist(),
        "probability": _rounded(table["probability"], 4),
        "null_odds": _rounded(table["null_odds"], 3),
        "exact": [int(value) for value in table["exact"].to_pylist()],
        "f1": _rounded(table["f1"], 4),
        "n_best": _pairs(table, "n_best_starts", "n_best_ends"),
        "n_best_probability": [round(float(value), 4) for value in flat],
        "windows": _pairs(table, "window_starts", "window_ends"),
    }


def _rounded(column: pa.ChunkedArray, digits: int) -> list[float | None]:
    return [None if value is None else round(value, digits) for value in column.to_pylist()]


def _pairs(table: pa.Table, starts: str, ends: str) -> dict[str, list[int]]:
    """Half-open ranges of each row: how many there are, their starts, and their lengths."""
    first, last = (pc.list_flatten(table[name]).to_numpy() for name in (starts, ends))
    counts = pc.list_value_length(table[starts]).to_pylist()
    return {"counts": counts, "starts": first.tolist(), "lengths": (last - first).tolist()}
