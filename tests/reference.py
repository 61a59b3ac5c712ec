"""The reference recipes in our own words: what the project's results are held equal to.

`reference_windows` asks the tokenizer itself to truncate and overflow the pair and labels the
windows by walking over offsets, as the question-answering notebook and run_qa do;
`differing_windows` holds a features table to it.
`reference_answers` decodes like run_qa, with its null score taken at the CLS token.
"""

from collections import Counter
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

NO_ROOM = ("Sequence to truncate too short", "`stride` must be strictly less than")


@dataclass(frozen=True)
class ReferenceWindows:
    """Windows of several examples, the tokens of one window after another."""

    example: NDArray[np.int64]  # (windows,) number of its example
    index: NDArray[np.int64]  # (windows,) number of the window in its example
    lengths: NDArray[np.int64]  # (windows,) tokens
    token_columns: dict[str, NDArray[Any]]  # (tokens,), and offset_mapping (tokens, 2)
    labels: dict[str, NDArray[np.int64]]  # start_positions, end_positions, cls_index: (windows,)


def reference_windows(
    examples: list[dict[str, Any]], tokenizer: Any, max_length: int, doc_stride: int
) -> ReferenceWindows:
    """Windows of all examples, one call of the tokenizer with texts in lists, as run_qa has it.

    (With two single texts, transformers takes an empty second one for no second text at all.)
    """
    questions = [example["question"].lstrip() for example in examples]
    contexts = [example["context"] for example in examples]
    is_left = tokenizer.padding_side == "left"
    encoded = tokenizer(
        *((contexts, questions) if is_left else (questions, contexts)),
        truncation="only_first" if is_left else "only_second",
        max_length=max_length,
        stride=doc_stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        return_token_type_ids=True,
        return_attention_mask=False,
    )
    of_example = encoded["overflow_to_sample_mapping"]
    cls_or_bos = (tokenizer.cls_token_id, tokenizer.bos_token_id)
    labels, index, offsets = [], [], []
    for window, (number, ids) in enumerate(zip(of_example, encoded["input_ids"], strict=True)):
        sequences = encoded.sequence_ids(window)
        window_offsets = encoded["offset_mapping"][window]
        first, end = _context_range(sequences, 0 if is_left else 1)
        cls_index = _cls_index(ids, sequences, cls_or_bos)
        answers = examples[number]["answers"]
        span = _reference_label(answers, window_offsets, range(first, end), cls_index)
        labels.append((*span, cls_index))
        is_next = window > 0 and of_example[window - 1] == number
        index.append(index[-1] + 1 if is_next else 0)
        offsets += [(-1, -1)] * first + window_offsets[first:end] + [(-1, -1)] * (len(ids) - end)
    flat = chain.from_iterable
    token_columns = {
        "input_ids": np.fromiter(flat(encoded["input_ids"]), np.int32),
        "token_type_ids": np.fromiter(flat(encoded["token_type_ids"]), np.int8),
        "offset_mapping": np.fromiter(flat(offsets), np.int32).reshape(-1, 2),
    }
    names = ("start_positions", "end_positions", "cls_index")
    columns = np.array(labels, np.int64).reshape(-1, 3).T
    lengths = np.array([len(ids) for ids in encoded["input_ids"]], np.int64)
    return ReferenceWindows(
        np.array(of_example, np.int64),
        np.array(index, np.int64),
        lengths,
        token_columns,
        dict(zip(names, columns, strict=True)),
    )


def reference_features(
    example: dict[str, Any], tokenizer: Any, max_length: int, doc_stride: int
) -> list[dict[str, Any]]:
    """Windows of one example, as rows of the features table."""
    windows = reference_windows([example], tokenizer, max_length, doc_stride)
    ends = np.cumsum(windows.lengths)
    return [
        {
            "example_id": example["id"],
            "window_index": window,
            **{k: v[end - length : end].tolist() for k, v in windows.token_columns.items()},
            **{k: v[window].item() for k, v in windows.labels.items()},
        }
        for window, (length, end) in enumerate(zip(windows.lengths, ends, strict=True))
    ]


def reference_of_accepted(
    examples: list[dict[str, Any]], tokenizer: Any, max_length: int, doc_stride: int
) -> tuple[list[bool], ReferenceWindows | None]:
    """Which examples the tokenizers library cuts into windows, and the windows of those.

    It refuses a whole call for one example, so that halves are tried, and halves of those.
    """
    options = (tokenizer, max_length, doc_stride)
    windows = _windows_or_refusal(examples, *options)
    if windows is not None:
        return [True] * len(examples), windows
    if len(examples) == 1:
        return [False], None
    middle = len(examples) // 2
    is_accepted = [
        accepted
        for half in (examples[:middle], examples[middle:])
        for accepted in reference_of_accepted(half, *options)[0]
    ]
    rest = [example for example, ok in zip(examples, is_accepted, strict=True) if ok]
    return is_accepted, reference_windows(rest, *options) if rest else None


