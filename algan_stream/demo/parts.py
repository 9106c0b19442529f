"""Renders a turned steel flange on a conveyor belt, good or with one defect, as a fixed camera sees it.

The same three steps make a part image and a conveyor frame, so that a box cut from a frame has exactly
the distribution of the part images: `part_layer` lights one part, `Layer.onto` lays it on the belt,
`expose` adds exposure and sensor noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from algan_stream.demo.defects import DEFECT_RENDERERS
from algan_stream.demo.flange import machine
from algan_stream.demo.surface import (
    F32,
    Bool,
    Light,
    Stream,
    Surface,
    blur,
    random_stream,
    shade,
    smoothstep,
    uniform,
    value_noise,
)
from algan_stream.errors import InputError

U8 = npt.NDArray[np.uint8]

#: Names of the defects that can be rendered.
DEFECTS: tuple[str, ...] = tuple(DEFECT_RENDERERS)
#: Part radius as a share of the image's side; the rest is the margin of a box around the part.
RADIUS_SHARE = 0.41
#: Largest side of a part image.
MAX_SIZE_PX = 512
#: Exposure varies by ± this share.
GAIN_SPREAD = 0.04
#: Standard deviation of the sensor's noise in grey levels.
NOISE_LEVELS = 2.0


@dataclass(frozen=True)
class PartImage:
    """One part under the camera.

    Attributes:
        image: uint8 (size, size, 3), BGR.
        mask: bool (size, size), True where the defect is; all False for a good part.
        defect: Name of the defect, or None.
    """

    image: U8
    mask: Bool
    defect: str | None


@dataclass(frozen=True)
class Layer:
    """A part without belt or noise, ready to be laid on a belt.

    Attributes:
        light: uint16 (size, size, 3), BGR grey levels × 256 that the part itself contributes.
        pass_through: uint16 (size, size, 1), share × 256 of the belt's light that remains: 0 under the
            part, below 256 in its shadow and its holes.
        mask: bool (size, size) of the defect.
    """

    light: npt.NDArray[np.uint16]
    pass_through: npt.NDArray[np.uint16]
    mask: Bool

    def onto(self, frame: U8, x: int, y: int) -> None:
        """Lays the part on a belt, in place.

        Args:
            frame: uint8 (H, W, 3) BGR.
            x: Column of the layer's left edge in pixels; what lies left or right of the frame is cut off.
            y: Row of its top edge; the layer must fit from top to bottom.
        """
        size = self.light.shape[0]
        left, right = max(0, -x), min(size, frame.shape[1] - x)
        if left < right:
            view = frame[y : y + size, x + left : x + right]
            view[...] = (view * self.pass_through[:, left:right] + self.light[:, left:right]) >> 8


def render_part(seed: int, *, defect: str | None = None, size_px: int = 128) -> PartImage:
    """Renders one part; the same arguments give the same bytes on every machine.

    Args:
        seed: Number of the part, ≥ 0. A defective part is its good twin of the same seed plus a defect.
        defect: One of `DEFECTS`, or None for a good part.
        size_px: Side of the image in pixels, 32 to 512.

    Raises:
        InputError: An argument is out of range.
    """
    layer = part_layer(seed, defect=defect, size_px=size_px)
    belt = belt_tile(size_px)
    rng = random_stream(Stream.BELT, seed)
    top, left = (int(rng.integers(side - size_px)) for side in belt.shape[:2])
    image = belt[top : top + size_px, left : left + size_px].copy()
    layer.onto(image, 0, 0)
    rng = random_stream(Stream.CAMERA, seed)
    gain = uniform(rng, 1.0 - GAIN_SPREAD, 1.0 + GAIN_SPREAD)
    return PartImage(expose(image, gain, rng), layer.mask, defect)


def part_layer(seed: int, *, defect: str | None, size_px: int) -> Layer:
    """Renders the part of `render_part` without its belt and noise; see there for the arguments."""
    if seed < 0:
        raise InputError(f"seed: expected 0 or more, got {seed}")
    if not 32 <= size_px <= MAX_SIZE_PX:
        raise InputError(f"size_px: expected 32 to {MAX_SIZE_PX}, got {size_px}")
    if defect is not None and defect not in DEFECT_RENDERERS:
        raise InputError(f"defect: expected one of {', '.join(DEFECTS)} or None, got {defect!r}")
    rng = random_stream(Stream.PART, seed)
    # A feeder lays the parts down almost, but never quite, alike.
    turn = math.radians(uniform(rng, -3.0, 3.0))
    surface = _canvas(size_px, turn, uniform(rng, -0.012, 0.012), uniform(rng, -0.012, 0.012))
    azimuth_deg, elevation_deg = uniform(rng, 219.0, 231.0), uniform(rng, 50.0, 56.0)
    softness_px, steel_tone = uniform(rng, 0.45, 0.7), uniform(rng, 0.95, 1.05)
    machine(surface, rng, steel_tone)
    # The lamp stands still while the part is turned.
    light = Light.at(azimuth_deg - math.degrees(turn), elevation_deg)
    shadow = _belt_shadow(surface, light)
    if defect is not None:
        DEFECT_RENDERERS[defect](surface, random_stream(Stream.DEFECT, seed, DEFECTS.index(defect)))
    return _develop(surface, light, shadow, softness_px)


def _canvas(size_px: int, turn: float, shift_x: float, shift_y: float) -> Surface:
    """The pixel grid in part radii, turned by `turn` radians, moved by shares of the image's side."""
    radius_px = RADIUS_SHARE * size_px
    grid = np.arange(size_px, dtype=np.float32) + np.float32(0.5 - size_px / 2)
    x = ((grid - shift_x * size_px) / radius_px)[None, :]
    y = ((grid - shift_y * size_px) / radius_px)[:, None]
    c, s = math.cos(turn), math.sin(turn)
    return Surface(u=c * x + s * y, v=c * y - s * x, px=1.0 / radius_px)


