"""A flight through Gaussians, whoever made them: where its cameras go, and its frames as a video or pictures."""

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from fvgen import __version__
from fvgen.cameras import Cameras
from fvgen.cameras.paths import path_dolly, path_orbit, path_spiral, path_through
from fvgen.cameras.poses import look_at, rotation_exp
from fvgen.devices import find_device
from fvgen.errors import UserError
from fvgen.files import output_file
from fvgen.outputs import output_folder
from fvgen.pictures import to_bytes
from fvgen.progress import track
from fvgen.reconstruction.exports import brought_near
from fvgen.reconstruction.gaussians import Gaussians, read_gaussians
from fvgen.reconstruction.render import Renderer, find_renderer
from fvgen.reconstruction.targets import check_flight
from fvgen.scene.formats.colmap import colmap_model_folder, read_colmap
from fvgen.scene.formats.images import PngWriter
from fvgen.scene.formats.record import natural_key
from fvgen.scene.formats.transforms_json import (
    pinhole_cameras,
    read_camera_path,
    read_transforms_json,
    write_transforms_json,
)
from fvgen.scene.formats.video import write_video

UP = {f"{sign}{axis}": (i, -1.0 if sign else 1.0) for sign in ("", "minus-") for i, axis in enumerate("xyz")}
DOWN_IS_Y = "minus-y"  # up, in the worlds of COLMAP and of what is fitted to its cameras
FRAMES, FPS = 120, 24.0
SIZE = (768, 480)  # of the frames where no camera tells one
LONGEST = 1024  # pixels of their longer side where cameras do

_FIELD = math.radians(55)  # of view, where no camera tells one
_RAISED = math.radians(15)  # how far cameras around a scene look down
_ROOM = 1.2  # between the scene and the border of their pictures
_AROUND = 8  # cameras around a scene
_MOST, _NEARLY_ALL = 0.8, 0.98  # shares of what can be seen
_OBLIQUE = 1.2  # x / z and y / z of what one view from the origin shows, at most
_FAINT = 0.1  # opacity of Gaussians that no path is planned by


