"""Feature generation on a local Ray: nothing twice, nothing lost, nothing stale."""

import json
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pytest

from jobs import prepare
from jobs.configuration import ColumnSettings, DataSettings, FeatureSettings
from jobs.prepared import Prepared, load_prepared, read_rejections, window_blocks
from jobs.token_pipeline import REPEATED_QUESTION
from jobs.token_shards import find_repeats
from jobs.token_store import REMARKS, find_done, load_store, read_facts, shard_file
from qa_core.demo_corpus import generate_corpus
from qa_core.errors import ConfigError, DataError
from qa_core.features import build_features
from qa_core.feeding import WindowFeed
from qa_core.reading import read_examples
from qa_core.storage import read_table
from qa_core.tokenizing import load_tokenizer
from tests.conftest import LocalRay

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]

SIZES = {"max_length": 96, "doc_stride": 24}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file of some 1,800 questions: several shards."""
    file = tmp_path_factory.mktemp("corpus") / "train.json"
    document = generate_corpus("train", num_passages=450)
    file.write_text(json.dumps(document), encoding="utf-8")
    return str(file)


def run(source: str | list[str], model: Path, storage: Path, *more: str) -> None:
    """`jobs.prepare` on a train source, with a small dev."""
    prepare.main(
        [
            f"--data.train={json.dumps(source) if isinstance(source, list) else source}",
            "--data.dev=embedded:handwritten",
            f"--model.name_or_path={model}",
            *(f"--features.{name}={value}" for name, value in SIZES.items()),
            f"--storage_path={storage}",
            *more,
        ]
    )


def folder_of(source: str | list[str], model: Path, storage: Path, **data: Any) -> Path:
    """Where the tokens of the train source are."""
    split = prepare.find_split(DataSettings(train=source, **data), "train")
    return Path(prepare.prepared_folder(str(storage), split, str(model)))


def found(source: str | list[str], model: Path, storage: Path, **sizes: Any) -> Prepared:
    """What was prepared of the train source."""
    settings = FeatureSettings(**{**SIZES, **sizes})
    prepared = load_prepared(str(folder_of(source, model, storage)), str(model), settings)
    assert prepared is not None
    return prepared


def all_features(prepared: Prepared) -> pa.Table:
    """Every window, in order."""
    feed = WindowFeed(window_blocks(prepared))
    return feed.take(np.arange(len(feed)))


def expected_features(source: str | list[str], model: Path, **sizes: int) -> pa.Table:
    """The same in one process, from the texts."""
    examples, _ = read_examples(source)
    tokenizer = load_tokenizer(str(model))
    return build_features(examples, tokenizer=tokenizer, **{**SIZES, **sizes})


def contents(folder: Path) -> dict[str, bytes]:
    """Examples and tokens of every shard (facts hold times)."""
    files = [*folder.glob("examples-*.arrow"), *folder.glob("tokens-*.arrow")]
    return {file.name: file.read_bytes() for file in files}


def times(folder: Path) -> dict[str, int]:
    """When each shard's facts were written."""
    return {file.name: file.stat().st_mtime_ns for file in folder.glob("facts-*.arrow")}


