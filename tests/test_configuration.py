"""Settings: precedence, unknown keys with the nearest valid one, and the way back from YAML."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from jobs.configuration import (
    ColumnSettings,
    EvaluateConfig,
    PredictConfig,
    PrepareConfig,
    TrainConfig,
    as_list,
    dump_config,
    parse_config,
    valid_keys,
)
from qa_core.errors import ConfigError
from qa_core.records import COLUMNS


def test_command_line_wins_over_file_over_default(tmp_path: Path) -> None:
    """The three levels, in one call."""
    file = tmp_path / "settings.yaml"
    file.write_text("features:\n  max_length: 200\n  doc_stride: 50\n")
    config = parse_config(TrainConfig, [f"--config={file}", "--features.doc_stride=60"])
    assert (config.features.max_length, config.features.doc_stride) == (200, 60)
    assert config.train == TrainConfig().train


@pytest.mark.parametrize("kind", [TrainConfig, EvaluateConfig, PrepareConfig])
def test_a_written_configuration_is_read_back(
    kind: type[TrainConfig | EvaluateConfig | PrepareConfig], tmp_path: Path
) -> None:
    """config.yaml of a run is a valid --config, comments at its head included."""
    config = parse_config(kind, ["--data.dev=[a.json, b.json]", "--storage_path=/é"])
    file = tmp_path / "config.yaml"
    file.write_text("# commit x\n" + dump_config(config), encoding="utf-8")
    assert parse_config(kind, [f"--config={file}"]) == config
    assert as_list(config.data.dev) == ["a.json", "b.json"]
    assert as_list(kind().data.dev) == ["embedded:dev"]


def test_a_written_configuration_of_predict_is_read_back(tmp_path: Path) -> None:
    """Questions have columns of their own, answers not among them."""
    config = parse_config(
        PredictConfig, ["--data.questions=[a.csv, b.csv]", "--data.columns.question=query"]
    )
    file = tmp_path / "config.yaml"
    file.write_text(dump_config(config), encoding="utf-8")
    assert parse_config(PredictConfig, [f"--config={file}"]) == config
    assert (*asdict(config.data.columns), "answers") == COLUMNS


@pytest.mark.parametrize(
    ("given", "nearest"),
    [
        ("features.doc_strid", "features.doc_stride"),
        ("doc_stride", "features.doc_stride"),
        ("trian.seed", "train.seed"),
        ("scaling.num_worker", "scaling.num_workers"),
        ("run_nam", "run_name"),
        ("confg", "config"),
        ("data.columns.contex", "data.columns.context"),
    ],
)
def test_an_unknown_key_names_the_nearest(given: str, nearest: str, tmp_path: Path) -> None:
    """On the command line and in a file."""
    message = f"unknown key '{given}'.*such as '{nearest}'"
    with pytest.raises(ConfigError, match=message):
        parse_config(TrainConfig, [f"--{given}=3"])
    if given == "confg":
        return
    group, _, name = given.rpartition(".")
    file = tmp_path / "settings.yaml"
    file.write_text(f"{group}:\n  {name}: 3\n" if group else f"{name}: 3\n")
    with pytest.raises(ConfigError, match=f"unknown key.*such as '{nearest}'"):
        parse_config(TrainConfig, [f"--config={file}"])


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--features.max_length=0", "features.max_length"),
        ("--train.learning_rate=fast", "train.learning_rate"),
        ("--data.max_rejected_fraction=1.5", "data.max_rejected_fraction"),
        ("--decoding.mode=best", "decoding.mode"),
        ("--features.labels=some", "features.labels"),
        ("--config=/nowhere.yaml", "/nowhere.yaml"),
    ],
)
def test_values_of_the_wrong_kind_or_range_name_their_key(argument: str, message: str) -> None:
    """One line that says which key and what it takes."""
    with pytest.raises(ConfigError, match=message) as caught:
        parse_config(TrainConfig, [argument])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [TrainConfig, EvaluateConfig, PrepareConfig])
def test_columns_and_repairs_are_settings_of_the_data(
    kind: type[TrainConfig | EvaluateConfig | PrepareConfig], tmp_path: Path
) -> None:
    """Each column has its own name by default, and a file keeps the mapping."""
    config = parse_config(kind, ["--data.columns.question", "query", "--data.repair_offsets=true"])
    assert asdict(config.data.columns) == {
        "id": "id",
        "title": "title",
        "context": "context",
        "question": "query",
        "answers": "answers",
    }
    assert config.data.repair_offsets is True
    assert (kind().data.columns, kind().data.repair_offsets) == (ColumnSettings(), False)
    assert tuple(asdict(ColumnSettings())) == COLUMNS
    file = tmp_path / "config.yaml"
    file.write_text(dump_config(config), encoding="utf-8")
    assert parse_config(kind, [f"--config={file}"]) == config


def test_every_key_has_a_default_a_type_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    """--help shows every key with a sentence."""
    with pytest.raises(SystemExit):
        parse_config(TrainConfig, ["--help"])
    shown = capsys.readouterr().out
    keys = valid_keys(TrainConfig)
    assert len(keys) > 20
    assert all(f"--{key} " in shown for key in keys)
    assert "(the overlap, not the step)" in " ".join(shown.split())


def test_configurations_are_values() -> None:
    """Frozen and comparable: a run's settings cannot change under it."""
    config = TrainConfig()
    assert replace(config, run_name="other") != config
