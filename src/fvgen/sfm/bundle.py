"""Bundle adjustment: robust, with a prior on the focal length. Pure numpy.

Two or three photos barely determine a focal length, so a mapper that refines it freely runs away and takes the poses
along. Here the focal length has a prior, whose weight is set against the photos as a whole.
"""

from dataclasses import dataclass, replace

import numpy as np

# Errors of matches are not independent: blur, rolling shutter, lens distortion and the matcher's habits move many of
# them together. All matches of one photo count as this many independent ones when they are set against the prior.
INDEPENDENT_PER_PHOTO = 30.0
_ENTRIES = 2_000_000  # of the products of blocks that are in memory at once


@dataclass(frozen=True)
class Bundle:
    """Cameras, points and what the cameras saw of the points.

    Attributes:
        rotation: ``[N, 3, 3]`` camera from world.
        translation: ``[N, 3]`` camera from world.
        focal: ``[G]`` focal lengths in pixels.
        group: ``[N]`` int, whose focal length each camera has.
        points: ``[P, 3]`` in the world.
        camera_index, point_index: ``[O]`` int, who saw what.
        pixels: ``[O, 2]`` relative to the principal point.
        sigma: ``[O]`` expected error of each in pixels.
        focal_prior: ``[G]`` expected focal lengths in pixels.
        focal_spread: ``[G]`` standard deviation of the logarithm of each focal length.
        keypoint: ``[O]`` int, which keypoint of its photo each observation is (carried along, not used).
    """

    rotation: np.ndarray
    translation: np.ndarray
    focal: np.ndarray
    group: np.ndarray
    points: np.ndarray
    camera_index: np.ndarray
    point_index: np.ndarray
    pixels: np.ndarray
    sigma: np.ndarray
    focal_prior: np.ndarray
    focal_spread: np.ndarray
    keypoint: np.ndarray

    @property
    def in_camera(self) -> np.ndarray:
        """``[O, 3]`` each observed point in the axes of the camera that saw it."""
        rotation = self.rotation[self.camera_index]
        return np.einsum("oij,oj->oi", rotation, self.points[self.point_index]) + self.translation[self.camera_index]

    @property
    def residuals(self) -> np.ndarray:
        """``[O, 2]`` projected minus seen, in pixels; infinite for points behind a camera."""
        local = self.in_camera
        depth = local[:, 2:]
        scale = self.focal[self.group[self.camera_index]][:, None]
        projected = scale * local[:, :2] / np.where(depth > 1e-9, depth, np.inf)
        return np.where(depth > 1e-9, projected - self.pixels, np.inf)

    @property
    def prior_weight(self) -> float:
        """How much one unit of the prior's cost weighs against the summed cost of the matches."""
        independent = INDEPENDENT_PER_PHOTO * max(len(self.translation) - 1, 1)
        return max(1.0, len(self.sigma) / 2 / independent)

    @property
    def cost(self) -> float:
        """``sum log(1 + |r|^2 / sigma^2) + w * sum (log(f / f0) / s)^2``, twice a negative log-posterior."""
        squared = np.minimum((self.residuals**2).sum(1) / self.sigma**2, 1e6)
        return float(np.log1p(squared).sum() + self.prior_weight * (self._focal_residual**2).sum())

    @property
    def _focal_residual(self) -> np.ndarray:
        return np.log(self.focal / self.focal_prior) / self.focal_spread

    def keep(self, observations: np.ndarray) -> "Bundle":
        """Only these observations (``[O]`` bool), and only points still seen by two cameras."""
        observations = observations.copy()
        seen = np.bincount(self.point_index[observations], minlength=len(self.points))
        observations &= seen[self.point_index] >= 2
        kept, index = np.unique(self.point_index[observations], return_inverse=True)
        return replace(
            self,
            points=self.points[kept],
            camera_index=self.camera_index[observations],
            point_index=index,
            pixels=self.pixels[observations],
            sigma=self.sigma[observations],
            keypoint=self.keypoint[observations],
        )


def rotation_from_vector(vector: np.ndarray) -> np.ndarray:
    """Rotations ``[N, 3, 3]`` about axes ``[N, 3]`` whose lengths are the angles in radians (Rodrigues' formula)."""
    angle = np.linalg.norm(vector, axis=1)[:, None, None]
    axis = cross_matrix(vector) / np.maximum(angle, 1e-12)
    return np.eye(3) + np.sin(angle) * axis + (1 - np.cos(angle)) * axis @ axis


def cross_matrix(vector: np.ndarray) -> np.ndarray:
    """Matrices ``[N, 3, 3]`` that take the cross product with vectors ``[N, 3]``: ``cross_matrix(a) @ b = a x b``."""
    x, y, z = vector.T
    zero = np.zeros_like(x)
    return np.stack([np.stack([zero, -z, y], -1), np.stack([z, zero, -x], -1), np.stack([-y, x, zero], -1)], -2)


