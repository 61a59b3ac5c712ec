"""Answering questions with a trained model, in the manner of the former pipeline."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from qa_core.asking import CALLER, Texts, read_asked
from qa_core.batching import padding_rules
from qa_core.decoding import decode_answers
from qa_core.errors import ConfigError, DataError, ModelError
from qa_core.features import (
    EncodedExamples,
    cut_questions,
    encode_examples,
    fill_features,
    find_unfit,
    label_examples,
    max_length_limit,
)
from qa_core.inference import predict_logits
from qa_core.presenting import present_answers
from qa_core.tokenizing import PairEncoder, check_vocabulary, load_tokenizer
from qa_core.training import load_model
from qa_core.windowing import split_rows

SETTINGS_KEY = "extractive_qa"  # of a trained model's config.json: windows, decoding, threshold
# For models that come without such settings; run_qa's defaults.
DEFAULT_MAX_LENGTH = 384
DEFAULT_DOC_STRIDE = 128
DEFAULT_N_BEST = 20
DEFAULT_MAX_ANSWER_LENGTH = 30
OTHER_DECODING = ("mode", "max_context")  # what else of the stored settings `decode_answers` takes

TOKENS_PER_PIECE = 2**20  # of windows in memory at once: 30 MB of features and logits


class Answerer:
    """Answers questions about texts, on one device.

    >>> answerer = Answerer.from_pretrained("runs/demo/model")  # doctest: +SKIP
    >>> answerer(question="When?", context="It opened in 1912.")  # doctest: +SKIP
    {'score': 0.98, 'start': 13, 'end': 17, 'answer': '1912'}

    Code for the `question-answering` pipeline of transformers 4 needs this line in place of its
    `pipeline("question-answering", model=NAME)`:

    >>> question_answerer = Answerer.from_pretrained("NAME")  # doctest: +SKIP

    What differs: `score` is the probability among the n-best candidates of all windows, where
    the pipeline had a product of two probabilities within one window. The null answer has -1 for
    start and end, where the pipeline had 0. An answer ends where a token ends, not always with a
    word (`align_to_words`). Questions are not cut unless `max_question_len` says so (the pipeline
    cut at 64 tokens). `max_answer_len` is what the model was trained with, else 30, the
    pipeline's 15; the null answer is possible by default where the model has a null threshold.
    A list of one pair gives a list of one answer, where the pipeline gave the answer itself.
    """

    def __init__(self, model: Any, tokenizer: Any, *, device: torch.device | None = None) -> None:
        check_vocabulary(tokenizer, model.config)
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = model.to(self.device)
        self.encoder = PairEncoder.of(tokenizer)
        self.rules = padding_rules(tokenizer)
        self.limit = max_length_limit(tokenizer=tokenizer, model_config=model.config)
        self.settings: dict[str, Any] = dict(getattr(model.config, SETTINGS_KEY, None) or {})

    @classmethod
    def from_pretrained(cls, path: str, *, device: torch.device | None = None) -> "Answerer":
        """The model and tokenizer of a folder or Hub name, ours or any other with a span head."""
        tokenizer = load_tokenizer(path)
        return cls(load_model(path, seed=0), tokenizer, device=device)

    def __call__(
        self,
        *pairs: Any,
        question: Texts = None,
        context: Texts = None,
        top_k: int = 1,
        doc_stride: int | None = None,
        max_answer_len: int | None = None,
        max_seq_len: int | None = None,
        max_question_len: int | None = None,
        handle_impossible_answer: bool | None = None,
    ) -> Any:
        """The answer as a dictionary of `score`, `start`, `end` and `answer`.

        `pairs`: a dictionary of question and context, a tuple (question, context), or a list of
        either; instead of them `question` and `context`, each a text or a list, one of either
        standing for many. A list gives a list; top_k above 1 gives for each a list of at most so
        many, the answer first, then the other candidates, best first.

        `score` is the probability among the n-best candidates, `start` and `end` are half-open
        characters of the context; the null answer has the text "" and -1, -1. So has a context
        without a token to answer with, score 0, where the null answer is not possible.

        Lengths are in tokens; None takes what the model was trained with (a stride too large for
        a `max_seq_len` given here is cut to a third of it), for `max_question_len` all of the
        question. The null answer is possible where `handle_impossible_answer` says so, or by
        default where a null threshold is stored with the model; the stored threshold decides (0
        without one). Memory is bounded by the texts and about a million tokens of windows.

        Raises `DataError` for pairs and `ConfigError` for options that cannot be used.
        """
        _check_least(top_k=top_k, max_answer_len=max_answer_len, max_question_len=max_question_len)
        asked = read_asked(pairs, question=question, context=context)
        sizes = self._window_sizes(max_seq_len, doc_stride)
        examples = asked.examples
        encoded = encode_examples(examples, encoder=self.encoder)
        if max_question_len is not None:
            encoded = cut_questions(encoded, max_question_len)
        _check_room(encoded, *sizes)
        threshold = self._null_threshold(handle_impossible_answer)
        found = [
            _fields(candidates, top_k)
            for piece, features in _pieces(examples, encoded, *sizes)
            for candidates in self._candidates(
                piece, features, top_k=top_k, longest=max_answer_len, null_threshold=threshold
            )
        ]
        return found[0] if asked.is_single else found

    def _candidates(
        self,
        examples: pa.Table,
        features: pa.Table,
        *,
        top_k: int,
        longest: int | None,
        null_threshold: float | None,
    ) -> list[list[dict[str, Any]]]:
        """The first `top_k` candidates of each example, as `PREDICTED` has them in n_best."""
        start, end = predict_logits(self.model, features, rules=self.rules, device=self.device)
        answers = decode_answers(
            features,
            start,
            end,
            examples=examples,
            n_best=max(top_k, self._setting("n_best", DEFAULT_N_BEST)),
            max_answer_length=longest
            or self._setting("max_answer_length", DEFAULT_MAX_ANSWER_LENGTH),
            null_threshold=null_threshold,
            **{name: self.settings[name] for name in OTHER_DECODING if name in self.settings},
        )
        has_null = null_threshold is not None
        rows = present_answers(answers, top_k=top_k, has_null=has_null)
        return list(rows["n_best"].to_pylist())

    def _setting(self, name: str, default: int) -> int:
        value = self.settings.get(name)
        return default if value is None else int(value)

    def _window_sizes(self, length: int | None, stride: int | None) -> tuple[int, int]:
        """max_length and doc_stride, checked: given, else the model's, else the defaults."""
        is_trained = length is None and "doc_stride" in self.settings
        if length is None:
            length = self._setting("max_length", default_max_length(self.limit))
        if stride is None:
            stride = self._setting("doc_stride", DEFAULT_DOC_STRIDE)
            stride = stride if is_trained else min(stride, default_doc_stride(length))
        _check_sizes(length, stride, self.encoder.template.num_special_tokens, self.limit)
        return length, stride

    def _null_threshold(self, is_handled: bool | None) -> float | None:
        stored = self.settings.get("null_threshold")
        if is_handled is None:
            return stored
        return (0.0 if stored is None else float(stored)) if is_handled else None


