"""The README's claims that a machine can hold: its tree, its commands, its keys."""

import re
import subprocess
from pathlib import Path

import pytest

from jobs.configuration import (
    EvaluateConfig,
    PredictConfig,
    PrepareConfig,
    SweepConfig,
    TrainConfig,
    valid_keys,
)

TOP = Path(__file__).parent.parent
README = (TOP / "README.md").read_text(encoding="utf-8")


def tree_entries() -> set[str]:
    """Paths of the README's tree."""
    block = README.split("## The repository")[1].split("```")[1]
    entries, folder = set(), ""
    for line in block.strip("\n").splitlines():
        name = line.split()[0]
        if not line.startswith(" "):
            folder = name if name.endswith("/") else ""
            entries.add(name)
        else:
            entries.add(folder + name)
    return entries


def test_tree_names_every_file_and_no_other() -> None:
    """A module that moves or comes takes its line in the README along."""
    if not (TOP / ".git").exists():
        pytest.skip("not a git checkout, so which files belong to the project is not known")
    command = ["git", "-C", str(TOP), "ls-files", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    shown = tree_entries()
    whole = (
        "docs/",
        "tests/",
        "jobs/configs/",
        "qa_core/embedded/",
        "qa_core/templates/",
        "benchmarks/results/",
    )
    quiet = {"__init__.py", "py.typed", ".gitignore"}
    listed = {f for f in files if not f.startswith(whole) and Path(f).name not in quiet}
    assert len(listed) > 30
    assert listed <= shown, "not in the README's tree"
    assert all((TOP / entry).exists() for entry in shown), "in the tree, not on disk"


def test_keys_in_the_readme_exist() -> None:
    """A renamed setting cannot stay behind in the README."""
    known = {
        key
        for kind in (TrainConfig, SweepConfig, EvaluateConfig, PrepareConfig, PredictConfig)
        for key in valid_keys(kind)
    }
    named = set(
        re.findall(
            r"--((?:data|model|features|train|decoding|scaling|tracking|hub)(?:\.\w+)+)", README
        )
    )
    assert len(named) >= 4
    assert named <= known
