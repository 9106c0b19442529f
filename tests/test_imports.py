"""What may import what: the runtime stays light, and never depends on the trainer or the deploy tools."""

from __future__ import annotations

import ast
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import algan_stream
from algan_stream import errors

_RUNTIME = Path(algan_stream.__file__).parent
_ROOT = Path(__file__).parent.parent
_HEAVY = (
    "torch",
    "tensorrt",
    "cv2",
    "openvino",
    "onnx",
    "onnxruntime",
    "pycuda",
    "algan_trainer",
    "algan_deploy",
)


def _loaded_by(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint('\\n'.join(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in ended.stdout.split()}


@pytest.mark.parametrize(
    "module", ["algan_stream", "algan_stream.client", "algan_stream.cli", "algan_stream.service"]
)
def test_importing_loads_no_heavy_library(module: str) -> None:
    loaded = _loaded_by(f"import {module}")
    allowed = {"algan_trainer", "algan_deploy"} if module == "algan_stream.cli" else set()  # its add-ons
    assert not loaded & set(_HEAVY) - allowed
    assert "algan_stream" in loaded


def test_metrics_are_loaded_only_by_a_line_that_serves_them() -> None:
    assert "prometheus_client" not in _loaded_by("import algan_stream.service")


def test_the_probe_needs_the_standard_library_alone() -> None:
    assert not _loaded_by("import algan_stream.probe") & {"msgspec", "numpy", "typer", "zmq", "yaml"}


def test_the_client_alone_needs_neither_images_nor_yaml() -> None:
    assert not _loaded_by("import algan_stream.client") & {"PIL", "yaml", "typer", "rich"}


def test_the_scan_would_notice() -> None:
    assert "cv2" in _loaded_by("import cv2")


def _imports(path: Path) -> set[str]:
    """Top-level names of all imports in a file, also those inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found


def test_imports_run_towards_the_runtime_never_back() -> None:
    files = sorted(_RUNTIME.rglob("*.py"))
    assert len(files) > 30
    for path in files:
        assert not _imports(path) & {
            "algan_trainer",
            "algan_deploy",
            "torch",
            "trainer",
            "deploy",
            "tests",
        }, path


@pytest.mark.skipif(not (_ROOT / "deploy").is_dir(), reason="needs the whole repository")
def test_the_deploy_tools_do_without_the_trainer() -> None:
    for path in (_ROOT / "deploy" / "algan_deploy").rglob("*.py"):
        assert not _imports(path) & {"algan_trainer", "torch"}, path


def test_every_error_stands_in_the_tree() -> None:
    assert errors.__doc__
    drawn: dict[str, str | None] = {}
    stack: list[str] = []
    for line in errors.__doc__.splitlines():
        if match := re.match(r"^([│├└─ ]*)(\w+Error)\b", line):
            depth = len(match[1]) // 4
            del stack[depth:]
            drawn[match[2]] = stack[-1] if stack else None
            stack.append(match[2])
    classes = {
        name: kind
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, Exception) and kind.__module__ == errors.__name__
    }
    assert set(drawn) == set(classes)
    for name, parent in drawn.items():
        assert (classes[name].__bases__[0].__name__ == parent) or (name == "AlganError" and parent is None)
        assert issubclass(classes[name], errors.AlganError)
        assert 1 <= classes[name].exit_code <= 125
        assert classes[name].exit_code not in (8, 10, 11)  # those of `send` and `score`


def test_the_version_is_the_same_everywhere() -> None:
    from importlib.metadata import version

    here = algan_stream.__version__
    assert version("algan-stream") == here
    for name, line in (
        ("pyproject.toml", f'version = "{here}"'),
        ("CITATION.cff", f"version: {here}"),
        ("CHANGELOG.md", f"## [{here}] - "),  # after [Unreleased], the newest first
    ):
        if (_ROOT / name).is_file():
            lines = (_ROOT / name).read_text("utf-8").splitlines()
            found = [text for text in lines if re.match(r'version = "|version: |## \[\d', text)]
            assert found, name
            assert found[0].startswith(line), name


def test_an_engine_reports_to_nobody(tmp_path: Path) -> None:
    """OpenVINO's own telemetry would start a process and write into the home folder."""
    code = (
        "import sys; from algan_stream.bundle import read_bundle\n"
        "from algan_stream.engines.gate import open_engine\n"
        "open_engine(read_bundle('demo')).close()\n"
        "print([m for m in sys.modules if m.startswith('openvino_telemetry.')])"
    )
    silent = {name: os.environ[name] for name in os.environ if name not in ("CI", "JENKINS_URL", "TF_BUILD")}
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={**silent, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (0, "[]\n"), ran.stderr
    assert list(tmp_path.iterdir()) == []
