"""Words and sentence templates of the demo corpus: data only, all of it invented and immutable.

A name is built from parts. Every name holds at least one part that its split owns (a front, a given
name, a describing word), so a train name can never be spelled in dev; endings and kinds are shared.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Relation:
    """One kind of fact: how it is stated, and how it is asked for.

    Statements hold `{subject}` and `{value}` once each, questions hold `{subject}` once.
    """

    name: str
    answer_type: str
    statements: tuple[str, ...]
    questions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Domain:
    """What a passage can be about: the kind of its subjects and the facts they may have."""

    title: str
    subject_type: str
    relations: tuple[Relation, ...]


@dataclass(frozen=True, slots=True)
class NameParts:
    """The name parts that one split owns."""

    given_names: tuple[str, ...]
    surname_fronts: tuple[str, ...]
    place_fronts: tuple[str, ...]
    describing_words: tuple[str, ...]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _domain(text: str) -> Domain:
    """A domain from blocks of text, parted by blank lines.

    The first block is `title: subject_type`, each other block a relation: `name: answer_type`, then
    its sentences, where a question mark tells a question from a statement.
    """
    header, *blocks = re.split(r"\n\s*\n", text.strip())
    title, subject_type = header.split(": ")
    return Domain(title, subject_type, tuple(_relation(block) for block in blocks))


def _relation(block: str) -> Relation:
    header, body = block.split("\n", 1)
    name, answer_type = header.strip().split(": ")
    sentences = re.split(r"(?<=[.?]) ", " ".join(body.split()))
    return Relation(
        name=name,
        answer_type=answer_type,
        statements=tuple(sentence for sentence in sentences if sentence.endswith(".")),
        questions=tuple(sentence for sentence in sentences if sentence.endswith("?")),
    )


TRAIN_PARTS = NameParts(
    given_names=_words("""
        Martha Edwin Clara Hugo Irene Oscar Ruth Victor Helen Simon Agnes Felix Laura Martin Sylvia
        Walter Nora Philip Edith Conrad Julia Roland Alice Bernard Stella Gerald Monica Arthur"""),
    surname_fronts=_words("""
        Hal Win Mar Bur Cald Thorn Ald Red Lang Whit Hart Nor Mor Garr Ell Pen Stan Brad Farn
        Hol"""),
    place_fronts=_words("""
        Oak Ash Stone Fair Green King Black Mill West Salt Rose Elm Cold Lake Sand Bell Wood High
        Crow Hazel"""),
    describing_words=_words("""
        Copper Silent Northern Amber Royal Silver Hidden Winter Golden Ancient Velvet Broken Crystal
        Summer Iron Distant Modern Crimson Humble Eastern Wooden Paper Bright Ivory"""),
)
DEV_PARTS = NameParts(
    given_names=_words("""
        Daniel Rosa Frank Miriam Leon Grace Albert Teresa Howard Judith Stephen Esther"""),
    surname_fronts=_words("Car Dun Wes Tal Fen Lock Cross Hen Ros Kirk"),
    place_fronts=_words("North Clay Wolf Long Ring Maple Swan Hill Marsh Otter"),
    describing_words=_words("""
        Southern Scarlet Western Bronze Gentle Marble Lonely Autumn Frozen Noble Emerald Quiet"""),
)

SURNAME_ENDINGS = _words("wick ley ton more field man berg well worth ford son ler")
PLACE_ENDINGS = _words("ham by stead haven mouth dale bury port hurst mere")
NOUNS = _words("""
    Lantern Harbor Falcon River Garden Anchor Mountain Bell Forest Valley Tiger Crown Island Arrow
    Castle Horse Lion Ocean Star Bridge Eagle Rose Wheel Mirror Candle Meadow Wolf Ship""")
# Kinds of name that are a describing word, a noun and one of these, as in "Amber Falcon Regatta".
DESCRIBED_KINDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "organisation": _words("Society Institute Company Trust Union Foundation Guild League"),
        "event": _words("Regatta Race Tournament Rally Contest Festival"),
        "structure": _words("Tower Viaduct Dam Hall Gate Lighthouse"),
    }
)
COMMON_NOUNS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "field": _words("botany chemistry law music geology medicine sculpture astronomy history"),
        "product": _words("cheese wool glass pottery cider salt paper lace honey timber leather"),
        "material": _words("granite brick limestone concrete timber marble steel slate copper"),
    }
)

DOMAINS = (
    _domain("""
        People: person

        birth_year: year
        {subject} was born in {value}. The birth of {subject} was recorded in {value}. In {value},
        {subject} was born. When was {subject} born? In which year was {subject} born? What is the
        birth year of {subject}?

        first_book: year
        {subject} published a first book in {value}. In {value}, {subject} brought out a first book.
        The first book by {subject} came out in {value}. When did {subject} publish a first book?
        When did the first book by {subject} come out? In which year did the first book by {subject}
        appear?

        childhood_home: place
        {subject} grew up in {value}. The childhood of {subject} was spent in {value}. It was in
        {value} that {subject} grew up. Where did {subject} grow up? In which town did {subject}
        grow up? Where was the childhood of {subject} spent?

        later_home: place
        {subject} later moved to {value}. Later in life, {subject} moved to {value}. {value} became
        the later home of {subject}. Where did {subject} move later? Which town did {subject} later
        move to? What was the later home of {subject}?

        teacher: person
        {subject} was taught by {value}. The teacher of {subject} was {value}. {value} was the
        teacher of {subject}. Who taught {subject}? Who was the teacher of {subject}? By whom was
        {subject} taught?

        spouse: person
        {subject} married {value}. The wedding of {subject} and {value} was a quiet one. {subject}
        was married to {value}. Who did {subject} marry? Who was married to {subject}? To whom was
        {subject} married?

        employer: organisation
        {subject} worked for the {value}. The {value} gave {subject} a job. For most of a career,
        {subject} worked for the {value}. Which organisation did {subject} work for? Who gave
        {subject} a job? For which body did {subject} work?

        studied: field
        {subject} studied {value}. At college, {subject} studied {value}. The degree that {subject}
        took was in {value}. What did {subject} study? Which subject did {subject} study? In what
        field was the degree that {subject} took?
    """),
    _domain("""
        Settlements: place

        founded: year
        {subject} was founded in {value}. In {value}, settlers founded {subject}. The founding of
        {subject} took place in {value}. When was {subject} founded? In which year was {subject}
        founded? When did the founding of {subject} take place?

        railway: year
        The railway reached {subject} in {value}. In {value}, the railway came to {subject}.
        {subject} got its railway station in {value}. When did the railway reach {subject}? In what
        year did the railway come to {subject}? When did {subject} get its railway station?

        population: count
        {subject} has a population of {value}. The population of {subject} is about {value}. About
        {value} people live in {subject}. How many people live in {subject}? What is the population
        of {subject}? How large is the population of {subject}?

        houses: count
        {subject} has {value} houses. There are about {value} houses in {subject}. The number of
        houses in {subject} is {value}. How many houses are there in {subject}? How many houses does
        {subject} have? What is the number of houses in {subject}?

        mayor: person
        The mayor of {subject} is {value}. {value} was elected mayor of {subject}. {subject} chose
        {value} as its mayor. Who is the mayor of {subject}? Who was elected mayor of {subject}? Who
        did {subject} choose as its mayor?

        product: product
        {subject} is known for its {value}. Traders know {subject} for its {value}. The workshops of
        {subject} are known for {value}. What is {subject} known for? For what do traders know
        {subject}? Which product is {subject} known for?
    """),
    _domain("""
        Organisations: organisation

        founder: person
        The {subject} was founded by {value}. {value} founded the {subject}. The founder of the
        {subject} was {value}. Who founded the {subject}? Who was the founder of the {subject}? By
        whom was the {subject} founded?

        director: person
        The director of the {subject} is {value}. {value} directs the {subject}. The {subject} is
        run by its director, {value}. Who is the director of the {subject}? Who directs the
        {subject}? Which person is the director of the {subject}?

        head_office: place
        The {subject} has its head office in {value}. The head office of the {subject} is in
        {value}. {value} hosts the head office of the {subject}. Where is the head office of the
        {subject}? Where does the {subject} have a head office? Which town hosts the head office of
        the {subject}?

        school: place
        The {subject} runs a school in {value}. In {value}, the {subject} runs a school. The school
        of the {subject} stands in {value}. Where does the {subject} run a school? In which town is
        the school of the {subject}? Where does the school of the {subject} stand?

        members: count
        The {subject} has {value} members. About {value} members belong to the {subject}. The number
        of members in the {subject} is {value}. How many members does the {subject} have? How many
        members belong to the {subject}? What is the number of members in the {subject}?

        merger: organisation
        The {subject} merged with the {value}. A merger joined the {subject} and the {value}. The
        {value} was the partner in a merger with the {subject}. Which body did the {subject} merge
        with? With whom did the {subject} merge? What was joined with the {subject} by a merger?
    """),
    _domain("""
        Events: event

        start: place
        The {subject} starts in {value}. {value} is where the {subject} starts. The starting point
        of the {subject} is {value}. Where does the {subject} start? In which town does the
        {subject} start? What is the starting point of the {subject}?

        finish: place
        The {subject} ends in {value}. {value} is where the {subject} ends. The final day of the
        {subject} is spent in {value}. Where does the {subject} end? In which town does the
        {subject} end? Where is the final day of the {subject} spent?

        winner: person
        The {subject} was won by {value}. {value} won the {subject}. The winner of the {subject} was
        {value}. Who won the {subject}? Who was the winner of the {subject}? By whom was the
        {subject} won?

        opener: person
        The {subject} was opened by {value}. {value} gave the opening speech at the {subject}. A
        speech by {value} opened the {subject}. Who opened the {subject}? Who gave the opening
        speech at the {subject}? Whose speech opened the {subject}?

        duration: duration
        The {subject} lasted for {value}. For {value}, visitors enjoyed the {subject}. The {subject}
        went on for {value}. How long did the {subject} last? For how long did the {subject} go on?
        What length of time did the {subject} last?

        visitors: count
        The {subject} drew {value} visitors. About {value} visitors came to the {subject}. The
        number of visitors at the {subject} was {value}. How many visitors came to the {subject}?
        How many visitors did the {subject} draw? What was the number of visitors at the {subject}?
    """),
    _domain("""
        Measurements: structure

        height: length
        The {subject} is {value} high. The height of the {subject} is {value}. The {subject} rises
        to a height of {value}. How high is the {subject}? What is the height of the {subject}? To
        what height does the {subject} rise?

        width: length
        The {subject} is {value} wide. The width of the {subject} is {value}. The {subject} has a
        width of {value}. How wide is the {subject}? What is the width of the {subject}? What width
        does the {subject} have?

        designer: person
        The {subject} was designed by {value}. {value} designed the {subject}. The designer of the
        {subject} was {value}. Who designed the {subject}? Who was the designer of the {subject}? By
        whom was the {subject} designed?

        completed: year
        The {subject} was completed in {value}. In {value}, the {subject} was completed. Work on the
        {subject} was completed in {value}. When was the {subject} completed? In which year was the
        {subject} completed? When was work on the {subject} completed?

        material: material
        The {subject} is made of {value}. Builders made the {subject} from {value}. The walls of the
        {subject} are made of {value}. What is the {subject} made of? Which material was the
        {subject} made from? What are the walls of the {subject} made of?

        building_time: duration
        It took {value} to build the {subject}. Building the {subject} took {value}. The {subject}
        was under construction for {value}. How long did it take to build the {subject}? How long
        did building the {subject} take? For how long was the {subject} under construction?
    """),
)
