"""features: examples → windows ready for a model (tokenize, align and window in one call)."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from qa_core.alignment import AnswerSpans, align_answers
from qa_core.errors import ConfigError, DataError, ModelError
from qa_core.labelling import (
    Labels,
    LabelSpans,
    all_labels,
    first_labels,
    place_answers,
    single_spans,
)
from qa_core.schemas import FEATURES
from qa_core.tokenizing import (
    PairEncoder,
    PairTemplate,
    Tokens,
    cut_texts,
    distinct_texts,
    encode_texts,
    join_tokens,
    splits_of,
    tokens_without_offsets,
)
from qa_core.windowing import (
    Layout,
    Windows,
    fill_windows,
    find_roomless,
    lay_out,
    plan_windows,
)


@dataclass(frozen=True)
class EncodedExamples:
    """The tokens of a table of examples, each distinct text once, and where the answers lie.

    `texts` are the template's special tokens (a text each), the distinct contexts, the distinct
    questions; only tokens of contexts have offsets, others (-1, -1).
    """

    texts: Tokens
    context_of: NDArray[np.int64]  # (examples,) number of the text
    question_of: NDArray[np.int64]  # (examples,) number of the text
    spans: AnswerSpans
    template: PairTemplate

    def __len__(self) -> int:
        return len(self.context_of)

    @property
    def question_lengths(self) -> NDArray[np.int64]:
        """Question tokens of each example, (examples,)."""
        return self.texts.lengths[self.question_of]

    @property
    def context_lengths(self) -> NDArray[np.int64]:
        """Context tokens of each example, (examples,)."""
        return self.texts.lengths[self.context_of]

    def take(self, rows: NDArray[np.int64]) -> "EncodedExamples":
        """The examples at `rows`, in that order; the texts stay."""
        return replace(
            self,
            context_of=self.context_of[rows],
            question_of=self.question_of[rows],
            spans=self.spans.take(rows),
        )


@dataclass(frozen=True)
class LabelledWindows:
    """All of windows but their tokens: some thirty bytes each, fifty where all answers count.

    A window's positions are those of an example's first accepted answer; where all answers count,
    those of the first that the window holds, and `spans` has all that it holds.
    """

    windows: Windows
    layout: Layout
    start_positions: NDArray[np.int32]  # (windows,) token in the window; cls_index without answer
    end_positions: NDArray[np.int32]  # (windows,) inclusive; cls_index likewise
    spans: LabelSpans | None = None  # of all answers; None where the first alone counts

    @property
    def is_null(self) -> NDArray[np.bool_]:
        """Whether the window is labelled "no answer", (windows,)."""
        return np.asarray(self.start_positions == self.layout.cls_index, np.bool_)

    def take(self, rows: NDArray[np.int64]) -> "LabelledWindows":
        """The windows at `rows`, in that order."""
        return LabelledWindows(
            self.windows.take(rows),
            self.layout.take(rows),
            self.start_positions[rows],
            self.end_positions[rows],
            None if self.spans is None else self.spans.take(rows),
        )

    def label_spans(self, rows: NDArray[np.int64]) -> LabelSpans:
        """The spans that the windows at `rows` are labelled with, in that order."""
        if self.spans is None:
            return single_spans(self.start_positions[rows], self.end_positions[rows])
        return self.spans.take(rows)


def build_features(
    examples: pa.Table, *, tokenizer: Any, max_length: int, doc_stride: int
) -> pa.Table:
    """Windows of all examples in reference order: `qa_core.schemas.FEATURES`, a row a window.

    The content is what the tokenizers library gives for the pair with truncation of the context
    and overflow, labelled as run_qa does, without padding; the question's leading white space is
    stripped. One difference: an answer in the window's last context token is labelled there,
    where run_qa's walk runs on past the context. Memory: about 22 bytes a token of the result,
    and the examples' tokens.

    Raises `DataError` naming the first example whose question leaves its context no room
    (`find_unfit` lists them), `ConfigError` for an impossible max_length or doc_stride.
    """
    encoded = encode_examples(examples, encoder=PairEncoder.of(tokenizer))
    unfit = find_unfit(encoded, max_length=max_length, doc_stride=doc_stride)
    if len(unfit):
        raise DataError(
            f"question leaves no room for context ({len(unfit)} such examples)",
            where=f"example {examples['id'][int(unfit[0])].as_py()}",
            expected=roomless_detail(encoded, int(unfit[0]), max_length, doc_stride),
            remedy="raise max_length, lower doc_stride, or leave these examples out",
        )
    planned = label_examples(encoded, max_length=max_length, doc_stride=doc_stride)
    return fill_features(encoded, planned, ids=examples["id"])


def encode_examples(examples: pa.Table, *, encoder: PairEncoder) -> EncodedExamples:
    """Tokens and answer spans of `examples`; each distinct text is tokenized once.

    A question is its text without leading white space, as in the reference.
    """
    contexts, context_of = distinct_texts(examples["context"])
    stripped = pa.array([text.lstrip() for text in examples["question"].to_pylist()], pa.string())
    questions, question_of = distinct_texts(pa.chunked_array([stripped]))
    special = np.array(encoder.template.special_ids, np.int32)
    texts = join_tokens(
        [
            tokens_without_offsets(special, splits_of(np.ones(len(special), np.int64))),
            encode_texts(encoder.backend, contexts),
            encode_texts(encoder.backend, questions, has_offsets=False),
        ]
    )
    context_of += len(special)
    question_of += len(special) + len(contexts)
    spans = align_answers(examples["answers"], texts, context_of)
    return EncodedExamples(texts, context_of, question_of, spans, encoder.template)


def cut_questions(encoded: EncodedExamples, most: int) -> EncodedExamples:
    """The examples with the first `most` tokens of each question."""
    lengths = encoded.texts.lengths.copy()  # (texts,)
    lengths[encoded.question_of] = np.minimum(encoded.question_lengths, most)
    return replace(encoded, texts=cut_texts(encoded.texts, lengths))


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


def label_examples(
    encoded: EncodedExamples, *, max_length: int, doc_stride: int, labels: Labels = "first"
) -> LabelledWindows:
    """The windows of encoded examples with their labels; no row may be one of `find_unfit`.

    `labels`: "first", the first accepted answer of an example, where a window holds it whole, as
    run_qa has it; "all", every accepted answer that a window holds whole.
    """
    windows = plan_windows(
        encoded.question_lengths,
        encoded.context_lengths,
        num_special_tokens=encoded.template.num_special_tokens,
        max_length=max_length,
        doc_stride=doc_stride,
    )
    layout = lay_out(windows, encoded.question_lengths, encoded.template)
    held = place_answers(
        windows, layout, encoded.spans, encoded.texts, encoded.context_of, labels=labels
    )
    spans = all_labels(held, layout) if labels == "all" else None
    return LabelledWindows(windows, layout, *first_labels(held, layout), spans)


def fill_features(
    encoded: EncodedExamples, planned: LabelledWindows, *, ids: pa.ChunkedArray
) -> pa.Table:
    """The windows with their tokens: `qa_core.schemas.FEATURES`; `ids` names the examples."""
    filled = fill_windows(
        planned.windows,
        encoded.texts,
        question_of=encoded.question_of,
        context_of=encoded.context_of,
        template=encoded.template,
    )
    splits = pa.array(filled.splits, pa.int32())
    pairs = pa.FixedSizeListArray.from_arrays(pa.array(filled.offsets.reshape(-1)), 2)
    columns = {
        "example_id": ids.take(pa.array(planned.windows.example)),
        "window_index": pa.array(planned.windows.index),
        "input_ids": pa.ListArray.from_arrays(splits, pa.array(filled.input_ids)),
        "token_type_ids": pa.ListArray.from_arrays(splits, pa.array(filled.token_type_ids)),
        "offset_mapping": pa.ListArray.from_arrays(splits, pairs),
        "start_positions": pa.array(planned.start_positions),
        "end_positions": pa.array(planned.end_positions),
        "cls_index": pa.array(planned.layout.cls_index),
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
