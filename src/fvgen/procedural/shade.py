"""Colours of what is seen: textures with mip levels, light, highlights, reflections, haze."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fvgen.procedural.light import ShadowMap, Surroundings, openness
from fvgen.procedural.mesh import Material, Mesh
from fvgen.procedural.raster import Facets, Keep
from fvgen.procedural.textures import LEVELS, MASK, TEXTURE


@dataclass(frozen=True)
class Surfaces:
    """Mesh, textures and materials on a device, as tables.

    Attributes:
        positions: ``[V, 3]``.
        faces: ``[N, 3]``.
        solid, cut, mirrors: ``[N]`` bool: never seen from behind; cut out; shows the mirror plane's reflection.
        corners: ``[N, 3, 9]`` uv, normal, openness, position of the corners.
        density: ``[N]`` texels per metre.
        material, sheet: ``[N]``.
        table: ``[K, 13]`` gain, lift, gloss, mirror, glow, wear, texture, mask, chroma of the materials.
        texels: ``[T * n, 3]`` uint8 pyramids of the textures.
        masks: ``[Q, 128, 128]`` float32, solid where > 0.5.
    """

    positions: Tensor
    faces: Tensor
    solid: Tensor
    cut: Tensor
    mirrors: Tensor
    corners: Tensor
    density: Tensor
    material: Tensor
    sheet: Tensor
    table: Tensor
    texels: Tensor
    masks: Tensor

    @staticmethod
    def of(
        mesh: Mesh, textures: list[NDArray[np.uint8]], masks: list[NDArray[np.float32]], device: torch.device | str
    ) -> "Surfaces":
        """Put a mesh on a device, with pyramids ``[n, 3]`` of its textures and its cut-outs ``[128, 128]``."""
        positions, faces = torch.from_numpy(mesh.positions).to(device), torch.from_numpy(mesh.faces).to(device)
        uv, normals = torch.from_numpy(mesh.uv).to(device), torch.from_numpy(mesh.normals).to(device)
        material = torch.from_numpy(mesh.material).to(device)
        table = torch.tensor([_row(m) for m in mesh.materials], device=device)
        attributes = torch.cat([uv, normals, openness(mesh, device)[:, None], positions], 1)
        e1, e2 = (positions[faces[:, k]] - positions[faces[:, 0]] for k in (1, 2))
        f1, f2 = (uv[faces[:, k]] - uv[faces[:, 0]] for k in (1, 2))
        area = torch.linalg.cross(e1, e2).norm(dim=1).clamp(min=1e-9)
        density = TEXTURE * ((f1[:, 0] * f2[:, 1] - f1[:, 1] * f2[:, 0]).abs() / area).sqrt()
        blank = np.ones((1, MASK, MASK), np.float32)
        return Surfaces(
            positions,
            faces,
            torch.from_numpy(mesh.solid).to(device),
            table[material, 11] >= 0,
            table[material, 7] > 0,
            attributes[faces],
            density,
            material,
            torch.from_numpy(mesh.sheet).to(device),
            table,
            torch.from_numpy(np.concatenate(textures)).to(device),
            torch.from_numpy(np.stack(masks) if masks else blank).to(device),
        )

    def above(self, level: float) -> tuple[Tensor, Keep]:
        """For a picture of what is above a height (in metres, upwards) only: faces to be judged, and their judge."""
        heights = -self.corners[..., 7]
        sunk = (heights < level + 1e-3).any(1)

        def judge(face: Tensor, weights: Tensor, inverse: Tensor) -> Tensor:
            high = -(self.corners.index_select(0, face)[..., 7] * weights).sum(1) > level + 1e-3
            return high & (~self.cut.index_select(0, face) | self.kept(face, weights, inverse))

        return self.cut | sunk, judge

    def kept(self, face: Tensor, weights: Tensor, inverse: Tensor) -> Tensor:
        """``[P]`` bool, which hits of cut-out faces are solid there: a `fvgen.procedural.raster.Keep`."""
        uv = (self.corners.index_select(0, face)[..., :2] * weights[..., None]).sum(1).clamp(0, 1)
        mask = self.table.index_select(0, self.material.index_select(0, face))[:, 11].long()
        at = uv * MASK - 0.5
        low = at.floor()
        share = at - low
        x0, y0 = low.long().clamp(0, MASK - 1).unbind(1)
        x1, y1 = (low.long() + 1).clamp(0, MASK - 1).unbind(1)
        flat, base = self.masks.flatten(), mask * (MASK * MASK)
        a, b = (flat[base + y * MASK + x0].lerp(flat[base + y * MASK + x1], share[:, 0]) for y in (y0, y1))
        return a.lerp(b, share[:, 1]) > 0.5

    def texture(self, number: Tensor, uv: Tensor, level: Tensor) -> Tensor:
        """``[P, 3]`` linear albedo of textures ``number [P]`` at ``uv [P, 2]`` (repeating) and mip ``level [P]``."""
        low = level.clamp(0, LEVELS - 1.001).floor()
        fine = self.bilinear(number, uv, low.long())
        return fine.lerp(self.bilinear(number, uv, low.long() + 1), (level - low).clamp(0, 1)[:, None]).square()

    def bilinear(self, number: Tensor | int, uv: Tensor, level: Tensor) -> Tensor:
        """``[P, 3]`` of textures at ``uv [P, 2]`` and whole mip levels ``[P]``, as they are stored, 0..1."""
        size = TEXTURE >> level
        # Sizes of the levels before this one add up to (4^7 - 4^(8 - ...)) / 3 in units of texels.
        before = torch.div(4 * TEXTURE * TEXTURE - 4 * size * size, 3, rounding_mode="floor")
        stride = (4 * TEXTURE * TEXTURE - (TEXTURE >> (LEVELS - 1)) ** 2) // 3
        base = number * stride + before
        at = (uv - uv.floor()) * size[:, None] - 0.5
        low = at.floor()
        share = at - low
        wrap = size - 1
        x0, y0 = low.long().unbind(1)
        x1, y1 = (x0 + 1) & wrap, (y0 + 1) & wrap
        x0, y0 = x0 & wrap, y0 & wrap
        a, b = (
            self._texels(base + y * size + x0).lerp(self._texels(base + y * size + x1), share[:, :1]) for y in (y0, y1)
        )
        return a.lerp(b, share[:, 1:]) * (1 / 255)

    def _texels(self, index: Tensor) -> Tensor:
        return self.texels.index_select(0, index).float()


def _row(m: Material) -> list[float]:
    return [*m.gain, *m.lift, m.gloss, m.mirror, m.glow, m.wear, float(m.texture), float(m.mask), m.chroma]


def shade(
    surfaces: Surfaces,
    facets: Facets,
    index: Tensor,
    x: Tensor,
    y: Tensor,
    width: Tensor | float,
    eyes: Tensor,
    focal: Tensor,
    lamps: list[ShadowMap],
    around: Surroundings,
    reflected: Tensor | None = None,
) -> Tensor:
    """Linear light ``[P, 3]`` from facets at pixels.

    Args:
        surfaces: the scene.
        facets: triangles before the cameras.
        index: ``[P]`` which of them.
        x, y: ``[P]`` pixels.
        width: side of what one colour stands for, in pixels.
        eyes: ``[F, 3]`` where each camera is (for a reflection, where it seems to be).
        focal: ``[F]`` in pixels.
        lamps, around: light.
        reflected: ``[P, 3]`` what the mirror plane shows at these pixels.
    """
    weights, inverse = facets.weights(index, x, y)
    face, view = facets.face.index_select(0, index), facets.view.index_select(0, index)
    values = (surfaces.corners.index_select(0, face) * weights[..., None]).sum(1)
    uv, normal, open_, position = values.split([2, 3, 1, 3], 1)
    to_eye = eyes.index_select(0, view) - position
    distance = to_eye.norm(dim=1, keepdim=True).clamp(min=1e-4)
    to_eye = to_eye / distance
    normal = normal / normal.norm(dim=1, keepdim=True).clamp(min=1e-6)
    cosine = (normal * to_eye).sum(1, keepdim=True)
    normal = torch.where(cosine < 0, -normal, normal)
    look = surfaces.table.index_select(0, surfaces.material.index_select(0, face))
    footprint = surfaces.density.index_select(0, face) * width / (inverse.abs() * focal.index_select(0, view))
    level = 0.25 + torch.log2((footprint / cosine[:, 0].abs().clamp(min=0.15).sqrt()).clamp(min=1e-6))
    albedo = surfaces.texture(look[:, 10].long(), uv, level)
    worn = surfaces.bilinear(0, uv * 0.173, (level - 2).long().clamp(0, LEVELS - 1))[:, :1] ** 2 * 2 - 1
    grey = albedo.mean(1, keepdim=True)
    albedo = grey + (albedo - grey) * look[:, 12:13]
    albedo = (albedo * look[:, :3] + look[:, 3:6]).clamp(0.004, 0.98) * (1 + worn * look[:, 9:10]).clamp(min=0.2)
    above, below = (albedo.new_tensor(c) for c in (around.above, around.below))
    light = torch.lerp(above, below, 0.5 + 0.5 * normal[:, 1:2]) * open_.clamp(0, 1)
    shine = torch.zeros_like(light)
    for lamp in lamps:
        arriving, direction = lamp.arriving(position, normal)
        light = light + arriving
        half = torch.nn.functional.normalize(direction + to_eye, dim=1)
        shine = shine + arriving * (half * normal).sum(1, keepdim=True).clamp(min=0) ** 40
    color = albedo * (light + look[:, 8:9]) + shine * (2.0 * look[:, 6:7])
    if reflected is not None:
        share = look[:, 7:8] * (0.25 + 0.75 * (1 - cosine.abs().clamp(0, 1)) ** 3)
        color = color.lerp(reflected, share)
    if around.thickness > 0:
        veil = 1 - torch.exp(-around.thickness * distance)
        color = color.lerp(color.new_tensor(around.haze), veil)
    return color


def sky_colors(sky: Tensor, directions: Tensor) -> Tensor:
    """Linear light ``[P, 3]`` from directions ``[P, 3]`` of a panorama ``[h, w, 3]``, linear, up in its first row."""
    height, width = sky.shape[:2]
    x, y, z = torch.nn.functional.normalize(directions, dim=1).unbind(1)
    u = (torch.atan2(x, z) / (2 * torch.pi) + 0.5) * width - 0.5
    v = (torch.asin(y.clamp(-1, 1)) / torch.pi + 0.5) * height - 0.5
    x0, y0 = u.floor(), v.floor()
    a, b = (u - x0)[:, None], (v - y0)[:, None]
    columns = [x.long() % width for x in (x0, x0 + 1)]
    rows = [y.long().clamp(0, height - 1) for y in (y0, y0 + 1)]
    flat = sky.flatten(0, 1)
    top, bottom = (
        flat.index_select(0, r * width + columns[0]).lerp(flat.index_select(0, r * width + columns[1]), a) for r in rows
    )
    return top.lerp(bottom, b)
