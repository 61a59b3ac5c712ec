"""card: data, settings and scores of a run → the model's README.md, as the Hub shows it.

Names come from people and files. They are shown without the folders they lie in, which say where
someone works, and as text whatever is in them. The same run gives the same bytes.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # is public
from jinja2 import Environment, PackageLoader, StrictUndefined

NAME_CHARACTERS = 100  # of a name that are shown
SOURCES_SHOWN = 5
TAGS = ["extractive-question-answering", "ray-extractive-qa"]
NO_HUB_DATA = "custom"  # the Hub's field for a data set's id, where it is none of the Hub's
# The metrics' ids on the Hub, and the figures they are given for, under their official names.
HUB_METRICS = {
    "exact_match": ("exact_match", "exact", "HasAns_exact", "NoAns_exact"),
    "f1": ("f1", "HasAns_f1", "NoAns_f1"),
}
# What is Markdown, HTML or TeX in a text, or makes a list or heading at its begin. An underscore
# within a word is none of these.
MARKUP = re.compile(
    r"[&<>\"'`*\[\]{}!|~\\$#@^]|(?<![^\W_])_|_(?![^\W_])|:(?=//)"
    r"|\A[-+=](?=\s|[-+=]|\Z)|\A\d(?=\d*[.)](?:\s|\Z))"
)
DIRECTIONS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@dataclass(frozen=True)
class SplitFacts:
    """The training or dev data of a run."""

    sources: Sequence[str]
    num_questions: int  # that were used
    num_unanswerable: int
    num_rejected: int


@dataclass(frozen=True)
class RunFacts:
    """What a card tells of a run beside its scores."""

    name: str
    base_model: str  # as it was given: a folder, a URI or a name on the Hub
    is_on_hub: bool  # whether `base_model` is a name on the Hub
    train: SplitFacts
    dev: SplitFacts
    language: str | None  # whose rules answers were compared by; None: the official scripts'
    settings: Mapping[str, Any]  # of the training, by key; None where one does not apply
    answering: Mapping[str, Any]  # likewise, stored with the model: windows and decoding
    chosen: str  # which weights these are, in words
    versions: Mapping[str, str]  # by package
    commit: str
    remarks: Sequence[str] = field(default_factory=tuple)  # what else limits the scores' meaning


class Markdown(str):
    """A text that is Markdown already."""

    __slots__ = ()


def render_card(run: RunFacts, *, metrics: Mapping[str, Any], analysis: Mapping[str, Any]) -> str:
    """The text of README.md: the Hub's metadata as YAML, then what a person reads.

    `metrics` are those of metrics.json, `analysis` those of `qa_core.analysis.analyse`. No
    licence is stated, since nothing here knows it.
    """
    environment = Environment(
        loader=PackageLoader("qa_core"),
        autoescape=False,  # what is written here is Markdown: `finalize` escapes for that
        finalize=escape_markdown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "name": clean_name,
        "base_name": base_name,
        "code": as_code,
        "names": join_names,
        "sentence": as_sentence,
    }
    text = environment.get_template("model_card.md").render(
        run=run,
        scores=score_rows(metrics, analysis["intervals"]),
        calibration=analysis["calibration"],
        language=find_language(run),
        threshold=metrics.get("null_threshold"),
    )
    return str(ModelCard(f"---\n{card_data(run, metrics).to_yaml()}\n---\n\n{text}"))


def card_data(run: RunFacts, metrics: Mapping[str, Any]) -> ModelCardData:
    """The Hub's metadata: what is known, and nothing else."""
    return ModelCardData(
        base_model=run.base_model if run.is_on_hub else None,
        datasets=sorted({name for s in run.train.sources if (name := hub_data(s))}) or None,
        eval_results=eval_results(run.dev.sources, metrics),
        language=find_language(run),
        library_name="transformers",
        metrics=list(HUB_METRICS),
        model_name=clean_name(run.name),
        pipeline_tag="question-answering",
        tags=TAGS,
    )


