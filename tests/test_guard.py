"""The guard: camera faults are unknown, by kind, and good frames and defects are let through."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import cv2
import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from typer.testing import CliRunner

from algan_stream import service as service_module
from algan_stream.bundle import Bundle
from algan_stream.cli import app
from algan_stream.config import read_line
from algan_stream.errors import CalibrationError, ConfigError, InputError
from algan_stream.guard.config import KINDS, GuardConfig
from algan_stream.guard.faults import FAULTS
from algan_stream.guard.guard import Guard
from algan_stream.guard.learn import frames_needed, learn
from algan_stream.guard.profile import Profile, read_profile, write_profile
from algan_stream.guard.registration import Reference
from algan_stream.guard.view import PATCH_PX, Viewer, grid
from algan_stream.plugins import convert
from algan_stream.service import Service
from algan_stream.types import CameraFormat, Frame, Outcome, VectorSpec, VerdictKind
from fakes import FakeEngine, ListSink
from lines import line_of

Pixels = npt.NDArray[np.uint8]

_WIDTH, _HEIGHT = 320, 240


class Scene:
    """A fixed background with rails and rivets, a part that lies somewhere on it, and a noisy sensor."""

    def __init__(self, seed: int = 0, *, noise: float = 1.5, colour: bool = True) -> None:
        self._random, self._colour = np.random.default_rng(seed), colour
        self._noise = self._random.normal(0, noise, (4 * _HEIGHT, 4 * _WIDTH, 3)).astype(np.float32)
        scene = cv2.GaussianBlur(np.random.default_rng(9).normal(0, 25, (_HEIGHT, _WIDTH)), (0, 0), 1.2) + 110
        scene = scene.astype(np.float32)
        scene[30:38], scene[205:213] = 60, 170
        for x in range(20, _WIDTH, 40):
            cv2.circle(scene, (x, 34), 3, 210, -1)
            cv2.circle(scene, (x, 209), 3, 40, -1)
        self._scene = scene

    def frame(self, *, defect: bool = False, light: float | None = None) -> Pixels:
        random, scene = self._random, self._scene.copy()
        x, y = random.uniform(60, 260), random.uniform(90, 150)
        cv2.circle(scene, (int(x), int(y)), 28, float(random.uniform(150, 170)), -1)
        if defect:
            cv2.line(scene, (int(x) - 20, int(y) - 5), (int(x) + 20, int(y) + 9), 30, 3)
        scene *= random.normal(1, 0.01) if light is None else light
        frame = scene[..., None] * np.array((0.9, 1.0, 1.05), np.float32)
        down, right = random.integers(0, 3 * _HEIGHT), random.integers(0, 3 * _WIDTH)  # noise is dear
        frame = frame + self._noise[down : down + _HEIGHT, right : right + _WIDTH]
        return np.clip(frame if self._colour else frame[..., 1], 0, 255).astype(np.uint8)

    def frames(self, count: int) -> Iterator[tuple[Pixels, Any]]:
        for _ in range(count):
            yield self.frame(), "bgr8" if self._colour else "grey8"


def _frame(image: Pixels, number: int = 0, pixel_format: str = "bgr8", camera: str = "cam") -> Frame:
    return Frame(camera, number, image, cast(Any, pixel_format), captured_ns=0)


def _says(guard: Guard, image: Pixels, pixel_format: str = "bgr8", camera: str = "cam") -> str:
    frame = _frame(image, pixel_format=pixel_format, camera=camera)
    guard.check(frame)
    return frame.fault


@pytest.fixture(scope="module")
def profile() -> Profile:
    return learn(Scene(1).frames(300), 0.02, try_on=0)


@pytest.fixture
def guard(profile: Profile, tmp_path: Path) -> Guard:
    write_profile(profile, tmp_path / "profile.json")
    return Guard(GuardConfig(profile=str(tmp_path / "profile.json")))


# ---- without a profile ----------------------------------------------------------------------------------


def test_black_and_white_pictures_are_found_without_knowing_the_camera() -> None:
    guard, random = Guard(GuardConfig()), np.random.default_rng(0)
    noise = np.clip(random.normal(3, 2, (240, 320)), 0, 255).astype(np.uint8)
    assert _says(guard, noise, "grey8") == "camera_fault:black"
    assert _says(guard, np.full((240, 320, 3), 255, np.uint8)) == "camera_fault:saturated"
    assert _says(guard, Scene().frame()) == ""
    dark = np.zeros((240, 320), np.uint8)
    dark[100:140, 100:160] = 90  # a bright part on a black ground is a picture
    assert _says(guard, dark, "grey8") == ""


def test_what_is_off_is_not_looked_for() -> None:
    guard = Guard(GuardConfig(off=("black",)))
    assert _says(guard, np.zeros((240, 320), np.uint8), "grey8") == ""


def test_repetition_is_frozen_only_where_asked_for_and_only_if_exact() -> None:
    scene, never, after_three = Scene(), Guard(GuardConfig()), Guard(GuardConfig(frozen_frames=3))
    image = scene.frame()
    assert [_says(never, image) for _ in range(50)] == [""] * 50  # a still scene of a camera without noise
    assert [_says(after_three, image) for _ in range(5)] == [""] * 3 + ["camera_fault:frozen"] * 2
    assert _says(after_three, scene.frame()) == ""  # the camera lives again
    assert [_says(after_three, image) for _ in range(3)] == [""] * 3


def test_one_grey_level_of_noise_is_no_repetition() -> None:
    guard, random = Guard(GuardConfig(frozen_frames=2)), np.random.default_rng(0)
    still = Scene(noise=0).frame()
    for _ in range(20):
        assert _says(guard, still + random.integers(0, 2, still.shape, np.uint8)) == ""


def test_cameras_of_one_source_are_watched_apart() -> None:
    guard, image, other = Guard(GuardConfig(frozen_frames=2)), Scene(1).frame(), Scene(2).frame()
    said = [(_says(guard, image, camera="a"), _says(guard, other, camera="b")) for _ in range(3)]
    assert said == [("", "")] * 2 + [("camera_fault:frozen",) * 2]
    assert guard.faults == {("a", "frozen"): 1, ("b", "frozen"): 1}


def test_what_is_no_picture_is_left_to_those_who_say_so() -> None:
    guard = Guard(GuardConfig(frozen_frames=1))
    broken = _frame(np.zeros((0, 0), np.uint8), pixel_format="grey8")
    broken.fault = "bad_image: truncated"
    guard.check(broken)
    assert broken.fault == "bad_image: truncated"
    assert _says(guard, np.zeros((0, 0), np.uint8), "grey8") == ""
    vector = _frame(np.zeros((0, 0), np.uint8), pixel_format="grey8")
    vector.vector = np.zeros(3, np.float32)
    guard.check(vector)
    assert vector.fault == ""


_FORMATS: tuple[tuple[CameraFormat, tuple[int, ...]], ...] = (
    ("bgr8", (240, 320, 3)), ("rgb8", (240, 320, 3)), ("grey8", (240, 320)), ("bgra8", (240, 320, 4)),
    ("bayer_rggb8", (240, 320)), ("nv12", (360, 320)), ("i420", (360, 320)), ("yuyv", (240, 320, 2)),
    ("uyvy", (240, 320, 2)), ("grey16", (240, 320)),
)  # fmt: skip


@pytest.mark.parametrize(("pixel_format", "shape"), _FORMATS)
def test_every_format_of_a_camera_is_seen(pixel_format: CameraFormat, shape: tuple[int, ...]) -> None:
    kind: Any = np.uint16 if pixel_format == "grey16" else np.uint8
    image = np.random.default_rng(0).integers(0, np.iinfo(kind).max, shape, kind)
    viewer = Viewer(grid(3))
    view = viewer.look(cast(Any, image), pixel_format)
    assert view.size_wh == (320, 240)
    assert view.small.shape == (4, 64, 64)
    assert 0.3 < view.small[3].mean() < 0.7
    assert view.patches.shape == (9, PATCH_PX, PATCH_PX)
    again = viewer.look(cast(Any, image), pixel_format)
    assert np.array_equal(view.patches, again.patches)


def test_a_patch_is_the_frame_pixel_by_pixel() -> None:
    image = np.random.default_rng(0).integers(0, 256, (240, 320), np.uint8)
    patch = Viewer(((0.5, 0.5),)).look(image, "grey8").patches[0]
    assert np.array_equal(np.rint(patch * 255), image[104:136, 144:176])


# ---- learned ---------------------------------------------------------------------------------------------


def test_good_frames_and_defects_pass_the_guard(guard: Guard) -> None:
    scene = Scene(77)
    good = sum(bool(_says(guard, scene.frame())) for _ in range(200))
    defects = sum(bool(_says(guard, scene.frame(defect=True))) for _ in range(200))
    # Binomial(200, 0.02) is above 12 once in 2,000 times; the expected rate is at most 0.02.
    assert good <= 12
    assert defects <= 12


_GROSS = {fault.name: fault.severities[-1] for fault in FAULTS}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_gross_faults_are_found_and_named(guard: Guard, fault: Any) -> None:
    scene, random, kinds = Scene(5), np.random.default_rng(3), Counter[str]()
    for _ in range(20):
        kinds[_says(guard, fault.apply(scene.frame(), _GROSS[fault.name], random))] += 1
    assert kinds[""] == 0
    assert kinds.most_common(1)[0][0] == f"camera_fault:{fault.kind}", kinds


def test_another_size_is_a_fault_of_its_own(guard: Guard) -> None:
    image = Scene().frame()
    assert _says(guard, image[:-2]) == "camera_fault:size"
    assert _says(guard, image) == ""


def test_the_fit_measures_what_happened_to_the_camera() -> None:
    y, x = np.mgrid[0:64, 0:64] / 64 - 0.5
    picture = (np.sin(9 * x) + np.cos(7 * y) + np.sin(5 * (x + y))).reshape(-1).astype(np.float32) / 4
    reference = Reference(picture, np.full(64 * 64, 1e-4, np.float32), aspect=1.0)
    moved = (np.sin(9 * (x - 0.01)) + np.cos(7 * (y + 0.02)) + np.sin(5 * (x - 0.01 + y + 0.02))) / 4
    fit = reference.fit((moved + 0.1 + 0.05 * 2 * x).reshape(-1).astype(np.float32))
    assert fit.parameters[:2] == pytest.approx((0.01, -0.02), abs=2e-3)
    assert fit.parameters[4:6] == pytest.approx((0.1, 0.05), abs=5e-3)
    assert fit.parameters[2:4] == pytest.approx((0, 0), abs=5e-3)


def test_a_stable_camera_is_given_some_room(tmp_path: Path) -> None:
    """Frames without any variation must not make a hundredth more light a fault."""
    still = Scene(noise=0.5)
    image = still.frame(light=1.0)
    random = np.random.default_rng(0)

    def noisy(gain: float) -> Pixels:
        return np.clip(image * gain + random.normal(0, 0.7, image.shape), 0, 255).astype(np.uint8)

    profile = learn(((noisy(1.0), "bgr8") for _ in range(170)), 0.05, try_on=0)
    write_profile(profile, tmp_path / "p.json")
    guard = Guard(GuardConfig(profile=str(tmp_path / "p.json")))
    assert [_says(guard, noisy(gain)) for gain in (0.98, 1.0, 1.02)] == [""] * 3
    assert _says(guard, noisy(0.8)) == "camera_fault:lighting"


def test_the_rate_needs_frames_and_says_how_many() -> None:
    assert (
        frames_needed(0.01, sequence=False) == 399
    )  # 299 for three limits of 0.01 / 3, a quarter for the view
    assert frames_needed(0.1, sequence=False) == 49
    with pytest.raises(CalibrationError, match=r"needs at least 399 good frames, got 60; take 339 more, or"):
        learn(Scene().frames(60), 0.01)
    for count in (49, 100):
        learn(Scene().frames(count), 0.1, try_on=0)
    with pytest.raises(CalibrationError, match="no rate at all"):
        learn(Scene().frames(5), 0.3)
    with pytest.raises(CalibrationError, match="above 0 and below 1"):
        learn(Scene().frames(5), 0.0)


def test_the_rate_that_is_offered_can_be_had() -> None:
    with pytest.raises(CalibrationError) as refused:
        learn(Scene().frames(60), 0.01)
    offered = float(str(refused.value).split("ask for ")[1].split(" ")[0])
    learn(Scene().frames(60), offered, try_on=0)


# ---- frozen, learned -------------------------------------------------------------------------------------


def test_a_line_that_always_moves_shows_a_frozen_camera_through_its_noise(tmp_path: Path) -> None:
    scene, random = Scene(3), np.random.default_rng(0)
    profile = learn(scene.frames(200), 0.2, sequence=True, frozen_frames=4, try_on=0)
    assert profile.still
    assert profile.still.change > 0
    write_profile(profile, tmp_path / "p.json")
    guard = Guard(GuardConfig(profile=str(tmp_path / "p.json"), off=("blurred", "shifted", "lighting")))
    stuck = scene.frame()
    said = [
        _says(guard, np.clip(stuck + random.normal(0, 0.7, stuck.shape), 0, 255).astype(np.uint8))
        for _ in range(8)
    ]
    assert said == [""] * 4 + ["camera_fault:frozen"] * 4
    assert _says(guard, scene.frame()) == ""


def test_a_line_that_stands_still_without_noise_is_never_called_frozen(tmp_path: Path) -> None:
    scene = Scene(noise=0)
    frames = [image for image, _ in scene.frames(60) for _ in range(3)]  # each shown three times
    profile = learn(((image, "bgr8") for image in frames), 0.1, sequence=True, frozen_frames=5, try_on=0)
    assert profile.still is None
    assert any("repeat the one before" in note for note in profile.notes)
    write_profile(profile, tmp_path / "p.json")
    guard = Guard(GuardConfig(profile=str(tmp_path / "p.json")))
    assert {_says(guard, frames[0]) for _ in range(100)} == {""}


def test_stills_that_are_no_sequence_tell_nothing_of_frozen(profile: Profile) -> None:
    assert profile.still is None
    assert any(note.startswith("frozen:") for note in profile.notes)


# ---- the file --------------------------------------------------------------------------------------------


def test_a_profile_survives_its_file(profile: Profile, tmp_path: Path) -> None:
    write_profile(profile, tmp_path / "p.json")
    assert read_profile(tmp_path / "p.json") == profile
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (b'{"format_version": 1}', "missing required field"),
        (b"", "no profile of a camera"),
        ({"format_version": 2}, "format_version: expected 1, got 2"),
        ({"mean": [0.0]}, "length >= 4096"),
        ({"places": []}, "numbers for each of the places"),
        ({"limits": {"blurred": 1.0}}, "limits: expected shifted and lighting"),
        ({"usual": {}}, "usual.[a-z]*: expected [56] numbers"),
        ({"extra": 1}, "unknown field `extra`"),
    ],
)
def test_a_damaged_profile_is_refused(profile: Profile, tmp_path: Path, change: Any, message: str) -> None:
    file = tmp_path / "p.json"
    write_profile(profile, file)
    if isinstance(change, bytes):
        file.write_bytes(change)
    else:
        file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(ConfigError, match=message):
        Guard(GuardConfig(profile=str(file)))


def test_no_damaged_file_does_anything_but_an_error(profile: Profile, tmp_path: Path) -> None:
    file, random = tmp_path / "p.json", np.random.default_rng(0)
    write_profile(profile, file)
    whole, refused = file.read_bytes(), 0
    for _ in range(60):
        at, junk = int(random.integers(len(whole))), random.bytes(int(random.integers(9)))
        file.write_bytes(whole[:at] + junk + whole[at + len(junk) + int(random.integers(2)) :])
        try:
            Guard(GuardConfig(profile=str(file)))
        except ConfigError:
            refused += 1
    assert refused > 30


def test_a_missing_profile_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="algan-stream guard learn"):
        Guard(GuardConfig(profile=str(tmp_path / "none.json")))


# ---- in a line -------------------------------------------------------------------------------------------


@pytest.fixture
def engine(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    made = FakeEngine(spec=bundle.manifest.input_spec)
    monkeypatch.setattr(service_module, "open_engine", lambda *_: made)
    return made


def test_in_a_line_faulty_frames_are_unknown_never_passed_nor_rejected(
    bundle: Bundle, engine: FakeEngine, profile: Profile, tmp_path: Path
) -> None:
    folder, scene, random = tmp_path / "images", Scene(8), np.random.default_rng(0)
    folder.mkdir()
    for i in range(20):
        Image.fromarray(scene.frame()[..., ::-1]).save(folder / f"{i:02}-good.png")
    for i, fault in enumerate(FAULTS):
        spoiled = fault.apply(scene.frame(), _GROSS[fault.name], random)
        Image.fromarray(spoiled[..., ::-1]).save(folder / f"{i}-{fault.kind}.png")
    write_profile(profile, tmp_path / "press.json")
    line = line_of(bundle, {"kind": "folder", "path": str(folder)})
    (tmp_path / "line.yaml").write_text(
        f"bundle: {bundle.path}\ncameras:\n- id: cam0\n  source: {{kind: folder, path: images}}\n"
        "  guard: {profile: press.json}\n"
    )
    read = read_line(tmp_path / "line.yaml")  # the profile lies beside the line
    assert read.cameras[0].guard
    sink = ListSink()
    service = Service(read, [sink])
    accounts = service.run()["cam0"]
    assert line.cameras[0].guard is None
    by_name = {verdict.part_id: verdict for verdict in sink.verdicts}
    faulty = [verdict for name, verdict in by_name.items() if "good" not in name]
    assert len(faulty) == len(FAULTS)
    for verdict in faulty:
        assert verdict.verdict is VerdictKind.UNKNOWN
        assert verdict.outcome is Outcome.FAILED
        code, kind = verdict.reason.split(":")
        assert (code, kind in KINDS) == ("camera_fault", True)
        assert all(box.score is None and box.verdict is VerdictKind.UNKNOWN for box in verdict.boxes)
    assert accounts.reasons == {"camera_fault": sum(service.guards["cam0"].faults.values())}
    assert accounts.frames.scored >= 18


def test_wrong_sections_name_their_path(bundle: Bundle, engine: FakeEngine, tmp_path: Path) -> None:
    source = {"kind": "folder", "path": str(tmp_path)}

    def camera(**guard: Any) -> dict[str, Any]:
        return {"bundle": str(bundle.path), "cameras": [{"id": "c", "source": source, "guard": guard}]}

    from algan_stream.config import LineConfig

    with pytest.raises(ConfigError, match=r"cameras\[0\].guard.profil: unknown key"):
        convert(camera(profil="x"), LineConfig, "")
    with pytest.raises(ConfigError, match=r"cameras\[0\].guard: frozen_frames: expected 1 to 1000000, got 0"):
        convert(camera(frozen_frames=0), LineConfig, "")
    with pytest.raises(ConfigError, match=r"cameras\[0\].guard.off\[0\]: expected one of black, saturated"):
        convert(camera(off=["dark"]), LineConfig, "")
    with pytest.raises(ConfigError, match=r"cameras\[0\].guard.profile: .*cannot be read"):
        Service(convert(camera(profile=str(tmp_path / "x.json")), LineConfig, ""))
    from algan_stream.guard.guard import open_guard

    with pytest.raises(ConfigError, match=r"cameras\[0\].guard: looks at images"):
        open_guard(GuardConfig(), VectorSpec(features=3), "cameras[0].guard")


# ---- the command -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, scene = tmp_path_factory.mktemp("good"), Scene(4)
    for i in range(60):
        Image.fromarray(scene.frame()[..., ::-1]).save(folder / f"{i:03}.png")
    return folder


def test_learn_and_check_by_command(recorded: Path, tmp_path: Path) -> None:
    runner, out = CliRunner(), tmp_path / "press.guard.json"
    learned = runner.invoke(
        app,
        ["guard", "learn", str(recorded), "--out", str(out), "--false-alarm-rate", "0.1", "--try-on", "2"],
    )
    assert learned.exit_code == 0, learned.output
    assert "at most 0.1 called faulty on average, from 20 + 40 of them" in learned.output
    assert "defocused, 8 px of deviation" in learned.output
    spoiled = tmp_path / "spoiled"
    spoiled.mkdir()
    Image.fromarray(cv2.GaussianBlur(Scene(6).frame()[..., ::-1], (0, 0), 6)).save(spoiled / "0.png")
    checked = runner.invoke(app, ["guard", "check", str(out), str(spoiled), "--json"])
    assert json.loads(checked.stdout)["fault"] == "blurred"
    plain = runner.invoke(app, ["guard", "check", str(out), str(spoiled)])
    assert "1 frames: 1 blurred" in plain.stdout


def test_learn_from_a_line_s_camera_and_from_a_video(bundle: Bundle, recorded: Path, tmp_path: Path) -> None:
    runner, line = CliRunner(), tmp_path / "line.yaml"
    line.write_text(
        f"bundle: {bundle.path}\ncameras:\n- id: a\n"
        f"  source: {{kind: folder, path: {recorded}, loop: true}}\n"
    )
    arguments = ["--out", str(tmp_path / "p.json"), "--false-alarm-rate", "0.2", "--json", "--try-on", "0"]
    from_line = runner.invoke(app, ["guard", "learn", str(line), "--frames", "70", *arguments])
    assert from_line.exit_code == 0, from_line.output
    seen = json.loads(from_line.output)
    assert seen["reference_images"] + seen["calibration_images"] == 70
    assert seen["still"] == {"frames": 10, "change": 0.0}
    wrong = runner.invoke(app, ["guard", "learn", str(line), "--camera", "b", *arguments])
    assert isinstance(wrong.exception, ConfigError)
    assert "--camera: expected one of a, got 'b'" in str(wrong.exception)
    writer = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, (_WIDTH, _HEIGHT))
    scene = Scene(2)
    for _ in range(60):
        writer.write(scene.frame())
    writer.release()
    from_video = runner.invoke(app, ["guard", "learn", str(tmp_path / "v.avi"), *arguments])
    assert from_video.exit_code == 0, from_video.output
    assert json.loads(from_video.output)["size_wh"] == [_WIDTH, _HEIGHT]
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"no image")
    broken = runner.invoke(app, ["guard", "learn", str(tmp_path / "broken"), *arguments])
    assert isinstance(broken.exception, InputError)


def test_limits_are_those_of_calibration() -> None:
    profile = learn(Scene(12).frames(60), 0.3, try_on=0)
    assert profile.calibration_images == 40
    assert all(math.isfinite(limit) and limit >= 3 for limit in profile.limits.values())


@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 3000), (5000, 1), (3, 2, 3), (63, 200), (64, 64), (65, 700, 3)]
)
def test_frames_of_any_size_are_answered(profile: Profile, tmp_path: Path, shape: tuple[int, ...]) -> None:
    write_profile(msgspec.structs.replace(profile, size_wh=None), tmp_path / "p.json")
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    for config in (GuardConfig(frozen_frames=2), GuardConfig(profile=str(tmp_path / "p.json"))):
        guard = Guard(config)
        said = [_says(guard, image, "bgr8" if len(shape) == 3 else "grey8") for _ in range(3)]
        assert said[2].partition(":")[2] in KINDS
        assert min(shape[:2]) >= 64 or config.profile is None or said[0] == "camera_fault:size"


def test_a_fault_is_told_once_and_stands_among_the_warnings(
    guard: Guard, caplog: pytest.LogCaptureFixture
) -> None:
    scene = Scene(3)
    for _ in range(5):
        _says(guard, np.zeros_like(scene.frame()))
    assert guard.warnings() == ["camera cam: black"]
    assert caplog.text.count("unknown until this ends") == 1
    _says(guard, scene.frame())
    assert guard.warnings() == []


@pytest.mark.parametrize("pixel_format", ["bayer_rggb8", "nv12", "yuyv", "grey16"])
def test_a_profile_is_learned_in_a_cameras_own_format(pixel_format: CameraFormat) -> None:
    random = np.random.default_rng(3)
    shape = {"nv12": (240, 160), "yuyv": (160, 160, 2)}.get(pixel_format, (160, 160))
    scene = random.integers(60, 180, shape)

    def frame() -> np.ndarray:
        noisy = scene + random.integers(-6, 7, shape)
        return (noisy * 16).astype(np.uint16) if pixel_format == "grey16" else noisy.astype(np.uint8)

    profile = learn(((frame(), pixel_format) for _ in range(120)), 0.1, try_on=4, white_level=4095)
    assert any(row.share > 0.5 for row in profile.seen)
