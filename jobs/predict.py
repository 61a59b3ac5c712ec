"""Answering: one question about one text, or all questions of a data set → files of answers.

    python -m jobs.predict --ask "When was the bridge opened?" --context bridge.txt
    python -m jobs.predict --data.questions questions.jsonl --run_name answers

Of a data set each piece becomes a file below storage_path/run_name/answers; the same command
again answers what is missing.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict

from rich.table import Table
from rich.text import Text
from transformers.utils.logging import disable_progress_bar

from jobs.artefacts import begin_run, check_run, write_rejections
from jobs.bulk_answers import (
    AnswerCounts,
    AnswerFiles,
    AnswerRules,
    answer_pieces,
    count_answers,
    find_answered,
)
from jobs.cluster import (
    absolute_storage,
    console,
    count_scorers,
    run_folder,
    run_job,
    wants_gpu,
)
from jobs.configuration import DecodingSettings, PredictConfig, parse_config
from jobs.model_settings import (
    decoding_settings,
    model_limit,
    stored_settings,
    threshold_setting,
    threshold_words,
    window_settings,
)
from jobs.models import check_model, model_digest, model_here, resolve_model
from jobs.nodes import join_cluster
from jobs.prepare import find_split, input_digest, prepare_split
from jobs.prepared import Prepared, check_not_empty
from qa_core.answering import Answerer
from qa_core.errors import ConfigError, DataError
from qa_core.storage import check_writable, join, read_bytes

QUESTIONS = "questions"
# Settings that the Answerer takes in place of those stored with a model.
STORED = ("max_length", "doc_stride", "null_threshold", *asdict(DecodingSettings()))


def main(arguments: Sequence[str] | None = None) -> None:
    """Answer what is asked, in whichever of the two ways."""
    config = parse_config(PredictConfig, arguments)
    check_asked(config)
    if config.ask is None:
        answer_data(config)
    else:
        answer_typed(config)


def check_asked(config: PredictConfig) -> None:
    """Raise `ConfigError` unless either ask and context or data.questions are given."""
    typed = [name for name in ("ask", "context") if getattr(config, name) is not None]
    has_data = config.data.questions is not None and config.data.questions != []
    if has_data != bool(typed) and len(typed) != 1:
        return
    given = [*typed, *(["data.questions"] if has_data else [])]
    raise ConfigError(
        f"{' and '.join(given) or 'nothing'} given",
        where="ask, context, data.questions",
        expected="either --ask with --context, or --data.questions",
        remedy='ask one question with --ask "…" --context FILE, many with --data.questions FILE',
    )


def answer_typed(config: PredictConfig) -> None:
    """Print the best answers to one question, with their probabilities and characters."""
    assert config.ask is not None
    assert config.context is not None
    context = read_context(config.context)
    disable_progress_bar()  # of the weights, which load in a blink
    with model_here(resolve_model(config.model)) as folder:
        answerer = Answerer.from_pretrained(folder)
    configured = {name: getattr(config, name) for name in STORED}
    threshold = threshold_words(*threshold_setting(config, answerer.settings))
    answerer.settings |= {name: v for name, v in configured.items() if v is not None}
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
    console.print(threshold, markup=False)


def read_context(path: str) -> str:
    """The text of a file or, for "-", of standard input."""
    content = sys.stdin.buffer.read() if path == "-" else read_bytes(path)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 at byte {error.start}", path, "a UTF-8 text file") from error


def answer_data(config: PredictConfig) -> None:
    """Answer all questions of data.questions that have no answer in the run's files yet."""
    started = time.monotonic()
    storage_path = absolute_storage(config.storage_path)
    run = run_folder(config.storage_path, config.run_name)
    split = find_split(config.data, QUESTIONS)
    stored = stored_settings(config.model)
    limit = model_limit(config.model)
    features = window_settings(config.max_length, config.doc_stride, stored, limit=limit)
    model = check_model(config.model, features)
    check_writable(run)
    inputs = {QUESTIONS: input_digest(split, model), "model": model_digest(model)}
    check_run(run, config, inputs)
    join_cluster(storage_path, sources=split.sources, models=[model])
    use_gpu = wants_gpu(config.use_gpu)
    count_scorers(use_gpu=use_gpu)  # before any work
    prepared = prepare_split(split, model, features, storage_path)
    check_not_empty(prepared, f"data.{QUESTIONS}")
    begin_run(run, config, inputs)
    write_rejections(run, [prepared])
    threshold, origin = threshold_setting(config, stored)
    console.print(threshold_words(threshold, origin), markup=False)
    rules = AnswerRules(decoding_settings(config, stored), threshold, config.top_k)
    files = AnswerFiles(join(run, "answers"), config.format)
    counts = answer_missing(model, prepared, files=files, rules=rules, use_gpu=use_gpu)
    show_counts(counts, prepared, run=run, folder=files.folder)
    console.print(f"Done in {time.monotonic() - started:.0f} s.", markup=False)


def answer_missing(
    model: str, prepared: Prepared, *, files: AnswerFiles, rules: AnswerRules, use_gpu: bool
) -> AnswerCounts:
    """Answer the pieces whose file is missing; the counts of all."""
    found = find_answered(prepared, files)
    if found:
        console.print(f"Answered before: {len(found)} of {len(prepared.pieces)} files.")
    done = set(found)
    missing = [piece for piece in prepared.pieces if piece not in done]
    counts = answer_pieces(model, prepared, missing, files=files, rules=rules, use_gpu=use_gpu)
    return counts.merge(count_answers(found, files))


def show_counts(counts: AnswerCounts, prepared: Prepared, *, run: str, folder: str) -> None:
    """How many questions were answered, and where the answers are."""
    lines = [
        f"{counts.num_questions} questions, {counts.num_unanswered} of them without an answer: "
        f"{folder} ({len(prepared.pieces)} files)"
    ]
    if prepared.num_rejected:
        listed_in = join(run, "rejections.jsonl")
        lines += [f"{prepared.num_rejected} records could not be used: {listed_in}"]
    console.print("\n".join(lines), markup=False)


if __name__ == "__main__":
    run_job(main)
