"""A leg of a trial on one rank: train up to a number of real tokens, keep, score.

Checkpoints are in the trial's folder, and training begins at the last one. `legs/TOKENS.json` is
the result of a leg: a leg that has one is not trained again.
"""

import json
import time
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any

from jobs.configuration import FeatureSettings
from jobs.prepared import Prepared, load_prepared
from jobs.ranks import Ranks
from jobs.shard_scoring import METRICS, SCORING, score_on_ranks, summarize
from jobs.training_worker import STOP, Keeper, TrainTask, last_checkpoint, make_trainer
from qa_core.analysis import score_errors
from qa_core.checkpoints import (
    CHECKPOINTS,
    find_checkpoints,
    read_history,
    remove_checkpoint,
    step_name,
)
from qa_core.storage import is_file, join, read_bytes, write_bytes
from qa_core.training import StepDone, Trainer

Results = Generator[dict[str, Any], None, None]

LEGS = "legs"
HALVED = "halved.json"  # how often a trial's batch was halved, and the tokens of earlier attempts
SECONDS_BETWEEN_RESULTS = 2.0  # of a leg in training


@dataclass(frozen=True)
class LegTask:
    """A leg as its processes are told of it."""

    trial: TrainTask  # `run` is the trial's folder
    metric: str  # the figure that is the score
    until_tokens: int
    is_final: bool
    sizes: tuple[FeatureSettings, ...]
    part: float
    deadline: float | None
    decoder: Any  # of `start_decoder`


@dataclass
class Course:
    """Where a leg stands."""

    num_tokens: int  # real ones of the trial, from its beginning
    last: StepDone | None = None  # the step made last, of this attempt
    is_cut: bool = False  # the sweep's time was over before the leg's goal


def train_leg(task: LegTask, ranks: Ranks) -> Results:
    """Train a leg on this rank; progress now and then, and last its result, with `done`."""
    run = task.trial.run
    known = ranks.from_first(read_result(run, task.until_tokens))
    if known is not None:
        yield known
        return
    started = time.monotonic()
    trainer = make_trainer(task.trial, last_checkpoint(run, ranks), ranks)
    course = Course(ranks.from_first(tokens_seen(run, trainer.step)))
    keeper = None
    if ranks.process.rank == 0:
        keeper = Keeper(task.trial, trainer, scored=set(), progress=None)
    try:
        yield from train_on(task, trainer, keeper, course)
        if keeper and course.last:
            keeper.save_now(course.last)
        if keeper and keeper.failure:
            raise keeper.failure
        trained = time.monotonic()
        figures = score_leg(task, trainer, ranks, is_cut=course.is_cut)
        if keeper:
            keep_score(run, trainer, course, figures["metrics"])
            keeper.trackers.log_scores()
    finally:
        if keeper:
            keeper.close()
    halved = read_halved(run)
    result = {
        "done": True,
        "num_tokens": course.num_tokens,
        "is_cut": course.is_cut,
        "step": trainer.step,
        "train_seconds": trained - started,
        "score_seconds": time.monotonic() - trained,
        "times_halved": halved["times"],
        "spare_tokens": halved["num_tokens"],
        **figures,
    }
    if keeper:
        file = result_file(run, task.until_tokens)
        if course.is_cut:
            file = join(run, LEGS, f"cut-{course.num_tokens:015d}.json")
        write_bytes(file, json.dumps(result).encode())
        keep_last_checkpoint(run)
    yield result


def train_on(task: LegTask, trainer: Trainer, keeper: Keeper | None, course: Course) -> Results:
    """Train up to the leg's goal, or to where time is over; progress now and then."""
    told = time.monotonic()
    if not task.is_final and course.num_tokens >= task.until_tokens:
        return
    for done in trainer.run():
        course.last = done
        course.num_tokens += done.num_tokens
        course.is_cut = bool(done.signal & STOP) and done.step < done.num_steps
        if keeper:
            keeper.after(done)
            if task.deadline is not None and time.time() > task.deadline:
                trainer.signal |= STOP
        if course.is_cut or (not task.is_final and course.num_tokens >= task.until_tokens):
            return
        if time.monotonic() - told >= SECONDS_BETWEEN_RESULTS:
            told = time.monotonic()
            yield {"done": False, "num_tokens": course.num_tokens, "loss": done.loss}


