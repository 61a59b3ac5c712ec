"""Checkpoints of a training on storage: whole or not there, written beside the next steps.

A checkpoint is a folder `step-NNNNNNNN` with what `AutoModelForQuestionAnswering` loads, the
tokenizer, `training_state.pt`, and `checkpoint.json`, which is written last and lists the other
files with their sizes: a folder that does not match its list is not a checkpoint.
"""

import contextlib
import json
import posixpath
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from pyarrow import fs
from tenacity import (
    RetryCallState,
    retry,
    retry_if_exception_type,
    stop_after_delay,
    wait_exponential,
)

from qa_core.errors import StorageError
from qa_core.storage import is_file, join, locate, read_bytes, write_bytes, write_json_lines
from qa_core.training import STATE_FILE

ABOUT = "checkpoint.json"
LONGEST_PAUSE_SECONDS = 30.0


@dataclass(frozen=True)
class CheckpointFacts:
    """What is known of a checkpoint without opening it."""

    step: int  # steps done
    epoch: float  # epochs done, fractional
    is_scored: bool  # whether the dev data is to be answered with it

    @property
    def name(self) -> str:
        """Name of its folder, and of what is derived from it."""
        return step_name(self.step)


def step_name(step: int) -> str:
    """Name of a step's checkpoint.

    >>> step_name(120)
    'step-00000120'
    """
    return f"step-{step:08d}"


def find_checkpoints(root: str) -> tuple[list[CheckpointFacts], list[str]]:
    """The whole checkpoints below `root` by step, and the names of folders that are not whole."""
    whole, broken = [], []
    for name in _folders(root):
        facts = _read_facts(join(root, name))
        if facts is not None and facts.name == name:
            whole.append(facts)
        else:
            broken.append(name)
    return sorted(whole, key=lambda facts: facts.step), broken


def _folders(root: str) -> list[str]:
    filesystem, path = locate(root)
    found = filesystem.get_file_info(fs.FileSelector(path, allow_not_found=True))
    return sorted(info.base_name for info in found if info.type == fs.FileType.Directory)


def _read_facts(folder: str) -> CheckpointFacts | None:
    """The facts of a whole checkpoint; None of anything else."""
    if not is_file(join(folder, ABOUT)):
        return None
    try:
        about = json.loads(read_bytes(join(folder, ABOUT)))
        sizes = about.pop("files")
        facts = CheckpointFacts(**about)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    filesystem, path = locate(folder)
    found = filesystem.get_file_info([posixpath.join(path, name) for name in sizes])
    is_whole = all(
        info.size == size for info, size in zip(found, sizes.values(), strict=True)
    )  # a missing file has size None
    return facts if is_whole else None


def remove_checkpoint(root: str, name: str) -> None:
    """Delete a checkpoint; nothing where it is gone already."""
    filesystem, path = locate(join(root, name))
    with contextlib.suppress(FileNotFoundError):
        filesystem.delete_dir(path)


def write_checkpoint(root: str, facts: CheckpointFacts, write: Callable[[Path], None]) -> None:
    """Have `write` fill a folder with files and put it below `root`, whole or not at all.

    One that is there already, left by an earlier try, is replaced. Raises `StorageError`.
    """
    filesystem, path = locate(join(root, facts.name))
    is_local = isinstance(filesystem, fs.LocalFileSystem)
    try:
        if is_local:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        prefix = f".{facts.name}-"
        with tempfile.TemporaryDirectory(
            prefix=prefix, dir=Path(path).parent if is_local else None, ignore_cleanup_errors=True
        ) as text:
            folder = Path(text) / facts.name
            folder.mkdir()
            write(folder)
            sizes = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
            about = json.dumps({**asdict(facts), "files": sizes}, indent=1).encode()
            if is_local:
                (folder / ABOUT).write_bytes(about)
                shutil.rmtree(path, ignore_errors=True)
                folder.rename(path)
            else:
                remove_checkpoint(root, facts.name)
                filesystem.create_dir(path, recursive=True)
                fs.copy_files(str(folder), path, destination_filesystem=filesystem)
                write_bytes(join(root, facts.name, ABOUT), about)
    except (OSError, RuntimeError) as error:  # torch and safetensors make a full disk the latter
        raise StorageError(
            f"the checkpoint cannot be written ({error})",
            join(root, facts.name),
            "a writable place with room",
            "make room or mend the storage, then give the same command again",
        ) from error


