"""Runs of the jobs on small data: their command lines and the files they leave."""

import json
from pathlib import Path
from typing import Any

from qa_core.demo_corpus import generate_corpus


def write_json(path: Path, value: Any) -> str:
    """Write a JSON document; its path as text."""
    path.write_text(json.dumps(value), encoding="utf-8")
    return str(path)


def read_json(path: Path) -> Any:
    """The content of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_data(folder: Path) -> dict[str, str]:
    """Train (80 questions, v2.0), dev (40), and a dev without unanswerable questions."""
    documents = {
        "train": generate_corpus("train", num_passages=20),
        "dev": generate_corpus("dev", num_passages=10),
        "answerable": generate_corpus("dev", num_passages=6),
    }
    for article in documents["answerable"]["data"]:
        for paragraph in article["paragraphs"]:
            paragraph["qas"] = [q for q in paragraph["qas"] if not q["is_impossible"]]
    return {name: write_json(folder / f"{name}.json", d) for name, d in documents.items()}


def settings(data: dict[str, str], model: Path, storage: Path, **more: Any) -> list[str]:
    """A command line of `jobs.train`, dropout off."""
    values = {
        "data.train": data["train"],
        "data.dev": data["dev"],
        "model.name_or_path": model,
        "model.dropout": 0.0,
        "features.max_length": 96,
        "features.doc_stride": 40,
        "train.learning_rate": 1e-3,
        "train.per_worker_batch_size": 8,
        "storage_path": storage,
        "run_name": "run",
        **more,
    }
    return [f"--{name}={value}" for name, value in values.items()]
