"""A sweep as its files tell of it: sweep.json and the rows of results.parquet."""

from itertools import product
from typing import Any

KEYS = ("features.max_length", "features.doc_stride", "train.learning_rate")
LENGTHS, STRIDES, RATES = (128, 256, 384), (16, 64), (1e-5, 5e-5, 2e-4)
RUNGS = (1_000, 4_000)
TOKENS = 16_000


def score_of(length: int, stride: int, rate: float, part: float) -> float:
    """Rises with what was trained; the best is in the middle of the rates."""
    return round(40 + length / 32 + stride / 64 + 9 * (rate == 5e-5) + 20 * part, 3)


def trial(number: int, setting: tuple[int, int, float], **more: Any) -> dict[str, Any]:
    """A row of results.parquet; every third trial is complete, others stopped at a rung."""
    rate = setting[2]
    is_complete = number % 3 == 0
    places = [*RUNGS, TOKENS] if is_complete else list(RUNGS[: 1 + number % 2])
    rungs = [
        {
            "num_tokens": tokens,
            "step": tokens // 100,
            "total": 500,
            "exact": score_of(*setting, tokens / TOKENS) - 5,
            "f1": score_of(*setting, tokens / TOKENS),
            "exact_error": 2.0,
            "f1_error": 1.5,
        }
        for tokens in places
    ]
    sizes = [
        {
            "max_length": one,
            "doc_stride": two,
            "f1": score_of(one, two, rate, 1.0),
            "exact": score_of(one, two, rate, 1.0) - 5,
            "exact_error": 2.0,
            "f1_error": 1.5,
        }
        for one, two in product(LENGTHS, STRIDES)
    ]
    best = max(sizes, key=lambda row: row["f1"])
    return {
        "trial": number,
        "kind": "search",
        "seed": 0,
        "status": "complete" if is_complete else "waiting",
        "is_winner": False,
        "cause": None,
        **dict(zip(KEYS, setting, strict=True)),
        "total_tokens": TOKENS,
        "num_tokens": places[-1],
        "exact": rungs[-1]["exact"],
        "f1": rungs[-1]["f1"],
        "eval_loss": 1.0,
        "null_threshold": None,
        "best_max_length": best["max_length"] if is_complete else None,
        "best_doc_stride": best["doc_stride"] if is_complete else None,
        "best_score": best["f1"] if is_complete else None,
        "train_seconds": places[-1] / 200,
        "score_seconds": 2.0 * len(places),
        "times_halved": 0,
        "rungs": rungs,
        "sizes": sizes if is_complete else [],
        **more,
    }


def failed(number: int) -> dict[str, Any]:
    """A trial that came to nothing."""
    nothing = dict.fromkeys(("exact", "f1", "eval_loss", "best_max_length", "best_doc_stride"))
    row = trial(number, (128, 16, 1e-5), status="failed", cause="the loss is nan")
    return {**row, **nothing, "best_score": None, "rungs": [], "sizes": [], "num_tokens": 0}


def recorded_sweep() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """sweep.json and the rows of results.parquet: 18 settings, a default and a failure."""
    rows = [trial(n, setting) for n, setting in enumerate(product(LENGTHS, STRIDES, RATES))]
    rows += [trial(18, (384, 16, 2e-4), kind="default"), failed(19)]
    best = max((r for r in rows if r["status"] == "complete"), key=lambda r: r["best_score"])
    best["is_winner"] = True
    compared = {"ours": 78.0, "other": 70.0, "difference": 8.0, "low": 3.0, "high": 13.0}
    compared |= {"verdict": "distinguishable at this size", "words": "better", "trial": 18}
    found = {
        "metric": "f1",
        "keys": list(KEYS),
        "rungs": list(RUNGS),
        "winner": best["trial"],
        "default_trial": 18,
        "winner_point": {key: best[key] for key in KEYS},
        "windows": {"max_length": 384, "doc_stride": 64},
        "num_tokens": sum(row["num_tokens"] for row in rows),
        "spare_tokens": 0,
        "comparisons": {"default_setting": {**compared, "when": "both trained to their end"}},
        "sensitivity_of": "scores at rung 1",
        "sensitivities": [
            {
                "key": key,
                "share": share,
                "chance": 0.12,
                "range": 9.0 * share,
                "means": [{"value": "1", "mean": 50.0, "num_trials": 6}],
            }
            for key, share in zip(KEYS[::-1], (0.6, 0.3, 0.05), strict=True)
        ],
        "seeds": [{"trial": best["trial"], "seed": 0, "score": best["best_score"]}],
        "seed_mean": best["best_score"],
        "seed_deviation": None,
        "remarks": ["the winner was chosen among 18 trials by these dev questions"],
    }
    return found, rows
