"""The check before a long job: what it looks at, and what it finds missing."""

from pathlib import Path

import pytest

from jobs import check
from jobs.check import Finding, NodeFacts, check_facts, check_needs, say_facts, workers_on
from jobs.configuration import (
    CheckConfig,
    ModelSettings,
    ScalingSettings,
    TrainSettings,
    parse_config,
)
from jobs.needs import Needs, activation_bytes, count_parameters, needs_of
from jobs.nodes import Node
from tests.runs import settings

GB = 10**9
NEEDS = Needs(3 * GB, "3 GB", 0, "", 2 * GB, "2 GB")


def facts(**more: object) -> NodeFacts:
    """A node that is as it should be."""
    own = say_facts()
    values = {**vars(own), "num_gpus": 0, "clock": 0.0, "memory_bytes": 8 * GB}
    return NodeFacts(**{**values, "free_disk_bytes": 100 * GB, **more})  # type: ignore[arg-type]


def bad(findings: list[Finding]) -> dict[str, str]:
    """What is wrong, by what was looked at."""
    return {finding.what: finding.found for finding in findings if not finding.is_good}


def test_a_node_like_the_driver_is_good() -> None:
    """Nothing is found wrong, and everything was looked at."""
    node = Node("id", "10.0.0.1", {"CPU": 2.0})
    findings = list(check_facts([node], [facts()], use_gpu=False))
    assert {finding.what for finding in findings} == {"versions", "modules", "clock"}
    assert not bad(findings)


@pytest.mark.parametrize(
    ("more", "what", "found"),
    [
        ({"versions": {**say_facts().versions, "ray": "2.0.0"}}, "versions", "ray 2.0.0"),
        ({"import_error": "jobs.training_worker: no torch"}, "modules", "no torch"),
        ({"clock": 7.5}, "clock", "7.5 s apart"),
        ({"num_gpus": 1}, "GPUs", "Ray counts 2, torch sees 1"),
    ],
)
def test_what_differs_is_found(more: dict[str, object], what: str, found: str) -> None:
    """One thing at a time."""
    node = Node("id", "10.0.0.1", {"CPU": 2.0, "GPU": 2.0})
    said = facts(**{"num_gpus": 2, **more})
    findings = list(check_facts([node], [said], use_gpu=True))
    assert list(bad(findings)) == [what]
    assert found in bad(findings)[what]
    assert all(finding.remedy for finding in findings if not finding.is_good)


def test_a_node_that_does_not_answer_is_found() -> None:
    """And the others are looked at all the same."""
    nodes = [Node("a", "10.0.0.1", {"CPU": 1.0}), Node("b", "10.0.0.2", {"CPU": 1.0})]
    findings = list(
        check_facts(nodes, [TimeoutError("no answer in 120 s"), facts()], use_gpu=False)
    )
    assert bad(findings) == {"answer": "no answer in 120 s"}
    assert {finding.where for finding in findings} == {"10.0.0.1", "10.0.0.2"}


def test_memory_and_disk_are_compared_with_the_need() -> None:
    """Of as many workers as Ray may put on the node; nodes without room for one do not count."""
    config = CheckConfig(scaling=ScalingSettings(num_workers=3))
    nodes = [Node("a", "head", {}), Node("b", "10.0.0.1", {"CPU": 8.0})]
    assert [workers_on(node, config, NEEDS) for node in nodes] == [0, 3]
    findings = list(check_needs(NEEDS, config, nodes, [facts(), facts(free_disk_bytes=GB)]))
    assert bad(findings) == {
        "memory": "3 worker(s) x 3 GB = 9.0 GB; the node has 8.0 GB",
        "disk": "2 GB = 2.0 GB; free are 1.0 GB",
    }


def test_the_need_follows_from_model_and_batch(tiny_model: Path) -> None:
    """Weights, gradients and two moments; activations grow with tokens, layers and width."""
    train = TrainSettings(per_worker_batch_size=4)
    config, without = (
        CheckConfig(train=train),
        CheckConfig(train=train, model=ModelSettings(dropout=0.0)),
    )
    model, tokens, layers, hidden, heads = str(tiny_model), 4 * 384, 2, 32, 2
    kept = tokens * layers * hidden * 74
    with_attention = kept + tokens * layers * heads * 384 * 12
    assert activation_bytes(without, model, use_gpu=False) == kept
    assert activation_bytes(config, model, use_gpu=False) == with_attention
    assert activation_bytes(config, model, use_gpu=True) == tokens * layers * hidden * 34
    double = CheckConfig(train=TrainSettings(per_worker_batch_size=8))
    assert activation_bytes(double, model, use_gpu=False) == 2 * with_attention
    needs = needs_of(config, [], model, use_gpu=False)
    assert needs.worker_bytes == 10**9 + 16 * count_parameters(model) + with_attention
    assert needs.gpu_bytes == 0
    on_gpu = needs_of(config, [], model, use_gpu=True)
    assert on_gpu.worker_bytes == 10**9
    assert on_gpu.gpu_bytes > 16 * count_parameters(model)


def test_disk_is_that_of_local_storage_or_of_copies(tiny_model: Path, tmp_path: Path) -> None:
    """Checkpoints lie in local storage; from object storage tokens and model are copied."""
    model, source = str(tiny_model), tmp_path / "train.json"
    source.write_bytes(b" " * 1000)
    weights = 4 * count_parameters(model)
    local, remote = (
        needs_of(CheckConfig(storage_path=place), [str(source)], model, use_gpu=False)
        for place in (str(tmp_path), "s3://bucket/runs")
    )
    assert local.disk_bytes == 3000 + 10 * weights
    assert "checkpoints" in local.disk_words
    assert remote.disk_bytes == 3000 + weights
    assert "copied to the node" in remote.disk_words
    missing = say_facts(str(tmp_path / "not" / "yet"))
    assert missing.free_disk_bytes == pytest.approx(
        say_facts(str(tmp_path)).free_disk_bytes, rel=0.1
    )


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_a_cluster_that_can_run_it(
    data: dict[str, str], tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All is looked at, nothing is left on storage."""
    check.main(settings(data, tiny_model, tmp_path / "runs"))
    printed = " ".join(capsys.readouterr().out.split())
    assert "this cluster can run it" in printed
    for what in ("data.train", "model", "workers", "versions", "modules", "clock", "memory"):
        assert what in printed
    assert not list((tmp_path / "runs").iterdir())


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_all_that_is_missing_is_told_at_once(
    data: dict[str, str], tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each with its remedy; the exit status says so."""
    (tmp_path / "file").write_text("no folder")
    more = {
        "data.train": "/none.json",
        "scaling.num_workers": 99,
        "storage_path": tmp_path / "file",
    }
    with pytest.raises(SystemExit) as caught:
        check.main(settings(data, tiny_model, tmp_path, **more))
    assert caught.value.code == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "3 to be mended" in printed
    assert "/none.json: no such file" in printed
    assert "99 workers x 1 CPU = 99 CPU" in printed
    assert "cannot be written" in printed


def test_settings_are_those_of_a_training() -> None:
    """A command of jobs.train is checked as it stands."""
    config = parse_config(CheckConfig, ["--train.num_epochs=3", "--run_name=x"])
    assert config.train.num_epochs == 3
