"""The Answerer: the former pipeline's fields, on long texts and with or without null answers."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import BertConfig, BertForQuestionAnswering

from qa_core import answering
from qa_core.answering import Answerer
from qa_core.errors import ConfigError, DataError, ModelError, QAError
from tests.tiny import TEXTS


@pytest.fixture(scope="module")
def answerer(tiny_model: Path) -> Answerer:
    """An answerer with random weights."""
    return Answerer.from_pretrained(str(tiny_model))


def test_one_pair_gives_one_answer_with_the_pipelines_fields(answerer: Answerer) -> None:
    """The answer is the slice of the context between start and end."""
    found = answerer(question="Who?", context=TEXTS[0])
    assert set(found) == {"score", "start", "end", "answer"}
    assert TEXTS[0][found["start"] : found["end"]] == found["answer"]
    assert 0 < found["score"] <= 1


def test_lists_and_top_k(answerer: Answerer) -> None:
    """Many pairs give a list; one context serves many questions; top_k is best first."""
    found = answerer(question=["Who?", "When?"], context=TEXTS[1], top_k=4)
    assert [len(answers) for answers in found] == [4, 4]
    for answers in found:
        scores = [answer["score"] for answer in answers]
        assert scores == sorted(scores, reverse=True)
    alone = answerer(question="When?", context=TEXTS[1])
    assert alone == pytest.approx(found[1][0])


def test_a_text_of_many_windows_is_searched_to_its_end(answerer: Answerer) -> None:
    """Every span the model prefers can be anywhere: windows cover the whole text."""
    context = " ".join(TEXTS * 6)
    best = answerer(question="Who?", context=context, max_seq_len=48, doc_stride=8, top_k=15)
    assert all(context[a["start"] : a["end"]] == a["answer"] for a in best)
    assert max(a["end"] for a in best) > len(context) // 2
    short = answerer(question="Who?", context=context, max_answer_len=1)
    assert len(short["answer"].split()) == 1


def test_null_answers_follow_the_stored_threshold(tiny_model: Path, tmp_path: Path) -> None:
    """A threshold stored with the model makes the null answer possible; asking overrides it."""
    for file in tiny_model.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config["extractive_qa"] = {"max_length": 64, "doc_stride": 8, "null_threshold": -1e6}
    (tmp_path / "config.json").write_text(json.dumps(config))
    answerer = Answerer.from_pretrained(str(tmp_path))
    nothing = answerer(question="Who?", context=TEXTS[0])
    assert (nothing["answer"], nothing["start"], nothing["end"]) == ("", -1, -1)
    forced = answerer(question="Who?", context=TEXTS[0], handle_impossible_answer=False)
    assert forced["answer"]
    listed = answerer(question="Who?", context=TEXTS[0], handle_impossible_answer=True, top_k=3)
    assert [bool(answer["answer"]) for answer in listed] == [False, True, True]


PAIRS = [("Who?", TEXTS[0]), ("When?", TEXTS[1]), ("Why?", TEXTS[0])]


@pytest.mark.parametrize(
    "given",
    [
        [[{"question": q, "context": c} for q, c in PAIRS]],
        [{"question": q, "context": c} for q, c in PAIRS],
        [PAIRS],
        [tuple(PAIRS)],
        PAIRS,
        [list(map(list, PAIRS))],
        [({"question": q, "context": c, "id": 3, "answers": {}} for q, c in PAIRS)],
    ],
)
def test_pairs_come_in_every_way_the_pipeline_took_them(
    answerer: Answerer, given: list[Any]
) -> None:
    """By position: a list of dictionaries or tuples, or several of them; a row of a data set."""
    questions, contexts = (list(column) for column in zip(*PAIRS, strict=True))
    expected = answerer(question=questions, context=contexts)
    assert len(expected) == 3
    assert answerer(*given) == expected


@pytest.mark.parametrize(
    "given", [[{"question": "Who?", "context": TEXTS[0]}], [PAIRS[0]], PAIRS[0]]
)
def test_one_pair_by_position_gives_one_answer(answerer: Answerer, given: list[Any]) -> None:
    """A dictionary, a tuple, or question and context; a list of one gives a list."""
    expected = answerer(question="Who?", context=TEXTS[0])
    assert answerer(*given) == expected
    assert answerer([PAIRS[0]]) == [expected]
    assert answerer(question=["Who?"], context=[TEXTS[0]]) == [expected]


def test_pieces_of_a_call_change_no_answer(
    answerer: Answerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is bounded by pieces of few windows: the same answers in the same order."""
    questions = [f"{word} opened the bridge?" for word in ("Who", "When did they say", "Why")]
    contexts = [" ".join(TEXTS * 2), TEXTS[3], TEXTS[4]]
    sizes = {"max_seq_len": 48, "doc_stride": 8}
    expected = answerer(question=questions, context=contexts, **sizes)
    monkeypatch.setattr(answering, "TOKENS_PER_PIECE", 1)
    found = answerer(question=questions, context=contexts, **sizes)
    for answer, whole in zip(found, expected, strict=True):
        assert answer == pytest.approx(whole, abs=1e-5)


def test_a_question_is_cut_on_request_only(answerer: Answerer) -> None:
    """Its first tokens are kept: what follows them changes nothing."""
    long = "Who opened the bridge " + "over the old river " * 5
    cut = answerer(question=long, context=TEXTS[0], max_question_len=4)
    assert cut == answerer(question="Who opened the bridge", context=TEXTS[0])
    assert cut["score"] != answerer(question=long, context=TEXTS[0])["score"]
    assert answerer(question=long, context=TEXTS[0], max_question_len=500) == answerer(
        question=long, context=TEXTS[0]
    )