def adjust(bundle: Bundle, iterations: int = 25) -> Bundle:
    """Bundle adjustment: Levenberg-Marquardt on ``Bundle.cost``, with the points eliminated by the Schur complement.

    Poses, points and focal lengths change; the first camera stays where it is and scale is left to the damping.
    Triggs et al., "Bundle Adjustment - A Modern Synthesis", 1999, sections 4 and 6.
    """
    damping, cost = 1e-3, bundle.cost
    for _ in range(iterations):
        system = _linearise(bundle)
        for _ in range(6):
            candidate = _step(bundle, system, damping)
            new_cost = candidate.cost
            if new_cost < cost:
                break
            damping = min(damping * 8, 1e8)
        else:
            break
        gain, bundle, cost, damping = cost - new_cost, candidate, new_cost, max(damping / 5, 1e-9)
        if gain < 1e-5 * cost:
            break
    return bundle


@dataclass(frozen=True)
class _System:
    """Normal equations, split into camera (``u``, ``right_u``), point (``v``, ``right_v``) and mixed (``w``) parts.

    A point is mixed with the few cameras that saw it only: ``w`` ``[O, 3, 7]`` has a block per observation, of the
    point ``point`` ``[O]`` and the unknowns ``column`` ``[O, 7]`` of the camera.
    """

    u: np.ndarray
    v: np.ndarray
    w: np.ndarray
    column: np.ndarray
    point: np.ndarray
    right_u: np.ndarray
    right_v: np.ndarray


def _linearise(bundle: Bundle) -> _System:
    cameras, groups, count = len(bundle.translation), len(bundle.focal), len(bundle.points)
    size = 6 * cameras + groups
    local, residual = bundle.in_camera, bundle.residuals
    visible = np.isfinite(residual).all(1)
    residual = np.where(visible[:, None], residual, 0.0)
    depth = np.where(visible, local[:, 2], 1.0)
    focal = bundle.focal[bundle.group[bundle.camera_index]]
    squared = (residual**2).sum(1) / bundle.sigma**2
    weight = np.where(visible, 1 / (bundle.sigma**2 * (1 + squared)), 0.0)

    to_image = np.zeros((len(depth), 2, 3))
    to_image[:, 0, 0] = to_image[:, 1, 1] = focal / depth
    to_image[:, :, 2] = -(focal / depth**2)[:, None] * local[:, :2]
    turned = local - bundle.translation[bundle.camera_index]
    by_camera = np.empty((len(depth), 2, 7))
    by_camera[:, :, :3] = -to_image @ cross_matrix(turned)
    by_camera[:, :, 3:6] = to_image
    by_camera[:, :, 6] = (focal / depth)[:, None] * local[:, :2]
    by_camera[bundle.camera_index == 0, :, :6] = 0.0  # the gauge
    by_point = to_image @ bundle.rotation[bundle.camera_index]

    column = np.empty((len(depth), 7), dtype=int)
    column[:, :6] = 6 * bundle.camera_index[:, None] + np.arange(6)
    column[:, 6] = 6 * cameras + bundle.group[bundle.camera_index]
    weighted_camera = by_camera.transpose(0, 2, 1) * weight[:, None, None]
    weighted_point = by_point.transpose(0, 2, 1) * weight[:, None, None]
    point = bundle.point_index
    place = (3 * point[:, None] + np.arange(3))[:, :, None]
    u = _scatter(column[:, :, None] * size + column[:, None, :], weighted_camera @ by_camera, (size, size))
    v = _scatter(3 * place + np.arange(3), weighted_point @ by_point, (count, 3, 3))
    right_u = _scatter(column, -(weighted_camera @ residual[..., None])[..., 0], (size,))
    right_v = _scatter(place[..., 0], -(weighted_point @ residual[..., None])[..., 0], (count, 3))
    index = 6 * cameras + np.arange(groups)
    u[index, index] += bundle.prior_weight / bundle.focal_spread**2
    right_u[index] -= bundle.prior_weight * bundle._focal_residual / bundle.focal_spread
    return _System(u, v, weighted_point @ by_camera, column, point, right_u, right_v)


