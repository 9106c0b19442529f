"""Why an image was rejected: the bundle's second graph says where in it the score comes from.

The map is at the network's resolution; what is shown lies on the original image, in its own pixels. Nothing
here is loaded or computed unless it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from algan_stream.bundle import EXPLAIN, Bundle
from algan_stream.engines.graph import Graph, open_graph
from algan_stream.errors import BundleError, EngineError, GateError, InputError
from algan_stream.types import Box, BoxVerdict, PixelFormat, VerdictKind

#: Colours from the weakest to the strongest saliency, in OKLab: lightness rises evenly, hue from violet over
#: red to yellow, so that the order is seen without a legend and without telling red from green.
_ANCHORS_OKLAB = (
    (0.25, 0.06, -0.12),
    (0.45, 0.16, -0.02),
    (0.65, 0.16, 0.11),
    (0.85, 0.02, 0.17),
    (0.97, -0.02, 0.06),
)
#: Opacity of the strongest saliency; the part stays visible below it.
_OPACITY = 0.8
_BOX_BGR, _PEAK_BGR = (255, 200, 0), (255, 255, 255)

Saliency = npt.NDArray[np.float32]
Image = npt.NDArray[np.uint8]


class Explainer:
    """The explanation graph of a bundle, compiled and checked.

    Args:
        bundle: Must hold one, see `Bundle.explain_path`.
        section: Configuration section `engine`; by default OpenVINO in fp32.

    Raises:
        BundleError: The bundle has no explanation graph, or its inputs are letterboxed or have a margin.
        EngineError: It cannot be compiled, or does not fit the manifest.
        GateError: Its logits are not the bundle's golden ones: it explains another model.
    """

    def __init__(self, bundle: Bundle, section: dict[str, Any] | None = None) -> None:
        path = bundle.explain_path
        if path is None:
            raise BundleError(_why_not(bundle))
        spec = bundle.manifest.image_spec
        if spec.fit != "stretch" or spec.box_margin > 0:
            raise BundleError(
                f"{bundle.path}: explanations need inputs that are stretched, without a margin, but its "
                f"input_spec says fit {spec.fit!r} and box_margin {spec.box_margin:g}: the map would lie in "
                "the wrong place"
            )
        _, height, width = spec.shape_chw
        shapes: dict[str, tuple[int, ...]] = {"saliency": (height, width), "logit": ()}
        self._graph: Graph = open_graph(path, bundle.manifest.spec.shape, shapes, section)
        try:
            self._check(bundle, str((section or {}).get("precision", "fp32")))
        except EngineError:
            self.close()
            raise

    def saliency(self, inputs_nchw: npt.NDArray[np.float32]) -> Saliency:
        """(N, C, H, W) float32 network inputs → (N, H, W) float32 ≥ 0.

        1 is the peak that the strongest of twenty good images reaches; see `algan_trainer.saliency`.

        Raises:
            EngineError: The inference failed or gave something that is no map.
        """
        maps = self._graph.infer(inputs_nchw)["saliency"]
        if not (np.isfinite(maps).all() and (maps >= 0).all()):
            raise EngineError(f"{EXPLAIN}: expected finite values from 0, got {maps.min()} to {maps.max()}")
        return maps

    def close(self) -> None:
        """Frees the graph. May be called twice."""
        self._graph.close()

    def _check(self, bundle: Bundle, precision: str) -> None:
        golden = bundle.golden()
        found = self._graph.infer(golden.inputs)["logit"]
        difference = float(np.abs(found - golden.logits).max())
        allowed = bundle.manifest.tolerance.get(precision)
        if allowed is None:
            raise GateError(f"{bundle.path}: states no tolerance for {precision}; export the bundle again")
        if not difference <= allowed:
            raise GateError(
                f"{bundle.path / EXPLAIN}: its logits differ from the bundle's golden ones by "
                f"{difference:.3g} (allowed {allowed:.3g}); it explains another model, export the bundle "
                "again"
            )


class OverlayWriter:
    """Writes one picture for each explained verdict.

    Args:
        explainer: Makes the maps.
        folder: Where the pictures go; made when the first is written.
        everything: Explain every verdict that has a score, not only rejects.
    """

    def __init__(self, explainer: Explainer, folder: Path, *, everything: bool = False) -> None:
        self._explainer, self._folder, self._everything = explainer, folder, everything
        self._names: set[str] = set()

    def wants(self, verdict: BoxVerdict) -> bool:
        """Whether a verdict is to be explained."""
        return verdict.verdict is VerdictKind.REJECT or (self._everything and verdict.score is not None)

    def write(
        self,
        path: Path,
        image: Image,
        pixel_format: PixelFormat,
        inputs_nchw: npt.NDArray[np.float32],
        boxes: Mapping[int, Box | None],
    ) -> list[tuple[Path, tuple[float, float]]]:
        """Explains inputs made of one image.

        Args:
            path: The image's file; gives the pictures' names.
            image: (H, W, 3) or (H, W) uint8.
            pixel_format: Order of its last axis.
            inputs_nchw: (n, C, H, W) what `preprocess` made of it.
            boxes: For each input the box's number among the image's, and the box; None is the whole image.

        Returns:
            For each input the picture's path, and the peak (x, y) in the image's pixels.

        Raises:
            InputError: A picture cannot be written.
        """
        written = []
        maps = self._explainer.saliency(inputs_nchw)
        for saliency, (number, box) in zip(maps, boxes.items(), strict=True):
            suffix = "" if box is None else f".box{number}"
            target = self._folder / self._unused(f"{path.stem}{suffix}.explained")
            write_png(target, overlay(image, saliency, pixel_format=pixel_format, box=box))
            written.append((target, peak_xy_px(saliency, image, box)))
        return written

    def _unused(self, stem: str) -> str:
        """Files of one name in several folders must not replace each other's pictures."""
        name, count = f"{stem}.png", 1
        while name in self._names:
            count += 1
            name = f"{stem}-{count}.png"
        self._names.add(name)
        return name


