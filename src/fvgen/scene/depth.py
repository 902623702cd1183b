"""Depth of each photo from the others: range, plane sweep, agreement between the photos, completion."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from fvgen.cameras import Cameras
from fvgen.cameras.cameras import plane_motion
from fvgen.errors import UserError
from fvgen.pictures import to_bytes
from fvgen.progress import track
from fvgen.scene.sweep import Winners, inside, pixel_centers, sample, sweep, transfer

_COARSE_SIDE = 128
_COARSE_PLANES = 96
_MAX_PLANES = 128
_SOURCES = 4
_AROUND = 16


@dataclass(frozen=True)
class DepthMap:
    """Depth of one photo.

    Attributes:
        depth: ``[h, w]`` float32 z-depth in world units, 0 where unknown.
        confidence: ``[h, w]`` float32 in 0..1; low values mark completed (guessed) depth.
        cameras: the photo's camera at ``h`` x ``w``.
        image: ``[h, w, 3]`` uint8 sRGB, the photo at that size.
    """

    depth: Tensor
    confidence: Tensor
    cameras: Cameras
    image: Tensor


@dataclass(frozen=True)
class _View:
    image: Tensor
    grey: Tensor
    camera: Cameras


def _view(image: Tensor, camera: Cameras, long_side: int) -> _View:
    """The photo at ``long_side`` (never enlarged), ``image [3, h, w]`` float 0..1."""
    height, width = image.shape[-2:]
    scale = min(1.0, long_side / max(height, width))
    size = (max(8, round(height * scale)), max(8, round(width * scale)))
    if size != (height, width):
        image = F.interpolate(image[None], size, mode="bicubic", antialias=True, align_corners=False)[0].clamp(0, 1)
    grey = (image * image.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0)
    return _View(image, grey, camera.resized(size[1], size[0]))


def estimate_depths(
    images: list[Tensor],
    cameras: Cameras,
    long_side: int = 512,
    device: torch.device | str = "cpu",
    sparse_points: Tensor | None = None,
) -> list[DepthMap]:
    """Dense depth of every photo by a multi-view plane sweep.

    Args:
        images: uint8 ``[H, W, 3]`` sRGB.
        cameras: one per image, at the images' sizes.
        long_side: the longer side, in pixels, at which depth is estimated.
        device: where to compute; the result is on the CPU.
        sparse_points: ``[S, 3]`` world points known to lie on surfaces; they set the depth range.

    Raises:
        UserError: if there are fewer than two photos, or no depth puts two photos' surfaces on top of each other.
    """
    if len(images) < 2:
        raise UserError("depth needs at least two photos of the same place: give one more")
    full = [_view(im.to(device).movedim(-1, 0).float() / 255, cameras[i], long_side) for i, im in enumerate(images)]
    small = [_view(v.image, v.camera, _COARSE_SIDE) for v in full]
    results, ranges = [], []
    neighbours = [_neighbours(cameras, i) for i in range(len(full))]
    for i in track(range(len(full)), "depth"):
        sources = [full[j] for j in neighbours[i]]
        low, high = _range(small[i], [small[j] for j in neighbours[i]], sparse_points)
        ranges.append((low, high))
        planes = _planes(full[i], sources, low, high, _MAX_PLANES)
        results.append(sweep(full[i].grey, full[i].camera, [(s.grey, s.camera) for s in sources], planes))
    maps = []
    for i, view in enumerate(full):
        trust = _agreement(i, full, results, neighbours[i]) * _own_trust(results[i])
        inverse = _complete(results[i].inverse_depth, trust, view.image)
        depth = 1 / inverse.clamp(min=ranges[i][0], max=ranges[i][1])
        picture = to_bytes(view.image.movedim(0, -1))
        maps.append(DepthMap(depth.cpu(), trust.clamp(0.02, 1).cpu(), view.camera, picture))
    return maps


def by_nearness(cameras: Cameras, i: int) -> list[int]:
    """The other cameras, first those that look the same way from nearby.

    A turn is weighed against the distance of the 16th nearest, or of the farthest where they are fewer: a long walk is
    a short one wherever one stands.
    """
    axis = cameras.world_from_camera[:, :3, 2]
    turn = 1 - (axis * axis[i]).sum(-1)
    distance = (cameras.centers - cameras.centers[i]).norm(dim=-1)
    far = distance.sort().values[min(_AROUND, len(distance) - 1)]
    order = (distance / far.clamp(min=1e-12) + 2 * turn).argsort(stable=True).tolist()
    return [j for j in order if j != i]


def _neighbours(cameras: Cameras, i: int) -> list[int]:
    """The photos to match with: near, but not at the same place."""
    moved = (cameras.centers - cameras.centers[i]).norm(dim=-1) > 0
    return [j for j in by_nearness(cameras, i) if moved[j]][:_SOURCES]


def _seen(view: _View, source: _View, w: Tensor) -> Tensor:
    """``[D]`` the share of the view's pixels that lie inside the source at inverse depths ``w [D]``."""
    height, width = view.grey.shape
    pixels, z = transfer(view.camera, source.camera, w[:, None, None].expand(-1, height, width))
    return inside(pixels, z, source.camera).float().mean((1, 2))


