"""What a person sees of a training: a bar in a terminal, plain flushed lines in a log."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn


class Reporter:
    """Reports to standard error. Use as a context manager around the training loop."""

    def __init__(self, total_batches: int, done_batches: int) -> None:
        self._console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._progress.add_task("training", total=total_batches, completed=done_batches)
        self._total, self._first = total_batches, done_batches
        self._started = time.monotonic()

    def __enter__(self) -> Reporter:
        self._progress.start()
        return self

    def __exit__(self, *exception: tuple[type[BaseException], BaseException, TracebackType]) -> None:
        self._progress.stop()

    def batch(self, done_batches: int, epoch: int, loss_d: float, loss_g: float, best: float | None) -> None:
        """Moves the bar; says nothing in a log."""
        text = f"epoch {epoch}  D {loss_d:.3f}  G {loss_g:.3f}" + (
            f"  best AUROC {best:.3f}" if best is not None else ""
        )
        self._progress.update(self._task, completed=done_batches, description=text)

    def validation(self, done_batches: int, epoch: int, epochs: int, text: str) -> None:
        """One line for each validation, with the time left at the pace so far."""
        spent = time.monotonic() - self._started
        pace = spent / max(done_batches - self._first, 1)
        left_min = pace * (self._total - done_batches) / 60.0
        self.note(f"epoch {epoch}/{epochs}  {text}  {spent / 60.0:.1f} min, {left_min:.1f} min left")

    def note(self, text: str) -> None:
        """One plain line."""
        self._console.print(text)
