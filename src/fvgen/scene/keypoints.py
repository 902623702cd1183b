"""Sub-pixel keypoints: every match is aligned by its grey values, and each keypoint moved to agree with all of them.

Detected keypoints sit on the pixel grid of the network (about 0.6 px of noise at 1,024 px). With few photos and short
baselines that noise is most of the error in translation and focal length.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fvgen.progress import track
from fvgen.scene.matching import Features
from fvgen.scene.sweep import sample
from fvgen.sfm.problem import Pair

_LONG_SIDE = 1024
_HALF = 8  # patches are 17 x 17 pixels of the resized image
_MAX_SHIFT = 3.0  # px of the resized image: further away it is another corner
_MIN_CORRELATION = 0.75


@dataclass(frozen=True)
class Alignment:
    """How the second keypoints of ``M`` matches have to move to show what the first ones show.

    Attributes:
        shift: ``[M, 2]`` float32 in pixels of the second resized image.
        warp: ``[M, 2, 2]`` float32, how an offset round the first keypoint maps to the second image.
        correlation: ``[M]`` float32, normalised cross-correlation of the aligned patches.
    """

    shift: Tensor
    warp: Tensor
    correlation: Tensor

    @property
    def good(self) -> Tensor:
        """``[M]`` bool: converged near its start on the same texture."""
        return (self.correlation > _MIN_CORRELATION) & (self.shift.norm(dim=-1) < _MAX_SHIFT)


def grey(image: Tensor) -> Tensor:
    """The grey values of a photo ``[H, W, 3]`` uint8, slightly smoothed: ``[1, 1, h, w]``, the longer side 1,024 px."""
    height, width = image.shape[:2]
    scale = _LONG_SIDE / max(height, width)
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    pixels = image.permute(2, 0, 1)[None].float().mean(1, keepdim=True) / 255
    pixels = F.interpolate(pixels, size, mode="bicubic", antialias=True, align_corners=False)
    steps = torch.arange(-2.0, 3.0)
    kernel = torch.exp(-(steps**2) / (2 * 0.8**2))
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1)
    pixels = F.conv2d(F.pad(pixels, (2, 2, 0, 0), mode="replicate"), kernel)
    return F.conv2d(F.pad(pixels, (0, 0, 2, 2), mode="replicate"), kernel.transpose(2, 3))


@torch.inference_mode()
def align(first: Tensor, second: Tensor, at_first: Tensor, at_second: Tensor, iterations: int = 12) -> Alignment:
    """Affine inverse-compositional Lucas-Kanade with free gain and offset, all matches at once.

    Args:
        first, second: ``[1, 1, h, w]`` from ``grey``.
        at_first, at_second: ``[M, 2]`` matched positions in their pixels.
        iterations: steps, of which the last ones hardly move anything.

    Source: Baker and Matthews, "Lucas-Kanade 20 Years On", IJCV 2004, section 3.2.
    """
    count = at_first.shape[0]
    line = torch.arange(-_HALF, _HALF + 1.0)
    offsets = torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1).reshape(-1, 2)
    weight = torch.exp(-(offsets**2).sum(-1) / (2 * (0.6 * _HALF) ** 2))
    weight = weight / weight.sum()

    def normalised(values: Tensor) -> tuple[Tensor, Tensor]:
        values = values - (values * weight).sum(-1, keepdim=True)
        spread = (values**2 * weight).sum(-1, keepdim=True).sqrt() + 1e-3
        return values / spread, spread

    def value(image: Tensor, points: Tensor) -> Tensor:
        return sample(image[0], points[None])[0, 0]

    where = at_first[:, None] + offsets
    template, spread = normalised(value(first, where))
    step = torch.tensor([[0.5, 0.0], [0.0, 0.5]])
    gradient = [(value(first, where + s) - value(first, where - s)) / spread for s in step]
    columns = gradient + [g * offsets[:, axis] / _HALF for g in gradient for axis in (0, 1)]
    jacobian = torch.stack(columns, dim=-1)  # [M, S, 6]: d/d(tx, ty), then the 2x2 part, row by row
    jacobian = jacobian - (jacobian * weight[:, None]).sum(1, keepdim=True)
    weighted = (jacobian * weight[:, None]).transpose(1, 2)
    damping = torch.diag(torch.tensor([1e-3, 1e-3] + [2e-2] * 4))
    inverse_hessian = torch.linalg.inv(weighted @ jacobian + damping)

    warp = torch.eye(3).repeat(count, 1, 1)
    for _ in range(iterations):
        moved = at_second[:, None] + offsets @ warp[:, :2, :2].transpose(1, 2) + warp[:, None, :2, 2]
        residual = normalised(value(second, moved))[0] - template
        update = (inverse_hessian @ (weighted @ residual[..., None]))[..., 0].clamp(-1, 1)
        change = torch.eye(3).repeat(count, 1, 1)
        change[:, :2, 2] += update[:, :2]
        change[:, :2, :2] += update[:, 2:].reshape(-1, 2, 2) / _HALF
        warp = warp @ torch.linalg.inv(change)
    moved = at_second[:, None] + offsets @ warp[:, :2, :2].transpose(1, 2) + warp[:, None, :2, 2]
    correlation = (normalised(value(second, moved))[0] * template * weight).sum(-1)
    return Alignment(warp[:, :2, 2], warp[:, :2, :2], correlation)


def refine_keypoints(
    images: list[Tensor], features: list[Features], matches: list[Pair]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Move each keypoint by the correction that agrees best with all aligned matches it takes part in.

    For a match of keypoints ``i`` and ``j`` with shift ``d`` and warp ``A`` the corrections obey ``c_j - A c_i = d``;
    all of them are solved together in least squares, held near zero by a weak prior.

    Args:
        images: photos ``[H_i, W_i, 3]`` uint8.
        features: ``K_i`` keypoints of each.
        matches: pairs of them.

    Returns:
        Positions ``[K_i, 2]`` float64 in pixels of each photo, and ``[K_i]`` bool: was aligned with another photo.
    """
    from scipy.sparse import coo_matrix, identity
    from scipy.sparse.linalg import spsolve

    greys = [grey(image) for image in images]
    sizes = [torch.tensor([g.shape[-1], g.shape[-2]], dtype=torch.float32) for g in greys]
    ratios = [size / torch.tensor(f.size, dtype=torch.float32) for size, f in zip(sizes, features)]
    start = np.cumsum([0] + [len(f) for f in features])
    total = int(start[-1])
    aligned = np.zeros(total, dtype=bool)
    rows, columns, values, rights = [], [], [], []
    equations = 0
    for pair in track(matches, "Aligning keypoints"):
        a, b = pair.first, pair.second
        if len(pair.indices) == 0:
            continue
        at_a = features[a].points[pair.indices[:, 0]] * ratios[a]
        at_b = features[b].points[pair.indices[:, 1]] * ratios[b]
        found = align(greys[a], greys[b], at_a, at_b)
        good = found.good.numpy()
        i = pair.indices[good, 0] + start[a]
        j = pair.indices[good, 1] + start[b]
        aligned[i] = aligned[j] = True
        warp, shift = found.warp.numpy()[good], found.shift.numpy()[good]
        row = equations + 2 * np.arange(len(i))[:, None] + np.arange(2)
        rows += [row.ravel(), np.repeat(row, 2)]
        columns += [(2 * j[:, None] + np.arange(2)).ravel(), np.tile(2 * i[:, None] + np.arange(2), 2).ravel()]
        values += [np.ones(row.size), -warp.reshape(-1)]
        rights.append(shift.ravel())
        equations += 2 * len(i)
    corrections = np.zeros((total, 2))
    if equations:
        matrix = coo_matrix(
            (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(equations, 2 * total)
        ).tocsr()
        normal = matrix.T @ matrix + 0.01 * identity(2 * total, format="csr")
        corrections = spsolve(normal.tocsc(), matrix.T @ np.concatenate(rights)).reshape(total, 2)
    corrections = np.clip(corrections, -_MAX_SHIFT, _MAX_SHIFT)
    points = [
        f.points.double().numpy() + corrections[s : s + len(f)] / r.double().numpy()
        for f, s, r in zip(features, start, ratios)
    ]
    return points, [aligned[s : s + len(f)] for f, s in zip(features, start)]
