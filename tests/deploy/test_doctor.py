"""`algan-stream doctor` on made-up machines: each is a root directory with the files that tell."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest
import yaml
from typer.testing import CliRunner

from algan_deploy.checks import cameras, engines, finding, gpu, line, machine
from algan_deploy.checks.finding import Finding, Host
from algan_deploy.doctor import examine
from algan_stream import cpus, plugins
from algan_stream.cli import app
from algan_stream.config import LineConfig, read_line

_ORIN = {
    "/etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64",
    "/proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0",
    "/var/lib/nvpmodel/status": "pmode:0000",
    "/etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=2 NAME=MODE_30W >",
    "/sys/devices/system/cpu/cpu0/cpufreq/scaling_min_freq": "2201600",
    "/sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq": "2201600",
    "/dev/nvhost-gpu": "",
    "/usr/local/cuda/version.json": '{"cuda": {"name": "CUDA SDK", "version": "12.6.1"}}',
}
_X86 = "model name\t: Some Xeon\nflags\t\t: fpu sse4_1 avx2 avx512f avx512_vnni amx_bf16 amx_int8\n"


def made(root: Path, files: dict[str, str]) -> Host:
    for name, text in files.items():
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return Host(root)


def by_name(findings: Iterable[Finding]) -> dict[str, Finding]:
    return {f.name: f for f in findings}


def a_line(tmp_path: Path, **more: Any) -> LineConfig:
    raw = {"bundle": "demo", "cameras": [{"id": "a", "source": {"kind": "folder", "path": str(tmp_path)}}]}
    file = tmp_path / "line.yaml"
    file.write_text(yaml.safe_dump({**raw, **more}), "utf-8")
    return read_line(file)


# ---- Jetson -----------------------------------------------------------------------------------------


def test_an_orin_in_its_fastest_mode(tmp_path: Path) -> None:
    host = made(tmp_path, _ORIN)
    said = by_name([*gpu.jetson(host), *gpu.driver(host), *gpu.toolkit(host)])
    assert {f.state for f in said.values()} == {"ok"}
    assert said["jetson"].detail == "NVIDIA Jetson AGX Orin Developer Kit, L4T 36.4.3, JetPack 6.1 or 6.2"
    assert said["power mode"].detail == "MAXN (ID 0)"
    assert "2.20 GHz" in said["clocks"].detail
    assert "CUDA 12.6.1" in said["cuda toolkit"].detail


def test_an_orin_that_saves_power_is_told_how_to_be_faster(tmp_path: Path) -> None:
    slow = {
        **_ORIN,
        "/var/lib/nvpmodel/status": "pmode:0002",
        "/sys/devices/system/cpu/cpu0/cpufreq/scaling_min_freq": "115200",
    }
    said = by_name(gpu.jetson(made(tmp_path, slow)))
    assert (said["power mode"].state, said["power mode"].mend) == ("missing", "sudo nvpmodel -m 0")
    assert "MODE_30W (ID 2)" in said["power mode"].detail
    assert "sudo jetson_clocks" in said["clocks"].mend


def test_a_jetson_with_nothing_but_its_release(tmp_path: Path) -> None:
    said = by_name(gpu.jetson(made(tmp_path, {"/etc/nv_tegra_release": "garbage"})))
    assert {f.state for f in said.values()} == {"missing"}


def test_jetpack_5_cannot_use_its_gpu(tmp_path: Path) -> None:
    host = made(tmp_path, {"/etc/nv_tegra_release": "# R35 (release), REVISION: 4.1, GCID: 1"})
    jetson = by_name(gpu.jetson(host))["jetson"]
    assert jetson.state == "missing"
    assert "JetPack 5.1" in jetson.detail
    assert "JetPack 6" in jetson.mend
    assert "--runtime nvidia" in next(iter(gpu.driver(host))).mend  # no device nodes


@pytest.mark.parametrize(
    ("l4t", "expected"),
    [
        ("32.7.1", "4"),
        ("35.3.1", "5.1"),
        ("36.2.0", "6.0 DP"),
        ("36.3.0", "6.0"),
        ("36.9", "6"),
        ("38.2", "7"),
        ("3", "unknown"),
    ],
)
def test_jetpack_by_release(l4t: str, expected: str) -> None:
    assert gpu.jetpack(l4t) == expected


def test_a_server_is_no_jetson(tmp_path: Path) -> None:
    assert list(gpu.jetson(Host(tmp_path))) == []


# ---- servers with GPUs ------------------------------------------------------------------------------

_H100 = {
    "/proc/driver/nvidia/version": "NVRM version: NVIDIA Open Kernel Module for x86_64  580.65.06  Release",
    "/proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: \t\t NVIDIA H100\nIRQ: 1",
}


def test_a_driver_with_its_gpus(tmp_path: Path) -> None:
    (driver,) = gpu.driver(made(tmp_path, {**_H100, "/dev/nvidia0": ""}))
    assert (driver.state, driver.detail) == ("ok", "driver 580.65.06: NVIDIA H100")
    (toolkit,) = gpu.toolkit(Host(tmp_path))
    assert toolkit.state == "missing"


def test_a_container_that_was_not_given_the_gpu(tmp_path: Path) -> None:
    (driver,) = gpu.driver(made(tmp_path, _H100))
    assert driver.state == "missing"
    assert "--gpus all" in driver.mend


def test_no_driver(tmp_path: Path) -> None:
    (driver,) = gpu.driver(Host(tmp_path))
    assert driver.state == "missing"
    assert "CPU" in driver.detail
    assert list(gpu.toolkit(Host(tmp_path))) == []


# ---- processor and memory ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cpuinfo", "state", "expected"),
    [
        (_X86, "ok", "Some Xeon: AVX2, AVX-512, VNNI, AMX-bf16, AMX-int8; bf16 and int8 in hardware"),
        ("model name: Old\nflags: sse2", "missing", "no AVX2, the core takes a slower path; no instructions"),
        (
            "Features\t: fp asimd asimddp i8mm bf16",
            "ok",
            "NEON, dot product, int8 matrices, bf16; bf16 and int8",
        ),
        ("", "missing", "tells no instruction sets"),
    ],
)
def test_instruction_sets(tmp_path: Path, cpuinfo: str, state: str, expected: str) -> None:
    (said,) = machine.processor(made(tmp_path, {"/proc/cpuinfo": cpuinfo}))
    assert said.state == state
    assert expected in said.detail


def test_memory_is_what_the_nearest_limit_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cgroup = tmp_path / "sys/fs/cgroup"
    own = tmp_path / "membership"
    monkeypatch.setattr(cpus.own_cgroups, "__defaults__", (cgroup, own))
    host = made(tmp_path, {"/membership": "0::/a/b\n", "/sys/fs/cgroup/a/memory.max": f"{300 << 20}\n"})
    made(tmp_path, {"/sys/fs/cgroup/a/b/memory.max": "max\n"})
    assert machine.usable_bytes(host) == 300 << 20
    (said,) = machine.memory(host)
    assert (said.state, said.mend) == ("missing", "raise the limit")
    assert "0.3 GiB usable" in said.detail
    made(tmp_path, {"/sys/fs/cgroup/memory/memory.limit_in_bytes": f"{200 << 20}\n"})
    assert machine.usable_bytes(host) == 200 << 20


def test_waiting_frames_that_do_not_fit(tmp_path: Path) -> None:
    many = a_line(
        tmp_path, cameras=[{"id": "a", "queue_size": 10_000, "source": {"kind": "zmq", "bind": "ipc://x"}}]
    )
    made(tmp_path, {"/sys/fs/cgroup/memory/memory.limit_in_bytes": f"{1 << 30}"})
    (said,) = line.frames_in_memory(Host(tmp_path, many))
    assert said.state == "wrong"
    assert "10000 frames may wait" in said.detail
    (said,) = line.frames_in_memory(Host(tmp_path, a_line(tmp_path)))
    assert said.state == "ok"
    assert list(line.frames_in_memory(Host(tmp_path))) == []


# ---- shared memory ----------------------------------------------------------------------------------


class _RingConfig(msgspec.Struct, kw_only=True):
    kind: str
    slots: int

    @property
    def shared_memory_bytes(self) -> int:
        return self.slots << 20


def test_shared_memory_against_what_the_cameras_want(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ring = ModuleType("ring")
    ring.Config = _RingConfig  # type: ignore[attr-defined]
    monkeypatch.setattr(plugins, "kinds", lambda _: ["ring"])
    monkeypatch.setattr(plugins, "_import", lambda *_: ring)

    def asked(slots: int) -> Finding:
        config = a_line(tmp_path, cameras=[{"id": "press", "source": {"kind": "ring", "slots": slots}}])
        (said,) = machine.shared_memory(Host(tmp_path, config))
        return said

    assert (asked(64).state, asked(64).mend.split()[0]) == ("wrong", "mount")  # there is no /dev/shm
    (tmp_path / "dev/shm").mkdir(parents=True)
    assert asked(64).state == "ok"
    assert "need 64 MiB" in asked(64).detail
    too_much = asked(1 << 40)
    assert too_much.state == "wrong"
    assert "press: " in too_much.detail
    assert "--shm-size=" in too_much.mend


def test_no_shared_memory_is_no_fault_where_nobody_wants_it(tmp_path: Path) -> None:
    (said,) = machine.shared_memory(Host(tmp_path))
    assert said.state == "missing"
    (said,) = machine.shared_memory(Host(tmp_path, a_line(tmp_path)))
    assert said.state == "missing"


# ---- cameras ----------------------------------------------------------------------------------------


def test_usb_cameras_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (none,) = cameras.video4linux(Host(tmp_path))
    assert none.state == "missing"
    host = made(
        tmp_path, {"/dev/video0": "", "/dev/video1": "", "/sys/class/video4linux/video0/name": "Cam\n"}
    )
    (said,) = cameras.video4linux(host)
    assert (said.state, said.detail) == ("ok", "video0 (Cam), video1 (unknown camera)")
    monkeypatch.setattr(os, "access", lambda *_: False)
    (said,) = cameras.video4linux(host)
    assert said.state == "missing"
    assert "usermod -aG video" in said.mend


def test_frameworks_and_producers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cameras, "installed", lambda *_: "1.4")
    (tmp_path / "vendor.cti").touch()
    monkeypatch.setenv("GENICAM_GENTL64_PATH", f"{tmp_path}:/nowhere")
    said = by_name(cameras.frameworks(Host(tmp_path)))
    assert said["cameras gentl"].detail == "vendor.cti"
    assert said["cameras pylon"].state == "ok"
    monkeypatch.delenv("GENICAM_GENTL64_PATH")
    assert by_name(cameras.frameworks(Host(tmp_path)))["cameras gentl"].state == "missing"
    monkeypatch.setattr(cameras, "installed", lambda *_: None)
    said = by_name(cameras.frameworks(Host(tmp_path)))
    assert said["cameras genicam"].mend == "pip install harvesters"
    assert "cameras gentl" not in said


# ---- engines and lines ------------------------------------------------------------------------------


def test_engines_say_which_is_used(tmp_path: Path) -> None:
    said = by_name(engines.each(Host(tmp_path)))["engine openvino"]
    assert said.state == "ok"
    assert "used unless" in said.detail
    assert (
        "this line uses it"
        in by_name(engines.each(Host(tmp_path, a_line(tmp_path))))["engine openvino"].detail
    )


def test_an_engine_that_is_not_installed_is_wrong_only_if_it_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins, "kinds", lambda _: ["onnxruntime", "openvino", "tensorrt", "theirs"])
    monkeypatch.setattr(engines, "installed", lambda name: None if name == "onnxruntime" else "1")
    said = by_name(engines.each(Host(tmp_path)))
    assert said["engine onnxruntime"].state == "missing"
    assert said["engine onnxruntime"].mend == "pip install 'algan-stream[onnxruntime]'"
    assert said["engine theirs"].state == "ok"
    assert "engine tensorrt" not in said
    wanted = msgspec.structs.replace(a_line(tmp_path), engine={"kind": "onnxruntime"})
    assert by_name(engines.each(Host(tmp_path, wanted)))["engine onnxruntime"].state == "wrong"


def test_a_library_that_cannot_be_loaded_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr(engines, "installed", lambda _: "1")
    said = by_name(engines.each(Host(tmp_path)))["engine openvino"]
    assert said.state == "wrong"
    assert "broken" in said.detail


def test_the_gate_takes_the_lines_own_bundle(tmp_path: Path) -> None:
    (said,) = engines.golden_gate(Host(tmp_path, a_line(tmp_path)))
    assert said.state == "ok"
    (said,) = engines.golden_gate(Host(tmp_path, a_line(tmp_path, bundle="nothing.bundle")))
    assert said.state == "wrong"
    assert "nothing.bundle" in said.detail


def test_sinks_and_cameras_of_a_line(tmp_path: Path) -> None:
    config = a_line(
        tmp_path,
        cameras=[
            {"id": "a", "source": {"kind": "folder", "path": str(tmp_path)}},
            {"id": "b", "source": {"kind": "none"}},
            {"id": "c", "source": {"kind": "folder", "path": str(tmp_path / "nowhere")}},
        ],
        sinks=[
            {"kind": "jsonl", "path": str(tmp_path / "v.jsonl")},
            {"kind": "jsonl", "path": str(tmp_path / "no" / "v.jsonl")},
            {"kind": "zmq_pub", "bind": "tcp://127.0.0.1:0"},
            {"kind": "jsonl"},
            {"kind": "zmq_pub", "bind": "tcp://127.0.0.1:0", "delivery": {"spill": str(tmp_path / "s")}},
            {"kind": "zmq_pub", "bind": "tcp://127.0.0.1:0", "delivery": {"spil": "s"}},
            {"kind": "webhook", "url": "http://127.0.0.1:9/"},
            {"kind": "webhook", "url": "http://mes.plant/"},
            {"kind": "archive", "path": str(tmp_path / "no" / "archive")},  # which makes its folder
        ],
    )
    said = by_name([*line.cameras(Host(tmp_path, config)), *line.sinks(Host(tmp_path, config))])
    states = {name: f.state for name, f in said.items()}
    assert states.pop("sink 0") in ("ok", "missing")  # as much room as the disk has
    assert states.pop("sink 8") in ("ok", "missing")
    assert states == {
        "camera a": "ok",
        "camera b": "wrong",
        "camera c": "wrong",
        "sink 1": "wrong",
        "sink 2": "ok",
        "sink 3": "wrong",
        "sink 4": "ok",
        "sink 5": "wrong",
        "sink 6": "ok",
        "sink 7": "wrong",
    }
    assert said["sink 1"].mend == f"mkdir -p {tmp_path / 'no'}"


def test_a_file_that_may_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    config = a_line(tmp_path, sinks=[{"kind": "jsonl", "path": str(tmp_path / "v.jsonl")}])
    (said,) = line.sinks(Host(tmp_path, config))
    assert said.state == "wrong"
    assert "chown" in said.mend


# ---- the command ------------------------------------------------------------------------------------


def test_the_command_with_a_line_and_without(tmp_path: Path) -> None:
    a_line(tmp_path)
    ended = CliRunner().invoke(app, ["doctor", "--line", str(tmp_path / "line.yaml"), "--json"])
    assert ended.exit_code == 0, ended.output
    names = [f["name"] for f in json.loads(ended.stdout)["findings"]]
    assert names[0] == "line"
    assert {"processor", "waiting frames", "camera a", "golden gate", "cameras v4l2"} <= set(names)
    (tmp_path / "line.yaml").write_text("bundle: demo\ncamera: []\n")
    ended = CliRunner().invoke(app, ["doctor", "--line", str(tmp_path / "line.yaml")])
    assert ended.exit_code == 1
    assert "camera: unknown key" in " ".join(ended.output.replace("│", " ").split())


def test_a_check_that_breaks_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Host) -> list[Finding]:
        raise OSError("no such luck")

    monkeypatch.setattr("algan_deploy.doctor._CHECKS", (broken, machine.python))
    said = examine(root=tmp_path)
    assert [f.state for f in said] == ["wrong", "ok"]
    assert said[0].detail == "OSError: no such luck"


def test_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert finding.installed("numpy") is not None
    assert finding.installed("no_such_module") is None
    assert finding.installed("no_such.module") is None
    assert finding.installed("bundles") == "unknown version"  # a module that no package installed
    assert finding.about_package("x", "no_such_module", "why", "how").mend == "how"
