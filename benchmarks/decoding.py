"""Decoding against run_qa's post-processing on the same logits, in CPU time.

    python -m benchmarks.decoding --data squadshifts_new_wiki.json --json decoding.json

10,784 windows (384, 128) of the file's questions, asked again under new ids where there are too
few, with seeded logits that look like a trained model's. First every answer of mode reference is
held equal to run_qa's, in the style of v1.1 and of v2.0. Then both modes take turns with run_qa's
loop (`benchmarks.notebook_decoding`) in one process, in the style of v2.0: with everything in
memory, and as people run it, examples and features in a `datasets.Dataset` that is read row by
row. What our first call compiles is timed apart. About three minutes.
"""

import gc
import time
from statistics import median
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jsonargparse import auto_cli

from benchmarks.decoding_parity import (
    SIZES,
    STYLES,
    DecodingCase,
    Logits,
    compare_style,
    in_memory,
    make_case,
)
from benchmarks.figures import alternate, ratio, show_figures, write_figures
from benchmarks.notebook_decoding import postprocess
from benchmarks.repeated_data import take_repeated
from jobs.models import resolve_model
from qa_core.batching import feature_lengths
from qa_core.features import build_features
from qa_core.reading import read_examples
from qa_core.tokenizing import load_tokenizer

NULL_THRESHOLD = 0.0  # v2.0's style
HILL = 3  # tokens on either side of a top


def main(
    data: str = "embedded:train",
    turns: int = 5,
    num_features: int = 10_784,
    seed: int = 0,
    json: str | None = None,
) -> None:
    """Compare; see the module.

    Args:
        data: SQuAD JSON, or embedded:train.
        turns: of every side.
        num_features: windows that are decoded.
        seed: of the logits.
        json: where to write the figures, too.
    """
    datasets.disable_progress_bars()
    tokenizer = load_tokenizer(resolve_model("embedded"))
    examples = examples_with_windows(read_examples(data)[0], tokenizer, num_features)
    case = make_case(examples, tokenizer, lambda features: make_logits(features, seed))
    figures = {
        "num_examples": len(case.examples),
        "num_features": len(case.features),
        "num_tokens": len(case.logits[0]),
    }
    figures |= warm_up(case) | check(case) | compare(case, turns)
    show_figures("Decoding beside run_qa's", figures)
    write_figures(json, figures)


def examples_with_windows(examples: pa.Table, tokenizer: Any, num_features: int) -> pa.Table:
    """Examples in their order, again from the first where need be, with so many windows in all.

    At the end examples with too many windows are passed over.
    """
    features = build_features(
        examples, tokenizer=tokenizer, max_length=SIZES[0], doc_stride=SIZES[1]
    )
    owner = pc.index_in(features["example_id"], value_set=examples["id"].combine_chunks())
    counts = np.bincount(owner.to_numpy(), minlength=len(examples))  # (examples,)
    rows, missing = list[int](), num_features
    for row in np.resize(np.arange(len(examples)), max(num_features, len(examples))).tolist():
        if counts[row] <= missing:
            rows.append(row)
            missing -= int(counts[row])
    return take_repeated(examples, np.array(rows))


def make_logits(features: pa.Table, seed: int) -> Logits:
    """Start and end logits of every token, (tokens,): noise, hills in each context, CLS.

    About three hills a window, of ends up to four tokens behind those of starts. Of the best 20
    starts and 20 ends some 80 pairs of a window are valid spans (75 where a MiniLM trained on the
    demo corpus reads the first 150 questions of new Wikipedia).
    """
    generator = np.random.default_rng(seed)
    lengths = feature_lengths(features)
    flat = pc.list_flatten(pc.list_flatten(features["offset_mapping"])).to_numpy()
    is_context = flat.reshape(-1, 2)[:, 0] >= 0  # (tokens,)
    peaks = np.flatnonzero(is_context & (generator.random(len(is_context)) < 0.02))
    behind = peaks + generator.integers(0, 5, len(peaks))
    cls_token = np.cumsum(lengths) - lengths + features["cls_index"].to_numpy()  # (windows,)
    logits = []
    for tops in (peaks, behind):
        values = generator.normal(-4, 1, len(is_context))  # (tokens,)
        heights = generator.normal(6, 2, len(tops))
        for apart in range(-HILL, HILL + 1):
            slope = np.clip(tops + apart, 0, len(values) - 1)
            np.add.at(values, slope, is_context[slope] * heights * 0.5 ** abs(apart))
        values[cls_token] += generator.normal(4, 3, len(lengths))
        logits.append(values.astype(np.float32))
    return logits[0], logits[1]


def warm_up(case: DecodingCase) -> dict[str, float]:
    """Seconds of both modes' first calls, less those of the second: what compiling takes."""
    seconds = [_seconds_of_both(case) for _ in range(2)]
    return {"compile_seconds": max(0.0, seconds[0] - seconds[1])}


def _seconds_of_both(case: DecodingCase) -> float:
    started = time.perf_counter()
    case.decode("reference", NULL_THRESHOLD)
    case.decode("exact", NULL_THRESHOLD)
    return time.perf_counter() - started


def check(case: DecodingCase) -> dict[str, int]:
    """How many questions mode reference answers as run_qa does; all, or it stops with the first."""
    for style, null_threshold in STYLES.items():
        differing = compare_style(case, null_threshold)
        if differing:
            what = next(iter(differing.values()))
            raise SystemExit(f"error: {len(differing)} answers differ ({style}); first {what}")
    return {"num_identical": len(case.examples)}


def compare(case: DecodingCase, turns: int) -> dict[str, Any]:
    """CPU time of our modes and of run_qa's loop, in turns."""
    examples, features = in_memory(case)
    gc.collect()
    gc.freeze()  # no side pays for looking through the other's Python objects

    def peer(examples: Any, features: Any) -> Any:
        return lambda: postprocess(
            examples, features, case.peer_logits, null_threshold=NULL_THRESHOLD
        )

    seconds = alternate(
        turns,
        lambda: case.decode("reference", NULL_THRESHOLD),
        lambda: case.decode("exact", NULL_THRESHOLD),
        peer(examples, features),
        peer(case.peer_examples, case.peer_features),
        clock=time.process_time,
    )
    gc.unfreeze()
    reference, exact, memory, rows = seconds
    names = ("reference", "exact", "peer_in_memory", "peer")
    return {
        **ratio(rows, reference, "reference_ratio"),
        **ratio(rows, exact, "exact_ratio"),
        **ratio(memory, reference, "reference_ratio_in_memory"),
        **ratio(memory, exact, "exact_ratio_in_memory"),
        **{
            f"{name}_questions_per_second": len(case.examples) / median(side)
            for name, side in zip(names, seconds, strict=True)
        },
    }


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
