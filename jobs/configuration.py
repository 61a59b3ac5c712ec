"""The settings of every job: each default once, beside its meaning, unit and reason.

Precedence: default, then the YAML file of `--config`, then the command line
(`--features.max_length 256`). An unknown key is an error that names the nearest valid one.
"""

import contextlib
import difflib
import io
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import yaml
from jsonargparse import ArgumentError, ArgumentParser, set_parsing_settings
from jsonargparse.typing import (
    ClosedUnitInterval,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    restricted_number_type,
)

from qa_core.errors import ConfigError

set_parsing_settings(docstring_parse_attribute_docstrings=True)

Config = TypeVar("Config")
if TYPE_CHECKING:
    AtLeastTwo = int
else:
    AtLeastTwo = restricted_number_type("AtLeastTwo", int, (">=", 2))
TrackerName = Literal["tensorboard", "mlflow", "wandb"]
LanguageName = Literal["en", "es", "hi", "vi", "de", "ar", "zh"]


@dataclass(frozen=True)
class QuestionColumns:
    """What the sources call their columns (in nested JSON: their keys); embedded: has our names."""

    id: str = "id"
    """Text or whole number that no other question of the run has."""
    title: str = "title"
    """Of the document; may be missing, unless another name is given."""
    context: str = "context"
    """The text with the answer in it."""
    question: str = "question"
    """The question."""


@dataclass(frozen=True)
class ColumnSettings(QuestionColumns):
    """What the sources call their columns (in nested JSON: their keys); embedded: has our names."""

    answers: str = "answers"
    """Accepted answers with text and answer_start, as lists or as objects; empty: unanswerable."""


@dataclass(frozen=True)
class DevSettings:
    """Which questions and contexts.

    A source is a file (SQuAD v1.1 / v2.0 JSON, a JSON list of records, JSON lines, MRQA's among
    them, CSV, TSV or Parquet; the texts also as .gz; a path or URI), a folder or glob of such
    files, a folder saved by `datasets`, hub:NAME:SPLIT, or embedded:train, embedded:dev,
    embedded:handwritten.
    """

    dev: str | list[str] = "embedded:dev"
    """Source or list of sources to score on."""
    max_rejected_fraction: ClosedUnitInterval = 0.01
    """The run stops when more than this part of the records cannot be used."""
    columns: ColumnSettings = field(default_factory=ColumnSettings)
    repair_offsets: bool = False
    """Take the context's own text for an answer that differs from it only by white space or
    Unicode normalisation, at most 16 characters from its start, and list it; false: reject it."""


@dataclass(frozen=True)
class DataSettings(DevSettings):
    """Which questions and contexts.

    A source is a file (SQuAD v1.1 / v2.0 JSON, a JSON list of records, JSON lines, MRQA's among
    them, CSV, TSV or Parquet; the texts also as .gz; a path or URI), a folder or glob of such
    files, a folder saved by `datasets`, hub:NAME:SPLIT, or embedded:train, embedded:dev,
    embedded:handwritten.
    """

    train: str | list[str] = "embedded:train"
    """Source or list of sources to learn from."""


@dataclass(frozen=True)
class QuestionSettings:
    """Which questions about which contexts to answer.

    Needed of a record are its id, question and context (columns, or keys of JSON); title may be
    there. Answers are not needed, and not looked at where they are there.
    """

    questions: str | list[str] | None = None
    """Source or list of sources, of any kind that data.dev of the other jobs takes: a file (SQuAD
    JSON, a JSON list of records, JSON lines, MRQA's among them, CSV, TSV or Parquet; the texts
    also as .gz; a path or URI), a folder or glob of such files, a folder saved by `datasets`,
    hub:NAME:SPLIT, or embedded:NAME."""
    max_rejected_fraction: ClosedUnitInterval = 1.0
    """The run stops when more than this part of the records cannot be used; by default the others
    are answered, however few, for no score depends on those left out."""
    columns: QuestionColumns = field(default_factory=QuestionColumns)


