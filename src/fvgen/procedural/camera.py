"""How a scene is filmed: moves with an unsteady hand, kept clear of things, and what the camera makes of light."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from fvgen.cameras import Cameras
from fvgen.procedural.light import look
from fvgen.procedural.mesh import Array, Mesh, Vector
from fvgen.procedural.raster import rasterise

_TRIES = 14
_SMALL = 40  # width of the pictures by which a move is judged


@dataclass(frozen=True)
class Stage:
    """Where a scene may be filmed from, and what is worth seeing.

    Attributes:
        low, high: ``[3]`` corners of the box that the camera stays in, world.
        targets: points ``[3]`` to look at.
        near, far: least and greatest distance of the camera from what it looks at.
        kinds: moves that suit the place.
    """

    low: Vector
    high: Vector
    targets: Sequence[Vector]
    near: float
    far: float
    kinds: tuple[str, ...] = ("walk", "track", "orbit", "dolly", "crane", "arc")


def film_move(rng: np.random.Generator, stage: Stage, mesh: Mesh, frames: int, width: int, height: int) -> Cameras:
    """Cameras of a move through a scene: of some tries the first that shows enough, or else the best of them.

    Args:
        rng: everything random.
        stage: where the camera may be.
        mesh: the scene.
        frames: number of cameras.
        width: of their pictures, in pixels.
        height: of their pictures, in pixels.
    """
    positions, faces = torch.from_numpy(mesh.positions), torch.from_numpy(mesh.faces)
    best, best_score = None, -np.inf
    for _ in range(_TRIES):
        field = np.deg2rad(rng.uniform(42, 85))  # of the longer side
        focal = max(width, height) / 2 / np.tan(field / 2)
        cameras = _cameras(*_path(rng, stage, frames), float(focal), width, height)
        score = _score(cameras, positions, faces, stage)
        if score > best_score:
            best, best_score = cameras, score
        if score >= 0:
            break
    assert best is not None
    return best


def _path(rng: np.random.Generator, stage: Stage, frames: int) -> tuple[Array, Array, float]:
    """Centres and points looked at ``[T, 3]``, and the roll."""
    target = np.array(stage.targets[int(rng.integers(len(stage.targets)))]) + rng.normal(0, 0.06, 3) * stage.near
    for _ in range(40):
        start = rng.uniform(stage.low, stage.high)
        if stage.near < np.linalg.norm(start - target) < stage.far:
            break
    t = np.linspace(0, 1, frames)[:, None]
    eased = t if rng.random() < 0.6 else t * t * (3 - 2 * t)
    distance = float(np.linalg.norm(target - start))
    right, down, ahead = look(start, target)
    reach = distance * rng.uniform(0.12, 0.45)
    side = rng.choice([-1.0, 1.0])
    kind = str(rng.choice(list(stage.kinds)))
    looked = np.repeat(target[None], frames, 0)
    if kind in ("walk", "dolly"):
        way = ahead * (1 if kind == "walk" or rng.random() < 0.5 else -1) + right * rng.normal(0, 0.25)
        way[1] *= 0.15 if kind == "walk" else 1.0
        centers = start + way * reach * eased
        if kind == "walk":
            looked = looked + right * side * rng.uniform(0, 0.25) * distance * eased
            centers[:, 1:2] += 0.015 * np.sin(2 * np.pi * t * rng.uniform(1, 3))
    elif kind == "track":
        centers = start + right * side * reach * eased + ahead * rng.normal(0, 0.1) * reach * eased
        looked = looked + right * side * reach * eased * rng.uniform(0.0, 1.0)
    elif kind == "crane":
        centers = start + down * side * reach * 0.7 * eased + right * rng.normal(0, 0.3) * reach * eased
    else:  # orbit and arc: round the point looked at, in part
        angle = side * reach / distance * eased[:, 0] * (1.0 if kind == "orbit" else 0.6)
        c, s, offset = np.cos(angle), np.sin(angle), start - target
        turned = np.stack([c * offset[0] + s * offset[2], offset[1] + 0 * c, -s * offset[0] + c * offset[2]], -1)
        centers = target + turned * (1 - (0.25 * eased if kind == "arc" else 0))
    shake = _tremor(rng, frames, distance * rng.uniform(0.0, 0.006))
    drift = rng.normal(0, 0.06, 3) * distance
    looked = looked + drift * eased + _tremor(rng, frames, distance * rng.uniform(0.0, 0.012))
    return np.clip(centers + shake, stage.low, stage.high), looked, rng.normal(0, 0.02)


def _tremor(rng: np.random.Generator, frames: int, size: float) -> Array:
    """``[T, 3]`` smooth noise."""
    t = np.linspace(0, 1, frames)[:, None]
    waves = [rng.normal(0, 1, 3) * np.sin(2 * np.pi * t * f + rng.uniform(0, 6, 3)) / f for f in (1.0, 2.3, 4.1)]
    return size * np.sum(waves, 0)


def _cameras(centers: Array, looked: Array, roll: float, focal: float, width: int, height: int) -> Cameras:
    poses = np.zeros((len(centers), 4, 4))
    c, s = np.cos(roll), np.sin(roll)
    turn = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
    for pose, center, point in zip(poses, centers, looked):
        pose[:3, :3], pose[:3, 3], pose[3, 3] = (turn @ look(center, point)).T, center, 1
    matrix = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], dtype=torch.float64)
    sizes = torch.tensor([[width, height]]).repeat(len(centers), 1)
    return Cameras(torch.from_numpy(poses), matrix.repeat(len(centers), 1, 1), sizes)


def _score(cameras: Cameras, positions: torch.Tensor, faces: torch.Tensor, stage: Stage) -> float:
    """0 for a move that shows enough and moves enough; below that the worse the farther from it."""
    width, height = cameras.size
    few = cameras[[0, len(cameras) // 2, len(cameras) - 1]]
    small = few.resized(_SMALL, max(4, round(_SMALL * height / width)))
    both = torch.zeros(len(faces), dtype=torch.bool)
    projections = small.intrinsics @ small.camera_from_world[:, :3]
    inverse = rasterise(positions, faces, both, projections, small.size).inverse_depth
    depth = torch.where(inverse > 0, 1 / inverse.clamp(min=1e-6), 100.0)
    close = float((depth < 0.2 * stage.near).float().mean((1, 2)).max())
    empty = float((inverse == 0).float().mean((1, 2)).max())
    middle = float(depth.median())
    step = float((cameras.centers[-1] - cameras.centers[0]).norm()) / max(middle, 1e-3)
    shared = min(_shared(small, depth, 0, 2), _shared(small, depth, 2, 0))
    lacks = [(0.15 - close), (0.6 - empty), (middle / (0.5 * stage.near) - 1), (step / 0.08 - 1), (shared / 0.5 - 1)]
    return float(sum(min(lack, 0.0) for lack in lacks))


def _shared(cameras: Cameras, depth: torch.Tensor, one: int, other: int) -> float:
    """Share of one picture's points that the other picture has in its frame and does not hide."""
    height, width = depth.shape[1:]
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    rays = torch.stack([x, y, torch.ones_like(x)], -1).double() @ torch.linalg.inv(cameras.intrinsics[one]).T
    points = rays * depth[one][..., None]
    motion = cameras.camera_from_world[other] @ cameras.world_from_camera[one]
    there = (points @ motion[:3, :3].T + motion[:3, 3]) @ cameras.intrinsics[other].T
    u, v = there[..., 0] / there[..., 2], there[..., 1] / there[..., 2]
    inside = (there[..., 2] > 0) & (u > 0) & (u < width) & (v > 0) & (v < height)
    seen = depth[other][v.long().clamp(0, height - 1), u.long().clamp(0, width - 1)]
    return float((inside & (there[..., 2] < seen * 1.15)).float().mean())


