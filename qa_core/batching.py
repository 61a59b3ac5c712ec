"""batch: features → tensors, padded or packed. Padding happens here and nowhere else."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from qa_core.feeding import TokenWindows, WindowFeed, table_windows
from qa_core.packing import SPLITS, position_ids
from qa_core.tokenizing import splits_of


@dataclass(frozen=True)
class PaddingRules:
    """What a model's inputs look like: read off its tokenizer once (`padding_rules`)."""

    pad_token_id: int
    pad_token_type_id: int
    is_left: bool
    has_token_type_ids: bool
    # Position of a packed window's first token (`qa_core.packing.pack_model`); None: padded.
    packed_position: int | None = None


@dataclass(frozen=True)
class Batch:
    """Windows as a model takes them: padded to the longest of them, or packed in one row."""

    inputs: dict[str, Any]  # input_ids and what else the model is called with
    lengths: NDArray[np.int64]  # (batch,) real tokens
    place: torch.Tensor  # (tokens,) where real tokens are in input_ids, flattened
    label_row: torch.Tensor  # (spans,) which of the windows an accepted span is of, rising
    label_start: torch.Tensor  # (spans,) token in the window
    label_end: torch.Tensor  # (spans,) inclusive
    is_null: torch.Tensor  # (batch,) whether the window is labelled "no answer"
    teacher: torch.Tensor | None = None  # (2, tokens) start and end logits to learn from

    @property
    def num_padding_tokens(self) -> int:
        """Places of the batch that hold no token."""
        return int(self.inputs["input_ids"].numel() - self.lengths.sum())

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device; memory must be pinned for the copy not to wait."""

        def move(value: Any) -> Any:
            return value.to(device, non_blocking=True) if torch.is_tensor(value) else value

        return self._map(move)

    def pin_memory(self) -> "Batch":
        """The batch in memory that a GPU can read beside its work."""
        return self._map(lambda value: value.pin_memory() if torch.is_tensor(value) else value)

    def _map(self, change: Any) -> "Batch":
        names = ("place", "label_row", "label_start", "label_end", "is_null", "teacher")
        tensors = {name: change(getattr(self, name)) for name in names}
        inputs = {name: change(value) for name, value in self.inputs.items()}
        return replace(self, inputs=inputs, **tensors)

    def by_window(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits of a model, (rows, length) as its inputs, as `spread` gives them."""
        return self.spread(logits.reshape(-1)[self.place])

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """Values of the real tokens, (tokens,), as (batch, longest).

        Each window begins at column 0; what it has no token for is -inf.
        """
        lengths = torch.from_numpy(self.lengths)
        column = torch.arange(int(self.lengths.max(initial=0)))
        is_real = (column[None, :] < lengths[:, None]).to(values.device)  # (batch, longest)
        spread = torch.full(is_real.shape, -torch.inf, dtype=values.dtype, device=values.device)
        return spread.masked_scatter(is_real, values)


def padding_rules(tokenizer: Any) -> PaddingRules:
    """How inputs of the tokenizer's model are padded."""
    pad_token_id = tokenizer.pad_token_id
    return PaddingRules(
        pad_token_id=0 if pad_token_id is None else int(pad_token_id),
        pad_token_type_id=int(tokenizer.pad_token_type_id),
        is_left=tokenizer.padding_side == "left",
        has_token_type_ids="token_type_ids" in tokenizer.model_input_names,
    )


def feature_lengths(features: pa.Table | WindowFeed) -> NDArray[np.int64]:
    """Tokens of each feature, (features,)."""
    if isinstance(features, WindowFeed):
        return features.lengths
    return np.asarray(pc.list_value_length(features["input_ids"])).astype(np.int64)


def collate(
    features: pa.Table | WindowFeed, rows: Sequence[int] | NDArray[np.int64], rules: PaddingRules
) -> Batch:
    """The features at `rows` as tensors: packed where the rules say so, else padded."""
    wanted = np.asarray(rows, np.int64)
    is_feed = isinstance(features, WindowFeed)
    windows = features.windows(wanted) if is_feed else table_windows(features, wanted)
    lengths = np.diff(windows.splits)  # (batch,)
    if rules.packed_position is None:
        inputs, place = _pad(windows, lengths, rules)
    else:
        inputs, place = _pack(windows, lengths, rules)
    spans = windows.spans
    return Batch(
        inputs,
        lengths,
        place,
        label_row=torch.from_numpy(np.repeat(np.arange(len(lengths)), np.diff(spans.splits))),
        label_start=torch.from_numpy(spans.start.astype(np.int64)),
        label_end=torch.from_numpy(spans.end.astype(np.int64)),
        is_null=torch.from_numpy(windows.is_null),
        teacher=None if windows.teacher is None else torch.from_numpy(windows.teacher),
    )


def _pack(
    windows: TokenWindows, lengths: NDArray[np.int64], rules: PaddingRules
) -> tuple[dict[str, Any], torch.Tensor]:
    """Inputs of one row of tokens, and the places of the tokens in it."""
    inputs: dict[str, Any] = {
        "input_ids": torch.from_numpy(windows.input_ids.astype(np.int64))[None],
        "position_ids": position_ids(lengths.tolist(), rules.packed_position or 0),
        SPLITS: splits_of(lengths).tolist(),
    }
    if rules.has_token_type_ids:
        inputs["token_type_ids"] = torch.from_numpy(windows.token_type_ids.astype(np.int64))[None]
    return inputs, torch.arange(int(lengths.sum()))


def _pad(
    windows: TokenWindows, lengths: NDArray[np.int64], rules: PaddingRules
) -> tuple[dict[str, Any], torch.Tensor]:
    """Inputs of one row a window, and the places of the real tokens in them."""
    is_real = _real_places(lengths, is_left=rules.is_left)  # (batch, longest)
    inputs = {
        "input_ids": _padded(windows.input_ids, is_real, rules.pad_token_id),
        "attention_mask": torch.from_numpy(is_real.astype(np.int64)),
    }
    if rules.has_token_type_ids:
        types = windows.token_type_ids
        inputs["token_type_ids"] = _padded(types, is_real, rules.pad_token_type_id)
    return inputs, torch.from_numpy(np.flatnonzero(is_real))


def _real_places(lengths: NDArray[np.int64], *, is_left: bool) -> NDArray[np.bool_]:
    """Which places of the padded batch hold a token, (batch, longest)."""
    place = np.arange(int(lengths.max(initial=0)))
    mask: NDArray[np.bool_] = place[None, :] < lengths[:, None]
    return mask[:, ::-1] if is_left else mask


def _padded(values: NDArray[Any], is_real: NDArray[np.bool_], padding: int) -> torch.Tensor:
    padded = np.full(is_real.shape, padding, np.int64)
    padded[is_real] = values
    return torch.from_numpy(padded)
