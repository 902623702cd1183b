"""Depth of each photo: range, plane sweep, agreement between the photos, a network's expectation, completion."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from fvgen.cameras import Cameras
from fvgen.errors import UserError
from fvgen.models.depth import DepthNetwork
from fvgen.pictures import to_bytes
from fvgen.progress import track
from fvgen.scene.completion import TRUSTED, complete
from fvgen.scene.prior import Prior, ask, gather_evidence
from fvgen.scene.sweep import (
    Winners,
    agreement,
    grey_of,
    inside,
    parallax,
    resampled,
    signs_of,
    sweep,
    transfer,
    trust_of,
)

_COARSE_SIDE = 128
_COARSE_PLANES = 64
_RESCALED = 3.0  # a surface that another photo shows larger or smaller by this is not matched
_MIN_PLANES, _MAX_PLANES = 24, 128
_SOURCES = 4
_AROUND = 16
_NEARER = 1.25  # times the largest matched inverse depth: the network may expect surfaces nearer than that
_EXPECTED = 0.003  # weight of what the network is sure of, of the sweep's 0 to 1
# Logistic regression, on procedural scenes, of being right within 2 %: constant, what the network says (logit), and
# where the sweep is kept its share, agreement, similarity and distinctness.
_RIGHT = (0.065, 0.64, -2.278, 1.624, 0.825, 2.144)


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


def without_masked(found: DepthMap, camera: Cameras, mask: Tensor | None) -> DepthMap:
    """The map without depth where a mask says that the photo's pixels are not to be used, or their neighbours.

    So no point comes from there, and no colour is looked up there.

    Args:
        found: of a photo; it may show a part of it only.
        camera: the photo's, at the size of the mask.
        mask: ``[H, W]`` bool, False where pixels are not to be used; ``None`` leaves the map as it is.
    """
    if mask is None:
        return found
    height, width = found.depth.shape
    to_photo = (camera.intrinsics[0] @ torch.linalg.inv(found.cameras.intrinsics[0])).float()
    v, u = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    size = torch.tensor([mask.shape[1], mask.shape[0]])
    where = torch.stack([u * to_photo[0, 0] + to_photo[0, 2], v * to_photo[1, 1] + to_photo[1, 2]], -1) / size * 2 - 1
    reach = 2 * max(1, math.ceil(float(to_photo[0, 0]))) + 1  # a pixel of the map around
    hidden = F.max_pool2d((~mask).float()[None, None], reach, 1, reach // 2)
    kept = F.grid_sample(hidden, where[None].float(), "nearest", "border", align_corners=False)[0, 0] < 0.5
    return replace(found, depth=found.depth * kept, confidence=found.confidence * kept)


@dataclass(frozen=True)
class _View:
    image: Tensor
    grey: Tensor
    camera: Cameras


def _view(image: Tensor, camera: Cameras, long_side: int) -> _View:
    """The photo at ``long_side`` (never enlarged), ``image [3, h, w]`` float 0..1."""
    height, width = image.shape[-2:]
    scale = min(1.0, long_side / max(height, width))
    image = resampled(image, max(8, round(height * scale)), max(8, round(width * scale)))
    return _View(image, grey_of(image), camera.resized(image.shape[2], image.shape[1]))


def estimate_depths(
    images: list[Tensor],
    cameras: Cameras,
    long_side: int = 512,
    device: torch.device | str = "cpu",
    sparse_points: Tensor | None = None,
    network: DepthNetwork | None = None,
) -> list[DepthMap]:
    """Dense depth of every photo: a network's expectation, made precise by a multi-view plane sweep where photos match.

    Args:
        images: uint8 ``[H, W, 3]`` sRGB.
        cameras: one per image, at the images' sizes.
        long_side: the longer side, in pixels, at which depth is estimated.
        device: where to compute; the result is on the CPU.
        sparse_points: ``[S, 3]`` world points known to lie on surfaces; they set the depth range.
        network: on ``device``; the packaged one by default.

    Returns:
        One map per photo. Its confidence is the probability that depth is right within 2 %.

    Raises:
        UserError: if there are fewer than two photos, or no depth puts two photos' surfaces on top of each other.
    """
    maps = []
    for view, inverse, told in depths_and_signs(images, cameras, long_side, device, sparse_points, network):
        confidence = torch.sigmoid(told @ told.new_tensor(_RIGHT)).clamp(0.02, 1)
        picture = to_bytes(view.image.movedim(0, -1))
        maps.append(DepthMap((1 / inverse).cpu(), confidence.cpu(), view.camera, picture))
    return maps


def depths_and_signs(
    images: list[Tensor],
    cameras: Cameras,
    long_side: int,
    device: torch.device | str,
    sparse_points: Tensor | None,
    network: DepthNetwork | None,
) -> Iterator[tuple[_View, Tensor, Tensor]]:
    """Of each photo what it is seen as, inverse depth ``[H, W]``, and ``[H, W, 6]`` from which confidence is told."""
    if len(images) < 2:
        raise UserError("depth needs at least two photos of the same place: give one more")
    full = [_view(im.to(device).movedim(-1, 0).float() / 255, cameras[i], long_side) for i, im in enumerate(images)]
    small = [_view(v.image, v.camera, _COARSE_SIDE) for v in full]
    near = [neighbours_of(cameras, i) for i in range(len(full))]
    ranges = _ranges(small, near, sparse_points)
    views = [v.camera for v in full]
    told = gather_evidence([v.image for v in full], views, near, [_NEARER * high for _, high in ranges])
    results = []
    for i in track(range(len(full)), "depth"):
        sources = [full[j] for j in near[i]]
        apart = parallax(views[i], [s.camera for s in sources], torch.tensor(ranges[i], device=full[i].grey.device))
        count = int(min(max(apart, _MIN_PLANES), _MAX_PLANES))  # about a pixel of parallax from each to the next
        planes = torch.linspace(*ranges[i], count, device=full[i].grey.device)
        results.append(sweep(full[i].grey, full[i].camera, [(s.grey, s.camera) for s in sources], planes))
    for i, view in enumerate(full):
        agreed = agreement(i, views, [r.inverse_depth for r in results], near[i])
        prior = ask(told[i], network).enlarged(told[i].photo, view.image)
        yield view, *_combined(prior, results[i], agreed, view.image)


def _combined(prior: Prior, won: Winners, agreed: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
    """Inverse depth ``[H, W]``, and ``[H, W, 6]`` from which its confidence is told.

    The sweep's where it is to be trusted; elsewhere planes through that and, with little weight, what the network
    expects: it knows what is where, but not so smoothly as surfaces are.
    """
    matched = agreed * trust_of(won)
    keep = (matched / TRUSTED).clamp(0, 1)
    inverse = torch.lerp(prior.inverse_depth, won.inverse_depth, keep)
    trust = torch.maximum(matched, _EXPECTED * prior.within(0.1, inverse))
    inverse = complete(inverse, trust, image).clamp(min=1e-3 * prior.high)
    similar, distinct = signs_of(won)
    expected = prior.within(0.02, inverse).clamp(1e-4, 1 - 1e-4).logit()
    return inverse, torch.stack(
        [torch.ones_like(keep), expected, keep, keep * agreed, keep * similar, keep * distinct], -1
    )


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


def neighbours_of(cameras: Cameras, i: int) -> list[int]:
    """The photos to match with: near, but not at the same place."""
    moved = (cameras.centers - cameras.centers[i]).norm(dim=-1) > 0
    return [j for j in by_nearness(cameras, i) if moved[j]][:_SOURCES]


def _seen(view: _View, source: _View, w: Tensor) -> Tensor:
    """``[D]`` share of the view's pixels that the source shows, at about their size, at inverse depths ``w [D]``."""
    height, width = view.grey.shape
    pixels, z = transfer(view.camera, source.camera, w[:, None, None].expand(-1, height, width))
    return (inside(pixels, z, source.camera) & (z < _RESCALED) & (z > 1 / _RESCALED)).float().mean((1, 2))


