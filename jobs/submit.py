"""Submission of a job to a cluster: what `ray job submit` does, with more looked at before.

The settings are checked here, before anything is uploaded; the job carries the commit and a digest
of its settings; its submission is called RUN_NAME-tryN. The log is followed, and the exit status is
that of the job. Options of the submission stand before the job's name.

    export RAY_API_SERVER_ADDRESS=http://127.0.0.1:8265
    python -m jobs.submit train --run_name squad --storage_path s3://BUCKET/runs …
"""

import asyncio
import hashlib
import logging
import platform
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient
from rich.markup import escape

from jobs.artefacts import read_commit
from jobs.cluster import console, run_folder, run_job
from jobs.configuration import (
    CheckConfig,
    EvaluateConfig,
    PredictConfig,
    PrepareConfig,
    SubmitConfig,
    TrainConfig,
    dump_config,
    parse_config,
)
from jobs.space import parse_sweep
from qa_core.errors import ConfigError, ResourceError, first_line

CONFIGS = {
    "prepare": PrepareConfig,
    "train": TrainConfig,
    "evaluate": EvaluateConfig,
    "predict": PredictConfig,
    "check": CheckConfig,
}
JOBS = (*CONFIGS, "tune")
TOP = Path(__file__).parents[1]


def main(arguments: Sequence[str] | None = None) -> None:
    """Submit a job, follow its log, and exit as it does."""
    # Of what is packed, and of the connection's end: the job's own error is to be the last line.
    for name in ("ray._private.runtime_env", "ray.dashboard.modules.job.sdk"):
        logging.getLogger(name).setLevel(logging.ERROR)
    given = list(sys.argv[1:] if arguments is None else arguments)
    own, job, settings = split_arguments(given)
    submit = parse_config(SubmitConfig, own)
    run, digest = check_settings(job, settings)
    client = open_client(submit.address)
    submission_id = next_submission(client, run.rpartition("/")[2] or job, run)
    metadata = {"job": job, "commit": read_commit(), "configuration": digest}
    try:
        client.submit_job(
            entrypoint=shlex.join(["python", "-m", f"jobs.{job}", *settings]),
            submission_id=submission_id,
            runtime_env=runtime_env(),
            metadata=metadata | ({"run": run} if run else {}),
            entrypoint_resources=submit.driver_resources or None,
        )
    except (RuntimeError, ValueError) as error:  # ValueError: a working directory over the limit
        raise ResourceError(
            f"the cluster did not take the job ({first_line(error)})",
            f"submission {submission_id}",
            "a working directory below Ray's limit, and a cluster that takes jobs",
            "keep data and runs out of the project's folder, or name them in .rayignore",
        ) from error
    console.print(
        f"Submitted [bold]{escape(submission_id)}[/bold] (commit {metadata['commit'][:12]}, "
        f"configuration {digest})\n  ray job stop {escape(submission_id)}     "
        "the same command continues the run"
    )
    if not submit.detach:
        follow(client, submission_id)


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], str, list[str]]:
    """Options of the submission, the job's name, and its settings.

    >>> split_arguments(["--detach", "train", "--run_name", "tune"])
    (['--detach'], 'train', ['--run_name', 'tune'])
    """
    place = next((n for n, text in enumerate(arguments) if text in JOBS), None)
    if place is None:
        if any(text in ("-h", "--help") for text in arguments):
            return list(arguments), "", []
        raise ConfigError(
            f"no job is named in {shlex.join(arguments)!r}",
            "the command line",
            f"one of {', '.join(JOBS)}, and its settings after it",
        )
    return list(arguments[:place]), arguments[place], list(arguments[place + 1 :])


def check_settings(job: str, settings: Sequence[str]) -> tuple[str, str]:
    """The run's folder, "" for a job that has none, and a digest of the settings; raises if wrong.

    The folder's last part is the run's name.
    """
    if job == "tune":
        config, space = parse_sweep(settings)
        text = dump_config(config) + repr(sorted(space.items()))
    else:
        config = parse_config(CONFIGS[job], settings)
        text = dump_config(config)
    check_storage(config.storage_path)
    name = getattr(config, "run_name", None)
    run = run_folder(config.storage_path, name) if name else ""
    return run, hashlib.sha256(text.encode()).hexdigest()[:16]


