"""Answering questions with a trained model, in the manner of the former pipeline."""

import math
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import torch

from qa_core.batching import padding_rules
from qa_core.decoding import decode_answers
from qa_core.errors import DataError
from qa_core.features import build_features, check_max_length, max_length_limit
from qa_core.inference import predict_logits
from qa_core.schemas import EXAMPLES
from qa_core.tokenizing import load_tokenizer
from qa_core.training import load_model

SETTINGS_KEY = "extractive_qa"  # of a trained model's config.json: windows, decoding, threshold
# For models that come without such settings; run_qa's defaults.
DEFAULT_MAX_LENGTH = 384
DEFAULT_DOC_STRIDE = 128
DEFAULT_MAX_ANSWER_LENGTH = 30


class Answerer:
    """Answers questions about texts, on one device.

    >>> answerer = Answerer.from_pretrained("runs/demo/model")  # doctest: +SKIP
    >>> answerer(question="When?", context="It opened in 1912.")  # doctest: +SKIP
    {'score': 0.98, 'start': 13, 'end': 17, 'answer': '1912'}
    """

    def __init__(self, model: Any, tokenizer: Any, *, device: torch.device | None = None) -> None:
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = model.to(self.device)
        self.tokenizer = tokenizer
        self.settings: dict[str, Any] = getattr(model.config, SETTINGS_KEY, None) or {}

    @classmethod
    def from_pretrained(cls, path: str, *, device: torch.device | None = None) -> "Answerer":
        """The model and tokenizer of a folder or Hub name, ours or any other with a span head."""
        return cls(load_model(path, seed=0), load_tokenizer(path), device=device)

    def __call__(
        self,
        *,
        question: str | Sequence[str],
        context: str | Sequence[str],
        top_k: int = 1,
        doc_stride: int | None = None,
        max_answer_len: int | None = None,
        max_seq_len: int | None = None,
        handle_impossible_answer: bool | None = None,
    ) -> Any:
        """The answer as a dictionary of `score`, `start`, `end` and `answer`.

        `score` is the probability among the n-best candidates, `start` and `end` are half-open
        characters of the context; the null answer has the text "" and -1, -1. Lists of questions
        and contexts give a list; top_k above 1 gives a list of at most so many, best first.
        Lengths are in tokens; None takes what the model was trained with (a stride too large for
        a `max_seq_len` given here is cut to a third of it). The null answer is
        possible where `handle_impossible_answer` says so, or by default where a null threshold
        is stored with the model; the stored threshold decides (0 without one).
        """
        examples, is_single = _examples(question, context)
        length = max_seq_len or self._setting("max_length", self._longest())
        check_max_length(length, tokenizer=self.tokenizer, model_config=self.model.config)
        stride = doc_stride
        if stride is None:
            stride = self._setting("doc_stride", DEFAULT_DOC_STRIDE)
            is_trained = max_seq_len is None and "doc_stride" in self.settings
            stride = stride if is_trained else min(stride, length // 3)
        features = build_features(
            examples, tokenizer=self.tokenizer, max_length=length, doc_stride=stride
        )
        start, end = predict_logits(
            self.model, features, rules=padding_rules(self.tokenizer), device=self.device
        )
        answers = decode_answers(
            features,
            start,
            end,
            examples=examples,
            n_best=max(top_k, self._setting("n_best", 20)),
            max_answer_length=max_answer_len
            or self._setting("max_answer_length", DEFAULT_MAX_ANSWER_LENGTH),
            mode=self.settings.get("mode", "exact"),
            null_threshold=self._null_threshold(handle_impossible_answer),
        )
        found = [_top(row, top_k) for row in answers.to_pylist()]
        return found[0] if is_single else found

    def _setting(self, name: str, default: int) -> int:
        value = self.settings.get(name)
        return default if value is None else int(value)

    def _longest(self) -> int:
        """The default window, within the model's own limit."""
        limit = max_length_limit(tokenizer=self.tokenizer, model_config=self.model.config)
        return DEFAULT_MAX_LENGTH if limit is None else min(DEFAULT_MAX_LENGTH, limit)

    def _null_threshold(self, is_handled: bool | None) -> float | None:
        stored = self.settings.get("null_threshold")
        if is_handled is None:
            return stored
        return (0.0 if stored is None else float(stored)) if is_handled else None


def _examples(question: str | Sequence[str], context: str | Sequence[str]) -> tuple[pa.Table, bool]:
    """Examples of one or many questions; one context may serve many questions."""
    is_single = isinstance(question, str) and isinstance(context, str)
    questions = [question] if isinstance(question, str) else list(question)
    contexts = [context] if isinstance(context, str) else list(context)
    contexts = contexts * len(questions) if len(contexts) == 1 else contexts
    questions = questions * len(contexts) if len(questions) == 1 else questions
    if len(questions) != len(contexts) or not questions:
        raise DataError(
            f"{len(questions)} questions and {len(contexts)} contexts",
            where="Answerer",
            expected="as many of the one as of the other, or one of either",
        )
    for number, (asked, text) in enumerate(zip(questions, contexts, strict=True)):
        if not asked.strip() or not text.strip():
            nothing = "question" if not asked.strip() else "context"
            raise DataError(f"the {nothing} is empty", f"Answerer, pair {number}", "some text")
    rows = [
        {
            "id": str(number),
            "title": "",
            "context": text,
            "question": asked,
            "answers": {"text": [], "answer_start": []},
            "source": "",
        }
        for number, (asked, text) in enumerate(zip(questions, contexts, strict=True))
    ]
    return pa.Table.from_pylist(rows, schema=EXAMPLES), is_single


def _top(row: dict[str, Any], top_k: int) -> Any:
    """The chosen answer first, then the other candidates, best first."""
    chosen = (row["start_char"], row["end_char"])
    ranked = sorted(
        row["n_best"], key=lambda c: ((c["start_char"], c["end_char"]) != chosen, -c["score"])
    )
    found = [
        {
            "score": c["probability"],
            "start": c["start_char"],
            "end": c["end_char"],
            "answer": c["text"],
        }
        for c in ranked[:top_k]
    ]
    nothing = {"score": math.nan, "start": -1, "end": -1, "answer": ""}
    return (found[0] if found else nothing) if top_k == 1 else found