def _eliminated(system: _System, u: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """``u - w^T v^-1 w``: the points eliminated, given ``inverse`` ``[P, 3, 3]`` of ``v``.

    Points seen by equally many cameras go together, so that time and memory follow the observations.
    """
    length = np.bincount(system.point, minlength=len(inverse))
    start = np.cumsum(length) - length
    order = np.argsort(system.point, kind="stable")
    through = inverse[system.point] @ system.w
    for count in np.unique(length[length > 0]):
        firsts = start[length == count]
        for some in np.array_split(firsts, 1 + len(firsts) * (7 * count) ** 2 // _ENTRIES):
            seen = order[some[:, None] + np.arange(count)]
            left, right = (t[seen].transpose(0, 2, 1, 3).reshape(-1, 3, 7 * count) for t in (system.w, through))
            column = system.column[seen].reshape(-1, 7 * count)
            index = column[:, :, None] * len(u) + column[:, None, :]
            u = u - _scatter(index, left.transpose(0, 2, 1) @ right, u.shape)
    return u


def focal_precision(bundle: Bundle) -> np.ndarray:
    """How well the matches alone determine each focal length: ``[G]`` inverse variances of its logarithm.

    The prior is left out; poses, points and the other focal lengths are marginalised (Schur complements).
    """
    system = _linearise(bundle)
    v = system.v + 1e-9 * (1 + np.trace(system.v, axis1=1, axis2=2))[:, None, None] * np.eye(3)
    size = len(system.u)
    reduced = _eliminated(system, system.u, np.linalg.inv(v))
    precision = np.empty(len(bundle.focal))
    for g in range(len(precision)):
        own = size - len(precision) + g
        other = np.delete(np.arange(size), own)
        inverse = np.linalg.pinv(reduced[np.ix_(other, other)], rcond=1e-10, hermitian=True)
        precision[g] = reduced[own, own] - reduced[own, other] @ inverse @ reduced[other, own]
    return np.maximum(precision / bundle.prior_weight - 1 / bundle.focal_spread**2, 0.0)


def _scatter(index: np.ndarray, values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Sum ``values`` into a new array of ``shape`` at flat ``index``."""
    return np.bincount(index.ravel(), values.ravel(), minlength=int(np.prod(shape))).reshape(shape)


def _step(bundle: Bundle, system: _System, damping: float) -> Bundle:
    cameras = len(bundle.translation)
    diagonal = np.arange(len(system.u))
    u, v = system.u.copy(), system.v.copy()
    own = u[diagonal, diagonal]
    u[diagonal, diagonal] = np.where(own > 0, own * (1 + damping), 1.0)
    corner = np.arange(3)
    v[:, corner, corner] += damping * v[:, corner, corner] + 1e-12 * (1 + np.trace(v, axis1=1, axis2=2))[:, None]
    inverse = np.linalg.inv(v)
    alone = np.einsum("pij,pj->pi", inverse, system.right_v)
    right = system.right_u - _scatter(system.column, np.einsum("oid,oi->od", system.w, alone[system.point]), (len(u),))
    delta = np.linalg.solve(_eliminated(system, u, inverse), right)
    pulled = np.einsum("oid,od->oi", system.w, delta[system.column])
    place = 3 * system.point[:, None] + np.arange(3)
    points = alone - np.einsum("pij,pj->pi", inverse, _scatter(place, pulled, alone.shape))
    motion = delta[: 6 * cameras].reshape(cameras, 6)
    return replace(
        bundle,
        rotation=rotation_from_vector(motion[:, :3]) @ bundle.rotation,
        translation=bundle.translation + motion[:, 3:],
        focal=bundle.focal * np.exp(np.clip(delta[6 * cameras :], -0.3, 0.3)),
        points=bundle.points + points,
    )


def triangulate(bundle: Bundle) -> Bundle:
    """The bundle with its points ``[P, 3]`` where the rays of their observations meet, in linear least squares."""
    rotation = bundle.rotation[bundle.camera_index]
    focal = bundle.focal[bundle.group[bundle.camera_index]][:, None]
    ray = np.concatenate([bundle.pixels / focal, np.ones((len(focal), 1))], axis=1)
    ray /= np.linalg.norm(ray, axis=1, keepdims=True)
    ray = np.einsum("oji,oj->oi", rotation, ray)
    centre = -np.einsum("oji,oj->oi", rotation, bundle.translation[bundle.camera_index])
    across = np.eye(3) - ray[:, :, None] * ray[:, None, :]
    normal, right = np.zeros((len(bundle.points), 3, 3)), np.zeros((len(bundle.points), 3))
    np.add.at(normal, bundle.point_index, across)
    np.add.at(right, bundle.point_index, np.einsum("oij,oj->oi", across, centre))
    normal += 1e-9 * np.eye(3)
    return replace(bundle, points=np.linalg.solve(normal, right[..., None])[..., 0])


def widest_angles(bundle: Bundle) -> np.ndarray:
    """``[P]`` the widest angle in degrees between the rays from which each point was seen."""
    centres = -np.einsum("nji,nj->ni", bundle.rotation, bundle.translation)
    ray = bundle.points[bundle.point_index] - centres[bundle.camera_index]
    ray /= np.maximum(np.linalg.norm(ray, axis=1, keepdims=True), 1e-12)
    order = np.argsort(bundle.point_index, kind="stable")
    index, ray = bundle.point_index[order], ray[order]
    widest = np.zeros(len(bundle.points))
    length = np.bincount(index, minlength=len(bundle.points))
    for step in range(1, int(length.max(initial=1))):
        same = index[step:] == index[:-step]
        cosine = np.clip((ray[step:] * ray[:-step]).sum(1), -1, 1)
        np.maximum.at(widest, index[step:][same], np.degrees(np.arccos(cosine))[same])
    return widest
