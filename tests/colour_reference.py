"""Red, green and blue bytes of every camera format, in NumPy and as plainly as possible."""

import numpy as np

BAYER_RED = {"bayer_rggb8": (0, 0), "bayer_bggr8": (1, 1), "bayer_grbg8": (0, 1), "bayer_gbrg8": (1, 0)}
# Weights of red and blue in luma, and whether Y runs from 16 to 235.
YUV = {
    "bt601": (0.299, 0.114, True),
    "bt601_full": (0.299, 0.114, False),
    "bt709": (0.2126, 0.0722, True),
    "bt709_full": (0.2126, 0.0722, False),
}


def multiply(a, b):
    """(a * b) / 2^15, rounded."""
    return (a * b + (1 << 14)) >> 15


def yuv_planes_to_rgb(y, u, v, yuv):
    """In 16-bit fixed point; the factors are the textbook's, rounded."""
    red, blue, limited = YUV[yuv]
    green = 1 - red - blue
    luma_gain, colour_gain = (255 / 219, 255 / 224) if limited else (1.0, 1.0)
    scale = colour_gain * 64 * 128
    y, u, v = (plane.astype(np.int64) for plane in (y, u, v))
    luma = multiply(np.maximum(y - (16 if limited else 0), 0) * 128, round(luma_gain * 64 * 256)) + 32
    u, v = (u - 128) * 256, (v - 128) * 256
    r = luma + multiply(v, round(2 * (1 - red) * scale))
    g = (
        luma
        - multiply(u, round(2 * blue * (1 - blue) / green * scale))
        - multiply(v, round(2 * red * (1 - red) / green * scale))
    )
    b = luma + multiply(u, round(2 * (1 - blue) * scale))
    return np.clip(np.stack([r, g, b], axis=-1) >> 6, 0, 255).astype(np.uint8)


def split_yuv(image, pixel_format):
    """Y, U and V, each of the picture's size."""
    if pixel_format in ("yuyv", "uyvy"):
        luma = 0 if pixel_format == "yuyv" else 1
        pairs = image[:, :, 1 - luma]
        return image[:, :, luma], pairs[:, 0::2].repeat(2, axis=1), pairs[:, 1::2].repeat(2, axis=1)
    height, width = image.shape[0] // 3 * 2, image.shape[1]
    rest = image[height:]
    if pixel_format == "i420":
        planes = np.ascontiguousarray(rest).reshape(2, height // 2, width // 2)
        u, v = planes
    else:
        u, v = rest[:, 0::2], rest[:, 1::2]
        if pixel_format == "nv21":
            u, v = v, u
    return image[:height], *(c.repeat(2, axis=0).repeat(2, axis=1) for c in (u, v))


def mirrored_means(image, offsets):
    """Rounded mean of the neighbours at the offsets; mirrored at the edges without repeating them."""
    padded = image.astype(np.int64)
    for axis, length in enumerate(image.shape):
        pads = [(1, 1) if a == axis else (0, 0) for a in (0, 1)]
        padded = np.pad(padded, pads, mode="reflect" if length > 1 else "edge")
    height, width = image.shape
    shifted = [padded[1 + y : 1 + y + height, 1 + x : 1 + x + width] for y, x in offsets]
    return (sum(shifted) + len(offsets) // 2) // len(offsets)


def bayer_to_rgb(image, pixel_format):
    beside = mirrored_means(image, [(0, -1), (0, 1)])
    upright = mirrored_means(image, [(-1, 0), (1, 0)])
    cross = mirrored_means(image, [(0, -1), (0, 1), (-1, 0), (1, 0)])
    corners = mirrored_means(image, [(-1, -1), (-1, 1), (1, -1), (1, 1)])
    red_row, red_column = BAYER_RED[pixel_format]
    rows, columns = np.indices(image.shape)
    in_red_row, in_red_column = rows % 2 == red_row, columns % 2 == red_column
    green = in_red_row != in_red_column
    is_red, is_blue = in_red_row & in_red_column, ~in_red_row & ~in_red_column
    r = np.select([is_red, is_blue, green & in_red_row], [image, corners, beside], upright)
    b = np.select([is_blue, is_red, green & in_red_row], [image, corners, upright], beside)
    return np.stack([r, np.where(green, image, cross), b], axis=-1).astype(np.uint8)


def to_rgb(image, pixel_format, yuv="bt601", white_level=65535):
    """uint8 (H, W, 3)."""
    if pixel_format in ("rgb8", "rgba8"):
        return image[:, :, :3]
    if pixel_format in ("bgr8", "bgra8"):
        return image[:, :, 2::-1]
    if pixel_format in BAYER_RED:
        return bayer_to_rgb(image, pixel_format)
    if pixel_format == "grey16":
        scaled = (510 * image.astype(np.int64) + white_level) // (2 * white_level)
        image = np.minimum(scaled, 255).astype(np.uint8)
    if pixel_format in ("grey8", "grey16"):
        return image[:, :, None].repeat(3, axis=2)
    return yuv_planes_to_rgb(*split_yuv(image, pixel_format), yuv)
