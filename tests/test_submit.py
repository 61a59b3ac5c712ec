"""Submissions: what is found wrong before anything is uploaded, and what a job is called."""

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
from ray.job_submission import JobStatus, JobSubmissionClient

from jobs import submit
from jobs.artefacts import read_commit
from jobs.submit import check_settings, next_submission, open_client, split_arguments
from qa_core.errors import ConfigError, QAError, ResourceError
from tests.conftest import LocalRay, free_ports
from tests.runs import settings


@dataclass
class Job:
    """A job as the cluster lists it."""

    submission_id: str | None
    status: JobStatus
    metadata: dict[str, str] | None = None


class Jobs:
    """A cluster with these jobs."""

    def __init__(self, *jobs: Job) -> None:
        self.jobs = jobs

    def list_jobs(self) -> list[Job]:
        """All of them."""
        return list(self.jobs)


def next_name(name: str, *jobs: Job) -> str:
    """The next submission of a run below /r."""
    return next_submission(cast("JobSubmissionClient", Jobs(*jobs)), name, f"/r/{name}")


def test_a_command_line_is_taken_apart_at_the_job() -> None:
    """Options of the submission before it, all others are the job's."""
    given = ["--address", "http://h:1", "tune", "--run_name", "train"]
    assert split_arguments(given) == (given[:2], "tune", given[3:])
    with pytest.raises(ConfigError, match=r"no job is named.*prepare, train"):
        split_arguments(["--run_name", "x"])


@pytest.mark.parametrize(
    ("job", "arguments", "message"),
    [
        ("train", ["--train.num_epoch=3"], "num_epochs"),
        ("tune", ["--train.num_epochs=uniform(3, 1)"], "upside down"),
        ("train", ["--storage_path=runs"], "relative"),
        ("prepare", ["--storage_path=runs"], "relative"),
    ],
)
def test_wrong_settings_are_found_before_the_cluster_is_asked(
    job: str, arguments: list[str], message: str
) -> None:
    """As the job would find them, minutes later."""
    with pytest.raises(QAError, match=message):
        check_settings(job, arguments)


def test_the_digest_is_that_of_the_settings() -> None:
    """However they were written; a search space is one of them."""
    one = check_settings("train", ["--storage_path=/r", "--run_name=a", "--train.seed=0"])
    assert one == check_settings("train", ["--run_name", "a", "--storage_path", "/r"])
    assert one[0] == "/r/a"
    assert one != check_settings("train", ["--run_name=a", "--storage_path=/r", "--train.seed=1"])
    spaces = [
        check_settings("tune", ["--storage_path=/r", f"--train.seed={space}"])
        for space in ("[1, 2]", "[1, 3]")
    ]
    assert spaces[0] != spaces[1]


def test_submissions_of_a_run_are_numbered() -> None:
    """Others do not count; one under way that writes the same folder is not joined by another."""
    done, failed = JobStatus.SUCCEEDED, JobStatus.FAILED
    assert next_name("squad") == "squad-try1"
    jobs = [Job("squad-try2", failed), Job("squad-try10", done), Job("squad2-try11", done)]
    assert next_name("squad", *jobs, Job(None, done), Job("other", done)) == "squad-try11"
    elsewhere = Job("squad-try2", JobStatus.RUNNING, {"run": "/other/squad"})
    assert next_name("squad", elsewhere) == "squad-try3"
    here = Job("squad-try2", JobStatus.RUNNING, {"run": "/r/squad"})
    with pytest.raises(ConfigError, match="squad-try2 is under way"):
        next_name("squad", Job("squad-try1", done), here)


def test_an_address_nobody_answers_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Is named as such, with the way to a tunnel."""
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    [port] = free_ports(1)
    with pytest.raises(ResourceError, match=f"nobody answers.*{port}.*ray dashboard"):
        open_client(f"http://127.0.0.1:{port}")


def test_the_commit_is_the_submissions(monkeypatch: pytest.MonkeyPatch) -> None:
    """The code of a submitted job has no history."""
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", '{"metadata": {"commit": "abc"}}')
    assert read_commit() == "abc"


@pytest.mark.ray
def test_another_version_of_ray_is_refused(
    local_ray: LocalRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With both versions, and what to install."""
    monkeypatch.setattr(submit.ray, "__version__", "2.0.0")
    with pytest.raises(ResourceError, match=r"runs Ray .* here is Ray 2\.0\.0.*pip install"):
        open_client(local_ray.dashboard)


@pytest.mark.ray
def test_another_version_of_python_is_told(
    local_ray: LocalRay, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The job runs with the cluster's; a last digit that differs is nothing to tell."""
    version = platform.python_version()
    for here, is_told in ((f"{version}0", False), ("3.1.2", True)):
        monkeypatch.setattr(submit.platform, "python_version", lambda here=here: here)
        open_client(local_ray.dashboard)
        told = f"The cluster has Python {version}, here is {here}" in capsys.readouterr().out
        assert told == is_told


@pytest.mark.ray
@pytest.mark.slow
def test_a_submitted_job_ends_as_the_job_does(
    local_ray: LocalRay,
    data: dict[str, str],
    tiny_model: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Its log is shown, its exit status passed on, its commit noted; a second try is numbered."""
    given: dict[str, Any] = {"train.num_epochs": 1, "tracking.trackers": "[]"}
    wrong = settings(data, tiny_model, tmp_path, **{**given, "data.train": "/none.json"})
    with pytest.raises(SystemExit) as caught:
        submit.main([f"--address={local_ray.dashboard}", "train", *wrong])
    assert caught.value.code == 1
    printed = capfd.readouterr().out
    assert "Submitted run-try1" in printed
    assert printed.rstrip().splitlines()[-1].startswith("error: /none.json: no such file")
    right = settings(data, tiny_model, tmp_path, **given)
    submit.main([f"--address={local_ray.dashboard}", "train", *right])
    printed = capfd.readouterr().out
    assert "Submitted run-try2" in printed
    assert "Best checkpoint on the dev data" in printed
    assert f"commit {read_commit()}" in (tmp_path / "run/config.yaml").read_text()
    job = JobSubmissionClient(local_ray.dashboard).get_job_info("run-try2")
    assert job.metadata["run"] == str(tmp_path / "run")
    assert job.metadata["commit"] == read_commit()
