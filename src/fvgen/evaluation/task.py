"""One split of a scene at work: photos in, the truth beside it, geometry and guide made when a system asks for them."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from fvgen.cameras import Cameras
from fvgen.cameras.paths import CameraPath
from fvgen.errors import UserError
from fvgen.evaluation.alignment import aligned_scene
from fvgen.evaluation.datasets import EvaluationScene, join_cameras
from fvgen.evaluation.framing import Framing, nearest
from fvgen.evaluation.metrics import correspondences
from fvgen.evaluation.protocols import Split
from fvgen.evaluation.scores import Geometry
from fvgen.pipeline import NovelViewPipeline
from fvgen.rendering.guide import Guide
from fvgen.scene.build import build_scene
from fvgen.scene.types import Photos, Scene


@dataclass(frozen=True)
class Placing:
    """Where the cameras of the given photos come from.

    Attributes:
        poses: ``"given"`` or ``"estimated"`` (from the given photos alone, then aligned to the given cameras).
        geometry: the estimator.
        weights: of the network that estimates cameras or depth.
        device: where it runs, and where guides are rendered.
        seed: of the estimation.
        depth: see `fvgen.scene.build.build_scene`.
    """

    poses: str = "given"
    geometry: str = "colmap"
    weights: str | None = None
    device: str = "cpu"
    seed: int = 0
    depth: str = "auto"

    @property
    def cameras_from(self) -> str:
        """``"given"`` or the estimator."""
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

    def turned(self, framing: Framing) -> Framing:
        """A framing in the orientation of the first given photo."""
        image = self.photos.images[0]
        return framing.turned(image.shape[1] >= image.shape[0])

    @cached_property
    def framings(self) -> list[Framing]:
        """Those of all systems, ours first."""
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
        """The given photos, whole, with their given cameras."""
        shots = [self.source.read(i) for i in self.split.context]
        return Photos(
            names=[f.name + f.image.suffix for f in (self.source.frames[i] for i in self.split.context)],
            images=[shot.image for shot in shots],
            focals=[shot.focal for shot in shots],
            cameras=join_cameras(shots),
        )

    @cached_property
    def targets(self) -> list[tuple[Tensor, Cameras]]:
        """Picture and camera of each frame asked for, as it is scored."""
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
            The part of them at the scored size, uint8, and whether it was resampled (Lanczos) or only cut out.
        """
        if framing == self.scored:
            return frames, False
        width, height = self.scored.size
        windows = framing.windows(self.scored, self.whole)
        pictures = torch.stack([self.scored.picture(frame, window) for frame, window in zip(frames, windows)])
        moved = any((x1 - x0, y1 - y0) != (width, height) or x0 % 1 or y0 % 1 for x0, y0, x1, y1 in windows)
        return (pictures * 255).round().byte(), moved

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
        """Of each frame asked for whether it is among the given photos."""
        return [i in self.split.context for i in self.split.target]

    @cached_property
    def scene(self) -> Scene:
        """Photos, cameras and points in the world of the given cameras."""
        start = time.perf_counter()
        built = self._built(self.photos) if self.placing.poses == "given" else self._estimated()
        self.seconds["geometry"] = time.perf_counter() - start
        return built

    def _built(self, photos: Photos) -> Scene:
        placing = self.placing
        try:
            built = build_scene(
                photos,
                placing.cameras_from,
                placing.device,
                seed=placing.seed,
                weights=placing.weights,
                depth=placing.depth,
            )
        except UserError as error:
            raise UserError(f"{self.split.name}: {error}") from None
        self.fit = {f"depth_{name}": value for name, value in built.fit.items()}
        return built

    def _estimated(self) -> Scene:
        """Cameras from the photos alone; only the alignment of the whole knows the given ones."""
        given = self.photos.cameras
        assert given is not None
        found = self._built(replace(self.photos, cameras=None))
        placed = [self.photos.names.index(name) for name in found.photos.names]
        aligned, fit = aligned_scene(found, given[placed])
        self.fit |= {**fit, "placed": len(placed)}
        return aligned

    @cached_property
    def path(self) -> CameraPath:
        """Given photos and frames asked for in the scene's order; photos that could not be placed are left out."""
        width, height = self.framing.size
        fitted, _ = self.scene.cameras.covering(width, height)
        places = {self.split.context[self.photos.names.index(n)]: k for k, n in enumerate(self.scene.photos.names)}
        asked = {i: self.cameras[k] for k, i in enumerate(self.split.target)}
        order = sorted(set(places) | set(asked))
        cameras = [asked[i] if i in asked else fitted[places[i]] for i in order]
        return CameraPath(Cameras.concatenate(cameras), [places.get(i) for i in order])

    @cached_property
    def positions(self) -> list[int]:
        """Where the frames asked for are on the path."""
        given = {self.split.context[self.photos.names.index(n)] for n in self.scene.photos.names}
        order = sorted(given | set(self.split.target))
        return [order.index(i) for i in self.split.target]

    @cached_property
    def guide(self) -> Guide:
        """What is known along the path without a model: the same for every system, and for what metrics ask."""
        scene, path = self.scene, self.path
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
