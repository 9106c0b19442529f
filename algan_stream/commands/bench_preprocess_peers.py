"""Other ways from a camera's frame to network input, as their users write them. One thread each."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from algan_stream.commands.bench_preprocess_cases import Case

Image = npt.NDArray[np.uint8]
Planes = npt.NDArray[np.float32]
Peer = Callable[[Any], object]


#: What the peers import, as far as it is installed.
MODULES = ("cv2", "torchvision.transforms.v2", "albumentations", "kornia_rs", "nvidia.dali")


def peers(case: Case) -> dict[str, Peer]:
    """The peers that are installed, each a function of a frame in the camera's format."""
    known: dict[str, tuple[str, Callable[[Case], Peer]]] = {
        "opencv+numpy": ("cv2", _opencv_numpy),
        "blobfromimages": ("cv2", _blob),
        "torchvision v2": ("torchvision", _torchvision),
        "albumentations": ("albumentations", _albumentations),
        "kornia-rs": ("kornia_rs", _kornia_rs),
        "dali cpu": ("nvidia.dali", _dali),
    }
    return {
        name: make(case)
        for name, (module, make) in known.items()
        if _installed(module)
        and not (name == "kornia-rs" and case.downscale == "area")  # it does not average
    }


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _to_bgr(case: Case) -> Callable[[Any], Image]:
    """The conversion before everything else: OpenCV's, where the frame is not BGR yet."""
    import cv2

    codes = {
        "bgra8": cv2.COLOR_BGRA2BGR,
        "grey8": cv2.COLOR_GRAY2BGR,
        "bayer_rggb8": cv2.COLOR_BayerRGGB2BGR,
        "nv12": cv2.COLOR_YUV2BGR_NV12,
        "yuyv": cv2.COLOR_YUV2BGR_YUYV,
    }
    if case.pixel_format == "bgr8":
        return lambda frame: frame
    if case.pixel_format == "grey16":
        grey8: Callable[[Any], Any] = lambda frame: cv2.convertScaleAbs(frame, alpha=255 / 65535)  # noqa: E731
        return lambda frame: np.asarray(cv2.cvtColor(grey8(frame), cv2.COLOR_GRAY2BGR), np.uint8)
    return lambda frame: np.asarray(cv2.cvtColor(frame, codes[case.pixel_format]), np.uint8)


def _pooled(planes: npt.NDArray[Any]) -> Planes:
    axis = planes.ndim - 3
    highest, average = planes.max(axis=axis, keepdims=True), planes.mean(axis=axis, keepdims=True)
    return np.concatenate([planes, highest, average], axis=axis)


def _opencv_numpy(case: Case) -> Peer:
    """As most people write it."""
    import cv2

    filter_ = cv2.INTER_AREA if case.downscale == "area" else cv2.INTER_LINEAR
    mean, std = np.array(case.spec.mean, np.float32), np.array(case.spec.std, np.float32)
    to_bgr, size = _to_bgr(case), (case.side_px, case.side_px)

    def one(crop: Image) -> Planes:
        rgb = cv2.cvtColor(cv2.resize(crop, size, interpolation=filter_), cv2.COLOR_BGR2RGB)
        return _pooled(((rgb.astype(np.float32) / 255 - mean) / std).transpose(2, 0, 1))

    return lambda frame: np.stack([one(crop) for crop in case.crops(to_bgr(frame))])


def _blob(case: Case) -> Peer:
    """As OpenCV's own helper for networks does it, which needs the same std for all channels."""
    import cv2

    to_bgr, size = _to_bgr(case), (case.side_px, case.side_px)
    mean, scale = [255 * m for m in case.spec.mean], 1 / (255 * case.spec.std[0])

    def run(frame: Any) -> Planes:
        crops: list[Any] = [*case.crops(to_bgr(frame))]  # Any: OpenCV's stubs know no particular dtype
        if case.downscale == "area":
            crops = [cv2.resize(crop, size, interpolation=cv2.INTER_AREA) for crop in crops]
        blob = cv2.dnn.blobFromImages(crops, scalefactor=scale, size=size, mean=mean, swapRB=True)
        return _pooled(np.asarray(blob, np.float32))

    return run


