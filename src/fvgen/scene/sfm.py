"""Camera poses from photos: features, matches, mapping and bundle adjustment, with nothing to download."""

import contextlib
import errno
import logging
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fvgen.cameras import Cameras
from fvgen.errors import UserError
from fvgen.files import why_not_written, writing
from fvgen.scene.geometry.result import Geometry
from fvgen.scene.keypoints import refine_keypoints
from fvgen.scene.matching import Features, match_photos
from fvgen.scene.types import Dropped, Photos
from fvgen.sfm.problem import REFERENCE, USUAL_FOCAL, USUAL_SPREAD, Pair, Problem

_log = logging.getLogger(__name__)

_EXIF_SPREAD = 0.05  # EXIF rounds, and lenses breathe
_CROP_SPREAD = 0.2  # of a crop it is not known how much of the picture is left
_SIGMA_ALIGNED, _SIGMA_DETECTED = 0.5, 1.0  # expected errors of keypoints in pixels of the reference size
_ADVICE = "take photos that overlap by 60 to 80 %, from different places, of a still and textured scene"


def place(photos: Photos, device: str = "cpu", seed: int = 0) -> Geometry:
    """Find where 2 to a few hundred photos were taken from.

    XFeat keypoints are matched by LighterGlue, moved to sub-pixel accuracy, placed by COLMAP's mapper (two photos: by
    the most probable relative pose) and bundle adjusted with a prior on the focal length: EXIF's, unless that clearly
    contradicts the photos, which is said. Photos of one size and EXIF focal length share a focal length; the principal
    point is the middle of the photo. Deterministic for a seed.

    Args:
        photos: two at least; cameras that came with them are not used.
        device: where the networks run; the rest runs on the CPU.
        seed: of every random choice.

    Returns:
        Cameras and sparse points; depth is left to the plane sweep.

    Raises:
        UserError: if fewer than two photos can be placed, saying what would help.
    """
    given, photos = len(photos), replace(photos, cameras=None).without_copies()
    if len(photos) < 2:
        copies = [f"{copy.name} is {copy.reason}" for copy in photos.dropped[len(photos) - given :] if given > 1]
        detail = f" ({'; '.join(copies)})" if copies else ""
        raise UserError(f"finding cameras needs two different photos or more, got {len(photos)}{detail}; {_ADVICE}")
    problem = observe(photos, device, seed)
    answer = solve(problem, photos.names)
    for group in answer["distrusted"].tolist():
        own = [photos.names[i] for i in range(len(photos)) if problem.group[i] == group]
        found = [f for i, f in zip(answer["photos"].tolist(), answer["focal"].tolist()) if problem.group[i] == group]
        who = own[0] if len(own) == 1 else f"{own[0]} and {len(own) - 1} more"
        _log.info(
            f"{who}: the focal length in EXIF ({problem.focal_prior[group]:.0f} pixels) contradicts what the photos "
            f"share ({found[0]:.0f}), which is used; they may be crops, or EXIF another camera's"
        )
    return placed(photos, problem.pairs, answer)


def observe(photos: Photos, device: str = "cpu", seed: int = 0) -> Problem:
    """What the photos say about their cameras: keypoints, matches (not of masked pixels), expected focal lengths."""
    features, pairs = match_photos(photos.images, device)
    if photos.masks is not None:
        pairs = _unmasked(pairs, features, photos.masks)
    points, aligned = refine_keypoints(photos.images, features, pairs)
    sizes = np.array([f.size for f in features])
    cropped = photos.cropped or [False] * len(photos)
    told = zip(sizes.tolist(), photos.focals, cropped)
    kinds = [(min(size), max(size), round(focal or 0), crop) for size, focal, crop in told]
    known = sorted(set(kinds))
    return Problem(
        sizes=sizes,
        group=np.array([known.index(kind) for kind in kinds]),
        focal_prior=np.array([focal or USUAL_FOCAL * longer for _, longer, focal, _ in known], dtype=float),
        focal_spread=np.array(
            [(_CROP_SPREAD if crop else _EXIF_SPREAD) if focal else USUAL_SPREAD for _, _, focal, crop in known]
        ),
        points=points,
        sigma=[
            np.where(good, _SIGMA_ALIGNED, _SIGMA_DETECTED) * (size.max() / REFERENCE)
            for good, size in zip(aligned, sizes)
        ],
        pairs=pairs,
        seed=seed,
    )


