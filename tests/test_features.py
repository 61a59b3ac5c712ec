"""Features equal the reference recipe, window for window, for every tokenizer family."""

from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import normalizers, pre_tokenizers

from qa_core.errors import ConfigError, DataError, ModelError, QAError
from qa_core.features import build_features, check_max_length
from qa_core.tokenizing import check_offsets, load_tokenizer, probe_template
from tests.families import EXTRA_FAMILIES, FAMILIES, PREFIXED
from tests.reference import reference_features
from tests.tiny import TEXTS, make_examples, train_tokenizer

SIZES = [(64, 0), (64, 16), (64, 40), (128, 32), (384, 128), (40, 8)]


@cache
def tokenizer_of(family: str) -> Any:
    """One training for each family, however many tests ask."""
    return train_tokenizer(family)


def long_rows() -> list[dict[str, Any]]:
    """Questions over contexts of one word to several windows, answers at both ends and cut."""
    long = " ".join(TEXTS * 4)
    middle = len(long) // 2
    return [
        {"context": long, "question": "Who?", "answers": [(long[:10], 0)]},
        {"context": long, "question": "  When?\t", "answers": [(long[-9:], len(long) - 9)]},
        {"context": long, "question": "What?", "answers": [(long[middle : middle + 30], middle)]},
        {"context": long, "question": "All of it?", "answers": [(long, 0)]},
        {"context": long, "question": "Nothing?", "answers": []},
        {"context": "Orla", "question": "Which river?", "answers": [("Orla", 0)]},
        {"context": "\u200b", "question": "?", "answers": []},
        {"context": "x" * 300, "question": "One long word?", "answers": [("xxx", 0)]},
        {"context": TEXTS[3], "question": "Where?", "answers": [("😀", TEXTS[3].index("😀"))]},
    ]


def assert_equals_reference(
    rows: list[dict[str, Any]], tokenizer: Any, max_length: int, doc_stride: int
) -> int:
    """Compare every window of every row; the number of windows compared."""
    examples = make_examples(rows)
    features = build_features(
        examples, tokenizer=tokenizer, max_length=max_length, doc_stride=doc_stride
    ).to_pylist()
    expected = [
        feature
        for example in examples.to_pylist()
        for feature in reference_features(example, tokenizer, max_length, doc_stride)
    ]
    assert features == expected
    return len(features)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("max_length", "doc_stride"), SIZES)
def test_features_equal_the_tokenizers_own_overflow(
    family: str, max_length: int, doc_stride: int
) -> None:
    """Ids, segments, offsets, labels and order, for right- and left-padded families."""
    compared = assert_equals_reference(long_rows(), tokenizer_of(family), max_length, doc_stride)
    assert compared >= len(long_rows())


words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
spaces = st.sampled_from([" ", "  ", "\n", "\t", "\u00a0", "", ". "])


@st.composite
def generated_rows(draw: st.DrawFn) -> list[dict[str, Any]]:
    """One context of drawn words, with an answer cut anywhere in it."""
    pieces = draw(st.lists(st.one_of(words, st.sampled_from(" ".join(TEXTS).split())), max_size=60))
    context = "".join(piece + draw(spaces) for piece in pieces) or "Orla"
    start = draw(st.integers(0, len(context) - 1))
    end = draw(st.integers(start + 1, min(len(context), start + 60)))
    question = draw(st.text(st.characters(codec="utf-8"), max_size=12))
    answers = draw(st.sampled_from([[(context[start:end], start)], []]))
    return [{"context": context, "question": question or "?", "answers": answers}]


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(rows=generated_rows(), sizes=st.sampled_from([(96, 0), (96, 17), (128, 40), (384, 128)]))
def test_generated_texts_equal_the_reference(
    family: str, rows: list[dict[str, Any]], sizes: tuple[int, int]
) -> None:
    """Any Unicode text, any answer: emoji, combining marks, scripts of both directions."""
    assert_equals_reference(rows, tokenizer_of(family), *sizes)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_context_token_is_in_a_window_and_none_is_padding(family: str) -> None:
    """Windows cover the whole context: neighbours share doc_stride tokens, none is lost."""
    tokenizer = tokenizer_of(family)
    rows = long_rows()[:1]
    features = build_features(
        make_examples(rows), tokenizer=tokenizer, max_length=64, doc_stride=16
    ).to_pylist()
    encoded = tokenizer(rows[0]["context"], add_special_tokens=False, return_offsets_mapping=True)
    all_offsets = {tuple(pair) for pair in encoded["offset_mapping"]}
    seen = {tuple(pair) for f in features for pair in f["offset_mapping"]} - {(-1, -1)}
    assert len(features) > 3
    assert seen == all_offsets
    assert all(tokenizer.pad_token_id not in f["input_ids"] for f in features)


