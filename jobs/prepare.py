"""Feature generation: question-answering data → tokens in shards on storage, and window counts.

Ray Data reads the sources and tokenizes them on all CPUs, a shard at a time. What is there already
(same content and tokenizer) is not made again, whatever the sizes of the windows; an interrupted
run continues with the shards that are missing.

    python -m jobs.prepare --data.train train.json --data.dev dev.json --report
"""

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from numpy.typing import NDArray

from jobs.cluster import (
    absolute_source,
    absolute_storage,
    available_resources,
    connect,
    run_job,
)
from jobs.configuration import (
    DevSettings,
    FeatureSettings,
    PrepareConfig,
    as_list,
    parse_config,
)
from jobs.console import show_plans, show_prepared, show_stages, warn
from jobs.models import check_model, load_model_config
from jobs.prepared import Prepared, load_prepared, read_rejections, save_prepared
from jobs.token_shards import drop_records, find_repeats, make_shards, read_shards
from jobs.token_store import (
    CONTEXTS,
    REJECTED,
    REMARKS,
    TokenStore,
    cached_tokenizer,
    find_done,
    flat_numbers,
    flat_records,
    load_store,
    read_facts,
    save_encoder,
    save_store,
    shard_file,
)
from jobs.window_plans import count_windows, plan_windows
from qa_core.errors import ConfigError, DataError
from qa_core.features import check_max_length, check_window_sizes
from qa_core.reading import (
    ReadingRules,
    check_rejected_fraction,
    in_source_order,
    reject_rows,
)
from qa_core.sources import check_source, expand_source, source_digest
from qa_core.storage import (
    check_writable,
    file_bytes,
    is_file,
    join,
    read_table,
    write_json_lines,
    write_table,
)
from qa_core.token_tables import TOKENS_VERSION
from qa_core.tokenizing import PairEncoder, probe_template, tokenizer_digest

SPLITS = ("train", "dev")
BLOCK_BYTES = 2**20  # of texts in a task: half a second of tokenizing, ten times a task's own cost
TEXTS_IN_FLIGHT = 2**28  # bytes of shards that were read and wait to be tokenized
REPEATED_QUESTION = "question asked twice of one context"


@dataclass(frozen=True)
class Split:
    """One split's data: where it is, how it is read, and a digest of its content."""

    name: str  # train or dev
    sources: tuple[str, ...]  # single files, local ones as absolute paths
    rules: ReadingRules
    max_rejected_fraction: float
    digest: str


def main(arguments: Sequence[str] | None = None) -> None:
    """Prepare the train and the dev data."""
    config = parse_config(PrepareConfig, arguments)
    storage_path = absolute_storage(config.storage_path)
    splits = [find_split(config.data, name) for name in SPLITS]
    model = check_model(config.model.name_or_path, config.features)
    check_writable(storage_path)
    connect()
    prepared = [prepare_split(split, model, config.features, storage_path) for split in splits]
    warn_shared_contexts(*prepared)
    if config.report:
        hidden_size = int(load_model_config(model).hidden_size)
        sizes = report_sizes(config, model)
        for split, one in zip(splits, prepared, strict=True):
            show_plans(split.name, plan_windows(one.store, sizes), hidden_size=hidden_size)


def find_split(data: DevSettings, name: str) -> Split:
    """The split called `name` of the settings; raises before any work where a source is missing."""
    given = as_list(getattr(data, name))
    for source in given:
        check_source(source)
    sources = [file for source in given for file in expand_source(absolute_source(source))]
    repeated = sorted({source for source in sources if sources.count(source) > 1})
    if repeated:
        raise ConfigError(
            f"{', '.join(repeated)} is named more than once", f"data.{name}", "each source once"
        )
    rules = ReadingRules(asdict(data.columns), data.repair_offsets)
    digest = hashlib.sha256("\n".join(source_digest(source) for source in sources).encode())
    return Split(name, tuple(sources), rules, data.max_rejected_fraction, digest.hexdigest()[:16])