@dataclass(frozen=True)
class ModelSettings:
    """The encoder to start from."""

    name_or_path: str = "embedded"
    """Folder or Hub name; "embedded": the small English encoder of the extra `demo`."""
    dropout: ClosedUnitInterval | None = None
    """Replaces every dropout probability of the model; null keeps the model's own."""


@dataclass(frozen=True)
class FeatureSettings:
    """How contexts are cut into overlapping windows."""

    max_length: PositiveInt = 384
    """Tokens in a window, special tokens and question included."""
    doc_stride: NonNegativeInt = 128
    """Tokens that neighbouring windows share (the overlap, not the step)."""
    null_window_fraction: ClosedUnitInterval = 1.0
    """Part of the training windows without an answer that is kept; lower it for long documents."""
    null_window_seed: NonNegativeInt = 0
    """Decides which of them are kept."""
    labels: Literal["first", "all"] = "first"
    """first: training windows are labelled with the first accepted answer, as run_qa does; all:
    with every accepted answer that lies in the window."""


@dataclass(frozen=True)
class TrainSettings:
    """The course of the training."""

    num_epochs: PositiveInt = 2
    """Times every feature is seen."""
    per_worker_batch_size: PositiveInt = 16
    """Features a worker computes at once; times num_workers and gradient_accumulation_steps it is
    the global batch."""
    tokens_per_batch: PositiveInt | None = None
    """Tokens a worker computes at once at most, padding counted: instead of
    per_worker_batch_size."""
    gradient_accumulation_steps: PositiveInt = 1
    """Times a worker computes before a step of the optimizer: a larger batch in the same memory."""
    learning_rate: PositiveFloat = 2e-4
    """Peak of the schedule. Suits a 6-layer MiniLM; take 3e-5 for BERT-base and larger."""
    schedule: Literal["linear", "cosine"] = "linear"
    """How the learning rate falls to 0 after the warm-up."""
    warmup_ratio: ClosedUnitInterval = 0.1
    """Part of all steps over which the learning rate rises from 0."""
    layer_decay: ClosedUnitInterval = 1.0
    """Learning rate of a layer over that of the layer above; 0.9 suits large models."""
    weight_decay: NonNegativeFloat = 0.01
    """AdamW's, on matrices; biases and norms have none."""
    max_grad_norm: PositiveFloat = 1.0
    """Gradients are scaled down to this norm."""
    seed: NonNegativeInt = 0
    """Decides the new layer's weights, the order of features and the dropout."""
    null_weight: ClosedUnitInterval = 1.0
    """Weight of the loss of windows labelled "no answer"."""
    gradient_checkpointing: bool = False
    """Compute activations twice instead of keeping them: less memory, a third more time."""
    checkpoint_every_steps: PositiveInt | None = None
    """Also write a checkpoint to continue from every so many steps; null: where it is scored."""
    score_every_steps: PositiveInt | None = None
    """Score the dev data every so many steps; null: at the end of every epoch."""
    score_untrained: bool = True
    """Also score the model before its first step: the learning curve then starts at epoch 0."""
    early_stopping_patience: PositiveInt | None = None
    """Scores without a higher F1 after which training stops; null: all epochs are trained."""


@dataclass(frozen=True)
class DistillationSettings:
    """Learning from a larger model's answers, too."""

    teacher: str | None = None
    """Folder or Hub name of a model with a span head and the same tokenizer."""
    weight: ClosedUnitInterval = 0.5
    """Part of the loss that is the distance to the teacher; the labels have the rest."""
    temperature: PositiveFloat = 2.0
    """Softens both distributions before they are compared."""


@dataclass(frozen=True)
class DecodingSettings:
    """From logits to answers."""

    n_best: PositiveInt = 20
    """Candidates kept for a question."""
    max_answer_length: PositiveInt = 30
    """Tokens in an answer at most."""
    mode: Literal["exact", "reference"] = "exact"
    """exact: the best of all spans; reference: run_qa's search over n_best starts and ends."""
    max_context: bool = False
    """An answer begins only at a token that has no more context in another window, as in BERT's
    run_squad."""


