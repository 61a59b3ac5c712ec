"""What a trial's processes do: train one leg, up to a number of real tokens, and score it.

A trial of one worker trains in the process that Ray Tune gave it, which goes on to the next trial
when it is done; one of several workers is a Ray Train run of its own. Both keep checkpoints in the
trial's folder and begin at the last one. `legs/TOKENS.json` is the result of a leg: a leg that has
one is not trained again.
"""

import contextlib
import gc
import json
import logging
import time
from collections.abc import Generator
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from ray import tune
from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from jobs.cluster import root_cause
from jobs.configuration import FeatureSettings, SweepConfig, with_value
from jobs.node_copies import model_on_this_node
from jobs.prepared import Prepared, load_prepared
from jobs.ranks import Ranks, one_rank, ranks_of_ray_train
from jobs.shard_scoring import METRICS, SCORING, score_on_ranks, summarize
from jobs.space import with_point
from jobs.training_worker import (
    STOP,
    Keeper,
    TrainTask,
    last_checkpoint,
    make_trainer,
    set_threads,
    worker_resources,
)
from qa_core.checkpoints import (
    CHECKPOINTS,
    find_checkpoints,
    read_history,
    remove_checkpoint,
    step_name,
)
from qa_core.errors import QAError, StorageError
from qa_core.fast_cpu import keep_freed_memory
from qa_core.halving import Leg
from qa_core.storage import is_file, join, read_bytes, write_bytes
from qa_core.training import StepDone, Trainer

Results = Generator[dict[str, Any], None, None]

TRIALS, LEGS = "trials", "legs"
HALVED = "halved.json"  # how often a trial's batch was halved, and the tokens of earlier attempts
# Of a leg's result what Ray Tune is told, which would take nested values apart.
TOLD = ("done", "num_tokens", "loss", "score", "spare_tokens")
SECONDS_BETWEEN_RESULTS = 2.0  # of a leg in training
MEMORY_WORDS = ("out of memory", "can't allocate memory", "not enough memory")


@dataclass(frozen=True)
class SweepTask:
    """What all trials of a sweep are told."""

    config: SweepConfig
    run: str  # folder or URI of the sweep
    use_gpu: bool
    sizes: tuple[FeatureSettings, ...]  # windows that complete trials are scored with, too
    part: float  # of the dev questions, scored at a rung
    deadline: float | None  # seconds of the system's clock
    is_nested: bool  # each leg is a Ray Train run of its own


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


def trial_folder(run: str, number: int) -> str:
    """Folder of a trial of a sweep."""
    return join(run, TRIALS, f"{number:04d}")


def result_file(folder: str, until_tokens: int) -> str:
    """The file with the result of the leg that ends at so many tokens."""
    return join(folder, LEGS, f"{until_tokens:015d}.json")


def trial_config(config: SweepConfig, point: dict[str, Any], seed: int) -> SweepConfig:
    """The configuration of a trial: the sweep's with the values of the point, another seed."""
    config = with_point(config, point)
    return with_value(config, "train.seed", config.train.seed + seed)


class LegTrainable(tune.Trainable):  # type: ignore[misc]  # Ray has no types here
    """A leg as a trial of Ray Tune; its process is used again for the next one."""

    def setup(self, config: dict[str, Any], sweep: SweepTask | None = None) -> None:
        """Called once a process."""
        assert sweep is not None  # given by tune.with_parameters
        self.sweep = sweep
        logging.getLogger("ray.train").setLevel(logging.WARNING)
        if not sweep.is_nested:
            scaling = sweep.config.scaling
            torch.set_num_threads(scaling.threads_per_worker or scaling.cpus_per_worker)
            keep_freed_memory()
        self.results = run_leg(sweep, config["leg"])

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take another leg."""
        self.results.close()
        self.results = run_leg(self.sweep, new_config["leg"])
        return True

    def step(self) -> dict[str, Any]:
        """Train for a while; the last result has `done`."""
        try:
            result = next(self.results)
            return {name: result[name] for name in TOLD if name in result}
        except QAError as error:
            cause = str(error)
        except Exception as error:
            logging.getLogger(__name__).exception("a trial failed")
            cause = f"{type(error).__name__}: {root_cause(error)}"
        # Ray Tune asks every result for the figure that searchers look at.
        return {"done": True, "failure": cause, "num_tokens": 0}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: checkpoints are in the trial's folder."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing; see `save_checkpoint`."""

    def cleanup(self) -> None:
        """Stop what is in training."""
        self.results.close()


