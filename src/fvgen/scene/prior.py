"""What the depth network is told of each photo, a plane sweep at a small size, and what it answers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from fvgen.cameras import Cameras
from fvgen.models.depth import FLOOR, PLANES, DepthNetwork
from fvgen.pictures import joint_upsample
from fvgen.progress import track
from fvgen.scene.completion import complete
from fvgen.scene.sweep import (
    Winners,
    agreement,
    grey_of,
    inside,
    parallax,
    pixel_centers,
    resampled,
    similarity_volume,
    transfer,
    trust_of,
    won_by,
)

LONG = 256  # pixels on the longer side of what the network sees
_STEP = 32  # both sides are multiples of it
_SAME = 0.05  # of `t`: difference within one surface
_LEVELS = (0.1, 0.33, 1.0)  # of `high`, at which it is told which sources see a pixel


@dataclass(frozen=True)
class Evidence:
    """What matching at a small size tells of one photo.

    Attributes:
        photo: ``[3, H, W]`` float 0..1.
        camera: the photo's at that size.
        high: inverse depth, in 1 / world units, that the network takes for 1.
        volume: ``[PLANES, H/2, W/2]`` similarities -1..1 at inverse depths 0 to ``high``.
        matched: ``[6, H, W]``: ``t`` of the completed sweep (`fvgen.scene.completion`), ``t`` of the sweep's winner,
            its similarity, distinctness, agreement with the other photos, and trust.
        seen: ``[3, H/2, W/2]`` share of the sources that see a pixel at a tenth, a third and all of ``high``.
        shift: pixels that half of the picture moves by from inverse depth 0 to ``high``, in the source that moves most.
    """

    photo: Tensor
    camera: Cameras
    high: float
    volume: Tensor
    matched: Tensor
    seen: Tensor
    shift: float


@dataclass(frozen=True)
class Prior:
    """What the network says of one photo.

    Attributes:
        t: ``[H, W]``, see `scaled`: the most likely depth.
        spread: ``[H, W]`` of the Laplace distribution of ``t``.
        high: inverse depth that is taken for 1.
    """

    t: Tensor
    spread: Tensor
    high: float

    def enlarged(self, small: Tensor, photo: Tensor) -> "Prior":
        """At the size of the photo ``[3, H, W]``, its edges along the photo's; ``small [3, h, w]`` is what was seen."""
        (height, width), (rows, columns) = self.t.shape, photo.shape[1:]
        y, x = (
            (torch.arange(size, device=photo.device) + 0.5) * (have / size) - 0.5
            for size, have in ((rows, height), (columns, width))
        )
        both, usable = torch.stack([self.t, self.spread.log()]), torch.ones_like(self.t, dtype=torch.bool)
        t, spread = joint_upsample(both, usable, small, photo, y, x, lambda t, best: (t - best).abs() < _SAME)
        return replace(self, t=t, spread=spread.exp())

    @property
    def inverse_depth(self) -> Tensor:
        """``[H, W]``, above 0, in 1 / world units."""
        return ((self.t.exp() - FLOOR) * self.high).clamp(min=1e-3 * self.high)

    def within(self, share: float, inverse_depth: Tensor) -> Tensor:
        """``[H, W]`` probability that ``inverse_depth [H, W]`` errs by less than a share of itself."""
        off = scaled(inverse_depth, self.high) - self.t
        reach = share * inverse_depth / (inverse_depth + FLOOR * self.high)  # of `t`
        laplace = torch.distributions.Laplace(torch.zeros_like(off), self.spread)
        return laplace.cdf(off + reach) - laplace.cdf(off - reach)


def scaled(inverse_depth: Tensor, high: float) -> Tensor:
    """The network's scale: ``t = log(w / high + 0.02)``, of any shape."""
    return torch.log(inverse_depth.clamp(min=0) / high + FLOOR)


def network_size(width: int, height: int) -> tuple[int, int]:
    """(width, height) at which the network sees a photo: the longer side 256, both multiples of 32."""
    scale = LONG / max(width, height)
    return max(_STEP, round(width * scale / _STEP) * _STEP), max(_STEP, round(height * scale / _STEP) * _STEP)