def _belt_shadow(s: Surface, light: Light) -> F32:
    """Share of light (0..1) that the part takes from the belt around it."""
    du, dv = s.u + 0.07 * light.u / light.w, s.v + 0.07 * light.v / light.w
    cast = smoothstep(1.07, 0.97, np.sqrt(du * du + dv * dv))
    contact = smoothstep(1.08, 1.0, s.r)
    taken: F32 = np.maximum(0.5 * cast, 0.3 * contact)
    return taken


def _develop(s: Surface, light: Light, shadow: F32, softness_px: float) -> Layer:
    """Lights the surface, softens it as the lens does, and packs it into fixed point."""
    # Clipped before blending: light and belt together must fit the 16 bits of `onto`.
    colour = np.clip(shade(s, light), 0.0, 1.0) * s.cover[:, :, None]
    dark = 1.0 - np.maximum(shadow, np.clip(s.depth, 0.0, 1.0))
    remains = (1.0 - s.cover) * dark
    planes = blur(np.concatenate([colour, remains[:, :, None]], axis=2), softness_px)
    return Layer(
        light=np.floor(planes[:, :, :3] * (255.0 * 256.0)).astype(np.uint16),
        pass_through=np.floor(np.clip(planes[:, :, 3:], 0.0, 1.0) * 256.0).astype(np.uint16),
        mask=s.mask,
    )


