"""How many Gaussians there are and where: the first ones, splitting and pruning."""

from dataclasses import replace

import torch
from torch import Tensor

from fvgen.cameras import Cameras
from fvgen.reconstruction.capture import Capture
from fvgen.reconstruction.gaussians import SH0, Gaussians
from fvgen.reconstruction.render import Renderer

_OPACITY = 0.85  # of points: they were matched, so most are on surfaces
_OPACITY_GUESSED = 0.5
_NEIGHBOURS = 3
_WIDTH = 0.65  # of the way to the neighbours: points of two photos overlap, and wide Gaussians blur and take time
_FRAMES = 6  # looked at for holes
_EMPTY = 0.3  # a pixel less covered than this is a hole
_STEP = 2  # pixels from one Gaussian in a hole to the next
_SEEN = 0.1  # pixels that a Gaussian must make up in a frame to count as seen there
# What a Gaussian may be: least opacity; greatest standard deviation and least distance to a camera in units of depth.
_FAINTEST, _LARGEST, _NEAREST = 0.01, 0.15, 0.05


def initial_gaussians(positions: Tensor, colors: Tensor, count: int, degree: int, seed: int) -> Gaussians:
    """Isotropic Gaussians at ``count`` of the points, drawn at random, as wide as the way to their neighbours.

    Args:
        positions: ``[P, 3]``. colors: ``[P, 3]`` uint8.
        count: at most; of fewer points all are taken.
        degree: of the spherical harmonics.
        seed: of the draw.
    """
    from scipy.spatial import cKDTree

    chosen = torch.randperm(len(positions), generator=torch.Generator().manual_seed(seed))[:count].sort().values
    means = positions[chosen].float()
    distance, _ = cKDTree(means.numpy()).query(means.numpy(), min(_NEIGHBOURS, len(means) - 1) + 1)
    spacing = torch.from_numpy(distance[:, 1:]).float().square().mean(1).sqrt()
    middle = spacing.median().clamp_min(1e-9)
    spacing = spacing.clamp(middle * 1e-2, middle * 10)  # very lonely points are not let grow
    return _isotropic(means, colors[chosen].float() / 255, _WIDTH * spacing, _OPACITY, degree)


def _isotropic(means: Tensor, colors: Tensor, scales: Tensor, opacity: float, degree: int) -> Gaussians:
    n = len(means)
    sh = means.new_zeros(n, (degree + 1) ** 2, 3)
    sh[:, 0] = (colors - 0.5) / SH0
    logit = torch.tensor(opacity).logit().item()
    identity = means.new_tensor([1.0, 0, 0, 0]).repeat(n, 1)
    return Gaussians(means, scales.log()[:, None].repeat(1, 3), identity, means.new_full((n,), logit), sh)


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
    return Gaussians.concatenate([gaussians, added.each(lambda value: value.to(device))])


def _background_depth(depth: Tensor, known: Tensor) -> Tensor:
    """``[H, W]``: the depth where known; else the farthest of the next known ones to the left, right, above, below."""
    ends = []
    for axis in (0, 1):
        for flip in (False, True):
            d, k = ((v.flip(axis) if flip else v).movedim(axis, 0) for v in (depth, known))
            places = torch.arange(len(d))[:, None].expand_as(d)
            last = torch.where(k, places, -1).cummax(0).values  # the last known place before each, -1 for none
            carried = torch.where(last >= 0, d.gather(0, last.clamp_min(0)), 0.0).movedim(0, axis)
            ends.append(carried.flip(axis) if flip else carried)
    farthest = torch.stack(ends).max(0).values
    farthest = torch.where(farthest > 0, farthest, depth[known].median())
    return torch.where(known, depth, farthest)


def contributions(gaussians: Gaussians, capture: Capture, renderer: Renderer) -> Tensor:
    """``[F, N]`` float: how many pixels each Gaussian makes up in each frame, ``sum_p w_i(p)``.

    It is the gradient of the sum of a picture with respect to a Gaussian's own colour.
    """
    rows, cameras = [], capture.cameras
    plain = gaussians.each(torch.Tensor.detach)
    views, intrinsics = (m.float().to(plain.means.device) for m in (cameras.camera_from_world, cameras.intrinsics))
    for view, matrix in zip(views, intrinsics):
        white = torch.full_like(plain.sh[:, :1], 0.5 / SH0).requires_grad_()
        drawn = renderer(replace(plain, sh=white), view, matrix, cameras.size)
        (gradient,) = torch.autograd.grad(drawn.image[..., 0].sum(), white)
        rows.append(gradient[:, 0, 0] / SH0)
    return torch.stack(rows)


def floaters(gaussians: Gaussians, capture: Capture, renderer: Renderer, depth: float) -> Tensor:
    """``[N]`` bool, True for Gaussians that should go: faint, huge, close to a camera, or seen in next to no frame.

    Args:
        gaussians: of the scene.
        capture: its frames.
        renderer: for who is seen where.
        depth: a typical depth of the scene, world units.
    """
    seen = contributions(gaussians, capture, renderer) > _SEEN
    by_photo = seen[capture.photographs].any(0) if capture.photographs else torch.zeros_like(seen[0])
    with torch.no_grad():
        lonely = ~by_photo & (seen.sum(0) < min(2, len(capture)))
        faint = gaussians.opacities < _FAINTEST
        huge = gaussians.scales.max(1).values > _LARGEST * depth
        eyes = capture.cameras.centers.to(gaussians.means)
        near = torch.cdist(gaussians.means, eyes).min(1).values < _NEAREST * depth
        return faint | huge | near | lonely
