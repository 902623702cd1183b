"""The guide of a camera path: point renders with the photos at their own frames."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from fvgen.cameras import Cameras
from fvgen.progress import track
from fvgen.rendering.splat import render_points

_COVERED = 0.5


@dataclass(frozen=True)
class Guide:
    """What the model is shown for each frame of a path.

    Attributes:
        images: ``[F, H, W, 3]`` float32 0..1; black where nothing is known.
        coverage: ``[F, H, W]`` bool, True where points (or a photo) cover the pixel.
        depth: ``[F, H, W]`` float32 z-depth of the points, 0 where none; also under photos.
        cameras: ``F`` cameras.
        photo: for each frame the index of the photo shown there, or ``None``.
    """

    images: Tensor
    coverage: Tensor
    depth: Tensor
    cameras: Cameras
    photo: list[int | None]


def resample_photo(image: Tensor, box: tuple[float, float, float, float], width: int, height: int) -> Tensor:
    """Cut ``box`` (left, top, right, bottom in pixels) out of a uint8 ``[H, W, 3]`` photo, antialiased.

    Returns:
        ``[height, width, 3]`` float32 0..1.
    """
    from PIL import Image

    picture = Image.fromarray(image.cpu().numpy())
    cut = picture.resize((width, height), Image.Resampling.LANCZOS, box=box)
    return torch.frombuffer(bytearray(cut.tobytes()), dtype=torch.uint8).view(height, width, 3).float() / 255


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
    supersample: int = 2,
) -> Guide:
    """Render the guide of a path.

    Args:
        positions: ``[P, 3]`` world points.
        colors: ``[P, 3]`` uint8 or float 0..1.
        path: ``F`` cameras of one size, the model's.
        path_photo: for each frame the index of the photo whose (covering) camera it is, or ``None``.
        images: the photos, uint8 ``[H, W, 3]``.
        photo_cameras: their cameras at full size.
        point_photo: ``[P]`` index of the photo each point came from.
        confidence: ``[P]`` trust in each point, 0..1.
        supersample: pictures are rendered this many times larger and averaged down.
    """
    width, height = path.size
    if colors.dtype == torch.uint8:
        colors = colors.float() / 255
    boxes = photo_cameras.covering(width, height)[1]
    large = path.resized(width * supersample, height * supersample)
    pictures, covered, depths = [], [], []
    for i in track(range(len(path)), "guide"):
        rendered = render_points(positions, colors, large[i])
        color = F.avg_pool2d(rendered.image.movedim(-1, 1), supersample)
        alpha = F.avg_pool2d(rendered.alpha[:, None], supersample)
        known = (alpha > _COVERED)[0, 0]
        picture = (color / alpha.clamp(min=1e-6))[0].movedim(0, -1) * known[..., None]
        depth = F.max_pool2d(rendered.depth[:, None], supersample)[0, 0] * known
        shown = path_photo[i]
        if shown is not None:
            picture = resample_photo(images[shown], boxes[shown], width, height).to(picture)
            known = torch.ones_like(known)
        pictures.append(picture)
        covered.append(known)
        depths.append(depth)
    return Guide(torch.stack(pictures), torch.stack(covered), torch.stack(depths), path, list(path_photo))
