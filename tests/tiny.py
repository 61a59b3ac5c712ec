"""Tiny tokenizers, models and texts that tests build for themselves: no hub, no download."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import BertConfig, BertForQuestionAnswering, PreTrainedTokenizerFast

from qa_core.demo_corpus import generate_corpus
from qa_core.schemas import EXAMPLES

TEXTS = [
    "The bridge over the river Orla was opened in 1912 by the engineer Marta Held.",
    "Who opened the bridge, and when? It cost 2,300 crowns and took four years to build.",
    "Das Schloß in Zürich wurde 1848 gebaut; naïve café, façade, coöperate, São Paulo.",
    "東京は日本の首都である。 Привет, мир! שלום עולם مرحبا بالعالم 😀 👍🏽 é e\u0301",
    "A committee of seven people met on 3 May 1999 in the old town hall to vote.",
    "tabs\tand\nnewlines  and   spaces (brackets) [CLS-like] words-with-hyphens, don't, 3.14%",
]
FAMILIES = ("wordpiece", "wordpiece_cased", "byte_bpe", "unigram", "unigram_left")


def train_tokenizer(family: str) -> PreTrainedTokenizerFast:
    """A fast tokenizer of one of `FAMILIES`, trained on `TEXTS`."""
    if family.startswith("wordpiece"):
        return _wordpiece(TEXTS, vocab_size=400, lowercase=family == "wordpiece")
    if family == "byte_bpe":
        return _byte_bpe()
    return _unigram(is_left=family == "unigram_left")


def _wordpiece(texts: list[str], *, vocab_size: int, lowercase: bool) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    backend.train_from_iterator(
        texts, trainers.WordPieceTrainer(vocab_size=vocab_size, special_tokens=special)
    )
    backend.decoder = decoders.WordPiece()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=512,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def _byte_bpe() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(vocab_size=500, special_tokens=special, initial_alphabet=alphabet),
    )
    backend.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        unk_token="<unk>",
        cls_token="<s>",
        bos_token="<s>",
        sep_token="</s>",
        eos_token="</s>",
        model_max_length=512,
        model_input_names=["input_ids", "attention_mask"],
    )


def _unigram(*, is_left: bool) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<unk>", "<s>", "</s>", "<cls>", "<sep>", "<pad>"]
    trainer = trainers.UnigramTrainer(vocab_size=300, special_tokens=special, unk_token="<unk>")
    backend.train_from_iterator(TEXTS, trainer)
    pair = "$A <sep> $B:1 <sep>:1 <cls>:2" if is_left else "<cls> $A <sep> $B:1 <sep>:1"
    single = "$A <sep> <cls>:2" if is_left else "<cls> $A <sep>"
    backend.post_processor = processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[("<cls>", 3), ("<sep>", 4)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        unk_token="<unk>",
        cls_token="<cls>",
        sep_token="<sep>",
        padding_side="left" if is_left else "right",
        model_max_length=512,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def save_model(folder: Path, *, seed: int = 0, dropout: float = 0.0) -> Path:
    """A folder with a two-layer BERT of random weights and a tokenizer of the demo's words."""
    corpus = generate_corpus("train", num_passages=60)["data"]
    passages = [paragraph["context"] for article in corpus for paragraph in article["paragraphs"]]
    tokenizer = _wordpiece(TEXTS + passages, vocab_size=1500, lowercase=True)
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
    tokenizer.model_max_length = 128
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
