"""Runs a chart through Helm itself without a cluster: lint, then an install into a stand-in for the API.

    python deploy/checks/helm.py CHART --library libhelm_sdkpy.so [--out FOLDER] [--values FILE …]

Helm comes as the Go library (v4) inside the PyPI package helm-sdkpy. It has `lint`; `template` it has not,
so each set of values is installed into a server of this script's own on 127.0.0.1, which knows no objects,
takes each that comes, and keeps it. What arrived there is checked against Kubernetes' own JSON schemas,
strictly, for each version named; they come with the package kubernetes-validate.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

_SEVERITIES = ("unknown", "info", "warning", "error")
_RESOURCES = {
    "/api/v1": [("ConfigMap", "configmaps"), ("Service", "services"), ("Secret", "secrets")],
    "/apis/apps/v1": [("Deployment", "deployments")],
    "/apis/policy/v1": [("PodDisruptionBudget", "poddisruptionbudgets")],
    "/apis/networking.k8s.io/v1": [("NetworkPolicy", "networkpolicies")],
    "/apis/monitoring.coreos.com/v1": [("ServiceMonitor", "servicemonitors")],
}
_KUBECONFIG = """\
apiVersion: v1
kind: Config
clusters: [{{name: stand-in, cluster: {{server: "http://127.0.0.1:{port}"}}}}]
users: [{{name: nobody, user: {{}}}}]
contexts: [{{name: stand-in, context: {{cluster: stand-in, user: nobody}}}}]
current-context: stand-in
"""


class StandIn(BaseHTTPRequestHandler):
    """As much of the API server as an installation asks for."""

    version = "v1.33.0"
    created: list[dict[str, Any]] = []  # noqa: RUF012  shared by all requests on purpose

    def do_GET(self) -> None:
        """Says what there is: a version, kinds, and no objects."""
        path = self.path.partition("?")[0].rstrip("/")
        if path == "/version":
            self._answer(200, {"major": "1", "minor": self.version.split(".")[1], "gitVersion": self.version})
        elif path == "/api":
            self._answer(200, {"kind": "APIVersions", "versions": ["v1"]})
        elif path == "/apis":
            self._answer(200, {"kind": "APIGroupList", "apiVersion": "v1", "groups": _groups()})
        elif path in _RESOURCES:
            self._answer(200, _resource_list(path))
        elif path.endswith("/secrets"):
            self._answer(200, {"kind": "SecretList", "apiVersion": "v1", "metadata": {}, "items": []})
        else:
            self._answer(
                404,
                {
                    "kind": "Status",
                    "apiVersion": "v1",
                    "status": "Failure",
                    "reason": "NotFound",
                    "code": 404,
                },
            )

    def do_POST(self) -> None:
        """Takes a new object."""
        self._take(201, keep=True)

    def do_PUT(self) -> None:
        """Takes a change."""
        self._take(200, keep=False)

    do_PATCH = do_PUT  # noqa: N815  the name that http.server looks for

    def log_message(self, *_: object) -> None:
        """Says nothing."""

    def _take(self, status: int, *, keep: bool) -> None:
        sent, kind = self.rfile.read(int(self.headers["Content-Length"])), self.headers["Content-Type"]
        if keep and "json" in kind:  # Helm's own record of the release, a Secret, comes as protobuf
            self.created.append(json.loads(sent))
        self._send(status, sent, kind)

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        self._send(status, json.dumps(body).encode(), "application/json")

    def _send(self, status: int, data: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _groups() -> list[dict[str, Any]]:
    found = []
    for path in _RESOURCES:
        if path.startswith("/apis/"):
            group, version = path.split("/")[2:]
            preferred = {"groupVersion": f"{group}/{version}", "version": version}
            found.append({"name": group, "versions": [preferred], "preferredVersion": preferred})
    return found


def _resource_list(path: str) -> dict[str, Any]:
    verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": path.removeprefix("/apis/").removeprefix("/api/"),
        "resources": [
            {"name": plural, "singularName": kind.lower(), "namespaced": True, "kind": kind, "verbs": verbs}
            for kind, plural in _RESOURCES[path]
        ],
    }


class Helm:
    """The functions of the library that are used here.

    Args:
        library: Path of libhelm_sdkpy.so.
        kubeconfig: Names the server.
    """

    def __init__(self, library: Path, kubeconfig: Path) -> None:
        self._c = ctypes.CDLL(str(library))
        self._c.helm_sdkpy_last_error.restype = ctypes.c_char_p
        self._handle = ctypes.c_ulonglong()
        self._do("config_create", b"lines", str(kubeconfig).encode(), b"", b"{}", ctypes.byref(self._handle))

    def lint(self, chart: Path) -> list[dict[str, Any]]:
        """Helm's messages about a chart with its default values."""
        found = self._json("lint", str(chart).encode()) or {}
        return found.get("Messages") or []

    def install(self, chart: Path, values: dict[str, Any]) -> None:
        """Sends everything that the chart makes of the values to the server."""
        options = json.dumps({"wait": False, "disable_openapi_validation": True}).encode()
        self._json("install", b"press3", str(chart).encode(), json.dumps(values).encode(), b"", options)

    def _json(self, name: str, *arguments: bytes) -> Any:
        out = ctypes.c_char_p()
        self._do(name, self._handle, *arguments, ctypes.byref(out))
        return json.loads(out.value or b"null")

    def _do(self, name: str, *arguments: object) -> None:
        if getattr(self._c, f"helm_sdkpy_{name}")(*arguments) != 0:
            raise RuntimeError(f"helm {name}: {(self._c.helm_sdkpy_last_error() or b'').decode()}")


