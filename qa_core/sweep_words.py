"""sweep report: what a sweep found, in sentences."""

from collections.abc import Mapping, Sequence
from typing import Any

from qa_core.sweep_trials import (
    COMPLETE,
    FAILED,
    STOPPED,
    SweepView,
    finite,
    plural,
    score_text,
    setting_text,
    view_sweep,
)

FAILURES_TOLD = 5
SENTENCE_ROOM = 300  # characters of a cause


def sweep_words(found: Mapping[str, Any], trials: Sequence[Mapping[str, Any]]) -> list[str]:
    """Plain text: how many trials, what won, how sure that is, and what to know about it.

    `found` is the content of sweep.json, `trials` the rows of results.parquet.
    """
    view = view_sweep(found, trials)
    return [
        count_words(found, view),
        *winner_words(found, view),
        *comparison_words(found, view),
        *seed_words(found, view),
        *failure_words(view),
        *(as_sentence(str(text)) for text in found.get("remarks") or ()),
    ]


def count_words(found: Mapping[str, Any], view: SweepView) -> str:
    """How many trials there were, and what they cost."""
    states = [one.state for one in view.trials]
    parts = [
        f"{states.count(state)} {words}"
        for state, words in (
            (COMPLETE, "trained to the end"),
            (STOPPED, "stopped before it"),
            (FAILED, "failed"),
        )
        if states.count(state)
    ]
    text = plural(len(states), "trial") + (f": {', '.join(parts)}" if parts else "")
    tokens = finite(found.get("num_tokens"))
    return text + (f"; {tokens:,.0f} real tokens trained." if tokens is not None else ".")


def winner_words(found: Mapping[str, Any], view: SweepView) -> list[str]:
    """The setting that won, its windows and its score."""
    winner = view.winner
    if winner is None:
        return ["No trial won: none has a score."]
    windows = found.get("windows") or {}
    text = f"Trial {winner.number} won"
    if winner.is_default:
        text += ", the default setting"
    if winner.point:
        text += f": {setting_text(winner)}"
    if windows.get("max_length") is not None and windows.get("doc_stride") is not None:
        text += (
            f"; it answers with windows of max_length {windows['max_length']} and doc_stride "
            f"{windows['doc_stride']}"
        )
    if winner.reached:
        known = " (standard error of the questions)" if winner.reached.error is not None else ""
        text += f". {capital(view.metric_name)} {score_text(winner.reached)}{known}"
    return [f"{text}."]


def comparison_words(found: Mapping[str, Any], view: SweepView) -> list[str]:
    """The winner against the runner-up and the default setting."""
    comparisons = found.get("comparisons") or {}
    words = [
        compared_words(name.replace("_", " "), compared, view)
        for name, compared in comparisons.items()
    ]
    if view.winner and "default_setting" not in comparisons and not view.winner.is_default:
        words.append("There is no default setting to compare with: it has no common score.")
    return words


def compared_words(name: str, compared: Mapping[str, Any], view: SweepView) -> str:
    """A comparison in one sentence."""
    ours, other, difference, low, high = (
        finite(compared.get(part)) for part in ("ours", "other", "difference", "low", "high")
    )
    text = f"The winner against the {name} (trial {compared.get('trial')})"
    if compared.get("when"):
        text += f", {compared['when']}"
    if ours is not None and other is not None:
        text += f": {view.metric_name} {ours:.2f} against {other:.2f}"
    if difference is not None and low is not None and high is not None:
        text += (
            f", a difference of {difference:+.2f} points (95 % interval {low:+.2f} to {high:+.2f})"
        )
    verdict = compared.get("words")
    return f"{text}: {verdict}." if verdict else f"{text}."


def seed_words(found: Mapping[str, Any], view: SweepView) -> list[str]:
    """What the winner reached with other seeds."""
    scores = [finite(one.get("score")) for one in found.get("seeds") or ()]
    known = [score for score in scores if score is not None]
    mean = finite(found.get("seed_mean"))
    if len(known) < 2 or mean is None:
        alone = "The winner was trained with one seed: how much its score owes to it is not known."
        return [alone] if view.winner else []
    deviation = finite(found.get("seed_deviation"))
    spread = "" if deviation is None else f", standard deviation {deviation:.2f}"
    values = ", ".join(f"{score:.2f}" for score in known)
    return [
        f"With {len(known)} seeds the winning setting has {view.metric_name} {mean:.2f} on "
        f"average{spread} ({values}); the best of them is the one kept."
    ]


def failure_words(view: SweepView) -> list[str]:
    """The causes of failures, each once with its trials."""
    causes: dict[str, list[str]] = {}
    for one in view.trials:
        if one.state == FAILED:
            causes.setdefault(one.cause, []).append(str(one.number))
    words = []
    for cause, numbers in list(causes.items())[:FAILURES_TOLD]:
        noun = "Trial" if len(numbers) == 1 else "Trials"
        shown = cause if len(cause) <= SENTENCE_ROOM else f"{cause[:SENTENCE_ROOM]}…"
        why = f": {shown}" if shown else ", its cause was not kept"
        words.append(as_sentence(f"{noun} {', '.join(numbers)} failed{why}"))
    if len(causes) > FAILURES_TOLD:
        words.append(f"Others failed for {plural(len(causes) - FAILURES_TOLD, 'other cause')}.")
    return words


def as_sentence(text: str) -> str:
    """A remark with a capital letter and a full stop."""
    return capital(text) + ("" if text.endswith((".", "!", "?", "…")) else ".")


def capital(text: str) -> str:
    """The first letter large, the rest as it is."""
    return text[:1].upper() + text[1:]
