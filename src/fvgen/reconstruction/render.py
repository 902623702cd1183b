"""Gaussians as a pinhole camera sees them: projected (EWA, Zwicker et al. 2001), coloured by harmonics, composited."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from fvgen.errors import UserError
from fvgen.packages import installed, require_renderer
from fvgen.reconstruction.gaussians import DEGREES, SH0, Gaussians

NEAR = 0.01  # world units; nearer Gaussians are not drawn
LOW_PASS = 0.3  # pixels squared, added to the splats' covariance
ALPHA_LEAST, ALPHA_MOST = 1 / 255, 0.999  # less is not drawn
LEAST_TRANSMITTANCE = 1e-4  # the splat that would take it below this, and all behind it, are not drawn
TILE = 8
_BATCH = 1 << 17  # pixels x splats at once: what fits a CPU's cache
_LAYER = 32  # splats of a tile after which those tiles are left alone that let nothing more through
_MARGIN = 0.3  # of the half picture beyond its border, where the projection is still linearised about the centre itself


@dataclass(frozen=True)
class Splats:
    """``N`` Gaussians in a picture.

    Attributes:
        centers: ``[N, 2]`` pixels, the centre of the top-left pixel is at (0.5, 0.5).
        conics: ``[N, 3]`` xx, xy and yy of the inverse covariance, 1 / pixels squared.
        depths: ``[N]`` z in the camera's axes, world units.
        reach: ``[N, 2]`` half width and height of the box outside of which a splat is fainter than ``ALPHA_LEAST``,
            pixels, no gradient; 0 for those that are not drawn.
    """

    centers: Tensor
    conics: Tensor
    depths: Tensor
    reach: Tensor

    @property
    def drawn(self) -> Tensor:
        """``[N]`` bool."""
        return self.reach[:, 0] > 0


def rotation_matrices(quaternions: Tensor) -> Tensor:
    """``[N, 3, 3]`` rotations of quaternions wxyz of any length."""
    w, x, y, z = F.normalize(quaternions, dim=1).unbind(1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, 1) for row in rows], 1)


def project(
    means: Tensor,
    scales: Tensor,
    quaternions: Tensor,
    opacities: Tensor,
    camera_from_world: Tensor,
    intrinsics: Tensor,
    size: tuple[int, int],
) -> Splats:
    """Project ``N`` Gaussians; differentiable in everything but ``size``.

    The covariance in the picture is ``J W S W' J' + 0.3 I``, where ``S`` is the one in the world, ``W`` the camera's
    rotation and ``J`` the Jacobian of the perspective division at the centre, or, for centres far outside the picture,
    at the nearest direction within 1.3 times its half extent.

    Args:
        means: ``[N, 3]``, world.
        scales: ``[N, 3]`` standard deviations along the own axes.
        quaternions: ``[N, 4]`` wxyz.
        opacities: ``[N]``.
        camera_from_world: ``[4, 4]``.
        intrinsics: ``[3, 3]``.
        size: (width, height) of the picture.
    """
    rotation = camera_from_world[:3, :3]
    seen = means @ rotation.T + camera_from_world[:3, 3]
    ahead = seen[:, 2] > NEAR
    depth = torch.where(ahead, seen[:, 2], torch.ones_like(seen[:, 2]))
    focal = torch.stack([intrinsics[0, 0], intrinsics[1, 1]])
    middle = intrinsics[:2, 2]
    flat = seen[:, :2] / depth[:, None]
    centers = flat * focal + middle
    axes = (rotation @ rotation_matrices(quaternions)) * scales[:, None]  # [N, 3, 3], columns are the own axes
    edge = torch.tensor(size).to(flat)
    margin = _MARGIN * 0.5 * edge / focal
    at = flat.maximum(-middle / focal - margin).minimum((edge - middle) / focal + margin)
    across = (axes[:, :2] - at[..., None] * axes[:, 2:]) * (focal / depth[:, None])[..., None]
    a = across[:, 0].square().sum(1) + LOW_PASS
    b = (across[:, 0] * across[:, 1]).sum(1)
    c = across[:, 1].square().sum(1) + LOW_PASS
    determinant = a * c - b * b
    conics = torch.stack([c, -b, a], 1) / determinant[:, None]
    with torch.no_grad():
        # ``o exp(-d^2 / 2 v) = 1/255`` solved for d: the half box of an ellipse; 0 where fainter.
        reach = (torch.stack([a, c], 1) * 2 * (opacities / ALPHA_LEAST).clamp_min(1).log()[:, None]).sqrt()
        inside = ((centers + reach > 0) & (centers - reach < edge)).all(1)
        reach = reach * (inside & ahead & (determinant > 0))[:, None]
    return Splats(centers, conics, depth, reach)


@dataclass(frozen=True)
class _Tiles:
    """Which splats touch which tiles.

    Attributes:
        entries: ``[E]`` numbers of splats, tile after tile, each tile's from near to far.
        tile: ``[E]`` the tile of each entry; tiles are counted row by row.
        counts: ``[T]`` entries of each tile.
        columns, rows: of tiles.
    """

    entries: Tensor
    tile: Tensor
    counts: Tensor
    columns: int
    rows: int

    def batches(self, at_once: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Tiles ``[B]`` of similar counts and their entries ``[B, M]``, padded with the number E.

        Args:
            at_once: entries of a tile that are worked on together; by default all.
        """
        total = len(self.entries)
        counts, order = self.counts.sort(descending=True)
        starts = self.counts.cumsum(0) - self.counts
        lengths, done = counts.tolist(), 0
        while done < len(lengths) and lengths[done] > 0:
            longest = lengths[done]
            take = max(1, _BATCH // (min(longest, at_once or longest) * TILE * TILE))
            chosen = order[done : done + take]
            chosen = chosen[self.counts[chosen] > 0]
            steps = torch.arange(longest, device=chosen.device)
            index = starts[chosen, None] + steps
            yield chosen, torch.where(steps < self.counts[chosen, None], index, total)
            done += take


@torch.no_grad()
def _assign_tiles(splats: Splats, size: tuple[int, int]) -> _Tiles:
    """List the splats of each tile. Pixels whose centres no box reaches need not be listed."""
    columns, rows = (-(-side // TILE) for side in size)
    most = torch.tensor([columns - 1, rows - 1], device=splats.centers.device)
    low = ((splats.centers - splats.reach - (TILE - 0.5)) / TILE).ceil().long().clamp_min(0)
    high = torch.minimum(((splats.centers + splats.reach - 0.5) / TILE).floor().long(), most)
    spans = (high - low + 1).clamp_min(0)
    touched = spans.prod(1) * splats.drawn
    near_first = splats.depths.argsort(stable=True)
    near_first = near_first[touched[near_first] > 0]
    times = touched[near_first]
    entries = near_first.repeat_interleave(times)
    rank = torch.arange(len(entries), device=entries.device) - (times.cumsum(0) - times).repeat_interleave(times)
    wide = spans[entries, 0]
    tile = (low[entries, 1] + rank // wide) * columns + low[entries, 0] + rank % wide
    tile, order = tile.sort(stable=True)
    return _Tiles(entries[order], tile, tile.bincount(minlength=columns * rows), columns, rows)


def composite(splats: Splats, opacities: Tensor, features: Tensor, size: tuple[int, int]) -> Tensor:
    """Blend splats front to back.

    ``sum_i w_i f_i`` with ``w_i = alpha_i prod_{j<i} (1 - alpha_j)``, ``alpha = min(0.999, o exp(-d' C d / 2))``; those
    under 1/255 are skipped, and a pixel is finished before its transmittance falls to 1e-4.

    Args:
        splats: in a picture; differentiable in centres and conics.
        opacities: ``[N]``, differentiable.
        features: ``[N, C]``, differentiable.
        size: (width, height).

    Returns:
        ``[H, W, C + 1]``: the features, and last ``sum_i w_i``, what of each pixel is covered.
    """
    width, height = size
    tiles = _assign_tiles(splats, size)
    values = torch.cat([features, torch.ones_like(features[:, :1])], 1)
    table = torch.cat([splats.centers, splats.conics, opacities.log()[:, None], values], 1)
    picked = table.index_select(0, tiles.entries)
    # Exponents are polynomials in 1, u, v, u^2, u v, v^2, coordinates from the middle of each tile.
    middle = torch.stack([tiles.tile % tiles.columns, tiles.tile // tiles.columns], 1) * TILE + TILE / 2
    x, y = (picked[:, :2] - middle.to(picked)).unbind(1)
    a, b, c, log_opacity = picked[:, 2:6].unbind(1)
    ax, cy = a * x + b * y, b * x + c * y
    coefficients = torch.stack([log_opacity - 0.5 * (ax * x + cy * y), ax, cy, -0.5 * a, -b, -0.5 * c], 1)
    blended = _Blend.apply(coefficients, picked[:, 6:], tiles)
    picture = blended.view(tiles.rows, tiles.columns, TILE, TILE, -1).transpose(1, 2)
    return picture.reshape(tiles.rows * TILE, tiles.columns * TILE, -1)[:height, :width]


class _Blend(torch.autograd.Function):
    """Front-to-back blending of padded lists, with its gradient in closed form.

    With ``g`` the gradient of a pixel's result and ``v_i = w_i (g . f_i)``, the gradient of splat i's exponent is
    ``v_i - alpha_i / (1 - alpha_i) sum_{j>i} v_j``; 0 where alpha was cut or skipped.
    """

    @staticmethod
    def forward(ctx: Any, coefficients: Tensor, values: Tensor, tiles: _Tiles) -> Tensor:
        """``[E, 6]``, ``[E, C]`` -> ``[T, TILE * TILE, C]``."""
        axis = torch.arange(TILE).to(coefficients) + 0.5 - TILE / 2
        v, u = (w.flatten() for w in torch.meshgrid(axis, axis, indexing="ij"))
        monomials = torch.stack([torch.ones_like(u), u, v, u * u, u * v, v * v])
        nothing = coefficients.new_tensor([[-100.0, 0, 0, 0, 0, 0]])
        padded = torch.cat([coefficients, nothing])
        padded_values = torch.cat([values, torch.zeros_like(values[:1])])
        result = values.new_zeros(len(tiles.counts), TILE * TILE, values.shape[1])
        differentiated = any(ctx.needs_input_grad)
        at_once = None if differentiated else _LAYER
        kept = []
        for chosen, index in tiles.batches(at_once):
            before = result.new_ones(len(chosen), 1, TILE * TILE)
            while index.shape[1] and len(chosen):
                layer, index = index[:, :at_once], index[:, at_once or index.shape[1] :]
                alpha = torch.matmul(padded[layer], monomials).exp_().clamp_(max=ALPHA_MOST)
                alpha.masked_fill_(alpha < ALPHA_LEAST, 0)
                # What each splat ``[B, M, P]`` contributes: alpha times what those before it let through.
                through = (1 - alpha).cumprod(1).mul_(before)
                weight = alpha.clone()
                weight[:, 1:] *= through[:, :-1]
                weight[:, :1] *= before
                weight.masked_fill_(through <= LEAST_TRANSMITTANCE, 0)
                result[chosen] += torch.matmul(weight.transpose(1, 2), padded_values[layer])
                if differentiated:
                    kept.append((chosen, layer, alpha, weight))
                elif index.shape[1]:
                    open_ = (through[:, -1] > LEAST_TRANSMITTANCE).any(1)
                    chosen, index, before = chosen[open_], index[open_], through[open_, -1:]
        ctx.kept, ctx.monomials, ctx.values = kept, monomials, padded_values
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        """Gradients of the coefficients and values."""
        gradient, total = gradients[0], len(ctx.values) - 1
        to_coefficients = gradient.new_zeros(total + 1, 6)
        to_values = torch.zeros_like(ctx.values)
        for chosen, index, alpha, weight in ctx.kept:
            g = gradient[chosen]
            to_values[index] = torch.matmul(weight, g)
            share = torch.matmul(ctx.values[index], g.transpose(1, 2)).mul_(weight)
            passed = share.cumsum(1)
            behind = passed[:, -1:] - passed
            share.sub_(behind.mul_(alpha).div_(1 - alpha)).masked_fill_(alpha >= ALPHA_MOST, 0)
            to_coefficients[index] = torch.matmul(share, ctx.monomials.T)
        ctx.kept = None
        return to_coefficients[:total], to_values[:total], None


# Of the harmonics of degree 1, 2 and 3.
_ONE = 0.4886025119029199
_TWO = (1.0925484305920792, 0.31539156525252005, 0.5462742152960396)
_THREE = (0.5900435899266435, 2.890611442640554, 0.4570457994644658, 0.3731763325901154, 1.445305721320277)


def sh_basis(directions: Tensor, degree: int) -> Tensor:
    """The real spherical harmonics in the order and with the signs of 3D Gaussian files.

    Args:
        directions: ``[N, 3]`` unit vectors from the camera to the Gaussians, in world axes.
        degree: 0 to 3.

    Returns:
        ``[N, (degree + 1)**2]``.
    """
    x, y, z = directions.unbind(1)
    columns = [torch.full_like(x, SH0)]
    if degree > 0:
        columns += [-_ONE * y, _ONE * z, -_ONE * x]
    if degree > 1:
        a, b, c = _TWO
        columns += [a * x * y, -a * y * z, b * (2 * z * z - x * x - y * y), -a * x * z, c * (x * x - y * y)]
    if degree > 2:
        a, b, c, d, e = _THREE
        xx, yy, zz = x * x, y * y, z * z
        columns += [
            -a * y * (3 * xx - yy),
            b * x * y * z,
            -c * y * (4 * zz - xx - yy),
            d * z * (2 * zz - 3 * xx - 3 * yy),
            -c * x * (4 * zz - xx - yy),
            e * z * (xx - yy),
            -a * x * (xx - 3 * yy),
        ]
    return torch.stack(columns, 1)


def view_colors(means: Tensor, sh: Tensor, eye: Tensor) -> Tensor:
    """Colours of Gaussians as seen from ``eye``: ``[N, 3]``, ``max(0, 0.5 + sum_k sh_k Y_k(direction))``.

    Args:
        means: ``[N, 3]`` centres.
        sh: ``[N, K, 3]`` coefficients.
        eye: ``[3]`` centre of the camera.
    """
    degree = DEGREES[sh.shape[1]]
    if degree == 0:
        return (0.5 + SH0 * sh[:, 0]).clamp_min(0)
    directions = torch.nn.functional.normalize(means - eye, dim=1)
    return (0.5 + (sh_basis(directions, degree)[..., None] * sh).sum(1)).clamp_min(0)


@dataclass(frozen=True)
class Rendered:
    """A picture of Gaussians, before any background.

    Attributes:
        image: ``[H, W, 3]`` blended colours, not clamped, black where nothing is.
        alpha: ``[H, W]`` how much of each pixel is covered, 0..1.
        depth: ``[H, W]`` blended z in world units, not divided by ``alpha``.
        drawn: ``[N]`` bool, which Gaussians the picture may show.
    """

    image: Tensor
    alpha: Tensor
    depth: Tensor
    drawn: Tensor

    def over(self, background: Tensor | float) -> Tensor:
        """``[H, W, 3]`` the picture in front of a colour, ``[3]`` or one number for all channels."""
        return self.image + (1 - self.alpha)[..., None] * background


class Renderer(Protocol):
    """Draws Gaussians as one pinhole camera sees them; differentiable in the Gaussians and the camera's pose."""

    def __call__(
        self, gaussians: Gaussians, camera_from_world: Tensor, intrinsics: Tensor, size: tuple[int, int]
    ) -> Rendered:
        """Draw.

        Args:
            gaussians: on the renderer's device.
            camera_from_world: ``[4, 4]``, OpenCV axes, of the Gaussians' number format.
            intrinsics: ``[3, 3]`` in pixels, of the Gaussians' number format.
            size: (width, height).
        """


def splat_torch(gaussians: Gaussians, camera_from_world: Tensor, intrinsics: Tensor, size: tuple[int, int]) -> Rendered:
    """The renderer in plain torch, for any device and float32 or float64.

    Args:
        gaussians: ``N`` of them.
        camera_from_world: ``[4, 4]``.
        intrinsics: ``[3, 3]`` in pixels.
        size: (width, height).
    """
    opacities, place = gaussians.opacities, (gaussians.means, gaussians.scales, gaussians.quaternions)
    splats = project(*place, opacities, camera_from_world, intrinsics, size)
    colors = view_colors(gaussians.means, gaussians.sh, _eye(camera_from_world))
    blended = composite(splats, opacities, torch.cat([colors, splats.depths[:, None]], 1), size)
    return Rendered(blended[..., :3], blended[..., 4], blended[..., 3], splats.drawn)


def splat_gsplat(
    gaussians: Gaussians, camera_from_world: Tensor, intrinsics: Tensor, size: tuple[int, int]
) -> Rendered:
    """The renderer of gsplat (Ye et al. 2024), for CUDA and float32.

    Args:
        gaussians: ``N`` of them.
        camera_from_world: ``[4, 4]``.
        intrinsics: ``[3, 3]`` in pixels.
        size: (width, height).
    """
    from gsplat import rasterization

    colors = view_colors(gaussians.means, gaussians.sh, _eye(camera_from_world))
    picture, alpha, extra = rasterization(
        gaussians.means,
        gaussians.quaternions,
        gaussians.scales,
        gaussians.opacities,
        colors,
        camera_from_world[None],
        intrinsics[None],
        *size,
        near_plane=NEAR,
        eps2d=LOW_PASS,
        render_mode="RGB+D",
        packed=False,
    )
    radii = extra["radii"][0]
    drawn = (radii > 0).all(-1) if radii.ndim == 2 else radii > 0
    return Rendered(picture[0, ..., :3], alpha[0, ..., 0], picture[0, ..., 3], drawn)


def find_renderer(name: str, device: torch.device) -> Renderer:
    """The renderer of that name: ``torch``, ``gsplat``, or ``auto``: gsplat on CUDA where it is installed.

    Raises:
        UserError: gsplat was asked for and cannot run.
    """
    if name == "torch" or (name == "auto" and device.type != "cuda"):
        return splat_torch
    if device.type != "cuda":
        raise UserError(f"`renderer` gsplat runs on CUDA only, not on {device}; choose torch")
    if name == "auto" and not installed("gsplat"):
        return splat_torch
    require_renderer("gsplat")
    return splat_gsplat


def _eye(camera_from_world: Tensor) -> Tensor:
    return -camera_from_world[:3, :3].T @ camera_from_world[:3, 3]
