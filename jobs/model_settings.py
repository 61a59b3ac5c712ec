"""How a trained model is used: what is configured, else what is stored with it, else defaults."""

from dataclasses import asdict
from typing import Any

from jobs.configuration import (
    DecodingSettings,
    EvaluateConfig,
    FeatureSettings,
    PredictConfig,
)
from jobs.models import load_model_config, resolve_model
from jobs.token_store import cached_tokenizer
from qa_core.answering import SETTINGS_KEY, default_doc_stride, default_max_length
from qa_core.features import max_length_limit


def stored_settings(model: str) -> dict[str, Any]:
    """Windows, decoding and null threshold stored with a model of ours; {} for others."""
    config = load_model_config(resolve_model(model))
    return dict(getattr(config, SETTINGS_KEY, None) or {})


def model_limit(name_or_path: str) -> int | None:
    """Tokens that a model takes at most; None without a limit."""
    model = resolve_model(name_or_path)
    config: Any = load_model_config(model)
    return max_length_limit(tokenizer=cached_tokenizer(model), model_config=config)


def window_settings(
    max_length: int | None,
    doc_stride: int | None,
    stored: dict[str, Any],
    *,
    limit: int | None = None,
) -> FeatureSettings:
    """Window sizes: as configured, else as the model was trained, else the Answerer's defaults.

    `limit`: tokens the model takes at most (`max_length_limit`), which bounds the default.
    """
    max_length = max_length or stored.get("max_length") or default_max_length(limit)
    if doc_stride is None:
        doc_stride = stored.get("doc_stride", default_doc_stride(max_length))
    return FeatureSettings(max_length=max_length, doc_stride=doc_stride)


def decoding_settings(
    config: EvaluateConfig | PredictConfig, stored: dict[str, Any]
) -> DecodingSettings:
    """How to decode: as configured, else as the model was scored in training, else the defaults."""
    chosen = {}
    for name, default in asdict(DecodingSettings()).items():
        configured = getattr(config, name)
        chosen[name] = stored.get(name, default) if configured is None else configured
    return DecodingSettings(**chosen)


def threshold_setting(
    config: EvaluateConfig | PredictConfig, stored: dict[str, Any]
) -> tuple[float | None, str]:
    """The null threshold, None without one, and in words where it came from."""
    if config.null_threshold is not None:
        return config.null_threshold, "as configured"
    if stored.get("null_threshold") is not None:
        return float(stored["null_threshold"]), "stored with the model"
    return None, "none is stored or configured; every question gets the best span (v1.1)"


def threshold_words(threshold: float | None, origin: str) -> str:
    """What a job says of the null threshold it uses."""
    return f"Null threshold: {'none' if threshold is None else f'{threshold:.4g}'}, {origin}."