def _range(view: _View, sources: list[_View], points: Tensor | None) -> tuple[float, float]:
    """Smallest and largest inverse depth to search."""
    if points is not None:
        found = _range_of_points(view, points)
        if found is not None:
            return found
    baseline = (view.camera.centers - sources[0].camera.centers).norm().item()
    trial = torch.cat([torch.zeros(1), torch.logspace(-4, 1.5, 160)]).to(view.grey) / baseline
    overlap = _seen(view, sources[0], trial)
    possible = trial[overlap > 0.15]
    if len(possible) < 2:
        raise UserError("two photos share no part of the scene: give photos that overlap by a third or more")
    planes = torch.linspace(possible[0].item(), possible[-1].item(), _COARSE_PLANES, device=trial.device)
    won = sweep(view.grey, view.camera, [(s.grey, s.camera) for s in sources[:2]], planes)
    good = (won.similarity > 0.6) & (won.distinctness > won.distinctness.median())
    values = won.inverse_depth[good] if good.sum() > 50 else won.inverse_depth.flatten()
    low, high = (values.quantile(q).item() for q in (0.01, 0.99))
    return _widened(low, high)


def _range_of_points(view: _View, points: Tensor) -> tuple[float, float] | None:
    """The range that the sparse points in view span, if they are enough to tell."""
    matrix = view.camera.camera_from_world[0]
    local = points.cpu().double() @ matrix[:3, :3].T + matrix[:3, 3]
    pixels = local @ view.camera.intrinsics[0].T
    seen = inside(pixels[:, :2] / pixels[:, 2:], local[:, 2], view.camera)
    if seen.sum() < 20:
        return None
    inverse = 1 / local[seen, 2]
    return _widened(inverse.quantile(0.01).item(), inverse.quantile(0.99).item())


def _widened(low: float, high: float) -> tuple[float, float]:
    margin = 0.2 * (high - low) + 0.02 * high
    return max(low - margin, 1e-3 * high), high + margin


def _planes(view: _View, sources: list[_View], low: float, high: float, most: int) -> Tensor:
    """Planes uniform in inverse depth, about one pixel of parallax apart."""
    ends = torch.tensor([low, high], device=view.grey.device)
    height, width = view.grey.shape
    widest = 0.0
    for source in sources:
        pixels, z = transfer(view.camera, source.camera, ends[:, None, None].expand(-1, height, width))
        moved = (pixels[1] - pixels[0]).norm(dim=-1)[(z > 0.05).all(0)]
        if len(moved):
            widest = max(widest, moved.median().item())
    count = int(min(max(widest, 24), most))
    return torch.linspace(low, high, count, device=view.grey.device)


def _own_trust(won: Winners) -> Tensor:
    """Trust from the match alone."""
    return ((won.similarity - 0.2) / 0.6).clamp(0, 1).sqrt() * (won.distinctness / 0.1).clamp(0, 1).sqrt()


