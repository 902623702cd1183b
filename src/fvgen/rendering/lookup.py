"""Pictures by look-up: where the photographs see a surface, its colours are taken from them at full size.

The depth of what a camera sees is splatted small, cleaned, and brought to the picture's size along the photographs'
edges. Then each pixel is looked up in each photograph that sees that surface. The cost grows with pixels times
photographs looked up, not with points.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from fvgen.cameras import Cameras
from fvgen.cameras.cameras import plane_motion
from fvgen.pictures import joint_upsample
from fvgen.rendering.exposure import exposure_levels
from fvgen.rendering.holes import blur, complete_picture, fill_holes
from fvgen.rendering.splat import Surface, project_points, render_surface

PHOTOS = 6  # looked up for one picture
SPLAT = 640  # pixels on the longer side of the splatted depth
_SMALL = 512  # pixels on the longer side of pictures below which they are made twice as large
_DENSITY = 0.7  # points per pixel that its surfaces need to have no gaps
_SAME = 0.05  # relative difference of depth within which two pictures show the same surface
_LEAST_TRUST = 0.2  # of guessed depth
_LEAST_WEIGHT = 0.03  # of splatted points: below it depth is better continued from around
_KNOWN = 0.05  # weight of all colours looked up from which a smooth fill is farther from the truth
_FAINT = 3e-3  # below it only guessed points of far photos are there, and a smooth fill is closer to the truth
_REACH = 3  # pixels of the splatted depth that a median looks at to each side
_SOFT = 1 / 200  # of the longer side: over how much what photographs tell fades out
_NEAR = 0.05
_GRID = 256  # pixels of a photograph that tell how much of it a camera sees
_KEPT = 12  # photographs that are kept ready


class DepthLike(Protocol):
    """Depth of one photograph, such as `fvgen.scene.depth.DepthMap`."""

    @property
    def depth(self) -> Tensor:
        """``[h, w]`` z-depth in world units, 0 where it is unknown."""

    @property
    def confidence(self) -> Tensor:
        """``[h, w]`` trust in the depth, 0..1."""

    @property
    def cameras(self) -> Cameras:
        """One camera, the photograph's at the size of the depth."""


class CloudLike(Protocol):
    """Points of all photographs, such as `fvgen.scene.types.PointCloud`, photograph by photograph."""

    @property
    def positions(self) -> Tensor:
        """``[P, 3]`` float64, world."""

    @property
    def colors(self) -> Tensor:
        """``[P, 3]`` uint8."""

    @property
    def photo(self) -> Tensor:
        """``[P]`` int64, the photograph that each point is from."""

    @property
    def confidence(self) -> Tensor:
        """``[P]`` trust in the positions, 0..1."""

    @property
    def measured(self) -> Tensor:
        """``[P]`` bool, whether the position was measured rather than guessed."""


@dataclass(frozen=True)
class Looked:
    """One picture.

    Attributes:
        image: ``[H, W, 3]`` float 0..1, complete.
        told: ``[H, W]`` float 0..1, the photographs' own share in each pixel; the rest is smooth.
        coverage: ``[H, W]`` bool, where a surface of measured depth is seen in a photograph.
        depth: ``[h, w]`` float32 z-depth of the splatted surfaces, 0 where there are none.
    """

    image: Tensor
    told: Tensor
    coverage: Tensor
    depth: Tensor


@dataclass(frozen=True)
class _Photo:
    """A photograph ready to be looked up.

    Attributes:
        pyramid: ``[1, 3, h, w]`` float 0..1, at the scale of the pictures to be made, and halves of it.
        camera: of the first.
        inverse: ``[1, 1, h, w]`` inverse depth along its edges, 0 where unknown.
        trust: ``[1, 1, h', w']`` confidence in that, of the whole picture.
    """

    pyramid: list[Tensor]
    camera: Cameras
    inverse: Tensor
    trust: Tensor


def supersampled(size: tuple[int, int]) -> tuple[int, int]:
    """The size at which pictures are made: small ones twice as large, to be averaged down."""
    scale = 2 if max(size) < _SMALL else 1
    return size[0] * scale, size[1] * scale


