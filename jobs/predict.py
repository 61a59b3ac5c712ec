"""Answering: one question about one text, typed on the command line.

python -m jobs.predict --ask "When was the bridge opened?" --context bridge.txt
"""

import sys
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text
from transformers.utils.logging import disable_progress_bar

from jobs.cluster import console, run_job
from jobs.configuration import PredictConfig, parse_config
from jobs.models import local_model, resolve_model
from qa_core.answering import Answerer
from qa_core.errors import DataError
from qa_core.storage import read_bytes


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the best answers, with their probabilities and characters."""
    config = parse_config(PredictConfig, arguments)
    context = read_context(config.context)
    disable_progress_bar()  # of the weights, which load in a blink
    answerer = Answerer.from_pretrained(local_model(resolve_model(config.model)))
    found = answerer(question=config.ask, context=context, top_k=max(2, config.top_k))
    table = Table(title=Text(config.ask), title_justify="left")  # Text: no markup is read
    for name in ("answer", "probability", "characters"):
        table.add_column(name, justify="left" if name == "answer" else "right")
    for answer in found[: config.top_k]:
        is_null = answer["start"] < 0
        characters = "" if is_null else f"{answer['start']}-{answer['end']}"
        text = "(no answer in the text)" if is_null else answer["answer"]
        table.add_row(Text(text), f"{answer['score']:.3f}", characters)
    console.print(table)


def read_context(path: str) -> str:
    """The text of a file or, for "-", of standard input."""
    content = sys.stdin.buffer.read() if path == "-" else read_bytes(path)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 at byte {error.start}", path, "a UTF-8 text file") from error


if __name__ == "__main__":
    run_job(main)
