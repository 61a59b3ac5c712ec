"""Feature generation against the notebook's two functions over `datasets.map`, on the same data.

    python -m benchmarks.features --data squadshifts_new_wiki.json --json features.json

Both sides take turns in one process. In process: features of a file, tokens not cached; and with
tokens cached, a new (max_length, doc_stride). Through Ray Data on a local cluster: a hundred
thousand questions made from the file, read, tokenized, stored and every window filled; Ray's own
start-up is told apart. Counters are exact: bytes given to the tokenizer, bytes of the features.
Then the peak memory of a million questions over that of a tenth (`benchmarks.memory`). About
twenty minutes on two cores.
"""

import gc
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import ray
from jsonargparse import auto_cli

from benchmarks.figures import alternate, ratio, show_figures, write_figures
from benchmarks.memory import compare_memory
from benchmarks.notebook_features import map_features, notebook_dataset
from benchmarks.repeated_data import write_repeated
from jobs.cluster import connect
from jobs.configuration import DataSettings, FeatureSettings
from jobs.models import resolve_model
from jobs.prepare import find_split
from jobs.prepared import make_windows
from jobs.token_pipeline import make_tokens
from jobs.token_store import TokenStore, read_shard
from jobs.window_plans import map_shards
from qa_core.features import encode_examples, fill_features, label_examples
from qa_core.reading import read_examples
from qa_core.storage import read_table, write_table
from qa_core.token_tables import encoded_from_tables, encoded_to_tables
from qa_core.tokenizing import PairEncoder, load_tokenizer

SIZES = (384, 128)
SWEEP = list(product((256, 320, 384), (32, 64, 96)))


