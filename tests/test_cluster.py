"""The jobs on three hosts: one cluster, one S3 server, hosts that are lost. See cluster_bed.

A disturbed run ends with the files of an undisturbed one.
"""

import hashlib
import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import requests
from transformers import AutoModelForQuestionAnswering

from qa_core.demo_corpus import generate_corpus
from qa_core.reading import read_examples
from qa_core.scoring import score_predictions
from qa_core.storage import list_files, read_bytes, read_parquet, write_bytes
from tests.cluster_bed import (
    HEAD,
    WORKERS,
    Cluster,
    Host,
    finish,
    missing,
    running_cluster,
    three_hosts,
    wait_until,
)
from tests.runs import write_data
from tests.s3 import KEYS
from tests.tiny import save_model

REASON = missing()
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(bool(REASON), reason=f"the test bed of three hosts needs more: {REASON}"),
]
BUCKET = "s3://bed"
NUM_FILES = 8  # of the large data
SECONDS_TO_RETURN = 180  # of a host that was lost, by the head's autoscaler
RESULTS = ("metrics.json", "predictions.json", "nbest_predictions.json", "null_odds.json")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster, with data and a tiny model in its bucket."""
    folder = tmp_path_factory.mktemp("bed")
    with three_hosts(folder) as bed, running_cluster(bed) as cluster:
        for name, file in write_data(folder).items():
            write_bytes(f"{BUCKET}/{name}.json", Path(file).read_bytes())
        for name, passages in (("train", 200), ("small", 25)):  # four questions each
            corpus = generate_corpus("train", num_passages=passages)
            write_bytes(f"{BUCKET}/{name}.json", json.dumps(corpus).encode())
        for number in range(NUM_FILES):
            write_bytes(f"{BUCKET}/large/{number:02d}.json", large_file(number))
        for path in save_model(folder / "model").iterdir():
            write_bytes(f"{BUCKET}/model/{path.name}", path.read_bytes())
        wait_until(lambda: workers_are(cluster, 2), "both workers", SECONDS_TO_RETURN)
        yield cluster


def large_file(number: int) -> bytes:
    """One of the files of the large data, 600 questions with ids of its own."""
    corpus = generate_corpus("train", num_passages=150, seed=number)
    for article in corpus["data"]:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                question["id"] = f"{number}-{question['id']}"
    return json.dumps(corpus).encode()


def settings(run: str, **more: Any) -> list[str]:
    """Settings of a training on two hosts, a worker each."""
    values = {
        "data.train": f"{BUCKET}/train.json",
        "data.dev": f"{BUCKET}/dev.json",
        "model.name_or_path": f"{BUCKET}/model",
        "features.max_length": 96,
        "features.doc_stride": 40,
        "train.learning_rate": 1e-3,
        "train.per_worker_batch_size": 4,
        "train.num_epochs": 1,
        "train.score_untrained": "false",
        "train.checkpoint_every_steps": 5,
        "scaling.num_workers": 2,
        "scaling.threads_per_worker": 1,
        "tracking.trackers": "[]",
        "storage_path": f"{BUCKET}/runs",
        "run_name": run,
        **more,
    }
    return [f"--{name}={value}" for name, value in values.items()]


def alive(cluster: Cluster) -> list[dict[str, Any]]:
    """Address and resources of the nodes that are alive, as the cluster tells.

    Of a node that has just joined only its raylet is known.
    """
    answer = requests.get(
        f"{cluster.address}/nodes?view=summary",
        headers={"Authorization": f"Bearer {cluster.token()}"},
        timeout=20,
    )
    answer.raise_for_status()
    raylets = [node["raylet"] for node in answer.json()["data"]["summary"]]
    return [
        {"ip": raylet["nodeManagerAddress"], "resources": raylet.get("resourcesTotal", {})}
        for raylet in raylets
        if raylet.get("state") == "ALIVE"
    ]


def jobs_since(cluster: Cluster, started: float) -> list[dict[str, Any]]:
    """The jobs submitted since a moment, seconds since 1970."""
    headers = {"Authorization": f"Bearer {cluster.token()}"}
    answer = requests.get(f"{cluster.address}/api/jobs/", headers=headers, timeout=20)
    jobs = [job for job in answer.json() if job["type"] == "SUBMISSION"]
    return [job for job in jobs if job["start_time"] >= 1000 * started]


def workers_are(cluster: Cluster, count: int) -> bool:
    """Whether the first `count` workers are alive, and no late host that is not given up yet."""
    try:
        addresses = sorted(node["ip"] for node in alive(cluster) if node["ip"] != HEAD)
        return addresses == sorted(WORKERS[:count])
    except requests.RequestException:
        return False


@dataclass(frozen=True)
class Stage:
    """A job to disturb."""

    arguments: Callable[[str], list[str]]  # of a run of some name
    is_under_way: Callable[[str], bool]
    results: Callable[[str], dict[str, bytes]]  # what must not differ


def run_files(run: str, *more: str) -> dict[str, bytes]:
    """Scores and answers of a run, and other files of it."""
    return {name: read_bytes(f"{BUCKET}/{run}/run/{name}") for name in (*RESULTS, *more)}


def sweep_files(run: str) -> dict[str, bytes]:
    """Scores and answers of a sweep's winner, and what became of every trial."""
    columns = ["trial", "status", "num_tokens", "f1", "best_score"]
    trials = read_parquet(f"{BUCKET}/{run}/run/results.parquet", columns).to_pylist()
    return {**run_files(run), "trials": json.dumps(trials).encode()}


