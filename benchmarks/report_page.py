"""What the page of a run costs: to make, to carry, to open, to search.

    python -m benchmarks.report_page --data squadshifts_new_wiki.json --json report.json

20,000 questions with contexts of the lengths of real ones (their words shuffled, so that no two are
the same), decoded from seeded logits as `benchmarks.decoding` makes them, as the run of a training
of 2,000 steps. The page is made from the run's files in this process, `turns` times, then opened by
a headless Chromium in a new context each time. A filter, an order and a search are timed within
the page, from the event to the second frame after it, which is when a person sees the answer. Two
minutes.
"""

import json as json_module
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
from jsonargparse import auto_cli
from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.decoding import make_logits
from benchmarks.figures import show_figures, write_figures
from benchmarks.repeated_data import write_repeated
from jobs.configuration import TrainConfig, dump_config
from jobs.models import resolve_model
from qa_core.analysis import analyse
from qa_core.decoding import apply_null_threshold, decode_answers
from qa_core.exploring import CANDIDATES, Explorer, explored_rows
from qa_core.features import build_features
from qa_core.presenting import present_answers
from qa_core.reading import read_examples
from qa_core.report_page import build_page
from qa_core.run_files import read_run
from qa_core.scoring import find_null_threshold, given_scores, score_answers, summarize_scores
from qa_core.slices import example_facts
from qa_core.storage import write_json_lines, write_parquet
from qa_core.tokenizing import load_tokenizer

SIZES = {"max_length": 384, "doc_stride": 128}
NUM_STEPS = 2000
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")
# From an event to the second frame after it, in milliseconds.
TIMED = """async ([id, value]) => {
  const element = document.getElementById(id);
  const started = performance.now();
  element.value = value;
  element.dispatchEvent(new Event(id === "search" ? "input" : "change", { bubbles: true }));
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  return performance.now() - started;
}"""
ACTIONS = {
    "filter": ("show", "wrong"),
    "group": ("group-question_word", "1"),
    "order": ("order", "sure"),
    "search": ("search", "the of"),
    "search_again": ("search", "the off"),
}


def main(
    data: str = "embedded:train",
    num_questions: int = 20_000,
    turns: int = 5,
    json: str | None = None,
) -> None:
    """Measure; see the module.

    Args:
        data: SQuAD JSON, or embedded:train.
        num_questions: of the run.
        turns: of making and of opening the page.
        json: where to write the figures, too.
    """
    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        write_repeated(data, folder / "data.json", num_questions)
        write_run(folder / "run", read_examples(folder / "data.json")[0])
        page, seconds = None, []
        for _ in range(turns):
            started = time.perf_counter()
            page = build_page([read_run(str(folder / "run"))])
            seconds.append(time.perf_counter() - started)
        assert page is not None
        (folder / "page.html").write_text(page, encoding="utf-8")
        figures: dict[str, Any] = {
            "num_questions": num_questions,
            "page_megabytes": len(page.encode()) / 1e6,
            "make_seconds": median(seconds),
            "make_seconds_largest": max(seconds),
        }
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=browser_path, args=ARGUMENTS)
            figures |= open_page(browser, (folder / "page.html").as_uri(), turns)
            browser.close()
    show_figures("The page of a run", figures)
    write_figures(json, figures)


def write_run(folder: Path, examples: pa.Table) -> None:
    """The files that a training leaves for its page."""
    tokenizer = load_tokenizer(resolve_model("embedded"))
    features = build_features(examples, tokenizer=tokenizer, **SIZES)
    logits = make_logits(features, 0)
    answers = decode_answers(features, *logits, examples=examples, null_threshold=float("inf"))
    scores = score_answers(answers, examples)
    threshold = find_null_threshold(scores)
    owner = features["example_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    counts = np.bincount(owner)  # (examples,) windows
    lengths = np.array([len(text) for text in examples["context"].to_pylist()])
    facts = example_facts(
        answers, examples, num_windows=counts, context_tokens=lengths // 4
    ).sort_by("id")
    explorer = Explorer()
    kept = pa.array(np.flatnonzero(explorer.wanted(examples["context"])))
    given = apply_null_threshold(answers, threshold).take(kept)
    explorer.add(
        explored_rows(
            examples.take(kept),
            present_answers(given, top_k=CANDIDATES, has_null=True),
            given=given_scores(scores, null_threshold=threshold),
            facts=facts,
            windows=[([0] * n, [int(size)] * n) for n, size in zip(counts, lengths, strict=True)],
        )
    )
    folder.mkdir()
    (folder / "config.yaml").write_text(dump_config(TrainConfig()))
    metrics = summarize_scores(scores, null_threshold=threshold) | {"null_threshold": threshold}
    analysis = analyse(scores, facts, null_threshold=threshold)
    for name, value in (("metrics", metrics), ("analysis", analysis)):
        (folder / f"{name}.json").write_text(json_module.dumps(value))
    write_parquet(str(folder / "explorer.parquet"), explorer.table())
    rows = [{"event": "step", **step_record(number)} for number in range(1, NUM_STEPS + 1)]
    write_json_lines(str(folder / "metrics.jsonl"), rows)


def step_record(step: int) -> dict[str, Any]:
    """A step of a training."""
    return {
        "step": step,
        "num_steps": NUM_STEPS,
        "epoch": 2 * step / NUM_STEPS,
        "loss": 4 / step**0.5,
        "learning_rate": 1e-4 * (1 - step / NUM_STEPS),
        "num_features": 16,
        "num_tokens": 2700,
        "num_padding_tokens": 100,
    }


def open_page(browser: Browser, address: str, turns: int) -> dict[str, Any]:
    """Seconds to open the page and its answers, milliseconds of each action; of all turns.

    The page is open when it can be read; its first chart is there a little later.
    """
    opened, drawn, answers = list[float](), list[float](), list[float]()
    actions: dict[str, list[float]] = {name: [] for name in ACTIONS}
    for _ in range(turns):
        page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
        started = time.perf_counter()
        page.goto(address)
        opened.append(time.perf_counter() - started)
        wait(page, "document.querySelector('.plot[data-drawn]')")
        drawn.append(time.perf_counter() - started)
        started = time.perf_counter()
        page.evaluate("location.hash = 'answers'")
        wait(page, "document.querySelector('#answers[data-ready]')")
        answers.append(time.perf_counter() - started)
        for name, (element, value) in ACTIONS.items():
            actions[name].append(page.evaluate(TIMED, [element, value]))
        page.context.close()
    figures = {"open_seconds": median(opened), "open_seconds_largest": max(opened)}
    figures |= {"chart_seconds": median(drawn), "chart_seconds_largest": max(drawn)}
    figures |= {"answers_seconds": median(answers), "answers_seconds_largest": max(answers)}
    for name, found in actions.items():
        figures |= {
            f"{name}_milliseconds": median(found),
            f"{name}_milliseconds_largest": max(found),
        }
    return figures


def wait(page: Page, script: str) -> None:
    """Return when a script gives something."""
    while not page.evaluate(f"Boolean({script})"):
        page.wait_for_timeout(5)


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
