"""The renderer's canvas: pixel grid, noise, antialiased shapes, and the light that falls on a surface.

Images must be the same bytes on every machine, so array math here is +, −, ×, ÷ and square root, which
IEEE 754 rounds exactly. NumPy's exp, sin and power, and matrix products, differ in the last bit from CPU
to CPU; that is why falloffs are polynomials and why turned metal is lit through dot products, not angles.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import pairwise

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]
#: Blue, green, red reflectance in 0..1.
Bgr = tuple[float, float, float]


class Stream(IntEnum):
    """Independent random streams of one seed: a defect must not shift the good part's randomness."""

    PART = 0
    BELT = 1
    CAMERA = 2
    DEFECT = 3
    LINE = 4


def random_stream(stream: Stream, *seeds: int) -> np.random.Generator:
    """A generator that depends on nothing but its arguments (all ≥ 0)."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([int(stream), *seeds])))


def uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A number in [low, high). `Generator.uniform` may fuse its multiply and add on some CPUs."""
    return low + (high - low) * rng.random()


def smoothstep(low: float, high: float, x: F32) -> F32:
    """0 below `low`, 1 above `high`, a cubic between; `low` may be above `high` for a falling edge."""
    t: F32 = np.clip((x - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def signed_noise(rng: np.random.Generator, shape: tuple[int, ...]) -> F32:
    """White noise, evenly in [-1, 1)."""
    noise: F32 = rng.random(shape, dtype=np.float32) * np.float32(2.0) - np.float32(1.0)
    return noise


def value_noise(rng: np.random.Generator, shape: tuple[int, ...], cells: int) -> F32:
    """Smooth noise in [-1, 1] of (height, width) `shape`, with `cells` grid cells along the longer side."""
    height, width = shape
    step = max(height, width) / cells
    lattice = signed_noise(rng, (int(height / step) + 3, int(width / step) + 3))

    def axis(n: int) -> tuple[npt.NDArray[np.intp], F32]:
        position = np.arange(n, dtype=np.float32) / np.float32(step)
        whole = position.astype(np.intp)
        return whole, smoothstep(0.0, 1.0, position - whole.astype(np.float32))

    (row, ty), (col, tx) = axis(height), axis(width)
    rows = lattice[row] + (lattice[row + 1] - lattice[row]) * ty[:, None]
    return rows[:, col] + (rows[:, col + 1] - rows[:, col]) * tx[None, :]


def blur(image: F32, sigma_px: float) -> F32:
    """Softens the last-but-one axes of (H, W, C) by two passes of a three-tap filter (σ ≤ 1.1 px)."""
    # Two passes of [w, 1-2w, w] have variance 4w.
    w = min(sigma_px * sigma_px / 4.0, 1.0 / 3.0)
    for axis in (0, 1, 0, 1):
        pad = [(1, 1) if a == axis else (0, 0) for a in range(image.ndim)]
        p = np.pad(image, pad, mode="edge")
        a, b, c = (p[1:-1], p[:-2], p[2:]) if axis == 0 else (p[:, 1:-1], p[:, :-2], p[:, 2:])
        image = a * (1.0 - 2.0 * w) + (b + c) * w
    return image


@dataclass
class Surface:
    """Everything that light needs to know of a part, per pixel; defects edit these planes.

    Lengths are in part radii: the rim is at distance 1 from the part's centre. Planes are float32
    (H, W) unless said otherwise.

    Attributes:
        u: Position to the right, in the part's own turned frame.
        v: Position downwards, likewise.
        r: Distance from the part's centre.
        px: Size of one pixel in part radii.
        slope_u: Rise of the surface per radius of way along u.
        slope_v: Likewise along v.
        cover: 1 where the part is, 0 where one sees the belt, fractional on edges.
        depth: Darkening of the belt seen through holes, 0..1.
        albedo: (H, W, 3) reflectance, BGR.
        gloss: Strength of the mirror-like highlight.
        turned: Strength of the bow-tie highlight of concentric tool marks.
        blank: `turned` as it was before holes were drilled.
        seal: 1 where rubber lies in its groove, out of reach of what harms the metal.
        occlusion: Factor on all light, below 1 in grooves and under fibres.
        mask: bool (H, W), the pixels that a defect touches.
    """

    u: F32
    v: F32
    px: float
    r: F32 = field(init=False)
    slope_u: F32 = field(init=False)
    slope_v: F32 = field(init=False)
    cover: F32 = field(init=False)
    depth: F32 = field(init=False)
    albedo: F32 = field(init=False)
    gloss: F32 = field(init=False)
    turned: F32 = field(init=False)
    blank: F32 = field(init=False)
    seal: F32 = field(init=False)
    occlusion: F32 = field(init=False)
    mask: Bool = field(init=False)

    def __post_init__(self) -> None:
        self.r = np.sqrt(self.u * self.u + self.v * self.v)
        for name in ("slope_u", "slope_v", "depth", "gloss", "turned", "blank", "seal"):
            setattr(self, name, np.zeros_like(self.u))
        self.cover = np.ones_like(self.u)
        self.occlusion = np.ones_like(self.u)
        self.albedo = np.zeros((*self.u.shape, 3), dtype=np.float32)
        self.mask = np.zeros(self.u.shape, dtype=np.bool_)

    def inside(self, distance: F32) -> F32:
        """Antialiased 0..1 cover of a shape from its signed distance in radii (negative inside)."""
        cover: F32 = np.clip(0.5 - distance / self.px, 0.0, 1.0)
        return cover

    def from_point(self, u: float, v: float) -> F32:
        """Distance of every pixel from a point."""
        du, dv = self.u - u, self.v - v
        distance: F32 = np.sqrt(du * du + dv * dv)
        return distance

    def away_from(self, u: float, v: float) -> tuple[F32, F32]:
        """Unit vectors from a point to every pixel; they shrink to nothing in the point itself."""
        reach = np.maximum(self.from_point(u, v), self.px)
        return np.divide(self.u - u, reach), np.divide(self.v - v, reach)

    def from_path(self, points: Sequence[tuple[float, float]]) -> tuple[F32, F32]:
        """Distance of every pixel from a polyline, and how far along it (0..1) the nearest point is."""
        nearest = np.full_like(self.u, 1e9)
        along = np.zeros_like(self.u)
        segments = len(points) - 1
        for i, ((u0, v0), (u1, v1)) in enumerate(pairwise(points)):
            du, dv = u1 - u0, v1 - v0
            pu, pv = self.u - u0, self.v - v0
            t = np.clip((pu * du + pv * dv) / max(du * du + dv * dv, 1e-12), 0.0, 1.0)
            eu, ev = pu - t * du, pv - t * dv
            squared = eu * eu + ev * ev
            closer = squared < nearest
            nearest = np.where(closer, squared, nearest)
            along = np.where(closer, (t + i) / segments, along)
        return np.sqrt(nearest), along

    @property
    def metal(self) -> F32:
        """1 where bare steel faces the camera."""
        return self.cover * (1.0 - self.seal)

    def paint(self, bgr: Bgr, amount: F32) -> None:
        """Blends a colour into the albedo; `amount` is 0..1 per pixel."""
        self.albedo += (np.array(bgr, dtype=np.float32) - self.albedo) * amount[:, :, None]

    def tilt(self, du: F32, dv: F32) -> None:
        """Adds slopes to the surface."""
        self.slope_u = self.slope_u + du
        self.slope_v = self.slope_v + dv


@dataclass(frozen=True)
class Light:
    """A lamp beside the camera plus even light from all around.

    Attributes:
        u: Direction towards the lamp in the part's frame; (u, v, w) has length 1.
        v: Likewise, downwards in the image.
        w: Likewise, towards the camera.
    """

    u: float
    v: float
    w: float

    @classmethod
    def at(cls, azimuth_deg: float, elevation_deg: float) -> Light:
        """A lamp by compass: azimuth 0° to the right, 90° down the image; elevation 90° overhead."""
        a, e = math.radians(azimuth_deg), math.radians(elevation_deg)
        return cls(math.cos(e) * math.cos(a), math.cos(e) * math.sin(a), math.sin(e))


def shade(s: Surface, light: Light) -> F32:
    """Light leaving the surface towards the camera: float32 (H, W, 3) BGR, about 0..1."""
    length = np.sqrt(1.0 + s.slope_u * s.slope_u + s.slope_v * s.slope_v)
    lit = np.maximum(light.w - s.slope_u * light.u - s.slope_v * light.v, 0.0) / length

    # Blinn's half vector between the lamp and the camera straight above.
    hu, hv, hw = light.u, light.v, light.w + 1.0
    norm = math.sqrt(hu * hu + hv * hv + hw * hw)
    glint = np.maximum(hw - s.slope_u * hu - s.slope_v * hv, 0.0) / (length * norm)
    for _ in range(4):  # to the 16th power
        glint = glint * glint

    # Concentric grooves mirror the lamp wherever they run across its direction.
    across = (s.u * light.v - s.v * light.u) / (np.maximum(s.r, 0.05) * math.hypot(light.u, light.v))
    bow = 1.0 - across * across
    bow = bow * bow

    matt = (0.34 + 0.68 * lit)[:, :, None] * s.albedo
    shine = (s.gloss * glint + s.turned * bow)[:, :, None]
    seen: F32 = np.multiply(matt + shine, s.occlusion[:, :, None])
    return seen
