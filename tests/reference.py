"""The reference recipes in our own words: what the project's results are held equal to.

`reference_features` asks the tokenizer itself to truncate and overflow the pair and labels the
windows by walking over offsets, as the question-answering notebook and run_qa do.
`reference_answers` decodes like run_qa, with its null score taken at the CLS token.
"""

from collections import Counter
from typing import Any

import numpy as np


def reference_features(
    example: dict[str, Any], tokenizer: Any, max_length: int, doc_stride: int
) -> list[dict[str, Any]]:
    """Windows of one example."""
    question, context = example["question"].lstrip(), example["context"]
    is_left = tokenizer.padding_side == "left"
    encoded = tokenizer(
        *((context, question) if is_left else (question, context)),
        truncation="only_first" if is_left else "only_second",
        max_length=max_length,
        stride=doc_stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        return_token_type_ids=True,
    )
    features = []
    for window, input_ids in enumerate(encoded["input_ids"]):
        sequences = encoded.sequence_ids(window)
        context_at = [i for i, s in enumerate(sequences) if s == (0 if is_left else 1)]
        offsets = encoded["offset_mapping"][window]
        cls_index = input_ids.index(tokenizer.cls_token_id)
        start, end = _reference_label(example["answers"], offsets, context_at, cls_index)
        features.append(
            {
                "example_id": example["id"],
                "window_index": window,
                "input_ids": input_ids,
                "token_type_ids": encoded["token_type_ids"][window],
                "offset_mapping": [
                    list(o) if i in set(context_at) else [-1, -1] for i, o in enumerate(offsets)
                ],
                "start_positions": start,
                "end_positions": end,
                "cls_index": cls_index,
            }
        )
    return features


def _reference_label(
    answers: dict[str, Any], offsets: list[Any], context_at: list[int], cls_index: int
) -> tuple[int, int]:
    """Walk inwards from both ends of the context; stop at its edge (run_qa runs past the end)."""
    if not answers["text"] or not context_at:
        return cls_index, cls_index
    start_char = answers["answer_start"][0]
    end_char = start_char + len(answers["text"][0])
    first, last = context_at[0], context_at[-1]
    if offsets[first][0] > start_char or offsets[last][1] < end_char:
        return cls_index, cls_index
    start = first
    while start <= last and offsets[start][0] <= start_char:
        start += 1
    end = last
    while end >= first and offsets[end][1] >= end_char:
        end -= 1
    return start - 1, end + 1


def reference_answers(
    features: list[dict[str, Any]],
    logits: list[tuple[Any, Any]],
    context: str,
    *,
    n_best: int,
    max_answer_length: int,
    null_threshold: float | None,
) -> tuple[str, list[dict[str, Any]], float]:
    """Text, n-best list and null score of one example, from its windows' (start, end) logits."""
    candidates, null_score = [], None
    for feature, (start_logits, end_logits) in zip(features, logits, strict=True):
        cls_index = feature["cls_index"]
        window_null = start_logits[cls_index] + end_logits[cls_index]
        if null_score is None or null_score > window_null:
            null_score = window_null
        offsets = feature["offset_mapping"]
        for start in np.argsort(start_logits)[-1 : -n_best - 1 : -1].tolist():
            for end in np.argsort(end_logits)[-1 : -n_best - 1 : -1].tolist():
                if offsets[start][0] < 0 or offsets[end][0] < 0:
                    continue
                if end < start or end - start + 1 > max_answer_length:
                    continue
                span = (offsets[start][0], offsets[end][1])
                candidates.append((start_logits[start] + end_logits[end], span))
    if null_threshold is not None:
        candidates.append((null_score, (0, 0)))
    ranked = sorted(candidates, key=lambda c: c[0], reverse=True)[:n_best]
    if null_threshold is not None and all(span != (0, 0) for _, span in ranked):
        ranked.append((null_score, (0, 0)))
    scores = np.array([score for score, _ in ranked], np.float32)
    exponents = np.exp(scores - scores.max()) if len(scores) else scores
    best = [
        {"text": context[a:b], "score": score, "probability": p}
        for (score, (a, b)), p in zip(ranked, exponents / exponents.sum(), strict=True)
    ]
    answered = [entry for entry in best if entry["text"]]
    text = answered[0]["text"] if answered else ""
    if null_threshold is not None and answered:
        is_null = null_score - answered[0]["score"] > null_threshold
        text = "" if is_null else text
    return text, best, float(null_score)


def reference_scores(
    gold: dict[str, list[str]], predictions: dict[str, str]
) -> tuple[dict[str, int], dict[str, float]]:
    """Exact match (0 or 1) and F1 (0 to 1) of each question by the official v2.0 rules."""
    exact, f1 = {}, {}
    for key, texts in gold.items():
        accepted = [text for text in texts if _normalize(text)] or [""]
        predicted = predictions[key]
        exact[key] = max(int(_normalize(text) == _normalize(predicted)) for text in accepted)
        f1[key] = max(_reference_f1(text, predicted) for text in accepted)
    return exact, f1


def _reference_f1(gold: str, predicted: str) -> float:
    gold_words, words = _normalize(gold).split(), _normalize(predicted).split()
    if not gold_words or not words:
        return float(gold_words == words)
    common = sum((Counter(gold_words) & Counter(words)).values())
    if not common:
        return 0.0
    precision, recall = common / len(words), common / len(gold_words)
    return 2 * precision * recall / (precision + recall)


def _normalize(text: str) -> str:
    kept = "".join(c for c in text.lower() if c not in "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
    words, word = [], ""
    for character in kept + " ":  # an article is one by \b: what is no \w bounds it
        if character.isalnum() or character == "_":
            word += character
        else:
            words.append(" " if word in ("a", "an", "the") else word)
            words.append(character)
            word = ""
    return " ".join("".join(words).split())
