"""Photos to novel views, in reading order: photos, scene, camera path, guide, windows of latents, views."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fvgen.cameras import Cameras
from fvgen.cameras.paths import CameraPath, follow, path_dolly, path_orbit, path_spiral, path_through
from fvgen.cameras.viewcrafter_paths import PREFIX, ViewCrafterPath, parse_viewcrafter, plan_viewcrafter
from fvgen.cameras.windows import plan_windows
from fvgen.errors import UserError
from fvgen.models.model import ModelConfig, VideoModel, find_model, read_config
from fvgen.models.speed import Speed, prepare, synchronize
from fvgen.models.windows import Windows, WindowSampler
from fvgen.rendering.guide import Guide, GuideKind, render_guide
from fvgen.scene.build import build_scene
from fvgen.scene.photos import load_photos
from fvgen.scene.types import Photos, Scene

NATIVE = (256, 160)  # size of the views where no model says otherwise
GRID = 16
FRAMES = 16

Callback = Callable[["NovelViewPipeline", int, int, dict[str, Tensor]], dict[str, Tensor] | None]
GuideCallback = Callable[[Tensor], None]
FramesCallback = Callable[[list[int], Tensor], None]


@dataclass(frozen=True)
class NovelViews:
    """The views along a path, and everything they were made from.

    Attributes:
        frames: ``[F, H, W, 3]`` uint8; frames that are photographs show the photograph.
        guide: ``[F, H, W, 3]`` uint8 renders of the measured points, black where there are none.
        coverage: ``[F, H, W]`` bool, where something was.
        completed: ``[F, H, W, 3]`` uint8, what the model was shown: the guide completed without a model, or for models
            that are shown points, the guide itself.
        cameras: ``F`` cameras.
        photo: for each frame the index of the photograph it is, or ``None``.
        scene: photos, their cameras, the point cloud.
        seconds: per stage.
        settings: model, steps, guidance scale, seed, device, dtype, and choices of speed that are not the usual ones.
    """

    frames: Tensor
    guide: Tensor
    coverage: Tensor
    completed: Tensor
    cameras: Cameras
    photo: list[int | None]
    scene: Scene
    seconds: dict[str, float]
    settings: dict[str, Any] = field(default_factory=dict)


class Clock:
    """Seconds per stage; a GPU's queue is emptied at the end of each, or its work would count for the next.

    Args:
        device: of the work.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = dict.fromkeys(("load", "geometry", "render", "encode", "denoise", "decode"), 0.0)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        synchronize(self.device)
        self.seconds[name] += time.perf_counter() - start