def test_label_of_an_answer_in_the_last_token_stays_in_the_context() -> None:
    """run_qa's walk runs on into special tokens and padding when the answer ends the window."""
    examples = make_examples(
        [{"context": "the bridge", "question": "What?", "answers": [("bridge", 4)]}]
    )
    tokenizer = tokenizer_of("wordpiece")
    feature = build_features(
        examples, tokenizer=tokenizer, max_length=64, doc_stride=8
    ).to_pylist()[0]
    offsets = feature["offset_mapping"]
    assert offsets[feature["start_positions"]][0] == 4
    assert offsets[feature["end_positions"]][1] == 10


def test_cls_is_found_where_the_family_puts_it() -> None:
    """Left-padded families end with CLS; it is never assumed to be token 0."""
    template = probe_template(tokenizer_of("unigram_left"))
    assert template.is_context_first
    assert template.null_special == 2
    examples = make_examples([{"context": "the bridge", "question": "What?"}])
    feature = build_features(
        examples, tokenizer=tokenizer_of("unigram_left"), max_length=64, doc_stride=8
    ).to_pylist()[0]
    assert feature["cls_index"] == len(feature["input_ids"]) - 1


@pytest.mark.parametrize(
    ("max_length", "doc_stride", "message"),
    [
        (64, 60, "doc_stride 60 is too large for max_length 64"),
        (64, -1, "doc_stride is -1"),
        (4, 0, "max_length is 4"),
    ],
)
def test_impossible_window_sizes_are_refused(
    max_length: int, doc_stride: int, message: str
) -> None:
    """A window that cannot move on would loop for ever."""
    examples = make_examples([{"context": "a b", "question": "c"}])
    with pytest.raises(ConfigError, match=message):
        build_features(
            examples,
            tokenizer=tokenizer_of("wordpiece"),
            max_length=max_length,
            doc_stride=doc_stride,
        )


def test_a_question_that_leaves_no_room_names_the_example() -> None:
    """The error says which example and shows the arithmetic."""
    row = {"context": " ".join(TEXTS), "question": "who " * 60}
    examples = make_examples([{"context": "a", "question": "b"}, row])
    with pytest.raises(DataError, match=r"example q1: question leaves no room.*max_length 64 - "):
        build_features(examples, tokenizer=tokenizer_of("wordpiece"), max_length=64, doc_stride=8)


def test_max_length_above_the_models_is_refused() -> None:
    """The tokenizer's limit and the position table both count."""
    tokenizer = tokenizer_of("wordpiece")
    config = type(
        "Config", (), {"max_position_embeddings": 130, "model_type": "roberta", "pad_token_id": 1}
    )
    check_max_length(128, tokenizer=tokenizer, model_config=config)
    with pytest.raises(ModelError, match="max_length 129 is above the model's 128"):
        check_max_length(129, tokenizer=tokenizer, model_config=config)


def test_a_slow_tokenizer_is_refused(tmp_path: Any) -> None:
    """Without offsets no answer could be placed."""
    slow = type("Slow", (), {"is_fast": False, "name_or_path": "slow-model"})()
    with pytest.raises(ModelError, match="slow-model: has no fast tokenizer"):
        probe_template(slow)
    with pytest.raises(QAError, match="its tokenizer cannot be loaded"):
        load_tokenizer(str(tmp_path))


@pytest.mark.parametrize("family", [*FAMILIES, *EXTRA_FAMILIES, PREFIXED])
def test_offsets_of_sound_tokenizers_pass_the_check(family: str) -> None:
    """Lower case, accents stripped, bytes, SentencePiece marks: all lead back to the text."""
    check_offsets(tokenizer_of(family))


def spoilt_tokenizer(**parts: Any) -> Any:
    """WordPiece with another normalizer or pre-tokenizer."""
    tokenizer = train_tokenizer("wordpiece")
    for name, part in parts.items():
        setattr(tokenizer.backend_tokenizer, name, part)
    return tokenizer


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"normalizer": normalizers.Replace("1912", "2024")}, "says that its token '##0' is '2'"),
        ({"normalizer": normalizers.Replace("bridges", "")}, "has no token at 'bridges'"),
        ({"pre_tokenizer": pre_tokenizers.Split("measured", "removed")}, "has no token at 'meas"),
    ],
)
def test_offsets_that_do_not_lead_back_to_the_text_are_refused(
    parts: dict[str, Any], message: str
) -> None:
    """The error names the tokenizer and shows what it says of the text."""
    tokenizer = spoilt_tokenizer(**parts)
    tokenizer.name_or_path = "spoilt-model"
    with pytest.raises(ModelError, match=message) as raised:
        check_offsets(tokenizer)
    assert str(raised.value).startswith("tokenizer spoilt-model: ")
