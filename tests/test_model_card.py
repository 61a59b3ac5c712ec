"""The model card says what the run says, whatever its names hold, and reads back as metadata."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from markdown_it.token import Token

from qa_core.model_card import RunFacts, SplitFacts, base_name, escape_markdown, render_card

SECRET_PLACES = ("/home/marta/secret", "s3://bucket/private", "token=hf_x")
RUN = RunFacts(
    name="squad",
    base_model="google-bert/bert-base-uncased",
    is_on_hub=True,
    train=SplitFacts(["hub:rajpurkar/squad_v2:train", "more.json"], 130_319, 43_498, 7),
    dev=SplitFacts(["hub:rajpurkar/squad_v2:validation"], 11_873, 5_945, 0),
    language=None,
    settings={
        "features.max_length": 384,
        "train.learning_rate": 3e-5,
        "train.tokens_per_batch": None,
    },
    answering={"max_length": 384, "doc_stride": 128, "n_best": 20, "max_answer_length": 30},
    chosen="step 20 (epoch 2), the best by F1",
    versions={"ray": "2.60.0", "torch": "2.13.0"},
    commit="0123abc",
)
METRICS = {
    "exact": 70.123456,
    "f1": 73.987654,
    "total": 11_873,
    "HasAns_exact": 65.5,
    "HasAns_f1": 73.25,
    "HasAns_total": 5_928,
    "NoAns_exact": 74.75,
    "NoAns_f1": 74.75,
    "NoAns_total": 5_945,
    "null_threshold": -1.25,
    "eval_loss": 1.5,
}
V1_METRICS = {
    **{name: METRICS[name] for name in ("exact", "f1", "total")},
    **{f"HasAns_{name}": METRICS[name] for name in ("exact", "f1", "total")},
    "exact_match": METRICS["exact"],
}
ANALYSIS: dict[str, Any] = {
    "intervals": {"exact": [69.0, 71.0], "f1": [72.5, 75.0]},
    "calibration": {
        "temperature": 1.5,
        "num_measured": 5_900,
        "before": {"error": 0.125},
        "after": {"error": 0.025},
    },
}
NASTY = [
    "<script>alert(1)</script>",
    "</code></td><img src=x onerror=alert(1)>",
    "`code` ``` and **bold** _em_ ~~gone~~",
    "a|b\\|c\\\\|d",
    "first\n\n# second\r\n---\nlicense: mit\n---\n",
    "[link](javascript:alert(1)) ![](http://x/y.png) <http://x>",
    "{{ 7 * 7 }} {% raw %} {# gone #}",
    "&lt;b&gt; &amp; &#60;",
    "null\x00byte, bell\x07, escape\x1b[31m, lone \ud800 surrogate",
    "right\u202eot left, isolated \u2066x\u2069",
    "- item\t1. item",
    "1. item",
    "# heading #",
    "---",
    "'single' \"double\": yes",
    "$x^2$ @user https://example.org",
    "x" * 1_000_000,
    "",
    "\u2028\u0085\u000b ",
    "مرحبا 東京 naïve",
]


def render(run: RunFacts = RUN, metrics: dict[str, Any] = METRICS) -> str:
    """The card of a run."""
    return render_card(run, metrics=metrics, analysis=ANALYSIS)


def tokens(card: str) -> list[Token]:
    """The card's Markdown as a reader of GitHub's kind takes it, inline tokens among them."""
    text = ModelCard(card).text
    found = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
    return [inner for token in found for inner in (token, *(token.children or ()))]


def structure(card: str) -> list[str]:
    """What kinds of Markdown follow each other, texts left out."""
    kinds = [token.type + token.content * (token.type == "html_inline") for token in tokens(card)]
    return [kind for kind in kinds if kind not in ("text", "inline", "softbreak", "text_special")]


def cells(card: str) -> list[list[str]]:
    """The texts of the rows of all tables."""
    rows: list[list[str]] = []
    found = MarkdownIt("commonmark").enable("table").parse(ModelCard(card).text)
    for number, token in enumerate(found):
        if token.type == "tr_open":
            rows.append([])
        elif token.type in ("th_open", "td_open"):
            texts = found[number + 1].children or []
            rows[-1].append("".join(t.content for t in texts if t.type != "html_inline"))
    return rows


def test_the_metadata_is_what_the_hub_reads(tmp_path: Path) -> None:
    """Loaded by the Hub's own class from the file: every field, the scores in the model-index."""
    file = tmp_path / "README.md"
    file.write_text(render(), encoding="utf-8")
    card = ModelCard.load(file)
    data = card.data.to_dict()
    [result] = data.pop("model-index")[0]["results"]
    assert data == {
        "base_model": "google-bert/bert-base-uncased",
        "datasets": ["rajpurkar/squad_v2"],
        "library_name": "transformers",
        "metrics": ["exact_match", "f1"],
        "pipeline_tag": "question-answering",
        "tags": ["extractive-question-answering", "ray-extractive-qa"],
    }
    assert result["dataset"] == {
        "name": "rajpurkar/squad_v2",
        "type": "rajpurkar/squad_v2",
        "split": "validation",
    }
    assert [(m["type"], m["name"], m["value"]) for m in result["metrics"]] == [
        ("exact_match", "exact", 70.12),
        ("exact_match", "HasAns_exact", 65.5),
        ("exact_match", "NoAns_exact", 74.75),
        ("f1", "f1", 73.99),
        ("f1", "HasAns_f1", 73.25),
        ("f1", "NoAns_f1", 74.75),
    ]
    assert card.data.model_name == "squad"
    assert str(card) == file.read_text(encoding="utf-8"), "written back, it is the same"


