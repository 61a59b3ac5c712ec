"""features: examples → windows ready for a model (tokenize, align and window in one call)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from qa_core.alignment import align_answers
from qa_core.errors import ConfigError, DataError, ModelError
from qa_core.schemas import FEATURES
from qa_core.tokenizing import (
    PairTemplate,
    Tokens,
    backend_of,
    encode_distinct,
    probe_template,
)
from qa_core.windowing import fill_windows, find_roomless, label_windows, plan_windows

FEATURES_VERSION = 1  # part of the digest of stored features: raise it when their content changes


@dataclass(frozen=True)
class EncodedExamples:
    """The tokens of a table of examples: each distinct text once, and which row has which."""

    contexts: Tokens
    context_of: NDArray[np.int64]  # (examples,)
    questions: Tokens
    question_of: NDArray[np.int64]  # (examples,)
    template: PairTemplate

    @property
    def question_lengths(self) -> NDArray[np.int64]:
        """Question tokens of each example, (examples,)."""
        return self.questions.lengths[self.question_of]

    @property
    def context_lengths(self) -> NDArray[np.int64]:
        """Context tokens of each example, (examples,)."""
        return self.contexts.lengths[self.context_of]


def build_features(
    examples: pa.Table, *, tokenizer: Any, max_length: int, doc_stride: int
) -> pa.Table:
    """Windows of all examples in reference order: `qa_core.schemas.FEATURES`, a row a window.

    The content is what the tokenizers library gives for the pair with truncation of the context
    and overflow, labelled as run_qa does, without padding; the question's leading white space is
    stripped. One difference: an answer in the window's last context token is labelled there,
    where run_qa's walk runs on past the context. Memory: about 14 bytes a token of the result,
    and the examples' tokens.

    Raises `DataError` naming the first example whose question leaves its context no room
    (`find_unfit` lists them), `ConfigError` for an impossible max_length or doc_stride.
    """
    encoded = encode_examples(examples, tokenizer=tokenizer)
    unfit = find_unfit(encoded, max_length=max_length, doc_stride=doc_stride)
    if len(unfit):
        raise DataError(
            f"question leaves no room for context ({len(unfit)} such examples)",
            where=f"example {examples['id'][int(unfit[0])].as_py()}",
            expected=roomless_detail(encoded, int(unfit[0]), max_length, doc_stride),
            remedy="raise max_length, lower doc_stride, or leave these examples out",
        )
    return window_examples(examples, encoded, max_length=max_length, doc_stride=doc_stride)


def encode_examples(examples: pa.Table, *, tokenizer: Any) -> EncodedExamples:
    """Tokens of the contexts and questions of `examples`."""
    backend = backend_of(tokenizer)
    contexts, context_of = encode_distinct(backend, examples["context"])
    stripped = pa.array([text.lstrip() for text in examples["question"].to_pylist()], pa.string())
    questions, question_of = encode_distinct(backend, pa.chunked_array([stripped]))
    return EncodedExamples(contexts, context_of, questions, question_of, probe_template(tokenizer))


def find_unfit(encoded: EncodedExamples, *, max_length: int, doc_stride: int) -> NDArray[np.int64]:
    """Rows of the examples that cannot be cut into windows: the question leaves no room."""
    special = encoded.template.num_special_tokens
    check_window_sizes(num_special_tokens=special, max_length=max_length, doc_stride=doc_stride)
    return find_roomless(
        encoded.question_lengths,
        encoded.context_lengths,
        num_special_tokens=special,
        max_length=max_length,
        doc_stride=doc_stride,
    )


def roomless_detail(encoded: EncodedExamples, row: int, max_length: int, doc_stride: int) -> str:
    """The arithmetic that makes a row one of `find_unfit`'s."""
    special = encoded.template.num_special_tokens
    question = encoded.question_lengths[row]
    return (
        f"room for more than doc_stride {doc_stride} context tokens; max_length {max_length} - "
        f"question {question} - special {special} = {max_length - question - special}"
    )