def run_leg(sweep: SweepTask, given: dict[str, Any]) -> Results:
    """Progress of a leg now and then, and last its result, with `done`.

    Where memory does not suffice, the trial is begun again with half the batch, accumulated twice
    as often, until it does.
    """
    folder = trial_folder(sweep.run, given["trial"])
    while True:
        task = leg_task(sweep, given, folder)
        try:
            if sweep.is_nested:
                yield nested_leg(task)
            else:
                yield from train_leg(task, one_rank(use_gpu=sweep.use_gpu))
        except Exception as error:
            if not is_out_of_memory(error) or not begin_again_with_half(task, folder):
                raise
            print(f"trial {given['trial']}: out of memory; again with half the batch", flush=True)
        else:
            return
        del task
        free_memory()


def leg_task(sweep: SweepTask, given: dict[str, Any], folder: str) -> LegTask:
    """The leg with its data, as it is on storage, and its batch, as often halved as needed."""
    config = trial_config(sweep.config, given["point"], given["seed"])
    train = config.train
    for _ in range(read_halved(folder)["times"]):
        tokens = train.tokens_per_batch
        train = replace(
            train,
            per_worker_batch_size=max(1, train.per_worker_batch_size // 2),
            tokens_per_batch=None if tokens is None else max(1, tokens // 2),
            gradient_accumulation_steps=train.gradient_accumulation_steps * 2,
        )
    name = f"{config.run_name}-{given['trial']:04d}"  # by which trackers know it
    config = replace(config, train=train, run_name=name)
    model = given["model"]
    if not sweep.is_nested:  # else each worker finds it, on a node of its own
        model = model_on_this_node(model, given["model_digest"])
    return LegTask(
        TrainTask(
            config,
            model,
            stored_split(given["train"], model, config.features),
            stored_split(given["dev"], model, scored_windows(config.features)),
            folder,
            sweep.use_gpu,
            is_terminal=False,
        ),
        config.tune.metric,
        given["until_tokens"],
        given["is_final"],
        sweep.sizes if given["is_final"] else (),
        sweep.part,
        sweep.deadline,
    )


def stored_split(folder: str, model: str, features: FeatureSettings) -> Prepared:
    """Tokens that the sweep has prepared, their windows counted."""
    prepared = load_prepared(folder, model, features)
    assert prepared is not None, f"windows of {features} were not counted in {folder}"
    return prepared


def scored_windows(features: FeatureSettings) -> FeatureSettings:
    """Windows as the dev data has them: all of them, labelled with the first answer."""
    return FeatureSettings(max_length=features.max_length, doc_stride=features.doc_stride)


def nested_leg(task: LegTask) -> dict[str, Any]:
    """The result of a leg that is a Ray Train run."""
    scaling = task.trial.config.scaling
    trainer = TorchTrainer(
        nested_worker,
        train_loop_config={"task": task},
        scaling_config=ScalingConfig(
            num_workers=scaling.num_workers,
            use_gpu=task.trial.use_gpu,
            resources_per_worker=worker_resources(task.trial.config, use_gpu=task.trial.use_gpu),
        ),
        run_config=RunConfig(
            name="ray",
            storage_path=task.trial.run,
            failure_config=FailureConfig(
                max_failures=scaling.max_failures, controller_failure_limit=3
            ),
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
    )
    found: dict[str, Any] = trainer.fit().return_value
    if "failure" in found:
        raise found["failure"]
    return found


def nested_worker(arguments: dict[str, Any]) -> dict[str, Any]:
    """A leg on one of the workers of a Ray Train run; the leg's result, or its `failure`."""
    task: LegTask = arguments["task"]
    logging.getLogger("ray.train").setLevel(logging.WARNING)
    set_threads(task.trial.config.scaling.threads_per_worker)
    keep_freed_memory()
    try:
        *_, result = train_leg(task, ranks_of_ray_train(use_gpu=task.trial.use_gpu))
    except StorageError:  # of this rank alone
        raise
    except QAError as error:
        return {"failure": error}
    return result


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
    figures = score_windows(task, trainer, own, ranks)
    others = [size for size in task.sizes if not is_cut and size != own.settings]
    rows = [size_row(own.settings, figures)]
    for size in others:
        prepared = stored_split(own.folder, own.store.tokenizer, size)
        rows.append(size_row(size, score_windows(task, trainer, prepared, ranks)))
    return {
        "score": figures[task.metric],
        "metrics": figures,
        "part": own.part,
        "sizes": rows if task.is_final and not is_cut else [],
    }


def score_windows(task: LegTask, trainer: Trainer, dev: Prepared, ranks: Ranks) -> dict[str, Any]:
    """The figures of metrics.json with windows of one size."""
    config = task.trial.config
    scored = score_on_ranks(
        trainer.model,
        dev,
        ranks=ranks,
        rules=trainer.rules,
        out_folder=scoring_folder(task.trial.run, trainer.step, dev.settings, part=dev.part),
        decoding=config.decoding,
        language=config.scoring.language,
    )
    return summarize(scored, dev, None)


def keep_score(run: str, trainer: Trainer, course: Course, figures: dict[str, Any]) -> None:
    """Write the figures where trackers look for the scores of a training."""
    epoch = course.last.epoch if course.last else float(trainer.settings.num_epochs)
    place = {"step": trainer.step, "epoch": epoch}
    file = join(run, SCORING, step_name(trainer.step), METRICS)
    write_bytes(file, json.dumps({**place, **figures}).encode())


def scoring_folder(run: str, step: int, size: FeatureSettings, *, part: float = 1.0) -> str:
    """Where answers and scores of a checkpoint with windows of one size are."""
    name = f"{size.max_length}-{size.doc_stride}" + ("-part" if part < 1 else "")
    return join(run, SCORING, step_name(step), name)


def size_row(size: FeatureSettings, figures: dict[str, Any]) -> dict[str, Any]:
    """Scores of windows of one size."""
    place = {"max_length": size.max_length, "doc_stride": size.doc_stride}
    return {**place, "f1": figures["f1"], "exact": figures["exact"]}


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


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory did not suffice."""
    cause = root_cause(error)
    is_known = isinstance(cause, MemoryError | torch.OutOfMemoryError)
    return is_known or any(words in str(cause).lower() for words in MEMORY_WORDS)


def begin_again_with_half(task: LegTask, folder: str) -> bool:
    """Note that the batch is halved, and forget what was trained; False where it is 1 already.

    Checkpoints of another batch plan cannot be continued.
    """
    train = task.trial.config.train
    longest = task.trial.train.longest
    size, least = train.per_worker_batch_size, 1
    if train.tokens_per_batch:
        size, least = train.tokens_per_batch, longest
    if size // 2 < least:
        return False
    halved = read_halved(folder)
    whole, _ = find_checkpoints(join(folder, CHECKPOINTS))
    trained = tokens_seen(folder, whole[-1].step) if whole else 0
    for facts in whole:
        remove_checkpoint(join(folder, CHECKPOINTS), facts.name)
    halved = {"times": halved["times"] + 1, "num_tokens": halved["num_tokens"] + trained}
    write_bytes(join(folder, HALVED), json.dumps(halved).encode())
    return True


def free_memory() -> None:
    """Give back what a failed attempt holds."""
    gc.collect()
    with contextlib.suppress(RuntimeError):
        torch.cuda.empty_cache()


def describe_leg(
    leg: Leg, point: dict[str, Any], seed: int, inputs: dict[str, str]
) -> dict[str, Any]:
    """A leg as Ray Tune carries it to its process; `inputs` of `SweepInputs.describe`."""
    return {**asdict(leg), "point": point, "seed": seed, **inputs}