def test_only_what_is_known_is_metadata() -> None:
    """A folder is no base model of the Hub, a file no data set; no license is guessed."""
    run = replace(
        RUN,
        base_model="/home/marta/secret/bert",
        is_on_hub=False,
        train=replace(RUN.train, sources=["/home/marta/secret/train.json"]),
        dev=replace(RUN.dev, sources=["/home/marta/secret/dev.json"]),
    )
    data = ModelCard(render(run)).data.to_dict()
    assert not data.keys() & {"base_model", "datasets", "license", "language"}
    assert data["model-index"][0]["results"][0]["dataset"] == {"name": "dev.json", "type": "custom"}
    assert "No license is stated" in render(run)


@pytest.mark.parametrize(
    ("language", "sources", "expected"),
    [
        ("de", ["train.json"], "de"),
        (None, ["embedded:train"], "en"),
        (None, ["embedded:train", "train.json"], None),
    ],
)
def test_the_language_is_told_where_it_is_known(
    language: str | None, sources: list[str], expected: str | None
) -> None:
    """That of the scores' rules, or of the embedded data; else the card says it is not known."""
    dev = replace(RUN.dev, sources=["embedded:dev"])
    run = replace(RUN, language=language, train=replace(RUN.train, sources=sources), dev=dev)
    card = render(run)
    assert ModelCard(card).data.language == expected
    assert ("languages of the data are not known" in card) == (expected is None)
    assert ("MLQA for the language de" in card) == (language == "de")


def test_scores_have_intervals_and_numbers() -> None:
    """The table's figures are those of metrics.json and analysis.json, to two decimals."""
    rows = cells(render())
    assert ["all", "11,873", "70.12 (69.00 to 71.00)", "73.99 (72.50 to 75.00)"] in rows
    assert ["with an answer", "5,928", "65.50", "73.25"] in rows
    assert ["without an answer", "5,945", "74.75", "74.75"] in rows
    assert ["training", "hub:rajpurkar/squad_v2:train, more.json", "130,319", "43,498", "7"] in rows
    assert ["train.learning_rate", "3e-05"] in rows
    assert not any("tokens_per_batch" in cell for row in rows for cell in row), "it does not apply"


def test_versions_and_commit_are_told() -> None:
    """What the weights can be made again with."""
    assert "ray 2.60.0, torch 2.13.0; commit <code>0123abc</code>." in render()


def test_the_null_threshold_and_calibration_are_explained() -> None:
    """With its value, and how far probabilities are off."""
    card = render()
    assert "Null threshold: **-1.2500**" in card
    assert "on 5,900 dev questions their expected calibration error is 12.5 %." in card
    assert "a temperature of 1.50, which the model does not do, it would be 2.5 %." in card