def peak_xy_px(saliency: Saliency, image: Image, box: Box | None = None) -> tuple[float, float]:
    """Where a map (H, W) is highest: (x, y) in the image's pixels, the middle of the map's cell."""
    row, column = np.unravel_index(int(saliency.argmax()), saliency.shape)
    x0, y0, x1, y1 = _on_image(box, image)
    x = x0 + (float(column) + 0.5) * (x1 - x0) / saliency.shape[1]
    y = y0 + (float(row) + 0.5) * (y1 - y0) / saliency.shape[0]
    return round(x, 2), round(y, 2)


def on_pixels(saliency: Saliency, image: Image, box: Box | None = None) -> Saliency:
    """A map (H, W) at the image's own resolution, bilinear, in its box; 0 outside of it."""
    import cv2

    x0, y0, x1, y1 = _on_image(box, image)
    height, width = image.shape[:2]
    per_x, per_y = saliency.shape[1] / (x1 - x0), saliency.shape[0] / (y1 - y0)
    # From an image's pixel to the map's: both count pixel centres at ½.
    to_map = np.array([(per_x, 0, (0.5 - x0) * per_x - 0.5), (0, per_y, (0.5 - y0) * per_y - 0.5)])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    whole = cv2.warpAffine(saliency, to_map, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    out = np.zeros((height, width), np.float32)
    part = (slice(int(y0), int(np.ceil(y1))), slice(int(x0), int(np.ceil(x1))))
    out[part] = whole[part]
    return out


def overlay(
    image: Image, saliency: Saliency, *, pixel_format: PixelFormat = "bgr8", box: Box | None = None
) -> Image:
    """Lays a map over the image that it explains.

    The scale is that of the map itself from 0 to its peak, but at least to 1, the level of good images: what
    is weaker than in most good images stays faint.

    Args:
        image: (H, W, 3) or (H, W) uint8; is not changed.
        saliency: (h, w) float32 ≥ 0.
        pixel_format: Order of the image's last axis.
        box: The part of the image that the map shows; None for all of it.

    Returns:
        (H, W, 3) uint8, blue, green, red, as OpenCV has it; box and peak are marked.
    """
    import cv2

    conversion = {"grey8": cv2.COLOR_GRAY2BGR, "rgb8": cv2.COLOR_RGB2BGR}.get(pixel_format)
    picture = np.array(image) if conversion is None else cv2.cvtColor(image, conversion)
    level = on_pixels(saliency, image, box) / max(1.0, float(saliency.max()))
    level = np.clip(level, 0.0, 1.0)
    # Opaque only where it matters: weak saliency hides nothing of the part.
    opacity = (_OPACITY * np.sqrt(level) * np.clip(level * 4.0, 0.0, 1.0))[..., None]
    heat = _colours_bgr()[np.rint(level * 255.0).astype(np.uint8)]
    mixed = np.rint(picture * (1.0 - opacity) + heat * opacity).astype(np.uint8)
    thickness = max(1, round(min(image.shape[:2]) / 300))
    if box is not None:
        x0, y0, x1, y1 = (round(edge) for edge in _on_image(box, image))
        cv2.rectangle(mixed, (x0, y0), (x1 - 1, y1 - 1), _BOX_BGR, thickness)
    x, y = peak_xy_px(saliency, image, box)
    radius = max(4, round(min(image.shape[:2]) / 30))
    cv2.circle(mixed, (int(x), int(y)), radius, _PEAK_BGR, thickness, cv2.LINE_AA)
    return np.asarray(mixed, np.uint8)


def write_png(path: Path, picture_bgr: Image) -> None:
    """Writes a picture, and the folder that it lies in.

    Raises:
        InputError: It cannot be written.
    """
    import cv2

    try:
        ok, data = cv2.imencode(".png", picture_bgr)
    except cv2.error as error:
        raise InputError(f"{path}: OpenCV cannot encode {picture_bgr.shape}: {error.err}") from error
    if not ok:
        raise InputError(f"{path}: OpenCV cannot encode a picture of shape {picture_bgr.shape}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.tobytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from error


@lru_cache(maxsize=1)
def _colours_bgr() -> Image:
    """(256, 3) uint8: the anchors, joined by straight lines in OKLab (Ottosson 2020), as sRGB."""
    anchors = np.array(_ANCHORS_OKLAB)
    at = np.linspace(0.0, len(anchors) - 1.0, 256)
    lab = np.stack([np.interp(at, np.arange(len(anchors)), anchors[:, i]) for i in range(3)], axis=1)
    to_lms = np.array(
        [(1, 0.3963377774, 0.2158037573), (1, -0.1055613458, -0.0638541728), (1, -0.0894841775, -1.291485548)]
    )
    to_rgb = np.array(
        [
            (4.0767416621, -3.3077115913, 0.2309699292),
            (-1.2684380046, 2.6097574011, -0.3413193965),
            (-0.0041960863, -0.7034186147, 1.707614701),
        ]
    )
    linear = np.clip((lab @ to_lms.T) ** 3 @ to_rgb.T, 0.0, 1.0)
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray(np.rint(srgb[:, ::-1] * 255.0), np.uint8)


def _on_image(box: Box | None, image: Image) -> Box:
    """The box cut to the image, as preprocessing cuts it."""
    height, width = image.shape[:2]
    if box is None:
        return 0.0, 0.0, float(width), float(height)
    x0, y0, x1, y1 = box
    return max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))


def _why_not(bundle: Bundle) -> str:
    kind = bundle.manifest.model_kind
    if kind != "algan-image":
        return (
            f"{bundle.path}: explanations are not available for a model of kind {kind}: its "
            "discriminator sees features, not places in the image; only algan-image has them"
        )
    return (
        f"{bundle.path}: holds no {EXPLAIN}, which explanations need: an older version exported it; "
        "give it one with `algan-stream add-explanation`, or export it again"
    )