def test_other_window_sizes_start_from_the_same_tokens(
    corpus: str, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second (max_length, doc_stride) tokenizes nothing, and gives what texts would give."""
    run(corpus, tiny_model, tmp_path)
    folder = folder_of(corpus, tiny_model, tmp_path)
    before = times(folder)
    assert len(before) >= 3
    capsys.readouterr()
    run(corpus, tiny_model, tmp_path, "--features.max_length=64", "--features.doc_stride=16")
    assert "made in" not in capsys.readouterr().out
    assert times(folder) == before
    for sizes in ({}, {"max_length": 64, "doc_stride": 16}):
        prepared = found(corpus, tiny_model, tmp_path, **sizes)
        expected = expected_features(corpus, tiny_model, **sizes)
        assert all_features(prepared).equals(expected)
        assert prepared.num_features == len(expected)
        assert prepared.num_tokens == sum(map(len, expected["input_ids"].to_pylist()))


def test_each_text_is_tokenized_once_in_a_shard_and_no_passage_in_two(
    corpus: str, tiny_model: Path, tmp_path: Path
) -> None:
    """Bytes given to the tokenizer: the passages' once, each shard's distinct questions."""
    run(corpus, tiny_model, tmp_path)
    folder = folder_of(corpus, tiny_model, tmp_path)
    store = load_store(str(folder), str(tiny_model))
    assert store is not None
    examples, _ = read_examples(corpus)
    passages = set(examples["context"].to_pylist())
    questions = [
        {text.lstrip() for text in read_table(str(file))["question"].to_pylist()}
        for file in folder.glob("examples-*.arrow")
    ]
    texts = [*passages, *(text for shard in questions for text in shard)]
    assert store.num_tokenized_bytes == sum(len(text.encode()) for text in texts)


def test_an_interrupted_run_makes_only_what_is_missing(
    corpus: str, tiny_model: Path, tmp_path: Path
) -> None:
    """Shards that are whole stay as they are; half a shard is made again; the end is the same."""
    run(corpus, tiny_model, tmp_path)
    folder = folder_of(corpus, tiny_model, tmp_path)
    whole, before = contents(folder), times(folder)
    shards = find_done(str(folder))
    for name in ("manifest.json", f"facts-{shards[1]}.arrow", f"tokens-{shards[1]}.arrow"):
        (folder / name).unlink()
    (folder / f"facts-{shards[2]}.arrow").unlink()
    run(corpus, tiny_model, tmp_path)
    assert contents(folder) == whole
    after = times(folder)
    changed = {name for name in before if after[name] != before[name]}
    assert changed == {f"facts-{shard}.arrow" for shard in shards[1:3]}


@pytest.mark.slow
def test_a_killed_worker_loses_and_doubles_nothing(
    tiny_model: Path, tmp_path: Path, local_ray: LocalRay
) -> None:
    """A process that reads or tokenizes is killed in the middle: the same tokens in the end."""
    file = tmp_path / "train.json"
    document = generate_corpus("train", num_passages=6000)
    file.write_text(json.dumps(document), encoding="utf-8")
    run(str(file), tiny_model, tmp_path / "calm")
    killed: list[str] = []
    is_over = threading.Event()
    killer = threading.Thread(target=kill_one_of_each, args=(local_ray.pid, killed, is_over))
    killer.start()
    try:
        run(str(file), tiny_model, tmp_path / "storm")
    finally:
        is_over.set()
        killer.join()
    assert len(killed) == 2, "no process was seen at work"
    calm, storm = (folder_of(str(file), tiny_model, tmp_path / name) for name in ("calm", "storm"))
    assert contents(storm) == contents(calm)


def kill_one_of_each(head: int, killed: list[str], is_over: threading.Event) -> None:
    """SIGKILL one process that reads and one that makes shards, of this session's Ray."""
    while not is_over.is_set() and len(killed) < 2:
        for process in psutil.Process(head).children(recursive=True):
            try:
                title = process.cmdline()[0] if process.cmdline() else ""
            except psutil.Error:
                continue
            for name, other in (("read_shards", "make_shards"), ("make_shards", "read_shards")):
                if not title.startswith("ray::") or name not in title or other in title:
                    continue  # both in one task would mean that one process does all the work
                if name not in killed:
                    process.send_signal(signal.SIGKILL)
                    killed.append(name)
        time.sleep(0.01)


def test_ids_repeated_in_other_shards_are_left_out_and_listed(
    corpus: str, tiny_model: Path, tmp_path: Path
) -> None:
    """Of the same id in several files the first is kept; features are those of one process."""
    document = json.loads(Path(corpus).read_text())
    paragraphs = document["data"][0]["paragraphs"][:30]
    copy = tmp_path / "copy.json"
    copy.write_text(json.dumps({"data": [{"title": "again", "paragraphs": paragraphs}]}))
    sources = [corpus, str(copy)]
    run(sources, tiny_model, tmp_path, "--data.max_rejected_fraction=0.5")
    prepared = found(sources, tiny_model, tmp_path)
    _, rejected = read_examples(sources)
    listed = read_rejections(prepared)
    assert listed.num_rows == rejected.num_rows > 0
    for column in ("source", "record", "id", "reason"):
        assert listed[column].to_pylist() == rejected[column].to_pylist()
    assert all_features(prepared).equals(expected_features(sources, tiny_model))


def test_repeats_are_found_in_order() -> None:
    """Every place but the first of each key, whatever the order of the keys."""
    generator = np.random.default_rng(0)
    keys = generator.integers(-3, 3, (200, 2))
    seen: set[tuple[int, int]] = set()
    expected = []
    for place, key in enumerate(map(tuple, keys.tolist())):
        if key in seen:
            expected.append(place)
        seen.add(key)
    assert find_repeats(keys).tolist() == expected
    assert find_repeats(np.zeros((0, 2), np.int64)).tolist() == []


def test_many_broken_records_are_all_listed_and_the_good_ones_kept(
    corpus: str, tiny_model: Path, tmp_path: Path
) -> None:
    """10 % broken: the run stops, rejections.jsonl has all, and the tokens are not made again."""
    document = json.loads(Path(corpus).read_text())
    questions = [q for a in document["data"] for p in a["paragraphs"] for q in p["qas"]]
    for question in questions[::10]:
        question["question"] = None
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps(document))
    count = len(questions[::10])
    message = rf"{count} of {len(questions)} records cannot be used \(missing question: {count}\)"
    with pytest.raises(DataError, match=message):
        run(str(broken), tiny_model, tmp_path)
    folder = folder_of(str(broken), tiny_model, tmp_path)
    listed = [json.loads(line) for line in (folder / "rejections.jsonl").read_text().splitlines()]
    assert [row["record"] for row in listed] == list(range(0, len(questions), 10))
    before = times(folder)
    run(str(broken), tiny_model, tmp_path, "--data.max_rejected_fraction=0.2")
    assert times(folder) == before
    assert found(str(broken), tiny_model, tmp_path).num_examples == len(questions) - count


