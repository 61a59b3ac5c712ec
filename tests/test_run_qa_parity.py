"""Mode reference gives run_qa's answers on 10,000 generated cases: ties, extremes, odd windows.

Windows are made as tables of features, without a tokenizer: context on the right behind CLS, or on
the left with CLS last; several windows an example, sharing tokens; contexts of one token; windows
without context, and windows where none of the best starts lies before one of the best ends.
Neither side has padding, so numpy orders equal logits alike.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from benchmarks.decoding_parity import find_differences
from benchmarks.notebook_decoding import MADE_UP, NotebookAnswers, postprocess
from qa_core.decoding import decode_answers
from qa_core.schemas import FEATURES
from tests.tiny import make_examples

NUM_EXAMPLES = 1000  # of a call; ten calls
KINDS = ("ties", "extremes", "smooth", "crossed", "mixed")
EXTREME = 3e38 / 100  # sums of a few stay finite in float32


def example_windows(random: np.random.Generator, number: int) -> tuple[str, list[dict[str, Any]]]:
    """A context of one-letter tokens, each another letter, and one to three windows of it."""
    num_tokens = int(random.choice([1, 2, 5, 12, 30, 60, 90]))
    context = " ".join(chr(0x4E00 + token) for token in range(num_tokens))
    is_left, num_question = random.random() < 0.4, int(random.integers(1, 9))
    room, overlap = int(random.integers(8, 60)), int(random.integers(0, 6))
    firsts = list(range(0, max(1, num_tokens - overlap), room - overlap))[:3]
    windows = []
    for index, first in enumerate(firsts):
        tokens = range(first, min(first + room, num_tokens))
        tokens = range(0) if random.random() < 0.05 else tokens
        chars = [[2 * token, 2 * token + 1] for token in tokens]
        before = 0 if is_left else num_question + 2
        after = num_question + 3 if is_left else 1
        offsets = [[-1, -1]] * before + chars + [[-1, -1]] * after
        windows.append(
            {
                "example_id": f"q{number}",
                "window_index": index,
                "input_ids": [0] * len(offsets),
                "token_type_ids": [0] * len(offsets),
                "offset_mapping": offsets,
                "start_positions": 0,
                "end_positions": 0,
                "cls_index": len(offsets) - 1 if is_left else 0,
            }
        )
    return context, windows


def window_logits(random: np.random.Generator, kind: str, length: int) -> NDArray[np.float32]:
    """Starts and ends, (2, length)."""
    logits = random.normal(0, 3, (2, length))
    if kind == "mixed":
        kind = KINDS[int(random.integers(4))]
    if kind == "ties":
        logits = np.round(logits / random.integers(1, 4))
    if kind == "extremes":
        logits = random.choice([-EXTREME, 0.0, EXTREME], (2, length), p=[0.2, 0.6, 0.2])
    if kind == "crossed":  # the best starts are last, the best ends first
        logits = np.stack([np.arange(length), -np.arange(length)]) + np.round(logits / 6)
    return logits.astype(np.float32)


def make_cases(seed: int, kind: str) -> tuple[pa.Table, list[dict[str, Any]], list[Any]]:
    """Examples, their windows as rows, and the logits of each window."""
    random = np.random.default_rng(seed)
    made = [example_windows(random, number) for number in range(NUM_EXAMPLES)]
    examples = make_examples([{"context": context, "question": "?"} for context, _ in made])
    windows = [window for _, rows in made for window in rows]
    return examples, windows, [window_logits(random, kind, len(w["input_ids"])) for w in windows]


@pytest.mark.parametrize("max_answer_length", [30, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_reference_mode_equals_run_qa(kind: str, max_answer_length: int) -> None:
    """Texts, n-best texts, scores, probabilities and null odds, in v1.1 and in v2.0 style."""
    seed = 10 * KINDS.index(kind) + max_answer_length
    examples, windows, logits = make_cases(seed, kind)
    assert len(windows) > 1.2 * len(examples)
    num_made_up = 0
    for null_threshold in (None, 0.0):
        settings = {"null_threshold": null_threshold, "max_answer_length": max_answer_length}
        answers = decode_windows(examples, windows, logits, **settings)
        peer = run_qa_answers(examples, windows, logits, **settings)
        assert len(peer.predictions) == NUM_EXAMPLES
        assert find_differences(answers, peer) == {}
        num_made_up += sum(best[0]["text"] == MADE_UP for best in peer.n_best.values())
    assert 2 * NUM_EXAMPLES > num_made_up > 0


def test_a_difference_is_found() -> None:
    """One logit raised on one side: that question is named, and what differs."""
    examples, windows, logits = make_cases(0, "smooth")
    peer = run_qa_answers(examples, windows, logits)
    pairs = [(row, t) for row, w in enumerate(windows) for t, _ in context_tokens(w)]
    row, token = pairs[0]
    logits[row][0, token] += 100
    differences = find_differences(decode_windows(examples, windows, logits), peer)
    assert list(differences) == [windows[row]["example_id"]]
    assert "run_qa's" in differences[windows[row]["example_id"]]


def decode_windows(
    examples: pa.Table, windows: list[dict[str, Any]], logits: list[Any], **settings: Any
) -> pa.Table:
    """Our answers in mode reference."""
    features = pa.Table.from_pylist(windows, schema=FEATURES)
    start, end = np.concatenate(logits, axis=1)  # (tokens,)
    return decode_answers(features, start, end, examples=examples, mode="reference", **settings)


def run_qa_answers(
    examples: pa.Table, windows: list[dict[str, Any]], logits: list[Any], **settings: Any
) -> NotebookAnswers:
    """Answers of the restated run_qa, whose offsets are None outside the context."""
    features = []
    for window in windows:
        offsets: list[Any] = [None] * len(window["offset_mapping"])
        for token, pair in context_tokens(window):
            offsets[token] = pair
        features.append({**window, "offset_mapping": offsets})
    starts, ends = ([pair[side] for pair in logits] for side in (0, 1))
    return postprocess(examples.to_pylist(), features, (starts, ends), **settings)


def context_tokens(window: dict[str, Any]) -> list[tuple[int, list[int]]]:
    """Context tokens of a window and their characters."""
    return [(t, pair) for t, pair in enumerate(window["offset_mapping"]) if pair[0] >= 0]
