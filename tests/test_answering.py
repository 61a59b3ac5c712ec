"""The Answerer: the former pipeline's fields, on long texts and with or without null answers."""

import json
from pathlib import Path

import pytest

from qa_core.answering import Answerer
from qa_core.errors import DataError, ModelError
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