def _unmasked(pairs: list[Pair], features: list[Features], masks: list[Tensor | None]) -> list[Pair]:
    """The matches of which no keypoint is on a pixel that is not to be used."""
    usable = []
    for found, mask in zip(features, masks):
        if mask is None:
            usable.append(np.ones(len(found), dtype=bool))
        else:
            x, y = (found.points[:, k].long().clamp(0, mask.shape[1 - k] - 1) for k in (0, 1))
            usable.append(mask[y, x].numpy())
    kept = [usable[pair.first][pair.indices[:, 0]] & usable[pair.second][pair.indices[:, 1]] for pair in pairs]
    return [replace(p, indices=p.indices[use], scores=p.scores[use]) for p, use in zip(pairs, kept)]


def solve(problem: Problem, names: list[str]) -> dict[str, Any]:
    """The answer of `fvgen.sfm.worker.solve`, from a process in which COLMAP shares memory with no other image library.

    Args:
        problem: what the photos said.
        names: of the photos, for messages.

    Raises:
        UserError: fewer than two photos can be placed, or the process dies.
    """
    environment = dict(os.environ)
    package = str(Path(__file__).resolve().parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [package, environment.get("PYTHONPATH")]))
    with _scratch() as folder:
        question, answer = Path(folder) / "problem.pickle", Path(folder) / "answer.pickle"
        question.write_bytes(pickle.dumps(problem))
        # -P: a file of the user's called numpy.py must not be imported from the current folder
        command = [sys.executable, "-P", "-m", "fvgen.sfm.worker", str(question), str(answer)]
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode != 0 or not answer.is_file():
            if reason := why_not_written(RuntimeError(done.stderr), Path(folder)):
                raise OSError(errno.ENOSPC, reason)
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise UserError(
                f"the camera estimation by COLMAP stopped with code {done.returncode} ({last}); try again with "
                "other or fewer photos, or give the cameras (a transforms.json or a COLMAP folder)"
            )
        found: dict[str, Any] = pickle.loads(answer.read_bytes())
    who = f"{names[0]} and {names[1]}" if len(names) == 2 else f"these {len(names)} photos"
    if found["failure"] == "parallax":
        raise UserError(
            f"cannot find cameras: {who} were taken from one spot (or are one picture), so nothing tells near from "
            "far; step sideways between photos"
        )
    if found["failure"]:
        raise UserError(
            f"cannot find cameras: {who} have too little in common (at best {found['matched']} matching points between "
            f"two photos, not enough agree); {_ADVICE}"
        )
    return found


@contextlib.contextmanager
def _scratch() -> Iterator[str]:
    """A folder for temporary files.

    Raises:
        UserError: there is no place for them.
    """
    try:
        made = tempfile.TemporaryDirectory()
    except OSError as error:
        raise UserError(f"no folder for temporary files ({error.strerror}); let TMPDIR name one") from None
    with made as folder, writing(Path(folder), f"temporary files in {Path(folder).parent} (TMPDIR)"):
        yield folder


def placed(photos: Photos, pairs: list[Pair], answer: dict[str, Any]) -> Geometry:
    """The answer of `solve` for these photos and pairs, in the frame and scale of `Geometry`."""
    placed = answer["photos"].tolist()
    lost = [i for i in range(len(photos)) if i not in placed]
    dropped = photos.dropped + [Dropped(photos.names[i], _why_dropped(i, placed, pairs)) for i in lost]
    chosen = replace(photos.select(placed), dropped=dropped)
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
    sizes = torch.tensor([[image.shape[1], image.shape[0]] for image in chosen.images])
    intrinsics = torch.eye(3, dtype=torch.float64).repeat(count, 1, 1)
    intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = torch.from_numpy(answer["focal"])
    intrinsics[:, :2, 2] = sizes / 2
    return Geometry(chosen, Cameras(world_from_camera, intrinsics, sizes), "colmap", points=points)


def _why_dropped(photo: int, placed: list[int], pairs: list[Pair]) -> str:
    """A short clause on why a photo has no camera."""
    own = [pair for pair in pairs if photo in (pair.first, pair.second)]
    most = max((len(p.indices) for p in own if p.first in placed or p.second in placed), default=0)
    reason = "too little in common with" if most < 30 else "its place does not follow from what it shares with"
    return f"{reason} the other photos (at best {most} matching points)"
