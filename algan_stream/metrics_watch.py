"""What guard and drift test tell Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from algan_stream.drift import DriftMonitor
from algan_stream.guard.config import KINDS
from algan_stream.guard.guard import Guard

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric


def watch_families(guards: Iterable[Guard], drift: DriftMonitor) -> Iterator[Metric]:
    """Counters and gauges at this moment; each camera has all its series from its first frame on."""
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

    faults = CounterMetricFamily(
        "algan_camera_faults_total", "Frames with a fault of the camera.", labels=("camera", "kind")
    )
    for guard in guards:
        counts = dict(guard.faults)
        for camera in sorted(guard.cameras):
            for kind in KINDS:
                faults.add_metric((camera, kind), counts.get((camera, kind), 0))
    yield faults
    of_camera = ("camera",)
    tested = CounterMetricFamily("algan_drift_tested_total", "Scores tested for drift.", labels=of_camera)
    alarms = CounterMetricFamily("algan_drift_alarms_total", "Alarms of score drift.", labels=of_camera)
    drifting = GaugeMetricFamily(
        "algan_drifting", "1 while scores do not come like those of the calibration.", labels=of_camera
    )
    evidence = GaugeMetricFamily(
        "algan_drift_evidence", "Evidence of score drift; 1 raises the alarm.", labels=of_camera
    )
    for camera, state in drift.states().items():
        tested.add_metric((camera,), state.tested)
        alarms.add_metric((camera,), state.alarms)
        drifting.add_metric((camera,), float(state.drifting))
        evidence.add_metric((camera,), state.evidence)
    yield from (tested, alarms, drifting, evidence)