def main(
    data: str = "embedded:train",
    model: str = "embedded",
    alternations: int = 5,
    ray_questions: int = 100_000,
    ray_alternations: int = 5,
    memory_questions: int = 1_000_000,
    json: str | None = None,
) -> None:
    """Compare; see the module.

    Args:
        data: SQuAD JSON, or embedded:train.
        model: whose tokenizer is used.
        alternations: turns of the comparisons in one process.
        ray_questions: questions of the comparison through Ray; 0 leaves it out.
        ray_alternations: its turns.
        memory_questions: questions whose peak memory is compared with that of a tenth; 0 leaves
            it out.
        json: where to write the figures, too.
    """
    datasets.disable_progress_bars()
    model = resolve_model(model)
    tokenizer = load_tokenizer(model)
    examples, rejections = read_examples(data)
    figures: dict[str, Any] = {"num_questions": len(examples), "num_rejected": len(rejections)}
    figures |= count_bytes(examples, tokenizer)
    figures |= compare_in_process(examples, tokenizer, alternations)
    figures |= compare_rewindowing(examples, tokenizer, alternations)
    if ray_questions:
        figures |= compare_through_ray(data, model, ray_questions, ray_alternations)
    if memory_questions:
        figures |= compare_memory(data, memory_questions // 10, memory_questions)
    show_figures("Features", figures)
    write_figures(json, figures)


class CountingBackend:
    """A tokenizer of the tokenizers library that counts the texts and bytes it is given."""

    def __init__(self, backend: Any) -> None:
        self.backend, self.num_bytes, self.num_texts = backend, 0, 0

    def encode_batch(self, texts: list[str], *, add_special_tokens: bool) -> Any:
        """What the tokenizer gives."""
        self.count(texts)
        return self.backend.encode_batch(texts, add_special_tokens=add_special_tokens)

    def encode_batch_fast(self, texts: list[str], *, add_special_tokens: bool) -> Any:
        """The same without offsets."""
        self.count(texts)
        return self.backend.encode_batch_fast(texts, add_special_tokens=add_special_tokens)

    def count(self, texts: list[str]) -> None:
        """Add these texts to the counts."""
        self.num_texts += len(texts)
        self.num_bytes += sum(len(text.encode()) for text in texts)


def count_bytes(examples: pa.Table, tokenizer: Any) -> dict[str, Any]:
    """Bytes tokenized for one setting and for a sweep of nine, and bytes of the features."""
    encoder = PairEncoder.of(tokenizer)
    counting = CountingBackend(encoder.backend)
    encoded = encode_examples(examples, encoder=replace(encoder, backend=counting))
    once = counting.num_bytes
    for max_length, doc_stride in SWEEP:
        planned = label_examples(encoded, max_length=max_length, doc_stride=doc_stride)
        fill_features(encoded, planned, ids=examples["id"])
    questions = {text.lstrip() for text in examples["question"].to_pylist()}
    contexts = examples["context"].to_pylist()
    distinct = sum(len(text.encode()) for text in [*questions, *set(contexts)])
    pairs = zip(contexts, examples["question"].to_pylist(), strict=True)
    planned = label_examples(encoded, max_length=SIZES[0], doc_stride=SIZES[1])
    features = fill_features(encoded, planned, ids=examples["id"])
    padded = 8 * SIZES[0] * len(features)  # of one int64 column
    labels = 16 * len(features)
    train = features.drop_columns(["offset_mapping", "example_id", "window_index", "cls_index"])
    return {
        "distinct_bytes": distinct,
        "tokenized_bytes": once,
        "tokenized_bytes_sweep_of_9": counting.num_bytes,
        "tokenizer_texts": counting.num_texts,
        "peer_tokenized_bytes": sum(len(c.encode()) + len(q.lstrip().encode()) for c, q in pairs),
        "num_windows": len(features),
        "num_tokens": int(planned.layout.length.sum()),
        "padded_tokens": SIZES[0] * len(features),
        "train_feature_bytes_share": train.nbytes / (3 * padded + labels),
        "validation_feature_bytes_share": features.nbytes / (5 * padded),
        "token_store_bytes_share": stored_bytes(examples, encoded) / (3 * padded + labels),
    }


def stored_bytes(examples: pa.Table, encoded: Any) -> int:
    """Bytes that are on storage for the features of any number of settings, texts left out."""
    stored, tokens = encoded_to_tables(examples, np.arange(len(examples)), encoded)
    texts = stored.select(["context", "question", "id", "title", "source", "answers"])
    return int(tokens.nbytes + stored.nbytes - texts.nbytes)


def compare_in_process(examples: pa.Table, tokenizer: Any, turns: int) -> dict[str, Any]:
    """Features from texts, tokens not cached."""
    dataset = notebook_dataset(examples)

    def ours() -> None:
        encoded = encode_examples(examples, encoder=PairEncoder.of(tokenizer))
        planned = label_examples(encoded, max_length=SIZES[0], doc_stride=SIZES[1])
        fill_features(encoded, planned, ids=examples["id"])

    def peer(kind: str, num_proc: int | None) -> Any:
        return lambda: map_features(dataset, kind, tokenizer, SIZES, num_proc)

    backend = PairEncoder.of(tokenizer).backend
    texts = [*set(examples["context"].to_pylist()), *set(examples["question"].to_pylist())]

    def alone() -> None:
        backend.encode_batch(texts, add_special_tokens=False)

    ours()
    runs = (ours, peer("train", None), peer("train", 2), peer("validation", None), alone)
    seconds = alternate(turns, *runs)
    count = len(examples)
    return {
        **ratio(seconds[1], seconds[0], "in_process_ratio"),
        **ratio(seconds[2], seconds[0], "in_process_ratio_two_processes"),
        **ratio(seconds[3], seconds[0], "in_process_ratio_validation"),
        **ratio(seconds[4], seconds[0], "share_of_tokenizer_alone"),
        "questions_per_second": count / np.median(seconds[0]),
        "peer_train_questions_per_second": count / np.median(seconds[1]),
        "peer_train_two_processes_questions_per_second": count / np.median(seconds[2]),
        "peer_validation_questions_per_second": count / np.median(seconds[3]),
        "tokenizer_alone_questions_per_second": count / np.median(seconds[4]),
    }


def compare_rewindowing(examples: pa.Table, tokenizer: Any, turns: int) -> dict[str, Any]:
    """Features for another (max_length, doc_stride), from stored tokens."""
    dataset = notebook_dataset(examples)
    encoder = PairEncoder.of(tokenizer)
    encoded = encode_examples(examples, encoder=encoder)
    sizes = iter(SWEEP * turns)
    peer_sizes = iter(SWEEP * turns)
    with tempfile.TemporaryDirectory() as folder:
        files = [f"{folder}/examples.arrow", f"{folder}/tokens.arrow"]
        tables = encoded_to_tables(examples, np.arange(len(examples)), encoded)
        for file, table in zip(files, tables, strict=True):
            write_table(file, table)

        def ours() -> None:
            max_length, doc_stride = next(sizes)
            stored, tokens = map(read_table, files)
            found = encoded_from_tables(stored, tokens, template=encoder.template)
            planned = label_examples(found, max_length=max_length, doc_stride=doc_stride)
            fill_features(found, planned, ids=stored["id"])

        def peer() -> None:
            map_features(dataset, "train", tokenizer, next(peer_sizes))

        seconds = alternate(turns, ours, peer)
    return {
        **ratio(seconds[1], seconds[0], "rewindow_ratio"),
        "rewindow_questions_per_second": len(examples) / np.median(seconds[0]),
    }


def compare_through_ray(data: str, model: str, num_questions: int, turns: int) -> dict[str, Any]:
    """Features of many questions on a running cluster, against `datasets.map` on two processes."""
    tokenizer = load_tokenizer(model)
    with tempfile.TemporaryDirectory() as text, local_cluster() as start_seconds:
        folder = Path(text)
        large, warm, small = (folder / f"{name}.json" for name in ("large", "warm", "small"))
        write_repeated(data, large, num_questions)
        write_repeated(data, warm, num_questions // 10)
        write_repeated(data, small, 8)
        dataset = notebook_dataset(read_examples(large)[0])
        numbers = iter(range(10**6))

        def ours(file: Path) -> TokenStore:
            split = find_split(DataSettings(train=str(file)), "train")
            store = make_tokens(split, str(folder / f"store-{next(numbers)}"), model)
            fill_all(store)
            return store

        first = alternate(1, lambda: ours(warm))[0]  # worker processes start and import
        constant = alternate(3, lambda: ours(small))[0]
        stores = []
        seconds = alternate(
            turns,
            lambda: stores.append(ours(large)),
            lambda: map_features(dataset, "train", tokenizer, SIZES, 2),
        )
        gc.collect()
    net = [one - float(np.median(constant)) for one in seconds[0]]
    return {
        "ray_questions": num_questions,
        "ray_start_seconds": start_seconds,
        "ray_first_run_of_a_tenth_seconds": first[0],
        "ray_constant_seconds": float(np.median(constant)),
        **ratio(seconds[1], net, "ray_ratio"),
        **ratio(seconds[1], seconds[0], "ray_ratio_with_constant"),
        "ray_questions_per_second": num_questions / np.median(net),
        "ray_peer_questions_per_second": num_questions / np.median(seconds[1]),
        "ray_tokenized_bytes": stores[0].num_tokenized_bytes,
    }


def fill_all(store: TokenStore) -> int:
    """Fill every window of a store on the cluster; their tokens."""
    settings = FeatureSettings(max_length=SIZES[0], doc_stride=SIZES[1])

    def count(row: dict[str, Any]) -> dict[str, Any]:
        features = make_windows(*read_shard(store, row["shard"]), settings).features
        return {
            "shard": row["shard"],
            "num_tokens": len(features["input_ids"].combine_chunks().values),
        }

    return sum(row["num_tokens"] for row in map_shards(store, count))


@contextmanager
def local_cluster() -> Iterator[float]:
    """Ray on this machine's cores, and the seconds its start took."""
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.pop("TOKENIZERS_PARALLELISM", None)  # on Ray there is a process for every core
    started = perf_counter()
    connect()
    try:
        yield perf_counter() - started
    finally:
        ray.shutdown()


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