def score_leg(task: LegTask, trainer: Trainer, ranks: Ranks, *, is_cut: bool) -> dict[str, Any]:
    """The figures of the trial's own windows; `sizes`: those of other windows, a row each.

    At a rung a part of the dev questions is scored, at the end and where a leg was cut all.
    """
    trial = task.trial
    is_part = not task.is_final and not is_cut and task.part < 1
    own = replace(trial.dev, part=task.part) if is_part else trial.dev
    figures, errors = score_windows(task, trainer, own, ranks)
    others = [size for size in task.sizes if not is_cut and size != own.settings]
    rows = [size_row(own.settings, figures, errors)]
    for size in others:
        prepared = stored_split(own.folder, own.store.tokenizer, size)
        rows.append(size_row(size, *score_windows(task, trainer, prepared, ranks)))
    return {
        "score": figures[task.metric],
        "metrics": figures,
        "errors": errors,
        "part": own.part,
        "sizes": rows if task.is_final and not is_cut else [],
    }


def score_windows(
    task: LegTask, trainer: Trainer, dev: Prepared, ranks: Ranks
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The figures of metrics.json with windows of one size, and their standard errors."""
    config = task.trial.config
    scored = score_on_ranks(
        trainer.model,
        dev,
        ranks=ranks,
        decoder=task.decoder,
        rules=trainer.rules,
        out_folder=scoring_folder(task.trial.run, trainer.step, dev.settings, part=dev.part),
        decoding=config.decoding,
        language=config.scoring.language,
    )
    figures = summarize(scored, dev, None)
    return figures, score_errors(scored.scores, null_threshold=figures.get("null_threshold"))


def keep_score(run: str, trainer: Trainer, course: Course, figures: dict[str, Any]) -> None:
    """Write the figures where trackers look for the scores of a training."""
    epoch = course.last.epoch if course.last else float(trainer.settings.num_epochs)
    place = {"step": trainer.step, "epoch": epoch}
    file = join(run, SCORING, step_name(trainer.step), METRICS)
    write_bytes(file, json.dumps({**place, **figures}).encode())


def stored_split(folder: str, model: str, features: FeatureSettings) -> Prepared:
    """Tokens that the sweep has prepared, their windows counted."""
    prepared = load_prepared(folder, model, features)
    assert prepared is not None, f"windows of {features} were not counted in {folder}"
    return prepared


def scored_windows(features: FeatureSettings) -> FeatureSettings:
    """Windows as the dev data has them: all of them, labelled with the first answer."""
    return FeatureSettings(max_length=features.max_length, doc_stride=features.doc_stride)


def scoring_folder(run: str, step: int, size: FeatureSettings, *, part: float = 1.0) -> str:
    """Where answers and scores of a checkpoint with windows of one size are."""
    name = f"{size.max_length}-{size.doc_stride}" + ("-part" if part < 1 else "")
    return join(run, SCORING, step_name(step), name)


def size_row(
    size: FeatureSettings, figures: dict[str, Any], errors: dict[str, Any]
) -> dict[str, Any]:
    """Scores of windows of one size, and their standard errors."""
    place = {"max_length": size.max_length, "doc_stride": size.doc_stride}
    return {**place, "f1": figures["f1"], "exact": figures["exact"], **errors}


def result_file(folder: str, until_tokens: int) -> str:
    """The file with the result of the leg that ends at so many tokens."""
    return join(folder, LEGS, f"{until_tokens:015d}.json")


def read_result(run: str, until_tokens: int) -> dict[str, Any] | None:
    """The result of a leg, where it has one."""
    file = result_file(run, until_tokens)
    return json.loads(read_bytes(file)) if is_file(file) else None


def tokens_seen(run: str, step: int) -> int:
    """Real tokens that a trial has trained up to a step."""
    return sum(row["num_tokens"] for row in read_history(run, step))


def keep_last_checkpoint(run: str) -> None:
    """Remove all checkpoints but the last; a trial goes on from there."""
    root = join(run, CHECKPOINTS)
    for facts in find_checkpoints(root)[0][:-1]:
        remove_checkpoint(root, facts.name)


def read_halved(folder: str) -> dict[str, int]:
    """How often the trial's batch was halved (`times`), tokens trained before (`num_tokens`)."""
    file = join(folder, HALVED)
    found: dict[str, int] = {"times": 0, "num_tokens": 0}
    return json.loads(read_bytes(file)) if is_file(file) else found
