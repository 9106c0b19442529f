"""What operators deploy, checked without their tools: files parse, and say what the service really has."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer.main
import yaml

from algan_stream import errors
from algan_stream.cli import app
from algan_stream.config import LineConfig, read_line

_ROOT = Path(__file__).parents[2]
_DEPLOY = _ROOT / "deploy"
_CHART = _DEPLOY / "kubernetes" / "algan-stream"
_DOCKERFILES = sorted((_DEPLOY / "docker").glob("Dockerfile.*"))
_YAML = sorted(p for p in (*_DEPLOY.rglob("*.yaml"), *_DEPLOY.rglob("*.yml")) if "templates" not in p.parts)
pytestmark = pytest.mark.skipif(not _CHART.is_dir(), reason="needs the whole repository")

#: Metrics of the service and their labels.
_METRICS = {
    "algan_frames_received_total": {"camera"},
    "algan_frames_total": {"camera", "outcome", "reason"},
    "algan_boxes_total": {"camera", "outcome"},
    "algan_frames_missing_total": {"camera"},
    "algan_verdicts_total": {"camera", "verdict", "reason"},
    "algan_in_flight": {"camera"},
    "algan_queue_depth": {"camera"},
    "algan_stage_seconds": {"camera", "stage", "le"},
    "algan_score": {"camera", "le"},
    "algan_p_value": {"camera", "le"},
    "algan_batch_size": {"le"},
    "algan_sink_errors_total": set(),
    "algan_sink_circuit_open": {"sink"},
    "algan_camera_connected": {"camera"},
    "algan_camera_reconnects_total": {"camera"},
    "algan_sink_verdicts_total": {"sink", "outcome"},
    "algan_sink_waiting": {"sink"},
    "algan_refused_messages_total": {"code"},
    "algan_engine_info": {"kind", "version", "device", "precision", "cache_key"},
    "algan_model_info": {"name", "sha256", "threshold"},
    "algan_deadline_missed_total": {"camera"},
    "algan_camera_faults_total": {"camera", "kind"},
    "algan_drift_tested_total": {"camera"},
    "algan_drift_alarms_total": {"camera"},
    "algan_drifting": {"camera"},
    "algan_drift_evidence": {"camera"},
}
_HISTOGRAMS = {"algan_stage_seconds", "algan_score", "algan_p_value", "algan_batch_size"}


def _rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((_DEPLOY / "prometheus" / "alerts.yml").read_text("utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def _dashboard() -> dict[str, Any]:
    return json.loads((_DEPLOY / "grafana" / "dashboards" / "algan-stream.json").read_text("utf-8"))


def _queries() -> list[str]:
    panels = [target["expr"] for panel in _dashboard()["panels"] for target in panel.get("targets", [])]
    variables = [v["query"]["query"] for v in _dashboard()["templating"]["list"] if v["type"] == "query"]
    return [*panels, *variables, *(rule["expr"] for rule in _rules())]


@pytest.mark.parametrize("path", _YAML, ids=lambda path: str(path.relative_to(_DEPLOY)))
def test_yaml_parses(path: Path) -> None:
    assert any(document is not None for document in yaml.safe_load_all(path.read_text("utf-8")))


# ---- monitoring -------------------------------------------------------------------------------------


def test_every_query_asks_for_what_is_exported_by_labels_that_it_has() -> None:
    asked = set()
    for query in _queries():
        names = [(m[1], m[2] or "") for m in re.finditer(r"\b(algan_\w+)(?:\{([^}]*)\})?", query)]
        assert names or query.startswith("up{"), query
        for name, selector in names:
            base = re.sub(r"_(bucket|sum|count)$", "", name)
            base = base if base in _HISTOGRAMS else name
            assert base in _METRICS, f"{name} in {query}"
            labels = {m[1] for m in re.finditer(r"(\w+)\s*[=!]", re.sub(r'"[^"]*"', "", selector))}
            assert labels <= _METRICS[base] | {"job", "instance"}, query
            asked.add(base)
    assert asked == set(_METRICS)  # nothing is exported that no panel and no alert looks at


def test_the_service_exports_these_metrics() -> None:
    sources = ((_ROOT / "algan_stream").glob(name) for name in ("metrics.py", "metrics_*.py"))
    text = "".join(path.read_text("utf-8") for found in sources for path in found)
    assert set(re.findall(r'"(algan_[a-z_]+)"', text)) == set(_METRICS)


def test_alerts_say_what_is_wrong_and_each_is_unit_tested() -> None:
    tests = (_DEPLOY / "prometheus" / "alerts_test.yml").read_text("utf-8")
    for rule in _rules():
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert set(rule["annotations"]) == {"summary", "description"}
        assert f"alertname: {rule['alert']}\n" in tests


def test_the_dashboard_is_whole() -> None:
    dashboard = _dashboard()
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids)) >= 20
    places = [tuple(panel["gridPos"].values()) for panel in dashboard["panels"]]
    for i, (x, y, w, h) in enumerate(places):
        assert x + w <= 24
        for x2, y2, w2, h2 in places[:i]:
            assert x >= x2 + w2 or x2 >= x + w or y >= y2 + h2 or y2 >= y + h, "panels overlap"
    source = yaml.safe_load((_DEPLOY / "grafana/provisioning/datasources/prometheus.yaml").read_text("utf-8"))
    assert dashboard["templating"]["list"][0]["current"]["value"] == source["datasources"][0]["uid"]


# ---- commands and configurations that are named -----------------------------------------------------


def _commands() -> set[str]:
    return set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def _named_commands() -> list[tuple[str, str]]:
    """Where a subcommand is named, and which."""
    found = []
    for path in _DOCKERFILES:
        text = path.read_text("utf-8")
        found.append((path.name, json.loads(re.findall(r"^CMD (\[.*\])$", text, re.MULTILINE)[-1])[0]))
        found.append(
            (path.name, json.loads(re.findall(r"HEALTHCHECK .* CMD (\[.*\])$", text, re.MULTILINE)[0])[1])
        )
    unit = (_DEPLOY / "systemd" / "algan-stream@.service").read_text("utf-8")
    found.append(("systemd", re.findall(r"^ExecStart=\S+/algan-stream (\w+)", unit, re.MULTILINE)[0]))
    chart = (_CHART / "templates" / "deployment.yaml").read_text("utf-8")
    found.append(("chart", re.findall(r"args: \[(\w+),", chart)[0]))
    found.append(("chart", re.findall(r'\(list "(\w+)"', chart)[0]))
    return found


@pytest.mark.parametrize(("where", "command"), _named_commands() if _CHART.is_dir() else [])
def test_every_command_that_a_file_names_exists(where: str, command: str) -> None:
    assert command in _commands()


@pytest.mark.parametrize("path", ["docker/line.yaml"])
def test_example_lines_are_right(path: str) -> None:
    assert read_line(_DEPLOY / path).bundle == "demo"


@pytest.mark.parametrize(
    "values", ["values.yaml", *(f"ci/{p.name}" for p in sorted(_CHART.glob("ci/*.yaml")))]
)
def test_lines_of_the_chart_are_right(tmp_path: Path, values: str) -> None:
    chosen = {**_values("values.yaml"), **_values(values)}
    http = {"bind": f"0.0.0.0:{_values('values.yaml')['ports']['http']}", "insecure": True}
    file = tmp_path / "line.yaml"
    file.write_text(yaml.safe_dump({**chosen["line"], "bundle": "demo", "http": http}), "utf-8")
    assert read_line(file).cameras


def _values(name: str) -> dict[str, Any]:
    return yaml.safe_load((_CHART / name).read_text("utf-8"))


def test_every_value_of_the_chart_is_in_its_schema_and_used() -> None:
    templates = "".join(p.read_text("utf-8") for p in (_CHART / "templates").iterdir())

    def compare(values: dict[str, Any], schema: dict[str, Any], path: str) -> None:
        for key in values:
            assert key in schema["properties"], f"{path}{key}"
        assert schema["additionalProperties"] is False
        for key, below in schema["properties"].items():
            if key == "global":  # Helm's own
                continue
            assert key in values, f"{path}{key}"
            assert f".{key}" in templates, f"{path}{key} is used nowhere"
            if below.get("additionalProperties") is False:
                compare(values[key], below, f"{path}{key}.")

    compare(_values("values.yaml"), json.loads((_CHART / "values.schema.json").read_text("utf-8")), "")


# ---- images ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", _DOCKERFILES, ids=lambda path: path.name)
def test_images_run_as_nobody_in_particular_and_end_when_told(path: Path) -> None:
    text = path.read_text("utf-8")
    assert len(re.findall(r"^FROM ", text, re.MULTILINE)) == 2
    assert ":latest" not in text
    final = text[text.rindex("\nFROM ") :]
    assert re.search(r"^USER 10001:10001$", final, re.MULTILINE)
    assert re.search(r'^ENTRYPOINT \["/usr/bin/tini", "--", "algan-stream"\]$', final, re.MULTILINE)
    assert "HEALTHCHECK" in final
    assert "g++" not in final  # no compiler in what is deployed


def test_extras_that_images_install_exist() -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has none")
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = {
        extra for path in _DOCKERFILES for extra in re.findall(r"'\.\[(\w+)\]'", path.read_text("utf-8"))
    }
    assert wanted == {"tensorrt"} <= set(project["optional-dependencies"])


def test_the_build_context_holds_what_the_wheel_is_made_of() -> None:
    allowed = {
        line[1:] for line in (_ROOT / ".dockerignore").read_text("utf-8").splitlines() if line[:1] == "!"
    }
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has none")
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text("utf-8"))
    packages = project["tool"]["scikit-build"]["wheel"]["packages"]
    needed = {*packages, project["project"]["readme"], *project["project"]["license-files"]}
    needed |= {"CMakeLists.txt", "cmake", "csrc", "pyproject.toml"}
    for path in _DOCKERFILES:
        needed |= {m[1] for m in re.finditer(r"PIP_CONSTRAINT=/source/(\S+)", path.read_text("utf-8"))}
    assert needed == allowed
    assert all((_ROOT / name).exists() for name in allowed)


def test_compose_hardens_every_service() -> None:
    services = yaml.safe_load((_DEPLOY / "docker" / "compose.yaml").read_text("utf-8"))["services"]
    assert set(services) == {"algan", "prometheus", "grafana"}
    for service in services.values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory", "pids"}
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    models = next(v for v in services["algan"]["volumes"] if isinstance(v, dict) and v["target"] == "/models")
    assert models["read_only"] is True


# ---- systemd -----------------------------------------------------------------------------------------


def _unit() -> dict[str, list[str]]:
    keys: dict[str, list[str]] = {}
    for line in (_DEPLOY / "systemd" / "algan-stream@.service").read_text("utf-8").splitlines():
        if line and line[0] not in "#[":
            key, _, value = line.partition("=")
            keys.setdefault(key, []).append(value)
    return keys


def test_the_unit_waits_for_ready_is_watched_and_confined() -> None:
    unit = _unit()
    assert unit["Type"] == ["notify"]
    assert int(unit["WatchdogSec"][0]) <= 60
    assert unit["ProtectSystem"] == ["strict"]
    assert unit["DynamicUser"] == unit["NoNewPrivileges"] == ["yes"]
    assert "MemoryDenyWriteExecute" not in unit  # OpenVINO compiles at run time
    line = msgspec.convert({"bundle": "b", "cameras": [{"id": "c", "source": {}}]}, LineConfig)
    assert float(unit["TimeoutStopSec"][0]) > line.drain_timeout_s


def test_the_unit_does_not_try_again_what_cannot_mend_itself() -> None:
    codes = {int(code) for code in _unit()["RestartPreventExitStatus"][0].split()}
    hopeless = (errors.ConfigError, errors.PluginError, errors.BundleError, errors.CalibrationError)
    assert codes == {error.exit_code for error in hopeless}