def count_files(folder: str, word: str) -> int:
    """Files below a folder with `word` in their path; none where it is not there yet."""
    try:
        return sum(word in file for file in list_files(f"{BUCKET}/{folder}"))
    except FileNotFoundError:
        return 0


def token_files(run: str) -> dict[str, bytes]:
    """Digests of all tokens and examples that were made, by name."""
    folder = f"{BUCKET}/{run}/prepared"
    return {
        file.removeprefix(folder): hashlib.sha256(read_bytes(file)).digest()
        for file in list_files(folder)
        if re.search(r"/(tokens|examples|contexts)", file)
    }


def prepare_settings(run: str, train: str) -> list[str]:
    """Settings of tokens for a training on some data."""
    return [
        f"--data.train={train}",
        f"--data.dev={BUCKET}/dev.json",
        f"--model.name_or_path={BUCKET}/model",
        "--features.max_length=96",
        "--features.doc_stride=40",
        f"--storage_path={BUCKET}/{run}",
    ]


def prepare_arguments(run: str) -> list[str]:
    """Tokens of the large data."""
    return ["prepare", *prepare_settings(run, f"{BUCKET}/large")]


def evaluate_arguments(run: str) -> list[str]:
    """Scores of the trained model on the large data, its tokens made before."""
    return [
        "evaluate",
        f"--model={BUCKET}/alone-train/run/model",
        f"--data.dev={BUCKET}/large",
        f"--storage_path={BUCKET}/{run}",
        "--run_name=run",
    ]


def tune_arguments(run: str) -> list[str]:
    """A sweep of four, one trial at a time on each host."""
    space = {
        "data.train": f"{BUCKET}/small.json",
        "features.max_length": "[64, 96]",
        "features.doc_stride": "[16, 24]",
        "scaling.num_workers": 1,
        "tune.scheduler": "none",
        "tune.num_rungs": 1,
        "tune.train_default": "false",
        "train.checkpoint_every_steps": "null",
    }
    return ["tune", *settings("run", storage_path=f"{BUCKET}/{run}", **space)]


STAGES = {
    "prepare": Stage(prepare_arguments, lambda run: count_files(run, "/tokens-") >= 3, token_files),
    "train": Stage(
        lambda run: ["train", *settings("run", storage_path=f"{BUCKET}/{run}")],
        lambda run: count_files(run, "/checkpoints/step-00000010") > 0,
        lambda run: run_files(run, "model/model.safetensors"),
    ),
    "evaluate": Stage(
        evaluate_arguments, lambda run: count_files(run, "/answers-") >= 3, run_files
    ),
    "tune": Stage(tune_arguments, lambda run: count_files(run, "/legs/") >= 2, sweep_files),
}


Results = Callable[[str], dict[str, bytes]]


@pytest.fixture(scope="module")
def undisturbed(cluster: Cluster) -> Results:
    """The results of a stage when nothing happens, made when they are first asked for."""

    @cache
    def results(name: str) -> dict[str, bytes]:
        if name == "evaluate":  # the model that was trained
            results("train")
        wait_until(lambda: workers_are(cluster, 2), "both workers", SECONDS_TO_RETURN)
        started = time.monotonic()
        printed = cluster.run(*STAGES[name].arguments(f"alone-{name}"))
        print(f"{name}: {time.monotonic() - started:.0f} s undisturbed")
        assert "is lost" not in printed
        return STAGES[name].results(f"alone-{name}")

    return results


