"""Streams images through `run` ← `send` in two processes and compares every score with the offline one.

    python benchmarks/stream_parity.py BUNDLE IMAGES [--boxes FILE] [--fps 100] [--scores EVALUATE.json]

Offline scores come from `algan-stream score`. With --scores they come from the JSON file that `algan-stream
evaluate` wrote about the folder IMAGES, and just the images in that file are streamed. Prints one JSON
object; ends with 0 only if every frame and box was scored, the ledger adds up, and the largest difference is
at most 1e-5.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

TOLERANCE = 1e-5
ALGAN = str(Path(sys.executable).with_name("algan-stream"))


def main() -> int:
    """Runs both ways and reports."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("images", type=Path)
    parser.add_argument("--boxes", type=Path)
    parser.add_argument("--scores", type=Path)
    parser.add_argument("--fps", type=float, default=100.0)
    args = parser.parse_args()
    boxes = ["--boxes", str(args.boxes)] if args.boxes else []
    with tempfile.TemporaryDirectory() as folder:
        offline = evaluated(args.scores) if args.scores else scored(args.bundle, args.images, boxes)
        images = selected(args.images, offline, Path(folder) / "images") if args.scores else args.images
        sent, ledger, streamed = stream(Path(folder), args.bundle, images, args.fps, boxes)
    differences = [abs(streamed[key] - offline[key]) for key in offline if key in streamed]
    frames, box_tally = ledger["frames"], ledger["boxes"]
    report = {
        "sent": sent,
        "frames": frames,
        "boxes": box_tally,
        "compared": len(differences),
        "missing_in_stream": len(offline.keys() - streamed.keys()),
        "largest_difference": max(differences, default=float("nan")),
    }
    sys.stdout.write(json.dumps(report, indent=1) + "\n")
    exact = (
        sent["sent"] == sent["answered"] == frames["received"] == frames["scored"]
        and box_tally["received"] == box_tally["scored"]
        and offline.keys() <= streamed.keys()
    )
    return 0 if exact and report["largest_difference"] <= TOLERANCE else 1


def stream(folder, bundle, images, fps, boxes):
    """Runs the service and a sender; returns the sender's report, the camera's account, and scores by key."""
    verdicts = folder / "verdicts.jsonl"
    line = folder / "line.yaml"
    endpoint = f"ipc://{folder}/frames"
    path = bundle if bundle == "demo" else str(Path(bundle).resolve())
    line.write_text(
        f"bundle: {path}\ncameras:\n  - {{id: parity, source: {{kind: zmq, bind: '{endpoint}'}}}}\n"
        f"sinks:\n  - {{kind: jsonl, path: {verdicts}}}\n"
    )
    service = subprocess.Popen([ALGAN, "run", str(line), "--json"], stdout=subprocess.PIPE, text=True)
    assert json.loads(service.stdout.readline())["event"] == "ready"
    command = [ALGAN, "send", str(images), "--to", endpoint, "--fps", str(fps), "--json", *boxes]
    sender = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    service.send_signal(signal.SIGTERM)
    stopped = json.loads(service.communicate(timeout=120)[0].splitlines()[-1])
    scores = {}
    for text in verdicts.read_text().splitlines():
        verdict = json.loads(text)
        for box in verdict["boxes"]:
            scores[key(verdict["part_id"], box["box"])] = box["score"]
    return json.loads(sender.stdout), stopped["cameras"]["parity"], scores


def scored(bundle, images, boxes):
    """Offline scores by key, from `algan-stream score`."""
    command = [ALGAN, "score", bundle, str(images), "--jsonl", *boxes]
    lines = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout.splitlines()
    rows = [json.loads(line) for line in lines]
    return {key(str(Path(row["path"]).relative_to(images)), row["box"]): row["score"] for row in rows}


def evaluated(scores):
    """Offline scores by key, from the file that `algan-stream evaluate --json` wrote."""
    return {key(row["path"], None): row["score"] for row in json.loads(scores.read_text())["scores"]}


def selected(images, keys, folder):
    """A folder with links to just these images."""
    for name, _ in keys:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to((images / name).resolve())
    return folder


def key(name, box):
    """One image or box: its file below the folder, and the box to a tenth of a pixel."""
    return name, None if box is None else tuple(round(edge, 1) for edge in box)


if __name__ == "__main__":
    sys.exit(main())
