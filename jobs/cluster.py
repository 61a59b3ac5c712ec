"""Connecting to Ray, and whether the cluster has what a configuration asks for."""

import json
import logging
import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ray
import ray.data
from ray.exceptions import RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.console import Console

from jobs.configuration import ScalingSettings
from qa_core.errors import ConfigError, QAError, ResourceError
from qa_core.storage import join

RUN_NAME = re.compile(r"\w[\w.-]*")
# A log has no width of its own; tables need about this many columns.
console = Console(soft_wrap=True, highlight=False, width=None if sys.stdout.isatty() else 110)

_START_TIMEOUT = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
# Set before Ray starts; what a person sets in the environment wins.
_ENVIRONMENT = {
    # A worker's node may first have to be started and set up; Ray's own minute is too short.
    _START_TIMEOUT: "900",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # else every line of a worker shows twice
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # Ray's coming default; silences its notice
    "RAY_USAGE_STATS_ENABLED": "0",
    "TOKENIZERS_PARALLELISM": "false",  # Ray has a process for every core already
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}

# What a person has set of these here, workers need too.
_PASSED_ON = (
    *("HF_HOME", "HF_HUB_OFFLINE", "HF_ENDPOINT"),
    # Keys never travel with a job: its dashboard and logs show what does.
    *("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION"),
    *("MLFLOW_TRACKING_URI", "MLFLOW_ALLOW_FILE_STORE"),
    *("WANDB_MODE", "WANDB_DIR", "WANDB_ENTITY", "WANDB_BASE_URL"),
)


def run_job(main: Callable[[], None]) -> None:
    """Run a job's `main`; an error is the last thing printed and makes the exit status 1 or 2."""
    try:
        main()
    except Exception as error:
        cause = root_cause(error)
        if isinstance(cause, QAError):
            leave(f"error: {cause}", status=2 if isinstance(cause, ConfigError) else 1)
        console.print_exception()
        leave(f"error: {type(cause).__name__}: {cause}", status=1)


def leave(message: str, *, status: int) -> None:
    """Stop what this process started of Ray, then print `message` last and exit."""
    if ray.is_initialized():
        ray.shutdown()
    sys.stdout.flush()
    print(message, file=sys.stderr, flush=True)
    raise SystemExit(status)


def root_cause(error: BaseException) -> BaseException:
    """The project's own error behind what Ray raised for it, or the innermost one.

    An error that a Ray task raised comes back as an error of both kinds, the first one its cause.
    Of several workers that failed, one that failed with an error of the project's own counts.
    """
    failures = [root_cause(e) for e in getattr(error, "worker_failures", {}).values()]
    if failures:
        return next((e for e in failures if isinstance(e, QAError)), failures[0])
    if isinstance(error, QAError) and not isinstance(error, RayTaskError):
        return error
    inner = getattr(error, "cause", None) or error.__cause__
    return root_cause(inner) if isinstance(inner, BaseException) else error


def connect() -> None:
    """Join the cluster of this job or this machine; without one, start Ray here."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if not ray.is_initialized():
        job = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") or "{}")
        given = (job.get("runtime_env") or {}).get("env_vars") or {}  # Ray refuses to set one twice
        names = [name for name in (*_ENVIRONMENT, *_PASSED_ON) if name in os.environ]
        passed = {name: os.environ[name] for name in names if name not in given}
        ray.init(logging_level="warning", runtime_env={"env_vars": passed})
    quiet_data(has_bars=sys.stdout.isatty())


def quiet_data(*, has_bars: bool) -> None:
    """Ray Data's progress bars on a terminal, and none of its notices."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = has_bars
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # "bars are off"


def absolute_storage(storage_path: str) -> str:
    """`storage_path` as every node can name it.

    Raises `ConfigError` for a relative one in a submitted job, whose folder is Ray's scratch.
    """
    if "://" in storage_path:
        return storage_path.rstrip("/")
    path = Path(storage_path).expanduser()
    if not path.is_absolute() and os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR"):
        raise ConfigError(
            f"{storage_path!r} is relative, and a submitted job runs in a scratch folder",
            where="storage_path",
            expected="an absolute path that every node sees, or a URI (s3://, gs://)",
            remedy="give --storage_path",
        )
    return str(path.absolute())


