"""A seeded corpus of short invented passages with questions, in SQuAD v2.0 layout.

It stands in for a downloaded data set where there is no network. A passage states four facts about
two subjects of one kind, so each asked type of answer occurs at least twice and picking by type
alone does not find the answer. Train and dev draw their names from disjoint parts and share no
passage.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

from qa_core.demo_templates import (
    COMMON_NOUNS,
    DESCRIBED_KINDS,
    DEV_PARTS,
    DOMAINS,
    NOUNS,
    PLACE_ENDINGS,
    SURNAME_ENDINGS,
    TRAIN_PARTS,
    Domain,
    NameParts,
    Relation,
)

Split = Literal["train", "dev"]

# 1,200 questions of about 55 tokens: two epochs take two CPU cores a little over two minutes.
NUM_TRAIN_PASSAGES = 300
# 256 questions: one of them moves a score by 0.4 points, and scoring takes seconds.
NUM_DEV_PASSAGES = 64
# One article keeps to one domain; a small number, so that a few passages already show every domain.
PASSAGES_PER_ARTICLE = 4
QUESTIONS_PER_PASSAGE = 4
# Every second passage asks one question that it does not answer: one in eight, so that answering
# nothing at all scores 12.5 and cannot be mistaken for a model that has learned something.
UNANSWERABLE_EVERY = 2

# A word before the value that an annotator may or may not take into the answer.
OPTIONAL_PREFIXES = (
    ("year", "in "),
    ("duration", "for "),
    ("organisation", "the "),
    ("count", "about "),
)


@dataclass(frozen=True, slots=True)
class Fact:
    """One stated fact; `context[start : start + len(value)] == value`."""

    subject: str
    relation: Relation
    value: str
    statement: str
    start: int


@dataclass(frozen=True, slots=True)
class Question:
    """One question about a passage; `answers` pairs text with start, empty when unanswerable."""

    text: str
    template: str
    subject: str
    relation: Relation
    answers: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Passage:
    """One passage with what it states and what is asked of it."""

    passage_id: str
    domain: Domain
    context: str
    facts: tuple[Fact, ...]
    questions: tuple[Question, ...]


def generate_corpus(
    split: Split, *, num_passages: int | None = None, seed: int = 0
) -> dict[str, Any]:
    """The corpus of a split as a SQuAD v2.0 document, ready for `json.dump`.

    The same arguments give the same document on every machine and Python version. A smaller
    `num_passages` gives the first passages of a larger one. Raises ValueError when `split` is
    unknown or `num_passages` is below 1.
    """
    passages = tuple(generate_passages(split, num_passages=num_passages, seed=seed))
    starts = range(0, len(passages), PASSAGES_PER_ARTICLE)
    articles = [passages[start : start + PASSAGES_PER_ARTICLE] for start in starts]
    return {
        "version": "v2.0",
        "data": [
            {
                "title": f"{article[0].domain.title} ({split}, part {number})",
                "paragraphs": [_passage_to_paragraph(passage) for passage in article],
            }
            for number, article in enumerate(articles, start=1)
        ],
    }


def generate_passages(
    split: Split, *, num_passages: int | None = None, seed: int = 0
) -> Iterator[Passage]:
    """The passages behind `generate_corpus`, with the facts that the SQuAD layout does not keep."""
    if split not in ("train", "dev"):
        raise ValueError(f"split is {split!r}; expected 'train' or 'dev'")
    if num_passages is None:
        num_passages = NUM_TRAIN_PASSAGES if split == "train" else NUM_DEV_PASSAGES
    if num_passages < 1:
        raise ValueError(f"num_passages is {num_passages}; expected at least 1")
    return (_generate_passage(split, index, seed) for index in range(num_passages))


def entity_names(passage: Passage) -> frozenset[str]:
    """Every name of a person, place, organisation, event or structure that a passage's text,
    its questions included, can hold. Common nouns, numbers and dates are not names.
    """
    subjects = {fact.subject for fact in passage.facts}
    subjects |= {question.subject for question in passage.questions}
    named = ("person", "place", "organisation")
    values = {fact.value for fact in passage.facts if fact.relation.answer_type in named}
    return frozenset(subjects | values)


def _generate_passage(split: Split, index: int, seed: int) -> Passage:
    rng = Random(f"{seed}-{split}-{index}")  # a string seed is hashed alike on every machine
    parts = TRAIN_PARTS if split == "train" else DEV_PARTS
    domain = DOMAINS[index // PASSAGES_PER_ARTICLE % len(DOMAINS)]
    taken: set[str] = set()
    subjects = [_draw_new(rng, domain.subject_type, parts, taken) for _ in range(2)]
    planned = [
        (subjects[number], relation, _draw_new(rng, relation.answer_type, parts, taken))
        for number, relation in _plan_relations(rng, domain)
    ]
    rng.shuffle(planned)
    context, facts = _write_context(rng, planned, domain)
    questions = [_ask_fact(rng, fact, context) for fact in facts]
    if index % UNANSWERABLE_EVERY == UNANSWERABLE_EVERY - 1:
        stranger = _draw_new(rng, domain.subject_type, parts, taken)
        questions[rng.randrange(len(questions))] = _ask_unstated(rng, facts, domain, stranger)
    return Passage(f"{split}-{index:06d}", domain, context, facts, tuple(questions))


def _plan_relations(rng: Random, domain: Domain) -> list[tuple[int, Relation]]:
    """Which subject, 0 or 1, gets which relation: two types of answer, each stated for both.

    The first relation is the same for both subjects; the other two share a type and need not be
    the same, so a question has to be matched by subject and by relation.
    """
    shared = rng.choice(domain.relations)
    other_types = [r for r in domain.relations if r.answer_type != shared.answer_type]
    second = rng.choice(other_types)
    third = rng.choice([r for r in other_types if r.answer_type == second.answer_type])
    return [(0, shared), (1, shared), (0, second), (1, third)]


def _write_context(
    rng: Random, planned: list[tuple[str, Relation, str]], domain: Domain
) -> tuple[str, tuple[Fact, ...]]:
    """The sentences joined by blanks, and each fact with the place of its value in them."""
    context = ""
    facts: list[Fact] = []
    for subject, relation, value in planned:
        is_known = any(fact.subject == subject for fact in facts)
        shorten = domain.subject_type == "person" and is_known and rng.random() < 0.5
        mention = subject.split()[-1] if shorten else subject
        statement = rng.choice(relation.statements)
        before, after = (part.format(subject=mention) for part in statement.split("{value}"))
        context += (" " if context else "") + before
        facts.append(Fact(subject, relation, value, statement, start=len(context)))
        context += value + after
    return context, tuple(facts)


def _ask_fact(rng: Random, fact: Fact, context: str) -> Question:
    template = rng.choice(fact.relation.questions)
    text = template.format(subject=fact.subject)
    return Question(text, template, fact.subject, fact.relation, _accepted(fact, context))


def _ask_unstated(rng: Random, facts: tuple[Fact, ...], domain: Domain, stranger: str) -> Question:
    """A question without an answer although the passage holds values of the asked type.

    Half of them ask a stated relation of a stranger, half an unstated relation of a subject.
    """
    stated = [(fact.subject, fact.relation) for fact in facts]
    types = [relation.answer_type for _, relation in stated]
    subjects = list(dict.fromkeys(subject for subject, _ in stated))
    asked = [relation for relation in domain.relations if relation.answer_type in types]
    unstated = [(s, r) for s in subjects for r in asked if (s, r) not in stated]
    if not unstated or rng.random() < 0.5:
        unstated = [(stranger, relation) for _, relation in stated]
    subject, relation = rng.choice(unstated)
    template = rng.choice(relation.questions)
    return Question(template.format(subject=subject), template, subject, relation, answers=())


def _accepted(fact: Fact, context: str) -> tuple[tuple[str, int], ...]:
    """The answers an annotator may give: the value, and the value with its optional prefix.

    "It opened in 1912." accepts "1912" at 13 and "in 1912" at 10.
    """
    accepted = [(fact.value, fact.start)]
    for answer_type, prefix in OPTIONAL_PREFIXES:
        start = fact.start - len(prefix)
        found = context[max(start, 0) : fact.start]
        if fact.relation.answer_type == answer_type and found.lower() == prefix:
            accepted.append((found + fact.value, start))
    return tuple(accepted)


def _draw_new(rng: Random, kind: str, parts: NameParts, taken: set[str]) -> str:
    """A value or name unlike any in `taken`, which grows; persons differ in their surnames."""
    while True:
        drawn = _draw(rng, kind, parts)
        key = drawn.split()[-1] if kind == "person" else drawn
        if key not in taken:
            taken.add(key)
            return drawn


def _draw(rng: Random, kind: str, parts: NameParts) -> str:
    if kind in DESCRIBED_KINDS:
        described = f"{rng.choice(parts.describing_words)} {rng.choice(NOUNS)}"
        return f"{described} {rng.choice(DESCRIBED_KINDS[kind])}"
    if kind in COMMON_NOUNS:
        return rng.choice(COMMON_NOUNS[kind])
    if kind == "place":
        return rng.choice(parts.place_fronts) + rng.choice(PLACE_ENDINGS)
    if kind == "person":
        surname = rng.choice(parts.surname_fronts) + rng.choice(SURNAME_ENDINGS)
        return f"{rng.choice(parts.given_names)} {surname}"
    return _draw_quantity(rng, kind)


def _draw_quantity(rng: Random, kind: str) -> str:
    match kind:
        case "year":
            return str(rng.randint(1810, 1989))
        case "count":
            return f"{rng.randrange(110, 9000, 10):,}"
        case "length":
            return f"{rng.randint(11, 240)} metres"
        case "duration":
            return f"{rng.randint(3, 60)} {rng.choice(('days', 'weeks', 'months'))}"
        case _:
            raise AssertionError(f"no values of the type {kind!r}")


def _passage_to_paragraph(passage: Passage) -> dict[str, Any]:
    return {
        "context": passage.context,
        "qas": [
            _question_to_qa(question, f"{passage.passage_id}-{number}")
            for number, question in enumerate(passage.questions)
        ],
    }


def _question_to_qa(question: Question, question_id: str) -> dict[str, Any]:
    return {
        "id": question_id,
        "question": question.text,
        "answers": [{"text": text, "answer_start": start} for text, start in question.answers],
        "is_impossible": not question.answers,
    }
