"""Prints every query of a Grafana dashboard as a file of Prometheus rules, for `promtool check rules`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yaml

dashboard = json.loads(Path(sys.argv[1]).read_text("utf-8"))
rules = [
    {
        "record": f"panel:{panel['id']}_{target['refId']}",
        "expr": target["expr"].replace("$__rate_interval", "5m"),
    }
    for panel in dashboard["panels"]
    for target in panel.get("targets", [])
]
print(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
