"""What `preprocess` must compute, in float64 NumPy and as plainly as possible."""

import numpy as np


def area_weights(start, step, i, lowest, highest):
    """Coverage of each source pixel by [start + i*step, start + (i+1)*step), normalised."""
    pixels = np.arange(lowest, highest + 1)
    lower, upper = start + i * step, start + (i + 1) * step
    coverage = np.clip(np.minimum(pixels + 1, upper) - np.maximum(pixels, lower), 0, None)
    return coverage / coverage.sum()


def bilinear_weights(start, step, i, lowest, highest):
    """Two taps around the centre of output i; taps outside the crop count for its last pixel."""
    centre = start + (i + 0.5) * step - 0.5
    below = int(np.floor(centre))
    weights = np.zeros(highest - lowest + 1)
    for tap, weight in ((below, below + 1 - centre), (below + 1, centre - below)):
        weights[min(max(tap, lowest), highest) - lowest] += weight
    return weights


def axis_matrix(start, end, size, downscale):
    """(size, pixels) weights of one axis, and the pixels they belong to as (first, last + 1)."""
    step = (end - start) / size
    lowest, highest = int(np.floor(start)), int(np.ceil(end)) - 1
    weights = area_weights if step > 1 and downscale == "area" else bilinear_weights
    return np.array([weights(start, step, i, lowest, highest) for i in range(size)]), (lowest, highest + 1)


def reference(image, spec, pixel_format="bgr8", boxes=None):
    """float64 (N, C, height_px, width_px)."""
    if image.ndim == 2:
        image = np.repeat(image[:, :, None], 3, axis=2)
    rgb = (image[:, :, ::-1] if pixel_format == "bgr8" else image).astype(np.float64)
    height, width = rgb.shape[:2]
    outputs = []
    for x_min, y_min, x_max, y_max in [(0, 0, width, height)] if boxes is None else boxes.tolist():
        x_weights, (left, right) = axis_matrix(
            max(x_min, 0), min(x_max, width), spec.width_px, spec.downscale
        )
        y_weights, (top, bottom) = axis_matrix(
            max(y_min, 0), min(y_max, height), spec.height_px, spec.downscale
        )
        resized = np.einsum(
            "yh,hwc,xw->cyx", y_weights, rgb[top:bottom, left:right], x_weights, optimize=True
        )
        planes = (resized / 255 - np.reshape(spec.mean, (3, 1, 1))) / np.reshape(spec.std, (3, 1, 1))
        if spec.pooled_channels:
            planes = np.concatenate([planes, planes.max(0, keepdims=True), planes.mean(0, keepdims=True)])
        outputs.append(planes)
    return np.stack(outputs) if outputs else np.empty((0, *spec.shape_chw))
