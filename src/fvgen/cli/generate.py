"""``fvgen generate``: photos in, novel views out."""

import contextlib
import logging
import re
import shlex
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from fvgen.errors import UserError
from fvgen.files import SCENE, must_exist
from fvgen.hub import find_model
from fvgen.packages import require_estimator

if TYPE_CHECKING:
    import torch

    from fvgen.cameras.viewcrafter_paths import ViewCrafterPath
    from fvgen.pipeline import Size
    from fvgen.scene.types import Photos, Scene

_log = logging.getLogger(__name__)
PATHS = ("through", "orbit", "spiral", "dolly")


@dataclass(frozen=True)
class Generate:
    """Make novel views from a few photos of a place.

    FOLDER receives the fly-through (views.mp4, images/), what the photos alone tell (guide.mp4,
    coverage/), the photos used with their cameras and depth (transforms_photos.json, depth/), the camera of every
    frame (transforms.json, sparse/0/), the coloured points (points.ply), the scene to go on from (scene.safetensors)
    and summary.json. Interrupted, the same command goes on from the scene, once that is there.
    """

    photos: Annotated[Positional[tuple[str, ...]], arg(metavar="PHOTOS...")]
    """Image files, a folder of them, a video, a transforms.json, a COLMAP folder, or the FOLDER of an earlier run, of
    which cameras and depth are taken as they are."""

    output: Annotated[Path, arg(aliases=["-o"], metavar="FOLDER")]
    """The folder to write. It must be empty or new (see --overwrite)."""

    model: Annotated[str, arg(metavar="NAME|FOLDER|OWNER/MODEL")] = "mini"
    """mini (four steps), mini-teacher (its many-step teacher), none (the holes of the guide are filled without a
    network), a folder that holds a model, or one of the Hugging Face hub, which is downloaded."""

    path: Annotated[str, arg(metavar="NAME|FILE")] = "through"
    """through (the photos in their order), orbit, spiral or dolly (around the middle photo), or a transforms.json
    or nerfstudio's camera_path.json in the world of the given cameras or of an earlier run, followed exactly: one
    frame for each of its cameras. The original teacher's paths: viewcrafter:target,d_phi=30,d_theta=-10,d_r=-0.2 (one
    spherical move), viewcrafter:FILE.txt (three lines of numbers: phi, theta, r), viewcrafter:between (straight from
    photo to photo)."""

    frames: Annotated[int | None, arg(metavar="INT")] = None
    """Number of frames. Default: 16 from photo to photo, 46 of orbit, spiral and dolly, as many as a path file has."""

    size: Annotated[str | None, arg(metavar="WIDTHxHEIGHT|model")] = None
    """Size of the frames in pixels, even, up to the photos' own; model: that of the model's own pictures, in the shape
    of the photos. Default: the photos' size, at most 1024 on the longer side."""

    steps: Annotated[int | None, arg(metavar="INT")] = None
    """Denoising steps. Default: what the model was made for."""

    guidance_scale: Annotated[float | None, arg(metavar="FLOAT")] = None
    """Classifier-free guidance. Default: what the model was made for."""

    seed: int = 0
    """Seed of the noise: the same seed gives the same views on the same machine."""

    geometry: Literal["auto", "given", "colmap", "dust3r", "da3"] = "auto"
    """Where the cameras come from: given with the photos, found by structure from motion (colmap), or auto: given if
    there are any, else colmap. dust3r (DUSt3R, not for commercial use) and da3 (Depth Anything 3) are networks that
    find depth too, and whose cameras are refined by matches of the photos; they need packages and weights of their
    own."""

    depth: Literal["auto", "sweep", "dust3r", "da3"] = "auto"
    """Where depth comes from: matching the photos along planes (sweep), the network dust3r or da3, aligned
    with cameras that are given or colmap's, or auto: the network's where the cameras are, else the sweep."""

    geometry_weights: Annotated[str | None, arg(metavar="NAME|PATH|hub:OWNER/MODEL")] = None
    """Weights of dust3r (512_dpt, 512_linear) or da3 (base, small): a name, if they were downloaded before, a file or
    folder, or a model of the Hugging Face hub, which is downloaded."""

    device: Annotated[str, arg(metavar="DEVICE")] = "auto"
    """cpu, cuda, cuda:1 and so on, or auto: cuda if there is one."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of the networks; auto: float32 on the CPU, bfloat16 on a GPU that has it."""

    compile: bool = False
    """Compile the network first (minutes; kept on the disk for the next time). Each number of frames of a window is
    compiled apart. Needs a C++ compiler on a CPU."""

    channels_last: bool = False
    """Keep pictures with their channels last in memory."""

    offload: bool = False
    """Keep only the part of the model that is at work on the GPU: slower, for small GPUs."""

    window_batch: Annotated[int | None, arg(metavar="INT")] = None
    """Windows (what the model takes at once, mostly 16 frames) that are denoised together. Default: as many as the free
    memory of the GPU takes, one on a CPU. The views do not depend on it beyond rounding."""

    fps: Annotated[float, arg(metavar="FLOAT")] = 10.0
    """Frames per second of the videos."""

    splats: bool = False
    """Make 3D Gaussians of the views too: FOLDER/splats.ply, and beside it .mp4, .svg and .json, as fvgen reconstruct
    FOLDER -o FOLDER/splats.ply does, which goes on with it if this is interrupted."""

    overwrite: bool = False
    """Replace what an earlier run left in FOLDER. It is replaced only once the new run has succeeded."""

    quiet: bool = False
    """Say nothing of what is done, show no bars: for scripts. Errors, and what was made, are still told."""

    def run(self) -> None:
        """Check what can be checked at once, then load, compute and write."""
        size = view_size(self.size)
        path, files = _path(self.path)
        if not self.photos:
            raise UserError("no photos: name image files, a folder, a video, a transforms.json or a COLMAP folder")
        if self.frames is not None and self.frames < 2:
            raise UserError(f"--frames {self.frames}: a path has at least 2 frames")
        if self.steps is not None and self.steps < 1:
            raise UserError(f"--steps {self.steps}: at least 1 step is needed")
        if self.window_batch is not None and self.window_batch < 1:
            raise UserError(f"--window-batch {self.window_batch}: at least 1 window is needed")
        if not 0 < self.fps <= 1000:
            raise UserError(f"--fps {self.fps:g}: choose a number above 0 and at most 1000")
        from fvgen.outputs import output_folder, prepare_output, tell_written, write_files

        inputs: list[str | Path] = [*self.photos, *files]
        prepare_output(self.output, self.overwrite, inputs)
        must_exist(*self.photos)
        require_estimator(self.geometry, self.depth)
        if self.model != "none":
            find_model(self.model)
        with output_folder(self.output, self.overwrite, inputs) as folder:
            more = f" and {len(self.photos) - 1} more" if len(self.photos) > 1 else ""
            _log.info("loading: model %s, %s%s", self.model, self.photos[0], more)
            from fvgen.models.speed import Speed
            from fvgen.pipeline import MEASURED_ENOUGH, NovelViewPipeline
            from fvgen.scene.formats.images import PngWriter

            speed = Speed(self.compile, self.channels_last, self.offload, self.window_batch)
            pipeline = NovelViewPipeline.from_pretrained(
                self.model, device=self.device, dtype=self.dtype, deferred=True, speed=speed
            )
            with PngWriter(folder / "images") as images:
                views = pipeline(
                    self._known_scene(pipeline.device) or list(self.photos),
                    path=path,
                    frames=self.frames,
                    steps=self.steps,
                    guidance_scale=self.guidance_scale,
                    seed=self.seed,
                    size=size,
                    geometry=self.geometry,
                    geometry_weights=self.geometry_weights,
                    depth=self.depth,
                    callback_on_scene=partial(self._keep, pipeline.device),
                    callback_on_frames=images.add,
                )
                write_files(views, folder, self.fps, images)
        tell_written(self.output)
        if self.splats:
            self._reconstruct()
        measured = views.guide.measured()
        poor = measured.mean < MEASURED_ENOUGH
        self._tell_next(poor)
        trust = "; too little to be trusted" if poor else ""
        print(f"{len(views.photo)} frames in {self.output}: {measured}{trust}")

    def _known_scene(self, device: "torch.device") -> "Scene | None":
        """The scene, where an earlier run kept it: one that is named, or an interrupted one of the same photos."""
        from fvgen.scene.photos import load_photos
        from fvgen.scene.store import made_of, read_scene

        interrupted = (self.output / SCENE).is_file() and not self.overwrite
        folder = Path(self.photos[0]).expanduser()
        if len(self.photos) == 1 and (folder / SCENE).is_file():
            scene = read_scene(folder)
            for name, asked, own in (("geometry", self.geometry, scene.geometry), ("depth", self.depth, scene.depth)):
                if asked not in ("auto", own):
                    raise UserError(f"--{name} {asked}: {folder} keeps a scene with {name} {own}; name its photos")
            if self.geometry_weights is not None:
                raise UserError(f"--geometry-weights: {folder} keeps a scene with its depth; name its photos")
            if interrupted:
                raise UserError(f"output folder {self.output} holds the scene of an interrupted run; choose another")
        elif interrupted:
            photos, folder = load_photos(list(self.photos)), self.output
            options = (self.geometry, self.depth, self.geometry_weights)
            scene = read_scene(folder, photos, made_of(photos, *options, device))
        else:
            return None
        _log.info("scene: %d photos, their cameras and depth as kept in %s", len(scene.photos), folder)
        return scene

    def _keep(self, device: "torch.device", photos: "Photos", scene: "Scene") -> None:
        """Keep the scene where the result will be, so that an interrupted run goes on from it."""
        from fvgen.scene.store import made_of, write_scene

        if self.output.exists() and {path.name for path in self.output.iterdir()} - {SCENE}:
            return  # an earlier result is replaced at the end, as a whole
        self.output.mkdir(parents=True, exist_ok=True)
        options = (self.geometry, self.depth, self.geometry_weights)
        try:
            write_scene(scene, self.output, made_of=made_of(photos, *options, device))
        except BaseException:
            with contextlib.suppress(OSError):  # it holds an earlier scene
                self.output.rmdir()
            raise
        _log.info("kept: %s, from which the same command goes on if it is interrupted", self.output / SCENE)

    def _tell_next(self, poor: bool) -> None:
        """Say what can be done with the result, in lines to copy."""
        out = shlex.quote(str(self.output))
        _log.info("next:\n  fvgen view %s\n  fvgen page %s -o %s", out, out, shlex.quote(f"{self.output}.html"))
        other = "through" if poor else "orbit"
        if other != self.path:
            _log.info("  fvgen generate %s --path %s -o %s", out, other, shlex.quote(f"{self.output}-{other}"))
        if not self.splats:
            _log.info("  fvgen reconstruct %s -o %s", out, shlex.quote(str(self.output / "splats.ply")))

    def _reconstruct(self) -> None:
        from fvgen.cli.reconstruct import told
        from fvgen.reconstruction.run import reconstruct

        scene = self.output / "splats.ply"
        print(told(reconstruct(self.output, scene, device=self.device, fps=self.fps, overwrite=self.overwrite), scene))


