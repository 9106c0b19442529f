"""What the camera guard finds, how often it is wrong, and what it costs, on real frames.

python benchmarks/guard.py found [--frames 24]     tables of found faults and false alarms; needs ALGAN_DATA
python benchmarks/guard.py cost [--turns 200]      ms for a 1080p frame, against preprocessing, in turns

Of each set, the guard learns from one part of the good frames and is asked about the others. Of a video it is
the first half and the rest, which are later frames; its frames are cut to their middle, so that a simulated
move brings in what really lay beside it. Still images are moved with their borders mirrored.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from algan_stream.guard.config import GuardConfig
from algan_stream.guard.faults import FAULTS, Pixels
from algan_stream.guard.guard import Guard
from algan_stream.guard.learn import learn
from algan_stream.guard.profile import Profile, write_profile
from algan_stream.images import read_image
from algan_stream.preprocess import empty_slots, preprocess_into
from algan_stream.types import Frame, InputSpec, PixelFormat

_MARGIN = 0.11  # of the width, more than the largest move


@dataclass
class Set:
    """Frames of one kind; `video`: in order, from a camera that stands still."""

    name: str
    rate: float
    good: list[Pixels]
    later: list[Pixels]
    defects: list[Pixels]
    video: bool


def _cut(image: Pixels) -> Pixels:
    side = round(image.shape[1] * _MARGIN)
    return np.ascontiguousarray(image[side:-side, side:-side])


def _video(data: Path, file: str, name: str, rate: float) -> Set:
    import cv2

    capture, frames = cv2.VideoCapture(str(data / "videos" / file)), []
    while (read := capture.read())[0]:
        frames.append(np.asarray(read[1], np.uint8))
    half = len(frames) // 2
    return Set(name, rate, frames[:half], frames[half:], [], video=True)


def _grey_or_bgr(path: Path) -> Pixels:
    image, kind = read_image(path)
    return image if kind == "grey8" else np.ascontiguousarray(image[..., ::-1])


def _magnetic_tiles(data: Path) -> Set:
    splits = json.loads((data / "mtd" / "splits.json").read_text())
    parts = {
        part: [data / "mtd" / name for name in names] for part, names in splits.items() if part != "about"
    }
    free = {part: [p for p in paths if "MT_Free" in str(p)] for part, paths in parts.items()}
    later = free["validation"] + free["test"]
    bad = [p for part in ("validation", "test") for p in parts[part] if "MT_Free" not in str(p)]
    return Set(
        "magnetic tiles",
        0.02,
        *(list(map(_grey_or_bgr, p)) for p in (free["train"], later, bad)),
        video=False,
    )


def _cookies(data: Path) -> Set:
    root = data / "cookie"
    files = sorted(p for p in root.rglob("*") if p.suffix.lower() in (".jpg", ".png", ".jpeg", ".bmp"))
    train = [p for p in files if "train" in p.parts]
    test = [p for p in files if "test" in p.parts]
    good = [p for p in test if "good" in p.parts]
    bad = [p for p in test if "good" not in p.parts]
    return Set("cookies", 0.25, *(list(map(_grey_or_bgr, p)) for p in (train, good, bad)), video=False)


def _solar() -> Set | None:
    try:
        from elpv_dataset.utils import load_dataset
    except ImportError:
        return None
    images, share, kinds = load_dataset()
    good = [im for im, p, kind in zip(images, share, kinds, strict=True) if p == 0 and kind == "mono"]
    bad = [im for im, p, kind in zip(images, share, kinds, strict=True) if p == 1 and kind == "mono"]
    order = np.random.default_rng(0).permutation(len(good))
    split = len(good) * 3 // 4
    return Set(
        "solar cells (mono)",
        0.02,
        [good[i] for i in order[:split]],
        [good[i] for i in order[split:]],
        bad,
        video=False,
    )


def _sets(data: Path) -> Iterator[Set]:
    yield _video(data, "bottle-detection.mp4", "bottles (video)", 0.02)
    yield _video(data, "one-by-one-person-detection.mp4", "people (video)", 0.02)
    yield _video(data, "car-detection.mp4", "cars (video)", 0.05)
    yield _video(data, "fruit-and-vegetable-detection.gif", "fruit (video)", 0.15)
    yield _magnetic_tiles(data)
    if solar := _solar():
        yield solar
    yield _cookies(data)


class _Asked:
    """A profile and its guard, asked about single frames."""

    def __init__(self, frames: Set) -> None:
        self._frames = frames
        started = time.perf_counter()
        self.profile: Profile = learn(
            ((self.seen(image), _format(image)) for image in frames.good),
            frames.rate,
            sequence=frames.video,
            try_on=0,
        )
        self.seconds = time.perf_counter() - started
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "profile.json"
            write_profile(self.profile, file)
            self.guard = Guard(GuardConfig(profile=str(file)))
            self.fresh = Guard(GuardConfig(profile=str(file)))

    def seen(self, image: Pixels) -> Pixels:
        return _cut(image) if self._frames.video else image

    def kind(self, image: Pixels, guard: Guard | None = None) -> str:
        frame = Frame("c", 0, self.seen(image), _format(image), captured_ns=0)
        (guard or self.guard).check(frame)
        return frame.fault.partition(":")[2]


def _format(image: Pixels) -> PixelFormat:
    return "grey8" if image.ndim == 2 else "bgr8"


def _found(frames_each: int) -> None:
    data, random = Path(os.environ["ALGAN_DATA"]), np.random.default_rng(0)
    about: list[str] = []
    table: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    names = []
    for frames in _sets(data):
        mixed = _mixed_up(frames) if frames.video else None
        asked = _Asked(frames)
        names.append(frames.name)
        wrong = Counter(asked.kind(image) for image in frames.later)
        defects = Counter(asked.kind(image) for image in frames.defects)
        about.append(
            f"| {frames.name} | {asked.profile.reference_images} + {asked.profile.calibration_images} | "
            f"{frames.rate:g} | {_share(wrong)} of {len(frames.later)} | {mixed or '–'} | "
            + (f"{_share(defects)} of {len(frames.defects)} |" if frames.defects else "– |")
        )
        picked = random.choice(len(frames.later), min(frames_each, len(frames.later)), replace=False)
        for fault in FAULTS:
            for severity in fault.severities:
                kinds = Counter(
                    asked.kind(fault.apply(frames.later[i], severity, random), asked.fresh) for i in picked
                )
                right = kinds[fault.kind] / len(picked)
                table[fault.name, f"{severity:g} {fault.unit}"][frames.name] = (
                    f"{1 - kinds[''] / len(picked):.2f} ({right:.2f})"
                )
        if asked.profile.still:
            for name, noise in (("again and again", 0.0), ("again, with noise", 1.0)):
                image = next(frame for frame in frames.later if not asked.kind(frame))
                guard = asked.fresh
                kinds = Counter(
                    asked.kind(
                        np.clip(image + random.normal(0, noise, image.shape), 0, 255).astype(np.uint8), guard
                    )
                    for _ in range(40)
                )
                table["frozen", name][frames.name] = f"{kinds['frozen'] / 30:.2f} of those after the tenth"
        print(
            f"{frames.name}: learned in {asked.seconds:.0f} s; {'; '.join(asked.profile.notes)}", flush=True
        )
    print("\n| frames | learned from | rate | good ones called faulty | of random halves | defective ones |")
    print("|---|---|---|---|---|---|", *about, sep="\n")
    print("\n| fault | severity |", " | ".join(names), "|")
    print("|---|---|" + "---|" * len(names))
    for (name, severity), row in table.items():
        print(f"| {name} | {severity} |", " | ".join(row.get(n, "–") for n in names), "|")


def _mixed_up(frames: Set) -> str:
    """False alarms where the frames learned from are drawn from the whole video: as good as exchangeable."""
    every = [*frames.good, *frames.later]
    order = np.random.default_rng(1).permutation(len(every))
    half = len(every) // 2
    drawn = Set("", frames.rate, [every[i] for i in order[:half]], [every[i] for i in order[half:]], [], True)
    asked = _Asked(drawn)
    return _share(Counter(asked.kind(image) for image in drawn.later))


def _share(kinds: Counter[str]) -> str:
    count = sum(kinds.values())
    named = ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items()) if kind)
    return f"{1 - kinds[''] / max(1, count):.3f}" + (f" ({named})" if named else "")


def _cost(turns: int) -> None:
    random = np.random.default_rng(0)
    scene = random.integers(40, 200, (1080, 1920, 3), np.uint8)
    frames = [np.clip(scene + random.normal(0, 2, scene.shape), 0, 255).astype(np.uint8) for _ in range(24)]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "profile.json"
        write_profile(learn(((f, "bgr8") for f in frames * 3), 0.3, sequence=True, try_on=0), file)
        guards = {
            "guard, no profile": Guard(GuardConfig()),
            "guard, profile": Guard(GuardConfig(profile=str(file))),
        }
    calls: dict[str, Callable[[Pixels], Any]] = {}
    for name, guard in guards.items():
        calls[name] = lambda f, g=guard: g.check(Frame("c", 0, f, "bgr8", captured_ns=0))
    for filter_ in ("area", "bilinear"):
        spec = InputSpec(height_px=256, width_px=256, downscale=filter_)  # type: ignore[arg-type]
        slot = empty_slots(1, spec)
        calls[f"preprocess to 256 px, {filter_}"] = lambda f, o=slot, s=spec: preprocess_into(o, f, s)
    times: dict[str, list[float]] = defaultdict(list)
    for turn in range(turns):
        for name, call in calls.items():
            started = time.perf_counter()
            call(frames[turn % len(frames)])
            times[name].append((time.perf_counter() - started) * 1e3)
    print("| 1080p bgr8 | median ms | against preprocessing, area | bilinear |\n|---|---|---|---|")
    for name, took in times.items():
        ratios = [
            statistics.median(a / b for a, b in zip(took, times[f"preprocess to 256 px, {f}"], strict=True))
            for f in ("area", "bilinear")
        ]
        print(f"| {name} | {statistics.median(took):.3f} | {ratios[0]:.2f} | {ratios[1]:.2f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("found", "cost"))
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--turns", type=int, default=200)
    options = parser.parse_args()
    if options.what == "found":
        _found(options.frames)
    else:
        _cost(options.turns)
