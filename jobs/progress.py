"""How far a training is: a bar on a terminal, now and then a line in a log."""

import datetime
import time

from ray.experimental import tqdm_ray

from qa_core.training import StepDone

SECONDS_OF_BAR = 0.5
SECONDS_OF_LINE = 15.0


class Progress:
    """Tells of the steps of rank 0."""

    def __init__(self, num_steps: int, step: int, *, is_bar: bool) -> None:
        self.shown = time.monotonic()
        self.bar = tqdm_ray.tqdm(total=num_steps, desc="train") if is_bar else None
        if self.bar:
            self.bar.update(step)
        self.step = step
        self.num_tokens = self.num_padding_tokens = 0  # since the last step told of
        self.tokens_per_second = 0.0
        self.padding_share = 0.0

    def show(self, event: StepDone) -> None:
        """Tell of a step, unless the last one told of is too recent."""
        self.num_tokens += event.num_tokens
        self.num_padding_tokens += event.num_padding_tokens
        seconds = time.monotonic() - self.shown
        interval = SECONDS_OF_BAR if self.bar else SECONDS_OF_LINE
        if seconds < interval and event.step < event.num_steps:
            return
        self.tokens_per_second = self.num_tokens / max(seconds, 1e-9)
        self.padding_share = self.num_padding_tokens / (self.num_padding_tokens + self.num_tokens)
        left = (event.num_steps - event.step) * seconds / (event.step - self.step)
        text = (
            f"epoch {event.epoch:.2f} loss {event.loss:.3f} lr {event.learning_rate:.1e} "
            f"{self.tokens_per_second:,.0f} tokens/s padding {self.padding_share:.1%} "
            f"left {datetime.timedelta(seconds=round(left))}"
        )
        if self.bar:
            self.bar.set_description(f"train {text}")
            self.bar.update(event.step - self.step)
        else:
            print(f"step {event.step}/{event.num_steps} {text}", flush=True)
        self.shown = time.monotonic()
        self.step = event.step
        self.num_tokens = self.num_padding_tokens = 0

    def close(self) -> None:
        """Remove the bar."""
        if self.bar:
            self.bar.close()
