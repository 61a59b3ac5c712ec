"""Are the answers of mode reference run_qa's own? Every question of real data, a trained model.

    python -m benchmarks.decoding_parity --model MODEL --data '[squad_v2.json, new_wiki.json]'

Logits of the model for all windows (384, 128), decoded by `decode_answers` in mode reference and by
run_qa's loop (`benchmarks.notebook_decoding`) on the same logits padded to 384, in the style of
v1.1 and of v2.0. Prints how many questions have the same text, n-best texts, scores, probabilities
and null odds; the exit status is 1 if any differs. Nearly all of the time is inference: about ten
minutes on two cores for the 10,766 questions of the two files and a 6-layer MiniLM.
"""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import torch
from jsonargparse import auto_cli
from numpy.typing import NDArray

from benchmarks.figures import show_figures, write_figures
from benchmarks.notebook_decoding import MADE_UP, NotebookAnswers, pad_logits, postprocess
from benchmarks.notebook_features import map_features, notebook_dataset
from jobs.models import resolve_model
from qa_core.batching import feature_lengths, padding_rules
from qa_core.decoding import Mode, decode_answers, null_odds
from qa_core.features import build_features
from qa_core.inference import predict_logits
from qa_core.reading import read_examples
from qa_core.tokenizing import load_tokenizer
from qa_core.training import load_model

SIZES = (384, 128)
STYLES = {"v1": None, "v2": 0.0}  # their null thresholds
DIFFERENCES_SHOWN = 10
NO_ODDS = float(np.finfo(np.float32).max)  # ours of a question without any span

Logits = tuple[NDArray[np.float32], NDArray[np.float32]]


def main(
    model: str, data: list[str], num_questions: int | None = None, json: str | None = None
) -> None:
    """Compare; see the module.

    Args:
        model: folder or name of a trained model.
        data: SQuAD JSON files.
        num_questions: only the first questions of all; default: every one.
        json: where to write the figures, too.
    """
    datasets.disable_progress_bars()
    path = resolve_model(model)
    tokenizer = load_tokenizer(path)
    span_model, rules = load_model(path, seed=0), padding_rules(tokenizer)
    device = torch.device("cpu")
    examples = read_examples(data)[0].slice(0, num_questions)
    case = make_case(
        examples,
        tokenizer,
        lambda features: predict_logits(span_model, features, rules=rules, device=device),
    )
    figures: dict[str, Any] = {"num_questions": len(examples), "num_windows": len(case.features)}
    differing = {style: compare_style(case, threshold) for style, threshold in STYLES.items()}
    for style, found in differing.items():
        figures[f"num_identical_{style}"] = len(examples) - len(found)
        for what in list(found.values())[:DIFFERENCES_SHOWN]:
            print(f"{style}: {what}")
    show_figures("Mode reference beside run_qa", figures)
    write_figures(json, figures)
    sys.exit(1 if any(differing.values()) else 0)


@dataclass(frozen=True)
class DecodingCase:
    """The same logits and windows as we and as run_qa have them."""

    examples: pa.Table
    features: pa.Table
    logits: Logits  # (tokens,) each
    peer_examples: datasets.Dataset
    peer_features: datasets.Dataset  # padded to max_length, with all columns of run_qa's
    peer_logits: Logits  # (features, max_length) each

    def decode(self, mode: Mode, null_threshold: float | None) -> pa.Table:
        """Our answers."""
        return decode_answers(
            self.features,
            *self.logits,
            examples=self.examples,
            mode=mode,
            null_threshold=null_threshold,
        )


def make_case(
    examples: pa.Table, tokenizer: Any, logits_of: Callable[[pa.Table], Logits]
) -> DecodingCase:
    """Windows of `examples` on both sides, and `logits_of` ours, padded for the peer."""
    features = build_features(
        examples, tokenizer=tokenizer, max_length=SIZES[0], doc_stride=SIZES[1]
    )
    logits = logits_of(features)
    peer_examples = notebook_dataset(examples)
    peer_features = map_features(peer_examples, "validation", tokenizer, SIZES)
    if peer_features["example_id"][:] != features["example_id"].to_pylist():
        raise SystemExit("error: the windows are others than the notebook's")
    start, end = (pad_logits(flat, feature_lengths(features), SIZES[0]) for flat in logits)
    return DecodingCase(examples, features, logits, peer_examples, peer_features, (start, end))


def in_memory(case: DecodingCase) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Examples and features as Python objects, of the columns that are read."""
    examples = case.peer_examples.select_columns(["id", "context"])
    features = case.peer_features.select_columns(["example_id", "offset_mapping"])
    return examples.to_list(), features.to_list()


def compare_style(case: DecodingCase, null_threshold: float | None) -> dict[str, str]:
    """What differs between mode reference and run_qa, by question; {} if nothing does."""
    peer = postprocess(*in_memory(case), case.peer_logits, null_threshold=null_threshold)
    return find_differences(case.decode("reference", null_threshold), peer)


def find_differences(answers: pa.Table, peer: NotebookAnswers) -> dict[str, str]:
    """The first difference of each question that has one, in words, by id.

    Texts and scores must be equal, probabilities to 1e-6 and null odds to rounding (run_qa
    subtracts float32 logits one by one). Where no window has a valid span, run_qa makes an answer
    up; ours must then have none.
    """
    if sorted(answers["id"].to_pylist()) != sorted(peer.predictions):
        raise ValueError("the questions of both sides are others")
    rows = zip(answers.to_pylist(), null_odds(answers).tolist(), strict=True)
    found = {answer["id"]: _difference(answer, odds, peer) for answer, odds in rows}
    return {example_id: f"{example_id}: {what}" for example_id, what in found.items() if what}


def _difference(answer: dict[str, Any], odds: float, peer: NotebookAnswers) -> str:
    """What differs first; "" where nothing does."""
    entries, text = peer.n_best[answer["id"]], peer.predictions[answer["id"]]
    is_made_up = entries[0]["text"] == MADE_UP and answer["score"] == -math.inf
    if is_made_up:
        entries, text = entries[1:], ""
    best = answer["n_best"]
    compared = {
        "text": (answer["text"], text),
        "n-best texts": ([b["text"] for b in best], [e["text"] for e in entries]),
        "n-best scores": ([b["score"] for b in best], [_score(e) for e in entries]),
    }
    for name, (ours, theirs) in compared.items():
        if ours != theirs:
            return f"{name}: ours {ours!r}, run_qa's {theirs!r}"
    probabilities = [[row["probability"] for row in rows] for rows in (best, entries)]
    if not is_made_up and not np.allclose(*probabilities, rtol=0, atol=1e-6):
        return "probabilities: ours {!r}, run_qa's {!r}".format(*probabilities)
    their_odds = NO_ODDS if is_made_up else peer.null_odds.get(answer["id"], odds)
    if not np.isclose(odds, their_odds, rtol=1e-5, atol=1e-4):
        return f"null odds: ours {odds!r}, run_qa's {their_odds!r}"
    return ""


def _score(entry: dict[str, Any]) -> float:
    """start logit + end logit, summed in float32 as both sides do."""
    return float(np.float32(entry["start_logit"]) + np.float32(entry["end_logit"]))


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
