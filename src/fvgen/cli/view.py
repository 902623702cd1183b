"""``fvgen view`` and ``fvgen page``: a scene to walk around in, and a result to share."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from fvgen.cli.generate import view_size
from fvgen.errors import UserError
from fvgen.files import check_file, must_exist
from fvgen.packages import require, require_estimator


@dataclass(frozen=True)
class View:
    """Open a page on which a camera path is drawn and generated along.

    It shows photographs, points, guide and frames in space. Give it what fvgen generate wrote, or photos. Paths and
    results go into the workspace, each result a folder as fvgen generate writes it. Ctrl-C ends it.
    """

    source: Annotated[Positional[tuple[str, ...]], arg(metavar="OUT|PHOTOS...")]
    """A folder that fvgen generate wrote, or photos in any form that it takes."""

    model: Annotated[str, arg(metavar="NAME|FOLDER|OWNER/MODEL")] = "mini"
    """mini, mini-teacher, none, a folder that holds a model, or one of the Hugging Face hub, as for fvgen generate."""

    size: Annotated[str | None, arg(metavar="WIDTHxHEIGHT|model")] = None
    """Size of the frames, as for fvgen generate."""

    workspace: Annotated[Path | None, arg(metavar="FOLDER")] = None
    """Where paths and results go; the page writes nowhere else. Default: OUT-viewer beside OUT, or fvgen-viewer."""

    splats: Annotated[Path | None, arg(metavar="FILE")] = None
    """A PLY of 3D Gaussians to show. Default: OUT/splats.ply, if it is there."""

    host: Annotated[str, arg(metavar="ADDRESS")] = "127.0.0.1"
    """Address to listen on. The default is for browsers on this machine; 0.0.0.0 lets everybody in who can reach it."""

    port: Annotated[int, arg(metavar="INT")] = 8080
    """Port to listen on. It must be free; 0 takes any that is."""

    geometry: Literal["auto", "given", "colmap", "dust3r", "da3"] = "auto"
    """Where the cameras of PHOTOS come from, as in fvgen generate."""

    depth: Literal["auto", "sweep", "dust3r", "da3"] = "auto"
    """Where depth comes from, as in fvgen generate."""

    geometry_weights: Annotated[str | None, arg(metavar="NAME|PATH|hub:OWNER/MODEL")] = None
    """Weights of dust3r or da3, as in fvgen generate."""

    device: Annotated[str, arg(metavar="DEVICE")] = "auto"
    """cpu, cuda, cuda:1 and so on, or auto: cuda if there is one."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of the networks; auto: float32 on the CPU, bfloat16 on a GPU that has it."""

    fps: Annotated[float, arg(metavar="FLOAT")] = 10.0
    """Frames per second of the videos."""

    def run(self) -> None:
        """Check what can be checked at once, then open the page."""
        size = view_size(self.size)
        if not self.source:
            raise UserError("nothing to view: name what fvgen generate wrote, or photos")
        if not 0 < self.fps <= 1000:
            raise UserError(f"--fps {self.fps:g}: choose a number above 0 and at most 1000")
        if self.splats is not None and not self.splats.is_file():
            raise UserError(f"--splats {self.splats}: there is no such file")
        require("viser", "fvgen view")
        require_estimator(self.geometry, self.depth)
        must_exist(*self.source)
        from fvgen.viewer.app import check_port

        check_port(self.host, self.port)
        from fvgen.viewer.app import Page, serve
        from fvgen.viewer.session import Options, open_session

        options = Options(self.geometry, self.geometry_weights, self.fps, size, self.depth)
        session = open_session(self.source, self.workspace, options, self.model, self.device, self.dtype)
        splats = self.splats or Path(self.source[0]) / "splats.ply"
        serve(Page(session, self.host, self.port, splats if splats.is_file() else None), partial(print, flush=True))


@dataclass(frozen=True)
class Page:
    """Write a result as one HTML file to share.

    Guide and views side by side, the camera path, the photographs and a summary, and with --splats a scene to walk
    through; the file needs nothing else, no network either.
    """

    out: Annotated[Positional[Path], arg(metavar="OUT")]
    """A folder that fvgen generate wrote."""

    output: Annotated[Path, arg(aliases=["-o"], metavar="FILE")]
    """The file to write, such as result.html."""

    title: Annotated[str | None, arg(metavar="TEXT")] = None
    """Its heading. Default: the name of OUT."""

    megabytes: Annotated[float, arg(metavar="FLOAT")] = 12.0
    """Most megabytes of pictures; longer results get fewer details."""

    splats: Annotated[Path | None, arg(metavar="FILE")] = None
    """A PLY of 3D Gaussians in the world of OUT, such as fvgen reconstruct makes, to walk through on the page."""

    overwrite: bool = False
    """Replace FILE."""

    def run(self) -> None:
        """Check what can be checked at once, then read and write."""
        if not 0.5 <= self.megabytes <= 500:
            raise UserError(f"--megabytes {self.megabytes:g}: choose 0.5 to 500")
        check_file(self.output, self.overwrite)
        must_exist(self.splats)
        if not self.out.is_dir():
            raise UserError(f"{self.out}: no such folder; name what fvgen generate wrote")
        from fvgen.viewer.page import write_page

        size = write_page(self.out, self.output, self.title, self.megabytes, self.splats)
        print(f"{self.output}: {size / 1e6:.1f} MB")
