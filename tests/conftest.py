"""Fixtures shared by tests: models made on the spot and one local Ray a session."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.update(
    {
        "HF_HUB_OFFLINE": "1",  # a test that reached for the Hub would fail, not wait
        "TOKENIZERS_PARALLELISM": "false",
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25",
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "60",
    }
)

import torch

from tests.tiny import save_model

torch.set_num_threads(1)  # the models are tiny: more threads only wait for one another


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a two-layer BERT with random weights; windows up to 128 tokens."""
    return save_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """Ray on this machine with four logical CPUs, stopped at the end."""
    import ray

    from jobs.cluster import connect

    ray.init(num_cpus=4, include_dashboard=True, logging_level="error", log_to_driver=False)
    connect()
    yield
    ray.shutdown()
