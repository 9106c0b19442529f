"""What Prometheus reads is what the ledger says, at any moment and in its own parser's eyes."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from prometheus_client import REGISTRY
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from algan_stream import service as service_module
from algan_stream.bundle import Bundle
from algan_stream.calibration import with_raw_threshold
from algan_stream.client import Client
from algan_stream.engines.base import EngineIdentity
from algan_stream.metrics import STAGE_S, Histogram, score_edges
from algan_stream.service import Service
from fakes import BrokenSink, FakeEngine, ListSink
from lines import get, line_of, running, wait_for

_DOCS = Path(__file__).parent.parent / "docs" / "observability.md"


@pytest.fixture
def engine(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    made = FakeEngine(spec=bundle.manifest.input_spec)
    monkeypatch.setattr(service_module, "open_engine", lambda *_: made)
    return made


@pytest.fixture
def folder(tmp_path: Path) -> dict[str, Any]:
    """A camera that plays 12 images, one of them broken, without end."""
    path = tmp_path / "images"
    path.mkdir()
    for i in range(11):
        Image.fromarray(np.full((8, 8), 20 * i, np.uint8)).save(path / f"{i:02}.png")
    (path / "zz.png").write_bytes(b"no image")
    return {"kind": "folder", "path": str(path), "loop": True}


class Scrape:
    """One scrape: (name, labels) → value."""

    def __init__(self, text: str) -> None:
        families = list(text_string_to_metric_families(text))
        self.types = {family.name: family.type for family in families}
        self._values: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        for family in families:
            for sample in family.samples:
                key = sample.name, frozenset(sample.labels.items())
                assert key not in self._values, f"{key} stands there twice"
                self._values[key] = sample.value

    def __call__(self, name: str, **labels: str) -> float:
        """The sum over all series of a name with these labels."""
        wanted = set(labels.items())
        found = [value for (n, has), value in self._values.items() if n == name and wanted <= has]
        assert found, f"no {name} {labels}"
        return sum(found)

    def labels(self, name: str) -> dict[str, str]:
        """Labels of the one series of a name."""
        (found,) = [dict(has) for n, has in self._values if n == name]
        return found


def scrape(service: Service) -> Scrape:
    status, kind, text = get(service, "/metrics")
    assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8"), text
    return Scrape(text)


def _adds_up(service: Service, seen: Scrape, camera: str) -> None:
    received = seen("algan_frames_received_total", camera=camera)
    ended = seen("algan_frames_total", camera=camera)
    assert received == ended + seen("algan_in_flight", camera=camera)
    assert seen("algan_verdicts_total", camera=camera) == ended
    total = seen("algan_stage_seconds_count", camera=camera, stage="total")
    # Written beside the ledger and read after it: it may lack one frame, and have some that ended meanwhile.
    assert ended - 1 <= total <= scrape(service)("algan_frames_total", camera=camera) + 1


def test_under_load_every_scrape_adds_up(
    bundle: Bundle, engine: FakeEngine, folder: dict[str, Any], tmp_path: Path
) -> None:
    endpoint = f"ipc://{tmp_path / 's'}"
    sink, answered = ListSink(), []

    def client(camera: str) -> None:
        with Client(endpoint, camera) as sender:
            for i in range(150):
                boxes = np.array([[0, 0, 4, 4], [2, 2, 8, 8], [50, 50, 60, 60]], np.float32)[: i % 4]
                sender.send(np.full((8, 8, 3), i, np.uint8), boxes=boxes)
                answered.extend(sender.poll())
            answered.extend(sender.drain(20))

    line = line_of(bundle, folder, {"kind": "zmq", "bind": endpoint})
    with running(line, sink, BrokenSink()) as service:
        clients = [threading.Thread(target=client, args=(name,)) for name in ("press", "drill")]
        for thread in clients:
            thread.start()
        scrapes = 0
        while any(thread.is_alive() for thread in clients):
            seen = scrape(service)
            if seen("algan_frames_received_total", camera="cam0") > 2:
                _adds_up(service, seen, "cam0")
            scrapes += 1
        assert scrapes > 3
        service.stop()
        wait_for(lambda: service.accounts()["cam0"].frames.in_flight == 0)
        wait_for(lambda: service.sources[0][1] is not None and len(answered) == 300)
        seen = scrape(service)
        accounts = service.accounts()
    assert set(accounts) == {"cam0", "press", "drill"}
    for camera, account in accounts.items():
        for outcome in ("scored", "dropped", "expired", "failed"):
            frames, boxes = getattr(account.frames, outcome), getattr(account.boxes, outcome)
            assert seen("algan_boxes_total", camera=camera, outcome=outcome) == boxes
            codes = account.ended.get(outcome, {})
            assert sum(codes.values()) == frames
            for code, count in codes.items():
                assert seen("algan_frames_total", camera=camera, outcome=outcome, reason=code) == count
        said = Counter(
            (v.verdict.value, v.reason.partition(":")[0]) for v in sink.verdicts if v.camera == camera
        )
        for (verdict, code), count in said.items():
            assert seen("algan_verdicts_total", camera=camera, verdict=verdict, reason=code) == count
        assert seen("algan_verdicts_total", camera=camera) == sum(said.values())
        scores = sum(b.score is not None for v in sink.verdicts if v.camera == camera for b in v.boxes)
        assert seen("algan_score_bucket", camera=camera, le="+Inf") == scores > 0
        assert seen("algan_p_value_count", camera=camera) == scores
        total_ms = sum(v.stages.total_ms for v in sink.verdicts if v.camera == camera)
        assert seen("algan_stage_seconds_sum", camera=camera, stage="total") == pytest.approx(total_ms / 1e3)
    assert seen("algan_frames_total", camera="cam0", outcome="failed", reason="bad_image") > 0
    assert seen("algan_verdicts_total", camera="press", verdict="unknown", reason="no_boxes") > 0
    assert seen("algan_boxes_total", camera="press", outcome="failed") == 37  # the one outside of the image
    assert seen("algan_sink_errors_total") == len(sink.verdicts)
    assert seen("algan_batch_size_sum") == sum(engine.batch_sizes)
    assert seen("algan_batch_size_count") == len(engine.batch_sizes)
    assert seen("algan_batch_size_bucket", le="4.0") == len(engine.batch_sizes)


def test_names_and_types_are_those_of_the_documentation(
    bundle: Bundle, engine: FakeEngine, folder: dict[str, Any]
) -> None:
    with running(line_of(bundle, folder)) as service:
        wait_for(lambda: service.accounts().get("cam0") is not None)
        seen, (status, kind, strict) = (
            scrape(service),
            get(service, "/metrics", Accept="application/openmetrics-text; version=1.0.0"),
        )
    assert (status, kind.split(";")[0]) == (200, "application/openmetrics-text")
    assert len(list(openmetrics.text_string_to_metric_families(strict))) >= len(seen.types)
    ours = {
        name + {"counter": "_total", "gauge": ""}.get(kind, "")
        for name, kind in seen.types.items()
        if name.startswith("algan_")
    }
    documented = set(re.findall(r"^\| `(algan_\w+)", _DOCS.read_text("utf-8"), re.MULTILINE))
    assert {name.removesuffix("_total") for name in ours} == {n.removesuffix("_total") for n in documented}
    assert len(documented) == 26
    assert seen.types["algan_stage_seconds"] == "histogram"
    edges = [
        float(e) for e in re.findall(r'_seconds_bucket\{camera="cam0",le="([\d.]+)",stage="queue"', strict)
    ]
    assert tuple(edges) == STAGE_S


def test_a_camera_that_sent_nothing_yet_has_zeros(bundle: Bundle, engine: FakeEngine, tmp_path: Path) -> None:
    with running(line_of(bundle, {"kind": "zmq", "bind": f"ipc://{tmp_path / 's'}"})) as service:
        seen = scrape(service)
    for name in ("frames_received", "frames", "frames_missing", "verdicts", "deadline_missed", "boxes"):
        assert seen(f"algan_{name}_total", camera="cam0") == 0
    assert seen("algan_in_flight", camera="cam0") == seen("algan_queue_depth", camera="cam0") == 0


def test_gaps_deadlines_and_refused_messages(bundle: Bundle, engine: FakeEngine, tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path / 's'}"
    image = np.zeros((8, 8, 3), np.uint8)
    with running(line_of(bundle, {"kind": "zmq", "bind": endpoint})) as service:
        with Client(endpoint, "press") as client:
            client._next_id = 5  # five frames were lost on the way
            client.send(image)
            client.send(image, deadline_ms=1e-6)
            assert len(list(client.drain(10))) == 2
        with pytest.raises(Exception, match="expected 1 to 64 letters"):
            Client(endpoint, "two words")
        seen = scrape(service)
    assert seen("algan_frames_missing_total", camera="press") == 5
    assert seen("algan_deadline_missed_total", camera="press") == 1
    assert seen("algan_frames_total", camera="press", outcome="expired") == 1
    assert seen("algan_refused_messages_total", code="camera") == 1
    with pytest.raises(AssertionError):
        seen("algan_frames_total", camera="two words")


def test_identities_follow_a_swap(bundle: Bundle, engine: FakeEngine, folder: dict[str, Any]) -> None:
    calibration = bundle.manifest.calibration
    assert calibration
    with running(line_of(bundle, folder)) as service:
        before = scrape(service)
        engine.identity = EngineIdentity("other", "2", "GPU.0", "fp16", threads=1, cache_key="ab" * 20)
        after = scrape(service)
    assert before.labels("algan_engine_info")["kind"] == "fake"
    assert after.labels("algan_engine_info") == {
        "kind": "other",
        "version": "2",
        "device": "GPU.0",
        "precision": "fp16",
        "cache_key": "ab" * 20,
    }
    model = before.labels("algan_model_info")
    assert (model["name"], model["sha256"]) == (bundle.manifest.name, bundle.model_sha256)
    assert float(model["threshold"]) == calibration.threshold


def test_two_services_in_a_process_do_not_mix(
    bundle: Bundle, engine: FakeEngine, folder: dict[str, Any]
) -> None:
    with running(line_of(bundle, {**folder, "loop": False, "fps": 1})) as one:
        with running(line_of(bundle, folder)) as two:
            wait_for(lambda: sum(a.frames.received for a in two.accounts().values()) > 50)
            assert scrape(two)("algan_frames_received_total") > 50
            assert scrape(one)("algan_frames_received_total") < 12
        assert not [family for family in REGISTRY.collect() if family.name.startswith("algan")]


def test_accounts_that_do_not_add_up_are_no_metrics(
    bundle: Bundle, engine: FakeEngine, folder: dict[str, Any]
) -> None:
    with running(line_of(bundle, {**folder, "fps": 50})) as service:
        wait_for(lambda: "cam0" in service.accounts())
        book = service.pipeline.ledger._books["cam0"]
        book.received += 1
        status, _, text = get(service, "/metrics")
        book.received -= 1
    assert status == 500
    assert "frames received but" in text


def test_a_histogram_counts_values_up_to_each_edge() -> None:
    histogram = Histogram((1, 2, 5))
    for value in (-3, 1, 1.5, 2, 5, 5.001, 1e9):
        histogram.add(value)
    pairs, total = histogram.cumulated(per=10)
    assert pairs == [("0.1", 2), ("0.2", 4), ("0.5", 5), ("+Inf", 7)]
    assert total == pytest.approx((-3 + 1 + 1.5 + 2 + 5 + 5.001 + 1e9) / 10)


@pytest.mark.parametrize(
    ("good", "threshold"),
    [(np.linspace(-4, -2, 99), -2.1), (np.linspace(0, 1, 50), 7.0), ([0.5], 0.5), ([], 3.0), ([1, 1, 1], -9)],
)
def test_edges_lie_where_scores_do(good: Any, threshold: float) -> None:
    edges = score_edges(with_raw_threshold(good, threshold))
    assert list(edges) == sorted(set(edges))
    assert threshold in edges  # exactly: what lies under it has passed
    assert len(edges) <= 13
    assert edges[-1] > max([threshold, *good])
    assert all(edges[0] <= score + 1e-3 for score in good)


def test_edges_without_calibration() -> None:
    assert 0.0 in score_edges(None)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (Debian: prometheus) is not installed")
def test_prometheus_own_tool_accepts_the_text_and_the_documented_alerts(
    bundle: Bundle, engine: FakeEngine, folder: dict[str, Any], tmp_path: Path
) -> None:
    with running(line_of(bundle, folder)) as service:
        wait_for(lambda: service.accounts().get("cam0") is not None)
        _, _, text = get(service, "/metrics")
    alerts = next(
        part
        for part in re.findall(r"```yaml\n(.*?)```", _DOCS.read_text("utf-8"), re.DOTALL)
        if "alert" in part
    )
    (tmp_path / "alerts.yaml").write_text(alerts)
    for arguments, given in ((["metrics"], text), (["rules", str(tmp_path / "alerts.yaml")], "")):
        ended = subprocess.run(
            ["promtool", "check", *arguments], input=given, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr


def test_documented_alerts_name_metrics_that_there_are() -> None:
    text = _DOCS.read_text("utf-8")
    documented = set(re.findall(r"^\| `(algan_\w+)", text, re.MULTILINE))
    used = {name.removesuffix("_bucket") for name in re.findall(r"\b(algan_\w+)[\[{]", text)}
    assert len(used) >= 7
    assert used <= documented