def view_size(text: str | None) -> "Size":
    """``WIDTHxHEIGHT`` as numbers, or ``model``."""
    return "model" if text == "model" else parse_size(text)


def parse_size(text: str | None) -> tuple[int, int] | None:
    """``WIDTHxHEIGHT`` as numbers."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)[xX](\d+)", text)
    if match is None or min(int(match[1]), int(match[2])) < 1:
        raise UserError(f"--size {text}: write WIDTHxHEIGHT in pixels, such as 1024x640")
    return int(match[1]), int(match[2])


def _path(text: str) -> tuple["str | Path | ViewCrafterPath", list[Path]]:
    """The path that was asked for, and the files it was read from."""
    if text in PATHS:
        return text, []
    if text.startswith("viewcrafter:"):
        from fvgen.cameras.viewcrafter_paths import parse_viewcrafter, trajectory_file

        file = trajectory_file(text)
        return parse_viewcrafter(text), [file] if file else []
    if text.lower().endswith(".json"):
        if not Path(text).is_file():
            raise UserError(f"--path {text}: there is no such file")
        return Path(text), [Path(text)]
    if text.lower().endswith(".txt"):
        raise UserError(f"--path {text}: a trajectory in a text file is named viewcrafter:{text}")
    raise UserError(
        f"--path {text}: choose one of {', '.join(PATHS)}, or name a transforms.json (viewcrafter: paths are in --help)"
    )