def test_no_usable_record_is_an_error_that_says_where_to_look(
    tiny_model: Path, tmp_path: Path
) -> None:
    """All rejected: nothing to train on, and a list of why."""
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"id": "1", "question": "Who?"}\n')
    with pytest.raises(DataError, match=r"data\.train: no usable question \(1 records rejected\)"):
        run(str(broken), tiny_model, tmp_path)


def test_a_file_that_breaks_off_keeps_the_shards_before_it(
    corpus: str, tiny_model: Path, tmp_path: Path
) -> None:
    """The error names the place; whole shards stay, and a mended file of another content is new."""
    text = Path(corpus).read_text()
    cut = tmp_path / "cut.json"
    cut.write_text(text[: int(len(text) * 0.9)])
    with pytest.raises(DataError, match=r"cut\.json: not JSON at line 1, column \d+"):
        run(str(cut), tiny_model, tmp_path)
    folder = folder_of(str(cut), tiny_model, tmp_path)
    assert not (folder / "manifest.json").exists()
    cut.write_text(text)
    assert folder_of(str(cut), tiny_model, tmp_path) != folder


def test_columns_formats_and_repairs_come_from_the_configuration(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """JSON lines with names of their own, an answer off by a space: repaired, and said so."""
    lines = [
        {"key": "a", "text": "Orla  bridge opened.", "query": "What?", "gold": ["Orla bridge", 0]},
        {"key": "b", "text": "Orla  bridge opened.", "query": "What?", "gold": ["opened", 13]},
    ]
    rows = [
        {**line, "gold": {"text": [line["gold"][0]], "answer_start": [line["gold"][1]]}}
        for line in lines
    ]
    file = tmp_path / "train.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = {"id": "key", "context": "text", "question": "query", "answers": "gold"}
    more = [f"--data.columns.{ours}={theirs}" for ours, theirs in columns.items()]
    run(str(file), tiny_model, tmp_path, *more, "--data.repair_offsets=true")
    folder = folder_of(
        str(file), tiny_model, tmp_path, columns=ColumnSettings(**columns), repair_offsets=True
    )
    remarks = [json.loads(line) for line in (folder / REMARKS).read_text().splitlines()]
    assert [(r["record"], r["reason"]) for r in remarks] == [
        (0, "white space"),
        (1, REPEATED_QUESTION),
    ]
    assert "2 records were remarked on" in " ".join(capsys.readouterr().out.split())
    shard = read_table(shard_file(str(folder), "examples", find_done(str(folder))[0]))
    assert shard["answers"].to_pylist()[0] == {"text": ["Orla  bridge"], "answer_start": [0]}


def test_null_windows_are_sampled_in_training_only(
    corpus: str, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Seeded, reported, and no window with an answer is lost."""
    sizes = ["--features.max_length=48", "--features.doc_stride=8"]
    run(corpus, tiny_model, tmp_path, *sizes, "--features.null_window_fraction=0.25")
    shown = " ".join(capsys.readouterr().out.split())
    given = {"max_length": 48, "doc_stride": 8}
    prepared = found(corpus, tiny_model, tmp_path, **given, null_window_fraction=0.25)
    features = all_features(prepared)
    whole = expected_features(corpus, tiny_model, **given)
    is_null, was_null = (
        np.asarray(t["start_positions"]) == np.asarray(t["cls_index"]) for t in (features, whole)
    )
    assert len(features) == prepared.num_features
    assert (~is_null).sum() == (~was_null).sum() > 0
    assert 0.15 < is_null.sum() / was_null.sum() < 0.35
    assert f"{was_null.sum() - is_null.sum()} of {was_null.sum()} left out" in shown
    assert shown.count("null windows sampled") == 1


def test_all_answers_are_labels_of_training_windows_only(tiny_model: Path, tmp_path: Path) -> None:
    """Windows of train have all accepted answers, counted as such; dev is found as ever."""
    context = " ".join(f"word{number}" for number in range(90))
    words = ["word0", "word40", "word80"]
    answers = {"text": words, "answer_start": [context.index(word) for word in words]}
    record = {"id": "a", "context": context, "question": "Which?", "answers": answers}
    source = tmp_path / "several.json"
    source.write_text(json.dumps([record]), encoding="utf-8")
    settings = {"max_length": 48, "doc_stride": 8}
    sizes = [f"--features.{name}={value}" for name, value in settings.items()]
    run(str(source), tiny_model, tmp_path, *sizes)
    first = found(str(source), tiny_model, tmp_path, **settings)
    more = ["--features.labels=all", "--features.null_window_fraction=0.0"]
    run(str(source), tiny_model, tmp_path, *sizes, *more)
    chosen = {**settings, "labels": "all", "null_window_fraction": 0.0}
    prepared = found(str(source), tiny_model, tmp_path, **chosen)
    feed = WindowFeed(window_blocks(prepared))
    spans = feed.label_spans(np.arange(len(feed)))
    positions = all_features(prepared)["start_positions"].to_pylist()
    assert spans.start[spans.splits[:-1]].tolist() == positions
    assert prepared.num_features == prepared.plan.num_windows - prepared.plan.num_null_windows
    assert prepared.plan.num_null_windows < first.plan.num_null_windows
    dev = prepare.find_split(DataSettings(train=str(source), dev="embedded:handwritten"), "dev")
    folder = prepare.prepared_folder(str(tmp_path), dev, str(tiny_model))
    assert load_prepared(folder, str(tiny_model), FeatureSettings(**settings)) is not None
    assert load_prepared(folder, str(tiny_model), FeatureSettings(**chosen)) is None


def test_the_report_compares_window_sizes(
    corpus: str, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line a size, impossible ones named, a size that another beats called dominated."""
    sizes = ["--report_max_length=[32,96,512]", "--report_doc_stride=[8,40]"]
    run(corpus, tiny_model, tmp_path, "--report", *sizes)
    shown = " ".join(capsys.readouterr().out.split())
    assert "Windows of train" in shown
    assert "Windows of dev" in shown
    assert "left out of the report: features.doc_stride: doc_stride 40 is too large" in shown
    assert "max_length 512 is above the model's 128" in shown
    assert "dominated" in shown


def test_a_source_named_twice_is_refused(tiny_model: Path, corpus: str, tmp_path: Path) -> None:
    """Every record would be rejected as a duplicate of itself."""
    with pytest.raises(ConfigError, match="is named more than once"):
        run([corpus, corpus], tiny_model, tmp_path)


def test_facts_add_up(corpus: str, tiny_model: Path, tmp_path: Path) -> None:
    """Accepted + rejected = read, over all shards."""
    run(corpus, tiny_model, tmp_path)
    folder = folder_of(corpus, tiny_model, tmp_path)
    store = load_store(str(folder), str(tiny_model))
    assert store is not None
    facts = read_facts(str(folder), store.shards, ["num_examples"])
    assert sum(facts["num_examples"].to_pylist()) + store.num_rejected == store.num_read
