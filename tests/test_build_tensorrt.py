"""`tensorrt` itself, which cannot be installed without a GPU: the same code, and its real interface."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from algan_deploy.build import builder, tensorrt
from algan_deploy.build.request import Request
from algan_stream.bundle import Bundle
from algan_stream.engines.cache import EngineCache
from algan_stream.engines.cuda_device import DeviceFacts
from algan_stream.errors import EngineError

_ROOT = Path(__file__).parents[1]
needs_rtx = pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx-cu13 is not installed")
FACTS = DeviceFacts("NVIDIA A100", (8, 0), "580.95.05")


def request(bundle: Bundle, folder: Path, **more: Any) -> Request:
    values = {"precision": "fp32", "batch": (1, 4, 8), **more}
    return Request(bundle=bundle, cache=EngineCache(folder), **values)


@pytest.fixture
def as_tensorrt(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module `tensorrt` that is the one for RTX, with a device where none is."""
    rtx = pytest.importorskip("tensorrt_rtx")

    class Builder:
        def __init__(self, logger: Any) -> None:
            self._real = rtx.Builder(logger)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._real, name)

        def create_builder_config(self) -> Any:
            config = self._real.create_builder_config()
            config.num_compute_capabilities = 1
            config.set_compute_capability(rtx.ComputeCapability.SM80, 0)
            return config

    names = {name: getattr(rtx, name) for name in dir(rtx) if not name.startswith("_")}
    module = SimpleNamespace(**{**names, "Builder": Builder, "__version__": "11.4.0", "__name__": "tensorrt"})
    monkeypatch.setitem(sys.modules, "tensorrt", module)  # type: ignore[arg-type]
    return module


@pytest.mark.filterwarnings("ignore:Use Deprecated in TensorRT-RTX:DeprecationWarning")
def test_tensorrt_by_the_same_path(as_tensorrt: Any, bundle: Bundle, tmp_path: Path) -> None:
    (built,) = tensorrt.build(request(bundle, tmp_path, hardware_compatible=True), FACTS)
    assert (built.kind, built.version, built.device) == ("tensorrt", "11.4.0", "ampere or newer")
    assert built.flags == ("AMPERE_PLUS",)
    (plain,) = tensorrt.build(request(bundle, tmp_path), FACTS)
    assert plain.device == "NVIDIA A100 sm80"
    assert {e.info.key.driver for e in EngineCache(tmp_path).entries() if e.info} == {"", "580.95.05"}
    (timing,) = tmp_path.glob("timing-*.cache")
    assert timing.name == "timing-11.4.0-NVIDIA-A100-sm80.cache"
    assert timing.stat().st_size > 0
    (again,) = tensorrt.build(request(bundle, tmp_path), FACTS)
    assert again.found
    (forced,) = tensorrt.build(request(bundle, tmp_path, force=True), FACTS)  # reads the timings
    assert not forced.found


class _Config:
    """A builder's configuration of versions before 11: what is set, is kept."""

    def __init__(self) -> None:
        self.on: set[str] = set()

    def set_flag(self, flag: str) -> None:
        self.on.add(flag)

    def clear_flag(self, flag: str) -> None:
        self.on.discard(flag)


@pytest.mark.parametrize(
    ("older", "precision", "dla", "typed", "on"),
    [
        (True, "fp16", None, True, []),
        (True, "fp16", 1, False, ["FP16"]),
        (True, "int8", 1, False, ["FP16", "INT8"]),
        (False, "fp16", 1, True, []),
        (False, "fp32", None, True, []),
    ],
)
def test_types_come_from_the_graph_or_by_flags(
    bundle: Bundle, tmp_path: Path, older: bool, precision: str, dla: int | None, typed: bool, on: list[str]
) -> None:
    flags = {"TF32": "TF32", **({"FP16": "FP16", "INT8": "INT8"} if older else {})}
    creation = {"STRONGLY_TYPED": 1, **({"EXPLICIT_BATCH": 0} if older else {})}
    trt = SimpleNamespace(
        BuilderFlag=SimpleNamespace(**flags), NetworkDefinitionCreationFlag=SimpleNamespace(**creation)
    )
    asked, config = request(bundle, tmp_path, precision=precision, dla=dla), _Config()
    config.set_flag("TF32")
    assert builder._strongly_typed(trt, asked) == typed
    assert builder._creation_flags(trt, typed) == (2 if typed else 0) + (1 if older else 0)
    assert builder._set_precision(trt, config, asked, typed=typed) == on
    assert config.on == {*on, *(() if precision == "fp32" else ("TF32",))}


