"""How many Gaussians there are and where: the first ones, splitting and pruning."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fvgen.cameras import Cameras
from fvgen.reconstruction.capture import Capture
from fvgen.reconstruction.gaussians import DEGREES, SH0, Gaussians
from fvgen.reconstruction.render import Renderer

_OPACITY = 0.85  # of points: they were matched, so most are on surfaces

_OPACITY_GUESSED = 0.5

_NEIGHBOURS = 3

_WIDTH = 0.65  # of the way to the neighbours: points of two photos overlap, and wide Gaussians blur and take time

_FRAMES = 6  # looked at for holes

_EMPTY = 0.3  # a pixel less covered than this is a hole

_STEP = 2  # pixels from one Gaussian in a hole to the next


def initial_gaussians(positions: Tensor, colors: Tensor, count: int, degree: int, seed: int) -> Gaussians:
    """Isotropic Gaussians at ``count`` of the points, drawn at random, as wide as the way to their neighbours.

    Args:
        positions: ``[P, 3]``. colors: ``[P, 3]`` uint8.
        count: at most; of fewer points all are taken.
        degree: of the spherical harmonics.
        seed: of the draw.
    """
    chosen = torch.randperm(len(positions), generator=torch.Generator().manual_seed(seed))[:count].sort().values
    means = positions[chosen].float()
    return _isotropic(means, colors[chosen].float() / 255, _WIDTH * _spacing(means), _OPACITY, degree)


def _isotropic(means: Tensor, colors: Tensor, scales: Tensor, opacity: float, degree: int) -> Gaussians:
    n = len(means)
    sh = means.new_zeros(n, {v: k for k, v in DEGREES.items()}[degree], 3)
    sh[:, 0] = (colors - 0.5) / SH0
    logit = torch.tensor(opacity).logit().item()
    identity = means.new_tensor([1.0, 0, 0, 0]).repeat(n, 1)
    return Gaussians(means, scales.log()[:, None].repeat(1, 3), identity, means.new_full((n,), logit), sh)


def _spacing(points: Tensor) -> Tensor:
    """``[N]`` root mean square distance to the nearest neighbours; very lonely points are not let grow."""
    from scipy.spatial import cKDTree

    near = min(_NEIGHBOURS, len(points) - 1)
    distance, _ = cKDTree(points.numpy()).query(points.numpy(), near + 1)
    spacing = torch.from_numpy(distance[:, 1:]).float().square().mean(1).sqrt()
    middle = spacing.median().clamp_min(1e-9)
    return spacing.clamp(middle * 1e-2, middle * 10)


def fill_holes(gaussians: Gaussians, capture: Capture, renderer: Renderer) -> Gaussians:
    """Add Gaussians where generated frames show something but no Gaussian is.

    Frames are looked at one after the other, so that what one of them fills is not filled again. In a hole the depth
    is the farther of those at its ends in the row and in the column: what opens up behind an edge is the background.
    """
    if not capture.generated:
        return gaussians
    most = min(_FRAMES, len(capture.generated))
    chosen = [capture.generated[round(k * (len(capture.generated) - 1) / max(1, most - 1))] for k in range(most)]
    for i in sorted(set(chosen), key=lambda i: abs(i - chosen[most // 2])):
        gaussians = _filled(gaussians, capture.images[i], capture.cameras[i], renderer)
    return gaussians


@torch.no_grad()
def _filled(gaussians: Gaussians, image: Tensor, camera: Cameras, renderer: Renderer) -> Gaussians:
    view, intrinsics = camera.camera_from_world[0].float(), camera.intrinsics[0].float()
    device = gaussians.means.device
    seen = renderer(gaussians, view.to(device), intrinsics.to(device), camera.size)
    alpha, depth = seen.alpha.cpu(), (seen.depth / seen.alpha.clamp_min(1e-6)).cpu()
    if not bool((alpha > 0.5).any()):
        return gaussians
    background = _background_depth(depth, alpha > 0.5)
    rows, columns = (alpha < _EMPTY)[::_STEP, ::_STEP].nonzero().unbind(1)
    rows, columns = rows * _STEP, columns * _STEP
    if len(rows) == 0:
        return gaussians
    z = background[rows, columns]
    pixels = torch.stack([columns + 0.5, rows + 0.5], 1)
    flat = (pixels - intrinsics[:2, 2]) / torch.stack([intrinsics[0, 0], intrinsics[1, 1]])
    points = torch.cat([flat * z[:, None], z[:, None]], 1)
    to_world = camera.world_from_camera[0].float()
    means = points @ to_world[:3, :3].T + to_world[:3, 3]
    scales = z / intrinsics[0, 0] * _STEP * 0.7
    added = _isotropic(means, image[rows, columns].float() / 255, scales, _OPACITY_GUESSED, gaussians.degree)
    moved = Gaussians(**{name: value.to(device) for name, value in added.parameters().items()})
    return Gaussians.concatenate([gaussians, moved])


def _background_depth(depth: Tensor, known: Tensor) -> Tensor:
    """``[H, W]``: the depth where known; else the farthest of the next known ones to the left, right, above, below."""
    ends = []
    for axis in (0, 1):
        for flip in (False, True):
            d, k = (v.flip(axis) if flip else v for v in (depth, known))
            carried = _carried(d.movedim(axis, 0), k.movedim(axis, 0)).movedim(0, axis)
            ends.append(carried.flip(axis) if flip else carried)
    farthest = torch.stack(ends).max(0).values
    farthest = torch.where(farthest > 0, farthest, depth[known].median())
    return torch.where(known, depth, farthest)


def _carried(values: Tensor, known: Tensor) -> Tensor:
    """The last known value before each place along the first axis, 0 where there was none."""
    places = torch.arange(len(values))[:, None].expand_as(values)
    last = torch.where(known, places, -1).cummax(0).values
    return torch.where(last >= 0, values.gather(0, last.clamp_min(0)), 0.0)


_SEEN = 0.1  # pixels that a Gaussian must make up in a frame to count as seen there


@dataclass(frozen=True)
class Limits:
    """What a Gaussian may be.

    Attributes:
        opacity: at least.
        size: largest standard deviation at most, in units of the scene's depth.
        near: distance to every camera at least, likewise.
    """

    opacity: float = 0.01
    size: float = 0.15
    near: float = 0.05


def contributions(gaussians: Gaussians, capture: Capture, renderer: Renderer) -> Tensor:
    """``[F, N]`` float: how many pixels each Gaussian makes up in each frame, ``sum_p w_i(p)``.

    It is the gradient of the sum of a picture with respect to a Gaussian's own colour.
    """
    rows = []
    device = gaussians.means.device
    plain = {name: value.detach() for name, value in gaussians.parameters().items()}
    for i in range(len(capture)):
        white = torch.full_like(plain["sh"][:, :1], 0.5 / SH0).requires_grad_()
        view = capture.cameras.camera_from_world[i].float().to(device)
        drawn = renderer(
            Gaussians(**{**plain, "sh": white}),
            view,
            capture.cameras.intrinsics[i].float().to(device),
            capture.cameras.size,
        )
        (gradient,) = torch.autograd.grad(drawn.image[..., 0].sum(), white)
        rows.append(gradient[:, 0, 0] / SH0)
    return torch.stack(rows)


def floaters(gaussians: Gaussians, capture: Capture, renderer: Renderer, depth: float, limits: Limits) -> Tensor:
    """``[N]`` bool, True for Gaussians that should go.

    Args:
        gaussians: of the scene.
        capture: its frames.
        renderer: for who is seen where.
        depth: a typical depth of the scene, world units.
        limits: see there.
    """
    seen = contributions(gaussians, capture, renderer) > _SEEN
    by_photo = seen[capture.photographs].any(0) if capture.photographs else torch.zeros_like(seen[0])
    with torch.no_grad():
        lonely = ~by_photo & (seen.sum(0) < min(2, len(capture)))
        faint = gaussians.opacities < limits.opacity
        huge = gaussians.scales.max(1).values > limits.size * depth
        eyes = capture.cameras.centers.to(gaussians.means)
        near = torch.cdist(gaussians.means, eyes).min(1).values < limits.near * depth
        return faint | huge | near | lonely