def _agreement(i: int, views: list[_View], results: list[Winners], neighbours: list[int]) -> Tensor:
    """1 where another photo's own depth brings the pixel back to where it started, falling to 0 at 3 pixels."""
    best = torch.zeros_like(views[i].grey)
    inverse = results[i].inverse_depth
    height, width = inverse.shape
    start = pixel_centers(height, width, inverse.device)[..., :2]
    for j in neighbours:
        pixels, z = transfer(views[i].camera, views[j].camera, inverse)
        there = sample(results[j].inverse_depth[None], pixels[None])[0, 0]
        a, b = (t.to(inverse) for t in plane_motion(views[j].camera, views[i].camera))
        back = torch.cat([pixels, torch.ones_like(pixels[..., :1])], -1) @ a.T + there[..., None] * b
        error = (back[..., :2] / back[..., 2:].clamp(min=1e-6) - start).norm(dim=-1)
        best = torch.maximum(best, torch.where(inside(pixels, z, views[j].camera), (1.5 - error / 2).clamp(0, 1), 0.0))
    return best


def _complete(inverse: Tensor, trust: Tensor, image: Tensor) -> Tensor:
    """Replace inverse depth that is not trusted by planes fitted to the trusted one, within the picture's edges.

    A plane in space is affine in inverse depth over the picture, so walls and floors continue as planes. Fits over
    a short reach are taken where there is enough to fit, wider ones elsewhere.
    """
    height, width = inverse.shape
    x, y = (pixel_centers(height, width, inverse.device)[..., :2] / max(height, width)).unbind(-1)
    one, weight = torch.ones_like(x), trust * trust
    moments = torch.stack([one, x, y, inverse, x * x, x * y, y * y, x * inverse, y * inverse]) * weight
    everywhere = 1e-6 * moments.mean((1, 2), keepdim=True)  # where nothing trusted reaches, the fit to the whole
    guess, known = torch.zeros_like(inverse), torch.zeros_like(inverse)
    longest = max(height, width)
    for reach in (0.02, 0.08, 0.3):
        moments_here = spread(moments, image, reach * longest, 0.1) + everywhere
        fit, support = _affine_fit(moments_here, x, y, reach)
        share = (1 - known) * ((support / 0.1).clamp(max=1) if reach < 0.3 else 1)
        guess, known = guess + share * fit, known + share
    keep = (trust / 0.3).clamp(0, 1)
    return keep * inverse + (1 - keep) * guess


def _affine_fit(moments: Tensor, x: Tensor, y: Tensor, reach: float) -> tuple[Tensor, Tensor]:
    """Value at ``x, y`` of the affine functions with these weighted moments, and the weight behind each.

    Slopes are damped where the samples are few, narrow, or far away: a plane is continued about as far as it is seen.
    """
    support = moments[0]
    mx, my, mw, mxx, mxy, myy, mxw, myw = (moments[1:] / support.clamp(min=1e-30)).unbind(0)
    dx, dy = x - mx, y - my
    damp = 0.1 * (dx * dx + dy * dy) + (0.05 * reach) ** 2
    xx, yy, xy = (mxx - mx * mx).clamp(min=0) + damp, (myy - my * my).clamp(min=0) + damp, mxy - mx * my
    xw, yw = mxw - mx * mw, myw - my * mw
    determinant = (xx * yy - xy * xy).clamp(min=1e-20)
    slope_x, slope_y = (yy * xw - xy * yw) / determinant, (xx * yw - xy * xw) / determinant
    return mw + slope_x * dx + slope_y * dy, support


def spread(values: Tensor, image: Tensor, reach: float, edge: float) -> Tensor:
    """Edge-aware recursive smoothing (domain transform, Gastal and Oliveira 2011) of ``values [C, H, W]``.

    ``reach`` in pixels on flat colour; a colour difference of ``edge`` counts like ``reach`` pixels. Two passes.
    """
    for turn in range(2):
        sigma = reach * 3**0.5 * 2 ** (1 - turn) / 15**0.5
        for axis in (-1, -2):
            gap = image.diff(dim=axis).abs().sum(0)
            keep = torch.exp(-(2**0.5) / sigma * (1 + reach / edge * gap))
            values = _recurse(values, keep, axis)
    return values


def _recurse(values: Tensor, keep: Tensor, axis: int) -> Tensor:
    lines = list(values.unbind(axis))
    weights = keep.unbind(axis)
    for k in range(1, len(lines)):
        lines[k] = torch.lerp(lines[k], lines[k - 1], weights[k - 1])
    for k in range(len(lines) - 2, -1, -1):
        lines[k] = torch.lerp(lines[k], lines[k + 1], weights[k])
    return torch.stack(lines, axis)
