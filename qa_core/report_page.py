"""report: the files of runs → one page a person reads, that needs nothing but itself.

Texts of data reach the page escaped, in the packed data, or not at all; scripts are those whose
hashes the page names, and no request leaves it. Numbers are those of the run's files.
"""

import base64
import gzip
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from qa_core.comparing import compare_answers, pack_answers
from qa_core.page_sections import cards, page_sections
from qa_core.run_files import RunFiles

# Control characters but tab and line ends, as the pictures Unicode has of them: a browser drops or
# replaces them, and with them the count of characters.
PICTURES = {code: 0x2400 + code for code in range(32) if code not in (9, 10, 13)} | {127: 0x2421}
JOBS = {"train": "Training", "tune": "Sweep", "evaluate": "Evaluation"}


def build_page(runs: Sequence[RunFiles]) -> str:
    """The page of a run, or of several beside each other.

    Raises `DataError` where several runs answered other questions, or the same names twice.
    """
    compared = compare_answers(runs)
    answers = pack_answers(compared)
    sections = page_sections(runs, compared)
    charts = {chart.name: chart.figure for section in sections for chart in section.charts}
    script, plotly = _text("report.js"), plotly_script()
    first = runs[0]
    title = f"{JOBS[first.job]} {first.name}" if len(runs) == 1 else f"{len(runs)} runs"
    page: str = _template().render(
        title=title,
        notes=[
            f"{run.name}: {note}" if len(runs) > 1 else note for run in runs for note in run.notes
        ],
        is_going=any(run.metrics is None for run in runs),
        cards=cards(first) if len(runs) == 1 else [],
        sections=sections,
        num_answers=len(compared.table),
        num_questions=compared.num_questions,
        charts=packed(charts),
        answers=packed(answers) if answers else "",
        plotly=packed_text(plotly) if charts else "",
        style=Markup(_text("report.css")),  # the project's own
        script=Markup(script),  # likewise
        script_hashes=[content_hash(script), *([content_hash(plotly)] if charts else [])],
    )
    return page


def visible(value: Any) -> Any:
    """What the template puts out: None as nothing, control characters as their pictures."""
    if value is None:
        return ""
    return value.translate(PICTURES) if type(value) is str else value


def figure_text(value: Any) -> str:
    """A value of a table as people read it; the file's own digits are in its title."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:.3g}"
    return str(value)


def packed(value: Any) -> Markup:
    """A value as JSON, compressed, in letters that HTML leaves alone."""
    return packed_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def packed_text(text: str) -> Markup:
    """A text, compressed, in letters that HTML leaves alone; the same bytes each time."""
    return Markup(base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode())


def content_hash(script: str) -> str:
    """What a Content-Security-Policy calls a script by."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


@cache
def plotly_script() -> str:
    """Plotly's own script."""
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def _text(name: str) -> str:
    return (resources.files("qa_core") / "templates" / name).read_text(encoding="utf-8")


@cache
def _template() -> Any:
    environment = Environment(
        loader=PackageLoader("qa_core"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure_text"] = figure_text
    return environment.get_template("report.html")
