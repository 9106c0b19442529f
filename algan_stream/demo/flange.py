"""The good part: a turned steel flange with a rubber seal, bolt holes and a locating notch."""

from __future__ import annotations

import math

import numpy as np

from algan_stream.demo.surface import Surface, signed_noise, value_noise

#: Bolt holes: how many, distance of their centres from the part's, and their radius (part radii).
BOLT_COUNT, BOLT_CIRCLE, BOLT_RADIUS = 6, 0.74, 0.105
#: Radius of the bore in the middle.
BORE = 0.27
#: Reflectance of bare steel, BGR.
STEEL = (0.49, 0.48, 0.46)


def bolt_centre(index: int) -> tuple[float, float]:
    """Centre of one bolt hole; the first is to the lower right of the part's right-hand side."""
    angle = 2.0 * math.pi * (index + 0.5) / BOLT_COUNT
    return BOLT_CIRCLE * math.cos(angle), BOLT_CIRCLE * math.sin(angle)


def machine(s: Surface, rng: np.random.Generator, steel_tone: float) -> None:
    """Makes the good part: turned flange, rubber ring in its groove, hub, bore, bolt holes, notch."""
    s.albedo[...] = np.array(STEEL, dtype=np.float32) * np.float32(steel_tone)
    s.gloss[...] = 0.10
    s.turned[...] = 0.26
    _tool_marks(s, rng)

    # Turned profile: (inner radius, outer radius, outward slope), each blended over its own edges.
    out_u, out_v = s.away_from(0.0, 0.0)
    profile = ((0.945, 1.2, -0.9), (0.405, 0.45, -1.1), (BORE, BORE + 0.035, 0.9))
    for inner, outer, slope in profile:
        band = s.inside(inner - s.r) * s.inside(s.r - outer)
        s.tilt(slope * band * out_u, slope * band * out_v)
        s.turned *= 1.0 - band
    hub = s.inside(s.r - 0.405)
    s.turned *= 1.0 + 0.25 * hub
    _rubber_ring(s, rng)

    s.cover *= s.inside(s.r - 1.0) * s.inside(BORE - s.r)
    s.depth += 0.45 * s.inside(s.r - BORE)
    s.blank[...] = s.turned
    for i in range(BOLT_COUNT):
        _drill(s, bolt_centre(i), BOLT_RADIUS)
    notch = s.from_point(0.0, -1.02)
    s.cover *= s.inside(0.085 - notch)


def _tool_marks(s: Surface, rng: np.random.Generator) -> None:
    """Fine rings left by the lathe, broken up so that no ring runs all the way round evenly."""
    # Rings finer than the pixels would alias into dots.
    position = s.r * min(64.0, 0.7 / s.px)
    index = position.astype(np.intp)
    t = position - index.astype(np.float32)
    rings = signed_noise(rng, (2, 256))
    coarse, fine = (row[index] + (row[index + 1] - row[index]) * t for row in rings)
    patchy = 0.5 + 0.5 * value_noise(rng, s.u.shape, cells=7)
    marks = coarse * patchy + fine * (1.0 - patchy)
    s.turned *= 1.0 + 0.45 * marks
    mottle = value_noise(rng, s.u.shape, cells=5)
    s.albedo *= (1.0 + 0.07 * marks + 0.03 * mottle)[:, :, None]


def _rubber_ring(s: Surface, rng: np.random.Generator) -> None:
    """A black seal between hub and bolt circle: round in section, faintly dusty."""
    middle, half = 0.505, 0.045
    offset = s.r - middle
    groove = s.inside(np.abs(offset) - half - 0.012)
    ring = s.inside(np.abs(offset) - half)
    out_u, out_v = s.away_from(0.0, 0.0)
    bulge = -1.2 * ring * np.clip(offset / half, -1.0, 1.0)
    s.seal[...] = groove
    s.turned *= 1.0 - groove
    s.gloss += 0.14 * ring
    s.occlusion *= 1.0 - 0.55 * (groove - ring)
    dust = 0.012 * value_noise(rng, s.u.shape, cells=24)
    s.albedo += (np.float32(0.075) + dust - s.albedo.transpose(2, 0, 1)).transpose(1, 2, 0) * ring[:, :, None]
    s.tilt(bulge * out_u, bulge * out_v)


def _drill(s: Surface, centre: tuple[float, float], hole: float) -> None:
    """A through-hole with a countersink."""
    distance = s.from_point(*centre)
    sink = s.inside(distance - hole - 0.03) * s.inside(hole - distance)
    out_u, out_v = s.away_from(*centre)
    s.tilt(0.9 * sink * out_u, 0.9 * sink * out_v)
    s.turned *= 1.0 - sink
    s.cover *= s.inside(hole - distance)
    s.depth += 0.72 * s.inside(distance - hole)