def test_a_run_on_several_hosts_leaves_what_any_run_leaves(
    cluster: Cluster, undisturbed: Results, tmp_path: Path
) -> None:
    """Tokens made before are used; answers are scored as told; the model is read back."""
    cluster.run("prepare", *prepare_settings("alone-train", f"{BUCKET}/train.json"))
    prepared = {file: modified(file) for file in list_files(f"{BUCKET}/alone-train/prepared")}
    (tmp_path / "dev.json").write_bytes(read_bytes(f"{BUCKET}/dev.json"))
    examples, _ = read_examples([tmp_path / "dev.json"])
    files = undisturbed("train")
    after = {file: modified(file) for file in list_files(f"{BUCKET}/alone-train/prepared")}
    assert {file: after.get(file) for file in prepared} == prepared  # train adds gold answers
    predictions, odds = (json.loads(files[f"{n}.json"]) for n in ("predictions", "null_odds"))
    metrics = json.loads(files["metrics.json"])
    scores = score_predictions(predictions, examples, null_odds=odds)
    assert {name: metrics[name] for name in scores} == pytest.approx(scores)
    for file in list_files(f"{BUCKET}/alone-train/run/model"):
        (tmp_path / Path(file).name).write_bytes(read_bytes(file))
    AutoModelForQuestionAnswering.from_pretrained(tmp_path)


def cut_off(host: Host) -> None:
    """The host is off the network, and comes back when the cluster has given it up."""
    host.cut_off()


def kill_raylet(host: Host) -> None:
    """Ray's process on the host dies, and what it has started with it."""
    assert host.kill("raylet/raylet")


def begin(
    cluster: Cluster, stage_name: str, run: str, *, workers: int = 2, file: str = ""
) -> subprocess.Popen[str]:
    """Submit a stage's job; returned as soon as it has done some of its work.

    `file`: as soon as there is one with this in its path.
    """
    stage = STAGES[stage_name]
    wait_until(lambda: workers_are(cluster, workers), f"{workers} workers", SECONDS_TO_RETURN)
    process = cluster.submit(*stage.arguments(run))

    def is_under_way() -> bool:
        is_so = count_files(run, file) > 0 if file else stage.is_under_way(run)
        return is_so or process.poll() is not None

    wait_until(is_under_way, stage_name, 200)
    assert process.poll() is None, process.communicate()[0]
    return process


@pytest.mark.parametrize(
    ("disturb", "stage_name"),
    [
        (cut_off, "prepare"),
        pytest.param(cut_off, "train", marks=pytest.mark.slow),
        pytest.param(cut_off, "evaluate", marks=pytest.mark.slow),
        pytest.param(cut_off, "tune", marks=pytest.mark.slow),
        pytest.param(kill_raylet, "prepare", marks=pytest.mark.slow),
        (kill_raylet, "train"),
        pytest.param(kill_raylet, "evaluate", marks=pytest.mark.slow),
        pytest.param(kill_raylet, "tune", marks=pytest.mark.slow),
    ],
)
def test_a_lost_host_changes_no_result(
    stage_name: str,
    disturb: Callable[[Host], None],
    cluster: Cluster,
    undisturbed: Results,
) -> None:
    """The job ends with the same files, and says what happened."""
    stage, run = STAGES[stage_name], f"{disturb.__name__}-{stage_name}"
    expected = undisturbed(stage_name)
    host = cluster.bed.hosts[WORKERS[1]]
    process = begin(cluster, stage_name, run)
    disturb(host)
    lost = time.monotonic()
    wait_until(lambda: workers_are(cluster, 1), "the cluster to give the host up", 120)
    noticed = time.monotonic()
    if disturb is cut_off:
        host.reconnect()
    printed, _ = process.communicate(timeout=900)
    ended = time.monotonic()
    assert process.returncode == 0, printed[-6000:]
    assert f"Node {host.address} is lost" in printed
    assert ("Training needs 2 CPU at once, and 1 are left" in printed) == (stage_name == "train")
    found = stage.results(run)
    assert found.keys() == expected.keys()
    assert [name for name in found if found[name] != expected[name]] == []
    print(f"{run}: given up {noticed - lost:.0f} s, ended {ended - lost:.0f} s after the loss")


def test_nothing_runs_on_the_head(cluster: Cluster) -> None:
    """It has no CPUs to give."""
    nodes = {node["ip"]: node for node in alive(cluster)}
    assert HEAD in nodes
    assert "CPU" not in nodes[HEAD]["resources"]


