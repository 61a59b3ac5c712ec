"""Sweeps: a search space over the configuration → the best setting, trained, scored and saved.

Tokens are made once for all trials. Ray Tune runs the trials, each on `scaling.num_workers`
processes; successive halving (`qa_core.halving`) decides which of them go on. The best becomes
`storage_path/run_name/model`. Run again with the same name, the sweep continues.

    python -m jobs.tune --config jobs/configs/small.yaml --data.train train.json --data.dev dev.json
"""

import json
import logging
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from itertools import islice
from typing import Any

import numpy as np
from ray import tune
from rich.markup import escape

from jobs.artefacts import REPORT, begin_run, check_run, write_report
from jobs.cluster import (
    absolute_storage,
    check_workers,
    console,
    count_trials,
    run_folder,
    run_job,
    wants_gpu,
)
from jobs.configuration import SweepConfig
from jobs.console import show_page, warn
from jobs.hub import check_hub, push_model
from jobs.nodes import join_cluster
from jobs.space import default_point, describe_space, parse_sweep
from jobs.sweep_console import SweepShow, show_sweep
from jobs.sweep_inputs import SweepInputs
from jobs.sweep_results import METRICS, SWEEP, finish
from jobs.sweep_search import NewestFirst, Room, SweepSearch, read_events
from jobs.timings import Stages
from jobs.tracking import check_secrets, check_trackers
from jobs.training_worker import worker_resources
from jobs.trial import LegTrainable, SweepTask
from qa_core.errors import ConfigError, QAError
from qa_core.halving import Sweep, SweepRules, rung_tokens
from qa_core.search_space import Point, Space, draw_point, grid_points, point_name
from qa_core.searching import SearcherName, check_optuna, check_possible, make_searcher
from qa_core.storage import check_writable, is_file, join, read_bytes

