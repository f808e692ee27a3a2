"""Pictures of environments in numpy: lines and discs with soft edges."""

from __future__ import annotations

import numpy as np

from evolution.environments.environment import Array

Colour = tuple[int, int, int]

WHITE: Colour = (255, 255, 255)
INK: Colour = (34, 34, 34)
FAINT: Colour = (150, 150, 150)
BLUE: Colour = (59, 110, 165)
RED: Colour = (209, 73, 91)
GREEN: Colour = (34, 136, 51)


def blank(height: int, width: int) -> Array:
    """Return a white picture, uint8 of shape (height, width, 3)."""
    return np.full((height, width, 3), 255, np.uint8)


def line(
    picture: Array, start: tuple[float, float], end: tuple[float, float], width: float, colour: Colour
) -> None:
    """Draw a line with round ends into a picture; what lies outside is left out.

    Args:
        picture: uint8, shape (height, width, 3).
        start: x and y, in pixels from the top left corner.
        end: The same; for a disc, `start` again.
        width: In pixels.
        colour: Red, green and blue.

    Example:
        >>> picture = blank(5, 5)
        >>> line(picture, (2.5, -1.0), (2.5, 9.0), 1.0, (0, 0, 0))
        >>> picture[2, :, 0].tolist()
        [255, 255, 0, 255, 255]
    """
    (x1, y1), (x2, y2) = start, end
    reach = width / 2 + 1
    rows = _span(min(y1, y2) - reach, max(y1, y2) + reach, picture.shape[0])
    columns = _span(min(x1, x2) - reach, max(x1, x2) + reach, picture.shape[1])
    y = np.arange(rows.start, rows.stop)[:, None] + 0.5 - y1
    x = np.arange(columns.start, columns.stop)[None, :] + 0.5 - x1
    square = (x2 - x1) ** 2 + (y2 - y1) ** 2
    share = np.clip((x * (x2 - x1) + y * (y2 - y1)) / square, 0, 1) if square else 0.0
    apart = np.hypot(x - share * (x2 - x1), y - share * (y2 - y1))
    cover = np.clip(width / 2 + 0.5 - apart, 0, 1)[..., None]
    part = picture[rows, columns]
    part[...] = np.rint(part + cover * (np.array(colour) - part.astype(np.float64)))


def _span(low: float, high: float, size: int) -> slice:
    first = min(max(int(np.floor(low)), 0), size)
    return slice(first, min(max(int(np.ceil(high)), first), size))
