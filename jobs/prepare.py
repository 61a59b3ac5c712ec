"""Feature generation: question-answering data → tokens in shards on storage, and window counts.

Ray Data reads the sources and tokenizes them on all CPUs, a shard at a time. What is there already
(same content and tokenizer) is not made again, whatever the sizes of the windows; an interrupted
run continues with the shards that are missing.

    python -m jobs.prepare --data.train train.json --data.dev dev.json --report
"""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np

from jobs.cluster import (
    absolute_source,
    absolute_storage,
    run_job,
)
from jobs.configuration import (
    DevSettings,
    FeatureSettings,
    PrepareConfig,
    QuestionSettings,
    as_list,
    parse_config,
)
from jobs.console import STAGE_FACTS, show_plans, show_prepared, show_stages, warn
from jobs.models import check_model, check_windows, load_model_config
from jobs.nodes import join_cluster
from jobs.prepared import Prepared, load_prepared, read_rejections, save_prepared
from jobs.token_pipeline import Split, make_tokens
from jobs.token_shards import EXAMPLES_PER_SHARD
from jobs.token_store import (
    CONTEXTS,
    REJECTED,
    cached_tokenizer,
    load_store,
    read_facts,
)
from jobs.window_plans import count_windows, plan_windows
from qa_core.errors import ConfigError
from qa_core.reading import (
    ReadingRules,
    check_rejected_fraction,
)
from qa_core.sources import check_source, expand_source, source_digest
from qa_core.storage import (
    check_writable,
    join,
    read_table,
)
from qa_core.token_tables import TOKENS_VERSION
from qa_core.tokenizing import tokenizer_digest

SPLITS = ("train", "dev")


def main(arguments: Sequence[str] | None = None) -> None:
    """Prepare the train and the dev data."""
    config = parse_config(PrepareConfig, arguments)
    storage_path = absolute_storage(config.storage_path)
    splits = [find_split(config.data, name) for name in SPLITS]
    model = check_model(config.model.name_or_path, config.features)
    check_writable(storage_path)
    sources = [source for split in splits for source in split.sources]
    join_cluster(storage_path, sources=sources)
    prepared = [prepare_split(split, model, config.features, storage_path) for split in splits]
    warn_shared_contexts(*prepared)
    if config.report:
        hidden_size = int(load_model_config(model).hidden_size)
        sizes = report_sizes(config, model)
        for split, one in zip(splits, prepared, strict=True):
            show_plans(split.name, plan_windows(one.store, sizes), hidden_size=hidden_size)


def find_split(data: DevSettings | QuestionSettings, name: str) -> Split:
    """The split called `name` of the settings; raises before any work where a source is missing."""
    given = as_list(getattr(data, name) or [])
    for source in given:
        check_source(source)
    sources = [file for source in given for file in expand_source(absolute_source(source))]
    repeated = sorted({source for source in sources if sources.count(source) > 1})
    if repeated:
        raise ConfigError(
            f"{', '.join(repeated)} is named more than once", f"data.{name}", "each source once"
        )
    rules = ReadingRules(asdict(data.columns), has_answers=False)
    if isinstance(data, DevSettings):
        rules = ReadingRules(asdict(data.columns), data.repair_offsets)
    digest = hashlib.sha256("\n".join(source_digest(source) for source in sources).encode())
    return Split(name, tuple(sources), rules, data.max_rejected_fraction, digest.hexdigest()[:16])


def prepare_split(
    split: Split, model: str, features: FeatureSettings, storage_path: str
) -> Prepared:
    """The tokens of one split and what its windows come to, made now or found on storage."""
    started = time.monotonic()
    if split.name != "train":  # scores are of whole examples, and labels are for training
        features = replace(features, null_window_fraction=1.0, labels="first")
    folder = prepared_folder(storage_path, split, model)
    store = load_store(folder, model)
    is_new = store is None
    if store is None:
        store = make_tokens(split, folder, model)
    prepared = load_prepared(folder, model, features)
    tokenized = time.monotonic()
    if prepared is None:
        [prepared] = count_windows(store, [features])
        save_prepared(prepared)
    ended = time.monotonic()
    show_prepared(split.name, prepared, is_new=is_new, seconds=ended - started)
    if is_new:
        facts = read_facts(folder, store.shards, STAGE_FACTS)
        show_stages(facts, prepared, window_seconds=ended - tokenized)
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
        f"{TOKENS_VERSION} {EXAMPLES_PER_SHARD} {split.rules.repair_offsets}",
        *columns,
        *([] if split.rules.has_answers else ["without answers"]),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def prepared_folder(storage_path: str, split: Split, model: str) -> str:
    """Where a split's tokens are: by content, and by the sources' names, which are kept too."""
    names = [input_digest(split, model), *split.sources]
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
    return join(storage_path, "prepared", digest)


def warn_shared_contexts(train: Prepared, dev: Prepared) -> None:
    """Say how many passages both splits hold: scores on those show memory, not skill."""
    remark = shared_contexts(train, dev)
    if remark is not None:
        warn(remark)


def shared_contexts(train: Prepared, dev: Prepared) -> str | None:
    """How many passages both splits hold, in words; None where there is none."""
    digests = [read_table(join(one.folder, CONTEXTS))["digest"].to_numpy() for one in (train, dev)]
    shared = len(np.intersect1d(*digests))
    if not shared:
        return None
    return (
        f"{shared} of {len(digests[1])} dev passages are also in train; the scores will look "
        "better than they are"
    )


def report_sizes(config: PrepareConfig, model: str) -> list[FeatureSettings]:
    """The configured sizes, then those of the report that are possible, large ones first."""
    pairs = [(a, b) for a in config.report_max_length for b in config.report_doc_stride]
    configured = (config.features.max_length, config.features.doc_stride)
    sizes = [FeatureSettings(*configured)]
    for max_length, doc_stride in sorted({*pairs} - {configured}, reverse=True):
        size = FeatureSettings(max_length=max_length, doc_stride=doc_stride)
        try:
            check_windows(
                size, tokenizer=cached_tokenizer(model), model_config=load_model_config(model)
            )
        except ValueError as error:
            warn(f"left out of the report: {error}")
            continue
        sizes.append(size)
    return sizes


if __name__ == "__main__":
    run_job(main)
