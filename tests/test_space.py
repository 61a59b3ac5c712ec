"""The search space as it is written, in files and on command lines."""

from pathlib import Path

import pytest
import yaml

from jobs.space import default_point, describe_space, parse_sweep, with_point
from jobs.tune import check_settings, searcher_name, sweep_document
from qa_core.errors import ConfigError, QAError
from qa_core.search_space import Range, Values

CONFIGS = Path(__file__).parent.parent / "jobs" / "configs"


def test_any_key_takes_a_list_or_a_range() -> None:
    """Lists are grids, whole numbers stay whole, and what is no range is the key's own value."""
    config, space = parse_sweep(
        [
            *("--features.doc_stride", "[32, 64]"),
            "--train.learning_rate=loguniform(1e-5, 1e-3)",
            "--train.num_epochs=uniform(1, 3)",
            "--train.warmup_ratio=quniform(0, 0.2, 0.05)",
            "--train.schedule=choice(linear, cosine)",
            "--train.tokens_per_batch=[null, 4096]",
            "--data.train=[a.json, b.json]",
            "--train.gradient_checkpointing",
            "--tune.seeds=3",
        ]
    )
    assert space == {
        "features.doc_stride": Values((32, 64)),
        "train.learning_rate": Range(1e-5, 1e-3, is_log=True),
        "train.num_epochs": Range(1, 3, is_whole=True),
        "train.warmup_ratio": Range(0.0, 0.2, step=0.05),
        "train.schedule": Values(("linear", "cosine")),
        "train.tokens_per_batch": Values((None, 4096)),
    }
    values = [v for domain in space.values() for v in domain.finite or (domain.low, domain.high)]
    assert {type(value) for value in values} == {int, float, str, type(None)}  # as JSON has them
    assert config.data.train == ["a.json", "b.json"]  # two sources, not a grid of two
    assert config.train.gradient_checkpointing
    assert config.tune.seeds == 3


def test_a_grid_of_lists_of_sources() -> None:
    """A list whose items are lists is a grid where the key takes a list."""
    _, space = parse_sweep(["--data.train=choice([a.json, b.json], c.json)"])
    assert space == {"data.train": Values((["a.json", "b.json"], "c.json"))}
    _, space = parse_sweep(["--data.train=[[a.json], [b.json]]"])
    assert space == {"data.train": Values((["a.json"], ["b.json"]))}


def test_a_file_and_a_command_line_make_one_space(tmp_path: Path) -> None:
    """What comes later wins, whether it is a range or a value."""
    file = tmp_path / "sweep.yaml"
    file.write_text(
        "features: {doc_stride: [16, 32], max_length: [64, 128]}\n"
        "train: {learning_rate: 'uniform(1e-4, 1e-3)'}\n"
    )
    arguments = ["--config", str(file), "--features.max_length=96", "--train.num_epochs=[1, 2]"]
    config, space = parse_sweep(arguments)
    assert list(space) == ["features.doc_stride", "train.learning_rate", "train.num_epochs"]
    assert config.features.max_length == 96
    assert default_point(config, space)["features.doc_stride"] == 128  # the key's own default
    _, space = parse_sweep(["--train.num_epochs=3", *arguments])
    assert space["train.num_epochs"] == Values((1, 2))


def test_the_resolved_sweep_is_read_back() -> None:
    """config.yaml of a sweep gives the same configuration and space again."""
    config, space = parse_sweep(["--config", str(CONFIGS / "wide.yaml"), "--train.seed=[1, 2]"])
    text = yaml.safe_dump(sweep_document(config, space))
    values = yaml.safe_load(text)
    again, same = parse_sweep([f"--{key}={value}" for key, value in flat(values)])
    assert same == space
    assert again == config


def flat(values: dict, prefix: str = "") -> list[tuple[str, str]]:
    """Dotted keys and texts of nested settings."""
    found = []
    for key, value in values.items():
        if isinstance(value, dict):
            found += flat(value, f"{prefix}{key}.")
        else:
            text = (
                value if isinstance(value, str) else yaml.safe_dump(value, default_flow_style=True)
            )
            found.append((f"{prefix}{key}", text.removesuffix("\n...\n").strip()))
    return found


