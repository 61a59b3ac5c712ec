"""The page in a real browser: charts, the explorer of answers, hostile data, who cannot see it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser

from qa_core.report_page import build_page
from qa_core.run_files import RunFiles, read_run
from tests.browser import Opened, find_browser, opened, running_browser
from tests.pages import make_examples, write_run
from tests.sweeps import recorded_sweep

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        find_browser() is None, reason="no Chromium on this machine (apt-get install chromium)"
    ),
]
NUM_QUESTIONS = 300
HOSTILE = (
    "</script><script>window.hacked=1</script>",
    "<img src=x onerror=window.hacked=1>",
    "{{ 7 * 7 }}{% raw %}${window.hacked=1}",
    "javascript:window.hacked=1//\"'`><svg onload=window.hacked=1>",
    "\x00\x07\x1b[31m\x7f]]>&amp;&lt;<!--",
    "\u202e\u2066\u202astill\u2069 שלום عربى 東京 😀😀",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all pages."""
    with running_browser() as browser:
        yield browser


def write_page(folder: Path, *runs: Path | RunFiles) -> Path:
    """The page of runs as a file."""
    file = folder / "page.html"
    read = [run if isinstance(run, RunFiles) else read_run(str(run)) for run in runs]
    file.write_text(build_page(read), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training's folder."""
    folder = tmp_path_factory.mktemp("runs")
    return write_run(folder / "ours", make_examples(NUM_QUESTIONS))


@pytest.fixture(scope="module")
def page_file(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its page."""
    return write_page(tmp_path_factory.mktemp("page"), run)


@pytest.fixture(scope="module")
def compared_file(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of two runs."""
    other = write_run(run.parent / "theirs", make_examples(NUM_QUESTIONS), seed=5, num_steps=60)
    return write_page(tmp_path_factory.mktemp("compared"), run, other)


@pytest.fixture(scope="module")
def sweep_file(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a sweep."""
    files = read_run(str(run))
    files.sweep, files.trials = recorded_sweep()
    return write_page(tmp_path_factory.mktemp("sweep"), files)


def rows_of(run: Path) -> list[dict[str, Any]]:
    """What the explorer of a run has."""
    table = read_run(str(run)).explorer
    assert table is not None
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def number_shown(page: Opened) -> int:
    """Of the questions that pass the filters."""
    found = re.match(r"([\d,]+) of", page.text("#count"))
    assert found, page.text("#count")
    return int(found[1].replace(",", ""))


@pytest.mark.parametrize("name", ["page_file", "compared_file", "sweep_file"])
def test_every_chart_is_drawn_and_nothing_leaves_the_page(
    name: str, request: pytest.FixtureRequest, browser: Browser
) -> None:
    """In light, and again when the machine turns dark; no message, no request."""
    with opened(browser, request.getfixturevalue(name)) as page:
        page.scroll_through()
        number = page.count(".plot")
        assert number >= 4
        plots = "[...document.querySelectorAll('.plot')]"
        drawn = f"{plots}.filter((plot) => plot.querySelector('.trace, .hm')).length"
        assert page.page.evaluate(drawn) == number
        page.page.emulate_media(color_scheme="dark")
        page.wait(f"{plots}.every((plot) => plot.dataset.drawn === 'dark')")
        assert page.faults == []


def test_filters_show_the_questions_they_name(run: Path, page_file: Path, browser: Browser) -> None:
    """Counted beside the run's own rows."""
    rows = rows_of(run)
    expected = {
        "all": len(rows),
        "wrong": sum(row["exact"] < 1 for row in rows),
        "partly": sum(row["exact"] < 1 and row["f1"] > 0 for row in rows),
        "answered": sum(not row["gold_starts"] and row["answer"] != "" for row in rows),
        "unanswered": sum(bool(row["gold_starts"]) and row["answer"] == "" for row in rows),
        "unsure": sum(row["probability"] < 0.5 for row in rows),
    }
    assert all(expected.values())
    with opened(browser, page_file, "#answers") as page:
        for name, number in expected.items():
            page.page.select_option("#show", name)
            assert number_shown(page) == number, name
        page.page.select_option("#group-question_word", label="who")
        both = sum(r["probability"] < 0.5 and r["question_word"] == "who" for r in rows)
        assert number_shown(page) == both
        page.page.click("#clear")
        assert number_shown(page) == len(rows)
        assert page.faults == []


def test_search_looks_into_questions_answers_contexts_and_ids(
    run: Path, page_file: Path, browser: Browser
) -> None:
    """Whatever its case; what nothing holds is said."""
    rows = rows_of(run)
    year = re.search(r"in (18\d\d)\.", rows[0]["context"])
    assert year
    with opened(browser, page_file, "#answers") as page:
        for words in ("NUMBER 12", rows[7]["id"], year[1], rows[3]["answer"]):
            page.page.fill("#search", words)
            low = words.lower()
            texts = ("question", "context", "answer", "id")
            expected = sum(any(low in row[name].lower() for name in texts) for row in rows)
            page.wait(f"document.querySelector('#count').textContent.startsWith('{expected} of')")
            assert expected
        page.page.fill("#search", "no text has this")
        page.page.wait_for_selector("text=No question passes these filters.")
        assert page.faults == []


def test_a_link_points_to_one_question(run: Path, page_file: Path, browser: Browser) -> None:
    """The address has it, opens it, and keeps up; filters are in it, too."""
    rows = rows_of(run)
    with opened(browser, page_file, f"#answers&q={rows[123]['id']}") as page:
        assert page.text("#question h3") == rows[123]["question"]
        page.page.click("#next")
        assert page.text("#question h3") == rows[124]["question"]
        assert f"q={rows[124]['id']}" in page.page.evaluate("location.hash")
        page.page.select_option("#show", "wrong")
        link = page.page.evaluate("location.hash")
    with opened(browser, page_file, link) as page:
        assert number_shown(page) == sum(row["exact"] < 1 for row in rows)
    with opened(browser, page_file, "#answers&q=nobody") as page:
        assert page.text("#question h3") == rows[0]["question"]


def test_the_keyboard_moves_through_questions(run: Path, page_file: Path, browser: Browser) -> None:
    """Next, previous, next wrong, to the search and back to the list, and by arrows in it."""
    rows = rows_of(run)
    wrong = next(n for n, row in enumerate(rows) if n > 1 and row["exact"] < 1)
    with opened(browser, page_file, "#answers") as page:
        press = page.page.keyboard.press
        for key, number in (("j", 1), ("j", 2), ("k", 1), ("w", wrong)):
            press(key)
            assert page.text("#question h3") == rows[number]["question"], key
        press("/")
        assert page.page.evaluate("document.activeElement.id") == "search"
        press("Escape")
        for key, number in (("End", len(rows) - 1), ("ArrowUp", len(rows) - 2), ("Home", 0)):
            press(key)
            assert page.text("#question h3") == rows[number]["question"], key
        selected = page.page.locator("[aria-selected=true]")
        assert selected.get_attribute("aria-posinset") == "1"
        active = page.page.locator("#list").get_attribute("aria-activedescendant")
        assert active == selected.get_attribute("id")


def test_only_rows_in_sight_are_made(page_file: Path, browser: Browser) -> None:
    """Of hundreds of questions a few dozen are in the document, also after scrolling."""
    with opened(browser, page_file, "#answers") as page:
        page.page.evaluate("document.querySelector('#list').scrollTop = 9000")
        page.page.wait_for_selector("#row-155")
        assert 5 < page.count(".row") < 60


def test_two_runs_are_told_apart(compared_file: Path, run: Path, browser: Browser) -> None:
    """What one got right and the other wrong, both answers marked."""
    ours, theirs = rows_of(run), rows_of(run.parent / "theirs")
    pairs = list(zip(ours, theirs, strict=True))
    won = [a["id"] for a, b in pairs if a["exact"] == 1 and b["exact"] == 0]
    with opened(browser, compared_file, "#answers") as page:
        page.page.select_option("#show", "won")
        assert number_shown(page) == len(won) > 0
        page.page.select_option("#show", "lost")
        assert number_shown(page) == sum(a["exact"] == 0 and b["exact"] == 1 for a, b in pairs)
        apart = next(a["id"] for a, b in pairs if a["start"] != b["start"] and b["start"] >= 0 <= a["start"])  # fmt: skip # noqa: E501
    with opened(browser, compared_file, f"#answers&q={apart}") as page:
        assert page.count("#context mark.first") > 0
        assert page.count("#context mark.second") > 0
        page.page.select_option("#run-a", label="theirs")
        page.page.select_option("#run-b", label="ours")
        assert page.count("#context mark.first") > 0
        assert page.faults == []


def marked(page: Opened, kind: str) -> str:
    """The text of the context that is marked so."""
    script = """(kind) => [...document.querySelectorAll(`#context mark.${kind}`)].map((mark) =>
        [...mark.childNodes].filter((node) => node.nodeType === 3).map((n) => n.data).join(""))
        .join("")"""
    return str(page.page.evaluate(script, kind))


@pytest.mark.parametrize("before", ["", "😀𝒳 ", "שלום عليكم ", "東京で ", "\x00\x07"])
def test_marks_hold_the_characters_they_name(before: str, tmp_path: Path, browser: Browser) -> None:
    """Characters of every plane and direction count once, as in Python."""
    examples = make_examples(10, text=lambda text: before + text)
    run = write_run(tmp_path / "run", examples, num_steps=0, has_null=False)
    rows = rows_of(run)
    with opened(browser, write_page(tmp_path, run), "#answers") as page:
        for row in rows:
            table = str.maketrans({0: "\u2400", 7: "\u2407"})
            answer = row["context"][row["start"] : row["end"]].translate(table)
            assert marked(page, "first") == answer
            if row["gold_starts"]:
                gold = row["context"][row["gold_starts"][0] : row["gold_ends"][0]]
                assert marked(page, "gold") == gold.translate(table)
            page.page.keyboard.press("j")


def test_windows_and_candidates_are_shown(run: Path, page_file: Path, browser: Browser) -> None:
    """A window dims what it does not hold; a candidate is marked where it stands."""
    row = rows_of(run)[0]
    with opened(browser, page_file, f"#answers&q={row['id']}") as page:
        buttons = page.page.locator(".windows button")
        assert buttons.count() == len(row["window_starts"])
        buttons.nth(1).click()
        dimmed = page.page.evaluate(
            "[...document.querySelectorAll('#context .outside')].map((e) => [...e.querySelectorAll"
            "('.unseen')].reduce((n, u) => n - u.textContent.length, e.textContent.length))"
        )
        assert sum(dimmed) == row["window_starts"][1]
        candidates = page.page.locator(".candidates tbody tr")
        assert candidates.count() == len(row["n_best_starts"])
        place = next(k for k, start in enumerate(row["n_best_starts"]) if start >= 0)
        candidates.nth(place).locator("button").click()
        start, end = row["n_best_starts"][place], row["n_best_ends"][place]
        assert marked(page, "candidate") == row["context"][start:end]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_markup_in_data_is_shown_as_text(text: str, tmp_path: Path, browser: Browser) -> None:
    """In ids, questions, contexts, answers, sources, rejections, settings: nothing of it runs."""
    examples = make_examples(25, text=lambda given: f"{text} {given}")
    rejection = {"source": text, "record": 3, "id": text, "reason": text, "detail": text}
    run = write_run(tmp_path / "run", examples, rejections=[rejection])
    settings = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(settings + f"# {text!r}\n", encoding="utf-8")
    with opened(browser, write_page(tmp_path, run)) as page:
        page.scroll_through()
        assert page.count("script") == 5
        page.page.evaluate("location.hash = 'answers'")
        page.page.wait_for_selector("#answers[data-ready]")
        row = rows_of(run)[0]
        pictures = {n: 0x2400 + n for n in (*range(9), *range(11, 13), *range(14, 32))}
        pictures[127] = 0x2421
        assert page.text("#question h3") == row["question"].translate(pictures)
        shown = page.page.evaluate(
            "[...document.querySelectorAll('#context .unseen')].forEach((e) => e.remove()) || "
            "document.querySelector('#context').textContent"
        )
        assert shown == row["context"].translate(pictures)
        page.page.keyboard.press("j")
        assert page.count(".hint") == 1
        assert page.page.evaluate("window.hacked") is None
        assert page.count("#report img, #answers img, #question svg, #report b, #answers b") == 0
        assert page.faults == []


def test_texts_of_a_megabyte_leave_the_page_whole(tmp_path: Path, browser: Browser) -> None:
    """A part of each is shown, with where it stands; the page stays small."""
    long = "many words " * 100_000
    examples = make_examples(10, text=lambda text: f"{long}{text}")
    run = write_run(tmp_path / "run", examples, num_steps=0)
    file = write_page(tmp_path, run)
    assert file.stat().st_size < 5_000_000
    with opened(browser, file, "#answers") as page:
        assert number_shown(page) > 0
        assert "characters after" in page.text("#context")
        assert "characters more" in page.text("#question h3")
        page.page.keyboard.press("j")
        assert page.faults == []


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("page_file", ""),
        ("page_file", "#answers&show=wrong"),
        ("compared_file", "#answers"),
        ("sweep_file", ""),
    ],
)
def test_axe_finds_no_serious_fault(
    name: str,
    place: str,
    dark: bool,
    width: int,
    request: pytest.FixtureRequest,
    browser: Browser,
) -> None:
    """Contrast, names, roles, keyboard: wide and narrow, light and dark."""
    with opened(browser, request.getfixturevalue(name), place, dark=dark, width=width) as page:
        if not place:
            page.scroll_through()
        found = Axe().run(page.page).response["violations"]
        serious = [
            f"{fault['id']}: {node['html'][:150]}"
            for fault in found
            if fault["impact"] in ("serious", "critical")
            for node in fault["nodes"][:3]
        ]
        assert serious == []


@pytest.mark.parametrize("place", ["", "#answers"])
def test_nothing_is_wider_than_a_phone(place: str, page_file: Path, browser: Browser) -> None:
    """Tables and charts scroll within themselves, the page does not."""
    with opened(browser, page_file, place, width=360) as page:
        if not place:
            page.scroll_through()
        assert page.page.evaluate("document.documentElement.scrollWidth") <= 360


def test_one_question_has_a_page(tmp_path: Path, browser: Browser) -> None:
    """With an explorer of one row."""
    run = write_run(tmp_path / "run", make_examples(1), num_steps=0, has_null=False)
    with opened(browser, write_page(tmp_path, run), "#answers") as page:
        assert number_shown(page) == 1
        page.page.keyboard.press("j")
        page.page.keyboard.press("w")
        assert page.faults == []


def test_many_questions_pass_through_the_explorer(tmp_path: Path, browser: Browser) -> None:
    """20,000 are filtered, ordered and searched; the page stays below 15 MB."""
    examples = make_examples(20_000, words=120)
    run = write_run(tmp_path / "run", examples)
    file = write_page(tmp_path, run)
    assert file.stat().st_size < 15_000_000
    rows = rows_of(run)
    assert len(rows) == len(examples)
    with opened(browser, file, "#answers") as page:
        assert number_shown(page) == len(rows)
        page.page.select_option("#order", "sure")
        confident = max(rows, key=lambda row: row["probability"])
        assert f"{round(100 * confident['probability'])} %" in page.text("#row-0 .p")
        page.page.fill("#search", "number 19999?")
        page.wait("document.querySelector('#count').textContent.startsWith('1 ')")
        assert page.faults == []


def test_ids_of_the_explorer_are_distinct(run: Path) -> None:
    """A guard of the tests here: each question is there once."""
    ids = pa.array([row["id"] for row in rows_of(run)])
    assert len(ids.unique()) == NUM_QUESTIONS