def _windows_or_refusal(
    examples: list[dict[str, Any]], tokenizer: Any, max_length: int, doc_stride: int
) -> ReferenceWindows | None:
    """The windows of all examples; None where the library refuses one for want of room."""
    try:
        return reference_windows(examples, tokenizer, max_length, doc_stride)
    except BaseException as error:  # its panics are no `Exception`
        if any(message in str(error) for message in NO_ROOM):
            return None
        raise


def differing_windows(
    features: pa.Table, examples: list[dict[str, Any]], expected: ReferenceWindows
) -> dict[str, NDArray[np.int64]]:
    """For each column of `features`, the windows that differ from the reference's; {} if equal.

    Where the windows are others, or of other lengths, all differ: under the name "windows".
    """
    found_ids = features["example_id"].to_pylist()
    lengths = pc.list_value_length(features["input_ids"]).to_numpy()
    all_windows = np.arange(max(len(found_ids), len(expected.lengths)))
    if (
        found_ids != [examples[number]["id"] for number in expected.example]
        or features["window_index"].to_pylist() != expected.index.tolist()
        or lengths.tolist() != expected.lengths.tolist()
    ):
        return {"windows": all_windows}
    window_of = np.repeat(all_windows, lengths)  # (tokens,)
    differing = {}
    for name, wanted in expected.token_columns.items():
        found = _flat_values(features[name]).reshape(wanted.shape)
        is_other = (found != wanted).reshape(len(wanted), -1).any(axis=1)  # (tokens,)
        differing[name] = np.unique(window_of[is_other])
    for name, wanted in expected.labels.items():
        differing[name] = np.flatnonzero(features[name].to_numpy() != wanted)
    return {name: windows for name, windows in differing.items() if len(windows)}


def _flat_values(column: pa.ChunkedArray) -> NDArray[Any]:
    """The innermost values of a column of lists."""
    values = column.combine_chunks()
    while pa.types.is_list(values.type) or pa.types.is_fixed_size_list(values.type):
        values = values.flatten()
    return np.asarray(values)


def _context_range(sequences: list[int | None], which: int) -> tuple[int, int]:
    """First token of the context and the one after its last."""
    if which not in sequences:
        return 0, 0
    first, end = sequences.index(which), len(sequences) - sequences[::-1].index(which)
    assert sequences.count(which) == end - first, "the context is not one run of tokens"
    return first, end


def _cls_index(
    ids: list[int], sequences: list[int | None], cls_or_bos: tuple[int | None, int | None]
) -> int:
    """The CLS token that the template put there (not one that a text spells), else BOS, else 0."""
    special = [index for index, sequence in enumerate(sequences) if sequence is None]
    for token_id in cls_or_bos:
        for index in special:
            if ids[index] == token_id:
                return index
    return 0


def _reference_label(
    answers: dict[str, Any], offsets: list[Any], context_at: range, cls_index: int
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


def reference_threshold(
    scores: dict[str, float],
    predictions: dict[str, str],
    gold: dict[str, list[str]],
    odds: dict[str, float],
) -> tuple[float, float]:
    """The best score (0 to 100) and its threshold, by the official v2.0 search."""
    right = best = sum(1 for texts in gold.values() if not texts)
    threshold = 0.0
    for key in sorted(odds, key=lambda k: odds[k]):
        if gold[key]:
            right += scores[key]
        elif predictions[key]:
            right -= 1
        if right > best:
            best, threshold = right, odds[key]
    return 100.0 * best / len(scores), threshold


def reference_average_precision(
    scores: dict[str, float], gold: dict[str, list[str]], odds: dict[str, float]
) -> float:
    """Average precision (0 to 100) of answering by rising odds, by the official v2.0 rules."""
    num_answerable = sum(1 for texts in gold.values() if texts)
    keys = sorted(odds, key=lambda k: odds[k])
    found = last_recall = average = 0.0
    for place, key in enumerate(keys):
        if gold[key]:
            found += scores[key]
        if place + 1 == len(keys) or odds[keys[place + 1]] != odds[key]:
            recall = found / num_answerable
            average += found / (place + 1) * (recall - last_recall)
            last_recall = recall
    return 100.0 * average


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