def test_a_context_without_tokens_gives_no_answer(answerer: Answerer) -> None:
    """Beside others in a list, too."""
    nothing = {"score": 0.0, "start": -1, "end": -1, "answer": ""}
    assert answerer(question="Who?", context="\u200b") == nothing
    found = answerer(question="Who?", context=[TEXTS[0], "\u200b"], top_k=2)
    assert found[1] == [nothing]
    assert len(found[0]) == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([{"question": "Who?", "contxt": "x"}], "pair 0: unknown key 'contxt'.*'context'"),
        ([{"question": "Who?"}], "pair 0: no key 'context'"),
        ([[PAIRS[0], {"query": "Who?", "context": "x"}]], "pair 1: unknown key 'query'"),
        ([["Who?", TEXTS[0]]], "pair 0: 'Who\\?' is no pair"),
        (["Who?"], "'Who\\?' is no pair"),
        ([3], "3 is no pair"),
        ([[]], "no pair"),
        ([[("Who?", "x"), ("Who?", None)]], "pair 1: the context is None, of type NoneType"),
        ([[("Who?", "x"), (["Who?"], "x")]], "pair 1: the question is .* of type list"),
        ([("Who?", "\ud800")], "pair 0: the context holds half of a surrogate pair"),
        ([], "no question and no context"),
    ],
)
def test_what_is_no_pair_is_named(answerer: Answerer, given: list[Any], message: str) -> None:
    """With its number, what it is, and the nearest key."""
    with pytest.raises(DataError, match=message):
        answerer(*given)


def test_pairs_and_keywords_together_are_refused(answerer: Answerer) -> None:
    """Nobody can tell which is meant; a question without a context is named."""
    with pytest.raises(DataError, match="pairs by position, and question or context by keyword"):
        answerer(PAIRS, question="Who?")
    with pytest.raises(DataError, match="no context"):
        answerer(question="Who?")
    with pytest.raises(DataError, match="question is 3"):
        answerer(question=3, context="x")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"top_k": 0}, ConfigError, "Answerer, top_k: top_k is 0.*1 or more"),
        ({"max_answer_len": 0}, ConfigError, "Answerer, max_answer_len: max_answer_len is 0"),
        ({"max_question_len": 0}, ConfigError, "Answerer, max_question_len"),
        ({"doc_stride": -1}, ConfigError, "Answerer, doc_stride: doc_stride -1 does not suit"),
        (
            {"doc_stride": 60, "max_seq_len": 64},
            ConfigError,
            "doc_stride 60 does not suit max_seq_len 64.*less than the 60 context tokens",
        ),
        ({"max_seq_len": 0}, ConfigError, "Answerer, max_seq_len: max_seq_len is 0.*more than 4"),
        ({"max_seq_len": 129}, ModelError, "max_seq_len 129 is above the model's 128"),
    ],
)
def test_options_out_of_range_are_named(
    answerer: Answerer, options: dict[str, int], kind: type[QAError], message: str
) -> None:
    """By the option's own name, not by a setting of a job."""
    with pytest.raises(kind, match=message):
        answerer(question="Who?", context=TEXTS[0], **options)


def test_a_question_longer_than_the_window_is_named(answerer: Answerer) -> None:
    """The pair, the arithmetic, and how to cut it; cut so, it is answered."""
    questions = ["Who?", "who " * 70]
    message = (
        r"pair 1: the question leaves its context no room \(1 such pairs\)\. Expected: room for "
        r"more than doc_stride 8 context tokens; max_seq_len 64 - question 70 - special 3 = -9\. "
        r"Do: cut the question with max_question_len \(here at most 52\)"
    )
    sizes = {"max_seq_len": 64, "doc_stride": 8}
    with pytest.raises(DataError, match=message):
        answerer(question=questions, context=" ".join(TEXTS), **sizes)
    found = answerer(question=questions, context=" ".join(TEXTS), max_question_len=52, **sizes)
    assert all(answer["answer"] for answer in found)


@pytest.mark.parametrize(
    ("question", "context", "message"),
    [
        (" ", "text", "pair 0: the question is empty"),
        ("Who?", "\n", "pair 0: the context is empty"),
        (["a", "b"], ["c", "d", "e"], "2 questions and 3 contexts"),
        ([], [], "0 questions and 0 contexts"),
    ],
)
def test_nothing_to_ask_is_an_error(
    answerer: Answerer, question: str | list[str], context: str | list[str], message: str
) -> None:
    """Not an empty answer that looks like one."""
    with pytest.raises(DataError, match=message):
        answerer(question=question, context=context)


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    """The error is the project's own."""
    with pytest.raises(ModelError, match=f"{tmp_path}: "):
        Answerer.from_pretrained(str(tmp_path))


def test_a_model_without_a_tokenizer_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    """transformers makes up an empty one, to which every word is unknown: answers by chance."""
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((tiny_model / name).read_bytes())
    with pytest.raises(ModelError, match=f"{tmp_path}: has no tokenizer"):
        Answerer.from_pretrained(str(tmp_path))


def test_a_tokenizer_larger_than_the_model_is_refused(answerer: Answerer, tiny_model: Path) -> None:
    """Its ids have no embedding: said at once, not as an index error in the middle of a call."""
    from qa_core.tokenizing import load_tokenizer

    config = BertConfig(
        vocab_size=50,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
    )
    message = r"ids up to \d+, and the model has 50 embeddings"
    with pytest.raises(ModelError, match=message):
        Answerer(BertForQuestionAnswering(config), load_tokenizer(str(tiny_model)))
