"""The model card of a run: what the job knows → model/README.md."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from typing import Any

from jobs.artefacts import CARD, PACKAGES, own_version, read_commit
from jobs.configuration import TrainConfig, as_list, config_keys
from jobs.models import EMBEDDED_PACKAGE, is_on_hub
from jobs.prepare import shared_contexts
from jobs.prepared import Prepared
from qa_core.model_card import RunFacts, SplitFacts, base_name, render_card
from qa_core.storage import join, write_bytes

# Of the settings, those that decide what comes out, in the order a person asks for them.
SHOWN = (
    "features.max_length",
    "features.doc_stride",
    "features.labels",
    "features.null_window_fraction",
    "train.num_epochs",
    "train.learning_rate",
    "train.schedule",
    "train.warmup_ratio",
    "train.layer_decay",
    "train.weight_decay",
    "train.max_grad_norm",
    "train.per_worker_batch_size",
    "train.tokens_per_batch",
    "train.gradient_accumulation_steps",
    "scaling.num_workers",
    "train.null_weight",
    "train.early_stopping_patience",
    "train.seed",
    "model.dropout",
)
SHOWN_OF_TEACHER = ("distillation.weight", "distillation.temperature")


def write_card(
    run: str,
    config: TrainConfig,
    splits: Sequence[Prepared],
    *,
    metrics: Mapping[str, Any],
    analysis: Mapping[str, Any],
    chosen: str,
    remarks: Sequence[str] = (),
) -> None:
    """model/README.md; the splits are train and dev, dev with the windows the model answers with.

    `chosen` says in words which weights the model has.
    """
    train, dev = splits
    shared = shared_contexts(train, dev)
    facts = RunFacts(
        name=config.run_name,
        base_model=base_model(config),
        is_on_hub=is_on_hub(config.model.name_or_path),
        train=split_facts(config.data.train, train),
        dev=split_facts(config.data.dev, dev),
        language=config.scoring.language,
        settings=shown_settings(config),
        answering={
            "max_length": dev.settings.max_length,
            "doc_stride": dev.settings.doc_stride,
            **asdict(config.decoding),
        },
        chosen=chosen,
        versions={
            "ray-extractive-qa": own_version(),
            **{name: metadata.version(name) for name in PACKAGES},
        },
        commit=read_commit(),
        remarks=[*([] if shared is None else [shared]), *remarks],
    )
    card = render_card(facts, metrics=metrics, analysis=analysis)
    write_bytes(join(run, "model", CARD), card.encode())


def base_model(config: TrainConfig) -> str:
    """The encoder the training began with, as a person knows it."""
    name = config.model.name_or_path
    return EMBEDDED_PACKAGE.replace("_", "-") if name == "embedded" else name


def split_facts(sources: str | list[str], prepared: Prepared) -> SplitFacts:
    """What a card tells of a split."""
    return SplitFacts(
        as_list(sources), prepared.num_examples, prepared.num_unanswerable, prepared.num_rejected
    )


def shown_settings(config: TrainConfig) -> dict[str, Any]:
    """The settings that a card tells, by key; of a teacher its name alone."""
    values = dict(config_keys(asdict(config)))
    teacher = config.distillation.teacher
    shown = {key: values[key] for key in SHOWN}
    if teacher is not None:
        shown |= {"distillation.teacher": base_name(teacher)}
        shown |= {key: values[key] for key in SHOWN_OF_TEACHER}
    return shown