@dataclass(frozen=True)
class ScoringSettings:
    """How answers are compared."""

    language: LanguageName | None = None
    """Compare by MLQA's rules for this language; null: by the official SQuAD scripts' rules."""


@dataclass(frozen=True)
class ScalingSettings:
    """What of the cluster a job uses."""

    num_workers: PositiveInt = 1
    """Training processes."""
    use_gpu: bool | None = None
    """One GPU for each worker; null: if the cluster has GPUs."""
    cpus_per_worker: PositiveInt = 1
    """CPUs Ray sets aside for each worker."""
    gpus_per_worker: PositiveFloat = 1.0
    """GPUs Ray sets aside for each worker where it uses any; below 1, small models share one."""
    threads_per_worker: PositiveInt | None = None
    """Threads of a worker's arithmetic; null: the node's cores shared by the workers on it."""
    max_failures: NonNegativeInt = 2
    """Times a failed or lost worker is replaced, going on from the last checkpoint."""
    storage_patience_seconds: NonNegativeFloat = 300.0
    """How long a checkpoint that cannot be written is tried again before the run stops."""


@dataclass(frozen=True)
class TrackingSettings:
    """Where the numbers of a training are sent while it runs."""

    trackers: list[TrackerName] = field(default_factory=lambda: ["tensorboard"])
    """Any of tensorboard (files in the run's folder), mlflow and wandb; [] for none."""
    project: str = "ray-extractive-qa"
    """MLflow's experiment, and the project of Weights & Biases."""


@dataclass(frozen=True)
class HubSettings:
    """Where the model is pushed when it is done; the token is never a setting."""

    repo_id: str | None = None
    """Repository on the Hub, ORG/NAME, made if it is not there; null: the model stays here. The
    token is HF_TOKEN's or that of `hf auth login`, on the machine of the job's driver."""
    private: bool = True
    """Whether a repository that is made now is seen by its owners alone; one that is there stays
    as it is."""


@dataclass(frozen=True)
class RunSettings:
    """Where a run's files go."""

    run_name: str = "demo"
    """Names the run; the same name and settings continue it."""
    storage_path: str = "runs"
    """Folder or URI (s3://, gs://) seen by every node; the run is storage_path/run_name."""