def test_a_v1_model_says_that_it_always_answers() -> None:
    """No threshold, v1.1's name of the metric, and no rows of questions there are none of."""
    run = replace(RUN, dev=replace(RUN.dev, num_unanswerable=0))
    card = render(run, V1_METRICS)
    assert "every question gets the best span" in card
    assert "scored with none" in card
    assert "Null threshold:" not in card
    assert "without an answer" not in [row[0] for row in cells(card)]
    metrics = ModelCard(card).data.to_dict()["model-index"][0]["results"][0]["metrics"]
    assert [m["name"] for m in metrics] == ["exact_match", "HasAns_exact", "f1", "HasAns_f1"]


def test_too_few_questions_to_calibrate_are_said() -> None:
    """`analyse` leaves the figures out; so does the card."""
    few = {**ANALYSIS, "calibration": {"temperature": 1.0, "num_measured": 1}}
    card = render_card(RUN, metrics=METRICS, analysis=few)
    assert "too few dev questions" in card


def test_the_same_run_gives_the_same_card() -> None:
    """No date, nothing drawn."""
    assert render() == render()
    assert not re.search(r"\b20\d\d-\d\d", render())


def test_no_place_of_a_machine_is_told() -> None:
    """Of paths and URIs only the last names are shown, and no query of a URI."""
    run = replace(
        RUN,
        base_model="s3://bucket/private/bert?token=hf_x",
        is_on_hub=False,
        train=replace(
            RUN.train,
            sources=[
                "/home/marta/secret/a.json",
                "s3://bucket/private/b/",
                "hub:/home/marta/secret/c:x",
            ],
        ),
        dev=replace(RUN.dev, sources=["gs://bucket/private/dev.json?token=hf_x"]),
    )
    card = render(run)
    assert not [place for place in SECRET_PLACES if place in card]
    assert all(
        f"<code>{name}</code>" in card for name in ("a.json", "b", "c:x", "dev.json", "bert")
    )


def test_many_sources_are_counted() -> None:
    """A folder of a thousand files does not fill the card."""
    sources = [f"part-{number}.json" for number in range(1_000)]
    card = render(replace(RUN, train=replace(RUN.train, sources=sources)))
    assert "and 995 others" in card
    assert "part-5.json" not in card


@pytest.mark.parametrize("text", NASTY, ids=lambda text: ascii(text[:12]))
def test_no_name_breaks_the_card(text: str) -> None:
    """Markup, fences, pipes, lines, controls: the same structure as with plain names, and YAML."""

    def card_with(name: str) -> str:
        split = SplitFacts([name, f"folder/{name}"], 2, 1, 0)
        return render(
            replace(
                RUN,
                name=name,
                base_model=name,
                is_on_hub=False,
                train=split,
                dev=split,
                chosen=name,
                settings={"distillation.teacher": name},
                commit=name,
                remarks=[f"{name} "],
            )
        )

    card = card_with(text)
    assert structure(card) == structure(card_with("plain"))
    assert card.encode(), "no lone surrogate is left"
    assert not re.search("[\x00-\x09\x0b-\x1f\u202e\u2066]", card)
    block = card.split("\n---\n")[0].removeprefix("---\n")
    assert yaml.safe_load(block) == ModelCard(card).data.to_dict()
    assert "license" not in yaml.safe_load(block)
    assert str(ModelCard(card)) == card


def test_an_escaped_text_is_read_as_it_was() -> None:
    """Markdown gives the characters back, and takes them for nothing else."""
    text = "a|b <i>*x*</i> `c` [d](e) \\ & {{f}} __g__ snake_case 100% $h$"
    [paragraph] = [t for t in MarkdownIt("commonmark").parse(escape_markdown(text)) if t.children]
    assert {child.type for child in paragraph.children or []} <= {"text", "text_special"}
    assert "".join(child.content for child in paragraph.children or []) == text
    assert "snake_case" in escape_markdown(text), "plain names stay as they are"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("/data/squad/train.json", "train.json"),
        ("~/squad/", "squad"),
        ("data/*.jsonl", "*.jsonl"),
        ("s3://bucket/a/train.json?region=x", "train.json"),
        ("hub:rajpurkar/squad_v2:train", "hub:rajpurkar/squad_v2:train"),
        ("hub:squad:plain_text:train", "hub:squad:plain_text:train"),
        ("hub:/data/squad:train", "squad:train"),
        ("embedded:dev", "embedded:dev"),
    ],
)
def test_base_names(source: str, name: str) -> None:
    """Folders go, what a person calls the source stays."""
    assert base_name(source) == name