def fitting_size(
    sizes: Sequence[tuple[int, int]], native: tuple[int, int] = NATIVE, grid: int = GRID
) -> tuple[int, int]:
    """Size of the views: as many pixels as the model is used to, in the shape of most photos, on the model's grid.

    Args:
        sizes: (width, height) of the photos.
        native: the model's own size, landscape.
        grid: width and height are multiples of this.
    """
    aspects = sorted(w / h for w, h in sizes)
    aspect = min(max(aspects[len(aspects) // 2], 0.4), 2.5)
    area = native[0] * native[1]
    best, best_cost = native, float("inf")
    for w in range(grid, 4 * native[0], grid):
        for h in range(grid, 4 * native[0], grid):
            if 0.85 <= w * h / area <= 1.1:
                cost = abs(np.log(w / h / aspect)) + 0.1 * abs(np.log(w * h / area))
                if cost < best_cost:
                    best, best_cost = (w, h), cost
    return best


def plan_path(
    scene: Scene,
    path: str | Path | Cameras | ViewCrafterPath,
    frames: int | None,
    size: tuple[int, int],
    window: int = FRAMES,
) -> CameraPath:
    """The camera path that was asked for, at ``size``.

    Raises:
        UserError: unknown name, unreadable file, or a number of frames that the path cannot have.
    """
    points = scene.points.positions
    if path == "through":
        return path_through(scene.cameras, frames_per_window=window, size=size, frames=frames)
    if path in ("orbit", "spiral", "dolly"):
        make = {"orbit": path_orbit, "spiral": path_spiral, "dolly": path_dolly}[str(path)]
        return make(scene.cameras, points, frames=frames or 46, size=size)
    if isinstance(path, Cameras):
        return follow(path, scene.cameras, size)
    if isinstance(path, str) and path.startswith(PREFIX):
        path = parse_viewcrafter(path)
    if isinstance(path, ViewCrafterPath):
        return plan_viewcrafter(path, scene.cameras, points, scene.points.photo, frames, size, window)
    from fvgen.scene.formats.transforms_json import read_camera_path

    first = scene.cameras[0]
    given = read_camera_path(Path(path), default_size=first.size, default_intrinsics=first.intrinsics[0])
    if scene.geometry != "given":
        raise UserError("--path FILE is in the world of given cameras: give the photos with their transforms.json")
    if frames is not None and frames != len(given):
        raise UserError(f"--frames {frames}: {path} has {len(given)} cameras, one frame each; leave --frames out")
    return follow(given, scene.cameras, size)


def with_nearest_photos(path: CameraPath, photos: Cameras) -> tuple[CameraPath, int]:
    """Put the nearest photograph before and after a path that does not begin or end with one.

    Returns:
        The longer path, and how many frames were put before the first.
    """
    width, height = path.cameras.size
    fitted, _ = photos.covering(width, height)

    def nearest(frame: int) -> int:
        return int((photos.centers - path.cameras.centers[frame]).norm(dim=1).argmin())

    before = [nearest(0)] if path.photo[0] is None else []
    after = [nearest(-1)] if path.photo[-1] is None else []
    cameras = Cameras.concatenate([fitted[before], path.cameras, fitted[after]])
    return CameraPath(cameras, [*before, *path.photo, *after]), len(before)


def make_guide(scene: Scene, path: CameraPath, kind: GuideKind, device: torch.device | str) -> Guide:
    """The guide along a path, made and kept on a device; the photographs are at their own frames.

    Args:
        scene, path: what to see, from where.
        kind: that the model is shown (`ModelConfig.guide`); see :func:`fvgen.rendering.render_guide`.
        device: of all the work.
    """
    cloud = scene.points.to(device)
    return render_guide(
        cloud.positions,
        cloud.colors,
        path.cameras,
        path.photo,
        scene.photos.images,
        scene.cameras,
        kind=kind,
        point_photo=cloud.photo,
        confidence=cloud.confidence,
        measured=cloud.measured,
    )


class NovelViewPipeline:
    """Photos in, novel views out, with one model.

    Args:
        model: ``None`` leaves it at the completed guide.
        name: told in the summary.
        speed: how the model is run.
    """

    def __init__(self, model: VideoModel | None, name: str = "", speed: Speed = Speed()) -> None:  # noqa: B008
        self._model = model
        self.speed = speed
        self._config: ModelConfig | None = None
        self._folder: Path | None = None
        self.name = name
        self.device = torch.device("cpu")
        self.dtype = torch.float32

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path,
        *,
        device: str = "auto",
        dtype: str | torch.dtype = "auto",
        deferred: bool = False,
        speed: Speed = Speed(),  # noqa: B008
    ) -> NovelViewPipeline:
        """A model of the package by name, a model folder, or ``"none"``.

        Args:
            model: its name or folder.
            device, dtype: see :meth:`to`.
            deferred: read the weights, and the libraries they need, only when the model is first used, so that
                photos are worked on at once. The folder is checked now.
            speed: how the model is run, see `fvgen.models.speed`.

        Raises:
            UserError: unknown model, unusable device.
        """
        pipeline = cls(None, str(model), speed)
        if str(model) != "none":
            pipeline._folder = find_model(model)
            pipeline._config = read_config(pipeline._folder)
        pipeline.to(device, dtype)
        if not deferred:
            _ = pipeline.model
        return pipeline

    @property
    def config(self) -> ModelConfig | None:
        """The model's, known before its weights are read."""
        return self._model.config if self._model is not None else self._config

    @property
    def guide_kind(self) -> GuideKind:
        """What the model is shown; without a model the completed guide is the result."""
        return self.config.guide if self.config else "surface"

    @property
    def model(self) -> VideoModel | None:
        """The model, read now if it was not yet."""
        if self._model is None and self._folder is not None:
            self._model = VideoModel.load(self._folder, self._home, self.dtype)
            prepare(self._model, self.speed, self.device)
        return self._model

    @property
    def _home(self) -> torch.device:
        """Where the model's parts lie while they are not at work."""
        return torch.device("cpu") if self.speed.offload else self.device

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> None:
        """Write the model as a folder that :meth:`from_pretrained` takes."""
        if self.model is None:
            raise UserError("there is no model to save")
        self.model.save(Path(folder), dtype)

    def to(self, device: str | torch.device = "auto", dtype: str | torch.dtype = "auto") -> NovelViewPipeline:
        """Move to a device and number format; ``"auto"``: a GPU if there is one, bfloat16 there if it can."""
        cuda = torch.cuda.is_available()
        try:
            self.device = torch.device(("cuda" if cuda else "cpu") if device == "auto" else device)
            torch.empty(1, device=self.device)
        except (RuntimeError, AssertionError) as error:
            raise UserError(f"device '{device}' cannot be used here: {str(error).splitlines()[0]}") from error
        if dtype == "auto":
            fast = self.device.type == "cuda" and torch.cuda.is_bf16_supported()
            self.dtype = torch.bfloat16 if fast else torch.float32
        else:
            self.dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
        if self._model is not None:
            self._model.to(self._home, self.dtype)
            prepare(self._model, self.speed, self.device)
        return self

    @torch.no_grad()
    def __call__(
        self,
        photos: str | Path | Sequence[str | Path] | Photos,
        *,
        path: str | Path | Cameras | ViewCrafterPath = "through",
        frames: int | None = None,
        steps: int | None = None,
        guidance_scale: float | None = None,
        seed: int = 0,
        size: tuple[int, int] | None = None,
        geometry: str = "auto",
        geometry_weights: str | None = None,
        half_pixel_shift: bool = False,
        depth: str = "auto",
        generator: torch.Generator | None = None,
        callback_on_step_end: Callback | None = None,
        progress: bool = True,
        callback_on_frames: FramesCallback | None = None,
    ) -> NovelViews:
        """Make novel views.

        Args:
            photos: files, a folder, a video, a transforms.json, a COLMAP folder, or loaded photos.
            path: ``through``, ``orbit``, ``spiral``, ``dolly``, a transforms.json, cameras in the scene's world, or a
                path of the original teacher (`fvgen.cameras.viewcrafter_paths`), as text or as object.
            frames: number of frames; by default 16 from photo to photo, or as many as the path has.
            steps: denoising steps; by default the model's.
            guidance_scale: by default the model's.
            seed: of the noise, where no ``generator`` is given.
            size: (width, height) of the views, multiples of the model's grid.
            geometry: ``auto``, ``given``, ``colmap``, ``dust3r`` or ``da3``: see `fvgen.scene.build_scene`.
            geometry_weights: of ``dust3r`` or ``da3``: a path, a known name, or ``hub:OWNER/MODEL``.
            half_pixel_shift: for comparison with the original teacher's program: see `fvgen.scene.build_scene`.
            depth: ``auto``, ``sweep``, ``dust3r`` or ``da3``: see `fvgen.scene.build_scene`.
            generator: source of the noise, on the CPU.
            callback_on_step_end: as in diffusers, ``(pipeline, step, t, {"latents"}) -> {"latents"} or None``.
            progress: kept for the convention of diffusers; bars appear on terminals only.
            callback_on_frames: gets frames as soon as they are final: their numbers on the path, and
                ``[N, H, W, 3]`` uint8 on the CPU. Each comes once, photographs first.

        Raises:
            UserError: for everything the caller can mend.
        """
        clock = Clock(self.device)
        settings = self._settings(steps, guidance_scale, seed)
        with clock.stage("load"):
            loaded = photos if isinstance(photos, Photos) else load_photos(_listed(photos))
        size = self.frame_size(loaded, size)
        with clock.stage("geometry"):
            scene = build_scene(
                loaded,
                geometry,
                device=self.device,
                weights=geometry_weights,
                half_pixel_shift=half_pixel_shift,
                depth=depth,
            )
        wanted = plan_path(scene, path, frames, size, self._window)
        generator = generator or torch.Generator().manual_seed(seed)
        return self._along(scene, wanted, settings, generator, clock, callback_on_step_end, None, callback_on_frames)

    @torch.no_grad()
    def along(
        self,
        scene: Scene,
        path: CameraPath,
        *,
        steps: int | None = None,
        guidance_scale: float | None = None,
        seed: int = 0,
        callback_on_step_end: Callback | None = None,
        callback_on_guide: GuideCallback | None = None,
        callback_on_frames: FramesCallback | None = None,
    ) -> NovelViews:
        """The views of a scene that is already known, along a path whose size is a multiple of the model's grid.

        What a callback raises ends the work.

        Args:
            scene, path: what to see, from where.
            steps, guidance_scale, seed, callback_on_step_end: as in a call of the pipeline.
            callback_on_guide: gets the guide ``[F, H, W, 3]`` uint8 before anything is denoised.
            callback_on_frames: as in a call of the pipeline.
        """
        settings = self._settings(steps, guidance_scale, seed)
        generator, told = torch.Generator().manual_seed(seed), (callback_on_guide, callback_on_frames)
        return self._along(scene, path, settings, generator, Clock(self.device), callback_on_step_end, *told)

    def _along(
        self,
        scene: Scene,
        wanted: CameraPath,
        settings: dict[str, Any],
        generator: torch.Generator,
        clock: Clock,
        callback: Callback | None,
        on_guide: GuideCallback | None = None,
        on_frames: FramesCallback | None = None,
    ) -> NovelViews:
        with clock.stage("render"):
            extended, before = with_nearest_photos(wanted, scene.cameras) if self.config else (wanted, 0)
            guide = make_guide(scene, extended, self.guide_kind, self.device)
        if self._model is None and self._folder is not None:
            with clock.stage("load"):
                _ = self.model
        kept = slice(before, before + len(wanted))
        if on_guide is not None:
            on_guide(_bytes(guide.images[kept]))

        def ready(numbers: list[int], pictures: Tensor) -> None:
            mine = [row for row, number in enumerate(numbers) if kept.start <= number < kept.stop]
            if on_frames is not None and mine:
                on_frames([numbers[row] - before for row in mine], _bytes(pictures[mine]))

        completed = self._complete(guide, settings, generator, clock, callback, ready)
        return NovelViews(
            frames=_bytes(completed[kept]),
            guide=_bytes(guide.images[kept]),
            coverage=guide.coverage[kept].cpu(),
            completed=_bytes(guide.completed[kept]),
            cameras=wanted.cameras,
            photo=wanted.photo,
            scene=scene,
            seconds=clock.seconds,
            settings=settings,
        )

    @property
    def _window(self) -> int:
        return self.config.frames if self.config else FRAMES

    def _settings(self, steps: int | None, guidance_scale: float | None, seed: int) -> dict[str, Any]:
        common = {"seed": seed, "device": str(self.device), "dtype": str(self.dtype).removeprefix("torch.")}
        if self.config is None:
            return {"model": "none (holes inpainted)", "steps": 0, "guidance_scale": 1.0, **common}
        sampling = self.config.sampling
        steps = sampling.steps if steps is None else steps
        if not 1 <= steps <= self.config.schedule.num_timesteps:
            raise UserError(f"{steps} steps: choose 1 to {self.config.schedule.num_timesteps}")
        scale = sampling.guidance_scale if guidance_scale is None else guidance_scale
        chosen = {name: value for name, value in asdict(self.speed).items() if value != getattr(Speed(), name)}
        return {"model": self.name, "steps": steps, "guidance_scale": scale, **common, **chosen}

    def frame_size(self, photos: Photos, size: tuple[int, int] | None = None) -> tuple[int, int]:
        """``size`` if the model can make it; by default the model's own in the shape of the photos.

        Raises:
            UserError: not on the model's grid.
        """
        grid = self.config.grid if self.config else 2
        native = (self.config.width, self.config.height) if self.config else NATIVE
        if size is None:
            return fitting_size([(im.shape[1], im.shape[0]) for im in photos.images], native, max(grid, GRID))
        if size[0] % grid or size[1] % grid or min(size) < 2 * grid:
            raise UserError(
                f"size {size[0]}x{size[1]}: width and height must be multiples of {grid}, {2 * grid} at least"
            )
        return size

    def _complete(
        self,
        guide: Guide,
        settings: dict[str, Any],
        generator: torch.Generator,
        clock: Clock,
        callback: Callback | None,
        ready: FramesCallback,
    ) -> Tensor:
        """Frames ``[F, H, W, 3]`` in 0..1: photographs as they are, everything else completed.

        Windows share only frames that are known before, and are not blended: what a window made is final.
        """
        if self.config is None:
            ready(list(range(len(guide.photo))), guide.completed)
            return guide.completed
        known = [p is not None for p in guide.photo]
        pictures = guide.completed.clone()
        coverage = guide.coverage.clone()
        there = [i for i, photo in enumerate(known) if photo]
        ready(there, pictures[there])
        for level in plan_windows(known, self.config.frames):
            for windows in _equal_lengths(level):
                index = torch.tensor(windows)
                wanted = ~torch.tensor(known)[index]
                noise = [torch.Generator().manual_seed(_seed(generator)) for _ in windows]
                inputs = Windows(pictures[index], coverage[index], wanted, noise)
                for batch, made in self._sampler(settings, callback).run(inputs, clock.stage):
                    frames = index[batch][wanted[batch]]
                    pictures[frames], coverage[frames] = made.to(pictures), True
                    ready(frames.tolist(), made)
                    for frame in frames.tolist():
                        known[frame] = True
        return pictures

    def _sampler(self, settings: dict[str, Any], callback: Callback | None) -> WindowSampler:
        model = self.model
        assert model is not None

        def on_step(step: int, t: int, latents: Tensor) -> Tensor | None:
            changed = callback(self, step, t, {"latents": latents}) if callback else None
            return changed["latents"] if changed else None

        return WindowSampler(model, self.speed, self.device, settings["steps"], settings["guidance_scale"], on_step)


def _seed(generator: torch.Generator) -> int:
    """A window's own, so that its noise does not depend on which others are denoised with it."""
    return int(torch.randint(2**62, (), generator=generator))


def _equal_lengths(windows: list[list[int]]) -> list[list[list[int]]]:
    lengths = sorted({len(w) for w in windows})
    return [[w for w in windows if len(w) == length] for length in lengths]


def _bytes(pictures: Tensor) -> Tensor:
    return (pictures.clamp(0, 1) * 255).round().byte().cpu()


def _listed(photos: str | Path | Sequence[str | Path]) -> list[str | Path]:
    return [photos] if isinstance(photos, (str, Path)) else list(photos)
