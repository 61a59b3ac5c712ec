"""The demo corpus: right offsets, the same bytes everywhere, no answer by type alone."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from qa_core.demo_corpus import (
    NUM_DEV_PASSAGES,
    NUM_TRAIN_PASSAGES,
    QUESTIONS_PER_PASSAGE,
    Passage,
    Split,
    entity_names,
    generate_corpus,
    generate_passages,
)
from qa_core.demo_templates import DEV_PARTS, DOMAINS, TRAIN_PARTS, Relation

SPLITS: tuple[Split, ...] = ("train", "dev")
RELATIONS = [relation for domain in DOMAINS for relation in domain.relations]


def passages_of(split: Split) -> list[Passage]:
    """The default passages, never none: a test looping over them must not pass on nothing."""
    passages = list(generate_passages(split))
    assert passages
    return passages


def paragraphs_of(split: Split) -> Iterator[dict[str, Any]]:
    """The paragraphs of the default SQuAD document, in order."""
    for article in generate_corpus(split)["data"]:
        yield from article["paragraphs"]


def stated_types(passage: Passage) -> Counter[str]:
    """How many different values of each answer type the passage states."""
    stated = {(fact.relation.answer_type, fact.value) for fact in passage.facts}
    return Counter(answer_type for answer_type, _ in stated)


@pytest.mark.parametrize("split", SPLITS)
def test_every_answer_is_the_slice_of_the_context_at_its_start(split: Split) -> None:
    """A wrong offset would teach the model a span that is not the answer."""
    checked = 0
    for paragraph in paragraphs_of(split):
        for qa in paragraph["qas"]:
            for answer in qa["answers"]:
                start, text = answer["answer_start"], answer["text"]
                assert start >= 0
                assert paragraph["context"][start : start + len(text)] == text
                checked += 1
    assert checked > 100


@pytest.mark.parametrize("split", SPLITS)
def test_the_document_has_the_fields_of_squad_v2(split: Split) -> None:
    """A reader of SQuAD v2.0 finds every field, and no answer just where there can be none."""
    corpus = generate_corpus(split)
    assert corpus["version"] == "v2.0"
    for article in corpus["data"]:
        assert set(article) == {"title", "paragraphs"}
        for paragraph in article["paragraphs"]:
            assert set(paragraph) == {"context", "qas"}
            for qa in paragraph["qas"]:
                assert set(qa) == {"id", "question", "answers", "is_impossible"}
                assert qa["is_impossible"] == (qa["answers"] == [])
    titles = [article["title"] for article in corpus["data"]]
    assert len(set(titles)) == len(titles) > 1


@pytest.mark.parametrize("split", SPLITS)
def test_the_same_arguments_give_the_same_bytes(split: Split) -> None:
    """A call leaves no state behind that would change the next one."""
    first = json.dumps(generate_corpus(split, num_passages=20, seed=3))
    assert json.dumps(generate_corpus(split, num_passages=20, seed=3)) == first


@pytest.mark.parametrize(
    ("split", "digest"), [("train", "8865303c59d27213"), ("dev", "badecc94c655bd07")]
)
def test_the_bytes_do_not_depend_on_the_python_version(split: Split, digest: str) -> None:
    """Hash order or a changed `random` would make published scores unrepeatable.

    A deliberate change of the templates changes the digest: take the new one from the failure.
    """
    document = json.dumps(generate_corpus(split), sort_keys=True)
    assert hashlib.sha256(document.encode()).hexdigest()[:16] == digest


@pytest.mark.parametrize("split", SPLITS)
def test_another_seed_shares_no_passage(split: Split) -> None:
    """The seed reaches every passage, not only the first."""
    contexts = [{p.context for p in generate_passages(split, seed=seed)} for seed in (0, 1)]
    assert all(contexts)
    assert not contexts[0] & contexts[1]


@pytest.mark.parametrize("split", SPLITS)
def test_fewer_passages_are_the_first_of_more(split: Split) -> None:
    """A smaller run for a quick try sees passages that the full run also sees."""
    few = list(generate_passages(split, num_passages=5))
    assert few == list(generate_passages(split, num_passages=9))[:5]


def test_the_default_sizes_are_the_named_constants() -> None:
    """A default exists once, and what the constants say is what comes out."""
    sizes = [len(list(paragraphs_of(split))) for split in SPLITS]
    assert sizes == [NUM_TRAIN_PASSAGES, NUM_DEV_PASSAGES]


@pytest.mark.parametrize("num_passages", [0, -1])
def test_a_size_below_one_is_refused(num_passages: int) -> None:
    """An empty corpus would only fail later, in the middle of training."""
    with pytest.raises(ValueError, match=rf"num_passages is {num_passages}; expected at least 1"):
        generate_corpus("train", num_passages=num_passages)


def test_an_unknown_split_is_refused() -> None:
    """Misspelt, "test" would otherwise silently be one of the two splits."""
    with pytest.raises(ValueError, match="split is 'test'; expected 'train' or 'dev'"):
        generate_corpus("test")  # type: ignore[arg-type]


def test_train_and_dev_share_no_passage() -> None:
    """A passage seen in training would make the dev score a test of memory."""
    train = [passage.context for passage in passages_of("train")]
    dev = [passage.context for passage in passages_of("dev")]
    assert len(set(train)) == len(train)
    assert len(set(dev)) == len(dev)
    assert not set(train) & set(dev)


def test_train_and_dev_share_no_entity() -> None:
    """No person, place, organisation, event or structure of one split is met in the other."""
    train = set[str]().union(*(entity_names(passage) for passage in passages_of("train")))
    dev = set[str]().union(*(entity_names(passage) for passage in passages_of("dev")))
    assert min(len(train), len(dev)) > 100
    assert not train & dev


def test_no_entity_of_one_split_is_spelled_in_a_passage_of_the_other() -> None:
    """The metadata could leave out a name: look for the names in the text itself."""
    train_text = "\n".join(passage.context for passage in passages_of("train"))
    for passage in passages_of("dev"):
        for name in entity_names(passage):
            assert name not in train_text


@pytest.mark.parametrize(
    "owned", ["given_names", "surname_fronts", "place_fronts", "describing_words"]
)
def test_the_splits_own_different_name_parts(owned: str) -> None:
    """Disjoint parts keep entities apart for every seed and size, not only the defaults."""
    train, dev = getattr(TRAIN_PARTS, owned), getattr(DEV_PARTS, owned)
    assert len({*train, *dev}) == len(train) + len(dev)


@pytest.mark.parametrize("split", SPLITS)
def test_every_answerable_passage_holds_a_distractor_of_the_answers_type(split: Split) -> None:
    """With one year in the passage, "when" alone would give the answer away."""
    for passage in passages_of(split):
        for question in passage.questions:
            if question.answers:
                assert stated_types(passage)[question.relation.answer_type] >= 2


@pytest.mark.parametrize("split", SPLITS)
def test_an_unanswerable_question_asks_for_a_type_that_occurs(split: Split) -> None:
    """Were the type absent, "no value of that type" would already tell it apart."""
    unanswerable = [
        (passage, question)
        for passage in passages_of(split)
        for question in passage.questions
        if not question.answers
    ]
    assert unanswerable
    for passage, question in unanswerable:
        assert stated_types(passage)[question.relation.answer_type] >= 1


@pytest.mark.parametrize("split", SPLITS)
def test_a_question_is_answerable_just_when_its_fact_is_stated(split: Split) -> None:
    """A stated fact marked unanswerable, or the reverse, would be a wrong label."""
    for passage in passages_of(split):
        stated = {(fact.subject, fact.relation): fact for fact in passage.facts}
        for question in passage.questions:
            fact = stated.get((question.subject, question.relation))
            assert (fact is not None) == bool(question.answers)
            if fact is not None:
                assert question.answers[0] == (fact.value, fact.start)


def test_unanswerable_questions_ask_of_strangers_and_of_subjects() -> None:
    """Were all of them about absent names, finding the name would be the whole task."""
    asked_of_a_subject = [
        question.subject in passage.context
        for passage in passages_of("dev")
        for question in passage.questions
        if not question.answers
    ]
    assert 0.2 < sum(asked_of_a_subject) / len(asked_of_a_subject) < 0.8


@pytest.mark.parametrize("split", SPLITS)
def test_one_question_in_eight_is_unanswerable(split: Split) -> None:
    """Answering nothing at all must score below 15, yet the null answer must be worth learning."""
    qas = [qa for paragraph in paragraphs_of(split) for qa in paragraph["qas"]]
    share = sum(qa["is_impossible"] for qa in qas) / len(qas)
    assert 0.12 <= share <= 0.14


def test_ids_are_unique_over_both_splits_and_name_their_split() -> None:
    """Predictions are keyed by id: a repeated one would overwrite another's answer."""
    ids = [qa["id"] for split in SPLITS for p in paragraphs_of(split) for qa in p["qas"]]
    assert len(set(ids)) == len(ids)
    assert len(ids) == QUESTIONS_PER_PASSAGE * (NUM_TRAIN_PASSAGES + NUM_DEV_PASSAGES)
    assert all(re.fullmatch(r"(train|dev)-\d{6}-\d", question_id) for question_id in ids)


