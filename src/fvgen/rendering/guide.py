"""The guide of a camera path: what its photographs tell of each frame, with the photos at their own frames."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from fvgen.cameras import Cameras
from fvgen.pictures import to_bytes
from fvgen.progress import track
from fvgen.rendering.lookup import CloudLike, LookupRenderer, splat_size
from fvgen.rendering.splat import render_points

GuideKind = Literal["lookup", "points"]

_OPAQUE = 0.5  # accumulated opacity from which points cover a pixel
_LONGEST_SPLAT = 512  # pixels: the teacher's points are splatted at DUSt3R's size and enlarged from there


@dataclass(frozen=True)
class Measured:
    """How much of the frames of a path is measured, and not guessed.

    Attributes:
        frames: share of each frame, 0..1; a photograph's is 1.
        mean, least: over the frames that are no photographs, if there are any, else over all.
        frame: the number of the least one.
    """

    frames: list[float]
    mean: float
    least: float
    frame: int

    def __str__(self) -> str:
        return f"{100 * self.mean:.0f} % measured (least {100 * self.least:.0f} %, frame {self.frame})"


@dataclass(frozen=True)
class Guide:
    """What is known of each frame of a path without a model, at the size of the views.

    Attributes:
        completed: ``[F, H, W, 3]`` uint8 on the CPU. Looked up: the photographs' colours where they see the surface,
            elsewhere what is likely on average; photographs at their own frames. Points: the teacher's splatting of
            measured points over black.
        told: ``[F, H, W]`` uint8, the photographs' share in each pixel, 255 where they alone decide it.
        coverage: ``[F, H, W]`` bool, where a measured surface (or a photo) covers the pixel.
        depth: ``[F, h, w]`` float32 z-depth of the surfaces, smaller than the views where these are large; 0 where
            none; also under photos.
        cameras: ``F`` cameras.
        photo: for each frame the index of the photo shown there, or ``None``.
        kind: whether ``completed`` is looked up, or shows points.
        renderer: makes the frames in ``missing``, which are black until :meth:`render` is asked for them.
    """

    completed: Tensor
    told: Tensor
    coverage: Tensor
    depth: Tensor
    cameras: Cameras
    photo: list[int | None]
    kind: GuideKind = "lookup"
    renderer: LookupRenderer | None = None
    missing: set[int] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self.photo)

    def render(self, frames: Iterable[int] | None = None) -> list[int]:
        """Make frames, by default all, that are not there yet; those that were made are returned, in order."""
        wanted = sorted(self.missing if frames is None else self.missing.intersection(frames))
        for i in track(wanted, "guide"):
            assert self.renderer is not None
            self._look_up(i, self.renderer)
            self.missing.discard(i)
        return wanted

    def measured(self) -> Measured:
        """How much of the frames that are there is measured."""
        shares = self.coverage.float().mean(dim=(1, 2)).tolist()
        made = [i for i in range(len(self)) if self.photo[i] is None and i not in self.missing] or range(len(self))
        least = min(made, key=lambda i: shares[i])
        return Measured(shares, sum(shares[i] for i in made) / len(made), shares[least], least)

    def _look_up(self, i: int, renderer: LookupRenderer) -> None:
        shown, camera = self.photo[i], self.cameras[i]
        if shown is None:
            seen = renderer.picture(camera)
            self.completed[i], self.told[i] = to_bytes(seen.image), to_bytes(seen.told)
            self.coverage[i], depth = seen.coverage.cpu(), seen.depth
        else:
            box = renderer.cameras.covering(*camera.size)[1][shown]
            self.completed[i] = to_bytes(resample_photo(renderer.images[shown], box, *camera.size))
            self.told[i], self.coverage[i], depth = 255, True, renderer.depth(camera)
        self.depth[i] = F.interpolate(depth[None, None], self.depth.shape[1:], mode="nearest-exact")[0, 0].cpu()

    def images(self, frames: slice = slice(None)) -> Tensor:
        """``[F, H, W, 3]`` uint8, of some frames what was measured, black elsewhere; points with their faint rims."""
        shown = self.completed[frames]
        return shown if self.kind == "points" else shown * self.coverage[frames, ..., None]


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
    path: Cameras, path_photo: Sequence[int | None], renderer: LookupRenderer, frames: Iterable[int] | None = None
) -> Guide:
    """Look up the frames of a path, see `fvgen.rendering.lookup`.

    Args:
        path: ``F`` cameras of the renderer's size.
        path_photo: for each frame the index of the photo whose (covering) camera it is, or ``None``.
        renderer: of the scene.
        frames: to make now, by default all; the others wait for :meth:`Guide.render`.
    """
    width, height = path.size
    count, (columns, rows) = len(path), splat_size(path.size)
    guide = Guide(
        completed=torch.zeros(count, height, width, 3, dtype=torch.uint8),
        told=torch.zeros(count, height, width, dtype=torch.uint8),
        coverage=torch.zeros(count, height, width, dtype=torch.bool),
        depth=torch.zeros(count, rows, columns),
        cameras=path,
        photo=list(path_photo),
        renderer=renderer,
        missing=set(range(count)),
    )
    guide.render(frames)
    return guide


def render_points_guide(path: Cameras, cloud: CloudLike) -> Guide:
    """What ViewCrafter's models are shown, on the device of the cloud.

    Measured points, in the colours they have and all with the same weight, as :func:`render_points` composites them
    over black; where the picture is longer than 512 pixels, at that length and enlarged bilinearly, as the original
    does with the points of DUSt3R. A pixel is covered where their opacity is at least a half. The picture is the same
    every time and on every device; photographs are shown at no frame, not even at their own.

    Args:
        path: ``F`` cameras of one size.
        cloud: points of all photos.
    """
    positions, colors = cloud.positions[cloud.measured], cloud.colors[cloud.measured].float() / 255
    made = []
    for i in track(range(len(path)), "points"):
        color, covered, depth = points_picture(positions, colors, path[i])
        made.append((to_bytes(color), covered.cpu(), depth.cpu()))
    pictures, coverage, depths = (torch.stack(parts) for parts in zip(*made))
    return Guide(pictures, coverage.byte() * 255, coverage, depths, path, [None] * len(path), "points")


def points_picture(positions: Tensor, colors: Tensor, camera: Cameras) -> tuple[Tensor, Tensor, Tensor]:
    """One picture of :func:`render_points_guide`, on the device of the points.

    Args:
        positions: ``[P, 3]`` world.
        colors: ``[P, 3]`` float 0..1.
        camera: one camera.

    Returns:
        ``[H, W, 3]`` float 0..1, ``[H, W]`` bool where it is covered, ``[H, W]`` float32 z-depth of the nearest points.
    """
    width, height = camera.size
    scale = min(1.0, _LONGEST_SPLAT / max(width, height))
    rendered = render_points(positions, colors, camera.resized(round(width * scale), round(height * scale)))
    picture = torch.cat([rendered.image, rendered.alpha[..., None]], -1).movedim(-1, 1)
    depth = rendered.depth[:, None]
    if scale < 1:
        picture = F.interpolate(picture, (height, width), mode="bilinear", align_corners=False)
        depth = F.interpolate(depth, (height, width), mode="nearest-exact")  # no mean of near and far
    color, alpha = picture[0].movedim(0, -1).split([3, 1], -1)
    return color, alpha[..., 0] >= _OPAQUE, depth[0, 0]
