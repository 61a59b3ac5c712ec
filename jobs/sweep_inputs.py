"""Data and models of a sweep's points: tokens made once, windows counted for every size."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from typing import Any

from jobs.configuration import FeatureSettings, SweepConfig, get_value
from jobs.console import warn
from jobs.leg import scored_windows
from jobs.models import check_model, check_windows, load_model_config, model_digest
from jobs.prepare import find_split, input_digest, prepare_split, warn_shared_contexts
from jobs.prepared import Prepared, check_not_empty, load_prepared, read_rejections, save_prepared
from jobs.space import default_point, with_point
from jobs.token_pipeline import Split
from jobs.token_store import cached_tokenizer
from jobs.training_worker import check_batches
from jobs.window_plans import count_windows
from qa_core.errors import ConfigError, QAError
from qa_core.reading import check_rejected_fraction
from qa_core.search_space import Domain, Point, Space, Values

# The keys whose values decide which tokens a trial needs.
SOURCES, MODEL = "data.train", "model.name_or_path"
SHARDS_COUNTED_HERE = 32  # a second or less; a job of the cluster would take longer to begin
SIZES_AT_ONCE = 64  # of windows, counted by the cluster before the first trial; others one by one


@dataclass(frozen=True)
class PointInputs:
    """What a trial of a point works on."""

    model: str
    train: Prepared
    dev: Prepared


class SweepInputs:
    """Finds the inputs of points; built before any work, it raises for what is not there.

    `prepare` makes the tokens; a training source that turns out broken fails its trials alone.
    """

    def __init__(self, config: SweepConfig, space: Space) -> None:
        self.config, self.space = config, space
        self.dev = find_split(config.data, "dev")
        self.models = {name: check_usable(name) for name in finite_values(config, space, MODEL)}
        self.model_digests = {model: model_digest(model) for model in self.models.values()}
        self.splits = {
            json.dumps(sources): find_split(replace(config.data, train=sources), "train")
            for sources in finite_values(config, space, SOURCES)
        }
        self.counted: dict[tuple[str, str, FeatureSettings], Prepared] = {}
        self.broken: dict[tuple[str, str], QAError] = {}  # by split and model
        self.checked: set[tuple[str, str, FeatureSettings]] = set()

    def digests(self) -> dict[str, str]:
        """What the sweep works on, by content."""
        found = {}
        for name, model in self.models.items():
            found[f"model {name}"] = self.model_digests[model]
            for sources, split in self.splits.items():
                found[f"train {sources} for {name}"] = input_digest(split, model)
            found[f"dev for {name}"] = input_digest(self.dev, model)
        return found

    def prepare(self, storage_path: str, points: Iterable[Point]) -> None:
        """Make all tokens, and count the windows of the first of `points`' sizes."""
        for model, split in product(self.models.values(), self.splits.values()):
            size = first_possible(self.config.features, self.sizes(points), model)
            try:
                dev = prepare_split(self.dev, model, size, storage_path)
                train = prepare_split(split, model, size, storage_path)
            except QAError as error:
                if len(self.splits) == 1:
                    raise
                warn(f"trials on {', '.join(split.sources)} cannot run: {error}")
                self.broken[split.digest, model] = error
                continue
            check_not_empty(dev, "data.dev")
            warn_shared_contexts(train, dev)
            self.keep(split, model, train, size)
            self.keep(self.dev, model, dev, scored_windows(size))
        if self.broken and len(self.broken) == len(self.splits) * len(self.models):
            raise next(iter(self.broken.values()))
        self.count_sizes(points)

    def count_sizes(self, points: Iterable[Point]) -> None:
        """Count the windows of many sizes at once, while the cluster is free."""
        sizes = self.sizes(points)[:SIZES_AT_ONCE]
        for model, split in product(self.models.values(), [*self.splits.values(), self.dev]):
            known = [key for key in self.counted if key[:2] == (split.digest, model)]
            if not known:
                continue  # broken
            store = self.counted[known[0]].store
            wanted = [
                size if split.name == "train" else scored_windows(size)
                for size in sizes
                if size_problem(size, model) is None
            ]
            missing = [
                size
                for size in dict.fromkeys(wanted)
                if (split.digest, model, size) not in self.counted
            ]
            absent = []
            for size in missing:
                one = load_prepared(store.folder, model, size)
                if one is None:
                    absent.append(size)
                else:
                    self.keep(split, model, one, size)
            here = len(store.shards) <= SHARDS_COUNTED_HERE
            for one in count_windows(store, absent, here=here) if absent else []:
                save_prepared(one)
                self.keep(split, model, one, one.settings)

    def sizes(self, points: Iterable[Point]) -> list[FeatureSettings]:
        """The windows of points, and those that complete trials are scored with."""
        found = [with_point(self.config, point).features for point in points]
        return list(dict.fromkeys([*found, *self.scored_sizes()]))

    def scored_sizes(self) -> list[FeatureSettings]:
        """The windows that complete trials are scored with, beside their own."""
        tune = self.config.tune
        lengths = tune.eval_max_length or finite_values(
            self.config, self.space, "features.max_length"
        )
        strides = tune.eval_doc_stride or finite_values(
            self.config, self.space, "features.doc_stride"
        )
        sizes = [FeatureSettings(*pair) for pair in product(lengths, strides)]
        return [size for size in sizes if self.is_scorable(size)]

    def is_scorable(self, size: FeatureSettings) -> bool:
        """Whether the dev data can be scored with windows of a size, by every model."""
        for model in self.models.values():
            if size_problem(size, model) is not None:
                return False
            if any(key[:2] == (self.dev.digest, model) for key in self.counted):
                try:
                    self.counted_windows(self.dev, model, size)
                except QAError:  # more questions than allowed would have no room
                    return False
        return True

    def find(self, point: Point) -> PointInputs:
        """The inputs of a point; `QAError` where it cannot be trained."""
        config = with_point(self.config, point)
        split, model = self.sources(config)
        broken = self.broken.get((split.digest, model))
        if broken is not None:
            raise broken
        train = self.counted_windows(split, model, config.features)
        dev = self.counted_windows(self.dev, model, scored_windows(config.features))
        check_batches(config, train)
        return PointInputs(model, train, dev)

    def files(self) -> list[str]:
        """The sources of all data, each once."""
        splits = (*self.splits.values(), self.dev)
        return list(dict.fromkeys(source for split in splits for source in split.sources))

    def sources(self, config: SweepConfig) -> tuple[Split, str]:
        """Training data and model of a point, which must be among those searched."""
        split = self.splits.get(json.dumps(config.data.train))
        model = self.models.get(config.model.name_or_path)
        if split is None or model is None:
            key, value = (
                (SOURCES, config.data.train)
                if split is None
                else (MODEL, config.model.name_or_path)
            )
            raise ConfigError(f"{value} is none of those searched", where=key)
        return split, model

    def counted_windows(self, split: Split, model: str, size: FeatureSettings) -> Prepared:
        """Tokens of a split and their windows of a size, counted in this process if need be."""
        key = (split.digest, model, size)
        if key not in self.counted:
            store = next(
                one.store
                for (name, of, _), one in self.counted.items()
                if (name, of) == (split.digest, model)
            )
            found = load_prepared(store.folder, model, size)
            if found is None:
                [found] = count_windows(store, [size], here=True)
                save_prepared(found)
            self.keep(split, model, found, size)
        found = self.counted[key]
        if key not in self.checked:
            check_not_empty(found, f"data.{split.name}")
            check_rejected_fraction(
                read_rejections(found),
                num_read=found.store.num_read,
                max_fraction=split.max_rejected_fraction,
                listed_in=found.folder,
            )
            self.checked.add(key)
        return found

    def keep(self, split: Split, model: str, one: Prepared, size: FeatureSettings) -> None:
        """Remember counted windows."""
        self.counted[split.digest, model, size] = one

    def problem(self, point: Point) -> str | None:
        """Why no trial can be spent on a point; broken data is found out by its trial."""
        config = with_point(self.config, point)
        try:
            split, model = self.sources(config)
        except ConfigError as error:
            return str(error)
        problem = size_problem(config.features, model)
        if problem is not None or (split.digest, model) in self.broken:
            return problem
        if not self.counted:  # before any tokens are made
            return None
        try:
            self.find(point)
        except QAError as error:
            return str(error)
        return None

    def count_tokens(self, point: Point) -> int:
        """Real tokens of the whole training of a point."""
        config = with_point(self.config, point)
        num_tokens = self.find(point).train.num_tokens * config.train.num_epochs
        return int(num_tokens)

    def default(self) -> Point:
        """The point of the default setting."""
        return default_point(self.config, self.space)

    def num_dev_questions(self) -> int:
        """Questions of the dev data, those without room in some windows counted."""
        return max(
            one.num_examples
            for (name, _, _), one in self.counted.items()
            if name == self.dev.digest
        )

    def describe(self, point: Point) -> dict[str, str]:
        """The inputs of a point as its processes are told of them."""
        found = self.find(point)
        return {
            "model": found.model,
            "model_digest": self.model_digests[found.model],
            "train": found.train.folder,
            "dev": found.dev.folder,
        }


def check_usable(name: str) -> str:
    """The resolved model of a name; raises where no window size could make it usable."""
    return check_model(name, FeatureSettings(max_length=16, doc_stride=0))


@cache
def size_problem(size: FeatureSettings, model: str) -> str | None:
    """Why a model cannot have windows of a size; None where it can."""
    try:
        check_windows(
            size, tokenizer=cached_tokenizer(model), model_config=load_model_config(model)
        )
    except QAError as error:
        return str(error)
    return None


def first_possible(
    configured: FeatureSettings, sizes: Sequence[FeatureSettings], model: str
) -> FeatureSettings:
    """The first of the sizes that a model can have, those of the points first."""
    possible = (s for s in [*sizes, configured] if size_problem(s, model) is None)
    return next(possible, configured)


def finite_values(config: SweepConfig, space: Space, key: str) -> list[Any]:
    """All values of a key in the space where they can be counted, else the configured one."""
    configured = get_value(config, key)
    domain: Domain = space.get(key, Values((configured,)))
    values = domain.finite
    return [configured] if values is None else list(values)
