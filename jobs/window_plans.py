"""The work on the cluster that counts windows: what a window size costs and could reach."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from jobs.configuration import FeatureSettings
from jobs.prepared import Piece, Prepared, make_windows
from jobs.token_store import TokenStore, read_shard, with_tuples
from qa_core.features import EncodedExamples, find_unfit, roomless_detail
from qa_core.planning import WindowPlan, merge_plans, plan_examples
from qa_core.reading import reject_rows
from qa_core.token_tables import plain_examples
from qa_core.windowing import split_rows

ROOMLESS = "question leaves no room"
TOKENS_PER_PIECE = 2**20  # 30 MB of features and logits; a shard of usual passages has a tenth


def plan_windows(store: TokenStore, sizes: Sequence[FeatureSettings]) -> list[WindowPlan]:
    """What each of `sizes` costs and could reach, over all shards."""
    rows = map_shards(store, partial(_plan_shard, store=store, sizes=list(sizes)))
    plans = [[WindowPlan(**with_tuples(plan)) for plan in json.loads(row["plans"])] for row in rows]
    return [merge_plans(of_size) for of_size in zip(*plans, strict=True)]


def count_windows(
    store: TokenStore, sizes: Sequence[FeatureSettings], *, here: bool = False
) -> list[Prepared]:
    """The store cut into windows of each of `sizes`: what that gives, over all shards.

    `here` counts in this process, one shard after another, while the cluster does other things.
    """
    count = partial(_count_shard, store=store, sizes=list(sizes), tokens_per_piece=TOKENS_PER_PIECE)
    rows = list(map(count, map(_row, store.shards))) if here else map_shards(store, count)
    by_shard = [json.loads(row["counts"]) for row in rows]
    return [
        _merge_counts(store, settings, [counts[number] for counts in by_shard])
        for number, settings in enumerate(sizes)
    ]


def _merge_counts(
    store: TokenStore, settings: FeatureSettings, counted: list[dict[str, Any]]
) -> Prepared:
    names = ("num_unanswerable", "num_features", "num_tokens")
    return Prepared(
        store=store,
        settings=settings,
        plan=merge_plans([WindowPlan(**with_tuples(counts["plan"])) for counts in counted]),
        longest=max((counts["longest"] for counts in counted), default=0),
        roomless=tuple(row for counts in counted for row in counts["roomless"]),
        pieces=tuple(
            Piece(shard, *piece)
            for shard, counts in zip(store.shards, counted, strict=True)
            for piece in counts["pieces"]
        ),
        **{name: sum(counts[name] for counts in counted) for name in names},
    )


def map_shards(store: TokenStore, function: Any) -> list[dict[str, Any]]:
    """What `function` gives for every shard, in their order."""
    shards = [_row(shard) for shard in store.shards]
    blocks = min(len(shards), max(1, 4 * int(ray.cluster_resources().get("CPU", 1))))
    rows = ray.data.from_items(shards, override_num_blocks=blocks).map(function).take_all()
    return sorted(rows, key=lambda row: str(row["shard"]))


def _row(shard: str) -> dict[str, Any]:
    return {"shard": shard}


def _plan_shard(
    row: dict[str, Any], *, store: TokenStore, sizes: list[FeatureSettings]
) -> dict[str, Any]:
    stored, encoded = read_shard(store, row["shard"])
    examples = plain_examples(stored)
    plans = [asdict(_plan(examples, encoded, settings)) for settings in sizes]
    return {"shard": row["shard"], "plans": json.dumps(plans)}


def _count_shard(
    row: dict[str, Any],
    *,
    store: TokenStore,
    sizes: list[FeatureSettings],
    tokens_per_piece: int,
) -> dict[str, Any]:
    stored, encoded = read_shard(store, row["shard"])
    counts = [_count(stored, encoded, settings, tokens_per_piece) for settings in sizes]
    return {"shard": row["shard"], "counts": json.dumps(counts)}


def _count(
    stored: pa.Table, encoded: EncodedExamples, settings: FeatureSettings, tokens_per_piece: int
) -> dict[str, Any]:
    windows = make_windows(stored, encoded, settings)
    example, lengths = windows.planned.windows.example, windows.planned.layout.length
    tokens = np.bincount(example, weights=lengths, minlength=len(windows.stored))
    return {
        "plan": asdict(_plan(plain_examples(stored), encoded, settings)),
        "num_unanswerable": int(np.sum(windows.encoded.spans.counts == 0)),
        "num_features": len(lengths),
        "num_tokens": int(lengths.sum()),
        "longest": int(lengths.max(initial=0)),
        "roomless": _reject_roomless(stored, encoded, settings),
        "pieces": split_rows(tokens.astype(np.int64), most=tokens_per_piece),
    }


def _plan(examples: pa.Table, encoded: EncodedExamples, settings: FeatureSettings) -> WindowPlan:
    return plan_examples(
        examples,
        encoded,
        max_length=settings.max_length,
        doc_stride=settings.doc_stride,
        labels=settings.labels,
    )


def _reject_roomless(
    stored: pa.Table, encoded: EncodedExamples, settings: FeatureSettings
) -> list[dict[str, Any]]:
    """Rows of REJECTIONS for the examples that cannot be cut into windows."""
    sizes = {"max_length": settings.max_length, "doc_stride": settings.doc_stride}
    unfit = find_unfit(encoded, **sizes).tolist()
    records = stored["record"].to_pylist()
    rejected = [
        reject_rows(
            stored,
            [row],
            records=records,
            reason=ROOMLESS,
            detail=roomless_detail(encoded, row, settings.max_length, settings.doc_stride),
        )
        for row in unfit
    ]
    return [row for table in rejected for row in table.to_pylist()]
