"""One HTML file that shares a result: a walk through its Gaussians, guide and views under a slider, the path from
above, photographs, summary."""

import base64
import json
import math
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fvgen import __version__
from fvgen.cameras import Cameras
from fvgen.errors import UserError
from fvgen.files import check_file, output_file
from fvgen.pages import chips, data_uri, duration, filled, script_json
from fvgen.progress import track
from fvgen.reconstruction.exports import brought_near, pack_spz
from fvgen.reconstruction.gaussians import Gaussians, read_gaussians
from fvgen.scene.formats.images import read_photo
from fvgen.scene.formats.video import frame_times
from fvgen.viewer.result import Result, measured_of, read_result

WIDTH, HEIGHT = 560, 400  # of the drawing, in page.html too

_MARGIN, _CELL = 24, 2  # pixels

_FLAT = 1e-9


class Overhead:
    """A drawing of a result seen along the photos' common vertical, the middle of the path's view upwards."""

    def __init__(self, result: Result) -> None:
        poses = result.photo_cameras.world_from_camera
        up = -poses[:, :3, 1].mean(0)
        up = F.normalize(up if float(up.norm()) > 0.3 else -poses[0, :3, 1], dim=0)
        ahead = result.cameras.world_from_camera[:, :3, 2].mean(0)
        ahead = ahead - (ahead @ up) * up
        if float(ahead.norm()) < _FLAT:  # all around: any direction will do
            ahead = poses[0, :3, 2] - (poses[0, :3, 2] @ up) * up
        ahead = F.normalize(ahead, dim=0)
        self._axes = torch.stack([torch.linalg.cross(ahead, up), -ahead, up])  # right, down on the page, towards us
        shown = torch.cat([result.cameras.centers, result.photo_cameras.centers]) @ self._axes[:2].T
        if len(result.positions):
            flat = result.positions[:: max(1, len(result.positions) // 50_000)].double() @ self._axes[:2].T
            ends = torch.quantile(flat, torch.tensor([0.02, 0.98], dtype=torch.float64), dim=0)
            shown = torch.cat([shown, ends])
        low, high = shown.amin(0), shown.amax(0)
        room = torch.tensor([WIDTH - 2 * _MARGIN, HEIGHT - 2 * _MARGIN], dtype=torch.float64)
        self._middle = (low + high) / 2
        self._scale = float((room / (high - low).clamp_min(_FLAT)).min())  # pixels per unit

    def flat(self, positions: Tensor) -> Tensor:
        """Pixels ``[P, 2]`` of the drawing where world points ``[P, 3]`` lie."""
        half = torch.tensor([WIDTH / 2, HEIGHT / 2], dtype=torch.float64)
        return (positions.double() @ self._axes[:2].T - self._middle) * self._scale + half

    def frustum(self, camera: Cameras) -> str:
        """The first camera as the points of a triangle, flattened onto the ground."""
        width, height = camera.sizes[0].tolist()
        corners = torch.tensor([[0.0, height / 2, 1], [width, height / 2, 1]], dtype=torch.float64)
        rays = corners @ torch.linalg.inv(camera.intrinsics[0]).T @ camera.world_from_camera[0, :3, :3].T
        reach = 0.06 * WIDTH / self._scale
        points = torch.cat([camera.centers[:1], camera.centers[:1] + reach * rays])
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in self.flat(points).tolist())

    def way(self, result: Result) -> str:
        """The path as the points of a line."""
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in self.flat(result.cameras.centers).tolist())

    def ground(self, result: Result) -> Tensor:
        """``[h, w, 3]`` uint8: in each cell the points, those nearest to the cameras' height over the others."""
        width, height = WIDTH // _CELL, HEIGHT // _CELL
        picture = torch.tensor([13, 16, 22], dtype=torch.uint8).repeat(height * width, 1)
        level = (result.photo_cameras.centers @ self._axes[2]).mean()
        away = (result.positions.double() @ self._axes[2] - level).abs()
        cells = (self.flat(result.positions) / _CELL).floor().long()
        inside = ((cells >= 0) & (cells < torch.tensor([width, height]))).all(1)
        order = away[inside].argsort(descending=True)
        index = (cells[inside, 1] * width + cells[inside, 0])[order]
        found, inverse = index.unique(return_inverse=True)
        last = torch.full((len(found),), -1).scatter_reduce(0, inverse, torch.arange(len(index)), "amax")
        picture[found] = result.colors[inside][order][last]
        return picture.view(height, width, 3)