def check_storage(storage_path: str) -> None:
    """Raise for a relative folder: the job would write it into its scratch."""
    if "://" not in storage_path and not Path(storage_path).is_absolute():
        raise ConfigError(
            f"{storage_path!r} is relative, and a submitted job runs in a scratch folder",
            "storage_path",
            "an absolute path that every node sees, or a URI (s3://, gs://)",
            "give --storage_path",
        )


def open_client(address: str | None) -> JobSubmissionClient:
    """The cluster's job server; raises where nobody answers, the token is wrong, or Ray differs."""
    try:
        client = JobSubmissionClient(address)
        version = client._server_ray_version  # no public call tells it
    except AuthenticationError as error:
        raise ResourceError(
            f"the cluster does not let us in ({first_line(error)})",
            "the token",
            "the cluster's own, and RAY_AUTH_MODE=token",
            "export RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH; "
            "without them ~/.ray/auth_token is read",
        ) from error
    except (ConnectionError, requests.exceptions.RequestException) as error:
        raise ResourceError(
            f"nobody answers ({first_line(error)})",
            "RAY_API_SERVER_ADDRESS",
            "the address of the cluster's dashboard, http://127.0.0.1:8265",
            "`ray dashboard cluster.yaml` opens a tunnel to it",
        ) from error
    if version != ray.__version__:
        raise ResourceError(
            f"the cluster runs Ray {version}, here is Ray {ray.__version__}",
            "the cluster",
            "one version of Ray",
            f"pip install 'ray=={version}' here, or set the cluster up with constraints.txt",
        )
    tell_python(client)
    return client


def tell_python(client: JobSubmissionClient) -> None:
    """Say so where the cluster has another Python: a job's code runs there, and is sent as text."""
    answer = client._do_request("GET", "/api/v0/cluster_metadata")
    theirs = str(answer.json()["data"]["pythonVersion"]) if answer.ok else ""
    here = platform.python_version()
    if theirs and theirs.split(".")[:2] != here.split(".")[:2]:
        console.print(
            f"The cluster has Python {theirs}, here is {here}: the job runs with the cluster's"
        )


def next_submission(client: JobSubmissionClient, name: str, run: str) -> str:
    """NAME-tryN with the next number; raises while another job writes the folder `run`."""
    pattern = re.compile(re.escape(name) + r"-try(\d+)")
    tries = {}
    for job in client.list_jobs():
        found = pattern.fullmatch(job.submission_id or "")
        if found:
            tries[int(found[1])] = job
    running = [
        job.submission_id
        for job in tries.values()
        if run and not job.status.is_terminal() and (job.metadata or {}).get("run") == run
    ]
    if running:
        raise ConfigError(
            f"{running[0]} is under way",
            f"run {run}",
            "one job at a time that writes a run",
            f"wait for it (`ray job logs -f {running[0]}`), or end it (`ray job stop "
            f"{running[0]}`), or give another --run_name",
        )
    return f"{name}-try{max(tries, default=0) + 1}"


def runtime_env() -> dict[str, Any]:
    """The project's folder as it is here; nothing where it is installed as a package."""
    return {"working_dir": str(TOP)} if (TOP / "pyproject.toml").is_file() else {}


def follow(client: JobSubmissionClient, submission_id: str) -> None:
    """Print the job's log until it ends, and exit with its status."""
    try:
        asyncio.run(print_log(client, submission_id))
    except KeyboardInterrupt:
        console.print(
            f"\nThe job goes on. `ray job logs -f {escape(submission_id)}` follows it again."
        )
        raise SystemExit(130) from None
    except RuntimeError as error:
        raise ResourceError(
            f"the connection was lost ({first_line(error)})",
            f"submission {submission_id}",
            "a cluster that answers",
            f"`ray job status {submission_id}`; the same command continues the run",
        ) from error
    info = client.get_job_info(submission_id)
    if info.status == JobStatus.SUCCEEDED:
        return
    if info.status == JobStatus.STOPPED:
        console.print("The job was stopped; the same command continues the run.")
        raise SystemExit(130)
    if info.driver_exit_code is None:  # it never ran: its environment, or its node
        raise ResourceError(first_line(ValueError(info.message)), f"submission {submission_id}")
    raise SystemExit(info.driver_exit_code)


async def print_log(client: JobSubmissionClient, submission_id: str) -> None:
    """Print what the job writes, as it comes."""
    async for lines in client.tail_job_logs(submission_id):
        print(lines, end="", flush=True)


if __name__ == "__main__":
    run_job(main)
