"""A line's file is checked as a whole; every mistake names the key that it is in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from algan_stream import plugins
from algan_stream.bundle import Bundle
from algan_stream.config import LineConfig, read_line
from algan_stream.errors import AlganError, ConfigError
from algan_stream.service import Service


def _line(**changes: Any) -> dict[str, Any]:
    return {
        "bundle": "b",
        "cameras": [
            {"id": "a", "source": {"kind": "folder", "path": "images"}},
            {"id": "b", "source": {"kind": "folder", "path": "/images"}},
        ],
        **changes,
    }


def _read(folder: Path, line: object) -> LineConfig:
    (folder / "line.yaml").write_text(yaml.safe_dump(line), "utf-8")
    return read_line(folder / "line.yaml")


def test_defaults(tmp_path: Path) -> None:
    line = _read(tmp_path, _line())
    camera = line.cameras[0]
    assert line.engine == {"kind": "openvino"}
    assert (camera.boxes, camera.backpressure, camera.deadline_ms) == ({"kind": "attached"}, None, None)
    assert (camera.queue_size, line.sinks, line.batch.max_wait_ms) == (16, (), 5.0)


def test_relative_paths_start_at_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "else").mkdir()
    (tmp_path / "line").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    broker = {"kind": "mqtt", "user": "u", "password_file": "secret/mqtt", "ca_file": "/etc/ca.pem"}
    sinks = [{"kind": "jsonl", "path": "out.jsonl"}, {"kind": "zmq_pub", "bind": "tcp://127.0.0.1:1"}, broker]
    (tmp_path / "line" / "line.yaml").write_text(yaml.safe_dump(_line(bundle="../b", sinks=sinks)))
    line = read_line("../line/line.yaml")
    folder = tmp_path.resolve() / "line"
    assert line.bundle == str(folder / "../b")
    assert [camera.source["path"] for camera in line.cameras] == [str(folder / "images"), "/images"]
    placed = {**broker, "password_file": str(folder / "secret/mqtt")}
    assert line.sinks == ({"kind": "jsonl", "path": str(folder / "out.jsonl")}, sinks[1], placed)


def test_the_demo_bundle_and_absolute_paths_stay(tmp_path: Path) -> None:
    assert _read(tmp_path, _line(bundle="demo")).bundle == "demo"
    assert _read(tmp_path, _line(bundle="/srv/b")).bundle == "/srv/b"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"camera": []}, "camera: unknown key"),
        ({"bundle": None}, "bundle: "),
        ({"bundle": 3}, "bundle: "),
        ({"cameras": []}, "cameras: expected at least one camera, got none"),
        ({"cameras": "a"}, "cameras: "),
        ({"cameras": [{"source": {}}]}, r"cameras\[0\].id: is required but missing"),
        ({"cameras": [{"id": "a"}]}, r"cameras\[0\].source: is required but missing"),
        ({"cameras": [{"id": "a", "source": {}, "fps": 3}]}, r"cameras\[0\].fps: unknown key"),
        ({"cameras": [{"id": "a", "source": "x"}]}, r"cameras\[0\].source: "),
        ({"cameras": [{"id": "a b", "source": {}}]}, r"cameras\[0\].*id: expected 1 to 64 letters"),
        ({"cameras": [{"id": "", "source": {}}]}, r"cameras\[0\].*id: expected 1 to 64 letters"),
        (
            {"cameras": [{"id": "a", "source": {}, "queue_size": 0}]},
            r"cameras\[0\].*queue_size: expected 1 to",
        ),
        ({"cameras": [{"id": "a", "source": {}, "queue_size": True}]}, r"cameras\[0\].queue_size: "),
        (
            {"cameras": [{"id": "a", "source": {}, "deadline_ms": 0}]},
            r"cameras\[0\].*deadline_ms: expected above",
        ),
        (
            {"cameras": [{"id": "a", "source": {}, "deadline_ms": float("nan")}]},
            r"deadline_ms: expected above",
        ),
        ({"cameras": [{"id": "a", "source": {}, "backpressure": "wait"}]}, r"cameras\[0\].backpressure: "),
        ({"cameras": [{"id": "x", "source": {}}] * 2}, "each id must be unique, got x more than once"),
        ({"batch": {"max_wait": 3}}, "batch.max_wait: unknown key"),
        ({"batch": {"max_wait_ms": "3"}}, "batch.max_wait_ms: "),
        ({"batch": {"max_wait_ms": -3}}, "batch.*max_wait_ms: expected 0 to"),
        ({"sinks": [{"kind": "jsonl"}, 3]}, r"sinks\[1\]: "),
        ({"drain_timeout_s": -1}, "drain_timeout_s: expected 0 to 3600"),
        ({"drain_timeout_s": float("inf")}, "drain_timeout_s: expected 0 to 3600"),
    ],
)
def test_a_mistake_names_its_key(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"line\.yaml: .*{message}"):
        _read(tmp_path, _line(**changes))


@pytest.mark.parametrize("text", ["", "- 1\n", "just words\n", "3\n"])
def test_a_file_of_another_shape(tmp_path: Path, text: str) -> None:
    (tmp_path / "line.yaml").write_text(text)
    with pytest.raises(ConfigError, match="expected keys like `bundle:`"):
        read_line(tmp_path / "line.yaml")


@pytest.mark.parametrize(
    "raw", [b"a: [", b"a: b: c", b"\xff\xfe\x00", b"a: \x01", b"a: !!python/object:os.system {}"]
)
def test_a_file_that_is_no_yaml(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "line.yaml").write_bytes(raw)
    with pytest.raises(ConfigError, match="is not valid YAML"):
        read_line(tmp_path / "line.yaml")


def test_a_key_given_twice(tmp_path: Path) -> None:
    """YAML parsers take the last one silently, and somebody's deadline is not what they read in the file."""
    (tmp_path / "line.yaml").write_text(
        "bundle: a\ncameras:\n- id: a\n  id: b\n  source: {kind: folder, path: x}\n"
    )
    with pytest.raises(ConfigError, match=r"(?s)is not valid YAML.*id.* twice"):
        read_line(tmp_path / "line.yaml")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot be read: No such file"):
        read_line(tmp_path / "nowhere.yaml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        read_line(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"engine": {"kind": "openvino", "thread": 1}}, "engine.thread: unknown key"),
        ({"engine": {"kind": "openvino", "max_batch": 0}}, "engine.*max_batch: expected 1 to 1024, got 0"),
        ({"engine": {"kind": "abacus"}}, "engine.kind: expected one of .*openvino.*got 'abacus'"),
        ({"engine": {"threads": 1}}, "engine.kind: expected one of"),
        (
            {"sinks": [{"kind": "jsonl", "path": "a"}, {"kind": "jsonl", "file": "a"}]},
            r"sinks\[1\].file: unknown key",
        ),
        ({"sinks": [{"kind": "jsonl"}]}, r"sinks\[0\].path: is required but missing"),
        (
            {"sinks": [{"kind": "jsonl", "path": "no/such/folder"}]},
            "cannot write .*no/such/folder: No such file",
        ),
        (
            {"cameras": [{"id": "a", "source": {"kind": "folder", "path": "nowhere"}}]},
            "there is no such folder",
        ),
        (
            {
                "cameras": [
                    {"id": "a", "source": {"kind": "zmq", "bind": "tcp://127.0.0.1:*"}},
                    {"id": "b", "source": {"kind": "folder", "path": "x", "fpss": 3}},
                ]
            },
            r"cameras\[1\].source.fpss: unknown key",
        ),
        (
            {
                "cameras": [
                    {
                        "id": "a",
                        "source": {"kind": "folder", "path": "x"},
                        "boxes": {"kind": "attached", "x": 1},
                    }
                ]
            },
            r"cameras\[0\].boxes.x: unknown key",
        ),
        (
            {"cameras": [{"id": "a", "source": {"path": "x"}}]},
            r"cameras\[0\].source.kind: expected one of .*folder, .*got None",
        ),
    ],
)
def test_the_service_checks_every_section_before_it_starts(
    tmp_path: Path, bundle: Bundle, changes: dict[str, Any], message: str
) -> None:
    line = _read(tmp_path, _line(**{"bundle": str(bundle.path), **changes}))
    with pytest.raises(AlganError, match=message):
        Service(line)


def test_located_messages_of_plugins() -> None:
    with pytest.raises(ConfigError, match=r"^cameras\[1\]\.source\.fpss: unknown key"):
        plugins.load("sources", {"kind": "folder", "path": "x", "fpss": 1}, "cameras[1].source")
    with pytest.raises(ConfigError, match=r"^cameras\[1\]\.source\.fps: Expected `float`, got `str`"):
        plugins.load("sources", {"kind": "folder", "path": "x", "fps": "1"}, "cameras[1].source")
    with pytest.raises(ConfigError, match=r"^cameras\[1\]\.source: fps: expected 0 to 10000, got -1"):
        plugins.load("sources", {"kind": "folder", "path": "x", "fps": -1}, "cameras[1].source")