@dataclass(frozen=True)
class Lens:
    """What a camera makes of light during one clip.

    Attributes:
        exposure: factor on linear light.
        key: mean brightness aimed at.
        white: ``[3]`` gains of the channels at the start.
        drift: ``[3]`` gains of the channels at the end, in proportion to the start.
        vignette: light lost in the corners, 0..1.
        noise: standard deviation in 0..1 of the picture.
        saturation: 1 keeps colours.
        contrast: of the curve, 0..1.
        seed: of the noise.
    """

    exposure: float
    key: float
    white: tuple[float, float, float]
    drift: tuple[float, float, float]
    vignette: float
    noise: float
    saturation: float
    contrast: float
    seed: int

    def exposed_for(self, light: Tensor) -> "Lens":
        """With the exposure that suits linear light ``[..., 3]``: between that of the mean and of the median."""
        grey = light.mean(-1).flatten().double().cpu()
        level = float((grey.mean() * grey.median()).sqrt())
        return replace(self, exposure=self.key / max(level, 1e-4))

    def develop(self, light: Tensor, times: Tensor) -> Tensor:
        """Pictures ``[N, H, W, 3]`` uint8 of linear light at moments ``[N]`` (0..1) of the clip."""
        count, height, width, _ = light.shape
        times = times.to(light)[:, None]
        gains = light.new_tensor(self.white) * (1 + times * (light.new_tensor(self.drift) - 1))
        y, x = (torch.linspace(-1, 1, n, device=light.device) for n in (height, width))
        corner = (y.square()[:, None] + x.square()) / 2
        value = light * (gains * self.exposure)[:, None, None] * (1 - self.vignette * corner)[..., None]
        grey = value.mean(-1, keepdim=True)
        value = (grey + (value - grey) * self.saturation).clamp(min=0)
        # A shoulder: highlights fade into white instead of being cut.
        value = ((value * (1 + value / 9) / (1 + value)).sqrt() * 1.18).clamp(0, 1)
        value = value.lerp(value * value * (3 - 2 * value), self.contrast)
        if self.noise > 0:
            value = value + self.noise * torch.stack([self._grain(t, light) for t in times[:, 0]])
        return (value.clamp(0, 1) * 255 + 0.5).to(torch.uint8)

    def _grain(self, moment: Tensor, light: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed * 1009 + round(float(moment) * 1e6) + light.shape[1])
        return torch.randn(light.shape[1:], generator=generator).to(light.device)


def random_lens(rng: np.random.Generator, seed: int) -> Lens:
    """Settings as cameras have them; one in three changes its exposure along the clip."""
    warm = rng.normal(0, 0.05)
    drift = np.ones(3)
    if rng.random() < 0.33:
        drift = drift * rng.uniform(0.85, 1.18) * np.exp(rng.normal(0, 0.015, 3))
    return Lens(
        1.0,
        float(rng.uniform(0.22, 0.5)),
        (float(1 + warm), float(1 + rng.normal(0, 0.01)), float(1 - warm)),
        (float(drift[0]), float(drift[1]), float(drift[2])),
        float(rng.uniform(0, 0.25)) if rng.random() < 0.5 else 0.0,
        float(rng.uniform(0, 0.012)) if rng.random() < 0.4 else 0.0,
        float(rng.uniform(0.85, 1.25)),
        float(rng.uniform(0.1, 0.8)),
        seed % (1 << 40),
    )