_DETAIL = ((None, 88), (None, 76), (1024, 80), (768, 78), (512, 76), (384, 72), (256, 68))  # long side, JPEG quality


def write_page(
    out: Path, output: Path, title: str | None = None, megabytes: float = 12.0, splats: Path | None = None
) -> int:
    """Write the page of a result.

    Args:
        out: what ``fvgen generate`` wrote.
        output: the file; an existing one is replaced.
        title: heading, by default the folder's name.
        megabytes: of pictures of frames at most: where they do not fit they are compressed more, then made smaller,
            and at last only every second, third, ... frame is there, which the page says.
        splats: a PLY of Gaussians in the result's world, to walk through.

    Returns:
        Bytes written.

    Raises:
        UserError: an incomplete result, no Gaussians, or a file that cannot be written.
    """
    check_file(output, overwrite=True)
    gaussians = None if splats is None else read_gaussians(splats)
    if gaussians is not None and len(gaussians) == 0:
        raise UserError(f"`splats` {splats}: no Gaussians in it")
    result = read_result(out)
    times = frame_times(out / "views.mp4")
    rate = (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 and times[-1] > times[0] else 10.0
    page = render_page(result, rate, title or result.name, megabytes, gaussians).encode()
    with output_file(output) as unfinished:
        unfinished.write_bytes(page)
    return len(page)


def render_page(result: Result, rate: float, title: str, megabytes: float, gaussians: Gaussians | None = None) -> str:
    """The page as text.

    Args:
        result: what is shown.
        rate: frames per second.
        title, megabytes: see `write_page`.
        gaussians: to walk through, in the result's world.
    """
    measured = measured_of(summary := result.summary)
    (longest, quality), stride = _fitting(result, megabytes)
    overhead, shares = Overhead(result), measured.get("frames", [])
    numbers = list(range(0, len(result.frames), stride))
    frames = [
        {
            "number": i,
            "guide": data_uri(result.guide[i], quality, longest),
            "view": data_uri(result.frames[i], quality, longest),
            "photo": result.photo[i],
            "measured": _percent(shares[i] if i < len(shares) else None),
            "here": overhead.frustum(result.cameras[i]),
        }
        for i in track(numbers, "page")
    ]
    first = next((k for k, frame in enumerate(frames) if frame["photo"] is None), 0)
    height, width = result.frames.shape[1:3]
    photos = sum(p is not None for p in result.photo)
    note = "Left of the line the point render that guided the model, right of it what came out."
    note += f" {photos} of the {len(result.photo)} frames are photographs." if photos else ""
    note += f" Every {stride}. frame is in this file." if stride > 1 else ""
    seconds = summary.get("seconds", {})
    facts = {
        "model": summary.get("model"),
        "steps": summary.get("steps"),
        "frames": len(result.frames),
        "size": f"{width}x{height}",
        "photos": len(result.photo_names),
        "measured": _percent(measured.get("mean")),
        "time": duration(seconds.get("total")) if isinstance(seconds, dict) else None,
    }
    figures = cameras = ""
    for i, file in enumerate(track(result.photo_files, "photos")):
        uri, name = data_uri(read_photo(file).image, 80, 360), escape(result.photo_names[i])
        figures += f'<figure><img src="{uri}" alt="{name}"><figcaption>{name}</figcaption></figure>'
        points = overhead.frustum(result.photo_cameras[i])
        cameras += f'<polygon class="photo" points="{points}"><title>{name}</title></polygon>'
    parts = {
        "TITLE": escape(title),
        "ASPECT": f"{width}/{height}",
        "CHIPS": chips(facts),
        "LAST": str(len(numbers) - 1),
        "NOTE": escape(note),
        "GROUND": data_uri(overhead.ground(result), 85),
        "CAMERAS": cameras,
        "WAY": overhead.way(result),
        "HERE": overhead.frustum(result.cameras[:1]),
        "PHOTOS": figures,
        "FACTS": _facts(summary),
        "FOOTER": f"Made by fvgen {escape(__version__)}. This file needs no network.",
        "SUMMARY": escape(json.dumps(summary, indent=2, ensure_ascii=False)),
        "DATA": script_json({"frames": frames, "rate": round(rate / stride, 3), "first": first}),
        **walk_parts(gaussians, result, rate),
    }
    return filled("fvgen.viewer", "page.html", parts)


def walk_parts(gaussians: Gaussians | None, result: Result, rate: float) -> dict[str, str]:
    """The parts of the page to walk through Gaussians; empty where there are none."""
    if gaussians is None:
        return dict.fromkeys(("WORKER", "WALK", "WALKING"), "")
    gaussians, cameras = brought_near(gaussians, result.cameras)
    turn = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64))  # SPZ has y up
    poses, sizes, k = cameras.world_from_camera, cameras.sizes.double(), cameras.intrinsics
    places, ahead, down = (poses[:, :3, column] @ turn for column in (3, 2, 1))
    focal = torch.stack([k[:, 0, 0], k[:, 1, 1]], 1) / sizes
    frames = torch.cat([places, ahead, down, focal, k[:, :2, 2] / sizes], 1)
    first = next((i for i, photo in enumerate(result.photo) if photo is None), 0)
    width, height = cameras.size
    path = {"frames": [[round(v, 6) for v in frame] for frame in frames.tolist()], "first": first}
    path |= {"rate": round(rate, 3), "aspect": width / height}
    code = files("fvgen.viewer").joinpath("walk.js").read_text(encoding="utf-8")
    return {
        "WORKER": "; worker-src blob:",
        "WALK": _WALK,
        "WALKING": _WALKING.format(
            splats=base64.b64encode(pack_spz(gaussians)).decode(), path=script_json(path), code=code
        ),
    }


