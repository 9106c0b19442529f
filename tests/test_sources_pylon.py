"""Basler's own camera emulation; and GenICam through a producer of simulated cameras."""

from __future__ import annotations

import threading
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from algan_stream.errors import CameraError, ConfigError
from algan_stream.preprocess import preprocess
from algan_stream.sources import live
from algan_stream.sources.features import same
from algan_stream.types import InputSpec
from cameras import Opened, opened

pytest.importorskip("pypylon", reason="pypylon is not installed (extra `pylon`)")

#: Emulated Basler cameras use SIGALRM themselves, which the usual way of watching tests takes for its own.
pytestmark = pytest.mark.timeout(60, method="thread")

_SERIAL = "0815-0000"


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine pictures may come faster than these tests take them; that is tested elsewhere."""
    monkeypatch.setattr(live, "_WAITING", 1000)


_SMALL = {"Width": 64, "Height": 48}


def _section(features: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"kind": "pylon", "serial": _SERIAL, "features": {**_SMALL, **(features or {})}, **more}


def test_pictures_come_at_the_rate_that_was_set() -> None:
    rate = {"AcquisitionFrameRateEnable": True, "AcquisitionFrameRate": 50.0}
    with opened(_section(rate)) as camera:
        frames = camera.frames()
        list(islice(frames, 5))
        started = time.monotonic()
        list(islice(frames, 20))
        assert 0.35 < time.monotonic() - started < 2
        assert camera.missing == 0


@pytest.mark.parametrize(
    ("name", "pixel_format", "shape", "dtype"),
    [
        ("Mono8", "grey8", (48, 64), np.uint8),
        ("Mono12", "grey16", (48, 64), np.uint16),
        ("BayerRG8", "bayer_rggb8", (48, 64), np.uint8),
        ("BayerGB8", "bayer_gbrg8", (48, 64), np.uint8),
        ("RGB8Packed", "rgb8", (48, 64, 3), np.uint8),
        ("BGR8Packed", "bgr8", (48, 64, 3), np.uint8),
    ],
)
def test_pixels_come_as_the_camera_sends_them(
    name: str, pixel_format: str, shape: tuple[int, ...], dtype: Any
) -> None:
    spec = InputSpec(height_px=8, width_px=8, white_level=4095)
    with opened(_section({"PixelFormat": name}), spec=spec) as camera:
        frame = camera.play(1)[0]
    assert (frame.pixel_format, frame.image.shape, frame.image.dtype) == (pixel_format, shape, dtype)
    inputs = preprocess(frame.image, spec, pixel_format=frame.pixel_format)
    assert float(inputs[0, :3].std()) > 0.1  # the test image's ramp


def test_colours_arrive_as_colours(tmp_path: Path) -> None:
    """The emulated camera shows an image file, as a Bayer sensor would see it and as RGB."""
    colour = (200, 120, 40)
    Image.new("RGB", (64, 48), colour).save(tmp_path / "a.png")
    shown = {"TestImageSelector": "Off", "ImageFileMode": "On", "ImageFilename": str(tmp_path / "a.png")}
    spec = InputSpec(height_px=8, width_px=8, mean=(0, 0, 0), std=(1, 1, 1), pooled_channels=False)
    for name in ("RGB8Packed", "BayerRG8", "BayerBG8", "BayerGR8", "BayerGB8"):
        with opened(_section({"PixelFormat": name, **shown})) as camera:
            frame = camera.play(1)[0]
        inputs = preprocess(frame.image, spec, pixel_format=frame.pixel_format)[0, :, 2:6, 2:6]
        assert np.abs(255 * inputs.mean(axis=(1, 2)) - colour).max() < 3, name


def test_incomplete_pictures_are_announced() -> None:
    section = _section({"ForceFailedBufferCount": 3, "ForceFailedBuffer": True})
    with opened(section) as camera:
        frames = camera.play(6)
        assert camera.missing == 0
    assert [frame.frame_id for frame in frames] == list(range(6))
    assert [frame.fault[:12] for frame in frames] == ["incomplete: "] * 3 + [""] * 3
    assert all(frame.image.size == 0 for frame in frames[:3])


def test_the_software_triggers_one_picture_each() -> None:
    with opened(_section(trigger="software")) as camera:
        source: Any = camera.source
        got: list[Any] = []
        thread = threading.Thread(target=lambda: got.extend(islice(camera.frames(), 3)))
        thread.start()
        for count in range(1, 4):
            give_up = time.monotonic() + 10
            while True:
                try:
                    source.trigger()
                    break
                except CameraError:  # not connected yet
                    assert time.monotonic() < give_up
                    time.sleep(0.05)
            while source._next_id < count:
                assert time.monotonic() < give_up
                time.sleep(0.005)
            time.sleep(0.1)
            assert source._next_id == count
        thread.join(10)
        assert len(got) == 3
        assert source.link.reconnects == 0


def test_a_hardware_trigger_that_is_silent_is_no_fault() -> None:
    with opened(_section(trigger="hardware", trigger_line="Line1")) as camera:
        threading.Timer(2.5, camera.stop.set).start()
        assert list(camera.frames()) == []
        assert camera.source.links[0].problem() == ""


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"ExposureTime": 1e12}, "features.ExposureTime: the camera does not take 1000000000000.0: Value"),
        ({"Exposure": 5}, "features.Exposure: the camera does not take 5"),
        ({"Width": "wide"}, "features.Width: the camera does not take 'wide'"),
        ({"PixelFormat": "Mono7"}, "features.PixelFormat: the camera does not take 'Mono7'"),
        ({"PixelFormat": "BayerRG12"}, "expected one of Mono8, .* but the camera sends BayerRG12"),
        ({"PixelFormat": "Mono12"}, "white is 4095 in Mono12, but 65535 in the bundle's white_level"),
        ({"TriggerMode": "On"}, "TriggerMode follows from `trigger`"),
    ],
)
def test_settings_that_the_camera_does_not_take(features: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Opened(_section(features), spec=InputSpec(height_px=8, width_px=8))


@pytest.mark.parametrize(
    ("wanted", "got", "alike"),
    [
        (5000, 5000.3, True),
        (5000, 5100.0, False),
        (5000.0, 5000, True),
        (True, 1, True),
        (True, 0, False),
        ("On", "On", True),
        ("On", "Off", False),
        ("1", True, False),
        (3, 4, False),
        (0.0, 1e-12, True),
        (0.0, 0.1, False),
    ],
)
def test_what_counts_as_the_same(wanted: Any, got: object, alike: bool) -> None:
    assert same(wanted, got) is alike


def test_which_camera() -> None:
    with pytest.raises(ConfigError, match="serial: expected one of 0815-0000, 0815-0001, as there are 2"):
        Opened({"kind": "pylon"})
    with pytest.raises(CameraError, match=r"Basler camera with serial 4711: .*required_at_start"):
        Opened({"kind": "pylon", "serial": "4711"})
    with pytest.raises(ConfigError, match="expected only one of serial, name and ip"):
        Opened({"kind": "pylon", "serial": "1", "name": "a"})
    with opened({"kind": "pylon", "serial": "4711", "required_at_start": False}) as camera:
        assert "Basler camera with serial 4711" in camera.source.links[0].problem()


def test_two_cameras_at_once() -> None:
    with opened(_section()) as one:
        first = one.frames()
        assert not next(first).fault
        with opened(_section() | {"serial": "0815-0001"}) as other:
            second = other.frames()
            for _ in range(5):
                assert not next(first).fault
                assert not next(second).fault


# ---- GenICam --------------------------------------------------------------------------------------------


def _viky(**more: Any) -> dict[str, Any]:
    genicam = pytest.importorskip("genicam", reason="harvesters is not installed (extra `genicam`)")
    producer = Path(genicam.__file__).with_name("viky.cti")
    if not producer.exists():
        pytest.skip("this version of the genicam package comes without its simulated cameras")
    return {"kind": "genicam", "producers": [str(producer)], "serial": "1", **more}


@pytest.mark.parametrize(
    ("name", "pixel_format", "shape"), [("Mono8", "grey8", (400, 400)), ("RGBa8", "rgba8", (400, 400, 4))]
)
def test_genicam_pictures(name: str, pixel_format: str, shape: tuple[int, ...]) -> None:
    with opened(_viky(features={"PixelFormat": name, "AcquisitionFrameRate": 100.0})) as camera:
        frames = camera.play(10)
        assert camera.missing == frames[-1].frame_id - 9
    assert {(frame.pixel_format, frame.image.shape, frame.fault) for frame in frames} == {
        (pixel_format, shape, "")
    }
    assert len({frame.image.tobytes() for frame in frames}) > 5  # its ball bounces


def test_genicam_cameras_share_a_producer_and_come_again() -> None:
    for _ in range(2):
        with opened(_viky(serial="0")) as one, opened(_viky(serial="2")) as other:
            assert not next(one.frames()).fault
            assert not next(other.frames()).fault


def test_genicam_incomplete_pictures_are_announced_and_not_missing_as_well() -> None:
    from algan_stream.sources.genicam import GenicamDevice

    with opened(_viky()) as camera:
        frames = camera.frames()
        next(frames)
        device = camera.source._reader.device  # type: ignore[attr-defined]
        assert isinstance(device, GenicamDevice)
        device._on_incomplete()  # as harvesters calls it, which throws the data away
        faults = [frame.fault for frame in islice(frames, 20)]
    assert [fault for fault in faults if fault] == ["incomplete: the camera's data has holes"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"serial": ""}, "serial: expected one of 0, 1, 2, as there are 3"),
        ({"features": {"Bogus": 1}}, "features.Bogus: the camera does not take 1: it has no such feature"),
        ({"features": {"AcquisitionFrameRate": 1e9}}, "AcquisitionFrameRate: .* must be smaller than"),
        ({"trigger": "software"}, "features.TriggerSelector: .* it has no such feature"),
        ({"producers": ["nowhere.cti"]}, "producers: nowhere.cti: there is no such file"),
        ({"producers": []}, "producers: expected files"),
    ],
)
def test_genicam_says_what_is_wrong_at_the_start(
    more: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GENICAM_GENTL64_PATH", raising=False)
    with pytest.raises(ConfigError, match=message):
        Opened(_viky(**more))


def test_genicam_camera_that_is_not_there() -> None:
    with pytest.raises(CameraError, match="GenICam camera 7: is not among the cameras found: 0, 1, 2"):
        Opened(_viky(serial="7"))
