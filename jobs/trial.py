"""What a trial's processes do: one leg after another, each by way of Ray Tune.

A trial of one worker trains in the process that Ray Tune gave it, which goes on to the next trial
when it is done; one of several workers is a Ray Train run of its own.
"""

import contextlib
import gc
import json
import logging
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from ray import tune
from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from jobs.cluster import root_cause
from jobs.configuration import FeatureSettings, SweepConfig, with_value
from jobs.leg import (
    HALVED,
    LegTask,
    Results,
    read_halved,
    scored_windows,
    stored_split,
    tokens_seen,
    train_leg,
)
from jobs.node_copies import model_on_this_node
from jobs.ranks import one_rank, ranks_of_ray_train
from jobs.shard_scoring import start_decoder
from jobs.space import with_point
from jobs.training_worker import TrainTask, set_threads, worker_resources
from qa_core.checkpoints import CHECKPOINTS, find_checkpoints, remove_checkpoint
from qa_core.errors import QAError, StorageError
from qa_core.fast_cpu import keep_freed_memory
from qa_core.halving import Leg
from qa_core.storage import join, write_bytes

TRIALS = "trials"
# Of a leg's result what Ray Tune is told, which would take nested values apart.
TOLD = ("done", "num_tokens", "loss", "score", "spare_tokens")
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


def trial_folder(run: str, number: int) -> str:
    """Folder of a trial of a sweep."""
    return join(run, TRIALS, f"{number:04d}")


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
        self.decoder = start_decoder()  # while the first leg trains
        self.results = run_leg(sweep, config["leg"], self.decoder)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take another leg."""
        self.results.close()
        self.results = run_leg(self.sweep, new_config["leg"], self.decoder)
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


def run_leg(sweep: SweepTask, given: dict[str, Any], decoder: Any) -> Results:
    """Progress of a leg now and then, and last its result, with `done`.

    Where memory does not suffice, the trial is begun again with half the batch, accumulated twice
    as often, until it does.
    """
    folder = trial_folder(sweep.run, given["trial"])
    while True:
        task = leg_task(sweep, given, folder, decoder)
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


def leg_task(sweep: SweepTask, given: dict[str, Any], folder: str, decoder: Any) -> LegTask:
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
        decoder,
    )


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
