"""One split to be answered: its pictures in their framing, its scene in the world of given cameras, its guide."""

import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from fvgen.cameras import Cameras
from fvgen.cameras.alignment import residual, similarity_between
from fvgen.cameras.paths import CameraPath
from fvgen.errors import UserError
from fvgen.evaluation.datasets import EvaluationScene, join_cameras
from fvgen.evaluation.metrics import correspondences
from fvgen.evaluation.protocols import Split
from fvgen.evaluation.scores import Geometry
from fvgen.pictures import to_bytes
from fvgen.pipeline import NovelViewPipeline
from fvgen.rendering.guide import Guide, resample_photo
from fvgen.scene.build import build_scene
from fvgen.scene.types import Photos, Scene

Box = tuple[float, float, float, float]

LEAST = 64  # pixels on a side that metrics need


@dataclass(frozen=True)
class Framing:
    """How pictures are made of photographs: their size, and what they show.

    Attributes:
        size: (width, height) of the pictures.
        through: pictures are first scaled to cover this size and cut to it, then ``size`` is cut out of it without
            scaling, as MVSplat360 does; ``None``: they are scaled to cover ``size`` itself.
        corner: (left, top) of the part that is cut out of ``through``; ``None``: its centre.
    """

    size: tuple[int, int]
    through: tuple[int, int] | None = None
    corner: tuple[int, int] | None = None

    @staticmethod
    def parse(text: str) -> "Framing":
        """A framing from text: ``WIDTHxHEIGHT``, or ``WIDTHxHEIGHT/WIDTHxHEIGHT`` for what that is cut out of.

        Raises:
            UserError: written otherwise, too small to be scored, or larger than what it is cut out of.
        """
        match = re.fullmatch(r"(\d+)x(\d+)(?:/(\d+)x(\d+))?", text)
        if match is None:
            raise UserError(f"{text}: write WIDTHxHEIGHT, or WIDTHxHEIGHT/WIDTHxHEIGHT, such as 448x256/480x270")
        width, height, *outer = (int(number) for number in match.groups() if number)
        if min(width, height) < LEAST:
            raise UserError(f"{text}: pictures of {LEAST}x{LEAST} at least are scored")
        if outer and (outer[0] < width or outer[1] < height):
            raise UserError(f"{text}: {match[1]}x{match[2]} cannot be cut out of {match[3]}x{match[4]}")
        return Framing((width, height), (outer[0], outer[1]) if outer and outer != [width, height] else None)

    def turned(self, landscape: bool) -> "Framing":
        """This framing, or for portrait pictures (not ``landscape``) the one with width and height swapped."""
        if landscape:
            return self
        swapped = (pair[::-1] if pair else None for pair in (self.through, self.corner))
        return Framing(self.size[::-1], *swapped)

    @property
    def text(self) -> str:
        """How the pictures are made, in words, for the results."""
        width, height = self.size
        if self.through is None:
            return f"scaled to cover {width}x{height} (Lanczos), cut from the centre"
        outer = "x".join(map(str, self.through))
        where = "from the centre" if self.corner is None else "at {}, {}".format(*self.corner)
        return f"scaled to cover {outer} (Lanczos), {width}x{height} cut {where} unscaled"

    def cameras(self, cameras: Cameras) -> tuple[Cameras, list[Box]]:
        """The cameras of the framed pictures, and for each the box of its photograph, in pixels, that it shows."""
        if self.through is None:
            return cameras.covering(*self.size)
        covering, boxes = cameras.covering(*self.through)
        left, top = self._corner
        cut = []
        for x0, y0, x1, y1 in boxes:
            pixel = (x1 - x0) / self.through[0]  # of the photograph, per pixel of the scaled picture
            x, y = x0 + left * pixel, y0 + top * pixel
            cut.append((x, y, min(x + self.size[0] * pixel, x1), min(y + self.size[1] * pixel, y1)))
        return covering.cropped(left, top, *self.size), cut

    @property
    def _corner(self) -> tuple[int, int]:
        """Left and top of the cut of ``size`` in a picture of size ``through``."""
        outer = self.through or self.size
        return self.corner or ((outer[0] - self.size[0]) // 2, (outer[1] - self.size[1]) // 2)

    def picture(self, image: Tensor, box: Box) -> Tensor:
        """What a box of a photograph ``[H', W', 3]`` uint8 shows, ``[H, W, 3]`` float 0..1 of 256 levels."""
        return resample_photo(image, box, *self.size)

    def windows(self, shown: "Framing", cameras: Cameras) -> list[Box]:
        """Where in the pictures of this framing lies what another one shows.

        Args:
            shown: shows a part of what this framing does.
            cameras: of the whole photographs.

        Returns:
            For each photograph (left, top, right, bottom) in pixels of its framed picture, to a millionth.
        """
        (width, height), found = self.size, []
        for own, box in zip(self.cameras(cameras)[1], shown.cameras(cameras)[1]):
            across, down = width / (own[2] - own[0]), height / (own[3] - own[1])
            left, right = (min(max(round((x - own[0]) * across, 6), 0), width) for x in (box[0], box[2]))
            top, bottom = (min(max(round((y - own[1]) * down, 6), 0), height) for y in (box[1], box[3]))
            found.append((left, top, right, bottom))
        return found

    @staticmethod
    def common(framings: Sequence["Framing"], cameras: Cameras) -> "Framing":
        """What all framings show of all photographs, in whole pixels of the coarsest of them.

        The coarsest has the fewest pixels per pixel of the photographs: nothing is enlarged to come to its scale.

        Args:
            framings: in the photographs' orientation.
            cameras: of the whole photographs.

        Raises:
            UserError: they have too little in common.
        """

        def scale(framing: Framing) -> float:
            return sum(framing.size[0] / (x1 - x0) for x0, _, x1, _ in framing.cameras(cameras)[1])

        coarse = min(framings, key=scale)
        windows = [window for framing in framings for window in coarse.windows(framing, cameras)]
        x0, y0, x1, y1 = zip(*windows)
        low = (math.ceil(max(x0)), math.ceil(max(y0)))
        size = (math.floor(min(x1)) - low[0], math.floor(min(y1)) - low[1])
        if min(size) < LEAST:
            told = ", ".join(dict.fromkeys("x".join(map(str, framing.size)) for framing in framings))
            raise UserError(f"pictures of {told} pixels have too little in common to be scored: {size[0]}x{size[1]}")
        if size == coarse.size:
            return coarse
        left, top = coarse._corner
        return Framing(size, coarse.through or coarse.size, (left + low[0], top + low[1]))


def nearest(values: Tensor, window: Box, size: tuple[int, int]) -> Tensor:
    """Values ``[H, W]`` that cannot be averaged, in a window of them at another size ``[height, width]``.

    Args:
        values: of a picture.
        window: left, top, right, bottom in its pixels.
        size: (width, height) of the result; at each pixel's centre it has the nearest value.
    """
    left, top, right, bottom = window
    columns, rows = (
        (start + (torch.arange(count) + 0.5) * ((end - start) / count)).long().clamp(0, most - 1).to(values.device)
        for start, end, count, most in zip((left, top), (right, bottom), size, reversed(values.shape))
    )
    return values[rows[:, None], columns]


@dataclass(frozen=True)
class Placing:
    """Where the cameras of the given photos come from.

    Attributes:
        poses: ``"given"`` or ``"estimated"`` (from the given photos alone, then aligned to the given cameras).
        geometry: the estimator.
        weights: of the network that estimates cameras or depth.
        device: where it runs, and where guides are rendered.
        seed: of the estimation.
        depth: where depth comes from, see `fvgen.scene.build.build_scene`.
    """

    poses: str = "given"
    geometry: str = "colmap"
    weights: str | None = None
    device: str = "cpu"
    seed: int = 0
    depth: str = "auto"

    @property
    def cameras_from(self) -> str:
        """``"given"``, or the name of the estimator."""
        return "given" if self.poses == "given" else self.geometry


class Task:
    """A split, and what systems need to answer it. Everything is made at the first use and kept.

    Args:
        split: frames given and asked for.
        scene: its scene.
        framing: of what systems of ours make, for landscape scenes; ``None``: the photographs' size, see
            `fvgen.pipeline.NovelViewPipeline.frame_size`.
        placing: of the given photos.
        others: framings of outside systems. Where one differs from ours, what all show is scored.
    """

    def __init__(
        self,
        split: Split,
        scene: EvaluationScene,
        framing: Framing | None,
        placing: Placing,
        others: Sequence[Framing] = (),
    ) -> None:
        self.split, self.source, self.placing = split, scene, placing
        self._framing, self._others = framing, others
        self.fit: dict[str, float] = {}
        self.seconds: dict[str, float] = {}

    @cached_property
    def framing(self) -> Framing:
        """Size and crop of what systems of ours make."""
        if self._framing is None:
            return Framing(NovelViewPipeline(None).frame_size(self.photos))
        return self.turned(self._framing)

    def turned(self, framing: Framing | None) -> Framing:
        """A framing in the orientation of the first given photo; for ``None`` that of our systems."""
        height, width = self.photos.images[0].shape[:2]
        return self.framing if framing is None else framing.turned(width >= height)

    @cached_property
    def framings(self) -> list[Framing]:
        """The framings of all systems, ours first."""
        return list(dict.fromkeys([self.framing, *map(self.turned, self._others)]))

    @cached_property
    def scored(self) -> Framing:
        """Size and crop of the scored pictures: what all framings show, for one framing itself."""
        try:
            return self.framing if len(self.framings) == 1 else Framing.common(self.framings, self.whole)
        except UserError as error:
            raise UserError(f"{self.split.name}: {error}") from None

    @cached_property
    def whole(self) -> Cameras:
        """Cameras of the frames asked for as they were photographed."""
        return Cameras.concatenate([join_cameras([self.source.read(i)]) for i in self.split.target])

    @cached_property
    def photos(self) -> Photos:
        """The given photos, whole, with their given cameras and masks."""
        shots = [self.source.read(i) for i in self.split.context]
        return Photos(
            names=[f.name + f.image.suffix for f in (self.source.frames[i] for i in self.split.context)],
            images=[shot.image for shot in shots],
            focals=[shot.focal for shot in shots],
            cropped=[shot.cropped for shot in shots],
            cameras=join_cameras(shots),
            masks=[shot.mask for shot in shots] if any(shot.mask is not None for shot in shots) else None,
        )

    @cached_property
    def targets(self) -> list[tuple[Tensor, Cameras]]:
        """Picture ``[H, W, 3]`` float 0..1 and camera of each frame asked for, as it is scored."""
        made = []
        for i in self.split.target:
            shot = self.source.read(i)
            assert shot.camera is not None
            cameras, boxes = self.scored.cameras(shot.camera)
            made.append((self.scored.picture(shot.image, boxes[0]), cameras))
        return made

    @cached_property
    def cameras(self) -> Cameras:
        """Cameras of the frames asked for at the size that systems of ours make."""
        if self.scored == self.framing:
            return Cameras.concatenate([camera for _, camera in self.targets])
        return self.framing.cameras(self.whole)[0]

    def cut(self, frames: Tensor, framing: Framing) -> tuple[Tensor, bool]:
        """Frames as they are scored: what all framings show, at the scale of the coarsest.

        Args:
            frames: ``[F, H, W, 3]`` uint8, those asked for.
            framing: that they were made in.

        Returns:
            The part of them at the scored size, ``[F, h, w, 3]`` uint8, and whether it was resampled (Lanczos) or only
            cut out.
        """
        if framing == self.scored:
            return frames, False
        width, height = self.scored.size
        windows = framing.windows(self.scored, self.whole)
        pictures = torch.stack([self.scored.picture(frame, window) for frame, window in zip(frames, windows)])
        moved = any((x1 - x0, y1 - y0) != (width, height) or x0 % 1 or y0 % 1 for x0, y0, x1, y1 in windows)
        return to_bytes(pictures), moved

    @cached_property
    def truth(self) -> Tensor:
        """``[F, H, W, 3]`` float 0..1, the frames asked for."""
        return torch.stack([picture for picture, _ in self.targets])

    @property
    def names(self) -> list[str]:
        """Names of the frames asked for."""
        return [self.source.frames[i].name for i in self.split.target]

    @property
    def is_given(self) -> list[bool]:
        """For each frame asked for, whether it is among the given photos."""
        return [i in self.split.context for i in self.split.target]

    @cached_property
    def scene(self) -> Scene:
        """Photos, cameras and points in the world of the given cameras."""
        start = time.perf_counter()
        built = self._built(self.photos) if self.placing.poses == "given" else self._estimated()
        self.seconds["geometry"] = time.perf_counter() - start
        return built

    def _built(self, photos: Photos) -> Scene:
        where = self.placing
        try:
            built = build_scene(
                photos, where.cameras_from, where.device, seed=where.seed, weights=where.weights, depth=where.depth
            )
        except UserError as error:
            raise UserError(f"{self.split.name}: {error}") from None
        whose = "cameras" if built.depth in ("sweep", built.geometry) else "depth"
        self.fit = {f"{whose}_{name}": value for name, value in built.fit.items()}
        return built

    def _estimated(self) -> Scene:
        """Cameras from the photos alone; only the alignment of the whole knows the given ones."""
        assert self.photos.cameras is not None
        scene = self._built(replace(self.photos, cameras=None))
        placed = [self.photos.names.index(name) for name in scene.photos.names]
        given = self.photos.cameras[placed]
        try:
            found = similarity_between(scene.cameras, given)
        except ValueError as error:
            raise UserError(f"the estimated cameras do not fit the given ones ({error}); use `poses` given") from None
        self.fit |= {**residual(scene.cameras, given, found), "placed": len(placed)}
        points = replace(scene.points, positions=found.points(scene.points.positions))
        depths = [replace(d, depth=d.depth * found.scale, cameras=found.cameras(d.cameras)) for d in scene.depths]
        return replace(scene, cameras=found.cameras(scene.cameras), points=points, depths=depths)

    @cached_property
    def _places(self) -> dict[int, int]:
        """The number among the placed photos of each given frame; photos that could not be placed are left out."""
        return {self.split.context[self.photos.names.index(n)]: k for k, n in enumerate(self.scene.photos.names)}

    @cached_property
    def path(self) -> CameraPath:
        """Given photos and frames asked for in the scene's order."""
        fitted, _ = self.scene.cameras.covering(*self.framing.size)
        asked = {i: self.cameras[k] for k, i in enumerate(self.split.target)}
        order = sorted(self._places.keys() | asked.keys())
        cameras = [asked[i] if i in asked else fitted[self._places[i]] for i in order]
        return CameraPath(Cameras.concatenate(cameras), [self._places.get(i) for i in order])

    @cached_property
    def positions(self) -> list[int]:
        """Where the frames asked for are on the path."""
        order = sorted(self._places.keys() | set(self.split.target))
        return [order.index(i) for i in self.split.target]

    @cached_property
    def guide(self) -> Guide:
        """What is known along the path without a model: the same for every system, and for what metrics ask."""
        scene, path = self.scene, self.path  # before the clock starts
        start = time.perf_counter()
        made = NovelViewPipeline(None).to(self.placing.device).guide(scene, path)
        self.seconds["render"] = time.perf_counter() - start
        return made

    @cached_property
    def geometry(self) -> Geometry:
        """What the guide knows of the frames as they are scored; only measured depth finds neighbours.

        Of a part at another scale each pixel has the coverage and depth of the guide's pixel that its centre lies in.
        """
        cameras = Cameras.concatenate([camera for _, camera in self.targets])
        coverage, depth = self.guide.coverage[self.positions], self.guide.depth[self.positions]
        depth = interpolate(depth[:, None], coverage.shape[1:], mode="nearest-exact")[:, 0]  # no mean of near and far
        if self.scored != self.framing:
            windows = self.framing.windows(self.scored, self.whole)
            coverage, depth = (
                torch.stack([nearest(values, window, self.scored.size) for values, window in zip(maps, windows)])
                for maps in (coverage, depth)
            )
        return Geometry(coverage, correspondences(depth * coverage, cameras))