def test_the_accelerator_of_a_jetson(bundle: Bundle, tmp_path: Path) -> None:
    trt = SimpleNamespace(
        BuilderFlag=SimpleNamespace(GPU_FALLBACK="GPU_FALLBACK"), DeviceType=SimpleNamespace(DLA="DLA")
    )
    asked, config = request(bundle, tmp_path, precision="fp16", dla=1), _Config()
    said = builder._set_device(trt, SimpleNamespace(num_DLA_cores=2), config, asked, "")
    assert said == ["DLA1", "GPU_FALLBACK"]
    assert (config.default_device_type, config.DLA_core) == ("DLA", 1)  # type: ignore[attr-defined]
    with pytest.raises(EngineError, match=r"--dla: expected below 1, the cores here, got 1"):
        builder._set_device(trt, SimpleNamespace(num_DLA_cores=1), config, asked, "")


_SYMBOLS = [
    "createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL", "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL", "createNvOnnxParser_INTERNAL", "getBuilderPluginRegistry",
    "getNvOnnxParserVersion", "getPluginRegistry", "initLibNvInferPlugins",
]  # fmt: skip


@pytest.fixture(scope="module")
def bindings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Names in the real `tensorrt`: its bindings, over libraries that are empty but for the entry points."""
    if find_spec("tensorrt_bindings") is None:
        pytest.skip("tensorrt-cu13-bindings is not installed")
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("libraries")
    (folder / "empty.c").write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in _SYMBOLS))
    for name in ("libnvinfer", "libnvinfer_plugin", "libnvonnxparser"):
        soname = f"{name}.so.11"
        command = [
            "cc",
            "-shared",
            "-fPIC",
            f"-Wl,-soname,{soname}",
            "-o",
            folder / soname,
            folder / "empty.c",
        ]
        subprocess.run(command, check=True)
    code = """
import json, tensorrt_bindings as trt
names = {n: [m for m in dir(getattr(trt, n)) if m[0] != "_"] for n in dir(trt) if n[0] != "_"}
try:
    trt.Builder(trt.Logger())
    reached = "built"
except Exception as error:
    reached = str(error)
print(json.dumps({"names": names, "version": trt.__version__, "reached": reached}))
"""
    environment = {**os.environ, "LD_LIBRARY_PATH": str(folder)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@needs_rtx
@pytest.mark.skipif(not (_ROOT / "deploy").is_dir(), reason="needs the whole repository")
def test_the_real_tensorrt_has_all_that_is_used(bindings: dict[str, Any]) -> None:
    """Every name that our code takes from the module or its objects; those for RTX alone are known."""
    import tensorrt_rtx as rtx

    sources = ("engines/tensorrt_engine.py", "engines/tensorrt_common.py")
    paths = [
        *(_ROOT / "algan_stream" / name for name in sources),
        _ROOT / "deploy/algan_deploy/build/builder.py",
    ]
    used = {
        node.attr if isinstance(node, ast.Attribute) else node.args[1].value
        for path in paths
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        or (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "hasattr"
            and isinstance(node.args[1], ast.Constant)
        )
    }
    only_rtx = {
        "ComputeCapability",
        "num_compute_capabilities",
        "set_compute_capability",
        "is_stream_capturable",
    }
    names = bindings["names"]
    assert used & {"execute_async_v3", "build_serialized_network", "Runtime", "parse", "set_timing_cache"}
    for name in sorted(name for name in used - only_rtx if name[0] != "_"):
        if hasattr(rtx, name):
            assert name in names, name
        for holder in (n for n in dir(rtx) if n[0] != "_" and isinstance(getattr(rtx, n), type)):
            if hasattr(getattr(rtx, holder), name) and holder in names:
                assert name in names[holder], f"{holder}.{name}"
    assert "nullptr" in bindings["reached"]  # the builder's call is as far as it goes without the libraries