def default_max_length(limit: int | None) -> int:
    """Tokens in a window of a model that comes without settings, within its `limit`."""
    return DEFAULT_MAX_LENGTH if limit is None else min(DEFAULT_MAX_LENGTH, limit)


def default_doc_stride(max_length: int) -> int:
    """Tokens that neighbouring windows share where nothing says how many."""
    return min(DEFAULT_DOC_STRIDE, max_length // 3)


def _check_least(**options: int | None) -> None:
    for name, value in options.items():
        if value is not None and value < 1:
            raise ConfigError(f"{name} is {value}", f"{CALLER}, {name}", "1 or more")


def _check_sizes(length: int, stride: int, num_special_tokens: int, limit: int | None) -> None:
    """Raise where no question could leave a window that moves on, or the model has no positions."""
    if limit is not None and length > limit:
        raise ModelError(
            f"max_seq_len {length} is above the model's {limit}",
            where=f"{CALLER}, max_seq_len",
            expected=f"at most {limit}",
            remedy="lower it; long contexts are covered by overlapping windows",
        )
    room = length - num_special_tokens - 1  # a question has at least one token
    if room < 1:
        raise ConfigError(
            f"max_seq_len is {length}",
            where=f"{CALLER}, max_seq_len",
            expected=f"more than {num_special_tokens + 1}: special tokens and a question token",
        )
    if not 0 <= stride < room:
        raise ConfigError(
            f"doc_stride {stride} does not suit max_seq_len {length}",
            where=f"{CALLER}, doc_stride",
            expected=f"0 or more, less than the {room} context tokens a window can hold",
            remedy="lower it or raise max_seq_len (doc_stride is the overlap, not the step)",
        )


def _check_room(encoded: EncodedExamples, length: int, stride: int) -> None:
    """Raise `DataError` naming the first question that leaves its context no room."""
    unfit = find_unfit(encoded, max_length=length, doc_stride=stride)
    if not len(unfit):
        return
    special = encoded.template.num_special_tokens
    question = int(encoded.question_lengths[unfit[0]])
    raise DataError(
        f"the question leaves its context no room ({len(unfit)} such pairs)",
        where=f"{CALLER}, pair {unfit[0]}",
        expected=f"room for more than doc_stride {stride} context tokens; max_seq_len {length} - "
        f"question {question} - special {special} = {length - question - special}",
        remedy="cut the question with max_question_len (here at most "
        f"{length - special - stride - 1}), raise max_seq_len or lower doc_stride",
    )


def _pieces(
    examples: pa.Table, encoded: EncodedExamples, length: int, stride: int
) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Examples in order and their features, so many at a time as fit in memory together."""
    planned = label_examples(encoded, max_length=length, doc_stride=stride)
    example = planned.windows.example  # (windows,) rising
    tokens = np.bincount(example, weights=planned.layout.length, minlength=len(examples))
    for first, stop in split_rows(tokens.astype(np.int64), most=TOKENS_PER_PIECE):
        windows = np.arange(*np.searchsorted(example, [first, stop]))
        piece = examples.slice(first, stop - first)
        plain = piece.set_column(
            piece.schema.get_field_index("context"), "context", piece["context"].cast(pa.string())
        )
        yield plain, fill_features(encoded, planned.take(windows), ids=examples["id"])


def _fields(candidates: list[dict[str, Any]], top_k: int) -> Any:
    """The pipeline's fields of the answer and, for top_k above 1, of the other candidates."""
    nothing = {"probability": 0.0, "start": -1, "end": -1, "text": ""}
    found = [
        {"score": c["probability"], "start": c["start"], "end": c["end"], "answer": c["text"]}
        for c in candidates or [nothing]
    ]
    return found[0] if top_k == 1 else found
