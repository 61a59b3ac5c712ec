"""Tiny tokenizers, models and texts that tests build for themselves: no hub, no download."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from transformers import BertConfig, BertForQuestionAnswering, PreTrainedTokenizerFast

from qa_core.demo_corpus import generate_corpus
from qa_core.schemas import EXAMPLES
from tests.families import train_family

TEXTS = [
    "The bridge over the river Orla was opened in 1912 by the engineer Marta Held.",
    "Who opened the bridge, and when? It cost 2,300 crowns and took four years to build.",
    "Das Schloß in Zürich wurde 1848 gebaut; naïve café, façade, coöperate, São Paulo.",
    "東京は日本の首都である。 Привет, мир! שלום עולם مرحبا بالعالم 😀 👍🏽 é e\u0301",
    "A committee of seven people met on 3 May 1999 in the old town hall to vote.",
    "tabs\tand\nnewlines  and   spaces (brackets) [CLS-like] words-with-hyphens, don't, 3.14%",
]


VOCAB_SIZES = {"wordpiece": 400, "byte": 500, "unigram": 300}


def train_tokenizer(family: str) -> PreTrainedTokenizerFast:
    """A fast tokenizer of one of the families of `tests.families`, trained on `TEXTS`."""
    return train_family(family, TEXTS, vocab_size=VOCAB_SIZES[family.partition("_")[0]])


def save_model(folder: Path, *, seed: int = 0, dropout: float = 0.0) -> Path:
    """A folder with a two-layer BERT of random weights and a tokenizer of the demo's words."""
    corpus = generate_corpus("train", num_passages=60)["data"]
    passages = [paragraph["context"] for article in corpus for paragraph in article["paragraphs"]]
    tokenizer = train_family("wordpiece", TEXTS + passages, vocab_size=1500, max_length=128)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        pad_token_id=tokenizer.pad_token_id,
    )
    BertForQuestionAnswering(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_examples(rows: list[dict[str, Any]]) -> pa.Table:
    """An examples table from rows of context, question and (text, answer_start) pairs."""
    defaults = {"title": "", "source": "test"}
    examples = []
    for number, row in enumerate(rows):
        pairs = row.get("answers", [])
        answers = {"text": [t for t, _ in pairs], "answer_start": [s for _, s in pairs]}
        examples.append({"id": f"q{number}", **defaults, **row, "answers": answers})
    return pa.Table.from_pylist(examples, schema=EXAMPLES)