def faults_by_schema(manifest: dict[str, Any], version: str) -> str:
    """What Kubernetes' JSON schema of a version says against an object; "" for nothing."""
    try:
        import kubernetes_validate
    except ModuleNotFoundError as error:
        raise SystemExit("pip install kubernetes-validate") from error
    try:
        kubernetes_validate.validate(manifest, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{manifest['kind']}: {'.'.join(map(str, error.path))}: {error.message}"
    except kubernetes_validate.SchemaNotFoundError:
        return "" if manifest["kind"] == "ServiceMonitor" else f"{manifest['kind']}: no schema"
    return ""


def check(helm: Helm, chart: Path, values: Path | None, versions: list[str], out: Path | None) -> list[str]:
    """Installs the chart with one set of values; returns what is wrong with what arrived."""
    StandIn.created = []
    name = values.stem if values else "default"
    helm.install(chart, yaml.safe_load(values.read_text("utf-8")) if values else {})
    arrived = StandIn.created
    if out:
        out.mkdir(parents=True, exist_ok=True)
        (out / f"{name}.yaml").write_text(yaml.safe_dump_all(arrived, sort_keys=False), "utf-8")
    faults = [fault for one in arrived for version in versions if (fault := faults_by_schema(one, version))]
    if len(arrived) < 3:
        faults.append(f"only {len(arrived)} objects arrived")
    print(f"{name}: {len(arrived)} objects ({', '.join(one['kind'] for one in arrived)}): {faults or 'ok'}")
    return faults


def main() -> int:
    """Returns the exit code: 0 if nothing is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("chart", type=Path)
    parser.add_argument("--library", type=Path, required=True)
    parser.add_argument("--values", type=Path, nargs="*", default=[])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--kubernetes", nargs="*", default=["1.33", "1.37"], help="versions of the schemas")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, ThreadingHTTPServer(("127.0.0.1", 0), StandIn) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        kubeconfig = Path(scratch) / "kubeconfig"
        kubeconfig.write_text(_KUBECONFIG.format(port=server.server_address[1]), "utf-8")
        helm = Helm(chosen.library, kubeconfig)
        messages = helm.lint(chosen.chart)
        for message in messages:
            print(f"lint: {_SEVERITIES[message['Severity']]}: {message['Path']}: {message['Err'] or ''}")
        faults = [str(message["Err"]) for message in messages if message["Severity"] >= 2]
        for values in (None, *chosen.values):
            faults += check(helm, chosen.chart, values, chosen.kubernetes, chosen.out)
        server.shutdown()
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