def _ranges(views: list[_View], near: list[list[int]], points: Tensor | None) -> list[tuple[float, float]]:
    """Smallest and largest inverse depth in each photo: of the points, else of what small pictures agree on."""
    known = [None if points is None else _range_of_points(view, points) for view in views]
    asked = {j for i, found in enumerate(known) if not found for j in (i, *near[i][:2])}
    won = {i: _coarse(views[i], [views[j] for j in near[i][:2]]) for i in sorted(asked)}
    cameras, inverse = [v.camera for v in views], {i: w.inverse_depth for i, w in won.items()}
    ranges = []
    for i, found in enumerate(known):
        if not found:
            sure = agreement(i, cameras, inverse, near[i][:2]) * trust_of(won[i])
            least = min(0.3, sure.flatten().quantile(0.9).item())  # where hardly anything agrees, of the best tenth
            found = _widened(*(inverse[i][sure >= least].quantile(q).item() for q in (0.01, 0.99)))
        ranges.append(found)
    return ranges


def _coarse(view: _View, sources: list[_View]) -> Winners:
    """The sweep of a small picture over all depths at which its nearest source can show it."""
    baseline = (view.camera.centers - sources[0].camera.centers).norm().item()
    trial = torch.cat([torch.zeros(1), torch.logspace(-4, 1.5, 160)]).to(view.grey) / baseline
    possible = trial[_seen(view, sources[0], trial) > 0.15]
    if len(possible) < 2:
        raise UserError("two photos share no part of the scene: give photos that overlap by a third or more")
    planes = torch.linspace(possible[0].item(), possible[-1].item(), _COARSE_PLANES, device=trial.device)
    return sweep(view.grey, view.camera, [(s.grey, s.camera) for s in sources], planes)


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