def _torchvision(case: Case) -> Peer:
    """Its functional transforms on uint8 tensors; `antialias` is its filter for shrinking."""
    torch: Any = importlib.import_module("torch")
    functional: Any = importlib.import_module("torchvision.transforms.v2.functional")

    torch.set_num_threads(1)
    to_bgr, size = _to_bgr(case), [case.side_px, case.side_px]
    antialias, mean, std = case.downscale == "area", list(case.spec.mean), list(case.spec.std)

    def one(crop: Image) -> Any:
        rgb = torch.from_numpy(crop).permute(2, 0, 1).flip(0)
        small = functional.resize(rgb, size, antialias=antialias)
        scaled = functional.to_dtype(small, torch.float32, scale=True)
        planes = functional.normalize(scaled, mean, std)
        return torch.cat([planes, planes.amax(0, keepdim=True), planes.mean(0, keepdim=True)])

    return lambda frame: torch.stack([one(crop) for crop in case.crops(to_bgr(frame))])


def _albumentations(case: Case) -> Peer:
    import albumentations
    import cv2

    filter_ = cv2.INTER_AREA if case.downscale == "area" else cv2.INTER_LINEAR
    transform = albumentations.Compose(
        [
            albumentations.Resize(case.side_px, case.side_px, interpolation=filter_),
            albumentations.Normalize(case.spec.mean, case.spec.std),
        ]
    )
    to_bgr = _to_bgr(case)

    def one(crop: Image) -> Planes:
        rgb = cv2.cvtColor(np.ascontiguousarray(crop), cv2.COLOR_BGR2RGB)
        return _pooled(np.asarray(transform(image=rgb)["image"], np.float32).transpose(2, 0, 1))

    return lambda frame: np.stack([one(crop) for crop in case.crops(to_bgr(frame))])


def _kornia_rs(case: Case) -> Peer:
    """Bilinear; it has no filter that averages."""
    import cv2
    import kornia_rs

    mean, std = np.array(case.spec.mean, np.float32), np.array(case.spec.std, np.float32)
    to_bgr = _to_bgr(case)
    resize = getattr(kornia_rs, "resize", None) or kornia_rs.imgproc.resize

    def one(crop: Image) -> Planes:
        small = np.asarray(resize(np.ascontiguousarray(crop), (case.side_px, case.side_px), "bilinear"))
        rgb = cv2.cvtColor(small, cv2.COLOR_BGR2RGB)
        return _pooled(((rgb.astype(np.float32) / 255 - mean) / std).transpose(2, 0, 1))

    return lambda frame: np.stack([one(crop) for crop in case.crops(to_bgr(frame))])


def _dali(case: Case) -> Peer:
    """A pipeline on one CPU thread, fed by reference."""
    from nvidia.dali import fn, pipeline_def, types

    to_bgr = _to_bgr(case)
    count = max(1, case.count)
    current: list[Image] = []

    # Not ahead of time: a batch that is made while others are being measured would cost nothing.
    @pipeline_def(  # type: ignore[untyped-decorator]
        batch_size=count,
        num_threads=1,
        device_id=None,
        exec_async=False,
        exec_pipelined=False,
        exec_dynamic=False,
        prefetch_queue_depth=1,
    )
    def build() -> Any:
        crops = fn.external_source(source=lambda: current, batch=True, no_copy=True)
        resized = fn.resize(
            crops,
            resize_x=case.side_px,
            resize_y=case.side_px,
            antialias=case.downscale == "area",
            interp_type=types.INTERP_LINEAR,
        )
        rgb = fn.color_space_conversion(resized, image_type=types.BGR, output_type=types.RGB)
        return fn.crop_mirror_normalize(
            rgb,
            mean=[255 * m for m in case.spec.mean],
            std=[255 * s for s in case.spec.std],
            output_layout="CHW",
        )

    pipeline = build()
    pipeline.build()

    def run(frame: Any) -> Planes:
        current[:] = [np.ascontiguousarray(crop) for crop in case.crops(to_bgr(frame))]
        (planes,) = pipeline.run()
        return _pooled(np.asarray(planes.as_array(), np.float32))

    return run