@pytest.mark.parametrize("split", SPLITS)
def test_no_question_is_asked_twice_of_a_passage(split: Split) -> None:
    """Two facts asked in the same words could not both be answered."""
    for passage in passages_of(split):
        texts = [question.text for question in passage.questions]
        assert len(set(texts)) == len(texts) == QUESTIONS_PER_PASSAGE


def test_some_questions_accept_two_answers_and_the_shorter_comes_first() -> None:
    """Training takes the first answer, scoring the best of them: "1912" before "in 1912"."""
    accepted = [
        [text for text, _ in question.answers]
        for passage in passages_of("dev")
        for question in passage.questions
    ]
    pairs = [texts for texts in accepted if len(texts) == 2]
    assert len(pairs) > 10
    assert all(long.endswith(f" {short}") for short, long in pairs)
    assert max(map(len, accepted)) == 2


@pytest.mark.parametrize("relation", RELATIONS, ids=lambda relation: relation.name)
def test_a_relation_is_stated_and_asked_in_several_ways(relation: Relation) -> None:
    """A template without its placeholder would state a fact of no one, or hide its value."""
    assert len(set(relation.statements)) >= 3
    assert len(set(relation.questions)) >= 3
    for statement in relation.statements:
        assert sorted(re.findall(r"{\w+}", statement)) == ["{subject}", "{value}"]
    for question in relation.questions:
        assert re.findall(r"{\w+}", question) == ["{subject}"]


def test_the_default_train_split_realises_nearly_every_template() -> None:
    """A template that is never drawn is no variety."""
    passages = passages_of("train")
    statements = {fact.statement for passage in passages for fact in passage.facts}
    questions = {question.template for passage in passages for question in passage.questions}
    assert len(statements) >= 0.95 * sum(len(relation.statements) for relation in RELATIONS)
    assert len(questions) >= 0.95 * sum(len(relation.questions) for relation in RELATIONS)
    assert min(len(statements), len(questions)) >= 90


@pytest.mark.parametrize("split", SPLITS)
def test_every_domain_and_many_ways_of_asking_occur(split: Split) -> None:
    """One domain or one question word would make the demo a test of a single pattern."""
    passages = passages_of(split)
    assert {passage.domain.title for passage in passages} == {domain.title for domain in DOMAINS}
    openings = {
        " ".join(question.text.split()[:2])
        for passage in passages
        for question in passage.questions
    }
    assert len(openings) >= 25
    words = {opening.split()[0] for opening in openings}
    assert words >= {"Who", "Where", "When", "What", "Which", "How"}