_WALK = """<h2>Walk around</h2>
<section class="card panel walk">
<canvas id="walk" tabindex="0" aria-label="the scene in three dimensions"></canvas>
<div class="frame"><button type="button" class="play" id="fly">Fly the path</button>
<button type="button" class="play" id="full">Full screen</button></div>
<p class="note" id="walknote">Drag to look; W, A, S, D or the arrows to walk, E and Q up and down, Shift faster.</p>
</section>
"""

_WALKING = """<script type="application/octet-stream" id="splats">{splats}</script>
<script type="application/json" id="flight">{path}</script>
<script>
{code}
walk(get("walk"), get("fly"), get("full"), get("walknote"), get("splats").textContent,
  JSON.parse(get("flight").textContent))
  .catch(error => {{ get("walknote").textContent = `The walk failed: ${{error.message}}`; }});
</script>
"""


def _fitting(result: Result, megabytes: float) -> tuple[tuple[int | None, int], int]:
    """How long and how good the pictures may be, and which frames are embedded (every n-th)."""
    count, size = len(result.frames), 0.0
    tried = sorted({round(k * (count - 1) / 3) for k in range(4)})
    for detail in _DETAIL:
        longest, quality = detail
        pictures = [p for i in tried for p in (result.guide[i], result.frames[i])]
        size = sum(len(data_uri(p, quality, longest)) for p in pictures) / len(tried) * count
        if size <= megabytes * 1e6:
            return detail, 1
    return _DETAIL[-1], math.ceil(size / (megabytes * 1e6))


def _percent(share: Any) -> str | None:
    return f"{100 * share:.0f} %" if isinstance(share, int | float) else None


def _facts(summary: dict[str, Any]) -> str:
    rows = ""
    for key, value in summary.items():
        if key == "photos" and isinstance(value, dict):
            dropped = [d for d in value.get("dropped", []) if isinstance(d, dict)]
            value = f"{len(value.get('used', []))} used"
            value += "".join(f"; {d.get('name')} left out: {d.get('reason')}" for d in dropped)
        elif key == "seconds" and isinstance(value, dict):
            key, value = "time", ", ".join(f"{k} {duration(v)}" for k, v in value.items())
        elif key == "measured" and isinstance(value, dict):
            least, frame = _percent(value.get("least")), value.get("frame")
            value = f"{_percent(value.get('mean'))} of the frames; least {least}, frame {frame}"
        elif isinstance(value, dict):
            value = ", ".join(f"{k} {v}" for k, v in value.items())
        elif isinstance(value, list):
            value = " x ".join(map(str, value))
        rows += f"<dt>{escape(str(key))}</dt><dd>{escape(str(value))}</dd>"
    return rows
