"""What `preprocess` must compute, in float64 NumPy and as plainly as possible."""

import runpy
from pathlib import Path

import numpy as np

to_rgb = runpy.run_path(str(Path(__file__).with_name("colour_reference.py")))["to_rgb"]


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


def turned_matrix(box, region, downscale, shape):
    """(height * width of the region, pixels) weights of the samples of a turned box."""
    x, y, box_width, box_height, angle = box
    (height, width), (rows, columns) = shape, region
    shrinks = downscale == "area"
    n_x = max(1, int(np.ceil(box_width / columns))) if shrinks else 1
    n_y = max(1, int(np.ceil(box_height / rows))) if shrinks else 1
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    weights = np.zeros((rows * columns, height * width))
    for j in range(rows * n_y):
        for i in range(columns * n_x):
            u = (i + 0.5) / (columns * n_x) * box_width - box_width / 2
            v = (j + 0.5) / (rows * n_y) * box_height - box_height / 2
            at_x, at_y = x + u * cos - v * sin - 0.5, y + u * sin + v * cos - 0.5
            left, top = np.floor(at_x), np.floor(at_y)
            for column, of_x in ((left, left + 1 - at_x), (left + 1, at_x - left)):
                for row, of_y in ((top, top + 1 - at_y), (top + 1, at_y - top)):
                    pixel = int(np.clip(row, 0, height - 1) * width + np.clip(column, 0, width - 1))
                    weights[j // n_y * columns + i // n_x, pixel] += of_x * of_y / (n_x * n_y)
    return weights


def crop(rgb, box, region, downscale):
    """(3, rows, columns) of an upright or turned box, resized."""
    if len(box) == 5:
        weights = turned_matrix(box, region, downscale, rgb.shape[:2])
        return (weights @ rgb.reshape(-1, 3)).T.reshape(3, *region)
    height, width = rgb.shape[:2]
    x_min, y_min, x_max, y_max = box
    x_weights, (left, right) = axis_matrix(max(x_min, 0), min(x_max, width), region[1], downscale)
    y_weights, (top, bottom) = axis_matrix(max(y_min, 0), min(y_max, height), region[0], downscale)
    return np.einsum("yh,hwc,xw->cyx", y_weights, rgb[top:bottom, left:right], x_weights, optimize=True)


def with_margin(box, margin, height, width):
    """The box, wider by its margin; an upright one is cut off at the image's edges."""
    if len(box) == 5:
        x, y, box_width, box_height, angle = box
        return x, y, box_width * (1 + 2 * margin), box_height * (1 + 2 * margin), angle
    x_min, y_min, x_max, y_max = box
    more_x, more_y = margin * (x_max - x_min), margin * (y_max - y_min)
    return (
        max(x_min - more_x, 0),
        max(y_min - more_y, 0),
        min(x_max + more_x, width),
        min(y_max + more_y, height),
    )


def region_of(spec, box):
    """Rows and columns of the slot that a crop fills, and where they start."""
    if spec.fit == "stretch":
        return (spec.height_px, spec.width_px), (0, 0)
    width, height = box[2:4] if len(box) == 5 else (box[2] - box[0], box[3] - box[1])
    scale = min(spec.width_px / width, spec.height_px / height)
    rows = min(max(int(np.floor(height * scale + 0.5)), 1), spec.height_px)
    columns = min(max(int(np.floor(width * scale + 0.5)), 1), spec.width_px)
    return (rows, columns), ((spec.height_px - rows) // 2, (spec.width_px - columns) // 2)


def reference(image, spec, pixel_format="bgr8", boxes=None, mask=None, yuv="bt601", raw=False):
    """float64 (N, C, height_px, width_px); `raw`: before normalisation."""
    rgb = to_rgb(image, pixel_format, yuv, spec.white_level).astype(np.float64)
    if mask is not None:
        rgb = np.where(np.asarray(mask, bool)[:, :, None], rgb, np.floor(spec.pad_level + 0.5))
    height, width = rgb.shape[:2]
    outputs = []
    for given in [(0, 0, width, height)] if boxes is None else boxes.tolist():
        box = given if boxes is None else with_margin(given, spec.box_margin, height, width)
        (rows, columns), (top, left) = region_of(spec, box)
        planes = np.full((3, spec.height_px, spec.width_px), float(spec.pad_level))
        planes[:, top : top + rows, left : left + columns] = crop(rgb, box, (rows, columns), spec.downscale)
        if not raw:
            planes = (planes / 255 - np.reshape(spec.mean, (3, 1, 1))) / np.reshape(spec.std, (3, 1, 1))
        pooled = {"max": [planes.max(0)], "mean": [planes.mean(0)], True: [planes.max(0), planes.mean(0)]}
        outputs.append(np.stack([*planes, *pooled.get(spec.pooled_channels, [])]))
    return np.stack(outputs) if outputs else np.empty((0, *spec.shape_chw))