@dataclass(frozen=True)
class TrainConfig(RunSettings):
    """Fine-tune a model, score it after every epoch, keep the best."""

    data: DataSettings = field(default_factory=DataSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    features: FeatureSettings = field(default_factory=FeatureSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    distillation: DistillationSettings = field(default_factory=DistillationSettings)
    decoding: DecodingSettings = field(default_factory=DecodingSettings)
    scoring: ScoringSettings = field(default_factory=ScoringSettings)
    scaling: ScalingSettings = field(default_factory=ScalingSettings)
    tracking: TrackingSettings = field(default_factory=TrackingSettings)
    hub: HubSettings = field(default_factory=HubSettings)


@dataclass(frozen=True)
class TuneSettings:
    """What is searched how, and when a sweep ends.

    Any key of data.train, model, features, train and decoding takes a list (a grid) or
    uniform(a, b), loguniform(a, b), quniform(a, b, step) or choice(a, b, …) in place of a value.
    """

    searcher: Literal["grid", "random", "optuna"] | None = None
    """Which points are tried; null: all of them (grid) where they can be counted, else random.
    optuna (its TPE) needs the package optuna."""
    scheduler: Literal["asha", "none"] = "asha"
    """asha: trials are scored at rungs, and only the best go on; none: all go on to their end."""
    metric: Literal["f1", "exact"] = "f1"
    """Of whole examples of the dev data, the higher the better."""
    num_trials: PositiveInt | None = None
    """Points tried at most; null: all of a grid, else 16."""
    max_tokens: PositiveInt | None = None
    """Real tokens trained in all: nothing is begun that would go beyond."""
    max_seconds: PositiveFloat | None = None
    """Wall time: what is in training is then kept and scored as it is, and nothing more begun."""
    reduction_factor: AtLeastTwo = 4
    """Of the trials at a rung one in so many goes on, and rungs are so many times apart."""
    num_rungs: PositiveInt = 2
    """Rungs below the whole training of the longest trial."""
    rung_questions: PositiveInt | None = None
    """Dev questions scored at a rung, about: a fixed part, with and without answers alike; null:
    all of them. A trial's end is scored with all."""
    max_concurrent: PositiveInt | None = None
    """Trials in training at once at most; null: as many as the cluster has room for."""
    eval_max_length: list[PositiveInt] | None = None
    """Lengths of windows that complete trials are scored with beside their own; null: those
    searched."""
    eval_doc_stride: list[NonNegativeInt] | None = None
    """Strides of these windows; null: those searched."""
    train_default: bool = True
    """Train the default setting (of defaults, file and command line, ranges left out) to its end,
    too, to compare the winner with."""
    seeds: PositiveInt = 1
    """Trainings of the winner in all, each with another seed; 1: it is kept as it is."""
    seed: NonNegativeInt = 0
    """Decides which points are drawn."""


@dataclass(frozen=True)
class SweepConfig(TrainConfig):
    """Search settings: train many trials a little and few to the end, keep the best."""

    run_name: str = "sweep"
    """Names the sweep; the same name and settings continue it."""
    tune: TuneSettings = field(default_factory=TuneSettings)


@dataclass(frozen=True)
class CheckConfig(TrainConfig):
    """Say whether this cluster can run a training of these settings, before it is begun."""


@dataclass(frozen=True)
class SubmitConfig:
    """Options of a submission; the job and its settings come after them."""

    address: str | None = None
    """URL of the cluster's dashboard; RAY_API_SERVER_ADDRESS, where it is set, wins."""
    driver_resources: dict[str, float] = field(default_factory=dict)
    """What the driver asks of its node, by Ray's names; none: it runs on the head."""
    detach: bool = False
    """Return when the job is submitted, without its log."""


@dataclass(frozen=True)
class PrepareConfig:
    """Make the tokens of the train and dev data; `jobs.train` then starts from them."""

    storage_path: str = RunSettings.storage_path
    """Folder or URI seen by every node; tokens go to storage_path/prepared."""
    report: bool = False
    """Also tell what other window sizes would cost and could reach."""
    report_max_length: list[PositiveInt] = field(default_factory=lambda: [128, 256, 384, 512])
    """Values of features.max_length in the report."""
    report_doc_stride: list[NonNegativeInt] = field(default_factory=lambda: [32, 64, 128])
    """Values of features.doc_stride in the report."""
    data: DataSettings = field(default_factory=DataSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    features: FeatureSettings = field(default_factory=FeatureSettings)


@dataclass(frozen=True)
class EvaluateConfig(RunSettings):
    """Score a trained model, or predictions made elsewhere, on data.dev."""

    run_name: str = "evaluation"
    """Names the run; the same name and settings continue it."""
    model: str = "runs/demo/model"
    """Folder, URI or Hub name of a model with a span head."""
    predictions: str | None = None
    """Score this JSON file (id to text, "" for no answer) instead; no model is loaded."""
    null_odds: str | None = None
    """JSON file (id to number; larger: no answer is likelier) to find the best thresholds of
    predictions with."""
    allow_missing: bool = False
    """Score questions without a prediction as answered by nothing; false: such a file is an
    error."""
    compare: str | None = None
    """Another predictions.json for the same questions: is the difference more than noise?"""
    data: DevSettings = field(default_factory=DevSettings)
    max_length: PositiveInt | list[PositiveInt] | None = None
    """Tokens in a window, or a list to compare; null: what the model was trained with (else
    384)."""
    doc_stride: NonNegativeInt | list[NonNegativeInt] | None = None
    """Tokens that neighbouring windows share, or a list to compare; null: the model's (else
    128)."""
    null_threshold: float | None = None
    """No answer where null_score - score exceeds it; null: the model's, found when it was
    trained; without one, best spans are given (v1.1) unless the data has unanswerable questions,
    for which the threshold with the best F1 on this data is taken, and said."""
    n_best: PositiveInt | None = None
    """Candidates kept for a question; null: the model's (else 20)."""
    max_answer_length: PositiveInt | None = None
    """Tokens in an answer at most; null: the model's (else 30)."""
    mode: Literal["exact", "reference"] | None = None
    """exact: the best of all spans; reference: run_qa's search; null: the model's (else exact)."""
    max_context: bool | None = None
    """An answer begins only where its token has the most context; null: the model's (else no)."""
    scoring: ScoringSettings = field(default_factory=ScoringSettings)
    use_gpu: bool | None = None
    """Compute logits on GPUs; null: if the cluster has any."""


@dataclass(frozen=True)
class PredictConfig(RunSettings):
    """Answer one question about one text (ask, context), or all of a data set (data.questions)."""

    ask: str | None = None
    """A question."""
    context: str | None = None
    """A UTF-8 text file with the answer in it; "-" for standard input."""
    run_name: str = "answers"
    """Names the run; the same name and settings continue it."""
    data: QuestionSettings = field(default_factory=QuestionSettings)
    model: str = "runs/demo/model"
    """Folder, URI or Hub name of a model with a span head."""
    top_k: PositiveInt = 3
    """Answers shown, and listed as n_best of a question, the best one among them."""
    format: Literal["jsonl", "parquet"] = "jsonl"
    """Of the files of answers: JSON lines or Parquet, the same columns."""
    max_length: PositiveInt | None = None
    """Tokens in a window; null: what the model was trained with (else 384, or all it takes)."""
    doc_stride: NonNegativeInt | None = None
    """Tokens that neighbouring windows share; null: the model's (else 128, at most a third of
    max_length)."""
    null_threshold: float | None = None
    """No answer where null_score - score exceeds it; null: the model's, found when it was trained;
    without one, every question gets its best span (v1.1)."""
    n_best: PositiveInt | None = None
    """Candidates that probabilities are taken over; null: the model's (else 20)."""
    max_answer_length: PositiveInt | None = None
    """Tokens in an answer at most; null: the model's (else 30)."""
    mode: Literal["exact", "reference"] | None = None
    """exact: the best of all spans; reference: run_qa's search; null: the model's (else exact)."""
    max_context: bool | None = None
    """An answer begins only where its token has the most context; null: the model's (else no)."""
    use_gpu: bool | None = None
    """Compute logits of a data set on GPUs; null: if the cluster has any."""


@dataclass(frozen=True)
class ReportConfig:
    """Make the page of the runs whose folders are named before the options."""

    out: str | None = None
    """File or URI of the page; null: report.html in the run's folder, or comparison.html beside
    the first run's."""


def parse_config(kind: type[Config], arguments: Sequence[str] | None = None) -> Config:
    """The configuration that a command line (default: this process's) asks for.

    Raises `ConfigError` for unknown keys and values of the wrong type or range.
    """
    parser = _parser(kind)
    given = _with_flags(kind, list(sys.argv[1:] if arguments is None else arguments))
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            namespace = parser.parse_args(given)
    except ArgumentError as error:
        raise _config_error(str(error), kind, given) from None
    values = parser.instantiate(namespace)
    names = kind.__dataclass_fields__  # type: ignore[attr-defined]
    return kind(**{name: _plain(getattr(values, name)) for name in names})


def _with_flags(kind: type[Any], arguments: list[str]) -> list[str]:
    """The arguments, with "true" after a switch that has no value: `--report`."""
    names = [n for n, default in _defaults(kind) if isinstance(default, bool)]
    switches = {f"--{name}" for name in names}
    completed = []
    for argument, following in zip(arguments, [*arguments[1:], "--"], strict=False):
        completed.append(argument)
        if argument in switches and following.startswith("--"):
            completed.append("true")
    return completed


def dump_config(config: Any) -> str:
    """YAML of a configuration, or of its dictionary, that `--config` reads back."""
    values = config if isinstance(config, dict) else asdict(config)
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def as_list(sources: str | list[str]) -> list[str]:
    """One or many sources, as a list."""
    return [sources] if isinstance(sources, str) else list(sources)


def config_keys(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of a configuration's dictionary."""
    for name, item in value.items():
        if isinstance(item, dict):
            yield from config_keys(item, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", item


def read_value(kind: type[Any], key: str, text: str) -> Any:
    """What the configuration takes `text` for as the value of `key`; raises `ConfigError`."""
    parser: ArgumentParser = _cached_parser(kind)  # type: ignore[arg-type]  # classes can be hashed
    given = [f"--{key}={text}"]
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            namespace = parser.parse_args(given)
    except ArgumentError as error:
        raise _config_error(str(error), kind, given) from None
    return _plain(get_value(parser.instantiate(namespace), key))


def get_value(config: Any, key: str) -> Any:
    """The value of a dotted key."""
    for name in key.split("."):
        config = getattr(config, name)
    return config


def with_value(config: Config, key: str, value: Any) -> Config:
    """The configuration with another value of a dotted key."""
    name, _, rest = key.partition(".")
    inner = with_value(getattr(config, name), rest, value) if rest else value
    return replace(config, **{name: inner})  # type: ignore[type-var]


@lru_cache(maxsize=4)
def _cached_parser(kind: Any) -> ArgumentParser:
    return _parser(kind)


def _plain(value: Any) -> Any:
    """The value with jsonargparse's own kinds of numbers as Python's.

    They would end up in files (the optimizer's state) that then could not be read back safely.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: _plain(getattr(value, f.name)) for f in fields(value)})
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return int(value) if isinstance(value, int) else float(value)


def _parser(kind: type[Any]) -> ArgumentParser:
    module = sys.modules.get("__main__")
    spec = getattr(module, "__spec__", None)
    parser = ArgumentParser(
        prog=f"python -m {spec.name}" if spec else "jobs",
        description=(kind.__doc__ or "").strip(),
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("--config", action="config", help="YAML file of settings.")
    parser.add_class_arguments(kind, None)
    return parser


def _config_error(message: str, kind: type[Any], arguments: Sequence[str]) -> ConfigError:
    """The error with the nearest valid key where a key is unknown."""
    unknown = _unknown_key(message)
    text = " ".join(message.split())
    if unknown is None:
        return ConfigError(text, "configuration", remedy="see --help for every key and its type")
    keys = ["config", *valid_keys(kind)]
    return ConfigError(
        f"unknown key {unknown!r}",
        where="configuration",
        expected=f"a key such as {_nearest(unknown, keys)!r}",
        remedy="see --help for every key",
    )


def _unknown_key(message: str) -> str | None:
    """The key an error message is about, where it says that it does not know the key."""
    patterns = (
        r"Group '(?P<group>[^']+)' does not accept option '(?P<key>[^']+)'",
        r"[Uu]nrecognized arguments: --(?P<key>[\w.-]+)",
        r"Key '(?P<key>[^']+)' is not expected",
        r"[Oo]ption '(?P<key>[^']+)' is not accepted",
    )
    for pattern in patterns:
        match = re.search(pattern, message)
        if match:
            group = match.groupdict().get("group")
            return f"{group}.{match['key']}" if group else match["key"]
    return None


def valid_keys(kind: type[Any]) -> list[str]:
    """Dotted keys that a configuration takes."""
    return [name for name, _ in _defaults(kind) if name not in ("config", "print_config")]


def _defaults(kind: type[Any]) -> list[tuple[str, Any]]:
    """Dotted keys and their defaults."""
    return list(_parser(kind).get_defaults(skip_validation=True).items())


def _nearest(key: str, keys: Sequence[str]) -> str:
    """The valid key most like `key`, by the whole of it or by its last part."""
    last = {name.rpartition(".")[2]: name for name in keys}
    close = difflib.get_close_matches(key, keys, n=1, cutoff=0.75)
    close = close or [
        last[n] for n in difflib.get_close_matches(key.rpartition(".")[2], list(last), n=1)
    ]
    return (close or difflib.get_close_matches(key, keys, n=1, cutoff=0.0))[0]
