"""Camera poses from photos: features, matches, mapping and bundle adjustment, with nothing to download."""

import hashlib
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fvgen.cameras import Cameras
from fvgen.errors import UserError
from fvgen.scene.keypoints import refine_keypoints
from fvgen.scene.matching import Features, PairMatches, match_photos
from fvgen.scene.types import Dropped, Photos

# Focal lengths of ordinary cameras in units of the longer side: phones 0.7 to 0.8, video and compact cameras 0.8 to 1.
_USUAL_FOCAL, _USUAL_SPREAD = 0.8, 0.3
_EXIF_SPREAD = 0.05  # EXIF rounds, and lenses breathe
_ADVICE = "take photos that overlap by 60 to 80 %, from different places, of a still and textured scene"


@dataclass(frozen=True)
class Reconstruction:
    """Photos with cameras, and the sparse points that fixed them.

    The world is the first placed photo's camera (OpenCV axes, at the origin), scaled so that the median depth of all
    observed points is 1.

    Attributes:
        photos: the photos that were placed, in the user's order, ``cameras`` unset; ``dropped`` names the others.
        cameras: ``N`` cameras at the full size of each photo.
        points: ``[S, 3]`` float64, world units.
        errors: ``[S]`` float64, mean reprojection error of each point in pixels of the photos at full size.
        visible: ``[S, N]`` bool, which photos saw each point.
    """

    photos: Photos
    cameras: Cameras
    points: Tensor
    errors: Tensor
    visible: Tensor

    def depths(self, photo: int) -> Tensor:
        """``[s]`` z-depths in world units of the points that a photo saw."""
        points = self.points[self.visible[:, photo]]
        camera = self.cameras.camera_from_world[photo]
        return points @ camera[2, :3] + camera[2, 3]


def reconstruct(photos: Photos, device: str = "cpu", seed: int = 0) -> Reconstruction:
    """Find where 2 to a few hundred photos were taken from.

    XFeat keypoints are matched by LighterGlue, moved to sub-pixel accuracy, placed by COLMAP's mapper (two photos: by
    the most probable relative pose) and bundle adjusted with a prior on the focal length. Photos of one size and EXIF
    focal length share a focal length; the principal point is the middle of the photo. Deterministic for a seed.

    Args:
        device: where the networks run; the rest runs on the CPU.

    Raises:
        UserError: if fewer than two photos can be placed, saying what would help.
    """
    given, photos = len(photos), without_copies(photos)
    if len(photos) < 2:
        copies = [f"{copy.name} is {copy.reason}" for copy in photos.dropped[len(photos) - given :] if given > 1]
        detail = f" ({'; '.join(copies)})" if copies else ""
        raise UserError(f"finding cameras needs two different photos or more, got {len(photos)}{detail}; {_ADVICE}")
    features, matches = match_photos(photos.images, device=device)
    points, aligned = refine_keypoints(photos.images, features, matches)
    problem = _problem(photos, features, matches, points, aligned, seed)
    answer = _run_worker(problem)
    if str(answer["failure"]):
        raise UserError(_explain(str(answer["failure"]), photos, int(answer["matched"])))
    return _reconstruction(photos, matches, answer)


def without_copies(photos: Photos) -> Photos:
    """The photos without pixel-identical copies of earlier ones, which are named in ``dropped``."""
    first: dict[tuple[torch.Size, bytes], int] = {}
    dropped = list(photos.dropped)
    for i, image in enumerate(photos.images):
        pixels = hashlib.sha256(image.cpu().numpy().tobytes()).digest()
        twin = first.setdefault((image.shape, pixels), i)
        if twin != i:
            dropped.append(Dropped(photos.names[i], f"the same picture as {photos.names[twin]}"))
    return replace(_select(photos, list(first.values())), dropped=dropped)


def _select(photos: Photos, index: list[int]) -> Photos:
    return Photos(
        names=[photos.names[i] for i in index],
        images=[photos.images[i] for i in index],
        focals=[photos.focals[i] for i in index],
        cameras=None if photos.cameras is None else photos.cameras[index],
        dropped=list(photos.dropped),
    )


