"""The guide of a camera path: renders of the points with the photos at their own frames."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from fvgen.cameras import Cameras
from fvgen.progress import track
from fvgen.rendering.exposure import exposure_levels
from fvgen.rendering.holes import complete_picture
from fvgen.rendering.splat import render_points, render_surface

GuideKind = Literal["surface", "points"]

_COVERED = 0.5  # share of the larger picture's pixels that must be known
_HINTED = 0.25
_LEAST_TRUST = 0.05  # of guessed depth
_LEAST_WEIGHT = 3e-3  # below this only distrusted points are there, and a smooth fill is closer to the truth
_NEAR = 0.05
_OPAQUE = 0.5  # accumulated opacity from which points cover a pixel
_LONGEST_SPLAT = 512  # pixels: the teacher's points are splatted at DUSt3R's size and enlarged from there


@dataclass(frozen=True)
class Guide:
    """What the model is shown for each frame of a path.

    Attributes:
        completed: ``[F, H, W, 3]`` float32 0..1, what is shown. Of kind ``"surface"``: measured points, where there
            are none guessed ones, and where there is nothing at all what is likely on average. Of kind ``"points"``:
            the teacher's splatting of measured points over black. Photographs at their own frames.
        coverage: ``[F, H, W]`` bool, True where measured points (or a photo) cover the pixel.
        known: ``[F, H, W]`` bool, where measured or guessed points do; of points the same as ``coverage``.
        depth: ``[F, H, W]`` float32 z-depth of the points, 0 where none; also under photos.
        cameras: ``F`` cameras.
        photo: for each frame the index of the photo shown there, or ``None``.
        kind: see ``completed``.
    """

    completed: Tensor
    coverage: Tensor
    known: Tensor
    depth: Tensor
    cameras: Cameras
    photo: list[int | None]
    kind: GuideKind = "surface"

    @property
    def images(self) -> Tensor:
        """``[F, H, W, 3]`` what was measured, black elsewhere; points as they are, with their faint rims."""
        return self.completed if self.kind == "points" else self.completed * self.coverage[..., None]

    def to(self, device: torch.device | str) -> "Guide":
        """The pictures on another device; cameras stay where they are."""
        moved = {name: getattr(self, name).to(device) for name in ("completed", "coverage", "known", "depth")}
        return replace(self, **moved)


def resample_photo(image: Tensor, box: tuple[float, float, float, float], width: int, height: int) -> Tensor:
    """Cut ``box`` (left, top, right, bottom in pixels) out of a uint8 ``[H, W, 3]`` photo, antialiased.

    Returns:
        ``[height, width, 3]`` float32 0..1.
    """
    from PIL import Image

    picture = Image.fromarray(image.cpu().numpy())
    cut = picture.resize((width, height), Image.Resampling.LANCZOS, box=box)
    return torch.frombuffer(bytearray(cut.tobytes()), dtype=torch.uint8).view(height, width, 3).float() / 255


def nearness(centers: Tensor, eye: Tensor, power: int) -> Tensor:
    """How much each photo's points count in a picture taken at ``eye``: ``[K]``, the nearest photo has 1.

    Points of the nearer photo are seen from nearly the same side and at nearly the same scale, so their errors
    shift least. The weight falls with the distance to this ``power``.
    """
    distance = (centers - eye).norm(dim=1)
    share = (distance / distance.max().clamp_min(1e-12) + _NEAR).pow(-power)
    return share / share.max()


@dataclass(frozen=True)
class _Frame:
    """One frame of a guide, without its photo: see :class:`Guide`."""

    image: Tensor
    coverage: Tensor
    known: Tensor
    depth: Tensor


def _surface_frame(
    positions: Tensor, colors: Tensor, weights: Tensor, measured: Tensor, camera: Cameras, scale: int, complete: bool
) -> _Frame:
    """The nearest surface, rendered ``scale`` times larger and averaged down; holes stay black unless ``complete``."""
    width, height = camera.size
    attributes = torch.cat([colors, measured[:, None].to(colors)], 1)
    large = camera.resized(width * scale, height * scale)
    surface = render_surface(positions, attributes, weights, large, tolerance=0.05)
    values = torch.cat([surface.image, surface.depth[..., None]], -1)
    mean, share = _averaged(values, surface.weight > _LEAST_WEIGHT, scale)
    known = share > _COVERED
    color, from_measured, depth = mean.split([3, 1, 1], -1)
    image = color * known[..., None]
    if complete:
        hints, seen = _averaged(values[..., :3], surface.weight > 0, scale)
        image = complete_picture(image[None], known[None], hints[None], (seen > _HINTED)[None])[0]
    return _Frame(image, known & (from_measured[..., 0] > 0.5), known, depth[..., 0] * known)


def _averaged(values: Tensor, mask: Tensor, scale: int) -> tuple[Tensor, Tensor]:
    """Mean of the masked pixels of each ``scale`` x ``scale`` cell of ``[H, W, C]``, and the share that is masked."""
    weight = mask[..., None].to(values)
    pooled = F.avg_pool2d(torch.cat([values * weight, weight], -1).movedim(-1, 0)[None], scale)[0].movedim(0, -1)
    share = pooled[..., -1]
    return pooled[..., :-1] / share.clamp_min(1e-6)[..., None], share


def _point_frame(positions: Tensor, colors: Tensor, camera: Cameras) -> _Frame:
    """The teacher's splatting, at its size of at most 512 pixels and enlarged bilinearly."""
    width, height = camera.size
    scale = min(1.0, _LONGEST_SPLAT / max(width, height))
    rendered = render_points(positions, colors, camera.resized(round(width * scale), round(height * scale)))
    picture = torch.cat([rendered.image, rendered.alpha[..., None]], -1).movedim(-1, 1)
    depth = rendered.depth[:, None]
    if scale < 1:
        picture = F.interpolate(picture, (height, width), mode="bilinear", align_corners=False)
        depth = F.interpolate(depth, (height, width), mode="nearest-exact")  # no mean of near and far
    color, alpha = picture[0].movedim(0, -1).split([3, 1], -1)
    covered = alpha[..., 0] >= _OPAQUE
    return _Frame(color, covered, covered, depth[0, 0])