def render_scene(
    scene: str | Path,
    output: str | Path,
    *,
    path: str | Path | None = None,
    photos: str | Path | None = None,
    frames: int | None = None,
    size: tuple[int, int] | None = None,
    up: str | None = None,
    background: Tensor | float = 0.0,
    fps: float = FPS,
    renderer: str = "auto",
    device: str = "auto",
    overwrite: bool = False,
) -> int:
    """Render a flight through a PLY of Gaussians.

    Args:
        scene: the PLY.
        output: an ``.mp4``, or a folder, which gets ``images/00000.png`` and so on, their cameras (``transforms.json``)
            and ``summary.json``.
        path, photos, frames, size, up: see `plan_flight`.
        background: behind the Gaussians, ``[3]`` or one number for all channels, 0..1.
        fps: of the video.
        renderer: ``torch``, ``gsplat``, or ``auto``; see `find_renderer`.
        device: ``cpu``, ``cuda``, or ``auto``: a GPU if there is one.
        overwrite: replace what is there.

    Returns:
        The number of frames.

    Raises:
        UserError: for everything that the caller can mend, before anything is written.
    """
    start, target = time.perf_counter(), Path(output)
    video = check_flight(target, overwrite, [scene])
    place = find_device(device)
    draw = find_renderer(renderer, place)
    gaussians = read_gaussians(scene)
    if len(gaussians) == 0:
        raise UserError(f"{scene}: no Gaussians in it")
    cameras = plan_flight(gaussians, path, photos=photos, frames=frames, size=size, up=up)
    near, seen_from = brought_near(gaussians, cameras)
    pictures = map(to_bytes, render_each(near.each(lambda value: value.to(place)), seen_from, draw, background))
    if video:
        with output_file(target) as unfinished:
            write_video(unfinished, pictures, fps)
        return len(cameras)
    with output_folder(target, overwrite, [scene]) as folder:
        with PngWriter(folder / "images") as images:
            for i, picture in enumerate(pictures):
                images.add([i], picture[None])
            images.finish()
        names = [f"images/{images.name(i)}" for i in range(len(cameras))]
        write_transforms_json(folder / "transforms.json", cameras, names)
        summary = {
            "gaussians": len(gaussians),
            "frames": len(cameras),
            "size": list(cameras.size),
            "seconds": {"total": round(time.perf_counter() - start, 1)},
            "version": __version__,
        }
        (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    return len(cameras)


def plan_flight(
    gaussians: Gaussians,
    path: str | Path | None = None,
    *,
    photos: str | Path | None = None,
    frames: int | None = None,
    size: tuple[int, int] | None = None,
    up: str | None = None,
) -> Cameras:
    """The cameras of a flight.

    A path is planned by cameras: those of photos where they are named. Else, if nearly all that can be seen lies in
    one view from the origin along z, as where the scene was made of one photo, it is that one; else eight that stand
    around the scene and look at its middle.

    Args:
        gaussians: at least one.
        path: ``through`` (the photos), ``orbit``, ``spiral``, ``dolly``, or a file as `read_camera_path` takes it, in
            the Gaussians' world. Default: ``through`` with photos, else ``orbit``.
        photos: whose cameras, see `photo_cameras`.
        frames: how many, default `FRAMES`; a file has its own number.
        size: (width, height) of the frames. Default: that of the file's or photos' cameras, at most `LONGEST` long,
            else `SIZE`.
        up: a name of `UP`: the world's up direction, for cameras that stand around the scene.

    Raises:
        UserError: a file that cannot be read, a path that these cameras cannot have, or options that exclude another.
    """
    named = {"orbit": path_orbit, "spiral": path_spiral, "dolly": path_dolly}
    path = path or ("orbit" if photos is None else "through")
    from_file = path != "through" and path not in named
    if from_file and not Path(path).is_file():
        raise UserError(f"`path` {path}: choose through, {', '.join(named)}, or name a transforms.json")
    if up is not None and (photos is not None or from_file):
        raise UserError("`up` is for a flight without cameras; those that are given tell it themselves")
    known = None if photos is None else photo_cameras(photos)
    if from_file:
        lens = known[0] if known is not None else _around(gaussians, size or SIZE, None)[0]
        given = read_camera_path(Path(path), lens.size, lens.intrinsics[0])
        if frames is not None and frames != len(given):
            raise UserError(f"`frames` {frames}: {path} has {len(given)} cameras, one frame each; leave `frames` out")
        return given.covering(*(size or _fitting(given)))[0]
    if path == "through" and known is None:
        raise UserError("`path` through flies through photos: name their folder with `scene`, or choose orbit")
    cameras = known if known is not None else _standing(gaussians, size or SIZE, up)
    size = size or _fitting(cameras)
    if path == "through":
        return path_through(cameras, size=size, frames=frames or max(FRAMES, len(cameras))).cameras
    clear = gaussians.opacities > _FAINT
    points = gaussians.means[clear] if bool(clear.any()) else gaussians.means
    return named[str(path)](cameras, points, frames or FRAMES, size).cameras


def photo_cameras(source: str | Path) -> Cameras:
    """The cameras of photos, without reading these.

    Args:
        source: an output of ``fvgen generate``, a ``transforms.json`` or a folder with one, or a COLMAP folder.

    Raises:
        UserError: nothing of that, or files that cannot be read.
    """
    source = Path(source)
    for file in (source / "transforms_photos.json", source / "transforms.json", source):
        if file.is_file():
            return read_transforms_json(file)[0]
    model = colmap_model_folder(source)
    if model is None:
        raise UserError(f"`scene` {source}: no transforms.json and no COLMAP model in it")
    return pinhole_cameras(sorted(read_colmap(model), key=lambda record: natural_key(record.file_path or "")))


@torch.no_grad()
def render_each(
    gaussians: Gaussians, cameras: Cameras, renderer: Renderer, background: Tensor | float = 0.0
) -> Iterator[Tensor]:
    """One after the other ``[H, W, 3]`` float 0..1 on the CPU; cameras share one size.

    Args:
        gaussians, renderer: on one device.
        cameras: ``F``.
        background: ``[3]`` or one number for all channels.
    """
    device = gaussians.means.device
    views, intrinsics = cameras.camera_from_world.float().to(device), cameras.intrinsics.float().to(device)
    if isinstance(background, Tensor):
        background = background.to(device)
    for view, matrix in zip(track(views, "rendering", len(views)), intrinsics):
        yield renderer(gaussians, view, matrix, cameras.size).over(background).clamp(0, 1).cpu()


def _fitting(cameras: Cameras) -> tuple[int, int]:
    """The first camera's size, even, at most `LONGEST` long."""
    width, height = cameras.sizes[0].tolist()
    scale = min(1.0, LONGEST / max(width, height))
    return max(2, 2 * round(width * scale / 2)), max(2, 2 * round(height * scale / 2))


def _standing(gaussians: Gaussians, size: tuple[int, int], up: str | None) -> Cameras:
    """Cameras to plan a path by where there are no photos, see `plan_flight`."""
    x, y, z = gaussians.means.double().unbind(1)
    ahead = (z > 0) & (x.abs() <= _OBLIQUE * z) & (y.abs() <= _OBLIQUE * z)
    weights = gaussians.opacities.double()
    if up is None and float(weights[ahead].sum() / weights.sum()) >= _NEARLY_ALL:
        slopes = (gaussians.means[ahead, :2] / gaussians.means[ahead, 2:]).abs().double()
        wide, high = (float(_quantile(s, weights[ahead], _MOST)) for s in slopes.unbind(1))
        focal = max(size[0] / 2 / max(wide, 1e-3), size[1] / 2 / max(high, 1e-3))  # nothing empty at the border
        return _pinholes(torch.eye(4, dtype=torch.float64)[None], focal, size)
    return _around(gaussians, size, up)


def _around(gaussians: Gaussians, size: tuple[int, int], up: str | None) -> Cameras:
    """Cameras in a circle, a little above, that see most of what is there."""
    weights, means = gaussians.opacities.double(), gaussians.means.double()
    middle = torch.stack([_quantile(values, weights, 0.5) for values in means.unbind(1)])
    radius = _quantile((means - middle).norm(dim=1), weights, _MOST).clamp_min(1e-6)
    axis, sign = UP[up or DOWN_IS_Y]
    upwards, front = torch.zeros(2, 3, dtype=torch.float64)
    upwards[axis] = sign
    front[1 if axis == 2 else 2] = -1  # the first one looks along z, or along y where z is up
    turns = rotation_exp(torch.arange(_AROUND)[:, None] * (2 * math.pi / _AROUND) * upwards)
    focal = size[0] / 2 / math.tan(_FIELD / 2)
    distance = _ROOM * radius / math.sin(math.atan(min(size) / 2 / focal))
    ring = (turns @ front) * math.cos(_RAISED) + upwards * math.sin(_RAISED)
    return _pinholes(look_at(middle + distance * ring, middle, upwards), focal, size)


def _pinholes(poses: Tensor, focal: float, size: tuple[int, int]) -> Cameras:
    matrix = torch.tensor([[focal, 0, size[0] / 2], [0, focal, size[1] / 2], [0, 0, 1]], dtype=torch.float64)
    return Cameras(poses, matrix.repeat(len(poses), 1, 1), torch.tensor([size]).repeat(len(poses), 1))


def _quantile(values: Tensor, weights: Tensor, share: float) -> Tensor:
    """The value of ``[N]`` below which that share of the weights lies."""
    values, order = values.sort()
    reached = weights[order].cumsum(0)
    return values[torch.searchsorted(reached, share * reached[-1]).clamp_max(len(values) - 1)]
