"""``fvgen render`` and ``fvgen splats``: a flight through 3D Gaussians, and their files."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from fvgen.cli.generate import parse_size
from fvgen.errors import UserError
from fvgen.files import check_file, must_exist
from fvgen.packages import require_renderer
from fvgen.reconstruction.targets import check_flight, check_suffix

_COLORS = {"black": "#000000", "grey": "#808080", "white": "#ffffff"}


@dataclass(frozen=True)
class Render:
    """Render a flight through a scene of 3D Gaussians.

    It takes what fvgen reconstruct and other programs write, and needs no GPU.
    """

    splats: Annotated[Positional[Path], arg(metavar="PLY")]
    """A PLY of 3D Gaussians."""

    output: Annotated[Path, arg(aliases=["-o"], metavar="FILE.mp4|FOLDER")]
    """The video; or a folder, for images/00000.png and so on, and their cameras in transforms.json."""

    path: Annotated[str | None, arg(metavar="NAME|FILE")] = None
    """through (the photos of --scene in their order), orbit, spiral or dolly (around the middle photo), or a
    transforms.json in the scene's world, one frame for each of its cameras. Default: through with --scene, else
    orbit."""

    scene: Annotated[Path | None, arg(metavar="OUT|FILE|FOLDER")] = None
    """The photos whose cameras the path goes by: what fvgen generate wrote, a transforms.json or a COLMAP folder, in
    the scene's world. Without: the view from the origin if all is in it, else cameras around the scene."""

    frames: Annotated[int | None, arg(metavar="INT")] = None
    """Number of frames. Default: 120, as many as a path file has."""

    size: Annotated[str | None, arg(metavar="WIDTHxHEIGHT")] = None
    """Size of the frames in pixels, even. Default: that of the cameras, at most 1024 on the longer side, else
    768x480."""

    up: Literal["x", "y", "z", "minus-x", "minus-y", "minus-z"] | None = None
    """Which way is up, where there are no cameras that tell it. Default: minus-y, as in worlds of COLMAP."""

    background: Annotated[str, arg(metavar="COLOUR")] = "black"
    """Behind the Gaussians: black, grey, white, or #rrggbb."""

    fps: Annotated[float, arg(metavar="FLOAT")] = 24.0
    """Frames per second of the video."""

    renderer: Literal["auto", "torch", "gsplat"] = "auto"
    """torch runs anywhere; gsplat needs a GPU and the extra `gs`; auto: gsplat where it can run."""

    device: Annotated[str, arg(metavar="DEVICE")] = "auto"
    """cpu, cuda, cuda:1 and so on, or auto: cuda if there is one."""

    overwrite: bool = False
    """Replace what is there. It is replaced only once the new flight is whole."""

    def run(self) -> None:
        """Check what can be checked at once, then render."""
        size = parse_size(self.size)
        if size is not None and (size[0] % 2 or size[1] % 2 or min(size) < 16):
            raise UserError(f"--size {self.size}: width and height must be even, 16 at least")
        if self.frames is not None and self.frames < 2:
            raise UserError(f"--frames {self.frames}: a path has at least 2 frames")
        if not 0 < self.fps <= 1000:
            raise UserError(f"--fps {self.fps:g}: choose a number above 0 and at most 1000")
        color = re.fullmatch("#([0-9a-fA-F]{6})", _COLORS.get(self.background, self.background))
        if color is None:
            raise UserError(f"--background {self.background}: choose {', '.join(_COLORS)}, or #rrggbb")
        must_exist(self.splats, self.scene)
        require_renderer(self.renderer)
        check_flight(self.output, self.overwrite, [self.splats])
        import torch

        from fvgen.reconstruction.flight import render_scene

        count = render_scene(
            self.splats,
            self.output,
            path=self.path,
            photos=self.scene,
            frames=self.frames,
            size=size,
            up=self.up,
            background=torch.tensor(list(bytes.fromhex(color[1]))) / 255,
            fps=self.fps,
            renderer=self.renderer,
            device=self.device,
            overwrite=self.overwrite,
        )
        print(f"{count} frames in {self.output}")


@dataclass(frozen=True)
class Splats:
    """Write a scene of 3D Gaussians as another kind of file.

    SPZ is a quarter of the size, with 8 bits for most numbers; glTF has KHR_gaussian_splatting. Both have y up: the
    scene is turned by half a turn about x for them.
    """

    splats: Annotated[Positional[Path], arg(metavar="PLY")]
    """A PLY of 3D Gaussians."""

    output: Annotated[Path, arg(aliases=["-o"], metavar="FILE")]
    """The file to write: .ply, .spz, .glb or .gltf."""

    overwrite: bool = False
    """Replace FILE."""

    def run(self) -> None:
        """Check what can be checked at once, then read and write."""
        must_exist(self.splats)
        check_suffix(self.output)
        check_file(self.output, self.overwrite)
        from fvgen.reconstruction.exports import convert

        print(f"{convert(self.splats, self.output, self.overwrite)} Gaussians in {self.output}")