def render_guide(
    positions: Tensor,
    colors: Tensor,
    path: Cameras,
    path_photo: Sequence[int | None],
    images: Sequence[Tensor],
    photo_cameras: Cameras,
    *,
    kind: GuideKind = "surface",
    point_photo: Tensor | None = None,
    confidence: Tensor | None = None,
    measured: Tensor | None = None,
    supersample: int = 2,
) -> Guide:
    """Render the guide of a path, on the device of the points.

    ``"surface"``: at each pixel the points of the nearest surface are averaged, weighted by their confidence and by how
    near their photo was taken to the frame's camera; pictures are rendered larger and averaged down. Where the photos
    differ in exposure, each frame takes one between its nearest photos', so that no seams show and photos fit their
    neighbours. What no measured point covers is completed from guessed points and smooth colour (see :class:`Guide`).

    ``"points"``: what ViewCrafter's models are shown. Measured points, in the colours they have and all with the same
    weight, as :func:`render_points` composites them over black; where the picture is longer than 512 pixels, at that
    length and enlarged bilinearly, as the original does with the points of DUSt3R. A pixel is covered where their
    opacity is at least a half. The same picture every time, on every device.

    Args:
        positions: ``[P, 3]`` world points.
        colors: ``[P, 3]`` uint8 or float 0..1.
        path: ``F`` cameras of one size, the model's.
        path_photo: for each frame the index of the photo whose (covering) camera it is, or ``None``.
        images: the photos, uint8 ``[H, W, 3]``.
        photo_cameras: their cameras at full size.
        kind: see above.
        point_photo: ``[P]`` index of the photo each point came from; it weighs and shades the points of surfaces.
        confidence: ``[P]`` trust in each point, 0..1, by default 1; it weighs the points of surfaces.
        measured: ``[P]`` bool, False for points of guessed depth; by default none is.
        supersample: surfaces are rendered this many times larger and averaged down.
    """
    width, height = path.size
    if colors.dtype == torch.uint8:
        colors = colors.float() / 255
    if measured is None:
        measured = positions.new_ones(len(positions), dtype=torch.bool)
    frames: Iterator[_Frame]
    if kind == "points":
        seen, shades = positions[measured], colors[measured]
        frames = (_point_frame(seen, shades, path[i]) for i in range(len(path)))
    else:
        weights = positions.new_ones(len(positions), dtype=torch.float32)
        if confidence is not None:
            weights = confidence.float().clamp_min(_LEAST_TRUST)
        cloud = (positions, colors, weights, measured, point_photo)
        frames = _surface_frames(*cloud, path, path_photo, photo_cameras, supersample)
    boxes = photo_cameras.covering(width, height)[1]
    pictures, covered, knowns, depths = [], [], [], []
    for shown, frame in zip(path_photo, track(frames, "guide", total=len(path)), strict=True):
        if shown is None:
            pictures.append(frame.image)
            covered.append(frame.coverage)
        else:
            pictures.append(resample_photo(images[shown], boxes[shown], width, height).to(frame.image))
            covered.append(torch.ones_like(frame.coverage))
        knowns.append(frame.known | covered[-1])
        depths.append(frame.depth)
    stacked = torch.stack(pictures), torch.stack(covered), torch.stack(knowns), torch.stack(depths)
    return Guide(*stacked, path, list(path_photo), kind)


def _surface_frames(
    positions: Tensor,
    colors: Tensor,
    trust: Tensor,
    measured: Tensor,
    point_photo: Tensor | None,
    path: Cameras,
    path_photo: Sequence[int | None],
    photo_cameras: Cameras,
    scale: int,
) -> Iterator[_Frame]:
    """The path's frames, each in the exposure of its nearest photos; holes are filled where no photo is shown."""
    levels = None if point_photo is None else exposure_levels(positions, colors, point_photo, photo_cameras)
    for i, shown in enumerate(path_photo):
        shades, weights = colors, trust
        if point_photo is not None and levels is not None:
            near = nearness(photo_cameras.centers, path.centers[i], 4).to(trust)
            weights = trust * near[point_photo]
            share = nearness(photo_cameras.centers, path.centers[i], 1).to(levels)
            level = (share[:, None] * levels).sum(0) / share.sum()
            shades = (colors * torch.exp(level - levels)[point_photo]).clamp(max=1)
        yield _surface_frame(positions, shades, weights, measured, path[i], scale, shown is None)