def run_folder(storage_path: str, run_name: str) -> str:
    """The folder or URI of a run; `ConfigError` for a name that is no plain folder name."""
    if not RUN_NAME.fullmatch(run_name) or run_name == "prepared":
        raise ConfigError(
            f"{run_name!r} is no name of a run",
            where="run_name",
            expected="letters, digits, '.', '_' and '-', not beginning with '.' or '-'; "
            'not "prepared", where tokens are',
        )
    return join(absolute_storage(storage_path), run_name)


def absolute_source(source: str) -> str:
    """A local source as an absolute path: workers run in folders of their own."""
    is_local = not source.startswith(("hub:", "embedded:")) and "://" not in source
    return str(Path(source).expanduser().absolute()) if is_local else source


def wants_gpu(configured: bool | None) -> bool:
    """Whether workers get a GPU each: as configured, else if the cluster has any."""
    return available_resources().get("GPU", 0) >= 1 if configured is None else configured


def start_minutes() -> float:
    """How long a training waits for nodes with room for all its workers."""
    return float(os.environ.get(_START_TIMEOUT, _ENVIRONMENT[_START_TIMEOUT])) / 60


def workers_need(scaling: ScalingSettings) -> dict[str, float]:
    """What all workers of a training have at once."""
    gpus = scaling.gpus_per_worker if wants_gpu(scaling.use_gpu) else 0
    each = {"CPU": scaling.cpus_per_worker, "GPU": gpus}
    return {name: amount * scaling.num_workers for name, amount in each.items()}


def check_workers(scaling: ScalingSettings) -> None:
    """Raise `ResourceError` unless the cluster has, or can grow to, all workers at once.

    Where it has yet to grow, a line says for what the training waits.
    """
    total, now = available_resources(), ray.cluster_resources()
    for name, amount in workers_need(scaling).items():
        each = amount / scaling.num_workers
        if amount > total.get(name, 0):
            raise ResourceError(
                f"{scaling.num_workers} workers x {each:g} {name} = {amount:g} {name}, and the "
                f"cluster has {total.get(name, 0):g}",
                where="scaling.num_workers",
                expected="workers that can run all at once",
                remedy="lower scaling.num_workers, or start more nodes",
            )
        if amount > now.get(name, 0):
            console.print(
                f"{scaling.num_workers} workers need {amount:g} {name}, and {now.get(name, 0):g} "
                f"are there: the cluster is asked for more nodes, and training waits for them, "
                f"{start_minutes():.0f} minutes each time"
            )


def count_trials(scaling: ScalingSettings, *, use_gpu: bool) -> int:
    """Trainings of `scaling.num_workers` workers that fit side by side, counted node by node.

    Nodes that the autoscaler could start count by what they have together.
    """
    need = {"CPU": float(scaling.cpus_per_worker)}
    if use_gpu:
        need["GPU"] = scaling.gpus_per_worker

    def fits(resources: Mapping[str, float]) -> int:
        return min(int(resources.get(name, 0) / each + 1e-9) for name, each in need.items())

    nodes: list[Mapping[str, float]] = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    now, later = sum(fits(node) for node in nodes), available_resources()
    has_more = any(later.get(name, 0) > ray.cluster_resources().get(name, 0) for name in need)
    workers: int = max(now, fits(later)) if has_more else now
    return int(workers // scaling.num_workers)


def count_scorers(*, use_gpu: bool) -> int:
    """Processes that can compute logits at once, with a GPU or else a CPU each, one at least.

    Those in use, by a training perhaps, do not count.
    """
    name = "GPU" if use_gpu else "CPU"
    count = int(available_resources().get(name, 0))
    if count < 1:
        raise ResourceError(
            f"the cluster has no {name}", "scoring", f"one {name} at least", "start a node with one"
        )
    in_use = ray.cluster_resources().get(name, 0) - ray.available_resources().get(name, 0)
    return max(1, int(count - in_use))


def available_resources() -> dict[str, float]:
    """What the nodes have together, or could have once the autoscaler has started all it may."""
    resources: dict[str, float] = dict(ray.cluster_resources())
    for name, amount in growth().items():
        resources[name] = max(resources.get(name, 0), amount)
    return resources


def this_node() -> NodeAffinitySchedulingStrategy:
    """Where a task or actor is to run: on the node of this process, while there is one."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)


def growth() -> dict[str, float]:
    """What the nodes could have together at most; empty where no autoscaler starts any."""
    state: Any = ray._private.state.state  # no public call tells the autoscaler's limits
    return dict(state.get_max_resources_from_cluster_config() or {})
