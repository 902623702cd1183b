"""One visit: photos, scene, path and results, from what the user named to what is generated along the path."""

import shlex
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from fvgen.cameras import CameraPath, Cameras, follow
from fvgen.errors import UserError
from fvgen.files import SCENE, write_whole
from fvgen.hub import packaged_models
from fvgen.outputs import output_folder, write_files, write_photos
from fvgen.pipeline import NovelViewPipeline, Size
from fvgen.progress import watched
from fvgen.rendering.guide import Guide, render_points_guide
from fvgen.rendering.lookup import LookupRenderer
from fvgen.scene.formats.transforms_json import read_transforms_json
from fvgen.scene.photos import load_photos
from fvgen.scene.store import read_scene
from fvgen.scene.types import Photos, PointCloud, Scene
from fvgen.viewer.keyframes import KeyPath, empty_path, load_path, save_path, with_size
from fvgen.viewer.result import LiveResult, Result, Workspace, is_result, read_result, shown_whole
from fvgen.viewer.runs import Phase, Reporter, Runner, Status


@dataclass(frozen=True)
class Options:
    """How to build a scene and to generate.

    Attributes:
        geometry, weights, depth: see `fvgen.scene.build.build_scene`.
        stored: a folder that keeps the scene, which then is not built.
        fps: frames per second of the videos.
        size: of the frames, see `NovelViewPipeline.frame_size`.
        steps: of the denoising, by default the model's.
    """

    geometry: str = "auto"
    weights: str | None = None
    fps: float = 10.0
    size: Size = None
    depth: str = "auto"
    stored: Path | None = None
    steps: int | None = None