def _problem(
    photos: Photos,
    features: list[Features],
    matches: list[PairMatches],
    points: list[np.ndarray],
    aligned: list[np.ndarray],
    seed: int,
) -> dict[str, np.ndarray]:
    """The arrays that `fvgen.sfm.problem.read_problem` reads."""
    sizes = np.array([f.size for f in features])
    kinds = [(min(size), max(size), round(focal or 0)) for size, focal in zip(sizes.tolist(), photos.focals)]
    known = sorted(set(kinds))
    arrays = {
        "sizes": sizes,
        "group": np.array([known.index(kind) for kind in kinds]),
        "focal_prior": np.array([focal or _USUAL_FOCAL * longer for _, longer, focal in known], dtype=float),
        "focal_spread": np.array([_EXIF_SPREAD if focal else _USUAL_SPREAD for _, _, focal in known]),
        "pairs": np.array([(m.first, m.second) for m in matches], dtype=int).reshape(-1, 2),
        "seed": np.array(seed),
    }
    for i in range(len(photos)):
        arrays[f"points_{i}"], arrays[f"aligned_{i}"] = points[i], aligned[i]
    for p, pair in enumerate(matches):
        arrays[f"matches_{p}"], arrays[f"scores_{p}"] = pair.indices.numpy(), pair.scores.numpy()
    return arrays


def _run_worker(problem: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Solve in a process of its own, in which COLMAP shares memory with no other image library.

    Raises:
        UserError: if that process dies.
    """
    environment = dict(os.environ)
    package = str(Path(__file__).resolve().parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [package, environment.get("PYTHONPATH")]))
    with tempfile.TemporaryDirectory() as folder:
        question, answer = Path(folder) / "problem.npz", Path(folder) / "answer.npz"
        np.savez(question, **problem)  # type: ignore[arg-type]
        # -P: a file of the user's called numpy.py must not be imported from the current folder
        command = [sys.executable, "-P", "-m", "fvgen.sfm.worker", str(question), str(answer)]
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode != 0 or not answer.is_file():
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise UserError(
                f"the camera estimation by COLMAP stopped with code {done.returncode} ({last}); try again with "
                "other or fewer photos, or give the cameras (a transforms.json or a COLMAP folder)"
            )
        with np.load(answer, allow_pickle=False) as data:
            return dict(data)


def _explain(failure: str, photos: Photos, matched: int) -> str:
    """The one line for photos of which no two could be placed."""
    names = f"{photos.names[0]} and {photos.names[1]}" if len(photos) == 2 else f"these {len(photos)} photos"
    if failure == "parallax":
        return (
            f"cannot find cameras: {names} were taken from one spot (or are one picture), so nothing tells near from "
            "far; step sideways between photos"
        )
    return (
        f"cannot find cameras: {names} have too little in common (at best {matched} matching points between two "
        f"photos, not enough agree); {_ADVICE}"
    )


def _reconstruction(photos: Photos, matches: list[PairMatches], answer: dict[str, np.ndarray]) -> Reconstruction:
    placed = answer["photos"].tolist()
    dropped = [
        Dropped(photos.names[i], _why_dropped(i, placed, matches)) for i in range(len(photos)) if i not in placed
    ]
    chosen = replace(_select(photos, placed), cameras=None, dropped=photos.dropped + dropped)
    count = len(placed)
    camera_from_world = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
    camera_from_world[:, :3, :3] = torch.from_numpy(answer["rotation"])
    camera_from_world[:, :3, 3] = torch.from_numpy(answer["translation"])
    points = torch.from_numpy(answer["points"])
    seen_by, seen = (torch.from_numpy(answer[name]) for name in ("camera_index", "point_index"))
    depth = (camera_from_world[seen_by, 2, :3] * points[seen]).sum(1) + camera_from_world[seen_by, 2, 3]
    scale = 1 / float(depth.median())
    first = camera_from_world[0]
    world_from_camera = first @ torch.linalg.inv(camera_from_world)
    world_from_camera[0] = torch.eye(4, dtype=torch.float64)
    world_from_camera[:, :3, 3] *= scale
    points = (points @ first[:3, :3].T + first[:3, 3]) * scale
    visible = torch.zeros(len(points), count, dtype=torch.bool)
    visible[seen, seen_by] = True
    errors = torch.zeros(len(points), dtype=torch.float64).index_add_(0, seen, torch.from_numpy(answer["errors"]))
    sizes = torch.tensor([[image.shape[1], image.shape[0]] for image in chosen.images])
    intrinsics = torch.eye(3, dtype=torch.float64).repeat(count, 1, 1)
    intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = torch.from_numpy(answer["focal"])
    intrinsics[:, :2, 2] = sizes / 2
    return Reconstruction(
        photos=chosen,
        cameras=Cameras(world_from_camera, intrinsics, sizes),
        points=points,
        errors=errors / visible.sum(1).clamp_min(1),
        visible=visible,
    )


def _why_dropped(photo: int, placed: list[int], matches: list[PairMatches]) -> str:
    """A short clause on why a photo has no camera."""
    most = 0
    for pair in matches:
        if photo in (pair.first, pair.second) and (pair.first in placed or pair.second in placed):
            most = max(most, len(pair.indices))
    if most < 30:
        return f"too little in common with the other photos (at best {most} matching points)"
    return f"its place does not follow from what it shares with the other photos (at best {most} matching points)"
