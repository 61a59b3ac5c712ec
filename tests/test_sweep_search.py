"""Which process a leg of a sweep is given, as Ray Tune gives it."""

import os
import time
from pathlib import Path
from typing import Any

import pytest
from ray import tune

from jobs.sweep_search import NewestFirst

MOST_LEGS = 60


class ShortLeg(tune.Trainable):  # type: ignore[misc]  # Ray has no types here
    """A leg that ends long before a second process has started."""

    def setup(self, config: dict[str, Any]) -> None:
        """Start at once where no other process has, else slowly."""
        self.worked = Path(config["folder"])
        try:
            (self.worked / "first").touch(exist_ok=False)
        except FileExistsError:
            time.sleep(2)

    def step(self) -> dict[str, Any]:
        """Work, and leave a word of who did it."""
        time.sleep(0.2)
        (self.worked / f"by-{os.getpid()}").touch()
        return {"done": True}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """The next leg may run in this process."""
        return True


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_a_process_that_starts_slowly_is_waited_for(tmp_path: Path) -> None:
    """Legs that end meanwhile do not have Ray Tune end it: in order of submission they did."""
    folder = tmp_path / "worked"
    folder.mkdir()
    tune.Tuner(
        tune.with_resources(ShortLeg, {"CPU": 0.5}),
        param_space={"folder": str(folder)},
        tune_config=tune.TuneConfig(
            num_samples=MOST_LEGS,
            max_concurrent_trials=2,
            reuse_actors=True,
            scheduler=NewestFirst(),
        ),
        run_config=tune.RunConfig(
            storage_path=str(tmp_path / "tune"),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
        ),
    ).fit()
    assert len(list(folder.glob("by-*"))) == 2
