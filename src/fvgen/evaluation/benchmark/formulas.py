"""Work of the plane sweep and of the splatter by formula: their loops depend on the data and cannot be traced."""

import math

from fvgen.evaluation.benchmark.counting import Work

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


def splat_work(points: int, width: int, height: int, supersample: int = 2, radius: float = 1.0) -> Work:
    """One frame of the guide (`fvgen.rendering.splat.render_surface`).

    Every point is projected; tested at each pixel of the window that its disc can reach; and blended where it is, in
    ``pi radius^2`` pixels on average. All points are taken to be in view. Both passes test and blend, only the second
    one sums.

    Args:
        points: in the cloud.
        width, height: of the frame in pixels.
        supersample: the picture is rendered this many times larger.
        radius: of a point, in pixels of the larger picture.
    """
    window = (math.ceil(2 * radius) + 1) ** 2
    each = _PROJECT + window * _TEST + math.pi * radius**2 * _BLEND
    pixels = width * height * supersample**2
    moved = points * _POINT_BYTES + pixels * _PIXEL_BYTES
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
    """Plane sweep of one photo and splatting of one frame, where every pixel of every depth map becomes a point.

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
    return [sweep, splat_work(photos * wide * high, *size)]
