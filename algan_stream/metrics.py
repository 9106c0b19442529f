"""What a service tells Prometheus: the ledger as it is at each scrape, and histograms of what went out."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np

from algan_stream.calibration import Calibration
from algan_stream.ledger import CameraAccount, Tally
from algan_stream.metrics_watch import watch_families
from algan_stream.sinks.base import Sink
from algan_stream.types import FrameVerdict, Outcome

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from algan_stream.service import Service

#: Upper edges of the buckets.
STAGE_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
P_VALUE = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0)
BATCH = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
#: Scores of a model without calibration can lie anywhere.
_ANY_SCORE = (-30.0, -10.0, -3.0, -1.0, -0.3, 0.0, 0.3, 1.0, 3.0, 10.0, 30.0)

_Rows: TypeAlias = Iterable[tuple[Sequence[str], float]]


class Metrics(Sink):
    """A sink that keeps histograms, and a collector that reads everything else where it is counted anyway.

    Nothing is counted twice: at any scrape, the counters of frames, boxes and verdicts are the ledger's.
    Histograms are written by the thread that gives the verdict, one at a time, and may be one frame behind.

    Args:
        service: Has its bundle and engine; its pipeline and sources are needed at the first scrape only.
    """

    takes_ignored: ClassVar[bool] = True  # as the ledger has them

    def __init__(self, service: Service) -> None:
        from prometheus_client import CollectorRegistry, ProcessCollector

        self.only = "frames"  # a part's scores are those of its frames
        self._service = service
        self._score_edges = score_edges(service.bundle.manifest.calibration)
        self._cameras: dict[str, _CameraHistograms] = {}
        self._registry = CollectorRegistry()  # its own: two services in one process must not mix
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def write(self, verdict: FrameVerdict) -> None:
        """Adds one verdict to the histograms."""
        camera = self._cameras.get(verdict.camera)
        if camera is None:
            camera = self._cameras[verdict.camera] = _CameraHistograms(self._score_edges)
        times = verdict.stages
        camera.queue.add(times.queue_ms)
        camera.total.add(times.total_ms)
        if times.infer_ms:  # else it never came so far
            camera.preprocess.add(times.preprocess_ms)
            camera.infer.add(times.infer_ms)
        for box in verdict.boxes:
            if box.score is not None:
                camera.score.add(box.score)
            if box.p_value is not None:
                camera.p_value.add(box.p_value)

    def expose(self, accept: str = "") -> tuple[bytes, str]:
        """The metrics as text, and its content type.

        Args:
            accept: The request's header: OpenMetrics for who asks for it, else Prometheus' text format.

        Raises:
            LedgerError: The accounts do not add up.
        """
        from prometheus_client.exposition import choose_encoder

        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def describe(self) -> list[Metric]:
        """Nothing: else registering would collect, before the service is complete."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All metrics at this moment; every camera that may send has its counters, if only zeros."""
        service, pipeline = self._service, self._service.pipeline
        depths = pipeline.queue_depths()
        accounts = {**dict.fromkeys(depths, _NOTHING), **service.accounts()}
        histograms = list(self._histograms(dict(pipeline.batch_sizes)))  # at once: the line goes on meanwhile
        yield from _accounts(accounts)
        queued = [((camera,), depth) for camera, depth in depths.items()]
        yield _gauge("algan_queue_depth", "Frames that wait for the engine.", ("camera",), queued)
        yield _counter(
            "algan_sink_errors_total",
            "Verdicts that a sink could not take.",
            (),
            [((), pipeline.out.errors)],
        )
        yield _counter(
            "algan_refused_messages_total",
            "Messages and connections that were refused; they were no frames.",
            ("code",),
            [((code,), count) for code, count in service.refusals().items()],
        )
        links = service.links().items()
        up: _Rows = [((camera,), float(link.connected)) for camera, link in links]
        yield _gauge("algan_camera_connected", "1: a live camera's pictures come.", ("camera",), up)
        again: _Rows = [((camera,), link.reconnects) for camera, link in links]
        yield _counter("algan_camera_reconnects_total", "Connections made anew.", ("camera",), again)
        deliveries = self._service.deliveries()
        yield _counter(
            "algan_sink_verdicts_total",
            "Verdicts by what became of them at a sink that waits for a receiver.",
            ("sink", "outcome"),
            [
                ((sink, outcome), getattr(counts, outcome))
                for sink, counts in deliveries.items()
                for outcome in ("delivered", "lost", "refused")
            ],
        )
        waiting: _Rows = [((sink,), counts.waiting) for sink, counts in deliveries.items()]
        yield _gauge("algan_sink_waiting", "Verdicts that wait for a receiver.", ("sink",), waiting)
        circuits: _Rows = [((sink,), counts.circuit != "closed") for sink, counts in deliveries.items()]
        text = "1 while a receiver counts as away and is only tried now and then."
        yield _gauge("algan_sink_circuit_open", text, ("sink",), circuits)
        yield from watch_families(service.guards.values(), service.drift)
        yield from self._identities()
        yield from histograms

    def _identities(self) -> Iterator[Metric]:
        """Read anew at each scrape, so that a swap shows."""
        served = self._service.pipeline.model
        engine, bundle = served.engine.identity, served.bundle
        calibration = bundle.manifest.calibration
        running = {
            "kind": engine.kind,
            "version": engine.version,
            "device": engine.device,
            "precision": engine.precision,
            "cache_key": engine.cache_key,
        }
        model = {
            "name": bundle.manifest.name,
            "sha256": bundle.model_sha256,
            "threshold": "" if calibration is None else repr(calibration.threshold),
        }
        yield _info("algan_engine_info", "The engine that serves.", running)
        yield _info("algan_model_info", "The model; scores above its threshold are rejected.", model)

    def _histograms(self, batch_sizes: Mapping[int, int]) -> Iterator[Metric]:
        from prometheus_client.metrics_core import HistogramMetricFamily

        stages = HistogramMetricFamily(
            "algan_stage_seconds", "Time of a frame in each stage.", labels=("camera", "stage")
        )
        scores = HistogramMetricFamily("algan_score", "Anomaly scores.", labels=("camera",))
        p_values = HistogramMetricFamily(
            "algan_p_value", "Share of good parts with such a score or a higher one.", labels=("camera",)
        )
        for name, camera in dict(self._cameras).items():
            for stage in ("queue", "preprocess", "infer", "total"):
                stages.add_metric((name, stage), *getattr(camera, stage).cumulated(per=1e3))
            scores.add_metric((name,), *camera.score.cumulated())
            p_values.add_metric((name,), *camera.p_value.cumulated())
        batches = Histogram(BATCH)
        for size, count in batch_sizes.items():
            batches.add(size, count)
        sizes = HistogramMetricFamily("algan_batch_size", "Images in a batch.", labels=())
        sizes.add_metric((), *batches.cumulated())
        yield from (stages, scores, p_values, sizes)


