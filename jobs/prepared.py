"""Prepared data: the tokens of one split and the sizes of the windows they are cut into.

Windows are not stored: they are made from the tokens where they are needed, in less time than
reading them would take. What a window size gives is counted once and kept beside the tokens, in
`windows-*.json`.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, astuple, dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from jobs.configuration import FeatureSettings
from jobs.token_shards import digest_text
from jobs.token_store import REJECTED, TokenStore, load_store, read_shard, with_tuples
from qa_core.errors import DataError
from qa_core.features import (
    EncodedExamples,
    LabelledWindows,
    fill_features,
    find_unfit,
    label_examples,
)
from qa_core.feeding import WindowBlock
from qa_core.planning import WindowPlan
from qa_core.sampling import keep_null_windows, stratified_part
from qa_core.schemas import REJECTIONS
from qa_core.storage import is_file, join, read_bytes, write_bytes
from qa_core.token_tables import plain_examples


@dataclass(frozen=True)
class Piece:
    """Questions of a shard whose windows fit in memory together: what logits are computed of."""

    shard: str
    first: int  # of the shard's questions that can be cut into windows
    stop: int  # half-open

    @property
    def name(self) -> str:
        """Names its files."""
        return f"{self.shard}-{self.first:06d}"


@dataclass(frozen=True)
class Prepared:
    """One split as training and scoring take it; `load_prepared` reads it from its folder."""

    store: TokenStore
    settings: FeatureSettings
    plan: WindowPlan
    num_unanswerable: int
    num_features: int  # windows, after the sampling of null windows
    num_tokens: int  # real ones in them
    longest: int  # tokens of the longest of them
    roomless: tuple[dict[str, Any], ...]  # rows of REJECTIONS: the question leaves no room
    pieces: tuple[Piece, ...]  # all questions that can be cut into windows, in order
    part: float = 1.0  # of the questions, a fixed part of every shard; what `piece_windows` gives

    @property
    def folder(self) -> str:
        """Folder or URI of the tokens."""
        return self.store.folder

    @property
    def shards(self) -> tuple[str, ...]:
        """Names of the shards, in the order of the sources."""
        return self.store.shards

    @property
    def num_examples(self) -> int:
        """Questions that can be cut into windows."""
        return self.plan.num_examples

    @property
    def num_rejected(self) -> int:
        """Records that cannot be used, for what they are or for the sizes of the windows."""
        return self.store.num_rejected + len(self.roomless)

    @property
    def has_unanswerable(self) -> bool:
        """Whether answers need a null threshold (SQuAD v2.0)."""
        return self.num_unanswerable > 0


@dataclass(frozen=True)
class ShardWindows:
    """Windows of one shard, of the examples that can be cut into windows."""

    stored: pa.Table  # STORED_EXAMPLES
    rows: NDArray[np.int64]  # which of the shard's examples they are
    encoded: EncodedExamples
    planned: LabelledWindows

    @property
    def examples(self) -> pa.Table:
        """The examples, as `EXAMPLES`."""
        return plain_examples(self.stored)

    @property
    def features(self) -> pa.Table:
        """The windows with their tokens, as `FEATURES`."""
        return fill_features(self.encoded, self.planned, ids=self.stored["id"])


def shard_windows(prepared: Prepared, shard: str) -> ShardWindows:
    """The windows of one of the shards."""
    return make_windows(*read_shard(prepared.store, shard), prepared.settings)


def piece_windows(prepared: Prepared, piece: Piece) -> ShardWindows:
    """The windows of a piece of a shard."""
    stored, encoded = read_shard(prepared.store, piece.shard)
    rows = slice(piece.first, piece.stop)
    return make_windows(stored, encoded, prepared.settings, rows=rows, part=prepared.part)


def make_windows(
    stored: pa.Table,
    encoded: EncodedExamples,
    settings: FeatureSettings,
    *,
    rows: slice = slice(None),
    part: float = 1.0,
) -> ShardWindows:
    """The windows of a shard's examples; null windows are sampled where the settings say so.

    `rows` chooses among the examples that can be cut into windows; below 1, `part` of the shard's
    examples are taken, the same ones whatever the sizes of the windows.
    """
    sizes = {"max_length": settings.max_length, "doc_stride": settings.doc_stride}
    fit = np.setdiff1d(np.arange(len(encoded)), find_unfit(encoded, **sizes))[rows]
    if part < 1:
        keys = id_keys(stored)
        fit = np.intersect1d(fit, stratified_part(keys, encoded.spans.counts > 0, part=part))
    if len(fit) < len(encoded):
        stored, encoded = stored.take(pa.array(fit)), encoded.take(fit)
    planned = label_examples(encoded, **sizes, labels=settings.labels)
    if settings.null_window_fraction < 1:
        kept = keep_null_windows(
            planned,
            id_keys(stored),
            fraction=settings.null_window_fraction,
            seed=settings.null_window_seed,
        )
        planned = planned.take(kept)
    return ShardWindows(stored, fit, encoded, planned)


def id_keys(stored: pa.Table) -> NDArray[np.int64]:
    """A number of each example that follows from its id alone."""
    return np.array([digest_text(text)[0] for text in stored["id"].to_pylist()], np.int64)


def window_blocks(prepared: Prepared) -> Iterator[WindowBlock]:
    """The windows of every shard in order, for `WindowFeed`."""
    for shard in prepared.shards:
        windows = shard_windows(prepared, shard)
        yield WindowBlock(windows.stored["id"], windows.encoded, windows.planned)


def check_not_empty(prepared: Prepared, where: str) -> None:
    """Raise `DataError` where no question can be used with these sizes of windows."""
    if prepared.num_examples:
        return
    first = prepared.roomless[0]["detail"] if prepared.roomless else "there is none"
    raise DataError(
        f"no question can be cut into windows; the first: {first}",
        where=where,
        expected="one question at least that leaves room for its context",
        remedy="raise max_length or lower doc_stride",
    )


def save_prepared(prepared: Prepared) -> None:
    """Keep the counts of these window sizes beside the tokens."""
    values = {
        field.name: getattr(prepared, field.name)
        for field in fields(prepared)
        if field.name not in ("store", "settings", "part")
    }
    values |= {"plan": asdict(prepared.plan), "pieces": [astuple(p) for p in prepared.pieces]}
    content = json.dumps(values, indent=1)
    write_bytes(_windows_file(prepared.folder, prepared.settings), content.encode())


def load_prepared(folder: str, tokenizer: str, settings: FeatureSettings) -> Prepared | None:
    """The prepared data in `folder`; None where tokens or counts are not there or not complete."""
    store = load_store(folder, tokenizer)
    file = _windows_file(folder, settings)
    if store is None or not is_file(file):
        return None
    values = with_tuples(json.loads(read_bytes(file)))
    if "pieces" not in values:  # counted by an earlier version: count again
        return None
    plan = WindowPlan(**with_tuples(values.pop("plan")))
    pieces = tuple(Piece(*piece) for piece in values.pop("pieces"))
    return Prepared(store=store, settings=settings, plan=plan, pieces=pieces, **values)


def _windows_file(folder: str, settings: FeatureSettings) -> str:
    name = "-".join(str(value) for value in asdict(settings).values())
    return join(folder, f"windows-{name}.json")


def read_rejections(prepared: Prepared) -> pa.Table:
    """The records that could not be used; those without room for their context come last."""
    # Lines end at \n alone: an id may hold another of the line ends that str.splitlines knows.
    lines = read_bytes(join(prepared.folder, REJECTED)).split(b"\n")[:-1]
    rows = [*map(json.loads, lines), *prepared.roomless]
    return pa.Table.from_pylist(rows, schema=REJECTIONS)