@pytest.mark.parametrize("path", ["/api/jobs/", "/nodes?view=summary", "/api/version", "/logs"])
def test_nothing_is_served_without_the_token(path: str, cluster: Cluster) -> None:
    """Neither without one nor with another."""
    for headers in ({}, {"Authorization": "Bearer " + "0" * 32}):
        answer = requests.get(cluster.address + path, headers=headers, timeout=20)
        assert answer.status_code in (401, 403)


def test_a_submission_with_another_token_is_told_so(cluster: Cluster) -> None:
    """With what to set."""
    process = cluster.submit("check", *settings("unused"), RAY_AUTH_TOKEN="0" * 32)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "the cluster does not let us in" in printed
    assert "RAY_AUTH_TOKEN_PATH" in printed


@pytest.mark.slow
def test_two_jobs_share_the_cluster(cluster: Cluster, undisturbed: Results) -> None:
    """Both go on at once, and each leaves what it leaves alone."""
    expected = {name: undisturbed(name) for name in ("evaluate", "prepare")}
    started = time.time()
    processes = [cluster.submit(*STAGES[name].arguments(f"shared-{name}")) for name in expected]
    for process in processes:
        printed, _ = process.communicate(timeout=600)
        assert process.returncode == 0, printed
    spans = [(job["start_time"], job["end_time"]) for job in jobs_since(cluster, started)]
    assert len(spans) == 2
    assert max(start for start, _ in spans) < min(end for _, end in spans)
    for name, files in expected.items():
        assert STAGES[name].results(f"shared-{name}") == files


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"storage_path": "s3://nowhere/runs"}, r"s3://nowhere/runs"),
        ({"storage_path": "/tmp/ray-extractive-qa/runs"}, r"node 10\.77\.0\.1\d.*s3://"),
        ({"scaling.num_workers": 5}, r"5 workers x 1 CPU = 5 CPU, and the cluster has 2"),
    ],
)
def test_what_the_cluster_cannot_do_is_refused_before_any_work(
    more: dict[str, Any], message: str, cluster: Cluster
) -> None:
    """With what to do instead."""
    process = cluster.submit("train", *settings("refused", **more))
    printed, _ = process.communicate(timeout=300)
    assert process.returncode in (1, 2), printed
    assert re.search(message, printed.strip().splitlines()[-1]), printed
    assert not count_files("runs", "/refused/")


def test_the_check_finds_a_cluster_that_can_run_it(cluster: Cluster) -> None:
    """On every node; a bucket that is not there is found."""
    printed = " ".join(cluster.run("check", *settings("unused")).split())
    assert "this cluster can run it" in printed
    assert all(address in printed for address in (HEAD, *WORKERS))
    process = cluster.submit("check", *settings("unused", storage_path="s3://nowhere/runs"))
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "s3://nowhere/runs" in printed


def test_a_killed_driver_continues_when_submitted_again(
    cluster: Cluster, undisturbed: Results
) -> None:
    """Nothing that was on storage is done again; the results are the same."""
    stage, run = STAGES["train"], "killed-train"
    expected = undisturbed("train")
    process = begin(cluster, "train", run)
    assert cluster.bed.hosts[HEAD].kill("-m jobs.train")
    process.communicate(timeout=120)
    assert process.returncode not in (0, None)
    written = {file: modified(file) for file in list_files(f"{BUCKET}/{run}/prepared")}
    cluster.run(*stage.arguments(run))
    assert stage.results(run) == expected
    assert {file: modified(file) for file in written} == written
    lines = [json.loads(x) for x in read_bytes(f"{BUCKET}/{run}/run/metrics.jsonl").splitlines()]
    steps = [line["step"] for line in lines if line["event"] == "step"]
    assert steps == list(range(1, 101))


@pytest.mark.slow
def test_a_stopped_job_leaves_what_the_next_goes_on_from(
    cluster: Cluster, undisturbed: Results
) -> None:
    """`ray job stop` ends it, with status 130 for the submitter; its shards are kept."""
    stage, run = STAGES["evaluate"], "stopped-evaluate"
    expected, started = undisturbed("evaluate"), time.time()
    process = begin(cluster, "evaluate", run, file="/facts-")
    [job] = jobs_since(cluster, started)
    finish(cluster.bed, "ray", "job", "stop", job["submission_id"], address=cluster.address)
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "the same command continues the run" in printed
    files = [file for file in list_files(f"{BUCKET}/{run}") if "/facts-" in file]
    written = {file: modified(file) for file in files}  # the last of a shard's files
    assert written
    cluster.run(*stage.arguments(run))
    assert stage.results(run) == expected
    assert {file: modified(file) for file in written} == written