LEFT_OUT_SHOWN = 10  # points that cannot run
TRIALS_DRAWN = 16  # of spaces that cannot be counted, unless tune.num_trials says otherwise
# Set before Ray Tune starts; what a person sets in the environment wins.
ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # trials have files of their own
    "TUNE_MAX_PENDING_TRIALS_PG": "1000",  # `Room` says how many there may be
    "RAY_AIR_NEW_OUTPUT": "0",  # its table of settings is printed whatever the verbosity
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Search, then train, score and save the best."""
    started = time.time()
    config, space = parse_sweep(arguments)
    check_settings(config)
    check_trackers(config.tracking)
    run = run_folder(config.storage_path, config.run_name)
    check_hub(config.hub, run, is_finished=is_finished(config, run))
    inputs = SweepInputs(config, space)
    searcher = searcher_name(config, space)
    check_possible(space, problem=inputs.problem, seed=config.tune.seed)
    document = sweep_document(config, space)
    check_run(run, document, inputs.digests())
    if is_finished(config, run):
        console.print(f"This sweep is finished already: [bold]{escape(run)}[/bold]")
        if not is_file(join(run, REPORT)):
            write_report(run)
        show_sweep(run)
        push_model(config.hub, run)
        show_page(run)
        return
    check_writable(run)
    storage_path = absolute_storage(config.storage_path)
    stages = Stages()
    with stages.stage("joining the cluster"):
        join_cluster(storage_path, sources=inputs.files(), models=inputs.models.values())
        check_secrets(config.tracking)
        use_gpu = wants_gpu(config.scaling.use_gpu)
        check_workers(config.scaling)
    with stages.stage("tokens and windows"):
        points = points_to_expect(space, inputs, searcher, seed=config.tune.seed)
        inputs.prepare(storage_path, points)
    begin_run(run, document, inputs.digests())
    sweep = make_sweep(config, space, inputs, searcher, points, run)
    with stages.stage("trials"):
        search(sweep, inputs, sweep_task(config, inputs, run, use_gpu=use_gpu, started=started))
    with stages.stage("answers and analysis"):
        finish(sweep, inputs, run, use_gpu=use_gpu)
    stages.write(run)
    write_report(run)
    show_sweep(run)
    push_model(config.hub, run)
    console.print(f"Done in {time.time() - started:.0f} s.")
    show_page(run)


def is_finished(config: SweepConfig, run: str) -> bool:
    """Whether the sweep has its results, and was asked for no more than now."""
    if not is_file(join(run, METRICS)):
        return False
    asked = json.loads(read_bytes(join(run, SWEEP)))["tune"]
    return bool(asked == asdict(config.tune))


def check_settings(config: SweepConfig) -> None:
    """Raise `ConfigError` for settings that would do nothing in a sweep, or cannot be met."""
    train = config.train
    for name in ("score_every_steps", "early_stopping_patience"):
        if getattr(train, name) is not None:
            raise ConfigError(
                f"{getattr(train, name)}",
                where=f"train.{name}",
                expected="null: trials are scored, and stopped, at rungs",
            )
    if config.distillation.teacher is not None:
        raise ConfigError(
            f"{config.distillation.teacher}",
            where="distillation.teacher",
            expected="null: trials learn from labels alone",
            remedy="distil the winner with jobs.train",
        )
    if config.scaling.num_workers > 1 and config.scaling.gpus_per_worker % 1:
        raise ConfigError(
            f"{config.scaling.gpus_per_worker:g} with {config.scaling.num_workers} workers",
            where="scaling.gpus_per_worker",
            expected="whole GPUs for trials of several workers",
        )


def searcher_name(config: SweepConfig, space: Space) -> SearcherName:
    """The searcher: as configured, else all points where they can be counted."""
    if config.tune.searcher == "optuna":
        check_optuna()
    if config.tune.searcher is not None:
        return config.tune.searcher
    is_finite = all(domain.finite is not None for domain in space.values())
    return "grid" if is_finite else "random"


def sweep_document(config: SweepConfig, space: Space) -> dict[str, Any]:
    """The configuration as config.yaml has it, the space in the place of searched values."""
    document = asdict(config)
    for key, text in describe_space(space).items():
        *groups, name = key.split(".")
        inner = document
        for group in groups:
            inner = inner[group]
        inner[name] = text
    return document


def points_to_expect(
    space: Space, inputs: SweepInputs, searcher: SearcherName, *, seed: int
) -> list[Point]:
    """Points that stand for all that may be tried: the grid, or some that are drawn."""
    if searcher == "grid":
        points = grid_points(space)
    else:
        random = np.random.default_rng(seed)
        points = (draw_point(space, random) for _ in range(100 * TRIALS_DRAWN))
    possible = (point for point in points if inputs.problem(point) is None)
    return list(possible if searcher == "grid" else islice(possible, TRIALS_DRAWN))


def make_sweep(
    config: SweepConfig,
    space: Space,
    inputs: SweepInputs,
    searcher: SearcherName,
    points: Sequence[Point],
    run: str,
) -> Sweep:
    """The sweep as it stands, with what happened before where it is continued."""
    settings = config.tune
    default = default_point(config, space)
    problem = inputs.problem(default)
    if searcher == "grid":
        tell_left_out(space, inputs)
    if settings.train_default and problem is not None:
        warn(f"the default setting cannot be trained, to compare with: {problem}")
    longest = max(filter(None, (tokens_or_none(inputs, point) for point in points)), default=0)
    rules = SweepRules(
        rung_tokens(
            longest, reduction_factor=settings.reduction_factor, num_rungs=settings.num_rungs
        ),
        settings.reduction_factor if settings.scheduler == "asha" else 1,
        num_trials=settings.num_trials or (None if searcher == "grid" else TRIALS_DRAWN),
        max_tokens=settings.max_tokens,
        has_deadline=settings.max_seconds is not None,
        train_default=settings.train_default and problem is None,
        num_seeds=settings.seeds,
    )
    return Sweep(
        rules,
        make_searcher(searcher, space, problem=inputs.problem, seed=settings.seed),
        count_tokens=inputs.count_tokens,
        default=default,
        events=read_events(run),
    )


def tell_left_out(space: Space, inputs: SweepInputs) -> None:
    """Say which points of a grid are not tried, and why."""
    points = list(grid_points(space))
    problems = [(point, inputs.problem(point)) for point in points]
    left_out = [(point, problem) for point, problem in problems if problem is not None]
    for point, problem in left_out[:LEFT_OUT_SHOWN]:
        warn(f"left out: {point_name(point)}: {problem}")
    if len(left_out) > LEFT_OUT_SHOWN:
        warn(f"left out: {len(left_out)} of {len(points)} settings in all")


def tokens_or_none(inputs: SweepInputs, point: Point) -> int | None:
    """Tokens of the training of a point; None where it cannot be trained."""
    try:
        return inputs.count_tokens(point)
    except QAError:
        return None


def sweep_task(
    config: SweepConfig, inputs: SweepInputs, run: str, *, use_gpu: bool, started: float
) -> SweepTask:
    """What the trials' processes are told."""
    settings = config.tune
    part = 1.0
    if settings.rung_questions is not None:
        part = min(1.0, settings.rung_questions / inputs.num_dev_questions())
    return SweepTask(
        config,
        run,
        use_gpu,
        tuple(inputs.scored_sizes()),
        part,
        None if settings.max_seconds is None else started + settings.max_seconds,
        is_nested=config.scaling.num_workers > 1,
    )


