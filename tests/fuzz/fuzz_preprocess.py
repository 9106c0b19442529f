"""Throws good, odd and bad arguments at the core's bindings and looks at what comes back.

    make fuzz [MINUTES=10]

builds the extension with AddressSanitizer and UndefinedBehaviorSanitizer and runs this. A crash, a
sanitizer's report or a finding ends it with an exit code other than 0; the file `--last-seed` then holds the
seed of the case, which `--seed N --cases 1` repeats. What counts as a finding: an exception other than those
that bad arguments may raise, a write outside the slots that were asked for, an output that is not a finite
number, or paths that disagree.
"""

import argparse
import collections
import importlib.util
import sys
import time
from pathlib import Path

import numpy as np

from algan_stream.errors import InputError

FORMATS = [
    "bgr8", "rgb8", "grey8", "bgra8", "rgba8", "grey16", "bayer_rggb8", "bayer_bggr8", "bayer_grbg8",
    "bayer_gbrg8", "nv12", "nv21", "i420", "yuyv", "uyvy",
]  # fmt: skip
LAST_AXIS = {"bgr8": (3,), "rgb8": (3,), "bgra8": (4,), "rgba8": (4,), "yuyv": (2,), "uyvy": (2,)}
STACKED = ("nv12", "nv21", "i420")
YUV = ["bt601", "bt601_full", "bt709", "bt709_full"]
ODD_NUMBERS = [np.nan, np.inf, -np.inf, -0.0, 1e-300, 1e300, -1e9, 2.0**31, 2.0**63, 0.5, 1e-6]
TOLERANCE = {np.dtype(np.float32): 1.5e-4, np.dtype(np.float16): 2e-3, np.dtype(np.uint8): 1}
JUNK = [
    None, "text", 7, [], [[1, 2], [3, 4]], (), (np.zeros(3),), np.array(3), np.zeros((0, 4)),
    np.zeros(5, np.float32), np.zeros((3, 3), object), np.zeros((2, 3, 4, 5), np.uint8),
    np.zeros((4, 4), np.complex64), np.zeros((2, 2), "U3"), np.zeros((3, 4), ">f4"),
    np.zeros((3, 5, 3), np.int8), np.broadcast_to(np.uint8(1), (9, 9, 3)),
    np.zeros((6, 6, 3), np.uint8)[:, ::-1],
    np.lib.stride_tricks.as_strided(np.zeros(64, np.uint8), (3, 3, 3), (0, 0, 0)),
]  # fmt: skip
REFUSALS = (InputError, TypeError, OverflowError)