@pytest.mark.parametrize("name", ["small.yaml", "wide.yaml"])
def test_shipped_configurations_are_sweeps(name: str) -> None:
    """Every key is known, and every point keeps its types."""
    config, space = parse_sweep(["--config", str(CONFIGS / name)])
    assert len(space) >= 3
    point = {key: (domain.finite or (domain.low,))[0] for key, domain in space.items()}
    chosen = with_point(config, point)
    assert isinstance(chosen.features.max_length, int)
    assert isinstance(chosen.train.learning_rate, float)
    assert searcher_name(config, space) == ("grid" if name == "small.yaml" else "random")
    assert all(describe_space(space).values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--features.max_lenght=[64, 128]"], "unknown key 'features.max_lenght'.*max_length"),
        (["--train.learning_rate=unifrom(1, 2)"], "train.learning_rate"),
        (["--train.learning_rate=3e-5"], "nothing to search"),
        (["--train.learning_rate=[]"], "empty list"),
        (["--train.learning_rate=uniform(1e-3, 1e-5)"], "upside down"),
        (["--train.learning_rate=loguniform(0.1)"], r"loguniform\(low, high\)"),
        (["--train.learning_rate=uniform(1e-4, 1e-3"], "train.learning_rate"),
        (["--train.num_epochs=quniform(1, 4, x)"], "a step of 'x'"),
        (["--train.weight_decay=loguniform(0, 1)"], "bounds above 0"),
        (["--train.schedule=uniform(1, 2)"], "train.schedule"),
        (["--train.gradient_checkpointing=uniform(true, false)"], "numbers as bounds"),
        (["--train.num_epochs=[1, 1]"], "more than once"),
        (["--features.max_length=[64, big]"], "features.max_length"),
        (["--scaling.num_workers=[1, 2]"], "cannot be searched"),
        (["--train.score_every_steps=[1, 2]"], "cannot be searched"),
        (["--data.dev=choice(a.json, b.json)"], "cannot be searched"),
        (["--config=none.yaml"], "none.yaml: cannot be read"),
        (["train.num_epochs=[1, 2]"], "--KEY VALUE"),
        (["--tune.reduction_factor=1", "--train.num_epochs=[1, 2]"], "reduction_factor"),
    ],
)
def test_a_mistake_in_the_space_is_named(arguments: list[str], message: str) -> None:
    """Which key, what was found and what was expected, before any work."""
    with pytest.raises(ConfigError, match=message):
        parse_sweep(arguments)


def test_a_file_that_is_no_mapping(tmp_path: Path) -> None:
    """Its kind is named, and the file."""
    (tmp_path / "list.yaml").write_text("[1, 2]")
    with pytest.raises(ConfigError, match=r"list.yaml: list. Expected: keys"):
        parse_sweep([f"--config={tmp_path}/list.yaml"])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("--train.score_every_steps=5", "trials are scored"),
        ("--train.early_stopping_patience=1", "trials are scored"),
        ("--distillation.teacher=embedded", "learn from labels alone"),
    ],
)
def test_settings_that_a_sweep_has_no_use_for(setting: str, message: str) -> None:
    """They are refused, not ignored."""
    config, _ = parse_sweep([setting, "--train.num_epochs=[1, 2]"])
    with pytest.raises(QAError, match=message):
        check_settings(config)


def test_a_fraction_of_a_gpu_is_for_one_worker() -> None:
    """Ranks of one training cannot share a GPU."""
    more = ["--scaling.gpus_per_worker=0.5", "--train.num_epochs=[1, 2]"]
    check_settings(parse_sweep(more)[0])
    config, _ = parse_sweep([*more, "--scaling.num_workers=2"])
    with pytest.raises(ConfigError, match="whole GPUs"):
        check_settings(config)