def prepare_split(
    split: Split, model: str, features: FeatureSettings, storage_path: str
) -> Prepared:
    """The tokens of one split and what its windows come to, made now or found on storage."""
    started = time.monotonic()
    if split.name != "train":  # scores are of whole examples
        features = replace(features, null_window_fraction=1.0)
    folder = prepared_folder(storage_path, split, model)
    store = load_store(folder, model)
    is_new = store is None
    if store is None:
        store = make_tokens(split, folder, model)
    prepared = load_prepared(folder, model, features)
    tokenized = time.monotonic()
    if prepared is None:
        prepared = count_windows(store, features)
        save_prepared(prepared)
    ended = time.monotonic()
    show_prepared(split.name, prepared, is_new=is_new, seconds=ended - started)
    if is_new:
        show_stages(read_facts(folder, store.shards), prepared, window_seconds=ended - tokenized)
    check_rejected_fraction(
        read_rejections(prepared),
        num_read=store.num_read,
        max_fraction=split.max_rejected_fraction,
        listed_in=join(folder, REJECTED),
    )
    return prepared


def input_digest(split: Split, model: str) -> str:
    """Names a split by all that decides its examples and tokens, wherever the files lie."""
    columns = [f"{name} {column}" for name, column in sorted(split.rules.columns.items())]
    parts = [
        split.digest,
        tokenizer_digest(cached_tokenizer(model)),
        f"{TOKENS_VERSION} {split.rules.repair_offsets}",
        *columns,
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def prepared_folder(storage_path: str, split: Split, model: str) -> str:
    """Where a split's tokens are: by content, and by the sources' names, which are kept too."""
    names = [input_digest(split, model), *split.sources]
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
    return join(storage_path, "prepared", digest)


def warn_shared_contexts(train: Prepared, dev: Prepared) -> None:
    """Say how many passages both splits hold: scores on those show memory, not skill."""
    digests = [read_table(join(one.folder, CONTEXTS))["digest"].to_numpy() for one in (train, dev)]
    shared = len(np.intersect1d(*digests))
    if shared:
        warn(
            f"{shared} of {len(digests[1])} dev passages are also in train; the scores will look "
            "better than they are"
        )


def report_sizes(config: PrepareConfig, model: str) -> list[FeatureSettings]:
    """The configured sizes, then those of the report that are possible, large ones first."""
    tokenizer, model_config = cached_tokenizer(model), load_model_config(model)
    num_special_tokens = probe_template(tokenizer).num_special_tokens
    pairs = [(a, b) for a in config.report_max_length for b in config.report_doc_stride]
    configured = (config.features.max_length, config.features.doc_stride)
    sizes = [FeatureSettings(*configured)]
    for max_length, doc_stride in sorted({*pairs} - {configured}, reverse=True):
        try:
            check_window_sizes(
                num_special_tokens=num_special_tokens,
                max_length=max_length,
                doc_stride=doc_stride,
            )
            check_max_length(max_length, tokenizer=tokenizer, model_config=model_config)
        except ValueError as error:
            warn(f"left out of the report: {error}")
            continue
        sizes.append(FeatureSettings(max_length=max_length, doc_stride=doc_stride))
    return sizes


def make_tokens(split: Split, folder: str, model: str) -> TokenStore:
    """Read and tokenize what is not in `folder` yet; write the lists and the manifest."""
    encoder = PairEncoder.of(cached_tokenizer(model))
    save_encoder(folder, encoder)
    shards = _run_pipeline(split, folder)
    facts = read_facts(folder, shards)
    repeated = _repeated_ids(facts)
    if repeated:
        ray.get([drop_records.remote(folder, shard, rows) for shard, rows in repeated.items()])
        facts = read_facts(folder, shards)
    rejected = [flat_records(facts, "rejections"), flat_records(facts, "duplicates")]
    rejections = in_source_order(rejected, split.sources)
    remarks = in_source_order(
        [flat_records(facts, "repairs"), *_repeated_questions(folder, facts)], split.sources
    )
    write_json_lines(join(folder, REJECTED), rejections.to_pylist())
    write_json_lines(join(folder, REMARKS), remarks.to_pylist())
    contexts = np.unique(flat_numbers(facts, "context_digests"))
    write_table(join(folder, CONTEXTS), pa.table({"digest": contexts}))
    num_examples = int(pc.sum(facts["num_examples"]).as_py() or 0)
    if not num_examples:
        raise DataError(
            f"no usable question ({len(rejections)} records rejected)",
            where=f"data.{split.name}",
            expected="at least one",
            remedy=f"see {join(folder, REJECTED)}",
        )
    kept = facts.filter(pc.greater(facts["num_examples"], 0))
    store = TokenStore(
        folder=folder,
        tokenizer=model,
        template=encoder.template,
        shards=tuple(kept["shard"].to_pylist()),
        num_read=num_examples + len(rejections),
        num_rejected=len(rejections),
        num_remarks=len(remarks),
        num_tokenized_bytes=int(pc.sum(facts["num_tokenized_bytes"]).as_py()),
    )
    save_store(store)
    return store


def _run_pipeline(split: Split, folder: str) -> list[str]:
    """Make all shards that are missing; the names of all, in order."""
    context = ray.data.DataContext.get_current().copy()
    context.target_max_block_size = BLOCK_BYTES
    # Holding the reader back takes a fifth of the speed on two cores; small data needs none of it.
    context.op_resource_reservation_enabled = not _is_small(split.sources)
    context.execution_options.resource_limits = context.execution_options.resource_limits.copy(
        object_store_memory=TEXTS_IN_FLIGHT
    )
    files = [{"source": file, "number": n} for n, file in enumerate(split.sources)]
    num_cpus = int(available_resources().get("CPU", 1))
    with ray.data.DataContext.current(context):
        shards = (
            ray.data.from_items(files, override_num_blocks=len(files))
            .map_batches(
                partial(read_shards, rules=split.rules, done=frozenset(find_done(folder))),
                batch_size=1,
                batch_format="pyarrow",
                compute=ray.data.TaskPoolStrategy(size=max(1, num_cpus // 4)),  # files read at once
            )
            .map_batches(
                partial(make_shards, folder=folder),
                batch_size=None,
                batch_format="pyarrow",
            )
        )
        return sorted(row["shard"] for row in shards.take_all())


def _is_small(sources: Sequence[str]) -> bool:
    """Whether all texts may lie in memory at once; not where nobody knows how many there are."""
    texts = [source for source in sources if not source.startswith("embedded:")]
    if any(source.endswith((".gz", ".parquet")) or not is_file(source) for source in texts):
        return False
    return sum(file_bytes(source) for source in texts) <= TEXTS_IN_FLIGHT


def _repeated_ids(facts: pa.Table) -> dict[str, list[int]]:
    """Record numbers of each shard whose id an earlier record has."""
    places = find_repeats(flat_numbers(facts, "id_digests").reshape(-1, 2))
    records = flat_numbers(facts, "records")
    shard_of = _shard_of(facts)
    repeated: dict[str, list[int]] = {}
    for place in places.tolist():
        repeated.setdefault(facts["shard"][int(shard_of[place])].as_py(), []).append(
            int(records[place])
        )
    return repeated


def _repeated_questions(folder: str, facts: pa.Table) -> Iterator[pa.Table]:
    """Remarks on records whose context and question an earlier record has, shard by shard."""
    places = find_repeats(flat_numbers(facts, "question_digests").reshape(-1, 1))
    records, shard_of = flat_numbers(facts, "records")[places], _shard_of(facts)[places]
    for number in np.unique(shard_of).tolist():
        stored = read_table(shard_file(folder, "examples", facts["shard"][number].as_py()))
        is_repeated = pc.is_in(stored["record"], value_set=pa.array(records[shard_of == number]))
        rows = np.flatnonzero(np.asarray(is_repeated)).tolist()  # none where its id was repeated
        yield reject_rows(
            stored,
            rows,
            records=stored["record"].to_pylist(),
            reason=REPEATED_QUESTION,
            detail="an earlier record asks the same of the same context; both are used",
        )


def _shard_of(facts: pa.Table) -> NDArray[np.int64]:
    """Row of `facts` of each of their examples, (examples,)."""
    counts = np.asarray(pc.list_value_length(facts["records"]))
    return np.repeat(np.arange(len(facts)), counts)


if __name__ == "__main__":
    run_job(main)
