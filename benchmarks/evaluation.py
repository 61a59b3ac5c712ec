"""Does the memory of evaluation grow with the data, and what does all but inference take?

    python -m benchmarks.evaluation --data squadshifts_new_wiki.json --json evaluation.json

memory: peaks of `jobs.evaluate` on 20,000 and 200,000 questions, each on a Ray head of its own, as
`benchmarks.memory` looks at them: the driver alone, and all processes together. The model is a
BERT of one layer with random weights, so that data, not inference, takes the time. time: seconds
of inference, of decoding and of scoring of 10,000 questions in one process, by the embedded
encoder with a fresh span head. About fifteen minutes on two cores.
"""

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jsonargparse import auto_cli
from transformers import BertConfig, BertForQuestionAnswering
from transformers.utils import logging

from benchmarks.figures import show_figures, write_figures
from benchmarks.memory import compare_memory, peak_memory
from benchmarks.repeated_data import take_repeated
from jobs.models import resolve_model
from qa_core.batching import padding_rules
from qa_core.decoding import decode_answers
from qa_core.features import build_features
from qa_core.inference import predict_logits
from qa_core.reading import read_examples
from qa_core.scoring import find_null_threshold, score_answers, summarize_scores
from qa_core.tokenizing import load_tokenizer
from qa_core.training import load_model

PARTS = ("memory", "time")
SIZES = (384, 128)
WARM_UP_QUESTIONS = 16


def main(
    data: str = "embedded:train",
    small: int = 20_000,
    large: int = 200_000,
    num_questions: int = 10_000,
    parts: str = ",".join(PARTS),
    json: str | None = None,
) -> None:
    """Measure; see the module.

    Args:
        data: SQuAD JSON that the questions are made from.
        small: questions of the first run of `memory`.
        large: questions of the second.
        num_questions: of `time`; the file's, asked again where there are too few.
        parts: which of the two, separated by commas.
        json: where to write the figures, too.
    """
    chosen = parts.split(",")
    if not set(chosen) <= set(PARTS):
        raise SystemExit(f"error: --parts {parts}: expected some of {','.join(PARTS)}")
    logging.set_verbosity_error()  # that the span head is new is meant
    logging.disable_progress_bar()
    figures: dict[str, Any] = {}
    if "time" in chosen:
        figures |= compare_times(data, num_questions)
    if "memory" in chosen:
        with tempfile.TemporaryDirectory() as model:
            save_small_model(model)
            measured = compare_memory(data, small, large, partial(measure_evaluate, model))
        figures |= {f"evaluate_{name}": value for name, value in measured.items()}
    show_figures("Evaluation", figures)
    write_figures(json, figures)


def save_small_model(folder: str) -> None:
    """One layer of 16 with random weights, and the embedded encoder's tokenizer."""
    tokenizer = load_tokenizer(resolve_model("embedded"))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=32,
        pad_token_id=tokenizer.pad_token_id,
    )
    BertForQuestionAnswering(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def measure_evaluate(model: str, file: Path, folder: str) -> dict[str, float]:
    """Peaks and seconds while the file is evaluated, null answers among the candidates."""
    return peak_memory(
        *("jobs.evaluate", f"--model={model}", f"--data.dev={file}", "--null_threshold=0"),
        *(f"--storage_path={folder}/runs", "--run_name=evaluation"),
    )


def compare_times(data: str, num_questions: int) -> dict[str, Any]:
    """Seconds of inference and of all that follows, one after the other, and their share."""
    path = resolve_model("embedded")
    tokenizer, model = load_tokenizer(path), load_model(path, seed=0)
    rows, device = read_examples(data)[0], torch.device("cpu")
    examples = take_repeated(rows, np.resize(np.arange(len(rows)), num_questions))
    features = make_features(examples, tokenizer)
    few = examples.slice(0, WARM_UP_QUESTIONS)
    run = partial(predict_logits, model, rules=padding_rules(tokenizer), device=device)
    compile_seconds = warm_up(few, make_features(few, tokenizer), run)
    seconds, logits = timed(lambda: run(features))
    decoding, answers = timed(lambda: decode(features, logits, examples))
    scoring, scores = timed(lambda: score(answers, examples))
    return {
        "num_questions": len(examples),
        "num_features": len(features),
        "num_threads": torch.get_num_threads(),
        "inference_seconds": seconds,
        "decoding_seconds": decoding,
        "scoring_seconds": scoring,
        "compile_seconds": compile_seconds,
        "postprocessing_share": (decoding + scoring) / seconds,
        "postprocessing_share_with_compiling": (decoding + scoring + compile_seconds) / seconds,
        "f1": scores["f1"],
    }


def warm_up(examples: pa.Table, features: pa.Table, run: Callable[[pa.Table], Any]) -> float:
    """Infer, decode and score a few questions; seconds of decoding: what it compiles, nearly."""
    logits = run(features)
    seconds, answers = timed(lambda: decode(features, logits, examples))
    score(answers, examples)
    return seconds


def make_features(examples: pa.Table, tokenizer: Any) -> pa.Table:
    """Windows of all examples."""
    return build_features(examples, tokenizer=tokenizer, max_length=SIZES[0], doc_stride=SIZES[1])


def decode(features: pa.Table, logits: Any, examples: pa.Table) -> pa.Table:
    """Best spans, the null answer among the candidates, as `jobs.evaluate` has them."""
    return decode_answers(features, *logits, examples=examples, null_threshold=float("inf"))


def score(answers: pa.Table, examples: pa.Table) -> dict[str, float]:
    """The official figures with the best null threshold."""
    scores = score_answers(answers, examples)
    return summarize_scores(scores, null_threshold=find_null_threshold(scores))


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds on the clock, and what the function gives."""
    started = time.perf_counter()
    result = function()
    return time.perf_counter() - started, result


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