class CheckpointWriter:
    """Writes checkpoints and the record of steps below a run's folder, beside the training.

    One at a time: `save` waits for the one before. Storage that fails is tried again for
    `patience_seconds`, told by `tell`; then the error comes out of the next `save` or `close`.
    """

    def __init__(self, run: str, *, patience_seconds: float, tell: Callable[[str], None]) -> None:
        self.run = run
        self.patience_seconds, self.tell = patience_seconds, tell
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self.pending: Future[None] | None = None

    def save(
        self,
        facts: CheckpointFacts,
        *,
        model: Any,
        state: Mapping[str, Any],
        tokenizer: Any,
        steps: Sequence[Mapping[str, Any]],
        times: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Copy the model and `state` (of `Trainer.state`) now, write them in a thread.

        `steps` are the records of the steps since the last checkpoint, `times` what they took.
        """
        self.wait()
        weights, kept = copy_tensors(model.state_dict()), copy_tensors(dict(state))
        rows = {HISTORY: list(steps), TIMES: list(times)}

        def write(folder: Path) -> None:
            model.save_pretrained(folder, state_dict=weights)
            tokenizer.save_pretrained(folder)
            torch.save(kept, folder / STATE_FILE)

        self.pending = self.pool.submit(self._write_patiently, facts, write, rows)

    def wait(self) -> None:
        """Return when nothing is being written; raises what went wrong."""
        pending, self.pending = self.pending, None
        if pending is not None:
            pending.result()

    def failed(self) -> bool:
        """Whether the last write has ended in an error."""
        pending = self.pending
        return pending is not None and pending.done() and pending.exception() is not None

    def close(self) -> None:
        """Wait for the last write and end the thread; raises what went wrong."""
        try:
            self.wait()
        finally:
            self.pool.shutdown()

    def _write_patiently(
        self,
        facts: CheckpointFacts,
        write: Callable[[Path], None],
        records: Mapping[str, list[Mapping[str, Any]]],
    ) -> None:
        def tell(state: RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            pause = state.next_action.sleep if state.next_action else 0
            self.tell(f"{error}; trying again in {pause:.0f} s")

        @retry(
            retry=retry_if_exception_type(StorageError),
            stop=stop_after_delay(self.patience_seconds),
            wait=wait_exponential(max=LONGEST_PAUSE_SECONDS),
            before_sleep=tell,
            reraise=True,
        )
        def attempt() -> None:
            for kind, rows in records.items():
                if rows:
                    write_json_lines(join(self.run, kind, f"{facts.name}.jsonl"), rows)
            write_checkpoint(join(self.run, CHECKPOINTS), facts, write)

        attempt()


CHECKPOINTS = "checkpoints"
HISTORY = "history"
TIMES = "times"  # of the same steps: they come by the clock, so that no two runs have the same


def read_history(run: str, last_step: int, kind: str = HISTORY) -> Iterator[dict[str, Any]]:
    """The records of the steps from the first to `last_step`, each once, in order.

    A file of the history ends at its checkpoint's step. Of a run that went back to an earlier
    checkpoint some overlap: later ones count.
    """
    chain = []
    while last_step > 0:
        file = join(run, kind, f"{step_name(last_step)}.jsonl")
        lines = read_bytes(file).split(b"\n")[:-1]
        chain.append(lines)
        last_step = int(json.loads(lines[0])["step"]) - 1
    for lines in reversed(chain):
        yield from map(json.loads, lines)


def copy_tensors(value: Any) -> Any:
    """`value` with every tensor in it copied to the CPU's memory."""
    if torch.is_tensor(value):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: copy_tensors(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(copy_tensors(item) for item in value)
    return value


def checkpoints_to_remove(
    whole: Iterable[CheckpointFacts], *, scores: Mapping[int, float]
) -> list[CheckpointFacts]:
    """The checkpoints a run can do without: all but the last, the best scored, those to score.

    `scores` maps steps to F1 where it is known; of equals the first is the best.
    """
    kept = sorted(whole, key=lambda facts: facts.step)
    scored = [facts for facts in kept if facts.step in scores]
    best = min(scored, key=lambda facts: (-scores[facts.step], facts.step), default=None)
    return [
        facts
        for facts in kept[:-1]
        if facts is not best and (facts.step in scores or not facts.is_scored)
    ]
