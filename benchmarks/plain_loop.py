"""The peer of the main job: one process, one plain PyTorch loop over the same features.

Shuffled batches padded to their longest, AdamW, linear schedule with warm-up, gradient clipping,
as everybody writes it; then the same decoding and scoring. It prints one JSON line.
"""

import json
import sys
import time

import torch
from transformers import get_scheduler

from jobs.configuration import TrainConfig, parse_config
from jobs.models import resolve_model
from qa_core.batching import collate, padding_rules
from qa_core.decoding import decode_answers
from qa_core.features import build_features
from qa_core.inference import predict_logits
from qa_core.reading import read_examples
from qa_core.scoring import score_predictions
from qa_core.tokenizing import load_tokenizer
from qa_core.training import batch_losses, load_model


def main() -> None:
    """Train and score with the settings of a `jobs.train` command line."""
    started = time.monotonic()
    config = parse_config(TrainConfig)
    path = resolve_model(config.model.name_or_path)
    tokenizer = load_tokenizer(path)
    rules, device = padding_rules(tokenizer), torch.device("cpu")
    tables = {}
    for split in ("train", "dev"):
        examples, _ = read_examples(getattr(config.data, split))
        features = build_features(
            examples,
            tokenizer=tokenizer,
            max_length=config.features.max_length,
            doc_stride=config.features.doc_stride,
        )
        tables[split] = (examples, features)
    train = tables["train"][1]
    model = load_model(path, seed=config.train.seed)
    batch_size = config.train.per_worker_batch_size
    num_steps = config.train.num_epochs * -(-len(train) // batch_size)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.train.learning_rate, weight_decay=config.train.weight_decay
    )
    schedule = get_scheduler(
        "linear", optimizer, round(config.train.warmup_ratio * num_steps), num_steps
    )
    training_started = time.monotonic()
    num_padding = num_tokens = 0
    model.train()
    for epoch in range(config.train.num_epochs):
        generator = torch.Generator().manual_seed(config.train.seed + epoch)
        for rows in torch.randperm(len(train), generator=generator).split(batch_size):
            batch = collate(train, rows.numpy(), rules)
            batch_losses(model, batch, device).mean().backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.train.max_grad_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            num_tokens += int(batch.lengths.sum())
            num_padding += batch.num_padding_tokens
    training_seconds = time.monotonic() - training_started
    examples, features = tables["dev"]
    start, end = predict_logits(model, features, rules=rules, device=device)
    answers = decode_answers(features, start, end, examples=examples)
    predictions = dict(zip(answers["id"].to_pylist(), answers["text"].to_pylist(), strict=True))
    scores = score_predictions(predictions, examples)
    result = {
        "exact": scores["exact"],
        "f1": scores["f1"],
        "training_seconds": training_seconds,
        "seconds": time.monotonic() - started,
        "num_windows": len(train) * config.train.num_epochs,
        "num_tokens": num_tokens,
        "padding_share": num_padding / (num_tokens + num_padding),
    }
    json.dump(result, sys.stdout)
    print()


if __name__ == "__main__":
    main()
