"""The guide of a camera path: point renders with the photos at their own frames."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from fvgen.cameras import Cameras
from fvgen.progress import track
from fvgen.rendering.exposure import exposure_levels
from fvgen.rendering.holes import complete_picture
from fvgen.rendering.splat import render_surface

_COVERED = 0.5  # share of the larger picture's pixels that must be known
_HINTED = 0.25
_LEAST_TRUST = 0.05  # of guessed depth
_LEAST_WEIGHT = 3e-3  # below this only distrusted points are there, and a smooth fill is closer to the truth
_NEAR = 0.05


@dataclass(frozen=True)
class Guide:
    """What the model is shown for each frame of a path.

    Attributes:
        completed: ``[F, H, W, 3]`` float32 0..1: measured points, where there are none guessed ones, and where
            there is nothing at all what is likely on average. Photographs at their own frames.
        coverage: ``[F, H, W]`` bool, True where measured points (or a photo) cover the pixel.
        known: ``[F, H, W]`` bool, where measured or guessed points do.
        depth: ``[F, H, W]`` float32 z-depth of the points, 0 where none; also under photos.
        cameras: ``F`` cameras.
        photo: for each frame the index of the photo shown there, or ``None``.
    """

    completed: Tensor
    coverage: Tensor
    known: Tensor
    depth: Tensor
    cameras: Cameras
    photo: list[int | None]

    @property
    def images(self) -> Tensor:
        """``[F, H, W, 3]`` what was measured, black elsewhere."""
        return self.completed * self.coverage[..., None]


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
    """One picture of the cloud: colours, depth, and the masks of what they rest on."""

    image: Tensor
    depth: Tensor
    known: Tensor
    measured: Tensor
    hints: Tensor
    hinted: Tensor


def _render_frame(
    positions: Tensor, colors: Tensor, weights: Tensor, measured: Tensor, camera: Cameras, scale: int
) -> _Frame:
    """One camera's picture, averaged down by ``scale``."""
    attributes = torch.cat([colors, measured[:, None].to(colors)], 1)
    surface = render_surface(positions, attributes, weights, camera, tolerance=0.05)
    values = torch.cat([surface.image, surface.depth[..., None]], -1)
    known, share = _averaged(values, surface.weight > _LEAST_WEIGHT, scale)
    hints, seen = _averaged(values[..., :3], surface.weight > 0, scale)
    covered = share > _COVERED
    color, from_measured, depth = known.split([3, 1, 1], -1)
    return _Frame(
        color * covered[..., None],
        depth[..., 0] * covered,
        covered,
        covered & (from_measured[..., 0] > 0.5),
        hints,
        seen > _HINTED,
    )


def _averaged(values: Tensor, mask: Tensor, scale: int) -> tuple[Tensor, Tensor]:
    """Mean of the masked pixels of each ``scale`` x ``scale`` cell of ``[H, W, C]``, and the share that is masked."""
    weight = mask[..., None].to(values)
    pooled = F.avg_pool2d(torch.cat([values * weight, weight], -1).movedim(-1, 0)[None], scale)[0].movedim(0, -1)
    share = pooled[..., -1]
    return pooled[..., :-1] / share.clamp_min(1e-6)[..., None], share


def render_guide(
    positions: Tensor,
    colors: Tensor,
    path: Cameras,
    path_photo: Sequence[int | None],
    images: Sequence[Tensor],
    photo_cameras: Cameras,
    *,
    point_photo: Tensor | None = None,
    confidence: Tensor | None = None,
    measured: Tensor | None = None,
    supersample: int = 2,
) -> Guide:
    """Render the guide of a path.

    At each pixel the points of the nearest surface are averaged, weighted by their confidence and by how near their
    photo was taken to the frame's camera; pictures are rendered larger and averaged down. Where the photos differ in
    exposure, each frame takes one between its nearest photos', so that no seams show and photos fit their neighbours.
    What no measured point covers is completed from guessed points and smooth colour (see :class:`Guide`).

    Args:
        positions: ``[P, 3]`` world points.
        colors: ``[P, 3]`` uint8 or float 0..1.
        path: ``F`` cameras of one size, the model's.
        path_photo: for each frame the index of the photo whose (covering) camera it is, or ``None``.
        images: the photos, uint8 ``[H, W, 3]``.
        photo_cameras: their cameras at full size.
        point_photo: ``[P]`` index of the photo each point came from.
        confidence: ``[P]`` trust in each point, 0..1; by default 1.
        measured: ``[P]`` bool, False for points of guessed depth; by default none is.
        supersample: pictures are rendered this many times larger and averaged down.
    """
    width, height = path.size
    if colors.dtype == torch.uint8:
        colors = colors.float() / 255
    everywhere = positions.new_ones(len(positions), dtype=torch.float32)
    trust = everywhere if confidence is None else confidence.float().clamp_min(_LEAST_TRUST)
    measured = everywhere > 0 if measured is None else measured
    boxes = photo_cameras.covering(width, height)[1]
    large = path.resized(width * supersample, height * supersample)
    levels = None if point_photo is None else exposure_levels(positions, colors, point_photo, photo_cameras)
    pictures, covered, knowns, depths = [], [], [], []
    for i in track(range(len(path)), "guide"):
        shades, weights = colors, trust
        if point_photo is not None and levels is not None:
            near = nearness(photo_cameras.centers, path.centers[i], 4).to(trust)
            weights = trust * near[point_photo]
            share = nearness(photo_cameras.centers, path.centers[i], 1).to(levels)
            level = (share[:, None] * levels).sum(0) / share.sum()
            shades = (colors * torch.exp(level - levels)[point_photo]).clamp(max=1)
        frame = _render_frame(positions, shades, weights, measured, large[i], supersample)
        shown = path_photo[i]
        if shown is None:
            batch = (v[None] for v in (frame.image, frame.known, frame.hints, frame.hinted))
            pictures.append(complete_picture(*batch)[0])
            covered.append(frame.measured)
        else:
            pictures.append(resample_photo(images[shown], boxes[shown], width, height).to(frame.image))
            covered.append(torch.ones_like(frame.measured))
        knowns.append(frame.known | covered[-1])
        depths.append(frame.depth)
    return Guide(
        torch.stack(pictures), torch.stack(covered), torch.stack(knowns), torch.stack(depths), path, list(path_photo)
    )