def splat_size(size: tuple[int, int]) -> tuple[int, int]:
    """(width, height) of the depth that is kept of a picture: its own, at most that at which points are splatted."""
    scale = min(1.0, SPLAT / max(size))
    return max(8, round(size[0] * scale)), max(8, round(size[1] * scale))


def nearness(centers: Tensor, eye: Tensor, power: int) -> Tensor:
    """How much each photo at ``centers [K, 3]`` counts in a picture taken at ``eye [3]``: ``[K]``, the nearest has 1.

    The nearer photo sees things from nearly the same side and at nearly the same scale, so errors of depth shift them
    least. The weight falls with the distance to this ``power``.
    """
    distance = (centers - eye).norm(dim=1)
    share = (distance / distance.max().clamp_min(1e-12) + _NEAR).pow(-power)
    return share / share.max()


class LookupRenderer:
    """Makes pictures of a scene from its photographs, on the device of its points.

    Args:
        images: the photographs, uint8 ``[H, W, 3]``.
        cameras: theirs.
        depths: of each photograph, from which it is told what it sees.
        cloud: points of all of them.
        size: (width, height) of the pictures.
    """

    def __init__(
        self,
        images: Sequence[Tensor],
        cameras: Cameras,
        depths: Sequence[DepthLike],
        cloud: CloudLike,
        size: tuple[int, int],
    ) -> None:
        self.images, self.cameras, self.depths, self.cloud = images, cameras, depths, cloud
        self.device = cloud.positions.device
        self.size = supersampled(size)
        self.scale = self.size[0] // size[0]
        self.levels = exposure_levels(cloud.positions, cloud.colors.float() / 255, cloud.photo, cameras)
        counts = torch.bincount(cloud.photo, minlength=len(images)).tolist()
        ends = torch.tensor(counts).cumsum(0).tolist()
        self._points = [slice(end - count, end) for end, count in zip(ends, counts)]
        self._measured = cloud.measured
        self._ready: dict[int, _Photo] = {}

    def depth(self, camera: Cameras) -> Tensor:
        """``[h, w]`` float32 z-depth of the surfaces that a camera of the pictures' size sees, 0 where none."""
        return self._surface(camera.resized(*self.size), self._chosen(camera)).depth

    def picture(self, camera: Cameras) -> Looked:
        """What a camera of the pictures' size sees."""
        large, chosen = camera.resized(*self.size), self._chosen(camera)
        surface = self._surface(large, chosen)
        inverse = self._along_edges(large, self._full_size(surface), chosen)
        color, total, trust = self._colors(large, inverse, chosen)
        image, told = self._completed(surface, color, total)
        seen = _resized(surface.image[..., 3][None, None], image.shape[:2], "bilinear")[0, 0]
        covered = ((seen > 0.5) & (trust > 0)).float()
        if self.scale > 1:
            stacked = torch.cat([image.movedim(-1, 0), told[None], covered[None]])[None]
            image, told, covered = F.avg_pool2d(stacked, self.scale)[0].split([3, 1, 1])
            image, told, covered = image.movedim(0, -1), told[0], covered[0]
        return Looked(image, told, covered > 0.5, surface.depth)

    def _chosen(self, camera: Cameras) -> list[int]:
        """The photographs to look up: those that show most of what the camera sees, from nearby."""
        if len(self.images) <= PHOTOS:
            return list(range(len(self.images)))
        near = nearness(self.cameras.centers, camera.centers[0], 1)
        shared = torch.tensor([_share_seen(depth, camera) for depth in self.depths], dtype=near.dtype)
        return sorted((near * shared).argsort(descending=True, stable=True)[:PHOTOS].tolist())

    def _surface(self, camera: Cameras, chosen: list[int]) -> Surface:
        """The splatted surfaces, small: their colour, and as a fourth channel the share of measured points."""
        rows = [self._points[k] for k in chosen]
        cloud = self.cloud
        parts = (cloud.positions, cloud.colors, cloud.photo, cloud.confidence, self._measured)
        positions, colors, photo, trust, measured = (torch.cat([part[r] for r in rows]) for part in parts)
        colors, trust = colors.float() / 255 * self._gains(camera)[photo], trust.clamp_min(_LEAST_TRUST)
        near = nearness(self.cameras.centers, camera.centers[0], 4).to(trust)
        width, height = splat_size(self.size)
        points = len(project_points(positions, camera).z)  # all: a sample changes with every point before it
        scale = min(1.0, math.sqrt(max(points, 1) / (_DENSITY * width * height)))
        small = camera.resized(max(8, round(width * scale)), max(8, round(height * scale)))
        shades = torch.cat([colors.clamp(max=1), measured[:, None].float()], 1)
        return render_surface(positions, shades, trust * near[photo], small, tolerance=_SAME)

    def _gains(self, camera: Cameras) -> Tensor:
        """``[K, 3]``: each photograph's colours times this have an exposure between those of the nearest."""
        share = nearness(self.cameras.centers, camera.centers[0], 1).to(self.levels)
        return torch.exp((share[:, None] * self.levels).sum(0) / share.sum() - self.levels)

    def _full_size(self, surface: Surface) -> Tensor:
        """``[H, W]`` inverse depth everywhere: gaps filled, specks removed, enlarged."""
        depth, known = surface.depth, surface.weight > _LEAST_WEIGHT
        unit = torch.where(known, depth, torch.zeros_like(depth)).max().clamp(min=1e-12)
        filled = fill_holes((depth / unit * known)[None, ..., None], known[None])[0, ..., 0]
        clean = _median(_median(1 / filled.clamp(min=1e-6), 0), 1)
        return _resized(clean[None, None], self.size[::-1], "bilinear")[0, 0] / unit

    def _along_edges(self, camera: Cameras, inverse: Tensor, chosen: list[int]) -> Tensor:
        """The photographs' own depth at the places that ``inverse [H, W]`` leads to, where that is the same surface."""
        near = nearness(self.cameras.centers, camera.centers[0], 4).to(inverse)
        total, weight = torch.zeros_like(inverse), torch.zeros_like(inverse)
        for k in chosen:
            photo = self._photo(k)
            x, y, _ = _transfer(camera, photo.camera, inverse, *_centers(inverse))
            own = _sampled(photo.inverse, x, y, photo.camera, "nearest")[0]
            _, _, z = _transfer(photo.camera, camera, own, x, y)
            there = own / z.clamp(min=1e-6)
            share = _sampled(photo.trust, x, y, photo.camera)[0] * (
                (there / inverse.clamp(min=1e-12) - 1).abs() < _SAME
            )
            share = share * _shown(x, y, z, own, photo.camera) * near[k]
            total, weight = total + share * there, weight + share
        return torch.where(weight > 1e-6, total / weight.clamp(min=1e-6), inverse)

    def _colors(self, camera: Cameras, inverse: Tensor, chosen: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Mean colour ``[3, H, W]`` of what the photographs see there, its weight, and the best trust ``[H, W]``."""
        near = nearness(self.cameras.centers, camera.centers[0], 2).to(inverse)
        gains = self._gains(camera)
        total, weight, best = inverse.new_zeros(3, *inverse.shape), torch.zeros_like(inverse), torch.zeros_like(inverse)
        for k in chosen:
            photo = self._photo(k)
            x, y, z = _transfer(camera, photo.camera, inverse, *_centers(inverse))
            own = _sampled(photo.inverse, x, y, photo.camera, "nearest")[0]
            seen = _shown(x, y, z, own, photo.camera)
            ratio = z * own / inverse.clamp(min=1e-12)  # of the point's depth in the photograph to the surface's there
            seen &= (ratio - 1).abs() < _SAME
            trust = torch.where(seen, _sampled(photo.trust, x, y, photo.camera)[0], 0.0)
            color = (_filtered(photo, camera, x, y, z, seen) * gains[k][:, None, None]).clamp(0, 1)
            amount = near[k] * trust.clamp(min=_LEAST_TRUST).sqrt() * seen
            total, weight, best = total + color * amount, weight + amount, torch.maximum(best, trust)
        return total / weight.clamp(min=1e-9), weight, best

    def _completed(self, surface: Surface, color: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
        """The picture ``[H, W, 3]`` and the photographs' share ``[H, W]`` in it.

        Where no photograph shows the surface, the colours are the points', which are coarser; where there are no
        points either, the picture is smooth.
        """
        shown = surface.weight > _FAINT
        weighted = torch.cat([surface.image[..., :3] * shown[..., None], shown[..., None].float()], -1).movedim(-1, 0)
        padded = F.pad(weighted[None], (0, shown.shape[1] % 2, 0, shown.shape[0] % 2), mode="replicate")
        hints = F.avg_pool2d(padded, 2)[0].movedim(0, -1)  # at half the size
        hints, hinted = hints[..., :3] / hints[..., 3:].clamp(min=1e-6), hints[..., 3] > 0.5
        size = hinted.shape
        looked = torch.cat([color * (total > _KNOWN), (total > _KNOWN).float()[None]])[None]
        looked = F.interpolate(looked, size, mode="area")[0].movedim(0, -1)
        known = looked[..., 3] > 0.5
        base = looked[..., :3] / looked[..., 3:].clamp(min=1e-6) * known[..., None]
        coarse = complete_picture(base[None], known[None], hints[None], hinted[None])
        coarse = _resized(coarse.movedim(-1, 1), total.shape, "bicubic")[0].clamp(0, 1)
        seen = (total > 0).float()
        share = F.interpolate(seen[None, None], size, mode="area").movedim(1, -1)
        share = blur(share, max(size) * _SOFT).movedim(-1, 1)  # small: wide blurs are slow at full size
        told = _resized(share, total.shape, "bilinear")[0, 0] * seen
        return torch.lerp(coarse, color, told).movedim(0, -1), told

    def _photo(self, k: int) -> _Photo:
        """A photograph, made ready at its first use; the one that was used longest ago is forgotten."""
        found = self._ready.pop(k, None) or self._prepared(k)
        self._ready[k] = found
        if len(self._ready) > _KEPT:
            del self._ready[next(iter(self._ready))]
        return found

    def _prepared(self, k: int) -> _Photo:
        image, camera = self.images[k], self.cameras[k]
        full, _ = camera.covering(*self.size)
        scale = min(1.0, float(full.intrinsics[0, 0, 0] / camera.intrinsics[0, 0, 0]))
        size = (max(8, round(image.shape[1] * scale)), max(8, round(image.shape[0] * scale)))
        picture = image.to(self.device).movedim(-1, 0)[None].float() / 255
        if scale < 1:
            picture = F.interpolate(picture, size[::-1], mode="bicubic", antialias=True, align_corners=False)
        camera, depth = camera.resized(*size), self.depths[k]
        pyramid = [picture.clamp(0, 1)]
        while min(pyramid[-1].shape[-2:]) >= 16:
            pyramid.append(F.avg_pool2d(pyramid[-1], 2))
        inverse = depth_along_edges(depth, camera, pyramid[0][0])
        # Confidence of the whole photograph; its depth may be of a part of it.
        trust = depth.confidence.to(self.device)
        small = camera.resized(trust.shape[1], trust.shape[0])
        x, y, _ = _transfer(small, depth.cameras, torch.zeros_like(trust), *_centers(trust))
        trust = _sampled(trust[None, None], x, y, depth.cameras)[None]
        return _Photo(pyramid, camera, inverse[None, None], trust)


def depth_along_edges(depth: DepthLike, camera: Cameras, picture: Tensor) -> Tensor:
    """``[H, W]`` inverse depth of a photograph at its size, its edges where the photograph's are; 0 where unknown.

    Args:
        depth: of the photograph, at a smaller size, perhaps of a part of it only.
        camera: of the photograph.
        picture: ``[3, H, W]`` float 0..1, the photograph.
    """
    height, width = picture.shape[1:]
    rows, columns = depth.depth.shape
    device = picture.device
    known = depth.depth.to(device)
    inverse = torch.where(known > 0, 1 / known.clamp(min=1e-12), torch.zeros_like(known))
    ratio = (depth.cameras.intrinsics[0] @ torch.linalg.inv(camera.intrinsics[0])).to(picture)  # of pixels, one ray
    x = (torch.arange(width, device=device) + 0.5) * ratio[0, 0] + ratio[0, 2] - 0.5
    y = (torch.arange(height, device=device) + 0.5) * ratio[1, 1] + ratio[1, 2] - 0.5
    whole = [max(1, round(float(side * ratio[k, k]))) for k, side in ((1, height), (0, width))]
    shrunk = F.interpolate(picture[None], whole, mode="bilinear", antialias=True, align_corners=False)
    there = _transfer(depth.cameras, camera, torch.zeros_like(known), *_centers(known))
    small = _sampled(shrunk, *there[:2], camera)  # what the map shows of it
    found = joint_upsample(
        inverse[None], inverse > 0, small, picture, y, x, lambda value, best: (value - best).abs() < 0.03 * best
    )[0]
    inside = ((y > -1) & (y < rows))[:, None] & ((x > -1) & (x < columns))
    return found * inside


def _share_seen(depth: DepthLike, camera: Cameras) -> float:
    """The share of a photograph's surfaces that a camera sees, of a grid of its pixels: the same for any cloud."""
    step = max(1, math.isqrt(depth.depth.numel() // _GRID))
    x, y = _centers(depth.depth)
    x, y, known = x[:, step // 2 :: step], y[step // 2 :: step], depth.depth[step // 2 :: step, step // 2 :: step]
    u, v, z = _transfer(depth.cameras, camera, 1 / known.clamp(min=1e-12), x, y)
    return float(_shown(u, v, z, known, camera).sum() / (known > 0).sum().clamp(min=1))


def _filtered(photo: _Photo, camera: Cameras, x: Tensor, y: Tensor, z: Tensor, seen: Tensor) -> Tensor:
    """``[3, H, W]`` colours of a photograph, from the size of it that has about one pixel per pixel of the picture.

    ``z`` is the depth in the photograph over that in the picture.
    """
    focal = photo.camera.intrinsics[0, 0, 0] / camera.intrinsics[0, 0, 0]
    ratio = float(focal / z[seen].median().clamp(min=1e-6)) if bool(seen.any()) else 1.0
    level = min(max(math.log2(max(ratio, 1e-6)), 0.0), len(photo.pyramid) - 1.0)
    fine = int(level)
    color = _sampled(photo.pyramid[fine], x, y, photo.camera, "bicubic" if fine == 0 else "bilinear")
    if level - fine > 0.1:
        color = torch.lerp(color, _sampled(photo.pyramid[fine + 1], x, y, photo.camera), level - fine)
    return color


def _shown(x: Tensor, y: Tensor, z: Tensor, own: Tensor, camera: Cameras) -> Tensor:
    """Where pixels of a picture lie inside a photograph and before it, on depth that it knows."""
    width, height = camera.size
    return (x > 0) & (x < width) & (y > 0) & (y < height) & (z > 0) & (own > 0)


def _centers(like: Tensor) -> tuple[Tensor, Tensor]:
    """``[1, W]`` and ``[H, 1]`` pixel centres of ``[H, W]``."""
    y, x = (torch.arange(side, device=like.device, dtype=like.dtype) + 0.5 for side in like.shape)
    return x[None], y[:, None]


def _transfer(one: Cameras, other: Cameras, inverse: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where pixels of one camera at inverse depth lie in another: x, y, and depth there over depth here."""
    turn, shift = (part.tolist() for part in plane_motion(one, other))
    u, v, z = (a * x + (b * y + c) + d * inverse for (a, b, c), d in zip(turn, shift))
    scale = 1 / z.clamp(min=1e-6)
    return u * scale, v * scale, z


def _sampled(values: Tensor, x: Tensor, y: Tensor, camera: Cameras, mode: str = "bilinear") -> Tensor:
    """``[C, H, W]`` of ``values [1, C, h, w]``, a map over the whole picture of a camera, at its pixels x and y."""
    width, height = camera.size
    grid = torch.stack([(x * (2 / width) - 1).clamp(-4, 4), (y * (2 / height) - 1).clamp(-4, 4)], -1)[None]
    return F.grid_sample(values, grid, mode=mode, padding_mode="border", align_corners=False)[0]


def _median(values: Tensor, axis: int) -> Tensor:
    """The median of ``[h, w]`` along an axis; the border is repeated."""
    padding = (0, 0, _REACH, _REACH) if axis == 0 else (_REACH, _REACH, 0, 0)
    padded = F.pad(values[None, None], padding, mode="replicate")[0, 0]
    return padded.unfold(axis, 2 * _REACH + 1, 1).median(-1).values


def _resized(values: Tensor, size: Sequence[int], mode: str) -> Tensor:
    return F.interpolate(values, tuple(size), mode=mode, align_corners=False)
