"""The plane sweep of one picture: matching cost over inverse-depth planes, semi-global aggregation, winners."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from fvgen.cameras import Cameras
from fvgen.cameras.cameras import plane_motion

_PLANES_AT_ONCE = 8  # keeps the working set of a few planes near the cache
_REACH = 2  # windows of 5x5 and 15x15 pixels
_NOISE = 4e-5  # variance (grey 0..1) below which texture is taken for sensor noise
_WORST = 0.37  # of costs in 0..1: a hidden or changed spot shall not shout down its neighbours
_PENALTY_SMALL = 0.15
_PENALTY_JUMP = 6.0
_EDGE = 0.1


@dataclass(frozen=True)
class Winners:
    """The best plane per pixel.

    Attributes:
        inverse_depth: ``[H, W]`` 1 / z with sub-plane precision.
        similarity: ``[H, W]`` correlation in -1..1 at the winner, before aggregation.
        distinctness: ``[H, W]`` 0..1, how far the aggregated cost lies under the best one elsewhere.
    """

    inverse_depth: Tensor
    similarity: Tensor
    distinctness: Tensor


def grey_of(image: Tensor) -> Tensor:
    """``[H, W]`` luma of ``[3, H, W]`` sRGB."""
    return (image * image.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0)


def resampled(image: Tensor, height: int, width: int) -> Tensor:
    """``[3, height, width]`` of ``[3, h, w]`` in 0..1: itself, or bicubic and antialiased."""
    if image.shape[-2:] == (height, width):
        return image
    return F.interpolate(image[None], (height, width), mode="bicubic", antialias=True, align_corners=False)[0].clamp(
        0, 1
    )


def pixel_centers(height: int, width: int, device: torch.device | str) -> Tensor:
    """The pixel centres of a picture in homogeneous coordinates, ``[H, W, 3]``."""
    y, x = torch.meshgrid(
        torch.arange(height, device=device) + 0.5, torch.arange(width, device=device) + 0.5, indexing="ij"
    )
    return torch.stack([x, y, torch.ones_like(x)], -1)


def transfer(reference: Cameras, source: Cameras, inverse_depth: Tensor) -> tuple[Tensor, Tensor]:
    """Where reference pixels at ``inverse_depth [..., H, W]`` lie in the source.

    Returns:
        ``[..., H, W, 2]`` source pixels and ``[..., H, W]`` source depth times ``inverse_depth`` (behind if <= 0).
    """
    a, b = (t.to(inverse_depth) for t in plane_motion(reference, source))
    rays = pixel_centers(inverse_depth.shape[-2], inverse_depth.shape[-1], inverse_depth.device) @ a.T
    x, y, z = (rays[..., k] + b[k] * inverse_depth for k in range(3))
    scale = 1 / z.clamp(min=1e-6)
    return torch.stack([x * scale, y * scale], -1), z


def parallax(camera: Cameras, sources: Sequence[Cameras], ends: Tensor) -> float:
    """Pixels that half of the picture moves by between inverse depths ``ends [2]``, in the source that moves most."""
    width, height = camera.size
    moved = [0.0]
    for source in sources:
        pixels, z = transfer(camera, source, ends[:, None, None].expand(-1, height, width))
        way = (pixels[1] - pixels[0]).norm(dim=-1)[(z > 0.05).all(0)]
        if len(way):
            moved.append(way.median().item())
    return max(moved)


def sample(image: Tensor, pixels: Tensor) -> Tensor:
    """Bilinear ``image [C, h, w]`` at ``pixels [D, H, W, 2]``, borders repeated: ``[D, C, H, W]``."""
    size = torch.tensor([image.shape[-1], image.shape[-2]], device=image.device, dtype=pixels.dtype)
    grid = (pixels * (2 / size) - 1).clamp(-4, 4)
    return F.grid_sample(image.expand(len(grid), -1, -1, -1), grid, align_corners=False, padding_mode="border")


def inside(pixels: Tensor, z: Tensor, camera: Cameras) -> Tensor:
    """Where ``pixels [..., 2]`` lie in the camera's picture and before it (``z`` > 0)."""
    width, height = camera.size
    x, y = pixels.unbind(-1)
    return (x > 0) & (x < width) & (y > 0) & (y < height) & (z > 0)


