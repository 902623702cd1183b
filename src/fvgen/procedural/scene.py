"""A scene with its light and its camera move, and the pictures and depth that a camera gets of it."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from fvgen.cameras import Cameras
from fvgen.procedural.camera import Lens, film_move, random_lens
from fvgen.procedural.light import ShadowMap
from fvgen.procedural.places import KINDS, SHARES, Setting
from fvgen.procedural.raster import Keep, Visible, rasterise
from fvgen.procedural.shade import Surfaces, shade, sky_colors
from fvgen.procedural.textures import TextureBank

SKY_DEPTH = 200.0  # metres
_SUN_MAP, _LAMP_MAP = 768, 384


@dataclass(frozen=True)
class ProceduralScene:
    """Something to film, and a camera move through it.

    Attributes:
        kind: what it is, see :data:`fvgen.procedural.places.KINDS`.
        setting: mesh, light and sky.
        surfaces: the mesh on a device.
        lamps: the setting's, with their shadows.
        lens: what the camera does to light.
        cameras: ``T`` cameras of one size.
    """

    kind: str
    setting: Setting
    surfaces: Surfaces
    lamps: list[ShadowMap]
    lens: Lens
    cameras: Cameras

    @property
    def device(self) -> torch.device:
        """Where pictures are made."""
        return self.surfaces.positions.device

    def film(self, cameras: Cameras, times: Tensor | None = None) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Pictures ``[N, H, W, 3]`` uint8 and exact z-depths ``[N, H, W]`` float32 at ``cameras``.

        Depth is that of the nearest surface in a pixel, at the pixel's centre; ``SKY_DEPTH`` where there is only sky.

        Args:
            cameras: of one size.
            times: ``[N]`` moments of the clip, 0 to 1: exposure may change along it, and noise differs.
        """
        times = torch.zeros(len(cameras)) if times is None else times
        pictures, depths = [], []
        step = 1 if self.device.type == "cpu" else 8  # one picture fits a core's cache
        for first in range(0, len(cameras), step):
            light, depth = self.look(cameras[slice(first, first + step)])
            pictures.append(self.lens.develop(light, times[first : first + step]))
            depths.append(depth)
        return torch.cat(pictures).cpu().numpy(), torch.cat(depths).cpu().numpy()

    def look(self, cameras: Cameras) -> tuple[Tensor, Tensor]:
        """Linear light ``[N, H, W, 3]`` and z-depths ``[N, H, W]``, on the device."""
        width, height = cameras.size
        large = cameras.resized(width * 2, height * 2)
        seen = self._visible(large)
        reflected = self._reflection(cameras) if self.setting.mirror is not None else None
        facet, inverse = _by_pixel(seen.facet), _by_pixel(seen.inverse_depth)
        # Of a pixel, a colour is worked out once for all samples of the same smooth surface, in their middle.
        sheet = torch.where(facet >= 0, self.surfaces.sheet[seen.facets.face[facet.clamp(min=0)]], -1)
        whole = (sheet == sheet[:, :1]).all(1) & (inverse.amax(1) <= inverse.amin(1) * 1.03)
        light = torch.zeros(len(facet), 3, device=self.device)
        pixel = whole.nonzero()[:, 0]
        light[pixel] = self._shaded(seen, large, facet[pixel, 0], pixel, 1.0, 1.0, 2.0, reflected)
        mixed = (~whole).nonzero()[:, 0]
        same = facet[mixed][:, :, None] == facet[mixed][:, None, :]
        row, k = (same.int().argmax(2) == torch.arange(4, device=self.device)).nonzero(as_tuple=True)
        share = same[row, k].float()
        count = share.sum(1)
        dx, dy = ((share * share.new_tensor(at)).sum(1) / count for at in ([0.5, 1.5, 0.5, 1.5], [0.5, 0.5, 1.5, 1.5]))
        pixel = mixed[row]
        sample = self._shaded(seen, large, facet[pixel, k], pixel, dx, dy, 1.0, reflected)
        light.index_add_(0, pixel, sample * (count / 4)[:, None])
        return light.view(-1, height, width, 3), self._depth(seen, facet, inverse, width, height)

    def _visible(self, cameras: Cameras, mirrored: bool = False) -> Visible:
        transforms = cameras.camera_from_world
        surfaces, solid = self.surfaces, self.surfaces.solid
        cut = surfaces.cut
        keep: Keep = surfaces.kept
        if mirrored and self.setting.mirror is not None:
            transforms = transforms @ self.setting.mirror_matrix
            solid = solid | surfaces.mirrors
            cut, keep = surfaces.above(self.setting.mirror)
        projections = (cameras.intrinsics @ transforms[:, :3]).to(self.device)
        return rasterise(surfaces.positions, surfaces.faces, solid, projections, cameras.size, cut, keep, mirrored)

    def _shaded(
        self, seen: Visible, cameras: Cameras, facet: Tensor, pixel: Tensor, dx: Any, dy: Any, width: float,
        reflected: Tensor | None = None, eyes: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Light at ``(dx, dy)`` of the 2 x 2 samples of some pixels (flat over all pictures) of ``cameras`` / 2."""
        across, down = cameras.size[0] // 2, cameras.size[1] // 2
        x = (pixel % across).float() * 2 + dx
        y = (torch.div(pixel, across, rounding_mode="floor") % down).float() * 2 + dy
        view = torch.div(pixel, across * down, rounding_mode="floor")
        out = torch.zeros(len(pixel), 3, device=self.device)
        rows = (facet >= 0).nonzero()[:, 0]
        centers = cameras.centers.float().to(self.device) if eyes is None else eyes
        focal = cameras.intrinsics[:, 0, 0].float().to(self.device)
        if len(rows):
            out[rows] = shade(
                self.surfaces, seen.facets, facet[rows], x[rows], y[rows], width, centers, focal, self.lamps,
                self.setting.around, None if reflected is None else reflected[pixel[rows]],
            )  # fmt: skip
        rows = (facet < 0).nonzero()[:, 0]
        if len(rows):
            inverse = torch.linalg.inv(cameras.intrinsics)
            turned = cameras.world_from_camera[:, :3, :3] @ inverse
            if eyes is not None:
                turned = self.setting.mirror_matrix[:3, :3] @ turned
            rays = torch.stack([x[rows], y[rows], torch.ones_like(x[rows])], 1)
            per_view = turned.float().to(self.device)[view[rows]]
            sky = torch.from_numpy(self.setting.sky).to(self.device)
            out[rows] = sky_colors(sky, (per_view * rays[:, None]).sum(-1))
        return out

    def _reflection(self, cameras: Cameras) -> Tensor:
        """``[N * H * W, 3]`` what the mirror plane shows at each pixel, a little blurred."""
        width, height = cameras.size
        seen = self._visible(cameras, mirrored=True)
        doubled = cameras.resized(width * 2, height * 2)
        matrix = self.setting.mirror_matrix
        eyes = (cameras.centers @ matrix[:3, :3].T + matrix[:3, 3]).float().to(self.device)
        rows = seen.facets.rows * seen.facets.rows.new_tensor([0.5, 0.5, 1])
        scaled = replace(seen, facets=replace(seen.facets, origin=seen.facets.origin * 2, rows=rows))
        pixel = torch.arange(seen.facet.numel(), device=self.device)
        light = self._shaded(scaled, doubled, seen.facet.flatten(), pixel, 1.0, 1.0, 2.0, eyes=eyes)
        planes = light.view(-1, height, width, 3).movedim(-1, 1)
        return F.avg_pool2d(planes, 3, 1, 1, count_include_pad=False).movedim(1, -1).reshape(-1, 3)

    def _depth(self, seen: Visible, facet: Tensor, inverse: Tensor, width: int, height: int) -> Tensor:
        nearest, which = inverse.max(1)
        depth = torch.full_like(nearest, SKY_DEPTH)
        rows = (nearest > 0).nonzero()[:, 0]
        x, y = (rows % width).float() * 2 + 1, (torch.div(rows, width, rounding_mode="floor") % height).float() * 2 + 1
        middle = seen.facets.weights(facet[rows, which[rows]], x, y)[1]
        # Nearly edge-on, half a pixel is far along the surface.
        depth[rows] = 1 / torch.maximum(torch.minimum(middle, nearest[rows] * 1.25), nearest[rows] * 0.8)
        return depth.clamp(max=SKY_DEPTH).view(-1, height, width)


def _by_pixel(samples: Tensor) -> Tensor:
    """``[P, 4]``: the 2 x 2 samples of each pixel of ``[N, 2 H, 2 W]``."""
    count, height, width = samples.shape
    return samples.view(count, height // 2, 2, width // 2, 2).permute(0, 1, 3, 2, 4).reshape(-1, 4)


def procedural_scene(
    seed: int,
    frames: int = 16,
    width: int = 256,
    height: int = 160,
    bank: TextureBank | None = None,
    device: torch.device | str = "cpu",
    kind: str | None = None,
) -> ProceduralScene:
    """One scene and a camera move; deterministic by ``seed`` (and by the bank's photographs).

    Args:
        seed: of everything random.
        frames: number of cameras ``T``.
        width: of their pictures, in pixels.
        height: of their pictures, in pixels.
        bank: where photographs for textures come from; procedural textures only by default.
        device: where pictures are made; the CPU's, with one thread, are the same bytes every time.
        kind: of :data:`fvgen.procedural.places.KINDS`; a random one by default.
    """
    rng = np.random.default_rng(seed)
    names = list(KINDS)
    drawn = names[rng.choice(len(names), p=SHARES)]
    chosen = kind or drawn
    setting, looks, stage = KINDS[chosen](rng, bank or TextureBank(photo_share=0.0))
    surfaces = Surfaces.of(setting.mesh, looks.pyramids, looks.masks, device)
    sizes = [_SUN_MAP if lamp.distant else _LAMP_MAP for lamp in setting.lamps]
    lamps = [ShadowMap.of(la, surfaces.positions, surfaces.faces, size) for la, size in zip(setting.lamps, sizes)]
    cameras = film_move(rng, stage, setting.mesh, frames, width, height)
    scene = ProceduralScene(chosen, setting, surfaces, lamps, random_lens(rng, seed), cameras)
    middle = cameras[[0, frames // 2, frames - 1]].resized(64, max(8, round(64 * height / width)))
    return replace(scene, lens=scene.lens.exposed_for(scene.look(middle)[0]))
