"""The scene from above: points as a picture, the path and the cameras as lines, in one SVG."""

from html import escape

import torch
from torch import Tensor
from torch.nn import functional as F

from fvgen.cameras import Cameras
from fvgen.pages import data_uri
from fvgen.viewer.result import Result

WIDTH, HEIGHT = 560, 400
_MARGIN = 24
_CELL = 2  # pixels
_REACH = 0.06  # of the drawing's width, how long a camera is drawn
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
        self._middle, self._scale = self._frame(result)

    def _frame(self, result: Result) -> tuple[Tensor, float]:
        """What lies in the middle of the drawing, and pixels per unit."""
        centers = torch.cat([result.cameras.centers, result.photo_cameras.centers]) @ self._axes.T
        shown = centers[:, :2]
        if len(result.positions):
            flat = result.positions[:: max(1, len(result.positions) // 50_000)].double() @ self._axes[:2].T
            ends = torch.quantile(flat, torch.tensor([0.02, 0.98], dtype=torch.float64), dim=0)
            shown = torch.cat([shown, ends])
        low, high = shown.amin(0), shown.amax(0)
        room = torch.tensor([WIDTH - 2 * _MARGIN, HEIGHT - 2 * _MARGIN], dtype=torch.float64)
        return (low + high) / 2, float((room / (high - low).clamp_min(_FLAT)).min())

    def flat(self, positions: Tensor) -> Tensor:
        """World points ``[P, 3]`` to pixels of the drawing ``[P, 2]``."""
        half = torch.tensor([WIDTH / 2, HEIGHT / 2], dtype=torch.float64)
        return (positions.double() @ self._axes[:2].T - self._middle) * self._scale + half

    def frustum(self, camera: Cameras) -> str:
        """The first camera as the points of a triangle, flattened onto the ground."""
        width, height = camera.sizes[0].tolist()
        corners = torch.tensor([[0.0, height / 2, 1], [width, height / 2, 1]], dtype=torch.float64)
        rays = corners @ torch.linalg.inv(camera.intrinsics[0]).T @ camera.world_from_camera[0, :3, :3].T
        reach = _REACH * WIDTH / self._scale
        points = torch.cat([camera.centers[:1], camera.centers[:1] + reach * rays])
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in self.flat(points).tolist())

    def svg(self, result: Result) -> str:
        """The drawing; the element ``here`` is the camera of one frame, to be moved."""
        way = " ".join(f"{x:.1f},{y:.1f}" for x, y in self.flat(result.cameras.centers).tolist())
        photos = "".join(
            f'<polygon class="photo" points="{self.frustum(result.photo_cameras[i])}">'
            f"<title>{escape(name)}</title></polygon>"
            for i, name in enumerate(result.photo_names)
        )
        return (
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="the camera path from above">'
            f'<image width="{WIDTH}" height="{HEIGHT}" href="{data_uri(self._ground(result), 85)}"/>'
            f'{photos}<polyline class="way" points="{way}"/>'
            f'<polygon class="here" id="here" points="{self.frustum(result.cameras[:1])}"/></svg>'
        )

    def _ground(self, result: Result) -> Tensor:
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