def window_examples(
    examples: pa.Table, encoded: EncodedExamples, *, max_length: int, doc_stride: int
) -> pa.Table:
    """Windows of examples that are already encoded; no row may be one of `find_unfit`."""
    windows = plan_windows(
        encoded.question_lengths,
        encoded.context_lengths,
        num_special_tokens=encoded.template.num_special_tokens,
        max_length=max_length,
        doc_stride=doc_stride,
    )
    filled = fill_windows(
        windows,
        questions=encoded.questions,
        question_of=encoded.question_of,
        contexts=encoded.contexts,
        context_of=encoded.context_of,
        template=encoded.template,
    )
    spans = align_answers(examples["answers"], encoded.contexts, encoded.context_of)
    start_positions, end_positions = label_windows(windows, filled, spans)
    splits = pa.array(filled.splits, pa.int32())
    pairs = pa.FixedSizeListArray.from_arrays(pa.array(filled.offsets.reshape(-1)), 2)
    columns = {
        "example_id": examples["id"].combine_chunks().take(pa.array(windows.example)),
        "window_index": pa.array(windows.index, pa.int32()),
        "input_ids": pa.ListArray.from_arrays(splits, pa.array(filled.input_ids)),
        "token_type_ids": pa.ListArray.from_arrays(splits, pa.array(filled.token_type_ids)),
        "offset_mapping": pa.ListArray.from_arrays(splits, pairs),
        "start_positions": pa.array(start_positions, pa.int32()),
        "end_positions": pa.array(end_positions, pa.int32()),
        "cls_index": pa.array(filled.cls_index, pa.int32()),
    }
    return pa.table(columns, schema=FEATURES)


def check_window_sizes(*, num_special_tokens: int, max_length: int, doc_stride: int) -> None:
    """Raise `ConfigError` where no question could leave a window that moves on."""
    if doc_stride < 0:
        raise ConfigError(f"doc_stride is {doc_stride}", "features.doc_stride", "0 or more")
    room = max_length - num_special_tokens - 1  # a question has at least one token
    if room < 1:
        raise ConfigError(
            f"max_length is {max_length}",
            where="features.max_length",
            expected=f"more than {num_special_tokens + 1}: special tokens and a question token",
        )
    if doc_stride >= room:
        raise ConfigError(
            f"doc_stride {doc_stride} is too large for max_length {max_length}",
            where="features.doc_stride",
            expected=f"less than the {room} context tokens a window can hold",
            remedy="lower doc_stride or raise max_length (doc_stride is the overlap, not the step)",
        )


def check_max_length(max_length: int, *, tokenizer: Any, model_config: Any) -> None:
    """Raise `ModelError` when windows would be longer than the model's positions."""
    limit = max_length_limit(tokenizer=tokenizer, model_config=model_config)
    if limit is not None and max_length > limit:
        raise ModelError(
            f"max_length {max_length} is above the model's {limit}",
            where="features.max_length",
            expected=f"at most {limit}",
            remedy="lower max_length; long contexts are covered by overlapping windows",
        )


def max_length_limit(*, tokenizer: Any, model_config: Any) -> int | None:
    """Tokens the model takes at most, by its tokenizer and its positions; None without a limit."""
    limits = [tokenizer.model_max_length, _num_positions(model_config)]
    return min((int(n) for n in limits if n is not None and n < 10**9), default=None)


def _num_positions(model_config: Any) -> int | None:
    """Longest input by the model's position table; RoBERTa's kin lose pad_token_id + 1 of it."""
    positions = getattr(model_config, "max_position_embeddings", None)
    if not isinstance(positions, int) or positions <= 0:
        return None
    shifted = ("roberta", "camembert", "longformer", "mpnet", "data2vec-text")
    if any(name in model_config.model_type for name in shifted):
        return positions - (model_config.pad_token_id or 0) - 1
    return positions
