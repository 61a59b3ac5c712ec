"""Data of any size made from real data.

`write_repeated`: fresh ids, the words of each context shuffled, so that distinct texts stay
distinct, with the lengths of the real ones. Answers are runs of one to five words of the shuffled
context. Seeded; questions stay as they are but for a number in front.
`take_repeated`: the same texts again under fresh ids.
"""

import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from qa_core.sources import load_embedded


def write_repeated(source: str, target: Path, num_questions: int, *, seed: int = 0) -> None:
    """Write nested SQuAD JSON with exactly `num_questions` questions, an article at a time."""
    is_embedded = source.startswith("embedded:")
    document = load_embedded(source) if is_embedded else json.loads(Path(source).read_bytes())
    paragraphs = list(_paragraphs(document))
    generator = random.Random(seed)
    done = 0
    with target.open("w", encoding="utf-8") as stream:
        stream.write('{"version": "repeated", "data": [')
        for number in range(10**9):
            context, questions = paragraphs[number % len(paragraphs)]
            questions = questions[: num_questions - done]
            copy = _shuffled(context, questions, number, number // len(paragraphs), generator)
            article = {"title": f"t{number}", "paragraphs": [copy]}
            stream.write(("," if number else "") + json.dumps(article, ensure_ascii=False))
            done += len(questions)
            if done >= num_questions:
                break
        stream.write("]}")


def take_repeated(examples: pa.Table, rows: NDArray[np.int64]) -> pa.Table:
    """The examples at `rows`, in that order; one that comes again has a new id.

    Of ["a", "b"] the rows [0, 1, 0] have the ids a, b, a#1.
    """
    taken = examples.take(pa.array(rows))
    seen: Counter[int] = Counter()
    ids = []
    for row, example_id in zip(rows.tolist(), taken["id"].to_pylist(), strict=True):
        ids.append(f"{example_id}#{seen[row]}" if seen[row] else example_id)
        seen[row] += 1
    return taken.set_column(taken.schema.get_field_index("id"), "id", pa.array(ids, pa.string()))


def _paragraphs(document: Any) -> Iterator[tuple[str, list[str]]]:
    for article in document["data"]:
        for paragraph in article["paragraphs"]:
            yield paragraph["context"], [qa["question"] for qa in paragraph["qas"]]


def _shuffled(
    context: str, questions: list[str], number: int, repetition: int, generator: random.Random
) -> dict[str, Any]:
    words = context.split()
    generator.shuffle(words)
    starts = [0]
    for word in words:
        starts.append(starts[-1] + len(word) + 1)
    qas = []
    for q, question in enumerate(questions):
        first = generator.randrange(len(words))
        text = " ".join(words[first : first + generator.randint(1, 5)])
        answers = [{"text": text, "answer_start": starts[first]}]
        asked = f"{repetition} {question.strip()}" if repetition else question
        qas.append({"id": f"{number}-{q}", "question": asked, "answers": answers})
    return {"context": " ".join(words), "qas": qas}
