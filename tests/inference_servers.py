"""Real inference servers as processes of their own: NVIDIA Triton and MLServer.

They live in an environment of their own, made by `make test-triton`; without it these tests skip.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from algan_deploy.serving.export import Options, export
from algan_stream.bundle import Bundle

MODEL = "served"
_ROOT = Path(__file__).parent.parent
_ENVIRONMENT = _ROOT / ".venv-servers"
_ABOUT_IT = Path(__file__).parent / "serving"
_PATIENCE_S = 60.0


def missing() -> str:
    """Why the servers cannot be started; "" if they can."""
    if (_ENVIRONMENT / "bin" / "mlserver").exists():
        return ""
    return f"Triton and MLServer are not installed in {_ENVIRONMENT.name}: `make test-triton` does that"


class Server:
    """A server that serves one model, and can be killed and started again at the same address.

    Args:
        folder: Empty, for everything that it needs.
    """

    kind = ""

    def __init__(self, folder: Path, bundle: Bundle) -> None:
        self.folder = folder
        self.http, self.grpc, self.metrics = _free_ports(3)
        self.process: subprocess.Popen[bytes] | None = None
        self.serve(bundle)

    def serve(self, bundle: Bundle) -> None:
        """Puts a bundle's model into the repository; takes effect at the next start."""
        raise NotImplementedError

    def start(self) -> None:
        """Starts it and waits until the model is ready."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self._command(), env=self._environment(), stdout=log, stderr=log, start_new_session=True
            )
        give_up = time.monotonic() + _PATIENCE_S
        while not self._is_ready():
            if self.process.poll() is not None or time.monotonic() > give_up:
                self.stop()
                raise AssertionError(
                    f"{self.kind} did not start:\n{(self.folder / 'log').read_text()[-4000:]}"
                )
            time.sleep(0.1)

    def signal(self, number: int) -> None:
        """Sends a signal to all its processes."""
        assert self.process is not None
        os.killpg(self.process.pid, number)

    def stop(self) -> None:
        """Kills it, whatever it does."""
        if self.process is not None:
            self.signal(signal.SIGKILL)
            self.process.wait(_PATIENCE_S)
            self.process = None

    def url(self, protocol: str) -> str:
        return f"{protocol}://127.0.0.1:{self.http if protocol == 'http' else self.grpc}"

    def _command(self) -> list[str]:
        raise NotImplementedError

    def _environment(self) -> dict[str, str]:
        """Without anything of the environment that runs the tests."""
        path = f"{_ENVIRONMENT / 'bin'}:/usr/bin:/bin"
        return {"PATH": path, "VIRTUAL_ENV": str(_ENVIRONMENT), "HOME": str(self.folder)}

    def _is_ready(self) -> bool:
        url = f"http://127.0.0.1:{self.http}/v2/models/{MODEL}/ready"
        try:
            with urllib.request.urlopen(url, timeout=1.0) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


class MlServer(Server):
    """MLServer: speaks JSON over HTTP, and keeps no model configuration."""

    kind = "MLServer"

    def serve(self, bundle: Bundle) -> None:
        repository = self.folder / "repository"
        repository.mkdir(exist_ok=True)
        shape = list(bundle.manifest.spec.shape)
        settings = {
            "host": "127.0.0.1",
            "http_port": self.http,
            "grpc_port": self.grpc,
            "metrics_port": self.metrics,
            "parallel_workers": 0,
            "grpc_max_message_length": 2**30,
            "debug": False,
        }
        model = {
            "name": MODEL,
            "implementation": "mlserver_onnx.OnnxModel",
            "parameters": {"uri": str(bundle.model_path), "version": "v1"},
            "inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, *shape]}],
            "outputs": [{"name": "logit", "datatype": "FP32", "shape": [-1]}],
        }
        (repository / "settings.json").write_text(json.dumps(settings))
        (repository / "model-settings.json").write_text(json.dumps(model))

    def _command(self) -> list[str]:
        return [str(_ENVIRONMENT / "bin" / "mlserver"), "start", str(self.folder / "repository")]

    def _environment(self) -> dict[str, str]:
        return {**super()._environment(), "PYTHONPATH": str(_ABOUT_IT)}


class Triton(Server):
    """NVIDIA Triton as NVIDIA builds it, serving a real export, but for the backend that runs the graph."""

    kind = "NVIDIA Triton"

    def serve(self, bundle: Bundle) -> None:
        target = export(bundle, self.folder / "repository", Options(to="triton", name=MODEL, max_batch=8))
        config = target / "config.pbtxt"
        text = config.read_text("utf-8")
        for ours, here in (('backend: "onnxruntime"', 'backend: "python"'), ("model.onnx", "model.py")):
            assert text.count(ours) == 1
            text = text.replace(ours, here)
        config.write_text(text, "utf-8")
        shutil.copyfile(_ABOUT_IT / "triton_onnx.py", target / "1" / "model.py")

    def stop(self) -> None:
        super().stop()
        for left in Path("/dev/shm").glob(f"{self._shared_memory()}*"):
            left.unlink()

    def _shared_memory(self) -> str:
        return f"algan-test-{self.http}-"

    def _command(self) -> list[str]:
        python = f"python{sys.version_info.major}.{sys.version_info.minor}"
        packages = _ENVIRONMENT / "lib" / python / "site-packages"
        server = packages / "pytriton" / "tritonserver"
        if not server.is_dir():
            pytest.skip(f"{server} is not there: `make test-triton` with the Python that runs the tests")
        backend = self.folder / "backends" / "python"
        if not backend.exists():
            shutil.copytree(server / "backends" / "python", backend)
            stub = backend / "triton_python_backend_stub"
            shutil.copyfile(server / "python_backend_stubs" / python.removeprefix("python") / stub.name, stub)
            stub.chmod(0o755)
        return [
            str(server / "bin" / "tritonserver"),
            f"--model-repository={self.folder / 'repository'}",
            f"--backend-directory={self.folder / 'backends'}",
            f"--backend-config=python,shm-region-prefix-name={self._shared_memory()}",
            "--disable-auto-complete-config",  # our configuration must be complete as it is
            *("--http-address=127.0.0.1", f"--http-port={self.http}"),
            *("--grpc-address=127.0.0.1", f"--grpc-port={self.grpc}"),
            "--allow-metrics=false",
        ]

    def _environment(self) -> dict[str, str]:
        import sysconfig

        packages = _ENVIRONMENT / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
        # The backend's helper needs libpython, and has been moved away from its other libraries.
        libraries = f"{sysconfig.get_config_var('LIBDIR')}:{packages / 'nvidia_pytriton.libs'}"
        return {**super()._environment(), "PYTHONPATH": str(packages), "LD_LIBRARY_PATH": libraries}


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports
