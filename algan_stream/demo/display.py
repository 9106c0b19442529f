"""Verdicts live in a terminal, and how they compare with what was rendered."""

from __future__ import annotations

import statistics
from collections import Counter, deque
from collections.abc import Callable

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from algan_stream.ledger import Ledger
from algan_stream.sinks.base import Sink
from algan_stream.types import FrameVerdict, VerdictKind

_STYLE = {VerdictKind.PASS: "green", VerdictKind.REJECT: "bold red", VerdictKind.UNKNOWN: "bold yellow"}
_ROWS = 12


class LiveDisplay(Sink):
    """A table of the last verdicts on a terminal; plain lines, one in 25, anywhere else.

    Args:
        console: Where to show it.
        title: Stands above the table.
        truth_of: What a frame's parts really are, by its `part_id`: one word for each of its boxes.
    """

    def __init__(self, console: Console, title: str, truth_of: Callable[[str], list[str]]) -> None:
        self._console, self._title, self._truth_of = console, title, truth_of
        self._last: deque[FrameVerdict] = deque(maxlen=_ROWS)
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._seen = 0
        #: Set by the caller once the pipeline is there.
        self.ledger: Ledger | None = None
        self.latencies_ms: list[float] = []
        #: (what it really is, verdict) → how often; a part counts once for each frame that shows it.
        self.truth: Counter[tuple[str, VerdictKind]] = Counter()
        if self._live:
            self._live.start()

    def write(self, verdict: FrameVerdict) -> None:
        """Shows one verdict."""
        self._last.append(verdict)
        self._seen += 1
        self.latencies_ms.append(verdict.stages.total_ms)
        for truth, box in zip(self._truth_of(verdict.part_id), verdict.boxes, strict=False):
            self.truth[(truth, box.verdict)] += 1
        if self._live and self._seen % 3 == 0:  # three frames between two pictures are as live, at less cost
            self._live.update(Group(self._table(), self._ledger_line()), refresh=True)
        elif not self._live and self._seen % 25 == 0:
            self._console.print(_plain(verdict), highlight=False)

    def close(self) -> None:
        """Leaves the last picture on the terminal."""
        if self._live:
            self._live.stop()
            self._live = None

    def summary(self) -> Table:
        """What was shown against what was judged."""
        table = Table(title="What was shown, and what the verdicts were (parts × frames)")
        for column in ("shown", *(kind.value for kind in VerdictKind)):
            table.add_column(column, justify="left" if column == "shown" else "right")
        for name in sorted({name for name, _ in self.truth}, key=lambda name: (name != "good", name)):
            table.add_row(name, *(str(self.truth[(name, kind)]) for kind in VerdictKind))
        return table

    def latency_line(self) -> str:
        """Median, 99th percentile and largest time from frame to verdict."""
        if len(self.latencies_ms) < 2:
            return "too few frames for latencies"
        p99 = statistics.quantiles(self.latencies_ms, n=100, method="inclusive")[98]
        return (
            f"frame to verdict: median {statistics.median(self.latencies_ms):.1f} ms, P99 {p99:.1f} ms, "
            f"largest {max(self.latencies_ms):.1f} ms"
        )

    def _table(self) -> Table:
        table = Table(title=self._title, width=100)
        for column in ("frame", "parts", "scores", "threshold", "verdict", "latency"):
            table.add_column(
                column, justify="right" if column in ("frame", "latency") else "left", no_wrap=True
            )
        for said in self._last:
            scores = " ".join("–" if box.score is None else f"{box.score:+.2f}" for box in said.boxes)
            limit = "–" if said.threshold is None else f"{said.threshold:+.2f}"
            kind = Text(said.verdict.value, style=_STYLE[said.verdict])
            latency = f"{said.stages.total_ms:.1f} ms"
            table.add_row(str(said.frame_id), said.part_id, scores, limit, kind, latency)
        return table

    def _ledger_line(self) -> str:
        if self.ledger is None:
            return ""
        return "   ".join(
            f"{camera}: received {a.frames.received} = scored {a.frames.scored} + "
            f"dropped {a.frames.dropped} + expired {a.frames.expired} + failed {a.frames.failed} + "
            f"in flight {a.frames.in_flight}"
            for camera, a in self.ledger.snapshot().items()
        )


def _plain(said: FrameVerdict) -> str:
    scores = " ".join("–" if box.score is None else f"{box.score:+.2f}" for box in said.boxes)
    limit = "–" if said.threshold is None else f"{said.threshold:+.2f}"
    return (
        f"frame {said.frame_id:5}  {said.verdict.value:8} scores {scores or '–'}  threshold {limit}  "
        f"{said.stages.total_ms:.1f} ms  {said.part_id}"
    )