def gather_evidence(
    photos: Sequence[Tensor], cameras: Sequence[Cameras], neighbours: Sequence[Sequence[int]], highs: Sequence[float]
) -> list[Evidence]:
    """Match each photo with its neighbours at the network's size.

    Args:
        photos: ``[3, h, w]`` float 0..1 each, of any sizes.
        cameras: one of each, at this or another size of the same shape.
        neighbours: of each photo, those to match it with, one at least.
        highs: of each photo, the inverse depth up to which surfaces are looked for.
    """
    small, greys, views = list[Tensor](), list[Tensor](), list[Cameras]()
    for k, photo in enumerate(photos):
        width, height = network_size(photo.shape[2], photo.shape[1])
        small.append(resampled(photo, height, width))
        greys.append(grey_of(small[-1]))
        views.append(cameras[k].resized(width, height))
    won, volumes = list[Winners](), list[Tensor]()
    for k, grey in enumerate(track(greys, "matching")):
        planes = torch.linspace(0, highs[k], PLANES, device=grey.device)
        volume = similarity_volume(grey, views[k], [(greys[j], views[j]) for j in neighbours[k]], planes)
        won.append(won_by(volume, grey, planes))
        volumes.append(F.avg_pool2d(volume.movedim(-1, 0)[None], 2)[0])
    found = []
    for k, winners in enumerate(won):
        agreed = agreement(k, views, [w.inverse_depth for w in won], neighbours[k])
        trust = agreed * trust_of(winners)
        whole = complete(winners.inverse_depth, trust, small[k])
        ts = (scaled(inverse, highs[k]) for inverse in (whole, winners.inverse_depth))
        matched = torch.stack([*ts, winners.similarity, winners.distinctness, agreed, trust])
        sources, levels = [views[j] for j in neighbours[k]], whole.new_tensor([0.0, *_LEVELS]) * highs[k]
        seen, shift = _seen(views[k], sources, levels[1:]), parallax(views[k], sources, levels[[0, -1]])
        found.append(Evidence(small[k], views[k], highs[k], volumes[k], matched, seen, shift))
    return found


def _seen(camera: Cameras, sources: list[Cameras], levels: Tensor) -> Tensor:
    """`Evidence.seen`, at inverse depths ``levels [3]``."""
    width, height = camera.size
    there = levels[:, None, None].expand(-1, height, width)
    seen = [inside(*transfer(camera, source, there), source).float() for source in sources]
    return F.avg_pool2d(torch.stack(seen).mean(0)[None], 2)[0]


def network_inputs(one: Evidence) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The four arguments of `DepthNetwork`, without their batch axis.

    ``[3, H, W]``, ``[PLANES, H/2, W/2]``, ``[CHANNELS, H/2, W/2]`` and ``[6, H, W]``.
    """
    matched, trust = one.matched, one.matched[5]
    height, width = matched.shape[1:]
    halves = F.avg_pool2d(matched[None], 2)[0]
    level = (matched[1] * trust).sum() / trust.sum().clamp(min=1e-3)
    x, y = (pixel_centers(height // 2, width // 2, matched.device)[..., :2] * 2).unbind(-1)
    (fx, _, cx), (_, fy, cy) = one.camera.intrinsics[0, :2].tolist()
    rays = torch.stack([(x - cx) / fx, (y - cy) / fy])
    flat = torch.ones_like(rays[:1])
    hints = [halves, halves[:1] - level, flat * level, one.seen, rays, flat * (math.log1p(one.shift) / 4)]
    return one.photo, one.volume, torch.cat(hints), matched


@lru_cache(maxsize=2)
def _packaged(device: torch.device) -> DepthNetwork:
    return DepthNetwork.packaged().to(device)


@torch.no_grad()
def ask(one: Evidence, network: DepthNetwork | None = None) -> Prior:
    """The depth network's answer for one photo; by default the network is the packaged one."""
    network = network or _packaged(one.photo.device)
    out, _ = network(*(part[None] for part in network_inputs(one)))
    return Prior(out[0, 0], out[0, 1].exp(), one.high)
