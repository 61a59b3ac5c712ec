"""explorer.parquet: the answers of a run beside questions, contexts and accepted answers.

What the report shows of them: all of a small data set, a part of a large one, in bounded memory.
"""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from jobs.prepared import Prepared, ShardWindows, piece_windows
from jobs.shard_scoring import Scored
from jobs.token_store import shard_file
from qa_core.decoding import apply_null_threshold
from qa_core.exploring import CANDIDATES, Explorer, explored_rows
from qa_core.presenting import present_answers
from qa_core.scoring import given_scores
from qa_core.storage import join, read_table, write_parquet

EXPLORER = "explorer.parquet"


def write_explorer(run: str, explorer: Explorer) -> None:
    """Write what was collected."""
    write_parquet(join(run, EXPLORER), explorer.table())


def explore_scored(
    prepared: Prepared, scored: Scored, *, scoring: str, threshold: float | None
) -> Explorer:
    """The answers of a scored model, with windows and candidates; `scoring` is their folder."""
    explorer = Explorer()
    given = given_scores(scored.scores, null_threshold=threshold)
    for piece in prepared.pieces:
        windows = piece_windows(prepared, piece)
        kept = np.flatnonzero(explorer.wanted(windows.examples["context"]))
        if not len(kept):
            continue
        answers = read_table(shard_file(scoring, "answers", piece.name)).take(pa.array(kept))
        if threshold is not None:
            answers = apply_null_threshold(answers, threshold)
        examples = windows.examples.take(pa.array(kept))
        rows = explored_rows(
            examples,
            present_answers(answers, top_k=CANDIDATES, has_null=threshold is not None),
            given=given,
            facts=scored.facts,
            windows=window_characters(windows, kept),
        )
        explorer.add(rows)
    return explorer


def window_characters(
    windows: ShardWindows, examples: NDArray[np.int64]
) -> list[tuple[list[int], list[int]]]:
    """First and end characters of the windows of each of these examples, in their order."""
    encoded, plan = windows.encoded, windows.planned.windows
    texts = encoded.texts
    first = texts.splits[encoded.context_of[plan.example]] + plan.start  # (windows,)
    last = first + np.maximum(plan.length, 1) - 1
    is_empty = plan.length == 0  # of a context without tokens
    starts = np.where(is_empty, 0, texts.offsets[np.minimum(first, len(texts.offsets) - 1), 0])
    ends = np.where(is_empty, 0, texts.offsets[np.minimum(last, len(texts.offsets) - 1), 1])
    begin = np.searchsorted(plan.example, examples, side="left")
    stop = np.searchsorted(plan.example, examples, side="right")
    pairs = zip(begin.tolist(), stop.tolist(), strict=True)
    return [(starts[a:b].tolist(), ends[a:b].tolist()) for a, b in pairs]