def modified(uri: str) -> Any:
    """When an object was written."""
    from qa_core.storage import locate

    filesystem, path = locate(uri)
    return filesystem.get_file_info(path).mtime


@pytest.mark.slow
def test_a_powered_off_host_is_done_without_and_started_again(
    cluster: Cluster, undisturbed: Results
) -> None:
    """By the head, as soon as ssh reaches it."""
    expected, host = undisturbed("prepare"), cluster.bed.hosts[WORKERS[1]]
    process = begin(cluster, "prepare", "off-prepare")
    host.power_off()
    printed, _ = process.communicate(timeout=600)
    assert process.returncode == 0, printed
    assert STAGES["prepare"].results("off-prepare") == expected
    wait_until(lambda: workers_are(cluster, 1), "the cluster to give the host up", 120)
    cluster.bed.switch_on(host)
    wait_until(lambda: workers_are(cluster, 2), "the host to join", SECONDS_TO_RETURN)


@contextmanager
def one_worker(cluster: Cluster) -> Iterator[None]:
    """The second worker is switched off, and comes back."""
    host = cluster.bed.hosts[WORKERS[1]]
    wait_until(lambda: workers_are(cluster, 2), "both workers", SECONDS_TO_RETURN)
    host.power_off()
    wait_until(lambda: workers_are(cluster, 1), "the cluster to give the host up", 120)
    try:
        yield
    finally:
        cluster.bed.switch_on(host)
        wait_until(lambda: workers_are(cluster, 2), "the host to join", SECONDS_TO_RETURN)


def test_the_number_of_hosts_changes_no_byte(cluster: Cluster, undisturbed: Results) -> None:
    """Tokens by one, two and three hosts with a CPU each, who all have their share."""
    stage = STAGES["prepare"]
    tokens = undisturbed("prepare")
    with one_worker(cluster):
        cluster.run(*stage.arguments("one-prepare"))
    with cluster.late_host():
        cluster.run(*stage.arguments("three-prepare"))
    for run, hosts in (("one", 1), ("alone", 2), ("three", 3)):
        share = cluster.writers(f"/{run}-prepare/prepared/", "/tokens-")
        print(f"{run}: {dict(share)}")
        assert len(share) == hosts
        assert stage.results(f"{run}-prepare") == tokens


@pytest.mark.slow
@pytest.mark.parametrize(("stage_name", "begun"), [("evaluate", "/tokens-"), ("tune", "/legs/")])
def test_a_host_that_joins_late_has_its_share(
    stage_name: str, begun: str, cluster: Cluster, undisturbed: Results
) -> None:
    """Of a job that began on one host; the results are the same."""
    stage, run = STAGES[stage_name], f"late-{stage_name}"
    expected = undisturbed(stage_name)
    with one_worker(cluster):
        process = begin(cluster, stage_name, run, workers=1, file=begun)
        with cluster.late_host() as late:
            printed, _ = process.communicate(timeout=900)
    assert process.returncode == 0, printed[-6000:]
    assert f"Node {late.address} has joined" in printed
    assert late.address in cluster.writers(f"/{run}/run/"), printed[-6000:]
    assert stage.results(run) == expected


@pytest.mark.slow
def test_a_slow_host_does_not_hold_up_the_others(cluster: Cluster, undisturbed: Results) -> None:
    """It does less, the other one more; the results are the same."""
    expected = undisturbed("prepare")
    with cluster.bed.hosts[WORKERS[1]].slowed():
        cluster.run(*STAGES["prepare"].arguments("slow-prepare"))
    share = cluster.writers("/slow-prepare/prepared/", "/tokens-")
    print(f"one host at a fifth of its speed: {dict(share)}")
    assert share[WORKERS[1]] < share[WORKERS[0]]
    assert STAGES["prepare"].results("slow-prepare") == expected


def test_keys_are_in_no_log_and_no_artefact(cluster: Cluster, undisturbed: Results) -> None:
    """Neither those of the storage nor the cluster's token."""
    undisturbed("train")
    secrets = [KEYS["AWS_SECRET_ACCESS_KEY"].encode(), cluster.token().encode()]
    files = [read_bytes(file) for file in list_files(f"{BUCKET}/alone-train")]
    logs = [
        path.read_bytes()
        for host in cluster.bed.hosts.values()
        for path in (host.folder / "tmp/ray").rglob("*")
        if path.is_file() and not path.is_symlink() and path.suffix in (".log", ".out", ".err")
    ]
    assert files
    assert logs
    for secret in secrets:
        assert not [text for text in (*files, *logs) if secret in text]