class Histogram:
    """Counts of values up to each edge; a fifth of the cost of the library's, which locks for every value."""

    __slots__ = ("_counts", "_edges", "_sum")

    def __init__(self, edges: Sequence[float]) -> None:
        self._edges, self._sum = tuple(edges), 0.0
        self._counts = [0] * (len(edges) + 1)

    def add(self, value: float, times: int = 1) -> None:
        """Counts a value; for one thread at a time."""
        self._counts[bisect_left(self._edges, value)] += times
        self._sum += value * times

    def cumulated(self, per: float = 1.0) -> tuple[list[tuple[str, float]], float]:
        """What Prometheus wants: (upper edge, values up to it) and the sum, both divided by `per`."""
        total, pairs = 0, []
        for edge, count in zip((*self._edges, float("inf")), list(self._counts), strict=True):
            total += count
            pairs.append((_edge(edge / per), float(total)))
        return pairs, self._sum / per


def _edge(value: float) -> str:
    return "+Inf" if value == float("inf") else repr(value)


class _CameraHistograms:
    __slots__ = ("infer", "p_value", "preprocess", "queue", "score", "total")

    def __init__(self, scores: Sequence[float]) -> None:
        times_ms = [edge * 1e3 for edge in STAGE_S]
        self.queue, self.preprocess = Histogram(times_ms), Histogram(times_ms)
        self.infer, self.total = Histogram(times_ms), Histogram(times_ms)
        self.score, self.p_value = Histogram(scores), Histogram(P_VALUE)


