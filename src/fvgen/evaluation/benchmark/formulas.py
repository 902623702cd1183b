"""Work of plane sweep, splatter and look-up by formula: their loops depend on the data and cannot be traced."""

import math

from fvgen.evaluation.benchmark.counting import Work
from fvgen.rendering.lookup import PHOTOS, SPLAT, supersampled

# Operations of one point before one camera: 3x3 rotation after a shift, intrinsics, division, bounds.
_PROJECT = 3 + 15 + 10 + 2 + 5
# Of one point at one pixel of its window: squared distance and five comparisons; and, where the disc holds the pixel,
# the depth test, the weight, and six weighted sums (three colours, measured or not, depth, weight).
_TEST = 6 + 5
_BLEND = 3 + 2 + 2 * 6
_POINT_BYTES = 12 + 12 + 4 + 1  # position, colour, trust, measured or not
_PIXEL_BYTES = 4 * 6  # colour, measured, depth, weight

# Operations of one pixel at one plane in one source: transfer, division, bilinear sample; and the normalised
# correlation of windows 5 and 15 wide: three separable box means each (8 + 1 and 4 + 1 additions), combined.
_WARP = 6 + 3 + 11
_CORRELATE = 2 + 3 * (9 + 5) + 2 * 9
_DIRECTIONS, _STEP = 8, 9  # of the semi-global aggregation, and operations of each at one pixel and plane
_PICK = 4

# Operations of one pixel in one photograph that is looked up: asking for its depth (there and back, two samples, a
# test, two sums), then once more there, a bicubic sample of three colours, two others, and four sums.
_TRANSFER, _SAMPLE = 6 + 3, 11
_LOOK = (2 * _TRANSFER + 2 * _SAMPLE + 8) + _TRANSFER + 3 * (16 * 2) + 2 * _SAMPLE + 8
_LOOK_BYTES = 4 * (3 + 1 + 1)  # colour, depth, trust


def lookup_work(photos: int, width: int, height: int) -> Work:
    """One frame of the guide, looked up in photographs (`fvgen.rendering.lookup`); its splatting is counted apart.

    Args:
        photos: that are looked up.
        width, height: of the frame in pixels.
    """
    moved = width * height * (photos * _LOOK_BYTES + 4.0 * 3)
    return Work("look-up, one frame", float(photos * width * height * _LOOK), moved, moved)


def splat_work(points: int, width: int, height: int, radius: float = 1.0) -> Work:
    """The surfaces that one frame of the guide sees (`fvgen.rendering.splat.render_surface`).

    Every point is projected; tested at each pixel of the window that its disc can reach; and blended where it is, in
    ``pi radius^2`` pixels on average. All points are taken to be in view. Both passes test and blend, only the second
    one sums.

    Args:
        points: in the cloud.
        width, height: of the splatted picture in pixels.
        radius: of a point, in pixels.
    """
    window = (math.ceil(2 * radius) + 1) ** 2
    each = _PROJECT + window * _TEST + math.pi * radius**2 * _BLEND
    moved = points * _POINT_BYTES + width * height * _PIXEL_BYTES
    return Work("splat, one frame", points * each, moved, moved)


def sweep_work(width: int, height: int, planes: int, sources: int) -> Work:
    """Depth of one photo (`fvgen.scene.sweep.sweep`).

    Each pixel is matched at each plane in each source; the volume of costs is aggregated along eight directions and
    searched. Bytes: the pictures once; the volume, far larger than a cache, written, read and written again by every
    direction (its cost read, its sum read and written), and read by the search.

    Args:
        width, height: of the depth map in pixels.
        planes: of inverse depth.
        sources: other photos it is matched with.
    """
    cells = width * height * planes
    flop = cells * (sources * (_WARP + _CORRELATE) + _DIRECTIONS * _STEP + _PICK)
    moved = 4.0 * width * height * (sources + 1) + 4.0 * cells * (1 + 3 * _DIRECTIONS + 1)
    return Work("plane sweep, one photo", flop, moved, moved)


def geometry_work(
    size: tuple[int, int], photos: int, planes: int, long_side: int = 512, most_sources: int = 4
) -> list[Work]:
    """Plane sweep of one photo, and of one frame splatting and look-up, where every pixel of a depth map is a point.

    Args:
        size: (width, height) of the views, whose shape the photos have.
        photos: how many there are.
        planes: of inverse depth.
        long_side: longer side of the depth maps in pixels.
        most_sources: other photos that a photo is matched with at most.
    """
    scale = long_side / max(size)
    wide, high = (round(side * scale) for side in size)
    sweep = sweep_work(wide, high, planes, min(photos - 1, most_sources))
    seen = min(photos, PHOTOS)
    large = supersampled(size)
    small = min(1.0, SPLAT / max(large))
    splat = splat_work(seen * wide * high, round(large[0] * small), round(large[1] * small))
    return [sweep, splat, lookup_work(seen, *large)]
