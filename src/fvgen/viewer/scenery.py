"""What is drawn in space and as pictures: points, photographs, the path, frames of a result."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor
from torch.nn import functional as F

from fvgen.cameras import Cameras
from fvgen.cameras.paths import middle_photo
from fvgen.reconstruction.gaussians import Gaussians
from fvgen.reconstruction.render import rotation_matrices
from fvgen.viewer.keyframes import KeyPath
from fvgen.viewer.result import LiveResult


def side_by_side(left: Tensor | None, right: Tensor | None, size: tuple[int, int], columns: int = 640) -> np.ndarray:
    """Two pictures ``[H, W, 3]`` uint8 in one ``[h, w, 3]``, dark where one is not there yet.

    Args:
        left, right: the pictures.
        size: (width, height) of each.
        columns: that both have together, at least.
    """
    width, height = size
    empty = torch.full((height, width, 3), 24, dtype=torch.uint8)
    gap = torch.full((height, 4, 3), 255, dtype=torch.uint8)
    parts = [empty if left is None else left, gap, empty if right is None else right]
    return larger(torch.cat(parts, 1), columns)


def measured_shown(picture: Tensor, coverage: Tensor) -> Tensor:
    """``[H, W, 3]`` uint8 in which all that is not measured is red.

    Args:
        picture: ``[H, W, 3]`` uint8.
        coverage: ``[H, W]`` bool, where it is measured.
    """
    red = (0.35 * picture.float() + 0.65 * torch.tensor(_HERE)).byte()
    return torch.where(coverage[..., None], picture, red)


def larger(image: Tensor, width: int = 640) -> np.ndarray:
    """``[H, W, 3]`` uint8, scaled up to ``width`` columns where it has fewer, so that small frames fill their panel."""
    height, own = image.shape[:2]
    if own < width:
        size = (round(height * width / own), width)
        scaled = F.interpolate(image.movedim(-1, 0)[None].float(), size, mode="bicubic", antialias=True)
        image = scaled[0].movedim(0, -1).round().clamp(0, 255).byte()
    return image.contiguous().numpy()


def smaller(image: Tensor, longest: int) -> np.ndarray:
    """``[H, W, 3]`` uint8, averaged down so that its long side is ``longest`` at most."""
    height, width = image.shape[:2]
    scale = longest / max(height, width)
    if scale < 1:
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        image = F.interpolate(image.movedim(-1, 0)[None].float(), size, mode="area")[0].movedim(0, -1).round().byte()
    return image.contiguous().numpy()


_MOST_POINTS, _MOST_SPLATS = 250_000, 500_000

_FRAMES, _THUMBNAIL = 16, 192  # pictures in space at once, and the pixels of their long sides

_NEAREST = 0.06  # nearer is not drawn: from where a frame was taken its own small picture would hide everything

_PHOTO, _PATH, _HERE, _FRAME = (60, 110, 220), (235, 140, 20), (215, 40, 60), (40, 160, 110)


class Scenery:
    """Draws into a ``viser.ViserServer``; everything of one kind is removed before it is drawn again.

    Attributes:
        unit: how far away things are, in world units; what is drawn is as large as suits that.
        origin: ``[3]`` where the browsers' origin is in the world: they count in float32.
    """

    def __init__(self, server: Any) -> None:
        self._server = server
        self._nodes: dict[str, list[Any]] = {}
        self._visible: dict[str, bool] = {}
        server.scene.configure_default_lights(enabled=True, cast_shadow=False)
        self.unit = 1.0
        self.origin = torch.zeros(3, dtype=torch.float64)
        self._splats: Gaussians | None = None
        self._point_size = self._frustum_size = self._opacity = 1.0
        self._thumbnails: dict[str, list[tuple[Any, np.ndarray]]] = {}

    def place(self, cameras: Cameras, positions: Tensor) -> None:
        """Choose up, the size of things, and where new visitors stand: behind the middle photo.

        Args:
            cameras: of the photos.
            positions: ``[P, 3]`` points of the scene.
        """
        middle = middle_photo(cameras)
        self.origin = cameras.centers.mean(0)
        pose = cameras.world_from_camera[middle]
        ahead = (positions.double() - pose[:3, 3]) @ pose[:3, 2]
        ahead = ahead[ahead > 0]
        self.unit = float(ahead[:: max(1, len(ahead) // 100_000)].median()) if len(ahead) else 1.0
        up = -cameras.world_from_camera[:, :3, 1].mean(0)
        up = up if float(up.norm()) > 0.3 else -pose[:3, 1]
        self._server.scene.set_up_direction(tuple(up.tolist()))
        start = self._server.initial_camera
        start.near, start.far = _NEAREST * self.unit, 500 * self.unit
        start.fov = math.radians(60)
        start.up = tuple(up.tolist())
        eye = pose[:3, 3] - self.origin
        start.position = tuple((eye - 0.5 * self.unit * pose[:3, 2] - 0.25 * self.unit * pose[:3, 1]).tolist())
        start.look_at = tuple((eye + self.unit * pose[:3, 2]).tolist())
        for client in self._server.get_clients().values():  # they came before there was anything to see
            with client.atomic():
                client.camera.up_direction = start.up
                client.camera.position, client.camera.look_at = start.position, start.look_at
                client.camera.near, client.camera.far, client.camera.fov = start.near, start.far, start.fov
        if self._splats is not None:
            self.splats(self._splats)  # they were drawn about another origin

    def pose_of(self, browser: Any) -> Tensor:
        """``[4, 4]`` world_from_camera of a browser's camera."""
        return camera_pose(browser.wxyz, browser.position + self.origin.numpy())

    def stand_at(self, client: Any, camera: Cameras, fov: float) -> None:
        """Put one browser's camera where ``camera`` is, with a vertical field of view in degrees."""
        with client.atomic():
            client.camera.wxyz = wxyz_of(camera)
            client.camera.position = (camera.centers[0] - self.origin).numpy()
            client.camera.fov = math.radians(fov)

    def photos_waiting(self, images: list[Tensor]) -> None:
        """Draw photographs ``[H, W, 3]`` uint8 whose cameras are not known yet, in rows before new visitors' eyes."""
        columns = math.ceil(math.sqrt(1.5 * len(images)))
        poses = torch.eye(4, dtype=torch.float64).repeat(len(images), 1, 1)
        for i in range(len(images)):
            poses[i, 0, 3], poses[i, 1, 3] = 0.21 * (i % columns), 0.18 * (i // columns)
        poses[:, :3, 3] -= (poses[:, :3, 3].amin(0) + poses[:, :3, 3].amax(0)) / 2
        sizes = torch.tensor([[image.shape[1], image.shape[0]] for image in images])
        lenses = torch.eye(3, dtype=torch.float64).repeat(len(images), 1, 1)
        lenses[:, 0, 0] = lenses[:, 1, 1] = 1.1 * sizes[:, 1]
        lenses[:, :2, 2] = sizes / 2
        row = Cameras(poses, lenses, sizes)
        self.place(row, torch.zeros(0, 3))
        self.photos(row, images, 0.06)

    def photos(self, cameras: Cameras, images: list[Tensor], scale: float = 0.12) -> None:
        """Draw photographs as frusta with their pictures: ``N`` cameras, ``N`` images ``[H, W, 3]`` uint8."""
        self._clear("photos")
        for i, image in enumerate(images):
            self._frustum("photos", f"/photos/{i}", cameras[i], scale, _PHOTO, smaller(image, _THUMBNAIL))

    def points(self, positions: Tensor, colors: Tensor) -> None:
        """Draw a cloud, ``[P, 3]`` float64 and ``[P, 3]`` uint8, thinned out where it is too large for a browser."""
        self._clear("points")
        if len(positions) > _MOST_POINTS:
            chosen = torch.randperm(len(positions), generator=torch.Generator().manual_seed(0))[:_MOST_POINTS]
            positions, colors = positions[chosen], colors[chosen]
        self._add(
            "points",
            self._server.scene.add_point_cloud,
            "/points",
            points=(positions - self.origin).float().numpy(),
            colors=colors.numpy(),
            point_size=0.004 * self.unit * self._point_size,
            point_shape="circle",
            precision="float32",
            point_shading="flat",
        )

    def point_size(self, factor: float) -> None:
        """Draw points ``factor`` times as large as usual."""
        self._point_size = factor
        for node in self._nodes.get("points", []):
            node.point_size = 0.004 * self.unit * factor

    def frustum_size(self, factor: float) -> None:
        """Draw frusta ``factor`` times as large as usual."""
        for nodes in list(self._nodes.values()):
            for node in nodes:
                if hasattr(node, "fov"):
                    node.scale *= factor / self._frustum_size
        self._frustum_size = factor

    def opacity(self, share: float) -> None:
        """Draw the pictures in frusta so opaque, 0..1: at 0 there are none."""
        self._opacity = share
        for drawn in list(self._thumbnails.values()):
            for node, picture in drawn:
                node.image = self._faded(picture)

    def _faded(self, picture: np.ndarray) -> np.ndarray | None:
        """A picture ``[H, W, 3]`` as opaque as is wanted, ``[H, W, 4]`` where it is seen through."""
        if self._opacity <= 0:
            return None
        if self._opacity >= 1:
            return picture
        alpha = np.full((*picture.shape[:2], 1), round(255 * self._opacity), np.uint8)
        return np.concatenate([picture, alpha], 2)

    def path(self, path: KeyPath, selected: int | None) -> list[Any]:
        """Draw the path as a line, its keys as frusta, key ``selected`` in another colour. Returns the keys' nodes."""
        self._clear("path")
        if len(path) > 1:
            centers = (path.cameras().centers - self.origin).numpy()
            self._add(
                "path",
                self._server.scene.add_line_segments,
                "/path/line",
                points=np.stack([centers[:-1], centers[1:]], 1).astype(np.float32),
                colors=_PATH,
                thickness=3.0,
                thickness_units="screen",
            )
        for i in range(len(path)):
            color = _HERE if i == selected else _PATH
            self._frustum("path", f"/path/key/{i}", path.keys[i], 0.07 if i == selected else 0.05, color)
        return self._nodes.get("path", [])[1 if len(path) > 1 else 0 :]

    def here(self, camera: Cameras | None) -> None:
        """Draw the camera under the time line; a picture in it would hide the scene from who just added a key."""
        self._clear("here")
        if camera is not None:
            self._frustum("here", "/here", camera, 0.1, _HERE)

    def frames(self, shown: LiveResult | None) -> None:
        """Draw some of the frames of a result, spread evenly, as frusta with their pictures, and the way between them.

        Colours go from red, where nothing of a frame is measured, to green, where all is.
        """
        self._clear("frames")
        if shown is None:
            return
        count = len(shown.cameras)
        colors = np.array([measured_color(shown.measured.get(i)) for i in range(count)], np.uint8)
        if count > 1:
            centers = shown.cameras.centers.numpy()
            self._add(
                "frames",
                self._server.scene.add_line_segments,
                "/frames/line",
                points=np.stack([centers[:-1], centers[1:]], 1).astype(np.float32),
                colors=np.stack([colors[:-1], colors[1:]], 1),
                thickness=3.0,
                thickness_units="screen",
            )
        for i in sorted({round(k * (count - 1) / (_FRAMES - 1)) for k in range(_FRAMES)}):
            picture = smaller(shown.frames[i], _THUMBNAIL) if i in shown.done else None
            self._frustum(
                "frames", f"/frames/{i}", shown.cameras[i], 0.02, measured_color(shown.measured.get(i)), picture
            )

    def splats(self, gaussians: Gaussians) -> None:
        """Draw Gaussians, the most opaque where there are too many for a browser."""
        self._clear("splats")
        self._splats = gaussians
        if len(gaussians) > _MOST_SPLATS:
            gaussians = gaussians[gaussians.opacity_logits.topk(_MOST_SPLATS).indices]
        self._add(
            "splats",
            self._server.scene.add_gaussian_splats,
            "/splats",
            centers=(gaussians.means - self.origin).float().numpy(),
            covariances=covariances(gaussians).numpy(),
            rgbs=gaussians.base_colors.clamp(0, 1).numpy(),
            opacities=gaussians.opacities[:, None].numpy(),
        )

    def show(self, kind: str, visible: bool) -> None:
        """Show or hide ``photos``, ``points``, ``path``, ``frames`` or ``splats``."""
        self._visible[kind] = visible
        for node in self._nodes.get(kind, []):
            node.visible = visible
        if kind == "path":  # the camera under the time line is seen with it
            self.show("here", visible)

    def _frustum(
        self,
        kind: str,
        name: str,
        camera: Cameras,
        scale: float,
        color: tuple[int, int, int],
        image: np.ndarray | None = None,
    ) -> None:
        width, height = camera.size
        node = self._add(
            kind,
            self._server.scene.add_camera_frustum,
            name,
            fov=2 * math.atan(height / 2 / float(camera.intrinsics[0, 1, 1])),
            aspect=width / height,
            scale=scale * self.unit * self._frustum_size,
            thickness=2.0,
            thickness_units="screen",
            color=color,
            image=None if image is None else self._faded(image),
            wxyz=wxyz_of(camera),
            position=(camera.centers[0] - self.origin).numpy(),
            cast_shadow=False,
            receive_shadow=False,
        )
        if image is not None:
            self._thumbnails.setdefault(kind, []).append((node, image))

    def _add(self, kind: str, add: Callable[..., Any], name: str, **options: Any) -> Any:
        node = add(name, visible=self._visible.get(kind, True), **options)
        self._nodes.setdefault(kind, []).append(node)
        return node

    def _clear(self, kind: str) -> None:
        self._thumbnails.pop(kind, None)
        for node in self._nodes.pop(kind, []):
            node.remove()


def measured_color(share: float | None) -> tuple[int, int, int]:
    """Red for a frame of which nothing is measured, over yellow to green; where that is not known, as frames are."""
    if share is None:
        return _FRAME
    low, middle, high = (215, 40, 60), (235, 190, 40), _FRAME
    (a, b), t = ((low, middle), 2 * share) if share < 0.5 else ((middle, high), 2 * share - 1)
    red, green, blue = (round(x + t * (y - x)) for x, y in zip(a, b))
    return red, green, blue


def covariances(gaussians: Gaussians) -> Tensor:
    """``[N, 3, 3]`` covariances R S S R^T of N Gaussians with rotations R and standard deviations S."""
    half = rotation_matrices(gaussians.quaternions) * gaussians.scales[:, None]
    return half @ half.transpose(1, 2)


def wxyz_of(camera: Cameras) -> np.ndarray:
    """Unit quaternion ``[4]`` of the first camera's ``world_from_camera``."""
    return np.roll(Rotation.from_matrix(camera.world_from_camera[0, :3, :3].numpy()).as_quat(), 1)


def camera_pose(wxyz: np.ndarray, position: np.ndarray) -> Tensor:
    """``[4, 4]`` world_from_camera of a browser's camera (OpenCV axes): quaternion ``[4]`` and position ``[3]``."""
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, :3] = torch.from_numpy(Rotation.from_quat(np.roll(wxyz, -1)).as_matrix())
    pose[:3, 3] = torch.from_numpy(np.asarray(position, dtype=np.float64))
    return pose