def search(sweep: Sweep, inputs: SweepInputs, task: SweepTask) -> None:
    """Have Ray Tune run the legs of the sweep, as many at once as there is room for."""
    config, run = task.config, task.run
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    room = Room(config.scaling, use_gpu=task.use_gpu, most=config.tune.max_concurrent)
    tell_plan(sweep, task, room)
    show = SweepShow(sweep, metric=config.tune.metric, is_terminal=sys.stdout.isatty())
    resources = worker_resources(config, use_gpu=task.use_gpu)
    if task.is_nested:  # its workers have resources of their own
        resources = {"node:__internal_head__": 0.01}
    search_alg = SweepSearch(
        sweep,
        inputs,
        run=run,
        room=room,
        deadline=task.deadline,
        told=show.event,
        max_failures=config.scaling.max_failures,
    )
    tuner = tune.Tuner(
        tune.with_resources(
            tune.with_parameters(LegTrainable, sweep=task),
            tune.PlacementGroupFactory([resources]),
        ),
        tune_config=tune.TuneConfig(
            search_alg=search_alg,
            scheduler=NewestFirst(),
            num_samples=-1,
            reuse_actors=True,
            trial_dirname_creator=leg_name,
            trial_name_creator=leg_name,
        ),
        run_config=tune.RunConfig(
            name=time.strftime("attempt-%Y%m%d-%H%M%S"),
            storage_path=join(run, "tune"),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            callbacks=[show],
            verbose=0,
        ),
    )
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # failures are told as they come
    if search_alg.has_work():
        with show:
            tuner.fit()
    if not any(trial.score is not None for trial in sweep.trials):
        causes = [trial.cause for trial in sweep.trials if trial.cause]
        raise QAError(
            f"no trial of {len(sweep.trials)} could be scored"
            + (f"; the first: {causes[0]}" if causes else ""),
            where=f"sweep {config.run_name}",
            expected="one at least",
            remedy="raise tune.max_seconds or tune.max_tokens, or mend what failed",
        )


def tell_plan(sweep: Sweep, task: SweepTask, room: Room) -> None:
    """What is going to happen, and the arithmetic of what runs side by side."""
    scaling, rules = task.config.scaling, sweep.rules
    each = worker_resources(task.config, use_gpu=task.use_gpu)
    needs = ", ".join(f"{amount:g} {name}" for name, amount in each.items())
    fit = count_trials(scaling, use_gpu=task.use_gpu)
    console.print(
        f"{room.count()} trial(s) at once: {scaling.num_workers} worker(s) each, {needs} a worker; "
        f"the cluster has room for {fit}"
    )
    rungs = ", ".join(f"{tokens:,}" for tokens in rules.rungs)
    goes_on = f"1 of {rules.reduction_factor} goes" if rules.reduction_factor > 1 else "all go"
    console.print(f"Scored at {rungs} real tokens, where {goes_on} on, and at the end")
    if sweep.events:
        done = sum(event["event"] == "score" for event in sweep.events)
        console.print(f"Continuing: {len(sweep.trials)} trials begun, {done} scores")
    console.print(f"Sweep folder [bold]{escape(task.run)}[/bold]")


def leg_name(trial: Any) -> str:
    """Names a leg in Ray Tune."""
    leg = trial.config["leg"]
    return f"{leg['trial']:04d}-{leg['until_tokens']}"


if __name__ == "__main__":
    run_job(main)
