"""What can be wrong with a part. A defect edits a `Surface` and marks its mask; light does the rest.

Sizes are in part radii and reach from about 3 % of the part's diameter upwards, as an inspector would
be asked to find them; each is drawn at random within its range, so some are plain and some are subtle.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from algan_stream.demo.flange import BOLT_COUNT, BOLT_RADIUS, BORE, bolt_centre
from algan_stream.demo.surface import F32, Bgr, Surface, smoothstep, uniform, value_noise

_Point = tuple[float, float]


def scratch(s: Surface, rng: np.random.Generator) -> None:
    """A burr-edged groove, nearly straight, across the tool marks."""
    u, v = _point_on_face(rng, innermost=0.6)
    heading, length = uniform(rng, 0.0, 2.0 * math.pi), uniform(rng, 0.55, 1.2)
    start = u - 0.5 * length * math.cos(heading), v - 0.5 * length * math.sin(heading)
    path = _walk(rng, start, heading, length, steps=10, wander=0.06)
    distance, along = s.from_path(path)
    width = uniform(rng, 0.02, 0.036)
    ends = smoothstep(0.0, 0.15, along) * smoothstep(1.0, 0.8, along)
    groove = s.inside(distance - width) * ends * s.metal
    bright = 1.0 if rng.random() < 0.5 else 0.0
    s.turned = s.turned * (1.0 - (1.0 - 0.6 * bright) * groove)
    s.occlusion = s.occlusion * (1.0 - (0.35 - 0.25 * bright) * groove)
    s.paint((0.95, 0.95, 0.93) if bright else (0.17, 0.17, 0.17), groove * uniform(rng, 0.6, 0.95))
    s.mask |= groove > 0.1


def dent(s: Surface, rng: np.random.Generator) -> None:
    """A dished blow on the face: its near wall turns dark, its far wall catches the lamp."""
    u, v = _point_on_face(rng, innermost=0.6)
    radius, depth = uniform(rng, 0.11, 0.20), uniform(rng, 0.7, 1.3)
    distance, (out_u, out_v) = s.from_point(u, v), s.away_from(u, v)
    inside = smoothstep(radius, 0.72 * radius, distance) * s.metal
    steep: F32 = np.multiply(inside, distance * (depth / radius))
    s.tilt(steep * out_u, steep * out_v)
    s.turned = s.turned * (1.0 - 0.7 * inside)
    s.gloss = s.gloss + 0.25 * inside
    s.mask |= (distance < radius) & (s.metal > 0.5)


def stain(s: Surface, rng: np.random.Generator) -> None:
    """Rust, oil or heat tint: a ragged patch of colour with a soft edge."""
    u, v = _point_on_face(rng, innermost=0.6)
    kinds: tuple[tuple[Bgr, float], ...] = (
        ((0.10, 0.20, 0.38), 0.9),  # rust: matt
        ((0.13, 0.15, 0.16), 0.4),  # oil: still glossy
        ((0.46, 0.30, 0.24), 0.6),  # blued by heat
    )
    colour, matting = kinds[int(rng.integers(len(kinds)))]
    blob = _blob(s, rng, u, v, uniform(rng, 0.13, 0.27), raggedness=0.6)
    amount = smoothstep(0.15, -0.25, blob) * uniform(rng, 0.5, 0.9) * s.metal
    amount = amount * (0.8 + 0.2 * value_noise(rng, s.u.shape, cells=30))
    s.paint(colour, amount)
    s.turned = s.turned * (1.0 - matting * amount)
    s.gloss = s.gloss * (1.0 - matting * amount)
    s.mask |= amount > 0.1


def missing_hole(s: Surface, rng: np.random.Generator) -> None:
    """A bolt hole never drilled, or plugged with swarf and coolant."""
    u, v = bolt_centre(int(rng.integers(BOLT_COUNT)))
    distance = s.from_point(u, v)
    disc = s.inside(distance - BOLT_RADIUS - 0.03)
    plugged = rng.random() < 0.5
    flat = 1.0 - disc
    s.cover = s.cover + (1.0 - s.cover) * disc
    s.depth = s.depth * flat
    s.occlusion = s.occlusion * flat + disc
    if plugged:
        grain = value_noise(rng, s.u.shape, cells=40)
        plug = s.inside(distance - BOLT_RADIUS)
        s.tilt(0.5 * plug * grain - s.slope_u * disc, 0.5 * plug * grain - s.slope_v * disc)
        s.paint((0.24, 0.27, 0.29), plug)
        s.turned = s.turned * (1.0 - plug)
    else:
        s.tilt(-s.slope_u * disc, -s.slope_v * disc)
        s.turned = s.turned + (s.blank - s.turned) * disc
    s.mask |= distance < BOLT_RADIUS + 0.03


def chip(s: Surface, rng: np.random.Generator) -> None:
    """A bite out of the rim with a bright, rough fracture."""
    angle = uniform(rng, 0.0, 2.0 * math.pi)
    u, v = math.cos(angle), math.sin(angle)
    blob = _blob(s, rng, u, v, uniform(rng, 0.10, 0.19), raggedness=0.4)
    fracture = smoothstep(0.3, 0.12, blob) * s.cover
    gone = smoothstep(0.06, -0.06, blob)
    rough = value_noise(rng, s.u.shape, cells=48)
    s.mask |= (blob < 0.25) & (s.cover > 0.5)
    s.tilt(fracture * (0.5 * u + 0.5 * rough), fracture * (0.5 * v - 0.5 * rough))
    s.paint((0.72, 0.72, 0.70), fracture)
    s.turned = s.turned * (1.0 - fracture)
    s.cover = s.cover * (1.0 - gone)


def crack(s: Surface, rng: np.random.Generator) -> None:
    """A dark, forking jag that starts where stress gathers: at a bolt hole, or at the rim."""
    length = uniform(rng, 0.35, 0.6)
    if rng.random() < 0.5:
        angle = uniform(rng, 0.0, 2.0 * math.pi)
        start, heading = _polar(0.98, angle), angle + math.pi + uniform(rng, -0.7, 0.7)
    else:
        # Around the flange rather than across it: the rim and the seal are too near.
        hole_u, hole_v = bolt_centre(int(rng.integers(BOLT_COUNT)))
        sideways = math.atan2(hole_u, -hole_v) + (math.pi if rng.random() < 0.5 else 0.0)
        heading = sideways + uniform(rng, -0.7, 0.7)
        u, v = _polar(BOLT_RADIUS, heading)
        start = hole_u + u, hole_v + v
    path = _walk(rng, start, heading, length, steps=12, wander=0.6)
    fork = _walk(rng, path[6], heading + uniform(rng, -0.9, 0.9), 0.35 * length, steps=5, wander=0.6)
    width = uniform(rng, 0.016, 0.03)
    gap = np.zeros_like(s.u)
    for branch, scale in ((path, 1.0), (fork, 0.7)):
        distance, along = s.from_path(branch)
        gap = np.maximum(gap, s.inside(distance - scale * width * (1.0 - 0.75 * along)))
    gap = gap * s.metal
    s.occlusion = s.occlusion * (1.0 - 0.88 * gap)
    s.mask |= gap > 0.1


def fibre(s: Surface, rng: np.random.Generator) -> None:
    """A curled textile fibre lying on the part, with its shadow."""
    colours: tuple[Bgr, ...] = (
        (0.55, 0.25, 0.12),
        (0.14, 0.13, 0.55),
        (0.80, 0.82, 0.84),
        (0.06, 0.06, 0.07),
    )
    colour = colours[int(rng.integers(len(colours)))]
    start = _point_on_face(rng)
    inwards = math.atan2(-start[1], -start[0])
    heading, curl = inwards + uniform(rng, -1.3, 1.3), uniform(rng, -0.45, 0.45)
    path = _walk(rng, start, heading, uniform(rng, 0.5, 1.0), steps=14, wander=0.25, curl=curl)
    distance, _ = s.from_path(path)
    shadow, _ = s.from_path([(u + 0.025, v + 0.02) for u, v in path])
    width = uniform(rng, 0.018, 0.03)
    # It may bridge holes and hang over the rim, but stays within the margin of the part's box.
    thread = s.inside(distance - width) * s.inside(s.r - 1.12)
    s.occlusion = s.occlusion * (1.0 - 0.45 * smoothstep(1.8 * width, 0.0, shadow))
    s.occlusion = s.occlusion + (1.0 - s.occlusion) * thread
    s.paint(colour, thread)
    s.tilt(-s.slope_u * thread, -s.slope_v * thread)
    s.turned = s.turned * (1.0 - thread)
    s.gloss = s.gloss * (1.0 - thread)
    s.cover = np.maximum(s.cover, thread)
    s.mask |= thread > 0.1


DEFECT_RENDERERS: dict[str, Callable[[Surface, np.random.Generator], None]] = {
    f.__name__: f for f in (scratch, dent, stain, missing_hole, chip, crack, fibre)
}


def _polar(radius: float, angle: float) -> _Point:
    return radius * math.cos(angle), radius * math.sin(angle)


def _point_on_face(rng: np.random.Generator, innermost: float = BORE + 0.06) -> _Point:
    """A point at least `innermost` from the centre, evenly over the face, clear of the bolt holes."""
    while True:
        u, v = uniform(rng, -0.9, 0.9), uniform(rng, -0.9, 0.9)
        clear = min(math.hypot(u - a, v - b) for a, b in map(bolt_centre, range(BOLT_COUNT)))
        if innermost < math.hypot(u, v) < 0.88 and clear > BOLT_RADIUS + 0.02:
            return u, v


def _walk(
    rng: np.random.Generator,
    start: _Point,
    heading: float,
    length: float,
    *,
    steps: int,
    wander: float,
    curl: float = 0.0,
) -> list[_Point]:
    """A polyline of `steps` equal steps; each turns by `curl` and at most ±`wander` radians."""
    path = [start]
    for _ in range(steps):
        turn = heading + uniform(rng, -wander, wander)
        u, v = path[-1]
        path.append((u + length / steps * math.cos(turn), v + length / steps * math.sin(turn)))
        heading += curl
    return path


def _blob(
    s: Surface, rng: np.random.Generator, u: float, v: float, radius: float, *, raggedness: float
) -> F32:
    """Signed distance from a ragged oval's edge, about in units of its radius; negative inside."""
    angle, stretch = uniform(rng, 0.0, math.pi), uniform(rng, 1.0, 1.5)
    du, dv = s.u - u, s.v - v
    along, across = du * math.cos(angle) + dv * math.sin(angle), dv * math.cos(angle) - du * math.sin(angle)
    oval = np.sqrt((along / stretch) * (along / stretch) + (across * stretch) * (across * stretch))
    coarse = value_noise(rng, s.u.shape, cells=int(3.0 / radius))
    fine = value_noise(rng, s.u.shape, cells=int(8.0 / radius))
    edge: F32 = np.add(oval / radius - 1.0, raggedness * (0.75 * coarse + 0.25 * fine))
    return edge