def box_mean(x: Tensor, reach: int, spacing: int = 1) -> Tensor:
    """Means over (2 reach + 1)^2 windows of taps ``spacing`` apart, of ``[..., H, W]``, borders repeated.

    Shifted additions beat pooling on CPU.
    """
    far = reach * spacing
    for axis in (-1, -2):
        length = x.shape[axis]
        ends = [x.narrow(axis, 0, 1), x.narrow(axis, length - 1, 1)]
        shape = [-1] * x.ndim
        shape[axis] = far
        padded = torch.cat([ends[0].expand(shape), x, ends[1].expand(shape)], axis)
        x = padded.narrow(axis, 0, length) + padded.narrow(axis, 2 * far, length)
        for k in range(spacing, 2 * far, spacing):
            x += padded.narrow(axis, k, length)
    return x.mul_(1 / (2 * reach + 1) ** 2)


def _windows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Means over a small window and over one three times as wide, built from it."""
    small = box_mean(x, _REACH)
    return small, box_mean(small, 1, 2 * _REACH + 1)


def _correlation(reference: Tensor, own: list[tuple[Tensor, Tensor]], warped: Tensor) -> Tensor:
    """Zero-mean normalised correlation of ``reference [H, W]`` with ``warped [D, H, W]``, mean of two window sizes.

    Insensitive to gain and offset of exposure; windows without texture come out near 0. ``own`` has the reference's
    mean and inverse deviation for each window size.
    """
    mean, square, joint = _windows(warped), _windows(warped * warped), _windows(warped * reference)
    total = torch.zeros_like(warped)
    for k, (own_mean, own_scale) in enumerate(own):
        scale = square[k].addcmul_(mean[k], mean[k], value=-1).clamp_(min=0).add_(_NOISE).rsqrt_()
        total += joint[k].addcmul_(mean[k], own_mean, value=-1).mul_(scale).mul_(own_scale)
    return total.mul_(0.5)


def similarity_volume(
    reference: Tensor, camera: Cameras, sources: list[tuple[Tensor, Cameras]], planes: Tensor
) -> Tensor:
    """How alike the pictures are at each pixel and plane: ``[H, W, D]`` correlation in -1..1, 0 where nothing is seen.

    Of several sources the better half counts, so that a pixel hidden in some is still matched in the others.
    """
    height, width = reference.shape
    volume = reference.new_empty(height, width, len(planes))
    moments = zip(_windows(reference), _windows(reference * reference))
    own = [(mean, torch.rsqrt((square - mean * mean).clamp(min=0) + _NOISE)) for mean, square in moments]
    for first in range(0, len(planes), _PLANES_AT_ONCE):
        chunk = planes[first : first + _PLANES_AT_ONCE]
        scores = []
        for picture, other in sources:
            pixels, z = transfer(camera, other, chunk[:, None, None].expand(-1, height, width))
            warped = sample(picture[None], pixels)[:, 0]
            scores.append(_correlation(reference, own, warped).mul_(inside(pixels, z, other)))
        best = scores[0]
        if len(scores) > 1:
            best = torch.stack(scores).sort(0, descending=True).values[: (len(scores) + 1) // 2].mean(0)
        volume[..., first : first + len(chunk)] = best.movedim(0, -1)
    return volume


def aggregate(cost: Tensor, guide: Tensor) -> Tensor:
    """Semi-global aggregation (Hirschmueller 2008) of ``cost [H, W, D]`` along eight directions.

    Small steps between neighbouring planes cost little, jumps cost more except where ``guide [H, W]`` (grey 0..1)
    has an edge: flat and slanted surfaces stay whole, and depth breaks where the picture does.
    """
    total = torch.zeros_like(cost)
    for axis in (0, 1):
        lines, outs, grey = (t.transpose(0, axis) if axis else t for t in (cost, total, guide))
        for shift in (-1, 0, 1) if axis == 0 else (0,):
            _one_way(lines, outs, grey, shift, range(len(lines)))
            _one_way(lines, outs, grey, shift, range(len(lines) - 1, -1, -1))
    return total


def _one_way(cost: Tensor, total: Tensor, guide: Tensor, shift: int, order: range) -> None:
    """One direction: line after line in ``order``, the predecessor of x is x - shift on the line before."""
    _, width, planes = cost.shape
    here = slice(max(shift, 0), width + min(shift, 0))  # pixels that have a predecessor, and these predecessors
    there = slice(max(-shift, 0), width - max(shift, 0))
    alone = slice(0, 0) if not shift else slice(0, 1) if shift > 0 else slice(width - 1, width)
    padded = cost.new_full((width, planes + 2), float("inf"))
    path = padded[:, 1:-1]
    path.copy_(cost[order[0]])
    total[order[0]].add_(path)
    jumps = _jumps(guide, here, there, order.step)
    best, least = torch.empty_like(path[there]), path.new_empty(width, 1)[there]
    for before, line in zip(order, order[1:]):
        torch.amin(path[there], 1, keepdim=True, out=least)
        torch.minimum(padded[there, :-2], padded[there, 2:], out=best).add_(_PENALTY_SMALL)
        torch.minimum(best, path[there], out=best)
        torch.minimum(best, least + jumps[min(before, line)][:, None], out=best).sub_(least)
        torch.add(cost[line][here], best, out=path[here])
        path[alone] = cost[line][alone]
        total[line].add_(path)


def _jumps(guide: Tensor, here: slice, there: slice, step: int) -> Tensor:
    """``[lines - 1, w]``: what a jump between planes costs from one line to the next, less where the guide changes."""
    first, second = (there, here) if step > 0 else (here, there)
    change = guide[1:, second] - guide[:-1, first]
    return change.abs_().mul_(-1 / _EDGE).exp_().mul_(_PENALTY_JUMP).add_(_PENALTY_SMALL)


def pick(similarity: Tensor, total: Tensor, planes: Tensor) -> Winners:
    """The winning plane per pixel, refined by a parabola through its neighbours.

    Args:
        similarity: ``[H, W, D]`` of `similarity_volume`.
        total: ``[H, W, D]`` of `aggregate`.
        planes: ``[D]`` inverse depths, evenly spaced.
    """
    count = len(planes)
    index = total.argmin(-1, keepdim=True)
    middle = index.clamp(1, count - 2)
    low, mid, high = (total.gather(-1, middle + k)[..., 0] for k in (-1, 0, 1))
    bend = (low - 2 * mid + high).clamp(min=1e-6)
    offset = torch.where(index[..., 0] == middle[..., 0], (0.5 * (low - high) / bend).clamp(-0.5, 0.5), 0.0)
    step = planes[1] - planes[0]
    inverse_depth = planes[index[..., 0]] + offset * step
    far = total.clone()
    for k in range(-2, 3):
        far.scatter_(-1, (index + k).clamp_(0, count - 1), float("inf"))
    other = far.amin(-1)
    best = total.gather(-1, index)[..., 0]
    distinctness = ((other - best) / other.clamp(min=1e-6)).clamp(0, 1)
    return Winners(inverse_depth, similarity.gather(-1, index)[..., 0], distinctness)


def sweep(reference: Tensor, camera: Cameras, sources: list[tuple[Tensor, Cameras]], planes: Tensor) -> Winners:
    """Depth of ``reference [H, W]`` (grey 0..1) from ``sources`` over ``planes [D]`` (uniform in inverse depth)."""
    return won_by(similarity_volume(reference, camera, sources, planes), reference, planes)


def won_by(similarity: Tensor, reference: Tensor, planes: Tensor) -> Winners:
    """The winners over ``planes [D]`` of a volume ``[H, W, D]``, aggregated along the edges of ``reference [H, W]``."""
    return pick(similarity, aggregate((0.5 - 0.5 * similarity).clamp_(max=_WORST), reference), planes)


def signs_of(won: Winners) -> tuple[Tensor, Tensor]:
    """How alike and how distinct the winners are, ``[H, W]`` each, from nothing 0 to enough 1."""
    return ((won.similarity - 0.2) / 0.6).clamp(0, 1), (won.distinctness / 0.1).clamp(0, 1)


def trust_of(won: Winners) -> Tensor:
    """Trust ``[H, W]`` in 0..1 from the match alone."""
    similar, distinct = signs_of(won)
    return similar.sqrt() * distinct.sqrt()


def agreement(
    i: int, cameras: Sequence[Cameras], inverse_depths: Sequence[Tensor] | dict[int, Tensor], others: Sequence[int]
) -> Tensor:
    """1 where another photo's own depth brings a pixel back to where it started, falling to 0 at 3 pixels.

    Args:
        i: the photo.
        cameras: of all photos.
        inverse_depths: ``[h, w]`` of each that is asked for.
        others: the photos to compare with.

    Returns:
        ``[h, w]``.
    """
    inverse = inverse_depths[i]
    best = torch.zeros_like(inverse)
    start = pixel_centers(inverse.shape[0], inverse.shape[1], inverse.device)[..., :2]
    for j in others:
        pixels, z = transfer(cameras[i], cameras[j], inverse)
        there = sample(inverse_depths[j][None], pixels[None])[0, 0]
        a, b = (t.to(inverse) for t in plane_motion(cameras[j], cameras[i]))
        back = torch.cat([pixels, torch.ones_like(pixels[..., :1])], -1) @ a.T + there[..., None] * b
        error = (back[..., :2] / back[..., 2:].clamp(min=1e-6) - start).norm(dim=-1)
        best = torch.maximum(best, torch.where(inside(pixels, z, cameras[j]), (1.5 - error / 2).clamp(0, 1), 0.0))
    return best