def score_edges(calibration: Calibration | None) -> tuple[float, ...]:
    """Edges where a model's scores lie: quantiles of the good ones, the threshold itself, and far beyond."""
    if calibration is None:
        return _ANY_SCORE
    good = np.asarray(calibration.good_scores or (calibration.threshold,))
    quantiles = np.quantile(good, (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)).tolist()
    top = max(float(good[-1]), calibration.threshold)
    span = top - float(good[0]) or 1.0
    beyond = [top + share * span for share in (0.25, 0.5, 1.0, 2.0, 4.0)]
    return tuple(sorted({calibration.threshold, *(float(f"{edge:.4g}") for edge in quantiles + beyond)}))


# ---- the ledger as metrics ------------------------------------------------------------------------------

_NOTHING = CameraAccount(frames=Tally(), boxes=Tally(), reasons={}, ended={}, verdicts={}, missing=0)


def _accounts(accounts: Mapping[str, CameraAccount]) -> Iterator[Metric]:
    of_camera = ("camera",)

    def each(value: Any) -> _Rows:
        return [((camera,), value(account)) for camera, account in accounts.items()]

    def nested(value: Any, usual: str) -> _Rows:
        return [
            ((camera, kind, code), count)
            for camera, account in accounts.items()
            for kind, codes in {usual: {"": 0}, **value(account)}.items()
            for code, count in codes.items()
        ]

    yield _counter(
        "algan_frames_received_total",
        "Frames that sources announced.",
        of_camera,
        each(lambda a: a.frames.received),
    )
    yield _counter(
        "algan_frames_total",
        "Frames by how they ended.",
        ("camera", "outcome", "reason"),
        nested(lambda a: a.ended, "scored"),
    )
    yield _counter(
        "algan_boxes_total",
        "Announced boxes by how they ended.",
        ("camera", "outcome"),
        [
            ((camera, outcome.value), getattr(account.boxes, outcome.value))
            for camera, account in accounts.items()
            for outcome in Outcome
        ],
    )
    yield _counter(
        "algan_frames_missing_total",
        "Frames lost before they reached the service: gaps in the camera's count.",
        of_camera,
        each(lambda a: a.missing),
    )
    yield _counter(
        "algan_verdicts_total",
        "Verdicts on frames that went out.",
        ("camera", "verdict", "reason"),
        nested(lambda a: a.verdicts, "pass"),
    )
    yield _counter(
        "algan_deadline_missed_total",
        "Frames without a verdict in time.",
        of_camera,
        each(lambda a: a.frames.expired),
    )
    yield _gauge(
        "algan_in_flight", "Frames without a verdict yet.", of_camera, each(lambda a: a.frames.in_flight)
    )


def _counter(name: str, text: str, labels: Sequence[str], rows: _Rows) -> Metric:
    from prometheus_client.metrics_core import CounterMetricFamily

    family = CounterMetricFamily(name, text, labels=labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family


def _gauge(name: str, text: str, labels: Sequence[str], rows: _Rows) -> Metric:
    from prometheus_client.metrics_core import GaugeMetricFamily

    family = GaugeMetricFamily(name, text, labels=labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family


def _info(name: str, text: str, labels: dict[str, str]) -> Metric:
    from prometheus_client.metrics_core import InfoMetricFamily

    return InfoMetricFamily(name.removesuffix("_info"), text, value=labels)
