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
LOCAL_YAML = Path(__file__).parents[1] / "cluster-local.yaml"
BOTH = pytest.mark.parametrize("file", [CLUSTER_YAML, LOCAL_YAML], ids=lambda file: file.stem)
HEAD_START, WORKER_START = "head_start_ray_commands", "worker_start_ray_commands"


def load(file: Path = CLUSTER_YAML) -> dict[str, Any]:
    """The file as it stands, a new copy for each test."""
    config: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
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


@pytest.mark.parametrize(("file", "provider"), [(CLUSTER_YAML, "aws"), (LOCAL_YAML, "local")])
def test_ray_accepts_the_file(file: Path, provider: str) -> None:
    """`ray up` would refuse a file with a misspelt key only after someone needs a cluster."""
    assert validate(load(file))["provider"]["type"] == provider


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
    options = re.findall(r"--num-[cg]pus=\d+", start_command(load(LOCAL_YAML), HEAD_START))
    assert sorted(options) == ["--num-cpus=0", "--num-gpus=0"]


def test_drivers_that_leave_the_head_are_on_no_spot_instance() -> None:
    """A driver ends with its node, and a spot instance may be taken away."""
    types = worker_types(load()).values()
    takers = [one for one in types if one["resources"].get("driver")]
    assert takers
    assert not any("InstanceMarketOptions" in one["node_config"] for one in takers)


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


@BOTH
def test_dashboard_listens_on_loopback_only(file: Path) -> None:
    """Ray's own default for clusters is 0.0.0.0, where the token would travel unencrypted."""
    command = start_command(load(file), HEAD_START)
    assert re.findall(r"--dashboard-host=(\S+)", command) == ["127.0.0.1"]


@BOTH
@pytest.mark.parametrize("commands", [HEAD_START, WORKER_START])
def test_nodes_start_with_token_authentication(commands: str, file: Path) -> None:
    """Without the mode, `ray start` may run open to whoever reaches its ports."""
    environment = exports(start_command(load(file), commands))
    assert environment["RAY_AUTH_MODE"] == "token"
    assert environment["RAY_USAGE_STATS_ENABLED"] == "0"


@BOTH
def test_token_reaches_the_nodes_as_a_file_and_stands_nowhere_in_the_text(file: Path) -> None:
    """`ray start` fails without a token; a token in this file would end up in git."""
    [(there, here)] = load(file)["file_mounts"].items()
    assert there in ("/home/ubuntu/.ray/auth_token", "~/.ray/auth_token")
    assert here == "~/.ray/auth_token"
    assert "RAY_AUTH_TOKEN" not in file.read_text(encoding="utf-8")


@BOTH
def test_nodes_install_one_commit_under_the_constraints(file: Path) -> None:
    """A branch name, or pip without constraints, gives nodes of one cluster different code."""
    config = load(file)
    commands = config["setup_commands"] + config.get("head_setup_commands", [])
    (checkout,) = [command for command in commands if "git checkout" in command]
    assert re.search(r"git checkout --detach [0-9a-f]{40}$", checkout)
    installs = [command for command in commands if "pip install" in command]
    assert installs
    assert all("-c constraints.txt" in command for command in installs)


@BOTH
def test_every_placeholder_is_marked_for_change(file: Path) -> None:
    """A reader who searches for "# change" must find all there is to fill in."""
    # A command that runs over several lines carries the mark on its last.
    text = file.read_text(encoding="utf-8").replace("\\\n", " ")
    to_edit = re.compile(r"YOUR-|ami-0000|0{40}|^ +(region|InstanceType|head_ip): ")
    found = [line for line in text.splitlines() if to_edit.search(line)]
    assert len(found) >= 3  # whatever is filled in by now
    assert all("# change" in line for line in found)
