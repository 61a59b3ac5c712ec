"""run_qa's post-processing, restated: what decoding is held equal to, and measured against.

Logits of padded windows → texts, n-best lists, null odds: as run_qa and the question-answering
notebook have it, a Python loop over examples, their windows, and pairs of the best starts and
ends. Features are indexed row by row, twice each, as there; progress bars and the writing of files
are left out.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

PADDING_LOGIT = -10_000.0  # of what gathers the logits of all batches
MADE_UP = "empty"  # the text given to a question without any candidate


@dataclass
class NotebookAnswers:
    """What run_qa writes to its three files, by example id."""

    predictions: dict[str, str] = field(default_factory=dict)
    n_best: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    null_odds: dict[str, float] = field(default_factory=dict)  # of v2.0 only


def postprocess(
    examples: Any,
    features: Any,
    logits: tuple[Sequence[NDArray[np.float32]], Sequence[NDArray[np.float32]]],
    *,
    null_threshold: float | None = None,
    n_best: int = 20,
    max_answer_length: int = 30,
) -> NotebookAnswers:
    """Answers of all examples; with a null_threshold in the style of v2.0, else of v1.1.

    `examples` (id, context) and `features` (example_id, offset_mapping with None outside the
    context) are `datasets.Dataset` or lists of dictionaries; `logits` are starts and ends, a row a
    feature. Null scores are read at index 0; a feature may name another cls_index, which run_qa
    knows nothing of (left-padded families).
    """
    ids = examples["id"] if hasattr(examples, "column_names") else [e["id"] for e in examples]
    position = {example_id: number for number, example_id in enumerate(ids)}
    rows_of = defaultdict(list)
    for row, feature in enumerate(features):
        rows_of[position[feature["example_id"]]].append(row)
    answers = NotebookAnswers()
    for number, example in enumerate(examples):
        candidates, null = _candidates(features, rows_of[number], logits, n_best, max_answer_length)
        if null_threshold is not None:
            candidates.append(null)
        ranked = sorted(candidates, key=lambda candidate: candidate["score"], reverse=True)[:n_best]
        if null_threshold is not None and all(entry["offsets"] != (0, 0) for entry in ranked):
            ranked.append(null)
        null_score = null["score"]
        _finish(ranked, example["context"])
        _answer(answers, example["id"], ranked, null_score, null_threshold)
    return answers


def pad_logits(
    flat: NDArray[np.float32], lengths: NDArray[np.int64], max_length: int
) -> NDArray[np.float32]:
    """One number a token, windows one after another → (features, max_length), padded."""
    padded = np.full((len(lengths), max_length), PADDING_LOGIT, np.float32)
    padded[np.arange(max_length) < lengths[:, None]] = flat
    return padded


def _candidates(
    features: Any, rows: list[int], logits: Any, n_best: int, max_answer_length: int
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Valid pairs of all windows of an example, and the null candidate with the smallest score."""
    found: list[dict[str, Any]] = []
    null: dict[str, Any] | None = None
    for row in rows:
        start_logits, end_logits = logits[0][row], logits[1][row]
        feature = features[row]
        offsets = feature["offset_mapping"]
        max_context = features[row].get("token_is_max_context")
        cls_index = feature.get("cls_index", 0)
        null_score = start_logits[cls_index] + end_logits[cls_index]
        if null is None or null["score"] > null_score:
            null = {
                "offsets": (0, 0),
                "score": null_score,
                "start_logit": start_logits[cls_index],
                "end_logit": end_logits[cls_index],
            }
        starts = np.argsort(start_logits)[-1 : -n_best - 1 : -1].tolist()
        ends = np.argsort(end_logits)[-1 : -n_best - 1 : -1].tolist()
        for start in starts:
            for end in ends:
                if start >= len(offsets) or end >= len(offsets):
                    continue
                if offsets[start] is None or offsets[end] is None:
                    continue
                if end < start or end - start + 1 > max_answer_length:
                    continue
                if max_context is not None and not max_context.get(str(start), False):
                    continue
                candidate = {
                    "offsets": (offsets[start][0], offsets[end][1]),
                    "score": start_logits[start] + end_logits[end],
                    "start_logit": start_logits[start],
                    "end_logit": end_logits[end],
                }
                found.append(candidate)
    assert null is not None, "an example without windows"
    return found, null


def _finish(ranked: list[dict[str, Any]], context: str) -> None:
    """Texts for offsets, an answer made up where there is none, probabilities for scores."""
    for entry in ranked:
        first, end = entry.pop("offsets")
        entry["text"] = context[first:end]
    if not ranked or (len(ranked) == 1 and not ranked[0]["text"]):
        ranked.insert(0, {"text": MADE_UP, "start_logit": 0.0, "end_logit": 0.0, "score": 0.0})
    scores = np.array([entry.pop("score") for entry in ranked])
    exponents = np.exp(scores - np.max(scores))
    for entry, probability in zip(ranked, exponents / exponents.sum(), strict=True):
        entry["probability"] = probability


def _answer(
    answers: NotebookAnswers,
    example_id: str,
    ranked: list[dict[str, Any]],
    null_score: Any,
    null_threshold: float | None,
) -> None:
    """Note the text, the null odds and the n-best list of one example."""
    if null_threshold is None:
        answers.predictions[example_id] = ranked[0]["text"]
    else:
        best = next(entry for entry in ranked if entry["text"])
        odds = null_score - best["start_logit"] - best["end_logit"]
        answers.null_odds[example_id] = float(odds)
        answers.predictions[example_id] = "" if odds > null_threshold else best["text"]
    answers.n_best[example_id] = [
        {k: float(v) if isinstance(v, np.floating) else v for k, v in entry.items()}
        for entry in ranked
    ]
