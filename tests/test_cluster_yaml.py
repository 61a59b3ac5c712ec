"""cluster.yaml passes Ray's own validation, starts from zero and lets no one in without the token.

Nothing here starts Ray or reaches a cloud: Ray's validation reads the file only.
"""

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

CLUSTER_YAML = Path(__file__).parents[1] / "cluster.yaml"
HEAD_START, WORKER_START = "head_start_ray_commands", "worker_start_ray_commands"


def load() -> dict[str, Any]:
    """The file as it stands, a new copy for each test."""
    config: dict[str, Any] = yaml.safe_load(CLUSTER_YAML.read_text(encoding="utf-8"))
    return config


def validate(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with Ray's defaults filled in, as `ray up` checks it."""
    prepared: dict[str, Any] = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


def worker_types(config: dict[str, Any]) -> dict[str, Any]:
    """Every node type but the head's, never none."""
    types = {
        name: node_type
        for name, node_type in config["available_node_types"].items()
        if name != config["head_node_type"]
    }
    assert types
    return types


def start_command(config: dict[str, Any], commands: str) -> str:
    """The one command of a list that starts Ray."""
    (command,) = [command for command in config[commands] if "ray start" in command]
    return str(command)


def exports(command: str) -> dict[str, str]:
    """Variables that a start command exports before `ray start`.

    `export A=1 B="2"; ray start` gives {"A": "1", "B": "2"}.
    """
    before = command.partition("ray start")[0]
    found = re.search(r"\bexport ([^;]*);", before)
    assert found, f"nothing exported in {command!r}"
    pairs = [word.partition("=") for word in found[1].split()]
    return {name: value.strip('"') for name, _, value in pairs}


def add_unknown_key(config: dict[str, Any]) -> None:
    """A misspelt setting at the top level."""
    config["idle_timeout_minute"] = 5


def drop_resources(config: dict[str, Any]) -> None:
    """A node type whose CPUs and GPUs nobody told."""
    next(iter(worker_types(config).values())).pop("resources")


def halve_gpu(config: dict[str, Any]) -> None:
    """A part of a GPU, which Ray's node types cannot have."""
    next(iter(worker_types(config).values()))["resources"]["GPU"] = 0.5


def exceed_max_workers(config: dict[str, Any]) -> None:
    """More workers demanded at the start than allowed at all."""
    for node_type in worker_types(config).values():
        node_type["min_workers"] = config["max_workers"]


def misname_head(config: dict[str, Any]) -> None:
    """A head type that no node type has."""
    config["head_node_type"] = "chief"


def test_ray_accepts_the_file() -> None:
    """`ray up` would refuse a file with a misspelt key only after someone needs a cluster."""
    assert validate(load())["provider"]["type"] == "aws"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (add_unknown_key, "'idle_timeout_minute' was unexpected"),
        (drop_resources, "'resources' is a required property"),
        (halve_gpu, "0.5 is not of type 'integer'"),
        (exceed_max_workers, r"`max_workers` is smaller than the sum of `min_workers`"),
        (misname_head, "`head_node_type` must be one of `available_node_types`"),
    ],
)
def test_ray_rejects_broken_copies(damage: Callable[[dict[str, Any]], None], message: str) -> None:
    """Were Ray's check to let these pass, the test above would say nothing."""
    config = load()
    damage(config)
    with pytest.raises(Exception, match=message):
        validate(config)


def test_no_work_lands_on_the_head() -> None:
    """A training worker on the head would take memory from the cluster's control services."""
    config = load()
    head = config["available_node_types"][config["head_node_type"]]
    assert head["resources"]["CPU"] == 0
    assert head["resources"].get("GPU", 0) == 0


def test_head_is_never_a_spot_instance() -> None:
    """Losing the head loses the cluster and every job on it."""
    config = load()
    head = config["available_node_types"][config["head_node_type"]]
    assert "InstanceMarketOptions" not in head["node_config"]


def test_gpu_workers_and_cpu_workers_both_exist() -> None:
    """With one kind only, either training has no GPU or decoding holds GPU nodes."""
    resources = [node_type["resources"] for node_type in worker_types(load()).values()]
    assert all(each.get("CPU", 0) >= 1 for each in resources)
    assert any(each.get("GPU", 0) >= 1 for each in resources)
    assert any(each.get("GPU", 0) == 0 for each in resources)


def test_workers_start_from_zero_and_leave_when_idle() -> None:
    """An idle cluster must cost no more than its head."""
    config = validate(load())
    for node_type in worker_types(config).values():
        assert node_type["min_workers"] == 0
        assert 1 <= node_type["max_workers"] <= config["max_workers"]
    assert 0 < config["idle_timeout_minutes"] <= 15


def test_every_node_has_the_same_image() -> None:
    """Ray refuses nodes of another Python version, and the image decides that version."""
    types = load()["available_node_types"].values()
    assert len({node_type["node_config"]["ImageId"] for node_type in types}) == 1


def test_dashboard_listens_on_loopback_only() -> None:
    """Ray's own default for clusters is 0.0.0.0, where the token would travel unencrypted."""
    command = start_command(load(), HEAD_START)
    assert re.findall(r"--dashboard-host=(\S+)", command) == ["127.0.0.1"]


@pytest.mark.parametrize("commands", [HEAD_START, WORKER_START])
def test_nodes_start_with_token_authentication(commands: str) -> None:
    """Without the mode, `ray start` may run open to whoever reaches its ports."""
    environment = exports(start_command(load(), commands))
    assert environment["RAY_AUTH_MODE"] == "token"
    assert environment["RAY_USAGE_STATS_ENABLED"] == "0"


def test_token_reaches_the_nodes_as_a_file_and_stands_nowhere_in_the_text() -> None:
    """`ray start` fails without a token; a token in this file would end up in git."""
    mounts = load()["file_mounts"]
    assert mounts == {"/home/ubuntu/.ray/auth_token": "~/.ray/auth_token"}
    assert "RAY_AUTH_TOKEN" not in CLUSTER_YAML.read_text(encoding="utf-8")


def test_nodes_install_one_commit_under_the_constraints() -> None:
    """A branch name, or pip without constraints, gives nodes of one cluster different code."""
    config = load()
    commands = config["setup_commands"] + config["head_setup_commands"]
    (checkout,) = [command for command in commands if "git checkout" in command]
    assert re.search(r"git checkout --detach [0-9a-f]{40}$", checkout)
    installs = [command for command in commands if "pip install" in command]
    assert installs
    assert all("-c constraints.txt" in command for command in installs)


def test_every_placeholder_is_marked_for_change() -> None:
    """A reader who searches for "# change" must find all there is to fill in."""
    # A command that runs over several lines carries the mark on its last.
    text = CLUSTER_YAML.read_text(encoding="utf-8").replace("\\\n", " ")
    to_edit = re.compile(r"YOUR-|ami-0000|0{40}|^ +(region|InstanceType): ")
    found = [line for line in text.splitlines() if to_edit.search(line)]
    assert len(found) >= 4  # the region and three instance types, whatever is filled in by now
    assert all(line.endswith("# change") for line in found)