def eval_results(sources: Sequence[str], metrics: Mapping[str, Any]) -> list[EvalResult]:
    """The scores on the dev data, 0 to 100, two decimals."""
    on_hub = hub_data(sources[0]) if len(sources) == 1 else None
    _, *config, split = sources[0].removeprefix("hub:").split(":") if on_hub else ("", "")
    return [
        EvalResult(
            task_type="question-answering",
            task_name="Extractive question answering",
            dataset_type=on_hub or NO_HUB_DATA,
            dataset_name=on_hub or clean_name(", ".join(map(base_name, sources[:SOURCES_SHOWN]))),
            dataset_config=config[0] if config else None,
            dataset_split=split or None,
            metric_type=metric,
            metric_name=figure,
            metric_value=round(metrics[figure], 2),
        )
        for metric, figures in HUB_METRICS.items()
        for figure in figures
        if figure in metrics and not (figure == "exact" and "exact_match" in metrics)
    ]


def score_rows(
    metrics: Mapping[str, Any], intervals: Mapping[str, Sequence[float]]
) -> list[tuple[str, int, str, str]]:
    """Which questions, how many, exact match and F1; the interval of all of them in parentheses."""
    kinds = (("", "all"), ("HasAns_", "with an answer"), ("NoAns_", "without an answer"))
    rows = []
    for prefix, words in kinds:
        if f"{prefix}total" not in metrics:
            continue
        exact, f1 = (f"{metrics[prefix + name]:.2f}" for name in ("exact", "f1"))
        if not prefix:
            ends = (intervals[name] for name in ("exact", "f1"))
            exact, f1 = (
                f"{score} ({low:.2f} to {high:.2f})"
                for score, (low, high) in zip((exact, f1), ends, strict=True)
            )
        rows.append((words, metrics[f"{prefix}total"], exact, f1))
    return rows


def find_language(run: RunFacts) -> str | None:
    """The language that is known: the one of the scores' rules, or that of the embedded data."""
    if run.language is not None:
        return run.language
    sources = [*run.train.sources, *run.dev.sources]
    return "en" if all(source.startswith("embedded:") for source in sources) else None


def hub_data(source: str) -> str | None:
    """The name of a data set on the Hub; None for any other source.

    >>> hub_data("hub:rajpurkar/squad_v2:train"), hub_data("train.json")
    ('rajpurkar/squad_v2', None)
    """
    if not source.startswith("hub:"):
        return None
    name = source.removeprefix("hub:").partition(":")[0]
    try:
        validate_repo_id(name)
    except HFValidationError:  # a folder, perhaps
        return None
    return name


def base_name(source: str) -> str:
    """A source's or model's name without the folders it lies in.

    >>> base_name("s3://bucket/squad/train.json"), base_name("embedded:dev")
    ('train.json', 'embedded:dev')
    """
    if source.startswith("embedded:") or hub_data(source):
        return source
    place = source.partition("?")[0] if "://" in source else source
    return place.rstrip("/").rpartition("/")[2]


def clean_name(text: str) -> str:
    """A text on one line, without control characters and with no more than a name needs."""
    plain = " ".join(text[: 10 * NAME_CHARACTERS].split())
    plain = plain if len(plain) <= NAME_CHARACTERS else plain[:NAME_CHARACTERS] + "…"
    shown = "".join("\ufffd" if _is_control(character) else character for character in plain)
    return shown or "unnamed"


def _is_control(character: str) -> bool:
    return character in DIRECTIONS or unicodedata.category(character) in ("Cc", "Cs")


def escape_markdown(value: Any) -> str:
    """A value as text that is nothing but text in Markdown, in a table's cell too.

    Markup becomes character references, which Markdown takes for no structure.
    """
    if isinstance(value, Markdown):
        return value
    plain = "".join("\ufffd" if _is_control(c) else c for c in " ".join(str(value).split()))
    return Markdown(MARKUP.sub(lambda found: f"&#{ord(found[0])};", plain))


def as_code(value: Any) -> Markdown:
    """A name in the type of code; a code span of Markdown could not hold every text in a table."""
    return Markdown(f"<code>{escape_markdown(clean_name(str(value)))}</code>")


def as_sentence(text: str) -> str:
    """A remark with a capital letter and a full stop."""
    return f"{text[:1].upper()}{text[1:]}."


def join_names(sources: Sequence[str]) -> Markdown:
    """The first names of sources, and how many others there are."""
    names = ", ".join(as_code(base_name(source)) for source in sources[:SOURCES_SHOWN])
    others = len(sources) - SOURCES_SHOWN
    return Markdown(f"{names} and {others} others" if others > 0 else names)
