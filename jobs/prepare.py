"""Feature generation: SQuAD data → examples and features in shards on storage.

Ray tasks read and check the sources, Ray Data makes the features of every shard on all CPUs.
What is there already (same content, tokenizer and window sizes) is not made again.

    python -m jobs.prepare --data.train train.json --data.dev dev.json
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pyarrow as pa
import ray
from rich.markup import escape

from jobs.cluster import absolute_source, absolute_storage, connect, console, run_job
from jobs.configuration import (
    DevSettings,
    FeatureSettings,
    PrepareConfig,
    as_list,
    parse_config,
)
from jobs.feature_shards import (
    EXAMPLES_PER_SHARD,
    make_shard,
    read_blocks,
    shard_name,
)
from jobs.models import check_model
from jobs.prepared import (
    REJECTED,
    Prepared,
    cached_tokenizer,
    load_prepared,
    read_rejections,
    save_prepared,
)
from qa_core.features import FEATURES_VERSION
from qa_core.reading import (
    check_rejected_fraction,
    count_reasons,
    find_repeated_ids,
    in_source_order,
)
from qa_core.schemas import REJECTIONS
from qa_core.sources import check_source, source_digest
from qa_core.storage import check_writable, join, write_json_lines
from qa_core.tokenizing import tokenizer_digest

SPLITS = ("train", "dev")
SUMMED = ("num_examples", "num_unanswerable", "num_features", "num_tokens")  # over shards


def main(arguments: Sequence[str] | None = None) -> None:
    """Prepare the train and the dev data."""
    config = parse_config(PrepareConfig, arguments)
    storage_path = absolute_storage(config.storage_path)
    check_data(config.data, SPLITS)
    model = check_model(config.model.name_or_path, config.features)
    check_writable(storage_path)
    connect()
    prepared = {
        split: prepare_split(config.data, split, model, config.features, storage_path)
        for split in SPLITS
    }
    warn_shared_contexts(prepared["train"], prepared["dev"])


def check_data(data: DevSettings, splits: Sequence[str]) -> None:
    """Raise before any work where a source is missing."""
    for split in splits:
        for source in split_sources(data, split):
            check_source(source)


def prepare_split(
    data: DevSettings, split: str, model: str, features: FeatureSettings, storage_path: str
) -> Prepared:
    """The features of one split, made now or found on storage, with a line that says so."""
    started = time.monotonic()
    sources = split_sources(data, split)
    folder = prepared_folder(storage_path, sources, model, features)
    prepared = load_prepared(folder)
    is_new = prepared is None
    if prepared is not None:  # made with this tokenizer, perhaps from another folder
        prepared = replace(prepared, tokenizer=model)
        check_rejected_fraction(
            read_rejections(prepared),
            num_read=prepared.num_read,
            max_fraction=data.max_rejected_fraction,
            listed_in=join(folder, REJECTED),
        )
    else:
        prepared = _prepare(
            sources, folder, model, features, max_fraction=data.max_rejected_fraction
        )
    seconds = f"made in {time.monotonic() - started:.1f} s" if is_new else "found on storage"
    console.print(
        f"[bold]{split}[/bold]: {prepared.num_examples} questions "
        f"({prepared.num_unanswerable} unanswerable), {prepared.num_features} windows, "
        f"{prepared.num_tokens} tokens, {seconds}"
    )
    if prepared.num_rejected:
        reasons = count_reasons(read_rejections(prepared))
        listed = ", ".join(f"{reason}: {count}" for reason, count in reasons.items())
        console.print(
            f"  [yellow]{prepared.num_rejected} of {prepared.num_read} records rejected"
            f"[/yellow] ({listed}); see {escape(join(folder, REJECTED))}"
        )
    return prepared


def split_sources(data: DevSettings, split: str) -> list[str]:
    """The sources of a split, local ones as absolute paths."""
    return [absolute_source(source) for source in as_list(getattr(data, split))]


def split_digest(sources: Sequence[str], model: str, features: FeatureSettings) -> str:
    """Names a split by all that decides its examples and features, wherever the files lie."""
    parts = [
        *(source_digest(source) for source in sources),
        tokenizer_digest(cached_tokenizer(model)),
        f"{features.max_length} {features.doc_stride} {FEATURES_VERSION}",
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def prepared_folder(
    storage_path: str, sources: Sequence[str], model: str, features: FeatureSettings
) -> str:
    """Where a split's features are: by content, and by the sources' names, which are kept too."""
    names = [split_digest(sources, model, features), *sources]
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
    return join(storage_path, "prepared", digest)


def warn_shared_contexts(train: Prepared, dev: Prepared) -> None:
    """Say how many passages both splits hold: scores on those show memory, not skill."""
    shared = len(set(train.context_digests) & set(dev.context_digests))
    if shared:
        console.print(
            f"[yellow]warning[/yellow]: {shared} of {len(dev.context_digests)} dev passages are "
            "also in train; the scores will look better than they are"
        )


def _prepare(
    sources: Sequence[str],
    folder: str,
    model: str,
    features: FeatureSettings,
    *,
    max_fraction: float,
) -> Prepared:
    blocks, ids, rejections = _read(sources)
    num_read = sum(map(len, ids.values())) + len(rejections)
    _check_rejections(folder, rejections, num_read=num_read, max_fraction=max_fraction)
    shard_maker = partial(
        make_shard,
        folder=folder,
        tokenizer=model,
        max_length=features.max_length,
        doc_stride=features.doc_stride,
        repeated=_repeated_rows(ids),
    )
    rows = _make_shards(blocks, shard_maker)
    found = pa.Table.from_pylist([r for row in rows for r in row["rejections"]], REJECTIONS)
    rejections = in_source_order([rejections, found], sources)
    _check_rejections(folder, rejections, num_read=num_read, max_fraction=max_fraction)
    prepared = Prepared(
        folder=folder,
        tokenizer=model,
        max_length=features.max_length,
        doc_stride=features.doc_stride,
        shards=tuple(row["shard"] for row in rows if row["num_examples"]),
        num_read=num_read,
        num_rejected=len(rejections),
        context_digests=tuple(sorted({d for row in rows for d in row["context_digests"]})),
        **{name: sum(row[name] for row in rows) for name in SUMMED},
    )
    save_prepared(prepared)
    return prepared


def _check_rejections(
    folder: str, rejections: pa.Table, *, num_read: int, max_fraction: float
) -> None:
    """Write the list of rejections, then stop the run where they are too many."""
    listed_in = join(folder, REJECTED)
    write_json_lines(listed_in, rejections.to_pylist())
    check_rejected_fraction(
        rejections, num_read=num_read, max_fraction=max_fraction, listed_in=listed_in
    )


def _read(sources: Sequence[str]) -> tuple[dict[str, Any], dict[str, list[str]], pa.Table]:
    """Block references by shard, ids by shard, and rejections; sources are read side by side.

    The ids come here, to find those that repeat: of the order of 100 bytes a question.
    """
    readers = [
        read_blocks.options(num_returns="streaming").remote(source, number)
        for number, source in enumerate(sources)
    ]
    blocks: dict[str, Any] = {}
    ids: dict[str, list[str]] = {}
    rejections = [REJECTIONS.empty_table()]
    for number, reader in enumerate(readers):
        references = list(reader)
        ending = ray.get(references.pop())
        rejections.append(ending["rejections"])
        for block, reference in enumerate(references):
            shard = shard_name(number, block)
            first = block * EXAMPLES_PER_SHARD
            blocks[shard] = reference
            ids[shard] = ending["ids"][first : first + EXAMPLES_PER_SHARD]
    return blocks, ids, pa.concat_tables(rejections)


def _repeated_rows(ids: dict[str, list[str]]) -> dict[str, list[int]]:
    """Rows of each shard whose id stands earlier, in the shard or in one before it."""
    places = [(shard, row) for shard, own in ids.items() for row in range(len(own))]
    repeated: dict[str, list[int]] = {}
    for place in find_repeated_ids([example_id for own in ids.values() for example_id in own]):
        shard, row = places[place]
        repeated.setdefault(shard, []).append(row)
    return repeated


def _make_shards(
    blocks: dict[str, Any], shard_maker: Callable[[pa.Table], pa.Table]
) -> list[dict[str, Any]]:
    """What `make_shard` tells of every block, in order."""
    if not blocks:
        return []
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    dataset = ray.data.from_arrow_refs(list(blocks.values())).map_batches(
        shard_maker, batch_format="pyarrow", batch_size=None
    )
    rows: list[dict[str, Any]] = sorted(dataset.take_all(), key=lambda row: row["shard"])
    return rows


if __name__ == "__main__":
    run_job(main)