def load_core(path):
    """The extension at `path`, or the installed one."""
    if path is None:
        return importlib.import_module("algan_stream._core")
    spec = importlib.util.spec_from_file_location("algan_stream._core", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Null:
    """An array at address 0, of any kind."""

    def __init__(self, shape, typestr):
        self.__array_interface__ = {"shape": shape, "typestr": typestr, "data": (0, False), "version": 3}


class Case:
    """One call, drawn from a seed; `bad` is the chance that an argument is spoilt."""

    def __init__(self, core, seed):
        self.core = core
        self.rng = np.random.default_rng(seed)
        self.bad = self.rng.choice([0.0, 0.0, 0.15])
        self.valid = True

    def pick(self, values):
        return values[self.rng.integers(len(values))]

    def spoilt(self):
        if self.rng.random() >= self.bad:
            return False
        self.valid = False
        return True

    def side(self, most=90):
        return int(self.pick([1, 2, 3, self.rng.integers(1, most + 1), self.rng.integers(60, 140)]))

    def junk(self):
        shape = (int(self.rng.integers(0, 4)), int(self.rng.integers(0, 4)), 3)
        nothing = [Null((4, 4, 3), "|u1"), Null((4, 4), "<f4"), Null((1, 5, 8, 8), "<f4")]
        return self.pick([*JUNK, *nothing, np.zeros(shape, np.uint8)])

    def image(self):
        """Pixels, their format, and the picture's size."""
        pixel_format = self.pick(FORMATS)
        height, width = self.side(), self.side()
        if pixel_format in (*STACKED, "yuyv", "uyvy"):
            height, width = height + height % 2, width + width % 2
        dtype = np.uint16 if pixel_format == "grey16" else np.uint8
        rows = height * 3 // 2 if pixel_format in STACKED else height
        padding = 0 if pixel_format == "i420" else int(self.pick([0, 0, 1, 7]))
        shape = (rows, width + padding, *LAST_AXIS.get(pixel_format, ()))
        image = self.rng.integers(0, np.iinfo(dtype).max + 1, shape, dtype)[:, padding:]
        if pixel_format not in STACKED:
            image = self.pick(
                [image, image, image[::-1], image[::2], np.broadcast_to(image[:1], image.shape)]
            )
            height = len(image)
        elif self.rng.random() < 0.3:
            image = self.planes(image, pixel_format, height)
        return (self.junk() if self.spoilt() else image), pixel_format, height, width

    def planes(self, image, pixel_format, height):
        if pixel_format != "i420":
            return image[:height].copy(), image[height:].copy()
        u, v = image[height:].copy().reshape(2, height // 2, -1)
        return image[:height].copy(), u.copy(), v.copy()

    def number(self, extent):
        return self.pick(ODD_NUMBERS) if self.spoilt() else self.rng.uniform(-extent, 2 * extent)

    def boxes(self, height, width):
        count, rng = int(self.pick([0, 1, 1, 3, 9])), self.rng
        if rng.random() < 0.3:
            return None, 1
        dtype = self.pick([np.float32, np.float64])
        if rng.random() < 0.3:
            rows = [(rng.uniform(0, width), rng.uniform(0, height), self.number(40), self.number(40),
                     self.number(720)) for _ in range(count)]  # fmt: skip
            self.valid = self.valid and all(min(r[2], r[3]) > 1e-3 for r in rows)
            boxes = np.array(rows, np.float64).reshape(-1, 5)
            centres = boxes[:, :2].astype(dtype)  # a centre just inside may round to the edge
            self.valid = self.valid and bool((centres < (width, height)).all())
        else:
            rows = [(self.number(width), self.number(height), self.number(width), self.number(height))
                    for _ in range(count)]  # fmt: skip
            boxes = np.array(rows, np.float64).reshape(-1, 4)
            if rng.random() < 0.8:
                boxes = np.sort(boxes.reshape(-1, 2, 2), axis=1).reshape(-1, 4)
            low, high = np.maximum(boxes[:, :2], 0), np.minimum(boxes[:, 2:], (width, height))
            self.valid = self.valid and bool((high - low > 1e-3).all())
        with np.errstate(over="ignore", invalid="ignore"):
            boxes = boxes.astype(dtype)
        return (self.junk() if self.spoilt() else self.pick([boxes, boxes.copy(order="F")])), count

    def spec(self):
        floats = self.rng.uniform(0.1, 1.0, 3).tolist()
        values = {
            "height_px": self.side(), "width_px": self.side(),
            "pooled": self.pick(["none", "max", "mean", "max_mean"]),
            "downscale": self.pick(["area", "bilinear"]), "mean": (0.5, 0.5, 0.5), "std": (floats[0],) * 3,
            "fit": self.pick(["stretch", "letterbox"]), "pad_level": float(self.rng.uniform(0, 255)),
            "box_margin": float(self.pick([0, 0.2, 9.0])), "white_level": int(self.rng.integers(255, 65536)),
        }  # fmt: skip
        if self.spoilt():
            name = self.pick(list(values))
            values[name] = self.pick(
                [-1, 0, 1 << 40, "nonsense", np.nan, (1, 2), (0.0, 0.0, 0.0), None, 5000]
            )
        return values, self.core.Spec(**values)

    def out(self, values, count, first, layout):
        channels = {"none": 3, "max_mean": 5}.get(values["pooled"], 4)
        size = (values["height_px"], values["width_px"])
        shape = (channels, *size) if layout == "nchw" else (*size, channels)
        dtype = self.pick([np.float32, np.float32, np.float16, np.uint8])
        memory = np.full((first + count + 1, *shape), 93, dtype)
        if self.spoilt():
            memory = self.pick(
                [memory[:, ::-1], memory[:-2], memory[..., None], memory.astype(np.int32), self.junk()]
            )
        return memory


def run_case(core, seed):
    """Whether the call was refused; asserts what must hold."""
    case = Case(core, seed)
    image, pixel_format, height, width = case.image()
    boxes, count = case.boxes(height, width)
    values, spec = case.spec()
    layout, first = case.pick(["nchw", "nhwc"]), int(case.rng.integers(0, 3))
    out = case.out(values, count, first, layout)
    how = {
        "pixel_format": "nonsense" if case.spoilt() else pixel_format,
        "boxes": boxes,
        "first_slot": case.pick([-1, 1 << 40, 99]) if case.spoilt() else first,
        "layout": layout,
        "mask": case.pick([None, None, case.rng.integers(0, 2, (height, width), np.uint8)]),
        "yuv": case.pick(YUV),
        "threads": case.pick([-1, 0, 1 << 20]) if case.spoilt() else int(case.pick([1, 1, 2, 5])),
    }
    if case.spoilt():
        how["mask"] = case.junk()
    before = out.copy() if isinstance(out, np.ndarray) else None
    outputs = []
    for name in core.available_simd():
        core._force_simd(name)
        core._force_streaming(case.pick([None, True, False]))
        try:
            written = core.preprocess_into(out, image, spec, **how)
        except REFUSALS:
            assert not case.valid, "a call that should work was refused"
            assert before is None or before.dtype == object or np.array_equal(out, before, equal_nan=True)
            return True
        outputs.append(out.copy())
        first_slot = how["first_slot"]
        inside = out[first_slot : first_slot + written]
        assert np.isfinite(inside.astype(np.float64)).all(), "an output is not finite"
        untouched = np.delete(out, slice(first_slot, first_slot + written), axis=0)
        assert (untouched == 93).all(), "a slot was written that was not asked for"
    for got in outputs[:-1]:
        difference = np.abs(got.astype(np.float64) - outputs[-1].astype(np.float64)).max(initial=0)
        assert difference <= TOLERANCE[got.dtype] * max(1, 1 / values["std"][0]), (
            f"paths differ by {difference}"
        )
    return False


def main():
    """Runs until the time or the number of cases is up."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=int(time.time()) << 24)
    parser.add_argument("--cases", type=int, default=1 << 60)
    parser.add_argument("--last-seed", type=Path, default=Path("fuzz-last-seed"))
    parser.add_argument("--core", type=Path, help="the extension's file; by default the installed one")
    options = parser.parse_args()
    core = load_core(options.core)
    end, seen = time.monotonic() + 60 * options.minutes, collections.Counter()
    for seed in range(options.seed, options.seed + options.cases):
        if time.monotonic() > end:
            break
        options.last_seed.write_text(str(seed))
        try:
            seen[run_case(core, seed)] += 1
        except REFUSALS:
            seen[True] += 1  # the spec itself
    worked, refused, paths = seen[False], seen[True], len(core.available_simd())
    sys.stdout.write(f"{worked} calls worked on {paths} paths, {refused} were refused; nothing found\n")


if __name__ == "__main__":
    main()