@lru_cache(maxsize=4)
def belt_tile(size_px: int) -> U8:
    """The belt's surface for parts of `size_px`: read-only uint8 (3·size, 4·size, 3).

    There is one belt, so part images and conveyor frames show the same rubber.
    """
    height, width = 3 * size_px, 4 * size_px
    rng = random_stream(Stream.BELT, size_px)
    cloud = value_noise(rng, (height, width), cells=12)
    grain = value_noise(rng, (height, width), cells=width // 2)
    specks = smoothstep(0.75, 0.95, value_noise(rng, (height, width), cells=width // 4))
    # Guides and rollers polish the rubber in streaks along its way.
    streaks = np.repeat(value_noise(rng, (height, 1), cells=45), width, axis=1)
    # A woven face: raised threads, never so fine that they alias.
    pitch = max(3, size_px // 40)
    row, col = np.arange(height)[:, None] // pitch, np.arange(width)[None, :] // pitch
    weave = ((row + col) % 2).astype(np.float32) - 0.5
    level = 1.0 + 0.05 * (1.0 + streaks) * cloud + 0.03 * streaks + 0.10 * grain + 0.08 * weave + 0.3 * specks
    tile = blur(level[:, :, None] * np.array([62.0, 74.0, 56.0], dtype=np.float32), 0.7)
    result: U8 = np.clip(np.floor(tile + 0.5), 0.0, 255.0).astype(np.uint8)
    result.flags.writeable = False
    return result


@lru_cache(maxsize=2)
def _noise_bank(length: int) -> npt.NDArray[np.int16]:
    rng = random_stream(Stream.CAMERA, 0, length)
    return np.rint(rng.standard_normal(length) * NOISE_LEVELS).astype(np.int16)


def expose(image: U8, gain: float, rng: np.random.Generator) -> U8:
    """Applies exposure and sensor noise, as the camera does: uint8 in, a new uint8 array out.

    Noise is cut from a long strip at a random place: fresh normals for each frame would cost more than
    all the rest of it.
    """
    bank = _noise_bank(1 << max(20, image.size.bit_length()))
    start = int(rng.integers(bank.size - image.size))
    levels = np.floor(np.arange(256) * gain + 0.5).astype(np.int16)
    noisy = np.take(levels, image)
    noisy += bank[start : start + image.size].reshape(image.shape)
    exposed: U8 = np.clip(noisy, 0, 255, out=noisy).astype(np.uint8)
    return exposed


def write_dataset(
    folder: str | Path,
    *,
    good: int,
    test_good: int,
    test_defective: int,
    size_px: int = 128,
    seed: int = 0,
) -> Path:
    """Writes part images as PNG in the folder layout of MVTec AD.

    `train/good/000.png`, `test/good/000.png`, `test/<defect>/000.png` and
    `ground_truth/<defect>/000_mask.png` (255 where the defect is). No two images share a part.

    Args:
        folder: Made if missing; must hold nothing yet.
        good: Number of good images to train on.
        test_good: Number of good images to test on.
        test_defective: Number of defective images in all, spread evenly over `DEFECTS`.
        size_px: Side of the images in pixels, 32 to 512.
        seed: Another seed, 0 to 1 million, gives other parts.

    Returns:
        The folder.

    Raises:
        InputError: The folder is not empty, or a number is out of range.
    """
    root = Path(folder)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise InputError(f"{root}: expected an empty or missing folder; name another or empty this one")
    for name, count in (("good", good), ("test_good", test_good), ("test_defective", test_defective)):
        if not 0 <= count <= 100_000:
            raise InputError(f"{name}: expected 0 to 100000 images, got {count}")
    if not 0 <= seed <= 1_000_000:
        raise InputError(f"seed: expected 0 to 1000000, got {seed}")
    # Room for every part that the limits above allow, so that seeds never share one.
    part = seed * 1_000_000
    for split, count in (("train", good), ("test", test_good)):
        for i in range(count):
            _write_png(root / split / "good" / f"{i:03d}.png", render_part(part, size_px=size_px).image)
            part += 1
    for i in range(test_defective):
        defect, number = DEFECTS[i % len(DEFECTS)], i // len(DEFECTS)
        rendered = render_part(part, defect=defect, size_px=size_px)
        _write_png(root / "test" / defect / f"{number:03d}.png", rendered.image)
        mask = rendered.mask.astype(np.uint8) * np.uint8(255)
        _write_png(root / "ground_truth" / defect / f"{number:03d}_mask.png", mask)
        part += 1
    return root


def _write_png(path: Path, image: U8) -> None:
    """Writes uint8 BGR (H, W, 3) or grey (H, W)."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image if image.ndim == 2 else np.ascontiguousarray(image[:, :, ::-1])).save(path)
