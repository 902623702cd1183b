"""Photos to novel views, in reading order: photos, scene, camera path, guide, windows of latents, views."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import wraps
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fvgen.cameras import Cameras
from fvgen.cameras.paths import CameraPath, check_through, follow, path_dolly, path_orbit, path_spiral, path_through
from fvgen.cameras.viewcrafter_paths import PREFIX, ViewCrafterPath, check_request, parse_viewcrafter, plan_viewcrafter
from fvgen.devices import find_device
from fvgen.errors import UserError
from fvgen.hub import find_model
from fvgen.models.model import ModelConfig, VideoModel, read_config
from fvgen.models.speed import Speed, prepare, synchronize
from fvgen.models.windows import Windows, WindowSampler, plan_windows
from fvgen.pictures import to_bytes
from fvgen.progress import bar, bars
from fvgen.rendering.guide import Guide, GuideKind, render_guide, render_points_guide, resample_photo
from fvgen.rendering.holes import blur
from fvgen.rendering.lookup import LookupRenderer
from fvgen.scene.build import build_scene
from fvgen.scene.photos import load_photos
from fvgen.scene.types import Photos, Scene

NATIVE = (256, 160)  # size of a model's pictures where there is none
GRID = 16
FRAMES = 16
NAMED = ("through", "orbit", "spiral", "dolly")  # paths
LONGEST = 1024  # pixels of the views' longer side, where nothing else is asked for
MEASURED_ENOUGH = 0.4  # share of the frames; below it most of what is seen is made up
_LOW = 6.0  # pixels of the model's: what it changes more finely than that is left to the photographs

Callback = Callable[["NovelViewPipeline", int, int, dict[str, Tensor]], dict[str, Tensor] | None]
SceneCallback = Callable[[Photos, Scene], None]
FramesCallback = Callable[[list[int], Tensor], None]
GuideCallback = Callable[["Guide", list[int]], None]
Size = tuple[int, int] | Literal["model"] | None
_log = logging.getLogger(__name__)
M = TypeVar("M", bound=Callable[..., Any])


@dataclass(frozen=True)
class Settings:
    """How views were made.

    Attributes:
        model: its name.
        steps, guidance_scale, seed: of the denoising; 0 steps without a model.
        device, dtype: of the work.
        model_size: (width, height) of the model's own pictures, ``None`` without a model.
        speed: how the model is run.
    """

    model: str
    steps: int
    guidance_scale: float
    seed: int
    device: str
    dtype: str
    model_size: tuple[int, int] | None = None
    speed: Speed = field(default_factory=Speed)

    def as_dict(self) -> dict[str, Any]:
        """As a plain dictionary, with those choices of speed that are not the usual ones."""
        usual = asdict(Speed())
        chosen = {name: value for name, value in asdict(self.speed).items() if value != usual[name]}
        plain = {name: value for name, value in asdict(self).items() if name not in ("speed", "model_size")}
        size = {} if self.model_size is None else {"model_size": list(self.model_size)}
        return {**plain, **size, **chosen}


@dataclass(frozen=True)
class Completed:
    """What a model makes of a guide, at its own size.

    Attributes:
        pictures: ``[F, h, w, 3]`` float32 0..1 on the CPU; of frames that are not there yet,
            what the model is shown, or black.
        settings: how they were made.
    """

    pictures: Tensor
    settings: Settings


@dataclass(frozen=True)
class NovelViews:
    """The views along a path, and everything they were made from.

    Attributes:
        frames: ``[F, H, W, 3]`` uint8; frames that are photographs show the photograph.
        guide: of the same frames, what is known without a model.
        cameras: ``F`` cameras.
        photo: for each frame the index of the photograph it is, or ``None``.
        scene: photos, their cameras, their depth, the point cloud.
        seconds: per stage.
        settings: how they were made.
    """

    frames: Tensor
    guide: Guide
    cameras: Cameras
    photo: list[int | None]
    scene: Scene
    seconds: dict[str, float]
    settings: Settings


class Clock:
    """Seconds per stage; a GPU's queue is emptied at the end of each, or its work would count for the next.

    Args:
        device: of the work.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = dict.fromkeys(("load", "geometry", "render", "encode", "denoise", "decode", "compose"), 0.0)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the seconds of what is done inside this block to a stage."""
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
    if path in NAMED:
        make = {"orbit": path_orbit, "spiral": path_spiral, "dolly": path_dolly}[str(path)]
        return make(scene.cameras, points, frames=frames or 46, size=size)
    if isinstance(path, Cameras):
        return follow(path, scene.cameras, size)
    if isinstance(path, str) and path.startswith(PREFIX):
        path = parse_viewcrafter(path)
    if isinstance(path, ViewCrafterPath):
        return plan_viewcrafter(path, scene.cameras, points, scene.points.photo, frames, size, window)
    given = path_from_file(path, scene.cameras, frames)
    return follow(given, scene.cameras, size)


def path_from_file(path: str | Path, cameras: Cameras | None, frames: int | None) -> Cameras:
    """The cameras of a path file; nothing of the scene but its given cameras is needed, so it is read before any work.

    Raises:
        UserError: unreadable file, no ``cameras`` given in whose world it could be, or another number of ``frames``.
    """
    from fvgen.scene.formats.transforms_json import read_camera_path

    if not Path(path).is_file():
        raise UserError(f"`path` {path}: there is no such file, nor a path of this name")
    if cameras is None:
        raise UserError(
            "`path` FILE is in the world of given cameras: give the photos with their transforms.json, or what an "
            "earlier run made of them"
        )
    first = cameras[0]
    given = read_camera_path(Path(path), default_size=first.size, default_intrinsics=first.intrinsics[0])
    if frames is not None and frames != len(given):
        raise UserError(f"`frames` {frames}: {path} has {len(given)} cameras, one frame each; leave `frames` out")
    return given


def _with_bars(method: M) -> M:
    """Run a method of a pipeline with the pipeline's options of progress bars."""

    @wraps(method)
    def run(self: NovelViewPipeline, *args: Any, **named: Any) -> Any:
        with bars(**self._bars):
            return method(self, *args, **named)

    return cast(M, run)


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
        self._reading: Future[VideoModel] | None = None
        self.name = name
        self.device = torch.device("cpu")
        self.dtype = torch.float32
        self._bars: dict[str, Any] = {}

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
        """A model of the package by name, a model folder, one of the Hugging Face hub, or ``"none"``.

        Args:
            model: its name, its folder, or ``OWNER/MODEL``, which is downloaded unless there is a folder of that name.
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
    def model(self) -> VideoModel | None:
        """The model, read now if it was not yet."""
        if self._model is None and self._folder is not None:
            reading, self._reading = self._reading, None
            self._model = (
                reading.result().to(self._home, self.dtype) if reading else self._read(self._folder, self._home)
            )
            prepare(self._model, self.speed, self.device)
        return self._model

    def _read(self, folder: Path, place: torch.device) -> VideoModel:
        return VideoModel.load(folder, place, self.dtype)

    def _read_ahead(self) -> None:
        """Begin to read the model, if it was not yet, while other work has the GPU's memory to itself."""
        if self._model is None and self._folder is not None and self._reading is None:
            pool = ThreadPoolExecutor(1)
            self._reading = pool.submit(self._read, self._folder, torch.device("cpu"))
            pool.shutdown(wait=False)

    @property
    def _home(self) -> torch.device:
        """Where the model's parts lie while they are not at work."""
        return torch.device("cpu") if self.speed.offload else self.device

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> None:
        """Write the model as a folder that :meth:`from_pretrained` takes.

        Args:
            folder: new or empty.
            dtype: number format of the weights on the disk.

        Raises:
            UserError: there is no model.
        """
        if self.model is None:
            raise UserError("there is no model to save")
        self.model.save(Path(folder), dtype)

    def to(self, device: str | torch.device = "auto", dtype: str | torch.dtype = "auto") -> NovelViewPipeline:
        """Move to a device and number format; ``"auto"``: a GPU if there is one, bfloat16 there if it can."""
        self.device = find_device(device)
        if dtype == "auto":
            fast = self.device.type == "cuda" and torch.cuda.is_bf16_supported()
            self.dtype = torch.bfloat16 if fast else torch.float32
        else:
            self.dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
        self._reading = None  # it was for another place
        if self._model is not None:
            self._model.to(self._home, self.dtype)
            prepare(self._model, self.speed, self.device)
        return self

    def set_progress_bar_config(self, **options: Any) -> None:
        """Options of the progress bars of this pipeline, by default those that are shown on terminals only.

        Args:
            options: ``disable=True`` shows no bars, ``disable=False`` shows them outside a terminal too, ``leave=True``
                leaves them there; see tqdm.
        """
        self._bars = options

    @_with_bars
    @torch.no_grad()
    def __call__(
        self,
        photos: str | Path | Sequence[str | Path] | Photos | Scene,
        *,
        path: str | Path | Cameras | ViewCrafterPath | CameraPath = "through",
        frames: int | None = None,
        steps: int | None = None,
        guidance_scale: float | None = None,
        seed: int = 0,
        size: Size = None,
        geometry: str = "auto",
        geometry_weights: str | None = None,
        depth: str = "auto",
        generator: torch.Generator | None = None,
        callback_on_step_end: Callback | None = None,
        callback_on_scene: SceneCallback | None = None,
        callback_on_guide: GuideCallback | None = None,
        callback_on_frames: FramesCallback | None = None,
    ) -> NovelViews:
        """Make novel views: :meth:`scene`, :meth:`plan`, :meth:`guide`, :meth:`complete` and :meth:`compose` in a row.

        The last three go window by window, so that the first views are there long before the last.

        Args:
            photos: files, a folder, a video, a transforms.json, a COLMAP folder, loaded photos, or a scene that is
                already known.
            path: ``through``, ``orbit``, ``spiral``, ``dolly``, a transforms.json, cameras in the scene's world, a path
                of the original teacher (`fvgen.cameras.viewcrafter_paths`), as text or object, or a planned path.
            frames: number of frames; by default 16 from photo to photo, or as many as the path has.
            steps: denoising steps; by default the model's.
            guidance_scale: by default the model's.
            seed: of the noise, where no ``generator`` is given.
            size: of the views, see :meth:`frame_size`.
            geometry: ``auto``, ``given``, ``colmap``, ``dust3r`` or ``da3``: see `fvgen.scene.build_scene`.
            geometry_weights: of ``dust3r`` or ``da3``: a path, a known name, or ``hub:OWNER/MODEL``.
            depth: ``auto``, ``sweep``, ``dust3r`` or ``da3``: see `fvgen.scene.build_scene`.
            generator: source of the noise, on the CPU.
            callback_on_step_end: as in diffusers, ``(pipeline, step, t, {"latents"}) -> {"latents"} or None``.
            callback_on_scene: gets the photos and the scene, once it is built of them.
            callback_on_guide: gets the guide, and the numbers of those of its frames that are now there.
            callback_on_frames: gets frames as soon as they are final: their numbers on the path, and
                ``[N, H, W, 3]`` uint8 on the CPU. Each comes once. What a callback raises ends the work.

        Raises:
            UserError: for everything the caller can mend.
        """
        clock = Clock(self.device)
        self.settings(steps, guidance_scale, seed)  # complain before any work
        if isinstance(photos, Scene):
            scene = photos
        else:
            with clock.stage("load"):
                loaded = photos if isinstance(photos, Photos) else load_photos(_listed(photos))
            left = f", {len(loaded.dropped)} left out" if loaded.dropped else ""
            _log.info("photos: %d read%s, %.0f s", len(loaded), left, clock.seconds["load"])
            for remark in loaded.remarks():
                _log.info("%s", remark)
            self.frame_size(loaded, size)  # complain before any work
            given = loaded.cameras if geometry in ("auto", "given") else None
            if isinstance(path, str) and path.startswith(PREFIX):
                path = parse_viewcrafter(path)
            if path == "through" and frames is not None:
                check_through(len(loaded), frames)
            elif isinstance(path, ViewCrafterPath) and given is not None:  # else some photos may yet be left out
                check_request(path, len(loaded), frames, self.window)
            elif isinstance(path, str | Path) and str(path) not in NAMED:
                path = path_from_file(path, given, frames)
            self._read_ahead()
            with clock.stage("geometry"):
                scene = self.scene(loaded, geometry, weights=geometry_weights, depth=depth)
            if callback_on_scene is not None:
                callback_on_scene(loaded, scene)
        if not isinstance(path, CameraPath):
            path = self.plan(scene, path, frames, self.frame_size(scene.photos, size))
        with clock.stage("render"):
            guide = self.guide(scene, path, frames=())
        views = torch.zeros_like(guide.completed)
        settings = self.settings(steps, guidance_scale, seed, path.cameras.size)
        with bar(len(path), "views", "view") as done:

            def guided(guide: Guide, numbers: list[int]) -> None:
                if not guide.missing:
                    self._tell_guide(guide, clock.seconds["render"])
                if callback_on_guide is not None:
                    callback_on_guide(guide, numbers)

            def ready(completed: Completed | None, numbers: list[int]) -> None:
                with clock.stage("compose"):
                    made = self.compose(guide, completed, numbers)
                    views[numbers] = made
                done.update(len(numbers))
                if callback_on_frames is not None:
                    callback_on_frames(numbers, made)

            if self.config is None:
                for start in range(0, len(path), FRAMES):
                    with clock.stage("render"):
                        numbers = guide.render(range(start, min(start + FRAMES, len(path))))
                    guided(guide, numbers)
                    ready(None, numbers)
            else:
                self.complete(
                    scene,
                    guide,
                    steps=steps,
                    guidance_scale=guidance_scale,
                    seed=seed,
                    generator=generator,
                    callback_on_step_end=callback_on_step_end,
                    callback_on_guide=guided,
                    callback_on_pictures=ready,
                    clock=clock,
                )
                spent = sum(clock.seconds[stage] for stage in ("encode", "denoise", "decode"))
                _log.info("denoising: %d frames, %d steps, %.0f s", len(path), settings.steps, spent)
        guide = replace(guide, renderer=None)  # the scene's points need not stay on the device
        return NovelViews(views, guide, path.cameras, path.photo, scene, clock.seconds, settings)

    def _tell_guide(self, guide: Guide, seconds: float) -> None:
        """Say how much is measured, and what helps where it is little."""
        measured = guide.measured()
        _log.info("guide: %s, %.0f s", measured, seconds)
        if measured.mean < MEASURED_ENOUGH:
            _log.warning(
                "only %.0f %% of the frames is measured, most of what they show is made up; what helps: photos nearer "
                "to each other, a path nearer to the photos, or `path` through",
                100 * measured.mean,
            )

    @_with_bars
    def scene(
        self,
        photos: Photos,
        geometry: str = "auto",
        *,
        weights: str | None = None,
        depth: str = "auto",
        seed: int = 0,
    ) -> Scene:
        """Photos in, scene out: `fvgen.scene.build.build_scene` on the pipeline's device."""
        return build_scene(photos, geometry, device=self.device, seed=seed, weights=weights, depth=depth)

    def plan(
        self, scene: Scene, path: str | Path | Cameras | ViewCrafterPath, frames: int | None, size: tuple[int, int]
    ) -> CameraPath:
        """The camera path that was asked for, see :func:`plan_path`, in windows of the model's length."""
        return plan_path(scene, path, frames, size, self.window)

    @property
    def window(self) -> int:
        """Frames of the model's windows."""
        return self.config.frames if self.config else FRAMES

    @_with_bars
    @torch.no_grad()
    def guide(
        self,
        scene: Scene,
        path: CameraPath,
        renderer: LookupRenderer | None = None,
        frames: Sequence[int] | None = None,
    ) -> Guide:
        """What is known of the frames of a path without a model, at the views' size; it serves every model.

        Args:
            scene, path: what to see, from where.
            renderer: from :meth:`renderer`, where more than one guide of this scene and size is made.
            frames: to make now, by default all; others are made when :meth:`complete` or :meth:`compose` come to them.
        """
        return render_guide(path.cameras, path.photo, renderer or self.renderer(scene, path.cameras.size), frames)

    def renderer(self, scene: Scene, size: tuple[int, int]) -> LookupRenderer:
        """What looks up views of a scene, on the pipeline's device; it makes each photograph ready once."""
        cloud = scene.points.to(self.device)
        return LookupRenderer(scene.photos.images, scene.cameras, scene.depths, cloud, size)

    @_with_bars
    @torch.no_grad()
    def complete(
        self,
        scene: Scene | None,
        guide: Guide,
        *,
        steps: int | None = None,
        guidance_scale: float | None = None,
        seed: int = 0,
        generator: torch.Generator | None = None,
        callback_on_step_end: Callback | None = None,
        callback_on_guide: GuideCallback | None = None,
        callback_on_pictures: Callable[[Completed, list[int]], None] | None = None,
        clock: Clock | None = None,
    ) -> Completed:
        """What the model makes of a guide, at its own size.

        It is shown the guide at that size, or, if it learnt from them, the scene's points (`ModelConfig.guide`).
        Windows share only frames that are known before, and are not blended: what a window made is final. A path that
        does not begin or end with a photograph gets the nearest one there, for the model alone.

        Args:
            scene: that the guide is of; may be ``None`` where it is not asked: the model is not shown points, or the
                guide is of them, and the path begins and ends with photographs.
            guide: from :meth:`guide`.
            steps, guidance_scale, seed, generator, callback_on_step_end, callback_on_guide: as in a call.
            callback_on_pictures: told which frames are there.
            clock: that is told of the stages.

        Raises:
            UserError: a number of steps that the model cannot take, or there is no model.
        """
        clock = clock or Clock(self.device)
        size = self.model_size(guide.cameras.size)
        settings = self.settings(steps, guidance_scale, seed, guide.cameras.size)
        generator = generator or torch.Generator().manual_seed(seed)
        if self.config is None:
            raise UserError("there is no model to complete a guide")
        if self._model is None:
            with clock.stage("load"):
                _ = self.model
            _log.info("model: %s read", self.name)
        shown = _ModelInput(scene, guide, size, self.config.guide, self.device)
        completed = Completed(shown.pictures[shown.before :][: len(guide)], settings)
        sampler = self._sampler(settings, callback_on_step_end)

        def show(frames: list[int]) -> None:
            with clock.stage("render"):
                numbers = shown.show(frames)
            if callback_on_guide is not None and numbers:
                callback_on_guide(guide, numbers)
            ready([n for n in numbers if guide.photo[n] is not None])

        def ready(numbers: list[int]) -> None:
            if callback_on_pictures is not None and numbers:
                callback_on_pictures(completed, numbers)

        for level in plan_windows(shown.known, self.config.frames):
            for windows in _equal_lengths(level):
                index = torch.tensor(windows)
                wanted = ~torch.tensor(shown.known)[index]
                noise = [torch.Generator().manual_seed(_seed(generator)) for _ in windows]
                groups = sampler.groups(len(windows), index.shape[1], size)
                for group in groups:
                    show(index[[row for batch in group for row in batch]].unique().tolist())
                    batches = [
                        Windows(shown.pictures[index[b]], shown.coverage[index[b]], wanted[b], [noise[i] for i in b])
                        for b in group
                    ]
                    made = sampler.run(batches, len(groups[0][0]), clock.stage)
                    for batch, pictures in zip(group, made):
                        frames = index[batch][wanted[batch]]
                        shown.take(frames.tolist(), pictures, self.config.sampling.told_share)
                        ready([n - shown.before for n in frames.tolist()])
        show(list(range(len(shown.known))))  # photographs that no window ends at
        return completed

    def compose(self, guide: Guide, completed: Completed | None, frames: Sequence[int] | None = None) -> Tensor:
        """Views at the guide's size: what photographs tell, and where they do not, what the model made.

        The model's change of the guide is enlarged and added to the full-size guide: where no photograph tells, all of
        it, so that the model's picture is seen there; where photographs do, only what is smooth in it. There is no
        border between the two: the share goes over as the photographs' does, and changes from beyond it do not leak
        in. At the model's own size the views are its pictures.

        Args:
            guide: of the views.
            completed: the model's pictures; ``None`` leaves the guide.
            frames: which; by default all.

        Returns:
            ``[N, H, W, 3]`` uint8 on the CPU.
        """
        chosen = list(range(len(guide)) if frames is None else frames)
        guide.render(chosen)
        if completed is None:
            return guide.completed[chosen]
        return torch.stack([self._composed(guide, completed.pictures[i], i) for i in chosen])

    def _composed(self, guide: Guide, picture: Tensor, frame: int) -> Tensor:
        full = guide.completed[frame]
        if guide.photo[frame] is not None:
            return full
        if picture.shape == full.shape:
            return to_bytes(picture)
        size, own = guide.cameras.size, (picture.shape[1], picture.shape[0])
        full = full.to(self.device)[None]
        told = guide.told[frame].to(self.device)[None, ..., None].float() / 255
        change = picture.to(self.device)[None] - _resized(full, own)
        share = _resized(told, own)
        smooth = blur(change * share, _LOW) / blur(share, _LOW).clamp(min=1e-3)
        change = torch.lerp(_resized(change, size, signed=True), _resized(smooth, size, signed=True), told)
        return to_bytes(full.float() / 255 + change)[0]

    def settings(
        self,
        steps: int | None = None,
        guidance_scale: float | None = None,
        seed: int = 0,
        size: tuple[int, int] | None = None,
    ) -> Settings:
        """How views of a size are made; what is left open is the model's own.

        Raises:
            UserError: a number of steps that the model cannot take.
        """
        device, dtype = str(self.device), str(self.dtype).removeprefix("torch.")
        if self.config is None:
            return Settings("none (holes filled smoothly)", 0, 1.0, seed, device, dtype)
        sampling = self.config.sampling
        steps = sampling.steps if steps is None else steps
        if not 1 <= steps <= self.config.schedule.num_timesteps:
            raise UserError(f"`steps` {steps}: choose 1 to {self.config.schedule.num_timesteps}")
        scale = sampling.guidance_scale if guidance_scale is None else guidance_scale
        own = None if size is None else self.model_size(size)
        return Settings(self.name, steps, scale, seed, device, dtype, own, self.speed)

    def frame_size(self, photos: Photos, size: Size = None) -> tuple[int, int]:
        """Width and height of the views.

        Args:
            photos: that they are of.
            size: (width, height), even, at most as long as the longest photo; ``"model"`` for the model's own size in
                the photos' shape; by default the photos' size, at most 1024 pixels long.

        Raises:
            UserError: odd, tiny, or longer than the photos.
        """
        sizes = [(image.shape[1], image.shape[0]) for image in photos.images]
        if size == "model":
            native = (self.config.width, self.config.height) if self.config else NATIVE
            return fitting_size(sizes, native, max(self.config.grid, GRID) if self.config else GRID)
        if size is None:
            width, height = sorted(sizes, key=lambda s: s[0] / s[1])[len(sizes) // 2]
            scale = min(1.0, LONGEST / max(width, height))
            width, height = (max(2 * min(round(side * scale / 2), side // 2), 16) for side in (width, height))
            return width, height
        longest = max(sizes, key=max)
        if size[0] % 2 or size[1] % 2 or min(size) < 16:
            raise UserError(f"`size` {size[0]}x{size[1]}: width and height must be even, 16 at least")
        if max(size) > max(longest):
            raise UserError(
                f"`size` {size[0]}x{size[1]}: larger than the photos, of which the longest is {longest[0]}x{longest[1]}"
            )
        return size

    def model_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Width and height of the model's own pictures for views of a size: as many pixels as it is used to, or fewer.

        Views that the model can make itself are made by it; others it sees in nearly their shape, on its grid.
        """
        if self.config is None:
            return size
        grid, native = self.config.grid, (self.config.width, self.config.height)
        small = size[0] * size[1] <= 1.1 * native[0] * native[1]
        if small and not size[0] % grid and not size[1] % grid and min(size) >= 2 * grid:
            return size
        return fitting_size([size], native, max(grid, GRID))

    def _sampler(self, settings: Settings, callback: Callback | None) -> WindowSampler:
        model = self.model
        assert model is not None

        def on_step(step: int, t: int, latents: Tensor) -> Tensor | None:
            changed = callback(self, step, t, {"latents": latents}) if callback else None
            return changed["latents"] if changed else None

        return WindowSampler(model, self.speed, self.device, settings.steps, settings.guidance_scale, on_step)


class _ModelInput:
    """What a model is given of a guide, at the model's size; a path without a photograph at an end gets the nearest.

    Args:
        scene, guide: see :meth:`NovelViewPipeline.complete`.
        size: (width, height) of the model's pictures.
        kind: of guide that the model learnt from.
        device: where points are rendered.

    Attributes:
        pictures: ``[F', h, w, 3]`` float32 0..1, ``before`` frames, those of the path, and perhaps one after.
        coverage: ``[F', h, w]`` bool, where they are measured, photographs or made.
        known: of each whether it is a photograph or made.
    """

    def __init__(
        self, scene: Scene | None, guide: Guide, size: tuple[int, int], kind: GuideKind, device: torch.device
    ) -> None:
        self._scene, self._guide, self._size, self._kind = scene, guide, size, kind
        self._missing = set(range(len(guide)))
        self.before = int(guide.photo[0] is None)
        after = int(guide.photo[-1] is None)
        count = self.before + len(guide) + after
        self.pictures = torch.zeros(count, size[1], size[0], 3)
        self.coverage = torch.zeros(count, size[1], size[0], dtype=torch.bool)
        self.known = [True] * self.before + [photo is not None for photo in guide.photo] + [True] * after
        for end in [0] * self.before + [-1] * after:
            assert scene is not None
            k = int((scene.cameras.centers - guide.cameras[end].centers[0]).norm(dim=1).argmin())
            box = scene.cameras.covering(*guide.cameras.size)[1][k]
            self.pictures[end], self.coverage[end] = resample_photo(scene.photos.images[k], box, *size), True
        self._points = None
        if kind != guide.kind:
            assert scene is not None
            self._points = scene.points.to(device)

    def show(self, frames: Sequence[int]) -> list[int]:
        """Make what is shown of frames of the path; returns those, as the guide counts them, that were not there."""
        numbers = sorted(self._missing.intersection(n - self.before for n in frames))
        self._missing.difference_update(numbers)
        self._guide.render(numbers)
        for n in numbers:
            known = self._guide.photo[n] is not None
            picture, coverage = self._guide.completed[n : n + 1], self._guide.coverage[n : n + 1]
            if self._points is not None and not known:
                points = render_points_guide(self._guide.cameras[n].resized(*self._size), self._points)
                picture, coverage = points.completed, points.coverage
            self.pictures[n + self.before] = _resized(picture, self._size)[0]
            self.coverage[n + self.before] = _resized(coverage[..., None].float(), self._size)[0, ..., 0] > 0.5
        return numbers

    def take(self, frames: list[int], pictures: Tensor, told_share: float) -> None:
        """Pictures ``[N, h, w, 3]`` that the model made of some frames; from now on they are known.

        Where photographs tell the picture, ``told_share`` of what the model changed is taken.
        """
        told = self._guide.told[[frame - self.before for frame in frames], ..., None]
        left_out = (1 - told_share) * _resized(told, self._size)
        self.pictures[frames] = torch.lerp(pictures.to(self.pictures), self.pictures[frames], left_out)
        self.coverage[frames] = True
        for frame in frames:
            self.known[frame] = True


def _seed(generator: torch.Generator) -> int:
    """A window's own, so that its noise does not depend on which others are denoised with it."""
    return int(torch.randint(2**62, (), generator=generator))


def _equal_lengths(windows: list[list[int]]) -> list[list[list[int]]]:
    lengths = sorted({len(w) for w in windows})
    return [[w for w in windows if len(w) == length] for length in lengths]


def _resized(pictures: Tensor, size: tuple[int, int], signed: bool = False) -> Tensor:
    """``[F, H, W, C]`` uint8, or float 0..1, at another (width, height), float and antialiased; signed: no clamp."""
    values = pictures.float() / 255 if pictures.dtype == torch.uint8 else pictures
    if (values.shape[2], values.shape[1]) == size:
        return values
    made = F.interpolate(
        values.movedim(-1, 1), (size[1], size[0]), mode="bicubic", antialias=True, align_corners=False
    ).movedim(1, -1)
    return made if signed else made.clamp(0, 1)


def _listed(photos: str | Path | Sequence[str | Path]) -> list[str | Path]:
    return [photos] if isinstance(photos, (str, Path)) else list(photos)
