"""Real images and videos through the real pipeline. Needs the folder that ALGAN_DATA points to."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from algan_stream.bundle import Bundle
from algan_stream.config import LineConfig
from algan_stream.engines.gate import open_engine
from algan_stream.errors import ImageError
from algan_stream.images import list_images, read_image
from algan_stream.ledger import Ledger, Tally
from algan_stream.plugins import convert
from algan_stream.scoring import score_images
from algan_stream.service import Service
from algan_stream.sources import video
from algan_stream.sources.base import SourceContext
from algan_stream.types import VerdictKind
from fakes import ListSink

_DATA = Path(os.environ.get("ALGAN_DATA", ""))

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(
        not (os.environ.get("ALGAN_DATA") and (_DATA / "mtd").is_dir()),
        reason="ALGAN_DATA does not point to the folder of real images",
    ),
]

#: Frames that FFmpeg counts in each file.
_FRAMES = {"bolt-multi-size-detection.gif": 37, "fruit-and-vegetable-detection.gif": 101}


def _line(bundle: Bundle, source: dict[str, object]) -> LineConfig:
    engine = {"kind": "openvino", "threads": 1}
    line: LineConfig = convert(
        {"bundle": str(bundle.path), "engine": engine, "cameras": [{"id": "cam", "source": source}]},
        LineConfig,
        "",
    )
    return line


def test_magnetic_tiles_stream_as_they_score_offline(bundle: Bundle, tmp_path: Path) -> None:
    names = json.loads((_DATA / "mtd" / "splits.json").read_text())["validation"][::12]
    for i, name in enumerate(names):
        (tmp_path / f"{i:03}.jpg").symlink_to((_DATA / "mtd" / name).resolve())
    sink = ListSink()
    accounts = Service(_line(bundle, {"kind": "folder", "path": str(tmp_path)}), [sink]).run()
    assert accounts["cam"].frames == Tally(received=len(names), scored=len(names))
    engine = open_engine(bundle, {"kind": "openvino", "threads": 1})
    offline = list(score_images(bundle, engine, list_images(tmp_path)))
    engine.close()
    streamed = [verdict.boxes[0].score for verdict in sink.verdicts]
    assert streamed == pytest.approx([line.score for line in offline], abs=1e-5)
    assert len(set(streamed)) == len(names)


def test_every_real_image_is_read_or_refused_with_a_reason() -> None:
    for folder in ("mtd", "cookie", "deeppcb", "coil20"):
        for path in list_images(_DATA / folder)[::20]:
            if "ground_truth" in path.parts:
                # The cookies' masks: one colour, and transparency draws the defect; as RGB they say nothing.
                with pytest.raises(ImageError, match="transparency"):
                    read_image(path)
                continue
            image, pixel_format = read_image(path)
            assert image.ndim == (2 if pixel_format == "grey8" else 3)
            assert min(image.shape[:2]) > 90


@pytest.mark.parametrize("name", _FRAMES)
def test_a_video_gives_every_frame_once(name: str) -> None:
    path = _DATA / "videos" / name
    context = SourceContext("cam", None, 4, Ledger(), lambda *_: None)
    source = video.create(video.Config(path=str(path), fps=0), context)
    shapes, ids = set(), []
    for frame in source.frames(threading.Event()):
        assert not frame.fault
        shapes.add(frame.image.shape)
        ids.append(frame.frame_id)
    assert ids == list(range(_FRAMES[name]))
    assert shapes == {(270, 480, 3)}


def test_a_conveyor_through_the_service(bundle: Bundle) -> None:
    sink = ListSink()
    path = str(_DATA / "videos" / "bolt-multi-size-detection.gif")
    accounts = Service(_line(bundle, {"kind": "video", "path": path, "fps": 0}), [sink]).run()
    assert accounts["cam"].frames == Tally(received=37, scored=37)
    assert [verdict.frame_id for verdict in sink.verdicts] == list(range(37))
    assert {verdict.verdict for verdict in sink.verdicts} <= {VerdictKind.PASS, VerdictKind.REJECT}


def test_real_boxes_on_real_boards(bundle: Bundle) -> None:
    lists = sorted((_DATA / "deeppcb").rglob("*_not/*.txt"))[:6]
    assert lists
    engine = open_engine(bundle, {"kind": "openvino", "threads": 1})
    for file in lists:
        image = file.parent.with_name(file.parent.name.removesuffix("_not")) / f"{file.stem}_test.jpg"
        boxes = np.loadtxt(file, dtype=np.float32, ndmin=2)[:, :4]
        lines = list(score_images(bundle, engine, [image], {image.name: boxes}))
        assert len(lines) == len(boxes)
        assert all(line.score is not None for line in lines)
    engine.close()
