"""Tokenizer families trained on given texts: the layouts and normalizers that models come with."""

from collections.abc import Sequence

from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

FAMILIES = ("wordpiece", "wordpiece_cased", "byte_bpe", "unigram", "unigram_left")
EXTRA_FAMILIES = (
    "wordpiece_accents",  # keeps case, strips accents
    "wordpiece_bos",  # nothing around a text but a token before it, no CLS, as Llama does
    "wordpiece_bare",  # no special tokens in a pair
    "byte_bpe_untrimmed",  # offsets with the space before a word
    "byte_bpe_unprefixed",  # a space put before each text, offsets trimmed as if there were none
    "unigram_first",  # a word mark before the first word only, texts rewritten first
    "unigram_always",
)
PREFIXED = "byte_bpe_prefixed"  # a space put before each text, and the offsets know of it
BERT_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
ROBERTA_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]


def train_family(
    family: str, texts: Sequence[str], *, vocab_size: int, max_length: int = 512
) -> PreTrainedTokenizerFast:
    """A fast tokenizer of one of the families above, for windows up to `max_length`."""
    kind, _, variant = family.partition("_")
    if kind == "wordpiece":
        tokenizer = _wordpiece(texts, vocab_size, variant)
    elif kind == "byte":
        tokenizer = _byte_bpe(texts, vocab_size, variant.removeprefix("bpe").removeprefix("_"))
    else:
        tokenizer = _unigram(texts, vocab_size, variant)
    tokenizer.model_max_length = max_length
    return tokenizer


def _wordpiece(texts: Sequence[str], vocab_size: int, variant: str) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(
        lowercase=variant == "", strip_accents=True if variant == "accents" else None
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=vocab_size, special_tokens=BERT_SPECIAL)
    backend.train_from_iterator(texts, trainer)
    backend.decoder = decoders.WordPiece()
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]"}
    if variant == "bos":
        backend.post_processor = processors.TemplateProcessing(
            single="[CLS] $A", pair="[CLS] $A [CLS]:1 $B:1", special_tokens=[("[CLS]", 2)]
        )
        return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="[CLS]", **names)
    if variant == "bare":
        return PreTrainedTokenizerFast(tokenizer_object=backend, **names)
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **names,
    )


def _byte_bpe(texts: Sequence[str], vocab_size: int, variant: str) -> PreTrainedTokenizerFast:
    is_prefixed = variant in ("prefixed", "unprefixed")
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=is_prefixed)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=ROBERTA_SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    backend.train_from_iterator(texts, trainer)
    backend.post_processor = processors.RobertaProcessing(
        ("</s>", 2),
        ("<s>", 0),
        trim_offsets=variant != "untrimmed",
        add_prefix_space=variant == "prefixed",
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        unk_token="<unk>",
        cls_token="<s>",
        bos_token="<s>",
        sep_token="</s>",
        eos_token="</s>",
        model_input_names=["input_ids", "attention_mask"],
    )


def _unigram(texts: Sequence[str], vocab_size: int, variant: str) -> PreTrainedTokenizerFast:
    is_left = variant == "left"
    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizers.NFKC()
    if variant in ("first", "always"):
        rewritten = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
        spaces = normalizers.Replace(Regex(" {2,}"), " ")
        backend.normalizer = normalizers.Sequence([*rewritten, normalizers.NFKC(), spaces])
    scheme = variant if variant == "first" else "always"
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    special = ["<unk>", "<s>", "</s>", "<cls>", "<sep>", "<pad>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size, special_tokens=special, unk_token="<unk>"
    )
    backend.train_from_iterator(texts, trainer)
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
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