class Session:
    """One scene, one drawn path, one run at a time, shared by everybody who watches.

    Args:
        photos: of the scene.
        pipeline: what generates.
        workspace: where paths and results go.
        source: how the user names the photos, for the command that is shown.
        result: what to show at once.
        options: how to build the scene and to generate.

    Attributes:
        models: that can be chosen: those of the package, none, and the one that it began with.
        on_change: told what changed: ``"status"``, ``"scene"``, ``"path"``, ``"result"`` or ``"frames"``; it is
            called from several threads.
    """

    def __init__(
        self,
        photos: Photos,
        pipeline: NovelViewPipeline,
        workspace: Workspace,
        source: Sequence[str],
        result: Result | None = None,
        options: Options | None = None,
    ) -> None:
        self.photos, self.pipeline, self.workspace, self.source = photos, pipeline, workspace, list(source)
        self.options = options or Options()
        self.models = list(dict.fromkeys([pipeline.name, *packaged_models(), "none"]))
        self.opened = result
        self.scene: Scene | None = None
        self._renderer: LookupRenderer | None = None  # of the scene, for previews, one at a time
        self._previewing = threading.Lock()
        self.size = pipeline.frame_size(photos, self.options.size)
        self.path = empty_path(self.size)
        self.shown = None if result is None else shown_whole(result)
        self.on_change: Callable[[str], None] = lambda what: None
        self.lock = threading.RLock()
        self.runner = Runner(lambda status: self.on_change("status"))

    @property
    def status(self) -> Status:
        """What the runner does now."""
        return self.runner.status

    def ready(self) -> Scene:
        """The scene.

        Raises:
            UserError: it is not built yet.
        """
        if self.scene is None:
            raise UserError("the scene is not there yet: wait for it")
        return self.scene

    def build(self) -> bool:
        """Start to build the scene. Returns whether it was started."""
        return self.runner.start("scene", self._build)

    def choose(self, model: str, size: Size = None, steps: int | None = None) -> None:
        """How is generated from now on; scene and path stay, and all that was chosen before stays if this is refused.

        Args:
            model: one of ``models``. A folder or a model of the hub is named where the page is opened: a visitor may
                not look for files on this machine, nor make it download.
            size: of the frames, see `NovelViewPipeline.frame_size`.
            steps: of the denoising, by default the model's.

        Raises:
            UserError: another model, a size that the photos do not have, a number of steps that the model cannot take.
        """
        pipeline = self.pipeline
        if model not in self.models:
            raise UserError(f"model {model}: choose one of {', '.join(self.models)}")
        if model != pipeline.name:
            pipeline = NovelViewPipeline.from_pretrained(
                model, device=str(pipeline.device), dtype=pipeline.dtype, deferred=True, speed=pipeline.speed
            )
        if steps is not None and pipeline.config is None:
            raise UserError(f"steps {steps}: without a model there are none")
        pipeline.settings(steps)
        own = pipeline.frame_size(self.photos, size)
        with self.lock, self._previewing:
            self.options = replace(self.options, size=size, steps=steps)
            self.pipeline = pipeline
            if own == self.size:
                return
            self.size, self.path, self._renderer = own, with_size(self.path, own), None
        self.on_change("path")

    def edit(self, change: Callable[[KeyPath], KeyPath]) -> None:
        """Change the drawn path.

        Raises:
            UserError: what ``change`` raises; the path stays as it was.
        """
        with self.lock:
            self.path = change(self.path)
        self.on_change("path")

    def save(self, name: object) -> str:
        """Write the drawn path into the workspace.

        Returns:
            The command that generates along it.

        Raises:
            UserError: a name that is none, a path with fewer than two keys, a scene that is not there yet.
        """
        file = self.workspace.path_file(name)
        scene = self.ready()
        path = self.path
        path.cameras()
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, lambda partial: save_path(path, Path(partial.name)))
        source = self.source if scene.geometry == "given" else [str(self._saved_scene(scene))]
        chosen = ["--model", self.pipeline.name] if self.pipeline.name != "mini" else []
        chosen += [] if self.options.steps is None else ["--steps", str(self.options.steps)]
        chosen += ["--size", f"{path.size[0]}x{path.size[1]}"]
        return shlex.join(["fvgen", "generate", *source, "--path", str(file), *chosen, "--output", "OUT"])

    def load(self, name: object) -> None:
        """Take a path of the workspace as the drawn one.

        Raises:
            UserError: no such path, or one that cannot be read.
        """
        file = self.workspace.path_file(name)
        opened = self.opened if self.scene is None else None
        cameras = self.ready().cameras if opened is None else opened.photo_cameras
        loaded = load_path(file, self.size, cameras[0])
        self.edit(lambda path: loaded)

    def show(self, name: object) -> None:
        """Show a result of the workspace, or the one that was opened.

        Raises:
            UserError: no such result, or an incomplete one; or a run is under way.
        """
        if self.status.job == "generate" and self.status.phase is not Phase.IDLE:
            raise UserError("a run is under way: its frames are shown")
        opened = self.opened is not None and name == self.opened.name
        result = self.opened if opened else read_result(self.workspace.result(name))
        assert result is not None
        self._show(shown_whole(result))

    def generate(self, name: object, seed: int = 0) -> bool:
        """Start to generate along the drawn path.

        Args:
            name: of the result in the workspace.
            seed: of the noise.

        Returns:
            Whether a run was started: there is never a second one beside it.

        Raises:
            UserError: a name that is none or taken, a path with fewer than two keys, a scene that is not there yet.
        """
        folder = self.workspace.result(name)
        if not 0 <= seed < 2**63:
            raise UserError(f"seed {seed}: choose a whole number from 0")
        scene = self.ready()
        path = follow(self.path.cameras(), scene.cameras, self.size)
        if folder.exists():
            raise UserError(f"there is a result {name} already: choose another name")
        pipeline, steps = self.pipeline, self.options.steps
        return self.runner.start(
            "generate", lambda report: self._generate(report, pipeline, scene, path, folder, seed, steps)
        )

    def cancel(self) -> bool:
        """Ask a generation to end. Returns whether there was one."""
        return self.status.job == "generate" and self.runner.cancel()

    def preview(self, frame: int) -> Tensor:
        """The guide of one frame of the drawn path: ``[H, W, 3]`` uint8, what a run would be shown there.

        Before the scene is built, the points of the opened result, without the photos.
        """
        with self.lock:
            path, scene, opened = self.path, self.scene, self.opened
        camera = path.cameras()[frame] if len(path) > 1 else path.keys[:1]
        if scene is None and opened is not None:
            source, share = torch.zeros(len(opened.positions), dtype=torch.int64), torch.ones(len(opened.positions))
            cloud = PointCloud(opened.positions, opened.colors, source, share)
            return render_points_guide(camera, cloud.to(self.pipeline.device)).images()[0]
        scene = self.ready()
        twice = follow(Cameras.concatenate([camera, camera]), scene.cameras)  # a path has two frames at least
        with self._previewing:
            if self._renderer is None:
                self._renderer = self.pipeline.renderer(scene, self.size)
            shown = CameraPath(twice.cameras[:1], twice.photo[:1])
            return self.pipeline.guide(scene, shown, self._renderer).images()[0]

    def close(self, seconds: float | None = None) -> bool:
        """End what runs. Returns whether it ended in time."""
        self.runner.close()
        return self.runner.wait(seconds)

    def _saved_scene(self, scene: Scene) -> Path:
        """The ``transforms_photos.json`` of exactly these cameras, written now if it is not there."""
        for folder in self.workspace.scene_folders():
            listed = folder / "transforms_photos.json"
            if not folder.exists():
                with output_folder(folder) as fresh:
                    write_photos(scene, fresh)
                return listed
            if listed.is_file():
                found, own = read_transforms_json(listed)[0], scene.cameras
                if torch.equal(found.sizes, own.sizes):  # else other photos; numbers are equal up to a file's digits
                    moved = (found.world_from_camera - own.world_from_camera).abs().max()
                    if moved < 1e-9 and (found.intrinsics - own.intrinsics).abs().max() < 1e-6:
                        return listed
        raise AssertionError("there is always a free folder")

    def _build(self, report: Reporter) -> str:
        with watched(report):
            options = self.options
            if options.stored is not None:
                scene = read_scene(options.stored)
            else:
                scene = self.pipeline.scene(self.photos, options.geometry, weights=options.weights, depth=options.depth)
        with self.lock, self._previewing:
            self.scene, self._renderer = scene, None
        self.on_change("scene")
        remarks = "".join(f" ({remark})" for remark in scene.photos.remarks())
        return f"{len(scene.photos)} photos, {int(scene.points.measured.sum()):,} points{remarks}: draw a path"

    def _generate(
        self,
        report: Reporter,
        pipeline: NovelViewPipeline,
        scene: Scene,
        path: CameraPath,
        folder: Path,
        seed: int,
        steps: int | None,
    ) -> str:
        before = self.shown
        width, height = path.cameras.size
        frames = torch.zeros(len(path), height, width, 3, dtype=torch.uint8)
        shown = LiveResult(folder.name, path.cameras, None, frames, torch.zeros(frames.shape[:3], dtype=torch.bool))
        self._show(shown)

        def on_guide(guide: Guide, numbers: list[int]) -> None:
            if shown.guide is None:
                shown.guide = torch.zeros_like(shown.frames)
            for n in numbers:
                shown.guide[n] = guide.images(slice(n, n + 1))[0]
                shown.coverage[n] = guide.coverage[n]
                shown.measured[n] = float(guide.coverage[n].float().mean())
            self.on_change("frames")

        def on_frames(numbers: list[int], pictures: Tensor) -> None:
            shown.frames[numbers] = pictures
            shown.done.update(numbers)
            self.on_change("frames")

        most = pipeline.settings(steps).steps

        def on_step(pipeline: NovelViewPipeline, step: int, t: int, values: dict[str, Tensor]) -> None:
            report(f"denoising, {len(shown.done)} of {len(path)} frames done", step + 1, most)

        try:
            with watched(report), output_folder(folder) as fresh:
                views = pipeline(
                    scene,
                    path=path,
                    steps=steps,
                    seed=seed,
                    callback_on_step_end=on_step,
                    callback_on_guide=on_guide,
                    callback_on_frames=on_frames,
                )
                write_files(views, fresh, self.options.fps)
                self.runner.check()  # the last place where a cancelled run leaves nothing
            shown.video = folder / "views.mp4"
        except BaseException:
            self._show(before)
            raise
        return f"{len(path)} frames in {folder}: {views.guide.measured()}"

    def _show(self, shown: LiveResult | None) -> None:
        self.shown = shown
        self.on_change("result")


