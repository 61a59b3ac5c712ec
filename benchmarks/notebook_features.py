"""The usual recipe's two feature functions, restated: what our features are measured against.

Both encode every (question, context) pair anew with truncation and overflow and pad to max_length,
as the question-answering notebook and run_qa do, through `datasets.map`.
"""

import os
from typing import Any

import datasets
import pyarrow as pa


def notebook_dataset(examples: pa.Table) -> datasets.Dataset:
    """The examples as `datasets` has SQuAD."""
    return datasets.Dataset(examples.select(["id", "title", "context", "question", "answers"]))


def map_features(
    dataset: datasets.Dataset,
    kind: str,
    tokenizer: Any,
    sizes: tuple[int, int],
    num_proc: int | None = None,
) -> datasets.Dataset:
    """Train or validation features of all questions, made anew."""
    threads = os.environ.get("TOKENIZERS_PARALLELISM", "true")
    function = train_features if kind == "train" else validation_features
    mapped = dataset.map(
        function,
        batched=True,
        remove_columns=dataset.column_names,
        load_from_cache_file=False,
        num_proc=num_proc,
        fn_kwargs={"tokenizer": tokenizer, "max_length": sizes[0], "doc_stride": sizes[1]},
    )
    # With num_proc, `datasets` turns the tokenizers' own threads off and leaves them off, which
    # would halve whatever tokenizes in this process afterwards, the notebook's and ours.
    os.environ["TOKENIZERS_PARALLELISM"] = threads
    return mapped


def _encode(examples: Any, tokenizer: Any, max_length: int, doc_stride: int) -> Any:
    is_right = tokenizer.padding_side == "right"
    questions = [question.lstrip() for question in examples["question"]]
    pair = (questions, examples["context"]) if is_right else (examples["context"], questions)
    return tokenizer(
        *pair,
        truncation="only_second" if is_right else "only_first",
        max_length=max_length,
        stride=doc_stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        padding="max_length",
    )


def train_features(examples: Any, tokenizer: Any, max_length: int, doc_stride: int) -> Any:
    """Padded windows, with labels found by walking over the offsets of each."""
    encoded = _encode(examples, tokenizer, max_length, doc_stride)
    origin = encoded.pop("overflow_to_sample_mapping")
    all_offsets = encoded.pop("offset_mapping")
    context_side = 1 if tokenizer.padding_side == "right" else 0
    encoded["start_positions"], encoded["end_positions"] = [], []
    for window, offsets in enumerate(all_offsets):
        cls_index = encoded["input_ids"][window].index(tokenizer.cls_token_id)
        answers = examples["answers"][origin[window]]
        start, end = cls_index, cls_index
        if len(answers["answer_start"]):
            start_char = answers["answer_start"][0]
            end_char = start_char + len(answers["text"][0])
            sides = encoded.sequence_ids(window)
            first = 0
            while sides[first] != context_side:
                first += 1
            last = len(sides) - 1
            while sides[last] != context_side:
                last -= 1
            if offsets[first][0] <= start_char and offsets[last][1] >= end_char:
                while first < len(offsets) and offsets[first][0] <= start_char:
                    first += 1
                while offsets[last][1] >= end_char:
                    last -= 1
                start, end = first - 1, last + 1
        encoded["start_positions"].append(start)
        encoded["end_positions"].append(end)
    return encoded


def validation_features(examples: Any, tokenizer: Any, max_length: int, doc_stride: int) -> Any:
    """Padded windows with ids of their examples, and offsets that are None outside the context."""
    encoded = _encode(examples, tokenizer, max_length, doc_stride)
    origin = encoded.pop("overflow_to_sample_mapping")
    context_side = 1 if tokenizer.padding_side == "right" else 0
    encoded["example_id"] = [examples["id"][sample] for sample in origin]
    encoded["offset_mapping"] = [
        [o if side == context_side else None for o, side in zip(offsets, sides, strict=True)]
        for offsets, sides in (
            (offsets, encoded.sequence_ids(window))
            for window, offsets in enumerate(encoded["offset_mapping"])
        )
    ]
    return encoded