def open_session(
    sources: Sequence[str],
    workspace: Path | None = None,
    options: Options | None = None,
    model: str = "mini",
    device: str = "auto",
    dtype: str = "auto",
) -> Session:
    """Read a result or photos; the scene is not built yet.

    Args:
        sources: one folder that ``fvgen generate`` wrote, or what `fvgen.scene.photos.load_photos` takes.
        workspace: default ``OUT-viewer`` beside OUT, or ``fvgen-viewer`` in the current folder.
        options: how to build the scene and to generate.
        model, device, dtype: see `NovelViewPipeline.from_pretrained`.

    Raises:
        UserError: nothing there, an incomplete result, a workspace that is a file, an unknown model.
    """
    options = options or Options()
    pipeline = NovelViewPipeline.from_pretrained(model, device=device, dtype=dtype, deferred=True)
    folder, result = Path(sources[0]), None
    if len(sources) == 1 and is_result(folder):
        result = read_result(folder)
        sources = [str(folder / "transforms_photos.json")]
        options = replace(options, geometry="given", stored=folder if (folder / SCENE).is_file() else None)
        workspace = workspace or folder.resolve().parent / f"{folder.resolve().name}-viewer"
    workspace = workspace or Path("fvgen-viewer")
    if workspace.exists() and not workspace.is_dir():
        raise UserError(f"`workspace` {workspace}: a file; choose a folder")
    photos = load_photos(list(sources))
    return Session(photos, pipeline, Workspace(workspace), sources, result, options)
